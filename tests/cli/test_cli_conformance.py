"""`mmalign conformance` with the installed plugins."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mmalign.cli.conformance import conformance

DPO_INPUTS = {
    "policy_chosen_logps": [-10.0],
    "policy_rejected_logps": [-12.0],
    "ref_chosen_logps": [-11.0],
    "ref_rejected_logps": [-11.0],
}
DPO_LOSS = 0.3132616875182228  # margin 2, beta 0.5


@pytest.fixture
def app() -> typer.Typer:
    command = typer.Typer()
    command.command()(conformance)
    return command


def dpo_case(loss: float, **more: Any) -> dict[str, Any]:
    case = {"id": f"dpo {loss}", "method": "dpo", "inputs": DPO_INPUTS, "hparams": {"beta": 0.5}, "expected": [loss]}
    return case | more


def write(tmp_path: Path, *cases: dict[str, Any]) -> str:
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"cases": cases}))
    return str(path)


def test_the_command_prints_every_case_and_a_summary(tmp_path: Path, app: typer.Typer) -> None:
    path = write(tmp_path, dpo_case(DPO_LOSS), {"id": "x", "method": "unheard of", "expected": 0})
    result = CliRunner().invoke(app, [path])
    assert result.exit_code == 0
    assert "passed          dpo 0.3132616875182228  (dpo)" in result.output
    assert "not_implemented x  (unheard of)" in result.output
    assert "1 passed, 0 failed, 1 not_implemented" in result.output


def test_the_command_exits_1_if_a_case_failed(tmp_path: Path, app: typer.Typer) -> None:
    path = write(tmp_path, dpo_case(DPO_LOSS), dpo_case(0.5))
    result = CliRunner().invoke(app, [path])
    assert result.exit_code == 1
    assert "1 passed, 1 failed" in result.output
    assert CliRunner().invoke(app, [path, "--tolerance", "0.5"]).exit_code == 0


def test_json_is_strict_and_covers_all_files(tmp_path: Path, app: typer.Typer) -> None:
    path = write(tmp_path, dpo_case(DPO_LOSS), dpo_case(0.5, expected=[0.5, 0.5]))
    result = CliRunner().invoke(app, [path, path, "--json"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    cases = json.loads(result.output, parse_constant=refuse)["cases"]
    assert result.exit_code == 1
    assert [case["status"] for case in cases] == ["passed", "failed"] * 2
    assert cases[0]["max_rel_err"] < 1e-15
    assert cases[1]["max_rel_err"] is None
    assert {"id", "method", "status", "max_rel_err"} <= cases[0].keys()


def test_without_files_those_that_come_with_mmalign_are_run(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert "offline.json: 63 passed, 0 failed, 0 not_implemented" in result.output
    assert "diffusion.json: 39 passed, 0 failed, 0 not_implemented" in result.output
    assert re.search(r"agents.json: \d+ passed, 0 failed, \d+ not_implemented", result.output)


def test_what_no_plugin_computes_is_counted_by_method_and_part(
    tmp_path: Path, app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = {"method": "unheard of", "expected": 0, "hparams": {"part": "left"}}
    cases = [{"id": "a", **piece}, {"id": "b", **piece}, {"id": "c", "method": "odd", "expected": 0}, dpo_case(0.5)]
    monkeypatch.setattr("mmalign.cli.conformance.golden_files", lambda: [Path(write(tmp_path, *cases))])
    result = CliRunner().invoke(app, [])
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert result.exit_code == 1
    assert lines[0] == "golden.json: 0 passed, 1 failed, 3 not_implemented"
    assert lines[1:4] == [
        "  failed            1  dpo",
        "  not_implemented   1  odd",
        "  not_implemented   2  unheard of / left",
    ]
    assert lines[4].startswith("  dpo 0.5: result: off by")
