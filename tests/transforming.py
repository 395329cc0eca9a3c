"""What the tests of transforms share: records with ratings, and transforms built and applied as a run does it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from mmalign import Label, Record, Score
from mmalign.contract.components import Transform
from mmalign.planning.assembly import build_transforms
from mmalign.plugins.registry import load_registry

_registry = functools.cache(load_registry)


def build(name: str, **parameters: Any) -> Transform:
    """Builds a transform by its name in a configuration."""
    (transform,) = build_transforms(_registry(), [{"name": name, **parameters}], "data.train")
    return transform


def apply(transform: Transform, records: Iterable[Record]) -> list[Record]:
    """Applies a transform; what it yields must be records that can be written and read again."""
    result = list(transform.apply(records))
    assert [Record.from_json(record.to_json()) for record in result] == result
    return result


def transform(records: Record | Iterable[Record], name: str, **parameters: Any) -> list[Record]:
    """Builds and applies at once."""
    return apply(build(name, **parameters), [records] if isinstance(records, Record) else records)


def rated(ratings: Mapping[str, float | None], id: str = "p", *, prompt: str = "q", score: str = "overall") -> Record:
    """A record whose responses `text: rating` are named r0, r1, ... in order."""
    record = Record.from_text(prompt, list(ratings), id=id)
    rows = zip(record.responses, ratings.values(), strict=True)
    scores = [
        Score(item=one.rid, name=score, level="response", value=float(value))
        for one, value in rows
        if value is not None
    ]
    return record.model_copy(update={"scores": tuple(scores)})


def compared(record: Record, *pairs: tuple[str, str], **fields: Any) -> Record:
    """Adds one pair label (chosen, rejected) each."""
    labels = tuple(Label(kind="pair", order=((chosen,), (rejected,)), **fields) for chosen, rejected in pairs)
    return record.model_copy(update={"labels": (*record.labels, *labels)})


def pairs_of(record: Record) -> list[tuple[str, str, float]]:
    """Returns the texts of (chosen, rejected) and the strength of every comparison."""
    texts = [response.text for response in record.responses]
    return [(texts[chosen], texts[rejected], strength) for chosen, rejected, strength in record.pair_indices()]
