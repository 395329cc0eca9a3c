"""Trains one small language model with twelve objectives on the same preferences and compares what comes out.

    python studies/compare_objectives.py                          # all of it: about 35 minutes on two CPU cores
    python studies/compare_objectives.py --objectives dpo simpo   # some of it; what is finished is kept
    python studies/compare_objectives.py --steps 48               # with another budget

Model, adapter, data, rewards, batch and learning rate are those of configs/text/quickstart.yaml, the parameters of an
objective those of its own recipe. A finished objective is not trained again, so the command may be stopped and started
anew. It writes the table of docs/studies/objectives.md and the picture beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

import mmalign

matplotlib.use("svg")

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/text/quickstart.yaml"
PAGE = ROOT / "docs/studies/objectives.md"
PICTURE = ROOT / "docs/studies/objectives.svg"
MARKER = "<!-- table: written by studies/compare_objectives.py -->"

OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("imitation", {}),
    "dpo": ("pair, logistic", {"beta": 0.1}),
    "exo": ("pair, reverse KL", {"beta": 0.1}),
    "f_dpo": ("pair, Jensen-Shannon", {"beta": 0.1, "divergence": "jensen_shannon"}),
    "apo_zero": ("pair, anchored", {"beta": 0.1}),
    "nca_pair": ("pair, contrast with noise", {"beta": 0.1}),
    "ipo": ("pair, squared", {"tau": 0.1}),
    "simpo": ("pair, no reference", {}),
    "orpo": ("pair, no reference", {}),
    "kto": ("single label", {}),
    "bco": ("single label", {"beta": 0.1}),
    "lipo_lambda": ("list", {"beta": 0.05}),
}
"""Group and parameters of every objective."""

COLUMNS = {
    "reward accuracy": ("preference/reward_accuracy", "{:.2f}"),
    "chosen": ("preference/log_ratio/chosen", "{:+.2f}"),
    "rejected": ("preference/log_ratio/rejected", "{:+.2f}"),
    "reward": ("generation/reward", "{:.2f}"),
    "sentiment": ("generation/reward/vader", "{:.2f}"),
    "relevance": ("generation/reward/relevance", "{:.2f}"),
    "KL": ("generation/kl", "{:.2f}"),
    "length": ("generation/length", "{:.1f}"),
    "ended": ("generation/finished", "{:.2f}"),
}
"""Held-out metric and format of every column of numbers."""

Results = dict[str, dict[str, Any]]


def folder_of(name: str, options: argparse.Namespace) -> Path:
    """The run's folder; another budget or seed is another run."""
    return Path(options.output, f"{name}-{options.steps}-{options.seed}")


def build_overrides(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the run of one objective changes in the configuration."""
    return {
        "objective": [{"name": name, **OBJECTIVES[name][1]}],
        "evaluation.evaluators": [{"name": "generation", "count": options.count}, {"name": "preference", "beta": 0.1}],
        "train.steps": options.steps,
        "train.seed": options.seed,
        "output": str(folder_of(name, options)),
    }


def train(name: str, options: argparse.Namespace) -> None:
    """Trains with one objective, or goes on with a run that was stopped."""
    mmalign.train(CONFIG, build_overrides(name, options), resume=folder_of(name, options).exists())


def read_results(options: argparse.Namespace) -> Results:
    """Reads the results of all finished runs with this budget and seed, by objective."""
    files = {name: folder_of(name, options) / "results.json" for name in OBJECTIVES}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def build_table(results: Results) -> str:
    """Builds the Markdown table: the start model, then one row an objective, best reward first."""
    lines = ["| objective | group | " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * len(COLUMNS) + "|"]
    start = next(iter(results.values()))["before"]
    lines.append("| *before* | | " + " | ".join(_cells(start)) + " |")
    for name in sorted(results, key=lambda name: -results[name]["after"]["generation/reward"]):
        lines.append(f"| `{name}` | {OBJECTIVES[name][0]} | " + " | ".join(_cells(results[name]["after"])) + " |")
    return "\n".join(lines) + "\n"


def _cells(metrics: dict[str, float]) -> list[str]:
    cells = {title: form.format(metrics[name]) for title, (name, form) in COLUMNS.items()}
    low, high = metrics["generation/reward_low"], metrics["generation/reward_high"]
    return list((cells | {"reward": f"{cells['reward']} ({low:.2f} to {high:.2f})"}).values())


def draw(results: Results) -> None:
    """Draws what every objective gains in reward against how far it moves from the reference."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    points = {"before": next(iter(results.values()))["before"]} | {name: run["after"] for name, run in results.items()}
    for name, metrics in points.items():
        distance, reward = metrics["generation/kl"], metrics["generation/reward"]
        interval = [[reward - metrics["generation/reward_low"]], [metrics["generation/reward_high"] - reward]]
        axes.errorbar(distance, reward, yerr=interval, fmt="o", capsize=2, elinewidth=0.6)
        axes.annotate(name, (distance, reward), xytext=(5, 4), textcoords="offset points", fontsize=9)
    axes.set_xlabel("KL(policy, reference) on sampled responses, nats a response")
    axes.set_ylabel("reward of sampled responses, 95 % interval over prompts")
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def write_page(results: Results) -> None:
    """Replaces what follows the marker in docs/studies/objectives.md by the table and the picture."""
    text = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    draw(results)
    PAGE.write_text(
        f"{text}{MARKER}\n\n{build_table(results)}\n![Reward against KL]({PICTURE.name})\n", encoding="utf-8"
    )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of 8 prompts, 2 pairs each")
    parser.add_argument("--count", type=int, default=2, help="responses sampled to each of the 48 held-out prompts")
    parser.add_argument("--seed", type=int, default=0, help="of data order, adapter and dropout")
    parser.add_argument("--output", default="runs/study", help="folder of the runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; writes the page after every objective, so that nothing is lost."""
    options = parse_options(arguments)
    for name in options.objectives:
        if name not in read_results(options):
            train(name, options)
        write_page(read_results(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
