"""Which quantity a parameter gets: its name says so, `names` maps it, and what else the engine gives."""

from __future__ import annotations

from typing import Any

import pytest

from mmalign import AdvantageSpec, ObjectiveSpec, PluginError, QuantitySpec
from mmalign.contract.binding import needs_of, read_binding


def margin_loss(policy_chosen_mean_logps: Any, other: Any, *, beta: float) -> Any: ...


def combine(batch: Any, ratings: Any) -> Any: ...


def couple(context: Any, current_sequence_logps: Any) -> Any: ...


def objective(**fields: Any) -> ObjectiveSpec:
    return ObjectiveSpec(name="mine", summary="", loss=f"{__name__}:margin_loss", per="pair", **fields)


def test_parameters_before_the_star_are_needs() -> None:
    assert needs_of(objective()) == ("policy_chosen_mean_logps", "other")
    mapped = read_binding(objective(names={"other": "policy_rejected_mean_logps"}))
    assert mapped.inputs == {
        "policy_chosen_mean_logps": "policy_chosen_mean_logps",
        "other": "policy_rejected_mean_logps",
    }


def test_the_engine_fills_batch_and_context_and_a_spec_may_need_more() -> None:
    data = QuantitySpec(name="q", summary="", axes="N", stage="data", compute=f"{__name__}:combine", needs=("ranks",))
    assert (read_binding(data).given, needs_of(data)) == (("batch",), ("ratings", "ranks"))
    step = QuantitySpec(name="q", summary="", axes="N", stage="step", compute=f"{__name__}:couple")
    assert (read_binding(step).given, needs_of(step)) == (("context",), ("current_sequence_logps",))


def test_a_context_at_another_stage_is_a_quantity_like_any_other() -> None:
    frozen = QuantitySpec(name="q", summary="", axes="N", stage="frozen", compute=f"{__name__}:couple")
    assert needs_of(frozen) == ("context", "current_sequence_logps")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"thrid": "ratings"}, "has no such parameter"),
        ({"policy_chosen_mean_logps": "policy_rejected_mean_logps"}, "one is about chosen, the other about rejected"),
        ({"policy_chosen_mean_logps": "reference_chosen_mean_logps"}, "one is about policy, the other about reference"),
        ({"other": "policy_chosen_mean_logps", "policy_chosen_mean_logps": "ratings"}, "the name of another parameter"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(names: dict[str, str], reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        read_binding(objective(names=names))


def test_one_quantity_may_go_to_two_parameters() -> None:
    binding = read_binding(objective(names={"other": "policy_chosen_mean_logps"}))
    assert binding.needs == ("policy_chosen_mean_logps",)


def test_needs_of_api_1_are_answered_with_what_to_write() -> None:
    spec = AdvantageSpec(name="mine", summary="", function=f"{__name__}:combine", needs=("rewards", "ratings"))
    with pytest.raises(PluginError, match=r"advantage 'mine' \(plugin p\): .*names=\{'batch': 'rewards'\}"):
        read_binding(spec, "p")
