"""The generation evaluator on responses, rewards and log-probs written by hand, and its bootstrap on known cases."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mmalign import EncodedResponse, EvaluationContext, Generated, Record, Response, Rollout
from mmalign_evaluators.generation import GenerationConfig, GenerationEvaluator, bootstrap_interval

PROMPTS = [Record.from_text(text, id=text) for text in ("one", "two", "three")]

# Per prompt: (text, steps, finished) of its responses.
SAMPLED = {
    "one": [("a", 1, True), ("b", 2, True)],
    "two": [("c", 2, False), ("d", 1, True)],
    "three": [("e", 2, False), ("f", 2, True)],
}
REWARDS = {"a": (1.0, 10.0), "b": (3.0, 20.0), "c": (5.0, nan), "d": (7.0, 30.0), "e": (8.0, nan), "f": (9.0, nan)}


class WrittenBackend:
    """Stands in for the engine's backend: looks rewards up; the composite is their sum."""

    reward_names: tuple[str, ...] = ("first", "second")
    has_reference = True

    def score_rollouts(self, rollouts: Sequence[Rollout]) -> Tensor:
        return torch.tensor([REWARDS[one.response.text] for rollout in rollouts for one in rollout.responses])

    def compose(self, rewards: Tensor) -> Tensor:
        return rewards.sum(dim=1)

    def quantities_of(self, rollouts: Sequence[Rollout], names: Sequence[str]) -> dict[str, Tensor]:
        assert set(names) == {"policy_logps", "reference_logps"}
        lengths = torch.tensor([one.encoded.steps for rollout in rollouts for one in rollout.responses])
        mask = torch.arange(2) < lengths[:, None]
        # Every counted step is 0.25 nats likelier than under the reference; padding holds rubbish.
        policy = torch.where(mask, -1.0, nan)
        return {"policy_logps": policy, "reference_logps": torch.full((len(lengths), 2), -1.25), "step_mask": mask}


def evaluate(evaluator: GenerationEvaluator, backend: WrittenBackend | None = None, prompts: Any = PROMPTS) -> Any:
    asked: list[tuple[list[str], int]] = []

    def generate(records: Sequence[Record], count: int) -> list[list[Generated]]:
        asked.append(([record.id for record in records], count))
        return [[make_generated(*row) for row in SAMPLED[record.prompt_text][:count]] for record in records]

    context = EvaluationContext(prompts, cast("Any", backend or WrittenBackend()), generate)
    return evaluator.evaluate(context), asked


def make_generated(text: str, steps: int, finished: bool) -> Generated:
    encoded = EncodedResponse({}, steps=steps, size=steps)
    return Generated(Response.from_text("r", text), encoded, torch.zeros(steps), finished)


def test_rewards_are_means_over_prompts_of_what_was_scored() -> None:
    metrics, _ = evaluate(GenerationEvaluator(count=2))
    # first: prompts have 2, 6 and 8.5; second: 15, 30 and nothing; sums: (11 + 23) / 2 = 17, 37 and nothing.
    assert metrics["reward/first"] == pytest.approx(5.5)
    assert metrics["reward/second"] == pytest.approx(22.5)
    assert metrics["reward"] == pytest.approx(27.0)
    # Resamples of two prompts are 17, 27 and 37 with probability 1/4, 1/2 and 1/4.
    assert (metrics["reward_low"], metrics["reward_high"]) == (17.0, 37.0)


def test_kl_is_the_mean_over_responses_of_the_sum_over_steps() -> None:
    metrics, _ = evaluate(GenerationEvaluator(count=2))
    # 10 steps of 0.25 nats over 6 responses; the padded steps hold NaN.
    assert metrics["kl"] == pytest.approx(10 * 0.25 / 6)


def test_length_and_finished_are_means_over_responses() -> None:
    metrics, _ = evaluate(GenerationEvaluator(count=2))
    assert metrics["length"] == pytest.approx(10 / 6)
    assert metrics["finished"] == pytest.approx(4 / 6)


def test_count_and_limit_say_what_is_sampled() -> None:
    assert evaluate(GenerationEvaluator())[1] == [(["one", "two", "three"], 1)]
    metrics, asked = evaluate(GenerationEvaluator(count=2, limit=1))
    assert asked == [(["one"], 2)]
    assert metrics["reward/first"] == 2.0


