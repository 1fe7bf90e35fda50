"""What visual summaries are good for: naming parts, improving a network, foreseeing failures.

Source: "Understanding Deep Architectures by Visual Summaries" (paper 2), sections 1 and 4. A
summary is given by its members: rows of images of one class, and in each a box and a region.

The paper tags images with a service that gave 8 nouns an image. Here the true parts of a rendered
scene are the ideal tagger (`part_tags`), and a classifier's best classes the one for photographs
(`classifier_tags`).

Images are in [0, 1]; models take them, normalise inside and return logits.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from scipy import ndimage, stats
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor, nn

from helpers.backgrounds import boxes_of
from helpers.claims import bootstrap_interval
from helpers.models import frozen

TAGS = 8  # nouns per image, section 4.2
_CHUNK = 64  # images whose Fourier transforms are in memory together


# Tags (section 4.2, figure 4 and table 1)


def jaccard(a: Set[str], b: Set[str]) -> float:
    """|a and b| / |a or b| in [0, 1]: 1 for equal sets, two empty ones included."""
    return len(a & b) / len(a | b) if a or b else 1.0


def jaccard_matrix(sets: Sequence[Set[str]]) -> Float[Tensor, "n n"]:
    """`jaccard` of all pairs, in float64."""
    known = {tag: column for column, tag in enumerate(sorted(set().union(*sets)))}
    rows = [row for row, tags in enumerate(sets) for _ in tags]
    columns = [known[tag] for tags in sets for tag in tags]
    vectors = torch.zeros(len(sets), len(known), dtype=torch.float64)
    vectors[rows, columns] = 1
    both, sizes = vectors @ vectors.T, vectors.sum(1)
    either = sizes[:, None] + sizes - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def disagreement(sets: Sequence[Set[str]]) -> float:
    """Mean Jaccard distance of all pairs, in [0, 1]; 0 where all are equal.

    Over the images of a summary it is the distance that mu_S averages; over the people who tagged
    one, that of mu_U (section 4.2).

    Raises:
        ValueError: fewer than two sets.
    """
    n = len(sets)
    if n < 2:
        raise ValueError(f"disagreement takes at least two sets of tags to compare; there is {n}")
    return 1 - float(jaccard_matrix(sets).sum() - n) / (n * (n - 1))


class Coherence(NamedTuple):
    """How much closer in their tags a class's summaries are than random images of the class."""

    mu_s: float  # mean distance within a summary, averaged over summaries
    mu_r: float  # the same for random images, averaged over draws
    as_close: float  # share of draws, the observed summaries counted as one, with at most mu_s


def against_random(
    members: Sequence[Int64[Tensor, " _"]],
    sets: Sequence[Set[str]],
    generator: torch.Generator,
    draws: int = 1000,
) -> Coherence:
    """mu_S against mu_R (section 4.2): lower is more coherent.

    A draw takes, for every summary, as many different images of the class as it has members. The
    paper draws once. We average many draws, whose mean tends to that of all pairs of the class, and
    count how often chance comes as close as the summaries do. A draw exchanges images at random,
    the same in all summaries, so that random sets share as many images as summaries do: this makes
    `as_close` the p-value of a permutation test.

    Args:
        members: of each summary, rows of `sets`, each once.
        sets: the tags of each image of the class.

    Raises:
        ValueError: no summary, no draw, one without two members, a row twice or outside `sets`.
    """
    n = len(sets)
    if not members or draws < 1:
        raise ValueError(f"{len(members)} summaries and {draws} draws; valid is at least 1 of each")
    for i, rows in enumerate(members):
        if len(rows) < 2:
            raise ValueError(f"summary {i} has {len(rows)} members and no pair; leave it out")
        if len(rows.unique()) < len(rows) or not 0 <= int(rows.min()) <= int(rows.max()) < n:
            raise ValueError(f"members of summary {i} must be different rows within 0 to {n - 1}")
    distances = 1 - jaccard_matrix(sets)
    within = [_mean_of_pairs(distances[rows][:, rows]) for rows in members]
    drawn = torch.zeros(draws, dtype=torch.float64)
    exchanged = torch.rand(draws, n, generator=generator).argsort(1)  # a permutation per draw
    for rows in members:
        size = len(rows)
        marked = torch.zeros(draws, n, dtype=torch.float64)
        marked.scatter_(1, exchanged[:, rows], 1)
        drawn += ((marked @ distances) * marked).sum(1) / (size * (size - 1))
    drawn /= len(members)
    mu_s = sum(within) / len(within)
    close = int((drawn <= mu_s + 1e-12).sum())  # equal but for rounding counts
    return Coherence(mu_s, float(drawn.mean()), (1 + close) / (1 + draws))


