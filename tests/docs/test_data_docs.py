"""`docs/data.md` says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from mmalign.config.data import DataConfig, DataSection
from mmalign.contract.specs import LayoutSpec
from mmalign.data.records import Record
from mmalign.plugins.registry import load_registry

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def first_column(heading: str) -> set[str]:
    """Returns the names in the first column of the first table after `heading`."""
    table = PAGE.partition(heading)[2].partition("|---|")[2].partition("\n\n")[0]
    return {name for line in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}


def test_every_data_key_is_documented() -> None:
    assert first_column("# Data") == set(DataConfig.model_fields)


def test_every_key_of_images_is_documented() -> None:
    assert first_column("## Images") == set(DataSection.model_fields) - {"train", "eval", "check_records"}


def test_the_example_of_images_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.partition("## Images")[2], flags=re.DOTALL)
    assert DataSection.model_validate(yaml.safe_load(example)["data"]).check_media == "full"


def test_every_record_field_is_documented() -> None:
    assert first_column("## Records") == {info.alias or name for name, info in Record.model_fields.items()}


def test_every_format_is_documented() -> None:
    specs = [entry.spec for entry in load_registry().entries("format") if entry.plugin.distribution == "mmalign"]
    layouts = {spec.name for spec in specs if isinstance(spec, LayoutSpec)}
    assert first_column("## Formats of rows") == layouts
    assert first_column("## Formats of files") == {spec.name for spec in specs} - layouts


def test_documented_record_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    assert [(chosen, rejected) for chosen, rejected, _ in Record.from_json(example).pair_indices()] == [(0, 1)]
