"""The networks of a run as `Modality.augment` gets them, and how responses are completed some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.contract.modality import Modality
from mmalign.contract.values import EncodedResponse
from mmalign.errors import PluginError, suggest
from mmalign.networks.policy import Policy, evaluation_mode


@dataclass(frozen=True)
class Networks:
    """The current policy, the reference, if there is one, and the teachers.

    Attributes:
        device: where they are.
        autocast: the precision context of forward passes.
        activations: for every name, what makes a context manager that yields its module.
    """

    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    activations: Mapping[str, Callable[[], AbstractContextManager[Policy]]]

    @contextmanager
    def use(self, name: str) -> Iterator[nn.Module]:
        """Yields a network in evaluation mode, without gradient, in the precision of the run.

        Args:
            name: `policy`, `reference`, or that of a teacher; it must be in `Modality.required_networks`.

        Raises:
            PluginError: the run has no such network.
        """
        if name not in self.activations:
            raise PluginError(
                f"no network {name!r} in this run{suggest(name, self.activations)}; is it in `required_networks`?"
            )
        with torch.no_grad(), self.activations[name]() as policy, self.autocast():
            yield policy.network


@contextmanager
def evaluated(policy: Policy) -> Iterator[Policy]:
    """Yields a policy as it is, in evaluation mode."""
    with evaluation_mode(policy):
        yield policy


@torch.no_grad()
def augment_responses(
    modality: Modality, networks: Networks, responses: Sequence[EncodedResponse], size: int
) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
    """Completes N responses, `size` of them at a time, in their order.

    Returns:
        the responses and measurements [N] by name, float32, on the CPU.

    Raises:
        PluginError: responses are missing, or the number of steps of one has changed.
    """
    if type(modality).augment is Modality.augment:
        return list(responses), {}
    completed: list[EncodedResponse] = []
    measured: list[dict[str, Tensor]] = []
    for start in range(0, len(responses), size):
        part = responses[start : start + size]
        own, measurements = modality.augment(networks, part)
        if [one.steps for one in own] != [one.steps for one in part]:
            raise PluginError(f"{type(modality).__name__}.augment changed the number of responses or of their steps")
        completed += own
        measured.append(measurements)
    names = measured[0] if measured else {}
    return completed, {name: torch.cat([part[name].float().cpu() for part in measured]) for name in names}
