"""Rewards of several numbers a response: columns, settings of single dimensions, failures, caches."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
import torch

from mmalign import Record, Reward, Sample, TrainingError
from mmalign.config.components import CompositionConfig, RewardComponent
from mmalign.rewards.scorer import BoundReward, RewardScorer

Build = Callable[..., dict[str, Any]]


class Rating(Reward):
    """Applies a function to each output and remembers what it was asked."""

    dimensions = ("helpful", "verbose")

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.calls: list[list[str]] = []

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        self.calls.append([sample.output for sample in samples])
        return [self.function(sample.output) for sample in samples]


class Returning(Rating):
    """Returns what it is told to."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def score(self, samples: Sequence[Sample]) -> Any:
        return self.values


def make_samples(*texts: str) -> list[Sample]:
    record = Record.from_text("Say it.", texts)
    return [Sample(record, response, response.text) for response in record.responses]


def build(*rewards: Reward, form: str = "weighted_sum", **keys: Any) -> RewardScorer:
    bound = [BoundReward(RewardComponent(name="rating", **keys), reward) for reward in rewards]
    return RewardScorer(bound, CompositionConfig(name=form))


def rate(text: str) -> tuple[float, float]:
    return float(len(text)), text.count("a") - 1.0


# -- columns


def test_every_dimension_is_a_column_with_a_name_of_its_own() -> None:
    class Scalar(Reward):
        def score(self, samples: Sequence[Sample]) -> list[float]:
            return [7.0 for _ in samples]

    scorer = build(Rating(rate), Scalar(), Rating(rate))
    assert scorer.names == ("rating/helpful", "rating/verbose", "rating_2", "rating_3/helpful", "rating_3/verbose")
    assert scorer.score(make_samples("a", "bb")).tolist() == [[1, 0, 7, 1, 0], [2, -1, 7, 2, -1]]


def test_no_samples_give_no_rows() -> None:
    assert build(Rating(rate)).score([]).shape == (0, 2)


@pytest.mark.parametrize(
    "values",
    [
        [(1, 2.0), [3, 4]],
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        [np.array([1.0, 2.0]), torch.tensor([3.0, 4.0])],
    ],
)
def test_rows_of_any_sort_are_scores(values: Any) -> None:
    assert build(Returning(values)).score(make_samples("a", "b")).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "score 0 is 1.0; expected 2 numbers: helpful, verbose"),
        ([(1, 2), (3,)], r"score 1 is \(3,\); expected 2 numbers: helpful, verbose"),
        (["ab", "cd"], "score 0 is 'ab'; expected 2 numbers"),
        ([(1, 2), (3, None)], r"score 1 is \(3, None\); expected a finite number, or NaN"),
        ([(1, float("inf")), (3, 4)], r"score 0 is \(1, inf\); expected a finite number"),
        ([(1, 2)], "expected 2 scores, one a sample, got 1"),
        (None, "expected 2 lists of 2 numbers each, got NoneType"),
    ],
)
def test_a_wrong_result_is_an_error_that_names_the_reward(values: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=rf"rewards\.rating: {message}"):
        build(Returning(values)).score(make_samples("a", "b"))


def test_equal_samples_are_scored_once_and_a_cache_keeps_whole_rows() -> None:
    reward = Rating(rate)
    scorer = build(reward, cache=True)
    assert scorer.score(make_samples("a", "bb", "a")).tolist() == [[1, 0], [2, -1], [1, 0]]
    assert scorer.score(make_samples("bb", "aaa")).tolist() == [[2, -1], [3, 2]]
    assert reward.calls == [["a", "bb"], ["aaa"]]


# -- failures


def test_a_failed_sample_counts_once_and_is_nan_in_all_dimensions(caplog: pytest.LogCaptureFixture) -> None:
    def fail_on_bad(text: str) -> Any:
        return ValueError("bad text") if text == "bad" else rate(text)

    scorer = build(Rating(fail_on_bad))
    with caplog.at_level(logging.WARNING):
        scores = scorer.score(make_samples("bad", "aa"))
    assert scores[0].isnan().all() and scores[1].tolist() == [2, 1]
    assert scorer.failures == {"rating": 1}
    assert "rewards.rating: no score for 1 of 2 samples; first cause: ValueError: bad text" in caplog.text


