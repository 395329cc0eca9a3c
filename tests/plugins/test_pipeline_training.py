"""Runs on tiny pipelines of every family: an adapter trains, resumes exactly, and nothing is encoded twice."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import image_record, write_image_pairs, write_rows
from PIL import Image
from pipeline_cases import FAMILIES, load_pipeline, options

import mmalign
from mmalign import RunConfig
from mmalign.monitoring.metrics_log import read_metrics

Build = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of images, with two captions."""
    return write_image_pairs(tmp_path_factory.mktemp("images"), 4, classes=2)


@pytest.fixture
def build(pairs: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> Build:
    """Makes the configuration of a run with an adapter; keywords replace whole sections."""

    def make(name: str, output: str = "run", *, family: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
        modality = {
            "name": "diffusion",
            "family": {"name": name, **options(name), **(family or {})},
            "model": str(tiny_pipeline(name)),
            "size": 16,
            "lora": {"rank": 2},
            "drop_condition": 0.0,
        }
        config = {
            "modality": modality,
            "data": {"train": {"path": str(pairs)}, "eval": {"path": str(pairs), "limit": 1}},
            "objective": {"name": "dpo", "beta": 200.0},
            "train": {"steps": 3, "batch_size": 2, "learning_rate": 1e-2},
            "output": str(tmp_path / output),
        }
        return RunConfig.model_validate({**config, **sections})

    return make


def weights_of(run: Any) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in run.trainable().values()])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_trains_resumes_exactly_and_is_exported(build: Build, name: str) -> None:
    whole = mmalign.train(build(name, "whole"))
    rows = [row for row in read_metrics(whole.output) if row["kind"] == "train"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) for row in rows)
    mmalign.train(build(name, "parts", train={"steps": 2, "batch_size": 2, "learning_rate": 1e-2}))
    resumed = mmalign.train(build(name, "parts"), resume=True)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert any(weight.any() for key, weight in whole.trainable().items() if "lora_B" in key)
    if name != "pixart":
        pipeline = load_pipeline(Path(build(name).modality.model_extra["model"]))
        pipeline.load_lora_weights(whole.output / "model")
        assert pipeline.get_active_adapters() == ["default_0"]


def family_of(run: Any) -> Any:
    return run.assembly.modality.network_family


def test_the_second_epoch_and_a_later_run_encode_nothing(build: Build) -> None:
    """8 images and 2 captions; the evaluation reads one pair of them before and after."""
    train = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3}
    family = family_of(mmalign.train(build("stable_diffusion", train=train)))
    assert (family.image_cache.encoded, family.prompt_cache.encoded) == (8, 2)
    assert family.image_cache.found >= 8
    again = family_of(mmalign.train(build("stable_diffusion", "again", train=train)))
    assert (again.image_cache.encoded, again.prompt_cache.encoded) == (0, 0)
    assert "_network" not in vars(again.autoencoder), "its weights were never loaded"
    assert "_network" not in vars(again.encoders[0])


def test_a_run_without_the_cache_ends_with_the_same_weights(build: Build, cache: Path) -> None:
    free = mmalign.train(build("stable_diffusion", "free", family={"cache": False}))
    assert not (cache / "diffusion_latents").exists()
    assert family_of(free).image_cache.encoded >= 12
    torch.testing.assert_close(weights_of(mmalign.train(build("stable_diffusion"))), weights_of(free))


def test_damaged_encodings_are_computed_again(build: Build, cache: Path) -> None:
    first = mmalign.train(build("stable_diffusion"))
    connection = sqlite3.connect(cache / "diffusion_latents" / "rows.sqlite")
    with connection:
        connection.execute("UPDATE rows SET value = zeroblob(length(value))")
    connection.close()
    again = mmalign.train(build("stable_diffusion", "again"))
    assert family_of(again).image_cache.damaged == 8
    assert (family_of(again).image_cache.encoded, family_of(again).prompt_cache.encoded) == (8, 0)
    torch.testing.assert_close(weights_of(again), weights_of(first))


def test_other_encoder_weights_are_another_encoding(build: Build, tmp_path: Path) -> None:
    mmalign.train(build("stable_diffusion"))
    in_half = family_of(mmalign.train(build("stable_diffusion", "half", family={"encoder_dtype": "bfloat16"})))
    assert (in_half.image_cache.encoded, in_half.prompt_cache.encoded) == (8, 2)


@pytest.mark.slow
def test_images_of_all_aspect_ratios_train_together_in_buckets(build: Build, tmp_path: Path) -> None:
    rows = []
    for index, (width, height) in enumerate([(16, 16), (40, 20), (20, 40), (30, 10)]):
        images = {}
        for level, rid in enumerate(("dark", "bright")):
            images[rid] = tmp_path / f"{rid}-{index}.png"
            Image.new("RGB", (width, height), (0, 200 * level, 50)).save(images[rid])
        pair = [{"kind": "pair", "order": [["bright"], ["dark"]]}]
        rows.append(image_record(f"p{index}", "a flag", images, labels=pair))
    data = {"train": {"path": str(write_rows(tmp_path / "pairs.jsonl", rows))}}
    family = {"buckets": True, "bucket_step": 4}
    runs = [
        mmalign.train(
            build(
                "sdxl",
                f"run{size}",
                family=family,
                data=data,
                train={"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "micro_batch_size": size},
            )
        )
        for size in (2, 8)
    ]
    # Not the weights: Adam's first step has the size of the rate also where a gradient is all rounding.
    norms = [next(row["grad_norm"] for row in read_metrics(run.output) if row["kind"] == "train") for run in runs]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3) and norms[0] > 0.01


BRIGHTNESS = """
import numpy

def brightness(responses):
    return [float(numpy.asarray(image).mean()) for image in responses]
"""


@pytest.mark.slow
def test_policy_gradients_train_a_pipeline(build: Build, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(BRIGHTNESS)
    config = json.loads(build("sdxl").model_dump_json(exclude_unset=True))
    config["modality"] |= {"name": "diffusion_path", "guidance": 2.0}
    del config["modality"]["drop_condition"]
    config |= {
        "objective": {"name": "grpo"},
        "collector": {"name": "group", "group_size": 2},
        "advantage": {"name": "grpo"},
        "rewards": [{"name": "python", "function": f"{tmp_path / 'reward.py'}:brightness"}],
        "decoding": {"name": "diffusion", "max_steps": 3},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3},
    }
    run = mmalign.train(RunConfig.model_validate(config))
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert len(rows) == 2 and all(row["sampler_gap/max"] < 1e-3 for row in rows)
