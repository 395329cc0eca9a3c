"""A newcomer writes a plugin of five kinds: it is used as one file, then as an installed distribution."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mmalign
from mmalign.cli.main import app
from mmalign.import_strings import load_object
from mmalign.plugins.registry import load_registry

PLUGIN = Path(__file__).with_name("five_kinds.py")
KINDS = {
    "advantage": ["doubled"],
    "evaluator": ["counted"],
    "objective": ["margin"],
    "reward": ["vowels"],
    "transform": ["only_asked"],
}
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "five-kinds"
version = "1.2.3"

[project.entry-points.mmalign]
five = "five_kinds"

[tool.setuptools]
py-modules = ["five_kinds"]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the distribution as pip installs it, on the path."""
    pytest.importorskip("pip", reason="building a wheel needs pip in the running environment")
    source, wheels, target = tmp_path / "source", tmp_path / "wheels", tmp_path / "installed"
    source.mkdir()
    (source / "five_kinds.py").write_text(PLUGIN.read_text(encoding="utf-8"), encoding="utf-8")
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", *offline, "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("five_kinds-1.2.3-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(target), str(wheel)], check=True)
    monkeypatch.syspath_prepend(str(target))
    monkeypatch.delitem(sys.modules, "five_kinds", raising=False)
    importlib.invalidate_caches()
    return target


def build_config(toy_config: Any, **keys: Any) -> mmalign.RunConfig:
    config = toy_config(
        objective={"name": "margin", "margin": 0.5},
        rewards=[{"name": "vowels"}],
        evaluation={"evaluators": [{"name": "counted"}]},
        train={"steps": 2, "batch_size": 2, "learning_rate": 0.05},
    )
    config["plugins"] += keys.pop("plugins", [])
    config["data"]["train"]["transforms"] = [{"name": "only_asked"}]
    return mmalign.RunConfig.model_validate({**config, **keys})


@pytest.fixture
def questions(toy_pairs: Path) -> None:
    """Eight of the ten prompts ask."""
    rows = [json.loads(line) for line in toy_pairs.read_text(encoding="utf-8").splitlines()]
    for row in rows[:8]:
        row["prompt"][0]["content"][0]["text"] += "?"
    toy_pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_it_trains_as_one_file(questions: None, toy_config: Any) -> None:
    config = build_config(toy_config, plugins=[str(PLUGIN)])
    assert mmalign.check(config).data["train"].records == 8
    run = mmalign.train(config)
    assert run.after["counted/held_out"] == 10
    assert run.after["loss"] != run.before["loss"]


def test_it_is_listed_and_trains_as_a_distribution(installed: Path, questions: None, toy_config: Any) -> None:
    listed = CliRunner().invoke(app, ["plugins", "--json"], catch_exceptions=False)
    (own,) = [row for row in json.loads(listed.stdout) if row["name"] == "five"]
    assert (own["distribution"], own["version"], own["status"]) == ("five-kinds", "1.2.3", "ok")
    assert own["provides"] == KINDS
    assert mmalign.train(build_config(toy_config)).after["counted/held_out"] == 10
    reward = load_object(load_registry().find("reward", "vowels", "test").spec.target)
    assert Path(sys.modules[reward.__module__].__file__ or "").is_relative_to(installed)
