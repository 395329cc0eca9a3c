"""The benchmark of diffusion models measures the same work in both ways; nothing here is timed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, whose cache goes to a folder of this test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    return importlib.import_module("diffusion")


@pytest.mark.slow
def test_both_ways_are_measured_and_written(benchmark: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{benchmark.BEGIN}old\n{benchmark.END}\nafter\n")
    results = tmp_path / "results.json"
    arguments = ["--steps", "1", "--pairs", "2", "--size", "16", "--results", str(results), "--page", str(page)]
    assert benchmark.main(arguments) == 0
    stored = json.loads(results.read_text())
    assert all(seconds > 0 for seconds in stored["seconds"].values())
    assert set(stored["seconds"]) == {name for *pair, _ in benchmark.COMPARED for name in pair}
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| images and prompts are encoded once |" in text


def test_the_table_says_how_much_faster(benchmark: Any) -> None:
    seconds = {"every step encodes": 3.0, "kept encodings": 2.0, "passes of their own": 1.0, "one pass": 0.8}
    machine = {"device": "abacus", "cores": 10}
    result = {"machine": machine, "date": "2026-01-02", "load": 0.04, "settings": {"steps": 6}, "seconds": seconds}
    lines = benchmark.build_table(result).splitlines()
    assert lines[2] == "| images and prompts are encoded once | 3.00 s | 2.00 s | 1.50x |"
    assert lines[3].endswith("| 1.00 s | 0.80 s | 1.25x |")
    assert lines[5] == "Measured on 2026-01-02: device abacus, cores 10, load 0.0; steps 6."
