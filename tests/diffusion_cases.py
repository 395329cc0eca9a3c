"""What tests of the diffusion modalities share: completing encodings outside of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from mmalign import EncodedResponse, Model, Record
from mmalign.contract.modality import Modality
from mmalign.networks.augmentation import Networks, augment_responses
from mmalign.networks.policy import Policy, evaluation_mode
from mmalign_diffusion.config import FamilyComponent
from mmalign_diffusion.modality import Diffusion

CPU = torch.device("cpu")


def load(modality: Modality) -> Model:
    torch.manual_seed(0)
    return modality.load(device=CPU, dtype=torch.float32)


def complete(
    modality: Modality, model: Model, records: Sequence[Record], seed: int = 0, size: int = 100
) -> list[EncodedResponse]:
    """Encodes and completes all responses, `size` of them at a time."""
    torch.manual_seed(seed)
    encoded = [one for record in records for one in modality.encode(record)]
    return augment_responses(modality, networks_of(modality, model), encoded, size)[0]


def networks_of(modality: Modality, model: Model) -> Networks:
    policy = Policy(modality, model)

    @contextmanager
    def active() -> Iterator[Policy]:
        with evaluation_mode(policy):
            yield policy

    return Networks(CPU, nullcontext, {"policy": active, "reference": active})


def linear(**fields: Any) -> Diffusion:
    family = FamilyComponent(name="custom", target="linear_denoiser:build")
    return Diffusion(**{"family": family, "drop_condition": 0.0, **fields})


def text_record(goal: str = "0.25", *responses: str) -> Record:
    return Record.from_text(goal, responses or ["[1.0, -2.0]"], id="a")
