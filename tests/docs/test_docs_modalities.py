"""docs/modalities.md: the modality on the page trains as the page says, and every method and field exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import mmalign
from mmalign import Decoding, Modality, Record
from mmalign.import_strings import load_object
from mmalign.plugins.registry import load_registry

PAGE = (Path(__file__).parents[2] / "docs" / "modalities.md").read_text(encoding="utf-8")


def page_block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


@pytest.fixture
def coins_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coins.py").write_text(page_block("python"), encoding="utf-8")
    (tmp_path / "coins.yaml").write_text(page_block("yaml"), encoding="utf-8")
    prompts = [{"id": str(index), "prompt": "Toss."} for index in range(16)]
    pairs = [{**row, "chosen": "HHH", "rejected": "TT"} for row in prompts]
    for name, rows in (("prompts.jsonl", prompts), ("pairs.jsonl", pairs)):
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return tmp_path


def build_coins() -> Modality:
    spec = load_registry(files=[Path("coins.py")], strict=True).find("modality", "coins", "test").spec
    modality: Modality = load_object(spec.target)()
    return modality


def test_the_coin_learns_to_show_heads(coins_folder: Path) -> None:
    run = mmalign.train("coins.yaml")
    assert run.before["generation/reward"] == pytest.approx(0.5, abs=0.1)
    assert run.after["generation/reward"] > run.before["generation/reward"] + 0.3


def test_the_coin_learns_from_pairs(coins_folder: Path) -> None:
    config = mmalign.load_config("coins.yaml", {"data.train.path": "pairs.jsonl", "data.eval.path": "pairs.jsonl"})
    offline = {"collector": None, "advantage": None, "objective": ({"name": "dpo"},)}
    run = mmalign.train(mmalign.RunConfig.model_validate({**config.model_dump(), **offline}))
    assert run.after["reward_accuracies"] == 1
    assert run.after["generation/reward"] > run.before["generation/reward"] + 0.2


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_coin_keeps_what_the_page_demands(coins_folder: Path, temperature: float) -> None:
    modality = build_coins()
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network
    torch.nn.init.constant_(network.get_parameter("logit"), 0.7)
    decoding = Decoding(temperature=temperature, max_steps=6)
    ((first, second),) = modality.generate(network, [Record.from_text("Toss.")], decoding, 2)
    modality.temperature = temperature
    logps, mask = modality.step_log_probs(network, [first.encoded, second.encoded])
    assert mask.all()
    torch.testing.assert_close(logps, torch.stack([first.behaviour_logps, second.behaviour_logps]))


def test_the_coin_refuses_what_is_no_toss(coins_folder: Path) -> None:
    with pytest.raises(mmalign.DataError, match="record 'a', response 'r0': expected a text of H and T, got 'HX'"):
        build_coins().encode(Record.from_text("Toss.", ["HX"], id="a"))


def test_every_abstract_method_and_every_default_is_named() -> None:
    own = {name for name, value in vars(Modality).items() if callable(value) and not name.startswith("_")}
    assert {name for name in own if f"`{name}`" not in PAGE} == set()
    assert {name for name in Modality.__abstractmethods__ if f"\n| `{name}` |" not in PAGE} == set()


def test_what_a_decoder_owes_is_named() -> None:
    own = {*mmalign.Decoder.__abstractmethods__, "plain_logits"}
    table = PAGE.partition("| method of `Decoder` |")[2].partition("\n\nBefore")[0]
    assert {name for name in own if f"\n| `{name}(" not in table} == set()
    assert {name for name in mmalign.DecoderOutput.__dataclass_fields__ if f"{name}`" not in table} == set()
