"""Every number in a configuration is finite and has a range, or its config model says why any finite one is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmalign import ConfigError, Parameters, RunConfig, Unbounded
from mmalign.config.validation import load_config_model, validate
from mmalign.plugins.registry import KINDS, load_registry

BOUNDS = ("gt", "ge", "lt", "le")


def iter_models() -> Iterator[type[BaseModel]]:
    yield RunConfig
    registry = load_registry()
    for kind in KINDS:
        yield from (load_config_model(entry.spec) for entry in registry.entries(kind))


def iter_numbers(model: type[BaseModel], seen: set[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Every number in a model and those in it, with what its type says of it."""
    if model not in seen:
        seen.add(model)
        for name, field in model.model_fields.items():
            yield from iter_in_type(f"{model.__name__}.{name}", field.annotation, list(field.metadata), seen)


def iter_in_type(place: str, annotation: Any, rules: list[Any], seen: set[Any]) -> Iterator[tuple[str, list[Any]]]:
    if hasattr(annotation, "__metadata__"):
        inner, *metadata = get_args(annotation)
        nested = [one for rule in metadata for one in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
        yield from iter_in_type(place, inner, [*rules, *nested], seen)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from iter_numbers(annotation, seen)
    elif annotation in (int, float):
        yield place, rules
    else:
        for one in get_args(annotation):
            yield from iter_in_type(place, one, rules, seen)


def test_every_number_has_a_bound_or_a_reason() -> None:
    seen: set[Any] = set()
    found = [number for model in iter_models() for number in iter_numbers(model, seen)]
    free = [
        place
        for place, rules in found
        if not any(getattr(rule, bound, None) is not None for rule in rules for bound in BOUNDS)
        and not any(isinstance(rule, Unbounded) and rule.reason for rule in rules)
    ]
    assert len(found) > 250 and not free


def test_every_config_model_refuses_what_is_not_finite() -> None:
    seen: set[Any] = set()
    for model in iter_models():
        list(iter_numbers(model, seen))
    assert {model.model_config.get("allow_inf_nan") for model in seen} == {False}


class Method(Parameters):
    beta: float = 0.1
    weights: tuple[float, ...] = ()
    anything: Any = None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), "nan", "inf", 1e31])
@pytest.mark.parametrize("place", ["beta", "weights", "anything"])
def test_what_no_run_can_use_is_refused_with_its_place(number: Any, place: str) -> None:
    if isinstance(number, str) and place == "anything":
        pytest.skip("a text")
    data = {place: [0.5, number] if place == "weights" else number}
    with pytest.raises(ConfigError) as caught:
        validate(Method, data, "objective", "run.yaml")
    index = "[1]" if place == "weights" else ""
    assert str(caught.value).startswith(f"run.yaml: objective.{place}{index}: expected a finite number")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, "expected a whole number of at most 64 bits"),
        ({"deep": [-(2**63) - 1]}, "expected a whole number of at most 64 bits"),
        ("a\x00b", "expected text without null characters"),
        ("\ud800", "expected text without null characters and halves of surrogate pairs"),
    ],
)
def test_values_that_nothing_holds_are_refused_wherever_they_are(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Method, {"anything": value}, "objective")


def test_numbers_at_the_edge_are_fine() -> None:
    assert validate(Method, {"beta": -9e29, "anything": [2**63 - 1, -(2**63)]}, "").beta == -9e29
