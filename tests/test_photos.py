"""Every layout in miniature, every bad file, and downloads from a server on this machine."""

import functools
import hashlib
import http.server
import io
import itertools
import re
import shutil
import tarfile
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import photos
from helpers.photos import layouts, reading
from helpers.photos.__main__ import main
from helpers.photos.reading import largest_square

RED, BLUE, GREEN = (230, 20, 20), (20, 20, 230), (20, 200, 20)


def paint(path, size=(48, 32), colour=BLUE, box=None, inside=RED, **save):
    """A plain picture, with one filled rectangle (x0, y0, x1, y1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, colour)
    if box:
        picture.paste(inside, box)
    picture.save(path, **save)
    return path


def outline(path, size=(48, 32), box=(8, 8, 24, 24), value=255):
    """A two-valued mask file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size, 0)
    mask.paste(value, box)
    mask.save(path)
    return path


def reasons(loaded):
    return {r.file: r.reason for r in loaded.refused}


def near(pixels, colour, tolerance=12):
    """Where an image of (3, h, w) or (h, w, 3) has about this colour."""
    pixels = torch.as_tensor(np.array(pixels)).int()
    if pixels.shape[0] == 3:
        pixels = pixels.permute(1, 2, 0)
    return ((pixels - torch.tensor(colour)).abs() <= tolerance).all(-1)


# ---- opening one picture


