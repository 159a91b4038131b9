"""The noun: what is made of rows, how it is divided, and what is said about data that makes a score less telling."""

from __future__ import annotations

import csv
import inspect
import json
import os
import random
import subprocess
import sys
import time
import typing
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anacrusis.errors import ConfigError, DataError
from anacrusis.task import DataWarning, Example, Split, Task, golds_of
from anacrusis.task.readers import Reading
from anacrusis.task.task import Options

DATA = Path(__file__).parents[1].parent / "shared" / "data"
TEAMS = ["billing", "card", "loan"]


def needs(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"shared/data/{folder} is not here")
    return DATA / folder


def save(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tickets(n: int, start: int = 0) -> list[list[str]]:
    """n rows a team."""
    return [[f"{team} question {i}", team] for i in range(start, start + n) for team in TEAMS]


def save_tickets(path: Path, n: int, start: int = 0) -> Path:
    return save(path, ["message", "team"], tickets(n, start))


def texts(part: tuple[Example, ...]) -> set[str]:
    return {example.inputs[0] for example in part}


def golds(task: Task, part: tuple[Example, ...]) -> Counter[str]:
    return Counter(task.labels[e.gold] for e in part if isinstance(e.gold, int))


@contextmanager
def warned(*parts: str) -> Iterator[None]:
    """Exactly one DataWarning for each of the parts, in this order, containing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages = [str(w.message) for w in caught]
    assert all(w.category is DataWarning for w in caught) and len(messages) == len(parts), messages
    for message, part in zip(messages, parts, strict=True):
        assert part in message, message


def fails(message: str, *parts: str, make: Any) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        make()
    for part in (message, *parts):
        assert part in str(caught.value), str(caught.value)


# --- the noun


def test_from_csv(tmp_path: Path) -> None:
    task = Task.from_csv(save_tickets(tmp_path / "tickets.csv", 20), text="message", label="team")
    assert task.describe() == "tickets: classification, 3 classes, 39 train, 9 valid, 12 test, metric accuracy"
    assert (task.fields, task.labels, task.words) == (("message",), tuple(TEAMS), tuple(TEAMS))
    assert golds(task, task.test) == dict.fromkeys(TEAMS, 4) and golds(task, task.valid) == dict.fromkeys(TEAMS, 3)
    assert texts(task.train) | texts(task.valid) | texts(task.test) == {row[0] for row in tickets(20)}
    one = next(e for e in task.train + task.valid + task.test if e.inputs == ("card question 1",))
    assert one.where == "tickets.csv:6" and one.gold == 1 and task.notes == ()


def test_pairs_and_lists() -> None:
    pairs = [("a", str(i)) if i % 2 else ["c", str(i)] for i in range(8)]
    task = Task.from_lists(pairs, [False, True] * 4, fields=("premise", "hypothesis"))
    assert task.fields == ("premise", "hypothesis") and task.labels == ("False", "True")
    assert Task.from_lists([("a", str(i)) for i in range(8)], [0, 1] * 4).fields == ("text_1", "text_2")
    one = {e.inputs: e for e in task.train + task.test + task.valid}[("a", "3")]
    assert one.gold == 1 and one.where == "row 3"  # from 0, as in the list
    fails("row 1: expected 2 texts", "got 1", make=lambda: Task.from_lists([("a", "b"), "c"], [0, 1]))
    fails("2 texts, but 1 labels", make=lambda: Task.from_lists(["a", "b"], [0]))
    fails("1 test texts, but 2", make=lambda: Task.from_lists(["a", "b"], [0, 1], test=(["a"], [0, 1])))


def test_id_is_of_content_only() -> None:
    one = Example(("a", "b"), 1, "x.csv:3")
    assert one.id == Example(("a", "b"), np.int64(1), "y.csv:9").id and len(one.id) == 16  # type: ignore[arg-type]
    int(one.id, 16)
    others = [Example(("ab", ""), 1), Example(("a", "b"), 2), Example(("a", "b"), (1,)), Example(("a", "b"), "1")]
    others += [
        Example(("a", "b"), None),
        Example(("a", "b"), "None"),
        Example(("a", "b"), ()),
        Example(("1:a1", "b"), 1),
    ]
    others += [Example(("a",), 1), Example(("b", "a"), 1), Example(("a", "b"), (1, 1))]
    assert len({e.id for e in [one, *others]}) == len(others) + 1
    assert Example(("a",), 1, "x") == Example(("a",), 1, "y")


def test_id_is_the_same_for_ever() -> None:
    """Stored runs name examples by it."""
    assert Example(("my card was charged twice",), 3).id == "852565c81849426b"


def test_fingerprint_is_of_what_a_score_depends_on(tmp_path: Path) -> None:
    task = Task.from_csv(save_tickets(tmp_path / "tickets.csv", 10), "message", "team")
    again = Task.from_csv(tmp_path / "tickets.csv", "message", "team", name="other")
    assert task.fingerprint == again.fingerprint and len(task.fingerprint) == 32 and task != again
    changed = [
        replace(task, fields=("text",)),
        replace(task, labels=("a", "b", "c")),
        replace(task, metric="macro-f1"),
        replace(task, train=task.train[1:]),
        replace(task, train=task.train[::-1]),
        replace(task, valid=task.test, test=task.valid),
    ]
    assert len({t.fingerprint for t in [task, *changed]}) == len(changed) + 1
    made = Task("t", "generation", ("text",), (), (), (Example(("a",), "b", "", ("b",)),), (), ())
    more = replace(made, train=(Example(("a",), "b", "", ("b", "c")),))
    assert made.fingerprint != more.fingerprint


def test_checks_of_a_task_made_by_hand() -> None:
    train = (Example(("x",), 0),)
    ok = Task("t", "classification", ("text",), ("a", "b"), ("a", "b"), train, (), ())
    assert (ok.metric, ok.source, ok.seed) == ("accuracy", {}, 0) and hash(ok) == hash(replace(ok))
    fails("unknown kind 'clasification'", "Did you mean", make=lambda: replace(ok, kind="clasification"))  # type: ignore[arg-type]
    fails("unknown metric 'acc'", make=lambda: replace(ok, metric="acc"))
    fails("'bleu' does not score classification", "'accuracy' does", make=lambda: replace(ok, metric="bleu"))
    for words in (("a",), ("a", "a"), ("a", "")):
        fails("words", "different one for each", make=lambda words=words: replace(ok, words=words))
    for bad in (Example(("x", "y"), 0, "t.csv:2"), Example(("x",), 2, "t.csv:2"), Example(("x",), "a", "t.csv:2")):
        fails("t.csv:2: does not fit", make=lambda bad=bad: replace(ok, test=(bad,)))
    fails("does not fit", make=lambda: replace(ok, test=(Example(("x",), (0,)),)))
    fails("does not fit", make=lambda: replace(ok, kind="multilabel", metric=""))
    assert replace(ok, train=(Example(("x",), None),)).train[0].gold is None  # unlabelled is allowed


# --- kinds


def test_multilabel_by_separator_list_and_columns(tmp_path: Path) -> None:
    labels = ["a|b", "a", "|", "b", "c|a"] * 4
    rows = [[f"text {i}", label] for i, label in enumerate(labels)]
    path = save(tmp_path / "t.csv", ["text", "label"], rows)
    split = Split(valid=0, test=0.2)
    task = Task.from_csv(path, kind="multilabel", split=split)
    assert (task.kind, task.metric, task.labels) == ("multilabel", "map", ("a", "b", "c"))
    gold = {e.inputs[0]: e.gold for e in task.train + task.test}
    assert [gold[f"text {i}"] for i in range(5)] == [(0, 1), (0,), (), (1,), (0, 2)]
    listed = [{"text": text, "label": [x for x in label.split("|") if x]} for text, label in rows]
    assert Task.from_records(listed, split=split) == replace(task, name="task")  # inferred by the lists
    flags = [[text, *(int(x in label) for x in "cab")] for text, label in rows]
    path = save(tmp_path / "u.csv", ["text", "c", "a", "b"], flags)
    assert Task.from_csv(path, label=("c", "a", "b"), split=split) == replace(task, name="u")
    semi = save(tmp_path / "v.csv", ["text", "label"], [[text, label.replace("|", "/")] for text, label in rows])
    assert Task.from_csv(semi, kind="multilabel", separator="/", split=replace(split)) != task
    save(tmp_path / "w.csv", ["text", "label"], [["x", "a|b"], ["y", ""]])
    fails(
        "w.csv:3: column 'label' is empty; for no label write '|' alone",
        make=lambda: Task.from_csv(tmp_path / "w.csv", kind="multilabel"),
    )
    fails(
        "kind must be 'multilabel'",
        make=lambda: Task.from_csv(tmp_path / "u.csv", label=("a", "b"), kind="classification"),
    )


def test_generation(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"q": f"question {i}", "a": [f"answer {i}", f"reply {i}"] if i % 2 else f"answer {i}"} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = Task.from_file(path, "q", "a", kind="generation")
    assert (task.labels, task.words, task.metric) == ((), (), "rougeL")
    assert task.describe() == "t: generation, 20 train, 4 valid, 6 test, metric rougeL"
    one = {e.inputs[0]: e for e in task.train + task.valid + task.test}
    assert one["question 3"].gold == "answer 3" and one["question 3"].references == ("answer 3", "reply 3")
    assert one["question 2"].references == ("answer 2",)
    assert task.score([e.references[-1] for e in task.test], task.test) == 1
    assert task.score([str(e.gold) for e in task.test], task.test, "exact-match") == 1
    columns = Task.from_records(
        [{"q": "x", "a": "1", "b": "2"}] * 4, "q", ("a", "b"), kind="generation", split=Split(test=0, valid=0)
    )
    assert columns.train[0].references == ("1", "2")
    fails("words: a generation task", make=lambda: Task.from_file(path, "q", "a", kind="generation", words={"x": "y"}))


def test_labels_that_are_texts_suggest_generation() -> None:
    fails(
        "row 0: column 'label' is different in each of 30 rows",
        "kind='generation'",
        make=lambda: Task.from_lists([f"q{i}" for i in range(30)], [f"a{i}" for i in range(30)]),
    )


def test_numbers_are_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", ["text", "label"], [[f"x{i}", i % 3] for i in range(30)])
    assert Task.from_csv(path).labels == ("0", "1", "2")
    pd = pytest.importorskip("pandas")
    for frame in (pd.read_csv(path), pd.read_csv(path).astype({"label": float}), pd.read_csv(path).astype("category")):
        assert Task.from_pandas(frame) == replace(Task.from_csv(path), name="task")


# --- words


def test_words() -> None:
    given = ["card_lost", "pay-day", "x_y", "x-y", "_"] * 4
    lists = [f"t{i}" for i in range(20)], given
    task = Task.from_lists(*lists)
    assert dict(zip(task.labels, task.words, strict=True)) == {
        "card_lost": "card lost",
        "pay-day": "pay day",
        "x_y": "x_y",
        "x-y": "x-y",
        "_": "_",
    }
    task = Task.from_lists(*lists, words={"pay-day": "salary"})
    assert task.words[task.labels.index("pay-day")] == "salary" and "card lost" in task.words
    assert Task.from_lists(*lists, words=list("abcde")).words == tuple("abcde")
    fails("no label 'pay_day'", "Did you mean 'pay-day'", make=lambda: Task.from_lists(*lists, words={"pay_day": "s"}))
    fails("words", make=lambda: Task.from_lists(*lists, words=["a"]))


# --- splits


def test_row_order_changes_nothing(tmp_path: Path) -> None:
    rows = tickets(13)
    tasks = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        tasks.append(Task.from_csv(save(tmp_path / "t.csv", ["message", "team"], rows), "message", "team"))
        tasks.append(Task.from_csv(tmp_path / "t.csv", "message", "team", split=Split(shots=3)))
    assert tasks[0] == tasks[2] == tasks[4] and tasks[1] == tasks[3] == tasks[5]
    assert tasks[0].fingerprint == tasks[4].fingerprint


@pytest.mark.filterwarnings("ignore::anacrusis.task.DataWarning")
def test_row_order_changes_nothing_where_gold_contradicts() -> None:
    rows = [*tickets(12), *[[text, "card"] for text, _ in tickets(12)], *tickets(6, 20)]
    for split in (Split(), Split(shots=1)):
        one = Task.from_lists(*zip(*rows, strict=True), split=split)
        assert one == Task.from_lists(*zip(*rows[::-1], strict=True), split=split)


def test_seed_changes_the_split() -> None:
    rows = list(zip(*tickets(20), strict=True))
    one, same, other = (Task.from_lists(*rows, split=Split(seed=s)) for s in (1, 1, 2))
    assert one == same and one.seed == 1 and texts(one.test) != texts(other.test)


def test_a_new_row_moves_almost_nothing() -> None:
    rows = tickets(20)
    one = Task.from_lists(*zip(*rows, strict=True))
    two = Task.from_lists(*zip(*rows, ["one more", "card"], strict=True))
    assert len(texts(one.test) ^ texts(two.test)) <= 2


def test_shares_keep_small_classes_in_train_and_totals_right() -> None:
    sizes = {"big": 100, **{f"small{i}": 3 for i in range(10)}, "lone": 1}
    labels = [name for name, n in sizes.items() for _ in range(n)]
    task = Task.from_lists([f"text {i}" for i in range(len(labels))], labels)
    assert len(task.test) == round(131 * 0.2) and len(task.valid) == round(131 * 0.15)
    assert set(golds(task, task.train)) == set(sizes)
    assert golds(task, task.test)["big"] in (20, 21) and golds(task, task.train)["lone"] == 1


def test_same_input_is_never_on_both_sides() -> None:
    rows = [[f"text {i % 40}", "ab"[i % 2]] for i in range(200)] + [[f"text {i}", "c"] for i in range(20)]
    with pytest.warns(DataWarning, match="different gold"):
        task = Task.from_lists(*zip(*rows, strict=True))
    parts = [texts(part) for part in (task.train, task.valid, task.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert len(task.test) > 20 and len(task.valid) > 10


def test_shots() -> None:
    rows = tickets(20)
    task = Task.from_lists(*zip(*rows, strict=True), split=Split(shots=5))
    assert golds(task, task.train) == golds(task, task.valid) == dict.fromkeys(TEAMS, 5)
    assert golds(task, task.test) == dict.fromkeys(TEAMS, 4)
    assert len(texts(task.train) | texts(task.valid) | texts(task.test)) == 42
    twice = Task.from_lists(*zip(*(rows + rows), strict=True), split=Split(shots=5))
    assert len(texts(twice.train)) == len(twice.train) == 15  # different ones


def test_too_few_for_the_shots() -> None:
    rows = [*tickets(20), *[[f"fraud {i}", "fraud"] for i in range(9)]]
    lists = list(zip(*rows, strict=True))
    fails(
        "class 'fraud' has 7 different examples that are not in test",
        "shots=4 takes 4 for train and 4 for validation",
        "The largest that works for every class is shots=3",
        make=lambda: Task.from_lists(*lists, split=Split(shots=4)),
    )
    task = Task.from_lists(*lists, split=Split(shots=3))
    assert golds(task, task.train)["fraud"] == 3
    test = ["x", "y"], ["card", "loan"]
    valid = ["v", "w"], ["card", "loan"]
    assert len(Task.from_lists(*lists, test=test, valid=valid, split=Split(shots=9)).train) == 36
    fails(
        "class 'fraud' has 9",
        "takes 10 for train.",
        "shots=9",
        make=lambda: Task.from_lists(*lists, test=test, valid=valid, split=Split(shots=10)),
    )
    lone = [*lists[0], "only"], [*lists[1], "rare"]
    fails("class 'rare' has 1", "Add examples of it", make=lambda: Task.from_lists(*lone, split=Split(shots=1)))


def test_given_files_are_used_as_they_are(tmp_path: Path) -> None:
    train, valid, test = (save_tickets(tmp_path / f"{p}.csv", 6, i) for i, p in enumerate(("train", "valid", "test")))
    with pytest.warns(DataWarning):
        task = Task.from_csv(train, "message", "team", valid=valid, test=test)
    assert [e.where for e in task.test][:2] == ["test.csv:2", "test.csv:3"] and len(task.valid) == len(task.test) == 18
    assert [e.inputs[0] for e in task.train] == [row[0] for row in tickets(6)]
    # 5 of 6 rows a team are in the part before
    assert task.notes[0].startswith(
        "15 examples of valid are in train too, such as valid.csv:2 = train.csv:5: 'billing"
    )
    assert len(task.notes) == 3 and "12 examples of test are in train too" in task.notes[1]


def test_what_is_not_given_is_drawn_from_train(tmp_path: Path) -> None:
    train, test = save_tickets(tmp_path / "train.csv", 20), save_tickets(tmp_path / "test.csv", 5, 50)
    task = Task.from_csv(train, "message", "team", test=test)
    assert (len(task.train), len(task.valid), len(task.test)) == (51, 9, 15)
    few = Task.from_csv(train, "message", "team", test=test, split=Split(shots=10))
    assert (len(few.train), len(few.valid), few.test) == (30, 30, task.test)
    valid = Task.from_csv(train, "message", "team", valid=test)
    assert (len(valid.train), len(valid.valid), len(valid.test)) == (48, 15, 12)


def test_split_column(tmp_path: Path) -> None:
    names = ["train", "Train", "train", "dev", "validation", "test"]
    rows = [[*row, names[i // 3 % 6]] for i, row in enumerate(tickets(12))]
    path = save(tmp_path / "t.csv", ["message", "team", "split"], rows)
    task = Task.from_csv(path, "message", "team", split_column="split")
    assert (len(task.train), len(task.valid), len(task.test)) == (18, 12, 6)
    assert Task.from_source(task.source) == task
    options: Any = {"text": "message", "label": "team", "split_column": "split"}
    fails("split_column='split' and separate test data", make=lambda: Task.from_csv(path, test=path, **options))
    save(path, ["message", "team", "split"], [*rows, ["x", "card", "tset"]])
    fails("t.csv:38: column 'split' is 'tset'", "validation", make=lambda: Task.from_csv(path, **options))
    save(path, ["message", "team", "split"], [*rows, ["x", "card", ""]])
    fails("t.csv:38: column 'split' is empty", make=lambda: Task.from_csv(path, **options))
    with pytest.warns(DataWarning, match="1 row left out"):
        assert len(Task.from_csv(path, skip_bad=True, **options).train) == 18
    save(path, ["message", "team", "split"], [["x", "card", "test"]])
    fails("t.csv: column 'split' is 'train' in no row", make=lambda: Task.from_csv(path, **options))
    fails("t.csv:1: no column 'part'", make=lambda: Task.from_csv(path, "message", "team", split_column="part"))


def test_split_options() -> None:
    fails("shots=0", make=lambda: Split(shots=0))
    fails("sum below 1", make=lambda: Split(valid=0.5, test=0.5))
    fails("sum below 1", make=lambda: Split(valid=-0.1))
    task = Task.from_lists(*zip(*tickets(4), strict=True), split=Split(valid=0, test=0))
    assert (len(task.train), task.valid, task.test, task.notes) == (12, (), (), ())


def test_too_few_rows_to_divide_is_said() -> None:
    with warned("valid is empty", "test is empty"):
        task = Task.from_lists(["x", "y"], [0, 1])
    assert len(task.train) == 2 and len(task.notes) == 2


def test_a_small_share_is_at_least_one_example() -> None:
    task = Task.from_lists(*zip(*tickets(2), strict=True), split=Split(valid=0, test=0.01))
    assert (len(task.train), len(task.test)) == (5, 1)


def test_multilabel_split_gives_rare_labels_their_share() -> None:
    labels = [["common", "rare"] if i < 20 else ["common"] for i in range(200)]
    task = Task.from_lists([f"t{i}" for i in range(200)], labels)
    rare = task.labels.index("rare")
    assert [sum(rare in e.gold for e in part) for part in (task.train, task.valid, task.test)] == [13, 3, 4]  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore::anacrusis.task.DataWarning")
def test_multilabel_label_that_is_left_out_of_train_is_said() -> None:
    """z is nobody's rarest label (a and b come first), so that no row of it is kept for train."""
    lists = list("wxyz"), [["a", "z"], ["a"], ["b", "z"], ["b"]]
    tasks = [Task.from_lists(*lists, split=Split(seed, valid=0, test=0.5)) for seed in range(20)]
    without = [task for task in tasks if not any(2 in e.gold for e in task.train)]  # type: ignore[operator]
    assert 0 < len(without) < 20
    for task in tasks:
        assert (task.notes == ("labels that no train example has: z.",)) == (task in without)


# --- what is wrong with the rows


def test_one_class() -> None:
    fails(
        "row 0: column 'label' holds only 'a' in all 3 rows",
        "label='COL'",
        make=lambda: Task.from_lists(list("xyz"), ["a"] * 3),
    )
    fails("holds no label", make=lambda: Task.from_lists(list("xyz"), [[]] * 3))
    assert Task.from_lists(list("vwxyz"), [["a"], ["a"], [], [], []], split=Split(test=0, valid=0)).labels == ("a",)


def test_label_that_train_lacks(tmp_path: Path) -> None:
    train = save_tickets(tmp_path / "train.csv", 5)
    test = save(tmp_path / "test.csv", ["message", "team"], [["x", "card"], ["y\nz", "card"], ["w", "lona"]])
    fails(
        "test.csv:5: column 'team': the label 'lona' of test does not occur in train",
        "Did you mean 'loan'",
        make=lambda: Task.from_csv(train, "message", "team", test=test),
    )
    fails("the label 'lona' of valid", make=lambda: Task.from_csv(train, "message", "team", valid=test))


def test_header_only(tmp_path: Path) -> None:
    train, empty = save_tickets(tmp_path / "train.csv", 5), save(tmp_path / "empty.csv", ["message", "team"], [])
    fails("empty.csv: no rows to use", "under a header", make=lambda: Task.from_csv(empty, "message", "team"))
    fails("empty.csv: no rows to use", make=lambda: Task.from_csv(train, "message", "team", test=empty))
    fails("no rows", make=lambda: Task.from_lists([], []))
    fails("the records: there are no rows", make=lambda: Task.from_records([]))
    only = save(tmp_path / "bad.csv", ["message", "team"], [["", "card"]])
    fails(
        "bad.csv: no rows to use (1 row left out",
        "bad.csv:2",
        make=lambda: Task.from_csv(only, "message", "team", skip_bad=True),
    )


def test_columns_must_be_in_every_file(tmp_path: Path) -> None:
    train, test = (
        save_tickets(tmp_path / "train.csv", 5),
        save(tmp_path / "test.csv", ["mesage", "team"], [["x", "card"]]),
    )
    fails(
        "test.csv:1: no column 'message'", "'mesage'", make=lambda: Task.from_csv(train, "message", "team", test=test)
    )


def test_columns_that_are_not_named_may_differ_between_files(tmp_path: Path) -> None:
    train = save(tmp_path / "train.csv", ["text", "label"], tickets(5))
    test = save(tmp_path / "test.csv", ["category", "id", "sentence"], [["card", 1, "x"], ["loan", 2, ""]])
    fails("test.csv:3: column 'sentence' is empty", make=lambda: Task.from_csv(train, test=test))
    save(test, ["category", "id", "sentence"], [["card", 1, "x"], ["lone", 2, "y"]])
    fails("test.csv:3: column 'category': the label 'lone'", make=lambda: Task.from_csv(train, test=test))
    save(test, ["category", "id", "sentence"], [["card", 1, "x"]])
    task = Task.from_csv(train, test=test)
    assert task.test == (Example(("x",), 1),) and task.fields == ("text",)


def test_bad_rows_stop_unless_told_otherwise(tmp_path: Path) -> None:
    rows: list[list[Any]] = [*tickets(5), ["", "card"], ["x", " "], ["too", "many", "cells"]]
    path = save(tmp_path / "t.csv", ["message", "team"], rows)
    for i, message in enumerate(("'message' is empty", "'team' is empty", "3 cells, but the header names 2")):
        save(path, ["message", "team"], [*tickets(5), rows[15 + i]])
        fails("t.csv:17: ", message, "--skip-bad (skip_bad=True)", make=lambda: Task.from_csv(path, "message", "team"))
    save(path, ["message", "team"], rows)
    with pytest.warns(DataWarning, match="3 rows left out") as caught:
        task = Task.from_csv(path, "message", "team", skip_bad=True)
    assert task.notes == ("3 rows left out (skip_bad). The first: t.csv:17: column 'message' is empty.",)
    assert len(caught) == 1 and len(task.train + task.valid + task.test) == 15
    nested: list[dict[str, Any]] = [{"text": "x", "label": "a"}, {"text": {"en": "x"}, "label": "b"}]
    fails("row 1: column 'text' holds the dict", "Flatten", make=lambda: Task.from_records(nested))
    frames: list[dict[str, Any]] = [{"text": "x", "label": "a"}, {"text": "y", "label": float("nan")}]
    fails("row 1: column 'label' has no value", make=lambda: Task.from_records(frames))
    fails("row 1: column 'label' holds a list", "kind", make=lambda: Task.from_lists(["x", "y"], ["a", ["b"]]))


def test_conflicting_gold_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", ["message", "team"], [*tickets(9), ["card question 1", "loan"]])
    with pytest.warns(DataWarning) as caught:
        task = Task.from_csv(path, "message", "team", split=Split(test=0, valid=0))
    assert [str(w.message) for w in caught] == list(task.notes) and len(task.notes) == 1
    assert "1 input of train has different gold" in task.notes[0] and "'card question 1'" in task.notes[0]
    assert "t.csv:6" in task.notes[0] and "t.csv:29" in task.notes[0]
    with warnings.catch_warnings():  # the same row twice is neither
        warnings.simplefilter("error")
        save(path, ["message", "team"], [*tickets(9), ["card question 1", "card"]])
        assert Task.from_csv(path, "message", "team").notes == ()


def test_unknown_options() -> None:
    wrong: Any = {"seperator": "/"}
    fails("unknown option 'seperator'", "Did you mean 'separator'", make=lambda: Task.from_lists(["x"], ["y"], **wrong))
    fails("unknown kind 'generate'", make=lambda: Task.from_lists(["x"], ["y"], kind="generate"))
    fails("unknown metric 'f1'", make=lambda: Task.from_lists(*zip(*tickets(3), strict=True), metric="f1"))


def test_options_and_reading_have_the_same_names() -> None:
    assert {"text", "label", *typing.get_type_hints(Options)} == {f.name for f in fields(Reading)}


def test_no_function_takes_more_than_eight() -> None:
    from anacrusis.task import metrics, readers, splits, task

    for module in (metrics, readers, splits, task):
        for _, found in inspect.getmembers(module):
            functions = [found, *vars(found).values()] if inspect.isclass(found) else [found]
            for function in functions:
                function = getattr(function, "__func__", function)
                if (
                    inspect.isfunction(function)
                    and function.__module__ == module.__name__
                    and function.__name__ != "__init__"
                ):
                    given = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
                    assert (
                        len([p for p in given if p.name not in ("self", "cls")]) <= 8
                        or function.__name__ == "__replace__"
                    ), function


# --- reading again


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_task_and_can_be_read_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"t.{suffix}"
    records = [{"message": m, "team": t} for m, t in tickets(8)]
    if suffix in ("csv", "tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["message", "team"], delimiter="," if suffix == "csv" else "\t")
            writer.writeheader()
            writer.writerows(records)
    elif suffix == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("pandas").DataFrame(records).to_parquet(path)
    else:
        path.write_text(json.dumps(records) if suffix == "json" else "\n".join(map(json.dumps, records)))
    monkeypatch.chdir(tmp_path)
    options: Any = {"split": Split(seed=3, shots=2), "words": {"card": "plastic"}, "metric": "macro-f1", "name": "n"}
    task = Task.from_file(path.name, ["message"], "team", **options)
    assert task == Task.from_records(records, "message", "team", **options)
    source = json.loads(json.dumps(task.source))
    monkeypatch.chdir("/")
    again = Task.from_source(source)
    assert again == task and again.fingerprint == task.fingerprint and again.source == source


def test_nothing_to_read_again_from_memory() -> None:
    task = Task.from_lists(*zip(*tickets(3), strict=True))
    assert task.source == {}
    fails("made from values in memory", make=lambda: Task.from_source(task.source))


def test_from_csv_reads_any_suffix_again(tmp_path: Path) -> None:
    path = save_tickets(tmp_path / "tickets.txt", 4)
    task = Task.from_csv(path, "message", "team")
    assert Task.from_source(task.source) == task
    fails("cannot tell the format", make=lambda: Task.from_file(path, "message", "team"))


# --- frames and datasets


def test_from_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(tickets(8), columns=["message", "team"], index=range(100, 124))
    lists = Task.from_lists(*zip(*tickets(8), strict=True), fields=["message"])
    assert Task.from_pandas(frame, "message", "team") == lists
    more = pd.DataFrame(tickets(2, 50), columns=["message", "team"])
    task = Task.from_pandas(frame, "message", "team", test=more[:3], valid=more[3:])
    assert task.test[1].where == "test row 1" and task.valid[0].where == "valid row 0" and len(task.train) == 24
    frame.loc[105, "message"] = None
    fails("row 5: column 'message' has no value", make=lambda: Task.from_pandas(frame, "message", "team"))
    fails("the frame: no column 'mesage'", make=lambda: Task.from_pandas(frame, "mesage", "team"))
    fails("expected a data frame, got list", "from_records", make=lambda: Task.from_pandas([1], "a", "b"))


class FakeDataset(list[dict[str, Any]]):
    """As much of a `datasets.Dataset` as is used."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
        super().__init__(rows)
        self.features, self.column_names = features, list(features)

    def __getitem__(self, name: Any) -> Any:
        return [row[name] for row in self]


class Names:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class ListOf:
    def __init__(self, feature: Any) -> None:
        self.feature = feature


def test_from_dataset() -> None:
    rows = [{"text": f"t{i}", "label": i % 2, "tags": [i % 2]} for i in range(20)]
    features = {"text": object(), "label": Names("pos", "neg"), "tags": ListOf(Names("x", "y"))}
    data = FakeDataset(rows, features)
    task = Task.from_dataset(data)
    assert task.labels == ("neg", "pos") and (len(task.train), len(task.valid), len(task.test)) == (13, 3, 4)
    gold = {e.inputs[0]: e.gold for e in task.train + task.test + task.valid}
    assert gold["t0"] == 1 and gold["t1"] == 0  # by name, sorted, not by the dataset's numbers
    parts = {"train": data, "validation": FakeDataset(rows[:4], features), "test": FakeDataset(rows[:2], features)}
    with warned(
        "4 examples of valid are in train too", "2 examples of test are in train too", "of test are in valid too"
    ):
        task = Task.from_dataset(parts, label="tags")
    assert task.kind == "multilabel" and task.labels == ("x", "y") and task.test[1].gold == (1,)
    assert (len(task.train), len(task.valid), len(task.test)) == (20, 4, 2) and task.test[0].where == "test row 0"
    with warned("splits left out: unsupervised"):
        Task.from_dataset({"train": data, "unsupervised": data})
    with warned("splits left out: trian"):
        fails("no split 'train', only: trian", make=lambda: Task.from_dataset({"trian": data}))
    hidden = FakeDataset([{"text": "t", "label": -1, "tags": []}], features)
    fails(
        "test row 0: column 'label' is -1",
        "ds['validation']",
        make=lambda: Task.from_dataset({"train": data, "test": hidden}),
    )
    fails("expected a Dataset", "streaming=True", make=lambda: Task.from_dataset(iter(rows)))


def test_from_a_real_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["pos", "neg"]),
        tags=datasets.Sequence(datasets.ClassLabel(names=["x", "y"])),
    )
    rows = {"text": [f"t{i}" for i in range(20)], "label": [0, 1] * 10, "tags": [[0], [0, 1]] * 10}
    data = datasets.Dataset.from_dict(rows, features=features)
    assert Task.from_dataset(data).labels == ("neg", "pos")
    task = Task.from_dataset(datasets.DatasetDict(train=data), label="tags")
    assert task.kind == "multilabel" and {e.gold for e in task.train} == {(0,), (0, 1)}


# --- scores


def test_score(tmp_path: Path) -> None:
    task = Task.from_csv(save_tickets(tmp_path / "t.csv", 5), "message", "team")
    right = golds_of(task.test)
    assert task.score(right, task.test) == 1 and task.score([-1] * len(right), task.test) == 0
    # classes are those of the task, not those that happen to be in the examples
    only = [e for e in task.train if e.gold == 0]
    assert task.score([0] * len(only), only, "macro-f1") == pytest.approx(1 / 3)
    fails("t.csv:9 is unlabelled", make=lambda: task.score([0], [Example(("x",), None, "t.csv:9")]))
    fails("expected 0 to 2", make=lambda: task.score([3], only[:1]))
    fails("does not score classification", make=lambda: task.score([0], only[:1], "bleu"))


# --- the whole


def test_import_is_light() -> None:
    code = "import sys, anacrusis.task.task; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "transformers", "pandas", "sklearn", "scipy", "pyarrow", "datasets", "sacrebleu", "rouge_score"]
    path = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, check=True, env=environment)
    assert done.stdout.strip() == b"[]"


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    path = save(tmp_path / "big.csv", ["text", "label"], [[f"some words, and {i}", i % 8] for i in range(100_000)])
    start = time.process_time()
    task = Task.from_csv(path)
    assert len(task.train) == 65_000 and time.process_time() - start < 10  # about 1.5 on an idle machine


def test_agnews() -> None:
    folder = needs("fewshot16/agnews")
    task = Task.from_csv(
        folder / "16-13/train.tsv", valid=folder / "16-13/dev.tsv", test=folder / "test.tsv", name="agnews"
    )
    assert task.describe() == "agnews: classification, 4 classes, 64 train, 64 valid, 7600 test, metric accuracy"
    assert golds(task, task.train) == dict.fromkeys("0123", 16) and golds(task, task.test) == dict.fromkeys(
        "0123", 1900
    )
    assert '"phishing"' in next(e for e in task.test if e.inputs[0].startswith("E-mail scam targets police")).inputs[0]


def test_clinc150() -> None:
    data = json.loads((needs("clinc150") / "data_full.json").read_text())
    parts = {part: list(zip(*data[part], strict=True)) for part in ("train", "val", "test")}
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        task = Task.from_lists(*parts["train"], valid=parts["val"], test=parts["test"])  # type: ignore[arg-type]
    assert task.describe() == "task: classification, 150 classes, 15000 train, 3000 valid, 4500 test, metric accuracy"
    assert "account blocked" in task.words and len(set(task.words)) == 150
    drawn = Task.from_lists(*parts["train"], split=Split(shots=16))
    assert set(golds(drawn, drawn.train).values()) == {16} and set(golds(drawn, drawn.test).values()) == {20}


def test_fewglue_pairs() -> None:
    folder = needs("fewglue32/CB")
    task = Task.from_file(
        folder / "train.jsonl",
        ("premise", "hypothesis"),
        "label",
        valid=folder / "dev32.jsonl",
        test=folder / "val.jsonl",
    )
    assert task.labels == ("contradiction", "entailment", "neutral") and len(task.test) == 56
    assert all(len(e.inputs) == 2 for e in task.train)


def test_e2e_inputs_are_not_shared_between_parts() -> None:
    with pytest.warns(DataWarning, match="different gold"):
        task = Task.from_csv(needs("e2e") / "devset.csv", "mr", "ref", kind="generation")
    assert not texts(task.train) & texts(task.test) and len(task.train + task.valid + task.test) == 4672
