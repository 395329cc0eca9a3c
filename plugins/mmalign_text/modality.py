"""The text modality: any causal language model of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmalign import LanguageModality, find_model, load_tokenizer


@dataclass(eq=False)
class TextModality(LanguageModality):
    """Text in, text out. The fields are those of `TextConfig`, which says what they mean."""

    tokenizer: str | None = None

    @cached_property
    def loaded_tokenizer(self) -> Any:
        """The tokenizer of transformers: the model's own, or another one."""
        if self.tokenizer is None:
            return super().loaded_tokenizer
        return load_tokenizer(find_model(self.tokenizer, "modality.tokenizer"), "modality.tokenizer")
