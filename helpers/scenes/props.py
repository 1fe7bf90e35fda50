"""Props and strips: trees, rocks, corals, lamps, sofas..., cut out and ready to be placed.

A prop has three channels: shade (how light), accent (which of two palettes: leaves or trunk, wall
or roof) and alpha (where it is). A strip is a row of props, or a range of hills, that tiles
sideways. All are drawn once from a fixed seed when first asked for, at twice their size, and kept
as image pyramids. Colours are given by whoever paints with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from helpers.scenes.textures import TILE, Pyramid, fill, leaf, pyramid, textures

PROP = 128  # a prop's height and width, and a strip's height, texels
_DRAFT = 2 * PROP  # props are drawn at twice their size and shrunk
Draw = Callable[[np.ndarray, np.random.Generator], None]


@lru_cache(maxsize=1)
def props() -> dict[str, Pyramid]:
    """All props by name, uint8 (PROP, PROP, 4) and smaller: shade, accent, their product, alpha."""
    rng = np.random.default_rng(21)
    return {name: pyramid(_finish(_draw(name, plan, rng))) for name, plan in _PROPS.items()}


@lru_cache(maxsize=1)
def strips() -> dict[str, Pyramid]:
    """All strips by name, uint8 (PROP, TILE, 4) and smaller: channels as in `props`."""
    drafts = {name: levels[0][:, :, (0, 1, 3)] for name, levels in props().items()}
    drawn = _strips(drafts, np.random.default_rng(22))
    return {name: pyramid(_finish(image)) for name, image in drawn.items()}


# Drawn in unit coordinates, y down, standing on y = 1; a colour is (shade, accent, alpha).


def _dab(image, points, shade: float, accent: float = 0.0) -> None:
    points = np.asarray(points, float) * (_DRAFT * 0.94) + (_DRAFT * 0.03, _DRAFT * 0.06)
    fill(image, points, (float(min(max(shade, 0), 255)), accent * 255, 255))


def _stick(image, start, end, wide, narrow, shade, accent=0.0) -> None:
    """A tapering stick, its right third in the shade."""
    (x0, y0), (x1, y1) = start, end
    nx, ny = y1 - y0, x0 - x1
    length = math.hypot(nx, ny) + 1e-9
    nx, ny = nx / length, ny / length
    if nx < 0:
        nx, ny = -nx, -ny
    a, b = wide / 2, narrow / 2
    _dab(image, [(x0 - nx * a, y0 - ny * a), (x0 + nx * a, y0 + ny * a),
                 (x1 + nx * b, y1 + ny * b), (x1 - nx * b, y1 - ny * b)],
         shade, accent)  # fmt: skip
    _dab(image, [(x0 + nx * a * 0.2, y0 + ny * a * 0.2), (x0 + nx * a, y0 + ny * a),
                 (x1 + nx * b, y1 + ny * b), (x1 + nx * b * 0.2, y1 + ny * b * 0.2)],
         shade * 0.7, accent)  # fmt: skip


def _oval(image, x, y, rx, ry, shade, accent=0.0, angle=0.0) -> None:
    turn = np.arange(24) * (2 * np.pi / 24)
    dx, dy = np.cos(turn) * rx, np.sin(turn) * ry
    cos, sin = math.cos(angle), math.sin(angle)
    _dab(image, np.stack([x + dx * cos - dy * sin, y + dx * sin + dy * cos], 1), shade, accent)


def _foliage(image, rng, clumps, size=0.07, count=34, accent=0.0) -> None:
    """Clumps (x, y, radius) of leaf dabs, lit from the upper left, back clumps first."""
    for x, y, radius in clumps:
        _oval(image, x, y, radius * 0.85, radius * 0.8, 55, accent)
    for x, y, radius in clumps:
        turn, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * radius
        dx, dy = np.cos(turn) * reach, np.sin(turn) * reach
        lit = -(dx * 0.5 + dy * 0.9) / radius
        order = np.argsort(lit)
        shapes = leaf(
            rng.uniform(0.7, 1.3, count) * size, rng.uniform(0.4, 0.7, count) * size,
            turn + rng.normal(0, 0.7, count), x + dx, y + dy,
        )  # fmt: skip
        shade = 122 + 72 * lit + rng.normal(0, 16, count)
        for i in order:
            _dab(image, shapes[i], shade[i], accent)


def _broadleaf(image, rng, slender=1.0):
    _stick(image, (0.5, 1.0), (0.5, 0.5), 0.09, 0.06, 130, 1)
    for side in (-1, 1):
        _stick(image, (0.5, 0.72), (0.5 + side * 0.17, 0.5), 0.05, 0.03, 120, 1)
    clumps = [
        (0.5, 0.5, 0.2),
        (0.5 - 0.24 * slender, 0.5, 0.17),
        (0.5 + 0.24 * slender, 0.51, 0.17),
    ]
    clumps += [
        (0.5 - 0.18 * slender, 0.34, 0.19),
        (0.5 + 0.19 * slender, 0.35, 0.18),
        (0.5, 0.22, 0.19),
    ]
    clumps = [(x + rng.normal(0, 0.025), y + rng.normal(0, 0.025), r) for x, y, r in clumps]
    _foliage(image, rng, clumps)


def _poplar(image, rng):
    _stick(image, (0.5, 1.0), (0.5, 0.6), 0.06, 0.05, 120, 1)
    _foliage(image, rng, [(0.5, y, 0.06 + 0.22 * math.sin(math.pi * (y - 0.02))) for y in
                          (0.78, 0.64, 0.5, 0.36, 0.24, 0.14)], 0.06)  # fmt: skip


def _conifer(image, rng, snow=False):
    _stick(image, (0.5, 1.0), (0.5, 0.02), 0.06, 0.005, 100, 0 if snow else 1)
    for row in np.linspace(1, 0, 14):
        half, k = 0.02 + 0.33 * row, 5 + int(10 * row)
        x = np.linspace(-half, half, k) + rng.normal(0, 0.012, k)
        y = 0.02 + 0.8 * row + np.abs(x) * 0.35 + rng.normal(0, 0.008, k)
        down = 0.5 * np.pi - x / half * (0.35 + 0.5 * row)
        shapes = leaf(
            np.full(k, 0.09 + 0.05 * row), np.full(k, 0.05 + 0.02 * row), down, 0.5 + x, y
        )
        for i in np.argsort(-np.abs(x)):
            shade = 118 - x[i] / half * 48 + rng.normal(0, 16)
            _dab(image, shapes[i], shade)
            if snow and rng.random() < 0.75:
                _dab(image, shapes[i] * (1, 0.6) + (0, y[i] * 0.4 - 0.012), shade * 0.6 + 125, 1)


def _palm(image, rng):
    spine = [(0.56, 1.0), (0.52, 0.8), (0.5, 0.6), (0.51, 0.42), (0.54, 0.27)]
    for (start, end), w in zip(
        zip(spine, spine[1:], strict=False), (0.07, 0.06, 0.052, 0.045), strict=True
    ):
        _stick(image, start, end, w, w * 0.85, 135, 1)
    for turn in rng.permutation(np.linspace(-3.5, 0.4, 11)):
        for t in np.linspace(0.12, 1, 11):
            reach, droop = 0.44 * t, 0.3 * t * t
            x = 0.54 + math.cos(turn) * reach
            y = 0.27 + math.sin(turn) * reach * 0.75 + droop
            shade = 150 - 60 * math.cos(turn) * 0.5 + rng.normal(0, 22) - 25 * math.sin(turn)
            for side in (-1, 1):
                aim = math.atan2(math.sin(turn) * 0.75 + 1.4 * t, math.cos(turn)) + side * 0.75
                _dab(image, leaf(0.13 * (1.15 - t * 0.6), 0.035, aim, x, y)[0], shade)


def _bare(image, rng):
    def grow(x, y, angle, length, width, depth):
        end = (x + math.cos(angle) * length, y + math.sin(angle) * length)
        _stick(image, (x, y), end, width, width * 0.7, 125 + rng.normal(0, 12))
        if depth:
            for turn in (-0.5, 0.45) if depth % 2 else (-0.35, 0.1, 0.6):
                grow(
                    *end, angle + turn + rng.normal(0, 0.15), length * 0.72, width * 0.62, depth - 1
                )

    grow(0.5, 1.0, -math.pi / 2, 0.3, 0.09, 4)


def _bush(image, rng):
    clumps = [(x, 0.86 - h, 0.17) for x, h in ((0.2, 0), (0.4, 0.02), (0.62, 0), (0.8, 0.02))]
    clumps += [(0.32, 0.7, 0.17), (0.55, 0.64, 0.18), (0.72, 0.72, 0.15)]
    _foliage(image, rng, clumps, 0.085)


def _blossom(image, rng):
    _bush(image, rng)
    for _ in range(34):
        x, y = rng.uniform(0.12, 0.88), rng.uniform(0.52, 0.92)
        for turn in np.arange(5) * 2 * np.pi / 5:
            _dab(image, leaf(0.042, 0.04, turn, x, y)[0], rng.normal(190, 20), 1)


def _rock(image, rng, tall=0.6):
    """A faceted boulder: a fan of planes about a peak, lit from the left."""
    k = 11
    turn = np.sort(np.linspace(math.pi, 2 * math.pi, k) + rng.normal(0, 0.06, k))
    reach = rng.uniform(0.8, 1.0, k)
    rim = np.stack([0.5 + 0.48 * reach * np.cos(turn), 1 + tall * reach * np.sin(turn)], 1)
    rim = np.concatenate([[(0.02, 1.0)], rim[1:-1], [(0.98, 1.0)]])
    inner = (rim - (0.5, 1.0)) * rng.uniform(0.45, 0.75, (len(rim), 1)) + (0.47, 1.0)
    _dab(image, rim, 120)
    for i in range(len(rim) - 1):
        face = rim[i + 1] - rim[i]
        light = face[0] * 3.0 - face[1] * 3.4
        quad = [rim[i], rim[i + 1], inner[i + 1], inner[i]]
        _dab(image, quad, 118 + 90 * np.tanh(light) + rng.normal(0, 12))
        _dab(
            image,
            [inner[i], inner[i + 1], (0.45, 1.0)],
            95 + 55 * np.tanh(light) + rng.normal(0, 10),
        )


def _cactus(image, rng):
    def arm(points, width):
        for offset, shade, part in (
            (0, 80, 1.0),
            (-0.12, 135, 0.7),
            (-0.25, 190, 0.22),
            (0.22, 118, 0.16),
        ):
            for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
                shift, w = offset * width, width * part
                _dab(image, _capsule(x0 + shift, y0, x1 + shift, y1, w / 2), shade)

    arm([(0.5, 1.05), (0.5, 0.14)], 0.19)
    arm([(0.45, 0.68), (0.22, 0.64), (0.21, 0.36)], 0.12)
    arm([(0.55, 0.56), (0.76, 0.52), (0.78, 0.26)], 0.12)


def _capsule(x0, y0, x1, y1, radius) -> np.ndarray:
    angle = math.atan2(y1 - y0, x1 - x0)
    turn = np.linspace(-math.pi / 2, math.pi / 2, 9)
    end = np.stack([x1 + radius * np.cos(turn + angle), y1 + radius * np.sin(turn + angle)], 1)
    start = np.stack([x0 - radius * np.cos(turn + angle), y0 - radius * np.sin(turn + angle)], 1)
    return np.concatenate([end, start])


def _pear(image, rng):
    """Prickly pear: flat pads, flowers on the rims."""
    pads = [(0.5, 0.85, 0.15, 0.2, 0), (0.3, 0.62, 0.12, 0.17, -0.5), (0.68, 0.6, 0.12, 0.18, 0.5)]
    pads += [
        (0.5, 0.52, 0.12, 0.18, 0),
        (0.18, 0.4, 0.1, 0.14, -0.5),
        (0.42, 0.27, 0.1, 0.14, -0.2),
    ]
    pads += [(0.82, 0.36, 0.1, 0.14, 0.4)]
    for x, y, rx, ry, angle in pads:
        _oval(image, x, y, rx, ry, 85, angle=angle)
        _oval(
            image, x - 0.012, y - 0.015, rx * 0.86, ry * 0.86, 145 + rng.normal(0, 12), angle=angle
        )
        for _ in range(9):
            _oval(
                image, x + rng.normal(0, rx / 2.6), y + rng.normal(0, ry / 2.6), 0.008, 0.008, 225
            )
    for x, y in ((0.13, 0.28), (0.4, 0.14), (0.88, 0.24)):
        _oval(image, x, y, 0.035, 0.035, 170, 1)


def _tuft(image, rng):
    k = 46
    lean = rng.normal(0, 0.5, k).clip(-0.9, 0.9)
    shapes = leaf(rng.uniform(0.45, 0.9, k), rng.uniform(0.03, 0.05, k), -np.pi / 2 + lean * 0.62,
                   0.5 + lean * 0.12, np.full(k, 1.02), lean[:, None] * 0.3)  # fmt: skip
    for shape in shapes:
        shade = rng.normal(120, 34)
        _dab(image, shape, shade)
        _dab(image, shape[:5], shade * 1.25)


def _fern(image, rng):
    for lean in (-1.0, 0.95, -0.5, 0.5, 0.05):
        for t in np.linspace(0.1, 1, 17):
            x, y = 0.5 + lean * (0.36 * t), 1.0 - 0.85 * t + abs(lean) * 0.5 * t * t
            aim = math.atan2(-0.85 + abs(lean) * t, lean * 0.36)
            for side in (-1, 1):
                length = 0.2 * math.sin(math.pi * (0.12 + 0.86 * (1 - t)))
                shade = 135 - side * lean * 30 + rng.normal(0, 14) - 40 * (1 - t)
                _dab(image, leaf(length, 0.04, aim + side * 1.0, x, y)[0], shade)


def _daisy(image, rng, petals=9, wide=0.16):
    _petals(image, rng, 0.5, 0.5, 0.46, petals, wide)


def _petals(image, rng, x, y, reach, petals, wide):
    for ring, scale in ((0.0, 1.0), (0.5, 0.85)):
        for i in range(petals):
            turn = (i + ring) * 2 * math.pi / petals
            dx, dy = math.cos(turn) * reach * scale, math.sin(turn) * reach * scale
            shade = 150 - 30 * math.sin(turn + 0.6) + 30 * ring + rng.normal(0, 8)
            for part, lift in ((1.0, -28), (0.8, 0), (0.35, 22)):
                r = reach * 0.42 * scale * (0.6 + 0.4 * part), reach * wide * part
                _oval(image, x + dx * 0.56, y + dy * 0.56, *r, shade + lift, angle=turn)
    _oval(image, x, y, reach * 0.27, reach * 0.25, 105, 1)
    _oval(image, x - reach * 0.04, y - reach * 0.05, reach * 0.2, reach * 0.18, 185, 1)


def _flower(image, rng):
    """Three stems with heads: petals in the main palette, stems and leaves in the accent."""
    for x, y, reach in ((0.28, 0.45, 0.17), (0.74, 0.52, 0.16), (0.5, 0.2, 0.19)):
        _stick(image, (0.5, 1.02), (x, y), 0.035, 0.025, 120, 1)
        _dab(image, leaf(0.32, 0.1, -math.pi / 2 + (x - 0.5) * 3.4, 0.5, 0.95)[0], 135, 1)
        _petals(image, rng, x, y, reach, 7, 0.22)


def _tulip(image, rng):
    for x, y in ((0.27, 0.36), (0.75, 0.42), (0.5, 0.2)):
        _stick(image, (0.5, 1.02), (x, y), 0.035, 0.03, 120, 1)
        for side in (-1, 1):
            _dab(
                image,
                leaf(0.55, 0.1, -math.pi / 2 + (x - 0.5) * 1.2 + side * 0.22, 0.5, 1.0)[0],
                110 + 35 * side,
                1,
            )
        for dx, shade in ((-0.05, 150), (0.05, 115), (0.0, 185)):
            _dab(image, leaf(0.25, 0.15, -math.pi / 2 + dx * 3, x + dx * 0.6, y + 0.1)[0], shade)


def _broad(image, rng, slits=False):
    """One big leaf standing on its stalk: midrib, side veins, slits for a monstera."""
    t = np.linspace(0, 1, 40)
    half = 0.36 * np.sin(np.pi * t**0.75) ** 0.8 * (1 - 0.25 * t)
    if slits:
        half *= 1 - 0.42 * (np.sin(t * 38) > 0.45) * (t > 0.12) * (t < 0.9)
    x, y = 0.5 + 0.06 * np.sin(3 * t), 0.92 - 0.88 * t
    _stick(image, (0.5, 1.04), (0.5, 0.9), 0.04, 0.035, 120)
    for side, shade in ((-1, 165), (1, 115)):
        edge = np.stack([x + side * half, y + half * 0.25], 1)
        _dab(image, np.concatenate([np.stack([x, y], 1), edge[::-1]]), shade)
        for i in range(4, 36, 4):
            tip = edge[min(i + 4, 39)]
            _stick(image, (x[i], y[i]), tip, 0.012, 0.003, shade + 38)
    for i in range(0, 39, 3):
        _stick(image, (x[i], y[i]), (x[min(i + 3, 39)], y[min(i + 3, 39)]), 0.022, 0.02, 215)


def _banana(image, rng):
    """A spray of long arching leaves."""
    for lean in (-1.0, 1.0, -0.62, 0.66, -0.28, 0.25):
        t = np.linspace(0, 1, 22)
        x, y = (
            0.5 + lean * 0.46 * t,
            1.02 - (1.0 - 0.15 * abs(lean)) * t + abs(lean) * 0.62 * t**2.2,
        )
        half = 0.075 * np.sin(np.pi * np.clip(t * 1.0, 0, 1) ** 0.8) + 0.008
        for side, shade in ((-1, 158 - lean * 28), (1, 112 - lean * 28)):
            edge = np.stack([x + side * half * 0.9, y + side * half * lean * 0.8], 1)
            _dab(image, np.concatenate([np.stack([x, y], 1), edge[::-1]]), shade + rng.normal(0, 8))
        for i in range(0, 21, 2):
            _stick(image, (x[i], y[i]), (x[i + 1], y[i + 1]), 0.014, 0.014, 215)


def _coral(image, rng, fine=False):
    def grow(x, y, angle, length, width, depth):
        end = (x + math.cos(angle) * length, y + math.sin(angle) * length)
        shade = 105 + 14 * (4 - depth) + rng.normal(0, 10)
        _dab(image, _capsule(x, y, *end, width / 2), shade)
        _dab(
            image,
            _capsule(x - width * 0.12, y, end[0] - width * 0.12, end[1], width / 5),
            shade + 55,
        )
        if depth:
            for turn in (-0.55, 0.5) if not fine else (-0.55, 0.02, 0.5):
                grow(*end, angle + turn + rng.normal(0, 0.16), length * 0.8, width * 0.8, depth - 1)

    if fine:
        for lean in (-0.3, 0.25):
            grow(0.5, 1.02, -math.pi / 2 + lean, 0.23, 0.06, 4)
    else:
        for x, lean in ((0.45, -0.5), (0.55, 0.45), (0.5, 0.0)):
            grow(x, 1.02, -math.pi / 2 + lean, 0.22, 0.12, 3)


def _dome(image, rng):
    """Brain coral: a dome of winding ridges."""
    turn = np.linspace(math.pi, 2 * math.pi, 30)
    _dab(image, np.stack([0.5 + 0.48 * np.cos(turn), 1 + 0.62 * np.sin(turn)], 1), 90)
    for ring in np.linspace(0.95, 0.05, 10):
        for start in np.arange(0, math.pi, 0.32 / ring):
            bend = np.linspace(start, start + 0.24 / ring, 8) + math.pi + rng.normal(0, 0.05)
            bend = bend[bend < 2 * math.pi]
            wobble = ring + 0.02 * np.sin(bend * 9)
            line = np.stack(
                [0.5 + 0.46 * wobble * np.cos(bend), 1 + 0.6 * wobble * np.sin(bend)], 1
            )
            if len(line) > 1:
                shade = 165 - 80 * math.cos(float(bend.mean())) * -0.5 * -1 - 30 * (1 - ring)
                thick = np.concatenate([line + (0, -0.018), (line + (0, 0.018))[::-1]])
                _dab(image, thick, shade + rng.normal(0, 12))


def _sponge(image, rng):
    for x, tall, w in ((0.3, 0.5, 0.17), (0.72, 0.58, 0.16), (0.5, 0.88, 0.19)):
        for part, shade in ((1.0, 95), (0.7, 140), (0.3, 180)):
            top, foot = x - w / 2, x - w * 0.35
            rim = [(top, 1 - tall), (top + w * part, 1 - tall)]
            _dab(image, [*rim, (foot + w * 0.7 * part, 1.0), (foot, 1.0)], shade)
        _oval(image, x, 1 - tall, w / 2, w * 0.22, 190)
        _oval(image, x, 1 - tall, w * 0.36, w * 0.14, 45)


def _anemone(image, rng):
    _oval(image, 0.5, 1.0, 0.3, 0.35, 110, 1)
    for lean in rng.permutation(np.linspace(-1.15, 1.15, 27)):
        reach = rng.uniform(0.45, 0.6)
        x0, y0 = 0.5 + lean * 0.2, 0.82
        x1, y1 = x0 + math.sin(lean) * reach * 0.55, y0 - math.cos(lean) * reach * 0.8
        shade = 140 + rng.normal(0, 28)
        _dab(image, _capsule(x0, y0, (x0 + x1) / 2, (y0 + y1) / 2, 0.025), shade * 0.85)
        _dab(image, _capsule((x0 + x1) / 2, (y0 + y1) / 2, x1, y1, 0.024), shade)
        _oval(image, x1, y1, 0.03, 0.03, shade + 70)


def _weed(image, rng):
    t = np.linspace(0, 1, 26)
    for root in (0.2, 0.8, 0.36, 0.66, 0.5):
        tall, phase = rng.uniform(0.6, 0.98), rng.uniform(0, 6)
        x = root + 0.07 * np.sin(phase + 7 * t) * (0.3 + t)
        half = 0.055 * np.sin(np.pi * (0.12 + 0.88 * t)) * (1 + 0.25 * np.sin(30 * t))
        y = 1.02 - tall * t
        shade = 115 + rng.normal(0, 18)
        left, mid, right = (np.stack([x + s * half, y], 1) for s in (-1, 0, 1))
        _dab(image, np.concatenate([left, right[::-1]]), shade)
        _dab(image, np.concatenate([left, mid[::-1]]), shade + 45)


def _kelp(image, rng):
    for root in (0.35, 0.62):
        for t in np.linspace(0, 1, 19):
            x, y = root + 0.05 * math.sin(5 * t + root * 9), 1.0 - 0.95 * t
            _oval(image, x, y, 0.014, 0.035, 120)
            side = 1 if round(t * 18) % 2 else -1
            shape = leaf(
                0.24 * (1.1 - 0.5 * t), 0.075, -math.pi / 2 + side * 0.95, x, y, side * -0.3
            )[0]
            _dab(image, shape, 138 - side * 30 + rng.normal(0, 10))
            _dab(image, shape[:5], 160 - side * 30)


def _lamp(image, rng):
    _stick(image, (0.5, 1.0), (0.5, 0.12), 0.05, 0.035, 95)
    _stick(image, (0.5, 1.0), (0.5, 0.9), 0.12, 0.07, 90)
    _dab(image, [(0.5, 0.13), (0.5, 0.09), (0.74, 0.06), (0.74, 0.1)], 95)
    _dab(image, [(0.64, 0.08), (0.86, 0.08), (0.8, 0.16), (0.7, 0.16)], 80)
    _oval(image, 0.75, 0.17, 0.08, 0.035, 240, 1)


def _sign(image, rng):
    _stick(image, (0.5, 1.0), (0.5, 0.3), 0.05, 0.05, 120)
    _oval(image, 0.5, 0.26, 0.2, 0.2, 215)
    _oval(image, 0.5, 0.26, 0.17, 0.17, 150, 1)
    _dab(image, [(0.36, 0.235), (0.64, 0.235), (0.64, 0.285), (0.36, 0.285)], 225)


def _house(image, rng, tall=0.5, floors=1):
    left, right, eaves = 0.14, 0.86, 1 - tall
    _dab(image, [(left, 1), (left, eaves), (right, eaves), (right, 1)], 165)
    _dab(image, [(0.62, 1), (0.62, eaves), (right, eaves), (right, 1)], 120)
    _dab(
        image,
        [
            (left - 0.06, eaves + 0.03),
            (0.3, eaves - 0.26),
            (0.74, eaves - 0.26),
            (0.6, eaves + 0.03),
        ],
        150,
        1,
    )
    _dab(image, [(0.6, eaves + 0.03), (0.74, eaves - 0.26), (right + 0.06, eaves + 0.03)], 95, 1)
    _dab(
        image,
        [(0.4, eaves - 0.2), (0.4, eaves - 0.36), (0.47, eaves - 0.36), (0.47, eaves - 0.2)],
        110,
        1,
    )
    step = tall / floors
    for floor in range(floors):
        y = eaves + step * (floor + 0.3)
        for x in (0.22, 0.42, 0.69):
            if floor == floors - 1 and x == 0.42:
                _dab(image, [(x, 1), (x, y), (x + 0.11, y), (x + 0.11, 1)], 60, 1)
                continue
            w, h = 0.1, step * 0.4
            _dab(
                image,
                [
                    (x - 0.01, y + h + 0.01),
                    (x - 0.01, y - 0.01),
                    (x + w + 0.01, y - 0.01),
                    (x + w + 0.01, y + h + 0.01),
                ],
                225,
            )
            _dab(image, [(x, y + h), (x, y), (x + w, y), (x + w, y + h)], 62)
            _dab(image, [(x, y + h), (x, y), (x + w * 0.45, y)], 95)


def _tower(image, rng):
    """A city block: rows of windows, some lit."""
    left, right, top = 0.2, 0.8, rng.uniform(0.05, 0.2)
    _dab(image, [(left, 1), (left, top), (right, top), (right, 1)], 140)
    _dab(image, [(0.6, 1), (0.6, top), (right, top), (right, 1)], 100)
    _dab(image, [(0.3, top), (0.3, top - 0.05), (0.5, top - 0.05), (0.5, top)], 110)
    for y in np.arange(top + 0.05, 0.95, 0.09):
        for x in (0.24, 0.33, 0.42, 0.51, 0.64, 0.72):
            lit = rng.random() < 0.3
            _dab(
                image,
                [(x, y + 0.05), (x, y), (x + 0.055, y), (x + 0.055, y + 0.05)],
                215 if lit else 70,
                float(lit),
            )


def _parasol(image, rng):
    _stick(image, (0.5, 1.0), (0.5, 0.3), 0.03, 0.03, 190)
    angle = np.linspace(math.pi, 2 * math.pi, 33)
    rim = np.stack([0.5 + 0.46 * np.cos(angle), 0.5 + 0.38 * np.sin(angle)], 1)
    for i in range(8):
        wedge = rim[i * 4 : i * 4 + 5]
        foot = wedge * (1, 0) + (0, 0.5 + 0.0)
        arc = [(x, 0.5 + 0.03 * math.sin(math.pi * j / 4)) for j, (x, _) in enumerate(foot)]
        _dab(image, np.concatenate([wedge, arc[::-1]]), 205 - 12 * i, float(i % 2))
        _dab(image, np.concatenate([wedge, [(0.5, 0.12)]]), 205 - 12 * i, float(i % 2))


def _hut(image, rng):
    _dab(image, [(0.2, 1), (0.2, 0.42), (0.5, 0.16), (0.8, 0.42), (0.8, 1)], 165)
    for i in range(0, 6, 2):
        x = 0.2 + i * 0.1
        _dab(image, [(x, 1), (x, 0.44), (x + 0.1, 0.44), (x + 0.1, 1)], 185, 1)
    _dab(image, [(0.12, 0.46), (0.5, 0.1), (0.5, 0.19), (0.17, 0.5)], 120, 1)
    _dab(image, [(0.88, 0.46), (0.5, 0.1), (0.5, 0.19), (0.83, 0.5)], 85, 1)
    _dab(image, [(0.41, 1), (0.41, 0.6), (0.59, 0.6), (0.59, 1)], 70)


def _sail(image, rng):
    _dab(image, [(0.2, 0.86), (0.82, 0.86), (0.72, 0.98), (0.3, 0.98)], 110, 1)
    _stick(image, (0.5, 0.88), (0.5, 0.08), 0.02, 0.015, 90, 1)
    _dab(image, [(0.52, 0.1), (0.84, 0.8), (0.52, 0.82)], 215)
    _dab(image, [(0.48, 0.16), (0.24, 0.8), (0.48, 0.82)], 175)


def _pot(image, rng):
    """A house plant in a pot."""
    for lean in rng.permutation(np.linspace(-1.1, 1.1, 13)):
        shape = leaf(rng.uniform(0.45, 0.62), 0.13, -math.pi / 2 + lean, 0.5, 0.7, lean * 0.2)[0]
        shade = 128 - 40 * lean + rng.normal(0, 14)
        _dab(image, shape, shade)
        _dab(image, shape[:5], shade * 1.25)
    _dab(image, [(0.32, 0.7), (0.68, 0.7), (0.62, 1.0), (0.38, 1.0)], 140, 1)
    _dab(image, [(0.54, 0.7), (0.68, 0.7), (0.62, 1.0), (0.54, 1.0)], 100, 1)
    _dab(image, [(0.3, 0.66), (0.7, 0.66), (0.7, 0.73), (0.3, 0.73)], 175, 1)


def _sofa(image, rng):
    _dab(image, _round(0.1, 0.38, 0.9, 0.85, 0.1), 125)
    for x in (0.16, 0.51):
        _dab(image, _round(x, 0.42, x + 0.33, 0.74, 0.06), 160)
        _dab(image, _round(x, 0.66, x + 0.33, 0.84, 0.05), 190)
    for x, shade in ((0.02, 165), (0.84, 115)):
        _dab(image, _round(x, 0.54, x + 0.14, 0.95, 0.06), shade)
    _dab(image, [(0.05, 0.84), (0.95, 0.84), (0.95, 0.93), (0.05, 0.93)], 100)
    for x in (0.1, 0.86):
        _dab(image, [(x, 0.93), (x + 0.04, 0.93), (x + 0.04, 1.0), (x, 1.0)], 70, 1)
    _dab(image, [(0.22, 0.72), (0.28, 0.5), (0.44, 0.56), (0.38, 0.76)], 170, 1)


def _round(x0, y0, x1, y1, r) -> np.ndarray:
    turn = np.linspace(0, math.pi / 2, 5)
    corner = np.stack([np.cos(turn), np.sin(turn)], 1) * r
    quarters = (x1, y1, 1, 1), (x0, y1, -1, 1), (x0, y0, -1, -1), (x1, y0, 1, -1)
    return np.concatenate([
        (corner if sx == sy else corner[::-1]) * (sx, sy) + (x - sx * r, y - sy * r)
        for x, y, sx, sy in quarters
    ])  # fmt: skip


def _shelf(image, rng):
    _dab(image, [(0.08, 1), (0.08, 0.02), (0.92, 0.02), (0.92, 1)], 120)
    for y in (0.06, 0.3, 0.54, 0.78):
        _dab(image, [(0.12, y + 0.2), (0.12, y), (0.88, y), (0.88, y + 0.2)], 50)
        x = 0.13
        while x < 0.82:
            w, h = rng.uniform(0.04, 0.08), rng.uniform(0.11, 0.18)
            _dab(
                image,
                [(x, y + 0.2), (x, y + 0.2 - h), (x + w, y + 0.2 - h), (x + w, y + 0.2)],
                rng.uniform(80, 220),
                float(rng.random() < 0.7),
            )
            x += w + (0.006 if rng.random() < 0.8 else 0.08)


def _drawers(image, rng):
    _dab(image, [(0.06, 0.94), (0.06, 0.42), (0.94, 0.42), (0.94, 0.94)], 130)
    _dab(image, [(0.03, 0.44), (0.05, 0.38), (0.95, 0.38), (0.97, 0.44)], 180)
    for y in (0.48, 0.64, 0.8):
        for x in (0.1, 0.52):
            _dab(
                image,
                [(x, y + 0.12), (x, y), (x + 0.38, y), (x + 0.38, y + 0.12)],
                155 - 30 * (x > 0.3),
            )
            _oval(image, x + 0.19, y + 0.06, 0.025, 0.02, 215, 1)
    for x in (0.1, 0.84):
        _dab(image, [(x, 0.94), (x + 0.06, 0.94), (x + 0.05, 1.0), (x + 0.01, 1.0)], 80)
    _dab(image, [(0.42, 0.38), (0.4, 0.24), (0.54, 0.24), (0.52, 0.38)], 150, 1)
    for lean in (-0.7, -0.25, 0.2, 0.65):
        _dab(image, leaf(0.24, 0.09, -math.pi / 2 + lean, 0.47, 0.26)[0], 190 - 50 * lean, 1)


def _standard(image, rng):
    """A standing lamp."""
    _oval(image, 0.5, 0.97, 0.14, 0.03, 100)
    _stick(image, (0.5, 0.97), (0.5, 0.28), 0.03, 0.03, 110)
    _dab(image, [(0.3, 0.32), (0.39, 0.04), (0.61, 0.04), (0.7, 0.32)], 195, 1)
    _dab(image, [(0.36, 0.32), (0.43, 0.04), (0.52, 0.04), (0.54, 0.32)], 245, 1)


def _frame(image, rng):
    """A framed landscape."""
    _dab(image, [(0.04, 0.92), (0.04, 0.2), (0.96, 0.2), (0.96, 0.92)], 110)
    _dab(image, [(0.07, 0.89), (0.07, 0.23), (0.93, 0.23), (0.93, 0.89)], 175)
    _dab(image, [(0.14, 0.82), (0.14, 0.3), (0.86, 0.3), (0.86, 0.82)], 215, 1)
    _dab(
        image,
        [
            (0.14, 0.82),
            (0.14, 0.66),
            (0.34, 0.46),
            (0.52, 0.64),
            (0.68, 0.5),
            (0.86, 0.68),
            (0.86, 0.82),
        ],
        120,
        1,
    )
    _oval(image, 0.68, 0.4, 0.06, 0.06, 240, 1)


def _window(image, rng):
    _dab(image, [(0.1, 0.96), (0.1, 0.04), (0.9, 0.04), (0.9, 0.96)], 215)
    for x in (0.16, 0.53):
        for y in (0.1, 0.53):
            pane = [(x, y + 0.37), (x, y), (x + 0.31, y), (x + 0.31, y + 0.37)]
            _dab(image, pane, 170, 1)
            _dab(image, [(x, y + 0.3), (x, y), (x + 0.25, y)], 215, 1)
    _dab(image, [(0.05, 1.0), (0.05, 0.95), (0.95, 0.95), (0.95, 1.0)], 180)


def _speaker(image, rng):
    _dab(image, [(0.22, 1), (0.22, 0.1), (0.78, 0.1), (0.78, 1)], 90)
    _dab(image, [(0.7, 1), (0.7, 0.1), (0.78, 0.1), (0.78, 1)], 55)
    for y, r in ((0.27, 0.1), (0.52, 0.15), (0.81, 0.15)):
        _oval(image, 0.46, y, r * 1.1, r * 1.1, 150)
        _oval(image, 0.46, y, r, r, 45)
        _oval(image, 0.46, y, r * 0.4, r * 0.4, 120)


def _snowman(image, rng):
    for y, r in ((0.82, 0.2), (0.53, 0.15), (0.3, 0.11)):
        _oval(image, 0.5, y, r, r, 150)
        _oval(image, 0.5 - r * 0.12, y - r * 0.12, r * 0.84, r * 0.84, 215)
    _dab(
        image,
        [
            (0.36, 0.22),
            (0.64, 0.22),
            (0.64, 0.19),
            (0.58, 0.19),
            (0.57, 0.06),
            (0.43, 0.06),
            (0.42, 0.19),
            (0.36, 0.19),
        ],
        60,
        1,
    )
    _dab(image, [(0.5, 0.29), (0.66, 0.33), (0.5, 0.33)], 150, 1)
    _dab(image, [(0.37, 0.38), (0.63, 0.38), (0.62, 0.44), (0.38, 0.44)], 190, 1)


def _mushroom(image, rng):
    for x, y, s in ((0.62, 0.55, 0.8), (0.34, 0.32, 1.0)):
        _stick(image, (x, 1.0), (x, y + 0.05), 0.12 * s, 0.09 * s, 205, 1)
        turn = np.linspace(math.pi, 2 * math.pi, 20)
        cap = np.stack([x + 0.27 * s * np.cos(turn), y + 0.12 * s + 0.3 * s * np.sin(turn)], 1)
        _dab(image, cap, 120)
        _dab(image, cap * (0.75, 0.85) + (x * 0.25 - 0.03, y * 0.15 - 0.005), 170)
        for dx, dy in ((-0.12, -0.04), (0.02, -0.1), (0.13, 0.01)):
            _oval(image, x + dx * s, y + dy * s, 0.035 * s, 0.03 * s, 235, 1)


def _fence(image, rng):
    for y in (0.62, 0.8):
        _dab(image, [(0, y + 0.05), (0, y), (1, y), (1, y + 0.05)], 150)
    for x in (0.1, 0.3, 0.5, 0.7, 0.9):
        _dab(
            image,
            [(x - 0.045, 1), (x - 0.045, 0.52), (x, 0.45), (x + 0.045, 0.52), (x + 0.045, 1)],
            190,
        )
        _dab(image, [(x + 0.01, 1), (x + 0.01, 0.5), (x + 0.045, 0.52), (x + 0.045, 1)], 130)


def _cumulus(image, rng, wide=0.88):
    """A heap of puffs, flat below, drawn from the back and the base up."""
    puffs = []
    for _ in range(46):
        x = float(np.clip(rng.normal(0, 0.17), -0.38, 0.38)) * wide
        roof = 0.36 * math.exp(-((x / (0.26 * wide)) ** 2)) + 0.06
        puffs.append((0.5 + x, 0.78 - rng.uniform(0, 1) ** 0.8 * roof, rng.uniform(0.06, 0.12)))
    for x, y, r in sorted(puffs, key=lambda puff: puff[2] - puff[1] * 0.4, reverse=False):
        lit = np.clip((0.8 - y) / 0.4, 0, 1)
        for scale, lift in ((1.0, 0), (0.8, 22), (0.55, 40)):
            _oval(
                image,
                x - r * (1 - scale) * 0.5,
                y - r * (1 - scale) * 0.6,
                r * scale,
                r * scale * 0.9,
                110 + 85 * lit + lift,
            )


def _glow(image, rng):
    x, y = np.meshgrid(*[np.linspace(-1, 1, _DRAFT)] * 2)
    image[:] = 255
    image[:, :, 2] = 255 * np.clip(1 - np.hypot(x, y), 0, 1) ** 2


_PROPS: dict[str, Draw] = {
    "glow": _glow,
    "tree": _broadleaf, "tree2": lambda i, r: _broadleaf(i, r, 0.7), "poplar": _poplar,
    "conifer": _conifer, "snowy": lambda i, r: _conifer(i, r, True), "palm": _palm, "bare": _bare,
    "bush": _bush, "blossom": _blossom, "rock": _rock, "rock2": lambda i, r: _rock(i, r, 0.9),
    "cactus": _cactus, "pear": _pear, "tuft": _tuft, "fern": _fern, "daisy": _daisy,
    "aster": lambda i, r: _daisy(i, r, 6, 0.24), "flower": _flower, "tulip": _tulip,
    "broad": _broad,
    "monstera": lambda i, r: _broad(i, r, True), "banana": _banana, "coral": _coral,
    "fan": lambda i, r: _coral(i, r, True), "dome": _dome, "sponge": _sponge, "anemone": _anemone,
    "weed": _weed, "kelp": _kelp, "lamp": _lamp, "sign": _sign, "house": _house,
    "house2": lambda i, r: _house(i, r, 0.66, 2), "tower": _tower, "parasol": _parasol,
    "hut": _hut, "sail": _sail, "pot": _pot, "sofa": _sofa, "shelf": _shelf, "drawers": _drawers,
    "standard": _standard, "frame": _frame, "window": _window, "speaker": _speaker,
    "snowman": _snowman, "mushroom": _mushroom, "fence": _fence, "cumulus": _cumulus,
    "cumulus2": lambda i, r: _cumulus(i, r, 1.0), "cumulus3": lambda i, r: _cumulus(i, r, 0.75),
}  # fmt: skip


def _draw(name: str, plan: Draw, rng: np.random.Generator) -> np.ndarray:
    """A finished prop (PROP, PROP, 3)."""
    image = np.zeros((_DRAFT, _DRAFT, 3), np.uint8)
    plan(image, rng)
    if name.startswith("cumulus"):  # ragged edges: shift every texel a little by noise
        noise = (textures()["patch"][0].astype(np.float32) - 128) * np.float32(0.09)
        y, x = np.indices((_DRAFT, _DRAFT), np.float32)
        x, y = x + noise[:_DRAFT, :_DRAFT], y + noise[_DRAFT:, _DRAFT:]
        image = cv2.GaussianBlur(cv2.remap(image, x, y, cv2.INTER_LINEAR), (0, 0), 2)
    return _bleed(cv2.resize(image, (PROP, PROP), interpolation=cv2.INTER_AREA))


def _finish(image: np.ndarray) -> np.ndarray:
    """Add the product of shade and accent, which painting needs: see `Painter.prop`."""
    shade, accent, alpha = cv2.split(image)
    return cv2.merge((shade, accent, cv2.multiply(shade, accent, scale=1 / 255), alpha))


def _bleed(image: np.ndarray) -> np.ndarray:
    """Divide by alpha, and let the colours run on beyond the outline, so that shrinking never mixes
    in what lies outside."""
    near = cv2.blur(image, (13, 13))
    mixed = cv2.addWeighted(image, 1.0, near, 0.02, 0, dtype=cv2.CV_32F) + np.float32(1e-4)
    image[:, :, :2] = np.minimum(mixed[:, :, :2] * (255 / mixed[:, :, 2:]), 255)
    return image


# ----------------------------------------------------------------------------------------- strips


def _row(props, rng, names, count, low, high) -> np.ndarray:
    """Props side by side along a strip (PROP, TILE, 3) that tiles sideways."""
    strip = np.zeros((PROP, TILE + PROP, 3), np.uint8)  # what hangs over the right edge wraps
    for i in rng.permutation(count):
        tall = int(rng.uniform(low, high) * PROP)
        prop = props[names[rng.integers(len(names))]]
        prop = cv2.resize(prop, (tall, tall), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.5:
            prop = cv2.flip(prop, 1)
        alpha = prop[:, :, 2].astype(np.float32) / 255
        prop[:, :, 2] = 255
        x = int((i + rng.uniform(-0.4, 0.4)) * TILE / count) % TILE
        window = strip[PROP - tall :, x : x + tall]
        window[:] = cv2.blendLinear(prop, window, alpha, 1 - alpha)
    over = strip[:, TILE:]
    alpha = over[:, :, 2].astype(np.float32) / 255
    left = strip[:, :PROP]
    left[:] = cv2.blendLinear(np.where(over[:, :, 2:] > 0, over, left), left, alpha, 1 - alpha)
    strip = np.ascontiguousarray(strip[:, :TILE])
    strip[:2] = 0
    return _bleed(strip)


def _range(
    profile: np.ndarray, relief: np.ndarray, snow: float = 0.0, slant: int = 0
) -> np.ndarray:
    """Hills or mountains under a profile (TILE,) of heights 0..1; accent = snow near the tops.
    `slant` lets the lit and shaded flanks lean instead of falling straight down."""
    y = np.arange(PROP, dtype=np.float32)[:, None] + 0.5
    top = (1 - profile[None]) * (PROP - 4) + 3
    alpha = np.clip(y - top + 0.5, 0, 1)
    slope = np.roll(profile, -3) - np.roll(profile, 3)
    slope = cv2.GaussianBlur(np.tile(slope, 3)[None], (0, 0), 3)[0, TILE : 2 * TILE] * PROP
    lit = np.stack([np.roll(slope, int(slant * math.sin(row / 9))) for row in range(PROP)])
    shade = 128 + 55 * np.tanh(lit / 5) + (relief - 128.0) * 0.55
    cap = np.clip(
        (snow - (1 - profile) * 0.4 - (y - top) / PROP + (relief - 128.0) / 400) * 12, 0, 1
    )
    image = np.stack([shade * alpha, (cap if snow else 0 * shade) * 255 * alpha, alpha * 255], 2)
    return _bleed(np.clip(image, 0, 255).astype(np.uint8))


def _profile(rng: np.random.Generator, slope: float, ridged: bool = False) -> np.ndarray:
    """A skyline (TILE,) of heights in 0.25..1 that tiles; `ridged` gives sharp crests."""
    k = np.arange(TILE // 2 + 1)
    wave = (rng.standard_normal(len(k)) + 1j * rng.standard_normal(len(k))) * np.maximum(
        k, 1
    ) ** -slope
    wave[0] = 0
    line = np.fft.irfft(wave, TILE)
    line = -np.abs(line) if ridged else line
    return (0.25 + 0.75 * (line - line.min()) / np.ptp(line)).astype(np.float32)


def _jagged(rng: np.random.Generator) -> np.ndarray:
    """A skyline of triangular peaks."""
    x = np.arange(TILE, dtype=np.float32)
    line = np.zeros(TILE, np.float32)
    for i in range(7):
        centre, tall = (i + rng.uniform(-0.3, 0.3)) * TILE / 7, rng.uniform(0.6, 0.98)
        away = np.abs((x - centre + TILE / 2) % TILE - TILE / 2)
        line = np.maximum(line, tall - away / PROP * rng.uniform(0.55, 0.85))
    return np.maximum(line + (_profile(rng, 1.1) - 0.6) * 0.12, 0.1)


def _mesas(rng: np.random.Generator) -> np.ndarray:
    """A skyline of table mountains."""
    line = np.full(TILE, 0.12, np.float32)
    x = np.arange(TILE, dtype=np.float32)
    for centre in (60, 190, 330, 430):
        away = np.abs((x - centre + TILE / 2) % TILE - TILE / 2) - rng.uniform(12, 45)
        line = np.maximum(
            line,
            rng.uniform(0.5, 0.95)
            * (1 - np.clip(away / 9, 0, 0.55) - np.clip(away - 9, 0, None) / 90),
        )
    return line + (_profile(rng, 1.2) - 0.6) * 0.08


_REEF = ("coral", "fan", "dome", "sponge", "rock", "anemone", "weed")


def _strips(props: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    rock, patch = (textures()[name][0][:PROP] for name in ("rock", "patch"))
    return {
        "woods": _row(props, rng, ("tree", "tree2", "poplar", "bush"), 16, 0.6, 0.97),
        "pines": _row(props, rng, ("conifer",), 17, 0.55, 0.97),
        "snowpines": _row(props, rng, ("snowy",), 17, 0.55, 0.97),
        "bushes": _row(props, rng, ("bush", "blossom", "bush"), 13, 0.55, 0.97),
        "palms": _row(props, rng, ("palm", "palm", "banana"), 11, 0.6, 0.97),
        "village": _row(props, rng, ("house", "house2", "tree", "house"), 8, 0.6, 0.85),
        "city": _row(props, rng, ("tower",), 11, 0.5, 0.97),
        "flowers": _row(props, rng, ("flower", "tulip", "flower"), 15, 0.5, 0.9),
        "tufts": _row(props, rng, ("tuft",), 22, 0.4, 0.9),
        "ferns": _row(props, rng, ("fern", "tuft", "fern"), 13, 0.5, 0.95),
        "jungle": _row(props, rng, ("banana", "broad", "monstera", "palm", "fern"), 15, 0.55, 0.97),
        "reef": _row(props, rng, _REEF, 13, 0.35, 0.9),
        "cacti": _row(props, rng, ("cactus", "pear", "tuft", "rock"), 8, 0.25, 0.85),
        "fences": np.ascontiguousarray(np.tile(props["fence"], (1, 4, 1))),
        "hills": _range(_profile(rng, 1.9), patch),
        "dunes": _range(_profile(rng, 1.8, True), patch // 3 + 85, slant=9),
        "peaks": _range(_jagged(rng), rock, snow=0.3, slant=16),
        "mesas": _range(_mesas(rng), rock),
    }  # fmt: skip
