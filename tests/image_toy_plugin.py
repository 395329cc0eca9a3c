"""A plugin file for tests: a modality whose responses are images, and a reward that looks at them.

An image has 6 grey pixels of 4 levels, 3 wide and 2 high; a step is a pixel, as a digit is in `toy_plugin`. What was
sampled cannot be decoded from its response, which holds no file yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from toy_plugin import Digits, Toy

from mmalign import (
    DataError,
    Decoding,
    EncodedResponse,
    Generated,
    Message,
    ModalitySpec,
    Model,
    Record,
    Response,
    Reward,
    RewardSpec,
    Sample,
    hookimpl,
    open_image,
)

LEVEL = 85
WIDTH, HEIGHT = 3, 2


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    return [ModalitySpec(name="toy_image", summary="Grey pixels.", target="image_toy_plugin:ToyImages")]


@hookimpl
def register_rewards() -> list[RewardSpec]:
    return [RewardSpec(name="brightness", summary="The mean pixel.", target="image_toy_plugin:Brightness")]


class ToyImages(Toy):
    """Pixels that are independent of each other."""

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        return Model(Digits(0.0).to(device), name="toy_image")

    def encode(self, record: Record) -> list[EncodedResponse]:
        return [_encode(record, self._read(record, response)) for response in record.responses]

    def _read(self, record: Record, response: Response) -> list[int]:
        media = {one.mid: one for one in record.media}
        (part,) = [part for message in response.messages for part in message.content]
        where = f"record {record.id!r}, response {response.rid!r}"
        image = open_image(media[part.media or ""], where=where, limits=self.media_limits)
        return [int(pixel) // LEVEL for pixel in np.asarray(image.convert("L")).reshape(-1)]

    def _sample(self, network: nn.Module, record: Record, decoding: Decoding) -> Generated:
        logps = network(torch.tensor([len(record.prompt_text) % 4]), decoding.temperature)[0]
        levels = logps.exp().multinomial(WIDTH * HEIGHT, replacement=True)
        response = Response(rid="r0", messages=(Message(role="assistant"),))
        return Generated(response, _encode(record, levels.tolist()), logps[levels], output=draw(levels.tolist()))

    def decode(self, record: Record, response: Response) -> Any:
        raise DataError("a sampled image has no file")


def draw(levels: Sequence[int]) -> Image.Image:
    return Image.fromarray((np.array(levels, dtype=np.uint8) * LEVEL).reshape(HEIGHT, WIDTH))


def _encode(record: Record, levels: list[int]) -> EncodedResponse:
    context = torch.tensor(len(record.prompt_text) % 4)
    return EncodedResponse({"context": context, "digits": torch.tensor(levels)}, steps=len(levels), size=len(levels))


class Brightness(Reward):
    """The mean pixel, 0 to 1."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [float(np.asarray(sample.output).mean()) / 255 for sample in samples]
