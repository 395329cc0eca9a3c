"""Language models that see and hear: training, adapters, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_models import Family
from multimodal_records import media_record, write_colour_pairs

import mmalign
from mmalign import LoRAParameters
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.networks.policy import Policy
from mmalign_vision_language.modality import VisionLanguageModality

CPU = torch.device("cpu")

Seeing = Callable[..., VisionLanguageModality]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_pairs(tmp_path_factory.mktemp("colours"), 24)


@pytest.fixture
def recipe(
    tiny_multimodal: Callable[[Family], Path], colours: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> Callable[..., Path]:
    """Writes the configuration of a dpo run on colours; keywords replace whole sections."""

    def write(family: Family = "qwen2_vl", **sections: Any) -> Path:
        config = {
            "modality": {"name": "vision_language", "model": str(tiny_multimodal(family))},
            "data": {"train": {"path": str(colours)}, "eval": {"path": str(colours)}},
            "objective": {"name": "dpo"},
            "train": {"steps": 20, "batch_size": 8, "learning_rate": 3e-3},
            "evaluation": {"evaluators": [{"name": "preference"}]},
            "output": str(tmp_path / "run"),
        }
        return write_config({**config, **sections})

    return write


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_dpo_learns_what_only_the_images_tell(recipe: Callable[..., Path], family: Family, tmp_path: Path) -> None:
    """All prompts have the same words, and each answer is as often the better as the worse one."""
    mmalign.train(recipe(family))
    before, after = (row for row in read_metrics(tmp_path / "run") if row["kind"] == "eval")
    assert before["preference/ranking_accuracy"] < 0.6
    assert after["preference/ranking_accuracy"] > 0.9 and after["preference/reward_accuracy"] > 0.9


def test_a_second_run_computes_no_reference(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    settings = {"train": {"steps": 3, "batch_size": 8, "learning_rate": 1e-3}}
    runs = [mmalign.train(recipe(**settings, output=str(tmp_path / name))) for name in ("one", "two")]
    caches = [run.backend.reference_cache for run in runs]
    assert caches[0].computed == 48
    assert (caches[1].computed, caches[1].found) == (0, caches[0].found + 48)


@pytest.mark.parametrize("objective", ["grpo", "kto", "simpo", "orpo", "reward_model", "sft"])
def test_other_objectives_train(recipe: Callable[..., Path], objective: str) -> None:
    sections: dict[str, Any] = {"objective": {"name": objective}, "evaluation": {"evaluators": []}}
    if objective == "grpo":
        sections |= {
            "collector": {"name": "group", "group_size": 4},
            "rewards": [{"name": "length", "target": 3}],
            "advantage": {"name": "grpo"},
            "decoding": {"name": "sample", "max_steps": 4},
        }
    run = mmalign.train(recipe(**sections, train={"steps": 3, "batch_size": 6, "learning_rate": 1e-3}))
    assert run.step == 3


def test_an_adapter_is_put_into_the_language_model_alone(seeing: Seeing) -> None:
    for towers in (False, True):
        network = (
            seeing("llava", lora=LoRAParameters(rank=2), train_towers=towers)
            .load(device=CPU, dtype=torch.float32)
            .network
        )
        adapted = {name for name, value in network.named_parameters() if value.requires_grad}
        assert any("language_model" in name for name in adapted)
        assert any("vision_tower" in name for name in adapted) == towers


def test_towers_stay_as_they_are_unless_they_are_trained(seeing: Seeing) -> None:
    for towers in (False, True):
        network = seeing(train_towers=towers).load(device=CPU, dtype=torch.float32).network
        trained = {name for name, value in network.named_parameters() if value.requires_grad}
        assert "lm_head.weight" in trained and "model.language_model.norm.weight" in trained
        assert any("visual" in name for name in trained) == towers
    counted = seeing().parameter_counts()
    network = seeing().load(device=CPU, dtype=torch.float32).network
    sizes = [value.numel() for value in network.parameters() if value.requires_grad]
    assert counted[1] == sum(sizes) < counted[0]


def test_the_inside_of_the_network_is_that_of_the_language_model(seeing: Seeing, tmp_path: Path) -> None:
    """Not what the same layers of the tower compute, which has other places."""
    modality = seeing("llava")
    policy = Policy(modality, modality.load(device=CPU, dtype=torch.float32), ())
    responses = modality.encode(media_record(tmp_path, "image", [1], ["A cat.", "No."]))
    outputs = policy(responses, ForwardPlan.of("layers", "activations", "context"))
    assert outputs["layers"].shape == (2, max(one.steps for one in responses), 2, 32)
    assert outputs["activations"].shape[2] == 2 + 2 * 4  # two layers: themselves, three projections, one MLP each
    assert outputs["context"].shape == (2, responses[0].shared, 32)


def test_what_is_saved_loads_with_transformers(recipe: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    run = mmalign.train(recipe(train={"steps": 2, "batch_size": 4, "learning_rate": 1e-3}))
    network = AutoModelForMultimodalLM.from_pretrained(tmp_path / "run" / "model", dtype="float32")
    trained = run.policy.network.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
    assert AutoProcessor.from_pretrained(tmp_path / "run" / "model").image_processor.size["longest_edge"] == 16 * 14**2
