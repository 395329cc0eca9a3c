"""The commands that show what is installed: `plugins`, `list`, `explain`, `schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mmalign.cli.context import current_registry
from mmalign.cli.keys import find_keys, nearby_keys, render_keys
from mmalign.config.parameters import ParameterRow, parameters_table
from mmalign.config.validation import load_config_model
from mmalign.contract.binding import read_binding
from mmalign.contract.specs import AdvantageSpec, ObjectiveSpec, QuantitySpec
from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.plugins.broken_strings import BrokenString, find_broken
from mmalign.plugins.loading import PluginInfo
from mmalign.plugins.registry import KINDS, Entry, Registry
from mmalign.shown_text import dump_json
from mmalign.terminal import add_row, output_console, show_text, write_line

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
_UNUSABLE = ("broken", "incompatible")
_STYLES = {"ok": "green", "disabled": "dim", "unavailable": "yellow", "broken": "red", "incompatible": "red"}


def plugins(
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="Import everything that the plugins name; takes longer.")
    ] = False,
) -> None:
    """List the installed plugins: name, distribution, version, status, and what each provides.

    Exit code 2 with `--check` if a plugin cannot be used, or names something that is not there.
    """
    registry = current_registry()
    broken = find_broken(registry, load=check)
    infos = [_with_broken(info, broken) for info in registry.plugin_set.infos]
    problems = [f"plugin {info.name!r} is {info.status}: {info.error}" for info in infos if info.status in _UNUSABLE]
    if check and problems:
        raise PluginError("\n".join(problems))
    if as_json:
        _print_json([info.to_dict() for info in infos])
        return
    table = _new_table("plugin", "distribution", "status", "provides")
    for info in infos:
        provided = [f"{_plural(kind)}: {', '.join(names)}" for kind, names in info.provides.items()]
        what = "\n".join([*provided, info.error] if info.error else provided)
        table.add_row(
            show_text(info.name),
            show_text(info.origin),
            Text(info.status, style=_STYLES[info.status]),
            show_text(what or "observer"),
        )
    output_console().print(table)


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
    console = output_console()
    for one in kinds:
        entries = registry.entries(one)
        if entries or kind:
            console.print(_parts_table(one, entries))


def explain(
    name: Annotated[str, typer.Argument(help="A part, e.g. dpo, or a key of configurations, e.g. train.")],
    kind: Annotated[str, typer.Option(help="The kind, if several kinds have a part of this name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Explain a part: equation, needs, parameters with their defaults, paper; or keys of a configuration."""
    kinds = [_parse_kind(kind)] if kind else list(KINDS)
    registry = current_registry()
    keys = [] if kind else find_keys(name)
    entries = _find_parts(registry, name, kinds, known_keys=bool(keys))
    if as_json:
        explained = [_explanation_to_dict(entry) | _limits(entry, registry) for entry in entries]
        _print_json(explained + [{"kind": "key", **row._asdict()} for row in keys])
        return
    if keys:
        output_console().print(render_keys(keys))
    for entry in entries:
        if name in entry.spec.aliases:
            output_console().print(Text(f"{name} is an alias of {entry.spec.name}, another name of the same part."))
        output_console().print(_render_explanation(entry, _limits(entry, registry)))


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
            output.write_text(dump_json(document) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output: cannot write {str(output)!r}: {error.strerror}") from None


def _with_broken(info: PluginInfo, broken: Sequence[BrokenString]) -> PluginInfo:
    """Marks a plugin as broken that names what is not there."""
    own = [f"{one.part}: {one.error}" for one in broken if one.plugin == info.name]
    return replace(info, status="broken", error="\n".join(own)) if own and info.status == "ok" else info


# -- looking up -----------------------------------------------------------------------------------------------------


def _parse_kind(text: str) -> str:
    for kind, plural in PLURALS.items():
        if text.lower() in (kind, plural):
            return kind
    raise ConfigError(f"unknown kind {text!r}{suggest(text, PLURALS.values())}")


def _find_parts(registry: Registry, name: str, kinds: Sequence[str], *, known_keys: bool) -> list[Entry[Any]]:
    entries = [entry for kind in kinds for entry in registry.entries(kind)]
    found = [entry for entry in entries if name in (entry.spec.name, *entry.spec.aliases)]
    if not found and not known_keys:
        if "." in name:
            raise ConfigError(f"unknown key {name!r}{suggest(name, nearby_keys(name))}")
        known = [known for entry in entries for known in (entry.spec.name, *entry.spec.aliases)]
        known += nearby_keys("") if kinds == list(KINDS) else []
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
        summary = show_text(entry.spec.summary)
        if entry.unavailable:
            summary.append(f"\nunavailable: {entry.unavailable}", style="yellow")
        table.add_row(show_text(entry.spec.name), show_text(entry.plugin.name), summary)
    return table


def _render_explanation(entry: Entry[Any], limits: Mapping[str, Sequence[str]]) -> Group:
    spec = entry.spec
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")  # a long path keeps its line number
    needs = _needs(entry)
    for name in _FACTS:
        value = needs.get(name) or getattr(spec, name, "")
        means_something = name != "aggregation" or getattr(spec, "per", "") == "step"
        if value and means_something:
            text = value if isinstance(value, str) else ", ".join(value)
            facts.add_row(Text(name.replace("_", " "), style="bold"), show_text(text))
    for name, values in limits.items():
        facts.add_row(Text(name, style="bold"), Text(", ".join(values) or _ABSENT[name]))
    facts.add_row(Text("plugin", style="bold"), Text(f"{entry.plugin.name} ({entry.plugin.origin})"))
    if entry.unavailable:
        facts.add_row(Text("unavailable", style="yellow"), Text(entry.unavailable))
    heading = Text(spec.name, style="bold").append(f" ({spec.kind})", style="default")
    return Group(
        heading, show_text(spec.summary), Padding(facts, (1, 0)), _render_parameters(_parameters(entry)), Text()
    )


def _render_parameters(parameters: list[ParameterRow] | str) -> Table | Text:
    if isinstance(parameters, str):
        return Text(f"parameters are not known: {parameters}", style="yellow")
    if not parameters:
        return Text("no parameters")
    table = _new_table("parameter", "type", "default", "")
    for row in parameters:
        add_row(table, *row)
    return table


def _print_json(document: Any) -> None:
    write_line(dump_json(document))
