"""Anchored preference optimisation: responses move up or down as such, not only against each other.

`apo_zero` is for chosen responses that are better than what the policy would say, `apo_down` for worse ones. Another
method of that abbreviation, accelerated preference optimisation, has nothing to do with them.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

_APO_ZERO = ObjectiveSpec(
    name="apo_zero",
    summary="Raises chosen and lowers rejected responses: for chosen ones better than the policy.",
    loss=f"{__name__}:apo_zero_loss",
    config=f"{__name__}:APOConfig",
    per="pair",
    equation="1 - sigmoid(beta (pc - rc)) + sigmoid(beta (pr - rr))",
    paper="Anchored Preference Optimization and Contrastive Revisions (arXiv:2408.06266)",
)
SPECS = (
    _APO_ZERO,
    replace(
        _APO_ZERO,
        name="apo_down",
        summary="Lowers both responses, rejected ones more: for chosen ones worse than the policy.",
        loss=f"{__name__}:apo_down_loss",
        equation="sigmoid(beta (pc - rc)) + 1 - sigmoid(beta ((pc - rc) - (pr - rr)))",
    ),
)


class APOConfig(Parameters):
    """Anchored preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def apo_zero_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss that raises chosen and lowers rejected responses against the reference.

    Args: the log-probs are those of `dpo_loss`, sums over steps.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M], in (0, 2), and detached metrics [M].

    Source: arXiv:2408.06266, APO-zero.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = (-chosen_rewards).sigmoid() + rejected_rewards.sigmoid()
    return losses, reward_metrics(chosen_rewards, rejected_rewards)


def apo_down_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss that lowers both responses against the reference, the rejected one more.

    Arguments and results are those of `apo_zero_loss`.

    Source: arXiv:2408.06266, APO-down.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = chosen_rewards.sigmoid() + (rejected_rewards - chosen_rewards).sigmoid()
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
