"""Every way in which a file can be wrong has one message that names file, line and column and says what to do."""

from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anacrusis.errors import ConfigError, DataError, MissingExtra
from anacrusis.task import readers
from anacrusis.task.readers import BadRow, Reading, open_table


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path, columns: tuple[str, ...] = ("text", "label"), **options: Any) -> list[Any]:
    return list(open_table(path, Reading(**options)).rows(columns))


def trouble(path: Path, *parts: str, columns: tuple[str, ...] = ("text", "label"), **options: Any) -> str:
    """The message of the error in reading `path`, which must contain all parts."""
    with pytest.raises(DataError) as caught:
        for _, cells in rows(path, columns, **options):
            if isinstance(cells, BadRow):
                raise cells
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


# --- what can be read


def test_csv_line_numbers_count_physical_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", 'text,label\r\n"one\ntwo\r\nthree",a\r\n\r\n\nlast,b')
    assert rows(path) == [("t.csv:2", ("one\ntwo\r\nthree", "a")), ("t.csv:7", ("last", "b"))]


def test_columns_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "id,label , text\n1,a,x\n")  # blanks around names do not matter
    assert open_table(path, Reading()).columns == ("id", "label", "text")
    assert rows(path, ("text", "id")) == [("t.csv:2", ("x", "1"))]


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    for name, content in {"a.csv": "text,label\nx,y\n", "a.jsonl": '{"text":"x","label":"y"}\n'}.items():
        path = write(tmp_path, name, content.encode("utf-8-sig"))
        assert open_table(path, Reading()).columns == ("text", "label")
    path = write(tmp_path, "a.json", '[{"text":"x","label":"y"}]'.encode("utf-8-sig"))
    assert rows(path) == [("a.json:1", ("x", "y"))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text;label\na,b;c\n"),
        ("t.csv", '"text";"label"\n"a,b";c\n'),
        ("t.tsv", "text\tlabel\na,b\tc\n"),
        ("t.csv", 'text,label\n"a,b",c\n'),
        ("t.csv", 'text,label\r"a,b",c\r'),  # line ends of old Macs
    ],
)
def test_delimiters(tmp_path: Path, name: str, content: str) -> None:
    assert [cells for _, cells in rows(write(tmp_path, name, content))] == [("a,b", "c")]


def test_a_semicolon_in_a_name_is_no_delimiter(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a;b,c\n1,2\n")
    assert open_table(path, Reading()).columns == ("a;b", "c")


def test_delimiter_and_quotes_as_told(tmp_path: Path) -> None:
    path = write(tmp_path, "t.txt", 'text|label\n"so" he said|a\n')
    assert list(open_table(path, Reading(delimiter="|", quotes=False), ".csv").rows(("text",))) == [
        ("t.txt:2", ('"so" he said',))
    ]
    with pytest.raises(ConfigError, match="expected one character"):
        open_table(path, Reading(delimiter="||"), ".csv")


def test_encoding_as_told(tmp_path: Path) -> None:
    assert rows(write(tmp_path, "t.csv", "text,label\ncafé,a\n".encode("cp1252")), encoding="cp1252")[0][1][0] == "café"
    assert rows(write(tmp_path, "t.csv", "text,label\ncafé,a\n".encode("utf-16")), encoding="utf-16")[0][1][0] == "café"
    for unknown in ("utf-99", "base64"):
        with pytest.raises(ConfigError, match=f"unknown encoding '{unknown}'"):
            rows(tmp_path / "t.csv", encoding=unknown)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1, max_size=6)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_what_csv_writes_is_read_back(tmp_path: Path, table: list[list[str]]) -> None:
    names = [f"c{i}" for i in range(len(table[0]))]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter).writerows([names, *table])
        got = rows(write(tmp_path, f"t{suffix}", out.getvalue()), tuple(names))
        assert [list(cells) for _, cells in got] == table