def test_examples_are_the_first_responses_of_the_latest_evaluation() -> None:
    evaluator = GenerationEvaluator(count=2)
    assert evaluator.examples == []
    for _ in range(2):
        evaluate(evaluator)
    assert [(record.id, response.text) for record, response, _ in evaluator.examples] == [
        ("one", "a"),
        ("two", "c"),
        ("three", "e"),
    ]
    rewards = [reward for _, _, reward in evaluator.examples]
    assert rewards[0] == 11.0 and isnan(rewards[1]) and isnan(rewards[2])


def test_without_rewards_and_reference_only_lengths_are_measured() -> None:
    backend = WrittenBackend()
    backend.reward_names, backend.has_reference = (), False
    evaluator = GenerationEvaluator()
    metrics, _ = evaluate(evaluator, backend)
    assert set(metrics) == {"length", "finished"}
    assert all(isnan(reward) for _, _, reward in evaluator.examples)


def test_all_metrics_are_named_and_floats() -> None:
    metrics, _ = evaluate(GenerationEvaluator())
    names = {"reward", "reward_low", "reward_high", "reward/first", "reward/second", "kl", "length", "finished"}
    assert set(metrics) == names
    assert all(type(value) is float for value in metrics.values())


def test_the_configured_evaluator_has_its_fields() -> None:
    evaluator = GenerationEvaluator(**GenerationConfig(count=3, limit=7, resamples=11, seed=5).model_dump())
    assert (evaluator.count, evaluator.limit, evaluator.resamples, evaluator.seed) == (3, 7, 11, 5)


# -- the bootstrap


def test_the_interval_of_a_fair_coin_is_the_binomial_s() -> None:
    # Resampling 50 zeros and 50 ones draws Binomial(100, 1/2) / 100: its 2.5 % and 97.5 % quantiles are 0.40 and 0.60.
    values = torch.tensor([0.0, 1.0]).repeat(50)
    assert bootstrap_interval(values, resamples=4000) == pytest.approx((0.40, 0.60), abs=0.011)


def test_two_values_have_three_possible_means() -> None:
    # 0, 1/2 and 1 with probability 1/4, 1/2, 1/4: the middle 40 % is all 1/2.
    values = torch.tensor([0.0, 1.0])
    assert bootstrap_interval(values) == (0.0, 1.0)
    assert bootstrap_interval(values, confidence=0.4) == (0.5, 0.5)


def test_the_interval_shifts_and_scales_with_the_values() -> None:
    values = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
    low, high = bootstrap_interval(values)
    assert bootstrap_interval(3 * values - 2) == pytest.approx((3 * low - 2, 3 * high - 2))


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    draws = torch.randn(300, 40, generator=torch.Generator().manual_seed(7))
    intervals = [bootstrap_interval(row, resamples=300) for row in draws]
    covered = sum(low <= 0 <= high for low, high in intervals) / len(intervals)
    # The percentile interval of 40 values is a little narrow; three standard errors of 300 trials are 0.04.
    assert 0.89 <= covered <= 0.98


def test_equal_values_and_a_single_one_give_a_point() -> None:
    assert bootstrap_interval(torch.full((5,), 2.5)) == (2.5, 2.5)
    assert bootstrap_interval(torch.tensor([2.5])) == (2.5, 2.5)


def test_missing_values_are_left_out() -> None:
    assert bootstrap_interval(torch.tensor([nan, 3.0, nan, 3.0])) == (3.0, 3.0)
    assert all(isnan(end) for end in bootstrap_interval(torch.tensor([nan])))
    assert all(isnan(end) for end in bootstrap_interval(torch.zeros(0)))


def test_the_seed_decides_and_the_global_random_state_is_left_alone() -> None:
    values = torch.linspace(0, 1, 30)
    before = torch.get_rng_state()
    first = bootstrap_interval(values, resamples=50)
    assert first == bootstrap_interval(values, resamples=50)
    assert first != bootstrap_interval(values, resamples=50, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        (torch.zeros(2, 2), 0.95, "one dimension"),
        (torch.zeros(2), 1.0, "between 0 and 1"),
        (torch.zeros(2), 0, "between"),
    ],
)
def test_wrong_arguments_of_the_bootstrap_are_refused(values: Tensor, confidence: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, confidence=confidence)
