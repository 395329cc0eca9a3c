"""Times rounds whose rewards come from a slow server, with and without `train.overlap_parts`; prints seconds a round.

A tiny language model is sampled in this process; a real HTTP server on this machine answers after a fixed delay. Both
runs must end with the same weights. Exit code 1 if they do not.

python benchmarks/overlap.py [--delay 0.1] [--rounds 5] [--parts 4]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from workloads import write_rows

import mmalign
from mmalign.config.run_config import RunConfig
from mmalign.monitoring.metrics_log import read_metrics

PROMPTS, GROUP_SIZE, STEPS = 16, 8, 64
SAMPLED_TOGETHER = 32  # responses, so a round is four batches
REQUEST = 8  # responses


@dataclass(frozen=True)
class Timing:
    """One run: the median seconds of a round, the first left out, and the weights it ends with."""

    seconds: float
    weights: dict[str, torch.Tensor]


@contextmanager
def serve(delay: float) -> Iterator[str]:
    """Serves scores, each answer `delay` seconds late; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(delay)
            body = json.dumps({"scores": [len(set(text)) for text in payload["responses"]]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/score"
    finally:
        server.shutdown()
        server.server_close()


def measure(folder: Path, url: str, *, rounds: int, parts: int) -> Timing:
    """Trains for a warm-up round and `rounds` more; `folder` holds the model and the prompts."""
    output = folder / f"parts-{parts}"
    config = {
        "modality": {"name": "text", "model": str(folder / "model"), "generation_batch_size": SAMPLED_TOGETHER},
        "data": {"train": {"path": str(folder / "prompts.jsonl")}},
        "objective": {"name": "grpo"},
        "collector": {"name": "group", "group_size": GROUP_SIZE},
        "rewards": {"name": "http", "url": url, "batch_size": REQUEST, "requests": {"concurrency": 1}},
        "advantage": {"name": "grpo"},
        "decoding": {"name": "sample", "max_steps": STEPS},
        "train": {"steps": rounds + 1, "batch_size": PROMPTS, "learning_rate": 1e-4, "overlap_parts": parts},
        "output": str(output),
    }
    run = mmalign.train(RunConfig.model_validate(config))
    times = [row["time"] for row in read_metrics(output) if row["kind"] == "train"]
    seconds = statistics.median(stop - start for start, stop in pairwise(times))
    return Timing(seconds, {name: value.detach().clone() for name, value in run.trainable().items()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line a run; returns 1 if the runs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.1, help="seconds that the server takes for an answer")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--parts", type=int, default=4, help="parts of a round with overlap")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, serve(options.delay) as url:
        folder = Path(name)
        mmalign.build_tiny_text_model(folder / "model", hidden_size=64, layers=4)
        write_rows(folder / "prompts.jsonl", [{"prompt": f"Say {number}."} for number in range(PROMPTS)])
        runs = {parts: measure(folder, url, rounds=options.rounds, parts=parts) for parts in (1, options.parts)}
    before, after = runs[1], runs[options.parts]
    for parts, timing in runs.items():
        gain = before.seconds / timing.seconds
        sys.stdout.write(f"overlap_parts {parts}: {timing.seconds:.2f} s a round, {gain:.2f}x\n")
    same = all(torch.equal(value, after.weights[name]) for name, value in before.weights.items())
    sys.stdout.write("the weights are the same\n" if same else "the weights differ\n")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
