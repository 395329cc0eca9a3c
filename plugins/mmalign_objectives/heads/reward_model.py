"""Reward-model training: the Bradley-Terry likelihood of scores."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="reward_model",
        aliases=("bradley_terry",),
        summary="Bradley-Terry likelihood of preferences under a score head.",
        loss=f"{__name__}:reward_model_loss",
        config=f"{__name__}:RewardModelConfig",
        per="pair",
        equation="-logsigmoid((chosen - rejected - margin) / temperature) + centering (chosen + rejected)^2",
        paper="Training language models to follow instructions with human feedback (arXiv:2203.02155)",
    ),
)


class RewardModelConfig(Parameters):
    """Bradley-Terry reward model."""

    margin_scale: float = Field(default=0.0, ge=0)
    """Score margin that is asked for per unit of preference strength; 0 asks for none."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong."""
    centering: float = Field(default=0.0, ge=0)
    """Weight of the squared sum of both scores, which fixes their zero point; 0.01 is usual."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the margin."""


def reward_model_loss(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    pair_strength: Tensor,
    *,
    margin_scale: float,
    label_smoothing: float,
    centering: float,
    temperature: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every preference under the scores.

    Args:
        chosen_scores: [M].
        rejected_scores: [M].
        pair_strength: [M], by how much chosen is preferred; read only where margin_scale is not 0.
        margin_scale: score margin that is asked for per unit of strength, at least 0.
        label_smoothing: probability that a label is flipped, in [0, 0.5].
        centering: weight of the squared sum of both scores, at least 0.
        temperature: divides the margin, positive.

    Returns:
        losses [M] and detached metrics [M]; the rewards in them are the scores.

    Source: arXiv:2203.02155, equation 1; margin arXiv:2307.09288, equation 2; centering arXiv:2312.09244, section 2.
    """
    check_shapes(1, chosen_scores=chosen_scores, rejected_scores=rejected_scores, pair_strength=pair_strength)
    margins = chosen_scores - rejected_scores
    if margin_scale:
        margins = margins - margin_scale * pair_strength
    losses = logistic(margins / temperature, label_smoothing) + centering * (chosen_scores + rejected_scores) ** 2
    return losses, reward_metrics(chosen_scores, rejected_scores)
