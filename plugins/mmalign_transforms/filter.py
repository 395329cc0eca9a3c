"""Leaves out responses by length and origin, and comparisons by how far apart they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mmalign import DataError, Parameters, Record, Response, Transform, Unbounded
from mmalign_transforms.cutting import keep_responses
from mmalign_transforms.reading import iter_comparisons, measure_gap, read_ratings
from mmalign_transforms.tally import Tally

NAME = "filter"


class LengthBounds(Parameters):
    """Lengths of the text of a response."""

    least: int = Field(default=0, ge=0)
    """Shortest that stays."""
    most: int | None = Field(default=None, ge=1)
    """Longest that stays."""
    unit: Literal["words", "characters"] = "words"
    """words: pieces between white space; characters: Unicode code points."""


class GapBounds(Parameters):
    """By how much the chosen response of a pair is better."""

    least: Annotated[float, Unbounded("in the units of the score")] | None = None
    """Smallest gap that stays."""
    most: Annotated[float, Unbounded("in the units of the score")] | None = None
    """Largest gap that stays."""
    score: str | None = None
    """Score whose difference is the gap; default: the strength of the label, else the first score."""


class FilterConfig(Parameters):
    """Leaves out responses and comparisons; at least one rule is needed."""

    length: LengthBounds | None = None
    """Responses of other lengths go."""
    models: tuple[str, ...] | None = None
    """Responses that none of these models produced go."""
    not_models: tuple[str, ...] = ()
    """Responses that one of these models produced go."""
    gap: GapBounds | None = None
    """Pairs with other gaps go; a ranking of more than two groups has to be made pairs first."""
    rated: str | None = None
    """Responses without a score of this name go."""

    @model_validator(mode="after")
    def _check_any(self) -> FilterConfig:
        if self == FilterConfig.model_construct():
            raise ValueError("expected at least one of length, models, not_models, gap and rated")
        return self


@dataclass(eq=False, kw_only=True)
class Filter(Transform):
    """Keeps what passes every rule. A record goes with its last response, or with its last comparison if it had one.

    The fields are those of `FilterConfig`.
    """

    length: LengthBounds | None
    models: tuple[str, ...] | None
    not_models: tuple[str, ...]
    gap: GapBounds | None
    rated: str | None

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields what is left."""
        tally = Tally(NAME)
        for record in records:
            yield from self._filter(record, tally)
        tally.report()

    def _filter(self, record: Record, tally: Tally) -> Iterator[Record]:
        rated = read_ratings(record, self.rated) if self.rated is not None else {}
        kept = [one.rid for one in record.responses if self._passes(one, rated)]
        left = keep_responses(record, kept)
        tally.add("responses", len(record.responses) - len(kept))
        tally.add("labels (of those responses)", len(record.labels) - len(left.labels))
        if self.gap is not None:
            labels = tuple(label for label in left.labels if self._is_in_gap(left, label, self.gap))
            tally.add("pairs (gap)", len(left.labels) - len(labels))
            left = left.model_copy(update={"labels": labels})
        compared = any(True for _ in iter_comparisons(record))
        if (record.responses and not left.responses) or (compared and not any(True for _ in iter_comparisons(left))):
            tally.add("records (nothing left to train on)")
        else:
            yield left

    def _passes(self, response: Response, rated: Iterable[str]) -> bool:
        if self.length is not None:
            size = len(response.text.split()) if self.length.unit == "words" else len(response.text)
            if size < self.length.least or size > (self.length.most or size):
                return False
        if self.models is not None and response.model not in self.models:
            return False
        return response.model not in self.not_models and (self.rated is None or response.rid in rated)

    def _is_in_gap(self, record: Record, label: object, bounds: GapBounds) -> bool:
        own = [one for one in iter_comparisons(record) if one.label is label]
        if len(own) > 1:
            raise DataError(
                f"{NAME}: record {record.id!r}: gap: a label compares more than two responses; "
                "make pairs of them first, with the transform 'pairs_from_ratings'"
            )
        gaps = [measure_gap(record, one, bounds.score, NAME) for one in own]
        low = bounds.least is None or all(gap >= bounds.least for gap in gaps)
        return low and (bounds.most is None or all(gap <= bounds.most for gap in gaps))
