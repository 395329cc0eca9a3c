"""Exact KL penalties: the loss, and the quantities behind it against longhand distributions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmalign
from mmalign import ConfigError, PlanError, load_run
from mmalign.config.run_config import RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.planning.assembly import assemble
from mmalign.plugins.registry import load_registry
from mmalign.training.startup import open_data
from mmalign_objectives.penalties.exact_kl import exact_kl_loss

ROWS = [
    {"prompt": "Say it.", "chosen": "good day", "rejected": "bad"},
    {"prompt": "Once more, please.", "chosen": "yes", "rejected": "no, never"},
]


def config_of(folder: Path, model: Path, objective: str, **sections: Any) -> Path:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    base: dict[str, Any] = {
        "modality": {"name": "text", "model": str(model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(data)}},
        "objective": [{"name": "dpo"}, {"name": objective, "weight": 0.5}],
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "dtype": "float32"},
        "output": str(folder / "run"),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**base, **sections}))
    return path


def shift_adapter(run: Any) -> None:
    """Moves the policy away from its reference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in run.trainable().values():
            value.add_(torch.randn_like(value) * 0.3)


def longhand(run: Any, batch: Any, direction: str) -> torch.Tensor:
    """KL of every scored step [N, T] from the networks' own logits, one response at a time."""
    rows = []
    for encoded in batch.responses:
        prompt, response = encoded.tensors["prompt_ids"], encoded.tensors["response_ids"]
        ids = torch.cat([prompt, response])[None]
        network = run.policy.network
        policy = network(ids).logits[0].log_softmax(-1)
        with network.disable_adapter():
            reference = network(ids).logits[0].log_softmax(-1)
        one, other = (reference, policy) if direction == "forward" else (policy, reference)
        kl = (one.exp() * (one - other)).sum(-1)
        rows.append(kl[len(prompt) - 1 :][: len(response)][encoded.tensors["response_mask"]])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.mark.parametrize("packing", ["auto", "off"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_values_and_gradient_are_those_of_whole_distributions(
    direction: str, packing: str, tiny_text_model: Path, tmp_path: Path
) -> None:
    modality = {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}, "packing": packing}
    run = load_run(config_of(tmp_path, tiny_text_model, f"{direction}_kl", modality=modality))
    shift_adapter(run)
    run.assembly.modality.chunk_size = 3
    records = [record for record in open_data(run.assembly, "train")]
    batch = run.backend.prepare(run.backend.encode(records))
    values = run.backend.policy_values(batch)
    expected = longhand(run, batch, direction)
    kl = values[f"reference_{direction}_kl"]
    torch.testing.assert_close(kl, expected, rtol=1e-4, atol=1e-5)
    assert kl[values["step_mask"]].min() > 0
    trained = list(run.trainable().values())
    ours = torch.autograd.grad(kl.sum(), trained)
    theirs = torch.autograd.grad(expected.sum(), trained)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("strategy", [{"strategy": "auto"}, {"strategy": "ema", "decay": 0.5}])
def test_a_run_trains_with_it_and_starts_at_zero(
    strategy: dict[str, Any], tiny_text_model: Path, tmp_path: Path
) -> None:
    mmalign.train(config_of(tmp_path, tiny_text_model, "reverse_kl", reference=strategy))
    first, second = read_metrics(tmp_path / "run")
    assert first["reverse_kl/kl"] == pytest.approx(0, abs=1e-6)
    assert second["reverse_kl/kl"] > 1e-6


def test_full_training_compares_with_a_frozen_copy(tiny_text_model: Path, tmp_path: Path) -> None:
    modality = {"name": "text", "model": str(tiny_text_model)}
    mmalign.train(config_of(tmp_path, tiny_text_model, "forward_kl", modality=modality))
    first, second = read_metrics(tmp_path / "run")
    assert first["forward_kl/kl"] == pytest.approx(0, abs=1e-6)
    assert second["forward_kl/kl"] > 1e-6


def test_a_moving_copy_of_all_weights_is_refused(tiny_text_model: Path, tmp_path: Path) -> None:
    modality = {"name": "text", "model": str(tiny_text_model)}
    reference = {"strategy": "ema", "decay": 0.5}
    config = config_of(tmp_path, tiny_text_model, "reverse_kl", modality=modality, reference=reference)
    with pytest.raises(ConfigError, match=r"reference.strategy: 'ema'.*use auto, or `lora`"):
        load_run(config)


def test_a_modality_without_distributions_is_refused(toy_config: Any) -> None:
    config = RunConfig.model_validate(toy_config(objective={"name": "reverse_kl"}))
    with pytest.raises(PlanError, match=r"'reference_reverse_kl'.*a modality would have to provide 'reverse_kl'"):
        assemble(config, load_registry(files=[Path(config.plugins[0])]))


def test_masked_steps_count_nothing() -> None:
    """KLs 1 and 2, the second masked: losses 1 and 0."""
    kl = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    losses, metrics = exact_kl_loss(kl, torch.tensor([[True, False]]))
    losses.sum().backward()
    assert losses.tolist() == [[1.0, 0.0]] and metrics["kl"].tolist() == [[1.0, 0.0]]
    assert kl.grad.tolist() == [[1.0, 0.0]]
