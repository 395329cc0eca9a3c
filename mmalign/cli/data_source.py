"""Which data a command of `mmalign data` reads, and how: paths, options, a configuration and its overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError, DataError
from mmalign.terminal import write_line

if TYPE_CHECKING:
    from mmalign.config.data import DataConfig, DataSection
    from mmalign.data.records import Record
    from mmalign.media.limits import MediaLevel
    from mmalign.plugins.registry import Registry
    from mmalign.sources.format_choice import Formats
    from mmalign.sources.layouts import LayoutReader
    from mmalign.sources.reading import Reading

_OVERRIDE = re.compile(r"[a-z_]\w*(\.\w+)+=")


@dataclass
class DataRequest:
    """What a command asks for.

    Attributes:
        paths: files, globs, folders, hub ids; empty for the data of `config`.
        overrides: `key.path=value`, of the configuration or, without one, of what its section `data` would be.
        options: keys of a data section that the command line gives; they come before those of `config`.
    """

    paths: list[str]
    overrides: list[str] = field(default_factory=list)
    config: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, arguments: Sequence[str], config: Path | None, **options: Any) -> DataRequest:
        """Tells paths from overrides; options that are None, or empty, are left out.

        Raises:
            ConfigError: neither a path nor a configuration is given.
        """
        overrides = [one for one in arguments if _OVERRIDE.match(one) and not Path(one).exists()]
        paths = [one for one in arguments if one not in overrides]
        if not paths and config is None:
            raise ConfigError("expected PATH or --config CONFIG")
        given = {key: value for key, value in options.items() if value not in (None, (), [], {})}
        return cls(paths, overrides, config, given)

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The configuration with overrides, unchecked; without a file, its section `data` alone."""
        from mmalign.config.reading import apply_overrides, read_config

        if self.config is not None:
            return read_config(self.config, self.overrides)
        return apply_overrides({"data": {"train": {"path": ""}}}, self.overrides, "overrides")

    @cached_property
    def registry(self) -> Registry:
        """The installed plugins, and the plugin files of the configuration."""
        from mmalign.cli.context import current_registry

        return current_registry([Path(file) for file in self.raw.get("plugins") or ()])

    @cached_property
    def section(self) -> DataSection:
        """The section `data`; raises ConfigError for what is wrong with it."""
        from mmalign.config.data import DataSection
        from mmalign.config.validation import validate

        data = self.raw.get("data")
        if not isinstance(data, dict):
            raise ConfigError(f"{self.config}: data: missing; expected where records come from")
        return validate(DataSection, data, "data", str(self.config or ""))

    def iter_sources(self) -> Iterator[tuple[str, DataConfig]]:
        """Yields key path and settings of everything that is to be read."""
        from mmalign.config.data import DataConfig
        from mmalign.config.validation import validate

        train = self.section.train
        if self.paths:
            for path in self.paths:
                given = train.model_dump(exclude_unset=True) | self.options | {"path": path}
                yield "data.train", validate(DataConfig, given, "data.train")
            return
        for name in ("train", "eval"):
            section = getattr(self.section, name)
            if section is not None:
                given = section.model_dump(exclude_unset=True) | self.options
                yield f"data.{name}", validate(DataConfig, given, f"data.{name}", str(self.config))

    def formats(self, config: DataConfig, where: str) -> Formats:
        """Returns the formats that read a source."""
        from mmalign.sources.format_choice import Formats

        return Formats(self.registry, config.format, where)


@dataclass
class RowCheck:
    """Reads every row of a source; bad rows are set aside if its `on_error` says so.

    Attributes:
        remote: fetch media, whatever the configuration says.
        layouts: what read the rows; it knows the columns that were not read.
    """

    request: DataRequest
    where: str
    config: DataConfig
    find_media: bool = False
    check_media: MediaLevel = "off"
    remote: bool = False

    @cached_property
    def formats(self) -> Formats:
        """What reads the files."""
        return self.request.formats(self.config, self.where)

    @cached_property
    def layouts(self) -> LayoutReader:
        """What reads the rows."""
        from mmalign.sources.layouts import LayoutReader

        return LayoutReader(self.formats)

    def iter_readings(self) -> Iterator[Reading]:
        """Yields what became of every row.

        Raises:
            DataError: there is no row at all, or no good one while bad ones are set aside.
        """
        from mmalign.media.checks import MediaCheck
        from mmalign.sources.files import find_rows
        from mmalign.sources.reading import read_rows
        from mmalign.sources.source import Quarantine

        limits = self.request.section.media_limits
        if self.remote or (self.request.config is None and self.check_media == "header"):
            # What a run will allow is not known, and for a header nothing is fetched.
            limits = replace(limits, remote=True)
        check = MediaCheck(self.check_media, limits).check
        quarantine = Quarantine(self.config)
        good = bad = 0
        rows = find_rows(self.config, self.formats, self.where)
        for reading in read_rows(rows, self.config, self.layouts, find_media=self.find_media, check_media=check):
            good += reading.record is not None
            bad += reading.record is None
            if reading.record is None and self.config.on_error == "quarantine":
                quarantine.add(reading.row, reading.reason)
            yield reading
        if not good and (quarantine.count or not bad):
            raise DataError(quarantine.describe_nothing())
        if quarantine.count:
            write_line(f"{self.config.path}: {quarantine.count} bad rows moved to {quarantine.path}", err=True)
        for unread in self.layouts.describe_unread():
            write_line(f"{self.config.path}: {unread}", err=True)

    def iter_good(self) -> Iterator[tuple[str, Record]]:
        """Yields file and record of every row; raises DataError at the first bad one."""
        for reading in self.iter_readings():
            if reading.record is None:
                raise DataError(f"{reading.row.place}: {reading.reason}")
            yield reading.row.place, reading.record


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Reads `theirs=ours`, several in one text with commas between them.

    Raises:
        ConfigError: something else.
    """
    columns: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        theirs, equals, ours = pair.partition("=")
        if not equals or not theirs.strip() or not ours.strip():
            raise ConfigError(f"--columns {pair!r}: expected theirs=ours, e.g. --columns question=prompt")
        columns[theirs.strip()] = ours.strip()
    return columns


def parse_components(texts: Sequence[str], option: str) -> list[dict[str, Any]]:
    """Reads names of components, or `{name: ..., parameters}` in YAML.

    Raises:
        ConfigError: something else.
    """
    import yaml

    components = []
    for text in texts:
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError:
            given = None
        component = {"name": given} if isinstance(given, str) else given
        if not isinstance(component, dict) or not isinstance(component.get("name"), str):
            raise ConfigError(f"{option}: expected a name, or {{name: ..., parameters}}, got {text!r}")
        components.append(component)
    return [one for one in components if one["name"] != "auto"]
