"""What the README shows works as it stands: its config, its objective, its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import mmalign
from mmalign.cli.main import COMMANDS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def block(language: str, containing: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and containing in text]
    return str(found)


@pytest.fixture
def workplace(toy_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's config names."""
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "heldout.jsonl"):
        (tmp_path / name).write_bytes(toy_pairs.read_bytes())
    (tmp_path / "first.yaml").write_text(block("yaml", "output: runs/first"))
    return tmp_path


def test_the_config_trains(workplace: Path, tiny_text_model: Path) -> None:
    run = mmalign.train("first.yaml", {"modality.model": str(tiny_text_model), "train.steps": 2})
    assert run.step == 2 and "reward_accuracies" in run.after


def test_the_online_parts_train(workplace: Path, tiny_text_model: Path) -> None:
    online = yaml.safe_load(block("yaml", "collector:"))
    overrides = {
        **online,
        "modality.model": str(tiny_text_model),
        "decoding": {"name": "sample", "max_steps": 4},
        "train.steps": 1,
        "train.batch_size": 2,
    }
    assert mmalign.train("first.yaml", overrides).step == 1


def test_the_objective_trains(workplace: Path, tiny_text_model: Path) -> None:
    (workplace / "my_loss.py").write_text(block("python", "def my_loss"))
    (objective,) = re.findall(r"`objective: (\{name: mine.*?\})`", README)
    overrides = {
        "plugins": ["./my_loss.py"],
        "objective": yaml.safe_load(objective),
        "modality.model": str(tiny_text_model),
        "train.steps": 2,
    }
    run = mmalign.train("first.yaml", overrides)
    assert {"loss", "margin"} <= run.after.keys()


def test_every_command_that_is_shown_exists() -> None:
    commands = re.findall(r"^mmalign (\w+)", README, re.MULTILINE) + re.findall(r"`mmalign (\w+)", README)
    assert len(commands) >= 8
    assert set(commands) <= COMMANDS.keys()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 8
    missing = [link for link in links if not (Path(__file__).parents[2] / link).exists()]
    assert not missing
