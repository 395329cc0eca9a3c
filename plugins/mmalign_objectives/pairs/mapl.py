"""MAPL, the inter-sample part: of two pairs of one record, the stronger preference should have the larger margin.

Both pairs may be the same two responses under more and under fewer instructions. Each margin is of one prompt, so that
partition functions cancel in it, which they do not where a pair has two prompts.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.lists import differences
from mmalign_objectives.support.rewards import implicit_rewards
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="mapl_inter",
        summary="MAPL, inter-sample: of two pairs of a record the stronger one should have the larger margin.",
        loss=f"{__name__}:mapl_inter_loss",
        config=f"{__name__}:MAPLConfig",
        per="prompt",
        over="ordered_pairs",
        equation="mean over s_i > s_j of -logsigmoid(beta (m_i - m_j)), m = (pc - rc) - (pr - rr)",
        paper="Multi-Level Aware Preference Learning (arXiv:2505.12845)",
    ),
    QuantitySpec(
        name="ordered_pairs",
        summary="True for the responses of records that have pairs of different strength.",
        compute=f"{__name__}:mark_ordered_pairs",
        axes="N",
        stage="data",
    ),
)


class MAPLConfig(Parameters):
    """Multi-level aware preference learning, inter-sample."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def mapl_inter_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    pair_strength: Tensor,
    chosen_prompt_index: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the mean logistic loss of what the margin of a stronger pair is ahead of that of a weaker one.

    Args: the log-probs are those of `dpo_loss`.
        pair_strength: [M], the higher the stronger the preference; a pair with NaN is left out.
        chosen_prompt_index: [M], the record that a pair belongs to; pairs are compared within it.
        prompt_index: [N], the record that a response belongs to.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [P] by ascending `prompt_index`, 0 where no strengths differ, and the detached metric `margin_accuracies`
        [P], the share of comparisons that the margins order alike, a tie counting one half.

    Source: arXiv:2505.12845, the inter-sample loss, as its abstract describes it.
    """
    check_shapes(1, strength=pair_strength, chosen_prompt_index=chosen_prompt_index)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    ahead = differences((chosen_rewards - rejected_rewards)[None])[0]  # [M, M]
    together = chosen_prompt_index[:, None] == chosen_prompt_index[None, :]
    stronger = together & (pair_strength[:, None] > pair_strength[None, :])
    prompts = torch.unique(prompt_index)
    place = torch.searchsorted(prompts, chosen_prompt_index)

    def mean(values: Tensor) -> Tensor:
        counts = torch.zeros(len(prompts), dtype=values.dtype, device=values.device)
        counts = counts.index_add(0, place, stronger.sum(dim=1).to(values))
        sums = torch.zeros_like(counts).index_add(0, place, torch.where(stronger, values, 0).sum(dim=1))
        return sums / counts.clamp(min=1)

    return mean(logistic(ahead)), {"margin_accuracies": mean((ahead.detach().sign() + 1) / 2)}


def mark_ordered_pairs(pairs: Tensor, pair_strength: Tensor, prompt_index: Tensor) -> Tensor:
    """Marks the responses of records that have pairs of different strength: [N] bool."""
    owners = prompt_index[pairs[:, 0]]
    known = ~pair_strength.isnan()
    differ = (owners[:, None] == owners[None, :]) & (pair_strength[:, None] > pair_strength[None, :])
    return torch.isin(prompt_index, owners[known & differ.any(dim=1)])