def _mean_of_pairs(distances: Float[Tensor, "n n"]) -> float:
    n = len(distances)
    return float(distances.sum()) / (n * (n - 1))


def merged(
    tags: Iterable[str], *, senses: int | None = 1, corpus: Any = None
) -> tuple[dict[str, str], str]:
    """One name for synonyms, by the synsets of WordNet (section 4.2): (name of each tag, how).

    Tags are synonyms if they share a noun synset, directly or through other tags. The paper does
    not say which synsets it checks. We check the most frequent one: with all of them, any rare
    meaning merges, so that "train" becomes "strings", "peg" becomes "leg" and "side" becomes
    "face". WordNet knows some plurals as their singular.

    Args:
        tags: may repeat; the most frequent of the synonyms gives the name, of equally frequent ones
            the first in the alphabet.
        senses: how many of a tag's synsets count, the most frequent first; None for all.
        corpus: with WordNet's `synsets(word, pos="n")`; by default NLTK's, if it is there.

    Returns:
        The name of each tag, itself where nothing was merged, and a sentence for the reader that
        says what was done; it begins "not merged" where WordNet is missing.

    Raises:
        ValueError: no synset to check.
    """
    if senses is not None and senses < 1:
        raise ValueError(f"merging checks at least 1 synset of a tag, not {senses}")
    counts = Counter(tags)
    names = {tag: tag for tag in counts}
    if corpus is None:
        try:
            from nltk.corpus import wordnet as corpus

            corpus.ensure_loaded()
        except ImportError:
            return names, "not merged: the package nltk is missing; get it with `pip install nltk`"
        except LookupError:
            return names, (
                "not merged: NLTK's WordNet is missing; get it once, with a network, with "
                "`python -m nltk.downloader wordnet`"
            )
    groups = DisjointSet(("tag", tag) for tag in counts)
    for tag in counts:
        for synset in corpus.synsets("_".join(tag.split()), pos="n")[:senses]:
            groups.add(("synset", synset.name()))
            groups.merge(("tag", tag), ("synset", synset.name()))
    for group in groups.subsets():
        same = [name for kind, name in group if kind == "tag"]
        best = min(same, key=lambda tag: (-counts[tag], tag))
        names.update(dict.fromkeys(same, best))
    return names, f"{len(counts)} tags are {len(set(names.values()))} after merging by WordNet"


def renamed(sets: Sequence[Set[str]], names: Mapping[str, str]) -> list[frozenset[str]]:
    """Every tag by its name in `names`, such as those of `merged`; unknown tags stay."""
    return [frozenset(names.get(tag, tag) for tag in tags) for tags in sets]


def most_used(sets: Sequence[Set[str]]) -> str | None:
    """The tag that most people (or images) gave, which names the summary (section 4.2).

    Of equally frequent tags the first in the alphabet; None if there is no tag at all.
    """
    counts = Counter(tag for tags in sets for tag in tags)
    return min(counts, key=lambda tag: (-counts[tag], tag), default=None)


def in_boxes(regions: Bool[Tensor, "m h w"], boxes: Int64[Tensor, "m 4"]) -> Bool[Tensor, "m h w"]:
    """The part that a summary shows of each member: its region within its box.

    Args:
        boxes: x0, y0, x1, y1 in pixels, half open.
    """
    x0, y0, x1, y1 = boxes.T[..., None]
    across, down = (torch.arange(side, device=boxes.device) for side in regions.shape[:0:-1])
    columns, rows = (x0 <= across) & (across < x1), (y0 <= down) & (down < y1)
    return regions & rows[:, :, None] & columns[:, None, :]


