"""The store of a search: the same tests on SQLite and on a PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from anacrusis.errors import ConfigError, MissingExtra, RunError
from anacrusis.model.calls import Reply
from anacrusis.search import store as module
from anacrusis.search.store import Store, masked

PASSWORD, QUOTED = "s3cret@/:?#", "s3cret%40%2F%3A%3F%23"
WRITER = """
import sys
from anacrusis.model.calls import Reply
from anacrusis.search.store import Store
with Store(sys.stdin.readline().strip(), "r") as store:
    store.lock()
    for n in range(len(store.events()), 10**6):
        store.begin([f"k{n}", f"late{n}"])
        store.put({f"k{n}": Reply(f"text {n}")})
        print(store.append({"n": n}), flush=True)
"""


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    # Debian and its children keep the server's programs out of PATH
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server that is there for these tests alone, with {} for the database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    bin = _binaries()
    if bin is None:
        pytest.skip("no PostgreSQL server programs (initdb, pg_ctl) on this machine")
    user: str | None = None
    if os.geteuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it")
    folder = Path(tempfile.mkdtemp(prefix="ana"))  # short: a socket's path has 107 bytes at most

    def call(*command: object) -> None:
        done = subprocess.run([str(part) for part in command], user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if user is not None:
                shutil.chown(path, user)
        call(bin / "initdb", "-D", folder / "data", "-U", "ana", "--pwfile", folder / "password",
             "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
        options = f"-F -c listen_addresses= -c unix_socket_directories={folder} -c shared_buffers=16MB"
        call(bin / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://ana:{QUOTED}@/{{}}?host={folder}"
        finally:
            call(bin / "pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(url: str, *statements: str) -> None:
    """Do something to a database behind the store's back."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/store.sqlite"
    server: str = request.getfixturevalue("server")
    name = f"db{time.time_ns()}"
    _run(server.format("postgres"), f"CREATE DATABASE {name}")
    return server.format(name)


HARD = "a\x00b \U0001f600 \ud83d é \u2028 \\u0000 ' \" %s :x {}"


def test_events_are_kept_in_order_by_run(url: str) -> None:
    records = [{"n": n, "text": HARD, HARD: [None, 0.1, 2**70]} for n in range(12)]
    with Store(url, "r") as store:
        assert store.events() == []
        assert [store.append(record) for record in records] == list(range(12))
        assert store.events() == records
        with pytest.raises(ValueError, match="JSON"):
            store.append({"score": float("nan")})
        assert store.append({}) == 12
    with Store(url, "other run é") as store:
        assert store.events() == [] and store.append({"mine": 1}) == 0
    with Store(url, "r") as store:
        assert store.append({"last": 1}) == 13  # without having looked at the events
        assert store.events() == [*records, {}, {"last": 1}]


def test_replies_are_shared_and_the_first_stays(url: str) -> None:
    big = Reply("\U0001f600é\x00x" * 250_000, "truncated", 7, 9, HARD)  # 1 million characters
    with Store(url, "r") as store:
        store.put({"big": big})
        store.put({"big": Reply("later")})
        for n in range(1203):
            if n % 400 == 0:
                store.put({f"{n}": Reply(str(n))})
        with pytest.raises(ValueError, match="never stored, got bad"):
            store.put({"good": Reply("x"), "bad": Reply("", "failed")})  # all or none
        store.put({})
    with Store(url, "another") as store:
        asked = ["bad", "good", *(str(n) for n in range(1300)), "big", "0"]
        found = store.replies(key for key in asked)
        assert list(found) == ["0", "400", "800", "1200", "big"]
        assert found["big"] == big and found["400"] == Reply("400")
        assert store.replies([]) == {}


def test_calls_under_way_are_lost_until_answered(url: str) -> None:
    with Store(url, "r") as store, Store(url, "other") as other:
        store.begin([])
        store.begin(key for key in ["a", "b", "c", "d", "a"])
        store.begin(["a", "e"])  # sent again
        other.begin(["a"])
        store.put({"a": Reply("x")})
        store.put({"f": Reply("never begun")})
        store.forget("b")
        many = {f"many{n}": Reply("x") for n in range(1500)}
        store.begin(many)
        store.put(many)
        assert sorted(store.lost()) == ["c", "d", "e"]
        other.put({"c": Reply("x")})
        assert other.lost() == ["a"]  # paid twice: each run keeps its own account
        with pytest.raises(ValueError):
            store.put({"d": Reply("", "failed")})
    with Store(url, "r") as store:
        assert sorted(store.lost()) == ["c", "d", "e"]


