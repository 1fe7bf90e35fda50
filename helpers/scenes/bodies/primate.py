"""Monkey and gorilla. A monkey is slim, with a long curling tail, big round ears, a contrasting
heart-shaped face and thin long limbs; a gorilla has no tail, huge shoulders and arms, a high crest,
tiny ears, a heavy brow, a bare chest and a contrasting saddle on its back."""

from __future__ import annotations

import math

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, curve, mix
from helpers.scenes.bodies.mammal import Dice, Point, bend, place, shaggy, spine, tubes

PARTS = ("torso", "head", "face", "muzzle", "nose", "eye", "ear", "arm", "leg", "tail")


def monkey(rng: np.random.Generator, coat: Coat) -> Body:
    dice = Dice(rng)
    name = dice.pick(("sit", "sit", "sit", "walk", "walk", "swing", "swing"))
    body = Body(stance="air" if name == "swing" else "stand", grain=0.4)
    a, b, c, d = dice(), dice(), dice(), dice()
    if name == "sit":
        hip, shoulder = (0.0, -0.15), (0.1 + 0.15 * a, -0.72 - 0.08 * b)
        feet = ((0.42 + 0.1 * c, -0.03), (0.32 + 0.1 * d, 0.0))
        rest = [
            (0.42, -0.45),
            (0.5, -0.03),
            (shoulder[0] + 0.32, shoulder[1] - 0.12),
            (0.62, -0.85),
        ]
        hands = (rest[int(4 * c)], rest[int(4 * d)])
        head = (shoulder[0] + 0.12, shoulder[1] - 0.3)
    elif name == "walk":
        hip, shoulder = (-0.42, -0.62), (0.36, -0.66 - 0.1 * a)
        step = (0.1 + 0.12 * b) * (1 if d < 0.5 else -1)
        feet = ((-0.46 + step, -0.03), (-0.5 - step, 0.0))
        hands = ((0.46 - step, -0.03), (0.46 + step, 0.0) if c < 0.75 else (0.75, -0.45))
        head = (shoulder[0] + 0.24, shoulder[1] - 0.2 - 0.1 * d)
    else:  # hangs by one arm or two
        hip, shoulder = (-0.1 - 0.3 * a, 0.0), (0.0, -0.58)
        feet = ((hip[0] + 0.4 - 0.3 * b, 0.42 + 0.15 * c), (hip[0] + 0.1 + 0.35 * c, 0.5))
        hands = ((0.5, -1.2) if d < 0.5 else (0.55, -0.4 + 0.5 * b), (0.05 + 0.3 * c, -1.32))
        head = (shoulder[0] + 0.2, shoulder[1] - 0.16)
    thin = dice(0.085, 0.11)
    spines, widths = _limbs(hip, shoulder, hands, feet, 0.4, 0.38, thin)
    x, y = hip[0] - 0.08, hip[1] - 0.02
    rise, curl, long = dice(-0.3, 0.9), dice(0.35, 1.0), dice(0.26, 0.34)
    if name == "swing":
        rise = dice(-1.2, 0.2)
    tail = [(x, y)]
    for segment in range(4):
        angle = rise + curl * (segment * 0.5 + 0.25 * segment * segment)
        x, y = x - long * math.cos(angle), y - long * math.sin(angle)
        if name != "swing":
            y = min(y, -0.04)
        tail.append((x, y))
        long *= 0.9
    spines.append(tail)
    widths.append([0.09, 0.075, 0.07, 0.07, 0.06])
    far_arm, far_leg, near_leg, near_arm, tail = tubes(spines, widths)

    body.add("arm", far_arm, coat.shade)
    body.add("leg", far_leg, coat.shade)
    body.add("tail", tail, coat.base)
    at = spine(hip, shoulder)
    fat = dice(0.9, 1.15)
    outline = [(-0.2, 0.02), (-0.12, -0.17), (0.3, -0.17 * fat), (0.8, -0.15), (1.12, -0.1),
               (1.18, 0.06), (0.9, 0.16), (0.4, 0.2 * fat), (0.0, 0.17)]  # fmt: skip
    body.blob("torso", [at(t, d) for t, d in outline], coat.base, volume="body")
    belly = [(0.05, 0.1), (0.5, 0.06), (1.0, 0.08), (0.9, 0.3), (0.4, 0.35), (0.0, 0.3)]
    body.blob("torso", [at(t, d) for t, d in belly], coat.belly, on="torso")
    body.add("leg", near_leg, coat.base, volume="" if name == "sit" else "body")
    mitts = dice() < 0.4
    if mitts:
        for x, y in feet:
            body.ellipse("leg", (x, y), (0.16, 0.12), coat.mark, on="leg")
    first = len(body.strokes)
    (_monkey_side if dice() < 0.3 else _monkey_front)(body, dice, coat)
    place(body, first, head, dice(0.23, 0.28), dice(-0.3, 0.3))
    body.add("arm", near_arm, coat.base, volume="arm")
    if mitts:
        for x, y in hands:
            body.ellipse("arm", (x, y), (0.13, 0.13), coat.mark, on="arm")
    return body


