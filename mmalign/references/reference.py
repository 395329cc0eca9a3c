"""The anchor of a run: what the policy is compared with.

Fixed ones are the network with its adapter switched off, or a frozen copy of it. Moving ones follow the policy: as an
exponential moving average, or as what it was at the latest of regular moments.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmalign.errors import CheckpointError
from mmalign.networks.policy import Policy, evaluation_mode


class Reference(ABC):
    """Gives a policy module that scores as the reference does."""

    @abstractmethod
    def active(self) -> AbstractContextManager[Policy]:
        """Returns a context manager that yields the module to score with, without gradient or dropout."""

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """The module whose output layer is the reference's, the adapter left out."""


class FixedReference(Reference):
    """A reference that never changes, so its log-probs can be kept."""

    @abstractmethod
    def weights(self) -> Iterable[Tensor]:
        """Returns all tensors that decide what it computes, always in the same order."""


class AdapterOff(FixedReference):
    """The trained network without its adapter: costs no memory."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def policy(self) -> Policy:
        """The trained module."""
        return self._policy

    @contextmanager
    def active(self) -> Iterator[Policy]:
        with evaluation_mode(self._policy), cast(Any, self._policy.network).disable_adapter():
            yield self._policy

    def weights(self) -> Iterable[Tensor]:
        """Returns what is not trained."""
        return [tensor for tensor in _iter_tensors(self._policy.network) if not tensor.requires_grad]


class FrozenModel(FixedReference):
    """A network of its own that is never trained, such as a teacher: costs the memory of its weights.

    `autocast` is the precision context of the trained network, so that both compute alike.
    """

    def __init__(self, policy: Policy, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self._policy = policy.requires_grad_(False)
        self._autocast = autocast

    @property
    def policy(self) -> Policy:
        """The network."""
        return self._policy

    @contextmanager
    def active(self) -> Iterator[Policy]:
        with evaluation_mode(self._policy), self._autocast():
            yield self._policy

    def weights(self) -> Iterable[Tensor]:
        """Returns the network's weights."""
        return list(_iter_tensors(self._policy.network))


class FrozenCopy(FrozenModel):
    """A copy of the trained network as it was at the start."""

    def __init__(self, policy: Policy, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        # The modality is shared: both must score at the same temperature when that changes.
        super().__init__(copy.deepcopy(policy, {id(policy.modality): policy.modality}), autocast)


class MovingReference(Reference):
    """Another set of trained weights for the same network, put in while it scores: costs their memory in float32.

    What is not trained is shared with the policy, so with an adapter a copy is small. Quantities of the stage `frozen`
    are computed at the start of a round: an update inside a round shows in the next one.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # Not in the weights' own dtype: an average in bfloat16 would lose its small steps.
        self._weights = {name: value.detach().float().clone() for name, value in self._iter_trained()}

    @abstractmethod
    def update(self, step: int) -> None:
        """Follows the policy after optimiser step `step`, the first being 1."""

    def begin_round(self, seed: str) -> dict[str, float]:
        """Chooses what the reference is during a round; the same in all processes.

        Args:
            seed: of the round, the same when a run resumes.

        Returns:
            metrics of the round.
        """
        return {}

    @property
    def policy(self) -> Policy:
        """The trained module: its output layer is the reference's only where an adapter is what is trained."""
        return self._policy

    @contextmanager
    def active(self) -> Iterator[Policy]:
        with evaluation_mode(self._policy), self._put_in():
            yield self._policy

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a checkpoint has to hold."""
        return dict(self._weights)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the tensors of a checkpoint back.

        Raises:
            CheckpointError: they are not those of this reference.
        """
        if tensors.keys() != self._weights.keys():
            raise CheckpointError("the checkpoint holds no reference for these weights; it had another `reference`")
        for name, value in self._weights.items():
            value.copy_(tensors[name])

    @contextmanager
    def _put_in(self) -> Iterator[None]:
        trained = {name: parameter.data for name, parameter in self._iter_trained()}
        try:
            for name, parameter in self._iter_trained():
                parameter.data = self._weights[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self._iter_trained():
                parameter.data = trained[name]

    def _iter_trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self._policy.named_parameters() if value.requires_grad)


class MovingAverage(MovingReference):
    """The exponential moving average of the policy's weights.

    Args:
        decay: share of the old average that stays at every optimiser step, in (0, 1).

    Source: the soft update of TR-DPO (arXiv:2404.09656), with alpha = 1 - decay and tau = 1.
    """

    def __init__(self, policy: Policy, decay: float) -> None:
        super().__init__(policy)
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average; see `MovingReference.update`."""
        for name, parameter in self._iter_trained():
            self._weights[name].lerp_(parameter.float(), 1 - self._decay)


class PeriodicSync(MovingReference):
    """The policy as it was after the latest optimiser step that is a multiple of `every`; at first as it started.

    Source: the hard update of TR-DPO (arXiv:2404.09656), with tau = `every`.
    """

    def __init__(self, policy: Policy, every: int) -> None:
        super().__init__(policy)
        self._every = every

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the policy's weights if it is time; see `MovingReference.update`."""
        if step % self._every == 0:
            for name, parameter in self._iter_trained():
                self._weights[name].copy_(parameter)


class Extrapolation(PeriodicSync):
    """The policy as it was after the latest multiple of `every` steps, which is then moved on in its own direction.

    Every `every` steps make an iteration. What the optimiser has found at the end of one, less what it had found at the
    end of the one before, is added to the policy `momentum` times; the reference becomes that policy. The optimiser's
    moments stay as they are. With momentum 0 this is `PeriodicSync`.

    Args:
        momentum: share of the way of an iteration, in [0, 1].

    Source: arXiv:2410.06293, the extrapolation step of APO, on weights; before the first iteration lies the start.
    Differs: weights, of an adapter its factors, are extrapolated in place of log-probs; it is the same only for
        policies whose log-probs are linear in what is trained.
    """

    def __init__(self, policy: Policy, every: int, momentum: float) -> None:
        super().__init__(policy, every)
        self._momentum = momentum
        self._found = {name: value.clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the policy on and takes its weights if it is time; see `MovingReference.update`."""
        if step % self._every == 0:
            for name, parameter in self._iter_trained():
                found = parameter.float().clone()
                parameter.copy_(found + self._momentum * (found - self._found[name]))
                self._found[name].copy_(found)
        super().update(step)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a checkpoint has to hold: the reference, and what was found before its latest move."""
        return super().tensors() | {f"{_FOUND}{name}": value for name, value in self._found.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the tensors of a checkpoint back; see `MovingReference.restore`."""
        found = {name.removeprefix(_FOUND): value for name, value in tensors.items() if name.startswith(_FOUND)}
        super().restore({name: value for name, value in tensors.items() if not name.startswith(_FOUND)})
        if found.keys() != self._found.keys():
            raise CheckpointError("the checkpoint does not hold what a reference with momentum needs")
        for name, value in self._found.items():
            value.copy_(found[name])


_FOUND = "found|"
"""Marks what an optimiser found, in the names of a checkpoint."""


def _iter_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
