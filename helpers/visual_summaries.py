"""Visual summaries: which parts of a class's images a network keeps looking at.

Source: "Understanding Deep Architectures by Visual Summaries" (Godi et al. 2019), section 3.2, and
the authors' code where the paper gives no number. The pixels that a crisp mask removes form regions
(`regions`). Boxes proposed for the image that lie in one region are its parts (`parts`). Parts that
match in many images of a class are grouped by affinity propagation (`cluster`), and the groups
whose members look alike (`ssim`) are the class's summaries (`summarise`). `painted` shows a member.

How well the boxes of a class match (`similarity`) depends on the images only and takes long; the
masks depend on the network. So compute it once for a class and summarise as many networks as you
like with it; `similarity[rows]` is that of some of the images.

A box is x0, y0, x1, y1 in pixels, half open, as in `ImageSet.boxes`. Images are in [0, 1].
Everything runs on the CPU, whatever the device of the masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from scipy import ndimage, sparse
from torch import Tensor
from torch.nn import functional

# boxes and descriptors of one image, then of another -> confidence of each pair of boxes, >= 0
Match = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_SIDE = 32  # px; all parts are compared at this size
_ROWS = 512  # of the score matrix that are dense at one time


@dataclass(frozen=True)
class Rules:
    """The constants of section 3.2, and those of the authors' code where the paper gives none.

    Raises:
        ValueError: a value outside its range.
    """

    area: float = 0.01  # a region smaller than this share of the image is left out
    covered: float = 0.75  # a part is a box of which more than this share is one region's
    overlap: float = 0.5  # one of two boxes goes if they share so much of the smaller or more,
    ratio: float = 2.0  # and the larger is less than so many times as large
    top: int = 100  # the one stays whose mean over so many best scores is higher
    preference: float = 1.3  # of a part as exemplar, times the median of the shifted scores
    own: bool = True  # whether scores of parts with themselves count too; see `cluster`
    damping: float = 0.9
    shown: int = 10  # members that are compared with each other
    alike: float = 0.9  # a cluster stays with at least this share of the class's median SSIM
    odd: float = 0.6  # a member goes with at least this share of its pairs below that median

    def __post_init__(self) -> None:
        ranges = {  # inclusive
            "area": (0, 1),
            "covered": (0, 1),
            "overlap": (0, 1),
            "ratio": (1, np.inf),
            "top": (1, np.inf),
            "preference": (0, np.inf),
            "damping": (0.5, 0.99),
            "shown": (2, np.inf),
            "alike": (0, np.inf),
            "odd": (0, np.inf),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"Rules.{name} is {getattr(self, name)}; valid is {low} to {high}")


@dataclass(frozen=True, eq=False)
class Similarity:
    """How well every box of a class's images matches every other: the paper's Corr.

    The boxes of all images stand one after the other: those of the first image come first.
    """

    scores: sparse.csr_array  # (p, p) float32, symmetric, >= 0
    boxes: Int64[Tensor, "p 4"]
    counts: Int64[Tensor, " n"]  # boxes of each image

    @property
    def image(self) -> Int64[Tensor, " p"]:
        """The row of the image that each box belongs to."""
        return torch.arange(len(self.counts)).repeat_interleave(self.counts)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.counts)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Similarity:
        """That of some of the images (a slice, indices or a boolean per image), in that order."""
        chosen = torch.arange(len(self))
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
            rows = rows if rows.dtype == torch.bool else rows.long()  # [] would be float
        chosen = chosen[rows]
        counts = self.counts[chosen]
        first = (self.counts.cumsum(0) - self.counts)[chosen]
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        boxes = first.repeat_interleave(counts) + within
        at = boxes.numpy()
        return Similarity(self.scores[at][:, at], self.boxes[boxes], counts)

    def tensors(self) -> dict[str, Tensor]:
        """The same as plain tensors, to be kept on disk; only one half of the symmetric scores."""
        half = sparse.triu(self.scores, format="csr")
        arrays = {"values": half.data, "columns": half.indices, "starts": half.indptr}
        return {
            "boxes": self.boxes,
            "counts": self.counts,
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Similarity:
        """What `tensors` made these of."""
        size = len(tensors["boxes"])
        arrays = tuple(tensors[name].numpy() for name in ("values", "columns", "starts"))
        half = sparse.csr_array(arrays, shape=(size, size))
        other = sparse.triu(half, 1).T
        return cls((half + other).tocsr(), tensors["boxes"], tensors["counts"])


@dataclass(frozen=True, eq=False)
class Parts:
    """The boxes that lie in a region and are left after those that repeat another are gone."""

    boxes: Int64[Tensor, "m 4"]
    image: Int64[Tensor, " m"]  # row of the image
    region: Int64[Tensor, " m"]  # number of the region in its image
    proposal: Int64[Tensor, " m"]  # row in the similarity
    covered: int  # boxes that lie in a region, with those that repeat another


@dataclass(frozen=True, eq=False)
class Summary:
    """A part that recurs: one box in each of its images, the best match of its exemplar first."""

    images: Int64[Tensor, " m"]  # row of each member's image; no two are the same
    boxes: Int64[Tensor, "m 4"]
    regions: Int64[Tensor, " m"]  # each member's region: where `Summaries.regions` is this number
    scores: Float[Tensor, " m"]  # similarity to the exemplar, falling; its own with itself is first
    ssim: float  # median over the pairs of the first members, before any of them went


@dataclass(frozen=True)
class Tally:
    """How many there were and where they were lost, in the order in which it happens."""

    images: int = 0
    with_region: int = 0  # images
    regions: int = 0
    boxes: int = 0  # proposed
    covered: int = 0  # boxes that lie in a region
    parts: int = 0  # of these, the ones that repeat no better one
    clusters: int = 0
    second: int = 0  # parts not used: another one of the same image is closer to the exemplar
    strangers: int = 0  # parts not used: they do not match the exemplar at all
    singletons: int = 0  # clusters dropped: one image only, so nothing recurs
    unlike: int = 0  # clusters dropped: their members look too different
    odd: int = 0  # members dropped: they look too different from the others
    emptied: int = 0  # clusters dropped: so many members went that fewer than two were left
    summaries: int = 0


# outcome -> what happened, with the counts of a Tally
_OUTCOMES = {
    "found": "{summaries} summaries of {clusters} clusters ({singletons} of one image, {unlike} "
    "unlike, {emptied} emptied)",
    "no image": "there are no images",
    "no region": "the masks of {images} images remove no region that is large enough",
    "no part": "none of {boxes} boxes lies in one of the {regions} regions",
    "one image": "all {parts} parts are of one image, so nothing can recur",
    "no match": "none of the {parts} parts matches a part of another image",
    "not converged": "affinity propagation of {parts} parts did not converge, twice",
    "none left": "none of {clusters} clusters is left ({singletons} of one image, {unlike} unlike, "
    "{emptied} emptied)",
}


@dataclass(frozen=True, eq=False)
class Summaries:
    """The summaries of one class and network, the one with most images first."""

    summaries: tuple[Summary, ...]
    regions: Int64[Tensor, "n h w"]
    outcome: str  # found, no image, no region, no part, one image, no match, not converged, ...
    tally: Tally

    @property
    def message(self) -> str:
        """The outcome in words, with its counts."""
        return _OUTCOMES[self.outcome].format(**vars(self.tally))

    def region_of(self, summary: Summary) -> Bool[Tensor, "m h w"]:
        """The region of each member, True inside."""
        return self.regions[summary.images] == summary.regions[:, None, None]


def regions(masks: Float[Tensor, "n h w"], area: float = 0.01) -> Int64[Tensor, "n h w"]:
    """Number the connected regions that masks remove: 1 is an image's largest, 0 is no region.

    A pixel is removed where 1 - m > 0.5. Pixels that touch at a side or a corner belong together
    (our choice; the paper does not say). Regions smaller than `area`, a share of the image, are
    left out, which the paper does not state and the authors' code does.

    Raises:
        ValueError: a mask value that is NaN or outside [0, 1].
    """
    if not ((masks >= 0) & (masks <= 1)).all():  # NaN fails both
        raise ValueError("mask values must lie in [0, 1], and some do not or are NaN")
    n, h, w = masks.shape
    if not masks.numel():
        return torch.zeros(n, h, w, dtype=torch.int64)
    touching = np.zeros((3, 3, 3), int)
    touching[1] = 1  # within an image, never across images
    labels, count = ndimage.label((masks < 0.5).cpu().numpy(), touching)
    size = np.bincount(labels.ravel(), minlength=count + 1)
    image = np.empty(count + 1, int)
    image[labels] = np.arange(n)[:, None, None]
    large = 1 + np.flatnonzero(size[1:] >= area * h * w)
    large = large[np.lexsort((-size[large], image[large]))]  # by image, the largest first
    numbers = np.zeros(count + 1, np.int64)
    earlier = np.searchsorted(image[large], image[large])  # regions of all images before
    numbers[large] = 1 + np.arange(len(large)) - earlier
    return torch.from_numpy(numbers[labels])


def similarity(
    boxes: Sequence[Int64[Tensor, "_ 4"]],
    descriptors: Sequence[Float[Tensor, "_ d"]],
    match: Match,
    *,
    faint: float = 0.01,
) -> Similarity:
    """Match every image of a class with every other and with itself (section 3.2, Corr).

    Images i <= j are matched from i to j, and the result stands for both directions. An image's
    match with itself is averaged over both directions, so that the whole is symmetric.

    Args:
        boxes: those of each image; they may be of different number, and none.
        descriptors: of each box, as `match` takes them.
        match: boxes and descriptors of two images to the confidence of each pair, (m, k), for
            instance proposal flow with the rule and the images' size already chosen.
        faint: scores below this share of the highest of their pair of images become 0, which keeps
            the matrix sparse. The paper thresholds too and gives no number.

    Raises:
        ValueError: not as many descriptors as boxes, a threshold outside [0, 1), or a match that
            is not (m, k), is negative or not finite.
    """
    counts = [len(rows) for rows in boxes]
    if counts != [len(rows) for rows in descriptors]:
        raise ValueError("each image needs as many descriptors as boxes, and one does not have it")
    if not 0 <= faint < 1:
        raise ValueError(f"faint={faint}: valid is 0 to below 1")
    blocks = [[None] * len(boxes) for _ in boxes]
    for i, j in combinations_with_replacement(range(len(boxes)), 2):
        scores = match(boxes[i], descriptors[i], boxes[j], descriptors[j])
        if tuple(scores.shape) != (counts[i], counts[j]):
            raise ValueError(
                f"the match of images {i} and {j} is {tuple(scores.shape)}; valid is one score for "
                f"each of {counts[i]} x {counts[j]} pairs of boxes"
            )
        if not (scores.isfinite() & (scores >= 0)).all():
            raise ValueError(f"the match of images {i} and {j} has a score that is no number >= 0")
        if i == j:
            scores = (scores + scores.T) / 2
        if scores.numel():
            scores = scores * (scores >= faint * scores.max())
        block = sparse.csr_array(scores.float().cpu().numpy())
        blocks[i][j], blocks[j][i] = block, block.T
    scores = sparse.block_array(blocks, format="csr") if boxes else sparse.csr_array((0, 0))
    together = torch.cat(list(boxes)) if boxes else torch.empty(0, 4, dtype=torch.int64)
    return Similarity(
        scores.astype(np.float32), together.cpu(), torch.tensor(counts, dtype=torch.int64)
    )


def parts(
    labels: Int64[Tensor, "n h w"], similarity: Similarity, rules: Rules | None = None
) -> Parts:
    """The boxes of which one region covers more than 75 %, without those that repeat a better one.

    Two boxes of an image repeat each other if they share at least half of the smaller one and the
    larger is less than twice as large. The better one has the higher mean of its 100 best scores
    (all, if there are fewer). From the best on, a box goes if it repeats one that stays. The paper
    gives the 75 % and the 2, the authors' code the rest.

    Args:
        labels: from `regions`.

    Raises:
        ValueError: another number of images in `similarity`, or a box that is empty or reaches out
            of its image.
    """
    rules = rules or Rules()
    n, h, w = labels.shape
    if n != len(similarity):
        raise ValueError(f"regions of {n} images and the similarity of {len(similarity)}")
    boxes, image = similarity.boxes, similarity.image
    _inside_image(boxes, h, w)
    x0, y0, x1, y1 = boxes.T
    region = torch.zeros(len(boxes), dtype=torch.int64)
    for number in range(1, int(labels.max()) + 1 if labels.numel() else 1):
        # sums over every box from one table of sums over all corners
        table = functional.pad((labels == number).cumsum(1).cumsum(2), (1, 0, 1, 0))
        inside = table[image, y1, x1] - table[image, y0, x1]
        inside = inside - table[image, y1, x0] + table[image, y0, x0]
        region[inside > rules.covered * _area(boxes)] = number
    rows = region.nonzero()[:, 0]
    strength = _strength(similarity.scores, rows, rules.top)
    stays = torch.zeros(len(rows), dtype=torch.bool)
    for one in image[rows].unique():
        mine = (image[rows] == one).nonzero()[:, 0]
        mine = mine[strength[mine].argsort(descending=True, stable=True)]
        stays[mine] = _no_repeats(boxes[rows[mine]], rules.overlap, rules.ratio)
    kept = rows[stays]
    return Parts(boxes[kept], image[kept], region[kept], kept, len(rows))


def _strength(scores: sparse.csr_array, rows: Int64[Tensor, " k"], top: int) -> Float[Tensor, " k"]:
    """Mean of the `top` highest scores of each row."""
    top = min(top, scores.shape[1])
    dense = (torch.from_numpy(scores[some.numpy()].toarray()) for some in rows.split(_ROWS))
    return torch.cat([block.topk(top).values.mean(1) for block in dense])


def _area(boxes: Int64[Tensor, "k 4"]) -> Int64[Tensor, " k"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _grey(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Luma as ITU-R BT.601 has it."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def _no_repeats(boxes: Int64[Tensor, "k 4"], overlap: float, ratio: float) -> Bool[Tensor, " k"]:
    """Which of the boxes, best first, a greedy pass keeps."""
    starts = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    ends = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (ends - starts).clamp(min=0).prod(2)
    area = _area(boxes)
    smaller, larger = torch.minimum(area[:, None], area), torch.maximum(area[:, None], area)
    repeats = ((shared >= overlap * smaller) & (larger < ratio * smaller)).tril(-1)
    # Round t settles at least the first t boxes, and only the greedy answer repeats itself.
    kept = torch.ones(len(boxes), dtype=torch.bool)
    while not torch.equal(kept, settled := ~(repeats & kept).any(1)):
        kept = settled
    return kept


def cluster(
    scores: Float[Tensor, "m m"],
    *,
    preference: float = 1.3,
    own: bool = True,
    damping: float = 0.9,
) -> Int64[Tensor, " m"] | None:
    """The exemplar of each part by affinity propagation (Frey & Dueck 2007); None: no convergence.

    It runs on S' = S - max S, in which no entry is positive, with `preference` times the median of
    S' as each part's preference to be an exemplar: more negative than the median, so fewer clusters
    (authors' code). At most 1000 iterations, and done when the exemplars stay the same for 100.

    Affinity propagation puts the preference in the place of a part's score with itself, so these
    scores act only through the maximum and the median of S'. They are several times the others, so
    they lower the preference and make clusters fewer and larger. The paper shifts the whole matrix,
    and so do we. With `own=False` they do not count: on scenes with known parts and 20 images a
    class there were 2.5 to 3 times as many clusters, and their members showed the same true part
    more often.

    Messages that oscillate need more damping: where they do not settle, a second run takes steps of
    0.3 times the size and three times the iterations (damping .97 after .9; our choice, which
    settled nearly all of the cases that did not settle at first). If that fails too, the clusters
    that scikit-learn reports are those of an arbitrary moment, and we report none.

    Args:
        scores: similarity of the parts, symmetric, >= 0.

    Returns:
        For each part the row of its exemplar; an exemplar's own row for itself.
    """
    from sklearn.cluster import affinity_propagation  # seconds that stored summaries do without
    from sklearn.exceptions import ConvergenceWarning

    if len(scores) < 2:
        return torch.arange(len(scores))
    shifted = scores.double().cpu().numpy().copy()
    counted = np.ones(shifted.shape, bool) if own else ~np.eye(len(scores), dtype=bool)
    shifted -= shifted[counted].max()
    level = preference * np.median(shifted[counted])
    for damp, most in ((damping, 1000), (1 - 0.3 * (1 - damping), 3000)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            # equal scores are no trouble: one cluster, or as many as parts if the preference asks
            warnings.filterwarnings("ignore", message="All samples have mutually equal")
            try:
                centres, labels = affinity_propagation(
                    shifted,
                    preference=level,
                    damping=damp,
                    max_iter=most,
                    convergence_iter=100,
                    random_state=0,  # of a noise of the last digit, which breaks ties
                )
                return torch.from_numpy(np.asarray(centres)[labels])
            except ConvergenceWarning:
                continue
    return None


def ssim(
    a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"], window: int = 7
) -> Float[Tensor, " n"]:
    """Structural similarity of grey pictures in [0, 1], at most 1 (Wang et al. 2004, equation 13).

    Means, variances and covariance are over square windows, of which only those inside the picture
    count, with scikit-image's defaults (K1 .01, K2 .03, sample covariance), whose
    `structural_similarity` gives the same one picture at a time.

    Raises:
        ValueError: a picture smaller than the window.
    """
    if min(a.shape[1:]) < window:
        raise ValueError(
            f"pictures of {tuple(a.shape[1:])} px are smaller than the window, {window}"
        )
    a, b = a.double(), b.double()  # variances are small differences of large numbers

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x[:, None], window, 1)[:, 0]

    sample = window**2 / (window**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    variance_a = sample * (mean(a * a) - mean_a * mean_a)
    variance_b = sample * (mean(b * b) - mean_b * mean_b)
    covariance = sample * (mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    unlikeness = (mean_a * mean_a + mean_b * mean_b + c1) * (variance_a + variance_b + c2)
    return (likeness / unlikeness).mean((1, 2))  # exactly 1 for equal pictures


def summarise(
    images: Float[Tensor, "n 3 h w"],
    masks: Float[Tensor, "n h w"],
    similarity: Similarity,
    rules: Rules | None = None,
) -> Summaries:
    """The visual summaries of one class and one network (section 3.2).

    A cluster has one box per image, the most similar to its exemplar; boxes without any similarity
    to it leave. A cluster of a single image is dropped: it has no pair. (The authors' code makes
    its SSIM NaN and with it the class's median, so that nothing of the class is dropped.) Of each
    other cluster the ten members most similar to the exemplar, which is one of them, are compared
    pair by pair by SSIM of their boxes. Clusters whose median is below 90 % of the median of these
    medians go. Then members go of whose pairs 60 % or more are below it, the exemplar too; later
    members, never compared, stay. What is left with fewer than two members goes as well.

    Deviation: the paper warps members to the exemplar by the dense flow of all matches. Here each
    box is stretched to the same 32 x 32 px, which is the warp that the match of the two boxes alone
    implies. All matches together would also bend what lies between them, but they are few in a
    small picture, and a wrong one would distort the very picture that is to be judged.

    No input is an error because nothing is found: `outcome` and `message` say why not.

    Args:
        masks: 1 keeps a pixel, 0 removes it; from `helpers.crisp_masks`.
        similarity: of the same images in the same order.

    Raises:
        ValueError: numbers of images that differ, or what `regions` and `parts` raise.
    """
    rules = rules or Rules()
    n = len(images)
    if not n == len(masks) == len(similarity) or images.shape[2:] != masks.shape[1:]:
        raise ValueError(
            f"images {tuple(images.shape)}, masks {tuple(masks.shape)} and the similarity of "
            f"{len(similarity)} images do not fit: valid are (n, 3, h, w), (n, h, w) and n"
        )
    labels = regions(masks, rules.area)
    largest = labels.flatten(1).amax(1) if labels.numel() else labels.new_zeros(n)
    tally = {
        "images": n,
        "with_region": int((largest > 0).sum()),
        "regions": int(largest.sum()),
        "boxes": len(similarity.boxes),
    }

    def end(outcome: str, found: Sequence[Summary] = ()) -> Summaries:
        return Summaries(tuple(found), labels, outcome, Tally(**tally, summaries=len(found)))

    if not n:
        return end("no image")
    if not tally["regions"]:
        return end("no region")
    part = parts(labels, similarity, rules)
    tally |= {"covered": part.covered, "parts": len(part.boxes)}
    if not len(part.boxes):
        return end("no part")
    if len(part.image.unique()) < 2:
        return end("one image")
    rows = part.proposal.numpy()
    scores = torch.from_numpy(similarity.scores[rows][:, rows].toarray())
    if not scores[part.image[:, None] != part.image].any():
        return end("no match")
    exemplars = cluster(scores, preference=rules.preference, own=rules.own, damping=rules.damping)
    if exemplars is None:
        return end("not converged")
    groups, second, strangers = _one_per_image(scores, exemplars, part.image)
    several = [rows for rows in groups if len(rows) > 1]
    tally |= {
        "clusters": len(groups),
        "second": second,
        "strangers": strangers,
        "singletons": len(groups) - len(several),
        "unlike": 0,
        "odd": 0,
        "emptied": 0,
    }
    compared = [_compared(images, part, rows[: rules.shown]) for rows in several]
    medians = [float(np.median(pairs[pairs.isfinite()])) for pairs in compared]
    level = float(np.median(medians)) if medians else 0.0
    found = []
    for rows, pairs, median in zip(several, compared, medians, strict=True):
        if median < rules.alike * level:
            tally["unlike"] += 1
            continue
        stays = torch.ones(len(rows), dtype=torch.bool)
        stays[: len(pairs)] = (pairs < level).sum(1) < rules.odd * (len(pairs) - 1)
        if stays.sum() < 2:
            tally["emptied"] += 1
            continue
        tally["odd"] += int((~stays).sum())
        closeness = scores[rows, rows[0]][stays]
        rows = rows[stays]
        found.append(
            Summary(part.image[rows], part.boxes[rows], part.region[rows], closeness, median)
        )
    found.sort(key=lambda summary: (-len(summary.images), -summary.ssim))
    return end("found" if found else "none left", found)


def _one_per_image(
    scores: Float[Tensor, "m m"], exemplars: Int64[Tensor, " m"], image: Int64[Tensor, " m"]
) -> tuple[list[Int64[Tensor, " _"]], int, int]:
    """Each cluster's parts, one per image, exemplar first and then by similarity to it.

    Returns:
        The clusters' rows; how many parts were a second of their image; how many no match at all.
    """
    every = torch.arange(len(scores))
    closeness = scores[every, exemplars].double()
    closeness[exemplars == every] = np.inf  # the exemplar is its image's box, and always a match
    order = torch.from_numpy(np.lexsort((-closeness, image, exemplars)))  # the last key leads
    key = torch.stack((exemplars, image), 1)[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = (key[1:] != key[:-1]).any(1)
    best = order[first]
    matching = best[closeness[best] > 0]
    matching = matching[np.lexsort((-closeness[matching], exemplars[matching]))]
    sizes = exemplars[matching].unique_consecutive(return_counts=True)[1]
    groups = list(matching.split(sizes.tolist()))
    return groups, len(order) - len(best), len(best) - len(matching)


def _compared(
    images: Float[Tensor, "n 3 h w"], part: Parts, rows: Int64[Tensor, " k"]
) -> Float[Tensor, "k k"]:
    """SSIM of every two of these parts at one size; infinite for a part with itself."""
    from torchvision.ops import roi_align  # seconds that stored summaries do without

    grey = _grey(images[part.image[rows]].cpu().float())
    where = torch.cat((torch.arange(len(rows))[:, None], part.boxes[rows]), 1).float()
    patches = roi_align(grey, where, _SIDE, aligned=True)[:, 0]
    one, other = torch.triu_indices(len(rows), len(rows), 1)
    pairs = torch.full((len(rows), len(rows)), np.inf, dtype=torch.float64)
    pairs[one, other] = pairs[other, one] = ssim(patches[one], patches[other])
    return pairs


def painted(
    images: UInt8[Tensor, "n 3 h w"],
    region: Bool[Tensor, "n h w"],
    boxes: Int64[Tensor, "n 4"],
    *,
    enlarge: int = 1,
) -> UInt8[Tensor, "n 3 eh ew"]:
    """Each member of a summary as the paper shows it: the part red, its region outlined (Fig. 1).

    The region keeps its colours and has a black outline around it. The rest is grey and halfway to
    white, so that the outline shows on dark pictures too. The part, its whole box, is tinted and
    framed red; the frame shows it where the picture itself is red. Lines are 1 px wide, or the
    shorter side / 112.

    Args:
        enlarge: each pixel becomes so many by so many before anything is drawn, so that lines are
            thin in small pictures.

    Raises:
        ValueError: no such enlargement, or a box that is empty or reaches out of its image.
    """
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge}: valid is a whole number from 1")
    _inside_image(boxes, *images.shape[2:])
    picture = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3).float()
    region = region.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)
    h, w = picture.shape[2:]
    line = max(1, round(min(h, w) / 112))
    x0, y0, x1, y1 = (boxes * enlarge).T[..., None, None]
    y, x = torch.arange(h)[:, None], torch.arange(w)
    part = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    inner = (y >= y0 + line) & (y < y1 - line) & (x >= x0 + line) & (x < x1 - line)
    outline = (functional.max_pool2d(region.float(), 2 * line + 1, 1, line) > 0) & ~region
    red = torch.tensor([230.0, 0.0, 30.0])[:, None, None]
    shown = torch.where(region[:, None], picture, 127.5 + _grey(picture) / 2)
    shown = shown * ~outline[:, None]
    shown = torch.where(part[:, None], torch.lerp(shown, red, 0.45), shown)
    return torch.where((part & ~inner)[:, None], red, shown).round().byte()


def _inside_image(boxes: Int64[Tensor, "n 4"], h: int, w: int) -> None:
    x0, y0, x1, y1 = boxes.T
    if not ((x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= w) & (y1 <= h)).all():
        raise ValueError(
            f"a box is empty or reaches out of its image of {h} x {w} px; valid is x0 < x1 and "
            "y0 < y1 within it"
        )
