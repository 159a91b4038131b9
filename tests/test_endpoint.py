"""An endpoint against a real server on this machine: what comes back, what is paid, and what every failure becomes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from anacrusis.errors import ConfigError, MissingExtra, ServiceError
from anacrusis.model import endpoint as module
from anacrusis.model.calls import Call, Reply
from anacrusis.model.endpoint import Endpoint
from anacrusis.model.wire import classify, duration, replies_of, same_model, told

from .loopback import Loopback, tokens

KEY = "sk-test-0123456789abcdefghij"


def call(text: str, sample: int = 0, **more: Any) -> Call:
    return Call((("user", text),), sample=sample, **more)


def echo(body: dict[str, Any], index: int) -> str:
    return f"{body['messages'][-1]['content']}/{index}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[Loopback, Endpoint]]]:
    """A server and an endpoint for it, both closed at the end."""
    held: list[Any] = []

    def build(brain: Any = echo, server: dict[str, Any] | None = None, **more: Any) -> tuple[Loopback, Endpoint]:
        loopback = Loopback(brain, **(server or {})).__enter__()
        held.append(loopback)
        held.append(Endpoint("openai:test-model", loopback.url, **{"base": 0.001, **more}))
        return loopback, held[-1]

    yield build
    for one in reversed(held):
        one.__exit__(None, None, None)


# answers


def test_replies_come_in_the_order_of_the_calls_whatever_the_latency(opened):
    delays = {str(i): (7 * i % 11) * 0.004 for i in range(40)}
    server, model = opened(server={"latency": lambda body: delays[body["messages"][-1]["content"]]})
    order: list[int] = []
    replies = model.complete([call(str(i)) for i in range(40)], order.extend)
    assert [r.text for r in replies] == [f"{i}/0" for i in range(40)]
    assert sorted(order) == list(range(40)) and order != sorted(order)
    assert max(r["under_way"] for r in server.requests) <= 8
    assert sum(r.input for r in replies) == server.input and sum(r.output for r in replies) == server.output
    assert model.complete([]) == []


def test_what_is_sent(opened):
    server, model = opened()
    model.complete([Call((("system", "be brief"), ("user", "hi")), temperature=0.5, tokens=7, stop=("\n",))])
    (seen,) = server.requests
    assert seen["authorized"] and len(seen["key"]) == 64
    assert seen["body"] == {
        "model": "test-model",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "stop": ["\n"],
    }


def test_samples_of_one_question_are_one_request(opened):
    server, model = opened()
    replies = model.complete([call("a", 0), call("b", 5), call("a", 1), call("a", 2)])
    assert [r.text for r in replies] == ["a/0", "b/0", "a/1", "a/2"]
    assert sorted(r["body"].get("n", 1) for r in server.requests) == [1, 3]
    assert [r.input for r in replies] == [1, 1, 0, 0]
    assert sum(r.output for r in replies) == server.output


@pytest.mark.parametrize("how", [{"many": False}, {"refuses": ("n",)}])
def test_servers_that_do_not_take_n_are_asked_for_the_missing_ones(opened, how):
    server, model = opened(server=how)
    replies = model.complete([call("a", s) for s in range(4)])
    assert [r.outcome for r in replies] == ["ok"] * 4 and server.charged == 4
    assert sum(r.input for r in replies) == server.input and sum(r.output for r in replies) == server.output
    assert len({r["key"] for r in server.requests}) == len(server.requests)
    model.complete([call("b", s) for s in range(3)])  # learned: one by one from the start
    assert [r["body"].get("n", 1) for r in server.requests[-3:]] == [1, 1, 1]


def test_equal_calls_are_asked_once_and_paid_once(opened):
    server, model = opened()
    replies = model.complete([call("a"), call("a")])
    assert server.charged == 1 and [r.text for r in replies] == ["a/0", "a/0"]
    assert (replies[0].input, replies[1].input, replies[1].output) == (1, 0, 0)


def test_without_usage_four_bytes_are_a_token(opened):
    _, model = opened(lambda body, index: "äöü", server={"usage": False})
    (reply,) = model.complete([call("12345")])
    assert (reply.input, reply.output) == (2, 2)


def test_sixty_four_at_once(opened):
    server, model = opened(concurrency=64, server={"latency": 0.3})
    start = time.monotonic()
    replies = model.complete([call(str(i)) for i in range(64)])
    assert [r.text for r in replies] == [f"{i}/0" for i in range(64)]
    assert max(r["under_way"] for r in server.requests) > 32
    assert time.monotonic() - start < 5


def test_a_repeated_run_is_billed_once_unless_it_is_another_run(opened):
    server, model = opened()
    first = model.complete([call("a"), call("b")], salt="run 1")
    assert model.complete([call("a"), call("b")], salt="run 1") == first
    assert (server.charged, server.repeated) == (2, 2)
    model.complete([call("a"), call("b")], salt="run 2")
    assert server.charged == 4


def test_arrived_is_called_serially_in_one_other_thread(opened):
    _, model = opened(server={"latency": 0.01})
    inside, threads = [0], set()

    def arrived(several: dict[int, Reply]) -> None:
        inside[0] += 1
        assert inside[0] == 1
        threads.add(threading.get_ident())
        time.sleep(0.001)
        inside[0] -= 1

    model.complete([call(str(i)) for i in range(20)], arrived)
    assert len(threads) == 1 and threading.get_ident() not in threads


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_what_arrived_raises_stops_everything_and_is_raised(opened, kind):
    server, model = opened(server={"latency": 0.02}, concurrency=2)
    calls: list[int] = []

    def arrived(several: dict[int, Reply]) -> None:
        calls.extend(several)
        raise kind("disk full")

    with pytest.raises(kind, match="disk full"):
        model.complete([call(str(i)) for i in range(50)], arrived)
    assert len(calls) == 1 and len(server.requests) <= 6
    assert model.complete([call("still there")])[0].text == "still there/0"


# failures that pass


@pytest.mark.parametrize("kind", ["429", "429-after", "500", "cut", "invalid-json", "empty-choices"])
def test_what_passes_is_tried_again_and_billed_once(opened, kind):
    server, model = opened()
    server.fail(kind, times=2)
    (reply,) = model.complete([call("a")])
    assert (reply.text, reply.outcome) == ("a/0", "ok")
    assert len(server.requests) == 3 and server.charged == 1
    assert len({r["key"] for r in server.requests}) == 1


def test_a_server_that_hangs_is_left_and_asked_again(opened):
    server, model = opened(timeout=0.2)
    server.fail("hang", times=1)
    start = time.monotonic()
    (reply,) = model.complete([call("a")])
    assert reply.outcome == "ok" and server.charged == 1 and 0.2 <= time.monotonic() - start < 2


@pytest.mark.parametrize("kind", ["429", "500", "cut", "invalid-json", "empty-choices"])
def test_what_does_not_pass_is_a_failed_reply_never_a_text(opened, kind):
    server, model = opened(attempts=3)
    server.fail(kind)
    (reply,) = model.complete([call("a")])
    assert (reply.text, reply.outcome, reply.input, reply.output) == ("", "failed", 0, 0)
    assert reply.detail and "3 attempts" in reply.detail and len(server.requests) == 3


def test_many_calls_through_a_bad_line(opened):
    server, model = opened(attempts=12)
    for kind in ("500", "cut", "429", "invalid-json", "empty-choices"):
        server.fail(kind, rate=0.08, seed=len(kind))
    replies = model.complete([call(str(i)) for i in range(60)])
    assert [r.text for r in replies] == [f"{i}/0" for i in range(60)]
    assert server.charged == 60 and sum(r.output for r in replies) == server.output


def test_nobody_listens(opened):
    server, _ = opened()
    server.__exit__(None, None, None)
    with Endpoint("openai:test-model", server.url, attempts=2, base=0.001) as model:
        (reply,) = model.complete([call("a")])
    assert reply.outcome == "failed"
    server._server.server_close()


def test_pauses_grow_and_are_drawn_from_the_whole_range(opened):
    server, model = opened(base=0.05, attempts=4)
    server.fail("500", times=3)
    drawn = []
    model._random.uniform = lambda a, b: drawn.append((a, b)) or b
    model.complete([call("a")])
    at = [r["at"] for r in server.requests]
    assert drawn == [(0, 0.05), (0, 0.1), (0, 0.2)]
    assert [b - a >= d[1] for a, b, d in zip(at, at[1:], drawn, strict=False)] == [True] * 3


def test_retry_after_holds_everybody(opened):
    server, model = opened(concurrency=4, server={"latency": 0.1})
    server.headers = {"Retry-After": "0.4"}
    server.fail("429", times=1)
    model.complete([call(str(i)) for i in range(12)])
    first, *rest = [r["at"] for r in server.requests]
    assert len(rest) == 12
    late = [t - first for t in rest]
    assert sum(t >= 0.4 for t in late) >= 9  # all but those that were under way already


def test_used_up_rate_limits_hold_everybody_before_they_fail(opened):
    server, model = opened(concurrency=1)
    server.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "150ms"}
    model.complete([call("a"), call("b"), call("c")])
    at = [r["at"] for r in server.requests]
    assert all(b - a >= 0.149 for a, b in zip(at, at[1:], strict=False))


def test_a_pause_of_hours_is_said_instead_of_waited_for(opened):
    server, model = opened()
    server.headers = {"Retry-After": "7200"}
    server.fail("429", times=1)
    with pytest.raises(ServiceError, match="pause of 7[12]..") as error:
        model.complete([call("a")])
    assert "resume" in str(error.value) and len(server.requests) == 1


# answers that are none


@pytest.mark.parametrize(
    ("kind", "outcome", "text"),
    [("length", "truncated", "a/0"), ("content-filter", "refused", ""), ("refusal", "refused", "")],
)
def test_typed_outcomes(opened, kind, outcome, text):
    server, model = opened()
    server.fail(kind, times=1)
    (reply,) = model.complete([call("a")])
    assert (reply.outcome, reply.text) == (outcome, text) and reply.input == 1
    if kind == "refusal":
        assert reply.detail == "I can't help with that."


def test_a_filtered_question_is_refused_and_the_rest_goes_on(opened):
    server, model = opened(concurrency=1)
    server.fail("filtered", times=1)
    refused, answered = model.complete([call("a"), call("b")])
    assert refused == Reply("", "refused", detail="The prompt was filtered") and answered.outcome == "ok"


@pytest.mark.parametrize(
    ("said", "text", "outcome"),
    [
        ("<think>hm</think>\n yes", "yes", "ok"),
        ("\n<think>hm</think>", "", "empty"),
        ("<think>hm and hm", "", "truncated"),
        ("yes <think>", "yes <think>", "ok"),
        ("", "", "empty"),
        (" \n", "", "empty"),
    ],
)
def test_thoughts_and_emptiness(opened, said, text, outcome):
    _, model = opened(lambda body, index: said)
    (reply,) = model.complete([call("a")])
    assert (reply.text, reply.outcome) == (text, outcome)


def test_the_limit_of_tokens_is_kept_and_told(opened):
    _, model = opened(lambda body, index: "x" * 100)
    (reply,) = model.complete([call("a", tokens=5)])
    assert reply == Reply("x" * 20, "truncated", input=1, output=5)


def test_parameters_that_the_provider_does_not_take_are_left_out_for_good(opened):
    server, model = opened(server={"refuses": ("max_tokens", "temperature")}, concurrency=3)
    replies = model.complete([call(str(i), temperature=0.5, tokens=9) for i in range(9)])
    assert all(r.outcome == "ok" for r in replies) and server.charged == 9
    assert server.requests[-1]["body"].keys() == {"model", "messages", "max_completion_tokens"}
    assert server.requests[-1]["body"]["max_completion_tokens"] == 9
    assert "no max_tokens, no temperature" in model.describe()
    before = len(server.requests)
    model.complete([call("again", temperature=0.5)])
    assert len(server.requests) == before + 1


# failures that stay


@pytest.mark.parametrize(
    ("kind", "words", "look"),
    [
        ("401", "Incorrect API key", "OPENAI_API_KEY"),
        ("404", "does not exist", "OPENAI_BASE_URL"),
        ("quota", "exceeded your current quota", "credit"),
        ("wrong-model", "'another-model'", "any_model"),
    ],
)
def test_what_stays_is_raised_at_once_and_cancels_the_rest(opened, kind, words, look):
    slow = {"latency": lambda body: 0.0 if body["messages"][0]["content"] == "0" else 2.0}
    server, model = opened(server=slow)
    server.fail(kind)
    start = time.monotonic()
    with pytest.raises(ServiceError) as error:
        model.complete([call(str(i)) for i in range(30)])
    assert words in str(error.value) and look in str(error.value) and "test-model" in str(error.value)
    assert time.monotonic() - start < 1.5 and len(server.requests) <= 9


def test_another_model_may_be_allowed(opened):
    server, model = opened(any_model=True)
    server.fail("wrong-model")
    assert model.complete([call("a")])[0].outcome == "ok"
    assert model.opening["any_model"] is True


@pytest.mark.parametrize("kind", ["500", "hang"])
def test_the_breaker_before_anything_worked(opened, kind):
    server, model = opened(attempts=3, concurrency=3, timeout=0.15)
    server.fail(kind)
    with pytest.raises(ServiceError, match="9 requests in a row.*\n.*resume"):
        model.complete([call(str(i)) for i in range(30)])
    assert 9 <= len(server.requests) <= 12


def test_the_breaker_after_something_worked(opened):
    server, model = opened(attempts=3, concurrency=3)
    model.complete([call("a")])
    server.fail("500")
    with pytest.raises(ServiceError, match="20 requests in a row failed.*The server had an error"):
        model.complete([call(str(i)) for i in range(30)])
    server.heal()
    assert model.complete([call("b")])[0].outcome == "ok"


def test_a_burst_that_fails_together_does_not_trip_the_breaker(opened):
    server, model = opened(concurrency=32, base=0.05, server={"latency": 0.05})
    server.fail("429", times=32)
    replies = model.complete([call(str(i)) for i in range(32)])
    assert all(r.outcome == "ok" for r in replies)


# time and interruption


def test_within_ends_requests_and_starts_no_more(opened):
    server, model = opened(
        concurrency=2, server={"latency": lambda b: 0.0 if b["messages"][0]["content"] == "0" else 3.0}
    )
    start = time.monotonic()
    replies = model.complete([call(str(i)) for i in range(6)], within=0.4)
    assert 0.4 <= time.monotonic() - start < 1.5
    assert replies[0].outcome == "ok"
    assert replies[1:] == [Reply("", "failed", detail="out of time")] * 5
    assert len(server.requests) == 3
    assert model.complete([call("x")], within=0)[0].detail == "out of time" and len(server.requests) == 3


def test_what_was_cut_off_by_our_own_deadline_is_no_evidence_against_the_server(opened):
    server, model = opened(concurrency=4, attempts=1, server={"latency": 2.0})
    for _ in range(3):  # twelve in a row; the breaker would take eight
        replies = model.complete([call(str(i)) for i in range(4)], within=0.1)
        assert {r.detail for r in replies} == {"out of time"}
    assert len(server.requests) == 12


def test_within_is_not_slept_away_in_a_pause(opened):
    server, model = opened()
    server.headers = {"Retry-After": "30"}
    server.fail("429")
    start = time.monotonic()
    (reply,) = model.complete([call("a")], within=2)
    assert reply.detail == "out of time" and time.monotonic() - start < 1


def test_control_c_cancels_at_once_and_leaves_a_working_endpoint(tmp_path: Path):
    script = textwrap.dedent(
        """
        import asyncio, os, signal, sys, threading, time
        from tests.loopback import Loopback
        from anacrusis.model.calls import Call
        from anacrusis.model.endpoint import Endpoint

        ask = lambda t: Call((("user", t),))
        wait = lambda body: 8.0 if body["messages"][0]["content"] == "slow" else 0
        with Loopback(lambda b, i: "x", latency=wait) as server:
            with Endpoint("openai:m", server.url) as model:
                model.complete([ask("warm")])
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have inherited none
                threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
                start = time.monotonic()
                try:
                    model.complete([ask("slow"), ask("warm")])
                except KeyboardInterrupt:
                    print("interrupted", time.monotonic() - start < 2, len(asyncio.all_tasks(model._loop)))
                print(model.complete([ask("warm")])[0].text)
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OPENAI_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted True 0\nx\n"), done.stderr


