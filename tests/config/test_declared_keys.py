"""Keys read from source: those of every registered config model, and nothing where the source does not tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmalign.config.declared_keys import declared_keys, imports_heavy
from mmalign.config.validation import load_config_model
from mmalign.plugins.registry import KINDS, Registry, load_registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_tells_the_keys_that_the_model_takes(kind: str, registry: Registry) -> None:
    for entry in registry.entries(kind):
        keys = declared_keys(entry.spec.config)
        assert keys == set(load_config_model(entry.spec).model_fields), entry.spec.config


SOURCE = """
from typing import ClassVar
from pydantic import ConfigDict, Field, model_validator
from mmalign import Parameters
import torch

class Base(Parameters):
    beta: float = 0.1

class Plain(Base):
    kind: ClassVar[str] = "x"
    _hidden: int = 1
    label_smoothing: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def check(self): return self

class Renamed(Parameters):
    beta: float = Field(alias="inverse")

class Open(Parameters):
    model_config = ConfigDict(extra="allow")

class Rewritten(Parameters):
    @model_validator(mode="before")
    def accept(cls, data): return data

class Unknown(make_base()):
    beta: float = 1.0
"""


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Plain", {"beta", "label_smoothing"}),
        ("Base", {"beta"}),
        *((name, None) for name in ("Renamed", "Open", "Rewritten", "Unknown", "Absent")),
    ],
)
def test_what_may_take_other_keys_is_left_to_the_model(
    name: str, keys: set[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declared_here.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert declared_keys(f"declared_here:{name}") == keys
    assert imports_heavy(f"declared_here:{name}")
    assert "declared_here" not in sys.modules


def test_a_module_that_is_not_there_says_nothing() -> None:
    assert declared_keys("no_such_module:Config") is None
    assert imports_heavy("no_such_module:Config")
