"""Visual summaries: regions, parts, clusters and their pruning against literal versions."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from scipy import sparse
from skimage.measure import label as skimage_label
from skimage.metrics import structural_similarity
from sklearn.cluster import AffinityPropagation, affinity_propagation
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional

from helpers.scenes.world import World
from helpers.visual_summaries import (
    Rules,
    Similarity,
    Summaries,
    cluster,
    painted,
    parts,
    regions,
    similarity,
    ssim,
    summarise,
)


def random_boxes(rng, count, size=24, least=4):
    """Boxes of at least `least` px within a square image."""
    start = rng.integers(0, size - least, (count, 2))
    end = start + least + (rng.random((count, 2)) * (size - least - start)).astype(int)
    return torch.from_numpy(np.concatenate((start, end), 1))


def dot(boxes_a, descriptors_a, boxes_b, descriptors_b):
    """A match that any test can work out: the descriptors' product, where it is positive."""
    return (descriptors_a @ descriptors_b.T).clamp(min=0)


def made(scores, boxes, counts):
    """A similarity with known scores."""
    scores = np.asarray(scores, np.float32)
    return Similarity(sparse.csr_array(scores), torch.as_tensor(boxes), torch.tensor(counts))


# --- regions ------------------------------------------------------------------------------------


def test_regions_by_hand():
    masks = torch.ones(3, 10, 10)
    masks[0, 0, 0:2] = 0.0  # touches the next at a corner only: one region of 4
    masks[0, 1, 2:4] = 0.49
    masks[0, 5:8, 5:8] = 0.0  # 9 pixels: the largest
    masks[0, 9, 0] = 0.0  # one pixel of 100 is as large as asked for
    masks[1, 3:6, 3:6] = 0.5  # 1 - m > 0.5 is false
    masks[2] = 0.0
    found = regions(masks)
    expected = torch.zeros(3, 10, 10, dtype=torch.int64)
    expected[0, 5:8, 5:8] = 1
    expected[0, 0, 0:2] = expected[0, 1, 2:4] = 2
    expected[0, 9, 0] = 3
    expected[2] = 1
    assert torch.equal(found, expected)
    assert regions(masks, 0.02)[0].max() == 2
    assert not regions(masks, 0.05)[0, 0].any()


@given(seed=st.integers(0, 10**6), share=st.floats(0.2, 0.8), area=st.floats(0, 0.1))
def test_regions_are_those_of_scikit_image(seed, share, area):
    masks = torch.from_numpy(np.random.default_rng(seed).random((3, 9, 11)) < share).float()
    found = regions(masks, area)
    for mask, ours in zip(masks, found, strict=True):
        theirs = skimage_label(mask.numpy() < 0.5, connectivity=2)
        sets = {tuple(np.flatnonzero(theirs == k)) for k in range(1, theirs.max() + 1)}
        sets = {pixels for pixels in sets if len(pixels) >= area * 99}
        numbers = range(1, int(ours.max()) + 1)
        ours = [tuple(np.flatnonzero(ours.numpy() == k)) for k in numbers]
        assert set(ours) == sets and len(ours) == len(sets)
        sizes = [len(pixels) for pixels in ours]
        assert sizes == sorted(sizes, reverse=True)


def test_regions_of_nothing_and_of_bad_masks():
    assert regions(torch.ones(2, 8, 8)).sum() == 0
    assert regions(torch.ones(0, 8, 8)).shape == (0, 8, 8)
    for bad in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            regions(torch.full((1, 8, 8), bad))


# --- similarity ---------------------------------------------------------------------------------


def test_similarity_by_hand():
    boxes = [torch.tensor([[0, 0, 4, 4]]), torch.tensor([[0, 0, 2, 2], [2, 2, 4, 4]])]
    descriptors = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]])]
    seen = []

    def match(boxes_a, descriptors_a, boxes_b, descriptors_b):
        seen.append((len(boxes_a), len(boxes_b)))
        scores = dot(boxes_a, descriptors_a, boxes_b, descriptors_b)
        if len(seen) == 3:  # of image 1 with itself, made lopsided
            scores[0, 1] = 2.0
        return scores

    found = similarity(boxes, descriptors, match)
    assert seen == [(1, 1), (1, 2), (2, 2)]
    assert np.array_equal(found.scores.toarray(), [[5, 3, 0], [3, 9, 1], [0, 1, 1]])
    assert torch.equal(found.boxes, torch.cat(boxes))
    assert found.counts.tolist() == [1, 2] and found.image.tolist() == [0, 1, 1]
    assert len(found) == 2


