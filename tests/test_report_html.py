"""Reports as HTML: what they compute by hand, that users' texts stay texts, and that a browser shows them well."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anacrusis as ana
from anacrusis.assess.measure import Finding, Found
from anacrusis.errors import RunError
from anacrusis.measure.evaluate import scored
from anacrusis.prompt.store import write_json
from anacrusis.prompt.values import Frame, Text
from anacrusis.registry import get
from anacrusis.report import details, html, leaderboard, svg
from anacrusis.report.leaderboard import Board
from anacrusis.runs.journal import Journal
from anacrusis.runs.run import Plan, Run, _finish
from anacrusis.runs.searching import Means
from anacrusis.search.candidate import Candidate
from anacrusis.search.ledger import Observation, Scored
from anacrusis.task import Split, Task
from tests.browser import chromium, opened
from tests.world import Direct, World

NASTY = '<script>alert("x")</script>'
LONG = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft"


# --- made-up comparisons


def texts_task(labels: Sequence[str], examples: int = 20, text: str = "message number {}") -> Task:
    texts = [text.format(i) for i in range(3 * examples)]
    golds = [labels[i % len(labels)] for i in range(3 * examples)]
    k = examples
    return Task.from_lists(
        texts[:k], golds[:k], valid=(texts[k : 2 * k], golds[k : 2 * k]), test=(texts[2 * k :], golds[2 * k :]),
        name="planted",
    )  # fmt: skip


def several_labels() -> Task:
    golds = [["a"], ["a", "b"]]
    return Task.from_lists(["r", "s"], golds, valid=(["x", "y"], golds), test=(["u", "v"], golds), name="several",
                           kind="multilabel")  # fmt: skip


def finished(folder: Path, method: str, task: Task, said: Any, seed: int = 0) -> None:
    """A run's folder as `fit` leaves it, with predictions that are made up."""
    plan = Plan(method, {"epochs": 2}, seed, "tiny:model", "0" * 24, task.name, {}, task.fingerprint, {})
    score = scored(said, task.test, task, "test", 0.01 * len(task.test))
    frame = Frame(fields=task.fields, labels=task.labels, words=task.words)
    prompt = Text(frame=frame, card={"config": {"length": 20}, "notes": ["a remark"]})
    folder.mkdir(parents=True)
    write_json(folder / "run.json", plan.to_json())
    with Journal(folder) as log:
        for step in range(3):
            log.append({"time": 1e9 + step, "event": "validate", "step": 4 * step, "of": 8, "score": 0.5 + 0.1 * step,
                        "loss": 1.0 - 0.1 * step})  # fmt: skip
    _finish(Run(plan, prompt, score, 0.7, 1000 * (1 + len(method)), 2.0 + seed, folder), folder)


def compared(
    folder: Path, task: Task, said: Mapping[str, Sequence[Any]], shots: Sequence[int | None] = (None,)
) -> Board:
    """said: by method, the predictions of each seed; the same for each number of shots."""
    means = {"writer": None, "judge": None, "budget": ""}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", {
        "format": 1, "methods": list(said), "seeds": max(map(len, said.values())), "shots": list(shots), "options": {},
        "keep_valid": False, "model": "tiny:model", "opening": {}, "fingerprint": "0" * 24, "task": task.name,
        "data": task.fingerprint, "source": {}, "means": means, "began": 1e9,
    })  # fmt: skip
    for method, several in said.items():
        for k in shots if get(method).learns else (None,):
            for seed, p in enumerate(several):
                cell = folder / "cells" / f"{method}-{'all' if k is None else k}-{seed}"
                if p is not None:
                    finished(cell, method, task, p, seed)
                else:
                    cell.mkdir(parents=True)
                    write_json(cell / "usage.json", {"error": f"out of memory {NASTY}"})
    return leaderboard.board(folder, task)


