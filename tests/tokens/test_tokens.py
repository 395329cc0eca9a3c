"""The token core: scoring against a longhand computation, invariances, memory shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from token_models import END, IdTokens, encoded, score_longhand
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from mmalign import Decoding, Record
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Model
from mmalign.networks.policy import Policy
from mmalign.toolkits.tokens.decoders import SplitDecoder, WholeDecoder, find_decoder


@pytest.fixture
def responses():
    """Three responses of different lengths; the second is a dialogue with two scored turns."""
    return [
        encoded(torch.tensor([0, 40, 41, 42]), torch.tensor([50, 51, END])),
        encoded(torch.tensor([0, 43]), torch.tensor([60, END, 61, 62, 63, END]), [1, 1, 0, 0, 1, 1]),
        encoded(torch.tensor([0, 44, 45, 46, 47, 48]), torch.tensor([70])),
    ]


def gradient(network, modality, responses) -> dict[str, Tensor]:
    network.zero_grad()
    logps, mask = modality.step_log_probs(network, responses)
    (logps * torch.linspace(1, 2, len(responses))[:, None])[mask].sum().backward()
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}


def assert_same_gradient(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5 * float(value.abs().max()))


# -- scoring


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_as_longhand(network, responses, temperature):
    modality = IdTokens(network)
    modality.temperature = temperature
    outputs = modality.score(network, modality.collate(responses), ForwardPlan.of("logps", "entropy"))
    assert outputs["step_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    for row, response in enumerate(responses):
        logps, entropies = score_longhand(network, response, temperature)
        torch.testing.assert_close(outputs["logps"][row, : response.steps], logps, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(outputs["entropy"][row, : response.steps], entropies, rtol=1e-5, atol=1e-5)
    assert outputs["logps"].dtype == torch.float32


def test_padding_carries_zeros_and_no_gradient(llama, responses):
    logps, mask = IdTokens(llama).step_log_probs(llama, responses)
    assert logps[~mask].eq(0).all()
    (logps * ~mask).sum().backward()
    assert all(value.grad is None or not value.grad.any() for value in llama.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_changes_nothing(network, responses, side, monkeypatch):
    expected, _ = IdTokens(network).step_log_probs(network, responses)
    wanted = gradient(network, IdTokens(network), responses)
    monkeypatch.setattr(IdTokens, "padding_side", side)
    batch = IdTokens(network).collate(responses)
    assert bool(batch.inputs["attention_mask"][2, 0]) is (side == "right")
    logps, _ = IdTokens(network).step_log_probs(network, responses)
    torch.testing.assert_close(logps, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradient(gradient(network, IdTokens(network), responses), wanted)


def test_batch_order_and_composition_change_nothing(network, responses):
    modality = IdTokens(network)
    together, _ = modality.step_log_probs(network, responses)
    turned, _ = modality.step_log_probs(network, responses[::-1])
    torch.testing.assert_close(turned.flip(0), together, rtol=1e-5, atol=1e-5)
    for row, response in enumerate(responses):
        alone, _ = modality.step_log_probs(network, [response])
        torch.testing.assert_close(alone[0], together[row, : response.steps], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_chunk_size_changes_nothing(llama, responses, chunk_size):
    whole, chunked = IdTokens(llama), IdTokens(llama)
    chunked.chunk_size = chunk_size
    torch.testing.assert_close(
        chunked.step_log_probs(llama, responses)[0], whole.step_log_probs(llama, responses)[0], rtol=1e-6, atol=1e-6
    )
    assert_same_gradient(gradient(llama, chunked, responses), gradient(llama, whole, responses))


def test_logits_exist_only_where_a_step_is_scored_and_in_chunks(llama, responses):
    modality = IdTokens(llama)
    modality.chunk_size = 3
    modality.step_log_probs(llama, responses)  # the split is tried once, on three tokens
    seen = []
    llama.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    logps, _ = modality.step_log_probs(llama, responses)
    assert [shape[0] for shape in seen] == [3, 3, 2]  # 3 + 4 + 1 scored steps
    logps.sum().backward()
    assert [shape[0] for shape in seen[3:]] == [3, 3, 2]  # computed again on the way back


def test_heads_read_the_right_states(llama, responses):
    """A value belongs to the state that a step is taken in, a score to the whole response, its last token included."""
    policy = Policy(IdTokens(llama), Model(llama, hidden_size=32), ("scores", "values"))
    outputs = policy(responses, ForwardPlan.of("values", "scores"))
    assert set(outputs) == {"values", "scores", "step_mask"}
    for row, response in enumerate(responses):
        ids = torch.cat([response.tensors["prompt_ids"], response.tensors["response_ids"]])
        hidden = llama.model(ids[None]).last_hidden_state[0]
        score = policy.heads["scores"](hidden[-1])[0]
        value = policy.heads["values"](hidden[len(response.tensors["prompt_ids"]) - 1])[0]
        torch.testing.assert_close(outputs["scores"][row], score, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["values"][row, 0], value, rtol=1e-4, atol=1e-5)
    assert outputs["scores"].shape == (3,) and outputs["values"].shape == (3, 4)


def test_heads_stay_float32_under_autocast(llama, responses):
    policy = Policy(IdTokens(llama), Model(llama, hidden_size=32), ("scores",))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert policy(responses, ForwardPlan.of("scores"))["scores"].dtype == torch.float32


# -- models that do more to their logits than a linear head


@pytest.mark.parametrize(
    ("family", "extras"),
    [
        ("gemma2", {"final_logit_softcapping": 0.5, "head_dim": 8}),
        ("cohere", {"logit_scale": 3.0}),
        ("granite", {"logits_scaling": 0.25}),
    ],
)
def test_rescaled_logits_are_honoured(family, extras, responses):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 99, "pad_token_id": END}
    config = AutoConfig.for_model(family, **sizes, num_attention_heads=4, num_key_value_heads=2, **extras)
    network = AutoModelForCausalLM.from_config(config).float().eval()
    assert isinstance(find_decoder(network), SplitDecoder)
    logps, _ = IdTokens(network).step_log_probs(network, responses)
    for row, response in enumerate(responses):
        torch.testing.assert_close(logps[row, : response.steps], score_longhand(network, response)[0])


class Doubling(LlamaForCausalLM):
    """Changes its logits in a way that its config does not tell."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output


