"""The text modality: any causal language model of transformers.

The tokenizer loads on first use and without weights, so records can be encoded and shown before a model is loaded.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from mmalign import (
    ConfigError,
    EncodedResponse,
    LoRAParameters,
    Model,
    Record,
    Response,
    TokenModality,
    Vocabulary,
    add_lora,
    quiet_loading,
)
from mmalign_text.chat import ChatFormat
from mmalign_text.encoding import TextEncoder
from mmalign_text.loading import build_skeleton, find_model, load_network, load_settings, load_tokenizer


@dataclass(eq=False)
class TextModality(TokenModality):
    """Text in, text out. The fields are those of `TextConfig`, which says what they mean."""

    adapter_parameters: ClassVar[frozenset[str]] = frozenset({"lora"})

    model: str
    tokenizer: str | None = None
    chat_template: str | None = None
    system: str | None = None
    max_prompt_tokens: int | None = None
    max_response_tokens: int | None = None
    lora: LoRAParameters | None = None
    attention: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    packing: Literal["auto", "off"] = "auto"
    generation_batch_size: int = 64

    def __post_init__(self) -> None:
        options: dict[str, Any] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        self._source = find_model(self.model, "modality.model", **options)
        self._template = _read_template(self.chat_template)
        self.adapter = self.lora is not None

    @cached_property
    def loaded_tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        if self.tokenizer is None:
            return load_tokenizer(self._source, "modality.model")
        return load_tokenizer(find_model(self.tokenizer, "modality.tokenizer"), "modality.tokenizer")

    @cached_property
    def _encoder(self) -> TextEncoder:
        chat = ChatFormat(self.loaded_tokenizer, self._template, self.system)
        return TextEncoder(self.loaded_tokenizer, chat, self.max_prompt_tokens, self.max_response_tokens)

    # -- loading and saving

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Loads the network, with a fresh adapter if one is configured."""
        network = load_network(self._source, "modality.model", dtype=dtype, attention=self.attention)
        settings = network.config.get_text_config()
        if self.lora is not None:
            network = add_lora(network, self.lora, task="CAUSAL_LM", name=self._source.name)
        sizes = {"hidden_size": settings.hidden_size, "layers": settings.num_hidden_layers}
        return Model(network.to(device), name=self._source.name, **sizes)

    def parameter_counts(self) -> tuple[int, int]:
        """Counts (all, trained) parameters of the network as its configuration describes it, without weights."""
        with torch.device("meta"):
            network = build_skeleton(self._source, "modality.model")
            network = network if self.lora is None else add_lora(network, self.lora)
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
        return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)

    def vocabulary(self) -> Vocabulary:
        """Hashes the tokens with their ids; the width of the logits is the one the network's configuration has."""
        tokens = sorted(self.loaded_tokenizer.get_vocab().items())
        size = load_settings(self._source, "modality.model").get_text_config().vocab_size
        return Vocabulary(self._source.name, hashlib.sha256(repr(tokens).encode()).hexdigest(), size)

    def save(self, model: Model, directory: str) -> None:
        """Writes the adapter in peft's format, or the whole network, as safetensors, with the tokenizer."""
        # peft would look the base model up on the hub to see whether its embeddings have changed; an adapter has none.
        options = {"save_embedding_layers": False} if self.adapter else {}
        with quiet_loading(local=True):
            cast(Any, model.network).save_pretrained(directory, **options)
        self.loaded_tokenizer.save_pretrained(directory)

    def save_merged(self, model: Model, directory: str) -> None:
        """Writes the whole network with the adapter merged in, and the tokenizer. Needs memory for a second copy."""
        network: Any = model.network
        if self.adapter:
            # Merging and taking apart again would round the weights that go on training.
            network = copy.deepcopy(network).merge_and_unload()
        with quiet_loading(local=True):
            network.save_pretrained(directory)
        self.loaded_tokenizer.save_pretrained(directory)

    # -- encoding and decoding

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, or an end token where it has none."""
        pad = self.loaded_tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.end_ids)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokenizer's end of sequence, and the token with which the chat template ends a turn."""
        return self._encoder.end_ids

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Encodes every response of `record`; see `Modality.encode`."""
        return self._encoder.encode(record)

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        """Encodes the prompt of `record`; see `TokenModality.encode_prompt`."""
        ids, truncated = self._encoder.encode_prompt(record)
        return {"prompt_ids": ids}, truncated

    def build_response(self, rid: str, ids: Sequence[int]) -> Response:
        """Decodes sampled ids, special tokens left out."""
        return Response.from_text(rid, self.loaded_tokenizer.decode(ids, skip_special_tokens=True))

    def decode(self, record: Record, response: Response) -> str:
        """Returns the text of the assistant turns."""
        return response.text

    def render(self, encoded: EncodedResponse) -> list[tuple[str, bool]]:
        """Splits what the model reads into pieces of text that the loss counts or not."""
        tensors = encoded.tensors
        ids = torch.cat([tensors["prompt_ids"], tensors["response_ids"]]).tolist()
        counts = [False] * len(tensors["prompt_ids"]) + tensors["response_mask"].tolist()
        return [
            (self.loaded_tokenizer.decode([token for token, _ in run]), counted)
            for counted, run in groupby(zip(ids, counts, strict=True), key=lambda pair: pair[1])
        ]

    def fingerprint(self) -> str:
        """Hashes tokenizer, template, system message and limits."""
        parts = (self._encoder.fingerprint(), self.system, self.max_prompt_tokens, self.max_response_tokens)
        return f"{type(self).__qualname__}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _read_template(template: str | None) -> str | None:
    if template is None or "{" in template:
        return template
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"modality.chat_template: {template!r} is neither a template (it has no braces) nor a readable text file"
        ) from None
