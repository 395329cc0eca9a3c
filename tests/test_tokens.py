"""The token core: scoring against a longhand computation, invariances, memory shape, sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from mmalign import Decoding, EncodedResponse, Policy, Record, Response, TokenModality
from mmalign.testing import build_tiny_text_model
from mmalign.token_logps import SplitDecoder, WholeDecoder, find_decoder
from mmalign.values import Model

END = 1
ARCHITECTURES = ("llama", "qwen2", "gpt2")


class IdTokens(TokenModality):
    """Prompts and responses are token ids in text: `"5 7 9"`; padding and end are the same token."""

    pad_id = END
    end_ids = frozenset({END})

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        return Model(self.network.to(device, dtype), hidden_size=32)

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        return {"prompt_ids": ids_of(record.prompt_text)}, 0

    def encode(self, record: Record) -> list[EncodedResponse]:
        return [encoded(ids_of(record.prompt_text), ids_of(response.text)) for response in record.responses]

    def build_response(self, rid: str, ids: Any) -> Response:
        return Response.from_text(rid, " ".join(map(str, ids)))

    def decode(self, response: Response) -> str:
        return response.text


def ids_of(text: str) -> Tensor:
    return torch.tensor([int(token) for token in text.split()])


def encoded(prompt: Tensor, response: Tensor, mask: list[int] | None = None) -> EncodedResponse:
    scored = torch.ones(len(response), dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    tensors = {"prompt_ids": prompt, "response_ids": response, "response_mask": scored}
    return EncodedResponse(tensors, steps=int(scored.sum()), size=len(prompt) + len(response))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: build_tiny_text_model(root / name, architecture=name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def network(request, folders):
    return AutoModelForCausalLM.from_pretrained(folders[request.param], dtype=torch.float32).eval()


@pytest.fixture
def llama(folders):
    return AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32).eval()


@pytest.fixture
def responses():
    """Three responses of different lengths; the second is a dialogue with two scored turns."""
    return [
        encoded(torch.tensor([0, 40, 41, 42]), torch.tensor([50, 51, END])),
        encoded(torch.tensor([0, 43]), torch.tensor([60, END, 61, 62, 63, END]), [1, 1, 0, 0, 1, 1]),
        encoded(torch.tensor([0, 44, 45, 46, 47, 48]), torch.tensor([70])),
    ]


def score_longhand(network, response: EncodedResponse, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [T] of one response by itself, from the network's own logits, one step at a time."""
    prompt, own = response.tensors["prompt_ids"], response.tensors["response_ids"]
    ids = torch.cat([prompt, own])
    logits = network(ids[None]).logits[0] / temperature
    logps, entropies = [], []
    for place in response.tensors["response_mask"].nonzero().flatten().tolist():
        log_probs = logits[len(prompt) + place - 1].log_softmax(-1)
        logps.append(log_probs[own[place]])
        entropies.append(torch.distributions.Categorical(logits=log_probs).entropy())
    return torch.stack(logps), torch.stack(entropies)


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
    outputs = modality.score(network, modality.collate(responses), ("logps", "entropy"))
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
    assert [shape[0] for shape in seen[3:]] == [2, 3, 3]  # computed again on the way back


def test_heads_read_the_right_states(llama, responses):
    """A value belongs to the state that a step is taken in, a score to the whole response, its last token included."""
    policy = Policy(IdTokens(llama), Model(llama, hidden_size=32), ("scores", "values"))
    outputs = policy(responses, ("values", "scores"))
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
        assert policy(responses, ("scores",))["scores"].dtype == torch.float32


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


# -- sampling


PROMPTS = [Record.from_text("0 40 41 42 43 44"), Record.from_text("0 45"), Record.from_text("0 46 47 48")]


