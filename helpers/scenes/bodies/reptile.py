"""Reptiles, from the side or from above: a lizard (long body and tail, splayed bent legs with long
toes, crest, spots or bands) and a turtle (a dome of scutes over stubby legs or flippers, a beaked
head, a stump of a tail)."""

from __future__ import annotations

import math

import numpy as np

from helpers.scenes.anatomy import (
    BLACK,
    Body,
    Coat,
    Colour,
    Points,
    between,
    curve,
    joint,
    mix,
    place,
)

PARTS = ("torso", "shell", "head", "eye", "mouth", "leg", "tail", "crest")


def lizard(rng: np.random.Generator, coat: Coat) -> Body:
    return _lizard_above(rng, coat) if rng.random() < 0.5 else _lizard_beside(rng, coat)


def _taper(spine: Points, widths: Points) -> list[tuple[float, float]]:
    """Control points of a blob about a short, bent limb: full `widths` along its spine."""
    left, right = [], []
    last = len(widths) - 1
    spine = [(float(x), float(y)) for x, y in spine]
    for k, width in enumerate(widths):
        (x0, y0), (x1, y1) = spine[max(k - 1, 0)], spine[min(k + 1, last)]
        scale = width / 2 / (math.hypot(x1 - x0, y1 - y0) + 1e-9)
        nx, ny = (y0 - y1) * scale, (x1 - x0) * scale
        x, y = spine[k]
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return left + right[::-1]


_TOES = [(-0.03, -0.02), (-0.03, 0.02)]  # a hand of four long toes, pointing to +x
_TOES[1:1] = [
    (reach * math.cos(turn + 0.6 * toe), reach * math.sin(turn + 0.6 * toe))
    for toe in range(4)
    for turn, reach in ((-1.15, 0.05), (-0.95, 0.15 - 0.012 * toe), (-0.8, 0.055))
]


def _markings(
    body: Body, rng: np.random.Generator, coat: Coat, spine: np.ndarray, girth: float
) -> None:
    """Bands, spots or a stripe along the back, on torso and tail."""
    kind, on = rng.integers(4), ("torso", "tail")
    steps = spine[1:] - spine[:-1]
    if kind == 0:
        for at, (dx, dy) in zip(spine[:-1] + steps * 0.5, steps.tolist(), strict=True):
            w, turn = between(rng, 0.02, 0.045), math.atan2(dy, dx)
            body.polygon("torso", place([(-w, -girth), (w, -girth), (w * 1.6, 0), (w, girth),
                (-w, girth), (0, 0)], at, turn), coat.mark, on=on)  # fmt: skip
    elif kind == 1:
        for along, across, size in rng.uniform(
            (0, -0.8, 0.02), (len(steps) - 1.5, 0.6, 0.045), (13, 3)
        ).tolist():
            at = spine[int(along)] + steps[int(along)] * (along % 1)
            body.ellipse(
                "torso", at + (0, across * girth * 0.5), (size, size * 0.85), coat.mark, on=on
            )
    elif kind == 2:
        body.limb("torso", spine, [girth * 0.3] * (len(spine) - 2) + [0.04, 0.02], coat.mark, on=on)


