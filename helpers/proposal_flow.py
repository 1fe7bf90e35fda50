"""Proposal flow: which box of one image shows what a box of another image shows.

Paper 2 (visual summaries, section 2) compares parts of images by proposal flow (Ham, Cho, Schmid
and Ponce 2016, CVPR): propose boxes (`proposals`), describe what is in each (`describe` or
`roi_features`), and let the matches of all boxes decide together which ones are plausible
(`match`: `nam`, `phm` or `lom`). `flow` and `pck` measure matches where keypoints are known.

A box is x0, y0, x1, y1 in pixels, half open, as in `ImageSet.boxes`. The formulas use its centre
(x, y) and half sides (a, b). A size is (height, width). All functions are pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

ALPHAS = (0.05, 0.1, 0.15)

_CELL = 8  # px, side of a cell of HOG
_SIDE = 10 * _CELL  # a box and its context; the descriptor is the inner 8 x 8 cells
_CHANNELS = 31  # per cell: 18 signed directions, 9 unsigned, 4 energies
_TOO_FEW = "the images are too few or too plain to whiten by"


def proposals(
    image: UInt8[Tensor, "3 h w"], count: int = 500, *, quality: bool = False, enlarge: int = 1
) -> Int64[Tensor, "m 4"]:
    """Boxes that may hold something, by Selective Search (Uijlings 2013), OpenCV's.

    First comes the whole image, then at most `count` - 1 different boxes. The same image gives the
    same boxes, always. OpenCV finds the same set every time but orders it by chance, drawn from a
    generator that cannot be seeded. So where the set is larger than `count` we draw from it
    ourselves, with a fixed seed: large boxes come first more often (probability proportional to
    area^1/4), as Uijlings' order, random but by height in the hierarchy, has it.

    Args:
        quality: five colour spaces, five grains and four similarities in place of two, three and
            two: about three times as many boxes, in about three times the time.
        enlarge: search in the image enlarged so many times. The search drops regions below 100
            px, so it finds few boxes in small pictures: in 64 px scenes (median of 40) fast mode
            finds 55, 126 and 179 boxes with 1, 2 and 3, quality mode 131, 339 and 501.

    Raises:
        ValueError: a count or an enlargement below 1.
    """
    if count < 1 or enlarge < 1:
        raise ValueError(f"count and enlarge must be at least 1, not {count} and {enlarge}")
    _, h, w = image.shape
    picture = cv2.cvtColor(_picture(image), cv2.COLOR_RGB2BGR)
    size = (w * enlarge, h * enlarge)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
    (search.switchToSelectiveSearchQuality if quality else search.switchToSelectiveSearchFast)()
    found = np.asarray(search.process(), np.int64).reshape(-1, 4)  # x, y, width, height
    starts, ends = found[:, :2] // enlarge, -(-(found[:, :2] + found[:, 2:]) // enlarge)
    boxes = torch.from_numpy(np.concatenate((starts, ends), 1)).unique(dim=0)
    whole = torch.tensor([[0, 0, w, h]])
    boxes = boxes[(boxes != whole).any(1)]
    chance = torch.rand(len(boxes), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).double()
    # the k smallest of independent exponential times are a draw without replacement
    first = (-chance.log() / area**0.25).argsort(stable=True)[: count - 1]
    return torch.cat((whole, boxes[first]))


@dataclass(frozen=True, eq=False)
class Whitening:
    """What the descriptors of any natural image have in common, to be taken out: (h - mean) @ root.

    With it, a dot product of descriptors is (h - mean)^T Sigma^-1 (h' - mean).
    """

    mean: Float[Tensor, " d"]
    root: Float[Tensor, "d d"]  # root @ root.T is the inverse of Sigma


def describe(
    image: UInt8[Tensor, "3 h w"],
    boxes: Int64[Tensor, "m 4"],
    whitening: Whitening | None = None,
) -> Float[Tensor, "m 1984"]:
    """Histograms of oriented gradients (HOG) of what is in each box, whitened if asked to.

    A box is widened by an eighth of its width and height on each side (beyond the image's border
    its last pixels are repeated) and scaled to 80 x 80 px; the 8 x 8 inner cells of 8 x 8 px are
    described by 31 numbers each.

    OpenCV has Dalal and Triggs' HOG only. From its 18 signed directions we form Felzenszwalb's 31
    (2010, "Object detection with discriminatively trained part-based models", section 6): each
    cell is normalised within its four 2 x 2 blocks; 18 signed directions and their 9 unsigned sums
    are summed over the four (halved), the energy of each of the four over directions (times
    0.2357). Deviation: OpenCV scales a block to length 1 once more after clipping at 0.2.

    Raises:
        ValueError: a box that is empty or reaches out of its image.
    """
    _, h, w = image.shape
    _inside(boxes, h, w)
    hog = cv2.HOGDescriptor(
        _winSize=(_SIDE, _SIDE),
        _blockSize=(2 * _CELL, 2 * _CELL),
        _blockStride=(_CELL, _CELL),
        _cellSize=(_CELL, _CELL),
        _nbins=18,
        _gammaCorrection=False,
        _signedGradient=True,
    )
    rim = -(-max(h, w) // 8)
    picture = cv2.copyMakeBorder(_picture(image), rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    x, y, a, b = _frames(boxes.cpu()).T
    wide = torch.stack((x - 1.25 * a, y - 1.25 * b, x + 1.25 * a, y + 1.25 * b), 1)
    found = np.empty((len(boxes), hog.getDescriptorSize()), np.float32)
    for row, (x0, y0, x1, y1) in enumerate((wide + rim).round().int().tolist()):
        crop = picture[y0:y1, x0:x1]
        shrinks = min(crop.shape[:2]) > _SIDE
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        found[row] = hog.compute(cv2.resize(crop, (_SIDE, _SIDE), interpolation=how))
    descriptors = _per_cell(torch.from_numpy(found)).to(boxes.device)
    if whitening is None:
        return descriptors
    return (descriptors - whitening.mean) @ whitening.root


def whitening(
    images: Iterable[UInt8[Tensor, "3 h w"]],
    *,
    boxes: int = 100,
    ridge: float = 0.05,
    seed: int = 0,
) -> Whitening:
    """Mean and covariance of HOG (`describe`), over boxes anywhere in natural images and flips.

    Hariharan, Malik and Ramanan 2012 ("Discriminative decorrelation for clustering and
    classification"): the mean is the same for all cells, and the covariance of two cells
    depends on how far they are apart, not on where they are (block stationary).

    Deviations: the published statistics cannot be had, so they are estimated here, from boxes of
    random place, size (log uniform from 16 px up) and shape (aspect ratio 1/2 to 2), scaled as
    `describe` does, instead of from whole images at a few scales. Averages over pairs of cells are
    no exact covariance (its smallest eigenvalue is slightly negative, -0.009), and 0.01 on its
    diagonal, the published value, leaves noise in: with 0.05 keypoints are found better.

    Args:
        images: of any sizes; 200 photographs are plenty.
        boxes: per image; its mirror image gives as many.
        ridge: added to the covariance's diagonal.

    Raises:
        ValueError: no images, or statistics that cannot be inverted.
    """
    rng = np.random.default_rng(seed)
    n, total, square = 0, 0.0, 0.0
    for image in images:
        _, h, w = image.shape
        places = _anywhere(rng, h, w, boxes)
        mirrored = torch.stack((w - places[:, 2], places[:, 1], w - places[:, 0], places[:, 3]), 1)
        both = torch.cat((describe(image, places), describe(image.flip(2), mirrored)))
        n, total = n + len(both), total + both.double().sum(0)
        square = square + (both.T @ both).double()
    if not n:
        raise ValueError(f"{_TOO_FEW}: there are none")
    cells, own = 64, total / n
    mean = own.view(cells, _CHANNELS).mean(0).repeat(cells)
    shift = torch.outer(mean, own)
    sigma = square / n - shift - shift.T + torch.outer(mean, mean)
    # one block of 31 x 31 for each pair of cells; those equally far apart are averaged
    blocks = sigma.view(cells, _CHANNELS, cells, _CHANNELS).transpose(1, 2).reshape(cells**2, -1)
    row, column = torch.arange(cells) // 8, torch.arange(cells) % 8
    apart = (row[:, None] - row + 7) * 15 + (column[:, None] - column + 7)
    apart = apart.flatten()
    sums = torch.zeros(225, blocks.shape[1], dtype=blocks.dtype).index_add_(0, apart, blocks)
    blocks = (sums / apart.bincount()[:, None])[apart]
    sigma = blocks.view(cells, cells, _CHANNELS, _CHANNELS).transpose(1, 2).reshape(sigma.shape)
    one = torch.eye(len(sigma), dtype=sigma.dtype)
    lower, failed = torch.linalg.cholesky_ex(sigma + ridge * one)
    if failed:
        raise ValueError(f"{_TOO_FEW} with ridge {ridge}; take more images or a larger ridge")
    root = torch.linalg.solve_triangular(lower, one, upper=False).T
    return Whitening(mean.float(), root.float().contiguous())


def roi_features(
    maps: Float[Tensor, "c rows columns"],
    boxes: Int64[Tensor, "m 4"],
    size: tuple[int, int],
    side: int = 4,
) -> Float[Tensor, "m d"]:
    """What a network's layer says about each box: its maps read at side x side points (RoIAlign).

    Raw; see `centred`.

    Args:
        maps: a layer's output for the image.
        size: of the image that the boxes are of.

    Raises:
        ValueError: a box that is empty or reaches out of its image.
    """
    _inside(boxes, *size)
    _, rows, columns = maps.shape
    scale = maps.new_tensor([columns / size[1], rows / size[0]] * 2)
    from torchvision.ops import roi_align  # seconds that stored matches do without

    return roi_align(maps[None], [boxes.to(maps) * scale], side, aligned=True).flatten(1)


def centred(
    descriptors: Float[Tensor, "m d"], mean: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "m d"]:
    """Minus the mean (their own, if none is given), then scaled to length 1: dots are cosines."""
    return functional.normalize(descriptors - (descriptors.mean(0) if mean is None else mean))


def appearance(a: Float[Tensor, "m d"], b: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    """How alike boxes look: max(0, a . b)."""
    return (a @ b.T).clamp(min=0)


def gate(boxes_a: Int64[Tensor, "m 4"], boxes_b: Int64[Tensor, "k 4"]) -> Bool[Tensor, "m k"]:
    """Whether the aspect ratios of two boxes are less than a factor of 2 apart."""
    (_, _, a, b), (_, _, other_a, other_b) = _frames(boxes_a).T[..., None], _frames(boxes_b).T
    ratio = (other_a / other_b) / (a / b)
    return (ratio > 0.5) & (ratio < 2)


def nam(
    alike: Float[Tensor, "m k"], boxes_a: Int64[Tensor, "m 4"], boxes_b: Int64[Tensor, "k 4"]
) -> Float[Tensor, "m k"]:
    """Naive appearance matching: `appearance`, and 0 where the `gate` is closed.

    Raises:
        ValueError: not one box per row and column, an empty box, or a likeness below 0 or NaN.
    """
    if alike.shape != (len(boxes_a), len(boxes_b)):
        raise ValueError(
            f"likeness is {tuple(alike.shape)} for {len(boxes_a)} and {len(boxes_b)} boxes"
        )
    if not (alike >= 0).all():
        raise ValueError("a likeness is negative or NaN; appearance() gives valid ones")
    for boxes in (boxes_a, boxes_b):
        if (boxes[:, 2:] <= boxes[:, :2]).any():
            raise ValueError("a box is empty; x0 < x1 and y0 < y1 must hold")
    return alike * gate(boxes_a, boxes_b)


def phm(
    alike: Float[Tensor, "m k"],
    boxes_a: Int64[Tensor, "m 4"],
    boxes_b: Int64[Tensor, "k 4"],
    size_a: tuple[int, int],
    size_b: tuple[int, int],
) -> Float[Tensor, "m k"]:
    """Probabilistic Hough matching: a match counts as much as others agree with it.

    Each match votes for where it moves image A's lower right corner, (X, Y), and how it changes
    areas, s = log2(a'b'/ab). Votes are counted in bins: X from 1 to 2 W_B and Y from 1 to 2 H_B in
    steps of about max(sqrt(4 W_B H_B / 8000), 5) px, s in 20 bins from -4 to 4. In a bin, each box
    of A has one vote, its strongest match there. Counts are smoothed over 5 x 5 x 5 bins (Gaussian,
    sigma 2.5 / 2.354) and multiply the likeness; votes outside the bins get 0.

    Source: Ham et al., section 3, with the constants of their published code.
    """
    gated = nam(alike, boxes_a, boxes_b)
    if not gated.numel():
        return gated
    row, column = gated.nonzero(as_tuple=True)
    (x, y, a, b), (to_x, to_y, to_a, to_b) = _frames(boxes_a)[row].T, _frames(boxes_b)[column].T
    (height_a, width_a), (height, width) = size_a, size_b
    step = max(math.sqrt(4 * width * height / 8000), 5)
    shape = max(round(2 * width / step), 1), max(round(2 * height / step), 1), 20
    across, inside_x = _bins(to_a * ((width_a - x) / a) + to_x, 1, 2 * width, shape[0])
    down, inside_y = _bins(to_b * ((height_a - y) / b) + to_y, 1, 2 * height, shape[1])
    scale, inside_s = _bins(torch.log2(to_a * to_b / (a * b)), -4, 4, shape[2])
    counted = inside_x & inside_y & inside_s
    row, column = row[counted], column[counted]
    where = ((across * shape[1] + down) * shape[2] + scale)[counted]
    strength, all_bins = gated[row, column], math.prod(shape)
    own, place = (row * all_bins + where).unique(return_inverse=True)
    strongest = strength.new_zeros(len(own)).scatter_reduce_(0, place, strength, "amax")
    hough = strength.new_zeros(all_bins).index_add_(0, own % all_bins, strongest)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3).to(hough) / (2.5 / 2.354)) ** 2)
    taps = taps / taps.sum()
    hough = hough.view(1, 1, *shape)
    for kernel in ((5, 1, 1), (1, 5, 1), (1, 1, 5)):
        hough = functional.conv3d(hough, taps.view(1, 1, *kernel), padding="same")
    confidence = torch.zeros_like(gated)
    confidence[row, column] = strength * hough.flatten()[where]
    return confidence


def lom(
    alike: Float[Tensor, "m k"],
    boxes_a: Int64[Tensor, "m 4"],
    boxes_b: Int64[Tensor, "k 4"],
    *,
    overlap: float = 0.0,
    support: bool = True,
    sequential: bool = False,
) -> Float[Tensor, "m k"]:
    """Local offset matching, the paper's choice: a match counts if its neighbours move likewise.

    With C = `nam` and N(i) the boxes of A that touch box i, itself included: o_j, the offset of
    box j to its best match k, is (x_j - x'_k, y_j - y'_k, a_j b_j / a'_k b'_k). m_i is the median
    of o_j over N(i), coordinate by coordinate. The confidence that i and k belong together is

        C_ik exp(-0.05 |d_ik - m_i| in (x, y) - 0.3 |d_ik - m_i| in areas) S_i

    with d_ik the offset of i to k in pixels, and the support S_i the sum over N(i) of each box's
    largest C, divided by the sum over all boxes.

    Source: Ham et al., section 3, with the constants of their published code. Deviation: that code
    replaces row i of C before it goes on to row i + 1, so what it finds depends on the order of the
    boxes; and its median is the end of 20 reweighted steps from (1, 1, 1). Here all rows follow
    from the same C, medians are exact, and a box without any match has no say.

    Args:
        overlap: neighbours are the boxes whose intersection over union is more than this; 0 takes
            boxes that only touch as well, as the published code does.
        support: whether to multiply by S_i. It favours large boxes, which have more neighbours, and
            large boxes place keypoints coarsely. On PF-WILLOW the paper's rule beats `nam` with
            whitened HOG (PCK at 0.1: 0.37 to 0.32), not with a network's features (MobileNetV2:
            0.37 to 0.48); overlap 0.2 without support does with both (0.35, 0.50).
        sequential: as the published code does it, row after row in place: 10 to 30 times slower,
            PCK within 0.02 of the parallel form's, higher with HOG, lower with MobileNetV2.
    """
    gated = nam(alike, boxes_a, boxes_b)
    if not gated.any():
        return gated
    a, b = _frames(boxes_a), _frames(boxes_b)
    near = _touching(boxes_a)
    if overlap > 0:
        from torchvision.ops import box_iou

        near = box_iou(boxes_a.double(), boxes_a.double()) > overlap
    if sequential:
        arrays = (t.cpu().numpy() for t in (gated.double(), a, b, near))
        return torch.from_numpy(_row_by_row(*arrays, support)).to(gated)
    best, chosen = gated.max(1)
    area_ratio = a[:, 2:].prod(1)[:, None] / b[:, 2:].prod(1)
    of_best = area_ratio.gather(1, chosen[:, None])
    offsets = torch.cat((a[:, :2] - b[chosen, :2], of_best), 1)
    x, y, s = medians(offsets, near & (best > 0)).T[..., None]
    moved = torch.cat((a[:, :1] - x, a[:, 1:2] - y), 1)
    away = torch.cdist(moved, b[:, :2], compute_mode="donot_use_mm_for_euclid_dist")
    plausible = torch.exp(-0.05 * away - 0.3 * (area_ratio - s).abs()).to(gated)
    if support:
        plausible *= (near.to(best) @ best / best.sum())[:, None]
    return gated * plausible


def match(
    boxes_a: Int64[Tensor, "m 4"],
    descriptors_a: Float[Tensor, "m d"],
    size_a: tuple[int, int],
    boxes_b: Int64[Tensor, "k 4"],
    descriptors_b: Float[Tensor, "k d"],
    size_b: tuple[int, int],
    rule: str = "lom",
    **options: float | bool,
) -> Float[Tensor, "m k"]:
    """How confident one is that box i of image A and box k of image B show the same.

    Not symmetric: matching B to A gives other numbers.

    Args:
        rule: "nam", "phm" or "lom".
        options: of `lom`.

    Raises:
        ValueError: no such rule, or options it does not have.
    """
    alike = appearance(descriptors_a, descriptors_b)
    if rule == "lom":
        return lom(alike, boxes_a, boxes_b, **options)
    if rule not in ("nam", "phm") or options:
        given = f" with {', '.join(options)}" if options else ""
        raise ValueError(f"no rule {rule!r}{given}; there are nam, phm and lom, options for lom")
    if rule == "nam":
        return nam(alike, boxes_a, boxes_b)
    return phm(alike, boxes_a, boxes_b, size_a, size_b)


def flow(
    confidence: Float[Tensor, "m k"],
    boxes_a: Int64[Tensor, "m 4"],
    boxes_b: Int64[Tensor, "k 4"],
    points: Float[Tensor, "p 2"],
) -> Float[Tensor, "p 2"]:
    """Where points (x, y) of image A lie in image B: Ham et al.'s dense flow, at any points.

    Of the boxes of A that contain a point, the one with the most confident match moves it: it keeps
    its relative place between the two boxes. Of equally confident boxes, the first. A point in no
    box that has a match goes nowhere: NaN.
    """
    moved = torch.full_like(points, math.nan)
    if not confidence.numel():
        return moved
    best, chosen = confidence.max(1)
    order = best.argsort(descending=True, stable=True)
    order = order[best[order] > 0]
    a, b = _frames(boxes_a)[order], _frames(boxes_b)[chosen[order]]
    starts, ends = boxes_a[order, :2], boxes_a[order, 2:]
    for part, goal in zip(points.split(4096), moved.split(4096), strict=True):  # p x m is large
        inside = ((part[:, None] >= starts) & (part[:, None] < ends)).all(2)
        has, box = inside.any(1), inside.byte()
        if not has.any():
            continue
        box = box[has].argmax(1)
        place = (part[has] - a[box, :2]) / a[box, 2:]
        goal[has] = (b[box, :2] + place * b[box, 2:]).to(goal)
    return moved


def pck(
    predicted: Float[Tensor, "p 2"], true: Float[Tensor, "p 2"], alphas: Sequence[float] = ALPHAS
) -> Float[Tensor, " alphas"]:
    """Share of keypoints found: not further from the truth than alpha times the object's size.

    The size is the larger side of the true keypoints' bounding box. A prediction that is NaN is not
    found. In [0, 1].

    Raises:
        ValueError: no keypoints.
    """
    if not len(true):
        raise ValueError("there are no keypoints")
    size = (true.amax(0) - true.amin(0)).max()
    away = (predicted - true).norm(dim=1)
    return torch.stack([(away <= alpha * size).float().mean() for alpha in alphas])


def benchmark(
    sets: Mapping[str, Sequence[tuple[UInt8[Tensor, "3 _h _w"], Float[Tensor, "p 2"]]]],
    describer: Callable[[Tensor, Tensor], Tensor],
    rules: Mapping[str, Mapping[str, object]],
    *,
    propose: Callable[[Tensor], Tensor] = proposals,
    alphas: Sequence[float] = ALPHAS,
) -> dict[str, Float[Tensor, "sets alphas"]]:
    """PCK of every rule on every set of images whose keypoints correspond, such as PF-WILLOW's.

    In a set, every image's keypoints are moved to every other image (`flow`); a set's PCK is the
    mean over its ordered pairs.

    Args:
        sets: by name, pairs of an image and its keypoints (x, y), the same number in each.
        describer: (image, boxes) -> descriptors, such as `describe`.
        rules: name -> arguments of `match`, such as {"in turn": {"sequential": True}}. Names are
            free; without "rule" it is "lom".

    Raises:
        ValueError: a set with fewer than two images.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in rules}
    for name, pictures in sets.items():
        if len(pictures) < 2:
            raise ValueError(f"set {name!r} has no pair of images")
        known = []
        for image, points in pictures:
            boxes = propose(image)
            known.append((boxes, describer(image, boxes), tuple(image.shape[1:]), points))
        for rule, options in rules.items():
            shares = []
            for (*source, points), (*target, true) in permutations(known, 2):
                confidence = match(*source, *target, **options)
                shares.append(pck(flow(confidence, source[0], target[0], points), true, alphas))
            found[rule].append(torch.stack(shares).mean(0))
    return {rule: torch.stack(shares) for rule, shares in found.items()}


