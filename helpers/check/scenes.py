"""The exercises of notebook 00."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64
from torch import Generator, Tensor

from helpers import backgrounds
from helpers.check.inputs import between, sides, uniform
from helpers.check.judging import Exercise, Question


def _box(mask: Bool[Tensor, "h w"]) -> Int64[Tensor, " 4"]:
    return backgrounds.boxes_of(mask[None])[0]


def _one_object(generator: Generator) -> tuple[Tensor]:
    h, w = sides(generator)
    top, left = between(generator, 0, h - 3), between(generator, 0, w - 3)
    mask = torch.zeros(h, w, dtype=torch.bool)
    part = mask[top : top + between(generator, 2, 4), left : left + between(generator, 3, 5)]
    part[:] = uniform(generator, *part.shape) < 0.5  # the first pixel need not be the leftmost
    part[between(generator, 0, 1), between(generator, 0, 1)] = True
    return (mask,)


def _box_as(*columns: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The box of a mask, with other numbers made of the right ones."""
    return lambda mask: torch.stack([column(_box(mask)) for column in columns])


def _first_to_last(mask: Tensor) -> Tensor:
    (y0, x0), (y1, x1) = mask.nonzero()[[0, -1]].tolist() if mask.any() else [(0, 0), (-1, -1)]
    return torch.tensor([x0, y0, x1 + 1, y1 + 1])


box = Exercise(
    _box,
    _one_object,
    {
        "x and y are swapped: x counts columns, the last axis of the mask.": _box_as(
            lambda b: b[1], lambda b: b[0], lambda b: b[3], lambda b: b[2]
        ),
        "The box ends one pixel too early: it is half open, so x1 and y1 lie one behind the "
        "last pixel.": _box_as(
            lambda b: b[0], lambda b: b[1], lambda b: b[2] - 1, lambda b: b[3] - 1
        ),
        "This is x, y, width, height; wanted are two corners, x0, y0, x1, y1.": _box_as(
            lambda b: b[0], lambda b: b[1], lambda b: b[2] - b[0], lambda b: b[3] - b[1]
        ),
        "The order is wrong: x0, x1, y0, y1 where x0, y0, x1, y1 is wanted.": _box_as(
            lambda b: b[0], lambda b: b[2], lambda b: b[1], lambda b: b[3]
        ),
        "x0 and x1 are those of the first and the last true pixel, row by row; between them the "
        "object may reach further to either side.": _first_to_last,
    },
    edges=(
        (torch.tensor([[False, True, False], [True, False, True]]),),
        (torch.tensor([[False, False], [False, True], [False, False]]),),
        (torch.zeros(3, 4, dtype=torch.bool),),
    ),
)


def _tie(home: float = 0.55, places: int = 12) -> float:
    """home = t + (1 - t) / places, solved for t."""
    return (home - 1 / places) / (1 - 1 / places)


QUESTIONS = {
    "00-tie": Question(
        _tie,
        {
            "At home by chance are only the scenes that are not tied: their share is 1 - t.": (
                lambda: 0.55 - 1 / 12
            ),
            "Some scenes stand in their home by chance: the tie is smaller than 0.55.": lambda: (
                0.55
            ),
        },
        tolerance=0.01,
    ),
}
