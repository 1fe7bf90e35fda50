"""Places: the same at any time and any size, in range, recognisable, and never in the way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scenes import painter
from helpers.scenes.backdrops import HOME, NAMES, Backdrop, paint
from helpers.scenes.props import PROP, props, strips
from helpers.scenes.textures import REPEATS, TILE, textures

families = pytest.mark.parametrize("name", NAMES)


def place(name: str, seed: int, size: int) -> Backdrop:
    return paint(name, np.random.default_rng(seed), size)


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def covered(front, size: int = 128) -> np.ndarray:
    """Where the strokes in front lie: (size, size) bool."""
    mask = np.zeros((size, size), np.uint8)
    for stroke in front.strokes:
        cv2.fillPoly(mask, [np.rint(stroke.outline * size).astype(np.int32)], 1)
    return mask > 0


@families
@given(seed=st.integers(0, 2**32), size=st.integers(16, 224))
@settings(max_examples=12, deadline=None)
def test_every_place_can_be_painted(name: str, seed: int, size: int) -> None:
    behind = place(name, seed, size)
    assert behind.image.shape == (size, size, 3)
    assert behind.image.dtype == np.float32
    assert behind.image.min() >= 0 and behind.image.max() <= 1
    assert behind.image.std() > 0.01  # never a blank sheet
    assert behind.ground is None or 0.25 < behind.ground < 0.9
    for stroke in behind.front.strokes:
        assert stroke.outline.ndim == 2 and stroke.outline.shape[1] == 2
        assert np.isfinite(stroke.outline).all()
        assert stroke.colour.shape == (3,)
        assert stroke.colour.min() >= 0 and stroke.colour.max() <= 1
        assert stroke.part == "" and not stroke.on


@families
def test_same_generator_same_place(name: str) -> None:
    first, other = place(name, 3, 64), place(name, 3, 64)
    assert np.array_equal(first.image, other.image)
    assert first.ground == other.ground
    for a, b in zip(first.front.strokes, other.front.strokes, strict=True):
        assert np.array_equal(a.outline, b.outline) and np.array_equal(a.colour, b.colour)
    assert not np.array_equal(first.image, place(name, 4, 64).image)


@families
def test_nothing_is_left_behind_from_one_place_to_the_next(name: str) -> None:
    alone = place(name, 5, 32).image
    for other in NAMES:
        place(other, 6, 48)
    assert np.array_equal(alone, place(name, 5, 32).image)


@families
@pytest.mark.parametrize("seed", range(6))
def test_same_place_at_any_size(name: str, seed: int) -> None:
    small, middle, large = (place(name, seed, size) for size in (64, 128, 224))
    assert small.ground == middle.ground == large.ground
    for a, b in zip(small.front.strokes, large.front.strokes, strict=True):
        assert np.array_equal(a.outline, b.outline) and np.array_equal(a.colour, b.colour)
    for big in (middle, large):
        same = np.abs(shrunk(big.image, 64) - small.image).mean()
        other = np.abs(shrunk(big.image, 64) - place(name, seed + 100, 64).image).mean()
        assert same < 0.04
        assert same < other / 2


@families
def test_generator_is_spent_alike_at_any_size(name: str) -> None:
    rngs = [np.random.default_rng(8) for _ in range(2)]
    for rng, size in zip(rngs, (16, 224), strict=True):
        paint(name, rng, size)
    assert rngs[0].random() == rngs[1].random()


@families
def test_what_stands_in_front_hides_a_little(name: str) -> None:
    fronts = [covered(place(name, seed, 16).front) for seed in range(120)]
    shares = np.array([mask.mean() for mask in fronts])
    assert 0.3 < (shares > 0).mean() < 0.7  # in about half of the places
    hiding = shares[shares > 0]
    assert 0.02 < hiding.mean() < 0.12
    assert hiding.max() < 0.22
    middle = np.mean([mask[32:96, 32:96].mean() for mask in fronts])
    assert middle < 0.03  # at the edges, not over the object


def test_families_differ_and_vary() -> None:
    size, seeds = 32, range(24)
    images = np.array([[place(name, seed, size).image for seed in seeds] for name in NAMES])
    assert (images.std(axis=1).mean(axis=(1, 2, 3)) > 0.08).all()  # within each family
    mean_colour = images.mean(axis=(2, 3))  # (families, seeds, 3)
    within = mean_colour.std(axis=1).mean()
    between = mean_colour.mean(axis=1).std(axis=0).mean()
    assert between < within  # a family is not known by its colour


def test_homes() -> None:
    assert len(HOME) == 9 and len(set(HOME)) == 9
    assert set(HOME) < set(NAMES)
    assert len(set(NAMES)) == len(NAMES) == 12


def test_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="no backdrop 'moon'.*meadow"):
        paint("moon", np.random.default_rng(0), 64)


def test_paint_box_is_complete() -> None:
    drawn = {**props(), **strips()}
    for name, (main, accent, least, most) in painter._LOOKS.items():
        assert name in drawn
        assert main in painter.MATERIALS and (not accent or accent in painter.MATERIALS)
        assert 0 < least < most <= 1
    for name, levels in props().items():
        assert levels[0].shape == (PROP, PROP, 4) and levels[0].dtype == np.uint8, name
        assert 0.01 < (levels[0][:, :, 3] > 127).mean() < 0.95, name
    for name, levels in strips().items():
        assert levels[0].shape == (PROP, TILE, 4), name
        assert 0.1 < (levels[0][:, :, 3] > 127).mean() < 0.95, name


def test_textures_tile_without_a_seam() -> None:
    for name, levels in textures().items():
        tile = levels[0].astype(float)
        assert tile.shape == (TILE, TILE), name
        for axis in (0, 1):
            steps = np.abs(np.diff(tile, axis=axis)).mean(axis=1 - axis)
            seam = np.abs(np.take(tile, 0, axis) - np.take(tile, -1, axis)).mean()
            assert seam < 1.2 * steps.max() + 2, name  # no worse than what the texture has inside
        for level, image in enumerate(levels):
            assert image.shape == ((TILE >> level) * REPEATS[level],) * 2


def test_paint_box_is_small() -> None:
    boxes = textures(), props(), strips()
    assert sum(level.nbytes for box in boxes for levels in box.values() for level in levels) < 20e6
