"""The table of a benchmark: what a row holds, what is compared, what replaces what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def make_row(**fields: Any) -> dict[str, Any]:
    """Makes a row with one run of four seconds, 100 tokens and 4 GiB; `fields` change the row, or its run."""
    run = {"seconds": 4.0, "tokens": 100.0, "responses": 16, "losses": [0.7, 0.6], "peak_bytes": 4 * 2**30}
    run |= {"operations": 1e12} | {name: fields.pop(name) for name in list(fields) if name in run}
    row: dict[str, Any] = {"method": "dpo", "lora": True, "mix": "long", "system": "trl", "steps": 1, "prompts": 8}
    stamp = {"machine": {"device": "cpu"}, "date": "2026-01-02", "load": 0.04, "peak_operations": 1e12}
    return {**row, **stamp, "runs": [run], "errors": [], **fields}


def test_a_table_compares_with_trl(scripts: Any) -> None:
    """Twice the tokens a second in half of the memory; 1e12 operations in 2 s at a peak of 1e12 a second are a half."""
    mine = make_row(system="mmalign", losses=[0.7, 0.61], peak_bytes=2**31)
    mine["runs"] = [{**mine["runs"][0], "seconds": seconds} for seconds in (1.0, 2.0, 9.0)]
    rows = [make_row(), mine, make_row(system="trl-liger", runs=[])]
    *_, trl, mmalign, liger = scripts("rows").build_table(rows).splitlines()
    assert "| 4.00 |  | 4.00 | 25 | 4.00 | 1.00x | 1.00x | 25.0% | 0.7000, 0.6000 |  | 2026-01-02 | 0.0 |" in trl
    assert "| 2.00 |  | 8.00 | 50 | 2.00 | 2.00x | 0.50x | 50.0% | 0.7000, 0.6100 | +0.0000, +0.0100 |" in mmalign
    assert "| trl-liger | failed |" in liger
    assert {line.count("|") for line in scripts("rows").build_table(rows).splitlines()} == {17}


def test_sampling_and_the_rest_are_told_apart(scripts: Any) -> None:
    row = make_row(method="grpo")
    row["runs"][0]["generation_seconds"] = 1.5
    assert "| 4.00 | 1.50 + 2.50 |" in scripts("rows").build_table([row])


@pytest.mark.parametrize(("cuda", "missing"), [(False, {"trl-liger"}), (True, {"mmalign-one-pass"})])
def test_systems_of_a_machine(scripts: Any, cuda: bool, missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    compare, systems = scripts("compare"), set(scripts("measuring").SYSTEMS)
    assert {system for system in systems if not compare.is_sensible("dpo", system)} == missing
    assert not compare.is_sensible("grpo", "trl-precomputed")


@pytest.mark.parametrize("change", [{"steps": 2}, {"prompts": 4}, {"method": "grpo"}])
def test_losses_are_compared_on_the_same_data_only(scripts: Any, change: dict[str, Any]) -> None:
    method = {"method": change.get("method", "dpo")}
    table = scripts("rows").build_table([make_row(**method), make_row(**{"system": "mmalign", **change})])
    assert "+0.0" not in table


def test_new_rows_replace_old_ones_and_keep_the_others(scripts: Any) -> None:
    merge = scripts("rows").merge_rows
    old = [make_row(system="mmalign", seconds=9.0), make_row(method="kto"), make_row(lora=False)]
    new = [make_row(system="mmalign", seconds=1.0), make_row()]
    merged = merge(old, new)
    assert [(row["method"], row["lora"], row["system"]) for row in merged] == [
        ("dpo", True, "trl"),
        ("dpo", True, "mmalign"),
        ("dpo", False, "trl"),
        ("kto", True, "trl"),
    ]
    assert merged[1]["runs"][0]["seconds"] == 1.0
    assert len(merge(old, [make_row(machine={"device": "gpu"}, method="kto")])) == 4


def test_a_failure_or_an_unmeasured_row_replaces_no_measured_one(scripts: Any) -> None:
    merge, failed = scripts("rows").merge_rows, make_row(runs=[], errors=[{"error": "x"}])
    assert merge([make_row()], [failed])[0]["runs"]
    assert merge([], [failed]) == [failed]
    assert merge([], [make_row(runs=[])]) == []


def test_the_page_keeps_its_text(scripts: Any, tmp_path: Path) -> None:
    rows, page = scripts("rows"), tmp_path / "page.md"
    page.write_text(f"text\n\n{rows.MARKER}\n\nold table\n", encoding="utf-8")
    gpu = make_row(machine={"device": "gpu", "cores": 8})
    for _ in range(2):
        rows.write_page(page, [make_row(), gpu])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"text\n\n{rows.MARKER}\n\nMeasured on: device cpu.\n\n| method |")
    assert "\n\nMeasured on: device gpu, cores 8.\n\n| method |" in text
    assert text.count("| dpo |") == 2
    assert "old table" not in text


def test_stored_rows_are_those_of_the_page(scripts: Any) -> None:
    rows = scripts("rows")
    stored = rows.load_rows(ROOT / "benchmarks/results/compare.json")
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert stored
    assert rows.build_table(stored).splitlines()[-1] in page
    assert rows.merge_rows(stored, []) == stored


def test_quick_is_a_choice_that_other_options_change(scripts: Any) -> None:
    compare = scripts("compare")
    cases = compare.list_cases(compare.parse_options(["--quick"]))
    assert {(case.method, case.mix, case.lora, case.steps) for case in cases} == {("dpo", "long", True, 2)}
    assert compare.parse_options(["--quick", "--methods", "kto"]).methods == ["kto"]
    assert compare.parse_options([]).steps == 5


def test_results_are_written_after_every_measurement(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run into a file of its own leaves the page alone."""
    compare, file = scripts("compare"), tmp_path / "results.json"
    monkeypatch.setattr(compare, "prepare_environment", lambda: None)
    monkeypatch.setattr(compare, "measure_peak", lambda dtype: 1e12)
    counts: list[int] = []

    def measure(case: Any) -> dict[str, Any]:
        counts.append(len(scripts("rows").load_rows(file)))
        return {"error": "no"} if case.system == "trl" else dict(make_row()["runs"][0])

    monkeypatch.setattr(compare, "measure", measure)
    page = compare.PAGE.read_text(encoding="utf-8")
    compare.main(["--quick", "--results", str(file)])
    assert counts == [0, 1, 2, 3]
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [len(row["errors"]) for row in rows] == [1, 0, 0, 0]
    assert all(row["date"] and row["load"] >= 0 and row["peak_operations"] == 1e12 for row in rows)
    assert compare.PAGE.read_text(encoding="utf-8") == page
