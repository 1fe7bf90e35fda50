"""Cat and bear. A cat is slim, with a small round whiskered face, triangular ears, slit eyes, a
long thin tail and stripes or patches; a bear is massive and humped, with a heavy contrasting
muzzle, small round ears, a stub of a tail and flat, clawed feet."""

from __future__ import annotations

import math

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, curve, mix
from helpers.scenes.bodies.mammal import Dice, Point, Pose, four_legged, legs, place, shaggy, tubes

PARTS = ("torso", "neck", "head", "muzzle", "nose", "eye", "ear", "whisker", "leg", "tail")


def cat(rng: np.random.Generator, coat: Coat) -> Body:
    body, dice = Body(stance="stand", grain=0.3), Dice(rng)
    pattern = dice.pick(("stripes", "stripes", "stripes", "patches", "patches", "socks"))
    if dice() < 0.18:
        _cat_facing_us(body, dice, coat, pattern)
        return body
    height, length = dice(0.5, 0.62), dice(0.72, 0.88)
    pose = four_legged(
        dice, ("stand", "walk", "walk", "sit", "sit", "sit", "lie", "leap"), height, length
    )
    arch, stout = dice(-0.03, 0.09), dice(0.9, 1.25)
    spines, widths = legs(pose, height, dice(0.085, 0.105), paw=0.07)
    spines.append(_cat_tail(dice, pose))
    widths.append([0.09, 0.085, 0.085, 0.08, 0.06])
    throat, angle = pose.along(1.0, -0.02), dice(0.4, 0.9) + 0.5 * max(pose.pitch, 0)
    head = (throat[0] + 0.28 * math.cos(angle), throat[1] - 0.28 * math.sin(angle))
    spines.append(_between(pose.along(0.85, 0.02), throat, head))
    widths.append([0.26, 0.29, 0.27, 0.24, 0.22])
    far_hind, far_fore, near_hind, near_fore, tail, neck = tubes(spines, widths)

    body.add("leg", far_hind, coat.shade)
    body.add("leg", far_fore, coat.shade)
    body.add("tail", tail, coat.base)
    outline = [
        (-0.18, 0.0), (-0.1, -0.14), (0.25, -0.16 - arch), (0.6, -0.14 - arch), (0.95, -0.17),
        (1.15, -0.05), (1.14, 0.1), (0.95, 0.19), (0.6, 0.18 * stout), (0.25, 0.15 * stout),
        (0.0, 0.18), (-0.15, 0.12),
    ]  # fmt: skip
    body.blob("torso", [pose.along(t, d) for t, d in outline], coat.base, volume="body")
    body.add("neck", neck, coat.base, volume="body")
    body.add("leg", near_hind, coat.base, volume="hind" if pose.folded else "body")
    body.add("leg", near_fore, coat.base, volume="body")
    if pattern == "stripes":
        count, wide, sweep = int(dice(5, 8)), dice(0.025, 0.04), dice(-0.1, 0.1)
        for i in range(count):
            t = -0.12 + 1.2 * i / (count - 1)
            low = dice(0.02, 0.12)
            stripe = [(t - wide, -0.35), (t + wide, -0.35), (t + wide + sweep, -0.05),
                      (t + sweep, low), (t - wide + sweep, -0.05)]  # fmt: skip
            body.polygon(
                "torso", [pose.along(*p) for p in stripe], coat.mark, on=("torso", "neck", "leg")
            )
        for i, (x, y) in enumerate(spines[4][1:]):
            body.ellipse(
                "tail", (x, y), (0.035, 0.035) if i < 3 else (0.1, 0.1), coat.mark, on="tail"
            )
    elif pattern == "patches":
        for _ in range(int(dice(2, 4))):
            x, y = pose.along(dice(-0.1, 1.0), dice(-0.16, 0.1))
            r, k, m = dice(0.1, 0.22), dice(0.6, 1.2), dice(0.6, 1.2)
            spot = [(x - r, y), (x - 0.4 * r, y - r * k), (x + 0.8 * r, y - r * m),
                    (x + r, y + 0.3 * r * k), (x, y + 0.8 * r * m)]  # fmt: skip
            body.blob("torso", spot, coat.mark, on=("torso", "neck", "leg"))
        body.ellipse("tail", spines[4][4], (0.2, 0.2), coat.mark, on="tail")
    else:
        body.ellipse("torso", pose.along(1.1, 0.14), (0.17, 0.22), coat.mark, on=("torso", "neck"))
        for spine in spines[:4]:
            body.ellipse("leg", (spine[3][0] + 0.03, spine[3][1]), (0.13, 0.1), coat.mark, on="leg")
    first, side = len(body.strokes), dice() < 0.3
    (_cat_side if side else _cat_front)(body, dice, coat, pattern)
    place(body, first, head, dice(0.23, 0.28), dice(-0.25, 0.25))
    return body


