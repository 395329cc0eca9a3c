"""The benchmark's measuring works, on a tiny model; nothing here is timed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from mmalign.backend import Backend

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the benchmark's scripts by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto", "reward_model", "grpo"])
def test_a_case_is_measured(
    scripts: Any, method: str, tiny_text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "generate", Backend.generate)  # the measuring replaces it
    case = scripts("measuring").Case(method, "short", True, "mmalign", steps=2, prompts=2)
    result = scripts("measure_mmalign").measure(case, tiny_text_model, tiny_text_model, tmp_path)
    assert result.seconds > 0
    assert len(result.losses) == 3
    assert result.responses == (16 if method == "grpo" else 4)
    # A byte-level tokenizer of few merges: every response has many tokens, its prompt included.
    assert result.tokens > 20 * result.responses
    assert (result.generation_seconds > 0) == (method == "grpo")


def test_a_table_compares_with_trl(scripts: Any) -> None:
    """Twice the tokens a second in half of the memory."""
    row = {"method": "dpo", "lora": True, "mix": "long", "errors": []}
    run = {"tokens": 100.0, "responses": 16, "losses": [0.6931, 0.6]}
    results = [
        {**row, "system": "trl", "runs": [{**run, "seconds": 4.0, "peak_bytes": 4 * 2**30}]},
        {**row, "system": "mmalign", "runs": [{**run, "seconds": s, "peak_bytes": 2**31} for s in (1.0, 2.0, 9.0)]},
        {**row, "system": "trl-liger", "runs": []},
    ]
    *_, trl, mmalign, liger = scripts("compare").build_table(results).splitlines()
    assert "| 4.00 |  | 4.00 | 25 | 4.00 | 1.00x | 1.00x | 0.6931 |" in trl
    assert "| 2.00 |  | 8.00 | 50 | 2.00 | 2.00x | 0.50x | 0.6931 |" in mmalign
    assert "| trl-liger | failed |" in liger


def test_rows_are_the_same_for_every_system(scripts: Any) -> None:
    workloads = scripts("workloads")
    for mix in workloads.MIXES:
        rows = workloads.build_pairs(mix, 5)
        assert rows == workloads.build_pairs(mix, 5)
        assert len(rows) == 5
        assert all(set(row) == {"prompt", "chosen", "rejected"} and all(row.values()) for row in rows)


@pytest.mark.slow
def test_runs_with_and_without_overlap_end_alike(scripts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts("overlap").main(["--delay", "0.01", "--rounds", "1"]) == 0
    *_, one, four, same = capsys.readouterr().out.splitlines()
    assert one.startswith("overlap_parts 1: ") and four.startswith("overlap_parts 4: ")
    assert same == "the weights are the same"
