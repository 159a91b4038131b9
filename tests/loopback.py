"""A chat API on this machine, with real sockets: what it answers, forgets, breaks and bills is set by the test."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

# kind -> (status, error) of requests that are turned away before any work is done for them
REJECTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "429": (429, {"message": "Rate limit reached", "code": "rate_limit_exceeded"}),
    "429-after": (429, {"message": "Rate limit reached, try again soon", "code": "rate_limit_exceeded"}),
    "500": (500, {"message": "The server had an error"}),
    "401": (401, {"message": "Incorrect API key provided: {key}", "code": "invalid_api_key"}),
    "404": (404, {"message": "The model does not exist or you have no access to it", "code": "model_not_found"}),
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "filtered": (400, {"message": "The prompt was filtered", "code": "content_filter"}),
    "max_tokens": (400, {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}),
    "temperature": (400, {"message": "Unsupported value: 'temperature' does not support 0.5 with this model."}),
    "n": (400, {"message": "'n' : number must be at most 1"}),
}
ACCIDENTS = ("hang", "cut", "invalid-json", "empty-choices", "refusal", "wrong-model", "length", "content-filter")


def tokens(text: str) -> int:
    """What this server bills: four bytes are a token."""
    return math.ceil(len(text.encode()) / 4)


class Loopback:
    """`with Loopback(brain) as server:` answers at `server.url`.

    brain(body, index) -> the text of the choice `index`; it must be safe to call from several threads.
    latency: seconds an answer, or a function of the body. many: whether `n` is honoured. usage: whether tokens are
    counted. refuses: parameters answered with 400 ("max_tokens", "temperature", "n" above 1). hang: seconds.
    headers: sent with every response; may be changed while it runs.

    requests: what came, in order: body, key (Idempotency-Key), authorized, at (monotonic seconds), under_way.
    charged: requests that were billed (distinct keys; those without a key always); repeated: those answered again from
    memory. input, output: tokens billed.
    """

    def __init__(
        self,
        brain: Callable[[dict[str, Any], int], str],
        *,
        latency: float | Callable[[dict[str, Any]], float] = 0.0,
        many: bool = True,
        usage: bool = True,
        refuses: tuple[str, ...] = (),
        hang: float = 5.0,
    ):
        self.brain, self.latency, self.many, self.usage, self.refuses, self.hang = (
            brain, latency, many, usage, refuses, hang)  # fmt: skip
        self.headers: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.charged = self.repeated = self.input = self.output = 0
        self._stored: dict[str, dict[str, Any]] = {}
        self._faults: list[dict[str, Any]] = []
        self._under_way = 0
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._open: set[Any] = set()
        self._server: ThreadingHTTPServer

    def fail(self, kind: str, times: int | None = None, rate: float | None = None, seed: int = 0) -> None:
        """The next `times` requests fail so, or each one with probability `rate`; without both: all of them.

        Rejections are not billed. Accidents ("hang", "cut", "invalid-json", "empty-choices") happen to an answer that
        was made and billed; with the same Idempotency-Key it is given again.
        """
        if kind not in REJECTIONS and kind not in ACCIDENTS:
            raise ValueError(f"no failure {kind!r}; there are {', '.join([*REJECTIONS, *ACCIDENTS])}")
        self._faults.append({"kind": kind, "left": times, "rate": rate, "random": random.Random(seed)})

    def heal(self) -> None:
        self._faults.clear()

    def __enter__(self) -> Loopback:
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:  # kept alive by clients that are still there
                try:
                    connection.shutdown(2)
                except OSError:
                    pass
        self._server.server_close()  # waits for the handlers

    # one request, in a thread of its own

    def _next_fault(self) -> str:
        for fault in self._faults:
            if fault["left"] == 0 or (fault["rate"] is not None and fault["random"].random() >= fault["rate"]):
                continue
            if fault["left"] is not None:
                fault["left"] -= 1
            return str(fault["kind"])
        return ""

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        choices, out = [], 0
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 10**9
        for index in range(body.get("n", 1) if self.many else 1):
            text, reason = self.brain(body, index), "stop"
            for mark in body.get("stop") or []:
                text = text.split(mark)[0]
            if tokens(text) > most:
                text, reason = text.encode()[: most * 4].decode(errors="ignore"), "length"
            out += tokens(text)
            message = {"role": "assistant", "content": text}
            choices.append({"index": index, "message": message, "finish_reason": reason})
        asked = sum(tokens(m["content"]) for m in body["messages"])
        usage = {"prompt_tokens": asked, "completion_tokens": out, "total_tokens": asked + out}
        return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}

    def _reply(self, body: dict[str, Any], key: str | None) -> dict[str, Any]:
        answer = None if key is None else self._stored.get(key)
        fresh = self._answer(body) if answer is None else answer
        with self._lock:
            if key is not None and key in self._stored:
                self.repeated += 1
                return json.loads(json.dumps(self._stored[key]))
            self.charged += 1
            self.input += fresh["usage"]["prompt_tokens"]
            self.output += fresh["usage"]["completion_tokens"]
            fresh["id"] = f"chatcmpl-{self.charged}"
            if key is not None:
                self._stored[key] = fresh
            return json.loads(json.dumps(fresh))

    def _serve(self, body: dict[str, Any], key: str | None, bearer: str) -> tuple[int, dict[str, str], bytes, str]:
        """(status, headers, body, accident on the wire)."""
        with self._lock:
            self._under_way += 1
            seen = {"body": body, "key": key, "authorized": bool(bearer), "at": time.monotonic()}
            self.requests.append({**seen, "under_way": self._under_way})
            kind = self._next_fault()
        try:
            for name in self.refuses:
                if body.get(name, 1 if name == "n" else None) not in (None, 1 if name == "n" else None):
                    kind = name
            headers = dict(self.headers)
            if kind in REJECTIONS:
                status, error = REJECTIONS[kind]
                if kind == "429-after":
                    headers |= {"Retry-After": "0.05", "retry-after-ms": "50"}
                error = {**error, "message": error["message"].replace("{key}", bearer)}
                return status, headers, json.dumps({"error": error}).encode(), ""
            self._ending.wait(self.latency(body) if callable(self.latency) else self.latency)
            answer = self._reply(body, key)
            if kind == "hang":
                self._ending.wait(self.hang)
            first = answer["choices"][0]
            if kind == "empty-choices":
                answer["choices"] = []
            elif kind == "refusal":
                first["message"] |= {"content": None, "refusal": "I can't help with that."}
            elif kind == "wrong-model":
                answer["model"] = "another-model"
            elif kind in ("length", "content-filter"):
                first["finish_reason"] = kind.replace("-", "_")
            if not self.usage:
                del answer["usage"]
            data = json.dumps(answer).encode()
            return 200, headers, b"<html>busy</html>" if kind == "invalid-json" else data, kind
        finally:
            with self._lock:
                self._under_way -= 1


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = False  # so that closing waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about; nothing to print."""


def _handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            with loopback._lock:
                loopback._open.add(self.connection)

        def finish(self) -> None:
            with loopback._lock:
                loopback._open.discard(self.connection)
            super().finish()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bearer = (self.headers["Authorization"] or "").removeprefix("Bearer ")
            status, headers, data, accident = 404, dict[str, str](), b'{"error": "no such page"}', ""
            if self.path == "/v1/chat/completions":
                status, headers, data, accident = loopback._serve(body, self.headers["Idempotency-Key"], bearer)
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if accident == "cut" else data)
            self.wfile.flush()
            self.close_connection = self.close_connection or accident == "cut"

    return Handler
