"""What stands before every page: who may ask, how much may be sent, what a browser may load.

- Without a token, only requests whose Host is this machine's own name are answered: a page of another site whose name
  was made to point here (DNS rebinding) carries that site's name.
- A token comes once in the address and is then a cookie.
- Every POST carries a sign that only our own pages hold: HMAC(secret of this process, cookie of this browser).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.exceptions import HTTPException

MOST = 256 * 1024  # bytes of a request's body
LONG = f"A request may bring {MOST:,} bytes."
NAMES = ("localhost", "127.0.0.1", "[::1]")
COOKIE = "anacrusis"
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
ALWAYS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "x-frame-options": "DENY", "cache-control": "no-store",
}  # fmt: skip

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """ASGI middleware. Puts `scope["sign"]` for the forms and `scope["mine"]`, a function that knows it again."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str | None = None):
        self.app, self.token, self.secret = app, token, secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        heads = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        if self.token is None and _name(heads.get("host", "")) not in NAMES:
            await _say(send, 421, "This view answers under the names localhost, 127.0.0.1 and [::1] only.")
            return
        cookies = _cookies(heads.get("cookie", ""))
        if self.token is not None and not await self._known(scope, cookies, send):
            return
        size = heads.get("content-length", "0")
        if not size.isdigit() or int(size) > MOST:
            await _say(send, 413, LONG)
            return
        browser = cookies.get(COOKIE, "")
        fresh = not (len(browser) == 43 and browser.isascii())
        if fresh:
            browser = secrets.token_urlsafe(32)
        sign = hmac.new(self.secret, browser.encode(), hashlib.sha256).hexdigest()
        scope["sign"], scope["mine"] = sign, lambda said: hmac.compare_digest(sign.encode(), said.encode())

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {k.lower() for k, _ in message["headers"]}
                extra = [(k, v) for k, v in ALWAYS.items() if k.encode() not in given]
                if fresh:
                    extra.append(("set-cookie", _cookie(COOKIE, browser)))
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra)]
            await send(message)

        await self.app(scope, _bounded(receive), out)

    async def _known(self, scope: Scope, cookies: dict[str, str], send: Send) -> bool:
        """Whether the request holds the token. One that has it in its address is sent on to the same without it."""
        assert self.token is not None
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        name = f"{COOKIE}-{digest[:8]}"  # two views on one host keep apart
        if hmac.compare_digest(cookies.get(name, "").encode(), digest.encode()):
            return True
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            await _say(send, 403, "This view needs its token: open the address that `anacrusis ui` has printed.")
            return False
        rest = urlencode(query, doseq=True)
        path = "/" + quote(scope["path"].lstrip("/\\"))  # two slashes would name another host
        there = path + (f"?{rest}" if rest else "")
        await _say(send, 303, "", {"location": there, "set-cookie": _cookie(name, digest)})
        return False


def _bounded(receive: Receive) -> Receive:
    """Bodies without a length given (chunked) are counted as they come."""
    seen = 0

    async def take() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST:
            raise HTTPException(413, LONG)
        return message

    return take


def _name(host: str) -> str:
    """Of a Host header, without its port."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()


def _cookies(header: str) -> dict[str, str]:
    try:
        return {k: v.value for k, v in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _cookie(name: str, value: str) -> str:
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax"


async def _say(send: Send, status: int, text: str, more: dict[str, str] | None = None) -> None:
    heads = {"content-type": "text/plain; charset=utf-8", **ALWAYS, **(more or {})}
    await send({"type": "http.response.start", "status": status,
                "headers": [(k.encode(), v.encode("latin-1")) for k, v in heads.items()]})  # fmt: skip
    await send({"type": "http.response.body", "body": text.encode()})
