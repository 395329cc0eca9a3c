"""The agreement of image and prompt: scaled, clamped cosines of CLIP features."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import pytest
from image_models import make_image_samples, random_images, save_open_clip
from pydantic import ValidationError

from mmalign_rewards.clip_models import ClipConfig, compute_cosines, load_clip
from mmalign_rewards.clip_score import ClipPreferenceConfig, ClipScore, ClipScoreConfig

PROMPTS = ("a red cat", "a dog", "a photo of rain", "five birds", "a red cat", "snow")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipConfig:
    return ClipConfig(model=str(save_open_clip(tmp_path_factory.mktemp("clip") / "model")), device="cpu")


def cosines_of(clip: ClipConfig, template: str = "{prompt}") -> list[float]:
    texts = [template.format(prompt=prompt) for prompt in PROMPTS]
    values: list[float] = compute_cosines(load_clip(clip, "clip"), random_images(6), texts, 8).tolist()
    return values


def score(clip: ClipConfig, **options: Any) -> list[Any]:
    return ClipScore(clip, **options).score(make_image_samples(random_images(6), PROMPTS))


def test_the_score_is_a_hundred_times_the_cosine_but_never_negative(clip: ClipConfig) -> None:
    cosines = cosines_of(clip)
    assert min(cosines) < 0 < max(cosines), "the random model must give both signs"
    assert score(clip) == pytest.approx([100 * max(one, 0) for one in cosines], abs=1e-3)
    assert score(clip, scale=2.5) == pytest.approx([2.5 * max(one, 0) for one in cosines], abs=1e-4)
    assert score(clip, clamp=False) == pytest.approx([100 * one for one in cosines], abs=1e-3)


def test_the_template_is_what_is_compared(clip: ClipConfig) -> None:
    expected = cosines_of(clip, "A photo depicts {prompt}")
    assert score(clip, template="A photo depicts {prompt}", clamp=False, scale=1.0) == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(cosines_of(clip), abs=1e-3)


def test_a_preference_score_is_the_models_logit(clip: ClipConfig) -> None:
    config = ClipPreferenceConfig(encoder=clip)
    options = {name: getattr(config, name) for name in ClipPreferenceConfig.model_fields}
    scores = ClipScore(**options).score(make_image_samples(random_images(6), PROMPTS))
    assert scores == pytest.approx([exp(1.5) * one for one in cosines_of(clip)], abs=1e-4)
    assert min(scores) < 0


def test_what_is_no_image_has_no_score_and_the_rest_keeps_theirs(clip: ClipConfig) -> None:
    images: list[Any] = random_images(6)
    images[2] = "a text"
    scores = ClipScore(clip, batch_size=4).score(make_image_samples(images, PROMPTS))
    assert isinstance(scores[2], TypeError)
    del scores[2]
    expected = score(clip)
    del expected[2]
    assert scores == pytest.approx(expected, abs=1e-3)


def test_an_image_scores_the_same_whatever_its_mode(clip: ClipConfig) -> None:
    (image,) = random_images(1)
    first, second = ClipScore(clip, clamp=False).score(make_image_samples([image, image.convert("RGBA")]))
    assert first == pytest.approx(second, abs=1e-4)


def test_a_model_is_loaded_at_the_first_image() -> None:
    reward = ClipScore(ClipConfig(model=str(Path("never") / "loaded")))
    assert [type(one) for one in reward.score(make_image_samples(["text"]))] == [TypeError]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"template": "{response}"}, "expected {prompt} as the only name in braces"),
        ({"template": "{prompt"}, "expected {prompt}"),
        ({"template": " "}, "expected a text"),
        ({"scale": 0}, "scale"),
        ({"scale": "logitscale"}, "logit_scale"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_a_wrong_parameter_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClipScoreConfig(encoder={"model": "any"}, **given)
