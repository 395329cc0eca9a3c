"""The planner: derived quantities, their order and stage, and what is said about those that nothing supplies."""

from __future__ import annotations

import pytest
import torch

from mmalign import ModalitySpec, PlanError
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan, find_teachers, plan_quantities, take_chosen, take_rejected
from mmalign.planning.providers import data_providers, modality_providers, rollout_providers

MODALITY = ModalitySpec(name="toy", summary="", target="toy:Toy", provides=("logps", "entropy"))


def plan(*needs: str, extra: tuple[Provider, ...] = (), online: bool = False) -> Plan:
    providers = [*data_providers(), *modality_providers(MODALITY), *extra]
    if online:
        providers += rollout_providers(["length"])
        providers.append(Provider("advantages", "N", "frozen", ("composite_rewards", "prompt_index")))
    return plan_quantities({"objective 'mine'": needs}, {provider.name: provider for provider in providers})


def provider_of(plan: Plan, name: str) -> Provider:
    return next(provider for provider in plan.providers if provider.name == name)


def quantity(name: str, needs: tuple[str, ...], stage: str, axes: str = "N") -> Provider:
    return Provider(name, axes, stage, needs, compute="x:y", origin="plugin mine")


def test_paired_log_probs_are_derived_from_the_forward_pass() -> None:
    made = plan("policy_chosen_sequence_logps")
    assert made.names() == (
        "policy_logps",
        "step_mask",
        "policy_sequence_logps",
        "pairs",
        "policy_chosen_sequence_logps",
    )
    assert made.forward == ForwardPlan.of("logps")
    assert not made.needs_reference


def test_quantities_come_after_what_they_are_computed_from() -> None:
    made = plan("reference_rejected_mean_logps", "policy_chosen_mean_logps", "entropy", "chosen_lengths")
    for place, provider in enumerate(made.providers):
        assert set(provider.needs) <= {earlier.name for earlier in made.providers[:place]}
    assert made.needs_reference
    assert made.forward == ForwardPlan.of("logps", "entropy")


def test_a_derived_quantity_is_as_late_as_what_it_is_computed_from() -> None:
    made = plan("policy_mean_logps", "reference_mean_logps", "chosen_lengths")
    assert provider_of(made, "policy_mean_logps").stage == "policy"
    assert provider_of(made, "reference_mean_logps").stage == "frozen"
    assert provider_of(made, "chosen_lengths").stage == "frozen"
    assert provider_of(made, "chosen_lengths").axes == "M"


def test_what_is_picked_for_pairs_keeps_the_axis_of_steps() -> None:
    made = plan("chosen_policy_logps", "rejected_reference_logps", "chosen_step_mask")
    axes = {name: (provider_of(made, name).axes, provider_of(made, name).stage) for name in made.names()[-3:]}
    assert provider_of(made, "chosen_policy_logps").axes == "MT"
    assert axes["rejected_reference_logps"] == ("MT", "frozen")
    assert axes["chosen_step_mask"] == ("MT", "frozen")
    assert made.forward == ForwardPlan.of("logps")
    assert made.needs_reference
    assert find_teachers(["chosen_policy_logps", "rejected_reference_logps", "chosen_dpo_logps"]) == ("dpo",)


def test_a_shared_quantity_is_planned_once() -> None:
    names = plan("policy_chosen_sequence_logps", "policy_rejected_sequence_logps", "policy_logps").names()
    assert len(names) == len(set(names))


def test_nothing_that_is_not_needed_is_planned() -> None:
    assert plan("lengths").names() == ("lengths",)
    assert not plan("lengths").forward
    assert "policy_logps" not in plan("lengths")


@pytest.mark.parametrize(
    ("need", "remedy"),
    [
        ("advantages", "add `advantage: {name: ...}`"),
        ("rewards", "add `rewards: [{name: ...}]`"),
        ("behaviour_logps", "add `collector: {name: group}`"),
        ("values", "a modality would have to provide 'values'"),
        ("lenghts", "did you mean 'lengths'?"),
    ],
)
def test_a_missing_quantity_names_who_needs_it_and_what_would_supply_it(need: str, remedy: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan(need)
    assert f"objective 'mine' needs the quantity {need!r}" in str(caught.value)
    assert remedy in str(caught.value)


def test_a_missing_quantity_far_down_still_names_the_objective() -> None:
    with pytest.raises(PlanError, match="objective 'mine' needs the quantity 'teacher_logps'") as caught:
        plan("teacher_chosen_mean_logps")
    assert "teacher_chosen_mean_logps" in str(caught.value)


def test_online_runs_supply_rewards_and_advantages() -> None:
    made = plan("advantages", "behaviour_logps", online=True)
    assert made.names("frozen") == ("composite_rewards", "advantages", "behaviour_logps")


def test_quantities_that_need_each_other_are_refused() -> None:
    circle = (quantity("one", ("two",), "policy"), quantity("two", ("one",), "policy"))
    with pytest.raises(PlanError, match="'one' needs itself: one -> two -> one"):
        plan("one", extra=circle)


@pytest.mark.parametrize(
    ("stage", "need"),
    [("frozen", "policy_logps"), ("data", "reference_logps"), ("step", "policy_logps"), ("data", "policy_logps")],
)
def test_a_quantity_cannot_be_computed_before_what_it_needs(stage: str, need: str) -> None:
    with pytest.raises(PlanError, match=f"'early'.*{need}"):
        plan("early", extra=(quantity("early", (need,), stage),))


def test_a_policy_quantity_may_need_anything() -> None:
    late = quantity("late", ("policy_logps", "reference_logps", "lengths"), "policy")
    assert provider_of(plan("late", extra=(late,)), "late").stage == "policy"


@pytest.mark.parametrize("name", ["chosen_pair_strength", "rejected_pairs", "chosen_reference_point"])
def test_only_a_quantity_of_responses_has_a_chosen_and_a_rejected_side(name: str) -> None:
    scalar = quantity("reference_point", (), "step", axes="")
    with pytest.raises(PlanError, match=name):
        plan(name, extra=(scalar,))


def test_take_picks_the_sides_of_every_pair() -> None:
    values, pairs = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([[2, 0], [1, 2]])
    assert take_chosen(values, pairs).tolist() == [30.0, 20.0]
    assert take_rejected(values, pairs).tolist() == [10.0, 30.0]
