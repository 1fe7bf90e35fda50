"""Four ways to ask one network where the evidence for a class lies in one image.

Each of the four papers looks at a network through a lens of its own. Here each lens gives one map
per image, with values in [0, 1], so that they can be laid side by side:

1. `resemblance`: where the image looks to the network like its own painting of the class (paper 1).
   The paper paints and has no map; the map is the course's own.
2. `removed`: what paper 2's mask takes away. Paper 2 has two masks; taken is the crisp one, which
   is its own contribution and the one its regions are made of.
3. `paths`: where backtracking arrives (paper 3), with a narrow Gaussian around each pixel.
4. `cam`: Grad-CAM, the saliency that the slides on paper 4 show. Beside it stands `exchanged`, a
   map in the spirit of paper 4's Mixed-Rand: how much of the probability is lost when a patch comes
   from an image of another class (the course's own).

Then the maps are compared: with the object (`beyond_area`), with each other (`agreement`), image by
image and network by network, with intervals for few networks and few images.

Images are in [0, 1]; networks are those of `helpers.models`, whose first layer normalises. A map
without any contrast points nowhere: its rank correlations are NaN, and so is its share on an object
where it is 0 everywhere. Means leave NaN out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from helpers import backtracking as bt
from helpers import crisp_masks as cm
from helpers import feature_visualization as fv
from helpers import saliency
from helpers.models import Normalised, frozen

PAINTING, MASK, PATHS, CAM = "1 painting", "2 crisp mask", "3 backtracking", "4 Grad-CAM"
LENSES = (PAINTING, MASK, PATHS, CAM)
PATCHES = "4b exchanged patches"
CENTRE = "centred Gaussian"  # knows neither the network nor the image
MAPS = (*LENSES, PATCHES, CENTRE)


# ---------------------------------------------------------------- one map per lens


def resemblance(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    paintings: Float[Tensor, "k 3 a b"],
) -> Float[Tensor, "n h w"]:
    """Lens 1: where the image resembles the network's own painting of the class (ours).

    At each position of the last feature maps (`saliency.last_maps`) the cosine between the image's
    vector of features and the painting's, which is averaged over positions; what is negative counts
    as 0. Enlarged bilinearly. A position, or a painting, without any active feature has cosine 0.

    Args:
        targets: of each image, the row of its class's painting.

    Raises:
        ValueError: a target without a painting, or as `saliency.last_maps`.
    """
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(paintings):
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}, and there are "
            f"{len(paintings)} paintings"
        )
    if not len(images):
        return images.new_zeros(0, *images.shape[2:])
    layer = saliency.last_maps(model, images)
    wanted, which = targets.unique(return_inverse=True)
    painted = _features(model, layer, paintings[wanted]).mean((2, 3))
    seen = _features(model, layer, images)
    cosine = functional.cosine_similarity(seen, painted[which][:, :, None, None], dim=1)
    fine = functional.interpolate(
        cosine.clamp(0, 1)[:, None], images.shape[2:], mode="bilinear", align_corners=False
    )
    return fine[:, 0]


def _features(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, channels, rows, columns): what a layer answers."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        with frozen(model), torch.no_grad():
            model(images)
    finally:
        hook.remove()
    return seen[-1].float()


def removed(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Lens 2: 1 where a mask of `helpers.crisp_masks` takes the image away, 0 where it keeps it."""
    return 1 - masks


def mask_slices(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    schedule: cm.Schedule = cm.SCHEDULES["paper"],
    *,
    every: int = 15,
) -> Iterator[tuple[float, Float[Tensor, "n h w"]]]:
    """Lens 2 while it is being made: what the mask removes after each slice of the descent.

    The last slice is what `crisp_masks.crisp_masks` gives. Whoever stops asking stops the work.

    Args:
        every: steps in a slice. A slice ends where a phase ends.

    Yields:
        The share of all steps that are done, and the map so far.

    Raises:
        ValueError: less than one step in a slice, or as `crisp_masks.crisp_masks`.
        FloatingPointError: a loss is not finite.
    """
    if every < 1:
        raise ValueError(f"a slice has at least 1 step, not {every}")
    first = schedule.smooth.iterations
    total = first + schedule.crisp.iterations
    for step, (masks, loss) in enumerate(cm.fitting(model, images, targets, schedule), 1):
        if not loss.isfinite().all():
            raise FloatingPointError("the loss of a mask is not finite")
        of_its_phase = step if step <= first else step - first
        if of_its_phase % every == 0 or step in (first, total):
            yield step / total, removed(masks)