def _lizard_above(rng: np.random.Generator, coat: Coat) -> Body:
    body = Body(stance="flat", faces=0, grain=0.4)
    sway, phase, stout, crest, stretch, gaze, thick = rng.uniform(size=7).tolist()
    sway, phase, girth = 0.15 + 0.45 * sway, phase * 6.3, 0.24 + 0.12 * stout
    turns = [math.pi + sway * (0.7 + 0.13 * k) * math.sin(phase + 0.85 * k) for k in range(8)]
    spine = joint((0.48, 0), [0.2, 0.25, 0.25] + [0.2 + 0.06 * stretch] * 5, turns)
    for side in (-1, 1):
        for at, bend, forward in ((spine[1], turns[0], 1), (spine[3], turns[2], -1)):
            gait = between(rng, -0.4, 0.4)
            out = bend - math.pi + side * (1.35 if forward > 0 else 1.7) + gait * side
            fold = out - side * forward * (0.9 + gait * 0.5)
            spine_leg = joint(at, [0.3, 0.19], [out, fold])
            body.blob("leg", _taper(spine_leg, (0.14, 0.1 + 0.04 * thick, 0.07)), coat.base)
            toward = fold + (0 if forward > 0 else side * 0.9)
            body.polygon("leg", place(_TOES, spine_leg[-1], toward, flip_y=side), coat.shade)
    body.limb("tail", spine[2:], [girth * 0.9, girth * 0.78, girth * 0.5, girth * 0.33,
        girth * 0.2, girth * 0.12, 0.015], coat.base, volume="body")  # fmt: skip
    body.limb("torso", spine[:4], [girth * 0.6, girth * 0.98, girth * 1.02, girth * 0.72],
        coat.base, volume="body")  # fmt: skip
    _markings(body, rng, coat, spine, girth * 0.62)
    if crest > 0.45:
        comb = []
        for x, y in curve(spine[:6], steps=2).tolist():
            comb += [(x + 0.03, y - 0.02), (x - 0.05, y), (x + 0.03, y + 0.02)]
        body.polygon("crest", comb, coat.accent if crest > 0.7 else coat.shade * 0.6)
    look = turns[0] - math.pi + (gaze - 0.5) * 0.8

    def at(points: Points) -> np.ndarray:
        return place(points, spine[0], look)

    body.blob("head", at([(-0.1, -0.07), (0.02, -0.13), (0.12, -0.13), (0.3, -0.06), (0.37, 0.0),
        (0.3, 0.06), (0.12, 0.13), (0.02, 0.13), (-0.1, 0.07)]), coat.base)  # fmt: skip
    body.polygon("head", at([(0.3, 0.02), (0.32, 0.04), (0.33, 0.025), (0.33, -0.025),
        (0.32, -0.04), (0.3, -0.02)]), coat.shade * 0.5)  # fmt: skip
    for side in (-1, 1):
        body.eye(at([(0.13, 0.105 * side)])[0], 0.038)
    return body


def _lizard_beside(rng: np.random.Generator, coat: Coat) -> Body:
    body = Body(stance="stand", grain=0.4)
    lift, curl, stout, crest, gape, pitch, dewlap, rise = rng.uniform(size=8).tolist()
    girth, lift = 0.28 + 0.12 * stout, 0.05 + 0.22 * lift
    hips = np.array([-0.38, 0.06 * (1 - rise)])
    chest = np.array([0.3, -0.04 - 0.12 * rise])
    ground = 0.3
    trunk = [hips, hips * 0.4 + chest * 0.6 + (-0.2, -0.04), chest, chest + (0.22, -lift)]
    bend = -0.1 + 0.9 * curl
    turns = [math.pi - 0.25 + bend * t for t in (0.0, 0.3, 0.8, 1.4, 2.1)]
    tail = joint(hips, [0.2, 0.21, 0.2, 0.18, 0.16], turns)

    def leg(start: np.ndarray, hind: bool, colour: Colour) -> None:
        stride = between(rng, -0.12, 0.12)
        out = 0.16 if hind else -0.13
        knee = start + (out + stride * 0.5, 0.11)
        foot = (start[0] + (-0.06 if hind else 0.06) + stride, ground - 0.02)
        body.blob("leg", _taper((start, knee, foot), (0.2 if hind else 0.16, 0.14, 0.08)), colour)
        body.polygon("leg", np.array([(-0.06, -0.04), (0.04, -0.05), (0.21, -0.01), (0.23, 0.02),
            (0.1, 0.01), (0.18, 0.06), (0.05, 0.03), (0.06, 0.075), (-0.03, 0.04),
            (-0.1, 0.05)]) + foot, colour * 0.85)  # fmt: skip

    leg(hips + (0.1, 0.0), True, coat.shade)
    leg(chest + (0.1, 0.02), False, coat.shade)
    spine = np.concatenate([trunk[:0:-1], tail])
    if crest > 0.4:
        height = 0.08 + 0.12 * crest
        comb = [(trunk[3][0] + 0.04, trunk[3][1])]
        line = np.concatenate([spine, (spine[1:] + spine[:-1]) / 2])
        line = line[np.argsort(-line[:, 0])]
        n = len(line)
        for k, (x, y) in enumerate(line[1:].tolist()):
            top = y - girth * (0.42 if k < 6 else 0.42 * (n - k) / (n - 6))
            comb += [(x + 0.05, top + 0.05), (x - 0.03, top - height * (1 - 0.8 * k / n)),
                (x - 0.05, top + 0.05)]  # fmt: skip
        body.polygon("crest", comb + [tail[3], hips, chest],
            coat.accent if crest > 0.7 else coat.shade * 0.75)  # fmt: skip
    body.limb("tail", tail, [girth * 0.8, girth * 0.55, girth * 0.36, girth * 0.24, girth * 0.14,
        0.02], coat.base, volume="body")  # fmt: skip
    body.limb("torso", trunk, [girth * 0.8, girth * 1.08, girth * 0.95, girth * 0.75], coat.base,
        volume="body")  # fmt: skip
    body.blob("torso", [hips + (0, 0.06), chest * 0.5 + hips * 0.5 + (0, girth * 0.28),
        chest + (0.05, girth * 0.25), chest + (0.3, 0.0), chest + (0.2, 0.3), hips + (0, 0.3)],
        coat.belly, on="torso")  # fmt: skip
    _markings(body, rng, coat, spine, girth * 0.6)
    leg(hips + (0.0, 0.03), True, coat.base)
    leg(chest + (0.0, 0.05), False, coat.base)

    def at(points: Points) -> np.ndarray:
        return place(np.asarray(points) * 1.15, trunk[3] + (0.04, 0.0), (pitch - 0.65) * 0.7)

    o = max(0.0, gape - 0.6) * 0.35
    if dewlap > 0.6:
        body.blob("head", at([(0.2, 0.06), (0.1, 0.12 + 0.3 * (dewlap - 0.5)),
            (-0.06, 0.16 + 0.2 * (dewlap - 0.5)), (-0.14, 0.06), (0, 0)]), coat.accent)  # fmt: skip
    body.blob("mouth", at([(0.0, 0.02), (0.3, 0.0), (0.33, 0.05 + o), (0.2, 0.1 + o),
        (0.0, 0.12)]), mix(coat.belly, coat.base, 0.5))  # fmt: skip
    body.blob("head", at([(-0.17, 0.05), (-0.15, -0.09), (0.0, -0.13), (0.1, -0.13), (0.22, -0.07),
        (0.36, -0.0), (0.36, 0.04), (0.22, 0.06), (0.05, 0.06),
        (-0.08, 0.12)]), coat.base)  # fmt: skip
    body.polygon("mouth", at([(0.36, 0.03), (0.2, 0.045), (0.03, 0.04), (0.03, 0.055),
        (0.2, 0.065), (0.36, 0.05)]), coat.shade * 0.4)  # fmt: skip
    body.ellipse("head", at([(-0.08, -0.0)])[0], (0.028, 0.035), coat.shade * 0.5)
    body.eye(at([(0.09, -0.06)])[0], 0.042)
    return body


