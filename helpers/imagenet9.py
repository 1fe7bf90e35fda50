"""Paper 4's own computations: nine classes, adversarial backgrounds, who needs the background.

Source: "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (Xiao, Engstrom,
Ilyas, Madry; ICLR 2021), in short Noise or Signal, and the slides on it, cited by their titles. The
eight variants of the images are made in `helpers.backgrounds` or read by `helpers.photos`.

Pictures come in as uint8, 0 to 255; networks are those of `helpers.models`, whose first layer
normalises images in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from helpers.backgrounds import compose
from helpers.models import frozen

# Of the networks with nine outputs that Noise or Signal trained on ImageNet-9, in units of [0, 1].
MEAN, STD = (0.4717, 0.4499, 0.3837), (0.2600, 0.2516, 0.2575)


# ---------------------------------------- nine classes


def _indices(written: str) -> tuple[int, ...]:
    """ "7-9 12" is 7, 8, 9, 12."""
    ends = [list(map(int, part.split("-"))) for part in written.split()]
    return tuple(k for part in ends for k in range(part[0], part[-1] + 1))


# The classes of ImageNet-9 and the ImageNet classes that they are made of: 370 of the 1,000.
IMAGENET_CLASSES: dict[str, tuple[int, ...]] = {
    "dog": _indices("151-170 173-268"),
    "bird": _indices("7-24 87-100 127-146"),
    "wheeled vehicle": _indices(
        "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 "
        "670-671 675 690 705 717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 880"
    ),
    "reptile": _indices("33-68"),
    "carnivore": _indices("269-280 286-299 356-362 387-388"),  # wild ones; no cat of 281-285
    "insect": _indices("300-326"),
    "musical instrument": _indices(
        "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 "
        "822 875 881 889"
    ),
    "primate": _indices("365-384"),
    "fish": _indices("0-6 389-397"),
}


def of_imagenet() -> Int64[Tensor, " 1000"]:
    """The class of ImageNet-9, 0 to 8, that each ImageNet class belongs to; -1 for none."""
    classes = torch.full((1000,), -1)
    for number, members in enumerate(IMAGENET_CLASSES.values()):
        classes[list(members)] = number
    return classes


def nine_way(logits: Float[Tensor, "n 1000"]) -> Int64[Tensor, " n"]:
    """What a network with ImageNet's classes calls each image, in classes of ImageNet-9.

    The highest of all 1,000 logits counts: a network that sees grass where a dog stands may say so,
    and gets -1, which is no class and always wrong (Noise or Signal's evaluation of pretrained
    networks).
    """
    return predicted(logits, of_imagenet())


def predicted(
    logits: Float[Tensor, "n k"], reading: Int64[Tensor, " k"] | None = None
) -> Int64[Tensor, " n"]:
    """The class of the highest logit; of equals, the first output.

    Args:
        reading: what class each output stands for, -1 for none; None if outputs are the classes.

    Raises:
        ValueError: a reading of another number of outputs.
    """
    output = logits.argmax(1)
    if reading is None:
        return output
    if len(reading) != logits.shape[1]:
        raise ValueError(f"a reading of {len(reading)} outputs for a network of {logits.shape[1]}")
    return reading.to(output.device)[output]


# ---------------------------------------- adversarial backgrounds

_LEARNING = 64  # composites looked at for each one in a batch; 16 took more in all, 128 no fewer


def composites(
    foregrounds: UInt8[Tensor, "b 3 h w"],
    masks: Bool[Tensor, "b h w"],
    backgrounds: UInt8[Tensor, "b 3 h w"],
) -> Float[Tensor, "b 3 h w"]:
    """Each foreground on its background, in [0, 1], made where the pictures are.

    A foreground is where its mask says, as in the challenge's script. (The release's mixed variants
    have what is not black pasted instead, which lets the background through an object's own black.)

    Raises:
        ValueError: shapes that do not fit.
    """
    pictures = compose(foregrounds, backgrounds, masks)
    return pictures.contiguous(memory_format=torch.channels_last).float().div_(255)


@dataclass(frozen=True, eq=False)
class Search:
    """What `adversarial_backgrounds` found: n foregrounds, m backgrounds. Tensors on the CPU."""

    vulnerable: Bool[Tensor, " n"]  # some background makes it wrong
    fooled_by: Int64[Tensor, " n"]  # the first one tried that does; -1 if none does
    tried: Int64[Tensor, " n"]  # composites of this foreground that the network looked at
    fooled: Int64[Tensor, " m"]  # foregrounds that this background made wrong
    tried_with: Int64[Tensor, " m"]  # and those it was tried with; the hard ones, on the whole
    forwards: int  # composites in all


def adversarial_backgrounds(
    model: nn.Module,
    foregrounds: UInt8[Tensor, "n 3 h w"],
    masks: Bool[Tensor, "n h w"],
    labels: Int64[Tensor, " n"],
    backgrounds: UInt8[Tensor, "m 3 h w"],
    *,
    reading: Int64[Tensor, " k"] | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Search:
    """Which foregrounds some background makes the network misclassify (slide "Models are vulnerable
    to adversarial backgrounds").

    The rule is that of the Backgrounds Challenge: every foreground may meet every background, that
    of its own image and of its own class included, and is vulnerable if any composite is wrong. The
    challenge's script takes one foreground after the other, and the backgrounds in a fixed order,
    32 at a time, until one fools. Here a foreground takes those first that have fooled most so far
    (of equals the one tried least, of those the first). Both find the same foregrounds, and one
    that nothing fools has met all backgrounds either way: a good order saves composites of the
    vulnerable only.

    A foreground stays in the batch until it is fooled or has met all, then the next one moves up.
    When fewer are left than a batch holds, each takes several backgrounds at once. At first little
    is known: no batch is larger than a 64th of all composites before it, plus one.

    `vulnerable` does not depend on `batch_size`, up to the rounding of a network whose batches
    differ in size. The other results do: in larger batches less is known when a background is
    chosen.

    The network is used in eval mode with frozen weights and comes back as it was. Pictures are
    copied to where it is; n x m booleans are kept there, and never more than one batch of
    composites.

    Args:
        backgrounds: Only-BG-T in the challenge.
        reading: as in `predicted`; `of_imagenet()` for networks with ImageNet's classes.
        progress: called after each batch with the number of pairs of foreground and background it
            settled, n x m in all. A foreground that is fooled settles all it has not met.

    Raises:
        ValueError: numbers or sizes of pictures, masks and labels that do not fit, no background, a
            label that no output stands for, or no batch size. No foreground is no error.
        FloatingPointError: the network answers NaN.
    """
    device = _device(model, foregrounds)
    judged = _judge(model, foregrounds, masks, labels, backgrounds, reading, batch_size, device)
    n, m = len(foregrounds), len(backgrounds)
    unmet = torch.ones(n, m, dtype=torch.bool, device=device)
    fooled_by = torch.full((n,), -1)
    tried, fooled, tried_with = (torch.zeros(count, dtype=torch.long) for count in (n, m, m))
    waiting, forwards, settled = torch.arange(n), 0, 0
    with frozen(model), torch.inference_mode():
        while len(waiting):
            size = min(batch_size, 1 + forwards // _LEARNING)
            rows, later = waiting[:size], waiting[size:]
            order = (fooled * (n + 1) - tried_with).argsort(dim=0, descending=True, stable=True)
            pairs = _next_pairs(unmet, rows, m - tried[rows], order, size)
            unmet[pairs] = False
            before, behind, wrong = judged(*pairs)

            tried += before.bincount(minlength=n)
            tried_with += behind.bincount(minlength=m)
            fooled += behind[wrong].bincount(minlength=m)
            hit, first = map(torch.from_numpy, np.unique(before[wrong], return_index=True))
            fooled_by[hit] = behind[wrong][first]
            left = rows[(fooled_by[rows] < 0) & (tried[rows] < m)]
            waiting, forwards = torch.cat((left, later)), forwards + len(before)
            if progress is not None:
                done = int(torch.where(fooled_by < 0, tried, m).sum())
                progress(done - settled)
                settled = done
    return Search(fooled_by >= 0, fooled_by, tried, fooled, tried_with, forwards)


def every_background(
    model: nn.Module,
    foregrounds: UInt8[Tensor, "n 3 h w"],
    masks: Bool[Tensor, "n h w"],
    labels: Int64[Tensor, " n"],
    backgrounds: UInt8[Tensor, "m 3 h w"],
    *,
    reading: Int64[Tensor, " k"] | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Bool[Tensor, "n m"]:
    """Every foreground on every background: True where the network is wrong. On the CPU.

    Arguments and errors as in `adversarial_backgrounds`, which looks at a part of the n x m
    composites and finds the same `vulnerable` foregrounds: the rows with a True.
    """
    device = _device(model, foregrounds)
    judged = _judge(model, foregrounds, masks, labels, backgrounds, reading, batch_size, device)
    n, m = len(foregrounds), len(backgrounds)
    found = torch.zeros(n * m, dtype=torch.bool)
    with frozen(model), torch.inference_mode():
        for start in range(0, n * m, batch_size):
            pairs = torch.arange(start, min(start + batch_size, n * m), device=device)
            found[start : start + batch_size] = judged(pairs // m, pairs % m)[2]
            if progress is not None:
                progress(len(pairs))
    return found.view(n, m)


def _next_pairs(
    unmet: Bool[Tensor, "n m"],
    rows: Int64[Tensor, " r"],
    left: Int64[Tensor, " r"],
    order: Int64[Tensor, " m"],
    size: int,
) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]:
    """Up to `size` pairs of foreground and background: each of the rows with the first one in the
    order that it has not met, then each with its second one, and so on.

    Args:
        left: how many backgrounds each row has not met: known on the CPU, so that the number of
            pairs is, too, and nothing waits for the device.
    """
    each = min(math.ceil(size / len(rows)), len(order))
    turns = (torch.arange(each)[:, None] < left).flatten().nonzero()[:size, 0]
    rows, order, turns = (t.to(unmet.device, non_blocking=True) for t in (rows, order, turns))
    place = torch.where(unmet[rows], order.argsort(), len(order))  # in the order, last if met
    place = place.topk(each, largest=False).values.T.flatten()[turns]
    return rows[turns % len(rows)], order[place]


def _judge(
    model: nn.Module,
    foregrounds: Tensor,
    masks: Tensor,
    labels: Tensor,
    backgrounds: Tensor,
    reading: Tensor | None,
    batch_size: int,
    device: torch.device,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A function of rows of foregrounds and of backgrounds, on the device: both again, and which of
    the composites the network gets wrong, on the CPU."""
    n = len(foregrounds)
    if len(masks) != n or len(labels) != n:
        raise ValueError(f"{len(masks)} masks and {len(labels)} labels for {n} foregrounds")
    if not len(backgrounds):
        raise ValueError("there is no background to try")
    sizes = [" x ".join(map(str, t.shape[-2:])) for t in (foregrounds, masks, backgrounds)]
    if len(set(sizes)) > 1:
        raise ValueError("foregrounds are {} px, masks {} and backgrounds {}".format(*sizes))
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 composite, not {batch_size}")
    known = None if reading is None else 1 + max(reading.tolist(), default=-1)
    lowest, highest = (int(labels.min()), int(labels.max())) if n else (0, 0)
    moved = [tensor.to(device) for tensor in (foregrounds, masks, labels, backgrounds)]
    foregrounds, masks, labels, backgrounds = moved
    reading = None if reading is None else reading.to(device)

    def judged(before: Tensor, behind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = model(composites(foregrounds[before], masks[before], backgrounds[behind]))
        classes = logits.shape[1] if known is None else known
        if not 0 <= lowest <= highest < classes:
            raise ValueError(
                f"labels run from {lowest} to {highest}; valid are 0 to {classes - 1}, what the "
                "network's outputs stand for"
            )
        wrong = predicted(logits, reading) != labels[before]
        found = torch.stack((before, behind, wrong, logits.isnan().any(1)))
        before, behind, wrong, broken = found.cpu()  # the only wait for the device
        if broken.any():
            raise FloatingPointError("the network answers NaN")
        return before, behind, wrong.bool()

    return judged


def _device(model: nn.Module, otherwise: Tensor) -> torch.device:
    """Where the network is; one without weights is where the tensor is."""
    return next(chain(model.parameters(), model.buffers()), otherwise).device


# ---------------------------------------- who needs the background

# What is right of the image as it is (Original), its foreground on the background of a random other
# image (Mixed-Rand), its background alone (Only-BG-T). Every image is in exactly one category.
CATEGORIES: tuple[tuple[str, str], ...] = (
    ("either suffices", "Original, Mixed-Rand and Only-BG-T are right"),
    ("foreground suffices", "Original and Mixed-Rand are right, Only-BG-T is wrong"),
    ("background suffices", "Original and Only-BG-T are right, Mixed-Rand is wrong"),
    ("both needed", "only Original is right"),
    ("fooled by its background", "Original is wrong, Mixed-Rand is right (Only-BG-T either way)"),
    ("fooled by its foreground", "only Only-BG-T is right"),
    ("neither", "all three are wrong"),
)


def fine_grained(
    original: Bool[Tensor, " n"], mixed_rand: Bool[Tensor, " n"], only_bg_t: Bool[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """The category of each image, a row of `CATEGORIES`, by which of its three variants are right
    (slide "A fine grained look at dependence on backgrounds").

    The slide draws such a sorting and does not print its rule: this one is ours. The background is
    needed in the third and the fourth category: right as the image is, wrong on another background.
    One random background stands for all others; at times it is one of the image's own class.
    """
    # by the three booleans read as a number in base two, from all wrong to all right
    category = torch.tensor([6, 5, 4, 4, 3, 2, 1, 0], device=original.device)
    return category[4 * original.long() + 2 * mixed_rand.long() + only_bg_t.long()]
