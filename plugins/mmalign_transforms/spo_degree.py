"""Responses from which growing shares of their key content are removed, with the level of removal as a score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

from pydantic import Field

from mmalign import DataError, Parameters, Record, Response, Score, Transform
from mmalign_transforms.keywords import rank_phrases, remove_phrases
from mmalign_transforms.reading import iter_comparisons
from mmalign_transforms.tally import Tally

NAME = "spo_degree"
LEVEL = "removal_level"


class SpoDegreeConfig(Parameters):
    """Levels of removed key content."""

    levels: int = Field(default=3, ge=1)
    """K: level 0 is the response itself, level K - 1 lacks the largest share."""
    most: float = Field(default=0.75, gt=0, le=1)
    """Share of the key phrases that the last level lacks; the levels between have evenly smaller ones."""
    of: Literal["chosen", "all"] = "chosen"
    """Responses that are degraded: those that a pair prefers, or all."""


@dataclass(eq=False, kw_only=True)
class SpoDegree(Transform):
    """Adds degraded versions `rid-1`, `rid-2`, ... of responses; the most important phrases go first.

    The fields are those of `SpoDegreeConfig`. The level stands in a vector score `removal_level`, so it is no rating,
    and no label is about the new responses: only an objective that asks for the level trains on them.

    Source: arXiv:2409.17791, as far as its abstract says: the shares are ours.
    """

    levels: int
    most: float
    of: Literal["chosen", "all"]

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields every record, with more responses."""
        tally = Tally(NAME)
        for record in records:
            chosen = {comparison.chosen for comparison in iter_comparisons(record)}
            responses: list[Response] = list(record.responses)
            scores: list[Score] = list(record.scores)
            for response in record.responses:
                if self.of == "all" or response.rid in chosen:
                    versions = self._degrade(record, response)
                    tally.add("degraded versions (too few phrases to differ)", self.levels - len(versions))
                    responses += [version for level, version in versions if level]
                    scores += [_score(version, level) for level, version in versions]
            yield record.model_copy(update={"responses": tuple(responses), "scores": tuple(scores)})
        tally.report()

    def _degrade(self, record: Record, response: Response) -> list[tuple[int, Response]]:
        """Returns (level, version) of the levels that differ from those before and leave some text."""
        if len(response.messages) > 1 or any(part.text is None for part in response.messages[0].content):
            raise DataError(f"{NAME}: record {record.id!r}: response {response.rid!r} is not one message of text")
        rids = {one.rid for one in record.responses}
        versions, seen = [(0, response)], {response.text}
        for level in range(1, self.levels):
            text = degrade(response.text, self.most * level / (self.levels - 1))
            if f"{response.rid}-{level}" in rids:
                raise DataError(
                    f"{NAME}: record {record.id!r}: has a response '{response.rid}-{level}' already, the name of a "
                    "degraded version; degrade data once, or rename it"
                )
            if text and text not in seen:
                seen.add(text)
                versions.append((level, Response.from_text(f"{response.rid}-{level}", text)))
        return versions


def degrade(text: str, share: float) -> str:
    """Removes the most important key phrases of a text, so many that they are at least `share` of all.

    >>> degrade("The red sports car is fast.", 0.5)
    'The is fast.'
    """
    phrases = rank_phrases(text)
    return remove_phrases(text, phrases[: ceil(share * len(phrases))])


def _score(response: Response, level: int) -> Score:
    return Score(item=response.rid, name=LEVEL, level="vector", values=(float(level),), keys=(LEVEL,))
