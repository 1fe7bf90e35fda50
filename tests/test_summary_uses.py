"""What summaries are good for: tags, specialists, erased parts, shared parts, counts."""

import itertools
import math
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn.preprocessing
import sklearn.svm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from helpers import summary_uses as uses
from helpers.claims import published


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*index):
    return torch.tensor(index, dtype=torch.int64)


def fs(*tags):
    return frozenset(tags)


tag_sets = st.lists(st.frozensets(st.sampled_from("abcdefg"), max_size=5), min_size=2, max_size=9)


# Tags.


def test_jaccard_by_hand():
    assert uses.jaccard({"head", "wing"}, {"head", "leg"}) == pytest.approx(1 / 3)
    assert uses.jaccard({"head"}, {"leg"}) == 0
    assert uses.jaccard(set(), {"leg"}) == 0
    assert uses.jaccard({"a", "b"}, {"b", "a"}) == uses.jaccard(set(), set()) == 1


@given(tag_sets)
def test_the_matrix_is_jaccard_of_each_pair(sets):
    expected = [[uses.jaccard(a, b) for b in sets] for a in sets]
    assert torch.allclose(uses.jaccard_matrix(sets), torch.tensor(expected, dtype=torch.float64))


@given(tag_sets)
def test_disagreement_is_the_mean_over_pairs(sets):
    pairs = [1 - uses.jaccard(a, b) for a, b in itertools.combinations(sets, 2)]
    assert uses.disagreement(sets) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_disagreement_by_hand():
    # distances: 2/3, 1, 1/2
    assert uses.disagreement([{"a", "b"}, {"b", "c"}, {"a"}]) == pytest.approx(
        (2 / 3 + 1 + 0.5) / 3
    )
    with pytest.raises(ValueError, match="at least two sets"):
        uses.disagreement([{"a"}])


def test_coherent_summaries_are_closer_than_chance():
    sets = [fs("head", "eye")] * 6 + [fs("wheel")] * 6
    result = uses.against_random([torch.arange(6), torch.arange(6, 12)], sets, seeded())
    assert result.mu_s == 0
    # all 66 pairs, of which 36 differ entirely; the mean of a draw is that mean
    assert result.mu_r == pytest.approx(36 / 66, abs=0.01)
    # 2 of the 924 ways to split 12 images into two sixes are as close
    assert 1 / 1001 <= result.as_close < 0.008


def test_random_summaries_are_as_close_as_chance():
    sets = [fs(*np.random.default_rng(i).choice(list("abcdefgh"), 3, False)) for i in range(30)]
    order = torch.randperm(30, generator=seeded(3))
    mu_s, mu_r, as_close = uses.against_random(list(order.split(6)), sets, seeded())
    assert mu_r == pytest.approx(uses.disagreement(sets), abs=0.005)
    assert abs(mu_s - mu_r) < 0.05 and 0.05 < as_close < 0.95


def test_draws_have_the_members_number_and_no_image_twice():
    # two images only: every draw of two is all of them, so every draw is the observed distance
    result = uses.against_random([rows(0, 1)], [fs("a"), fs("a", "b")], seeded(), draws=50)
    assert result == (pytest.approx(0.5), pytest.approx(0.5), 1)
    # sizes 2 and 3 of 4 images, a literal reference
    sets = [fs("a"), fs("a", "b"), fs("c"), fs("b", "c", "d")]
    members = [rows(0, 1), rows(1, 2, 3)]
    result = uses.against_random(members, sets, seeded(), draws=20_000)
    within = [uses.disagreement([sets[i] for i in m]) for m in members]
    assert result.mu_s == pytest.approx(sum(within) / 2)
    both = []
    for order in itertools.permutations(sets):
        drawn = [uses.disagreement([order[i] for i in m]) for m in members]
        both.append(sum(drawn) / 2)
    assert result.mu_r == pytest.approx(np.mean(both), abs=0.005)
    share = np.mean([x <= result.mu_s + 1e-9 for x in both])
    assert result.as_close == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("members", "draws", "problem"),
    [
        ([], 10, "0 summaries"),
        ([rows(0, 1)], 0, "0 draws"),
        ([rows(0, 1), rows(2)], 10, "summary 1 has 1 members and no pair"),
        ([rows(0, 0)], 10, "different rows within 0 to 2"),
        ([rows(0, 3)], 10, "different rows within 0 to 2"),
    ],
)
def test_what_has_no_distance_is_refused(members, draws, problem):
    with pytest.raises(ValueError, match=problem):
        uses.against_random(members, [fs("a")] * 3, seeded(), draws)


