"""Golden-vector cases of objectives on the steps of sampled trajectories: DDPO, D3PO and Reg-GRPO."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign import aggregation_weights, weighted_sum
from mmalign_objectives.conformance.inputs import Values
from mmalign_objectives.denoising.d3po import d3po_loss
from mmalign_objectives.policy_gradient.policy_gradient import policy_gradient_loss
from mmalign_objectives.policy_gradient.reg_grpo import standardise
from mmalign_objectives.policy_gradient.score_function import score_function_loss
from mmalign_objectives.support.ratio import step_ratio

Results = dict[str, Tensor]


def compute_ddpo_clipped(inputs: Values, hparams: Values) -> Results:
    """DDPO with importance sampling; `frac_clipped` counts ratios on either side, whatever the advantage."""
    policy, behaviour, clip = inputs["step_lp_new"], inputs["step_lp_old"], hparams["clip"]
    mask = torch.ones_like(policy, dtype=torch.bool)
    options = {"clip_low": clip, "clip_high": clip, "dual_clip_limit": None}
    losses, _ = policy_gradient_loss(policy, behaviour, inputs["adv"], mask, **options)
    outside = (step_ratio(policy, behaviour, mask) - 1).abs() > clip
    return {"per_step": losses, "mean": losses.mean(), "frac_clipped": outside.double().mean()}


def compute_ddpo_score_function(inputs: Values, hparams: Values) -> Results | None:
    """DDPO with the score function: a sum over steps and a mean over samples, with its gradient."""
    if "step_lp_old" in inputs:
        return None
    policy = inputs["step_lp_new"].detach().requires_grad_()
    mask = torch.ones_like(policy, dtype=torch.bool)
    totals = {"total_steps": mask.sum().double(), "total_responses": policy.new_tensor(len(policy))}
    losses, _ = score_function_loss(policy, inputs["adv"], mask)
    total = weighted_sum(losses, aggregation_weights("sequence_sum", mask, **totals))
    (gradient,) = torch.autograd.grad(total, policy)
    return {"loss_sum_over_steps_mean_over_samples": total.detach(), "grad_lp": gradient}


def compute_d3po(inputs: Values, hparams: Values) -> Results:
    """D3PO of trajectories of one step, so that a pair is a step."""
    names = ("d3po_lp_w", "d3po_lp_l", "d3po_ref_w", "d3po_ref_l")
    chosen, rejected, reference_chosen, reference_rejected = (inputs[name].reshape(-1, 1) for name in names)
    mask = torch.ones_like(chosen, dtype=torch.bool)
    sides = (chosen, rejected, reference_chosen, reference_rejected, mask, mask)
    losses, _ = d3po_loss(*sides, beta=hparams["beta"], clip=hparams["eps"])
    return {"per_step": losses, "mean": losses.mean()}


def compute_reg_grpo(inputs: Values, hparams: Values) -> dict[str, Results] | None:
    """Reg-GRPO of one group without KL, with both variances."""
    if hparams.get("beta_kl", 0):
        return None
    rewards = torch.as_tensor(hparams["rewards"], dtype=torch.float64)
    return {f"ddof{correction}": _regress(inputs["reg_rho"], rewards, correction) for correction in (0, 1)}


def _regress(log_ratios: Tensor, rewards: Tensor, correction: int) -> Results:
    mask = torch.ones(1, len(rewards), dtype=torch.bool)
    targets, predictions = (
        standardise(values[None], mask, correction=correction)[0][0] for values in (rewards, log_ratios)
    )
    errors = (targets - predictions) ** 2
    return {"adv": targets, "pred": predictions, "per": errors, "mean": errors.mean()}
