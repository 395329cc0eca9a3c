"""What OpenAI-compatible servers answer, in one form.

Servers differ in what they tell about tokens. All give the text; many give token strings with log-probs on request;
vLLM gives token ids, too, if asked with `return_token_ids`. Source: the OpenAI API reference, completions and chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from mmalign import TrainingError


@dataclass(frozen=True)
class Reply:
    """One sampled response.

    Attributes:
        text: the response without special tokens.
        finished: False when the token limit cut it off.
        tokens: strings of the sampled tokens; None if the server does not tell.
        logps: log-probs of the sampled tokens, in nats; None if the server does not tell them all.
        token_ids: ids of the sampled tokens; None if the server does not tell.
    """

    text: str
    finished: bool
    tokens: tuple[str, ...] | None = None
    logps: tuple[float, ...] | None = None
    token_ids: tuple[int, ...] | None = None


def parse_reply(answer: Any, where: str) -> Reply:
    """Reads the first choice of an answer from `completions` or `chat/completions`.

    Raises:
        TrainingError: there is no choice with a text.
    """
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise TrainingError(
            f"engine.base_url: {where}: expected an answer with choices[0].message.content or choices[0].text, got "
            f"{answer!r:.200}"
        )
    tokens, logps = _parse_logprobs(choice.get("logprobs") or {})
    ids = choice.get("token_ids")
    return Reply(text, choice.get("finish_reason") != "length", tokens, logps, tuple(ids) if ids else None)


def _parse_logprobs(logprobs: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    if logprobs.get("content"):
        rows = logprobs["content"]
        return tuple(row.get("token", "") for row in rows), _all_finite([row.get("logprob") for row in rows])
    if logprobs.get("tokens") and logprobs.get("token_logprobs"):
        return tuple(logprobs["tokens"]), _all_finite(logprobs["token_logprobs"])
    return None, None


def _all_finite(values: Sequence[float | None]) -> tuple[float, ...] | None:
    known = [float(value) for value in values if value is not None and isfinite(value)]
    return tuple(known) if len(known) == len(values) else None