def gorilla(rng: np.random.Generator, coat: Coat) -> Body:
    body, dice = Body(stance="stand", grain=0.7), Dice(rng)
    name = dice.pick(("walk", "walk", "walk", "sit", "sit", "front", "front"))
    a, b, c, d = dice(), dice(), dice(), dice()
    hips = shoulders = ((0.0, 0.0), (0.0, 0.0))  # of the far and near side, from hip and shoulder
    if name == "walk":  # on the knuckles
        hip, shoulder = (-0.5, -0.58), (0.3, -0.98 - 0.08 * a)
        step = (0.08 + 0.14 * b) * (1 if c < 0.5 else -1)
        feet = ((-0.42 + step, -0.03), (-0.52 - step, 0.0))
        hands = ((0.5 - step, -0.03), (0.48 + step, 0.0))
        head = (shoulder[0] + 0.4, shoulder[1] + 0.04 - 0.2 * d)
    elif name == "sit":
        hip, shoulder = (0.0, -0.24), (0.08 + 0.15 * a, -0.95)
        feet = ((0.55 + 0.1 * c, -0.03), (0.45 + 0.1 * d, 0.0))
        rest = [(0.55, -0.4), (0.62, -0.03), (shoulder[0] + 0.4, shoulder[1] + 0.05)]
        hands = (rest[int(3 * c)], rest[int(3 * d)])
        head = (shoulder[0] + 0.2, shoulder[1] - 0.3)
    else:  # faces us, upright or squatting, beats its chest or lets the arms hang
        hip = (0.0, -0.3 - 0.3 * a)
        shoulder = (0.06 * b - 0.03, hip[1] - 0.72)
        hips, shoulders = ((0.2, 0.0), (-0.2, 0.0)), ((0.4, 0.04), (-0.4, 0.04))
        feet = ((0.38, 0.0), (-0.42, 0.0))
        hang = min(shoulder[1] + 0.95, -0.02)
        beat, down = (0.17, shoulder[1] + 0.25 + 0.2 * b), (0.62, hang)
        hands = (
            beat if c < 0.6 else down,
            (-beat[0], beat[1] + 0.2 - 0.3 * b) if d < 0.6 else (-0.62, hang),
        )
        head = (shoulder[0], shoulder[1] - 0.28)
    thick = dice(0.21, 0.26)
    spines, widths = _limbs(hip, shoulder, hands, feet, 0.48, 0.3, thick, hips, shoulders)
    far_arm, far_leg, near_leg, near_arm = tubes(spines, widths)
    front = name == "front"

    if not front:
        body.add("arm", shaggy(far_arm, 0.015, 0.01), coat.shade)
    body.add("leg", far_leg, coat.base if front else coat.shade)
    if front:
        body.add("leg", near_leg, coat.base)
    at = spine(hip, shoulder)
    fat = dice(0.9, 1.15)
    low, edge = dice(0.6, 0.85), dice(-0.08, 0.06)
    if front:
        outline = [(-0.28, 0.0), (-0.2, -0.3), (0.25, -0.42 * fat), (0.75, -0.5), (1.12, -0.46),
                   (1.3, 0.0),
                   (1.12, 0.46), (0.75, 0.5), (0.25, 0.42 * fat), (-0.2, 0.3)]  # fmt: skip
        saddle = [(-0.4, -0.6), (low, -0.7), (low, -0.34), (0.2, -0.25), (-0.1, -0.2), (-0.4, -0.1)]
        chest = [(0.62, 0.0), (0.5, -0.2), (0.75, -0.34), (1.05, -0.24), (1.08, 0.0),
                 (1.05, 0.24), (0.75, 0.34), (0.5, 0.2)]  # fmt: skip
    else:
        outline = [(-0.28, 0.06), (-0.2, -0.22), (0.25, -0.27), (0.75, -0.36), (1.15, -0.34),
                   (1.38, -0.05),
                   (1.2, 0.3), (0.75, 0.34 * fat), (0.35, 0.38 * fat), (-0.08, 0.3)]  # fmt: skip
        saddle = [(-0.4, -0.5), (low, -0.6), (low + 0.05, -0.2), (low - 0.15, edge),
                  (0.2, edge + 0.04), (-0.1, edge), (-0.4, 0.0)]  # fmt: skip
        chest = [(0.6, 0.1), (1.0, 0.02), (1.15, 0.2), (1.0, 0.4), (0.6, 0.5), (0.45, 0.3)]
    torso = curve([at(t, d) for t, d in outline], closed=True)
    body.add("torso", shaggy(torso, 0.02, 0.01), coat.base, volume="body")
    for way in (1, -1) if front else (1,):  # from the front, its edges show on both flanks
        body.blob("torso", [at(t, d * way) for t, d in saddle], coat.mark, on="torso")
    bright = coat.base.max() < 0.5
    skin = (
        mix(coat.belly, WHITE, dice(0.1, 0.4))
        if bright
        else mix(coat.shade, BLACK, dice(0.3, 0.65))
    )
    if name != "walk":
        body.blob("torso", [at(t, d) for t, d in chest], skin, on="torso")
    if front:
        body.add("arm", shaggy(far_arm, 0.015, 0.01), coat.base, volume="far arm")
    else:
        body.add("leg", near_leg, coat.base, volume="" if name == "sit" else "body")
    first = len(body.strokes)
    (_gorilla_side if dice() < 0.35 and not front else _gorilla_front)(body, dice, coat, skin)
    place(body, first, head, dice(0.25, 0.29), dice(-0.15, 0.15))
    body.add("arm", shaggy(near_arm, 0.015, 0.01), coat.base, volume="arm")
    for number in (1, 2, 3, 0):  # bare soles and knuckles
        if number in (1, 2):
            body.ellipse("leg", spines[number][4], (0.14, 0.12), skin, on="leg")
        else:
            body.ellipse("arm", spines[number][4], (0.13, 0.13), skin, on="arm")
    return body


