"""The procedural world: determinism, exact labels, and knobs that do what they say."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from helpers.scenes import backdrops
from helpers.scenes import render as drawing
from helpers.scenes.anatomy import Body, curve, draw_coat, joint, rotate, tube
from helpers.scenes.bodies import CLASSES, PART_NAMES, PLANS, SUPERCLASS_OF, SUPERCLASSES
from helpers.scenes.render import STREAMS, render
from helpers.scenes.world import World

few = settings(max_examples=60, deadline=None)
scene_numbers = {"seed": st.integers(0, 10_000), "index": st.integers(0, 10_000)}


def same(first, second) -> bool:
    return all(np.array_equal(getattr(first, f), getattr(second, f)) for f in vars(first))


# ------------------------------------------------------------------------------------ determinism


def test_a_scene_does_not_depend_on_batch_order_or_workers():
    world = World(seed=5, size=32)
    many = world.images(range(40))
    some = world.images([31, 7, 0])
    for field in ("images", "masks", "parts", "boxes", "labels", "views", "backdrops"):
        assert torch.equal(getattr(some, field), getattr(many, field)[[31, 7, 0]]), field
    assert some.ids == ("world 5, scene 31", "world 5, scene 7", "world 5, scene 0")
    assert world.images(range(200), workers=2).key == world.images(range(200), workers=1).key


@few
@given(**scene_numbers)
def test_a_scene_comes_from_its_numbers_alone(seed, index):
    first = render(seed, index, 32)
    np.random.seed(seed % 7)  # the global generators play no part
    render(seed + 1, index, 48)
    assert same(first, render(seed, index, 32))


def test_other_numbers_give_other_scenes():
    pictures = [render(seed, index, 32).image for seed in range(3) for index in range(0, 54, 18)]
    assert len({p.tobytes() for p in pictures}) == 9


def test_an_empty_world_has_every_field_and_no_rows():
    empty = World().images([])
    assert len(empty) == 0 and empty.class_names == CLASSES and empty.parts.shape == (0, 64, 64)


# -------------------------------------------------------------------------------------- labels


@few
@given(**scene_numbers, size=st.sampled_from([16, 31, 64, 100]))
def test_parts_tile_the_mask_and_the_box_fits_it(seed, index, size):
    scene = render(seed, index, size)
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert np.array_equal(scene.parts > 0, scene.mask)
    assert scene.parts.max() < len(PART_NAMES)
    x0, y0, x1, y1 = scene.box
    inside = np.zeros_like(scene.mask)
    inside[y0:y1, x0:x1] = True
    assert not (scene.mask & ~inside).any()
    if scene.mask.any():
        assert scene.mask[y0].any() and scene.mask[y1 - 1].any()
        assert scene.mask[:, x0].any() and scene.mask[:, x1 - 1].any()
    assert scene.label == index % 18 and abs(scene.view) in (0, 1)


def flat(level: float):
    """A backdrop of one grey, with nothing in front."""
    return lambda name, rng, size: backdrops.Backdrop(
        np.full((size, size, 3), level, np.float32), 0.5, Body()
    )


@pytest.mark.parametrize("label", range(18), ids=CLASSES)
def test_the_mask_ends_where_the_picture_of_the_object_ends(label, monkeypatch):
    """Matting from outside: where a darker and a lighter wall look the same, the object is in
    front. That silhouette must be the mask, to within a pixel, whatever the renderer's insides."""
    monkeypatch.setattr(drawing, "_cast_shadow", lambda backdrop, *_: backdrop)
    everything = PART_NAMES[1:]
    for index in range(6):
        shots = {}
        for level in (0.15, 0.5):
            monkeypatch.setattr(backdrops, "paint", flat(level))
            shots[level] = render(3, index, 96, label=label)
            shots[level, "empty"] = render(3, index, 96, label=label, hide=everything)
        brightness = {k: s.image.astype(float).sum(2) for k, s in shots.items()}
        seen_through = (brightness[0.5] - brightness[0.15]) / (
            brightness[0.5, "empty"] - brightness[0.15, "empty"]
        )
        silhouette, mask = seen_through < 0.5, shots[0.5].mask
        near = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        assert mask.any() and not ((silhouette != mask) & ~near).any()


def test_a_foreground_strand_is_not_the_object(monkeypatch):
    front = Body()
    front.polygon("", [(0, 0), (1, 0), (1, 1), (0, 1)], np.zeros(3))
    covered = lambda name, rng, size: backdrops.Backdrop(  # noqa: E731
        np.ones((size, size, 3), np.float32), None, front
    )
    monkeypatch.setattr(backdrops, "paint", covered)
    scene = render(0, 0, 32)
    assert not scene.mask.any() and scene.box == (0, 0, 0, 0)


