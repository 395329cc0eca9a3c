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
Lists = tuple[Tensor, Tensor, Tensor]


class LiPOConfig(Parameters):
    """Listwise preference optimisation."""

    beta: float = Field(default=0.05, gt=0)
    """Inverse temperature of the implicit reward, which is the ranking score."""


def lipo_lambda_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the LambdaRank loss of every prompt's list of implicit rewards.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        grades: [N], how good each response is; NaN for those that take no part. The gain of a grade is 2^grade - 1.
        prompt_index: [N], which prompt a response answers.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [P], a sum over pairs of responses, and detached metrics [P], see `ranking_metrics`.

    Source: arXiv:2402.01878, equations 7 and 8, without the leading minus that is printed there.
    """
    rewards, known, mask = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.lambda_rank, rewards, known, mask)


def lipo_point_square_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the squared distance of rewards from grades, summed over a list; see `lipo_lambda_loss`."""
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.point_square, *lists)


def lipo_point_sigmoid_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the cross-entropy of sigmoid(reward) with grades in [0, 1], summed over a list.

    Arguments and results are those of `lipo_lambda_loss`.
    """
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.point_sigmoid, *lists)


def lipo_pair_logistic_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the DPO loss of every (better, worse), summed over a list; see `lipo_lambda_loss`."""
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.pair_logistic, *lists)


def lipo_pair_hinge_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the hinge loss of every (better, worse), summed over a list; see `lipo_lambda_loss`."""
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.pair_hinge, *lists)


def lipo_pair_square_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the squared distance of reward margins from grade margins, summed over (better, worse).

    Arguments and results are those of `lipo_lambda_loss`.
    """
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.pair_square, *lists)


def lipo_list_mle_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes minus the Plackett-Luce log-likelihood of the order of grades; see `lipo_lambda_loss`.

    Responses of one grade are taken in the order of the data.
    """
    lists = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    return _rank(ranking_losses.plackett_luce, *lists)


def lipo_softmax_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    grades: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> Result:
    """Computes the cross-entropy of softmax(rewards) with grades divided by their sum; see `lipo_lambda_loss`.

    Grades are at least 0; negative ones count as 0.
    """
    rewards, known, mask = implicit_lists(policy_sequence_logps, reference_sequence_logps, grades, prompt_index, beta)
    losses = ranking_losses.cross_entropy(rewards, ranking_losses.normalise_grades(known, mask), mask)
    return losses, ranking_metrics(rewards, known, mask)


def implicit_lists(policy: Tensor, reference: Tensor, grades: Tensor, prompt_index: Tensor, beta: float) -> Lists:
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


def _rank(loss: Callable[..., Tensor], rewards: Tensor, grades: Tensor, mask: Tensor) -> Result:
    return loss(rewards, grades, mask), ranking_metrics(rewards, grades, mask)
