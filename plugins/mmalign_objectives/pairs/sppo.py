"""Self-play preference optimisation: every log-ratio is regressed on a target of its own.

`sppo` takes the probability that a response beats one of the policy; `sppo_hard` takes it as 1 for chosen and 0 for
rejected responses, which is all that a pair tells.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import square
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

_SPPO_HARD = ObjectiveSpec(
    name="sppo_hard",
    summary="Regresses the log-ratios of chosen and rejected responses on opposite targets.",
    loss=f"{__name__}:sppo_hard_loss",
    config=f"{__name__}:SPPOConfig",
    per="pair",
    equation="(pc - rc - 1 / (2 beta))^2 + (pr - rr + 1 / (2 beta))^2",
    paper="Self-Play Preference Optimization for Language Model Alignment (arXiv:2405.00675)",
)
SPECS = (
    _SPPO_HARD,
    replace(
        _SPPO_HARD,
        name="sppo",
        summary="Regresses every log-ratio on the win probability of the response.",
        loss=f"{__name__}:sppo_loss",
        per="response",
        over="win_probabilities",
        equation="(p - r - (P - 1/2) / beta)^2",
    ),
)


class SPPOConfig(Parameters):
    """Self-play preference optimisation."""

    beta: float = Field(default=1e-3, gt=0)
    """Strength of the pull to the reference, 1 / eta in the paper: targets lie within 1 / (2 beta) nats."""


def sppo_hard_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared distances of the log-ratios of every pair from +-1 / (2 beta).

    Args: the log-probs are those of `dpo_loss`, sums over steps.
        beta: strength of the pull to the reference, positive.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is beta times the log-ratio.

    Source: arXiv:2405.00675, the loss of SPPO with certain preferences.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_ratios, rejected_ratios = implicit_rewards(policy, reference, 1.0)
    losses = square(chosen_ratios, 0.5 / beta) + square(rejected_ratios, -0.5 / beta)
    return losses, reward_metrics(beta * chosen_ratios, beta * rejected_ratios)


def sppo_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, win_probabilities: Tensor, *, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared distance of every response's log-ratio from (win probability - 1/2) / beta.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        win_probabilities: [N], probability that the response is preferred to one of the reference, in [0, 1].
        beta: strength of the pull to the reference, positive.

    Returns:
        losses [N] and the detached metric `rewards` [N], beta times the log-ratio.

    Source: arXiv:2405.00675, the loss of SPPO.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, wins=win_probabilities)
    log_ratios = policy_sequence_logps - reference_sequence_logps
    return square(log_ratios, (win_probabilities - 0.5) / beta), {"rewards": beta * log_ratios.detach()}
