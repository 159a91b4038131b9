"""Debian's Chromium for tests that look at pages: started through playwright, and what a page asks the network for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What a page did while it was open: messages of its console and errors, and requests beyond the page itself."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Any, file: Path, *, dark: bool = False, width: int = 1280, scripts: bool = True) -> Iterator[Any]:
    """A page of a file with everything else blocked; page.seen (a Seen) tells what it did."""
    address = file.resolve().as_uri()
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", java_script_enabled=scripts
    )
    try:
        page = context.new_page()
        page.seen = Seen()

        def asked(route: Any) -> None:
            if route.request.url == address:
                route.continue_()
            else:
                page.seen.requests.append(route.request.url)
                route.abort()

        page.route("**/*", asked)
        page.on("console", lambda message: page.seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.seen.console.append(f"error: {error}"))
        page.goto(address)
        yield page
    finally:
        context.close()
