"""Counts parameters from the headers of a folder's safetensors, where these are known to hold exactly the parameters.

Building the network to count them, even without weights, imports transformers' modelling code and peft. The families
here store one tensor a parameter, and their linear layers are matrices; of all others nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from mmalign.networks.adapters import ATTENTION_AND_MLP, LoRAParameters

_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def count_stored(folder: Path, lora: LoRAParameters | None) -> tuple[int, int] | None:
    """Counts (all, trained) parameters of the causal language model in `folder`.

    Returns:
        None where the headers do not tell for certain: another family, quantised weights, an adapter on chosen layers,
        or tensors that are missing or too many.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shapes = dict(_iter_shapes(folder))
    except (OSError, ValueError, RecursionError):
        return None
    if not _is_plain(settings, shapes):
        return None
    every = sum(map(prod, shapes.values()))
    if lora is None:
        return every, every
    adapted = _count_adapter(shapes, lora)
    return (every + adapted, adapted) if adapted else None


def _is_plain(settings: Any, shapes: Mapping[str, Sequence[int]]) -> bool:
    if not isinstance(settings, Mapping) or settings.get("model_type") not in _PLAIN:
        return False
    if {"quantization_config", "auto_map", "text_config"} & settings.keys():
        return False
    # The default of these families is not to tie; a tied head is stored once, as the embedding.
    tied = settings.get("tie_word_embeddings", False) is True
    layers = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    return (
        tied == ("lm_head.weight" not in shapes)
        and len(layers) == settings.get("num_hidden_layers")
        and all(name.endswith((".weight", ".bias")) for name in shapes)
        and {"model.embed_tokens.weight", "model.norm.weight"} <= shapes.keys()
    )


def _count_adapter(shapes: Mapping[str, Sequence[int]], lora: LoRAParameters) -> int:
    """Counts the two matrices of every adapted layer; 0 where the targets are not known by name alone."""
    if lora.layers is not None or lora.last_layers is not None or lora.targets == "all-linear":
        return 0
    matrices = {name: shape for name, shape in shapes.items() if name.endswith("proj.weight") and len(shape) == 2}
    leaves = {name.split(".")[-2] for name in matrices}
    wanted = {lora.targets} if isinstance(lora.targets, str) else set(lora.targets)
    targets = leaves & ATTENTION_AND_MLP if lora.targets == "auto" else wanted
    if not targets <= leaves:
        return 0
    return sum(lora.rank * sum(shape) for name, shape in matrices.items() if name.split(".")[-2] in targets)


def _iter_shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else ()
    for name in sorted(names) or ["model.safetensors"]:
        try:
            with safe_open(folder / name, framework="pt") as file:
                yield from ((key, file.get_slice(key).get_shape()) for key in file.keys())
        except SafetensorError as error:
            raise ValueError(str(error)) from None
