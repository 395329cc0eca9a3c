"""Golden-vector cases of the advantage estimators.

Rewards come as a matrix [P, G] under a name that starts with `rewards`; the estimators take them flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign import masked_sum
from mmalign_advantages.grpo import grpo_advantages
from mmalign_advantages.rloo import rloo_advantages, rloo_kl_advantages

Values = Mapping[str, Any]


def compute_grpo(inputs: Values, hparams: Values) -> Tensor | None:
    """Group-relative advantages, scaled as `scale` says: by the group's standard deviation unless told otherwise."""
    rewards = _find_rewards(inputs)
    if len(rewards) != 1 or "logp_new" in inputs:
        return None
    scale = hparams.get("scale", "group")
    return grpo_advantages(*_flatten(rewards[0]), scale=scale, epsilon=hparams.get("eps", 1e-4))


def compute_grpo_batch(inputs: Values, hparams: Values) -> Tensor | None:
    """Group-relative advantages scaled by the standard deviation of the batch."""
    return compute_grpo(inputs, {**hparams, "scale": "batch"})


def compute_dr_grpo(inputs: Values, hparams: Values) -> Tensor | None:
    """Group-relative advantages without scaling."""
    return compute_grpo(inputs, {**hparams, "scale": "none"})


def compute_weighted_grpo(inputs: Values, hparams: Values) -> Tensor | None:
    """Group-relative advantages of a weighted sum of several rewards, in the order in which the case names them."""
    rewards = _find_rewards(inputs)
    if len(rewards) != len(hparams["weights"]):
        return None
    composite = torch.stack([weight * one for weight, one in zip(hparams["weights"], rewards, strict=True)]).sum(0)
    return grpo_advantages(*_flatten(composite), epsilon=hparams.get("eps", 1e-4))


def compute_rloo(inputs: Values, hparams: Values) -> Tensor | None:
    """Leave-one-out advantages; with `beta`, of rewards less the summed log-ratio to the reference."""
    rewards = _find_rewards(inputs)
    if len(rewards) != 1:
        return None
    flat, prompt_index = _flatten(rewards[0])
    options = {
        "normalise": bool(hparams.get("normalize_advantages", False)),
        "epsilon": hparams.get("eps", 1e-4),
    }
    if not (beta := hparams.get("beta", 0.0)):
        return rloo_advantages(flat, prompt_index, **options)
    if not {"logp_old", "logp_ref", "mask"} <= inputs.keys():
        return None
    behaviour, reference = (masked_sum(inputs[name], inputs["mask"] > 0) for name in ("logp_old", "logp_ref"))
    return rloo_kl_advantages(flat, prompt_index, behaviour, reference, beta=beta, **options)


def _find_rewards(inputs: Values) -> list[Tensor]:
    return [value for name, value in inputs.items() if name.startswith("rewards") and value.dim() == 2]


def _flatten(rewards: Tensor) -> tuple[Tensor, Tensor]:
    prompts, group_size = rewards.shape
    return rewards.flatten(), torch.arange(prompts).repeat_interleave(group_size)
