"""Batches: flattening of records, cutting into micro-batches, and that cutting loses and mixes up nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmalign import Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.contract.values import EncodedResponse


def make_record(id: str, responses: int, pairs: tuple[tuple[int, int], ...] = (), **feedback: object) -> Record:
    rows = [
        {"rid": f"r{index}", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}
        for index in range(responses)
    ]
    labels = [{"kind": "pair", "order": [[f"r{chosen}"], [f"r{rejected}"]]} for chosen, rejected in pairs]
    prompt = [{"role": "user", "content": [{"type": "text", "text": "Say x."}]}]
    return Record.from_dict({"id": id, "prompt": prompt, "responses": rows, "labels": labels, **feedback})


def encode(*steps: int) -> list[EncodedResponse]:
    return [EncodedResponse({}, steps=count, size=10 * count) for count in steps]


@pytest.fixture
def batch() -> Batch:
    """Two prompts: three responses of 2, 5 and 3 steps with two pairs, and two of 1 and 4 steps with one pair."""
    records = [make_record("a", 3, ((1, 0), (1, 2))), make_record("b", 2, ((0, 1),))]
    return build_batch(records, [encode(2, 5, 3), encode(1, 4)], targets_only=False)


def test_responses_are_flattened_with_the_prompt_they_answer(batch: Batch) -> None:
    assert len(batch) == 5
    assert batch.quantities["prompt_index"].tolist() == [0, 0, 0, 1, 1]
    assert batch.quantities["lengths"].tolist() == [2, 5, 3, 1, 4]
    assert batch.quantities["pairs"].tolist() == [[1, 0], [1, 2], [3, 4]]


def test_the_step_mask_marks_the_first_steps_of_each_response(batch: Batch) -> None:
    mask = batch.quantities["step_mask"]
    assert mask.dtype == torch.bool and mask.shape == (5, 5)
    assert mask[0].tolist() == [True, True, False, False, False]
    assert mask.sum(dim=1).tolist() == [2, 5, 3, 1, 4]


def test_feedback_that_is_missing_is_marked_and_not_taken_for_zero() -> None:
    scores = [{"item": "r0", "name": "helpful", "level": "response", "value": 4.0}]
    batch = build_batch([make_record("a", 2, scores=scores)], [encode(1, 1)], targets_only=False)
    assert batch.quantities["ratings"][0] == 4.0 and batch.quantities["ratings"][1].isnan()
    assert batch.quantities["labelled"].tolist() == [False, False]
    assert not batch.quantities["labels"].isnan().any()
    assert batch.quantities["ranks"].isnan().all()


def test_labels_come_from_preferences(batch: Batch) -> None:
    assert batch.quantities["labels"].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert batch.quantities["labelled"].all()


def test_targets_only_leaves_out_what_supervised_training_would_not_imitate() -> None:
    records = [make_record("a", 3, ((1, 0), (1, 2))), make_record("b", 2)]
    batch = build_batch(records, [encode(2, 5, 3), encode(1, 4)], targets_only=True)
    assert batch.quantities["lengths"].tolist() == [5, 1, 4]
    assert batch.quantities["prompt_index"].tolist() == [0, 1, 1]
    assert batch.quantities["pairs"].shape == (0, 2)


def test_records_without_responses_make_an_empty_batch() -> None:
    batch = build_batch([make_record("a", 0)], [[]], targets_only=False)
    assert len(batch) == 0
    assert batch.quantities["step_mask"].shape == (0, 0)
    assert batch.quantities["pairs"].shape == (0, 2)
    assert batch.micro_batches(4) == []


def test_selected_pairs_point_at_the_new_rows(batch: Batch) -> None:
    part = batch.select([1, 2, 4])
    assert part.quantities["pairs"].tolist() == [[0, 1]]
    assert part.quantities["lengths"].tolist() == [5, 3, 4]
    assert part.quantities["prompt_index"].tolist() == [0, 0, 1]


def test_selection_cuts_padding_but_not_other_axes(batch: Batch) -> None:
    values = {
        "logps": torch.arange(25.0).reshape(5, 5),
        "rewards": torch.arange(15.0).reshape(5, 3),
        "margins": torch.tensor([1.0, 2.0, 3.0]),
        "chosen": torch.arange(15.0).reshape(3, 5),
        "constant": torch.tensor(7.0),
        "prompts": torch.tensor([1.0, 2.0]),
    }
    axes = {"logps": "NT", "rewards": "NK", "margins": "M", "chosen": "MT", "constant": "", "prompts": "P"}
    part = batch.with_quantities(values, axes).select([0, 3, 4]).quantities
    assert part["logps"].tolist() == [[0, 1, 2, 3], [15, 16, 17, 18], [20, 21, 22, 23]]
    assert part["rewards"].tolist() == [[0, 1, 2], [9, 10, 11], [12, 13, 14]]
    assert part["margins"].tolist() == [3.0]
    assert part["chosen"].tolist() == [[10, 11, 12, 13]]
    assert part["constant"] == 7.0
    assert part["prompts"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_micro_batches_hold_every_response_and_pair_once(batch: Batch, size: int) -> None:
    named = batch.with_quantities({"row": torch.arange(5)}, {"row": "N"})
    parts = named.micro_batches(size)
    assert sorted(row for part in parts for row in part.quantities["row"].tolist()) == [0, 1, 2, 3, 4]
    pairs = [pair for part in parts for pair in part.quantities["row"][part.quantities["pairs"]].tolist()]
    assert sorted(pairs) == [[1, 0], [1, 2], [3, 4]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_micro_batches_hold_whole_prompts_where_an_objective_compares_them(batch: Batch, size: int) -> None:
    whole = replace(batch, whole_prompts=True, quantities={**batch.quantities, "pairs": torch.empty(0, 2).long()})
    seen = [part.quantities["prompt_index"].unique().tolist() for part in whole.micro_batches(size)]
    assert (
        sorted(prompt for prompts in seen for prompt in prompts) == whole.quantities["prompt_index"].unique().tolist()
    )


def test_micro_batches_keep_to_their_size_where_pairs_allow(batch: Batch) -> None:
    assert sorted(len(part) for part in batch.micro_batches(3)) == [2, 3]
    # Three responses hang together by two pairs: they stay together although two were asked for.
    assert sorted(len(part) for part in batch.micro_batches(2)) == [2, 3]


def test_micro_batches_without_pairs_put_similar_sizes_together() -> None:
    batch = build_batch([make_record("a", 4)], [encode(9, 1, 8, 2)], targets_only=False)
    assert [part.quantities["lengths"].tolist() for part in batch.micro_batches(2)] == [[9, 8], [1, 2]]


def test_a_changed_copy_leaves_the_batch_alone(batch: Batch) -> None:
    changed = batch.with_quantities({"lengths": torch.zeros(5)}, {"lengths": "N", "extra": "N"})
    assert changed.quantities["lengths"].sum() == 0
    assert batch.quantities["lengths"].sum() == 15
    assert "extra" not in batch.axes


def test_a_position_budget_counts_a_prompt_once() -> None:
    prompt = Record.from_text("q", ["a", "b", "c"], id="p")
    encoded = [EncodedResponse({}, steps=2, size=12, shared=10) for _ in range(3)]
    batch = build_batch([prompt], [encoded], targets_only=False)
    assert [len(part) for part in batch.micro_batches(9, 16)] == [3]  # 10 + 3 * 2
    assert [len(part) for part in batch.micro_batches(9, 15)] == [2, 1]
    assert [len(part) for part in batch.micro_batches(9, 1)] == [1, 1, 1]
