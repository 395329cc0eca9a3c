"""The tokenizer that is chosen without the model's classes is the one that `AutoTokenizer` chooses with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmalign import find_model, load_tokenizer
from mmalign.toolkits.language.tokenizer_class import tokenizer_options

TEXT = "Ünïcode,  two spaces <|im_start|> 12345\n\nif x: return"


@pytest.mark.parametrize(
    ("model_type", "declared"),
    [
        ("llama", "TokenizersBackend"),
        ("llama", "PreTrainedTokenizerFast"),
        ("llama", "LlamaTokenizerFast"),
        ("qwen2", "Qwen2Tokenizer"),
        ("gpt2", "GPT2TokenizerFast"),
        ("mistral", "LlamaTokenizer"),
        ("phi3", "LlamaTokenizer"),
        ("qwen3", "PreTrainedTokenizerFast"),
    ],
)
def test_the_same_tokenizer_is_loaded(model_type: str, declared: str, tiny_text_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_text_model, folder)
    edit(folder / "config.json", model_type=model_type)
    edit(folder / "tokenizer_config.json", tokenizer_class=declared)
    assert tokenizer_options(str(folder))
    ours = load_tokenizer(find_model(str(folder), "modality.model"), "modality.model")
    theirs = AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.init_kwargs == theirs.init_kwargs
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours(TEXT) == theirs(TEXT)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": None}),
        ("config.json", {"auto_map": {"AutoConfig": "code.Config"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.Slow", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": None}),
    ],
)
def test_transformers_gets_the_real_configuration_where_it_needs_it(
    file: str, changes: dict[str, object], tiny_text_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_text_model, folder)
    edit(folder / file, **changes)
    assert tokenizer_options(str(folder)) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": '])
def test_a_damaged_file_is_left_to_transformers(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert tokenizer_options(str(tmp_path)) == {}


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
