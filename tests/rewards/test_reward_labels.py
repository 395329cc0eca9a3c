"""Labels: two rewards of one name are told apart, in metrics and in messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate
from mmalign.training.assembling import load_assembly


def assemble(folder: Path, *rewards: dict[str, Any]) -> Any:
    (folder / "scoring.py").write_text("def one(responses):\n    return [1.0] * len(responses)\n")
    function = {"name": "python", "function": f"{folder}/scoring.py:one"}
    config = {
        "modality": {"name": "text", "model": "nowhere"},
        "data": {"train": {"path": "p"}},
        "objective": {"name": "grpo"},
        "collector": {"name": "group"},
        "advantage": {"name": "grpo"},
        "rewards": [{**function, **reward} if "name" not in reward else reward for reward in rewards],
        "train": {"steps": 1},
        "output": "o",
    }
    return load_assembly(validate(RunConfig, config, "")).scorer


def test_labels_name_the_columns(tmp_path: Path) -> None:
    scorer = assemble(tmp_path, {"label": "polite"}, {"label": "brief"}, {}, {"outputs": ["a"], "label": "both"})
    assert scorer.names == ("polite", "brief", "python", "both/a")


def test_the_label_of_a_classifier_stays_its_own(tmp_path: Path) -> None:
    scorer = assemble(tmp_path, {"name": "classifier", "model": "m", "label": 1}, {"label": "polite"})
    assert scorer.names == ("classifier", "polite")


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (({"label": "a"}, {"label": "a"}), r"rewards\[1\]\.label: 'a' is the name of rewards\[0\], too"),
        (({}, {"label": "python"}), r"rewards\[1\]\.label: 'python' is the name of rewards\[0\], too"),
        (({"label": "a/b"},), r"rewards\.label: got 'a/b'; expected letters"),
        (({"label": 5},), r"rewards\.label: got 5; expected letters"),
        (({"label": ""},), r"rewards\.label: got ''; expected letters"),
        (({"label": "unscored"},), r"is the name of the metric reward/unscored, too"),
        (({"weight": float("nan")},), r"rewards\[0\]\.weight"),
        (({"weight": float("inf")},), r"rewards\[0\]\.weight"),
        (({"clip": [float("-inf"), 1]},), r"rewards\[0\]\.clip\[0\]: expected a finite number, got -inf"),
    ],
)
def test_a_wrong_label_or_weight_is_refused(rewards: tuple[dict[str, Any], ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble(tmp_path, *rewards)
