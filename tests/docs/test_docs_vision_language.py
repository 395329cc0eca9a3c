"""docs/vision-language.md: its configuration trains, its record is read, and it names every key and family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from multimodal_models import Family, build_tiny_multimodal_model
from multimodal_records import write_colour_pairs

import mmalign
from mmalign import Record
from mmalign_vision_language.config import VisionLanguageConfig
from mmalign_vision_language.modality import VisionLanguageModality

PAGE = (Path(__file__).parents[2] / "docs" / "vision-language.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_tiny_multimodal_model(tmp_path / "model", "llava")
    write_colour_pairs(tmp_path, 6).rename("pairs.jsonl")
    return tmp_path


def test_the_configuration_trains(folder: Path) -> None:
    Path("page.yaml").write_text(block("yaml"), encoding="utf-8")
    run = mmalign.train("page.yaml")
    assert run.finished
    assert list(Path("runs/seen/model").glob("adapter_model.safetensors"))


def test_the_record_is_one_that_the_model_reads(folder: Path) -> None:
    record = Record.from_json(block("json").replace("\n", " "))
    [preferred, other] = VisionLanguageModality(model="model").encode(record)
    assert preferred.tensors["media.pixel_values"] is other.tensors["media.pixel_values"]
    assert record.pair_indices()[0][:2] == (0, 1)


def test_every_key_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.partition("## Keys")[2].partition("## What is read")[0]))
    assert set(VisionLanguageConfig.model_fields) <= named


def test_every_family_of_the_tests_is_named() -> None:
    page = re.sub(r"[ .-]", "", PAGE).lower()
    assert all(family.replace("_", "").lower() in page for family in get_args(Family))
