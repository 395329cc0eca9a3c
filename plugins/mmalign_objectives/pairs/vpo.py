"""Value-incentivised preference optimisation: DPO with optimism (online) or pessimism (offline) about rewards.

The value of the best policy enters as a log-ratio of a calibration response of the same prompt. Here it is one of the
pair: rejected responses stand for samples of the reference, chosen ones for good data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.support.rewards import implicit_rewards

_VPO_OFFLINE = ObjectiveSpec(
    name="vpo_offline",
    summary="DPO with pessimism: raises the implicit reward of responses like the data.",
    loss=f"{__name__}:vpo_loss",
    config=f"{__name__}:VPOOfflineConfig",
    per="pair",
    equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) + incentive beta (pc - rc), incentive <= 0",
    paper="Value-Incentivized Preference Optimization (arXiv:2405.19320)",
)
SPECS = (
    _VPO_OFFLINE,
    replace(
        _VPO_OFFLINE,
        name="vpo_online",
        summary="DPO with optimism: lowers the implicit reward of what the reference says.",
        config=f"{__name__}:VPOOnlineConfig",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) + incentive beta (pr - rr), incentive >= 0",
    ),
)


class VPOOfflineConfig(Parameters):
    """Pessimistic value-incentivised preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    incentive: float = Field(default=-0.01, le=0)
    """Weight of the value term, alpha in the paper; negative, which is pessimism."""
    calibration: Literal["chosen", "rejected"] = "chosen"
    """Which response of the pair calibrates the value."""


class VPOOnlineConfig(VPOOfflineConfig):
    """Optimistic value-incentivised preference optimisation."""

    incentive: float = Field(default=0.01, ge=0)
    """Weight of the value term, alpha in the paper; positive, which is optimism."""
    calibration: Literal["chosen", "rejected"] = "rejected"
    """Which response of the pair calibrates the value."""


def vpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    incentive: float,
    calibration: Literal["chosen", "rejected"],
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the DPO loss of every pair plus the implicit reward of its calibration response times the incentive.

    Args: the log-probs are those of `dpo_loss`.
        incentive: weight of the value, positive for optimism, negative for pessimism.
        calibration: which response of the pair stands for the calibration distribution.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.19320, the losses of offline and online VPO.
    Differs: the calibration response is one of the pair, not a sample of its own.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    losses, metrics = dpo_loss(*policy, *reference, beta=beta, label_smoothing=0.0)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    return losses + incentive * (chosen_rewards if calibration == "chosen" else rejected_rewards), metrics
