"""What the headers of safetensors tell is what the network counts, or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mmalign import LoRAParameters, add_lora
from mmalign.toolkits.language.stored_counts import count_stored

FAMILIES = {"llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}
SIZES = {
    **{"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4},
}


def build(family: str, **settings: Any) -> Any:
    config = getattr(transformers, FAMILIES[family])(**SIZES, **settings)
    return transformers.AutoModelForCausalLM.from_config(config)


def count(network: torch.nn.Module) -> tuple[int, int]:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(number for number, _ in counts), sum(number for number, trained in counts if trained)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "lora",
    [None, LoRAParameters(rank=3), LoRAParameters(targets="q_proj"), LoRAParameters(targets=("up_proj", "v_proj"))],
)
def test_the_headers_count_what_the_network_does(
    family: str, tied: bool, lora: LoRAParameters | None, tmp_path: Path
) -> None:
    network = build(family, tie_word_embeddings=tied)
    network.save_pretrained(tmp_path, max_shard_size="6KB" if tied else "5GB")
    expected = count(network if lora is None else add_lora(network, lora))
    assert count_stored(tmp_path, lora) == expected


@pytest.mark.parametrize(
    "lora", [LoRAParameters(targets="all-linear"), LoRAParameters(last_layers=1), LoRAParameters(targets="k_poj")]
)
def test_adapters_that_need_the_network_are_left_to_it(lora: LoRAParameters, tiny_text_model: Path) -> None:
    assert count_stored(tiny_text_model, lora) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"quantization_config": {"bits": 4}},
        {"auto_map": {"AutoModel": "code.Model"}},
        {"num_hidden_layers": 7},
        {"tie_word_embeddings": "other"},
    ],
)
def test_what_is_not_certain_is_left_to_the_network(
    changes: dict[str, Any], tiny_text_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_text_model, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    settings = json.loads(file.read_text())
    assert count_stored(tmp_path / "model", None) is not None
    if changes.get("tie_word_embeddings") == "other":
        changes = {"tie_word_embeddings": not settings.get("tie_word_embeddings", False)}
    file.write_text(json.dumps({**settings, **changes}))
    assert count_stored(tmp_path / "model", None) is None


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{broken"])
def test_damaged_files_are_left_to_the_network(content: bytes, tiny_text_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_text_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    assert count_stored(tmp_path / "model", None) is None
    assert count_stored(tmp_path / "nowhere", None) is None
