"""Tree preference optimisation: all branches of a reasoning tree as one ranked list, compared step by step.

Not to be confused with triple preference optimisation, which shares its abbreviation. A step counts the more, the less
its embedding resembles that of the same step of the other response.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.lists import group_lists, mark_better, ranking_metrics
from mmalign_objectives.support.ranking_losses import swap_weights
from mmalign_objectives.support.reasoning_steps import sum_by_step
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="tpo_tree",
        summary="Branches of a reasoning tree as a ranked list, compared step by step (the TPO that is about trees).",
        loss=f"{__name__}:tpo_tree_loss",
        config=f"{__name__}:TPOTreeConfig",
        per="prompt",
        over="graded",
        equation=(
            "sum over g_i > g_j of -delta_ij logsigmoid(beta sum_s (2 - cos(h_is, h_js)) (d_is - d_js)), d_is: "
            "log-ratio of step s, delta: change of discounted gain by a swap"
        ),
        paper=(
            "TPO: Aligning Large Language Models with Multi-branch & Multi-step Preference Trees (arXiv:2410.12854)"
        ),
    ),
)


class TPOTreeConfig(Parameters):
    """Tree preference optimisation."""

    beta: float = Field(default=0.5, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def tpo_tree_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    step_index: Tensor,
    step_embeddings: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of all branches of every prompt's tree; see `compare_branches`.

    A reasoning step that the other branch does not have is compared with one of log-ratio 0 and no resemblance.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        step_index: [N, T], the reasoning step that a scored one belongs to, from 1; 0 for none, which does not count.
        step_embeddings: [N, S, D], no gradient; S at least the largest `step_index`.
        grades: [N], value of each branch, the higher the better; NaN where it is unknown.
        prompt_index: [N], which prompt a response answers.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [P] by ascending prompt, and detached metrics [P].

    Source: arXiv:2410.12854.
    """
    check_shapes(2, policy=policy_logps, reference=reference_logps, step_index=step_index)
    lists = group_lists(prompt_index, ~grades.isnan())
    ratios = sum_by_step(policy_logps - reference_logps, step_index, step_embeddings.shape[1])  # [N, S]
    weights = step_weights_of(lists.pad(step_embeddings))
    return compare_branches(lists.pad(ratios), weights, lists.pad(grades), lists.mask, beta=beta)


def compare_branches(
    step_log_ratios: Tensor, step_weights: Tensor, grades: Tensor, mask: Tensor, *, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the LambdaRank loss of every prompt's branches, with margins that are weighted sums over steps.

    Args:
        step_log_ratios: [P, K, S], log(policy / reference) of each reasoning step, nats; 0 beyond a branch's last one.
        step_weights: [P, K, K, S], weight of step s between branches i and j, no gradient; see `step_weights_of`.
        grades: [P, K], value of each branch, the higher the better.
        mask: [P, K] bool.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [P], a sum over (better, worse), and detached metrics [P], see `ranking_metrics`.

    Source: arXiv:2410.12854, tree preference optimisation with the adaptive step reward.
    Differs: the official code ascends its ranking loss, weighs similar steps more, and has no LambdaRank weights; this
    is the form of the paper.
    """
    check_shapes(2, grades=grades, mask=mask, rewards=step_log_ratios.sum(dim=2))
    rewards = beta * step_log_ratios
    margins = (step_weights.detach() * (rewards[:, :, None] - rewards[:, None, :])).sum(dim=3)  # [P, K, K]
    totals = rewards.sum(dim=2)
    losses = swap_weights(totals.detach(), grades, mask) * logistic(margins)
    return torch.where(mark_better(grades, mask), losses, 0).sum(dim=(1, 2)), ranking_metrics(totals, grades, mask)


def step_weights_of(embeddings: Tensor) -> Tensor:
    """Computes 1 + (1 - cosine similarity) of the same step of every two branches: [P, K, S, D] to [P, K, K, S].

    A weight is 1 for equal embeddings and 3 for opposite ones; embeddings are means of a step's hidden states.
    """
    return 2 - cosine_similarity(embeddings[:, :, None], embeddings[:, None, :], dim=4).detach()
