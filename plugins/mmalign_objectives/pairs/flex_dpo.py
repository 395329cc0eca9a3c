"""Flex-DPO: one temperature for chosen and a lower one for rejected responses."""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="flex_dpo",
        summary="DPO with a lower temperature for rejected responses, whose likelihood then falls less.",
        loss=f"{__name__}:flex_dpo_loss",
        config=f"{__name__}:FlexDPOConfig",
        per="pair",
        equation="-logsigmoid(beta_chosen (pc - rc) - beta_rejected (pr - rr))",
        paper="3D-Properties: Identifying Challenges in DPO and Charting a Path Forward (arXiv:2406.07327)",
    ),
)


class FlexDPOConfig(Parameters):
    """DPO with two temperatures."""

    beta_chosen: float = Field(default=0.1, gt=0)
    """Inverse temperature of the reward of chosen responses; beta_plus in the paper."""
    beta_rejected: float = Field(default=0.08, ge=0)
    """That of rejected ones, beta_minus: the lower, the less their likelihood falls; not above beta_chosen."""

    @model_validator(mode="after")
    def _check_order(self) -> FlexDPOConfig:
        if self.beta_rejected > self.beta_chosen:
            raise ValueError("beta_rejected: expected at most beta_chosen, or rejected responses fall the faster")
        return self


def flex_dpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta_chosen: float,
    beta_rejected: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the margin of rewards at two temperatures.

    Args: the log-probs are those of `dpo_loss`.
        beta_chosen: inverse temperature of the reward of chosen responses, positive.
        beta_rejected: likewise of rejected ones, in [0, beta_chosen].

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2406.07327, Flex-DPO; its DPO with a likelihood term is `rpo_mean`.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_ratios, rejected_ratios = implicit_rewards(policy, reference, 1.0)
    chosen_rewards, rejected_rewards = beta_chosen * chosen_ratios, beta_rejected * rejected_ratios
    return logistic(chosen_rewards - rejected_rewards), reward_metrics(chosen_rewards, rejected_rewards)
