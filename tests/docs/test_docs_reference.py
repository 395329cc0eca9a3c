"""docs/reference.md: its settings are valid, and every key and command on it exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmalign
from mmalign.cli import cache as cli_cache
from mmalign.config.sections import ReferenceConfig

PAGE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_settings_on_the_page_train(block: str, toy_config: Any, write_config: Any) -> None:
    run = mmalign.train(write_config(toy_config(**yaml.safe_load(block))))
    assert run.step == 4


def test_the_page_shows_every_strategy_and_key() -> None:
    shown: dict[str, Any] = {}
    for block in BLOCKS:
        shown |= yaml.safe_load(block)["reference"]
    assert shown.keys() == ReferenceConfig.model_fields.keys()
    (strategies,) = {ReferenceConfig.model_fields["strategy"].annotation.__args__}
    assert set(strategies) == set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE))


def test_the_commands_on_the_page_exist() -> None:
    commands = {command.callback.__name__ for command in cli_cache.app.registered_commands}
    assert set(re.findall(r"^mmalign cache (\w+)", PAGE, flags=re.MULTILINE)) == commands