def test_close_ends_the_thread_and_is_final(opened):
    _, model = opened()
    model.complete([call("a")])
    model.close()
    model.close()
    assert not [t for t in threading.enumerate() if t.name == "anacrusis-endpoint"]
    with pytest.raises(ServiceError, match="closed"):
        model.complete([call("a")])


def test_an_endpoint_that_was_forgotten_ends_its_thread(opened):
    server, _ = opened()
    Endpoint("openai:m", server.url).complete([call("a")])
    import gc

    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "anacrusis-endpoint"]


def test_works_where_a_loop_is_running_already(opened):
    import asyncio

    _, model = opened()

    async def cell() -> str:
        return model.complete([call("a")])[0].text

    assert asyncio.run(cell()) == "a/0"


# opening, and what must never be seen


def shown(error: BaseException | None) -> str:
    seen = []
    while error is not None:
        seen += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return " ".join(seen)


def test_the_key_is_never_shown(opened, caplog):
    caplog.set_level("DEBUG")
    server, model = opened()
    server.fail("401")  # says the key
    with pytest.raises(ServiceError, match="Incorrect API key provided") as error:
        model.complete([call("a")])
    seen = shown(error.value) + repr(model) + model.describe() + repr(model.opening) + repr(vars(model))
    assert KEY not in seen + caplog.text and "[key]" in str(error.value)