def _limbs(
    hip: Point,
    shoulder: Point,
    hands: tuple[Point, Point],
    feet: tuple[Point, Point],
    arm: float,
    leg: float,
    w: float,
    hips: tuple[Point, Point] = ((0.02, 0.0), (0.02, 0.0)),
    shoulders: tuple[Point, Point] = ((0.0, 0.06), (0.0, 0.06)),
) -> tuple[list[list[Point]], list[list[float]]]:
    """Spines and widths in the order far arm, far leg, near leg, near arm. `arm` and `leg` are the
    lengths of each of their two bones, `w` a limb's width; `hips` and `shoulders` say how far those
    of the far and the near side lie from `hip` and `shoulder` (a body seen from the front)."""

    def reach(start: Point, end: Point, bone: float, side: float, tip: Point) -> list[Point]:
        knee = bend(start, end, bone, bone, side)
        middle = ((knee[0] + end[0]) / 2, (knee[1] + end[1]) / 2)
        return [start, knee, middle, end, (end[0] + tip[0], end[1] + tip[1])]

    spines, front = [], hips[1][0] < 0
    for number, ((hx, hy), (sx, sy)) in enumerate(zip(hips, shoulders, strict=True)):
        way = -1 if front and number else 1  # where toes and knees point
        x, y = feet[number]
        tip = (way * (0.4 * w if front else 0.6 * w + 0.06), 0.02)
        spines.append(reach((hip[0] + hx, hip[1] + hy), (x, y - 0.45 * w), leg, way, tip))
        x, y = hands[number]
        up = y < shoulder[1] - 0.3
        out = way if front or up else -1
        tip = (0.05, -0.07) if up else (-0.05 * way if front else 0.04, 0.02)
        spines.append(reach((shoulder[0] + sx, shoulder[1] + sy), (x, y - 0.45 * w), arm, out, tip))
    arms, legs = (
        [1.55 * w, 1.2 * w, 1.1 * w, 0.85 * w, 0.9 * w],
        [1.9 * w, 1.5 * w, 1.1 * w, 0.9 * w, 0.9 * w],
    )
    return [spines[1], spines[0], spines[2], spines[3]], [arms, legs, legs, arms]


