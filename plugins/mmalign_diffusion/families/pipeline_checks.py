"""Whether a folder holds the pipeline that a family is for, and whether its parts fit together; needs no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmalign import ConfigError
from mmalign_diffusion.families.folders import read_settings

PIPELINES: Mapping[str, tuple[str, ...]] = {
    "stable_diffusion": ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "LatentConsistencyModelPipeline"),
    "sdxl": ("StableDiffusionXLPipeline",),
    "sd3": ("StableDiffusion3Pipeline",),
    "flux": ("FluxPipeline",),
    "pixart": ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    "class_unet": ("DDPMPipeline", "DDIMPipeline"),
}
"""Classes of pipelines by family."""

_INDEX = "model_index.json"


def read_index(folder: Path, family: str) -> dict[str, Any]:
    """Reads `model_index.json`; raises ConfigError where there is none, or one of another family, which is named."""
    if not (folder / _INDEX).is_file() and (folder / "config.json").is_file():
        own = read_settings(folder, "config.json").get("_class_name", "network of transformers")
        hint = "; its family is class_unet" if own == "UNet2DModel" else ""
        raise ConfigError(f"modality.model: {folder} holds one {own}, not a pipeline with a {_INDEX}{hint}")
    index = read_settings(folder, _INDEX)
    check_pipeline(folder, index, family)
    return index


def check_pipeline(folder: Path, index: Mapping[str, Any], family: str) -> None:
    """Raises ConfigError where a pipeline is one of another family."""
    name = index.get("_class_name")
    known = PIPELINES[family]
    if name is None or name in known:
        return
    other = next((one for one, classes in PIPELINES.items() if name in classes), None)
    choice = f"its family is {other}" if other else f"expected {' or '.join(known)}"
    raise ConfigError(f"modality.family: {family}, but {folder} holds a {name}; {choice}")


def find_class_name(folder: Path, index: Mapping[str, Any], part: str) -> tuple[str | None, str | None]:
    """Returns library and class of a part as `model_index.json` names them, (None, None) for none."""
    found = index.get(part) or [None, None]
    if not isinstance(found, list) or len(found) != 2:
        raise ConfigError(f"modality.model: {folder / _INDEX}: {part}: expected [library, class], got {found!r}")
    return found[0], found[1]


def check_part(folder: Path, index: Mapping[str, Any], part: str, expected: str, renamed: Sequence[str] = ()) -> None:
    """Raises ConfigError where a part of a pipeline is of another class than the one that would be loaded."""
    library, name = find_class_name(folder, index, part)
    if name is not None and name not in (expected, *renamed):
        raise ConfigError(f"modality.model: {folder} has a {name} (of {library}) as {part}; expected {expected}")


def check_channels(place: str, got: int, latents: int, each: int = 1) -> None:
    """Raises ConfigError where a denoiser reads another number of channels than latents have, times `each`."""
    if got != latents * each:
        kinds = "; one that reads more, for inpainting, depth, control or editing, is not supported"
        raise ConfigError(
            f"{place}: in_channels: {got}, but the autoencoder gives {latents * each}{kinds if got > latents else ''}"
        )


def check_width(place: str, name: str, got: Any, widths: Sequence[int | None]) -> None:
    """Raises ConfigError where a denoiser reads texts of another width than those of the encoders, side by side."""
    given = sum(width for width in widths if width is not None)
    wanted = set(got) if isinstance(got, list) else {got}
    if None not in widths and wanted != {given}:
        raise ConfigError(f"{place}: {name}: {got}, but the text encoders give {given}")


def read_sides(value: Any, place: str) -> tuple[int, int] | None:
    """Reads (height, width) of a setting that is a number, a pair, or null."""
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, list) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f"{place}: sample_size: expected a number or [height, width], got {value!r}")
    return sides[0], sides[1]
