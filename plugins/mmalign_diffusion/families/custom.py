"""A denoiser of your own: any module with a noise schedule, made by a function that the configuration names.

    def build() -> Denoiser:
        return Denoiser(network=MyNetwork(), schedule=VariancePreserving(levels), shape=(8, 2), condition=read_goal)

    modality: {name: diffusion, family: {name: custom, target: "my_package.my_module:build"}}

What a response holds is a vector or an array of numbers, as JSON in its text, unless `read` and `write` say otherwise.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from mmalign import ConfigError, DataError, MediaLimits, Parameters, Record, Response
from mmalign_diffusion.config import Prediction
from mmalign_diffusion.families.base import Family, Tensors, input_dtype
from mmalign_diffusion.schedules import Schedule, read_schedule

_NUMBERS: TypeAdapter[Any] = TypeAdapter(list[FiniteFloat] | list[list[FiniteFloat]] | list[list[list[FiniteFloat]]])


def _no_condition(record: Record) -> dict[str, Tensor]:
    return {}


@dataclass
class Denoiser:
    """A network and what the modality has to know of it.

    Attributes:
        network: called as `network(noisy, timesteps, **condition)`; returns a tensor of the shape of `noisy`, or
            something that has it as `sample`.
        schedule: the noise levels it was trained with, or the settings of a diffusers scheduler.
        shape: of one latent, without the batch.
        prediction: what the network's output is.
        condition: reads a prompt: unbatched tensors, the keyword arguments of the network; raises DataError.
        null: these for no condition, for guidance; None where the network has none.
        read: turns a stored response into a tensor of `shape`; None for numbers as JSON.
        write: turns such a tensor into a response named `r0` and what rewards see; None for numbers as JSON.
    """

    network: nn.Module
    schedule: Schedule | Mapping[str, Any]
    shape: tuple[int, ...]
    prediction: Prediction = "epsilon"
    condition: Callable[[Record], dict[str, Tensor]] = _no_condition
    null: Mapping[str, Tensor] | None = None
    read: Callable[[Record, Response], Tensor] | None = None
    write: Callable[[Tensor], tuple[Response, Any]] | None = None


class CustomParameters(Parameters):
    """Where the denoiser comes from."""

    target: str
    """Import string `package.module:function` of what makes a `Denoiser`; `__main__:function` for one of a script."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of that function."""


@dataclass
class Custom(Family):
    """The family of what `target` makes; `model` is an optional safetensors file of weights."""

    parameters: ClassVar[type[Parameters]] = CustomParameters

    model: str | None = None
    size: tuple[int, int] | None = None
    target: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._denoiser = self._build()

    @property
    def name(self) -> str:
        """The weights' file, or the function."""
        return self.model or self.target

    @property
    def schedule(self) -> Schedule:
        """The denoiser's."""
        schedule = self._denoiser.schedule
        return schedule if isinstance(schedule, Schedule) else read_schedule(schedule)

    @property
    def prediction(self) -> Prediction:
        """The denoiser's."""
        return self._denoiser.prediction

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Makes the denoiser anew, with the run's seed, and puts the weights of `model` into it, if there are any."""
        self._denoiser = self._build()
        network = self._denoiser.network
        if self.model is not None:
            load_weights(network, self.model)
        return network.to(device, dtype).train()

    def build_skeleton(self) -> nn.Module:
        """Makes the denoiser."""
        return self._build().network

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the network; see `Family.predict`."""
        output = network(noisy.to(input_dtype(network)), timesteps, **condition)
        result: Tensor = getattr(output, "sample", output) if not isinstance(output, Tensor) else output
        return result

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """What the denoiser's `condition` reads."""
        return self._denoiser.condition(record)

    @property
    def null_tokens(self) -> dict[str, Tensor] | None:
        """The denoiser's `null`."""
        return None if self._denoiser.null is None else dict(self._denoiser.null)

    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """The denoiser's `shape`."""
        return tuple(self._denoiser.shape)

    def read(self, record: Record, response: Response, limits: MediaLimits) -> Tensor:
        """Reads the numbers of a response."""
        where = f"record {record.id!r}, response {response.rid!r}"
        own = self._denoiser.read
        values = own(record, response) if own else torch.tensor(_parse(response, where), dtype=torch.float32)
        if tuple(values.shape) != self.latent_shape():
            raise DataError(f"{where}: expected numbers of shape {self.latent_shape()}, got {tuple(values.shape)}")
        return values.float()

    def write(self, pixels: Tensor) -> tuple[Response, Any]:
        """Writes numbers as JSON, exactly; rewards see the nested list."""
        if self._denoiser.write:
            return self._denoiser.write(pixels)
        numbers = pixels.float().tolist()
        return Response.from_text("r0", json.dumps(numbers)), numbers

    def decode(self, record: Record, response: Response, limits: MediaLimits) -> Any:
        """Returns the nested list of numbers, or what `write` makes of what `read` has read."""
        pixels = self.read(record, response, limits)
        return self._denoiser.write(pixels)[1] if self._denoiser.write else pixels.tolist()

    def fingerprint(self) -> str:
        """Names the function and its arguments."""
        return repr((type(self).__qualname__, self.target, sorted(self.arguments.items()), self._denoiser.shape))

    def _build(self) -> Denoiser:
        key = "modality.family.target"
        try:
            build = pkgutil.resolve_name(self.target)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"{key}: cannot import {self.target!r}: {error}; expected 'package.module:name'"
            ) from None
        denoiser = build(**self.arguments)
        if not isinstance(denoiser, Denoiser):
            raise ConfigError(f"{key}: {self.target!r} returned a {type(denoiser).__name__}; expected a Denoiser")
        return denoiser


def _parse(response: Response, where: str) -> Any:
    try:
        return _NUMBERS.validate_json(response.text)
    except ValidationError:
        raise DataError(f"{where}: expected an array of numbers as JSON, e.g. [[0.1, 0.2]]") from None


def load_weights(network: nn.Module, model: str) -> None:
    """Puts the weights of a safetensors file, or of the one in a folder, into a network."""
    file = Path(model).expanduser()
    file = file / "model.safetensors" if file.is_dir() else file
    try:
        load_model(network, file)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"modality.model: {model!r} does not fit this network: {reason}") from None
