"""The inside of token networks: hidden states, layers, activations and context against the network's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from token_models import END, IdTokens, encoded
from torch import Tensor

from mmalign import EncodedResponse
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Model
from mmalign.networks.policy import Policy
from mmalign.toolkits.tokens.inner_states import record_activations

PLAN = ForwardPlan.of("hidden", "layers", "activations", "context")


@pytest.fixture
def responses() -> list[EncodedResponse]:
    """Two share a prompt; the last is a dialogue with two scored turns."""
    return [
        encoded(torch.tensor([0, 40, 41, 42]), torch.tensor([50, 51, END])),
        encoded(torch.tensor([0, 40, 41, 42]), torch.tensor([70])),
        encoded(torch.tensor([0, 43]), torch.tensor([60, END, 61, 62, 63, END]), [1, 1, 0, 0, 1, 1]),
    ]


def places_of(response: EncodedResponse) -> Tensor:
    """Where the states are that predict the scored steps."""
    return len(response.tensors["prompt_ids"]) - 1 + response.tensors["response_mask"].nonzero().flatten()


def ids_of(response: EncodedResponse) -> Tensor:
    return torch.cat([response.tensors["prompt_ids"], response.tensors["response_ids"]])[None]


def read(network: Any, responses: list[EncodedResponse], packing: str) -> dict[str, Tensor]:
    modality = IdTokens(network)
    modality.packing = packing
    with torch.no_grad():
        return Policy(modality, Model(network, hidden_size=32))(responses, PLAN)


@pytest.mark.parametrize("packing", ["auto", "off"])
def test_states_are_those_of_the_network(network: Any, responses: list[EncodedResponse], packing: str) -> None:
    outputs = read(network, responses, packing)
    for row, response in enumerate(responses):
        places, steps = places_of(response), response.steps
        with torch.no_grad():
            inside = network(ids_of(response), output_hidden_states=True).hidden_states
        layers = torch.stack(inside[1:], dim=2)[0]  # [L, layers, D]
        torch.testing.assert_close(outputs["hidden"][row, :steps], inside[-1][0, places], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["layers"][row, :steps], layers[places], rtol=1e-4, atol=1e-5)
        assert not outputs["layers"][row, steps:].any()
        prompt = len(response.tensors["prompt_ids"])
        torch.testing.assert_close(outputs["context"][row, :prompt], inside[-1][0, :prompt], rtol=1e-4, atol=1e-5)
        assert outputs["context"][row, prompt:].isnan().all()


@pytest.mark.parametrize("packing", ["auto", "off"])
def test_activations_are_means_over_units(llama: Any, responses: list[EncodedResponse], packing: str) -> None:
    activations = read(llama, responses, packing)["activations"]
    layers = len(llama.model.layers)
    assert activations.shape[2] == layers * (1 + 4)  # the state; queries, keys, values and the MLP's activation
    block = llama.model.layers[0]
    for row, response in enumerate(responses):
        with torch.no_grad():
            embedded = llama.model.embed_tokens(ids_of(response))
            queries = block.self_attn.q_proj(block.input_layernorm(embedded)).mean(dim=-1)
            state = llama(ids_of(response), output_hidden_states=True).hidden_states[1].mean(dim=-1)
        for index, expected in ((0, state), (layers, queries)):
            found = activations[row, : response.steps, index]
            torch.testing.assert_close(found, expected[0, places_of(response)], rtol=1e-4, atol=1e-5)


def test_joined_projections_are_one_activation(folders: Any) -> None:
    from conftest import load_network

    network = load_network(folders["gpt2"])
    with record_activations(network) as found, torch.no_grad():
        network(torch.tensor([[1, 2, 3]]))
    assert [name.rpartition("h.")[2] for name in found] == [
        f"{layer}.{name}" for layer in (0, 1) for name in ("attn.c_attn", "mlp.c_proj")
    ]
    assert all(value.shape == (1, 3) for value in found.values())


def test_recording_leaves_nothing_behind(llama: Any) -> None:
    with record_activations(llama) as found:
        pass
    with torch.no_grad():
        llama(torch.tensor([[1, 2, 3]]))
    assert found == {}