def test_two_writers_cannot_both_succeed(url: str) -> None:
    with Store(url, "r") as one, Store(url, "r") as two:
        assert one.events() == two.events() == []
        assert one.append({"by": 1}) == 0
        for _ in range(2):
            with pytest.raises(RunError, match="another process is writing the run r"):
                two.append({"by": 2})
        assert one.append({"by": 1}) == 1
        assert two.events() == [{"by": 1}, {"by": 1}]
        assert two.append({"by": 2}) == 2  # having seen all
        with pytest.raises(RunError, match="another process"):
            one.append({"by": 1})


def test_one_lock_a_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with Store(url, "r") as one, Store(url, "r") as two, Store(url, "other") as other:
        one.lock()
        one.lock()
        other.lock()
        with pytest.raises(RunError, match="another process is writing the run r in"):
            two.lock()
        one.append({})
        one.close()
        two.lock()
        assert two.append({}) == 1


def test_two_threads_use_one_store(url: str) -> None:
    with Store(url, "r") as store:
        keys = [f"k{n}" for n in range(60)]
        store.begin(keys)
        errors: list[BaseException] = []

        def put(part: list[str]) -> None:
            try:
                for key in part:
                    store.put({key: Reply(key * 100)})
            except BaseException as error:  # noqa: B036
                errors.append(error)

        threads = [threading.Thread(target=put, args=(keys[n::3],)) for n in range(3)]
        for thread in threads:
            thread.start()
        for n in range(30):
            assert store.append({"n": n}) == n
            store.replies(keys), store.lost()
        for thread in threads:
            thread.join()
        assert not errors and len(store.replies(keys)) == 60 and store.lost() == [] and len(store.events()) == 30


