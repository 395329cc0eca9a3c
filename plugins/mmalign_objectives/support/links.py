"""Link functions: from the margin by which chosen beats rejected to a loss. All are per pair: [M] to [M]."""

from __future__ import annotations

from math import log
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid


def logistic(margins: Tensor, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Cross-entropy of `sigmoid(margins)` [M] with labels that are flipped with probability `label_smoothing`.

    The smoothing is a number or one per pair [M]. Above 0 the loss has a finite minimum, at
    margin = ln((1 - label_smoothing) / label_smoothing).
    """
    return -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)


def hinge(margins: Tensor, required: float = 1.0) -> Tensor:
    """What `margins` [M] lack of `required`; exactly 0, with zero gradient, where nothing is lacking."""
    return (required - margins).relu()


def square(margins: Tensor, target: float | Tensor) -> Tensor:
    """Squared distance of `margins` [M] from `target`, a number or one per pair [M]."""
    return (margins - target) ** 2


Link = Literal["logistic", "hinge"]
"""The two links between which many reference-free objectives let one choose."""


def smoothed(margins: Tensor, link: Link, label_smoothing: float) -> Tensor:
    """The chosen link of `margins` [M], with labels that are flipped with probability `label_smoothing`."""
    if link == "logistic":
        return logistic(margins, label_smoothing)
    return (1 - label_smoothing) * hinge(margins) + label_smoothing * hinge(-margins)


def unbiased_logistic(margins: Tensor, flip_rate: float) -> Tensor:
    """Loss whose mean over labels flipped with probability `flip_rate` < 1/2 is `logistic` of the true labels.

    It is not bounded below.
    """
    agreement, contradiction = logistic(margins), logistic(-margins)
    return ((1 - flip_rate) * agreement - flip_rate * contradiction) / (1 - 2 * flip_rate)


def reverse_kl(margins: Tensor, label_smoothing: float) -> Tensor:
    """KL from `sigmoid(margins)` [M] to labels that are flipped with probability `label_smoothing` > 0."""
    agreement = margins.sigmoid() * (logsigmoid(margins) - log(1 - label_smoothing))
    contradiction = (-margins).sigmoid() * (logsigmoid(-margins) - log(label_smoothing))
    return agreement + contradiction


def modulated(margins: Tensor, temperature: float) -> Tensor:
    """Logistic loss of `margins` [M] that gives way to the exponential one as they grow, over a `temperature` <= 1."""
    # The weight of the exponential vanishes faster than the exponential grows; in one exponent neither overflows.
    exponential = (logsigmoid(margins / temperature) - margins).exp()
    return (-margins / temperature).sigmoid() * logistic(margins) + exponential
