"""LiPO: any learning-to-rank loss on implicit rewards is an alignment loss.

The ranking losses are in `ranking_losses`; here they get the rewards beta * log(policy / reference) and the grades of
all responses to a prompt. LiPO with LambdaRank weights is the one that its paper recommends.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_objectives import ranking_losses
from mmalign_objectives.lists import group_lists, ranking_metrics
from mmalign_objectives.shapes import check_shapes

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