class FakeWordNet:
    """Meanings of words, the most frequent first."""

    meanings = {
        "car": ["car.1"],
        "auto": ["car.1"],
        "machine": ["machine.1", "car.1"],
        "side_window": ["window.2"],
        "pane": ["window.2"],
        "device": ["machine.1", "device.1"],
    }

    def synsets(self, word, pos):
        assert pos == "n"
        return [SimpleNamespace(name=lambda m=m: m) for m in self.meanings.get(word, [])]


def test_synonyms_share_their_most_frequent_meaning():
    tags = ["car", "auto", "auto", "machine", "side window", "pane", "zzz"]
    names, how = uses.merged(tags, corpus=FakeWordNet())
    assert names == {
        "car": "auto",  # the more frequent
        "auto": "auto",
        "machine": "machine",
        "side window": "pane",  # the first in the alphabet
        "pane": "pane",
        "zzz": "zzz",
    }
    assert how == "6 tags are 4 after merging by WordNet"
    assert uses.renamed([{"car", "zzz"}, {"new"}], names) == [{"auto", "zzz"}, {"new"}]


def test_all_meanings_merge_more_and_through_others():
    names, _ = uses.merged(["car", "machine", "device"], senses=None, corpus=FakeWordNet())
    assert set(names.values()) == {"car"}  # device and car only through machine
    names, _ = uses.merged(["car", "machine", "device"], senses=1, corpus=FakeWordNet())
    assert names == {"car": "car", "machine": "device", "device": "device"}
    with pytest.raises(ValueError, match="at least 1 synset"):
        uses.merged(["car"], senses=0)


def test_a_tag_named_like_a_meaning_is_still_a_tag():
    names, _ = uses.merged(["car", "car.1"], corpus=FakeWordNet())
    assert names == {"car": "car", "car.1": "car.1"}


def test_nothing_is_merged_without_wordnet(monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    absent = nltk.corpus.util.LazyCorpusLoader("wordnet", nltk.corpus.WordNetCorpusReader, None)
    monkeypatch.setattr(nltk.corpus, "wordnet", absent)
    names, why = uses.merged(["car", "auto"])
    assert names == {"car": "car", "auto": "auto"}
    assert why.startswith("not merged") and "python -m nltk.downloader wordnet" in why


def test_nothing_is_merged_without_nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)  # an import then fails
    names, why = uses.merged(["car"])
    assert names == {"car": "car"} and why.startswith("not merged") and "pip install nltk" in why


def test_nltks_corpus_is_used_where_it_is(monkeypatch):
    import nltk

    class Loaded(FakeWordNet):
        def ensure_loaded(self):
            pass

    monkeypatch.setattr(nltk.corpus, "wordnet", Loaded())
    assert uses.merged(["auto", "car"])[0] == {"auto": "auto", "car": "auto"}


def test_most_used():
    assert uses.most_used([{"head", "beak"}, {"beak"}, {"eye", "head", "beak"}]) == "beak"
    assert uses.most_used([{"b", "a"}]) == "a"
    assert uses.most_used([set(), set()]) is None and uses.most_used([]) is None


def test_in_boxes_is_the_region_within_the_box():
    regions = torch.ones(2, 4, 5, dtype=torch.bool)
    regions[1, 0] = False
    shown = uses.in_boxes(regions, torch.tensor([[1, 0, 3, 2], [0, 0, 5, 2]]))
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected[0, 0:2, 1:3] = True
    expected[1, 1, 0:5] = True
    assert torch.equal(shown, expected)


