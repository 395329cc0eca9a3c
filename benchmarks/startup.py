"""Times the commands that must answer at once: the median of five runs, in seconds; exit code 1 above the limit.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

COMMANDS = (("--help",), ("list", "objectives"))
RUNS = 5
LIMIT = 1.0


def measure(arguments: Sequence[str], runs: int = RUNS) -> float:
    """Returns the median wall time of `mmalign <arguments>` in seconds; raises CalledProcessError if it fails."""
    # The installed command, as a user starts it.
    command = [str(Path(sys.executable).with_name("mmalign")), *arguments]
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    """Prints one line a command; returns 1 if one is too slow."""
    slow = False
    for arguments in COMMANDS:
        seconds = measure(arguments)
        slow |= seconds > LIMIT
        sys.stdout.write(f"mmalign {' '.join(arguments):<20} {seconds:.3f} s (limit {LIMIT:.1f} s)\n")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
