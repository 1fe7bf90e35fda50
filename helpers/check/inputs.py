"""Random arguments for the exercises: small, so that an example can be read whole."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def between(generator: Generator, low: int, high: int) -> int:
    """A whole number, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def flags(generator: Generator, *shape: int) -> Tensor:
    """Booleans; at least one is true and one is not along the last axis, where there is room."""
    drawn = uniform(generator, *shape) < 0.5
    drawn[..., 0], drawn[..., -1] = True, False
    return drawn


def picture(generator: Generator, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def sides(generator: Generator) -> tuple[int, int]:
    """A height and another width, so that swapped axes show."""
    h = between(generator, 4, 7)
    return h, h + between(generator, 1, 3)
