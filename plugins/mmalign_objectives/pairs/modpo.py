"""Multi-objective DPO: the rewards of other objectives enter as a margin.

The policy becomes the optimum of a weighted sum: the objective that the labels are about has what the weights of the
others leave of 1. `quantities: {name: margin_rewards, scores: [...]}` says which scores of the records are theirs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import Link, smoothed
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="modpo",
        summary="Multi-objective DPO: rewards of other objectives enter as a margin.",
        loss=f"{__name__}:modpo_loss",
        config=f"{__name__}:MODPOConfig",
        per="pair",
        over="margin_rewards",
        equation="-logsigmoid((beta ((pc - rc) - (pr - rr)) - w (m_chosen - m_rejected)) / (1 - sum(w)))",
        paper="Beyond One-Preference-Fits-All Alignment: Multi-Objective DPO (arXiv:2310.03708)",
    ),
)


class MODPOConfig(Parameters):
    """Multi-objective DPO."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    margin_weights: tuple[Annotated[float, Field(ge=0)], ...] = (0.5,)
    """Weights of the other objectives, in the order of the margin rewards; together below 1."""
    link: Link = "logistic"
    """logistic, or hinge."""

    @field_validator("margin_weights")
    @classmethod
    def _check_weights(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not sum(weights) < 1:
            raise ValueError(f"expected weights that leave something of 1 to the labels, got a sum of {sum(weights)}")
        return weights


def modpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    chosen_margin_rewards: Tensor,
    rejected_margin_rewards: Tensor,
    *,
    beta: float,
    margin_weights: tuple[float, ...],
    link: Link,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of the implicit-reward margin less the weighted margin of the other rewards.

    Args: the log-probs are those of `dpo_loss`.
        chosen_margin_rewards: [M, K], rewards of the K other objectives, no gradient.
        rejected_margin_rewards: [M, K].
        beta: inverse temperature of the implicit reward, positive.
        margin_weights: K weights, at least 0, their sum below 1.
        link: from margin to loss.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward in them is that of the weighted sum.

    Raises:
        ValueError: there are not as many weights as rewards.

    Source: arXiv:2310.03708, the loss of MODPO.
    """
    check_shapes(2, chosen_margins=chosen_margin_rewards, rejected_margins=rejected_margin_rewards)
    if chosen_margin_rewards.shape[1] != len(margin_weights):
        raise ValueError(f"margin_weights: {len(margin_weights)} of them for {chosen_margin_rewards.shape[1]} rewards")
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    others = (chosen_margin_rewards - rejected_margin_rewards) @ chosen_margin_rewards.new_tensor(margin_weights)  # [M]
    margins = (chosen_rewards - rejected_rewards - others) / (1 - sum(margin_weights))
    return smoothed(margins, link, 0.0), reward_metrics(chosen_rewards, rejected_rewards)
