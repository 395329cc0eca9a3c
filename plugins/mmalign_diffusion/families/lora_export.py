"""A trained adapter in the file that `load_lora_weights` of a diffusers pipeline reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_PREFIX = "base_model.model."


def export_lora(network: nn.Module, directory: str, *, pipeline: str, part: str) -> None:
    """Writes `pytorch_lora_weights.safetensors`.

    The scale alpha / rank is multiplied into B: readers that know no alpha, and there it is 1 for others.

    Args:
        network: a peft model with the adapter `default`.
        pipeline: name of a class of diffusers with `save_lora_weights`.
        part: which of its networks, `unet` or `transformer`.
    """
    import diffusers
    from peft import get_peft_model_state_dict

    adapted: Any = network
    settings = adapted.peft_config["default"]
    scale = settings.lora_alpha / settings.r
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    layers = {name.removeprefix(_PREFIX): _scale(name, value, scale) for name, value in weights.items()}
    getattr(diffusers, pipeline).save_lora_weights(directory, **{f"{part}_lora_layers": layers})


def _scale(name: str, value: torch.Tensor, scale: float) -> torch.Tensor:
    value = value.detach().cpu()
    return (value * scale if ".lora_B." in name else value).contiguous()
