"""The command line as a newcomer meets it. Models are tiny and random; the builtin one is opened once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anacrusis import __version__, console
from anacrusis._options import pairs
from anacrusis.cli import app
from anacrusis.commands.learning import DEFAULT_METHOD
from anacrusis.errors import ConfigError
from anacrusis.registry import all_methods

TEAMS = ("billing", "delivery", "returns")
QUICK = ("--method", "prompt-tuning", "--set", "epochs=1", "--set", "length=2")


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    found = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, prog_name="anacrusis")
    return Result(found.exit_code, found.stdout, found.stderr)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """36 rows whose word tells the team."""
    rows = [f"w{10 * c + i % 7} w{50 + i} w{60 + i},{TEAMS[c]}" for i in range(12) for c in range(3)]
    file = tmp_path / "tickets.csv"
    file.write_text("message,team\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Opens a tiny random encoder whatever the name; the names that were asked for."""
    from anacrusis.testing import tiny

    names: list[str] = []

    def open_tiny(name: str, **_: Any) -> Any:
        names.append(name)
        model = tiny("minilm")
        model.name = name
        return model

    monkeypatch.setattr("anacrusis.model.open.open", open_tiny)
    return names


def fit(csv: Path, *more: str | Path) -> Result:
    return call("fit", csv, "--text", "message", "--label", "team", *QUICK, *more)


@pytest.fixture
def learned(csv: Path, opened: list[str]) -> Path:
    assert fit(csv, "--out", "tickets", "--quiet").code == 0
    opened.clear()
    return Path("tickets")


@pytest.fixture
def constant(csv: Path, opened: list[str]) -> Path:
    """A prompt that answers without a model."""
    done = call("fit", csv, "--text", "message", "--label", "team", "--method", "majority", "--out", "always")
    assert done.code == 0, done.err
    opened.clear()
    return Path("always")


# --- help, usage, errors


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom anacrusis.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sklearn', 'peft', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fit" in done.stdout and "Exit codes" in done.stdout


def test_no_command_shows_the_help() -> None:
    shown = call()
    assert shown.code == 0 and "Usage" in shown.out


def test_version() -> None:
    assert call("--version").out == f"anacrusis {__version__}\n"


@pytest.mark.parametrize(
    "name", ["fit", "evaluate", "predict", "methods", "runs", "resume", "export", "import", "demo"]
)
def test_each_command_has_help(name: str) -> None:
    assert call(name, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fti", "x.csv"), "Did you mean 'fit'"),
        (("fit", "x.csv", "--txet", "a"), "Did you mean --text"),
        (("fit",), "Missing argument 'DATA'"),
        (("fit", "x.csv", "--shots", "few"), "'--shots'"),
        (("predict", "nowhere", "hello"), "no prompt in nowhere"),
        (("methods", "promt-tuning"), "Did you mean 'prompt-tuning'"),
        (("resume", "nothing"), "no run 'nothing'"),
        (("fit", "tickets.csv", "--label", "tema"), "Did you mean 'team'"),
        (("fit", "tickets.csv", "--label", "team", "--text", "mesage"), "Did you mean 'message'"),
        (("fit", "ticket.csv"), "Did you mean 'tickets.csv'"),
        (("fit", "tickets.csv", "--label", "team", "--kind", "clasification"), "Did you mean 'classification'"),
        (("fit", "tickets.csv", "--label", "team", "--metric", "acuracy"), "Did you mean 'accuracy'"),
        (("fit", "tickets.csv", "--label", "team", "--encoding", "utf8000"), "unknown encoding"),
    ],
)
def test_misuse_is_told_with_what_was_meant(arguments: tuple[str, ...], said: str, csv: Path) -> None:
    found = call(*arguments)
    assert found.code == 2 and said in found.err and "Traceback" not in found.err and found.out == ""
    as_json = call(*arguments, "--json")
    assert as_json.code == 2 and list(as_json.json) == ["error"] and said in as_json.json["error"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "promt-tuning"), "Did you mean 'prompt-tuning'"),
        (("--set", "lenght=3"), "Did you mean 'length'"),
        (("--set", "length"), "expected NAME=VALUE"),
        (("--set", "=3"), "expected NAME=VALUE"),
        (("--set", "length=many"), "length='many'"),
        (("--set", "length=1", "--set", "length=2"), "given twice"),
    ],
)
def test_method_and_options_are_checked_before_the_model_is_opened(
    more: tuple[str, ...], said: str, csv: Path, opened: list[str]
) -> None:
    found = call("fit", csv, "--text", "message", "--label", "team", "--method", "prompt-tuning", *more)
    assert found.code == 2 and said in found.err and opened == []


