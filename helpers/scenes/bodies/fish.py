"""Fish in the swim: a clownfish (deep oval body, three contrasting bands with dark edges, rounded
fins) and a shark (long torpedo, tall pointed dorsal fin, tail with a long upper lobe, gill slits,
pale belly)."""

from __future__ import annotations

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, Colour, Points, mix, rotate

PARTS = ("torso", "band", "head", "eye", "mouth", "gill", "fin", "tail")


def _swim(body: Body, rng: np.random.Generator, stretch: float = 0.15) -> Body:
    """Bend the finished, straight fish: stretch it, swing its tail, ripple it, pitch it."""
    swing, ripple, pitch, longer = rng.uniform(
        (-0.22, -0.05, -0.5, -1), (0.22, 0.05, 0.5, 1)
    ).tolist()
    points = np.concatenate([stroke.outline for stroke in body.strokes])
    points[:, 0] *= 1 + stretch * longer
    back = 0.4 - points[:, 0]
    points[:, 1] += swing * back * back * (1 - 0.3 * back) + ripple * np.sin(4 * points[:, 0])
    points = rotate(points, pitch)
    start = 0
    for stroke in body.strokes:
        end = start + len(stroke.outline)
        stroke.outline, start = points[start:end], end
    return body


def _fin(
    body: Body,
    part: str,
    points: Points,
    roots: Points,
    tips: Points,
    count: int,
    colour: Colour,
    hem: Colour,
) -> None:
    """A rounded fin: a dark hem, the membrane, and its rays (one comb from edge to edge)."""
    (ax, ay), (bx, by) = roots
    (cx, cy), (dx, dy) = tips
    outline = body.blob(part, points, hem)
    body.add(part, outline * 0.85 + ((ax + bx) * 0.075, (ay + by) * 0.075), colour)
    comb, half = [], 0.2 / count
    for k in range(count):
        t = (k + 0.5) / count
        for u in (t - half, t + half):
            comb.append((ax + (bx - ax) * u, ay + (by - ay) * u))
            if u < t:
                comb.append((cx + (dx - cx) * t, cy + (dy - cy) * t))
    body.polygon(part, comb, colour * 0.65, on=part)