def test_json_lines_and_lists_know_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '{"text": "x\\ny", "label": 1}\n\n{"label": null, "text": "z"}\r\n')
    assert rows(path) == [("t.jsonl:1", ("x\ny", 1)), ("t.jsonl:3", ("z", None))]
    path = write(tmp_path, "t.jsonl", '{"text": "x",\r"label": 1}\n')  # white space as JSON has it
    assert rows(path) == [("t.jsonl:1", ("x", 1))]
    path = write(
        tmp_path, "t.json", '[\n {"text": "x",\n  "label": 1},\n {"text": "y", "label": 2}, \n{"text":"z","label":3}]\n'
    )
    assert [where for where, _ in rows(path)] == ["t.json:2", "t.json:4", "t.json:5"]
    assert [
        where for where, _ in rows(write(tmp_path, "u.json", json.dumps(json.loads(path.read_text()), indent=1)))
    ] == [
        "u.json:2",
        "u.json:6",
        "u.json:10",
    ]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"label": [["a"], ["a", "b"]], "text": ["x", "y"], "n": [1, 2]}), path)
    assert rows(path) == [("t.parquet row 0", ("x", ["a"])), ("t.parquet row 1", ("y", ["a", "b"]))]
    trouble(write(tmp_path, "bad.parquet", b"PAR1 no"), "bad.parquet", "not a readable Parquet file")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"anacrusis\[frames\]"):
        rows(write(tmp_path, "t.parquet", b""))


# --- what cannot be read


def test_missing_file(tmp_path: Path) -> None:
    write(tmp_path, "tickets.csv", "text,label\n")
    trouble(tmp_path / "tickts.csv", "no such file", "tickts.csv", "Did you mean 'tickets.csv'?")
    trouble(tmp_path / "no" / "t.csv", "no such file", "folder does not exist")
    trouble(tmp_path, "is a folder")
    trouble(write(tmp_path, "t.xlsx", "x"), "t.xlsx", "cannot tell the format", ".csv, .tsv, .jsonl")
    trouble(Path("/dev/null"), "pipe or a device")


def test_empty_file(tmp_path: Path) -> None:
    for name in ("t.csv", "t.tsv", "t.json"):
        for content in ("", "\n \n\n" if name == "t.json" else "\n\n\n"):
            trouble(write(tmp_path, name, content), name, "is empty")
    trouble(write(tmp_path, "t.jsonl", "\n"), "t.jsonl: there are no rows")
    trouble(write(tmp_path, "t.json", " [ ]"), "t.json: there are no rows")


def test_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "message,team\nx,y\n")
    with pytest.raises(DataError) as caught:
        readers.choose(open_table(path, Reading()), Reading(text="mesage", label="team"))
    assert "t.csv:1: no column 'mesage'. Did you mean 'message'? Known: message, team." in str(caught.value)
    assert "--text COL --label COL" in str(caught.value)


