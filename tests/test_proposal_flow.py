"""Proposal flow: rules against literal loops, keypoints that must be found, PF-WILLOW's layout."""

import math
import os

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from jaxtyping import config
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.ndimage import correlate
from torch import nn
from torchvision.ops import box_iou

from helpers import photos
from helpers import proposal_flow as pf
from helpers.scenes.world import World

SEEDS = st.integers(0, 2**32)
SCENES = World(seed=2003, size=64).images(range(12)).images


def boxes_in(rng, n, h, w, least=1):
    """Whole numbers, so that votes lie on the edges of bins and boxes share edges."""
    x0, y0 = rng.integers(0, w - least, n), rng.integers(0, h - least, n)
    x1, y1 = rng.integers(x0 + least, w + 1), rng.integers(y0 + least, h + 1)
    return torch.from_numpy(np.stack((x0, y0, x1, y1), 1))


def a_case(seed, m=None, k=None, h=90, w=120):
    rng = np.random.default_rng(seed)
    m, k = m or int(rng.integers(1, 25)), k or int(rng.integers(1, 25))
    alike = torch.from_numpy(rng.gamma(2, 2, (m, k)).astype(np.float32))
    alike[torch.from_numpy(rng.random((m, k)) < 0.3)] = 0
    boxes_b = boxes_in(rng, k, h, w)
    boxes_b[k // 2 :] = boxes_b[: k - k // 2] + torch.tensor([0, 0, 0, 1])  # near in Hough space
    return alike, boxes_in(rng, m, h, w), boxes_b


def frame(box):
    x0, y0, x1, y1 = box.tolist()
    return (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2


def literal_nam(alike, boxes_a, boxes_b):
    found = alike.double().numpy().copy()
    for i, box in enumerate(boxes_a):
        for j, other in enumerate(boxes_b):
            _, _, a, b = frame(box)
            _, _, c, d = frame(other)
            if not 0.5 < (c / d) / (a / b) < 2:
                found[i, j] = 0
    return found


def literal_phm(alike, boxes_a, boxes_b, size_a, size_b):
    """One match after the other, and a Gaussian of three dimensions."""
    c, (ha, wa), (hb, wb) = literal_nam(alike, boxes_a, boxes_b), size_a, size_b
    step = max(math.sqrt(4 * wb * hb / 8000), 5)
    ends = [(1, 2 * wb, round(2 * wb / step)), (1, 2 * hb, round(2 * hb / step)), (-4, 4, 20)]
    edges = [np.linspace(first, last, n + 1) for first, last, n in ends]
    hough, bins = np.zeros([n for *_, n in ends]), {}
    for i, box in enumerate(boxes_a):
        x, y, a, b = frame(box)
        strongest = {}
        for j, other in enumerate(boxes_b):
            xx, yy, aa, bb = frame(other)
            vote = (aa * ((wa - x) / a) + xx, bb * ((ha - y) / b) + yy, np.log2(aa * bb / (a * b)))
            place = tuple(
                int(np.searchsorted(e, v, "right")) - 1 for e, v in zip(edges, vote, strict=True)
            )
            if c[i, j] > 0 and all(0 <= p < len(e) - 1 for p, e in zip(place, edges, strict=True)):
                bins[i, j] = place
                strongest[place] = max(strongest.get(place, 0), c[i, j])
        for place, value in strongest.items():
            hough[place] += value
    tap = np.exp(-0.5 * (np.arange(-2, 3) / 1.062022) ** 2)
    kernel = tap[:, None, None] * tap[:, None] * tap
    hough = correlate(hough, kernel / kernel.sum(), mode="constant")
    found = np.zeros_like(c)
    for match, place in bins.items():
        found[match] = c[match] * hough[place]
    return found


def literal_lom(alike, boxes_a, boxes_b, overlap=0.0, support=True, in_place=False):
    c = literal_nam(alike, boxes_a, boxes_b)
    a, b = [frame(x) for x in boxes_a], [frame(x) for x in boxes_b]
    found = c if in_place else np.zeros_like(c)
    iou = box_iou(boxes_a.double(), boxes_a.double())
    if not c.any():
        return c

    def offset(i, k):
        (x, y, p, q), (xx, yy, pp, qq) = a[i], b[k]
        return np.array([x - xx, y - yy, p * q / (pp * qq)])

    def near(i, j):
        if overlap:
            return iou[i, j] > overlap
        (p0, q0, p1, q1), (r0, s0, r1, s1) = boxes_a[i].tolist(), boxes_a[j].tolist()
        return p0 <= r1 and r0 <= p1 and q0 <= s1 and s0 <= q1

    for i in range(len(c)):
        around = [j for j in range(len(c)) if near(i, j) and (in_place or c[j].max() > 0)]
        if not around or (not in_place and c[i].max() == 0):
            continue
        moves = np.array([offset(j, c[j].argmax()) for j in around])
        if in_place:
            median = np.ones(3)
            for _ in range(20):
                weight = 1 / (abs(moves - median) + np.finfo(float).eps)
                median = (moves * weight).sum(0) / weight.sum(0)
        else:
            median = np.median(moves, axis=0)
        share = sum(c[j].max() for j in around) / c.max(1).sum() if support else 1
        row = np.zeros(len(b))
        for k in range(len(b)):
            dx, dy, ds = offset(i, k) - median
            row[k] = c[i, k] * math.exp(-0.05 * math.hypot(dx, dy) - 0.3 * abs(ds)) * share
        found[i] = row
    return found


def close(found, expected):
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6 * expected.max())


class TestRules:
    def test_the_gate_is_open_for_less_than_a_factor_of_two(self):
        box = torch.tensor([[0, 0, 10, 10]])
        others = torch.tensor([[0, 0, w, 100] for w in (50, 51, 100, 199, 200)])
        assert pf.gate(box, others).tolist() == [[False, True, True, True, False]]

    def test_likeness_is_never_negative(self):
        a, b = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0, -1.0], [-1.0, 1.0]])
        assert pf.appearance(a, b).tolist() == [[1, 1], [0, 1]]

    @limits(max_examples=25)
    @given(SEEDS)
    def test_every_rule_is_its_literal_loop(self, seed):
        case = a_case(seed)
        close(pf.nam(*case), literal_nam(*case))
        for size_b in ((95, 125), (260, 330)):  # bins of 5 px, and of more
            sizes = ((90, 120), size_b)
            close(pf.phm(*case, *sizes), literal_phm(*case, *sizes))
        close(pf.lom(*case), literal_lom(*case))
        options = {"overlap": 0.2, "support": False}
        close(pf.lom(*case, **options), literal_lom(*case, **options))

    @limits(max_examples=10)
    @given(SEEDS)
    def test_sequential_offset_matching_is_its_literal_loop(self, seed):
        # the steps towards the median are so sensitive that only the same order of sums agrees
        case = a_case(seed, m=12, k=15)
        if (case[0] * pf.gate(*case[1:])).any():
            expected = literal_lom(*case, in_place=True)
            found = pf.lom(*case, sequential=True).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())

    def test_a_case_by_hand(self):
        """Three boxes move by (10, 0); the third looks more like something else, elsewhere."""
        a = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 15, 15]])
        b = torch.cat((a + torch.tensor([10, 0, 10, 0]), torch.tensor([[60, 60, 70, 70]])))
        alike = torch.zeros(3, 4)
        alike[[0, 1, 2], [0, 1, 2]] = torch.tensor([2.0, 2.0, 1.0])
        alike[2, 3] = 1.5
        found = pf.lom(alike, a, b)
        assert pf.nam(alike, a, b)[2].argmax() == 3 and found[2].argmax() == 2
        # all touch, so all three are neighbours: support 1, and the median offset is (-10, 0, 1)
        torch.testing.assert_close(found[0, 0], torch.tensor(2.0))
        expected = 1.5 * math.exp(-0.05 * math.hypot(45, 55))
        torch.testing.assert_close(found[2, 3], torch.tensor(expected))

    @limits(max_examples=15)
    @given(SEEDS)
    def test_the_order_of_boxes_does_not_matter(self, seed):
        alike, a, b = a_case(seed)
        rng = np.random.default_rng(seed)
        # random likenesses: no ties for the best match, except among rows without any
        p, q = (torch.from_numpy(rng.permutation(n)) for n in alike.shape)
        moved = pf.lom(alike[p][:, q], a[p], b[q])
        torch.testing.assert_close(moved, pf.lom(alike, a, b)[p][:, q])
        sizes = ((90, 120), (90, 120))
        moved = pf.phm(alike[p][:, q], a[p], b[q], *sizes)
        torch.testing.assert_close(moved, pf.phm(alike, a, b, *sizes)[p][:, q])

    @limits(max_examples=30)
    @given(SEEDS)
    def test_medians_of_groups(self, seed):
        rng = np.random.default_rng(seed)
        n, groups = rng.integers(1, 15, 2)
        values = torch.from_numpy(rng.integers(-5, 5, (n, 3)) / 2)
        members = torch.from_numpy(rng.random((groups, n)) < 0.5)
        members[torch.arange(groups), torch.from_numpy(rng.integers(0, n, groups))] = True
        expected = [np.median(values[row].numpy(), axis=0) for row in members]
        np.testing.assert_array_equal(pf.medians(values, members).numpy(), expected)

    @pytest.mark.parametrize("m, k", [(0, 3), (3, 0), (0, 0)])
    def test_without_boxes_there_is_no_match(self, m, k):
        box = torch.tensor([[0, 0, 4, 4]])
        a, b, size = box.repeat(m, 1), box.repeat(k, 1), (8, 8)
        for rule in ("nam", "phm", "lom"):
            found = pf.match(a, torch.ones(m, 2), size, b, torch.ones(k, 2), size, rule)
            assert found.shape == (m, k)
        assert pf.flow(found, a, b, torch.ones(2, 2)).isnan().all()

    def test_match_is_appearance_and_a_rule(self):
        rng = np.random.default_rng(0)
        a, b = boxes_in(rng, 9, 40, 50), boxes_in(rng, 7, 60, 30)
        p, q = torch.randn(9, 5), torch.randn(7, 5)
        alike, sizes = pf.appearance(p, q), ((40, 50), (60, 30))
        pair = (a, p, sizes[0], b, q, sizes[1])
        assert pf.match(*pair, "nam").equal(pf.nam(alike, a, b))
        assert pf.match(*pair, "phm").equal(pf.phm(alike, a, b, *sizes))
        assert pf.match(*pair).equal(pf.lom(alike, a, b))
        found = pf.match(*pair, "lom", sequential=True)
        assert found.equal(pf.lom(alike, a, b, sequential=True))
        for rule, options in (("LOM", {}), ("nam", {"overlap": 0.1})):
            with pytest.raises(ValueError, match="no rule .* there are nam, phm and lom"):
                pf.match(*pair, rule, **options)

    def test_bad_input(self, monkeypatch):
        alike, a, b = a_case(1, m=4, k=5)
        with monkeypatch.context() as patch:
            patch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
            with pytest.raises(ValueError, match=r"likeness is \(4, 5\) for 3 and 5 boxes"):
                pf.lom(alike, a[:3], b)
        for wrong in (-1.0, math.nan):
            with pytest.raises(ValueError, match="negative or NaN"):
                pf.phm(alike.index_fill(0, torch.tensor(2), wrong), a, b, (90, 120), (90, 120))
        with pytest.raises(ValueError, match="a box is empty"):
            pf.nam(alike, a, b * 0)

    @pytest.mark.skipif(
        "PROPOSAL_FLOW_REFERENCE" not in os.environ,
        reason="PROPOSAL_FLOW_REFERENCE names no output of the published implementation",
    )
    def test_the_published_implementations_own_output(self):
        known = loadmat(os.environ["PROPOSAL_FLOW_REFERENCE"])
        a, b = (torch.from_numpy(known[name].T.astype(np.int64)) for name in ("bA", "bB"))
        alike = pf.appearance(*(torch.from_numpy(known[name].T).float() for name in "AB"))
        size = int(known["H"].item()), int(known["W"].item())
        for found, name in (
            (pf.nam(alike, a, b), "nam"),
            (pf.phm(alike, a, b, size, size), "phm"),
            (pf.lom(alike, a, b, sequential=True), "lom"),
        ):
            np.testing.assert_allclose(found, known[name], rtol=1e-5, atol=1e-6 * known[name].max())


