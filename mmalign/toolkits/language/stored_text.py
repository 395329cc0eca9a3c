"""What stored texts must not have: the tokens with which a template, a response's end or an image are marked.

Tokenizers read such tokens out of any text, so that a prompt that was rendered already is rendered twice, a response
goes on after its end, or a word counts as an image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mmalign.data.records import Message, Part, Record, Response
from mmalign.errors import DataError
from mmalign.toolkits.language.notes import Notes


class StoredTexts:
    """Checks the texts of records against a tokenizer's special tokens.

    Args:
        tokenizer: of transformers.
        end: texts of the tokens that end a response.
        placeholders: texts that stand for an image or a sound.
    """

    def __init__(self, tokenizer: Any, end: Collection[str], placeholders: Collection[str], notes: Notes) -> None:
        self._special = any_of(special_texts(tokenizer) - set(placeholders))
        self._placeholders = any_of(placeholders)
        self._end = any_of(end)
        self._last = re.compile(rf"(?:{self._end.pattern})\s*\Z")
        self._notes = notes

    def check_prompt(self, record: Record, where: str) -> None:
        """Tells of special tokens in the texts of a prompt, which a template writes itself.

        Raises:
            DataError: a text has what stands for an image or a sound.
        """
        self._check(record.prompt, where)

    def clean_response(self, response: Response, where: str) -> Response:
        """Returns a response without the end token that its turns end with, which the template writes itself.

        Raises:
            DataError: a turn goes on after an end token, or has what stands for an image or a sound.
        """
        messages = tuple(self._clean(message, where) for message in response.messages)
        self._check(messages, where)
        return response if messages == response.messages else response.model_copy(update={"messages": messages})

    def _clean(self, message: Message, where: str) -> Message:
        if message.role != "assistant" or not self._end.search(_all_text(message)):
            return message
        content = _cut_end(message.content, self._last) if message.content else ()
        if content != message.content:
            self._notes.add("stored responses end with the end token, which the template writes itself: cut off", where)
        cleaned = message.model_copy(update={"content": content})
        inside = self._end.search(_all_text(cleaned))
        if inside:
            raise DataError(
                f"{where}: it goes on after {inside[0]!r}, which ends a response; expected one text without it, or "
                "several messages"
            )
        return cleaned

    def _check(self, messages: Iterable[Message], where: str) -> None:
        for message in messages:
            placeholder = self._placeholders.search(_all_text(message))
            if placeholder:
                raise DataError(
                    f"{where}: it has {placeholder[0]!r}, which stands for an image or a sound, in a text of the "
                    f"{message.role}; expected a part of that type in its place, or other words"
                )
            found = self._special.findall(_all_text(message))
            if found:
                names = ", ".join(dict.fromkeys(found))
                sentence = "a text has control tokens, which the chat template writes itself; is it applied already?"
                self._notes.add(sentence, f"{where} ({names})")


def _all_text(message: Message) -> str:
    return "\n".join((message.reasoning_content or "", message.text))


def _cut_end(content: Sequence[Part], last: re.Pattern[str]) -> tuple[Part, ...]:
    """Cuts an end token, with the space around it, off the last text."""
    *before, final = content
    if final.type != "text":
        return tuple(content)
    cut = last.sub("", final.text or "")
    return (*before, final.model_copy(update={"text": cut}))


def special_texts(tokenizer: Any) -> set[str]:
    """Returns the texts of all special tokens."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return {*tokenizer.all_special_tokens, *added}


def any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Returns a pattern that finds any of these texts, the longest first; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")