def test_faint_scores_are_not_kept():
    boxes = [torch.tensor([[0, 0, 4, 4], [0, 0, 2, 2]])] * 2
    table = torch.tensor([[10.0, 0.9], [1.0, 0.0]])
    found = similarity(boxes, [torch.zeros(2, 1)] * 2, lambda *_: table, faint=0.1)
    assert np.array_equal(found.scores.toarray()[:2, 2:], [[10, 0], [1, 0]])
    assert found.scores.nnz == 2 * 2 + 1 + 1  # within each image (1 + 0.9) / 2 is too faint as well


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    data=st.data(),
)
def test_similarity_of_some_images_is_that_part_of_all(seed, counts, data):
    rng = np.random.default_rng(seed)
    boxes = [random_boxes(rng, count) for count in counts]
    descriptors = [torch.from_numpy(rng.standard_normal((count, 3))) for count in counts]
    every = similarity(boxes, descriptors, dot, faint=0.2)
    assert (every.scores != every.scores.T).nnz == 0
    rows = data.draw(st.permutations(range(len(counts))))[: data.draw(st.integers(0, len(counts)))]
    some = similarity([boxes[i] for i in rows], [descriptors[i] for i in rows], dot, faint=0.2)
    for chosen in (every[rows], Similarity.of(every.tensors())[rows]):
        assert len(chosen) == len(rows)
        assert torch.equal(chosen.boxes, some.boxes) and torch.equal(chosen.counts, some.counts)
        assert chosen.scores.shape == some.scores.shape
        assert np.allclose(chosen.scores.toarray(), some.scores.toarray())
    wanted = torch.tensor([i in rows for i in range(len(counts))])
    assert len(every[wanted]) == len(rows) and len(every[1:]) == len(counts) - 1


def test_similarity_says_what_is_wrong():
    boxes, descriptors = [torch.tensor([[0, 0, 4, 4]])] * 2, [torch.ones(1, 2)] * 2
    with pytest.raises(ValueError, match="as many descriptors as boxes"):
        similarity(boxes, [torch.ones(1, 2), torch.ones(2, 2)], dot)
    with pytest.raises(ValueError, match=r"images 0 and 0 is \(1, 2\)"):
        similarity(boxes, descriptors, lambda *_: torch.ones(1, 2))
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="no number >= 0"):
            similarity(boxes, descriptors, lambda *_, bad=bad: torch.full((1, 1), bad))
    with pytest.raises(ValueError, match="faint=1"):
        similarity(boxes, descriptors, dot, faint=1)


# --- parts --------------------------------------------------------------------------------------


def test_a_part_lies_in_one_region():
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[0, :, :4], labels[0, :, 5:] = 1, 2
    boxes = [
        [0, 0, 4, 8],  # all of region 1
        [1, 0, 5, 4],  # exactly 75 % of it: not more
        [0, 0, 5, 8],  # 80 %
        [4, 0, 8, 8],  # 75 % of region 2
        [5, 0, 8, 2],
        [2, 0, 7, 2],  # two regions, 40 % each
        [0, 0, 8, 8],  # in image 1, which has no region
    ]
    scores = np.diag([1.0, 1, 1, 1, 1, 1, 1])
    found = parts(labels, made(scores, boxes, [6, 1]), Rules(ratio=1))
    assert found.proposal.tolist() == [0, 2, 4]
    assert found.region.tolist() == [1, 1, 2] and found.image.tolist() == [0, 0, 0]
    assert found.boxes.tolist() == [boxes[0], boxes[2], boxes[4]] and found.covered == 3


