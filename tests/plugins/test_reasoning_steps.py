"""Which reasoning step a token belongs to, and the mean states of these steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from objective_runs import build_config, start

from mmalign import DataError, EncodedResponse, Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.training.rounds import begin_round
from mmalign_objectives.support.reasoning_steps import average_states, compute_step_index, sum_by_step


def batch_of(masks: list[list[int] | None], lengths: list[int], scores: list[dict[str, object]]) -> Batch:
    plain = Record.from_text("q", [f"answer {place}" for place in range(len(lengths))], id="x").to_dict()
    record = Record.from_dict({**plain, "scores": scores})
    encoded = [
        EncodedResponse(
            {} if mask is None else {"response_mask": torch.tensor(mask, dtype=torch.bool)}, steps=steps, size=steps
        )
        for mask, steps in zip(masks, lengths, strict=True)
    ]
    return build_batch([record], [encoded], targets_only=False)


def spans(item: str, *pairs: list[int], name: str = "steps", source: str = "tokens") -> dict[str, object]:
    return {
        "item": item,
        "name": name,
        "level": "token",
        "values": [None] * len(pairs),
        "spans": pairs,
        "source": source,
    }


def test_spans_of_the_score_are_the_steps() -> None:
    """Between the spans and beyond the end there is none; another score says nothing."""
    scores = [spans("r0", [0, 1], name="items"), spans("r0", [0, 2], [3, 9]), spans("r1", [1, 3])]
    index = compute_step_index(batch_of([None, None], [4, 3], scores))
    assert index.tolist() == [[1, 1, 0, 2], [0, 1, 1, 0]]


def test_without_a_score_turns_are_the_steps() -> None:
    """Two tokens of a first turn, one of a second; of another response all tokens; a modality that knows no turns."""
    index = compute_step_index(batch_of([[1, 1, 0, 0, 1], [1, 1], None], [3, 2, 1], []))
    assert index.tolist() == [[1, 1, 2], [1, 1, 0], [1, 0, 0]]


def test_spans_of_characters_are_refused() -> None:
    with pytest.raises(DataError, match="'steps': spans of steps count tokens"):
        compute_step_index(batch_of([None], [2], [spans("r0", [0, 1], source="characters")]))


def encode_letters(record: Record) -> list[EncodedResponse]:
    """A token for every letter, `th` in one, and an end."""
    ids = [[*map(ord, one.text.replace("th", "\u00fe")), 0] for one in record.responses]
    return [EncodedResponse({"response_ids": torch.tensor(own)}, steps=len(own), size=len(own)) for own in ids]


def index_of_tree(text: str, *nodes: str) -> list[int]:
    """The steps of a response on a path of nodes, beside a branch that is not its own."""
    chain = [
        {"nid": f"n{place}", "content": [{"type": "text", "text": one}] if one else []}
        for place, one in enumerate(("", *nodes))
    ]
    chain = [{**one, "parent": f"n{place - 1}"} if place else one for place, one in enumerate(chain)]
    other = {"nid": "other", "parent": "n0", "content": [{"type": "text", "text": "no"}]}
    plain = Record.from_text("q", [text], id="x").to_dict()
    record = Record.from_dict({**plain, "tree": [*chain[:-1], {**chain[-1], "rid": "r0"}, other]})
    batch = build_batch([record], [encode_letters(record)], targets_only=False)
    steps: list[int] = compute_step_index(replace(batch, encode=encode_letters))[0].tolist()
    return steps


@pytest.mark.parametrize(
    ("text", "nodes", "expected"),
    [
        ("abcde", ("ab", "c", "de"), [1, 1, 2, 3, 3, 3]),
        ("ab\nc", ("ab", "c"), [1, 1, 2, 2, 2]),
        ("athe", ("at", "he"), [1, 2, 2, 2]),  # a token over the border, an end
        ("abc", ("abc",), [1, 1, 1, 1]),
        ("abc", ("ab", "x"), [1, 1, 1, 1]),  # the nodes say something else: one turn
    ],
)
def test_nodes_of_a_tree_are_the_steps(text: str, nodes: tuple[str, ...], expected: list[int]) -> None:
    assert index_of_tree(text, *nodes)[: len(expected)] == expected


def test_nodes_are_found_in_the_tokens_of_a_model(tiny_text_model: Path, tmp_path: Path) -> None:
    row = Record.from_text("q", ["one two. three."], id="x").to_dict()
    tree = [
        {"nid": "a", "content": [{"type": "text", "text": "one two."}]},
        {"nid": "b", "parent": "a", "content": [{"type": "text", "text": " three."}], "rid": "r0"},
    ]
    other = {"rid": "r1", "messages": row["responses"][0]["messages"]}
    labels = [{"kind": "rank", "order": [["r0"], ["r1"]]}]
    record = Record.from_dict({**row, "tree": tree, "responses": [*row["responses"], other], "labels": labels})
    (tmp_path / "records.jsonl").write_text(record.to_json() + "\n")
    config = build_config(
        "tpo_tree", "text", tmp_path / "records.jsonl", tiny_text_model, tmp_path / "run", batch_size=1
    )
    run = start(config)
    batch, _ = begin_round(run)
    first, second = batch.quantities["step_index"].tolist()
    ids = batch.responses[0].tensors["response_ids"]
    ends = first.index(2)
    assert run.assembly.modality.loaded_tokenizer.decode(ids[:ends]) == "one two."
    assert set(first[:ends]) == {1} and set(first[ends:]) == {2} and set(second) == {1}


INDEX = torch.tensor([[1, 1, 2], [0, 1, 0]])


def test_states_are_averaged_over_their_step() -> None:
    states = torch.arange(12.0).reshape(2, 3, 2)
    states[1, 0] = torch.nan  # belongs to none
    averages = average_states(states, INDEX)
    assert averages.tolist() == [[[1.0, 2.0], [4.0, 5.0]], [[8.0, 9.0], [0.0, 0.0]]]


def test_values_are_summed_over_their_step() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [torch.nan, 5.0, torch.nan]])
    assert sum_by_step(values, INDEX, 3).tolist() == [[3.0, 4.0, 0.0], [5.0, 0.0, 0.0]]