def part_tags(
    parts: UInt8[Tensor, "n h w"],
    part_names: Sequence[str],
    where: Bool[Tensor, "n h w"] | None = None,
    k: int = TAGS,
) -> list[frozenset[str]]:
    """What an ideal tagger says of a scene: the names of its k largest visible parts.

    Args:
        parts: index into `part_names`; 0 is no part.
        where: pixels that the tagger sees, such as `in_boxes`; by default all.

    Returns:
        Of each image at most k names; fewer where it shows fewer parts.

    Raises:
        ValueError: a part without a name, or no tag to give.
    """
    _some(k)
    areas = _areas(parts, where, len(part_names))
    areas[:, 0] = 0
    order = areas.argsort(stable=True, dim=1, descending=True)[:, :k].tolist()
    return [
        frozenset(part_names[part] for part in row if area[part])
        for row, area in zip(order, areas.tolist(), strict=True)
    ]


def _areas(
    parts: UInt8[Tensor, "n h w"], where: Bool[Tensor, "n h w"] | None, count: int
) -> Int64[Tensor, "n count"]:
    """Pixels of each part among those of `where`."""
    if parts.numel() and int(parts.max()) >= count:
        raise ValueError(f"part {int(parts.max())} has no name; there are {count}, from 0")
    index = parts.flatten(1).long()
    seen = torch.ones_like(index) if where is None else where.flatten(1).long()
    return index.new_zeros(len(parts), count).scatter_add_(1, index, seen)


def classifier_tags(
    logits: Float[Tensor, "n classes"], names: Sequence[str], k: int = TAGS
) -> list[frozenset[str]]:
    """What a classifier says of a photograph: the names of its k best classes.

    Raises:
        ValueError: not one name for each class, or no tag to give.
    """
    _some(k)
    if len(names) != logits.shape[1]:
        raise ValueError(f"{len(names)} names for {logits.shape[1]} classes; give one for each")
    best = logits.topk(min(k, len(names)), dim=1).indices.tolist()
    return [frozenset(names[i] for i in row) for row in best]


def _some(k: int) -> None:
    if k < 1:
        raise ValueError(f"a tagger gives at least 1 tag, not {k}")


class TagAudit(NamedTuple):
    """Table 1 of paper 2 counted, against what the paper says of the number of summaries."""

    classes: pd.DataFrame  # class, pair, mu_u, summaries: as many as table 1 prints tags
    total: int
    mean: float
    stated: float  # table 3


def audit(tags: pd.DataFrame, summaries: pd.DataFrame, model: str = "AlexNet") -> TagAudit:
    """Table 1 gives one tag for each summary of AlexNet, so its tags count the summaries.

    Args:
        tags: `helpers.claims.published("paper2_table1_tags")`.
        summaries: `helpers.claims.published("paper2_table3_summaries")`.
        model: whose row of table 3 is compared.

    Raises:
        ValueError: table 3 has no such model.
    """
    row = summaries.loc[summaries.model == model, "summaries"]
    if len(row) != 1:
        raise ValueError(f"table 3 has no {model!r}; it has {', '.join(summaries.model)}")
    counts = tags.tags.str.split(";").str.len()
    classes = tags[["class", "pair", "mu_u"]].assign(summaries=counts)
    return TagAudit(classes, int(counts.sum()), float(counts.mean()), float(row.iloc[0]))


# Specialised classifiers (section 4.4, figure 6)


@dataclass(frozen=True)
class Specialists:
    """One linear SVM per summary; see `specialise`."""

    weights: Float[Tensor, "s d"]
    bias: Float[Tensor, " s"]
    classes: Int64[Tensor, " s"]  # of each summary
    numbers: Int64[Tensor, " s"]  # of each summary within its class, from 0
    converged: Bool[Tensor, " s"]  # in the number of iterations allowed


