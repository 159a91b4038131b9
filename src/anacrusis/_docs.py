"""The generated parts of the documentation, from the Typer app and the registry.

python -m anacrusis._docs --write     docs/cli.md, and what stands between the markers in README.md, docs/methods.md
python -m anacrusis._docs --check     exits with 1 and names the file that is stale
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from .registry import ANYWHERE, ENGINES, TEXTS, Method, all_methods

READING = TEXTS | ANYWHERE
TITLES: dict[str, Callable[[Method], bool]] = {  # of a table of methods: which stand in it
    "By gradient, on a local model:": lambda m: m.engine == "tune" and bool(m.arrangements & READING),
    "By trial ([search.md](search.md)), on a local model or behind an API:": (
        lambda m: m.engine == "search" and bool(m.arrangements & READING)
    ),
    "For pictures ([images.md](images.md)), by gradient:": (
        lambda m: m.engine == "tune" and not m.arrangements & READING
    ),
    "For pictures, by trial on the texts of classes:": (
        lambda m: m.engine == "search" and not m.arrangements & READING
    ),
    "For pictures, while in use and without labels:": lambda m: m.engine == "adapt",
    "Yardsticks:": lambda m: m.engine == "baseline",
}
BEGIN, END = "<!-- methods -->", "<!-- /methods -->"
KINDS = ("classification", "multilabel", "generation")
FRAME = (
    (
        "readout",
        "auto",
        "how the model's output becomes an answer: label-words, words, lm, head, similarity or generate; of pictures: "
        "match, head or classes",
    ),
    (
        "template",
        "",
        'how an example is written, with its columns in braces, such as "{text} Topic:"; "": by the model',
    ),
    ("place", "auto", "where learned vectors stand: front, after-bos, back, or slots ({soft} in the template)"),
)
ONE_LINE = "One line a method: `anacrusis methods`. One method with its options: `anacrusis methods NAME`."


# --- options of a method


@dataclass(frozen=True)
class Option:
    name: str
    kind: str  # as it is annotated: "int", "Literal['vocab', 'random']"
    default: Any
    note: str  # what its comment in the source says

    @property
    def shown(self) -> str:
        """The default as it is typed behind --set."""
        value = self.default
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        return '""' if value == "" else str(value)

    @property
    def meaning(self) -> str:
        """The note, behind the values that are possible where these are few."""
        choices = re.fullmatch(r"Literal\[(.*)\]", self.kind)
        known = re.sub("[\"']", "", choices[1]) if choices else ""
        return "; ".join(p for p in (known, self.note) if p)


def own_options(method: Method) -> list[Option]:
    return _options(method.config, {})


def training_options(method: Method) -> list[Option]:
    """Of the method's engine, with the defaults that this method sets; none for a baseline."""
    if method.engine == "search":
        from .search.search import Searching

        return _options(Searching, method.training)
    if method.engine != "tune":
        return []
    from .tune.recipe import Training

    return _options(Training, method.training)


def frame_options() -> list[Option]:
    return [Option(name, "str", default, note) for name, default, note in FRAME]


def _options(config: type, changed: Mapping[str, Any]) -> list[Option]:
    notes: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        notes |= _comments(cls)
    return [
        Option(f.name, str(f.type), changed.get(f.name, _default(f)), notes.get(f.name, "")) for f in fields(config)
    ]


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else "(required)"


def _comments(cls: type) -> dict[str, str]:
    """The comment behind each field of a dataclass, from its source; {} where there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    said = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|fmt:)", token.string)
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: said[node.end_lineno]
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in said
    }


def source_of(method: Method) -> str:
    """The docstring of the file that describes the method: equation, paper, departures."""
    places = [method.build.__module__, method.config.__module__]
    place = next((p for p in places if p.startswith("anacrusis.methods.")), places[0])
    return inspect.cleandoc(sys.modules[place].__doc__ or "")


def by_engine() -> list[Method]:
    """All methods: by gradient, by trial, baselines; each group by name."""
    return sorted(all_methods().values(), key=lambda m: (ENGINES.index(m.engine), m.name))


def serves(method: Method) -> str:
    return "all" if method.kinds >= set(KINDS) else ", ".join(k for k in KINDS if k in method.kinds)


def paper_of(method: Method) -> tuple[str, str]:
    """Text and address of the method's Markdown link, if any."""
    found = re.fullmatch(r"\[(.*)\]\((.*)\)", method.paper.strip())
    return (found[1], found[2]) if found else ("", "")


def _link(method: Method) -> str:
    return method.paper if paper_of(method)[1] else ""


# --- pages


def methods_table(docs: str = "docs/") -> str:
    """For README.md: a line a method. docs: where the pages lie, as seen from there."""
    parts = []
    for title, belongs in TITLES.items():
        rows = [(f"`{m.name}`", m.summary, _link(m), serves(m)) for m in by_engine() if belongs(m)]
        parts.append(
            f"{title.replace('](', f']({docs}')}\n\n{_markdown(('method', 'what it does', 'paper', 'tasks'), rows)}"
        )
    return "\n\n".join([*parts, ONE_LINE])


def measures_table() -> str:
    """For docs/assess.md: a line a measure."""
    from .assess import all_measures

    rows = [(f"`{m.name}`", m.summary, m.paper or "plain counting") for m in all_measures().values()]
    return _markdown(("measure", "what it tells", "source"), rows)


