"""From picture files to an `ImageSet`: choose squares, decode in threads, report refusals."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import joblib
import numpy as np
import psutil
import torch
from jaxtyping import Bool, Int64, UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from helpers.imageset import ImageSet
from helpers.photos.opening import UnusablePicture, decode, quiet, silhouette

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Refusal:
    """A file that was not used, and why, in words."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a reader found: the usable pictures, and every file it had to refuse."""

    images: ImageSet
    refused: tuple[Refusal, ...] = ()

    def or_raise(self) -> ImageSet:
        """The pictures, if nothing at all was refused.

        Raises:
            ValueError: naming every refused file with its reason.
        """
        if self.refused:
            listed = "\n".join(map(str, self.refused))
            raise ValueError(f"{len(self.refused)} files refused:\n{listed}")
        return self.images

    def __repr__(self) -> str:
        """One line of counts, then one line for each refused file."""
        counts = self.images.counts()
        head = (
            f"{len(self.images):,} pictures of {self.images.images.shape[-1]} px in "
            f"{sum(map(bool, counts.values()))} of {len(counts)} classes, "
            f"{len(self.refused)} file{'s' * (len(self.refused) != 1)} refused"
        )
        return "\n".join([head, *map(str, self.refused)])


@dataclass(frozen=True)
class Square:
    """A square within a photograph of width x height px, in its full-size pixels."""

    x: int
    y: int
    side: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture to be: where its pixels are, its label, and once planned its square and mask."""

    id: str
    image: Path
    label: int
    square: Square | None = None  # None: the centre
    mask: Bool[np.ndarray, "size size"] | None = None


def each(
    work: Callable[[Item], Made], items: Sequence[Item], name: Callable[[Item], str], doing: str
) -> tuple[list[Made], list[Refusal]]:
    """`work` on every item, in order, in a pool of threads (decoding releases Python's lock).

    Where it raises UnusablePicture the item is refused under its name. A bar appears on standard
    output after five seconds; not in a log file.
    """

    def attempt(item: Item) -> Made | Refusal:
        try:
            return work(item)
        except UnusablePicture as error:
            return Refusal(name(item), str(error))

    bar = {"desc": doing, "total": len(items), "unit": " files", "mininterval": 0.5, "delay": 5}
    with quiet(), ThreadPoolExecutor(min(16, joblib.cpu_count())) as pool:
        done = pool.map(attempt, items)
        results = list(tqdm(done, **bar, leave=False, file=sys.stdout, disable=None))
    made = [r for r in results if not isinstance(r, Refusal)]
    return made, [r for r in results if isinstance(r, Refusal)]


def balanced(pictures: Sequence[Picture], limit: int | None) -> list[Picture]:
    """`limit` pictures spread over the classes, in their old order.

    Within a class they are ranked by a checksum of their id: a fixed choice that does not favour
    the first files (often one photographer, one day) and barely changes when files are added.
    """
    if limit is None:
        return list(pictures)
    if limit < 1:
        raise ValueError(f"limit must be at least 1 picture (or None for all), not {limit}")
    turn, ranked = Counter(), []
    for row in sorted(range(len(pictures)), key=lambda i: zlib.crc32(pictures[i].id.encode())):
        label = pictures[row].label
        ranked.append((turn[label], label, row))
        turn[label] += 1
    return [pictures[row] for row in sorted(row for *_, row in sorted(ranked)[:limit])]


def largest_square(width: int, height: int, own: Bool[np.ndarray, "h w"] | None = None) -> Square:
    """The largest square: in the middle or, given an object's mask, where it holds most of it."""
    side = min(width, height)
    start = (max(width, height) - side) // 2
    if own is not None and width != height:
        sums = np.concatenate([[0], np.cumsum(own.sum(0 if width > height else 1))])
        held = sums[side:] - sums[:-side]
        best = np.flatnonzero(held == held.max())
        start = int(best[np.abs(best - start).argmin()])
    x, y = (start, 0) if width > height else (0, start)
    return Square(x, y, side, width, height)


def with_mask(
    picture: Picture, own: Bool[np.ndarray, "h w"], size: int, square: Square | None = None
) -> Picture:
    """The picture with its square chosen, and the object's mask cut out and scaled."""
    if not own.any():
        raise UnusablePicture("empty: no object is marked")
    square = square or largest_square(own.shape[1], own.shape[0], own)
    box = (square.x, square.y, square.x + square.side, square.y + square.side)
    small = Image.fromarray(own).resize((size, size), Image.Resampling.NEAREST, box=box)
    mask = np.array(small)
    if not mask.any():
        raise UnusablePicture(f"its object is smaller than one pixel at {size} px")
    return Picture(picture.id, picture.image, picture.label, square, mask)


def with_masks(
    pictures: Sequence[Picture], mask_of: dict[str, Path], size: int
) -> tuple[list[Picture], list[Refusal]]:
    """Each picture with its two-valued mask (by id); refused where that is missing or unusable."""

    def plan(picture: Picture) -> Picture:
        if picture.id not in mask_of:
            raise UnusablePicture("it has no mask")
        try:
            return with_mask(picture, silhouette(mask_of[picture.id]), size)
        except UnusablePicture as error:
            raise UnusablePicture(f"its mask {mask_of[picture.id].name}: {error}") from None

    return each(plan, pictures, lambda p: p.id, "reading masks")


def read(
    pictures: Sequence[Picture],
    refused: Iterable[Refusal],
    *,
    class_names: Sequence[str],
    size: int,
    what: str,
) -> Loaded:
    """Decode the planned pictures into one ImageSet; announce in one line what was refused.

    Raises:
        ValueError: no usable picture at all, or not enough memory for so many.
    """
    affordable(len(pictures), size, what)
    images, rows, unread = decoded(pictures, size, what)
    refused = (*refused, *unread)
    announce(refused, len(rows), what)
    kept = [pictures[row] for row in rows]
    return Loaded(together(kept, images if not unread else images[rows], class_names), refused)


def affordable(count: int, size: int, what: str) -> None:
    """Nothing, where so many pictures with their masks fit into memory.

    Raises:
        ValueError: they do not.
    """
    needed, free = count * size * size * 4, psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise ValueError(
            f"{what}: {count:,} pictures of {size} px need {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB of memory are free; pass a smaller size or limit=n"
        )


def decoded(
    pictures: Sequence[Picture], size: int, what: str
) -> tuple[UInt8[Tensor, "n 3 size size"], list[int], list[Refusal]]:
    """The pixels of all pictures, the rows that could be read, and why the others could not."""
    images = torch.empty((len(pictures), 3, size, size), dtype=torch.uint8)

    def place(row: int) -> int:
        images[row] = torch.tensor(_pixels(pictures[row], size)).permute(2, 0, 1)
        return row

    rows, unread = each(
        place, range(len(pictures)), lambda row: pictures[row].id, "reading " + what
    )
    return images, rows, unread


def announce(refused: Sequence[Refusal], count: int, what: str) -> None:
    """Say in one line what was refused beside the `count` pictures that were read.

    Raises:
        ValueError: not one was.
    """
    if not count:
        why = "; ".join(map(str, refused[:5])) or "no picture file was found"
        raise ValueError(f"{what}: not one usable picture ({why})")
    if refused:
        first = "; ".join(map(str, refused[:3])) + ("; ..." if len(refused) > 3 else "")
        print(f"{what}: {len(refused):,} refused, {count:,} read. {first}")


def together(
    pictures: Sequence[Picture], images: UInt8[Tensor, "n 3 size size"], class_names: Sequence[str]
) -> ImageSet:
    """Planned pictures and their pixels as a set, with masks and boxes where they have masks."""
    masks = None
    if pictures[0].mask is not None:
        masks = torch.from_numpy(np.stack([p.mask for p in pictures]))
    return ImageSet(
        images=images,
        labels=torch.tensor([p.label for p in pictures]),
        class_names=tuple(class_names),
        masks=masks,
        boxes=None if masks is None else _boxes(masks),
        ids=tuple(p.id for p in pictures),
    )


def _pixels(picture: Picture, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The chosen square of one photograph, scaled."""
    side = picture.square.side if picture.square else None
    image, (width, height) = decode(picture.image, size=size, side=side)
    square = picture.square or largest_square(width, height)
    if (square.width, square.height) != (width, height):
        raise UnusablePicture(
            f"its mask has {square.width} x {square.height} px, the picture {width} x {height}"
        )
    fx, fy = image.width / width, image.height / height  # below 1 where the decoder has halved
    box = (
        square.x * fx,
        square.y * fy,
        min((square.x + square.side) * fx, image.width),
        min((square.y + square.side) * fy, image.height),
    )
    # bilinear over the whole footprint, as the pretrained networks saw their pictures
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _boxes(masks: Bool[Tensor, "n h w"]) -> Int64[Tensor, "n 4"]:
    """x0, y0, x1, y1 around the True pixels of each mask, half open."""
    across, down = masks.any(1).int(), masks.any(2).int()
    x1 = across.shape[1] - across.flip(1).argmax(1)
    y1 = down.shape[1] - down.flip(1).argmax(1)
    return torch.stack([across.argmax(1), down.argmax(1), x1, y1], 1)
