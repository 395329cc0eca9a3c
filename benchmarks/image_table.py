"""The table of `images.py`: speed, memory and losses of each system, relative to TRL as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rows import Row, format_loss_difference, summarise

BEGIN, END = "<!-- images -->", "<!-- /images -->"
HEAD = ("system", "s/step", "pairs/s", "tokens/s", "speed", "peak GB", "memory", "loss, first and last step")
HEAD += ("minus TRL's",)


def build_table(rows: Sequence[Row]) -> str:
    """Builds the Markdown table, with what it was measured on."""
    baseline = next((row for row in rows if row["system"] == "trl" and row["runs"]), None)
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for row in rows:
        cells = _measured_cells(row, baseline) if row["runs"] else ["failed", *[""] * (len(HEAD) - 2)]
        lines.append("| " + " | ".join([row["system"], *cells]) + " |")
    return "\n".join([*lines, "", _describe(rows), ""])


def _measured_cells(row: Row, baseline: Row | None) -> list[str]:
    own = summarise(row["runs"])
    trl = summarise(baseline["runs"]) if baseline else None
    return [
        f"{own.seconds:.2f}",
        f"{own.responses / 2 / own.seconds:.2f}",
        f"{own.tokens / own.seconds:.0f}",
        f"{own.tokens / own.seconds / (trl.tokens / trl.seconds):.2f}x" if trl else "",
        f"{own.peak_bytes / 2**30:.2f}",
        f"{own.peak_bytes / trl.peak_bytes:.2f}x" if trl else "",
        f"{own.losses[0]:.4f}, {own.losses[-1]:.4f}",
        format_loss_difference(row, baseline),
    ]


def _describe(rows: Sequence[Row]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in rows[0]["machine"].items())
    work = f"{rows[0]['prompts']} pairs a step, {rows[0]['steps']} measured steps"
    repeats = f"each system measured {max(len(row['runs']) for row in rows)} x"
    load = max(row["load"] for row in rows)
    return f"Measured on {rows[0]['date']}: {machine}, load {load:.1f}; {work}, {repeats}."


def write_page(page: Path, table: str) -> bool:
    """Replaces what is between the markers; returns whether the page has them."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return False
    page.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")
    return True
