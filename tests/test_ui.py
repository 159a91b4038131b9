"""The web view without a browser: what each page says, who may ask, and what an answer writes."""

from __future__ import annotations

import csv
import http.client
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("fastapi", reason="the extra ui is not installed")

from fastapi.testclient import TestClient

import anacrusis as ana
from anacrusis.errors import ConfigError, DataError, MissingExtra, RunError
from anacrusis.report import files, leaderboard
from anacrusis.runs.grid import Comparing, Grid
from anacrusis.runs.searching import Means
from anacrusis.search import person
from anacrusis.search.person import ByFile, Waiting
from anacrusis.testing import planted, tiny
from anacrusis.ui import app as ui
from anacrusis.ui import guard, labels, looks, resuming, routes
from anacrusis.ui.labels import LabelJob
from tests.world import Direct, World

ASKING = {"pool": 6, "duels": 3, "random": 3, "inputs": 1, "size": 16, "passes": 2}
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind: learned, searched, waiting for a person, and a comparison."""
    root = tmp_path_factory.mktemp("runs")
    model, world = tiny("gpt2"), World(examples=40)
    task, _ = planted(model, examples=60)
    ana.fit("prompt-tuning", model, task, folder=root / "soft", options={"epochs": 2, "length": 2})
    means = Means(writer=Direct(world, "openai:writer"), budget="600calls")
    ana.fit("opro", Direct(world), world.task, folder=root / "words", means=means)
    with pytest.raises(Waiting):
        ana.fit("apohf", Direct(world), world.task, folder=root / "asks", options=ASKING, means=means)
    rows = [f"w{10 * c + i % 7} w{50 + i} w{60 + i},team{c}" for i in range(20) for c in range(3)]
    (root.parent / "tickets.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    tickets = ana.Task.from_csv(root.parent / "tickets.csv")
    grid = Grid(methods=("linear-probe", "majority"), seeds=2)
    comparing = Comparing(grid, tickets, tiny("minilm"), root / "versus")
    comparing.run()
    files.write(leaderboard.of(comparing).leaderboard, comparing.folder)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "view"))


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with client_of(ui.make(root)) as found:
        yield found


def client_of(app: Any) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


def sign(client: TestClient, page: str = "/answer/asks") -> str:
    text = client.get(page).text
    return text.split('name="sign" value="')[1].split('"')[0]


def post(client: TestClient, path: str, page: str = "/answer/asks", **fields: str) -> Any:
    return client.post(path, data={"sign": sign(client, page), **fields})


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def at_work(folder: Path) -> None:
    """This process says that it works on the run."""
    mine = {"pid": os.getpid(), "made": psutil.Process().create_time(), "host": socket.gethostname()}
    (folder / "running.json").write_text(json.dumps(mine))


# --- pages


def test_every_page_says_what_is_there(client: TestClient) -> None:
    start = client.get("/").text
    for said in ("soft", "prompt-tuning", "done", "waits for a person", "4 of 4 runs ended", "accuracy", "planted"):
        assert said in start, said
    soft = client.get("/run/soft").text
    assert "Learning curve" in soft and "<svg" in soft and "macro-f1" in soft and "parameters" in soft
    words = client.get("/run/words").text
    assert "From the start to the winner" in words and "<ins>" in words and "spent by the writer" in words
    assert "Answer with one of: blue, green, red." in words and "600calls" in words
    waits = client.get("/run/asks").text
    assert "Answer 3 open pairs" in waits and 'id="resume"' not in waits
    compared = client.get("/compare/versus").text
    assert (
        "linear-probe-all-1" in compared and "has the highest accuracy" in compared and "data-refresh" not in compared
    )
    assert "linear-probe" in client.get("/run/versus/linear-probe-all-0").text
    for page in ("versus", "soft", "words"):
        whole = client.get(f"/report/{page}")
        assert whole.status_code == 200 and "sha256-" in whole.headers["content-security-policy"]
    assert client.get("/report/asks").status_code == 409  # it has not ended: said, not crashed


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with client_of(ui.make(tmp_path / "none")) as client:
        assert "anacrusis fit DATA" in client.get("/").text


def test_newest_first(client: TestClient, root: Path) -> None:
    for i, name in enumerate(("words", "soft", "asks")):
        os.utime(root / name / "run.json", (2e9 - i, 2e9 - i))
    text = client.get("/").text
    order = [text.index(f'id="to-{n}"') for n in ("words", "soft", "asks", "versus")]
    assert order == sorted(order)


def test_progress_of_what_runs(client: TestClient, root: Path) -> None:
    folder = root / "soft"
    (folder / "result.json").unlink()
    assert looks.look(folder).state == "unfinished"
    at_work(folder)
    now = looks.look(folder)
    last = looks.validations(folder)[-1]
    assert now.state == "running" and now.share == 1.0 and f"{last['step']} of {last['of']} steps" in now.progress
    text = client.get("/run/soft").text
    assert 'data-refresh="1"' in text and 'http-equiv="refresh"' in text and 'id="stop"' in text
    assert post(client, "/stop/soft", "/run/soft").headers["location"] == "/run/soft"
    assert (folder / "stop").exists() and looks.look(folder).state == "stopping"
    assert 'id="stop"' not in client.get("/run/soft").text
    for name in ("result.json", "usage.json"):
        (root / "versus" / "cells" / "majority-all-1" / name).unlink()
    at_work(root / "versus")
    now = looks.look(root / "versus")
    assert (now.state, now.progress, now.share) == ("running", "3 of 4 runs ended", 0.75)
    assert post(client, "/stop/versus", "/compare/versus").headers["location"] == "/compare/versus"
    assert (root / "versus" / "stop").exists()


def test_steps_done_twice_after_a_crash_count_once(tmp_path: Path) -> None:
    rows = [{"event": "validate", "step": s, "of": 9, "score": v, "loss": 1.0, "metric": "accuracy", "seconds": 1.0}
            for s, v in ((0, 0.1), (3, 0.2), (6, 0.3), (3, 0.4))]  # fmt: skip
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"event": "val')
    assert [(s["step"], s["score"]) for s in looks.validations(tmp_path)] == [(0, 0.1), (3, 0.4), (6, 0.3)]


@pytest.mark.parametrize("file, text", [
    ("run.json", "{"), ("run.json", "[]"), ("result.json", "{"), ("result.json", "[]"), ("result.json", "{}"),
    ("journal.jsonl", "no\n{}\n"), ("prompt/prompt.json", "{"),
])  # fmt: skip
def test_damage_is_said_and_the_others_are_shown(client: TestClient, root: Path, file: str, text: str) -> None:
    (root / "soft" / file).write_text(text)
    start, page = client.get("/"), client.get("/run/soft")
    assert start.status_code == page.status_code == 200 and "words" in start.text
    assert "damaged" in page.text or "trouble" in page.text


def test_failed_cells_say_why(client: TestClient, root: Path, stand_in: Any) -> None:
    cell = root / "versus" / "cells" / "majority-all-1"
    shutil.rmtree(cell)
    cell.mkdir()
    (cell / "usage.json").write_text(json.dumps({"error": f"no {EVIL} left"}))
    text = client.get("/compare/versus").text
    assert "4 of 4 runs ended, 1 failed" in text and "no &lt;script&gt;" in text and EVIL not in text
    assert "Try the failed ones again" in text and looks.look(root / "versus").state == "done"
    stand_in("import time; time.sleep(0.3)")
    post(client, "/resume/versus", "/compare/versus")
    assert "starting" in client.get("/compare/versus").text
    wait_for(lambda: "starting" not in client.get("/compare/versus").text)


def test_texts_and_names_are_escaped(client: TestClient, root: Path) -> None:
    (root / "soft").rename(root / "a & <b>'s")
    plan = json.loads((root / "a & <b>'s" / "run.json").read_text())
    (root / "a & <b>'s" / "run.json").write_text(json.dumps({**plan, "task": EVIL}))
    start = client.get("/").text
    assert EVIL not in start and 'href="/run/a%20%26%20%3Cb%3E%27s"' in start
    page = client.get("/run/a%20%26%20%3Cb%3E%27s")
    assert page.status_code == 200 and EVIL not in page.text and "a &amp; &lt;b&gt;&#39;s" in page.text
    ByFile(root / "asks")._write({(EVIL, "one\n  two"): ""})
    text = client.get("/answer/asks").text
    assert EVIL not in text and "&lt;script&gt;" in text and "one\n  two</div>" in text


# --- who may ask


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8123", "[::1]", "[::1]:80", "LOCALHOST"])
def test_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1",
                                  "evil.example:127.0.0.1", "10.0.0.1", "127.0.0.1@evil.example", "::1"])  # fmt: skip
def test_other_names_are_not(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421 and "soft" not in answer.text


def test_posts_need_the_sign_of_this_browser(client: TestClient, root: Path) -> None:
    (root / "soft" / "result.json").unlink()
    at_work(root / "soft")
    mine = sign(client)
    other = client_of(client.app)
    for sender, data in ((client, {}), (client, {"sign": ""}), (client, {"sign": "0" * 64}), (client, {"sign": "é"}),
                         (other, {"sign": mine}), (client, {"sign": sign(other)})):  # fmt: skip
        for path in ("/stop/soft", "/resume/asks", "/answer/asks", "/label/x.csv"):
            assert sender.post(path, data=data).status_code in (400, 403), (path, data)
    assert not (root / "soft" / "stop").exists() and not (root / "asks" / resuming.LOG).exists()
    again = client_of(ui.make(root))  # another process: its secret is another one
    again.cookies.update(client.cookies)
    assert again.post("/stop/soft", data={"sign": mine}).status_code == 403
    for path in ("/stop/soft", "/resume/asks"):
        assert client.get(path).status_code == 405
    assert client.post("/stop/soft", data={"sign": mine}).status_code == 303 and (root / "soft" / "stop").exists()


def test_every_answer_carries_the_policy_and_the_cookie_is_closed(client: TestClient) -> None:
    cookie = client.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "set-cookie" not in client.get("/").headers
    for path in ("/", "/run/none", "/static/style.css", "/run/soft"):
        heads = client.get(path).headers
        assert heads["content-security-policy"].startswith("default-src 'self';")
        assert heads["x-content-type-options"] == "nosniff" and heads["x-frame-options"] == "DENY"
    for page in ("/", "/run/words", "/compare/versus", "/answer/asks"):
        text = client.get(page).text
        assert "<style" not in text and " style=" not in text and " onclick" not in text and "http://" not in text


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f", "%2e%2e%2fruns", "..%5c", "%2fetc", "soft%2f..", ".",
                                  "a%00b", "soft%2fprompt", "~", "*", "link", "labels", "%"])  # fmt: skip
def test_no_name_leads_out_of_the_folder(client: TestClient, root: Path, name: str) -> None:
    (root / "link").symlink_to(root.parent / "elsewhere")
    (root.parent / "elsewhere").mkdir()
    for place in (root.parent, root.parent / "elsewhere", root / "labels"):
        place.mkdir(exist_ok=True)
        (place / "run.json").write_text((root / "soft" / "run.json").read_text())
    if name == "labels":
        (root / "labels" / "run.json").unlink()
    for page in ("run", "compare", "answer", "label", "report", "run/versus", "answer/versus", "static"):
        answer = client.get(f"/{page}/{name}")
        assert answer.status_code == 404 or answer.url.path == "/", (page, answer.status_code, answer.url)
    mine = sign(client)
    for page in ("stop", "resume"):
        assert client.post(f"/{page}/{name}", data={"sign": mine}).status_code in (404, 405)
    assert not (root.parent / resuming.LOG).exists()


def test_over_real_sockets_nothing_is_put_right_on_the_way(root: Path) -> None:
    with live(ui.make(root)) as port:
        (root.parent / "run.json").write_text((root / "soft" / "run.json").read_text())

        def ask(path: str, host: str = "127.0.0.1", method: str = "GET", **more: Any) -> int:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                line.putrequest(method, path, skip_host=True)
                if host:
                    line.putheader("Host", host)
                body = more.pop("body", b"")
                for name, value in more.items():
                    line.putheader(name.replace("_", "-"), value)
                line.endheaders()
                if body:
                    line.send(body)
                return line.getresponse().status
            finally:
                line.close()

        assert ask("/run/soft") == 200 and ask("/run/soft", "evil.example") == 421 and ask("/", "") in (400, 421)
        for path in ("/run/..", "/run/../", "/run/%2e%2e", "/run/..%2f", "/run/%2e%2e%2f", "/run/versus/..",
                     "/run/soft/../soft", "/static/../app.py", "/static/..%2fapp.py", "//run/soft"):  # fmt: skip
            assert ask(path) == 404, path
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert ask("/stop/soft", method="POST", Content_Length="99999999", **form) == 413
        piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        assert ask("/stop/soft", method="POST", Transfer_Encoding="chunked", body=piece * 9, **form) == 413


@contextmanager
def live(app: Any) -> Iterator[int]:
    """The application behind a real server; gives its port."""
    with ui.listen() as made:
        running = ui.server(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [made]}, daemon=True)
        thread.start()
        try:
            yield made.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(10)


def test_names_that_are_refused_before_the_disk_is_asked(tmp_path: Path) -> None:
    (tmp_path / "in" / "run").mkdir(parents=True)
    for name in ("", ".", "..", "../in", "run/../run", "run/", "/", "\\..", "ru\0n", str(tmp_path / "in" / "run")):
        assert looks.child(tmp_path / "in", name) is None, name
    assert looks.child(tmp_path / "in", "run") == tmp_path / "in" / "run"


def test_large_bodies_are_refused(client: TestClient, root: Path) -> None:
    before = (root / "asks" / "preferences.csv").read_bytes()
    given = f"sign={sign(client)}&better=first&pair=".encode()
    heads = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/answer/asks", content=given + b"x" * guard.MOST, headers=heads).status_code == 413
    assert client.post("/answer/asks", content=given, headers={**heads, "content-length": "x"}).status_code == 413

    def chunks() -> Iterator[bytes]:  # no length is given
        yield given
        for _ in range(8):
            yield b"x" * (guard.MOST // 4)

    assert client.post("/answer/asks", content=chunks(), headers=heads).status_code == 413
    assert (root / "asks" / "preferences.csv").read_bytes() == before


def test_a_token_is_asked_for_once(root: Path) -> None:
    with client_of(ui.make(root, token="a token & more")) as client:
        assert client.get("/").status_code == 403 and "soft" not in client.get("/").text
        assert client.get("/?token=wrong").status_code == client.get("/static/ui.js").status_code == 403
        first = client.get("/answer/asks?pair=1&token=a%20token%20%26%20more", headers={"host": "machine.example"})
        assert first.status_code == 303 and first.headers["location"] == "/answer/asks?pair=1"
        assert "a token" not in first.headers["set-cookie"] and "HttpOnly" in first.headers["set-cookie"]
        assert client.get("/").status_code == 200
    with client_of(ui.make(root, token="t")) as client:
        away = client.get("http://127.0.0.1//evil.example/?token=t")
        assert away.status_code == 303 and away.headers["location"] == "/evil.example/"
    with client_of(ui.make(root, token="another")) as other:
        other.cookies.update(client.cookies)
        assert other.get("/").status_code == 403


def test_serving_elsewhere_makes_a_token(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Served:
        def run(self, sockets: list[socket.socket]) -> None:
            told.append(sockets[0].getsockname()[0])

    told: list[str] = []
    monkeypatch.setattr(ui, "server", lambda app: Served())
    ui.serve(root, tell=told.append)
    ui.serve(root, "0.0.0.0", tell=told.append)
    ui.serve(root, token="a+b&c#d% é", tell=told.append)
    assert told[0].startswith("http://127.0.0.1:") and "token" not in told[0] and told[1] == "127.0.0.1"
    assert told[2].startswith("http://0.0.0.0:") and len(told[2].split("?token=")[1]) >= 32 and told[3] == "0.0.0.0"
    with client_of(ui.make(root, token="a+b&c#d% é")) as client:
        assert client.get("/" + told[4].split("/", 3)[3]).status_code == 303
    with ui.listen() as taken, pytest.raises(ConfigError, match="cannot listen on 127.0.0.1, port"):
        ui.listen(port=taken.getsockname()[1])


def test_without_fastapi_it_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtra, match=r"anacrusis\[ui\]"):
        ui.make(root)


# --- resuming


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is run in the place of `anacrusis resume`."""

    def program(text: str) -> None:
        monkeypatch.setattr(resuming, "command", lambda folder: [sys.executable, "-c", text, str(folder)])

    return program


