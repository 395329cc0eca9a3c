"""Direct preference optimisation.

Conservative DPO is its preset with label smoothing, length-normalised DPO the same loss on mean log-probs, DOVE the
same on joint log-probs of prompt and response: what is scored is said by the data, see `train` of a prompt's messages.
Diffusion-DPO is the same on minus half the denoising error, Flow-DPO on that of a flow, InPO on inverted latents.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.names import MEANS_FOR_SUMS
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

_DPO = ObjectiveSpec(
    name="dpo",
    summary="Logistic loss of the implicit-reward margin against the reference.",
    loss=f"{__name__}:dpo_loss",
    config=f"{__name__}:DPOConfig",
    per="pair",
    equation="-logsigmoid(beta ((pc - rc) - (pr - rr)))",
    paper="Direct Preference Optimization: Your Language Model is Secretly a Reward Model (arXiv:2305.18290)",
)
SPECS = (
    _DPO,
    replace(
        _DPO,
        name="cdpo",
        summary="DPO for labels of which some are wrong.",
        config=f"{__name__}:CDPOConfig",
        equation="-(1 - eps) logsigmoid(m) - eps logsigmoid(-m), m = beta ((pc - rc) - (pr - rr))",
        paper="A note on DPO with noisy preferences (Mitchell, 2023)",
    ),
    replace(
        _DPO,
        name="dove",
        summary="DPO on pairs of prompt and response, in data whose prompts differ and are scored, too.",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr))), p and r joint log-probs of prompt and response",
        paper="Comparing Bad Apples to Good Oranges: Joint Preference Optimization (arXiv:2404.00530)",
    ),
    replace(
        _DPO,
        name="ln_dpo",
        aliases=("dpo_norm",),
        summary="DPO on mean log-probs: every log-ratio is divided by its own length.",
        config=f"{__name__}:LengthNormalisedDPOConfig",
        names=MEANS_FOR_SUMS,
        equation="-logsigmoid(beta ((pc - rc) / lc - (pr - rr) / lr))",
        paper="TULU 3: Pushing Frontiers in Open Language Model Post-Training (arXiv:2411.15124)",
    ),
    replace(
        _DPO,
        name="diffusion_dpo",
        aliases=("flow_dpo", "lightgen", "ppd"),
        summary="DPO on denoising errors, of noise, velocities or flows; on exact log-probs it is `dpo`.",
        config=f"{__name__}:DiffusionDPOConfig",
        # Its beta is in units of a denoising error.
        log_prob_kinds=("surrogate",),
        equation=(
            "-logsigmoid(-beta / 2 ((e_pc - e_rc) - (e_pr - e_rr))), e: mean squared denoising error, -2 log-prob"
        ),
        paper="Diffusion Model Alignment Using Direct Preference Optimization (arXiv:2311.12908)",
    ),
    replace(
        _DPO,
        name="inpo",
        summary="Diffusion-DPO on latents found by inversion, which is chosen in the modality, not here.",
        config=f"{__name__}:DiffusionDPOConfig",
        log_prob_kinds=("surrogate",),
        equation=(
            "-logsigmoid(-beta / 2 ((e_pc - e_rc) - (e_pr - e_rr))), e: mean squared denoising error, -2 "
            "log-prob, of the noise that leads from the image to its inverted latent"
        ),
        paper="InPO: Inversion Preference Optimization with Reparametrized DDIM (arXiv:2503.18454)",
    ),
)


class DPOConfig(Parameters):
    """Direct preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong; above 0 this is conservative DPO."""


class CDPOConfig(DPOConfig):
    """Conservative DPO."""

    label_smoothing: float = Field(default=0.1, ge=0, le=0.5)
    """Probability that a preference label is wrong; bounds the margin that is optimal."""


class LengthNormalisedDPOConfig(DPOConfig):
    """Length-normalised DPO."""

    beta: float = Field(default=2.0, gt=0)
    """Inverse temperature of the implicit reward, which is one per step here: about 20 times that of DPO."""


class DiffusionDPOConfig(DPOConfig):
    """DPO on denoising errors."""

    beta: float = Field(default=5000.0, gt=0)
    """As published: 5000 for SDXL, 2000 for Stable Diffusion 1.5. It is twice that of the script of diffusers, which
    leaves out the half of the log-prob, minus half the mean squared error of a denoising step."""


def dpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the implicit-reward margin of every pair.

    Args:
        policy_chosen_sequence_logps: [M], nats; all four are sums over steps, or all are means (`ln_dpo`).
        policy_rejected_sequence_logps: [M].
        reference_chosen_sequence_logps: [M], no gradient.
        reference_rejected_sequence_logps: [M], no gradient.
        beta: inverse temperature of the implicit reward, positive.
        label_smoothing: probability that a label is flipped, in [0, 0.5].

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2305.18290, equation 7; label smoothing from "A note on DPO with noisy preferences" (Mitchell, 2023).
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = logistic(chosen_rewards - rejected_rewards, label_smoothing)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
