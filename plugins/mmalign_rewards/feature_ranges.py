"""Ranges that scale the inputs of a regression to [-1, 1], from the files of svm-scale or of the package brisque."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value [F] of each input in the training data."""

    minimum: Array
    maximum: Array

    def scale(self, inputs: Array) -> Array:
        """Maps inputs [F] linearly, their range to [-1, 1]; values outside of it are not clipped, as in svm-scale."""
        return -1 + 2 * (inputs - self.minimum) / (self.maximum - self.minimum)


def read_ranges(path: str, width: int, where: str) -> Ranges:
    """Reads the ranges that `svm-scale -s` writes, or the pickle of two lists `min_` and `max_` of the brisque package.

    Raises:
        ConfigError: they are not ranges of F inputs to [-1, 1].
    """
    limits = _read_pickle(path, where) if path.endswith((".pickle", ".pkl")) else _read_svm_scale(path, where)
    return check_ranges(*limits, width=width, path=path, where=where)


def _read_svm_scale(path: str, where: str) -> tuple[list[float], list[float]]:
    lines = [line.split() for line in read_text(path, where).splitlines() if line.strip()]
    try:
        if lines[0] != ["x"] or [float(bound) for bound in lines[1]] != [-1, 1]:
            raise ValueError("expected the first lines 'x' and '-1 1'")
        rows = {int(number): (float(low), float(high)) for number, low, high in lines[2:]}
        limits = [rows[number] for number in range(1, len(rows) + 1)]
    except (ValueError, KeyError, IndexError) as error:
        raise ConfigError(f"{where}: {path!r} is not written as svm-scale writes ranges: {error}") from error
    return [low for low, _ in limits], [high for _, high in limits]


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, numbers and texts; whatever would import or call something is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read_pickle(path: str, where: str) -> tuple[Any, Any]:
    try:
        data = _PlainUnpickler(io.BytesIO(_read_bytes(path, where))).load()
        if not isinstance(data, Mapping):
            raise ValueError(f"it holds a {type(data).__name__}")
        return data["min_"], data["max_"]
    except ConfigError:
        raise
    except (pickle.UnpicklingError, ValueError, KeyError, IndexError, TypeError, EOFError, AttributeError) as error:
        raise ConfigError(f"{where}: {path!r} does not hold lists min_ and max_ only: {error}") from error


def check_ranges(
    minimum: Sequence[float] | Array, maximum: Sequence[float] | Array, *, width: int, path: str, where: str
) -> Ranges:
    """Checks that there are `width` ranges, each from a smaller to a larger number; raises ConfigError."""
    try:
        low, high = np.asarray(minimum, dtype=np.float64), np.asarray(maximum, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {path!r} holds ranges that are no numbers") from error
    if low.shape != (width,) or high.shape != (width,) or not (high > low).all():
        raise ConfigError(f"{where}: {path!r} does not hold {width} ranges, each from a smaller to a larger number")
    return Ranges(low, high)


def _read_bytes(path: str, where: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path!r}: {error.strerror}") from error


def read_text(path: str, where: str) -> str:
    """Reads a file of text with any line ends; raises ConfigError."""
    try:
        return _read_bytes(path, where).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: {path!r} is no text") from error
