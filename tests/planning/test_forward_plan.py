"""What one pass has to give, as a value."""

from __future__ import annotations

import pytest

from mmalign import Divergence, ForwardPlan, Output
from mmalign.contract.forward_plan import POLICY_OUTPUTS


def test_names_and_members_are_one() -> None:
    plan = ForwardPlan.of("entropy", Output.LOGPS, teacher=["reverse_kl", Divergence.FORWARD_KL])
    assert "logps" in plan.outputs and Output.ENTROPY in plan.outputs
    assert plan == ForwardPlan.of("logps", "entropy", teacher=["forward_kl", "reverse_kl"])


def test_axes_are_in_the_order_of_definition_whatever_the_order_of_asking() -> None:
    plan = ForwardPlan.of("scores", "context", "logps", teacher=["reverse_kl", "forward_kl"])
    expected = {"logps": "NT", "scores": "N", "context": "NCD", "teacher_forward_kl": "NT", "teacher_reverse_kl": "NT"}
    assert list(plan.axes().items()) == list(expected.items())


def test_an_empty_plan_is_false() -> None:
    assert not ForwardPlan() and not ForwardPlan.of(teacher=[])
    assert ForwardPlan.of("logps") and ForwardPlan.of(teacher=["forward_kl"])


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ValueError, match="logprobs"):
        ForwardPlan.of("logprobs")
    with pytest.raises(ValueError, match="kl"):
        ForwardPlan.of(reference=["kl"])


def test_states_are_compared_not_trained_on() -> None:
    assert set(POLICY_OUTPUTS.values()) == set(Output) - {Output.STATES}
    assert POLICY_OUTPUTS["policy_hidden"] is Output.HIDDEN and POLICY_OUTPUTS["scores"] is Output.SCORES