def test_the_same_scene_at_two_resolutions():
    for index in range(36):
        small, large = render(1, index, 64), render(1, index, 128)
        shrunk = cv2.resize(large.mask.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
        union, both = small.mask | (shrunk >= 0.5), small.mask & (shrunk >= 0.5)
        assert both.sum() > 0.85 * union.sum(), CLASSES[small.label]
        assert small.backdrop == large.backdrop and small.view == large.view


def test_every_object_is_visible_and_leaves_room():
    shares = World(seed=2, size=48).images(range(540)).masks.float().mean((1, 2))
    assert shares.min() > 0.02 and shares.max() < 0.85
    assert 0.1 < shares.mean() < 0.45


# --------------------------------------------------------------------------------------- classes


def test_eighteen_classes_in_nine_pairs():
    assert len(CLASSES) == 18 and len(SUPERCLASSES) == 9
    assert tuple(i // 2 for i in range(18)) == SUPERCLASS_OF
    world = World(size=16).images(range(90))
    assert set(world.counts().values()) == {5}


@pytest.mark.parametrize("name", CLASSES)
def test_a_body_is_made_of_several_named_parts(name):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        body = PLANS[name](rng, draw_coat(rng))
        parts = {s.part for s in body.strokes}
        assert parts <= set(PART_NAMES[1:]), parts - set(PART_NAMES)
        assert len(parts) >= 3 and len(body.strokes) <= 100
        assert all(np.isfinite(s.outline).all() and len(s.outline) >= 3 for s in body.strokes)
        on = {part for s in body.strokes for part in s.on}
        assert on <= parts, f"a marking lies on {on - parts}, which was never drawn"


def test_every_named_part_is_drawn_somewhere():
    seen = set(World(seed=4).images(range(720)).parts.unique().tolist())
    assert [n for i, n in enumerate(PART_NAMES) if i not in seen] == []


def colours(world, bins: int):
    """Mean colour and colour histogram of every object, the true mask given, and the classes."""
    drawn = world.images(range(1_080))
    found = []
    for picture, mask in zip(drawn.images, drawn.masks, strict=True):
        pixels = picture[:, mask].double().T / 255
        cells = (pixels * bins).long().clamp(max=bins - 1) @ torch.tensor([bins**2, bins, 1])
        histogram = torch.bincount(cells, minlength=bins**3) / len(pixels)
        found.append(torch.cat([pixels.mean(0), histogram]))
    return torch.stack(found).numpy(), drawn.labels.numpy()


def test_colour_alone_tells_little_about_the_class():
    """Linear classifiers on colour, the true mask given. Chance is 5.6 %, a network nears 90 %."""
    (x, y), (fresh, truth) = (colours(World(seed=s, size=32), bins=4) for s in (21, 22))
    judged = {
        name: LogisticRegression(max_iter=2_000).fit(x[:, of], y).score(fresh[:, of], truth)
        for name, of in (("mean", slice(0, 3)), ("histogram", slice(3, None)))
    }
    assert judged["mean"] < 0.12 and judged["histogram"] < 0.22, judged


# ----------------------------------------------------------------------------------------- knobs


def test_the_tie_runs_from_nothing_to_everything():
    home = [backdrops.NAMES.index(backdrops.HOME[SUPERCLASS_OF[i % 18]]) for i in range(720)]
    share = {}
    for tie in (0.0, 0.5, 1.0):
        drawn = World(seed=9, size=16, tie=tie).images(range(720))
        share[tie] = (drawn.backdrops == torch.tensor(home)).float().mean().item()
    chance = 1 / len(backdrops.NAMES)
    assert abs(share[0.0] - chance) < 0.04  # four standard errors
    assert abs(share[0.5] - (0.5 + 0.5 * chance)) < 0.08
    assert share[1.0] == 1


def test_hiding_a_part_only_takes_away():
    for index in range(18):
        whole = render(8, index, 64)
        part = PART_NAMES[np.bincount(whole.parts[whole.mask]).argmax()]
        without = render(8, index, 64, hide=[part])
        assert PART_NAMES.index(part) not in without.parts
        assert not (without.mask & ~whole.mask).any()


def test_a_variation_keeps_what_was_not_asked_to_change():
    for index in range(54):
        whole, mate = render(8, index, 32), render(8, index, 32, label=index % 18 ^ 1)
        assert mate.backdrop == whole.backdrop and whole.view * mate.view >= 0
        moved = render(8, index, 32, backdrop="snow")
        assert (moved.label, moved.view) == (whole.label, whole.view)
        assert render(8, index, 32, backdrop=backdrops.NAMES[whole.backdrop]).box == whole.box


def test_label_and_backdrop_can_be_chosen():
    scene = render(1, 2, 32, label=11, backdrop="snow")
    assert scene.label == 11 and backdrops.NAMES[scene.backdrop] == "snow"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "at least 16"),
        ({"tie": 1.5}, "between 0 and 1"),
        ({"label": 18}, "0..17"),
        ({"backdrop": "moon"}, "meadow"),
        ({"hide": ["rotor"]}, "wheel"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(wrong, message):
    with pytest.raises(ValueError, match=message):
        render(0, 0, **wrong)


# --------------------------------------------------------------------------------------- outlines


def test_a_curve_passes_through_its_points():
    points = np.array([(0, 0), (1, 0), (1, 1), (0, 2)], float)
    assert np.allclose(curve(points, closed=True, steps=6)[::6], points)
    assert np.allclose(curve(points, steps=6)[::6], points)


def test_a_straight_tube_is_as_wide_as_it_says():
    outline = tube([(0, 0), (1, 0), (2, 0)], [0.4, 0.4, 0.4], round_end=False)
    assert np.isclose(outline[:, 1].max(), 0.2) and np.isclose(outline[:, 1].min(), -0.2)


def test_joints_and_rotation_by_hand():
    assert np.allclose(joint((0, 0), [1, 2], [0, np.pi / 2]), [(0, 0), (1, 0), (1, 2)])
    assert np.allclose(rotate([(1, 0)], np.pi / 2), [(0, 1)])
    assert np.allclose(rotate([(2, 1)], np.pi, about=(1, 1)), [(0, 1)])


def test_too_many_strokes_are_refused():
    body = Body()
    for _ in range(256):
        body.ellipse("head", (0, 0), (1, 1), np.ones(3))
    with pytest.raises(ValueError, match="at most 255"):
        drawing._rasterise([s.outline for s in body.strokes], body.strokes, 32)


# Four streams, each of which can come from another scene.

SMALL = World(seed=3, size=32)
INDEX = st.integers(0, 500)
FEW = settings(max_examples=25, deadline=None)


@FEW
@given(INDEX)
def test_streams_of_the_same_scene_are_that_scene(index):
    again = SMALL.scene(index, redraw=dict.fromkeys(STREAMS, index))
    own = SMALL.scene(index)
    for name in ("image", "mask", "parts"):
        assert np.array_equal(getattr(again, name), getattr(own, name)), name
    assert (again.label, again.backdrop, again.view) == (own.label, own.backdrop, own.view)


@FEW
@given(INDEX, INDEX)
def test_another_light_moves_nothing(index, other):
    own, drawn = SMALL.scene(index), SMALL.scene(index, redraw={"light": other})
    assert np.array_equal(drawn.mask, own.mask) and np.array_equal(drawn.parts, own.parts)
    assert drawn.backdrop == own.backdrop
    assert np.array_equal(drawn.image, own.image) == (index == other)


@FEW
@given(st.fixed_dictionaries(dict.fromkeys(STREAMS, INDEX)))
def test_each_stream_decides_its_own(redraw):
    drawn = SMALL.scene(0, redraw=redraw)
    assert drawn.label == 0
    assert drawn.backdrop == SMALL.scene(redraw["backdrop"], label=0).backdrop
    assert drawn.view == SMALL.scene(redraw["coat"], label=0).view  # which way it faces


def test_pose_and_coat_change_the_object_only():
    own = SMALL.scene(0, backdrop="sky")
    for stream in ("pose", "coat"):
        drawn = SMALL.scene(0, backdrop="sky", redraw={stream: 18})
        assert not np.array_equal(drawn.parts, own.parts), stream
        there = ~(drawn.mask | own.mask)
        there &= np.roll(there, 3, 0) & np.roll(there, -3, 0)  # away from shadows and blur
        difference = np.abs(drawn.image[there].astype(int) - own.image[there])
        assert np.median(difference) <= 2, stream  # sky has no ground and no shadow far away


def test_a_stream_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no stream mood; there are pose, coat, backdrop, light"):
        SMALL.scene(0, redraw={"mood": 1})