def specialise(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    summaries: Mapping[int, Sequence[Int64[Tensor, " _"]]],
    *,
    c: float = 0.01,
    iterations: int = 5000,
    seed: int = 0,
) -> Specialists:
    """A linear SVM per summary on the network's features (section 4.4).

    Positives are the summary's members; negatives are all images of other classes and the members
    of the class's other summaries. An image that is in this summary and in another of its class is
    a positive. Images of the class in no summary are not used.

    The paper takes the first fully connected layer's output and names no settings. Ours: features
    standardised, squared hinge loss, both sides of equal weight, since members are few. With C =
    0.01 more digits of scikit-learn's set were right than with 0.001, 0.1 or 1 (96.5 % against
    95.5, 95.8 and 94.3 %).

    Args:
        features: of the images on which the summaries were made; none of the test images.
        summaries: of each class (as in `labels`) the members of each summary, as rows.
        c: inverse strength of the regulariser; above 0.
        iterations: at most; where they do not suffice, `converged` is False.

    Raises:
        ValueError: no summary, one without members, a member of another class or no row, features
            that are not finite, or no negative.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second that stored results do without
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if not any(map(len, summaries.values())):
        raise ValueError("there are no summaries to specialise on")
    if not features.isfinite().all():
        raise ValueError("features must be finite, and some are not")
    n = len(features)
    scale = StandardScaler()
    values = scale.fit_transform(features.detach().cpu().double().numpy())
    owners = labels.cpu()
    found: list[tuple[np.ndarray, float, int, int, bool]] = []
    for label, of_class in summaries.items():
        for number, rows in enumerate(of_class):
            rows = rows.cpu()
            if not len(rows):
                raise ValueError(f"summary {number} of class {label} has no members")
            if not 0 <= int(rows.min()) <= int(rows.max()) < n or (owners[rows] != label).any():
                raise ValueError(
                    f"summary {number} of class {label} has a member that is no image of the class"
                )
            positive = torch.zeros(n, dtype=torch.bool)
            positive[rows] = True
            used = owners != label
            used[torch.cat([other.cpu() for other in of_class])] = True
            if not (used & ~positive).any():
                raise ValueError(f"summary {number} of class {label} has no negative examples")
            svm = LinearSVC(
                C=c, class_weight="balanced", max_iter=iterations, random_state=seed, dual="auto"
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
                svm.fit(values[used], positive[used])
            weight = svm.coef_[0] / scale.scale_
            bias = float(svm.intercept_[0] - weight @ scale.mean_)
            found.append((weight, bias, label, number, int(svm.n_iter_) < iterations))
    weights, bias, classes, numbers, converged = zip(*found, strict=True)
    like = {"dtype": features.dtype, "device": features.device}
    return Specialists(
        torch.tensor(np.stack(weights), **like),
        torch.tensor(bias, **like),
        torch.tensor(classes, device=features.device),
        torch.tensor(numbers, device=features.device),
        torch.tensor(converged, device=features.device),
    )


def svm_scores(
    specialists: Specialists, features: Float[Tensor, "n d"], classes: int
) -> tuple[Float[Tensor, "n classes"], Int64[Tensor, "n classes"]]:
    """Class scores of the SVMs, and which SVM gave each (section 4.4).

    A class's margin is the highest among its SVMs'. The paper normalises scores "to sum to unity"
    and does not say how; margins can be negative, so we take their softmax. (Sigmoids, or margins
    above the smallest, divided by their sum gained as much, within 0.2 points on digits.) A class
    without a summary has the score 0.

    Returns:
        Scores, each row with sum 1, and the row in `specialists` of each class's highest margin; -1
        without a summary.

    Raises:
        ValueError: a summary of a class beyond `classes`.
    """
    if int(specialists.classes.max()) >= classes:
        raise ValueError(
            f"a summary is of class {int(specialists.classes.max())}; there are {classes} classes"
        )
    margins = features @ specialists.weights.T + specialists.bias  # (n, s)
    best = margins.new_full((len(features), classes), -torch.inf)
    which = specialists.classes.new_full((len(features), classes), -1)
    for label in specialists.classes.unique().tolist():
        own = (specialists.classes == label).nonzero()[:, 0]
        best[:, label], at = margins[:, own].max(1)
        which[:, label] = own[at]
    return best.softmax(1), which


def mixed(
    softmax: Float[Tensor, "n classes"], svm: Float[Tensor, "n classes"], weight: float
) -> Float[Tensor, "n classes"]:
    """(1 - weight) softmax + weight svm, the paper's convex sum.

    Raises:
        ValueError: a weight outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"a convex sum takes a weight in [0, 1], not {weight}")
    return (1 - weight) * softmax + weight * svm


def choose_weight(
    softmax: Float[Tensor, "n classes"],
    svm: Float[Tensor, "n classes"],
    labels: Int64[Tensor, " n"],
    steps: int = 100,
) -> float:
    """The weight of the most accurate sum; of equally accurate ones the smallest.

    Weights are 0, 1/steps, ..., 1. 0 changes nothing, so the SVMs never lose on these images.
    These must be held out: neither the SVMs' own images nor those of the final test. The paper does
    not say which images its weight was chosen on.

    Raises:
        ValueError: no images, or no step.
    """
    if not len(labels) or steps < 1:
        raise ValueError(f"{len(labels)} images and {steps} steps; valid is at least 1 of each")
    right = [
        int((mixed(softmax, svm, i / steps).argmax(1) == labels).sum()) for i in range(steps + 1)
    ]
    return right.index(max(right)) / steps


