"""SimPO: mean log-probs as the implicit reward, and a margin that chosen must win by."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_objectives.links import logistic
from mmalign_objectives.rewards import reward_metrics
from mmalign_objectives.shapes import check_shapes


class SimPOConfig(Parameters):
    """Simple preference optimisation."""

    beta: float = Field(default=2.0, gt=0)
    """Scale of the implicit reward, which is beta times the mean log-prob; about 20 times that of DPO."""
    gamma: float = Field(default=1.0, ge=0)
    """Reward margin that is asked for; the official code names the ratio gamma / beta, 0.1 to 0.8."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong."""


def simpo_loss(
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    *,
    beta: float,
    gamma: float,
    label_smoothing: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the length-normalised margin of every pair, less gamma.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        policy_rejected_mean_logps: [M], nats, mean over steps.
        beta: scale of the implicit reward, positive.
        gamma: reward margin that is asked for, at least 0.
        label_smoothing: probability that a label is flipped, in [0, 0.5].

    Returns:
        losses [M] and detached metrics [M]; the margins in them are without gamma.

    Source: arXiv:2405.14734, equation 6.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_rejected=policy_rejected_mean_logps)
    chosen_rewards, rejected_rewards = beta * policy_chosen_mean_logps, beta * policy_rejected_mean_logps
    losses = logistic(chosen_rewards - rejected_rewards - gamma, label_smoothing)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
