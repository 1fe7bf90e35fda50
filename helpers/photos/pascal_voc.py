"""PASCAL VOC's segmentation photographs: one label each, with the mask of what is labelled."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from helpers.photos.opening import UnusablePicture, numbers
from helpers.photos.public_sets import find
from helpers.photos.reading import Loaded, Picture, Square, balanced, each, read, with_mask

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_VOID = 255  # "do not judge this pixel": a thin band around objects, and hard regions
_BAND = 3  # px; a little more than half of VOC's 5 px band
_SMALLEST = 0.02  # of the photograph's area; a smaller crop is a blur when enlarged

ClassMask = UInt8[np.ndarray, "h w"]  # 1 to 20 a class, 0 background, 255 void
ObjectMask = Bool[np.ndarray, "h w"]


def voc(
    data_root: str | PathLike[str] | None,
    *,
    year: str | int = "2012",
    split: str = "trainval",
    size: int = 224,
    by: Literal["largest", "crops"] = "largest",
    limit: int | None = None,
) -> Loaded:
    """PASCAL VOC photographs with class masks, as pictures with one label.

    VOC photographs hold several objects; a classifier with one answer needs one label.

    - `by="largest"` (default): one picture per photograph, labelled with the class that covers
      most pixels; the mask is *every* pixel of that class. The scene around it stays natural, and
      blackening the background leaves, and blackening the object removes, all of the class.
    - `by="crops"`: one picture per object, a square a quarter larger than the object's box. More
      pictures and cleaner labels, but less background. Objects come from `SegmentationObject` where
      it exists; otherwise each connected region of one class is an object (so an animal behind a
      post counts twice). Objects below 2 % of the photograph are left out, and a photograph with
      only such objects is refused.

    Void pixels (255) are never an object by themselves. The thin void band over each outline is
    shared out to the nearer side, at most 3 px: leaving it out would erode the object and leave
    its rim in the background, taking it in would carry a rim of background along.

    Args:
        data_root: the folder that holds `VOCdevkit`; None is the course's own `data/cache`.
        split: a list in `ImageSets/Segmentation`: train, val, trainval (2007 also: test).

    Raises:
        MissingDataset: it is not there; says what to fetch.
        ValueError: no such year, split or `by`, or nothing usable.
    """
    root = find(data_root, f"voc{year}")
    lists = {p.stem: p for p in sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))}
    if split not in lists:
        raise ValueError(f"VOC {year} has no split {split!r} here; it has {', '.join(lists)}")
    stems = lists[split].read_text().split()

    def plan(stem: str) -> list[Picture]:
        return (_largest if by == "largest" else _crops)(root, stem, size)

    planned, refused = each(plan, stems, lambda s: f"SegmentationClass/{s}.png", "reading masks")
    pictures = balanced([p for of_one in planned for p in of_one], limit)
    return read(pictures, refused, class_names=VOC_CLASSES, size=size, what=f"VOC {year}")


def _largest(root: Path, stem: str, size: int) -> list[Picture]:
    mask, areas = _class_mask(root, stem)
    label = int(areas.argmax())
    own = _to_the_outline(mask == label, mask == _VOID)
    return [with_mask(_picture(root, stem, label), own, size)]


def _crops(root: Path, stem: str, size: int) -> list[Picture]:
    mask, _ = _class_mask(root, stem)
    height, width = mask.shape
    pictures = []
    for label, own in _objects(root, stem, mask):
        if own.sum() < _SMALLEST * own.size:
            continue
        own = _to_the_outline(own, mask == _VOID)
        ys, xs = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        extent = max(xs[-1] - xs[0], ys[-1] - ys[0]) + 1
        side = int(min(1.25 * extent, width, height))
        x = int(np.clip((xs[0] + xs[-1] + 1 - side) // 2, 0, width - side))
        y = int(np.clip((ys[0] + ys[-1] + 1 - side) // 2, 0, height - side))
        picture = _picture(root, stem, label, f"#{len(pictures) + 1}")
        pictures.append(with_mask(picture, own, size, Square(x, y, side, width, height)))
    if not pictures:
        raise UnusablePicture(f"no object covers {_SMALLEST:.0%} of the photograph")
    return pictures


def _picture(root: Path, stem: str, label: int, which: str = "") -> Picture:
    return Picture(f"{stem}{which}", root / "JPEGImages" / f"{stem}.jpg", label - 1)


def _class_mask(root: Path, stem: str) -> tuple[ClassMask, Int64[np.ndarray, " classes"]]:
    """The class numbers, and how many pixels each covers (background and void: 0)."""
    mask = numbers(root / "SegmentationClass" / f"{stem}.png")
    areas = np.bincount(mask.ravel(), minlength=256)
    areas[[0, _VOID]] = 0
    if unknown := np.flatnonzero(areas[len(VOC_CLASSES) + 1 :]).tolist():
        unknown = [n + len(VOC_CLASSES) + 1 for n in unknown]
        raise UnusablePicture(f"class numbers {unknown}; VOC has 1 to {len(VOC_CLASSES)}")
    if not areas.any():
        raise UnusablePicture("empty: no object is marked")
    return mask, areas


def _objects(root: Path, stem: str, mask: ClassMask) -> Iterator[tuple[int, ObjectMask]]:
    """Class number and mask of every object, in a fixed order."""
    known = (mask > 0) & (mask < _VOID)
    by_object = root / "SegmentationObject" / f"{stem}.png"
    if by_object.exists():
        objects = numbers(by_object)
        if objects.shape != mask.shape:
            raise UnusablePicture("the class mask and the object mask have different sizes")
        for which in np.unique(objects[(objects > 0) & (objects < _VOID)]).tolist():
            own = (objects == which) & known
            if own.any():
                yield int(np.bincount(mask[own]).argmax()), own
        return
    for label in np.unique(mask[known]).tolist():
        count, regions = cv2.connectedComponents((mask == label).astype(np.uint8))
        for which in range(1, count):
            yield label, regions == which


def _to_the_outline(own: ObjectMask, void: ObjectMask) -> ObjectMask:
    """The object grown to the middle of the void band around it."""
    if not void.any():
        return own
    to_own = cv2.distanceTransform((~own).astype(np.uint8), cv2.DIST_L2, 3)
    to_other = cv2.distanceTransform((own | void).astype(np.uint8), cv2.DIST_L2, 3)
    return own | (void & (to_own <= to_other) & (to_own <= _BAND))
