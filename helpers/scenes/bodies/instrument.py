"""Musical instruments, polished, leaning or lying at any angle. A guitar is a waisted box with a
long straight fretted neck, pegs and strings; a saxophone is a bent conical tube that opens into an
upturned bell, with a crook, a mouthpiece and a row of keys."""

from __future__ import annotations

from math import cos, hypot, sin

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, between, curve, mix, stick

PARTS = (
    "sound box", "sound hole", "bridge", "neck", "strings", "headstock", "peg",
    "tube", "bell", "key", "crook", "mouthpiece",
)  # fmt: skip

GREY = np.array([0.72, 0.72, 0.7])


def _lay(body: Body, angle: float, squeeze: float) -> Body:
    """Turn the whole instrument by `angle`, after narrowing it as when seen from the side."""
    outlines = [stroke.outline for stroke in body.strokes]
    c, s = cos(angle), sin(angle)
    points = np.concatenate(outlines) @ np.array([[squeeze * c, squeeze * s], [-s, c]])
    ends = np.cumsum([len(outline) for outline in outlines]).tolist()
    start = 0
    for stroke, end in zip(body.strokes, ends, strict=True):
        stroke.outline = points[start:end]
        start = end
    return body


def _comb(
    heads: list[tuple[float, float]], feet: list[tuple[float, float]], width: float
) -> list[tuple[float, float]]:
    """Many thin parallel lines as one outline: a bar through the heads, a tooth to every foot."""
    half, teeth = width / 2, []
    for (x0, y0), (x1, y1) in zip(heads, feet, strict=True):
        length = hypot(x1 - x0, y1 - y0)
        nx, ny = (y1 - y0) / length * half, -(x1 - x0) / length * half
        teeth += [(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)]
    (ax, ay), (bx, by), (fx, fy) = heads[0], heads[-1], feet[0]
    back = hypot(fx - ax, fy - ay)
    ux, uy = (ax - fx) / back * width, (ay - fy) / back * width
    return [*teeth, (bx + ux, by + uy), (ax + ux, ay + uy)]


# ----------------------------------------------------------------------------------------- guitar


