"""A canvas for places: sky, ground in perspective, strips of scenery and props, all tinted by one
light and fading into one air.

Positions and heights are fractions of the frame, y down, and nothing random depends on `size`, so
that the same random generator paints the same place at any resolution. The canvas is uint8 and each
layer is one or two OpenCV calls, which is what makes a place cost a third of a millisecond.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np

from helpers.scenes.anatomy import Body
from helpers.scenes.props import PROP, props, strips
from helpers.scenes.textures import REPEATS, TILE, textures

RGB = tuple[float, float, float]  # in 0..1
Palette = tuple[RGB, ...]  # (hue, saturation, value) anchors, to be varied
Tint = RGB | tuple[RGB, ...]  # one colour, or two or three from shadow to light
Ramp = np.ndarray  # (256, 1, 3) uint8: the colour of every shade
Shape = Sequence[Sequence[float]] | np.ndarray  # (n, 2)

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_TURN = np.arange(20) * (2 * np.pi / 20)
_DISC = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)
# (256, 1, n) weights, 0..255, that stretch n colours, shadow first, over all shades
_SPREAD = {
    n: cv2.resize(np.eye(n, dtype=np.uint8) * 255, (n, 256), interpolation=cv2.INTER_LINEAR)[
        :, None
    ]
    for n in (2, 3)
}

# Times of day: top of the sky, its lower edge, and the light on everything below.
# fmt: off
_MOODS: tuple[tuple[RGB, RGB, RGB], ...] = (
    ((0.27, 0.53, 0.86), (0.78, 0.90, 0.97), (1.02, 1.00, 0.95)),  # noon
    ((0.36, 0.66, 0.88), (0.92, 0.95, 0.93), (1.06, 1.02, 0.92)),  # late morning
    ((0.55, 0.72, 0.86), (1.00, 0.88, 0.70), (1.08, 0.96, 0.80)),  # early morning
    ((0.44, 0.44, 0.68), (1.00, 0.66, 0.42), (1.02, 0.78, 0.66)),  # sunset
    ((0.28, 0.25, 0.46), (0.90, 0.56, 0.60), (0.80, 0.68, 0.82)),  # dusk
    ((0.64, 0.69, 0.74), (0.87, 0.88, 0.87), (0.92, 0.95, 0.98)),  # overcast
    ((0.36, 0.45, 0.52), (0.76, 0.80, 0.76), (0.80, 0.88, 0.86)),  # before rain
    ((0.08, 0.11, 0.27), (0.30, 0.40, 0.58), (0.48, 0.57, 0.82)),  # moonlight
    ((0.70, 0.76, 0.92), (0.99, 0.87, 0.86), (1.02, 0.95, 0.97)),  # pale spring
    ((0.93, 0.74, 0.46), (1.00, 0.93, 0.74), (1.08, 0.92, 0.70)),  # golden
    ((0.20, 0.56, 0.60), (0.82, 0.92, 0.80), (0.92, 1.00, 0.90)),  # sea green
)

# What things are made of. Palettes overlap, and every colour is varied again when drawn.
MATERIALS: dict[str, Palette] = {
    "leaf": ((0.28, 0.55, 0.50), (0.22, 0.60, 0.58), (0.38, 0.45, 0.42), (0.10, 0.70, 0.72),
             (0.04, 0.65, 0.62)),
    "grass": ((0.24, 0.55, 0.60), (0.30, 0.50, 0.50), (0.17, 0.55, 0.70), (0.13, 0.50, 0.78),
              (0.40, 0.35, 0.50), (0.09, 0.50, 0.66)),
    "bark": ((0.07, 0.45, 0.42), (0.06, 0.25, 0.50), (0.09, 0.15, 0.62), (0.03, 0.40, 0.33)),
    "petal": ((0.00, 0.70, 0.90), (0.14, 0.75, 0.95), (0.83, 0.50, 0.90), (0.60, 0.50, 0.90),
              (0.10, 0.10, 0.97), (0.93, 0.50, 0.95)),
    "heart": ((0.12, 0.80, 0.90), (0.08, 0.60, 0.50), (0.20, 0.50, 0.70)),
    "cactus": ((0.30, 0.40, 0.45), (0.25, 0.35, 0.55), (0.45, 0.25, 0.50), (0.14, 0.40, 0.60)),
    "stone": ((0.08, 0.12, 0.60), (0.60, 0.10, 0.58), (0.05, 0.30, 0.55), (0.10, 0.05, 0.70)),
    "cliff": ((0.04, 0.50, 0.60), (0.07, 0.40, 0.65), (0.95, 0.25, 0.50), (0.10, 0.30, 0.70)),
    "sand": ((0.11, 0.42, 0.88), (0.08, 0.50, 0.80), (0.05, 0.50, 0.72), (0.12, 0.18, 0.86),
             (0.03, 0.30, 0.80), (0.13, 0.20, 0.60)),
    "sea": ((0.53, 0.55, 0.65), (0.58, 0.55, 0.60), (0.48, 0.40, 0.65), (0.45, 0.30, 0.55),
            (0.62, 0.30, 0.50)),
    "coral": ((0.00, 0.60, 0.90), (0.05, 0.60, 0.90), (0.13, 0.55, 0.90), (0.93, 0.45, 0.90),
              (0.80, 0.40, 0.80), (0.45, 0.40, 0.70), (0.10, 0.15, 0.90)),
    "weed": ((0.30, 0.55, 0.45), (0.20, 0.60, 0.55), (0.42, 0.50, 0.45), (0.08, 0.50, 0.50),
             (0.95, 0.45, 0.50)),
    "paint": ((0.00, 0.55, 0.75), (0.08, 0.50, 0.85), (0.14, 0.40, 0.90), (0.30, 0.30, 0.65),
              (0.50, 0.35, 0.65), (0.60, 0.45, 0.70), (0.80, 0.30, 0.60), (0.10, 0.12, 0.85),
              (0.60, 0.05, 0.75)),
    "roof": ((0.02, 0.60, 0.55), (0.06, 0.50, 0.50), (0.60, 0.20, 0.40), (0.10, 0.20, 0.45)),
    "wood": ((0.07, 0.55, 0.55), (0.09, 0.45, 0.72), (0.05, 0.55, 0.38), (0.10, 0.20, 0.70)),
    "tar": ((0.60, 0.06, 0.42), (0.08, 0.10, 0.50), (0.65, 0.12, 0.33), (0.05, 0.12, 0.60)),
    "cloth": ((0.98, 0.75, 0.60), (0.02, 0.70, 0.50), (0.75, 0.45, 0.45), (0.62, 0.60, 0.50),
              (0.40, 0.50, 0.40), (0.10, 0.55, 0.70), (0.60, 0.08, 0.40)),
    "white": ((0.10, 0.05, 0.95), (0.60, 0.03, 0.93)),
    "iron": ((0.60, 0.10, 0.36), (0.10, 0.10, 0.26)),
    "light": ((0.13, 0.35, 1.00), (0.08, 0.25, 1.00)),
    "snow": ((0.60, 0.05, 0.97), (0.10, 0.03, 0.97)),
}

# The materials of props and strips (main, accent), and how tall they stand: (least, most).
_LOOKS: dict[str, tuple[str, str, float, float]] = {
    "tree": ("leaf", "bark", 0.35, 0.62), "tree2": ("leaf", "bark", 0.3, 0.55),
    "poplar": ("leaf", "bark", 0.35, 0.65), "conifer": ("leaf", "bark", 0.3, 0.6),
    "snowy": ("leaf", "snow", 0.3, 0.6), "palm": ("leaf", "bark", 0.5, 0.75),
    "bare": ("bark", "", 0.3, 0.55), "bush": ("leaf", "", 0.14, 0.26),
    "blossom": ("leaf", "petal", 0.16, 0.3), "rock": ("stone", "", 0.12, 0.24),
    "rock2": ("stone", "", 0.14, 0.3), "cactus": ("cactus", "", 0.32, 0.58),
    "pear": ("cactus", "petal", 0.18, 0.34), "tuft": ("grass", "", 0.12, 0.24),
    "fern": ("leaf", "", 0.14, 0.28), "daisy": ("petal", "heart", 0.22, 0.46),
    "aster": ("petal", "heart", 0.2, 0.42), "flower": ("petal", "leaf", 0.2, 0.4),
    "tulip": ("petal", "leaf", 0.2, 0.4), "broad": ("leaf", "", 0.35, 0.65),
    "monstera": ("leaf", "", 0.35, 0.65), "banana": ("leaf", "", 0.35, 0.65),
    "coral": ("coral", "", 0.2, 0.38), "fan": ("coral", "", 0.22, 0.42),
    "dome": ("coral", "", 0.16, 0.3), "sponge": ("coral", "", 0.22, 0.42),
    "anemone": ("petal", "coral", 0.16, 0.28), "weed": ("weed", "", 0.35, 0.7),
    "kelp": ("weed", "", 0.4, 0.8), "lamp": ("iron", "light", 0.45, 0.7),
    "sign": ("iron", "petal", 0.2, 0.34), "house": ("paint", "roof", 0.26, 0.4),
    "parasol": ("white", "petal", 0.28, 0.42), "hut": ("white", "petal", 0.26, 0.4),
    "sail": ("white", "petal", 0.08, 0.2), "pot": ("leaf", "paint", 0.24, 0.42),
    "sofa": ("cloth", "paint", 0.34, 0.5), "shelf": ("wood", "petal", 0.45, 0.65),
    "drawers": ("wood", "petal", 0.3, 0.42), "standard": ("iron", "light", 0.45, 0.6),
    "frame": ("wood", "paint", 0.16, 0.27), "window": ("white", "paint", 0.38, 0.55),
    "speaker": ("iron", "", 0.25, 0.4), "snowman": ("snow", "petal", 0.18, 0.34),
    "mushroom": ("petal", "white", 0.1, 0.2), "fence": ("wood", "", 0.14, 0.22),
    # strips
    "woods": ("leaf", "bark", 0.12, 0.26), "pines": ("leaf", "bark", 0.12, 0.26),
    "snowpines": ("leaf", "snow", 0.12, 0.28), "bushes": ("leaf", "petal", 0.1, 0.2),
    "palms": ("leaf", "bark", 0.15, 0.3), "village": ("paint", "roof", 0.12, 0.24),
    "city": ("paint", "light", 0.12, 0.3), "flowers": ("petal", "leaf", 0.1, 0.2),
    "tufts": ("grass", "", 0.08, 0.16), "ferns": ("leaf", "", 0.08, 0.16),
    "jungle": ("leaf", "bark", 0.3, 0.6), "reef": ("coral", "weed", 0.16, 0.34),
    "cacti": ("cactus", "petal", 0.1, 0.2), "fences": ("wood", "", 0.12, 0.18),
    "hills": ("leaf", "", 0.08, 0.24), "dunes": ("sand", "", 0.1, 0.22),
    "peaks": ("cliff", "snow", 0.14, 0.34), "mesas": ("cliff", "", 0.1, 0.26),
}
# fmt: on


def hsv(hue: float, saturation: float, value: float) -> RGB:
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(value, 1.0))


def mix(first: RGB, second: RGB, amount: float) -> RGB:
    """`amount` = 0 gives the first colour, 1 the second."""
    (a, b, c), (d, e, f) = first, second
    return a + (d - a) * amount, b + (e - b) * amount, c + (f - c) * amount


def circle(x: float, y: float, radius: float, flat: float = 1.0) -> np.ndarray:
    return _DISC * (radius, radius * flat) + (x, y)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


@lru_cache(maxsize=8)
def rows(size: int) -> np.ndarray:
    """Heights of the pixel centres, (size, size) in 0..1."""
    return np.repeat((np.arange(size, dtype=np.float32)[:, None] + 0.5) / size, size, 1)


@lru_cache(maxsize=1024)
def threshold(low: int, high: int, strength: float = 1.0) -> np.ndarray:
    """A look-up from uint8 to alpha: 0 up to `low`, rising smoothly to `strength` at `high`."""
    t = np.clip((np.arange(256, dtype=np.float32) - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t) * strength).astype(np.float32)


def _stream(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(160).tolist()


def _fixed(shape: Shape, size: int) -> np.ndarray:
    """Unit coordinates to OpenCV's fixed point, pixel centres at whole numbers."""
    return (np.asarray(shape) * (size * 16) - 7.5).astype(np.int32)


