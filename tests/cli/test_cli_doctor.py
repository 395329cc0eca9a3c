"""`mmalign doctor`: what the report holds, and that no secret is in it."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from mmalign import diagnosis
from mmalign.cli.main import app


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_BUDGET", 0.01)


def test_the_report_has_what_a_bug_report_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    report = json.loads(result.output)
    assert list(report) == ["versions", "machine", "devices", "plugins", "extras", "cache", "environment"]
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0]
    cpu = report["devices"]["cpu"]
    assert cpu["float32 GFLOP/s"] > 0 and cpu["bfloat16 GFLOP/s"] > 0 and isinstance(cpu["bfloat16 units"], bool)
    assert report["plugins"]["objectives"] == "ok"
    assert report["environment"].items() >= {"HF_TOKEN": "set", "HTTPS_PROXY": "set", "OMP_NUM_THREADS": "1"}.items()
    assert "secret" not in result.output


def test_the_page_shows_every_section() -> None:
    result = CliRunner().invoke(app, ["--no-plugin", "rewards", "doctor"], catch_exceptions=False)
    for line in ("versions", "  cores ", "  cpu ", "rewards          disabled: switched off", "  folder "):
        assert line in result.output


def test_an_extra_says_what_is_missing_and_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [
        "numpy",
        'no-such-package>=1; extra == "text"',
        'rich>=1; extra == "text"',
        'mmalign[text]; extra == "seeing"',
        'rich>=9999; extra == "seeing"',
        'rich; extra == "fine"',
    ]
    monkeypatch.setattr(diagnosis, "requires", lambda name: needs)
    monkeypatch.setattr(diagnosis, "metadata", lambda name: type("M", (), {"get_all": lambda self, key: EXTRAS})())
    assert diagnosis.describe_extras() == {
        "text": 'missing no-such-package; pip install "mmalign[text]"',
        "seeing": 'missing no-such-package, rich; pip install "mmalign[seeing]"',
        "fine": "installed",
    }


EXTRAS = ["text", "seeing", "fine", "all"]
