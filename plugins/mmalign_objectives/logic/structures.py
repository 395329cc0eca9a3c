"""Preference structures: three formulas that make a loss, the named ones, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, log1p
from typing import Literal

from mmalign_objectives.logic.counting import weighted_count
from mmalign_objectives.logic.formulas import FALSE, TRUE, Formula, Proposition, entails, iter_worlds

Relation = Literal["equivalent", "entails", "entailed", "incomparable"]


@dataclass(frozen=True)
class PreferenceStructure:
    """A formula of what a model should produce, with conditions on which worlds count for which side.

    Attributes:
        core: P, what is preferred to be true.
        constraint: P_C, worlds outside of it do not count.
        additive: P_A, worlds that count for both sides.

    Source: arXiv:2412.17696, section 4.
    """

    core: Formula
    constraint: Formula = TRUE
    additive: Formula = FALSE

    @classmethod
    def from_sides(cls, preferred: Formula, dispreferred: Formula) -> PreferenceStructure:
        """Derives the structure of the loss whose ratio has the worlds `preferred` over the worlds `dispreferred`.

        >>> w, l = Proposition("w"), Proposition("l")
        >>> compare(PreferenceStructure.from_sides(w, l), INSTANCES["cpo"])
        'equivalent'
        """
        return cls(preferred, preferred | dispreferred, preferred & dispreferred)

    @property
    def preferred(self) -> Formula:
        """(P or P_A) and P_C: the worlds of the numerator."""
        return (self.core | self.additive) & self.constraint

    @property
    def dispreferred(self) -> Formula:
        """(not P or P_A) and P_C: the worlds of the denominator."""
        return (~self.core | self.additive) & self.constraint

    @property
    def equation(self) -> str:
        """The ratio N / M, written with the probabilities of the propositions."""
        return f"({_write(self.preferred)}) / ({_write(self.dispreferred)})"

    def log_ratio(self, log_probabilities: Mapping[str, float]) -> float:
        """Returns rho, the log of numerator over denominator.

        Args:
            log_probabilities: of each proposition, below 0; those of responses are mean log-probs.

        Raises:
            ValueError: neither side has a world.
        """
        sides = [weighted_count(side, log_probabilities) for side in (self.preferred, self.dispreferred)]
        if sides == [-inf, -inf]:
            raise ValueError(f"log_ratio: the constraint {self.constraint} leaves no world")
        return sides[0] - sides[1]

    def loss(self, log_probabilities: Mapping[str, float], *, beta: float = 1.0) -> float:
        """Returns -log sigmoid(beta rho); see `log_ratio`."""
        margin = beta * self.log_ratio(log_probabilities)
        return max(-margin, 0.0) + log1p(exp(-abs(margin)))


def _write(formula: Formula) -> str:
    names = sorted(formula.names())
    worlds = [world for world in iter_worlds(names) if formula.holds(world)]
    return " + ".join(" ".join(name if world[name] else f"(1 - {name})" for name in names) for world in worlds) or "0"


def compare(one: PreferenceStructure, other: PreferenceStructure) -> Relation:
    """Says how the losses of two structures are ordered.

    `entails`: the worlds preferred by `one` are preferred by `other`, and those dispreferred by `other` are
    dispreferred by `one`. Then the loss of `one` is at least that of `other`, whatever the probabilities and beta.

    Source: arXiv:2412.17696, section 5.
    """
    forward = entails(one.preferred, other.preferred) and entails(other.dispreferred, one.dispreferred)
    backward = entails(other.preferred, one.preferred) and entails(one.dispreferred, other.dispreferred)
    if forward and backward:
        return "equivalent"
    return "entails" if forward else "entailed" if backward else "incomparable"


_W, _L = Proposition("w"), Proposition("l")
_REF_W, _REF_L = Proposition("ref_w"), Proposition("ref_l")
# What raises the chosen response against the reference, and what raises the rejected one.
_GAIN, _LOSS = _W & _REF_L, _REF_W & _L

INSTANCES: dict[str, PreferenceStructure] = {
    "orpo": PreferenceStructure(_L >> _W, (_W & ~_L) | (~_W & _L)),
    "cpo": PreferenceStructure(_L >> _W, _W | _L, _W & _L),
    "asft": PreferenceStructure(_W & ~_L),
    "uncpo": PreferenceStructure(_L >> _W),
    "dpo": PreferenceStructure(_LOSS >> _GAIN, _LOSS | _GAIN, _LOSS & _GAIN),
}
"""Published losses as structures over w and l, "the model produces the chosen (rejected) response", and the same of the
reference. `asft` (cUnl in the paper) and `orpo` are the alignment terms of those losses; `uncpo` has no other name."""
