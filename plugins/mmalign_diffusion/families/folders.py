"""Folders of diffusers models: where they are, and what their settings say, without weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmalign import ConfigError
from mmalign_diffusion.config import Prediction

PACKAGE = "package:"
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched of a model on the hub, at most."""

_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    "sample": "sample",
    "flow_prediction": "flow",
}


def find_folder(
    model: str | None, key: str = "modality.model", files: Sequence[str] = FILES, skipped: Sequence[str] = ()
) -> Path:
    """Finds a model's folder: a local one, `package:NAME/FOLDER` inside an installed package, or one of the hub.

    Args:
        key: the setting that names the model, for errors.
        files: patterns of what is fetched from the hub.
        skipped: patterns of what is not, even so.

    Raises:
        ConfigError: there is none.
    """
    if model is None:
        raise ConfigError(f"{key}: missing; expected a folder or a hub id")
    if model.startswith(PACKAGE):
        return _find_in_package(model, key)
    path = Path(model).expanduser()
    return path if path.is_dir() else _fetch(model, key, files, skipped)


def read_settings(folder: Path, name: str, key: str = "modality.model") -> dict[str, Any]:
    """Reads a JSON file of settings, e.g. `unet/config.json`; raises ConfigError if it is not there or not JSON."""
    try:
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{key}: {folder} holds no {name} ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"{key}: {folder / name} is not JSON") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{key}: {folder / name}: expected an object, got {type(settings).__name__}")
    return settings


def find_settings(folder: Path, names: Sequence[str], key: str = "modality.model") -> str:
    """Returns the first of several files that a folder holds; raises ConfigError where it holds none."""
    for name in names:
        if (folder / name).is_file():
            return name
    raise ConfigError(f"{key}: {folder} holds none of {', '.join(names)}")


def read_prediction(scheduler: dict[str, Any]) -> Prediction:
    """Reads off a scheduler's settings what the denoiser predicts; raises ConfigError for another word."""
    if str(scheduler.get("_class_name", "")).startswith("FlowMatch") or scheduler.get("use_flow_sigmas"):
        return "flow"
    name = scheduler.get("prediction_type", "epsilon")
    if name not in _PREDICTIONS:
        raise ConfigError(f"scheduler.prediction_type: unknown {name!r}; known: {', '.join(_PREDICTIONS)}")
    return _PREDICTIONS[name]


def _find_in_package(model: str, key: str) -> Path:
    package, _, inner = model.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    for root in found.submodule_search_locations or () if found else ():
        if inner and (Path(root) / inner).is_dir():
            return Path(root) / inner
    raise ConfigError(f"{key}: {model!r}: no installed package {package!r} with a folder {inner!r}")


def _fetch(model: str, key: str, files: Sequence[str], skipped: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(files), ignore_patterns=list(skipped)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        tried = "a folder of that name, the local hub cache and the hub"
        raise ConfigError(f"{key}: cannot find a model {model!r}; tried {tried}: {reason}") from None
