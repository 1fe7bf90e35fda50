"""Pictures that a network scores highest, and how to judge them.

Sources: "Targeted Background Removal Creates Interpretable Feature Visualizations" (paper 1),
section IV: activation maximisation with an L2 regulariser and nothing else, so that whatever can be
recognised in the picture comes from the network; the introduction's simple regularisers (shift the
image every few iterations, add a little noise, penalise high frequencies) are options here, off by
default. The objective is Simonyan's (2014, "Deep inside convolutional networks", section 2).

Images are in [0, 1]; networks are those of `helpers.models`, whose first layer normalises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from helpers.imageset import ImageSet
from helpers.models import embed, frozen


@dataclass(frozen=True)
class Ascent:
    """How to climb. The defaults are the paper's: an L2 weight and no other regulariser.

    Raises:
        ValueError: no step, or a negative rate, weight or strength.
    """

    steps: int = 60
    rate: float = 0.01  # root mean square change of a value in [0, 1] per step
    l2: float = 1e-4  # weight of the squared norm of the normalised image; the same for all models
    root: bool = False  # captum's and lucid's penalty: the norm itself instead of its square
    norm: float | None = None  # instead of a weight: the normalised image's norm is at most this
    jitter: int = 0  # shift by up to so many pixels at every step (wrapped around)
    noise: float = 0.0  # standard deviation of the noise added before every gradient, of [0, 1]
    smoothness: float = 0.0  # weight of the total variation, which penalises high frequencies

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.norm is not None and not self.norm > 0):
            raise ValueError("an ascent needs at least one step and, if any, a positive norm")
        for name in ("rate", "l2", "jitter", "noise", "smoothness"):
            if not getattr(self, name) >= 0:  # NaN neither
                raise ValueError(f"Ascent.{name} is {getattr(self, name)}; valid is 0 or more")


def objective(
    model: nn.Sequential,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    how: Ascent,
) -> Float[Tensor, " n"]:
    """S_c(I) - l2 ||I||^2 - smoothness TV(I), one number per image.

    S_c is the class's score before the softmax and I the *normalised* image: the penalty pulls
    towards the mean colour of natural images, a mid-grey, and not towards black. Paper 1 prints no
    formula. With `how.root` the penalty is sqrt(1e-6 + ||I||^2), whose pull does not grow with I.
    TV is the sum of absolute differences between neighbours.
    """
    normalised = model.normalise(images)
    score = model.network(normalised).gather(1, targets[:, None])[:, 0]
    energy = normalised.square().sum((1, 2, 3))
    score = score - how.l2 * ((energy + 1e-6).sqrt() if how.root else energy)
    if how.smoothness:
        variation = sum(normalised.diff(dim=d).abs().sum((1, 2, 3)) for d in (2, 3))
        score = score - how.smoothness * variation
    return score


def ascend(
    model: nn.Sequential,
    targets: Int64[Tensor, " n"],
    start: Float[Tensor, "n 3 h w"],
    how: Ascent = Ascent(),
    *,
    seed: int = 0,
) -> Float[Tensor, "n 3 h w"]:
    """Where `climbing` ends; the arguments and errors are its own."""
    return deque(climbing(model, targets, start, how, seed=seed), maxlen=1).pop()


def climbing(
    model: nn.Sequential,
    targets: Int64[Tensor, " n"],
    start: Float[Tensor, "n 3 h w"],
    how: Ascent = Ascent(),
    *,
    seed: int = 0,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Climb the objective from `start` by steps of equal length, within [0, 1].

    The gradient is divided by its norm, image by image, so that a network with large scores climbs
    no faster than one with small scores. Shifts and noise come from (seed, step) and are the same
    for every image: nothing depends on which images share a batch. The model is used in eval mode
    with frozen weights and is as it was whenever this waits.

    Args:
        targets: class of each image; any number of rows, also none.
        start: in [0, 1]; see `starts`.

    Yields:
        The images after each step, `how.steps` times.

    Raises:
        ValueError: not one target per image, a target the model has no output for, or a start
            outside [0, 1].
        FloatingPointError: a gradient was not finite; raised after the last step.
    """
    _check(model, targets, start)
    generator = torch.Generator().manual_seed(seed)
    length = how.rate * start[0].numel() ** 0.5 if len(start) else 0.0
    images = start.clone(memory_format=torch.channels_last)  # a quarter faster on processors
    for _ in range(how.steps):
        with frozen(model), torch.enable_grad():
            images = images.detach().requires_grad_()
            seen = disturbed(images, how, generator)
            (slope,) = torch.autograd.grad(objective(model, seen, targets, how).sum(), images)
            steepness = slope.flatten(1).norm(dim=1)[:, None, None, None]
            images = images.detach() + length * slope / steepness.clamp(min=1e-12)
            if how.norm is not None:
                images = within(model, images, how.norm)
            images = images.clamp(0, 1)
        yield images
    if not images.isfinite().all():
        raise FloatingPointError("the ascent met a gradient that is not finite")


