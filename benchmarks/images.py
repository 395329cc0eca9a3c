"""Compares mmalign with TRL in DPO with LoRA on prompts with images; writes benchmarks/results/images.json.

    python benchmarks/images.py                                  # all systems
    python benchmarks/images.py --systems mmalign --results FILE # some; another file leaves the page as it is

The same model (`image_workload.py`), pixels, tokens and batch in all systems, which take turns; every measurement has
its own process. The table goes to docs/benchmarks.md, too, between the markers for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from compare import PAGE, LoadMeter, measure, prepare_environment
from image_table import build_table, write_page
from image_workload import find_image_model
from measuring import Case
from rows import Row, describe_machine, save_rows, today
from workloads import ROOT

RESULTS = ROOT / "benchmarks/results/images.json"
SYSTEMS = ("trl", "trl-tuned", "mmalign", "mmalign-one-pass", "mmalign-padded")


def measure_row(row: Row, case: Case) -> None:
    """Measures a case once more and adds the result to its row."""
    meter = LoadMeter()
    result = measure(case, "measure_images.py")
    row["load"] = max(row["load"], round(meter.read(), 2))
    row["errors" if "error" in result else "runs"].append(result)
    sys.stdout.write(f"{case.system}: {result.get('seconds', result.get('error'))}\n")
    sys.stdout.flush()


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=2, help="measured optimiser steps, after a warm-up step")
    parser.add_argument("--prompts", type=int, default=8, help="pairs a step, each with an image of its own")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of every system")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another file leaves the page as it is")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; writes after every measurement, so that nothing is lost. Returns 1 if anything failed."""
    options = parse_options(arguments)
    prepare_environment()
    # Before the first measurement, whose peak memory would have it.
    find_image_model()
    cases = [Case("dpo", "images", True, system, options.steps, options.prompts) for system in options.systems]
    stamp = {"machine": describe_machine(), "date": today(), "load": 0.0}
    rows: list[Row] = [{**asdict(case), **stamp, "runs": [], "errors": []} for case in cases]
    for _ in range(options.repeats):
        for case, row in zip(cases, rows, strict=True):
            measure_row(row, case)
            save_rows(options.results, rows)
    table = build_table(rows)
    sys.stdout.write(f"\n{table}")
    if options.results == RESULTS:
        write_page(PAGE, table)
    return int(any(row["errors"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
