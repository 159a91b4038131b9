"""A model behind an OpenAI-compatible chat API: many questions at once, each asked until it is answered or hopeless."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import ipaddress
import json
import math
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, MissingExtra, ServiceError
from .calls import Call, Reply
from .wire import DROPPABLE, Trouble, classify, replies_of, request, same_model, told, usable
from .wire import request_key as _key

CAP = 30.0  # seconds: the longest pause that we choose ourselves
PATIENCE = 900.0  # seconds: the longest pause that a provider may ask for before we stop and say so


class Endpoint:
    """A model that writes, behind HTTP. Use it as a context manager, or `close` it.

    name: "openai:NAME". base_url: $OPENAI_BASE_URL or OpenAI's own where not given. The key is read from
    $OPENAI_API_KEY, never stored, shown or written. concurrency: requests under way at once. timeout: seconds for one
    request. attempts: requests for one call at most. base: seconds, the scale of the first pause between them.
    any_model: accept answers that say they come from another model.
    Raises ConfigError, or MissingExtra without the package openai.
    """

    can = frozenset({"text"})
    arrangement = "endpoint"

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        attempts: int = 6,
        *,
        base: float = 0.5,
        any_model: bool = False,
    ):
        scheme, _, self.asked = name.partition(":")
        if scheme != "openai" or not self.asked:
            raise ConfigError(f"an endpoint's name is {name!r}; it must be openai:NAME, such as openai:gpt-4o-mini")
        if concurrency < 1 or attempts < 1 or timeout <= 0 or base < 0:
            raise ConfigError(
                f"concurrency={concurrency}, attempts={attempts}, timeout={timeout:g}, base={base:g}: the first two "
                "must be at least 1, the timeout above 0 seconds, the base at least 0 seconds"
            )
        given = {"base_url": (base_url, None), "concurrency": (concurrency, 8), "timeout": (timeout, 60.0),
                 "attempts": (attempts, 6), "base": (base, 0.5), "any_model": (any_model, False)}  # fmt: skip
        self.opening: dict[str, Any] = {k: v for k, (v, usual) in given.items() if v != usual}
        self.name, self.concurrency, self.timeout, self.attempts = name, concurrency, timeout, attempts
        self.base, self.any_model = base, any_model
        url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._client: Any = _client(url, timeout)
        where = urlsplit(str(self._client.base_url))
        self.where = where.netloc + where.path.rstrip("/")
        # without the port: a local server that comes back on another one is still the same model
        said = f"{self.asked} {where.hostname}{where.path.rstrip('/')}"
        self.fingerprint = hashlib.blake2b(said.encode(), digest_size=12).hexdigest()
        self.without: set[str] = set()  # parameters that the provider turned out not to take
        self._gate = 0.0  # no request starts before this time (monotonic, seconds)
        self._random = random.Random()
        self._failures, self._ever = 0, False  # failed tries in a row; whether any try has succeeded
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shut: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, at {self.where})"

    def describe(self) -> str:
        less = f", which takes no {', no '.join(sorted(self.without))}" if self.without else ""
        return f"{self.name}: a chat API at {self.where}{less}; {self.concurrency} requests at once"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop connections and end the thread. May be called twice; nothing can be asked afterwards."""
        if self._shut is not None:
            self._shut()

    def complete(
        self,
        calls: Sequence[Call],
        arrived: Callable[[Mapping[int, Reply]], None] | None = None,
        *,
        within: float | None = None,
        salt: str = "",
    ) -> list[Reply]:
        """Replies in the order of the calls.

        arrived: called with the replies of each response as it arrives, by their place in `calls`, one response at a
        time, in another thread than the caller's; what it raises stops everything and is raised here. within: seconds
        in all; what has no answer by then is "failed". salt: tells equal questions of different runs apart, for
        providers that answer a repeated request once.

        Calls that differ only in `sample` are asked in one request; its input tokens are the first one's, its output
        tokens are divided by length. Where the provider does not count, four bytes are a token. Equal calls are asked
        once, and the first of them pays. Raises ServiceError when asking on makes no sense.
        """
        loop = self._running()
        if loop.is_closed():
            raise ServiceError(f"the endpoint {self.name} is closed. Open it again.")
        deadline = math.inf if within is None else time.monotonic() + within
        future = asyncio.run_coroutine_threadsafe(self._all(calls, arrived, deadline, salt), loop)
        try:
            while not future.done():  # in slices: not every platform lets Ctrl-C end an unlimited wait
                concurrent.futures.wait([future], timeout=0.2)
        except BaseException:
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
            raise
        replies, failure = future.result()
        if failure is not None:
            raise failure
        return replies

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="anacrusis-endpoint", daemon=True)
            thread.start()
            self._shut = weakref.finalize(self, _shut, self._loop, thread, self._client)  # also at exit
        return self._loop

    async def _all(
        self, calls: Sequence[Call], arrived: Callable[[Mapping[int, Reply]], None] | None, deadline: float, salt: str
    ) -> tuple[list[Reply], BaseException | None]:
        replies: dict[int, Reply] = {}
        room = asyncio.Semaphore(self.concurrency)
        questions: dict[Call, dict[int, list[int]]] = {}  # question -> sample -> places in `calls`
        for i, call in enumerate(calls):
            questions.setdefault(replace(call, sample=0), {}).setdefault(call.sample, []).append(i)
        broken: list[BaseException] = []  # kept here: a KeyboardInterrupt that left a task would end the loop

        def deliver(got: Sequence[tuple[list[int], Reply]]) -> None:
            """All replies of one response at once: what was paid together is kept together."""
            if broken:
                return
            fresh = {
                i: replace(reply, input=0, output=0) if nth else reply
                for places, reply in got
                for nth, i in enumerate(places)
            }
            replies.update(fresh)
            try:
                if arrived is not None:
                    arrived(fresh)
            except BaseException as error:
                broken.append(error)
                raise ServiceError("stopped by the caller") from None

        async def job(call: Call, samples: tuple[int, ...]) -> None:
            async with room:
                several = len(samples) > 1 and "n" in self.without
                got = [] if several else await self._ask(replace(call, sample=samples[0]), len(samples), salt, deadline)
            if got:
                deliver([(questions[call][s], reply) for s, reply in zip(samples, got, strict=False)])
            if rest := samples[len(got) :]:
                for part in [(s,) for s in rest] if "n" in self.without else [rest]:
                    group.create_task(job(call, part))

        try:
            async with asyncio.TaskGroup() as group:
                for call, places in questions.items():
                    group.create_task(job(call, tuple(places)))
        except BaseExceptionGroup as errors:
            broken += errors.exceptions
        return [replies[i] for i in sorted(replies)], broken[0] if broken else None

    async def _ask(self, call: Call, n: int, salt: str, deadline: float) -> list[Reply]:
        """1 to n replies; where the question failed or was refused as a whole, n of that."""
        pause, tries = 0.0, 0
        while True:
            if not await self._wait(pause, deadline):
                return [Reply("", "failed", detail="out of time")] * n
            without = frozenset(self.without)
            many = 1 if "n" in without else n
            body = request(self.asked, call, many, without)
            left = deadline - time.monotonic()
            said, trouble = await self._try(body, _key(call, self.fingerprint, salt, many, without), left)
            if trouble is None:
                self._failures, self._ever = 0, True
                if many > 1 and len(said["choices"]) == 1:
                    self.without.add("n")
                return [self._clean(r) for r in replies_of(said, call, many)]
            if trouble.kind == "late":
                continue
            if trouble.kind in DROPPABLE and trouble.kind not in without:
                self.without.add(trouble.kind)
                continue
            if trouble.kind == "refused":
                return [Reply("", "refused", detail=trouble.words)] * n
            if trouble.kind != "retry":
                raise ServiceError(self._advice(trouble))
            tries += 1
            self._count(trouble.words)
            if tries >= self.attempts:
                return [Reply("", "failed", detail=f"{trouble.words} ({tries} attempts)")] * n
            pause = self._random.uniform(0, min(CAP, self.base * 2.0 ** (tries - 1)))

    async def _wait(self, pause: float, deadline: float) -> bool:
        """Until `pause` seconds and the provider's own pause are over. False: the deadline is before that."""
        until = time.monotonic() + pause
        while (then := max(until, self._gate)) > (now := time.monotonic()):
            if then >= deadline:
                return False
            if then - now > PATIENCE:
                raise ServiceError(
                    f"{self.name} at {self.where} asks for a pause of {then - now:.0f} seconds. What was answered is "
                    "kept: resume the run after that."
                )
            await asyncio.sleep(then - now)
        return now < deadline

    async def _try(self, body: dict[str, Any], key: str, left: float) -> tuple[dict[str, Any], Trouble | None]:
        """One HTTP request: the provider's JSON, or what went wrong. left: seconds until the deadline."""
        import openai

        seconds, failed = min(self.timeout, left), ""
        try:
            async with asyncio.timeout(seconds):
                raw = await self._client.chat.completions.with_raw_response.create(
                    **body, extra_headers={"Idempotency-Key": key}
                )
            response = raw.http_response
        except openai.APIStatusError as error:
            response = error.response
        except (openai.OpenAIError, TimeoutError) as error:
            cause = error.__cause__ or error
            late = isinstance(error, TimeoutError | openai.APITimeoutError)
            failed = f"no answer within {seconds:.3g} seconds" if late else str(cause) or type(cause).__name__
            if late and left <= self.timeout:
                return {}, Trouble("late", failed)
        if failed:  # out here: an error raised later must not carry the client's own, which holds the request
            return {}, Trouble("retry", self._redact(failed))
        self._gate = max(self._gate, time.monotonic() + told(response.headers, response.status_code, time.time()))
        if response.status_code >= 400:
            trouble = classify(response.status_code, response.text)
            return {}, replace(trouble, words=self._redact(trouble.words)[:500])  # in this order: no half of a key
        try:
            said = response.json()
        except ValueError:
            return {}, Trouble("retry", f"the response is not JSON: {self._redact(response.text)[:200]!r}")
        if not usable(said):
            return {}, Trouble("retry", f"the response holds no choices: {self._redact(json.dumps(said))[:200]}")
        model = said.get("model")
        if isinstance(model, str) and not self.any_model and not same_model(self.asked, model):
            return {}, Trouble("model", self._redact(model))
        return said, None

    def _count(self, words: str) -> None:
        """The circuit breaker. What fails at once, because it was under way at once, must not be what trips it."""
        self._failures += 1
        most = 20 if self._ever else min(20, 3 * self.attempts)
        if self._failures >= max(most, 2 * self.concurrency):
            count, self._failures = self._failures, 0
            raise ServiceError(
                f"{self.name} at {self.where}: {count} requests in a row failed, the last one with: {words}\n"
                "What was answered is kept. Check the network and the provider's status, then resume the run."
            )

    def _advice(self, trouble: Trouble) -> str:
        """What a person needs after a permanent error: the provider's words, and where to look."""
        if trouble.kind == "model":
            return (
                f"asked for the model {self.asked!r}, but {self.where} answers as {trouble.words!r}. Check the model's "
                "name and the base URL (OPENAI_BASE_URL), or open the endpoint with any_model=True"
            )
        look = {
            401: "Check the key in OPENAI_API_KEY, and that it belongs to this base URL (OPENAI_BASE_URL).",
            403: "Check that the key in OPENAI_API_KEY may use this model.",
            404: f"Check the model's name ({self.asked}) and the base URL (OPENAI_BASE_URL), often ending in /v1.",
            429: "The account behind OPENAI_API_KEY has no credit left: add some, then resume the run.",
        }.get(trouble.status, f"Check the model's name ({self.asked}), its limits, and the base URL (OPENAI_BASE_URL).")
        return f"{self.name} at {self.where} refuses ({trouble.status}): {trouble.words}\n{look}"

    def _redact(self, words: str) -> str:
        if len(key := self._client.api_key) >= 4 and key != "none":  # read there: no attribute of ours holds it
            words = words.replace(key, "[key]")
        return re.sub(r"\bsk-[\w*-]{6,}|(?<=Bearer )[^\s\"',]+", "[key]", words)

    def _clean(self, reply: Reply) -> Reply:
        """Without the key, should the server say it; short ones are words that stand in for a key, not secrets."""
        key = self._client.api_key
        text = reply.text.replace(key, "[key]") if len(key) >= 16 else reply.text
        return replace(reply, text=text, detail=self._redact(reply.detail))


def _client(url: str | None, timeout: float) -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingExtra("openai", "endpoints", "a model behind an API") from error
    parts = urlsplit(url or "https://api.openai.com")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ConfigError(
            "the base URL must look like https://host/v1, without a name, password or query in it (the key goes into "
            "OPENAI_API_KEY); see base_url and OPENAI_BASE_URL"
        )
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and not (url and _loopback(parts.hostname)):
        raise ConfigError(f"no key for {parts.hostname}: set OPENAI_API_KEY (a server on this machine may need none)")
    if not (key.isascii() and key.isprintable() and " " not in key):  # refused here: HTTP's own error would show it
        raise ConfigError("OPENAI_API_KEY holds blanks or characters that no key has: set it again")
    return openai.AsyncOpenAI(api_key=key or "none", base_url=url, timeout=timeout, max_retries=0)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _shut(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: Any) -> None:
    """End the loop and its thread. Holds no reference to the endpoint, so that a forgotten one ends too."""

    async def end() -> None:
        await _cancel_all()
        await client.close()
        await loop.shutdown_default_executor()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    if threading.current_thread() is not thread:  # the garbage collector may run in any thread
        thread.join(10)
        if not thread.is_alive():
            loop.close()