def bear(rng: np.random.Generator, coat: Coat) -> Body:
    body, dice = Body(stance="stand", grain=0.6), Dice(rng)
    if dice() < 0.15:
        _bear_facing_us(body, dice, coat)
        return body
    height, length = dice(0.66, 0.8), dice(0.8, 0.95)
    pose = four_legged(
        dice, ("stand", "walk", "walk", "walk", "sit", "sit", "rear", "lie"), height, length
    )
    upright = pose.name in ("sit", "rear")
    hump, fat, thick = dice(0.06, 0.18), dice(0.9, 1.2), dice(0.2, 0.235)
    spines, widths = legs(pose, height, thick, heel=0.22, paw=0.12, tilt=1.3)
    x, y = pose.along(-0.26, -0.02)
    spines.append(
        [(x + 0.14, y), (x + 0.09, y), (x + 0.04, y), (x, y + 0.02), (x - 0.06, y + 0.05)]
    )
    widths.append([0.14, 0.14, 0.15, 0.14, 0.1])
    throat, angle = pose.along(1.05, -0.08), dice(1.0, 1.3) if upright else dice(-0.3, 0.45)
    reach = dice(0.2, 0.27) if upright else dice(0.3, 0.38)
    head = (throat[0] + reach * math.cos(angle), throat[1] - reach * math.sin(angle))
    spines.append(_between(pose.along(0.85, 0.0), throat, head))
    widths.append([0.7, 0.68, 0.6, 0.52, 0.46])
    far_hind, far_fore, near_hind, near_fore, tail, neck = tubes(spines, widths)

    body.add("leg", far_hind, coat.shade)
    body.add("leg", far_fore, coat.shade)
    body.add("tail", shaggy(tail, 0.02), coat.base)
    outline = [
        (-0.28, 0.1), (-0.22, -0.18), (0.1, -0.31), (0.5, -0.27), (0.86, -0.34 - hump),
        (1.12, -0.3), (1.28, 0.0), (1.15, 0.3), (0.8, 0.38 * fat), (0.4, 0.42 * fat),
        (0.0, 0.38 * fat), (-0.22, 0.28),
    ]  # fmt: skip
    torso = curve([pose.along(t, d) for t, d in outline], closed=True)
    body.add("torso", shaggy(torso, 0.02, 0.01), coat.base, volume="body")
    body.add("neck", shaggy(neck, 0.015), coat.base, volume="body")
    if upright and dice() < 0.6:  # the moon on its chest
        body.ellipse("torso", pose.along(1.0, 0.26), (0.15, 0.22), coat.mark, on=("torso", "neck"))
    body.add("leg", near_hind, coat.base, volume="hind" if pose.folded else "body")
    body.add("leg", near_fore, coat.base, volume="fore" if upright else "body")
    nail, r = mix(WHITE, BLACK, 0.75 if dice() < 0.5 else 0.15), thick / 2
    for spine in spines[2:4]:
        for step in (-0.1, 0.45, 0.95):
            x, y = spine[4][0] + step * r, spine[4][1] - 0.25 * step * r
            claw = [(x, y + 0.3 * r), (x + 0.5 * r, y + 0.5 * r), (x + 0.55 * r, y + 1.05 * r)]
            body.polygon("leg", claw, nail)
    first, side = len(body.strokes), dice() < 0.5
    (_bear_side if side else _bear_front)(body, dice, coat)
    place(
        body, first, head, dice(0.28, 0.33), dice(-0.2, 0.2) + (0.25 if side and angle < 0 else 0)
    )
    return body


