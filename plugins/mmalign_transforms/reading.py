"""What transforms read of a record: ratings by name, and comparisons between two of its responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

from mmalign import DataError, Label, Record, suggest


@dataclass(frozen=True)
class Comparison:
    """Two responses of a record, the better one and the worse one, and the label that says so."""

    label: Label
    chosen: str
    rejected: str


def iter_comparisons(record: Record) -> Iterator[Comparison]:
    """Yields every (better, worse) across the tie groups of pair, edit and rank labels, plain responses only."""
    rids = {response.rid for response in record.responses}
    for label in record.labels:
        if label.kind != "unary" and all(item in rids for group in label.order for item in group):
            for better, worse in combinations(label.order, 2):
                yield from (Comparison(label, chosen, rejected) for chosen, rejected in product(better, worse))


def count_unpaired(record: Record) -> int:
    """Counts the labels that `iter_comparisons` makes nothing of: verdicts, ties, labels about other items."""
    used = {id(one.label) for one in iter_comparisons(record)}
    return sum(id(label) not in used for label in record.labels)


def read_ratings(record: Record, score: str | None) -> dict[str, float]:
    """Returns ratings by `rid`, in the order of the responses; a response that has none is left out.

    Args:
        score: name of a score of level `response`, or of level `vector`, whose mean over what is not null is taken;
            None for the first name of level `response`.
    """
    rated = [row for row in record.scores if row.level in ("response", "vector")]
    name = score or next((row.name for row in rated if row.level == "response"), None)
    found: dict[str, float] = {}
    for row in rated:
        values = [row.value] if row.level == "response" else row.values
        known = [value for value in values if value is not None]
        if row.name == name and known:
            found.setdefault(row.item, sum(known) / len(known))
    return {one.rid: found[one.rid] for one in record.responses if one.rid in found}


def require_ratings(record: Record, score: str | None, transform: str) -> dict[str, float]:
    """Returns what `read_ratings` does.

    Raises:
        DataError: no response has one.
    """
    ratings = read_ratings(record, score)
    if not ratings:
        known = {row.name for row in record.scores if row.level in ("response", "vector")}
        wanted = "no response is rated" if score is None else f"no response has the score {score!r}"
        raise DataError(f"{transform}: record {record.id!r}: {wanted}{suggest(score or '', known)}")
    return ratings


def measure_gap(record: Record, comparison: Comparison, score: str | None, transform: str) -> float:
    """Returns by how much the chosen response is better.

    Args:
        score: the score whose difference it is; None for the label's strength or, without one, the first score.

    Raises:
        DataError: neither the label nor the responses tell.
    """
    if score is None and comparison.label.strength is not None:
        return comparison.label.strength
    ratings = require_ratings(record, score, transform)
    for rid in (comparison.chosen, comparison.rejected):
        if rid not in ratings:
            wanted = "a rating" if score is None else f"the score {score!r}"
            raise DataError(f"{transform}: record {record.id!r}: response {rid!r} of a pair lacks {wanted}")
    return ratings[comparison.chosen] - ratings[comparison.rejected]
