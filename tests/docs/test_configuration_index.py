"""docs/configuration.md: every key that the engine reads, with its type, default and meaning. Its freshness is tested
with that of docs/methods.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from mmalign import RunConfig
from mmalign.config.parameters import parameters_table

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def text() -> str:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rendered: str = module.render_configuration()
    return rendered


def test_every_section_and_every_key_is_there(text: str) -> None:
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == list(RunConfig.model_fields)
    listed = set(re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE))
    sections = {"modality", "data", "data.train", "objective", "collector", "rewards", "composition", "advantage"}
    sections |= {"quantities", "decoding", "engine", "reference", "train", "evaluation", "checkpoint"}
    assert {row.name for row in parameters_table(RunConfig)} - listed <= sections


def test_every_key_says_what_it_means() -> None:
    assert [row.name for row in parameters_table(RunConfig) if not row.help] == []


def test_a_key_shows_type_range_and_default(text: str) -> None:
    assert "| `train.learning_rate` | `float > 0, <= 100` | `1e-05` | Peak learning rate. |" in text
    assert r"| `reference.decay` | `float \| None > 0, < 1` | `null` | ema:" in text
