"""Masked-autoregressive models of images: a transformer reads the known patches, a small head denoises the others.

An image is cut into patches, its tokens. Some are masked: they alone get noise, are scored, and are sampled. The
transformer sees the clean ones and gives every masked token a vector z; the head predicts the noise of a token from its
noisy value, the level and z, so that tokens of one forward pass are independent of each other given the known ones.

Source: MAR (arXiv:2406.11838), as LightGen (arXiv:2503.08619) uses it. Differs: patches of pixels and not latents of a
VAE, a number of a class in place of a text encoder, one encoder in place of encoder and decoder, no learned variance.

Shapes: B images [B, C, H, W] of L tokens; width D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from mmalign import ConfigError, DataError, Parameters, Record
from mmalign_diffusion.config import Prediction
from mmalign_diffusion.families.base import Family, Tensors, input_dtype, require_prompt
from mmalign_diffusion.families.custom import load_weights
from mmalign_diffusion.schedules import Schedule, read_schedule


class MaskedTokensParameters(Parameters):
    """The network; its weights are in `model`, a folder or a safetensors file, or random without it."""

    classes: int = Field(ge=1)
    """Classes; a prompt is the number of one. The null condition is one more, inside."""
    patch: int = Field(default=4, ge=1)
    """Side of a token in pixels."""
    channels: int = Field(default=1, ge=1, le=3)
    """1 (grayscale) or 3 (RGB)."""
    width: int = Field(default=64, ge=4)
    """Of the transformer."""
    depth: int = Field(default=2, ge=1)
    """Layers of the transformer."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; they divide the width."""
    head_width: int = Field(default=128, ge=4)
    """Of the denoising head."""
    least_masked: float = Field(default=0.7, gt=0, le=1)
    """Smallest share of tokens that is masked in training."""
    reveals: int = Field(default=8, ge=1)
    """Autoregressive steps of sampling; how many tokens remain masked falls with a cosine."""


