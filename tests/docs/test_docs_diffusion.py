"""docs/diffusion.md: its configurations and its example train, and it names every key."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from image_records import write_image_pairs

import mmalign
from mmalign import Record
from mmalign_diffusion.config import DiffusionConfig, DiffusionPathConfig, Noising, Timesteps
from mmalign_diffusion.families import FAMILIES, find_family
from mmalign_diffusion.testing import build_tiny_class_unet
from mmalign_diffusion.testing_pipelines import build_tiny_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "diffusion.md").read_text(encoding="utf-8")
PIPELINES = ("stable_diffusion", "sdxl", "sd3", "flux", "pixart")
REWARD = """
import numpy as np

def brightness(responses):
    return [float(np.asarray(image).mean()) for image in responses]
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_tiny_class_unet("unet")
    write_image_pairs(tmp_path, 4)
    build_tiny_pipeline("pipeline", "stable_diffusion")
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    users = [json.dumps({**row, "meta": json.dumps({"user": "ann"})}) for row in rows]
    Path("users.jsonl").write_text("\n".join(users), encoding="utf-8")
    Path("reward.py").write_text(REWARD, encoding="utf-8")
    prompts = [{"id": str(index), "prompt": str(index % 3)} for index in range(4)]
    Path("prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in prompts), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("index", range(5))
def test_the_configurations_train(folder: Path, index: int) -> None:
    Path("page.yaml").write_text([block for block in blocks("yaml") if "output:" in block][index], encoding="utf-8")
    run = mmalign.train("page.yaml")
    assert run.finished


def test_the_record_is_one_that_the_model_reads(folder: Path) -> None:
    record = Record.from_json(blocks("json")[0].replace("\n", " "))
    Path("page.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    modality = mmalign.check("page.yaml").assembly.modality
    assert len(modality.encode(record)) == 2


def test_the_denoiser_of_ones_own_learns_from_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(16):
        goal = torch.randn(2, generator=generator)
        moves = [(goal / 4).expand(4, 2), torch.randn(4, 2, generator=generator)]
        texts = [json.dumps(one.tolist()) for one in moves]
        row = Record.from_text(json.dumps(goal.tolist()), texts, id=str(index)).to_dict()
        rows.append({**row, "labels": [{"kind": "pair", "order": [["r0"], ["r1"]]}]})
    Path("moves.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    definitions, config, rest = blocks("python")[0].partition("config = ")
    names: dict[str, Any] = {}
    exec(compile(definitions, "docs/diffusion.md", "exec"), names)
    # In a script, what it defines is found in `__main__`.
    monkeypatch.setattr(sys.modules["__main__"], "build", names["build"], raising=False)
    exec(compile(config + rest, "docs/diffusion.md", "exec"), names)
    assert names["run"].after["reward_accuracies"] > 0.8


def test_the_section_of_a_pipeline_is_valid_and_its_keys_are_named() -> None:
    modality = yaml.safe_load(blocks("yaml")[2])["modality"]
    assert modality.pop("name") == "diffusion"
    DiffusionConfig.model_validate(modality)
    keys = {key for name in PIPELINES for key in find_family(name).parameters.model_fields}
    assert {key for key in keys if not re.search(rf"`{key}\b", PAGE)} == set()


def test_every_key_and_family_is_named() -> None:
    keys = {key for model in (DiffusionConfig, DiffusionPathConfig, Noising, Timesteps) for key in model.model_fields}
    known = {"generation_batch_size", "offset"}
    assert {key for key in keys - known if not re.search(rf"\b{key}\b", PAGE)} == set()
    assert {name for name in FAMILIES if f"| `{name}` |" not in PAGE} == set()
