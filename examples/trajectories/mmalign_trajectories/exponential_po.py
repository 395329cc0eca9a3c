"""Preference optimisation with the exponential loss, as in AdaBoost: one member of a family that holds DPO, too."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import Parameters


class ExponentialPOConfig(Parameters):
    """Parameters of the exponential preference loss."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def exponential_po_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes exp(-margin) of the implicit-reward margin of every pair.

    By hand: beta 0.1 and log-ratios 3 (chosen) and -2 (rejected) give the margin 0.5 and the loss exp(-0.5) = 0.6065.
    For small beta the gradient is twice that of DPO: the slopes of exp(-x) and -log sigmoid(x) at 0 are -1 and -1/2.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps; so are the other three.
        policy_rejected_sequence_logps: [M].
        reference_chosen_sequence_logps: [M], no gradient.
        reference_rejected_sequence_logps: [M], no gradient.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M], not reduced, and the detached metrics `reward_margins` and `reward_accuracies` (0.5 for a tie) [M].

    Source: arXiv:2402.05749, generalised preference optimisation with f(x) = exp(-x).
    """
    chosen_rewards = beta * (policy_chosen_sequence_logps - reference_chosen_sequence_logps)
    rejected_rewards = beta * (policy_rejected_sequence_logps - reference_rejected_sequence_logps)
    margins = chosen_rewards - rejected_rewards
    detached = margins.detach()
    return (-margins).exp(), {"reward_margins": detached, "reward_accuracies": (detached.sign() + 1) / 2}
