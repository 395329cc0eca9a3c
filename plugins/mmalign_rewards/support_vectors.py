"""Support vector regression with a radial kernel, as libsvm stores it, or as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign import ConfigError
from mmalign_rewards.feature_ranges import Ranges, check_ranges, read_text

Array = NDArray[np.float64]

_TENSORS = ("support_vectors", "coefficients", "rho", "gamma", "minimum", "maximum")


@dataclass(frozen=True)
class Regression:
    """f(x) = sum_i coefficient_i exp(-gamma |x - v_i|^2) - rho, of support vectors v [S, F]."""

    vectors: Array
    coefficients: Array
    rho: float
    gamma: float

    def predict(self, inputs: Array) -> float:
        """Returns f of scaled inputs [F]."""
        distances = ((self.vectors - inputs) ** 2).sum(axis=1)  # [S]
        return float(self.coefficients @ np.exp(-self.gamma * distances) - self.rho)


def read_libsvm(path: str, width: int, where: str) -> Regression:
    """Reads a model file of libsvm.

    Args:
        width: F, the number of inputs; those that a line leaves out are 0.
        where: the config key that named the file, for errors.

    Raises:
        ConfigError: it is no file of a regression with a radial kernel over at most F inputs.
    """
    head, _, body = read_text(path, where).partition("\nSV\n")
    keys = dict(line.partition(" ")[::2] for line in head.splitlines())
    kind = (keys.get("svm_type", ""), keys.get("kernel_type", ""))
    if kind[0] not in ("epsilon_svr", "nu_svr") or kind[1] != "rbf":
        raise ConfigError(
            f"{where}: {path!r} is no libsvm regression (svm_type epsilon_svr or nu_svr, kernel_type rbf)"
        )
    rows = [line.split() for line in body.splitlines() if line.strip()]
    vectors = np.zeros((len(rows), width))
    try:
        for place, row in enumerate(rows):
            for entry in row[1:]:
                column, _, value = entry.partition(":")
                if not 1 <= int(column) <= width:
                    raise ConfigError(f"{where}: {path!r} has input {column}; expected 1 to {width}")
                vectors[place, int(column) - 1] = float(value)
        coefficients = np.array([float(row[0]) for row in rows])
        rho, gamma, count = float(keys["rho"]), float(keys["gamma"]), int(keys["total_sv"])
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{where}: {path!r} is not written as libsvm writes models: {error}") from error
    if len(rows) != count or not rows:
        raise ConfigError(f"{where}: {path!r} has {len(rows)} support vectors, but announces {count}")
    return Regression(vectors, coefficients, rho, gamma)


def read_tensors(path: str, width: int, where: str) -> tuple[Regression, Ranges]:
    """Reads both out of safetensors: support_vectors [S, F], coefficients [S], rho, gamma, minimum [F], maximum [F].

    Raises:
        ConfigError: a tensor is missing or has another shape.
    """
    from mmalign_rewards.weights import load_weights

    tensors = {name: tensor.double().numpy() for name, tensor in load_weights(path, where).items()}
    missing = [name for name in _TENSORS if name not in tensors]
    if missing:
        raise ConfigError(f"{where}: {path!r} lacks {', '.join(missing)}")
    vectors, coefficients = tensors["support_vectors"], tensors["coefficients"]
    if vectors.ndim != 2 or vectors.shape[1] != width or coefficients.shape != vectors.shape[:1]:
        got = f"{list(vectors.shape)} and {list(coefficients.shape)}"
        raise ConfigError(f"{where}: expected support_vectors [S, {width}] and coefficients [S], got {got}")
    ranges = check_ranges(tensors["minimum"], tensors["maximum"], width=width, path=path, where=where)
    if tensors["rho"].size != 1 or tensors["gamma"].size != 1:
        raise ConfigError(f"{where}: expected one number as rho and one as gamma in {path!r}")
    return Regression(vectors, coefficients, tensors["rho"].item(), tensors["gamma"].item()), ranges
