"""The commands that show what is installed: `plugins`, `list`, `explain`, `schema`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mmalign.binding import read_binding
from mmalign.cli.context import current_registry
from mmalign.config.validation import ParameterRow, load_config_model, parameters_table
from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.registry import KINDS, Entry, Registry
from mmalign.specs import AdvantageSpec, ObjectiveSpec, QuantitySpec

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PLURALS = {kind: f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s" for kind in KINDS}

_FACTS = (
    "equation defined_in needs per over aggregation axes stage module provides log_prob_kind log_prob_kinds paper "
    "aliases"
).split()
_ABSENT = {
    "modalities": "none that is installed",
    "needs met by": "no part that is installed",
    "batch-coupled": "no",
    "golden vectors": "none official",
}
"""What stands where an objective has nothing of the sort."""
_STYLES = {"ok": "green", "disabled": "dim", "unavailable": "yellow", "broken": "red", "incompatible": "red"}


def plugins(as_json: AsJson = False) -> None:
    """List the installed plugins: name, distribution, version, status, and what each provides."""
    infos = current_registry().plugin_set.infos
    if as_json:
        _print_json([info.to_dict() for info in infos])
        return
    table = _new_table("plugin", "distribution", "status", "provides")
    for info in infos:
        provided = [f"{_plural(kind)}: {', '.join(names)}" for kind, names in info.provides.items()]
        what = "\n".join([*provided, info.error] if info.error else provided)
        table.add_row(
            Text(info.name), Text(info.origin), Text(info.status, style=_STYLES[info.status]), Text(what or "observer")
        )
    Console().print(table)


def list_parts(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of: {', '.join(PLURALS.values())}.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the parts of a kind, or of all kinds."""
    kinds = [_parse_kind(kind)] if kind else list(KINDS)
    registry = current_registry()
    if as_json:
        _print_json([_part_to_dict(entry) for one in kinds for entry in registry.entries(one)])
        return
    console = Console()
    for one in kinds:
        entries = registry.entries(one)
        if entries or kind:
            console.print(_parts_table(one, entries))


