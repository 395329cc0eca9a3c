"""DiscoPOP: a loss that a language model discovered, logistic for small margins and exponential for large ones."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import modulated
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="discopop",
        summary="Discovered blend of logistic and exponential loss of the implicit-reward margin.",
        loss=f"{__name__}:discopop_loss",
        config=f"{__name__}:DiscoPOPConfig",
        per="pair",
        equation="(w - 1) logsigmoid(m) + w exp(-m), w = sigmoid(m / temperature), m = beta (pc - rc - pr + rr)",
        paper="Discovering Preference Optimization Algorithms with and for LLMs (arXiv:2406.08414)",
    ),
)


class DiscoPOPConfig(Parameters):
    """Log-ratio modulated loss."""

    beta: float = Field(default=0.05, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    temperature: float = Field(default=0.05, gt=0, le=1)
    """Width of the margin in which one form gives way to the other; tau in the paper."""


def discopop_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    temperature: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the blend of logistic and exponential loss of the implicit-reward margin of every pair.

    Args: the log-probs are those of `dpo_loss`.
        temperature: width of the blend, in (0, 1].
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M], not convex in the margin, and detached metrics [M].

    Source: arXiv:2406.08414, the log-ratio modulated loss.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = modulated(chosen_rewards - rejected_rewards, temperature)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
