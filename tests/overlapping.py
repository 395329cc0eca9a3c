"""Collects and scores rollouts in parts, and watches the order of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scoring_server import Answer

from mmalign import Generated, Record
from mmalign.compute.overlap import collect_in_parts
from mmalign.run import Run

Build = Callable[..., dict[str, Any]]
PROMPTS = [Record.from_text("x" * (1 + index % 3), [], id=str(index)) for index in range(6)]
PATIENCE = 20.0


def score_ones(payload: dict[str, Any], earlier: int) -> Answer:
    """Refuses one response in four or so; the others are worth their ones."""
    (response,) = payload["responses"]
    return Answer(status=400) if response.startswith("3") else Answer({"scores": [response.count("1")]})


def collect(run: Run, parts: int, seed: int = 3) -> tuple[list[Any], torch.Tensor]:
    """Collects and scores the rollouts of the prompts in so many parts."""
    collector, scoring = run.assembly.collector, run.backend.scorer.begin()
    assert collector is not None
    torch.manual_seed(seed)
    rollouts = collect_in_parts(run.backend, collector, PROMPTS, parts, scoring)
    return rollouts, scoring.finish()


def wait_for_the_end_of_threads() -> bool:
    """Returns whether no scoring thread is left before long."""
    deadline = time.monotonic() + PATIENCE
    while any(thread.name == "mmalign-rewards" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def watch_sampling(run: Run, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> list[int]:
    """Calls `before` with the number of each call of `generate`; returns the sizes of the calls."""
    sizes: list[int] = []
    generate = run.assembly.modality.generate

    def watched(network: Any, records: Sequence[Record], decoding: Any, count: int) -> list[list[Generated]]:
        before(len(sizes))
        sizes.append(len(records))
        return generate(network, records, decoding, count)

    monkeypatch.setattr(run.assembly.modality, "generate", watched)
    return sizes


# -- the order of events
