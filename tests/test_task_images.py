"""Tasks over pictures: folders, tables of paths, arrays; what is broken, what is the same, what can be read again."""

from __future__ import annotations

import csv
import json
import random
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anacrusis import pictures
from anacrusis.cli import app
from anacrusis.errors import AnacrusisError, ConfigError, DataError, MissingExtra
from anacrusis.task import DataWarning, Example, Images, Split, Task
from anacrusis.task.corruptions import corrupted
from anacrusis.task.images import load, of_array
from anacrusis.task.shift import base_to_new
from tests.test_task import fails, warned

RED, GREEN = (200, 10, 10), (10, 200, 10)
CLASSES = ("bird", "cat", "dog", "fish")


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four classes of ten different pictures."""
    for c, name in enumerate(CLASSES):
        for i in range(10):
            save(tmp_path / "photos" / name / f"{i}.png", 100 * c + i)
    return tmp_path / "photos"


def table(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def keys(examples: tuple[Example, ...]) -> set[str]:
    return {e.inputs[0] for e in examples}


def everything(task: Task) -> tuple[Example, ...]:
    return (*task.train, *task.valid, *task.test)


# --- one picture


def test_load_gives_rgb_whatever_the_file_holds(tmp_path: Path) -> None:
    def saved(image: Image.Image, name: str, **more: Any) -> np.ndarray:
        image.save(tmp_path / name, **more)
        found = load(str(tmp_path / name))
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
        return found

    plain = Image.new("RGB", (6, 4), RED)
    assert saved(plain, "a.png").shape == (4, 6, 3) and (load(tmp_path / "a.png") == RED).all()
    assert (saved(Image.new("L", (6, 4), 77), "grey.png") == 77).all()
    assert (saved(plain.quantize(8), "palette.gif") == RED).all()
    assert (saved(Image.new("1", (6, 4), 1), "bit.png") == 255).all()
    assert (np.abs(saved(plain.convert("CMYK"), "cmyk.jpg").astype(int) - RED) < 12).all()
    # what is transparent is white, half of it half
    assert (saved(Image.new("RGBA", (6, 4), (*RED, 0)), "clear.png") == 255).all()
    assert (np.abs(saved(Image.new("RGBA", (6, 4), (0, 0, 0, 128)), "half.png").astype(int) - 127) < 2).all()
    assert (saved(Image.new("LA", (6, 4), (0, 0)), "la.png") == 255).all()
    assert (saved(plain, "key.png", transparency=RED) == 255).all()
    palette = plain.quantize(8)
    assert (saved(palette, "clear.gif", transparency=palette.getpixel((0, 0))) == 255).all()
    # grey of 16 bits is not cut off at 255
    deep = Image.fromarray(np.full((4, 6), 40000, np.uint16))
    assert (saved(deep, "deep.png") == 40000 >> 8).all()
    # turned as EXIF says: 6 is a quarter to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.fromarray(np.concatenate([np.zeros((4, 3, 3), np.uint8), np.full((4, 3, 3), 255, np.uint8)], 1))
    turned = saved(half, "turned.png", exif=exif)
    assert turned.shape == (6, 4, 3) and (turned[:3] == 0).all() and (turned[3:] == 255).all()


def test_load_names_the_file_and_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path / "good.png", 1)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "float.tif")
    fails("cut.png: broken picture: ", "truncated", make=lambda: load(tmp_path / "cut.png"))
    fails("text.png: not a picture", make=lambda: load(tmp_path / "text.png"))
    fails("empty.png: the file is empty", make=lambda: load(tmp_path / "empty.png"))
    fails("float.tif: ", "8 bits", make=lambda: load(tmp_path / "float.tif"))
    fails("no such picture", "Did you mean 'good.png'", make=lambda: load(tmp_path / "god.png"))
    fails("is a folder", "*.jpg", make=lambda: load(tmp_path))
    fails("folder does not exist", make=lambda: load(tmp_path / "x" / "y.png"))
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(load("good.png"), noise(1))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"anacrusis\[images\]"):
        load("good.png")


def test_held_pictures(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", 1)
    images = Images([noise(0), np.full((3, 4), 9, np.uint8), file.read_bytes()])
    assert np.array_equal(images.load("#0"), noise(0))
    assert images.load("#1").shape == (3, 4, 3) and (images.load("#1") == 9).all()
    assert np.array_equal(images.load("#2"), noise(1)) and np.array_equal(images.load(str(file)), noise(1))
    images.load("#0")[:] = 0
    assert np.array_equal(images.load("#0"), noise(0))  # what is given is the caller's own
    fails("no picture #3", make=lambda: images.load("#3"))
    changed = Images([noise(0)], lambda key, picture: picture[::-1])
    assert np.array_equal(changed.load("#0"), noise(0)[::-1])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels stand first"),
        (np.zeros((8, 8, 3), np.float32), "(255 * x)"),
        (np.zeros((8, 8, 3), np.int64), "got int64"),
        (np.zeros((0, 8, 3), np.uint8), "got (0, 8, 3)"),
        (np.zeros(8, np.uint8), "got (8,)"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, said: str) -> None:
    fails(said, make=lambda: of_array(array))


# --- folders


def test_a_folder_per_class(photos: Path) -> None:
    seen: list[tuple[int, int]] = []
    task = Task.from_folder(photos, done=lambda i, n: seen.append((i, n)))
    assert (task.modality, task.kind, task.fields, task.labels) == ("image", "classification", ("image",), CLASSES)
    assert task.name == "photos" and task.describe().startswith("photos: classification, 4 classes, 26 train")
    assert [len(p) for p in (task.train, task.valid, task.test)] == [26, 6, 8]
    assert len(keys(everything(task))) == 40
    assert seen == [(i, 40) for i in range(1, 41)]
    assert task.images is not None
    for e in everything(task):
        assert isinstance(e.gold, int) and Path(e.inputs[0]).parent.name == task.labels[e.gold]
        assert e.where == f"photos/{task.labels[e.gold]}/{Path(e.inputs[0]).name}"
        assert np.array_equal(task.images.load(e.inputs[0]), np.asarray(Image.open(e.inputs[0])))
    assert Task.from_lists(["a", "b"] * 5, ["x", "y"] * 5, split=Split(valid=0, test=0)).modality == "text"


def test_k_shots_by_seed(photos: Path) -> None:
    a, b, c = (Task.from_folder(photos, split=Split(seed=s, shots=2)) for s in (1, 1, 2))
    assert len(a.train) == len(a.valid) == 8 and set(Counter(e.gold for e in a.train).values()) == {2}
    assert keys(a.train) == keys(b.train) != keys(c.train)
    assert not keys(a.train) & (keys(a.valid) | keys(a.test))
    fails("class 'bird' has 8 different", "shots=4", make=lambda: Task.from_folder(photos, split=Split(shots=9)))
    assert a.seed == 1


def test_many_classes_of_one_picture_each(tmp_path: Path) -> None:
    for c in range(24):
        save(tmp_path / "train" / f"c{c}" / "a.png", c)
        save(tmp_path / "test" / f"c{c}" / "a.png", 100 + c)
    task = Task.from_folder(tmp_path, split=Split(valid=0))
    assert len(task.labels) == 24 and len(task.train) == 24


def test_moving_the_folder_keeps_the_task_and_a_pixel_changes_it(photos: Path, tmp_path: Path) -> None:
    before = Task.from_folder(photos)
    shutil.move(photos, tmp_path / "elsewhere" / "photos")
    photos = tmp_path / "elsewhere" / "photos"
    after = Task.from_folder(photos)
    assert after.fingerprint == before.fingerprint
    assert [e.id for e in everything(after)] == [e.id for e in everything(before)]
    assert [Path(e.inputs[0]).name for e in after.train] == [Path(e.inputs[0]).name for e in before.train]
    save(photos / "cat" / "0.png", 999)
    assert Task.from_folder(photos).fingerprint != before.fingerprint


def test_the_fingerprint_of_texts_is_as_it_was() -> None:
    task = Task.from_lists(["a", "b", "c", "d"], ["x", "y", "x", "y"], split=Split(valid=0, test=0))
    assert task.fingerprint == "d00d26a8265391599d0eac168f1d5e29"  # before there were pictures


def test_given_parts(photos: Path, tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("val", 50), ("test", 90)):
        for c, name in enumerate(CLASSES):
            for i in range(3):
                save(tmp_path / "parts" / part / name / f"{i}.png", 1000 * (c + 1) + seed + i)
    task = Task.from_folder(tmp_path / "parts")
    assert [len(p) for p in (task.train, task.valid, task.test)] == [12, 12, 12] and task.name == "parts"
    assert all(f"{Path('parts')}/val/" in e.where for e in task.valid)
    assert len(Task.from_folder(tmp_path / "parts", split=Split(shots=2)).train) == 8
    shutil.rmtree(tmp_path / "parts" / "val")
    (tmp_path / "parts" / "extras").mkdir()
    with warned("folders of parts left out: extras"):
        task = Task.from_folder(tmp_path / "parts")
    assert 0 < len(task.valid) < 12 and len(task.test) == 12
    fails("give one or the other", make=lambda: Task.from_folder(tmp_path / "parts", test=photos))
    shutil.rmtree(tmp_path / "parts" / "train")
    shutil.rmtree(tmp_path / "parts" / "extras")
    save(tmp_path / "parts" / "valid" / "cat" / "1.png", 3)
    fails("no train folder", make=lambda: Task.from_folder(tmp_path / "parts"))
    task = Task.from_folder(photos, test=tmp_path / "parts" / "test")
    assert len(task.test) == 12 and len(task.train) + len(task.valid) == 40


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for c, name in enumerate(("bus", "train")):
        for i in range(4):
            save(tmp_path / name / f"{i}.png", 10 * c + i)
    assert Task.from_folder(tmp_path, split=Split(shots=1)).labels == ("bus", "train")


def test_what_is_left_out_is_told(photos: Path) -> None:
    (photos / ".DS_Store").write_text("x")
    (photos / "cat" / ".hidden.png").write_text("x")
    (photos / ".git").mkdir()
    save(photos / "cat" / ".thumbs" / "0.png", 7)
    Task.from_folder(photos)  # hidden files are no news
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / "dog" / "a.heic").write_text("x")
    (photos / "wolf").mkdir()
    save(photos / "loose.png", 5)
    save(photos / "dog" / "puppies" / "deep.jpg", 6)
    with warned(
        "the folder photos/wolf holds no pictures",
        "2 files left out as no pictures, by suffix (.txt, .heic), such as photos/cat/notes.txt",
        "1 picture left out that lies in no class folder, such as photos/loose.png",
    ):
        task = Task.from_folder(photos)
    assert task.labels == CLASSES and len(everything(task)) == 41
    assert any(e.where == "photos/dog/puppies/deep.jpg" for e in everything(task))


def test_links_in_circles_end(photos: Path) -> None:
    (photos / "cat" / "again").symlink_to(photos / "cat")
    assert len(everything(Task.from_folder(photos))) == 40


def test_folders_that_are_none(photos: Path, tmp_path: Path) -> None:
    fails("no such folder", "Did you mean 'photos'", make=lambda: Task.from_folder(tmp_path / "potos"))
    fails("is a file", "folder per class", make=lambda: Task.from_folder(photos / "cat" / "0.png"))
    fails("no pictures in folders", "10 pictures left out", make=lambda: Task.from_folder(photos / "cat"))
    for name in CLASSES[1:]:
        shutil.rmtree(photos / name)
    fails("only one class folder with pictures, 'bird'", make=lambda: Task.from_folder(photos))
    fails("leave image out", make=lambda: Task.from_folder(photos, image="x"))
    fails("Task.from_folder", make=lambda: Task.from_csv(photos))


def test_broken_pictures_are_found_at_once(photos: Path) -> None:
    cut = photos / "dog" / "3.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (photos / "dog" / "4.png").write_text("no picture")
    fails("photos/dog/3.png: broken picture", "--skip-bad", make=lambda: Task.from_folder(photos))
    with warned("2 pictures left out that cannot be opened (skip_bad). The first: photos/dog/3.png: broken picture"):
        task = Task.from_folder(photos, skip_bad=True)
    assert len(everything(task)) == 38 and not task.notes[0].endswith("(skip_bad=True).")


def test_labels_are_checked_before_pictures_are_opened(tmp_path: Path) -> None:
    seen: list[int] = []
    file = table(tmp_path / "l.csv", ["f", "label"], [[str(save(tmp_path / "a.png", 1)), "x"]] * 3)
    fails("only 'x'", make=lambda: Task.from_csv(file, image="f", done=lambda i, n: seen.append(i)))
    assert not seen


def test_a_class_of_broken_pictures_only_is_none(photos: Path) -> None:
    for file in (photos / "cat").iterdir():
        file.write_bytes(b"")
    with warned("10 pictures left out that cannot be opened"):
        assert Task.from_folder(photos, skip_bad=True).labels == ("bird", "dog", "fish")


def test_the_same_picture_in_two_parts_is_noticed(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "copy.png")
    task = Task.from_folder(photos)  # of one part: the two stay together
    assert not task.notes
    for name in CLASSES:
        save(tmp_path / "test" / name / "new.png", 5000 + ord(name[0]))
    shutil.copy(photos / "cat" / "0.png", tmp_path / "test" / "cat" / "leak.png")
    with warned("1 example of test is in train too, such as test/cat/leak.png = photos/cat/"):
        Task.from_folder(photos, test=tmp_path / "test", split=Split(valid=0))
    shutil.copy(photos / "cat" / "1.png", photos / "dog" / "clash.png")
    with warned("1 example of test", "1 input of train has different gold in different rows"):
        task = Task.from_folder(photos, test=tmp_path / "test", split=Split(valid=0))
    assert task.notes[0].endswith("/test/cat/leak.png'. The score on test flatters.")


# --- tables, arrays, datasets


def test_a_table_of_paths(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[f"photos/{c}/{i}.png", c] for i in range(10) for c in CLASSES]
    file = table(tmp_path / "list.csv", ["file", "kind"], rows)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")  # paths start from the table
    task = Task.from_csv("../list.csv", label="kind", image="file")
    assert task.modality == "image" and task.fields == ("image",) and len(everything(task)) == 40
    assert task.fingerprint == Task.from_folder(photos).fingerprint  # the same pictures and classes
    assert {e.where.partition(":")[0] for e in task.train} == {"list.csv"}
    short = table(tmp_path / "cwd" / "short.csv", ["file", "kind"], [[f"{c}/{i}.png", c] for _, c in rows for i in [1]])
    rooted = Task.from_csv(short, label="kind", image="file", root=str(photos), split=Split(valid=0, test=0))
    assert {Path(k).parent.parent for k in keys(rooted.train)} == {photos}
    fails("no column 'fil'", "'file'", make=lambda: Task.from_csv(file, label="kind", image="fil"))
    fails("one or the other", make=lambda: Task.from_csv(file, text="file", label="kind", image="file"))
    table(file, ["file", "kind"], [*rows, ["photos/cat/99.png", "cat"], ["", "cat"], ["http://x/a.png", "cat"]])
    fails("list.csv:43: column 'file' is empty", make=lambda: Task.from_csv(file, label="kind", image="file"))
    with warned(
        "2 rows left out (skip_bad). The first: list.csv:43",
        "1 picture left out",
    ):
        Task.from_csv(file, label="kind", image="file", skip_bad=True)
    table(file, ["file", "kind"], [*rows, ["photos/cat/99.png", "cat"]])
    fails("list.csv:42: no such picture", "'9.png'", make=lambda: Task.from_csv(file, label="kind", image="file"))


def test_several_labels(photos: Path, tmp_path: Path) -> None:
    rows = [[f"photos/{c}/{i}.png", f"{c}|{'odd' if i % 2 else 'even'}"] for i in range(10) for c in CLASSES]
    task = Task.from_csv(
        table(tmp_path / "l.csv", ["image", "label"], rows), image="image", kind="multilabel", split=Split(shots=1)
    )
    assert task.kind == "multilabel" and task.labels == ("bird", "cat", "dog", "even", "fish", "odd")
    assert all(isinstance(e.gold, tuple) and len(e.gold) == 2 for e in everything(task))


def test_records_with_pictures_in_memory_and_on_disk(photos: Path) -> None:
    records = [{"p": Image.fromarray(noise(0)), "c": "x"}, {"p": noise(1), "c": "y"},
               {"p": {"bytes": (photos / "cat" / "0.png").read_bytes(), "path": None}, "c": "x"},
               {"p": photos / "dog" / "1.png", "c": "y"}]  # fmt: skip
    task = Task.from_records(records, image="p", label="c", split=Split(valid=0, test=0))
    assert task.images is not None
    loaded = {e.where: task.images.load(e.inputs[0]) for e in task.train}
    for i, seed in enumerate((0, 1, 100, 201)):
        assert np.array_equal(loaded[f"row {i}"], noise(seed))
    records[1]["p"] = noise(1).astype(float)
    fails(
        "row 1: column 'p': expected a picture of uint8", make=lambda: Task.from_records(records, image="p", label="c")
    )


def test_arrays() -> None:
    stack = np.stack([noise(i) for i in range(12)])
    task = Task.from_arrays(stack, [i % 2 for i in range(12)], names=("cat", "dog"), split=Split(shots=2))
    assert task.labels == ("cat", "dog") and len(task.train) == 4 and not task.source
    assert task.images is not None
    for e in everything(task):
        assert np.array_equal(task.images.load(e.inputs[0]), stack[int(e.where.removeprefix("row "))])
        assert e.gold == int(e.where.removeprefix("row ")) % 2
    other = stack.copy()
    other[3, 0, 0, 0] ^= 1
    make = lambda images: Task.from_arrays(images, ["a", "b"] * 6, split=Split(valid=0, test=0)).fingerprint  # noqa: E731
    assert make(stack) == make(list(stack)) != make(other)
    grey = Task.from_arrays(stack[..., 0], ["a", "b"] * 6, test=(list(stack[:2]), ["a", "b"]), split=Split(valid=0))
    assert grey.images is not None and grey.images.load(grey.test[0].inputs[0]).shape == (12, 10, 3)
    assert len(grey.train) == 12 and grey.test[1].where == "test row 1"
    sizes = [noise(i, (8 + i, 9)) for i in range(4)]
    assert len(Task.from_arrays(sizes, list("abab"), split=Split(valid=0, test=0)).train) == 4
    fails("12 pictures, but 2 labels", make=lambda: Task.from_arrays(stack, ["a", "b"]))
    fails("row 11: the label 7 is no index", make=lambda: Task.from_arrays(stack, [*([0, 1] * 5), 1, 7], names="xy"))
    fails("no class 'z'", make=lambda: Task.from_arrays(stack, ["x", "z"] * 6, names=["x", "y"]))
    fails("there is nothing to read it from", make=lambda: Task.from_source(task.source))


def test_arrays_of_several_labels() -> None:
    stack = np.stack([noise(i) for i in range(6)])
    grid = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]] * 2)
    lists = [[0, 2], [1], [0, 1, 2]] * 2
    a, b = (Task.from_arrays(stack, labels, names="xyz", split=Split(valid=0, test=0)) for labels in (grid, lists))
    assert a.kind == b.kind == "multilabel" and a.fingerprint == b.fingerprint
    assert {e.where: e.gold for e in a.train}["row 0"] == (0, 2)
    fails("expected (N, 2) of 0 and 1", make=lambda: Task.from_arrays(stack, grid, names="xy"))


def test_hugging_face_datasets(photos: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = [photos / c / f"{i}.png" for i in range(10) for c in CLASSES]
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=list(CLASSES))})
    data = datasets.Dataset.from_dict({"img": [str(p) for p in made], "kind": [0, 1, 2, 3] * 10}, features=features)
    task = Task.from_dataset(data, label="kind", image="img")
    assert task.fingerprint == Task.from_folder(photos).fingerprint and task.images is not None
    held = datasets.Dataset.from_dict(
        {"img": [{"bytes": p.read_bytes(), "path": None} for p in made], "kind": [0, 1, 2, 3] * 10}, features=features
    )
    again = Task.from_dataset(held, image="img", label="kind")
    assert again.fingerprint == task.fingerprint and again.images is not None
    one = again.train[0]
    assert one.inputs[0].startswith("#") and np.array_equal(
        again.images.load(one.inputs[0]), load(made[int(one.where.removeprefix("row "))])
    )


# --- again


def test_reading_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = Task.from_folder("photos", split=Split(seed=3, shots=2), words={"cat": "kitten"})
    base, new = base_to_new(task)
    foggy = corrupted(new, "fog", 2)
    monkeypatch.chdir("/")
    for made in (task, base, new, foggy):
        again = Task.from_source(json.loads(json.dumps(made.source)))
        assert again == made and again.fingerprint == made.fingerprint and again.name == made.name
        assert again.images is not None and made.images is not None
        key = made.train[0].inputs[0]
        assert np.array_equal(again.images.load(key), made.images.load(key))
    file = table(tmp_path / "l.csv", ["f", "label"], [[f"photos/{c}/{i}.png", c] for i in range(5) for c in CLASSES])
    task = Task.from_csv(file, image="f")
    assert Task.from_source(json.loads(json.dumps(task.source))).fingerprint == task.fingerprint


def test_a_replaced_task_keeps_its_pictures(photos: Path) -> None:
    task = Task.from_folder(photos)
    assert replace(task, test=()).images is task.images and replace(task.train[0], gold=1).content


# --- drawn pictures


def test_write_draws_a_folder_per_class(tmp_path: Path) -> None:
    files = pictures.write(tmp_path / "a", per_class=2, seed=1, size=16)
    assert len(files) == 32 and files[0].parent.name == "red circle" and load(files[0]).shape == (16, 16, 3)
    again = pictures.write(tmp_path / "b", per_class=3, seed=1, size=16)
    assert np.array_equal(load(files[0]), load(again[0]))  # more of them are the same and others
    other = pictures.write(tmp_path / "c", per_class=2, seed=2, size=16)
    assert not np.array_equal(load(files[0]), load(other[0]))
    task = Task.from_folder(tmp_path / "b", split=Split(shots=1))
    assert len(task.labels) == 16 and not task.notes
    for kind in pictures.CLASSES:
        made = pictures.write(tmp_path / kind, classes=kind, per_class=1, size=16)
        assert len({f.parent.name for f in made}) == len(made) >= 4
    named = pictures.write(tmp_path / "d", classes="count", per_class=1, size=16, names={"one": "single"})
    assert {f.parent.name for f in named} == {"single", "two", "three", "four"}
    fails("holds other files", make=lambda: pictures.write(tmp_path / "a"))
    fails("no classes 'shap'", "'shape'", make=lambda: pictures.write(tmp_path / "e", classes="shap"))
    fails("no style 'flatt'", make=lambda: pictures.write(tmp_path / "e", style="flatt"))
    fails("at least 1 picture", make=lambda: pictures.write(tmp_path / "e", per_class=0))
    fails("no class 'uno'", make=lambda: pictures.write(tmp_path / "e", classes="count", names={"uno": "x"}))
    assert not (tmp_path / "e").exists()


def test_a_class_is_what_its_folder_says(tmp_path: Path) -> None:
    for file in pictures.write(tmp_path / "a", classes="background", per_class=3, size=32):
        corner = load(file)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0)
        near = {k: np.abs(np.mean(v, 0) - corner).sum() for k, v in pictures.BACKGROUNDS.items()}
        assert min(near, key=lambda k: near[k]) == file.parent.name


# --- the command line


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="anacrusis")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def constant(photos: Path, here: Path) -> Path:
    """A prompt for pictures that answers without a model: always dog."""
    import torch

    from anacrusis.prompt.store import save as keep
    from anacrusis.prompt.values import Constant, Frame

    frame = Frame(fields=("image",), template="{image}", labels=CLASSES, words=CLASSES, readout="similarity")
    prompt = Constant(frame=frame, scores=torch.tensor([[0.0, 0.0, 1.0, 0.0]]), card={"seed": 0})
    keep(prompt, here / "always")
    return here / "always"


def test_draw(here: Path) -> None:
    done = call("draw", "photos", "--classes", "shape", "--per-class", "2", "--size", "16", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pictures"] == 20 and found["classes"] == sorted(pictures.SHAPES) and found["folder"] == "photos"
    assert len(list((here / "photos").glob("*/*.png"))) == 20
    again = call("draw", "photos")
    assert again.exit_code == 2 and "name a new folder" in again.stderr
    shown = call("draw", "other", "--classes", "count", "--per-class", "1", "--size", "16")
    assert "4 pictures of 4 classes in other" in shown.stdout


def test_evaluate_reads_folders_and_tables(constant: Path, photos: Path) -> None:
    done = call("evaluate", constant, photos, "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n"] == 40 and found["value"] == 0.25
    table(photos.parent / "l.csv", ["f", "label"], [[f"photos/{c}/{i}.png", c] for i in range(5) for c in CLASSES[1:3]])
    found = json.loads(call("evaluate", constant, "l.csv", "--image", "f", "--json", "--quiet").stdout)
    assert found["n"] == 10 and found["value"] == 0.5
    wrong = call("evaluate", constant, photos, "--text", "f")
    assert wrong.exit_code == 2 and "--text names a column" in wrong.stderr
    wrong = call("evaluate", constant, "l.csv", "--text", "f")
    assert wrong.exit_code == 2 and "reads pictures" in wrong.stderr


def test_evaluate_corrupts_and_divides(constant: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for more, said in (
        (("--corruption", "fgo"), "Did you mean 'fog'"),
        (("--corruption", "fog", "--severity", "6"), "severity=6"),
        (("--severity", "3"), "--corruption fog"),
        (("--classes", "old"), "base, new, all"),
    ):
        wrong = call("evaluate", constant, photos, *more)
        assert wrong.exit_code == 2 and said in wrong.stderr, wrong.stderr
    seen: list[Task] = []
    from anacrusis.measure import evaluate as module

    scored = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda p, m, task, **k: seen.append(task) or scored(p, m, task, **k))
    for more, name in (((), "photos+fog-3"), (("--severity", "5"), "photos+fog-5")):
        assert call("evaluate", constant, photos, "--corruption", "fog", *more, "--quiet").exit_code == 0
        assert seen[-1].name == name and seen[-1].images is not None and len(seen[-1].test) == 40
        key = seen[-1].test[0].inputs[0]
        assert not np.array_equal(seen[-1].images.load(key), load(key))


def test_opening_many_shows_how_far_it_is(constant: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anacrusis.commands.shared.MANY", 40)
    assert "opening 40 pictures" in call("evaluate", constant, photos).stderr
    assert "opening" not in call("evaluate", constant, photos, "--quiet").stderr
    assert "drawing 40 pictures" in call("draw", "d", "--classes", "shape", "--per-class", 4, "--size", 8).stderr
    monkeypatch.setattr("anacrusis.commands.shared.MANY", 41)
    assert "opening" not in call("evaluate", constant, photos).stderr


def test_to_score(constant: Path, photos: Path) -> None:
    from anacrusis._inputs import load_prompt, to_score
    from anacrusis._options import Data

    prompt = load_prompt(constant)
    base, _ = to_score(prompt, Data(data=photos, classes="base"), None)
    # the prompt's classes, and the examples of half of them
    assert base.labels == CLASSES and {e.gold for e in base.test} == {0, 1} and base.images is not None
    assert base.images.load(base.test[0].inputs[0]).shape == (12, 10, 3)
    few = replace(prompt, frame=replace(prompt.frame, labels=CLASSES[:2], words=CLASSES[:2]))
    new, notes = to_score(few, Data(data=photos, classes="new"), None)
    assert new.labels == CLASSES[2:] and {e.gold for e in new.test} == {0, 1} and "2 of 2 classes are new" in notes[-1]
    every, notes = to_score(few, Data(data=photos, classes="all"), None)
    assert every.labels == CLASSES and "2 of 4 classes are new" in notes[-1]
    # it is told where a prompt is scored on what it has learned from
    for classes in (None, "base"):
        learned = Data(data=photos, classes=classes, seed=4).read()
        known = replace(prompt, card={"seed": 4, "data": learned.fingerprint})
        _, notes = to_score(known, Data(data=photos, classes=classes, seed=None), None)
        assert any("flatters" in n for n in notes)
        _, notes = to_score(known, Data(data=photos, classes=classes, seed=None), "test")
        assert not notes
    _, notes = to_score(prompt, Data(data=photos), None)
    assert not notes


def test_predict_takes_files(constant: Path, photos: Path) -> None:
    done = call("predict", constant, "photos/cat/0.png", photos / "dog" / "1.png")
    assert done.exit_code == 0 and done.stdout == "dog\ndog\n", done.stderr
    wrong = call("predict", constant, "photos/cat/0.pgn")
    assert wrong.exit_code == 2 and "Did you mean '0.png'" in wrong.stderr
    (photos / "notes.txt").write_text("x")
    assert "not a picture" in call("predict", constant, "photos/notes.txt").stderr
    assert "is a folder" in call("predict", constant, "photos").stderr
    piped = CliRunner().invoke(app, ["predict", str(constant)], input="photos/cat/0.png\nphotos/x.png\n")
    assert piped.exit_code == 2 and "line 2 of stdin: no such picture" in piped.stderr


def test_a_prompt_for_texts_refuses_pictures(constant: Path, photos: Path) -> None:
    from anacrusis._inputs import load_prompt, to_score
    from anacrusis._options import Data

    prompt = load_prompt(constant)
    texts = replace(prompt, frame=replace(prompt.frame, fields=("text",), template="{text}"))
    fails("reads text, and", "holds pictures", make=lambda: to_score(texts, Data(data=photos), None))


def test_fit_refuses_before_anything_is_opened(photos: Path, here: Path) -> None:
    (photos / "cat" / "0.png").write_text("broken")
    for arguments, said in (
        (("photos",), "photos/cat/0.png: not a picture"),
        (("photos", "--kind", "classes"), "unknown kind"),
        (("photos", "--label", "x"), "--label names a column"),
        (("photos", "--classes", "half"), "base, new, all"),
    ):
        wrong = call("fit", *arguments)
        assert wrong.exit_code == 2 and said in wrong.stderr, wrong.stderr


def test_no_warnings_beside_ours(photos: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = random.getstate()
        assert isinstance(Task.from_folder(photos), Task) and random.getstate() == state
    assert issubclass(DataWarning, UserWarning) and issubclass(ConfigError, AnacrusisError) and DataError
