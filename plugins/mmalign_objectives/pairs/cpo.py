"""Contrastive preference optimisation: DPO with a uniform reference, plus a likelihood term."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.divergences import alpha_rewards
from mmalign_objectives.support.links import Link, smoothed
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="cpo",
        summary="DPO with a uniform reference plus the likelihood of the chosen response.",
        loss=f"{__name__}:cpo_loss",
        config=f"{__name__}:CPOConfig",
        per="pair",
        equation="-logsigmoid(beta (pc - pr)) - nll_weight pc / lc",
        paper="Contrastive Preference Optimization (arXiv:2401.08417)",
    ),
)


class CPOConfig(Parameters):
    """Contrastive preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    nll_weight: float = Field(default=1.0, ge=0)
    """Weight of the negative mean log-prob of the chosen response."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong."""
    link: Link = "logistic"
    """logistic, or hinge: a pair teaches until its reward margin is 1."""
    alpha: float = Field(default=0.0, ge=-100, le=100)
    """Bends the reward to beta (1 - p^-alpha) / alpha of the probability p (AlphaPO); 0 leaves it beta log p."""


def cpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    policy_chosen_mean_logps: Tensor,
    *,
    beta: float,
    nll_weight: float,
    label_smoothing: float,
    link: Link,
    alpha: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of the log-prob margin of every pair plus a likelihood term.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps.
        policy_rejected_sequence_logps: [M], nats, summed over steps.
        policy_chosen_mean_logps: [M], nats, mean over steps.
        beta: inverse temperature of the implicit reward, positive.
        nll_weight: weight of the likelihood term, at least 0.
        label_smoothing: probability that a label is flipped, in [0, 0.5].
        link: from margin to loss.
        alpha: bends the reward, see `alpha_rewards`.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is beta times the log-prob.

    Source: arXiv:2401.08417, equations 3 to 5; `alpha` from AlphaPO, arXiv:2501.03884.
    Differs: the likelihood term is a mean per response; TRL averages over all chosen steps of a batch.
    """
    check_shapes(
        1,
        policy_chosen=policy_chosen_sequence_logps,
        policy_rejected=policy_rejected_sequence_logps,
        policy_chosen_mean=policy_chosen_mean_logps,
    )
    chosen_rewards = beta * alpha_rewards(policy_chosen_sequence_logps, alpha)
    rejected_rewards = beta * alpha_rewards(policy_rejected_sequence_logps, alpha)
    preference = smoothed(chosen_rewards - rejected_rewards, link, label_smoothing)
    return preference - nll_weight * policy_chosen_mean_logps, reward_metrics(chosen_rewards, rejected_rewards)
