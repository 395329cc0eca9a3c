"""Packed rows with shared prompts give the loss and the gradient of plain padded rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_rows import OUTPUTS, measure

from mmalign.contract.values import EncodedResponse
from mmalign.networks.policy import Policy
from mmalign.testing import build_tiny_text_model
from mmalign.toolkits.tokens.packing_support import can_pack
from mmalign_text.modality import TextModality

ARCHITECTURES = ("llama", "qwen2", "gpt2")

ids = st.lists(st.integers(2, 300), min_size=1, max_size=9)
scored = st.lists(st.booleans(), min_size=1, max_size=9).filter(any)
# Some prompts twice or more, some alone; responses whose scored tokens are scattered, as in several turns.
groups = st.lists(st.tuples(ids, st.lists(scored, min_size=1, max_size=4)), min_size=1, max_size=4)
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def encode(batch: Any) -> list[EncodedResponse]:
    encoded = []
    for prompt, masks in batch:
        for number, mask in enumerate(masks):
            response = [(7 * number + 3 * place + len(prompt)) % 300 + 2 for place in range(len(mask))]
            tensors = {
                "prompt_ids": torch.tensor(prompt),
                "response_ids": torch.tensor(response),
                "response_mask": torch.tensor(mask),
            }
            encoded.append(EncodedResponse(tensors, sum(mask), len(prompt) + len(mask), shared=len(prompt)))
    return encoded


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Policy]:
    built = {}
    for architecture in ARCHITECTURES:
        folder = build_tiny_text_model(tmp_path_factory.mktemp(architecture) / "model", architecture=architecture)
        modality = TextModality(model=str(folder))
        torch.manual_seed(0)
        model = modality.load(device=torch.device("cpu"), dtype=torch.float32)
        built[architecture] = Policy(modality, model, ("values", "scores"))
    return built


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@quick
@given(batch=groups)
def test_packed_equals_padded(policies: dict[str, Policy], architecture: str, batch: Any) -> None:
    policy, responses = policies[architecture], encode(batch)
    assert can_pack(policy.network)
    padded, expected = measure(policy, responses, "off")
    packed, gradient = measure(policy, responses, "auto")
    assert torch.equal(packed["step_mask"], padded["step_mask"])
    for name in OUTPUTS:
        torch.testing.assert_close(packed[name], padded[name], rtol=1e-5, atol=1e-5)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5


def test_a_prompt_is_in_the_row_once(policies: dict[str, Policy]) -> None:
    modality = policies["llama"].modality
    responses = encode([([5, 6, 7, 8], [[True] * 3] * 4)])
    assert modality.collate_packed(responses).inputs["input_ids"].shape == (1, 4 + 4 * 3)


WINDOWS = {"sliding_window": 2, "use_sliding_window": True, "max_window_layers": 0}


def test_an_attention_that_was_asked_for_is_left_alone(tmp_path: Path) -> None:
    folder = build_tiny_text_model(tmp_path / "model")
    modality = TextModality(model=str(folder), attention="eager")
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network
    assert not can_pack(network)
    assert network.config._attn_implementation == "eager"


def test_sliding_windows_fall_back_to_padded_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = build_tiny_text_model(tmp_path / "model", architecture="qwen2")
    config = AutoConfig.from_pretrained(folder, **WINDOWS, layer_types=["sliding_attention"] * 2)
    network = AutoModelForCausalLM.from_pretrained(folder, config=config)
    with caplog.at_level("INFO"):
        assert not can_pack(network)
        assert not can_pack(network)
    assert [record.message for record in caplog.records if "padded rows" in record.message] == [
        "Qwen2ForCausalLM is scored in padded rows: it has layers of other kinds than full attention: sliding_attention"
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_does_not_decide_what_is_packed(tmp_path: Path, dtype: torch.dtype) -> None:
    """Deep networks in bfloat16 round by as much as a position that is off by one changes: only that is refused."""
    folder = build_tiny_text_model(tmp_path / "model", layers=48)
    load = partial(TextModality(model=str(folder)).load, device=torch.device("cpu"), dtype=dtype)
    assert can_pack(load().network)
    mistaken = load().network

    def shift(module: Any, inputs: Any, given: dict[str, Any]) -> Any:
        moved = given["position_ids"] + 1 if "layout" in given else given.get("position_ids")
        moved = None if moved is None else moved - (moved == 1).long()
        return inputs, {**given, "position_ids": moved}

    mistaken.model.register_forward_pre_hook(shift, with_kwargs=True)
    assert not can_pack(mistaken)
