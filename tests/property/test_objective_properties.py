"""Properties of the losses of every registered objective, in float64: a new one is tested by existing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_inputs import (
    BY_PLACE,
    NEEDS,
    PROMPT_INDEX,
    SEMI_GRADIENT,
    SPECS,
    STEP_SPECS,
    N,
    evaluate,
    inputs_of,
    is_trained,
    own_parameters,
    rounding_of,
    seeds,
)
from torch import Tensor

from mmalign.import_strings import load_object
from mmalign.losses.reductions import AGGREGATIONS, aggregation_weights, weighted_sum


@pytest.mark.parametrize("name", [name for name in SPECS if name not in SEMI_GRADIENT])
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_gradients_agree_with_finite_differences(name: str, seed: int) -> None:
    inputs = inputs_of(name, seed)
    trained = [key for key in inputs if is_trained(key)]

    def losses_of(*values: Tensor) -> Tensor:
        replaced = {**inputs, **dict(zip(trained, values, strict=True))}
        return load_object(SPECS[name].loss)(*replaced.values(), **own_parameters(name))[0]

    leaves = [inputs[key].clone().requires_grad_() for key in trained]
    # Nothing is differentiable at the kink of a hinge or a clip, so numbers that close to one are not compared.
    if not near_kink(losses_of, leaves):
        assert torch.autograd.gradcheck(losses_of, leaves, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(SEMI_GRADIENT))
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_semi_gradients_agree_with_finite_differences_of_the_rest(name: str, seed: int) -> None:
    """What the loss detaches keeps the values that it has at the point of the gradient."""
    inputs = inputs_of(name, seed)
    trained = [key for key in inputs if is_trained(key)]

    def losses_of(*values: Tensor, constants: list[Tensor]) -> Tensor:
        replaced = {**inputs, **dict(zip(trained, values, strict=True))}
        with detached_values(constants):
            losses: Tensor = load_object(SPECS[name].loss)(*replaced.values(), **own_parameters(name))[0]
        return losses

    constants: list[Tensor] = []
    losses_of(*(inputs[key] for key in trained), constants=constants)
    assert constants
    leaves = [inputs[key].clone().requires_grad_() for key in trained]
    frozen = partial(losses_of, constants=constants)
    if not near_kink(frozen, leaves):
        assert torch.autograd.gradcheck(frozen, leaves, eps=1e-6, atol=1e-6)


@contextmanager
def detached_values(values: list[Tensor]) -> Iterator[None]:
    """Inside, `detach` fills an empty list with its results; from a full one it takes them, in the same order."""
    detach, left = Tensor.detach, iter(list(values))

    def replay(tensor: Tensor) -> Tensor:
        return next(left)

    def record(tensor: Tensor) -> Tensor:
        values.append(detach(tensor).clone())
        return values[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "detach", replay if values else record)
        yield


def near_kink(losses_of: Any, leaves: list[Tensor]) -> bool:
    slopes = []
    for step in (-1e-5, 1e-5):
        # In opposite directions: chosen and rejected moved alike would keep their margin.
        moved = [(leaf.detach() + step * (-1) ** place).requires_grad_() for place, leaf in enumerate(leaves)]
        gradients = torch.autograd.grad(losses_of(*moved).sum(), moved, allow_unused=True)
        slopes.append([torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, moved, strict=True)])
    return any((first - second).abs().max() > 1e-2 for first, second in zip(*slopes, strict=True))


@pytest.mark.parametrize("name", [name for name in SPECS if name not in BY_PLACE])
@given(seed=seeds, order=st.permutations(range(N)))
@settings(max_examples=10, deadline=None)
def test_order_of_the_batch_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    inputs = inputs_of(name, seed)
    permuted = {key: value[order] if value.dim() else value for key, value in inputs.items()}
    straight, shuffled = evaluate(name, inputs), evaluate(name, permuted)
    # Prompts are taken in the order of their index, wherever their responses are.
    places = slice(None) if SPECS[name].per == "prompt" else order
    close = partial(torch.allclose, rtol=rounding_of(name), atol=rounding_of(name))
    assert close(shuffled.losses, straight.losses[places])
    assert all(close(shuffled.metrics[key], value[places]) for key, value in straight.metrics.items())
    assert all(close(shuffled.gradients[key], value[order]) for key, value in straight.gradients.items())


@pytest.mark.parametrize("name", [name for name in SPECS if name not in BY_PLACE])
@given(seed=seeds, cut=st.integers(1, N - 1))
@settings(max_examples=10, deadline=None)
def test_an_element_does_not_depend_on_what_it_is_batched_with(name: str, seed: int, cut: int) -> None:
    inputs = inputs_of(name, seed)
    if SPECS[name].per == "prompt":
        cut = int((PROMPT_INDEX == 0).sum())  # what is compared is never torn apart
    whole = evaluate(name, inputs)
    parts = [
        evaluate(name, {key: value[rows] if value.dim() else value for key, value in inputs.items()})
        for rows in (slice(0, cut), slice(cut, N))
    ]
    tolerance = rounding_of(name)
    assert torch.allclose(torch.cat([part.losses for part in parts]), whole.losses, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", [name for name in STEP_SPECS if "step_mask" in NEEDS[name]])
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_padding_changes_neither_the_aggregate_nor_the_gradient(name: str, aggregation: str, seed: int) -> None:
    """Two more steps of padding that holds NaN."""
    inputs = inputs_of(name, seed)
    results = [aggregate(name, values, aggregation) for values in (inputs, {k: pad(v) for k, v in inputs.items()})]
    (total, gradient), (padded_total, padded_gradient) = results
    steps = gradient.shape[1]
    assert padded_total == pytest.approx(total, rel=1e-12, abs=1e-14)
    assert torch.allclose(padded_gradient[:, :steps], gradient, rtol=1e-12, atol=1e-15)
    assert (padded_gradient[:, steps:] == 0).all()


def pad(value: Tensor) -> Tensor:
    if value.dim() != 2:
        return value
    filler = value.new_full((len(value), 2), False if value.dtype == torch.bool else float("nan"))
    return torch.cat([value, filler], dim=1)


def aggregate(name: str, inputs: dict[str, Tensor], aggregation: str) -> tuple[float, Tensor]:
    trained = next(need for need in inputs if is_trained(need))
    policy = inputs[trained].clone().requires_grad_()
    values = {**inputs, trained: policy}
    losses, _ = load_object(SPECS[name].loss)(*values.values(), **own_parameters(name))
    mask = inputs["step_mask"]
    totals = {"total_steps": mask.sum().double(), "total_responses": torch.tensor(float(N), dtype=torch.float64)}
    total = weighted_sum(losses, aggregation_weights(aggregation, mask, **totals, horizon=16))
    (gradient,) = torch.autograd.grad(total, policy)
    return total.item(), gradient