def test_resuming_is_one_process_and_says_why_it_failed(client: TestClient, root: Path, stand_in: Any) -> None:
    (root / "soft" / "result.json").unlink()
    at_most = "import os, sys, time, pathlib; f = pathlib.Path(sys.argv[1]); (f / str(os.getpid())).touch(); "
    stand_in(at_most + "\nwhile not (f / 'go').exists(): time.sleep(0.02)\nprint('error: <b>no luck</b>'); sys.exit(2)")
    assert "Resuming failed" not in client.get("/run/soft").text
    for _ in range(2):
        assert post(client, "/resume/soft").headers["location"] == "/run/soft"
    page = client.get("/run/soft").text
    assert "starting" in page and 'data-refresh="1"' in page and 'id="resume"' not in page
    (root / "soft" / "go").touch()
    wait_for(lambda: "Resuming failed" in client.get("/run/soft").text)
    page = client.get("/run/soft").text
    assert "exit code 2" in page and "error: &lt;b&gt;no luck" in page and 'id="resume"' in page
    assert len([f for f in (root / "soft").iterdir() if f.name.isdigit()]) == 1
    at_work(root / "soft")
    stand_in("raise SystemExit('never')")
    post(client, "/resume/soft")
    assert "no luck" in (root / "soft" / resuming.LOG).read_text()  # a new process would have begun it anew


