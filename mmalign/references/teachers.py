"""Teachers: frozen further models of the policy's modality, with the same choices at every step.

They read what the policy's own encoding says, so their distributions can be compared step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from mmalign.errors import ConfigError
from mmalign.networks.policy import Policy
from mmalign.planning.assembly import Assembly
from mmalign.references.reference import FrozenModel


def check_vocabularies(assembly: Assembly) -> None:
    """Checks, without weights, that every teacher chooses from the policy's vocabulary.

    Raises:
        ConfigError: one has another vocabulary, or logits of another width; both models are named.
    """
    own = assembly.modality.vocabulary() if assembly.teachers else None
    for name, teacher in assembly.teachers.items():
        other = teacher.vocabulary()
        if own is None or other is None:
            continue
        if own.digest != other.digest:
            raise ConfigError(
                f"teachers.{name}: the vocabulary of {other.name!r} is not that of the policy, {own.name!r}; steps can "
                "be compared only between models that share it"
            )
        if own.size != other.size:
            raise ConfigError(
                f"teachers.{name}: {other.name!r} has logits of width {other.size}, the policy {own.name!r} of "
                f"{own.size}; their distributions cannot be compared"
            )


def load_teachers(
    assembly: Assembly,
    device: torch.device,
    dtype: torch.dtype,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, FrozenModel]:
    """Loads every teacher on `device`, in the `dtype` and the precision of the policy."""
    teachers = {}
    for name, modality in assembly.teachers.items():
        modality.temperature = assembly.modality.temperature
        try:
            model = modality.load(device=device, dtype=dtype)
        except ConfigError as error:
            raise ConfigError(f"teachers.{name}: {error}") from error
        teachers[name] = FrozenModel(Policy(modality, model).to(device), autocast)
    return teachers