def explain(
    name: Annotated[str, typer.Argument(help="A part, e.g. dpo.")],
    kind: Annotated[str, typer.Option(help="The kind, if several kinds have a part of this name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Explain a part: equation, needs, parameters with their defaults, paper."""
    kinds = [_parse_kind(kind)] if kind else list(KINDS)
    registry = current_registry()
    entries = _find_parts(registry, name, kinds)
    if as_json:
        _print_json([_explanation_to_dict(entry) | _limits(entry, registry) for entry in entries])
        return
    for entry in entries:
        if name in entry.spec.aliases:
            Console().print(Text(f"{name} is an alias of {entry.spec.name}, another name of the same part."))
        Console().print(_render_explanation(entry, _limits(entry, registry)))


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: print.")] = None,
) -> None:
    """Write the JSON Schema of run configurations with the installed parts, for editors."""
    from mmalign.config.run_config import COMPONENT_KINDS, RunConfig
    from mmalign.config.schema import json_schema

    document = json_schema(RunConfig, COMPONENT_KINDS, current_registry())
    if output is None:
        _print_json(document)
    else:
        try:
            output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output: cannot write {str(output)!r}: {error.strerror}") from None


# -- looking up -----------------------------------------------------------------------------------------------------


def _parse_kind(text: str) -> str:
    for kind, plural in PLURALS.items():
        if text.lower() in (kind, plural):
            return kind
    raise ConfigError(f"unknown kind {text!r}{suggest(text, PLURALS.values())}")


def _find_parts(registry: Registry, name: str, kinds: Sequence[str]) -> list[Entry[Any]]:
    entries = [entry for kind in kinds for entry in registry.entries(kind)]
    found = [entry for entry in entries if name in (entry.spec.name, *entry.spec.aliases)]
    if not found:
        known = [known for entry in entries for known in (entry.spec.name, *entry.spec.aliases)]
        raise ConfigError(f"unknown part {name!r}{suggest(name, known)}")
    return found


def _parameters(entry: Entry[Any]) -> list[ParameterRow] | str:
    """Lists the parameters, or says why they cannot be listed."""
    try:
        return parameters_table(load_config_model(entry.spec))
    except PluginError as error:
        return str(error)


def _needs(entry: Entry[Any]) -> dict[str, Any]:
    """The quantities that a part's function takes, and where that is; nothing of other parts or broken ones."""
    if not isinstance(entry.spec, (ObjectiveSpec, AdvantageSpec, QuantitySpec)):
        return {}
    try:
        binding = read_binding(entry.spec, entry.plugin.name)
    except PluginError as error:
        return {"defined_in": str(error)}
    return {"needs": binding.needs, "defined_in": f"{binding.signature.file}:{binding.signature.line}"}


def _limits(entry: Entry[Any], registry: Registry) -> dict[str, Any]:
    """What an objective can be used with, and the golden vectors it is checked against; nothing of other parts."""
    if entry.spec.kind != "objective":
        return {}
    from mmalign.planning.limits import find_limits, golden_methods

    limits = find_limits(entry.spec, registry)
    return {
        "modalities": limits.modalities,
        "needs met by": limits.data,
        "batch-coupled": limits.coupled,
        "golden vectors": golden_methods(entry, registry),
    }


def _part_to_dict(entry: Entry[Any]) -> dict[str, Any]:
    spec, plugin = entry.spec, entry.plugin
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "aliases": list(spec.aliases),
        "paper": spec.paper,
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": "unavailable" if entry.unavailable else "ok",
        "error": entry.unavailable,
    }


def _explanation_to_dict(entry: Entry[Any]) -> dict[str, Any]:
    parameters = _parameters(entry)
    own = {field.name: getattr(entry.spec, field.name) for field in fields(entry.spec)} | _needs(entry)
    rows = [] if isinstance(parameters, str) else [row._asdict() for row in parameters]
    error = entry.unavailable or (parameters if isinstance(parameters, str) else "")
    return {**own, **_part_to_dict(entry), "parameters": rows, "error": error}


# -- printing -------------------------------------------------------------------------------------------------------


def _plural(kind: str) -> str:
    return PLURALS.get(kind, kind)


def _new_table(*columns: str, title: str = "") -> Table:
    table = Table(*columns, title=title or None, box=None, title_justify="left", header_style="bold", pad_edge=False)
    table.columns[0].no_wrap = True
    return table


def _parts_table(kind: str, entries: Sequence[Entry[Any]]) -> Table:
    table = _new_table(_plural(kind), "plugin", "")
    for entry in entries:
        summary = Text(entry.spec.summary)
        if entry.unavailable:
            summary.append(f"\nunavailable: {entry.unavailable}", style="yellow")
        table.add_row(Text(entry.spec.name), Text(entry.plugin.name), summary)
    return table


def _render_explanation(entry: Entry[Any], limits: Mapping[str, Sequence[str]]) -> Group:
    spec = entry.spec
    facts = Table.grid(padding=(0, 2))
    needs = _needs(entry)
    for name in _FACTS:
        value = needs.get(name) or getattr(spec, name, "")
        means_something = name != "aggregation" or getattr(spec, "per", "") == "step"
        if value and means_something:
            text = value if isinstance(value, str) else ", ".join(value)
            facts.add_row(Text(name.replace("_", " "), style="bold"), Text(text))
    for name, values in limits.items():
        facts.add_row(Text(name, style="bold"), Text(", ".join(values) or _ABSENT[name]))
    facts.add_row(Text("plugin", style="bold"), Text(f"{entry.plugin.name} ({entry.plugin.origin})"))
    if entry.unavailable:
        facts.add_row(Text("unavailable", style="yellow"), Text(entry.unavailable))
    heading = Text(spec.name, style="bold").append(f" ({spec.kind})", style="default")
    return Group(heading, Text(spec.summary), Padding(facts, (1, 0)), _render_parameters(_parameters(entry)), Text())


def _render_parameters(parameters: list[ParameterRow] | str) -> Table | Text:
    if isinstance(parameters, str):
        return Text(f"parameters are not known: {parameters}", style="yellow")
    if not parameters:
        return Text("no parameters")
    table = _new_table("parameter", "type", "default", "")
    for row in parameters:
        table.add_row(*map(Text, row))
    return table


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
