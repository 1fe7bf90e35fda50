"""Backgrounds: the object stays bit for bit, the rest is exactly what was asked for."""

import math
from collections import OrderedDict
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import config
from test_photos import BLUE, DOG, near, voc_photo
from torch import nn

from helpers import photos
from helpers.backgrounds import (
    TRAINING_SETS,
    agreement,
    attribution_masks,
    black,
    boxes_of,
    compose,
    grabcut_masks,
    mixed,
    noise,
    on_random_backgrounds,
    removable,
    segmented_masks,
    standard,
    tiled,
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
        "on_random_backgrounds": lambda images: on_random_backgrounds(images, seed=0),
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
    assert [len(x) for x in (*tiled(none), *grabcut_masks(none), removable(none))] == [0] * 5


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
