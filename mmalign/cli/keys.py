"""What `mmalign explain` says of the keys of a configuration that belong to the engine."""

from __future__ import annotations

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mmalign.config.parameters import ParameterRow, parameters_table
from mmalign.config.run_config import COMPONENT_KINDS, RunConfig


def find_keys(name: str) -> list[ParameterRow]:
    """Finds a key and those below it by its path, or keys by their last name, e.g. `learning_rate`."""
    rows = parameters_table(RunConfig)
    return [row for row in rows if row.name == name or row.name.startswith(f"{name}.")] or [
        row for row in rows if row.name.rpartition(".")[2] == name
    ]


def nearby_keys(name: str) -> list[str]:
    """Lists the keys that a misspelt path can have meant: those of its section, or the sections."""
    names = [row.name for row in parameters_table(RunConfig)]
    section = name.rpartition(".")[0]
    return [one for one in names if section and one.startswith(f"{section}.")] or [
        one for one in names if "." not in one
    ]


def render_keys(rows: list[ParameterRow]) -> Group:
    """Renders keys; one alone with its type, default and meaning in lines, several as a table."""
    parts = [Text(f"the other keys are those of the part: mmalign list {kind}") for kind in _kinds(rows)]
    if len(rows) == 1:
        return Group(_one(rows[0]), *parts, Text())
    table = Table("key", "type", "default", "", box=None, header_style="bold", pad_edge=False)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(table, *parts, Text())


def _one(row: ParameterRow) -> Group:
    facts = Table.grid(padding=(0, 2))
    for name, value in (("type", row.type), ("default", row.default)):
        facts.add_row(Text(name, style="bold"), Text(value))
    return Group(
        Text(row.name, style="bold").append(" (configuration)", "default"), Text(row.help), Padding(facts, (1, 0))
    )


def _kinds(rows: list[ParameterRow]) -> list[str]:
    names = {row.name for row in rows}
    return [kind for path, kind in COMPONENT_KINDS.items() if path in names]
