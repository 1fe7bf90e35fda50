"""Tileable textures: grass, leaves, pebbles, planks, clouds, folds, light on water...

Each is one channel that tiles in both directions, drawn once from a fixed seed when first asked for
and kept as an image pyramid. Colours are given by whoever paints with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from scipy.fft import irfft2

TILE = 512  # a texture's height and width, texels
REPEATS = (1, 1, 2, 5, 5)
FIXED = 4  # fractional bits of polygon coordinates
Pyramid = tuple[np.ndarray, ...]  # full size, half, quarter, ...


@lru_cache(maxsize=1)
def textures() -> dict[str, Pyramid]:
    """All textures by name, uint8, level i holding REPEATS[i] x REPEATS[i] copies of the tile at
    TILE >> i texels: sampling that stays inside is several times faster than wrapping around."""
    return {
        name: tuple(np.tile(level, (k, k)) for level, k in zip(pyramid(tile), REPEATS, strict=True))
        for name, tile in _textures(np.random.default_rng(20)).items()
    }


def pyramid(image: np.ndarray) -> Pyramid:
    """Five levels of an image, each half the size of the one before."""
    out = [image]
    for _ in range(4):
        h, w = out[-1].shape[:2]
        out.append(cv2.resize(out[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    return tuple(out)


def _spectrum(rng: np.random.Generator, slope: float, across: float = 1.0, down: float = 1.0):
    """Tileable noise whose amplitude falls as frequency ** -slope; `across`, `down` squeeze it."""
    fy = np.fft.fftfreq(TILE, 1 / TILE)[:, None].astype(np.float32) / down
    fx = np.fft.rfftfreq(TILE, 1 / TILE)[None].astype(np.float32) / across
    squared = np.maximum(fx * fx + fy * fy, 1e-3)
    wave = rng.standard_normal((TILE, TILE // 2 + 1, 2), np.float32)
    wave *= (np.exp(np.log(squared) * np.float32(-slope / 2)) * (squared >= 1))[:, :, None]
    noise = irfft2(wave.view(np.complex64)[:, :, 0], s=(TILE, TILE))
    return noise / noise.std()


def _band(rng: np.random.Generator) -> np.ndarray:
    """Smooth tileable noise of one scale, about five waves to the tile."""
    small = np.tile(rng.standard_normal((16, 16), np.float32), (3, 3))
    wide = cv2.resize(small, (3 * TILE, 3 * TILE), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(wide, (0, 0), 3)[TILE : 2 * TILE, TILE : 2 * TILE]


def _tone(values: np.ndarray, spread: float = 52) -> np.ndarray:
    """Any field to uint8 around mid-grey."""
    values = (values - values.mean()) / (values.std() + 1e-9)
    return np.clip(128 + spread * values, 0, 255).astype(np.uint8)


def leaf(length, width, angle, x, y, bend=0.0) -> np.ndarray:
    """Pointed leaves, tips at (x, y) + length along `angle`: arrays of (k,) to (k, 9, 2)."""
    t = np.array([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])[None]
    side = np.array([0, 0.8, 1, 0.6, 0, -0.6, -1, -0.8, 0])[None]
    length, width, angle, x, y = (np.atleast_1d(v)[:, None] for v in (length, width, angle, x, y))
    along, across = t * length, side * width / 2 + bend * t * t * length
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        np.broadcast_arrays(x + along * cos - across * sin, y + along * sin + across * cos), 2
    )


def fill(image: np.ndarray, points: np.ndarray, colour: float | Sequence[float]) -> None:
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], colour, cv2.LINE_AA, FIXED)


def _scatter(image: np.ndarray, shapes: np.ndarray, shades: np.ndarray, ribs: bool) -> None:
    """Fill the shapes (k, n, 2), each with its shade, wrapping around the tile's edges; with `ribs`
    the first half of each is a little lighter."""
    low, high = shapes.min(1), shapes.max(1)
    fixed = np.rint(shapes * 16).astype(np.int32)
    wraps = (((low < 0) | (high >= TILE)) * np.where(low < 0, 1, -1) * (TILE * 16)).tolist()
    for shape, shade, (right, down) in zip(fixed, shades.tolist(), wraps, strict=True):
        for dx in {0, right}:
            for dy in {0, down}:
                moved = shape + np.array([dx, dy], np.int32) if dx or dy else shape
                cv2.fillPoly(image, [moved], shade, cv2.LINE_AA, FIXED)
                if ribs:
                    cv2.fillPoly(image, [moved[:5]], min(shade * 1.22 + 8, 255), cv2.LINE_AA, FIXED)


def _grass(rng: np.random.Generator) -> np.ndarray:
    image = np.full((TILE, TILE), 70, np.uint8)
    k = 2000
    y = np.sort(rng.uniform(0, TILE, k))
    shapes = leaf(
        rng.uniform(30, 72, k), rng.uniform(5, 9, k), -np.pi / 2 + rng.normal(0, 0.35, k),
        rng.uniform(0, TILE, k), y, rng.normal(0, 0.12, (k, 1)),
    )  # fmt: skip
    _scatter(image, shapes, rng.normal(128, 48, k).clip(20, 245), ribs=True)
    return image


def _leaves(rng: np.random.Generator) -> np.ndarray:
    image = np.full((TILE, TILE), 40, np.uint8)
    k = 1100
    length = rng.uniform(26, 62, k)
    shapes = leaf(
        length, length * rng.uniform(0.35, 0.6, k), rng.uniform(0, 2 * np.pi, k),
        rng.uniform(0, TILE, k), rng.uniform(0, TILE, k), rng.normal(0, 0.15, (k, 1)),
    )  # fmt: skip
    depth = np.linspace(0.55, 1, k)  # the ones beneath lie in the shade
    _scatter(image, shapes, (depth * rng.normal(140, 40, k)).clip(15, 235), ribs=True)
    return image


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Pebbles: rounded cells, each with its own shade."""
    k, pad = 420, 64
    points = rng.uniform(0, TILE, (k, 2))
    seeds = np.full((TILE + 2 * pad,) * 2, 255, np.uint8)
    owner = np.zeros(seeds.shape, np.int32)
    for dx in (-TILE, 0, TILE):
        for dy in (-TILE, 0, TILE):
            moved = (points + (dx + pad, dy + pad)).astype(int)
            inside = ((moved >= 0) & (moved < len(seeds))).all(1)
            x, y = moved[inside].T
            seeds[y, x] = 0
            owner[y, x] = np.flatnonzero(inside)
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    names = np.zeros(labels.max() + 1, np.int32)
    names[labels[seeds == 0]] = owner[seeds == 0]
    cell = names[labels].astype(np.float32)
    edge = cv2.morphologyEx(cell, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    inner = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3)
    shade = rng.normal(1, 0.22, k).astype(np.float32)[names[labels]]
    stone = shade * (0.35 + 0.65 * np.minimum(inner / 8, 1) ** 0.7) - distance * 0.004
    return _tone(stone[pad:-pad, pad:-pad], 55)


