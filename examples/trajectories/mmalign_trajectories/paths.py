"""What the records of this plugin hold, as text: prompts name a start and a goal, responses are paths.

A prompt is `{"start": [0, 0], "goal": [1, 2]}`; a response is the list of the points after the start,
`[[0.1, 0.2], [0.3, 0.1]]`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from mmalign import DataError, Record, Response

Point = tuple[FiniteFloat, FiniteFloat]

_PATH: TypeAdapter[list[Point]] = TypeAdapter(Annotated[list[Point], Field(min_length=1)])


class Task(BaseModel):
    """What a prompt asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: Point
    goal: Point


def parse_task(record: Record) -> Task:
    """Reads the prompt of a record; raises DataError that names the record and the field."""
    try:
        return Task.model_validate_json(record.prompt_text)
    except ValidationError as error:
        example = '{"start": [0, 0], "goal": [1, 2]}'
        raise DataError(f"record {record.id!r}: prompt: {_describe(error)}; expected JSON such as {example}") from None


def parse_path(record: Record, response: Response) -> list[Point]:
    """Reads a response of a record; raises DataError that names the response and the point."""
    try:
        return _PATH.validate_json(response.text)
    except ValidationError as error:
        where = f"record {record.id!r}, response {response.rid!r}"
        raise DataError(f"{where}: {_describe(error)}; expected points such as [[0.1, 0.2], [0.3, 0.1]]") from None


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
