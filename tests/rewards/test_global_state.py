"""What a reward switches for the whole process is switched back, whatever it is and however the reward ends."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign import Record, Reward, Sample
from mmalign.config.components import RewardComponent
from mmalign.rewards.global_state import preserved_state
from mmalign.rewards.scorer import BoundReward, RewardScorer

SWITCHES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "default type": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "default device": (lambda: torch.set_default_device("meta"), lambda: torch.empty(1).device.type),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "matrix precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), lambda: torch.backends.cudnn.benchmark),
    "seed of torch": (lambda: torch.manual_seed(5), lambda: torch.random.get_rng_state().tolist()),
    "draws of torch": (lambda: torch.rand(3), lambda: torch.random.get_rng_state().tolist()),
    "seed of numpy": (lambda: np.random.seed(5), lambda: np.random.get_state()[1].tolist()),
    "seed of Python": (lambda: random.seed(5), random.getstate),
    "working folder": (lambda: os.chdir("/"), os.getcwd),
    "errors of numpy": (lambda: np.seterr(all="raise"), np.geterr),
    "Ctrl-C": (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGINT)),
    "logging": (lambda: logging.disable(logging.CRITICAL), lambda: logging.root.manager.disable),
}


class Switching(Reward):
    """Switches something and scores, or fails."""

    def __init__(self, switch: Callable[[], Any], fails: bool) -> None:
        self.switch = switch
        self.fails = fails

    def score(self, samples: Sequence[Sample]) -> list[float]:
        self.switch()
        if self.fails and len(samples) > 1:
            raise ValueError("bad batch")
        return [1.0] * len(samples)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("what", SWITCHES)
def test_it_is_switched_back(
    what: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    switch, look = SWITCHES[what]
    before = look()
    record = Record.from_text("Say it.", ["a", "b"])
    samples = [Sample(record, response, response.text) for response in record.responses]
    scorer = RewardScorer([BoundReward(RewardComponent(name="r"), Switching(switch, fails))])
    assert scorer.score(samples).flatten().tolist() == [1, 1]
    assert look() == before
    with preserved_state():
        switch()
        assert what.startswith("draws") or look() != before  # that it was switched at all


def test_generators_are_left_alone_where_another_thread_draws() -> None:
    with preserved_state(generators=False):
        torch.manual_seed(5)
    assert torch.initial_seed() == 5
