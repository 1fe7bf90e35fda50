"""Masks of what a network needs to see its class in an image, first smooth, then crisp.

Source: "Understanding Deep Architectures by Visual Summaries" (paper 2), section 3.1. A mask m
keeps the pixels where it is 1 and replaces them by the blurred image where it is 0. It is fitted to
each image by gradient descent on

    p(class | m x + (1 - m) blurred x) + l1 |1 - m| + l2 |grad m|^beta + l3 |1 - m| m     (eq. 2)

with p the softmax. The last term is the paper's: it makes a mask binary. It acts in the second
phase only, which starts from a smooth mask. Without it, equation 2 is the loss of Fong & Vedaldi
2017, "Interpretable explanations of black boxes by meaningful perturbation" (IEBB), whose masks
paper 2 compares its own with: `iebb_masks`.

Where the paper's text and its authors' published code disagree, or the text is silent:

- The text blurs most where m is high, yet penalises |1 - m|. Here 0 is blurred, as in the code.
- The text writes sums; its weights only make sense with the code's means over pixels.
- The text does not say that the smooth mask is coarse. The code fits 28 x 28 cells to 224 px,
  enlarges them bilinearly and blurs the result; the penalties are those of the cells.
- The text blurs with sigma 10. The code cuts that kernel at 11 px, where it is nearly flat and acts
  like sigma 3. The text's is the default here.
- The code starts from a disc of zeros that touches the borders of the 28 x 28 mask. Here it is
  centred exactly, not half a cell off.
- Between the phases the code leaves out the mask's blur, stretches the mask to [0, 1] and rounds it
  to 8 bits. Here the crisp phase starts from the mask that the network was shown.
- The code's gradient skips the mask's blur, and its |1 - m| and |1 - m| m have no slope at the very
  ends of [0, 1]. Here the gradient is exact, with the slopes from inside: otherwise a step would
  depend on whether a pixel is 1 or 1 less a rounding error.

Images are in [0, 1]; networks are those of `helpers.models`, whose first layer normalises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from helpers.models import frozen


@dataclass(frozen=True)
class Phase:
    """Steps of gradient descent, and the weights of the penalties, which are means over pixels."""

    iterations: int
    l1: float  # of |1 - m|: perturb little
    l2: float  # of |grad m|^beta: in one piece, with soft borders
    l3: float  # of |1 - m| m: be binary

    def __post_init__(self) -> None:
        for name in ("iterations", "l1", "l2", "l3"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"Phase.{name} is {getattr(self, name)}; valid is 0 or more")


@dataclass(frozen=True)
class Schedule:
    """How masks are fitted. The defaults are the paper's.

    Lengths are in pixels of an image whose shorter side has `reference` pixels. They scale with the
    image's shorter side, so that the same share of a small image is blurred away; with `scaled`
    False they are pixels of the image at hand. Published are 224 px images only.

    Raises:
        ValueError: a rate, exponent or length outside its range, or an even kernel.
    """

    smooth: Phase = Phase(300, 0.01, 1e-4, 0.0)
    crisp: Phase = Phase(150, 0.01, 1.0, 2.0)
    lr: float = 0.1  # Adam's
    beta: float = 3.0  # exponent of the gradient's penalty
    coarse: float = 8.0  # side of the smooth phase's cells
    mask_sigma: float = 5.0  # of the blur on the enlarged cells
    image_sigma: float = 10.0  # of the blur that perturbs
    kernel: int | None = None  # width of the image blur's kernel, odd; None: up to 4 sigma
    disc: float = 0.5  # radius of the starting disc of zeros, as a share of the shorter side
    jitter: float = 0.0  # range of the image's random shifts against the mask, step by step
    scaled: bool = True
    reference: int = 224

    def __post_init__(self) -> None:
        for name in ("lr", "coarse", "image_sigma", "reference"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"Schedule.{name} is {getattr(self, name)}; valid is above 0")
        for name, low in (("beta", 1), ("mask_sigma", 0), ("disc", 0), ("jitter", 0)):
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"Schedule.{name} is {getattr(self, name)}; valid is {low} up")
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise ValueError(f"Schedule.kernel is {self.kernel}; valid are odd widths or None")

    def for_side(self, side: int) -> Schedule:
        """The same schedule with lengths in pixels of images whose shorter side is this long."""
        if not self.scaled:
            return self
        factor = side / self.reference
        kernel = None if self.kernel is None else 2 * round(self.kernel // 2 * factor) + 1
        lengths = ("coarse", "mask_sigma", "image_sigma", "jitter")
        scaled = {name: getattr(self, name) * factor for name in lengths}
        return replace(self, **scaled, kernel=kernel, scaled=False)


_CELLS = 28 * 28  # Fong & Vedaldi's sums run over so many cells; a mean has to weigh as much

_CODE = Phase(300, 0.5, 1e-2, 0.0)  # the authors' later weights: less is perturbed

SCHEDULES = {
    "paper": Schedule(),
    "code": Schedule(smooth=_CODE, kernel=11),
    "code_weights": Schedule(smooth=_CODE),  # the kernel cut at 11 px hardly blurs small images
    "iebb": Schedule(
        smooth=Phase(300, 1e-4 * _CELLS, 1e-2 * _CELLS, 0.0),
        crisp=Phase(0, 0.0, 0.0, 0.0),
        jitter=4.0,
    ),
}


@dataclass(frozen=True)
class Masks:
    """What was fitted. Masks in [0, 1]: 1 keeps a pixel, 0 replaces it by the blurred image.

    A mask that is 1 everywhere found nothing worth removing, and is an answer like any other.
    """

    smooth: Float[Tensor, "n h w"]
    crisp: Float[Tensor, "n h w"]
    losses: Float[Tensor, "steps n"]  # before each step, of the smooth phase and then the crisp one
    before: Float[Tensor, " n"]  # probability of the class in the image as it is
    after_smooth: Float[Tensor, " n"]  # and under the masks
    after_crisp: Float[Tensor, " n"]


# ---------------------------------------- the parts of equation 2


def blurred(
    images: Float[Tensor, "n 3 h w"], sigma: float, kernel: int | None = None
) -> Float[Tensor, "n 3 h w"]:
    """Gaussian blur by `sigma` pixels, the image reflected at its borders as often as it takes.

    Args:
        kernel: odd width at which the kernel is cut; by default it reaches to 4 sigma.

    Raises:
        ValueError: no positive sigma, or an even kernel.
    """
    if not 0 < sigma < math.inf or (kernel is not None and (kernel < 1 or kernel % 2 == 0)):
        raise ValueError(
            f"no blur has sigma {sigma} and kernel {kernel}; the kernel is odd or None"
        )
    down, across = (_gaussian(side, sigma, kernel).to(images) for side in images.shape[2:])
    return down @ images @ across.T


def _gaussian(size: int, sigma: float, kernel: int | None = None) -> Float[Tensor, "size size"]:
    """The matrix that blurs a line of so many pixels."""
    radius = kernel // 2 if kernel is not None else math.ceil(4 * sigma)
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-0.5 * (offset / max(sigma, 1e-9)).double().square())
    weight = (weight / weight.sum()).expand(size, -1)
    # with period 2 (size - 1), a line and its mirror image; the border pixel is not repeated
    period = max(2 * (size - 1), 1)
    source = (torch.arange(size)[:, None] + offset) % period
    source = torch.minimum(source, period - source) if size > 1 else source * 0
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source, weight)


def _enlarging(cells: int, size: int, sigma: float) -> Float[Tensor, "size cells"]:
    """The matrix that enlarges a line of cells to pixels, bilinearly, and then blurs it."""
    basis = torch.eye(cells, dtype=torch.float64)[None]
    return _gaussian(size, sigma) @ nn.functional.interpolate(basis, size, mode="linear")[0].T


def perturbed(
    images: Float[Tensor, "n 3 h w"],
    blurry: Float[Tensor, "n 3 h w"],
    masks: Float[Tensor, "n h w"],
) -> Float[Tensor, "n 3 h w"]:
    """m x + (1 - m) blurred x: the image exactly where the mask is 1."""
    return torch.lerp(blurry, images, masks[:, None])


def penalties(
    masks: Float[Tensor, "n h w"], beta: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The means over pixels of |1 - m|, |grad m|^beta and |1 - m| m.

    |grad m|^beta adds the differences to the neighbours below and to the right, each to the power
    of beta; the last row and column have none.
    """
    pixels = masks.shape[1] * masks.shape[2]
    gap = 1 - masks  # not its abs, which has no slope at 1
    down, across = ((masks.diff(dim=d).abs() ** beta).sum((1, 2)) for d in (1, 2))
    return gap.mean((1, 2)), (down + across) / pixels, (gap * masks).mean((1, 2))


