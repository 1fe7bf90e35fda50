"""Backgrounds: the object stays bit for bit, the rest is exactly what was asked for."""

import math
from collections import OrderedDict
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from test_photos import BLUE, DOG, near, voc_photo
from torch import nn

from helpers import photos
from helpers.backgrounds import (
    TRAINING_SETS,
    VARIANTS,
    agreement,
    attribution_masks,
    black,
    boxes_of,
    compose,
    grabcut_masks,
    mixed,
    noise,
    on_backgrounds,
    on_random_backgrounds,
    removable,
    segmented_masks,
    stamped,
    standard,
    tiled,
    variants,
)
from helpers.imageset import ImageSet
from helpers.models import Normalised
from helpers.scenes.world import World

SEEDS = st.integers(0, 2**32)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))  # n, h, w


@cache
def scenes() -> ImageSet:
    return World(seed=2_001, size=32).images(range(40))


def flat(values, boxes, labels=None, size=6, ids=()) -> ImageSet:
    """Pictures of one value each, whose objects fill their boxes."""
    n, boxes = len(values), torch.tensor(boxes)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, size, size)
    labels = torch.tensor(labels or [0] * n)
    return ImageSet(images, labels, ("a", "b", "c"), masks=masks, boxes=boxes, ids=ids)


def sides(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    inside = images.masks[:, None].expand_as(images.images)
    return inside, ~inside


def pictures(shape: tuple[int, int, int], seed: int) -> ImageSet:
    """Any pictures with any masks: empty and full ones, black objects, objects at the border."""
    n, h, w = shape
    rng = torch.Generator().manual_seed(seed)
    share = torch.rand(n, 1, 1, generator=rng) * 1.4 - 0.2
    images = torch.randint(0, 256, (n, 3, h, w), generator=rng, dtype=torch.uint8)
    return ImageSet(
        images=images * (torch.rand(n, 1, h, w, generator=rng) > 0.2),
        labels=torch.randint(0, 3, (n,), generator=rng),
        class_names=("a", "b", "c"),
        masks=torch.rand(n, h, w, generator=rng) < share,
    )


# ---- composing


@given(SHAPES, SEEDS)
def test_a_hard_mask_copies_bits(shape, seed):
    images = pictures(shape, seed)
    other = noise(images, seed=seed).images.flip(0)
    expected = np.empty(images.images.shape, np.uint8)
    for i, c, y, x in np.ndindex(*expected.shape):
        source = images.images if images.masks[i, y, x] else other
        expected[i, c, y, x] = source[i, c, y, x]
    for masks in (images.masks, images.masks.float(), images.masks.double()):
        assert np.array_equal(compose(images.images, other, masks), expected)


@given(SHAPES, SEEDS)
def test_a_soft_mask_rounds_to_the_nearest_value(shape, seed):
    images = pictures(shape, seed)
    masks = torch.rand(images.masks.shape, generator=torch.Generator().manual_seed(seed + 1))
    masks[images.masks] = masks[images.masks].round()  # some exact ends among them
    front, back = images.images, images.images.flip(0)
    mixture = compose(front, back, masks)
    weights = masks[:, None].double()
    exact = weights * front + (1 - weights) * back
    assert (mixture - exact).abs().max() <= 0.5 + 1e-4
    for end, picture in ((1, front), (0, back)):
        where = (masks == end)[:, None].expand_as(front)
        assert torch.equal(mixture[where], picture[where])
    assert torch.equal(compose(front, front, masks), front)


def test_a_soft_edge_by_hand():
    front, back = (torch.full((1, 3, 1, 4), value, dtype=torch.uint8) for value in (200, 10))
    masks = torch.tensor([[[0.0, 0.25, 0.9, 1.0]]])
    assert compose(front, back, masks)[0, 0].tolist() == [[10, 58, 181, 200]]  # 57.5, 181


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_masks_outside_0_to_1_are_refused(bad):
    picture, masks = torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2)
    masks[0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        compose(picture, picture, masks)


def test_shapes_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    picture, mask = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.ones(2, 4, 4).bool()
    for args in (
        (picture, picture[:1], mask),
        (picture, picture, mask[:1]),  # would broadcast
        (picture, picture, mask[:, None]),
        (picture, picture[:, :, :2], mask),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            compose(*args)
    with pytest.raises(ValueError, match="the truth"):
        agreement(mask, mask[:1])


# ---- the four training sets


@given(SHAPES, SEEDS)
def test_black_and_noise_touch_the_background_only(shape, seed):
    images = pictures(shape, seed)
    before = images.images.clone()
    inside, outside = sides(images)
    for name, made in [(name, make(images, seed)) for name, make in TRAINING_SETS.items()]:
        assert torch.equal(made.images[inside], before[inside]), name
        for field in fields(ImageSet):
            if field.name != "images":
                assert getattr(made, field.name) is getattr(images, field.name)
    assert not black(images).images[outside].any()
    assert torch.equal(images.images, before)


def test_there_are_four_training_sets_in_the_papers_order():
    assert list(TRAINING_SETS) == ["standard", "black", "noise", "mixed"]
    images = scenes()
    assert standard(images) is images
    expected = (images, black(images), noise(images, seed=3), mixed(images, seed=3))
    for make, made in zip(TRAINING_SETS.values(), expected, strict=True):
        assert make(images, 3).key == made.key


@given(st.lists(st.integers(0, 39), min_size=1, max_size=8), SEEDS)
def test_the_noise_of_an_image_does_not_depend_on_the_others(rows, seed):
    images = scenes()
    assert torch.equal(noise(images[rows], seed=seed).images, noise(images, seed=seed)[rows].images)


def test_noise_differs_between_images_and_seeds_and_without_ids_follows_the_row():
    twins = flat([7, 7], [[0, 0, 1, 1]] * 2, size=16)
    first = noise(twins, seed=0)
    assert torch.equal(first.images, noise(twins, seed=0).images)
    assert not torch.equal(first.images[0], first.images[1])
    assert not torch.equal(first.images, noise(twins, seed=1).images)
    assert torch.equal(first[0].images, noise(twins[1], seed=0).images)  # each is row 0 there
    named = noise(replace(twins, ids=("x", "x")), seed=0).images
    assert torch.equal(named[0], named[1])


def test_noise_has_the_mean_and_spread_asked_for():
    images = flat([9], [[0, 0, 1, 1]], size=256)
    _, outside = sides(images)
    values = noise(images, seed=0, mean=0.5, std=0.1).images[outside].double() / 255
    assert abs(values.mean() - 0.5) < 0.001 and abs(values.std() - 0.1) < 0.001
    halved = noise(images, seed=0).images[outside].double()
    assert abs((halved == 0).double().mean() - 0.5) < 0.01  # clipped, and never wrapped around
    assert abs((halved == 255).double().mean() - 0.0228) < 0.003  # beyond two deviations
    still = noise(images, seed=0, mean=0.2, std=0.0).images[outside]
    assert (still == 51).all()
    assert torch.equal(noise(images, seed=0, std=0.0).images, black(images).images)


@pytest.mark.parametrize("bad", [{"std": -0.1}, {"std": math.nan}, {"mean": math.inf}])
def test_noise_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        noise(scenes()[0], seed=0, **bad)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=25), SEEDS)
def test_half_of_every_class_is_black(labels, seed):
    n = len(labels)
    images = flat([200] * n, [[0, 0, 3, 6]] * n, labels)
    dark = (mixed(images, seed=seed).images == 0).flatten(1).any(1)
    assert torch.equal(mixed(images, seed=seed).images[dark], black(images).images[dark])
    assert torch.equal(mixed(images, seed=seed).images[~dark], images.images[~dark])
    more = True  # the first odd class gets the larger half
    for label in range(3):
        count = labels.count(label)
        expected = (count + more) // 2 if count % 2 else count // 2
        assert int(dark[torch.tensor(labels) == label].sum()) == expected
        more ^= bool(count % 2)
    assert int(dark.sum()) == (n + 1) // 2


