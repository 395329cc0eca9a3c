"""Golden-vector cases of the objectives on steps: a loss aggregated over the batch, with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign import aggregation_weights, masked_mean, masked_sum, weighted_sum
from mmalign_objectives.penalties.kl_penalty import estimate_kl, kl_penalty_loss
from mmalign_objectives.policy_gradient.opmd import opmd_loss
from mmalign_objectives.policy_gradient.policy_gradient import policy_gradient_loss, sequence_policy_gradient_loss
from mmalign_objectives.support.ratio import sequence_ratio

Values = Mapping[str, Any]
Results = dict[str, Tensor]

_VERL_AGGREGATIONS = {
    "token-mean": "step_mean",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-sum-norm": "constant",
}


def compute_ppo_clip(inputs: Values, hparams: Values) -> Results | None:
    """Clipped policy gradient with verl's names of the aggregations."""
    aggregation = _VERL_AGGREGATIONS.get(hparams["agg"])
    if aggregation is None:
        return None
    mask = _find_mask(inputs)
    # verl divides the sum over the batch by the norm alone, not by the number of responses, too.
    horizon = (hparams.get("norm") or mask.shape[1]) / len(mask)
    return _evaluate(inputs, hparams, aggregation, dual_clip_limit=hparams.get("c"), horizon=horizon)


def compute_grpo(inputs: Values, hparams: Values) -> Results | None:
    """GRPO: a mean over responses of the mean over their steps."""
    return _evaluate(inputs, hparams, "sequence_mean")


def compute_step_mean(inputs: Values, hparams: Values) -> Results | None:
    """DAPO, and GRPO with a mean over steps."""
    return _evaluate(inputs, hparams, "step_mean")


def compute_dr_grpo(inputs: Values, hparams: Values) -> Results | None:
    """Dr. GRPO: a sum over steps, divided by responses x the longest possible response."""
    return _evaluate(inputs, hparams, "constant", horizon=hparams["max_completion_length"])


def compute_two_sided(inputs: Values, hparams: Values) -> Results | None:
    """GRPO whose ratio is cut at `delta`, too: above the upper limit of the clipping, that is the dual clip."""
    if hparams["delta"] <= 1 + hparams["eps_high"]:
        return None
    return _evaluate(inputs, hparams, "sequence_mean", dual_clip_limit=hparams["delta"])


def compute_gspo(inputs: Values, hparams: Values) -> Results | None:
    """GSPO, with its ratio per response."""
    results = _evaluate(inputs, hparams, "sequence_mean", loss=sequence_policy_gradient_loss)
    if results is not None:
        mask = _find_mask(inputs)
        results["seq_ratio"] = masked_mean(sequence_ratio(inputs["logp_new"], inputs["logp_old"], mask), mask)
    return results


def compute_opmd(inputs: Values, hparams: Values) -> Tensor | None:
    """OPMD: no clipping and no weights, a squared log-ratio for the regulariser, a mean over steps."""
    if (hparams["clip_mode"], hparams["weight"], hparams["regularizer"]) != ("none", "none", "k2"):
        return None
    mask, advantages = _find_mask(inputs), _find_advantages(inputs)
    tau = hparams["regularizer_coef"]
    losses, _ = opmd_loss(inputs["logp_new"], inputs["logp_old"], advantages, mask, tau=tau)
    return weighted_sum(losses, _weights("step_mean", mask, None))


def compute_kl(inputs: Values, hparams: Values) -> Results | None:
    """A KL estimate per step and its mean over all steps."""
    estimator = hparams["estimator"]
    if estimator not in ("k1", "k2", "k3"):
        return None
    mask = _find_mask(inputs)
    values = estimate_kl(inputs["logp_new"], inputs["logp_ref"], estimator=estimator).where(mask, 0)
    return {"per_token": values, "token_mean": masked_sum(values, mask).sum() / mask.sum()}


def _evaluate(
    inputs: Values,
    hparams: Values,
    aggregation: str,
    *,
    loss: Callable[..., tuple[Tensor, Any]] = policy_gradient_loss,
    dual_clip_limit: float | None = None,
    horizon: float | None = None,
) -> Results | None:
    if hparams.get("grad_accum", 1) != 1 or hparams.get("processes", 1) != 1:
        return None  # the engine's normalisation makes these irrelevant; TRL's results depend on them
    beta = hparams.get("beta", 0.0)
    if beta and "logp_ref" not in inputs:
        return None
    mask, advantages = _find_mask(inputs), _find_advantages(inputs)
    logps = inputs["logp_new"].detach().requires_grad_()
    clip = {"clip_low": hparams["eps_low"], "clip_high": hparams["eps_high"], "dual_clip_limit": dual_clip_limit}
    losses, _ = loss(logps, inputs["logp_old"], advantages, mask, **clip)
    if beta:
        losses = losses + beta * kl_penalty_loss(logps, inputs["logp_ref"], mask, estimator="k3")[0]
    total = weighted_sum(losses, _weights(aggregation, mask, horizon))
    (gradient,) = torch.autograd.grad(total, logps)
    return {"loss": total.detach(), "grad_logp": gradient}


def _weights(aggregation: str, mask: Tensor, horizon: float | None) -> Tensor:
    steps, responses = mask.sum().double(), mask.any(dim=1).sum().double()
    return aggregation_weights(aggregation, mask, total_steps=steps, total_responses=responses, horizon=horizon)


def _find_mask(inputs: Values) -> Tensor:
    mask: Tensor = next(value for name, value in inputs.items() if name.startswith("mask"))
    return mask > 0


def _find_advantages(inputs: Values) -> Tensor:
    advantages: Tensor = next(value for name, value in inputs.items() if name.endswith("adv"))
    return advantages
