"""What a run of studies/digits_alignment.py has measured, and when one would have stopped it.

Of 300 held-out prompts the rule that stops a run sees the last 100 only, and everything that is reported is measured on
the first 200, so that stopping cannot choose a lucky number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

FINISHED = "finished"
REPORTED = slice(0, 200)
WATCHED = slice(200, 300)

JUDGE_MARGIN = 0.03
WINNER_MARGIN = 0.05
"""A run stops where the judge recognises so much less, or the denoising error of the chosen images is so much higher,
than at the start."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One evaluation.

    Attributes:
        scores: scores of the held-out images by reward, [300] each.
        winner_error: denoising error of the held-out chosen images less that of the start model, same noise.
        implicit_accuracy: share of held-out pairs whose chosen image has gained less error than the rejected one.
    """

    step: int
    scores: dict[str, Scores]
    winner_error: float
    implicit_accuracy: float


@dataclass(frozen=True)
class Curve:
    """All evaluations of a run, the first one before training.

    Attributes:
        folder: of the run.
        step_seconds: median time of an optimiser step, evaluation left out.
        implicit_rewards: beta log(policy / reference) of the held-out chosen and rejected images at the last step, with
            the noise that the method itself trains on; None of a method that has none.
    """

    folder: Path
    points: tuple[Point, ...]
    step_seconds: float
    implicit_rewards: tuple[float, float] | None

    @property
    def start(self) -> Point:
        """Before training."""
        return self.points[0]

    @property
    def stop(self) -> Point:
        """The last evaluation before the rule stops the run."""
        for before, point in pairwise(self.points):
            judge = mean_change(self.start, point, "digit_judge", WATCHED)
            if judge < -JUDGE_MARGIN or point.winner_error > WINNER_MARGIN:
                return before
        return self.points[-1]

    def steps_to(self, gain: float) -> float | None:
        """Steps until the reward has gained so much, between two evaluations by a straight line; None if it never does
        while the judge recognises as much as at the start, less the margin."""
        reached = [mean_change(self.start, point, "reward", REPORTED) for point in self.points]
        for (before, low), (after, high) in pairwise(zip(self.points, reached, strict=True)):
            judge = mean_change(self.start, after, "digit_judge", REPORTED)
            if low < gain <= high and judge >= -JUDGE_MARGIN:
                return before.step + (after.step - before.step) * (gain - low) / (high - low)
        return None


def read_curve(folder: Path) -> Curve:
    """Reads a finished run."""
    lines = (folder / "gain.jsonl").read_text(encoding="utf-8").splitlines()
    evaluations = {row.pop("step"): row for row in map(json.loads, lines)}
    start = evaluations[0]
    points = tuple(_build_point(step, evaluations[step], start) for step in sorted(evaluations))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    names = ("chosen_rewards", "rejected_rewards")
    return Curve(folder, points, _step_seconds(rows), (last[names[0]], last[names[1]]) if names[0] in last else None)


def _build_point(step: int, row: dict[str, list[float]], start: dict[str, list[float]]) -> Point:
    chosen, rejected = (np.subtract(row[name], start[name]) for name in ("chosen_errors", "rejected_errors"))
    scores = {name: np.array(values) for name, values in row.items() if not name.endswith("_errors")}
    return Point(step, scores, winner_error=float(chosen.mean()), implicit_accuracy=float((chosen < rejected).mean()))


def _step_seconds(rows: Sequence[dict[str, float]]) -> float:
    steps = [(before, row) for before, row in pairwise(rows) if before["kind"] == row["kind"] == "train"]
    return median(row["time"] - before["time"] for before, row in steps)


def mean_change(start: Point, point: Point, name: str, rows: slice) -> float:
    """Computes the mean change of a score since the start, image by image."""
    return float((point.scores[name][rows] - start.scores[name][rows]).mean())


def paired_interval(pairs: Sequence[tuple[Point, Point]], name: str) -> tuple[float, float, float]:
    """Computes the mean change (before, after) of a score on the reported images with its 95 % interval.

    The runs of several seeds share their images, so an image's changes are averaged over them first.
    """
    changes = [after.scores[name][REPORTED] - before.scores[name][REPORTED] for before, after in pairs]
    of_images = np.mean(changes, axis=0)
    half = 1.96 * of_images.std(ddof=1) / len(of_images) ** 0.5
    return float(of_images.mean()), float(of_images.mean() - half), float(of_images.mean() + half)