def noisy(task: Task, share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    golds = np.array([e.gold for e in task.test])
    return np.where(rng.random(len(golds)) < share, (golds + 1) % len(task.labels), golds)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a comparison whose every text is hostile or long; written once."""
    folder = tmp_path_factory.mktemp("nasty")
    task = texts_task((NASTY, LONG, "&amp; more"), 30, NASTY + LONG + " {} <b>\"'&")
    said = {
        "prompt-tuning": [noisy(task, 0.3, s) for s in range(3)],
        "p-tuning-v2": [noisy(task, 0.35, 10 + s) for s in range(3)],
        "linear-probe": [noisy(task, 0.6, 20), None, None],
        "zero-shot": [noisy(task, 0.7, 30)],
    }
    return html.write(html.page(compared(folder, task, said, (4, 8))), folder / "report.html")


class Page(HTMLParser):
    """Every tag with its attributes, and whether tags are closed as they were opened."""

    VOID = {"meta", "img", "br", "path", "circle", "rect"}

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.shown.append(data)


def sound(text: str) -> Page:
    """Asserts what every page owes: well-formed, unique ids, nothing from outside, no attribute that runs or styles."""
    page = Page(text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)
        for name in ("src", "href", "data", "srcset"):
            link = attributes.get(name) or ""
            assert tag == "a" or not re.match(r"(https?:)?//", link), (tag, link)
            assert not link.startswith("javascript:")
        for name in ("href",):
            if (attributes.get(name) or "").startswith("#"):
                assert attributes[name][1:] in ids  # type: ignore[index]
    assert [t for t, _ in page.tags].count("script") == 1 and [t for t, _ in page.tags].count("style") == 1
    assert not {t for t, _ in page.tags} & {"iframe", "object", "embed", "link", "base", "form"}
    assert "@import" not in text and "url(" not in text and len(text) < 2_000_000
    labelled = [i for _, a in page.tags for i in (a.get("aria-labelledby") or "").split()]
    assert set(labelled) <= set(ids)
    return page


# --- by hand


def test_the_front_by_hand() -> None:
    # (cost, score): b is dearer and worse than a; c dearer and better; d as dear as c and worse; e dearer, no better
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.7), (3.0, 0.6), (9.0, 0.7)]
    assert details.front(points) == [0, 2]
    assert details.front([(1, 0.5), (1, 0.5), (0, 0.1)]) == [2, 0, 1]  # equal ones are both kept, from the cheapest on
    assert details.front([]) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    def beaten(i: int) -> bool:
        (c, s), p = points[i], points
        return any(a <= c and b >= s and (a, b) != (c, s) for a, b in p)

    assert sorted(details.front(points)) == [i for i in range(len(points)) if not beaten(i)]


def test_words_by_hand() -> None:
    assert details.words("Sort the mails.", "Sort the angry mails\nfirst.") == [
        ("same", "Sort the "), ("del", "mails."), ("ins", "angry mails\nfirst."),
    ]  # fmt: skip
    assert details.words("", "new words") == [("ins", "new words")]
    assert details.words("a  b", "a b") == [("same", "a b")]  # white space is no change


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_words_hold_both_texts(before: list[str], after: list[str]) -> None:
    found = details.words(" ".join(before), " ".join(after))
    assert "".join(t for w, t in found if w != "del").split() == after
    assert "".join(t + " " for w, t in found if w != "ins").split() == before
    assert all(a[0] != b[0] for a, b in zip(found, found[1:], strict=False))


def test_classes_and_confusion_by_hand() -> None:
    task = texts_task(("a", "b"), 2)
    golds, said = [0, 0, 1, 1], [np.array([0, 1, 1, 1]), np.array([0, 0, 1, -1])]
    assert details.confusion(task, golds, said).tolist() == [[3, 1, 0], [0, 3, 1]]
    a, b = details.by_class(task, golds, said)
    assert (a.label, a.precision, a.recall, a.n) == ("a", 1.0, 0.75, 2)
    assert (b.precision, b.recall, b.f1, b.n) == (0.75, 0.75, 0.75, 2)
    counts = np.array([[3, 5, 0], [2, 0, 1]])
    assert details.confused(counts, task.labels, 2) == [("a", "b", 5, 5 / 8), ("b", "a", 2, 2 / 3)]


def test_several_labels_by_hand() -> None:
    task = several_labels()
    a, b = details.by_class(task, [(0,), (0, 1)], [np.array([[1.0, 2.0], [-1.0, 3.0]])])
    assert (a.precision, a.recall, a.n) == (1.0, 0.5, 2) and (b.precision, b.recall, b.n) == (0.5, 1.0, 1)
    assert details.answer(task, np.array([1.0, -1.0])) == "a" and details.answer(task, np.array([-1, -1])) == "no label"
    (m, n) = details.mistakes(task, [np.array([[1.0, 2.0], [-1.0, 3.0]])], {})
    assert (m.gold, m.said, n.gold, n.said) == ("a", (("a, b", 1),), "a, b", (("b", 1),))


def test_mistakes_by_hand() -> None:
    task = texts_task(("a", "b"), 4)  # golds a b a b
    mine = [np.array([1, 1, 1, -1]), np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0])]  # wrong: 0, 2 (of 3), 3
    others = {"x": [np.array([1, 1, 0, 1])], "y": [np.array([1, 0, 0, 0]), np.array([1, 0, 0, 1])]}
    first, second, third = details.mistakes(task, mine, others)
    assert (first.at, first.gold, first.said, first.better) == (3, "b", (("a", 2), ("no answer", 1)), ("x", "y"))
    assert (second.at, second.said, second.seeds, second.rivals) == (2, (("b", 2), ("a", 1)), 3, 2)
    assert details.mistakes(task, [np.array([1, 1, 0, 1]), np.array([0, 1, 0, 1])], {}) == []  # half is not most
    assert third.at == 0 and third.better == ()  # nobody knows it: last
    assert details.right(task, mine).tolist() == pytest.approx([0, 1, 1 / 3, 0])


def test_the_way_goes_from_the_start_to_the_winner_by_first_parents() -> None:
    start = Candidate({"instruction": "Sort it."})
    one = Candidate({"instruction": "Sort it well."}).born("mutate", start)
    side = Candidate({"instruction": "Nothing."}).born("mutate", start)
    two = Candidate({"instruction": "Please sort it well.", "words": ("a", "b")}).born("cross", one, side)
    seen = [Scored(c, {"e": Observation(c.id, "e", 1.0)}) for c in (start, one, side, two)]
    history = SimpleNamespace(candidates=tuple(seen), chosen=two.id)
    steps = details.way(history)  # type: ignore[arg-type]
    assert [s.what for s in steps] == ["start", "mutate", "cross"] and steps[0].n == 1
    assert steps[1].changes == (("", [("same", "Sort "), ("del", "it."), ("ins", "it well.")]),)
    assert [slot for slot, _ in steps[2].changes] == ["instruction", "words"]
    assert details.way(SimpleNamespace(candidates=tuple(seen), chosen="")) == []  # type: ignore[arg-type]
    lost = Candidate({"instruction": "Alone."}).born("written", "0" * 16)
    seen.append(Scored(lost, {}))
    ends = details.way(SimpleNamespace(candidates=tuple(seen), chosen=lost.id))  # type: ignore[arg-type]
    assert [s.what for s in ends] == ["start", "written"]  # its parent is not known: beside the start


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("seconds", 0.0, "0.00 s"), ("seconds", 0.004, "< 0.01 s"), ("seconds", 12.34, "12.3 s"),
     ("seconds", 600, "10.0 min"), ("seconds", 7200, "2.0 h"), ("ms", 0.002, "< 0.01 ms"), ("ms", 1234.5, "1,234.5 ms"),
     ("mb", None, ""), ("mb", 1500.4, "1,500 MB"), ("count", 95240.0, "95,240"), ("dollars", 0.01234, "$0.0123"),
     ("dollars", 1234.5, "$1,234.50"), ("score", 0.12345, "0.123")],
)  # fmt: skip
def test_numbers_are_written_one_way(name: str, value: Any, said: str) -> None:
    assert html.environment().filters[name](value) == said


def test_scales_by_hand() -> None:
    log = svg.Scale("x", 1, 100, "log")
    assert [log(1), log(10), log(100)] == [0, 0.5, 1] and log.ticks == [1, 2, 5, 10, 20, 50, 100]
    free = svg.Scale("x", 1, 100, "log", zero=True)
    assert free.ticks[0] == 0 and free(0) < free(1) == 0.14 and free(10) == pytest.approx(0.57) and free(100) == 1
    assert svg.Scale("y", 0.5, 0.9).ticks == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert svg.Scale("y", 0.5, 0.9)(0.6) == pytest.approx(0.25)
    assert svg.room_for([0.0, 1.0], most=1.0) == (-0.06, 1.0) and svg.room_for([0.5]) == (0.475, 0.525)


@given(st.floats(-5, 5), st.floats(1e-6, 10))
def test_ticks_are_some_and_inside(low: float, size: float) -> None:
    scale = svg.Scale("y", low, low + size)
    assert 2 <= len(scale.ticks) <= 7 and all(low - 1e-6 <= t <= low + size + 1e-6 for t in scale.ticks)


def test_charts_escape_what_they_are_given() -> None:
    x, y = svg.Scale(NASTY, 0, 1), svg.Scale(NASTY, 0, 1, form=lambda v: NASTY)
    chart = svg.curve('"><i>', NASTY, [svg.Line(NASTY, 0, [(0.5, 0.5, 0.4, 0.6)])], x, y)
    spots = [svg.Spot(NASTY, i, 0.5, 0.5, 0.4, 0.6) for i in range(9)]
    for text in (chart.drawn, svg.scatter("s", NASTY, spots, [0], x, y).drawn):
        assert "<script" not in text and "<i>" not in text and "&lt;script&gt;" in text and 'alert("' not in text


# --- colours


def contrast(a: str, b: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances, the lighter one on top."""

    def light(c: str) -> float:
        parts = [int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    x, y = sorted((light(a), light(b)), reverse=True)
    return (x + 0.05) / (y + 0.05)


def test_colours_have_contrast_in_light_and_dark() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    found = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", html.asset("style.css"))
    by_name = {name: (light, dark) for name, light, dark in found}
    for way in (0, 1):
        for ground in ("page", "card"):
            for name in ("ink", "faint", "accent", "good", "fair", "poor"):
                assert contrast(by_name[name][way], by_name[ground][way]) >= 4.5, (name, ground, way)
            for i in range(svg.SERIES):
                assert contrast(by_name[f"c{i}"][way], by_name[ground][way]) >= 3, (i, ground, way)


# --- pages


def test_hostile_texts_stay_texts(nasty: Path) -> None:
    text = nasty.read_text(encoding="utf-8")
    page = sound(text)
    assert "<script>alert" not in text and "<b>" not in text
    shown = "".join(page.shown)
    assert shown.count(NASTY) > 10 and LONG in shown and "&amp; more" in shown  # as labels and inputs, word for word
    assert f"out of memory {NASTY}" in shown
    assert not [a for _, a in page.tags if "onerror" in a]


def test_the_policy_names_the_style_and_the_script_of_the_page(nasty: Path) -> None:
    text = nasty.read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert "default-src &#39;none&#39;" in policy and "unsafe" not in policy


def test_a_comparison_says_all_that_there_is(nasty: Path) -> None:
    page = sound(nasty.read_text(encoding="utf-8"))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert ids >= {"leaderboard", "failures", "shots", "costs", "learning", "classes", "mistakes", "ran"}
    shown = " ".join(page.shown)
    for said in ("Learned from 4 examples a class", "Learned from 8 examples a class", "best", "(2 failed)", "a remark",
                 "on the Pareto front", "Lester et al. 2021", "length", "other methods right"):  # fmt: skip
        assert said in shown, said
    charts = [a for t, a in page.tags if t == "svg" and "chart" in (a.get("class") or "")]
    assert len(charts) >= 8 and all(a["role"] == "img" and a["aria-labelledby"] for a in charts)


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    task = texts_task(("a", "b"))
    shown = " ".join(sound(html.page(compared(tmp_path, task, {"prompt-tuning": [None]}))).shown)
    assert "No method has a score yet." in shown and "out of memory" in shown and "1 run of the plan has no" in shown


def test_many_classes_and_mistakes_are_cut_short_and_said(tmp_path: Path) -> None:
    task = texts_task([f"class {i:02}" for i in range(30)], 90, "word " * 1000 + "{}")
    text = html.page(compared(tmp_path, task, {"prompt-tuning": [noisy(task, 0.9, 0)]}))
    shown = " ".join(sound(text).shown)
    assert "The most confused pairs" in shown and "Which classes are taken for which" not in shown
    wrong = int((noisy(task, 0.9, 0) != [e.gold for e in task.test]).sum())
    assert f"{wrong - html.TEXTS} more are left out." in shown and "more characters)" in shown
    assert text.count('class="about"') == html.TEXTS


def test_every_method_has_its_share_of_the_lines_of_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = texts_task(("a", "b"))
    said = {m: [noisy(task, 0.3, s) for s in range(3)] for m in ("prompt-tuning", "p-tuning-v2")}
    monkeypatch.setattr(html, "LINES", 3)
    (chart,) = html._learning(compared(tmp_path, task, said), {"prompt-tuning": 0, "p-tuning-v2": 1})
    assert chart.title.endswith("3 of 6 runs are drawn") and chart.drawn.count('class="line thin"') == 2 * 3
    assert [name for _, name in chart.key] == ["prompt-tuning", "p-tuning-v2"] and len(chart.rows) == 6
    # method, seed, steps, best score, at step, last loss
    assert chart.rows[0][1:] == ("0", "8", "0.700", "8", "0.800")


def test_generation_and_several_labels(tmp_path: Path) -> None:
    written = Task.from_lists(["one", "two"], ["a b c", "d e f"], name="w", kind="generation",
                              valid=(["six"], ["g"]), test=(["u", "v"], ["a b c", NASTY]))  # fmt: skip
    page = html.page(compared(tmp_path / "w", written, {"prompt-tuning": [["a b c", "no idea"]]}))
    shown = " ".join(sound(page).shown)
    assert "1 of 2 test examples" in shown and "no idea" in shown and "precision" not in shown
    several = several_labels()
    z = np.array([[1.0, 2.0], [1.0, 3.0]])
    shown = " ".join(sound(html.page(compared(tmp_path / "s", several, {"prompt-tuning": [z]}))).shown)
    assert "precision" in shown and "taken for which" not in shown and "a, b" in shown


def test_pictures_are_small_and_inside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (300, 200, 3), dtype=np.uint8) for _ in range(12)]
    task = Task.from_arrays(pictures, [0, 1] * 6, names=["cat", "dog"], name="pets", split=Split(test=0.5))
    said = np.array([1 - int(e.gold) for e in task.test])  # type: ignore[arg-type]
    page = sound(html.page(compared(tmp_path, task, {"coop": [said]})))
    images = [a for t, a in page.tags if t == "img"]
    assert len(images) == len(task.test) and all((a["src"] or "").startswith("data:image/jpeg;base64,") for a in images)
    assert all(len(a["src"] or "") < 40_000 and a["alt"] for a in images)


