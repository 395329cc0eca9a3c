"""f-DPO: DPO whose constraint to the reference is another divergence than the reverse KL."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.divergences import Divergence, divergence_rewards
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="f_dpo",
        aliases=("fdpo",),
        summary="DPO constrained by the forward KL, Jensen-Shannon or an alpha divergence.",
        loss=f"{__name__}:f_dpo_loss",
        config=f"{__name__}:FDPOConfig",
        per="pair",
        equation="-logsigmoid(beta (f'(exp(pc - rc)) - f'(exp(pr - rr))))",
        paper="Beyond Reverse KL: Generalizing Direct Preference Optimization (arXiv:2309.16240)",
    ),
)


class FDPOConfig(Parameters):
    """DPO with another divergence."""

    divergence: Divergence = "jensen_shannon"
    """What the constraint to the reference measures: reverse_kl (that is DPO), forward_kl, jensen_shannon or alpha."""
    alpha: float = Field(default=0.5, gt=0, lt=1)
    """Place of the divergence `alpha` between reverse KL (0) and forward KL (1); TRL's coefficient is 1 - alpha."""
    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def f_dpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    divergence: Divergence,
    alpha: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the margin of f'(policy / reference) of every pair.

    Args: the log-probs are those of `dpo_loss`.
        divergence: which f.
        alpha: of the divergence `alpha`, in (0, 1); the others ignore it.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is beta f'(policy / reference), 0 at ratio 1.

    Source: arXiv:2309.16240, the loss of f-DPO.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    log_ratios = implicit_rewards(policy, reference, 1.0)
    chosen_rewards, rejected_rewards = (beta * divergence_rewards(one, divergence, alpha) for one in log_ratios)
    return logistic(chosen_rewards - rejected_rewards), reward_metrics(chosen_rewards, rejected_rewards)
