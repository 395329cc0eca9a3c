"""The memory of one DPO step on a small random Llama-like model with an adapter, by three ways of computing it.

- `mmalign`: as it comes; `mmalign-padded`: with `modality.packing: off`.
- `naive`: the textbook's way: logits of all positions, log-softmax over the vocabulary, gather.

All have the same weights, the same number of tokens, float32, and the reference by switching the adapter off. A tiny
step goes before the measured one: it loads what is loaded at the first use.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import LEARNING_RATE
from memory_meter import MemoryMeter
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import mmalign
from mmalign.config.run_config import RunConfig
from mmalign.testing import build_tiny_text_model

SYSTEMS = ("naive", "mmalign-padded", "mmalign")
HIDDEN, LAYERS, HEADS = 128, 4, 4
LORA_RANK = 8
CONTEXT = 16384
PROMPT = 128
WARM_UP = 8
BETA = 0.1


@dataclass(frozen=True)
class MemoryCase:
    """One thing to measure.

    Attributes:
        system: one of `SYSTEMS`.
        length: tokens of each of the two responses.
        vocabulary: tokens of the model.
    """

    system: str
    length: int
    vocabulary: int


def measure(case: MemoryCase, folder: str) -> int:
    """Returns the bytes that one step takes above the loaded model; `folder` may be written to."""
    model = build_model(Path(folder, "model"), case.vocabulary)
    if case.system == "naive":
        return _measure_naive(case, model)
    return _measure_mmalign(case, model, Path(folder))


def build_model(folder: Path, vocabulary: int) -> Path:
    """Writes a random model of any vocabulary; its tokenizer uses only the first few hundred tokens."""
    build_tiny_text_model(folder)
    AutoTokenizer.from_pretrained(folder, model_max_length=CONTEXT).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


# -- mmalign


def _measure_mmalign(case: MemoryCase, model: Path, folder: Path) -> int:
    data = folder / "data.jsonl"
    rows = [_build_pair(WARM_UP, WARM_UP), _build_pair(PROMPT, case.length)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    packing = "off" if case.system == "mmalign-padded" else "auto"
    lora = {"rank": LORA_RANK, "alpha": 2 * LORA_RANK}
    train = {"steps": 2, "batch_size": 1, "learning_rate": LEARNING_RATE, "dtype": "float32"}
    config = {
        "modality": {"name": "text", "model": str(model), "packing": packing, "lora": lora},
        "data": {"train": {"path": str(data), "shuffle": False}},
        "objective": {"name": "dpo", "beta": BETA},
        "reference": {"cache": False},
        "train": train,
        "plugins": [str(Path(__file__).with_name("memory_meter.py"))],
        "output": str(folder / "run"),
    }
    mmalign.train(RunConfig.model_validate(config))
    # A plugin file is a module under its stem.
    meter: MemoryMeter = importlib.import_module("memory_meter").METER
    return meter.rise


def _build_pair(prompt: int, response: int) -> dict[str, str]:
    # Each of these characters is one token.
    return {"prompt": "~" * prompt, "chosen": "^" * response, "rejected": "`" * response}


# -- the naive way


def _measure_naive(case: MemoryCase, model: Path) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    lora = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    network = get_peft_model(network, lora)
    optimiser = torch.optim.AdamW((one for one in network.parameters() if one.requires_grad), lr=LEARNING_RATE)
    meter = MemoryMeter()
    _step_naively(network, optimiser, _draw_pair(WARM_UP, WARM_UP).to(device), WARM_UP)
    meter.start()
    _step_naively(network, optimiser, _draw_pair(PROMPT, case.length).to(device), PROMPT)
    meter.stop()
    return meter.rise


def _draw_pair(prompt: int, response: int) -> Tensor:
    ids = torch.randint(256, (2, prompt + response))
    ids[1, :prompt] = ids[0, :prompt]
    return ids


def _step_naively(network: Any, optimiser: torch.optim.Optimizer, ids: Tensor, prompt: int) -> None:
    with torch.no_grad(), network.disable_adapter():
        reference = _sequence_logps(network, ids, prompt)
    margins = _sequence_logps(network, ids, prompt) - reference  # [2], chosen and rejected
    loss = -logsigmoid(BETA * (margins[0] - margins[1]))
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def _sequence_logps(network: Any, ids: Tensor, prompt: int) -> Tensor:
    log_probs = network(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(dim=-1)
    logps = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)  # [2, prompt + response - 1]
    return logps[:, prompt - 1 :].sum(dim=1)
