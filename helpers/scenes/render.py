"""From (seed, index) to a picture with everything known about it.

Four independent random streams per scene (pose; coat, direction, size and position; backdrop;
light) come from (seed, index) alone: a scene is the same in any batch, order or worker. Another
class, a hidden part or another backdrop leaves the other streams as they were; only what has to
give way does (feet stand on the new ground, and other things may grow in front).

The object is rasterised as a map of stroke numbers at twice the resolution. Colour, part, shading
and mask are all look-ups in that one map, so part labels tile the mask exactly and the mask's edge
is the picture's edge. The hot loop is one OpenCV polygon fill per stroke; everything else is a
handful of whole-image operations.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.random.bit_generator import ISeedSequence

from helpers.scenes import TIE, backdrops
from helpers.scenes.anatomy import Body, Stroke, between, draw_coat
from helpers.scenes.bodies import CLASSES, PART_NAMES, PLANS, SUPERCLASS_OF

STREAMS = ("pose", "coat", "backdrop", "light")
OVERSAMPLE = 2  # 2 x 2 samples a pixel: enough after the lens blur, a quarter of the cost of 4 x 4
_FIXED = 4  # fractional bits of polygon coordinates
_TILT = {"stand": 0.09, "air": 0.35, "flat": np.pi, "prop": 0.6}  # largest turn, radians
_PART_INDEX = {name: index for index, name in enumerate(PART_NAMES)}


@dataclass
class Scene:
    """One rendered scene. `h = w = size`."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    mask: np.ndarray  # (h, w) bool: the object where it is visible
    parts: np.ndarray  # (h, w) uint8, index into PART_NAMES, 0 outside the mask
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the mask, half open
    label: int  # index into CLASSES
    backdrop: int  # index into backdrops.FAMILIES
    view: float  # where it faces: -1 left .. 1 right, 0 no direction


def render(
    seed: int,
    index: int,
    size: int = 64,
    *,
    tie: float = TIE,
    label: int | None = None,
    backdrop: str | None = None,
    hide: Collection[str] = (),
    redraw: Mapping[str, int] = MappingProxyType({}),
) -> Scene:
    """Draw scene `index` of world `seed`.

    Args:
        size: height and width in pixels, at least 16.
        tie: probability in [0, 1] that the backdrop is the superclass's home (see
            `backdrops.HOME`); otherwise every family is equally likely.
        label: index into CLASSES; by default `index % 18`, so that classes are balanced.
        backdrop: force a backdrop family by name.
        hide: names of parts to leave out.
        redraw: scenes of this world that single streams ("pose", "coat", "backdrop", "light") come
            from, instead of this one.

    Raises:
        ValueError: a size, tie, label, backdrop, part or stream that does not exist.
    """
    _check(size, tie, label, backdrop, hide, redraw)
    label = index % len(CLASSES) if label is None else label
    pose, own, place, light = (
        _streams(seed, redraw[name])[k] if name in redraw else stream
        for k, (name, stream) in enumerate(zip(STREAMS, _streams(seed, index), strict=True))
    )
    body = PLANS[CLASSES[label]](pose, draw_coat(own))
    home, other = (
        backdrops.HOME[SUPERCLASS_OF[label]],
        backdrops.NAMES[place.integers(len(backdrops.NAMES))],
    )
    tied = place.random() < tie
    family = backdrop or (home if tied else other)
    behind = backdrops.paint(family, place, size)

    outlines, view = _pose(body, own, behind.ground)
    kept = [i for i, stroke in enumerate(body.strokes) if stroke.part not in hide]
    strokes = [body.strokes[i] for i in kept] + behind.front.strokes
    outlines = [outlines[i] for i in kept] + [s.outline for s in behind.front.strokes]
    count = len(kept)
    ids, forms = _rasterise(outlines, strokes, size * OVERSAMPLE)
    toward = between(light, -1, 1)
    # foreground strokes of the backdrop hide the object
    object_ids = cv2.threshold(ids, count, 0, cv2.THRESH_TOZERO_INV)[1]
    coverage = _shrink(cv2.threshold(object_ids, 0, 255, cv2.THRESH_BINARY)[1])
    image = _cast_shadow(behind.image, coverage, body.stance, toward)
    _paint_over(image, ids, forms, strokes, toward, light)
    image = _expose(image, light)
    mask, parts = _labels(object_ids, coverage, strokes[:count])
    return Scene(image, mask, parts, _box(mask), label, backdrops.NAMES.index(family), view)


