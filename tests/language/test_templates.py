"""Which template is used: given, named, a file, the model's own, the plain one; and what a template is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from mmalign import ConfigError, DataError, Record
from mmalign.testing import CHAT_TEMPLATE, build_tiny_text_model
from mmalign.toolkits.language.templates import PLAIN_TEMPLATE, choose_template
from mmalign_text.modality import TextModality

CPU = torch.device("cpu")
NAMED = {"default": CHAT_TEMPLATE, "tool_use": f"{{{{ tools | tojson }}}}{CHAT_TEMPLATE}", "rag": f"R{CHAT_TEMPLATE}"}
THINKING = CHAT_TEMPLATE.replace("{% if add", "{% if enable_thinking is false %}NO{% endif %}{% if add")
TOOLS = json.dumps([{"type": "function", "function": {"name": "f"}}])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return build_tiny_text_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def named(folder: Path, tmp_path: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = NAMED
    tokenizer.save_pretrained(tmp_path / "named")
    (tmp_path / "named" / "config.json").write_text((folder / "config.json").read_text())
    return str(tmp_path / "named")


def prompt(modality: TextModality, record: Record) -> str:
    return str(modality.loaded_tokenizer.decode(modality.encode_prompt(record)[0]["prompt_ids"]))


def test_of_several_templates_the_default_is_used_and_another_for_tools(named: str) -> None:
    record = Record.from_text("Hi", ["a"], id="a")
    assert prompt(TextModality(model=named), record).startswith("<|im_start|>user")
    with_tools = record.model_copy(update={"tools": TOOLS})
    assert prompt(TextModality(model=named), with_tools).startswith('[{"type": "function"')
    assert prompt(TextModality(model=named, chat_template="rag"), record).startswith("R<|im_start|>")


def test_a_template_that_there_is_not_is_refused_with_the_names(named: str) -> None:
    with pytest.raises(
        ConfigError, match=r"'ragg' is neither a template .* of the model's: 'default', 'rag', 'tool_use'"
    ):
        TextModality(model=named, chat_template="ragg").encode_prompt(Record.from_text("Hi"))
    with pytest.raises(ConfigError, match="has several, none of them the default; name one of 'rag', 'tool_use'"):
        choose_template(None, {name: NAMED[name] for name in ("rag", "tool_use")})


def test_arguments_reach_the_template_those_of_the_record_first(folder: Path) -> None:
    off, on = {"enable_thinking": False}, {"enable_thinking": True}
    record = Record.from_text("Hi", ["a"], id="a")
    own = record.model_copy(update={"chat_template_kwargs": json.dumps(on)})
    modality = TextModality(model=str(folder), chat_template=THINKING, chat_template_kwargs=off)
    assert ["NO" in prompt(modality, one) for one in (record, own)] == [True, False]
    assert modality.fingerprint() != TextModality(model=str(folder), chat_template=THINKING).fingerprint()


def test_arguments_that_a_template_does_not_know_are_refused(folder: Path) -> None:
    modality = TextModality(model=str(folder), chat_template=THINKING, chat_template_kwargs={"enable_thinkin": False})
    with pytest.raises(
        ConfigError, match=r"chat_template_kwargs: the chat template knows no 'enable_thinkin'; did you mean"
    ):
        modality.encode_prompt(Record.from_text("Hi"))
    record = Record.from_text("Hi", id="a").model_copy(update={"chat_template_kwargs": '{"tokenize": true}'})
    with pytest.raises(DataError, match="record 'a': chat_template_kwargs: 'tokenize' is set by mmalign"):
        TextModality(model=str(folder)).encode_prompt(record)


def test_an_empty_system_message_and_tools_in_the_system_text_exclude_each_other(folder: Path) -> None:
    opening = "{{ '<|im_start|>system\nYou are a bot.' + (tools | tojson if tools else '') + '<|im_end|>\n' }}"
    modality = TextModality(model=str(folder), chat_template=opening + CHAT_TEMPLATE, system="")
    assert prompt(modality, Record.from_text("You are a bot.")).startswith("<|im_start|>user\nYou are a bot.")
    record = Record.from_text("Hi", id="a").model_copy(update={"tools": TOOLS})
    with pytest.raises(DataError, match=r"record 'a': modality.system is empty, but the chat template writes tools"):
        modality.encode_prompt(record)


def test_an_invented_template_is_told_and_exported(folder: Path, tmp_path: Path) -> None:
    """The exported tokenizer makes of messages what was trained, the beginning of the sequence included."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    begin = tokenizer.bos_token
    processing = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processing
    base = build_tiny_text_model(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(base)
    modality = TextModality(model=str(base))
    modality.check_model()
    assert "modality.chat_template: the model has no chat template" in modality.notes()[0]
    record = Record.from_text("Hi", ["Good."], id="a")
    [encoded] = modality.encode(record)
    (tmp_path / "exported").mkdir()
    modality.save(modality.load(device=CPU, dtype=torch.float32), str(tmp_path / "exported"))
    assert modality.loaded_tokenizer.chat_template is None
    exported = AutoTokenizer.from_pretrained(tmp_path / "exported")
    chat = [{"role": "user", "content": "Hi"}]
    theirs = exported.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert theirs == encoded.tensors["prompt_ids"].tolist()
    again = TextModality(model=str(tmp_path / "exported"))
    assert torch.equal(again.encode(record)[0].tensors["prompt_ids"], encoded.tensors["prompt_ids"])
    again.check_model()
    assert again.notes() == []


def test_a_given_template_is_exported(folder: Path, tmp_path: Path) -> None:
    modality = TextModality(model=str(folder), chat_template=PLAIN_TEMPLATE)
    modality.check_model()
    assert modality.notes() == []
    modality.save(modality.load(device=CPU, dtype=torch.float32), str(tmp_path))
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == PLAIN_TEMPLATE
