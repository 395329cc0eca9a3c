"""Weighted model counting by brute force, in logarithms: the probability that a formula is true."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, expm1, inf, log, log1p

from mmalign_objectives.logic.formulas import Formula, iter_worlds

LIMIT = 4
"""Most propositions of one formula; every one more doubles the work, and squares the number of losses."""


def weighted_count(formula: Formula, log_probabilities: Mapping[str, float]) -> float:
    """Returns the log of the probability that `formula` is true; -inf if it never is.

    Args:
        formula: over at most `LIMIT` propositions.
        log_probabilities: of every proposition being true, below 0 and finite, in nats; they are independent.

    Raises:
        ValueError: a proposition has no probability, or there are too many.

    Source: arXiv:2412.17696, section 4.
    """
    names = sorted(formula.names())
    missing = [name for name in names if name not in log_probabilities]
    if missing or len(names) > LIMIT:
        problem = f"no probability of {missing[0]!r}" if missing else f"{len(names)} propositions, at most {LIMIT}"
        raise ValueError(f"weighted_count: {problem}; the formula is {formula}")
    worlds = [world for world in iter_worlds(names) if formula.holds(world)]
    return _log_sum([_weigh(world, log_probabilities) for world in worlds])


def _weigh(world: Mapping[str, bool], logs: Mapping[str, float]) -> float:
    return sum(logs[name] if value else _log1mexp(logs[name]) for name, value in world.items())


def _log1mexp(value: float) -> float:
    """Returns log(1 - exp(value)) for value < 0, by the form that is exact there."""
    if value >= 0:
        raise ValueError(f"weighted_count: expected log-probabilities below 0, got {value}")
    return log(-expm1(value)) if value > -log(2) else log1p(-exp(value))


def _log_sum(values: list[float]) -> float:
    largest = max(values, default=-inf)
    return largest if largest == -inf else largest + log(sum(exp(value - largest) for value in values))