def test_part_tags_are_the_largest_visible_parts():
    names = ("background", "head", "leg", "tail")
    parts = torch.zeros(2, 3, 4, dtype=torch.uint8)
    parts[0, 0] = 2
    parts[0, 1, :2] = 1
    parts[0, 2, 0] = 3
    assert uses.part_tags(parts, names) == [{"head", "leg", "tail"}, set()]
    assert uses.part_tags(parts, names, k=2) == [{"leg", "head"}, set()]
    where = torch.zeros(2, 3, 4, dtype=torch.bool)
    where[:, 1:] = True  # the legs are not seen
    assert uses.part_tags(parts, names, where) == [{"head", "tail"}, set()]
    with pytest.raises(ValueError, match="part 2 has no name; there are 2"):
        uses.part_tags(parts.clamp(max=2), names[:2])
    with pytest.raises(ValueError, match="at least 1 tag"):
        uses.part_tags(parts, names, k=0)


def test_eight_tags_at_most():
    names = ["background", *"abcdefghij"]
    parts = torch.arange(11, dtype=torch.uint8)[None, None].expand(1, 2, 11)
    (tags,) = uses.part_tags(parts, names)
    assert tags == set("abcdefgh")


def test_classifier_tags_are_the_best_classes():
    logits = torch.tensor([[0.0, 3.0, 1.0, -1.0], [5.0, 4.0, 3.0, 2.0]])
    assert uses.classifier_tags(logits, "abcd", k=2) == [{"b", "c"}, {"a", "b"}]
    assert uses.classifier_tags(logits, "abcd") == [set("abcd")] * 2
    with pytest.raises(ValueError, match="3 names for 4 classes"):
        uses.classifier_tags(logits, "abc")


def test_table_1_counts_the_summaries_of_table_3():
    result = uses.audit(published("paper2_table1_tags"), published("paper2_table3_summaries"))
    counts = dict(zip(result.classes["class"], result.classes["summaries"], strict=True))
    assert counts["Pick-up"] == 6  # as figure 5 shows
    assert result.total == sum(counts.values()) and len(counts) == 18
    assert result.mean == pytest.approx(result.total / 18)
    assert result.stated == 5 and round(result.mean) == 5
    with pytest.raises(ValueError, match="no 'VGG'; it has AlexNet"):
        uses.audit(*map(published, ("paper2_table1_tags", "paper2_table3_summaries")), "VGG")


def test_audit_by_hand():
    tags = pd.DataFrame(
        {"class": ["a", "b"], "pair": [1, 1], "mu_u": [0.1, 0.2], "tags": ["x; y z; w", "x"]}
    )
    result = uses.audit(tags, pd.DataFrame({"model": ["m"], "summaries": [2.5]}), "m")
    assert result.classes.summaries.tolist() == [3, 1]
    assert (result.total, result.mean, result.stated) == (4, 2.0, 2.5)


# Specialised classifiers.


def blobs(per=20, d=6, seed=0):
    """Two classes of two blobs each: features, labels and summaries."""
    centres = 4 * torch.eye(4, d)
    which = torch.arange(4).repeat_interleave(per)
    features = centres[which] + torch.randn(4 * per, d, generator=seeded(seed))
    summaries = {
        k: [(which == 2 * k).nonzero()[:, 0], (which == 2 * k + 1).nonzero()[:, 0]] for k in (0, 1)
    }
    return features, which // 2, summaries, which


def test_each_svm_knows_its_summary():
    features, labels, summaries, which = blobs()
    found = uses.specialise(features, labels, summaries)
    assert found.classes.tolist() == [0, 0, 1, 1] and found.numbers.tolist() == [0, 1, 0, 1]
    assert found.converged.all()
    fresh, _, _, of = blobs(seed=1)
    margins = fresh @ found.weights.T + found.bias
    assert (margins.argmax(1) == of).float().mean() > 0.95
    scores, best = uses.svm_scores(found, fresh, 3)
    assert torch.equal(best[:, 2], torch.full((80,), -1)) and (scores[:, 2] == 0).all()
    assert torch.allclose(scores.sum(1), torch.ones(80))
    # literal: highest margin of each class, then the softmax of the two
    for i in range(0, 80, 7):
        m = margins[i].tolist()
        top = [max(m[0], m[1]), max(m[2], m[3])]
        total = sum(map(math.exp, top))
        assert scores[i, :2].tolist() == pytest.approx([math.exp(t) / total for t in top], abs=1e-5)
        assert best[i, :2].tolist() == [m[:2].index(top[0]), 2 + m[2:].index(top[1])]


