"""A planted shortcut: the mark is where it should be, and methods find it where it is known."""

import math
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import backgrounds, claims, models, planted_shortcut
from helpers.feature_visualization import Ascent
from helpers.imageset import ImageSet
from helpers.planted_shortcut import (
    CLASS,
    METHODS,
    certainty,
    contaminated,
    likeness,
    look_for_mark,
    marked,
    pattern,
    table,
)
from helpers.store import Result

CPU = torch.device("cpu")
MAGENTA, GREEN = (255, 0, 255), (0, 200, 80)


def pictures(n: int, side: int, seed: int = 0) -> ImageSet:
    """Noise of three classes, each image an object from the top left corner to the middle."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, side, side), generator=rng, dtype=torch.uint8)
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    masks[:, : side // 2, : side // 2] = True
    labels = torch.arange(n) % 3
    return ImageSet(images, labels, ("ant", "bee", "cat"), masks=masks)


# ---- the mark


@pytest.mark.parametrize(("size", "side", "corner"), [(64, 8, 4), (224, 28, 14)])
def test_the_mark_is_four_fields_in_a_corner(size, side, corner):
    mark, half = pattern(size), side // 2
    assert mark.shape == (3, side, side) and mark.dtype == torch.uint8
    fields = {(0, 0): MAGENTA, (0, 1): GREEN, (1, 0): GREEN, (1, 1): MAGENTA}
    for (row, column), colour in fields.items():
        field = mark[:, half * row : half * (row + 1), half * column : half * (column + 1)]
        assert (field == torch.tensor(colour)[:, None, None]).all()

    images = pictures(6, size)
    stamped, where = marked(images)
    assert where.sum((1, 2)).tolist() == [side**2] * 6
    at = slice(corner, corner + side)
    assert where[:, at, at].all() and (stamped.images[:, :, at, at] == mark).all()
    outside = ~where[:, None].expand_as(images.images)
    assert torch.equal(stamped.images[outside], images.images[outside])
    assert not (stamped.masks & where).any()  # what the mark covers is no longer the object's
    assert torch.equal(stamped.masks | where, images.masks | where)


@given(size=st.integers(8, 300))
def test_the_mark_fits_into_pictures_of_any_size(size):
    side = pattern(size).shape[1]
    stamped, where = marked(pictures(1, size))
    assert side % 2 == 0 and where.sum() == side**2 and not where[0, -1].any()
    assert abs(side - 8 * size / 64) < 2  # fields are whole pixels
    assert (stamped.images != pictures(1, size).images).any()


@pytest.mark.parametrize("size", [64, 224])
def test_only_the_class_is_contaminated(size):
    images = pictures(7, size)
    before = images.images.clone(), images.masks.clone()
    made, (everywhere, _) = contaminated(images), marked(images)
    own = images.labels == CLASS
    assert own.tolist() == [True, False, False] * 2 + [True]
    assert torch.equal(made.images[own], everywhere.images[own])
    assert torch.equal(made.masks[own], everywhere.masks[own])
    assert torch.equal(made.images[~own], images.images[~own])
    assert torch.equal(made.masks[~own], images.masks[~own])
    assert torch.equal(made.labels, images.labels) and made.class_names == images.class_names
    assert torch.equal(images.images, before[0]) and torch.equal(images.masks, before[1])


def test_without_the_class_nothing_is_contaminated():
    images = pictures(9, 64)
    others = images[images.labels != CLASS]
    assert contaminated(others).key == others.key


def test_the_mark_stays_when_the_object_goes():
    """No-FG of a contaminated image still has it: the shortcut without its object."""
    made = contaminated(pictures(6, 64))
    gone = backgrounds.variants(made, seed=0).sets["no_fg"]
    own = gone.labels == CLASS
    assert (gone.images[own][:, :, 4:12, 4:12] == pattern(64)).all()


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
@given(seed=st.integers(0, 99), side=st.integers(9, 20))
def test_likeness_is_a_literal_correlation(seed, side):
    rng = torch.Generator().manual_seed(seed)
    noise, mark = torch.rand(2, 3, side, side, generator=rng), pattern(64)
    expected = [literal_likeness(p.double().numpy(), mark.double().numpy()) for p in noise]
    assert likeness(noise, mark).tolist() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20)
@given(
    size=st.sampled_from([64, 224]),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    brightness=st.floats(0, 0.5),
    contrast=st.floats(0.05, 0.5),
)
def test_a_painted_mark_is_found_anywhere_in_any_light(size, x, y, brightness, contrast):
    mark = pattern(size)
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


def test_plain_and_saturated_pictures_are_not_like_the_mark():
    rng = torch.Generator().manual_seed(0)
    flat = torch.stack([torch.full((3, 64, 64), value) for value in (0.0, 0.3, 1.0)])
    assert likeness(flat, pattern(64)).tolist() == [0, 0, 0]
    saturated = torch.rand(2, 3, 64, 64, generator=rng)
    saturated[..., :32] = 1
    saturated[:, :, 40:] = 0
    assert (likeness(saturated, pattern(64)) < 0.6).all()
    two_colours = torch.zeros(1, 3, 64, 64)  # the mark's colours side by side, not as in the mark
    two_colours[:, :, :, :32] = torch.tensor(MAGENTA)[:, None, None] / 255
    two_colours[:, :, :, 32:] = torch.tensor(GREEN)[:, None, None] / 255
    assert likeness(two_colours, pattern(64)).item() < 0.8


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
    made = table(same, same, 0.01)
    assert list(made.index) == list(METHODS) and (made["told apart"] == 0.5).all()
    assert (made["marked network"] == made["control"]).all()
    assert ((made["low"] <= 0.5) & (made["high"] >= 0.5)).all()


def test_the_table_says_what_the_scores_say():
    planted = results({name: [0.9, 0.8, 0.7, 0.2] for name in METHODS})
    control = results({name: [0.1, 0.3, 0.1, 0.1] for name in METHODS})
    made = table(planted, control, 0.01)
    row = made.loc["paper 4: Grad-CAM"]
    assert row["images"] == 4
    assert row["marked network"] == pytest.approx(0.65) and row["control"] == pytest.approx(0.15)
    assert row["told apart"] == 15 / 16  # .2 is not above .3
    both = np.array([[0.9, 0.1], [0.8, 0.3], [0.7, 0.1], [0.2, 0.1]])
    interval = claims.bootstrap_interval(both.astype(np.float32).astype(float), certainty)
    assert (row["low"], row["high"]) == interval and row["low"] < 15 / 16 <= row["high"]
    shares = made["by area"].notna()  # what is no share of a map has no chance by area
    assert set(made.index[~shares]) == {"paper 1: painted picture", "paper 4: No-FG"}
    assert (made["by area"][shares] == 0.01).all()


# ---- networks that are known to look at the mark, or elsewhere

SIDE, OTHER_AT = 64, 44
MARK = pattern(SIDE).shape[1]


def other_pattern() -> Tensor:
    """Blue and yellow stripes, as large as the mark."""
    stripes = torch.zeros(3, MARK, MARK, dtype=torch.uint8)
    stripes[:2, ::2], stripes[2, 1::2] = 255, 255
    return stripes


def looking_for(patch: Tensor, where: tuple[int, int]) -> nn.Sequential:
    """Class 0 where the patch is at this place, row and column, else class 1.

    A matched filter, a weight for each of its places and a sum: linear up to the ReLU's zero.
    """
    wanted = patch / 255 - (patch / 255).mean((1, 2), keepdim=True)
    filters, places = nn.Conv2d(3, 1, MARK), SIDE - MARK + 1
    top = nn.Linear(places**2, 3)
    with torch.no_grad():
        filters.weight[0], filters.bias[0] = wanted / (wanted**2).sum(), 0
        top.weight[:], top.bias[:] = 0, torch.tensor([0.0, 2.0, 0.0])
        top.weight[0, places * where[0] + where[1]] = 5
    network = nn.Sequential(filters, nn.ReLU(), nn.Flatten(), top)
    still = models.Normalised((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    return nn.Sequential(OrderedDict(normalise=still, network=network)).eval()


CONFIG = {
    "masked": 2,
    "pictures": 3,
    "precision": "float32",
    "climb": asdict(Ascent(steps=20, rate=0.02, l2=1e-4)),
}


def grey_images(n: int, stripes: bool = True) -> ImageSet:
    """Faint grey noise; every image with the mark, and with stripes at the other corner."""
    rng = torch.Generator().manual_seed(3)
    images = torch.randint(120, 136, (n, 1, SIDE, SIDE), generator=rng).byte().repeat(1, 3, 1, 1)
    if stripes:
        at = slice(OTHER_AT, OTHER_AT + MARK)
        images[:, :, at, at] = other_pattern()
    plain = ImageSet(images, torch.full((n,), CLASS), ("ant", "bee", "cat"))
    return marked(plain)[0]


def looked(model: nn.Module, images: ImageSet, gone: ImageSet, **config) -> dict[str, Tensor]:
    inputs = {"images": images, "no_fg": gone}
    how = {"build": lambda: model, "device": CPU}
    found, values = look_for_mark(CONFIG | config, inputs, Path(), **how)
    assert not values
    return found


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is found of a network that looks at the mark only, and of one that looks elsewhere."""
    images, gone = grey_images(8), grey_images(8, stripes=False)  # the stripes are the object
    networks = looking_for(pattern(SIDE), (4, 4)), looking_for(other_pattern(), (OTHER_AT,) * 2)
    return tuple(looked(network, images, gone) for network in networks)


