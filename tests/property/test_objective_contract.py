"""What every registered objective says of itself, and keeps: a new one is tested by existing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from objective_inputs import (
    CONSTANTS,
    SPECS,
    STEP_SPECS,
    M,
    N,
    P,
    T,
    config_of,
    evaluate,
    every_objective,
    find_mixed_metrics,
    inputs_of,
)
from pydantic import ValidationError

from mmalign.contract.binding import ENGINE_PARAMETERS
from mmalign.import_strings import load_object


@every_objective
def test_config_fields_are_the_keywords_of_the_loss(name: str) -> None:
    """Beside those that the engine acts on, which only objectives on steps have."""
    signature = inspect.signature(load_object(SPECS[name].loss)).parameters.values()
    keywords = {one.name for one in signature if one.kind is one.KEYWORD_ONLY}
    engine = set(ENGINE_PARAMETERS) if SPECS[name].per == "step" else set()
    assert set(type(config_of(name)).model_fields) == keywords | engine


@every_objective
def test_a_loss_hides_no_hyper_parameter_behind_a_default(name: str) -> None:
    signature = inspect.signature(load_object(SPECS[name].loss)).parameters.values()
    assert [one.name for one in signature if one.default is not one.empty] == []


@every_objective
def test_config_round_trips_refuses_unknown_keys_and_explains_every_field(name: str) -> None:
    config = config_of(name)
    assert type(config).model_validate(config.model_dump(mode="json")) == config
    assert [key for key, field in type(config).model_fields.items() if not field.description] == []
    with pytest.raises(ValidationError, match="bogus"):
        type(config).model_validate({**config.model_dump(), "bogus": 1})


@every_objective
def test_spec_says_what_a_reader_wants_to_know(name: str) -> None:
    spec = SPECS[name]
    assert spec.summary.endswith(".")
    assert spec.equation
    assert spec.log_prob_kinds


@pytest.mark.parametrize("name", STEP_SPECS)
def test_aggregation_of_the_spec_is_the_default_of_its_config(name: str) -> None:
    assert config_of(name).model_dump()["aggregation"] == SPECS[name].aggregation


@every_objective
def test_losses_and_metrics_have_one_value_an_element_and_metrics_no_gradient(name: str) -> None:
    inputs = inputs_of(name, seed=0)
    result = evaluate(name, inputs)
    expected = {"pair": (M,), "prompt": (P,), "response": (N,), "step": (N, T)}[SPECS[name].per]
    assert result.losses.shape == expected
    assert {key: value.shape for key, value in result.metrics.items() if value.shape != expected} == {}
    assert [key for key, value in result.metrics.items() if value.requires_grad] == []
    assert result.losses.dtype == torch.float64


@every_objective
def test_losses_change_no_input(name: str) -> None:
    inputs = inputs_of(name, seed=0)
    before = {key: value.clone() for key, value in inputs.items()}
    evaluate(name, inputs)
    assert all(torch.equal(before[key], inputs[key]) for key in inputs)


@every_objective
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 300.0])
def test_float32_losses_and_gradients_are_finite_at_any_scale(name: str, scale: float) -> None:
    inputs = {
        key: (value * scale).float() if "logps" in key else value.float() if value.is_floating_point() else value
        for key, value in inputs_of(name, seed=1).items()
    }
    # The exponential of k3 may overflow where two models are hundreds of nats apart on one step: the run stops then.
    if name.endswith("kl_penalty") and scale > 1:
        anchor = next(key for key in inputs if key in ("reference_logps", "behaviour_logps"))
        inputs[anchor] = inputs["policy_logps"] + 1
    result = evaluate(name, inputs)
    assert torch.isfinite(result.losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in result.gradients.values())


@every_objective
def test_every_trained_quantity_gets_a_gradient(name: str) -> None:
    gradients = [evaluate(name, inputs_of(name, seed)).gradients for seed in range(3)]
    for need in gradients[0].keys() - CONSTANTS.get(name, set()):
        assert any((one[need] != 0).any() for one in gradients), need


@every_objective
def test_metrics_of_one_side_do_not_see_the_other(name: str) -> None:
    """So chosen and rejected, policy and reference are not exchanged where only the margin tells."""
    assert find_mixed_metrics(name) == []


def test_plugins_are_listed_without_torch() -> None:
    code = (
        "import sys, mmalign_objectives as o, mmalign_advantages as a;"
        "o.register_objectives(); o.register_quantities(); o.register_conformance();"
        "a.register_advantages(); a.register_conformance(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
