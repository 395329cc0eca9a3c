"""End tokens and control tokens in stored texts: cut off, refused or told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mmalign import DataError, Record
from mmalign.testing import build_tiny_text_model
from mmalign_text.modality import TextModality


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> str:
    return str(build_tiny_text_model(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n"])
def test_an_end_token_at_the_end_is_cut_off_once_and_counted(folder: str, end: str) -> None:
    modality = TextModality(model=folder)
    clean, cut = modality.encode(Record.from_text("Hi", ["Fine. ", f"Fine. {end}"], id="a"))
    assert cut.tensors["response_ids"].tolist() == clean.tensors["response_ids"].tolist()
    modality.encode(Record.from_text("Hi", [f"Good.{end}"], id="b"))
    [note] = modality.notes()
    assert note.startswith("record 'a', response 'r1' and 1 more: stored responses end with the end token")


@pytest.mark.parametrize("text", ["Fine<|im_end|> not", "Fine<|im_end|><|im_end|>", "<|im_end|>a"])
def test_what_goes_on_after_an_end_token_is_refused(folder: str, text: str) -> None:
    with pytest.raises(DataError, match=r"record 'a', response 'r0': it goes on after '<\|im_end\|>', which ends"):
        TextModality(model=folder).encode(Record.from_text("Hi", [text], id="a"))


def test_a_prompt_that_is_rendered_already_is_told_once(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    modality = TextModality(model=folder)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            modality.encode(Record.from_text("<|im_start|>user\nHi<|im_end|>\n", ["Hello"], id=name))
    [told] = caplog.messages
    assert told.startswith("record 'a' (<|im_start|>, <|im_end|>): a text has control tokens")
    assert "and 1 more" in modality.notes()[0]


def test_plain_texts_have_nothing_to_tell(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    modality = TextModality(model=folder)
    with caplog.at_level(logging.WARNING):
        modality.encode(Record.from_text("Is 1 < 2 and |x| > 3?", ["im_end"], id="a"))
    assert (modality.notes(), caplog.messages) == ([], [])
