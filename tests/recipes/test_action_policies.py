"""configs/actions: a policy of moves imitates, guidance makes it keep to its goal, and DPO its preference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmalign

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "configs" / "actions"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which the configurations run."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_paths_reach_their_goals_and_then_go_the_preferred_way(folder: Path) -> None:
    subprocess.run([sys.executable, str(RECIPES / "reaching.py")], cwd=folder, check=True)
    imitated = mmalign.train(RECIPES / "imitate.yaml")
    reached = {
        guidance: mmalign.evaluate(imitated.output, {"decoding.guidance": guidance})["generation/reward/reached"]
        for guidance in (0.0, 1.0, 1.5)
    }
    assert imitated.before["generation/reward/reached"] < 0.1
    assert reached[0.0] < 0.5 < 0.75 < reached[1.0] < reached[1.5]
    preferred = mmalign.train(RECIPES / "prefer.yaml")
    assert preferred.before["generation/reward/above"] < 0.65
    assert preferred.after["generation/reward/above"] > 0.8
    assert preferred.after["generation/reward/reached"] > 0.85
