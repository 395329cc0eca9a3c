"""Identity preference optimisation.

The equation of the paper is on sums over steps; later code, and the authors' own runs as TRL reports them, use means.
Both are this one loss: `ipo` is given mean log-probs, `ipo_sum` summed ones.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import square
from mmalign_objectives.support.names import SUMS_FOR_MEANS
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

_IPO = ObjectiveSpec(
    name="ipo",
    aliases=("ipo_mean",),
    summary="Regresses the margin of mean log-ratios on a fixed target.",
    loss=f"{__name__}:ipo_loss",
    config=f"{__name__}:IPOConfig",
    per="pair",
    equation="((pc - rc) / lc - (pr - rr) / lr - 1 / (2 tau))^2",
    paper="A General Theoretical Paradigm to Understand Learning from Human Preferences (arXiv:2310.12036)",
)
SPECS = (
    _IPO,
    replace(
        _IPO,
        name="ipo_sum",
        aliases=(),
        summary="Regresses the margin of summed log-ratios on a fixed target, as printed in the paper.",
        names=SUMS_FOR_MEANS,
        equation="((pc - rc) - (pr - rr) - 1 / (2 tau))^2",
    ),
)


class IPOConfig(Parameters):
    """Identity preference optimisation."""

    tau: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference: the margin of log-ratios is regressed on 1 / (2 tau)."""


def ipo_loss(
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    reference_chosen_mean_logps: Tensor,
    reference_rejected_mean_logps: Tensor,
    *,
    tau: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared distance of the log-ratio margin of every pair from 1 / (2 tau).

    Args:
        policy_chosen_mean_logps: [M], nats; all four are means over steps (`ipo`) or all are sums (`ipo_sum`).
        policy_rejected_mean_logps: [M].
        reference_chosen_mean_logps: [M], no gradient.
        reference_rejected_mean_logps: [M], no gradient.
        tau: strength of the pull to the reference, positive.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is tau times the log-ratio.

    Source: arXiv:2310.12036, equation 17.
    """
    policy, reference = (
        (policy_chosen_mean_logps, policy_rejected_mean_logps),
        (reference_chosen_mean_logps, reference_rejected_mean_logps),
    )
    chosen_ratios, rejected_ratios = implicit_rewards(policy, reference, 1.0)
    losses = square(chosen_ratios - rejected_ratios, 1 / (2 * tau))
    return losses, reward_metrics(tau * chosen_ratios, tau * rejected_ratios)