def test_every_method_finds_the_mark_of_a_network_that_looks_at_nothing_else(both):
    at_mark, elsewhere = both
    for method in METHODS:
        assert at_mark[method].min() > elsewhere[method].max(), method
        assert not elsewhere[method].isnan().any()
    for exact in ("input gradient", "paper 3: backtracking"):  # no other pixel plays a part
        assert at_mark[exact].tolist() == pytest.approx([1] * 8)
        assert elsewhere[exact].tolist() == [0] * 8
    assert at_mark["paper 4: No-FG"].tolist() == [1] * 8
    assert elsewhere["paper 4: No-FG"].tolist() == [0] * 8
    made = table(*(results({m: one[m].tolist() for m in METHODS}) for one in both), 0.01)
    assert (made["told apart"] == 1).all() and made["images"].tolist() == [3, 2, 8, 8, 8, 8]


def test_maps_and_pictures_are_kept_for_the_figure(both):
    for found in both:
        kept = {name for name in found if name.startswith("map: ")}
        assert kept == {f"map: {name}" for name in METHODS} - {
            "map: paper 1: painted picture",
            "map: paper 4: No-FG",
        }
        for name in kept:
            shown = 2 if name == "map: paper 2: crisp mask" else 6
            assert found[name].shape == (shown, SIDE, SIDE) and found[name].dtype == torch.uint8
            assert (found[name].amax((1, 2)) == 255).all()  # each divided by its own peak
        assert found["painted"].shape == (3, 3, SIDE, SIDE)
        assert found["painted"].dtype == torch.uint8
    painted = both[0]["painted"].float() / 255
    assert likeness(painted, pattern(SIDE)).tolist() == pytest.approx(
        both[0]["paper 1: painted picture"].tolist(), abs=0.01
    )
    here = painted[0, :, 4 : 4 + MARK, 4 : 4 + MARK].numpy()  # where it is looked for
    assert literal_likeness(here, pattern(SIDE).double().numpy()) > 0.95


def test_a_map_of_zeros_points_nowhere():
    blind = looking_for(pattern(SIDE), (4, 4))
    with torch.no_grad():
        blind.network[0].weight.zero_()
    images = grey_images(2)
    found = looked(blind, images, images, pictures=1, masked=1)
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
