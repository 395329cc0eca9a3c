"""Prints the named losses as formulas and how they are ordered: python -m mmalign_objectives.logic."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mmalign_objectives.logic.structures import INSTANCES, compare

_SIGNS = {"equivalent": "=", "entails": ">=", "entailed": "<=", "incomparable": "?"}


def main() -> None:
    """Prints two tables."""
    formulas = Table("loss", "P", "P_C", "P_A", "N / M", title="-log sigmoid(beta log(N / M))")
    for name, structure in INSTANCES.items():
        parts = (structure.core, structure.constraint, structure.additive)
        formulas.add_row(name, *map(str, parts), structure.equation)
    order = Table("loss", *INSTANCES, title="is the loss in the row at least (>=) that in the column, always?")
    for name, structure in INSTANCES.items():
        order.add_row(name, *(_SIGNS[compare(structure, other)] for other in INSTANCES.values()))
    console = Console()
    console.print(formulas, markup=False)
    console.print(order, markup=False)


if __name__ == "__main__":
    main()
