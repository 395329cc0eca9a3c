"""Progress: a bar on terminals, a line every tenth elsewhere, tables that cannot be broken by model output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from mmalign.monitoring.progress import Progress, before_after_table, examples_table, format_change


def run(console: Console, total: int, *, start: int = 0, quiet: bool = False) -> str:
    with Progress(total, start=start, quiet=quiet, console=console) as progress:
        for step in range(start + 1, total + 1):
            progress.advance(step, {"loss": 0.6931, "reward": 1.5}, responses=4)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def render(table: Table, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_without_a_terminal_every_tenth_is_a_line() -> None:
    lines = run(Console(file=io.StringIO()), 200).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step 20/200  reward 1.5  loss 0.6931  ")
    assert "responses/s" in lines[0]
    assert lines[-1].startswith("step 200/200")


def test_held_out_metrics_are_shown_when_they_come() -> None:
    console = Console(file=io.StringIO())
    with Progress(100, console=console) as progress:
        progress.show_held_out(0, {"generation/reward": 0.25, "generation/kl": 0.0})
        progress.show_held_out(0, {})
        progress.advance(1, {"loss": 0.5})
    assert console.file.getvalue().splitlines() == ["held-out at step 0: generation/reward 0.25  generation/kl 0"]  # type: ignore[attr-defined]


def test_a_terminal_shows_metrics_below_the_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with Progress(10, console=console) as progress:
        progress.show_held_out(0, {"generation/reward": 0.25})
        progress.advance(3, {"loss": -6e-08, "reward": 0.5, "length": 12.0, "x\x1b]0;PWN\x07/kl": 0.1}, responses=8)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    below = shown[shown.rindex("3/10") :]
    assert "GiB" in below and "responses/s" in below
    assert "reward 0.5  loss -6e-08  x␛]0;PWN␇/kl 0.1  length 12" in below
    assert "held-out at step 0: generation/reward 0.25" in below and "\x1b]0" not in shown


def test_short_runs_show_every_step() -> None:
    assert len(run(Console(file=io.StringIO()), 3).splitlines()) == 3


def test_a_resumed_run_goes_on_from_its_step() -> None:
    lines = run(Console(file=io.StringIO()), 100, start=75).splitlines()
    assert [line.split()[1] for line in lines] == ["80/100", "90/100", "100/100"]


def test_speed_is_that_of_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, *(float(second) for second in range(2, 400, 2))])
    monkeypatch.setattr("mmalign.monitoring.progress.time.monotonic", lambda: next(clock))
    last = run(Console(file=io.StringIO()), 100).splitlines()[4]
    # A step takes 2 s and trains on 4 responses; 50 steps are left.
    assert last.endswith("2 responses/s  0.5 steps/s  100 s left")


def test_a_quiet_bar_shows_nothing() -> None:
    assert run(Console(file=io.StringIO()), 20, quiet=True) == ""
    assert run(Console(file=io.StringIO(), force_terminal=True), 20, quiet=True) == ""


@pytest.mark.parametrize("width", [1, 5, 20, 100])
def test_a_terminal_of_any_width_shows_a_bar(width: int) -> None:
    assert run(Console(file=io.StringIO(), force_terminal=True, width=width), 20)


def test_a_wide_terminal_shows_steps_and_numbers() -> None:
    shown = run(Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None), 20)
    assert "20/20" in shown
    assert "loss 0.6931" in shown


def test_an_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="boom"), Progress(3, console=Console(file=io.StringIO())):
        raise RuntimeError("boom")


def test_the_table_shows_the_change() -> None:
    shown = render(before_after_table({"accuracy": 0.5, "gone": 1.0}, {"accuracy": 0.75, "new": 2.0}))
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["accuracy", "0.5", "0.75", "+0.25"],
        ["new", "-", "2", "-"],
        ["gone", "1", "-", "-"],
    ]


def test_a_number_that_is_not_finite_is_shown() -> None:
    assert format_change(1.0, float("nan")) == ("1", "nan", "+nan")


def test_model_output_is_never_markup() -> None:
    shown = render(examples_table([("[bold]hello[/bold]", "[/nope]", "[link=https://x]y")]))
    assert all(text in shown for text in ("[bold]hello[/bold]", "[/nope]", "[link=https://x]y"))


@pytest.mark.parametrize("width", [1, 10])
def test_narrow_tables_do_not_fail(width: int) -> None:
    assert render(examples_table([("prompt", "before", "after")]), width)
    assert render(before_after_table({"a": 1.0}, {"a": 2.0}), width)
