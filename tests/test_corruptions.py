"""Corruptions: the same for the same seed, worse with severity, and what each of them does to a picture."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from anacrusis.errors import ConfigError, DataError
from anacrusis.pictures import Picture, draw, scene
from anacrusis.task import Split, Task
from anacrusis.task.corruptions import CHANGES, CORRUPTIONS, corrupt, corrupted

GREY = np.full((32, 48, 3), 128, np.uint8)


@cache
def drawn() -> tuple[Picture, ...]:
    made = []
    for seed in range(6):
        rng = random.Random(seed)
        made.append(draw(scene(rng, background="sand"), rng, 64))
    return tuple(made)


def distance(a: Picture, b: Picture) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def edge() -> Picture:
    """Black on the left, white on the right."""
    return np.where(np.arange(64)[None, :, None] < 16, 0, 255).astype(np.uint8).repeat(64, 0).repeat(3, 2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_follows_from_the_seed_and_leaves_the_picture(name: str) -> None:
    picture = drawn()[0]
    before = picture.copy()
    a, b, c = (corrupt(picture, name, 3, seed) for seed in (1, 1, 2))
    assert a.shape == picture.shape and a.dtype == np.uint8 and np.array_equal(a, b)
    assert np.array_equal(picture, before) and not np.shares_memory(a, picture)
    by_chance = {"gaussian-noise", "shot-noise", "impulse-noise", "motion-blur", "fog", "snow"}
    assert np.array_equal(a, c) == (name not in by_chance)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_is_worse(name: str) -> None:
    means = [np.mean([distance(p, corrupt(p, name, s, 5)) for p in drawn()]) for s in range(1, 6)]
    assert all(b > 1.04 * a for a, b in zip(means, means[1:], strict=False)), means
    assert 0.3 < means[0] < 60 and means[-1] < 160


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 300), (28, 28)])
def test_pictures_of_any_size_and_of_one_colour(name: str, shape: tuple[int, int]) -> None:
    for value in (0, 255):
        found = corrupt(np.full((*shape, 3), value, np.uint8), name, 5)
        assert found.shape == (*shape, 3)


def test_noise_is_as_strong_as_said() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    gaussian = corrupt(grey, "gaussian-noise", 1).astype(float)
    assert abs(gaussian.mean() - 128) < 1 and abs(gaussian.std() / 255 - CHANGES["gaussian-noise"][1][0]) < 0.004
    shot = corrupt(grey, "shot-noise", 1).astype(float)
    assert abs(shot.std() / 255 - 0.13 * (128 / 255) ** 0.5) < 0.004
    assert (corrupt(grey * 0, "shot-noise", 5) == 0).all()  # no light, no noise of it
    impulse = corrupt(grey, "impulse-noise", 3)
    assert set(np.unique(impulse)) == {0, 128, 255} and abs((impulse != 128).mean() - 0.09) < 0.01


@pytest.mark.parametrize("name", ["gaussian-blur", "defocus-blur", "motion-blur", "zoom-blur"])
def test_blur_softens_edges_and_leaves_planes(name: str) -> None:
    found = corrupt(edge(), name, 5)
    steps = np.abs(np.diff(found[..., 0].astype(int), axis=1)).max()
    assert steps < 200 and found[:, 0].mean() < 60 and found[:, -1].mean() > 195
    assert np.array_equal(corrupt(GREY, name, 5), GREY)


def test_gaussian_blur_by_hand() -> None:
    found = corrupt(edge(), "gaussian-blur", 5)[0, 12:20, 0] / 255
    sigma = 0.04 * 64
    weights = np.exp(-0.5 * (np.arange(-8, 9) / sigma) ** 2)
    weights /= weights.sum()
    wanted = [weights[8 + 16 - x :].sum() for x in range(12, 20)]
    assert np.abs(found - wanted).max() < 1 / 255


def test_light_by_hand() -> None:
    picture = np.array([[[100, 52, 20], [0, 0, 0]]], np.uint8)
    assert corrupt(picture, "darkness", 3).tolist() == [[[50, 26, 10], [0, 0, 0]]]
    assert corrupt(picture, "brightness", 2).tolist() == [[[151, 103, 71], [51, 51, 51]]]  # 0.2 * 255 more
    # three tenths of the distance from the means 50, 26 and 10 are left
    assert corrupt(picture, "contrast", 3).tolist() == [[[65, 34, 13], [35, 18, 7]]]
    assert corrupt(picture, "posterize", 5).tolist() == [[[0, 0, 0], [0, 0, 0]]]
    assert sorted(np.unique(corrupt(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3), "posterize", 3))) == [
        0, 85, 170, 255,
    ]  # fmt: skip
    assert np.array_equal(corrupt(GREY, "saturate", 5), GREY)
    r, g, b = corrupt(np.full((2, 2, 3), (140, 120, 110), np.uint8), "saturate", 2)[0, 0].astype(int)
    assert r > 140 and b < 110 and r - b == pytest.approx(1.9 * 30, abs=1)


def test_coarse_pixels() -> None:
    found = corrupt(drawn()[0], "pixelate", 5)  # of 8 of 64
    cells = found.reshape(8, 8, 8, 8, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    wanted = drawn()[0].reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(cells[:, 0, :, 0] - wanted).max() <= 0.51


def test_weather_whitens() -> None:
    dark = np.full((64, 64, 3), 20, np.uint8)
    fog, snow = corrupt(dark, "fog", 3), corrupt(dark, "snow", 3)
    assert fog.mean() > 60 and fog.std() > 3 and fog.max() < 0.82 * 255 + 1
    assert (snow > 200).mean() > 0.05 and np.median(snow) < 100


def test_wrong_names_and_severities_are_told() -> None:
    with pytest.raises(ConfigError, match="unknown corruption 'fgo'. Did you mean 'fog'"):
        corrupt(GREY, "fgo", 1)
    for severity in (0, 6, True, 2.5):
        with pytest.raises(ConfigError, match="from 1"):
            corrupt(GREY, "fog", severity)  # type: ignore[arg-type]
    for wrong in (GREY[..., 0], GREY.astype(float), [[1]]):
        with pytest.raises(DataError, match="expected a picture"):
            corrupt(wrong, "fog", 1)  # type: ignore[arg-type]


# --- a task of corrupted pictures


@pytest.fixture
def task() -> Iterator[Task]:
    pictures = [p for p in drawn()] + [255 - p for p in drawn()]
    yield Task.from_arrays(pictures, [0, 1] * 6, names=("cat", "dog"), name="photos", split=Split(shots=1))


def test_a_corrupted_task(task: Task) -> None:
    foggy = corrupted(task, "fog", 3)
    assert foggy.name == "photos+fog-3" and foggy.images is not None and task.images is not None
    for part in ("train", "valid", "test"):
        for a, b in zip(getattr(task, part), getattr(foggy, part), strict=True):
            assert (a.inputs, a.gold, a.where) == (b.inputs, b.gold, b.where) and a.id != b.id
            clean, worse = task.images.load(a.inputs[0]), foggy.images.load(b.inputs[0])
            assert 5 < distance(clean, worse)
            assert np.array_equal(worse, foggy.images.load(b.inputs[0]))
            assert np.array_equal(b.inputs[0].load(), worse)  # type: ignore[attr-defined]  # what models do
    prints = {
        t.fingerprint
        for t in (task, foggy, corrupted(task, "fog", 4), corrupted(task, "snow", 3), corrupted(task, "fog", 3, 1))
    }
    assert len(prints) == 5 and corrupted(task, "fog", 3).fingerprint == foggy.fingerprint


def test_the_seed_and_the_picture_make_the_noise() -> None:
    task = Task.from_arrays([GREY, GREY.copy(), GREY[:30]], [0, 0, 1], names="xy", split=Split(valid=0, test=0))
    at = {e.where: e.inputs[0] for e in task.train}
    noisy, other = (corrupted(task, "gaussian-noise", 1, seed).images for seed in (0, 1))
    assert noisy is not None and other is not None
    first = noisy.load(at["row 0"])
    assert np.array_equal(first, noisy.load(at["row 1"]))  # the same picture elsewhere
    assert not np.array_equal(first[:30], noisy.load(at["row 2"]))
    assert not np.array_equal(first, other.load(at["row 0"]))


def test_corruptions_add_up(task: Task) -> None:
    both = corrupted(corrupted(task, "pixelate", 5), "darkness", 5)
    assert both.name == "photos+pixelate-5+darkness-5" and both.images is not None and task.images is not None
    key = task.train[0].inputs[0]
    wanted = corrupt(corrupt(task.images.load(key), "pixelate", 5), "darkness", 5)
    assert np.array_equal(both.images.load(key), wanted)


def test_texts_cannot_be_corrupted() -> None:
    texts = Task.from_lists(["a", "b"] * 5, ["x", "y"] * 5, split=Split(valid=0, test=0))
    with pytest.raises(ConfigError, match="a task of texts"):
        corrupted(texts, "fog", 3)