def test_of_two_that_repeat_each_other_the_better_stays():
    labels = torch.ones(1, 8, 8, dtype=torch.int64)
    a, b = [0, 0, 4, 4], [0, 0, 4, 6]  # all of a is in b, which is 1.5 times as large

    def kept(boxes, strengths):
        return parts(labels, made(np.diag(strengths), boxes, [len(boxes)])).proposal.tolist()

    assert kept([a, b], [2.0, 1.0]) == [0] and kept([a, b], [1.0, 2.0]) == [1]
    assert kept([a, b], [1.0, 1.0]) == [0]  # of equals the first
    assert kept([a, [0, 0, 4, 8]], [1.0, 2.0]) == [0, 1]  # twice as large is no repetition
    assert kept([a, [0, 2, 4, 6]], [2.0, 1.0]) == [0]  # half of it
    assert kept([a, [0, 3, 4, 7]], [2.0, 1.0]) == [0, 1]  # a quarter
    # the best removes the second, which then cannot remove the third
    chain = [[0, 0, 4, 4], [0, 2, 4, 6], [0, 4, 4, 8]]
    assert kept(chain, [3.0, 2.0, 1.0]) == [0, 2] and kept(chain, [2.0, 3.0, 1.0]) == [1]


def test_the_better_has_the_higher_mean_of_its_best_scores():
    labels = torch.ones(2, 8, 8, dtype=torch.int64)
    boxes = [[0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 8, 8]]
    scores = [[0.0, 0, 5], [0, 4, 4], [5, 4, 0]]
    assert parts(labels, made(scores, boxes, [2, 1]), Rules(top=1)).proposal.tolist() == [0, 2]
    assert parts(labels, made(scores, boxes, [2, 1]), Rules(top=2)).proposal.tolist() == [1, 2]
    assert parts(labels, made(scores, boxes, [2, 1])).proposal.tolist() == [1, 2]  # all three


def literal_parts(labels, similarity, rules):
    """Section 3.2 and the rules of the authors' code, box by box."""
    scores, boxes = similarity.scores.toarray(), similarity.boxes.tolist()
    image = similarity.image.tolist()
    area = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    region = {}
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        window = labels[image[k], y0:y1, x0:x1]
        for number in range(1, int(labels.max()) + 1):
            if int((window == number).sum()) / area[k] > rules.covered:
                region[k] = number
    strength = {k: np.sort(scores[k])[::-1][: rules.top].mean(dtype=np.float64) for k in region}
    kept = []
    for k in sorted(region, key=lambda k: -strength[k]):
        for other in kept:
            p, q = boxes[k], boxes[other]
            wide = max(0, min(p[2], q[2]) - max(p[0], q[0]))
            high = max(0, min(p[3], q[3]) - max(p[1], q[1]))
            small, large = sorted((area[k], area[other]))
            if (
                image[k] == image[other]
                and wide * high / small >= rules.overlap
                and large / small < rules.ratio
            ):
                break
        else:
            kept.append(k)
    return sorted(kept), [region[k] for k in sorted(kept)], len(region)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_parts_are_those_of_the_literal_rules(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 25, 3).tolist()
    boxes = torch.cat([random_boxes(rng, count) for count in counts])
    scores = rng.random((len(boxes), len(boxes)))
    similar = made((scores + scores.T) / 2, boxes, counts)
    labels = torch.zeros(3, 24, 24, dtype=torch.int64)
    labels[:, :, :14], labels[:, :11, 15:] = 1, 2
    rules = Rules(covered=0.6, top=5)
    found = parts(labels, similar, rules)
    kept, region, covered = literal_parts(labels, similar, rules)
    assert found.proposal.tolist() == kept and found.region.tolist() == region
    assert found.covered == covered


def test_parts_say_what_is_wrong():
    labels = torch.ones(1, 8, 8, dtype=torch.int64)
    for bad in ([0, 0, 9, 8], [-1, 0, 4, 4], [3, 3, 3, 5], [0, 6, 4, 4]):
        with pytest.raises(ValueError, match="empty or reaches out of its image of 8 x 8 px"):
            parts(labels, made([[1.0]], [bad], [1]))
    with pytest.raises(ValueError, match="regions of 1 images and the similarity of 2"):
        parts(labels, made(np.eye(2), [[0, 0, 4, 4]] * 2, [1, 1]))


# --- cluster ------------------------------------------------------------------------------------


