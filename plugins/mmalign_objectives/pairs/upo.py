"""DPO with the label smoothing that every pair has of its own, as the transform `upo` writes it."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="upo",
        summary="DPO with label smoothing by the uncertainty of each pair, and the likelihood of chosen.",
        loss=f"{__name__}:upo_loss",
        config=f"{__name__}:UPOConfig",
        per="pair",
        equation="-(1 - a) logsigmoid(m) - a logsigmoid(-m) - nll_weight pc / |c|, m = beta ((pc - rc) - (pr - rr))",
        paper=(
            "Self-Evolutionary Large Language Models through Uncertainty-Enhanced Preference Optimization "
            "(arXiv:2409.11212)"
        ),
    ),
)


class UPOConfig(Parameters):
    """Uncertainty-enhanced preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    nll_weight: float = Field(default=0.1, ge=0)
    """Weight of the negative log-likelihood of the chosen response, a mean over steps; the default is ours."""


def upo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    policy_chosen_mean_logps: Tensor,
    chosen_label_smoothing: Tensor,
    *,
    beta: float,
    nll_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the smoothed logistic loss of the implicit-reward margin of every pair, and the likelihood of chosen.

    Args:
        policy_chosen_sequence_logps: [M], nats, a sum over steps; the first four are.
        policy_rejected_sequence_logps: [M].
        reference_chosen_sequence_logps: [M], no gradient; of the policy of the iteration before.
        reference_rejected_sequence_logps: [M], no gradient.
        policy_chosen_mean_logps: [M], nats, mean over steps.
        chosen_label_smoothing: [M], probability that the label is flipped, in [0, 0.5]; NaN counts as 0.
        beta: inverse temperature of the implicit reward, positive.
        nll_weight: weight of the negative log-likelihood, at least 0.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2409.11212, the objective of UPO.
    Differs: the paper divides the likelihood by the reward of the response and prints it with the wrong sign.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    check_shapes(
        1, mean=policy_chosen_mean_logps, smoothing=chosen_label_smoothing, chosen=policy_chosen_sequence_logps
    )
    rewards = implicit_rewards(policy, reference, beta)
    smoothing = chosen_label_smoothing.detach().nan_to_num()
    losses = logistic(rewards[0] - rewards[1], smoothing) - nll_weight * policy_chosen_mean_logps
    return losses, reward_metrics(*rewards) | {"label_smoothing": smoothing, "nll": -policy_chosen_mean_logps.detach()}
