"""A plugin file of studies/digits_alignment.py: keeps every image's scores, and the images themselves, over a run."""

from __future__ import annotations

import json
from typing import Any

from mmalign import hookimpl

COLUMNS, ROWS = 10, 10


@hookimpl
def on_evaluated(run: Any) -> None:
    """Appends the scores of all images to `gain.jsonl`, and draws the first 100 as `images/step-00015.png`."""
    evaluator = run.assembly.evaluators["gain"]
    with (run.output / "gain.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": run.step, **evaluator.scores}) + "\n")
    folder = run.output / "images"
    folder.mkdir(exist_ok=True)
    draw_tiles(evaluator.outputs[: COLUMNS * ROWS]).save(folder / f"step-{run.step:05d}.png")


def draw_tiles(images: list[Any]) -> Any:
    """Draws images of one size side by side, ten in a row."""
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new("L", (COLUMNS * width, -(-len(images) // COLUMNS) * height))
    for place, image in enumerate(images):
        sheet.paste(image, (place % COLUMNS * width, place // COLUMNS * height))
    return sheet
