"""From K scores to one: thresholds, normalisation, clips, sums, products, minima, constraints; and their state."""

from __future__ import annotations

import json
from math import isnan, nan
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import ConfigError
from mmalign.config.components import CompositionConfig, RewardComponent
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate
from mmalign.errors import TrainingError
from mmalign.rewards.composition import Composition, RunningMoments


def build(*components: dict[str, Any], form: str = "weighted_sum") -> Composition:
    names = [f"r{index}" for index in range(len(components))]
    parsed = [RewardComponent(name=name, **keys) for name, keys in zip(names, components, strict=True)]
    return Composition(names, parsed, CompositionConfig(name=form))


def alone(value: Tensor) -> Tensor:
    """The sum over one process."""
    return value


def column(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


# -- combining


def test_the_composite_is_the_weighted_sum() -> None:
    # 2 * 0.5 + 3 * -1 = -2; 4 * 0.5 + 1 * -1 = 1
    composition = build({"weight": 0.5}, {"weight": -1.0})
    assert composition.compose(torch.tensor([[2.0, 3.0], [4.0, 1.0]])).tolist() == [-2.0, 1.0]


@pytest.mark.parametrize("form", ["weighted_sum", "product", "min"])
def test_a_missing_component_makes_the_composite_nan_unless_its_weight_is_zero(form: str) -> None:
    composed = build({}, {"weight": 0.0}, form=form).compose(torch.tensor([[1.0, nan], [nan, 1.0]])).tolist()
    assert composed[0] == 1.0
    assert isnan(composed[1])


@pytest.mark.parametrize("form", ["product", "min"])
def test_a_missing_second_component_is_not_skipped(form: str) -> None:
    assert isnan(build({}, {}, form=form).compose(torch.tensor([[1.0, nan]])).item())


def test_the_product() -> None:
    assert build({}, {}, form="product").compose(torch.tensor([[2.0, 3.0], [0.0, 5.0]])).tolist() == [6, 0]


def test_the_minimum_is_of_weighted_scores() -> None:
    # min(2 * 2, 3) = 3; min(2 * 1, 3) = 2
    assert build({"weight": 2.0}, {}, form="min").compose(torch.tensor([[2.0, 3.0], [1.0, 3.0]])).tolist() == [3, 2]


def test_two_bad_scores_do_not_make_a_good_product() -> None:
    with pytest.raises(TrainingError, match=r"rewards\.r1: got the score -3, but a product needs scores of at least 0"):
        build({}, {}, form="product").compose(torch.tensor([[2.0, nan], [2.0, -3.0]]))
    assert build({}, {"clip": [0, 1]}, form="product").compose(torch.tensor([[2.0, -3.0]])).tolist() == [0]


def test_without_a_counted_reward_the_sum_is_zero() -> None:
    assert build({"weight": 0.0}).compose(column(1.0, nan)).tolist() == [0, 0]


# -- shaping


def test_a_threshold_gives_one_or_zero_and_keeps_nan() -> None:
    composed = build({"threshold": 0.5}).compose(column(0.4, 0.5, nan)).tolist()
    assert composed[:2] == [0, 1]
    assert isnan(composed[2])


def test_a_clip_limits_scores() -> None:
    assert build({"clip": [-1, 2]}).compose(column(-3.0, 0.5, 3.0)).tolist() == [-1, 0.5, 2]


def test_normalised_rewards_have_mean_zero_and_deviation_one_by_all_that_was_seen() -> None:
    # 1, 3 then 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    composition = build({"normalise": "running"})
    composition.observe(column(1.0, 3.0), alone)
    composition.observe(column(5.0, 7.0), alone)
    assert composition.compose(column(4.0, 4.0 + 5**0.5), adapted=True).tolist() == pytest.approx([0, 1])


def test_moments_over_rounds_are_those_of_all_values() -> None:
    values = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 100
    moments = RunningMoments()
    for part in values.split(7):
        moments.update(part, alone)
    assert moments.count == 50
    assert moments.mean == pytest.approx(values.mean().item(), abs=1e-12)
    assert moments.squares / 50 == pytest.approx(values.var(correction=0).item(), abs=1e-12)


def test_nan_enters_no_moment() -> None:
    composition = build({"normalise": "running"})
    composition.observe(column(1.0, nan, 3.0), alone)
    assert composition.moments["r0"] == RunningMoments(count=2, mean=2, squares=2)
    composed = composition.compose(column(2.0, nan), adapted=True).tolist()
    assert composed[0] == 0
    assert isnan(composed[1])


def test_a_round_without_a_score_changes_no_moment() -> None:
    composition = build({"normalise": "running"})
    composition.observe(column(1.0, 3.0), alone)
    composition.observe(column(nan, nan), alone)
    assert composition.moments["r0"] == RunningMoments(count=2, mean=2, squares=2)


def test_equal_rewards_are_normalised_to_zero() -> None:
    composition = build({"normalise": "running"})
    composition.observe(column(0.1, 0.1, 0.1), alone)
    assert composition.compose(column(0.1), adapted=True).item() == pytest.approx(0, abs=1e-6)


def test_a_clip_of_normalised_rewards_is_in_deviations() -> None:
    composition = build({"normalise": "running", "clip": [-1.5, 1.5]})
    composition.observe(column(0.0, 10.0), alone)
    assert composition.compose(column(100.0, 10.0), adapted=True).tolist() == pytest.approx([1.5, 1])


def test_held_out_rewards_do_not_depend_on_what_training_saw() -> None:
    composition = build({"normalise": "running", "clip": [-1, 1]}, {"constraint": {"at_least": 1.0}})
    rewards = torch.tensor([[5.0, 0.0], [7.0, nan]])
    before = composition.compose(rewards).tolist()
    composition.observe(rewards, alone)
    assert composition.compose(rewards).tolist() == before == [5, 7]


# -- constraints


def test_a_missed_bound_raises_the_multiplier_and_a_kept_one_lowers_it_to_zero() -> None:
    composition = build({"constraint": {"at_least": 1.0, "multiplier_rate": 0.5}})
    composition.observe(column(0.0, 0.5, nan), alone)  # misses by 0.75
    assert composition.multipliers == {"r0": 0.375}
    composition.observe(column(1.5, 1.5), alone)  # 0.5 to spare
    assert composition.multipliers == {"r0": 0.125}
    composition.observe(column(2.0), alone)
    assert composition.multipliers == {"r0": 0.0}


def test_an_upper_bound_is_the_mirror_image() -> None:
    composition = build({"constraint": {"at_most": 1.0, "multiplier_rate": 0.5}})
    composition.observe(column(3.0), alone)
    assert composition.multipliers == {"r0": 1.0}
    # 1.0 * (1 - 3) = -2
    assert composition.compose(column(3.0, 0.0), adapted=True).tolist() == [-2, 1]


def test_what_keeps_to_the_bound_is_added_times_the_multiplier() -> None:
    composition = build({}, {"constraint": {"at_least": 2.0, "initial_multiplier": 3.0}})
    # 10 + 3 * (1 - 2) = 7; 10 + 3 * (4 - 2) = 16
    assert composition.compose(torch.tensor([[10.0, 1.0], [10.0, 4.0]]), adapted=True).tolist() == [7, 16]


def test_a_constrained_share_counts_what_passes_a_threshold() -> None:
    composition = build({"threshold": 0.5, "constraint": {"at_least": 1.0, "multiplier_rate": 1.0}})
    composition.observe(column(0.4, 0.6), alone)
    assert composition.multipliers == {"r0": 0.5}


def test_a_round_without_a_score_leaves_the_multiplier() -> None:
    composition = build({"constraint": {"at_least": 1.0, "initial_multiplier": 0.25}})
    composition.observe(column(nan, nan), alone)
    assert composition.multipliers == {"r0": 0.25}


# -- state


def test_the_state_survives_json_and_goes_on_alike() -> None:
    components = ({"normalise": "running"}, {"constraint": {"at_least": 0.3}})
    first, second = build(*components), build(*components)
    rounds = [torch.rand(5, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    first.observe(rounds[0], alone)
    first.observe(rounds[1], alone)
    second.restore(json.loads(json.dumps(first.state())))
    for composition in (first, second):
        composition.observe(rounds[2], alone)
    assert first.state() == second.state()
    assert torch.equal(first.compose(rounds[2], adapted=True), second.compose(rounds[2], adapted=True))


def test_two_processes_learn_what_one_with_both_shares_learns() -> None:
    rewards = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    components = ({"normalise": "running"}, {"constraint": {"at_least": 0.9}})
    one, two = build(*components), build(*components)
    one.observe(torch.cat([rewards, rewards]), alone)
    two.observe(rewards, lambda value: value * 2)  # the other process has an equal share
    assert two.moments["r0"].count == 12
    assert two.moments["r0"].mean == pytest.approx(one.moments["r0"].mean)
    assert two.moments["r0"].squares == pytest.approx(one.moments["r0"].squares)
    assert two.multipliers == pytest.approx(one.multipliers)
    assert two.multipliers["r1"] > 0


# -- configuration


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rewards": [{"name": "a", "clip": [1, 0]}]}, r"rewards\[0\]\.clip: expected \[low, high\] with low below"),
        ({"rewards": [{"name": "a", "normalise": "runing"}]}, "unknown value 'runing'; did you mean 'running'"),
        ({"rewards": [{"name": "a", "constraint": {}}]}, "expected one of at_least and at_most"),
        ({"rewards": [{"name": "a", "constraint": {"at_leest": 1}}]}, "'at_leest'; did you mean 'at_least'"),
        ({"rewards": [{"name": "a", "weight": 2, "constraint": {"at_least": 1}}]}, "a multiplier in its place"),
        ({"rewards": [{"name": "a", "normalise": "running", "constraint": {"at_most": 1}}]}, "drop one of the two"),
        ({"rewards": [{"name": "a", "clip": [0, 1], "constraint": {"at_most": 1}}]}, "clip: a constraint bounds"),
        ({"composition": {"name": "max"}}, "unknown value 'max'; known: min, product, weighted_sum"),
        ({"composition": {"name": "min"}, "rewards": {"name": "a", "weight": 0}}, "'min' needs a reward with a weight"),
        ({"composition": {"name": "product"}, "rewards": {"name": "a", "weight": 2}}, "'product' has no use for"),
        (
            {"composition": {"name": "product"}, "rewards": {"name": "a", "normalise": "running"}},
            "scores of at least 0",
        ),
    ],
)
def test_a_wrong_composition_is_refused(keys: dict[str, Any], message: str) -> None:
    base = {
        "modality": {"name": "text"},
        "data": {"train": {"path": "p"}},
        "objective": {"name": "grpo"},
        "train": {"steps": 1},
        "output": "o",
    }
    with pytest.raises(ConfigError, match=message):
        validate(RunConfig, base | keys, "")
