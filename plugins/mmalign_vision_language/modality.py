"""The vision-language modality: a language model that reads images or sounds in prompts and answers with text.

Packing, scoring and sampling are those of all token modalities: what a prompt shows is computed once for all of its
responses.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from torch import Tensor

from mmalign import ConfigError, DataError, EncodedResponse, LanguageModality, Record, add_lora, load_processor
from mmalign_vision_language.inputs import name_inputs, open_media


@dataclass(eq=False)
class VisionLanguageModality(LanguageModality):
    """Text and images, or sounds, in; text out. The fields are those of `VisionLanguageConfig`."""

    kind: ClassVar[Literal["multimodal"]] = "multimodal"
    reads: ClassVar[frozenset[str]] = frozenset({"text", "image", "audio"})

    train_towers: bool = False
    processor: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.has_unused_parameters = self.train_towers
        if self.source.gguf:
            raise ConfigError("modality.model: a .gguf file holds no processor; give a folder or a hub id")

    @cached_property
    def loaded_processor(self) -> Any:
        """The processor of transformers: a tokenizer with what prepares images and sounds."""
        processor = load_processor(self.source, "modality.model", self.processor)
        if not hasattr(processor, "tokenizer"):
            raise ConfigError(f"modality.model: {self.model!r} reads text alone; use modality.name: text")
        return processor

    @cached_property
    def loaded_tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return self.loaded_processor.tokenizer

    @property
    def own_template(self) -> str | Mapping[str, str]:
        """The chat template, or several by name: the processor's, else the tokenizer's."""
        own: str | Mapping[str, str] | None = self.loaded_processor.chat_template or self.loaded_tokenizer.chat_template
        if not own and self.chat_template is None:
            raise ConfigError("modality.chat_template: the model has none; give one that shows where an image goes")
        return own or {}

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        """The tokens for which the network puts in what it sees and hears."""
        owners = (self.loaded_processor, self.skeleton.config)
        names = ("image_token_id", "video_token_id", "audio_token_id")
        found = {getattr(owner, name, None) for owner in owners for name in names}
        return frozenset(token for token in found if isinstance(token, int))

    @property
    def placeholder_texts(self) -> frozenset[str]:
        """The texts of these tokens, and what the processor puts them in for."""
        names = ("image_token", "video_token", "audio_token", "boi_token", "boa_token")
        found = {getattr(self.loaded_processor, name, None) for name in names}
        return super().placeholder_texts | {text for text in found if isinstance(text, str)}

    def adapt(self, network: Any) -> Any:
        """Freezes what reads images and sounds unless that is trained, and adds the adapter if one is configured."""
        if self.train_towers:
            return super().adapt(network)
        decoder = network.get_decoder()
        if self.lora is not None:
            within = next(name for name, module in network.named_modules() if module is decoder)
            return add_lora(network, self.lora, task="CAUSAL_LM", name=self.source.name, within=within)
        network.requires_grad_(False)
        decoder.requires_grad_(True)
        network.get_output_embeddings().requires_grad_(True)
        return network

    def read_media(self, record: Record, text: str) -> Mapping[str, Tensor]:
        """Turns a prompt with images or sounds into tensors; see `LanguageModality.read_media`."""
        hearing = getattr(self.loaded_processor, "feature_extractor", None)
        rate = None if hearing is None else hearing.sampling_rate
        media = open_media(record, self.media_limits, rate)
        options = {"sampling_rate": rate} if "audio" in media else {}
        try:
            inputs = self.loaded_processor(
                text=[text], **media, **options, add_special_tokens=False, return_tensors="pt"
            )
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"record {record.id!r}: the model's processor refuses the prompt: {error}") from error
        return name_inputs(inputs, self.skeleton)

    def render(self, encoded: EncodedResponse) -> list[tuple[str, bool]]:
        """Splits what the model reads into pieces of text; places of an image are counted, not written out."""
        return [(_count_repeats(text, self.loaded_tokenizer), counted) for text, counted in super().render(encoded)]

    def fingerprint(self) -> str:
        """Hashes, beside what every language model has, the settings of the processor."""
        settings = self.loaded_processor.to_json_string()
        return f"{super().fingerprint()}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"


def _count_repeats(text: str, tokenizer: Any) -> str:
    special = "|".join(re.escape(token) for token in sorted(tokenizer.get_added_vocab()))
    return re.sub(rf"({special})\1+", lambda found: f"{found[1]} x {len(found[0]) // len(found[1])}", text)
