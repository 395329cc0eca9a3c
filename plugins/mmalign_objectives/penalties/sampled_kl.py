"""KL to the reference whose gradient is that of KL(policy, reference): REINFORCE on whole samples of the policy.

This is what HyPO adds to DPO, since pairs alone do not bound how far the policy drifts where the data hold nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.lists import Lists, group_lists
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="sampled_kl",
        aliases=("hypo_kl",),
        summary="KL to the reference with its true gradient, from samples of the policy; HyPO is `dpo` plus this.",
        loss=f"{__name__}:sampled_kl_loss",
        per="prompt",
        over="sampled",
        # REINFORCE is about probabilities; a bound has another gradient.
        log_prob_kinds=("exact",),
        equation="mean_k p_k detach(p_k - r_k - mean over others of (p - r))",
        paper="The Importance of Online Data: Understanding Preference Fine-tuning via Coverage (arXiv:2406.01462)",
    ),
)


def sampled_kl_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, prompt_index: Tensor, sampled: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes a loss whose expected gradient is that of KL(policy, reference), for every prompt.

    The log-prob of each sample is multiplied by its detached log-ratio, less the mean log-ratio of the other samples of
    its prompt; without others, less nothing.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        prompt_index: [N], which prompt a response answers.
        sampled: [N] bool, responses that this policy sampled; others take no part.

    Returns:
        losses [P], a mean over samples, 0 without any, and the detached metric `kl` [P], the mean log-ratio. The value
        of the loss means nothing; its gradient and the metric do.

    Source: arXiv:2406.01462, the KL term of HyPO, with the leave-one-out baseline of arXiv:2402.14740.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, prompt_index=prompt_index)
    lists = group_lists(prompt_index, sampled)
    logps = lists.pad(policy_sequence_logps)
    log_ratios = lists.pad(policy_sequence_logps - reference_sequence_logps).detach()
    count = lists.mask.sum(dim=1, keepdim=True).to(logps)
    baselines = (log_ratios.sum(dim=1, keepdim=True) - log_ratios) / (count - 1).clamp(min=1)
    return _mean(logps * (log_ratios - baselines), lists), {"kl": _mean(log_ratios, lists)}


def _mean(values: Tensor, lists: Lists) -> Tensor:
    return torch.where(lists.mask, values, 0).sum(dim=1) / lists.mask.sum(dim=1).clamp(min=1)
