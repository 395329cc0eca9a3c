"""What reaches the standard error stream: messages of ours, not those of libraries, and nothing that steers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmalign.cli import context
from mmalign.cli.main import app, main
from mmalign.cli.messages import print_traceback, routed_messages


def test_libraries_are_kept_for_the_log_and_ours_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with routed_messages():
        logging.getLogger("transformers.generation").warning("deprecated")
        logging.getLogger("open_clip").error("cannot go on")
        logging.getLogger("my_plugin").warning("look \x1b[2J")
        logging.getLogger("mmalign.x").warning("ours")
        logging.getLogger("mmalign.x").info("news")
        warnings.warn("old", UserWarning, stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "error: open_clip: cannot go on",
        "warning: look ␛[2J",
        "warning: ours",
    ]


def test_debug_shows_what_libraries_say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.cli.messages.debug_wanted", lambda: True)
    with routed_messages():
        logging.getLogger("datasets.x").warning("slow")
        warnings.warn("old", UserWarning, stacklevel=1)
    shown = capsys.readouterr().err
    assert "warning: datasets.x: slow\n" in shown and "UserWarning: old" in shown


def test_a_library_that_prints_by_itself_is_taken_over_before_its_import(tmp_path: Path) -> None:
    program = (
        "import logging\n"
        "from mmalign.cli.messages import routed_messages\n"
        "with routed_messages():\n"
        "    from transformers.utils import logging as library\n"
        "    library.get_logger('transformers.models').warning('chatter')\n"
        "    from mmalign.monitoring.run_log import run_log\n"
        "    with run_log(__import__('pathlib').Path('.'), writes=True):\n"
        "        library.get_logger('transformers.models').warning_once('more')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout == ""
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.partition("WARNING ")[2] for line in lines] == [
        "transformers.models: chatter",
        "transformers.models: more",
    ]


def test_errors_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "\x1b]0;PWN\x07", "schema": "mmalign/1", "prompt": "\x9b", "responses": "[bold]\x1b[2J\u202e"}
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(sys, "argv", ["mmalign", "data", "validate", str(tmp_path / "bad.jsonl")])
    with pytest.raises(SystemExit):
        main()
    captured = capsys.readouterr()
    assert not set("\x1b\x07\x9b\u202e") & set(captured.err + captured.out)


@pytest.mark.parametrize("value", ["[bold]x[/bold]", "[/]", "\x1b[2J"])
def test_ids_names_and_texts_are_shown_as_they_are(tmp_path: Path, value: str) -> None:
    content = [{"type": "text", "text": value}]
    record: dict[str, Any] = {
        "id": value,
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "name": value, "content": content}],
        "responses": [{"rid": value, "messages": [{"role": "assistant", "content": content}]}],
    }
    (tmp_path / "d.jsonl").write_text(json.dumps(record) + "\n")
    output = CliRunner().invoke(app, ["data", "show", str(tmp_path / "d.jsonl")]).output
    assert output.count(value.replace("\x1b", "␛")) == 5 and "\x1b" not in output


def test_a_traceback_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("\x1b[2J boom")
    except RuntimeError as error:
        print_traceback(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "RuntimeError: ␛[2J boom" in shown and "\x1b" not in shown


def test_debug_keeps_the_traceback_of_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, wanted in (([], False), (["--debug"], True)):
        monkeypatch.setattr(sys, "argv", ["mmalign", *options, "explain", "dop"])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr().err
        assert stopped.value.code == 2 and "error: unknown part 'dop'" in shown
        assert ("Traceback" in shown) is wanted
    context.set_debug(False)
