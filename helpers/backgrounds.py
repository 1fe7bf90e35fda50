"""Remove, replace and mix backgrounds, and plant shortcuts.

Sources: "Targeted Background Removal Creates Interpretable Feature Visualizations", section IV
(training sets: black, noise, mixed), and "Noise or Signal: The Role of Image Backgrounds in Object
Recognition" (ImageNet-9's eight variants, masks from boxes by GrabCut).

A mask decides and nothing else: True is foreground, kept bit for bit, False is background. So a
black pixel of an object stays the object's. PASCAL VOC's void pixels are True or False like any
other by the time they arrive here: `helpers.photos.voc` gives a thin void band to the nearer side,
at most 3 px of it to the object, and all other void to the background.

Every function returns new `ImageSet`s and shares what it does not change. Labels, masks, parts,
boxes and views still hold afterwards; where a variant shows no object, they say what was there and
where. `backdrops` says what was behind the object in the original, except where objects move to
other backgrounds (`on_backgrounds` and the mixed `variants`): there it is the donor's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from joblib import Parallel, cpu_count, delayed
from torch import Tensor, nn

from helpers.imageset import ImageSet
from helpers.models import Normalised, frozen
from helpers.photos.pascal_voc import VOC_CLASSES

VARIANTS: dict[str, str] = {  # ImageNet-9's: name in the release -> title in the paper
    "original": "Original",
    "mixed_same": "Mixed-Same",
    "mixed_rand": "Mixed-Rand",
    "mixed_next": "Mixed-Next",
    "only_fg": "Only-FG",
    "no_fg": "No-FG",
    "only_bg_b": "Only-BG-B",
    "only_bg_t": "Only-BG-T",
}
_MIXED = {"mixed_same": "same", "mixed_rand": "random", "mixed_next": "next"}

_SMALLEST = 0.1  # of the box; a smaller GrabCut foreground is a failure (Noise or Signal)


def compose(
    foreground: UInt8[Tensor, "n 3 h w"],
    background: UInt8[Tensor, "n 3 h w"],
    masks: Bool[Tensor, "n h w"] | Float[Tensor, "n h w"],
) -> UInt8[Tensor, "n 3 h w"]:
    """Foreground where the mask is 1 (or True), background where it is 0, bit for bit.

    A soft mask in between mixes, mask * foreground + (1 - mask) * background, and rounds to the
    nearest whole value.

    Raises:
        ValueError: shapes that do not fit, or a mask value that is NaN or outside [0, 1].
    """
    n, _, h, w = foreground.shape
    if foreground.shape != background.shape or tuple(masks.shape) != (n, h, w):
        raise ValueError(
            f"foreground {tuple(foreground.shape)}, background {tuple(background.shape)} and masks "
            f"{tuple(masks.shape)} do not fit: valid are (n, 3, h, w) twice and (n, h, w)"
        )
    if masks.dtype == torch.bool:
        # bytes wrap around, so this is exact; on processors torch.where takes ten times as long
        return background + (foreground - background) * masks[:, None]
    if not ((masks >= 0) & (masks <= 1)).all():  # NaN fails both
        raise ValueError("mask values must lie in [0, 1], and some do not or are NaN")
    mixture = torch.lerp(background.float(), foreground.float(), masks[:, None].float())
    return mixture.round_().byte()


def standard(images: ImageSet) -> ImageSet:
    """The images as they are (section IV, the first training set)."""
    return images


def black(images: ImageSet) -> ImageSet:
    """The background exactly 0: image x mask (section IV, the second training set).

    An empty mask gives an all-black picture; `removable` tells which images have both sides.

    Raises:
        ValueError: no masks.
    """
    return replace(images, images=images.images * _masks(images, "black")[:, None])


def noise(images: ImageSet, *, seed: int, mean: float = 0.0, std: float = 0.5) -> ImageSet:
    """The background black, then Gaussian noise added to it (section IV, the third training set).

    The noise is fixed per image, as in the paper, where "all backgrounds were removed prior to
    training". That of an image follows from `seed` and its id (its row, in a set without ids), so
    it is the same in any subset. It is independent per pixel and channel and clipped to 0..255:
    around a mean of 0 half of the background values stay 0.

    The paper states neither mean nor standard deviation; ours are guesses.

    Args:
        mean: of the noise before clipping, in units of the [0, 1] range.
        std: standard deviation, likewise; at least 0.

    Raises:
        ValueError: no masks, or a mean or std that is not finite or a negative std.
    """
    masks = _masks(images, "noise")
    if not (math.isfinite(mean) and 0 <= std < math.inf):
        raise ValueError(f"noise needs a finite mean and a finite std >= 0, not {mean} and {std}")
    drawn = np.empty(images.images.shape, np.uint8)
    for row, name in enumerate(images.ids or range(len(images))):
        values = _generator(seed, name).standard_normal(drawn.shape[1:], np.float32)
        values = values * np.float32(255 * std) + np.float32(255 * mean)
        drawn[row] = np.rint(values.clip(0, 255))
    background = torch.from_numpy(drawn).to(images.images.device)
    return replace(images, images=compose(images.images, background, masks))


def mixed(images: ImageSet, *, seed: int) -> ImageSet:
    """Half of the images of every class black, the rest untouched (section IV, the fourth set).

    Which ones follows from `seed`; the order of rows stays. The paper halves the dataset; we halve
    each class, so that black does not come to mean a class. Where a class has an odd number n, the
    first such class (in the order of class_names) gets (n + 1) / 2 black images, the next
    (n - 1) / 2, and so on in turn, so the whole set is half black as well.

    Raises:
        ValueError: no masks.
    """
    masks = _masks(images, "mixed")
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[images.labels.cpu()[shuffled].argsort(stable=True)]
    untouched = torch.ones(len(images), dtype=torch.bool)
    untouched[by_class[::2]] = False  # every other one: half of each run of one class
    kept = masks | untouched.to(masks.device)[:, None, None]
    return replace(images, images=images.images * kept[:, None])


TRAINING_SETS: dict[str, Callable[[ImageSet, int], ImageSet]] = {  # called with (images, seed)
    "standard": lambda images, seed: standard(images),
    "black": lambda images, seed: black(images),
    "noise": lambda images, seed: noise(images, seed=seed),
    "mixed": lambda images, seed: mixed(images, seed=seed),
}


def removable(images: ImageSet) -> Bool[Tensor, " n"]:
    """Which images have at least one foreground and at least one background pixel.

    Raises:
        ValueError: no masks.
    """
    masks = _masks(images, "removable").flatten(1)
    return masks.any(1) & ~masks.all(1)


def boxes_of(masks: Bool[Tensor, "n h w"]) -> Int64[Tensor, "n 4"]:
    """The box x0, y0, x1, y1 (pixels, half open) around each mask; zeros if it is empty."""
    h, w = masks.shape[1:]
    columns, rows = masks.any(1).byte(), masks.any(2).byte()  # argmax finds the first of the ones
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1, y1 = w - columns.flip(1).argmax(1), h - rows.flip(1).argmax(1)
    return torch.stack((x0, y0, x1, y1), 1) * masks.flatten(1).any(1)[:, None]


def tiled(images: ImageSet) -> tuple[UInt8[Tensor, "n 3 h w"], Bool[Tensor, " n"]]:
    """Only-BG-T: each picture with its object's box filled from the background beside it.

    The strip is the largest of four: left or right of the box at full height, above or below it at
    full width; of equal ones the first in this order. Its copies are laid side by side over the
    whole picture from the top left corner, and the box shows what lies there. Outside the box
    the picture is untouched. The box comes from `boxes`, else it is the mask's.

    Returns:
        The backgrounds, and which are usable. A picture without an object (an empty box), or whose
        box leaves no strip of a pixel, is not: it comes back black, so that no object leaks.

    Raises:
        ValueError: neither boxes nor masks, or a box that reaches out of its picture.
    """
    boxes = _boxes(images) if images.boxes is not None else boxes_of(_masks(images, "tiled"))
    n, _, h, w = images.images.shape
    x0, y0, x1, y1 = boxes.T
    none, wide, high = torch.zeros_like(x0), torch.full_like(x0, w), torch.full_like(x0, h)
    strips = torch.stack(  # each x, y, width, height
        [
            torch.stack((none, none, x0, high)),
            torch.stack((x1, none, w - x1, high)),
            torch.stack((none, none, wide, y0)),
            torch.stack((none, y1, wide, h - y1)),
        ]
    )
    area, largest = (strips[:, 2] * strips[:, 3]).max(0)
    x, y, width, height = strips[largest, :, torch.arange(n, device=boxes.device)].T[..., None]
    across, down = (torch.arange(side, device=boxes.device) for side in (w, h))
    columns = x + across % width.clamp(min=1)
    rows = y + down % height.clamp(min=1)
    usable = (x0 < x1) & (y0 < y1) & (area > 0)
    # where there is no strip, indices may fall outside: read any pixel, it is blackened below
    rows = rows.clamp(max=h - 1)[:, None, :, None].expand(n, 3, h, w)
    columns = columns.clamp(max=w - 1)[:, None, None, :].expand(n, 3, h, w)
    strip_everywhere = images.images.gather(2, rows).gather(3, columns)
    filled = compose(strip_everywhere, images.images, _inside(boxes, h, w))
    return filled * usable[:, None, None, None], usable


def on_backgrounds(
    images: ImageSet,
    which: Literal["same", "random", "next"],
    *,
    seed: int,
    donors: ImageSet | None = None,
) -> ImageSet:
    """Mixed-Same, -Rand and -Next: each object on the `tiled` background of another image.

    - "same": of the object's own class.
    - "random": of a class drawn uniformly among those with a usable background, its own included.
    - "next": of the next class, in the order of class_names and from the last on to the first; a
      class without a usable background of another image is skipped. It is never the object's own.

    Within the class every background is equally likely. Never is it the image's own: a draw that
    hits the very same picture is repeated. `backdrops` becomes the donor's. The whole draw follows
    from (which, seed, the sets).

    Deviations: the object is pasted by its mask, not, as in the original code, wherever the
    cut-out is not black, which loses the object's own black; the original may draw an image itself,
    and without that the object's own class is rarer in "random" by a factor of 1 - 1/(its images)
    at most; and the classes of "random" are those of `donors`.

    Args:
        donors: where backgrounds come from, with boxes or masks; by default `images`. "The same
            picture" is one with the same id; in sets without ids, the same row, and never one of
            other donors.

    Raises:
        ValueError: no masks; pictures of different sizes; no background but an image's own, in
            "same" and "next" in all classes that are asked for; other class names in these two.
    """
    valid = _MIXED.values()
    if which not in valid:
        raise ValueError(f"no backgrounds {which!r}; there are {', '.join(valid)}")
    _masks(images, "on_backgrounds")
    donors = images if donors is None else donors
    _check_donors(images, donors, same_classes=which != "random")
    backgrounds, usable = tiled(donors)
    rows = _donor_rows(images, donors, usable, which, seed)
    if (rows < 0).any():
        name = images[rows < 0].names()[0]
        whose = {"same": f" of the class {name!r}", "next": f" of a class other than {name!r}"}
        raise ValueError(
            "an image has no background to move to: donors must have a usable background (see "
            f"tiled) of another image{whose.get(which, '')}"
        )
    return _moved(images, donors, backgrounds, rows)


def on_random_backgrounds(
    images: ImageSet, *, seed: int, donors: ImageSet | None = None
) -> ImageSet:
    """Mixed-Rand: `on_backgrounds` with "random"."""
    return on_backgrounds(images, "random", seed=seed, donors=donors)


@dataclass(frozen=True, eq=False)
class Variants:
    """What `variants` made. Row i is the same object in every set, and the same image's donor."""

    sets: dict[str, ImageSet]  # by release name, in the order of VARIANTS
    donors: dict[str, Int64[Tensor, " n"]]  # by mixed variant: the background's row among donors
    failures: dict[str, int]  # reason -> images left out; only reasons that occurred


