"""Triple preference optimisation: contrast two responses and imitate a third, gold one, in a single stage.

`tpo_triple_l` is its length-normalised form with a margin (TPO-L). Optimisation over preference trees and test-time
preference optimisation, which have the same abbreviation, are other methods.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.simpo import simpo_loss
from mmalign_objectives.support.links import Link
from mmalign_objectives.support.shapes import check_shapes

_TPO_TRIPLE = ObjectiveSpec(
    name="tpo_triple",
    summary="Triple preference optimisation: contrasts two responses and imitates a gold one.",
    loss=f"{__name__}:tpo_triple_loss",
    config=f"{__name__}:TPOTripleConfig",
    per="pair",
    over="gold_row",
    equation="-logsigmoid(beta (pc - pr)) - gold_weight pg / lg",
    paper="Triple Preference Optimization (arXiv:2405.16681)",
)
SPECS = (
    _TPO_TRIPLE,
    replace(
        _TPO_TRIPLE,
        name="tpo_triple_l",
        summary="TPO-L: SimPO that imitates a gold response.",
        loss=f"{__name__}:tpo_triple_l_loss",
        config=f"{__name__}:TPOTripleLConfig",
        equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma) - gold_weight pg / lg",
    ),
)


class TPOTripleConfig(Parameters):
    """Triple preference optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward, the log-prob."""
    gold_weight: float = Field(default=0.5, ge=0)
    """Weight of the negative mean log-prob of the gold response; alpha in the paper."""
    link: Link = "logistic"
    """logistic, or hinge."""


class TPOTripleLConfig(Parameters):
    """Triple preference optimisation on mean log-probs."""

    beta: float = Field(default=2.0, gt=0)
    """Scale of the implicit reward, which is beta times the mean log-prob."""
    gamma: float = Field(default=0.5, ge=0)
    """Reward margin that is asked for."""
    gold_weight: float = Field(default=0.5, ge=0)
    """Weight of the negative mean log-prob of the gold response; alpha in the paper."""
    link: Link = "logistic"
    """logistic, or hinge."""


def tpo_triple_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    policy_gold_mean_logps: Tensor,
    *,
    beta: float,
    gold_weight: float,
    link: Link,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the preference term of CPO plus the weighted likelihood of the gold response.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps.
        policy_rejected_sequence_logps: [M], nats, summed over steps.
        policy_gold_mean_logps: [M], nats, mean over steps of the gold response to the same prompt.
        beta: inverse temperature of the implicit reward, positive.
        gold_weight: weight of the likelihood term, at least 0.
        link: from margin to loss.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.16681, the loss of TPO.
    Differs: the likelihood term is a mean per response; the official code averages over all gold steps of a batch.
    """
    pair = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    return cpo_loss(*pair, policy_gold_mean_logps, beta=beta, nll_weight=gold_weight, **_plain(link))


def tpo_triple_l_loss(
    policy_chosen_mean_logps: Tensor,
    policy_rejected_mean_logps: Tensor,
    policy_gold_mean_logps: Tensor,
    *,
    beta: float,
    gamma: float,
    gold_weight: float,
    link: Link,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of SimPO plus the weighted likelihood of the gold response.

    Args: all log-probs are means over steps, [M], nats.
        beta: scale of the implicit reward, positive.
        gamma: reward margin that is asked for, at least 0.
        gold_weight: weight of the likelihood term, at least 0.
        link: from margin to loss.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2405.16681, the loss of TPO-L.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_gold=policy_gold_mean_logps)
    pair = (policy_chosen_mean_logps, policy_rejected_mean_logps)
    losses, metrics = simpo_loss(*pair, beta=beta, gamma=gamma, nll_weight=0.0, **_plain(link))
    return losses - gold_weight * policy_gold_mean_logps, metrics


def _plain(link: Link) -> dict[str, Any]:
    return {"label_smoothing": 0.0, "link": link, "alpha": 0.0}
