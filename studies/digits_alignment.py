"""Aligns the embedded digit model with nine settings of five methods from the same start and compares what holds up.

    python studies/digits_alignment.py                                  # all of it; what is finished is kept
    python studies/digits_alignment.py --methods diffusion_dpo inpo     # some of it
    python studies/digits_alignment.py --seeds 0                        # one training seed instead of three

Model, pairs, rewards, batch and rate are those of `configs/diffusion/`. A finished run is not trained again, so
the command may be stopped and started anew. It writes the tables of docs/studies/digits.md, the picture and the contact
sheets beside it. Reading order: `METHODS`, `train`, then digits_curves.py, digits_page.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits_curves import FINISHED, Curve, read_curve
from digits_page import write_page

import mmalign

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs/diffusion"

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "diffusion_dpo": ("diffusion_dpo", {}),
    "diffusion_dpo, beta 50": ("diffusion_dpo", {"objective": [{"name": "diffusion_dpo", "beta": 50}]}),
    "diffusion_dpo, beta 5000": ("diffusion_dpo", {"objective": [{"name": "diffusion_dpo", "beta": 5000}]}),
    "diffusion_dpo + sft": (
        "diffusion_dpo",
        {"objective": [{"name": "diffusion_dpo", "beta": 500}, {"name": "sft", "weight": 100}]},
    ),
    "inpo": ("inpo", {}),
    "inpo, reference inverts": ("inpo", {"modality.noising.network": "reference"}),
    "smpo": ("smpo", {}),
    "mapo": ("mapo", {}),
    "diffusion_kto": ("diffusion_kto", {}),
}
"""The configuration of every method, and what the study changes in it."""


def folder_of(method: str, seed: int, options: argparse.Namespace) -> Path:
    """The run's folder; another budget or seed is another run."""
    name = "".join(letter if letter.isalnum() else "_" for letter in method)
    return Path(options.output, f"{name}-{options.steps}-{seed}")


def train(method: str, seed: int, options: argparse.Namespace) -> None:
    """Trains with one method and seed; a run that was stopped half-way starts anew, it takes minutes."""
    config, overrides = METHODS[method]
    folder = folder_of(method, seed, options)
    shutil.rmtree(folder, ignore_errors=True)
    changes = {
        **overrides,
        "plugins": ["configs/diffusion/digit_rewards.py", "studies/digit_log.py"],
        "evaluation.every": options.every,
        "evaluation.evaluators": [{"name": "gain"}],
        "data.eval.limit": 300,
        "decoding.max_steps": 10,
        "train.steps": options.steps,
        "train.seed": seed,
        "output": str(folder),
    }
    if mmalign.train(CONFIGS / f"{config}.yaml", changes).interrupted:
        raise KeyboardInterrupt
    (folder / FINISHED).touch()


def read_curves(options: argparse.Namespace) -> dict[str, list[Curve]]:
    """Reads all finished runs with this budget, by method, one curve a seed."""
    curves = {
        method: [
            read_curve(folder)
            for seed in options.seeds
            if ((folder := folder_of(method, seed, options)) / FINISHED).is_file()
        ]
        for method in METHODS
    }
    return {method: runs for method, runs in curves.items() if runs}


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of data order, noise and timesteps")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of 32 pairs")
    parser.add_argument("--every", type=int, default=15, help="steps between evaluations")
    parser.add_argument("--output", default="runs/digits-study", help="folder of the runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, one seed of all methods after the other; writes the page after every run."""
    options = parse_options(arguments)
    for seed in options.seeds:
        for method in options.methods:
            if not (folder_of(method, seed, options) / FINISHED).is_file():
                train(method, seed, options)
            write_page(read_curves(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