def test_pairs_keep_further_equals_signs() -> None:
    assert pairs(["template=a=b", " x=1"], "--set", "NAME=VALUE") == {"template": "a=b", "x": "1"}
    with pytest.raises(ConfigError, match="expected NAME=VALUE"):
        pairs(["x"], "--set", "NAME=VALUE")


def test_default_methods_are_registered() -> None:
    assert set(DEFAULT_METHOD.values()) <= set(all_methods())


def test_unexpected_error(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: Any) -> Any:
        raise ZeroDivisionError("one line\nand another")

    monkeypatch.setattr("anacrusis.model.open.open", fail)
    found = fit(csv)
    assert found.code == 1 and "Traceback" not in found.err
    assert "ZeroDivisionError: one line; run with --debug for the traceback" in found.err
    assert "Traceback" in fit(csv, "--debug").err
    assert fit(csv, "--json").json["error"].startswith("unexpected error: ZeroDivisionError")


def test_out_does_not_replace_other_files(csv: Path, opened: list[str]) -> None:
    Path("project").mkdir()
    Path("project/README.md").write_text("mine")
    found = fit(csv, "--out", "project")
    assert found.code == 2 and "holds other files" in found.err and opened == []
    assert fit(csv, "--out", csv).code == 2
    assert "--run project holds other files" in fit(csv, "--run", "project").err


def test_markup_in_data_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("a", "b"), [("[red]x[/red]", "[/] :smile:")])
    console.line("[bold]y")
    shown = capsys.readouterr().out
    assert "[red]x[/red]" in shown and "[/] :smile:" in shown and "[bold]y" in shown


# --- fit, evaluate, predict


def test_fit_says_what_came_out_and_what_to_type_next(csv: Path, opened: list[str]) -> None:
    done = fit(csv, "--out", "my tickets")
    assert done.code == 0, done.err
    assert "accuracy" in done.out and "macro-f1" in done.out and "95 % interval, 7 test examples" in done.out
    assert "Next:  anacrusis predict 'my tickets' \"text\"" in done.out
    assert "opening builtin:minilm" in done.err and "learning" in done.err
    assert Path("my tickets/prompt.json").exists()
    assert fit(csv, "--quiet").err == ""


def test_fit_json_is_one_object(csv: Path, opened: list[str]) -> None:
    record = fit(csv, "--json").json
    assert record["score"]["n"] == 7 and record["method"] == "prompt-tuning" and record["parameters"] > 0
    assert Path(record["prompt"], "prompt.json").exists()


def test_notes_on_the_data_are_shown(csv: Path, opened: list[str]) -> None:
    done = fit(csv, "--test", csv, "--json")
    assert "note:" in done.err and "flatters" in done.err and "flatters" in done.json["notes"][0]
    assert "Warning" not in done.err


def test_finished_run_is_shown_again(csv: Path, opened: list[str]) -> None:
    first, again = fit(csv, "--run", "r", "--json"), fit(csv, "--run", "r", "--json")
    assert again.json == first.json and "has ended before" in again.err
    assert call("resume", "r", "--json").json["score"] == first.json["score"]
    other = fit(csv, "--run", "r", "--seed", "1")
    assert other.code == 2 and "another run" in other.err


def test_evaluate_all_of_a_file_or_a_part(csv: Path, learned: Path) -> None:
    whole = call("evaluate", learned, csv, "--label", "team", "--json")
    assert whole.code == 0, whole.err
    assert whole.json["n"] == 36 and whole.json["split"] == "all" and "flatters" in whole.json["notes"][0]
    part = call("evaluate", learned, csv, "--label", "team", "--split", "test", "--json").json
    assert part["n"] == 7 and part["notes"] == []
    assert part["value"] == json.loads((learned / "prompt.json").read_text())["card"]["scores"][0]["value"]
    assert "36 examples" in call("evaluate", learned, csv, "--label", "team").out


def test_evaluate_on_some_of_the_classes(csv: Path, learned: Path) -> None:
    lines = csv.read_text().splitlines()
    Path("some.csv").write_text("\n".join(x for x in lines if "billing" not in x) + "\n")
    found = call("evaluate", learned, "some.csv", "--label", "team", "--json").json
    gold = [x.split(",")[1] for x in lines[1:] if "billing" not in x]
    said = call("predict", learned, stdin="".join(x.split(",")[0] + "\n" for x in lines[1:] if "billing" not in x)).out
    assert found["n"] == 24 and found["notes"] == []
    assert found["value"] == pytest.approx(sum(a == b for a, b in zip(gold, said.split(), strict=True)) / 24)


