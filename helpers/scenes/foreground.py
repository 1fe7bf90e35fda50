"""What stands in front of the object: strokes along the lower edge and sides of the frame that hide
a little of it, in unit image coordinates.

Shapes are complex numbers, x + iy, so that turning, stretching and moving many of them is one
product.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence

import numpy as np

from helpers.scenes.painter import RGB, WHITE, Painter, box, circle, hsv, mix

_T = np.linspace(0, 1, 9)
_ALONG = np.concatenate([_T, _T[-2:0:-1]])
_SIDE = np.concatenate([np.sin(np.pi * _T**0.8), -np.sin(np.pi * _T[-2:0:-1] ** 0.8)])
LEAF = _ALONG + 0.24j * _SIDE  # from its foot at 0 to its tip at 1
_HALF_LEAF = _T + 0.24j * np.sin(np.pi * _T**0.8)
BLADE = _ALONG + 0.045j * np.where(_SIDE >= 0, 1, -1) * (1 - _ALONG) ** 0.7
WEED = _ALONG + 0.08j * _SIDE * (1 + 0.3 * np.sin(_ALONG * 25))
_PUFF = np.exp(1j * np.arange(20) * (np.pi / 10)) * 0.5
_STONES = tuple(np.array([
    [-0.5, -0.47-0.18j, -0.3-0.38j, -0.02-0.45j, 0.26-0.36j, 0.42-0.22j, 0.5+0.2j, -0.5+0.2j],
    [-0.5, -0.4-0.3j, -0.22-0.55j, 0.05-0.62j, 0.2-0.5j, 0.46-0.16j, 0.5+0.2j, -0.5+0.2j],
    [-0.5, -0.45-0.12j, -0.2-0.24j, 0.12-0.3j, 0.33-0.27j, 0.47-0.1j, 0.5+0.2j, -0.5+0.2j],
]))  # fmt: skip


def _place(shape: np.ndarray, copies: Sequence[Sequence[float]]) -> np.ndarray:
    """Copies of a shape (n,), one per (x, y, length, angle, bend): outlines (k, n, 2)."""
    x, y, length, angle, bend = np.array(copies).T[:, :, None]
    bent = shape + 1j * bend * shape.real**2
    out = bent * (length * np.exp(1j * angle)) + (x + 1j * y)
    return out.view(np.float64).reshape(*out.shape, 2)


def blades(
    p: Painter, colour: RGB, shape=BLADE, low: float = 0.12, high: float = 0.3, count: int = 12
) -> None:
    """Grass, leaves or sea weed growing from the lower edge."""
    centre, spread = p.u(), p.u(0.15, 0.5)
    copies = [
        (centre + spread * p.u(-1, 1), 1.02, p.u(low, high), p.u(-2.07, -1.07), p.u(-0.35, 0.35))
        for _ in range(count)
    ]
    for i, outline in enumerate(_place(shape, copies)):
        p.front.add("", outline, p.lit(colour, 0.7 + 0.5 * (i * 7 % count) / count))


def leaves(p: Painter, colour: RGB, count: int = 5) -> None:
    """Big leaves reaching in from one or both lower sides, one half of each in the light."""
    copies = []
    both, home = p.chance(0.4), p.chance(0.5)
    for i in range(count):
        left = i % 2 == 0 if both else home
        x, y = (p.u(-0.05, 0.2), 1.04) if p.chance(0.5) else (-0.05, p.u(0.6, 1.0))
        aim, length, bend = p.u(-1.3, 0.1), p.u(0.22, 0.42), p.u(-0.2, 0.2)
        copies.append((x, y, length, aim, bend) if left else (1 - x, y, length, np.pi - aim, bend))
    halves = zip(_place(LEAF, copies), _place(_HALF_LEAF, copies), strict=True)
    for i, (whole, half) in enumerate(halves):
        value = 0.62 + 0.4 * (i + 1) / count
        p.front.add("", whole, p.lit(colour, value), volume=f"leaf {i}", grain=0.1)
        p.front.add("", half, p.lit(colour, value * 1.22), volume=f"leaf {i}", grain=0.1)


def rocks(p: Painter, colour: RGB, cap: RGB | None = None) -> None:
    """Boulders in a lower corner, with snow on them if there is a `cap`."""
    corner = p.u(0, 0.25) if p.chance(0.5) else p.u(0.75, 1)
    copies = [(corner + p.u(-0.2, 0.2), 1.0, p.u(0.16, 0.34), 0, 0) for _ in range(3)]
    shape = p.pick(_STONES)
    for outline in _place(shape, copies):
        p.front.add("", outline, p.lit(colour, p.u(0.75, 1.1)), grain=0.8)
        if cap:
            thick = (0, 0.13 * np.ptp(outline[:, 0]))
            top = np.concatenate([outline[1:6], outline[5:0:-1] + thick])
            p.front.add("", top, p.lit(cap), grain=0.2)


def mound(p: Painter, colour: RGB) -> None:
    """A low swell of ground along the lower edge."""
    tall, phase, waves = p.u(0.05, 0.13), p.u(0, 6), p.u(3, 6)
    x = np.linspace(-0.05, 1.05, 14)
    y = 1 - tall * (0.55 + 0.45 * np.sin(x * waves + phase))
    outline = np.concatenate([np.stack([x, y], 1), [(1.05, 1.06), (-0.05, 1.06)]])
    p.front.add("", outline, p.lit(colour, 1.02), grain=0.3)


def puffs(p: Painter, colour: RGB) -> None:
    """A bank of cloud drifting along the lower edge."""
    centre, wide = p.u(), p.u(0.15, 0.4)
    copies = [
        (centre + wide * p.u(-1, 1), p.u(0.98, 1.06), p.u(0.15, 0.28), 0, 0) for _ in range(8)
    ]
    for outline in _place(_PUFF, copies):
        p.front.add("", outline, np.array(colour), volume="cloud", grain=0.05)


def twig(p: Painter, bark: RGB, leaf: RGB) -> None:
    """A leafy branch reaching in from a side."""
    left, y, lean, reach = p.chance(0.5), p.u(0.05, 0.9), p.u(-0.35, 0.25), p.u(0.3, 0.5)
    t = np.linspace(0, 1, 6)
    spine = np.stack([reach * t - 0.03, y + lean * reach * t * t], 1)
    half = np.outer(0.016 * (1 - 0.75 * t), (0, 1))
    outlines = [np.concatenate([spine - half, (spine + half)[::-1]])]
    copies = []
    for i in range(9):
        s = 0.25 + 0.75 * i / 8
        aim = (1 if i % 2 else -1) * p.u(0.4, 1.1)
        copies.append((reach * s - 0.03, y + lean * reach * s * s, p.u(0.09, 0.15), aim, 0))
    outlines.extend(_place(LEAF, copies))
    for i, outline in enumerate(outlines):
        if not left:
            outline = outline * (-1, 1) + (1, 0)
        colour = p.lit(leaf, 0.75 + 0.4 * (i * 5 % 9) / 9) if i else p.lit(bark)
        p.front.add("", outline, colour)


def drape(p: Painter, colour: RGB) -> None:
    """A curtain's edge hanging down one side."""
    left, wide, phase = p.chance(0.5), p.u(0.07, 0.14), p.u(0, 6)
    y = np.linspace(-0.03, 1.05, 10)
    for i in range(4):
        x = wide * (1 - i / 4) + 0.012 * np.sin(y * 5 + phase + i)
        outline = np.concatenate([np.stack([x, y], 1), [(-0.05, 1.05), (-0.05, -0.03)]])
        if not left:
            outline = outline * (-1, 1) + (1, 0)
        p.front.add("", outline, p.lit(colour, 0.7 + 0.35 * (i % 2)), grain=0.2)


