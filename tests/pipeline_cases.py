"""Families and pipelines of tiny folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from mmalign_diffusion.config import FamilyComponent
from mmalign_diffusion.families import find_family
from mmalign_diffusion.modality import Diffusion

CPU = torch.device("cpu")
FAMILIES = ("stable_diffusion", "sdxl", "sd3", "flux", "pixart")
LENGTHS = {"sd3": 12, "flux": 12, "pixart": 12}
PROMPT = "a red cat"


def options(name: str) -> dict[str, Any]:
    return {"text_length": LENGTHS[name]} if name in LENGTHS else {}


def build_family(folder: Path, name: str, **more: Any) -> Any:
    return find_family(name)(str(folder), (16, 16), **{"cache": False, **options(name), **more})


def build_modality(folder: Path, name: str, *, family: dict[str, Any] | None = None, **fields: Any) -> Diffusion:
    component = FamilyComponent(name=name, cache=False, **options(name), **(family or {}))
    return Diffusion(family=component, model=str(folder), size=16, **fields)


def load_pipeline(folder: Path) -> Any:
    index = json.loads((folder / "model_index.json").read_text())
    missing = {name: None for name, value in index.items() if value == [None, None]}
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(folder, **missing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
