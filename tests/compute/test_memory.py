"""Out-of-memory recovery: same loss and gradient as without it, said once, an end where nothing is left to halve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.compute.memory import MicroBatchSize
from mmalign.config.run_config import RunConfig
from mmalign.errors import TrainingError
from mmalign.hardware import is_out_of_memory
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run
from mmalign.training.assembling import load_assembly
from mmalign.training.loop import accumulate_gradients, train
from mmalign.training.rounds import begin_round
from mmalign.training.startup import build_run


@contextmanager
def memory_for(network: torch.nn.Module, responses: int, spared: int = 0) -> Iterator[None]:
    """Lets forward passes of more responses fail as a device does, all but the first `spared` ones."""
    passes = 0

    def allocate(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal passes
        passes += 1
        if len(inputs[0]) > responses and passes > spared:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = network.register_forward_pre_hook(allocate)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture
def build(toy_config: Callable[..., dict[str, Any]]) -> Callable[..., Run]:
    """Builds a dpo run of 8 responses a step in micro-batches of `size`."""

    def make(size: int, dropout: float = 0.0, **sections: Any) -> Run:
        settings = {"steps": 4, "batch_size": 4, "micro_batch_size": size, "learning_rate": 0.05}
        config = toy_config(modality={"name": "toy", "dropout": dropout}, train=settings, **sections)
        return build_run(load_assembly(RunConfig.model_validate(config)), Path(config["output"]))

    return make


def gradient_step(run: Run, responses: int = 1000, spared: int = 0) -> tuple[dict[str, float], torch.Tensor]:
    """Returns the metrics and the gradient of the first step, with memory for so many responses."""
    batch, _ = begin_round(run)
    with memory_for(run.policy.network, responses, spared):
        sums = accumulate_gradients(run, batch)
    return sums.compute(run.backend.sum_over_processes), run.policy.network.table.grad


@pytest.mark.parametrize("spared", [0, 1], ids=["first pass fails", "second pass fails"])
def test_loss_and_gradient_are_those_of_the_whole_micro_batch(build: Callable[..., Run], spared: int) -> None:
    metrics, gradient = gradient_step(build(4))
    redone_metrics, redone = gradient_step(build(4), responses=2, spared=spared)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(redone, gradient, rtol=1e-5, atol=1e-7)
    assert redone_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("spared", [0, 1], ids=["first pass fails", "second pass fails"])
def test_dropout_starts_again_with_the_step(build: Callable[..., Run], spared: int) -> None:
    """A redone step draws what a step that began with the smaller size draws: equal to the last bit."""
    metrics, gradient = gradient_step(build(2, dropout=0.5))
    redone_metrics, redone = gradient_step(build(4, dropout=0.5), responses=2, spared=spared)
    assert torch.equal(redone, gradient)
    assert redone_metrics == metrics
    assert not torch.equal(gradient_step(build(2))[1], gradient)


def test_a_whole_run_goes_on_with_the_smaller_size_and_says_so_once(
    build: Callable[..., Run], caplog: pytest.LogCaptureFixture, tables: Callable[[Any], list[float]]
) -> None:
    plain = build(8)
    train(plain)
    weights, losses = tables(plain), [row["loss"] for row in read_metrics(plain.output)]
    limited = build(8)
    with caplog.at_level(logging.WARNING, "mmalign.compute.memory"), memory_for(limited.policy.network, 2):
        train(limited)
    assert limited.step == 4
    assert limited.backend.micro_batch_size.value == 2
    said = [record.message for record in caplog.records if record.name == "mmalign.compute.memory"]
    assert [message.partition(";")[0] for message in said] == [
        "out of memory with micro-batches of 8 responses",
        "out of memory with micro-batches of 4 responses",
    ]
    assert "train.micro_batch_size: 2" in said[-1]
    assert tables(limited) == pytest.approx(weights, rel=1e-4)
    assert [row["loss"] for row in read_metrics(limited.output)] == pytest.approx(losses, rel=1e-4)


def test_scores_without_gradient_halve_too(build: Callable[..., Run]) -> None:
    run = build(8)
    batch, _ = begin_round(run)
    expected = run.backend.reference_logps(batch)
    assert run.backend.reference is not None
    with run.backend.reference.active() as policy, memory_for(policy.network, 3):
        assert torch.equal(run.backend.reference_logps(batch), expected)
    assert run.backend.micro_batch_size.value == 2


def test_a_single_response_that_does_not_fit_is_an_error_with_advice(build: Callable[..., Run]) -> None:
    run = build(8)
    with pytest.raises(
        TrainingError, match=r"single response per forward pass; .* train\.gradient_checkpointing: true"
    ):
        gradient_step(run, responses=0)


def test_a_process_follows_one_that_ran_out_of_memory(caplog: pytest.LogCaptureFixture) -> None:
    size = MicroBatchSize(16)
    size.lower(16)
    assert not caplog.messages
    size.lower(4)
    assert size.value == 4 and "micro-batches of 4" in caplog.text
    size.lower(8)
    assert size.value == 4


def test_halving_starts_at_what_there_is() -> None:
    """A size above the number of responses is no size that was tried."""
    tried: list[int] = []

    def compute(size: int) -> int:
        tried.append(size)
        if size > 3:
            raise MemoryError
        return size

    assert MicroBatchSize(64).run_with_retry(10, compute) == 2
    assert tried == [64, 5, 2]


def test_other_errors_are_not_retried() -> None:
    calls: list[int] = []

    def fail(size: int) -> None:
        calls.append(size)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        MicroBatchSize(8).run_with_retry(8, fail)
    assert calls == [8]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("HIP out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_allocators_are_understood(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_this_machine_is_understood() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)