def test_positives_and_negatives_are_the_papers(monkeypatch):
    seen = []

    class Spy:
        def __init__(self, **settings):
            assert settings["class_weight"] == "balanced"

        def fit(self, values, positive):
            seen.append((values[:, 0].tolist(), positive.numpy().tolist()))
            self.coef_, self.intercept_, self.n_iter_ = np.zeros((1, 1)), np.zeros(1), 1

    class NoScale:
        scale_, mean_ = np.ones(1), np.zeros(1)

        def fit_transform(self, values):
            return values

    monkeypatch.setattr(sklearn.svm, "LinearSVC", Spy)
    monkeypatch.setattr(sklearn.preprocessing, "StandardScaler", NoScale)
    features = torch.arange(7.0)[:, None]
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    # image 2 is in both summaries of class 0, image 3 in none; class 2 has no summary
    uses.specialise(features, labels, {0: [rows(0, 2), rows(1, 2)], 1: [rows(4, 5)]})
    assert seen == [
        ([0, 1, 2, 4, 5, 6], [True, False, True, False, False, False]),
        ([0, 1, 2, 4, 5, 6], [False, True, True, False, False, False]),
        ([0, 1, 2, 3, 4, 5, 6], [False] * 4 + [True, True, False]),
    ]


def test_weights_are_of_the_features_as_they_are():
    features, labels, summaries, _ = blobs()
    found = uses.specialise(features, labels, summaries)
    moved = uses.specialise(1000 * features + 5, labels, summaries)
    a = features @ found.weights.T + found.bias
    b = (1000 * features + 5) @ moved.weights.T + moved.bias
    assert torch.allclose(a, b, atol=1e-2)


def test_the_same_svms_every_time_and_too_few_iterations_are_told():
    features, labels, summaries, _ = blobs()
    one, two = (uses.specialise(features, labels, summaries) for _ in range(2))
    assert torch.equal(one.weights, two.weights) and torch.equal(one.bias, two.bias)
    hasty = uses.specialise(features, labels, summaries, c=1e6, iterations=1)
    assert not hasty.converged.any()


@pytest.mark.parametrize(
    ("summaries", "problem"),
    [
        ({}, "no summaries"),
        ({0: []}, "no summaries"),
        ({0: [rows()]}, "summary 0 of class 0 has no members"),
        ({0: [rows(0), rows(79)]}, "summary 1 of class 0 has a member that is no image"),
        ({0: [rows(80)]}, "a member that is no image"),
    ],
)
def test_summaries_that_fit_no_images_are_refused(summaries, problem):
    features, labels, *_ = blobs()
    with pytest.raises(ValueError, match=problem):
        uses.specialise(features, labels, summaries)


def test_features_that_teach_nothing_are_refused():
    features, labels, summaries, _ = blobs()
    with pytest.raises(ValueError, match="features must be finite"):
        uses.specialise(features * math.nan, labels, summaries)
    with pytest.raises(ValueError, match="no negative examples"):
        uses.specialise(features, torch.zeros_like(labels), {0: [torch.arange(80)]})
    found = uses.specialise(features, labels, summaries)
    with pytest.raises(ValueError, match="a summary is of class 1; there are 1 classes"):
        uses.svm_scores(found, features, 1)


def test_mixing_is_convex():
    p, q = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.0, 1.0]])
    assert torch.equal(uses.mixed(p, q, 0.0), p) and torch.equal(uses.mixed(p, q, 1.0), q)
    assert uses.mixed(p, q, 0.25)[0].tolist() == pytest.approx([0.6, 0.4])
    for weight in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"weight in \[0, 1\]"):
            uses.mixed(p, q, weight)


