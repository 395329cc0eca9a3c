"""Computing in float32 with a network of half precision, one module at a time."""

from __future__ import annotations

import copy

import pytest
import torch

from mmalign.networks.float32 import in_float32

IDS = torch.arange(2, 12)[None]


@pytest.fixture
def half(network: torch.nn.Module) -> torch.nn.Module:
    return network.to(torch.bfloat16)


def test_it_computes_what_the_same_weights_do_in_float32(half) -> None:
    exact = copy.deepcopy(half).float()
    with in_float32(half), torch.no_grad():
        ours = half(IDS).logits
    with torch.no_grad():
        expected, rounded = exact(IDS).logits, half(IDS).logits
    assert ours.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert (rounded - expected).abs().max() > 1e-3


def test_it_is_not_rounded_under_autocast_either(llama) -> None:
    with torch.no_grad():
        expected = llama(IDS).logits
        with torch.autocast("cpu", torch.bfloat16), in_float32(llama):
            ours = llama(IDS).logits
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_it_leaves_the_network_as_it_was(half) -> None:
    def describe() -> dict[str, tuple[int, torch.dtype]]:
        return {name: (id(weight), weight.dtype) for name, weight in half.named_parameters()}

    before = describe()
    with in_float32(half):
        half(IDS)
    assert describe() == before
    with pytest.raises(IndexError), in_float32(half):
        half(torch.tensor([[10_000]]))  # no such token
    assert describe() == before
    assert half(IDS).logits.dtype == torch.bfloat16


def test_there_is_never_a_second_copy_of_the_whole_network(half) -> None:
    widened = []

    def count(module: torch.nn.Module, *rest: object) -> None:
        widened.append(sum(one.dtype == torch.float32 for one in half.parameters()))

    with in_float32(half):
        for module in half.modules():
            module.register_forward_pre_hook(count)
        half(IDS)
    assert 0 < max(widened) <= 3 < len(list(half.parameters()))
