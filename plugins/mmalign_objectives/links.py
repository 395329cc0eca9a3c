"""Link functions: from the margin by which chosen beats rejected to a loss. All are per pair: [M] to [M]."""

from __future__ import annotations

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


def square(margins: Tensor, target: float) -> Tensor:
    """Squared distance of `margins` [M] from `target`."""
    return (margins - target) ** 2
