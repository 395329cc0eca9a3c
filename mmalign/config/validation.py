"""From plain mappings to checked models, with errors that a user can act on.

`validate` turns everything pydantic finds into one `ConfigError` of one line per mistake:
`runs/dpo.yaml: rewards[1].wieght: unknown key 'wieght'; did you mean 'weight'? known: name, weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mmalign.config.parameters import format_value, nested_models
from mmalign.contract.specs import Spec
from mmalign.errors import ConfigError, PluginError, suggest

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[int | str, ...]

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "iterable": "a list",
    "dict": "a mapping of keys to values",
    "mapping": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "none_required": "null",
}
"""What the type errors of pydantic, by prefix, mean in the words of a YAML file."""

_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


_LARGEST = 1e30
"""Numbers from here on, and whole ones beyond 64 bits, are slips of the pen: no arithmetic of a run holds them."""


_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")


def one_or_many(value: Any) -> Any:
    """Lets a single mapping stand where a list of them is expected; a pydantic validator of mode `before`."""
    return [value] if isinstance(value, Mapping) else value


def validate(model_class: type[ModelT], data: Mapping[str, Any], where: str, source: str = "") -> ModelT:
    """Builds `model_class` from `data`.

    Args:
        where: key path of `data` in its file, e.g. `rewards[1]`; empty at the top level.
        source: the file, for the messages.

    Raises:
        ConfigError: one line for every mistake in `data`.
    """
    try:
        model = model_class.model_validate(data)
    except ValidationError as error:
        problems = _describe_all(error.errors(include_url=False), model_class, data)
    else:
        problems = {
            location: [f"expected a number, got {format_value(got)}"] for location, got in _find_booleans(model, data)
        }
    for location, got, expected in _find_unusable(data):
        problems.setdefault(location, [f"expected {expected}, got {format_value(got)}"])
    if problems:
        raise ConfigError("\n".join(_format_problems(problems, where, source)))
    return model


def validate_parameters(spec: Spec, data: Mapping[str, Any], where: str, source: str = "") -> BaseModel:
    """Checks the parameters of a part against the config model that its spec names.

    Raises:
        ConfigError: one line for every mistake in `data`.
        PluginError: the config model cannot be loaded.
    """
    return validate(load_config_model(spec), data, where, source)


def load_config_model(spec: Spec) -> type[BaseModel]:
    """Loads the model that validates a part's parameters; raises PluginError if it cannot."""
    from mmalign.import_strings import load_object

    model_class = load_object(spec.config)
    if not (isinstance(model_class, type) and issubclass(model_class, BaseModel)):
        raise PluginError(
            f"{spec.kind} {spec.name!r}: config {spec.config!r} is {model_class!r}; expected a subclass of Parameters"
        )
    return model_class


# -- errors ---------------------------------------------------------------------------------------------------------


def _describe_all(
    errors: Sequence[ErrorDetails], model_class: type[BaseModel], data: Mapping[str, Any]
) -> dict[Location, list[str]]:
    """Groups messages by place: every branch of a union complains about the same value."""
    problems: dict[Location, list[str]] = {}
    for error in errors:
        location = _real_location(error, data)
        message = _describe(error, model_class, location)
        if message not in problems.setdefault(location, []):
            problems[location].append(message)
    # A list is called too short, too, when what it holds is wrong.
    short = [one for one in problems if any(other[: len(one)] == one and other != one for other in problems)]
    return {one: messages for one, messages in problems.items() if one not in short}


def _format_problems(problems: Mapping[Location, Sequence[str]], where: str, source: str) -> Iterator[str]:
    for location, messages in problems.items():
        path = where
        for part in location:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        yield ": ".join(part for part in (source, path, _join_alternatives(messages)) if part)


def _join_alternatives(messages: Sequence[str]) -> str:
    """Joins what the branches of a union expected: `expected a number, got 'x' or expected text, ...` said once."""
    heads = [message.partition(", got ") for message in messages]
    if len(messages) > 1 and all(head.startswith("expected ") for head, _, _ in heads):
        return f"expected {' or '.join(head.removeprefix('expected ') for head, _, _ in heads)}, got {heads[0][2]}"
    return " or ".join(messages)


