"""How a body is drawn: named parts as a stack of filled outlines.

A body plan (see `helpers.scenes.bodies`) is a function of a random generator and a `Coat` that
returns a `Body`: outlines painted one over another, each belonging to a named part. Nothing here
knows about pixels, so the same body can be drawn at any resolution, and part labels, masks and
shading all come from the one stack (see `helpers.scenes.render`).

Coordinates are the body's own: x to the right, **y down**, the body roughly within [-1, 1] and
facing right (+x). `render` fits, mirrors, turns and places it, so absolute size does not matter.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

Point = Sequence[float] | np.ndarray  # (2,)
Points = Sequence | np.ndarray  # (n, 2)
Colour = np.ndarray  # (3,) RGB in 0..1

WHITE, BLACK = np.array([0.95, 0.94, 0.92]), np.array([0.07, 0.06, 0.07])


# ---------------------------------------------------------------------------------------- colours


@dataclass(frozen=True)
class Coat:
    """The colours of one individual. Drawn from one distribution for all classes, on purpose:
    colour then says nothing about the class, and a network has to learn shape and parts."""

    base: Colour  # most of the body
    shade: Colour  # a darker base: far legs, folds
    belly: Colour  # a paler base
    mark: Colour  # markings: contrasts with base in lightness
    accent: Colour  # a second contrasting colour, of another hue
    light: bool  # whether base is lighter than mark


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """`amount` = 0 gives the first colour, 1 the second."""
    return first + (second - first) * amount


def hsv(hue: float, saturation: float, value: float) -> Colour:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def draw_coat(rng: np.random.Generator) -> Coat:
    """Half of the coats are earthy (browns, greys, creams), half are any hue; lightness is free.

    `mark` always differs from `base` by at least .3 in value, so that markings, the carriers of
    the look-alike classes, can be seen on every individual.
    """
    if rng.random() < 0.5:
        hue, saturation = between(rng, 0.02, 0.14), between(rng, 0.05, 0.7)
    else:
        hue, saturation = rng.random(), between(rng, 0.25, 0.85)
    value = between(rng, 0.3, 0.95)
    light = value > between(rng, 0.5, 0.75)
    mark_value = between(rng, 0.08, value - 0.3) if light else between(rng, value + 0.3, 1.1)
    base = hsv(hue, saturation, value)
    mark_hue = hue + rng.normal(0, 0.08)
    mark = hsv(mark_hue, saturation * between(rng, 0.1, 1.0), min(max(mark_value, 0.06), 1.0))
    accent_hue, rich = hue + between(rng, 0.2, 0.8), between(rng, 0.5, 0.95)
    accent = hsv(accent_hue, rich, min(max(1.25 - value, 0.35), 0.95))
    return Coat(base, base * 0.72, mix(base, WHITE, 0.45), mark, accent, light)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """One uniform number: a third of the time `rng.uniform` takes, and a body draws dozens."""
    return low + (high - low) * rng.random()


# --------------------------------------------------------------------------------------- outlines


@lru_cache(maxsize=256)
def spline_basis(n: int, closed: bool, steps: int) -> np.ndarray:
    """Catmull-Rom as one matrix: (samples, n) weights that turn n control points into a curve."""
    segments = n if closed else n - 1
    t = np.arange(steps) / steps
    weights = (
        np.stack(
            [
                -t + 2 * t**2 - t**3,
                2 - 5 * t**2 + 3 * t**3,
                t + 4 * t**2 - 3 * t**3,
                -(t**2) + t**3,
            ]
        )
        / 2
    )
    basis = np.zeros((segments * steps + (not closed), n))
    for segment in range(segments):
        for k in range(4):
            knot = segment + k - 1
            knot = knot % n if closed else min(max(knot, 0), n - 1)
            basis[segment * steps : (segment + 1) * steps, knot] += weights[k]
    if not closed:
        basis[-1, -1] = 1
    return basis


_TURN = np.arange(20) * (2 * np.pi / 20)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN), np.ones(20)], 1)  # and a column to move it by


def curve(points: Points, closed: bool = False, steps: int = 6) -> np.ndarray:
    """A smooth curve through the points: (n, 2) -> (samples, 2)."""
    points = np.asarray(points, float)
    return spline_basis(len(points), closed, steps) @ points


def tube(spine: Points, widths: Points, steps: int = 5, round_end: bool = True) -> np.ndarray:
    """The outline of a tapering tube along a smooth spine; `widths` are full, at its points."""
    spine = np.asarray(spine, float)
    basis = spline_basis(len(spine), False, steps)
    line, half = basis @ spine, (basis @ np.asarray(widths, float)) / 2
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], 1) * half[:, None]
    parts = [line + across]
    if round_end:
        tip, forward, side = line[-1], along[-1] * half[-1], across[-1]
        parts.append(
            np.stack(
                [tip + side * 0.7 + forward * 0.7, tip + forward, tip - side * 0.7 + forward * 0.7]
            )
        )
    parts.append((line - across)[::-1])
    return np.concatenate(parts)


def stick(points: Points, widths: Points) -> np.ndarray:
    """The outline of a thin jointed rod with straight pieces: much cheaper than `tube`."""
    left, right, last = [], [], len(points) - 1
    for i, ((x, y), width) in enumerate(zip(points, widths, strict=True)):
        (ax, ay), (bx, by) = points[max(i - 1, 0)], points[min(i + 1, last)]
        dx, dy = bx - ax, by - ay
        half = width / 2 / math.hypot(dx, dy)
        left.append((x - dy * half, y + dx * half))
        right.append((x + dy * half, y - dx * half))
    return np.array(left + right[::-1])


def place(
    points: Points, origin: Point, angle: float, flip_x: float = 1, flip_y: float = 1
) -> np.ndarray:
    """From a part's own frame to the body's: mirror (-1), turn, shift."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[flip_x * cos, flip_x * sin], [-flip_y * sin, flip_y * cos]])
    return np.asarray(points, float) @ turn + origin


