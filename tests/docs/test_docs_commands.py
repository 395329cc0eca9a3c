"""docs/commands.md: every command is there, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from mmalign.cli.main import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`mmalign (\w+)", rows)) == set(COMMANDS)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links and all((Path(__file__).parents[2] / "docs" / link).is_file() for link in links)
