"""Propositional formulas, written with Python's operators, and what follows from what.

>>> w, l = Proposition("w"), Proposition("l")
>>> print(l >> w, "|", w & ~l)
(l -> w) | (w & ~l)
>>> entails(w & ~l, l >> w), entails(l >> w, w & ~l)
(True, False)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product


class Formula:
    """Base of all formulas: `~p`, `p & q`, `p | q`, and `p >> q` for "if p then q"."""

    def holds(self, world: Mapping[str, bool]) -> bool:
        """Says whether it is true where every proposition has the given value."""
        raise NotImplementedError

    def names(self) -> frozenset[str]:
        """Returns the propositions in it."""
        raise NotImplementedError

    def __invert__(self) -> Formula:
        return Negation(self)

    def __and__(self, other: Formula) -> Formula:
        return Combination("&", self, other)

    def __or__(self, other: Formula) -> Formula:
        return Combination("|", self, other)

    def __rshift__(self, other: Formula) -> Formula:
        return Combination("->", self, other)


@dataclass(frozen=True)
class Constant(Formula):
    """True or false everywhere."""

    value: bool

    def holds(self, world: Mapping[str, bool]) -> bool:
        """See `Formula`."""
        return self.value

    def names(self) -> frozenset[str]:
        """See `Formula`."""
        return frozenset()

    def __str__(self) -> str:
        return "true" if self.value else "false"


TRUE, FALSE = Constant(True), Constant(False)


@dataclass(frozen=True)
class Proposition(Formula):
    """Something that may be so, e.g. "the model produces the chosen response"."""

    name: str

    def holds(self, world: Mapping[str, bool]) -> bool:
        """See `Formula`."""
        return world[self.name]

    def names(self) -> frozenset[str]:
        """See `Formula`."""
        return frozenset({self.name})

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Negation(Formula):
    """Not."""

    part: Formula

    def holds(self, world: Mapping[str, bool]) -> bool:
        """See `Formula`."""
        return not self.part.holds(world)

    def names(self) -> frozenset[str]:
        """See `Formula`."""
        return self.part.names()

    def __str__(self) -> str:
        return f"~{self.part}"


@dataclass(frozen=True)
class Combination(Formula):
    """Two formulas joined by `&`, `|` or `->`."""

    sign: str
    left: Formula
    right: Formula

    def holds(self, world: Mapping[str, bool]) -> bool:
        """See `Formula`."""
        left, right = self.left.holds(world), self.right.holds(world)
        if self.sign == "&":
            return left and right
        return (left if self.sign == "|" else not left) or right

    def names(self) -> frozenset[str]:
        """See `Formula`."""
        return self.left.names() | self.right.names()

    def __str__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"


def iter_worlds(names: Sequence[str]) -> Iterator[dict[str, bool]]:
    """Yields all 2^n ways in which propositions can be true or false."""
    for values in product((False, True), repeat=len(names)):
        yield dict(zip(names, values, strict=True))


def entails(premise: Formula, conclusion: Formula) -> bool:
    """Says whether `conclusion` is true wherever `premise` is."""
    names = sorted(premise.names() | conclusion.names())
    return all(conclusion.holds(world) for world in iter_worlds(names) if premise.holds(world))


def from_worlds(worlds: Sequence[Mapping[str, bool]]) -> Formula:
    """Returns a formula that is true in exactly these worlds."""
    formula: Formula = FALSE
    for world in worlds:
        term: Formula = TRUE
        for name, value in world.items():
            literal = Proposition(name) if value else ~Proposition(name)
            term = literal if term is TRUE else term & literal
        formula = term if formula is FALSE else formula | term
    return formula