def test_a_network_whose_head_cannot_be_told_apart_stays_whole(folders, responses, caplog):
    network = Doubling.from_pretrained(folders["llama"], dtype=torch.float32).eval()
    assert isinstance(find_decoder(network), WholeDecoder)
    assert "computed whole" in caplog.text
    logps, _ = IdTokens(network).step_log_probs(network, responses)
    for row, response in enumerate(responses):
        torch.testing.assert_close(logps[row, : response.steps], score_longhand(network, response)[0])
    modality = IdTokens(network)
    [[one]] = modality.generate(network, [Record.from_text("0 40 41")], Decoding(max_steps=4), 1)
    torch.testing.assert_close(modality.step_log_probs(network, [one.encoded])[0][0], one.behaviour_logps)


def test_two_threads_give_the_same_gradient_every_time(llama):
    """All responses add to the gradient of their prompt's last state, always in one order."""
    threads = torch.get_num_threads()
    modality = IdTokens(llama)
    prompt = torch.arange(2, 8)
    responses = [encoded(prompt, torch.tensor([2 + number, 9, END])) for number in range(370)]

    def gradient() -> Tensor:
        llama.zero_grad()
        logps, _ = modality.step_log_probs(llama, responses)
        (logps * torch.linspace(-1, 1, logps.numel()).view_as(logps)).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in llama.parameters()])

    try:
        torch.set_num_threads(2)
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(4))
    finally:
        torch.set_num_threads(threads)
