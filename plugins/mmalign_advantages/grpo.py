"""Group-relative advantages: rewards standardised within the responses to one prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_advantages.groups import CentredRewards, centre_rewards, sum_by_group

Scale = Literal["group", "batch", "none"]


class GRPOConfig(Parameters):
    """Group-relative advantages."""

    scale: Scale = "group"
    """Divide by the standard deviation of the `group` or of the `batch`, or by `none`."""
    epsilon: float = Field(default=1e-4, gt=0)
    """Added to the standard deviation."""


class DrGRPOConfig(GRPOConfig):
    """Dr. GRPO: group-relative advantages without scaling, which over-weights very easy and very hard prompts."""

    scale: Scale = "none"
    """Divide by the standard deviation of the `group` or of the `batch`, or by `none`."""


def grpo_advantages(
    composite_rewards: Tensor, prompt_index: Tensor, *, scale: Scale = "group", epsilon: float = 1e-4
) -> Tensor:
    """Subtracts from every reward the mean of its group and divides by a standard deviation.

    Args:
        composite_rewards: [N]; NaN ones take part in no statistic and get advantage 0.
        prompt_index: [N], which prompt a response answers; groups may be of any size.
        scale: whose unbiased standard deviation divides; that of the batch is over this process's responses.
        epsilon: added to the standard deviation, positive.

    Returns:
        advantages [N]; exactly 0 where all rewards of a group are equal.

    Source: arXiv:2402.03300, section 4.1.2; scale `none` is arXiv:2503.20783, section 3.2.
    """
    centred = centre_rewards(composite_rewards, prompt_index)
    if scale == "none":
        return centred.deviations
    spread = _group_std(centred) if scale == "group" else _batch_std(composite_rewards)
    return centred.deviations / (spread + epsilon)


def _group_std(centred: CentredRewards) -> Tensor:
    squares = sum_by_group(centred.deviations**2, centred.group)
    return (squares / (centred.counts - 1).clamp(min=1)).sqrt()


def _batch_std(rewards: Tensor) -> Tensor:
    scored = rewards[~rewards.isnan()]
    return scored.std() if len(scored) > 1 else scored.new_zeros(())
