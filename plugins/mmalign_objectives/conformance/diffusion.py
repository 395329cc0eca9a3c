"""Golden-vector cases of objectives on denoising errors: predictions of a network are turned into log-probs first.

Predictions, targets and latents are [B, C, H, W], float64; the suffixes w, l and r stand for chosen, rejected and a
sample of the reference. A log-prob is minus half the mean squared error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign_objectives.conformance.inputs import Four, Values
from mmalign_objectives.denoising.diffusion_kto import diffusion_kto_loss
from mmalign_objectives.denoising.mapo import mapo_loss
from mmalign_objectives.denoising.seppo import seppo_loss
from mmalign_objectives.denoising.smpo import smpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.hinge import hinge_loss
from mmalign_objectives.pairs.ipo import ipo_loss
from mmalign_objectives.pairs.rpo import rpo_sum_loss
from mmalign_objectives.support.denoising import denoising_errors

Results = dict[str, Tensor]


def compute_diffusion_dpo(inputs: Values, hparams: Values) -> Results:
    """Diffusion-DPO with the half, or as in diffusers without it; with timesteps, on velocities instead of noise."""
    noise = inputs["noise"]
    policy = [inputs[f"eps_pol_{side}"].detach().requires_grad_() for side in "wl"]
    predictions = (*policy, *(inputs[f"eps_ref_{side}"] for side in "wl"))
    scale = torch.ones((), dtype=torch.float64)
    if "timesteps" in inputs:  # the same error of velocities is that of noise over alpha bar
        scale = 1 / alpha_bars_of(inputs["timesteps"])
    has_half = str(hparams.get("coef", "0.5*beta")).startswith("0.5")
    beta = hparams["beta"]
    logps = _four(scale * (1 if has_half else 2) * _logps(one, noise) for one in predictions)
    results = _evaluate_dpo(logps, beta)
    if not has_half:
        hinge = hinge_loss(*logps, beta=beta)[0]
        return {**results, "hinge": hinge, "hinge_mean": hinge.mean(), "ipo": ipo_loss(*logps, tau=beta)[0]}
    gradients = torch.autograd.grad(results["mean"], policy)
    names = (f"grad_pol_{side}_of_mean_flat" for side in "wl")
    flat = dict(zip(names, (one.flatten(1) for one in gradients), strict=True))
    return {**results, "implicit_acc": (results["inside"] > 0).double().mean(), **flat}


def compute_diffusion_dpo_sum(inputs: Values, hparams: Values) -> Results | None:
    """Diffusion-DPO as printed: a sum over the entries of a latent, and no half."""
    if "sum" not in str(hparams.get("reduce", "")).lower():
        return None
    names = ("eps_pol_w", "eps_pol_l", "eps_ref_w", "eps_ref_l")
    entries = inputs["noise"][0].numel()
    logps = _four(entries * _logps(inputs[name], inputs["noise"]) for name in names)
    return _evaluate_dpo(logps, 2 * hparams["beta*T*omega"])


def compute_flow_dpo(inputs: Values, hparams: Values) -> Results:
    """Flow-DPO; also with the error of chosen (CRPO), and with the beta of CoP."""
    names = ("flow_pol_w", "flow_pol_l", "flow_ref_w", "flow_ref_l")
    logps = _four(_logps(inputs[name], inputs["noise"] - inputs[f"x0_{name[-1]}"]) for name in names)
    beta = hparams["beta"]
    results = _evaluate_dpo(logps, beta)
    results["crpo_mean"] = rpo_sum_loss(*logps, eta=2 / beta, beta=beta)[0].mean()
    if "cop_beta" in hparams:
        results["cop_dpo_mean"] = _evaluate_dpo(logps, hparams["cop_beta"])["mean"]
    return results


def compute_inpo(inputs: Values, hparams: Values) -> Results:
    """InPO: the targets are the noise between images and their inverted latents."""
    targets, logps = _invert(inputs)
    return {**targets, **_evaluate_dpo(logps, hparams["beta"])}


def compute_smpo(inputs: Values, hparams: Values) -> Results:
    """SmPO, with the probabilities and weights of the pairs."""
    _, logps = _invert(inputs)
    gamma, ratings = hparams["gamma"], (inputs["reward_w"], inputs["reward_l"])
    span = {"lowest_rating": hparams["min"], "highest_rating": hparams["max"]}
    losses, metrics = smpo_loss(*logps, *ratings, beta=hparams["beta"], gamma=gamma, **span)
    weights = metrics["pair_weights"]
    inside = weights * metrics["reward_margins"]
    return {"p": (weights / gamma + 1) / 2, "weight": weights, "inside": inside, **_describe(losses)}


def compute_seppo(inputs: Values, hparams: Values) -> Results:
    """SePPO with both anchors; a policy that is not given is the reference."""
    factor = inputs["noise"][0].numel() if hparams.get("reduce") == "sum" else 1
    targets = {"w": inputs["noise"], "r": inputs["noise_ref_sample"]}
    logps = _four(
        factor * _logps(inputs.get(f"eps_{who}_{side}", inputs[f"eps_ref_{side}"]), targets[side])
        for who in ("pol", "ref")
        for side in "wr"
    )
    beta = 2 * hparams.get("beta*T*omega", 1.0)
    losses, metrics = seppo_loss(*logps, beta=beta, anchor="sign")
    inside = metrics["chosen_rewards"] - metrics["anchors"] * metrics["rejected_rewards"]
    indicator = seppo_loss(*logps, beta=beta, anchor="indicator")[0]
    described = {"per_sample": losses, "mean": losses.mean(), "indicator_variant": indicator}
    return {"sign": metrics["anchors"], "inside": inside, **described}


def compute_mapo_code(inputs: Values, hparams: Values) -> Results:
    """MaPO as in its code."""
    return _evaluate_mapo(inputs, (hparams["beta_mapo"], hparams["T"], hparams["snr_value"], 1.0))


def compute_mapo_paper(inputs: Values, hparams: Values) -> Results:
    """MaPO as in its paper."""
    return _evaluate_mapo(inputs, (1 / hparams["beta"], 1.0, 1.0, hparams["beta"]))


def compute_diffusion_kto(inputs: Values, hparams: Values) -> Results:
    """Diffusion-KTO of all chosen images, then of all rejected ones, with each utility."""
    policy, reference = (
        torch.cat([_logps(inputs[f"eps_{who}_{side}"], inputs["noise"]) for side in "wl"]) for who in ("pol", "ref")
    )
    if hparams.get("swap_policy_and_reference"):
        policy, reference = reference, policy
    beta, labels = hparams["beta"], torch.tensor(hparams["labels"], dtype=torch.float64)
    point = (policy - reference).mean().clamp(min=0)
    weights = {f"{name}_weight": hparams.get(f"lambda_{name[0]}", 1.0) for name in ("desirable", "undesirable")}
    gains = denoising_errors(reference) - denoising_errors(policy)
    signed = (2 * labels - 1) * beta * (gains - 2 * point)
    results = {"g": gains, "kl": 2 * point, "signed": signed}
    utilities = {"sigmoid": "kahneman_tversky", "loss_averse": "loss_averse", "risk_seeking": "risk_seeking"}
    for name, utility in utilities.items():
        options: dict[str, Any] = {"beta": beta, "utility": utility, **weights}
        results[name] = diffusion_kto_loss(policy, reference, labels, point, **options)[0]
        results[f"{name}_mean"] = results[name].mean()
    return results


def _logps(prediction: Tensor, target: Tensor) -> Tensor:
    return -((prediction - target) ** 2).flatten(1).mean(dim=1) / 2


def _four(logps: Any) -> Four:
    """Unpacks the policy's log-probs of chosen and rejected, then the reference's."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = logps
    return policy_chosen, policy_rejected, reference_chosen, reference_rejected


