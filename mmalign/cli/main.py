"""The command line: a table of commands that are imported only when they run, so that `--help` answers at once.

To add a command, write a function with typer annotations (or a `typer.Typer` of several) and name it in `COMMANDS`.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer
import typer.core
import typer.main

from mmalign import __version__
from mmalign.cli.context import debug_wanted, set_debug, set_disabled_plugins
from mmalign.cli.messages import print_error, print_traceback, routed_messages
from mmalign.errors import MmalignError, OtherProcessError, suggest
from mmalign.masking import mask_logs


class LazyCommand(NamedTuple):
    """Where a command is: a function or a `typer.Typer`, and what `--help` says of it before it is imported."""

    module: str
    attribute: str
    help: str
    holds_models: bool = False
    """Runs long with large tensors, so that what is no longer used has to be found soon."""


COMMANDS = {
    "train": LazyCommand("mmalign.cli.train", "train", "Train by a configuration.", holds_models=True),
    "check": LazyCommand(
        "mmalign.cli.train", "check", "Validate a configuration and print its plan, without training."
    ),
    "generate": LazyCommand(
        "mmalign.cli.generate", "generate", "Sample responses of a trained model.", holds_models=True
    ),
    "eval": LazyCommand(
        "mmalign.cli.train", "evaluate", "Evaluate a trained model on held-out records.", holds_models=True
    ),
    "compare": LazyCommand("mmalign.cli.compare", "compare", "Compare the held-out metrics of runs, and what differs."),
    "export": LazyCommand(
        "mmalign.cli.export", "export", "Write the model of a run, its adapter merged in or not.", holds_models=True
    ),
    "score": LazyCommand("mmalign.cli.score", "score", "Score stored responses with a trained run.", holds_models=True),
    "data": LazyCommand("mmalign.cli.data", "app", "Validate, convert and show records."),
    "plugins": LazyCommand("mmalign.cli.parts", "plugins", "List the installed plugins and what became of them."),
    "list": LazyCommand("mmalign.cli.parts", "list_parts", "List the parts of a kind: objectives, rewards, ..."),
    "explain": LazyCommand("mmalign.cli.parts", "explain", "Explain a part: equation, needs, parameters, paper."),
    "schema": LazyCommand("mmalign.cli.parts", "schema", "Write the JSON Schema of run configurations."),
    "doctor": LazyCommand("mmalign.cli.doctor", "doctor", "Show versions, devices, plugins, extras, environment."),
    "cache": LazyCommand("mmalign.cli.cache", "app", "Show and clear what is kept between runs."),
    "conformance": LazyCommand("mmalign.cli.conformance", "conformance", "Check the plugins against golden vectors."),
}


class LazyGroup(typer.core.TyperGroup):
    """A group whose help shows stubs, and which imports a command when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Lists the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a stub that has a name and a help line."""
        command = COMMANDS.get(cmd_name)
        return typer.core.TyperCommand(cmd_name, help=command.help) if command else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Imports the command that is about to run."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command {args[0]!r}{suggest(args[0], COMMANDS)}")
        name, stub, rest = super().resolve_command(ctx, args)
        return name, _load_command(stub.name) if stub and stub.name else None, rest


app = typer.Typer(
    cls=LazyGroup,
    help="Align any generative model with any objective.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mmalign.terminal import write_line

        write_line(f"mmalign {__version__}")
        raise typer.Exit


@app.callback()
def _set_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors, and what libraries log.")] = False,
    no_plugin: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out; may be given several times.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    set_disabled_plugins(no_plugin or ())
    set_debug(debug)


def main() -> None:
    """Runs the command line.

    Exit codes: 2 after a mistake that the user can mend, printed as one message, with `--debug` after its traceback;
    130 after Ctrl-C and 143 after SIGTERM, from `train` once it has saved. Any other exception is a bug, and keeps its
    traceback.
    """
    sys.excepthook = print_traceback
    mask_logs()
    try:
        with routed_messages():
            app()
    except MmalignError as error:
        if debug_wanted():
            print_traceback(type(error), error, error.__traceback__)
        # Of several processes the one that failed has told it.
        if not isinstance(error, OtherProcessError):
            print_error(str(error))
        sys.exit(2)


def _load_command(name: str) -> Any:
    command = COMMANDS[name]
    if not command.holds_models:
        # Importing makes a million objects that stay; looking through them again and again is a tenth of the time.
        gc.set_threshold(100_000, 50, 50)
    loaded = getattr(importlib.import_module(command.module), command.attribute)
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(loaded)
    return typer.main.get_command(single)
