"""Few-shot preference prompts: earlier preferences of a user stand before the question that the user is asked next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from mmalign import DataError, Message, Parameters, Record, Transform
from mmalign_transforms.cutting import split_pair
from mmalign_transforms.prompts import prepend_text
from mmalign_transforms.reading import Comparison, count_unpaired, iter_comparisons
from mmalign_transforms.tally import Tally, seeded
from mmalign_transforms.wording import require_fields

NAME = "fspo"
SHOT = "Question: {question}\nPreferred answer: {preferred}\nDispreferred answer: {dispreferred}"
SHOT_ALONE = "Question: {question}\nPreferred answer: {preferred}"


class Episode(NamedTuple):
    """A pair of a user and the record it is from; `prompt` is equal for equal prompts."""

    record: Record
    comparison: Comparison
    prompt: str


class FspoConfig(Parameters):
    """Few-shot preference prompts."""

    shots: int = Field(default=4, ge=0)
    """Earlier preferences of the same user in the prompt; 0 leaves the data as they are."""
    dispreferred: bool = True
    """Show what the user did not prefer, too."""
    template: str | None = None
    """A shot, with {question}, {preferred} and {dispreferred}, the last one only where it is shown."""
    description: str | None = None
    """Kind of the note that describes the user, e.g. persona; it comes before the shots."""
    fewer: Literal["use", "drop"] = "drop"
    """Of users with too few other pairs, use what there is, or leave their pairs out."""
    repeats: int = Field(default=1, ge=1)
    """Prompts made of every pair, with other shots each."""
    seed: int = Field(default=0, ge=0)
    """The shots depend on this, the record's id and the user's pairs, not on the order of the data."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str | None) -> str | None:
        if template is None or "{dispreferred" in template:
            return template if template is None else require_fields("question", "preferred", "dispreferred")(template)
        return require_fields("question", "preferred")(template)


@dataclass(eq=False, kw_only=True)
class Fspo(Transform):
    """Makes one record of every pair, with pairs of the same user about other prompts in front of its prompt.

    The fields are those of `FspoConfig`. The ids of the shots are written into the label.

    Source: arXiv:2502.19312.
    Differs: shots are drawn for every pair; the official code cuts a shuffled list into windows.
    """

    shots: int
    dispreferred: bool
    template: str | None
    description: str | None
    fewer: Literal["use", "drop"]
    repeats: int
    seed: int

    whole = True

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the pairs in their order."""
        if self.shots == 0 and self.description is None:
            yield from records
            return
        tally = Tally(NAME)
        everything = list(records)
        known = _group_by_user(everything)
        for record in everything:
            tally.add("labels (no pair of plain responses)", count_unpaired(record))
            for index, comparison in enumerate(iter_comparisons(record)):
                yield from self._prompt(record, comparison, index, known, tally)
        tally.report()

    def _prompt(
        self, record: Record, comparison: Comparison, index: int, known: Mapping[str, Sequence[Episode]], tally: Tally
    ) -> Iterator[Record]:
        own, prompt = known[comparison.label.user or ""], _name_prompt(record)
        same = sum(one.prompt == prompt for one in own)
        if len(own) - same < self.shots and self.fewer == "drop":
            tally.add("pairs (the user has too few others)")
            return
        pair = split_pair(record, comparison, str(index))
        for repeat in range(self.repeats):
            chance = seeded(self.seed, f"{pair.id}:{repeat}")
            # So many that enough are left without those about this prompt.
            drawn = chance.sample(own, min(self.shots + same, len(own)))
            shots = [one for one in drawn if one.prompt != prompt][: self.shots]
            (label,) = pair.labels
            update = {
                "id": f"{pair.id}-{repeat}" if self.repeats > 1 else pair.id,
                "prompt": self._write(record, shots),
                "labels": (label.model_copy(update={"shots": tuple(shot.record.id for shot in shots)}),),
            }
            yield pair.model_copy(update=update)

    def _write(self, record: Record, shots: Sequence[Episode]) -> tuple[Message, ...]:
        pieces = [self._describe(record)] if self.description is not None else []
        template = self.template or (SHOT if self.dispreferred else SHOT_ALONE)
        pieces += [_write_shot(template, shot) for shot in shots]
        return prepend_text(record.prompt, "\n\n".join(pieces), "user") if pieces else record.prompt

    def _describe(self, record: Record) -> str:
        text = next((note.text for note in record.notes if note.kind == self.description), None)
        if text is None:
            raise DataError(f"{NAME}: record {record.id!r}: no note of kind {self.description!r} describes the user")
        return text


def _group_by_user(records: Sequence[Record]) -> Mapping[str, Sequence[Episode]]:
    """Lists the pairs of every user, in an order that does not depend on that of the data."""
    groups: dict[str, list[Episode]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.id):
        prompt = _name_prompt(record)
        for comparison in iter_comparisons(record):
            user = comparison.label.user
            if not user:
                raise DataError(
                    f"{NAME}: record {record.id!r}: a {comparison.label.kind} label has no user; "
                    "shots are pairs of one user"
                )
            groups[user].append(Episode(record, comparison, prompt))
    return groups


def _name_prompt(record: Record) -> str:
    return "".join(message.model_dump_json() for message in record.prompt)


def _write_shot(template: str, shot: Episode) -> str:
    texts = {response.rid: response.text for response in shot.record.responses}
    preferred, dispreferred = texts[shot.comparison.chosen], texts[shot.comparison.rejected]
    return template.format(question=shot.record.prompt_text, preferred=preferred, dispreferred=dispreferred)