def test_two_views_resume_a_comparison_once(client: TestClient, root: Path, stand_in: Any) -> None:
    shutil.rmtree(root / "versus" / "cells" / "majority-all-1")
    stand_in("import os, sys, time, pathlib; f = pathlib.Path(sys.argv[1]); (f / str(os.getpid())).touch()\n"
             "while not (f / 'go').exists(): time.sleep(0.02)")  # fmt: skip
    with client_of(ui.make(root)) as other:
        views = (client, other) * 3
        signs = [sign(c, "/compare/versus") for c in views]
        every = [threading.Thread(target=c.post, args=("/resume/versus",), kwargs={"data": {"sign": s}})
                 for c, s in zip(views, signs, strict=True)]  # fmt: skip
        for thread in every:
            thread.start()
        for thread in every:
            thread.join()
        assert "starting" in other.get("/compare/versus").text and "starting" in client.get("/compare/versus").text
        (root / "versus" / "go").touch()
        wait_for(lambda: "starting" not in other.get("/compare/versus").text + client.get("/compare/versus").text)
    assert len([f for f in (root / "versus").iterdir() if f.name.isdigit()]) == 1


def test_what_another_machine_works_on_is_left_to_it(client: TestClient, root: Path, stand_in: Any) -> None:
    stand_in("raise SystemExit('never')")
    (root / "soft" / "result.json").unlink()
    for name, page in (("soft", "/run/soft"), ("versus", "/compare/versus"), ("asks", "/run/asks")):
        given = sign(client, "/answer/asks")
        (root / name / "running.json").write_text(json.dumps({"pid": 1, "made": 1.0, "host": "another.example"}))
        text = client.get(page).text
        assert "on another machine" in text and 'id="resume"' not in text and "delete running.json" in text
        answer = client.post(f"/resume/{name}", data={"sign": given})
        assert answer.status_code == 409 and "another.example works on this run" in answer.text
        assert not (root / name / resuming.LOG).exists()
    data = {"sign": given, "pair": "0" * 16, "better": "first"}
    assert "goes on already" in client.post("/answer/asks", data=data).text


