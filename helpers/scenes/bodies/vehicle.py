"""Road vehicles seen from the side, a little from above and from ahead or behind. A pick-up is a
cab with a bonnet before it and an open load bed behind; a police van is one tall box with a row of
windows, a contrasting band along the side and a light bar on the roof."""

from __future__ import annotations

from functools import lru_cache
from math import hypot

import numpy as np

from helpers.scenes.anatomy import WHITE, Body, Coat, between, mix

PARTS = ("bodywork", "cab", "load bed", "cargo", "window", "wheel", "headlight", "bumper",
    "door", "band", "light bar")  # fmt: skip

TYRE, GREY = np.array([0.13, 0.13, 0.14]), np.array([0.6, 0.61, 0.63])


class _Solid:
    """A side profile pushed into the depth of the picture: near side, and faces between its edges.

    `profile` is listed from the lower rear corner over the roof to the lower front corner; edge i
    runs from its point i to point i + 1. `sharp` corners are not rounded.
    """

    def __init__(
        self,
        profile: list[tuple[float, float]],
        radius: float,
        depth: tuple[float, float],
        sharp: tuple[int, ...] = (),
    ):
        self.profile, self.depth = profile, depth
        self.corners = _round_corners(profile, radius)
        for i in sharp:
            self.corners[i] = [profile[i]] * 4

    def side(self) -> list[tuple[float, float]]:
        return [point for corner in self.corners for point in corner]

    def seen(self, edge: int) -> bool:
        (x0, y0), (x1, y1) = self.profile[edge], self.profile[edge + 1]
        return (y1 - y0) * self.depth[0] - (x1 - x0) * self.depth[1] > 0

    def face(self, edge: int) -> list[tuple[float, float]]:
        near = self.corners[edge][2:] + self.corners[edge + 1][:3]
        dx, dy = self.depth
        return near + [(x + dx, y + dy) for x, y in reversed(near)]

    def patch(
        self, edge: int, along: tuple[float, float], across: tuple[float, float]
    ) -> list[tuple[float, float]]:
        """A piece of the face at an edge: fractions of its length and of the depth."""
        (x0, y0), (x1, y1) = self.profile[edge], self.profile[edge + 1]
        dx, dy = self.depth
        (a0, a1), (t0, t1) = along, across
        return [
            (x0 + (x1 - x0) * a + dx * t, y0 + (y1 - y0) * a + dy * t)
            for a, t in ((a0, t0), (a0, t1), (a1, t1), (a1, t0))
        ]


def _round_corners(points: list[tuple[float, float]], radius: float) -> list:
    """Four points in place of every corner."""
    corners, count = [], len(points)
    for i, (x, y) in enumerate(points):
        (ax, ay), (bx, by) = points[i - 1], points[(i + 1) % count]
        a = min(radius / (hypot(ax - x, ay - y) + 1e-9), 0.45)
        b = min(radius / (hypot(bx - x, by - y) + 1e-9), 0.45)
        ax, ay, bx, by = (ax - x) * a, (ay - y) * a, (bx - x) * b, (by - y) * b
        corners.append(
            [
                (x + ax, y + ay),
                (x + 0.45 * ax + 0.1 * bx, y + 0.45 * ay + 0.1 * by),
                (x + 0.1 * ax + 0.45 * bx, y + 0.1 * ay + 0.45 * by),
                (x + bx, y + by),
            ]
        )
    return corners


@lru_cache
def _corner_weights(count: int) -> tuple[np.ndarray, np.ndarray]:
    keep = np.eye(count)
    before, after = np.roll(keep, -1, 1) - keep, np.roll(keep, 1, 1) - keep
    pull = np.stack([before, before * 0.45 + after * 0.1, before * 0.1 + after * 0.45, after], 1)
    return np.repeat(keep, 4, 0), pull.reshape(4 * count, count)


def _soft(points: list[tuple[float, float]], amount: float = 0.2) -> np.ndarray:
    """Corners rounded by a fraction (0 .. .5) of the edges that meet there."""
    keep, pull = _corner_weights(len(points))
    return (keep + amount * pull) @ np.array(points)


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