def test_one_run(tmp_path: Path) -> None:
    task = texts_task((NASTY, "b"))
    finished(tmp_path / "run", "prompt-tuning", task, noisy(task, 0.5, 1))
    page = sound(html.run_page(tmp_path / "run", task))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert ids >= {"learning", "classes", "mistakes", "ran"} and "leaderboard" not in ids
    shown = " ".join(page.shown)
    assert "prompt-tuning reaches accuracy" in shown and "epochs=2" in shown
    assert "give the task" in " ".join(sound(html.run_page(tmp_path / "run")).shown)
    other = replace(task, test=task.test[:5])
    assert "has changed since" in " ".join(sound(html.run_page(tmp_path / "run", other)).shown)
    with pytest.raises(RunError, match="no run in"):
        html.run_page(tmp_path)


def test_a_search_shows_how_its_words_came_about(tmp_path: Path) -> None:
    world = World(0)
    means = Means(writer=Direct(world, "openai:writer"), budget="1500calls")
    ana.fit("opro", Direct(world), world.task, folder=tmp_path / "run", means=means)
    page = sound(html.run_page(tmp_path / "run", world.task))
    tags, shown = [t for t, _ in page.tags], " ".join(page.shown)
    assert "ins" in tags and "How it came about" in shown and "Over the prompt that it started from" in shown
    assert "spent by the writer" in shown and "1. " not in shown


