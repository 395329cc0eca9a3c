"""Masks that say how much each step of a response counts: read off activations, or learned.

Both look at the reference, at the place that predicts a step; so they tell nothing of the step itself but what the
prompt and the steps before it let expect.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, layer_norm

from mmalign import ConfigError, Model, Parameters, QuantitySpec
from mmalign_objectives.support.shapes import check_shapes

_PAPER = "SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks (arXiv:2410.05102)"
_TOKEN_MASK = QuantitySpec(
    name="token_mask",
    summary="Learned sparse mask of steps, from the hidden states of the reference.",
    module=f"{__name__}:MaskHead",
    config=f"{__name__}:MaskConfig",
    axes="NT",
    paper=_PAPER,
)
SPECS = (
    _TOKEN_MASK,
    replace(
        _TOKEN_MASK,
        name="reward_mask",
        summary="Learned sparse mask of the rewards of steps.",
    ),
    replace(
        _TOKEN_MASK,
        name="divergence_mask",
        summary="Learned sparse mask of the divergences of steps.",
    ),
    QuantitySpec(
        name="activation_mask",
        summary="Mean activation of the reference, rescaled to [0, 1] along the response.",
        compute=f"{__name__}:compute_activation_mask",
        axes="NT",
        stage="frozen",
        paper=_PAPER,
    ),
)


class MaskConfig(Parameters):
    """A learned mask."""

    dropout: float = Field(default=0.01, ge=0, lt=1)
    """Share of layers that a step's mask leaves out in training."""


def compute_activation_mask(reference_activations: Tensor, step_mask: Tensor) -> Tensor:
    """Rescales every activation to [0, 1] along a response and averages over activations.

    Args:
        reference_activations: [N, T, A], each the mean over the units of a layer.
        step_mask: [N, T] bool.

    Returns:
        [N, T] in [0, 1]; 0 at other steps. An activation that is the same at all steps counts as 1.

    Source: arXiv:2410.05102, MaPO.
    Differs: the standardisation before the rescaling is left out, which undoes it.
    """
    activations = reference_activations
    check_shapes(2, step_mask=step_mask, activations=activations[..., 0])
    counts = step_mask[..., None]
    low = torch.where(counts, activations, torch.inf).amin(dim=1, keepdim=True)
    span = torch.where(counts, activations, -torch.inf).amax(dim=1, keepdim=True) - low
    scaled = torch.where(span > 0, (activations - low) / torch.where(span > 0, span, 1), 1)
    return torch.where(step_mask, scaled.mean(dim=-1), 0)


class MaskHead(nn.Module):
    """A mask from the hidden states of all layers: ReLU of a weighted sum over layers of ReLU of linear features.

    Shapes: L layers, D hidden size.

    Source: arXiv:2410.05102, SparsePO.
    Differs: the normalisation of states has no weights of its own, which the linear features would repeat. The mask
    starts near 1, where the objective is TDPO1, so that no unit starts dead.
    """

    def __init__(self, model: Model, *, dropout: float) -> None:
        super().__init__()
        if not model.layers:
            raise ConfigError("modality: a learned mask reads all layers, but the modality does not tell their number")
        self.weight = nn.Parameter(torch.randn(model.layers, model.hidden_size) / (model.hidden_size + 1))
        self.bias = nn.Parameter(torch.ones(model.layers))
        self.mixture = nn.Parameter(torch.full((model.layers,), 1 / model.layers))
        self.dropout = dropout

    def forward(self, reference_layers: Tensor, step_mask: Tensor) -> Tensor:
        """Computes the mask [N, T], at least 0, of states [N, T, L, D]; 0 at other steps."""
        states = layer_norm(reference_layers, reference_layers.shape[-1:])
        features = torch.einsum("ntld,ld->ntl", states, self.weight) + self.bias
        mixed = dropout(features.relu(), self.dropout, self.training) @ self.mixture
        return torch.where(step_mask, mixed.relu(), 0)
