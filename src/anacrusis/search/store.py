"""What a search run has done, in SQLite or PostgreSQL: its events, the replies paid for, the calls under way.

Replies are found by the call's key and shared by all runs of a database; events and calls under way belong to a run.
Records are ASCII JSON: NUL characters and halves of surrogate pairs, which databases refuse in text, are escaped.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import ConfigError, MissingExtra, RunError
from ..model.calls import Reply

FORMAT = 1
CHUNK = 500  # keys in one question: older SQLite takes 999 variables
PATIENCE = 2.0  # seconds that a server may need to notice that the process before this one is dead


def _table(name: str, *columns: tuple[str, type[Any], bool]) -> sa.Table:
    """Of columns (name, type, whether part of the key)."""
    made = [sa.Column(n, t, primary_key=key, autoincrement=False, nullable=False) for n, t, key in columns]
    return sa.Table(f"anacrusis_{name}", _meta, *made)


_meta, _run, _key = sa.MetaData(), ("run", sa.Text, True), ("key", sa.Text, True)
_record, _at = ("record", sa.Text, False), ("at", sa.Float, False)  # at: seconds since 1970
_format = _table("format", ("version", sa.Integer, True))
_events = _table("events", _run, ("seq", sa.Integer, True), _record)
_replies = _table("replies", _key, _record, _at, ("run", sa.Text, False), ("role", sa.Text, False))  # who paid
_sent = _table("sent", _run, _key, _at)

# No raw @ : / ? # in a name or password: libraries disagree on what such an address says, and print parts of it.
_CLEAR = re.compile(r"postgres(ql)?(\+\w+)?://([^:/?#@]*(:[^:/?#@]*)?@)?[^/?#@]*(/[^?#@]*)?(\?[^#@]*)?")


def masked(url: str) -> str:
    """The address without its password, for run.json and errors; hides all of it where it cannot be read for sure."""
    if (parsed := _parse(url)) is None:
        return re.sub(r"^(\w+(\+\w+)?://)?.*", r"\1***", url, flags=re.S)
    secret = [name for name in parsed.query if re.search("pass|secret|token", name, re.I)]
    return url if parsed.drivername == "sqlite" else parsed.difference_update_query(secret).render_as_string()


def _parse(url: str) -> sa.URL | None:
    if url.startswith("sqlite:///") and url[10:] not in ("", ":memory:"):
        return sa.URL.create("sqlite", database=url[10:])
    try:
        return sa.make_url(url) if _CLEAR.fullmatch(url) else None
    except (sa.exc.ArgumentError, ValueError):  # such as a port that is no number
        return None


def _engine(url: sa.URL) -> sa.Engine:
    common: dict[str, Any] = {"poolclass": sa.NullPool, "hide_parameters": True}
    if url.drivername != "sqlite":
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres", "a PostgreSQL store") from error
        wait = {} if "connect_timeout" in url.query else {"connect_timeout": 10}  # seconds
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), connect_args=wait, **common)
    options = {"check_same_thread": False, "timeout": 60.0, "isolation_level": None}  # s to wait for other processes
    engine = sa.create_engine(url, connect_args=options, **common)
    sa.event.listen(engine, "connect", _on_connect)
    # Immediate: a transaction waits for its turn at its beginning, instead of failing half way.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _on_connect(raw: Any, _: Any) -> None:
    raw.execute("PRAGMA synchronous=FULL")  # a commit has reached the disk
    end = time.monotonic() + 60.0
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL").fetchall()
            return
        except sqlite3.OperationalError as error:  # others are opening the new file: SQLite does not wait here
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


class Store(AbstractContextManager["Store"]):
    """The store at `url` as the run named `run` sees it. Several threads may use one Store.

    One connection serves them all and carries the lock: whoever loses it loses lock and store together, and never
    writes beside the process that came after. ConfigError for another kind of address, MissingExtra without psycopg;
    RunError from every method where the database fails, is of a newer format, or was lost: never with a password.
    """

    def __init__(self, url: str, run: str):
        if (parsed := _parse(url)) is None or not run or not run.isprintable():
            raise ConfigError(
                f"a store needs a run's name and sqlite:////folder/store.sqlite or postgresql://user:password@host/base"
                f" (in a password, @ : / ? # are %40 %3A %2F %3F %23); got {run!r} and {masked(url)}"
            )
        self.run, self.address, self._mutex, self._held = run, masked(url), threading.RLock(), ExitStack()
        self._file = Path(parsed.database or "") if parsed.drivername == "sqlite" else None
        self._insert = sqlite.insert if self._file else postgresql.insert
        self._connection: sa.Connection | None = None
        self._next: int | None = None  # the number of the next event, as far as this process knows
        self._locked = False
        try:
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._held.enter_context(_engine(parsed).connect())
            self._prepare()
        except (OSError, sa.exc.DBAPIError) as error:
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"Store({self.address!r}, {self.run!r})"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up connection and lock; a second call does nothing."""
        with self._mutex:
            self._connection, self._locked = None, False
            self._held.close()  # a lock's file stays: deleting it could free a lock that somebody just took

    def lock(self) -> None:
        """Be the only Store that writes the run, in any process, until close; RunError where there is another."""
        said = f"another process is writing the run {self.run} in {self.address}; wait for it or stop it"
        with self._mutex:
            if self._file and not self._locked:
                self._lock_file(self._file, said)
            end = time.monotonic() + PATIENCE
            while not (self._locked or self._file):
                with self._work() as c:
                    self._locked = bool(c.scalar(sa.select(sa.func.pg_try_advisory_lock(_number(f"run {self.run}")))))
                if not self._locked and time.monotonic() > end:
                    raise RunError(said)
                time.sleep(0 if self._locked else 0.05)

    def events(self) -> list[dict[str, Any]]:
        """The run's events in order; an event's place in the list is its number."""
        with self._work() as c:
            mine = sa.select(_events.c.record).where(_events.c.run == self.run).order_by(_events.c.seq)
            records = [json.loads(record) for record in c.scalars(mine)]
            self._next = len(records)
        return records

    def append(self, record: dict[str, Any]) -> int:
        """Add an event, on disk on return, and return its number.

        RunError where somebody else has added one since this Store looked (last `events`, else its first `append`).
        """
        text = json.dumps(record, allow_nan=False)
        with self._work() as c:
            if self._next is None:
                self._next = c.scalar(sa.select(sa.func.count()).where(_events.c.run == self.run)) or 0
            try:
                c.execute(sa.insert(_events).values(run=self.run, seq=self._next, record=text))
            except sa.exc.IntegrityError:
                said = f"another process is writing the run {self.run} in {self.address}: event {self._next} is there"
                raise RunError(f"{said} already; stop one of the two, then resume the run") from None
        self._next += 1
        return self._next - 1

    def replies(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Those of the keys that have a reply, whichever run paid for it, in the order of `keys`."""
        wanted, found = list(dict.fromkeys(keys)), {}
        with self._work() as c:
            for start in range(0, len(wanted), CHUNK):
                chosen = _replies.c.key.in_(wanted[start : start + CHUNK])
                for key, record in c.execute(sa.select(_replies.c.key, _replies.c.record).where(chosen)):
                    found[key] = Reply(**json.loads(record))
        return {key: found[key] for key in wanted if key in found}

    def begin(self, keys: Iterable[str]) -> None:
        """Note that paid calls are about to be sent: all of them, on disk, before the first one leaves."""
        if rows := [{"run": self.run, "key": key, "at": time.time()} for key in keys]:
            with self._work() as c:
                c.execute(self._insert(_sent).on_conflict_do_nothing(), rows)

    def put(self, replies: Mapping[str, Reply], role: str = "") -> None:
        """Keep replies by key, all of them on disk on return or none; a key that has one keeps it. role: whose they
        are, for `paid`. ValueError for a failed call: see `forget`."""
        if failed := [key for key, reply in replies.items() if reply.outcome == "failed"]:
            raise ValueError(f"a failed call says nothing about its question and is never stored, got {failed[0]}")
        now = time.time()
        whose = {"at": now, "run": self.run, "role": role}
        rows = [{"key": k, "record": json.dumps(r.to_json(), allow_nan=False), **whose} for k, r in replies.items()]
        if rows:
            with self._work() as c:
                c.execute(self._insert(_replies).on_conflict_do_nothing(), rows)
                mine = sa.delete(_sent).where(_sent.c.run == self.run, _sent.c.key == sa.bindparam("answered"))
                c.execute(mine, [{"answered": key} for key in replies])

    def forget(self, key: str) -> None:
        """A call that was begun is known to have failed: no reply will come, and none was lost."""
        with self._work() as c:
            c.execute(sa.delete(_sent).where(_sent.c.run == self.run, _sent.c.key == key))

    def paid(self) -> dict[str, tuple[int, int, int]]:
        """By role: replies that this run paid for, their input and output tokens; crashes make no difference."""
        found: dict[str, tuple[int, int, int]] = {}
        with self._work() as c:
            mine = sa.select(_replies.c.role, _replies.c.record).where(_replies.c.run == self.run)
            for role, record in c.execute(mine):
                reply, (n, given, made) = json.loads(record), found.get(role, (0, 0, 0))
                found[role] = (n + 1, given + reply["input"], made + reply["output"])
        return found

    def lost(self) -> list[str]:
        """Keys of calls that this run began and nobody answered: on resuming, what a crash may have cost."""
        with self._work() as c:
            mine = sa.select(_sent.c.key).where(_sent.c.run == self.run)
            return list(c.scalars(mine.order_by(_sent.c.at, _sent.c.key)))

    def _prepare(self) -> None:
        with self._work() as c:
            if not self._file:  # processes that open a new database at once make its tables one after the other
                c.execute(sa.select(sa.func.pg_advisory_xact_lock(_number("tables"))))
                c.execute(sa.text("SET SESSION synchronous_commit = on"))  # some servers trade it for speed
            _format.create(c, checkfirst=True)
            version = c.scalar(sa.select(sa.func.max(_format.c.version)))
            if version is None:
                c.execute(sa.insert(_format).values(version=FORMAT))
            elif version > FORMAT:
                said = f"the store {self.address} has format {version}, of a newer Anacrusis; this one knows {FORMAT}"
                raise RunError(f"{said}. Upgrade: pip install -U anacrusis")
            _meta.create_all(c)

    @contextmanager
    def _work(self) -> Iterator[sa.Connection]:
        """One transaction, one thread at a time; committed on leaving."""
        with self._mutex:
            if self._connection is None:
                raise RunError(f"the store {self.address} is closed; open it again")
            if self._connection.invalidated:  # it would reconnect by itself, but without the lock
                raise RunError(f"the connection to the store {self.address} was lost; resume the run")
            try:
                with self._connection.begin():
                    yield self._connection
            except sa.exc.DBAPIError as error:
                raise self._failure(error) from error

    def _failure(self, error: BaseException) -> RunError:
        todo = "Is it a store, can its folder be written, is the disk full?" if self._file else "Is the server up?"
        said = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        return RunError(f"cannot use the store {self.address}: {said}. {todo} Put it right and resume the run")

    def _lock_file(self, database: Path, said: str) -> None:
        name = hashlib.sha256(self.run.encode()).hexdigest()[:16]
        file = open(database.with_name(f"{database.name}.{name}.lock"), "ab")
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: no advisory locks of this kind; `append` still refuses a second writer
            pass
        except OSError:
            file.close()
            raise RunError(said) from None
        self._held.enter_context(file)
        self._locked = True


def _number(name: str) -> sa.ColumnElement[int]:
    # PostgreSQL names its advisory locks by 64 bits.
    digest = hashlib.sha256(f"anacrusis {name}".encode()).digest()
    return sa.literal(int.from_bytes(digest[:8], "big", signed=True), sa.BigInteger)
