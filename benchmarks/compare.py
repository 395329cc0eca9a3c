"""Compares mmalign with TRL on one machine; writes benchmarks/results/*.json and the table of docs/benchmarks.md.

    python benchmarks/compare.py                   # everything; hours on a CPU
    python benchmarks/compare.py --quick           # two steps each, one mix
    python benchmarks/compare.py --methods dpo     # some of it

Every measurement has its own process. The systems take turns, so that a change of the machine's load meets all of them.
TRL is installed into `.venv-bench`, which sees the packages of `.venv`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import torch
from measuring import Case, Measurement, Method
from workloads import MIXES, ROOT

ENVIRONMENT = ROOT / ".venv-bench"
PYTHON = ENVIRONMENT / "bin/python"
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
MARKER = "<!-- table: written by benchmarks/compare.py -->"
REQUIREMENTS = ("trl==1.16.0", "liger-kernel==0.8.5")
SYSTEMS = ("trl", "mmalign", "trl-tuned", "mmalign-padded", "trl-precomputed", "trl-liger")


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
    """Tells whether a system has something of its own for a method, on this machine."""
    if system == "trl-precomputed":
        return method in ("dpo", "kto")
    return system != "trl-liger" or torch.cuda.is_available()


def measure(case: Case) -> dict[str, Any]:
    """Measures a case in a process of its own; returns the measurement's fields, or `error` with the last lines."""
    with tempfile.TemporaryDirectory() as folder:
        case_file, result_file = Path(folder, "case.json"), Path(folder, "result.json")
        case_file.write_text(json.dumps(asdict(case)), encoding="utf-8")
        command = [str(PYTHON), str(ROOT / "benchmarks/measure.py"), str(case_file), str(result_file)]
        # Idle OpenMP threads sleep instead of spinning; for both systems.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            return {"error": done.stderr[-500:]}
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result


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


def summarise(runs: list[dict[str, Any]]) -> Measurement:
    """Takes the median time and the highest memory of repeated measurements; they do the same work."""
    merged = [Measurement(**run) for run in runs]
    return replace(
        merged[0],
        seconds=statistics.median(run.seconds for run in merged),
        generation_seconds=statistics.median(run.generation_seconds for run in merged),
        peak_bytes=max(run.peak_bytes for run in merged),
    )


def build_table(results: list[dict[str, Any]]) -> str:
    """Builds the Markdown table: one row a case, speed and memory relative to TRL as it comes."""
    head = ["method", "training", "lengths", "system", "s/step", "of which sampling", "responses/s", "tokens/s"]
    head += ["peak GB", "speed", "memory", "loss of step 1"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    baselines = {_group(row): summarise(row["runs"]) for row in results if row["system"] == "trl" and row["runs"]}
    for row in results:
        cells = [row["method"], "LoRA" if row["lora"] else "full", row["mix"], row["system"]]
        baseline = baselines.get(_group(row))
        cells += _measured_cells(summarise(row["runs"]), baseline) if row["runs"] else ["failed", *[""] * 7]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _measured_cells(own: Measurement, baseline: Measurement | None) -> list[str]:
    return [
        f"{own.seconds:.2f}",
        f"{own.generation_seconds:.2f}" if own.generation_seconds else "",
        f"{own.responses / own.seconds:.2f}",
        f"{own.tokens / own.seconds:.0f}",
        f"{own.peak_bytes / 2**30:.2f}",
        f"{own.tokens / own.seconds / (baseline.tokens / baseline.seconds):.2f}x" if baseline else "",
        f"{own.peak_bytes / baseline.peak_bytes:.2f}x" if baseline else "",
        f"{own.losses[0]:.4f}",
    ]


def _group(row: dict[str, Any]) -> tuple[str, bool, str]:
    return row["method"], row["lora"], row["mix"]


def describe_machine() -> dict[str, Any]:
    """Describes what the numbers were measured on, its load at the start included: a busy machine is slower."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    load = os.getloadavg()[0]
    return {"device": device, "cores": os.cpu_count(), "torch": torch.__version__, "load": round(load, 1)}


def write_page(machine: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Replaces what follows the marker in docs/benchmarks.md by the table."""
    text = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    PAGE.write_text(f"{text}{MARKER}\n\nMeasured on: {about}.\n\n{build_table(results)}", encoding="utf-8")


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two steps each, the mix `long`, once")
    parser.add_argument("--methods", nargs="+", choices=get_args(Method), default=list(get_args(Method)))
    parser.add_argument("--training", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=5, help="measured optimiser steps, after a warm-up step")
    parser.add_argument("--prompts", type=int, default=8, help="prompts a step")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of every case")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.repeats, options.mixes = 2, 1, ["long"]
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measures everything that was asked for; writes after every measurement, so that nothing is lost."""
    options = parse_options(arguments)
    prepare_environment()
    machine = describe_machine()
    results: list[dict[str, Any]] = [{**asdict(case), "runs": [], "errors": []} for case in list_cases(options)]
    file = RESULTS / f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M%S}.json"
    RESULTS.mkdir(exist_ok=True)
    for _ in range(options.repeats):
        for case, row in zip(list_cases(options), results, strict=True):
            result = measure(case)
            row["errors" if "error" in result else "runs"].append(result)
            sys.stdout.write(f"{case}: {result.get('seconds', 'failed')}\n")
            file.write_text(json.dumps({"machine": machine, "results": results}, indent=1), encoding="utf-8")
            write_page(machine, results)


if __name__ == "__main__":
    main()