def render_many(
    seed: int, indices: Sequence[int], size: int, **options: object
) -> tuple[np.ndarray, ...]:
    """A chunk of scenes, stacked, for one worker: images (n, 3, h, w), masks, parts, boxes, labels,
    backdrops, views. Workers import no more than this module, so they start in half a second."""
    cv2.setNumThreads(1)  # the workers already fill the cores
    n = len(indices)
    images = np.empty((n, 3, size, size), np.uint8)
    masks, parts = np.empty((n, size, size), bool), np.empty((n, size, size), np.uint8)
    boxes = np.empty((n, 4), np.int64)
    labels, places, views = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.float32)
    for row, index in enumerate(indices):
        scene = render(seed, index, size, **options)
        images[row] = scene.image.transpose(2, 0, 1)
        masks[row], parts[row], boxes[row] = scene.mask, scene.parts, scene.box
        labels[row], places[row], views[row] = scene.label, scene.backdrop, scene.view
    return images, masks, parts, boxes, labels, places, views


class _Words(ISeedSequence):
    """Seed words that are already there."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return self.words


def _streams(seed: int, index: int) -> list[np.random.Generator]:
    """Four independent generators from one seed sequence: four of those took longer than a body."""
    words = np.random.SeedSequence((seed, index)).generate_state(16, np.uint64).reshape(4, 4)
    return [np.random.Generator(np.random.PCG64(_Words(row))) for row in words]


def _check(
    size: int,
    tie: float,
    label: int | None,
    backdrop: str | None,
    hide: Collection[str],
    redraw: Collection[str],
) -> None:
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, not {size}")
    if unknown := sorted(set(redraw) - set(STREAMS)):
        raise ValueError(f"no stream {', '.join(unknown)}; there are {', '.join(STREAMS)}")
    if not 0 <= tie <= 1:
        raise ValueError(f"tie is a probability between 0 and 1, not {tie}")
    if label is not None and not 0 <= label < len(CLASSES):
        raise ValueError(f"label must be 0..{len(CLASSES) - 1}, not {label}")
    if backdrop is not None and backdrop not in backdrops.NAMES:
        raise ValueError(f"no backdrop {backdrop!r}; there are {', '.join(backdrops.NAMES)}")
    if unknown := set(hide) - set(PART_NAMES):
        missing, known = ", ".join(sorted(unknown)), ", ".join(PART_NAMES[1:])
        raise ValueError(f"no part {missing}; there are {known}")


def _pose(
    body: Body, rng: np.random.Generator, ground: float | None
) -> tuple[list[np.ndarray], float]:
    """Mirror, foreshorten, tilt, scale and place the body: one outline per stroke, in units of the
    frame, and where the body faces."""
    side = 1 if rng.random() < 0.5 else -1
    yaw = between(rng, 0.82, 1.0) if body.faces else between(rng, 0.92, 1.0)
    tilt = between(rng, -1, 1) * _TILT[body.stance]
    cos, sin, shear = math.cos(tilt), math.sin(tilt), between(rng, -0.1, 0.1)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[side * yaw, shear], [0, 1]])
    # markings may reach beyond the part they are clipped to
    solid = turn @ np.concatenate([s.outline for s in body.strokes if not s.on]).T
    (left, upper), (right, lower) = solid.min(1).tolist(), solid.max(1).tolist()
    wide, tall = right - left, lower - upper
    scale = between(rng, 0.7, 0.96) / max(wide, tall, 1e-6)
    # up to a twentieth of the frame may be cut away on the sides
    along, down = rng.beta(1.6, 1.6, 2).tolist()
    x = max(1.05 - wide * scale, 0.0) * along - 0.025
    y = max(1.05 - tall * scale, 0.0) * down - 0.025
    if body.stance == "stand" and ground is not None:
        height = tall * scale
        y = min(max(between(rng, ground + 0.12, 1.0), height - 0.01), 1.0) - height
    points = np.concatenate([s.outline for s in body.strokes]) @ (turn.T * scale)
    points += (x - left * scale, y - upper * scale)
    ends = itertools.accumulate(len(s.outline) for s in body.strokes)
    outlines = [
        points[end - len(s.outline) : end] for s, end in zip(body.strokes, ends, strict=True)
    ]
    return outlines, float(side * body.faces)


def _rasterise(
    outlines: list[np.ndarray], strokes: list[Stroke], pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the stack into two (pixels, pixels) uint8 maps: which stroke is on top (0 = nothing,
    i + 1 = strokes[i]), and which rounded form lies there (markings lie on their carrier's).

    Args:
        outlines: one (k, 2) per stroke, in units of the frame.
    """
    if len(strokes) > 255:
        raise ValueError(f"a scene holds at most 255 strokes, this one has {len(strokes)}")
    canvas = np.zeros((pixels, pixels, 2), np.uint8)  # both maps, filled in one call
    numbers: dict[str, list[int]] = {}  # the strokes of each part so far
    forms: dict[str | int, int] = {}
    joined = np.concatenate([np.empty((0, 2)), *outlines])
    fixed = np.rint(joined * (pixels << _FIXED)).astype(np.int32)
    end = 0
    for number, (outline, stroke) in enumerate(zip(outlines, strokes, strict=True), start=1):
        start, end = end, end + len(outline)
        polygon = fixed[start:end]
        if not stroke.on:
            form = forms.setdefault(stroke.volume or number, len(forms) + 1)
            cv2.fillPoly(canvas, [polygon], (number, form), cv2.LINE_8, _FIXED)
        else:
            carriers = [i for part in stroke.on for i in numbers.get(part, ())]
            _mark(canvas[:, :, 0], polygon, number, carriers)
        numbers.setdefault(stroke.part, []).append(number)
    return cv2.split(canvas)


