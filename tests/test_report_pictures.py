"""Mistakes and their sheet, curves, and maps of where a prompt acts: against slow ways, and by what is drawn where."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

import anacrusis as ana
from anacrusis.errors import ConfigError, MissingExtra, ModelError, PromptError
from anacrusis.methods.cocoop import CoCoOpConfig, build
from anacrusis.model.images import ImageBatch, rows_of
from anacrusis.model.open_sight import wrap_sight
from anacrusis.model.sight import Sides, Sight
from anacrusis.prompt.values import Adaptive, Constant, Frame, Pixels, Prompt, Text, Tokens
from anacrusis.report import curves, pictures
from anacrusis.report.curves import shots_curve, spread, stream_curve
from anacrusis.report.pictures import Mistake, contact_sheet, mistakes, overlay
from anacrusis.report.where import _spread, attention_of, map_of
from anacrusis.testing import planted_sight, sight, tiny
from anacrusis.tune.recipe import Problem
from tests import plain

FRAME = Frame(fields=("image",), labels=("a", "b", "c"), words=("w1", "w2 w3", "w4 w5 w6"), template="{soft} {label}",
              readout="match")  # fmt: skip
NAMES = ("circle", "red striped hexagon", "black-throated blue warbler of the northern mountains " * 3, "i", "Wi" * 40)
LONG = "a method with a very long name that goes on and on and does not end here nor $there$"


@functools.cache
def model_of(family: str) -> Sight:
    return sight(family, layers=3)


@functools.cache
def planted() -> tuple[Any, Prompt]:
    return planted_sight(model_of("clip"), examples=60)


def some(*shape: int, seed: int = 0, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_picture(height: int = 32, width: int = 32) -> Any:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rows(**entries: Any) -> Tokens:
    given = {"layers": {0: some(4, 32)}, "frame": replace(FRAME, template="a {label}"), **entries}
    return Tokens(side="image", **given)


# --- mistakes


def test_mistakes_are_what_the_score_counts_and_the_surest_come_first() -> None:
    task, teacher = planted()
    model = model_of("clip")
    assert mistakes(teacher, model, task, split="train") == []
    other = replace(teacher, layers={0: some(4, 32, seed=5)})
    found = mistakes(other, model, task, split="train", most=1000)
    score = ana.evaluate(other, model, task, split="train")
    assert score.metric == "accuracy" and len(found) == round((1 - score.value) * len(task.train)) > 3
    assert [m.sure for m in found] == sorted((m.sure for m in found), reverse=True)
    by_key = {str(e.inputs[0]): e for e in task.train}
    for m in found:
        example = by_key[m.key]
        z = ana.measure.predict.scores(other, [example.inputs], model)[0].double()
        assert m.gold == task.labels[example.gold] != m.answer == task.labels[int(z.argmax())]
        assert list(m.probabilities) == list(task.labels) and type(m.sure) is float
        assert list(m.probabilities.values()) == pytest.approx(z.softmax(0).tolist(), abs=1e-5)
        assert m.sure == max(m.probabilities.values())
    assert mistakes(other, model, task, split="train", most=2) == found[:2]


def test_mistakes_say_what_they_cannot_show() -> None:
    task, teacher = planted()
    model = model_of("clip")
    with pytest.raises(ConfigError, match="most is 0"):
        mistakes(teacher, model, task, most=0)
    with pytest.raises(ConfigError, match="must be train, valid or test"):
        mistakes(teacher, model, task, split="dev")
    with pytest.raises(ConfigError, match="has no test examples"):
        mistakes(teacher, model, replace(task, test=()))
    with pytest.raises(ConfigError, match="the prompt answers a, b"):
        mistakes(rows(), model, task)
    with pytest.raises(ConfigError, match="is classification of texts"):
        mistakes(teacher, model, replace(task, images=None))
    with pytest.raises(ModelError, match="does not look at pictures"):
        mistakes(teacher, tiny("bert"), task)
    always = Constant(scores=torch.tensor([1.0, 0, 0]), frame=teacher.frame)
    assert {m.answer for m in mistakes(always, None, task, split="train")} == {"c0"}


# --- the sheet


@contextmanager
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[tuple[float, ...], str]]]:
    """Texts that Pillow draws, with the box that each takes."""
    found: list[tuple[tuple[float, ...], str]] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: Any, xy: Any, text: str, fill: Any = None, font: Any = None, **more: Any) -> None:
        assert font.size >= 12
        found.append((self.textbbox(xy, text, font=font), text))
        draw(self, xy, text, fill, font, **more)

    with monkeypatch.context() as m:
        m.setattr(ImageDraw.ImageDraw, "text", text)
        yield found


def apart(boxes: list[tuple[float, ...]], width: float, height: float) -> None:
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width and 0 <= top < bottom <= height, "cut"
        for a, b, c, d in boxes[:i]:
            assert right <= a or c <= left or bottom <= b or d <= top, "overlap"


def task_of(n: int, **sizes: Any) -> Any:
    g = np.random.default_rng(0)
    held = [g.integers(0, 256, (20 + i % 3 * 15, 30, 3), dtype=np.uint8) for i in range(n + 3)]
    return ana.Task.from_arrays(held, [i % 2 for i in range(n + 3)], names=("a", "b"), name=NAMES[2], **sizes)


@pytest.mark.filterwarnings("ignore::anacrusis.task.task.DataWarning")
@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_nothing_on_a_sheet_is_cut_or_overlaps(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(n)
    found = [Mistake(f"#{i}", NAMES[i % 5], NAMES[(i + 1) % 5], {NAMES[(i + 1) % 5]: 0.93}) for i in range(n)]
    pasted: list[tuple[float, ...]] = []
    paste = Image.Image.paste

    def put(self: Any, image: Any, corner: Any) -> None:
        pasted.append((*corner, corner[0] + image.width, corner[1] + image.height))
        paste(self, image, corner)

    monkeypatch.setattr(Image.Image, "paste", put)
    with written(monkeypatch) as texts:
        path = contact_sheet(found, task, tmp_path / "new" / "sheet.png")
    assert path == tmp_path / "new" / "sheet.png"
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and max(sheet.size) < 2500
        apart([box for box, _ in texts] + pasted, *sheet.size)
        assert min(sheet.getpixel((sheet.width - 2, sheet.height - 2))) > 240  # light
    assert len(pasted) == n and texts[0][1].endswith("...")
    for (left, top, right, bottom), i in zip(pasted, range(n), strict=True):
        assert (right - left) / (bottom - top) == pytest.approx(30 / (20 + i % 3 * 15), rel=0.02), "aspect"
    lines = [text for _, text in texts[2:]]
    assert [t.endswith(" 0.93") for t in lines].count(True) == n
    if n == 1:
        assert lines == ["circle", "-> red striped hexagon 0.93"]  # wider than the picture: two lines
        assert texts[1][1].startswith("true class -> answer")
    if n == 40:
        assert {x[0] for x in pasted[:1]} < {x[0] for x in pasted} and len({x[1] for x in pasted}) > 3


@pytest.mark.filterwarnings("ignore::anacrusis.task.task.DataWarning")
def test_captions_are_in_letters_that_the_font_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Mistake("#0", "café", "中\n Жук", {"中\n Жук": 1.0})]
    with written(monkeypatch) as texts:
        contact_sheet(found, task_of(1), tmp_path / "a.png", title="mine")
    assert [t for _, t in texts][::2] == ["mine", "cafe -> ? ??? 1.00"]
    import matplotlib

    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    with written(monkeypatch) as texts:
        contact_sheet(found, task_of(1), tmp_path / "b.png", font=font)
    assert texts[2][1] == "café -> ? Жук 1.00"
    with pytest.raises(ConfigError, match="cannot be read"):
        contact_sheet(found, task_of(1), tmp_path / "c.png", font="no.ttf")
    with pytest.raises(ConfigError, match=r"end its name with \.png"):
        contact_sheet(found, task_of(1), tmp_path / "c.jpg")


def test_shortened_is_the_longest_that_fits() -> None:
    assert pictures.shortened("abcdef", 6, len) == "abcdef"
    assert pictures.shortened("abcdefg", 6, len) == "abc..."
    assert pictures.shortened("ab cdefg", 6, len) == "ab..."
    assert pictures.shortened("abcdefg", 2, len) == "..."


# --- curves


@contextmanager
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    found: list[Figure] = []
    save = Figure.savefig
    with monkeypatch.context() as m:
        m.setattr(Figure, "savefig", lambda self, *a, **k: (found.append(self), save(self, *a, **k))[1])
        yield found


def whole(figure: Figure) -> list[str]:
    """The names at the lines' ends, when all text lies in the figure and no name overlaps another or the plot."""
    axes = figure.axes[0]
    draw = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = figure.bbox.width, figure.bbox.height
    named = [t for t in axes.texts if t.get_text()]
    titles = [t for t in (axes.xaxis.label, axes.yaxis.label, *figure.texts) if t.get_text()]
    boxes = [type(t).__mro__[1].get_window_extent(t, draw) if t in named else t.get_window_extent(draw)
             for t in (*named, *titles)]  # fmt: skip
    apart([b.extents for b in boxes], width, height)
    assert all(b.x0 > axes.get_window_extent().x1 for b in boxes[: len(named)])
    return [t.get_text() for t in named]


