"""What both diffusion modalities share: the family, loading and saving, decoding, and how sampling is cut into parts.

Shapes: P prompts; latents are [B, ...].
"""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from mmalign import (
    ConfigError,
    Decoding,
    EncodedResponse,
    Generated,
    LoRAParameters,
    Modality,
    Model,
    Record,
    Response,
    add_lora,
    quiet_loading,
    remember_counts,
)
from mmalign_diffusion.config import FamilyComponent, Prediction
from mmalign_diffusion.decoding import DiffusionDecoding, as_diffusion
from mmalign_diffusion.families import find_family
from mmalign_diffusion.families.base import Family, Tensors
from mmalign_diffusion.prediction import Conditions, Denoising, pick
from mmalign_diffusion.randomness import digest_seed, draw_seed, record_seed


@dataclass(frozen=True)
class Request:
    """A response that is to be sampled.

    Attributes:
        prompt: the place of its prompt.
        place: its own place among the responses to it.
        seed: of its noise.
        group: a seed that the responses to a prompt have in common.
        draw: likewise, of what is drawn to score them; another one in every call.
    """

    prompt: int
    place: int
    seed: int
    group: int
    draw: int


@dataclass(eq=False)
class DenoiserModality(Modality):
    """A denoiser of some family. The fields are those of `BaseConfig`, which says what they mean.

    Attributes:
        family: a component of the configuration; in Python, also a `Family`.
    """

    adapter_parameters: ClassVar[frozenset[str]] = frozenset({"lora"})

    family: FamilyComponent | Family
    model: str | None = None
    prediction: Prediction | None = None
    size: int | tuple[int, int] | None = None
    guidance: float = 1.0
    lora: LoRAParameters | None = None
    generation_batch_size: int = 16

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if isinstance(self.family, Family):
            self.network_family = self.family
        else:
            self.network_family = find_family(self.family.name)(self.model, size, **self.family.own)
        self.adapter = self.lora is not None or self.network_family.adapter
        if self.lora is not None and self.network_family.adapter:
            raise ConfigError("modality.lora: what this family trains is an adapter already; drop it")
        self._check_guidance(self.guidance, "modality.guidance")

    def denoising(self, network: nn.Module) -> Denoising:
        """Joins a network with what its output means."""
        return Denoising(self.network_family, network, self.output_kind)

    @property
    def output_kind(self) -> Prediction:
        """What the denoiser's output is: `prediction`, or what the family says."""
        return self.prediction or self.network_family.prediction

    # -- loading and saving

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Loads the denoiser, with a fresh adapter if one is configured."""
        network = self.network_family.load(device=device, dtype=dtype)
        if self.lora is not None:
            network = add_lora(network, self.lora, name=self.network_family.name).to(device)
        return Model(network, name=self.network_family.name)

    def parameter_counts(self) -> tuple[int, int] | None:
        """Counts (all, trained) parameters of the denoiser, without its weights."""
        stored = self.network_family.check_weights()
        if stored is not None and self.lora is None:
            return stored, stored
        description = self.network_family.describe_network()
        if description is None:
            return self._count_parameters()
        facts = (type(self.network_family).__qualname__, repr(self.lora), description)
        return remember_counts(facts, self._count_parameters)

    def _count_parameters(self) -> tuple[int, int] | None:
        network = self.network_family.build_skeleton()
        if network is None:
            return None
        network = network if self.lora is None else add_lora(network, self.lora)
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
        return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)

    def save(self, model: Model, directory: str) -> None:
        """Writes the adapter, or the whole denoiser, in the family's format."""
        with quiet_loading(local=True):
            if self.adapter:
                self.network_family.save_adapter(model.network, directory)
            else:
                self.network_family.save(model.network, directory)

    def save_merged(self, model: Model, directory: str) -> None:
        """Writes the whole denoiser with the adapter merged in. Needs memory for a second copy."""
        network: Any = model.network
        if self.lora is not None:
            # Merging and taking apart again would round the weights that go on training.
            network = copy.deepcopy(network).merge_and_unload()
        with quiet_loading(local=True):
            self.network_family.save(network, directory)

    # -- encoding and decoding

    def decode(self, record: Record, response: Response) -> Any:
        """Returns what rewards see of a stored response: an image, or what else the family decodes."""
        return self.network_family.decode(record, response, self.media_limits)

    def describe(self, record: Record, response: Response) -> str:
        """Returns the text of a response; of an image its name, if it has one."""
        parts = [part for message in response.messages for part in message.content]
        return "".join(f"<{part.type} {part.media}>" if part.text is None else part.text for part in parts)

    def render(self, encoded: EncodedResponse) -> list[tuple[str, bool]]:
        """Lists the tokens of the prompt and the timesteps that the response is scored at."""
        tokens = [f"{name} {value.tolist()}" for name, value in pick(encoded.tensors, "token").items()]
        return [(", ".join(tokens), False), (f" timesteps {encoded.tensors['timesteps'].tolist()}", True)]

    def fingerprint(self) -> str:
        """Hashes the family's settings and what else changes an encoding."""
        parts = repr((self.network_family.fingerprint(), self.prediction, self.encoding_settings()))
        return f"{type(self).__qualname__}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"

    @abstractmethod
    def encoding_settings(self) -> tuple[Any, ...]:
        """Returns the settings of the modality, beside the family's, that change an encoding."""

    # -- sampling

    @torch.no_grad()
    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples `count` responses to every prompt; see `Modality.generate`."""
        settings = as_diffusion(decoding)
        self._check_guidance(self.find_guidance(settings), "decoding.guidance")
        requests = self._request(records, count, settings)
        generated: list[Generated] = []
        for part in _cut(requests, self.prompts_per_draw(count) * count, self.generation_batch_size):
            generated += self.sample_part(network, records, part, settings)
        return [generated[first : first + count] for first in range(0, len(generated), count)]

    def prompts_per_draw(self, count: int) -> int:
        """As many prompts as are sampled at the same time; their noise does not depend on others."""
        return max(1, self.generation_batch_size // count)

    @abstractmethod
    def sample_part(
        self, network: nn.Module, records: Sequence[Record], part: Sequence[Request], decoding: DiffusionDecoding
    ) -> list[Generated]:
        """Samples some responses at the same time."""

    def find_guidance(self, decoding: DiffusionDecoding) -> float:
        """Returns the guidance of sampling: the decoding's, or the modality's."""
        return self.guidance if decoding.guidance is None else decoding.guidance

    def embed_prompts(self, tokens: Sequence[Tensors], guidance: float) -> Conditions:
        """Embeds the prompts of rows, each distinct one once, and the null condition where guidance needs it."""
        family = self.network_family
        # Rows of one prompt hold the very same tensors.
        keys = [tuple(map(id, one.values())) for one in tokens]
        distinct = dict(zip(keys, tokens, strict=True))
        embedded = dict(zip(distinct, family.embed(list(distinct.values())), strict=True))
        given = [embedded[key] for key in keys]
        if guidance == 1:
            return Conditions(given)
        null = family.embed([cast(Tensors, family.null_tokens)])[0]
        return Conditions(given, [null] * len(tokens), guidance)

    def _request(self, records: Sequence[Record], count: int, decoding: DiffusionDecoding) -> list[Request]:
        requests = []
        for prompt, record in enumerate(records):
            # Prompt by prompt, so that a call that is cut between prompts draws the same.
            group = draw_seed() if decoding.seed is None else digest_seed(decoding.seed, record_seed(record))
            # Noise that is repeated must not repeat the levels that are trained at.
            draw = group if decoding.seed is None else draw_seed()
            for place in range(count):
                seed = draw_seed() if decoding.seed is None else digest_seed(group, place)
                requests.append(Request(prompt, place, seed, group, draw))
        return requests

    def _check_guidance(self, guidance: float, key: str) -> None:
        if guidance != 1 and self.network_family.null_tokens is None:
            raise ConfigError(f"{key}: {guidance}, but this model has no null condition to compare with; set it to 1")


def _cut(requests: Sequence[Request], unit: int, size: int) -> Iterator[Sequence[Request]]:
    """Cuts requests into parts of whole prompts; the responses to one prompt may need several parts."""
    for first in range(0, len(requests), unit):
        whole = requests[first : first + unit]
        yield from (whole[start : start + size] for start in range(0, len(whole), size))
