"""Compares mmalign with TRL on one machine; adds to benchmarks/results/compare.json and to docs/benchmarks.md.

    python benchmarks/compare.py                   # everything; hours on a CPU
    python benchmarks/compare.py --quick           # minutes: DPO with an adapter, long texts, two steps
    python benchmarks/compare.py --methods dpo     # some of it

Every measurement has its own process. The systems take turns, so that a change of the machine's load meets all of them.
TRL is installed into `.venv-bench`, which sees the packages of `.venv`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import psutil
import torch
from measuring import SYSTEMS, Case, Method, training_dtype
from rows import Row, describe_machine, load_rows, merge_rows, save_rows, today, write_page
from workloads import MIXES, ROOT

ENVIRONMENT = ROOT / ".venv-bench"
PYTHON = ENVIRONMENT / "bin/python"
RESULTS = ROOT / "benchmarks/results/compare.json"
PAGE = ROOT / "docs/benchmarks.md"
OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
REQUIREMENTS = ("trl==1.16.0", "liger-kernel==0.8.5")
QUICK: dict[str, Any] = {
    "methods": ["dpo"],
    "training": ["lora"],
    "mixes": ["long"],
    "systems": ["trl", "trl-tuned", "mmalign", "mmalign-one-pass"],
    "steps": 2,
    "repeats": 1,
}


def list_cases(options: argparse.Namespace) -> list[Case]:
    """Lists what to measure once, without repetitions; systems take turns within a method and mix."""
    return [
        Case(method, mix, training == "lora", system, options.steps, options.prompts)
        for method in options.methods
        for training in options.training
        for mix in options.mixes
        for system in options.systems
        if is_sensible(method, system)
    ]


def is_sensible(method: str, system: str) -> bool:
    """Returns whether a system has something of its own for a method, on this machine."""
    if system == "trl-precomputed":
        return method in ("dpo", "kto")
    if system == "trl-liger":
        return torch.cuda.is_available()
    # On a GPU `mmalign` is one pass.
    return system != "mmalign-one-pass" or not torch.cuda.is_available()


def measure(case: Case, script: str = "measure.py") -> dict[str, Any]:
    """Measures a case in a process of its own; returns the measurement's fields, or `error` with the last lines."""
    with tempfile.TemporaryDirectory() as folder:
        case_file, result_file = Path(folder, "case.json"), Path(folder, "result.json")
        case_file.write_text(json.dumps(asdict(case)), encoding="utf-8")
        done = _run_script(script, str(case_file), str(result_file))
        if done.returncode:
            return {"error": done.stderr[-500:]}
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result


@lru_cache
def measure_peak(dtype: str) -> float:
    """Measures the machine's matrix products, once for all rows of this dtype, in operations a second."""
    _report(f"measuring matrix products in {dtype}, up to 10 s\n")
    done = _run_script("peak.py", dtype)
    done.check_returncode()
    return float(done.stdout)


def _run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # OpenMP as it comes, whatever make sets for tests: threads that sleep between operations cost all systems time.
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP}
    command = [str(PYTHON), str(ROOT / "benchmarks" / name), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def prepare_environment() -> None:
    """Makes `.venv-bench` with TRL, on top of the packages of the present environment."""
    if PYTHON.exists():
        return
    venv.create(ENVIRONMENT, with_pip=False)
    parent = next(path for path in sys.path if path.endswith("site-packages"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = ENVIRONMENT / "lib" / version / "site-packages"
    (own / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n", encoding="utf-8")
    install = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, *REQUIREMENTS], check=True)


class LoadMeter:
    """How many cores other processes keep busy."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def read(self) -> float:
        """Returns the mean since the meter was made."""
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, others / (time.monotonic() - self._start))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_row(case: Case, row: Row) -> None:
    """Measures a case once more and adds the result to its row."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else training_dtype(lora=case.lora)
    row["peak_operations"] = measure_peak(str(dtype).removeprefix("torch."))
    meter = LoadMeter()
    _report(f"{case}: ")
    result = measure(case)
    row["load"] = max(row["load"], round(meter.read(), 2))
    row["errors" if "error" in result else "runs"].append(result)
    _report(f"{result.get('seconds', 'failed')}\n")


def _report(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes' choice; other options change it")
    parser.add_argument("--methods", nargs="+", choices=get_args(Method), default=list(get_args(Method)))
    parser.add_argument("--training", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=5, help="measured optimiser steps, after a warm-up step")
    parser.add_argument("--prompts", type=int, default=8, help="prompts a step")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of every case")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another file leaves the page as it is")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures everything that was asked for; writes after every measurement, so that nothing is lost."""
    options = parse_options(arguments)
    prepare_environment()
    stamp = {"machine": describe_machine(), "date": today(), "load": 0.0, "peak_operations": 0.0}
    cases = list_cases(options)
    rows: list[Row] = [{**asdict(case), **stamp, "runs": [], "errors": []} for case in cases]
    for _ in range(options.repeats):
        for case, row in zip(cases, rows, strict=True):
            measure_row(case, row)
            merged = merge_rows(load_rows(options.results), rows)
            save_rows(options.results, merged)
            if options.results == RESULTS:
                write_page(PAGE, merged)


if __name__ == "__main__":
    main()
