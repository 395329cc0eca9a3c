"""What must hold for every registered objective, whoever wrote it: a new one is tested by existing.

Inputs are made from the names of its needs; losses are checked in float64.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from mmalign.losses.objectives import ENGINE_PARAMETERS
from mmalign.losses.reductions import AGGREGATIONS, aggregation_weights, step_mask, weighted_sum
from mmalign.registry import load_object, load_registry
from mmalign.specs import ObjectiveSpec, Parameters

SPECS: dict[str, ObjectiveSpec] = {
    entry.spec.name: entry.spec for entry in load_registry().entries("objective") if not entry.unavailable
}
STEP_SPECS = [name for name, spec in SPECS.items() if spec.per == "step"]
SEMI_GRADIENT = {"a_lol", "a_lol_seq", "r_lol", "reward_gold", "oreo", "sampled_kl", "tdpo2"}
"""Objectives that hold detached functions of what is trained, so that their gradient is not that of their value."""
CONSTANTS = {"tdpo2": {"reference_chosen_sequence_forward_kl"}}
"""What an objective detaches of its needs that carry a gradient."""
REQUIRED = {"horizon": 16, "lowest_rating": -2.0, "highest_rating": 2.0}
"""Values of parameters that have no default."""
MILD = {name: {"beta": 0.5} for name in ("diffusion_dpo", "inpo", "smpo", "seppo", "diffusion_kto")}
MILD |= {"mapo": {"margin_scale": 10.0}}
"""Scales that are made for denoising errors, which are a thousand times smaller than the numbers here, made smaller."""

M = N = 5
T = 4
PROMPT_INDEX = torch.tensor([0, 0, 1, 1, 1])
P = 2
SPECIAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **dict.fromkeys(("step_mask", "chosen_step_mask", "rejected_step_mask"), lambda noise, mask: mask),
    **dict.fromkeys(("kl_reference_point", "batch_reference_point"), lambda noise, mask: noise.abs().mean()),
    "labels": lambda noise, mask: (noise[:, 0] > 0).double(),
    "prompt_index": lambda noise, mask: PROMPT_INDEX,
    "chosen_prompt_index": lambda noise, mask: PROMPT_INDEX,
    "sampled": lambda noise, mask: torch.arange(N) % 2 == 0,
    "trace_pairs": lambda noise, mask: (noise[:, 0] > 0).double(),
    "preference_probabilities": lambda noise, mask: noise[:, 0].sigmoid(),
    "win_probabilities": lambda noise, mask: noise[:, 0].sigmoid(),
    **dict.fromkeys(
        ("chosen_visit_counts", "rejected_visit_counts"), lambda noise, mask: (10 * noise[:, 0].abs()).round()
    ),
    **dict.fromkeys(("chosen_margin_rewards", "rejected_margin_rewards"), lambda noise, mask: noise[:, :1]),
    "mean_log_ratio": lambda noise, mask: noise.mean(),
    "density_ratios": lambda noise, mask: noise[:, 0].abs() + 0.5,
    "values": lambda noise, mask: noise,
    "item_relevance": lambda noise, mask: noise,
    "pairs": lambda noise, mask: torch.stack([torch.arange(M), torch.arange(M).roll(1)], dim=1),
    **dict.fromkeys(
        ("reward_mask", "divergence_mask", "token_mask", "activation_mask"), lambda noise, mask: noise.abs()
    ),
    "removal_logits": lambda noise, mask: noise,
    "removal_levels": lambda noise, mask: (torch.arange(N) % noise.shape[1]).double(),
    "chosen_label_smoothing": lambda noise, mask: noise[:, 0].sigmoid() / 2,
    "step_index": lambda noise, mask: torch.where(mask, torch.arange(mask.shape[1]) // 2 + 1, 0),
    "step_embeddings": lambda noise, mask: torch.stack([noise, noise.flip(1) + 0.5], dim=2),
    "item_index": lambda noise, mask: torch.where(mask, torch.arange(1, mask.shape[1] + 1), 0),
}
"""Quantities that are not one number a response: how they are made from noise and the step mask, [N, T] both."""
HEADS = {"values", "reward_mask", "divergence_mask", "token_mask", "removal_logits", "prompt_values"}
"""Quantities of heads, which are trained like those of the policy."""
BY_PLACE = [name for name, spec in SPECS.items() if "pairs" in spec.needs]
"""Objectives that get the rows of their pairs; the engine's own tests cut and reorder their batches."""
seeds = st.integers(0, 2**32 - 1)
every_objective = pytest.mark.parametrize("name", SPECS)


def config_of(name: str) -> Parameters:
    model = load_object(SPECS[name].config)
    return model(**{key: REQUIRED[key] for key, field in model.model_fields.items() if field.is_required()})