def test_the_weight_is_the_smallest_of_the_best():
    p = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # the second image turns right above 1/6; the third turns wrong above 4/9
    assert uses.choose_weight(p, q, torch.tensor([0, 1, 1]), steps=10) == 0.2
    assert uses.choose_weight(p, q, torch.tensor([0, 0, 1])) == 0  # nothing to gain
    sure = torch.tensor([[1.0, 0.0]])  # only the SVMs alone are right
    assert uses.choose_weight(sure, sure.flip(1), rows(1), steps=2) == 1
    for labels, steps in ((rows(), 10), (rows(0, 1, 1), 0)):
        with pytest.raises(ValueError, match="at least 1 of each"):
            uses.choose_weight(p[: len(labels)], q[: len(labels)], labels, steps)


@given(st.integers(0, 1000))
def test_a_chosen_weight_never_loses_on_its_images(seed):
    p, q = torch.rand(2, 12, 3, generator=seeded(seed)).softmax(2)
    labels = torch.randint(3, (12,), generator=seeded(seed))
    weight = uses.choose_weight(p, q, labels, steps=20)
    before, after = uses.specialised(p, q, torch.zeros_like(q).long(), labels, weight).accuracy
    assert after >= before and (weight == 0 or after > before)


def test_who_corrected_what():
    p = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1]])
    q = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    which = torch.tensor([[0, 5], [1, 6], [2, 7], [3, 8]])
    result = uses.specialised(p, q, which, torch.tensor([1, 0, 1, 1]), 0.5)
    assert result.before.tolist() == [False, True, True, False]
    assert result.chosen.tolist() == [1, 0, 0, 0]
    assert result.corrected.tolist() == [0] and result.spoiled.tolist() == [2]
    assert result.responsible.tolist() == [5, -1, 2, -1]
    assert result.accuracy == (0.5, 0.5)


# Without its parts.


def test_erasing_takes_the_fill_where_it_says():
    images, fill = torch.rand(2, 2, 3, 4, 4, generator=seeded())
    where = torch.rand(2, 4, 4, generator=seeded(1)) > 0.5
    expected = torch.where(where[:, None], fill, images)
    assert torch.equal(uses.erased(images, where, fill), expected)
    half = uses.erased(images, torch.full((2, 4, 4), 0.5), fill)
    assert torch.allclose(half, (images + fill) / 2)


def mask_at(size, *boxes):
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_elsewhere_is_the_same_shape_at_every_free_place():
    masks = mask_at((6, 9), *[(1, 2, 4, 4)] * 1500)
    masks[:, 2, 1] = False  # an L, so that its shape can be recognised
    areas, room = uses.elsewhere(masks, seeded())
    assert room.all() and not (areas & masks).any()
    # literal: every place inside the image that misses the old one
    shape = masks[0, 2:4, 1:4]
    places = set()
    for y in range(5):
        for x in range(7):
            moved = torch.zeros(6, 9, dtype=torch.bool)
            moved[y : y + 2, x : x + 3] = shape
            if not (moved & masks[0]).any():
                places.add(tuple(moved.flatten().tolist()))
    counts = {}
    for area in areas:
        key = tuple(area.flatten().tolist())
        counts[key] = counts.get(key, 0) + 1
    assert set(counts) == places
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3  # uniform


