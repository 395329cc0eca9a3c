"""The value of prompts for A-LoL: the head, its loss, and a run that trains nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import mmalign
from mmalign import ConfigError, Model
from mmalign.monitoring.metrics_log import read_metrics
from mmalign_objectives.heads.prompt_value import PromptValueHead, prompt_value_loss

QUALITY = {"good": 0.9, "bad": 0.1}


def head(**options: Any) -> PromptValueHead:
    torch.manual_seed(0)
    return PromptValueHead(Model(nn.Identity(), hidden_size=8), **{"heads": 2, "max_reward": 3.0, **options})


def context() -> torch.Tensor:
    torch.manual_seed(1)
    states = torch.randn(2, 4, 8)
    states[1, 2:] = torch.nan
    return states


def test_loss_by_hand() -> None:
    losses, metrics = prompt_value_loss(torch.tensor([0.5, 1.0]), torch.tensor([1.0, -1.0]))
    assert losses.tolist() == [0.25, 4.0]
    assert metrics["values"].tolist() == [0.5, 1.0]


def test_values_agree_with_a_longhand_attention() -> None:
    module = head(heads=1)
    values = module(context())
    projections = module.attention.in_proj_weight.chunk(3)
    biases = module.attention.in_proj_bias.chunk(3)
    for row, length in enumerate((4, 2)):
        states = context()[row, :length]
        query = projections[0] @ module.query[0, 0] + biases[0]
        keys, contents = (states @ projections[part].T + biases[part] for part in (1, 2))
        weights = (keys @ query / 8**0.5).softmax(dim=0)
        pooled = module.attention.out_proj(weights @ contents)
        expected = 3 * (module.linear.weight[0] @ pooled + module.linear.bias).sigmoid()
        torch.testing.assert_close(values[row : row + 1], expected, rtol=1e-5, atol=1e-6)


def test_what_is_beyond_a_prompt_counts_for_nothing() -> None:
    module, states = head(), context()
    torch.testing.assert_close(module(states)[1:], module(states[1:, :2]))
    loss = module(states.requires_grad_()).sum()
    loss.backward()
    assert all(torch.isfinite(value.grad).all() for value in module.parameters())


def test_values_are_between_zero_and_the_largest_reward() -> None:
    values = head()(100 * torch.randn(50, 3, 8))
    assert (values >= 0).all() and (values <= 3).all() and values.std() > 0


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 heads do not divide the hidden size 8"):
        head(heads=3)


@pytest.fixture
def config(tmp_path: Path, tiny_text_model: Path) -> Path:
    """Prompts that name the quality of their responses."""
    records = []
    for number in range(8):
        word = ("good", "bad")[number % 2]
        record = mmalign.Record.from_text(f"Say something {word}.", ["It is."], id=f"p{number}").to_dict()
        record["scores"] = [{"item": "r0", "name": "reward", "level": "response", "value": QUALITY[word]}]
        records.append(record)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    sections = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(tmp_path / "data.jsonl")}},
        "objective": {"name": "prompt_value"},
        "train": {"steps": 40, "batch_size": 8, "learning_rate": 1e-2, "dtype": "float32"},
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(sections))
    return tmp_path / "config.yaml"


def test_values_learn_what_prompts_promise_and_the_policy_stays(config: Path) -> None:
    run = mmalign.train(config)
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[-1]["loss"] < 0.01 < rows[0]["loss"]
    names = {id(value): name for name, value in run.policy.named_parameters()}
    trained = [names[id(value)] for group in run.optimiser.param_groups for value in group["params"]]
    assert trained and all(name.startswith("heads.prompt_values.") for name in trained)
    lora = [value for name, value in run.policy.named_parameters() if "lora_B" in name]
    assert lora and not any(value.any() for value in lora)