def test_a_run_that_was_stopped_has_not_failed(client: TestClient, root: Path, stand_in: Any) -> None:
    (root / "soft" / "result.json").unlink()
    stand_in("raise SystemExit(130)")
    post(client, "/resume/soft")
    wait_for(lambda: "starting" not in client.get("/run/soft").text)
    assert "Resuming failed" not in client.get("/run/soft").text


def test_the_real_command_finds_the_run(tmp_path: Path) -> None:
    said = resuming.command(tmp_path)
    assert said[0] == sys.executable and said[-3:] == ["resume", str(tmp_path.resolve()), "--quiet"]


# --- a person answers


def test_pairs_of_a_file(tmp_path: Path) -> None:
    person = ByFile(tmp_path)
    assert person.pairs() == {} and person.open_pairs() == []
    with pytest.raises(Waiting, match="2 comparisons wait"):
        person.prefer([("a", "b, c"), ('"d"', "e\r\nf"), ("a", "b, c")])
    assert person.open_pairs() == [("a", "b, c"), ('"d"', "e\nf")]
    person.answer(('"d"', "e\nf"), "=")
    assert person.pairs() == {("a", "b, c"): "", ('"d"', "e\nf"): "="} and person.open_pairs() == [("a", "b, c")]
    with pytest.raises(RunError, match="expected 1, 2 or ="):
        person.answer(("a", "b, c"), "first")
    with pytest.raises(RunError, match="not in .*preferences.csv"):
        person.answer(("a", "c"), "1")
    person.answer(("a", "b, c"), "2")
    assert person.prefer([("a", "b, c"), ('"d"', "e\nf")]) == [0.0, 0.5]
    (tmp_path / "preferences.csv").write_text('better,1,2\n1,a,"b, c"\n,a,"b, c"\n,d,e\n')
    assert person.pairs() == {("a", "b, c"): "1", ("d", "e"): ""}  # one line of two that say the same is enough
    person.answer(("a", "b, c"), "")
    assert person.open_pairs() == [("a", "b, c"), ("d", "e")] and [f.name for f in tmp_path.iterdir()] == [
        "preferences.csv"
    ]


