"""Every registered objective on every modality: it trains, it lowers its own loss, or the engine refuses it by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import objective_runs
import pytest
import torch
from feedback_records import write_feedback
from image_records import write_image_feedback
from objective_runs import (
    BEYOND_LOGPS,
    OF_TEXT,
    PARAMETERS,
    PENALTIES,
    QUANTITIES,
    SPECS,
    SURROGATE,
    build_config,
    is_online,
    move_away,
    refusal,
)
from torch import Tensor

from mmalign.errors import DataError, PlanError
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run
from mmalign.training.assembling import load_assembly
from mmalign.training.loop import optimiser_step
from mmalign.training.loop import train as run_loop
from mmalign.training.rounds import begin_round

MODALITIES = ("text", "toy", "toy_bound", "diffusion")
FAST = {"dpo", "ipo", "kto", "simpo", "sft"}
"""Objectives that the fast half of the tests trains on images."""

ALLOWED = [(name, modality) for name in SPECS for modality in MODALITIES if not refusal(name, modality)]
TRAINED = [
    pytest.param(name, modality, marks=[pytest.mark.slow] if modality == "diffusion" and name not in FAST else [])
    for name, modality in ALLOWED
    if modality != "diffusion" or name not in OF_TEXT
]
REFUSED = [(name, modality) for name in SPECS for modality in MODALITIES if refusal(name, modality)]

WEIGHTED = {
    "a_lol": ("rating_advantages", "it holds detached importance weights, which grow with the likelihood"),
    "a_lol_seq": ("rating_advantages", "it holds detached importance weights, which grow with the likelihood"),
    "r_lol": ("ratings", "it holds detached importance weights, which grow with the likelihood"),
    "gspo": ("advantages", "it is clipped, so that nothing holds it back where a whole response has gone too far"),
}
"""Objectives whose loss has no meaningful value: what they weight log-probs by, and why."""

MEANINGLESS = {"sampled_kl", *WEIGHTED}
"""Objectives whose loss has no meaningful value; another property of each is tested below."""

# A bound on log-probs learns as the exact ones of the same modality do.
LEARNING = [(name, modality) for name, modality in ALLOWED if modality not in SURROGATE and name not in MEANINGLESS]


def _family(name: str, modality: str) -> tuple[str, ...]:
    """What objectives have in common that a bug would hit together: on toys the module, on models what is computed."""
    spec = SPECS[name]
    if modality != "text":
        return modality, spec.loss.partition(":")[0]
    beyond = BEYOND_LOGPS.get(name, "")
    return modality, spec.per, spec.over, str(is_online(name)), beyond, str(name in PENALTIES)


FIRST = {_family(name, modality): (name, modality) for name, modality in reversed(LEARNING)}
"""One objective of each family, which stands for the others unless all are asked for."""

Build = Callable[..., Run]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feedback(tmp_path_factory.mktemp("matrix") / "records.jsonl", 8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_feedback(tmp_path_factory.mktemp("images"), 8)


@pytest.fixture
def build(data: Path, images: Path, tiny_text_model: Path, tiny_class_unet: Path, tmp_path: Path) -> Build:
    def make(name: str, modality: str, **options: Any) -> Run:
        places = (images, tiny_class_unet) if modality == "diffusion" else (data, tiny_text_model)
        return objective_runs.start(build_config(name, modality, *places, tmp_path, **options))

    return make


def weights_of(run: Run) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in run.trainable().values()])


@pytest.mark.parametrize(("name", "modality"), TRAINED)
def test_three_steps_move_the_policy_and_all_numbers_are_finite(build: Build, name: str, modality: str) -> None:
    run = build(name, modality)
    before = weights_of(run)
    run_loop(run)
    rows = read_metrics(run.output)
    assert len(rows) == 3
    assert all(math.isfinite(value) for row in rows for key, value in row.items() if key != "kind")
    assert all(row["grad_norm"] > 0 for row in rows)
    assert torch.isfinite(weights_of(run)).all()
    assert not torch.equal(weights_of(run), before)
    if name in PENALTIES:
        assert any(row[f"{name}/kl"] != 0 for row in rows), "the penalty has not seen the policy move"


@pytest.mark.parametrize(("name", "modality"), REFUSED)
def test_what_cannot_work_is_refused_by_name(
    name: str, modality: str, data: Path, tiny_text_model: Path, tiny_class_unet: Path, tmp_path: Path
) -> None:
    model = tiny_class_unet if modality == "diffusion" else tiny_text_model
    config = build_config(name, modality, data, model, tmp_path)
    with pytest.raises(PlanError, match=f"objective '{name}' .*{refusal(name, modality)}"):
        load_assembly(config)


@pytest.mark.parametrize("name", OF_TEXT)
def test_objectives_of_words_say_what_they_miss_in_images(build: Build, name: str) -> None:
    with pytest.raises(DataError, match=OF_TEXT[name]):
        run_loop(build(name, "diffusion"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modality"),
    [pytest.param(*case, marks=[] if case in FIRST.values() else [pytest.mark.exhaustive]) for case in LEARNING],
)
def test_an_objective_lowers_its_own_loss_on_a_batch_that_it_sees_again_and_again(
    build: Build, name: str, modality: str
) -> None:
    """Penalties alone, from a policy that has moved away from where they hold it."""
    run = build(name, modality, alone=True)
    batch, _ = begin_round(run)
    if name in PENALTIES:
        move_away(run, 0.1 if modality == "text" else 0.3)
    losses = []
    for _ in range(30):
        losses.append(optimiser_step(run, batch)["loss"])
        run.step += 1
    assert losses[-1] < losses[0] - 1e-3 * abs(losses[0])
    assert sum(losses[-5:]) / 5 < losses[0]


@pytest.mark.parametrize("modality", ["text", "toy"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_log_probs_move_as_they_are_weighted(build: Build, name: str, modality: str) -> None:
    run = build(name, modality)
    batch, _ = begin_round(run)
    before = run.backend.policy_logps(batch.responses)
    for _ in range(3):
        optimiser_step(run, batch)
        run.step += 1
    gains = torch.where(batch.quantities["step_mask"], run.backend.policy_logps(batch.responses) - before, 0).sum(dim=1)
    weights = batch.quantities[WEIGHTED[name][0]].nan_to_num()
    assert float((weights if name == "gspo" else weights.clamp(min=0)) @ gains) > 0


def test_sampled_kl_brings_the_policy_back_to_the_reference(build: Build) -> None:
    """Fresh samples at every step; the KL is summed exactly over the digits, for each of the toy's contexts."""
    run = build("sampled_kl", "toy", alone=True, steps=30)
    move_away(run, 1.0)
    reference = run.backend.reference.policy.network.table.log_softmax(dim=-1)

    def exact_kl() -> float:
        policy = run.policy.network.table.detach().log_softmax(dim=-1)
        return float((policy.exp() * (policy - reference)).sum())

    before = exact_kl()
    run_loop(run)
    assert exact_kl() < before / 2


def test_the_tables_name_registered_objectives_only() -> None:
    assert {
        name for table in (PARAMETERS, QUANTITIES, PENALTIES, BEYOND_LOGPS, MEANINGLESS, OF_TEXT) for name in table
    } <= set(SPECS)
