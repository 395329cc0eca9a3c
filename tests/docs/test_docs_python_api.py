"""docs/python-api.md: its blocks run one after the other, and it names everything that is public."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import mmalign

PAGE = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)

CONFIG = """
modality: {name: text, model: tiny}
data: {train: {path: pairs.jsonl}, eval: {path: pairs.jsonl}}
objective: {name: dpo}
train: {steps: 100, batch_size: 4, learning_rate: 1.0e-3}
output: runs/dpo
"""


def test_the_blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG, encoding="utf-8")
    rows = [{"id": str(i), "prompt": f"Say {i}.", "chosen": "Yes, gladly.", "rejected": "No."} for i in range(8)]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python-api.md", "exec"), names)
    run = names["run"]
    assert run.step == names["again"].step == 2
    assert names["metrics"]["loss"] == pytest.approx(run.after["loss"])
    assert "objective.name: unknown 'dop'; did you mean 'dpo'" in capsys.readouterr().out
    for path in re.findall(r"^\| (`run\..*?) \|", PAGE, flags=re.MULTILINE):
        for attribute in re.findall(r"`run\.(\w+)", path):
            assert hasattr(run, attribute)


def test_everything_public_is_named() -> None:
    missing = [name for name in mmalign.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert missing == ["__version__"]


def test_nothing_is_named_that_is_not_public() -> None:
    used = set(re.findall(r"\bmmalign\.(\w+)", "".join(BLOCKS)))
    rows = "".join(re.findall(r"^\| `.*$", PAGE.partition("## Parts of your own")[2], flags=re.MULTILINE))
    named = set(re.findall(r"`(\w+)`", rows))
    assert (used | named) - set(mmalign.__all__) == set()