def _cat_facing_us(body: Body, dice: Dice, coat: Coat, pattern: str) -> None:
    """Sits upright on its haunches, forelegs together, the tail laid to one side."""
    tall, fat, way = dice(0.62, 0.78), dice(0.3, 0.4), 1 if dice() < 0.5 else -1
    rise, w = dice(0.0, 0.4), dice(0.085, 0.1)
    tail = [(0.1 * way, -0.1), (0.35 * way, -0.07), (0.55 * way, -0.06 - 0.3 * rise),
            (0.68 * way, -0.15 - rise), (0.58 * way, -0.25 - 1.4 * rise)]  # fmt: skip
    spines, widths = [tail], [[0.1, 0.09, 0.085, 0.08, 0.06]]
    for side in (-1, 1):
        x = side * 0.11
        spines.append(
            [(x * 0.8, -tall + 0.1), (x * 1.1, -tall * 0.6), (x, -0.2), (x, -0.07), (x, -0.04)]
        )
        widths.append([1.6 * w, 1.4 * w, w, 1.1 * w, 1.2 * w])
    tail, left, right = tubes(spines, widths)
    body.add("tail", tail, coat.base)
    if pattern != "socks":
        body.ellipse("tail", spines[0][4], (0.15, 0.15), coat.mark, on="tail")
    pear = [(-0.16, -tall - 0.05), (0.16, -tall - 0.05), (0.22, -tall * 0.7), (fat, -0.28),
            (fat * 0.95, -0.06),
            (0.0, -0.03), (-fat * 0.95, -0.06), (-fat, -0.28), (-0.22, -tall * 0.7)]  # fmt: skip
    body.blob("torso", pear, coat.base, volume="body")
    for side in (-1, 1):  # haunches
        body.ellipse("leg", (side * fat * 0.72, -0.2), (0.15, 0.2), coat.base)
        body.ellipse("leg", (side * fat * 0.66, -0.045), (0.11, 0.05), coat.base)
    bib = [
        (-0.18, -tall),
        (0.18, -tall),
        (0.12, -tall * 0.65),
        (0.0, -tall * 0.5),
        (-0.12, -tall * 0.65),
    ]
    body.blob("torso", bib, coat.mark if pattern == "socks" else coat.belly, on="torso")
    body.add("leg", left, coat.base)
    body.add("leg", right, coat.base)
    if pattern == "stripes":
        for side in (-1, 1):
            for i in range(4):
                y = -0.1 - 0.75 * tall * i / 3
                stripe = [
                    (side * 0.5, y - 0.05),
                    (side * 0.5, y + 0.02),
                    (side * dice(0.12, 0.2), y + 0.02),
                ]
                body.polygon("torso", stripe, coat.mark, on=("torso", "leg"))
    elif pattern == "patches":
        body.ellipse(
            "torso", (way * 0.3, -0.25), (0.2, dice(0.12, 0.24)), coat.mark, on=("torso", "leg")
        )
        body.ellipse(
            "torso", (-way * 0.2, -tall * 0.8), (0.16, 0.14), coat.mark, on=("torso", "leg")
        )
    else:
        body.ellipse("leg", (0.0, -0.03), (0.5, 0.09), coat.mark, on="leg")
    first = len(body.strokes)
    _cat_front(body, dice, coat, pattern)
    place(body, first, (dice(-0.05, 0.05), -tall - 0.17), dice(0.24, 0.28), dice(-0.25, 0.25))


