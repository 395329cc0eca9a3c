"""Noise levels of flow models whose schedule follows the number of tokens of an image (dynamic shifting)."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import torch

from mmalign_diffusion.schedules import Flow, Schedule, read_schedule, shift_sigmas


def read_shifted_schedule(config: Mapping[str, Any], tokens: int) -> Schedule:
    """Reads a scheduler's settings; with `use_dynamic_shifting` levels move towards noise as the pipelines move them.

    Args:
        config: what `scheduler_config.json` holds.
        tokens: of the image in the transformer.

    Source: the function calculate_shift of diffusers' pipelines; scaling the shift with the image is from
        arXiv:2403.03206.
    """
    schedule = read_schedule(config)
    if not config.get("use_dynamic_shifting"):
        return schedule
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    first, last = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = first + (last - first) * (tokens - low) / (high - low)
    shift = mu if config.get("time_shift_type") == "linear" else exp(mu)
    return Flow(shift_sigmas(schedule.coefficients(torch.arange(schedule.steps))[1], shift))
