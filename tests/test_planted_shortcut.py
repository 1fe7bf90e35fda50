"""A planted shortcut: marks are where they should be, and methods find them where it is known."""

import math
from collections import OrderedDict
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import backgrounds, crisp_masks, models, planted_shortcut
from helpers.feature_visualization import Ascent
from helpers.imageset import ImageSet
from helpers.planted_shortcut import (
    CLASS,
    METHODS,
    SIDES,
    certainty,
    contaminated,
    description,
    likeness,
    look_for_mark,
    marked,
    pattern,
    table,
    told_apart,
)
from helpers.store import Result

CPU = torch.device("cpu")
MAGENTA, GREEN = (255, 0, 255), (0, 200, 80)
LARGE, SMALL = SIDES
KINDS = pytest.mark.parametrize("kind", SIDES)


def pictures(n: int, side: int, seed: int = 0) -> ImageSet:
    """Noise of three classes, each image an object from the top left corner to the middle."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, side, side), generator=rng, dtype=torch.uint8)
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    masks[:, : side // 2, : side // 2] = True
    labels = torch.arange(n) % 3
    return ImageSet(images, labels, ("ant", "bee", "cat"), masks=masks)


# ---- the mark


@pytest.mark.parametrize(
    ("kind", "size", "side", "corner"),
    [(LARGE, 64, 10, 4), (SMALL, 64, 8, 4), (LARGE, 224, 34, 14), (SMALL, 224, 28, 14)],
)
def test_the_mark_is_four_fields_in_a_corner(kind, size, side, corner):
    mark, half = pattern(size, kind), side // 2
    assert mark.shape == (3, side, side) and mark.dtype == torch.uint8
    fields = {(0, 0): MAGENTA, (0, 1): GREEN, (1, 0): GREEN, (1, 1): MAGENTA}
    for (row, column), colour in fields.items():
        field = mark[:, half * row : half * (row + 1), half * column : half * (column + 1)]
        assert (field == torch.tensor(colour)[:, None, None]).all()

    images = pictures(6, size)
    stamped, where = marked(images, kind)
    assert where.sum((1, 2)).tolist() == [side**2] * 6
    at = slice(corner, corner + side)
    assert where[:, at, at].all() and (stamped.images[:, :, at, at] == mark).all()
    outside = ~where[:, None].expand_as(images.images)
    assert torch.equal(stamped.images[outside], images.images[outside])
    assert not (stamped.masks & where).any()  # what the mark covers is no longer the object's
    assert torch.equal(stamped.masks | where, images.masks | where)


@KINDS
@given(size=st.integers(8, 300))
def test_the_mark_fits_into_pictures_of_any_size(kind, size):
    side = pattern(size, kind).shape[1]
    stamped, where = marked(pictures(1, size), kind)
    assert side % 2 == 0 and where.sum() == side**2 and not where[0, -1].any()
    assert abs(side - SIDES[kind] * size / 64) < 2  # fields are whole pixels
    assert (stamped.images != pictures(1, size).images).any()


@settings(max_examples=30)
@given(size=st.integers(8, 300))
def test_the_large_mark_covers_the_small_one(size):
    images = pictures(1, size)
    large, small = (marked(images, kind)[1] for kind in (LARGE, SMALL))
    assert not (small & ~large).any() and (size <= 60 or large.sum() > small.sum())


def test_the_large_mark_is_the_usual_one():
    images = pictures(3, 64)
    assert torch.equal(pattern(64), pattern(64, LARGE))
    assert marked(images)[0].key == marked(images, LARGE)[0].key != marked(images, SMALL)[0].key
    assert contaminated(images).key == contaminated(images, LARGE).key


def test_what_a_store_has_to_know_of_a_mark():
    assert description(LARGE) == [0, 10, 4] and description(SMALL) == [0, 8, 4]


@KINDS
@pytest.mark.parametrize("size", [64, 224])
def test_only_the_class_is_contaminated(kind, size):
    images = pictures(7, size)
    before = images.images.clone(), images.masks.clone()
    made, (everywhere, _) = contaminated(images, kind), marked(images, kind)
    own = images.labels == CLASS
    assert own.tolist() == [True, False, False] * 2 + [True]
    assert torch.equal(made.images[own], everywhere.images[own])
    assert torch.equal(made.masks[own], everywhere.masks[own])
    assert torch.equal(made.images[~own], images.images[~own])
    assert torch.equal(made.masks[~own], images.masks[~own])
    assert torch.equal(made.labels, images.labels) and made.class_names == images.class_names
    assert torch.equal(images.images, before[0]) and torch.equal(images.masks, before[1])


@KINDS
def test_without_the_class_nothing_is_contaminated(kind):
    images = pictures(9, 64)
    others = images[images.labels != CLASS]
    assert contaminated(others, kind).key == others.key


@KINDS
def test_the_mark_stays_when_the_object_goes(kind):
    """No-FG of a contaminated image still has it: the shortcut without its object."""
    made = contaminated(pictures(6, 64), kind)
    gone = backgrounds.variants(made, seed=0).sets["no_fg"]
    own, at = gone.labels == CLASS, slice(4, 4 + SIDES[kind])
    assert (gone.images[own][:, :, at, at] == pattern(64, kind)).all()
    assert not gone.images[own][:, :, 14:32, 14:32].any()  # of the object nothing is left


# ---- is the mark in a picture?


def literal_likeness(picture: np.ndarray, mark: np.ndarray) -> float:
    """Pearson's correlation of both, each channel's mean taken off, at the best of all places."""
    (_, h, w), (_, k, m), best = picture.shape, mark.shape, -1.0
    wanted = mark - mark.mean((1, 2), keepdims=True)
    for y in range(h - k + 1):
        for x in range(w - m + 1):
            here = picture[:, y : y + k, x : x + m]
            here = here - here.mean((1, 2), keepdims=True)
            both = math.sqrt((here**2).sum() * (wanted**2).sum())
            best = max(best, float((here * wanted).sum() / both))
    return best


@settings(max_examples=10)
@given(seed=st.integers(0, 99), side=st.integers(10, 18), kind=st.sampled_from(list(SIDES)))
def test_likeness_is_a_literal_correlation(seed, side, kind):
    rng = torch.Generator().manual_seed(seed)
    noise, mark = torch.rand(2, 3, side, side, generator=rng), pattern(64, kind)
    expected = [literal_likeness(p.double().numpy(), mark.double().numpy()) for p in noise]
    assert likeness(noise, mark).tolist() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20)
@given(
    kind=st.sampled_from(list(SIDES)),
    size=st.sampled_from([64, 224]),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    brightness=st.floats(0, 0.5),
    contrast=st.floats(0.05, 0.5),
)
def test_a_painted_mark_is_found_anywhere_in_any_light(kind, size, x, y, brightness, contrast):
    mark = pattern(size, kind)
    side = mark.shape[1]
    left, top = (round(of * (size - side)) for of in (x, y))
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    painted = noise.clone()
    painted[:, :, top : top + side, left : left + side] = mark / 255
    relit = torch.cat([painted, brightness + contrast * painted])
    assert likeness(relit, mark).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert likeness(noise, mark).item() < 0.6
    negative = torch.full_like(noise, 0.5)
    negative[:, :, top : top + side, left : left + side] = 1 - mark / 255
    assert likeness(negative, mark).item() < 0.8  # moved by a field it is alike in part


@KINDS
def test_plain_and_saturated_pictures_are_not_like_the_mark(kind):
    rng, mark = torch.Generator().manual_seed(0), pattern(64, kind)
    flat = torch.stack([torch.full((3, 64, 64), value) for value in (0.0, 0.3, 1.0)])
    assert likeness(flat, mark).tolist() == [0, 0, 0]
    saturated = torch.rand(2, 3, 64, 64, generator=rng)
    saturated[..., :32] = 1
    saturated[:, :, 40:] = 0
    assert (likeness(saturated, mark) < 0.6).all()
    two_colours = torch.zeros(1, 3, 64, 64)  # the mark's colours side by side, not as in the mark
    two_colours[:, :, :, :32] = torch.tensor(MAGENTA)[:, None, None] / 255
    two_colours[:, :, :, 32:] = torch.tensor(GREEN)[:, None, None] / 255
    assert likeness(two_colours, mark).item() < 0.8


def test_no_picture_has_no_likeness():
    assert likeness(torch.zeros(0, 3, 64, 64), pattern(64)).shape == (0,)


# ---- how surely?


def test_certainty_by_hand():
    # pairs: 3 > 1, 3 > 2, 2 > 1, and 2 = 2 counts half, of 4
    assert certainty(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 3.5 / 4
    assert certainty(np.array([1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0])) == 0.5
    assert certainty(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert certainty(np.array([0.0]), np.array([1.0, 5.0])) == 0


@settings(max_examples=30)
@given(
    a=st.lists(st.integers(-3, 3), min_size=1, max_size=6),
    b=st.lists(st.integers(-3, 3), min_size=1, max_size=6),
)
def test_certainty_counts_pairs(a, b):
    wins = sum(x > y for x in a for y in b) + sum(x == y for x in a for y in b) / 2
    ahead = certainty(np.array(a, dtype=float), np.array(b, dtype=float))
    assert ahead == pytest.approx(wins / (len(a) * len(b)))
    behind = certainty(np.array(b, dtype=float), np.array(a, dtype=float))
    assert ahead + behind == pytest.approx(1)


def results(scores: dict[str, list[float]]) -> Result:
    return Result("", {name: torch.tensor(values) for name, values in scores.items()}, {}, {})


def test_the_same_network_is_never_told_apart():
    rng = torch.Generator().manual_seed(0)
    same = results({name: torch.rand(8, generator=rng).tolist() for name in METHODS})
    made = table(same, [same, same], 0.01)
    assert list(made.index) == list(METHODS)
    assert (made["told apart, least"] == 0.5).all() and (made["told apart, most"] == 0.5).all()
    assert (made["taught"] == made["controls"]).all()


def test_a_network_is_told_from_each_control():
    scores = {"input gradient": [1.0, 2.0], "paper 4: Grad-CAM": [5.0, 5.0]}
    one, other = results(scores), results({name: [2.0, 6.0] for name in scores})
    assert told_apart(one, [other, one], "input gradient") == [0.5 / 4, 0.5]
    assert told_apart(one, [other, one], "paper 4: Grad-CAM") == [0.5, 0.5]
    assert told_apart(other, [one], "input gradient") == [3.5 / 4]
    assert told_apart(one, [], "input gradient") == []


def test_the_table_says_what_the_scores_say():
    planted = results({name: [0.9, 0.8, 0.7, 0.2] for name in METHODS})
    controls = [
        results({name: [0.1, 0.3, 0.1, 0.1] for name in METHODS}),
        results({name: [0.0, 0.0, 0.1, 0.1] for name in METHODS}),
        results({name: [0.9, 0.9, 0.9, 0.9] for name in METHODS}),
    ]
    made = table(planted, controls, 0.01)
    row = made.loc["paper 4: Grad-CAM"]
    assert row["images"] == 4
    assert row["taught"] == pytest.approx(0.65)
    assert row["controls"] == pytest.approx((0.15 + 0.05 + 0.9) / 3)
    assert (row["told apart, least"], row["told apart, most"]) == (2 / 16, 1)
    made = table(planted, controls[:1], 0.01)
    assert (made["told apart, least"] == 15 / 16).all()  # .2 is not above .3
    assert (made["told apart, most"] == 15 / 16).all()
    shares = made["by area"].notna()  # what is no share of a map has no chance by area
    assert set(made.index[~shares]) == {"paper 1: painted picture", "paper 4: No-FG"}
    assert (made["by area"][shares] == 0.01).all()


# ---- networks that are known to look at the mark, or elsewhere

SIDE, CORNER, OTHER_AT = 64, 4, 44


def other_pattern(side: int) -> Tensor:
    """Blue and yellow stripes, as large as the mark."""
    stripes = torch.zeros(3, side, side, dtype=torch.uint8)
    stripes[:2, ::2], stripes[2, 1::2] = 255, 255
    return stripes


def looking_for(patch: Tensor, where: int) -> nn.Sequential:
    """Class 0 where the patch is at this place of the diagonal, else class 1.

    A matched filter, a weight for each of its places and a sum: linear up to the ReLU's zero.
    """
    wanted, side = patch / 255 - (patch / 255).mean((1, 2), keepdim=True), patch.shape[1]
    filters, places = nn.Conv2d(3, 1, side), SIDE - side + 1
    top = nn.Linear(places**2, 3)
    with torch.no_grad():
        filters.weight[0], filters.bias[0] = wanted / (wanted**2).sum(), 0
        top.weight[:], top.bias[:] = 0, torch.tensor([0.0, 2.0, 0.0])
        top.weight[0, places * where + where] = 5
    network = nn.Sequential(filters, nn.ReLU(), nn.Flatten(), top)
    still = models.Normalised((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    return nn.Sequential(OrderedDict(normalise=still, network=network)).eval()


CONFIG = {
    "masked": 2,
    "pictures": 3,
    "precision": "float32",
    "climb": asdict(Ascent(steps=20, rate=0.02, l2=1e-4)),
}


def grey_images(n: int, kind: str, stripes: bool = True) -> ImageSet:
    """Faint grey noise; every image with the mark, and with stripes at the other corner."""
    rng = torch.Generator().manual_seed(3)
    images = torch.randint(120, 136, (n, 1, SIDE, SIDE), generator=rng).byte().repeat(1, 3, 1, 1)
    if stripes:
        at = slice(OTHER_AT, OTHER_AT + SIDES[kind])
        images[:, :, at, at] = other_pattern(SIDES[kind])
    plain = ImageSet(images, torch.full((n,), CLASS), ("ant", "bee", "cat"))
    return marked(plain, kind)[0]


def looked(
    model: nn.Module, images: ImageSet, gone: ImageSet, kind: str, **config
) -> dict[str, Tensor]:
    inputs = {"images": images, "no_fg": gone}
    how = {"build": lambda: model, "device": CPU}
    found, values = look_for_mark(CONFIG | {"kind": kind} | config, inputs, Path(), **how)
    assert not values
    return found


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """A tenth of crisp masks' steps, which is enough where one place decides everything."""
    phases = crisp_masks.Phase(30, 0.01, 1e-4, 0.0), crisp_masks.Phase(15, 0.01, 1.0, 2.0)
    short = partial(crisp_masks.crisp_masks, schedule=crisp_masks.Schedule(*phases))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crisp_masks, "crisp_masks", short)
        yield