def _bear_facing_us(body: Body, dice: Dice, coat: Coat) -> None:
    """Sits like a toy, showing the soles of its feet."""
    tall, fat, w = dice(0.68, 0.8), dice(0.42, 0.52), dice(0.2, 0.24)
    spines, raised = [], dice() < 0.4
    for side in (-1, 1):
        hand = (
            (side * 0.5, -tall - 0.3 * dice())
            if raised and side > 0
            else (side * dice(0.3, 0.5), -0.28)
        )
        elbow = (side * dice(0.5, 0.6), -tall * 0.6)
        near = ((elbow[0] + hand[0]) / 2, (elbow[1] + hand[1]) / 2)
        paw = (1.1 * hand[0] - 0.1 * elbow[0], 1.1 * hand[1] - 0.1 * elbow[1])
        spines.append([(side * 0.24, -tall), elbow, near, hand, paw])
    left, right = tubes(spines, [[1.2 * w, 1.15 * w, 1.05 * w, w, w]] * 2)
    pear = [(-0.25, -tall - 0.08), (0.25, -tall - 0.08), (0.38, -tall * 0.75), (fat, -0.32),
            (fat * 0.8, -0.04),
            (0.0, 0.0), (-fat * 0.8, -0.04), (-fat, -0.32), (-0.38, -tall * 0.75)]  # fmt: skip
    body.add("torso", shaggy(curve(pear, closed=True), 0.02, 0.01), coat.base)
    body.ellipse(
        "torso", (0, -tall * 0.42), (0.24, 0.24), mix(coat.base, coat.belly, 0.6), on="torso"
    )
    if dice() < 0.5:  # the moon on its chest
        body.blob("torso", [(-0.2, -tall + 0.02), (0, -tall + 0.12), (0.2, -tall + 0.02),
                            (0.0, -tall + 0.22)],
                  coat.mark, on="torso")  # fmt: skip
    for side, arm in ((-1, left), (1, right)):
        x = side * dice(0.36, 0.46)
        body.ellipse("leg", (x, -0.15), (0.19, 0.2), coat.base)
        body.ellipse("leg", (x, -0.12), (0.11, 0.1), coat.shade * 0.6)
        for toe in (-0.1, 0.0, 0.1):
            body.ellipse("leg", (x + toe, -0.27 + abs(toe) * 0.3), (0.035, 0.04), coat.shade * 0.6)
        body.add("leg", shaggy(arm, 0.012, 0.01), coat.base)
    first = len(body.strokes)
    _bear_front(body, dice, coat)
    place(body, first, (dice(-0.05, 0.05), -tall - 0.24), dice(0.3, 0.36), dice(-0.2, 0.2))


def _between(base: Point, throat: Point, head: Point) -> list[Point]:
    """The neck's spine, five points."""
    (x0, y0), (x1, y1), (x2, y2) = base, throat, head
    return [base, ((x0 + x1) / 2, (y0 + y1) / 2), throat, ((x1 + x2) / 2, (y1 + y2) / 2), head]


def _cat_tail(dice: Dice, pose: Pose) -> list[Point]:
    x, y = pose.along(-0.1, -0.06)
    if pose.folded:
        rise, curl = dice(-0.1, 0.5), dice(0.1, 0.7)
    else:
        rise, curl = dice(-0.5, 1.2), dice(-0.5, 0.6)
    points = [(x, y)]
    for step in range(4):
        angle = rise + curl * step
        x, y = x - 0.2 * math.cos(angle), min(y - 0.2 * math.sin(angle), -0.04)
        points.append((x, y))
    return points


def _cat_front(body: Body, dice: Dice, coat: Coat, pattern: str) -> None:
    """The face about the origin; the skull has radius 1."""
    turn = dice(-0.05, 0.25)
    inner = mix(coat.belly, _PINK, 0.5)
    for side in (-1, 1):
        ear = np.array([(0.15, -0.7), (0.5, -1.3), (0.9, -1.75), (1.08, -1.1), (1.08, -0.1)])
        body.polygon("ear", ear * (side, 1), coat.base)
        body.polygon("ear", ear[1:] * (side * 0.62, 0.66) + (side * 0.27, -0.32), inner)
    cheek = dice(1.1, 1.3)
    body.blob("head", [(-cheek, 0.3), (-0.98, -0.4), (-0.4, -0.86), (0.4, -0.86), (0.98, -0.4),
                       (cheek, 0.3),
                       (0.6, 0.82), (0.0, 0.95), (-0.6, 0.82)], coat.base)  # fmt: skip
    if pattern == "stripes":
        for x in (-0.4, 0.0, 0.4):
            body.polygon(
                "head",
                [(x - 0.13, -0.95), (x + 0.13, -0.95), (x * 0.7, -0.35)],
                coat.mark,
                on="head",
            )
        for side in (-1, 1):
            body.polygon(
                "head",
                [(side * 1.3, 0.1), (side * 0.75, 0.22), (side * 1.3, 0.35)],
                coat.mark,
                on="head",
            )
    elif pattern == "patches":
        body.blob(
            "head",
            [(0.1, -1), (1.2, -1), (1.2, 0.2), (0.5, 0.3), (0.15, -0.2)],
            coat.mark,
            on=("head", "ear"),
        )
    iris, open_, slit = mix(coat.accent, _GOLD, dice(0.3, 1.0)), dice(0.2, 0.27), dice(0.06, 0.15)
    for side in (-1, 1):
        x = turn * 0.6 + side * 0.47
        body.ellipse("eye", (x, -0.05), (0.31, open_ + 0.04), BLACK, angle=side * -0.25, grain=0)
        body.ellipse("eye", (x, -0.05), (0.27, open_), iris, angle=side * -0.25, grain=0)
        body.ellipse("eye", (x, -0.05), (slit, open_), BLACK, grain=0)
        body.ellipse("eye", (x + 0.08, -0.14), (0.06, 0.06), WHITE, grain=0)
    _whiskers(body, (turn, 0.5), coat)
    pads = [
        (-0.42, 0.5),
        (-0.12, 0.36),
        (0.12, 0.36),
        (0.42, 0.5),
        (0.3, 0.78),
        (0.0, 0.72),
        (-0.3, 0.78),
    ]
    body.blob("muzzle", [(turn + x, y) for x, y in pads], mix(coat.belly, WHITE, 0.3))
    lip = [(-0.24, 0.58), (-0.12, 0.65), (-0.03, 0.57), (-0.03, 0.45), (0.03, 0.45), (0.03, 0.57),
           (0.12, 0.65), (0.24, 0.58), (0.12, 0.73), (0.0, 0.65), (-0.12, 0.73)]  # fmt: skip
    body.polygon("muzzle", [(turn + x, y) for x, y in lip], BLACK, on="muzzle")
    body.polygon(
        "nose", [(turn - 0.17, 0.27), (turn + 0.17, 0.27), (turn, 0.48)], mix(_PINK, BLACK, 0.2)
    )


