"""How far the log-probs that a rollout was sampled with are from the trainer's own for the same weights.

Both should be equal; other kernels, another precision, another template or stale weights make them differ, and biased
importance ratios follow. Measured on the first mini-batch of every round, before its update, at no extra forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

LARGE_GAP = 0.1
"""Nats; the share of steps above it is a metric."""


def sampler_gaps(values: Mapping[str, Tensor]) -> Tensor:
    """Computes |`policy_logps` - `behaviour_logps`| of the scored steps of sampled responses, detached: [S]."""
    mask = values["step_mask"] & values["sampled"][:, None]
    return (values["policy_logps"].detach() - values["behaviour_logps"])[mask].abs()


class SamplerGap:
    """Adds up the `sampler_gaps` of micro-batches.

    Attributes:
        empty: True until a micro-batch with a sampled step was added.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self.empty = True

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds a micro-batch; one without both log-probs adds nothing."""
        if "behaviour_logps" in values and "policy_logps" in values:
            gaps = sampler_gaps(values)
            self.empty = self.empty and not len(gaps)
            self._parts.append(_summarise(gaps))

    def compute(self, gather: Callable[[Tensor], Any]) -> dict[str, float]:
        """Returns the mean and the largest gap, in nats, and the share of steps above `LARGE_GAP`.

        Args:
            gather: concatenates a tensor of every process; every process must have added the same way.
        """
        if not self._parts:
            return {}
        own = torch.stack(self._parts)
        # Reduced first: processes may have cut their shares into different numbers of micro-batches.
        parts = gather(torch.cat([own[:, :3].sum(dim=0), own[:, 3:].amax(dim=0)])).reshape(-1, 4)
        steps, total, large, _ = parts.sum(dim=0).tolist()
        return {
            "sampler_gap/mean": total / max(1, steps),
            "sampler_gap/max": float(parts[:, 3].max()),
            "sampler_gap/large": large / max(1, steps),
        }


def _summarise(gaps: Tensor) -> Tensor:
    """Number, sum, number above the bound and maximum of gaps [S], as one tensor [4]."""
    largest = gaps.max() if len(gaps) else gaps.new_zeros(())
    return torch.stack([gaps.new_tensor(float(len(gaps))), gaps.sum(), (gaps > LARGE_GAP).sum(), largest])
