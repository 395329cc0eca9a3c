"""Which golden-vector cases the diffusion mathematics can compute, by method; imports no torch."""

from __future__ import annotations

from mmalign import ConformanceSpec

_MODULE = "mmalign_diffusion.conformance"
_INVERSION = "mmalign_diffusion.conformance_inversion"


def list_conformance() -> list[ConformanceSpec]:
    """Lists the specs of all methods."""
    noised, flow = ("x0_w", "noise", "timesteps"), ("flow_x", "flow_v", "flow_z")
    gaussian, point = ("m", "s"), ("m", "noise", "grid")
    plan = ("N", "steps_offset", "rule")
    return [
        ConformanceSpec("diffusion-parametrisation", f"{_MODULE}:compute_conversions", (*noised, "eps_pol_w")),
        ConformanceSpec("diffusion-parametrisation", f"{_MODULE}:compute_noised", noised),
        ConformanceSpec(
            "ddim",
            f"{_MODULE}:compute_ddim",
            ("ddim_x", "ddim_eps", "ddim_z"),
            ("eta", "num_inference_steps", "prediction_type"),
            given=("t",),
        ),
        ConformanceSpec(
            "flow-grpo",
            f"{_MODULE}:compute_flow_grpo",
            flow,
            ("sigmas", "noise_level"),
            given=("sigma",),
        ),
        ConformanceSpec("dance-grpo", f"{_MODULE}:compute_dance_grpo", flow, ("sigmas", "eta"), given=("sigma",)),
        ConformanceSpec("ddim-inversion", f"{_INVERSION}:compute_gaussian", hparams=gaussian),
        ConformanceSpec("ddim-inversion", f"{_INVERSION}:compute_point_mass", hparams=point),
        ConformanceSpec("inpo", f"{_INVERSION}:compute_level_plan", hparams=plan, given=("t",)),
    ]
