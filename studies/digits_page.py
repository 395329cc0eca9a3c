"""The tables, the picture and the contact sheets of docs/studies/digits.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from digits_curves import REPORTED, Curve, Point, paired_interval

matplotlib.use("svg")

import matplotlib.pyplot as plt

STUDIES = Path(__file__).resolve().parents[1] / "docs/studies"
PAGE = STUDIES / "digits.md"
PICTURE = STUDIES / "digits.svg"
SHEET = STUDIES / "digits.png"
BEFORE_AFTER = STUDIES / "digits_before_after.png"
MARKER = "<!-- tables: written by studies/digits_alignment.py -->"

GAINS = (0.04, 0.08, 0.12)
"""Gains of the reward whose time is reported."""

SHOWN = ("diffusion_dpo", "inpo", "smpo")
"""Methods of the small picture, where the rule stops them."""

Curves = Mapping[str, Sequence[Curve]]


def write_page(curves: Curves) -> None:
    """Replaces what follows the marker by the tables and the picture."""
    text = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    draw_curves(curves)
    draw_sheet(list_panels(curves), SHEET, across=5)
    draw_sheet(
        list_panels({name: curves[name] for name in SHOWN if name in curves}, last=False), BEFORE_AFTER, across=4
    )
    sections = [
        "## Where the rule stops\n",
        _result_table(curves, [(name, [(one.start, one.stop) for one in runs]) for name, runs in curves.items()]),
        "## At the last step\n",
        _result_table(curves, [(name, [(one.start, one.points[-1]) for one in runs]) for name, runs in curves.items()]),
        "## Steps and seconds to a gain\n",
        _time_table(curves),
        "## What the methods see of the held-out pairs at the last step\n",
        _own_table(curves),
        f"![Reward, judge and winner error over training]({PICTURE.name})\n",
        f"![Samples from the same noise]({SHEET.name})\n",
    ]
    PAGE.write_text(f"{text}{MARKER}\n\n" + "\n".join(sections), encoding="utf-8")


def _result_table(curves: Curves, rows: Sequence[tuple[str, list[tuple[Point, Point]]]]) -> str:
    titles = (
        "method",
        "seeds",
        "steps",
        "reward gain",
        "ink",
        "judge",
        "judge change",
        "winner error",
        "implicit acc.",
    )
    lines = [_row(titles), "|---" + "|---:" * (len(titles) - 1) + "|"]
    start = next(iter(curves.values()))[0].start
    ink, judge = (start.scores[name][REPORTED].mean() for name in ("ink", "digit_judge"))
    lines.append(_row(["*start*", "", "0", "", f"{ink:.3f}", f"{judge:.3f}", "", "", ""]))
    for name, pairs in rows:
        after = [after for _, after in pairs]
        ink, judge = (np.mean([one.scores[key][REPORTED] for one in after]) for key in ("ink", "digit_judge"))
        error = np.mean([one.winner_error for one in after])
        accuracy = np.mean([one.implicit_accuracy for one in after])
        steps = ", ".join(str(one.step) for one in after)
        cells = [name, str(len(pairs)), steps, _interval(pairs, "reward"), f"{ink:.3f}", f"{judge:.3f}"]
        lines.append(_row([*cells, _interval(pairs, "digit_judge"), f"{error:+.4f}", f"{accuracy:.2f}"]))
    return "\n".join(lines) + "\n"


def _interval(pairs: Sequence[tuple[Point, Point]], name: str) -> str:
    mean, low, high = paired_interval(pairs, name)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _time_table(curves: Curves) -> str:
    titles = ["method", "seconds a step", *(f"+{gain}" for gain in GAINS)]
    lines = [_row(titles), "|---" + "|---:" * (len(titles) - 1) + "|"]
    for name, runs in curves.items():
        seconds = float(np.median([one.step_seconds for one in runs]))
        lines.append(_row([name, f"{seconds:.2f}", *(_time_to(runs, gain) for gain in GAINS)]))
    return "\n".join(lines) + "\n"


def _time_to(runs: Sequence[Curve], gain: float) -> str:
    """Writes the mean steps and seconds to a gain of those seeds that reach it."""
    steps = [(count, count * one.step_seconds) for one in runs if (count := one.steps_to(gain)) is not None]
    if not steps:
        return "never"
    count, seconds = np.mean(steps, axis=0)
    some = "" if len(steps) == len(runs) else f" ({len(steps)} of {len(runs)} seeds)"
    return f"{count:.0f} steps, {seconds:.0f} s{some}"


def _own_table(curves: Curves) -> str:
    """Sets implicit rewards with a method's own noise beside the error with the noise that is the same for all."""
    lines = ["| method | reward of chosen | reward of rejected | winner error, random noise |", "|---|---:|---:|---:|"]
    for name, runs in curves.items():
        own = [one.implicit_rewards for one in runs if one.implicit_rewards]
        if own:
            chosen, rejected = np.mean(own, axis=0)
            error = np.mean([one.points[-1].winner_error for one in runs])
            lines.append(_row([name, f"{chosen:+.1f}", f"{rejected:+.1f}", f"{error:+.4f}"]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw_curves(curves: Curves) -> None:
    """Draws reward, judge and winner error over training, a mean over seeds; a ring marks where the rule stops."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    titles = ("reward gain", "change of the judge's accuracy", "change of the winner error")
    for name, runs in curves.items():
        steps = [point.step for point in runs[0].points]
        values = np.mean([[_summary(one, point) for point in one.points] for one in runs], axis=0)  # [points, 3]
        stop = float(np.mean([one.stop.step for one in runs]))
        for panel, series in zip(panels, values.T, strict=True):
            (line,) = panel.plot(steps, series, label=name)
            panel.plot([stop], [np.interp(stop, steps, series)], "o", mfc="none", color=line.get_color())
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("optimiser steps")
        panel.grid(alpha=0.3)
    panels[1].axhline(-0.03, color="black", linewidth=0.8, linestyle=":")
    panels[0].legend(fontsize=8)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def _summary(curve: Curve, point: Point) -> list[float]:
    changes = [
        float((point.scores[key] - curve.start.scores[key])[REPORTED].mean()) for key in ("reward", "digit_judge")
    ]
    return [*changes, point.winner_error]


def list_panels(curves: Curves, *, last: bool = True) -> list[tuple[str, Path]]:
    """Lists titles and pictures: samples of the first seed from the same noise at the start, where the rule stops a
    method, and, where that is not the same, at the last step."""
    panels = []
    for name, runs in curves.items():
        steps = sorted({runs[0].stop.step, runs[0].points[-1].step if last else runs[0].stop.step})
        if not panels:
            panels.append(("start", _picture(runs[0], 0)))
        panels += [(f"{name}, step {step}", _picture(runs[0], step)) for step in steps if step]
    return panels


def _picture(curve: Curve, step: int) -> Path:
    return curve.folder / "images" / f"step-{step:05d}.png"


def draw_sheet(pictures: Sequence[tuple[str, Path]], file: Path, *, across: int) -> None:
    """Draws pictures side by side."""
    down = -(-len(pictures) // across)
    figure, panels = plt.subplots(down, across, figsize=(2.4 * across, 2.7 * down), layout="constrained")
    for panel in panels.flat:
        panel.axis("off")
    for panel, (title, picture) in zip(panels.flat, pictures, strict=False):
        panel.imshow(plt.imread(picture), cmap="gray_r", vmin=0, vmax=1)
        panel.set_title(title, fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)
