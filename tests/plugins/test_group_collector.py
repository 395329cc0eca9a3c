"""The group collector, driven by a stand-in for the policy that hands out numbered responses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError

from mmalign import EncodedResponse, Generated, Record, Response
from mmalign_collectors.group import GroupCollector, GroupConfig

PROMPTS = [Record.from_text(text, ["an old response"], id=text) for text in ("one", "two")]


class Numbering:
    """Generates `<prompt>-<number>`; every third response is cut off."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, records: Sequence[Record], count: int) -> list[list[Generated]]:
        self.calls.append((len(records), count))
        return [[self._generate(record, number) for number in range(count)] for record in records]

    def _generate(self, record: Record, number: int) -> Generated:
        response = Response.from_text("sampled", f"{record.prompt_text}-{number}")
        encoded = EncodedResponse({}, steps=1, size=1)
        return Generated(response, encoded, torch.tensor([-float(number)]), finished=number % 3 != 2)


def test_every_prompt_gets_a_group_of_its_own() -> None:
    rollouts = GroupCollector(group_size=4).collect(PROMPTS, Numbering())
    assert [rollout.record.id for rollout in rollouts] == ["one", "two"]
    assert [[one.response.text for one in rollout.responses] for rollout in rollouts] == [
        [f"{prompt}-{number}" for number in range(4)] for prompt in ("one", "two")
    ]


def test_the_records_hold_the_sampled_responses_and_no_old_ones() -> None:
    (rollout, _) = GroupCollector(group_size=2).collect(PROMPTS, Numbering())
    assert [(response.rid, response.text) for response in rollout.record.responses] == [
        ("r0", "one-0"),
        ("r1", "one-1"),
    ]
    assert rollout.record.responses == tuple(one.response for one in rollout.responses)


def test_log_probs_stay_with_their_responses() -> None:
    (rollout, _) = GroupCollector(group_size=3).collect(PROMPTS, Numbering())
    assert [one.behaviour_logps.item() for one in rollout.responses] == [0.0, -1.0, -2.0]


def test_all_prompts_are_sampled_in_one_call() -> None:
    generate = Numbering()
    GroupCollector(group_size=5).collect(PROMPTS, generate)
    assert generate.calls == [(2, 5)]


def test_unfinished_responses_are_counted_over_all_rounds() -> None:
    collector = GroupCollector(group_size=6)
    for _ in range(2):
        collector.collect(PROMPTS, Numbering())
    assert (collector.collected, collector.unfinished) == (24, 8)


def test_a_policy_that_forgets_a_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        GroupCollector(group_size=2).collect(PROMPTS, lambda records, count: Numbering()(records[:1], count))


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValidationError):
        GroupConfig(group_size=0)
