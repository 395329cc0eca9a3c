"""Where the assistant's turns are in a rendered conversation.

A turn is never looked up by its text, which may occur anywhere. Its place is known from renderings of the same
conversation: those that end before and after it, where each continues the one before; else, as where a template drops
the reasoning of earlier turns, from the rendering of the whole with a marker in the turn's place. What comes out other
than it was written is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmalign.errors import DataError

Turn = dict[str, Any]
"""A message for a template: `role`, further keys, and `content`, a list of parts."""


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered response.

    Attributes:
        scored: True for the policy's steps.
        messages: the numbers of the response's messages that are in it.
        tail: of an assistant's turn, what the template puts after its content; `text` ends with it.
    """

    text: str
    scored: bool
    messages: range
    tail: str = ""


@dataclass(frozen=True)
class Answer:
    """A response to be located.

    Attributes:
        prompt: the rendered prompt.
        history: turns of the prompt; without its last one if that begins the response's first turn.
        begun: what that last one says; empty where there is none.
        turns: of the response, up to the last one of the assistant; the first without what was `begun`.
        trained: for each turn, whether it is scored if it is the assistant's.
        where: record and response, for messages.
    """

    prompt: str
    history: list[Turn]
    begun: str
    turns: list[Turn]
    trained: list[bool]
    where: str

    @property
    def conversation(self) -> list[Turn]:
        """All turns; the first of the response with what was begun."""
        first = add_text(self.turns[0], before=self.begun) if self.begun else self.turns[0]
        return [*self.history, first, *self.turns[1:]]

    @property
    def places(self) -> list[int]:
        """The numbers of the assistant's turns in `turns`."""
        return [place for place, turn in enumerate(self.turns) if turn["role"] == "assistant"]


class Render(Protocol):
    """Renders a conversation; `opened`: with the beginning of the assistant's next turn."""

    def __call__(self, turns: Sequence[Turn], *, opened: bool) -> str: ...


class TurnLocator:
    """Finds the turns of responses.

    Args:
        render: of one template with its arguments.
        turn_end: what the template puts after the content of a last turn.
        special: finds texts of special tokens.
        taken: text in which no marker may occur, beside what is rendered: the template.
        shows_reasoning: True if the template has a place for `reasoning_content`.
    """

    def __init__(
        self, render: Render, turn_end: str, special: re.Pattern[str], taken: str, *, shows_reasoning: bool
    ) -> None:
        self._render = render
        self._turn_end = turn_end
        self._special = special
        self._taken = taken
        self._shows_reasoning = shows_reasoning

    def locate(self, answer: Answer) -> list[Segment]:
        """Splits what follows the rendered prompt into scored turns and what is between them.

        Raises:
            DataError: a turn has no place, or the template shows it other than as it was written.
        """
        return self._follow(answer) or self._find(answer)

    # -- by renderings that continue each other

    def _follow(self, answer: Answer) -> list[Segment]:
        """Returns what each rendering adds to the one before; nothing where one does not continue the other."""
        conversation, first = answer.conversation, len(answer.history)
        segments: list[Segment] = []
        done = answer.prompt
        for place in answer.places:
            before = conversation[: first + place]
            opened = answer.prompt if place == 0 else self._render(before, opened=True)
            closed = self._render(conversation[: first + place + 1], opened=False)
            if not opened.startswith(done) or not closed.startswith(opened):
                return []
            text = closed[len(opened) :]
            if not text.endswith(self._turn_end) or not self._is_whole(text, self._turn_end, answer, place):
                return []
            segments += _context(opened[len(done) :], segments, place)
            segments.append(Segment(text, answer.trained[place], range(place, place + 1), self._turn_end))
            done = closed
        return segments

    # -- by a marker in the rendering of the whole

    def _find(self, answer: Answer) -> list[Segment]:
        conversation, first, last = answer.conversation, len(answer.history), answer.places[-1]
        whole = self._render(conversation[: first + last + 1], opened=False)
        marker = self._choose_marker(whole)
        segments: list[Segment] = []
        done = 0
        for place in answer.places:
            number = first + place
            opened = answer.prompt if place == 0 else self._render(conversation[:number], opened=True)
            marked = [*conversation[:number], _marked_turn(marker), *conversation[number + 1 : first + last + 1]]
            before, after = self._split(marked, marker, answer)
            _, end = self._split(marked[: number + 1], marker, answer)
            tail, later = self._cut_tail(after, end, answer)
            stop = len(whole) - len(later)
            start = _find_start(whole, opened, before, answer)
            if not whole.endswith(later) or start > stop:
                raise _unplaced(answer)
            text = _without_opening(whole[start:stop], opened, before) if start == len(before) else whole[start:stop]
            if not self._is_whole(text, tail, answer, place):
                text = self._restore(text, tail, opened, before, answer, place, is_last=place == last)
            between = _gap(answer.prompt if not segments else whole[:done], opened, answer)
            segments += _context(between, segments, place)
            segments.append(Segment(text, answer.trained[place], range(place, place + 1), tail))
            done = stop
        return segments

    def _choose_marker(self, whole: str) -> str:
        """Chooses a word that occurs nowhere; no end of it begins it, so that it cannot arise around itself."""
        number = 0
        while (marker := f"q{number}zx") in whole or marker in self._taken:
            number += 1
        return marker

    def _split(self, turns: Sequence[Turn], marker: str, answer: Answer) -> tuple[str, str]:
        pieces = self._render(turns, opened=False).split(marker)
        if len(pieces) < 2:
            raise _unplaced(answer)
        if len(pieces) > 2:
            raise DataError(
                f"{answer.where}: the chat template shows what an assistant says {len(pieces) - 1} times, so the turns "
                "of this response cannot be scored in place; give another modality.chat_template"
            )
        return pieces[0], pieces[1]

    def _cut_tail(self, after: str, end: str, answer: Answer) -> tuple[str, str]:
        """Cuts what follows a turn's content into the end of the turn and what comes later.

        Args:
            end: what follows the content where the turn is the last one; some templates then add another end.
        """
        if after.startswith(end):
            return end, after[len(end) :]
        common = after[
            : next((n for n, (one, other) in enumerate(zip(after, end, strict=False)) if one != other), None)
        ]
        ends = [found.end() for found in self._special.finditer(common)]
        if not ends:
            raise _unplaced(answer)
        return common[: ends[-1]], after[ends[-1] :]

    def _is_whole(self, text: str, tail: str, answer: Answer, place: int) -> bool:
        """Returns whether a rendered turn has all that was written, but for space. Context may be shortened."""
        if not answer.trained[place]:
            return True
        turn = answer.turns[place]
        shown, written = _squeeze(text.removesuffix(tail)), _squeeze(text_of(turn))
        if turn.get("tool_calls"):
            return written in shown
        reasoning = _squeeze(str(turn.get("reasoning_content", ""))) if self._shows_reasoning else ""
        return shown.endswith(written) and reasoning in shown

    def _restore(
        self, text: str, tail: str, opened: str, before: str, answer: Answer, place: int, *, is_last: bool
    ) -> str:
        """Returns a last turn as it was written where the template dropped its beginning, e.g. what was thought.

        That is what the model would have sampled after the rendered prompt.
        """
        turn = answer.turns[place]
        written, shown = text_of(turn), _squeeze(text.removesuffix(tail))
        dropped = _squeeze(written).endswith(shown) or (answer.begun and place == 0)
        elsewhere = turn.get("tool_calls") or (self._shows_reasoning and turn.get("reasoning_content"))
        if not is_last or not dropped or elsewhere:
            raise DataError(
                f"{answer.where}: the chat template does not show turn {place + 1} of this response as written (it may "
                "drop the reasoning of earlier turns, or change texts); give the turn `train: 0`, make one response of "
                "each turn, or give another modality.chat_template"
            )
        return _without_opening(written, opened, before) + tail


