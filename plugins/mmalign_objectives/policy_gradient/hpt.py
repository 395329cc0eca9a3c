"""Hybrid post-training: one policy-gradient estimator with four slots, and the gate between imitating and reinforcing.

A gradient is a stabilisation mask x 1 / denominator x advantage x the gradient of the probability of a step. Supervised
fine-tuning, PPO and off-policy learning differ in what stands in the slots:

    denominator the policy itself, advantage 1        supervised fine-tuning
    denominator the policy that sampled               PPO, with its clipping for a mask
    denominator 1                                     off-policy, where the sampler is not known

HPT is two objectives in one run on stored and sampled responses: `hpt_imitation` on the demonstrations of prompts whose
rollouts fail, `hpt_reinforcement` on the rollouts of the other prompts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, QuantitySpec, Unbounded
from mmalign_objectives.support.aggregation import Aggregation, StepParameters
from mmalign_objectives.support.ratio import step_ratio
from mmalign_objectives.support.shapes import check_shapes

_PAPER = "Towards a Unified View of Large Language Model Post-Training (arXiv:2509.04419)"
_HPT_IMITATION = ObjectiveSpec(
    name="hpt_imitation",
    summary="HPT: likelihood of the demonstrations of prompts whose rollouts fail.",
    loss="mmalign_objectives.supervised.sft:sft_loss",
    config="mmalign_objectives.supervised.sft:SFTConfig",
    per="step",
    over="imitated",
    equation="-policy_logps, where at most `gate` rollouts of the prompt are right",
    paper=_PAPER,
)
_IMITATED = QuantitySpec(
    name="imitated",
    summary="True for the stored targets of prompts that are imitated.",
    compute=f"{__name__}:mark_imitated",
    axes="N",
    stage="frozen",
    paper=_PAPER,
)
SPECS = (
    _HPT_IMITATION,
    replace(
        _HPT_IMITATION,
        name="hpt_reinforcement",
        summary="HPT: unclipped policy gradient on the rollouts of all other prompts.",
        loss=f"{__name__}:hpt_reinforcement_loss",
        config=f"{__name__}:HPTReinforcementConfig",
        over="reinforced",
        aggregation="constant",
        # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
        log_prob_kinds=("exact",),
        equation="-ratio advantages, where more than `gate` rollouts of the prompt are right",
    ),
    replace(
        _IMITATED,
        name="imitated_prompts",
        summary="True for all responses to a prompt of whose rollouts at most `gate` are right.",
        compute=f"{__name__}:mark_imitated_prompts",
        config=f"{__name__}:GateConfig",
    ),
    _IMITATED,
    replace(
        _IMITATED,
        name="reinforced",
        summary="True for the rollouts of prompts that are not imitated.",
        compute=f"{__name__}:mark_reinforced",
    ),
)


class HPTReinforcementConfig(StepParameters):
    """The unclipped policy gradient of HPT."""

    aggregation: Aggregation = "constant"
    """Sum over steps, divided by responses x horizon."""
    horizon: int = Field(ge=1)
    """The generation budget in steps, e.g. that of `decoding.max_steps`."""


class GateConfig(Parameters):
    """When a prompt is imitated."""

    gate: int = Field(default=0, ge=-1)
    """Imitate where at most so many rollouts are right; -1 always reinforces, the group size always imitates."""
    right_above: Annotated[float, Unbounded("in the units of the rewards")] = 0.5
    """A rollout is right if its composite reward is higher; one without a reward is not."""


def unified_gradient_loss(
    policy_logps: Tensor, denominator_logps: Tensor, advantages: Tensor, stable: Tensor, step_mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes a loss whose gradient is minus stable x advantage x d(probability) / denominator, at every step.

    Args:
        policy_logps: [N, T], nats.
        denominator_logps: [N, T], nats, no gradient: `policy_logps`, `behaviour_logps`, or zeros.
        advantages: [N, T], no gradient.
        stable: [N, T] bool, steps that teach, e.g. those that `is_clipped` does not mark.
        step_mask: [N, T] bool.

    Returns:
        losses [N, T], 0 where a step does not count or is not stable, and the detached metric `ratio` [N, T].

    Source: arXiv:2509.04419, the unified policy gradient estimator.
    """
    check_shapes(2, policy=policy_logps, advantages=advantages, stable=stable)
    ratio = step_ratio(policy_logps, denominator_logps, step_mask)
    taught = stable & step_mask
    losses = -torch.where(taught, ratio * torch.where(taught, advantages.detach(), 0), 0)
    return losses, {"ratio": ratio.detach()}


def choose_imitation(solved: Tensor, *, gate: int) -> Tensor:
    """Chooses, for every prompt, to imitate its demonstration (True) or to reinforce its rollouts (False): [P] bool.

    Args:
        solved: [P], how many of the prompt's rollouts were right.
        gate: imitate where at most so many were; -1 always reinforces.

    Source: arXiv:2509.04419, the switch of HPT.
    """
    return solved <= gate


def hpt_reinforcement_loss(
    policy_logps: Tensor, behaviour_logps: Tensor, advantages: Tensor, step_mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes minus the advantage times the importance ratio, unclipped, at every step.

    Args:
        policy_logps: [N, T], nats.
        behaviour_logps: [N, T], nats, no gradient.
        advantages: [N] or [N, T], no gradient.
        step_mask: [N, T] bool; other steps get 0.

    Returns:
        losses [N, T] and the detached metric `ratio` [N, T].

    Source: arXiv:2509.04419; the official code of HPT clips nothing.
    """
    spread = advantages if advantages.dim() == 2 else advantages[:, None].expand_as(policy_logps)
    return unified_gradient_loss(policy_logps, behaviour_logps, spread, step_mask, step_mask)


def mark_imitated_prompts(composite_rewards: Tensor, prompt_index: Tensor, *, gate: int, right_above: float) -> Tensor:
    """Marks the responses [N] to prompts that are to be imitated: [N] bool.

    Args:
        composite_rewards: [N]; NaN for stored responses, which are no rollouts.
        prompt_index: [N], which prompt a response answers.
        gate: see `choose_imitation`.
        right_above: a rollout is right if its reward is higher.
    """
    _, place = torch.unique(prompt_index, return_inverse=True)
    right = (composite_rewards > right_above).long()
    solved = torch.zeros_like(right).index_add(0, place, right)  # [P], and zeros behind
    return choose_imitation(solved, gate=gate)[place]


def mark_imitated(imitated_prompts: Tensor, targets: Tensor, stored: Tensor) -> Tensor:
    """Marks the demonstrations that are imitated: the stored targets of those prompts, [N] bool."""
    return imitated_prompts & targets & stored


def mark_reinforced(imitated_prompts: Tensor, sampled: Tensor) -> Tensor:
    """Marks the rollouts that are reinforced: those of all other prompts, [N] bool."""
    return sampled & ~imitated_prompts
