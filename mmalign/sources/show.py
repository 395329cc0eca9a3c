"""Prints a record as the model reads it, with the loss mask: trained pieces in colour, context dim.

Where the output has no colour, trained pieces stand between ⟦ and ⟧.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from mmalign.contract.modality import Modality
from mmalign.data.records import Media, Message, Part, Record
from mmalign.errors import MediaError
from mmalign.media.images import read_header
from mmalign.shown_text import show_controls
from mmalign.terminal import show_text

_TRAINED, _CONTEXT, _HEADING = "bold green", "dim", "bold"


def print_record(record: Record, modality: Modality | None, console: Console) -> None:
    """Prints every response with its prompt; without a modality, or responses, the messages."""
    console.rule(show_text(record.id, lines=False))
    if modality is None or not record.responses:
        media = {one.mid: one for one in record.media}
        _print_messages("prompt", record.prompt, media, console)
        for response in record.responses:
            _print_messages(response.rid, response.messages, media, console)
        return
    for response, encoded in zip(record.responses, modality.encode(record), strict=True):
        cut = f", {encoded.truncated} cut off" if encoded.truncated else ""
        heading = f"{response.rid} ({encoded.steps} of {encoded.size} positions trained on{cut})"
        _print(show_text(heading, _HEADING, lines=False), console)
        _print(paint(modality.render(encoded), marks=console.color_system is None), console)


def paint(pieces: Iterable[tuple[str, bool]], *, marks: bool = False) -> Text:
    """Joins pieces of text, coloured by whether the loss counts them; `marks` puts the counted ones in brackets."""
    text = Text()
    for piece, trained in pieces:
        shown = f"⟦{piece}⟧" if trained and marks else piece
        text.append(show_controls(shown), _TRAINED if trained else _CONTEXT)
    return text


def _print_messages(heading: str, messages: Sequence[Message], media: Mapping[str, Media], console: Console) -> None:
    for message in messages:
        speaker = f"{message.role} {message.name}" if message.name else message.role
        line = show_text(f"{heading} {speaker}: ", _HEADING, lines=False)
        if message.reasoning_content:
            line.append(show_controls(f"({message.reasoning_content}) "), _CONTEXT)
        for part in message.content:
            line.append(show_controls(part.text or "" if part.type == "text" else _describe(part, media)), "")
        for call in message.tool_calls:
            line.append(show_controls(f"{call.function.name}({call.function.arguments})"), _CONTEXT)
        _print(line, console)


def _describe(part: Part, media: Mapping[str, Media]) -> str:
    """Words a part that is no text: its name and, of an image, what its file says of itself."""
    name = part.media or ""
    if part.type != "image" or name not in media:
        return f"<{part.type} {name}>"
    try:
        header = read_header(media[name], where=name)
    except MediaError as error:
        return f"<image {error}>"
    return f"<image {name}: {header.width} x {header.height} {header.mode} {header.format}>"


def _print(text: Text, console: Console) -> None:
    console.print(text, soft_wrap=True, highlight=False)
