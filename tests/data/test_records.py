"""The record schema: round trips, what holds between fields, and what parts read from feedback."""

from __future__ import annotations

import json
import subprocess
import sys
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmalign.data.records import Record, Response
from mmalign.errors import DataError

EXAMPLES = (Path(__file__).parents[1] / "data" / "example_records.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def examples() -> dict[str, Record]:
    records = [Record.from_json(line) for line in EXAMPLES]
    return {record.id.partition("-")[0]: record for record in records}


def same(got: list[Any], expected: list[Any]) -> bool:
    """True if equal where NaN equals NaN."""
    return repr(got) == repr(expected)


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: json.loads(line)["id"])
def test_example_round_trips_in_its_dropped_form(line: str) -> None:
    record = Record.from_json(line)
    assert record.to_dict() == json.loads(line)
    assert Record.from_json(record.to_json()) == record
    assert "\n" not in record.to_json()


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: json.loads(line)["id"])
def test_nulls_and_empty_lists_are_restored(line: str) -> None:
    record = Record.from_json(line)
    full = record.model_dump(mode="json", by_alias=True)
    assert len(full) == 14
    assert Record.from_dict(full) == record
    assert Record.from_dict({key: value or None for key, value in full.items()}) == record


def test_record_is_frozen_and_hashable() -> None:
    record = Record.from_text("hi", ["a"])
    with pytest.raises(ValidationError):
        record.id = "other"
    assert hash(record) == hash(Record.from_text("hi", ["a"]))


def test_records_import_no_torch() -> None:
    code = "import sys, mmalign.data.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_from_text_names_responses_and_puts_system_first() -> None:
    record = Record.from_text("hi", ["a", "b"], id="x", system="be brief")
    assert [message.role for message in record.prompt] == ["system", "user"]
    assert [(response.rid, response.text) for response in record.responses] == [("r0", "a"), ("r1", "b")]
    assert (record.id, record.prompt_text) == ("x", "hi")


def test_from_text_takes_chat_messages() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert Record.from_text(turns).prompt_text == "c"


def test_with_responses_drops_feedback_and_keeps_the_prompt(examples: dict[str, Record]) -> None:
    record = examples["cpl"].with_responses([Response.from_text("r0", "new")])
    assert record.prompt == examples["cpl"].prompt
    assert (record.scores, record.labels, record.tree) == ((), (), ())
    assert Record.from_json(record.to_json()) == record


def test_metadata_is_parsed(examples: dict[str, Record]) -> None:
    assert examples["hyb"].metadata["gain"] == 0.013
    assert examples["cpl"].metadata == {}


def test_pairs_of_rankings_pairs_and_edits(examples: dict[str, Record]) -> None:
    # Ranking r1 > r0 > r2 gives three pairs, the human pair one more, the tie none.
    assert same(examples["hyb"].pair_indices(), [(1, 0, nan), (1, 2, nan), (0, 2, nan), (1, 0, 2.0)])
    assert examples["cipher"].pair_indices() == [(1, 0, 9.0)]
    assert examples["vdpo"].pair_indices() == []
    assert examples["cpl"].pair_indices() == []


def test_pairs_across_tie_groups() -> None:
    record = ranked([["r2"], ["r0", "r3"], ["r1"]])
    pairs = [(chosen, rejected) for chosen, rejected, _ in record.pair_indices()]
    assert pairs == [(2, 0), (2, 3), (2, 1), (0, 1), (3, 1)]
    assert record.ranks() == [2.0, 3.0, 1.0, 2.0]


def ranked(order: list[list[str]]) -> Record:
    data = Record.from_text("q", ["a", "b", "c", "d"]).to_dict()
    return Record.from_dict({**data, "labels": [{"kind": "rank", "order": order}]})


def test_response_labels(examples: dict[str, Record]) -> None:
    assert same(examples["hyb"].response_labels(), [0.0, 1.0, 0.0])
    assert same(examples["ltr"].response_labels(), [nan, 1.0, nan])
    assert same(ranked([["r2"], ["r0", "r3"], ["r1"]]).response_labels(), [nan, 0.0, 1.0, nan])


def test_unary_verdict_outranks_comparison() -> None:
    data = Record.from_text("q", ["a", "b"]).to_dict()
    labels = [
        {"kind": "pair", "order": [["r0"], ["r1"]]},
        {"kind": "unary", "order": [["r0"]], "strength": -1.0},
    ]
    assert Record.from_dict({**data, "labels": labels}).response_labels() == [0.0, 0.0]


def test_ratings_read_one_score_name(examples: dict[str, Record]) -> None:
    assert same(examples["hyb"].ratings(), [nan, 7.0, 2.0])
    assert same(examples["mia"].ratings(), [nan, 0.41])
    assert all(map(isnan, examples["vdpo"].ratings()))


def test_targets_are_the_desirable_then_the_best_rated_then_all(examples: dict[str, Record]) -> None:
    assert examples["hyb"].targets() == [False, True, False]
    assert examples["cpl"].targets() == [True, False]
    assert Record.from_text("q", ["a", "b"]).targets() == [True, True]


def test_undesirable_response_is_no_target() -> None:
    data = Record.from_text("q", ["a"]).to_dict()
    labels = [{"kind": "unary", "order": [["r0"]], "strength": -1.0}]
    assert Record.from_dict({**data, "labels": labels}).targets() == [False]