def rotate(points: Points, angle: float, about: Point = (0, 0)) -> np.ndarray:
    """Turn points by `angle` radians (clockwise on screen, y being down) about a pivot."""
    about = np.asarray(about, float)
    cos, sin = np.cos(angle), np.sin(angle)
    return (np.asarray(points, float) - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def joint(start: Point, lengths: Points, angles: Points) -> np.ndarray:
    """The points of a jointed limb: segment i runs `lengths[i]` at absolute `angles[i]` (radians,
    0 = right, pi/2 = down). (n segments) -> (n + 1, 2)."""
    steps = np.asarray(lengths)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(steps, 0)])


# ------------------------------------------------------------------------------------------- body


@dataclass
class Stroke:
    """One filled outline. `on` names the parts it is clipped to (a marking); `volume` strokes of
    one name are shaded as one rounded form, without a crease between them."""

    outline: np.ndarray  # (k, 2)
    part: str
    colour: Colour
    on: tuple[str, ...] = ()
    volume: str = ""
    gloss: float = 0.0  # 0 matt .. 1 polished
    grain: float = 0.0  # 0 smooth .. 1 shaggy


@dataclass
class Body:
    """A painter's stack of strokes: later strokes cover earlier ones.

    `stance` says how the body meets its place: "stand" (feet on the ground, upright), "air" (flies,
    swims or floats: any place, tilts), "flat" (seen from above, lies at any angle), "prop" (leans
    or hangs, tilts freely). `faces` is 1 for a body with a direction, 0 for a symmetric one.
    """

    stance: str = "stand"
    faces: int = 1
    gloss: float = 0.0
    grain: float = 0.3
    strokes: list[Stroke] = field(default_factory=list)

    def add(
        self,
        part: str,
        outline: np.ndarray,
        colour: Colour,
        *,
        on: str | tuple[str, ...] = (),
        volume: str = "",
        gloss: float | None = None,
        grain: float | None = None,
    ) -> np.ndarray:
        """Put any closed outline (k, 2) on top and return it. `on` clips it to the visible area of
        other parts painted so far: the marking takes their shading, and the part named here."""
        self.strokes.append(
            Stroke(
                outline,
                part,
                colour,
                (on,) if isinstance(on, str) else on,
                volume,
                self.gloss if gloss is None else gloss,
                self.grain if grain is None else grain,
            )
        )
        return outline

    def blob(self, part: str, points: Points, colour: Colour, **options: object) -> np.ndarray:
        """A smooth closed shape through the points."""
        return self.add(part, curve(points, closed=True), colour, **options)

    def polygon(self, part: str, points: Points, colour: Colour, **options: object) -> np.ndarray:
        """A shape with straight edges and sharp corners."""
        return self.add(part, np.asarray(points, float), colour, **options)

    def limb(
        self, part: str, spine: Points, widths: Points, colour: Colour, **options: object
    ) -> np.ndarray:
        """A tapering tube with a rounded far end: legs, tails, necks, fingers."""
        return self.add(part, tube(spine, widths), colour, **options)

    def line(
        self, part: str, points: Points, width: float, colour: Colour, **options: object
    ) -> np.ndarray:
        """A thin curve of constant width: strings, whiskers, antennae."""
        return self.add(part, tube(points, [width] * len(points), 4), colour, **options)

    def ellipse(
        self,
        part: str,
        centre: Point,
        radii: Point,
        colour: Colour,
        *,
        angle: float = 0.0,
        **options: object,
    ) -> np.ndarray:
        """An ellipse, turned by `angle` radians."""
        (x, y), (wide, tall) = centre, radii
        cos, sin = math.cos(angle), math.sin(angle)
        frame = np.array(((wide * cos, wide * sin), (-tall * sin, tall * cos), (x, y)))
        return self.add(part, _CIRCLE @ frame, colour, **options)

    def eye(self, centre: Point, radius: float, iris: Colour = BLACK) -> None:
        """A dark eye with a pale rim and a glint, so that it reads on any coat."""
        x, y = centre
        self.ellipse("eye", centre, (radius * 1.25, radius * 1.15), WHITE * 0.9, gloss=0.0, grain=0)
        self.ellipse("eye", centre, (radius, radius), iris, gloss=0.0, grain=0)
        self.ellipse(
            "eye",
            (x + radius * 0.3, y - radius * 0.35),
            (radius * 0.3, radius * 0.3),
            WHITE,
            grain=0,
        )
