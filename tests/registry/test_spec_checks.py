"""Import strings that lead nowhere are found without importing what they name."""

from __future__ import annotations

from mmalign import RewardSpec
from mmalign.registry import KINDS, load_registry
from mmalign.spec_checks import unresolved


def test_every_import_string_of_this_distribution_leads_somewhere() -> None:
    registry = load_registry()
    entries = [entry for kind in KINDS for entry in registry.entries(kind) if not entry.unavailable]
    assert [entry.spec.name for entry in entries if unresolved(entry.spec)] == []


def test_all_that_lead_nowhere_are_told() -> None:
    spec = RewardSpec(name="mine", summary="", target="mmalign.errors:Mine", config="nowhere_at_all:Config")
    assert [error.partition(": ")[2] for error in unresolved(spec)] == [
        "there is no module 'nowhere_at_all'",
        *(error.partition(": ")[2] for error in unresolved(spec)[1:]),
    ]
    assert "'mmalign.errors' has no 'Mine'" in unresolved(spec)[1]