def _planks(rng: np.random.Generator, grain: np.ndarray) -> np.ndarray:
    """Boards running downwards, eight to the tile, with butt joints."""
    image, wide = np.zeros((TILE, TILE), np.float32), TILE // 8
    for board in range(8):
        cut = int(rng.integers(TILE))
        column = np.where(np.roll(np.arange(TILE) < TILE // 2, cut), *rng.normal(0, 1, 2))
        image[:, board * wide : (board + 1) * wide] = column[:, None]
        joints = [cut, (cut + TILE // 2) % TILE]
        image[joints, board * wide : (board + 1) * wide] = -3.5
    image += grain * 0.55
    for x in range(0, TILE, wide):
        image[:, x : x + 3] = -3.5
    return _tone(image, 42)


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """Wallpaper: rows of small ornaments, every other row shifted."""
    image = np.full((TILE, TILE), 110, np.uint8)
    step = TILE // 8
    for row in range(8):
        for column in range(8):
            x, y = (column + row % 2 / 2) * step, row * step
            turns = np.arange(6) * np.pi / 3 + np.pi / 6
            shapes = leaf(np.full(6, 20.0), np.full(6, 12.0), turns, np.full(6, x), np.full(6, y))
            _scatter(image, shapes, np.repeat([175, 160], 3), ribs=False)
    return image


def _textures(rng: np.random.Generator) -> dict[str, np.ndarray]:
    cloud, patch = _spectrum(rng, 1.65), _spectrum(rng, 1.25)
    ridge = -np.abs(_spectrum(rng, 1.5)) + 0.25 * patch
    down, along = _spectrum(rng, 1.2, 1.0, 0.12), _spectrum(rng, 1.3, 0.14, 1.0)
    bark = 0.5 * np.tanh(down) - np.abs(_spectrum(rng, 1.0, 1.0, 0.1))
    grid = np.arange(TILE, dtype=np.float32) / TILE * 2 * np.pi
    ripple = np.sin(grid[:, None] * 13 + 1.5 * _spectrum(rng, 1.9)) + 0.35 * patch
    web = -np.minimum(np.abs(_band(rng)), np.abs(_band(rng)))
    tile = ((np.indices((TILE, TILE)) // (TILE // 8)).sum(0) % 2) * 2.0 + 0.3 * patch
    tile[:: TILE // 8] = tile[:, :: TILE // 8] = -1.5
    folds = np.sin(grid * 9 + 1.6 * np.sin(grid * 2 + 1) + np.sin(grid * 3))
    folds += 0.3 * np.sin(grid * 31)
    specks = np.zeros((TILE, TILE), np.uint8)
    for x, y, r in rng.uniform((8, 8, 1.5), (TILE - 8, TILE - 8, 5), (260, 3)):
        cv2.circle(specks, (int(x * 16), int(y * 16)), int(r * 16), 255, -1, cv2.LINE_AA, FIXED)
    grain = _tone(_spectrum(rng, 0.7), 44)
    ground = {"grain": grain, "grass": _grass(rng), "leaves": _leaves(rng), "cells": _cells(rng)}
    blotches = _tone(patch + cloud)
    for name, image in ground.items():
        ground[name] = cv2.addWeighted(image, 0.8, blotches, 0.4, -26)
    return ground | {
        "cloud": _tone(cloud), "patch": _tone(patch, 46), "rock": _tone(ridge),
        "bark": _tone(bark), "waves": _tone(along), "ripple": _tone(ripple, 48),
        "web": _tone(np.exp(web * 7), 62), "folds": _tone(np.tile(folds, (TILE, 1)), 60),
        "planks": _planks(rng, down), "tiles": _tone(tile, 40), "pattern": _pattern(rng),
        "specks": specks,
    }  # fmt: skip
