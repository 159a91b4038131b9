"""The generated documentation is what the registry and the command line say, and the checkout's is not stale."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

from anacrusis import _docs
from anacrusis.registry import Method, all_methods

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Parent:
    length: int = 3  # in tokens
    mark: str = "#"  # a mark, not a comment
    many: tuple[str, ...] = ()
    bare: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    length: int = 5  # in tokens, of the child
    way: Literal["up", "down"] = "up"  # where to


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "README.md").write_text("# Before\n\n<!-- methods -->\nold\n<!-- /methods -->\n\nAfter.\n")
    return tmp_path


def test_the_checkout_is_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    if not (ROOT / "pyproject.toml").exists() or not (ROOT / "docs").is_dir():
        pytest.skip("no checkout")
    assert _docs.main(["--check"]) == 0, f"{capsys.readouterr().err}mend it: make docs"


def test_write_then_check(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _docs.main(["--check"], root) == 1
    assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {
        "README.md", "docs/cli.md", "docs/methods.md", "docs/assess.md",
    }  # fmt: skip
    assert _docs.main(["--write"], root) == 0
    assert _docs.main(["--check"], root) == 0
    assert "written" in capsys.readouterr().out
    assert _docs.main(["--write"], root) == 0 and capsys.readouterr().out == ""  # nothing is written twice
    readme = (root / "README.md").read_text()
    assert readme.startswith("# Before\n\n<!-- methods -->\nBy gradient") and readme.endswith(
        "<!-- /methods -->\n\nAfter.\n"
    )
    (root / "README.md").write_text(readme.replace("`prompt-tuning`", "`prompt-tunning`"))
    assert _docs.main(["--check"], root) == 1
    assert capsys.readouterr().err == "README.md is stale: make docs\n"


def test_markers_must_be_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "README.md").write_text("# No markers\n")
    assert _docs.main(["--write"], root) == 1
    assert "README.md lacks the lines <!-- methods -->" in capsys.readouterr().err
    assert (root / "README.md").read_text() == "# No markers\n" and (root / "docs" / "methods.md").exists()
    assert _docs.between_markers(f"{_docs.END} {_docs.BEGIN}", "x") is None


def test_usage(tmp_path: Path) -> None:
    assert _docs.main([]) == 2 and _docs.main(["--check", "--write"]) == 2
    assert _docs.main(["--check"], tmp_path) == 1  # not a checkout


def test_options_carry_their_comments() -> None:
    method = Method(name="m", summary="", config=Child, build=lambda: None, paper="none", engine="baseline")
    found = {o.name: o for o in _docs.own_options(method)}
    assert list(found) == ["length", "mark", "many", "bare", "way"]
    assert (found["length"].shown, found["length"].meaning) == ("5", "in tokens, of the child")
    assert found["mark"].meaning == "a mark, not a comment" and found["bare"].meaning == ""
    assert found["way"].meaning == "up, down; where to"
    assert found["many"].shown == '""' and _docs.training_options(method) == [] and _docs.paper_of(method) == ("", "")


def test_every_method_is_described() -> None:
    table, page = _docs.methods_table(), _docs.methods_page()
    for method in all_methods().values():
        assert f"| `{method.name}` |" in table and f"\n## {method.name}\n" in page
        assert _docs.source_of(method) in page and len(_docs.source_of(method)) > 40
        section = page.split(f"\n## {method.name}\n")[1].split("\n## ")[0]
        assert all(f"| `{f.name}` |" in section for f in fields(method.config))


def test_every_measure_is_described() -> None:
    from anacrusis.assess import all_measures

    table = _docs.measures_table()
    assert len(all_measures()) == 10 and all(f"| `{name}` |" in table for name in all_measures())


def test_every_command_is_described() -> None:
    page = _docs.cli_page()
    for name in ("fit", "evaluate", "predict", "methods", "runs", "resume", "export", "import", "demo", "draw",
                 "adapt", "look", "compare", "report", "assess", "interpret", "choose", "ui", "show"):  # fmt: skip
        assert f"\n## {name}\n" in page
    assert "anacrusis fit DATA [OPTIONS]" in page and "anacrusis predict FOLDER [TEXT...] [OPTIONS]" in page
    assert "| `--model` |  | builtin:minilm (texts) and builtin:tiny-clip (pictures)" in page
    assert "| 130 | stopped by Ctrl-C |" in page
