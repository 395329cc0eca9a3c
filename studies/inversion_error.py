"""How far inversion lands from where it should, and how far its way back, for data whose denoiser is known exactly.

    python studies/inversion_error.py    # half a minute; the same numbers on every machine up to rounding

The data are N(0.4, 0.6^2), the noise schedule is that of Stable Diffusion, and numbers spread like the data are
inverted from t = 1 to t = 999 over evenly spaced levels. It writes the tables of docs/studies/inversion.md and the
picture beside them.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from mmalign_diffusion.gaussian_data import GaussianData
from mmalign_diffusion.inversion import invert, reconstruct
from mmalign_diffusion.renoise import DDIM_DESTINATION, DDIM_SOURCE, SMPO, NoiseRule, renoise
from mmalign_diffusion.schedules import read_schedule

matplotlib.use("svg")

import matplotlib.pyplot as plt

matplotlib.rcParams["svg.hashsalt"] = "mmalign"

FOLDER = Path(__file__).resolve().parents[1] / "docs/studies"
MARKER = "<!-- tables: written by studies/inversion_error.py -->"
SCHEDULE = read_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
DATA = GaussianData(0.4, 0.6, SCHEDULE)
FIRST, LAST, NUMBERS = 1, 999, 64
COUNTS = (4, 5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320)
SHOWN = (5, 10, 20, 40, 80, 160, 320)
PANELS = ("distance from the probability flow at t = 999", "distance from the start after inverting and denoising")

RULES: dict[str, NoiseRule | None] = {
    "source": DDIM_SOURCE,
    "destination": DDIM_DESTINATION,
    "averaged, source": replace(SMPO, told="source"),
    "averaged, destination": SMPO,
    "ReNoise, K = 2": renoise(2),
    "ReNoise, K = 5": renoise(5),
    "implicit": None,
}
"""Rules by the name that the picture gives them; the exact inverse of the sampler's step has none."""


def build_start() -> Tensor:
    """Builds the numbers at the first level, [NUMBERS, 1]: the middles of equally probable parts of the noisy data."""
    a, _ = SCHEDULE.coefficients(torch.tensor(FIRST))
    middles = (torch.arange(NUMBERS, dtype=torch.float64) + 0.5) / NUMBERS
    spread = DATA.variance(torch.tensor(FIRST)).sqrt()
    return (a * DATA.mean + spread * torch.special.ndtri(middles)).unsqueeze(1)


def run_inversion(start: Tensor, grid: Tensor, rule: NoiseRule | None) -> Tensor:
    """Inverts numbers [NUMBERS, 1] over the levels of a grid [NUMBERS, L + 1]."""
    if rule is not None:
        return invert(start, grid, SCHEDULE, lambda rows: DATA.denoise, rule)
    for now, then in zip(grid.unbind(1)[:-1], grid.unbind(1)[1:], strict=True):
        start = DATA.undo_step(start, now, then)
    return start


@functools.cache
def measure(count: int, name: str) -> tuple[float, float]:
    """Measures both distances of a rule in `count` steps, root mean square over the numbers, in the order of PANELS."""
    levels = [round(FIRST + index * (LAST - FIRST) / count) for index in range(count + 1)]
    start, grid = build_start(), torch.tensor([levels] * NUMBERS)
    found = run_inversion(start, grid, RULES[name])
    exact = DATA.transport(start, grid[:, 0], grid[:, -1])
    back = reconstruct(found, grid, SCHEDULE, lambda rows: DATA.denoise)
    return float((found - exact).square().mean().sqrt()), float((back - start).square().mean().sqrt())


def build_tables() -> str:
    """Builds one Markdown table a panel."""
    lines: list[str] = []
    for panel, title in enumerate(PANELS):
        lines += [f"**{title[0].upper()}{title[1:]}**", ""]
        lines += ["| rule | forwards a step | " + " | ".join(f"{count} steps" for count in SHOWN) + " |"]
        lines += ["|---|---:" + "|---:" * len(SHOWN) + "|"]
        for name, rule in RULES.items():
            errors = [measure(count, name)[panel] for count in SHOWN]
            # Below this it is rounding, which machines may do differently.
            cells = [f"{error:.2e}" if error > 1e-13 else "0" for error in errors]
            lines += [f"| {name} | {len(rule.weights) if rule else 'exact'} | " + " | ".join(cells) + " |"]
        lines += [""]
    return "\n".join(lines)


def draw(picture: Path) -> None:
    """Draws both distances against the number of steps."""
    figure, axes_of = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for panel, axes in enumerate(axes_of):
        for name, rule in RULES.items():
            if rule is not None or panel == 0:
                style = "k:" if rule is None else "--" if rule.told == "source" else "-"
                axes.loglog(COUNTS, [measure(count, name)[panel] for count in COUNTS], style, label=name, lw=1.4)
        axes.loglog(COUNTS, [1.5 / count for count in COUNTS], color="0.85", lw=5, zorder=0, label="1.5 / steps")
        axes.set_title(PANELS[panel], fontsize=10)
        axes.set_xlabel("steps of the inversion")
        axes.grid(alpha=0.3)
    axes_of[0].legend(fontsize=8)
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def main(folder: Path = FOLDER) -> int:
    """Draws the picture and replaces what follows the marker in the page."""
    page = folder / "inversion.md"
    text = page.read_text(encoding="utf-8").partition(MARKER)[0]
    draw(folder / "inversion_error.svg")
    page.write_text(
        f"{text}{MARKER}\n\n{build_tables()}\n![Errors of inversion](inversion_error.svg)\n", encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
