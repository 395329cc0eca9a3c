"""How a model ranks preference pairs, and how well it could: pure functions of log-probs, [M] to [M].

Ranking accuracy asks whether the policy finds the preferred response likelier; reward accuracy, whether it has become
likelier than under the reference by more. The idealised policy is the optimum of the RLHF and DPO objectives for raters
of whom a known proportion prefer the chosen response; its ranking accuracy bounds what training on the pairs can reach.

Log-probs are in nats: summed over steps or, for the length-normalised forms, averaged.

Source of all: arXiv:2405.19534.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

SURE = 1e-3
"""How far from certainty the proportion of raters is taken to be where all of them agree."""


def is_higher(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Marks the pairs whose chosen response has the higher value: 1, else 0; a tie is 0.

    Of log-probs this is the ranking accuracy, of log-ratios the reward accuracy.
    """
    return (chosen > rejected).to(chosen.dtype)


def idealised_log_ratios(
    reference_chosen: Tensor, reference_rejected: Tensor, preferred: Tensor, *, beta: float
) -> Tensor:
    """Computes log(policy of chosen / policy of rejected) of the idealised policy.

    Args:
        reference_chosen: [M], log-probs of the reference; sums, or means for the length-normalised form.
        reference_rejected: [M].
        preferred: [M], proportion of raters that prefer chosen, in [0, 1]; kept `SURE` away from both ends.
        beta: inverse temperature of the implicit reward, positive.

    Source: corollary 3.3.
    Differs: the official code divides the two log-probs in the un-normalised form, which inverts the comparison.
    """
    return reference_chosen - reference_rejected + preferred.clamp(SURE, 1 - SURE).logit() / beta


def flip_thresholds(reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float) -> Tensor:
    """Computes the DPO loss of a pair at and below which the policy ranks it rightly: [M].

    It is at most ln 2 where the reference ranks the pair wrongly: the more wrongly, the smaller.

    Args:
        reference_chosen: [M], log-probs of the reference, summed over steps.
        reference_rejected: [M].
        beta: inverse temperature of the implicit reward, positive.

    Source: theorem 4.1.
    """
    return -logsigmoid(beta * (reference_rejected - reference_chosen))


def acceptance_probabilities(rewards: Tensor, *, beta: float) -> Tensor:
    """Computes the probability that rejection sampling accepts each candidate in its first round: [N].

    Args:
        rewards: [N], of all candidates.
        beta: temperature of the policy that is sampled from, reference * exp(reward / beta).

    Source: arXiv:2309.06657, the algorithm of its rejection sampling.
    """
    return ((rewards - rewards.max()) / beta).exp()


def rater_proportions(pair_strength: Tensor) -> Tensor:
    """Reads the proportion of raters that prefer chosen from the strength of pairs: [M].

    One that is no probability, or is NaN, says nothing of raters: all of them then agree.
    """
    told = (pair_strength >= 0) & (pair_strength <= 1)
    return torch.where(told, pair_strength, 1.0)
