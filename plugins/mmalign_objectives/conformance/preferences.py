"""Golden-vector cases of the preference objectives: sums of log-probs and lengths of every pair, float64.

`conformance_steps` has those of the objectives on steps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmalign_objectives.conformance.inputs import Values, means, reference_means, reference_sums, sums
from mmalign_objectives.heads.reward_model import reward_model_loss
from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.hinge import hinge_loss
from mmalign_objectives.pairs.ipo import ipo_loss
from mmalign_objectives.pairs.orpo import orpo_loss
from mmalign_objectives.pairs.simpo import simpo_loss
from mmalign_objectives.pairs.slic_hf import slic_hf_loss
from mmalign_objectives.unpaired.kto import kto_loss


def compute_dpo(inputs: Values, hparams: Values) -> Tensor:
    """DPO; with `eps`, conservative DPO."""
    return dpo_loss(*reference_sums(inputs), beta=hparams["beta"], label_smoothing=hparams.get("eps", 0.0))[0]


def compute_ipo_sum(inputs: Values, hparams: Values) -> Tensor:
    """IPO on sums."""
    return ipo_loss(*reference_sums(inputs), tau=hparams["tau"])[0]


def compute_ipo_mean(inputs: Values, hparams: Values) -> Tensor:
    """IPO on means."""
    return ipo_loss(*reference_means(inputs), tau=hparams["tau"])[0]


def compute_hinge(inputs: Values, hparams: Values) -> Tensor:
    """Hinge on the reference-normalised margin."""
    return hinge_loss(*reference_sums(inputs), beta=hparams["beta"])[0]


def compute_slic_hf(inputs: Values, hparams: Values) -> Tensor:
    """Sequence likelihood calibration."""
    return slic_hf_loss(*sums(inputs), delta=hparams["delta"], nll_weight=hparams["lam"])[0]


def compute_simpo(inputs: Values, hparams: Values) -> Tensor | None:
    """SimPO; the margin is given as `gamma` or as a multiple of beta."""
    beta = hparams["beta"]
    ratio = hparams.get("gamma_beta_ratio")
    gamma = hparams.get("gamma", None if ratio is None else ratio * beta)
    if gamma is None:
        return None
    return simpo_loss(*means(inputs), beta=beta, gamma=gamma, **_options(hparams))[0]


def compute_cpo_prefer(inputs: Values, hparams: Values) -> Tensor:
    """CPO without its likelihood term."""
    chosen, rejected = sums(inputs)
    return cpo_loss(chosen, rejected, chosen, beta=hparams["beta"], **_options(hparams))[0]


def compute_cpo(inputs: Values, hparams: Values) -> Tensor:
    """CPO with the likelihood of the chosen response as a mean over its steps."""
    chosen_mean = inputs["policy_chosen_logps"] / inputs["chosen_lengths"]
    return cpo_loss(*sums(inputs), chosen_mean, beta=hparams["beta"], **_options(hparams, nll_weight=hparams["lam"]))[0]


def compute_orpo(inputs: Values, hparams: Values) -> Tensor:
    """ORPO with its likelihood term."""
    return orpo_loss(*means(inputs), odds_weight=hparams["lam"])[0]


def compute_odds_term(inputs: Values, hparams: Values) -> Tensor:
    """ORPO without its likelihood term."""
    chosen_mean, _ = means(inputs)
    return compute_orpo(inputs, hparams) + chosen_mean


def compute_kto(inputs: Values, hparams: Values) -> Tensor | None:
    """KTO of all chosen responses, labelled desirable, then of all rejected ones, labelled undesirable."""
    point = _parse_reference_point(inputs, hparams.get("z0"))
    if point is None:
        return None
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = reference_sums(inputs)
    return kto_loss(
        torch.cat([policy_chosen, policy_rejected]),
        torch.cat([reference_chosen, reference_rejected]),
        torch.cat([torch.ones_like(policy_chosen), torch.zeros_like(policy_rejected)]),
        point,
        beta=hparams["beta"],
        desirable_weight=hparams.get("lambda_d", 1.0),
        undesirable_weight=hparams.get("lambda_u", 1.0),
    )[0]


def compute_reward_model(inputs: Values, hparams: Values) -> dict[str, Tensor]:
    """Bradley-Terry losses: plain, and with each of the options for which the case has a setting."""
    settings = {**inputs, **hparams}
    chosen = inputs["chosen"].detach().requires_grad_()
    margin = torch.as_tensor(settings.get("margin", 0.0), dtype=torch.float64).expand_as(chosen)

    def evaluate(margin_scale: float = 0.0, label_smoothing: float = 0.0, tau: float = 1.0, c: float = 0.0) -> Tensor:
        options = {"label_smoothing": label_smoothing, "centering": c, "temperature": tau}
        return reward_model_loss(chosen, inputs["rejected"], margin, margin_scale=margin_scale, **options)[0]

    plain = evaluate()
    (gradient,) = torch.autograd.grad(plain.mean(), chosen)
    results = {"per_sample": plain, "mean": plain.mean(), "grad_chosen_of_mean": gradient}
    if "margin" in settings:
        results["mean_with_margin"] = evaluate(margin_scale=1.0).mean()
    if "label_smoothing" in settings:
        smoothed = evaluate(label_smoothing=float(settings["label_smoothing"]))
        results |= {"per_sample_smoothed": smoothed, "mean_smoothed": smoothed.mean()}
    if "center_coef" in settings:
        centering = float(settings["center_coef"])
        results["centering_term"] = (evaluate(c=centering) - plain).mean()
        results["mean_margin_plus_centering"] = evaluate(margin_scale=1.0, c=centering).mean()
    if "tau" in settings:
        results["mean_margin_over_tau"] = evaluate(margin_scale=1.0, tau=float(settings["tau"])).mean()
    return results


def _options(hparams: Values, nll_weight: float = 0.0) -> dict[str, Any]:
    smoothing, alpha = hparams.get("eps", 0.0), hparams.get("alpha", 0.0)
    link = hparams.get("link", "logistic")
    return {"label_smoothing": smoothing, "link": link, "nll_weight": nll_weight, "alpha": alpha}


def _parse_reference_point(inputs: Values, given: Any) -> Tensor | None:
    """Reads z0: a number, also as text, or the rule `max(0, mean(NAME))` with the name of an input."""
    if isinstance(given, str):
        text = given.replace(" ", "")
        name = text.removeprefix("max(0,mean(").removesuffix("))")
        if name in inputs and name != text:
            estimate: Tensor = inputs[name].mean().clamp(min=0)
            return estimate
        return _parse_number(text)
    if given is None and "kl_logratios" in inputs:
        return _parse_reference_point(inputs, "max(0, mean(kl_logratios))")
    return None if given is None else torch.tensor(float(given), dtype=torch.float64)


def _parse_number(text: str) -> Tensor | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return torch.tensor(value, dtype=torch.float64) if math.isfinite(value) else None
