"""Token-level DPO: DPO less how much further the policy is from the reference along the rejected response.

How far is the forward KL, summed over the steps of a response. TDPO1 trains through both KLs; TDPO2 weighs their
difference, and the chosen one is a constant.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import Pair, implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

_TDPO1 = ObjectiveSpec(
    name="tdpo1",
    summary="Token-level DPO, first form: DPO less the difference of the forward KLs of both responses.",
    loss=f"{__name__}:tdpo_loss",
    config=f"{__name__}:TDPO1Config",
    per="pair",
    log_prob_kinds=("exact",),
    equation="-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - kc))), k = sum_t KL(reference, policy)",
    paper="Token-level Direct Preference Optimization (arXiv:2404.11999)",
)
SPECS = (
    _TDPO1,
    replace(
        _TDPO1,
        name="tdpo2",
        summary="Token-level DPO, second form: the KL of the chosen response is a constant.",
        config=f"{__name__}:TDPO2Config",
        equation=(
            "-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - detach(kc)))), k = sum_t KL(reference, policy)"
        ),
    ),
)


class TDPO1Config(Parameters):
    """Token-level DPO, first form."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the difference of the KLs; 0 would be DPO."""
    constant_chosen_kl: bool = False
    """Train through the KL of the rejected response only, as TDPO2 does."""


class TDPO2Config(TDPO1Config):
    """Token-level DPO, second form."""

    alpha: float = Field(default=0.5, ge=0)
    """Weight of the difference of the KLs; 0 would be DPO."""
    constant_chosen_kl: bool = True
    """Train through the KL of the rejected response only."""


def tdpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_forward_kl: Tensor,
    reference_rejected_sequence_forward_kl: Tensor,
    *,
    beta: float,
    alpha: float,
    constant_chosen_kl: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of the implicit-reward margin less the difference of the KLs, for every pair.

    Args:
        policy_chosen_sequence_logps: [M], nats, a sum over steps; all four are.
        policy_rejected_sequence_logps: [M].
        reference_chosen_sequence_logps: [M].
        reference_rejected_sequence_logps: [M].
        reference_chosen_sequence_forward_kl: [M], KL(reference, policy) of whole distributions, summed over the steps
            of the chosen response.
        reference_rejected_sequence_forward_kl: [M], likewise of the rejected response.
        beta: inverse temperature of the implicit reward, positive.
        alpha: weight of the difference of the KLs, at least 0.
        constant_chosen_kl: no gradient through the KL of the chosen response.

    Returns:
        losses [M] and detached metrics [M]; the margins in them are without the KLs.

    Source: arXiv:2404.11999, TDPO1 and TDPO2.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    rewards = implicit_rewards(policy, reference, beta)
    kls = (reference_chosen_sequence_forward_kl, reference_rejected_sequence_forward_kl)
    penalty = kl_difference((kls[0].detach(), kls[1]) if constant_chosen_kl else kls)
    losses = logistic(rewards[0] - rewards[1] - alpha * beta * penalty)
    return losses, reward_metrics(*rewards) | kl_metrics(kls)


def kl_difference(kls: Pair) -> Tensor:
    """Returns by how much the KL [M] of the rejected response exceeds that of the chosen one."""
    check_shapes(1, chosen_kl=kls[0], rejected_kl=kls[1])
    return kls[1] - kls[0]


def kl_metrics(kls: Pair) -> dict[str, Tensor]:
    """Returns the KLs of both responses, detached."""
    return {"chosen_kl": kls[0].detach(), "rejected_kl": kls[1].detach()}