def _mark(ids: np.ndarray, polygon: np.ndarray, number: int, carriers: list[int]) -> None:
    """Fill a polygon with `number`, but only where one of the carriers is on top."""
    x, y, w, h = cv2.boundingRect(polygon)
    x0, y0 = max(x >> _FIXED, 0), max(y >> _FIXED, 0)
    window = ids[y0 : max((y + h >> _FIXED) + 2, 0), x0 : max((x + w >> _FIXED) + 2, 0)]
    if not window.size:
        return
    drawn = np.zeros(window.shape, np.uint8)
    corner = -x0 << _FIXED, -y0 << _FIXED
    cv2.fillPoly(drawn, [polygon], 1, cv2.LINE_8, _FIXED, corner)
    marked = _NUMBERS.copy()
    marked[carriers] = number
    np.copyto(window, cv2.LUT(window, marked), where=drawn.view(bool))


_NUMBERS = np.arange(256, dtype=np.uint8)


def _paint_over(
    image: np.ndarray,
    ids: np.ndarray,
    forms: np.ndarray,
    strokes: list[Stroke],
    toward: float,
    rng: np.random.Generator,
) -> None:
    """Paint the strokes over `image` (size, size, 3) in place, anti-aliased. Every form is rounded
    off towards its outline and lit from above and `toward` (-1 left .. 1 right)."""
    size = len(image)
    across, down = (int(size * shift) for shift in rng.random(2).tolist())
    x, y, w, h = cv2.boundingRect(ids)
    if not w:
        return
    x0, y0 = x // OVERSAMPLE, y // OVERSAMPLE  # whole pixels around what was painted
    x1, y1 = -(-(x + w) // OVERSAMPLE), -(-(y + h) // OVERSAMPLE)
    window = slice(y0 * OVERSAMPLE, y1 * OVERSAMPLE), slice(x0 * OVERSAMPLE, x1 * OVERSAMPLE)
    ids, forms = ids[window], forms[window]
    fur = _fur(size)[down + y0 : down + y1, across + x0 : across + x1]

    # outlines need the samples; light and shade are smooth, so a value a pixel is enough
    rim = cv2.morphologyEx(forms, cv2.MORPH_GRADIENT, _CROSS)
    inside = cv2.threshold(rim, 0, 1, cv2.THRESH_BINARY_INV)[1]
    depth = _shrink(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
    depth = np.minimum(depth * np.float32(1 / (0.055 * size * OVERSAMPLE)), 1)
    kernel = int(size / 25) // 2 * 2 + 1
    height = cv2.GaussianBlur(cv2.sqrt(depth * (2 - depth)), (kernel, kernel), size / 90)
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=size / 64)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=size / 64)
    slope = cv2.scaleAdd(across, -0.8 * toward, down)  # positive faces the light

    # what is not painted has no colour and no gloss, so it adds nothing
    count = len(strokes) + 1
    colours, traits = np.zeros((2, 256, 1, 3), np.uint8)
    colours[1:count, 0] = cv2.convertScaleAbs(np.array([s.colour for s in strokes]), alpha=255)
    traits[1:count, 0] = [(255, int(89 * s.gloss), int(153 * s.grain)) for s in strokes]
    colour = _shrink(cv2.applyColorMap(ids, colours))
    covered, gloss, grain = cv2.split(_shrink(cv2.applyColorMap(ids, traits)))
    light = (0.74 + 0.26 * height) * (1 + 0.13 * np.minimum(np.maximum(slope, -3), 3))
    light *= 1 + cv2.multiply(grain, fur, scale=1 / 255, dtype=cv2.CV_32F)
    shine = np.minimum(np.maximum(slope - 0.6, 0), 1.2)
    shine = cv2.multiply(gloss, shine, scale=1 / 255, dtype=cv2.CV_32F)
    target = image[y0:y1, x0:x1]
    target *= _three(1 - covered * np.float32(1 / 255))
    target += cv2.multiply(colour, _three(light), scale=1 / 255, dtype=cv2.CV_32F)
    target += _three(shine)


