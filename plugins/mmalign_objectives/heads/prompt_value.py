"""The value of a prompt: the rating that the reference is expected to get, learned from its hidden states.

A-LoL trains it first, then keeps it: `mmalign score` writes it into the records, where `rating_advantages` reads it.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, Model, ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.shapes import check_shapes

_PAPER = "Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)"
SPECS = (
    ObjectiveSpec(
        name="prompt_value",
        summary="Fits the value of prompts to the ratings of responses: what A-LoL takes its advantages from.",
        loss=f"{__name__}:prompt_value_loss",
        per="response",
        over="ratings",
        equation="(V(x) - R)^2",
        paper=_PAPER,
    ),
    QuantitySpec(
        name="prompt_values",
        summary="Value of the prompt, from the hidden states of the reference along it.",
        module=f"{__name__}:PromptValueHead",
        config=f"{__name__}:PromptValueConfig",
        axes="N",
        paper=_PAPER,
    ),
)


class PromptValueConfig(Parameters):
    """The value head."""

    heads: int = Field(default=8, ge=1)
    """Attention heads; they divide the hidden size."""
    max_reward: float = Field(default=1.0, gt=0)
    """Largest rating; values are between 0 and this."""


class PromptValueHead(nn.Module):
    """Attention over a prompt's hidden states, a linear layer and a sigmoid, times the largest reward. D hidden size.

    Source: arXiv:2305.14718, the value estimate of A-LoL.
    Differs: the query of the attention is a learned vector; which one the paper takes was not checked.
    """

    def __init__(self, model: Model, *, heads: int, max_reward: float) -> None:
        super().__init__()
        if not model.hidden_size or model.hidden_size % heads:
            raise ConfigError(
                f"quantities[prompt_values].heads: {heads} heads do not divide the hidden size {model.hidden_size}"
            )
        self.query = nn.Parameter(torch.randn(1, 1, model.hidden_size))
        self.attention = nn.MultiheadAttention(model.hidden_size, heads, batch_first=True)
        self.linear = nn.Linear(model.hidden_size, 1)
        self.max_reward = max_reward

    def forward(self, reference_context: Tensor) -> Tensor:
        """Computes values [N] of prompts from states [N, C, D], NaN beyond the end of each."""
        absent = reference_context[..., 0].isnan()
        states = torch.where(absent[..., None], 0, reference_context)
        query = self.query.expand(len(reference_context), -1, -1)
        pooled, _ = self.attention(query, states, states, key_padding_mask=absent, need_weights=False)
        values: Tensor = self.max_reward * self.linear(pooled[:, 0]).squeeze(-1).sigmoid()
        return values


def prompt_value_loss(prompt_values: Tensor, ratings: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared distance of the value of every response's prompt from its rating.

    Args:
        prompt_values: [N].
        ratings: [N], of responses of the reference.

    Returns:
        losses [N] and the detached metric `values` [N].

    Source: arXiv:2305.14718.
    """
    check_shapes(1, prompt_values=prompt_values, ratings=ratings)
    return (prompt_values - ratings) ** 2, {"values": prompt_values.detach()}
