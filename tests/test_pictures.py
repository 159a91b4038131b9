"""The world of pictures: everything follows from a seed, captions tell the truth, styles change how and not what."""

from __future__ import annotations

import random

import numpy as np
import pytest

from anacrusis import pictures
from anacrusis.errors import ConfigError
from anacrusis.pictures import COLOURS, SHAPES, STYLES, Scene, agrees, caption, draw, scene


def test_a_seed_gives_a_picture() -> None:
    of = Scene("star", "red", "striped", "small", 2, "sky")
    a, b, c = (draw(of, random.Random(s), 48) for s in (1, 1, 2))
    assert a.shape == (48, 48, 3) and a.dtype == np.uint8
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_seen_in_every_style(shape: str, style: str) -> None:
    of = Scene(shape, "blue", background="white")
    # grain is averaged away
    smooth = draw(of, random.Random(0), 64, style).astype(float).reshape(16, 4, 16, 4, 3).mean((1, 3))
    there = np.abs(smooth - np.median(smooth[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)).sum(2) > 70
    assert 0.02 < there.mean() < 0.8


@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_has_its_colour(colour: str) -> None:
    picture = draw(Scene("square", colour, background="black"), random.Random(3)).astype(float)
    inside = picture[24:40, 24:40].reshape(-1, 3).mean(0)
    nearest = min(COLOURS, key=lambda c: float(np.abs(np.array(COLOURS[c]) - inside).sum()))
    assert nearest == colour


def test_more_things_cover_more_and_small_ones_less() -> None:
    def share(**entries: object) -> float:
        of = Scene("circle", "red", background="black", **entries)  # type: ignore[arg-type]
        return float((draw(of, random.Random(5)).astype(int)[..., 0] > 100).mean())

    assert share(size="small") < 0.6 * share()
    assert share(count=1, size="small") < share(count=4)


def test_captions_are_true_and_tell_what_they_say_they_tell() -> None:
    rng = random.Random(0)
    for _ in range(300):
        of = scene(rng)
        text, told = caption(of, rng)
        assert agrees(told, of, of)
        if "colour" in told:
            assert of.colour in text
        assert not any(c in text.split() for c in COLOURS if c != of.colour and c != "orange")
        for other in (scene(rng) for _ in range(5)):
            if agrees(told, of, other) and "shape" in told:
                assert other.shape == of.shape


def test_what_is_not_told_may_differ() -> None:
    red, blue = Scene("star", "red"), Scene("star", "blue")
    assert agrees(frozenset({"shape"}), red, blue) and not agrees(frozenset({"colour"}), red, blue)
    # "a star" is true of two stars, "two stars" is not true of one
    two = Scene("star", "red", count=2)
    assert agrees(frozenset({"shape", "count"}), red, two) and not agrees(frozenset({"shape", "count"}), two, red)


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match="no shape 'stair'. Did you mean 'star'"):
        Scene("stair", "red")
    with pytest.raises(ConfigError, match="no style 'nite'"):
        draw(Scene("star", "red"), random.Random(0), style="nite")
    with pytest.raises(ConfigError, match="count is 5"):
        Scene("star", "red", count=5)
    assert pictures.STYLES[0] == "flat"
