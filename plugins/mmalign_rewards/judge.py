"""A language model as the judge, behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isinf
from typing import Any

from pydantic import Field, field_validator

from mmalign import JsonPoster, Parameters, RequestConfig, RequestFailed, Reward, Sample, Url
from mmalign_rewards.rows import read_row
from mmalign_rewards.texts import check_template, response_text

TEMPLATE = """\
How well does the response answer the prompt? Think briefly, then end with one line {form}.

Prompt:
{prompt}

Response:
{response}
"""

FORM = '"Score: N", where N is a number from 0 (useless) to 10 (could not be better)'

OPTIONS: dict[str, Any] = {"temperature": 0}

REQUESTS = RequestConfig()

PATTERN = r"(?i)score\W*?(-?\d+(?:\.\d+)?)"


class JudgeConfig(Parameters):
    """A judge."""

    url: Url
    """The endpoint up to its version, e.g. http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    template: str = TEMPLATE
    """What the judge is asked, with {prompt} (last user message) and {response}; {form} says how to give the scores.
    Other braces are doubled."""
    pattern: str = PATTERN
    """Regular expression whose only group is the score; the last match counts. Not used with criteria."""
    criteria: tuple[str, ...] = ()
    """Names of several scores a response; the last JSON object in the judge's answer that has them all counts."""
    options: dict[str, Any] = Field(default=OPTIONS)
    """Further keys of the request, e.g. max_tokens."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, which is sent as a bearer token and written nowhere."""
    requests: RequestConfig = REQUESTS
    """How requests are made."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        return check_template(template, optional="form")

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


@dataclass(eq=False)
class Judge(Reward):
    """Asks a chat model about one sample at a time and reads the score, or one for each criterion, out of its answer.

    The fields are those of `JudgeConfig`, which says what they mean.
    """

    costly = True
    background = True

    url: str
    model: str
    template: str = TEMPLATE
    pattern: str = PATTERN
    options: Mapping[str, Any] = field(default_factory=lambda: OPTIONS)
    api_key_env: str | None = None
    requests: RequestConfig = REQUESTS
    criteria: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.dimensions = tuple(self.criteria)
        address = f"{self.url.rstrip('/')}/chat/completions"
        self._poster = JsonPoster(address, self.api_key_env, self.requests, "rewards.judge")
        self._form = _describe_object(self.criteria) if self.criteria else FORM

    def score(self, samples: Sequence[Sample]) -> list[float | list[float] | Exception]:
        """Returns the judge's scores; raises TypeError if an output is not a text."""
        answers = self._poster.post_all([self._build_payload(sample) for sample in samples])
        if self.criteria:
            return [read_scores(answer, self.criteria) for answer in answers]
        pattern = re.compile(self.pattern)
        return [read_score(answer, pattern) for answer in answers]

    def _build_payload(self, sample: Sample) -> Mapping[str, Any]:
        values = {"prompt": sample.record.prompt_text, "response": response_text(sample), "form": self._form}
        question = self.template.format(**values)
        return {"model": self.model, **self.options, "messages": [{"role": "user", "content": question}]}


def _describe_object(criteria: Sequence[str]) -> str:
    example = ", ".join(f"{json.dumps(name)}: N" for name in criteria)
    return f"of JSON, {{{example}}}, where each N is a number from 0 (worst) to 10 (could not be better)"


def read_score(answer: Any, pattern: re.Pattern[str]) -> float | Exception:
    """Takes the score out of a chat completion, or says why there is none."""
    text = _read_text(answer)
    if isinstance(text, Exception):
        return text
    matches = pattern.findall(text)
    if not matches:
        return _find_nothing(text)
    try:
        score = float(matches[-1])
    except ValueError:
        score = inf
    return score if not isinf(score) else RequestFailed(f"expected a finite number as the score, got {matches[-1]!r}")


def read_scores(answer: Any, criteria: Sequence[str]) -> list[float] | Exception:
    """Takes one score for each criterion out of a chat completion, or says why there are none."""
    text = _read_text(answer)
    if isinstance(text, Exception):
        return text
    decoder = json.JSONDecoder()
    for match in reversed(list(re.finditer(r"\{", text))):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if all(name in value for name in criteria):
            return read_row(value, criteria)
    return _find_nothing(text)


def _read_text(answer: Any) -> str | Exception:
    if isinstance(answer, Exception):
        return answer
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return RequestFailed(f"expected a chat completion, got {str(answer)[:80]!r}")
    return text if isinstance(text, str) else _find_nothing(text)


def _find_nothing(text: Any) -> RequestFailed:
    return RequestFailed(f"no score in {str(text)[-80:]!r}")