def variants(
    images: ImageSet, *, seed: int, donors: ImageSet | None = None, iterations: int = 5
) -> Variants:
    """ImageNet-9's eight variants (Noise or Signal) of any images.

    - original: the image.
    - mixed_same, mixed_rand, mixed_next: the object `on_backgrounds` of other images.
    - only_fg: the background `black`. no_fg: the object black in its own shape.
    - only_bg_b: the object's box black. only_bg_t: the box `tiled` from the background beside it.

    Images with masks are cut by them. Images with boxes only get `grabcut_masks`. The box is that
    of `boxes`, else the mask's.

    An image of which any variant fails is left out of all, so that every set shows the same objects
    in the same rows, in the order of `images`. It is counted in `failures` once, under the first
    that holds of: an empty mask or box; a mask that reaches out of a given box; a box that leaves
    no strip of background; a GrabCut foreground below 10 % of its box; no other image of its class
    to take a background from (so a class of one image is left out); no image of another class.
    All may fail: the sets are empty then. An image left out still lends its background to others
    where it has a strip.

    All sets carry the masks, made ones too, and the labels, parts, boxes and views of the original;
    in no_fg, only_bg_b and only_bg_t they say what was where. Eight sets take eight times the
    memory of the images.

    The draws are those of `on_backgrounds` for all `images` with this seed, left out or not.

    Deviations: those of `on_backgrounds`; the original code leaves out images whose box takes more
    than 90 % of the picture or lies mostly outside its centre, and takes backgrounds only from
    images that it kept.

    Args:
        donors: where backgrounds come from, of the same classes, with boxes or masks; by default
            `images`.
        iterations: of GrabCut, where it is needed.

    Raises:
        ValueError: neither masks nor boxes; a box that reaches out of its picture; donors of
            another size or other class names; no iteration.
    """
    donors = images if donors is None else donors
    _check_donors(images, donors, same_classes=True)
    if images.masks is None and images.boxes is not None:
        masks, small = grabcut_masks(images, iterations=iterations)
        masks = masks.to(images.images.device)
    else:
        masks = _masks(images, "variants")
        small = torch.zeros(len(images), dtype=torch.bool)
    boxes = boxes_of(masks) if images.boxes is None else _boxes(images)
    inside = _inside(boxes, *images.images.shape[2:])
    filled, strip = tiled(replace(images, masks=masks))
    backgrounds, usable = (filled, strip) if donors is images else tiled(donors)
    rows = {
        name: _donor_rows(images, donors, usable, which, seed) for name, which in _MIXED.items()
    }
    kept, failures = _sorted_out(
        len(images),
        {
            "the mask or the box is empty": ~(masks.flatten(1).any(1) & inside.flatten(1).any(1)),
            "the mask reaches out of the box": (masks & ~inside).flatten(1).any(1),
            "the object fills the image": ~strip,
            "GrabCut's foreground is below 10 % of its box": small,
            "no other image of its class has a background": rows["mixed_same"] < 0,
            "no image of another class has a background": rows["mixed_next"] < 0,
        },
    )
    rows = {name: chosen[kept] for name, chosen in rows.items()}
    original = replace(images, masks=masks)[kept]
    pictures = original.images
    made = {
        "original": original,
        "only_fg": black(original),
        "no_fg": replace(original, images=pictures * ~original.masks[:, None]),
        "only_bg_b": replace(original, images=pictures * ~inside[kept.to(inside.device), None]),
        "only_bg_t": replace(original, images=filled[kept.to(filled.device)]),
        **{name: _moved(original, donors, backgrounds, rows[name]) for name in rows},
    }
    return Variants({name: made[name] for name in VARIANTS}, rows, failures)


