"""Instructions whose fulfilment can be checked on the text of a response, made so that it fulfils or breaks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Instruction:
    """What is asked, and whether a text does it."""

    text: str
    fulfilled: Callable[[str], bool]


def limit_words(response: str, fulfil: bool, chance: Random) -> Instruction | None:
    """Allows a number of words that the response keeps, or exceeds."""
    count = len(response.split())
    if not fulfil and count < 2:
        return None
    limit = count + chance.randint(0, count) if fulfil else chance.randint(1, count - 1)
    return Instruction(f"Use at most {limit} words.", lambda text: len(text.split()) <= limit)


def demand_words(response: str, fulfil: bool, chance: Random) -> Instruction | None:
    """Asks for a number of words that the response has, or lacks."""
    count = len(response.split())
    least = chance.randint(1, max(1, count)) if fulfil else count + chance.randint(1, count + 1)
    return Instruction(f"Use at least {least} words.", lambda text: len(text.split()) >= least)


def include_word(response: str, fulfil: bool, chance: Random) -> Instruction | None:
    """Asks for a word of the response, or for one that it lacks."""
    words = sorted({word.casefold() for word in re.findall(r"\w{4,}", response)})
    if fulfil and not words:
        return None
    absent = [word for word in ("therefore", "perhaps", "remarkable", "yesterday", "harbour") if word not in words]
    word = chance.choice(words if fulfil else absent)
    return Instruction(f"Use the word {word!r}.", lambda text: word in re.findall(r"\w+", text.casefold()))


def avoid_word(response: str, fulfil: bool, chance: Random) -> Instruction | None:
    """Forbids a word that the response lacks, or has."""
    asked = include_word(response, not fulfil, chance)
    if asked is None:
        return None
    return Instruction(asked.text.replace("Use", "Do not use", 1), lambda text: not asked.fulfilled(text))


def end_with(response: str, fulfil: bool, chance: Random) -> Instruction | None:
    """Asks for the mark that the response ends with, or for another one."""
    marks = [mark for mark in ".!?" if response.rstrip().endswith(mark) == fulfil]
    if not marks:
        return None
    mark = chance.choice(marks)
    return Instruction(f"End with {mark!r}.", lambda text: text.rstrip().endswith(mark))


LIBRARY: Mapping[str, Callable[[str, bool, Random], Instruction | None]] = {
    function.__name__: function for function in (limit_words, demand_words, include_word, avoid_word, end_with)
}
"""Makers of instructions: `f(response, fulfil, chance)`; None where the response cannot fulfil, or break, any."""