# ------------------------------------------------------------------------------------------ turtle


def _scutes() -> np.ndarray:
    """The plates of a shell seen from above, in a unit circle, head towards +x: five along the
    spine, then four on either side, each a little smaller than its cell: (13, 6, 2)."""
    ends = [0.86, 0.52, 0.17, -0.19, -0.53, -0.86]
    cells = []
    for front, back in zip(ends[:-1], ends[1:], strict=True):
        middle, waist = (front + back) / 2, 0.2 if front < 0.8 else 0.24
        cells.append([(front, -waist), (front, waist), (middle, 0.33), (back, 0.2), (back, -0.2),
            (middle, -0.33)])  # fmt: skip
    reach = 0.86
    # angles at which the seams between the flank plates meet the rim
    rays = [0.42, 0.99, 1.55, 2.12, 2.72]
    for side in (-1, 1):
        for k in range(4):
            inner = [((ends[k] + ends[k + 1]) / 2, 0.37), (ends[k + 1], 0.24),
                ((ends[k + 1] + ends[k + 2]) / 2, 0.37)]  # fmt: skip
            outer = [(reach * math.cos(a), reach * math.sin(a)) for a in (rays[k + 1],
                (rays[k] + rays[k + 1]) / 2, rays[k])]  # fmt: skip
            cells.append([(x, side * y) for x, y in inner + outer])
    centres = np.mean(cells, 1, keepdims=True)
    return centres + (np.array(cells) - centres) * 0.88


_SCUTES = _scutes()
_CENTRES = _SCUTES.mean(1, keepdims=True)


def _ring(count: int, *spokes: tuple[float, float]) -> np.ndarray:
    """`count` times round the unit circle: points at (offset angle, radius) of every spoke."""
    turns = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return np.array(
        [(r * math.cos(turn + o), r * math.sin(turn + o)) for turn in turns for o, r in spokes]
    )


_CIRCLE = _ring(28, (0, 1))
# between the plates of the rim, as one comb
_SEAMS = _ring(24, (-0.018, 0.86), (0, 1.02), (0.018, 0.86))


