"""Rewards of several numbers a response: columns, settings of single dimensions, failures, caches, whole runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmalign
from mmalign import ConfigError, Record, Reward, Sample, TrainingError
from mmalign.assembly import assemble, load_registry_for
from mmalign.checkpoint import find_latest, load_checkpoint
from mmalign.components import CompositionConfig, RewardComponent
from mmalign.config import RunConfig, load_config
from mmalign.feedback import sample_records
from mmalign.metrics_log import read_metrics
from mmalign.rewards import BoundReward, RewardScorer
from mmalign.validation import validate

Build = Callable[..., dict[str, Any]]

FUNCTION = """
def rate(responses):
    return [(response.count("0"), len(set(response)) / 10) for response in responses]
"""


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


# -- wrong configurations


@pytest.fixture
def rating(tmp_path: Path) -> dict[str, Any]:
    """A Python function of two outputs."""
    (tmp_path / "rating.py").write_text(FUNCTION, encoding="utf-8")
    return {"name": "python", "function": f"{tmp_path}/rating.py:rate", "outputs": ["zeros", "kinds"]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dimensions": {"zeross": {}}}, r"rewards\.dimensions: unknown dimension 'zeross'; did you mean 'zeros'\?"),
        ({"dimensions": {"zeros": {"wieght": 1}}}, r"dimensions\.zeros\.wieght: unknown key .* did you mean 'weight'"),
        ({"dimensions": {"zeros": {"weight": True}}}, r"dimensions\.zeros\.weight: expected a number, got true"),
        ({"dimensions": {"zeros": {"clip": [2, 1]}}}, r"dimensions\.zeros\.clip: expected \[low, high\]"),
        ({"dimensions": {"zeros": 1}}, r"dimensions\.zeros: expected a mapping"),
        ({"outputs": ["a", "a"]}, r"rewards: the dimensions need names of their own, got 'a', 'a'"),
        (
            {"outputs": [], "dimensions": {"zeros": {}}},
            r"rewards\.dimensions: reward 'python' gives one number here, without dimensions",
        ),
        (
            {"dimensions": {"zeros": {"weight": 2, "constraint": {"at_least": 0}}}},
            r"dimensions\.zeros.*weight: a constraint has a multiplier in its place",
        ),
    ],
)
def test_wrong_dimensions_are_refused(
    keys: dict[str, Any], message: str, rating: dict[str, Any], toy_online: Build
) -> None:
    config = toy_online(rewards=[rating | keys])
    with pytest.raises(ConfigError, match=message):
        assemble(validate(RunConfig, config, ""), load_registry_for(config))


def test_a_product_refuses_weights_of_dimensions(rating: dict[str, Any], toy_online: Build) -> None:
    config = toy_online(rewards=[rating | {"dimensions": {"zeros": {"weight": 0.5}}}], composition={"name": "product"})
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.dimensions\.zeros\.weight: 'product' has no use for weights"):
        validate(RunConfig, config, "")


# -- runs


def test_a_run_logs_notes_and_resumes_every_dimension(
    rating: dict[str, Any], toy_online: Build, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    dimensions = {"zeros": {"normalise": "running"}, "kinds": {"constraint": {"at_most": 0.2}}}
    evaluation = {"evaluators": [{"name": "generation"}]}
    config = toy_online(rewards=[rating | {"dimensions": dimensions}], evaluation=evaluation)
    run = mmalign.train(write_config(config))
    assert run.backend.reward_names == ("python/zeros", "python/kinds")
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert {"reward/python/zeros", "reward/python/kinds", "multiplier/python/kinds"} <= rows[-1].keys()
    assert {"generation/reward/python/zeros", "generation/reward/python/kinds"} <= run.after.keys()
    assert "reward/python/zeros" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rewards"] == ["python/zeros", "python/kinds"]
    (record,) = sample_records(run, [Record.from_text("xx", [])], count=2)
    assert [score.name for score in record.scores] == ["reward"] * 2 + ["python/zeros"] * 2 + ["python/kinds"] * 2
    saved = load_config(tmp_path / "run" / "config.yaml")
    assert saved.rewards == run.config.rewards

    halves = write_config(config | {"output": str(tmp_path / "halves")}, "halves.yaml")
    mmalign.train(halves, {"train.steps": 2})
    mmalign.train(halves, resume=True)
    (one, two) = (load_checkpoint(find_latest(tmp_path / name / "checkpoints")) for name in ("run", "halves"))
    assert torch.equal(one.tensors["policy"]["network.table"], two.tensors["policy"]["network.table"])
    assert one.state["rewards"] == two.state["rewards"]


def test_an_advantage_reads_all_dimensions(
    rating: dict[str, Any], toy_online: Build, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    plugin = tmp_path / "columns_plugin.py"
    plugin.write_text(
        "import mmalign\n"
        "seen = []\n"
        "@mmalign.hookimpl\ndef register_advantages():\n"
        "    needs = ('rewards', 'prompt_index')\n"
        "    spec = mmalign.AdvantageSpec(name='columns', summary='.', function='columns_plugin:centre', needs=needs)\n"
        "    return [spec]\n"
        "def centre(rewards, prompt_index):\n"
        "    seen.append(tuple(rewards.shape))\n"
        "    return (rewards - rewards.mean(dim=0)).sum(dim=1)\n",
        encoding="utf-8",
    )
    config = toy_online(rewards=[rating], advantage={"name": "columns"})
    config["plugins"] = [*config["plugins"], str(plugin)]
    assert mmalign.train(write_config(config)).step == 4
    import columns_plugin  # the run has loaded it

    assert columns_plugin.seen == [(16, 2)] * 4
