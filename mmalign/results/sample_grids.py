"""Held-out samples of a run that are images: those of its start beside those of now, step after step.

`samples/start/<digest>.png` is what the start model made of a record; `samples/step-000010.png` shows the start beside
step 10, a row for each prompt.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.data.records import Media, Record
from mmalign.media.contact_sheet import ContactSheet, save_png
from mmalign.media.images import open_image
from mmalign.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = "samples"


def write_grid(run: Run, rows: Sequence[tuple[Record, Image]]) -> None:
    """Writes the grid of this step and shows it in trackers; at step 0 it keeps the images as those of the start."""
    folder = run.output / SAMPLES
    if run.step == 0:
        for record, image in rows:
            save_png(image, start_file(folder, record))
    sheet = ContactSheet(("start", f"step {run.step}") if run.step else ("start",))
    for record, image in rows:
        sheet.add(record.prompt_text, [_read_start(folder, record), image] if run.step else [image])
    sheet.save(_grid_file(folder, run.step))
    run.log.write_image(run.step, SAMPLES, sheet.draw())


def copy_grids(run: Run, directory: Path) -> list[tuple[str, str]]:
    """Copies the first grid and that of this step into a folder of their own in `directory`.

    Returns:
        (title, path in `directory`) of each; empty if the run wrote none.
    """
    found = [(step, _grid_file(run.output / SAMPLES, step)) for step in sorted({0, run.step})]
    copied = []
    for step, file in found:
        if file.is_file():
            (directory / SAMPLES).mkdir(exist_ok=True)
            shutil.copyfile(file, directory / SAMPLES / file.name)
            copied.append((f"start and step {step}" if step else "start", f"{SAMPLES}/{file.name}"))
    return copied


def start_file(folder: Path, record: Record) -> Path:
    """Names the file of what the start model made of a record; ids may hold anything, so it is a digest."""
    return folder / "start" / f"{hashlib.sha256(record.id.encode()).hexdigest()[:12]}.png"


def _grid_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.png"


def _read_start(folder: Path, record: Record) -> Image | None:
    file = start_file(folder, record)
    return open_image(Media(mid="start", type="image", uri=str(file)), where=SAMPLES) if file.is_file() else None
