"""What a second reader of the search engine found wrong, each as a test."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import anacrusis as ana
from anacrusis import Task
from anacrusis.errors import ServiceError
from anacrusis.model.calls import Reply
from anacrusis.model.endpoint import Endpoint
from anacrusis.model.open import open as open_model
from anacrusis.model.say import understood
from anacrusis.prompt.values import Frame
from anacrusis.report import search as report
from anacrusis.runs.run import Run
from anacrusis.runs.searching import Means
from anacrusis.search import perform
from anacrusis.search.parse import parse
from tests.loopback import Loopback
from tests.world import BASE, GOOD, Direct, World

WORLD = World(3, examples=60)


def learn(folder: Path, method: str = "opro", task: Task = WORLD.task, model: Any = None, writer: Any = None,
          **means: Any) -> Run:  # fmt: skip
    options = {"examples": 12} | means.pop("options", {})
    used = Means(writer=writer or Direct(WORLD, "openai:writer"), **{"budget": "300calls", **means})
    return ana.fit(method, model or Direct(WORLD), task, seed=1, folder=folder, options=options, means=used)


def test_a_writer_given_by_name_is_opened_again_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume` asked the default address, where `fit --base-url` had asked another."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    url = "http://127.0.0.1:9/v1"
    for concurrency in (None, 3, 8):
        given = {"dtype": "auto", "device": "auto", "quantise": None, "base_url": url, "concurrency": concurrency}
        said = Means(writer="openai:big", judge="openai:judge", opening=given).to_json()
        again = Means.from_json(said)
        assert again.writer.where == again.judge.where == "127.0.0.1:9/v1"
        assert again.writer.concurrency == (concurrency or 8)
        assert again.to_json() == said  # else the folder would be taken for another run's
    assert Means(writer="./folder", opening={"dtype": "float16", "base_url": url}).to_json()["openings"] == {
        "writer": {"dtype": "float16"}
    }


def test_a_store_is_found_again_from_another_folder_and_without_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run opened an empty store, and paid for everything again."""
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    for given in ("shared.sqlite", "sqlite:///shared.sqlite"):
        said = Means(store=given).to_json()
        assert said["store"] == f"sqlite:///{tmp_path / 'one' / 'shared.sqlite'}"
        monkeypatch.chdir(tmp_path)
        assert Means.from_json(said).to_json() == said
        monkeypatch.chdir(tmp_path / "one")
    monkeypatch.setenv("ANACRUSIS_STORE", "postgresql://me:secret@host/base")
    said = Means().to_json()
    assert "secret" not in str(said) and said["store"].startswith("postgresql://me")
    monkeypatch.setenv("ANACRUSIS_STORE", str(tmp_path / "mine.sqlite"))
    run = learn(tmp_path / "run")
    monkeypatch.delenv("ANACRUSIS_STORE")
    assert not (tmp_path / "run" / "search.sqlite").exists()
    assert report.read(tmp_path / "run").ended and run.plan.means["store"].endswith("mine.sqlite")  # `show` finds it


def test_a_limit_on_time_ends_a_search_and_does_not_break_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that the clock ended were taken for an endpoint that fails."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    with Loopback(lambda body, index: WORLD.brain(body, f"{body['messages']} {index}"), latency=0.1) as server:
        models = (Endpoint(f"openai:{n}", server.url, 4, base=0.001) for n in ("task", "writer"))
        with next(models) as task, next(models) as writer:
            run = learn(tmp_path, model=task, writer=writer, budget="1s")
    events = Means().store_at(tmp_path).events()
    assert any("time is over" in e["payload"].get("stopped", "") for e in events)
    assert run.cost["seconds"] < 1.5


def test_fewer_test_and_validation_examples_are_drawn_at_random(tmp_path: Path) -> None:
    """The first ones of a file that is sorted by class are all of one class: a model that says always a was perfect."""
    texts = [f"text {i}" for i in range(300)]
    labels = ["a"] * 150 + ["b"] * 150
    task = Task.from_lists([f"train {i}" for i in range(60)], ["a", "b"] * 30, test=(texts, labels),
                           valid=([f"valid {t}" for t in texts], labels))  # fmt: skip
    stubborn = Direct(WORLD, answer=lambda call: "a")
    for name, budget, options in (("few", "400calls", {}), ("wanted", "4000calls", {"test": 50})):
        run = learn(tmp_path / name, task=task, model=stubborn, budget=budget, options=options)
        assert run.score is not None and run.valid is not None and run.score.n < 100
        assert 0.3 < run.score.value < 0.7 and 0.3 < run.valid < 0.7