def stamped(
    images: ImageSet, pattern: UInt8[Tensor, "3 _k _l"], *, x: int, y: int
) -> tuple[ImageSet, Bool[Tensor, "n h w"]]:
    """A planted shortcut: the pattern pasted into every picture, its top left pixel at (x, y).

    What it covers of an object is no longer visible: masks turn False there and parts 0. Boxes
    stay.

    Returns:
        The stamped images, and where the stamp is.

    Raises:
        ValueError: a pattern that reaches out of the picture.
    """
    (h, w), (height, width) = images.images.shape[2:], pattern.shape[1:]
    if not (0 <= x <= w - width and 0 <= y <= h - height):
        raise ValueError(
            f"a pattern of {width} x {height} px at x {x}, y {y} does not fit into {w} x {h} px: "
            f"valid are 0 <= x <= {w - width} and 0 <= y <= {h - height}"
        )
    pictures, marks = images.images.clone(), torch.zeros_like(images.images[:, 0], dtype=torch.bool)
    pictures[:, :, y : y + height, x : x + width] = pattern.to(pictures.device)
    marks[:, y : y + height, x : x + width] = True
    masks = None if images.masks is None else images.masks & ~marks
    parts = None if images.parts is None else images.parts * ~marks
    return replace(images, images=pictures, masks=masks, parts=parts), marks