@dataclass(frozen=True)
class Specialisation:
    """What mixing in the SVMs changed."""

    weight: float
    before: Bool[Tensor, " n"]  # which images the softmax alone has right
    after: Bool[Tensor, " n"]
    chosen: Int64[Tensor, " n"]  # class after mixing
    responsible: Int64[Tensor, " n"]  # row in Specialists behind a changed class; -1 unchanged

    @property
    def corrected(self) -> Int64[Tensor, " c"]:
        """Rows that became right."""
        return (~self.before & self.after).nonzero()[:, 0]

    @property
    def spoiled(self) -> Int64[Tensor, " c"]:
        """Rows that became wrong."""
        return (self.before & ~self.after).nonzero()[:, 0]

    @property
    def accuracy(self) -> tuple[float, float]:
        """Before and after, in [0, 1]."""
        return float(self.before.double().mean()), float(self.after.double().mean())


def specialised(
    softmax: Float[Tensor, "n classes"],
    svm: Float[Tensor, "n classes"],
    which: Int64[Tensor, "n classes"],
    labels: Int64[Tensor, " n"],
    weight: float,
) -> Specialisation:
    """Apply a weight to test images, and say which summary changed an answer (figure 6).

    Responsible for a change is the SVM that gave the newly chosen class its score.

    Args:
        svm, which: from `svm_scores`.
        weight: from `choose_weight`, on other images.

    Raises:
        ValueError: a weight outside [0, 1].
    """
    old, new = softmax.argmax(1), mixed(softmax, svm, weight).argmax(1)
    responsible = which.gather(1, new[:, None])[:, 0].masked_fill(old == new, -1)
    return Specialisation(weight, old == labels, new == labels, new, responsible)


# Without its parts (section 1)


def erased(
    images: Float[Tensor, "n 3 h w"],
    where: Bool[Tensor, "n h w"] | Float[Tensor, "n h w"],
    fill: Float[Tensor, "n 3 h w"],
) -> Float[Tensor, "n 3 h w"]:
    """The fill where `where` is 1 (or True), the image where it is 0, mixed in between.

    With the blurred images as fill (`helpers.crisp_masks.blurred`) pixels vanish as they do under
    the masks, without the new edges that one colour would bring.
    """
    return torch.lerp(images, fill, where[:, None].to(images.dtype))


def elsewhere(
    masks: Bool[Tensor, "n h w"],
    generator: torch.Generator,
    avoid: Bool[Tensor, "n h w"] | None = None,
) -> tuple[Bool[Tensor, "n h w"], Bool[Tensor, " n"]]:
    """An equal area at a random place outside each mask: (areas, which images have room).

    The mask keeps its shape and moves, uniformly among the places where it lies wholly in the
    image and touches neither its old pixels nor `avoid`. Where there is no such place it moves to
    one of those with the least overlap, and the pixels it loses there are replaced by the nearest
    free ones. An image with fewer free pixels than the mask has no room: its area is empty.

    Args:
        avoid: further pixels to leave alone, such as the other summaries' parts; or all but the
            object, so that the area is on the object.
    """
    n, h, w = masks.shape
    place = torch.rand(n, generator=generator, dtype=torch.float64)
    taken = masks if avoid is None else masks | avoid
    areas = torch.zeros_like(masks)
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        areas[rows] = _moved(masks[rows], taken[rows], place[rows].to(masks.device))
    room = (~taken).flatten(1).sum(1) >= masks.flatten(1).sum(1)
    lost = areas & taken
    areas &= ~taken & room[:, None, None]
    for row in (lost.flatten(1).any(1) & room).nonzero()[:, 0].tolist():
        distance = ndimage.distance_transform_edt(~(areas[row] | lost[row]).cpu().numpy())
        distance[(taken[row] | areas[row]).cpu().numpy()] = np.inf
        nearest = distance.ravel().argsort(kind="stable")[: int(lost[row].sum())]
        areas[row].view(-1)[torch.from_numpy(nearest).to(masks.device)] = True
    return areas, room


