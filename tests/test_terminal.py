"""The consoles: whatever is printed with them, and however, no text of others steers the terminal."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import mmalign
from mmalign.terminal import SafeConsole, add_row, show_text, wide_console, write_line

NASTY = "\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e[bold]loud[/bold]"


def shown_by(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def tables() -> dict[str, object]:
    plain = Table(NASTY, title=NASTY)
    plain.add_row(NASTY)
    prepared = Table("a")
    add_row(prepared, NASTY)
    return {"text": NASTY, "Text": Text(NASTY), "shown": show_text(NASTY), "table": plain, "row": prepared}


@pytest.mark.parametrize("what", ["text", "Text", "shown", "table", "row"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_console_shows_what_others_would_obey(what: str, nested: bool) -> None:
    console = SafeConsole(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    content = tables()[what]
    console.print(Panel(content) if nested else content)  # type: ignore[arg-type]
    shown = shown_by(console)
    assert not set("\x07\x9b\u202e") & set(shown) and "\x1b]" not in shown and "\x1b[2J" not in shown
    assert "␛]0;PWN" in shown and "<U+202E>" in shown
    assert "[bold]loud[/bold]" in shown, "brackets are no markup"


def test_rows_are_as_wide_as_what_is_shown() -> None:
    console = SafeConsole(file=io.StringIO(), width=100)
    table = Table("name", "x")
    add_row(table, "\x1b\x9b", "1")
    add_row(table, "plain", "2")
    console.print(table)
    assert len({len(line) for line in shown_by(console).splitlines()}) == 1


def test_what_rich_itself_says_to_the_terminal_passes() -> None:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=console) as progress:
        progress.advance(progress.add_task(NASTY, total=1))
    shown = shown_by(console)
    assert "\x1b[?25l" in shown, "rich hides the cursor"
    assert "\x1b]0" not in shown and "\x1b[2J" not in shown


def test_lines_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    write_line("x" * 500 + "\x1b")
    write_line("problem", err=True)
    captured = capsys.readouterr()
    assert captured.out == "x" * 500 + "␛\n" and captured.err == "problem\n"


def test_tables_are_wide_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert wide_console().width == 160
    monkeypatch.setenv("COLUMNS", "60")
    assert wide_console().width == 60


def test_nothing_is_printed_but_with_these_consoles() -> None:
    """A console of rich's, or `typer.echo`, prints what steers a terminal as it is."""
    root = Path(mmalign.__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in (
                "Console",
                "rich.print",
                "print",
                "typer.echo",
                "typer.secho",
                "click.echo",
                "sys.stdout.write",
            ):
                found.append(f"{file.relative_to(root)}:{node.lineno}: {called}")  # type: ignore[attr-defined]
    assert not found