def cones(p: Painter) -> None:
    """One or two traffic cones."""
    body = p.lit(hsv(p.pick((0.03, 0.06, 0.14, 0.6)), 0.85, 0.95))
    stripe = p.lit((0.95, 0.94, 0.92))
    bands = (0.0, body), (0.3, stripe), (0.48, body), (0.7, stripe), (0.8, body), (1.0, body)
    for i in range(1 + int(p.chance(0.4))):
        x = p.u(0.04, 0.24) if p.chance(0.5) else p.u(0.76, 0.96)
        y, tall = p.u(0.92, 1.02), p.u(0.2, 0.32)
        foot = box(x - tall * 0.36, y - tall * 0.06, x + tall * 0.36, y + 0.01)
        p.front.add("", foot, body * 0.8)
        for (low, colour), (high, _) in zip(bands, bands[1:], strict=False):
            a, b = tall * (0.26 - 0.21 * low), tall * (0.26 - 0.21 * high)
            y0, y1 = y - tall * (0.05 + 0.95 * low), y - tall * (0.05 + 0.95 * high)
            outline = np.array(((x - a, y0), (x - b, y1), (x + b, y1), (x + a, y0)))
            p.front.add("", outline, colour, volume=f"cone {i}")


def railing(p: Painter, colour: RGB) -> None:
    """Posts and a rail along all or half of the lower edge."""
    rail, step, wide = p.u(0.86, 0.93), p.u(0.13, 0.22), p.u(0.025, 0.045)
    start, stop = p.pick(((-0.05, 1.05), (-0.05, 1.05), (-0.05, 0.45), (0.55, 1.05)))
    for x in np.arange(start + p.u(0.03, step), stop, step):
        post = box(x - wide / 2, rail, x + wide / 2, 1.05)
        p.front.add("", post, p.lit(colour, 0.85))
    p.front.add("", box(start, rail - 0.03, stop, rail + 0.012), p.lit(colour, 1.1))