def paths(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    width: float = bt.SHARP,
) -> Float[Tensor, "n h w"]:
    """Lens 3: where backtracking from the class arrives, a Gaussian around each pixel.

    Args:
        width: standard deviation, share of the shorter side.

    Raises:
        As `backtracking.backtrack` and `backtracking.attention`.
    """
    pixels = bt.backtrack(model, images, targets)
    return bt.attention(pixels.float(), width * min(images.shape[2:]))


def cam(
    model: nn.Module, images: Float[Tensor, "n 3 h w"], targets: Int64[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Lens 4: Grad-CAM at the last maps, each map divided by its peak. See `saliency.grad_cam`."""
    if not len(images):
        return images.new_zeros(0, *images.shape[2:])
    return saliency.grad_cam(model, images, targets, saliency.last_maps(model, images))


def exchanged(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    others: Float[Tensor, "n d 3 h w"],
    *,
    side: int,
    stride: int | None = None,
    batch_size: int = 256,
) -> Float[Tensor, "n h w"]:
    """Lens 4, another way: what is lost when a patch shows another image instead (ours).

    A square of the image is replaced by the same square of an image of another class, as Mixed-Rand
    replaces the background. What the class's probability falls by, averaged over the other images,
    is averaged once more over all squares that cover a pixel; what rises counts as 0. Divided by
    the map's peak; a map without any fall stays 0.

    Args:
        others: for each image the images its patches are taken from.
        side: of a square, pixels.
        stride: from one square to the next; by default half a side. The last square of a row ends
            at the border.
        batch_size: altered images that run at once.

    Raises:
        ValueError: a side or stride below 1, a side larger than the image, no other image, or not
            as many targets and rows of others as images.
    """
    n, _, h, w = images.shape
    stride = max(1, side // 2) if stride is None else stride
    if not 1 <= side <= min(h, w) or stride < 1:
        raise ValueError(f"patches of {side} px, {stride} apart, do not fit into {h} x {w} px")
    if len(targets) != n or len(others) != n or (n and not others.shape[1]):
        raise ValueError(
            f"{n} images need as many targets and at least one other image each; there are "
            f"{len(targets)} targets and others of shape {tuple(others.shape)}"
        )
    corners = [(y, x) for y in _starts(h, side, stride) for x in _starts(w, side, stride)]
    where = torch.zeros(len(corners), h, w, dtype=torch.bool, device=images.device)
    for k, (y, x) in enumerate(corners):
        where[k, y : y + side, x : x + side] = True
    maps = images.new_zeros(n, h, w)
    with frozen(model), torch.no_grad():
        for row, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
            before = model(image[None]).float().softmax(1)[0, target]
            donors = others[row].repeat_interleave(len(corners), 0)
            squares = where.repeat(others.shape[1], 1, 1)[:, None]
            after = [
                model(torch.where(square, donor, image)).float().softmax(1)[:, target]
                for square, donor in zip(
                    squares.split(batch_size), donors.split(batch_size), strict=True
                )
            ]
            fall = before - torch.cat(after).view(others.shape[1], -1).mean(0)
            maps[row] = (fall[:, None, None] * where).sum(0) / where.sum(0).clamp(min=1)
    return saliency._to_peak(maps.clamp(min=0))


def _starts(length: int, side: int, stride: int) -> list[int]:
    return sorted({*range(0, length - side + 1, stride), length - side})


# ---------------------------------------------------------------- what the maps are compared by


def beyond_area(
    maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"]
) -> Float64[Tensor, " n"]:
    """Share of each map on the object minus the object's share of the image, percentage points.

    A map that does not know the object is at 0 on average, one that lies on it alone at 100 minus
    the object's area. NaN for a map that is 0 everywhere.
    """
    return 100 * (saliency.energy_inside(maps.double(), masks) - masks.double().mean((1, 2)))


def coarse(maps: Float[Tensor, "n h w"], cells: int = 8) -> Float[Tensor, "n {cells} {cells}"]:
    """The means over cells x cells areas: lenses of different sharpness are compared on these."""
    return functional.adaptive_avg_pool2d(maps[:, None], cells)[:, 0]


def agreement(
    a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"], cells: int = 8
) -> Float64[Tensor, " n"]:
    """Spearman's rank correlation of two maps of each image, on the coarse grid. NaN where one of
    them is constant there."""
    return saliency.rank_similarity(coarse(a, cells), coarse(b, cells))


def cell_ranks(maps: Float[Tensor, "n h w"], cells: int = 8) -> Float64[Tensor, "n {cells}**2"]:
    """The ranks of each map's cells, centred and of length 1, so that the product of two rows is
    Spearman's correlation. A constant map's row is NaN."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(coarse(maps, cells).flatten(1).numpy(), axis=1))
    ranks = ranks - ranks.mean(1, keepdim=True)
    return ranks / ranks.norm(dim=1, keepdim=True)


def with_others(
    a: Float64[Tensor, "n cells"], b: Float64[Tensor, "n cells"]
) -> Float64[Tensor, " n"]:
    """The control: each map with the other lens's maps of all *other* images, as `agreement`; the
    mean over these, NaN left out. NaN where there is no other image.

    Args:
        a, b: `cell_ranks` of the two lenses' maps.
    """
    every = a @ b.T
    return every.fill_diagonal_(torch.nan).nanmean(1)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of a few points, with its permutation test."""

    rho: float  # NaN where one side does not vary
    p: float  # two-sided: the share of orders whose correlation is at least as far from 0
    n: int
    exact: bool  # all orders were tried


_ALL_ORDERS = 8  # points; 8! = 40,320 orders


def rank_correlation(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, seed: int = 0
) -> RankCorrelation:
    """Spearman's correlation; equal values share their mean rank.

    Up to eight points all orders of one side are tried, so that p is exact; for more, 9,999 random
    orders and the given one.

    Raises:
        ValueError: fewer than three points, not as many on both sides, or values not finite.
    """
    x, y = (np.asarray(side, float) for side in (x, y))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or not np.isfinite([x, y]).all():
        raise ValueError(
            "a correlation takes at least three pairs of finite numbers, not "
            f"{x.tolist()} and {y.tolist()}"
        )
    from scipy.stats import rankdata

    n, exact = len(x), len(x) <= _ALL_ORDERS
    one, other = (_standardised(rankdata(side)) for side in (x, y))
    if one is None or other is None:
        return RankCorrelation(float("nan"), float("nan"), n, exact)
    if exact:
        orders = np.array(list(permutations(range(n))))
    else:
        rng = np.random.default_rng(seed)
        orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(9_999))])
    rho = float(one @ other)
    drawn = other[orders] @ one
    return RankCorrelation(rho, float((np.abs(drawn) >= abs(rho) - 1e-12).mean()), n, exact)


def _standardised(ranks: np.ndarray) -> np.ndarray | None:
    centred = ranks - ranks.mean()
    length = np.sqrt(centred @ centred)
    return centred / length if length > 0 else None


def mutual(*columns: Sequence[float] | np.ndarray) -> float:
    """The mean of Spearman's correlations of every two columns.

    A pair of which one does not vary, as happens in a resample, counts as 0.

    Raises:
        ValueError: fewer than two columns.
    """
    from scipy.stats import rankdata

    if len(columns) < 2:
        raise ValueError("a correlation takes at least two columns")
    ranks = [_standardised(rankdata(np.asarray(column, float))) for column in columns]
    pairs = [0.0 if a is None or b is None else float(a @ b) for a, b in combinations(ranks, 2)]
    return round(float(np.mean(pairs)), 12) + 0.0  # 0 is 0, not what rounding leaves of it


def times_drawn(
    groups: Sequence[object], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resamples n"]:
    """How often each member is in each resample: groups are drawn with replacement, as many as
    there are, and from each drawn group as many of its members as it has, with replacement."""
    known = list(dict.fromkeys(groups))
    drawn = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), resamples)
    times = np.zeros((resamples, len(groups)))
    for group, how_often in zip(known, drawn.T, strict=True):
        members = [k for k, other in enumerate(groups) if other == group]
        share = np.full(len(members), 1 / len(members))
        times[:, members] = rng.multinomial(how_often * len(members), share)
    return times


def over_networks_and_images(
    values: Float[Tensor, "networks images"],
    groups: Sequence[object],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The mean of a table of networks x images, NaN left out, and its bootstrap interval.

    Networks that were trained alike are no independent draws, and all networks see the same images.
    So a resample draws groups of networks, then networks within each drawn group, and, for all of
    them at once, images; all with replacement. The interval lies between percentiles of the means.

    Args:
        groups: what each network was trained on; equal ones are one group.

    Returns:
        Mean and the ends of the interval; NaN where every value is.

    Raises:
        ValueError: not one group per network, or an empty table.
    """
    networks, images = values.shape
    if len(groups) != networks or not values.numel():
        raise ValueError(f"{tuple(values.shape)} values of networks x images, {len(groups)} groups")
    table = values.double().numpy()
    known = np.isfinite(table)
    if not known.any():
        return (float("nan"),) * 3
    table = np.where(known, table, 0.0)
    rng = np.random.default_rng(seed)
    of_networks = times_drawn(groups, resamples, rng)
    of_images = rng.multinomial(images, np.full(images, 1 / images), resamples)
    total = ((of_networks @ table) * of_images).sum(1)
    count = ((of_networks @ known) * of_images).sum(1)
    means = total[count > 0] / count[count > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(table.sum() / known.sum()), float(low), float(high)


# ---------------------------------------------------------------- any network, any images


@dataclass(frozen=True, eq=False)
class Looked:
    """What the four lenses show of some images."""

    images: Float[Tensor, "n 3 h w"]
    targets: Int64[Tensor, " n"]  # the class that each map is about
    names: tuple[str, ...]  # of these classes, an image each
    probability: Float[Tensor, " n"]  # that the network gives it
    paintings: dict[int, Float[Tensor, "3 h w"]]  # by class
    maps: dict[str, Float[Tensor, "n h w"]]  # by lens, those that work on this network
    missing: dict[str, str] = field(default_factory=dict)  # the others, and why


def as_cnn(model: nn.Module) -> nn.Module:
    """The network behind a normalisation, which is ImageNet's where it has none of its own.

    Raises:
        ValueError: a network without convolutions to look through.
    """
    count = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    if count < 2:
        inner = getattr(model, "network", model)
        raise ValueError(
            f"{type(inner).__name__} is no convolutional network: it has {count} convolution"
            f"{'s' * (count != 1)} (a vision transformer's only one cuts the image into patches). "
            "The lenses follow maps from layer to layer; take a CNN, such as a ResNet"
        )
    if hasattr(model, "normalise"):
        return model
    return nn.Sequential(OrderedDict(normalise=Normalised(), network=model))


def look(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    class_names: Sequence[str],
    *,
    targets: Int64[Tensor, " n"] | None = None,
    schedule: cm.Schedule | None = cm.SCHEDULES["paper"],
    ascent: fv.Ascent | None = None,
    progress: Callable[[str], object] | None = None,
) -> Looked:
    """All four lenses on images of your own, through any torchvision or timm CNN.

    A network that does not normalise by itself (it has no part `normalise`) gets ImageNet's. A lens
    that cannot look through this network, because an operation has no rule, is named in `missing`.

    Args:
        class_names: of the network's outputs.
        targets: the class that is asked about in each image; by default the one it predicts.
        schedule: of the masks, which take by far the longest; None leaves lens 2 out.
        ascent: how the classes are painted, from grey; None: 40 steps, the squared norm's weight
            as small as the image is large.
        progress: told in a word what is being done.

    Raises:
        ValueError: no image, values outside [0, 1], a network that is no CNN or has another number
            of outputs than there are names, or images it cannot take.
    """
    if not len(images):
        raise ValueError("there is no image to look at")
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError("an image has values outside [0, 1], or none (NaN); divide bytes by 255")
    model = as_cnn(model)
    say = progress or (lambda doing: None)
    try:
        with frozen(model), torch.no_grad():
            logits = model(images)
    except RuntimeError as error:
        size = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"the network cannot take images of {size}: {error}") from error
    if logits.ndim != 2 or logits.shape[1] != len(class_names):
        raise ValueError(
            f"the network's output has shape {tuple(logits.shape)}, which is not one number for "
            f"each of {len(class_names)} class names"
        )
    targets = logits.argmax(1) if targets is None else targets.to(images.device)
    wanted, which = targets.unique(return_inverse=True)
    side = min(images.shape[2:])
    how = ascent or fv.Ascent(steps=40, rate=0.015, l2=3e-4 * (64 / side) ** 2)
    say("painting")
    grey = torch.full((len(wanted), *images.shape[1:]), 0.5, device=images.device)
    paintings = fv.ascend(model, wanted, grey, how)
    lenses: dict[str, Callable[[], Tensor]] = {
        PAINTING: lambda: resemblance(model, images, which, paintings),
        MASK: lambda: removed(cm.crisp_masks(model, images, targets, schedule).crisp),
        PATHS: lambda: paths(model, images, targets),
        CAM: lambda: cam(model, images, targets),
    }
    if schedule is None:
        lenses.pop(MASK)
    maps, missing = {}, {} if schedule else {MASK: "left out: no schedule"}
    for name, make in lenses.items():
        say(name)
        try:
            maps[name] = make().cpu()
        except (ValueError, FloatingPointError) as error:  # Unsupported is a ValueError
            missing[name] = str(error)
    said = logits.float().softmax(1).gather(1, targets[:, None])[:, 0]
    return Looked(
        images=images.cpu(),
        targets=targets.cpu(),
        names=tuple(class_names[k] for k in targets.tolist()),
        probability=said.cpu(),
        paintings=dict(zip(wanted.tolist(), paintings.cpu(), strict=True)),
        maps=maps,
        missing=missing,
    )
