"""One small set of records with every feedback that an objective may ask for; what it makes of it is in the tests.

Responses are strings of digits, so that the toy modality understands them, too. The best response to a prompt has the
most zeros. What a record holds: a ranking of four responses and pairs of two contexts, four scores of each response
(the first is its rating), the relevance of the items of two of them, the steps of one, the removal levels of three, a
search tree and an explanation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmalign.data.records import Record

RESPONSES = {
    "a": ("00100", "0010", "00001"),
    "b": ("1230", "123", "1310"),
    "c": ("0102", "01032", "021"),
    "d": ("333",),
}
SCORES = {
    "reward": {"a": 0.9, "c": 0.6, "b": 0.4, "d": 0.1},
    "relevance": {"a": 0.5, "b": 0.7, "c": 0.2, "d": 0.4},
    "win_probability": {"a": 0.8, "b": 0.4, "c": 0.6, "d": 0.2},
    "level": {"a": 1.0, "c": 2.0, "b": 3.0, "d": 4.0},
}
VISITS = {"a": 8, "b": 1, "c": 5, "d": 0}


def build_record(index: int) -> Record:
    """Makes record number `index`; prompts and responses differ in length."""
    texts = {rid: choices[index % len(choices)] for rid, choices in RESPONSES.items()}
    bare = Record.from_text("x" * (index + 1), list(texts.values()), id=f"p{index}").to_dict()
    names = {f"r{place}": rid for place, rid in enumerate(texts)}
    return Record.from_dict(
        {
            **bare,
            "responses": [{**one, "rid": names[one["rid"]]} for one in bare["responses"]],
            "scores": [
                *_numbers(),
                *_items("a", [3.0, 1.0, 0.0]),
                *_items("b", [0.0, 2.0, 1.0]),
                {"item": "a", "name": "steps", "level": "token", "values": [1.0, 1.0], "spans": [[0, 2], [2, 9]]},
                *_levels(),
            ],
            "labels": [
                {"kind": "rank", "order": [["a"], ["c"], ["b"], ["d"]], "context": "trace", "strength": 1.0},
                {"kind": "pair", "order": [["c"], ["d"]], "context": "empty", "strength": 0.5},
            ],
            "tree": [
                {"nid": "root", "visits": sum(VISITS.values()), "V": 0.3},
                *({"nid": rid, "parent": "root", "rid": rid, "visits": n, "V": n / 8} for rid, n in VISITS.items()),
            ],
            "notes": [{"kind": "rationale", "text": "0001"}],
            "meta": json.dumps({"desirability": 0.4 + 0.1 * (index % 3)}),
        }
    )


def build_records(count: int) -> list[Record]:
    """Makes `count` records."""
    return [build_record(index) for index in range(count)]


def write_feedback(path: Path, count: int) -> Path:
    """Writes `count` records as JSON lines."""
    path.write_text("".join(record.to_json() + "\n" for record in build_records(count)), encoding="utf-8")
    return path


def _numbers() -> list[dict[str, Any]]:
    return [
        {"item": rid, "name": name, "level": "response", "value": value}
        for name, values in SCORES.items()
        for rid, value in values.items()
    ]


def _items(rid: str, values: list[float]) -> list[dict[str, Any]]:
    spans = [[place, place + 1] for place in range(len(values))]
    return [{"item": rid, "name": "items", "level": "token", "values": values, "spans": spans, "source": "tokens"}]


def _levels() -> list[dict[str, Any]]:
    shared = {"name": "removal_level", "level": "vector", "keys": ["removal_level"]}
    return [{"item": rid, "values": [level], **shared} for rid, level in (("a", 0.0), ("c", 1.0), ("b", 2.0))]