def shown(client: TestClient, path: str = "/answer/asks") -> str:
    return client.get(path).text.split('name="pair" value="')[1].split('"')[0]


def test_every_answer_is_written_at_once(client: TestClient, root: Path, stand_in: Any) -> None:
    file = ByFile(root / "asks")
    pairs = file.open_pairs()
    first = shown(client)
    assert "0 of 3 answered, 3 left" in client.get("/answer/asks").text
    assert post(client, "/answer/asks", pair=first, better="first").headers["location"] == "/answer/asks"
    assert file.pairs() == {pairs[0]: "1", pairs[1]: "", pairs[2]: ""}
    second = shown(client)
    assert second != first and f"?pair={first}" in client.get("/answer/asks").text
    post(client, "/answer/asks", pair=second, better="neither")
    back = client.get(f"/answer/asks?pair={second}").text
    assert shown(client, f"/answer/asks?pair={second}") == second and f"?pair={first}" in back
    assert 'id="better-neither" aria-pressed="true"' in back and 'id="better-first" aria-pressed="false"' in back
    post(client, "/answer/asks", pair=second, better="second", was="=")
    post(client, "/answer/asks", pair=shown(client), better="first")
    assert list(file.pairs().values()) == ["1", "2", "1"] and list(file.pairs()) == pairs
    page = client.get("/answer/asks").text
    assert "All 3 pairs are answered" in page and 'id="go-on"' in page
    stand_in("import time; time.sleep(0.3)")
    assert post(client, "/resume/asks", back="answer").headers["location"] == "/answer/asks"
    assert "The run goes on" in client.get("/answer/asks").text
    wait_for(lambda: "The run goes on" not in client.get("/answer/asks").text)
    assert "?pair=" not in client.get("/answer/asks").text  # what a run has read is not changed any more


def test_two_who_answer_do_not_undo_each_other(client: TestClient, root: Path) -> None:
    pair = shown(client)
    assert 'name="was" value=""' in client.get("/answer/asks").text
    assert post(client, "/answer/asks", pair=pair, better="first").status_code == 303
    late = post(client, "/answer/asks", pair=pair, better="second")
    assert late.status_code == 409 and "somebody else has answered" in late.text and 'href="/answer/asks"' in late.text
    assert next(iter(ByFile(root / "asks").pairs().values())) == "1"
    assert post(client, "/answer/asks", pair=pair, better="first").status_code == 303  # they agree
    assert 'name="was" value="1"' in client.get(f"/answer/asks?pair={pair}").text
    assert post(client, "/answer/asks", pair=pair, better="second", was="1").status_code == 303


def test_wrong_answers_change_nothing(client: TestClient, root: Path) -> None:
    before, mine = (root / "asks" / "preferences.csv").read_bytes(), shown(client)
    assert post(client, "/answer/asks", pair=mine, better="third").status_code == 400
    assert post(client, "/answer/asks", pair="0" * 16, better="first").status_code == 409
    assert post(client, "/answer/asks", pair=mine).status_code == 400
    assert post(client, "/answer/soft", pair=mine, better="first").status_code == 409
    given = sign(client)
    at_work(root / "asks")
    data = {"sign": given, "pair": mine, "better": "first"}
    assert client.post("/answer/asks", data=data).status_code == 409
    assert (root / "asks" / "preferences.csv").read_bytes() == before
    (root / "asks" / "running.json").unlink()
    (root / "asks" / "preferences.csv").write_text("better,1\n1,a\n")
    assert "expected the columns better, 1 and 2" in client.get("/answer/asks").text


def test_a_comparison_waits_for_a_person_in_one_of_its_runs(client: TestClient, root: Path) -> None:
    cell = root / "versus" / "cells" / "majority-all-1"
    shutil.rmtree(cell)
    shutil.copytree(root / "asks", cell)
    (cell / "usage.json").write_text(json.dumps({"error": "3 comparisons wait for a person"}))
    assert looks.look(root / "versus").state == "waiting"
    assert '/answer/versus/majority-all-1"' in client.get("/compare/versus").text
    path = "/answer/versus/majority-all-1"
    assert post(client, path, path, pair=shown(client, path), better="second").headers["location"] == path
    assert list(ByFile(cell).pairs().values()) == ["2", "", ""]
    data = {"sign": sign(client, path), "pair": shown(client, path), "better": "first"}
    at_work(root / "versus")  # the comparison goes on, and may come to this run at any time
    assert client.post(path, data=data).status_code == 409
    assert list(ByFile(cell).pairs().values()) == ["2", "", ""]


# --- labels


