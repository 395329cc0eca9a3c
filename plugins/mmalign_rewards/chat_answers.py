"""What a chat model answered, without its reasoning; an answer that may not be whole is none.

A score is read from what stands behind the reasoning only: a model weighs other numbers before it decides. Where it is
unsure whether the reasoning has ended, there is no text to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmalign import RequestFailed

_CUT_OFF = {
    "length": "it was cut off at the token limit; raise options.max_tokens",
    "max_tokens": "it was cut off at the token limit; raise options.max_tokens",
    "content_filter": "the server's content filter stopped it",
    "abort": "the server stopped it",
    "error": "the server stopped it",
}
_NAMES = "think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad"
# <think>, [THINK], ◁think▷, <seed:think>, <|begin_of_thought|>, with attributes or without.
_OPENING = re.compile(rf"<(?:\w+:)?(?:{_NAMES})\b[^<>]*>|\[(?:{_NAMES})\]|◁(?:{_NAMES})▷|<\|begin_of_\w+\|>", re.I)
_CLOSING = re.compile(rf"</(?:\w+:)?(?:{_NAMES})\s*>|\[/(?:{_NAMES})\]|◁/(?:{_NAMES})▷|<\|end_of_thought\|>", re.I)
_CHANNEL = "<|channel|>"
_FINAL = "<|channel|>final<|message|>"
_REASONING_PARTS = ("thinking", "reasoning", "redacted_thinking")
_TEXT_PARTS = ("text", "output_text")


def read_answer(answer: Any) -> str | RequestFailed:
    """Returns what a chat completion says behind its reasoning, or why nothing is sure.

    Args:
        answer: decoded JSON, or the failure of its request.

    >>> read_answer({"choices": [{"message": {"content": "<think>3?</think>Score: 8"}, "finish_reason": "stop"}]})
    'Score: 8'
    """
    if isinstance(answer, RequestFailed):
        return answer
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content = message["content"]
        reason, refusal = choice.get("finish_reason"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return RequestFailed(f"expected a chat completion, got {str(answer)[:80]!r}")
    if reason in _CUT_OFF:
        return RequestFailed(f"no score in an answer that is not whole: {_CUT_OFF[reason]}")
    if refusal:
        return RequestFailed(f"no score, the model refused: {str(refusal)[:80]!r}")
    text = _join_parts(content) if isinstance(content, list) else content
    if isinstance(text, RequestFailed):
        return text
    return _skip_reasoning(text) if isinstance(text, str) else RequestFailed(f"no score in {str(content)[-80:]!r}")


def _join_parts(parts: list[Any]) -> str | RequestFailed:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind in _REASONING_PARTS:
            continue
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            return RequestFailed(f"no score in an answer with a part {str(part)[:60]!r}; expected text")
        texts.append(part["text"])
    return "\n".join(texts)  # joined without a break, two numbers would become one


def _skip_reasoning(text: str) -> str | RequestFailed:
    if _CHANNEL in text:
        _, found, text = text.rpartition(_FINAL)
        if not found or _CHANNEL in text:
            return RequestFailed("no score in an answer without a last channel 'final'")
    opened, closed = len(_OPENING.findall(text)), list(_CLOSING.finditer(text))
    if opened > len(closed):
        return RequestFailed("no score in an answer whose reasoning does not end")
    rest = text[closed[-1].end() :] if closed else text
    if _OPENING.search(rest):
        return RequestFailed("no score in an answer whose reasoning does not end")
    return rest
