"""What an objective can be used with: asked of the planner, and shown by `mmalign explain` and docs/methods.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TOY_PLUGIN

from mmalign.planning.limits import BOTH, SAMPLED, STORED, find_limits, golden_methods
from mmalign.plugins.registry import Registry, load_registry

GOLDEN = Path(__file__).parents[1] / "golden"


TOKENS = {"text", "vision_language"}
EXACT = TOKENS | {"toy", "diffusion_path"}
ALL = EXACT | {"toy_bound", "diffusion"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """With a modality of exact and one of surrogate log-probs, which give nothing else."""
    return load_registry(files=[TOY_PLUGIN])


@pytest.mark.parametrize(
    ("name", "modalities", "data", "coupled"),
    [
        ("dpo", ALL, (STORED, SAMPLED), ()),
        ("orpo", EXACT, (STORED, SAMPLED), ()),  # odds are those of probabilities
        ("oreo", TOKENS, (STORED,), ()),  # no value head
        ("sft", ALL, (STORED, SAMPLED), ()),
        ("kl_penalty", ALL, (STORED, SAMPLED), ()),
        ("grpo", EXACT, (SAMPLED,), ()),
        ("sampled_kl", EXACT, (SAMPLED,), ()),
        ("hpt_imitation", ALL, (BOTH,), ()),
        ("copg_online", ALL, (SAMPLED,), ()),
        ("kto", ALL, (STORED,), ("kl_reference_point",)),
        ("bco", ALL, (STORED,), ("current_sequence_logps", "mean_log_ratio")),
    ],
)
def test_limits(registry: Registry, name: str, modalities: set[str], data: tuple[str, ...], coupled: tuple[str, ...]):
    limits = find_limits(registry.find("objective", name, "").spec, registry)
    assert set(limits.modalities) == modalities
    assert limits.data == data
    assert limits.coupled == coupled


def test_every_objective_of_this_distribution_can_be_used(registry: Registry) -> None:
    for entry in registry.entries("objective"):
        if entry.plugin.distribution == "mmalign":
            limits = find_limits(entry.spec, registry)
            expected = "text" if "exact" in entry.spec.log_prob_kinds else "toy_bound"
            assert expected in limits.modalities, entry.spec.name
            assert limits.data, entry.spec.name


@pytest.mark.parametrize(
    ("kind", "name", "methods"),
    [
        ("objective", "dpo", ("dpo",)),
        ("objective", "hinge", ("hinge_dpo",)),
        ("objective", "exo", ("exo_pair",)),  # by its alias
        ("objective", "f_dpo", ("fdpo_forward_kl", "fdpo_js", "fdpo_alpha")),
        ("objective", "grpo", ("grpo", "grpo two-sided clip")),
        ("objective", "alpha_po", ()),
        ("advantage", "grpo", ("grpo", "grpo (scale_rewards=batch)", "multi-objective GRPO")),
    ],
)
def test_golden_methods_are_those_that_the_same_plugin_announces(
    registry: Registry, kind: str, name: str, methods: tuple[str, ...]
) -> None:
    assert golden_methods(registry.find(kind, name, ""), registry) == methods


def test_every_announced_method_of_objectives_and_advantages_belongs_to_a_part(registry: Registry) -> None:
    for plugin, kind in (("objectives", "objective"), ("advantages", "advantage")):
        announced = {one.spec.method for one in registry.entries("conformance") if one.plugin.name == plugin}
        parts = [entry for entry in registry.entries(kind) if entry.plugin.name == plugin]
        assert {method for part in parts for method in golden_methods(part, registry)} == announced


def test_vectors_derived_by_hand_belong_to_a_part(registry: Registry) -> None:
    cases = json.loads((GOLDEN / "by_hand.json").read_text())["cases"]
    parts = [entry for kind in ("objective", "advantage") for entry in registry.entries(kind)]
    assert {case["method"] for case in cases} <= {one for part in parts for one in golden_methods(part, registry)}