def _moved(
    masks: Bool[Tensor, "n h w"], taken: Bool[Tensor, "n h w"], place: Float[Tensor, " n"]
) -> Bool[Tensor, "n h w"]:
    """Each mask moved within its image to where it meets the fewest pixels of `taken`."""
    _, h, w = masks.shape
    # overlap at every shift at once: a cross-correlation, padded so that nothing wraps around
    size = (2 * h, 2 * w)
    fixed, shifted = (torch.fft.rfft2(x.float(), size) for x in (taken, masks))
    overlap = torch.fft.irfft2(fixed * shifted.conj(), size).round()
    x0, y0, x1, y1 = boxes_of(masks).T[:, :, None]
    down, across = (  # the shift of each row and column of `overlap`: 0, 1, ..., -2, -1
        torch.fft.fftfreq(s, 1 / s, device=masks.device).round().long() for s in size
    )
    inside = ((-y0 <= down) & (down <= h - y1))[:, :, None] & (
        (-x0 <= across) & (across <= w - x1)
    )[:, None, :]
    overlap = overlap.masked_fill(~inside, torch.inf).flatten(1)
    count = (overlap == overlap.amin(1, keepdim=True)).cumsum(1)
    drawn = (place * count[:, -1]).long()
    shift = (count > drawn[:, None]).byte().argmax(1)  # the first with so many before it
    dy, dx = down[shift // size[1]], across[shift % size[1]]
    rows = (torch.arange(h, device=masks.device) - dy[:, None]) % h
    columns = (torch.arange(w, device=masks.device) - dx[:, None]) % w
    moved = masks.gather(1, rows[:, :, None].expand_as(masks))
    return moved.gather(2, columns[:, None, :].expand_as(masks))


@dataclass(frozen=True)
class Absence:
    """Which images stay right without the summaries' parts; see `absence`."""

    before: Bool[Tensor, " n"]
    without_parts: Bool[Tensor, " n"]
    without_others: Bool[Tensor, " n"]  # an equal area elsewhere
    room: Bool[Tensor, " n"]  # for the equal area; others are not compared
    share: Float[Tensor, " n"]  # of the image that the parts cover

    @property
    def points(self) -> Float[Tensor, " r"]:
        """Of each image with room: accuracy lost without its parts minus that lost elsewhere, in
        percentage points (-100, 0 or 100); the mean is the effect."""
        return 100 * (self.without_others.double() - self.without_parts.double())[self.room]


def absence(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    parts: Bool[Tensor, "n h w"],
    fill: Float[Tensor, "n 3 h w"],
    generator: torch.Generator,
    avoid: Bool[Tensor, "n h w"] | None = None,
    batch_size: int = 64,
) -> Absence:
    """Does the network fail without the parts of its summaries (section 1)? Answered by erasing
    them, and by erasing an equal area `elsewhere`.

    The paper claims it and measures nothing.

    Args:
        parts: what the summaries show of each image: one member's `in_boxes`, or all of an image's
            together.
        fill: what erased pixels become; see `erased`.
        avoid: for `elsewhere`.

    Raises:
        ValueError: no batch size.
    """
    others, room = elsewhere(parts, generator, avoid)
    right = [
        _logits(model, seen, batch_size).argmax(1) == labels
        for seen in (images, erased(images, parts, fill), erased(images, others, fill))
    ]
    return Absence(*right, room, parts.flatten(1).float().mean(1))


def _logits(
    model: nn.Module, images: Float[Tensor, "n 3 h w"], batch_size: int
) -> Float[Tensor, "n classes"]:
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    with frozen(model), torch.no_grad():
        return torch.cat([model(batch).float() for batch in images.split(batch_size)])


class Origin(NamedTuple):
    """Percent of the class probability lost under the whole mask and under parts of it."""

    mask: Float[Tensor, " n"]
    on_object: Float[Tensor, " n"]
    on_backdrop: Float[Tensor, " n"]


def origin_of_drop(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    masks: Float[Tensor, "n h w"],
    objects: Bool[Tensor, "n h w"],
    fill: Float[Tensor, "n 3 h w"],
    batch_size: int = 64,
) -> Origin:
    """Where a mask's effect comes from: the drop 100 (p - p') / p of all of it (section 4.1), of
    what it removes of the object alone, and of the backdrop alone.

    The last two need not add up to the first. A drop is negative where the probability rises.

    Args:
        masks: 1 keeps the pixel, 0 replaces it by the fill.
        objects: True on the object.

    Raises:
        ValueError: a mask value outside [0, 1], a target without an output, or no batch size.
        FloatingPointError: a probability is 0 before any change, or not finite.
    """
    if masks.numel() and not 0 <= float(masks.min()) <= float(masks.max()) <= 1:
        raise ValueError("mask values must lie in [0, 1], and some do not")
    if not len(images):
        return Origin(*(images.new_zeros(0),) * 3)
    removed = 1 - masks
    seen = [images]
    seen += [erased(images, where, fill) for where in (removed, removed * objects)]
    seen += [erased(images, removed * ~objects, fill)]
    probabilities = [_logits(model, batch, batch_size).softmax(1) for batch in seen]
    if not 0 <= int(targets.min()) <= int(targets.max()) < probabilities[0].shape[1]:
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; valid are 0 to "
            f"{probabilities[0].shape[1] - 1}, the model's outputs"
        )
    before, *after = (p.gather(1, targets[:, None])[:, 0] for p in probabilities)
    drops = [100 * (before - p) / before for p in after]
    if not all(drop.isfinite().all() for drop in drops):
        raise FloatingPointError(
            "a class probability is 0 or not finite; keep images whose top-1 class is the target"
        )
    return Origin(*drops)


