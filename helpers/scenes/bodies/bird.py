"""Birds, perched or on the wing: a robin (small and round, thin straight beak, a round patch of
another colour on its breast, legs like wires) and an eagle (hooked beak under a heavy brow, a hood
of another colour, broad wings that end in fingers, feathered thighs and talons)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, Colour, Points, between, mix, place

Place = Callable[[Points], np.ndarray]

PARTS = ("torso", "breast", "head", "eye", "beak", "wing", "leg", "tail")


def robin(rng: np.random.Generator, coat: Coat) -> Body:
    return _bird(rng, coat, eagle=False)


def eagle(rng: np.random.Generator, coat: Coat) -> Body:
    return _bird(rng, coat, eagle=True)


def _bird(rng: np.random.Generator, coat: Coat, eagle: bool) -> Body:
    flies = rng.random() < 0.5
    horns = coat.accent, mix(coat.shade, BLACK, 0.5), mix(coat.accent, WHITE, 0.5)
    wings = coat.base, coat.shade, mix(coat.base, coat.accent, 0.4)
    quills = mix(coat.base, coat.shade, 0.6), coat.shade * 0.8, mix(coat.base, coat.mark, 0.5)
    body = Body(stance="air" if flies else "stand", grain=0.35)
    look = _Look(
        eagle, coat, horns[rng.integers(3)], wings[rng.integers(3)], quills[rng.integers(3)],
        mix(coat.base, coat.mark, between(rng, 0.75, 1)), coat.belly if coat.light else coat.shade,
    )  # fmt: skip
    if not flies and rng.random() < 0.25:
        body.faces = 0
        _from_the_front(body, rng, look)
    else:
        _from_the_side(body, rng, look, flies)
    return body


class _Look(NamedTuple):
    eagle: bool
    coat: Coat
    horn: Colour  # beak and legs
    wing: Colour
    quill: Colour  # flight feathers
    hood: Colour  # the eagle's head
    belly: Colour  # apart from the robin's breast: pale under a dark one, dark under a pale one


def _from_the_side(body: Body, rng: np.random.Generator, look: _Look, flies: bool) -> None:
    eagle, coat = look.eagle, look.coat
    lean, gaze, plump, patch, crouch, gape = rng.uniform(size=6).tolist()
    low, high = (-0.35, 0.1) if flies else (-1.05, -0.3) if eagle else (-0.85, -0.1)
    lean = low + (high - low) * lean
    depth = 0.8 + 0.3 * plump if eagle else 1.1 + 0.35 * plump

    def on_torso(points: Points) -> np.ndarray:
        return place(points, (0, 0), lean)

    if flies:  # both wings up; one up, one down (banking); both down
        up, down, apart = rng.uniform((-2.1, 0.9, 0.3), (-1.1, 1.9, 0.6)).tolist()
        far, near = ((up + apart, up), (up, down), (down - apart, down + 0.15))[rng.integers(3)]
        _spread_wing(body, on_torso([(0.24, -0.16)])[0], far + lean, lean, look, 0.75)
    _tail(body, on_torso, rng, look, flies)
    if not flies or rng.random() < 0.6:
        _legs(body, on_torso([(-0.1, 0.2)])[0], rng, look, flies, crouch)
    body.blob(
        "torso",
        on_torso(
            np.array([(-0.62, -0.02), (-0.35, -0.17), (0.0, -0.26), (0.33, -0.26), (0.52, -0.1),
                      (0.5, 0.12), (0.28, 0.29), (-0.05, 0.27), (-0.36, 0.13)]) * (1, depth)
        ),
        coat.base, volume="body",
    )  # fmt: skip
    if eagle:
        body.blob("breast", on_torso([(0.7, 0.0), (0.3, 0.04), (-0.1, 0.06), (-0.5, 0.1),
            (0.0, 0.5), (0.6, 0.4)]), mix(coat.base, look.belly, 0.6), on="torso")  # fmt: skip
        head = on_torso([(0.62, -0.2 * depth)])[0] + (0.1, -0.1 - 0.05 * crouch)
        neck = on_torso([(0.3, -0.02), (0.52, -0.12)])
        body.limb("head", [*neck, head], [0.5, 0.42, 0.32], look.hood, volume="body")
    else:
        radius = 0.23 + 0.11 * patch
        body.ellipse("torso", on_torso([(0.0, 0.3)])[0], (0.45, 0.2), look.belly, angle=lean,
            on="torso")  # fmt: skip
        head = on_torso([(0.47, -0.24 * depth)])[0] + (0.02, -0.03 - 0.05 * crouch)
        body.ellipse("head", head, (0.25, 0.235), coat.base, volume="body")
        body.ellipse("breast", on_torso([(0.4, 0.08 * depth)])[0], (radius, radius * 1.05),
                     coat.mark, on=("torso", "head"))  # fmt: skip
    if flies:
        _spread_wing(body, on_torso([(0.2, -0.08)])[0], near + lean, lean, look, 1.0)
    else:
        _folded_wing(body, on_torso, rng, look)
    turned = -1 if not flies and rng.random() < 0.2 else 1  # looks over its shoulder
    pitch = turned * ((gaze - 0.55) * 0.7 + (0.15 if flies else 0))

    def on_head(points: Points) -> np.ndarray:
        return place(points, head, pitch, flip_x=turned)

    (_eagle_head if eagle else _robin_head)(body, on_head, look, max(0.0, gape - 0.6))


def _from_the_front(body: Body, rng: np.random.Generator, look: _Look) -> None:
    eagle, coat = look.eagle, look.coat
    plump, turn, patch, droop, apart, nod = rng.uniform(size=6).tolist()
    w, turn, apart = 0.36 + 0.1 * plump, (turn - 0.5) * 0.16, 0.12 + 0.06 * apart
    top = -0.52 if eagle else -0.36
    body.polygon("tail", [(-0.1, 0.3), (-0.13, 0.62 + 0.1 * droop), (0.0, 0.66 + 0.1 * droop),
        (0.13, 0.62 + 0.1 * droop), (0.1, 0.3)], look.quill * 0.8)  # fmt: skip
    for side in (-1, 1):
        x = side * apart
        x *= 1.4 if eagle else 1
        if eagle:
            body.blob("leg", [(x - 0.16, 0.2), (x + 0.16, 0.2), (x + 0.14, 0.45), (x, 0.6),
                (x - 0.14, 0.45)], mix(coat.shade, coat.base, 0.5))  # fmt: skip
            body.polygon("leg", [(x - 0.05, 0.5), (x + 0.05, 0.5), (x + 0.055, 0.7),
                (x - 0.055, 0.7)], look.horn)  # fmt: skip
            body.polygon("leg", [(x - 0.06, 0.66), (x + 0.06, 0.66), (x + 0.17, 0.74),
                (x + 0.15, 0.83), (x + 0.1, 0.75), (x + 0.03, 0.86), (x - 0.03, 0.86),
                (x - 0.1, 0.75), (x - 0.15, 0.83), (x - 0.17, 0.74)], look.horn)  # fmt: skip
        else:
            body.line("leg", [(x, 0.35), (x + 0.01 * side, 0.5), (x, 0.66)], 0.045, look.horn)
            body.polygon("leg", [(x, 0.62), (x + 0.12, 0.69), (x + 0.02, 0.67), (x, 0.72),
                (x - 0.02, 0.67), (x - 0.12, 0.69)], look.horn)  # fmt: skip
    body.blob("torso", [(0, top), (w * 0.75, top + 0.08), (w * 1.05, -0.02), (w * 0.9, 0.3),
        (w * 0.45, 0.48), (-w * 0.45, 0.48), (-w * 0.9, 0.3), (-w * 1.05, -0.02),
        (-w * 0.75, top + 0.08)], coat.base, volume="body")  # fmt: skip
    head = np.array([turn, top - (0.12 if eagle else 0.06)])
    if eagle:
        body.blob("breast", [(0, -0.4), (w, 0.0), (w * 0.6, 0.4), (-w * 0.6, 0.4), (-w, 0.0)],
            mix(coat.base, look.belly, 0.6), on="torso")  # fmt: skip
        body.blob("head", [head + p for p in ((0, -0.2), (0.2, -0.15), (0.24, 0.05), (0.34, 0.3),
            (0.1, 0.46), (-0.1, 0.46), (-0.34, 0.3), (-0.24, 0.05), (-0.2, -0.15))], look.hood,
            volume="body")  # fmt: skip
    else:
        body.ellipse("torso", (0, 0.36), (w * 0.9, 0.2), look.belly, on="torso")
        body.ellipse("head", head, (0.29, 0.26), coat.base, volume="body")
        body.ellipse(
            "breast",
            (0, -0.06),
            (w * (0.7 + 0.15 * patch), 0.24 + 0.06 * patch),
            coat.mark,
            on=("torso", "head"),
        )
    for side in (-1, 1):
        if eagle:  # broad shoulders
            outer = [(0.5, -0.36), (0.95, -0.42), (1.16, -0.16), (1.12, 0.2),
                (0.85, 0.62 + 0.06 * droop), (0.72, 0.3), (0.75, -0.1)]  # fmt: skip
        else:
            outer = [(0.72, -0.22), (1.0, -0.12), (1.05, 0.12), (0.84, 0.4 + 0.06 * droop),
                (0.74, 0.26), (0.78, 0.0)]  # fmt: skip
        outer = np.array(outer) * (side * w, 1)
        body.blob("wing", outer, look.quill)
        body.blob("wing", outer * (1, 0.7) - (0, 0.04), look.wing, on="wing")
    nod = (nod - 0.5) * 0.08 + (0.02 if eagle else 0.0)
    face = head + (turn * 0.5, nod)
    for side in (-1, 1):
        body.eye(face + (side * (0.12 if eagle else 0.14), -0.04), 0.042)
        if eagle:
            body.polygon("head", face + np.array([(0.04, -0.02), (0.05, -0.07), (0.24, -0.15),
                (0.22, -0.07)]) * (side, 1), look.hood * 0.5)  # fmt: skip
    if eagle:
        body.blob("beak", face + [(0, -0.05), (0.08, 0.0), (0.08, 0.1), (0.03, 0.18), (0, 0.25),
            (-0.03, 0.18), (-0.08, 0.1), (-0.08, 0.0)], look.horn, gloss=0.5)  # fmt: skip
    else:
        body.polygon("beak", face + [(0, -0.03), (0.06, 0.02), (0.01, 0.15), (-0.01, 0.15),
            (-0.06, 0.02)], look.horn)  # fmt: skip


def _robin_head(body: Body, at: Place, look: _Look, gape: float) -> None:
    body.polygon("beak", at([(0.18, 0.03), (0.42, 0.06 + gape * 0.4), (0.17, 0.09)]),
        look.horn * 0.8)  # fmt: skip
    body.polygon("beak", at([(0.19, -0.06), (0.34, -0.02 - gape * 0.2),
        (0.47, 0.035 - gape * 0.35), (0.2, 0.045)]), look.horn)  # fmt: skip
    body.eye(at([(0.1, -0.055)])[0], 0.05)


def _eagle_head(body: Body, at: Place, look: _Look, gape: float) -> None:
    body.blob("head", at([(-0.27, 0.06), (-0.2, -0.12), (-0.02, -0.18), (0.17, -0.14), (0.24, 0.0),
                          (0.14, 0.13), (-0.1, 0.22)]), look.hood, volume="body")  # fmt: skip
    body.blob("beak", at([(0.1, 0.03), (0.28, 0.07 + gape * 0.2), (0.3, 0.11 + gape * 0.2),
        (0.12, 0.11)]), look.horn * 0.7)  # fmt: skip
    body.blob("beak", at([(0.16, -0.1), (0.3, -0.11), (0.41, -0.05), (0.45, 0.07), (0.435, 0.17),
        (0.39, 0.08), (0.3, 0.045), (0.08, 0.04)]), look.horn, gloss=0.5)  # fmt: skip
    body.eye(at([(0.08, -0.05)])[0], 0.042)
    body.polygon("head", at([(-0.06, -0.13), (0.12, -0.125), (0.2, -0.06), (0.13, -0.065),
        (-0.05, -0.09)]), look.hood * 0.5)  # fmt: skip


def _tail(body: Body, at: Place, rng: np.random.Generator, look: _Look, flies: bool) -> None:
    fan, droop, edge, banded = rng.uniform((0.02, -0.1, 0.1, 0), (0.09, 0.12, 0.3, 1)).tolist()
    if flies:
        fan *= 3.5 if look.eagle else 2.0
    root, tip = (0.13, -1.0) if look.eagle else (0.09, -0.98)
    middle = [(tip - 0.06, droop - fan * 0.4), (tip - 0.03, droop), (tip - 0.06, droop + fan * 0.4)]
    if not look.eagle:  # notched
        middle = [(tip + 0.05, droop)]
    body.polygon("tail", at([(-0.35, -root), (tip, droop - root - fan), *middle,
        (tip, droop + root * 0.6 + fan), (-0.35, root)]), look.quill)  # fmt: skip
    if banded < 0.5:  # a pale or dark end
        body.polygon("tail", at([(tip + edge, -1), (tip - 1, -1), (tip - 1, 1), (tip + edge, 1)]),
            look.coat.mark, on="tail")  # fmt: skip


def _legs(
    body: Body, hip: np.ndarray, rng: np.random.Generator, look: _Look, flies: bool, crouch: float
) -> None:
    stride = between(rng, -0.12, 0.12)
    for side, light in ((-1, 0.7), (1, 1.0)):
        x, y = (hip + (0.08 + side * (0.08 + stride), 0.0)).tolist()
        tint = look.horn * light
        if look.eagle:
            fx, fy = (x - 0.2, y + 0.24) if flies else (x + 0.04, y + 0.46 + 0.1 * crouch)
            mx, my = (x + fx) / 2, (y + fy) / 2
            body.blob("leg", [(x - 0.2, y - 0.1), (x + 0.2, y - 0.1), (x + 0.17, y + 0.08),
                (mx + 0.09, my + 0.05), (mx, my + 0.1), (mx - 0.09, my + 0.05),
                (x - 0.15, y + 0.06)], mix(look.coat.shade, look.coat.base, light))  # fmt: skip
            body.polygon("leg", [(mx - 0.05, my), (mx + 0.05, my), (fx + 0.055, fy),
                (fx - 0.055, fy)], tint)  # fmt: skip
            body.polygon("leg", _TALONS + (fx, fy), tint)
        else:
            drop = 0.2 + 0.12 * crouch
            foot = (x - 0.1, y + 0.12) if flies else (x + 0.02, y + drop + 0.14)
            body.line("leg", [(x, y), (x - 0.06, y + drop * 0.6), foot], 0.045, tint)
            body.polygon("leg", _TOES + foot, tint)


_TOES = np.array([(0, -0.03), (0.15, 0.02), (0.15, 0.05), (0.0, 0.02), (-0.1, 0.05), (-0.1, 0.02)])
_TALONS = np.array([(-0.06, -0.05), (0.06, -0.05), (0.2, -0.01), (0.25, 0.1), (0.17, 0.05),
    (0.1, 0.04), (0.16, 0.08), (0.17, 0.16), (0.1, 0.11), (0.0, 0.05), (-0.1, 0.07), (-0.17, 0.14),
    (-0.17, 0.04)])  # fmt: skip


def _folded_wing(body: Body, at: Place, rng: np.random.Generator, look: _Look) -> None:
    long, low = (1.0, 0.26) if look.eagle else (0.86, 0.2)
    tip, droop = 0.36 - long, between(rng, -0.04, 0.1)
    body.blob("wing", at([(0.4, -0.1), (0.3, -0.2), (0.0, -0.19), (tip + 0.3, -0.11), (tip, droop),
        (tip + 0.2, droop + 0.06), (0.0, low * 0.85), (0.24, low * 0.75), (0.38, 0.04)]),
        look.quill)  # fmt: skip
    comb = []
    for k in range(5):  # lines between the long feathers
        x, y = 0.1 - 0.05 * k, -0.14 + (low + 0.1) * k / 4
        comb += [(x, y - 0.02), (tip + 0.03 + 0.05 * k, droop - 0.02 + 0.012 * k), (x, y + 0.01)]
    body.polygon("wing", at(comb), look.quill * 0.55, on="wing")
    body.blob("wing", at([(0.4, -0.08), (0.28, -0.2), (0.05, -0.19), (-0.12, -0.06),
        (-0.06, low * 0.55), (0.2, low * 0.7), (0.37, 0.04)]), look.wing, on="wing")  # fmt: skip
    if rng.random() < 0.4:
        bar = look.coat.mark if rng.random() < 0.5 else look.coat.belly
        body.limb("wing", at([(-0.1, -0.12), (-0.1, 0.06), (0.0, low * 0.7)]), [0.05, 0.06, 0.04],
            bar, on="wing")  # fmt: skip


def _spread_wing(
    body: Body, shoulder: np.ndarray, angle: float, lean: float, look: _Look, light: float
) -> None:
    outline, comb, coverts = _feathers(look.eagle)
    span = 1.3 if look.eagle else 0.85
    # x runs along the arm, y towards the tail
    frame = np.array([(math.cos(angle), math.sin(angle)),
        (-math.cos(lean), -math.sin(lean))]) * span  # fmt: skip
    body.add("wing", outline @ frame + shoulder, look.quill * light)
    body.add("wing", comb @ frame + shoulder, look.quill * (0.55 * light), on="wing")
    body.add("wing", coverts @ frame + shoulder, look.wing * light, on="wing")


@lru_cache(maxsize=2)
def _feathers(eagle: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A spread wing of span 1: x outwards along the arm, y towards the trailing edge. Returns the
    outline, the lines between feathers (one comb) and the coverts."""
    chord, cut, hand = (0.46, 0.5, (0.56, 0.14)) if eagle else (0.5, 0.87, (0.5, 0.16))
    outline = [(0.0, 0.0), (0.12, -0.06), (0.28, -0.09), (0.42, -0.09), (0.54, -0.04)]
    comb = []
    fingers = 6
    for k in range(fingers):
        turn = -0.25 + 1.45 * k / (fingers - 1)
        reach = (0.46, 0.5, 0.5, 0.47, 0.43, 0.39)[k] * (1 if eagle else 0.96 - 0.02 * k)
        for offset, radius in (
            (-0.1, 0.86),
            (-0.03, 0.98),
            (0.04, 0.98),
            (0.1, 0.86),
            (0.145, cut),
        ):
            outline.append((hand[0] + reach * radius * math.cos(turn + offset),
                hand[1] + reach * radius * math.sin(turn + offset)))  # fmt: skip
        root = (hand[0] - 0.03 + 0.02 * k, hand[1] - 0.1)
        comb += [root, outline[-1], (root[0] + 0.025, root[1])]
    for k in range(6):
        x = 0.56 - 0.1 * k
        outline += [(x, chord), (x - 0.06, chord), (x - 0.09, chord - 0.04)]
        comb += [(x - 0.06, 0.1), (x - 0.09, chord - 0.04), (x - 0.045, 0.1)]
    outline.append((0.0, chord - 0.12))
    coverts = [(0.0, 0.0), (0.12, -0.06), (0.28, -0.09), (0.42, -0.09), (0.56, -0.03),
        (0.66, 0.04), (0.6, 0.12), (0.45, 0.19), (0.25, 0.24), (0.0, 0.25)]  # fmt: skip
    return np.array(outline), np.array(comb), np.array(coverts)
