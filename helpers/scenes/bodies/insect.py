"""Insects from above, or from the side. A butterfly is two pairs of broad patterned wings about a
slim body, with clubbed antennae; a beetle is a pair of hard domed wing cases that meet in a middle
line, a shield (pronotum) before them, six jointed legs, and sometimes a horn or jaws."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from helpers.scenes.anatomy import BLACK, WHITE, Body, Coat, between, curve, mix, rotate, stick

PARTS = ("forewing", "hindwing", "wing case", "pronotum", "thorax", "abdomen", "head", "eye",
    "antenna", "leg", "horn")  # fmt: skip

_MIRROR = np.array([-1.0, 1.0])


# -------------------------------------------------------------------------------------- butterfly

Layers = list[tuple[np.ndarray, np.ndarray]]  # outlines and their colours, the lowest first


def butterfly(rng: np.random.Generator, coat: Coat) -> Body:
    """Seen from above with the head at -y; or at rest in profile, the wings folded upwards."""
    folded = rng.random() < 0.25
    dark = mix(coat.shade, BLACK, 0.6)
    hair = dark if coat.light or rng.random() < 0.5 else mix(coat.mark, coat.base, 0.3)
    fore, hind = _wings(rng, coat)
    if folded:
        body = Body(stance="stand", faces=1, gloss=0.15, grain=0.25)
        _folded(body, rng, fore, hind, hair)
        return body
    body = Body(stance="flat", faces=0, gloss=0.15, grain=0.25)
    # tilted: one side foreshortened
    bank = between(rng, 0.45, 1.0) if rng.random() < 0.45 else 1.0
    raised = between(rng, -0.1, 0.35) if bank < 1 else 0.0
    right, left = np.array([[1.0, 0], [0, 1]]), np.array([[-bank, raised * -1], [0, 1]])
    for part, layers in (("hindwing", hind), ("forewing", fore)):
        for side, matrix in (("left", left), ("right", right)):
            for outline, colour in layers:
                body.add(part, outline @ matrix, colour, volume=part + side)
    slim = between(rng, 0.045, 0.075)
    long = between(rng, 0.35, 0.55)
    for outline, colour in _antennae(rng, (0.03, -0.27), hair):
        body.add("antenna", outline, colour)
        body.add("antenna", outline * _MIRROR, colour)
    body.limb("abdomen", [(0, -0.02), (0, long * 0.5), (0, long)],
        [slim * 1.7, slim * 1.9, slim * 0.9], hair)  # fmt: skip
    body.ellipse("thorax", (0, -0.1), (slim * 1.25, 0.15), mix(hair, coat.belly, 0.25), grain=0.6)
    body.ellipse("head", (0, -0.26), (slim * 1.1, slim), hair)
    for x in (-slim, slim):
        body.ellipse("eye", (x * 0.85, -0.28), (0.03, 0.035), BLACK, gloss=0.9)
    return body


def _wings(rng: np.random.Generator, coat: Coat) -> tuple[Layers, Layers]:
    """The right forewing and hindwing, spread: x outwards, y backwards."""
    reach, lift = between(rng, 0.8, 1.05), between(rng, 0.3, 0.75)
    broad, dent = between(rng, -0.06, 0.12), between(rng, -0.1, 0.06)
    fore = [(0.03, -0.14), (reach * 0.45, -0.2 - lift * 0.62), (reach * 0.86, -0.12 - lift),
        (reach, -0.1 - lift * 0.8), (reach * 0.9 + dent, -0.14 - lift * 0.2),
        (reach * 0.82, broad), (reach * 0.45, broad * 0.8), (0.04, 0.06)]  # fmt: skip
    out, back, tail = between(rng, 0.6, 0.85), between(rng, 0.5, 0.85), rng.random()
    tail = between(rng, 0.15, 0.4) if tail < 0.3 else 0.0
    hind = [(0.03, -0.02), (out * 0.55, -0.06), (out, 0.1), (out * 0.98, back * 0.5),
        (out * 0.72, back * 0.85), (out * 0.55 + tail * 0.2, back * 0.98 + tail),
        (out * 0.34, back * 0.95), (0.1, back * 0.6)]  # fmt: skip
    scallop, lobes = between(rng, 0, 0.035), int(rng.integers(14, 22))
    sweep = between(rng, -0.25, 0.1)
    # one design for both pairs, as on most butterflies
    edge = (coat.mark, mix(coat.mark, coat.base, 0.3), mix(coat.shade, BLACK, 0.6),
        coat.accent)[rng.integers(4)]  # fmt: skip
    field = (coat.base, mix(coat.base, WHITE, 0.15))[rng.integers(2)]
    border = between(rng, 0.78, 0.93)
    veined, banded, based, dotted, eyed = (rng.random(5) < (0.5, 0.45, 0.3, 0.6, 0.55)).tolist()
    second = (coat.mark, coat.accent, coat.belly)[rng.integers(3)]
    band = between(rng, 0.5, 0.62)
    spot_hind = rng.random() < 0.7
    pairs = []
    for points, is_fore in ((fore, True), (hind, False)):
        wing = curve(points, closed=True, steps=6)
        angle = np.arctan2(wing[:, 1], wing[:, 0])
        wing *= (1 - scallop + scallop * np.cos(lobes * angle))[:, None]
        wing = rotate(wing, sweep if is_fore else -sweep * 0.6)
        root = np.array([0.05, -0.05 if is_fore else 0.05])
        rays = wing - root
        layers = [(wing, edge), (root + rays * border, field)]
        margin = rays[12:32] if is_fore else rays[9:36]  # the outer edge
        if based and not (banded and eyed):
            layers.append((root + rays * 0.38, second))
        if banded:
            layers.append((root + np.concatenate([margin * band, margin[::-1] * (band + 0.14)]),
                second))  # fmt: skip
        if veined:
            layers.append((_veins(root, margin * (border + 0.02), 5), mix(field, edge, 0.75)))
        count = len(margin)
        if dotted:
            for i in (0.25, 0.6) if eyed else (0.2, 0.45, 0.7, 0.9)[: 3 + is_fore]:
                x, y = root + margin[int(count * i)] * (border + 1) * 0.49
                layers.append((_disc(x, y, 0.032), mix(second if second is not edge else field,
                    WHITE, 0.5)))  # fmt: skip
        if eyed and (is_fore != spot_hind or rng.random() < 0.5):
            x, y = root + margin[int(count * (0.35 if is_fore else 0.5))] * between(rng, 0.58, 0.7)
            r = between(rng, 0.09, 0.14)
            layers += [(_disc(x, y, r), mix(edge, BLACK, 0.3)),
                (_disc(x, y, r * 0.75), mix(second, WHITE, 0.45)),
                (_disc(x, y, r * 0.42), mix(coat.shade, BLACK, 0.75))]  # fmt: skip
        pairs.append(layers)
    return pairs[0], pairs[1]


_RING = np.stack([np.cos(np.arange(14) * (2 * pi / 14)), np.sin(np.arange(14) * (2 * pi / 14))], 1)


def _disc(x: float, y: float, r: float) -> np.ndarray:
    return _RING * r + (x, y)


def _veins(root: np.ndarray, margin: np.ndarray, count: int) -> np.ndarray:
    """A fan of thin rays from the root, as one outline."""
    tips = margin[np.linspace(0, len(margin) - 1, count).astype(int)]
    across = np.stack([-tips[:, 1], tips[:, 0]], 1)
    across *= (0.008 / np.hypot(tips[:, 0], tips[:, 1]))[:, None]
    start = tips * 0.12
    return root + np.stack([start - across, tips - across, tips + across, start + across],
        1).reshape(-1, 2)  # fmt: skip


def _antennae(rng: np.random.Generator, foot: tuple[float, float], colour: np.ndarray) -> Layers:
    """One antenna pointing along -y, with its club."""
    x, y = foot
    spread, long = between(rng, 0.12, 0.34), between(rng, 0.24, 0.38)
    tip = (x + spread, y - long)
    return [
        (stick([foot, (x + spread * 0.35, y - long * 0.6), tip], (0.024, 0.02, 0.022)), colour),
        (_disc(*tip, 0.035), colour),
    ]


def _folded(
    body: Body, rng: np.random.Generator, fore: Layers, hind: Layers, hair: np.ndarray
) -> None:
    """At rest: both wings of a side stand over the back, head towards +x."""
    up = np.array([[0.0, -1.0], [-1.0, 0.0]])  # outwards -> upwards, backwards -> to the left
    angle = between(rng, -0.5, 0.1)
    cut = 0.75 * hair
    for x in (-0.08, 0.12, 0.26):
        for far in (0.06, 0.0):
            body.add("leg", stick([(x + far, 0.05), (x + 0.06 + far, 0.16),
                (x - 0.02 + far, 0.3)], (0.03, 0.03, 0.02)), cut if far else hair)  # fmt: skip
    pairs = (("forewing", fore), ("hindwing", hind))
    for part, layers in pairs:  # the far side, a little further open
        far = rotate(layers[0][0] @ up, angle + between(rng, 0.04, 0.22)) + (0.1, 0)
        body.add(part, far, mix(layers[1][1], BLACK, 0.4))
    c, s = cos(angle), sin(angle)
    matrix = up @ np.array([[c, s], [-s, c]])
    for part, layers in pairs:
        for outline, colour in layers:
            body.add(part, outline @ matrix, colour, volume=part)
    body.limb("abdomen", [(0, 0.03), (-0.2, 0.08), (-0.45, 0.14)], [0.13, 0.15, 0.05], hair)
    body.ellipse("thorax", (0.12, 0.0), (0.17, 0.1), hair, angle=-0.2, grain=0.6)
    body.ellipse("head", (0.31, -0.04), (0.085, 0.08), hair)
    body.ellipse("eye", (0.34, -0.05), (0.04, 0.045), BLACK, gloss=0.9)
    for outline, colour in _antennae(rng, (0, 0), hair):
        for turn in (0.75, 1.05):
            body.add("antenna", rotate(outline, turn) + (0.35, -0.1), colour)


# ----------------------------------------------------------------------------------------- beetle


def beetle(rng: np.random.Generator, coat: Coat) -> Body:
    """Seen from above with the head at -y; or walking in profile."""
    dark = mix(coat.shade, BLACK, 0.55)
    tints = (dark, mix(coat.shade, BLACK, 0.25), coat.mark * 0.8, coat.accent * 0.8)
    limbs = tints[rng.integers(4)]
    shield = (coat.base, coat.mark, dark, coat.base, coat.accent)[rng.integers(5)]
    if rng.random() < 0.25:
        return _beetle_in_profile(rng, coat, limbs, shield)
    body = Body(stance="flat", faces=0, gloss=between(rng, 0.4, 1.0), grain=0.05)
    wide, long = between(rng, 0.3, 0.5), between(rng, 0.72, 1.0)
    opened = between(rng, 0.3, 0.9) if rng.random() < 0.18 else 0.0
    neck = -0.2
    chest, head_wide = wide * between(rng, 0.72, 0.98), wide * between(rng, 0.36, 0.62)
    front = neck - between(rng, 0.2, 0.34)
    _legs(body, rng, wide, neck, long, limbs)

    feeler, foot = between(rng, 0.25, 0.75), (head_wide * 0.55, front - 0.06)
    elbow = (foot[0] + feeler * 0.45, foot[1] - feeler * 0.35)
    back = 0.25 if feeler > 0.55 else 0  # long ones sweep backwards
    tip = (
        foot[0] + feeler * between(rng, 0.5, 0.95),
        foot[1] - feeler * between(rng, 0.2, 0.8) + back,
    )
    club = 0.03 if feeler > 0.5 else 0.07
    antenna = stick(curve([foot, elbow, tip], steps=3).tolist(),
        (0.04, 0.04, 0.035, 0.035, 0.03, club, club * 0.8))  # fmt: skip
    for sign in (1, -1):
        body.add("antenna", antenna * (sign, 1), limbs)
    jaws = rng.random()
    if jaws < 0.3:  # jaws like a stag's
        size = between(rng, 0.14, 0.36)
        x, y = head_wide * 0.5, front - 0.05
        bow = [(x, y), (x + 0.07 + size * 0.3, y - size * 0.4),
            (x + size * 0.25, y - size * 0.85), (x * 0.55, y - size * 1.05)]  # fmt: skip
        jaw = stick(curve(bow, steps=3).tolist(), (0.1, 0.1, 0.1, 0.1, 0.09, 0.08, 0.07, 0.06,
            0.045, 0.02))  # fmt: skip
        for sign in (1, -1):
            body.add("horn", jaw * (sign, 1), mix(shield, limbs, 0.5))
    body.ellipse("head", (0, front - 0.03), (head_wide, 0.15), mix(shield, limbs, 0.5))
    for sign in (1, -1):
        body.ellipse("eye", (sign * head_wide * 0.85, front - 0.07), (0.05, 0.055), BLACK, gloss=1)
    if 0.3 < jaws < 0.5:  # one forked horn
        size = between(rng, 0.2, 0.4)
        body.polygon("horn", [(-0.06, front), (-0.04, front - size * 0.75),
            (-0.13, front - size), (0, front - size * 0.88), (0.13, front - size),
            (0.04, front - size * 0.75), (0.06, front)], mix(shield, limbs, 0.3))  # fmt: skip

    # the soft abdomen and the flying wings show when the cases are raised
    if opened:
        body.limb("abdomen", [(0, neck), (0, neck + long * 0.5), (0, neck + long * 0.93)],
            [wide * 1.4, wide * 1.6, wide * 0.5], limbs, gloss=0.2)  # fmt: skip
        for k in (0.45, 0.62, 0.79):
            body.ellipse("abdomen", (0, neck + long * k), (wide * (0.95 - 0.5 * k), 0.014),
                mix(limbs, WHITE, 0.25), gloss=0)  # fmt: skip
        wing = curve([(0, neck + 0.05), (0.35, neck + 0.1), (0.62, neck + long * 0.6),
            (0.5, neck + long * 1.1), (0.25, neck + long * 0.8)], closed=True)  # fmt: skip
        wing = rotate(wing, 0.35 - 0.35 * opened)
        veil = mix(coat.belly, np.array([0.8, 0.82, 0.82]), 0.7)
        for sign in (1, -1):
            body.add("hindwing", wing * (sign, 1), veil, gloss=0.4)
            body.add("hindwing", (_veins(wing[0], wing[8:22] - wing[0], 4)) * (sign, 1),
                veil * 0.7, volume=f"#veil{sign}")  # fmt: skip
    point = between(rng, 0.2, 0.55)
    flank = curve([(0, neck), (wide * 0.72, neck + 0.02), (wide * 0.98, neck + long * 0.2),
        (wide, neck + long * 0.48), (wide * (0.95 - point * 0.35), neck + long * 0.76),
        (wide * 0.42 * (1.1 - point), neck + long * 0.95), (0, neck + long)], steps=5)  # fmt: skip
    layers = _case(rng, coat, flank)
    for sign in (1, -1):
        for outline, colour in layers:
            case = outline * (sign, 1)
            if opened:
                case = rotate(case, -sign * opened, (0, neck))
            body.add("wing case", case, colour, volume=f"case{sign}")
    body.blob("pronotum", [(-chest * 0.9, neck + 0.03), (-chest, neck - 0.1),
        (-chest * 0.62, front), (0, front + 0.015), (chest * 0.62, front), (chest, neck - 0.1),
        (chest * 0.9, neck + 0.03), (0, neck + 0.06)], shield, volume="shield")  # fmt: skip
    if rng.random() < 0.3:
        mark = mix(coat.mark if shield is not coat.mark else coat.base, WHITE, 0.1)
        for sign in (1, -1):
            body.ellipse("pronotum", (sign * chest * 0.62, (neck + front) / 2 - 0.01),
                (chest * 0.16, 0.06), mark, volume="shield")  # fmt: skip
    if not opened:
        seam = [(-0.012, neck + 0.1), (0.012, neck + 0.1), (0.012, neck + long * 0.97),
            (-0.012, neck + long * 0.97)]  # fmt: skip
        body.polygon("wing case", seam, coat.base * 0.4, gloss=0)
        body.polygon("pronotum", [(-0.06, neck + 0.05), (0.06, neck + 0.05), (0, neck + 0.14)],
            mix(shield, BLACK, 0.2))  # fmt: skip
    return body


def _case(rng: np.random.Generator, coat: Coat, flank: np.ndarray) -> Layers:
    """One wing case (x >= 0) and its design; `flank` is its outer edge, from front to back."""
    layers = [(flank, coat.base)]
    count = len(flank)

    def place(u: float, v: float) -> tuple[float, float]:
        x, y = flank[int(v * (count - 1))].tolist()
        return x * u, y

    style, accent = rng.integers(6), coat.mark if rng.random() < 0.7 else coat.accent
    if style <= 1:  # spots, in one to three rows
        r = between(rng, 0.05, 0.1)
        spots = [(0.5, 0.3), (0.55, 0.55), (0.5, 0.76), (0.72, 0.43), (0.25, 0.42), (0.25, 0.66)]
        for u, v in spots[: int(rng.integers(2, 7))]:
            x, y = place(u, v)
            small = min(r, x / u * 0.28)  # stays on the case where this narrows
            layers.append((_RING * (small * 0.9, small) + (x, y), accent))
    elif style == 2:  # stripes along the body
        for u in (0.3, 0.68) if rng.random() < 0.6 else (0.5,):
            line, half = flank[5:-3], between(rng, 0.05, 0.1)
            layers.append((np.concatenate([line * (u + half, 1), line[::-1] * (u - half, 1)]),
                accent))  # fmt: skip
    elif style == 3:  # bands across
        for v in ((0.3, 0.42), (0.62, 0.76)) if rng.random() < 0.6 else ((0.4, 0.62),):
            low, high = (int(k * (count - 1)) for k in v)
            edge = flank[low : high + 1]
            layers.append((np.concatenate([edge, [(0, edge[-1, 1] - 0.02)],
                [(0, edge[0, 1] + 0.02)]]), accent))  # fmt: skip
    elif style == 4:  # a hem
        centre = flank.mean(0) * (0, 1)
        layers[0] = (flank, accent)
        layers.append((centre + (flank - centre) * (0.78, 0.88), coat.base))
    if style == 5 or rng.random() < 0.3:  # fine grooves
        for u in (0.25, 0.5, 0.75):
            line = flank[4:-2]
            layers.append((np.concatenate([line * (u + 0.012, 1), line[::-1] * (u - 0.012, 1)]),
                coat.base * 0.6))  # fmt: skip
    return layers


def _legs(
    body: Body, rng: np.random.Generator, wide: float, neck: float, long: float, colour: np.ndarray
) -> None:
    """Three pairs, walking: thigh, shin and foot; the two sides out of step."""
    reach, thick = between(rng, 0.7, 1.1), between(rng, 0.06, 0.09)
    step = between(rng, -0.25, 0.25)
    for hip, ahead, size in ((neck - 0.12, -0.75, 0.85), (neck + long * 0.2, 0.12, 0.95),
        (neck + long * 0.42, 0.75, 1.15)):  # fmt: skip
        x, r = wide * 0.6, reach * size
        knee = (x + 0.3 * r, hip + 0.22 * ahead * r)
        ankle = (knee[0] + 0.16 * r, knee[1] + (0.3 * ahead + 0.08) * r)
        toe = (ankle[0] + 0.1 * r, ankle[1] + 0.2 * ahead * r)
        leg = stick([(x, hip), knee, ankle, toe], (thick, thick * 1.2, thick * 0.7, thick * 0.4))
        body.add("leg", leg @ np.array([[1, step], [0, 1]]) - (0, x * step), colour)
        body.add("leg", leg @ np.array([[-1, -step], [0, 1]]) + (0, x * step), colour)
        step = -step


def _beetle_in_profile(
    rng: np.random.Generator, coat: Coat, limbs: np.ndarray, shield: np.ndarray
) -> Body:
    body = Body(stance="stand", faces=1, gloss=between(rng, 0.4, 1.0), grain=0.05)
    dome, tail = between(rng, 0.38, 0.68), between(rng, -0.85, -0.7)
    stride = between(rng, -0.08, 0.08)
    thick = between(rng, 0.06, 0.09)
    for x, lean, far in ((-0.3, -0.22, 1), (0.1, 0.0, 1), (0.45, 0.2, 1), (-0.35, -0.22, 0),
        (0.05, 0.02, 0), (0.4, 0.2, 0)):  # fmt: skip
        lean += stride * (1 if far else -1)
        spine = [(x, 0.05), (x + lean * 0.8, 0.1 + 0.02 * far),
            (x + lean * 1.2, 0.3 - 0.03 * far),
            (x + lean * 1.2 + 0.1, 0.36 - 0.04 * far)]  # fmt: skip
        body.add("leg", stick(spine, (thick, thick * 1.3, thick * 0.8, thick * 0.5)),
            limbs * (0.65 if far else 1))  # fmt: skip
    nod = between(rng, -0.08, 0.08)
    head = (0.78, -0.08 + nod)
    long = between(rng, 0.25, 0.55)
    for up in (0.1, 0.0):
        body.add("antenna", stick([(head[0] + 0.06, head[1] - 0.06),
            (head[0] + long * 0.5, head[1] - 0.2 - up), (head[0] + long,
            head[1] - 0.12 - up * 2)], (0.04, 0.035, 0.04)), limbs)  # fmt: skip
    body.blob("abdomen", [(tail + 0.05, -0.05), (0, -0.1), (0.6, -0.08), (0.6, 0.08), (0, 0.14),
        (tail + 0.25, 0.1)], limbs)  # fmt: skip
    body.ellipse("head", head, (0.15, 0.15), mix(shield, limbs, 0.5))
    horned = rng.random() < 0.5
    if horned:
        size = between(rng, 0.25, 0.45)
        body.limb("horn", [(head[0] + 0.05, head[1] - 0.05),
            (head[0] + 0.25, head[1] - 0.08 - size * 0.3),
            (head[0] + 0.22, head[1] - 0.1 - size)], [0.13, 0.09, 0.02],
            mix(shield, limbs, 0.4))  # fmt: skip
    body.ellipse("eye", (head[0] + 0.05, head[1] - 0.03), (0.04, 0.045), BLACK, gloss=1)
    top = [(0.36, -dome * 0.78), (0.1, -dome), (-0.3, -dome * 0.95), (-0.6, -dome * 0.68),
        (tail + 0.04, -dome * 0.3), (tail + 0.01, -0.03), (tail + 0.12, 0.05)]  # fmt: skip
    back = curve(top, steps=5)
    case = np.concatenate([back, [(-0.2, 0.04), (0.36, 0.02)]])
    body.add("wing case", case, coat.base, volume="case")
    accent = coat.mark if rng.random() < 0.7 else coat.accent
    style = rng.integers(4)
    if style == 0:
        r = between(rng, 0.07, 0.11)
        for x, y in ((0.18, 0.62), (-0.15, 0.35), (-0.3, 0.7), (0.1, 0.25),
            (-0.52, 0.3))[: int(rng.integers(2, 6))]:  # fmt: skip
            body.add("wing case", _RING * r + (x, -dome * y), accent, volume="case")
    elif style == 1:
        for k in (0.35, 0.65):
            line = back[2:-3]
            body.add("wing case", np.concatenate([line * (1, k), line[::-1] * (1, k + 0.14)]),
                accent, volume="case")  # fmt: skip
    elif style == 2:
        for x in (-0.05, -0.45):
            body.polygon("wing case", [(x, 0.03), (x + 0.16, 0.03), (x + 0.2, -dome * 0.98),
                (x + 0.02, -dome * 0.92)], accent, on="wing case")  # fmt: skip
    body.blob("pronotum", [(0.33, 0.06), (0.31, -dome * 0.5), (0.36, -dome * 0.84),
        (0.56, -dome * 0.66), (0.74, -0.12), (0.7, 0.06)], shield)  # fmt: skip
    if horned and rng.random() < 0.5:
        body.limb("horn", [(0.5, -dome * 0.6), (0.72, -dome * 0.85), (0.95, -dome * 0.8)],
            [0.14, 0.09, 0.02], shield)  # fmt: skip
    return body
