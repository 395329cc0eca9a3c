"""MCTS-DPO: pairs of sibling steps of a search tree, trusted as far as the search visited the better one more."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="mcts_dpo",
        summary="Conservative DPO on sibling steps with label smoothing from visit counts.",
        loss=f"{__name__}:mcts_dpo_loss",
        config=f"{__name__}:MCTSDPOConfig",
        per="pair",
        over="visit_counts",
        equation="-(1 - a) logsigmoid(m) - a logsigmoid(-m), a = min(N_r / (max(1, N_c) + N_r), 1/2)",
        paper="Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning (arXiv:2405.00451)",
    ),
)


class MCTSDPOConfig(Parameters):
    """Conservative DPO with label smoothing from visit counts."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def mcts_dpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    chosen_visit_counts: Tensor,
    rejected_visit_counts: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of every pair with the rejected step's share of the visits as label smoothing.

    Args: the log-probs are those of `dpo_loss`, of the steps alone.
        chosen_visit_counts: [M], at least 0.
        rejected_visit_counts: [M], at least 0.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M]: those of DPO and `label_smoothing`.

    Source: arXiv:2405.00451, the online loss of section 3.2.
    """
    check_shapes(1, chosen_visits=chosen_visit_counts, rejected_visits=rejected_visit_counts)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    smoothing = rejected_visit_counts / (chosen_visit_counts.clamp(min=1) + rejected_visit_counts)
    smoothing = smoothing.detach().clamp(max=0.5)
    metrics = reward_metrics(chosen_rewards, rejected_rewards)
    return logistic(chosen_rewards - rejected_rewards, smoothing), {**metrics, "label_smoothing": smoothing}
