"""Image classifiers from local weights: of torchvision, of timm, or a module of the user's own; and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mmalign import ConfigError, Parameters, suggest

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

Interpolation = Literal["nearest", "bilinear", "bicubic"]


class NetworkConfig(Parameters):
    """A classifier with its weights."""

    architecture: str
    """`torchvision:NAME`, `timm:NAME`, or a `torch.nn.Module` class of yours: `package.module:Class`, `file.py:Class`.

    Importing your class runs the code of its file, so name only what you trust as you trust a plugin."""
    weights: str
    """A `.safetensors` file, or a state dict that holds tensors only; nothing in it is run."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the architecture, e.g. `num_classes: 10`."""
    device: str | None = None
    """Where it computes, e.g. `cpu` or `cuda:1`; null takes this process's GPU if there is one."""


class PreprocessingConfig(Parameters):
    """Images as a classifier wants them; the defaults are those of most ImageNet models."""

    size: int = Field(default=224, ge=1)
    """Side of the square that the network sees, in pixels."""
    crop: float = Field(default=0.875, gt=0, le=1)
    """Part of the shorter side that the square covers, in the middle."""
    interpolation: Interpolation = "bilinear"
    """How images are resized."""
    mean: tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...] = (0.485, 0.456, 0.406)
    """Of values in [0, 1]: three numbers for a network that reads colours, one for one that reads grey."""
    std: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = (0.229, 0.224, 0.225)
    """What values are divided by, after the mean is taken off."""

    @model_validator(mode="after")
    def _check_channels(self) -> PreprocessingConfig:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError("mean: expected one or three numbers, and as many in std")
        if min(self.std) <= 0:
            raise ValueError("std: expected numbers above 0")
        return self


class ImageNetwork:
    """A frozen classifier and its preprocessing.

    Raises:
        ConfigError: it cannot be built, or its weights do not fit.
    """

    def __init__(self, config: NetworkConfig, preprocessing: PreprocessingConfig, where: str) -> None:
        import torch

        from mmalign_rewards.weights import find_device, load_weights

        self._device = find_device(config.device, f"{where}.device")
        self._preprocessing = preprocessing
        self._where = where
        # Weights that building draws must not shift the random numbers of training.
        with torch.random.fork_rng(devices=[]):
            network = build_network(config.architecture, config.arguments, f"{where}.architecture")
        try:
            network.load_state_dict(load_weights(config.weights, f"{where}.weights"))
        except RuntimeError as error:
            cause = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where}.weights: {config.weights!r} does not fit the network: {cause}") from error
        self._network = network.requires_grad_(False).eval().to(self._device)

    def compute_logits(self, images: Sequence[Image], batch_size: int) -> Tensor:
        """Returns logits [N, classes] of RGB images, float32, on the CPU."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                pixels = [prepare_image(image, self._preprocessing) for image in images[start : start + batch_size]]
                batch = torch.from_numpy(np.stack(pixels)).to(self._device)  # [B, C, H, W]
                parts.append(self._read_logits(self._network(batch)))
        return torch.cat(parts)

    def _read_logits(self, output: Any) -> Tensor:
        logits = getattr(output, "logits", output)
        if getattr(logits, "ndim", 0) != 2:
            got = f"shape {list(logits.shape)}" if hasattr(logits, "shape") else type(logits).__name__
            raise ConfigError(
                f"{self._where}.architecture: expected logits [images, classes] of the network, got {got}"
            )
        read: Tensor = logits.float().cpu()
        return read


def build_network(architecture: str, arguments: dict[str, Any], where: str) -> nn.Module:
    """Builds a network without weights.

    Raises:
        ConfigError: it is unknown, its library cannot be imported, or it refuses the arguments.
    """
    from torch import nn

    library, _, name = architecture.partition(":")
    try:
        if library == "torchvision":
            network = _build_torchvision(name, arguments, where)
        elif library == "timm":
            network = _build_timm(name, arguments, where)
        else:
            from mmalign_rewards.imported import load_callable

            network = load_callable(architecture, where)(**arguments)
    # A torchvision that does not fit the installed torch raises RuntimeError or OSError when it is imported.
    except (ImportError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"{where}: cannot build {architecture!r}: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{where}: {architecture!r} gives a value of type {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def _build_torchvision(name: str, arguments: dict[str, Any], where: str) -> Any:
    from torchvision import models

    if name not in models.list_models():
        raise ConfigError(f"{where}: unknown torchvision model {name!r}{suggest(name, models.list_models())}")
    return models.get_model(name, weights=None, **arguments)


def _build_timm(name: str, arguments: dict[str, Any], where: str) -> Any:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"{where}: unknown timm model {name!r}{suggest(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, **arguments)


def prepare_image(image: Image, preprocessing: PreprocessingConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Resizes an RGB image, cuts out its middle and normalises it: [C, size, size] float32."""
    from PIL import Image as images

    size = preprocessing.size
    shorter = round(size / preprocessing.crop)
    width, height = (side * shorter // min(image.size) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), images.Resampling[preprocessing.interpolation.upper()])
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    channels = len(preprocessing.mean)
    values = np.asarray(image if channels == 3 else image.convert("L"), dtype=np.float32) / 255
    mean, std = (np.asarray(numbers, dtype=np.float32) for numbers in (preprocessing.mean, preprocessing.std))
    normal = (values.reshape(size, size, channels) - mean) / std
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