def findings() -> list[Found]:
    bars = Finding(headline=f"spread {NASTY}", heads=("format", "accuracy"), rows=((NASTY, "0.5"), ("b", "0.6")),
                   chart={"kind": "bars", "points": [[LONG, 0.5], ["b", 0.6]]}, notes=("a note",))  # fmt: skip
    one = [["a", 0.1, -0.1, 0.3], ["b", 0.4, 0.2, 0.5]]
    ranges = Finding(headline="x", chart={"kind": "ranges", "points": one})
    sure = Finding(headline="y", chart={"kind": "reliability", "points": [[0.5, 0.4, 10], [0.9, 1.0, 30]]})
    return [Found("formats", bars, "", 120, 2.0), Found("groups", ranges, "", 0, 0.0),
            Found("calibration", sure, "", 0, 0.1), Found("order", None, f"no {NASTY}", 0, 0.0)]  # fmt: skip


def test_an_assessment(tmp_path: Path) -> None:
    page = sound(html.assess_page(findings(), {"prompt": "tickets", "model": NASTY}))
    shown = " ".join(page.shown)
    assert "Assessment of tickets" in shown and f"no {NASTY}" in shown and "120 answers" in shown
    assert "0.100 [-0.100, 0.300]" in shown and "a note" in shown
    assert {a.get("id") for _, a in page.tags} >= {
        "measure-formats",
        "measure-groups",
        "measure-calibration",
        "skipped",
    }


