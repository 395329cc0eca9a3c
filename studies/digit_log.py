"""A plugin file of studies/digits_alignment.py: what every evaluation of a run leaves behind, image by image."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from mmalign import hookimpl
from mmalign_diffusion.parametrisation import align, target

COLUMNS, ROWS = 10, 10
LEVELS = (100, 300, 500, 700, 900)


@hookimpl
def on_evaluated(run: Any) -> None:
    """Appends scores and errors to `gain.jsonl`, and draws the first 100 images as `images/step-00015.png`."""
    evaluator = run.assembly.evaluators["gain"]
    chosen, rejected = denoising_errors(run)
    row = {"step": run.step, **evaluator.scores, "chosen_errors": chosen, "rejected_errors": rejected}
    with (run.output / "gain.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    folder = run.output / "images"
    folder.mkdir(exist_ok=True)
    draw_tiles(evaluator.outputs[: COLUMNS * ROWS]).save(folder / f"step-{run.step:05d}.png")


@torch.no_grad()
def denoising_errors(run: Any) -> tuple[list[float], list[float]]:
    """Computes the squared error of the policy on the chosen and rejected images of the held-out pairs.

    Always of the same images with the same random noise, however the method trains: a mean over five noise levels.
    """
    modality = run.assembly.modality
    family = modality.network_family
    records = [record for record in run.held_out if record.labels]
    conditions = modality.embed_prompts([family.tokenise(record) for record in records], 1.0)
    denoising = modality.denoising(run.backend.unwrapped.network)
    errors = []
    for side in (0, 1):
        images = [record.responses[record.pair_indices()[0][side]] for record in records]
        read = zip(records, images, strict=True)
        clean = torch.stack([family.read(record, image, modality.media_limits) for record, image in read])
        errors.append(torch.stack([_error(denoising, clean, level, conditions) for level in LEVELS]).mean(0).tolist())
    return errors[0], errors[1]


def _error(denoising: Any, clean: Tensor, level: int, conditions: Any) -> Tensor:
    """Computes the error [B] at one level; images of one place get the same noise in every call."""
    levels = torch.full((len(clean),), level)
    a, b = denoising.family.schedule.coefficients(levels)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(level))
    noisy = (align(a, clean) * clean + align(b, clean) * noise).float()
    wanted = target(denoising.prediction, clean, noise, a, b)
    return (denoising.output(noisy, levels, conditions) - wanted).square().flatten(1).mean(1)


def draw_tiles(images: list[Any]) -> Any:
    """Draws images of one size side by side, ten in a row."""
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new("L", (COLUMNS * width, -(-len(images) // COLUMNS) * height))
    for place, image in enumerate(images):
        sheet.paste(image, (place % COLUMNS * width, place // COLUMNS * height))
    return sheet
