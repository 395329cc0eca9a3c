"""The rows of the comparison: one a method, training, mix of lengths, system and device; and the table made of them.

A row that is measured again replaces the older one; all others stay.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import torch
from measuring import SYSTEMS, Measurement, Method
from workloads import MIXES

Row = dict[str, Any]

MARKER = "<!-- table: written by benchmarks/compare.py -->"
HEAD = ("method", "training", "lengths", "system", "s/step", "sampling + rest", "responses/s", "tokens/s", "peak GB")
HEAD += ("speed", "memory", "peak share", "loss, first and last step", "minus TRL's", "date", "load")


def describe_machine() -> dict[str, Any]:
    """Describes what numbers are measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"device": device, "cores": os.cpu_count(), "torch": torch.__version__}


def today() -> str:
    """Returns the date in UTC."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def load_rows(file: Path) -> list[Row]:
    """Reads stored rows; none if there is no such file."""
    if not file.is_file():
        return []
    rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))
    return rows


def merge_rows(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Merges rows in the order of the table; a new row replaces an old one, unless only failures are new."""
    merged = {_identify(row): row for row in old}
    for row in new:
        key = _identify(row)
        if row["runs"] or (row["errors"] and not merged.get(key, row)["runs"]):
            merged[key] = row
    return sorted(merged.values(), key=_place)


def save_rows(file: Path, rows: Sequence[Row]) -> None:
    """Writes rows as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_page(page: Path, rows: Sequence[Row]) -> None:
    """Replaces what follows the marker in the page by a table for every device."""
    parts = [page.read_text(encoding="utf-8").partition(MARKER)[0] + MARKER + "\n"]
    for device in dict.fromkeys(row["machine"]["device"] for row in rows):
        own = [row for row in rows if row["machine"]["device"] == device]
        about = ", ".join(f"{name} {value}" for name, value in own[-1]["machine"].items())
        parts.append(f"Measured on: {about}.\n\n{build_table(own)}")
    page.write_text("\n".join(parts), encoding="utf-8")


def build_table(rows: Sequence[Row]) -> str:
    """Builds the Markdown table: one row a case, speed and memory relative to TRL as it comes."""
    baselines = {_compare_within(row): row for row in rows if row["system"] == "trl" and row["runs"]}
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for row in rows:
        cells = [row["method"], "LoRA" if row["lora"] else "full", row["mix"], row["system"]]
        cells += _measured_cells(row, baselines.get(_compare_within(row))) if row["runs"] else ["failed", *[""] * 9]
        lines.append("| " + " | ".join([*cells, row["date"], f"{row['load']:.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def summarise(runs: Iterable[dict[str, Any]]) -> Measurement:
    """Takes the median time and the highest memory of repeated measurements; they do the same work."""
    merged = [Measurement(**run) for run in runs]
    return replace(
        merged[0],
        seconds=statistics.median(run.seconds for run in merged),
        generation_seconds=statistics.median(run.generation_seconds for run in merged),
        peak_bytes=max(run.peak_bytes for run in merged),
    )


def _measured_cells(row: Row, baseline: Row | None) -> list[str]:
    own = summarise(row["runs"])
    trl = summarise(baseline["runs"]) if baseline else None
    sampling = own.generation_seconds
    share = own.operations / own.seconds / row["peak_operations"] if row["peak_operations"] else None
    return [
        f"{own.seconds:.2f}",
        f"{sampling:.2f} + {own.seconds - sampling:.2f}" if sampling else "",
        f"{own.responses / own.seconds:.2f}",
        f"{own.tokens / own.seconds:.0f}",
        f"{own.peak_bytes / 2**30:.2f}",
        f"{own.tokens / own.seconds / (trl.tokens / trl.seconds):.2f}x" if trl else "",
        f"{own.peak_bytes / trl.peak_bytes:.2f}x" if trl else "",
        f"{share:.1%}" if share is not None else "",
        f"{own.losses[0]:.4f}, {own.losses[-1]:.4f}",
        format_loss_difference(row, baseline),
    ]


def format_loss_difference(row: Row, baseline: Row | None) -> str:
    """Formats by how much the first and the last loss differ from TRL's, where both saw the same data."""
    same = baseline is not None and all(row[name] == baseline[name] for name in ("steps", "prompts"))
    if baseline is None or not same or row["method"] == "grpo" or row["system"] == "trl":
        return ""
    own, trl = row["runs"][0]["losses"], baseline["runs"][0]["losses"]
    # Adding zero makes a zero of minus zero.
    return ", ".join(f"{round(own[step] - trl[step], 4) + 0.0:+.4f}" for step in (0, -1))


def _identify(row: Row) -> tuple[Any, ...]:
    return row["machine"]["device"], row["method"], row["lora"], row["mix"], row["system"]


def _compare_within(row: Row) -> tuple[Any, ...]:
    return row["method"], row["lora"], row["mix"], row["prompts"]


def _place(row: Row) -> tuple[Any, ...]:
    places = (get_args(Method).index(row["method"]), not row["lora"], list(MIXES).index(row["mix"]))
    return row["machine"]["device"], *places, SYSTEMS.index(row["system"])
