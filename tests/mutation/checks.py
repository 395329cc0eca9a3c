"""The real checks that a mutant has to get past: the unit tests of its method, and the trial of `check`."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from objective_runs import PARAMETERS, QUANTITIES

from mmalign import MmalignError
from mmalign.contract.specs import AdvantageSpec, ObjectiveSpec, QuantitySpec
from mmalign.plugins.registry import Registry
from mmalign.trial.alone import try_alone

Spec = ObjectiveSpec | AdvantageSpec | QuantitySpec
PLUGINS = ("mmalign_objectives", "mmalign_advantages")


class _Collected:
    """Keeps what a session collects."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = list(items)


class UnitTests:
    """The tests in tests/plugins that need no fixture, by the functions of plugins that their modules name."""

    def __init__(self, folder: Path) -> None:
        collected = _Collected()
        files = [
            str(file) for file in sorted(folder.glob("test_*.py")) if any(one in file.read_text() for one in PLUGINS)
        ]
        options = ["--collect-only", "-p", "no:cacheprovider", *files]

        with redirect_stdout(StringIO()):
            pytest.main(options, plugins=[collected])
        self._tests: dict[str, list[Any]] = defaultdict(list)
        for item in collected.items:
            if isinstance(item, pytest.Function) and _is_plain(item):
                for name in _functions_of(item.module):
                    self._tests[name].append(item)

    def catch(self, function: str) -> str:
        """Runs the tests of a function until one fails; returns its name, or nothing."""
        tests = self._tests[function]
        for item in list(tests):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            try:
                item.obj(**parameters)
            except pytest.skip.Exception:
                continue
            # Whatever a wrong formula makes a test raise, it was caught.
            except (Exception, pytest.fail.Exception):  # noqa: BLE001
                # What caught one wrong version will catch the next.
                tests.remove(item)
                tests.insert(0, item)
                return item.name
        return ""


def _is_plain(item: pytest.Function) -> bool:
    parameters = set(item.callspec.params) if hasattr(item, "callspec") else set()
    own = getattr(item.obj, "is_hypothesis_test", False)
    return not own and set(inspect.signature(item.obj).parameters) <= parameters


def _functions_of(module: Any) -> Iterator[str]:
    for value in vars(module).values():
        if isinstance(value, FunctionType) and value.__module__.partition(".")[0] in PLUGINS:
            yield f"{value.__module__}:{value.__name__}"


CONSTANTS = {"tdpo2": ("reference_chosen_sequence_forward_kl",), "pair_classifier": ("pair_probabilities",)}
"""Parameters of a loss that are computed from what is trained and get no gradient, by design."""


def check_trial(registry: Registry, spec: Spec) -> str:
    """Says what the trial of `check` says of a part; empty if nothing."""
    quantities = {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in QUANTITIES.get(spec.name, [])}
    quantities.setdefault("margin_rewards", {"scores": ["relevance"]})
    own = PARAMETERS.get(spec.name, {}) if isinstance(spec, ObjectiveSpec) else quantities.get(spec.name, {})
    try:
        report = try_alone(registry, spec, own, quantities)
    except MmalignError as error:
        return str(error)
    unexpected = {name: found for name, found in report.constants.items() if found != CONSTANTS.get(name, ())}
    return "; ".join(report.problems) or (f"no gradient reaches {unexpected}" if unexpected else "")
