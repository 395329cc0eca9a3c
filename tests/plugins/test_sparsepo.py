"""SparsePO and MaPO: the loss under masks, its limits, and what a run trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import objective_runs
import pytest
import torch
from feedback_records import write_feedback
from safetensors.torch import load_file
from torch import Tensor

import mmalign
from mmalign.monitoring.metrics_log import read_metrics
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.sparsepo import (
    MaPOConfig,
    SparsePOConfig,
    mapo_loss,
    sparsepo_common_loss,
    sparsepo_loss,
)
from mmalign_objectives.pairs.tdpo import tdpo_loss

OPTIONS = {"beta": 0.5, "reward_sparsity": 0.0, "divergence_sparsity": 0.0}
LENGTHS = (3, 2, 4, 1)
STEPS = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
PAIRS = torch.tensor([[0, 1], [2, 3], [2, 1]])


def case() -> dict[str, Tensor]:
    """Random log-probs and KLs of four responses, float64; what is beyond their ends is not finite."""
    generator = torch.Generator().manual_seed(0)
    draw = {name: torch.rand(4, 4, generator=generator, dtype=torch.float64) for name in ("policy", "reference", "kl")}
    return {name: torch.where(STEPS, -value if name != "kl" else value, torch.nan) for name, value in draw.items()}


def ones() -> Tensor:
    return torch.ones(4, 4, dtype=torch.float64)


def losses_of(reward_mask: Tensor, divergence_mask: Tensor, **options: Any) -> Tensor:
    values = case().values()
    return sparsepo_loss(*values, reward_mask, divergence_mask, STEPS, PAIRS, **{**OPTIONS, **options})[0]


def sums() -> tuple[Tensor, ...]:
    """Sums over steps of policy, reference and KL of the chosen and the rejected responses."""
    totals = {name: torch.where(STEPS, value, 0).sum(dim=1) for name, value in case().items()}
    return tuple(totals[name][PAIRS[:, side]] for name in totals for side in (0, 1))


def test_masks_of_one_are_tdpo1() -> None:
    expected, _ = tdpo_loss(*sums(), beta=0.5, alpha=1.0, constant_chosen_kl=False)
    torch.testing.assert_close(losses_of(ones(), ones()), expected, rtol=1e-13, atol=0)


def test_without_divergences_it_is_dpo() -> None:
    expected, _ = dpo_loss(*sums()[:4], beta=0.5, label_smoothing=0.0)
    torch.testing.assert_close(losses_of(ones(), 0 * ones()), expected, rtol=1e-13, atol=0)


def test_masks_of_zero_leave_a_coin_flip() -> None:
    torch.testing.assert_close(losses_of(0 * ones(), 0 * ones()), torch.full((3,), math.log(2), dtype=torch.float64))


def test_order_and_company_of_responses_change_nothing() -> None:
    order = torch.tensor([2, 0, 3, 1])
    moved = [value[order] for value in (*case().values(), ones(), 0.5 * ones(), STEPS)]
    turned, _ = sparsepo_loss(*moved, torch.argsort(order)[PAIRS], **OPTIONS)
    torch.testing.assert_close(turned, losses_of(ones(), 0.5 * ones()), rtol=0, atol=0)
    alone = [value[:2] for value in (*case().values(), ones(), 0.5 * ones(), STEPS)]
    torch.testing.assert_close(sparsepo_loss(*alone, PAIRS[:1], **OPTIONS)[0], turned[:1], rtol=0, atol=0)


def test_the_norm_of_a_mask_counts_for_both_responses() -> None:
    """Lengths 3 and 2, 4 and 1, 4 and 2: norms of masks of one are 5, 5 and 6."""
    plain, sparse = losses_of(ones(), 2 * ones()), losses_of(ones(), 2 * ones(), reward_sparsity=0.1)
    assert (sparse - plain).tolist() == pytest.approx([0.5, 0.5, 0.6])
    sparse = losses_of(ones(), 2 * ones(), divergence_sparsity=0.1)
    assert (sparse - plain).tolist() == pytest.approx([1.0, 1.0, 1.2])


def test_sparsepo_agrees_with_a_longhand_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = [torch.rand(4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    policy, reference, kl = case().values()
    found = losses_of(*masks, reward_sparsity=0.2, divergence_sparsity=0.3)
    for (chosen, rejected), loss in zip(PAIRS.tolist(), found.tolist(), strict=True):
        reward, divergence, norm = 0.0, 0.0, 0.0
        for row, sign in ((chosen, 1), (rejected, -1)):
            for step in range(LENGTHS[row]):
                u, d = masks[0][row, step].item(), masks[1][row, step].item()
                reward += sign * u * (policy[row, step] - reference[row, step]).item()
                divergence -= sign * d * kl[row, step].item()
                norm += 0.2 * u + 0.3 * d
        assert loss == pytest.approx(math.log1p(math.exp(-0.5 * (reward - divergence))) + norm, rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    policy, reference, kl = (torch.where(STEPS, value, 0) for value in case().values())
    generator = torch.Generator().manual_seed(2)
    masks = [0.1 + torch.rand(4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    options = {"beta": 0.5, "reward_sparsity": 0.2, "divergence_sparsity": 0.3}

    def loss(*inputs: Tensor) -> Tensor:
        return sparsepo_loss(inputs[0], reference, *inputs[1:], STEPS, PAIRS, **options)[0]

    inputs = [one.clone().requires_grad_() for one in (policy, kl, *masks)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_what_is_beyond_the_end_reaches_no_gradient() -> None:
    inputs = [value.clone().requires_grad_() for value in (*case().values(), ones(), ones())]
    losses, metrics = sparsepo_loss(*inputs, STEPS, PAIRS, **OPTIONS)
    losses.sum().backward()
    for one in inputs:
        assert torch.isfinite(one.grad).all() and not one.grad[~STEPS].any()
    assert all(value.shape == (3,) and torch.isfinite(value).all() for value in metrics.values())


def test_the_mask_of_activations_serves_both_and_is_constant() -> None:
    mask = ones().mul(0.3).requires_grad_()
    policy, reference, kl = case().values()
    losses, metrics = mapo_loss(policy.requires_grad_(), reference, kl, mask, STEPS, PAIRS, beta=0.5)
    torch.testing.assert_close(losses, losses_of(0.3 * ones(), 0.3 * ones()))
    assert torch.autograd.grad(losses.sum(), mask, allow_unused=True) == (None,)
    assert metrics["reward_density"].tolist() == [1.0, 1.0, 1.0]


def test_one_learned_mask_serves_both() -> None:
    mask = torch.linspace(0, 2, 16, dtype=torch.float64).reshape(4, 4)
    options = {"beta": 0.5, "reward_sparsity": 0.1, "divergence_sparsity": 0.2}
    expected = sparsepo_loss(*case().values(), mask, mask, STEPS, PAIRS, **options)
    torch.testing.assert_close(sparsepo_common_loss(*case().values(), mask, STEPS, PAIRS, **options), expected)


def test_activations_of_one_are_tdpo1_and_those_of_each_step_its_own() -> None:
    values = case().values()
    torch.testing.assert_close(mapo_loss(*values, ones(), STEPS, PAIRS, beta=0.5)[0], losses_of(ones(), ones()))
    mask = torch.linspace(0, 1, 16, dtype=torch.float64).reshape(4, 4)
    expected = sparsepo_loss(*values, mask, mask, STEPS, PAIRS, **OPTIONS)
    torch.testing.assert_close(mapo_loss(*values, mask, STEPS, PAIRS, beta=0.5), expected)


def test_defaults_are_those_of_the_paper() -> None:
    assert MaPOConfig().model_dump() == {"beta": 0.8}
    assert SparsePOConfig().model_dump() == {"beta": 0.8, "reward_sparsity": 0.0, "divergence_sparsity": 0.0}


# -- runs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_feedback(tmp_path / "records.jsonl", 6)


def start(name: str, data: Path, model: Path, tmp_path: Path, **train: Any) -> Any:
    return objective_runs.build_config(name, "text", data, model, tmp_path / name, **train)


def test_masks_train_with_the_policy_and_stay_with_it(data: Path, tiny_text_model: Path, tmp_path: Path) -> None:
    config = start("sparsepo", data, tiny_text_model, tmp_path, dtype="float32")
    objective = config.objective[0].model_copy(update={"reward_sparsity": 0.05})
    config = config.model_copy(update={"objective": (objective,)})
    run = mmalign.train(config)
    masks = {name for name in run.trainable() if name.startswith("heads.")}
    assert masks == {f"heads.{mask}_mask.{part}" for mask in ("reward", "divergence") for part in PARTS}
    moved = [name for name in masks if not torch.equal(run.trainable()[name], _initial(config)[name])]
    assert set(moved) == masks
    saved = load_file(run.output / "model" / "heads.safetensors")
    assert {f"heads.{name}" for name in saved} == masks
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[0]["loss"] > math.log(2) and 0 < rows[0]["reward_density"] <= 1
    loaded = mmalign.load_run(run.output)
    assert all(torch.equal(loaded.trainable()[name], value) for name, value in run.trainable().items())


PARTS = ("weight", "bias", "mixture")


def _initial(config: Any) -> dict[str, Tensor]:
    return objective_runs.start(config).trainable()


def test_a_sparse_mask_lets_fewer_steps_through(data: Path, tiny_text_model: Path, tmp_path: Path) -> None:
    config = start("sparsepo_common", data, tiny_text_model, tmp_path, steps=40, head_learning_rate=0.1)
    objective = config.objective[0].model_copy(update={"reward_sparsity": 1.0})
    mmalign.train(config.model_copy(update={"objective": (objective,)}))
    rows = [row for row in read_metrics(Path(config.output)) if row["kind"] == "train"]
    assert rows[-1]["reward_density"] < rows[0]["reward_density"]


def test_the_variant_of_activations_trains_no_head(data: Path, tiny_text_model: Path, tmp_path: Path) -> None:
    run = mmalign.train(start("sparsepo_activations", data, tiny_text_model, tmp_path))
    assert not any(name.startswith("heads.") for name in run.trainable())
    assert not (run.output / "model" / "heads.safetensors").exists()
