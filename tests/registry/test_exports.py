"""What a finished run leaves for other software: an adapter for peft, a merged network, heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import RunConfig, load_run, train
from mmalign.run import Run


@pytest.fixture(scope="module")
def adapted(tiny_text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short dpo run with an adapter on the tiny language model."""
    folder = tmp_path_factory.mktemp("adapted")
    rows = [{"prompt": f"Say {word}.", "chosen": f"{word}!", "rejected": "no"} for word in ("sea", "rain", "music")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(folder / "pairs.jsonl")}},
        "objective": {"name": "dpo"},
        "train": {"steps": 3, "batch_size": 3, "learning_rate": 0.01, "dtype": "float32"},
        "checkpoint": {"merged": True},
        "output": str(folder / "run"),
    }
    return train(RunConfig.model_validate(config))


IDS = torch.tensor([[5, 60, 17, 200, 3]])


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network.eval()(input_ids=IDS).logits
    return found


def test_training_moved_the_policy(adapted: Run, tiny_text_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_text_model)
    assert (logits(adapted.model.network) - logits(base)).abs().max() > 1e-3
    with adapted.model.network.disable_adapter():
        assert torch.equal(logits(adapted.model.network), logits(base))


def test_the_exported_adapter_loads_in_peft(adapted: Run, tiny_text_model: Path) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_text_model)
    expected = logits(adapted.model.network)
    assert torch.allclose(logits(PeftModel.from_pretrained(base, adapted.output / "model")), expected, atol=1e-6)
    automatic = AutoPeftModelForCausalLM.from_pretrained(adapted.output / "model")
    assert torch.allclose(logits(automatic), expected, atol=1e-6)


def test_the_merged_export_gives_the_logits_of_the_policy(adapted: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = AutoModelForCausalLM.from_pretrained(adapted.output / "merged")
    assert torch.allclose(logits(merged), logits(adapted.model.network), atol=1e-5)
    assert AutoTokenizer.from_pretrained(adapted.output / "merged")("sea")["input_ids"]


def test_exporting_leaves_the_policy_as_it_was(adapted: Run) -> None:
    assert tables_of(load_run(adapted.output)) == tables_of(adapted)


def tables_of(run: Run) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in run.trainable().items()}


def test_a_score_head_is_exported_and_loaded(tiny_text_model: Path, adapted: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = adapted.config.model_dump(mode="json")
    config |= {"objective": [{"name": "reward_model"}], "output": str(tmp_path / "scores")}
    run = train(RunConfig.model_validate(config))
    heads = load_file(run.output / "model" / "heads.safetensors")
    assert set(heads) == {"scores.weight", "scores.bias"}
    assert torch.equal(heads["scores.weight"], run.policy.heads["scores"].weight.detach())
    assert tables_of(load_run(run.output)) == tables_of(run)