def turtle(rng: np.random.Generator, coat: Coat) -> Body:
    above, swims = rng.random() < 0.5, rng.random() < 0.4
    body = Body(
        stance="flat" if above else "air" if swims else "stand",
        faces=0 if above else 1,
        grain=0.4,
        gloss=0.15,
    )
    wide, high, neck, gaze, view, gait = rng.uniform(size=6).tolist()
    length, wide, high = 0.72, 0.5 + 0.2 * wide, 0.36 + 0.26 * high
    skin = (mix(coat.base, coat.belly, 0.7), mix(coat.base, coat.accent, 0.5),
        mix(coat.shade, coat.mark, 0.4), coat.shade)[rng.integers(4)]  # fmt: skip
    seam, heart = coat.shade * 0.55, (coat.mark, mix(coat.base, coat.mark, 0.6),
        coat.accent)[rng.integers(3)]  # fmt: skip
    tilt = math.pi / 2 if above else 0.15 + 0.3 * view  # how far we look from above
    sin, cos = math.sin(tilt), math.cos(tilt)

    def dome(points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the unit circle, lifted on to the dome and seen at `tilt`."""
        z = 1 - np.minimum((points * points).sum(-1), 1) ** 1.4
        return np.stack([points[..., 0] * length, points[...,
            1] * (wide * sin) - z * (high * cos)], -1)  # fmt: skip

    (_turtle_above if above else _turtle_beside)(
        body, rng, coat, skin, swims, length, wide, neck, gaze, gait
    )
    rim = _CIRCLE * (length, wide * sin)
    if not above:  # behind, the top of the dome is the outline
        x, y = _CIRCLE[:, 0], _CIRCLE[:, 1]
        rim[:, 1] = np.where(y < 0, (np.abs(x) ** 2.8 - 1) * (high * cos) + 0.4 * rim[:, 1], rim[:,
            1])  # fmt: skip
    rim_colour = mix(coat.base, (coat.shade, coat.belly, coat.mark)[rng.integers(3)], 0.6)
    body.add("shell", rim, rim_colour, volume="shell")
    body.add("shell", dome(_SEAMS), seam, on="shell")
    inner = dome(_CIRCLE * 0.88)
    if not above:
        inner = np.where(_CIRCLE[:, 1:] < 0, rim * 0.96, inner)
    body.add("shell", inner, seam, volume="shell")
    seen = slice(None) if above else [0, 1, 2, 3, 4, 9, 10, 11, 12]
    pattern, on = rng.integers(4), () if above else "shell"
    plates = dome(_SCUTES)[seen]
    spots = dome(_CENTRES + (_SCUTES - _CENTRES) * (0.0, 0.55, 0.35, 0.72)[pattern])[seen]
    for k, (plate, spot) in enumerate(zip(plates, spots, strict=True)):
        body.add("shell", plate, coat.base, on=on)
        if pattern and k not in (0, 4):  # the plates at either end stay plain
            body.add("shell", spot, heart, on="shell")
    return body


def _turtle_above(body, rng, coat, skin, swims, length, wide, neck, gaze, gait):
    body.polygon("tail", [(-0.6, -0.1), (-0.86 - 0.1 * gait, 0.04 * (gaze - 0.5)), (-0.6, 0.1)],
        skin)  # fmt: skip
    for side in (-1, 1):
        g = gait if side > 0 else 1 - gait
        if swims:
            body.blob("leg", place([(0.0, -0.1), (0.25, -0.16), (0.5, -0.1), (0.72, 0.08),
                (0.62, 0.1), (0.4, 0.06), (0.15, 0.08), (0.0, 0.1)], (0.42, side * wide * 0.6),
                side * (1.1 + 0.9 * g), flip_y=side), skin)  # fmt: skip
            body.blob("leg", place([(0, -0.08), (0.2, -0.1), (0.38, 0.0), (0.2, 0.1), (0, 0.08)],
                (-0.48, side * wide * 0.55), side * (2.3 + 0.4 * g)), skin)  # fmt: skip
        else:
            for x, turn in ((0.4, 0.6 + 0.7 * g), (-0.42, 2.6 - 0.6 * g)):
                hip = (x, side * wide * 0.62)
                body.blob("leg", place([(0, -0.12), (0.22, -0.115), (0.4, -0.1), (0.46, 0.0),
                    (0.4, 0.1), (0.22, 0.115), (0, 0.12)], hip, side * turn), skin)  # fmt: skip
                body.polygon("leg", place([(0.43, -0.08), (0.55, -0.07), (0.47, -0.03),
                    (0.57, 0.0), (0.47, 0.03), (0.55, 0.07), (0.43, 0.08)], hip, side * turn),
                    mix(skin, BLACK, 0.6))  # fmt: skip
    reach, turn = 0.1 + 0.2 * neck, (gaze - 0.5) * 0.9
    throat = np.array([(0.6, 0.0), (0.68, 0.0),
        (0.7 + reach * math.cos(turn), reach * math.sin(turn))])  # fmt: skip
    body.limb("head", throat, [0.24, 0.22, 0.2], skin, volume="head")

    def at(points: Points) -> np.ndarray:
        return place(points, throat[-1], turn)

    body.blob("head", at([(-0.08, -0.1), (0.08, -0.16), (0.22, -0.11), (0.31, 0.0), (0.22, 0.11),
        (0.08, 0.16), (-0.08, 0.1)]), skin, volume="head")  # fmt: skip
    body.polygon("mouth", at([(0.21, -0.1), (0.3, -0.05), (0.34, 0.0), (0.3, 0.05), (0.21, 0.1),
        (0.25, 0)]), skin * 0.6)  # fmt: skip
    for side in (-1, 1):
        body.eye(at([(0.13, 0.11 * side)])[0], 0.036)


def _turtle_beside(body, rng, coat, skin, swims, length, wide, neck, gaze, gait):
    under = mix(coat.belly, coat.shade, 0.35)
    body.polygon("tail", [(-0.55, 0.0), (-0.84 - 0.08 * gaze, 0.14 + 0.06 * gait), (-0.5, 0.14)],
        skin)  # fmt: skip
    swing = (gait - 0.5) * 0.24
    far = skin * 0.72

    def stump(x: float, y: float, lean: float, colour: Colour) -> None:
        foot = np.array([x + lean, y + 0.3])
        body.blob(
            "leg",
            _taper(
                ((x, y - 0.05), (x + lean * 0.6, y + 0.16), foot + (0, 0.08)), (0.26, 0.21, 0.2)
            ),
            colour,
        )
        body.polygon("leg", foot + [(-0.02, 0.07), (0.02, 0.12), (0.05, 0.06), (0.09, 0.11),
            (0.1, 0.03), (0.16, 0.07), (0.11, -0.03)], mix(colour, BLACK, 0.6))  # fmt: skip

    def flipper(x: float, y: float, turn: float, size: float, colour: Colour) -> None:
        body.blob("leg", place(np.array([(-0.02, -0.1), (0.25, -0.15), (0.5, -0.1), (0.74, 0.08),
            (0.62, 0.1), (0.4, 0.06), (0.15, 0.09), (0.0, 0.1)]) * size,
            (x, y), turn, flip_y=-1), colour)  # fmt: skip

    if swims:
        flipper(0.42, 0.0, -2.2 + 1.2 * gait, 0.8, far)
        flipper(-0.45, 0.08, 2.4, 0.5, far)
    else:
        stump(0.28, 0.02, 0.06 - swing, far)
        stump(-0.48, 0.02, swing - 0.04, far)
    up = -0.28 + 0.28 * gaze
    reach = 0.68 + 0.24 * neck
    head = np.array([reach, up * (0.5 + neck * 0.7)])
    body.limb("head", [(0.45, 0.06), (0.62, 0.05 + head[1] * 0.4), head], [0.26, 0.22, 0.2], skin,
        volume="head")  # fmt: skip
    pitch = (gaze - 0.5) * 0.5

    def at(points: Points) -> np.ndarray:
        return place(points, head, pitch)

    body.blob("head", at([(-0.1, 0.08), (-0.09, -0.09), (0.06, -0.14), (0.2, -0.11), (0.28, 0.0),
        (0.27, 0.07), (0.12, 0.12)]), skin, volume="head")  # fmt: skip
    body.polygon("mouth", at([(0.19, -0.03), (0.28, -0.03), (0.305, 0.05), (0.28, 0.1),
        (0.25, 0.055), (0.08, 0.06), (0.08, 0.045), (0.2, 0.035)]), skin * 0.5)  # fmt: skip
    body.eye(at([(0.1, -0.035)])[0], 0.04)
    body.blob("torso", [(-0.62, 0.0), (-0.4, 0.16), (0.0, 0.19 + 0.04 * wide), (0.4, 0.17),
        (0.62, 0.0), (0.0, -0.1)], under)  # fmt: skip
    if swims:
        flipper(0.4, 0.1, 0.9 + 1.3 * gait, 1.0, skin)
        flipper(-0.42, 0.12, 2.3 + 0.3 * gait, 0.6, skin)
    else:
        stump(0.42, 0.08, 0.06 + swing, skin)
        stump(-0.38, 0.08, -swing - 0.04, skin)