def tickets(root: Path, name: str = "tickets.csv") -> LabelJob:
    (root / "labels").mkdir(exist_ok=True)
    rows = [["1", "my card, twice", ""], ["2", 'it says "no"\nthen stops', ""], ["3", "where is it", "delivery"],
            ["4", "my card, twice", ""], ["5", "the parcel", ""], ["6", "refund me", "billing"]]  # fmt: skip
    with open(root / "labels" / name, "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([["id", "message", "label"], *rows])
    return LabelJob(root / "labels" / name)


def item(client: TestClient, path: str = "/label/tickets.csv") -> str:
    return client.get(path).text.split('name="item" value="')[1].split('"')[0]


def test_labelling_writes_beside_the_file_and_never_into_it(client: TestClient, root: Path) -> None:
    job = tickets(root)
    before, path = job.file.read_bytes(), "/label/tickets.csv"
    assert "tickets.csv</a>" in client.get("/").text and "0 of 3 labelled" in client.get("/").text
    page = client.get(path).text
    assert "my card, twice" in page and 'data-key="1"' in page and "billing" in page and 'data-key="3"' not in page
    assert post(client, path, path, item=item(client), label="billing").headers["location"] == f"{path}?at=1"
    after = client.get(f"{path}?at=1").text
    assert "then stops" in after and "?at=0" in after and "1 of 3 labelled, 2 left" in after
    assert "?at=2" in after  # skipping
    post(client, path, path, item=item(client, f"{path}?at=2"), other=" a new   class ")
    assert "then stops" in client.get(path).text and "a new class" in client.get(path).text  # the skipped one again
    post(client, path, path, item=item(client), label="delivery")
    done = client.get(path).text
    assert (
        "Every text has a label" in done and "anacrusis fit tickets.labelled.csv --text message --label label" in done
    )
    post(client, path, f"{path}?at=0", item=item(client, f"{path}?at=0"), label="delivery", was="billing")
    with open(job.out, newline="", encoding="utf-8") as f:
        rows = list(csv.reader(f))
    assert [r[0] for r in rows] == ["id", "1", "2", "3", "4", "5", "6"]
    assert [r[2] for r in rows[1:]] == ["delivery", "delivery", "delivery", "delivery", "a new class", "billing"]
    assert job.file.read_bytes() == before and rows[2][1] == 'it says "no"\nthen stops'
    task = ana.Task.from_csv(job.out, text="message", label="label")
    assert set(task.labels) == {"a new class", "billing", "delivery"}
    assert sorted(p.name for p in job.file.parent.iterdir()) == ["tickets.csv", "tickets.labelled.csv"]
    assert "tickets.labelled.csv</a>" not in client.get("/").text


def test_given_classes_and_files_elsewhere(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text('{"a": "one", "b": 2}\n{"a": "three", "b": 4}\n')
    job = LabelJob(file, text=("a", "b"), label="team", classes=("yes", "no"))
    with client_of(ui.make(root, label=[job])) as client:
        path = "/label/more.jsonl"
        assert 'name="other"' not in client.get(path).text
        assert post(client, path, path, item=item(client, path), label="maybe").status_code == 409
        assert post(client, path, path, item=item(client, path)).status_code == 409
        assert post(client, path, path, item=item(client, path), label=" ").status_code == 409
        assert post(client, path, path, item="0" * 16, label="yes").status_code == 409
        assert not job.out.exists()
        post(client, path, path, item=item(client, path), label="yes")
    assert job.out.read_text() == "a,b,team\none,2,yes\n"
    assert labels.read(job).open == 1
    labels.answer(job, labels.read(job).items[0].id, "")
    assert labels.read(job).open == 2 and job.out.read_text() == "a,b,team\n"


@pytest.mark.parametrize("head, rows, given, text, label, classes", [
    ("note,team", "x,red\ny,", {"text": "note"}, "note", "label", ()),  # it is not said that teams are the labels
    ("note,team", "x,red\ny,", {"text": "note", "label": "team"}, "note", "team", ("red",)),
    ("note,team", "x,red\ny,", {"label": "team"}, "note", "team", ("red",)),  # the only other one
    ("Message,class,category", "x,red,1\ny,,2", {}, "Message", "class", ("red",)),
    ("note", "x\ny", {}, "note", "label", ()),
    ("label", "x\ny", {"text": "label"}, "label", "class", ()),
])  # fmt: skip
def test_columns_that_are_known(tmp_path: Path, head: str, rows: str, given: Any, text: str, label: str,
                                classes: tuple[str, ...]) -> None:  # fmt: skip
    (tmp_path / "a.csv").write_text(f"{head}\n{rows}\n")
    state = labels.read(LabelJob(tmp_path / "a.csv", **given))
    assert (state.source.text, state.source.label, state.classes) == ((text,), label, classes)


@pytest.mark.parametrize("text, given, said", [
    ("id,comment\n1,fine\n2,\n", {}, "which column holds the text.*--text COL"),
    ("id,comment\n1,fine\n2,\n", {"text": "note"}, "no column 'note'"),
    ("id,comment\n1,fine\n", {"text": "comment", "label": "comment"}, "both text and label"),
    ("text,x,x\na,1,2\n", {}, "2 columns are called 'x'"),
    ("text,,\na,1,2\n", {}, "2 columns are called ''"),
])  # fmt: skip
def test_no_column_is_guessed_and_none_lost(tmp_path: Path, text: str, given: Any, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises((DataError, ConfigError), match=said):
        labels.read(LabelJob(tmp_path / "a.csv", **given))


def label_all(job: LabelJob, said: str) -> None:
    while (place := (state := labels.read(job)).next()) is not None:
        labels.answer(job, state.items[place].id, said)


def test_files_with_one_stem_have_results_of_their_own(tmp_path: Path) -> None:
    names = ("a.csv", "a.tsv", "a.jsonl", "a.tsv.csv", "a.CSV")
    for name in names:
        text = '{"text": "a.jsonl"}' if name == "a.jsonl" else f"text\n{name}"
        (tmp_path / name).write_text(text + "\n")
        label_all(LabelJob(tmp_path / name), "yes")
    for name in names:
        assert LabelJob(tmp_path / name).out.read_text() == f"text,label\n{name},yes\n"


def test_what_else_the_result_holds_stays(tmp_path: Path) -> None:
    job = LabelJob(tmp_path / "a.csv")
    job.file.write_text("id,text\n1,one\n2,two\n3,two\n")
    label_all(job, "x")
    job.out.write_text(job.out.read_text().replace("\n", ",why\n", 1).replace("2,two,x\n", "2,two,x,because\n")
                       .replace("1,one,x\n", "1,one,x,\n").replace("3,two,x\n", "3,two,x,no\n"))  # fmt: skip
    job.file.write_text("id,text\n7,two\n8,three\n")  # the next batch, under the same name
    assert labels.read(job).open == 1
    label_all(job, "y")
    assert job.out.read_text() == (
        "id,text,label,why\n7,two,x,because\n8,three,y,\n1,one,x,\n3,two,x,no\n".replace("\n", "\n")
    )
    labels.answer(job, labels.read(job).items[0].id, "z", was="x")  # equal texts have one label
    assert job.out.read_text() == "id,text,label,why\n7,two,z,because\n8,three,y,\n1,one,x,\n3,two,z,no\n"
    job.out.write_text("id,label\n1,x\n")
    with pytest.raises(DataError, match="no column 'text', so it is no result of a.csv"):
        labels.read(job)
    job.out.write_text("text,label\none,x,more\n")
    with pytest.raises(DataError, match="3 cells"):
        labels.read(job)


def test_every_row_keeps_its_own_label(tmp_path: Path) -> None:
    job = LabelJob(tmp_path / "a.csv")
    job.file.write_text("text,label\nsame,A\nsame,B\nsame,\nother,\n")
    label_all(job, "C")
    assert job.out.read_text() == "text,label\nsame,A\nsame,B\nsame,A\nother,C\n"


def test_two_who_label_do_not_undo_each_other(client: TestClient, root: Path) -> None:
    job, path = tickets(root), "/label/tickets.csv"
    first, second = (i.id for i in labels.read(job).items[:2])
    with client_of(ui.make(root)) as other:  # another view of the same folder
        assert post(client, path, path, item=first, label="billing").status_code == 303
        assert post(other, path, path, item=second, label="delivery").status_code == 303
        late = post(other, path, path, item=first, label="delivery")  # its page showed no label yet
        assert late.status_code == 409 and "labelled this text" in late.text and f'href="{path}"' in late.text
        assert post(other, path, path, item=first, label="billing").status_code == 303  # they agree
    assert list(labels.read(job).said.values())[:2] == ["billing", "delivery"]
    assert 'name="was" value="billing"' in client.get(f"{path}?at=0").text
    assert post(client, path, path, item=first, label="delivery", was="billing").status_code == 303


def test_a_state_that_was_read_before_undoes_no_answer(tmp_path: Path) -> None:
    """Many threads at once: none of their answers is lost, and no file is left behind."""
    job = LabelJob(tmp_path / "a.csv")
    job.file.write_text("text\n" + "".join(f"t{i}\n" for i in range(12)))
    items = labels.read(job).items
    every = [threading.Thread(target=labels.answer, args=(job, i.id, "yes")) for i in items]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    assert labels.read(job).open == 0 and {f.name for f in tmp_path.iterdir()} == {"a.csv", "a.labelled.csv"}


def test_classes_keep_their_blanks_and_their_keys(client: TestClient, root: Path) -> None:
    (root / "labels").mkdir()
    job, path = LabelJob(root / "labels" / "a.csv"), "/label/a.csv"
    job.file.write_text("text,label\nknown,Z  9\none,\ntwo,\n \t,\nthree,\n")

    def keys() -> list[str]:
        return [t.split('"')[0] for t in client.get(f"{path}?at=0").text.split('name="label" value="')[1:]]

    page = client.get(path).text
    assert "0 of 3 labelled" in page and "1 row without a text left out" in page
    assert post(client, path, path, item=item(client, f"{path}?at=2"), other="Z 9").status_code == 303
    post(client, path, path, item=item(client, f"{path}?at=1"), other="m")
    assert keys() == ["Z  9", "m"]
    post(client, path, path, item=item(client, f"{path}?at=0"), other="a")  # further up in the file
    assert keys() == ["Z  9", "m", "a"]
    first = f"{path}?at=0"
    assert post(client, path, first, item=item(client, first), other="b\0", was="a").status_code == 409
    assert [r.split(",") for r in job.out.read_text().splitlines()[1:]] == [
        ["known", "Z  9"], ["one", "a"], ["two", "m"], ["three", "Z  9"]
    ]  # fmt: skip


@pytest.mark.parametrize("cell", ["a\0b", "half \ud800", {"text": "x", "id": "\0"}, [1]])
def test_what_could_not_be_read_again_is_refused(client: TestClient, root: Path, cell: Any) -> None:
    tickets(root)
    row = cell if isinstance(cell, dict) else {"text": cell, "id": "1"}
    rows = [row, {"text": "b", "id": "2"}]
    (root / "labels" / "j.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    start = client.get("/")
    assert start.status_code == 200 and "0 of 3 labelled" in start.text
    if cell == [1]:  # nested: as Python writes it
        assert "0 of 2 labelled" in start.text
    else:
        assert "j.jsonl:1" in start.text and client.get("/label/j.jsonl").status_code == 409


def test_two_given_files_of_one_name_are_refused_at_once(root: Path) -> None:
    with pytest.raises(DataError, match="two files to label have one name"):
        ui.make(root, label=[LabelJob(root / "a.csv"), LabelJob(root / "b" / "a.csv")])


def test_a_file_that_cannot_be_read_says_why(client: TestClient, root: Path) -> None:
    tickets(root)
    (root / "labels" / "bad.csv").write_text("text,label\na,b,c\n")
    assert "3 cells, but the header names 2" in client.get("/").text
    assert client.get("/label/bad.csv").status_code == 409 and client.get("/label/tickets.csv").status_code == 200
    (root / "labels" / "t.csv").write_text("text\na\n")
    (root / "labels" / "t.labelled.csv").write_text("other,label\na,b\n")
    assert client.get("/").status_code == 200 and "no result of t.csv" in client.get("/").text


# --- nothing that lies in the folder breaks a page, or leads out of it


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("file, text", [
    ("soft/run.json", DEEP), ("soft/result.json", DEEP), ("soft/running.json", DEEP), ("versus/compare.json", DEEP),
    ("versus/leaderboard.json", DEEP), ("versus/cells/majority-all-1/usage.json", "[]"),
    ("soft/running.json", "[]"), ("soft/journal.jsonl", "[1]\n2\n"), ("words/journal.jsonl", "[1]\n"),
    ("soft/result.json", '{"score": {"metric": "accuracy"}, "parameters": 1, "seconds": 1.0, "valid": null}'),
    ("soft/result.json", '{"score": 1, "parameters": 1, "seconds": 1.0, "valid": null}'),
    ("soft/result.json", '{"score": null, "parameters": 1, "seconds": 1.0, "valid": null, "gain": 3}'),
    ("asks/preferences.csv", b"better,1,2\n,a\xff,b\n"), ("asks/preferences.csv", b"better,1,2\n,a," + b"x" * 140_000),
    ("asks/run.json", '{"method": "a\\ud800"}'), ("labels/t.csv", b"text\na\xff\n"),
])  # fmt: skip
def test_no_damage_breaks_a_page(client: TestClient, root: Path, file: str, text: str | bytes) -> None:
    mine = sign(client)
    tickets(root)
    (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    name = file.split("/")[0]
    start = client.get("/")
    assert start.status_code == 200 and all(f'id="to-{n}"' in start.text for n in ("soft", "words", "asks", "versus"))
    for page in ("run", "compare", "report", "answer"):
        assert client.get(f"/{page}/{name}").status_code in (200, 404, 409), page
    for page in ("stop", "answer"):
        sent = client.post(f"/{page}/{name}", data={"sign": mine, "pair": "0" * 16, "better": "first"})
        assert sent.status_code in (303, 404, 409), page


def test_strange_times_and_texts_are_shown(client: TestClient, root: Path) -> None:
    file = root / "versus" / "compare.json"
    plan = json.loads(file.read_text())
    for began in (float("inf"), float("-inf"), float("nan"), "1"):
        file.write_text(json.dumps({**plan, "began": began, "task": "half \ud800"}))
        assert client.get("/").status_code == client.get("/compare/versus").status_code == 200
    file.write_text(json.dumps({**plan, "began": "noon"}))
    assert "damaged" in client.get("/").text
    assert looks.look(root / "gone").state == "damaged"  # a folder that was removed while it was looked at
    bad = os.fsencode(root) + b"/not \xff utf-8"
    os.mkdir(bad)
    with open(bad + b"/run.json", "w"):
        assert client.get("/").status_code == 200


def test_a_name_longer_than_any_file_is_not_here(client: TestClient) -> None:
    for path in ("/run/", "/compare/", "/answer/", "/report/", "/label/", "/run/versus/", "/answer/versus/"):
        assert client.get(path + "x" * 300).status_code == 404, path


def test_links_lead_nowhere(client: TestClient, root: Path, tmp_path: Path, stand_in: Any) -> None:
    mine, away = sign(client), tmp_path / "away"
    away.mkdir()
    shutil.copytree(root / "asks", away / "cells" / "asks")
    plan = (root / "versus" / "compare.json").read_text()
    (root / "cmp").mkdir()
    (root / "cmp" / "compare.json").write_text(plan)
    (root / "cmp" / "cells").symlink_to(away / "cells")
    (away / "cells" / "asks").rename(away / "cells" / "majority-all-1")
    before = (away / "cells" / "majority-all-1" / "preferences.csv").read_bytes()
    path = "/cmp/majority-all-1"
    asked = ByFile(away / "cells" / "majority-all-1").open_pairs()[0]
    assert client.get(f"/run{path}").status_code == client.get(f"/answer{path}").status_code == 404
    data = {"sign": mine, "pair": routes.pair_id(asked), "better": "first"}
    assert client.post(f"/answer{path}", data=data).status_code == 404
    assert (away / "cells" / "majority-all-1" / "preferences.csv").read_bytes() == before
    assert "waits for a person" not in client.get("/compare/cmp").text
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("preferences.part", "preferences.csv.part", resuming.LOG):
        (root / "asks" / name).symlink_to(victim)
    post(client, "/answer/asks", pair=shown(client), better="first")
    assert len(ByFile(root / "asks").open_pairs()) == 2
    stand_in("print('said')")
    post(client, "/resume/asks")
    wait_for(lambda: (root / "asks" / resuming.LOG).read_text() == "said\n")
    job = tickets(root)
    (root / "labels" / "tickets.labelled.part").symlink_to(victim)
    (root / "labels" / "link.csv").symlink_to(victim)
    label_all(job, "billing")
    assert victim.read_text() == "untouched" and "link.csv" not in client.get("/").text
    shutil.move(root / "labels", away / "labels")
    (root / "labels").symlink_to(away / "labels")
    assert client.get("/label/tickets.csv").status_code == 404


def test_a_file_that_another_process_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "HOLD", 0.05)
    with person.alone(tmp_path / "a"), pytest.raises(RunError, match="If no other process works here, delete it"):
        with person.alone(tmp_path / "a"):
            pass
    with person.alone(tmp_path / "a"):
        assert [f.name for f in tmp_path.iterdir()] == [".a.lock"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnicodeEncodeError):
        person.safe_write(tmp_path / "a", "\ud800")
    assert not list(tmp_path.iterdir())  # what was not written whole is not left there