def blocks(sizes, inside=10.0, outside=1.0, own=30.0, seed=0):
    """Scores of parts in groups: high within, low across, and higher with themselves."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    scores = np.where(group[:, None] == group, inside, outside)
    noise = np.random.default_rng(seed).random(scores.shape)
    scores = scores + noise + noise.T
    np.fill_diagonal(scores, own)
    return torch.from_numpy(scores), group


def test_groups_become_clusters():
    scores, group = blocks([4, 6, 5])
    exemplars = cluster(scores)
    assert len(exemplars.unique()) == 3
    assert (group[exemplars] == group).all()  # each part's exemplar is of its own group
    assert torch.equal(exemplars[exemplars], exemplars)  # an exemplar's exemplar is itself


@pytest.mark.parametrize("own", [False, True])
def test_cluster_asks_for_the_published_preference(own):
    scores, _ = blocks([3, 4, 6, 2], own=14.0, seed=1)
    shifted = scores.numpy().copy()
    counted = [
        shifted[i, k] for i in range(len(shifted)) for k in range(len(shifted)) if own or i != k
    ]
    shifted -= max(counted)
    level = 1.3 * np.median(np.array(counted) - max(counted))
    theirs = AffinityPropagation(
        affinity="precomputed",
        preference=level,
        damping=0.9,
        max_iter=1000,
        convergence_iter=100,
        random_state=3,
    ).fit(shifted)
    ours = cluster(scores, own=own)
    assert ours.tolist() == theirs.cluster_centers_indices_[theirs.labels_].tolist()
    again = cluster(scores * 7, own=own)
    assert torch.equal(again, ours)  # in whatever unit scores are


def test_own_scores_make_clusters_fewer():
    scores, _ = blocks([4, 6, 5], own=200.0)
    assert len(cluster(scores, own=True).unique()) < len(cluster(scores, own=False).unique())


def test_few_and_equal_parts():
    assert cluster(torch.zeros(0, 0)).tolist() == []
    assert cluster(torch.ones(1, 1)).tolist() == [0]
    assert cluster(torch.ones(2, 2)).tolist() == [0, 0]
    assert cluster(torch.full((5, 5), 3.0)).tolist() == [0] * 5


# Scores of 6 parts whose messages oscillate for ever when they start with a damping of 0.5.
ENDLESS = torch.tensor(
    [
        [1.0, 1, 1, 2, 2, 1],
        [1, 1, 2, 0, 2, 0],
        [1, 2, 2, 2, 1, 2],
        [2, 0, 2, 2, 2, 0],
        [2, 2, 1, 2, 2, 1],
        [1, 0, 2, 0, 1, 2],
    ]
)


def test_messages_that_oscillate_get_a_second_run():
    pairs = torch.tensor([[0.0, 2, 1, 1], [2, 0, 1, 1], [1, 1, 0, 2], [1, 1, 2, 0]])
    with pytest.warns(ConvergenceWarning):  # shifted by the maximum, 2; the median is then -1
        affinity_propagation(
            pairs.double().numpy() - 2,
            preference=-1.3,
            damping=0.5,
            max_iter=1000,
            convergence_iter=100,
            random_state=0,
        )
    exemplars = cluster(pairs, own=False, damping=0.5)
    assert exemplars is not None and torch.equal(exemplars[exemplars], exemplars)
    assert cluster(ENDLESS, own=False, damping=0.5) is None
    assert cluster(ENDLESS, own=False) is not None


# --- SSIM ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), h=st.integers(7, 20), w=st.integers(7, 20))
def test_ssim_is_that_of_scikit_image(seed, h, w):
    rng = np.random.default_rng(seed)
    a = rng.random((4, h, w))
    b = a + rng.normal(0, 0.2, a.shape) * np.array([0, 0.1, 1, 5])[:, None, None]
    b = b.clip(0, 1)
    theirs = [structural_similarity(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    ours = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert np.allclose(ours, theirs, atol=1e-12)
    assert ours[0] == 1
    assert torch.equal(ours, ssim(torch.from_numpy(b), torch.from_numpy(a)))


def test_ssim_needs_a_window():
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(torch.zeros(1, 6, 9), torch.zeros(1, 6, 9))


# --- summarise ----------------------------------------------------------------------------------


def literal_summaries(images, labels, similarity, rules):
    """From parts to summaries, part by part, with scikit-image's SSIM. Boxes are 32 x 32 px."""
    part = parts(labels, similarity, rules)
    rows = part.proposal.numpy()
    scores = similarity.scores.toarray()[np.ix_(rows, rows)]
    exemplars = cluster(torch.from_numpy(scores), damping=rules.damping).tolist()
    grey = (images * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1).numpy()
    groups, medians, tables = [], [], []
    for exemplar in sorted(set(exemplars)):
        best = {int(part.image[exemplar]): exemplar}
        for k, its in enumerate(exemplars):
            image = int(part.image[k])
            if its != exemplar or image == int(part.image[exemplar]):
                continue
            if image not in best or scores[k, exemplar] > scores[best[image], exemplar]:
                best[image] = k
        members = [k for k in best.values() if k == exemplar or scores[k, exemplar] > 0]
        members.sort(key=lambda k: -np.inf if k == exemplar else -scores[k, exemplar])
        if len(members) < 2:
            continue
        crops = []
        for k in members[: rules.shown]:
            x0, y0, x1, y1 = part.boxes[k].tolist()
            crops.append(grey[part.image[k], y0:y1, x0:x1])
        table = {
            (i, j): structural_similarity(crops[i], crops[j], data_range=1.0)
            for i, j in combinations(range(len(crops)), 2)
        }
        groups.append(members)
        tables.append(table)
        medians.append(np.median(list(table.values())))
    level = np.median(medians)
    found = []
    for members, table, median in zip(groups, tables, medians, strict=True):
        if median < rules.alike * level:
            continue
        stay = []
        for i, k in enumerate(members):
            mine = [value for pair, value in table.items() if i in pair]
            if not mine or np.mean([value < level for value in mine]) < rules.odd:
                stay.append(k)
        if len(stay) >= 2:
            found.append((stay, median))
    found.sort(key=lambda one: (-len(one[0]), -one[1]))
    return part, found


