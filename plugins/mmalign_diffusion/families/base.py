"""What a model family says of itself: how its denoiser is loaded, conditioned, run and saved.

A family knows no objective, no noising and no sampler. It may hold frozen encoders (VAE, text encoders) beside the
denoiser; those are loaded on first use, never trained and never exported.

Shapes: B rows, C H W of pixels or latents; a family of other data than images has other trailing axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from mmalign import DataError, MediaLimits, Message, Parameters, Record, Response
from mmalign_diffusion.images import build_image, find_image, read_pixels

if TYPE_CHECKING:
    from mmalign_diffusion.config import Prediction
    from mmalign_diffusion.schedules import Schedule

Tensors = Mapping[str, Tensor]
"""Tensors of one response or, stacked along a first axis, of several, by name."""


class Family(ABC):
    """A model family. Built with `model`, `size` and the fields of its `parameters`.

    Attributes:
        parameters: the model that validates a family's own keys in the YAML.
        model: folder, hub id or whatever else the family's weights come from; None where the family needs none.
        size: (height, width) in pixels that images are brought to; None for the model's own.
        adapter: True if what `load` returns is frozen but for something that its `disable_adapter()` switches off.
    """

    parameters: ClassVar[type[Parameters]] = Parameters
    adapter: ClassVar[bool] = False

    def __init__(self, model: str | None, size: tuple[int, int] | None = None) -> None:
        self.model = model
        self.size = size

    # -- the denoiser

    @property
    def name(self) -> str:
        """Where the weights come from, for reports."""
        return self.model or type(self).__name__

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The noise levels that the model was trained with; known without weights."""

    @property
    @abstractmethod
    def prediction(self) -> Prediction:
        """What the denoiser's output is; known without weights."""

    @abstractmethod
    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Loads the denoiser alone on `device`; raises ConfigError if there is no such model.

        Frozen encoders follow on first use, to the same device.
        """

    def describe_network(self) -> str | None:
        """Returns what `build_skeleton` builds from, as text; None if that is not known without building it."""
        return None

    def build_skeleton(self) -> nn.Module | None:
        """Builds the denoiser without weights, to count parameters; None where only loading would tell."""
        return None

    def check_weights(self) -> int | None:
        """Looks at the files of all weights without loading them; raises ConfigError where one cannot be loaded.

        Returns:
            how many parameters the denoiser has, where its file tells; None where only `build_skeleton` does.
        """
        return None

    @abstractmethod
    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the denoiser.

        Args:
            network: what `load` returned, an adapter around it included.
            noisy: [B, ...] float32 noisy latents, all of one shape.
            timesteps: [B], as the network is given them (`Schedule.network_timesteps`).
            condition: what `embed` gave, `collate`d.

        Returns:
            the raw output, of the shape of `noisy`.
        """

    def save(self, network: nn.Module, directory: str) -> None:
        """Writes a whole denoiser, without an adapter, in the format that users load."""
        from safetensors.torch import save_model

        save_model(network, f"{directory}/model.safetensors")

    def save_adapter(self, network: nn.Module, directory: str) -> None:
        """Writes the adapter of a peft model; override it with the format of the family's pipelines."""
        cast(Any, network).save_pretrained(directory, save_embedding_layers=False)

    # -- conditions

    @abstractmethod
    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Reads a prompt without weights: unbatched tensors on the CPU; raises DataError with the record's id."""

    @property
    @abstractmethod
    def null_tokens(self) -> dict[str, Tensor] | None:
        """Tokens of the null condition, for guidance and for dropped prompts; None where the model has none."""

    def draw_tokens(self, tokens: Tensors, generator: Generator) -> Tensors:
        """Changes tokens at random for a record that is scored, the same for all of its responses; here not at all."""
        return tokens

    def embed(self, tokens: Sequence[Tensors]) -> list[dict[str, Tensor]]:
        """Turns tokens into what the denoiser reads, by the frozen encoders; where there are none, tokens as they are.

        Returns:
            one dictionary of unbatched tensors a row, on the CPU.
        """
        return [dict(one) for one in tokens]

    def collate(self, conditions: Sequence[Tensors]) -> dict[str, Tensor]:
        """Stacks conditions along a new first axis."""
        return {name: torch.stack([one[name] for one in conditions]) for name in conditions[0]}

    # -- data

    def draw_noised(self, shape: Sequence[int], generator: Generator) -> Tensor | None:
        """Draws which part of latents of a shape gets noise and is scored, where it is not all of them.

        Returns:
            bool, to be broadcast to `shape`; `predict` gets it as the condition `noised`. None for all.
        """
        return None

    def read(self, record: Record, response: Response, limits: MediaLimits) -> Tensor:
        """Reads what a response holds, without weights: pixels [C, H, W] in [-1, 1], float32, on the CPU.

        Raises:
            DataError: there is no such thing, or it cannot be read; the message names record and response.
        """
        return read_pixels(record, response, limits, size=self.size, channels=self.channels)

    def read_with_details(
        self, record: Record, response: Response, limits: MediaLimits
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads what `read` does, and what the denoiser is told of it beside the prompt; see `details`."""
        return self.read(record, response, limits), {}

    def details(self, latents: Sequence[int]) -> dict[str, Tensor]:
        """Returns what the denoiser is told of sampled latents of a shape beside the prompt, by name; here nothing.

        They join the condition in scoring. `predict` falls back on them where a condition has none, as in sampling.
        """
        return {}

    def write(self, pixels: Tensor) -> tuple[Response, Any]:
        """Turns sampled pixels [C, H, W] in [-1, 1] into a response, named `r0`, and what rewards see of it.

        The response names no image yet: whoever writes the record stores it and adds its name.
        """
        return Response(rid="r0", messages=(Message(role="assistant"),)), build_image(pixels)

    def decode(self, record: Record, response: Response, limits: MediaLimits) -> Any:
        """Reads what rewards see of a stored response: the image as it is stored."""
        return find_image(record, response, limits)

    @property
    def channels(self) -> int:
        """Channels of the pixels: 1 (grayscale) or 3 (RGB)."""
        return 3

    def to_latents(self, pixels: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Encodes pixels [B, C, H, W] as the latents that the denoiser works on, float32; here they are the pixels.

        Args:
            seeds: B of them, for an encoding that is drawn.
        """
        return pixels

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Decodes latents [B, ...] to pixels [B, C, H, W] in about [-1, 1], float32."""
        return latents

    @abstractmethod
    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """Returns the shape of the latents of pixels of a given shape [C, H, W], or of what is sampled; no weights."""

    def positions(self, latents: Sequence[int]) -> int:
        """Counts what of latents of a shape counts for the budget of a forward pass, e.g. H x W."""
        return prod(latents[1:]) if len(latents) > 1 else 1

    def fingerprint(self) -> str:
        """Names everything of the family that changes an encoding; part of cache keys."""
        return repr((type(self).__qualname__, self.model, self.size))


def input_dtype(network: nn.Module) -> torch.dtype:
    """Returns the dtype of a denoiser's own weights; those of an adapter are float32 whatever it is."""
    return next(value.dtype for name, value in network.named_parameters() if "lora_" not in name)


def switch_off_dropout(network: nn.Module) -> nn.Module:
    """Sets all dropout to 0, in place: a policy that is noisy differs from its reference before the first step."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def require_prompt(record: Record) -> str:
    """Returns the text of the prompt; raises DataError where it is empty."""
    text = record.prompt_text.strip()
    if not text:
        raise DataError(f"record {record.id!r}: the prompt has no text")
    return text
