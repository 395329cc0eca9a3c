"""Which format reads what: files by their names, rows by their columns, or both as the key `format` says."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

from mmalign.config.validation import validate_parameters
from mmalign.contract.formats import FileFormat, Layout, Row
from mmalign.contract.specs import FileFormatSpec, FormatSpec, LayoutSpec
from mmalign.errors import ConfigError, DataError, PluginError, suggest
from mmalign.foreign import foreign_code
from mmalign.import_strings import load_object
from mmalign.plugins.registry import Registry, load_registry

_SIMILAR = 0.85
_NEAR = 0.75


@cache
def installed_formats() -> Registry:
    """Returns the registry of all installed plugins, for whoever reads data without a run."""
    return load_registry()


@contextmanager
def format_code(part: str, owner: Any) -> Iterator[None]:
    """Turns what the code of a format raises into one error, as `foreign_code` does; what is too deep is the data's."""
    try:
        with foreign_code(part, owner):
            yield
    except PluginError as error:
        if isinstance(error.__cause__, RecursionError):
            raise DataError(f"{part}: nested too deeply") from None
        raise


@dataclass(frozen=True)
class BoundLayout:
    """A layout with its spec."""

    spec: LayoutSpec
    layout: Layout

    @property
    def looks(self) -> bool:
        """True if the layout looks at columns itself, so that it may find rows that its spec does not."""
        return type(self.layout).recognise is not Layout.recognise

    def count_told(self, columns: Collection[str]) -> int:
        """Returns the size of the largest set of telling columns that is there."""
        return max((len(names) for names in self.spec.columns if all(name in columns for name in names)), default=0)


