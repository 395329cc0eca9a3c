"""CLIP models that rewards score images with: which one a config names, and features of images and texts in batches.

`clip_open` loads the models of open_clip, `clip_transformers` those that transformers saves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakValueDictionary

from pydantic import Field

from mmalign import ConfigError, Parameters

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

Precision = Literal["fp32", "fp16", "bf16"]
Item = TypeVar("Item")

_LOADED: WeakValueDictionary[ClipConfig, ClipModel] = WeakValueDictionary()
_HUB_PREFIX = "hf-hub:"


class ClipConfig(Parameters):
    """A CLIP model."""

    model: str = Field(min_length=1)
    """Folder of a transformers CLIP or with `open_clip_config.json`, open_clip architecture, or id of a hub."""
    pretrained: str | None = None
    """Weights of an open_clip architecture: a tag of open_clip, which it downloads, or a local `.safetensors` file."""
    precision: Precision = "fp32"
    """Of the forward pass; features are normalised in float32."""
    device: str | None = None
    """Where it computes, e.g. `cpu` or `cuda:1`; null takes this process's GPU if there is one."""


class ClipModel(ABC):
    """A frozen CLIP.

    Attributes:
        width: D, size of the space that images and texts share.
        logit_scale: factor of the cosine that it was trained with, exp of the stored weight.
    """

    width: int
    logit_scale: float

    @abstractmethod
    def embed_images(self, images: Sequence[Image]) -> Tensor:
        """Returns the features [B, D] of RGB images, as the model gives them."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Returns the features [B, D] of texts, cut to the context of the model."""


def load_clip(config: ClipConfig, where: str) -> ClipModel:
    """Loads the model that a config names, once for all rewards that name it alike.

    A folder is told by what is in it. Of names, one with `hf-hub:` is a model of open_clip on the hub, another one with
    a slash a transformers model there, and the rest are architectures of open_clip.

    Args:
        where: the config key of `config`, for errors.

    Raises:
        ConfigError: there is no such model, a part of it is missing, it cannot be had without a network, or the library
            that reads it is not installed.
    """
    loaded = _LOADED.get(config)
    if loaded is None:
        loaded = _LOADED[config] = _load(config, where)
    return loaded


def _load(config: ClipConfig, where: str) -> ClipModel:
    folder = Path(config.model)
    is_open = (folder / "open_clip_config.json").is_file()
    if folder.is_dir() and not is_open and not (folder / "config.json").is_file():
        expected = "expected open_clip_config.json or config.json in it"
        raise ConfigError(f"{where}.model: folder {config.model!r} holds no CLIP; {expected}")
    if is_open or not (folder.is_dir() or _is_transformers_id(config.model)):
        from mmalign_rewards.clip_open import OpenClip

        return OpenClip(config, where)
    if config.pretrained is not None:
        raise ConfigError(
            f"{where}.pretrained: only for an open_clip architecture; {config.model!r} has its own weights"
        )
    from mmalign_rewards.clip_transformers import TransformersClip

    return TransformersClip(config, where)


def _is_transformers_id(model: str) -> bool:
    return "/" in model and not model.startswith(_HUB_PREFIX)


def compute_features(embed: Callable[[Sequence[Item]], Tensor], items: Sequence[Item], batch_size: int) -> Tensor:
    """Embeds images or texts, `batch_size` at a time, without gradient; returns features [N, D] in float32 on the CPU.

    Args:
        embed: a method of `ClipModel`.
    """
    import torch

    with torch.no_grad():
        starts = range(0, len(items), batch_size)
        return torch.cat([embed(items[start : start + batch_size]).float().cpu() for start in starts])


def compute_cosines(clip: ClipModel, images: Sequence[Image], texts: Sequence[str], batch_size: int) -> Tensor:
    """Returns the cosine [N] of each image with its text; equal texts are embedded once."""
    from torch.nn.functional import normalize

    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    of_texts = normalize(compute_features(clip.embed_texts, list(rows), batch_size), dim=1)  # [texts, D]
    of_images = normalize(compute_features(clip.embed_images, images, batch_size), dim=1)  # [N, D]
    return (of_images * of_texts[[rows[text] for text in texts]]).sum(dim=1)


def read_dtype(precision: Precision) -> torch.dtype:
    """Returns the torch type of a precision."""
    import torch

    types: dict[Any, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return types[precision]