@pytest.mark.parametrize("kind", ["401", "500"])
def test_a_long_message_is_not_cut_through_the_key(opened, monkeypatch, kind):
    from . import loopback

    status, _ = loopback.REJECTIONS[kind]
    monkeypatch.setenv("OPENAI_API_KEY", "gk_ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    monkeypatch.setitem(loopback.REJECTIONS, kind, (status, {"message": "." * 490 + "{key}"}))
    server, model = opened(attempts=1)
    server.fail(kind)
    try:
        seen = model.complete([call("a")])[0].detail
    except ServiceError as error:
        seen = shown(error)
    assert "...." in seen and "gk_A" not in seen


def test_redaction_does_not_hide_what_kind_of_error_it_is(opened, monkeypatch):
    from . import loopback

    said = {"message": "Bearer {key}", "code": "insufficient_quota"}
    monkeypatch.setitem(loopback.REJECTIONS, "quota", (429, said))
    server, model = opened()
    server.fail("quota")
    with pytest.raises(ServiceError, match=r"Bearer \[key\]\n.*credit"):
        model.complete([call("a")])


def test_a_server_that_answers_with_the_key_is_not_quoted(opened):
    _, model = opened(lambda body, index: f"your key is {KEY}")
    assert model.complete([call("a")])[0].text == "your key is [key]"


def test_a_word_in_the_place_of_a_key_is_left_in_answers(opened, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    _, model = opened(lambda body, index: "EMPTY")
    assert model.complete([call("a")])[0].text == "EMPTY"


def test_no_key(opened, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server, model = opened()
    assert model.complete([call("a")])[0].outcome == "ok"
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        Endpoint("openai:m", "https://example.org/v1")
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        Endpoint("openai:m")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    with Endpoint("openai:m") as other:
        assert other.where == model.where and other.opening == {}


@pytest.mark.parametrize(
    "options",
    [
        {"name": "gpt"},
        {"name": "openai:"},
        {"concurrency": 0},
        {"attempts": 0},
        {"timeout": 0},
        {"base_url": "example.org/v1"},
        {"base_url": "https://me:secret@example.org/v1"},
        {"base_url": "https://example.org/v1?key=secret"},
    ],
)
def test_options_that_cannot_be(options):
    with pytest.raises(ConfigError) as error:
        Endpoint(**{"name": "openai:m", **options})
    assert "secret" not in str(error.value)


def test_a_key_that_http_would_refuse_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(ConfigError) as error:
        Endpoint("openai:m")
    assert "two words" not in str(error.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"anacrusis\[endpoints\]"):
        Endpoint("openai:m")


def test_fingerprints_tell_models_and_hosts_apart_but_not_ports():
    def mark(name: str, url: str) -> str:
        return Endpoint(name, url).fingerprint

    one = mark("openai:a", "http://127.0.0.1:1000/v1")
    assert len(one) == 24 and int(one, 16) and one == mark("openai:a", "http://127.0.0.1:2000/v1/")
    assert len({one, mark("openai:b", "http://127.0.0.1:1000/v1"), mark("openai:a", "https://example.org/v1")}) == 3
    assert len({one, mark("openai:a", "http://127.0.0.1:1000/v2")}) == 2


# the pure parts


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("12", 12),
        ("0.05", 0.05),
        (" 2 ", 2),
        ("1d", 86400),
    ]
    + [(t, None) for t in ("", "soon", "-1", "nan", "1e400", "5 s", "1s2", "Wed, 21 Oct 2015 07:28:00 GMT")],
)
def test_duration(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_told():
    limit = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}
    assert told(limit, 200, 0) == 360 and told({**limit, "x-ratelimit-remaining-tokens": "3"}, 200, 0) == 0
    assert told({"retry-after": "3"}, 429, 0) == 3 and told({"retry-after": "3"}, 200, 0) == 0
    assert told({"retry-after": "3", "retry-after-ms": "1500"}, 503, 0) == 1.5
    assert told({"retry-after": formatdate(1_000_020, usegmt=True)}, 429, 1_000_000) == 20
    assert told({"retry-after": formatdate(1_000_000, usegmt=True)}, 429, 1_000_020) == 0
    assert told({"retry-after": "later"}, 429, 0) == 0 and told({}, 500, 0) == 0


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [(s, "{}", "retry") for s in (408, 409, 429, 500, 502, 503, 529)]
    + [(s, "{}", "stop") for s in (301, 400, 401, 402, 403, 404, 413, 422)]
    + [
        (400, '{"error": {"message": "no", "code": "content_policy_violation"}}', "refused"),
        (429, '{"error": {"message": "no", "type": "insufficient_quota"}}', "stop"),
        (400, '{"error": {"message": "\'max_tokens\' is not supported. Use \'max_completion_tokens\'"}}', "max_tokens"),
        (400, '{"error": {"message": "\'max_tokens\' is not supported"}}', "stop"),
        (400, '{"error": {"message": "temperature does not support 0"}}', "temperature"),
        (400, '{"error": {"message": "temperature must be below 2"}}', "stop"),
        (400, '{"error": "model not found"}', "stop"),
        (502, "<html>", "retry"),
        (400, "[1]", "stop"),
        (400, "", "stop"),
    ],
)
def test_classify(status, text, kind):
    trouble = classify(status, text)
    assert (trouble.kind, trouble.status) == (kind, status) and trouble.words


