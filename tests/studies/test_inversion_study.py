"""The study of inversion runs, and says what its page says: orders of convergence."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inversion_error", ROOT / "studies/inversion_error.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("rule", "panel", "order"),
    [("source", 0, 1), ("implicit", 0, 1), ("destination", 1, 1), ("ReNoise, K = 2", 1, 2), ("ReNoise, K = 5", 1, 5)],
)
def test_distances_fall_with_the_order_that_the_page_tells(
    study: ModuleType, rule: str, panel: int, order: int
) -> None:
    coarse, fine = (study.measure(count, rule)[panel] for count in (20, 40))
    assert math.log2(coarse / fine) == pytest.approx(order, rel=0.15)


def test_the_tables_are_rewritten_and_the_text_stays(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "COUNTS", (4, 8))
    monkeypatch.setattr(study, "SHOWN", (4,))
    (tmp_path / "inversion.md").write_text(f"# Title\n\n{study.MARKER}\nold\n")
    assert study.main(tmp_path) == 0
    page = (tmp_path / "inversion.md").read_text()
    assert page.startswith(f"# Title\n\n{study.MARKER}\n\n**Distance from")
    assert "| implicit | exact | " in page
    assert "old" not in page
    assert (tmp_path / "inversion_error.svg").stat().st_size > 1000


def test_the_page_shows_what_the_script_computes(study: ModuleType) -> None:
    page = (ROOT / "docs/studies/inversion.md").read_text()
    terminal, back = study.measure(5, "averaged, destination")
    assert f"| averaged, destination | 2 | {terminal:.2e} |" in page
    assert f"| averaged, destination | 2 | {back:.2e} |" in page