def test_ranges_are_read_in_any_order() -> None:
    a = html._drawn("ranges", [["x", 0.2, 0.1, 0.3]])
    b = html._drawn("ranges", [["x", 0.1, 0.2, 0.3]])
    assert a == b and a.rows[0][1] == "0.200 [0.100, 0.300]"


def test_a_range_says_what_it_is() -> None:
    orders = Finding(
        headline="x", chart={"kind": "ranges", "said": "worst <to> best", "points": [["a", 0.5, 0.2, 0.7]]}
    )
    plain = Finding(headline="y", chart={"kind": "ranges", "points": [["a", 0.5, 0.2, 0.7]]})
    shown = " ".join(sound(html.assess_page([Found("order", orders, "", 0, 0.0)], {})).shown)
    assert "0.500, worst <to> best 0.200 to 0.700" in shown and "in brackets: worst <to> best; drawn from" in shown
    assert "95 %" not in shown
    shown = " ".join(sound(html.assess_page([Found("noise", plain, "", 0, 0.0)], {})).shown)
    assert "0.500, 95 % interval 0.200 to 0.700" in shown and "in brackets: 95 % interval; drawn from" in shown


def test_what_is_no_number_is_said_and_not_drawn() -> None:
    nan = math.nan
    ranges = Finding(headline="x", heads=("what", "loss"), rows=(("a", "nan"), ("b", "0.500")),
                     chart={"kind": "ranges", "points": [["a", nan, nan, nan], ["b", 0.5, 0.2, 0.7]]})  # fmt: skip
    bars = Finding(headline="y", chart={"kind": "bars", "points": [["a", nan], ["b", math.inf], ["c", 0.5]]})
    sure = Finding(headline="z", chart={"kind": "reliability", "points": [[0.5, nan, 3], [0.7, 0.5, 4]]})
    none = Finding(headline="w", chart={"kind": "reliability", "points": [[nan, nan, 3]]})
    kinds = enumerate((ranges, bars, sure, none))
    text = html.assess_page([Found(f"m{i}", f, "", 0, 0.0) for i, f in kinds], {})
    page = sound(text)
    body = text[text.index("<main") :] if "<main" in text else text.split("</style>")[1].split("<script")[0]
    assert not re.search(r"\b(nan|inf)\b", body) and " ".join(page.shown).count("not known") == 4
    points = [(0.0, 0.5, 0.5, 0.5), (1.0, nan, nan, nan), (2.0, 0.7, 0.7, 0.7)]
    lines = [svg.Line("ran away", 0, points), svg.Line("never", 1, points[1:2])]
    low, high = svg.room_for([p[1] for p in points])
    assert (low, high) == pytest.approx((0.488, 0.712)) and svg.room_for([nan]) == (-0.05, 0.05)
    drawn = svg.curve("c", "t", lines, svg.Scale("steps", 0, 2), svg.Scale("loss", low, high)).drawn
    assert "nan" not in drawn and "0.700 at 2" in drawn and "never" not in drawn
    assert "nan" not in svg.curve("c", "t", lines[1:], svg.Scale("steps", 0, 2), svg.Scale("loss", 0, 1)).drawn


