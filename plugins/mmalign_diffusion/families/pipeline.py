"""What families of diffusers pipelines share: a denoiser, an autoencoder and text encoders, each in a subfolder.

    MODEL/model_index.json                       classes of the parts
    MODEL/unet/ or transformer/                  the denoiser, which is trained
    MODEL/vae/, text_encoder*/, tokenizer*/      frozen, loaded on first use
    MODEL/scheduler/scheduler_config.json        the schedule

Shapes: B rows, C channels of latents, H W of pixels, h w of latents.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, MediaLimits, Parameters, Record, Response
from mmalign_diffusion.buckets import bucket_sizes, nearest_bucket
from mmalign_diffusion.caches import IMAGES, PROMPTS, EncodingCache
from mmalign_diffusion.families.autoencoder import Autoencoder
from mmalign_diffusion.families.base import Tensors, require_prompt, switch_off_dropout
from mmalign_diffusion.families.class_settings import read_network, read_scheduler
from mmalign_diffusion.families.components import Component, find_class
from mmalign_diffusion.families.finite import ImagePlaces, require_finite
from mmalign_diffusion.families.folders import find_folder, read_settings
from mmalign_diffusion.families.lora_export import export_lora
from mmalign_diffusion.families.pipeline_checks import check_channels, check_part, read_index, read_sides
from mmalign_diffusion.families.scheduled import ScheduledFamily
from mmalign_diffusion.families.text_encoders import TextEncoder
from mmalign_diffusion.images import crop_corner, find_image, fit_pixels
from mmalign_diffusion.randomness import digest_seed, draw_noise, seeded

VARIANTS = ("*/*.*.safetensors",)
"""Patterns of weights that are a variant of the plain ones."""
_SCHEDULER = "scheduler/scheduler_config.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "stored": None}


class PipelineParameters(Parameters):
    """Which parts of a pipeline are used, and how."""

    denoiser: str | None = None
    """Folder of a denoiser that takes the place of the pipeline's own, e.g. `merged` of a run."""
    variant: str | None = None
    """Which files of weights, e.g. `fp16`; default the plain ones, or what there is."""
    encoder_dtype: Literal["stored", "float32", "bfloat16", "float16"] = "stored"
    """What frozen encoders compute in; default what their weights are stored in."""
    posterior: Literal["mode", "sample"] = "mode"
    """Latents of an image: the mean of what the autoencoder says, or drawn from it, the same for the same noise."""
    buckets: bool = False
    """Bring images to one of several sizes with as many pixels as `size`, by their aspect ratio, and not to `size`."""
    bucket_step: int = Field(default=64, ge=1)
    """Sides of such sizes are multiples of this many pixels."""
    cache: bool = True
    """Keep encoded images and prompts on the disk: each is encoded once, in this run and in later ones."""


