"""The exercises of notebook 04."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor, nn

from helpers import backgrounds, imagenet9
from helpers.check.inputs import between, normal, picture, uniform
from helpers.check.judging import Exercise, Question
from helpers.imageset import ImageSet


def _only_bg_t(image: UInt8[Tensor, "3 h w"], box: list[int]) -> UInt8[Tensor, "3 h w"]:
    one = torch.zeros(1, dtype=torch.long)
    pictures = ImageSet(image[None], one, ("object",), boxes=torch.tensor([box]))
    return backgrounds.tiled(pictures)[0][0]


def _boxed(generator: Generator) -> tuple[Tensor, list[int]]:
    h, w = between(generator, 9, 14), between(generator, 10, 15)
    x0, y0 = between(generator, 0, 5), between(generator, 0, 5)
    x1, y1 = between(generator, x0 + 2, w - 1), between(generator, y0 + 2, h - 1)
    return picture(generator, 3, h, w), [x0, y0, x1, y1]


def _strips(image: Tensor, box: list[int]) -> list[Tensor]:
    """Left, right, above, below."""
    x0, y0, x1, y1 = box
    return [image[:, :, :x0], image[:, :, x1:], image[:, :y0], image[:, y1:]]


def _filled(
    image: Tensor,
    box: list[int],
    strip: Tensor | None = None,
    origin: tuple[int, int] = (0, 0),
    everywhere: bool = False,
) -> Tensor:
    """The box filled with copies of a strip, the first of them at the origin (row, column)."""
    if strip is None:
        strip = max(_strips(image, box), key=Tensor.numel)
    h, w = image.shape[1:]
    rows = (torch.arange(h) - origin[0]) % strip.shape[1]
    columns = (torch.arange(w) - origin[1]) % strip.shape[2]
    copies = strip[:, rows][:, :, columns]
    if everywhere:
        return copies
    x0, y0, x1, y1 = box
    result = image.clone()
    result[:, y0:y1, x0:x1] = copies[:, y0:y1, x0:x1]
    return result


def _longest(image: Tensor, box: list[int]) -> Tensor:
    """The strip that is broadest across its short way, whatever its area."""
    x0, y0, x1, y1 = box
    breadth = [x0, image.shape[2] - x1, y0, image.shape[1] - y1]
    return _strips(image, box)[breadth.index(max(breadth))]


only_bg_t = Exercise(
    _only_bg_t,
    _boxed,
    {
        "The copies start at the box's corner; they start at the picture's.": lambda i, b: _filled(
            i, b, origin=(b[1], b[0])
        ),
        "The box is black: this is Only-BG-B. Fill it with the largest strip beside it.": (
            lambda i, b: _filled(i, b, torch.zeros_like(i))
        ),
        "The whole picture is covered with copies; outside the box it stays as it is.": (
            lambda i, b: _filled(i, b, everywhere=True)
        ),
        "The strip is the broadest one; wanted is the one with the largest area.": lambda i, b: (
            _filled(i, b, _longest(i, b))
        ),
        "The strip is the smallest one; wanted is the largest.": lambda i, b: _filled(
            i, b, min((s for s in _strips(i, b) if s.numel()), key=Tensor.numel)
        ),
        "Only strips left and right are looked at; those above and below count as well.": (
            lambda i, b: _filled(i, b, max(_strips(i, b)[:2], key=Tensor.numel))
        ),
        "Only strips above and below are looked at; those left and right count as well.": (
            lambda i, b: _filled(i, b, max(_strips(i, b)[2:], key=Tensor.numel))
        ),
        "x and y are swapped: a box is x0, y0, x1, y1, and pictures are indexed by row (y), then "
        "column (x).": lambda i, b: _filled(i, [b[1], b[0], b[3], b[2]]),
        "The last row and column of the box are left: x1 and y1 lie one behind the last pixel.": (
            lambda i, b: _replaced(i, b, [b[0], b[1], b[2] - 1, b[3] - 1])
        ),
        "One row and one column too many are filled: x1 and y1 lie one behind the last pixel.": (
            lambda i, b: _replaced(i, b, [b[0], b[1], b[2] + 1, b[3] + 1])
        ),
        "Of strips with equal areas the first counts, in the order left, right, above, below.": (
            lambda i, b: _filled(i, b, max(reversed(_strips(i, b)), key=Tensor.numel))
        ),
        "Nothing is filled: this is the picture as it was.": lambda i, b: i.clone(),
    },
    edges=(
        (torch.arange(75, dtype=torch.uint8).view(3, 5, 5), [1, 1, 4, 4]),
        (torch.arange(60, dtype=torch.uint8).view(3, 4, 5), [0, 1, 2, 3]),
    ),
    tolerance=1e-6,
    draws=48,
)


def _replaced(image: Tensor, box: list[int], written: list[int]) -> Tensor:
    """The right strip, written into another box."""
    return _filled(image, written, max(_strips(image, box), key=Tensor.numel))


def _nine_way(logits: Float[Tensor, "n 1000"]) -> Int64[Tensor, " n"]:
    return imagenet9.nine_way(logits)


def _summed(logits: Tensor, what: Callable[[Tensor], Tensor]) -> Tensor:
    """The superclass with the largest sum over its members."""
    known = imagenet9.of_imagenet()
    members = torch.stack([(known == k).float() for k in range(9)], 1)
    return (what(logits) @ members).argmax(1)


nine_way = Exercise(
    _nine_way,
    lambda generator: (3 * normal(generator, between(generator, 8, 12), 1000),),
    {
        "The 630 classes outside ImageNet-9 are left out before the highest logit is taken; a "
        "network may say grass, and is then wrong: -1.": lambda logits: imagenet9.of_imagenet()[
            logits.masked_fill(imagenet9.of_imagenet() < 0, -torch.inf).argmax(1)
        ],
        "The probabilities of each class's members are summed; the single highest logit "
        "counts.": lambda logits: _summed(logits, lambda s: s.softmax(1)),
        "The logits of each class's members are summed; the single highest logit counts.": (
            lambda logits: _summed(logits, lambda s: s)
        ),
        "The highest of the first nine logits is taken; the 1,000 outputs have to be mapped.": (
            lambda logits: logits[:, :9].argmax(1)
        ),
        "These are ImageNet's 1,000 classes; look them up in of_imagenet().": lambda logits: (
            logits.argmax(1)
        ),
        "What is no class of ImageNet-9 becomes class 0, dog; it should stay -1.": lambda logits: (
            _nine_way(logits).clamp(min=0)
        ),
        "What is no class of ImageNet-9 becomes 9; it should be -1.": lambda logits: torch.where(
            _nine_way(logits) < 0, 9, _nine_way(logits)
        ),
        "The lowest logit is followed; the highest counts.": lambda logits: _nine_way(-logits),
    },
    edges=((torch.eye(1000)[[207, 281, 0, 999]],),),  # a dog, a cat at home, a fish, paper
)


def _vulnerable_share(answers: Int64[Tensor, "n m"], labels: Int64[Tensor, " n"]) -> float:
    # pictures that say which they are: the left column the foreground, the right the background
    n, m = answers.shape
    numbers = torch.arange(max(n, m), dtype=torch.uint8)[:, None, None, None]
    pictures = numbers.expand(-1, 3, 1, 2)
    masks = torch.tensor([True, False]).expand(n, 1, 2)

    def network(seen: Tensor) -> Tensor:
        front, behind = (255 * seen[:, 0, 0]).round().long().T
        return nn.functional.one_hot(answers[front, behind], 9).float()

    class Known(nn.Module):
        def forward(self, seen):
            return network(seen)

    wrong = imagenet9.every_background(Known(), pictures[:n], masks, labels, pictures[:m])
    return float(wrong.any(1).float().mean())


def _answers(generator: Generator) -> tuple[Tensor, Tensor]:
    n, m = between(generator, 5, 9), between(generator, 2, 4)
    labels = torch.randint(9, (n,), generator=generator)
    others = torch.randint(9, (n, m), generator=generator)
    wrong = uniform(generator, n, m) < 0.3
    wrong[0], wrong[1] = False, True  # one that nothing fools, one that everything fools
    wrong[2, 0], wrong[2, 1:] = True, False  # and one in between
    return torch.where(wrong, others, labels[:, None]), labels


def _share(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], float]:
    """A number made of which composites (n, m) are wrong."""
    return lambda answers, labels: float(of((answers != labels[:, None]).float()))


vulnerable_share = Exercise(
    _vulnerable_share,
    _answers,
    {
        "This is the share of foregrounds that every background makes wrong; one is enough.": (
            _share(lambda wrong: wrong.amin(1).mean())
        ),
        "This is the share of all composites that are wrong; a foreground counts once, as soon as "
        "any background makes it wrong.": _share(lambda wrong: wrong.mean()),
        "This is the share of foregrounds that no background fools; wanted are the others.": _share(
            lambda wrong: 1 - wrong.amax(1).mean()
        ),
        "This is the worst single background's share; each foreground may meet its own worst "
        "one.": _share(lambda wrong: wrong.mean(0).amax()),
        "This is the number of vulnerable foregrounds; wanted is their share.": _share(
            lambda wrong: wrong.amax(1).sum()
        ),
        "This is in percent; wanted is a share, 0 to 1.": _share(
            lambda wrong: 100 * wrong.amax(1).mean()
        ),
        "The share is taken over backgrounds, along the wrong axis: any() goes over axis 1.": (
            _share(lambda wrong: wrong.amax(0).mean())
        ),
    },
    edges=((torch.tensor([[3, 3], [1, 2]]), torch.tensor([3, 1])),),
)


def _named(same: int, random: int, of: int) -> tuple[Tensor, Tensor]:
    """Which of so many objects are named on Mixed-Same and on Mixed-Rand."""
    return torch.arange(of) < same, torch.arange(of) < random


def _gap(same: int = 6, random: int = 4, of: int = 8) -> float:
    on_same, on_random = _named(same, random, of)
    return float(100 * (on_same.float().mean() - on_random.float().mean()))


QUESTIONS = {
    "04-gap": Question(
        _gap,
        {
            "The gap is Mixed-Same minus Mixed-Rand, not the other way round.": lambda: -_gap(),
            "This is a share; the gap is in points.": lambda: _gap() / 100,
            "The difference is divided by all objects, not by those named on Mixed-Same.": (
                lambda: 100 * (6 - 4) / 6
            ),
            "This is the number of objects; the gap is in points, of 100.": lambda: 6.0 - 4.0,
        },
    ),
}
