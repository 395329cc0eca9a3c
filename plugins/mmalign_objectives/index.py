"""Reads the generated index of the specs that the modules of this plugin declare; imports no torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mmalign import ObjectiveSpec, QuantitySpec

INDEX = Path(__file__).with_name("index.json")
"""Written by `python -m mmalign_objectives.generate`, never by hand."""


def read_objectives() -> list[ObjectiveSpec]:
    """Returns the specs of the objectives, by module."""
    return [ObjectiveSpec(**fields) for fields in _read("objective")]


def read_quantities() -> list[QuantitySpec]:
    """Returns the specs of the quantities, by module."""
    return [QuantitySpec(**fields) for fields in _read("quantity")]


def _read(kind: str) -> list[dict[str, Any]]:
    rows = _load()[kind]
    return [
        {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()} for fields in rows
    ]


@cache
def _load() -> dict[str, list[dict[str, Any]]]:
    index: dict[str, list[dict[str, Any]]] = json.loads(INDEX.read_text(encoding="utf-8"))
    return index
