"""The container every notebook speaks: consistent rows, clear refusals, a key of the contents."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import config

from helpers.imageset import ImageSet, concatenate


def some(n: int = 6, size: int = 4) -> ImageSet:
    rng = torch.Generator().manual_seed(n)
    return ImageSet(
        images=torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=rng),
        labels=torch.arange(n) % 3,
        class_names=("ant", "bee", "cat", "dog"),
        masks=torch.rand(n, size, size, generator=rng) > 0.5,
        boxes=torch.zeros(n, 4, dtype=torch.int64),
        ids=tuple(f"picture {i}" for i in range(n)),
    )


@given(st.lists(st.integers(-6, 5), max_size=9))
def test_picking_rows_picks_the_same_of_every_field(rows):
    whole = some()
    part = whole[rows] if rows else whole[torch.tensor([], dtype=torch.long)]
    assert len(part) == len(rows)
    for field in ("images", "labels", "masks", "boxes"):
        assert torch.equal(getattr(part, field), getattr(whole, field)[rows or slice(0, 0)])
    assert part.ids == tuple(whole.ids[i] for i in rows)


def test_an_index_a_slice_and_a_boolean_choose_too():
    whole = some()
    assert whole[2].ids == ("picture 2",)
    assert whole[1:3].key == whole[[1, 2]].key
    assert whole.of_class("bee").key == whole[whole.labels == 1].key


def test_examples_skip_classes_without_an_image():
    examples = some().examples(per_class=1)
    assert examples.names() == ["ant", "bee", "cat"]
    assert some().counts() == {"ant": 2, "bee": 2, "cat": 2, "dog": 0}


def test_the_key_follows_the_contents():
    whole = some()
    assert whole.key == some().key == whole[:].key
    brighter = whole.images.clone()
    brighter[0, 0, 0, 0] ^= 1
    changes = {"images": brighter, "labels": whole.labels.flip(0), "masks": None, "ids": ()}
    keys = {replace(whole, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {whole.key}) == 5


def test_float_pictures_run_from_0_to_1():
    floats = some().to_float()
    assert floats.dtype == torch.float32 and floats.min() >= 0 and floats.max() <= 1
    assert torch.equal((floats * 255).round().byte(), some().images)


def test_joining_undoes_splitting():
    whole = some()
    assert concatenate([whole[:2], whole[2:2], whole[2:]]).images.equal(whole.images)
    assert concatenate([whole[:2], whole[2:]]).key == whole.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "5 rows for 6 images"),
        ({"labels": torch.full((6,), 4)}, "there are 4 class names"),
        ({"masks": torch.zeros(6, 5, 4, dtype=torch.bool)}, r"images are \(4, 4\)"),
        ({"ids": ("one",)}, "1 rows for 6 images"),
    ],
)
def test_fields_that_do_not_fit_are_refused(change, message, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match=message):
        replace(some(), **change)


def test_what_cannot_be_joined_or_found_says_why():
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])
    with pytest.raises(ValueError, match="some image sets know their masks"):
        concatenate([some(), replace(some(), masks=None)])
    with pytest.raises(ValueError, match="different class names"):
        concatenate([some(), replace(some(), class_names=("a", "b", "c"))])
    with pytest.raises(ValueError, match="ant, bee, cat, dog"):
        some().of_class("emu")


GROUPED = {"superclass_names": ("insect", "mammal"), "superclasses": (0, 0, 1, 1)}


@given(st.lists(st.sampled_from(["ant", "bee", "cat", "dog"]), unique=True, min_size=1))
def test_chosen_classes_are_the_only_ones_left_and_everything_else_stays(names):
    whole = replace(some(9), **GROUPED)
    kept = whole.only(names)
    rows = [i for i, name in enumerate(whole.names()) if name in names]
    assert kept.class_names == tuple(names)
    assert kept.names() == [whole.names()[i] for i in rows]  # the order of images stays
    assert kept.labels.tolist() == [names.index(whole.names()[i]) for i in rows]
    assert kept.ids == tuple(whole.ids[i] for i in rows)
    for field in ("images", "masks", "boxes"):
        assert torch.equal(getattr(kept, field), getattr(whole, field)[rows])
    family = {"ant": "insect", "bee": "insect", "cat": "mammal", "dog": "mammal"}
    assert [kept.superclass_names[s] for s in kept.superclasses] == [family[n] for n in names]


def test_chosen_classes_are_numbered_as_they_are_named():
    whole = replace(some(), **GROUPED)  # ant, bee, cat, ant, bee, cat
    kept = whole.only(["cat", "dog", "ant"])
    assert kept.labels.tolist() == [2, 0, 2, 0] and kept.superclasses == (1, 1, 0)
    assert kept.counts() == {"cat": 2, "dog": 0, "ant": 2}
    assert whole.labels.tolist() == [0, 1, 2, 0, 1, 2]  # the given set is left as it was
    assert whole.only(whole.class_names).key == whole.key
    assert len(whole.only(["dog"])) == 0
    assert some().only(["bee"]).superclasses == ()  # not known, still not known


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "emu"], r"ant, emu: valid are some of ant, bee, cat, dog, each once"),
        (["ant", "ant"], "ant, ant: valid are"),
        ([], r"\(none\): valid are"),
    ],
)
def test_classes_that_cannot_be_kept_are_named(names, message):
    with pytest.raises(ValueError, match=message):
        some().only(names)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 40))
def test_evenly_takes_as_many_of_each_class_or_the_set_itself(labels, count):
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    whole = ImageSet(images, torch.tensor(labels), tuple("abcd"))
    some = whole.evenly(count)
    if count >= len(labels):
        assert some.key == whole.key
    else:
        each = max(1, count // len(set(labels)))
        wanted = [k for k in range(4) for _ in range(min(each, labels.count(k)))]
        assert some.labels.tolist() == wanted