# Adjacent classes (section 4.2)


def shared(
    descriptors: Float[Tensor, "m d"],
    summary: Int64[Tensor, " m"],
    classes: Int64[Tensor, " s"],
    count: int,
) -> Float[Tensor, "count count"]:
    """How far two classes share summaries: the paper says adjacent ones do, without a number.

    Two summaries are as alike as the mean cosine of their members' descriptors, over all pairs. For
    each summary of A the most similar of B counts; their mean over A's summaries and the same from
    B to A are averaged. A class with more summaries has more chances to find a similar one.

    Args:
        descriptors: of each member's part; those of all zeros have the cosine 0 with any.
        summary: of each member.
        classes: of each summary.
        count: of classes.

    Returns:
        Symmetric, in [-1, 1]. NaN on the diagonal and for classes without a summary.

    Raises:
        ValueError: descriptors that are not finite, a summary without members, or a summary or
            class that is not there.
    """
    s = len(classes)
    if not descriptors.isfinite().all():
        raise ValueError("descriptors must be finite, and some are not")
    sizes = torch.bincount(summary, minlength=s)
    if len(sizes) > s or not sizes.all():
        raise ValueError(f"members are of summaries 0 to {len(sizes) - 1}, each at least once")
    if s and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise ValueError(f"classes run from 0 to {count - 1}, and a summary's does not")
    # the mean cosine over all pairs is the product of the mean unit vectors
    unit = nn.functional.normalize(descriptors.double(), dim=1)
    means = unit.new_zeros(s, unit.shape[1]).index_add_(0, summary, unit) / sizes[:, None]
    alike = means @ means.T
    best = alike.new_full((s, count), -torch.inf)
    best = best.scatter_reduce(1, classes.expand(s, s), alike, "amax")  # with each class
    of = torch.bincount(classes, minlength=count)
    towards = best.new_zeros(count, count).index_add_(0, classes, best) / of[:, None]
    both = ((towards + towards.T) / 2).fill_diagonal_(torch.nan)
    return both.masked_fill((of == 0)[:, None] | (of == 0), torch.nan).to(descriptors.dtype)


def beyond_others(
    similarity: Float[Tensor, "classes classes"], pairs: Sequence[tuple[int, int]]
) -> Float[Tensor, " p"]:
    """Of each pair of classes: its similarity minus the mean of all other pairs with either class.

    NaN where a class has no summary, or there is no other class.
    """
    a, b = torch.tensor(pairs, dtype=torch.int64, device=similarity.device).reshape(-1, 2).T
    rows = torch.arange(len(a), device=a.device)
    others = similarity[torch.stack((a, b))].clone()  # (2, p, classes)
    others[0, rows, b] = others[1, rows, a] = torch.nan
    others[0, rows, a] = others[1, rows, b] = torch.nan
    return similarity[a, b] - others.transpose(0, 1).flatten(1).nanmean(1)


# With the true parts of a scene, and over networks


class Purity(NamedTuple):
    """Which true part each summary shows."""

    part: Int64[Tensor, " s"]  # the most frequent among the members; 0 is no part
    share: Float[Tensor, " s"]  # of members that show it, in [0, 1]
    shown: Int64[Tensor, " m"]  # the part each member shows


