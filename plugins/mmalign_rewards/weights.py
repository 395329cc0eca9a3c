"""Weights of frozen networks from local files: safetensors, or state dicts that hold tensors only."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmalign import ConfigError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_DISTRIBUTED = "module."

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What the readers of safetensors and torch raise over files that hold something else."""


def load_weights(path: str, where: str) -> dict[str, Tensor]:
    """Reads tensors by name, on the CPU.

    Other files than safetensors are read with `weights_only`, so nothing in them is run. A state dict that stands under
    `state_dict`, `model` or `model_state_dict` is found there, and the prefix of data-parallel training is taken off.

    Args:
        where: the config key that named the file, for errors.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{where}: there is no file {path!r}")
    try:
        loaded = _read(path)
    except UNREADABLE as error:
        cause = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: cannot read weights from {path!r}: {cause}") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ConfigError(f"{where}: {path!r} does not hold tensors by name, but a {type(loaded).__name__}")
    return {str(name).removeprefix(_DISTRIBUTED): value for name, value in loaded.items()}


def _read(path: str) -> Any:
    if path.endswith(".safetensors"):
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def find_device(name: str | None, where: str) -> torch.device:
    """Returns the device of a config; of null, this process's GPU if there is one, else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # Of a device that torch was built without it raises AssertionError or NotImplementedError.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(f"{where}: no device {name!r} here: {cause}") from error
    return device
