"""Hinge on the reference-normalised margin: SLiC-norm of RSO."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support import links
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="hinge",
        aliases=("slic_norm",),
        summary="Hinge loss of the implicit-reward margin against the reference.",
        loss=f"{__name__}:hinge_loss",
        config=f"{__name__}:HingeConfig",
        per="pair",
        equation="max(0, 1 - beta ((pc - rc) - (pr - rr)))",
        paper="Statistical Rejection Sampling Improves Preference Optimization (arXiv:2309.06657)",
    ),
)


class HingeConfig(Parameters):
    """Hinge on the reference-normalised margin."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward; a pair teaches until its log-ratio margin is 1 / beta."""


def hinge_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes what the implicit-reward margin of every pair lacks of 1.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps; so are the other three.
        policy_rejected_sequence_logps: [M].
        reference_chosen_sequence_logps: [M], no gradient.
        reference_rejected_sequence_logps: [M], no gradient.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2309.06657, equation 10.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    return links.hinge(chosen_rewards - rejected_rewards), reward_metrics(chosen_rewards, rejected_rewards)
