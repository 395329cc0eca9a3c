"""Metrics: means over the global batch, whatever the cut, and names that never collide."""

from __future__ import annotations

from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import ObjectiveSpec, PluginError
from mmalign.losses.metrics import MetricSums, compute_means
from mmalign.losses.objectives import Objective
from mmalign.names import distinct_names


def make_objective(per: Any, prefix: str = "") -> Objective:
    spec = ObjectiveSpec(name="mine", summary="", loss="x:y", per=per)
    return Objective(spec, lambda: (torch.zeros(1), {}), {}, {}, prefix=prefix)


VALUES = {"lengths": torch.tensor([1, 2]), "step_mask": torch.tensor([[True, False], [True, True]])}


def alone(value: Tensor) -> Tensor:
    return value


def test_step_and_response_metrics_are_divided_by_their_own_count() -> None:
    sums = MetricSums()
    metrics = {"ratio": torch.tensor([[1.0, 99.0], [2.0, 6.0]]), "reward": torch.tensor([2.0, 4.0])}
    sums.add(make_objective("step"), VALUES, torch.tensor([3.0, 2.0]), metrics)
    assert sums.compute(alone) == {"ratio": 3.0, "reward": 3.0}


def test_micro_batches_add_up_to_one_mean() -> None:
    sums, totals = MetricSums(), torch.tensor([4.0, 4.0])
    for rewards in ([1.0, 2.0], [3.0, 6.0]):
        sums.add(make_objective("response"), VALUES, totals, {"reward": torch.tensor(rewards)})
    assert sums.compute(alone) == {"reward": 3.0}


def test_processes_are_added_up() -> None:
    sums = MetricSums()
    sums.add(make_objective("response"), VALUES, torch.tensor([4.0, 4.0]), {"reward": torch.tensor([1.0, 3.0])})
    sums.add_loss(torch.tensor(0.25))
    assert sums.compute(lambda value: 2 * value) == {"loss": 0.5, "reward": 2.0}


def test_padding_of_a_metric_may_hold_anything() -> None:
    sums = MetricSums()
    metric = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    sums.add(make_objective("step"), VALUES, torch.tensor([3.0, 2.0]), {"ratio": metric})
    assert sums.compute(alone) == {"ratio": 2.0}


def test_prefixes_keep_objectives_apart() -> None:
    sums, totals = MetricSums(), torch.tensor([2.0, 2.0])
    for prefix in ("dpo/", "sft/"):
        sums.add(make_objective("response", prefix), VALUES, totals, {"reward": torch.ones(2)})
    assert sums.compute(alone) == {"dpo/reward": 1.0, "sft/reward": 1.0}


@pytest.mark.parametrize("metric", [torch.tensor(3.0), torch.ones(3), torch.ones(2, 3)])
@pytest.mark.parametrize("per", ["response", "step"])
def test_a_metric_that_is_not_per_element_is_refused_by_name(per: str, metric: Tensor) -> None:
    with pytest.raises(PluginError, match="objective 'mine': its metric 'margin' has shape"):
        MetricSums().add(make_objective(per), VALUES, torch.tensor([2.0, 2.0]), {"margin": metric})


def test_a_run_without_objectives_on_held_out_data_has_no_metrics() -> None:
    assert MetricSums().compute(alone) == {}


def test_means_leave_out_what_is_not_known() -> None:
    values = {"reward": torch.tensor([1.0, float("nan"), 3.0]), "nothing": torch.tensor([float("nan")])}
    means = compute_means(values, alone)
    assert means["reward"] == 2.0
    assert isnan(means["nothing"])


def test_means_of_processes_weigh_every_response_alike() -> None:
    # The other process: one response with reward 8; ours: two of 1 and 3. Sums and counts come in order of name.
    other = {"reward|sum": 8.0, "reward|count": 1.0}
    means = compute_means(
        {"reward": torch.tensor([1.0, 3.0])},
        lambda value: value + torch.tensor([other[name] for name in sorted(other)]),
    )
    assert means["reward"] == 4.0


def test_equal_names_get_numbers() -> None:
    assert distinct_names(["length", "vader", "length", "length"]) == ("length", "vader", "length_2", "length_3")


def test_numbers_never_make_two_names_equal() -> None:
    names = distinct_names(["length", "length_2", "length", "length_2"])
    assert len(set(names)) == 4
    assert names[:2] == ("length", "length_2")