def _monkey_front(body: Body, dice: Dice, coat: Coat) -> None:
    """About the origin; the skull has radius 1. Features shift to where it looks."""
    turn = dice(0.0, 0.35)
    face = coat.mark if dice() < 0.7 else mix(coat.belly, WHITE, 0.4)
    big = dice(0.42, 0.58)
    for side in (-1, 1):
        x = side * 1.08 - turn * 0.4
        body.ellipse("ear", (x, -0.02), (big * (1 - 0.4 * turn * side), big), coat.base)
        body.ellipse("ear", (x + side * 0.04, 0.02), (big * 0.6, big * 0.62), face)
    tuft = dice(-0.05, 0.35)
    body.blob("head", [(-1.0, 0.1), (-0.85, -0.6), (-0.3, -1.0), (0.0, -1.0 - tuft), (0.3, -1.0),
                       (0.85, -0.6),
                       (1.0, 0.1), (0.7, 0.75), (0.0, 1.0), (-0.7, 0.75)], coat.base)  # fmt: skip
    heart = [(0.0, -0.3), (0.38, -0.62), (0.78, -0.38), (0.66, 0.1), (0.5, 0.5), (0.55, 0.8),
             (0.0, 1.05),
             (-0.55, 0.8), (-0.5, 0.5), (-0.66, 0.1), (-0.78, -0.38), (-0.38, -0.62)]  # fmt: skip
    body.blob("face", [(turn + x, y) for x, y in heart], face)
    body.ellipse(
        "muzzle", (turn * 1.25, 0.64), (0.52, 0.38), mix(face, WHITE if coat.light else BLACK, 0.12)
    )
    smile = dice(-0.05, 0.15)
    lip = [(-0.36, 0.72 - smile), (0.0, 0.78), (0.36, 0.72 - smile), (0.0, 0.9)]
    body.polygon("muzzle", [(turn * 1.3 + x, y) for x, y in lip], BLACK, on="muzzle")
    for side in (-1, 1):
        body.ellipse("nose", (turn * 1.3 + side * 0.1, 0.46), (0.07, 0.06), BLACK)
        body.eye((turn * 1.1 + side * 0.36, -0.08), 0.17, _BROWN)


def _monkey_side(body: Body, dice: Dice, coat: Coat) -> None:
    face = coat.mark if dice() < 0.7 else mix(coat.belly, WHITE, 0.4)
    big, tuft = dice(0.42, 0.56), dice(0.0, 0.3)
    body.blob("head", [(-1.0, 0.0), (-0.8, -0.65), (-0.2, -1.0 - tuft), (0.5, -0.85),
                       (0.85, -0.4), (0.8, 0.4), (0.3, 0.85), (-0.5, 0.8)], coat.base)  # fmt: skip
    body.blob("face", [(0.35, -0.55), (0.7, -0.62), (0.92, -0.3), (0.95, 0.1), (0.9, 0.6),
                       (0.5, 0.85), (0.25, 0.6),
                       (0.32, 0.1), (0.1, -0.2)], face, volume="face")  # fmt: skip
    body.blob("muzzle", [(0.6, 0.15), (1.0, 0.12), (1.35, 0.42), (1.25, 0.8), (0.8, 0.95),
                         (0.45, 0.7)], face,
              volume="face")  # fmt: skip
    lip = [(1.35, 0.58), (1.0, 0.68), (0.75, 0.58), (1.0, 0.78)]
    body.polygon("muzzle", lip, BLACK, on="muzzle")
    body.ellipse("nose", (1.2, 0.34), (0.09, 0.06), BLACK)
    body.eye((0.66, -0.12), 0.17, _BROWN)
    body.ellipse("ear", (-0.35, 0.05), (big * 0.85, big), coat.base)
    body.ellipse("ear", (-0.3, 0.08), (big * 0.5, big * 0.6), face)


