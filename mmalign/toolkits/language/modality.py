"""The base of modalities that are language models of transformers: all of them but what they read beside text.

The tokenizer loads on first use and without weights, so records can be encoded and shown before a model is loaded.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from mmalign.contract.decoding import Decoding
from mmalign.contract.values import EncodedResponse, Model, Vocabulary
from mmalign.data.records import Record, Response
from mmalign.errors import ConfigError
from mmalign.networks.adapters import LoRAParameters, add_lora
from mmalign.quiet import quiet_loading
from mmalign.references.parameter_counts import remember_counts
from mmalign.toolkits.language.chat import TEXT, ChatFormat
from mmalign.toolkits.language.encoding import LanguageEncoder, TokenLimits
from mmalign.toolkits.language.loading import (
    Kind,
    build_skeleton,
    find_model,
    load_network,
    load_settings,
    load_tokenizer,
    read_description,
)
from mmalign.toolkits.language.settings import find_context, find_vocabulary
from mmalign.toolkits.language.stored_counts import count_stored
from mmalign.toolkits.language.templates import ChatTemplate, choose_template, names_file, read_template
from mmalign.toolkits.tokens.modality import TokenModality


@dataclass(eq=False)
class LanguageModality(TokenModality):
    """A language model that answers with text. The fields are those of `LanguageParameters`, which says what they mean.

    Attributes:
        kind: which of transformers' model classes loads it.
        reads: the types of content parts that prompts may have; for more than text override `read_media`.
    """

    adapter_parameters: ClassVar[frozenset[str]] = frozenset({"lora"})
    kind: ClassVar[Kind] = "text"
    reads: ClassVar[frozenset[str]] = TEXT

    model: str
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
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
        self.source = find_model(self.model, "modality.model", **options)
        if self.chat_template is not None and names_file(self.chat_template):
            read_template(self.chat_template)  # so that a file that is not there is named before anything loads
        self.adapter = self.lora is not None

    @cached_property
    def loaded_tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return load_tokenizer(self.source, "modality.model")

    @property
    def loaded_processor(self) -> Any:
        """What is saved with a model, so that it can be loaded: the tokenizer, or what includes it."""
        return self.loaded_tokenizer

    @property
    def own_template(self) -> str | Mapping[str, str] | None:
        """The chat template that comes with the model, or several by name; None if it has none."""
        own: str | Mapping[str, str] | None = self.loaded_tokenizer.chat_template
        return own

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template: that of the configuration, else the model's own, else the plain one."""
        return choose_template(self.chat_template, self.own_template)

    @cached_property
    def settings(self) -> Any:
        """The configuration of the network, of transformers."""
        return load_settings(self.source, "modality.model")

    @cached_property
    def encoder(self) -> LanguageEncoder:
        """What encodes records: the tokenizer, the chat template, and `read_media` where there is more than text."""
        chat = ChatFormat(self.loaded_tokenizer, self.template, self.system, self.reads, self.chat_template_kwargs)
        limits = TokenLimits(
            self.max_prompt_tokens,
            self.max_response_tokens,
            find_context(self.settings),
            find_vocabulary(self.settings),
        )
        read_media = None if self.reads == TEXT else self.read_media
        return LanguageEncoder(self.loaded_tokenizer, chat, limits, read_media, self.placeholder_texts)

    def check_model(self) -> None:
        """Compares the tokenizer with the network's configuration; see `Modality.check_model`."""
        size, tokens = find_vocabulary(self.settings), len(self.loaded_tokenizer)
        lacking = sorted(token for token in self.end_ids if size is not None and token >= size)
        if lacking:
            name = self.loaded_tokenizer.convert_ids_to_tokens(lacking[0])
            raise ConfigError(
                f"modality.model: the tokenizer's end token {name!r} is number {lacking[0]}, but the network has an "
                f"embedding for {size} tokens; use the model's own tokenizer, or resize the model's embeddings"
            )
        if size is not None and tokens > size:
            self.encoder.notes.add(
                f"the tokenizer has {tokens} tokens, the network an embedding for {size}; records with the others are "
                "refused",
                "modality.model",
            )
        if self.template.plain and self.chat_template is None:
            self.encoder.notes.add(
                "the model has no chat template; lines `User:` and `Assistant:` stand in and are written into the "
                "exported tokenizer",
                "modality.chat_template",
            )

    def check_prompt(self, record: Record, decoding: Decoding) -> None:
        """Checks that the prompt leaves room for the steps that are sampled; see `Modality.check_prompt`."""
        self.encoder.check_prompt(record, decoding.max_steps)

    def notes(self) -> list[str]:
        """Returns what encoding has told; see `Modality.notes`."""
        return self.encoder.notes.lines()

    @property
    def placeholder_texts(self) -> frozenset[str]:
        """What stands in a rendered prompt for an image or a sound, so that no text may have it."""
        return frozenset(self.loaded_tokenizer.convert_ids_to_tokens(sorted(self.placeholder_ids)))

    def read_media(self, record: Record, text: str) -> Mapping[str, Tensor]:
        """Turns a prompt that has more than text into tensors.

        Args:
            text: the prompt as the chat template renders it, with a placeholder for each medium.

        Returns:
            those of an encoded prompt; see `mmalign.toolkits.tokens.prompts`.
        """
        raise NotImplementedError(f"{type(self).__name__} reads nothing but text")

    # -- loading and saving

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Loads the network, with a fresh adapter if one is configured."""
        options: dict[str, Any] = {"dtype": dtype, "attention": self.attention, "kind": self.kind}
        network = self.adapt(load_network(self.source, "modality.model", **options))
        settings = network.config.get_text_config()
        sizes = {"hidden_size": settings.hidden_size, "layers": settings.num_hidden_layers}
        return Model(network.to(device), name=self.source.name, **sizes)

    def adapt(self, network: Any) -> Any:
        """Freezes what is not trained, and adds the adapter if one is configured."""
        return network if self.lora is None else add_lora(network, self.lora, task="CAUSAL_LM", name=self.source.name)

    def _is_plain(self) -> bool:
        """Returns whether nothing but the network and its adapter is loaded from the folder."""
        return self.kind == "text" and type(self).adapt is LanguageModality.adapt and self.source.gguf is None

    @cached_property
    def skeleton(self) -> Any:
        """The network as its configuration describes it, without weights."""
        with torch.device("meta"):
            return build_skeleton(self.source, "modality.model", self.kind)

    def parameter_counts(self) -> tuple[int, int]:
        """Counts (all, trained) parameters of the network as its configuration describes it, without weights."""
        description = read_description(self.source)
        if description is None:
            return self._count_parameters()
        return remember_counts((type(self).__qualname__, repr(self), description), self._count_parameters)

    def _count_parameters(self) -> tuple[int, int]:
        stored = count_stored(Path(self.source.place), self.lora) if self._is_plain() else None
        if stored is not None:
            return stored
        with torch.device("meta"):
            network = self.adapt(build_skeleton(self.source, "modality.model", self.kind))
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
        return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)

    def vocabulary(self) -> Vocabulary:
        """Hashes the tokens with their ids; the width of the logits is the one the network's configuration has."""
        tokens = sorted(self.loaded_tokenizer.get_vocab().items())
        size = self.settings.get_text_config().vocab_size
        return Vocabulary(self.source.name, hashlib.sha256(repr(tokens).encode()).hexdigest(), size)

    def save(self, model: Model, directory: str) -> None:
        """Writes the adapter in peft's format, or the whole network, as safetensors, with what encodes for it."""
        # peft would look the base model up on the hub to see whether its embeddings have changed; an adapter has none.
        options = {"save_embedding_layers": False} if self.adapter else {}
        with quiet_loading(local=True):
            cast(Any, model.network).save_pretrained(directory, **options)
        self._save_processor(directory)

    def save_merged(self, model: Model, directory: str) -> None:
        """Writes the whole network with the adapter merged in, and the tokenizer. Needs memory for a second copy."""
        network: Any = model.network
        if self.adapter:
            # Merging and taking apart again would round the weights that go on training.
            network = copy.deepcopy(network).merge_and_unload()
        with quiet_loading(local=True):
            network.save_pretrained(directory)
        self._save_processor(directory)

    def _save_processor(self, directory: str) -> None:
        """Saves what encodes for the model, with the template that it was trained with."""
        processor, own = self.loaded_processor, self.loaded_processor.chat_template
        if not self.template.own:
            # Tokenizers that render a template leave the beginning of the sequence to it.
            begin = "{{ bos_token }}" if self.encoder.begins else ""
            processor.chat_template = begin + self.template.text
        try:
            processor.save_pretrained(directory)
        finally:
            processor.chat_template = own

    # -- encoding and decoding

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, or an end token where it has none, or the network has none for it."""
        pad, size = self.loaded_tokenizer.pad_token_id, find_vocabulary(self.settings)
        return int(pad) if pad is not None and (size is None or pad < size) else min(self.end_ids)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokenizer's end of sequence, and the token with which the chat template ends a turn."""
        return self.encoder.end_ids

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Encodes every response of `record`; see `Modality.encode`."""
        return self.encoder.encode(record)

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        """Encodes the prompt of `record`; see `TokenModality.encode_prompt`."""
        return self.encoder.encode_prompt(record)

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
        unscored = torch.zeros(len(tensors["prompt_ids"]), dtype=torch.bool)
        counts = torch.cat([tensors.get("prompt_mask", unscored), tensors["response_mask"]]).tolist()
        return [
            (self.loaded_tokenizer.decode([token for token, _ in run]), counted)
            for counted, run in groupby(zip(ids, counts, strict=True), key=lambda pair: pair[1])
        ]

    def fingerprint(self) -> str:
        """Hashes tokenizer, template, system message and limits."""
        parts = (self.encoder.fingerprint(), self.system, self.max_prompt_tokens, self.max_response_tokens)
        return f"{type(self).__qualname__}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
