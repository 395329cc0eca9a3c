"""Preferences between prompts for one response: it fulfils all instructions of one, and breaks some of the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from pydantic import Field, field_validator

from mmalign import Label, Message, Parameters, Part, Record, Response, Transform, Variant, suggest
from mmalign_transforms.cutting import split_pair
from mmalign_transforms.instructions import LIBRARY, Instruction
from mmalign_transforms.reading import Comparison, iter_comparisons
from mmalign_transforms.tally import Tally, seeded

NAME = "mapl"
ANNOTATOR = "rule:instructions"
INSTRUCTED = "instructed"
Compare = Literal["prompts", "responses", "both", "margins"]


class MaplConfig(Parameters):
    """Prompt-side preferences."""

    instructions: tuple[str, ...] = tuple(LIBRARY)
    """Sorts of instructions that may be added."""
    most: int = Field(default=3, ge=1)
    """Most instructions that are added to a prompt; their number is drawn."""
    compare: Compare = "prompts"
    """prompts: two prompts for one response; responses: each pair once more, under instructions that tell it apart;
    margins: the same, in one record with the pair without instructions, so that `mapl_inter` compares the two."""
    seed: int = Field(default=0, ge=0)
    """Everything random depends on this and the record's id only."""

    @field_validator("instructions")
    @classmethod
    def _check_instructions(cls, instructions: tuple[str, ...]) -> tuple[str, ...]:
        for name in instructions:
            if name not in LIBRARY:
                raise ValueError(f"unknown {name!r}{suggest(name, LIBRARY)}")
        if not instructions:
            raise ValueError("expected at least one")
        return instructions


@dataclass(eq=False, kw_only=True)
class Mapl(Transform):
    """Adds two prompt variants of every chosen response with a pair label `rid@better`, `rid@worse`; or pairs.

    The fields are those of `MaplConfig`. Without a comparison every response counts as chosen. Pairs stay as they are;
    the strength of those that are added is how many instructions the rejected response breaks.

    Source: arXiv:2505.12845, the data of the intra-sample and inter-sample parts, from its abstract.
    """

    instructions: tuple[str, ...]
    most: int
    compare: Compare
    seed: int

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields every record, with variants and labels, and after it the pairs that are made of it."""
        tally = Tally(NAME)
        for record in records:
            yield self._add_variants(record, tally) if self.compare in ("prompts", "both") else record
            if self.compare != "prompts":
                for index, comparison in enumerate(iter_comparisons(record)):
                    yield from self._instruct_pair(record, comparison, index, tally)
        tally.report()

    def _add_variants(self, record: Record, tally: Tally) -> Record:
        chosen = {comparison.chosen for comparison in iter_comparisons(record)}
        variants, labels = list(record.variants), list(record.labels)
        for response in record.responses:
            if chosen and response.rid not in chosen:
                continue
            prompts = self._write_prompts(record, response)
            if prompts is None:
                tally.add("prompt pairs (no instruction that the response fulfils, or breaks)")
                continue
            names = [f"{response.rid}-{side}" for side in ("better", "worse")]
            variants += [
                Variant(vid=vid, op="instructions", prompt=prompt) for vid, prompt in zip(names, prompts, strict=True)
            ]
            order = tuple((f"{response.rid}@{vid}",) for vid in names)
            labels.append(Label(kind="pair", order=order, annotator=ANNOTATOR))
        return record.model_copy(update={"variants": tuple(variants), "labels": tuple(labels)})

    def _instruct_pair(self, record: Record, pair: Comparison, index: int, tally: Tally) -> Iterator[Record]:
        split = split_pair(record, pair, f"{index}-instructed")
        texts = {response.rid: response.text for response in split.responses}
        chance = seeded(self.seed, split.id)
        drawn = tell_apart(texts[pair.chosen], texts[pair.rejected], self.instructions, self.most, chance)
        if not drawn:
            tally.add("instructed pairs (no instruction tells the responses apart)")
            return
        broken = sum(not one.fulfilled(texts[pair.rejected]) for one in drawn)
        label = split.labels[0].model_copy(update={"strength": float(broken), "annotator": ANNOTATOR})
        prompt = _append(record.prompt, " ".join(one.text for one in drawn))
        if self.compare != "margins":
            yield split.model_copy(update={"prompt": prompt, "labels": (label,)})
            return
        items = tuple(tuple(f"{item}@{INSTRUCTED}" for item in group) for group in label.order)
        labels = (label.model_copy(update={"strength": 0.0}), label.model_copy(update={"order": items}))
        variant = Variant(vid=INSTRUCTED, op="instructions", prompt=prompt)
        yield split.model_copy(update={"variants": (*split.variants, variant), "labels": labels})

    def _write_prompts(self, record: Record, response: Response) -> list[tuple[Message, ...]] | None:
        chance = seeded(self.seed, f"{record.id}:{response.rid}")
        sides = choose_instructions(response.text, self.instructions, self.most, chance)
        if sides is None:
            return None
        return [_append(record.prompt, " ".join(one.text for one in side)) for side in sides]


def choose_instructions(
    response: str, names: Iterable[str], most: int, chance: Random
) -> tuple[list[Instruction], list[Instruction]] | None:
    """Draws instructions of the same sorts twice: fulfilled by the response, and at least one of them broken.

    Returns:
        (all fulfilled, some broken), or None if the response can fulfil, or break, none of them.
    """
    kept = {name: made for name in names if (made := LIBRARY[name](response, True, chance))}
    broken = {name: made for name in kept if (made := LIBRARY[name](response, False, chance))}
    if not broken:
        return None
    certain = chance.choice(sorted(broken))
    others = sorted(kept.keys() - {certain})
    drawn = [certain, *chance.sample(others, chance.randint(0, min(most - 1, len(others))))]
    worse = [
        broken[name] if name in broken and (name == certain or chance.random() < 0.5) else kept[name] for name in drawn
    ]
    return [kept[name] for name in drawn], worse


def tell_apart(chosen: str, rejected: str, names: Iterable[str], most: int, chance: Random) -> list[Instruction]:
    """Draws instructions that `chosen` fulfils and of which `rejected` breaks at least one; none if there are none."""
    kept = {name: made for name in names if (made := LIBRARY[name](chosen, True, chance))}
    telling = sorted(name for name, made in kept.items() if not made.fulfilled(rejected))
    if not telling:
        return []
    certain = chance.choice(telling)
    others = sorted(kept.keys() - {certain})
    return [kept[name] for name in (certain, *chance.sample(others, chance.randint(0, min(most - 1, len(others)))))]


def _append(prompt: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    place = max((index for index, message in enumerate(prompt) if message.role == "user"), default=len(prompt) - 1)
    part = Part(type="text", text=f"\n\n{text}")
    changed = prompt[place].model_copy(update={"content": (*prompt[place].content, part)})
    return (*prompt[:place], changed, *prompt[place + 1 :])