def _cat_side(body: Body, dice: Dice, coat: Coat, pattern: str) -> None:
    inner = mix(coat.belly, _PINK, 0.5)
    body.polygon("ear", [(0.05, -0.6), (0.5, -1.55), (0.75, -0.4)], coat.shade)
    body.blob("muzzle", [(0.5, 0.0), (1.0, -0.08), (1.26, 0.18), (1.18, 0.55), (0.85, 0.78),
                         (0.4, 0.7)],
              mix(coat.belly, WHITE, 0.3), volume="head")  # fmt: skip
    body.blob("head", [(-1.0, 0.0), (-0.75, -0.65), (-0.1, -0.95), (0.6, -0.7), (1.02, -0.1),
                       (0.85, 0.45),
                       (0.3, 0.85), (-0.5, 0.8)], coat.base, volume="head")  # fmt: skip
    if pattern == "stripes":
        for x in (-0.5, -0.05, 0.4):
            body.polygon(
                "head", [(x - 0.13, -1), (x + 0.13, -1), (x + 0.1, -0.45)], coat.mark, on="head"
            )
    elif pattern == "patches":
        body.blob(
            "head",
            [(-1.1, -1), (0.3, -1), (0.4, -0.3), (-0.2, 0.1), (-1.1, 0.2)],
            coat.mark,
            on="head",
        )
    iris, open_ = mix(coat.accent, _GOLD, dice(0.3, 1.0)), dice(0.22, 0.32)
    body.ellipse("eye", (0.55, -0.1), (0.3, open_ + 0.05), BLACK, grain=0)
    body.ellipse("eye", (0.57, -0.1), (0.24, open_), iris, grain=0)
    body.ellipse("eye", (0.63, -0.1), (0.08, open_), BLACK, grain=0)
    body.polygon("ear", [(-0.75, -0.45), (-0.45, -1.75), (0.3, -0.75)], coat.base)
    body.polygon("ear", [(-0.5, -0.65), (-0.38, -1.4), (0.1, -0.8)], inner)
    lip = [(1.2, 0.36), (0.95, 0.48), (0.7, 0.42), (0.95, 0.56)]
    body.polygon("muzzle", lip, BLACK, on=("muzzle", "head"))
    body.polygon("nose", [(1.05, -0.06), (1.34, 0.05), (1.22, 0.24)], mix(_PINK, BLACK, 0.2))
    _whiskers(body, (0.85, 0.4), coat)


