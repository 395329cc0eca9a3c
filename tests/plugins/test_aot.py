"""AOT, paired and unpaired, against sorting with autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mmalign_objectives.pairs.aot import aot_loss, aot_unpaired_loss, match_chosen, match_margins, match_rejected
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.support.links import logistic

OPTIONS = {"beta": 0.5, "label_smoothing": 0.1}


def make_pairs(count: int, seed: int = 0) -> Tensor:
    """Policy chosen and rejected, reference chosen and rejected: [4, M]."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(4, count, generator=generator, dtype=torch.float64) - 10


def match(function: Callable[..., Tensor], pairs: Tensor) -> Tensor:
    """Calls a function of the step with a stand-in for the engine's `StepContext` of a single process."""
    names = ("chosen_current", "rejected_current", "reference_chosen", "reference_rejected")
    quantities = {f"{name}_sequence_logps": row for name, row in zip(names, pairs.detach(), strict=True)}
    context = SimpleNamespace(gather=lambda values: (values, slice(0, len(values))))
    return function(context, **quantities)


def paired(pairs: Tensor, coupled_as: Tensor | None = None) -> Tensor:
    partners = match(match_margins, pairs if coupled_as is None else coupled_as)
    return aot_loss(pairs[0], pairs[1], partners, **OPTIONS)[0]


def unpaired(pairs: Tensor) -> Tensor:
    partners = match(match_chosen, pairs), match(match_rejected, pairs)
    return aot_unpaired_loss(pairs[0], pairs[1], pairs[1].detach(), *partners, **OPTIONS)[0]


def sorted_paired(pairs: Tensor) -> Tensor:
    chosen, rejected, reference_chosen, reference_rejected = pairs
    margins = (chosen - rejected).sort().values - (reference_chosen - reference_rejected).sort().values
    return logistic(OPTIONS["beta"] * margins, OPTIONS["label_smoothing"]).mean()


def sorted_unpaired(pairs: Tensor) -> Tensor:
    chosen, rejected, reference_chosen, reference_rejected = pairs
    margins = (chosen - reference_chosen).sort().values - (rejected - reference_rejected).sort().values
    return logistic(OPTIONS["beta"] * margins, OPTIONS["label_smoothing"]).mean()


def test_aot_unpaired_by_hand() -> None:
    """Chosen log-ratios 3 and 1, rejected ones 0 and 2: sorted margins 1 - 0 and 3 - 2, so ln(1 + exp(-1))."""
    pairs = torch.tensor([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    partners = match(match_chosen, pairs), match(match_rejected, pairs)
    assert [one.tolist() for one in partners] == [[2.0, 0.0], [1.0, 3.0]]
    losses, _ = aot_unpaired_loss(pairs[0], pairs[1], pairs[1], *partners, beta=1.0, label_smoothing=0.0)
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-1))] * 2, rel=1e-15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("losses_of", "reference"), [(paired, sorted_paired), (unpaired, sorted_unpaired)])
def test_the_mean_over_the_batch_has_value_and_gradient_of_the_sorted_loss(losses_of, reference, seed: int) -> None:
    """The gradient is the one that autograd sends through both sorts; the reference's is none."""
    pairs = make_pairs(7, seed)
    values, gradients = [], []
    for loss in (lambda trained: losses_of(trained).mean(), reference):
        policy = pairs[:2].clone().requires_grad_()
        value = loss(torch.cat([policy, pairs[2:]]))
        value.backward()
        values.append(value.item())
        gradients.append(policy.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-13)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-12, atol=1e-15)
    assert (gradients[0][0] != 0).all() and (gradients[0][1] != 0).all()


@pytest.mark.parametrize("losses_of", [paired, unpaired])
def test_a_single_pair_is_conservative_dpo(losses_of) -> None:
    pairs = make_pairs(1)
    assert losses_of(pairs).item() == pytest.approx(dpo_loss(*pairs, **OPTIONS)[0].item(), rel=1e-13)


def test_the_unpaired_mean_does_not_depend_on_which_response_is_paired_with_which() -> None:
    pairs = make_pairs(6)
    mixed = pairs.clone()
    mixed[[1, 3]] = mixed[[1, 3]][:, [3, 5, 0, 1, 4, 2]]
    assert unpaired(mixed).mean().item() == pytest.approx(unpaired(pairs).mean().item(), rel=1e-13)


def test_no_gradient_reaches_the_partners() -> None:
    pairs = make_pairs(4).requires_grad_()
    (paired(pairs).sum() + unpaired(pairs).sum()).backward()
    assert (pairs.grad[2:] == 0).all()


def test_unpaired_metrics_compare_quantiles() -> None:
    pairs = make_pairs(5)
    partners = match(match_chosen, pairs), match(match_rejected, pairs)
    _, metrics = aot_unpaired_loss(pairs[0], pairs[1], pairs[1], *partners, **OPTIONS)
    margins = (pairs[0] - pairs[2]).sort().values - (pairs[1] - pairs[3]).sort().values
    assert metrics["reward_margins"].sort().values.tolist() == pytest.approx((0.5 * margins).sort().values.tolist())
    assert metrics["reward_accuracies"].mean().item() == pytest.approx((margins > 0).double().mean().item())


def test_rewards_of_the_paired_form_are_beta_times_the_log_probs() -> None:
    chosen, rejected = torch.tensor([-3.0, -4.0]), torch.tensor([-5.0, -1.0])
    _, metrics = aot_loss(chosen, rejected, torch.tensor([0.5, 9.0]), **OPTIONS)
    assert metrics["chosen_rewards"].tolist() == [-1.5, -2.0]
    assert metrics["rejected_rewards"].tolist() == [-2.5, -0.5]