class MaskedTokens(Family):
    """The family; see `MaskedTokensParameters`."""

    parameters: ClassVar[type[Parameters]] = MaskedTokensParameters
    prediction: Prediction = "epsilon"

    def __init__(self, model: str | None, size: tuple[int, int] | None = None, **settings: float) -> None:
        if size is None:
            raise ConfigError("modality.size: missing; masked tokens are patches of images of one size")
        super().__init__(model, size)
        self._settings = MaskedTokensParameters.model_validate(settings)
        if size[0] % self._settings.patch or size[1] % self._settings.patch:
            raise ConfigError(f"modality.size: {list(size)} is not a multiple of the patch, {self._settings.patch}")
        self.reveals = self._settings.reveals
        if self._settings.width % self._settings.heads:
            raise ConfigError(f"modality.family.heads: {self._settings.heads} do not divide the width")

    @cached_property
    def schedule(self) -> Schedule:
        """The cosine schedule of 1000 levels."""
        return read_schedule({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000})

    @property
    def channels(self) -> int:
        """Of the pixels."""
        return self._settings.channels

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Makes the network with the run's seed and puts the weights of `model` into it, if there are any."""
        network = self.build_skeleton()
        if self.model is not None:
            load_weights(network, self.model)
        return network.to(device, dtype).train()

    def build_skeleton(self) -> nn.Module:
        """Makes the network."""
        size = cast("tuple[int, int]", self.size)
        return MaskedDenoiser(self._settings, (size[0] // self._settings.patch) * (size[1] // self._settings.patch))

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the network; see `Family.predict`. Of clean tokens the output means nothing."""
        if "noised" not in condition:
            raise ConfigError("modality: masked tokens take `diffusion` with `noising.strategy: forward`, no other")
        output: Tensor = network(noisy.to(input_dtype(network)), timesteps, condition["class"], condition["noised"])
        return output

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Reads the class."""
        prompt, count = require_prompt(record), self._settings.classes
        if not prompt.isdecimal() or int(prompt) >= count:
            raise DataError(f"record {record.id!r}: expected the prompt to be a class below {count}, got {prompt!r}")
        return {"class": torch.tensor(int(prompt))}

    @property
    def null_tokens(self) -> dict[str, Tensor]:
        """The class behind the last."""
        return {"class": torch.tensor(self._settings.classes)}

    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """The network works on pixels of one size."""
        return (self.channels, *cast("tuple[int, int]", self.size))

    def draw_noised(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Draws which tokens are masked: [1, H, W] bool; a share from a normal around 1, cut off, as in MAR."""
        grid = [side // self._settings.patch for side in shape[-2:]]
        least = (self._settings.least_masked - 1) / _SHARE_STD
        quantiles = torch.special.ndtr(torch.tensor([least, 0.0], dtype=torch.float64))
        drawn = quantiles[0] + (quantiles[1] - quantiles[0]) * torch.rand((), generator=generator, dtype=torch.float64)
        share = 1 + _SHARE_STD * float(torch.special.ndtri(drawn))
        count = math.ceil(math.prod(grid) * share)
        rank = torch.randperm(math.prod(grid), generator=generator).reshape(1, *grid)
        return self.spread(rank < count)

    def spread(self, tokens: Tensor) -> Tensor:
        """Repeats a number a token [..., H / patch, W / patch] for all of its pixels [..., H, W]."""
        patch = self._settings.patch
        return tokens.repeat_interleave(patch, -2).repeat_interleave(patch, -1)

    def token_grid(self) -> tuple[int, int]:
        """Tokens of an image: (rows, columns)."""
        height, width = cast("tuple[int, int]", self.size)
        return height // self._settings.patch, width // self._settings.patch

    def fingerprint(self) -> str:
        """Adds patches and masks."""
        return repr((super().fingerprint(), self._settings.patch, self._settings.least_masked, self.channels))


_SHARE_STD = 0.25
"""Deviation of the share of masked tokens before it is cut off."""


class MaskedDenoiser(nn.Module):
    """Transformer and head of `count` tokens."""

    def __init__(self, settings: MaskedTokensParameters, count: int) -> None:
        super().__init__()
        self.patch = settings.patch
        entries = settings.channels * settings.patch**2
        width = settings.width
        self.embed = nn.Linear(entries, width)
        self.masked = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        self.classes = nn.Embedding(settings.classes + 1, width)
        layer = nn.TransformerEncoderLayer(
            width, settings.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, settings.depth, enable_nested_tensor=False)
        self.head = nn.Sequential(
            nn.Linear(entries + width + _FREQUENCIES * 2, settings.head_width),
            nn.SiLU(),
            nn.Linear(settings.head_width, settings.head_width),
            nn.SiLU(),
            nn.Linear(settings.head_width, entries),
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, classes: Tensor, noised: Tensor) -> Tensor:
        """Predicts the noise [B, C, H, W] of the tokens that are masked.

        Args:
            noisy: [B, C, H, W], masked tokens noisy, the others clean.
            timesteps: [B].
            classes: [B].
            noised: [B, 1, H, W] bool, True where a token is masked.
        """
        tokens = self._cut(noisy)  # [B, L, C patch patch]
        masked = self._cut(noised)[..., :1]  # [B, L, 1]
        seen = torch.where(masked, self.masked, self.embed(tokens)) + self.positions
        prompt = self.classes(classes)[:, None]
        z = self.transformer(torch.cat([prompt, seen + prompt], dim=1))[:, 1:]  # [B, L, D]
        level = _embed_level(timesteps).to(z)[:, None].expand(-1, z.shape[1], -1)
        return self._join(self.head(torch.cat([tokens, z, level], dim=-1)), noisy.shape)

    def _cut(self, images: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(images.float(), self.patch).flatten(2).mT.to(images.dtype)

    def _join(self, tokens: Tensor, shape: Sequence[int]) -> Tensor:
        grid = tokens.mT.reshape(shape[0], -1, shape[2] // self.patch, shape[3] // self.patch)
        return nn.functional.pixel_shuffle(grid, self.patch)


_FREQUENCIES = 16


def _embed_level(timesteps: Tensor) -> Tensor:
    """Sines and cosines of a timestep: [B, 2 frequencies], float32."""
    rates = torch.exp(torch.linspace(0, -math.log(1000), _FREQUENCIES, device=timesteps.device))
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
