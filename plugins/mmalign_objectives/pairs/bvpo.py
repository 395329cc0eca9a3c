"""BVPO: pairs of answers with a sampled reasoning trace, mixed with pairs whose trace is empty.

A gradient through one sampled trace is right on average and noisy, one without a trace is steady and biased.
`best_trace_weight` says which mix has the smallest mean squared error.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="bvpo",
        summary="DPO on pairs with a reasoning trace, mixed with pairs whose trace is empty.",
        loss=f"{__name__}:bvpo_loss",
        config=f"{__name__}:BVPOConfig",
        per="pair",
        equation="-2 w logsigmoid(beta ((pc - rc) - (pr - rr))), w = a with a trace, 1 - a without",
        paper="From Noisy Traces to Stable Gradients (arXiv:2510.05095)",
    ),
)


class BVPOConfig(Parameters):
    """DPO on pairs with and without a reasoning trace."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    trace_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of the pairs with a trace; those without one have the rest."""


def bvpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    trace_pairs: Tensor,
    *,
    beta: float,
    trace_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the DPO loss of every pair, weighted by whether its responses have a reasoning trace.

    The weights are 2 trace_weight and 2 (1 - trace_weight): over as many pairs of each sort the mean is the mix.

    Args: the log-probs are those of `dpo_loss`, of trace and answer together.
        trace_pairs: [M], 1 for pairs with a trace, 0 for those without.
        beta: inverse temperature of the implicit reward, positive.
        trace_weight: share of the pairs with a trace in the mix, in [0, 1].

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2510.05095, the mix of both losses.
    """
    check_shapes(1, policy_chosen=policy_chosen_sequence_logps, trace_pairs=trace_pairs)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    weights = 2 * (trace_pairs * trace_weight + (1 - trace_pairs) * (1 - trace_weight))
    return weights * logistic(chosen_rewards - rejected_rewards), reward_metrics(chosen_rewards, rejected_rewards)


def best_trace_weight(
    trace_bias: Tensor, empty_bias: Tensor, *, trace_variance: float, empty_variance: float, covariance: float = 0.0
) -> float:
    """Computes the trace weight whose mixed gradient has the smallest mean squared error, in [0, 1].

    Args:
        trace_bias: [D], bias of the gradient estimate with traces.
        empty_bias: [D], bias of the one without.
        trace_variance: its total variance, the trace of its covariance matrix.
        empty_variance: likewise.
        covariance: trace of the cross-covariance of the two.

    Source: arXiv:2510.05095, the closed form; derived anew, as the minimum of the squared error, a parabola.
    """
    gain = empty_bias.dot(empty_bias) + empty_variance - trace_bias.dot(empty_bias) - covariance
    gap = trace_bias - empty_bias
    curvature = gap.dot(gap) + trace_variance + empty_variance - 2 * covariance
    return float((gain / curvature).clamp(0, 1))
