"""Distillation of an aligned teacher into a student: DCKD by its distributions, ADPA by its advantages.

DCKD brings the student's distribution to the teacher's along both responses of a pair. ADPA maximises the expected
advantage of what the student would do next; the advantage of a token is the log-ratio of two teachers, one before and
one after alignment. It is summed over the whole vocabulary, along a response that the student wrote: the rejected one.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.shapes import check_shapes

_DCKD = ObjectiveSpec(
    name="dckd",
    summary="Likelihood of the chosen response and KL from an aligned teacher along both responses.",
    loss=f"{__name__}:dckd_loss",
    config=f"{__name__}:DCKDConfig",
    per="pair",
    log_prob_kinds=("exact",),
    equation="-pc / lc + kl_weight (mean_t KL(T, p) on chosen + mean_t KL(T, p) on rejected)",
    paper="Advantage-Guided Distillation for Preference Alignment in Small Language Models (arXiv:2502.17927)",
)
SPECS = (
    _DCKD,
    replace(
        _DCKD,
        name="adpa",
        summary="Likelihood of the chosen response and expected advantage by two teachers along the rejected one.",
        loss=f"{__name__}:adpa_loss",
        config=f"{__name__}:ADPAConfig",
        equation="-pc / lc - gamma mean_t sum over v of p(v) beta (log dpo_teacher(v) - log reference_teacher(v))",
    ),
)


class DCKDConfig(Parameters):
    """Dual-constrained knowledge distillation."""

    kl_weight: float = Field(default=1.0, ge=0)
    """Weight of the KL from the teacher along both responses."""


class ADPAConfig(Parameters):
    """Advantage-guided distillation for preference alignment."""

    beta: float = Field(default=0.1, gt=0)
    """Temperature of the aligned teacher: what its log-ratio is multiplied by to be an advantage."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the expected advantage."""


def dckd_loss(
    policy_chosen_mean_logps: Tensor,
    teacher_chosen_mean_forward_kl: Tensor,
    teacher_rejected_mean_forward_kl: Tensor,
    *,
    kl_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the likelihood of the chosen response and the KL from the teacher along both.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        teacher_chosen_mean_forward_kl: [M], KL(teacher, policy) in nats, mean over the steps of the chosen response.
        teacher_rejected_mean_forward_kl: [M], likewise of the rejected response.
        kl_weight: weight of the sum of both, at least 0.

    Returns:
        losses [M], and detached metrics [M]: `nll` and both KLs.

    Source: arXiv:2502.17927, the objective of DCKD.
    Differs: the likelihood is a mean over steps like the KL, so long responses do not outweigh it.
    """
    kls = {"chosen_kl": teacher_chosen_mean_forward_kl, "rejected_kl": teacher_rejected_mean_forward_kl}
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, **kls)
    losses = -policy_chosen_mean_logps + kl_weight * (teacher_chosen_mean_forward_kl + teacher_rejected_mean_forward_kl)
    metrics = {"nll": -policy_chosen_mean_logps, **kls}
    return losses, {name: value.detach() for name, value in metrics.items()}


def adpa_loss(
    policy_chosen_mean_logps: Tensor,
    dpo_teacher_rejected_mean_expected_logps: Tensor,
    reference_teacher_rejected_mean_expected_logps: Tensor,
    *,
    beta: float,
    gamma: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the likelihood of the chosen response less the expected advantage along the rejected one.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        dpo_teacher_rejected_mean_expected_logps: [M], sum over v of policy(v) log teacher(v), nats, mean over the
            steps of the rejected response; the teacher is the aligned one.
        reference_teacher_rejected_mean_expected_logps: [M], likewise under the teacher before its alignment.
        beta: what the log-ratio of the teachers is multiplied by, positive.
        gamma: weight of the advantage, at least 0.

    Returns:
        losses [M], and detached metrics [M]: `nll` and `advantages`, the expected advantage of a step.

    Source: arXiv:2502.17927, the objective of ADPA.
    Differs: the likelihood is a mean over steps like the advantage.
    """
    aligned, unaligned = dpo_teacher_rejected_mean_expected_logps, reference_teacher_rejected_mean_expected_logps
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, aligned=aligned, unaligned=unaligned)
    advantages = beta * (aligned - unaligned)
    losses = -policy_chosen_mean_logps - gamma * advantages
    return losses, {"nll": -policy_chosen_mean_logps.detach(), "advantages": advantages.detach()}