BASE = {
    "id": "x",
    "schema": "mmalign/1",
    "prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
    "responses": [
        {"rid": rid, "messages": [{"role": "assistant", "content": [{"type": "text", "text": rid}]}]}
        for rid in ("r0", "r1", "r2")
    ],
}
IMAGE_PROMPT = [{"role": "user", "content": [{"type": "image", "media": "m1"}]}]
VIDEO = [{"mid": "m1", "type": "video", "uri": "a.mp4"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promt": []}, "promt: unknown key; did you mean 'prompt'?"),
        ({"schema": "mmalign/2"}, "schema: expected 'mmalign/1', got \"mmalign/2\""),
        ({"prompt": []}, "prompt: expected at least one"),
        ({"prompt": [{"role": "user", "content": "q"}]}, "prompt[0].content: expected a list of parts"),
        (
            {"prompt": [{"role": "usr"}]},
            "prompt[0].role: expected 'system', 'developer', 'user', 'assistant' or 'tool', got \"usr\"",
        ),
        ({"prompt": [{"role": "system"}]}, "prompt: expected the last role to be user, tool or assistant"),
        ({"prompt": [{"role": "user", "nam": "A"}]}, "prompt[0].nam: unknown key; did you mean 'name'?"),
        ({"prompt": IMAGE_PROMPT}, "prompt[0].content[0].media: no media 'm1'"),
        ({"prompt": IMAGE_PROMPT, "media": VIDEO}, "prompt[0].content[0].type: 'image', but media 'm1' is of type"),
        ({"responses": BASE["responses"][:1] * 2}, "responses[1].rid: 'r0' is used twice"),
        ({"responses": [{"rid": "r0"}]}, "responses[0].messages: missing"),
        ({"responses": [{"rid": "r0", "messages": [{"role": "user"}]}]}, "responses[0].messages: expected at least"),
        ({"scores": [{"item": "r9", "name": "s", "level": "response"}]}, "scores[0].item: no item 'r9'"),
        ({"scores": [{"item": "r0", "name": "s", "level": "step", "values": [1.0]}]}, "scores[0].values: level 'step'"),
        (
            {"scores": [{"item": "r0", "name": "s", "level": "response", "value": "7"}]},
            "scores[0].value: expected a nu",
        ),
        ({"labels": [{"kind": "pair", "order": [["r0"], ["r9"]]}]}, "labels[0].order: no item 'r9'"),
        ({"labels": [{"kind": "pair", "order": [["r0"], ["r1"], ["r2"]]}]}, "labels[0].order: a pair has two groups"),
        ({"labels": [{"kind": "pair", "order": [["r0"], ["r0"]]}]}, "labels[0].order: an item appears twice"),
        ({"labels": [{"kind": "pair", "order": [["r0"], []]}]}, "labels[0].order: a tie group is empty"),
        ({"labels": [{"kind": "unary", "order": [["r0"]]}]}, "labels[0].strength: missing"),
        ({"labels": [{"kind": "unary", "order": [["r0", "r1"]], "strength": 1.0}]}, "labels[0].order: a unary label"),
        ({"tree": [{"nid": "n0", "parent": "n1"}, {"nid": "n1"}]}, "tree[0].parent: expected null for the first node"),
        ({"tree": [{"nid": "n0"}, {"nid": "n1", "parent": "n2"}]}, "tree[1].parent: no earlier node 'n2'"),
        ({"tree": [{"nid": "n0", "rid": "r9"}]}, "tree[0].rid: no response 'r9'"),
        ({"notes": [{"kind": "critique", "text": "t", "items": ["r9"]}]}, "notes[0].items: no item 'r9'"),
        ({"logged": [{"item": "r0", "propensity": 0.0}]}, "logged[0].propensity: expected more than 0"),
        ({"logged": [{"item": "r0", "propensity": 1.5}]}, "logged[0].propensity: expected at most 1"),
        ({"logged": [{"item": "r0", "position": 0}]}, "logged[0].position: expected at least 1, got 0"),
        ({"logged": [{"item": "r0"}, {"item": "r0"}]}, "logged[1].item: 'r0' is shown twice"),
        ({"meta": "[1]"}, "meta: expected a JSON object as a string"),
        ({"meta": {"a": 1}}, "meta: expected a string"),
    ],
)
def test_wrong_record_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        Record.from_dict({**BASE, **change})
    assert str(error.value).startswith(message)


def test_variant_items_are_known() -> None:
    data = {**BASE, "variants": [{"vid": "v1", "prompt": BASE["prompt"]}]}
    assert Record.from_dict({**data, "labels": [{"kind": "pair", "order": [["r0"], ["r0@v1"]]}]}).labels
    with pytest.raises(DataError, match="no item 'r0@v2'"):
        Record.from_dict({**data, "labels": [{"kind": "pair", "order": [["r0"], ["r0@v2"]]}]})


def test_not_a_number_is_refused() -> None:
    line = json.dumps({**BASE, "scores": [{"item": "r0", "name": "s", "level": "response", "value": nan}]})
    with pytest.raises(DataError, match=r"scores\[0\].value: expected a finite number, or null for missing, got NaN"):
        Record.from_json(line)