def test_an_unlabelled_test_example_is_left_out(tmp_path: Path) -> None:
    """The report failed on it, when everything was paid."""
    test = (replace(WORLD.task.test[0], gold=None), *WORLD.task.test[1:])
    run = learn(tmp_path, task=replace(WORLD.task, test=test))
    assert run.score is not None and run.score.n == len(test) - 1


def test_models_of_one_name_do_not_share_answers(tmp_path: Path) -> None:
    """The key of a question named its model only, not where it is: another one's answers were scored."""

    def scored(name: str, answer: str) -> str:
        model = Direct(WORLD, "openai:same", answer=lambda call: answer)
        model.fingerprint = name * 24
        return str(learn(tmp_path / name, model=model, store=str(tmp_path / "all.sqlite")).score)

    assert scored("a", "red") != scored("b", "none of them")


def test_what_the_budget_refused_is_no_bad_reply(tmp_path: Path) -> None:
    """A writer without budget was said to write nonsense, and the run broke."""
    run = learn(tmp_path, "ape", budget="300calls,writer:0calls")
    assert run.cost["roles"]["writer"]["calls"] == 0 and run.score is not None


def test_a_resumed_run_remembers_whether_a_writer_was_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted live only: after a resume, the first replies could look hopeless that were not."""
    counts: list[dict[str, tuple[int, int]]] = []
    read = perform.Performer._read_ask

    def watched(self: Any, request: Any, payload: Any) -> Any:
        found = read(self, request, payload)
        counts.append(dict(self.heard))
        return found

    monkeypatch.setattr(perform.Performer, "_read_ask", watched)
    learn(tmp_path)
    live, counts[:] = list(counts), []
    for name in ("result.json",):
        os.remove(tmp_path / name)
    learn(tmp_path)
    assert live == counts and live[-1]["writer"][0] > 0
    with pytest.raises(ServiceError, match="none of the first"):
        learn(tmp_path / "other", writer=Direct(WORLD, "openai:writer", answer=lambda call: "nothing of use"))


def test_a_tag_that_is_named_before_it_is_used_is_not_part_of_a_proposal() -> None:
    said = "I will put it inside <prompt> tags.\n<prompt>Answer in one word.</prompt>"
    assert parse("tag:prompt", said) == "Answer in one word."
    assert parse("tags:prompt", said + " <prompt>Two\nlines</prompt>") == "Answer in one word.\x1eTwo\nlines"


def test_labels_that_differ_by_case_are_told_apart() -> None:
    frame = Frame(labels=("US", "us"), words=("US", "us"), readout="answer")
    assert [understood(frame, Reply(t))[0] for t in ("US", " us\n")] == [0, 1]


def test_an_endpoint_by_name_is_the_same_when_opened_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    models = [open_model("openai:x", base_url=f"http://{h}/v1") for h in ("127.0.0.1:1", "127.0.0.1:2", "localhost")]
    a, b, c = (m.fingerprint for m in models)
    assert a == b != c


def test_a_budget_that_does_not_reach_the_test_examples_is_said(tmp_path: Path) -> None:
    """A winner far longer than the start left no score, and no word about it."""
    world = World(3, examples=100)
    long = "<prompt>" + " ".join([BASE, *GOOD]) + " blah" * 600
    writer = Direct(world, "openai:writer", answer=lambda call: f"{long} {call.key('')[:9]}</prompt>")
    options = {"examples": 6, "longest": 5000}
    run = learn(tmp_path, task=world.task, model=Direct(world), writer=writer, budget="80ktokens", options=options)
    assert run.cost["input"] + run.cost["output"] <= 80_000
    assert run.score is None or run.score.n < len(world.task.test)
    wanted = "did not suffice" if run.score is None else "have no answer and are left out"
    assert any(wanted in n for n in run.prompt.card["notes"])


def on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The world as a file, and a key, for the command line."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    rows = "\n".join(f'"{text}",{WORLD.gold[text]}' for text in WORLD.gold)
    (folder / "data.csv").write_text(f"text,label\n{rows}\n")
    return str(folder / "data.csv")


def test_a_found_prompt_answers_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `fit` says to type next ended in a KeyError, and could not be told where the API is."""
    from anacrusis.cli import app

    data = on_disk(tmp_path, monkeypatch)
    said = {"case 3-1": "Blue.", "case 3-2": "no idea"}
    with Loopback(lambda body, _: next((a for q, a in said.items() if q in str(body["messages"])), "?")) as server:
        with Endpoint("openai:task", server.url) as task:
            learn(tmp_path / "run", model=task, budget="60calls")
        where, folder = ["--base-url", server.url, "--quiet"], str(tmp_path / "run" / "prompt")
        assert app(["predict", folder, "case 3-1", "case 3-2", *where], standalone_mode=False) == 0
        assert capsys.readouterr().out == "blue\n\n"
        data = [data, "--text", "text", "--label", "label"]
        assert app(["evaluate", folder, *data, *where], standalone_mode=False) == 0


