"""Reward-augmented data: both halves, the goal in either place, and what the two halves do to a loss."""

from __future__ import annotations

import logging

import pytest
import torch
from transforming import build, compared, pairs_of, rated, transform

from mmalign import ConfigError, DataError, Record
from mmalign_objectives.pairs.dpo import dpo_loss

PAIR = compared(rated({"good": 9.0, "bad": 3.5}), ("r0", "r1"), strength=5.5, annotator="lm:judge")


def prompt_of(record: Record) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in record.prompt]


def test_either_response_wins_at_its_own_score() -> None:
    high, low = transform(PAIR, "rad", template="Score {score}.")
    assert prompt_of(high) == [("system", "Score 9."), ("user", "q")]
    assert prompt_of(low) == [("system", "Score 3.5."), ("user", "q")]
    assert pairs_of(high) == [("good", "bad", 5.5)]
    assert pairs_of(low) == [("bad", "good", 5.5)]
    assert (high.id, low.id) == ("p/0-high", "p/0-low")
    assert high.labels[0].annotator == low.labels[0].annotator == "lm:judge"


def test_the_data_double() -> None:
    records = [PAIR.model_copy(update={"id": f"p{index}"}) for index in range(5)]
    two = compared(rated({"a": 3.0, "b": 2.0, "c": 1.0}, "two"), ("r0", "r1"), ("r0", "r2"))
    augmented = transform([*records, two], "rad")
    assert len(augmented) == 2 * (5 + 2)
    assert len({record.id for record in augmented}) == len(augmented)


def test_a_system_message_keeps_its_text_after_the_goal() -> None:
    record = PAIR.model_copy(update={"prompt": Record.from_text("q", system="Be kind.").prompt})
    high, _ = transform(record, "rad", template="{score}!")
    assert prompt_of(high) == [("system", "9!\n\nBe kind."), ("user", "q")]


def test_without_a_system_role_the_second_half_swaps_as_well() -> None:
    high, low = transform(PAIR, "rad", template="{score}!", role="user")
    assert [prompt_of(high), prompt_of(low)] == [[("user", "9!\n\nq")], [("user", "3.5!\n\nq")]]
    assert pairs_of(low)[0][:2] == ("bad", "good")


def test_equal_scores_contradict_each_other() -> None:
    """DPO's gradient is -beta sigmoid(-beta D), and at D = 0 the two copies have opposite signs."""
    equal = compared(rated({"a": 4.0, "b": 4.0}), ("r0", "r1"))
    high, low = transform(equal, "rad")
    assert high.prompt == low.prompt
    assert pairs_of(high)[0][:2] == pairs_of(low)[0][:2][::-1]
    a, b = torch.tensor([-3.0, -5.0], requires_grad=True).unbind()
    logps = {"a": a, "b": b}
    losses = [
        dpo_loss(*(logps[text].reshape(1) for text in 2 * pairs_of(record)[0][:2]), beta=0.1, label_smoothing=0.0)[0]
        for record in (high, low)
    ]
    gradients = torch.autograd.grad(torch.cat(losses).sum(), [a, b], allow_unused=True)
    assert [float(gradient) for gradient in gradients if gradient is not None] == [0.0, 0.0]
    assert transform(equal, "rad", equal="drop") == []


def test_pairs_against_the_scores_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    record = compared(rated({"a": 2.0, "b": 4.0}), ("r0", "r1"), ("r1", "r0"))
    with caplog.at_level(logging.WARNING):
        assert [pairs_of(one)[0][:2] for one in transform(record, "rad")] == [("b", "a"), ("a", "b")]
    assert "rad: left out 1 pairs (the rejected response has the higher score)" in caplog.text


def test_a_goal_only_conditions_prompts() -> None:
    prompt = Record.from_text("q", id="x")
    asked = transform([prompt, PAIR], "rad", goal=10.0, template="{score}")
    assert [prompt_of(record)[0] for record in asked] == [("system", "10")] * 2
    assert [record.id for record in asked] == ["x", "p"]
    assert pairs_of(asked[1]) == pairs_of(PAIR)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="rad: record 'p': response 'r1' of a pair has no score"):
        transform(compared(rated({"a": 1.0, "b": None}), ("r0", "r1")), "rad")
    with pytest.raises(DataError, match=r"rad: record 'p': no response has the score 'overal'; did you mean 'overall'"):
        transform(PAIR, "rad", score="overal")
    with pytest.raises(ConfigError, match=r"template: expected \{score\} in the template, found none"):
        build("rad", template="Be good.")
    with pytest.raises(ConfigError, match="template: not a template"):
        build("rad", template="{score")