def test_a_missing_dimension_is_a_failure_that_costs_this_dimension_only(caplog: pytest.LogCaptureFixture) -> None:
    reward = Rating(lambda text: (1.0, nan))
    scorer = build(reward, cache=True)
    with caplog.at_level(logging.WARNING):
        ((helpful, verbose),) = scorer.score(make_samples("a")).tolist()
    assert helpful == 1 and isnan(verbose)
    assert scorer.failures == {"rating": 1}
    assert "first cause: it returned NaN for verbose;" in caplog.text
    scorer.score(make_samples("a"))
    assert len(reward.calls) == 2, "what is not whole is not kept"


def test_a_reward_that_fails_on_everything_stops_the_run() -> None:
    with pytest.raises(TrainingError, match=r"rewards\.rating: failed on all 2 samples; first cause: ValueError: no"):
        build(Rating(lambda text: ValueError("no"))).score(make_samples("a", "b"))


# -- settings of single dimensions


def test_a_dimension_takes_its_own_settings_over_those_of_the_reward() -> None:
    # helpful: weight 0.5 of the reward, its own threshold: [1 >= 2, 2 >= 2] = [0, 1]; verbose: -0.3, no threshold.
    scorer = build(Rating(rate), weight=0.5, dimensions={"helpful": {"threshold": 2.0}, "verbose": {"weight": -0.3}})
    composed = scorer.composition.compose(scorer.score(make_samples("a", "bb")))
    assert composed.tolist() == pytest.approx([0.5 * 0 - 0.3 * 0, 0.5 * 1 - 0.3 * -1])


def test_dimensions_that_are_not_named_follow_the_reward() -> None:
    scorer = build(Rating(rate), weight=0.0, dimensions={"helpful": {"weight": 2.0}})
    assert scorer.composition.compose(scorer.score(make_samples("a", "bb"))).tolist() == [2, 4]
    scorer = build(Rating(rate))
    assert scorer.composition.compose(scorer.score(make_samples("a", "bb"))).tolist() == [1, 1]


def test_a_dimension_is_normalised_and_constrained_alone() -> None:
    keys = {"helpful": {"normalise": "running"}, "verbose": {"constraint": {"at_most": -2.0, "multiplier_rate": 1.0}}}
    composition = build(Rating(rate), dimensions=keys).composition
    rewards = torch.tensor([[1.0, 0.0], [3.0, -1.0]])
    composition.observe(rewards, lambda value: value)
    assert composition.moments["rating/helpful"].mean == 2
    # The mean -0.5 misses the bound -2 by 1.5.
    assert composition.multipliers == {"rating/verbose": 1.5}
    composed = composition.compose(rewards, adapted=True)
    assert composed.tolist() == pytest.approx([-1 + 1.5 * -2, 1 + 1.5 * -1], abs=1e-5)
    again = build(Rating(rate), dimensions=keys).composition
    again.restore(json.loads(json.dumps(composition.state())))
    assert torch.equal(again.compose(rewards, adapted=True), composed)


@pytest.mark.parametrize("form", ["product", "min"])
def test_dimensions_are_combined_like_rewards(form: str) -> None:
    scorer = build(Rating(rate), form=form)
    expected = {"product": [6.0, 2.0], "min": [2.0, 1.0]}[form]
    assert scorer.composition.compose(scorer.score(make_samples("aaa", "aa"))).tolist() == expected


def test_a_constraint_of_a_dimension_replaces_what_it_excludes() -> None:
    component = RewardComponent(
        name="rating", weight=0.5, normalise="running", dimensions={"verbose": {"constraint": {"at_most": 1.0}}}
    )
    own = component.shaping("verbose")
    assert (own.weight, own.normalise, own.counted) == (1.0, None, False)
    weighted = {"constraint": {"at_most": 1.0}, "dimensions": {"helpful": {"weight": 2.0}}}
    assert RewardComponent(name="rating", **weighted).shaping("helpful").constraint is None


def test_the_settings_survive_a_dump() -> None:
    dimensions = {"a": {"weight": -1}, "b": {"constraint": {"at_least": 1}}, "c": {"clip": [0, 1]}}
    component = RewardComponent(name="x", weight=0.5, normalise="running", dimensions=dimensions)
    assert RewardComponent(**component.model_dump(mode="json")) == component
