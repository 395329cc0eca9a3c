"""Wrong specs, losses, masks and estimators: the real checks catch every one of them. The list is printed."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from objective_inputs import find_mixed_metrics

from mmalign import MmalignError
from mmalign.contract.binding import read_binding
from mmalign.plugins.registry import Registry, load_registry
from mutation.checks import Spec, UnitTests, check_trial
from mutation.generated import iter_mutants, iter_spec_mutants, iter_swaps, swap_names
from mutation.mutants import Mutant, applied

PRODUCT, BOTH = "a product of both", "what all of them mark"
SIDES = "only differences of the four count, and no metric is of one side"
EQUAL = {
    "d3po_loss: chosen_step_mask and rejected_step_mask exchanged": BOTH,
    "mark_imitated: imitated_prompts and targets exchanged": BOTH,
    "mark_imitated: imitated_prompts and stored exchanged": BOTH,
    "mark_imitated: targets and stored exchanged": BOTH,
    "mapl_inter_loss: policy_chosen_sequence_logps and reference_rejected_sequence_logps exchanged": SIDES,
    "mapl_inter_loss: policy_rejected_sequence_logps and reference_chosen_sequence_logps exchanged": SIDES,
    "pair_classifier_loss: pair_probabilities detached": "it is for the metrics alone",
    "compute_pair_probabilities: in_order_scores detached": "it is for the metrics alone",
    "reg_grpo_loss: epsilon with the other sign": "it is squared",
    "tpo_tree_loss: step_embeddings with the other sign": "cosines are of two of them",
    "weighted_cloning_loss: policy_sequence_logps and ratings exchanged": PRODUCT,
}
"""Changes that change nothing, and why."""
READ_FROM_RECORDS = {"trace_pairs"}
"""Quantities that the made-up records of the trial do not hold; `check` calls their functions on those of the run."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_no_needs_can_be_exchanged_in_a_spec(registry: Registry) -> None:
    """Bound by name: `names` that would exchange two of equal axes are refused, for every objective."""
    swaps = list(iter_swaps(registry))
    survivors = [f"{spec.name}: {pair}" for spec, pair in swaps if not _refuse(swap_names(spec, pair))]
    assert survivors == []
    assert len(swaps) > 400


def test_no_wrong_announcement_passes_the_trial(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    mutants = [one for one in iter_spec_mutants(registry) if one[0].name not in READ_FROM_RECORDS]
    caught = {
        f"{spec.name}: {change}": f"trial: {said}" if (said := check_trial(registry, spec)) else ""
        for spec, change in mutants
    }
    _print("announcements", caught, capsys)
    assert [change for change, found in caught.items() if not found] == []


def test_no_wrong_function_passes_the_checks(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    tests = UnitTests(Path(__file__).parents[1] / "plugins")
    caught: dict[str, str] = {}
    for spec, mutant in iter_mutants(registry):
        if str(mutant).partition(":")[2] not in EQUAL:
            caught[str(mutant)] = _catch(tests, registry, spec, mutant)
    _print("functions", caught, capsys)
    assert [change for change, found in caught.items() if not found] == []
    assert len(caught) > 1000


def _refuse(spec: Spec) -> str:
    try:
        read_binding(spec)
    except MmalignError as error:
        return str(error)
    return ""


def _catch(tests: UnitTests, registry: Registry, spec: Spec, mutant: Mutant) -> str:
    """Names the check that sees a wrong function; empty if none does."""
    with applied(mutant):
        if test := tests.catch(mutant.function):
            return test
        if said := check_trial(registry, spec):
            return f"trial: {said}"
        return f"metrics: {found}" if spec.kind == "objective" and (found := find_mixed_metrics(spec.name)) else ""


def _print(what: str, caught: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the mutants by function, and how many each kind of check has caught."""
    changes: dict[str, list[str]] = defaultdict(list)
    for mutant in caught:
        name, _, change = mutant.rpartition(": ")
        changes[name].append(change)
    kinds = Counter(
        found.split()[0] if found.startswith(("trial", "metrics")) else "unit test" for found in caught.values()
    )
    with capsys.disabled():
        lines = [f"\n{len(caught)} wrong {what}, caught by {dict(kinds)}"]
        sys.stdout.write("\n".join([*lines, *(f"  {name}: {'; '.join(own)}" for name, own in changes.items())]) + "\n")
