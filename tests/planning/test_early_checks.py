"""Slips of the pen are answered without torch, in the words of the whole check."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError
from mmalign.planning.early_checks import check_early

CONFIG = """
modality: {name: text, model: nowhere}
data: {train: {path: nowhere.jsonl, transforms: {name: subset}}}
objective: {name: dpo}
rewards: [{name: length, target: 3}]
train: {steps: 3}
output: runs/test
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "early.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=3", "trian: unknown key 'trian'; did you mean 'train'?"),
        ("objective.name=dop", "objective.name: unknown 'dop'; did you mean 'dpo'?"),
        ("objective.beat=1", "objective.beat: unknown key 'beat'; did you mean 'beta'? known: beta, label_smoothing"),
        ("modality.lora.rnak=1", "modality.lora.rnak: unknown key 'rnak'; did you mean 'rank'?"),
        ("rewards.0.tagret=1", "rewards.tagret: unknown key 'tagret'; did you mean 'target'?"),
        ("data.train.transforms.0.sede=1", "data.train.transforms[0].sede: unknown key 'sede'; did you mean 'seed'?"),
        ("decoding={name: sample, max_steps: none}", "decoding.max_steps: expected a whole number"),
    ],
)
def test_a_slip_is_named_with_its_place(override: str, message: str, config: Path) -> None:
    overrides = [override]
    if "transforms" in override:
        overrides.insert(0, "data.train.transforms=[{name: subset}]")
    with pytest.raises(ConfigError) as caught:
        check_early(config, overrides)
    assert str(caught.value).startswith(f"{config}: {message}")


def test_a_configuration_without_slips_is_returned(
    toy_config: Callable[..., dict[str, Any]], write_config: Any
) -> None:
    path = write_config(toy_config())
    assert check_early(path).modality.name == "toy"


def test_the_command_answers_a_slip_before_torch_loads(config: Path) -> None:
    code = f"""
import sys
from mmalign.cli.main import main
sys.argv = ["mmalign", "check", {str(config)!r}, "objective.beat=1"]
try:
    main()
except SystemExit as stopped:
    heavy = [name for name in ("torch", "transformers", "datasets", "accelerate", "pyarrow") if name in sys.modules]
    sys.exit(0 if stopped.code == 2 and not heavy else f"{{stopped.code}} {{heavy}}")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "unknown key 'beat'" in result.stderr