def guitar(rng: np.random.Generator, coat: Coat) -> Body:
    """Drawn upright, the neck pointing up and the strings along x = 0, then laid at any angle."""
    body = Body(stance="prop", faces=0, gloss=0.8, grain=0.12)
    electric = rng.random() < 0.4
    low, high = between(rng, 0.36, 0.47), between(rng, 0.28, 0.36)
    waist, end = high - between(rng, 0.02, 0.07), between(rng, 0.95, 1.08)  # bottom of the box
    if electric:
        right = _electric_side(rng, low, waist, end)
        left = [(-x, y) for x, y in reversed(_electric_side(rng, low, waist, end))]
        outline = curve([(0, end), *right, (0.05, 0.1), (-0.05, 0.1), *left], closed=True, steps=5)
    else:
        round_ = low * between(rng, 0.75, 0.9)
        c = end - round_
        right = [(low * 0.71, c + round_ * 0.71), (low, c), (low * 0.86, c - round_ * 0.6),
            (waist, 0.39), (high * 0.99, 0.21), (high * 0.72, 0.075)]  # fmt: skip
        left = [(-x, y) for x, y in reversed(right)]
        if rng.random() < 0.3:  # a cutaway
            right[-2:] = [(high * 0.95, 0.26), (high * 0.88, 0.14), (0.15, 0.25)]
        outline = curve([(0, end), *right, (0, 0.05), *left], closed=True, steps=5)

    wood = (coat.base, mix(coat.base, coat.belly, 0.5))[rng.integers(2)]
    dark = mix(coat.shade, BLACK, 0.35)
    edge = (coat.mark, dark, mix(WHITE, coat.belly, 0.3))[rng.integers(3)]
    side = np.array([between(rng, -0.09, 0.09), between(rng, -0.02, 0.06)])
    centre = np.array([0, 0.5])
    body.add("sound box", outline + side, dark)
    body.add("sound box", outline, edge, volume="box")
    body.add("sound box", centre + (outline - centre) * 0.95, wood, volume="box")
    if rng.random() < 0.4:  # sunburst
        body.add("sound box", centre + (outline - centre) * 0.88, mix(wood, coat.shade, 0.5),
            volume="box")  # fmt: skip
        body.add("sound box", centre + (outline - centre) * 0.74, mix(wood, WHITE, 0.25),
            volume="box")  # fmt: skip
    guard = rng.random()
    if electric:
        saddle = 0.76
        if guard < 0.6:
            right = -1 if rng.random() < 0.5 else 1
            plate = [(0.08 * right, 0.14), (waist * 0.8 * right, 0.26),
                (waist * 0.8 * right, 0.5), (low * 0.72 * right, 0.7), (0.1 * right, 0.8),
                (-0.1 * right, 0.66), (-0.09 * right, 0.2)]  # fmt: skip
            body.blob("sound box", plate, (coat.mark, coat.accent, WHITE)[rng.integers(3)],
                volume="plate")  # fmt: skip
        tint = (BLACK * 1.5, WHITE, GREY)[rng.integers(3)]
        count = int(rng.integers(2, 4))
        for i in range(count):
            y = 0.28 + 0.36 * i / (count - 1)
            tall = 0.05 if count == 2 else 0.03
            body.polygon("sound hole", [(-0.1, y - tall), (0.1, y - tall), (0.1, y + tall),
                (-0.1, y + tall)], tint)  # fmt: skip
        x = between(rng, 0.17, 0.22)
        for i in range(int(rng.integers(2, 5))):
            body.ellipse("bridge", (x + 0.02 * i, 0.66 + 0.085 * i), (0.033, 0.033), tint * 0.8)
        body.polygon("bridge", [(-0.1, saddle - 0.02), (0.1, saddle - 0.02),
            (0.1, saddle + 0.06), (-0.1, saddle + 0.06)], GREY)  # fmt: skip
    else:
        saddle = between(rng, 0.73, 0.8)
        hole = between(rng, 0.11, 0.155)
        if guard < 0.5:
            plate = [(0.04, 0.42), (0.16, 0.36), (0.21, 0.46), (0.25, 0.6), (0.15, 0.64)]
            body.blob("sound box", plate, (coat.mark, coat.accent, dark)[rng.integers(3)],
                volume="box")  # fmt: skip
        body.ellipse("sound hole", (0, 0.36), (hole * 1.3, hole * 1.3), edge, volume="box")
        body.ellipse("sound hole", (0, 0.36), (hole, hole), mix(BLACK, coat.shade, 0.15), gloss=0)
        wide = between(rng, 0.13, 0.18)
        body.polygon("bridge", [(-wide, saddle), (-0.1, saddle - 0.03), (0.1, saddle - 0.03),
            (wide, saddle), (wide, saddle + 0.045), (-wide, saddle + 0.045)], dark)  # fmt: skip

    # neck, frets and dots; the board runs over the box
    board = (mix(BLACK, coat.shade, 0.45), mix(coat.belly, coat.shade, 0.4),
        mix(coat.mark, BLACK, 0.25))[rng.integers(3)]  # fmt: skip
    foot = 0.22 if electric else 0.36 - hole * 1.1
    nut = -between(rng, 0.38, 0.58)
    body.polygon("neck", [(-0.068, nut), (0.068, nut), (0.09, foot), (-0.09, foot)], board,
        gloss=0.3)  # fmt: skip
    ys = [nut + (foot - nut) * (1 - 0.9**k) / (1 - 0.9**13) for k in range(1, 13)]
    widths = [0.068 + 0.022 * (y - nut) / (foot - nut) for y in ys]
    lefts = [(-w, y) for w, y in zip(widths, ys, strict=True)]
    frets = _comb(lefts, [(-x, y) for x, y in lefts], 0.012)
    body.polygon("neck", frets, mix(board, GREY * 1.2, 0.6), gloss=0.3)
    for k in (2, 4, 6):
        body.ellipse("neck", (0, (ys[k] + ys[k - 1]) / 2), (0.02, 0.02), WHITE, gloss=0.3)
    # headstock: three pegs a side, or six in a row
    paddle = rng.random() < (0.75 if electric else 0.15)
    tip = nut - between(rng, 0.26, 0.34)
    metal = (GREY, coat.accent, WHITE)[rng.integers(3)]
    for i in range(6):
        if paddle:
            peg = (-0.13, nut - 0.05 - 0.042 * i)
        else:
            peg = (0.135 if i % 2 else -0.135, nut - 0.06 - 0.085 * (i // 2))
        body.ellipse("peg", peg, (0.045, 0.022), metal)
    if paddle:
        head = [(-0.068, nut), (-0.115, nut - 0.06), (-0.115, tip + 0.04), (-0.02, tip - 0.03),
            (0.08, tip + 0.02), (0.045, tip + 0.1), (0.068, nut)]  # fmt: skip
    else:
        head = [(-0.068, nut), (-0.105, nut - 0.05), (-0.115, tip), (-0.05, tip + 0.015),
            (0, tip - 0.02), (0.05, tip + 0.015), (0.115, tip), (0.105, nut - 0.05),
            (0.068, nut)]  # fmt: skip
    body.polygon("headstock", head, (wood, dark, board)[rng.integers(3)])
    strings = [(-0.05 + 0.02 * i, nut - 0.02) for i in range(6)]
    body.polygon("strings", _comb([(1.45 * x, saddle + 0.005) for x, _ in strings], strings,
        0.004), mix(board, GREY * 1.25, 0.7), gloss=0)  # fmt: skip
    return _lay(body, between(rng, -2.2, 2.2), between(rng, 0.78, 1.0))


def _electric_side(
    rng: np.random.Generator, low: float, waist: float, end: float
) -> list[tuple[float, float]]:
    """The right flank of a solid body, upwards, with its horn."""
    tip = between(rng, -0.08, 0.12)
    out = waist + between(rng, 0.01, 0.06)
    return [(low * 0.68, end - 0.06), (low, end - 0.25), (low * 0.85, 0.56), (waist, 0.4),
        (out, 0.22), (out - 0.02, tip), (out - 0.09, tip + 0.03), (0.1, 0.16)]  # fmt: skip


# -------------------------------------------------------------------------------------- saxophone


def saxophone(rng: np.random.Generator, coat: Coat) -> Body:
    """The tube runs down at the left, round the bow, and up into the bell at the right."""
    body = Body(stance="prop", faces=1, gloss=1.0, grain=0.0)
    brass = coat.base
    keys = (mix(brass, WHITE, 0.35), coat.belly, coat.mark, GREY * 1.15)[rng.integers(4)]
    inside = mix(coat.shade, BLACK, 0.5)
    gap = between(rng, 0.4, 0.52)  # between the two legs
    top, bow = -between(rng, 0.66, 0.8), between(rng, 0.5, 0.6)
    mouth_y = between(rng, -0.12, 0.08)  # height of the bell's rim
    flare = between(rng, 0.27, 0.36)
    lean = between(rng, 0.04, 0.16)
    x0 = -0.2
    rim = (x0 + gap + lean, mouth_y)

    # the crook: up from the tube, over and back down to the mouthpiece
    rise, reach = between(rng, 0.1, 0.2), between(rng, 0.28, 0.42)
    drop = between(rng, -0.02, 0.14)
    neck = [(x0, top + 0.06), (x0 - 0.01, top - rise * 0.5), (x0 - 0.1, top - rise),
        (x0 - reach, top - rise + drop * 0.6),
        (x0 - reach - 0.1, top - rise + drop + 0.05)]  # fmt: skip
    body.limb("crook", neck, [0.1, 0.095, 0.09, 0.075, 0.07], mix(brass, keys, 0.3))
    (ax, ay), (bx, by) = neck[-2], neck[-1]
    length = hypot(bx - ax, by - ay)
    ux, uy = (bx - ax) / length, (by - ay) / length
    body.add("mouthpiece", stick([(bx + ux * k, by + uy * k) for k in (-0.04, 0.08, 0.2)],
        (0.1, 0.1, 0.03)), BLACK * 1.4)  # fmt: skip
    cx, cy = bx + ux * 0.04, by + uy * 0.04
    body.polygon("mouthpiece", [(cx + a * ux * 0.025 - b * uy * 0.058,
        cy + a * uy * 0.025 + b * ux * 0.058) for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))],
        keys)  # fmt: skip

    # tube, bow and bell in one cone that widens all the way
    spine = [(x0, top), (x0, (top + bow) * 0.35), (x0 + 0.01, bow - 0.12),
        (x0 + gap * 0.22, bow + 0.08), (x0 + gap * 0.6, bow + 0.09),
        (x0 + gap * 0.95, bow - 0.1)]  # fmt: skip
    body.limb("tube", spine, [0.1, 0.15, 0.2, 0.22, 0.235, 0.25], brass, volume="horn")
    tilt = between(rng, 0.0, 0.35)  # the rim dips towards its outer side
    dx, dy = flare * cos(tilt), flare * sin(tilt)
    foot_x, foot_y = spine[-1]
    left, right = (rim[0] - dx, rim[1] - dy), (rim[0] + dx, rim[1] + dy)
    mid = foot_y + (mouth_y - foot_y) * 0.6
    flank = curve([(foot_x + 0.115, foot_y + 0.05), (rim[0] + 0.15, mid + 0.02),
        (rim[0] + flare * 0.6, rim[1] + dy * 0.6 + 0.13), right], steps=5)  # fmt: skip
    other = curve([left, (rim[0] - flare * 0.6, rim[1] - dy * 0.6 + 0.13), (rim[0] - 0.15, mid),
        (foot_x - 0.125, foot_y + 0.02)], steps=5)  # fmt: skip
    body.add("bell", np.concatenate([flank, other, [(foot_x, foot_y + 0.1)]]), brass, volume="horn")
    open_ = flare * between(rng, 0.22, 0.5)
    body.ellipse("bell", rim, (flare * 1.03, open_ * 1.1), mix(brass, WHITE, 0.3), angle=tilt)
    body.ellipse("bell", (rim[0], rim[1]), (flare * 0.9, open_ * 0.9), mix(brass, inside, 0.45),
        angle=tilt, gloss=0.4)  # fmt: skip
    body.ellipse("bell", (rim[0] - 0.01, rim[1] + open_ * 0.25), (flare * 0.55, open_ * 0.55),
        inside, angle=tilt, gloss=0)  # fmt: skip

    # rings where the pieces join, a rod with its posts, pads and cups
    for x, y, half in ((x0, top + 0.03, 0.075), (x0 + 0.005, bow - 0.1, 0.115),
        (foot_x + 0.01, foot_y - 0.02, 0.14)):  # fmt: skip
        body.polygon("key", [(x - half, y - 0.022), (x + half, y - 0.022), (x + half, y + 0.022),
            (x - half, y + 0.022)], keys)  # fmt: skip
    side = 1 if rng.random() < 0.6 else -1
    rod_x = x0 + side * 0.09
    body.polygon("key", [(rod_x - 0.018, top + 0.14), (rod_x + 0.018, top + 0.14),
        (rod_x + 0.03, bow - 0.16), (rod_x, bow - 0.16)], mix(keys, coat.shade, 0.2))  # fmt: skip
    count = int(rng.integers(5, 8))
    for i in range(count):
        t = (i + 0.6) / count
        y = top + 0.14 + (bow - top - 0.34) * t
        r = 0.045 + 0.035 * t
        x = x0 + (0.02 if i % 2 else -0.02) - side * 0.02
        body.ellipse("key", (x, y), (r, r * 0.92), keys * 0.92)
        if i % 2 or r > 0.06:
            body.ellipse("key", (x, y), (r * 0.55, r * 0.5), (WHITE, mix(keys, BLACK, 0.4))[i % 2])
    # palm keys stand out at the side, big guarded cups on the bow and the bell
    for i in range(int(rng.integers(1, 4))):
        y = top + 0.2 + 0.13 * i
        body.add("key", stick([(x0, y + 0.03), (x0 - side * 0.1, y),
            (x0 - side * 0.15, y + 0.08)], (0.03, 0.04, 0.035)), keys)  # fmt: skip
    body.ellipse("key", (x0 + gap * 0.42, bow + 0.07), (0.075, 0.075), keys)
    for t in (0.25, 0.62)[: int(rng.integers(1, 3))]:
        x, y = foot_x + (rim[0] - foot_x) * t - 0.03, foot_y + (mouth_y - foot_y) * t
        body.ellipse("key", (x, y), (0.085, 0.08), keys)
        body.add("key", stick([(x - 0.09, y + 0.05), (x, y - 0.02), (x + 0.09, y + 0.05)],
            (0.025, 0.03, 0.025)), mix(keys, coat.shade, 0.5))  # fmt: skip
    return _lay(body, between(rng, -1.1, 1.1), between(rng, 0.8, 1.05))
