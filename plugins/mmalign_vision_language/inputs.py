"""From a rendered prompt and its media to what a network reads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign import DataError, MediaLimits, Record, open_image, open_sound

PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
"""Inputs that say something of every token; the others belong to images and sounds."""


def open_media(record: Record, limits: MediaLimits, rate: int | None) -> dict[str, list[Any]]:
    """Opens what the prompt of a record shows, in its order.

    Args:
        rate: samples a second of the sounds that the model hears; None if it hears none.

    Returns:
        the processor's arguments `images` and `audio`, without those of which the prompt has none.

    Raises:
        MediaError: one cannot be read.
        DataError: a prompt has sounds, but the model hears none.
    """
    where = f"record {record.id!r}"
    known = {media.mid: media for media in record.media}
    parts = [part for message in record.prompt for part in message.content if part.media is not None]
    opened: dict[str, list[Any]] = {}
    for part in parts:
        media = known[str(part.media)]
        if part.type == "image":
            image = open_image(media, where=where, limits=limits)
            opened.setdefault("images", []).append(image.convert("RGB"))
        elif rate is None:
            raise DataError(f"{where}: it has an {part.type} part, but this model hears nothing")
        else:
            sound = open_sound(media, where=where, rate=rate, start=part.start, end=part.end, limits=limits)
            opened.setdefault("audio", []).append(sound)
    return opened


def name_inputs(inputs: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Turns what a processor returns for one prompt into the tensors of an encoded prompt.

    Args:
        inputs: `input_ids` [1, P] and whatever else the processor knows.
        network: with or without weights; decides what of it is read, and where tokens stand.
    """
    read = inspect.signature(network.forward).parameters
    tensors = {"prompt_ids": inputs["input_ids"][0]}
    positions = _find_positions(inputs, network)
    if positions is not None:
        tensors["prompt_positions"] = positions
    taken = {"input_ids", "attention_mask", "labels"}
    # Where positions are given, nobody asks which tokens stand for an image.
    taken |= {"mm_token_type_ids"} if positions is not None else set()
    for name, value in inputs.items():
        if name in read and name not in taken:
            tensors |= {f"mark.{name}": value[0]} if name in PER_TOKEN else {f"media.{name}": value}
    return tensors


def _find_positions(inputs: Mapping[str, Tensor], network: Any) -> Tensor | None:
    """Returns positions [3, P] of a network that counts time, rows and columns (M-RoPE; arXiv:2409.12191, 2.1)."""
    owner = next((one for one in (network, network.base_model) if hasattr(one, "get_rope_index")), None)
    if owner is None:
        return None
    accepted = inspect.signature(owner.get_rope_index).parameters
    positions, _ = owner.get_rope_index(**{name: value for name, value in inputs.items() if name in accepted})
    return torch.as_tensor(positions)[:, 0]
