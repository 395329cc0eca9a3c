"""Step-level advantage preference optimisation (CPL): pairs of steps, with a margin by the values they lead to."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="step_apo",
        summary="DPO on sibling steps with a margin by the values of the states they lead to.",
        loss=f"{__name__}:step_apo_loss",
        config=f"{__name__}:StepAPOConfig",
        per="pair",
        over="next_values",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr)) - V_chosen + V_rejected)",
        paper="CPL: Critical Plan Step Learning Boosts LLM Generalization in Reasoning Tasks (arXiv:2409.08642)",
    ),
)


class StepAPOConfig(Parameters):
    """Step-level advantage preference optimisation."""

    beta: float = Field(default=0.3, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def step_apo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    chosen_next_values: Tensor,
    rejected_next_values: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the implicit-reward margin of two sibling steps less their advantage gap.

    Args: the log-probs are those of `dpo_loss`, of the steps alone.
        chosen_next_values: [M], value of the state that the chosen step leads to, no gradient.
        rejected_next_values: [M].
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M]; the margins in them are without the values.

    Source: arXiv:2409.08642, the loss of Step-APO.
    """
    check_shapes(1, chosen_values=chosen_next_values, rejected_values=rejected_next_values)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    advantage_gaps = chosen_next_values - rejected_next_values
    losses = logistic(chosen_rewards - rejected_rewards - advantage_gaps)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