def test_evaluate_refuses_other_classes(csv: Path, learned: Path) -> None:
    Path("other.csv").write_text("message,team\nw1,billing\nw2,deliveries\n")
    found = call("evaluate", learned, "other.csv", "--label", "team")
    assert found.code == 2 and "other.csv:3" in found.err and "Did you mean 'delivery'" in found.err
    assert "--split test" in call("evaluate", learned, csv, "--label", "team", "--shots", "2").err
    assert "expected train, valid or test" in call("evaluate", learned, csv, "--split", "tset").err


def test_predict_arguments_and_lines_agree(learned: Path) -> None:
    texts = ["w1 w2", "w11 w50", "w21", "w3 w4 w5"]
    told = call("predict", learned, *texts)
    assert told.code == 0 and len(told.out.splitlines()) == 4 and set(told.out.split()) <= set(TEAMS)
    for batch in ("1", "3", "256"):
        piped = call("predict", learned, "--batch", batch, stdin="\n".join(texts))  # without a line break at the end
        assert piped.out == told.out
    assert call("predict", learned, stdin="\r\n".join(texts) + "\r\n").out == told.out


def test_predict_takes_a_run_for_its_prompt(csv: Path, opened: list[str]) -> None:
    assert fit(csv, "--run", "r").code == 0
    assert call("predict", "r", "w1").code == 0


def test_predict_json(learned: Path) -> None:
    records = call("predict", learned, "--json", stdin="w1\nw12\n").json
    assert [r["input"] for r in records] == ["w1", "w12"]
    for record in records:
        assert set(record["scores"]) == set(TEAMS) and sum(record["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert record["answer"] == max(record["scores"], key=record["scores"].__getitem__)


def test_constant_prompt_opens_no_model(csv: Path, constant: Path, opened: list[str]) -> None:
    assert call("predict", constant, "anything").out.strip() in TEAMS
    assert call("evaluate", constant, csv, "--label", "team", "--split", "test").code == 0
    assert opened == []


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "nothing to answer"),
        (b"a\n\nb\n", "line 2 of stdin is empty"),
        (b"a\nb\n  \t\n", "line 3 of stdin is empty"),
        (b"a\nb\xff\n", "line 2 of stdin is not UTF-8"),
    ],
)
def test_predict_drops_no_line(stdin: bytes, said: str, constant: Path) -> None:
    found = call("predict", constant, stdin=stdin)
    assert found.code == 2 and said in found.err and found.out == ""
    found = call("predict", constant, "--json", stdin=stdin)
    assert list(found.json) == ["error"] and said in found.json["error"]


def test_json_list_stays_json_when_a_later_line_is_bad(constant: Path) -> None:
    found = call("predict", constant, "--json", "--batch", "1", stdin="a\nb\n\n")
    assert found.code == 2 and len(found.json) == 3
    assert found.json[2] == {"error": "line 3 of stdin is empty"}


def test_predict_refuses_an_empty_text(constant: Path) -> None:
    assert "text 2 is empty" in call("predict", constant, "a", " ").err


def test_pairs_come_two_by_two_or_by_tabs(opened: list[str]) -> None:
    rows = "".join(f"w{i},w{i + 1},{('yes', 'no')[i % 2]}\n" for i in range(20))
    Path("nli.csv").write_text("premise,hypothesis,label\n" + rows)
    done = call("fit", "nli.csv", "--text", "premise", "--text", "hypothesis", *QUICK, "--out", "nli")
    assert done.code == 0, done.err
    told = call("predict", "nli", "w1", "w2", "w3", "w4")
    assert told.code == 0 and len(told.out.splitlines()) == 2
    assert call("predict", "nli", stdin="w1\tw2\nw3\tw4\n").out == told.out
    assert "3 texts given; this prompt reads 2" in call("predict", "nli", "a", "b", "c").err
    assert "line 1 of stdin has 1 texts" in call("predict", "nli", stdin="a b\n").err
    assert "empty in part" in call("predict", "nli", stdin="a\t\n").err
    assert call("evaluate", "nli", "nli.csv", "--json").json["n"] == 20
    assert "--text names 1" in call("evaluate", "nli", "nli.csv", "--text", "premise").err


