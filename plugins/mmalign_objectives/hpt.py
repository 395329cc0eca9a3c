"""Hybrid post-training: one policy-gradient estimator with four slots, and the gate between imitating and reinforcing.

A gradient is a stabilisation mask x 1 / denominator x advantage x the gradient of the probability of a step. Supervised
fine-tuning, PPO and off-policy learning differ in what stands in the slots:

    denominator the policy itself, advantage 1        supervised fine-tuning
    denominator the policy that sampled               PPO, with its clipping for a mask
    denominator 1                                     off-policy, where the sampler is not known

These are pure functions; what a loop needs to mix rollouts with demonstrations is not part of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign_objectives.ratio import step_ratio
from mmalign_objectives.shapes import check_shapes


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
