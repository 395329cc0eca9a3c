"""Records of images that tests train diffusion models on: bright images are preferred to dark ones.

`write_image_feedback` turns the records of `feedback_records` into images: a digit of a response is a brightness.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feedback_records import build_records
from PIL import Image


def write_image(path: Path, brightness: float, seed: int, size: int = 8) -> Path:
    """Writes a grayscale image of noise around a brightness in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    values = (brightness + 0.1 * torch.randn(size, size, generator=generator)).clamp(0, 1)
    Image.fromarray((255 * values).round().to(torch.uint8).numpy()).save(path)
    return path


def image_record(id: str, prompt: str, images: Mapping[str, Path], **fields: Any) -> dict[str, Any]:
    """One prompt with an image for every `rid`, as a data file holds it; further fields as they are."""
    return {
        "id": id,
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        "media": [{"mid": rid, "type": "image", "uri": path.name} for rid, path in images.items()],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": [{"type": "image", "media": rid}]}]}
            for rid in images
        ],
        **fields,
    }


def write_image_pairs(folder: Path, count: int, classes: int = 3) -> Path:
    """Writes `count` records with a bright image that is preferred to a dark one."""
    rows = []
    for index in range(count):
        images = {
            "dark": write_image(folder / f"dark-{index}.png", 0.2, 2 * index),
            "bright": write_image(folder / f"bright-{index}.png", 0.8, 2 * index + 1),
        }
        pair = [{"kind": "pair", "order": [["bright"], ["dark"]]}]
        rows.append(image_record(f"p{index}", str(index % classes), images, labels=pair))
    return write_rows(folder / "pairs.jsonl", rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes rows as JSON lines and returns the file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_image_feedback(folder: Path, count: int) -> Path:
    """Writes the first records of `feedback_records` with images as responses; the best have most dark pixels."""
    rows = []
    for index, record in enumerate(build_records(count)):
        row = record.to_dict()
        images = {one.rid: _draw_digits(folder / f"{index}-{one.rid}.png", one.text) for one in record.responses}
        named = image_record(record.id, str(index % 3), images)
        rows.append({**row, **{key: named[key] for key in ("prompt", "media", "responses")}})
    return write_rows(folder / "feedback.jsonl", rows)


def _draw_digits(path: Path, digits: str, size: int = 8) -> Path:
    """Writes an image whose pixels are the digits 0 (black) to 3 (white), again and again."""
    values = np.resize(np.array([85 * int(digit) for digit in digits], dtype=np.uint8), (size, size))
    Image.fromarray(values).save(path)
    return path


def darkness(responses: Sequence[Image.Image]) -> list[float]:
    """A reward: how dark each image is, 0 to 1."""
    return [1 - float(np.asarray(image).mean()) / 255 for image in responses]
