"""Dogs. A retriever has hanging ears, a broad head, a level back and long feathers on chest and
tail; a shepherd has pricked ears, a long masked muzzle, a contrasting saddle and a sloping back."""

from __future__ import annotations

import math

import numpy as np

from helpers.scenes.anatomy import BLACK, Body, Coat, curve, mix
from helpers.scenes.bodies.mammal import Dice, Pose, four_legged, legs, place, shaggy, tubes

PARTS = ("torso", "neck", "head", "muzzle", "nose", "eye", "ear", "leg", "tail")

_POSES = ("stand", "walk", "walk", "sit", "sit", "lie", "leap", "bow")


def retriever(rng: np.random.Generator, coat: Coat) -> Body:
    return _dog(rng, coat, shepherd=False)


def shepherd(rng: np.random.Generator, coat: Coat) -> Body:
    return _dog(rng, coat, shepherd=True)


def _dog(rng: np.random.Generator, coat: Coat, shepherd: bool) -> Body:
    body, dice = Body(stance="stand", grain=0.45), Dice(rng)
    height, length = dice(0.72, 0.9), dice(0.78, 0.94)
    thick, deep = dice(0.105, 0.135), dice(0.9, 1.15)
    pose = four_legged(dice, _POSES, height, length)
    if shepherd and pose.name in ("stand", "walk"):  # the croup falls away
        pose.hip = (pose.hip[0], pose.hip[1] + dice(0.08, 0.15))
    under = (coat.belly, coat.belly, coat.belly, coat.base, coat.mark)[int(dice(0, 5))]
    angle = dice(0.55, 1.1) + 0.45 * max(pose.pitch, 0)
    if pose.name in ("stand", "walk") and dice() < 0.2:  # sniffs the ground
        angle = dice(-0.5, 0.0)
    throat, reach = pose.along(1.0, -0.06), dice(0.36, 0.46)
    ux, uy = math.cos(angle), -math.sin(angle)
    head = (throat[0] + reach * ux, throat[1] + reach * uy)
    spines, widths = legs(pose, height, thick)
    spines.append(_tail(dice, pose, shepherd))
    widths.append([0.12, 0.15, 0.18, 0.15, 0.05] if shepherd else [0.1, 0.14, 0.2, 0.22, 0.05])
    bulk = 1.0 if shepherd else 1.12
    spines.append([pose.along(0.9, 0.04), pose.along(0.97, 0.02), throat,
                   (throat[0] + 0.5 * reach * ux + 0.02, throat[1] + 0.5 * reach * uy),
                   head])  # fmt: skip
    widths.append([0.4, 0.44 * bulk, 0.44 * bulk, 0.37 * bulk, 0.34])
    far_hind, far_fore, near_hind, near_fore, tail, neck = tubes(spines, widths)

    body.add("leg", far_hind, coat.shade)
    body.add("leg", far_fore, coat.shade)
    body.add("tail", shaggy(tail, 0.015) if shepherd else shaggy(tail, 0.03, 0.04), coat.base)
    if shepherd and dice() < 0.5:
        body.ellipse("tail", spines[4][4], (0.2, 0.2), coat.mark, on="tail")
    chest = 0.26 * deep
    outline = [
        (-0.22, -0.02), (-0.12, -0.17), (0.2, -0.19), (0.6, -0.18), (0.98, -0.24), (1.2, -0.1),
        (1.24, 0.12), (1.0, chest + 0.03), (0.62, chest), (0.25, 0.12), (-0.05, 0.16), (-0.2, 0.1),
    ]  # fmt: skip
    torso = curve([pose.along(t, d) for t, d in outline], closed=True)
    body.add("torso", torso if shepherd else shaggy(torso, 0.02, 0.012), coat.base, volume="body")
    body.add("neck", shaggy(neck, 0.012), coat.base, volume="body")
    if not shepherd:  # the chest's long feathers
        bib = ((1.2, -0.1), (1.27, 0.1), (1.08, 0.32), (0.9, 0.18))
        bib = curve([pose.along(t, d) for t, d in bib], closed=True)
        body.add("torso", shaggy(bib, 0.02, 0.03), under, volume="body")
    body.add("leg", near_hind, coat.base, volume="hind" if pose.folded else "body")
    body.add("leg", near_fore, coat.base, volume="body")
    if shepherd:
        drop = dice(-0.06, 0.06)
        saddle = [(-0.25, -0.3), (0.5, -0.4), (1.15, -0.5), (1.2, -0.05 + drop), (0.85, 0.1 + drop),
                  (0.45, -0.02 + drop), (0.1, 0.06 + drop), (-0.22, -0.02)]  # fmt: skip
        saddle = [pose.along(t, d) for t, d in saddle]
        body.blob("torso", saddle, coat.mark, on=("torso", "neck", "leg"))
    if dice() < 0.25:  # a collar
        x, y = 0.45 * throat[0] + 0.55 * head[0], 0.45 * throat[1] + 0.55 * head[1]
        corners = ((-0.04, -0.3), (0.04, -0.3), (0.04, 0.3), (-0.04, 0.3))
        band = [(x + ux * a - uy * c, y + uy * a + ux * c) for a, c in corners]
        body.polygon("neck", band, coat.accent, on="neck")
    first = len(body.strokes)
    if dice() < 0.3:
        _front_head(body, dice, coat, shepherd)
        place(body, first, head, dice(0.22, 0.27), dice(-0.25, 0.25))
    else:
        _side_head(body, dice, coat, shepherd)
        nod = dice(-0.25, 0.3) + (0.4 if angle < 0 else 0.0)
        place(body, first, head, dice(0.22, 0.27), nod)
    return body