def corals(p: Painter, colour: RGB) -> None:
    """A branching coral in a lower corner."""
    left = p.chance(0.5)
    root, tilt = complex(p.u(0, 0.15), 1.03), p.u(0.1, 0.4) - np.pi / 2
    if not left:
        root, tilt = complex(1 - root.real, 1.03), -np.pi - tilt
    for i in range(4):
        wide = p.u(0.035, 0.05)
        branch = cmath.rect(p.u(0.14, 0.26), tilt + (i - 1.5) * p.u(0.3, 0.5))
        _finger(p, root, branch, wide, colour)
        for turn in (-0.7, 0.65):
            twig_ = branch * cmath.rect(0.5, turn)
            _finger(p, root + branch * 0.55, twig_, wide * 0.8, colour)


def _finger(p: Painter, start: complex, reach: complex, wide: float, colour: RGB) -> None:
    along = reach / abs(reach) * wide / 2
    side, end = along * 1j, start + reach
    shape = (start - side, end - side * 0.8, end + along * 0.6 - side * 0.5, end + along,
             end + along * 0.6 + side * 0.5, end + side * 0.8, start + side)  # fmt: skip
    outline = np.array([(z.real, z.imag) for z in shape])
    p.front.add("", outline, p.lit(colour), volume="coral", gloss=0.3)


def creepers(p: Painter, colour: RGB) -> None:
    """Lianas hanging from above."""
    t = np.linspace(-0.02, 1, 9)
    for _ in range(2 + int(p.chance(0.5))):
        x = p.u(0.02, 0.98) + p.u(0.01, 0.04) * np.sin(p.u(0, 6) + 4 * t)
        wide, y = p.u(0.008, 0.015), t * p.u(0.35, 1.05)
        sides = np.stack([x - wide, y], 1), np.stack([x + wide, y], 1)[::-1]
        p.front.add("", np.concatenate(sides), p.lit(colour, 0.8))


def footlights(p: Painter, glow: RGB) -> None:
    """A row of lamps along the edge of a stage."""
    for i in range(6):
        x = (i + 0.5) / 6
        p.front.add("", circle(x, 1.01, 0.055), p.lit((0.3, 0.28, 0.26)))
        p.front.add("", circle(x, 0.985, 0.028, 0.7), np.array(mix(glow, WHITE, 0.5)))


def cushion(p: Painter, colour: RGB) -> None:
    """The round back of an upholstered chair."""
    x, radius = p.u(0.1, 0.9), p.u(0.2, 0.3)
    p.front.add("", circle(x, 1.08, radius, 0.75), p.lit(colour), grain=0.5)


def one_of(p: Painter, *choices: tuple, probability: float = 0.5) -> None:
    """With some probability, put one of the choices (function, arguments...) in front."""
    if p.chance(probability):
        draw, *arguments = p.pick(choices)
        draw(p, *arguments)


__all__ = [
    "BLADE", "LEAF", "WEED", "blades", "cones", "corals", "creepers", "cushion", "drape",
    "footlights", "leaves", "mound", "one_of", "puffs", "railing", "rocks", "twig",
]  # fmt: skip
