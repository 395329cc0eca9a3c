"""The gap between the log-probs of the sampler and those of the trainer, measured and logged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import train
from mmalign.losses.sampler_gap import SamplerGap


def values(policy: list[list[float]], behaviour: list[list[float]], mask: list[list[int]]) -> dict[str, Tensor]:
    return {
        "policy_logps": torch.tensor(policy, requires_grad=True),
        "behaviour_logps": torch.tensor(behaviour),
        "step_mask": torch.tensor(mask, dtype=torch.bool),
        "sampled": torch.ones(len(mask), dtype=torch.bool),
    }


FIRST = values([[-1.0, -2.0], [-3.0, 99.0]], [[-1.0, -2.2], [-3.05, 0.0]], [[1, 1], [1, 0]])
SECOND = values([[-1.0]], [[-1.5]], [[1]])


def test_gap_is_over_scored_steps_of_all_micro_batches() -> None:
    """Gaps 0, 0.2, 0.05 and 0.5 of the four scored steps; the padded one of 99 does not count."""
    gap = SamplerGap()
    gap.add(FIRST)
    gap.add(SECOND)
    measured = gap.compute(lambda tensor: tensor)
    expected = {"sampler_gap/mean": 0.75 / 4, "sampler_gap/max": 0.5, "sampler_gap/large": 2 / 4}
    assert measured == pytest.approx(expected, abs=1e-6)


def test_gap_is_over_the_steps_of_all_processes() -> None:
    """A second process has one step with a gap of 1 nat."""
    gap = SamplerGap()
    gap.add(FIRST)
    gap.add(SECOND)
    measured = gap.compute(lambda tensor: torch.cat([tensor, torch.tensor([1.0, 1.0, 1.0, 1.0])]))
    expected = {"sampler_gap/mean": 1.75 / 5, "sampler_gap/max": 1.0, "sampler_gap/large": 3 / 5}
    assert measured == pytest.approx(expected, abs=1e-6)


def test_gap_is_over_sampled_responses() -> None:
    """The behaviour of the second response, a stored one, is not known; a micro-batch may hold such ones alone."""
    gap = SamplerGap()
    stored = {**SECOND, "behaviour_logps": torch.full((1, 1), torch.nan), "sampled": torch.tensor([False])}
    gap.add(stored)
    assert gap.empty
    gap.add({**FIRST, "sampled": torch.tensor([True, False])})
    assert not gap.empty
    measured = gap.compute(lambda tensor: tensor)
    expected = {"sampler_gap/mean": 0.1, "sampler_gap/max": 0.2, "sampler_gap/large": 0.5}
    assert measured == pytest.approx(expected, abs=1e-6)


def test_no_gap_without_behaviour() -> None:
    gap = SamplerGap()
    gap.add({name: value for name, value in FIRST.items() if name != "behaviour_logps"})
    assert gap.compute(lambda tensor: tensor) == {}


def test_gap_is_logged_once_a_round(
    toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """Two steps a round: the second one's policy has changed, so only the first is compared."""
    settings = {"steps": 4, "batch_size": 2, "prompts_per_round": 4, "learning_rate": 0.5}
    train(write_config(toy_online(train=settings)))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    measured = [line.get("sampler_gap/mean") for line in steps]
    assert [gap is not None for gap in measured] == [True, False, True, False]
    assert max(measured[0], measured[2]) < 1e-5
