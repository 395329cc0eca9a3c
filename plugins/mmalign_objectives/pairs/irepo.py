"""Implicit reward pairwise difference regression: the reward gap is fitted to the logit of an empirical preference.

It is called iREPO in its paper; in-context ranking and iterative reasoning preference optimisation are others.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import square
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="irepo",
        summary="Regresses the implicit-reward margin on the logit of the share of annotators that agree.",
        loss=f"{__name__}:irepo_loss",
        config=f"{__name__}:IREPOConfig",
        per="pair",
        equation="(beta ((pc - rc) - (pr - rr)) - logit(p))^2",
        paper="iREPO: implicit Reward Pairwise Difference Empirical Preference Optimization (arXiv:2405.15230)",
    ),
)


class IREPOConfig(Parameters):
    """Implicit reward pairwise difference regression."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    clip: float = Field(default=0.05, gt=0, lt=0.5)
    """Preferences stay so far from 0 and 1: a single vote is certain, and its logit would be infinite."""


def irepo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    preference_probabilities: Tensor,
    *,
    beta: float,
    clip: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared distance of the implicit-reward margin of every pair from the logit of its preference.

    Args: the log-probs are those of `dpo_loss`.
        preference_probabilities: [M], share of the annotators that prefer chosen, in [0, 1].
        beta: inverse temperature of the implicit reward, positive.
        clip: distance that preferences keep from 0 and 1, in (0, 0.5).

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.15230, the empirical loss of iREPO.
    """
    check_shapes(1, policy_chosen=policy_chosen_sequence_logps, preferences=preference_probabilities)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    targets = preference_probabilities.detach().clamp(clip, 1 - clip).logit()
    return square(chosen_rewards - rejected_rewards, targets), reward_metrics(chosen_rewards, rejected_rewards)
