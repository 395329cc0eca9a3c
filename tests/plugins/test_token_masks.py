"""Masks of steps: what the activations of the reference say, and learned ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmalign import ConfigError, Model
from mmalign_objectives.heads.token_masks import MaskHead, compute_activation_mask

STEPS = torch.tensor([[True, True, True, False], [True, False, False, False]])


def activations() -> Tensor:
    """Two activations along three steps and along one; what is beyond is not finite."""
    values = torch.full((2, 4, 2), torch.nan)
    values[0, :3] = torch.tensor([[1.0, 6.0], [3.0, 2.0], [2.0, 4.0]])
    values[1, 0] = torch.tensor([5.0, 5.0])
    return values


def test_activation_mask_by_hand() -> None:
    """(0, 1, 1/2) and (1, 0, 1/2) average to 1/2 everywhere; a response of one step has nothing to compare."""
    mask = compute_activation_mask(activations(), STEPS)
    assert mask.tolist() == [[0.5, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]]


def test_standardising_first_changes_nothing() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 5, 4, dtype=torch.float64)
    mask = torch.ones(3, 5, dtype=torch.bool)
    standard = (values - values.mean(dim=1, keepdim=True)) / values.std(dim=1, keepdim=True)
    torch.testing.assert_close(compute_activation_mask(standard, mask), compute_activation_mask(values, mask))


def test_activation_mask_agrees_with_a_longhand_reference() -> None:
    torch.manual_seed(1)
    values, lengths = torch.randn(2, 4, 3), (4, 2)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    found = compute_activation_mask(values, mask)
    for row, length in enumerate(lengths):
        for step in range(length):
            scaled = []
            for index in range(3):
                own = values[row, :length, index].tolist()
                scaled.append((own[step] - min(own)) / (max(own) - min(own)))
            assert found[row, step].item() == pytest.approx(sum(scaled) / 3, rel=1e-5)


def head(**options: Any) -> MaskHead:
    torch.manual_seed(0)
    return MaskHead(Model(nn.Identity(), hidden_size=4, layers=2), dropout=0.0, **options)


def test_a_learned_mask_agrees_with_a_longhand_reference() -> None:
    module = head()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, -1.0, 0.25, 2.0], [1.0, 1.0, -2.0, 0.0]]))
        module.bias.copy_(torch.tensor([0.1, -0.2]))
        module.mixture.copy_(torch.tensor([0.7, -0.4]))
    layers = torch.randn(2, 4, 2, 4)
    mask = module(layers, STEPS)
    for row, step in ((0, 0), (0, 1), (0, 2), (1, 0)):
        total = 0.0
        for layer in range(2):
            state = layers[row, step, layer].tolist()
            mean = sum(state) / 4
            scale = math.sqrt(sum((one - mean) ** 2 for one in state) / 4 + 1e-5)
            weights = module.weight[layer].tolist()
            feature = sum(w * (one - mean) / scale for w, one in zip(weights, state, strict=True))
            total += module.mixture[layer].item() * max(0.0, feature + module.bias[layer].item())
        assert mask[row, step].item() == pytest.approx(max(0.0, total), rel=1e-4, abs=1e-6)
    assert not mask[~STEPS].any()


def test_a_learned_mask_starts_near_one_and_learns_to_be_sparse() -> None:
    torch.manual_seed(0)
    module = MaskHead(Model(nn.Identity(), hidden_size=16, layers=2), dropout=0.0)
    layers = torch.randn(2, 4, 2, 16)
    assert (module(layers, STEPS)[STEPS] > 0.2).all()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(100):
        mask = module(layers, STEPS)
        loss = (mask[0, 0] - 2) ** 2 + mask[STEPS][1:].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mask = module(layers, STEPS)
    assert mask[0, 0] > 1
    assert mask[STEPS][1:].tolist() == [0.0, 0.0, 0.0]


def test_dropout_is_off_outside_of_training() -> None:
    torch.manual_seed(0)
    module = MaskHead(Model(nn.Identity(), hidden_size=4, layers=6), dropout=0.5)
    layers = torch.randn(2, 4, 6, 4)
    assert not torch.equal(module(layers, STEPS), module(layers, STEPS))
    module.eval()
    torch.testing.assert_close(module(layers, STEPS), module(layers, STEPS))


def test_a_modality_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not tell their number"):
        MaskHead(Model(nn.Identity(), hidden_size=4), dropout=0.0)