def test_an_api_is_not_asked_without_a_budget_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from anacrusis.cli import app

    data = on_disk(tmp_path, monkeypatch)
    command = ["fit", data, "--method", "opro", "--quiet", "--model", "openai:task"]
    assert app(command, standalone_mode=False) == 2
    assert "opro asks openai:task again and again" in capsys.readouterr().err


def test_the_tree_shows_the_best_under_their_nearest_shown_ancestor() -> None:
    from anacrusis.report.search import History
    from anacrusis.search.candidate import Candidate
    from anacrusis.search.ledger import Observation, Scored

    chain, parent = [], None
    for i, value in enumerate((0.1, 0.2, 0.3, 0.9, 0.8)):
        c = Candidate({"instruction": f"c{i}"}, parents=(parent,) if parent else (), op=f"op{i}")
        chain.append(Scored(c, {"e": Observation(c.id, "e", value)}))
        parent = c.id
    history = History(None, tuple(chain), (), {}, 0.0, False, "", "")
    ((start, below),) = history.tree(2)
    assert start.startswith("0.100 on 1  op0") and len(below) == 1
    ((best, last),) = below
    assert best.startswith("0.900 on 1  op3") and best.endswith("(2 steps between)")
    assert [text.split()[0] for text, _ in last] == ["0.800"] and "steps" not in last[0][0]


def test_rounds_tell_how_long_the_rest_may_take(capsys: pytest.CaptureFixture[str]) -> None:
    from anacrusis.console import Progress
    from anacrusis.prompt.values import Frame
    from anacrusis.runs.searching import Shows
    from anacrusis.search.budget import Budget
    from anacrusis.search.search import Search, Searching

    task = World(0, examples=20).task
    s = Search(task, Frame(labels=task.labels, words=task.words, instruction="x"), ["instruction"], Searching(), 0)
    shows = Shows(s, Budget((), {}, ("task",)), lambda event: None)
    rounds = s.rounds(10)
    next(rounds), next(rounds)
    assert shows.seconds_left(100.0) is None  # live since round 1, as after a resume
    next(rounds), next(rounds)
    assert shows.seconds_left(104.0) == pytest.approx(4.0 / 2 * 7)
    show = Progress()
    show._line_at = -1e9
    show(
        {"event": "search", "calls": 5, "dollars": 0.0, "left": [], "candidates": 2, "best": 0.5, "seconds_left": 14.0}
    )
    assert capsys.readouterr().err == "searching: 2 candidates  best 0.500  5 calls  14 s left at most\n"


def test_a_run_whose_store_is_out_of_reach_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json knows the store without its password: listing the runs ended in an error about that one."""
    from anacrusis._inputs import run_folder
    from anacrusis.errors import RunError
    from anacrusis.runs.run import listing

    monkeypatch.setenv("ANACRUSIS_RUNS", str(tmp_path))
    learn(tmp_path / "good")
    (tmp_path / "far").mkdir()
    plan = json.loads((tmp_path / "good" / "run.json").read_text())
    plan["means"]["store"] = "postgresql://ana:***@db.example/x"
    (tmp_path / "far" / "run.json").write_text(json.dumps(plan))
    status = {r["name"]: r["status"] for r in listing()}
    assert status == {"good": "done", "far": "unfinished, its store cannot be reached"}
    with pytest.raises(RunError, match="Did you mean 'good'"):
        run_folder("goood")


def test_a_prompt_is_evaluated_with_the_tokens_that_it_was_scored_with(tmp_path: Path) -> None:
    import anacrusis as ana

    asked: list[int] = []

    def answer(call: Any) -> str:
        asked.append(call.tokens)
        return WORLD.answer(call.messages[0][1])

    model = Direct(WORLD, "openai:task", answer=answer)
    run = learn(tmp_path, model=model, options={"answer_tokens": 7})
    asked.clear()
    score = ana.evaluate(run.prompt, model, WORLD.task)  # type: ignore[arg-type]
    assert set(asked) == {7} and run.score is not None and score.value == run.score.value
