"""Reads what finished and stopped runs have left, and finds what differs between them: metrics and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.config.reading import read_config
from mmalign.errors import ConfigError
from mmalign.monitoring.metrics_log import read_metrics

Interval = tuple[float, float]

_BOUNDS = ("_low", "_high")
"""Ends of the names under which a metric's interval is logged."""

_SPLITS = ("train", "eval")

_WARNED = {
    "train.seed": "seeds differ: part of a difference may be chance",
    "data.eval": "held-out data differ: metrics are of other records",
    "evaluation": "evaluations differ: metrics of the same name may be computed otherwise",
    "decoding": "decodings differ: metrics of samples are not of the same sampling",
    "data.train": "training data differ",
}
"""Sections that make a comparison doubtful, and why."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run's folder tells without loading the model.

    Attributes:
        folder: of the run.
        config: values by dotted key.
        step: of the held-out metrics.
        metrics: the latest held-out metrics; intervals are apart.
        start: the held-out metrics before training.
        intervals: of those metrics that have one.
        examples: (prompt, response before, response after), of a finished run.
        finished: False for a run that was stopped or still goes on.
        data: fingerprints of the data, by split.
    """

    folder: Path
    config: Mapping[str, Any]
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    examples: Sequence[tuple[str, str, str]] = ()
    finished: bool = True
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs, the first being what the others are compared with.

    Attributes:
        runs: at least two.
        metrics: names of held-out metrics that at least one run has.
        keys: configuration keys in which the runs differ.
        warnings: why differences of metrics may mean something else than they seem to.
    """

    runs: Sequence[RunRecord]
    metrics: Sequence[str]
    keys: Sequence[str]
    warnings: Sequence[str]

    def difference(self, name: str, run: RunRecord) -> float | None:
        """Returns by how much a metric exceeds that of the first run; None where one of them is missing."""
        base, own = self.runs[0].metrics.get(name), run.metrics.get(name)
        return None if base is None or own is None else own - base


def read_run(folder: Path) -> RunRecord:
    """Reads the folder of a run.

    Raises:
        ConfigError: it is not one.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: not the folder of a run, no config.yaml")
    config = read_config(folder / "config.yaml")
    rows = [row for row in read_metrics(folder) if row["kind"] == "eval"]
    every = _numbers(rows[-1]) if rows else {}
    intervals = {name: found for name in every if (found := _find_interval(every, name))}
    bounds = {f"{name}{end}" for name in intervals for end in _BOUNDS}
    results = _read_json(folder / "results.json")
    known = _read_json(folder / "run.json").get("data", {})
    return RunRecord(
        folder=folder,
        config=dict(_flatten(config)),
        step=rows[-1]["step"] if rows else 0,
        metrics={name: value for name, value in every.items() if name not in bounds},
        start=_numbers(rows[0]) if rows and rows[0]["step"] == 0 else {},
        intervals=intervals,
        examples=[(row["prompt"], row["before"], row["after"]) for row in results.get("examples", ())],
        finished=bool(results),
        data={split: str(known[split]) for split in _SPLITS if split in known},
    )


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compares runs with the first of them.

    Raises:
        ConfigError: fewer than two, or one that is not the folder of a run.
    """
    if len(folders) < 2:
        raise ConfigError("compare: expected the folders of two runs or more")
    runs = [read_run(folder) for folder in folders]
    keys = [key for key in _union(run.config for run in runs) if _differs(runs, key) and key != "output"]
    return Comparison(
        runs=runs, metrics=_union(run.metrics for run in runs), keys=keys, warnings=list(_iter_warnings(runs, keys))
    )


def _iter_warnings(runs: Sequence[RunRecord], keys: Sequence[str]) -> Iterator[str]:
    for run in runs:
        if not run.metrics:
            yield f"{run.folder}: no held-out metrics; `data.eval` names the records to compare on"
        elif not run.finished:
            yield f"{run.folder}: not finished; its metrics are those of step {run.step}"
    for section, reason in _WARNED.items():
        changed = [key for key in keys if key == section or key.startswith(f"{section}.")]
        if changed:
            yield f"{reason} ({', '.join(changed)})"
    for split in _SPLITS:
        contents = {run.data.get(split) for run in runs}
        if len(contents) > 1 and not any(key.startswith(f"data.{split}") for key in keys):
            yield f"data.{split}: the same configuration has read other content"
    if len({run.step for run in runs if run.metrics}) > 1:
        steps = ", ".join(f"{run.folder} {run.step}" for run in runs if run.metrics)
        yield f"steps differ: {steps}"


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Picks the metrics of a logged line; one that was not finite is NaN."""
    values = {key: value for key, value in row.items() if key not in ("step", "time", "kind", "non_finite")}
    return {key: float("nan") if value is None else float(value) for key, value in values.items()}


def _find_interval(metrics: Mapping[str, float], name: str) -> Interval | None:
    low, high = (metrics.get(f"{name}{end}") for end in _BOUNDS)
    return None if low is None or high is None else (low, high)


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a configuration by dotted key; empty ones count."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    if not items:
        yield key, value
    for name, own in items:
        yield from _flatten(own, f"{key}.{name}" if key else str(name))


def _differs(runs: Sequence[RunRecord], key: str) -> bool:
    missing = object()
    first = runs[0].config.get(key, missing)
    return any(run.config.get(key, missing) != first for run in runs[1:])


def _union(names: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for own in names for name in own))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return content