def flat(groups):
    return [one for group in groups for one in group]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_behaviour_logps_are_those_of_scoring(network, temperature):
    modality = IdTokens(network)
    modality.temperature = temperature
    torch.manual_seed(0)
    generated = flat(modality.generate(network, PROMPTS, Decoding(temperature=temperature, max_steps=9), 4))
    logps, mask = modality.step_log_probs(network, [one.encoded for one in generated])
    for row, one in enumerate(generated):
        torch.testing.assert_close(logps[row][mask[row]], one.behaviour_logps, rtol=1e-4, atol=1e-4)
        assert one.behaviour_logps.dtype == torch.float32 and not one.behaviour_logps.requires_grad


class Ending(Decoding):
    """Ends the first row at step 2, the others at step 5."""

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, END] = -torch.inf
        ends = torch.zeros(len(logits), dtype=torch.bool)
        ends[0] = generated.shape[1] >= 2
        ends |= generated.shape[1] >= 5
        logits[ends] = -torch.inf
        logits[ends, END] = 0.0
        return logits


def test_a_response_ends_with_its_end_token_although_padding_is_the_same_token(llama):
    modality = IdTokens(llama)
    [group] = modality.generate(llama, PROMPTS[:1], Ending(max_steps=20), 5)
    lengths = [one.encoded.steps for one in group]
    assert lengths[0] == 3 and max(lengths) <= 6
    for one in group:
        ids = one.encoded.tensors["response_ids"].tolist()
        assert ids[-1] == END and ids.count(END) == 1 and one.finished
        assert one.encoded.tensors["response_mask"].all()
        assert len(one.behaviour_logps) == one.encoded.steps == len(ids)
        assert one.encoded.size == len(ids) + 6


def test_the_step_limit_leaves_a_response_unfinished(llama):
    class Endless(Decoding):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            return logits.index_fill(1, torch.tensor([END]), -torch.inf)

    [[one]] = IdTokens(llama).generate(llama, PROMPTS[:1], Endless(max_steps=3), 1)
    assert one.encoded.steps == 3 and not one.finished


def test_sampling_is_reproduced_by_its_seed(llama):
    def sample(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return [one.response.text for one in flat(IdTokens(llama).generate(llama, PROMPTS, Decoding(max_steps=8), 2))]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_groups_keep_the_order_of_records_whatever_the_batch_size(llama):
    modality = IdTokens(llama)
    modality.generation_batch_size = 4  # cuts groups of three apart
    groups = modality.generate(llama, PROMPTS, Decoding(max_steps=4), 3)
    assert [len(group) for group in groups] == [3, 3, 3]
    for record, group in zip(PROMPTS, groups, strict=True):
        assert [one.response.rid for one in group] == ["r0", "r1", "r2"]
        for one in group:
            assert one.encoded.tensors["prompt_ids"].tolist() == ids_of(record.prompt_text).tolist()
            expected = score_longhand(llama, one.encoded)[0]
            torch.testing.assert_close(one.behaviour_logps, expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_is_read_once_for_all_its_responses(llama):
    seen = []
    llama.model.embed_tokens.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    modality = IdTokens(llama)
    find_decoder(llama)
    seen.clear()
    modality.generate(llama, PROMPTS[:2], Decoding(max_steps=2), 5)
    assert seen[0] == (2, 6) and all(shape[1] == 1 for shape in seen[1:])


def test_adjust_sees_tempered_logits_and_the_steps_so_far(llama):
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(Decoding):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            seen.append((logits.clone(), generated.clone()))
            return logits.index_fill(1, torch.tensor([END]), -torch.inf)

    [[one]] = IdTokens(llama).generate(llama, PROMPTS[:1], Watching(temperature=0.5, max_steps=3), 1)
    ids = one.encoded.tensors["response_ids"]
    assert [generated.tolist() for _, generated in seen] == [[[]], [ids[:1].tolist()], [ids[:2].tolist()]]
    torch.testing.assert_close(seen[0][0][0], llama(one.encoded.tensors["prompt_ids"][None]).logits[0, -1] / 0.5)


def test_generation_leaves_training_mode_and_gradients_as_they_were(llama):
    llama.train()
    IdTokens(llama).generate(llama, PROMPTS[:1], Decoding(max_steps=2), 1)
    assert llama.training and torch.is_grad_enabled()
