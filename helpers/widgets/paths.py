"""Paper 3 by hand: a decision about any image, by any network, followed down to its pixels.

from helpers.widgets.paths import path_panel
path_panel(study)  # of helpers.backtracking_study, after its run
"""

from __future__ import annotations

import time
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count
from math import log1p, prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from PIL import Image
from scipy.ndimage import maximum_filter
from torch import Tensor
from torch.nn import functional

from helpers import backtracking as bt
from helpers import saliency
from helpers.backtracking_study import Judge, Network, Study, share_on
from helpers.figures import INK, PALETTE, heated
from helpers.photos import reading
from helpers.widgets.live import Kept, Panel, Slices
from helpers.widgets.pieces import (
    PAPER,
    Pictures,
    bar,
    choice,
    picture,
    slider,
    table,
    take,
    wrapping,
)

MOST_BYTES = 10_000_000  # of an uploaded file

_SETS = {  # the study's sets that are offered, and what they are called
    "judged": "as they are",
    "blurred": "out of focus",
    "pairs: first": "two objects in one image",
    "left out": "of a class one network never saw",
}
_OTHER = {"pairs: first": "pairs: second"}  # the same images with the masks of other objects
_OWN = "my own file"
_PER_CLASS = 8  # pictures to choose from
_CLASSES = 20  # to start from: the most probable
_SIDE = 256  # of the large pictures, pixels on the page
_BESIDE = "box-sizing:border-box;width:280px;line-height:1.4"  # room for it beside both pictures
_SLICE = 0.03  # seconds

_FULLY_CONNECTED = {
    "all with w·a > 0 (Algorithm 1)": "positive",
    "the n largest of these (section III-A)": "topn",
    "all with w·a + b > 0 (line 7, literal)": "literal",
}
_CONVOLUTION = {
    "strongest channel, largest w·a (Fig. 4)": {},
    "strongest channel, largest a (section III-B)": {"pixel": "activation"},
    "all channels above 0 (Algorithm 2)": {"channel": "positive"},
    "bias added to each w·a (line 6, literal)": {"channel": "literal"},
}
_AVERAGE = {"the largest part (CNN-Fixations)": "max", "all positive parts (ours)": "positive"}
_MEASURES = {"precision": "precision", "recall": "recall", "f_beta": "F_beta", "iou": "IoU"}
_KINDS = {
    bt.fully_connected: "fully connected",
    bt.convolution: "convolution",
    bt.maximum: "max pooling",
    bt.average: "average",
    bt.addition: "sum of branches",
    bt.product: "gate",
    bt.rearrangement: "branches joined",
}