class TestProposals:
    def test_the_same_boxes_every_time_the_whole_image_first(self):
        image = SCENES[0]
        first = pf.proposals(image, enlarge=2)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(SCENES[1].permute(1, 2, 0).numpy().copy())
        search.switchToSelectiveSearchFast()
        search.process()  # draws from the generator that OpenCV orders its boxes by
        assert pf.proposals(image, enlarge=2).equal(first)
        assert first[0].tolist() == [0, 0, 64, 64] and len(first) > 30
        assert len(first.unique(dim=0)) == len(first)
        assert (first[:, :2] >= 0).all() and (first[:, 2:] <= 64).all()
        assert (first[:, :2] < first[:, 2:]).all()

    def test_few_are_the_first_of_all(self):
        every = pf.proposals(SCENES[0], 5000, quality=True)
        assert len(every) > 20 and pf.proposals(SCENES[0], 20, quality=True).equal(every[:20])

    def test_larger_ones_come_first_more_often(self, monkeypatch):
        """Of boxes of 1 and 16 px, twice as many of the latter are drawn first: (16 / 1)^1/4."""

        class Search:
            setBaseImage = switchToSelectiveSearchFast = lambda *_: None

            def process(self):
                small = [[x, y, 1, 1] for x in range(60) for y in range(0, 40)]
                large = [[x, y, 4, 4] for x in range(60) for y in range(0, 40)]
                return np.array(small + large, np.int32)

        monkeypatch.setattr(cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", Search)
        first = pf.proposals(SCENES[0], 301)[1:]
        large = int(((first[:, 2] - first[:, 0]) == 4).sum())
        assert abs(large - 200) < 25  # three standard deviations

    def test_more_are_found_in_an_enlarged_image(self):
        counts = [len(pf.proposals(SCENES[0], 5000, enlarge=n)) for n in (1, 2, 3)]
        assert counts[0] < counts[1] < counts[2]

    def test_a_plain_image_has_only_itself(self):
        plain = torch.full((3, 20, 30), 90, dtype=torch.uint8)
        assert pf.proposals(plain).tolist() == [[0, 0, 30, 20]]
        assert pf.proposals(SCENES[0], 1).tolist() == [[0, 0, 64, 64]]

    @pytest.mark.parametrize("wrong", [{"count": 0}, {"enlarge": 0}])
    def test_nonsense(self, wrong):
        with pytest.raises(ValueError, match="at least 1"):
            pf.proposals(SCENES[0], **wrong)


def cells(descriptor):
    return descriptor.view(8, 8, 31)  # column, row


class TestDescriptors:
    def test_an_edge_is_where_it_is_and_points_where_it_points(self):
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        image[:, :, 36:] = 200  # in the middle of the fifth column of cells, brighter to the right
        whole = torch.tensor([[0, 0, 64, 64]])
        for picture, column in ((image, 4), (image.flip(2), 3)):
            own = cells(pf.describe(picture, whole)[0])
            strength = own[..., :18].sum(-1)
            assert (strength.argmax(0) == column).all()
            assert (strength[[c for c in range(8) if abs(c - column) > 1]] == 0).all()
        left, right = (cells(pf.describe(p, whole)[0]) for p in (image.flip(2), image))
        # opposite directions are different signed ones and the same unsigned one
        assert (left[3, :, :18] * right[4, :, :18]).sum() < 1e-6
        torch.testing.assert_close(left[3, :, 18:27].sum(), right[4, :, 18:27].sum())
        high = cells(pf.describe(image.transpose(1, 2), whole)[0])
        assert (high[..., :18].sum(-1).argmax(1) == 4).all()  # turned: a row of cells

    def test_an_eighth_around_the_box_is_seen_too(self):
        """64 px and 8 px around: nothing to scale, so it is OpenCV's HOG of that window."""
        rng = np.random.default_rng(4)
        image = torch.from_numpy(rng.integers(0, 255, (3, 120, 150), np.uint8))
        sizes = ((80, 80), (16, 16), (8, 8), (8, 8))
        hog = cv2.HOGDescriptor(*sizes, 18, 1, -1, 0, 0.2, False, 64, True)
        for x, y in ((30, 20), (0, 0)):  # within, and at the border, where pixels are repeated
            padded = np.pad(image.permute(1, 2, 0).numpy(), ((8, 8), (8, 8), (0, 0)), "edge")
            window = padded[y : y + 80, x : x + 80].copy()
            expected = pf._per_cell(torch.from_numpy(hog.compute(window))[None])
            found = pf.describe(image, torch.tensor([[x, y, x + 64, y + 64]]))
            torch.testing.assert_close(found, expected)

    def test_a_cell_is_normalised_within_its_four_blocks(self):
        rng = np.random.default_rng(0)
        raw = torch.from_numpy(rng.random((2, 9, 9, 2, 2, 18)).astype(np.float32))
        found = pf._per_cell(raw.flatten(1)).view(2, 8, 8, 31)
        for across, down in ((0, 0), (3, 5), (7, 7)):
            # cell 4, say, is the second of block 3 (cells 3 and 4) and the first of block 4
            four = [raw[1, across + i, down + j, 1 - i, 1 - j] for i in (0, 1) for j in (0, 1)]
            own = found[1, across, down]
            torch.testing.assert_close(own[:18], sum(four) / 2)
            unsigned = sum((f[:9] + f[9:]).clamp(max=0.2) for f in four) / 2
            torch.testing.assert_close(own[18:27], unsigned)
            torch.testing.assert_close(own[27:], 0.2357 * torch.stack([f.sum() for f in four]))

    def test_what_is_in_the_box_counts_wherever_it_is(self):
        rng = np.random.default_rng(1)
        patch = torch.from_numpy(rng.integers(0, 255, (3, 32, 48), np.uint8))
        image = torch.zeros(3, 200, 300, dtype=torch.uint8)
        image[:, 20:52, 30:78] = patch
        image[:, 120:152, 200:248] = patch
        places = torch.tensor([[30, 20, 78, 52], [200, 120, 248, 152], [100, 60, 148, 92]])
        one, same, none = pf.describe(image, places)
        assert one.equal(same) and not one.equal(none)
        assert pf.describe(image, places[:0]).shape == (0, 1984)
        torch.testing.assert_close(pf.describe(image, places[1:2])[0], same)

    def test_small_boxes_and_the_border(self):
        found = pf.describe(
            SCENES[0], torch.tensor([[0, 0, 1, 1], [63, 63, 64, 64], [0, 5, 64, 6]])
        )
        assert found.isfinite().all()

    @pytest.mark.parametrize("box", [[0, 0, 65, 10], [-1, 0, 5, 5], [5, 5, 5, 9], [9, 5, 5, 9]])
    def test_a_box_outside(self, box):
        with pytest.raises(ValueError, match=r"is not x0, y0, x1, y1 in an image of 64 x 64 px"):
            pf.describe(SCENES[0], torch.tensor([[0, 0, 4, 4], box]))
        with pytest.raises(ValueError, match="is not x0, y0, x1, y1"):
            pf.roi_features(torch.zeros(2, 4, 4), torch.tensor([box]), (64, 64))

    def test_whitening_by_the_definition(self):
        """The covariance of two cells is that of all pairs of cells equally far apart."""
        images = torch.from_numpy(
            np.random.default_rng(0).integers(0, 255, (3, 3, 40, 40), np.uint8)
        )
        white = pf.whitening(images, boxes=8, ridge=1.0, seed=3)
        rng, rows = np.random.default_rng(3), []
        for image in images:
            places = pf._anywhere(rng, 40, 40, 8)
            rows.append(pf.describe(image, places))
            turned = [[40 - x1, y0, 40 - x0, y1] for x0, y0, x1, y1 in places.tolist()]
            rows.append(pf.describe(image.flip(2), torch.tensor(turned)))
        h = torch.cat(rows).view(-1, 8, 8, 31)
        mean = h.mean((0, 1, 2))
        torch.testing.assert_close(white.mean.view(64, 31), mean.expand(64, 31))
        h = h - mean
        sigma = torch.zeros(8, 8, 31, 8, 8, 31)
        for dx in range(-7, 8):
            for dy in range(-7, 8):
                pairs = [
                    (x, y, x + dx, y + dy)
                    for x in range(max(0, -dx), min(8, 8 - dx))
                    for y in range(max(0, -dy), min(8, 8 - dy))
                ]
                p, q, r, s = torch.tensor(pairs).T
                mean_of_all = torch.einsum("nka,nkb->ab", h[:, p, q], h[:, r, s])
                for x, y, xx, yy in pairs:
                    sigma[x, y, :, xx, yy] = mean_of_all / (len(h) * len(pairs))
        sigma = sigma.view(1984, 1984) + torch.eye(1984)
        some = torch.arange(0, 1984, 97)
        identity = white.root.T @ (sigma @ white.root[:, some])
        torch.testing.assert_close(identity, torch.eye(1984)[:, some], atol=1e-4, rtol=0)
        plain, found = (pf.describe(images[0], places, w) for w in (None, white))
        torch.testing.assert_close(found, (plain - white.mean) @ white.root)

    def test_too_little_to_whiten_by(self):
        with pytest.raises(ValueError, match="there are none"):
            pf.whitening([])
        with pytest.raises(ValueError, match="too few or too plain .* larger ridge"):
            pf.whitening(SCENES[:1], boxes=3, ridge=-0.5)

    def test_random_boxes(self):
        for h, w in ((5, 9), (16, 16), (64, 200)):
            found = pf._anywhere(np.random.default_rng(0), h, w, 200)
            pf._inside(found, h, w)
            sides = found[:, 2:] - found[:, :2]
            assert sides.min() >= min(16, h, w)

    def test_a_layers_maps_are_read_where_the_box_is(self):
        ramp = torch.stack(torch.meshgrid(torch.arange(10.0), torch.arange(20.0), indexing="ij"))
        places = torch.tensor([[20, 20, 60, 60], [100, 40, 180, 80]])
        found = pf.roi_features(ramp, places, (100, 200), side=2).view(2, 2, 2, 2)
        # 10 px a position: position i covers 10 i to 10 i + 10 and has its value in the middle
        torch.testing.assert_close(found[0, 0], torch.tensor([[2.5, 2.5], [4.5, 4.5]]))
        torch.testing.assert_close(found[0, 1], torch.tensor([[2.5, 4.5], [2.5, 4.5]]))
        torch.testing.assert_close(found[1, 1], torch.tensor([[11.5, 15.5], [11.5, 15.5]]))

    def test_centred(self):
        x = torch.randn(6, 4) + 3
        found = pf.centred(x)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
        torch.testing.assert_close(found, nn.functional.normalize(x - x.mean(0)))
        torch.testing.assert_close(pf.centred(x, torch.zeros(4)), nn.functional.normalize(x))


class TestKeypoints:
    def test_the_most_confident_box_that_holds_a_point_moves_it(self):
        a = torch.tensor([[0, 0, 10, 10], [4, 4, 8, 8], [20, 20, 30, 30]])
        b = torch.tensor([[100, 100, 120, 140], [0, 0, 4, 4]])
        confidence = torch.tensor([[1.0, 0.5], [0.2, 3.0], [0.0, 0.0]])
        points = torch.tensor([[5.0, 5.0], [2.0, 5.0], [8.0, 4.0], [25.0, 25.0], [50.0, 0.0]])
        found = pf.flow(confidence, a, b, points)
        expected = torch.tensor([[1.0, 1.0], [104.0, 120.0], [116.0, 116.0]])
        torch.testing.assert_close(found[:3], expected)
        assert found[3:].isnan().all()  # a box without a match, and no box

    def test_many_points_at_once_are_each_alone(self):
        alike, a, b = a_case(3, m=15, k=15)
        points = torch.rand(9000, 2) * torch.tensor([120.0, 90.0])
        found, rows = pf.flow(alike, a, b, points), [0, 4095, 4096, 8999]
        alone = torch.cat([pf.flow(alike, a, b, points[r : r + 1]) for r in rows])
        torch.testing.assert_close(found[rows], alone, equal_nan=True)

    def test_pck(self):
        true = torch.tensor([[0.0, 0.0], [100.0, 50.0], [20.0, 20.0], [30.0, 30.0]])
        away = torch.tensor([[5.0, 0.0], [0.0, 10.0], [9.0, 12.0], [math.nan, 0.0]])
        assert pf.pck(true + away, true).tolist() == [0.25, 0.5, 0.75]
        with pytest.raises(ValueError, match="no keypoints"):
            pf.pck(true[:0], true[:0])

    def test_an_image_that_is_moved_is_found_again(self):
        """A scene and the same scene on a larger canvas: every rule must find its points."""
        scene = SCENES[2]
        canvas = torch.full((3, 80, 90), 128, dtype=torch.uint8)
        canvas[:, 10:74, 20:84] = scene
        grid = torch.cartesian_prod(torch.arange(8.0, 60, 10), torch.arange(8.0, 60, 10))
        pictures = {"moved": [(scene, grid), (canvas, grid + torch.tensor([20.0, 10.0]))]}
        rules = {"nam": {"rule": "nam"}, "phm": {"rule": "phm"}, "lom": {}}
        rules |= {"in turn": {"sequential": True}}

        def propose(image):
            found = pf.proposals(image, 60)
            if image.shape == scene.shape:
                return torch.cat((found, inner))
            return torch.cat((found, inner + torch.tensor([20, 10, 20, 10])))

        inner = pf.proposals(scene, 60)[1:]
        found = pf.benchmark(
            pictures, lambda i, b: pf.centred(pf.describe(i, b)), rules, propose=propose
        )
        assert list(found) == list(rules)
        for name, shares in found.items():
            assert shares.shape == (1, 3)
            assert shares[0, 1] > 0.7, name
        with pytest.raises(ValueError, match="'one' has no pair"):
            pf.benchmark({"one": pictures["moved"][:1]}, pf.describe, rules)


class TestReader:
    def a_set(self, root, name="car(G)", pictures=2, **wrong):
        place = root / name
        place.mkdir(parents=True)
        for number in range(pictures):
            Image.new("RGB", (40 + number, 30), (number, 0, 0)).save(place / f"{number}.png")
            points = np.arange(20.0).reshape(2, 10) + number
            savemat(place / f"{number}.mat", {"pts_coord": points} | wrong)
        return place

    def test_sets_of_pictures_and_their_keypoints(self, tmp_path):
        self.a_set(tmp_path)
        self.a_set(tmp_path, "duck(S)", 3)
        sets = photos.pf_willow(tmp_path)
        assert {name: len(pictures) for name, pictures in sets.items()} == {
            "car(G)": 2,
            "duck(S)": 3,
        }
        image, points = sets["duck(S)"][2]
        assert image.shape == (3, 30, 42) and image[:, 5, 5].tolist() == [2, 0, 0]
        assert points.shape == (10, 2) and points[3].tolist() == [5, 15]
        limited = photos.pf_willow(tmp_path, limit=2)
        assert [len(pictures) for pictures in limited.values()] == [1, 1]

    @pytest.mark.parametrize("value", [np.ones((1, 10)), np.full((2, 10), np.nan), "text"])
    def test_keypoints_that_are_none(self, tmp_path, value):
        self.a_set(tmp_path, pts_coord=value)
        with pytest.raises(ValueError, match=r"car\(G\)/0.png"):
            photos.pf_willow(tmp_path)

    def test_what_is_missing_or_damaged_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder"):
            photos.pf_willow(tmp_path / "absent")
        with pytest.raises(ValueError, match="holds no sets"):
            photos.pf_willow(tmp_path)
        place = self.a_set(tmp_path)
        savemat(place / "1.mat", {"pts_coord": np.ones((2, 9))})
        with pytest.raises(ValueError, match=r"1.png .* 9 keypoints, others of its set 10"):
            photos.pf_willow(tmp_path)
        (place / "1.mat").write_bytes(b"no matrix at all, no, none, none whatsoever")
        with pytest.raises(ValueError, match=r"1.png .* damaged"):
            photos.pf_willow(tmp_path)
        (place / "1.mat").unlink()
        with pytest.raises(ValueError, match=r"1.png .* no such file"):
            photos.pf_willow(tmp_path)
        (place / "0.png").write_bytes(b"")
        with pytest.raises(ValueError, match=r"0.png .* empty file"):
            photos.pf_willow(tmp_path)
