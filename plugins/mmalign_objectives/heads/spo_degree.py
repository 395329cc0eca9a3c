"""Preference degree: an auxiliary head must tell how much key content a version of a response lacks.

The transform `spo_degree` makes the versions. The loss is added to any objective that aligns, with a small weight; its
gradient reaches the policy through the states that the head reads.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmalign import ConfigError, Model, ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.shapes import check_shapes

_PAPER = (
    "Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree "
    "Awareness (arXiv:2409.17791)"
)
SPECS = (
    ObjectiveSpec(
        name="spo_degree",
        summary="Auxiliary: a head tells how much key content a version of a response lacks; add it to another.",
        loss=f"{__name__}:spo_degree_loss",
        per="response",
        over="removal_levels",
        equation="-log softmax(head(mean_t h_t))[level]",
        paper=_PAPER,
    ),
    QuantitySpec(
        name="removal_logits",
        summary="Logits of the levels, from the mean last hidden state of the policy along a response.",
        module=f"{__name__}:LevelHead",
        config=f"{__name__}:LevelHeadConfig",
        axes="NK",
        paper=_PAPER,
    ),
)


class LevelHeadConfig(Parameters):
    """The head that tells the level."""

    levels: int = Field(default=3, ge=1)
    """K, as in the transform."""


class LevelHead(nn.Module):
    """Logits of the levels from the mean last hidden state of a response. D hidden size, K levels."""

    def __init__(self, model: Model, *, levels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(model.hidden_size, levels)

    def forward(self, policy_hidden: Tensor, step_mask: Tensor) -> Tensor:
        """Computes logits [N, K] of states [N, T, D]."""
        counted = torch.where(step_mask[..., None], policy_hidden, 0)
        logits: Tensor = self.linear(counted.sum(dim=1) / step_mask.sum(dim=1, keepdim=True).clamp(min=1))
        return logits


def spo_degree_loss(removal_logits: Tensor, removal_levels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the cross-entropy of every response's level.

    Args:
        removal_logits: [N, K].
        removal_levels: [N], whole numbers from 0 to K - 1.

    Returns:
        losses [N] and the detached metric `level_accuracies` [N].

    Raises:
        ConfigError: a level is beyond the head's.

    Source: arXiv:2409.17791, as far as its abstract says: how states are pooled is ours.
    """
    check_shapes(1, removal_levels=removal_levels, removal_logits=removal_logits[:, 0])
    levels, count = removal_levels.long(), removal_logits.shape[1]
    if len(levels) and int(levels.max()) >= count:
        raise ConfigError(
            f"quantities[removal_logits].levels: {count}, but the data have a version of level {int(levels.max())}; "
            "give the `levels` of the transform `spo_degree`"
        )
    losses = cross_entropy(removal_logits, levels, reduction="none")
    return losses, {"level_accuracies": (removal_logits.detach().argmax(dim=1) == levels).float()}
