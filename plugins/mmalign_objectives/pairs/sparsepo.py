"""Token-level DPO under masks: how much each step counts for the reward, and how much for the divergence.

MaPO reads one mask off the activations of the reference. SparsePO learns masks together with the policy, one for both
or one for each. The masks themselves are quantities: `token_masks` has what computes them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, masked_mean
from mmalign_objectives.pairs.tdpo import kl_difference, kl_metrics
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

_SPARSEPO = ObjectiveSpec(
    name="sparsepo",
    summary="Token-level DPO under two learned sparse masks of steps, of rewards and of divergences.",
    loss=f"{__name__}:sparsepo_loss",
    config=f"{__name__}:SparsePOConfig",
    per="pair",
    log_prob_kinds=("exact",),
    equation=(
        "-logsigmoid(beta (u(w) - u(l) - (k(l) - k(w)))) + sum of both (a |m_u|_1 + b |m_d|_1), u = sum_t "
        "m_u (p_t - r_t), k = sum_t m_d KL_t(reference, policy)"
    ),
    paper="SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks (arXiv:2410.05102)",
)
SPECS = (
    _SPARSEPO,
    replace(
        _SPARSEPO,
        name="sparsepo_common",
        summary="Token-level DPO under one learned sparse mask of steps, for rewards and divergences.",
        loss=f"{__name__}:sparsepo_common_loss",
    ),
    replace(
        _SPARSEPO,
        name="sparsepo_activations",
        aliases=("token_mapo",),
        summary="Token-level DPO under a mask that is read off the activations of the reference.",
        loss=f"{__name__}:mapo_loss",
        config=f"{__name__}:MaPOConfig",
        equation=(
            "-logsigmoid(beta (u(w) - u(l) - (k(l) - k(w)))), u = sum_t m (p_t - r_t), k = sum_t m "
            "KL_t(reference, policy)"
        ),
    ),
)


class MaPOConfig(Parameters):
    """Token-level DPO under a mask of activations."""

    beta: float = Field(default=0.8, gt=0)
    """Inverse temperature of the implicit reward."""


class SparsePOConfig(MaPOConfig):
    """Token-level DPO under learned masks."""

    reward_sparsity: float = Field(default=0.0, ge=0)
    """Weight of the L1 norm of the mask of rewards, along both responses."""
    divergence_sparsity: float = Field(default=0.0, ge=0)
    """Weight of the L1 norm of the mask of divergences, along both responses."""


def sparsepo_loss(  # noqa: PLR0913
    policy_logps: Tensor,
    reference_logps: Tensor,
    reference_forward_kl: Tensor,
    reward_mask: Tensor,
    divergence_mask: Tensor,
    step_mask: Tensor,
    pairs: Tensor,
    *,
    beta: float,
    reward_sparsity: float,
    divergence_sparsity: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of masked log-ratios less the difference of masked KLs, for every pair.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        reference_forward_kl: [N, T], KL(reference, policy) of the whole distribution of each step, with gradient.
        reward_mask: [N, T], at least 0, what the log-ratio of each step is multiplied by.
        divergence_mask: [N, T], at least 0, what the KL of each step is multiplied by.
        step_mask: [N, T] bool.
        pairs: [M, 2], (chosen, rejected) rows.
        beta: inverse temperature of the implicit reward, positive.
        reward_sparsity: weight of the L1 norm of the mask of rewards, at least 0.
        divergence_sparsity: weight of the L1 norm of the mask of divergences, at least 0.

    Returns:
        losses [M], and detached metrics [M]: masked rewards and KLs, and `reward_density` and `divergence_density`,
        the share of steps whose mask is above 0.

    Source: arXiv:2410.05102, the objectives of MaPO and SparsePO; 1 everywhere is TDPO1 (arXiv:2404.11999).
    """
    steps = {"policy": policy_logps, "reference": reference_logps, "kl": reference_forward_kl}
    check_shapes(2, step_mask=step_mask, **steps, reward_mask=reward_mask, divergence_mask=divergence_mask)
    log_ratios = torch.where(step_mask, policy_logps - reference_logps, 0)
    reward_mask, divergence_mask = (torch.where(step_mask, one, 0) for one in (reward_mask, divergence_mask))
    rewards = beta * (reward_mask * log_ratios).sum(dim=1)  # [N]
    kls = (divergence_mask * torch.where(step_mask, reference_forward_kl, 0)).sum(dim=1)
    norms = reward_sparsity * reward_mask.abs().sum(dim=1) + divergence_sparsity * divergence_mask.abs().sum(dim=1)
    chosen, rejected = pairs.unbind(dim=1)
    both = (kls[chosen], kls[rejected])
    losses = (
        logistic(rewards[chosen] - rewards[rejected] - beta * kl_difference(both)) + norms[chosen] + norms[rejected]
    )
    density = {
        "reward_density": _density(reward_mask, step_mask, pairs),
        "divergence_density": _density(divergence_mask, step_mask, pairs),
    }
    return losses, reward_metrics(rewards[chosen], rewards[rejected]) | kl_metrics(both) | density


def sparsepo_common_loss(  # noqa: PLR0913
    policy_logps: Tensor,
    reference_logps: Tensor,
    reference_forward_kl: Tensor,
    token_mask: Tensor,
    step_mask: Tensor,
    pairs: Tensor,
    *,
    beta: float,
    reward_sparsity: float,
    divergence_sparsity: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of `sparsepo_loss` with one mask [N, T] for both."""
    return sparsepo_loss(
        policy_logps,
        reference_logps,
        reference_forward_kl,
        token_mask,
        token_mask,
        step_mask,
        pairs,
        beta=beta,
        reward_sparsity=reward_sparsity,
        divergence_sparsity=divergence_sparsity,
    )


def mapo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    reference_forward_kl: Tensor,
    activation_mask: Tensor,
    step_mask: Tensor,
    pairs: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of `sparsepo_loss` with one constant mask [N, T] for both; its L1 norm has no gradient.

    Source: arXiv:2410.05102, MaPO.
    """
    options = {"beta": beta, "reward_sparsity": 0.0, "divergence_sparsity": 0.0}
    mask = activation_mask.detach()
    return sparsepo_common_loss(policy_logps, reference_logps, reference_forward_kl, mask, step_mask, pairs, **options)


def _density(mask: Tensor, step_mask: Tensor, pairs: Tensor) -> Tensor:
    """Averages over both responses of a pair [M] the share of steps that count, and that a mask lets through."""
    return masked_mean((mask.detach() > 0).float(), step_mask)[pairs].mean(dim=1)
