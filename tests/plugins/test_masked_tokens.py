"""Masked-autoregressive images: what gets noise, what is scored, how tokens are revealed, and LightGen's DPO."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import write_image_pairs
from objective_runs import move_away, start
from torch import Tensor

import mmalign
from mmalign import ConfigError, RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run
from mmalign.training.rounds import begin_round
from mmalign_diffusion.families.masked_tokens import MaskedTokens
from mmalign_diffusion.masked_sampling import masked_counts


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_pairs(tmp_path_factory.mktemp("images"), 8)


def config_of(pairs: Path, output: Path, patch: int = 2, **sections: Any) -> RunConfig:
    family = {"name": "masked_tokens", "classes": 3, "patch": patch, "width": 16, "head_width": 32, "reveals": 3}
    modality = {"name": "diffusion", "family": family, "size": 8, **sections.pop("modality", {})}
    train = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, **sections.pop("train", {})}
    config = {
        "modality": modality,
        "data": {"train": {"path": str(pairs)}},
        "objective": {"name": "lightgen", "beta": 100.0},
        "train": train,
        "output": str(output),
    }
    return RunConfig.model_validate(config | sections)


def scored(run: Run) -> tuple[list[dict[str, Tensor]], Tensor]:
    batch, _ = begin_round(run)
    return [dict(one.tensors) for one in batch.responses], run.backend.policy_logps(batch.responses)


def output_of(run: Run, one: dict[str, Tensor]) -> Tensor:
    network, family = run.policy.network, run.assembly.modality.network_family
    condition = {name: one[f"condition|{name}"][None] for name in ("class", "noised")}
    with torch.no_grad():
        return family.predict(network, one["noisy"], one["timesteps"], condition)


def test_only_masked_tokens_get_noise_and_a_pair_shares_the_mask(pairs: Path, tmp_path: Path) -> None:
    run = start(config_of(pairs, tmp_path))
    responses, _ = scored(run)
    family = run.assembly.modality.network_family
    for dark, bright in zip(responses[::2], responses[1::2], strict=True):
        mask = dark["condition|noised"]
        assert torch.equal(mask, bright["condition|noised"]) and mask.shape == (1, 8, 8)
        assert mask.float().mean() >= 0.7
        assert torch.equal(mask, family.spread(mask[:, ::2, ::2])), "whole tokens"
        # Clean pixels are levels of 8 bits.
        levels = (dark["noisy"][0][~mask] + 1) * 127.5
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_the_log_prob_is_the_error_over_masked_tokens(pairs: Path, tmp_path: Path) -> None:
    run = start(config_of(pairs, tmp_path))
    responses, logps = scored(run)
    for one, logp in zip(responses, logps, strict=True):
        squares = (output_of(run, one) - one["target"])[0][one["condition|noised"]].square()
        assert float(logp) == pytest.approx(-0.5 * float(squares.mean()), rel=1e-5)


def test_one_token_an_image_is_diffusion_dpo(pairs: Path, tmp_path: Path) -> None:
    """Then all of it gets noise, and the error is that of the whole image."""
    run = start(config_of(pairs, tmp_path, patch=8))
    move_away(run, 0.1)
    responses, logps = scored(run)
    schedule = run.assembly.modality.network_family.schedule
    for one, logp in zip(responses, logps, strict=True):
        assert one["condition|noised"].all()
        a, b = (float(value) for value in schedule.coefficients(one["timesteps"]))
        clean = (one["noisy"] - b * one["target"]) / a
        assert float(clean.abs().max()) < 1.01 or a < 0.02
        error = (output_of(run, one) - one["target"]).square().mean()
        assert float(logp) == pytest.approx(-0.5 * float(error), rel=1e-5)


def test_a_masked_token_does_not_see_the_noise_of_others(pairs: Path, tmp_path: Path) -> None:
    run = start(config_of(pairs, tmp_path))
    one = scored(run)[0][0]
    mask = one["condition|noised"][0]
    row, column = (mask[::2, ::2].nonzero()[0] * 2).tolist()
    before = output_of(run, one)[0, 0]
    changed = {**one, "noisy": one["noisy"].clone()}
    changed["noisy"][0, 0, row : row + 2, column : column + 2] += 1.0
    moved = (output_of(run, changed)[0, 0] - before).abs() > 1e-6
    assert moved[row : row + 2, column : column + 2].any()
    moved[row : row + 2, column : column + 2] = False
    assert not moved[mask].any()


def test_shares_of_masked_tokens_are_a_normal_around_one_cut_at_the_least(tmp_path: Path) -> None:
    family = MaskedTokens(None, (32, 32), classes=3, patch=1)
    generator = torch.Generator().manual_seed(0)
    shares = torch.stack([family.draw_noised((1, 32, 32), generator).float().mean() for _ in range(400)])
    assert float(shares.min()) >= 0.7
    # E |N| below 1.2 deviations: (phi(0) - phi(1.2)) / (Phi(1.2) - 1/2) = 0.2047 / 0.3849.
    assert float(shares.mean()) == pytest.approx(1 - 0.25 * 0.2047 / 0.3849, abs=0.01)


def test_tokens_are_revealed_with_a_cosine() -> None:
    assert masked_counts(64, 4) == [59, 45, 24, 0]
    assert masked_counts(3, 8) == [2, 1, 0]
    assert masked_counts(1, 4) == [0]


def test_sampling_denoises_every_token_once_and_can_be_repeated(pairs: Path, tmp_path: Path) -> None:
    """A network that knows the answer gives it, however few levels: noise = (x - a) / b of an image that is 1."""
    decoding = {"name": "diffusion", "max_steps": 3, "guidance": 2.0, "seed": 1}
    run = start(config_of(pairs, tmp_path, decoding=decoding))
    groups = [run.backend.generate(list(run.source)[:2], 2) for _ in range(2)]
    one, two = ([item.encoded.tensors["noisy"] for group in own for item in group] for own in groups)
    images = [[item.output.tobytes() for group in own for item in group] for own in groups]
    assert images[0] == images[1] and len(set(images[0])) == 4
    assert all(torch.isfinite(value).all() for value in (*one, *two))
    schedule = run.assembly.modality.network_family.schedule

    def know(noisy: Tensor, timesteps: Tensor, classes: Tensor, noised: Tensor) -> Tensor:
        a, b = (value[:, None, None, None].float() for value in schedule.coefficients(timesteps))
        return (noisy - a) / b

    run.policy.network.forward = know
    for group in run.backend.generate(list(run.source)[:2], 1):
        assert group[0].output.getextrema() == (255, 255)


def test_inversion_is_refused(pairs: Path, tmp_path: Path) -> None:
    config = config_of(pairs, tmp_path, modality={"noising": {"strategy": "ddim_inversion", "steps": 2}})
    with pytest.raises(ConfigError, match=r"masked tokens take `diffusion` with `noising\.strategy: forward`"):
        mmalign.train(config)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modality\.size: \[8, 8\] is not a multiple of the patch, 3"):
        mmalign.check(config_of(pairs, tmp_path, patch=3))


def test_it_learns_images_then_prefers_them_to_its_samples_and_resumes_exactly(pairs: Path, tmp_path: Path) -> None:
    """LightGen: denoising of given images, then DPO with samples of the start as rejected."""
    train = {"steps": 80, "batch_size": 8, "learning_rate": 5e-3}
    learnt = mmalign.train(config_of(pairs, tmp_path / "sft", objective={"name": "sft"}, train=train))
    rows = [row["loss"] for row in read_metrics(learnt.output) if row["kind"] == "train"]
    assert sum(rows[-20:]) < 0.8 * sum(rows[:20])
    online = {
        "modality": {"model": str(learnt.output / "model")},
        "collector": {"name": "self_play"},
        "decoding": {"name": "diffusion", "max_steps": 2, "guidance": 1.5},
    }
    whole = mmalign.train(config_of(pairs, tmp_path / "whole", **online))
    first = next(row for row in read_metrics(whole.output) if row["kind"] == "train")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5), "no margin where the policy is the reference"
    mmalign.train(config_of(pairs, tmp_path / "parts", train={"steps": 2}, **online))
    resumed = mmalign.train(config_of(pairs, tmp_path / "parts", **online), resume=True)
    for name, weight in resumed.trainable().items():
        assert torch.equal(weight, whole.trainable()[name]), name
