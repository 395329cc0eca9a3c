"""Tokenizers and frozen text encoders (CLIP, T5) of a pipeline.

Shapes: B prompts, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign import ConfigError
from mmalign_diffusion.families.components import Component, Frozen, find_class
from mmalign_diffusion.families.finite import require_finite
from mmalign_diffusion.families.pipeline_checks import find_class_name

_LONGEST = 10**5  # tokens; transformers has 1e30 where a tokenizer names no length
KNOWN = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
"""Classes of text encoders."""


class TextEncoder(Frozen):
    """One tokenizer and text encoder of a pipeline.

    Args:
        folder: of the pipeline.
        index: what its `model_index.json` says.
        suffix: which one: `""`, `_2`, `_3`.
        variant: see `Component`.
        dtype: see `Frozen`.
    """

    def __init__(
        self, folder: Path, index: Mapping[str, Any], suffix: str, variant: str | None, dtype: torch.dtype | None
    ) -> None:
        name = f"text_encoder{suffix}"
        class_name = find_class_name(folder, index, name)[1]
        if class_name not in KNOWN:
            raise ConfigError(
                f"modality.model: {folder} has {class_name or 'nothing'} as {name}; expected one of {', '.join(KNOWN)}"
            )
        component = Component(folder / name, variant)
        if component.settings.get("quantization_config"):
            raise ConfigError(f"{component.place}: quantised weights; name a folder with the plain weights")
        super().__init__(component, "transformers", class_name, dtype)
        self._tokenizer_folder = folder / f"tokenizer{suffix}"
        self._tokenizer_class = str(find_class_name(folder, index, f"tokenizer{suffix}")[1])

    @property
    def width(self) -> int | None:
        """Features of a token, where the settings say so."""
        return self.component.settings.get("d_model" if self._class_name.startswith("T5") else "hidden_size")

    @property
    def pooled_width(self) -> int | None:
        """Features of a whole text, where the settings say so."""
        name = "projection_dim" if self._class_name.endswith("WithProjection") else "hidden_size"
        return self.component.settings.get(name)

    def tokenise(self, text: str, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Turns a text into ids [L], cut or padded, and a mask [L] of what is not padding, both int64.

        Args:
            length: L; None for the tokenizer's own.
        """
        length = length or self.tokenizer.model_max_length
        if length > _LONGEST:
            raise ConfigError(f"modality.model: {self._tokenizer_folder} names no model_max_length")
        tokens = self.tokenizer(
            text,
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids[0], tokens.attention_mask[0]

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        """Runs the encoder on ids [B, L]; its output has `last_hidden_state` [B, L, D] and `hidden_states`.

        Args:
            mask: [B, L]; None where the pipeline lets padding be read, as those with CLIP do.
        """
        mask = mask if mask is None else mask.to(self.device)
        with self.running() as network:
            output = network(ids.to(self.device), attention_mask=mask, output_hidden_states=True)
        rows = [{"hidden": row} for row in output.last_hidden_state]
        require_finite(rows, self, "text encoder", ["a prompt"] * len(rows))
        return output

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; read on first use."""
        cls = find_class("transformers", self._tokenizer_class, "modality.model")
        try:
            return cls.from_pretrained(self._tokenizer_folder)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"modality.model: cannot load {self._tokenizer_folder}: {reason}") from None
