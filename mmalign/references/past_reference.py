"""A reference that is resampled for every round among earlier moments of the policy."""

from __future__ import annotations

import random
from collections.abc import Mapping

from torch import Tensor

from mmalign.errors import CheckpointError
from mmalign.networks.policy import Policy
from mmalign.references.reference import MovingReference


class PastPolicies(MovingReference):
    """The policy as it was at one of the latest moments, drawn uniformly for every round.

    The first moment is the start, then comes every optimiser step that is a multiple of `every`. Costs the memory of
    `keep` copies of the trained weights in float32; moments of a round that is not over come on top.

    Args:
        every: optimiser steps from one moment to the next.
        keep: moments that are drawn from; of more the oldest go.

    Source: SePPO (arXiv:2410.05255), where no moment goes.
    """

    def __init__(self, policy: Policy, every: int, keep: int) -> None:
        super().__init__(policy)
        self._every = every
        self._keep = keep
        self._moments = {0: self._weights}

    @property
    def moments(self) -> list[int]:
        """The optimiser steps after which the policy was kept, in order."""
        return sorted(self._moments)

    def begin_round(self, seed: str) -> dict[str, float]:
        """Draws a moment; see `MovingReference.begin_round`."""
        for step in self.moments[: -self._keep]:
            del self._moments[step]
        drawn = random.Random(seed).choice(self.moments)
        self._weights = self._moments[drawn]
        return {"reference/step": float(drawn)}

    def update(self, step: int) -> None:
        """Keeps the policy's weights if it is time; see `MovingReference.update`."""
        if step % self._every == 0:
            self._moments[step] = {name: value.detach().float().clone() for name, value in self._iter_trained()}

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a checkpoint has to hold: every moment."""
        return {f"{step}|{name}": value for step, own in self._moments.items() for name, value in own.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the moments of a checkpoint back; until a round begins, the oldest of them is the reference."""
        moments: dict[int, dict[str, Tensor]] = {}
        for entry, value in tensors.items():
            step, _, name = entry.partition("|")
            if not step.isdecimal() or name not in self._weights:
                raise CheckpointError(
                    "the checkpoint does not hold the earlier policies that this reference draws from"
                )
            moments.setdefault(int(step), {})[name] = value.to(self._weights[name].device)
        if not moments or any(own.keys() != self._weights.keys() for own in moments.values()):
            raise CheckpointError("the checkpoint does not hold the earlier policies that this reference draws from")
        self._moments = moments
        self._weights = moments[min(moments)]