@functools.cache
def _fur(size: int) -> np.ndarray:
    """Noise in -0.5..0.5, (2 size, 2 size): every scene takes its fur from another place in it."""
    noise = np.random.default_rng(23).random((168, 120), np.float32) - np.float32(0.5)
    return cv2.resize(noise, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def _three(channel: np.ndarray) -> np.ndarray:
    """(h, w) -> (h, w, 3): OpenCV on three planes is four times as fast as NumPy's broadcasting."""
    return cv2.merge([channel, channel, channel])


def _shrink(image: np.ndarray) -> np.ndarray:
    """Oversampled to output resolution."""
    size = image.shape[1] // OVERSAMPLE, image.shape[0] // OVERSAMPLE
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _cast_shadow(
    backdrop: np.ndarray, coverage: np.ndarray, stance: str, toward: float
) -> np.ndarray:
    """Darken the backdrop where the object, `coverage` (size, size) uint8, keeps the light away."""
    size = len(coverage)
    if stance == "stand":  # lies on the ground: the silhouette squashed about the feet
        rows = np.flatnonzero(coverage.max(1) > 127)
        feet = float(rows[-1]) if len(rows) else size
        warp = np.array([[1, toward * 0.5, -toward * 0.5 * feet], [0, 0.16, feet * 0.84]])
        strength, blur = 0.55, size / 50
    elif stance == "flat":
        warp = np.array([[1, 0, -toward * size * 0.03], [0, 1, size * 0.035]])
        strength, blur = 0.5, size / 45
    elif stance == "prop":
        warp = np.array([[1, 0, -toward * size * 0.06], [0, 1, size * 0.04]])
        strength, blur = 0.4, size / 25
    else:
        return backdrop
    shadow = cv2.warpAffine(coverage, warp, (size, size)) * np.float32(-strength / 255)
    # OpenCV blurs float32 three times as fast as uint8
    return cv2.multiply(backdrop, _three(cv2.GaussianBlur(shadow, (0, 0), blur) + 1))


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The camera: colour of the light, exposure, fall-off across the frame, lens blur and noise."""
    size = len(image)
    warmth, tint = rng.standard_normal(2).tolist()
    angle = between(rng, 0, 2 * math.pi)
    exposure, fall, blur, lift, rough = rng.random(5).tolist()
    warmth, tint, exposure, fall = 0.07 * warmth, 0.025 * tint, 0.72 + 0.43 * exposure, 0.35 * fall
    lift *= 0.06  # haze: blacks are not black
    level = exposure * (1 - lift) * 255
    gain = (1 + warmth) * level, (1 + tint) * level, (1 - warmth) * level
    axis = np.arange(1 - size, size, 2, np.float32) / size  # from edge to edge, -1 .. 1
    falloff = np.add.outer(axis * (fall * math.sin(angle)) + 1, axis * (fall * math.cos(angle)))
    image = cv2.multiply(image, cv2.merge([falloff * np.float32(g) for g in gain]))
    image = cv2.GaussianBlur(image, (0, 0), 0.35 + 0.25 * blur * size / 128)
    # sensor noise belongs to the picture's own pixels, so it is drawn at the output resolution
    noise = rng.random((size, size), np.float32)
    rough = 0.01 + 0.06 * rough
    noise = noise * np.float32(rough * 255) + np.float32((lift - rough / 2) * 255)
    return cv2.add(image, _three(noise), dtype=cv2.CV_8U)  # rounded and clipped


def _labels(
    own: np.ndarray, coverage: np.ndarray, strokes: list[Stroke]
) -> tuple[np.ndarray, np.ndarray]:
    """Mask and part labels: a pixel is the object's where at least half of its samples are, and
    then belongs to the uppermost stroke among them."""
    part = np.zeros(256, np.uint8)
    part[1 : len(strokes) + 1] = [_PART_INDEX[stroke.part] for stroke in strokes]
    mask = coverage >= 127  # of 255
    steps = range(OVERSAMPLE)
    top = functools.reduce(np.maximum, [own[row::OVERSAMPLE] for row in steps])
    top = functools.reduce(np.maximum, [top[:, column::OVERSAMPLE] for column in steps])
    return mask, cv2.LUT(top, part) * mask


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + w, y + h