def purity(
    parts: UInt8[Tensor, "m h w"],
    where: Bool[Tensor, "m h w"],
    summary: Int64[Tensor, " m"],
    least: float = 0.25,
) -> Purity:
    """How consistently each summary shows one true part.

    A member shows the part that covers most pixels of `where`. It shows no part if less than
    `least` of those pixels are on the object, whose surroundings are then what it marks.

    Args:
        parts: of each member's image; 0 is no part.
        where: what the summary shows of it; see `in_boxes`.
        summary: of each member; every one from 0 has a member.

    Raises:
        ValueError: a summary without members.
    """
    count = 1 + (int(parts.max()) if parts.numel() else 0)
    areas = _areas(parts, where, count)
    pixels = areas.sum(1)
    on_object = pixels - areas[:, 0]
    areas[:, 0] = 0
    shown = areas.argmax(1) * ((on_object > 0) & (on_object >= least * pixels))
    sizes = torch.bincount(summary)
    if not sizes.all():
        raise ValueError(f"summary {int(sizes.argmin())} has no members")
    votes = torch.bincount(summary * count + shown, minlength=len(sizes) * count)
    most, part = votes.reshape(-1, count).max(1)
    return Purity(part, most / sizes, shown)


def found(main: Int64[Tensor, " s"], parts: UInt8[Tensor, "n h w"]) -> float:
    """Share of a class's true parts that some summary shows most often, in [0, 1].

    Args:
        main: `purity(...).part` of the class's summaries.
        parts: of the class's images; the parts seen in them are those of the class.

    Raises:
        ValueError: no image shows a part.
    """
    true = parts.unique().long()
    true = true[true > 0]
    if not len(true):
        raise ValueError("no image shows a part")
    return float(torch.isin(true, main).double().mean())


class Correlation(NamedTuple):
    """Correlation over networks; None where there are too few, or no correlation is defined."""

    n: int
    spearman: float | None
    p: float | None  # two-sided, of Spearman's, by permutation
    spearman_interval: tuple[float, float] | None
    pearson: float | None
    pearson_interval: tuple[float, float] | None


_ENOUGH = 8  # networks for more than ranks: below, resamples repeat few points


def count_correlation(
    counts: Float[Tensor, " n"], accuracies: Float[Tensor, " n"], seed: int = 0
) -> Correlation:
    """Do networks with more summaries classify better (section 4.3, table 3)?

    Args:
        counts: mean number of summaries per class of each network.
        accuracies: of each network, in any unit.

    Returns:
        Spearman's correlation and its p. From 8 networks on also Pearson's, and 95 % bootstrap
        intervals over networks; below, a straight line and an interval would be guesses. Where all
        counts or all accuracies are equal there is no correlation: None.

    Raises:
        ValueError: fewer than 3 networks, or numbers that are not finite.
    """
    n = len(counts)
    values = torch.stack((counts, accuracies), 1).double().cpu().numpy()
    if n < 3 or not np.isfinite(values).all():
        raise ValueError(f"a correlation takes finite numbers of at least 3 networks; {n} given")
    if (np.ptp(values, axis=0) == 0).any():
        return Correlation(n, *(None,) * 5)
    x, y = values.T
    ranks, others = stats.rankdata(x), stats.rankdata(y)
    permuted = stats.permutation_test(
        (ranks,),
        lambda order, axis: _correlated(order, others),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=9999,
        rng=seed,
    )
    rest: tuple = (None, None, None)
    if n >= _ENOUGH:
        ranked = bootstrap_interval(
            values,
            lambda a, b: float(_correlated(stats.rankdata(a), stats.rankdata(b))),
            seed=seed,
        )
        straight = bootstrap_interval(values, lambda a, b: float(_correlated(a, b)), seed=seed)
        rest = (ranked, float(_correlated(x, y)), straight)
    return Correlation(n, float(permuted.statistic), float(permuted.pvalue), *rest)


def _correlated(
    x: Float[np.ndarray, "*rows n"], y: Float[np.ndarray, "*others n"]
) -> Float[np.ndarray, "*rows"] | np.floating:
    """Pearson's correlation along the last axis; 0 where one does not vary, as in a resample."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.clip((x * y).sum(-1) / np.where(scale > 0, scale, np.inf), -1, 1)
