"""The command ui: runs, comparisons and questions to a person, in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .. import _options as o
from .. import console
from ..errors import ConfigError

TOKEN = "ANACRUSIS_TOKEN"


def ui(
    root: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Of runs; else $ANACRUSIS_RUNS, or ./anacrusis-runs.")
    ] = None,
    label: Annotated[
        list[Path] | None, typer.Option(help="A file of examples to label, too; can be given several times.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Their column of texts, where it has another name.", metavar="COL")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Their column of labels, likewise.", metavar="COL")] = None,
    classes: Annotated[str | None, typer.Option(help="Of those examples, separated by commas.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8123,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
    quiet: o.Quiet = False,
) -> None:
    """Watch runs in a browser: progress, leaderboards, a prompt's history; stop, resume, answer duels, label examples.

    For example: anacrusis ui
    """
    from ..runs.run import runs_folder
    from ..ui.app import serve
    from ..ui.labels import LabelJob

    place = root or runs_folder()
    if root is not None and not root.is_dir():
        raise ConfigError(f"{root} is no folder. Runs are in {runs_folder()} unless you say otherwise")
    names = tuple(c.strip() for c in (classes or "").split(",") if c.strip())
    if (names or text or answer) and not label:
        raise ConfigError("--classes, --text and --answer are of --label FILE: name the file too")
    jobs = [LabelJob(file, tuple(text) if text else None, answer, names) for file in label or ()]

    def tell(text: str) -> None:
        if not quiet:
            console.line(text)

    serve(place, host, port, open_browser=browser, token=os.environ.get(TOKEN) or None, label=jobs, tell=tell)
