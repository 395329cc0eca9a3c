"""CLIP models of open_clip: an architecture with weights, a local folder, or a model of the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmalign import ConfigError, suggest
from mmalign_rewards.clip_models import ClipConfig, ClipModel, read_dtype
from mmalign_rewards.weights import UNREADABLE, find_device

if TYPE_CHECKING:
    from PIL.Image import Image


class OpenClip(ClipModel):
    """A frozen CLIP of open_clip with its evaluation transform and its tokenizer.

    Raises:
        ConfigError: see `load_clip`.
    """

    def __init__(self, config: ClipConfig, where: str) -> None:
        open_clip = _import_open_clip(where)
        name = f"local-dir:{config.model}" if Path(config.model).is_dir() else config.model
        _check_names(open_clip, name, config, where)
        self._device = find_device(config.device, f"{where}.device")
        self._dtype = read_dtype(config.precision)
        options = {"pretrained": config.pretrained, "precision": config.precision, "device": self._device}
        try:
            with _quiet_root(), torch.random.fork_rng(devices=[]):
                network, self._transform = open_clip.create_model_from_pretrained(name, **options)
                self._tokenizer = open_clip.get_tokenizer(name)
        except UNREADABLE as error:
            weights = f" with {config.pretrained!r}" if config.pretrained else ""
            cause = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where}.model: cannot load {config.model!r}{weights}: {cause}") from error
        self._network: Any = network.requires_grad_(False).eval()
        with torch.no_grad():
            self.width = int(self.embed_texts(["a"]).shape[1])
        self.logit_scale = float(self._network.logit_scale.exp())

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        """Returns features [B, D] of RGB images."""
        pixels = torch.stack([self._transform(image) for image in images])  # [B, 3, H, W]
        features: Tensor = self._network.encode_image(pixels.to(self._device, self._dtype))
        return features

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Returns features [B, D] of texts, cut to the context of the model."""
        features: Tensor = self._network.encode_text(self._tokenizer(list(texts)).to(self._device))
        return features


def _import_open_clip(where: str) -> Any:
    try:
        import open_clip
    # A torchvision that does not fit the installed torch raises RuntimeError or OSError.
    except (ImportError, RuntimeError, OSError) as error:
        mend = 'pip install "mmalign[rewards]", or name the folder of a transformers CLIP'
        raise ConfigError(f"{where}.model: open_clip cannot be imported ({error}); {mend}") from error
    return open_clip


def _check_names(open_clip: Any, name: str, config: ClipConfig, where: str) -> None:
    if ":" in name:
        if config.pretrained is not None:
            raise ConfigError(f"{where}.pretrained: only for an architecture; {config.model!r} has its own weights")
        return
    known = open_clip.list_models()
    if name not in known:
        raise ConfigError(f"{where}.model: {name!r} is no folder and no open_clip architecture{suggest(name, known)}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if config.pretrained is None:
        raise ConfigError(f"{where}.pretrained: missing; a tag ({', '.join(tags)}) or a .safetensors file for {name!r}")
    if config.pretrained.endswith(".safetensors"):
        if not Path(config.pretrained).is_file():
            raise ConfigError(f"{where}.pretrained: there is no file {config.pretrained!r}")
    elif config.pretrained not in tags:
        hint = suggest(config.pretrained, tags)
        raise ConfigError(
            f"{where}.pretrained: {config.pretrained!r} is no tag of {name!r} and no .safetensors file{hint}"
        )


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Keeps open_clip, which logs to the root, from configuring the logging of a run that has none."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