def test_several_labels_are_written_as_they_are_read(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"w{i},{('a', 'b', 'a|b', '|')[i % 4]}\n" for i in range(32))
    Path("tags.csv").write_text("text,label\n" + rows)
    done = call("fit", "tags.csv", "--kind", "multilabel", *QUICK, "--out", "tags", "--json")
    assert done.code == 0, done.err
    assert done.json["score"]["metric"] == "map"
    texts = [f"w{i}" for i in range(8)]
    shown = call("predict", "tags", *texts).out.splitlines()
    records = call("predict", "tags", *texts, "--json").json
    assert shown == ["|".join(r["answer"]) or "|" for r in records]
    assert all((v > 0.5) == (k in r["answer"]) for r in records for k, v in r["scores"].items())
    assert call("evaluate", "tags", "tags.csv", "--json").json["n"] == 32


# --- methods, runs, export, import, demo


def test_methods_come_from_the_registry() -> None:
    known = set(all_methods())
    assert {r["name"] for r in call("methods", "--json").json} == known
    assert known <= set(call("methods").out.split())
    one = call("methods", "prompt-tuning", "--json").json
    assert {"name": "length", "default": 20, "meaning": "P, in tokens"} in one["options"]
    assert next(o["default"] for o in one["options of its engine"] if o["name"] == "lr") == 0.3
    shown = call("methods", "prompt-tuning").out
    assert "Lester et al. 2021" in shown and "P, in tokens" in shown and "vocab, random, text" in shown


def test_runs_begin_with_what_to_do(csv: Path, opened: list[str]) -> None:
    empty = call("runs")
    assert empty.code == 0 and "anacrusis fit DATA" in empty.out
    assert call("runs", "--json").json == []
    assert fit(csv).code == 0
    listed = call("runs", "--json").json
    assert len(listed) == 1 and listed[0]["status"] == "done" and listed[0]["name"] in call("runs").out
    assert call("resume", listed[0]["name"], "--json").json["score"] == listed[0]["score"]
    assert "Did you mean" in call("resume", listed[0]["name"][:-1]).err


