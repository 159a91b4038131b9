"""The web view as an application, and serving it: on loopback, or elsewhere with a token.

make(root) -> an ASGI application; serve(root) -> runs until Ctrl-C.
"""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import ConfigError, MissingExtra
from .labels import LabelJob

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PURPOSE = "the web view"


def make(root: Path, token: str | None = None, label: Sequence[LabelJob] = ()) -> FastAPI:
    """The application for the runs in `root`. token: asked for once (?token=...), then kept as a cookie; without one,
    only requests to this machine's own names are answered. label: files that a person labels, beside root/labels.

    Raises MissingExtra without fastapi.
    """
    try:
        import fastapi
        import python_multipart  # noqa: F401  (FastAPI reads forms with it)
    except ImportError as error:
        raise MissingExtra("fastapi", "ui", PURPOSE) from error
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException as StarletteError

    from .guard import Guard
    from .routes import View, router, troubled

    app = fastapi.FastAPI(title="Anacrusis", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.view = View(root, label)
    app.include_router(router)
    for kind in (StarletteError, RequestValidationError):
        app.add_exception_handler(kind, troubled)
    app.add_middleware(Guard, token=token)
    return app


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that listens; port 0: any that is free. Raises ConfigError where that port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Another port: --port 0 takes a free one"
        ) from error
    made.listen(128)
    return made


def server(app: Any) -> uvicorn.Server:
    """Call its run(sockets=[...])."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("uvicorn", "ui", PURPOSE) from error
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off",
                       timeout_graceful_shutdown=2)
    )  # fmt: skip


def serve(
    root: Path, host: str = "127.0.0.1", port: int = 0, *, open_browser: bool = False, token: str | None = None,
    label: Sequence[LabelJob] = (), tell: Callable[[str], Any] = print,
) -> None:  # fmt: skip
    """Serve the view until Ctrl-C. tell: gets the address. A host that is not loopback needs a token: one is made
    where none is given, and is part of the address."""
    if host not in LOOPBACK and token is None:
        token = secrets.token_urlsafe(24)
    running = server(make(root, token, label))
    with listen(host, port) as made:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{made.getsockname()[1]}/" + (f"?token={quote(token, safe='')}" if token else "")
        tell(address)
        if open_browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):  # the way to end it
            running.run(sockets=[made])
