"""Records with fewer responses: what is known about the others goes with them, nothing else does."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from mmalign import Label, Record
from mmalign_transforms.reading import Comparison


def keep_responses(record: Record, kept: Collection[str]) -> Record:
    """Returns the record with the responses `kept` and the feedback about them.

    Scores, notes and logs of other responses go. A label loses them from its order, and goes where nothing is left to
    compare. Nodes of a search tree stay, without the response they pointed to.
    """
    gone = {response.rid for response in record.responses} - set(kept)

    def stays(item: str) -> bool:
        return item.partition("@")[0] not in gone

    update: dict[str, Any] = {
        "responses": tuple(one for one in record.responses if one.rid not in gone),
        "scores": tuple(one for one in record.scores if stays(one.item)),
        "labels": tuple(label for one in record.labels for label in _cut_label(one, [*filter(stays, _items(one))])),
        "tree": tuple(one.model_copy(update={"rid": None}) if one.rid in gone else one for one in record.tree),
        "notes": tuple(
            one.model_copy(update={"items": tuple(filter(stays, one.items))})
            for one in record.notes
            if not one.items or any(map(stays, one.items))
        ),
        "logged": tuple(one for one in record.logged if stays(one.item)),
    }
    return record.model_copy(update=update)


def keep_labelled(record: Record) -> Record:
    """Returns the record without the responses that no label is about."""
    return keep_responses(record, {item.partition("@")[0] for label in record.labels for item in _items(label)})


def split_pair(record: Record, comparison: Comparison, name: str) -> Record:
    """Returns a record of one comparison: its two responses, what is known about them, and one pair label.

    Args:
        name: what is put after the record's id, so that it stays unique.
    """
    pair = comparison.label.model_copy(update={"kind": "pair", "order": ((comparison.chosen,), (comparison.rejected,))})
    cut = keep_responses(record, (comparison.chosen, comparison.rejected))
    return cut.model_copy(update={"id": f"{record.id}/{name}", "labels": (pair,)})


def _items(label: Label) -> list[str]:
    return [item for group in label.order for item in group]


def _cut_label(label: Label, kept: Collection[str]) -> Iterator[Label]:
    if len(kept) == len(_items(label)):
        yield label
        return
    groups = (tuple(item for item in group if item in kept) for group in label.order)
    order = tuple(group for group in groups if group)
    if label.kind != "unary" and len(kept) > 1:
        yield label.model_copy(update={"order": order})
