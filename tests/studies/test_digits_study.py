"""The study of the digit model: when its rule stops a run, what it counts, and the page it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.insert(0, str(STUDIES))

import digits_curves as curves  # noqa: E402
import digits_page as page  # noqa: E402


def write_run(folder: Path, judges: list[float], errors: list[float]) -> curves.Curve:
    """A run of evaluations at steps 0, 10, 20, ...; the reward is ink plus recognition, and ink grows by 0.02 each."""
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    scores = []
    for index, (judge, error) in enumerate(zip(judges, errors, strict=True)):
        step = 10 * index
        own = {"chosen_rewards": -1.0 * index, "rejected_rewards": -2.0 * index}
        rows.append({"kind": "eval", "step": step, "time": 100.0 * index, **own})
        rows += [{"kind": "train", "step": step + 1 + k, "time": 100 * index + 10 + 2 * k} for k in range(10)]
        seen = (np.arange(300) % 100 < round(100 * judge)).astype(float)
        ink = np.full(300, 0.1 + 0.02 * index)
        errors_of = {"chosen_errors": [0.1 + error, 0.3 + error], "rejected_errors": [0.2, 0.3 + 2 * error]}
        scores.append({"step": step, "reward": (ink + 1).tolist(), "ink": ink.tolist(), "digit_judge": seen.tolist()})
        scores[-1] |= errors_of
        Image.new("L", (160, 160)).save(folder / "images" / f"step-{step:05d}.png")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "gain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    return curves.read_curve(folder)


def test_the_judge_stops_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.8, 0.79, 0.7, 0.9], [0.0, 0.001, 0.002, 0.003])
    assert run.stop.step == 10
    assert run.step_seconds == 2.0


def test_the_winner_error_stops_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.8, 0.8, 0.8, 0.8], [0.0, 0.001, 0.045, 1.0])
    assert run.stop.step == 20
    assert run.points[3].winner_error == pytest.approx(1.0)
    # The first chosen error grew and its rejected one did not; the second grew by half as much as its rejected one.
    assert run.points[3].implicit_accuracy == 0.5


def test_a_run_that_holds_up_is_not_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.8, 0.8, 0.8], [0.0, -0.1, -0.2])
    assert run.stop.step == 20


def test_steps_to_a_gain_count_only_where_the_judge_holds_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.8, 0.6, 0.8, 0.8], [0.0] * 4)
    assert run.steps_to(0.015) is None
    assert run.steps_to(0.05) == pytest.approx(25)
    assert run.steps_to(0.5) is None


def test_an_interval_is_over_images_and_seeds_are_averaged_first() -> None:
    # Changes of four images in two runs: means 0.5, 1.5, 0.5, 1.5, so mean 1 and deviation 0.5774 (n - 1).
    before = curves.Point(0, {"reward": np.zeros(4)}, 0.0, 0.0)
    after = [curves.Point(9, {"reward": np.array(row)}, 0.0, 0.0) for row in ([0, 1, 1, 2], [1, 2, 0, 1])]
    mean, low, high = curves.paired_interval([(before, one) for one in after], "reward")
    assert mean == 1.0
    assert (low, high) == pytest.approx((1 - 1.96 * 0.57735 / 2, 1 + 1.96 * 0.57735 / 2), abs=1e-4)


_FILES = {
    "PAGE": "digits.md",
    "PICTURE": "digits.svg",
    "SHEET": "digits.png",
    "BEFORE_AFTER": "digits_before_after.png",
}


def test_panels_show_the_start_once_and_no_step_twice(tmp_path: Path) -> None:
    runs = {
        name: [write_run(tmp_path / name, [0.8, 0.8, judge], [0.0, 0.0, 0.01])]
        for name, judge in (("steady", 0.8), ("falling", 0.5))
    }
    assert [title for title, _ in page.list_panels(runs)] == [
        "start",
        "steady, step 20",
        "falling, step 10",
        "falling, step 20",
    ]
    assert [title for title, _ in page.list_panels(runs, last=False)] == [
        "start",
        "steady, step 20",
        "falling, step 10",
    ]


def test_the_page_has_a_row_for_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in _FILES.items():
        monkeypatch.setattr(page, name, tmp_path / file)
    page.PAGE.write_text(f"# Title\n\n{page.MARKER}\n\nold\n")
    monkeypatch.setattr(page, "SHOWN", ("steady",))
    runs = {
        name: [write_run(tmp_path / f"{name}-{seed}", [0.8, 0.8, judge], [0.0, 0.0, 0.01]) for seed in range(2)]
        for name, judge in (("steady", 0.8), ("falling", 0.5))
    }
    page.write_page(runs)
    text = page.PAGE.read_text()
    assert "old" not in text
    assert text.startswith("# Title\n")
    rows = [line for line in text.splitlines() if line.startswith("| falling")]
    assert rows[0].startswith("| falling | 2 | 10, 10 | +0.020")
    assert rows[1].startswith("| falling | 2 | 20, 20 | +0.040")
    assert "-0.300" in rows[1]
    assert rows[2] == "| falling | 2.00 | never | never | never |"
    assert rows[3] == "| falling | -2.0 | -4.0 | +0.0100 |"
    assert all((tmp_path / file).is_file() for file in _FILES.values())