def grabcut_masks(
    images: ImageSet, *, iterations: int = 5, workers: int | None = None
) -> tuple[Bool[Tensor, "n h w"], Bool[Tensor, " n"]]:
    """Foreground masks by GrabCut (Rother 2004), started from `images.boxes`.

    The same masks come out whatever the number of workers and whatever other images are there.

    Args:
        iterations: of GrabCut; 5 in Noise or Signal.
        workers: threads; by default one per core.

    Returns:
        The masks, and which failed: foreground below 10 % of the box (Noise or Signal's rule), or
        a box that is empty or leaves no background. A failed image's mask is its box.

    Raises:
        ValueError: no boxes, a box that reaches out of its picture, or no iteration.
    """
    boxes = _boxes(images).cpu()
    if iterations < 1:
        raise ValueError(f"GrabCut needs at least 1 iteration, not {iterations}")
    # GrabCut measures distances between colours, so the order of channels does not matter
    pictures = images.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    masks = _inside(boxes, *images.images.shape[2:])
    inside = masks.flatten(1).sum(1)
    possible = masks.flatten(1).any(1) & ~masks.flatten(1).all(1)
    rows = possible.nonzero()[:, 0].tolist()
    cut = Parallel(n_jobs=workers or cpu_count(), prefer="threads")(
        delayed(_grabcut)(pictures[row], boxes[row].tolist(), iterations) for row in rows
    )
    found = torch.zeros_like(masks)
    for row, mask in zip(rows, cut, strict=True):
        found[row] = torch.from_numpy(mask)
    failed = ~possible | (found.flatten(1).sum(1) < _SMALLEST * inside)
    return torch.where(failed[:, None, None], masks, found), failed


