"""`docs/transforms.md`: its examples pass `check` and train, and every transform has a section."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transforming import compared, rated

import mmalign
from mmalign import Note, Record, Response, Score
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.plugins.registry import load_registry
from mmalign.sources.source import Source
from mmalign.training.assembling import load_assembly
from mmalign.training.startup import open_data

PAGE = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text(encoding="utf-8")
SECTIONS = {
    name: re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    for name, text in re.findall(r"^## `(\w+)`\n(.*?)(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE)
}


def pair(id: str, **fields: Any) -> Record:
    texts = {f"A good and helpful answer, number {id}.": 9.0, "It is bad.": 3.0}
    return compared(rated(texts, id, prompt=f"Question {id}?"), ("r0", "r1"), **fields)


def traced(id: str) -> Record:
    return compared(rated({"<think>well</think>Yes.": 1.0, "<think>so</think>No.": 0.0}, id), ("r0", "r1"))


def judged(id: str) -> Record:
    row = Score(item="r0", name="pair_probability", level="vector", values=(0.9, 0.7), keys=("a", "b"))
    return pair(id).model_copy(update={"scores": (*pair(id).scores, row)})


def valued(id: str) -> Record:
    record = rated({"Good.": 3.0, "Fair.": 2.0, "Bad.": 1.0}, id, prompt=f"Question {id}?")
    values = (Score(item=one.rid, name="value", level="response", value=1.5) for one in record.responses)
    return record.model_copy(update={"scores": (*record.scores, *values)})


def conflict(id: str) -> Record:
    meta = {
        "context": "Paris, not Lyon.",
        "context_kind": "related",
        "answer": "Paris",
        "memory": "Nice",
        "span": "Lyon",
    }
    return Record.from_text("Capital?", id=id).model_copy(update={"meta": json.dumps(meta)})


MAKERS = {
    "pairs.jsonl": pair,
    "rated.jsonl": lambda id: rated({"Good.": 3.0, "Fair.": 2.0, "Bad.": 1.0}, id, prompt=f"Question {id}?"),
    "judged.jsonl": judged,
    "traces.jsonl": traced,
    "valued.jsonl": valued,
    "users.jsonl": lambda id: pair(id, user="ann"),
    "explained.jsonl": lambda id: pair(id).model_copy(update={"notes": (Note(kind="rationale", text="It helps."),)}),
    "conflicts.jsonl": conflict,
    "answers.jsonl": lambda id: Record.from_text(f"Question {id}?", ["An answer [1]."], id=id),
    "informative.jsonl": pair,
    "robust.jsonl": pair,
    "citing.jsonl": pair,
}


@pytest.fixture
def base(tmp_path: Path, tiny_text_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with all data files, and what a configuration needs beside data and objective."""
    monkeypatch.chdir(tmp_path)
    for name, make in MAKERS.items():
        records = [make(f"p{index}") for index in range(6)]
        Path(name).write_text("".join(f"{record.to_json()}\n" for record in records), encoding="utf-8")
    return {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-2},
        "output": "run",
    }


def write(config: dict[str, Any], name: str = "run.yaml") -> Path:
    Path(name).write_text(yaml.safe_dump(config), encoding="utf-8")
    return Path(name)


def test_every_transform_has_a_section_and_a_row() -> None:
    first_party = set(load_registry().names("transform"))
    assert set(SECTIONS) == first_party
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == first_party
    assert all(len(examples) == 1 for examples in SECTIONS.values())


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_checks_and_trains(name: str, base: dict[str, Any]) -> None:
    path = write(base | yaml.safe_load(SECTIONS[name][0]))
    assert mmalign.check(path).data["train"].records > 0
    mmalign.train(path)
    rows = [row for row in read_metrics(Path("run")) if row["kind"] == "train"]
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)
    assert any(row["grad_norm"] > 0 for row in rows)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_process_and_every_pass_see_the_same(name: str, base: dict[str, Any]) -> None:
    path = write(base | yaml.safe_load(SECTIONS[name][0]))
    one, other = (open_data(load_assembly(path), "train") for _ in range(2))
    assert list(one) == list(other)
    assert all(Record.from_json(record.to_json()) == record for record in one)
    assert sum(one.stages) == len(one)


def test_several_runs_start_from_each_other(base: dict[str, Any]) -> None:
    (config,) = re.findall(r"```yaml\n# stage.yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    write(base | yaml.safe_load(config), "stage.yaml")
    commands = [shlex.split(line) for line in re.findall(r"^mmalign train stage.yaml.*$", PAGE, flags=re.MULTILINE)]
    assert len(commands) == 4
    rates = []
    for _, _, path, *overrides in commands:
        run = mmalign.train(path, overrides)
        rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
        rates.append(run.config.train.learning_rate)
        if run.objectives[0].spec.name == "dpo":
            assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rates == [2e-5, 2e-6, 2e-6, 2e-7]


def test_the_transform_of_the_page_orders_records(base: dict[str, Any]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    Path("short_first.py").write_text(code, encoding="utf-8")
    texts: Sequence[str] = ["a b c d e", "a", "a b c d", "a b"]
    responses = [Record.from_text("q", [text], id=f"t{index}").to_json() for index, text in enumerate(texts)]
    Path("texts.jsonl").write_text("\n".join(responses), encoding="utf-8")
    given = {
        "data": {"train": {"path": "texts.jsonl", "transforms": {"name": "short_first"}}},
        "objective": {"name": "sft"},
        "plugins": ["short_first.py"],
    }
    source: Source = open_data(load_assembly(write(base | given)), "train")
    assert [record.id for record in source] == ["t1", "t3", "t0", "t2"]
    assert source.stages == (2, 2)
    assert isinstance(source[0].responses[0], Response)