def test_a_turned_phone_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    paint(tmp_path / "a.jpg", (64, 32), BLUE, (0, 0, 32, 32), exif=exif, quality=95)
    picture = photos.open_picture(tmp_path / "a.jpg")
    assert picture.size == (32, 64)
    assert near(picture, RED)[4:28].all() and near(picture, BLUE)[36:60].all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_greys_are_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    opened = np.array(photos.open_picture(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(opened[..., 0], np.rint(values / 257))
    assert (opened[..., 0] == opened[..., 2]).all()


def test_cmyk_becomes_the_colour_it_prints(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert near(photos.open_picture(tmp_path / "a.jpg"), (255, 0, 0)).all()


def test_cmyk_with_a_useless_profile_is_still_converted(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=b"nonsense")
    assert near(photos.open_picture(tmp_path / "a.tif"), (255, 0, 0)).all()


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 16, 32))
    clear.save(tmp_path / "rgba.png")
    grey = Image.new("LA", (32, 32), (0, 0))
    grey.paste((9, 255), (0, 0, 16, 32))
    grey.save(tmp_path / "la.png")
    indexed = Image.new("P", (32, 32), 1)
    indexed.putpalette([0, 0, 255, 255, 0, 0])
    indexed.paste(0, (0, 0, 16, 32))
    indexed.save(tmp_path / "p.png", transparency=1)
    for name, shown in {"rgba": (0, 0, 255), "la": (9, 9, 9), "p": (0, 0, 255)}.items():
        opened = photos.open_picture(tmp_path / f"{name}.png")
        assert near(opened, shown, 0)[:, :16].all(), name
        assert near(opened, (255, 255, 255), 0)[:, 16:].all(), name


@pytest.mark.parametrize("mode", ["1", "L", "P", "I", "F", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    white = {"1": 1, "I": 65535, "F": 1.0, "YCbCr": (255, 128, 128)}.get(mode, 255)
    picture = Image.new(mode, (32, 32), white)
    if mode == "P":
        picture.putpalette([255] * 768)
    picture.save(tmp_path / "a.tif")
    opened = photos.open_picture(tmp_path / "a.tif")
    assert opened.mode == "RGB" and near(opened, (255, 255, 255), 0).all()


def bad_files(folder):
    """One of each kind of file that must be refused, with a word of its reason."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in ("jpg", "png"):
        noise.save(folder / f"truncated.{suffix}")
        whole = (folder / f"truncated.{suffix}").read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.jpg").write_text("this is not a picture")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (folder / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (400, 8)).save(folder / "strip.png")
    Image.new("L", (2000, 2000)).save(folder / "bomb.png")
    Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(folder / "nan.tif")
    Image.fromarray(np.full((32, 32), -5, np.int32)).save(folder / "negative.tif")
    return {
        "truncated.jpg": "damaged or incomplete",
        "truncated.png": "damaged or incomplete",
        "empty.jpg": "0 bytes",
        "words.jpg": "not a picture",
        "phone.heic": "not a picture",
        "program.jpg": "not a picture",
        "dot.png": "1 x 1 px",
        "strip.png": "400 x 8 px",
        "bomb.png": "million pixels",
        "nan.tif": "grey values",
        "negative.tif": "grey values",
    }


@pytest.mark.parametrize("limit", [3_000_000, 1_000_000])  # where Pillow warns, where it raises
def test_every_bad_file_is_named_and_the_rest_is_read(tmp_path, monkeypatch, capfd, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    expected = bad_files(tmp_path / "set")
    paint(tmp_path / "set" / "good.jpg")
    (tmp_path / "set" / "notes.txt").write_text("beside the pictures")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = photos.folder(tmp_path / "set", size=16)
    assert loaded.images.ids == ("good.jpg",)
    got = reasons(loaded)
    assert got.keys() == expected.keys()
    for file, word in expected.items():
        assert word in got[file], got[file]
        assert f"{file}: {got[file]}" in str(loaded)
    out, err = capfd.readouterr()
    assert "11 refused, 1 read" in out and err == ""
    with pytest.raises(ValueError, match="truncated.jpg: damaged"):
        loaded.or_raise()


def test_one_bad_picture_raises_with_its_reason(tmp_path):
    bad_files(tmp_path)
    with pytest.raises(photos.UnusablePicture, match="0 bytes"):
        photos.open_picture(tmp_path / "empty.jpg")
    with pytest.raises(photos.UnusablePicture, match="no such file"):
        photos.open_picture(tmp_path / "nowhere.jpg")
    with pytest.raises(photos.UnusablePicture, match="folder"):
        photos.open_picture(tmp_path)


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="not one usable picture.*a.jpg: empty file"):
        photos.folder(tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no picture file"):
        photos.folder(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no folder"):
        photos.folder(tmp_path / "absent")


def test_more_pictures_than_memory_is_said_before_reading(tmp_path):
    paint(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"GiB of memory.*limit=n"):
        photos.folder(tmp_path, size=10**7)


# ---- squares, scale, limit


@given(st.data())
def test_the_square_holds_as_much_of_the_object_as_any(data):
    width, height = data.draw(st.tuples(st.integers(4, 30), st.integers(4, 30)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    own = np.zeros((height, width), bool)
    own[y0:y1, x0:x1] = True
    square = largest_square(width, height, own)
    side = min(width, height)
    assert square.side == side
    assert 0 <= square.x <= width - side and 0 <= square.y <= height - side

    def held(x, y):
        return own[y : y + side, x : x + side].sum()

    everywhere = itertools.product(range(width - side + 1), range(height - side + 1))
    assert held(square.x, square.y) == max(held(x, y) for x, y in everywhere)
    centre = largest_square(width, height)
    if held(centre.x, centre.y) == held(square.x, square.y):
        assert square == centre  # it moves only where it gains


@given(
    size=st.integers(16, 90),
    width=st.integers(60, 400),
    height=st.integers(60, 400),
    suffix=st.sampled_from([".png", ".jpg"]),
)
def test_mask_and_picture_stay_aligned(tmp_path_factory, size, width, height, suffix):
    root = tmp_path_factory.mktemp("aligned")
    box = (width // 4, height // 3, width // 4 + width // 2, height // 3 + height // 2)
    save = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
    paint(root / f"a{suffix}", (width, height), BLUE, box, RED, **save)
    outline(root / "a_mask.png", (width, height), box)
    loaded = photos.folder(root, size=size).or_raise()
    red, mask = loaded.images[0, 0].int() > 125, loaded.masks[0]
    # the half-way colour of the scaled edge and the mask's edge agree to a pixel
    inner = -torch.nn.functional.max_pool2d(-mask[None].float(), 3, 1, 1)[0] > 0
    outer = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
    assert (red | ~inner).all() and (outer | ~red).all()
    x0, y0, x1, y1 = loaded.boxes[0].tolist()
    assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)


def test_fine_stripes_turn_grey_instead_of_aliasing(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    images = photos.folder(tmp_path, size=32).images.images.float()
    assert (images - 127.5).abs().max() < 20


def test_limit_is_balanced_and_always_the_same(tmp_path):
    for name, count in {"ant": 2, "bee": 30, "cat": 30}.items():
        for i in range(count):
            paint(tmp_path / name / f"{i:02d}.png", (20, 20))
    some = photos.class_folders(tmp_path, size=16, limit=12).images
    assert some.counts() == {"ant": 2, "bee": 5, "cat": 5}
    assert some.ids == photos.class_folders(tmp_path, size=16, limit=12).images.ids
    assert list(some.ids) == sorted(some.ids)
    more = photos.class_folders(tmp_path, size=16, limit=20).images
    assert set(some.ids) < set(more.ids)
    assert photos.class_folders(tmp_path, size=16, limit=1).images.counts()["cat"] == 0
    assert len(photos.class_folders(tmp_path, size=16, limit=999).images) == 62
    with pytest.raises(ValueError, match="at least 1"):
        photos.class_folders(tmp_path, size=16, limit=0)


# ---- PASCAL VOC

DOG, CAT, PERSON = (photos.VOC_CLASSES.index(n) + 1 for n in ("dog", "cat", "person"))


def voc_photo(root, stem, areas, size=(60, 40), mode="P", objects=None, mask_size=None):
    """A photograph and its class mask: {(x0, y0, x1, y1): class number}."""
    home = root / "VOCdevkit" / "VOC2012"
    paint(home / "JPEGImages" / f"{stem}.jpg", size)
    folders = {"SegmentationClass": areas} | ({"SegmentationObject": objects} if objects else {})
    for folder, marks in folders.items():
        mask = Image.new("P", mask_size or size, 0)
        mask.putpalette(list(itertools.chain(*([i, 255 - i, i // 2] for i in range(256)))))
        for box, number in marks.items():
            mask.paste(number, box)
        (home / folder).mkdir(parents=True, exist_ok=True)
        mask.convert(mode).save(home / folder / f"{stem}.png")
    (home / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    with (home / "ImageSets" / "Segmentation" / "trainval.txt").open("a") as listed:
        listed.write(f"{stem}\n")
    return home


def test_voc_is_labelled_by_what_covers_most(tmp_path):
    two_dogs = {(0, 0, 20, 20): DOG, (40, 0, 60, 20): DOG, (0, 20, 30, 40): CAT}
    voc_photo(tmp_path, "a", two_dogs)  # 800 px of dog in two places, 600 of cat
    voc_photo(tmp_path, "b", {(0, 0, 10, 10): CAT, (20, 0, 60, 40): 255})  # void is nothing
    images = photos.voc(tmp_path, size=40).or_raise()
    assert images.class_names == photos.VOC_CLASSES
    assert [images.class_names[i] for i in images.labels] == ["dog", "cat"]
    assert images.ids == ("a", "b")
    assert images.counts()["dog"] == images.counts()["cat"] == 1
    assert images.counts()["sheep"] == 0
    # 40 px of the 60: moved no further than needed, all dog and only dog in the mask
    assert images.masks[0].sum() == 20 * 20 and not images.masks[0][20:].any()
    assert images.boxes[1].tolist() == [0, 0, 10, 10]
    a = photos.voc(tmp_path / "VOCdevkit", size=40).images  # the folder above VOC2012 will do
    assert a.key == images.key


def test_the_square_follows_the_labelled_object(tmp_path):
    voc_photo(tmp_path, "a", {(50, 10, 60, 30): DOG})
    images = photos.voc(tmp_path, size=40).or_raise()
    assert images.boxes[0].tolist() == [30, 10, 40, 30]  # a centre crop would have cut it off


def test_the_void_band_is_shared_and_wide_void_is_not(tmp_path):
    voc_photo(tmp_path, "a", {(6, 6, 34, 34): 255, (10, 10, 30, 30): DOG}, (40, 40))
    voc_photo(tmp_path, "b", {(0, 0, 40, 40): 255, (10, 10, 30, 30): DOG}, (40, 40))
    band, wide = photos.voc(tmp_path, size=40).or_raise().boxes.tolist()
    assert band == [8, 8, 32, 32]  # the middle of a 4 px band
    assert wide == [7, 7, 33, 33]  # never more than 3 px


def test_voc_names_every_unusable_mask(tmp_path, capfd):
    voc_photo(tmp_path, "good", {(0, 0, 30, 30): DOG})
    voc_photo(tmp_path, "empty", {})
    voc_photo(tmp_path, "onlyvoid", {(0, 0, 30, 30): 255})
    voc_photo(tmp_path, "unknown", {(0, 0, 30, 30): 37})
    voc_photo(tmp_path, "coloured", {(0, 0, 30, 30): DOG}, mode="RGB")
    voc_photo(tmp_path, "other_size", {(0, 0, 10, 10): DOG}, mask_size=(30, 20))
    voc_photo(tmp_path, "tiny", {(0, 0, 1, 1): DOG}, size=(400, 400))
    home = voc_photo(tmp_path, "no_photo", {(0, 0, 30, 30): DOG})
    (home / "JPEGImages" / "no_photo.jpg").unlink()
    voc_photo(tmp_path, "no_mask", {(0, 0, 30, 30): DOG})
    (home / "SegmentationClass" / "no_mask.png").unlink()
    loaded = photos.voc(tmp_path, size=16)
    assert loaded.images.ids == ("good",)
    for file, word in {
        "SegmentationClass/empty.png": "no object",
        "SegmentationClass/onlyvoid.png": "no object",
        "SegmentationClass/unknown.png": "[37]",
        "SegmentationClass/coloured.png": "mode RGB",
        "SegmentationClass/tiny.png": "smaller than one pixel",
        "SegmentationClass/no_mask.png": "no such file",
        "other_size": "30 x 20 px, the picture 60 x 40",
        "no_photo": "no such file",
    }.items():
        assert word in reasons(loaded).pop(file)
    assert len(loaded.refused) == 8
    assert capfd.readouterr().err == ""


def test_voc_crops_take_every_large_object(tmp_path):
    both = {(0, 0, 30, 30): DOG, (70, 10, 90, 40): CAT, (96, 0, 98, 2): PERSON}
    voc_photo(tmp_path, "regions", both, (100, 50))
    pair = {(0, 0, 60, 40): DOG}  # one region of dog, two dogs
    split = {(0, 0, 30, 40): 1, (30, 0, 60, 40): 2}
    voc_photo(tmp_path, "objects", pair, (100, 50), objects=split)
    voc_photo(tmp_path, "specks", {(0, 0, 2, 2): DOG}, (100, 50))
    loaded = photos.voc(tmp_path, size=64, by="crops")
    images = loaded.images
    assert images.ids == ("regions#1", "regions#2", "objects#1", "objects#2")
    assert [images.class_names[i] for i in images.labels] == ["cat", "dog", "dog", "dog"]
    assert "no object covers 2%" in reasons(loaded)["SegmentationClass/specks.png"]
    shares = images.masks.flatten(1).float().mean(1)
    assert ((shares > 0.3) & (shares < 0.9)).all()  # each object fills its own crop


def test_voc_splits_years_and_limits(tmp_path):
    for i in range(6):
        voc_photo(tmp_path, f"dog{i}", {(0, 0, 30, 30): DOG})
    voc_photo(tmp_path, "cat", {(0, 0, 30, 30): CAT})
    few = photos.voc(tmp_path, year=2012, size=16, limit=3).images
    assert few.counts()["dog"] == 2 and few.counts()["cat"] == 1
    with pytest.raises(ValueError, match="no split 'test' here; it has trainval"):
        photos.voc(tmp_path, split="test")
    with pytest.raises(photos.MissingDataset, match="VOC 2007"):
        photos.voc(tmp_path, year="2007")


# ---- saliency, ImageNet-9


@pytest.mark.parametrize(
    ("images", "masks"),
    [("", ""), ("images", "ground_truth_mask"), ("DUTS-TE-Image", "DUTS-TE-Mask")],
)
def test_saliency_layouts(tmp_path, images, masks):
    for stem, value in {"a": 255, "b": 1}.items():  # 0/255 and 0/1 masks alike
        paint(tmp_path / images / f"{stem}.jpg")
        outline(tmp_path / masks / f"{stem}.png", value=value)
    paint(tmp_path / images / "alone.jpg")
    outline(tmp_path / masks / "orphan.png")
    paint(tmp_path / images / "blank.jpg")
    outline(tmp_path / masks / "blank.png", value=0)
    paint(tmp_path / images / "other.jpg", size=(96, 64))
    outline(tmp_path / masks / "other.png")
    loaded = photos.saliency(tmp_path, size=32)
    assert loaded.images.ids == ("a.jpg", "b.jpg")
    assert loaded.images.class_names == ("object",)
    assert loaded.images.boxes.tolist() == [[0, 8, 16, 24]] * 2  # the centre 32 of 48 px
    got = reasons(loaded)
    assert got["alone.jpg"] == "it has no mask"
    assert got["orphan.png"] == "a mask without its picture"
    assert "blank.png: empty" in got["blank.jpg"]
    assert "48 x 32 px, the picture 96 x 64" in got["other.jpg"]
    assert len(got) == 4


def imagenet9_release(root, variants=("original", "mixed_same", "mixed_rand")):
    for label, name in enumerate(photos.IN9_CLASSES):
        of_class = f"{label:02d}_{name}"
        for variant in variants:
            stem = "n02085936_77"
            if variant.startswith("mixed"):
                stem = f"fg_{stem}_bg_n01440764_123"
            paint(root / "bg_challenge" / variant / "val" / of_class / f"{stem}.JPEG", (32, 32))
        own = np.zeros((32, 32), bool)
        own[4:12, 8:20] = True
        place = root / "bg_challenge" / "fg_mask" / "val" / of_class
        place.mkdir(parents=True)
        np.save(place / "n02085936_77.npy", own)
    return root / "bg_challenge"


@pytest.mark.parametrize("variant", ["original", "mixed_rand"])
def test_imagenet9_with_its_masks(tmp_path, variant):
    imagenet9_release(tmp_path)
    images = photos.imagenet9(tmp_path, variant, masks=True, size=32).or_raise()
    assert images.labels.tolist() == list(range(9))
    assert images.class_names[2] == "wheeled vehicle"
    assert images.boxes.tolist() == [[8, 4, 20, 12]] * 9
    assert photos.imagenet9(tmp_path, variant, size=32).images.masks is None


def test_imagenet9_refuses_pickles_and_unknown_variants(tmp_path):
    home = imagenet9_release(tmp_path)
    bad = home / "fg_mask" / "val" / "00_dog" / "n02085936_77.npy"
    np.save(bad, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    flat = home / "fg_mask" / "val" / "01_bird" / "n02085936_77.npy"
    np.save(flat, np.zeros(7))
    (home / "fg_mask" / "val" / "03_reptile" / "n02085936_77.npy").unlink()
    got = reasons(photos.imagenet9(tmp_path, masks=True, size=32))
    assert "allow_pickle" in got["00_dog/n02085936_77.JPEG"]
    assert "shape (7,)" in got["01_bird/n02085936_77.JPEG"]
    assert got["03_reptile/n02085936_77.JPEG"] == "it has no mask"
    assert len(got) == 3
    with pytest.raises(ValueError, match="there are original, mixed_same"):
        photos.imagenet9(tmp_path, "mixed_same_")
    with pytest.raises(photos.MissingDataset, match="lacks no_fg/val"):
        photos.imagenet9(tmp_path, "no_fg")


def test_a_mask_of_another_size_than_its_picture_is_refused_by_name(tmp_path):
    home = imagenet9_release(tmp_path)
    np.save(home / "fg_mask" / "val" / "02_wheeled vehicle" / "n02085936_77.npy", np.eye(16))
    loaded = photos.imagenet9(tmp_path, masks=True, size=32)
    wrong = "02_wheeled vehicle/n02085936_77.JPEG"
    assert reasons(loaded) == {wrong: "its mask has 16 x 16 px, the picture 32 x 32"}
    assert loaded.images.labels.tolist() == [0, 1, 3, 4, 5, 6, 7, 8]


# ---- all variants of ImageNet-9

# With other letters behind the number, 1 comes before 12 in some variants and after it in others.
NUMBERS = (1, 7, 12)


def own_colour(label, number):
    """Of one foreground: told apart from all others, from every background and from black."""
    return 100 + 15 * label, 40 + 15 * number, 60


def own_place(label, number):
    """x0, y0, x1, y1 of one foreground in a picture of 48 x 32 px, some of it near an edge."""
    return 3 * label, 4, 3 * label + number + 8, 28


BEHIND = {  # the background of each variant
    "original": (30, 60, 220),
    "mixed_same": (30, 110, 220),
    "mixed_rand": (30, 160, 220),
    "mixed_next": (30, 210, 220),
    "only_fg": (0, 0, 0),
    "no_fg": (30, 60, 220),
    "only_bg_b": (30, 60, 220),
    "only_bg_t": (30, 85, 220),
}


@pytest.fixture
def release(tmp_path):
    """Eight variants of 27 pictures, with masks."""
    home = tmp_path / "bg_challenge"
    for label, name in enumerate(photos.IN9_CLASSES):
        of_class = f"{label:02d}_{name}"
        for number in NUMBERS:
            stem, other = f"n{label:08d}_{number}", f"n{(label + 1) % 9:08d}_{number + 1}"
            place = own_place(label, number)
            # only the beginning of a mixed picture's name is relied on, up to the foreground's
            names = {
                "mixed_same": f"fg_{stem}_bg_n{label:08d}_99",
                "mixed_rand": f"{stem}_bg_{other}",
                "mixed_next": f"fg_{stem}_bg_{other}",
            }
            for variant, behind in BEHIND.items():
                inside = (0, 0, 0) if variant in ("no_fg", "only_bg_b") else None
                if variant == "only_bg_t":
                    inside = behind
                paint(
                    home / variant / "val" / of_class / f"{names.get(variant, stem)}.JPEG",
                    (48, 32),
                    behind,
                    place,
                    inside or own_colour(label, number),
                    quality=100,
                    subsampling=0,
                )
            own = np.zeros((32, 48), bool)
            own[place[1] : place[3], place[0] : place[2]] = True
            outlines = home / "fg_mask" / "val" / of_class
            outlines.mkdir(parents=True, exist_ok=True)
            np.save(outlines / f"{stem}.npy", own)
    return home


def shown(images, masks):
    """The mean colour of each picture inside its mask."""
    return [i[:, m].float().mean(1) for i, m in zip(images.images, masks, strict=True)]


def test_all_variants_have_the_same_foregrounds_row_by_row(tmp_path, release, capsys):
    sets, refused = photos.imagenet9_variants(tmp_path, size=32)
    assert tuple(sets) == photos.IN9_VARIANTS and refused == () and capsys.readouterr().out == ""
    rows = [(label, number) for label in range(9) for number in (1, 12, 7)]  # as text sorts them
    for variant, images in sets.items():
        assert images.class_names == photos.IN9_CLASSES
        assert images.labels.tolist() == [label for label, _ in rows]
        assert images.ids == tuple(
            f"{label:02d}_{photos.IN9_CLASSES[label]}/n{label:08d}_{number}"
            for label, number in rows
        )
        colours = shown(images, images.masks)
        for row, ((label, number), colour) in enumerate(zip(rows, colours, strict=True)):
            x0, y0, x1, y1 = own_place(label, number)
            assert images.masks[row].sum() == (x1 - x0) * (y1 - y0)  # the square moved to hold it
            bx0, by0, bx1, by1 = images.boxes[row].tolist()
            assert (bx1 - bx0, by0, by1) == (x1 - x0, 4, 28)
            assert images.masks[row, by0:by1, bx0:bx1].all()
            wanted = own_colour(label, number)
            if variant in ("no_fg", "only_bg_b", "only_bg_t"):
                wanted = BEHIND["only_bg_t"] if variant == "only_bg_t" else (0, 0, 0)
            assert (colour - torch.tensor(wanted)).abs().max() < 3, (variant, label, number)
            outside = images.images[row][:, :2].float().mean((1, 2))
            assert (outside - torch.tensor(BEHIND[variant])).abs().max() < 3


def test_a_limit_is_spread_over_classes_and_no_file_is_read_twice(tmp_path, release, monkeypatch):
    opened, decode, silhouette = [], reading.decode, reading.silhouette

    def counted(read):
        return lambda path, **options: (opened.append(path), read(path, **options))[1]

    monkeypatch.setattr(reading, "decode", counted(decode))
    monkeypatch.setattr(reading, "silhouette", counted(silhouette))
    sets, refused = photos.imagenet9_variants(tmp_path, size=16, limit=9)
    assert not refused and len(opened) == len(set(opened)) == 9 * 8 + 9
    assert sum(p.suffix == ".npy" for p in opened) == 9
    assert set(sets["mixed_rand"].counts().values()) == {1}
    more, _ = photos.imagenet9_variants(tmp_path, size=16, limit=12)
    assert set(sets["original"].ids) < set(more["original"].ids) and len(more["no_fg"]) == 12
    with pytest.raises(ValueError, match="at least 1"):
        photos.imagenet9_variants(tmp_path, size=16, limit=0)


def test_a_foreground_that_is_unusable_in_one_variant_is_left_out_of_all(tmp_path, release, capsys):
    def file(variant, label, name):
        return release / variant / "val" / f"{label:02d}_{photos.IN9_CLASSES[label]}" / name

    file("mixed_next", 0, "fg_n00000000_7_bg_n00000001_8.JPEG").unlink()
    file("no_fg", 0, "n00000000_7.JPEG").unlink()
    cut = file("only_fg", 1, "n00000001_7.JPEG")
    cut.write_bytes(cut.read_bytes()[:300])
    file("only_bg_t", 2, "n00000002_7.JPEG").write_bytes(b"")  # and again, in another variant
    file("only_bg_b", 2, "n00000002_7.JPEG").write_bytes(b"")
    paint(file("mixed_same", 3, "n00000003_7_bg_again.JPEG"))
    pickled = np.array([{"a": 1}], dtype=object)
    np.save(file("fg_mask", 4, "n00000004_7.npy"), pickled, allow_pickle=True)
    file("fg_mask", 5, "n00000005_7.npy").unlink()
    paint(file("mixed_rand", 6, "n00000006_7_bg_n00000007_8.JPEG"), (32, 48))
    paint(file("original", 7, "stray.JPEG"))
    paint(file("original", 7, "old/n00000007_9.JPEG"))

    sets, refused = photos.imagenet9_variants(tmp_path, size=32)
    kept = sets["original"].ids
    assert all(images.ids == kept for images in sets.values())
    assert [i for i in range(9) if sum(name.startswith(f"{i:02d}") for name in kept) == 2] == [
        *range(7)  # each of these lost its number 7, the others nothing
    ]
    assert len(kept) == 20 and not any(k.endswith("_7") for k in kept if k < "07")
    for variant in ("original", "mixed_rand"):  # and rows still belong together
        assert torch.equal(sets[variant].masks, sets["no_fg"].masks)
        colours = shown(sets[variant], sets[variant].masks)
        for name, colour in zip(kept, colours, strict=True):
            label, number = map(int, re.search(r"n(\d{8})_(\d+)", name).groups())
            assert (colour - torch.tensor(own_colour(label, number))).abs().max() < 3

    got = {r.file: r.reason for r in refused}
    assert len(got) == len(refused) == 10
    assert got["00_dog/n00000000_7"] == "there is no picture of it in mixed_next, no_fg"
    assert "damaged" in got["only_fg/val/01_bird/n00000001_7.JPEG"]
    for variant in ("only_bg_b", "only_bg_t"):
        assert "0 bytes" in got[f"{variant}/val/02_wheeled vehicle/n00000002_7.JPEG"]
    assert "has several pictures" in got["03_reptile/n00000003_7"]
    assert "n00000003_7_bg_again.JPEG" in got["03_reptile/n00000003_7"]
    assert "allow_pickle" in got["04_carnivore/n00000004_7"]
    assert got["05_insect/n00000005_7"] == "it has no mask"
    turned = got["mixed_rand/val/06_musical instrument/n00000006_7_bg_n00000007_8.JPEG"]
    assert turned == "its mask has 48 x 32 px, the picture 32 x 48"
    assert "no foreground's name" in got["original/val/07_primate/stray.JPEG"]
    assert "a folder inside 07_primate" in got["original/val/07_primate/old/n00000007_9.JPEG"]
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "10 refused, 20 read" in out


def test_variants_without_masks_have_none(tmp_path, release):
    shutil.rmtree(release / "fg_mask")
    sets, refused = photos.imagenet9_variants(tmp_path, size=32)
    assert not refused and len(sets["no_fg"]) == 27
    assert all(s.masks is None and s.boxes is None for s in sets.values())


def test_variants_that_are_missing_altogether_are_named(tmp_path, release):
    shutil.rmtree(release / "mixed_next")
    shutil.rmtree(release / "only_bg_t" / "val")
    with pytest.raises(photos.MissingDataset, match="lacks mixed_next/val, only_bg_t/val: move"):
        photos.imagenet9_variants(tmp_path)
    with pytest.raises(photos.MissingDataset, match='NAMES="imagenet9 --without-hash"'):
        photos.imagenet9_variants(tmp_path / "elsewhere")


def test_variants_without_a_common_foreground_say_so(tmp_path, release):
    for file in (release / "only_fg").rglob("*.JPEG"):
        file.unlink()
    with pytest.raises(ValueError, match="not one usable picture .*n00000000_1: .* in only_fg"):
        photos.imagenet9_variants(tmp_path)


def test_memory_is_asked_for_all_variants_before_the_first_is_read(tmp_path, release, monkeypatch):
    class Memory:
        available = 27 * 32 * 32 * 4 * 7  # not enough for eight

    monkeypatch.setattr(reading.psutil, "virtual_memory", lambda: Memory)
    monkeypatch.setattr(reading, "decode", lambda *_, **__: pytest.fail("a picture was opened"))
    with pytest.raises(ValueError, match="in all variants: 216 pictures of 32 px need"):
        photos.imagenet9_variants(tmp_path, size=32)


def exchange(home):
    """Dogs and birds, so that the folders' numbers stand for other classes."""
    (home / "00_dog").rename(home / "00_bird")
    (home / "01_bird").rename(home / "01_dog")


@pytest.mark.parametrize(
    ("damage", "there"),
    [
        (lambda home: shutil.rmtree(home / "03_reptile"), "02_wheeled vehicle, 04_carnivore"),
        (lambda home: shutil.rmtree(home / "00_dog"), "01_bird, 02_wheeled vehicle"),
        (lambda home: (home / "00_dog").rename(home / "00_hound"), "00_hound, 01_bird"),
        (exchange, "00_bird, 01_dog, 02_wheeled vehicle"),
        (lambda home: (home / "09_cat").mkdir(), "08_fish, 09_cat"),
        (lambda home: [shutil.rmtree(p) for p in home.iterdir()], "none"),
    ],
)
def test_class_folders_other_than_the_releases_are_refused(tmp_path, release, damage, there):
    damage(release / "mixed_same" / "val")
    expected = "mixed_same/val should have the class folders 00_dog, 01_bird, 02_wheeled vehicle, "
    with pytest.raises(ValueError, match=f"{expected}.*08_fish, .*there are (.*, )?{there}"):
        photos.imagenet9(tmp_path, "mixed_same", size=16)
    with pytest.raises(ValueError, match=f"{expected}.*08_fish, .*there are (.*, )?{there}"):
        photos.imagenet9_variants(tmp_path, size=16)
    assert len(photos.imagenet9(tmp_path, size=16).or_raise()) == 27  # other variants are whole


def test_training_pictures_are_your_own_copy(tmp_path, release):
    (tmp_path / "mine").mkdir()
    own = tmp_path / "mine" / "bg_challenge"
    with pytest.raises(photos.MissingDataset, match="lacks original/train.*your own copy"):
        photos.imagenet9(tmp_path, split="train")
    with pytest.raises(
        photos.MissingDataset, match="original/train, .*only_bg_t/train: .*own copy"
    ):
        photos.imagenet9_variants(tmp_path, split="train")
    with pytest.raises(photos.MissingDataset, match="Fetch it"):
        photos.imagenet9(tmp_path / "mine", split="train")
    for variant in (*photos.IN9_VARIANTS, "fg_mask"):  # without any test pictures
        (own / variant).mkdir(parents=True)
        (release / variant / "val").rename(own / variant / "train")
    (own / "original" / "train" / "00_dog" / "n00000000_7.JPEG").unlink()
    train = photos.imagenet9(tmp_path / "mine", split="train", masks=True, size=32).or_raise()
    assert len(train) == 26 and train.masks is not None
    sets, refused = photos.imagenet9_variants(tmp_path / "mine", split="train", size=32)
    assert sets["original"].ids == sets["no_fg"].ids and len(sets["no_fg"]) == 26
    assert [r.file for r in refused] == ["00_dog/n00000000_7"]
    with pytest.raises(ValueError, match="no split 'test' of ImageNet-9; there are val, train"):
        layouts._in9_places(tmp_path, ("original",), "test")  # the readers' types refuse it, too


# ---- Tiny-ImageNet, class folders, your own


def tiny_release(root):
    home = root / "tiny-imagenet-200"
    for wnid in ("n01443537", "n02012849", "n03126707"):
        for i in range(2):
            paint(home / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64))
        paint(home / "val" / "images" / f"val_{wnid}.JPEG", (64, 64))
    (home / "wnids.txt").write_text("n02012849\nn01443537\nn03126707\n")
    words = "n01443537\tgoldfish, Carassius auratus\nn02012849\tcrane\nn03126707\tcrane\nn9\tx\n"
    (home / "words.txt").write_text(words)
    rows = [f"val_{w}.JPEG\t{w}\t0\t0\t9\t9\n" for w in ("n01443537", "n02012849", "n03126707")]
    (home / "val" / "val_annotations.txt").write_text(
        "".join(rows) + "val_x.JPEG\tn9\t0\t0\t9\t9\n"
    )
    return root


def test_tiny_imagenet(tmp_path):
    tiny_release(tmp_path)
    train = photos.tiny_imagenet(tmp_path).or_raise()
    assert train.class_names == ("crane (n02012849)", "goldfish", "crane (n03126707)")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and train.images.shape[-1] == 64
    val = photos.tiny_imagenet(tmp_path, split="val")
    assert val.images.labels.tolist() == [1, 0, 2]
    assert reasons(val) == {"val_x.JPEG": "its class n9 is not in wnids.txt"}
    some = photos.tiny_imagenet(tmp_path, classes=["n03126707", "goldfish"]).or_raise()
    assert some.class_names == ("crane (n03126707)", "goldfish")
    assert some.counts() == {"crane (n03126707)": 2, "goldfish": 2}
    with pytest.raises(ValueError, match="no class cod; there are crane"):
        photos.tiny_imagenet(tmp_path, classes=["cod"])


def test_class_folders_named_by_wnid_keep_imagenets_index(tmp_path):
    lines = [f"n{i:08d} thing_{i}" for i in range(1000)]
    (tmp_path / "wnids.txt").write_text("\n".join(lines))
    for i in (5, 700):
        paint(tmp_path / "val" / f"n{i:08d}" / "a.JPEG")
    paint(tmp_path / "val" / "n99999999" / "a.JPEG")
    loaded = photos.class_folders(tmp_path / "val", size=16)
    assert loaded.images.labels.tolist() == [5, 700]
    assert len(loaded.images.class_names) == 1000
    assert loaded.images.class_names[700] == "thing 700"
    assert "not in wnids.txt" in reasons(loaded)["n99999999/"]
    one = photos.class_folders(tmp_path / "val", classes=["thing 700"], size=16).images
    assert one.counts() == {"thing 700": 1}
    with pytest.raises(FileNotFoundError, match="no list of class names"):
        photos.class_folders(tmp_path / "val", wnids=tmp_path / "absent.txt")


def test_plain_class_folders(tmp_path):
    for name in ("bees", "ants"):
        paint(tmp_path / name / "a.jpg")
    paint(tmp_path / "stray.jpg")
    (tmp_path / "wnids.txt").write_text("n00000001 one\n")  # the folders are no wnids
    loaded = photos.class_folders(tmp_path, size=16)
    assert loaded.images.class_names == ("ants", "bees")
    assert loaded.images.ids == ("ants/a.jpg", "bees/a.jpg")
    assert "beside the class folders" in reasons(loaded)["stray.jpg"]
    with pytest.raises(ValueError, match="no folders in it"):
        photos.class_folders(tmp_path / "ants")


def test_your_own_folder_without_masks(tmp_path):
    paint(tmp_path / "wren" / "a.jpg")
    paint(tmp_path / "robin" / "b.png")
    images = photos.folder(tmp_path, size=16).or_raise()
    assert images.class_names == ("robin", "wren") and images.masks is None
    flat = photos.folder(tmp_path / "wren", size=16).or_raise()
    assert flat.class_names == ("wren",) and flat.ids == ("a.jpg",)


@pytest.mark.parametrize("place", ["masks/wren/{}.png", "wren/{}_mask.png"])
def test_your_own_folder_with_masks(tmp_path, place):
    for stem in ("a", "b"):
        paint(tmp_path / "wren" / f"{stem}.jpg")
        outline(tmp_path / place.format(stem))
    paint(tmp_path / "wren" / "bare.jpg")
    outline(tmp_path / place.format("orphan"))
    paint(tmp_path / "loose.jpg")
    loaded = photos.folder(tmp_path, size=32)
    assert loaded.images.ids == ("wren/a.jpg", "wren/b.jpg")
    assert loaded.images.boxes.tolist() == [[0, 8, 16, 24]] * 2  # the centre 32 of 48 px
    got = reasons(loaded)
    assert got.pop(place.format("orphan")) == "a mask without its picture"
    assert got.pop("wren/bare.jpg") == "it has no mask"
    assert "in none" in got.pop("loose.jpg") and not got


@pytest.mark.parametrize("reader", [photos.folder, photos.class_folders])
def test_folders_inside_a_class_folder_are_refused_by_name(tmp_path, reader):
    paint(tmp_path / "set" / "cat" / "a.jpg")
    paint(tmp_path / "set" / "cat" / "sub" / "b.jpg")
    paint(tmp_path / "set" / "cat" / "sub" / "deeper" / "c.jpg")
    paint(tmp_path / "set" / "cat" / "sub" / ".thumbnails" / "c.jpg")  # nobody's pictures
    (tmp_path / "set" / "cat" / "sub" / "notes.txt").write_text("beside the pictures")
    paint(tmp_path / "elsewhere" / "d.jpg")
    (tmp_path / "set" / "cat" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")  # a class may be a link
    loaded = reader(tmp_path / "set", size=16)
    assert loaded.images.ids == ("cat/a.jpg", "dog/d.jpg")
    got = reasons(loaded)
    assert got.keys() == {"cat/sub/b.jpg", "cat/sub/deeper/c.jpg", "cat/link"}
    assert all("a folder inside cat/" in reason for reason in got.values())
    assert "3 files refused" in str(loaded)


def test_folders_inside_other_layouts_are_refused_by_name(tmp_path):
    for place in ("ECSSD/images", "MSRA", "MSRA/more"):
        paint(tmp_path / place / "a.jpg")
    for place in ("ECSSD/masks", "ECSSD/masks/old", "MSRA"):
        outline(tmp_path / place / "a.png")
    assert reasons(photos.saliency(tmp_path / "ECSSD", size=16)).keys() == {"masks/old/a.png"}
    assert reasons(photos.saliency(tmp_path / "MSRA", size=16)).keys() == {"more/a.jpg"}
    home = imagenet9_release(tmp_path)
    paint(home / "original" / "val" / "00_dog" / "more" / "a.JPEG")
    for masks in (True, False):
        loaded = photos.imagenet9(tmp_path, masks=masks, size=16)
        assert reasons(loaded).keys() == {"00_dog/more/a.JPEG"} and len(loaded.images) == 9


def test_classes_not_asked_for_are_not_searched(tmp_path):
    for place in ("cat", "cat/sub", "dog", "dog/sub"):
        paint(tmp_path / place / "a.jpg")
    loaded = photos.class_folders(tmp_path, classes=["dog"], size=16)
    assert reasons(loaded).keys() == {"dog/sub/a.jpg"}


def test_masks_where_none_is_looked_for_are_refused_by_name(tmp_path):
    paint(tmp_path / "set" / "wren" / "a.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "masks").symlink_to(tmp_path / "elsewhere")
    outline(tmp_path / "set" / "masks" / "wren" / "a.png")
    astray = {"masks/a.png", "masks/wern/a.png", "masks/wren/old/a.png"}
    for file in astray:
        outline(tmp_path / "set" / file)
    loaded = photos.folder(tmp_path / "set", size=16)
    assert loaded.images.ids == ("wren/a.jpg",) and loaded.images.masks is not None
    assert reasons(loaded) == dict.fromkeys(astray, "lies where no mask is looked for")


@pytest.mark.parametrize("second", ["masks/wren/a.npy", "masks/wren/a.tif", "wren/a_mask.png"])
def test_two_masks_of_one_picture_are_both_refused(tmp_path, second):
    for stem in ("a", "b"):
        paint(tmp_path / "wren" / f"{stem}.jpg")
        outline(tmp_path / "masks" / "wren" / f"{stem}.png")
    if second.endswith(".npy"):
        np.save(tmp_path / second, np.ones((32, 48)))
    else:
        outline(tmp_path / second)
    loaded = photos.folder(tmp_path, size=16)
    assert loaded.images.ids == ("wren/b.jpg",)
    got = reasons(loaded)
    assert got.keys() == {"wren/a.jpg", "masks/wren/a.png", second}
    assert "it has 2 masks" in got["wren/a.jpg"] and second in got["wren/a.jpg"]
    assert got[second] == got["masks/wren/a.png"] == "one of several masks with the stem a"


def test_two_pictures_with_one_mask_are_both_refused(tmp_path):
    for file in ("a.jpg", "a.png", "b.jpg"):
        paint(tmp_path / "wren" / file)
    assert len(photos.folder(tmp_path, size=16).or_raise()) == 3  # no masks, no question
    outline(tmp_path / "masks" / "wren" / "a.png")
    with pytest.raises(ValueError, match="share one mask"):
        photos.folder(tmp_path, size=16)  # the third has no mask, and masks there are
    outline(tmp_path / "masks" / "wren" / "b.png")
    loaded = photos.folder(tmp_path, size=16)
    assert loaded.images.ids == ("wren/b.jpg",)
    reason = "wren/a.jpg and wren/a.png share one mask: masks/wren/a.png"
    assert reasons(loaded) == {"wren/a.jpg": reason, "wren/a.png": reason}


def test_two_photographs_of_one_stem_in_a_saliency_set(tmp_path):
    for stem in ("a", "b"):
        paint(tmp_path / f"{stem}.jpg")
        outline(tmp_path / f"{stem}.png")
    paint(tmp_path / "a.jpeg")
    loaded = photos.saliency(tmp_path, size=16)
    assert loaded.images.ids == ("b.jpg",) and reasons(loaded).keys() == {"a.jpg", "a.jpeg"}


@pytest.mark.parametrize(("cores", "threads"), [(3, 3), (64, 16)])
def test_as_many_threads_as_cores_may_be_used(tmp_path, monkeypatch, cores, threads):
    asked = []

    class Pool(reading.ThreadPoolExecutor):
        def __init__(self, workers):
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(reading, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    paint(tmp_path / "a.jpg")
    photos.folder(tmp_path, size=16)
    assert asked == [threads]


def test_a_flat_folder_with_array_masks(tmp_path):
    paint(tmp_path / "a.jpg", (32, 32))
    (tmp_path / "masks").mkdir()
    own = np.zeros((32, 32, 1), np.float32)
    own[2:9, 3:7] = 1
    np.save(tmp_path / "masks" / "a.npy", own)
    images = photos.folder(tmp_path, size=32).or_raise()
    assert images.boxes.tolist() == [[3, 2, 7, 9]]


def test_a_cut_out_serves_as_mask(tmp_path):
    paint(tmp_path / "a.jpg", (32, 32))
    cut_out = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    cut_out.paste((0, 0, 128, 255), (4, 4, 12, 12))  # dark, but opaque
    cut_out.save(tmp_path / "a_mask.png")
    assert photos.folder(tmp_path, size=32).or_raise().boxes.tolist() == [[4, 4, 12, 12]]


# ---- the registry


def test_the_registry_is_complete_and_well_formed():
    known = photos.datasets()
    assert {"voc2012", "voc2007", "imagenet9", "tiny_imagenet", "msra_b"} <= known.keys()
    for dataset in known.values():
        assert dataset.needs and dataset.licence and dataset.verified and dataset.used_for
        assert dataset.archives or dataset.manual
        assert not any(Path(f).is_absolute() or ".." in Path(f).parts for f in dataset.folders)
        for archive in dataset.archives:
            assert archive.url.startswith("http")
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.hash)
            assert dataset.take


def test_data_readme_names_every_set_and_its_place():
    text = (Path(photos.__file__).parents[2] / "data" / "README.md").read_text()
    for dataset in photos.datasets().values():
        assert f"`{dataset.name}`" in text and f"`{dataset.folders[0]}/`" in text


def test_data_readme_says_how_much_is_downloaded_without_names():
    text = (Path(photos.__file__).parents[2] / "data" / "README.md").read_text()
    sizes = [d.size for d in photos.datasets().values() if d.checkable]
    assert len(sizes) == 4 and "the first four of the table" in text
    assert text.count(f"{sum(sizes) / 1e9:.2f} GB") == 2
    assert f"{2.2 * max(sizes) / 1e9:.1f} GB must" in text


def test_a_misspelt_registry_entry_is_named(offer):
    registry = offer(b"")
    assert photos.datasets(registry).keys() == {"birds"}
    registry.write_text(registry.read_text().replace("licence", "license"))
    with pytest.raises(ValueError, match=r"registry\.toml, entry birds: .*licen[cs]e"):
        photos.datasets(registry)


def test_a_missing_set_says_everything_needed(tmp_path):
    with pytest.raises(photos.MissingDataset) as missing:
        photos.voc(tmp_path)
    text = str(missing.value)
    for part in ("voc2012", "https://", "2.00 GB", "VOCdevkit/VOC2012", "flickr", str(tmp_path)):
        assert part in text
    assert f'make data DATA_ROOT="{tmp_path}" NAMES="voc2012"' in text
    assert "python -m" not in text
    with pytest.raises(photos.MissingDataset, match='NAMES="imagenet9 --without-hash"'):
        photos.imagenet9(tmp_path)
    (tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(photos.MissingDataset, match="is there, but lacks JPEGImages"):
        photos.find(tmp_path, "voc2012")
    assert photos.state(photos.datasets()["voc2012"], tmp_path) == "partial"
    with pytest.raises(ValueError, match="no public set 'voc'; there are voc2012"):
        photos.find(tmp_path, "voc")


# ---- downloads, from a server on this machine


class Server:
    """Serves bytes by name, with ranges or without, and can cut the first answers short."""

    def __init__(self):
        self.files, self.ranges, self.cut_after, self.cuts, self.asked = {}, True, None, 0, []
        handler = functools.partial(_Handler, self)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        serve = functools.partial(self.http.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, owner, *args):
        self.owner = owner
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_GET(self):
        owner, wanted = self.owner, self.headers.get("Range")
        owner.asked.append(wanted)
        body = owner.files.get(self.path[1:])
        if body is None:
            return self.send_error(404)
        start = int(wanted[6:-1]) if wanted and owner.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if owner.cuts:
            owner.cuts -= 1
            end = min(end, start + owner.cut_after)
            self.close_connection = True
        self.wfile.write(body[start:end])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def packed(members, kind="tar"):
    """An archive of {name: bytes}."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


NOISE = np.random.default_rng(0).bytes(500_000)  # does not compress
BIRDS = {"birds-1.0/wren/a.jpg": NOISE, "birds-1.0/list.txt": b"a"}


@pytest.fixture
def offer(server, tmp_path):
    """Put an archive on the server and describe it in a registry."""

    def make(body, *, hash=None, file="birds.tar.gz", extra=""):
        server.files[file] = body
        hash = "sha256:" + hashlib.sha256(body).hexdigest() if hash is None else hash
        registry = tmp_path / "registry.toml"
        registry.write_text(
            f"""
            [birds]
            title = "Birds of the garden"
            folders = ["birds", "old/birds"]
            needs = ["wren/*.jpg", "list.txt"]
            take = "birds-1.0"
            licence = "for research only"
            used_for = "a test"
            homepage = "http://example.org"
            verified = "made here"
            archives = [
              {{url = "{server.address}/{file}", size = {len(body)}, hash = "{hash}"}}{extra}]
            """
        )
        return registry

    return make


def left(root):
    """What a download left under the data root, locks aside."""
    return sorted(
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and not p.name.endswith(".lock")
    )


DONE = ["birds/list.txt", "birds/wren/a.jpg"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_download_checks_unpacks_and_cleans_up(server, offer, tmp_path, kind):
    file = {"tar": "birds.tar.gz", "zip": "birds.zip"}[kind]
    registry, root = offer(packed(BIRDS, kind), file=file), tmp_path / "root"
    place = photos.download(root, "birds", registry=registry)
    assert place == root / "birds" == photos.find(root, "birds", registry)
    assert left(root) == DONE
    assert (place / "wren" / "a.jpg").read_bytes() == NOISE
    photos.download(root, "birds", registry=registry)
    assert len(server.asked) == 1  # the second time there is nothing to do


def test_two_archives_make_one_set(server, offer, tmp_path):
    server.files["more.tar.gz"] = more = packed({"birds-1.0/list.txt": b"b"})
    digest = hashlib.sha256(more).hexdigest()
    extra = f', {{url = "{server.address}/more.tar.gz", hash = "sha256:{digest}"}}'
    registry = offer(packed({"birds-1.0/wren/a.jpg": NOISE}), extra=extra)
    photos.download(tmp_path / "root", "birds", registry=registry)
    assert left(tmp_path / "root") == DONE


def test_a_wrong_hash_is_refused_and_removed(server, offer, tmp_path):
    registry, root = offer(packed(BIRDS), hash="md5:" + "0" * 32), tmp_path / "root"
    with pytest.raises(photos.DownloadRefused, match="not the published file"):
        photos.download(root, "birds", registry=registry)
    assert left(root) == []
    good = offer(packed(BIRDS))
    photos.download(root, "birds", registry=good)
    assert left(root) == DONE


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_continues(server, offer, tmp_path, ranges):
    server.ranges, server.cut_after, server.cuts = ranges, 131_072, 2
    registry = offer(packed(BIRDS))
    photos.download(tmp_path / "root", "birds", registry=registry)
    assert left(tmp_path / "root") == DONE
    assert server.asked[0] is None
    if ranges:
        assert server.asked[1:] == ["bytes=131072-", "bytes=262144-"]


def test_a_download_that_fails_is_continued_by_the_next_run(server, offer, tmp_path):
    server.cut_after, server.cuts = 65_536, 5
    registry, root = offer(packed(BIRDS)), tmp_path / "root"
    with pytest.raises(photos.DownloadRefused, match="run again to continue"):
        photos.download(root, "birds", registry=registry)
    assert left(root) == [".downloads/birds.tar.gz.part"]
    photos.download(root, "birds", registry=registry)
    assert server.asked[-1] == "bytes=327680-"
    assert left(root) == DONE


@pytest.mark.parametrize("surplus", [b"", b"more than the file has"])
def test_a_part_that_is_already_whole_or_too_long(server, offer, tmp_path, surplus):
    body = packed(BIRDS)
    registry, root = offer(body), tmp_path / "root"
    (root / ".downloads").mkdir(parents=True)
    (root / ".downloads" / "birds.tar.gz.part").write_bytes(body + surplus)
    photos.download(root, "birds", registry=registry)
    assert left(root) == DONE
    assert len(server.asked) == (2 if surplus else 1)


def test_an_archive_fetched_by_hand_is_used(server, offer, tmp_path):
    body, root = packed(BIRDS), tmp_path / "root"
    registry = offer(body)
    (root / ".downloads").mkdir(parents=True)
    (root / ".downloads" / "birds.tar.gz").write_bytes(body)
    photos.download(root, "birds", registry=registry)
    assert server.asked == [] and left(root) == DONE


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../outside.txt", "birds-1.0/../../outside.txt"])
def test_an_archive_that_reaches_out_is_refused(offer, tmp_path, kind, name):
    registry = offer(packed(BIRDS | {name: b"!"}, kind), file=f"birds.{kind}")
    with pytest.raises(photos.DownloadRefused, match="unsafe member"):
        photos.download(tmp_path / "root", "birds", registry=registry)
    assert not list(tmp_path.rglob("outside.txt"))
    assert left(tmp_path / "root") == [f".downloads/birds.{kind}"]


def test_links_out_of_an_archive_are_refused(offer, tmp_path):
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        link = tarfile.TarInfo("birds-1.0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with zipfile.ZipFile(zipped, "w") as archive:
        link = zipfile.ZipInfo("birds-1.0/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    for i, stream in enumerate((tar, zipped)):
        registry = offer(stream.getvalue(), file=f"{i}.archive")
        with pytest.raises(photos.DownloadRefused, match="unsafe member"):
            photos.download(tmp_path / "root", "birds", registry=registry)


@pytest.mark.parametrize("body", [b"this is no archive", packed(BIRDS)[:-1000]])
def test_a_damaged_archive_leaves_no_set(offer, tmp_path, body):
    registry = offer(body)  # the hash is right: the published file itself is damaged
    with pytest.raises(photos.DownloadRefused, match="cannot be unpacked"):
        photos.download(tmp_path / "root", "birds", registry=registry)
    assert not (tmp_path / "root" / "birds").exists()


def test_an_archive_laid_out_otherwise_leaves_no_set(offer, tmp_path):
    for members in ({"other/a.jpg": b"a"}, {"birds-1.0/list.txt": b"a"}):
        registry = offer(packed(members))
        with pytest.raises(photos.DownloadRefused, match="laid out otherwise"):
            photos.download(tmp_path / "root", "birds", registry=registry)
        assert not (tmp_path / "root" / "birds").exists()
        (tmp_path / "root" / ".downloads" / "birds.tar.gz").unlink()


def test_without_a_hash_only_on_request(server, offer, tmp_path, capsys):
    body = packed(BIRDS)
    registry, root = offer(body, hash=""), tmp_path / "root"
    with pytest.raises(photos.DownloadRefused, match="no hash is published"):
        photos.download(root, "birds", registry=registry)
    assert server.asked == [] and not root.exists()
    photos.download(root, "birds", without_hash=True, registry=registry)
    assert left(root) == DONE
    assert hashlib.sha256(body).hexdigest() in capsys.readouterr().out


def test_what_lies_there_in_part_is_never_touched(server, offer, tmp_path):
    registry, root = offer(packed(BIRDS)), tmp_path / "root"
    (root / "birds").mkdir(parents=True)
    (root / "birds" / "list.txt").write_text("mine")
    with pytest.raises(photos.DownloadRefused, match="Move that folder away"):
        photos.download(root, "birds", registry=registry)
    assert left(root) == ["birds/list.txt"] and server.asked == []
    assert (root / "birds" / "list.txt").read_text() == "mine"


def test_a_set_in_its_other_place_is_found(offer, tmp_path):
    registry = offer(packed(BIRDS))
    home = tmp_path / "root" / "old" / "birds"
    paint(home / "wren" / "a.jpg")
    (home / "list.txt").write_text("a")
    assert photos.download(tmp_path / "root", "birds", registry=registry) == home


def test_no_room_and_no_answer_are_said(server, offer, tmp_path, monkeypatch):
    registry = offer(packed(BIRDS))
    server.files.clear()
    with pytest.raises(photos.DownloadRefused, match="could not fetch.*404"):
        photos.download(tmp_path / "root", "birds", registry=registry)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(photos.DownloadRefused, match="while it is unpacked"):
        photos.download(tmp_path / "other", "birds", registry=registry)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.undo()
    with pytest.raises(photos.DownloadRefused, match="cannot write under"):
        photos.download(blocked, "birds", registry=registry)


def test_the_command_lists_then_downloads(offer, tmp_path, capfd):
    registry, root = offer(packed(BIRDS)), tmp_path / "root"
    options = ["--registry", str(registry), "--data-root", str(root)]
    assert main(["--list", *options]) == 0
    assert re.search(r"missing +birds +Birds of the garden", capfd.readouterr().out)
    assert not root.exists()
    assert main(options) == 0
    out, err = capfd.readouterr()
    assert out.index("for research only") < out.index("unpacking")  # terms come first
    assert err == "" and left(root) == DONE
    assert main(options) == 0
    assert re.search(r"present +birds", capfd.readouterr().out)
    assert main(["--list", "bords", *options]) == 2
    assert "no public set bords; there are birds" in capfd.readouterr().out


def test_the_command_fails_when_a_set_fails(offer, tmp_path, capfd):
    registry = offer(packed(BIRDS), hash="md5:" + "0" * 32)
    options = ["--registry", str(registry), "--data-root", str(tmp_path / "root")]
    assert main(options) == 1
    assert "Not downloaded: birds" in capfd.readouterr().out
    unchecked = offer(packed(BIRDS), hash="")
    assert main(["--registry", str(unchecked), *options[2:]]) == 0  # nothing it may fetch by itself
    assert main(["birds", "--registry", str(unchecked), *options[2:]]) == 1
    assert "--without-hash" in capfd.readouterr().out
