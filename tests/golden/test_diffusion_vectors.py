"""Golden vectors of diffusion mathematics: official ones, and some by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_golden_vectors import PACKAGED, TOLERANCE, describe

from mmalign.plugins.conformance import run_conformance
from mmalign.plugins.registry import Registry, load_registry
from mmalign_diffusion.conformance import stable_diffusion_schedule

METHODS = {"diffusion-parametrisation", "ddim", "ddim-inversion", "flow-grpo", "dance-grpo"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def run(registry: Registry, tmp_path: Path, case: dict[str, Any]) -> list[str]:
    """What is wrong with a case of one's own."""
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"meta": {}, "shared": {}, "cases": [{"id": "any", "tol": 1e-12, **case}]}))
    return describe(run_conformance(path, registry))


def test_vectors_of_official_code(registry: Registry) -> None:
    results = run_conformance(PACKAGED["diffusion.json"], registry, tolerance=TOLERANCE)
    own = [case for case in results if case.method in METHODS or case.id == "inpo.level_plan"]
    assert {case.method for case in own} == METHODS | {"inpo"}
    assert describe(own) == []


def test_a_ddim_step_by_hand(registry: Registry, tmp_path: Path) -> None:
    """Two steps of 500: from t = 0, with alpha_bar 0.99915 before and 1 after, x0 = (x - sqrt(0.00085) eps) / a."""
    case = {
        "method": "ddim",
        "inputs": {"ddim_x": [[0.99915**0.5]], "ddim_eps": [[0.0]], "ddim_z": [[3.0]]},
        "hparams": {"eta": 0.0, "num_inference_steps": 2, "prediction_type": "epsilon"},
    }
    rows = [{"t": 0, "prev_t": -500, "alpha_bar_prev": 1.0, "std": 0.0, "mean": [[1.0]]}]
    # Without noise there is no density, and no log-prob to tell.
    assert run(registry, tmp_path, {**case, "expected": rows}) == []


def test_steps_of_a_flow_by_hand(registry: Registry, tmp_path: Path) -> None:
    """x 1, u 2, 0.5 to 0.25: with g 1 mean 0 and deviation 0.5; Flow-GRPO's g is 1 there if its noise level is."""
    inputs = {"flow_x": [[1.0]], "flow_v": [[2.0]], "flow_z": [[1.0]], "flow_v_ref": [[3.0]]}
    row = {"sigma": 0.5, "sigma_prev": 0.25, "step_std": 0.5, "mean": [[0.0]], "prev_sample": [[0.5]]}
    sigmas = [1.0, 0.5, 0.25]
    dance = {
        "method": "dance-grpo",
        "hparams": {"sigmas": sigmas, "eta": 1.0},
        "expected": [{**row, "x0_hat": [[0.0]]}],
    }
    # The reference's mean is 1.5 x (-0.25) further: KL = 0.375^2 / (2 x 0.25).
    grpo = {
        "method": "flow-grpo",
        "hparams": {"sigmas": sigmas, "noise_level": 1.0},
        "expected": [{**row, "std_dev_t": 1.0, "kl_exact_sum": [0.28125], "kl_as_released_mean": [0.0703125]}],
    }
    for case in (dance, grpo):
        assert run(registry, tmp_path, {**case, "inputs": inputs}) == []


def test_a_point_mass_on_another_grid(registry: Registry, tmp_path: Path) -> None:
    """At t = 0 x = sqrt(0.99915) m + sqrt(0.00085) noise."""
    expected = 0.99915**0.5 * 2 - 0.00085**0.5
    hparams = {"data": "delta at m", "m": 2.0, "noise": -1.0, "grid": [500, 0]}
    assert run(registry, tmp_path, {"method": "ddim-inversion", "hparams": hparams, "expected": [expected]}) == []


def test_normal_data_of_other_moments(registry: Registry, tmp_path: Path) -> None:
    """N(0, 1) has variance 1 at every level, so the flow stands still; a step's inverse divides by a a' + b b'."""
    a, b = stable_diffusion_schedule().coefficients(torch.tensor([0, 500]))
    inverse = -2 / float(a[0] * a[1] + b[0] * b[1])
    expected = {"exact_ode": [-2.0, -2.0], "implicit_exact": [-2.0, inverse], "denoise_back_from_implicit": -2.0}
    hparams = {"m": 0.0, "s": 1.0, "grid": [0, 500], "x_start": -2.0}
    assert run(registry, tmp_path, {"method": "ddim-inversion", "hparams": hparams, "expected": expected}) == []


def test_a_level_plan_of_another_grid(registry: Registry, tmp_path: Path) -> None:
    """Two levels, 500 apart, from 0: labels -500 and 0, or 0 and 500."""
    hparams = {"N": 2, "steps_offset": 0, "spacing": "leading", "rule": "keep grid timesteps < t"}
    early = {"t": 0, "steps_v020": [[-500, 0]], "unet_timestep_v020": [-500], "final_level_v042": None}
    late = {"t": 600, "steps_v042": [[-500, 0], [0, 500]], "unet_timestep_v042": [0, 500], "final_level_v020": 500}
    assert run(registry, tmp_path, {"method": "inpo", "hparams": hparams, "expected": [early, late]}) == []


def test_cases_of_something_else_are_left_to_others(registry: Registry, tmp_path: Path) -> None:
    clipped = {"eta": 1.0, "num_inference_steps": 2, "prediction_type": "epsilon", "clip_sample": True}
    inputs = {"ddim_x": [[1.0]], "ddim_eps": [[0.0]], "ddim_z": [[0.0]]}
    case = {"method": "ddim", "inputs": inputs, "hparams": clipped, "expected": [{"t": 0}]}
    assert "no installed plugin computes" in run(registry, tmp_path, case)[0]
    plan = {"N": 2, "steps_offset": 0, "spacing": "trailing", "rule": "keep grid timesteps < t"}
    assert (
        "no installed plugin computes"
        in run(registry, tmp_path, {"method": "inpo", "hparams": plan, "expected": [{"t": 0}]})[0]
    )
