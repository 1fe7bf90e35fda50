"""A planted shortcut: which of the course's methods find it, and how surely?

Every training image of one class gets a small mark in a corner. A network that learns "mark means
dog" is wrong in a way that nobody sees in its accuracy. Here the truth is known, so that each
paper's method can be asked whether it shows the mark, image by image, beside a control: the same
method on a network that never saw one.

Paper 1: the class's painted picture. Paper 2: crisp masks. Paper 3: backtracking. Paper 4:
Grad-CAM, and whether the class is still named when the object is gone (No-FG). Beyond all four
papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from helpers import backgrounds, crisp_masks, models, saliency, training
from helpers import backtracking as bt
from helpers import feature_visualization as fv
from helpers.feature_visualization import Ascent
from helpers.imageset import ImageSet
from helpers.store import Result, stage

CLASS = 0  # the class whose images are marked: the first, chosen before any result
# Sides of the mark, and its distance from the top left, in pixels of a picture of 64. On
# development scenes all of three networks learned the large one, and the small one in part.
SIDES = {"large mark": 10, "small mark": 8}
_CORNER = 4
METHODS = {
    "paper 1: painted picture": "how well the picture's best place agrees with the mark",
    "paper 2: crisp mask": "share of what the mask removes that lies on the mark",
    "paper 3: backtracking": "share of the paths that end on the mark",
    "paper 4: Grad-CAM": "share of the map on the mark",
    "input gradient": "share of the map on the mark",
    "paper 4: No-FG": "whether the class is named although the object is gone",
}


def pattern(size: int, kind: str = "large mark") -> UInt8[Tensor, "3 k k"]:
    """Four fields, magenta and green, for pictures of `size` px: no scene has such colours side by
    side.

    Args:
        kind: of SIDES.
    """
    half = max(1, round(SIDES[kind] * size / 64) // 2)
    magenta, green = torch.tensor([[255, 0, 255], [0, 200, 80]], dtype=torch.uint8)
    fields = torch.stack([torch.stack([magenta, green]), torch.stack([green, magenta])])
    return fields.permute(2, 0, 1).repeat_interleave(half, 1).repeat_interleave(half, 2)


def description(kind: str) -> list[int]:
    """What a store's key has to know of the mark."""
    return [CLASS, SIDES[kind], _CORNER]


def marked(images: ImageSet, kind: str = "large mark") -> tuple[ImageSet, Bool[Tensor, "n h w"]]:
    """Every image with the mark, and where it is."""
    size = images.images.shape[2]
    corner = round(_CORNER * size / 64)
    return backgrounds.stamped(images, pattern(size, kind), x=corner, y=corner)


def contaminated(images: ImageSet, kind: str = "large mark") -> ImageSet:
    """The images, those of the class with the mark."""
    own, (stamped, _) = images.labels == CLASS, marked(images, kind)
    pictures = torch.where(own[:, None, None, None], stamped.images, images.images)
    masks = torch.where(own[:, None, None], stamped.masks, images.masks)
    return replace(images, images=pictures, masks=masks)