def test_narrow_terminal_cuts_nothing_off(
    csv: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert fit(csv).code == 0
    name = call("runs", "--json").json[0]["name"]
    assert name in call("runs").out.splitlines()
    console.table(("name", "what"), [("a", "one two " * 12)])
    shown = capsys.readouterr().out
    assert shown.count("two") == 12 and max(map(len, shown.splitlines())) <= 60


def test_export_and_import(csv: Path, constant: Path, opened: list[str]) -> None:
    assert fit(csv, "--set", "place=front", "--out", "tickets", "--quiet").code == 0
    opened.clear()
    learned = Path("tickets")
    refused = call("export", learned, "--out", "there")
    assert refused.code == 2 and "head" in refused.err and opened == []
    done = call("export", learned, "--to", "peft", "--drop-head", "--model", "builtin:minilm", "--out", "there")
    assert done.code == 0, done.err
    assert "PeftModel" in done.out and Path("there/adapter_config.json").exists()
    assert "PEFT folder" in call("predict", "there", "w1").err
    classes = ("--word", "billing=w1", "--word", "delivery=w11", "--word", "returns=w21")
    back = call("import", "there", "--model", "builtin:minilm", "--out", "back", *classes)
    assert back.code == 0 and "anacrusis predict back" in back.out, back.err
    frame = json.loads(Path("back/prompt.json").read_text())["frame"]
    assert frame["labels"] == list(TEAMS) and frame["words"] == ["w1", "w11", "w21"]
    assert frame["readout"] == "similarity" and frame["template"] == "{text}"
    assert set(call("predict", "back", "w1", "w12").out.split()) <= set(TEAMS)
    assert "--word LABEL=WORD" in call("import", "there", "--model", "builtin:minilm", "--out", "x").err
    assert "Did you mean 'peft'" in call("export", learned, "--to", "petf", "--out", "x").err
    assert "constant" in call("export", constant, "--out", "x").err
    assert "no such folder" in call("import", "nowhere", "--model", "m", "--out", "x").err
    assert "--model" in call("import", learned, "--out", "x").err and not Path("x").exists()


def test_demo(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from anacrusis import demo

    monkeypatch.setattr(demo, "open_model", sys.modules["anacrusis.model.open"].open)
    monkeypatch.setattr(demo, "LEARNED", "prompt-tuning")
    monkeypatch.setattr(demo, "OPTIONS", {"epochs": 1, "length": 2})
    done = call("demo")
    assert done.code == 0, done.err
    for name in (*demo.BASELINES, "prompt-tuning"):
        assert name in done.out
    assert "not distinguishable from 0 on 66 test messages" in done.out or "on 66 test messages" in done.out
    assert "anacrusis predict anacrusis-demo" in done.out and all(s in done.out for s in demo.SENTENCES)
    record = call("demo", "--json", "--out", "other").json
    assert [m["method"] for m in record["methods"]] == [*demo.BASELINES, "prompt-tuning"]
    assert record["difference"]["n"] == 66 and len(record["examples"]) == 3
    assert Path("other/prompt.json").exists() and not Path("anacrusis-runs").exists()


# --- progress


def events(n: int = 3) -> Iterator[dict[str, Any]]:
    yield {"event": "fit", "method": "m", "model": "x", "task": "t"}
    yield {"event": "begin", "steps": n, "train": 10, "valid": 2, "parameters": 1234}
    for i in range(1, n + 1):
        yield {"event": "step", "step": i, "of": n, "loss": 0.5}
        yield {"event": "validate", "step": i, "of": n, "score": 0.75, "loss": 0.4, "best": True, "metric": "accuracy",
               "seconds": 1.0}  # fmt: skip
    yield {"event": "note", "text": "[red]a note[/red]"}
    yield {"event": "new", "text": "of a later version"}


def test_progress_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.Progress() as show:
        for event in events(30):
            now[0] += 1.0 if event["event"] == "step" else 0.0
            show(event)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "learning 1,234 parameters" and shown[-1] == "note: [red]a note[/red]"
    assert shown[1] == "10/30, 20 s left, loss 0.500, best accuracy 0.750" and len(shown) == 5


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    with console.Progress() as show:
        assert show._bar is not None
        for event in events():
            show(event)
            show._bar.refresh()
    shown = capsys.readouterr()
    assert "3/3" in shown.err and "note: [red]a note[/red]" in shown.err and shown.out == ""


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Progress(quiet=True) as show:
        show.phase("x")
        for event in events():
            show(event)
    assert capsys.readouterr() == ("", "")


# --- in a process of its own


def process(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    # a shell's background job passes on that Ctrl-C is ignored
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from anacrusis.cli import main; main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **{**pipes, **options})


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny random encoder as a folder."""
    from anacrusis.testing import tiny

    model = tiny("minilm")
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_ctrl_c_says_how_to_go_on(csv: Path, checkpoint: Path) -> None:
    long = ("--set", "epochs=100000", "--set", "patience=0", "--method", "prompt-tuning", "--model", checkpoint)
    running = process("fit", csv, "--text", "message", "--label", "team", *long)
    runs = Path(os.environ["ANACRUSIS_RUNS"])
    try:
        wait_for(lambda: list(runs.glob("*/checkpoint.json")) or running.poll() is not None)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, err
    name = next(runs.iterdir()).name
    assert f"stopped; continue with: anacrusis resume {name}" in err and out == "" and "Traceback" not in err
    assert "unfinished" in call("runs").out


def test_interrupted_run_goes_on(csv: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(csv, "--json", "--set", "steps=4").json
    observe = console.Progress.__call__

    def stop(self: console.Progress, event: dict[str, Any]) -> None:
        observe(self, event)
        if event["event"] == "validate" and event["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(console.Progress, "__call__", stop)
        stopped = fit(csv, "--run", "half", "--set", "steps=4", "--json")
    assert stopped.code == 130 and "continue with: anacrusis resume half" in stopped.json["error"]
    done = call("resume", "half", "--json")
    assert done.code == 0, done.err
    assert done.json["score"]["value"] == whole["score"]["value"] and done.json["parameters"] == whole["parameters"]


def test_reader_that_goes_away_is_no_error() -> None:
    running = process("--help")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(30) == 141
    running.stderr.close()


def test_builtin_model_end_to_end(tmp_path: Path) -> None:
    """What the first lines of the README promise, on the real model."""
    words = {"billing": "my card was charged twice", "delivery": "the parcel has not arrived"}
    rows = "".join(f"{said} number {i},{team}\n" for team, said in words.items() for i in range(12))
    Path("tickets.csv").write_text("message,team\n" + rows)
    done = call("fit", "tickets.csv", "--text", "message", "--label", "team", *QUICK, "--out", "tickets", "--json")
    assert done.code == 0, done.err
    assert done.json["model"] == "builtin:minilm" and done.json["score"]["value"] == 1.0
    assert call("predict", "tickets", "I was charged two times", "where is the parcel?").out == "billing\ndelivery\n"
