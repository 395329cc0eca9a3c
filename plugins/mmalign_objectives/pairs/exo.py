"""Efficient exact optimisation on pairs: the reverse KL to smoothed preference labels."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import reverse_kl
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="exo",
        aliases=("exo_pair",),
        summary="Reverse KL from the preference that the policy implies to smoothed labels.",
        loss=f"{__name__}:exo_loss",
        config=f"{__name__}:EXOConfig",
        per="pair",
        equation="KL([q, 1 - q], [1 - eps, eps]), q = sigmoid(beta ((pc - rc) - (pr - rr)))",
        paper="Towards Efficient Exact Optimization of Language Model Alignment (arXiv:2402.00856)",
    ),
)


class EXOConfig(Parameters):
    """Efficient exact optimisation on pairs."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    label_smoothing: float = Field(default=1e-3, gt=0, le=0.5)
    """Probability that a preference label is wrong; without any the reverse KL is infinite."""


def exo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    label_smoothing: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes KL(policy's preference, labels) of every pair; conservative DPO is the same the other way round.

    Args: the log-probs are those of `dpo_loss`.
        label_smoothing: probability that a label is flipped, in (0, 0.5].
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M], at least 0, and detached metrics [M].

    Source: arXiv:2402.00856, EXO-pref.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = reverse_kl(chosen_rewards - rejected_rewards, label_smoothing)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