@pytest.mark.parametrize("seed", range(5))
def test_summaries_are_those_of_the_literal_rules(seed):
    rng = np.random.default_rng(seed)
    n, each, groups = 14, 6, 5
    # pictures in which parts of one group look alike, more or less
    prototypes = functional.interpolate(torch.from_numpy(rng.random((groups, 3, 4, 4))), (32, 32))
    images = torch.from_numpy(rng.random((n, 3, 96, 64))) * 0.2
    places = [[x, y, x + 32, y + 32] for x in (0, 32) for y in (0, 32, 64)]
    kinds = rng.integers(0, groups, (n, each))
    for i in range(n):
        for k, (x0, y0, x1, y1) in zip(kinds[i], places, strict=True):
            noise = rng.normal(0, rng.choice([0.02, 0.3]), (3, 32, 32))
            images[i, :, y0:y1, x0:x1] = prototypes[k] + torch.from_numpy(noise)
    images = images.clamp(0, 1).float()
    masks = torch.zeros(n, 96, 64)
    masks[:3, :32, :32] = 1.0  # a part less in some images
    same = kinds.ravel()[:, None] == kinds.ravel()
    scores = np.where(same, 5.0, 0.0) * rng.random(same.shape) + rng.random(same.shape)
    scores = (scores + scores.T) * (rng.random(same.shape) + 0.2)
    scores = np.maximum(scores, scores.T) * (np.maximum(same, same.T) | (rng.random() < 0.5))
    similar = made(scores, places * n, [each] * n)
    rules = Rules(shown=4)
    ours = summarise(images, masks, similar, rules)
    part, theirs = literal_summaries(images, regions(masks), similar, rules)
    assert ours.tally.summaries == len(ours.summaries) == len(theirs)
    for summary, (rows, median) in zip(ours.summaries, theirs, strict=True):
        assert summary.images.tolist() == part.image[rows].tolist()
        assert summary.boxes.tolist() == part.boxes[rows].tolist()
        assert summary.regions.tolist() == part.region[rows].tolist()
        assert summary.ssim == pytest.approx(median, abs=1e-4)  # their grey is rounded differently
        assert (summary.scores[1:].diff() <= 0).all()
        assert len(summary.images.unique()) == len(summary.images)
    t = ours.tally
    assert t.clusters == t.singletons + t.unlike + t.emptied + t.summaries
    assert t.parts <= t.covered <= t.boxes == n * each


def test_pruning_by_hand():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((6, 3, 32, 96))).float()
    images[:5, :, :, :32] = images[0, :, :, :32]  # five equal parts and an odd one
    images[:2, :, :, 64:] = images[0, :, :, 64:]  # two equal parts; the middle ones are all noise
    kinds = np.array([[0, 1, 2]] * 6)
    scores = np.where(kinds.ravel()[:, None] == kinds.ravel(), 5.0, 0.0)
    third = np.arange(18) % 3 == 2
    late = third & (np.arange(18) >= 6)
    scores[late] = scores[:, late] = 0.0  # the third part of images 2 to 5 matches nothing
    boxes = [[x, 0, x + 32, 32] for x in (0, 32, 64)] * 6
    found = summarise(images, torch.zeros(6, 32, 96), made(scores, boxes, [3] * 6))
    assert found.outcome == "found"
    assert [sorted(s.images.tolist()) for s in found.summaries] == [[0, 1, 2, 3, 4], [0, 1]]
    assert [s.ssim for s in found.summaries] == [1, 1]
    assert (found.tally.odd, found.tally.unlike, found.tally.clusters) == (1, 1, 3)
    assert found.tally.strangers + found.tally.second == 4


