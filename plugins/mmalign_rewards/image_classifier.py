"""A classifier's confidence that an image shows the class that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from mmalign import ConfigError, Parameters, Reward, Sample, suggest
from mmalign_rewards.classifier_networks import NetworkConfig, PreprocessingConfig
from mmalign_rewards.images import score_images

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mmalign_rewards.classifier_networks import ImageNetwork

Output = Literal["probability", "log_probability", "logit"]
_WHERE = "rewards.image_classifier"


class ImageClassifierConfig(Parameters):
    """An image classifier."""

    network: NetworkConfig
    """The classifier."""
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    """How it wants its images."""
    labels: str | None = None
    """A file with the name of each class, one a line; null numbers them from 0."""
    label: Annotated[int, Field(ge=0)] | str | None = None
    """The class that is asked for, by index or name; null takes it from the prompt."""
    metadata: str | None = None
    """The key of the record's metadata that holds the class, in place of the prompt."""
    output: Output = "probability"
    """Of the class: a softmax over all classes, its logarithm, or the logit."""
    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""

    @model_validator(mode="after")
    def _check_label(self) -> ImageClassifierConfig:
        if self.label is not None and self.metadata is not None:
            raise ValueError("label: give label or metadata, not both")
        return self


class ImageClassifier(Reward):
    """Scores an image with the output of the class that is asked for.

    The class is `label`; or what the record's metadata holds under `metadata`, an index or a name; or that of the
    prompt, whose whole text is a name, or in which one name occurs as words. Where the class is not known, there is no
    score.
    """

    costly = True

    def __init__(
        self,
        network: NetworkConfig,
        preprocessing: PreprocessingConfig | None = None,
        labels: str | None = None,
        label: int | str | None = None,
        metadata: str | None = None,
        output: Output = "probability",
        batch_size: int = 32,
    ) -> None:
        self.network = network
        self.preprocessing = preprocessing or PreprocessingConfig()
        self.labels = labels
        self.label = label
        self.metadata = metadata
        self.output = output
        self.batch_size = batch_size

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns a score, or an exception for what is no image or asks for no class.

        Raises:
            ConfigError: the network, its weights or its labels cannot be loaded, or there is no class `label`.
        """
        return score_images(samples, self._score)

    def _score(self, samples: list[Sample], images: list[Image]) -> list[float | Exception]:
        outputs = self._read(self._network.compute_logits(images, self.batch_size))  # [N, classes]
        names = self._read_names(outputs.shape[1])
        scores: list[float | Exception] = []
        for sample, row in zip(samples, outputs.tolist(), strict=True):
            try:
                scores.append(_check_finite(row[self._find_class(sample, names)]))
            except ValueError as error:
                scores.append(error)
        return scores

    def _read(self, logits: Tensor) -> Tensor:
        if self.output == "logit":
            return logits
        log_probabilities = logits.log_softmax(dim=1)
        return log_probabilities if self.output == "log_probability" else log_probabilities.exp()

    def _find_class(self, sample: Sample, names: Sequence[str]) -> int:
        if self.label is not None:
            try:
                return find_label(self.label, names)
            except ValueError as error:
                raise ConfigError(f"{_WHERE}.label: {error}") from None
        if self.metadata is None:
            return find_label_in(sample.record.prompt_text, names)
        if self.metadata not in sample.record.metadata:
            raise ValueError(f"the record's metadata have no {self.metadata!r}")
        return find_label(sample.record.metadata[self.metadata], names)

    def _read_names(self, count: int) -> list[str]:
        names = self._names if self._names is not None else [str(index) for index in range(count)]
        if len(names) != count:
            raise ConfigError(
                f"{_WHERE}.labels: {self.labels!r} names {len(names)} classes, but the network has {count}"
            )
        return names

    @cached_property
    def _names(self) -> list[str] | None:
        if self.labels is None:
            return None
        try:
            return [line.strip() for line in Path(self.labels).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{_WHERE}.labels: cannot read {self.labels!r}: {error}") from error

    @cached_property
    def _network(self) -> ImageNetwork:
        from mmalign_rewards.classifier_networks import ImageNetwork

        return ImageNetwork(self.network, self.preprocessing, f"{_WHERE}.network")


def _check_finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(f"the classifier gave {value}")
    return value


def find_label(label: Any, names: Sequence[str]) -> int:
    """Returns the index of a class that is given by index or name; raises ValueError if there is none.

    >>> find_label("cat", ["dog", "cat"])
    1
    """
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return label
    if isinstance(label, str) and label in names:
        return names.index(label)
    hint = suggest(str(label), names) if len(names) <= 100 else ""
    raise ValueError(f"unknown class {label!r} of {len(names)}{hint}")


def find_label_in(text: str, names: Sequence[str]) -> int:
    """Returns the index of the one class that a text names, whatever the case; raises ValueError for none or several.

    A name inside another name that occurs does not count.

    >>> find_label_in("A tiger cat, please", ["cat", "tiger cat", "dog"])
    1
    """
    folded = text.strip().casefold()
    places = {name.casefold(): index for index, name in enumerate(names)}
    if folded in places:
        return places[folded]
    found = [name for name in places if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", folded)]
    whole = [name for name in found if not any(name != other and name in other for other in found)]
    if len(whole) != 1:
        told = f"several classes: {', '.join(sorted(whole))}" if whole else "no class"
        raise ValueError(f"the prompt names {told}")
    return places[whole[0]]