@settings(max_examples=50)
@given(
    st.integers(0, 10_000), st.integers(3, 11), st.integers(3, 11), st.floats(0, 1), st.booleans()
)
def test_elsewhere_is_an_equal_area_outside(seed, h, w, density, blobby):
    masks = torch.rand(3, h, w, generator=seeded(seed)) < density
    if blobby:
        masks[:, : h // 2] = False
    avoid = torch.rand(3, h, w, generator=seeded(seed + 1)) < 0.2
    areas, room = uses.elsewhere(masks, seeded(seed), avoid)
    taken = masks | avoid
    assert not (areas & taken).any()
    size = masks.flatten(1).sum(1)
    assert torch.equal(room, (~taken).flatten(1).sum(1) >= size)
    assert torch.equal(areas.flatten(1).sum(1), size * room)


def test_elsewhere_fills_up_with_the_nearest_pixels_where_there_is_no_place():
    # 3 columns of 5: the least overlap is 1 column, at either side with two free columns... by
    # moving two to the right the shape covers columns 2 to 4, of which column 2 is taken
    masks = mask_at((4, 7), (0, 0, 3, 4))
    avoid = mask_at((4, 7), (3, 0, 4, 2))
    areas, room = uses.elsewhere(masks, seeded(), avoid)
    assert room.all()
    # only columns 4 to 6 are wholly free
    assert torch.equal(areas, mask_at((4, 7), (4, 0, 7, 4)))
    masks = mask_at((2, 5), (0, 0, 2, 2))
    avoid = mask_at((2, 5), (3, 0, 4, 1))
    areas, _ = uses.elsewhere(masks, seeded(), avoid)
    # columns 2, 3 or 3, 4 lose the taken pixel; the nearest free one replaces it
    options = [[[0, 0, 1, 0, 1], [0, 0, 1, 1, 0]], [[0, 0, 1, 0, 1], [0, 0, 0, 1, 1]]]
    options += [[[0, 0, 1, 0, 0], [0, 0, 1, 1, 1]], [[0, 0, 0, 0, 1], [0, 0, 1, 1, 1]]]
    assert areas[0].int().tolist() in options


def test_elsewhere_has_no_room_beyond_half_and_moves_nothing_of_nothing():
    masks = mask_at((4, 4), (0, 0, 4, 3), (0, 0, 0, 0), (0, 0, 4, 2))
    areas, room = uses.elsewhere(masks, seeded())
    assert room.tolist() == [False, True, True]
    assert areas.flatten(1).sum(1).tolist() == [0, 0, 8]
    assert torch.equal(areas[2], ~masks[2])
    none, _ = uses.elsewhere(masks[:0], seeded())
    assert none.shape == (0, 4, 4)


def test_elsewhere_does_not_depend_on_the_batch(monkeypatch):
    masks = torch.rand(10, 12, 9, generator=seeded()) < 0.05
    whole, _ = uses.elsewhere(masks, seeded(5))
    monkeypatch.setattr(uses, "_CHUNK", 3)
    assert torch.equal(uses.elsewhere(masks, seeded(5))[0], whole)
    assert not torch.equal(uses.elsewhere(masks, seeded(6))[0], whole)


class Brightest(nn.Module):
    """The class is the half, left or right, that is brighter; it also has weights and a mode."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))
        self.drop = nn.Dropout(0.9)

    def forward(self, images):
        left, right = images.mean(1).chunk(2, 2)
        both = torch.stack((left.amax((1, 2)), right.amax((1, 2))), 1)
        return self.drop(both) * self.scale


def lit(*lights):
    """Grey scenes with one light each, at (x, y)."""
    images = torch.full((len(lights), 3, 8, 8), 0.4)
    for image, (x, y) in zip(images, lights, strict=True):
        image[:, y, x] = 1
    return images


def test_without_its_part_the_network_fails():
    model = Brightest()
    images, labels = lit((1, 1), (6, 5), (2, 6)), torch.tensor([0, 1, 1])
    images[0, :, 7, 6] = images[1, :, 7, 2] = 0.5  # what is left speaks for the other
    parts = mask_at((8, 8), (1, 1, 2, 2), (6, 5, 7, 6), (2, 6, 3, 7))
    fill = torch.full_like(images, 0.4)
    result = uses.absence(model, images, labels, parts, fill, seeded(), batch_size=2)
    assert result.before.tolist() == [True, True, False]
    assert result.without_parts[:2].tolist() == [False, False]
    assert result.without_others[:2].tolist() == [True, True]
    assert result.points[:2].tolist() == [100, 100] and result.room.all()
    assert result.share.tolist() == pytest.approx([1 / 64] * 3)
    assert model.training and model.scale.requires_grad and model.scale.grad is None
    with pytest.raises(ValueError, match="at least 1 image"):
        uses.absence(model, images, labels, parts, fill, seeded(), batch_size=0)


def test_images_without_room_are_not_compared():
    images, parts = lit((1, 1), (1, 1)), mask_at((8, 8), (0, 0, 8, 6), (1, 1, 2, 2))
    result = uses.absence(
        Brightest(), images, torch.tensor([0, 0]), parts, torch.zeros_like(images), seeded()
    )
    assert result.room.tolist() == [False, True] and result.points.shape == (1,)


class Linear(nn.Module):
    """log-odds of class 1: the mean of red times 4."""

    def forward(self, images):
        return torch.stack((torch.zeros(len(images)), 4 * images[:, 0].mean((1, 2))), 1)


def test_where_a_drop_comes_from():
    images = torch.ones(2, 3, 2, 2)
    objects = mask_at((2, 2), (0, 0, 1, 2), (0, 0, 1, 2))  # the left half
    masks = torch.tensor([[[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.5, 1.0]]])
    targets = torch.tensor([1, 1])
    drops = uses.origin_of_drop(
        Linear(), images, targets, masks, objects, torch.zeros_like(images), batch_size=1
    )

    def p(kept):
        return 1 / (1 + math.exp(-kept))

    def drop(kept):
        return 100 * (p(4) - p(kept)) / p(4)

    assert drops.mask.tolist() == pytest.approx([drop(3), drop(1.5)], rel=1e-4)
    assert drops.on_object.tolist() == pytest.approx([drop(3), drop(2.5)], rel=1e-4)
    assert drops.on_backdrop.tolist() == pytest.approx([0, drop(3)], rel=1e-4, abs=1e-4)


def test_drops_that_cannot_be_are_refused():
    images, masks = torch.ones(1, 3, 2, 2), torch.ones(1, 2, 2)
    objects, zero = torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"mask values must lie in \[0, 1\]"):
        uses.origin_of_drop(Linear(), images, rows(0), 2 * masks, objects, zero)
    with pytest.raises(ValueError, match="valid are 0 to 1"):
        uses.origin_of_drop(Linear(), images, rows(2), masks, objects, zero)
    with pytest.raises(FloatingPointError, match="probability is 0"):
        uses.origin_of_drop(Linear(), 100 * images, rows(0), masks, objects, zero)
    empty = uses.origin_of_drop(Linear(), images[:0], rows(), masks[:0], objects[:0], zero[:0])
    assert all(drop.shape == (0,) for drop in empty)


# Adjacent classes.


def test_shared_is_the_mean_best_cosine_both_ways():
    g = seeded(2)
    descriptors, count = torch.randn(14, 5, generator=g), 4
    summary = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4])
    classes = torch.tensor([0, 0, 1, 1, 3])  # class 2 has no summary
    got = uses.shared(descriptors, summary, classes, count)

    def alike(s, t):
        pairs = [
            torch.cosine_similarity(a, b, dim=0).item()
            for a in descriptors[summary == s]
            for b in descriptors[summary == t]
        ]
        return sum(pairs) / len(pairs)

    def towards(a, b):
        of_a, of_b = ((classes == k).nonzero()[:, 0].tolist() for k in (a, b))
        return sum(max(alike(s, t) for t in of_b) for s in of_a) / len(of_a)

    for a in range(count):
        for b in range(count):
            if a == b or 2 in (a, b):
                assert got[a, b].isnan()
            else:
                expected = (towards(a, b) + towards(b, a)) / 2
                assert got[a, b].item() == pytest.approx(expected, abs=1e-5)


def test_shared_refuses_what_does_not_fit():
    descriptors = torch.randn(4, 3, generator=seeded())
    with pytest.raises(ValueError, match="descriptors must be finite"):
        uses.shared(descriptors * math.inf, rows(0, 0, 1, 1), rows(0, 1), 2)
    for summary in (rows(0, 0, 0, 2), rows(0, 0, 0, 0)):
        with pytest.raises(ValueError, match="each at least once"):
            uses.shared(descriptors, summary, rows(0, 1), 2)
    with pytest.raises(ValueError, match="classes run from 0 to 1"):
        uses.shared(descriptors, rows(0, 0, 1, 1), rows(0, 2), 2)
    nothing = uses.shared(descriptors[:0], rows(), rows(), 2)
    assert nothing.isnan().all()


def test_beyond_other_pairs_by_hand():
    s = torch.tensor(
        [[9.0, 0.8, 0.1, 0.2], [0.8, 9.0, 0.3, 0.4], [0.1, 0.3, 9.0, 0.5], [0.2, 0.4, 0.5, 9.0]]
    )
    got = uses.beyond_others(s, [(0, 1), (2, 3)])
    assert got.tolist() == pytest.approx([0.8 - 0.25, 0.5 - 0.25])
    assert uses.beyond_others(s[:2, :2], [(0, 1)]).isnan().all()  # there is no other class
    assert uses.beyond_others(s, []).shape == (0,)


# With the true parts of a scene.


def test_purity_by_hand():
    parts = torch.zeros(5, 2, 4, dtype=torch.uint8)
    parts[0, 0, :3], parts[0, 1, :2] = 1, 2
    parts[1, 0, :2] = 1
    parts[2, :, :1] = 2
    parts[3, 0, 0] = 3  # 1 of 8 pixels: mostly its surroundings
    parts[4, :, :] = 2
    where = torch.ones(5, 2, 4, dtype=torch.bool)
    where[4] = False  # nothing is shown of it
    got = uses.purity(parts, where, torch.tensor([0, 0, 0, 1, 1]))
    assert got.shown.tolist() == [1, 1, 2, 0, 0]
    assert got.part.tolist() == [1, 0]
    assert got.share.tolist() == pytest.approx([2 / 3, 1])
    assert uses.purity(parts, where, torch.tensor([0, 0, 0, 1, 1]), 0.1).shown[3] == 3
    with pytest.raises(ValueError, match="summary 1 has no members"):
        uses.purity(parts, where, torch.tensor([0, 0, 0, 2, 2]))


def test_found_is_the_share_of_the_parts_that_are_seen():
    parts = torch.tensor([[[0, 1], [2, 5]]], dtype=torch.uint8)
    assert uses.found(torch.tensor([1, 1, 0, 7]), parts) == pytest.approx(1 / 3)
    assert uses.found(torch.tensor([5, 2, 1]), parts) == 1
    assert uses.found(rows(), parts) == 0
    with pytest.raises(ValueError, match="no image shows a part"):
        uses.found(rows(1), torch.zeros_like(parts))


# Over networks.


def test_few_networks_have_ranks_only():
    got = uses.count_correlation(
        torch.tensor([5.0, 5.5, 6.0, 6.33]), torch.tensor([57.1, 72.4, 74.5, 76.2])
    )
    assert got.n == 4 and got.spearman == pytest.approx(1)
    assert got.p == pytest.approx(2 / 24)  # the order and its reverse, of 24
    assert (got.spearman_interval, got.pearson, got.pearson_interval) == (None, None, None)


def test_many_networks_have_a_line_and_intervals():
    x = torch.arange(12.0)
    y = 2 * x + 3 * torch.randn(12, generator=seeded())
    got = uses.count_correlation(y, x)
    assert got.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert got.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)
    for value, (low, high) in (
        (got.spearman, got.spearman_interval),
        (got.pearson, got.pearson_interval),
    ):
        assert -1 <= low < value < high <= 1
    assert got.p < 0.01 and got == uses.count_correlation(y, x)
    noise = uses.count_correlation(torch.tensor([5.0, 2, 9, 7, 1, 8, 11, 3, 0, 10, 4, 6]), x)
    assert noise.p > 0.05 and noise.pearson_interval[0] < 0 < noise.pearson_interval[1]


def test_no_correlation_where_nothing_varies():
    assert uses.count_correlation(torch.ones(9), torch.arange(9.0)) == (9, *(None,) * 5)
    counts = torch.tensor([5.0] * 8 + [6.0])  # many resamples do not vary
    got = uses.count_correlation(counts, torch.arange(9.0))
    assert all(map(math.isfinite, (got.spearman, *got.spearman_interval, *got.pearson_interval)))
    for counts in (torch.arange(2.0), torch.full((5,), math.nan)):
        with pytest.raises(ValueError, match="at least 3 networks"):
            uses.count_correlation(counts, torch.ones(len(counts)))