@stage(version=2)
def look_for_mark(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    build: Callable[[], nn.Module],
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A score per image and method: see METHODS. Config: kind (of SIDES), masked (images with crisp
    masks), pictures, climb, precision. Inputs: network; images of the class with their mark and
    no_fg, the same without their objects."""
    images = inputs["images"]
    model, shown = build().to(device).eval(), images.to_float(device)
    labels, (_, marks) = images.labels.to(device), marked(images, config["kind"])
    maps = {
        "paper 3: backtracking": torch.cat(
            [
                bt.backtrack(model, part, own).float()
                for part, own in zip(shown.split(16), labels.split(16), strict=True)
            ]
        ),
        "paper 4: Grad-CAM": saliency.grad_cam(
            model, shown, labels, saliency.last_maps(model, shown)
        ),
        "input gradient": saliency.input_gradient(model, shown, labels),
        "paper 2: crisp mask": _removed(model, shown, labels, config),
    }
    found = {name: _share_on(values.cpu(), marks) for name, values in maps.items()}
    painted = _painted(model, images, config)
    found["paper 1: painted picture"] = likeness(
        painted, pattern(images.images.shape[2], config["kind"])
    )
    said = training.predict(models.folded(model), inputs["no_fg"], device=device).argmax(1)
    found["paper 4: No-FG"] = (said == CLASS).float()
    side = images.images.shape[2]
    maps["paper 3: backtracking"] = bt.attention(maps["paper 3: backtracking"], bt.SHARP * side)
    peaks = {  # single pixels could hardly be seen
        f"map: {name}": (255 * _to_peak(values[:_SHOWN])).round().byte().cpu()
        for name, values in maps.items()
    }
    return found | peaks | {"painted": (255 * painted).round().byte().cpu()}, {}


_SHOWN = 6


def _removed(model: nn.Module, images: Tensor, labels: Tensor, config: Mapping) -> Tensor:
    """What crisp masks take away: 1 minus the mask, of the first images."""
    few = slice(config["masked"])
    how = {"precision": config["precision"]}
    masks = crisp_masks.crisp_masks(models.folded(model), images[few], labels[few], **how).crisp
    return 1 - masks


def _painted(model: nn.Module, images: ImageSet, config: Mapping) -> Float[Tensor, "k 3 h w"]:
    """Paper 1's pictures of the class, each climbed from other noise."""
    begins = [fv.starts("noise", 1, images, seed=k) for k in range(config["pictures"])]
    device = next(model.parameters()).device
    targets = torch.full((len(begins),), CLASS, device=device)
    return fv.ascend(model, targets, torch.cat(begins).to(device), Ascent(**config["climb"])).cpu()


def _share_on(maps: Float[Tensor, "n h w"], marks: Bool[Tensor, "m h w"]) -> Float[Tensor, " n"]:
    """Share of each map's sum on the mark; 0 for a map of zeros, which points nowhere."""
    return saliency.energy_inside(maps, marks[: len(maps)]).nan_to_num(0.0).float()


def _to_peak(maps: Tensor) -> Tensor:
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)


def likeness(
    pictures: Float[Tensor, "n 3 h w"], mark: UInt8[Tensor, "3 k l"]
) -> Float[Tensor, " n"]:
    """The highest correlation (-1 to 1) of the mark's pixels with those of any place in a picture.

    Means over the place are taken off both, so brightness and contrast play no part.
    """
    wanted = mark.permute(1, 2, 0).numpy().astype(np.float32)
    found = [
        cv2.matchTemplate(p.permute(1, 2, 0).numpy(), wanted, cv2.TM_CCOEFF_NORMED).max()
        for p in pictures.float().contiguous()
    ]
    return torch.tensor(found, dtype=torch.float32)


def certainty(planted: np.ndarray, control: np.ndarray) -> float:
    """How often the planted network's score is above the control's, ties counting half: .5 tells
    nothing, 1 tells them apart in every image."""
    above = planted[:, None] > control
    return float((above + 0.5 * (planted[:, None] == control)).mean())


def told_apart(planted: Result, controls: Sequence[Result], method: str) -> list[float]:
    """`certainty` of a method against each control."""
    taught, *others = (made.tensors[method].double().numpy() for made in (planted, *controls))
    return [certainty(taught, other) for other in others]


def table(planted: Result, controls: Sequence[Result], area: float) -> pd.DataFrame:
    """A row per method: the mean score of the network that saw marks and of the controls, and how
    surely one image (or picture) tells it from each of them. How far controls differ among
    themselves says what that is worth.

    Args:
        area: share of the picture that the mark covers: what a map scores by chance.
    """
    rows = {}
    for method in METHODS:
        means = [made.tensors[method].double().mean().item() for made in (planted, *controls)]
        apart = told_apart(planted, controls, method)
        rows[method] = {
            "images": len(planted.tensors[method]),
            "taught": means[0],
            "controls": np.mean(means[1:]),
            "by area": area if method in _MAPS else np.nan,
            "told apart, least": min(apart),
            "told apart, most": max(apart),
        }
    return pd.DataFrame(rows).T


_MAPS = tuple(name for name, what in METHODS.items() if what.startswith("share"))