def methods_page() -> str:
    """For docs/methods.md: every method with its own options, then the options that they share."""
    parts = [methods_table(""), *(_method_section(m) for m in by_engine())]
    heads = ("option", "default", "meaning")
    some = next((m for m in by_engine() if m.engine == "tune"), None)
    if some is not None:
        from .tune.recipe import Training

        rows = [_row(o) for o in _options(Training, {})]
        parts.append(f"## Options of all methods that learn by gradient\n\n{_markdown(heads, rows)}")
    from .search.search import Searching

    rows = [_row(o) for o in _options(Searching, {})]
    parts.append(f"## Options of all methods that learn by trial\n\n{_markdown(heads, rows)}")
    parts.append(f"## Options of all methods\n\n{_markdown(heads, [_row(o) for o in frame_options()])}")
    return "\n\n".join(parts)


def _method_section(method: Method) -> str:
    lines = [f"## {method.name}", "", f"{_sentence(method.summary)} {_sentence(_link(method))}".strip(), ""]
    lines.append(f"Tasks: {serves(method)}. Models: {', '.join(sorted(method.arrangements))}, ")
    lines[-1] += f"with {', '.join(sorted(method.needs)) or 'no particular capability'}."
    if method.roles:
        lines[-1] += f" Asks a {' and a '.join(sorted(method.roles))} too."
    lines += ["", "```text", source_of(method), "```"]
    if own := own_options(method):
        lines += ["", _markdown(("option", "default", "meaning"), [_row(o) for o in own])]
    if method.training:
        changed = ", ".join(f"`{k}={v}`" for k, v in method.training.items())
        lines += ["", f"Sets for the trainer: {changed}."]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _row(option: Option) -> tuple[str, str, str]:
    return f"`{option.name}`", f"`{option.shown}`", option.meaning


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return "\n".join([row(heads), "|" + "---|" * len(heads), *map(row, rows)])


def cli_page() -> str:
    """docs/cli.md: every command with its arguments and options."""
    import typer

    from ._guard import EXIT_CODES
    from .cli import app

    group: Any = typer.main.get_command(app)
    parts = ["# The command line", "<!-- generated by `make docs`: do not edit -->", _sentence(group.help or "")]
    parts.append(_markdown(("exit code", "meaning"), [(str(code), said) for code, said in EXIT_CODES.items()]))
    for name, command in group.commands.items():
        parts += list(_command(name, command))
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["anacrusis", name, *(_metavar(p) for p in arguments), "[OPTIONS]"])
    yield f"## {name}\n\n```text\n{usage}\n```"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    if rows := [(f"`{_shown(p)}`", _help(p)) for p in arguments]:
        yield _markdown(("argument", "meaning"), rows)
    options = [p for p in command.params if p.param_type_name == "option"]
    rows3: list[tuple[str, ...]] = [
        (f"`{', '.join([*p.opts, *p.secondary_opts])}`", _given(p), _help(p)) for p in options
    ]
    if rows3:
        yield _markdown(("option", "default", "meaning"), rows3)


def _shown(argument: Any) -> str:
    return str(argument.metavar or argument.name).strip("[]")


def _metavar(argument: Any) -> str:
    name = _shown(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _help(parameter: Any) -> str:
    more = " Can be given several times." if getattr(parameter, "multiple", False) else ""
    return f"{parameter.help or ''}{more}"


def _given(option: Any) -> str:
    """The default, where there is one to speak of."""
    if option.required:
        return "required"
    if getattr(option, "is_flag", False) or option.default in (None, (), []) or callable(option.default):
        return ""
    return f"`{option.default}`"


# --- files


def between_markers(text: str, inside: str) -> str | None:
    """`text` with what stands between its markers replaced; None where it has no markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        return None
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return f"{head}{BEGIN}\n{inside}\n{END}{tail}"


def wanted(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file with the text that it should have; None where it lacks the markers."""
    yield root / "docs" / "cli.md", cli_page()
    makers: tuple[tuple[str, Callable[[], str]], ...] = (
        ("README.md", methods_table),
        ("docs/methods.md", methods_page),
        ("docs/assess.md", measures_table),
    )
    for name, make in makers:
        file = root / name
        empty = "" if name == "README.md" else f"# {file.stem.capitalize()}\n\n{BEGIN}\n{END}\n"
        yield file, between_markers(file.read_text(encoding="utf-8") if file.exists() else empty, make())


def main(arguments: list[str], root: Path | None = None) -> int:
    """The exit code: 0, or 1 with the reasons on stderr."""
    root = root or Path(__file__).parents[2]
    if arguments not in (["--write"], ["--check"]):
        print("usage: python -m anacrusis._docs --write | --check", file=sys.stderr)
        return 2
    if not (root / "pyproject.toml").exists():
        print("this works in a checkout of the project only: there is no pyproject.toml here", file=sys.stderr)
        return 1
    failed = 0
    for file, text in wanted(root):
        name = file.relative_to(root).as_posix()
        if text is None:
            print(f"{name} lacks the lines {BEGIN} and {END}", file=sys.stderr)
            failed = 1
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            if arguments == ["--write"]:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
                print(f"{name}: written")
            else:
                print(f"{name} is stale: make docs", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
