"""The parameters of a config model as text: names, types with their bounds, defaults and what they mean."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class ParameterRow(NamedTuple):
    """One line of a part's parameters, as `mmalign explain` shows it; `default` is `required` if there is none."""

    name: str
    type: str
    default: str
    help: str


def parameters_table(model_class: type[BaseModel], prefix: str = "") -> list[ParameterRow]:
    """Lists the fields of a model, those of nested models under dotted names."""
    rows = []
    for name, field in model_class.model_fields.items():
        default = "required" if field.is_required() else format_value(field.get_default(call_default_factory=True))
        rows.append(
            ParameterRow(prefix + name, format_type(field), default, " ".join((field.description or "").split()))
        )
        for nested in nested_models(field.annotation):
            rows += parameters_table(nested, f"{prefix}{name}.")
    return rows


def format_type(field: FieldInfo) -> str:
    """Writes a field's type and bounds, e.g. `float > 0` or `'linear' | 'cosine'`."""
    return " ".join([_format_annotation(field.annotation), format_bounds(field.metadata)]).strip()


def format_bounds(metadata: Iterable[Any]) -> str:
    """Writes the bounds in the metadata of a type, e.g. `>= 0, < 1`; empty if there are none."""
    symbols = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    rules = [rule for one in metadata for rule in (one.metadata if isinstance(one, FieldInfo) else [one])]
    bounds = [
        f"{symbol} {getattr(rule, attribute)}"
        for rule in rules
        for attribute, symbol in symbols.items()
        if getattr(rule, attribute, None) is not None
    ]
    return ", ".join(bounds)


def nested_models(annotation: Any) -> list[type[BaseModel]]:
    """Lists the models in a type such as `tuple[Component, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in nested_models(part)]


def _format_annotation(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(repr(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " | ".join(_format_annotation(part) for part in parts)
    if origin is Annotated:
        kind = _format_annotation(parts[0])
        return " ".join([kind, format_bounds(parts[1:])]).strip()
    if parts:
        inner = ", ".join("..." if part is Ellipsis else _format_annotation(part) for part in parts)
        return f"{_type_name(origin)}[{inner}]"
    return _type_name(annotation)


def _type_name(annotation: Any) -> str:
    return "None" if annotation is types.NoneType else cast(str, getattr(annotation, "__name__", str(annotation)))


def format_value(value: Any) -> str:
    """Writes a value as YAML has it, cut to a line."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = repr(list(value) if isinstance(value, (tuple, set, frozenset)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