def _tail(dice: Dice, pose: Pose, shepherd: bool) -> list[tuple[float, float]]:
    """The retriever's is a plume carried level or high, the shepherd's a bushy sabre that hangs."""
    x, y = pose.along(-0.14, -0.06)
    if pose.folded:  # along the ground
        rise, curl = dice(-0.15, 0.3), dice(-0.2, 0.4)
    elif shepherd:
        rise, curl = dice(-1.3, -0.5), dice(0.05, 0.45)
    else:
        rise, curl = dice(-0.4, 0.7), dice(-0.1, 0.35)
    points = [(x, y)]
    for step in range(4):
        angle = rise + curl * step
        x, y = x - 0.18 * math.cos(angle), min(y - 0.18 * math.sin(angle), -0.05)
        points.append((x, y))
    return points


def _side_head(body: Body, dice: Dice, coat: Coat, shepherd: bool) -> None:
    """In profile, about the origin; the skull has radius 1."""
    long, gape = dice(2.15, 2.5) if shepherd else dice(1.75, 2.0), dice(-0.3, 0.4)
    deep = dice(0.5, 0.6) if shepherd else dice(0.68, 0.8)
    snout = coat.mark if shepherd else (coat.base if dice() < 0.5 else coat.belly)
    if shepherd:  # the far ear
        body.blob(
            "ear", [(-0.2, -0.6), (0.1, -1.3), (0.32, -1.85), (0.5, -1.2), (0.6, -0.5)], coat.shade
        )
    if gape > 0.1:
        jaw = [(0.4, 0.4), (long - 0.3, 0.45 + gape), (long - 0.35, 0.72 + gape), (0.9, 0.85)]
        body.blob("muzzle", jaw, snout * 0.8)
        tongue = [
            (0.8, 0.5),
            (long - 0.5, 0.45 + gape),
            (long - 0.2, 0.7 + gape),
            (long - 0.5, 0.85 + gape),
        ]
        body.blob("muzzle", tongue, _TONGUE, grain=0)
    body.ellipse("head", (0, 0), (1.0, 0.92 if shepherd else 1.0), coat.base, volume="head")
    body.blob(
        "muzzle",
        [(0.2, -0.4), (0.85, -0.42), (1.2, -0.24), (long, -0.2), (long + 0.12, 0.1),
         (long - 0.15, deep), (1.0, deep + 0.12), (0.3, 0.8), (0.1, 0.3)],
        snout, volume="head",
    )  # fmt: skip
    lip = [(long, deep * 0.55), (1.4, deep * 0.72), (0.85, deep * 0.5), (1.4, deep * 0.82)]
    body.polygon("muzzle", lip, BLACK, on="muzzle")
    body.ellipse("nose", (long + 0.05, -0.08), (0.24, 0.22), BLACK, gloss=0.8)
    if shepherd:
        body.ellipse("head", (0.5, -0.2), (0.42, 0.3), coat.mark, on="head")
    body.eye((0.5, -0.32), 0.16, _IRIS)
    if shepherd:
        tip = dice(-0.75, -0.35)
        body.blob("ear", [(-0.85, -0.3), (-0.85, -1.2), (tip, -2.15), (-0.12, -1.3), (0.15, -0.6),
                          (-0.3, -0.3)], coat.base)  # fmt: skip
        body.blob(
            "ear",
            [(-0.55, -0.7), (-0.55, -1.2), (tip + 0.06, -1.75), (-0.2, -1.1)],
            coat.shade * 0.7,
        )
    else:
        hang, sway = dice(0.85, 1.25), dice(-0.3, 0.15)
        ear = [(-0.75, -0.6), (-0.25, -0.78), (0.12, -0.35), (0.05 + sway, 0.5),
               (-0.2 + sway, hang), (-0.65 + sway, hang - 0.1), (-0.85, 0.2)]  # fmt: skip
        body.blob("ear", ear, mix(coat.base, coat.shade, 0.9))