def test_tables_of_measures_are_sorted_by_their_numbers() -> None:
    rows = [["a", "-0.10 [-0.20, 0.00]", "1,024", "9 %", "x 1"], ["b", "+0.05", "", "12%", "3"]]
    assert html._keys(rows) == [[None, -0.1, 1024.0, 9.0, None], [None, 0.05, "", 12.0, None]]
    assert html._keys([]) == [] and html._keys([["nan"], [""]]) == [[None], [None]]
    said = ("$0.0280", "2.50 [2.00, 3.00]", "0 to 10 characters", ".5", "1.2.3", "5-6", "one", "not known")
    assert [html._number(s) for s in said] == [0.028, 2.5, 0, 0.5, None, None, None, None]
    finding = Finding(
        headline="x", heads=("what", "loss"), rows=(("a", "-0.10 [-0.20, 0.00]"), ("b", ""), ("c", "+2 ms"))
    )
    page = sound(html.assess_page([Found("noise", finding, "", 0, 0.0)], {}))
    assert [a["data-v"] for t, a in page.tags if "data-v" in a] == ["-0.1", "", "2.0"]


def test_papers_are_links_and_nothing_else_is() -> None:
    assert str(html._link("[A & B](https://arxiv.org/abs/1)")) == (
        '<a href="https://arxiv.org/abs/1" rel="noreferrer">A &amp; B</a>'
    )
    assert html._link("[x](javascript:alert)") == "x" and html._link("none") == "none"


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


