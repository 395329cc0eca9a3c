"""LoRA: what is adapted, in what dtype, and that switching it off gives the base network."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from mmalign import ConfigError, LoRAParameters, add_lora
from mmalign.testing import build_tiny_text_model

IDS = torch.tensor([[0, 40, 41, 42]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: build_tiny_text_model(root / name, architecture=name, layers=3) for name in ("llama", "gpt2")}


@pytest.fixture
def llama(folders):
    return AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.bfloat16)


def adapted_layers(network) -> set[str]:
    names = [name for name, value in network.named_parameters() if value.requires_grad]
    return {name.split(".lora_")[0].removeprefix("base_model.model.") for name in names}


def disturb(network) -> None:
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "lora_B" in name:
                value.normal_()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_starts_at_the_base_and_switches_off_to_it(folders, name):
    base = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32).eval()
    expected = base(IDS).logits
    network = add_lora(base, LoRAParameters(rank=2)).eval()
    assert torch.equal(network(IDS).logits, expected)
    disturb(network)
    assert not torch.allclose(network(IDS).logits, expected, atol=1e-2)
    with network.disable_adapter():
        assert torch.equal(network(IDS).logits, expected)


def test_only_the_adapter_is_trained_and_it_is_float32(llama):
    network = add_lora(llama, LoRAParameters(rank=2))
    for name, value in network.named_parameters():
        assert value.requires_grad is ("lora_" in name)
        assert value.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)


def test_auto_adapts_attention_and_mlp_of_every_block(llama):
    layers = adapted_layers(add_lora(llama, LoRAParameters()))
    leaves = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.rpartition(".")[2] for name in layers} == leaves
    assert len(layers) == 3 * len(leaves)


def test_all_linear_leaves_the_output_layer_out(llama):
    layers = adapted_layers(add_lora(llama, LoRAParameters(targets="all-linear")))
    assert len(layers) == 21 and not any("lm_head" in name for name in layers)


@pytest.mark.parametrize(
    ("choice", "blocks"), [({"last_layers": 2}, {"1", "2"}), ({"layers": (0,)}, {"0"}), ({}, {"0", "1", "2"})]
)
@pytest.mark.parametrize("targets", ["auto", "all-linear", ("q_proj",)])
def test_only_the_chosen_blocks_are_adapted(llama, choice, blocks, targets):
    layers = adapted_layers(add_lora(llama, LoRAParameters(targets=targets, **choice)))
    assert {name.split(".")[2] for name in layers} == blocks


def test_alpha_is_twice_the_rank_unless_given(llama):
    config = add_lora(llama, LoRAParameters(rank=3), name="base/model", task="CAUSAL_LM").peft_config["default"]
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (3, 6, "base/model")
    assert config.task_type == "CAUSAL_LM"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"targets": ("q_prj",)}, r"modality.lora.targets: no linear layer 'q_prj'; did you mean 'q_proj'\?"),
        ({"layers": (3,)}, "modality.lora.layers: no block 3; this network has 3 blocks"),
        ({"last_layers": 4}, "modality.lora.last_layers: 4; this network has 3 blocks"),
    ],
)
def test_a_wrong_choice_is_refused_with_the_nearest_right_one(llama, choice, message):
    with pytest.raises(ConfigError, match=message):
        add_lora(llama, LoRAParameters(**choice))


def test_a_network_without_known_layers_is_refused():
    with pytest.raises(ConfigError, match=r"auto knows no linear layer of this network; .* trunk"):
        add_lora(torch.nn.ModuleDict({"trunk": torch.nn.Linear(2, 2)}), LoRAParameters())


def test_a_second_adapter_is_refused(llama):
    network = add_lora(llama, LoRAParameters())
    with pytest.raises(ConfigError, match="already has an adapter"):
        add_lora(network, LoRAParameters())


def test_layers_and_last_layers_exclude_each_other():
    with pytest.raises(ValidationError, match="not both"):
        LoRAParameters(layers=(1,), last_layers=1)
