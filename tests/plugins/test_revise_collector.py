"""The revise collector: what each revision sees, and what is left of the answers before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback_records import write_feedback

from mmalign import DataError, EncodedResponse, Generated, Record, Response, train
from mmalign.monitoring.metrics_log import read_metrics
from mmalign_collectors.revise import ReviseCollector

PROMPTS = [Record.from_text("one", ["an old answer"], id="1"), Record.from_text("two", id="2")]


class Counting:
    """Answers with the turns that it saw, in brackets, and the number of the answer."""

    def __init__(self) -> None:
        self.seen: list[Record] = []

    def __call__(self, records: Sequence[Record], count: int) -> list[list[Generated]]:
        self.seen += records
        return [[self._answer(record, number) for number in range(count)] for record in records]

    def _answer(self, record: Record, number: int) -> Generated:
        text = f"[{' | '.join(message.text for message in record.prompt)}]{number}"
        encoded = EncodedResponse({}, steps=1, size=len(record.prompt))
        return Generated(Response.from_text("x", text), encoded, torch.zeros(1))


def texts_of(**options: Any) -> list[list[str]]:
    rollouts = ReviseCollector(**{"instruction": "better", **options}).collect(PROMPTS, Counting())
    return [[one.text for one in rollout.record.responses] for rollout in rollouts]


def test_a_revision_sees_the_answer_and_the_instruction() -> None:
    assert texts_of() == [["[one | [one]0 | better]0"], ["[two | [two]0 | better]0"]]


def test_the_next_revision_sees_the_one_before_it_only() -> None:
    assert texts_of(revisions=2)[0] == ["[one | [one | [one]0 | better]0 | better]0"]


def test_without_revisions_it_is_the_group() -> None:
    assert texts_of(revisions=0, group_size=2) == [["[one]0", "[one]1"], ["[two]0", "[two]1"]]


def test_every_answer_of_a_group_is_revised_by_itself() -> None:
    assert texts_of(group_size=2)[1] == ["[two | [two]0 | better]0", "[two | [two]1 | better]0"]


def test_answers_may_be_kept_before_their_revisions() -> None:
    assert texts_of(group_size=2, keep=True)[0] == [
        "[one]0",
        "[one]1",
        "[one | [one]0 | better]0",
        "[one | [one]1 | better]0",
    ]


def test_records_have_the_original_prompt_and_steps_the_one_they_were_sampled_from() -> None:
    generate = Counting()
    (rollout, _) = ReviseCollector().collect(PROMPTS, generate)
    assert rollout.record.prompt == PROMPTS[0].prompt
    assert [message.role for message in generate.seen[2].prompt] == ["user", "assistant", "user"]
    assert rollout.responses[0].encoded.size == 3
    assert rollout.stored == ()


def test_a_begun_turn_cannot_be_revised() -> None:
    begun = Record.from_text([{"role": "user", "content": "q"}, {"role": "assistant", "content": "It"}], id="b")
    with pytest.raises(DataError, match="record 'b': its prompt ends with a begun turn"):
        ReviseCollector().collect([begun], Counting())


def test_log_probs_of_revisions_are_those_of_the_prompts_that_they_were_sampled_from(
    tiny_text_model: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    """Answers and revisions of one record have different prompts; the sampler's log-probs are the trainer's."""
    config = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 4}},
        "data": {"train": {"path": str(write_feedback(tmp_path / "records.jsonl", 4))}},
        "objective": {"name": "grpo"},
        "collector": {"name": "revise", "group_size": 2, "revisions": 2, "keep": True},
        "rewards": [{"name": "length", "target": 6}],
        "advantage": {"name": "grpo"},
        "decoding": {"name": "sample", "max_steps": 6},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "dtype": "float32"},
        "output": str(tmp_path / "run"),
    }
    train(write_config(config))
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 2
    assert max(row["sampler_gap/max"] for row in rows) < 1e-3
