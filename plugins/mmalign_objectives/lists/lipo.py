"""LiPO: any learning-to-rank loss on implicit rewards is an alignment loss.

The ranking losses are in `ranking_losses`; here they get the rewards beta * log(policy / reference) and the grades of
all responses to a prompt. LiPO with LambdaRank weights is the one that its paper recommends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support import ranking_losses
from mmalign_objectives.support.lists import group_lists, ranking_metrics
from mmalign_objectives.support.shapes import check_shapes

_LIPO_LAMBDA = ObjectiveSpec(
    name="lipo_lambda",
    aliases=("lipo",),
    summary="LambdaRank loss of the implicit rewards of all responses to a prompt.",
    loss=f"{__name__}:lipo_lambda_loss",
    config=f"{__name__}:LiPOConfig",
    per="prompt",
    over="graded",
    equation="sum over g_i > g_j of -delta_ij logsigmoid(s_i - s_j), delta: change of discounted gain by a swap",
    paper="LiPO: Listwise Preference Optimization through Learning-to-Rank (arXiv:2402.01878)",
)
SPECS = (
    _LIPO_LAMBDA,
    replace(
        _LIPO_LAMBDA,
        name="lipo_point_square",
        aliases=(),
        summary="Squared distance of implicit rewards from grades.",
        loss=f"{__name__}:lipo_point_square_loss",
        equation="sum_i (g_i - s_i)^2",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_point_sigmoid",
        aliases=(),
        summary="Cross-entropy of the sigmoid of implicit rewards with grades in [0, 1].",
        loss=f"{__name__}:lipo_point_sigmoid_loss",
        equation="-sum_i (g_i logsigmoid(s_i) + (1 - g_i) logsigmoid(-s_i))",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_pair_logistic",
        aliases=(),
        summary="DPO on every pair of a list.",
        loss=f"{__name__}:lipo_pair_logistic_loss",
        equation="sum over g_i > g_j of -logsigmoid(s_i - s_j)",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_pair_hinge",
        aliases=(),
        summary="Hinge on every pair of a list.",
        loss=f"{__name__}:lipo_pair_hinge_loss",
        equation="sum over g_i > g_j of max(0, 1 - (s_i - s_j))",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_pair_square",
        aliases=(),
        summary="Squared distance of reward margins from grade margins.",
        loss=f"{__name__}:lipo_pair_square_loss",
        equation="sum over g_i > g_j of (s_i - s_j - (g_i - g_j))^2",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_list_mle",
        aliases=(),
        summary="Plackett-Luce likelihood of the order of a list.",
        loss=f"{__name__}:lipo_list_mle_loss",
        equation="-sum_k (s_k - logsumexp over j >= k of s_j), best first",
    ),
    replace(
        _LIPO_LAMBDA,
        name="lipo_softmax",
        aliases=(),
        summary="Cross-entropy of the softmax of a list's rewards with its grades.",
        loss=f"{__name__}:lipo_softmax_loss",
        equation="-sum_i g_i / sum(g) log softmax(s)_i",
    ),
)


Result = tuple[Tensor, dict[str, Tensor]]
RankingLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


class LiPOConfig(Parameters):
    """Listwise preference optimisation."""

    beta: float = Field(default=0.05, gt=0)
    """Inverse temperature of the implicit reward, which is the ranking score."""


def rank_implicit_rewards(ranking: RankingLoss) -> Callable[..., Result]:
    """Makes an objective on lists of a ranking loss, which gets rewards, grades and mask, [P, K] each.

    The objective sums over the responses to a prompt, or over pairs of them, as the ranking loss does.

    Source: arXiv:2402.01878, without the minus that is printed before its expectations of log(1 + exp(...)).
    """

    def lipo_loss(
        policy_sequence_logps: Tensor,
        reference_sequence_logps: Tensor,
        grades: Tensor,
        prompt_index: Tensor,
        *,
        beta: float,
    ) -> Result:
        """Computes the ranking loss of every prompt's list of implicit rewards.

        Args:
            policy_sequence_logps: [N], nats, summed over steps.
            reference_sequence_logps: [N], nats, summed over steps, no gradient.
            grades: [N], how good each response is; NaN for those that take no part.
            prompt_index: [N], which prompt a response answers.
            beta: inverse temperature of the implicit reward, positive.

        Returns:
            losses [P] and detached metrics [P], see `ranking_metrics`.
        """
        lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
        return ranking(*lists), ranking_metrics(*lists)

    return lipo_loss


lipo_lambda_loss = rank_implicit_rewards(ranking_losses.lambda_rank)
lipo_point_square_loss = rank_implicit_rewards(ranking_losses.point_square)
lipo_point_sigmoid_loss = rank_implicit_rewards(ranking_losses.point_sigmoid)
lipo_pair_logistic_loss = rank_implicit_rewards(ranking_losses.pair_logistic)
lipo_pair_hinge_loss = rank_implicit_rewards(ranking_losses.pair_hinge)
lipo_pair_square_loss = rank_implicit_rewards(ranking_losses.pair_square)
lipo_list_mle_loss = rank_implicit_rewards(ranking_losses.plackett_luce)
lipo_softmax_loss = rank_implicit_rewards(ranking_losses.softmax_cross_entropy)


def implicit_lists(
    policy: Tensor, reference: Tensor, grades: Tensor, prompt_index: Tensor, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes rewards beta * log(policy / reference) and puts them and the grades into lists.

    Args:
        policy: log-probs [N], nats.
        reference: likewise, without gradient.
        grades: [N]; NaN for responses that take no part.
        prompt_index: [N].
        beta: inverse temperature of the implicit reward.

    Returns:
        rewards, grades and mask, [P, K] each.
    """
    check_shapes(1, policy=policy, reference=reference, grades=grades, prompt_index=prompt_index)
    lists = group_lists(prompt_index, ~grades.isnan())
    return lists.pad(beta * (policy - reference)), lists.pad(grades), lists.mask