def test_which_half_is_random():
    images = flat([200] * 12, [[0, 0, 3, 6]] * 12)
    runs = [(mixed(images, seed=s).images == 0).flatten(1).any(1) for s in range(200)]
    assert torch.equal(runs[3], (mixed(images, seed=3).images == 0).flatten(1).any(1))
    share = torch.stack(runs).double().mean(0)
    assert (share - 0.5).abs().max() < 0.15  # four standard errors


# ---- masks and boxes


def test_removable_needs_both_sides():
    images = flat([9] * 3, [[0, 0, 0, 0], [0, 0, 6, 6], [1, 1, 2, 2]])
    assert removable(images).tolist() == [False, False, True]
    assert not black(images)[0].images.any()
    assert torch.equal(black(images).images[1], images.images[1])


@given(SHAPES, SEEDS)
def test_boxes_are_the_smallest_around_each_mask(shape, seed):
    images = pictures(shape, seed)
    for mask, box in zip(images.masks, boxes_of(images.masks).tolist(), strict=True):
        ys, xs = np.nonzero(mask.numpy())
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4
        assert box == tight


def test_boxes_of_scenes_are_those_they_came_with():
    assert torch.equal(boxes_of(scenes().masks), scenes().boxes)


def test_void_pixels_of_voc(tmp_path):
    voc_photo(tmp_path, "a", {(6, 6, 34, 34): 255, (10, 10, 30, 30): DOG}, (40, 40))
    images = photos.voc(tmp_path, size=40).or_raise()
    dark = black(images).images[0]
    assert near(dark.numpy(), BLUE)[
        8:32, 8:32
    ].all()  # the inner half of the void band is the dog's
    assert not dark[:, :8].any() and not dark[:, 32:].any()  # the outer half is background
    assert removable(images).all()


