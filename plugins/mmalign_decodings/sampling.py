"""Sampling from the next-step distribution, whole or truncated.

The engine records the log-probs of the tempered distribution *before* `adjust`. So with `top_k`, `top_p` or greedy
decoding, behaviour log-probs are those of the tempered model and not of the truncated distribution that was really
drawn from: importance ratios stay finite and comparable with the policy's own log-probs, at the price of a bias that
grows with how much is cut. For unbiased policy gradients leave both off.

Shapes: N responses, V vocabulary, t steps so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mmalign import Decoding, Parameters

if TYPE_CHECKING:
    from torch import Tensor


class SampleConfig(Parameters):
    """Sampling with temperature."""

    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits; below 1 sharpens. Log-probs of the run are those at this temperature."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw from this many likeliest steps only."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of likeliest steps with at least this probability."""
    max_steps: int = Field(default=64, ge=1)
    """Responses are cut off after this many steps."""


class GreedyConfig(Parameters):
    """Greedy decoding."""

    max_steps: int = Field(default=64, ge=1)
    """Responses are cut off after this many steps."""


@dataclass
class SampleDecoding(Decoding):
    """Samples; `top_k` cuts first, `top_p` cuts what is left, renormalised.

    Source: Holtzman et al., arXiv:1904.09751, section 3.1 (nucleus).
    """

    top_k: int | None = None
    top_p: float = 1.0

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Sets the logits [N, V] of the steps that are cut to -inf; at least one a row stays."""
        if self.top_k is not None:
            logits = _keep_top_k(logits, self.top_k)
        return logits if self.top_p == 1 else _keep_nucleus(logits, self.top_p)

    def request_fields(self) -> dict[str, Any]:
        """Returns temperature, limit and truncation; see `Decoding.request_fields`."""
        # Said even where nothing is cut: servers have defaults of their own. Not every one knows `top_k`.
        top_k = {} if self.top_k is None else {"top_k": self.top_k}
        return {"temperature": self.temperature, "max_tokens": self.max_steps, "top_p": self.top_p, **top_k}


@dataclass
class GreedyDecoding(Decoding):
    """Takes the likeliest step: the limit of temperature 0, reached by cutting every other step.

    `temperature` stays 1, so log-probs are those of the model itself. Only modalities that draw steps from logits are
    greedy under it; a Gaussian policy, which reads `temperature` alone, samples as it would without.
    """

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Sets the logits [N, V] of all but the likeliest step (the first of equals) to -inf."""
        return _keep_only(logits, logits.argmax(dim=-1, keepdim=True))

    def request_fields(self) -> dict[str, Any]:
        """Returns temperature 0 and the limit; see `Decoding.request_fields`."""
        return {"temperature": 0.0, "max_tokens": self.max_steps}


def _keep_only(logits: Tensor, kept: Tensor) -> Tensor:
    return logits.new_full(logits.shape, -inf).scatter(-1, kept, logits.gather(-1, kept))


def _keep_top_k(logits: Tensor, count: int) -> Tensor:
    return _keep_only(logits, logits.topk(min(count, logits.shape[-1])).indices)


def _keep_nucleus(logits: Tensor, mass: float) -> Tensor:
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.float().softmax(dim=-1)
    # A step is cut if the likelier ones reach the mass without it; the likeliest never is.
    cut = probabilities.cumsum(dim=-1) - probabilities >= mass  # [N, V]
    cut[..., 0] = False
    return logits.masked_fill(cut.gather(-1, order.argsort(dim=-1)), -inf)
