"""Pictures without animals, vehicles or instruments: forms, strokes and textures before any place.

    pictures = abstract_pictures(range(2_700), seed=1)

Something to learn seeing on, for a network that shall later look at the scenes of
`helpers.scenes.world`: brush, light, camera and backdrops are the same, no class is. Only how a
figure is formed tells its class; colours, size, place, tilt, light and backdrop are drawn from one
distribution for all classes.

- A *form* or a *stroke* has an outline of its own and any fill, plain or textured.
- A *texture* fills a blob of any outline.

They are made easy, so that a small network gets somewhere in a few hundred steps: figures are large
and tilt but are never upside down, and backdrops are out of focus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from helpers.imageset import ImageSet
from helpers.scenes import backdrops
from helpers.scenes.anatomy import Stroke, between, curve, draw_coat, mix, stick, tube
from helpers.scenes.painter import box
from helpers.scenes.render import (
    OVERSAMPLE,
    _box,
    _cast_shadow,
    _expose,
    _paint_over,
    _rasterise,
    _shrink,
)

_CHUNK = 64  # pictures a task, as in `helpers.scenes.world`
_STREAM = 8  # keeps our random numbers apart from those of the world with the same seed
_TILT = 0.45  # the largest turn to either side, radians
_PLACES = len(backdrops.NAMES)
_STANCES = ("stand", "air", "flat", "prop")  # how a shadow falls

Outlines = list[np.ndarray]  # filled one by one, each (k, 2), within about -1..1
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (h, w) x and y, period 1: marked if > 0


def abstract_pictures(
    indices: Iterable[int], *, seed: int, size: int = 64, workers: int | None = None
) -> ImageSet:
    """The abstract pictures `indices` as an ImageSet with masks, boxes and backdrops.

    Picture i has class `i % len(CLASSES)` and comes from (seed, i) alone: it is the same whichever
    others are drawn with it, in whatever order and by however many workers. Nothing stands in front
    of a figure and no figure leaves the frame, so that no mask is empty.

    Args:
        size: height and width in pixels, at least 16.
        workers: processes; by default one per core for more than 500 pictures, else one.

    Raises:
        ValueError: a size below 16, a negative seed or a negative index.
    """
    indices = [int(i) for i in indices]
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, not {size}")
    if (least := min([seed, *indices])) < 0:
        raise ValueError(f"seed and indices must be 0 or more, not {least}")
    if workers is None:
        workers = cpu_count() if len(indices) > 500 else 1
    # an empty request still draws one empty chunk: a set with all its fields and no rows
    chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)] or [[]]
    drawn = Parallel(n_jobs=workers)(delayed(_draw_many)(seed, chunk, size) for chunk in chunks)
    images, masks, boxes, places = (
        torch.from_numpy(np.concatenate(column)) for column in zip(*drawn, strict=True)
    )
    return ImageSet(
        images=images,
        labels=torch.tensor(indices, dtype=torch.int64) % len(CLASSES),
        class_names=CLASSES,
        masks=masks,
        boxes=boxes,
        backdrops=places,
        ids=tuple(f"abstract {seed}, picture {i}" for i in indices),
        backdrop_names=backdrops.NAMES,
    )


# ------------------------------------------------------------------------------------------ forms


def _radial(radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """Corners at these distances from the centre, at equal angles."""
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii)[:, None]


def _disc(rng: np.random.Generator) -> Outlines:
    return [_radial(np.ones(32))]


def _triangle(rng: np.random.Generator) -> Outlines:
    return [_radial(rng.uniform(0.75, 1, 3))]


def _square(rng: np.random.Generator) -> Outlines:
    return [box(-1, -1, 1, 1)]


def _ring(rng: np.random.Generator) -> Outlines:
    """One outline, out and back in: the seam between the two circles has no width."""
    circle = np.concatenate([_disc(rng)[0], [(1, 0)]])
    return [np.concatenate([circle, circle[::-1] * between(rng, 0.45, 0.65)])]


def _star(rng: np.random.Generator) -> Outlines:
    return [_radial([1, between(rng, 0.36, 0.5)] * int(rng.integers(5, 7)))]


def _cross(rng: np.random.Generator) -> Outlines:
    a = between(rng, 0.22, 0.36)
    arm = np.array([(a, a), (a, 1), (-a, 1)])
    return [np.concatenate([arm @ np.array([(c, s), (-s, c)]) for c, s in _QUARTERS])]


def _crescent(rng: np.random.Generator) -> Outlines:
    """Between an arc and a flatter one through the same horns."""
    half, bulge = between(rng, 1.8, 2.2), between(rng, 0.5, 0.7)
    t = np.linspace(-half, half, 28)
    outer = np.stack([np.cos(t), np.sin(t)], 1)
    x = outer[-1, 0]
    inner = outer[-2:0:-1].copy()
    inner[:, 0] = x + (inner[:, 0] - x) * bulge
    return [np.concatenate([outer, inner])]


def _heart(rng: np.random.Generator) -> Outlines:
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([16 * np.sin(t) ** 3, -y], 1) / 16]


def _arrow(rng: np.random.Generator) -> Outlines:
    shaft, wide, neck = between(rng, 0.14, 0.24), between(rng, 0.55, 0.75), between(rng, -0.1, 0.25)
    half = np.array([(1, 0), (neck, wide), (neck, shaft), (-1, shaft)])
    return [np.concatenate([half, half[:0:-1] * (1, -1)])]


def _drop(rng: np.random.Generator) -> Outlines:
    t, sharp = np.linspace(0, 2 * np.pi, 32, endpoint=False), between(rng, 1.3, 2.2)
    return [np.stack([np.cos(t), 0.8 * np.sin(t) * np.abs(np.sin(t / 2)) ** sharp], 1)]


def _gear(rng: np.random.Generator) -> Outlines:
    low = between(rng, 0.68, 0.78)
    return [_radial([1, 1, low, low] * int(rng.integers(7, 10)))]


# ---------------------------------------------------------------------------------------- strokes


def _line(spine: np.ndarray, width: float) -> Outlines:
    """A line of one width that may cross itself: pieces, each starting where the last one ended."""
    cuts = range(0, len(spine) - 1, 6)
    return [tube(spine[i : i + 7], [width] * len(spine[i : i + 7]), 2) for i in cuts]


def _bars(ends: np.ndarray, width: float) -> Outlines:
    """Straight bars between pairs of points (n, 2, 2)."""
    return [stick(pair, (width, width)) for pair in ends.tolist()]


def _spiral(rng: np.random.Generator) -> Outlines:
    turns = between(rng, 2.2, 3)
    t = np.sqrt(np.linspace(0.01, 1, 43))
    angle = t * (turns * 2 * np.pi)
    return _line(np.stack([np.cos(angle), np.sin(angle)], 1) * t[:, None], 0.42 / turns)


def _zigzag(rng: np.random.Generator) -> Outlines:
    x = np.linspace(-1, 1, int(rng.integers(5, 9)))
    points = np.stack([x, between(rng, 0.25, 0.45) * (-1.0) ** np.arange(len(x))], 1)
    return _bars(np.stack([points[:-1], points[1:]], 1), between(rng, 0.14, 0.22))


def _wave(rng: np.random.Generator) -> Outlines:
    t, waves = np.linspace(-1, 1, 37), between(rng, 1.5, 2.8)
    y = between(rng, 0.22, 0.4) * np.sin(t * (waves * np.pi))
    return _line(np.stack([t, y], 1), between(rng, 0.14, 0.22))


def _loops(rng: np.random.Generator) -> Outlines:
    count, high = int(rng.integers(3, 5)), between(rng, 0.3, 0.45)
    t = np.linspace(-np.pi, np.pi, 16 * count + 1) * (count + 0.1)
    x = t / t[-1] - 0.95 / count * np.sin(t)  # a step back in each turn
    return _line(np.stack([x, high * np.cos(t)], 1), between(rng, 0.1, 0.14))


def _lattice(rng: np.random.Generator) -> Outlines:
    at = np.linspace(-0.8, 0.8, int(rng.integers(3, 5)))
    ends = np.stack([np.stack([at, -np.ones_like(at)], 1), np.stack([at, np.ones_like(at)], 1)], 1)
    return _bars(np.concatenate([ends, ends[:, :, ::-1]]), between(rng, 0.14, 0.2))


def _dashes(rng: np.random.Generator) -> Outlines:
    """Short parallel bars, each row shifted against the one before."""
    rows, half = int(rng.integers(4, 6)), between(rng, 0.17, 0.23)
    y = np.repeat(np.linspace(-0.9, 0.9, rows), 3)
    x = np.tile([-0.7, 0, 0.7], rows) + 0.17 * (-1.0) ** np.repeat(np.arange(rows), 3)
    ends = np.stack([np.stack([x - half, y], 1), np.stack([x + half, y], 1)], 1)
    return _bars(ends, between(rng, 0.14, 0.2))


def _asterisk(rng: np.random.Generator) -> Outlines:
    tips = _radial(np.ones(2 * int(rng.integers(3, 5))))
    half = len(tips) // 2
    return _bars(np.stack([tips[:half], tips[half:]], 1), between(rng, 0.16, 0.24))


# --------------------------------------------------------------------------------------- textures


def _blob(rng: np.random.Generator) -> Outlines:
    return [curve(_radial(rng.uniform(0.62, 1, int(rng.integers(6, 10)))), closed=True)]


def _chevrons(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sin(_TURN * x + np.float32(4.8) * np.abs(y * np.float32(0.6) % 2 - 1))


def _rays(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sin(7 * cv2.phase(x, y))  # seven, marked and bare


_TURN = np.float32(2 * np.pi)
_QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # cosine and sine
_OUTLINES: dict[str, Callable[[np.random.Generator], Outlines]] = {
    "disc": _disc, "triangle": _triangle, "square": _square, "ring": _ring, "star": _star,
    "cross": _cross, "crescent": _crescent, "heart": _heart, "arrow": _arrow, "drop": _drop,
    "gear": _gear,
    "spiral": _spiral, "zigzag": _zigzag, "wave": _wave, "loops": _loops, "lattice": _lattice,
    "dashes": _dashes, "asterisk": _asterisk,
}  # fmt: skip
_FIELDS: dict[str, Field] = {
    "stripes": lambda x, y: np.sin(_TURN * x),
    "dots": lambda x, y: np.cos(_TURN * x) + np.cos(_TURN * y) - np.float32(0.5),
    "checks": lambda x, y: np.sin(_TURN / 2 * x) * np.sin(_TURN / 2 * y),
    "ripples": lambda x, y: np.sin(_TURN * cv2.magnitude(x, y)),
    "rays": _rays,
    "chevrons": _chevrons,
}
_FILLS = tuple(_FIELDS)
CLASSES: tuple[str, ...] = (*_OUTLINES, *_FILLS)


# ---------------------------------------------------------------------------------------- drawing


def _draw_many(seed: int, indices: Sequence[int], size: int) -> tuple[np.ndarray, ...]:
    """A chunk of pictures, stacked: images (n, 3, h, w), masks, boxes, backdrops."""
    cv2.setNumThreads(1)  # the workers already fill the cores
    n = len(indices)
    images, masks = np.empty((n, 3, size, size), np.uint8), np.empty((n, size, size), bool)
    boxes, places = np.empty((n, 4), np.int64), np.empty(n, np.int64)
    for row, index in enumerate(indices):
        image, masks[row], places[row] = _draw(seed, index, size)
        images[row], boxes[row] = image.transpose(2, 0, 1), _box(masks[row])
    return images, masks, boxes, places


def _draw(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """One picture (size, size, 3) uint8, its mask (size, size), and its backdrop."""
    rng = np.random.default_rng((seed, index, _STREAM))
    # drawn alike for every class, then overruled where the texture is the class
    name, fill = CLASSES[index % len(CLASSES)], _FILLS[rng.integers(len(_FILLS))]
    place, plain, contrast = int(rng.integers(_PLACES)), rng.random() < 0.7, between(rng, 0.3, 0.7)
    gloss, grain, toward = rng.random() ** 2, rng.random() ** 2, between(rng, -1, 1)
    stance, blur = _STANCES[rng.integers(len(_STANCES))], between(rng, 0.01, 0.05)
    coat = draw_coat(rng)
    if name in _FIELDS:
        fill, plain, contrast = name, False, 1.0
    outlines, middle, extent = _pose(_OUTLINES.get(name, _blob)(rng), rng)
    colours = coat.base, mix(coat.base, coat.mark, contrast)
    paints = [Stroke(np.empty(0), "", c, gloss=gloss, grain=grain) for c in colours]
    pieces = [Stroke(o, "figure", coat.base, volume="figure") for o in outlines]
    _, figure = _rasterise(outlines, pieces, size * OVERSAMPLE)  # 1 in the figure, 0 around it
    ids = figure
    if not plain:  # marked where the texture's field is above zero
        marked = _field(_FIELDS[fill], rng, middle, extent, size * OVERSAMPLE) > 0
        ids = figure + cv2.bitwise_and(figure, marked.view(np.uint8))
    coverage = _shrink(figure * np.uint8(255))
    behind = backdrops.paint(backdrops.NAMES[place], rng, size)
    far = cv2.GaussianBlur(behind.image, (0, 0), blur * size)  # the figure alone is in focus
    image = _cast_shadow(far, coverage, stance, toward)
    _paint_over(image, ids, figure, paints, toward, rng)
    # a pixel is the figure's where at least half of its samples are, as in the world
    return _expose(image, rng), coverage >= 127, place


def _pose(
    outlines: Outlines, rng: np.random.Generator
) -> tuple[Outlines, tuple[float, float], float]:
    """Turn, squeeze, scale and place a figure in the unit frame: its outlines there, the middle and
    the longer side of the box around them."""
    angle, side = between(rng, -_TILT, _TILT), 1 if rng.random() < 0.5 else -1
    cos, sin, shear = math.cos(angle), math.sin(angle), between(rng, -0.12, 0.12)
    turn = np.array([[cos, -sin], [sin, cos]]) @ [[side, shear], [0, between(rng, 0.85, 1)]]
    points = np.concatenate(outlines) @ turn.T
    low, high = points.min(0), points.max(0)
    extent = between(rng, 0.65, 0.95)
    scale = extent / (high - low).max()
    start = (1 - (high - low) * scale) * rng.random(2)
    points = (points - low) * scale + start
    x, y = (start + (high - low) * scale / 2).tolist()
    ends = np.cumsum([len(outline) for outline in outlines])[:-1]
    return np.split(points, ends), (x, y), extent


def _field(
    field: Field,
    rng: np.random.Generator,
    middle: tuple[float, float],
    extent: float,
    pixels: int,
) -> np.ndarray:
    """A texture's field over the frame (pixels, pixels): about `middle`, tilted, 4.5 to 7
    periods to the figure's extent."""
    angle, scale = between(rng, -_TILT, _TILT), between(rng, 4.5, 7) / extent
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    at = (np.arange(pixels) + 0.5) / pixels
    x, y = at - middle[0] - between(rng, -0.06, 0.06), at - middle[1] - between(rng, -0.06, 0.06)
    across, down = np.add.outer(y * -sin, x * cos), np.add.outer(y * cos, x * sin)
    return field(across.astype(np.float32), down.astype(np.float32))
