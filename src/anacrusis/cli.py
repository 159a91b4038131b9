"""The command line: one list of commands. They lie in commands/."""

from __future__ import annotations

from typing import Annotated

import typer

from . import __version__
from ._guard import EXIT_CODES, Commands
from .commands import assessing, choosing, comparing, learning, measuring, using, viewing

app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code} {said}" for code, said in EXIT_CODES.items()) + ".",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"anacrusis {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def anacrusis(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all warnings. Goes anywhere.")] = False,
) -> None:
    """Learn what to put in front of a frozen model, from labelled examples. Begin with: anacrusis demo"""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


for command in (
    learning.fit,
    comparing.compare,
    measuring.evaluate,
    assessing.assess,
    assessing.interpret,
    choosing.choose,
    measuring.adapt,
    measuring.look,
    using.predict,
    using.methods,
    learning.runs,
    learning.show,
    learning.resume,
    comparing.report,
    viewing.ui,
    using.export,
):
    app.command()(command)
app.command("import")(using.bring_in)
app.command()(learning.demo)
app.command()(using.draw)


def main() -> None:
    app(prog_name="anacrusis")


if __name__ == "__main__":
    main()
