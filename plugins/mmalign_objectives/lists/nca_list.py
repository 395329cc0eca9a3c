"""Noise contrastive alignment of K responses with explicit rewards: NCA and InfoNCA.

Both turn the grades of a prompt's responses into target weights softmax(grades / reward_temperature). InfoNCA compares
the responses with each other and so fixes only differences of rewards; NCA judges each by itself, so that the
likelihood of good responses cannot fall.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.lists.lipo import implicit_lists
from mmalign_objectives.support.lists import ranking_metrics
from mmalign_objectives.support.ranking_losses import cross_entropy

_NCA_LIST = ObjectiveSpec(
    name="nca_list",
    summary="Noise contrastive alignment of K responses: each is classified against noise by itself.",
    loss=f"{__name__}:nca_list_loss",
    config=f"{__name__}:NCAListConfig",
    per="prompt",
    over="graded",
    equation="-sum_k (softmax(g / reward_temperature)_k logsigmoid(s_k) + logsigmoid(-s_k) / K)",
    paper="Noise Contrastive Alignment of Language Models with Explicit Rewards (arXiv:2402.05369)",
)
SPECS = (
    _NCA_LIST,
    replace(
        _NCA_LIST,
        name="info_nca",
        summary="Noise contrastive alignment of K responses: which is the best is classified.",
        loss=f"{__name__}:info_nca_loss",
        equation="-sum_k softmax(g / reward_temperature)_k log softmax(s)_k",
    ),
)


class NCAListConfig(Parameters):
    """Noise contrastive alignment of lists."""

    beta: float = Field(default=0.01, gt=0)
    """Inverse temperature of the implicit reward."""
    reward_temperature: float = Field(default=0.01, gt=0)
    """Divides grades before the softmax; towards 0 only the best response has a target weight. Alpha in the paper."""


def nca_list_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
    reward_temperature: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the NCA loss of every prompt's list.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        grades: [N], how good each response is; NaN for those that take no part.
        prompt_index: [N], which prompt a response answers.
        beta: inverse temperature of the implicit reward, positive.
        reward_temperature: divides grades before the softmax, positive.

    Returns:
        losses [P], a sum over responses, and detached metrics [P], see `ranking_metrics`.

    Source: arXiv:2402.05369, the NCA loss of K responses with rewards.
    """
    rewards, known, mask = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    weights = target_weights(known, mask, reward_temperature)
    share = 1 / mask.sum(dim=1, keepdim=True).clamp(min=1).to(rewards.dtype)
    losses = torch.where(mask, -weights * logsigmoid(rewards) - share * logsigmoid(-rewards), 0).sum(dim=1)
    return losses, ranking_metrics(rewards, known, mask)


def info_nca_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
    reward_temperature: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the InfoNCA loss of every prompt's list: the cross-entropy of softmax(rewards) with the target weights.

    Arguments and results are those of `nca_list_loss`.

    Source: arXiv:2402.05369, the InfoNCA loss of K responses with rewards.
    """
    rewards, known, mask = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    losses = cross_entropy(rewards, target_weights(known, mask, reward_temperature), mask)
    return losses, ranking_metrics(rewards, known, mask)


def target_weights(grades: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Computes softmax(grades / temperature) over every list: [P, K], 0 for padding."""
    lowest = torch.finfo(grades.dtype).min / 4
    return (grades / temperature).masked_fill(~mask, lowest).softmax(dim=1).masked_fill(~mask, 0)
