"""The reward scorer: what is scored once, what is kept, what becomes NaN, what stops a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from itertools import count
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign import ConfigError, Record, Reward, Sample, TrainingError
from mmalign.config.components import RewardComponent
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign.rewards.scoring import ScoreCache


class Counting(Reward):
    """Applies a function to each output and remembers what it was asked."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.calls: list[list[Any]] = []

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        self.calls.append([sample.output for sample in samples])
        return [self.function(sample.output) for sample in samples]


class Returning(Reward):
    """Returns what it is told to."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def score(self, samples: Sequence[Sample]) -> Any:
        return self.values


def make_samples(*texts: str, prompt: str = "Say it.") -> list[Sample]:
    record = Record.from_text(prompt, texts)
    return [Sample(record, response, response.text) for response in record.responses]


def make_sample(output: Any) -> Sample:
    record = Record.from_text("Say it.", ["x"])
    return Sample(record, record.responses[0], output)


def build(*rewards: Reward, **keys: Any) -> RewardScorer:
    components = [RewardComponent(name=f"r{index}", **keys) for index in range(len(rewards))]
    return RewardScorer([BoundReward(*pair) for pair in zip(components, rewards, strict=True)])


def fail_on_bad(text: str) -> float:
    if text == "bad":
        raise ValueError("bad text")
    return float(len(text))


# -- scoring


def test_scores_have_a_row_for_every_sample_and_a_column_for_every_reward() -> None:
    scores = build(Counting(len), Counting(lambda text: -1)).score(make_samples("a", "bb", "ccc"))
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[1, -1], [2, -1], [3, -1]]


def test_no_samples_give_no_rows() -> None:
    reward = Counting(len)
    assert build(reward).score([]).shape == (0, 1)
    assert reward.calls == []


def test_equal_samples_are_scored_once() -> None:
    reward = Counting(len)
    assert build(reward).score(make_samples("a", "bb", "a")).flatten().tolist() == [1, 2, 1]
    assert [sorted(call) for call in reward.calls] == [["a", "bb"]]


def test_no_score_is_kept_for_the_next_call() -> None:
    reward = Counting(len)
    scorer = build(reward)
    scorer.score(make_samples("a", "bb"))
    assert scorer.score(make_samples("bb", "ccc")).flatten().tolist() == [2, 3]
    assert reward.calls == [["a", "bb"], ["bb", "ccc"]]


def test_a_cache_keeps_scores_but_no_failures() -> None:
    reward = Counting(fail_on_bad)
    scorer = build(reward, cache=True)
    scorer.score(make_samples("a", "bad"))
    reward.function = len
    assert scorer.score(make_samples("bad", "a", "bbbb")).flatten().tolist() == [3, 1, 4]
    assert reward.calls[-1] == ["bad", "bbbb"]


def test_a_cache_does_not_confuse_outputs_without_bytes() -> None:
    reward = Counting(lambda output: output["a"])
    scorer = build(reward, cache=True)
    assert [scorer.score([make_sample({"a": value})]).item() for value in (1, 2)] == [1, 2]


def test_a_full_cache_forgets_the_oldest() -> None:
    cache = ScoreCache(size=2)
    cache.add({b"a": (1.0,), b"b": (2.0,)})
    cache.add({b"c": (3.0,)})
    assert cache.find([b"a", b"b", b"c"]) == {b"b": (2.0,), b"c": (3.0,)}


def test_the_same_response_to_another_prompt_is_another_sample() -> None:
    class PromptLength(Reward):
        def score(self, samples: Sequence[Sample]) -> list[int]:
            return [len(sample.record.prompt_text) for sample in samples]

    both = make_samples("x", prompt="one") + make_samples("x", prompt="three")
    assert build(PromptLength()).score(both).flatten().tolist() == [3, 5]


def test_a_different_step_count_is_another_sample() -> None:
    class Steps(Reward):
        def score(self, samples: Sequence[Sample]) -> list[int]:
            return [sample.steps or 0 for sample in samples]

    (sample,) = make_samples("x")
    longer = [Sample(sample.record, sample.response, "x", steps) for steps in (3, 4)]
    assert build(Steps()).score(longer).flatten().tolist() == [3, 4]


def palette_image(colour: str) -> Image.Image:
    return Image.new("RGB", (2, 2), colour).convert("P", palette=Image.Palette.ADAPTIVE)


def cut_image() -> Image.Image:
    buffer = BytesIO()
    Image.effect_noise((20, 20), 50).save(buffer, format="PNG")
    return Image.open(BytesIO(buffer.getvalue()[:200]))


OUTPUTS = {
    "text": ("one", "two"),
    "float array": (np.zeros(3), np.ones(3)),
    "same bytes, other shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "same bytes, other type": (np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)),
    "image": (Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")),
    "same indices, other palette": (palette_image("red"), palette_image("blue")),
    "images that cannot be read": (cut_image(), cut_image()),
    "tensor": (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    "scalar tensor": (torch.tensor(1), torch.tensor(2)),
    "waveform with rate": ((np.zeros(2), 16_000), (np.ones(2), 16_000)),
    "objects": (np.array([{}, 1], dtype=object), np.array([{}, 2], dtype=object)),
    "dictionary": ({"a": 1}, {"a": 2}),
    "nothing": (None, 0),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_any_type_are_told_apart(name: str) -> None:
    first, second = OUTPUTS[name]
    reward = Counting(lambda output: 1.0 if output is first else 2.0)
    assert build(reward).score([make_sample(first), make_sample(second)]).flatten().tolist() == [1, 2]


@pytest.mark.parametrize("name", ["text", "float array", "image", "tensor", "scalar tensor"])
def test_outputs_with_bytes_are_equal_by_content(name: str) -> None:
    output = OUTPUTS[name][0]
    equal = output.clone() if isinstance(output, torch.Tensor) else output if name == "text" else output.copy()
    reward = Counting(lambda _: 1.0)
    build(reward).score([make_sample(output), make_sample(equal)])
    assert [len(call) for call in reward.calls] == [1]


def test_equal_names_are_numbered() -> None:
    rewards = [BoundReward(RewardComponent(name=name), Counting(len)) for name in ("a", "b", "a", "a")]
    assert RewardScorer(rewards).names == ("a", "b", "a_2", "a_3")


# -- failures


def test_a_failing_sample_is_nan_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    scorer = build(Counting(fail_on_bad))
    with caplog.at_level(logging.WARNING):
        scores = scorer.score(make_samples("ok", "bad", "fine")).flatten().tolist()
        scorer.score(make_samples("good", "bad"))
    assert scores[0] == 2 and scores[2] == 4
    assert isnan(scores[1])
    assert scorer.failures == {"r0": 2}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "rewards.r0: no score for 1 of 3 samples; first cause: ValueError: bad text" in message


def test_a_failed_sample_is_tried_again() -> None:
    reward = Counting(fail_on_bad)
    scorer = build(reward)
    scorer.score(make_samples("ok", "bad"))
    reward.function = len
    assert scorer.score(make_samples("ok", "bad")).flatten().tolist() == [2, 3]


def test_one_failing_reward_leaves_the_others_alone() -> None:
    scorer = build(Counting(fail_on_bad), Counting(len))
    assert scorer.score(make_samples("ok", "bad"))[:, 1].tolist() == [2, 3]
    assert scorer.failures == {"r0": 1, "r1": 0}


def test_a_returned_nan_is_a_counted_failure(caplog: pytest.LogCaptureFixture) -> None:
    scorer = build(Counting(lambda text: nan))
    with caplog.at_level(logging.WARNING):
        assert isnan(scorer.score(make_samples("a")).item())
    assert scorer.failures == {"r0": 1}
    assert "it returned NaN" in caplog.text


def test_an_exception_in_place_of_a_score_is_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    scorer = build(Returning([1.0, TimeoutError("no answer in 5 s")]))
    with caplog.at_level(logging.WARNING):
        first, second = scorer.score(make_samples("a", "b")).flatten().tolist()
    assert first == 1 and isnan(second)
    assert "no score for 1 of 2 samples; first cause: TimeoutError: no answer in 5 s" in caplog.text


def test_a_reward_that_fails_on_everything_stops_the_run() -> None:
    with pytest.raises(TrainingError, match=r"rewards\.r0: failed on all 2 samples; first cause: ValueError: bad text"):
        build(Counting(lambda text: fail_on_bad("bad"))).score(make_samples("a", "b"))


def test_a_configuration_error_is_not_a_failed_sample() -> None:
    def misconfigured(text: str) -> float:
        raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        build(Counting(misconfigured)).score(make_samples("a", "b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "expected 2 scores, one a sample, got 1"),
        ([1.0, 2.0, 3.0], "expected 2 scores, one a sample, got 3"),
        ([1.0, "2"], "score 1 is '2'; expected a finite number"),
        ([1.0, None], "score 1 is None; expected a finite number"),
        ([float("inf"), 1.0], "score 0 is inf; expected a finite number"),
        (torch.ones(2, 1), r"score 0 is \[1.0\]; expected a finite number"),
        (None, "expected a list of 2 numbers, got NoneType"),
        (1.0, "expected a list of 2 numbers, got float"),
        ("ab", "expected a list of 2 numbers, got str"),
        ({"a": 1.0, "b": 2.0}, "expected a list of 2 numbers, got dict"),
        ({1.0, 2.0}, "expected a list of 2 numbers, got set"),
        ((one for one in [1.0]), "expected 2 scores, one a sample, got 1"),
        (count(), "expected 2 scores, one a sample, got 3"),
        ([1.0, 2j], "score 1 is 2j; expected a finite number"),
        ([1.0, 10**400], "score 1 is 1000.*; expected a finite number"),
        ([1.0, 1e300], r"score 1 is 1e\+300; expected a finite number"),
        ([1.0, torch.ones(1)], r"score 1 is \[1.0\]; expected a finite number"),
        (np.array([1.0, 2j]), r"score 0 is \(1\+0j\); expected a finite number"),
    ],
)
def test_a_wrong_result_is_an_error_that_names_the_reward(values: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=rf"rewards\.r0: {message}"):
        build(Returning(values)).score(make_samples("a", "b"))


SCORES = {
    "tuple": lambda: (1, 2.0),
    "truth": lambda: [True, 2],
    "array": lambda: np.array([1.0, 2.0]),
    "tensor": lambda: torch.tensor([1.0, 2.0]),
    "tensor with a gradient": lambda: torch.tensor([1.0, 2.0], requires_grad=True),
    "list of tensors": lambda: [torch.tensor(1.0), torch.tensor(2, dtype=torch.bfloat16)],
    "list of numbers of numpy": lambda: [np.float32(1), np.int64(2)],
    "generator": lambda: (float(one) for one in (1, 2)),
    "fractions": lambda: [Fraction(1), Decimal(2)],
}


@pytest.mark.parametrize("values", [make() for make in SCORES.values()], ids=list(SCORES))
def test_lists_arrays_and_tensors_of_numbers_are_scores(values: Any) -> None:
    assert build(Returning(values)).score(make_samples("a", "b")).flatten().tolist() == [1, 2]