def _level(texels_per_pixel: float) -> int:
    """The level of an image pyramid to sample from, so that nothing aliases."""
    return min(max(round(math.log2(texels_per_pixel) - 0.2), 0), 4)


class Painter:
    """A canvas `image` (size, size, 3) uint8, its random numbers, its light and its materials.

    Colours are given as they are in white light.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.image = np.empty((size, size, 3), np.uint8)
        self.front = Body(grain=0.4)  # what will stand in front of the object
        self.next = _stream(rng).__next__
        self._materials: dict[str, Tint] = {}
        first, second, amount = self.pick(_MOODS), self.pick(_MOODS), self.u(0, 0.35)
        self.top, self.low, self.tint = (
            mix(a, b, amount) for a, b in zip(first, second, strict=True)
        )

    # ---- chance

    def u(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * self.next()

    def pick(self, options: Sequence):
        return options[int(self.next() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.next() < probability

    # ---- colour

    def colour(self, palette: Palette | str, hue: float = 0.03) -> RGB:
        """A new colour from a palette or a material's."""
        h, s, v = self.pick(MATERIALS[palette] if isinstance(palette, str) else palette)
        return hsv(h + self.u(-hue, hue), s * self.u(0.7, 1.15), v * self.u(0.82, 1.12))

    def __getitem__(self, material: str) -> Tint:
        """The colour this material has in this place."""
        if material not in self._materials:
            self._materials[material] = self.colour(material)
        return self._materials[material]

    def __setitem__(self, material: str, colour: Tint) -> None:
        self._materials[material] = colour

    def lit(self, colour: RGB, value: float = 1.0) -> np.ndarray:
        """A colour in this place's light, (3,)."""
        r, g, b = colour
        x, y, z = self.tint
        return np.array((min(r * x * value, 1), min(g * y * value, 1), min(b * z * value, 1)))

    def ramp(self, colour: Tint, haze: float = 0.0, contrast: float = 1.0) -> Ramp:
        """Shadow to light about one colour, in this place's light, veiled by `haze` of its air."""
        stops = self._seen(_stops(colour, contrast), haze)
        return cv2.transform(_SPREAD[len(stops)], np.array(stops).T)

    def _seen(self, colours: Sequence[RGB], haze: float) -> list[RGB]:
        x, y, z = self.tint
        return [mix((r * x, g * y, b * z), self.low, haze) for r, g, b in colours]

    # ---- layers

    def texture(
        self, name: str, span: float, *, angle: float = 0.0, squash: float = 1.0
    ) -> np.ndarray:
        """(size, size) uint8: `span` tiles across the frame, `squash` times as many down it."""
        level = _level(span * TILE / self.size)
        tile = TILE >> level
        k = span * tile / self.size
        cos, sin = math.cos(angle) * k, math.sin(angle) * k
        a, b, c, d = cos, -sin * squash, sin, cos * squash
        middle, half = REPEATS[level] // 2, (self.size - 1) / 2
        x, y = (middle + self.next()) * tile - 0.5, (middle + self.next()) * tile - 0.5
        matrix = np.array([[a, b, x - (a + b) * half], [c, d, y - (c + d) * half]])
        image, shape = textures()[name][level], (self.size, self.size)
        return cv2.warpAffine(image, matrix, shape, flags=_FLAGS, borderMode=cv2.BORDER_WRAP)

    def plane(self, name: str, horizon: float, span: float, *, up: bool = False) -> np.ndarray:
        """A texture lying on the ground below the horizon, or (`up`) on the sky above it, in
        perspective: (rows, size) uint8. `span` tiles cross the frame at its near edge."""
        size, depth = self.size, 0.16
        near = (horizon if up else 1 - horizon) + depth
        level = _level(span * 1.9 * TILE / size)
        tile, middle = TILE >> level, REPEATS[level] // 2
        x, y = (middle + self.next()) * tile - 0.5, (middle + self.next()) * tile - 0.5
        first = 0 if up else min(int(horizon * size), size - 1)
        last = min(max(math.ceil(horizon * size), 1), size) if up else size
        # closeness is linear in y: 1 at the near edge, depth / near on the horizon
        slope = (-1 if up else 1) / (near * size)
        start = (depth + (horizon if up else -horizon)) / near + slope * (first + 0.5)
        across, down = span * tile, span * tile * 2 * near
        y -= down * (1 + near / depth) / 2
        matrix = np.array([
            [across / size, x * slope, across * (0.5 / size - 0.5) + x * start],
            [0, y * slope, y * start + down],
            [0, slope, start],
        ])  # fmt: skip
        image, shape = textures()[name][level], (size, last - first)
        return cv2.warpPerspective(image, matrix, shape, flags=_FLAGS, borderMode=cv2.BORDER_WRAP)

    def lay(self, colour: np.ndarray | RGB, alpha: np.ndarray, top: int = 0) -> None:
        """Blend a layer (h, size, 3), or one colour as it is, over the rows from `top`."""
        if isinstance(colour, tuple):
            value = [min(max(c, 0.0), 1.0) * 255 for c in colour]
            colour = np.empty((*alpha.shape, 3), np.uint8)
            cv2.rectangle(colour, (0, 0), alpha.shape[::-1], value, cv2.FILLED)
        window = self.image[top : top + len(alpha)]
        cv2.blendLinear(colour, window, alpha, 1 - alpha, window)

    def fade(self, colour: RGB, start: float, end: float, strength: float) -> None:
        """A veil of colour, from nothing at height `start` to `strength` at height `end`."""
        t = np.clip((rows(self.size) - start) * (1 / (end - start)), 0, 1)
        self.lay(colour, t * np.float32(strength))

    def mask(self, *shapes: Shape, soft: float = 0.0) -> np.ndarray:
        """Alpha (size, size) of filled shapes; `soft` blurs it by that much of the frame."""
        size = 48 if soft else self.size
        out = np.zeros((size, size), np.uint8)
        for shape in shapes:
            cv2.fillPoly(out, [_fixed(shape, size)], 255, cv2.LINE_AA, 4)
        if soft:
            out = cv2.blur(out, (max(int(soft * 48) | 1, 3),) * 2)
            out = cv2.resize(out, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        return out * np.float32(1 / 255)

    def fill(self, colour: RGB, *shapes: Shape, haze: float = 0.0) -> None:
        """Plain shapes, in the place's light."""
        x, y, z = self.tint
        r, g, b = mix((colour[0] * x, colour[1] * y, colour[2] * z), self.low, haze)
        value = min(r * 255, 255), min(g * 255, 255), min(b * 255, 255)
        for shape in shapes:
            cv2.fillPoly(self.image, [_fixed(shape, self.size)], value, cv2.LINE_AA, 4)

    # ---- scenery

    def sky(self, horizon: float, clouds: bool = True, sun: float = 0.3) -> None:
        """The whole frame as sky, palest at the horizon."""
        height = cv2.convertScaleAbs(rows(self.size), alpha=255 / max(horizon, 0.2))
        table = cv2.transform(_SPREAD[2], np.array((self.top, self.low)).T)
        self.image = cv2.applyColorMap(height, table)
        x, y, r = self.u(0.05, 0.95), self.u(0.1, 0.9) * horizon, self.u(0.3, 0.8)
        if self.chance(sun):
            warm = mix(self.low, (1.0, 0.96, 0.82), 0.6)
            self.prop("glow", x, y + r / 2, r, ((warm, warm), ""), strength=0.85)
            self.fill((1, 1, 0.95), circle(x, y, r * self.u(0.06, 0.13)), haze=0.15)
        if clouds and self.chance(0.75):
            field = self.plane("cloud", horizon, 0.5, up=True)
            start = int(self.u(95, 165))
            lit, shade = mix(WHITE, self.low, 0.3), mix(self.low, self.top, 0.35)
            colour = cv2.applyColorMap(field, self.ramp((lit, lit, shade), 0.4))
            self.lay(colour, cv2.LUT(field, threshold(start, start + 70, 0.8)))

    def ground(
        self,
        horizon: float,
        name: str,
        span: float,
        colour: Tint,
        *,
        contrast: float = 1.0,
        veil: float = 0.5,
        roll: float = 0.0,
    ) -> None:
        """Ground from the horizon down: a texture in perspective, fading into the air with
        distance, its far edge rolling by `roll`."""
        size, start = self.size, max(horizon - roll, 0.0)
        field = self.plane(name, start, span)
        layer = cv2.applyColorMap(field, self.ramp(colour, 0.0, contrast))
        first = size - len(field)
        y, phase = rows(size)[first:], self.u(0, 6)
        if roll:
            far_edge = horizon + roll * np.sin(rows(size)[:, 0] * (4 + phase) + phase)
            alpha = np.clip((y - far_edge) * size + 0.5, 0, 1)
        else:
            alpha = np.clip(y * size + (0.5 - horizon * size), 0, 1)
        self.lay(layer, alpha, first)
        if veil:
            far = (1 - y) * (math.sqrt(veil) / (1 - start))
            self.lay(self.low, far * far * alpha, first)

    def strip(
        self,
        name: str,
        base: float,
        height: float = 0.0,
        colours: tuple = (),
        *,
        haze: float = 0.0,
        contrast: float = 1.0,
    ) -> None:
        """A row of scenery standing on `base`, `height` of the frame tall."""
        colours, height = self._look(name, colours, height)
        shift, size, tall = self.next(), self.size, height * self.size
        level = _level(PROP / tall)
        texels, wide = PROP >> level, TILE >> level
        k, top = texels / tall, (base - height) * size
        first, last = max(math.ceil(top - 0.5 + 0.5 / k), 0), min(math.ceil(base * size), size)
        if last <= first:
            return
        matrix = np.array([[k, 0, shift * wide + k / 2], [0, k, (first + 0.5 - top) * k - 0.5]])
        image, shape = strips()[name][level], (size, last - first)
        cut = cv2.warpAffine(image, matrix, shape, flags=_FLAGS, borderMode=cv2.BORDER_WRAP)
        self._paste(cut, 0, first, colours, haze, contrast, 1.0)

    def prop(
        self,
        name: str,
        x: float,
        base: float,
        height: float = 0.0,
        colours: tuple = (),
        *,
        angle: float = 0.0,
        wide: float = 1.0,
        haze: float = 0.0,
        strength: float = 1.0,
    ) -> None:
        """A prop with its foot at (x, base), `height` of the frame tall, turned about its foot by
        `angle` and mirrored at random. `colours`: main and accent, each a colour or a material."""
        colours, height = self._look(name, colours, height)
        size, side = self.size, 1 if self.next() < 0.5 else -1
        tall, x, y = height * self.size, x * self.size, base * self.size
        level = _level(PROP / tall)
        texels = PROP >> level
        reach = tall * 1.12 if angle else tall * wide / 2
        below = reach if angle else 0.0
        x0, x1 = max(math.floor(x - reach), 0), min(math.ceil(x + reach), size)
        y0, y1 = max(math.floor(y - tall * 1.12), 0), min(math.ceil(y + below), size)
        if x0 >= x1 or y0 >= y1:
            return
        k = texels / tall
        cos, sin = math.cos(angle) * k, math.sin(angle) * k
        a, b, c, d = side * cos / wide, side * sin / wide, -sin, cos
        dx, dy = x0 + 0.5 - x, y0 + 0.5 - y
        matrix = np.array([
            [a, b, texels / 2 + a * dx + b * dy - 0.5],
            [c, d, texels + c * dx + d * dy - 0.5],
        ])  # fmt: skip
        cut = cv2.warpAffine(props()[name][level], matrix, (x1 - x0, y1 - y0), flags=_FLAGS)
        self._paste(cut, x0, y0, colours, haze, 1.0, strength)

    def scatter(self, names: Sequence[str], count: float, near: float, far: float) -> None:
        """Up to `count` props with their feet between the heights `near` and `far`."""
        for y in sorted(self.u(near, far) for _ in range(int(count))):
            self.prop(self.pick(names), self.u(), y)

    def ranges(self, horizon: float, names: Sequence[str], layers: int = 2) -> None:
        """Far scenery, one range behind another, paler with distance."""
        for i in range(layers):
            haze = 0.72 - 0.34 * i
            self.strip(self.pick(names), horizon + 0.02, haze=haze, contrast=0.6)

    def fringe(self, colour: RGB, depth: float) -> None:
        """Leaves hanging into the picture from above."""
        field, edge = self.texture("leaves", 0.55), self.texture("patch", 0.6, squash=0.6)
        t = np.clip(1.6 - rows(self.size) * (1.6 / depth), -1, 1) * np.float32(255) - 128
        alpha = np.clip((edge + t) * np.float32(1 / 60), 0, 1)
        self.lay(cv2.applyColorMap(field, self.ramp(colour)), alpha)

    def picture(self) -> np.ndarray:
        """What was painted, (size, size, 3) float32 in 0..1. Part of the places lie behind the
        focal plane, and all are a little calmer than the object."""
        blurred, sigma, calm = self.chance(0.4), self.u(0.003, 0.009), self.u(0.84, 1.0)
        image = self.image
        if blurred:
            image = cv2.GaussianBlur(image, (0, 0), max(sigma * self.size, 0.2))
        return cv2.addWeighted(image, calm / 255, image, 0, (1 - calm) * 0.5, dtype=cv2.CV_32F)

    # ---- inner workings

    def _look(self, name: str, colours: tuple, height: float) -> tuple[tuple, float]:
        """Colours and height of a prop or strip, from its look where not given."""
        if not colours or not height:
            main, accent, least, most = _LOOKS[name]
            colours = colours or (main, accent)
            height = height or self.u(least, most)
        main, accent = colours
        main = self[main] if isinstance(main, str) else main
        accent = self[accent] if isinstance(accent, str) and accent else accent
        return (main, accent), height

    def _paste(self, cut, x: int, y: int, colours: tuple, haze, contrast, strength) -> None:
        """Tint a cut-out (h, w, 4: shade, accent, shade x accent, alpha) and blend it in at (x, y).

        Colour runs straight from shadow to light in both palettes, so that the tinted cut-out is a
        linear function of its first three channels.
        """
        main, accent = colours
        dark, light = self._seen(_ends(main, contrast), haze)
        dark2, light2 = self._seen(_ends(accent, contrast), haze) if accent else (dark, light)
        matrix = [
            (b - a, c - a, d - c - b + a, a * 255)
            for a, b, c, d in zip(dark, light, dark2, light2, strict=True)
        ]
        layer = cv2.transform(cv2.cvtColor(cut, cv2.COLOR_BGRA2BGR), np.array(matrix))
        alpha = cut[:, :, 3] * np.float32(strength / 255)
        window = self.image[y : y + len(cut), x : x + cut.shape[1]]
        cv2.blendLinear(layer, window, alpha, 1 - alpha, window)


def _stops(colour: Tint, contrast: float) -> tuple[RGB, ...]:
    """Shadow, middle and light of a colour (or what they were said to be)."""
    if isinstance(colour[0], tuple):
        return colour
    r, g, b = colour
    dark, light = 1 - 0.62 * contrast, 0.42 * contrast
    shadow = r * dark, g * dark, b * (dark + 0.06 * contrast)
    return shadow, colour, (r + (1.05 - r) * light, g + (1 - g) * light, b + (0.86 - b) * light)


def _ends(colour: Tint, contrast: float) -> tuple[RGB, RGB]:
    """Shadow and light of a colour, such that the middle between them is about the colour."""
    stops = _stops(colour, contrast)
    if stops is colour:
        return stops[0], stops[-1]
    dark, middle, light = stops
    return dark, mix(light, mix(dark, middle, 2.0), 0.5)
