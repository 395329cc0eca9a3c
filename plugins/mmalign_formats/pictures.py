"""Images as responses: Pick-a-Pic's comparisons, and captioned images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmalign import DataError, Layout, Message, Parameters, Record
from mmalign_formats.drafts import Draft, read_flag, read_number, read_text
from mmalign_formats.media import Turn, read_media
from mmalign_formats.rows import iter_targets, require_text, without_nulls

CAPTIONED = tuple((image, text) for image in ("image", "jpg", "png") for text in ("caption", "text", "txt"))


class PickAPic(Layout):
    """Reads and writes Pick-a-Pic: two images of a caption, and which of them people prefer."""

    holds = frozenset({"labels", "media", "responses.model"})

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record with two images as responses; equal labels are a tie."""
        sides = [show(read_media(columns[one], one)) for one in ("jpg_0", "jpg_1")]
        models = [columns.get(f"model_{index}") for index in (0, 1)]
        facts = {index: {"model": str(model)} for index, model in enumerate(models) if model is not None}
        prompt = [{"role": "user", "content": read_text(columns, "caption")}]
        return Draft(prompt, sides, labels=_read_labels(columns), facts=facts).finish({}, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns one row; a record has two images."""
        if len(record.responses) != 2 or len(record.labels) > 1:
            raise DataError(
                f"responses: {len(record.responses)} with {len(record.labels)} labels; expected two with one"
            )
        row: dict[str, Any] = {"caption": require_text(record.prompt, "prompt")}
        for index, response in enumerate(record.responses):
            row |= {f"jpg_{index}": _write_image(record, response.messages), f"model_{index}": response.model}
        return [without_nulls({**row, **_write_labels(record)})]


class CaptionConfig(Parameters):
    """Which of the two is the response."""

    response: Literal["image", "caption"] = "image"
    """image: of an image model, whose prompt is the caption; caption: of a model that sees the image."""


@dataclass
class CaptionedImages(Layout):
    """Reads and writes images with a caption each: a prompt and a response."""

    response: Literal["image", "caption"]
    holds = frozenset({"media"})

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record for supervised training."""
        image, text = next(names for names in CAPTIONED if all(one in columns for one in names))
        (shown,), told = show(read_media(columns[image], image)), read_text(columns, text)
        if self.response == "image":
            return Draft([{"role": "user", "content": told}], [[shown]]).finish({}, name)
        return Draft([{**shown, "role": "user"}], [[{"role": "assistant", "content": told}]]).finish({}, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every target."""
        rows = []
        for target in iter_targets(record):
            shown, told = (target, record.prompt) if self.response == "image" else (record.prompt, target)
            rows.append({"image": _write_image(record, shown), "caption": require_text(told, "caption")})
        return rows


def show(uri: str) -> list[Turn]:
    """Returns an image as the assistant's turn."""
    return [{"role": "assistant", "content": [{"type": "image", "image": uri}]}]


def _read_labels(columns: Mapping[str, Any]) -> list[Turn]:
    if "has_label" in columns and not read_flag(columns, "has_label"):
        return []
    first = read_number(columns, "label_0")
    second = read_number(columns, "label_1") if "label_1" in columns else 1 - first
    if first == second:
        return [{"kind": "pair", "order": [["r0", "r1"]]}]
    return [{"kind": "pair", "order": [["r0"], ["r1"]] if first > second else [["r1"], ["r0"]]}]


def _write_labels(record: Record) -> dict[str, Any]:
    if not record.labels:
        return {"label_0": 0.5, "label_1": 0.5, "has_label": False}
    better = record.labels[0].order[0]
    won = [0.5 if len(better) == 2 else float(response.rid in better) for response in record.responses]
    return {"label_0": won[0], "label_1": won[1], "has_label": True}


def _write_image(record: Record, messages: Sequence[Message]) -> str:
    parts = [part for message in messages for part in message.content]
    if len(messages) != 1 or len(parts) != 1 or parts[0].type != "image":
        raise DataError("expected one message with one image, which is all that such rows hold")
    return next(media.uri for media in record.media if media.mid == parts[0].media)
