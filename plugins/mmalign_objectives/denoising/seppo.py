"""SePPO: the policy's own earlier sample is the rejected response, unless the policy is behind on the chosen one.

Which checkpoint samples, and is the reference, is set by the data and the reference of the run; here is the loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="seppo",
        aliases=("sspo",),
        summary=(
            "DPO against the policy's earlier samples, which count as chosen where the policy is behind on chosen."
        ),
        loss=f"{__name__}:seppo_loss",
        config=f"{__name__}:SePPOConfig",
        per="pair",
        equation="-logsigmoid(beta ((pc - rc) - sign(pc - rc) (pr - rr))); indicator: 1(pc > rc) for the sign",
        paper="SePPO: Semi-Policy Preference Optimization for Diffusion Alignment (arXiv:2410.05255)",
    ),
)


class SePPOConfig(Parameters):
    """Semi-policy preference optimisation."""

    beta: float = Field(default=5000.0, gt=0)
    """Inverse temperature of the implicit reward, as in `diffusion_dpo`; none is published for SePPO."""
    anchor: Literal["sign", "indicator"] = "sign"
    """What becomes of the sample where the policy is behind the reference on the chosen response: it counts as a second
    chosen one (sign), or not at all (indicator)."""


def seppo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
    anchor: Literal["sign", "indicator"],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of chosen reward less anchored reward of the sample, for every pair.

    Args: the log-probs are those of `dpo_loss`; the rejected response is a sample of the reference.
        beta: inverse temperature of the implicit reward, positive.
        anchor: `sign` or `indicator`; see `SePPOConfig`.

    Returns:
        losses [M] and detached metrics [M]: those of DPO and `anchors`, the factor of the sample's reward: 1 where the
        policy is ahead of the reference on chosen, 0 where it is level, -1 (or 0) where it is behind.

    Source: arXiv:2410.05255, the anchored loss of SePPO.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    anchors = torch.sign(chosen_rewards.detach())
    anchors = anchors.clamp(min=0) if anchor == "indicator" else anchors
    losses = logistic(chosen_rewards - anchors * rejected_rewards)
    return losses, {**reward_metrics(chosen_rewards, rejected_rewards), "anchors": anchors}
