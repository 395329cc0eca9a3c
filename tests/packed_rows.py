"""What the tests of packed rows measure: outputs, and a gradient that tells every element apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign import EncodedResponse
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.networks.policy import Policy

OUTPUTS = ("logps", "entropy", "values", "scores")


def measure(policy: Policy, responses: list[EncodedResponse], packing: str) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the outputs and the gradient of a sum over them that tells every element apart."""
    modality: Any = policy.modality
    modality.packing = packing
    policy.zero_grad(set_to_none=True)
    outputs = policy(responses, ForwardPlan.of(*OUTPUTS))
    mask = outputs["step_mask"]
    weights = torch.linspace(0.5, 1.5, mask.numel()).reshape(mask.shape)
    steps = sum((torch.where(mask, outputs[name], 0) * weights).sum() for name in OUTPUTS[:3])
    (steps + (outputs["scores"] * weights[:, 0]).sum()).backward()
    gradients = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in policy.parameters()]
    return {name: value.detach() for name, value in outputs.items()}, torch.cat(gradients)
