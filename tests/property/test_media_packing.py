"""Packed rows with shared images and sounds give the loss and the gradient of plain padded rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multimodal_models import Family, build_tiny_multimodal_model
from multimodal_records import media_of, media_record
from packed_rows import OUTPUTS, measure

from mmalign import Decoding, EncodedResponse
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.networks.policy import Policy
from mmalign.toolkits.tokens.decoders import find_text_part
from mmalign.toolkits.tokens.packing_support import can_pack
from mmalign.toolkits.tokens.prompts import Prompt
from mmalign_vision_language.modality import VisionLanguageModality

PACKED: tuple[Family, ...] = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "qwen2_audio")

words = st.sampled_from(["A cat.", "No.", "The sea and the city", "I do not know, sorry"])
# A prompt shows up to two media or is text alone; the same media may come with both questions, and the other way round.
prompts = st.tuples(st.lists(st.integers(0, 3), max_size=2), st.sampled_from(["What is this?", "Why?"]))
groups = st.lists(st.tuples(prompts, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=4)
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Policy]:
    root = tmp_path_factory.mktemp("multimodal")

    @cache
    def build(family: Family) -> Policy:
        modality = VisionLanguageModality(
            model=str(build_tiny_multimodal_model(root / family, family)), train_towers=True
        )
        torch.manual_seed(0)
        return Policy(modality, modality.load(device=torch.device("cpu"), dtype=torch.float32), ("values", "scores"))

    return build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


def encode(policy: Policy, folder: Path, family: Family, batch: Any) -> list[EncodedResponse]:
    records = [media_record(folder, media_of(family), seeds, answers, text) for (seeds, text), answers in batch]
    return [encoded for record in records for encoded in policy.modality.encode(record)]


@pytest.mark.parametrize("family", PACKED)
@quick
@given(batch=groups)
def test_packed_equals_padded(policies: Callable[..., Policy], folder: Path, family: Family, batch: Any) -> None:
    """Also through what reads the images, which is trained here."""
    policy = policies(family)
    responses = encode(policy, folder, family, batch)
    assert can_pack(policy.network, [Prompt.read(response.tensors) for response in responses])
    padded, expected = measure(policy, responses, "off")
    packed, gradient = measure(policy, responses, "auto")
    assert torch.equal(packed["step_mask"], padded["step_mask"])
    for name in OUTPUTS:
        torch.testing.assert_close(packed[name], padded[name], rtol=1e-5, atol=1e-5)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("family", PACKED)
def test_padded_rows_are_those_of_the_network_itself(
    policies: Callable[..., Policy], folder: Path, family: Family
) -> None:
    """Log-probs equal what the network says of the processor's own inputs followed by the response."""
    policy = policies(family)
    modality = policy.modality
    record = media_record(folder, media_of(family), [2, 1], ["A cat on a mat."])
    [encoded] = modality.encode(record)
    ids = torch.cat([encoded.tensors["prompt_ids"], encoded.tensors["response_ids"]])[None]
    media = {name.removeprefix("media."): one for name, one in encoded.tensors.items() if name.startswith("media.")}
    kinds = (ids == next(iter(modality.placeholder_ids & set(ids[0].tolist())))).long()
    own = {"mm_token_type_ids": kinds} if "prompt_positions" in encoded.tensors else {}
    with torch.no_grad():
        logits = policy.network(input_ids=ids, attention_mask=torch.ones_like(ids), **media, **own).logits[0]
        logps = policy([encoded], ForwardPlan.of("logps"))["logps"][0]
    start, response = len(encoded.tensors["prompt_ids"]), encoded.tensors["response_ids"]
    expected = logits[start - 1 : -1].float().log_softmax(-1).gather(1, response[:, None])[:, 0]
    torch.testing.assert_close(logps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packing", ["auto", "off"])
@pytest.mark.parametrize("family", PACKED)
def test_sampled_responses_score_as_they_were_sampled(
    policies: Callable[..., Policy], folder: Path, family: Family, packing: Any
) -> None:
    policy = policies(family)
    modality = policy.modality
    records = [media_record(folder, media_of(family), seeds, []) for seeds in ([0], [], [3, 2], [1])]
    modality.packing = packing
    torch.manual_seed(0)
    groups = modality.generate(policy.network, records, Decoding(max_steps=5), 3)
    sampled = [one for group in groups for one in group]
    modality.packing = "off"
    with torch.no_grad():
        outputs = policy([one.encoded for one in sampled], ForwardPlan.of("logps"))
    behaviour = torch.cat([one.behaviour_logps for one in sampled])
    torch.testing.assert_close(behaviour, outputs["logps"][outputs["step_mask"]], rtol=1e-4, atol=1e-5)
    assert not modality.placeholder_ids & {
        token for one in sampled for token in one.encoded.tensors["response_ids"].tolist()
    }


def test_windows_fall_back_to_padded_rows(
    policies: Callable[..., Policy], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gemma 3 has them, and wants to be told which tokens stand for an image: a response alone scores as in a batch."""
    policy = policies("gemma3")
    responses = encode(policy, folder, "gemma3", [(([0, 1], "Why?"), ["A cat.", "No."]), (([], "Why?"), ["No."])])
    policy.modality.packing = "auto"
    with caplog.at_level("INFO"), torch.no_grad():
        together = policy(responses, ForwardPlan.of("logps"))["logps"]
    assert "Gemma3ForConditionalGeneration is scored in padded rows: it has layers of other kinds" in caplog.text
    with torch.no_grad():
        for row, response in zip(together, responses, strict=True):
            alone = policy([response], ForwardPlan.of("logps"))["logps"][0]
            torch.testing.assert_close(row[: response.steps], alone, rtol=1e-5, atol=1e-5)


def test_an_image_is_looked_at_once_for_all_responses_to_it(policies: Callable[..., Policy], folder: Path) -> None:
    """Eight responses to each of two images: the tower sees two; padded rows show it sixteen. So does sampling."""
    policy = policies("llava")
    batch = [(([seed], "What is this?"), ["A cat."] * 8) for seed in (0, 1)]
    responses = encode(policy, folder, "llava", batch)
    measure(policy, responses, "auto")
    seen, positions = [], []
    tower, text = policy.network.model.vision_tower, find_text_part(policy.network)
    hooks = [tower.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))]
    hooks += [
        text.register_forward_pre_hook(
            lambda module, inputs, given: positions.append(given["inputs_embeds"].shape[:2].numel()), with_kwargs=True
        )
    ]
    for packing in ("auto", "off"):
        measure(policy, responses, packing)
    prompt, own = responses[0].shared, responses[0].size - responses[0].shared
    assert seen == [2, 16]
    assert positions == [2 * prompt + 16 * own, 16 * (prompt + own)]
    seen.clear()
    policy.modality.packing = "auto"
    records = [media_record(folder, "image", [seed], []) for seed in (0, 1)]
    policy.modality.generate(policy.network, records, Decoding(max_steps=3), 8)
    assert seen == [2]
    for hook in hooks:
        hook.remove()


def test_equal_words_about_other_images_are_other_prompts(policies: Callable[..., Policy], folder: Path) -> None:
    """Their tokens are the same: only the pixels tell them apart."""
    policy = policies("llava")
    one, other = encode(policy, folder, "llava", [(([seed], "What is this?"), ["A cat."]) for seed in (1, 3)])
    assert torch.equal(one.tensors["prompt_ids"], other.tensors["prompt_ids"])
    policy.modality.packing = "auto"
    with torch.no_grad():
        together = policy([one, other], ForwardPlan.of("logps"))["logps"]
        alone = [policy([encoded], ForwardPlan.of("logps"))["logps"][0] for encoded in (one, other)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 0.01