def disturbed(
    images: Float[Tensor, "n 3 h w"], how: Ascent, generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """The images with the noise and the shift of one step, the same for all."""
    if how.noise:
        drawn = torch.randn(images.shape[1:], generator=generator).to(images.device)
        images = images + how.noise * drawn
    if how.jitter:
        shift = torch.randint(-how.jitter, how.jitter + 1, (2,), generator=generator)
        images = images.roll(shift.tolist(), (2, 3))
    return images


def within(
    model: nn.Sequential, images: Float[Tensor, "n 3 h w"], norm: float
) -> Float[Tensor, "n 3 h w"]:
    """The images scaled, as *normalised* images, to at most this L2 norm."""
    normalised = model.normalise(images)
    length = normalised.flatten(1).norm(dim=1)[:, None, None, None]
    normalised = normalised * (norm / length.clamp(min=norm))
    return normalised * model.normalise.std + model.normalise.mean


STARTS = ("grey", "mean", "noise")


def starts(kind: str, n: int, trained_on: ImageSet, *, seed: int = 0) -> Float[Tensor, "n 3 h w"]:
    """Where the climb begins, which the paper does not state.

    Args:
        kind: "grey" (one half everywhere), "mean" (the mean of the images the model was trained
            on), "noise" (grey plus Gaussian noise of standard deviation 0.1, from the seed) or
            "black".

    Raises:
        ValueError: no such kind.
    """
    shape = trained_on.images.shape[1:]
    if kind == "mean":
        return (trained_on.images.float().mean(0) / 255).expand(n, *shape).contiguous()
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        return (0.5 + 0.1 * torch.randn(n, *shape, generator=generator)).clamp(0, 1)
    if kind not in ("grey", "black"):
        raise ValueError(f"no start {kind!r}; there are {', '.join((*STARTS, 'black'))}")
    return torch.full((n, *shape), 0.5 if kind == "grey" else 0.0)


def _check(model: nn.Sequential, targets: Tensor, start: Tensor) -> None:
    if not hasattr(model, "normalise"):
        raise ValueError("the model has no layer `normalise`; see helpers.models.build")
    if len(targets) != len(start):
        raise ValueError(f"{len(targets)} targets for {len(start)} starting images")
    if len(start) and not 0 <= float(start.min()) <= float(start.max()) <= 1:
        raise ValueError("a starting image has values outside [0, 1]")
    if len(start):
        with frozen(model), torch.no_grad():
            outputs = model(start[:1]).shape[1]
        if not 0 <= int(targets.min()) <= int(targets.max()) < outputs:
            raise ValueError(
                f"targets run from {int(targets.min())} to {int(targets.max())}, "
                f"but the model has outputs 0 to {outputs - 1}"
            )


# ---------------------------------------- scores, which the paper leaves open


def judged(
    judge: nn.Module, images: Float[Tensor, "n 3 h w"], targets: Int64[Tensor, " n"]
) -> dict[str, Tensor]:
    """What an independent network says of each picture.

    Returns:
        right (bool: the target is its first answer), probability (of the target, 0 to 1), rank (of
        the target among the classes, 1 is first; ties count against it), each of shape (n,).
    """
    with frozen(judge), torch.no_grad():
        logits = judge(images)
    of_target = logits.gather(1, targets[:, None])
    rank = (logits >= of_target).sum(1)
    return {
        "right": rank == 1,
        "probability": logits.softmax(1).gather(1, targets[:, None])[:, 0],
        "rank": rank,
    }


def spectrum(images: Float[Tensor, "n 3 h w"], bins: int = 16) -> Float[Tensor, "n bins"]:
    """The share of each image's energy per band of spatial frequency; rows sum to 1.

    Energy is the squared Fourier amplitude summed over colours, without the mean. Bands are equally
    wide rings from 0 to 0.5 cycles per pixel; what lies in the corners beyond joins the last one. A
    Hann window keeps the frame itself, which is no feature, out of the spectrum. An image of one
    colour has no energy: its row is 0.
    """
    h, w = images.shape[2:]
    window = torch.hann_window(h, periodic=False)[:, None] * torch.hann_window(w, periodic=False)
    window = window.to(images)
    mean = (images * window).sum((2, 3), keepdim=True) / window.sum()
    energy = torch.fft.fft2((images - mean) * window).abs().square().sum(1)
    vertical, horizontal = torch.fft.fftfreq(h)[:, None], torch.fft.fftfreq(w)
    radius = (vertical.square() + horizontal.square()).sqrt()
    ring = (radius * 2 * bins).long().clamp(max=bins - 1).to(images.device)
    total = images.new_zeros(len(images), bins)
    total.index_add_(1, ring.flatten(), energy.flatten(1))
    size = total.sum(1, keepdim=True)
    return torch.where(size > 1e-9 * h * w, total / size.clamp(min=1e-30), 0.0)


def high_frequency(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The share of energy above a quarter cycle per pixel: details under four pixels long."""
    return spectrum(images, bins=16)[:, 8:].sum(1)


def total_variation(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The mean absolute difference between neighbouring values, down plus across."""
    return sum(images.diff(dim=d).abs().mean((1, 2, 3)) for d in (2, 3))


def feature_distance(
    judge: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    real: ImageSet,
    neighbours: int = 5,
) -> Float[Tensor, " n"]:
    """How far each picture is from real images of its class, as the judge sees them.

    The mean cosine distance to the nearest real images of the class in the judge's penultimate
    layer, divided by what a real image of that class has to the others: 1 is as near as real ones.
    NaN where the class has not enough real images.
    """
    from sklearn.neighbors import NearestNeighbors  # a second that stored scores do without

    device = images.device
    with frozen(judge), torch.no_grad():
        seen = embed(judge, images)
        known = torch.cat([embed(judge, real[r].to_float(device)) for r in _batches(len(real))])
    distance = torch.full((len(images),), torch.nan, device=device)
    for target in targets.unique().tolist():
        rows, own = targets == target, known[real.labels.to(device) == target]
        if len(own) <= neighbours:
            continue
        search = NearestNeighbors(n_neighbors=neighbours + 1, metric="cosine").fit(own.cpu())
        usual = search.kneighbors(own.cpu())[0][:, 1:].mean()  # its own nearest is itself
        near = search.kneighbors(seen[rows].cpu(), n_neighbors=neighbours)[0].mean(1)
        distance[rows] = torch.from_numpy(near / max(usual, 1e-9)).to(distance)
    return distance


def _batches(n: int, size: int = 256) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


@dataclass(frozen=True)
class Origin:
    """Where the most similar patches of real images of the class lie."""

    on_object: Float[Tensor, " n"]  # share of the painting that looks like the object, 0 to 1
    parts: Float[Tensor, "n p"]  # the same by part; column 0 is the backdrop. Rows sum to 1


def origin(
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    real: ImageSet,
    *,
    painted: Float[Tensor, "n h w"] | None = None,
    by: str = "pattern",
    patch: int = 8,
    sample: int = 1_000,
    seed: int = 0,
) -> Origin:
    """Does a picture use the object's colours and parts, or its backdrop's?

    Every patch of a picture is compared with patches of real images of the same class, as many from
    objects as from backdrops, and takes over what the nearest one shows: a part or the backdrop.
    Flat patches have no pattern and all resemble the same one: weigh them out by `painted`. A
    picture on which nothing counts has no origin: NaN.

    Args:
        real: with masks; with parts too, where they are known.
        painted: how much each pixel counts, such as its distance from the starting image; without
            it all count alike.
        by: "colour" compares the mean colours, "pattern" what is left without mean and contrast.
        patch: side in pixels; patches overlap by half.
        sample: patches of a class that are looked at, half on objects and half on backdrops.

    Raises:
        ValueError: no masks, an unknown `by`, or a class without patches of both kinds.
    """
    if real.masks is None:
        raise ValueError("these images have no masks, so object and backdrop cannot be told apart")
    if by not in ("colour", "pattern"):
        raise ValueError(f"patches are compared by colour or by pattern, not by {by!r}")
    of_part = real.parts if real.parts is not None else real.masks.to(torch.uint8)
    n, columns = len(images), max(len(real.part_names), 2)
    weight = torch.ones(n, 1, *images.shape[2:]) if painted is None else painted[:, None].cpu()
    weight = _patches(weight, patch).mean(2)  # (n, patches)
    shares = torch.zeros(n, columns)
    generator = torch.Generator().manual_seed(seed)
    for target in targets.unique().tolist():
        rows = (targets == target).cpu()
        own = torch.nonzero(real.labels == target)[:, 0]
        covered = _patches(real.masks[own, None].float(), patch).mean(2).flatten()
        middle = _patches(of_part[own, None].float(), patch)[..., patch * patch // 2 + patch // 2]
        chosen = []
        for kind in (covered > 0.75, covered < 0.05):
            found = torch.nonzero(kind)[:, 0]
            order = torch.randperm(len(found), generator=generator)
            chosen.append(found[order[: sample // 2]])
        fewest = min(len(found) for found in chosen)
        if not fewest:
            raise ValueError(f"no patches of object and backdrop in {real.class_names[target]!r}")
        chosen = torch.cat([found[:fewest] for found in chosen])
        known = _patches(real[own].to_float(), patch).flatten(0, 1)[chosen]
        shown = (middle.flatten().long() * (covered > 0.75))[chosen]
        asked = _patches(images[rows].cpu(), patch)
        distance = torch.cdist(_described(asked.flatten(0, 1), by), _described(known, by))
        nearest = shown[distance.argmin(1)].view(asked.shape[:2])
        shares[rows] = shares[rows].scatter_add(1, nearest, weight[rows])
    shares = shares / shares.sum(1, keepdim=True)
    return Origin(on_object=1 - shares[:, 0], parts=shares)


def _patches(maps: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n p d"]:
    """All patches of this side, half overlapping, each channel by channel."""
    return nn.functional.unfold(maps, side, stride=side // 2).transpose(1, 2)


def _described(patches: Float[Tensor, "m d"], by: str) -> Float[Tensor, "m k"]:
    colours = patches.unflatten(1, (3, -1))
    mean = colours.mean(2, keepdim=True)
    if by == "colour":
        return mean[:, :, 0]
    pattern = (colours - mean).flatten(1)
    return pattern / (pattern.norm(dim=1, keepdim=True) + 0.1)
