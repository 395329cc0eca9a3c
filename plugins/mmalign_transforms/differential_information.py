"""What a policy has learnt beyond its reference, as a distribution over responses: pure functions.

The differential information distribution is q(y) proportional to policy(y) / reference(y). If rejected responses are
drawn with the weights of `rejection_weights`, DPO's optimum is exactly the policy they were made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from random import Random


def rejection_weights(policy_logps: Sequence[float], reference_logps: Sequence[float], beta: float) -> list[float]:
    """Returns (reference / policy)^beta of every candidate, normalised: how to draw rejected responses.

    Args:
        policy_logps: of the candidates, which are samples of the reference; nats, summed over steps.
        reference_logps: of the same candidates.
        beta: inverse temperature of DPO, positive.

    Source: arXiv:2505.23761.
    """
    pairs = zip(policy_logps, reference_logps, strict=True)
    return _softmax([beta * (reference - policy) for policy, reference in pairs])


def draw_rejected(weights: Sequence[float], count: int, chance: Random) -> list[int]:
    """Draws `count` indices with replacement by their weights."""
    return chance.choices(range(len(weights)), weights=weights, k=count)


def information_entropy(policy_logps: Sequence[float], reference_logps: Sequence[float]) -> float:
    """Estimates the entropy of q, in nats, from samples of the policy, by self-normalised importance weights.

    With q = policy / (reference Z) the weights are q / policy, proportional to 1 / reference, and Z is their mean. A
    low entropy reinforces a few responses, a high one smooths.

    Args:
        policy_logps: of samples of the policy, repetitions included, nats, summed over steps.
        reference_logps: of the same samples.

    Source: arXiv:2505.23761.
    """
    weights = _softmax([-reference for reference in reference_logps])
    log_normaliser = _log_sum([-reference for reference in reference_logps]) - log(len(reference_logps))
    samples = zip(weights, policy_logps, reference_logps, strict=True)
    return log_normaliser - sum(weight * (policy - reference) for weight, policy, reference in samples)


def count_order_violations(margins: Sequence[float], log_ratio_margins: Sequence[float]) -> int:
    """Counts the couples of pairs that the log-prob margin and the log-ratio margin order differently; 0 if none.

    Args:
        margins: log policy(chosen) - log policy(rejected) of every pair.
        log_ratio_margins: the same of log(policy / reference).
    """
    both = list(zip(margins, log_ratio_margins, strict=True))
    return sum(
        (one[0] - other[0]) * (one[1] - other[1]) < 0 for place, one in enumerate(both) for other in both[place + 1 :]
    )


def _softmax(logits: Sequence[float]) -> list[float]:
    normaliser = _log_sum(logits)
    return [exp(logit - normaliser) for logit in logits]


def _log_sum(logits: Sequence[float]) -> float:
    largest = max(logits)
    return largest + log(sum(exp(logit - largest) for logit in logits))