def clownfish(rng: np.random.Generator, coat: Coat) -> Body:
    body = Body(stance="air", grain=0.15, gloss=0.25)
    deep, fan, sweep, gape, wave, width = rng.uniform(size=6).tolist()
    h = 0.37 + 0.12 * deep
    trim = mix(coat.base, BLACK, 0.75) if rng.random() < 0.7 else mix(coat.mark, BLACK, 0.4)
    fin = (coat.base, mix(coat.base, coat.shade, 0.7),
        mix(coat.base, coat.accent, 0.35))[rng.integers(3)]  # fmt: skip

    def membrane(part, points, roots, tips, count):
        _fin(body, part, points, roots, tips, count, fin, trim)

    f = 0.25 + 0.1 * fan
    membrane("tail", [(-0.6, -0.12), (-0.8, -f), (-1.0, -f * 1.0), (-1.1, -f * 0.4),
        (-1.1, f * 0.4), (-1.0, f), (-0.8, f), (-0.6, 0.12)], [(-0.66, -0.1), (-0.66, 0.1)],
        [(-1.05, -f), (-1.05, f)], 7)  # fmt: skip
    s = 0.16 + 0.12 * sweep
    membrane("fin", [(0.3, -h * 0.8), (0.2, -h - s), (-0.02, -h - s * 0.75), (-0.1, -h - s * 0.55),
        (-0.26, -h - s * 1.15), (-0.5, -h * 0.75 - s), (-0.62, -h * 0.4 - s * 0.6),
        (-0.5, -h * 0.3)], [(0.25, -h * 0.7), (-0.5, -h * 0.4)], [(0.15, -h - s * 1.2),
        (-0.65, -h - s * 0.9)], 10)  # fmt: skip
    membrane("fin", [(-0.05, h * 0.7), (-0.14, h + s), (-0.35, h + s * 0.9),
        (-0.52, h * 0.7 + s * 0.4), (-0.5, h * 0.3)], [(-0.05, h * 0.7), (-0.5, h * 0.4)],
        [(-0.15, h + s * 1.2), (-0.55, h + s * 0.6)], 6)  # fmt: skip
    membrane("fin", [(0.34, h * 0.7), (0.3, h + s * 0.6), (0.14, h + s * 1.3), (0.06, h + s),
        (0.14, h * 0.7)], [(0.34, h * 0.8), (0.12, h * 0.8)], [(0.3, h + s * 1.2), (0.02, h + s)],
        4)  # fmt: skip
    body.blob("torso", [(0.8, 0.03), (0.74, -0.12), (0.52, -h * 0.76), (0.18, -h),
        (-0.2, -h * 0.88), (-0.5, -h * 0.5), (-0.7, -0.13), (-0.7, 0.13), (-0.5, h * 0.5),
        (-0.2, h * 0.9), (0.18, h), (0.52, h * 0.78), (0.73, 0.16)], coat.base)  # fmt: skip
    if rng.random() < 0.5:
        body.blob("torso", [(0.8, 0.2), (0.5, h * 0.5), (0.0, h * 0.62), (-0.6, 0.1), (-0.4, h),
            (0.2, 1.3 * h), (0.7, h)], coat.belly, on="torso")  # fmt: skip
    body.blob("head", [(0.9, -0.2), (0.6, -h - 0.1), (0.4, -h), (0.36, 0.0), (0.42, h), (0.7, h),
        (0.9, 0.2)], coat.base, on="torso")  # fmt: skip
    w = 0.05 + 0.055 * width
    for x, bulge, wide in (
        (0.38 + 0.06 * wave, 0.1, w),
        (-0.1, 0.05 + 0.2 * wave, w * 1.15),
        (-0.57, 0.02, w * 0.75),
    ):
        for extra, colour in ((0.035, trim), (0.0, coat.mark)):
            r = wide + extra
            body.blob("band", [(x - r, -0.7), (x - r * 0.9 + bulge * 0.4, -0.2),
                (x - r + bulge * 0.6, 0.0), (x - r, 0.3), (x - r, 0.7), (x + r, 0.7),
                (x + r * 0.9, 0.3), (x + r + bulge, 0.0), (x + r * 0.9, -0.3), (x + r, -0.7)],
                colour, on=("torso", "head", "band"))  # fmt: skip
    body.blob("mouth", [(0.84, 0.06), (0.74, 0.05), (0.64, 0.13), (0.66, 0.16),
        (0.75, 0.12 + 0.08 * gape), (0.84, 0.12)], coat.shade * 0.45,
        on=("head", "torso"))  # fmt: skip
    body.eye((0.58, -0.08), 0.06)
    p = 0.2 + 0.1 * fan
    tilt = 0.16 * (sweep - 0.3)
    membrane("fin", [(0.22, 0.02), (0.1, -0.04 + tilt), (-0.04, tilt), (-0.1, 0.12 + tilt),
        (-0.04, p + tilt), (0.1, p * 0.95 + tilt), (0.22, 0.14)], [(0.24, 0.04), (0.22, 0.12)],
        [(-0.08, tilt), (0.0, p + tilt)], 5)  # fmt: skip
    return _swim(body, rng)