def _front_head(body: Body, dice: Dice, coat: Coat, shepherd: bool) -> None:
    """Looking at us, about the origin."""
    turn, snout = dice(-0.1, 0.25), coat.mark if shepherd else coat.belly
    if shepherd:
        for side in (-1, 1):
            ear = np.array([(0.2, -0.6), (0.45, -1.4), (0.85, -2.1), (1.1, -1.3), (1.0, -0.3)]) * (
                side,
                1,
            )
            body.blob("ear", ear, coat.base)
            body.blob("ear", ear * 0.62 + (side * 0.27, -0.42), coat.shade * 0.7)
    wide = 0.95 if shepherd else 1.1
    body.blob("head", [(-wide, -0.2), (-0.6, -0.85), (0.6, -0.85), (wide, -0.2), (0.75, 0.55),
                       (0.3, 1.0),
                       (-0.3, 1.0), (-0.75, 0.55)], coat.base, volume="head")  # fmt: skip
    if not shepherd:
        for side in (-1, 1):
            ear = np.array(
                [(0.65, -0.85), (1.15, -0.65), (1.4, 0.3), (1.2, 0.95), (0.85, 0.7), (0.8, -0.1)]
            )
            body.blob("ear", ear * (side, 1), mix(coat.base, coat.shade, 0.9))
    else:
        body.blob("head", [(-0.75, -0.45), (0, -0.1), (0.75, -0.45), (0.8, 0.1), (0, 0.3),
                           (-0.8, 0.1)],
                  coat.mark, on="head")  # fmt: skip
    if dice() < 0.5:
        body.ellipse("muzzle", (turn, 1.15), (0.22, 0.42), _TONGUE, grain=0)
    broad = 0.44 if shepherd else 0.58
    face = [(-0.25, -0.1), (0.25, -0.1), (broad, 0.5), (broad * 0.7, 0.95), (-broad * 0.7, 0.95),
            (-broad, 0.5)]  # fmt: skip
    body.blob("muzzle", [(turn + x, y) for x, y in face], snout)
    lip = [(-0.36, 0.68), (-0.16, 0.76), (-0.04, 0.7), (-0.04, 0.5), (0.04, 0.5), (0.04, 0.7),
           (0.16, 0.76), (0.36, 0.68), (0.16, 0.85), (0.0, 0.79), (-0.16, 0.85)]  # fmt: skip
    body.polygon("muzzle", [(turn + x, y) for x, y in lip], BLACK, on="muzzle")
    body.ellipse("nose", (turn, 0.42), (0.26, 0.19), BLACK, gloss=0.8)
    for side in (-1, 1):
        body.eye((turn * 0.6 + side * 0.44, -0.18), 0.15, _IRIS)


_TONGUE, _IRIS = np.array([0.85, 0.42, 0.45]), np.array([0.16, 0.09, 0.05])
