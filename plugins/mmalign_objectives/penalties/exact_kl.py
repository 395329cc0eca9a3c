"""The KL between policy and reference, summed over all that a step could have been, as a loss of its own.

`kl_penalty` estimates it from the step that was taken; here the whole distributions are compared, so there is no
sampling noise, and on stored responses no bias from who wrote them. Both directions are this one loss.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import StepParameters
from mmalign_objectives.support.shapes import check_shapes

_REVERSE_KL = ObjectiveSpec(
    name="reverse_kl",
    summary="KL(policy, reference) over whole distributions, to be added to another objective.",
    loss=f"{__name__}:exact_kl_loss",
    config=f"{__name__}:ExactKLConfig",
    names={"kl": "reference_reverse_kl"},
    per="step",
    log_prob_kinds=("exact",),
    equation="sum over v of p(v) (log p(v) - log r(v)); p policy, r reference",
    paper="Fine-Tuning Language Models from Human Preferences (arXiv:1909.08593)",
)
SPECS = (
    _REVERSE_KL,
    replace(
        _REVERSE_KL,
        name="forward_kl",
        summary="KL(reference, policy) over whole distributions, to be added to another objective.",
        names={"kl": "reference_forward_kl"},
        equation="sum over v of r(v) (log r(v) - log p(v)); p policy, r reference",
        paper="Token-level Direct Preference Optimization (arXiv:2404.11999)",
    ),
)


class ExactKLConfig(StepParameters):
    """Exact KL at every step."""


def exact_kl_loss(kl: Tensor, step_mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Passes on the KL of every step.

    Args:
        kl: [N, T], nats: KL(policy, reference) for `reverse_kl`, KL(reference, policy) for `forward_kl`.
        step_mask: [N, T] bool; other steps get 0.

    Returns:
        losses [N, T] and the detached metric `kl` [N, T].

    Source: the penalty of arXiv:1909.08593 (reverse), without its sampling; the sequential KL of arXiv:2404.11999
    (forward), step by step.
    """
    check_shapes(2, kl=kl, step_mask=step_mask)
    losses = torch.where(step_mask, kl, 0)
    return losses, {"kl": losses.detach()}