def _evaluate_dpo(logps: Four, beta: float) -> Results:
    losses, metrics = dpo_loss(*logps, beta=beta, label_smoothing=0.0)
    return {"inside": metrics["reward_margins"], **_describe(losses)}


def _evaluate_mapo(inputs: Values, scales: tuple[float, float, float, float]) -> Results:
    names = ("preference_weight", "margin_scale", "error_scale", "link_power")
    chosen, rejected = (_logps(inputs[f"mapo_pol_{side}"], inputs["noise"]) for side in "wl")
    losses, metrics = mapo_loss(chosen, rejected, **dict(zip(names, scales, strict=True)))
    errors = {"mse_w": metrics["chosen_errors"], "mse_l": metrics["rejected_errors"]}
    return {"margin": metrics["reward_margins"], "per_pair": losses, "loss": losses.mean(), **errors}


def _describe(losses: Tensor) -> Results:
    return {"per_pair": losses, "mean": losses.mean()}


def _invert(inputs: Values) -> tuple[Results, Four]:
    """Computes the noise that leads from images to inverted latents, and the log-probs of predictions of it."""
    alpha_bars = alpha_bars_of(inputs["inv_timesteps"])[:, None, None, None]
    targets = {
        side: (inputs[f"inv_x_{side}"] - alpha_bars.sqrt() * inputs[f"x0_{side}"]) / (1 - alpha_bars).sqrt()
        for side in "wl"
    }
    names = ("inv_pol_w", "inv_pol_l", "inv_ref_w", "inv_ref_l")
    logps = _four(_logps(inputs[name], targets[name[-1]]) for name in names)
    return {f"tau_{side}": target for side, target in targets.items()}, logps


def alpha_bars_of(timesteps: Tensor) -> Tensor:
    """Computes the share of the signal's variance at timesteps of the scaled linear schedule of Stable Diffusion."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(dim=0)[timesteps.long()]
