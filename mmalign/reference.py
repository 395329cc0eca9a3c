"""The frozen anchor of a run: the network with its adapter switched off, or a frozen copy of it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from mmalign.policy import Policy, evaluation_mode


class Reference(ABC):
    """Gives a policy module that scores as the reference does."""

    @abstractmethod
    def active(self) -> AbstractContextManager[Policy]:
        """Returns a context manager that yields the module to score with, without gradient or dropout."""


class AdapterOff(Reference):
    """The trained network without its adapter: costs no memory."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @contextmanager
    def active(self) -> Iterator[Policy]:
        with evaluation_mode(self._policy), cast(Any, self._policy.network).disable_adapter():
            yield self._policy


class FrozenCopy(Reference):
    """A copy of the network as it was at the start: costs the memory of the weights.

    `autocast` is the precision context of the trained network, so that both compute alike.
    """

    def __init__(self, policy: Policy, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        # The modality is shared: both must score at the same temperature when that changes.
        shared = {id(policy.modality): policy.modality}
        self._policy = copy.deepcopy(policy, shared).requires_grad_(False)
        self._autocast = autocast

    @contextmanager
    def active(self) -> Iterator[Policy]:
        with evaluation_mode(self._policy), self._autocast():
            yield self._policy