def test_same_model():
    assert same_model("gpt-4o", "gpt-4o-2024-08-06") and same_model("meta/Llama-3", "llama-3")
    assert same_model("llama3:latest", "llama3") and not same_model("gpt-4o", "gpt-3.5") and same_model("a", "x/y/a")


@pytest.mark.parametrize("total", [0, 1, 7, 100])
def test_output_tokens_of_samples_sum_to_what_was_billed(total):
    choices = [{"message": {"content": t}} for t in ("", "abc", "a much longer text", "b")]
    said = {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": total}}
    replies = replies_of(said, call("a"), 4)
    assert sum(r.output for r in replies) == total and [r.input for r in replies] == [9, 0, 0, 0]
    assert all(abs(r.output - total * (len(r.text) + 1) / 26) < 1 for r in replies)
    assert len(replies_of(said, call("a"), 2)) == 2


def test_odd_but_usable_and_unusable_responses():
    parts = {"choices": [{"message": {"content": [{"type": "text", "text": "yes"}, {"type": "image"}]}}]}
    assert module.usable(parts) and replies_of(parts, call("a"), 1)[0].text == "yes"
    assert module.usable({"choices": [{"message": {"content": None}}]})
    for bad in (
        None,
        [],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 3}}]},
    ):
        assert not module.usable(bad)
    assert tokens("äöü") == 2