def path_panel(study: Study) -> PathPanel:
    """Image, network, starting class, rules; down layer by layer; then a map and what it is worth.

    Args:
        study: of `helpers.backtracking_study.assemble`, after its `run`.
    """
    return PathPanel(study)


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to look at, and what is known about it."""

    key: Hashable
    name: str  # as in "an image of <name>"
    pixels: UInt8[Tensor, "3 h w"]
    masks: Mapping[str, Bool[Tensor, "h w"]]  # of every object whose mask is known, by its class


# ---------------------------------------------------------------- down, in slices


def descend(
    seen: bt.Recording, start: Int64[Tensor, " n"], rules: bt.Rules
) -> Generator[float, None, bt.Paths]:
    """`Recording.backtrack` from these classes in slices: yields the share of layers done."""
    since = time.perf_counter()
    for share, paths in seen.descending(start, rules=rules, pieces=nodes_in_pieces):
        if share == 1:
            return paths
        if time.perf_counter() - since > _SLICE:
            yield share
            since = time.perf_counter()


def nodes_in_pieces(step: Any, nodes: bt.Nodes) -> Iterator[bt.Nodes]:
    """At least one piece; each costs about as much as a slice may."""
    layer, each = step.module, 64
    if step.rule in (bt.convolution, bt.fully_connected):
        each = prod(layer.weight.shape[1:])
    some = max(32, (1 << 20) // each)
    for first in range(0, max(1, len(nodes)), some):
        yield nodes[first : first + some]


def _nowhere(nodes: bt.Nodes, shape: tuple[int, ...]) -> bt.Nodes:
    return replace(nodes[:0], shape=shape)


def stops(seen: bt.Recording) -> list[Any]:
    """The layers to stop at on the way down, as `Recording.steps`: the decision, every layer below
    that no path can pass by and that moves nodes, and the image.

    Within the branches of a block there is no stop: of what runs side by side, each layer holds
    only some of the paths.
    """
    found, on_the_way, lowest = [], {len(seen.steps) - 1}, len(seen.steps)
    for step in reversed(seen.steps):
        if step.number not in on_the_way:
            continue
        joins = step.rule is not bt.rearrangement or len(step.below) > 1
        moves = (step.rule in _KINDS and joins) or not step.number or not found
        if moves and lowest >= step.number:
            found.append(step)
        on_the_way |= {below.number for below in step.below}
        lowest = min([lowest, *(below.number for below in step.below)])
    return found


# ---------------------------------------------------------------- what is drawn
# With numpy: these arrays are small, and torch would wait for its threads at each step.


def squares(
    image: UInt8[Tensor, "3 h w"], places: Float64[Tensor, "r c"], enlarge: int
) -> UInt8[Tensor, "3 H W"]:
    """Positions of a layer as squares over the dimmed grey image, enlarged so many times: the more
    paths pass, the yellower and the less transparent."""
    h, w = (side * enlarge for side in image.shape[1:])
    rows, columns = places.shape
    strength = np.sqrt(places.numpy() / max(1.0, float(places.max())))
    y, x = (np.arange(size) * n // size for size, n in ((h, rows), (w, columns)))
    strength = strength[y][:, x]
    cell = min(h / rows, w / columns)
    if cell < 3:  # a single pixel of a large image would be lost
        strength = maximum_filter(strength, 3)
    opacity = (0.3 + 0.7 * strength) * (strength > 0)
    if cell >= 8:  # what lies under large squares stays visible, with a gap between neighbours
        opacity *= 0.7
        opacity[np.diff(y, prepend=0) > 0] = 0
        opacity[:, np.diff(x, prepend=0) > 0] = 0
    grey = 0.5 * _enlarged(image.numpy().mean(0), enlarge)[..., None]
    colour = _LOW + (_HIGH - _LOW) * strength[..., None]
    return _picture(grey + opacity[..., None] * (colour - grey))


def outlined(
    image: UInt8[Tensor, "3 h w"],
    values: Float[Tensor, "h w"],
    chosen: Bool[Tensor, "h w"],
    truth: Bool[Tensor, "h w"] | None,
    enlarge: int,
) -> UInt8[Tensor, "3 H W"]:
    """The map as colours over the grey image, enlarged so many times; around what was chosen a
    white line, around the true object a dashed one, black on orange."""
    coloured = heated(image[None], values[None])[0].permute(1, 2, 0).numpy()
    large = (coloured.shape[1] * enlarge, coloured.shape[0] * enlarge)
    drawn = np.array(Image.fromarray(coloured).resize(large, Image.Resampling.BILINEAR))
    if truth is not None:
        line = _edge(_enlarged(truth.numpy(), enlarge))
        drawn[line] = _ORANGE
        y, x = np.ogrid[: line.shape[0], : line.shape[1]]
        drawn[line & ((y + x) // 6 % 2 == 0)] = 0
    drawn[_edge(_enlarged(chosen.numpy(), enlarge))] = 255
    return _picture(drawn)


_LOW, _HIGH = np.array([213.0, 94, 0]), np.array([255.0, 240, 60])  # vermilion, yellow
_ORANGE = np.array(list(bytes.fromhex(PALETTE["orange"].removeprefix("#"))), np.uint8)


def _enlarged(values: np.ndarray, times: int) -> np.ndarray:
    return values.repeat(times, 0).repeat(times, 1)


def _edge(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask's own outermost two pixels."""
    around = np.pad(mask, 2)
    h, w = mask.shape
    inside = mask.copy()
    for down, right in ((0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)):
        inside &= around[down : down + h, right : right + w]
    return mask & ~inside


