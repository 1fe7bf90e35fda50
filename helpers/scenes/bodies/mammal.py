"""What dogs, carnivores and primates share: bones that bend, limbs, fur and four-legged poses.

A pose is where hip, shoulder and the four feet are; knees, hocks and elbows follow from the lengths
of the bones. The ground is y = 0, so a body is as high as its y is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.scenes.anatomy import Body, spline_basis

Point = tuple[float, float]


def bend(start: Point, end: Point, upper: float, lower: float, side: float) -> Point:
    """The knee of a two-bone limb from `start` to `end`. A limb pointing down bends forward (+x)
    for `side` = 1 and back for -1."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    span = math.hypot(dx, dy) + 1e-9
    dx, dy = dx / span, dy / span
    span = min(max(span, abs(upper - lower) + 0.01), upper + lower)
    along = (upper**2 - lower**2 + span**2) / (2 * span)
    out = side * math.sqrt(max(upper**2 - along**2, 0.0))
    return start[0] + dx * along + dy * out, start[1] + dy * along - dx * out


def tubes(spines: Sequence[Sequence[Point]], widths: Sequence[Sequence[float]]) -> np.ndarray:
    """Several `anatomy.tube`s with equally many points, round at both ends, in one go, which
    is much cheaper than one by one: (m, n, 2), (m, n) -> (m, k, 2)."""
    spine = np.array(spines)
    basis = spline_basis(spine.shape[1], False, 5)
    line, half = basis @ spine, np.array(widths) @ (basis.T / 2)
    along = np.empty_like(line)
    np.subtract(line[:, 2:], line[:, :-2], out=along[:, 1:-1])
    np.subtract(line[:, 1], line[:, 0], out=along[:, 0])
    np.subtract(line[:, -1], line[:, -2], out=along[:, -1])
    along *= (half / np.sqrt((along * along).sum(2) + 1e-12))[:, :, None]
    across = along[:, :, ::-1] * _LEFT
    count = len(basis)
    out = np.empty((len(line), 2 * count + 6, 2))
    out[:, :count] = line + across
    out[:, count + 3 : -3] = (line - across)[:, ::-1]
    ends = along[:, (-1, 0)][:, :, None] * _FORWARD + across[:, (-1, 0)][:, :, None] * _SIDEWAYS
    ends += line[:, (-1, 0)][:, :, None]
    out[:, count : count + 3], out[:, -3:] = ends[:, 0], ends[:, 1]
    return out


_LEFT = np.array([-1.0, 1.0])
_FORWARD = np.array([[[0.7], [1.0], [0.7]], [[-0.7], [-1.0], [-0.7]]])
_SIDEWAYS = np.array([[[0.7], [0.0], [-0.7]], [[-0.7], [0.0], [0.7]]])


def shaggy(outline: np.ndarray, tuft: float, down: float = 0.0) -> np.ndarray:
    """Turn a smooth closed outline into fur: every other point moves out by `tuft` (and down)."""
    out = outline.copy()
    along = outline[2::2] - outline[:-2:2]
    middle = out[1:-1:2]
    normal = along[:, ::-1] * _LEFT
    (x0, y0), (x1, y1) = outline[0], outline[len(outline) // 3]
    x2, y2 = outline[2 * len(outline) // 3]
    turn = -1 if (x1 - x0) * (y2 - y0) > (x2 - x0) * (y1 - y0) else 1  # which side is outside
    normal *= (turn * tuft / np.sqrt((along * along).sum(1) + 1e-12))[:, None]
    normal[:, 1] += down
    middle += normal
    return out


class Dice:
    """At most `count` uniform numbers, drawn in one go: cheaper than `rng.uniform` each time."""

    def __init__(self, rng: np.random.Generator, count: int = 80):
        self._next = iter(rng.random(count).tolist()).__next__

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * self._next()

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self._next() * len(options))]


def place(
    body: Body, first: int, at: Point, scale: float, angle: float = 0.0, stretch: float = 1.0
) -> None:
    """Take the strokes from number `first` on, drawn about the origin, to where they belong."""
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    matrix = np.array([[cos * stretch, sin * stretch], [-sin, cos]])
    for stroke in body.strokes[first:]:
        stroke.outline = stroke.outline @ matrix + at


def spine(hip: Point, shoulder: Point) -> Callable[[float, float], Point]:
    """Coordinates along the back: (t, d) is `t` of the way from hip to shoulder and `d` below the
    line between them, on the belly's side."""
    (x0, y0), (dx, dy) = hip, (shoulder[0] - hip[0], shoulder[1] - hip[1])
    span = math.hypot(dx, dy)
    ux, uy = dx / span, dy / span
    return lambda t, d: (x0 + dx * t - uy * d, y0 + dy * t + ux * d)


@dataclass
class Pose:
    """Where a four-legged animal's joints are; feet in the order they are painted:
    far hind, far fore, near hind, near fore."""

    name: str
    hip: Point
    shoulder: Point
    feet: tuple[Point, Point, Point, Point]
    folded: bool  # sitting or lying on its haunches

    def along(self, t: float, down: float = 0.0) -> Point:
        """A point `t` of the way from hip to shoulder, `down` from the spine towards the belly."""
        return spine(self.hip, self.shoulder)(t, down)

    @property
    def pitch(self) -> float:
        """How steeply the spine rises towards the head, radians."""
        (x0, y0), (x1, y1) = self.hip, self.shoulder
        return math.atan2(y0 - y1, x1 - x0)


