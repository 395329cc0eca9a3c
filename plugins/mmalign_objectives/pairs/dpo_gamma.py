"""DPO with a weaker pull to the ranking of the reference."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="dpo_gamma",
        summary="DPO with the reference attenuated, so that its wrong rankings weigh less.",
        loss=f"{__name__}:dpo_gamma_loss",
        config=f"{__name__}:DPOGammaConfig",
        per="pair",
        equation="-logsigmoid(beta ((pc - pr) - gamma (rc - rr)))",
        paper="Preference Learning Algorithms Do Not Learn Preference Rankings (arXiv:2405.19534)",
    ),
)


class DPOGammaConfig(Parameters):
    """DPO with an attenuated reference."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    gamma: float = Field(default=0.5, ge=0, le=1)
    """Weight of the reference's log-probs: 1 is DPO, 0 forgets the reference (CPO without its likelihood term)."""


def dpo_gamma_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    gamma: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the margin against the reference's margin times gamma.

    Args: the log-probs are those of `dpo_loss`.
        gamma: weight of the reference, in [0, 1].
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.19534, the attenuated objective.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (gamma * reference_chosen_sequence_logps, gamma * reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    return logistic(chosen_rewards - rejected_rewards), reward_metrics(chosen_rewards, rejected_rewards)
