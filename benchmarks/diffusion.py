"""Times what saves time in training diffusion models; writes benchmarks/results/diffusion.json and docs/diffusion.md.

Kept encodings against encoding every step, on whole runs, which must end with the same weights; and chosen and rejected
images in one pass of policy and reference against passes of their own. The network is a random one in the shape of
Stable Diffusion whose autoencoder costs as much, relative to the denoiser, as that of Stable Diffusion 1.5.

python benchmarks/diffusion.py [--steps 6] [--pairs 8] [--size 32]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rows import describe_machine, today
from workloads import ROOT, write_rows

import mmalign
from mmalign import EncodedResponse, LoRAParameters, Model, Record
from mmalign.config.run_config import RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.networks.augmentation import Networks
from mmalign_diffusion.config import FamilyComponent
from mmalign_diffusion.modality import Diffusion
from mmalign_diffusion.testing_pipelines import build_tiny_pipeline

Timings = dict[str, float]

RESULTS = ROOT / "benchmarks/results/diffusion.json"
PAGE = ROOT / "docs/diffusion.md"
BEGIN, END = "<!-- table: written by benchmarks/diffusion.py -->\n", "<!-- end of the table -->"

WIDTHS = (64, 76)
"""Channels: an encoding then costs 1.4 forward passes of the denoiser, as in Stable Diffusion 1.5 at 512 pixels."""
COMPARED = (
    ("every step encodes", "kept encodings", "images and prompts are encoded once"),
    ("passes of their own", "one pass", "chosen and rejected in one pass of the policy, and one of the reference"),
)
"""What is compared: the slower way, the faster way, and what that does."""


def write_pairs(folder: Path, count: int, size: int) -> Path:
    """Writes pairs of random images with different prompts; returns the data file."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(count):
        names = [f"{rid}-{index}.png" for rid in ("chosen", "rejected")]
        for name in names:
            pixels = torch.randint(256, (size, size, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name)
        rows.append(_pair(index, names))
    return write_rows(folder / "pairs.jsonl", rows)


def _pair(index: int, names: Sequence[str]) -> dict[str, Any]:
    images = [[{"type": "image", "media": name}] for name in names]
    return {
        "id": str(index),
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": f"a picture, number {index}"}]}],
        "media": [{"mid": name, "type": "image", "uri": name} for name in names],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": content}]}
            for rid, content in zip(("chosen", "rejected"), images, strict=True)
        ],
        "labels": [{"kind": "pair", "order": [["chosen"], ["rejected"]]}],
    }


def train(model: Path, pairs: Path, output: Path, *, cache: bool, steps: int, size: int) -> tuple[float, torch.Tensor]:
    """Trains on all pairs in every step: seconds of the median step, the first left out, and the weights at the end.

    The first step fills the cache, so that what is measured are later epochs.
    """
    config = {
        "modality": {
            "name": "diffusion",
            "family": {"name": "stable_diffusion", "cache": cache},
            "model": str(model),
            "size": size,
            "lora": {"rank": 8},
        },
        "data": {"train": {"path": str(pairs)}},
        "objective": {"name": "dpo", "beta": 2000.0},
        "train": {"steps": steps + 1, "batch_size": len(pairs.read_text().splitlines()), "learning_rate": 1e-5},
        "output": str(output),
    }
    run = mmalign.train(RunConfig.model_validate(config))
    ends = [row["time"] for row in read_metrics(run.output) if row["kind"] == "train"]
    weights = torch.cat([weight.detach().flatten() for weight in run.trainable().values()])
    return statistics.median(stop - start for start, stop in pairwise(ends)), weights


def compare_caches(folder: Path, model: Path, pairs: Path, *, steps: int, size: int) -> Timings:
    """Times a step of runs without and with kept encodings; raises ValueError if their weights differ."""
    os.environ["MMALIGN_CACHE"] = str(folder / "cache")
    free, expected = train(model, pairs, folder / "free", cache=False, steps=steps, size=size)
    kept, weights = train(model, pairs, folder / "kept", cache=True, steps=steps, size=size)
    if not torch.allclose(weights, expected, atol=1e-6):
        raise ValueError(f"the weights differ by up to {(weights - expected).abs().max():.1e}")
    return {"every step encodes": free, "kept encodings": kept}


def compare_passes(model: Path, pairs: Path, *, steps: int, size: int) -> Timings:
    """Times scoring by policy, with gradients, and reference: both images of all pairs at once, and one after another.

    Raises:
        ValueError: the log-probs differ.
    """
    modality = Diffusion(
        family=FamilyComponent(name="stable_diffusion"), model=str(model), size=size, lora=LoRAParameters(rank=8)
    )
    loaded = modality.load(device=torch.device("cpu"), dtype=torch.float32)
    responses = _encode(modality, loaded, pairs)

    def score(*parts: Sequence[EncodedResponse]) -> torch.Tensor:
        loaded.network.zero_grad()
        with torch.no_grad(), loaded.network.disable_adapter():
            references = [modality.step_log_probs(loaded.network, part)[0] for part in parts]
        logps = [modality.step_log_probs(loaded.network, part)[0] for part in parts]
        torch.cat(logps).sum().backward()
        return torch.cat([*references, *logps])

    ways = {
        "passes of their own": lambda: score(responses[0::2], responses[1::2]),
        "one pass": lambda: score([*responses[0::2], *responses[1::2]]),
    }
    if not torch.allclose(*(way() for way in ways.values()), atol=1e-4):
        raise ValueError("the log-probs differ")
    return {name: statistics.median(_time(way) for _ in range(steps)) for name, way in ways.items()}


def _encode(modality: Diffusion, model: Model, pairs: Path) -> list[EncodedResponse]:
    """Completes both responses of every pair, chosen and rejected in turn."""
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    for media in (media for row in rows for media in row["media"]):
        media["uri"] = str(pairs.parent / media["uri"])
    encoded = [one for row in rows for one in modality.encode(Record.model_validate(row))]
    return modality.augment(Networks(torch.device("cpu"), nullcontext, {}), encoded)[0]


def _time(way: Callable[[], Any]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def build_table(result: dict[str, Any]) -> str:
    """Builds the Markdown table: seconds of a step in both ways, and how much faster the second is."""
    lines = ["| what | without | with | speed |", "|---|---|---|---|"]
    for slow, fast, what in COMPARED:
        before, after = result["seconds"][slow], result["seconds"][fast]
        lines.append(f"| {what} | {before:.2f} s | {after:.2f} s | {before / after:.2f}x |")
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    about = f"Measured on {result['date']}: {machine}, load {result['load']:.1f}; {settings}."
    return "\n".join([*lines, "", about, ""])


def write_page(page: Path, table: str) -> None:
    """Replaces what is between the markers in the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and writes the numbers and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="measured steps")
    parser.add_argument("--pairs", type=int, default=8, help="pairs in a step")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the numbers go")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the table")
    options = parser.parse_args(arguments)
    sizes = {"steps": options.steps, "size": options.size}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_tiny_pipeline(folder / "model", "stable_diffusion", size=options.size, widths=WIDTHS)
        pairs = write_pairs(folder, options.pairs, options.size)
        seconds = compare_caches(folder, model, pairs, **sizes) | compare_passes(model, pairs, **sizes)
    stamp = {"machine": describe_machine(), "date": today(), "load": load}
    result = {**stamp, "settings": {**sizes, "pairs": options.pairs}, "seconds": seconds}
    options.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_page(options.page, build_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
