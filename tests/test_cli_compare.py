"""compare, report, assess, interpret, choose as a newcomer meets them. Models are tiny and random."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .test_cli import QUICK, Result, _here, call, csv, learned, opened  # noqa: F401

TABLE = ("--text", "message", "--label", "team")


def compare(csv: Path, *more: str | Path) -> Result:  # noqa: F811
    return call("compare", csv, *TABLE, "--quiet", *more)


# --- compare


@pytest.mark.usefixtures("opened")
def test_compare_gives_a_board_a_page_and_goes_on(csv: Path) -> None:  # noqa: F811
    given = ("--methods", "prompt-tuning", "--set", "epochs=1", "--set", "prompt-tuning:length=2", "--out", "c")
    found = compare(csv, *given, "--seeds", "2")
    assert found.code == 0, found.err
    for word in ("prompt-tuning", "majority", "linear-probe", "best", "Holm", "anacrusis predict c/cells/"):
        assert word in found.out
    assert {f.name for f in Path("c").iterdir()} >= {
        "compare.json", "cells", "leaderboard.json", "leaderboard.csv", "leaderboard.md", "report.html",
    }  # fmt: skip
    assert "length" in (Path("c/cells/prompt-tuning-all-0/run.json")).read_text()

    more = call("compare", csv, *TABLE, *given, "--seeds", "3", "--json")
    assert more.code == 0 and "7 of 10 runs have ended before" in more.err
    rows = {r["method"]: r for r in more.json["rows"]}
    assert rows["prompt-tuning"]["seeds"] == 3 and rows["zero-shot"]["seeds"] == 1
    assert rows["prompt-tuning"]["score"]["low"] <= rows["prompt-tuning"]["score"]["value"]
    cell = json.loads(Path("c/cells/prompt-tuning-all-1/result.json").read_text())
    assert cell["score"]["value"] in rows["prompt-tuning"]["by_seed"]

    # what resume and report see is the same comparison
    for again in (call("resume", "c", "--quiet"), call("report", "c", "--quiet")):
        assert again.code == 0 and "highest accuracy" in again.out, again.err


@pytest.mark.usefixtures("opened")
def test_auto_races_and_says_who_left_why(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(
        "anacrusis.runs.race.candidates", lambda model, task: ["linear-probe", "prompt-tuning", "zero-shot"]
    )
    found = call("compare", csv, *TABLE, "--set", "prompt-tuning:epochs=3", "--out", "c", "--no-baselines", "--json")
    assert found.code == 0, found.err
    race = found.json["race"]
    assert race["winner"] == found.json["rows"][0]["method"] and len(race["entrants"]) == 3
    assert [e["out"] == "" for e in race["entrants"]] == [True, False, False]
    said = call("compare", csv, *TABLE, "--set", "prompt-tuning:epochs=3", "--out", "c", "--no-baselines")
    assert said.code == 0 and "won" in said.out and "The race took" in said.out


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--methods", "promt-tuning"), "Did you mean 'prompt-tuning'"),
        (("--methods", "coop"), "coop needs a model with"),
        (("--methods", "majority", "--shots", "few"), "expected whole numbers above 0, or all"),
        (("--methods", "majority", "--shots", "400"), "The largest that works"),
        (("--methods", "majority", "--set", "epochz=1"), "epochz"),
        (("--methods", "majority", "--seeds", "0"), "--seeds 0"),
        (("--methods", "majority", "--jobs", "0"), "jobs=0"),
        (("--methods", ","), "no methods"),
        (("--methods", "auto,majority"), "auto stands alone"),
        (("--methods", "auto", "--shots", "1,4"), "give one"),
        (("--methods", "auto", "--seeds", "0"), "--seeds 0"),
        (("--methods", "majority", "--budget", "4foo"), "unknown unit"),
        (("--methods", "majority", "--shots", "\u00b2"), "expected whole numbers"),
    ],
)
def test_compare_refuses_at_once(csv: Path, more: tuple[str, ...], said: str) -> None:  # noqa: F811
    found = compare(csv, *more, "--out", "c")
    assert found.code == 2 and said in found.err and "Traceback" not in found.err, found.err
    assert not list(Path().glob("c/cells/*"))


@pytest.mark.usefixtures("opened")
def test_compare_keeps_out_of_other_folders(csv: Path) -> None:  # noqa: F811
    Path("c").mkdir()
    (Path("c") / "notes.txt").write_text("mine")
    found = compare(csv, "--methods", "majority", "--out", "c")
    assert found.code == 2 and "holds other files" in found.err


@pytest.mark.usefixtures("opened")
def test_compare_does_not_spend_without_a_word(csv: Path) -> None:  # noqa: F811
    found = compare(csv, "--methods", "zero-shot,opro", "--writer", "openai:some", "--out", "c")
    assert found.code == 2 and "--budget" in found.err


@pytest.mark.usefixtures("opened")
def test_report_writes_what_is_asked_for(csv: Path) -> None:  # noqa: F811
    assert compare(csv, "--methods", "majority", "--seeds", "2", "--no-baselines", "--out", "c").code == 0
    found = call("report", "c", "--html", "r.html", "--plots", "p", "--tensorboard", "tb", "--json")
    assert found.code == 0, found.err
    assert Path("r.html").read_text().startswith("<!doctype html>") and found.json["tensorboard"] == 2
    assert found.json["plots"] and all(Path(p).stat().st_size > 1000 for p in found.json["plots"])
    assert call("report", "nowhere").code == 2


# --- assess, interpret, choose


def test_assess_measures_and_says_what_it_cannot(learned: Path, csv: Path) -> None:  # noqa: F811
    found = call("assess", learned, csv, *TABLE, "--cells", "200", "--html", "a.html", "--json")
    assert found.code == 0, found.err
    by = {m["name"]: m for m in found.json["measures"]}
    assert {"calibration", "formats", "noise", "leakage", "cost", "bound"} <= set(by)
    assert by["bound"]["finding"] is None and "words" in by["bound"]["skipped"]
    assert by["calibration"]["finding"]["headline"].startswith("calibration error")
    assert all(m["answers"] <= 200 for m in by.values())
    assert any("has not seen" in n for n in found.json["notes"])
    assert "calibration error" in Path("a.html").read_text().lower()


def test_assess_one_measure_with_its_table(learned: Path, csv: Path) -> None:  # noqa: F811
    found = call("assess", learned, csv, *TABLE, "--measures", "calibration", "--quiet")
    assert found.code == 0 and "sure" in found.out and "formats" not in found.out, found.err
    wrong = call("assess", learned, csv, *TABLE, "--measures", "calibratoin")
    assert wrong.code == 2 and "Did you mean 'calibration'" in wrong.err


def test_assess_compares_groups_of_a_column(learned: Path, csv: Path) -> None:  # noqa: F811
    lines = csv.read_text().splitlines()
    regions = ["region", *(("north", "south")[i % 2] for i in range(len(lines) - 1))]
    csv.write_text("\n".join(f"{line},{r}" for line, r in zip(lines, regions, strict=True)) + "\n")
    found = call("assess", learned, csv, *TABLE, "--measures", "groups", "--group", "region", "--split", "train")
    assert found.code == 0 and "north" in found.out and "south" in found.out, found.err
    wrong = call("assess", learned, csv, *TABLE, "--group", "regoin")
    assert wrong.code == 2 and "region" in wrong.err


def test_interpret_reads_words_with_and_without_examples(learned: Path, csv: Path) -> None:  # noqa: F811
    bare = call("interpret", learned)
    assert bare.code == 0 and "2 vectors" in bare.out and "how far this can be believed" in bare.out, bare.err
    found = call("interpret", learned, csv, *TABLE, "--json")
    assert found.code == 0 and found.json["faith"] and len(found.json["words"]) == 2, found.err
    refused = call("fit", csv, *TABLE, "--method", "majority", "--out", "m")
    assert refused.code == 0
    wrong = call("interpret", "m", csv, *TABLE)
    assert wrong.code == 2, wrong.out


@pytest.mark.usefixtures("opened")
def test_choose_takes_lines_and_folders(csv: Path) -> None:  # noqa: F811
    Path("t.txt").write_text("{message}\nAnswer : {message}\n\nx {message} x\n")
    found = call("choose", csv, *TABLE, "--templates", "t.txt", "--share", "0.5", "--out", "best", "--json")
    assert found.code == 0, found.err
    assert found.json["best"] in ("{message}", "Answer : {message}", "x {message} x")
    assert found.json["cells"] <= 0.5 * found.json["of"] + 3 and found.json["score"]["split"] == "test"
    again = call("choose", csv, "best", *TABLE, "--templates", "t.txt")
    assert again.code == 0 and "which chose nothing" in again.out, again.err
    Path("t.txt").write_text("no slot\n{message}\n")
    assert "lacks {message}" in call("choose", csv, *TABLE, "--templates", "t.txt").err
    assert "to choose from" in call("choose", csv, *TABLE).err
    assert "share" in call("choose", csv, *TABLE, "--share", "1.5").err


@pytest.mark.usefixtures("opened")
def test_prompts_of_a_comparison_know_what_they_were_learned_from(csv: Path) -> None:  # noqa: F811
    """A seed draws its own training examples: scores on them flatter, and assess leaves them out."""
    given = ("--methods", "majority", "--seeds", "2", "--no-baselines", "--shots", "3", "--out", "c")
    assert compare(csv, *given).code == 0
    cell = Path("c/cells/majority-3-1")
    whole = call("evaluate", cell, csv, *TABLE, "--json")
    assert any("flatters" in n for n in whole.json["notes"]), whole.err
    test = call("evaluate", cell, csv, *TABLE, "--split", "test", "--json")
    result = json.loads((cell / "result.json").read_text())
    assert test.json["n"] == result["score"]["n"] and test.json["value"] == result["score"]["value"]
    assert call("evaluate", cell, csv, *TABLE, "--split", "train", "--json").json["n"] == 9
    assessed = call("assess", cell, csv, *TABLE, "--measures", "leakage", "--json")
    assert assessed.json["examples"] == test.json["n"], assessed.err


def test_assess_knows_a_file_that_was_learned_from_as_a_whole(csv: Path, opened: list[str]) -> None:  # noqa: F811
    """With a test file of its own, all of the other file was learned from."""
    lines = csv.read_text().splitlines()
    Path("train.csv").write_text("\n".join(lines[:25]) + "\n")
    Path("new.csv").write_text("\n".join([lines[0], *lines[25:]]) + "\n")
    done = call("fit", "train.csv", *TABLE, "--test", "new.csv", "--method", "majority", "--out", "p")
    assert done.code == 0, done.err
    seen = call("assess", "p", "train.csv", *TABLE, "--measures", "leakage", "--json")
    assert any("these very examples" in n for n in seen.json["notes"]), seen.err
    other = call("assess", "p", "new.csv", *TABLE, "--measures", "leakage", "--json")
    assert any("cannot be told" in n for n in other.json["notes"])
    Path("a").mkdir()
    Path("a/train.csv").write_text(Path("train.csv").read_text())
    same = call("assess", "p", "train.csv", *TABLE, "--test", "a/train.csv", "--split", "test", "--group", "team")
    assert same.code == 2 and "same name" in same.err


@pytest.mark.usefixtures("opened")
def test_other_options_in_the_same_folder_are_refused(csv: Path) -> None:  # noqa: F811
    """What has ended was made with the old ones: it would be shown under the new."""
    given = ("--methods", "prompt-tuning", "--no-baselines", "--seeds", "1", "--out", "c")
    assert compare(csv, *given, "--set", "epochs=1").code == 0
    for more in (("--set", "epochs=2"), ("--set", "epochs=1", "--word", "billing=money")):
        found = compare(csv, *given, *more)
        assert found.code == 2 and "holds another comparison" in found.err, found.err
    more_methods = compare(csv, "--methods", "prompt-tuning,majority", "--set", "epochs=1", "--seeds", "2",
                           "--no-baselines", "--out", "c")  # fmt: skip
    assert more_methods.code == 0, more_methods.err


@pytest.mark.usefixtures("opened")
def test_a_race_goes_on_in_its_folder_and_only_as_it_was(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from anacrusis.runs import grid as grids

    monkeypatch.setattr("anacrusis.runs.race.candidates", lambda model, task: ["linear-probe", "prompt-tuning"])
    real, seen = grids.fit, []

    def stopped(method: str, *args: object, **given: object) -> object:
        if method == "prompt-tuning" and not seen:
            seen.append(method)
            raise KeyboardInterrupt
        return real(method, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(grids, "fit", stopped)
    given = ("--set", "prompt-tuning:epochs=3", "--set", "linear-probe:strength=1", "--no-baselines", "--out", "c")
    first = compare(csv, *given)
    assert first.code == 130 and "same command" in first.err, first.err
    assert compare(csv, *given).code == 0
    other = compare(csv, *given, "--seeds", "3")  # options of the winner hold for every seed
    assert other.code == 0, other.err
    plans = [json.loads(f.read_text()) for f in Path("c/cells").glob("*/run.json")]
    assert len(plans) == 3 and len({json.dumps(p["options"]) for p in plans}) == 1 and plans[0]["options"]
    changed = compare(csv, "--set", "prompt-tuning:epochs=4", "--no-baselines", "--out", "c")
    assert changed.code == 2 and "holds another comparison" in changed.err


@pytest.mark.usefixtures("opened")
def test_validation_rows_of_a_split_column_stay(csv: Path) -> None:  # noqa: F811
    lines = csv.read_text().splitlines()
    parts = ["split", *(("train", "train", "valid", "test")[i % 4] for i in range(len(lines) - 1))]
    csv.write_text("\n".join(f"{line},{p}" for line, p in zip(lines, parts, strict=True)) + "\n")
    found = compare(csv, "--methods", "majority", "--no-baselines", "--split-column", "split", "--out", "c")
    assert found.code == 0 and json.loads(Path("c/compare.json").read_text())["keep_valid"] is True, found.err


@pytest.mark.usefixtures("opened")
def test_next_is_a_prompt_of_the_best_row(csv: Path) -> None:  # noqa: F811
    found = compare(csv, "--methods", "majority", "--no-baselines", "--shots", "1,3", "--seeds", "1", "--out", "c")
    assert "predict c/cells/majority-3-0" in found.out, found.err