def test_many_open_a_new_store_at_once(url: str) -> None:
    errors: list[BaseException] = []
    ready = threading.Barrier(6)

    def open_it(n: int) -> None:
        try:
            ready.wait(10)
            with Store(url, f"r{n}") as store:
                store.append({"n": n})
        except BaseException as error:  # noqa: B036
            errors.append(error)

    threads = [threading.Thread(target=open_it, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_what_was_acknowledged_outlives_a_kill(url: str) -> None:
    acknowledged = 0
    for round in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdin and child.stdout and child.stderr
        child.stdin.write(url.encode() + b"\n")
        child.stdin.flush()
        lines = [child.stdout.readline() for _ in range(8)]
        assert all(lines), child.stderr.read()
        with Store(url, "r") as store, pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "PATIENCE", 0.0)
            with pytest.raises(RunError, match="another process"):
                store.lock()
        time.sleep(0.013 * round)
        child.send_signal(signal.SIGKILL)
        lines += child.communicate()[0].splitlines()
        assert child.returncode == -signal.SIGKILL
        assert [int(line) for line in lines] == list(range(acknowledged, acknowledged + len(lines)))
        acknowledged += len(lines)
        with Store(url, "r") as store:
            store.lock()  # freed by the death
            events = store.events()
            assert acknowledged <= len(events) <= acknowledged + 1
            assert [event["n"] for event in events] == list(range(len(events)))
            keys, lost = [f"k{n}" for n in range(len(events))], set(store.lost())
            assert len(store.replies(keys)) == len(keys) and not lost & set(keys)
            assert {f"late{n}" for n in range(len(events))} <= lost  # begun and never answered
            assert len(lost) - len(events) <= 2  # and the two that were under way
            acknowledged = len(events)


def test_a_newer_format_is_refused(url: str) -> None:
    Store(url, "r").close()
    _run(url, f"UPDATE anacrusis_format SET version = {module.FORMAT + 1}")
    with pytest.raises(RunError, match="newer Anacrusis.*pip install -U") as caught:
        Store(url, "r")
    assert "s3cret" not in str(caught.value)


def test_closed_and_named(url: str) -> None:
    with Store(url, "r") as store:
        assert "s3cret" not in repr(store) and "'r'" in repr(store)
    store.close()
    with pytest.raises(RunError, match="is closed"):
        store.events()
    for run in ("", "a\x00b", "a\nb", "\ud83d"):
        with pytest.raises(ConfigError, match="run's name"):
            Store(url, run)


def test_settings_of_sqlite(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/a@b:c.sqlite", "r") as store, store._work() as c:
        assert c.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert c.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    assert (tmp_path / "a@b:c.sqlite").exists()


def test_files_that_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for path in ("text", "text/below.sqlite", "."):
        with pytest.raises(RunError, match=f"cannot use the store sqlite:///{tmp_path}.*resume"):
            Store(f"sqlite:///{tmp_path}/{path}", "r")


def test_a_lost_connection_takes_the_lock_and_the_store_along(server: str) -> None:
    url = server.format("postgres")
    with Store(url, "lost") as store:
        store.lock()
        store.append({"n": 0})
        _run(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                  " AND backend_type = 'client backend'")  # fmt: skip
        with pytest.raises(RunError, match="Is the server up.*resume") as caught:
            store.append({"n": 1})
        assert "s3cret" not in str(caught.value) + str(caught.value.__cause__)
        with pytest.raises(RunError, match="was lost; resume"):
            store.events()
        with Store(url, "lost") as after:
            after.lock()
            assert after.events() == [{"n": 0}]


def test_durable_whatever_the_server_says(server: str) -> None:
    quick = server.format("postgres") + "&options=-csynchronous_commit%3Doff"
    with Store(quick, "r") as store, store._work() as c:
        assert c.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


@pytest.mark.parametrize("change", [("ana:s3", "ana:wrongs3"), ("?host=", "?host=/nowhere"), ("/{}?", "/absent?")])
def test_unreachable_servers(server: str, change: tuple[str, str]) -> None:
    url = server.replace(*change).format("postgres")
    with pytest.raises(RunError, match=r"cannot use the store postgresql://ana:\*\*\*@/.*server") as caught:
        Store(url, "r")
    assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////home/a@b:c/x.sqlite", "sqlite:////home/a@b:c/x.sqlite"),
        ("postgresql://u:s3cret@h:5/db?sslmode=require", "postgresql://u:***@h:5/db?sslmode=require"),
        ("postgres://u@h/db", "postgres://u@h/db"),
        ("postgresql://h/db?password=s3cret&sslPassword=s3cret", "postgresql://h/db"),
        ("postgresql://h/db?%70assword=s3cret", "postgresql://h/db"),
        ("postgresql://u:***@[::1]:5/db", "postgresql://u:***@[::1]:5/db"),
        ("postgresql://u:a@s3cret@h/db", "postgresql://***"),
        ("postgresql://u:a/s3cret@h/db", "postgresql://***"),
        ("postgresql://u:a@b:s3cret@h/db", "postgresql://***"),
        ("postgresql://h:5/db?password=a@s3cret", "postgresql://***"),
        ("postgresql://u:p@h:s3cret/db", "postgresql://***"),
        ("mysql://u:s3cret@h/db", "mysql://***"),
        ("sqlite://u:s3cret@h/db", "sqlite://***"),
        ("u:s3cret@h\n", "***"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked(shown) == shown
    if "***" in shown[-3:]:
        with pytest.raises(ConfigError, match="%40") as caught:
            Store(url, "r")
        assert "s3cret" not in repr(caught.value)


def test_without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"anacrusis\[postgres\]"):
        Store("postgresql://u:s3cret@h/db", "r")
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///"):
        with pytest.raises(ConfigError, match="sqlite:////folder"):
            Store(url, "r")


def test_runs_that_share_a_store_pay_once_and_write_no_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, on both databases: a search, the same again from another folder, and an interrupted one."""
    import anacrusis as ana
    from anacrusis.runs.searching import Means
    from tests.world import Direct, World

    world, asked, told = World(examples=40), [], []
    options = {"steps": 3, "width": 3, "examples": 10, "valid": 6, "test": 6}
    monkeypatch.setenv("ANACRUSIS_STORE", url)
    for name in ("one", "two"):
        model, writer = Direct(world), Direct(world, "openai:writer")
        run = ana.fit(
            "opro",
            model,
            world.task,
            folder=tmp_path / name,
            options=options,
            means=Means(writer=writer, budget="120calls"),
        )
        asked.append(model.asked + writer.asked)
        told.append((run.cost["calls"], run.cost["input"], run.prompt.frame))
    assert asked[0] > 20 and asked[1] == 0  # the second run found everything paid
    assert told[0] == told[1] and told[0][0] <= 120  # and its budget ended it where it ended the first
    assert run.cost["calls"] == asked[0] and run.cost["sent"] == 0  # and says so
    assert not list(tmp_path.rglob("search.sqlite"))
    for file in tmp_path.rglob("*"):
        if file.is_file() and not file.is_relative_to(tmp_path / "folder"):
            assert PASSWORD.encode() not in file.read_bytes(), file
    resumed = ana.runs.run.load(tmp_path / "one")
    assert resumed.prompt.same(run.prompt)