def four_legged(dice: Dice, names: Sequence[str], height: float, length: float) -> Pose:
    """One of the named poses. `height` of the shoulder joint, `length` of the spine."""
    name = dice.pick(names)
    s, a, b, c = dice(), dice(), dice(), dice()
    half = length / 2
    if name == "sit":
        rise = 0.75 + 0.3 * a
        hip = (-0.4, -0.3 * height)
        shoulder = (hip[0] + length * math.cos(rise), hip[1] - length * math.sin(rise))
        fore = shoulder[0] + 0.08 + 0.1 * b
        feet = ((0.06, -0.03), (fore + 0.13, -0.03), (-0.02, 0.0), (fore - 0.02, 0.0))
        return Pose(name, hip, shoulder, feet, True)
    if name == "lie":
        low = -0.36 * height
        reach = half + 0.42 * height
        feet = ((-0.15, -0.03), (reach + 0.2 * a, -0.03), (-0.2, 0.0), (reach - 0.1 * b, 0.0))
        return Pose(name, (-half, low), (half, low - 0.12 - 0.06 * c), feet, True)
    if name == "leap":
        pitch = 0.35 * s
        hip, shoulder = (-half, -height), (half, -height - pitch)
        feet = (
            (-half - 0.45 - 0.2 * a, -0.22), (half + 0.55, -0.35 - pitch - 0.2 * c),
            (-half - 0.32 - 0.2 * a, -0.1), (half + 0.4, -0.22 - pitch - 0.2 * c),
        )  # fmt: skip
        return Pose(name, hip, shoulder, feet, False)
    if name == "rear":  # upright on the hind legs
        lean = 0.1 + 0.3 * s
        hip = (-0.1, -height)
        shoulder = (hip[0] + length * math.sin(lean), hip[1] - length * math.cos(lean))
        paw = shoulder[1] + 0.35 * height - 0.5 * a * height
        feet = (
            (0.18, -0.03), (shoulder[0] + 0.5, paw - 0.1),
            (-0.02 - 0.1 * c, 0.0), (shoulder[0] + 0.3 + 0.15 * b, paw + 0.3 * height * b),
        )  # fmt: skip
        return Pose(name, hip, shoulder, feet, False)
    if name == "bow":
        hip, shoulder = (-half, -height), (half * 0.9, -0.42 * height)
        feet = ((-half, -0.03), (half + 0.55, -0.03), (-half - 0.12, 0.0), (half + 0.45, 0.0))
        return Pose(name, hip, shoulder, feet, False)
    # standing or walking: diagonal legs swing together; a foot on its way forward is lifted
    swing = (0.08 + 0.06 * s if name == "stand" else 0.16 + 0.16 * s) * (1 if a < 0.5 else -1)
    lift = 0.0 if name == "stand" else 0.12 * b
    up, down = (lift, 0.0) if swing > 0 else (0.0, lift)
    feet = (
        (-half - 0.06 + swing, -0.04 - up), (half - swing, -0.04 - down),
        (-half - 0.1 - swing, -down), (half + 0.02 + swing, -up),
    )  # fmt: skip
    sway = 0.06 * (c - 0.5)
    return Pose(name, (-half, -height + sway), (half, -height - sway), feet, False)


def legs(
    pose: Pose,
    height: float,
    thick: float,
    *,
    heel: float = 0.3,
    paw: float = 0.1,
    tilt: float = 0.2,
) -> tuple[list[list[Point]], list[list[float]]]:
    """Spines (4 of 5 points) and widths of the four legs, for `tubes`, in the order of `Pose.feet`.

    `heel` is the length of the foot in parts of `height`, `tilt` how far it lies down (0: upright,
    walks on its toes; 1.5: flat, walks on its soles), `paw` the length of the toes.
    """
    spines, widths = [], []
    w, stretched = thick, pose.name in ("lie", "bow")
    for number, (x, y) in enumerate(pose.feet):
        y -= 0.5 * w
        toe = (x + paw, y + 0.02 if y < -w else y)
        if number % 2:  # fore
            start = pose.along(0.97, 0.03)
            if stretched:
                wrist = (x - 0.12, y - 0.01)
            elif pose.name in ("leap", "rear"):
                wrist = (x - 0.12, y - 0.08)
            else:
                wrist = (x - 0.02, y - 0.14 * height)
            elbow = bend(start, wrist, 0.4 * height, 0.4 * height, -1)
            elbow = (elbow[0], min(elbow[1], -0.6 * w))
            widths.append([1.9 * w, 1.45 * w, 0.95 * w, 1.0 * w, 1.05 * w])
            spines.append([start, elbow, wrist, (x, y), toe])
            continue
        start = pose.along(0.03, 0.04)
        if pose.folded:
            hock = (x - heel * height * 0.95, y - 0.02)
            knee = bend(start, hock, 0.46 * height, 0.44 * height, 1)
            knee = (knee[0], min(knee[1], -0.8 * w))
            widths.append([3.0 * w, 2.3 * w, 1.2 * w, 1.0 * w, 1.05 * w])
        else:
            lean = 0.9 if pose.name == "leap" else tilt
            hock = (x - heel * height * math.sin(lean), y - heel * height * math.cos(lean))
            knee = bend(start, hock, 0.4 * height, 0.38 * height, 1)
            widths.append([2.7 * w, 1.9 * w, 0.95 * w, 0.95 * w, 1.05 * w])
        spines.append([start, knee, hock, (x, y), toe])
    return spines, widths