def medians(
    values: Float[Tensor, "n c"], members: Bool[Tensor, "groups n"]
) -> Float[Tensor, "groups c"]:
    """The median of each group's values, coordinate by coordinate; an empty group's means nothing.

    Groups may share members, and each is a row of `members`. Values are sorted once for all groups.
    """
    ordered, order = values.T.sort()
    counts = members[:, order].cumsum(2, dtype=torch.int32)  # groups, c, n: members up to here
    n = counts[..., -1:]
    middle = torch.cat(((n + 1) // 2, n // 2 + 1), 2)  # the same one twice if n is odd
    at = torch.searchsorted(counts, middle).clamp(max=len(values) - 1)
    coordinate = torch.arange(len(ordered), device=values.device)[:, None]
    return ordered[coordinate, at].mean(2)


def _row_by_row(
    c: Float[np.ndarray, "m k"],
    a: Float[np.ndarray, "m 4"],
    b: Float[np.ndarray, "k 4"],
    near: Bool[np.ndarray, "m m"],
    support: bool,
) -> Float[np.ndarray, "m k"]:
    """LOM as published: each row in place, medians by 20 reweighted steps from (1, 1, 1).

    In float64, with its machine precision where a step would divide by 0: where the steps end
    depends on it.
    """
    c, area = c.copy(), a[:, 2:].prod(1)[:, None] / b[:, 2:].prod(1)
    best, chosen = c.max(1), c.argmax(1)
    rows = np.arange(len(c))
    offsets = np.column_stack((a[:, :2] - b[chosen, :2], area[rows, chosen]))
    for i in rows:
        around, median = offsets[near[i]], np.ones(3)
        for _ in range(20):
            weights = 1 / (np.abs(around - median) + np.finfo(float).eps)
            median = (around * weights).sum(0) / weights.sum(0)
        away = np.linalg.norm(a[i, :2] - b[:, :2] - median[:2], axis=1)
        c[i] *= np.exp(-0.05 * away - 0.3 * np.abs(area[i] - median[2]))
        c[i] *= best[near[i]].sum() / best.sum() if support else 1
        best[i], k = c[i].max(), c[i].argmax()
        offsets[i] = *(a[i, :2] - b[k, :2]), area[i, k]
    return c


def _frames(boxes: Int64[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
    """Centre x, y and half sides a, b, exact."""
    starts, ends = boxes[:, :2].double(), boxes[:, 2:].double()
    return torch.cat(((starts + ends) / 2, (ends - starts) / 2), 1)


def _bins(
    values: Float[Tensor, " n"], first: float, last: float, bins: int
) -> tuple[Int64[Tensor, " n"], Bool[Tensor, " n"]]:
    """The bin of each value, edges[i] <= value < edges[i + 1], and whether it has one.

    As a search among the edges of NumPy's linspace would say, to the last bit, in a tenth of its
    time. A division alone puts values that lie on an edge, which many votes do, in the wrong bin.
    """
    edges = torch.from_numpy(np.linspace(first, last, bins + 1)).to(values.device)
    guess = ((values - first) * (bins / (last - first))).floor().clamp(0, bins - 1).long()
    index = guess - (values < edges[guess]).long() + (values >= edges[guess + 1]).long()
    return index.clamp(0, bins - 1), (index >= 0) & (index < bins)


def _touching(boxes: Int64[Tensor, "m 4"]) -> Bool[Tensor, "m m"]:
    """Whether boxes share at least an edge or a corner."""
    starts, ends = boxes[:, :2], boxes[:, 2:]
    shared = torch.minimum(ends[:, None], ends) - torch.maximum(starts[:, None], starts)
    return (shared >= 0).all(2)


def _inside(boxes: Int64[Tensor, "m 4"], h: int, w: int) -> None:
    limit = boxes.new_tensor([w, h])
    wrong = ((boxes[:, :2] < 0) | (boxes[:, :2] >= boxes[:, 2:]) | (boxes[:, 2:] > limit)).any(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"box {boxes[row].tolist()} is not x0, y0, x1, y1 in an image of {w} x {h} px: valid "
            f"are 0 <= x0 < x1 <= {w} and 0 <= y0 < y1 <= {h}"
        )


def _picture(image: UInt8[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return image.cpu().permute(1, 2, 0).contiguous().numpy()


def _per_cell(found: Float[Tensor, "m 5832"]) -> Float[Tensor, "m 1984"]:
    """OpenCV's blocks of 2 x 2 cells, column by column, as 31 numbers for each inner cell."""
    blocks = found.view(-1, 9, 9, 2, 2, 18)
    # of the blocks around a cell, the i-th across and j-th down holds it as its (1-i, 1-j)-th
    four = torch.stack(
        [blocks[:, i : i + 8, j : j + 8, 1 - i, 1 - j] for i in (0, 1) for j in (0, 1)]
    )
    signed = four.sum(0) / 2
    unsigned = (four[..., :9] + four[..., 9:]).clamp(max=0.2).sum(0) / 2
    energy = 0.2357 * four.sum(-1).permute(1, 2, 3, 0)
    return torch.cat((signed, unsigned, energy), -1).flatten(1)


def _anywhere(rng: np.random.Generator, h: int, w: int, count: int) -> Int64[Tensor, "count 4"]:
    """Boxes of random place, size and shape, at least 16 px or as large as the image is."""
    least = min(16, h, w)
    side = np.exp(rng.uniform(np.log(least), np.log(min(h, w)), count))
    shape = np.exp2(rng.uniform(-0.5, 0.5, count))
    across = np.rint(side * shape).clip(least, w).astype(np.int64)
    down = np.rint(side / shape).clip(least, h).astype(np.int64)
    x, y = rng.integers(0, w - across + 1), rng.integers(0, h - down + 1)
    return torch.from_numpy(np.stack((x, y, x + across, y + down), 1))