def starting_disc(cells: tuple[int, int], radius: float) -> Float[Tensor, "h w"]:
    """0 within a centred disc, whose radius is a share of the shorter side, 1 elsewhere."""
    y, x = (torch.arange(side) - (side - 1) / 2 for side in cells)
    return (torch.hypot(y[:, None], x) > radius * min(cells)).float()


# ---------------------------------------- the descent


def crisp_masks(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    schedule: Schedule = SCHEDULES["paper"],
    *,
    batch_size: int = 32,
    precision: str = "float32",
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Masks:
    """Fit a smooth mask and then a crisp one to each image (section 3.1, equation 2).

    Adam, and after each step the mask is clamped to [0, 1]. The crisp phase fits all pixels and
    starts from the smooth mask with a new Adam. Images are fitted independently: which ones share a
    batch changes nothing but rounding. The model is used in eval mode with frozen weights and comes
    back as it was.

    Args:
        targets: class of each image. The paper takes only images that are classified so: `select`.
        precision: "bfloat16" runs the network in it while descending; masks, penalties and the
            probabilities that are returned stay as exact as the images.
        seed: of the shifts, where the schedule has any; the same shifts for every image.
        progress: told after each step how many images took it, as `tqdm.update` wants it; in total
            n (smooth.iterations + crisp.iterations).

    Returns:
        Masks, losses and probabilities, on the images' device.

    Raises:
        ValueError: not one target per image, a target the model has no output for, an image value
            outside [0, 1], no such precision, or no batch size.
        FloatingPointError: a loss is not finite.
    """
    _check(model, images, targets, batch_size, precision)
    n, (h, w) = len(images), images.shape[2:]
    targets = targets.to(images.device)
    how = schedule.for_side(min(h, w))
    shifts = _shifts(how, seed)  # drawn once, so that every batch is shifted alike

    smooth, crisp = images.new_ones(n, h, w), images.new_ones(n, h, w)
    losses, probabilities = images.new_zeros(len(shifts), n), images.new_zeros(3, n)
    with frozen(model):
        for rows in _batches(n, batch_size):
            smooth[rows], crisp[rows], losses[:, rows] = _fitted(
                model, images[rows], targets[rows], how, shifts, precision, progress
            )
            blurry = blurred(images[rows], how.image_sigma, how.kernel)
            for kind, masks in enumerate(
                (torch.ones_like(smooth[rows]), smooth[rows], crisp[rows])
            ):
                seen = perturbed(images[rows], blurry, masks)
                with torch.no_grad():
                    probabilities[kind, rows] = _probability(model, seen, targets[rows])
            bad = torch.nonzero(~losses[:, rows].isfinite().all(0))[:, 0] + rows.start
            if len(bad):
                raise FloatingPointError(
                    f"the loss of images {bad[:8].tolist()} is not finite: look for weights or "
                    "outputs of the network that are not, or lower the schedule's lr"
                )
    return Masks(smooth, crisp, losses, *probabilities)


def iebb_masks(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    schedule: Schedule = SCHEDULES["iebb"],
    *,
    batch_size: int = 32,
    precision: str = "float32",
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Float[Tensor, "n h w"]:
    """The masks of Fong & Vedaldi 2017, equation 4, which paper 2 compares its own with.

    The smooth phase alone, with their weights (1e-4 and 1e-2, of sums over 28 x 28 cells: here as
    means that weigh as much at any size) and with the image, not the mask, shifted at random by up
    to 2 of 224 px at every step. They start from the smallest disc that takes 99 % of the score
    away; here both methods start from the same disc, so that they differ by their losses alone.

    Arguments and errors are those of `crisp_masks`.
    """
    if schedule.crisp.iterations:
        raise ValueError("these masks have no crisp phase; give a schedule with 0 iterations of it")
    return crisp_masks(
        model,
        images,
        targets,
        schedule,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        progress=progress,
    ).smooth


def fitting(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    schedule: Schedule = SCHEDULES["paper"],
    *,
    precision: str = "float32",
    seed: int = 0,
) -> Iterator[tuple[Float[Tensor, "n h w"], Float[Tensor, " n"]]]:
    """Both phases, step by step, for those who want to watch them.

    All images are one batch: this ends at what `crisp_masks` finds with a batch of that size. The
    model is used in eval mode with frozen weights and is as it was whenever this waits.

    Yields:
        The masks after each step, to be read before the next one overwrites them, and the loss
        before it: `schedule.smooth.iterations` smooth masks, enlarged to the image's size, and then
        `schedule.crisp.iterations` crisp ones.

    Raises:
        ValueError: as `crisp_masks`. A loss that is not finite is yielded like any other.
    """
    _check(model, images, targets, 1, precision)
    how = schedule.for_side(min(images.shape[2:]))
    answer = _answering(model, images, targets.to(images.device), how, precision)
    disc, enlarged = _coarse(images, how)
    yield from _both(_guarded(model, answer), disc, enlarged, how, _shifts(how, seed))


def refining(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    smooth: Float[Tensor, "n h w"],
    schedule: Schedule = SCHEDULES["paper"],
    *,
    precision: str = "float32",
    seed: int = 0,
) -> Iterator[tuple[Float[Tensor, "n h w"], Float[Tensor, " n"]]]:
    """The crisp phase alone, step by step, for those who want to watch it or change its weights.

    From the smooth masks that `crisp_masks` found with the same schedule it ends at its crisp ones.
    The model is used in eval mode with frozen weights and is as it was whenever this waits.

    Args:
        smooth: masks in [0, 1] to start from; other arguments are those of `crisp_masks`.

    Yields:
        The masks after each step, to be read before the next one overwrites them, and the loss
        before it, `schedule.crisp.iterations` times.

    Raises:
        ValueError: as `crisp_masks`, or not one mask per image and of its size.
    """
    _check(model, images, targets, 1, precision)
    if smooth.shape != (len(images), *images.shape[2:]):
        raise ValueError(f"masks {tuple(smooth.shape)} for images {tuple(images.shape)}")
    how = schedule.for_side(min(images.shape[2:]))
    answer = _answering(model, images, targets.to(images.device), how, precision)
    late = _shifts(how, seed)[how.smooth.iterations :]
    yield from _descend(_guarded(model, answer), smooth, how.crisp, how, late)


def _shifts(how: Schedule, seed: int) -> Int64[Tensor, "steps 2"]:
    """How far the image moves at each step of the smooth phase and then the crisp one, pixels."""
    generator = torch.Generator().manual_seed(seed)
    steps = how.smooth.iterations + how.crisp.iterations
    return ((torch.rand(steps, 2, generator=generator) - 0.5) * how.jitter).round().long()


Answer = Callable[[Tensor, Tensor], Tensor]  # masks (n, a, b) and a shift (2,): probabilities (n,)


def _answering(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    how: Schedule,
    precision: str,
) -> Answer:
    """The network's probability of each image's target under masks of the image's size."""
    h, w = images.shape[2:]
    margin = math.ceil(how.jitter / 2)
    padding = (margin, margin, margin, margin)
    # channels last is several times faster on processors
    sharp, blurry = (
        nn.functional.pad(x, padding, mode="replicate").contiguous(
            memory_format=torch.channels_last
        )
        for x in (images, blurred(images, how.image_sigma, how.kernel))
    )
    quick = precision == "bfloat16"

    def answer(masks: Tensor, shift: Tensor) -> Tensor:  # (n, h, w), (2,) -> (n,)
        top, left = (margin - shift).tolist()
        window = (..., slice(top, top + h), slice(left, left + w))
        seen = perturbed(sharp[window], blurry[window], masks)
        with torch.autocast(images.device.type, torch.bfloat16) if quick else nullcontext():
            return _probability(model, seen, targets)

    return answer


def _guarded(model: nn.Module, answer: Answer) -> Answer:
    """The same, with a model that is frozen only while it answers."""

    def guarded(masks: Tensor, shift: Tensor) -> Tensor:
        with frozen(model):
            return answer(masks, shift)

    return guarded


def _fitted(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    how: Schedule,
    shifts: Int64[Tensor, "steps 2"],
    precision: str,
    progress: Callable[[int], object] | None,
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"], Float[Tensor, "steps n"]]:
    """Smooth and crisp masks and the losses of one batch; the model is frozen."""
    answer = _answering(model, images, targets, how, precision)
    disc, enlarged = _coarse(images, how)
    masks = smooth = enlarged(disc).clamp(0, 1)
    losses = images.new_empty(len(shifts), len(images))
    for step, (masks, loss) in enumerate(_both(answer, disc, enlarged, how, shifts)):
        losses[step] = loss
        if step < how.smooth.iterations:
            smooth = masks
        if progress is not None:
            progress(len(images))
    return smooth, masks, losses


def _coarse(
    images: Float[Tensor, "n 3 h w"], how: Schedule
) -> tuple[Float[Tensor, "n r c"], Callable[[Tensor], Tensor]]:
    """The disc of cells that each image starts from, and what enlarges cells to the image."""
    h, w = images.shape[2:]
    cells = max(round(h / how.coarse), 1), max(round(w / how.coarse), 1)
    rows, columns = (
        _enlarging(c, side, how.mask_sigma).to(images)
        for c, side in zip(cells, (h, w), strict=True)
    )

    def enlarged(coarse: Tensor) -> Tensor:  # (n, r, c) -> (n, h, w)
        return rows @ coarse @ columns.T

    return starting_disc(cells, how.disc).to(images).expand(len(images), -1, -1), enlarged


def _both(
    answer: Answer,
    disc: Float[Tensor, "n r c"],
    enlarged: Callable[[Tensor], Tensor],
    how: Schedule,
    shifts: Int64[Tensor, "steps 2"],
) -> Iterator[tuple[Float[Tensor, "n h w"], Float[Tensor, " n"]]]:
    """The smooth phase on cells and then the crisp one on pixels: as `_descend`, but all masks have
    the image's size."""
    early, late = shifts.tensor_split([how.smooth.iterations])
    smooth = enlarged(disc).clamp(0, 1)
    for coarse, loss in _descend(
        lambda mask, shift: answer(enlarged(mask), shift), disc, how.smooth, how, early
    ):
        smooth = enlarged(coarse).clamp(0, 1)  # rounding
        yield smooth, loss
    yield from _descend(answer, smooth, how.crisp, how, late)


def _descend(
    answer: Answer,
    start: Float[Tensor, "n a b"],
    phase: Phase,
    how: Schedule,
    shifts: Int64[Tensor, "steps 2"],
) -> Iterator[tuple[Float[Tensor, "n a b"], Float[Tensor, " n"]]]:
    """Adam on equation 2, from `start`: the masks after each step and the loss before it."""
    masks = start.clone().requires_grad_()
    adam = torch.optim.Adam([masks], lr=how.lr)
    for shift in shifts:
        with torch.enable_grad():
            l1, l2, l3 = penalties(masks, how.beta)
            loss = answer(masks, shift) + phase.l1 * l1 + phase.l2 * l2 + phase.l3 * l3
            # each mask is in its own image's loss alone, so the sum's gradient is every image's own
            (masks.grad,) = torch.autograd.grad(loss.sum(), masks)
        adam.step()
        with torch.no_grad():
            masks.clamp_(0, 1)
        yield masks.detach(), loss.detach()


def _probability(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """(n, 3, h, w), (n,) -> (n,), in the images' precision whatever the network runs in."""
    logits = model(images).to(images.dtype)
    return logits.softmax(1).gather(1, targets[:, None])[:, 0]


# ---------------------------------------- what masks are judged by


def probability(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """The network's probability of each image's target. Raises as `crisp_masks` does."""
    _check(model, images, targets, batch_size)
    found, targets = images.new_zeros(len(images)), targets.to(images.device)
    with frozen(model), torch.no_grad():
        for rows in _batches(len(images), batch_size):
            found[rows] = _probability(model, images[rows], targets[rows])
    return found


def drop(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    masks: Float[Tensor, "n h w"],
    schedule: Schedule = SCHEDULES["paper"],
    *,
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """Table 2's drop, 100 (p - p') / p in percent: how much of the probability a mask takes away.

    100 is all of it; a mask that raises the probability has a negative drop. Of the schedule only
    the image's blur counts.

    Raises:
        ValueError: as `crisp_masks`, or an image without any probability of its target to lose.
    """
    how = schedule.for_side(min(images.shape[2:]))
    before = probability(model, images, targets, batch_size)
    if (before == 0).any():
        rows = torch.nonzero(before == 0)[:8, 0].tolist()
        raise ValueError(f"images {rows} have probability 0 of their targets; see select")
    after = torch.zeros_like(before)
    for rows in _batches(len(images), batch_size):
        blurry = blurred(images[rows], how.image_sigma, how.kernel)
        seen = perturbed(images[rows], blurry, masks[rows]).clamp(0, 1)
        after[rows] = probability(model, seen, targets[rows], batch_size)
    return 100 * (before - after) / before


def area_matched(
    smooth: Float[Tensor, "n h w"], crisp: Float[Tensor, "n h w"]
) -> Float[Tensor, "n h w"]:
    """The smooth masks made binary, each with as many zeros as its crisp mask has pixels below 0.5.

    Table 2's "IEBB thresh.": the threshold differs from image to image. Of equal values the first
    in reading order are perturbed, so that the area is exact.

    Raises:
        ValueError: masks of different shapes.
    """
    if smooth.shape != crisp.shape:
        raise ValueError(f"masks {tuple(smooth.shape)} and {tuple(crisp.shape)} do not match")
    if not smooth.numel():
        return smooth.clone()
    area = (crisp < 0.5).sum((1, 2))
    order = smooth.flatten(1).argsort(dim=1, stable=True)
    kept = torch.arange(order.shape[1], device=order.device) >= area[:, None]
    return torch.zeros_like(smooth).flatten(1).scatter_(1, order, kept.to(smooth)).view_as(smooth)


def binary_share(masks: Float[Tensor, "n h w"], within: float = 0.05) -> Float[Tensor, " n"]:
    """The share of pixels that are 0 or 1, up to `within`."""
    binary = (masks <= within) | (masks >= 1 - within)
    return binary.to(masks.dtype).mean((1, 2))


def select(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    per_class: int = 50,
    batch_size: int = 64,
) -> Int64[Tensor, " m"]:
    """Rows of the first images of each class that are classified right, as the paper's masks need.

    Returns:
        Rows in ascending order, at most `per_class` of a class; classes with fewer give all.

    Raises:
        ValueError: as `crisp_masks`, or less than 1 per class.
    """
    _check(model, images, labels, batch_size)
    if per_class < 1:
        raise ValueError(f"a class needs at least 1 image, not {per_class}")
    labels = labels.to(images.device)
    right = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    with frozen(model), torch.no_grad():
        for rows in _batches(len(images), batch_size):
            right[rows] = model(images[rows]).argmax(1) == labels[rows]
    found = [torch.nonzero(right & (labels == k))[:per_class, 0] for k in labels.unique()]
    return torch.cat([right.new_zeros(0, dtype=torch.int64), *found]).sort().values


def _batches(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _check(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    batch_size: int,
    precision: str = "float32",
) -> None:
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"the precision is 'float32' or 'bfloat16', not {precision!r}")
    if not len(images):
        return
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError("an image has values outside [0, 1], or none (NaN)")
    with frozen(model), torch.no_grad():
        outputs = model(images[:1]).shape[1]
    if not 0 <= int(targets.min()) <= int(targets.max()) < outputs:
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}, "
            f"but the model has outputs 0 to {outputs - 1}"
        )
