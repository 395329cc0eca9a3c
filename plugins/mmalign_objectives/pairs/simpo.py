"""SimPO: mean log-probs as the implicit reward, and a margin that chosen must win by.

AlphaPO, which bends the reward, and CPO-SimPO, which adds a likelihood term, are presets.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.divergences import alpha_rewards
from mmalign_objectives.support.links import Link, smoothed
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

_SIMPO = ObjectiveSpec(
    name="simpo",
    summary="Logistic loss of the margin of mean log-probs, less a required margin.",
    loss=f"{__name__}:simpo_loss",
    config=f"{__name__}:SimPOConfig",
    per="pair",
    equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma)",
    paper="SimPO: Simple Preference Optimization with a Reference-Free Reward (arXiv:2405.14734)",
)
SPECS = (
    _SIMPO,
    replace(
        _SIMPO,
        name="alpha_po",
        aliases=("alphapo",),
        summary="SimPO whose reward is bent, which changes how fast likelihoods fall.",
        config=f"{__name__}:AlphaPOConfig",
        equation="-logsigmoid(f(pc / lc) - f(pr / lr) - gamma), f(u) = beta (1 - exp(-alpha u)) / alpha",
        paper="AlphaPO: Reward Shape Matters for LLM Alignment (arXiv:2501.03884)",
    ),
    replace(
        _SIMPO,
        name="cpo_simpo",
        summary="SimPO plus the likelihood of the chosen response.",
        config=f"{__name__}:CPOSimPOConfig",
        equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma) - nll_weight pc / lc",
        paper="Contrastive Preference Optimization (arXiv:2401.08417) with SimPO (arXiv:2405.14734)",
    ),
)


class SimPOConfig(Parameters):
    """Simple preference optimisation."""

    beta: float = Field(default=2.0, gt=0)
    """Scale of the implicit reward, which is beta times the mean log-prob; about 20 times that of DPO."""
    gamma: float = Field(default=1.0, ge=0)
    """Reward margin that is asked for; the official code names the ratio gamma / beta, 0.1 to 0.8."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong."""
    link: Link = "logistic"
    """logistic, or hinge: a pair teaches until its reward margin is 1 + gamma."""
    nll_weight: float = Field(default=0.0, ge=0)
    """Weight of the negative mean log-prob of the chosen response."""
    alpha: float = Field(default=0.0, ge=-100, le=100)
    """Bends the reward to beta (1 - p^-alpha) / alpha of the mean probability p; 0 leaves it beta log p."""


class AlphaPOConfig(SimPOConfig):
    """SimPO with a bent reward."""

    alpha: float = Field(default=0.25, ge=-100, le=100)
    """Bends the reward to beta (1 - p^-alpha) / alpha of the mean probability p; 0 would be SimPO."""


class CPOSimPOConfig(SimPOConfig):
    """SimPO with a likelihood term."""

    nll_weight: float = Field(default=1.0, ge=0)
    """Weight of the negative mean log-prob of the chosen response."""


def simpo_loss(  # noqa: PLR0913
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    *,
    beta: float,
    gamma: float,
    label_smoothing: float,
    link: Link,
    nll_weight: float,
    alpha: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of the length-normalised margin of every pair, less gamma, plus a likelihood term.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        policy_rejected_mean_logps: [M], nats, mean over steps.
        beta: scale of the implicit reward, positive.
        gamma: reward margin that is asked for, at least 0.
        label_smoothing: probability that a label is flipped, in [0, 0.5].
        link: from margin to loss.
        nll_weight: weight of the likelihood term, at least 0.
        alpha: bends the reward, see `alpha_rewards`.

    Returns:
        losses [M] and detached metrics [M]; the margins in them are without gamma.

    Source: arXiv:2405.14734, equation 6; `alpha` from AlphaPO, arXiv:2501.03884.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_rejected=policy_rejected_mean_logps)
    chosen_rewards = beta * alpha_rewards(policy_chosen_mean_logps, alpha)
    rejected_rewards = beta * alpha_rewards(policy_rejected_mean_logps, alpha)
    preference = smoothed(chosen_rewards - rejected_rewards - gamma, link, label_smoothing)
    return preference - nll_weight * policy_chosen_mean_logps, reward_metrics(chosen_rewards, rejected_rewards)
