"""Random inputs for every registered objective, made from the names of its needs, and its losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from mmalign.contract.binding import ENGINE_PARAMETERS, Binding, read_binding
from mmalign.contract.specs import ObjectiveSpec, Parameters
from mmalign.import_strings import load_object
from mmalign.losses.reductions import step_mask
from mmalign.plugins.registry import load_registry

SPECS: dict[str, ObjectiveSpec] = {
    entry.spec.name: entry.spec for entry in load_registry().entries("objective") if not entry.unavailable
}
BINDINGS: dict[str, Binding] = {name: read_binding(spec) for name, spec in SPECS.items()}
NEEDS = {name: binding.needs for name, binding in BINDINGS.items()}
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
BY_PLACE = [name for name, needs in NEEDS.items() if "pairs" in needs]
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

    return {need: make(need) for need in NEEDS[name]}


@dataclass(frozen=True)
class Evaluation:
    """Losses, metrics, and the gradients of the summed losses for the inputs that carry one."""

    losses: Tensor
    metrics: dict[str, Tensor]
    gradients: dict[str, Tensor]


def evaluate(name: str, inputs: dict[str, Tensor], **changes: Any) -> Evaluation:
    leaves = {key: value.clone() for key, value in inputs.items()}
    trained = {key: value.requires_grad_() for key, value in leaves.items() if is_trained(key)}
    arguments = {parameter: leaves[need] for parameter, need in BINDINGS[name].inputs.items()}
    losses, metrics = load_object(SPECS[name].loss)(**arguments, **{**own_parameters(name), **changes})
    gradients = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
    filled = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(trained.values(), gradients, strict=True)
    ]
    return Evaluation(losses.detach(), dict(metrics), dict(zip(trained, filled, strict=True)))


def find_mixed_metrics(name: str) -> list[str]:
    """Lists metrics named after one side of a pair that change with quantities of the other side."""
    inputs = inputs_of(name, seed=0)
    before = evaluate(name, inputs).metrics
    found = []
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        moved = {key: value - 0.25 if _is_side(key, other) else value for key, value in inputs.items()}
        after = evaluate(name, moved).metrics
        found += [key for key in before if key.startswith(f"{side}_") and not torch.equal(before[key], after[key])]
    return found


def _is_side(need: str, side: str) -> bool:
    return side in need and need.endswith(("_logps", "_kl"))


def is_trained(need: str) -> bool:
    trained = ("_scores", "_kl", "_expected_logps")
    return "policy_" in need or need.endswith(trained) or need in HEADS


def rounding_of(name: str) -> float:
    """Sums over the responses to a prompt, or the items of one, are rounded anew where their padding changes."""
    return 1e-12 if SPECS[name].per == "prompt" or "item_index" in NEEDS[name] else 0.0


def own_parameters(name: str) -> dict[str, Any]:
    values = {**config_of(name).model_dump(), **MILD.get(name, {})}
    return {key: value for key, value in values.items() if key not in ENGINE_PARAMETERS}