def shark(rng: np.random.Generator, coat: Coat) -> Body:
    body = Body(stance="air", grain=0.12, gloss=0.2)
    slim, tall, sweep, gape, low, place = rng.uniform(size=6).tolist()
    h = 0.18 + 0.07 * slim
    far, dark = coat.shade, mix(coat.shade, BLACK, 0.55)
    pattern = rng.integers(4)

    def add(part, points, colour, smooth=True, **options):
        (body.blob if smooth else body.polygon)(part, points, colour, **options)

    # the far pectoral, then the tail with its long upper lobe
    add("fin", [(0.3, h * 0.5), (0.2, h * 0.9), (0.12 - 0.1 * sweep, h + 0.3), (0.06, h + 0.1),
        (0.08, h * 0.7)], far)  # fmt: skip
    u = 0.42 + 0.12 * tall
    add("tail", [(-0.86, -0.05), (-1.0, -0.14), (-1.2 - 0.08 * sweep, -u),
        (-1.27 - 0.08 * sweep, -u + 0.02), (-1.16, -0.18), (-1.1, -0.02), (-1.15, 0.16),
        (-1.17, 0.25), (-1.02, 0.14), (-0.86, 0.06)], coat.base)  # fmt: skip
    d, x = 0.34 + 0.14 * tall, 0.1 + 0.1 * place
    add("fin", [(x + 0.16, -h * 0.75), (x, -h - d * 0.6), (x - 0.16, -h - d),
        (x - 0.2, -h - d * 0.93), (x - 0.19, -h - d * 0.4), (x - 0.25, -h * 0.9),
        (x - 0.2, -h * 0.6), (x, -h * 0.5)], coat.base)  # fmt: skip
    add("fin", [(-0.5, -h * 0.3), (-0.62, -h * 0.5 - 0.14), (-0.66, -h * 0.5 - 0.12),
        (-0.68, -h * 0.35), (-0.6, -0.02)], coat.base)  # fmt: skip
    add("fin", [(-0.44, h * 0.35), (-0.56, h * 0.6 + 0.14), (-0.62, h * 0.6 + 0.12),
        (-0.62, h * 0.3), (-0.5, 0.02)], far)  # fmt: skip
    add("torso", [(0.98, -0.05), (0.84, -h * 0.58), (0.5, -h * 0.95), (0.1, -h),
        (-0.35, -h * 0.72), (-0.7, -h * 0.34), (-0.98, -0.06), (-0.98, 0.05), (-0.7, h * 0.3),
        (-0.35, h * 0.68), (0.1, h), (0.5, h * 0.92), (0.78, h * 0.55)], coat.base)  # fmt: skip
    add("head", [(1.1, -0.3), (0.6, -0.4), (0.54, 0.0), (0.6, 0.4), (1.1, 0.3)], coat.base,
        on="torso")  # fmt: skip
    if pattern == 0:  # a tiger's bars
        for k in range(6):
            at = 0.36 - 0.19 * k
            add("torso", [(at, -0.3), (at - 0.045, -h * 0.2), (at - 0.05, h * 0.25),
                (at - 0.075, -h * 0.2), (at - 0.09, -0.3)], mix(coat.base, coat.mark, 0.7),
                on="torso")  # fmt: skip
    elif pattern == 1:
        for px, py, r in rng.uniform((-0.7, -0.9, 0.015), (0.5, 0.1, 0.045), (14, 3)).tolist():
            add("torso", [(px + r, py * h), (px, py * h + r), (px - r, py * h), (px, py * h - r)],
                coat.mark, on="torso")  # fmt: skip
    line = h * (0.05 + 0.35 * low)
    pale = mix(coat.belly, WHITE, 0.5)
    add("torso", [(1.1, 0.02), (0.8, line * 0.7), (0.5, line), (0.1, line * 1.2),
        (-0.4, line * 0.8), (-1.0, 0.02), (-0.7, 0.3), (0.1, 0.5), (0.9, 0.4)], pale,
        on=("torso",))  # fmt: skip
    add("head", [(1.1, 0.02), (0.8, line * 0.7), (0.5, line), (0.5, 0.4), (0.9, 0.4)], pale,
        on=("head",))  # fmt: skip
    for k in range(4 + int(place * 2)):
        g = 0.5 - 0.05 * k
        add("gill", [(g, -h * 0.35), (g - 0.035, 0.0), (g - 0.015, h * 0.35),
            (g - 0.012, h * 0.35), (g - 0.012, 0.0), (g + 0.012, -h * 0.35)], dark, smooth=False,
            on=("torso", "head"))  # fmt: skip
    y = h * 0.34
    if gape > 0.5:  # open, with teeth
        o = 0.03 + 0.12 * (gape - 0.5)
        add("mouth", [(0.84, y - 0.01), (0.74, y - 0.03), (0.58, y + 0.04), (0.65, y + o + 0.02),
            (0.77, y + o)], mix(BLACK, coat.accent, 0.3), on="head")  # fmt: skip
        teeth = [(0.83 - 0.03 * k, y - 0.035 + (0.06 if k % 2 else 0)) for k in range(8)]
        add("mouth", [*teeth, (0.6, y - 0.03), (0.83, y - 0.06)], WHITE, smooth=False, on="mouth")
    else:
        add("mouth", [(0.82, y + 0.01), (0.72, y - 0.02), (0.57, y + 0.06), (0.585, y + 0.08),
            (0.72, y + 0.015), (0.8, y + 0.035)], dark, on="head")  # fmt: skip
    body.eye((0.76, -h * 0.18), 0.032)
    flare = 0.2 + 0.2 * sweep
    add("fin", [(0.36, h * 0.45), (0.2, h * 0.75), (-0.02 - 0.1 * sweep, h + flare),
        (-0.07 - 0.1 * sweep, h + flare), (0.0, h * 0.95), (0.12, h * 0.6), (0.22, h * 0.4)],
        mix(coat.base, coat.shade, 0.5))  # fmt: skip
    return _swim(body, rng)
