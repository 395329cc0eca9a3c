"""A head on the CLIP features of an image: aesthetic predictors, and whatever was trained like them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mmalign import ConfigError, Parameters, Reward, Sample
from mmalign_rewards.clip_models import ClipConfig, ClipModel, compute_features, load_clip
from mmalign_rewards.images import score_images

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Activation = Literal["none", "relu", "gelu"]
Layer = tuple["Tensor", "Tensor | None"]
_WHERE = "rewards.clip_head"


class ClipHeadConfig(Parameters):
    """A head on the CLIP features of an image."""

    encoder: ClipConfig
    """The model whose image features the head was trained on."""
    head: str
    """Weights of the head's linear layers: a `.safetensors` file, or a state dict that holds tensors only."""
    activation: Activation = "none"
    """Between the layers; LAION's improved aesthetic predictor has none."""
    unit_features: bool = True
    """Features have length 1, as the aesthetic predictors were trained."""
    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""


class ClipHead(Reward):
    """The single output of linear layers on the features of the image; the prompt does not count.

    Layers are the tensors `weight` or `NAME.weight` [out, in] with their `bias` [out], in the order of the numbers in
    their names: `weight` of a linear predictor; `layers.0.weight`, `layers.2.weight`, ... of an MLP.
    """

    costly = True

    def __init__(
        self,
        encoder: ClipConfig,
        head: str,
        activation: Activation = "none",
        unit_features: bool = True,
        batch_size: int = 32,
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.activation = activation
        self.unit_features = unit_features
        self.batch_size = batch_size

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns a score, or an exception for what is no image.

        Raises:
            ConfigError: the model or its head cannot be loaded, or they do not fit.
        """
        return score_images(samples, self._score)

    def _score(self, samples: list[Sample], images: list[Image]) -> list[float]:
        from torch.nn.functional import normalize

        clip, layers = self._loaded
        features = compute_features(clip.embed_images, images, self.batch_size)  # [N, D]
        if self.unit_features:
            features = normalize(features, dim=1)
        scores: list[float] = apply_layers(features, layers, activation=self.activation)[:, 0].tolist()
        return scores

    @cached_property
    def _loaded(self) -> tuple[ClipModel, list[Layer]]:
        from mmalign_rewards.weights import load_weights

        layers = order_layers(load_weights(self.head, f"{_WHERE}.head"))
        clip = load_clip(self.encoder, f"{_WHERE}.encoder")
        if layers[0][0].shape[1] != clip.width:
            width = layers[0][0].shape[1]
            raise ConfigError(f"{_WHERE}.head: reads {width} features, but {self.encoder.model!r} has {clip.width}")
        return clip, layers


def order_layers(weights: dict[str, Tensor]) -> list[Layer]:
    """Puts the linear layers of a head into their order.

    Raises:
        ConfigError: a tensor is no weight or bias of one, sizes do not follow on each other, or it has not one output.
    """
    names = sorted((name for name in weights if re.fullmatch(r"(.*\.)?weight", name)), key=_numbers)
    biases = {name: f"{name.removesuffix('weight')}bias" for name in names}
    foreign = sorted(set(weights) - set(names) - set(biases.values()))
    if foreign or not names:
        got = f"got {foreign[0]!r}" if foreign else "got no weight"
        raise ConfigError(f"{_WHERE}.head: expected the weights and biases of linear layers only, {got}")
    layers = [(weights[name].float(), _find_bias(weights, biases[name])) for name in names]
    shapes = [tuple(weight.shape) for weight, _ in layers]
    fit = all(len(shape) == 2 for shape in shapes) and all(a[0] == b[1] for a, b in pairwise(shapes))
    fit = fit and all(bias is None or bias.shape == weight.shape[:1] for weight, bias in layers)
    if not fit or shapes[-1][0] != 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in zip(names, shapes, strict=True))
        raise ConfigError(
            f"{_WHERE}.head: expected layers [out, in] that follow on each other to 1 output, got {listed}"
        )
    return layers


def _find_bias(weights: dict[str, Tensor], name: str) -> Tensor | None:
    return weights[name].float() if name in weights else None


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def apply_layers(features: Tensor, layers: Sequence[Layer], *, activation: Activation) -> Tensor:
    """Applies linear layers with an activation between them: features [N, D] to [N, out]."""
    from torch.nn import functional

    for index, (weight, bias) in enumerate(layers):
        if index and activation != "none":
            features = functional.relu(features) if activation == "relu" else functional.gelu(features)
        features = functional.linear(features, weight, bias)
    return features
