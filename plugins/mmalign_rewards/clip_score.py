"""Agreement of image and prompt: the scaled cosine of their CLIP features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from mmalign import Parameters, Reward, Sample
from mmalign_rewards.clip_models import ClipConfig, ClipModel, compute_cosines, load_clip
from mmalign_rewards.images import score_images

if TYPE_CHECKING:
    from PIL.Image import Image

Scale = Annotated[float, Field(gt=0)] | Literal["logit_scale"]


class ClipScoreConfig(Parameters):
    """Agreement of image and prompt."""

    encoder: ClipConfig
    """The model."""
    template: str = "{prompt}"
    """The text that is compared, with {prompt} (last user message); other braces are doubled."""
    scale: Scale = 100.0
    """Factor of the cosine (in the paper 2.5, with the template `A photo depicts {prompt}`), or the `logit_scale`."""
    clamp: bool = True
    """Negative cosines count 0."""
    batch_size: int = Field(default=32, ge=1)
    """Images, or texts, per forward pass."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        try:
            text = template.format(prompt="prompt")
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError("expected {prompt} as the only name in braces") from None
        if not text.strip():
            raise ValueError("expected a text")
        return template


class ClipPreferenceConfig(ClipScoreConfig):
    """A CLIP that was trained on preferences between images."""

    scale: Scale = "logit_scale"
    """Factor of the cosine: `logit_scale`, the model's own (PickScore), or a number."""
    clamp: bool = False
    """Negative cosines count 0."""


class ClipScore(Reward):
    """`scale` times the cosine of the image's and the text's features; with `clamp`, at least 0.

    Source: Hessel et al., CLIPScore, arXiv:2104.08718: w max(cos, 0). Kirstain et al., Pick-a-Pic, arXiv:2305.01569:
    the model's logit, without clamp. Texts beyond the model's context (77 tokens) are cut off at its end.
    """

    costly = True

    def __init__(
        self,
        encoder: ClipConfig,
        template: str = "{prompt}",
        scale: float | Literal["logit_scale"] = 100.0,
        clamp: bool = True,
        batch_size: int = 32,
    ) -> None:
        self.encoder = encoder
        self.template = template
        self.scale = scale
        self.clamp = clamp
        self.batch_size = batch_size

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns a score, or an exception for what is no image.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        return score_images(samples, self._score)

    def _score(self, samples: list[Sample], images: list[Image]) -> list[float]:
        texts = [self.template.format(prompt=sample.record.prompt_text) for sample in samples]
        cosines = compute_cosines(self._model, images, texts, self.batch_size)
        scale = self._model.logit_scale if self.scale == "logit_scale" else self.scale
        scores: list[float] = (scale * (cosines.clamp(min=0) if self.clamp else cosines)).tolist()
        return scores

    @cached_property
    def _model(self) -> ClipModel:
        return load_clip(self.encoder, "rewards.clip_score.encoder")
