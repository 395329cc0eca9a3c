"""examples/: the script runs as its users run it, and the plugin file computes what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import Record, Response, Sample
from mmalign.import_strings import load_object
from mmalign.plugins.registry import Registry, load_registry

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def registry() -> Registry:
    return load_registry(files=[EXAMPLES / "vowels.py"], strict=True)


def load_target(registry: Registry, kind: str, name: str, attribute: str) -> Any:
    return load_object(getattr(registry.find(kind, name, "test").spec, attribute))


@pytest.mark.slow
def test_the_python_script_teaches_a_model_to_write_vowels(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "python_api.py"), str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    before, after = map(float, re.findall(r"share of vowels: (\S+) before, (\S+) after", result.stdout)[0])
    assert after > before + 0.1
    assert re.search(r"a mistake: .*python_api\.yaml: objective\.name: .*did you mean 'reinforce'", result.stdout)
    assert f"evaluated again: {after:.2f}\nrestored at step 30\n" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"run", "reinforce", "grpo"}


def test_the_reward_counts_vowels(registry: Registry) -> None:
    reward = load_target(registry, "reward", "vowels", "target")()
    samples = [Sample(Record.from_text("?"), Response.from_text("r0", text), text) for text in ("Aeon", "tsk", "")]
    assert reward.score(samples) == [0.75, 0.0, 0.0]


def test_the_objective_is_the_policy_gradient(registry: Registry) -> None:
    logps = torch.tensor([-2.0, -3.0], requires_grad=True)
    losses, metrics = load_target(registry, "objective", "reinforce", "loss")(logps, torch.tensor([1.0, -0.5]))
    assert losses.tolist() == [2.0, -1.5] and metrics == {}
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    # Descent makes the response with the positive advantage likelier.
    assert gradient.tolist() == [-1.0, 0.5]
