"""What image rewards read: every mode as RGB, and no crash over what is no image."""

from __future__ import annotations

import re
from io import BytesIO
from math import isnan
from typing import Any

import numpy as np
import pytest
from image_models import make_image_samples, random_images
from PIL import Image

from mmalign.config.components import RewardComponent
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.images import read_image, score_images
from mmalign_rewards.jpeg_size import Compressibility


def one_pixel(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (2, 2), value)


def palette_image(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    if transparent:
        image.info["transparency"] = 1
    return image


def grey_16(value: int) -> Image.Image:
    return Image.fromarray(np.full((2, 2), value, dtype=np.uint16))


READ = {
    "RGB": (one_pixel("RGB", (1, 2, 3)), (1, 2, 3)),
    "opaque": (one_pixel("RGBA", (255, 0, 0, 255)), (255, 0, 0)),
    "half red over white": (one_pixel("RGBA", (255, 0, 0, 128)), (255, 127, 127)),
    "transparent": (one_pixel("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
    "grey": (one_pixel("L", 7), (7, 7, 7)),
    "transparent grey": (one_pixel("LA", (7, 0)), (255, 255, 255)),
    "palette": (palette_image(False), (10, 20, 30)),
    "transparent colour of a palette": (palette_image(True), (255, 255, 255)),
    "bits": (one_pixel("1", 1), (255, 255, 255)),
    "16 bits, white": (grey_16(65535), (255, 255, 255)),
    "16 bits, middle": (grey_16(32768), (128, 128, 128)),
    "16 bits, black": (grey_16(100), (0, 0, 0)),
    "mode I": (one_pixel("I", 65535), (255, 255, 255)),
    "no ink": (one_pixel("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
}


@pytest.mark.parametrize("name", READ)
def test_every_mode_is_read_as_rgb(name: str) -> None:
    image, colour = READ[name]
    read = read_image(image)
    assert (read.mode, read.size) == ("RGB", (2, 2))
    assert {read.getpixel((x, y)) for x in (0, 1) for y in (0, 1)} == {colour}


def truncated() -> Image.Image:
    buffer = BytesIO()
    random_images(1)[0].save(buffer, format="PNG")
    return Image.open(BytesIO(buffer.getvalue()[:400]))


REFUSED = {
    "a text": ("a cat", "TypeError: this reward reads images, but the response decodes to str"),
    "nothing": (None, "TypeError: .* decodes to NoneType"),
    "no pixels": (Image.new("RGB", (0, 3)), "ValueError: the image has no pixels: 0 x 3"),
    "floats": (one_pixel("F", 0.5), "ValueError: an image of mode F has no known range"),
    "beyond 16 bits": (one_pixel("I", 70_000), r"ValueError: .* mode I has values outside \[0, 65535\]"),
    "truncated": (truncated(), "OSError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_costs_its_own_sample(name: str, caplog: pytest.LogCaptureFixture) -> None:
    output, cause = REFUSED[name]
    first, second = random_images(2)
    scorer = RewardScorer([BoundReward(RewardComponent(name="compressibility"), Compressibility())])
    scores = scorer.score(make_image_samples([first, output, second])).flatten().tolist()
    assert [isnan(score) for score in scores] == [False, True, False]
    assert scorer.failures == {"compressibility": 1}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "no score for 1 of 3 samples" in message
    assert re.search(cause, message)


def test_scores_and_causes_stand_in_the_order_of_the_samples() -> None:
    images = random_images(2)
    seen: list[Any] = []

    def score(samples: Any, given: Any) -> list[int]:
        seen.append([sample.output for sample in samples])
        return [image.getpixel((0, 0))[0] for image in given]

    first, text, second = score_images(make_image_samples([images[0], "no", images[1]]), score)
    assert [first, second] == [image.getpixel((0, 0))[0] for image in images]
    assert isinstance(text, TypeError)
    assert seen == [images]


def test_without_an_image_nothing_is_scored() -> None:
    def score(samples: Any, images: Any) -> list[int]:
        raise AssertionError("called without images")

    assert [type(one) for one in score_images(make_image_samples(["a", 3]), score)] == [TypeError, TypeError]
