"""The one thing every notebook speaks: a batch of labelled pictures with what is known about them.

A procedural world, PASCAL VOC, ImageNet-9, a saliency benchmark and your own folder all become an
`ImageSet`. Everything downstream (background surgery, training, explanations) takes one and asks no
further questions about where it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N pictures of one size, their labels and, where known, masks, parts, boxes, views, backdrops.

    Pictures stay uint8 in memory (a quarter of the bytes) and become float on the device: see
    `to_float`. Every per-image field has N rows, so `images[rows]` picks consistently from all of
    them.

    Raises:
        ValueError: a field has another number of rows or another size than `images`, or a label
            has no class name.
    """

    images: UInt8[Tensor, "n 3 h w"]  # 0..255, RGB
    labels: Int64[Tensor, " n"]  # index into class_names
    class_names: tuple[str, ...]
    masks: Bool[Tensor, "n h w"] | None = None  # True where the labelled object is visible
    boxes: Int64[Tensor, "n 4"] | None = None  # x0, y0, x1, y1 in pixels, half open
    parts: UInt8[Tensor, "n h w"] | None = None  # index into part_names; 0 is "not the object"
    views: Float[Tensor, " n"] | None = None  # where the object faces: -1 left, +1 right, 0 neither
    backdrops: Int64[Tensor, " n"] | None = None  # index into backdrop_names
    ids: tuple[str, ...] = ()  # one readable name per picture: a file name, or "world 7, scene 12"
    part_names: tuple[str, ...] = ()
    backdrop_names: tuple[str, ...] = ()
    superclass_names: tuple[str, ...] = ()
    superclasses: tuple[int, ...] = ()  # superclass of each class, index into superclass_names

    def __post_init__(self) -> None:
        n, _, h, w = self.images.shape
        for name in _ROWS:
            value = getattr(self, name)
            if value is not None and len(value) not in ({n} if name != "ids" else {n, 0}):
                raise ValueError(f"ImageSet.{name} has {len(value)} rows for {n} images")
            if (
                name in ("masks", "parts")
                and value is not None
                and tuple(value.shape[1:]) != (h, w)
            ):
                raise ValueError(
                    f"ImageSet.{name} is {tuple(value.shape[1:])}, images are {(h, w)}"
                )
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {len(self.class_names)} class names"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> ImageSet:
        """The chosen rows (an index, a slice, indices or a boolean per row), always as a set."""
        if isinstance(rows, int):
            rows = [rows]
        index = torch.arange(len(self))[rows if isinstance(rows, slice) else torch.as_tensor(rows)]
        picked = {
            name: getattr(self, name)[index]
            for name in ("images", *_ROWS)
            if name != "ids" and getattr(self, name) is not None
        }
        ids = tuple(self.ids[i] for i in index.tolist()) if self.ids else ()
        return replace(self, ids=ids, **picked)

    def of_class(self, name: str) -> ImageSet:
        """Only the images of one class, by name."""
        if name not in self.class_names:
            raise ValueError(f"no class {name!r}; there are {', '.join(self.class_names)}")
        return self[self.labels == self.class_names.index(name)]

    def only(self, names: Sequence[str]) -> ImageSet:
        """The images of these classes, in this set's order, with these as its only classes.

        Raises:
            ValueError: an unknown class, one named twice, or none.
        """
        strangers = [name for name in names if name not in self.class_names]
        if strangers or not names or len(set(names)) < len(names):
            raise ValueError(
                f"cannot keep the classes {', '.join(names) or '(none)'}: valid are some of "
                f"{', '.join(self.class_names)}, each once"
            )
        old = [self.class_names.index(name) for name in names]
        new = torch.full((len(self.class_names),), -1)
        new[old] = torch.arange(len(old))
        kept = self[torch.isin(self.labels, torch.tensor(old))]
        return replace(
            kept,
            labels=new[kept.labels],
            class_names=tuple(names),
            superclasses=tuple(self.superclasses[k] for k in old) if self.superclasses else (),
        )

    def to_float(self, device: torch.device | str = "cpu") -> Float[Tensor, "n 3 h w"]:
        """The pictures in [0, 1] on `device`."""
        return self.images.to(device, non_blocking=True).float().div_(255)

    @property
    def superclass_labels(self) -> Int64[Tensor, " n"]:
        """The superclass of every image.

        Raises:
            ValueError: these classes are not grouped into superclasses.
        """
        if not self.superclasses:
            raise ValueError("these classes are not grouped into superclasses")
        return torch.tensor(self.superclasses)[self.labels]

    def examples(self, per_class: int = 1) -> ImageSet:
        """The first `per_class` images of every class that has any, class by class."""
        rows = [
            torch.nonzero(self.labels == k)[:per_class, 0] for k in range(len(self.class_names))
        ]
        return self[torch.cat(rows)]

    def evenly(self, count: int) -> ImageSet:
        """As many images of each class, about `count` together and at least one of each; the set
        itself if it has no more than that."""
        classes = len(self.labels.unique())
        return self.examples(max(1, count // classes)) if len(self) > count else self

    def names(self) -> list[str]:
        """The class name of every image."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def __repr__(self) -> str:
        n, _, h, w = self.images.shape
        lines = [f"{n:,} pictures of {h} x {w} px in {len(self.class_names)} classes"]
        for name in _ROWS:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                shape = " x ".join(f"{side:,}" for side in value.shape)
                lines.append(f"  {name:10s}{shape:20s}{str(value.dtype).removeprefix('torch.')}")
        return "\n".join(lines)

    def counts(self) -> dict[str, int]:
        """Images per class, classes without an image included."""
        counted = torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counted, strict=True))

    @cached_property
    def key(self) -> str:
        """A hash of the contents: equal sets have equal keys, whatever made them."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            digest.update(field.name.encode())
            if isinstance(value, Tensor):
                digest.update(str((value.dtype, tuple(value.shape))).encode())
                digest.update(value.contiguous().cpu().numpy())
            else:
                digest.update(repr(value).encode())
        return digest.hexdigest()[:20]


_ROWS = ("labels", "masks", "boxes", "parts", "views", "backdrops", "ids")  # beside images


def concatenate(sets: Sequence[ImageSet]) -> ImageSet:
    """One set after another. All must know the same fields and have the same class names.

    Raises:
        ValueError: nothing to join, other class names, or a field known to some sets only.
    """
    if not sets:
        raise ValueError("concatenate() needs at least one ImageSet")
    first = sets[0]
    if any(s.class_names != first.class_names for s in sets):
        raise ValueError("cannot join image sets with different class names")
    joined: dict[str, object] = {}
    for name in ("images", *_ROWS):
        values = [getattr(s, name) for s in sets]
        if name == "ids":
            joined[name] = tuple(i for v in values for i in v) if all(values) else ()
        elif any((v is None) != (values[0] is None) for v in values):
            raise ValueError(f"some image sets know their {name} and some do not")
        elif values[0] is not None:
            joined[name] = torch.cat(values)
    return replace(first, **joined)
