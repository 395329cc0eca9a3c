"""The plugin of a third party, as its users meet it: wheels in a fresh environment, far from this repository.

The environment gets mmalign and the example as wheels. Torch and the like are too large to install again: a `.pth` line
adds the site-packages that these tests run with, *behind* the new environment's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmalign.testing import build_tiny_text_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "trajectories"
SOURCES = ("mmalign", "plugins", "pyproject.toml", "README.md", "LICENSE")

pytest.importorskip("build", reason="building wheels needs `build`; install the extra dev")
pytest.importorskip("pip", reason="installing wheels needs pip in the running environment")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """A virtual environment and an empty folder to work in."""

    folder: Path
    work: Path

    @property
    def bin(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, program: str, *arguments: str | Path) -> str:
        """Runs a program of the environment; returns what it printed."""
        # Neither a search path nor switched-off plugins may leak in from the shell that runs the tests.
        leaks = {"PYTHONPATH", *(name for name in os.environ if name.startswith("MMALIGN_"))} - {"MMALIGN_CACHE"}
        variables = {name: value for name, value in os.environ.items() if name not in leaks}
        command = [str(self.bin / program), *map(str, arguments)]
        result = subprocess.run(command, cwd=self.work, env=variables, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def train(self, config: str, **overrides: str | Path | int) -> list[dict[str, Any]]:
        """Trains by one of the example's configurations; returns the held-out metrics, start first."""
        keys = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
        output = self.work / "runs" / Path(config).stem
        self.run("mmalign", "train", EXAMPLE / "configs" / config, f"output={output}", *keys)
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == "eval"]


def build_wheel(source: Path, destination: Path) -> Path:
    """Builds a wheel from a folder, with the build backend that is installed here."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(destination), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = destination.glob("*.whl")
    return wheel


def copy_core(destination: Path) -> Path:
    """Copies what mmalign's wheel is made from: building in place would leave its traces in the repository."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, destination / name, ignore=ignore)
        else:
            destination.mkdir(exist_ok=True)
            shutil.copy2(source, destination)
    return destination


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("third_party")
    plugin = shutil.copytree(
        EXAMPLE, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    )
    wheels = [
        build_wheel(copy_core(folder / "core"), folder / "core_wheel"),
        build_wheel(plugin, folder / "plugin_wheel"),
    ]
    made = Environment(folder / "environment", folder / "work")
    made.work.mkdir()
    venv.create(made.folder, with_pip=False)
    python = str(made.bin / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, *map(str, wheels)], check=True)
    site_packages = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Unlike a plain path, addsitedir also reads the .pth files there, by which editable installs are found.
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(site_packages, "heavy_dependencies.pth").write_text(line, encoding="utf-8")
    return made


def test_both_wheels_are_used_and_nothing_of_this_repository(environment: Environment) -> None:
    for name in ("mmalign", "mmalign_text", "mmalign_trajectories"):
        file = environment.run("python", "-c", f"import {name}; print({name}.__file__)").strip()
        assert Path(file).is_relative_to(environment.folder)


def test_the_distribution_is_listed_with_what_it_provides(environment: Environment) -> None:
    plugins = {row["name"]: row for row in json.loads(environment.run("mmalign", "plugins", "--json"))}
    own = plugins["trajectories"]
    assert (own["distribution"], own["version"], own["status"]) == ("mmalign-trajectories", "0.1.0", "ok")
    assert own["provides"] == {"modality": ["trajectory"], "objective": ["exponential_po"], "reward": ["reach"]}
    assert {row["distribution"] for row in plugins.values()} == {"mmalign", "mmalign-trajectories"}


@pytest.mark.parametrize(
    ("config", "train", "held_out"),
    [
        ("dpo.yaml", "pairs.jsonl", "heldout_pairs.jsonl"),
        ("exponential_po.yaml", "pairs.jsonl", "heldout_pairs.jsonl"),
        ("grpo.yaml", "prompts.jsonl", "heldout.jsonl"),
    ],
)
def test_it_trains_by_configuration_alone(environment: Environment, config: str, train: str, held_out: str) -> None:
    data = {"data__train__path": EXAMPLE / "data" / train, "data__eval__path": EXAMPLE / "data" / held_out}
    keys = [f"{key.replace('__', '.')}={value}" for key, value in data.items()]
    plan = environment.run("mmalign", "check", EXAMPLE / "configs" / config, *keys)
    assert "trajectory" in plan and "227 parameters" in plan
    before, after = environment.train(config, **data, train__steps=20)
    # Not the mean alone: the intervals lie apart.
    assert after["generation/reward_low"] > before["generation/reward_high"]


def test_its_objective_trains_a_modality_that_it_does_not_know(environment: Environment) -> None:
    model = build_tiny_text_model(environment.work / "model")
    rows = [{"id": str(i), "prompt": f"Say {i}.", "chosen": "Yes, gladly.", "rejected": "No."} for i in range(8)]
    data = environment.work / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = environment.work / "text.yaml"
    config.write_text(
        f"modality: {{name: text, model: {model}}}\n"
        f"data: {{train: {{path: {data}}}, eval: {{path: {data}}}}}\n"
        "objective: {name: exponential_po, beta: 0.1}\n"
        "train: {steps: 4, batch_size: 8, learning_rate: 1.0e-3}\n",
        encoding="utf-8",
    )
    before, after = environment.train(str(config))
    assert before["loss"] == pytest.approx(1)
    assert after["loss"] < 0.95


def test_its_own_tests_pass(environment: Environment) -> None:
    # Copied without the package beside them, so that the installed one is tested.
    for name in ("tests", "data", "configs"):
        shutil.copytree(EXAMPLE / name, environment.work / "suite" / name)
    result = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "suite/tests")
    assert " passed" in result and "skipped" not in result
