"""A reward server of your own: posts texts, reads scores."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any

from pydantic import Field

from mmalign import JsonPoster, Parameters, RequestConfig, RequestFailed, Reward, Sample, Url
from mmalign_rewards.texts import response_text


class HttpConfig(Parameters):
    """A reward server."""

    url: Url
    """Where to post `{"prompts": [...], "responses": [...]}`; the answer is `{"scores": [...]}`, null for no score."""
    batch_size: int = Field(default=16, ge=1)
    """Samples a request."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, which is sent as a bearer token and written nowhere."""
    requests: RequestConfig = RequestConfig()
    """How requests are made."""


class Http(Reward):
    """Asks a server for the scores of texts; a batch without a usable answer has no scores."""

    def __init__(
        self, url: str, batch_size: int = 16, api_key_env: str | None = None, requests: RequestConfig | None = None
    ) -> None:
        self.batch_size = batch_size
        self._poster = JsonPoster(url, api_key_env, requests or RequestConfig(), "rewards.http")

    def score(self, samples: Sequence[Sample]) -> list[float | Exception]:
        """Returns the server's scores; raises TypeError if an output is not a text."""
        batches = [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]
        answers = self._poster.post_all([_build_payload(batch) for batch in batches])
        pairs = zip(batches, answers, strict=True)
        return [score for batch, answer in pairs for score in read_scores(answer, len(batch))]


def _build_payload(batch: Sequence[Sample]) -> dict[str, list[str]]:
    prompts = [sample.record.prompt_text for sample in batch]
    return {"prompts": prompts, "responses": [response_text(sample) for sample in batch]}


def read_scores(answer: Any, count: int) -> list[float | Exception]:
    """Takes `count` scores out of a server's answer, or an exception in place of each that is missing.

    >>> read_scores({"scores": [1, None]}, 2)
    [1.0, RequestFailed('expected a finite number as the score, got None')]
    """
    if isinstance(answer, Exception):
        return [answer] * count
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        return [RequestFailed(f"expected {{'scores': [...]}}, got {_shorten(answer)}")] * count
    if len(scores) != count:
        return [RequestFailed(f"expected {count} scores, got {len(scores)}")] * count
    return [_read_score(score) for score in scores]


def _read_score(score: Any) -> float | Exception:
    number = isinstance(score, (int, float)) and not isinstance(score, bool)
    if not number or not (isnan(score) or isfinite(score)):
        return RequestFailed(f"expected a finite number as the score, got {_shorten(score)}")
    return float(score)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