def test_agreement_by_hand():
    masks = torch.tensor(
        [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    ).bool()
    truth = torch.tensor(
        [[0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    ).bool()
    measured = agreement(masks[:, None], truth[:, None])  # pictures of 1 x 4 px
    assert measured["iou"].tolist() == [0.5, 1, 0, 0, 0.5]
    assert torch.allclose(measured["precision"], torch.tensor([2 / 3, 1, 0, 0, 1]))
    assert torch.allclose(measured["recall"], torch.tensor([2 / 3, 1, 0, 0, 0.5]))


def test_without_masks_or_boxes_the_message_says_how_to_get_them():
    bare = replace(scenes(), masks=None)
    uses = {
        "black": black,
        "noise": lambda images: noise(images, seed=0),
        "mixed": lambda images: mixed(images, seed=0),
        "removable": removable,
        "on_backgrounds": lambda images: on_random_backgrounds(images, seed=0),
    }
    for name, use in uses.items():
        with pytest.raises(ValueError, match=rf"^{name}\(\) needs .*masks: grabcut_masks"):
            use(bare)
        with pytest.raises(ValueError, match="boxes are missing too"):
            use(replace(bare, boxes=None))
    with pytest.raises(ValueError, match="boxes are missing too"):
        tiled(replace(bare, boxes=None))
    with pytest.raises(ValueError, match="boxes_of"):
        grabcut_masks(replace(scenes(), boxes=None))
    assert TRAINING_SETS["standard"](bare, 0) is bare


# ---- GrabCut


def squares(boxes, size=40) -> ImageSet:
    """Bright objects on dark grain: two colours no segmentation could confuse."""
    images = flat([30] * len(boxes), boxes, size=size)
    grain = torch.randint(0, 30, images.images.shape, generator=torch.Generator().manual_seed(0))
    bright = images.masks[:, None] * 150
    return replace(images, images=(images.images + grain + bright).byte())


def test_grabcut_finds_the_object_in_a_looser_box():
    images = squares([[10, 12, 26, 30], [4, 4, 20, 15]])
    loose = replace(images, boxes=images.boxes + torch.tensor([-4, -4, 4, 4]))
    masks, failed = grabcut_masks(loose)
    assert torch.equal(masks, images.masks) and not failed.any()


def test_grabcut_failures_keep_their_box():
    images = squares([[10, 10, 12, 12], [0, 0, 40, 40], [3, 3, 3, 9], [20, 20, 24, 24]])
    boxes = images.boxes.clone()
    boxes[0] = torch.tensor([2, 2, 38, 38])  # the object covers 4 of 1,296 px
    masks, failed = grabcut_masks(replace(images, boxes=boxes))
    assert failed[:3].all()
    box = flat([0] * 4, boxes.tolist(), size=40).masks
    assert torch.equal(masks[:3], box[:3])


def test_grabcut_does_not_depend_on_threads_or_neighbours():
    images = scenes()
    masks, failed = grabcut_masks(images, workers=1)
    again, failed_again = grabcut_masks(images, workers=3)
    assert torch.equal(masks, again) and torch.equal(failed, failed_again)
    backwards, _ = grabcut_masks(images[torch.arange(39, -1, -1)], workers=2)
    assert torch.equal(backwards.flip(0), masks)
    inside = flat([0] * 40, images.boxes.tolist(), size=32).masks
    assert not (masks & ~inside).any()
    assert (
        agreement(masks, images.masks)["iou"].mean() > agreement(inside, images.masks)["iou"].mean()
    )


def test_grabcut_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="at least 1 iteration"):
        grabcut_masks(scenes(), iterations=0)
    for box in ([-1, 0, 5, 5], [0, 0, 33, 5], [5, 0, 4, 5]):
        outside = replace(scenes()[0], boxes=torch.tensor([box]))
        for use in (grabcut_masks, tiled):
            with pytest.raises(ValueError, match="32 x 32 px"):
                use(outside)


# ---- tiled and random backgrounds


def tiled_plainly(image, box):
    """One picture at a time, with np.tile."""
    x0, y0, x1, y1 = box
    _, h, w = image.shape
    strips = [image[:, :, :x0], image[:, :, x1:], image[:, :y0], image[:, y1:]]
    strip = max(strips, key=lambda s: s.size)  # the first of the largest
    if not strip.size or x0 == x1 or y0 == y1:
        return np.zeros_like(image), False
    copies = np.tile(strip, (1, h // strip.shape[1] + 1, w // strip.shape[2] + 1))[:, :h, :w]
    out = image.copy()
    out[:, y0:y1, x0:x1] = copies[:, y0:y1, x0:x1]
    return out, True


@given(SHAPES, SEEDS, st.data())
def test_tiling_against_a_plain_loop(shape, seed, data):
    images = pictures(shape, seed)
    _, _, h, w = images.images.shape
    edges = [data.draw(st.lists(st.integers(0, s), min_size=2, max_size=2)) for s in (w, h)]
    (x0, x1), (y0, y1) = map(sorted, edges)
    given_box = torch.tensor([[x0, y0, x1, y1]]).repeat(len(images), 1)
    for boxes in (None, given_box):
        backgrounds, usable = tiled(replace(images, boxes=boxes))
        boxes = boxes_of(images.masks) if boxes is None else boxes
        for row, box in enumerate(boxes.tolist()):
            expected, fits = tiled_plainly(images.images[row].numpy(), box)
            assert bool(usable[row]) == fits
            assert np.array_equal(backgrounds[row], expected)


def test_tiling_by_hand():
    row = torch.tensor([[1, 2, 90, 91, 92, 3]], dtype=torch.uint8)
    images = flat([0], [[2, 0, 5, 6]])
    images = replace(images, images=row.expand(1, 3, 6, 6).contiguous())
    backgrounds, usable = tiled(images)
    assert usable.all()
    assert (backgrounds == torch.tensor([1, 2, 1, 2, 1, 3])).all()


@given(SHAPES, SEEDS)
def test_objects_move_onto_another_pictures_background(shape, seed):
    images = pictures(shape, seed)
    images = replace(images, backdrops=torch.arange(len(images)), backdrop_names=tuple("vwxyz"))
    backgrounds, usable = tiled(images)
    if int(usable.sum()) < 2:
        with pytest.raises(ValueError, match="no background to move to"):
            on_random_backgrounds(images, seed=seed)
        return
    before = images.images.clone()
    moved = on_random_backgrounds(images, seed=seed)
    assert moved.key == on_random_backgrounds(images, seed=seed).key
    for row, donor in enumerate(moved.backdrops.tolist()):  # each picture's backdrop is its row
        assert donor != row and usable[donor]
        mask = images.masks[row].expand(3, -1, -1)
        assert torch.equal(moved.images[row][mask], before[row][mask])
        assert torch.equal(moved.images[row][~mask], backgrounds[donor][~mask])
    assert moved.masks is images.masks and moved.labels is images.labels
    assert torch.equal(images.images, before)


def test_classes_are_drawn_evenly_then_their_images():
    donors = flat([1, 2, 3, 4, 5], [[2, 2, 4, 4]] * 4 + [[0, 0, 6, 6]], [0, 0, 0, 1, 2])
    images = flat([100] * 6_000, [[2, 2, 4, 4]] * 6_000)
    drawn = on_random_backgrounds(images, seed=0, donors=donors).images[:, 0, 0, 0]
    share = torch.bincount(drawn.long(), minlength=6)[1:] / 6_000
    # class 2 has no usable background; the other two share evenly
    assert (share - torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2, 0])).abs().max() < 0.03
    other = on_random_backgrounds(images, seed=1, donors=donors).images[:, 0, 0, 0]
    assert not torch.equal(drawn, other)


def test_the_same_picture_is_known_by_its_id():
    boxes = [[2, 2, 4, 4]] * 3
    images = flat([10, 20, 30], boxes, ids=("x", "y", "z"))
    donors = flat([30, 10], boxes[:2], ids=("z", "x"))
    for seed in range(10):
        corner = on_random_backgrounds(images, seed=seed, donors=donors).images[:, 0, 0, 0]
        assert corner[0] == 30 and corner[2] == 10
    with pytest.raises(ValueError, match="another image"):
        on_random_backgrounds(images, seed=0, donors=donors[0])
    unnamed = on_random_backgrounds(images, seed=0, donors=replace(donors[0], ids=()))
    assert (unnamed.images[:, 0, 0, 0] == 30).all()


def test_backdrops_follow_their_donors():
    images, donors = scenes()[:20], scenes()[20:]
    moved = on_random_backgrounds(images, seed=0, donors=donors)
    assert moved.backdrop_names == donors.backdrop_names
    unknown = on_random_backgrounds(images, seed=0, donors=replace(donors, backdrops=None))
    assert unknown.backdrops is None
    assert torch.equal(unknown.images, moved.images)
    with pytest.raises(ValueError, match="32 x 32 px and donors 6 x 6 px"):
        on_random_backgrounds(images, seed=0, donors=flat([1], [[2, 2, 4, 4]]))


def test_an_empty_set_stays_empty():
    none = scenes()[:0]
    for make in TRAINING_SETS.values():
        assert len(make(none, 0)) == 0
    assert len(on_random_backgrounds(none, seed=0)) == 0
    for bare in (none, replace(none, masks=None)):
        assert [len(s) for s in variants(bare, seed=0).sets.values()] == [0] * 8
    assert len(stamped(none, torch.zeros(3, 2, 2, dtype=torch.uint8), x=0, y=0)[1]) == 0
    assert [len(x) for x in (*tiled(none), *grabcut_masks(none), removable(none))] == [0] * 5


# ---- backgrounds of the same, a random and the next class


def objects(n, seed, *, ids, boxes, first=0) -> ImageSet:
    """Pictures of 5 x 6 px with objects of any shape, some empty, full or out of their boxes.

    Of five classes two never occur, another is rare. Backdrops number the rows from `first` on.
    """
    rng = np.random.default_rng((seed, n, first))
    images = rng.integers(0, 256, (n, 3, 5, 6), np.uint8) * (rng.random((n, 1, 5, 6)) > 0.2)
    masks, places = np.zeros((n, 5, 6), bool), np.zeros((n, 4), np.int64)
    for mask, place in zip(masks, places, strict=True):
        twice, full = rng.random(2) < 0.1
        (x0, x1), (y0, y1) = (
            (0, side) if full else np.sort(rng.choice(side + 1, 2, replace=twice))
            for side in (6, 5)
        )
        place[:] = x0, y0, x1, y1
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.8
        mask[rng.integers(5), rng.integers(6)] |= rng.random() < 0.1
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(rng.choice([0, 0, 1, 1, 3], n)),
        class_names=tuple("abcde"),
        masks=torch.from_numpy(masks),
        boxes=torch.from_numpy(places) if boxes else None,
        backdrops=torch.arange(first, first + n),
        backdrop_names=tuple(map(str, range(first + n))),
        ids=tuple(f"photo {i}" for i in rng.integers(0, 20, n)) if ids else (),
    )


@st.composite
def pairs(draw):
    """Calls to `objects`: images and the donors of their backgrounds, or None."""
    call = st.fixed_dictionaries({"n": st.integers(1, 9), "seed": SEEDS, "boxes": st.booleans()})
    ids = draw(st.booleans())
    images, donors = draw(call) | {"ids": ids}, draw(call) | {"ids": ids, "first": 100}
    return images, donors if draw(st.booleans()) else None


def made_of(pair) -> tuple[ImageSet, ImageSet]:
    images = objects(**pair[0])
    return images, images if pair[1] is None else objects(**pair[1])


def box_plainly(images, row):
    if images.boxes is not None:
        return images.boxes[row].tolist()
    ys, xs = np.nonzero(images.masks[row].numpy())
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4


def filled_plainly(images, row):
    return tiled_plainly(images.images[row].numpy(), box_plainly(images, row))


def others_plainly(images, donors, row):
    """Of each class, the donors with a background that are another picture than this row."""
    others = {label: [] for label in range(len(donors.class_names))}
    for donor, label in enumerate(donors.labels.tolist()):
        if images.ids and donors.ids:
            itself = images.ids[row] == donors.ids[donor]
        else:
            itself = donors is images and donor == row
        if filled_plainly(donors, donor)[1] and not itself:
            others[label].append(donor)
    return others


def allowed_plainly(images, donors, row, which):
    """The donors that this row may get."""
    others = others_plainly(images, donors, row)
    own, classes = int(images.labels[row]), len(images.class_names)
    if which == "same":
        return others[own]
    if which == "random":
        return [donor for label in others for donor in others[label]]
    for step in range(1, classes):
        if others[(own + step) % classes]:
            return others[(own + step) % classes]
    return []


@given(pairs(), SEEDS, st.sampled_from(["same", "random", "next"]))
def test_objects_move_to_the_classes_asked_for(pair, seed, which):
    images, donors = made_of(pair)
    allowed = [allowed_plainly(images, donors, row, which) for row in range(len(images))]
    if not all(allowed):
        name = images.class_names[images.labels[[not a for a in allowed].index(True)]]
        ending = {"same": f"of the class '{name}'", "next": f"of a class other than '{name}'"}
        with pytest.raises(ValueError, match=rf"another image ?{ending.get(which, '')}$"):
            on_backgrounds(images, which, seed=seed, donors=donors)
        return
    moved = on_backgrounds(images, which, seed=seed, donors=donors)
    assert moved.key == on_backgrounds(images, which, seed=seed, donors=donors).key
    assert moved.masks is images.masks and moved.labels is images.labels
    first = int(donors.backdrops[0])  # backdrops number the donors
    for row, backdrop in enumerate(moved.backdrops.tolist()):
        donor = backdrop - first
        assert donor in allowed[row]
        background, _ = filled_plainly(donors, donor)
        expected = np.where(images.masks[row].numpy(), images.images[row].numpy(), background)
        assert np.array_equal(moved.images[row], expected)


@given(pairs(), SEEDS)
def test_random_draws_stay_those_that_stored_results_rest_on(pair, seed):
    """Class after class, image after image, in rounds; those that hit themselves go again."""
    images, donors = made_of(pair)
    if not all(allowed_plainly(images, donors, row, "random") for row in range(len(images))):
        return
    usable = [donor for donor in range(len(donors)) if filled_plainly(donors, donor)[1]]
    by_class = [[i for i in usable if donors.labels[i] == label] for label in range(5)]
    by_class = [rows for rows in by_class if rows]
    rng = torch.Generator().manual_seed(seed)
    chosen, todo = {}, list(range(len(images)))
    while todo:
        classes = torch.randint(len(by_class), (len(todo),), generator=rng).tolist()
        shares = torch.rand(len(todo), generator=rng, dtype=torch.float64).tolist()
        for row, of, share in zip(todo, classes, shares, strict=True):
            chosen[row] = by_class[of][int(share * len(by_class[of]))]
        todo = [r for r in todo if chosen[r] not in allowed_plainly(images, donors, r, "random")]
    expected = [int(donors.backdrops[chosen[row]]) for row in range(len(images))]
    assert on_random_backgrounds(images, seed=seed, donors=donors).backdrops.tolist() == expected


def test_within_a_class_every_other_image_is_equally_likely():
    n = 6_000
    images = flat([100] * n, [[2, 2, 4, 4]] * n, [0, 1] * (n // 2), ids=tuple(map(str, range(n))))
    values, labels = [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 2]
    donors = flat(values, [[2, 2, 4, 4]] * 5 + [[0, 0, 6, 6]], labels)
    donors = replace(donors, ids=("0", *"vwxyz"))  # the first donor is the first image

    def shares(which, seed=0):
        drawn = on_backgrounds(images, which, seed=seed, donors=donors).images[:, 0, 0, 0].long()
        return drawn, [torch.bincount(drawn[k::2], minlength=7)[1:] / (n // 2) for k in (0, 1)]

    same, (first, second) = shares("same")
    assert (first - torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0, 0])).abs().max() < 0.04
    assert second.tolist() == [0, 0, 0, 1, 0, 0]
    following, (first, second) = shares("next")
    assert first.tolist() == [0, 0, 0, 1, 0, 0] and second.tolist() == [0, 0, 0, 0, 1, 0]
    assert not torch.equal(same, shares("same", seed=1)[0])
    own = [
        int(on_backgrounds(images[0], "same", seed=s, donors=donors).images[0, 0, 0, 0])
        for s in range(20)
    ]
    assert set(own) == {2, 3}


def test_the_next_class_goes_round_and_skips_those_without_a_background():
    boxes = [[2, 2, 4, 4], [0, 0, 6, 6], [2, 2, 4, 4]]
    images = flat([10, 20, 30], boxes, [0, 1, 2])
    assert on_backgrounds(images, "next", seed=0).images[:, 0, 0, 0].tolist() == [30, 20, 10]
    with pytest.raises(ValueError, match="of another image of the class 'a'$"):
        on_backgrounds(images, "same", seed=0)
    with pytest.raises(ValueError, match="of another image of a class other than 'c'$"):
        on_backgrounds(images[2], "next", seed=0, donors=images[1:])


def test_classes_that_do_not_correspond_are_refused():
    images = flat([10, 20], [[2, 2, 4, 4]] * 2, [0, 1])
    donors = replace(images, class_names=("c", "a", "b"))
    for use in (
        lambda: on_backgrounds(images, "same", seed=0, donors=donors),
        lambda: on_backgrounds(images, "next", seed=0, donors=donors),
        lambda: variants(images, seed=0, donors=donors),
    ):
        with pytest.raises(ValueError, match="donors have the classes c, a, b.*images, a, b, c$"):
            use()
    assert len(on_backgrounds(images, "random", seed=0, donors=donors)) == 2


def test_other_kinds_of_backgrounds_are_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match="no backgrounds 'nxt'; there are same, random, next"):
        on_backgrounds(scenes(), "nxt", seed=0)


# ---- ImageNet-9's eight variants


MIXED = {"mixed_same": "same", "mixed_rand": "random", "mixed_next": "next"}


def test_variants_have_the_names_of_the_release():
    assert tuple(VARIANTS) == photos.IN9_VARIANTS
    assert list(VARIANTS.values()) == [
        *("Original", "Mixed-Same", "Mixed-Rand", "Mixed-Next"),
        *("Only-FG", "No-FG", "Only-BG-B", "Only-BG-T"),
    ]


def three() -> ImageSet:
    """Pictures of one row of six; the first one's object is a black pixel and a bright one."""
    values = [[1, 2, 0, 91, 92, 3], [10, 20, 30, 40, 50, 60], [7, 8, 9, 11, 12, 13]]
    masks = [[0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    return ImageSet(
        images=torch.tensor(values, dtype=torch.uint8)[:, None, None].repeat(1, 3, 1, 1),
        labels=torch.tensor([0, 0, 1]),
        class_names=("a", "b", "c"),
        masks=torch.tensor(masks).bool()[:, None],
    )


def test_variants_by_hand():
    made = variants(three(), seed=0)
    assert list(made.sets) == list(VARIANTS)
    expected = {
        "original": [[1, 2, 0, 91, 92, 3], [10, 20, 30, 40, 50, 60]],
        "mixed_same": [[30, 40, 0, 40, 92, 60], [10, 20, 1, 2, 1, 3]],  # black stays the object's
        "mixed_next": [[7, 8, 0, 11, 92, 7], [10, 20, 9, 11, 12, 7]],
        "only_fg": [[0, 0, 0, 0, 92, 0], [10, 20, 0, 0, 0, 0]],
        "no_fg": [[1, 2, 0, 91, 0, 3], [0, 0, 30, 40, 50, 60]],
        "only_bg_b": [[1, 2, 0, 0, 0, 3], [0, 0, 30, 40, 50, 60]],
        "only_bg_t": [[1, 2, 1, 2, 1, 3], [30, 40, 30, 40, 50, 60]],
    }
    for name, rows in expected.items():
        assert made.sets[name].images[:, :, 0].tolist() == [[row] * 3 for row in rows], name
    assert {k: v.tolist() for k, v in made.donors.items() if k != "mixed_rand"} == {
        "mixed_same": [1, 0],
        "mixed_next": [2, 2],
    }
    assert made.failures == {"no other image of its class has a background": 1}  # yet it lends


def reason_plainly(images, donors, row):
    mask, (x0, y0, x1, y1) = images.masks[row].numpy(), box_plainly(images, row)
    outside = mask.copy()
    outside[y0:y1, x0:x1] = False
    if not mask.any() or x0 == x1 or y0 == y1:
        return "the mask or the box is empty"
    if outside.any():
        return "the mask reaches out of the box"
    if (y1 - y0) * (x1 - x0) == mask.size:
        return "the object fills the image"
    if not allowed_plainly(images, donors, row, "same"):
        return "no other image of its class has a background"
    if not allowed_plainly(images, donors, row, "next"):
        return "no image of another class has a background"
    return ""


def pixel_plainly(name, value, foreground, boxed, tiled_value, background):
    if name == "original":
        return value
    if name == "only_fg":
        return value if foreground else 0
    if name == "no_fg":
        return 0 if foreground else value
    if name == "only_bg_b":
        return 0 if boxed else value
    if name == "only_bg_t":
        return tiled_value
    return value if foreground else background


@settings(max_examples=50)
@given(pairs(), SEEDS)
def test_variants_against_plain_loops(pair, seed):
    images, donors = made_of(pair)
    made = variants(images, seed=seed, donors=donors)
    reasons = [reason_plainly(images, donors, row) for row in range(len(images))]
    kept = [row for row, reason in enumerate(reasons) if not reason]
    assert made.failures == {r: reasons.count(r) for r in sorted(reasons) if r}
    assert list(made.sets) == list(VARIANTS) and list(made.donors) == list(MIXED)
    for place, row in enumerate(kept):
        image, mask, box = images.images[row].numpy(), images.masks[row], box_plainly(images, row)
        own, _ = filled_plainly(images, row)
        for name, variant in made.sets.items():
            background = own
            if name in MIXED:
                donor = int(made.donors[name][place])
                assert donor in allowed_plainly(images, donors, row, MIXED[name])
                background, _ = filled_plainly(donors, donor)
            for c, y, x in np.ndindex(*image.shape):
                boxed = box[0] <= x < box[2] and box[1] <= y < box[3]
                expected = pixel_plainly(
                    name, image[c, y, x], mask[y, x], boxed, own[c, y, x], background[c, y, x]
                )
                assert variant.images[place, c, y, x] == expected


@settings(max_examples=50)
@given(pairs(), SEEDS)
def test_all_variants_have_the_same_rows_and_say_what_is_where(pair, seed):
    images, donors = made_of(pair)
    made = variants(images, seed=seed, donors=donors)
    sets, original = made.sets, made.sets["original"]
    assert len(original) + sum(made.failures.values()) == len(images)
    rows = original.backdrops  # each image's backdrop is its row
    assert rows.tolist() == sorted(rows.tolist()) and original.key == images[rows].key
    front = original.masks[:, None].expand_as(original.images)
    for name, variant in sets.items():
        for field in fields(ImageSet):
            if field.name not in ("images", "backdrops", "backdrop_names"):
                assert getattr(variant, field.name) is getattr(original, field.name)
        if name not in MIXED:
            assert variant.backdrops is original.backdrops
        if name == "only_fg" or name in MIXED:
            assert torch.equal(variant.images[front], original.images[front])
    assert torch.equal(sets["only_fg"].images + sets["no_fg"].images, original.images)
    for name, which in MIXED.items():
        chosen, labels = made.donors[name], donors.labels[made.donors[name]]
        assert torch.equal(sets[name].backdrops, donors.backdrops[chosen])
        if which != "random":
            assert ((labels == original.labels) == (which == "same")).all()
        if donors is images:
            assert (chosen != rows).all()
        if images.ids and donors.ids:
            assert not any(donors.ids[d] == i for d, i in zip(chosen, original.ids, strict=True))
        try:
            moved = on_backgrounds(images, which, seed=seed, donors=donors)
        except ValueError:
            continue
        assert moved[rows].key == sets[name].key


def test_an_image_that_fails_changes_nobody_elses_variants():
    images = replace(scenes(), ids=())
    whole = variants(images, seed=3)
    assert whole.failures == {} and whole.sets["original"].key == images.key
    masks = images.masks.clone()
    masks[[4, 17]] = False
    made = variants(replace(images, masks=masks), seed=3)  # their boxes still tell what to tile
    assert made.failures == {"the mask or the box is empty": 2}
    others = torch.ones(40, dtype=torch.bool)
    others[[4, 17]] = False
    for name, variant in made.sets.items():
        assert variant.key == whole.sets[name][others].key
    assert not torch.equal(
        whole.donors["mixed_rand"], variants(images, seed=4).donors["mixed_rand"]
    )


def test_donors_of_another_set_give_all_backgrounds():
    images = flat([100, 110, 120], [[2, 2, 4, 4]] * 3, [0, 1, 2])
    donors = flat([1, 2, 3, 4], [[0, 0, 3, 3]] * 3 + [[0, 0, 6, 6]], [2, 0, 1, 0])
    for given_donors in (donors, replace(donors, masks=None), replace(donors, boxes=None)):
        made = variants(images, seed=0, donors=given_donors)
        assert made.failures == {}
        corners = {name: made.sets[name].images[:, 0, 0, 0].tolist() for name in MIXED}
        assert corners["mixed_same"] == [2, 3, 1] and corners["mixed_next"] == [3, 1, 2]
        assert set(corners["mixed_rand"]) <= {1, 2, 3}
        assert made.donors["mixed_same"].tolist() == [1, 2, 0]
        assert (made.sets["mixed_rand"].images[:, 0, 2, 2] == images.images[:, 0, 2, 2]).all()
    with pytest.raises(ValueError, match="6 x 6 px and donors 32 x 32 px"):
        variants(images, seed=0, donors=scenes())


def test_one_class_has_no_next_one():
    images = flat([10, 20], [[2, 2, 4, 4]] * 2)
    made = variants(images, seed=0)
    assert made.failures == {"no image of another class has a background": 2}
    assert [len(variant) for variant in made.sets.values()] == [0] * 8


def test_images_with_boxes_only_are_cut_by_grabcut():
    boxes = [[10, 12, 26, 30], [4, 4, 20, 15], [10, 10, 12, 12], [8, 8, 20, 20], [9, 9, 30, 20]]
    images = squares(boxes + [[3, 3, 3, 9], [0, 0, 40, 40]])
    loose = images.boxes.clone()
    loose[:5] += torch.tensor([-4, -4, 4, 4])
    loose[2] = torch.tensor([2, 2, 38, 38])  # its object covers 4 of 1,296 px
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    made = variants(replace(images, labels=labels, boxes=loose, masks=None), seed=0)
    assert made.failures == {
        "the mask or the box is empty": 1,
        "the object fills the image": 1,
        "GrabCut's foreground is below 10 % of its box": 1,
    }
    kept = [0, 1, 3, 4]
    for variant in made.sets.values():
        assert torch.equal(variant.masks, images.masks[kept])
        assert torch.equal(variant.boxes, loose[kept])
    x0, y0, x1, y1 = loose[0].tolist()
    dark = made.sets["only_bg_b"].images[0] == 0
    assert dark[:, y0:y1, x0:x1].all()  # the given box, not the mask's
    outside = torch.ones(40, 40, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    given_picture = images.images[0][:, outside]
    assert torch.equal(made.sets["only_bg_b"].images[0][:, outside], given_picture)
    again = variants(made.sets["original"], seed=0)  # made masks are masks
    assert again.failures == {} and again.sets["only_bg_t"].key == made.sets["only_bg_t"].key
    with pytest.raises(ValueError, match="at least 1 iteration"):
        variants(replace(images, masks=None), seed=0, iterations=0)


def test_grabcut_runs_as_often_as_asked():
    boxed = replace(scenes(), masks=None)
    for iterations in (1, 5):
        masks, failed = grabcut_masks(boxed, iterations=iterations)
        made = variants(boxed, seed=0, iterations=iterations)
        assert torch.equal(made.sets["no_fg"].masks, masks[~failed])
    assert not torch.equal(masks, grabcut_masks(boxed, iterations=1)[0])  # else it shows nothing


def test_variants_need_masks_or_boxes():
    with pytest.raises(ValueError, match=r"^variants\(\) needs .*boxes are missing too"):
        variants(replace(scenes(), masks=None, boxes=None), seed=0)


# ---- planted shortcuts


@given(SHAPES, SEEDS, st.data())
def test_stamps_against_a_plain_loop(shape, seed, data):
    images = pictures(shape, seed)
    parts = images.masks * torch.randint(1, 4, images.masks.shape)
    images = replace(images, parts=parts.byte())
    before = images.key
    n, h, w = shape
    height, width = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    x, y = data.draw(st.integers(0, w - width)), data.draw(st.integers(0, h - height))
    pattern = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    made, marks = stamped(images, pattern, x=x, y=y)
    for i, row, column in np.ndindex(n, h, w):
        at = i, row, column
        under = x <= column < x + width and y <= row < y + height
        colour = pattern[:, row - y, column - x] if under else images.images[i, :, row, column]
        assert marks[at] == under and torch.equal(made.images[i, :, row, column], colour)
        assert made.masks[at] == (images.masks[at] and not under)
        assert made.parts[at] == (0 if under else images.parts[at])
    assert made.labels is images.labels and images.key == before


def test_stamps_need_room_but_no_masks():
    images = flat([9], [[0, 0, 1, 1]])
    pattern = torch.full((3, 2, 2), 200, dtype=torch.uint8)
    bare, marks = stamped(replace(images, masks=None), pattern, x=4, y=0)
    assert bare.masks is None and bare.parts is None and marks.sum() == 4
    for x, y in ((5, 0), (0, 5), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="2 x 2 px .*0 <= x <= 4 and 0 <= y <= 4"):
            stamped(images, pattern, x=x, y=y)


# ---- masks without human help


def test_otsu_parts_two_levels_wherever_they_are():
    shape = torch.zeros(4, 6, dtype=torch.bool)
    shape[1:3, 2:5] = True
    levels = [(0.0, 1.0), (-3.0, -2.5), (0.2, 0.2 + 1e-7), (0.0, 1e-30)]
    maps = torch.stack([torch.where(shape, high, low) for low, high in levels])
    assert (attribution_masks(maps) == shape).all()
    assert not (attribution_masks(-maps) & shape).any()  # higher is foreground


def test_otsu_is_the_split_with_the_most_variance_between_its_sides():
    maps = torch.rand(5, 9, 9, generator=torch.Generator().manual_seed(0))
    maps[:, 2:6, 3:8] += torch.linspace(0.2, 1, 5)[:, None, None]
    for mask, values in zip(attribution_masks(maps), maps, strict=True):

        def between(cut, values=values):
            low, high = values[values < cut], values[values >= cut]
            return len(low) * len(high) * (low.mean() - high.mean()) ** 2

        lowest = values[mask].min()
        assert torch.equal(mask, values >= lowest)
        best = max(values.unique()[1:], key=between)
        other = values[mask != (values >= best)]  # only those in the threshold's own bin, 1 of 256
        assert (other - lowest).abs().le((values.max() - values.min()) / 256).all()


def test_a_map_without_a_threshold_keeps_everything():
    maps = torch.stack((torch.zeros(4, 4), torch.full((4, 4), 0.7), torch.eye(4)))
    masks = attribution_masks(maps)
    assert masks[:2].all() and torch.equal(masks[2], torch.eye(4).bool())
    assert attribution_masks(maps[:0]).shape == (0, 4, 4)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            attribution_masks(maps.masked_fill(maps == 1, bad))


class Painted(nn.Module):
    """Undoes ImageNet's normalisation and gives each pixel the class of that number in its red.

    In training mode it finds nothing.
    """

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.classes, self.batches = classes, []

    def forward(self, images):
        self.batches.append(len(images))
        red = (images[:, 0] * 0.229 + 0.485) * 255
        scores = nn.functional.one_hot(red.round().long(), self.classes).movedim(3, 1).float()
        return OrderedDict(out=scores * (not self.training), aux=-scores)


def test_a_segmenter_keeps_the_images_own_class_or_any_object():
    reds = torch.tensor([[0, 12, 15, 12], [12, 0, 0, 15], [0, 12, 15, 20], [0, 0, 3, 3]])
    picture = torch.zeros(4, 3, 1, 4, dtype=torch.uint8)
    picture[:, 0, 0] = reds.byte()
    images = ImageSet(picture, torch.tensor([0, 1, 2, 0]), ("dog", "person", "vehicle"))
    expected = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]).bool()
    network = Painted()
    masks = segmented_masks(network, images, batch_size=3)
    assert torch.equal(masks[:, 0], expected)
    assert network.batches == [3, 1] and network.training  # used in eval mode, and put back
    normalised = nn.Sequential(OrderedDict(normalise=Normalised(), network=Painted()))
    assert torch.equal(segmented_masks(normalised, images), masks)  # not normalised twice
    assert black(replace(images, masks=masks)).images[:, 0, 0].equal((reds * expected).byte())
    assert segmented_masks(network, images[:0]).shape == (0, 1, 4)


def test_voc_classes_are_numbered_as_the_segmenters_are_trained():
    weights = torchvision.models.segmentation.DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1
    assert weights.meta["categories"][1:] == list(photos.VOC_CLASSES)


def test_a_segmenter_with_other_answers_is_refused():
    images = flat([0, 0], [[0, 0, 1, 1]] * 2)
    with pytest.raises(ValueError, match=r"gave \(2, 30, 6, 6\).*valid is \(2, 21, 6, 6\)"):
        segmented_masks(Painted(classes=30), images)
    with pytest.raises(ValueError, match="gave nothing"):
        segmented_masks(nn.Identity(), images)
    with pytest.raises(ValueError, match="at least 1 image"):
        segmented_masks(Painted(), images, batch_size=0)