POINTS = {
    "zero-shot": [(0, 0.5, 0.45, 0.55)],
    "coop": [(16, 0.8, 0.75, 0.84), (1, 0.55, 0.5, 0.6), (4, 0.7, 0.66, 0.74)],
    "tip-adapter": [(1, 0.6, 0.5, 0.7), (4, 0.65), (16, 0.79, 0.7, 0.81)],
    "vpt": [(2, 0.3, 0.2, 0.4)],
}


def test_shots_are_on_a_log_axis_with_bands_and_a_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn(monkeypatch) as figures:
        path = shots_curve(POINTS, tmp_path / "new" / "shots.png", title="T")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 900
    axes = figures[0].axes[0]
    assert sorted(whole(figures[0])) == ["coop", "tip-adapter", "vpt", "zero-shot"]
    assert axes.get_xscale() == "log" and [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "4", "16"]
    x = axes.transData.transform([(1, 0.5), (2, 0.5), (4, 0.5), (16, 0.5)])[:, 0]
    assert np.diff(x) / (x[1] - x[0]) == pytest.approx([1, 1, 2])
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert lines[0].get_xydata().tolist() == [[1, 0.55], [4, 0.7], [16, 0.8]]  # in order
    level = next(line for line in axes.lines if len(line.get_xdata()) == 2)
    assert list(level.get_ydata()) == [0.5, 0.5] and level.get_transform() is not axes.transData
    band = next(c for c in axes.collections if c.get_paths()[0].vertices.shape[0] > 6)
    assert {tuple(v) for v in band.get_paths()[0].vertices} >= {(1, 0.5), (1, 0.6), (4, 0.66), (16, 0.84)}
    assert len({line.get_color() for line in axes.lines}) == 4


