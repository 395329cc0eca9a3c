"""docs/generation.md: its configurations are valid, its metrics are logged, and its error is what a user sees."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign import TrainingError, check, train

PAGE = (Path(__file__).parents[2] / "docs" / "generation.md").read_text(encoding="utf-8")
HF, OPENAI, SAMPLES, MIXED = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
)

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]


@pytest.mark.parametrize("engine", [HF, OPENAI], ids=["hf", "openai"])
def test_the_configurations_are_valid(
    tiny_text_model: Path, toy_online: Build, write_config: WriteConfig, engine: dict[str, Any]
) -> None:
    modality = {"name": "text", "model": str(tiny_text_model)}
    check(write_config(toy_online(modality=modality, **engine)))


def test_a_run_on_stored_and_sampled_responses_is_valid(toy_config: Build, write_config: WriteConfig) -> None:
    assert check(write_config(toy_config(**MIXED))).data["train"].pairs > 0


def test_the_metrics_are_those_that_are_logged(toy_online: Build, write_config: WriteConfig, tmp_path: Path) -> None:
    train(write_config(toy_online(train={"steps": 1, "batch_size": 4})))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {name for row in rows for name in row if name.startswith("sampler_gap/")}
    assert set(re.findall(r"\| `(sampler_gap/\w+)`", PAGE)) == logged


def test_the_error_is_what_a_user_sees(tiny_text_model: Path, toy_online: Build, write_config: WriteConfig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    engine = {**OPENAI["engine"], "base_url": url, "requests": {"retries": 3, "backoff": 0.0}}
    config = toy_online(modality={"name": "text", "model": str(tiny_text_model)}, engine=engine)
    with pytest.raises(TrainingError) as caught:
        train(write_config(config))
    (shown,) = re.findall(r"```text\nerror: (.*?)\n```", PAGE)
    assert str(caught.value).replace(url, "http://localhost:8000/v1") == shown


def test_the_evaluation_on_the_page_writes_what_it_says(
    toy_online: Build, write_config: WriteConfig, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "x"}\n')
    prompts = {"path": str(tmp_path / "p.jsonl")}
    config = toy_online(
        modality={"name": "toy_image"},
        plugins=[str(Path(__file__).parents[1] / "image_toy_plugin.py")],
        data={"train": prompts, "eval": prompts},
        rewards=[{"name": "brightness"}],
        train={"steps": 51, "batch_size": 1},
        **SAMPLES,
    )
    train(write_config(config))
    (file,) = set(re.findall(r"`(samples/[\w-]+\.png)`", PAGE))
    assert (tmp_path / "run" / file).is_file()
