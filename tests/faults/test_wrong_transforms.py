"""Records that a transform cannot use: one message with file, record and mend, exit code 2, nothing written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transforming import compared, rated

from mmalign import Record
from mmalign.cli.main import main

RATED = rated({"0": 2.0, "1": 1.0})
PAIRED = compared(RATED, ("r0", "r1"))

CASES: dict[str, tuple[Record, dict[str, Any], tuple[str, ...]]] = {
    "misspelt score": (
        RATED,
        {"name": "pairs_from_ratings", "score": "overal"},
        ("pairs_from_ratings: record 'p': no response has the score 'overal'", "did you mean 'overall'"),
    ),
    "pairs already": (PAIRED, {"name": "pairs_from_ratings"}, ("record 'p'", "`existing: keep`")),
    "too many wanted": (RATED, {"name": "rso"}, ("rso: record 'p': accept: 8, but only 2",)),
    "too large a subset": (RATED, {"name": "subset", "count": 2}, ("subset: count: 2 records, but there are only 1",)),
    "no user": (PAIRED, {"name": "fspo"}, ("fspo: record 'p': a pair label has no user",)),
    "no trace": (PAIRED, {"name": "bvpo"}, ("bvpo: record 'p': response 'r0' has no trace",)),
    "no rationale": (PAIRED, {"name": "rationales"}, ("rationales: record 'p': no note of kind 'rationale'",)),
    "no classifier": (PAIRED, {"name": "upo"}, ("upo: record 'p': response 'r0' has no vector score",)),
    "too few pairs": (PAIRED, {"name": "curriculum"}, ("curriculum: stage 2 of 3 is empty", "set stages to 1")),
    "nothing left": (RATED, {"name": "filter", "length": {"least": 9}}, ("no record is left after the transforms",)),
    "misspelt key": (RATED, {"name": "rad", "gaol": 3}, ("data.train.transforms[0].gaol: unknown key", "'goal'")),
    "misspelt name": (RATED, {"name": "curiculum"}, ("transforms[0].name: unknown", "did you mean 'curriculum'")),
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("fault", CASES)
def test_an_unsuitable_record_is_one_message(
    fault: str,
    command: str,
    tmp_path: Path,
    toy_config: Callable[..., dict[str, Any]],
    write_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record, transform, expected = CASES[fault]
    data = tmp_path / "data.jsonl"
    data.write_text(record.to_json() + "\n", encoding="utf-8")
    path = write_config(toy_config(data={"train": {"path": str(data), "transforms": transform}}))
    monkeypatch.setattr(sys, "argv", ["mmalign", command, str(path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert all(words in message for words in expected), message
    assert "Traceback" not in message
    assert ("data.jsonl: " in message) == (not fault.startswith("misspelt key") and fault != "misspelt name")
    assert not (tmp_path / "run").exists()