def _whiskers(body: Body, at: Point, coat: Coat) -> None:
    """A fan of three on each side, in one outline each."""
    x, y = at
    colour = WHITE if coat.base.mean() < 0.6 else BLACK
    for side in (-1, 1):
        fan = [
            (0.3, -0.02),
            (1.4, -0.25),
            (0.3, 0.04),
            (1.5, 0.08),
            (0.3, 0.1),
            (1.38, 0.4),
            (0.26, 0.16),
        ]
        body.polygon("whisker", [(x + side * u, y + v) for u, v in fan], colour, grain=0)


def _bear_front(body: Body, dice: Dice, coat: Coat) -> None:
    turn = dice(-0.05, 0.3)
    for side in (-1, 1):
        body.ellipse("ear", (side * 0.85, -0.74), (0.38, 0.38), coat.base)
        body.ellipse("ear", (side * 0.83, -0.7), (0.22, 0.22), coat.shade * 0.7)
    head = curve([(-1.2, 0.2), (-0.98, -0.45), (-0.4, -0.88), (0.4, -0.88), (0.98, -0.45),
                  (1.2, 0.2), (0.8, 0.8), (0.0, 1.05), (-0.8, 0.8)], closed=True)  # fmt: skip
    body.add("head", shaggy(head, 0.06), coat.base)
    for side in (-1, 1):
        body.eye((turn * 0.7 + side * 0.44, -0.14), 0.13, _BROWN)
    wide = dice(0.5, 0.62)
    snout = [
        (-0.28, -0.02),
        (0.28, -0.02),
        (wide, 0.45),
        (wide * 0.7, 0.95),
        (-wide * 0.7, 0.95),
        (-wide, 0.45),
    ]
    body.blob("muzzle", [(turn + x, y) for x, y in snout], coat.mark)
    lip = [
        (-0.36, 0.68),
        (-0.03, 0.68),
        (-0.03, 0.4),
        (0.03, 0.4),
        (0.03, 0.68),
        (0.36, 0.68),
        (0.0, 0.8),
    ]
    body.polygon("muzzle", [(turn + x, y) for x, y in lip], BLACK, on="muzzle")
    body.ellipse("nose", (turn, 0.25), (0.3, 0.2), BLACK, gloss=0.8)


def _bear_side(body: Body, dice: Dice, coat: Coat) -> None:
    long, gape = dice(1.65, 1.9), dice(-0.3, 0.4)
    body.ellipse("ear", (0.25, -0.85), (0.28, 0.3), coat.shade)
    if gape > 0.12:
        body.blob("muzzle", [(0.4, 0.4), (long - 0.3, 0.5 + gape), (long - 0.35, 0.8 + gape),
                             (0.8, 0.95)],
                  coat.mark * 0.8)  # fmt: skip
        body.blob(
            "muzzle",
            [(0.7, 0.45), (long - 0.5, 0.5 + gape), (long - 0.5, 0.65 + gape), (0.9, 0.75)],
            _PINK,
        )
    head = curve([(-1.1, 0.1), (-0.8, -0.7), (-0.1, -0.98), (0.6, -0.72), (0.95, -0.2),
                  (0.85, 0.5), (0.3, 0.9), (-0.6, 0.9)], closed=True)  # fmt: skip
    body.add("head", shaggy(head, 0.06), coat.base, volume="head")
    body.blob("muzzle", [(0.55, -0.3), (0.95, -0.36), (1.3, -0.2), (long, -0.16), (long + 0.1, 0.2),
                         (long - 0.15, 0.66), (1.0, 0.84), (0.5, 0.7),
                         (0.4, 0.2)], coat.mark, volume="head")  # fmt: skip
    lip = [(long, 0.42), (1.3, 0.54), (0.8, 0.42), (1.3, 0.64)]
    body.polygon("muzzle", lip, BLACK, on="muzzle")
    body.ellipse("nose", (long + 0.02, -0.04), (0.24, 0.22), BLACK, gloss=0.8)
    body.eye((0.5, -0.34), 0.12, _BROWN)
    body.ellipse("ear", (-0.35, -0.82), (0.36, 0.38), coat.base)
    body.ellipse("ear", (-0.3, -0.78), (0.2, 0.22), coat.shade * 0.7)


_PINK, _GOLD, _BROWN = (
    np.array([0.85, 0.5, 0.5]),
    np.array([0.85, 0.75, 0.2]),
    np.array([0.16, 0.09, 0.05]),
)
