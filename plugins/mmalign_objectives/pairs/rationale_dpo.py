"""Preferences with their explanation: the rationale of a pair is learned beside the preference.

The paper adds the log-likelihood of the rationale, the official code its logistic loss; both are here. Provably robust
DPO and length-regularised DPO, which are called RDPO, too, are other methods.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.orpo import orpo_loss
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.shapes import check_shapes

_RATIONALE_DPO = ObjectiveSpec(
    name="rationale_dpo",
    summary="DPO that also learns the explanation of every preference.",
    loss=f"{__name__}:rationale_dpo_loss",
    config=f"{__name__}:RationaleDPOConfig",
    per="pair",
    over="rationale_row",
    equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - gamma p_why; bounded: - logsigmoid(gamma p_why)",
    paper="Data-Centric Human Preference Optimization with Rationales (arXiv:2407.14477)",
)
SPECS = (
    _RATIONALE_DPO,
    replace(
        _RATIONALE_DPO,
        name="rationale_orpo",
        summary="ORPO that also learns the explanation of every preference.",
        loss=f"{__name__}:rationale_orpo_loss",
        config=f"{__name__}:RationaleORPOConfig",
        # The odds are those of a probability, which a bound on a log-prob is not.
        log_prob_kinds=("exact",),
        equation="-pc / lc - odds_weight logsigmoid(log odds ratio) - gamma p_why",
    ),
    replace(
        _RATIONALE_DPO,
        name="rationale",
        summary="Likelihood of the explanation of every preference alone, to be added to any objective on pairs.",
        loss=f"{__name__}:rationale_loss",
        config=f"{__name__}:RationaleConfig",
        equation="-gamma p_why; bounded: -logsigmoid(gamma p_why)",
    ),
)


class RationaleDPOConfig(Parameters):
    """DPO with rationales."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    gamma: float = Field(default=0.1, ge=0)
    """Weight of the log-likelihood of the rationale."""
    bounded: bool = False
    """Take the logistic loss of the weighted log-likelihood, as the official code does; it adds ln 2 at weight 0."""


class RationaleConfig(Parameters):
    """The term of the rationale alone."""

    gamma: float = Field(default=1.0, gt=0)
    """Factor of the log-likelihood; without `bounded` it does what the weight of the objective does."""
    bounded: bool = False
    """Take the logistic loss of the weighted log-likelihood, as the official code does."""


class RationaleORPOConfig(Parameters):
    """ORPO with rationales."""

    odds_weight: float = Field(default=0.1, ge=0)
    """Weight of the odds-ratio term."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the log-likelihood of the rationale."""


def rationale_dpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    policy_rationale_sequence_logps: Tensor,
    *,
    beta: float,
    gamma: float,
    bounded: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the DPO loss of every pair plus that of its rationale.

    Args: the first four are those of `dpo_loss`.
        policy_rationale_sequence_logps: [M], nats, summed over the steps of the explanation.
        beta: inverse temperature of the implicit reward, positive.
        gamma: weight of the rationale, at least 0.
        bounded: logistic loss of the weighted log-likelihood instead of its negative.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2407.14477, RDPO.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    check_shapes(1, policy_chosen=policy_chosen_sequence_logps, policy_rationale=policy_rationale_sequence_logps)
    losses, metrics = dpo_loss(*policy, *reference, beta=beta, label_smoothing=0.0)
    explained, _ = rationale_loss(policy_rationale_sequence_logps, gamma=gamma, bounded=bounded)
    return losses + explained, metrics


def rationale_loss(
    policy_rationale_sequence_logps: Tensor, *, gamma: float, bounded: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of every pair's rationale alone, to be added to any objective on pairs.

    Args:
        policy_rationale_sequence_logps: [M], nats, summed over the steps of the explanation.
        gamma: factor of the log-likelihood.
        bounded: its logistic loss instead of its negative.

    Returns:
        losses [M] and no metrics.

    Source: arXiv:2407.14477.
    """
    check_shapes(1, policy_rationale=policy_rationale_sequence_logps)
    likelihood = gamma * policy_rationale_sequence_logps
    return logistic(likelihood) if bounded else -likelihood, {}


def rationale_orpo_loss(
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    policy_rationale_sequence_logps: Tensor,
    *,
    odds_weight: float,
    gamma: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the ORPO loss of every pair less the weighted log-likelihood of its rationale.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        policy_rejected_mean_logps: [M], nats, mean over steps.
        policy_rationale_sequence_logps: [M], nats, summed over the steps of the explanation.
        odds_weight: weight of the odds-ratio term, at least 0.
        gamma: weight of the rationale, at least 0.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2407.14477, RORPO.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_rationale=policy_rationale_sequence_logps)
    losses, metrics = orpo_loss(policy_chosen_mean_logps, policy_rejected_mean_logps, odds_weight=odds_weight)
    return losses - gamma * policy_rationale_sequence_logps, metrics