def test_many_long_names_still_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"{i} {LONG} 中": [(1, 0.5, 0.4, 0.6), (2, 0.6 + i / 1e4, 0.5, 0.7)] for i in range(30)}
    with drawn(monkeypatch) as figures:
        shots_curve(many, tmp_path / "a.png", title=LONG * 3, measure=LONG * 2)
    assert len(names := whole(figures[0])) == 30 and all(n.endswith("...") for n in names)
    lines = figures[0].axes[0].lines
    assert len({(x.get_color(), str(x.get_linestyle()), x.get_marker()) for x in lines}) >= 28
    assert set(curves.COLOURS) == {x.get_color() for x in lines}
    said = [*figures[0].axes[0].texts, *figures[0].texts, figures[0].axes[0].yaxis.label]
    assert not any(t.get_parse_math() for t in said)  # "$" is a letter


def test_the_same_zero_shot_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {n: [(0, 0.5, 0.4, 0.6), (4, v, 0.5, 0.9)] for n, v in (("a", 0.7), ("b", 0.8))}
    with drawn(monkeypatch) as figures:
        shots_curve(both, tmp_path / "a.png")
        shots_curve({**both, "c": [(0, 0.3), (2, 0.6)]}, tmp_path / "b.png")
        shots_curve({"plain": [(0, 0.3)]}, tmp_path / "c.png")
    assert [sorted(whole(f)) for f in figures] == [
        ["a", "b", "zero-shot"], ["a", "b", "c", "c, zero-shot", "zero-shot"], ["plain"]]  # fmt: skip