def test_usual_names_are_found_and_others_are_asked_for(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.csv", "id,Message,sentence,intent\n1,x,y,z\n"), Reading())
    assert readers.choose(table, Reading()) == (("sentence",), ("intent",))
    assert readers.choose(table, Reading(text="Message")) == (("Message",), ("intent",))
    table = open_table(write(tmp_path, "t.csv", "Text,text,label\n1,2,3\n"), Reading())
    assert readers.choose(table, Reading()) == (("Text",), ("label",))  # the first
    table = open_table(write(tmp_path, "u.csv", "\nbody,team\n1,x\n"), Reading())
    with pytest.raises(DataError, match=r"u.csv:2: which column holds the text\? .*Columns: body, team.* --text COL"):
        readers.choose(table, Reading())
    with pytest.raises(DataError, match="u.csv:2: which column holds the label"):
        readers.choose(table, Reading(text="body"))
    with pytest.raises(DataError, match="'body' cannot be both text and label"):
        readers.choose(table, Reading(text="body", label="body"))
    with pytest.raises(ConfigError, match="several different ones"):
        readers.choose(table, Reading(text=("body", "body"), label="team"))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.csv", "text,label,text\n1,2,3\n"), Reading())
    with pytest.raises(DataError, match="t.csv:1: 2 columns are called 'text'. Rename"):
        readers.choose(table, Reading())


def test_ragged_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", 'text,label\n"a\nb",c\nhello, world,greet\n')
    trouble(path, "t.csv:4: 3 cells, but the header names 2", "behind column 'label'", "'greet'", "quotation marks")
    path = write(tmp_path, "t.csv", "text,label\nhello\n")
    trouble(path, "t.csv:2: 1 cell, but", "has none is column 'label'", "delimiter missing")


def test_wrong_encoding_names_byte_and_line(tmp_path: Path) -> None:
    content = "text,label\nnaïve,a\n".encode() + "café,b\n".encode("cp1252")
    at = content.index(b"\xe9")
    for bom in (b"", b"\xef\xbb\xbf"):
        for name in ("t.csv", "t.json", "t.jsonl"):
            trouble(
                write(tmp_path, name, bom + content),
                f"{name}:3: byte {at + len(bom)} ",
                "(0xe9)",
                "Save it as UTF-8",
                "encoding=",
            )
    far = b"text,label\n" + b"x,y\n" * 600_000
    for cut in (1 << 20, (1 << 20) - 1):  # a character over the edge of the chunks that are looked through
        content = far[:cut] + "é".encode() + far[cut : 2 << 20] + b"\xff" + far[2 << 20 :]
        path = write(tmp_path, "far.csv", content)
        where = content.index(b"\xff")
        trouble(path, f"far.csv:{content.count(10, 0, where) + 1}: byte {where} ", "0xff")
    trouble(write(tmp_path, "cut.csv", b"text,label\nx,caf\xc3"), "cut.csv:2: byte 16 ", "0xc3")
    trouble(write(tmp_path, "t.csv", b"text,label\nx,y\n"), "not utf-16", encoding="utf-16")


def test_nul_bytes(tmp_path: Path) -> None:
    trouble(write(tmp_path, "t.csv", b"text,label\nx,y\na\0b,z\n"), "t.csv:3: a NUL byte", "utf-16")
    trouble(write(tmp_path, "t.csv", "text,label\n".encode("utf-16-le")), "t.csv:1: a NUL byte", "encoding utf-16")
    trouble(write(tmp_path, "t.jsonl", b'{"text": "a\0"}\n'), "t.jsonl:1: a NUL byte")


def test_endless_line_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with open(path, "wb") as file:
        file.write(b"text,label\n")
        file.seek(1 << 31)  # a hole of 2 GB: a line that memory must not hold (and would take long to read)
        file.write(b"\n")
    for name in ("t.csv", "t.jsonl"):
        path = path.rename(tmp_path / name)
        tracemalloc.start()
        trouble(path, f"{name}:", columns=())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30 * readers.MAX_LINE
    many = b"y" * (readers.MAX_LINE + 1)
    for name, line in {"t.csv": 3, "t.jsonl": 1}.items():
        content = b"text,label\na,b\n" + many if name == "t.csv" else b'{"text":"' + many
        trouble(write(tmp_path, name, content), f"{name}:{line}: the line is longer than 10,000,000 characters")


def test_endless_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 100)
    path = write(tmp_path, "t.csv", 'text,label\nx,a\n"open,b\n' + "line,c\n" * 20)
    trouble(path, "t.csv:3: a cell in the row that begins here is longer than 100 characters", "never closed")
    assert csv.field_size_limit() == 131072  # the process's own limit is as it was


def test_long_cells_are_read(tmp_path: Path) -> None:
    long = "x" * 1_000_000  # csv's own limit is 131,072
    assert rows(write(tmp_path, "t.csv", f"text,label\n{long},a\n"))[0][1] == (long, "a")
    assert csv.field_size_limit() == 131072


def test_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", 'text,label\nx,a\n"open,b\nmore,c\nlast,d\n')
    trouble(path, "t.csv:3: a quotation mark opens", "never closed", "line 5", "quotes=False")
    path = write(tmp_path, "t.csv", 'text,label\n"open,b\nmore,c\n"closed",d\n')
    trouble(path, "t.csv:4: text behind a closing quotation mark", "begins at line 2", "quotes=False")
    assert len(rows(path, quotes=False)) == 3


def test_bad_json(tmp_path: Path) -> None:
    ok = '{"text": "x", "label": "y"}\n'
    trouble(write(tmp_path, "t.jsonl", ok + "\n{'text': 1}\n"), "t.jsonl:3: not valid JSON", "one JSON object a line")
    trouble(write(tmp_path, "t.jsonl", ok + "[1, 2]\n"), "t.jsonl:2: expected an object", "the list [1, 2]")
    trouble(write(tmp_path, "t.jsonl", "3\n"), "t.jsonl:1: expected an object", "the int 3")
    trouble(write(tmp_path, "t.jsonl", ok + "[" * 100_000 + "\n"), "t.jsonl:2: not valid JSON", "nested too deeply")
    trouble(write(tmp_path, "t.jsonl", ok + '{"text": ' + "9" * 5000 + "}\n"), "t.jsonl:2: not valid JSON")
    trouble(
        write(tmp_path, "t.json", '[\n{"text": "x"},\n{"text" "y"}]'), "t.json:3: not valid JSON", "a list of objects"
    )
    trouble(write(tmp_path, "t.json", '[{"text": "x"}\n{"text": "y"}]'), "t.json:2: not valid JSON", "expected ','")
    trouble(write(tmp_path, "t.json", '[{"text": "x"}'), "t.json:1: not valid JSON", "expected ','")
    trouble(write(tmp_path, "t.json", '[{"text": "x"},]'), "t.json:1: not valid JSON")
    trouble(write(tmp_path, "t.json", '[{"text": "x"}] 3'), "t.json:1: not valid JSON")
    trouble(write(tmp_path, "t.json", "[" * 100_000), "t.json:1: not valid JSON", "nested too deeply")
    trouble(write(tmp_path, "t.json", '\n{"text": "x"}'), "t.json:2: expected a list of objects", "'{'", ".jsonl")


