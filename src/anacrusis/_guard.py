"""What can go wrong in any command, and how it is told: on stderr, by the exit code, and with --json on stdout too."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from . import console
from .errors import AnacrusisError

EXIT_CODES = {
    0: "done",
    1: "an error that nobody foresaw; --debug shows its traceback",
    2: "wrong usage, or data, a model or a folder that cannot be used as it is",
    130: "stopped by Ctrl-C",
    141: "the reader of the output has gone (as in `| head`)",
}


class Stopped(Exception):
    """Ctrl-C, with what can be done now."""


class Commands(TyperGroup):
    """The commands, with one place for what goes wrong in any of them."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        debug = "--debug" in given[:end]  # taken anywhere on the line: it is added when something has gone wrong
        given, flags = [a for a in given[:end] if a != "--debug"] + given[end:], given[:end]

        def call() -> Any:
            return super(Commands, self).main(
                given, prog_name, complete_var, False, windows_expand_args=windows_expand_args, **extra
            )

        code = _guarded(call, "--json" in flags, debug)
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before Typer makes an exit code of it
            raise Stopped("stopped") from None


def _guarded(call: Callable[[], Any], as_json: bool, debug: bool) -> int:
    """The exit code of a call; errors are told on stderr, and as JSON on stdout where that was asked for."""
    try:
        with _spoken_warnings(debug):
            code = call()
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise  # else Rich or Typer made an exit of a closed pipe
        return _pipe_closed()
    except (Stopped, typer.Abort) as error:
        return _tell(error, str(error) or "stopped", 130, as_json)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, AnacrusisError):
            return _tell(error, f"error: {error}", 2, as_json)
        if hasattr(error, "format_message"):  # click's errors of usage, whoever's copy of click Typer carries
            return _tell(error, _usage(error), 2, as_json)
        if isinstance(error, OSError) and error.filename:
            return _tell(error, f"error: {error.filename}: {error.strerror}", 2, as_json)
        first = (str(error).strip().splitlines() or ["no message"])[0]
        hint = "" if debug else "; run with --debug for the traceback"
        return _tell(error, f"unexpected error: {type(error).__name__}: {first}{hint}", 1, as_json)


def _tell(error: BaseException, text: str, code: int, as_json: bool) -> int:
    console.say(text, style="bold" if code == 130 else "red")
    if as_json and not getattr(error, "told", False):
        console.emit({"error": text.removeprefix("error: ")})
    return code


def _usage(error: Any) -> str:
    known = getattr(error, "possibilities", None)
    said = f"{error.message}. Did you mean {' or '.join(known)}?" if known else error.format_message()
    path = error.ctx.command_path if getattr(error, "ctx", None) else "anacrusis"
    return f"error: {said}\nSee: {path} --help"


def _pipe_closed() -> int:
    """Nobody reads any more: say nothing, also not when the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


@contextmanager
def _spoken_warnings(debug: bool) -> Iterator[None]:
    """Our own warnings become notes on stderr; those of libraries are for developers, and shown with --debug."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.say(f"note: {message}", style="yellow")

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"anacrusis\.")
            warnings.showwarning = show
        yield
