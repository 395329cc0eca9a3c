"""Curricula: which pair is in which stage, in which step a stage is trained, and what the reference is there."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transforming import build, compared, pairs_of, rated, transform
from typer.testing import CliRunner

import mmalign
from mmalign import DataError, Label, Record
from mmalign.cli.main import app
from mmalign.config.data import DataConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.sources.source import Source, open_source
from mmalign.sources.stream import RecordStream


def ranked(count: int) -> list[Record]:
    """Prompts with four responses rated 5, 4, 3, 2 plus a little, and pairs of the best with each other one."""
    records = [rated({"a": 5.0 + i / 100, "b": 4.0, "c": 3.0, "d": 2.0}, f"p{i}") for i in range(count)]
    return [record for one in records for record in transform(one, "pairs_from_ratings", pairs="best_vs_each")]


def gaps(records: list[Record]) -> list[float]:
    return [strength for record in records for _, _, strength in pairs_of(record)]


def test_ranked_pairs_by_hand() -> None:
    """Scores (5, 4, 3, 2): the pairs come with gaps 3, 2, 1, one a stage."""
    records = transform(ranked(1), "curriculum", within="prompt")
    assert gaps(records) == [3.0, 2.0, 1.0]
    assert [record.metadata["curriculum_stage"] for record in records] == [0, 1, 2]
    assert [record.id for record in records] == ["p0/2", "p0/1", "p0/0"]
    assert [[response.text for response in record.responses] for record in records] == [
        ["a", "d"],
        ["a", "c"],
        ["a", "b"],
    ]


@pytest.mark.parametrize("within", ["data", "prompt"])
def test_stages_are_monotone_in_the_gap(within: str) -> None:
    curriculum = build("curriculum", stages=3, within=within)
    records = list(curriculum.apply(ranked(7)))
    by_stage = [
        [gap for record, gap in zip(records, gaps(records), strict=True) if curriculum.stage(record) == k]
        for k in range(3)
    ]
    assert [len(stage) for stage in by_stage] == [7, 7, 7]
    assert min(by_stage[0]) > max(by_stage[1]) and min(by_stage[1]) > max(by_stage[2])


def test_two_responses_make_one_pair_each_in_the_first_stage_of_their_prompt() -> None:
    pair = compared(rated({"a": 2.0, "b": 1.0}), ("r0", "r1"))
    assert [pairs_of(record)[0][:2] for record in transform(pair, "curriculum", stages=1)] == [("a", "b")]


def test_orders_are_mirrored_or_random() -> None:
    easy, hard = (transform(ranked(5), "curriculum", order=order) for order in ("easy_first", "hard_first"))
    assert gaps(hard) == gaps(easy)[::-1]
    random = [gaps(transform(ranked(5), "curriculum", order="random", seed=seed)) for seed in (0, 0, 1)]
    assert random[0] == random[1] != random[2]
    assert sorted(random[0]) == sorted(gaps(easy)) and random[0] not in (gaps(easy), gaps(hard))


def test_a_stored_score_may_say_what_is_hard() -> None:
    """The strengths say 1 and 2, the ratings 3 and 1."""
    record = compared(rated({"a": 4.0, "b": 1.0, "c": 3.0}), ("r0", "r1"), strength=1.0)
    record = compared(record, ("r0", "r2"), strength=2.0)
    by_strength, by_score = (transform(record, "curriculum", stages=2, score=score) for score in (None, "overall"))
    assert [pairs_of(one)[0][1] for one in by_strength] == ["c", "b"]
    assert [pairs_of(one)[0][1] for one in by_score] == ["b", "c"]


def test_stages_are_filled_to_whole_batches(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        records = transform(ranked(7), "curriculum", multiple_of=4)
    stages = [record.metadata["curriculum_stage"] for record in records]
    assert [stages.count(stage) for stage in range(3)] == [8, 8, 8]
    assert len({record.id for record in records}) == 21
    assert "curriculum: 3 pairs come twice, so that every stage has 8" in caplog.text


def test_other_labels_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    record = compared(rated({"a": 2.0, "b": 1.0}), ("r0", "r1"))
    labels = (
        *record.labels,
        Label(kind="unary", order=(("r0",),), strength=1.0),
        Label(kind="pair", order=(("r0", "r1"),)),
    )
    with caplog.at_level(logging.WARNING):
        transform(record.model_copy(update={"labels": labels}), "curriculum", stages=1)
    assert "curriculum: left out 2 labels (no pair of plain responses)" in caplog.text


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="curriculum: stage 2 of 4 is empty, there are too few pairs; set stages to 2"):
        transform(compared(rated({"a": 3.0, "b": 1.0, "c": 1.0}), ("r0", "r1"), ("r0", "r2")), "curriculum", stages=4)
    with pytest.raises(DataError, match="curriculum: record 'p': no response is rated"):
        transform(compared(Record.from_text("q", ["a", "b"], id="p"), ("r0", "r1")), "curriculum", stages=1)
    with pytest.raises(DataError, match="record 'x': a later transform has dropped its stage; put curriculum last"):
        build("curriculum").stage(Record.from_text("q", id="x"))


# -- in a run ---------------------------------------------------------------------------------------------------------

BATCH = 4


def open_staged(folder: Path, count: int, **parameters: Any) -> Source:
    path = folder / "ranked.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in ranked(count)), encoding="utf-8")
    return open_source(DataConfig(path=str(path)), [build("curriculum", **parameters)])


def test_no_step_mixes_stages(tmp_path: Path) -> None:
    """7 pairs a stage, filled to 8: stage k is steps 2k + 1 and 2k + 2 of an epoch, in every epoch."""
    source = open_staged(tmp_path, 7, multiple_of=BATCH)
    assert source.stages == (8, 8, 8)
    stream = RecordStream(source, shuffle=True, seed=1)
    steps = [{record.metadata["curriculum_stage"] for record in stream.take(BATCH)} for _ in range(12)]
    assert steps == 2 * [{0}, {0}, {1}, {1}, {2}, {2}]


def test_one_stage_is_the_plain_order(tmp_path: Path) -> None:
    staged = open_staged(tmp_path, 5, stages=1)
    plain = Source("plain", "", lambda source: iter(list(staged)))
    plain.load()
    orders = [
        [record.id for record in RecordStream(source, shuffle=True, seed=1).take(40)] for source in (staged, plain)
    ]
    assert orders[0] == orders[1]


@pytest.fixture
def staged_config(tmp_path: Path, toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Path:
    digits = [rated({"000": 5.0, f"0{i}2": 4.0, "021": 3.0, "333": 2.0}, f"p{i}", prompt="x") for i in range(4)]
    path = tmp_path / "digits.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in digits), encoding="utf-8")
    transforms = [
        {"name": "pairs_from_ratings", "pairs": "best_vs_each", "margin": 0.5},
        {"name": "curry_dpo", "within": "prompt", "multiple_of": "${train.batch_size}"},
    ]
    return write_config(
        toy_config(
            data={"train": {"path": str(path), "transforms": transforms}},
            train={"steps": 6, "batch_size": 2, "learning_rate": 0.5},
            reference={"strategy": "sync", "every": 2},
            checkpoint={"every": 1, "keep": 9},
        )
    )


def test_a_stage_starts_from_its_own_reference(staged_config: Path, tmp_path: Path) -> None:
    """4 pairs a stage are 2 steps; after each swap the policy is the reference, so the next loss is ln 2."""
    assert mmalign.check(staged_config).data["train"].stages == (4, 4, 4)
    mmalign.train(staged_config)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert [loss == pytest.approx(math.log(2), abs=1e-6) for loss in losses] == 3 * [True, False]


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_curriculum_resumes_exactly(
    stop: int, staged_config: Path, tmp_path: Path, tables: Callable[[Any], list[float]]
) -> None:
    whole = tables(mmalign.train(staged_config, {"output": str(tmp_path / "whole")}))
    mmalign.train(staged_config, {"train.steps": stop})
    assert tables(mmalign.train(staged_config, resume=True)) == whole


def test_check_prints_the_stages(staged_config: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(staged_config)])
    assert "stages of 4, 4, 4 records" in result.output
