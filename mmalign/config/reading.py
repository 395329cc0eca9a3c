"""Reads the YAML of a configuration and applies overrides, without knowing its keys.

Whatever a file or an override holds, there is a mapping of plain values at the end, or one `ConfigError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmalign.errors import ConfigError

Overrides = Mapping[str, Any] | Sequence[str]

_UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What constructors of YAML raise, beside their own errors, where a value is not of its tag or nesting is deep."""


def read_config(path: str | Path, overrides: Overrides = ()) -> dict[str, Any]:
    """Reads a YAML mapping and applies overrides, without checking keys."""
    try:
        config = OmegaConf.load(path)
        if not OmegaConf.is_dict(config):
            raise ConfigError(f"{path}: expected a mapping of keys to values at the top level")
        return _override(config, overrides)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_nearest_file(Path(path))}") from None
    except OSError as error:
        # OmegaConf says so, too, where a file holds nothing but a number or a text.
        reason = f"cannot be read: {error.strerror}" if error.strerror else "expected a mapping of keys to values"
        raise ConfigError(f"{path}: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{path}: {where}{str(error).splitlines()[0]}") from None
    except _UNUSABLE as error:
        raise ConfigError(f"{path}: {_locate(Path(path)) or _first_line(error)}") from None


def apply_overrides(config: Mapping[str, Any], overrides: Overrides, source: str) -> dict[str, Any]:
    """Applies overrides to a configuration that is not in a file; raises ConfigError, which names `source`."""
    try:
        return _override(OmegaConf.create(dict(config)), overrides)
    except (OmegaConfBaseException, *_UNUSABLE) as error:
        raise ConfigError(f"{source}: {_first_line(error)}") from None


def _override(config: Any, overrides: Overrides) -> dict[str, Any]:
    for key, value in _iter_overrides(overrides):
        OmegaConf.update(config, key, value, merge=_changes_keys(config, key, value), force_add=True)
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _changes_keys(config: Any, key: str, value: Any) -> bool:
    # The parameters of the component that was there must not stay behind with a new one.
    return isinstance(value, Mapping) and "name" not in value and OmegaConf.is_dict(OmegaConf.select(config, key))


def _iter_overrides(overrides: Overrides) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    pairs = []
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r}: expected key.path=value, e.g. train.learning_rate=1e-5")
        pairs.append((key, _parse_value(key, value)))
    return pairs


def _parse_value(key: str, text: str) -> Any:
    try:
        return cast(Mapping[str, Any], OmegaConf.to_container(OmegaConf.create(f"value: {text}")))["value"]
    except yaml.YAMLError:
        return text
    except _UNUSABLE:
        raise ConfigError(f"override {key}: {_shorten(text)} is no value that YAML knows") from None


def _nearest_file(path: Path) -> str:
    names = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def _locate(path: Path) -> str:
    """Names the line of a value that is not of its tag; empty if that is not what is wrong."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        for node in _iter_scalars(loader.get_single_node()):
            try:
                loader.construct_object(node)
            except _UNUSABLE:
                tag = node.tag.rpartition(":")[2]
                return f"line {node.start_mark.line + 1}: {_shorten(node.value)} is not a YAML {tag}"
    except (yaml.YAMLError, RecursionError):
        return "nested too deeply"
    return ""


def _iter_scalars(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield node
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting += [one for pair in reversed(node.value) for one in reversed(pair)]


def _first_line(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]


def _shorten(text: str) -> str:
    """Quotes a text, cut to a part of a line."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
