"""Places a scene can happen in: twelve textured families, nine of them home to a superclass.

Each family is one function that composes a picture from far to near: sky or wall, scenery paler
with distance, ground in perspective, props, and in half of the scenes something in front of the
object. Time of day, hues and composition vary more within a family than between families, so that a
place is known by what is in it. See `helpers.scenes.painter` for the canvas,
`helpers.scenes.props` and `helpers.scenes.textures` for the paint box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from helpers.scenes import foreground as front
from helpers.scenes.anatomy import Body
from helpers.scenes.painter import (
    BLACK,
    MATERIALS,
    RGB,
    WHITE,
    Painter,
    box,
    circle,
    mix,
    rows,
    threshold,
)


@dataclass
class Backdrop:
    """A painted place."""

    image: np.ndarray  # (size, size, 3) float32 in 0..1
    ground: float | None  # height of the horizon as a fraction from the top; None: no ground
    front: Body = field(default_factory=Body)  # strokes in front of the object, unit coordinates


def paint(name: str, rng: np.random.Generator, size: int) -> Backdrop:
    """Paint a place of family `name`, `size` pixels high and wide. The same generator gives the
    same place at any size.

    Raises:
        ValueError: no such family.
    """
    if name not in _FAMILIES:
        raise ValueError(f"no backdrop {name!r}; there are {', '.join(NAMES)}")
    painter = Painter(rng, size)
    ground = _FAMILIES[name](painter)
    return Backdrop(painter.picture(), ground, painter.front)


# -------------------------------------------------------------------------------------- outdoors


def _meadow(p: Painter) -> float:
    horizon, grass = p.u(0.34, 0.58), p["grass"]
    p.sky(horizon)
    p.ranges(horizon, ("hills", "hills", "peaks", "woods"), 1 + p.chance(0.5))
    if p.chance(0.75):
        p.strip(p.pick(("woods", "pines", "bushes", "woods", "village")), horizon + 0.02, haze=0.25)
    p.ground(horizon, "grass", p.u(0.5, 0.9), grass, contrast=0.85, roll=0.012)
    if p.chance(0.6):  # flowers, in drifts
        drifts = p.plane("specks", horizon, p.u(0.5, 0.8))
        patches = p.plane("patch", horizon, 0.4)
        alpha = cv2.LUT(drifts, threshold(20, 160)) * cv2.LUT(patches, threshold(90, 170))
        p.lay(tuple(p.lit(p["petal"])), alpha, p.size - len(alpha))
    if p.chance(0.3):
        p.strip("fences", horizon + p.u(0.05, 0.09), haze=0.1)
    scenery = ("tree", "tree2", "poplar", "bush", "blossom", "conifer", "rock", "tree")
    p.scatter(scenery, p.u(0.4, 3), horizon + 0.03, horizon + 0.14)
    p.scatter(("flower", "tulip", "tuft", "flower"), p.u(0, 3.4), horizon + 0.2, 1.0)
    front.one_of(p, (front.blades, grass), (front.blades, grass, front.LEAF, 0.1, 0.22, 8))
    return horizon


def _sky(p: Painter) -> None:
    horizon = p.u(0.84, 1.25)
    p.sky(horizon, clouds=p.chance(0.5))
    land = p.pick(("hills", "peaks", "sea", "woods", "city", "none", "none"))
    if land == "sea":
        p.ground(min(horizon, 0.92), "waves", 0.8, p["sea"])
    elif land != "none":
        tall = p.u(0.14, 0.3)
        p.strip(p.pick(("hills", "peaks")), 1.02, tall, haze=0.6, contrast=0.7)
        p.strip(land, 1.02, tall * 0.6, haze=0.35, contrast=0.8)
    lit, dull = mix(WHITE, p.low, 0.15), mix(mix(p.low, p.top, 0.65), (0.5, 0.52, 0.6), 0.3)
    p.tint = mix(p.tint, WHITE, 0.75)
    count = 2 + int(p.u(0, 4))
    for i in range(1, count + 1):  # far and small to near and large
        near = i / count
        tall, name = 0.2 + 0.55 * near * p.u(0.6, 1.1), p.pick(("cumulus", "cumulus2", "cumulus3"))
        x, base = p.u(-0.1, 1.1), p.u(0.15, 0.95) + 0.15 * near + tall * 0.2
        colours = (dull, mix(dull, lit, 0.6), lit), ""
        p.prop(name, x, base, tall, colours, wide=p.u(1.1, 1.9), haze=0.55 * (1 - near))
    front.one_of(p, (front.puffs, mix(lit, p.low, 0.3)), (front.twig, p["bark"], p["leaf"]))


def _road(p: Painter) -> float:
    paint_ = p.colour(((0.12, 0.05, 0.95), (0.13, 0.6, 0.95)))
    return _avenue(p, paint_) if p.chance(0.5) else _street(p, paint_)


def _street(p: Painter, paint_: RGB) -> float:
    """A street seen from its other side: houses, pavement, kerb, lanes."""
    horizon = p.u(0.42, 0.56)
    p.sky(horizon)
    p.strip(p.pick(("city", "hills", "woods", "city")), horizon, p.u(0.3, 0.44), haze=0.6)
    near = p.pick(("village", "village", "village", "woods", "bushes", "city"))
    p.strip(near, horizon + 0.02, p.u(0.34, 0.5), haze=0.1)
    p.ground(horizon, "tiles", 1.1, p["stone"], contrast=0.5, veil=0.25)
    furniture = ("lamp", "tree", "tree2", "sign", "lamp", "bush", "poplar")
    p.scatter(furniture, p.u(0.5, 3.4), horizon + 0.03, horizon + 0.07)
    kerb, tar = horizon + p.u(0.08, 0.13), p["tar"]
    p.ground(kerb, "grain", 1.3, tar, contrast=0.5, veil=0.0)
    p.fill(mix(tar, WHITE, 0.5), box(-0.01, kerb - 0.018, 1.01, kerb + 0.002))
    p.fill(mix(tar, BLACK, 0.45), box(-0.01, kerb + 0.002, 1.01, kerb + 0.012))
    y, long, shift = kerb + (1 - kerb) * p.u(0.35, 0.6), p.u(0.16, 0.3), p.u(-0.2, 0.2)
    dash = np.array(((0.025, 0), (long + 0.015, 0), (long, 0.034), (0, 0.034)))
    p.fill(paint_, *(dash + (shift + i * long * 1.9, y) for i in range(-1, 5)), haze=0.1)
    front.one_of(p, (front.cones,), (front.cones,), (front.railing, p["stone"]),
                 (front.leaves, p["leaf"]))  # fmt: skip
    return horizon


def _avenue(p: Painter, paint_: RGB) -> float:
    """A road running away to the horizon."""
    horizon = p.u(0.38, 0.55)
    p.sky(horizon)
    p.ranges(horizon, ("hills", "peaks", "city", "mesas"), 1)
    p.strip(p.pick(("woods", "village", "city", "pines", "bushes")), horizon + 0.02, haze=0.3)
    verge = p.colour(p.pick(("grass", "grass", "sand", "stone")))
    p.ground(horizon, p.pick(("grass", "grain", "patch")), p.u(0.6, 1), verge, contrast=0.8)
    vanish, left, right = p.u(0.3, 0.7), p.u(-0.5, 0.05), p.u(0.95, 1.5)

    def lane(first: float, last: float, near: float = 0.0, far: float = 1.0) -> tuple:
        """A stretch of the road: from 0, its left edge, to 1, its right; depth 0 near .. 1 far."""
        corners = (first, near), (first, far), (last, far), (last, near)
        xs = ((left + (right - left) * s, depth) for s, depth in corners)
        return tuple((x + (vanish - x) * d, 1.02 + (horizon - 1.015) * d) for x, d in xs)

    field_ = p.plane("grain", horizon, 1.1)
    top = p.size - len(field_)
    colour = cv2.applyColorMap(field_, p.ramp(p["tar"], 0.08, 0.5))
    p.lay(colour, p.mask(lane(0, 1))[top:], top)
    p.fill(paint_, lane(0.06, 0.08, 0, 0.97), lane(0.92, 0.94, 0, 0.97), haze=0.15)
    shift = p.u()
    for i in range(7):  # dashes of equal length on the ground
        near, far = (max(1 - 1 / (1 + (i + shift + d) * 0.42), 0) for d in (-0.9, -0.35))
        if far:
            p.fill(paint_, lane(0.48, 0.52, near, far), haze=0.1)
    name = p.pick(("lamp", "lamp", "tree", "poplar", "conifer", "palm"))
    for side in (-0.12, 1.12):
        if p.chance(0.7):
            for depth in (0.86, 0.68, 0.42):
                (x, y), *_ = lane(side, side, depth)
                p.prop(name, x, y, 0.95 * (1.02 - horizon) * (1 - depth) + 0.05, haze=0.05)
    front.one_of(p, (front.cones,), (front.cones,), (front.rocks, p["stone"]),
                 (front.blades, verge))  # fmt: skip
    return horizon


def _desert(p: Painter) -> float:
    horizon, sand = p.u(0.36, 0.56), p["sand"]
    p["stone"] = p["cliff"]
    p["grass"] = mix(p["cactus"], sand, 0.5)
    p.sky(horizon, clouds=p.chance(0.5))
    p.ranges(horizon, ("mesas", "mesas", "dunes", "peaks"), 1 + p.chance(0.5))
    if p.chance(0.6):
        p.strip("dunes", horizon + 0.05, haze=0.2, contrast=0.7)
    texture = p.pick(("ripple", "ripple", "grain", "cells", "patch"))
    span = p.u(0.45, 0.8)
    p.ground(horizon + 0.02, texture, span, sand, contrast=0.7, roll=0.02, veil=0.35)
    if p.chance(0.6):
        p.strip("cacti", horizon + p.u(0.04, 0.09), haze=0.25)
    scenery = ("cactus", "cactus", "pear", "rock", "tuft", "rock2", "bare", "cactus")
    p.scatter(scenery, p.u(1, 4), horizon + 0.07, horizon + 0.2)
    front.one_of(p, (front.rocks, p["stone"]), (front.mound, sand),
                 (front.blades, p["grass"], front.BLADE, 0.1, 0.24))  # fmt: skip
    return horizon


def _snow(p: Painter) -> float:
    horizon = p.u(0.38, 0.58)
    white = mix((0.93, 0.95, 0.98), p.low, p.u(0.05, 0.3))
    blue = p.colour(((0.6, 0.3, 0.72), (0.65, 0.22, 0.7), (0.55, 0.2, 0.75), (0.8, 0.15, 0.75)))
    drift = blue, white, white
    p["leaf"] = p.colour(((0.4, 0.35, 0.35), (0.3, 0.3, 0.35), (0.55, 0.25, 0.38), (0.1, 0.3, 0.4)))
    p["cliff"] = p.pick((blue, p["leaf"], p["stone"]))
    p["snow"] = p["roof"] = drift
    p.sky(horizon)
    p.ranges(horizon, ("peaks", "peaks", "hills"), 1 + p.chance(0.5))
    if p.chance(0.85):
        p.strip("snowpines", horizon + 0.02, haze=0.35)
    texture, span = p.pick(("cloud", "patch", "ripple")), p.u(0.25, 0.5)
    p.ground(horizon, texture, span, drift, roll=0.025, veil=0.25)
    scenery = ("snowy", "snowy", "snowy", "bare", "snowman", "rock", "fence", "house")
    p.scatter(scenery, p.u(1, 4), horizon + 0.05, horizon + 0.18)
    if p.chance(0.5):
        flakes = p.texture("specks", p.u(0.7, 1.2), angle=p.u(0, 6))
        p.lay((0.98, 0.98, 1.0), flakes * np.float32(0.85 / 255))
    dry = mix(p["bark"], (0.9, 0.8, 0.6), 0.4)
    front.one_of(p, (front.mound, white), (front.mound, white), (front.rocks, p["stone"], white),
                 (front.blades, dry, front.BLADE, 0.1, 0.22))  # fmt: skip
    return horizon


def _beach(p: Painter) -> float:
    horizon, shore, sand, sea = p.u(0.28, 0.42), p.u(0.5, 0.66), p["sand"], p["sea"]
    p.sky(horizon)
    if p.chance(0.45):
        p.ranges(horizon, ("hills", "peaks"), 1)
    p.ground(horizon, "waves", p.u(0.5, 0.9), sea, contrast=0.8, veil=0.45)
    p.scatter(("sail",), p.u(0, 2.5), horizon + 0.02, horizon + 0.06)
    # the rolling edge of the water: a breaker, shallows, foam, wet sand, dry sand
    x, phase = np.linspace(-0.02, 1.02, 25), p.u(0, 6)
    edge = shore + 0.018 * np.sin(x * 7 + phase) + 0.01 * np.sin(x * 17 + phase * 2)
    edge += p.u(-0.08, 0.08) * (x - 0.5)

    def beyond(shift: float) -> np.ndarray:
        return np.concatenate([np.stack([x, edge + shift], 1), [(1.02, 1.02), (-0.02, 1.02)]])

    breaker = np.stack([x, edge - 0.035], 1), np.stack([x, edge - 0.022], 1)[::-1]
    p.fill((0.97, 0.98, 0.97), np.concatenate(breaker), haze=0.2)
    p.fill(mix(sea, WHITE, 0.35), beyond(-0.022), haze=0.15)
    p.fill((0.98, 0.98, 0.97), beyond(-0.006), haze=0.05)
    p.fill(mix(sand, (0.2, 0.2, 0.25), 0.35), beyond(0.012))
    field_ = p.plane(p.pick(("grain", "ripple", "patch", "grain")), horizon, 0.8)
    top = p.size - len(field_)
    colour = cv2.applyColorMap(field_, p.ramp(sand, 0.0, 0.55))
    p.lay(colour, p.mask(beyond(0.045))[top:], top)
    scenery = ("palm", "parasol", "hut", "palm", "tuft", "rock", "parasol")
    for y in sorted(shore + p.u(0.08, 0.2) for _ in range(1 + int(p.u(0, 2.6)))):
        p.prop(p.pick(scenery), p.pick((p.u(0, 0.35), p.u(0.65, 1))), y)
    if p.chance(0.4):
        bx, by, r = p.u(0.1, 0.9), p.u(shore + 0.12, 0.9), p.u(0.03, 0.05)
        p.fill(mix(sand, BLACK, 0.4), circle(bx, by + r, r, 0.3))
        p.fill((0.95, 0.94, 0.9), circle(bx, by, r))
        p.fill(p["petal"], circle(bx, by, r)[2:9], circle(bx, by, r)[12:19])
    front.one_of(p, (front.blades, p["grass"]), (front.rocks, p["stone"]), (front.mound, sand))
    return shore - 0.04


# ------------------------------------------------------------------------------ among the leaves


def _trunks(p: Painter, count: int, wide: float, base: float, haze: float) -> None:
    """Tree trunks from the ground to beyond the upper edge, their right sides in the shade."""
    shapes, shades = [], []
    for _ in range(count):
        x, lean, w, foot = p.u(-0.05, 1.05), p.u(-0.05, 0.05), wide * p.u(0.6, 1.3), p.u(0, 0.03)
        y = base + foot
        right = [(x + w * 0.95, y), (x + w * 0.55, y - w * 0.9), (x + w * 0.5 + lean, -0.02)]
        left = [(x - w * 0.5 + lean, -0.02), (x - w * 0.55, y - w * 0.9), (x - w * 0.95, y)]
        shapes.append(left + right)
        shades.append([(x + w * 0.1 + lean, -0.02), (x + w * 0.15, y), *right])
    if wide < 0.04:
        p.fill(p["bark"], *shapes, haze=haze)
        return
    grain = p.texture("bark", 0.8 if wide > 0.06 else 1.5, squash=0.5)
    p.lay(cv2.applyColorMap(grain, p.ramp(p["bark"], haze, 0.8)), p.mask(*shapes))
    if wide > 0.06:
        p.lay(tuple(p.lit(p["bark"], 0.3)), p.mask(*shades) * np.float32(0.5 * (1 - haze)))


def _forest(p: Painter) -> float:
    horizon, leaf = p.u(0.46, 0.64), p["leaf"]
    floor = p.colour("bark") if p.chance(0.4) else mix(p.colour("grass"), p["bark"], p.u(0.2, 0.7))
    p.low = mix(p.low, leaf, p.u(0.1, 0.45))  # the light comes through leaves
    p.top = mix(p.low, leaf, 0.6)
    p.sky(horizon, clouds=False)
    p.strip(p.pick(("woods", "pines")), horizon + 0.02, p.u(0.3, 0.5), haze=0.6, contrast=0.7)
    _trunks(p, 6, 0.025, horizon + 0.01, 0.5)
    p.ground(horizon, "leaves", p.u(0.6, 0.95), floor, contrast=0.85, roll=0.01)
    _trunks(p, 3, 0.05, horizon + 0.03, 0.22)
    p.strip(p.pick(("ferns", "bushes", "ferns", "tufts")), horizon + 0.06, haze=0.12)
    if p.chance(0.8):
        _trunks(p, 1 + p.chance(0.4), 0.1, horizon + p.u(0.06, 0.13), 0.0)
    if p.chance(0.6):
        p.fringe(leaf, p.u(0.15, 0.4))
    if p.chance(0.35):  # shafts of light
        x, lean = p.u(-0.3, 0.9), p.u(0.1, 0.4)
        shaft = np.array(((0, -0.1), (0.1, -0.1), (0.14 + lean, 1), (lean - 0.05, 1)))
        alpha = p.mask(*(shaft + (x + d, 0) for d in (0, 0.22, 0.5)), soft=0.1)
        p.lay(mix(p.low, (1, 0.97, 0.8), 0.6), alpha * np.float32(0.3))
    scenery = ("fern", "mushroom", "rock", "bush", "tuft", "fern")
    p.scatter(scenery, p.u(0, 3.6), horizon + 0.08, horizon + 0.3)
    front.one_of(p, (front.leaves, leaf), (front.blades, leaf, front.LEAF, 0.12, 0.24, 9),
                 (front.twig, p["bark"], leaf), (front.rocks, p["stone"]))  # fmt: skip
    return horizon


def _jungle(p: Painter) -> float | None:
    anchors = ((0.33, 0.65, 0.42), (0.27, 0.65, 0.5), (0.42, 0.55, 0.4), (0.2, 0.65, 0.55))
    leaf = p["leaf"] = p.colour((*anchors, (0.48, 0.45, 0.38), (0.13, 0.6, 0.55)))
    ground = p.u(0.66, 0.82)
    p.low = mix(p.low, mix(leaf, (1, 1, 0.8), 0.4), p.u(0.3, 0.65))
    p.top = mix(p.low, leaf, p.u(0.3, 0.9))
    p.sky(p.u(0.5, 0.9), clouds=False)
    p.strip("jungle", ground - 0.05, p.u(0.5, 0.7), haze=0.6, contrast=0.8)
    if p.chance(0.6):
        _trunks(p, 1 + p.chance(0.5), p.u(0.05, 0.09), ground + 0.02, 0.2)
    else:
        p.strip("palms", ground, p.u(0.4, 0.65), haze=0.4)
    earth = mix(leaf, p["bark"], p.u(0.3, 0.9))
    p.ground(ground, p.pick(("leaves", "grass", "leaves")), 0.8, earth, contrast=0.8, veil=0.4)
    p.strip("jungle", ground + 0.07, p.u(0.25, 0.4), haze=0.14)
    t, lianas = np.linspace(-0.02, 1, 9), []
    for _ in range(2 + int(p.u(0, 4))):  # hanging or looping
        x, reach, deep, phase = p.u(), p.u(-0.6, 0.6), p.u(0.35, 0.9), p.u(0, 6)
        if p.chance(0.4):
            line = np.stack([x + reach * t, deep * 2.6 * t * (1 - t) - 0.02], 1)
        else:
            line = np.stack([x + reach * 0.1 * np.sin(phase + 4 * t), t * deep], 1)
        lianas.append(np.concatenate([line - (0.008, 0), (line + (0.008, 0.012))[::-1]]))
    p.fill(mix(p["bark"], leaf, 0.4), *lianas)
    for _ in range(2 + int(p.u(0, 3))):  # big leaves from the sides
        name, left = p.pick(("broad", "monstera", "banana", "monstera", "broad")), p.chance(0.5)
        x, angle = p.u(-0.12, 0.06), p.u(0.3, 1.9)
        colour = mix(leaf, p.colour("leaf"), 0.35)
        x, angle = (x, angle) if left else (1 - x, -angle)
        p.prop(name, x, p.u(-0.05, 0.95), p.u(0.35, 0.6), (colour, ""), angle=angle)
    if p.chance(0.35):
        p.fringe(mix(leaf, BLACK, 0.15), p.u(0.12, 0.28))
    if p.chance(0.35):
        p.prop("aster", p.pick((p.u(-0.02, 0.1), p.u(0.9, 1.02))), p.u(0.3, 0.9), p.u(0.12, 0.2))
    dark = mix(leaf, BLACK, 0.1)
    front.one_of(p, (front.leaves, dark), (front.leaves, dark), (front.creepers, earth))
    return ground if p.chance(0.6) else None


def _garden(p: Painter) -> None:
    """Close up: leaves and flowers as large as the insect."""
    anchors = (*MATERIALS["leaf"], (0.3, 0.6, 0.45), (0.25, 0.5, 0.62), (0.9, 0.35, 0.45))
    leaf = p["leaf"] = p.colour(anchors)
    blooms = [(p.colour("petal"), p["leaf"]), (p.colour("petal"), p["leaf"])]
    if p.chance(0.45):  # a bed: stems rising before a soft background
        far = p.texture("patch", 0.25)
        p.image[:] = cv2.applyColorMap(
            far, p.ramp((mix(leaf, BLACK, 0.5), leaf, mix(leaf, p.low, 0.7)))
        )
        p.fade(p.low, 0.6, 0.0, p.u(0.2, 0.7))
        p.strip("flowers", p.u(0.8, 1.0), p.u(0.5, 0.75), blooms[1], haze=0.35, contrast=0.6)
        p.prop("broad", p.u(), 1.05, p.u(0.55, 0.95))
        for i in range(4):
            p.prop(
                p.pick(("flower", "tulip", "flower")), p.u(), 1.05, p.u(0.55, 0.95), blooms[i % 2]
            )
    else:  # a carpet of leaves, small or very large
        span = p.u(0.2, 0.6)
        field_ = p.texture("leaves", span, angle=p.u(0, 6.3))
        p.image[:] = cv2.applyColorMap(field_, p.ramp(leaf, 0.0, p.u(0.7, 1)))
        for i in range(2 + int(p.u(0, 3))):
            name, angle = p.pick(("broad", "monstera", "broad", "fern")), p.u(-3.1, 3.1)
            x = p.pick((p.u(-0.1, 0.25), p.u(0.75, 1.1)))
            p.prop(name, x, p.u(), p.u(0.5, 0.9), angle=angle, haze=0.12 * i)
    for i in range(2 + int(p.u(0, 3))):
        r, y = p.u(0.22, 0.46), p.pick((p.u(0, 0.3), p.u(0.7, 1.05)))
        colours = blooms[i % 2][0], p["heart"]
        p.prop(p.pick(("daisy", "aster")), p.u(-0.05, 1.05), y + r / 2, r, colours)
    front.one_of(p, (front.leaves, mix(leaf, BLACK, 0.1)),
                 (front.blades, leaf, front.BLADE, 0.2, 0.4, 8))  # fmt: skip


# -------------------------------------------------------------------------------------- elsewhere


def _underwater(p: Painter) -> float | None:
    anchors = ((0.55, 0.65, 0.6), (0.6, 0.65, 0.62), (0.5, 0.55, 0.55), (0.45, 0.45, 0.5))
    others = (
        (0.68, 0.5, 0.55),
        (0.38, 0.35, 0.5),
        (0.12, 0.3, 0.5),
        (0.5, 0.3, 0.9),
        (0.6, 0.8, 0.3),
    )
    water = p.colour(anchors + others)
    p.low = mix(water, (0.75, 0.95, 0.95), p.u(0.1, 0.4))  # what distance fades into
    p.top = mix(water, (0.9, 1, 1), p.u(0.35, 0.7))
    p.tint = mix(WHITE, mix(water, WHITE, 0.35), 0.6)
    p.sky(0.6, clouds=False, sun=0.0)
    p.fade(mix(water, BLACK, p.u(0.2, 0.6)), 0.25, 1.1, 0.85)
    if p.chance(0.6):  # the surface from below
        web = p.plane("web", 0.3, 1.0, up=True)
        alpha = cv2.LUT(web, threshold(110, 255, 0.5))
        p.lay((0.95, 1, 1), alpha * np.maximum(1 - rows(p.size)[: len(web)] * 3.6, 0))
    x, lean, rays = p.u(0.1, 0.7), p.u(-0.3, 0.3), []
    for i in range(5):
        d, w = (i - 2) * 0.2 + p.u(-0.06, 0.06), p.u(0.02, 0.06)
        near, far = x + d * 0.6, x + d * 1.7 + lean
        rays.append(((near, -0.05), (near + w, -0.05), (far + w * 3, 0.95), (far, 0.95)))
    fall = np.clip(1.05 - rows(p.size), 0, 1) * np.float32(p.u(0.15, 0.4))
    p.lay((0.9, 1, 0.97), p.mask(*rays, soft=0.07) * fall)
    bed = p.u(0.68, 0.88) if p.chance(0.75) else None
    base = bed or 1.02
    p["leaf"] = p["cliff"] = p.colour("coral")
    p.strip(p.pick(("reef", "hills", "mesas")), base + 0.04, p.u(0.2, 0.42), haze=0.7, contrast=0.7)
    p.strip("reef", base + 0.06, haze=0.4)
    if bed:
        sand = p.colour(((0.12, 0.25, 0.85), (0.1, 0.12, 0.8), (0.08, 0.3, 0.7), (0.5, 0.15, 0.7)))
        texture = p.pick(("ripple", "grain", "cells", "patch"))
        p.ground(bed, texture, 0.8, sand, contrast=0.6, veil=0.7, roll=0.03)
        if p.chance(0.5):  # light through the waves
            web = p.plane("web", bed + 0.03, 1.0)
            p.lay((1, 1, 0.95), cv2.LUT(web, threshold(120, 255, 0.35)), p.size - len(web))
    growth = ("coral", "fan", "dome", "sponge", "anemone", "weed", "kelp", "weed", "rock")
    for _ in range(2 + int(p.u(0, 3))):
        x, foot = p.pick((p.u(-0.05, 0.3), p.u(0.7, 1.05), p.u())), base + p.u(0.04, 0.12)
        p["coral"] = p.colour("coral")
        p.prop(p.pick(growth), x, min(foot, 1.03), haze=0.05)
    for _ in range(int(p.u(0, 3))):  # strings of bubbles
        x, y = p.u(0.05, 0.95), p.u(0.3, 0.9)
        for _ in range(4):
            r, x, y = p.u(0.008, 0.02), x + p.u(-0.025, 0.025), y - p.u(0.03, 0.07)
            p.fill(mix(p.low, WHITE, 0.5), circle(x, y, r))
            p.fill(mix(p.low, water, 0.4), circle(x + r * 0.12, y + r * 0.12, r * 0.72))
    front.one_of(p, (front.corals, p["coral"]), (front.rocks, p["stone"]),
                 (front.blades, p["weed"], front.WEED, 0.2, 0.42, 7))  # fmt: skip
    return bed


def _stage(p: Painter) -> float:
    floor, cloth, wood = p.u(0.6, 0.74), p["cloth"], p["wood"]
    back = mix(p.colour("paint"), BLACK, 0.35)
    glow = p.colour(
        ((0.12, 0.25, 1), (0.9, 0.3, 1), (0.55, 0.3, 1), (0.08, 0.4, 1), (0.75, 0.25, 1))
    )
    p.low, p.tint = mix(back, BLACK, 0.35), mix((0.95, 0.95, 0.95), glow, 0.35)
    folds = p.texture("folds", p.u(0.5, 1.0))
    p.image[:] = cv2.applyColorMap(folds, p.ramp(back, 0.0, p.u(0.45, 0.85)))
    p.ground(floor, "planks", p.u(0.7, 1.1), wood, contrast=0.7, veil=0.35)
    p.fill(mix(wood, BLACK, 0.6), box(-0.01, floor - 0.012, 1.01, floor + 0.004))
    for x in (0.1, 0.75):
        if p.chance(0.35):
            p.prop(p.pick(("speaker", "speaker", "pot")), x + p.u(0, 0.15), floor + 0.05)
    # light: cones from above and their pools on the boards
    lamps, beams, pools = [], [], []
    for _ in range(1 + int(p.u(0, 2.6))):
        x, aim, wide, y = p.u(0.1, 0.9), p.u(0.15, 0.85), p.u(0.13, 0.24), p.u(floor + 0.08, 0.95)
        lamps.append(x)
        beams.append(((x - 0.02, 0.04), (x + 0.02, 0.04), (aim + wide, y), (aim - wide, y)))
        pools.append(circle(aim, y, wide * 1.08, 0.3))
    p.lay(glow, p.mask(*beams, soft=0.06) * np.float32(p.u(0.18, 0.36)))
    p.lay(mix(glow, WHITE, 0.3), p.mask(*pools, soft=0.05) * np.float32(p.u(0.25, 0.45)))
    # the house curtain: two wings, drawn back, and a scalloped valance
    t, open_, tie = np.linspace(0, 1.02, 12), p.u(0.1, 0.2), p.u(0.4, 0.65)
    if p.chance(0.75):
        inner = open_ * (1.35 - 0.9 * np.exp(-(((t - tie) / 0.25) ** 2))) - 0.02 * t
        wing = np.concatenate([np.stack([inner, t], 1), [(-0.01, 1.02), (-0.01, -0.01)]])
        folds = cv2.applyColorMap(p.texture("folds", p.u(1.2, 2.0)), p.ramp(cloth, 0.0, 0.9))
        p.lay(folds, p.mask(wing, wing * (-1, 1) + (1, 0)))
    if p.chance(0.8):
        drop, count, x = p.u(0.08, 0.16), 4 + int(p.u(0, 4)), np.linspace(-0.02, 1.02, 49)
        hem = np.stack([x, drop * (0.7 + 0.3 * np.abs(np.sin(x * np.pi * count)))], 1)
        folds = p.texture("folds", 2.2)
        valance = cv2.applyColorMap(folds, p.ramp(mix(cloth, BLACK, 0.1), 0.0, 0.9))
        p.lay(valance, p.mask(np.concatenate([hem, [(1.02, -0.02), (-0.02, -0.02)]])))
        p.fill((0.9, 0.75, 0.35), np.concatenate([hem, (hem - (0, 0.018))[::-1]]))
    else:
        for x in lamps:
            p.fill((0.15, 0.15, 0.17), box(x - 0.035, -0.01, x + 0.035, 0.07))
            p.fill(mix(glow, WHITE, 0.5), circle(x, 0.075, 0.03, 0.6))
    gilt = mix(wood, (0.9, 0.8, 0.5), 0.4)
    front.one_of(p, (front.drape, cloth), (front.railing, gilt), (front.leaves, p["leaf"]),
                 (front.footlights, glow))  # fmt: skip
    return floor


def _room(p: Painter) -> float:
    floor, wall, wood, outside = p.u(0.58, 0.74), p.colour("paint"), p["wood"], p.top
    p.low = mix(wall, (0.9, 0.88, 0.82), 0.3)
    p.tint = mix(p.tint, WHITE, 0.4)
    p["cloth"] = p.colour("paint")
    paper = p.pick(
        (("pattern", 0.7), ("patch", 0.4), ("folds", 0.9), ("planks", 0.9), ("pattern", 1.2))
    )
    p.image[:] = cv2.applyColorMap(p.texture(*paper), p.ramp(wall, 0.0, 0.4))
    shine = mix(wall, (1, 0.97, 0.85), 0.7)
    p.prop("glow", p.u(), 0.9, 1.5, ((shine, shine), ""), strength=0.5)
    if p.chance(0.35):  # panelling
        p.fill(mix(wood, wall, 0.3), box(-0.01, floor - 0.2, 1.01, floor))
        for x in np.arange(5) * 0.22:
            p.fill(mix(wood, BLACK, 0.25), box(x + 0.02, floor - 0.17, x + 0.18, floor - 0.04))
            p.fill(mix(wood, wall, 0.4), box(x + 0.03, floor - 0.16, x + 0.18, floor - 0.04))
    light = p.u(0.15, 0.85)
    if p.chance(0.55):
        panes = mix(outside, WHITE, 0.1), mix(outside, WHITE, 0.55)
        p.prop("window", light, floor - p.u(0.12, 0.2), p.u(0.38, 0.55), ("white", panes))
    for i in range(int(p.u(0, 2.6))):  # pictures, away from the window
        x = (light + 0.38 + 0.24 * i + p.u(0, 0.05)) % 1.0
        p.prop("frame", x, p.u(0.26, 0.42), 0.0, ("wood", p.colour("paint")))
    boards = p.colour(p.pick(("wood", "stone")))
    texture, span = p.pick(("planks", "planks", "tiles", "patch")), p.u(0.7, 1.1)
    p.ground(floor, texture, span, boards, contrast=0.6, veil=0.2)
    p.fill((0.93, 0.91, 0.87), box(-0.01, floor - 0.03, 1.01, floor))
    p.fill((0.35, 0.3, 0.28), box(-0.01, floor, 1.01, floor + 0.01))
    if p.chance(0.5):  # a rug
        x, y, r, rug = p.u(0.25, 0.75), p.u(floor + 0.14, 0.94), p.u(0.3, 0.5), p.colour("paint")
        for scale, colour in ((1, rug), (0.86, mix(rug, (0.95, 0.9, 0.8), 0.6)), (0.78, rug)):
            p.fill(colour, circle(x, y, r * scale, 0.26), haze=0.05)
    for name in ("sofa", "shelf", "drawers", "standard", "pot"):
        if p.chance(0.38):
            p.prop(name, p.pick((p.u(0, 0.3), p.u(0.7, 1))), floor + p.u(0.02, 0.06))
    front.one_of(p, (front.leaves, p["leaf"], 4), (front.drape, p["cloth"]),
                 (front.cushion, p["cloth"]), (front.railing, wood))  # fmt: skip
    return floor


_FAMILIES: dict[str, Callable[[Painter], float | None]] = {
    "meadow": _meadow, "sky": _sky, "road": _road, "desert": _desert, "forest": _forest,
    "garden": _garden, "stage": _stage, "jungle": _jungle, "underwater": _underwater,
    "snow": _snow, "beach": _beach, "room": _room,
}  # fmt: skip
NAMES: tuple[str, ...] = tuple(_FAMILIES)
HOME: tuple[str, ...] = NAMES[:9]  # HOME[superclass] is the family it is tied to
