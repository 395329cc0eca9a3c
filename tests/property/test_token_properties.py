"""Whatever the responses: batch order, composition and padding side change neither log-probs nor gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from mmalign import EncodedResponse, TokenModality
from mmalign.testing import build_tiny_text_model


class EncodedOnly(TokenModality):
    """Scores what is encoded already."""

    pad_id = 1
    end_ids = frozenset({1})

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    load = encode = encode_prompt = build_response = decode = _unused


class LeftPadded(EncodedOnly):
    padding_side = "left"


@st.composite
def encoded_responses(draw: Any) -> EncodedResponse:
    ids = st.integers(0, 300)
    prompt = draw(st.lists(ids, min_size=1, max_size=9))
    response = draw(st.lists(ids, min_size=1, max_size=9))
    mask = draw(st.lists(st.booleans(), min_size=len(response), max_size=len(response)).filter(any))
    tensors = {"prompt_ids": torch.tensor(prompt), "response_ids": torch.tensor(response)}
    return EncodedResponse(tensors | {"response_mask": torch.tensor(mask)}, sum(mask), len(prompt) + len(response))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = build_tiny_text_model(tmp_path_factory.mktemp("tiny"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def score(modality: TokenModality, network: Any, parts: list[list[EncodedResponse]]) -> tuple[list[Tensor], Tensor]:
    """Scores `parts` one after the other; returns the log-probs of every response and the summed gradient."""
    network.zero_grad()
    rows: list[Tensor] = []
    for part in parts:
        logps, mask = modality.step_log_probs(network, part)
        # Squares, so that the gradient depends on the log-probs.
        logps[mask].square().sum().backward()
        rows += [own[kept].detach() for own, kept in zip(logps, mask, strict=True)]
    return rows, torch.cat([value.grad.flatten() for value in network.parameters()])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(responses=st.lists(encoded_responses(), min_size=1, max_size=6), data=st.data())
def test_layout_changes_nothing(network, responses, data):
    rows, gradient = score(EncodedOnly(), network, [responses])
    assert [len(row) for row in rows] == [response.steps for response in responses]
    order = data.draw(st.permutations(range(len(responses))))
    cut = data.draw(st.integers(1, len(responses)))
    moved = [responses[place] for place in order]
    parts = [part for part in (moved[:cut], moved[cut:]) if part]
    for modality in (EncodedOnly(), LeftPadded()):
        other_rows, other_gradient = score(modality, network, parts)
        for place, row in zip(order, other_rows, strict=True):
            torch.testing.assert_close(row, rows[place], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=encoded_responses(), token=st.integers(0, 300))
def test_what_follows_the_last_scored_step_changes_nothing(network, response, token):
    rows, _ = score(EncodedOnly(), network, [[response]])
    tensors = dict(response.tensors)
    tensors["response_ids"] = torch.cat([tensors["response_ids"], torch.tensor([token])])
    tensors["response_mask"] = torch.cat([tensors["response_mask"], torch.tensor([False])])
    longer, _ = score(EncodedOnly(), network, [[EncodedResponse(tensors, response.steps, response.size + 1)]])
    torch.testing.assert_close(longer[0], rows[0], rtol=1e-5, atol=1e-5)
