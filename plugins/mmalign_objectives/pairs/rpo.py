"""Regularised preference optimisation: DPO plus imitation of the chosen response.

The paper prints the imitation term with the summed log-prob times beta (`rpo_sum`); its authors also train with the
mean log-prob (`rpo_mean`), so that the two weights differ by a factor of beta times the length.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.pairs.dpo import dpo_loss

_RPO_SUM = ObjectiveSpec(
    name="rpo_sum",
    summary="DPO plus imitation of the chosen response by its summed log-prob.",
    loss=f"{__name__}:rpo_sum_loss",
    config=f"{__name__}:RPOSumConfig",
    per="pair",
    equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - eta beta pc",
    paper="Provably Mitigating Overoptimization in RLHF (arXiv:2405.16436)",
)
SPECS = (
    _RPO_SUM,
    replace(
        _RPO_SUM,
        name="rpo_mean",
        summary="DPO plus imitation of the chosen response by its mean log-prob.",
        loss=f"{__name__}:rpo_mean_loss",
        config=f"{__name__}:RPOMeanConfig",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - eta pc / lc",
    ),
)


class RPOSumConfig(Parameters):
    """DPO plus the summed log-prob of the chosen response."""

    beta: float = Field(default=0.01, gt=0)
    """Inverse temperature of the implicit reward."""
    eta: float = Field(default=0.005, ge=0)
    """Weight of the imitation term, which is eta beta times the negative log-likelihood."""


class RPOMeanConfig(Parameters):
    """DPO plus the mean log-prob of the chosen response."""

    beta: float = Field(default=0.5, gt=0)
    """Inverse temperature of the implicit reward."""
    eta: float = Field(default=0.2, ge=0)
    """Weight of the imitation term, which is eta times the negative mean log-prob; `rpo_alpha` in TRL."""


def rpo_sum_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    eta: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the DPO loss of every pair plus eta beta times the negative log-likelihood of the chosen response.

    Args: the log-probs are those of `dpo_loss`.
        eta: weight of the imitation term, at least 0.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.16436, the loss of RPO.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    losses, metrics = dpo_loss(*policy, *reference, beta=beta, label_smoothing=0.0)
    return losses - eta * beta * policy_chosen_sequence_logps, metrics


def rpo_mean_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    policy_chosen_mean_logps: Tensor,
    *,
    eta: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the DPO loss of every pair plus eta times the negative mean log-prob of the chosen response.

    Args: the first four are those of `dpo_loss`.
        policy_chosen_mean_logps: [M], nats, mean over steps.
        eta: weight of the imitation term, at least 0.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.16436, the loss of RPO, with the mean of the authors' code.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    losses, metrics = dpo_loss(*policy, *reference, beta=beta, label_smoothing=0.0)
    return losses - eta * policy_chosen_mean_logps, metrics