@pytest.fixture(scope="module")
def scenes():
    """Pick-ups with known parts; a part is matched with the same part, the better the larger."""
    world = World(seed=2001, size=64, tie=0.5).images(range(200))
    chosen = world[world.labels == world.class_names.index("pick-up")]
    names = [world.part_names.index(name) for name in ("wheel", "window", "headlight", "cab")]
    boxes, descriptors = [], []
    for part_map in chosen.parts:
        rows, kinds = [[0, 0, 64, 64]], [len(names)]
        for kind, name in enumerate(names):
            y, x = (part_map == name).nonzero(as_tuple=True)
            if len(x) > 15:
                middle = x < x.float().mean()  # two wheels: one box each
                for side in (middle, ~middle) if name == names[0] else (x >= 0,):
                    if side.any():
                        px, py = x[side], y[side]
                        rows.append([px.min(), py.min(), px.max() + 1, py.max() + 1])
                        kinds.append(kind)
        boxes.append(torch.tensor(rows))
        descriptors.append(functional.one_hot(torch.tensor(kinds), len(names) + 1).float())
    kept = torch.isin(chosen.parts.long(), torch.tensor(names))
    return chosen, 1 - kept.float(), similarity(boxes, descriptors, dot), names


def test_a_perfect_match_gives_summaries_of_one_true_part(scenes):
    chosen, masks, similar, names = scenes
    found = summarise(chosen.to_float(), masks, similar, Rules(covered=0.5))
    assert found.outcome == "found" and found.message.startswith(f"{len(found.summaries)} summ")
    assert len(found.summaries) >= 2
    for summary in found.summaries:
        tops = set()
        for image, (x0, y0, x1, y1) in zip(summary.images, summary.boxes.tolist(), strict=True):
            inside = chosen.parts[image, y0:y1, x0:x1].flatten().long()
            counts = torch.bincount(inside, minlength=max(names) + 1)[names]
            tops.add(int(counts.argmax()))
        assert len(tops) == 1
        shown = found.region_of(summary)
        for mask, (x0, y0, x1, y1) in zip(shown, summary.boxes.tolist(), strict=True):
            assert mask[y0:y1, x0:x1].float().mean() > 0.5
        assert not (shown & (masks[summary.images] >= 0.5)).any()


def test_summaries_of_some_images_need_no_new_similarity(scenes):
    chosen, masks, similar, _ = scenes
    rows = torch.arange(0, len(chosen), 2)
    direct = summarise(chosen[rows].to_float(), masks[rows], similar[rows], Rules(covered=0.5))
    again = summarise(chosen[rows].to_float(), masks[rows], similar[rows], Rules(covered=0.5))
    assert direct.outcome == "found"
    assert [s.images.tolist() for s in direct.summaries] == [
        s.images.tolist() for s in again.summaries
    ]
    assert direct.tally.images == len(rows)


# --- outcomes -----------------------------------------------------------------------------------


