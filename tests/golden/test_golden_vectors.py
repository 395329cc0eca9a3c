"""Golden vectors: those derived by hand in this folder, and those of official code that come with mmalign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmalign.planning.limits import golden_methods
from mmalign.plugins.conformance import CaseResult, golden_files, run_conformance
from mmalign.plugins.registry import Registry, load_registry

PACKAGED = {path.name: path for path in golden_files()}
TOLERANCE = 1e-9

# Methods of the packaged files that are implemented: a case of theirs may not fall back to `not_implemented`.
IMPLEMENTED = {
    "offline.json": {
        "dpo",
        "cdpo",
        "ipo_sum",
        "ipo_mean",
        "hinge_dpo",
        "slic_hf",
        "simpo",
        "cpo_prefer",
        "cpo_full_meannll",
        "orpo_or_term",
        "orpo_full",
        "kto",
        "nca_pair",
        "exo_pair",
        "apo_zero",
        "apo_down",
        "discopop",
        "sppo_hard",
        "ln_dpo",
        "robust_dpo",
        "fdpo_forward_kl",
        "fdpo_js",
        "fdpo_alpha",
        "dpo_ref_gamma",
        "flex_dpo",
        "rpo_sum",
        "rpo_mean",
        "vpo_offline_cal_chosen",
        "vpo_online_cal_rejected",
        "asft",
        "modpo",
        "copg",
        "irepo",
        "step_apo",
        "mcts_dpo_conservative",
        "a_lol",
        "a_lol_ref_free",
        "a_lol_kl",
        "r_lol",
        "tpo",
        "tpo_l",
        "rationale_dpo_code",
        "rationale_dpo_paper",
        "aot",
        "aot_unpaired",
        "bco",
        "bco_pair_noshift",
        "lipo_pair_logistic",
        "lipo_pair_hinge",
        "lipo_list_mle",
        "lipo_softmax",
        "lipo_lambda",
        "pro",
        "irpo_code",
        "trpa_batch",
        "ranking_accuracy_sum",
        "ranking_accuracy_mean",
        "reward_accuracy",
        "idealized_log_ratio_sum",
        "idealized_log_ratio_mean",
        "idealized_accuracy_sum",
        "flip_threshold",
        "rso_accept_prob",
    },
    "rl.json": {
        "grpo",
        "dr_grpo",
        "rloo",
        "grpo (scale_rewards=batch)",
        "multi-objective GRPO",
        "ppo clip",
        "dapo",
        "gspo",
        "opmd",
        "grpo two-sided clip",
        "grpo loss, local token mean (TRL calls it bnpo; it is NOT Beta normalisation)",
    },
    "rewards.json": {"bradley-terry", "upo"},
    "diffusion.json": {
        "diffusion-dpo",
        "flow-dpo",
        "smpo",
        "seppo",
        "mapo",
        "diffusion-kto",
        "ddpo",
        "d3po",
        "reg-grpo",
        "m3id",
        "audio-tokens",
    },
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def describe(results: list[CaseResult]) -> list[str]:
    return [f"{case.id}: {case.status} {case.detail}" for case in results if case.status != "passed"]


def test_vectors_derived_by_hand(registry: Registry) -> None:
    results = run_conformance(Path(__file__).with_name("by_hand.json"), registry)
    assert len(results) == 29
    assert describe(results) == []


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_vectors_of_official_code(name: str, registry: Registry) -> None:
    results = run_conformance(PACKAGED[name], registry, tolerance=TOLERANCE)
    own = [case for case in results if case.method in IMPLEMENTED[name]]
    assert {case.method for case in own} == IMPLEMENTED[name]
    assert describe(own) == []
    assert [case.id for case in results if case.status == "failed"] == []


@pytest.mark.parametrize(("name", "cases"), [("offline.json", 63), ("diffusion.json", 39)])
def test_every_case_of_these_files_passes_at_its_own_tolerance(name: str, cases: int, registry: Registry) -> None:
    results = run_conformance(PACKAGED[name], registry)
    assert len(results) == cases
    assert describe(results) == []


def test_the_readme_counts_the_cases_of_every_file() -> None:
    readme = next(iter(PACKAGED.values())).with_name("README.md").read_text(encoding="utf-8")
    for name, path in PACKAGED.items():
        assert f"| {name} | {len(json.loads(path.read_text())['cases'])} |" in readme


def test_what_the_index_of_methods_says_to_pass_is_checked_here(registry: Registry) -> None:
    """A method that a plugin announces for an objective has vectors by hand, or must pass those of official code."""
    by_hand = {case["method"] for case in json.loads(Path(__file__).with_name("by_hand.json").read_text())["cases"]}
    checked = by_hand.union(*IMPLEMENTED.values())
    announced = {method for entry in registry.entries("objective") for method in golden_methods(entry, registry)}
    assert announced - checked == set()
