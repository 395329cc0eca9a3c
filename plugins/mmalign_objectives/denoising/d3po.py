"""D3PO: DPO at every step of two sampled trajectories, with importance ratios that are kept near 1.

A preference between two responses counts for each of their steps. `d3po` takes stored pairs; `d3po_online` all pairs of
the responses sampled to a prompt, preferred by reward.
"""

from __future__ import annotations

from dataclasses import replace
from math import log1p

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, masked_mean
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.shapes import check_shapes

_D3PO = ObjectiveSpec(
    name="d3po",
    summary="DPO at every step of the trajectories of a pair, with clipped ratios to the reference.",
    loss=f"{__name__}:d3po_loss",
    config=f"{__name__}:D3POConfig",
    per="pair",
    # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
    log_prob_kinds=("exact",),
    equation="mean_t -logsigmoid(beta (clip(pc_t - rc_t) - clip(pr_t - rr_t))), ratios clipped to 1 -+ clip",
    paper="Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model (arXiv:2311.13231)",
)
SPECS = (
    _D3PO,
    replace(
        _D3PO,
        name="d3po_online",
        summary="D3PO on all pairs of the responses sampled to a prompt, preferred by reward.",
        loss=f"{__name__}:d3po_online_loss",
        per="prompt",
        over="composite_rewards",
        equation=(
            "mean over R_c > R_r of mean_t -logsigmoid(beta (clip(pc_t - rc_t) - clip(pr_t - rr_t))), ratios "
            "clipped to 1 -+ clip"
        ),
    ),
)


class D3POConfig(Parameters):
    """Direct preference for denoising diffusion policy optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward of a step."""
    clip: float = Field(default=0.1, gt=0, lt=1)
    """A step teaches while its ratio of policy and reference is within 1 - clip and 1 + clip."""


def d3po_loss(  # noqa: PLR0913
    chosen_policy_logps: Tensor,
    rejected_policy_logps: Tensor,
    chosen_reference_logps: Tensor,
    rejected_reference_logps: Tensor,
    chosen_step_mask: Tensor,
    rejected_step_mask: Tensor,
    *,
    beta: float,
    clip: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the mean over steps of the logistic loss of every pair's margin of clipped log-ratios.

    Step j of one response is compared with step j of the other; steps that only one of them has are left out.

    Args:
        chosen_policy_logps: [M, T], nats.
        rejected_policy_logps: [M, T].
        chosen_reference_logps: [M, T], no gradient.
        rejected_reference_logps: [M, T], no gradient.
        chosen_step_mask: [M, T] bool.
        rejected_step_mask: [M, T] bool.
        beta: inverse temperature of the implicit reward, positive.
        clip: how far a ratio may be from 1, in (0, 1).

    Returns:
        losses [M] and detached metrics [M], means over steps: `reward_margins`, `reward_accuracies` (0.5 for a tie) and
        `clip_fraction`, the share of ratios that are clipped.

    Source: arXiv:2311.13231 and its official code, which makes an optimiser step of every step of a pair.
    """
    check_shapes(2, chosen_policy=chosen_policy_logps, rejected_policy=rejected_policy_logps)
    mask = chosen_step_mask & rejected_step_mask
    chosen = _log_ratios(chosen_policy_logps, chosen_reference_logps, mask)
    rejected = _log_ratios(rejected_policy_logps, rejected_reference_logps, mask)
    return _compare_steps(chosen, rejected, mask, beta=beta, clip=clip)


def d3po_online_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    step_mask: Tensor,
    composite_rewards: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
    clip: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes for every prompt the mean of `d3po_loss` over the pairs of its responses that differ in reward.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        step_mask: [N, T] bool.
        composite_rewards: [N]; a response with NaN is left out.
        prompt_index: [N], which prompt a response answers.
        beta: inverse temperature of the implicit reward, positive.
        clip: how far a ratio may be from 1, in (0, 1).

    Returns:
        losses [P] by ascending prompt, 0 where no two rewards differ, and detached metrics [P]: those of `d3po_loss`.

    Source: arXiv:2311.13231. Differs: a tie, which has no gradient, does not count in the mean.
    """
    check_shapes(1, composite_rewards=composite_rewards, prompt_index=prompt_index)
    log_ratios = _log_ratios(policy_logps, reference_logps, step_mask)
    same_prompt = prompt_index[:, None] == prompt_index
    chosen, rejected = (same_prompt & (composite_rewards[:, None] > composite_rewards)).nonzero().unbind(dim=1)
    mask = step_mask[chosen] & step_mask[rejected]
    losses, metrics = _compare_steps(log_ratios[chosen], log_ratios[rejected], mask, beta=beta, clip=clip)
    prompts, place = torch.unique(prompt_index, return_inverse=True)
    counts = losses.new_zeros(len(prompts)).index_add(0, place[chosen], torch.ones_like(losses)).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(len(prompts)).index_add(0, place[chosen], values) / counts

    return mean(losses), {name: mean(value) for name, value in metrics.items()}


def _log_ratios(policy_logps: Tensor, reference_logps: Tensor, mask: Tensor) -> Tensor:
    check_shapes(2, policy_logps=policy_logps, reference_logps=reference_logps, step_mask=mask)
    return torch.where(mask, policy_logps - reference_logps.detach(), 0)


def _compare_steps(
    chosen: Tensor, rejected: Tensor, mask: Tensor, *, beta: float, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    low, high = log1p(-clip), log1p(clip)
    margins = beta * (chosen.clamp(low, high) - rejected.clamp(low, high))  # [M, T]
    clipped = [((one < low) | (one > high)).to(margins) for one in (chosen.detach(), rejected.detach())]
    steps = {
        "reward_margins": margins.detach(),
        "reward_accuracies": (margins.detach().sign() + 1) / 2,
        "clip_fraction": (clipped[0] + clipped[1]) / 2,
    }
    return masked_mean(logistic(margins), mask), {name: masked_mean(value, mask) for name, value in steps.items()}
