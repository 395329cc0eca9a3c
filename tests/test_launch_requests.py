"""What a launcher asks for and a run would not do is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError, RunConfig, check, train
from mmalign.training.launch_requests import check_launch_requests


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed, and sharded training is not supported"),
        ("ACCELERATE_USE_FSDP", "1", "FSDP, and sharded training is not supported"),
        ("ACCELERATE_USE_MEGATRON_LM", "True", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "'inductor', but nothing is compiled"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "asks for 4"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "'fp8', train.mixed_precision is 'auto'"),
    ],
)
def test_a_request_that_is_not_done_is_refused(
    variable: str, value: str, expected: str, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    for command in (train, check):
        with pytest.raises(
            ConfigError, match=f"{variable}: the launcher asks for .*{expected}|{variable}: .*{expected}"
        ):
            command(offline)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_MIXED_PRECISION": "bf16"},
    ],
)
def test_what_is_done_passes(environment: dict[str, str], toy_config: Callable[..., dict[str, Any]]) -> None:
    config = toy_config(train={"steps": 1, "mixed_precision": "bf16"})
    check_launch_requests(RunConfig.model_validate(config), environment)