INSIDE = """() => [...document.querySelectorAll('svg.chart, svg.range')].filter(s => s.getClientRects().length)
.map(s => {
  const box = s.getBoundingClientRect(), all = (what) => [...s.querySelectorAll(what)];
  const boxes = (what) => all(what).map(m => m.getBoundingClientRect());
  const outside = (m) => m.left < box.left - 1 || m.right > box.right + 1 || m.top < box.top - 1 ||
    m.bottom > box.bottom + 1;
  return {
    role: s.getAttribute('role'), marks: boxes('.mark, .fill').filter(m => m.width > 0 && m.height > 0).length,
    colours: new Set(all('.mark').map(m => getComputedStyle(m).fill)).size,
    series: new Set(all('g:has(> .mark)').map(g => g.getAttribute('class'))).size,
    out: boxes('.mark, .fill, text, .whisker, .line').filter(outside).length,
  };
})"""


@pytest.mark.parametrize("width", [360, 1280])
def test_charts_are_drawn_inside_their_boxes(nasty: Path, browser: Any, width: int) -> None:
    with opened(browser, nasty, width=width) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        charts = page.evaluate(INSIDE)
        assert len(charts) >= 10
        for chart in charts:
            assert (chart["marks"] or not chart["series"]) and not chart["out"] and chart["role"] == "img", chart
            assert chart["colours"] == chart["series"]  # each method its own
        assert max(c["series"] for c in charts) == 4
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.seen.console == [] and page.seen.requests == []