def test_json_that_is_too_large_says_what_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_JSON", 10)
    trouble(write(tmp_path, "t.json", '[{"text": "x"}]'), "t.json: larger than 10 bytes", ".jsonl")


def test_a_row_without_the_column(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '{"text": "x", "label": "y"}\n{"text": "x"}\n')
    trouble(path, "t.jsonl:2: no column 'label' in this row", "--skip-bad")


# --- cells


@pytest.mark.parametrize("value", [None, float("nan"), "", "  \t"])
def test_no_text(value: Any) -> None:
    with pytest.raises(
        BadRow, match=r"t.csv:7: column 'message' (is empty|has no value)\. .*--skip-bad \(skip_bad=True\)"
    ):
        readers.as_text(value, "t.csv:7", "message")
    with pytest.raises(BadRow, match="t.csv:7: column 'team' "):
        readers.as_label(value, "t.csv:7", "team")
    with pytest.raises(BadRow, match="t.csv:7: column 'team' "):
        readers.as_labels(value, "t.csv:7", "team", "|")


@pytest.mark.parametrize("value", [{"a": 1}, ["x"], b"x", "\ud800", "a\0b"])
def test_cells_that_are_no_text(value: Any) -> None:
    with pytest.raises(BadRow, match="t.jsonl:7: column 'message' holds "):
        readers.as_text(value, "t.jsonl:7", "message")


def test_texts_are_unchanged_and_labels_are_stripped() -> None:
    assert readers.as_text(" Ünï \n", "", "") == " Ünï \n"
    assert [readers.as_text(v, "", "") for v in (3, 2.5, True)] == ["3", "2.5", "True"]
    assert [readers.as_label(v, "", "") for v in (" a ", True, 1, 1.0, 0.5)] == ["a", "True", "1", "1", "0.5"]


def test_multilabel_cells() -> None:
    assert readers.as_labels("a| b|a", "", "", "|") == ("a", "b", "a")
    assert readers.as_labels(["a|b", 2], "", "", "|") == ("a|b", "2")
    assert readers.as_labels("|", "", "", "|") == readers.as_labels([], "", "", "|") == ()
    with pytest.raises(BadRow, match=r"for no label write ';' alone"):
        readers.as_labels(" ", "t.csv:2", "tags", ";")
    with pytest.raises(BadRow, match="t.jsonl:2: column 'tags' has no value"):
        readers.as_labels(["a", None], "t.jsonl:2", "tags", ";")


def test_flags_and_references() -> None:
    assert [readers.as_flag(v, "", "") for v in ("1", 0, True, "false", 1.0)] == [True, False, True, False, True]
    with pytest.raises(BadRow, match="t.csv:2: column 'toxic' is the str 'maybe'.* must be 0 or 1"):
        readers.as_flag("maybe", "t.csv:2", "toxic")
    assert readers.as_references("a", "", "") == ("a",) and readers.as_references(["a", "b"], "", "") == ("a", "b")
    with pytest.raises(BadRow, match="column 'target' is an empty list"):
        readers.as_references([], "t.jsonl:2", "target")


def test_numpy_and_pandas_cells() -> None:
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    assert readers.as_label(np.int64(3), "", "") == "3" and readers.as_label(np.str_("a"), "", "") == "a"
    assert readers.as_labels(np.array(["a", "b"]), "", "", "|") == ("a", "b")
    for missing in (pd.NA, pd.NaT, np.float32("nan")):
        with pytest.raises(BadRow, match="has no value"):
            readers.as_text(missing, "row 3", "text")