class PipelineFamily(ScheduledFamily):
    """A text-to-image pipeline of diffusers. A subclass names its parts, embeds prompts and calls the denoiser.

    Attributes:
        folder: of the pipeline.
        options: the family's own keys.
        settings: of the denoiser, with the defaults of its class.
        family: its name.
        part: subfolder of the denoiser.
        denoiser_class: class of the denoiser.
        earlier_classes: names that this class had.
        denoiser_values: settings of the denoiser, beside those of its class, that the family honours with these values.
        autoencoder_settings: those of the autoencoder that the pipeline reads beside `scaling_factor`.
        pipeline_class: class of the pipeline, whose format adapters are exported in; None for that of peft.
        encoder_names: suffixes of its text encoders.
        default_sample_size: side of the latents, where the denoiser's class knows no such setting.
        image_cache: encodes images; it counts.
        prompt_cache: encodes prompts; it counts.
    """

    parameters: ClassVar[type[Parameters]] = PipelineParameters
    family: ClassVar[str]
    part: ClassVar[str] = "transformer"
    denoiser_class: ClassVar[str]
    earlier_classes: ClassVar[tuple[str, ...]] = ()
    denoiser_values: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    autoencoder_settings: ClassVar[tuple[str, ...]] = ()
    pipeline_class: ClassVar[str | None] = None
    encoder_names: ClassVar[tuple[str, ...]] = ("",)
    default_sample_size: ClassVar[int] = 64

    def __init__(self, model: str | None, size: tuple[int, int] | None = None, **options: Any) -> None:
        self.options = cast(Any, self.parameters.model_validate(options))
        self.folder = find_folder(
            model,
            files=fetched_files(self.part, self.options.variant),
            skipped=() if self.options.variant else VARIANTS,
        )
        self.index = read_index(self.folder, self.family)
        self.scheduler = read_scheduler(
            read_settings(self.folder, _SCHEDULER), f"modality.model: {self.folder / _SCHEDULER}"
        )
        self._denoiser = self._find_denoiser()
        self.settings = self._read_denoiser()
        dtype = DTYPES[self.options.encoder_dtype]
        check_part(self.folder, self.index, "vae", "AutoencoderKL")
        self.autoencoder = Autoencoder(
            Component(self.folder / "vae", self.options.variant), dtype, self.autoencoder_settings
        )
        self.encoders = [
            TextEncoder(self.folder, self.index, suffix, self.options.variant, dtype)
            for suffix in self.encoder_names
            if self.reads_through(suffix)
        ]
        self._images = ImagePlaces()
        keep = self.options.cache
        self.image_cache = EncodingCache(IMAGES, self.autoencoder.describe, keep=keep)
        self.prompt_cache = EncodingCache(PROMPTS, self._describe_prompts, keep=keep)
        super().__init__(model, size or self._find_size())
        self._check_sizes()
        self.check_settings()

    @property
    def granularity(self) -> int:
        """Sides of images are multiples of this many pixels."""
        return self.autoencoder.factor * int(self.settings.get("patch_size") or 1)

    # -- the denoiser

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Loads the denoiser from safetensors, without dropout; frozen encoders follow to the same device."""
        self.check_weights()
        for frozen in (self.autoencoder, *self.encoders):
            frozen.device = device
        network = self._denoiser.load("diffusers", self.denoiser_class, dtype)
        return switch_off_dropout(network).to(device).train()

    def check_weights(self) -> None:
        """Looks at the files of the denoiser, the autoencoder and the text encoders; see `Family.check_weights`."""
        components = [self._denoiser, *(one.component for one in (self.autoencoder, *self.encoders))]
        for component in components:
            _ = component.stored_dtype
        wanted = self.options.variant
        if wanted is not None and all(component.chosen[0] != wanted for component in components):
            raise ConfigError(f"modality.family.variant: {wanted!r}, but no part of {self.folder} has such weights")

    def build_skeleton(self) -> nn.Module:
        """Builds the denoiser from its settings, without memory for weights."""
        with torch.device("meta"):
            network: nn.Module = find_class("diffusers", self.denoiser_class, "modality.family").from_config(
                self._denoiser.settings
            )
        return network

    def save(self, network: nn.Module, directory: str) -> None:
        """Writes a folder that `from_pretrained` of the denoiser's class, and `denoiser` of this family, load."""
        cast(Any, network).save_pretrained(directory)

    def save_adapter(self, network: nn.Module, directory: str) -> None:
        """Writes what the pipeline's `load_lora_weights` reads; peft's format where it has none."""
        if self.pipeline_class is None:
            super().save_adapter(network, directory)
        else:
            export_lora(network, directory, pipeline=self.pipeline_class, part=self.part)

    # -- prompts

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Turns the prompt into the tokens of every text encoder."""
        return self.tokenise_text(require_prompt(record))

    @abstractmethod
    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Turns a text, which may be empty, into unbatched tokens."""

    @property
    def has_null_condition(self) -> bool:
        """Returns whether guidance may compare with the empty prompt; here it may."""
        return True

    @cached_property
    def null_tokens(self) -> dict[str, Tensor] | None:
        """Tokens of the empty prompt; None where there is no null condition."""
        return self.tokenise_text("") if self.has_null_condition else None

    def reads_through(self, suffix: str) -> bool:
        """Says whether a text encoder is used; here all are."""
        return True

    @abstractmethod
    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """Runs the text encoders on tokens of B prompts: what the denoiser reads, each with a first axis B."""

    def embed(self, tokens: Sequence[Tensors]) -> list[dict[str, Tensor]]:
        """Encodes prompts that were not encoded before; see `Family.embed`."""

        def encode(places: list[int]) -> list[dict[str, Tensor]]:
            encoded = self.encode_prompts(self.collate([tokens[place] for place in places]))
            return [{name: values[row] for name, values in encoded.items()} for row in range(len(places))]

        return self.prompt_cache.encode(tokens, encode)

    # -- images

    def read(self, record: Record, response: Response, limits: MediaLimits) -> Tensor:
        """Reads pixels; see `Family.read`."""
        return self.read_with_details(record, response, limits)[0]

    def read_with_details(
        self, record: Record, response: Response, limits: MediaLimits
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads an image, brought to the family's size or to that of its bucket."""
        image = find_image(record, response, limits)
        size = nearest_bucket(image.height, image.width, self.buckets) if self.options.buckets else self._size
        corner = crop_corner(image.height, image.width, size)
        pixels = fit_pixels(image, size=size, channels=self.channels)
        self._images.note(pixels, f"record {record.id!r}, response {response.rid!r}")
        return pixels, self.describe_image((image.height, image.width), corner, size)

    def describe_image(
        self, original: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Returns what the denoiser is told of an image beside the prompt: here nothing.

        Args:
            original: (height, width) before it was scaled.
            corner: (top, left) of what was cut off, once it was scaled.
            size: (height, width) of its pixels.
        """
        return {}

    @cached_property
    def buckets(self) -> list[tuple[int, int]]:
        """The sizes (height, width) that images are brought to with `buckets`."""
        return bucket_sizes(self._size[0] * self._size[1], self.options.bucket_step)

    def to_latents(self, pixels: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Encodes images that were not encoded before; the posterior's mean, or with seeds a draw from it."""
        vae = self.autoencoder

        def encode(places: list[int]) -> list[dict[str, Tensor]]:
            rows = vae.encode(pixels[places])
            require_finite(rows, vae, "autoencoder", [self._images.name(pixels[place]) for place in places])
            return rows

        rows = self.image_cache.encode([{"pixels": one} for one in pixels], encode)
        values = torch.stack([row["mean"] for row in rows]).float()
        if self.options.posterior == "sample" and seeds is not None:
            # Not the seed itself: the noise that is added later is drawn from that.
            generators = [seeded(digest_seed("posterior", seed)) for seed in seeds]
            values += torch.stack([row["std"] for row in rows]).float() * draw_noise(generators, values.shape[1:])
        return vae.normalise(values)

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Decodes latents."""
        pixels = self.autoencoder.decode(latents)
        if bool(latents.isfinite().all()):
            named = ["the latents of a sampled image"] * len(pixels)
            require_finite([{"pixels": one} for one in pixels], self.autoencoder, "autoencoder", named)
        return pixels

    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """Latents are smaller than pixels by the autoencoder's factor."""
        height, width = self._size if pixels is None else pixels[1:]
        return self.autoencoder.channels, height // self.autoencoder.factor, width // self.autoencoder.factor

    def fingerprint(self) -> str:
        """Adds the family's own keys."""
        return repr((super().fingerprint(), self.options))

    @property
    def _size(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.size)

    def _find_denoiser(self) -> Component:
        if self.options.denoiser is None:
            return Component(self.folder / self.part, self.options.variant)
        key = "modality.family.denoiser"
        return Component(find_folder(self.options.denoiser, key), self.options.variant, key)

    def _read_denoiser(self) -> dict[str, Any]:
        if self.options.denoiser is None:
            check_part(self.folder, self.index, self.part, self.denoiser_class, self.earlier_classes)
        return read_network(
            self._denoiser.settings,
            self.denoiser_class,
            self._denoiser.place,
            values=self.denoiser_values,
            renamed=self.earlier_classes,
        )

    def check_settings(self) -> None:
        """Raises ConfigError where the parts of the pipeline do not fit together; here the channels of latents."""
        check_channels(self._denoiser.place, self.settings["in_channels"], self.autoencoder.channels)

    def _find_size(self) -> tuple[int, int]:
        sides = read_sides(self.settings.get("sample_size", self.default_sample_size), self._denoiser.place)
        if sides is None:
            raise ConfigError(f"modality.size: missing; {self._denoiser.folder / 'config.json'} names no sample_size")
        return sides[0] * self.autoencoder.factor, sides[1] * self.autoencoder.factor

    def _describe_prompts(self) -> Mapping[str, Any]:
        settings = {name: value for name, value in self.index.items() if isinstance(value, bool)}
        own = {name: value for name, value in self.options if name not in PipelineParameters.model_fields}
        encoders = [encoder.describe() for encoder in self.encoders]
        return {"family": type(self).__qualname__, "encoders": encoders, "settings": {**settings, **own}}

    def _check_sizes(self) -> None:
        for key, sides in (("size", self._size), ("family.bucket_step", (self.options.bucket_step,))):
            wrong = [side for side in sides if side % self.granularity]
            if wrong and (key == "size" or self.options.buckets):
                raise ConfigError(f"modality.{key}: expected a multiple of {self.granularity}, got {wrong[0]}")
        if self.options.buckets and not self.buckets:
            raise ConfigError("modality.family.bucket_step: larger than the images; take a smaller one")


def fetched_files(part: str, variant: str | None) -> list[str]:
    """Lists patterns of what is fetched from the hub: the parts of a pipeline, of variants only the wanted one."""
    weights = "*.safetensors" if variant is None else f"*.{variant}*.safetensors"
    parts = [f"{name}/{weights}" for name in (part, "vae", "text_encoder*")]
    return ["*.json", *parts, "tokenizer*/*.txt", "tokenizer*/*.model"]
