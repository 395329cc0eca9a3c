"""Brings held-out real digits to a noise level and samples them back: by inversion, and by noise drawn at random.

    python studies/reconstruct_digits.py        # minutes on two CPU cores

The embedded denoiser of `mmalign_diffusion` has not seen these digits. Both ways end at the same level and go back with
the same deterministic sampler over the same levels, so they differ in the noisy image alone. It writes the table of
docs/studies/reconstruction.md and the picture beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from mmalign_diffusion.digits.assets import ASSETS, load_denoiser
from mmalign_diffusion.digits.data import Digits, load_parts
from mmalign_diffusion.inversion import invert, level_plan, reconstruct
from mmalign_diffusion.parametrisation import to_epsilon
from mmalign_diffusion.renoise import DDIM_DESTINATION, DDIM_SOURCE, SMPO, Denoise, NoiseRule, renoise
from mmalign_diffusion.schedules import Schedule, read_schedule

matplotlib.use("svg")


import matplotlib.pyplot as plt

PAGE = Path(__file__).resolve().parents[1] / "docs/studies/reconstruction.md"
PICTURE = PAGE.with_suffix(".png")
MARKER = "<!-- table: written by studies/reconstruct_digits.py -->"

LEVELS = (99, 199, 299, 399, 499, 599, 699, 799, 899)
FORWARD = "random noise"
RULES: dict[str, NoiseRule] = {
    "inversion, source": DDIM_SOURCE,
    "inversion, destination": DDIM_DESTINATION,
    "inversion, averaged (SmPO)": SMPO,
    "ReNoise, 4 iterations": renoise(4),
}
"""Ways to find the noise of an inversion step."""


def restore(digits: Digits, network: Any, schedule: Schedule, way: str, level: int, count: int) -> Tensor:
    """Brings digits [N, 1, 16, 16] in [0, 1] to a level and samples them back; `count` steps lead to the last level."""

    def select(rows: Tensor) -> Denoise:
        return lambda noisy, timesteps: predict_noise(network, schedule, noisy, timesteps, digits.labels[rows])

    clean = 2 * digits.pixels - 1
    targets = torch.full((len(digits),), level)
    plan = level_plan(targets, count=count, steps=schedule.steps)
    if way == FORWARD:
        a, b = schedule.coefficients(targets[:1])
        generator = torch.Generator().manual_seed(0)
        noisy = float(a) * clean + float(b) * torch.randn(clean.shape, generator=generator)
    else:
        noisy = invert(clean, plan, schedule, select, RULES[way])
    return ((reconstruct(noisy, plan, schedule, select) + 1) / 2).clamp(0, 1).float()


def predict_noise(network: Any, schedule: Schedule, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
    """Computes the noise that the denoiser, which predicts velocities, finds in images [B, 1, 16, 16]."""
    a, b = schedule.coefficients(timesteps)
    return to_epsilon(network(noisy, timesteps, labels).sample, noisy, a, b, "v_prediction")


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Computes the peak signal-to-noise ratio of every image in dB, [N]; pixels are in [0, 1]."""
    return -10 * (images - truth).flatten(1).square().mean(1).clamp(min=1e-10).log10()


def build_table(ratios: dict[str, dict[int, Tensor]], levels: Sequence[int]) -> str:
    """Builds the Markdown table: mean PSNR of every way at every level, with its 95 % interval over images."""
    lines = [
        "| noisy image | " + " | ".join(f"t = {level}" for level in levels) + " |",
        "|---" + "|---:" * len(levels) + "|",
    ]
    for way, own in ratios.items():
        cells = (
            f"{own[level].mean():.1f} ± {1.96 * own[level].std() / len(own[level]) ** 0.5:.1f}" for level in levels
        )
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: dict[str, Tensor], level: int) -> None:
    """Draws ten digits and what became of them."""
    figure, panels = plt.subplots(len(rows), 1, figsize=(7, 0.95 * len(rows)), layout="constrained")
    for panel, (title, images) in zip(panels, rows.items(), strict=True):
        panel.imshow(torch.cat(list(images[:, 0]), dim=1), cmap="gray_r", vmin=0, vmax=1)
        panel.set_title(title if title == "held-out digits" else f"{title}, t = {level}", fontsize=8)
        panel.axis("off")
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restores the digits from every level in every way and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="steps to the last level")
    parser.add_argument("--digits", type=int, default=100, help="held-out digits")
    parser.add_argument("--shown", type=int, default=599, choices=LEVELS, help="level of the picture")
    options = parser.parse_args(arguments)
    held_out = load_parts().held_out
    every = len(held_out) // options.digits
    digits = held_out.rows(torch.arange(options.digits) * every)
    network = load_denoiser()
    schedule = read_schedule(json.loads((ASSETS / "scheduler/scheduler_config.json").read_text(encoding="utf-8")))
    ratios: dict[str, dict[int, Tensor]] = {}
    shown = {"held-out digits": digits.pixels[:: len(digits) // 10][:10]}
    with torch.no_grad():
        for way in (FORWARD, *RULES):
            images = {level: restore(digits, network, schedule, way, level, options.count) for level in LEVELS}
            ratios[way] = {level: psnr(image, digits.pixels) for level, image in images.items()}
            shown[way] = images[options.shown][:: len(digits) // 10][:10]
    draw(shown, options.shown)
    text = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    table = build_table(ratios, LEVELS)
    PAGE.write_text(f"{text}{MARKER}\n\n{table}\n![What became of ten digits]({PICTURE.name})\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
