"""However a global batch is cut into micro-batches, every registered objective has the same loss and gradient.

On the toy modality, whose forward pass costs nothing; on the tiny language model for what that cannot give. Batches of
records are random parts of those with all feedback; samples are those of one round, of random prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import objective_runs
import pytest
import torch
from feedback_records import build_records, write_feedback
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from objective_runs import BEYOND_LOGPS, SPECS, build_config, is_bound, is_online, move_away
from torch import Tensor

from mmalign.compute.memory import MicroBatchSize
from mmalign.contract.batch import Batch
from mmalign.run import Run
from mmalign.training.loop import accumulate_gradients
from mmalign.training.rounds import begin_round

PROMPTS = 5
COUPLED = {"kto", "bco", "aot", "aot_unpaired", "diffusion_kto"}
"""Objectives that need numbers of the whole global batch; whatever a part knows of the others, they must not differ."""


@dataclass(frozen=True)
class Subject:
    """A run whose policy has moved away from its reference, and the samples of a round if it trains on some."""

    run: Run
    samples: Batch | None

    def choose(self, prompts: list[int]) -> Batch:
        """Builds the batch of some prompts."""
        if self.samples is None:
            records = [build_records(PROMPTS)[prompt] for prompt in prompts]
            return self.run.backend.prepare(self.run.backend.encode(records))
        index = self.samples.quantities["prompt_index"]
        return self.samples.select([row for row in range(len(index)) if int(index[row]) in prompts])

    def measure(self, batch: Batch, micro: int) -> tuple[float, Tensor]:
        """Computes the loss and the gradient, flattened."""
        run = self.run
        run.backend = replace(run.backend, micro_batch_size=MicroBatchSize(micro))
        run.backend.running_sums.clear()
        run.optimiser.zero_grad(set_to_none=True)
        loss = accumulate_gradients(run, batch).compute(run.backend.sum_over_processes)["loss"]
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in run.trainable().values()]
        return loss, torch.cat([gradient.flatten() for gradient in gradients])


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, tiny_text_model) -> Callable[[str], Subject]:
    folder = tmp_path_factory.mktemp("invariance")
    data = write_feedback(folder / "records.jsonl", PROMPTS)
    built: dict[str, Subject] = {}

    def build(name: str) -> Subject:
        if name not in built:
            modality = "text" if name in BEYOND_LOGPS else "toy_bound" if is_bound(name) else "toy"
            options = {"dtype": "float32", "batch_size": PROMPTS}
            config = build_config(name, modality, data, tiny_text_model, folder / name, alone=True, **options)
            run = objective_runs.start(config)
            samples = begin_round(run)[0] if is_online(name) else None
            move_away(run, 0.1 if modality == "text" else 0.3)
            built[name] = Subject(run, samples)
        return built[name]

    return build


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompts=st.sets(st.integers(0, PROMPTS - 1), min_size=1), micro=st.integers(1, 9))
def test_micro_batch_size_changes_nothing(subject, name: str, prompts: set[int], micro: int) -> None:
    chosen = subject(name)
    batch = chosen.choose(sorted(prompts))
    (loss, gradient), (cut_loss, cut_gradient) = chosen.measure(batch, 1000), chosen.measure(batch, micro)
    assert cut_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert float((gradient - cut_gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-7


@pytest.mark.parametrize("name", SPECS)
def test_every_prompt_in_a_micro_batch_of_its_own(subject, name: str) -> None:
    """The finest cut; and the gradient that is compared is one."""
    chosen = subject(name)
    batch = chosen.choose(list(range(PROMPTS)))
    (loss, gradient), (cut_loss, cut_gradient) = chosen.measure(batch, 1000), chosen.measure(batch, 1)
    assert len(batch.micro_batches(1)) >= PROMPTS
    assert float(gradient.norm()) > 0
    assert cut_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert float((gradient - cut_gradient).norm()) <= 1e-5 * float(gradient.norm())


def test_the_batch_coupled_objectives_are_known(subject) -> None:
    plans = {name: subject(name).run.assembly.plan for name in SPECS}
    assert {name for name, plan in plans.items() if plan.computed("step")} == COUPLED
