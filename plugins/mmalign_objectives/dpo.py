"""Direct preference optimisation.

Conservative DPO is its preset with label smoothing, length-normalised DPO the same loss on mean log-probs, DOVE the
same on joint log-probs of prompt and response: what is scored is said by the data, see `train` of a prompt's messages.
Diffusion-DPO is the same on minus half the denoising error, Flow-DPO on that of a flow, InPO on inverted latents.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_objectives.links import logistic
from mmalign_objectives.rewards import implicit_rewards, reward_metrics


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