class _Vehicle:
    """What both share: the view, the wheels, glass, lights and bumpers."""

    def __init__(self, rng: np.random.Generator, coat: Coat):
        self.rng, self.coat = rng, coat
        self.body = Body(stance="stand", gloss=0.6, grain=0.0)
        ahead = rng.random() < 0.65
        self.depth = (
            between(rng, 0.08, 0.42) * (1 if ahead else -1), -between(rng, 0.07, 0.2)
        )  # fmt: skip
        self.era = between(rng, 0.02, 0.13)  # radius of corners: boxy .. rounded
        self.glass = np.array([0.16, 0.19, 0.23]) + between(rng, 0, 0.28)
        self.wheel = between(rng, 0.16, 0.235)
        self.front = between(rng, 0.56, 0.68)
        self.rear = between(rng, -0.7, -0.5)
        self.sill = -self.wheel * between(rng, 0.75, 1.1)
        self.trim = (GREY * 1.2, TYRE * 2, coat.belly, coat.shade)[rng.integers(4)]

    def under(self) -> None:
        """Far wheels and the dark below the floor."""
        dx, dy = self.depth
        r = self.wheel
        for x in (self.rear, self.front):
            self.body.ellipse("wheel", (x + dx * 0.9, dy * 0.9 - r), (r * 0.9, r), TYRE * 0.7)
        floor = [(-0.93, self.sill - 0.06), (0.93, self.sill - 0.06), (0.88, self.sill + 0.05),
            (-0.88, self.sill + 0.05)]  # fmt: skip
        self.body.polygon("bodywork", floor, TYRE * 0.6)

    def wheels(self) -> None:
        """Arches, tyres, rims and hubs of the near side."""
        body, r = self.body, self.wheel
        rim = mix(GREY * 1.25, (self.coat.belly, self.coat.mark, WHITE)[self.rng.integers(3)],
            0.5 * self.rng.random())  # fmt: skip
        size, spokes = between(self.rng, 0.52, 0.7), self.rng.integers(3)
        arms = 5 + 3 * int(spokes == 2)
        turn = np.arange(2 * arms) * (np.pi / arms) + self.rng.random()
        reach = np.where(np.arange(2 * arms) % 2, 0.9, 0.38) * size * r
        star = np.stack([reach * np.cos(turn), reach * np.sin(turn)], 1)
        for x in (self.rear, self.front):
            arch = _ARCH * (r * 1.24, r * 1.28) + (x, -r)
            arch[[0, -1], 1] = self.sill + 0.02
            body.add("bodywork", arch, TYRE * 0.5, gloss=0)
            body.ellipse("wheel", (x, -r), (r, r), TYRE * 1.3, gloss=0.2)
            body.ellipse("wheel", (x, -r), (r * size, r * size), rim)
            if spokes:
                body.add("wheel", star + (x, -r), rim * 0.45, gloss=0)
            else:
                body.ellipse("wheel", (x, -r), (r * 0.22, r * 0.22), rim * 0.7)

    def pane(self, points: list[tuple[float, float]], shine: bool = False) -> None:
        volume = f"#glass{len(self.body.strokes)}"
        self.body.add("window", _soft(points, self.era * 2), self.glass, gloss=0.9, volume=volume)
        if shine:  # the sky in the glass: a slanted bright stripe
            (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
            stripe = [
                (
                    (ax + (bx - ax) * u) * (1 - v) + (dx + (cx - dx) * u) * v,
                    (ay + (by - ay) * u) * (1 - v) + (dy + (cy - dy) * u) * v,
                )
                for u, v in ((0.35, 0.08), (0.65, 0.08), (0.45, 0.9), (0.12, 0.9))
            ]
            self.body.polygon("window", stripe, mix(self.glass, WHITE, 0.35), gloss=0.9,
                volume=volume)  # fmt: skip

    def bumper(self, x: float, outward: int, top: float, bottom: float) -> None:
        dx, dy = self.depth
        inner, outer = x - outward * 0.1, x + outward * 0.035
        points = [(inner, top), (outer, top), (outer, bottom), (inner, bottom)]
        if dx * outward > 0:
            points[2:2] = [(outer + dx, top + dy), (outer + dx, bottom + dy)]
        self.body.add("bumper", _soft(points), self.trim)

    def lamps(self, solid: _Solid, edge: int, across: float, colour: np.ndarray) -> None:
        """A pair of lamps on the front or rear face, or one at the end of the side."""
        (x, y0), (_, y1) = solid.profile[edge], solid.profile[edge + 1]
        low, high = (0.42, 0.78) if y1 < y0 else (0.15, 0.5)
        if solid.seen(edge):
            for t in ((0.06, 0.06 + across), (0.94 - across, 0.94)):
                self.body.add("headlight", _soft(solid.patch(edge, (low, high), t)), colour,
                    gloss=1)  # fmt: skip
        else:
            inward = -0.09 if x > 0 else 0.07
            y0, y1 = y0 + (y1 - y0) * low, y0 + (y1 - y0) * high
            self.body.add("headlight", _soft(_box(x - 0.005, y0, x + inward, y1)), colour, gloss=1)


_TURN = np.linspace(np.pi, 2 * np.pi, 11)
_ARCH = np.concatenate([[[-1, 0]], np.stack([np.cos(_TURN), np.sin(_TURN)], 1), [[1, 0]]])


def pickup(rng: np.random.Generator, coat: Coat) -> Body:
    """Cab, bonnet and open bed, facing right; edges 0 .. 6 run from tailgate to nose."""
    v = _Vehicle(rng, coat)
    body, sill, (dx, dy) = v.body, v.sill, v.depth
    long_cab = rng.random() < 0.35
    belt = sill - between(rng, 0.28, 0.42)
    roof = belt - between(rng, 0.32, 0.46)
    back = between(rng, -0.22, -0.1) if long_cab else between(rng, -0.06, 0.14)
    base = between(rng, 0.44, 0.56)  # of the windscreen
    top = (back + 0.04, base - between(rng, 0.13, 0.28))
    rim = belt + between(rng, 0.0, 0.1)  # of the load bed
    solid = _Solid(
        [(-1, sill), (-1, rim), (back, rim), (top[0], roof), (top[1], roof), (base, belt),
         (0.98, belt + between(rng, 0.02, 0.1)), (1, sill)],
        v.era, v.depth, (1, 2),
    )  # fmt: skip
    v.under()
    # the far wall of the bed, its floor in shadow, and what lies on it
    body.polygon("load bed", [(-1 + dx, rim + dy), (back + dx, rim + dy), (back + dx, sill + dy),
        (-1 + dx, sill + dy)], coat.shade * 0.8)  # fmt: skip
    body.polygon("load bed", [(-0.97, rim), (back, rim), (back + dx * 0.93, rim + dy * 0.93),
        (-0.97 + dx * 0.93, rim + dy * 0.93)], coat.shade * 0.35, gloss=0)  # fmt: skip
    _cargo(v, rim, back)
    pale, front = mix(coat.base, WHITE, 0.18), coat.base * 0.85
    skins = {
        0: ("load bed", front),
        2: ("cab", coat.shade),
        3: ("cab", pale),
        4: ("cab", coat.base),
        5: ("bodywork", pale),
        6: ("bodywork", front),
    }
    for edge, (part, colour) in skins.items():
        if solid.seen(edge):
            body.polygon(part, solid.face(edge), colour)
    if solid.seen(4):
        v.pane(solid.patch(4, (0.1, 0.92), (0.08, 0.92)))
    if solid.seen(2):
        v.pane(solid.patch(2, (0.4, 0.88), (0.12, 0.88)))
    bed, cab = solid.corners[0] + solid.corners[1], solid.corners[2:]
    door = back + (base - back) * (0.42 if long_cab else 0.1)
    body.polygon("load bed", [*bed, (back + 0.02, rim), (back + 0.02, sill)], coat.base,
        volume="side")  # fmt: skip
    body.polygon("bodywork", [(back - 0.005, sill), (back - 0.005, rim),
        *[p for c in cab for p in c]], coat.base, volume="side")  # fmt: skip
    body.polygon("cab", [(back, belt + 0.03), *cab[0][2:], *cab[1], *cab[2], *cab[3][:2],
        (base - 0.02, belt + 0.03)], coat.belly if rng.random() < 0.2 else coat.base,
        volume="side")  # fmt: skip
    if rng.random() < 0.35:  # a sporty line
        y = belt + between(rng, 0.08, 0.16)
        body.polygon("band", _box(-0.99, y, 0.98, y + between(rng, 0.03, 0.06)), coat.mark,
            volume="side")  # fmt: skip
    seam = coat.base * 0.55
    body.polygon("door", _box(back - 0.008, rim, back + 0.008, sill), seam, volume="side")
    # windows follow the leaning pillars
    high, low = roof + 0.055, belt - 0.01
    lean = (base - top[1]) / (belt - roof)
    rear, front = top[0] + 0.035, top[1] + lean * 0.055 - 0.05
    foot = base - 0.06 - lean * 0.01
    if long_cab:
        v.pane([(rear, high), (door - 0.025, high), (door - 0.025, low), (rear - 0.02, low)])
    v.pane([(door + 0.02 if long_cab else rear, high), (front, high), (foot, low),
        (door + 0.02 if long_cab else rear - 0.02, low)], shine=True)  # fmt: skip
    for x in (door, base - 0.03) if long_cab else (base - 0.03,):
        body.polygon("door", _box(x - 0.007, belt + 0.01, x + 0.007, sill - 0.02), seam,
            volume="side")  # fmt: skip
    for x in (back + 0.04, door + 0.05) if long_cab else (door + 0.02,):
        body.polygon("door", _box(x, belt + 0.05, x + 0.09, belt + 0.08), v.trim * 0.8)
    body.add("cab", _soft(_box(foot - 0.08, low - 0.07, foot - 0.015, low + 0.025)), v.trim * 0.7)
    v.bumper(1, 1, sill - 0.07, sill + 0.035)
    v.bumper(-1, -1, sill - 0.06, sill + 0.03)
    if solid.seen(6):
        body.add("bodywork", _soft(solid.patch(6, (0.15, 0.6), (0.26, 0.74))),
            (TYRE, GREY)[rng.integers(2)])  # fmt: skip
    v.lamps(solid, 6, between(rng, 0.14, 0.22), WHITE)
    v.lamps(solid, 0, 0.12, coat.accent)
    v.wheels()
    return body


def _cargo(v: _Vehicle, rim: float, back: float) -> None:
    """A roll bar, and sometimes a load of boxes, barrels or sacks."""
    body, rng, coat, (dx, dy) = v.body, v.rng, v.coat, v.depth
    if rng.random() < 0.35:
        tint = v.trim * 0.7
        x, height = back - 0.07, between(rng, 0.16, 0.28)
        for t in (0.9, 0.1):
            foot = (x + dx * t, rim + dy * t)
            body.polygon("load bed", [(foot[0] - 0.16, foot[1] + 0.03),
                (foot[0] - 0.02, foot[1] - height), (foot[0] + 0.02, foot[1] - height),
                (foot[0] + 0.02, foot[1]), (foot[0] - 0.02, foot[1] + 0.03),
                (foot[0] - 0.01, foot[1] - height + 0.06), (foot[0] - 0.11, foot[1] + 0.03)],
                tint)  # fmt: skip
        top = rim - height
        body.polygon("load bed", [(x - 0.02 + dx * 0.1, top + dy * 0.1),
            (x - 0.02 + dx * 0.9, top + dy * 0.9), (x + 0.02 + dx * 0.9, top + dy * 0.9 + 0.03),
            (x + 0.02 + dx * 0.1, top + dy * 0.1 + 0.04)], tint * 1.15)  # fmt: skip
    kind, x = rng.integers(5), -0.92
    if kind > 2:
        return
    room = back - 0.24
    while x < room - 0.12:
        wide, tall = between(rng, 0.16, 0.3), between(rng, 0.1, 0.26)
        wide = min(wide, room - x)
        tint = (coat.mark, coat.accent, coat.belly, GREY)[rng.integers(4)] * between(rng, 0.75, 1)
        cx, base = x + dx * 0.45, rim + dy * 0.45
        if kind == 0:  # crates
            body.polygon("cargo", _box(cx, base - tall, cx + wide, base + 0.1), tint, gloss=0.1)
            body.polygon("cargo", _box(cx + wide * 0.12, base - tall * 0.6, cx + wide * 0.88,
                base - tall * 0.42), tint * 0.7, gloss=0)  # fmt: skip
        elif kind == 1:  # sacks or hay
            body.ellipse("cargo", (cx + wide / 2, base - tall * 0.2), (wide * 0.58, tall * 0.75),
                tint, gloss=0, grain=0.5)  # fmt: skip
        else:  # barrels
            body.add("cargo", _soft(_box(cx, base - tall, cx + wide * 0.8, base + 0.1)), tint)
            body.polygon("cargo", _box(cx, base - tall * 0.7, cx + wide * 0.8,
                base - tall * 0.58), tint * 0.7)  # fmt: skip
        x += wide + 0.02 + 0.2 * rng.random() ** 2


def police_van(rng: np.random.Generator, coat: Coat) -> Body:
    """One tall box, facing right; edges 0 .. 4 run from the rear doors to the nose."""
    v = _Vehicle(rng, coat)
    body, sill = v.body, v.sill
    height = between(rng, 0.72, 1.08)
    roof, belt = sill - height, sill - height * between(rng, 0.5, 0.56)
    base = between(rng, 0.68, 0.86)  # of the windscreen
    top = base - between(rng, 0.1, 0.3)
    solid = _Solid([(-1, sill), (-0.99, roof + 0.01), (top, roof), (base, belt),
        (0.98, belt + between(rng, 0.04, 0.12)), (1, sill)], v.era, v.depth)  # fmt: skip
    v.under()
    pale, front = mix(coat.base, WHITE, 0.18), coat.base * 0.85
    for edge, colour in enumerate((front, pale, coat.base, pale, front)):
        if solid.seen(edge):
            body.polygon("bodywork", solid.face(edge), colour)
    if solid.seen(2):
        v.pane(solid.patch(2, (0.1, 0.94), (0.07, 0.93)))
    if solid.seen(0):
        for t in ((0.08, 0.47), (0.53, 0.92)):
            v.pane(solid.patch(0, (0.6, 0.9), t))
    _light_bar(v, top, roof)
    body.polygon("bodywork", solid.side(), coat.base, volume="side")
    _band(v, belt)
    # a row of windows, the last one the driver's, leaning with the windscreen
    seam = coat.base * 0.55
    high, low = roof + height * between(rng, 0.1, 0.15), belt - 0.01
    door = base - between(rng, 0.34, 0.42)
    lean = (base - top) / (belt - roof)
    v.pane([(door + 0.03, high), (top + lean * (high - roof) - 0.05, high), (base - 0.08, low),
        (door + 0.03, low)], shine=True)  # fmt: skip
    count = int(rng.integers(2, 5))
    blind = rng.integers(count) if rng.random() < 0.3 else -1
    wide = (door + 0.9) / count
    for i in range(count):
        if i != blind:
            x = -0.92 + i * wide
            v.pane(_box(x + 0.025, high, x + wide - 0.025, low), shine=i == count - 1)
    slide = -0.92 + wide * (count - 1) - (0.0 if wide > 0.3 else wide * 0.5)
    for x in (base - 0.04, door, slide):
        body.polygon("door", _box(x - 0.007, high - 0.03 if x < door + 0.01 else belt, x + 0.007,
            sill - 0.02), seam, volume="side")  # fmt: skip
    body.polygon("door", _box(slide - 0.4, belt + 0.025, slide, belt + 0.04), seam, volume="side")
    for x in (slide + 0.03, door + 0.04):
        body.polygon("door", _box(x, belt + 0.05, x + 0.08, belt + 0.08), v.trim * 0.8)
    body.add("bodywork", _soft(_box(base - 0.15, low - 0.11, base - 0.08, low + 0.02)),
        v.trim * 0.6)  # fmt: skip
    v.bumper(1, 1, sill - 0.08, sill + 0.035)
    v.bumper(-1, -1, sill - 0.06, sill + 0.03)
    if solid.seen(4):
        body.add("bodywork", _soft(solid.patch(4, (0.15, 0.5), (0.28, 0.72))),
            (TYRE, GREY)[rng.integers(2)])  # fmt: skip
    v.lamps(solid, 4, between(rng, 0.14, 0.22), WHITE)
    v.lamps(solid, 0, 0.1, coat.accent)
    if rng.random() < 0.7:  # a badge between the wheels
        x, y, r = between(rng, -0.2, 0.2), (belt + sill) / 2, between(rng, 0.09, 0.13)
        shape = _BADGES[rng.integers(2)]
        body.add("band", shape * (r * 1.2) + (x, y), coat.mark, volume="side")
        body.add("band", shape * r + (x, y), (WHITE, coat.accent)[rng.integers(2)])
    v.wheels()
    return body


_SHIELD = [(-0.9, -1), (0, -0.75), (0.9, -1), (0.9, 0.2), (0, 1.2), (-0.9, 0.2)]
_STAR = [(0, -1.2), (0.35, -0.4), (1.15, -0.35), (0.55, 0.2), (0.75, 1), (0, 0.55), (-0.75, 1),
    (-0.55, 0.2), (-1.15, -0.35), (-0.35, -0.4)]  # fmt: skip
_BADGES = np.array(_SHIELD), np.array(_STAR)


def _light_bar(v: _Vehicle, top: float, roof: float) -> None:
    """A dark foot across the roof with lamps on it; sometimes a second bar at the rear."""
    body, rng, coat, (dx, dy) = v.body, v.rng, v.coat, v.depth
    long, tall = between(rng, 0.34, 0.62), between(rng, 0.11, 0.17)
    x = between(rng, -0.2, max(top - long - 0.02, -0.1))
    lamps = [coat.accent, mix(coat.accent, WHITE, 0.6)]
    if rng.random() < 0.5:
        lamps = [coat.accent, WHITE, coat.accent]
    ends = [(x, long, lamps)] + ([(-0.85, 0.14, lamps[:1])] if rng.random() < 0.3 else [])
    for left, length, lamps in ends:
        left, y = left + dx * 0.4, roof + dy * 0.4
        body.polygon("light bar", _box(left - 0.02, y - 0.045, left + length + 0.02, y + 0.06),
            TYRE * 1.5)  # fmt: skip
        step = length / len(lamps)
        for i, colour in enumerate(lamps):
            lamp = _box(left + i * step, y - 0.03 - tall, left + (i + 1) * step - 0.01, y - 0.03)
            body.add("light bar", _soft(lamp), colour, gloss=1)


def _band(v: _Vehicle, belt: float) -> None:
    """The contrasting band along the side: plain, doubled, chequered, slanted or swept."""
    body, rng, coat, sill = v.body, v.rng, v.coat, v.sill
    high = belt + between(rng, 0.04, 0.08)
    low = high + (sill - high) * between(rng, 0.4, 0.6)
    style = rng.integers(5)
    if style == 0:
        body.polygon("band", _box(-1, high, 1, low), coat.mark, on="bodywork")
    elif style == 1:
        body.polygon("band", _box(-1, high, 1, low - 0.05), coat.mark, on="bodywork")
        body.polygon("band", _box(-1, low - 0.02, 1, low + 0.03), coat.accent, on="bodywork")
    elif style == 2:  # two rows of squares, drawn as one staircase
        count = int(rng.integers(7, 13))
        half, step = (low - high) / 2, 2.0 / count
        edge = [(-1 + (i + k) * step, high + half * (i % 2)) for i in range(count) for k in (0, 1)]
        if rng.random() < 0.6:
            field = coat.belly if coat.light else coat.shade
            body.polygon("band", _box(-1, high, 1, low), field, on="bodywork")
        body.polygon("band", edge + [(x, y + half) for x, y in reversed(edge)], coat.mark,
            on="bodywork")  # fmt: skip
    elif style == 3:  # slanted bars
        edge, base = [(-1, low + 0.05), (-1, low - 0.01)], low - 0.02
        for k in range(int(2 / (step := between(rng, 0.24, 0.34)))):
            x = -0.96 + k * step
            edge += [(x, base), (x + 0.1, high), (x + 0.1 + step * 0.45, high),
                (x + step * 0.45, base)]  # fmt: skip
        body.polygon("band", [*edge, (1, low - 0.01), (1, low + 0.05)], coat.mark, on="bodywork")
    else:  # swept up to the rear
        body.polygon("band", [(-1, high - 0.04), (-0.4, high), (1, high + 0.05), (1, low),
            (-0.3, low), (-1, sill)], coat.mark, on="bodywork")  # fmt: skip
