"""Times the commands that must answer at once: CPU seconds, the median of five runs; exit code 1 above a limit.

python benchmarks/startup.py

CPU seconds (user and system) rather than wall time, so that other work on the machine changes little. The first run of
every command is not counted: it may convert a model, and it counts parameters that later ones remember.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
QUICKSTART = "configs/text/quickstart.yaml"
DIGITS = "configs/diffusion/diffusion_dpo.yaml"


class Case(NamedTuple):
    """A command, the CPU seconds it may take, and its exit code; `TINY` stands for the tiny model's file."""

    arguments: tuple[str, ...]
    limit: float
    returns: int = 0


CASES = (
    Case(("--help",), 1.0),
    Case(("list", "objectives"), 1.0),
    Case(("check", "TINY", "trian.steps=3"), 1.0, returns=2),
    Case(("check", "TINY", "objective.beat=0.1"), 1.0, returns=2),
    Case(("check", "TINY", "modality.lora.rnak=4"), 1.0, returns=2),
    Case(("check", "TINY"), 4.0),
    Case(("check", QUICKSTART), 5.0),
    Case(("check", DIGITS), 5.0),
    Case(("data", "show", "configs/text/data/pairs_train.jsonl"), 1.0),
    Case(("data", "show", "--config", "TINY"), 3.0),
    Case(("data", "show", "--config", QUICKSTART), 3.0),
    Case(("data", "show", "--config", DIGITS), 3.0),
)

_TINY = """\
modality: {{name: text, model: {folder}/model, lora: {{rank: 2}}}}
data: {{train: {{path: {folder}/data.jsonl}}}}
objective: {{name: dpo}}
train: {{steps: 5, batch_size: 2}}
output: {folder}/run
"""


def measure(case: Case, tiny: str = "", runs: int = RUNS) -> float:
    """Returns the median CPU seconds of a command after one that is not counted; raises if its exit code is another."""
    arguments = [tiny if argument == "TINY" else argument for argument in case.arguments]
    # The installed command, as a user starts it.
    command = [str(Path(sys.executable).with_name("mmalign")), *arguments]
    return statistics.median([_run(command, case.returns) for _ in range(runs + 1)][1:])


def write_tiny(folder: Path) -> str:
    """Writes a tiny text model, two pairs and a configuration; returns the configuration's file."""
    from mmalign import build_tiny_text_model

    build_tiny_text_model(str(folder / "model"))
    rows = '{"prompt": "x", "chosen": "good", "rejected": "bad"}\n{"prompt": "y", "chosen": "fine", "rejected": "no"}\n'
    (folder / "data.jsonl").write_text(rows, encoding="utf-8")
    (folder / "tiny.yaml").write_text(_TINY.format(folder=folder), encoding="utf-8")
    return str(folder / "tiny.yaml")


def _run(command: Sequence[str], returns: int) -> float:
    before = os.times()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    if result.returncode != returns:
        raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}, expected {returns}\n{result.stderr}")
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> int:
    """Prints one line a command; returns 1 if one is too slow."""
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny(Path(folder))
        for case in CASES:
            seconds = measure(case, tiny)
            slow |= seconds > case.limit
            sys.stdout.write(f"mmalign {' '.join(case.arguments):<60} {seconds:.2f} s (limit {case.limit:.1f} s)\n")
            sys.stdout.flush()
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
