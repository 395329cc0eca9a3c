"""Key phrases of an English text by RAKE: what stands between stop words and punctuation, scored by its words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between
    both but by can could did do does doing down during each few for from further had has have having he her here hers
    him his how i if in into is it its itself just me more most my no nor not now of off on once only or other our out
    over own same she should so some such than that the their them then there these they this those through to too
    under until up very was we were what when where which while who whom why will with would you your""".split()
)
"""Words that part phrases."""

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_GAP = re.compile(r"[^\w\s'\u2019-]|\n")


def rank_phrases(text: str) -> list[str]:
    """Returns the distinct key phrases, the most important first, as they stand in the text.

    A phrase is a run of words without a stop word, punctuation mark or line break. The score of a word is its degree,
    the summed length of the phrases it is in, over its frequency; that of a phrase is the sum over its words.

    >>> rank_phrases("The red sports car is fast, and the car is red.")
    ['red sports car', 'car', 'red', 'fast']

    Source: Rose et al., Automatic Keyword Extraction from Individual Documents (2010).
    """
    phrases = [phrase for piece in _GAP.split(text) for phrase in _split_phrases(piece)]
    degree: dict[str, int] = defaultdict(int)
    frequency: dict[str, int] = defaultdict(int)
    for phrase in phrases:
        words = _words(phrase)
        for word in words:
            degree[word] += len(words)
            frequency[word] += 1
    distinct = list(dict.fromkeys(phrases))
    return sorted(distinct, key=lambda phrase: -sum(degree[word] / frequency[word] for word in _words(phrase)))


def remove_phrases(text: str, phrases: Sequence[str]) -> str:
    """Removes every occurrence of `phrases` as whole words, and the spaces that are left over.

    >>> remove_phrases("The red sports car is fast.", ["red sports car"])
    'The is fast.'
    """
    for phrase in phrases:
        text = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", "", text)
    text = re.sub(r"[ \t]+([.,;:!?])", r"\1", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def _split_phrases(piece: str) -> list[str]:
    phrases: list[str] = []
    start = end = -1
    for match in _WORD.finditer(piece):
        if match[0].casefold() in STOP_WORDS:
            if start >= 0:
                phrases.append(piece[start:end])
            start = -1
        else:
            start = match.start() if start < 0 else start
            end = match.end()
    return [*phrases, piece[start:end]] if start >= 0 else phrases


def _words(phrase: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(phrase)]
