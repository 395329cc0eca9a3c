"""The log in a run's folder: what came before the folder, whose records, and that it cannot steer a terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmalign
from mmalign.monitoring.run_log import FILE, PendingRecords, run_log


def test_what_waited_comes_first(tmp_path: Path) -> None:
    root, pending = logging.getLogger(), PendingRecords()
    root.addHandler(pending)
    try:
        logging.getLogger("some_library").warning("early %s", "bird")
        with run_log(tmp_path, writes=True):
            logging.getLogger("mmalign.x").info("late\nsecond line \x1b[2J")
        logging.getLogger("mmalign.x").warning("after")
    finally:
        root.removeHandler(pending)
    first, second, third = (tmp_path / FILE).read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} WARNING some_library: early bird", first)
    assert second.endswith("INFO mmalign.x: late") and third == "    second line ␛[2J"


def test_secrets_that_libraries_log_are_masked(tmp_path: Path) -> None:
    with run_log(tmp_path, writes=True):
        logging.getLogger("httpx").warning("GET %s", "https://me:word@host/score?api_key=abcdefgh")
    assert "GET https://***@host/score?api_key=***" in (tmp_path / FILE).read_text(encoding="utf-8")


def test_other_processes_write_none(tmp_path: Path) -> None:
    with run_log(tmp_path, writes=False):
        logging.getLogger("mmalign.x").warning("here")
    assert not (tmp_path / FILE).exists()


def test_the_level_of_our_loggers_comes_back(tmp_path: Path) -> None:
    own = logging.getLogger("mmalign")
    before = own.level, list(logging.getLogger().handlers)
    with run_log(tmp_path, writes=True):
        assert own.isEnabledFor(logging.INFO)
    assert (own.level, list(logging.getLogger().handlers)) == before


def test_a_run_logs_its_examples_and_a_new_one_starts_anew(toy_online: Callable[..., dict[str, Any]]) -> None:
    evaluation = {"evaluators": [{"name": "generation"}]}
    config = mmalign.RunConfig.model_validate(toy_online(evaluation=evaluation))
    run = mmalign.train(config)
    text = (run.output / FILE).read_text(encoding="utf-8")
    assert text.count("example at step 0: prompt: ") == len(run.examples) > 0
    assert text.count("example at step 4: prompt: ") == len(run.examples)
    mmalign.train(config, overwrite=True)
    assert (run.output / FILE).read_text(encoding="utf-8").count("example at step 0") == len(run.examples)
    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 6})})
    mmalign.train(longer, resume=True)
    resumed = (run.output / FILE).read_text(encoding="utf-8")
    assert "example at step 0" in resumed and "example at step 6" in resumed