def attribution_masks(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Foreground masks from attribution maps: what lies above each map's own Otsu threshold.

    Paper 1 tried removal by attribution and names no threshold; Otsu (1979) splits a map into the
    two groups of values that differ most, without a parameter (found to 1/256 of the map's range).
    A map of one value has no such split: nothing in it says what to remove, so its image keeps
    everything (all True).

    Args:
        maps: higher is more foreground; any range, such as those of `helpers.saliency.grad_cam`.

    Raises:
        ValueError: a value that is not finite.
    """
    from skimage.filters import threshold_otsu  # a third of a second that stored masks do without

    if not maps.isfinite().all():
        raise ValueError("attribution maps must be finite, and some values are not")
    values = maps.detach().cpu().double()  # in float32, a histogram of a narrow range has no bins
    masks = torch.ones_like(values, dtype=torch.bool)
    for mask, value in zip(masks, values, strict=True):
        if value.numel() and value.min() < value.max():
            mask[:] = value > float(threshold_otsu(value.numpy()))
    return masks.to(maps.device)


def segmented_masks(
    segmenter: nn.Module,
    images: ImageSet,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
) -> Bool[Tensor, "n h w"]:
    """Foreground masks by a segmentation network: paper 1's future work (section VI).

    Each pixel belongs to the class with the highest score. An image whose class has a VOC name
    ("dog") keeps the pixels of that class, so a person beside the dog is background, as in the
    masks of `helpers.photos.voc`. Any other image ("vehicle") keeps the pixels of all 20 classes.
    Where the network finds no such pixel the mask is empty; see `removable`.

    Args:
        segmenter: (n, 3, h, w) -> {"out": (n, 21, h, w)}, "background" and then VOC's classes, as
            `helpers.models.pretrained_segmenter` and torchvision give. One without a layer
            `normalise` gets ImageNet's normalisation before it. It moves to `device`; its mode is
            left as it was.

    Returns:
        The masks, on the device of `images`.

    Raises:
        ValueError: answers of another form, or no batch size.
    """
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    if not hasattr(segmenter, "normalise"):
        segmenter = nn.Sequential(Normalised(), segmenter)
    segmenter.to(device)
    number = {name: i for i, name in enumerate(VOC_CLASSES, start=1)}
    own = torch.tensor([number.get(name, 0) for name in images.class_names])  # 0: any object
    own = own[images.labels.cpu()].to(device)[:, None, None]
    masks = torch.zeros(len(images), *images.images.shape[2:], dtype=torch.bool)
    with frozen(segmenter), torch.no_grad():
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            batch = images.images[rows].to(device).float() / 255
            answer = segmenter(batch)
            scores = answer.get("out") if isinstance(answer, Mapping) else None
            shape = (len(batch), 1 + len(VOC_CLASSES), *batch.shape[2:])
            if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
                found = tuple(scores.shape) if isinstance(scores, Tensor) else "nothing"
                raise ValueError(
                    f'the segmenter gave {found} as "out"; valid is {shape}: scores of background '
                    "and VOC's 20 classes for every pixel"
                )
            chosen = scores.argmax(1)
            masks[rows] = torch.where(own[rows] > 0, chosen == own[rows], chosen > 0).cpu()
    return masks.to(images.images.device)


def agreement(
    masks: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]
) -> dict[str, Float[Tensor, " n"]]:
    """How well each mask's foreground agrees with the truth's: "iou", "precision" and "recall".

    All in [0, 1]. If both are empty all three are 1. If one is, all three are 0: the measure that
    has nothing to divide by is taken as 0 as well.

    Raises:
        ValueError: different shapes.
    """
    if masks.shape != truth.shape:
        raise ValueError(f"masks are {tuple(masks.shape)} and the truth {tuple(truth.shape)}")
    masks, truth = masks.flatten(1), truth.flatten(1)
    both, either = (masks & truth).sum(1), (masks | truth).sum(1)

    def share(of: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.where(either == 0, 1.0, both / of.clamp(min=1))

    return {"iou": share(either), "precision": share(masks.sum(1)), "recall": share(truth.sum(1))}


def _masks(images: ImageSet, what: str) -> Bool[Tensor, "n h w"]:
    if images.masks is not None:
        return images.masks
    first = "" if images.boxes is not None else "boxes are missing too; with boxes, "
    raise ValueError(
        f"{what}() needs ImageSet.masks to know where the object is, and they are missing. "
        f"To get masks: {first}grabcut_masks(images) makes them from ImageSet.boxes; set them with "
        "dataclasses.replace(images, masks=...)"
    )


def _boxes(images: ImageSet) -> Int64[Tensor, "n 4"]:
    if images.boxes is None:
        raise ValueError(
            "ImageSet.boxes are missing; where there are masks, boxes_of(images.masks) makes them"
        )
    h, w = images.images.shape[2:]
    starts, ends = images.boxes[:, :2], images.boxes[:, 2:]
    wrong = (starts < 0) | (starts > ends) | (ends > torch.tensor([w, h], device=ends.device))
    if wrong.any():
        row = int(wrong.any(1).nonzero()[0])
        raise ValueError(
            f"box {images.boxes[row].tolist()} of image {row} is not x0, y0, x1, y1 in a picture "
            f"of {w} x {h} px: valid are 0 <= x0 <= x1 <= {w} and 0 <= y0 <= y1 <= {h}"
        )
    return images.boxes


def _inside(boxes: Int64[Tensor, "n 4"], h: int, w: int) -> Bool[Tensor, "n h w"]:
    x0, y0, x1, y1 = boxes.T[..., None]
    across, down = (torch.arange(side, device=boxes.device) for side in (w, h))
    columns, rows = (x0 <= across) & (across < x1), (y0 <= down) & (down < y1)
    return rows[:, :, None] & columns[:, None, :]


def _generator(seed: int, name: str | int) -> np.random.Generator:
    """Equal for equal (seed, name), unrelated otherwise."""
    digest = hashlib.sha256(repr((seed, name)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _identities(
    images: ImageSet, donors: ImageSet
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " m"]]:
    """A number per image and per donor; equal where they are the same picture."""
    if images.ids and donors.ids:
        number = {name: i for i, name in enumerate(dict.fromkeys((*images.ids, *donors.ids)))}
        return (
            torch.tensor([number[name] for name in images.ids]),
            torch.tensor([number[name] for name in donors.ids]),
        )
    rows = torch.arange(len(images))
    return rows, rows if donors is images else len(images) + torch.arange(len(donors))


def _check_donors(images: ImageSet, donors: ImageSet, *, same_classes: bool) -> None:
    if donors.images.shape[1:] != images.images.shape[1:]:
        sizes = [" x ".join(map(str, s.images.shape[2:])) for s in (images, donors)]
        raise ValueError(f"images are {sizes[0]} px and donors {sizes[1]} px; both must be equal")
    if same_classes and donors.class_names != images.class_names:
        raise ValueError(
            f"donors have the classes {', '.join(donors.class_names)}; valid are those of the "
            f"images, {', '.join(images.class_names)}"
        )


def _donor_rows(
    images: ImageSet,
    donors: ImageSet,
    usable: Bool[Tensor, " m"],
    which: Literal["same", "random", "next"],
    seed: int,
) -> Int64[Tensor, " n"]:
    """For each image a usable donor that is another picture, or -1 where there is none."""
    own, pictures = _identities(images, donors)
    rows = usable.cpu().nonzero()[:, 0]
    pictures, labels = pictures[rows], donors.labels.cpu()[rows]
    offers = _offers(own, pictures, labels, len(donors.class_names))
    if which == "random":
        found, wanted = offers.any(1), None
    else:
        found, wanted = _wanted(images.labels.cpu(), offers, which)
        wanted = wanted[found]
        seed = int(_generator(seed, which).integers(2**63))  # draws unrelated to those of "random"
    chosen = torch.full_like(own, -1)
    chosen[found] = rows[_draw(own[found], wanted, pictures, labels, seed)]
    return chosen


def _offers(
    own: Int64[Tensor, " n"],
    pictures: Int64[Tensor, " m"],
    labels: Int64[Tensor, " m"],
    classes: int,
) -> Bool[Tensor, "n c"]:
    """Whether each class has a background of another picture than each image's own."""
    offers = torch.zeros(len(own), classes, dtype=torch.bool)
    for label in range(classes):
        two = pictures[labels == label].unique()[:2]  # of two pictures, one is another
        offers[:, label] = (own[:, None] != two).any(1)
    return offers


def _wanted(
    labels: Int64[Tensor, " n"], offers: Bool[Tensor, "n c"], which: Literal["same", "next"]
) -> tuple[Bool[Tensor, " n"], Int64[Tensor, " n"]]:
    """Whether there is a class for each image's background to be of, and which."""
    if which == "same":
        return offers.gather(1, labels[:, None])[:, 0], labels
    classes = offers.shape[1]
    ahead = (labels[:, None] + torch.arange(1, classes + 1)) % classes  # last comes its own
    others = offers.gather(1, ahead)
    others[:, -1] = False
    first = others.byte().argmax(1, keepdim=True)  # of the ones
    return others.any(1), ahead.gather(1, first)[:, 0]


def _draw(
    own: Int64[Tensor, " n"],
    wanted: Int64[Tensor, " n"] | None,
    pictures: Int64[Tensor, " m"],
    labels: Int64[Tensor, " m"],
    seed: int,
) -> Int64[Tensor, " n"]:
    """For each image a background of another picture and of the class wanted, by default of any."""
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    starts, present = counts.cumsum(0) - counts, counts.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.empty_like(own)
    todo = torch.arange(len(own))
    while len(todo):
        if wanted is None:
            of = present[torch.randint(len(present), (len(todo),), generator=generator)]
        else:
            of = wanted[todo]
        share = torch.rand(len(todo), generator=generator, dtype=torch.float64)
        chosen[todo] = by_class[starts[of] + (share * counts[of]).long()]
        todo = todo[pictures[chosen[todo]] == own[todo]]
    return chosen


def _moved(
    images: ImageSet,
    donors: ImageSet,
    backgrounds: UInt8[Tensor, "m 3 h w"],
    rows: Int64[Tensor, " n"],
) -> ImageSet:
    """Each object on the background of that row."""
    rows = rows.to(backgrounds.device)
    return replace(
        images,
        images=compose(images.images, backgrounds[rows], images.masks),
        backdrops=None if donors.backdrops is None else donors.backdrops[rows],
        backdrop_names=donors.backdrop_names,
    )


def _sorted_out(
    n: int, wrong: Mapping[str, Bool[Tensor, " n"]]
) -> tuple[Bool[Tensor, " n"], dict[str, int]]:
    """Which images nothing is wrong with, and how many of the others by their first reason."""
    kept, failures = torch.ones(n, dtype=torch.bool), {}
    for reason, images in wrong.items():
        first = kept & images.cpu()
        if first.any():
            failures[reason] = int(first.sum())
        kept &= ~first
    return kept, failures


def _grabcut(
    picture: UInt8[np.ndarray, "h w 3"], box: list[int], iterations: int
) -> Bool[np.ndarray, "h w"]:
    x0, y0, x1, y1 = box
    mask = np.zeros(picture.shape[:2], np.uint8)
    models = np.zeros((2, 1, 65))  # five Gaussians each for background and foreground
    cv2.setRNGSeed(0)  # the state is per thread, and a thread cuts many pictures
    cv2.grabCut(
        picture, mask, (x0, y0, x1 - x0, y1 - y0), *models, iterations, cv2.GC_INIT_WITH_RECT
    )
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
