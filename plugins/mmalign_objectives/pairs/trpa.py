"""Trust region preference approximation, offline: pairs across preference levels, with an extra weight for level 1.

Rules put every response on a level: 1 right, 2 wrong, 3 without an answer, 4 of bad format; any response is preferred
to those of higher levels. The trust region is an objective of its own, a `kl_penalty` that is added to this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.response_rows import iter_responses
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import Batch

SPECS = (
    ObjectiveSpec(
        name="trpa",
        summary="Pairs across preference levels, those of the best level with a larger margin; add a `kl_penalty`.",
        loss=f"{__name__}:trpa_loss",
        config=f"{__name__}:TRPAConfig",
        per="pair",
        equation="-logsigmoid(k beta ((pc - rc) / lc - (pr - rr) / lr)), k = anisotropy on level 1, else 1",
        paper="Trust Region Preference Approximation (arXiv:2504.04524)",
    ),
    QuantitySpec(
        name="levels",
        summary="Preference level of a response, 1 for the best: its score `level`, else its rank; NaN if unknown.",
        compute=f"{__name__}:compute_levels",
        axes="N",
        stage="data",
        needs=("ranks", "prompt_index"),
    ),
)


BEST_LEVEL = 1


class TRPAConfig(Parameters):
    """Trust region preference approximation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward, which is a mean over steps."""
    anisotropy: float = Field(default=2.5, gt=0)
    """Factor of the margin of pairs whose chosen response is on level 1."""


def trpa_loss(
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    reference_chosen_mean_logps: Tensor,
    reference_rejected_mean_logps: Tensor,
    chosen_levels: Tensor,
    *,
    beta: float,
    anisotropy: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of every pair's margin of mean log-ratios, scaled by the level of chosen.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps; so are the other three.
        policy_rejected_mean_logps: [M].
        reference_chosen_mean_logps: [M], no gradient.
        reference_rejected_mean_logps: [M], no gradient.
        chosen_levels: [M], preference level of chosen, 1 for the best there can be; NaN is no level 1.
        beta: inverse temperature of the implicit reward, positive.
        anisotropy: factor of the margin where chosen is on level 1, positive.

    Returns:
        losses [M] and detached metrics [M]; the rewards in them are without the factor.

    Source: arXiv:2504.04524, with length-normalised log-ratios and one factor a pair as in the official code;
    the paper scales the log-ratio of each response by the factor of its own level.
    Differs: a batch without pairs has no loss; the official code then treats every response as labelled.
    """
    policy = (policy_chosen_mean_logps, policy_rejected_mean_logps)
    reference = (reference_chosen_mean_logps, reference_rejected_mean_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    check_shapes(1, chosen_rewards=chosen_rewards, chosen_levels=chosen_levels)
    margins = chosen_rewards - rejected_rewards
    losses = logistic(torch.where(chosen_levels == BEST_LEVEL, anisotropy * margins, margins))
    return losses, reward_metrics(chosen_rewards, rejected_rewards)


def compute_levels(batch: Batch) -> Tensor:
    """Reads the preference level of every response, 1 for the best there can be: [N]; NaN where it is unknown.

    A level is the response's score of the name `level`. Records without such scores have their ranks for levels.
    """
    levels = batch.quantities["ranks"].clone()
    for row, (record, response) in enumerate(iter_responses(batch)):
        named = {score.item: score.value for score in record.scores if score.name == "level"}
        if named:
            value = named.get(response.rid)
            levels[row] = torch.nan if value is None else value
    return levels
