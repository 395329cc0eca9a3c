"""`mmalign compare`: metrics and keys that differ, what makes a comparison doubtful, files, foreign names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mmalign
from mmalign import ConfigError, RunConfig
from mmalign.cli.main import app
from mmalign.results.comparison import compare_runs

Build = Callable[..., dict[str, Any]]
EVALUATION = {"evaluators": [{"name": "generation"}]}


def invoke(*arguments: str | Path) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


@pytest.fixture
def make(toy_online: Build, tmp_path: Path) -> Callable[..., Path]:
    def train(name: str, **sections: Any) -> Path:
        config = toy_online(evaluation=EVALUATION, output=str(tmp_path / name))
        for key, value in sections.items():
            config[key] = config.get(key, {}) | value
        return mmalign.train(RunConfig.model_validate(config)).output

    return train


def test_metrics_stand_side_by_side_with_differences_and_intervals(make: Callable[..., Path]) -> None:
    slow, fast = make("slow", train={"learning_rate": 1e-4}), make("fast", train={"learning_rate": 0.1})
    document = json.loads(invoke("compare", slow, fast, "--json"))
    base, other = document["metrics"]["generation/reward"]
    assert base["difference"] is None
    assert other["difference"] == pytest.approx(other["value"] - base["value"])
    low, high = other["interval"]
    assert low <= other["value"] <= high
    assert "generation/reward_low" not in document["metrics"]
    assert document["config"] == {"train.learning_rate": [1e-4, 0.1]}
    assert document["warnings"] == []
    table = invoke("compare", slow, fast)
    assert f"{other['value']:.4g} [{low:.4g}, {high:.4g}]" in table and f"{other['difference']:+.4g}" in table
    assert "train.learning_rate" in table and "warning" not in table


def test_a_run_equals_itself(make: Callable[..., Path]) -> None:
    run = make("run")
    document = json.loads(invoke("compare", run, run, "--json"))
    assert {row[1]["difference"] for row in document["metrics"].values()} <= {0, None}
    assert document["config"] == {}
    assert "the configurations are the same" in invoke("compare", run, run)


def test_what_makes_a_comparison_doubtful_is_said(make: Callable[..., Path], toy_pairs: Path) -> None:
    first = make("first")
    other = toy_pairs.with_name("other.jsonl")
    other.write_text(toy_pairs.read_text().replace("3321", "3322"))
    second = make(
        "second",
        train={"seed": 1, "steps": 2},
        data={"eval": {"path": str(other)}},
        decoding={"temperature": 0.5},
        evaluation={"every": 1},
    )
    said = "\n".join(compare_runs([first, second]).warnings)
    for words in ("seeds differ", "held-out data differ", "decodings differ", "evaluations differ", "steps differ"):
        assert words in said
    assert "(train.seed)" in said and "training data" not in said


def test_the_same_path_with_other_content_is_noticed(make: Callable[..., Path], toy_pairs: Path) -> None:
    first = make("first")
    toy_pairs.write_text(toy_pairs.read_text().replace("3321", "3322"))
    warnings = compare_runs([first, make("second")]).warnings
    assert warnings == [f"data.{split}: the same configuration has read other content" for split in ("train", "eval")]


def test_a_run_that_is_not_finished_says_so(make: Callable[..., Path]) -> None:
    first, second = make("first"), make("second")
    (second / "results.json").unlink()
    assert compare_runs([first, second]).warnings == [f"{second}: not finished; its metrics are those of step 4"]


def test_what_is_no_run_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    run = make("run")
    with pytest.raises(ConfigError, match=r"not the folder of a run, no config\.yaml"):
        compare_runs([run, tmp_path / "nothing"])
    with pytest.raises(ConfigError, match="expected the folders of two runs"):
        compare_runs([run])
    (run / "results.json").write_text("[1")
    with pytest.raises(ConfigError, match=r"results\.json: cannot be read"):
        compare_runs([run, run])


def test_pages_hold_no_markup_of_others(make: Callable[..., Path], tmp_path: Path) -> None:
    run = make("run")
    log = run / "metrics.jsonl"
    log.write_text(log.read_text().replace("generation/kl", "<script>\\u001b[2J[bold]"))
    for suffix in ("html", "svg"):
        page = tmp_path / f"page.{suffix}"
        invoke("compare", run, run, "--output", page)
        text = page.read_text()
        assert "<script>" not in text and "&lt;script&gt;" in text and "\x1b" not in text
    result = CliRunner().invoke(app, ["compare", str(run), str(run), "--output", "page.pdf"])
    assert isinstance(result.exception, ConfigError) and ".html or .svg" in str(result.exception)
