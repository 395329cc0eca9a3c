"""The JSON Schema of run configurations, in which every component is one of the parts that are installed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mmalign.config.validation import load_config_model
from mmalign.errors import PluginError
from mmalign.plugins.registry import Entry, Registry

Schema = dict[str, Any]


def json_schema(model_class: type[BaseModel], kinds: Mapping[str, str], registry: Registry) -> Schema:
    """Builds a schema for editors.

    Args:
        model_class: the model of a whole configuration.
        kinds: key path of every component (or list of components) and the kind of part that its `name` is looked up in.

    Returns:
        a JSON Schema (draft 2020-12). A list of components also accepts a single one.
    """
    root = model_class.model_json_schema()
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions: Schema = root.setdefault("$defs", {})
    for path, kind in kinds.items():
        *parents, last = path.split(".")
        owner = root
        for key in parents:
            owner = _resolve(owner["properties"][key], definitions)
        properties = owner["properties"]
        # Two sections of one model, such as data.train and data.eval, share their schema.
        if not _mentions(properties[last], kind):
            _define_kind(kind, _shared_keys(properties[last], definitions), registry, definitions)
            properties[last] = _with_choice(properties[last], {"$ref": f"#/$defs/{kind}"})
    return root


def _mentions(schema: Any, kind: str) -> bool:
    if isinstance(schema, dict):
        return schema.get("$ref") == f"#/$defs/{kind}" or any(_mentions(value, kind) for value in schema.values())
    return isinstance(schema, list) and any(_mentions(value, kind) for value in schema)


def _resolve(schema: Schema, definitions: Schema) -> Schema:
    """Follows a reference, through `anyOf` with null, to the schema of an object."""
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            found: Schema = definitions[option["$ref"].rpartition("/")[2]]
            return found
    return schema


def _shared_keys(schema: Schema, definitions: Schema) -> Schema:
    """Finds the keys that a component has beside `name` and the part's parameters, i.e. `weight`."""
    component = _resolve(schema.get("items", schema), definitions)
    return {key: value for key, value in component.get("properties", {}).items() if key != "name"}


def _with_choice(schema: Schema, choice: Schema) -> Schema:
    kept: Schema = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    if schema.get("type") == "array":
        limits: Schema = {key: schema[key] for key in ("minItems", "maxItems") if key in schema}
        return {**kept, "anyOf": [choice, {"type": "array", "items": choice, **limits}]}
    if any(option.get("type") == "null" for option in schema.get("anyOf", [])):
        return {**kept, "anyOf": [choice, {"type": "null"}]}
    return {**kept, **choice}


def _define_kind(kind: str, shared: Schema, registry: Registry, definitions: Schema) -> None:
    entries = registry.entries(kind)
    for entry in entries:
        definitions[f"{kind}.{entry.spec.name}"] = _part_schema(entry, shared, definitions)
    parts = [{"$ref": f"#/$defs/{kind}.{entry.spec.name}"} for entry in entries]
    # `oneOf: []` is not a schema; without a part of the kind nothing is valid.
    definitions[kind] = {"oneOf": parts} if parts else {"not": {}}


def _part_schema(entry: Entry[Any], shared: Schema, definitions: Schema) -> Schema:
    spec = entry.spec
    names = [spec.name, *spec.aliases]
    part: Schema = {
        "type": "object",
        "title": f"{spec.kind} {spec.name}",
        "description": f"{spec.summary} Plugin: {entry.plugin.name}.",
        "properties": {"name": {"const": spec.name} if len(names) == 1 else {"enum": names}, **shared},
        "required": ["name"],
    }
    prefix = f"{spec.kind}.{spec.name}."
    try:
        parameters = load_config_model(spec).model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    except PluginError:
        # Not installed here: the name is known, its parameters are not.
        return part
    definitions.update({f"{prefix}{name}": nested for name, nested in parameters.pop("$defs", {}).items()})
    part["properties"] |= parameters.get("properties", {})
    part["required"] += parameters.get("required", [])
    part["additionalProperties"] = parameters.get("additionalProperties", True)
    return part
