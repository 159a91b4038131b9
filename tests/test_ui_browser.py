"""The web view in a real browser: stop and resume a real run, answer duels and label examples by keyboard."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("fastapi", reason="the extra ui is not installed")

import anacrusis as ana
from anacrusis.runs.searching import Means
from anacrusis.search.person import ByFile, Waiting
from anacrusis.testing import tiny
from anacrusis.ui import app as ui
from anacrusis.ui.looks import look
from tests.browser import chromium
from tests.loopback import Loopback
from tests.test_ui import ASKING, live
from tests.world import World

SLOW = 60_000  # milliseconds: a process that imports torch on a slow core


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@contextmanager
def view(browser: Any, root: Path, **options: Any) -> Iterator[Any]:
    """A page of the view of `root`; fails where the page's console has anything to say."""
    with live(ui.make(root)) as port:
        context = browser.new_context(base_url=f"http://127.0.0.1:{port}", **options)
        page, said = context.new_page(), list[str]()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        try:
            yield page
        finally:
            context.close()
        assert not said


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Of the processes that learn: one thread each."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ANACRUSIS_RUNS", str(tmp_path / "runs"))
    return dict(os.environ)


@pytest.mark.slow
def test_a_run_is_stopped_and_resumed(browser: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    model = tiny("minilm")
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    rows = [f"w{10 * c + i % 7} w{50 + i} w{60 + i},team{c}" for i in range(12) for c in range(3)]
    (tmp_path / "tickets.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    long = ("epochs=300", "patience=0", "length=2", "batch=4", "save_seconds=0.05", "validate_every=20")
    told = [a for option in long for a in ("--set", option)]
    command = [sys.executable, "-m", "anacrusis.cli", "fit", str(tmp_path / "tickets.csv"), "--quiet",
               "--method", "prompt-tuning", "--model", str(tmp_path / "model"), *told]  # fmt: skip
    with view(browser, tmp_path / "runs") as page:
        page.goto("/")
        learning = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            page.get_by_text("running here").wait_for(timeout=SLOW)  # the page found it by itself
            page.get_by_role("link", name="prompt-tuning").click()
            page.locator("svg.chart.wide").wait_for()
            page.locator("#stop").click()
            page.locator("#resume").wait_for()
            assert "unfinished" in page.locator(".lead").first.inner_text()
            assert learning.wait(20) == 130, learning.stderr and learning.stderr.read()
        finally:
            learning.kill()
            learning.communicate()
        folder = next((tmp_path / "runs").iterdir())
        at = int(look(folder).progress.split()[0].replace(",", ""))
        assert 0 < at < 300 * 6, look(folder).progress
        page.locator("#resume").focus()
        page.keyboard.press("Enter")
        page.get_by_text("starting").wait_for()
        page.locator(".badge", has_text="done").first.wait_for(timeout=SLOW)
        assert page.get_by_text("test examples").first.is_visible()
        assert look(folder).state == "done" and not (folder / "checkpoint.json").exists()
        assert "resumed" in (folder / "journal.jsonl").read_text()


@pytest.mark.slow
def test_a_person_answers_by_keyboard_and_the_run_goes_on(
    browser: Any, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    world, root = World(examples=40), tmp_path / "runs"
    with open(tmp_path / "cases.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *world.gold.items()])
    task = ana.Task.from_csv(tmp_path / "cases.csv")
    with Loopback(world.brain) as server:
        with (
            ana.open("openai:task", base_url=server.url) as model,
            ana.open("openai:writer", base_url=server.url) as writer,
            pytest.raises(Waiting),
        ):
            ana.fit("apohf", model, task, folder=root / "asks", options=ASKING, means=Means(writer=writer))
        person = ByFile(root / "asks")
        asked = person.open_pairs()
        before = server.charged
        with view(browser, root) as page:
            page.goto("/")
            page.get_by_role("link", name="answer").click()
            for left, key in ((3, "1"), (2, "="), (1, "2")):
                page.get_by_text(f"{left} left").wait_for()
                shown = page.locator(".shown").all_inner_texts()
                assert tuple(shown) == asked[3 - left]
                page.keyboard.press(key)
            page.get_by_text("All 3 pairs are answered").wait_for()
            assert list(person.pairs().values()) == ["1", "=", "2"]
            page.keyboard.press("Backspace")  # the last one was a mistake
            page.locator('#better-second[aria-pressed="true"]').wait_for()
            page.keyboard.press("1")
            page.locator("#go-on").wait_for()
            assert list(person.pairs().values()) == ["1", "=", "1"]
            page.locator("#go-on").focus()
            page.keyboard.press("Enter")
            page.get_by_text("The run goes on").wait_for()
            page.get_by_text("The run is done").wait_for(timeout=SLOW)
            page.get_by_role("link", name="See what it came to").click()
            page.get_by_text("From the start to the winner").wait_for()
        assert look(root / "asks").state == "done" and server.charged > before


def test_examples_are_labelled_by_keyboard(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    file = tmp_path / "labels" / "new.csv"
    texts = [f"message {i}, with a comma" for i in range(7)]
    with open(file, "w", newline="") as f:
        known = [("known one", "billing"), ("known two", "returns")]
        csv.writer(f).writerows([("text", "label"), *known, *((t, "") for t in texts)])
    with view(browser, tmp_path) as page:
        page.goto("/label/new.csv")
        for i, key in enumerate(("1", "2", "s", "1", "Backspace", "2", "1", "2")):
            place = (0, 1, 2, 3, 4, 3, 4, 5)[i]
            page.get_by_text(f"{place + 1} of 7", exact=True).wait_for()
            assert page.locator(".shown").inner_text() == texts[place]
            page.keyboard.press(key)
        page.get_by_text("7 of 7", exact=True).wait_for()
        page.locator("#other").fill("a class with 1 digit")  # its 1 is no answer
        page.keyboard.press("Enter")
        page.get_by_text("3 of 7", exact=True).wait_for()  # the one that was skipped
    task = ana.Task.from_csv(file.with_name("new.labelled.csv"))
    with open(file.with_name("new.labelled.csv"), newline="") as f:
        said = dict(list(csv.reader(f))[1:])
    assert said == {**dict(known), texts[0]: "billing", texts[1]: "returns", texts[3]: "returns", texts[4]: "billing",
                    texts[5]: "returns", texts[6]: "a class with 1 digit"}  # fmt: skip
    assert len(task.labels) == 3


def test_a_key_after_one_that_leaves_the_page_answers_nothing(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    file = tmp_path / "labels" / "new.csv"
    file.write_text("text,label\nknown,a\nother,b\n" + "".join(f"message {i},\n" for i in range(4)))
    press = "keys => keys.forEach(key => document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})))"
    with view(browser, tmp_path) as page:
        page.goto("/label/new.csv")
        for keys, place in ((["s", "2"], 2), (["Backspace", "1"], 1), (["s", "s"], 2)):  # faster than any page comes
            page.evaluate(press, keys)
            page.get_by_text(f"{place} of 4", exact=True).wait_for()
        page.get_by_text("0 of 4 labelled").wait_for()
        page.keyboard.press("2")  # the page that came takes keys
        page.get_by_text("1 of 4 labelled").wait_for()
    assert "message 1,b" in file.with_name("new.labelled.csv").read_text()


def test_without_scripts_everything_can_be_done(browser: Any, tmp_path: Path) -> None:
    person = ByFile(tmp_path / "asks")
    (tmp_path / "asks").mkdir()
    with pytest.raises(Waiting):
        person.prefer([("a\n  b", "<i>c</i>"), ("d", "e")])
    (tmp_path / "asks" / "run.json").write_text(
        '{"method": "apohf", "options": {}, "seed": 0, "model": "m", "fingerprint": "", "task": "t", "source": {}, '
        '"data": "", "opening": {}, "means": {}, "format": 1}'
    )
    with view(browser, tmp_path, java_script_enabled=False, viewport={"width": 390, "height": 800}) as page:
        page.goto("/answer/asks")
        assert page.locator(".shown").all_inner_texts() == ["a\n  b", "<i>c</i>"]
        page.locator("#better-second").focus()
        page.keyboard.press("Enter")
        page.get_by_text("1 left").wait_for()
        page.locator("#back").click()
        page.locator("#better-first").click()
        assert list(person.pairs().values()) == ["1", ""]
        page.goto("/")
        page.get_by_role("link", name="asks").click()
        page.locator("#answer").click()
        page.locator("#better-neither").click()
        page.get_by_text("All 2 pairs are answered").wait_for()


def test_the_page_says_when_the_view_is_gone_and_keeps_what_is_open(browser: Any, tmp_path: Path) -> None:
    from tests.test_ui import at_work

    folder = tmp_path / "soft"
    task = ana.Task.from_lists([f"w{i} w{i % 3}" for i in range(30)], [f"c{i % 3}" for i in range(30)])
    ana.fit("prompt-tuning", tiny("minilm"), task, folder=folder, options={"epochs": 2, "length": 2})
    (folder / "result.json").unlink()
    at_work(folder)
    with live(ui.make(tmp_path)) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/run/soft")
        page.locator("details summary").first.click()
        page.locator("#stop").focus()
        fresh = '{"event": "validate", "step": 99, "of": 100, "score": 0.5, "loss": 1.0, "metric": "accuracy", '
        with open(folder / "journal.jsonl", "a") as f:
            f.write(fresh + '"seconds": 1.0}\n')
        page.get_by_text("99 of 100 steps").wait_for()
        assert page.locator("details").first.get_attribute("open") is not None
        assert page.evaluate("document.activeElement.id") == "stop"
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.get_by_text("The view does not answer").wait_for(timeout=10_000)
    page.close()


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    end = time.monotonic() + 20
    mine = psutil.Process()
    while left := [p for p in mine.children() if "anacrusis.cli" in " ".join(_words(p))]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []
