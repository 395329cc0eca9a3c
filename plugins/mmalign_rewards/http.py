"""A reward server of your own: posts texts, reads scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from mmalign import JsonPoster, Parameters, RequestConfig, RequestFailed, Reward, Sample, Url
from mmalign_rewards.rows import read_number, read_row, shorten
from mmalign_rewards.texts import response_text

Score = float | list[float] | Exception


class HttpConfig(Parameters):
    """A reward server."""

    url: Url
    """Where to post `{"prompts": [...], "responses": [...]}`; the answer is `{"scores": [...]}`, null for no score."""
    outputs: tuple[str, ...] = ()
    """Names of several scores a response, which the server gives as lists in this order or as objects."""
    batch_size: int = Field(default=16, ge=1)
    """Samples a request."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, which is sent as a bearer token and written nowhere."""
    requests: RequestConfig = RequestConfig()
    """How requests are made."""


class Http(Reward):
    """Asks a server for the scores of texts; a batch without a usable answer has no scores."""

    costly = True
    background = True

    def __init__(
        self,
        url: str,
        batch_size: int = 16,
        api_key_env: str | None = None,
        requests: RequestConfig | None = None,
        outputs: Sequence[str] = (),
    ) -> None:
        self.batch_size = batch_size
        self.dimensions = tuple(outputs)
        self._poster = JsonPoster(url, api_key_env, requests or RequestConfig(), "rewards.http")

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """Returns the server's scores; raises TypeError if an output is not a text."""
        batches = [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]
        answers = self._poster.post_all([_build_payload(batch) for batch in batches])
        pairs = zip(batches, answers, strict=True)
        return [score for batch, answer in pairs for score in read_scores(answer, len(batch), self.dimensions)]


def _build_payload(batch: Sequence[Sample]) -> dict[str, list[str]]:
    prompts = [sample.record.prompt_text for sample in batch]
    return {"prompts": prompts, "responses": [response_text(sample) for sample in batch]}


def read_scores(answer: Any, count: int, outputs: Sequence[str] = ()) -> list[Score]:
    """Takes `count` scores out of a server's answer, or an exception in place of each that is missing.

    Args:
        outputs: names of the numbers that each score holds; empty for a single one.

    >>> read_scores({"scores": [1, None]}, 2)
    [1.0, RequestFailed('expected a finite number as the score, got None')]
    """
    if isinstance(answer, Exception):
        return [answer] * count
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        return [RequestFailed(f"expected {{'scores': [...]}}, got {shorten(answer)}")] * count
    if len(scores) != count:
        return [RequestFailed(f"expected {count} scores, got {len(scores)}")] * count
    return [read_row(score, outputs) if outputs else read_number(score) for score in scores]
