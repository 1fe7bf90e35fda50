"""Abstract pictures: determinism, true masks, and a class that only the figure tells."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import avg_pool2d, one_hot

from helpers.scenes import abstract, backdrops, bodies
from helpers.scenes.abstract import CLASSES, abstract_pictures
from helpers.scenes.world import World

few = settings(max_examples=40, deadline=None)
seeds, numbers = st.integers(0, 10_000), st.integers(0, 10_000)


# ------------------------------------------------------------------------------------ determinism


def test_a_picture_does_not_depend_on_batch_order_or_workers():
    many = abstract_pictures(range(48), seed=5, size=32)
    some = abstract_pictures([31, 7, 0], seed=5, size=32)
    assert some.key == many[[31, 7, 0]].key
    assert some.ids[0] == "abstract 5, picture 31"
    two, one = (abstract_pictures(range(100), seed=5, size=16, workers=w) for w in (2, 1))
    assert two.key == one.key


@few
@given(seed=seeds, index=numbers)
def test_a_picture_comes_from_its_numbers_alone(seed, index):
    first = abstract_pictures([index], seed=seed, size=32)
    np.random.seed(seed % 7)  # the global generators play no part
    abstract_pictures([index + 1], seed=seed + 1, size=48)
    assert first.key == abstract_pictures([index], seed=seed, size=32).key


def test_other_numbers_give_other_pictures():
    drawn = [abstract_pictures(range(0, 72, 24), seed=seed, size=16) for seed in range(3)]
    assert len({picture.numpy().tobytes() for d in drawn for picture in d.images}) == 9


def test_the_world_with_the_same_seed_has_other_places():
    """Else a network would have seen the very backdrops that it is tested before."""
    ours, world = (
        abstract_pictures(range(150), seed=1, size=16),
        World(1, 16, tie=0).images(range(150)),
    )
    share = (ours.backdrops == world.backdrops).float().mean().item()
    assert share < 0.2  # chance 1/12 and five standard errors


# ------------------------------------------------------------------------------------ what is drawn


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
@few
@given(seed=seeds, number=numbers, size=st.integers(16, 128))
def test_every_class_can_be_drawn_at_every_size(label, seed, number, size):
    drawn = abstract_pictures([number * len(CLASSES) + label], seed=seed, size=size)
    assert drawn.labels.tolist() == [label] and drawn.images.shape == (1, 3, size, size)
    mask = drawn.masks[0]
    assert 0.01 < mask.float().mean() < 0.95
    y, x = torch.nonzero(mask, as_tuple=True)
    assert drawn.boxes[0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert drawn.images.float().std() > 1


def test_the_same_picture_at_two_resolutions():
    small, large = (abstract_pictures(range(48), seed=4, size=s) for s in (64, 128))
    shrunk = avg_pool2d(large.masks[:, None].float(), 2)[:, 0] >= 0.5
    both, union = (small.masks & shrunk).sum((1, 2)), (small.masks | shrunk).sum((1, 2))
    assert (both > 0.75 * union).all() and torch.equal(small.backdrops, large.backdrops)


def test_the_mask_ends_where_the_picture_of_the_figure_ends(monkeypatch):
    """Matting from outside: where a darker and a lighter wall look the same, the figure is."""
    monkeypatch.setattr(abstract, "_cast_shadow", lambda backdrop, *_: backdrop)
    shots = []
    for level in (0.15, 0.5):
        wall = lambda name, rng, size, level=level: backdrops.Backdrop(  # noqa: E731
            np.full((size, size, 3), level, np.float32), None
        )
        monkeypatch.setattr(backdrops, "paint", wall)
        shots.append(abstract_pictures(range(48), seed=3, size=96))
    change = (shots[1].images.float() - shots[0].images.float()).sum(1)
    masks = shots[0].masks
    for difference, mask in zip(change.numpy(), masks.numpy(), strict=True):
        near = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        visible = np.median(difference[~mask & ~near])
        wrong = ((difference < visible / 2) != mask) & ~near
        assert wrong.sum() <= 4  # of 9,216: a corner sharper than a pixel


def area(name: str, seed: int = 0) -> float:
    """Area of a figure's outlines, in units of its own (the even-odd rule needs signs)."""
    outlines = abstract._OUTLINES[name](np.random.default_rng(seed))
    return sum(cv2.contourArea(o.astype(np.float32), oriented=True) for o in outlines)


