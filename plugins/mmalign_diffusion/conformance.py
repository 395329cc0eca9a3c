"""Golden-vector cases of conversions and stochastic steps, float64, on the noise schedule of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign_diffusion.ddim import ddim_step, gaussian_kl, gaussian_log_prob
from mmalign_diffusion.flow_sde import flow_grpo_diffusion, flow_sde_step
from mmalign_diffusion.parametrisation import Prediction, align, target, to_epsilon, to_flow, to_sample, to_velocity
from mmalign_diffusion.schedules import Schedule, read_schedule

Values = Mapping[str, Any]
Row = dict[str, Any]


def stable_diffusion_schedule(*, set_alpha_to_one: bool = False) -> Schedule:
    """The schedule of all cases that name none."""
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return read_schedule({**betas, "set_alpha_to_one": set_alpha_to_one})


def compute_noised(inputs: Values, hparams: Values) -> Tensor:
    """Noisy latents x_t."""
    a, b = stable_diffusion_schedule().coefficients(inputs["timesteps"].long())
    x0, noise = inputs["x0_w"], inputs["noise"]
    noisy: Tensor = align(a, x0) * x0 + align(b, noise) * noise
    return noisy


def compute_conversions(inputs: Values, hparams: Values) -> dict[str, Tensor]:
    """What predicted noise implies, errors in every parametrisation, and the same point on the straight flow."""
    schedule, timesteps = stable_diffusion_schedule(), inputs["timesteps"].long()
    a, b = schedule.coefficients(timesteps)
    x_t, x0, noise = compute_noised(inputs, hparams), inputs["x0_w"], inputs["noise"]
    kind: Prediction = "epsilon"
    given = (inputs["eps_pol_w"], x_t, a, b, kind)
    x0_hat, v_hat, v_target = to_sample(*given), to_velocity(*given), target("v_prediction", x0, noise, a, b)
    return {
        "x0_hat": x0_hat,
        "v_hat": v_hat,
        "v_target": v_target,
        "snr": schedule.snr(timesteps),
        "mse_eps": _mean_square(inputs["eps_pol_w"] - noise),
        "mse_v": _mean_square(v_hat - v_target),
        "mse_x0": _mean_square(x0_hat - x0),
        "flow_sigma": b / (a + b),
        "flow_x": x_t / align(a + b, x_t),
        "flow_velocity_hat": to_flow(*given),
    }


def compute_ddim(inputs: Values, hparams: Values) -> list[Row] | None:
    """Steps of a sampler with evenly spaced levels, from each timestep that the case asks for."""
    if hparams.get("clip_sample"):
        return None
    schedule = stable_diffusion_schedule(set_alpha_to_one=hparams.get("set_alpha_to_one", True))
    x, output, count = inputs["ddim_x"], inputs["ddim_eps"], len(inputs["ddim_x"])
    rows: list[Row] = []
    for t in inputs["t"].long().tolist():
        previous = t - schedule.steps // int(hparams["num_inference_steps"])
        now, then = torch.full((count,), t), torch.full((count,), previous)
        (a, b), (previous_a, _) = schedule.coefficients(now), schedule.coefficients(then)
        eps = to_epsilon(output, x, a, b, hparams["prediction_type"])
        mean, std = ddim_step(x, eps, now, then, schedule, hparams["eta"])
        levels = {"t": t, "prev_t": previous, "alpha_bar_t": a[0] ** 2, "alpha_bar_prev": previous_a[0] ** 2}
        rows.append({**levels, "std": std[0], **_sample(mean, std, inputs["ddim_z"])})
    return rows


def compute_flow_grpo(inputs: Values, hparams: Values) -> list[Row]:
    """Steps of the stochastic flow sampler of Flow-GRPO, and their KL to the reference if there is one."""
    sigmas, x = hparams["sigmas"], inputs["flow_x"]
    rows: list[Row] = []
    for sigma in inputs["sigma"].tolist():
        now, then = _levels(inputs, sigmas, sigma)
        diffusion = flow_grpo_diffusion(now, noise_level=hparams["noise_level"], first_sigma=sigmas[1])
        mean, std = flow_sde_step(x, inputs["flow_v"], now, then, diffusion)
        rows.append({**_describe(now, then, std), "std_dev_t": diffusion[0], **_sample(mean, std, inputs["flow_z"])})
        if "flow_v_ref" in inputs:
            reference, _ = flow_sde_step(x, inputs["flow_v_ref"], now, then, diffusion)
            kl = gaussian_kl(mean, reference, std, "sum")
            # The released code leaves out the length of the step and takes the mean over the entries.
            rows[-1] |= {"kl_exact_sum": kl, "kl_as_released_mean": kl * (now - then) / mean[0].numel()}
    return rows


def compute_dance_grpo(inputs: Values, hparams: Values) -> list[Row]:
    """Steps of the stochastic flow sampler of DanceGRPO, and the clean latents that each implies."""
    rows: list[Row] = []
    x, velocity = inputs["flow_x"], inputs["flow_v"]
    for sigma in inputs["sigma"].tolist():
        now, then = _levels(inputs, hparams["sigmas"], sigma)
        mean, std = flow_sde_step(x, velocity, now, then, torch.full_like(now, hparams["eta"]))
        rows.append({**_describe(now, then, std), **_sample(mean, std, inputs["flow_z"])})
        rows[-1]["x0_hat"] = to_sample(velocity, x, 1 - now, now, "flow")
    return rows


def _levels(inputs: Values, sigmas: list[float], sigma: float) -> tuple[Tensor, Tensor]:
    """This level and the next one of the sampler, for every row of latents."""
    index = sigmas.index(sigma)
    count = len(inputs["flow_x"])
    now, then = (torch.full((count,), level, dtype=torch.float64) for level in sigmas[index : index + 2])
    return now, then


def _describe(now: Tensor, then: Tensor, std: Tensor) -> Row:
    return {"sigma": now[0], "sigma_prev": then[0], "step_std": std[0]}


def _sample(mean: Tensor, std: Tensor, noise: Tensor) -> Row:
    """A draw of a step, and its log-probs where it has a density."""
    drawn = mean + align(std, mean) * noise
    row: Row = {"mean": mean, "prev_sample": drawn}
    if bool((std > 0).all()):
        row["logprob_mean"] = gaussian_log_prob(drawn, mean, std, "mean")
        row["logprob_sum"] = gaussian_log_prob(drawn, mean, std, "sum")
    return row


def _mean_square(errors: Tensor) -> Tensor:
    return errors.flatten(1).square().mean(1)
