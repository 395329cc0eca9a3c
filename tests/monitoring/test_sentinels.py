"""The sentinels one by one: what each stops, what it lets pass, and the cause it names."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

from mmalign import DataError, ObjectiveSpec, Record, TrainingError
from mmalign.contract.batch import build_batch
from mmalign.contract.values import EncodedResponse
from mmalign.losses.objectives import Objective, bind_objective
from mmalign.monitoring.sentinels import (
    check_covered,
    check_finite,
    check_gradient,
    check_same_sampler,
    check_same_start,
    flat_groups,
)

MASK = torch.tensor([[True, True], [True, False]])
LOGPS = torch.tensor([[-1.0, -2.0], [-3.0, nan]])


def values_with(name: str, shift: float) -> dict[str, torch.Tensor]:
    return {"policy_logps": LOGPS, name: LOGPS + shift, "step_mask": MASK, "sampled": torch.ones(2, dtype=torch.bool)}


def test_a_policy_that_is_not_its_reference_at_the_start_is_stopped() -> None:
    with pytest.raises(TrainingError, match=r"differs from its reference by 0\.50 nats a step.*dropout"):
        check_same_start(values_with("reference_logps", 0.5), step=0)


@pytest.mark.parametrize(("shift", "step"), [(0.0, 0), (0.02, 0), (0.5, 1)])
def test_rounding_at_the_start_and_any_distance_later_pass(shift: float, step: int) -> None:
    check_same_start(values_with("reference_logps", shift), step=step)


def test_rollouts_scored_otherwise_than_sampled_are_stopped() -> None:
    with pytest.raises(TrainingError, match=r"differ by 1\.00 nats a step.*temperature"):
        check_same_sampler(values_with("behaviour_logps", -1.0))


def test_rollouts_scored_as_sampled_pass() -> None:
    check_same_sampler(values_with("behaviour_logps", 0.02))


def test_differences_of_both_signs_do_not_cancel() -> None:
    values = values_with("behaviour_logps", 0.0)
    values["behaviour_logps"] = LOGPS + torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    with pytest.raises(TrainingError, match="nats a step"):
        check_same_sampler(values)


def test_checks_without_their_quantities_pass() -> None:
    check_same_start({"policy_logps": LOGPS, "step_mask": MASK}, step=0)
    check_same_sampler({"scores": torch.zeros(2), "step_mask": MASK})


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_names_the_first_quantity_that_is_not(loss: float) -> None:
    values = {"step_mask": MASK, "reference_logps": torch.zeros(2, 2), "policy_logps": torch.full((2, 2), -inf)}
    with pytest.raises(TrainingError, match=r"'policy_logps' is not finite.*learning rate"):
        check_finite(torch.tensor(loss), values)


def test_a_loss_that_is_not_finite_with_finite_log_probs_points_at_the_feedback() -> None:
    # The padded step of LOGPS is NaN, which is no cause.
    with pytest.raises(TrainingError, match="all log-probs are finite; check the data's feedback"):
        check_finite(torch.tensor(nan), values_with("reference_logps", 0.0))


def test_a_finite_loss_passes() -> None:
    check_finite(torch.tensor(0.5), values_with("reference_logps", 0.0))


@pytest.mark.parametrize("norm", [nan, inf])
def test_a_gradient_that_is_not_finite_is_stopped(norm: float) -> None:
    with pytest.raises(TrainingError, match=f"the gradient norm is {norm}"):
        check_gradient(torch.tensor(norm), scaled=False)


def test_a_finite_gradient_and_an_overflow_under_loss_scaling_pass() -> None:
    check_gradient(torch.tensor(3.0), scaled=False)
    check_gradient(torch.tensor(inf), scaled=True)


def make_objective(per: str, over: str = "") -> Objective:
    spec = ObjectiveSpec(name="mine", summary="", loss="x:y", per=per, over=over)
    return bind_objective(spec, {}, lambda: (torch.zeros(1), {}), {}, 1.0)


@pytest.mark.parametrize(
    ("per", "over", "wanted"), [("pair", "", "preference pairs"), ("response", "labelled", "labelled responses")]
)
def test_a_first_batch_with_nothing_to_train_on_is_a_data_error(per: str, over: str, wanted: str) -> None:
    batch = build_batch([Record.from_text("x", ["y"], id="first")], [[EncodedResponse({}, 1, 1)]], targets_only=False)
    objective = make_objective(per, over)
    with pytest.raises(DataError, match=rf"data\.train: objective 'mine' trains on {wanted}.*'first'"):
        check_covered([objective], [objective.totals(batch)], batch)


def test_a_first_batch_with_responses_passes() -> None:
    batch = build_batch([Record.from_text("x", ["y"])], [[EncodedResponse({}, 1, 1)]], targets_only=False)
    objective = make_objective("step")
    check_covered([objective], [objective.totals(batch)], batch)


def test_groups_of_equal_rewards_are_counted() -> None:
    rewards = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5])
    assert flat_groups(rewards, torch.tensor([0, 1, 0, 1, 7])).tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_responses_without_a_score_do_not_hide_a_flat_group() -> None:
    rewards = torch.tensor([1.0, nan, 1.0, 2.0, nan, 3.0, nan, nan])
    prompts = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    assert flat_groups(rewards, prompts).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