def text_of(turn: Turn) -> str:
    """Joins the text parts of a turn."""
    return "".join(part["text"] for part in turn["content"] if part["type"] == "text")


def text_turn(role: str, text: str) -> Turn:
    """Makes a turn of nothing but text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def add_text(turn: Turn, *, before: str = "", after: str = "") -> Turn:
    """Returns a turn of text with more text."""
    return {**turn, "content": [{"type": "text", "text": before + text_of(turn) + after}]}


def _marked_turn(marker: str) -> Turn:
    return text_turn("assistant", marker)


def _find_start(whole: str, opened: str, before: str, answer: Answer) -> int:
    """Finds where a turn begins: after what opens it; where that has a tag of its own, where the content begins."""
    for beginning in (opened, before):
        if whole.startswith(beginning):
            return len(beginning)
    raise _unplaced(answer)


def _without_opening(text: str, opened: str, before: str) -> str:
    """Drops from a turn what the rendered prompt has already: a tag that opens the reasoning."""
    tag = opened[len(before) :].strip() if opened.startswith(before) else ""
    if not tag or not text.lstrip().startswith(tag):
        return text
    whole_tag = opened[len(before) :]
    return text[len(whole_tag) :] if text.startswith(whole_tag) else text.lstrip()[len(tag) :]


def _gap(done: str, opened: str, answer: Answer) -> str:
    """Returns what opens the next turn after what is `done`."""
    if not opened.startswith(done):
        raise _unplaced(answer)
    return opened[len(done) :]


def _context(text: str, before: Sequence[Segment], place: int) -> list[Segment]:
    """Makes a segment of what is between a turn of the assistant and the next one, unless that is nothing."""
    first = before[-1].messages.stop if before else 0
    return [Segment(text, False, range(first, place))] if text else []


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _unplaced(answer: Answer) -> DataError:
    return DataError(
        f"{answer.where}: the chat template renders earlier turns differently once later ones follow, so the turns of "
        "this response cannot be scored in place; use one response per turn, or another modality.chat_template"
    )
