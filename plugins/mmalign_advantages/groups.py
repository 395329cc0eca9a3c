"""Statistics of the rewards of responses to one prompt; groups may have any sizes, and rewards may be missing.

A reward that is NaN (its scorer failed) takes part in no statistic and gets advantage 0: it teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CentredRewards:
    """Rewards less the mean of their group.

    Attributes:
        deviations: [N]; 0 where the reward is NaN, and exactly 0 where all rewards of the group are equal.
        counts: [N], responses of the group that have a reward.
        group: [N], the groups, numbered from 0.
        scored: [N] bool, True where there is a reward.
    """

    deviations: Tensor
    counts: Tensor
    group: Tensor
    scored: Tensor


def centre_rewards(rewards: Tensor, prompt_index: Tensor) -> CentredRewards:
    """Subtracts from every reward [N] the mean over the responses with the same `prompt_index` [N].

    Raises:
        ValueError: the two are not vectors of one length.
    """
    if rewards.dim() != 1 or prompt_index.shape != rewards.shape:
        got = f"{tuple(rewards.shape)} and {tuple(prompt_index.shape)}"
        raise ValueError(f"rewards and prompt_index: expected two vectors of one length, got shapes {got}")
    _, group = torch.unique(prompt_index, return_inverse=True)
    scored = ~rewards.isnan()
    counts = sum_by_group(scored.to(rewards.dtype), group)
    # Deviations are taken from the largest reward first: the mean of equal numbers need not equal them in floating
    # point, and dividing that rounding error by a standard deviation of 0 would make an advantage of it.
    largest = torch.full_like(rewards, -torch.inf).scatter_reduce(
        0, group, torch.where(scored, rewards, -torch.inf), "amax"
    )[group]
    below = torch.where(scored, rewards - largest, 0)
    deviations = torch.where(scored, below - sum_by_group(below, group) / counts.clamp(min=1), 0)
    return CentredRewards(deviations, counts, group, scored)


def sum_by_group(values: Tensor, group: Tensor) -> Tensor:
    """Sums values [N] over their group and gives every element the sum of its own: [N]."""
    return torch.zeros_like(values).index_add(0, group, values)[group]