def test_a_stream_is_on_a_plain_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn(monkeypatch) as figures:
        path = stream_curve({"tpt": [(0, 0.5, 0.4, 0.6), (100, 0.6, 0.5, 0.7)], "none": [(50, 0.5)]},
                            tmp_path / "s.png", along="seconds")  # fmt: skip
    axes = figures[0].axes[0]
    assert path.is_file() and axes.get_xscale() == "linear" and axes.get_xlabel() == "seconds"
    assert whole(figures[0]) == ["tpt", "none"]
    assert axes.get_xlim()[0] < 0 and axes.get_xlim()[1] > 100


def test_curves_leave_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
    shots_curve(POINTS, tmp_path / "a.png")
    assert before == (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "no points to draw"),
        ({"a": []}, "no points to draw"),
        ({"a": [(1, 0.5, 0.4)]}, r"a: the point \(1, 0.5, 0.4\); expected finite \(shots"),
        ({"a": [(1, float("nan"), 0.4, 0.5)]}, "expected finite"),
        ({"a": [(1, 0.5, 0.6, 0.4)]}, "expected low <= high"),
        ({"a": [(-1, 0.5)]}, "-1 shots; expected 0 or more"),
        ({"a": [(1, 0.5), (1, 0.6)]}, "two points at the same shots"),
    ],
)
def test_points_that_are_none(points: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        shots_curve(points, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("anacrusis.report._again", curves.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)  # is loaded without it
    with pytest.raises(MissingExtra, match=r"'matplotlib'.*anacrusis\[plots\]"):
        again.shots_curve(POINTS, tmp_path / "a.png")


def test_spread_keeps_order_and_distance_and_moves_nothing_without_need() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1) == pytest.approx([0.9, 0.1, 0.5])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert spread([1.0, 0.98, 0.0], 0.1) == pytest.approx([1.0, 0.9, 0.0])
    g = np.random.default_rng(0)
    for _ in range(50):
        wanted = g.uniform(0, 1, 9).tolist()
        places = spread(wanted, 0.12)
        assert np.diff(sorted(places)).min() > 0.12 - 1e-9 and min(places) >= 0 and max(places) <= 1 + 1e-9
        assert np.argsort(places).tolist() == np.argsort(wanted).tolist()


# --- where a prompt acts


def slow_map(model: Sight, prompt: Any, sides: Any, picture: Any, c: int | None = None) -> Any:
    """By transformers' own layers and a loop over patches."""
    batch = ImageBatch(rows_of([(picture,)], model.prepare), model.prepare, model.device, model.dtype)
    x = batch.raw.clone().requires_grad_()
    batch.__dict__["raw"] = x
    with model.frozen():
        z = plain.scores(model, prompt.frame, sides(batch) if callable(sides) else sides, batch)[0]
        c = int(z.argmax()) if c is None else c
        change = z[c] - plain.scores(model, prompt.frame, Sides(), batch)[0, c]
        (g,) = torch.autograd.grad(change, x)
    g = g[0].abs().sum(0)
    out = np.zeros((32, 32))
    for i in range(0, 32, 8):
        for j in range(0, 32, 8):
            out[i : i + 8, j : j + 8] = g[i : i + 8, j : j + 8].mean()
    return out / out.max()


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_map_is_the_gradient_of_what_the_prompt_changes(family: str, kind: str) -> None:
    model, picture = model_of(family), a_picture()
    prompt = Tokens(side="text", layers={0: some(4, 32)}, frame=FRAME) if kind == "text" else rows()
    sides = Sides(prompt) if kind == "text" else Sides(None, prompt)
    found = map_of(prompt, model, picture)
    assert found.shape == (32, 32) and found.dtype == np.float32 and found.min() >= 0 and found.max() == 1
    assert np.allclose(found, slow_map(model, prompt, sides, picture), atol=1e-3)
    assert np.allclose(map_of(prompt, model, picture, "b"), slow_map(model, prompt, sides, picture, 1), atol=1e-3)
    assert not np.allclose(map_of(prompt, model, picture, "b"), map_of(prompt, model, picture, "c"), atol=1e-2)


def test_a_map_of_pixels_is_what_they_change() -> None:
    model, picture = model_of("clip"), np.full((32, 32, 3), 255, np.uint8)
    picture[:, :16] = 100
    delta = torch.zeros(3, 32, 32)
    delta[:, :4] = torch.tensor([-0.1, 0.2, -0.1])[:, None, None]
    found = map_of(Pixels(delta=delta, frame=FRAME), model, picture)
    assert found[:4, :16] == pytest.approx(1.0) and found[:4, 16:] == pytest.approx(0.5)  # white cannot grow lighter
    assert not found[4:].any()
    free = map_of(Pixels(delta=delta, frame=FRAME, clip=False), model, picture)
    assert free[:4] == pytest.approx(1.0) and not free[4:].any()


def test_what_a_network_writes_from_a_picture_is_in_the_map_too() -> None:
    model, picture = model_of("clip"), a_picture()
    problem = Problem(model, planted()[0], planted()[1].frame, torch.Generator().manual_seed(0))
    recipe = build(CoCoOpConfig(length=3, words=""), problem)
    maker = recipe.maker
    with torch.no_grad():
        maker.net[2].weight.normal_(generator=torch.Generator().manual_seed(1))
    prompt = replace(maker.fold(), frame=recipe.frame)

    def sides(batch: ImageBatch) -> Sides:
        f = plain.images(model, batch, None)
        made = maker.context + model.scale * maker.net(f * 24**0.5)[:, None]
        return Sides(Tokens(side="text", layers={0: made}, per="input"))

    assert np.allclose(map_of(prompt, model, picture), slow_map(model, prompt, sides, picture), atol=1e-3)


def test_words_alone_change_nothing() -> None:
    assert not map_of(Text(frame=FRAME), model_of("clip"), a_picture()).any()


def test_patches_and_edges_of_other_networks() -> None:
    task, teacher = planted_sight(sight("dinov2"), examples=24)
    found = map_of(teacher, sight("dinov2"), a_picture(40, 64))
    assert found.shape == (32, 32) and len(np.unique(found)) == 16
    with torch.random.fork_rng():
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    other = wrap_sight(network, name="flat", classes=("a", "b", "c"), prepare=model_of("clip").prepare)
    frame = replace(FRAME, readout="classes")
    assert map_of(Pixels(delta=torch.ones(3, 32, 32) / 9, frame=frame, clip=False), other, a_picture()).min() == 1
    assert not map_of(Text(frame=frame), other, a_picture()).any()
    edge = _spread(torch.tensor([[0.0, 2], [4, 1]]), 5, 2)  # a row and a column of pixels that no patch covers
    assert edge.tolist() == [[0, 0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5, 0], [1, 1, 0.25, 0.25, 0], [1, 1, 0.25, 0.25, 0],
                             [0, 0, 0, 0, 0]]  # fmt: skip
    with pytest.raises(ModelError, match="no transformer blocks"):
        attention_of(Pixels(delta=torch.ones(3, 32, 32), frame=frame), other, a_picture())


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("kind", ["shallow", "deep", "reading"])
def test_attention_is_that_of_the_rows_in_the_last_block(family: str, kind: str) -> None:
    model, picture = model_of(family), a_picture()
    deep = {"layers": {0: some(4, 32), 2: some(3, 32, seed=2)}}
    prompt = rows(**{"shallow": {}, "deep": deep, "reading": {"read_only": True}}[kind])
    if kind == "reading":
        text = Tokens(side="text", layers={0: some(4, 32)}, read_only=True)
        asked: Prompt = ana.prompt.values.Paired(text=text, image=prompt, frame=prompt.frame)
    else:
        asked = prompt
    found = attention_of(asked, model, picture)
    kept = {}
    attention = model.network.vision_model.encoder.layers[-1].self_attn
    hooks = [getattr(attention, f"{n}_proj").register_forward_hook(lambda m, i, o, n=n: kept.update({n: o[0]}))
             for n in "qk"]  # fmt: skip
    batch = ImageBatch(rows_of([(picture,)], model.prepare), model.prepare, model.device, model.dtype)
    with torch.no_grad():
        plain.images(model, batch, prompt)  # rows stand behind the class token, where there is one
    for hook in hooks:
        hook.remove()
    q, k = (kept[n].view(-1, 4, 8).transpose(0, 1) for n in "qk")
    first, M = (1, prompt.length if kind != "deep" else 3) if family == "clip" else (0, 3 if kind == "deep" else 4)
    logits = q[:, first : first + M] @ k.transpose(1, 2) / 8**0.5
    if kind == "reading":
        logits[:, :, first : first + M] = float("-inf")
    weight = logits.softmax(-1).mean((0, 1))[-16:].view(4, 4)
    slow = (weight / weight.max()).repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
    assert found.shape == (32, 32) and np.allclose(found, slow, atol=1e-4)


def test_attention_heeds_temperature_and_mass_and_needs_rows() -> None:
    model, picture = model_of("clip"), a_picture()
    assert attention_of(rows(temperatures=torch.full((3,), 1e9)), model, picture) == pytest.approx(1.0)
    mass = torch.ones(3, 2)
    mass[2, 1] = 0
    assert not attention_of(rows(mass=mass), model, picture).any()
    short = attention_of(rows(layers={0: some(4, 32), 2: torch.zeros(0, 32)}), model, picture)
    assert short.max() == 1  # of the last block that they are in
    with pytest.raises(PromptError, match="0 rows in every block"):
        attention_of(rows(layers={0: torch.zeros(0, 32)}), model, picture)
    with pytest.raises(PromptError, match="no rows in the image tower"):
        attention_of(Tokens(side="text", layers={0: some(4, 32)}, frame=FRAME), model, picture)


def test_the_network_is_as_it_was() -> None:
    model, picture, prompt = sight("clip"), a_picture(), rows(layers={0: some(4, 32)})
    model.network.train()
    next(model.network.parameters()).requires_grad_(True)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    kept = picture.copy(), prompt.layers[0].clone(), model.image.tower
    for make in (map_of, attention_of):
        with torch.no_grad():  # gradients are wanted all the same
            assert make(prompt, model, picture).any()
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    wants = [p.requires_grad for p in model.network.parameters()]
    assert wants[0] and not any(wants[1:]) and all(p.grad is None for p in model.network.parameters())
    assert all(m.training for m in model.network.modules()) and model.image.tower is kept[2]
    assert np.array_equal(picture, kept[0]) and torch.equal(prompt.layers[0], kept[1]) and prompt.layers[0].grad is None


def test_maps_refuse_what_they_cannot_show() -> None:
    model, picture, prompt = model_of("clip"), a_picture(), rows()
    with pytest.raises(ConfigError, match="no class 'd'"):
        map_of(prompt, model, picture, "d")
    with pytest.raises(PromptError, match="learned for"):
        map_of(replace(prompt, card={"fingerprint": "other"}), model, picture)
    with pytest.raises(PromptError, match="another one for each picture"):
        map_of(Adaptive(method="tpt", config={}, weights={}, frame=FRAME), model, picture)
    for make in (map_of, attention_of):
        with pytest.raises(ModelError, match="does not look at pictures"):
            make(prompt, tiny("bert"), picture)  # type: ignore[arg-type]


def test_overlay_shows_the_picture_and_the_heat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heat = np.zeros((32, 32), np.float32)
    heat[:16, :16] = 1
    picture = np.full((32, 64, 3), (200, 40, 40), np.uint8)
    with written(monkeypatch) as texts:
        path = overlay(picture, heat, tmp_path / "new" / "o.png", caption=LONG)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        apart([box for box, _ in texts], *sheet.size)
        E, gap = pictures.EDGE, pictures.GAP
        assert sheet.getpixel((E + 5, E + 5)) == sheet.getpixel((E + 315, E + 315)) == (200, 40, 40)
        hot, cold = (sheet.getpixel((E + 320 + gap + at, E + at)) for at in (5, 315))
    assert cold == (93, 93, 93) and min(hot[:2]) > 180 and hot[2] < 80  # grey, and yellow
    assert texts[0][1].endswith("...") and texts[-1][1] == "most"
    with written(monkeypatch) as texts:
        overlay(picture, heat * 0, tmp_path / "none.png", prepare=model_of("clip").prepare)
    assert [t for _, t in texts] == ["where the prompt acts", "least", "(nothing)"]
    for wrong in (heat[:16], heat + 1, heat * np.nan):
        with pytest.raises(ConfigError, match=r"expected \(S, S\) of 0 to 1"):
            overlay(picture, wrong, tmp_path / "o.png")
    with pytest.raises(ConfigError, match="prepare makes 32"):
        overlay(picture, np.zeros((16, 16), np.float32), tmp_path / "o.png", prepare=model_of("clip").prepare)