def _picture(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.rint(values).astype(np.uint8)).permute(2, 0, 1)


def node_counts(counts: Sequence[int], now: int, names: Sequence[str]) -> str:
    """A bar per layer, as high as the logarithm of its nodes; the layer looked at is orange.

    Layers below it have none yet: what comes next can still be guessed.
    """
    wide, high = 240, 44
    each, most = wide / len(counts), log1p(max(counts))
    bars = ""
    for k, (n, name) in enumerate(zip(counts[: now + 1], names[: now + 1], strict=True)):
        tall = high * log1p(n) / most if most else 0
        colour = PALETTE["orange"] if k == now else PALETTE["sky"]
        said = f"{escape(name)}: {_count(n, 'node')}"
        bars += (
            f'<rect x="{k * each + 1:.1f}" y="{high - tall:.1f}" width="{max(1, each - 2):.1f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{said}</title></rect>'
        )
    so_far = ", ".join(f"{n:,}" for n in counts[: now + 1])
    said = f"Nodes per layer from the decision down to here: {so_far}."
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {wide} {high + 1}" '
        f'style="width:{_SIDE}px;height:auto;display:block;margin-top:6px">{bars}'
        f'<path d="M0 {high + 0.5}H{wide}" stroke="{INK}"/></svg>'
        "nodes in each layer so far (log scale)"
    )


# ---------------------------------------------------------------- what a reader brings


def uploaded(value: Sequence[Mapping[str, Any]], side: int) -> tuple[str, UInt8[Tensor, "3 s s"]]:
    """The file's name and its central square at this many pixels, as the package reads photographs.

    Args:
        value: of an `ipywidgets.FileUpload`.

    Raises:
        ValueError: no file, too large a one, or one that is no usable picture, with the reason.
    """
    if not value:
        raise ValueError("Upload an image first; then it is looked at here.")
    name, content = str(value[0]["name"]), value[0]["content"]
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{name} has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB are read."
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "uploaded"  # its own name may be anything
        file.write_bytes(content)
        found = [reading.Picture(name, file, 0)]
        images, rows, refused = reading.decoded(found, side, name)
    if not rows:
        raise ValueError(f"{name} cannot be used: {refused[0].reason}.")
    return name, images[0]


# ---------------------------------------------------------------- the panel


