"""Images in later turns of a response: at their place, and every answer scored as if it had been asked for alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from layout_rows import read_row
from multimodal_models import Family
from multimodal_records import write_media

from mmalign import DataError, Message, Part, Record, Response
from mmalign_vision_language.modality import VisionLanguageModality

CPU = torch.device("cpu")
Seeing = Callable[..., VisionLanguageModality]


def dialogue(folder: Path, first: str = "A cat.", second: str = "Two.") -> Record:
    shown = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    again = [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "image"}]
    messages = [
        {"role": "user", "content": shown},
        {"role": "assistant", "content": first},
        {"role": "user", "content": again},
        {"role": "assistant", "content": second},
    ]
    images = [str(write_media(folder, "image", seed)) for seed in (1, 2, 3)]
    return read_row({"id": "a", "messages": messages, "images": images}, 0)


def as_prompt(record: Record, turns: int) -> Record:
    """The record whose prompt goes on to the next answer, which is the whole of the response."""
    [response] = record.responses
    asked, told = response.messages[:turns], response.messages[turns : turns + 1]
    longer = record.model_copy(update={"prompt": (*record.prompt, *asked)})
    return longer.with_responses([Response(rid="r0", messages=told)])


def test_every_answer_is_trained_and_images_are_at_their_place(seeing: Seeing, tmp_path: Path) -> None:
    modality = seeing()
    [encoded] = modality.encode(dialogue(tmp_path))
    pieces = modality.render(encoded)
    assert [text for text, counted in pieces if counted] == ["A cat.<|im_end|>", "Two.<|im_end|>"]
    assert pieces[2][0].startswith("\n<|im_start|>user\nAnd <|vision_start|><|image_pad|>")
    assert len(encoded.tensors["media.image_grid_thw"]) == 3
    assert encoded.steps == int(encoded.tensors["prompt_mask"].sum() + encoded.tensors["response_mask"].sum())
    assert (encoded.size, encoded.shared) == (
        sum(len(encoded.tensors[f"{part}_ids"]) for part in ("prompt", "response")),
        0,
    )


@pytest.mark.parametrize("family", ["qwen2_vl", "llava"])
def test_the_log_probs_are_those_of_each_answer_to_its_history(seeing: Seeing, tmp_path: Path, family: Family) -> None:
    """In packed and in padded rows, alone and beside a response without later images."""
    record = dialogue(tmp_path)
    records = [as_prompt(record, 0), as_prompt(record, 2)]
    for packing in ("auto", "off"):
        modality = seeing(family, packing=packing)
        network = modality.load(device=CPU, dtype=torch.float32).network
        with torch.no_grad():
            alone = []
            for one in records:
                logps, mask = modality.step_log_probs(network, modality.encode(one))
                alone.append(logps[mask])
            together = [*modality.encode(record), *modality.encode(records[0])]
            logps, mask = modality.step_log_probs(network, together)
        torch.testing.assert_close(logps[0][mask[0]], torch.cat(alone), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logps[1][mask[1]], alone[0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_cut_is_refused(seeing: Seeing, tmp_path: Path) -> None:
    record = dialogue(tmp_path)
    with pytest.raises(DataError, match=r"response 'r0': cut to 0 of \d+ tokens it has no scored step left"):
        seeing(max_response_tokens=8).encode(record)
    text = record.model_copy(update={"prompt": (Message(role="user", content=(Part(type="text", text="Hi " * 9),)),)})
    with pytest.raises(DataError, match="a later turn shows more than text; such conversations are neither cut"):
        seeing(max_prompt_tokens=8).encode(text)


def test_a_last_turn_without_loss_leaves_nothing_after_the_image(seeing: Seeing, tmp_path: Path) -> None:
    record = dialogue(tmp_path)
    [response] = record.responses
    quiet = (*response.messages[:-1], response.messages[-1].model_copy(update={"train": 0.0}))
    with pytest.raises(DataError, match="no scored step after its last image"):
        seeing().encode(record.with_responses([Response(rid="r0", messages=quiet)]))


def test_the_word_image_in_a_row_becomes_an_image(seeing: Seeing, tmp_path: Path) -> None:
    row = {"prompt": "Is <image> red?", "completion": "Yes", "images": [str(write_media(tmp_path, "image", 1))]}
    modality = seeing()
    [encoded] = modality.encode(read_row(json.loads(json.dumps(row)), 0))
    assert "Is <|vision_start|><|image_pad|>" in modality.render(encoded)[0][0]


def test_an_image_token_in_words_is_refused_with_and_without_images(seeing: Seeing) -> None:
    with pytest.raises(DataError, match=r"record 't': it has '<\|image_pad\|>', which stands for an image or a sound"):
        seeing().encode(Record.from_text("What is <|image_pad|> for?", ["a tag"], id="t"))