def test_forms_have_the_areas_of_geometry():
    assert np.isclose(abs(area("disc")), np.pi, rtol=0.01)
    assert np.isclose(abs(area("square")), 4)
    for seed in range(5):
        hole = np.random.default_rng(seed).random() * 0.2 + 0.45
        assert np.isclose(abs(area("ring", seed)), np.pi * (1 - hole**2), rtol=0.01)
        arm = np.random.default_rng(seed).random() * 0.14 + 0.22
        assert np.isclose(abs(area("cross", seed)), 8 * arm - 4 * arm**2)


@pytest.mark.parametrize("name", abstract._OUTLINES)
def test_outlines_stay_in_their_own_unit_square(name):
    for seed in range(20):
        points = np.concatenate(abstract._OUTLINES[name](np.random.default_rng(seed)))
        assert np.isfinite(points).all() and np.abs(points).max() < 1.25


def test_textures_repeat_as_they_say():
    x, y = np.random.default_rng(0).uniform(-3, 3, (2, 50, 50)).astype(np.float32)
    field = abstract._FIELDS
    for name in ("stripes", "dots"):
        assert np.allclose(field[name](x, y), field[name](x + 1, y), atol=1e-4), name
    assert np.allclose(field["stripes"](x, y), field["stripes"](x, y + 0.3), atol=1e-4)
    assert np.allclose(field["checks"](x, y), -field["checks"](x + 1, y), atol=1e-4)
    assert np.allclose(field["ripples"](x, y), field["ripples"](-y, x), atol=1e-4)
    assert np.allclose(field["rays"](x, y), field["rays"](x / 2, y / 2), atol=0.02)


# --------------------------------------------------------------------------------- what classes are


def test_no_class_is_the_courses():
    assert len(set(CLASSES)) == len(CLASSES) == 24
    ours = {word for name in CLASSES for word in (name, name.removesuffix("s"))}
    theirs = {*bodies.CLASSES, *bodies.SUPERCLASSES, *bodies.PART_NAMES, *backdrops.NAMES}
    assert not ours & (theirs | {name.removesuffix("s") for name in theirs})


def test_classes_are_balanced():
    assert set(abstract_pictures(range(72), seed=0, size=16).counts().values()) == {3}


def mean_colour(drawn):
    shown = drawn.to_float() * drawn.masks[:, None]
    return shown.sum((2, 3)) / drawn.masks.sum((1, 2))[:, None]


def which_backdrop(drawn):
    return one_hot(drawn.backdrops, len(backdrops.NAMES))


def test_neither_colour_nor_backdrop_tells_the_class():
    """Linear classifiers on the figure's mean colour, the true mask given, and on the backdrop.
    Chance is 4 %; a slim network trained on 2,700 pictures for six epochs gets half right."""
    train, test = (abstract_pictures(range(960), seed=s, size=24) for s in (21, 22))
    judged = {}
    for features in (mean_colour, which_backdrop):
        model = LogisticRegression(max_iter=2_000).fit(features(train), train.labels)
        judged[features.__name__] = model.score(features(test), test.labels)
    assert max(judged.values()) < 0.08, judged  # chance and six standard errors


# ---------------------------------------------------------------------------------------- bad input


def test_nothing_asked_for_is_a_set_with_every_field_and_no_rows():
    empty = abstract_pictures([], seed=0)
    assert len(empty) == 0 and empty.class_names == CLASSES
    assert empty.masks.shape == (0, 64, 64) and empty.boxes.shape == (0, 4)
    assert empty.backdrop_names == backdrops.NAMES


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 15}, "at least 16"),
        ({"seed": -1}, "0 or more, not -1"),
        ({"indices": [3, -2]}, "0 or more, not -2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        abstract_pictures(**{"indices": [0], "seed": 0} | wrong)
