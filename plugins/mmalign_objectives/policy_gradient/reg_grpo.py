"""Reg-GRPO: regresses the standardised log-ratios of a group on its standardised rewards, without clipping.

At the optimum of KL-regularised learning rewards are affine in log(policy / behaviour), so both are equal once they are
standardised. A KL to the reference is an objective of its own, `kl_penalty`, added with the weight of the paper's beta.

Trap: before the first update all log-ratios are 0, and so is their standard deviation, by which they are divided. The
paper does not say what is done then. Here `epsilon` is added to it in squares: the first gradient is that of
REINFORCE with a baseline, over epsilon; once log-ratios spread much more than epsilon, it is that of the paper.
Where sampler and policy are computed in reduced precision, log-ratios are not quite 0 at first; `log_ratio_std` tells.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.lists import group_lists
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="reg_grpo",
        summary="Regresses standardised log-ratios of a group on its standardised rewards; add a `kl_penalty`.",
        loss=f"{__name__}:reg_grpo_loss",
        config=f"{__name__}:RegGRPOConfig",
        per="prompt",
        over="composite_rewards",
        # The regression on rewards is that of a log-ratio of probabilities.
        log_prob_kinds=("exact",),
        equation="mean_i ((R_i - mean R) / std R - (d_i - mean d) / sqrt(var d + epsilon^2))^2, d = p - b",
        paper="DeepVideo-R1: Video Reinforcement Fine-Tuning (Reg-GRPO) (arXiv:2506.07464)",
    ),
)


class RegGRPOConfig(Parameters):
    """Regressive GRPO."""

    epsilon: float = Field(default=0.1, gt=0)
    """Floor of the standard deviation of log-ratios, in nats: sqrt(variance + epsilon^2)."""
    correction: Literal[0, 1] = 0
    """Variances divide by the number of responses less this."""


def reg_grpo_loss(
    policy_sequence_logps: Tensor,
    behaviour_sequence_logps: Tensor,
    composite_rewards: Tensor,
    prompt_index: Tensor,
    *,
    epsilon: float,
    correction: Literal[0, 1],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes for every prompt the mean squared distance of standardised log-ratios from standardised rewards.

    The gradient flows through the mean and the standard deviation of the log-ratios.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        behaviour_sequence_logps: [N], nats, summed over steps, no gradient.
        composite_rewards: [N]; a response with NaN is left out.
        prompt_index: [N], which prompt a response answers.
        epsilon: floor of the standard deviation of log-ratios, nats.
        correction: of the variances, 0 or 1.

    Returns:
        losses [P] by ascending prompt, 0 where all rewards are equal, and detached metrics [P]: `log_ratio_std`, and
        `equal_rewards`, 1 for such prompts.

    Source: arXiv:2506.07464, the loss of Reg-GRPO without its KL term.
    """
    check_shapes(1, policy=policy_sequence_logps, behaviour=behaviour_sequence_logps, rewards=composite_rewards)
    lists = group_lists(prompt_index, ~composite_rewards.isnan())
    rewards = lists.pad(composite_rewards)
    log_ratios = lists.pad(policy_sequence_logps - behaviour_sequence_logps.detach())
    targets, reward_std = standardise(rewards, lists.mask, correction=correction)
    predictions, log_ratio_std = standardise(log_ratios, lists.mask, epsilon=epsilon, correction=correction)
    losses = _mean((targets - predictions) ** 2, lists.mask)
    varied = reward_std > 0
    metrics = {"log_ratio_std": log_ratio_std.detach(), "equal_rewards": (~varied).to(losses)}
    return torch.where(varied, losses, 0), metrics


def standardise(values: Tensor, mask: Tensor, *, epsilon: float = 0.0, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Subtracts from every row of values [P, K] its mean and divides by sqrt(variance + epsilon^2), where masked.

    Returns:
        standardised values [P, K], 0 where the mask is False, and the divisors [P]. Rows whose divisor is 0, as that of
        equal values without epsilon is, are 0 without gradient.
    """
    # Taken from the largest value first: the mean of equal numbers need not equal them in floating point.
    below = torch.where(mask, values - values.detach().masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True), 0)
    centred = torch.where(mask, below - _mean(below, mask)[:, None], 0)
    count = mask.sum(dim=1)
    squares = (centred**2).sum(dim=1) / (count - correction).clamp(min=1) + epsilon**2
    spread = torch.where(squares > 0, squares, 1).sqrt()
    return centred / spread[:, None], torch.where(squares > 0, spread, 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