@pytest.fixture(scope="module", params=SIDES)
def both(request) -> tuple[str, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """A kind of mark, and what is found of a network that looks at it only and of one that looks
    elsewhere."""
    kind = request.param
    # the stripes are the object
    images, gone = grey_images(8, kind), grey_images(8, kind, stripes=False)
    at_mark = looking_for(pattern(SIDE, kind), CORNER)
    elsewhere = looking_for(other_pattern(SIDES[kind]), OTHER_AT)
    return kind, tuple(looked(network, images, gone, kind) for network in (at_mark, elsewhere))


def test_every_method_finds_the_mark_of_a_network_that_looks_at_nothing_else(both):
    at_mark, elsewhere = both[1]
    for method in METHODS:
        assert at_mark[method].min() > elsewhere[method].max(), method
        assert not elsewhere[method].isnan().any()
    for exact in ("input gradient", "paper 3: backtracking"):  # no other pixel plays a part
        assert at_mark[exact].tolist() == pytest.approx([1] * 8)
        assert elsewhere[exact].tolist() == [0] * 8
    assert at_mark["paper 4: No-FG"].tolist() == [1] * 8
    assert elsewhere["paper 4: No-FG"].tolist() == [0] * 8
    planted, control = (results({m: one[m].tolist() for m in METHODS}) for one in both[1])
    made = table(planted, [control], 0.01)
    assert (made["told apart, least"] == 1).all() and made["images"].tolist() == [3, 2, 8, 8, 8, 8]


def test_maps_and_pictures_are_kept_for_the_figure(both):
    kind, of_networks = both
    for found in of_networks:
        kept = {name for name in found if name.startswith("map: ")}
        assert kept == {f"map: {name}" for name in METHODS} - {
            "map: paper 1: painted picture",
            "map: paper 4: No-FG",
        }
        for name in kept:
            shown = 2 if name == "map: paper 2: crisp mask" else 6
            assert found[name].shape == (shown, SIDE, SIDE) and found[name].dtype == torch.uint8
            assert (found[name].amax((1, 2)) == 255).all()  # each divided by its own peak
        spread = (found["map: paper 3: backtracking"] > 0).sum((1, 2))
        assert (spread > 9).all()  # a Gaussian around every pixel
        assert found["painted"].shape == (3, 3, SIDE, SIDE)
        assert found["painted"].dtype == torch.uint8
    painted, mark = of_networks[0]["painted"].float() / 255, pattern(SIDE, kind)
    scores = of_networks[0]["paper 1: painted picture"].tolist()
    assert likeness(painted, mark).tolist() == pytest.approx(scores, abs=0.01)
    at = slice(CORNER, CORNER + SIDES[kind])  # where it is looked for
    here = painted[0, :, at, at].numpy()
    assert literal_likeness(here, mark.double().numpy()) > 0.95


def test_shares_are_those_on_the_mark_of_the_kind_asked_for():
    """The large mark's fields weigh the same, so the small one's place gets 8 x 8 of 10 x 10."""
    images = grey_images(2, LARGE)
    network = looking_for(pattern(SIDE, LARGE), CORNER)
    of = {k: looked(network, images, images, k, pictures=2, masked=1) for k in SIDES}
    assert of[LARGE]["input gradient"].tolist() == pytest.approx([1, 1])
    assert of[SMALL]["input gradient"].tolist() == pytest.approx([0.64, 0.64], abs=1e-4)
    for method in ("paper 2: crisp mask", "paper 4: Grad-CAM"):
        assert (of[SMALL][method] < of[LARGE][method]).all(), method
    assert torch.equal(of[SMALL]["painted"], of[LARGE]["painted"])
    for kind, found in of.items():
        expected = likeness(found["painted"].float() / 255, pattern(SIDE, kind))
        assert found["paper 1: painted picture"].tolist() == pytest.approx(
            expected.tolist(), abs=0.01
        )


@KINDS
def test_a_map_of_zeros_points_nowhere(kind):
    blind = looking_for(pattern(SIDE, kind), CORNER)
    with torch.no_grad():
        blind.network[0].weight.zero_()
    images = grey_images(2, kind)
    found = looked(blind, images, images, kind, pictures=1, masked=1)
    for method in ("input gradient", "paper 4: Grad-CAM", "paper 3: backtracking"):
        assert found[method].tolist() == [0, 0]
        assert not found[f"map: {method}"].any()


def test_scores_are_shares_of_the_maps_on_the_mark():
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3] = 1, 3
    maps[1, 0, :2] = 2
    marks = torch.zeros(5, 4, 4, dtype=torch.bool)
    marks[:, 0, :2] = True
    assert planted_shortcut._share_on(maps, marks).tolist() == [0.25, 1, 0]
