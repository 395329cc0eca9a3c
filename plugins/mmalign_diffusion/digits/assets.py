"""The trained networks as files: a folder that diffusers reads, and one folder for each classifier.

`folder/unet`, `folder/scheduler`: config and safetensors as diffusers writes them; `folder/reward`, `folder/judge`:
`model.safetensors`; `folder/training.json`: what made them. Weights are float16 on the disk.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from mmalign import ConfigError
from mmalign_diffusion.digits.networks import DigitClassifier, build_scheduler

ASSETS = Path(__file__).with_name("assets")
"""The folder that ships with the package."""

ClassifierName = Literal["reward", "judge"]

_WEIGHTS = "model.safetensors"
_SUMMARY = "training.json"


def save_denoiser(network: Any, folder: Path) -> None:
    """Writes a UNet2DModel in float16 and its scheduler."""
    copy.deepcopy(network).half().save_pretrained(folder / "unet")
    build_scheduler().save_pretrained(folder / "scheduler")


def load_denoiser(folder: Path = ASSETS) -> Any:
    """Loads the UNet2DModel in float32, in evaluation mode."""
    from diffusers import UNet2DModel

    return UNet2DModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, local_files_only=True).eval()


def save_classifier(network: DigitClassifier, name: ClassifierName, folder: Path) -> None:
    """Writes a classifier in float16."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    weights = {key: value.to(torch.float16).contiguous() for key, value in network.state_dict().items()}
    save_file(weights, folder / name / _WEIGHTS)


@lru_cache(maxsize=4)
def load_classifier(name: ClassifierName, folder: Path = ASSETS) -> DigitClassifier:
    """Loads a classifier in float32, in evaluation mode, without gradients.

    Raises:
        ConfigError: there is none of that name.
    """
    file = folder / name / _WEIGHTS
    if not file.is_file():
        raise ConfigError(f"digits: no classifier {name!r} in {folder}; expected 'reward' or 'judge'")
    network = DigitClassifier()
    network.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    return network.eval().requires_grad_(False)


def save_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Writes what made the networks and how good they are."""
    (folder / _SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def load_summary(folder: Path = ASSETS) -> dict[str, Any]:
    """Reads what `save_summary` wrote."""
    summary: dict[str, Any] = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    return summary
