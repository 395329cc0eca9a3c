"""A language model as the judge, behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf, isinf
from typing import Any

from pydantic import Field, field_validator

from mmalign import JsonPoster, Parameters, RequestConfig, RequestFailed, Reward, Sample, Url
from mmalign_rewards.texts import check_template, response_text

TEMPLATE = """\
How well does the response answer the prompt? Think briefly, then end with one line "Score: N", where N is a number from
0 (useless) to 10 (could not be better).

Prompt:
{prompt}

Response:
{response}
"""

OPTIONS: dict[str, Any] = {"temperature": 0}

PATTERN = r"(?i)score\W*?(-?\d+(?:\.\d+)?)"


class JudgeConfig(Parameters):
    """A judge."""

    url: Url
    """The endpoint up to its version, e.g. http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    template: str = TEMPLATE
    """What the judge is asked, with {prompt} (last user message) and {response}; other braces are doubled."""
    pattern: str = PATTERN
    """Regular expression whose only group is the score; the last match counts."""
    options: dict[str, Any] = Field(default=OPTIONS)
    """Further keys of the request, e.g. max_tokens."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, which is sent as a bearer token and written nowhere."""
    requests: RequestConfig = RequestConfig()
    """How requests are made."""

    _check_template = field_validator("template")(check_template)

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"expected one group, which holds the score, got {groups}")
        return pattern


class Judge(Reward):
    """Asks a chat model about one sample at a time and reads the score out of what it writes."""

    def __init__(
        self,
        url: str,
        model: str,
        template: str = TEMPLATE,
        pattern: str = PATTERN,
        *,
        options: Mapping[str, Any] = OPTIONS,
        api_key_env: str | None = None,
        requests: RequestConfig | None = None,
    ) -> None:
        self.template = template
        self.pattern = re.compile(pattern)
        self._body = {"model": model, **options}
        address = f"{url.rstrip('/')}/chat/completions"
        self._poster = JsonPoster(address, api_key_env, requests or RequestConfig(), "rewards.judge")

    def score(self, samples: Sequence[Sample]) -> list[float | Exception]:
        """Returns the judge's scores; raises TypeError if an output is not a text."""
        answers = self._poster.post_all([self._build_payload(sample) for sample in samples])
        return [read_score(answer, self.pattern) for answer in answers]

    def _build_payload(self, sample: Sample) -> Mapping[str, Any]:
        question = self.template.format(prompt=sample.record.prompt_text, response=response_text(sample))
        return {**self._body, "messages": [{"role": "user", "content": question}]}


def read_score(answer: Any, pattern: re.Pattern[str]) -> float | Exception:
    """Takes the score out of a chat completion, or says why there is none."""
    if isinstance(answer, Exception):
        return answer
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return RequestFailed(f"expected a chat completion, got {str(answer)[:80]!r}")
    matches = pattern.findall(text) if isinstance(text, str) else []
    if not matches:
        return RequestFailed(f"no score in {str(text)[-80:]!r}")
    try:
        score = float(matches[-1])
    except ValueError:
        score = inf
    return score if not isinf(score) else RequestFailed(f"expected a finite number as the score, got {matches[-1]!r}")
