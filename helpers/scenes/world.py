"""A world of scenes as an `ImageSet`: the entrance to `helpers.scenes`.

    world = World(seed=1, size=64)
    train = world.images(range(5_400))

Scene i of a world is the same whichever other scenes are drawn with it, in whatever order and by
however many workers: everything random in it comes from (seed, index).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from helpers.imageset import ImageSet
from helpers.scenes import TIE
from helpers.scenes.backdrops import NAMES as BACKDROPS
from helpers.scenes.bodies import CLASSES, PART_NAMES, SUPERCLASS_OF, SUPERCLASSES
from helpers.scenes.render import Scene, render, render_many

_CHUNK = 64  # scenes a task: long enough to hide the hand-over, short enough to share evenly


@dataclass(frozen=True)
class World:
    """An endless, indexable collection of scenes.

    Attributes:
        seed: which world. Train, validation and test images come from different seeds.
        size: height and width of the pictures in pixels, at least 16.
        tie: probability that a superclass appears before its home backdrop, beyond the chance
            share every backdrop has anyway. 0: backdrops say nothing; 1: they say everything.
    """

    seed: int = 0
    size: int = 64
    tie: float = TIE

    def name_of(self, index: int) -> str:
        return f"world {self.seed}, scene {index}"

    def scene(
        self,
        index: int,
        *,
        label: int | None = None,
        backdrop: str | None = None,
        hide: Collection[str] = (),
        redraw: Mapping[str, int] = MappingProxyType({}),
    ) -> Scene:
        """One scene as NumPy arrays; with any of the options a variation of it. See
        `helpers.scenes.render`."""
        varied = {"label": label, "backdrop": backdrop, "hide": hide, "redraw": redraw}
        return render(self.seed, index, self.size, tie=self.tie, **varied)

    def images(
        self,
        indices: Iterable[int],
        *,
        backdrop: str | None = None,
        hide: Collection[str] = (),
        workers: int | None = None,
    ) -> ImageSet:
        """The scenes `indices` as an ImageSet with masks, parts, boxes, views and backdrops.

        Args:
            workers: processes; by default one per core for more than 500 scenes, else one.
        """
        indices = [int(i) for i in indices]
        if workers is None:
            workers = cpu_count() if len(indices) > 500 else 1
        options = {"tie": self.tie, "backdrop": backdrop, "hide": tuple(hide)}
        # an empty request still draws one empty chunk: a set with all its fields and no rows
        chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)] or [[]]
        with warnings.catch_warnings():
            # joblib renews workers whose memory has grown, with the same scenes, and says so
            warnings.filterwarnings("ignore", message="A worker stopped")
            drawn = Parallel(n_jobs=workers)(
                delayed(render_many)(self.seed, chunk, self.size, **options) for chunk in chunks
            )
        images, masks, parts, boxes, labels, places, views = (
            torch.from_numpy(np.concatenate(column)) for column in zip(*drawn, strict=True)
        )
        return ImageSet(
            images=images,
            labels=labels,
            class_names=CLASSES,
            masks=masks,
            boxes=boxes,
            parts=parts,
            views=views,
            backdrops=places,
            ids=tuple(self.name_of(i) for i in indices),
            part_names=PART_NAMES,
            backdrop_names=BACKDROPS,
            superclass_names=SUPERCLASSES,
            superclasses=SUPERCLASS_OF,
        )


@cache
def source_digest() -> str:
    """A hash of the code that draws: stored renderings are redone when the drawing changes."""
    digest = hashlib.sha256(f"cv2 {cv2.__version__}".encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
