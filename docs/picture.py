"""Draws the result of a run as docs/quickstart.svg: python docs/picture.py runs/quickstart"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from mmalign.monitoring.progress import before_after_table, examples_table

PICTURE = Path(__file__).resolve().parent / "quickstart.svg"


def draw(folder: Path) -> str:
    """Renders the tables that `mmalign train` printed at the end of the run in `folder`."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(before_after_table(results["before"], results["after"]))
    console.print(examples_table((row["prompt"], row["before"], row["after"]) for row in results["examples"]))
    return console.export_svg(title=f"mmalign train, {results['steps']} steps")


if __name__ == "__main__":
    PICTURE.write_text(draw(Path(sys.argv[1])), encoding="utf-8")
