"""docs/methods.md: up to date, complete, and what the generator says when it is not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from mmalign.plugins.registry import KINDS, load_registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_index_is_not_stale(generate: ModuleType) -> None:
    assert generate.main(["--check"]) == 0, "run `make docs`"


def test_every_registered_part_is_listed(generate: ModuleType) -> None:
    registry = load_registry()
    listed = re.findall(r"^### (.+)$", generate.render_index(registry), flags=re.MULTILINE)
    first_party = [e.spec.name for kind in KINDS for e in registry.entries(kind) if e.plugin.distribution == "mmalign"]
    assert listed == first_party
    assert "dpo" in listed


def test_a_parameter_shows_type_default_and_help(generate: ModuleType) -> None:
    text = generate.render_index(load_registry())
    dpo = text.split("### dpo\n")[1].split("\n### ")[0]
    assert "- needs: `policy_chosen_sequence_logps`" in dpo
    assert "(arXiv:2305.18290)" in dpo
    assert re.search(r"^\| `beta` \| `float > 0` \| `0\.1` \| \S.* \|$", dpo, flags=re.MULTILINE)


def test_an_objective_shows_its_limits_and_golden_vectors(generate: ModuleType) -> None:
    sections = {text.split("\n", 1)[0]: text for text in generate.render_index(load_registry()).split("\n### ")}
    assert "- golden vectors: `kto`, passes" in sections["kto"]
    assert "- log-probs: exact or surrogate" in sections["kto"]
    assert "- its needs are met by: stored responses" in sections["kto"]
    assert "- batch-coupled: `kl_reference_point`" in sections["kto"]
    assert "- golden vectors: none official" in sections["alpha_po"]
    assert "batch-coupled" not in sections["alpha_po"]
    assert "golden vectors" not in sections["vader"]


def test_a_stale_index_is_refused_then_mended(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "METHODS", tmp_path / "methods.md")
    monkeypatch.setattr(generate, "CONFIGURATION", tmp_path / "configuration.md")
    assert generate.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
