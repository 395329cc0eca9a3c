"""Draws the memory of a DPO step over response length and vocabulary: benchmarks/results/memory.json, docs/memory.png.

python benchmarks/memory.py            # minutes on a CPU; every measurement is a process of its own
python benchmarks/memory.py --draw     # the figure and the table again, from the stored numbers
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure_memory import SYSTEMS, MemoryCase, measure
from rows import describe_machine, today
from workloads import ROOT

RESULTS = ROOT / "benchmarks/results/memory.json"
FIGURE = ROOT / "docs/memory.png"

LENGTHS = (256, 512, 1024, 2048, 4096)
VOCABULARIES = (8192, 16384, 32768, 65536, 131072)
LENGTH, VOCABULARY = 1024, 32768
"""What stays fixed while the other varies."""

ENVIRONMENT = {
    # Freed tensors go back to the system at once: resident memory is then what is in use.
    "MALLOC_MMAP_THRESHOLD_": str(2**20),
    # Idle threads sleep instead of spinning.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}

STYLES: dict[str, dict[str, Any]] = {
    "naive": {"color": "#b2182b", "marker": "s"},
    # Around the curve of `mmalign`, which it nearly coincides with.
    "mmalign-padded": {"color": "#f4a582", "marker": "o", "markersize": 11, "linewidth": 6},
    "mmalign": {"color": "#2166ac", "marker": "o"},
}
LABELS = {"naive": "all logits at once", "mmalign-padded": "mmalign, padded", "mmalign": "mmalign"}


def list_cases() -> list[MemoryCase]:
    """Lists what to measure; the point that both panels share comes once."""
    shapes = dict.fromkeys([(length, VOCABULARY) for length in LENGTHS] + [(LENGTH, words) for words in VOCABULARIES])
    return [MemoryCase(system, length, words) for length, words in shapes for system in SYSTEMS]


def measure_all(cases: Iterable[MemoryCase]) -> Iterable[dict[str, Any]]:
    """Measures cases one after the other; each is a fresh process, forked from one that has only imported."""
    os.environ |= ENVIRONMENT
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["measure_memory"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                row = {**asdict(case), "bytes": pool.submit(measure, case, folder).result()}
            sys.stdout.write(f"{row['system']} {row['length']} {row['vocabulary']}: {row['bytes'] / 2**20:.0f} MiB\n")
            yield row


def select(rows: Iterable[dict[str, Any]], system: str, varied: str) -> list[tuple[int, float]]:
    """Selects the curve of a system: (what is varied, GiB), ascending."""
    fixed, value = ("vocabulary", VOCABULARY) if varied == "length" else ("length", LENGTH)
    points = [(row[varied], row["bytes"] / 2**30) for row in rows if row["system"] == system and row[fixed] == value]
    return sorted(points)


def build_table(rows: list[dict[str, Any]]) -> str:
    """Builds a Markdown table of both panels, in MiB."""
    lines = ["| response tokens | vocabulary | " + " | ".join(LABELS[system] for system in SYSTEMS) + " |"]
    lines.append("|---" * (2 + len(SYSTEMS)) + "|")
    bytes_of = {(row["length"], row["vocabulary"], row["system"]): row["bytes"] for row in rows}
    for length, words in dict.fromkeys((row["length"], row["vocabulary"]) for row in rows):
        cells = [f"{bytes_of[length, words, system] / 2**20:.0f}" for system in SYSTEMS]
        lines.append(f"| {length} | {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draws both panels."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    style = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 2.2}
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
        titles = (f"vocabulary {VOCABULARY // 1024}k", f"{LENGTH} tokens a response")
        names = ("tokens of each response", "vocabulary, thousands of tokens")
        for panel, varied, title, name in zip(panels, ("length", "vocabulary"), titles, names, strict=True):
            scale = 1 if varied == "length" else 1024
            for system in SYSTEMS:
                points = [(at / scale, size) for at, size in select(rows, system, varied)]
                panel.plot(*zip(*points, strict=True), label=LABELS[system], **STYLES[system])
            panel.set(xlabel=name, title=title, ylim=(0, None))
            panel.set_xticks([at / scale for at in (LENGTHS if varied == "length" else VOCABULARIES)[2:]])
            panel.grid(axis="y", alpha=0.3)
        panels[0].set_ylabel("memory of one step, GiB")
        panels[0].legend(frameon=False)
        figure.savefig(file, dpi=110)
        pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measures, unless `--draw` is given; writes the numbers and the figure, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw the stored numbers")
    if not parser.parse_args(arguments).draw:
        rows = list(measure_all(list_cases()))
        stored = {"machine": describe_machine(), "date": today(), "rows": rows}
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    draw(rows, FIGURE)
    sys.stdout.write(build_table(rows))


if __name__ == "__main__":
    main()
