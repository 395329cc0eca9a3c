"""What objectives read from the fields of records."""

from __future__ import annotations

from math import nan

import pytest
import torch

from mmalign import DataError, Record
from mmalign.contract.batch import build_batch
from mmalign.contract.values import EncodedResponse
from mmalign_objectives.support import record_values

NAN = pytest.approx(nan, nan_ok=True)


def batch_of(*records: Record):
    encoded = [[EncodedResponse({}, steps=1, size=1) for _ in record.responses] for record in records]
    return build_batch(records, encoded, targets_only=False)


def record_of(responses: int = 2, **fields) -> Record:
    plain = Record.from_text("a", [f"answer {index}" for index in range(responses)], id="x")
    return Record.from_dict({**plain.to_dict(), **fields})


def rating(item: str, value: float, name: str = "quality") -> dict[str, object]:
    return {"item": item, "name": name, "level": "response", "value": value}


def label(*order: list[str], context: str | None = None) -> dict[str, object]:
    return {"kind": "pair" if len(order) < 3 else "rank", "order": order, "context": context}


RATED = record_of(
    3, scores=[rating("r0", 1.0), rating("r1", 4.0), rating("r0", 0.5, "brief"), rating("r2", 0.1, "brief")]
)
BARE = record_of(1)


def test_margin_rewards_are_the_named_scores_in_that_order() -> None:
    values = record_values.compute_margin_rewards(batch_of(RATED, BARE), scores=("brief", "quality"))
    assert values.tolist() == [[0.5, 1.0], [NAN, 4.0], [pytest.approx(0.1), NAN], [NAN, NAN]]


def test_advantages_compare_with_the_other_ratings_or_with_a_score() -> None:
    """1 against 4 and 4 against 1; a response without a rating, or without others, has none."""
    batch = batch_of(RATED, record_of(1, scores=[rating("r0", 3.0)]), BARE)
    assert record_values.compute_rating_advantages(batch, value=None).tolist() == [-3.0, 3.0, NAN, NAN, NAN]
    assert record_values.compute_rating_advantages(batch, value="brief").tolist() == [0.5, NAN, NAN, NAN, NAN]


def test_win_probabilities_are_a_score() -> None:
    assert record_values.compute_win_probabilities(batch_of(RATED), score="brief").tolist() == [
        0.5,
        NAN,
        pytest.approx(0.1),
    ]


def test_visits_and_values_are_those_of_the_node_of_a_response() -> None:
    root = {"nid": "root", "visits": 20, "V": 0.5}
    better = {"nid": "a", "parent": "root", "visits": 12, "V": 0.7, "rid": "r0"}
    worse = {"nid": "b", "parent": "root", "visits": 0, "rid": "r1"}
    batch = batch_of(record_of(3, tree=[root, better, worse]))
    assert record_values.compute_visit_counts(batch).tolist() == [12.0, 0.0, NAN]
    assert record_values.compute_next_values(batch).tolist() == [pytest.approx(0.7), NAN, NAN]


def test_preferences_are_shares_of_the_votes() -> None:
    """Two of three annotators, then one of one; a tie is half a vote for either."""
    votes = record_of(labels=[label(["r0"], ["r1"]), label(["r0"], ["r1"]), label(["r1"], ["r0"])])
    tied = record_of(3, labels=[label(["r2"], ["r0"], ["r1"]), label(["r0", "r2"])])
    shares = record_values.compute_preference_probabilities(batch_of(votes, tied))
    assert shares.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 0.75, 1.0, 1.0])


def under_another_prompt(**fields) -> Record:
    """Two responses, one of them under a variant prompt, too."""
    prompt = [{"role": "user", "content": [{"type": "text", "text": "b"}]}]
    return record_of(variants=[{"vid": "v1", "prompt": prompt}], **fields)


def test_preferences_count_the_votes_about_responses_under_other_prompts() -> None:
    """Two of three annotators prefer r0 to r1 under the other prompt; all prefer r0 to r1."""
    item = [label(["r0"], ["r1@v1"]), label(["r0"], ["r1@v1"]), label(["r1@v1"], ["r0"])]
    batch = batch_of(
        under_another_prompt(labels=[*item, label(["r0"], ["r1"])]), record_of(labels=[label(["r1"], ["r0"])])
    )
    shares = record_values.compute_preference_probabilities(batch)
    assert shares.tolist() == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3, 1 / 3])


def test_contexts_of_pairs_under_other_prompts_are_read() -> None:
    labels = [label(["r0"], ["r1@v1"], context="empty"), label(["r0"], ["r1"], context="trace")]
    batch = batch_of(under_another_prompt(labels=labels))
    assert record_values.compute_trace_pairs(batch).tolist() == [1.0, 0.0]


def test_preferences_of_a_record_without_labels_are_none() -> None:
    assert record_values.compute_preference_probabilities(batch_of(BARE)).shape == (0,)


def test_contexts_tell_pairs_with_a_trace() -> None:
    both = record_of(4, labels=[label(["r0"], ["r1"], context="trace"), label(["r2"], ["r3"], context="empty")])
    assert record_values.compute_trace_pairs(batch_of(both)).tolist() == [1.0, 0.0]


def test_another_context_is_refused_with_the_record() -> None:
    wrong = record_of(labels=[label(["r0"], ["r1"])])
    with pytest.raises(DataError, match="record 'x': a label has the context None; expected 'trace'"):
        record_values.compute_trace_pairs(batch_of(wrong))


def test_values_stand_in_the_order_of_responses_and_pairs() -> None:
    batch = batch_of(RATED, record_of(labels=[label(["r1"], ["r0"], context="trace")]), BARE)
    assert len(record_values.compute_win_probabilities(batch, score="brief")) == len(batch)
    assert len(record_values.compute_trace_pairs(batch)) == len(batch.quantities["pairs"])
    assert torch.equal(batch.quantities["pairs"], torch.tensor([[4, 3]]))
