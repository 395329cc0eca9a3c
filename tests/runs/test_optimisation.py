"""The optimiser's groups and the learning rate by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmalign.config.sections import TrainConfig
from mmalign.hardware import choose_dtype
from mmalign.training.optimisation import build_optimiser, learning_rate, set_learning_rate


def rates(total: int = 10, **settings: object) -> list[float]:
    config = TrainConfig.model_validate({"steps": total, "learning_rate": 2.0, **settings})
    return [learning_rate(config, step, total) for step in range(total)]


def test_a_constant_rate_stays() -> None:
    assert rates() == [2.0] * 10


def test_a_linear_rate_falls_evenly_towards_zero() -> None:
    assert rates(4, schedule="linear") == pytest.approx([2.0, 1.5, 1.0, 0.5])


def test_a_cosine_rate_is_half_way_in_the_middle() -> None:
    found = rates(4, schedule="cosine")
    assert found[0] == 2.0 and found[2] == pytest.approx(1.0)
    assert found[1] == pytest.approx(1 + 0.5**0.5)
    assert found == sorted(found, reverse=True) and found[-1] > 0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_warm_up_rises_to_the_peak_and_never_starts_at_zero(schedule: str) -> None:
    found = rates(10, schedule=schedule, warmup_steps=4)
    assert found[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert found[4] == 2.0
    assert max(found) == 2.0


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    assert rates(3, warmup_steps=6, schedule="linear") == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_weight_decay_acts_on_matrices_that_are_trained() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    module[2].requires_grad_(False)
    optimiser = build_optimiser(module, TrainConfig(steps=1, weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    expected = {module[0].weight: 0.1, module[0].bias: 0.0, module[1].weight: 0.0, module[1].bias: 0.0}
    assert decay == {id(parameter): value for parameter, value in expected.items()}


def test_settings_reach_the_optimiser() -> None:
    optimiser = build_optimiser(nn.Linear(1, 1), TrainConfig(steps=1, learning_rate=0.3, adam_betas=(0.5, 0.6)))
    assert {(group["lr"], group["betas"]) for group in optimiser.param_groups} == {(0.3, (0.5, 0.6))}
    set_learning_rate(optimiser, 0.7)
    assert [group["lr"] for group in optimiser.param_groups] == [0.7, 0.7]


def test_adafactor_moves_by_the_rate_whatever_the_size_of_the_weights() -> None:
    module = nn.Linear(4, 3, bias=False)
    nn.init.constant_(module.weight, 100.0)
    optimiser = build_optimiser(module, TrainConfig(steps=1, optimiser="adafactor", learning_rate=0.5))
    module.weight.sum().backward()
    optimiser.step()
    # Gradients of 1 over their own root mean square: every weight moves by the rate, not by a share of itself.
    torch.testing.assert_close(module.weight.detach(), torch.full((3, 4), 99.5))
    (state,) = optimiser.state.values()
    assert {key: state[key].shape for key in ("exp_avg_sq_row", "exp_avg_sq_col")} == {
        "exp_avg_sq_row": (3,),
        "exp_avg_sq_col": (4,),
    }


def test_decay_rates_that_adafactor_would_not_read_are_refused() -> None:
    with pytest.raises(ValueError, match="optimiser 'adafactor' takes none; drop it"):
        TrainConfig(steps=1, optimiser="adafactor", adam_betas=(0.9, 0.95))


def test_a_network_without_matrices_has_one_group() -> None:
    assert len(build_optimiser(nn.LayerNorm(3), TrainConfig(steps=1)).param_groups) == 1


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_asked_for_is_used(name: str) -> None:
    assert choose_dtype(name, torch.device("cpu"), adapter=False) is getattr(torch, name)


@pytest.mark.parametrize(("fast", "adapter", "expected"), [
    (True, True, torch.bfloat16),
    (True, False, torch.float32),
    (False, True, torch.float32),
])  # fmt: skip
def test_only_a_frozen_network_is_put_into_bfloat16(
    monkeypatch: pytest.MonkeyPatch, fast: bool, adapter: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr("mmalign.hardware.has_fast_bfloat16", lambda device: fast)
    assert choose_dtype("auto", torch.device("cpu"), adapter=adapter) is expected