def test_light_and_dark_and_the_toggle(nasty: Path, browser: Any) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, nasty) as light, opened(browser, nasty, dark=True) as dark:
        grounds = light.evaluate(back), dark.evaluate(back)
        assert grounds == ("rgb(251, 251, 249)", "rgb(21, 22, 25)")
        button = light.get_by_role("button", name="Theme")
        seen = []
        for _ in range(3):
            button.focus()
            light.keyboard.press("Enter")
            seen.append((button.inner_text(), light.evaluate(back)))
        assert seen == [("Theme: light", grounds[0]), ("Theme: dark", grounds[1]), ("Theme: auto", grounds[0])]
        button.click()
        button.click()
        light.reload()
        assert light.evaluate(back) == grounds[1]  # it is remembered
        light.emulate_media(media="print")
        assert not light.locator(".top").is_visible() and light.seen.console == [] and dark.seen.console == []


def test_tables_sort_by_click_and_by_key(nasty: Path, browser: Any) -> None:
    with opened(browser, nasty) as page:
        table = page.locator("#leaderboard table").last
        names = "t => [...t.tBodies[0].rows].map(r => r.cells[0].dataset.t)"
        values = "t => [...t.tBodies[0].rows].map(r => Number(r.cells[1].dataset.v))"
        first = table.evaluate(names)
        head = table.get_by_role("button", name="accuracy")
        head.click()
        assert table.evaluate(values) == sorted(table.evaluate(values))
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        head.focus()
        page.keyboard.press("Enter")
        assert table.evaluate(values) == sorted(table.evaluate(values), reverse=True)
        table.get_by_role("button", name="method").press(" ")
        assert table.evaluate(names) == sorted(first) and table.locator("th[aria-sort]").count() == 1
        assert page.seen.console == []


def test_marks_tell_their_numbers(nasty: Path, browser: Any) -> None:
    with opened(browser, nasty) as page:
        assert not page.locator("#tip").is_visible()
        page.locator("#shots svg.wide .mark").first.hover()
        tip = page.locator("#tip")
        assert tip.is_visible() and re.search(r"0\.\d{3} \[0\.\d{3}, ", tip.inner_text())
        page.keyboard.press("Escape")
        assert not tip.is_visible()


def test_without_scripts_the_page_is_complete(nasty: Path, browser: Any) -> None:
    with opened(browser, nasty, scripts=False) as page:
        assert not page.locator(".theme").is_visible() and page.locator("#leaderboard table").last.is_visible()
        assert page.locator("#leaderboard th").first.inner_text() == "method"
        page.locator("#shots summary").click()
        assert page.locator("#shots td").first.is_visible()


def test_an_assessment_on_a_phone(tmp_path: Path, browser: Any) -> None:
    file = html.write(html.assess_page(findings(), {"prompt": NASTY, "model": LONG}), tmp_path / "new" / "assess.html")
    with opened(browser, file, width=360, dark=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        charts = page.evaluate(INSIDE)
        assert len(charts) == 5 and all(c["marks"] and not c["out"] for c in charts)
        assert page.seen.console == [] and page.seen.requests == []