def inputs_of(name: str, seed: int) -> dict[str, Tensor]:
    """Random quantities for the needs of an objective; log-probs of different models are close, as in training."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (N,), generator=generator)
    mask = step_mask(lengths, int(lengths.max()))
    base = -3 * torch.rand(mask.shape, generator=generator, dtype=torch.float64) - 0.1

    def make(need: str) -> Tensor:
        noise = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
        if need in SPECIAL:
            return SPECIAL[need](noise, mask)
        if need.endswith("_logps") and ("sequence" in need or "mean" in need):
            return (base + 0.3 * noise).clamp(max=-0.01).mean(dim=1) * (T if "sequence" in need else 1)
        if need.endswith("_logps"):
            return (base + 0.3 * noise).clamp(max=-0.01)
        if need in ("reference_forward_kl", "reference_reverse_kl"):
            return noise.abs()
        if need.endswith("_kl"):
            return noise[:, 0].abs()
        return noise[:, 0]

    return {need: make(need) for need in SPECS[name].needs}


@dataclass(frozen=True)
class Evaluation:
    """Losses, metrics, and the gradients of the summed losses for the inputs that carry one."""

    losses: Tensor
    metrics: dict[str, Tensor]
    gradients: dict[str, Tensor]


def evaluate(name: str, inputs: dict[str, Tensor], **changes: Any) -> Evaluation:
    leaves = {key: value.clone() for key, value in inputs.items()}
    trained = {key: value.requires_grad_() for key, value in leaves.items() if is_trained(key)}
    losses, metrics = load_object(SPECS[name].loss)(*leaves.values(), **{**own_parameters(name), **changes})
    gradients = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
    filled = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(trained.values(), gradients, strict=True)
    ]
    return Evaluation(losses.detach(), dict(metrics), dict(zip(trained, filled, strict=True)))


def is_trained(need: str) -> bool:
    trained = ("_scores", "_kl", "_expected_logps")
    return "policy_" in need or need.endswith(trained) or need in HEADS


def rounding_of(name: str) -> float:
    """Sums over the responses to a prompt, or the items of one, are rounded anew where their padding changes."""
    return 1e-12 if SPECS[name].per == "prompt" or "item_index" in SPECS[name].needs else 0.0


def own_parameters(name: str) -> dict[str, Any]:
    values = {**config_of(name).model_dump(), **MILD.get(name, {})}
    return {key: value for key, value in values.items() if key not in ENGINE_PARAMETERS}


# -- the contract


@every_objective
def test_config_fields_are_the_keywords_of_the_loss(name: str) -> None:
    """Beside those that the engine acts on, which only objectives on steps have."""
    signature = inspect.signature(load_object(SPECS[name].loss)).parameters.values()
    keywords = {one.name for one in signature if one.kind is one.KEYWORD_ONLY}
    positional = [one for one in signature if one.kind is not one.KEYWORD_ONLY]
    engine = set(ENGINE_PARAMETERS) if SPECS[name].per == "step" else set()
    assert set(type(config_of(name)).model_fields) == keywords | engine
    assert len(positional) == len(SPECS[name].needs)


@every_objective
def test_a_loss_hides_no_hyper_parameter_behind_a_default(name: str) -> None:
    signature = inspect.signature(load_object(SPECS[name].loss)).parameters.values()
    assert [one.name for one in signature if one.default is not one.empty] == []


@every_objective
def test_config_round_trips_refuses_unknown_keys_and_explains_every_field(name: str) -> None:
    config = config_of(name)
    assert type(config).model_validate(config.model_dump(mode="json")) == config
    assert [key for key, field in type(config).model_fields.items() if not field.description] == []
    with pytest.raises(ValidationError, match="bogus"):
        type(config).model_validate({**config.model_dump(), "bogus": 1})


@every_objective
def test_spec_says_what_a_reader_wants_to_know(name: str) -> None:
    spec = SPECS[name]
    assert spec.summary.endswith(".")
    assert spec.equation
    assert spec.log_prob_kinds


@pytest.mark.parametrize("name", STEP_SPECS)
def test_aggregation_of_the_spec_is_the_default_of_its_config(name: str) -> None:
    assert config_of(name).model_dump()["aggregation"] == SPECS[name].aggregation


@every_objective
def test_losses_and_metrics_have_one_value_an_element_and_metrics_no_gradient(name: str) -> None:
    inputs = inputs_of(name, seed=0)
    result = evaluate(name, inputs)
    expected = {"pair": (M,), "prompt": (P,), "response": (N,), "step": (N, T)}[SPECS[name].per]
    assert result.losses.shape == expected
    assert {key: value.shape for key, value in result.metrics.items() if value.shape != expected} == {}
    assert [key for key, value in result.metrics.items() if value.requires_grad] == []
    assert result.losses.dtype == torch.float64


@every_objective
def test_losses_change_no_input(name: str) -> None:
    inputs = inputs_of(name, seed=0)
    before = {key: value.clone() for key, value in inputs.items()}
    evaluate(name, inputs)
    assert all(torch.equal(before[key], inputs[key]) for key in inputs)


@every_objective
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 300.0])
def test_float32_losses_and_gradients_are_finite_at_any_scale(name: str, scale: float) -> None:
    inputs = {
        key: (value * scale).float() if "logps" in key else value.float() if value.is_floating_point() else value
        for key, value in inputs_of(name, seed=1).items()
    }
    # The exponential of k3 may overflow where two models are hundreds of nats apart on one step: the run stops then.
    if name.endswith("kl_penalty") and scale > 1:
        anchor = next(key for key in inputs if key in ("reference_logps", "behaviour_logps"))
        inputs[anchor] = inputs["policy_logps"] + 1
    result = evaluate(name, inputs)
    assert torch.isfinite(result.losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in result.gradients.values())


@every_objective
def test_every_trained_quantity_gets_a_gradient(name: str) -> None:
    gradients = [evaluate(name, inputs_of(name, seed)).gradients for seed in range(3)]
    for need in gradients[0].keys() - CONSTANTS.get(name, set()):
        assert any((one[need] != 0).any() for one in gradients), need


def test_plugins_are_listed_without_torch() -> None:
    code = (
        "import sys, mmalign_objectives as o, mmalign_advantages as a;"
        "o.register_objectives(); o.register_quantities(); o.register_conformance();"
        "a.register_advantages(); a.register_conformance(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- properties


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
@pytest.mark.parametrize("name", [name for name in STEP_SPECS if "step_mask" in SPECS[name].needs])
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
