"""Records whose prompts show an image or play a sound, for tests of models that read these."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from multimodal_models import Family
from PIL import Image
from tiny_media import SOUND_RATE, tiny_image, tiny_sound

from mmalign import Record

COLOURS = {"red": (230, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 230)}
QUESTION = "What is this?"


def media_of(family: Family) -> str:
    """The type of content parts that a family reads beside text."""
    return "audio" if family == "qwen2_audio" else "image"


def write_media(folder: Path, kind: str, seed: int) -> Path:
    """Writes a random image, or a random sound of 0.6 s, once."""
    path = folder / f"{kind}-{seed}.{'png' if kind == 'image' else 'wav'}"
    if path.exists():
        return path
    if kind == "image":
        tiny_image(seed, (28, 28) if seed % 2 else (42, 28)).save(path)
        return path
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes((tiny_sound(seed, 0.6) * 32767).astype("<i2").tobytes())
    return path


def media_row(
    id: str, paths: Sequence[Path], answers: Sequence[str], *, kind: str, text: str = QUESTION
) -> dict[str, Any]:
    """A record as a data file holds it: images or sounds and a question, with answers `r0`, `r1`, ..., best first."""
    shown = [{"type": kind, "media": f"m{number}"} for number in range(len(paths))]
    return {
        "id": id,
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}],
        "media": [{"mid": f"m{number}", "type": kind, "uri": str(path)} for number, path in enumerate(paths)],
        "responses": [
            {"rid": f"r{rank}", "messages": [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]}
            for rank, answer in enumerate(answers)
        ],
        "labels": [{"kind": "pair", "order": [["r0"], ["r1"]]}] if len(answers) > 1 else [],
    }


def media_record(folder: Path, kind: str, seeds: Sequence[int], answers: Sequence[str], text: str = QUESTION) -> Record:
    """A record that shows the media of these seeds; without any it is text alone."""
    paths = [write_media(folder, kind, seed) for seed in seeds]
    return Record.from_dict(media_row(f"{seeds}{text}", paths, answers, kind=kind, text=text))


def write_colour_pairs(folder: Path, count: int) -> Path:
    """Writes pairs that only an image tells apart: the name of its colour is preferred to that of another one."""
    names, generator = list(COLOURS), np.random.default_rng(0)
    rows = []
    for index in range(count):
        right, wrong = names[index % 3], names[(index + 1 + index // 3 % 2) % 3]
        pixels = np.clip(np.array(COLOURS[right]) + generator.integers(-20, 20, (28, 28, 3)), 0, 255)
        path = folder / f"colour-{index}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        rows.append(media_row(f"p{index}", [path], [right, wrong], kind="image", text="Which colour?"))
    file = folder / "colours.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
