"""SmPO: DPO between smoothed densities, so that a pair counts as much as a reward model tells its images apart.

The path to the noise, an inversion in the paper, is a setting of the diffusion modality, not of the loss.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, Unbounded
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="smpo",
        summary="DPO weighted by how far a reward model tells a pair apart; its inversion is chosen in the modality.",
        loss=f"{__name__}:smpo_loss",
        config=f"{__name__}:SmPOConfig",
        per="pair",
        over="ratings",
        equation="-logsigmoid(gamma (2 q - 1) beta (pc - rc - pr + rr)), q = sigmoid((R_c - R_r) / (max R - min R))",
        paper="Smoothed Preference Optimization via ReNoise Inversion (arXiv:2506.02698)",
    ),
)


class SmPOConfig(Parameters):
    """Smoothed preference optimisation."""

    beta: float = Field(default=5000.0, gt=0)
    """Inverse temperature of the implicit reward, as in `diffusion_dpo`: 5000 for SDXL, 2000 for SD 1.5."""
    gamma: float = Field(default=10.0, gt=0)
    """Scale of the weights, which are gamma (2 p - 1) for a probability p that chosen is preferred."""
    lowest_rating: Annotated[float, Unbounded("in the units of the ratings")]
    """The lowest rating in the data; the official code has 0.11543526500463486 for PickScore on Pick-a-Pic v2."""
    highest_rating: Annotated[float, Unbounded("in the units of the ratings")]
    """The highest rating in the data; the official code has 0.28201571106910706 for PickScore on Pick-a-Pic v2."""

    @model_validator(mode="after")
    def _check_range(self) -> SmPOConfig:
        if not self.highest_rating > self.lowest_rating:
            raise ValueError(
                f"highest_rating: expected more than lowest_rating {self.lowest_rating}, got {self.highest_rating}"
            )
        return self


def smpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    chosen_ratings: Tensor,
    rejected_ratings: Tensor,
    *,
    beta: float,
    gamma: float,
    lowest_rating: float,
    highest_rating: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the implicit-reward margin of every pair, times its weight.

    A pair of equal ratings has weight 0; one whose chosen response is rated lower has a negative weight, so the loss
    goes by the ratings, whatever the label says.

    Args: the log-probs are those of `dpo_loss`.
        chosen_ratings: [M], no gradient.
        rejected_ratings: [M].
        beta: inverse temperature of the implicit reward, positive.
        gamma: scale of the weights, positive.
        lowest_rating: the rating that counts as 0.
        highest_rating: the rating that counts as 1.

    Returns:
        losses [M] and detached metrics [M]: those of DPO and `pair_weights`.

    Source: arXiv:2506.02698, the loss of SmPO-Diffusion, and its official code.
    """
    check_shapes(1, policy=policy_chosen_sequence_logps, chosen_ratings=chosen_ratings, rejected=rejected_ratings)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    weights = gamma * (2 * _preference(chosen_ratings, rejected_ratings, highest_rating - lowest_rating) - 1)
    metrics = reward_metrics(chosen_rewards, rejected_rewards)
    return logistic(weights * (chosen_rewards - rejected_rewards)), {**metrics, "pair_weights": weights}


def _preference(chosen: Tensor, rejected: Tensor, span: float) -> Tensor:
    """Computes the Bradley-Terry probability [M] of ratings that are scaled to a span of 1."""
    return torch.sigmoid((chosen - rejected).detach() / span)
