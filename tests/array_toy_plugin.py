"""A modality whose responses are arrays or sounds and have no text: the toy images, seen as numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from image_toy_plugin import ToyImages
from torch import nn

from mmalign import Decoding, Generated, ModalitySpec, Record, Sound, hookimpl


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    return [
        ModalitySpec(name="toy_array", summary="Numbers.", target="array_toy_plugin:ToyArrays"),
        ModalitySpec(name="toy_sound", summary="Waves.", target="array_toy_plugin:ToySounds"),
    ]


class ToyArrays(ToyImages):
    """Pixels as a tensor [2, 3]."""

    def _sample(self, network: nn.Module, record: Record, decoding: Decoding) -> Generated:
        generated = super()._sample(network, record, decoding)
        return replace(generated, output=torch.from_numpy(np.array(generated.output)) / 255)


class ToySounds(ToyImages):
    """Pixels as six samples of a sound."""

    def _sample(self, network: nn.Module, record: Record, decoding: Decoding) -> Generated:
        generated = super()._sample(network, record, decoding)
        return replace(generated, output=Sound(np.array(generated.output).reshape(-1) / 255, rate=8000))
