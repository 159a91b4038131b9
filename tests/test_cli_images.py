"""The command line for pictures, on folders that it draws itself, with builtin:tiny-clip."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import anacrusis as ana
from anacrusis import console
from tests.test_cli import QUICK, TEAMS, Result, call

KEPT = ("blue moon", "blue star", "red circle", "red square", "red star", "yellow circle")  # by name; 3 are base
FEW = ("--shots", "4", "--set", "epochs=2")
GUIDE = Path(__file__).parents[1] / "docs" / "images.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/: 6 classes of 12 pictures; coop/, base/, ada/: prompts; tickets.csv and always/: texts, and their prompt.

    Everything is made by the command line, once, and looked at by absolute paths.
    """
    root = tmp_path_factory.mktemp("world")
    photos = root / "photos"
    assert call("draw", photos, "--per-class", "12", "--style", "night", "--seed", "5").code == 0
    for folder in photos.iterdir():
        if folder.name not in KEPT:
            shutil.rmtree(folder)
    rows = [f"w{10 * c + i % 7} w{50 + i},{TEAMS[c]}" for i in range(12) for c in range(3)]
    (root / "tickets.csv").write_text("message,team\n" + "\n".join(rows) + "\n")
    files = [(p, p.parent.name) for p in sorted(photos.glob("*/*.png"))]
    (root / "photos.csv").write_text("file,species\n" + "".join(f"{p},{name}\n" for p, name in files))
    ada = ("--method", "tpt", "--set", "views=8", "--set", "lr=0.02")
    for name, arguments in {
        "coop": ("fit", photos, "--method", "coop", *FEW), "whole": ("fit", photos, "--set", "epochs=1"),
        "base": ("fit", photos, "--method", "maple", "--classes", "base", *FEW),
        "ada": ("adapt", photos, *ada, "--most", "3"), "zero": ("fit", photos, "--method", "zero-shot"),
        "half": ("fit", photos, "--method", "coop", "--classes", "base", "--set", "epochs=1"),
        "always": ("fit", root / "tickets.csv", "--text", "message", "--label", "team", "--method", "majority"),
    }.items():  # fmt: skip
        run = ("--run", root / "runs" / name) if arguments[0] == "fit" else ()
        done = call(*arguments, *run, "--out", root / name)
        assert done.code == 0, done.err
    return root


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models that are asked for; none is opened."""
    names: list[str] = []

    def refuse(name: str, **_: Any) -> Any:
        names.append(name)
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr("anacrusis.model.open.open", refuse)
    return names


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


# --- the guide


def test_every_command_of_the_guide() -> None:
    """docs/images.md, line by line: fewer pictures and shorter learning, else as it stands there."""
    if not GUIDE.exists():
        pytest.skip("no docs here")
    (block,) = re.findall(r"## In five minutes, offline.*?```\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    said: dict[str, list[Result]] = {}
    for line in block.splitlines():
        line = line.replace("coop,vpt --seeds 3 --shots 1,4,16", "linear-probe --seeds 2 --shots 1,2")
        words = shlex.split(line.replace("--per-class 40", "--per-class 12").replace("--shots 16", "--shots 4"))
        given = [f for w in words[1:] for f in (sorted(glob.glob(w)) if "*" in w else [w])]
        shorter = {"fit": ["--set", "epochs=2"], "adapt": ["--set", "views=8", "--most", "12"]}.get(given[0], [])
        done = call(*given, *shorter)
        assert words[0] == "anacrusis" and done.code == 0, f"{line}: {done.err}"
        assert done.out and not re.search("^(opening|learning|scoring|looking|adapting)", done.out, re.M)
        assert "Traceback" not in done.err and "error" not in done.err
        said.setdefault(given[0], []).append(done)
    assert sorted(said) == ["adapt", "compare", "draw", "evaluate", "fit", "look", "predict"]
    assert "192 pictures of 16 classes in photos: blue circle, " in said["draw"][0].out
    one, two = said["fit"]
    assert "coop on builtin:tiny-clip" in one.out and "trained parameters" in one.out and "learning" in one.err
    assert "Next:  anacrusis predict prompt picture.jpg" in one.out and "maple on" in two.out
    answers = said["predict"][0].out.splitlines()
    names = sorted(p.name for p in Path("photos").iterdir())
    assert len(answers) == len(names) == 16 and sum(map(str.__eq__, answers, names)) >= 4  # chance: 1
    assert "scoring 192 examples" in said["evaluate"][0].err and "The hardest mistakes: mistakes.png" in (
        said["evaluate"][0].out
    )
    for word in ("base classes", "new classes", "harmonic mean"):
        assert word in said["evaluate"][1].out
    for word in ("without adapting", "calibration error", "difference", "Drawn: stream.png"):
        assert word in said["adapt"][0].out
    assert "adapting to 12 pictures" in said["adapt"][0].err and "Drawn: where.png" in said["look"][0].out
    for file in ("mistakes.png", "where.png", "stream.png"):
        assert pixels(file).std() > 1


# --- one command after the other


def test_draw() -> None:
    given = ("--classes", "count", "--per-class", "3", "--size", "32")
    record = call("draw", "some", *given, "--json").json
    assert record == {"folder": "some", "pictures": 12, "classes": ["four", "one", "three", "two"]}
    files = sorted(Path("some").glob("*/*.png"))
    assert len(files) == 12 and all(pixels(f).shape == (32, 32, 3) for f in files)
    assert call("draw", "again", *given, "--quiet").err == ""
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in sorted(Path("again").glob("*/*.png"))]
    assert call("draw", "other", *given, "--seed", "1").code == 0
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(files, sorted(Path("other").glob("*/*.png")),
                                                                strict=True))  # fmt: skip
    refused = call("draw", "some", *given)
    assert refused.code == 2 and "holds other files" in refused.err


def test_fit_json_and_quiet(world: Path) -> None:
    done = call("fit", world / "photos", *FEW, "--json", "--quiet", "--out", "prompt")
    assert done.code == 0 and done.err == ""
    assert (done.json["method"], done.json["model"], done.json["task"]) == ("coop", "builtin:tiny-clip", "photos")
    assert done.json["score"]["n"] == 14 and done.json["notes"] == [] and Path("prompt/prompt.json").exists()
    assert ana.load("prompt").same(ana.load(world / "coop"))  # the same seed, and coop is the default


def test_predict_and_evaluate_agree(world: Path) -> None:
    files = sorted((world / "photos").glob("*/*.png"))
    records = call("predict", world / "coop", *files, "--json").json
    assert [r["input"] for r in records] == [str(f) for f in files]
    for r in records:
        assert r["answer"] == max(r["scores"], key=r["scores"].__getitem__) and set(r["scores"]) == set(KEPT)
        assert sum(r["scores"].values()) == pytest.approx(1, abs=1e-4)
    right = [r["answer"] == f.parent.name for r, f in zip(records, files, strict=True)]
    found = call("evaluate", world / "coop", world / "photos", "--json")
    assert found.json["n"] == 72 and found.json["value"] == pytest.approx(np.mean(right))
    assert 0.3 < found.json["value"] < 1 and found.err.splitlines()[-1] == "scoring 72 examples"
    by_file = call("evaluate", world / "coop", world / "photos.csv", "--image", "file", "--label", "species", "--json")
    assert by_file.json["value"] == found.json["value"] and by_file.json["n"] == 72
    piped = call("predict", world / "coop", "--batch", "5", stdin="\n".join(map(str, files)))
    assert piped.out.splitlines() == [r["answer"] for r in records]
    shown = call("evaluate", world / "coop", world / "photos")
    assert f"accuracy  {found.json['value']:.3f}" in shown.out and "72 examples" in shown.out


def test_a_sheet_of_mistakes(world: Path) -> None:
    done = call("evaluate", world / "coop", world / "photos", "--sheet", "m.png", "--json")
    assert done.code == 0 and 0 < done.json["value"] < 1
    assert pixels("m.png").shape[1] > 300
    worse = call("evaluate", world / "coop", world / "photos", "--corruption", "gaussian-noise", "--severity", "5",
                 "--sheet", "w.png", "--json")  # fmt: skip
    assert worse.json["value"] < done.json["value"] and not np.array_equal(pixels("w.png"), pixels("m.png"))


def test_look(world: Path) -> None:
    picture = world / "photos" / "red star" / "01.png"
    assert call("look", world / "coop", picture).out == "Drawn: look.png\n"
    done = call("look", world / "base", picture, "--attention", "--out", "at.png", "--json")
    assert done.json == {"prompt": str(world / "base"), "picture": str(picture), "drawn": "at.png"}
    assert "opening builtin:tiny-clip" in done.err and pixels("at.png").std() > 1
    assert not np.array_equal(pixels("look.png"), pixels("at.png"))
    refused = call("look", world / "coop", picture, "--attention")
    assert refused.code == 2 and "no rows in the image tower" in refused.err
    assert "another one for each picture" in call("look", world / "ada", picture).err


def test_halves_of_the_classes(world: Path) -> None:
    assert ana.load(world / "base").frame.labels == KEPT[:3]
    done = call("evaluate", world / "base", world / "photos", "--protocol", "base-to-new", "--json")
    assert done.code == 0, done.err
    assert done.json["base"]["n"] == done.json["new"]["n"] == 36
    a, b = (call("evaluate", world / "base", world / "photos", "--classes", half, "--json").json
            for half in ("base", "new"))  # fmt: skip
    assert (done.json["base"]["value"], done.json["new"]["value"]) == (a["value"], b["value"])
    assert done.json["harmonic"]["value"] == pytest.approx(2 / (1 / a["value"] + 1 / b["value"]))
    assert any("new to the prompt, such as 'red square'" in note for note in b["notes"])
    part = call("evaluate", world / "base", world / "photos", "--protocol", "base-to-new", "--split", "test", "--json")
    assert part.json["base"]["n"] + part.json["new"]["n"] == 14
    other = call("evaluate", world / "coop", world / "photos", "--protocol", "base-to-new")
    assert other.code == 2 and "Learn it with --classes base" in other.err
    assert "leave --classes out" in call("evaluate", world / "base", world / "photos", "--protocol", "base-to-new",
                                         "--classes", "new").err  # fmt: skip


FLATTERS = "was learned from a part of these examples"


@pytest.mark.parametrize(
    ("prompt", "more"),
    [
        ("whole", ()),
        ("half", ("--classes", "base")),
        ("half", ("--protocol", "base-to-new")),
    ],
)
def test_scores_that_flatter_say_so(prompt: str, more: tuple[str, ...], world: Path) -> None:
    """Learned without --shots: the parts are drawn again in the same way."""
    assert FLATTERS in call("evaluate", world / prompt, world / "photos", *more).err
    assert FLATTERS not in call("evaluate", world / prompt, world / "photos", *more, "--split", "test").err


def test_adapt(world: Path) -> None:
    given = ("--corruption", "fog", "--severity", "4", "--method", "dynaprompt", "--set", "views=8")
    done = call("adapt", world / "photos", *given, "--plot", "s.png", "--out", "prompt", "--json")
    assert done.code == 0, done.err
    assert done.err.splitlines() == ["opening builtin:tiny-clip", "adapting to 14 pictures"]
    found = done.json
    assert found["method"] == "dynaprompt" and found["over_time"][-1][0] == found["after"]["n"] == 14
    assert found["difference"]["value"] == pytest.approx(found["after"]["value"] - found["before"]["value"])
    assert pixels("s.png").std() > 1
    shown = call("adapt", world / "photos", *given, "--quiet")
    assert shown.err == "" and f"{found['after']['value']:.2f} [" in shown.out
    assert f"{found['difference']['value']:+.3f} [" in shown.out and "dynaprompt on builtin:tiny-clip" in shown.out
    # without adapting, it is zero-shot on the same pictures, made worse in the same way
    zero = call("evaluate", world / "zero", world / "photos", "--split", "test", *given[:4], "--json")
    assert zero.json["value"] == found["before"]["value"] and zero.json["n"] == 14
    few = call("adapt", world / "photos", *given, "--most", "5", "--json").json
    assert few["after"]["n"] == 5
    by_file = call("adapt", world / "photos.csv", "--image", "file", "--label", "species", *given, "--json").json
    assert by_file["before"]["value"] == found["before"]["value"] and by_file["after"]["n"] == 14


def test_a_prompt_that_adapts_is_used_like_others(world: Path) -> None:
    pictures = [world / "photos" / name / "03.png" for name in KEPT]
    told = call("predict", world / "ada", *pictures)
    assert told.code == 0 and len(told.out.splitlines()) == 6 and set(told.out.splitlines()) <= set(KEPT)
    records = call("predict", world / "ada", *pictures, "--json").json
    assert [r["answer"] for r in records] == told.out.splitlines()
    bare = call("predict", world / "zero", *pictures, "--json").json
    assert [r["scores"] for r in records] != [r["scores"] for r in bare]
    # tpt begins anew with each picture: a stream of all test pictures scores as the saved prompt does
    given = ("--set", "views=8", "--set", "lr=0.02", "--json")
    stream = call("adapt", world / "photos", "--method", "tpt", *given)
    again = call("evaluate", world / "ada", world / "photos", "--split", "test", "--json")
    assert stream.json["after"]["value"] == again.json["value"]


# --- what is told when it cannot be done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("fit {photos} --method cop", "Did you mean 'coop'"),
        ("fit {photos} --method maple --set lenght=3", "Did you mean 'length'"),
        ("fit {photos} --classes bsae", "expected one of base, new, all"),
        ("fit {photos} --text file", "--text names a column, and {photos} is a folder"),
        ("fit {photos} --shots 40", "shots=40 takes 40 for train"),
        ("adapt {photos} --method coop", "anacrusis fit DATA --method coop"),
        ("adapt {photos} --method dynapromt", "Did you mean 'dynaprompt'"),
        ("adapt {photos} --corruption fgo", "Did you mean 'fog'"),
        ("adapt {photos} --severity 4", "Name it with --corruption"),
        ("adapt {photos} --corruption fog --severity 9", "from 1 (weak) to 5 (strong)"),
        ("evaluate {coop} {photos} --corruption moton-blur", "Did you mean 'motion-blur'"),
        ("evaluate {coop} {photos} --severity 2", "Name it with --corruption"),
        ("evaluate {base} {photos} --protocol base-to-nwe", "Did you mean 'base-to-new'"),
        ("evaluate {base} {photos}", "the prompt does not answer 'red s"),
        ("evaluate {coop} {tickets} --text message --label team", "this prompt reads pictures; name their column"),
        ("evaluate {coop} {tickets} --label team", "no column 'image'"),
        ("evaluate {always} {photos}", "the prompt reads message, and {photos} holds pictures"),
        ("predict {coop} hello", "no such picture: hello"),
        ("predict {coop} {photos}", "is a folder: give the pictures in it"),
        ("look {coop} {photos}/red/01.png", "Its folder does not exist"),
        ("look {coop} '{photos}/red star/01.pgn'", "Did you mean '01.png'"),
        ("look {coop} {tickets}", "not a picture in a format that Pillow reads"),
        ("draw there --classes piars", "Did you mean 'pairs'"),
        ("draw there --style nite", "Did you mean 'night'"),
        ("draw there --size 4", "expected at least 1 picture of 8 to 1024 pixels"),
    ],
)
def test_misuse_is_told_before_a_model_is_opened(arguments: str, said: str, world: Path, unopened: list[str]) -> None:
    names = {name: world / name for name in ("photos", "coop", "base", "always")} | {"tickets": world / "tickets.csv"}
    given = shlex.split(arguments.format(**names))
    found = call(*given)
    assert unopened == [] and (found.code, found.out) == (2, ""), found.err
    assert said.format(**names) in found.err and "Traceback" not in found.err
    as_json = call(*given, "--json")
    assert as_json.code == 2 and said.format(**names) in as_json.json["error"]
    assert not Path("there").exists()


@pytest.mark.parametrize(
    "command",
    [
        "adapt {photos} --plot x.jpg --out there",
        "evaluate {coop} {photos} --sheet x.jpg",
        "look {coop} '{photos}/red star/01.png' --out x.jpg",
    ],
)
def test_a_file_that_cannot_be_drawn_is_told_before_the_work(command: str, world: Path, unopened: list[str]) -> None:
    found = call(*shlex.split(command.format(photos=world / "photos", coop=world / "coop")))
    assert found.code == 2 and "end its name with .png" in found.err and unopened == []


def test_texts_cannot_be_adapted_to(world: Path) -> None:
    found = call("adapt", world / "tickets.csv", "--label", "team")
    assert found.code == 2 and "texts" in found.err and "no such picture" not in found.err
    assert "adapting to" not in found.err


def test_a_missing_column_of_pictures_is_asked_for_by_its_option(world: Path) -> None:
    """--text, which is what else would be named, is refused for such a prompt."""
    found = call("evaluate", world / "coop", world / "photos.csv", "--label", "species")
    assert found.code == 2 and "no column 'image'" in found.err and "--image COL" in found.err


def test_models_and_data_that_do_not_go_together(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anacrusis.testing import tiny

    found = call("fit", world / "photos", "--method", "prompt-tuning")
    assert found.code == 2 and "builtin:tiny-clip is dual. Methods that fit" in found.err
    monkeypatch.setattr("anacrusis.model.open.open", lambda name, **_: tiny("minilm"))
    for method in ((), ("--method", "coop"), ("--method", "prompt-tuning")):
        found = call("fit", world / "photos", "--model", "builtin:minilm", *method)
        assert found.code == 2 and "are pictures, and" in found.err and "builtin:tiny-clip" in found.err
    assert call("adapt", world / "photos", "--model", "builtin:minilm").code == 2
    done = call("fit", world / "tickets.csv", "--text", "message", "--label", "team", *QUICK, "--out", "texts")
    assert done.code == 0, done.err
    for command in (("evaluate", "texts", world / "photos"), ("look", "texts", world / "photos/red star/01.png")):
        found = call(*command)
        assert found.code == 2 and "pictures" in found.err and "Traceback" not in found.err


@pytest.fixture
def damaged(world: Path) -> Path:
    """The same photos, of which one is cut off in its middle."""
    photos = Path("damaged")
    shutil.copytree(world / "photos", photos)
    whole = (photos / "red star" / "05.png").read_bytes()
    (photos / "red star" / "05.png").write_bytes(whole[: len(whole) // 2])
    return photos


def test_a_broken_picture_is_named(damaged: Path, world: Path, unopened: list[str]) -> None:
    broken = damaged / "red star" / "05.png"
    for command in (("fit", damaged), ("adapt", damaged), ("evaluate", world / "coop", damaged)):
        found = call(*command)
        assert found.code == 2 and str(broken) in found.err and "--skip-bad" in found.err
    for command in (("predict", world / "coop", broken), ("look", world / "coop", broken)):
        found = call(*command)
        assert found.code == 2 and str(broken) in found.err and "Traceback" not in found.err
    assert unopened == []


def test_a_broken_picture_is_left_out(damaged: Path, world: Path) -> None:
    done = call("fit", damaged, *FEW, "--skip-bad", "--json")
    assert done.code == 0, done.err
    assert any("1 picture left out" in note and "05.png" in note for note in done.json["notes"])
    assert "1 picture left out" in done.err
    found = call("evaluate", world / "coop", damaged, "--skip-bad", "--json")
    assert found.json["n"] == 71 and "05.png" in found.json["notes"][0]
    adapted = call("adapt", damaged, "--skip-bad", "--set", "views=4", "--json")
    assert adapted.code == 0 and adapted.json["after"]["n"] == 14


def test_notes_of_the_data_are_shown_by_every_command(damaged: Path, world: Path) -> None:
    """What was left out is known, whichever command has left it out."""
    assert "1 picture left out" in call("evaluate", world / "coop", damaged, "--skip-bad").err
    assert "1 picture left out" in call("adapt", damaged, "--skip-bad", "--set", "views=4", "--most", "2").err


# --- stopped


@pytest.mark.parametrize("method", ["coop", "maple"])
def test_stopped_and_resumed_gives_the_same_prompt(method: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (world / "photos", "--method", method, "--shots", "4", "--set", "epochs=4", "--set", "batch=8",
             "--set", "save_seconds=0", "--json")  # fmt: skip
    whole = call("fit", *given, "--out", "whole")
    assert whole.code == 0, whole.err
    seen: list[int] = []
    observe: Callable[..., None] = console.Progress.__call__

    def stop(self: console.Progress, event: dict[str, Any]) -> None:
        observe(self, event)
        if event["event"] == "step":
            seen.append(event["step"])
            if len(seen) == 7:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(console.Progress, "__call__", stop)
        stopped = call("fit", *given, "--run", "cut", "--out", "there")
        assert stopped.code == 130 and stopped.json == {"error": "stopped; continue with: anacrusis resume cut"}
        assert "Traceback" not in stopped.err and not Path("there").exists()
        done = call("resume", "cut", "--out", "resumed", "--json")
    assert done.code == 0, done.err
    assert seen[:7] == list(range(1, 8)) and min(seen[7:]) > 1  # it did not begin anew
    assert ana.load("resumed").same(ana.load("whole")) and not ana.load("resumed").same(ana.load(world / "coop"))
    assert done.json["score"]["value"] == whole.json["score"]["value"]
    assert json.loads(Path("cut/result.json").read_text())
    again = call("fit", *given, "--run", "cut")
    assert again.code == 0 and "has ended before" in again.err


def test_a_comparison_of_pictures_over_shots(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert call("draw", folder, "--classes", "colour", "--per-class", "8", "--seed", "3").code == 0
    done = call(
        "compare", folder, "--methods", "linear-probe", "--shots", "1,2", "--seeds", "2", "--out", "c", "--json"
    )
    assert done.code == 0, done.err
    rows = {(r["method"], r["shots"]): r for r in done.json["rows"]}
    assert rows["linear-probe", 1]["seeds"] == 2 and rows["zero-shot", 2]["seeds"] == 1
    page = Path("c/report.html").read_text(encoding="utf-8")
    best = [r for r in done.json["rows"] if r["standing"] == "best"][-1]
    assert ("data:image/" in page) == (best["score"]["value"] < 1)  # its mistakes are shown
    drawn = call("report", "c", "--plots", "plots", "--json")
    assert drawn.code == 0 and any(Path(p).name == "shots.png" for p in drawn.json["plots"]), drawn.err