def simple(n=3, scores=None, boxes=((0, 0, 16, 16), (16, 16, 32, 32)), masks=None, rules=None):
    """n images of 32 px with the same boxes, all removed by the mask unless said otherwise."""
    images = torch.from_numpy(np.random.default_rng(0).random((n, 3, 32, 32))).float()
    count = n * len(boxes)
    scores = np.ones((count, count)) if scores is None else scores
    masks = torch.zeros(n, 32, 32) if masks is None else masks
    boxes = torch.tensor([list(box) for box in boxes] * n, dtype=torch.int64).reshape(-1, 4)
    return summarise(images, masks, made(scores, boxes, [count // n] * n), rules)


def outcome(found: Summaries):
    assert (found.outcome == "found") == bool(found.summaries)
    assert found.message and "{" not in found.message
    return found.outcome


def test_outcomes_without_a_summary():
    nothing = Similarity(
        sparse.csr_array((0, 0), dtype=np.float32),
        torch.zeros(0, 4, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
    )
    empty = summarise(torch.zeros(0, 3, 32, 32), torch.zeros(0, 32, 32), nothing)
    assert outcome(empty) == "no image"
    assert outcome(simple(masks=torch.ones(3, 32, 32))) == "no region"
    corner = torch.ones(3, 32, 32)
    corner[:, :4, 20:] = 0  # a region where no box lies
    assert outcome(simple(masks=corner)) == "no part"
    assert outcome(simple(boxes=())) == "no part"  # nothing proposed
    assert outcome(simple(n=1)) == "one image"
    first = torch.ones(3, 32, 32)
    first[0] = 0
    found = simple(masks=first)
    assert outcome(found) == "one image" and found.tally.with_region == 1
    within = np.kron(np.eye(3), np.ones((2, 2)))
    assert outcome(simple(scores=within)) == "no match"
    assert outcome(simple(scores=np.zeros((6, 6)))) == "no match"


def test_outcome_of_endless_messages():
    boxes = [[0, 0, 32, 32]] * 6
    images, masks = torch.rand(6, 3, 32, 32), torch.zeros(6, 32, 32)
    found = summarise(images, masks, made(ENDLESS, boxes, [1] * 6), Rules(own=False, damping=0.5))
    assert outcome(found) == "not converged" and found.tally.parts == 6
    settled = summarise(images, masks, made(ENDLESS, boxes, [1] * 6), Rules(own=False))
    assert settled.outcome != "not converged"  # the usual damping does settle them


def test_outcome_of_singletons():
    scores = np.random.default_rng(0).random((6, 6))
    scores[0, 1] = 3.0
    # a preference of 0, the highest shifted score: joining another is never better, but at most
    # as good, for the two parts of one image
    found = simple(scores=scores + scores.T, rules=Rules(preference=0))
    assert outcome(found) == "none left" and found.tally.singletons == found.tally.clusters >= 5
    assert f"({found.tally.singletons} of one image" in found.message
    # two parts of the same image are no recurrence either, and do not stop the pruning of others
    scores = np.zeros((6, 6))
    scores[0, 1] = scores[1, 0] = scores[2, 4] = scores[4, 2] = 5.0
    found = simple(scores=scores, rules=Rules(preference=0.5))
    assert [sorted(s.images.tolist()) for s in found.summaries] == [[1, 2]]
    assert (found.tally.clusters, found.tally.singletons, found.tally.second) == (4, 3, 1)


def test_outcome_when_every_cluster_is_pruned():
    # Two noisy images: one pair per cluster, so that the median of the two clusters' SSIM lies
    # between them. The better keeps both; asked for more, it goes as well.
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 32, 32))).float()
    boxes = [[0, 0, 16, 16], [16, 16, 32, 32]] * 2
    scores = np.kron(np.ones((2, 2)), np.eye(2)) * 5
    similar, masks = made(scores, boxes, [2, 2]), torch.zeros(2, 32, 32)
    found = summarise(images, masks, similar, Rules(alike=0.0))
    assert outcome(found) == "found"
    assert (found.tally.clusters, found.tally.summaries, found.tally.unlike) == (2, 1, 0)
    assert found.tally.emptied == 1
    found = summarise(images, masks, similar, Rules(alike=99.0))
    assert outcome(found) == "none left" and "2 unlike" in found.message
    found = summarise(images, masks, similar, Rules(alike=0.0, odd=0.0))
    assert outcome(found) == "none left" and "2 emptied" in found.message


def test_one_member_is_no_summary():
    """Three pictures like the first in different ways: only the first has like pairs enough."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((1, 3, 32, 32)) + rng.normal(0, 0.3, (4, 1, 32, 32)))
    images[0] = images[1:].mean(0)  # it is like each of them
    scores = np.full((4, 4), 5.0)
    scores[0] = scores[:, 0] = 9.0
    boxes = [[0, 0, 32, 32]] * 4
    images = images.clamp(0, 1).float()
    found = summarise(images, torch.zeros(4, 32, 32), made(scores, boxes, [1] * 4))
    assert outcome(found) == "none left" and found.tally.emptied == found.tally.clusters == 1


def test_two_identical_images():
    scene = World(seed=2001, size=64, tie=0.5).images([4])
    images = scene.to_float().expand(2, -1, -1, -1).contiguous()
    boxes = torch.tensor([[4, 4, 20, 30], [30, 10, 60, 24], [20, 40, 40, 60]])
    descriptors = torch.tensor([[3.0, 0, 1], [0, 2, 1], [1, 0, 4]])
    similar = similarity([boxes] * 2, [descriptors] * 2, dot)
    found = summarise(images, torch.zeros(2, 64, 64), similar)
    assert outcome(found) == "found"
    for summary in found.summaries:
        assert summary.images.tolist() in ([0, 1], [1, 0])
        assert torch.equal(summary.boxes[0], summary.boxes[1])
        assert summary.ssim == pytest.approx(1)


def test_a_box_on_whole_pixels_is_compared_as_it_is():
    """A part of 32 x 32 px is not resampled: its SSIM is that of the crops."""
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.random((2, 1, 40, 40))).float().expand(-1, 3, -1, -1)
    images = images.contiguous()
    boxes = [[8, 0, 40, 32], [3, 5, 35, 37]]
    found = summarise(images, torch.zeros(2, 40, 40), made(np.ones((2, 2)), boxes, [1, 1]))
    crops = [images[i, 0, y0:y1, x0:x1].numpy() for i, (x0, y0, x1, y1) in enumerate(boxes)]
    expected = structural_similarity(*crops, data_range=1.0)
    assert found.summaries[0].ssim == pytest.approx(expected, abs=1e-3)


def test_summarise_says_what_is_wrong(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    images, masks = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32)
    similar = made(np.ones((2, 2)), [[0, 0, 8, 8]] * 2, [1, 1])
    with pytest.raises(ValueError, match="do not fit"):
        summarise(images, masks[:1], similar)
    with pytest.raises(ValueError, match="do not fit"):
        summarise(images, masks, similar[[0]])
    with pytest.raises(ValueError, match="do not fit"):
        summarise(images, torch.zeros(2, 16, 32), similar)
    with pytest.raises(ValueError, match=r"Rules.damping is 0.3; valid is 0.5 to 0.99"):
        Rules(damping=0.3)


# --- painted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("enlarge", [1, 3])
def test_painted_by_hand(enlarge):
    images = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    images[:, 2] = 200  # blue
    before = images.clone()
    region = torch.zeros(1, 12, 12, dtype=torch.bool)
    region[0, 4:10, 1:8] = True
    shown = painted(images, region, torch.tensor([[5, 5, 9, 9]]), enlarge=enlarge)
    assert shown.shape == (1, 3, 12 * enlarge, 12 * enlarge) and torch.equal(images, before)

    def at(y, x):  # the middle of a pixel
        return shown[0, :, y * enlarge + enlarge // 2, x * enlarge + enlarge // 2].tolist()

    assert at(4, 2) == [0, 0, 200]  # of the region
    rest = round(127.5 + 0.114 * 200 / 2)
    assert at(0, 0) == [rest] * 3
    assert at(6, 6) == [round(0.45 * 230), 0, round(0.55 * 200 + 0.45 * 30)]  # the part
    lines = shown[0].flatten(1).T
    assert (lines == torch.tensor([230, 0, 30])).all(1).sum() == 4 * (4 * enlarge - 1)  # its frame
    edge = enlarge * 4 - 1  # the row just above the region
    assert shown[0, :, edge, 2 * enlarge].tolist() == [0, 0, 0]
    assert shown[0, :, edge, 10 * enlarge].tolist() == [rest] * 3


def test_painted_lines_grow_with_the_picture():
    images = torch.full((1, 3, 224, 224), 100, dtype=torch.uint8)
    region = torch.zeros(1, 224, 224, dtype=torch.bool)
    region[0, 100:150, 100:150] = True
    shown = painted(images, region, torch.tensor([[10, 10, 30, 30]]))
    black = (shown[0] == 0).all(0)
    assert black[97:101, 120].tolist() == [False, True, True, False]
    assert black.sum() == 54**2 - 50**2


def test_painted_says_what_is_wrong():
    images, region = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8).bool()
    with pytest.raises(ValueError, match="reaches out"):
        painted(images, region, torch.tensor([[0, 0, 9, 4]]))
    with pytest.raises(ValueError, match="enlarge=0"):
        painted(images, region, torch.tensor([[0, 0, 4, 4]]), enlarge=0)