def _real_location(error: ErrorDetails, data: Any) -> Location:
    """Leaves out the parts of pydantic's location that name a branch of a union, not a key of `data`."""
    kept: list[int | str] = []
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        if index == last and error["type"] == "missing":
            kept.append(part)
        elif isinstance(data, Mapping) and part in data:
            kept.append(part)
            data = data[part]
        elif isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data):
            kept.append(part)
            data = data[part]
    return tuple(kept)


def _describe(error: ErrorDetails, model_class: type[BaseModel], location: Location) -> str:
    kind, got, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {location[-1]!r}{suggest(str(location[-1]), _known_keys(model_class, location[:-1]))}"
    if kind == "missing":
        return "missing; this key has no default"
    if kind in _BOUNDS and isinstance(got, bool):
        return f"expected a number, got {format_value(got)}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]}, got {format_value(got)}"
    if kind in ("literal_error", "enum"):
        return _describe_choice(got, str(context["expected"]))
    if kind in ("too_short", "too_long"):
        words, key = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"expected {words} {context[key]} item(s), got {context['actual_length']}"
    expected = next((words for prefix, words in _EXPECTED.items() if kind.startswith(prefix)), "")
    if expected and kind.endswith(("_type", "_parsing", "_from_float", "number", "_required", "_size", "_unicode")):
        return f"expected {expected}, got {format_value(got)}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message if kind == "value_error" else f"{message[:1].lower()}{message[1:]}, got {format_value(got)}"


def _describe_choice(got: Any, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    if isinstance(got, str) and choices:
        return f"unknown value {got!r}{suggest(got, choices)}"
    return f"expected {expected}, got {format_value(got)}"


def _known_keys(model_class: type[BaseModel], location: Location) -> list[str]:
    models = [model_class]
    for part in location:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            # Another part of a location is a key of a mapping, whose values are of the models that were found.
            models = [nested for field in fields for nested in nested_models(field.annotation)] or models
    return [name for model in models for name in model.model_fields]


def _find_booleans(model: BaseModel, data: Any, location: Location = ()) -> Iterator[tuple[Location, bool]]:
    """Finds `true` and `false` where numbers are expected: pydantic reads 1 and 0, which nobody means in YAML."""
    for name in type(model).model_fields:
        if isinstance(data, Mapping) and name in data:
            yield from _find_boolean(getattr(model, name), data[name], (*location, name))


def _find_boolean(value: Any, got: Any, location: Location) -> Iterator[tuple[Location, bool]]:
    if isinstance(got, bool) and isinstance(value, (int, float)) and not isinstance(value, bool):
        yield location, got
    elif isinstance(value, BaseModel):
        yield from _find_booleans(value, got, location)
    elif isinstance(value, (list, tuple)) and isinstance(got, (list, tuple)):
        for index, (one, one_got) in enumerate(zip(value, got, strict=False)):
            yield from _find_boolean(one, one_got, (*location, index))
    elif isinstance(value, Mapping) and isinstance(got, Mapping):
        for key in value.keys() & got.keys():
            yield from _find_boolean(value[key], got[key], (*location, key))


def _find_unusable(data: Any, location: Location = ()) -> Iterator[tuple[Location, Any, str]]:
    """Finds values that no run can use, also where the part that takes them does not look; yields what is expected."""
    if isinstance(data, float) and not abs(data) < _LARGEST:
        yield location, data, f"a finite number below {_LARGEST:.0e}"
    elif isinstance(data, int) and not isinstance(data, bool) and not -(2**63) <= data < 2**63:
        yield location, data, "a whole number of at most 64 bits"
    elif isinstance(data, str) and _UNWRITABLE.search(data):
        yield location, data, "text without null characters and halves of surrogate pairs"
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _find_unusable(value, (*location, key))
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            yield from _find_unusable(value, (*location, index))