def _gorilla_side(body: Body, dice: Dice, coat: Coat, skin: np.ndarray) -> None:
    crest = dice(1.2, 1.5)
    head = curve([(-1.05, 0.3), (-0.98, -0.5), (-0.55, -crest * 0.95), (-0.05, -crest),
                  (0.45, -crest * 0.65),
                  (0.75, -0.4), (0.75, 0.4), (0.4, 1.0), (-0.6, 0.95)], closed=True)  # fmt: skip
    body.add("head", shaggy(head, 0.05), coat.base)
    body.blob("face", [(0.3, -0.4), (0.75, -0.5), (0.98, -0.35), (0.85, -0.05), (1.0, 0.3),
                       (0.9, 0.9), (0.45, 0.95),
                       (0.2, 0.5), (0.35, 0.1)], skin, volume="face")  # fmt: skip
    body.blob("muzzle", [(0.6, 0.25), (1.0, 0.2), (1.35, 0.5), (1.35, 0.85), (1.0, 1.08),
                         (0.5, 0.95)],
              mix(skin, WHITE, 0.16), volume="face")  # fmt: skip
    body.blob("nose", [(1.0, 0.18), (1.28, 0.36), (1.3, 0.54), (1.02, 0.48)], mix(skin, BLACK, 0.6))
    lip = [(1.4, 0.76), (1.05, 0.84), (0.75, 0.74), (1.05, 0.9)]
    body.polygon("muzzle", lip, BLACK, on="muzzle")
    body.eye((0.68, -0.1), 0.12, _BROWN)
    brow = [(0.35, -0.34), (0.7, -0.5), (1.05, -0.38), (1.0, -0.2), (0.7, -0.26)]
    body.blob("face", brow, mix(skin, BLACK, 0.35))
    body.ellipse("ear", (-0.3, 0.02), (0.2, 0.25), skin)


def _gorilla_front(body: Body, dice: Dice, coat: Coat, skin: np.ndarray) -> None:
    turn, crest = dice(0.0, 0.35), dice(1.2, 1.55)
    body.ellipse("ear", (-0.98 - turn * 0.2, -0.05), (0.2, 0.24), skin)
    head = curve([(-0.95, 0.3), (-0.94, -0.45), (-0.6, -crest * 0.82), (-0.05, -crest),
                  (0.5, -crest * 0.8), (0.92, -0.45), (0.95, 0.3), (0.7, 0.9), (0.0, 1.15),
                  (-0.7, 0.9)], closed=True)  # fmt: skip
    body.add("head", shaggy(head, 0.05), coat.base)
    face = [(-0.72, -0.3), (-0.35, -0.5), (0.35, -0.5), (0.72, -0.3), (0.6, 0.15), (0.74, 0.6),
            (0.45, 1.05), (-0.45, 1.05), (-0.74, 0.6), (-0.6, 0.15)]  # fmt: skip
    body.blob("face", [(turn + x, y) for x, y in face], skin)
    body.ellipse("muzzle", (turn * 1.25, 0.68), (0.62, 0.42), mix(skin, WHITE, 0.16))
    for side in (-1, 1):
        body.eye((turn * 1.1 + side * 0.33, -0.12), 0.12, _BROWN)
    brow = [(-0.72, -0.2), (-0.36, -0.46), (0.0, -0.32), (0.36, -0.46), (0.72, -0.2),
            (0.36, -0.24), (0.0, -0.12), (-0.36, -0.24)]  # fmt: skip
    body.blob("face", [(turn * 1.1 + x, y) for x, y in brow], mix(skin, BLACK, 0.35))
    nose = [(0.0, 0.2), (0.32, 0.36), (0.24, 0.56), (0.0, 0.5), (-0.24, 0.56), (-0.32, 0.36)]
    body.blob("nose", [(turn * 1.3 + x, y) for x, y in nose], mix(skin, BLACK, 0.6))
    lip = [(-0.46, 0.84), (0.0, 0.76), (0.46, 0.84), (0.0, 0.84)]
    body.polygon("muzzle", [(turn * 1.3 + x, y) for x, y in lip], BLACK, on="muzzle")


_BROWN = np.array([0.2, 0.11, 0.05])