class Formats:
    """The formats of a registry, and those that the configuration names.

    Args:
        chosen: what `format` says: at most one file format and one layout; what is not named is recognised.
        where: key path of the data section, for messages.

    Raises:
        ConfigError: an unknown name or parameter, or two formats of one sort.
    """

    def __init__(
        self, registry: Registry | None = None, chosen: Sequence[Mapping[str, Any]] = (), where: str = "data.train"
    ) -> None:
        self._registry = registry or installed_formats()
        self._file: FileFormat | None = None
        self._layout: BoundLayout | None = None
        # Rows come in few shapes: what depends on the names of their columns alone is found once for each.
        self._spelt: set[tuple[str, frozenset[str]]] = set()
        for index, component in enumerate(chosen):
            place = f"{where}.format" if len(chosen) == 1 else f"{where}.format[{index}]"
            self._choose(component, place)

    @classmethod
    def of(cls, layout: BoundLayout) -> Formats:
        """Returns formats that read every row by one layout."""
        formats = cls()
        formats._layout = layout
        return formats

    def _choose(self, component: Mapping[str, Any], place: str) -> None:
        spec, built = self.build(component, place)
        if isinstance(spec, LayoutSpec):
            if self._layout is not None:
                raise ConfigError(f"{place}: two layouts of rows; expected at most one, beside a format of files")
            self._layout = BoundLayout(spec, built)
        else:
            if self._file is not None:
                raise ConfigError(f"{place}: two formats of files; expected at most one, beside a layout of rows")
            self._file = built

    def build(self, component: Mapping[str, Any], place: str) -> tuple[FormatSpec, Any]:
        """Builds the format that a component (`name` and parameters) names.

        Raises:
            ConfigError: an unknown name or parameter.
            PluginError: it cannot be loaded.
        """
        spec: FormatSpec = self._registry.find("format", component["name"], place).spec
        given = {key: value for key, value in component.items() if key != "name"}
        return spec, _build(spec, given, place)

    # -- files --------------------------------------------------------------------------------------------------------

    @cached_property
    def suffixes(self) -> dict[str, FileFormatSpec]:
        """The format of files by the end of their names.

        Raises:
            PluginError: two formats claim one.
        """
        found: dict[str, FileFormatSpec] = {}
        for spec in self._file_specs("file"):
            for suffix in spec.suffixes:
                if suffix in found:
                    both = f"{found[suffix].name!r} and {spec.name!r}"
                    raise PluginError(f"two formats read files named {suffix}: {both}; switch one of the plugins off")
                found[suffix] = spec
        return found

    def for_file(self, path: Path) -> FileFormat | None:
        """Returns what reads (or writes) a file of this name; None if that is not known."""
        if self._file is not None:
            return self._file
        fitting = [suffix for suffix in self.suffixes if path.name.lower().endswith(suffix)]
        return self._load_file(self.suffixes[max(fitting, key=len)]) if fitting else None

    def for_folder(self, path: Path) -> FileFormat | None:
        """Returns what reads a folder; None if nothing does."""
        if self._file is not None:
            return self._file
        folders = (self._load_file(spec) for spec in self._file_specs("folder"))
        return next((one for one in folders if one.accepts(path)), None)

    def for_hub(self) -> FileFormat | None:
        """Returns what reads data sets of the hub; None if nothing does."""
        if self._file is not None:
            return self._file
        return next(map(self._load_file, self._file_specs("hub")), None)

    def _file_specs(self, source: str) -> list[FileFormatSpec]:
        specs = [entry.spec for entry in self._registry.entries("format") if not entry.unavailable]
        return [spec for spec in specs if isinstance(spec, FileFormatSpec) and spec.source == source]

    def _load_file(self, spec: FileFormatSpec) -> FileFormat:
        return cast(FileFormat, self._load(spec))

    # -- rows ---------------------------------------------------------------------------------------------------------

    @cached_property
    def layouts(self) -> tuple[BoundLayout, ...]:
        """All layouts that can be recognised."""
        specs = [entry.spec for entry in self._registry.entries("format") if not entry.unavailable]
        return tuple(BoundLayout(spec, self._load(spec)) for spec in specs if isinstance(spec, LayoutSpec))

    def for_row(self, columns: Row) -> BoundLayout:
        """Returns the layout of a row, from its columns that are not null.

        Raises:
            DataError: no layout is recognised, or several are equally well.
        """
        if self._layout is not None:
            return self._layout
        found: dict[str, int] = {}
        for one, told in self._count_told(frozenset(columns)):
            with format_code(f"format {one.spec.name!r}", one.layout):
                found[one.spec.name] = one.layout.recognise(columns, told)
        best = max(found.values(), default=0)
        names = [name for name, strength in found.items() if strength == best]
        if best <= 0:
            raise DataError(self._describe_unknown(columns))
        if len(names) > 1:
            raise DataError(
                f"columns {_list(columns)} may be of the format {' or '.join(names)}; "
                f"say which, e.g. format: {names[0]}"
            )
        return next(one for one in self.layouts if one.spec.name == names[0])

    def check_misspelt(self, columns: Row, bound: BoundLayout) -> None:
        """Raises DataError for a column that looks like a misspelt one of the row's layout, or of a more telling one.

        A misspelt 'chosen' would turn preferences into bare prompts without a word.
        """
        names = frozenset(columns)
        if (bound.spec.name, names) not in self._spelt:
            self._check_misspelt(names, bound)
            self._spelt.add((bound.spec.name, names))

    @cache  # noqa: B019 - formats live as long as the data they read
    def _count_told(self, columns: frozenset[str]) -> tuple[tuple[BoundLayout, int], ...]:
        """Returns the layouts that may read rows of these columns, those that have to look at them included."""
        told = ((one, one.count_told(columns)) for one in self.layouts)
        return tuple((one, count) for one, count in told if count or one.looks)

    def _check_misspelt(self, columns: frozenset[str], bound: BoundLayout) -> None:
        told = bound.count_told(columns)
        others = () if self._layout is not None else self.layouts
        nearly = {
            name
            for one in others
            for names in one.spec.columns
            for name in names
            if len(names) > told and sum(other not in columns for other in names) == 1
        }
        for name in sorted(columns - bound.spec.known):
            close = difflib.get_close_matches(name, sorted(bound.spec.known | nearly), n=1, cutoff=_SIMILAR)
            if close and close[0] not in columns:
                raise DataError(f"{name}: unknown column; did you mean {close[0]!r}? rename it, here or with 'columns'")

    def _describe_unknown(self, columns: Row) -> str:
        told = [(_closeness(names, columns), one.spec, names) for one in self.layouts for names in one.spec.columns]
        # Among equals, the layout with the most forms is the likeliest.
        told.sort(key=lambda one: (one[0], len(one[1].columns)), reverse=True)
        closest, spec, names = told[0] if told else (0.0, None, ())
        hint = ""
        if spec is not None and closest > 0:
            missing = [one for one in names if one not in columns]
            hint = f"; the nearest is {spec.name}, which also has {_list(missing)}"
        else:
            hint = "; known are " + ", ".join(f"{one.spec.name} ({_list(one.spec.columns[0])})" for one in self.layouts)
        got = f"columns {_list(columns)}" if columns else "no columns"
        return f"unknown format of rows: {got}{hint}; rename columns with `columns`, or name the format with `format`"

    @cache  # noqa: B019 - see above
    def _load(self, spec: FormatSpec) -> Any:
        return _build(spec, {}, f"format {spec.name!r}")


def check_columns(columns: Row, bound: BoundLayout) -> None:
    """Raises DataError if a row has no whole set of the columns that its layout is told by."""
    if bound.count_told(columns):
        return
    names = max(bound.spec.columns, key=lambda names: _closeness(names, columns))
    missing = next(name for name in names if name not in columns)
    others = [name for name in names if name in columns]
    beside = f" beside {_list(others)}" if others else ""
    raise DataError(f"{missing}: missing{beside}{suggest(missing, set(columns) - {*others})}")


def _closeness(names: Sequence[str], columns: Row) -> float:
    """Returns which share of `names` is there; one that is nearly spelt so counts half."""
    near = sum(
        1.0 if one in columns else 0.5 * bool(difflib.get_close_matches(one, columns, n=1, cutoff=_NEAR))
        for one in names
    )
    return near / len(names)


def _build(spec: FormatSpec, parameters: Mapping[str, Any], place: str) -> Any:
    checked = validate_parameters(spec, parameters, place)
    base = FileFormat if isinstance(spec, FileFormatSpec) else Layout
    target = load_object(spec.target)
    if not (isinstance(target, type) and issubclass(target, base)):
        raise PluginError(f"format {spec.name!r}: {spec.target!r} is no subclass of {base.__name__}")
    with format_code(f"format {spec.name!r}", target):
        return target(**{key: getattr(checked, key) for key in type(checked).model_fields})


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
