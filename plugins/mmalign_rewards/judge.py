"""A language model as the judge, behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmalign import JsonPoster, Parameters, RequestConfig, RequestFailed, Reward, Sample, Unbounded, Url
from mmalign_rewards.chat_answers import read_answer
from mmalign_rewards.score_lines import Scale, read_score_line
from mmalign_rewards.score_objects import read_score_object
from mmalign_rewards.texts import check_template, response_text

logger = logging.getLogger(__name__)

TEMPLATE = """\
How well does the response answer the prompt? Think briefly, then end with one line {form}.

Prompt:
{prompt}

Response:
{response}
"""

OPTIONS: dict[str, Any] = {"temperature": 0}

REQUESTS = RequestConfig()

SCALE: Scale = (0.0, 10.0)
"""What the default template asks for."""

Structured = Literal["auto", "always", "never"]

_OBJECT_LINE = re.compile(r"^\W*(?:json\s*)?\{", re.M)

Bound = Annotated[float, Unbounded("the template says what scores mean")]


class JudgeConfig(Parameters):
    """A judge."""

    url: Url
    """The endpoint up to its version, e.g. http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    template: str = TEMPLATE
    """What the judge is asked, with {prompt} (last user message) and {response}; {form} says how to give the scores.
    Other braces are doubled."""
    scale: tuple[Bound, Bound] | None = None
    """Lowest and highest score; {form} says it, and an answer off the scale has no score. null: [0, 10] where the
    template has {form}, else any number."""
    pattern: str | None = None
    """Regular expression whose only group is the score, for a template with a form of its own; the last match behind
    the judge's reasoning counts. null reads the last line of the form `Score: N`. Not used with criteria."""
    criteria: tuple[str, ...] = ()
    """Names of several scores a response; the last JSON object in the judge's answer that has them all counts."""
    structured: Structured = "auto"
    """Whether the server is asked to keep to a JSON schema (`response_format`). `auto`: where the template has {form},
    if the first request shows that the server takes it."""
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
    def _check_pattern(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"expected one group, which holds the score, got {groups}")
        return pattern

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: Scale | None) -> Scale | None:
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"expected [lowest, highest], got {list(scale)}")
        return scale

    @model_validator(mode="after")
    def _check_structured(self) -> JudgeConfig:
        if self.pattern is not None and self.structured == "always":
            raise ValueError("structured: a pattern reads free text, not JSON; drop one of the two")
        return self


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
    pattern: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: OPTIONS)
    api_key_env: str | None = None
    requests: RequestConfig = REQUESTS
    criteria: Sequence[str] = ()
    scale: Scale | None = None
    structured: Structured = "auto"

    def __post_init__(self) -> None:
        self.dimensions = tuple(self.criteria)
        address = f"{self.url.rstrip('/')}/chat/completions"
        self._poster = JsonPoster(address, self.api_key_env, self.requests, "rewards.judge")
        tells_form = "{form}" in self.template
        self._scale = self.scale or (SCALE if tells_form else None)
        self._names = tuple(self.criteria) or ("score",)
        self._ask_schema = self.structured == "always" or (
            self.structured == "auto" and tells_form and self.pattern is None
        )
        self._known = self.structured == "always" or not self._ask_schema

    def score(self, samples: Sequence[Sample]) -> list[float | list[float] | Exception]:
        """Returns the judge's scores; raises TypeError if an output is not a text."""
        return [self._read(answer) for answer in self._ask(samples)]

    def _ask(self, samples: Sequence[Sample]) -> list[Any]:
        if self._known:
            return self._post(samples)
        # The first sample shows whether the server takes a schema.
        first = self._post(samples[:1])
        if _is_refused(first):
            plain = self._post(samples[:1], schema=False)
            if not any(isinstance(one, Exception) for one in plain):
                logger.info("rewards.judge: the server takes no JSON schema (%s); scores are read from text", first[0])
                self._ask_schema, first = False, plain
        self._known = not any(isinstance(one, Exception) for one in first)
        return [*first, *self._post(samples[1:])]

    def _post(self, samples: Sequence[Sample], *, schema: bool | None = None) -> list[Any]:
        asked = self._ask_schema if schema is None else schema
        return self._poster.post_all([self._build_payload(sample, asked) for sample in samples]) if samples else []

    def _build_payload(self, sample: Sample, schema: bool) -> Mapping[str, Any]:
        form = describe_form(self.criteria, self._scale or SCALE, schema=schema)
        values = {"prompt": sample.record.prompt_text, "response": response_text(sample), "form": form}
        question = self.template.format(**values)
        format_key = {"response_format": build_schema(self._names)} if schema else {}
        return {
            "model": self.model,
            **format_key,
            **self.options,
            "messages": [{"role": "user", "content": question}],
        }

    def _read(self, answer: Any) -> float | list[float] | Exception:
        text = read_answer(answer)
        if isinstance(text, Exception):
            return text
        if self.criteria:
            return read_score_object(text, self.criteria, self._scale)
        if self.pattern is not None:
            return read_pattern(text, re.compile(self.pattern))
        row = read_score_object(text, self._names, self._scale) if _OBJECT_LINE.search(text) else None
        return row[0] if isinstance(row, list) else read_score_line(text, self._scale)


def describe_form(criteria: Sequence[str], scale: Scale, *, schema: bool) -> str:
    """Says how the judge should end its answer: what `{form}` becomes."""
    low, high = (f"{bound:g}" for bound in scale)
    if not criteria and not schema:
        return f'"Score: N", where N is a number from {low} (useless) to {high} (could not be better)'
    explained = ['"explanation": "..."'] if schema else []
    example = ", ".join([*explained, *(f"{json.dumps(name)}: N" for name in criteria or ("score",))])
    each = "each N" if len(criteria) > 1 else "N"
    return f"of JSON, {{{example}}}, where {each} is a number from {low} (worst) to {high} (could not be better)"


def build_schema(names: Sequence[str]) -> dict[str, Any]:
    """Builds the `response_format` of an object with a number for each name, behind an explanation.

    Source: the OpenAI API reference, structured outputs.
    """
    properties = {"explanation": {"type": "string"}} | {name: {"type": "number"} for name in names}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "scores", "strict": True, "schema": schema}}


def read_pattern(text: str, pattern: re.Pattern[str]) -> float | RequestFailed:
    """Reads the last match of a pattern of the user's own as a number."""
    matches = pattern.findall(text)
    if not matches:
        return RequestFailed(f"no score in {text[-80:]!r}")
    try:
        score = float(matches[-1])
    except ValueError:
        score = float("nan")
    if not isfinite(score):
        return RequestFailed(f"expected a finite number as the score, got {matches[-1]!r}")
    return score


def _is_refused(answers: Sequence[Any]) -> bool:
    """Returns whether a request was answered with an error that a schema may have caused."""
    statuses = [one.status for one in answers if isinstance(one, RequestFailed)]
    return any(status is not None and status not in (401, 403, 408, 429) for status in statuses)