class PathPanel(Panel):
    """See `path_panel`. What was recorded, backtracked or smoothed is kept for a while."""

    def __init__(self, study: Study) -> None:
        self.study = study
        others = [n for n in (study.untaught, study.untrained) if n]
        self._networks = study.networks | {n.title: n for n in others}
        self._side = study.sets["judged"].images.shape[2]
        self._recordings, self._paths, self._maps = Kept(3), Kept(4), Kept(24)
        self._own: tuple[object, Shown] | None = None  # of which upload, and what was in it
        self._uploads = count()
        self._drawn: dict[str, Hashable] = {}  # of what the pictures are that are shown
        self._before: Hashable = None  # the image that was looked at last
        self._controls()
        self._browse()
        for control, then in (
            (self.images, self._browse),
            (self.kind, self._offer),
            (self.upload, self._take),
        ):
            control.observe(then, "value")
        rows = (
            [self.images, self.kind, self.upload],
            [self.pictures],
            [self.network, self.start, self.average],
            [self.fully_connected, self.n, self.convolution],
            [self.layer, self.sigma, self.level],
        )
        self.walk, self.map, self.scores = (ipywidgets.HTML() for _ in range(3))
        super().__init__(
            "From a decision to its pixels",
            [ipywidgets.Box(some, layout=wrapping("4px 16px")) for some in rows],
            [ipywidgets.Box([self.walk, self.map, self.scores], layout=wrapping("10px 18px"))],
            note="Step down and watch nodes become pixels; then start from another class.",
            stoppable=True,
        )

    def _controls(self) -> None:
        sets = [(what, name) for name, what in _SETS.items() if name in self.study.sets]
        width, level = self._chosen()
        narrow, wide = {"width": "15em"}, {"width": "27em"}

        def sized(made: ipywidgets.Widget, size: Mapping[str, str]) -> ipywidgets.Widget:
            made.layout = ipywidgets.Layout(**size)
            return made

        self.images = choice("Images", [*sets, (_OWN, _OWN)], "Which images to choose from")
        self.kind = sized(choice("Object", [""], "Show the images of this class"), narrow)
        self.pictures = Pictures([self.study.sets["judged"].images[0]], [""])
        self.upload = ipywidgets.FileUpload(
            accept="image/*",
            description="Upload an image",
            tooltip="One image file of at most 10 MB, which stays with this notebook's kernel",
        )
        self.upload.layout = ipywidgets.Layout(width="auto")
        self.network = choice("Network", list(self._networks), "Whose decision is followed")
        options = [("the predicted class", None)]
        self.start = sized(choice("Start from", options, "The class whose score is followed"), wide)
        self.fully_connected = sized(
            choice("Fully connected", _FULLY_CONNECTED, "Which inputs of a node are followed"), wide
        )
        self.n = sized(
            slider("n", 1, 50, 10, "Inputs of each node that are followed, if the n largest are"),
            narrow,
        )
        what = "Which channel and which position of the window are followed"
        self.convolution = sized(choice("Convolution", list(_CONVOLUTION), what), wide)
        what = "Which parts of an average are followed, in networks that have one"
        self.average = sized(choice("Average", _AVERAGE, what), {"width": "23em"})
        what = "Down from the decision to the image; the arrow keys move by one layer"
        self.layer = sized(slider("Layer", 1, 2, 1, what), {"width": "22em"})
        what = "Standard deviation of the Gaussian around each important pixel"
        most = self._side / 2
        given = (0.5, most, min(max(0.5, width), most), what, 0.5)
        self.sigma = slider("sigma, pixels", *given, readout_format=".1f")
        what = "Of the map's peak: what reaches this share counts as the object"
        self.level = slider("threshold", 0.0, 1.0, level, what, 0.01)

    def _chosen(self) -> tuple[float, float]:
        """The Gaussian's width and the threshold that did best on other images."""
        known = self.study.known.get(Judge(self.study.main.title, "default"))
        values = known.values if known else {}
        return float(values.get("width", self._side / 16)), float(values.get("level", 0.3))

    # ---- which image ----

    def _browse(self, _: object = None) -> None:
        """Offer the classes of the chosen set."""
        if self.images.value == _OWN:
            with self.silently():
                self.pictures.value = -1
            return
        self._set = self.images.value
        images = self.study.sets[self._set]
        kinds = [images.class_names[k] for k in images.labels.unique().tolist()]
        with self.silently():
            kept = self.kind.value
            self.kind.options = kinds
            self.kind.value = kept if kept in kinds else kinds[0]
        self._offer()

    def _offer(self, _: object = None) -> None:
        """Offer the images of the chosen class."""
        if self.moving:
            return
        if self.images.value == _OWN:  # a class was asked for: back to the images that have any
            with self.silently():
                self.images.value = self._set
        images = self.study.sets[self._set]
        label = images.class_names.index(self.kind.value)
        self._rows = (images.labels == label).nonzero()[:_PER_CLASS, 0].tolist()
        names = [f"{self.kind.value} {k}" for k in range(1, len(self._rows) + 1)]
        shown = images.images[self._rows]
        shown = functional.adaptive_avg_pool2d(shown.float(), 72).byte() if self._large else shown
        with self.silently():
            self.pictures.show(list(shown), names)

    @property
    def _large(self) -> bool:
        return self._side > 150

    def _take(self, _: object = None) -> None:
        """Look at the uploaded file next."""
        with self.silently():
            self.images.value = _OWN

    def _image(self) -> Shown:
        """The image that is looked at. Raises: ValueError: an uploaded file that is none."""
        if self.images.value == _OWN:
            return self._uploaded()
        which, k = self.images.value, self._rows[self.pictures.value]
        masks = {}
        for name in (which, _OTHER.get(which, which)):
            images = self.study.sets[name]
            masks[images.class_names[int(images.labels[k])]] = images.masks[k]
        return Shown((which, k), " and a ".join(masks), images.images[k], masks)

    def _uploaded(self) -> Shown:
        value = self.upload.value
        if self._own is None or self._own[0] is not value:
            name, pixels = uploaded(value, self._side)
            self._own = value, Shown((_OWN, next(self._uploads)), name, pixels, {})
        return self._own[1]

    # ---- work ----

    def update(self, change: object = None) -> None:
        """Do the work anew; who clicks a picture looks at it, not at the uploaded file any more."""
        if not self.moving and isinstance(change, dict) and change["owner"] is self.pictures:
            self._leave_own()
        super().update(change)

    def _leave_own(self) -> None:
        """A picture was clicked: it is looked at, not the uploaded file any more."""
        if self.images.value == _OWN:
            with self.silently():
                self.images.value = self._set

    def work(self) -> Slices:
        """Record, backtrack, draw; what is known already is not done again."""
        image, network = self._image(), self._networks[self.network.value]
        rules = self._rules()
        seen = self._recordings.get(
            (image.key, network.title),
            lambda: bt.record(
                network.model.to(self.study.device),
                image.pixels[None].to(self.study.device).float() / 255,
            ),
        )
        yield None
        label, chance = self._started(image, network, seen)
        down = stops(seen)
        self._deepen(down)
        key = (image.key, network.title, label, rules)
        if key not in self._paths:
            start = torch.tensor([label], device=seen.logits.device)
            self._paths[key] = yield from descend(seen, start, rules)
        paths = self._paths[key]
        yield None
        name = network.class_names[label]
        if self._drawn.get("walk") != (key, self.layer.value):
            self.walk.value = self._walk(image, paths, seen, down, f"{name} ({chance:.0%})")
            self._drawn["walk"] = key, self.layer.value
            yield None
        if self._drawn.get("map") != (key, self.sigma.value, self.level.value):
            self._map(image, key, paths, name)
            self._drawn["map"] = key, self.sigma.value, self.level.value

    def _rules(self) -> bt.Rules:
        self.n.disabled = self.fully_connected.value != "topn"
        n = self.n.value if not self.n.disabled else bt.Rules.n
        return bt.Rules(
            fully_connected=self.fully_connected.value,
            n=n,
            average=self.average.value,
            **_CONVOLUTION[self.convolution.value],
        )

    def _started(self, image: Shown, network: Network, seen: bt.Recording) -> tuple[int, float]:
        """The class to start from and its probability; offers the most probable ones."""
        chances = seen.logits.softmax(1)[0].cpu()
        wanted = self.start.value if self._before == image.key else None
        self._before = image.key
        names = network.class_names
        order = chances.argsort(descending=True).tolist()
        there = [names.index(name) for name in image.masks if name in names]
        offered = list(dict.fromkeys([*order[:_CLASSES], *there]))
        options = [(f"{names[k]}, {chances[k]:.1%}", names[k]) for k in offered]
        options = [(f"the predicted class: {options[0][0]}", None), *options]
        with self.silently():
            if options != list(self.start.options):
                self.start.options = options
            take(self.start, wanted if wanted in dict(options).values() else None)
        label = order[0] if self.start.value is None else names.index(self.start.value)
        return label, float(chances[label])

    def _deepen(self, down: Sequence[Any]) -> None:
        """As many layers to step through as the network has; the first look is at the last maps."""
        with self.silently():
            at_the_end = self.layer.value == self.layer.max
            first_look = not self.walk.value
            self.layer.max = len(down)
            if first_look:
                self.layer.value = 1 + next(k for k, s in enumerate(down) if len(s.shape) == 3)
            elif at_the_end:
                self.layer.value = len(down)

    def _walk(
        self,
        image: Shown,
        paths: bt.Paths,
        seen: bt.Recording,
        down: Sequence[Any],
        said: str,
    ) -> str:
        """The nodes of the layer that is looked at, over the image."""
        now, step = self.layer.value - 1, down[self.layer.value - 1]
        nodes = [paths.layers.get(s.name) for s in down]
        counts = [0 if some is None else len(some) for some in nodes]
        there = _nowhere(nodes[0], step.shape) if nodes[now] is None else nodes[now]
        enlarge = max(1, _SIDE // self._side)
        places = torch.zeros(1, 1, dtype=torch.float64)
        where = "units without a place in the image"
        if len(step.shape) == 3:
            places = there.dense(1)[0].sum(0).cpu()
            rows, columns = places.shape
            where = f"{rows} × {columns} positions, {int((places > 0).sum()):,} of them on a path"
        layer = "the image" if not step.number else _KINDS[step.rule] if now else "the decision"
        above = {s.name for s in seen.steps if s.number > step.number}
        lost = sum(float(n.sum()) for name, n in paths.ended.items() if name in above)
        share = int(100 * now / (len(down) - 1))
        words = f"{_count(counts[now], 'node')}, {_count(float(there.count.sum()), 'path')}"
        lines = [
            f"<strong>Layer {now + 1} of {len(down)}: {layer}</strong> ({escape(step.name)})",
            where,
            words + (f"; {_count(lost, 'path')} ended above" if lost else ""),
            f"An image of {escape(image.name)}, from {escape(said)}",
        ]
        alt = (
            f"An image of {image.name}; from {said}, {share} % of the way down, {layer}: "
            f"{words}; {where}."
        )
        names = [s.name for s in down]
        drawn = squares(image.pixels, places, enlarge)
        return picture(drawn, alt, _SIDE, "<br>".join(lines)) + node_counts(counts, now, names)

    def _map(self, image: Shown, key: Hashable, paths: bt.Paths, name: str) -> None:
        """The Gaussian map, what reaches the threshold, and how that fits the true mask."""
        sigma, level = self.sigma.value, self.level.value
        pixels = paths.pixels.cpu()
        values = self._maps.get((key, sigma), lambda: bt.attention(pixels, sigma))
        chosen = saliency.thresholded(values, level)
        truth = image.masks.get(name, next(iter(image.masks.values()), None))
        of = name if name in image.masks else next(iter(image.masks), "")
        enlarge = max(1, _SIDE // self._side)
        drawn = outlined(image.pixels, values[0], chosen[0], truth, enlarge)
        share = f"{chosen.double().mean():.1%} of the image"
        caption = f"Gaussians of {sigma:g} px; white: at least {level:.2f} of the peak ({share})"
        caption += "; dashed: the true object" if truth is not None else ""
        if not pixels.any():
            caption = "Every path ended before it reached the image, so that there is no map."
        alt = f"Heat map over the image of {image.name}. {caption}."
        self.map.value = picture(drawn, alt, _SIDE, escape(caption))
        told = _scores(pixels, chosen, truth, of)
        self.scores.value = f'<div style="{PAPER};{_BESIDE}">{told}</div>'


def _scores(
    pixels: Float64[Tensor, "1 h w"],
    chosen: Bool[Tensor, "1 h w"],
    truth: Bool[Tensor, "h w"] | None,
    of: str,
) -> str:
    if truth is None:
        return "No mask is known of this image, so there is nothing to compare the map with."
    made, whole = (saliency.overlap(m, truth[None]) for m in (chosen, torch.ones_like(chosen)))
    rows = [
        (name, bar(float(made[k]), chance=float(whole[k])), f"{float(made[k]):.2f}")
        for k, name in _MEASURES.items()
    ]
    caption = (
        f"Inside the white line, against the mask of the {escape(of)}; dashed: the whole image"
    )
    on = share_on(pixels, truth[None])[0]
    ends = f"{on:.0%} of all paths end on it" if on.isfinite() else "No path ends anywhere"
    below = f"{ends}; it covers {truth.double().mean():.0%} of the image."
    return table(caption, rows) + below


def _count(n: float, thing: str) -> str:
    number = f"{n:,.0f}" if n < 1e9 else f"{n:.1e}"
    return f"{number} {thing}{'s' * (n != 1)}"
