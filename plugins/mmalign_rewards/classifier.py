"""A transformers sequence classifier as a reward: sentiment, toxicity, trained reward models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmalign import ConfigError, Parameters, Reward, Sample, suggest
from mmalign_rewards.texts import check_template, response_text

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Output = Literal["logit", "probability"]

Index = Annotated[int, Field(ge=0)]


class ClassifierConfig(Parameters):
    """A sequence classifier."""

    model: str
    """A model with a trained classification head: hub id or folder."""
    label: Index | str | None = None
    """The label whose score is the reward, by index or by name; null where the model has only one."""
    labels: tuple[Index | str, ...] = ()
    """Several labels in place of one, e.g. the heads of a reward model; each is a dimension of the reward."""
    output: Output = "logit"
    """`logit`, unbounded; or `probability`, a softmax over labels (a sigmoid of a single or multi-label logit)."""
    template: str = "{prompt}\n{response}"
    """The text that is classified, with {prompt} (last user message) and {response}; other braces are doubled."""
    batch_size: int = Field(default=16, ge=1)
    """Texts per forward pass."""
    max_length: int = Field(default=512, ge=2)
    """Longest text in tokens; of longer ones the beginning is cut off, counted and warned of."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        return check_template(template)

    @model_validator(mode="after")
    def _check_labels(self) -> ClassifierConfig:
        if self.labels and self.label is not None:
            raise ValueError("labels: give label or labels, not both")
        return self


class Classifier(Reward):
    """Scores the text of prompt and response with one label of a classifier, or with several.

    Attributes:
        truncated: texts so far that were longer than `max_length`.
    """

    costly = True

    def __init__(
        self,
        model: str,
        label: int | str | None = None,
        output: Output = "logit",
        template: str = "{prompt}\n{response}",
        batch_size: int = 16,
        max_length: int = 512,
        labels: Sequence[int | str] = (),
    ) -> None:
        self.model = model
        self.label = label
        self.labels = labels
        self.dimensions = tuple(str(one) for one in labels)
        self.output = output
        self.template = template
        self.batch_size = batch_size
        self.max_length = max_length
        self.truncated = 0

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns one logit or probability a sample; with `labels`, a list of them.

        Raises:
            ConfigError: the model cannot be loaded, has no trained head, or not that label.
            TypeError: an output is not a text.
        """
        import torch

        from mmalign_rewards.pretrained import iter_token_batches

        texts = [
            self.template.format(prompt=sample.record.prompt_text, response=response_text(sample)) for sample in samples
        ]
        tokenizer, classifier, columns = self._classifier
        self._count_truncated(tokenizer, texts)
        sizes = {"batch_size": self.batch_size, "max_length": self.max_length}
        scores: list[list[float]] = []
        with torch.no_grad():
            for inputs in iter_token_batches(tokenizer, texts, device=classifier.device, **sizes):
                logits = classifier(**inputs).logits.float()  # [texts, labels]
                scores += self._read(logits, classifier.config.problem_type)[:, columns].tolist()
        return scores if self.labels else [score for (score,) in scores]

    def _read(self, logits: Tensor, problem_type: str | None) -> Tensor:
        if self.output == "logit":
            return logits
        independent = logits.shape[1] == 1 or problem_type == "multi_label_classification"
        return logits.sigmoid() if independent else logits.softmax(dim=1)

    def _count_truncated(self, tokenizer: Any, texts: Sequence[str]) -> None:
        from mmalign_rewards.pretrained import count_longer

        longer = count_longer(tokenizer, texts, self.max_length)
        if longer and not self.truncated:
            text = (
                "rewards.classifier: %d of %d texts are longer than %d tokens and lose their beginning; see max_length"
            )
            logger.warning(text, longer, len(texts), self.max_length)
        self.truncated += longer

    @cached_property
    def _classifier(self) -> tuple[Any, Any, list[int]]:
        from transformers import AutoModelForSequenceClassification

        from mmalign_rewards.pretrained import load_frozen

        where = "rewards.classifier.model"
        tokenizer, model, missing = load_frozen(AutoModelForSequenceClassification, self.model, where, dtype="auto")
        if missing:
            raise ConfigError(
                f"{where}: {self.model!r} has no trained classification head: {', '.join(missing)} missing"
            )
        # The end of the text is the response, which must be seen whole.
        tokenizer.truncation_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        names = model.config.id2label
        return tokenizer, model, [find_label(label, names) for label in self.labels or (self.label,)]


def find_label(label: int | str | None, names: dict[int, str]) -> int:
    """Returns the index of a label among a classifier's `names`.

    Raises:
        ConfigError: there is no such label, or none is given and there are several.

    >>> find_label("joy", {0: "anger", 1: "joy"})
    1
    """
    known = [str(names[index]) for index in sorted(names)]
    if label is None and len(known) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(known):
        return label
    if isinstance(label, str) and label in known:
        return known.index(label)
    if label is None:
        raise ConfigError(f"rewards.classifier.label: missing; the model has {len(known)} labels: {', '.join(known)}")
    raise ConfigError(f"rewards.classifier.label: unknown {label!r}{suggest(str(label), known)}")
