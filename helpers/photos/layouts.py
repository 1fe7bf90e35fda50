"""Saliency sets, ImageNet-9, Tiny-ImageNet, PF-WILLOW, class folders, yours: layouts on disk."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.io import loadmat
from torch import Tensor

from helpers.imageset import ImageSet
from helpers.photos.opening import UnusablePicture, open_picture, readable
from helpers.photos.public_sets import MissingDataset, datasets, find, located
from helpers.photos.reading import (
    Loaded,
    Picture,
    Refusal,
    affordable,
    announce,
    balanced,
    decoded,
    read,
    together,
    with_masks,
)

# Files that lie beside photographs and are none. Every other file is opened, or refused by name.
_BESIDE = frozenset(
    (
        *(".txt", ".md", ".html", ".pdf", ".json", ".csv", ".tsv", ".xml", ".ini", ".toml"),
        *(".yaml", ".yml", ".mat", ".npy", ".npz", ".pt", ".py", ".db", ".zip", ".tar", ".gz"),
        *(".tgz", ".md5", ".sha256"),
    )
)
_IMAGE_FOLDERS = ("images", "image", "Imgs", "imgs", "DUTS-TE-Image", "DUTS-TR-Image")
_MASK_FOLDERS = ("masks", "mask", "ground_truth_mask", "gt", "GT", "DUTS-TE-Mask", "DUTS-TR-Mask")

_IN9_AGAIN = {  # by split, what to do where it lacks something
    "val": 'move it away and run make data NAMES="imagenet9 --without-hash"',
    "train": "make data fetches the test pictures only; put your own copy of the training archives "
    "there",
}

IN9_CLASSES = (
    *("dog", "bird", "wheeled vehicle", "reptile", "carnivore"),
    *("insect", "musical instrument", "primate", "fish"),
)
IN9_VARIANTS = (
    *("original", "mixed_same", "mixed_rand", "mixed_next"),
    *("only_fg", "no_fg", "only_bg_b", "only_bg_t"),
)


def saliency(root: str | PathLike[str], *, size: int = 224, limit: int | None = None) -> Loaded:
    """A salient-object set: photographs with a two-valued mask each, one class called "object".

    Read are MSRA-B and MSRA10K (one folder, `x.jpg` with `x.png`) and the two folders of ECSSD and
    DUTS (`images/x.jpg` with `ground_truth_mask/x.png` and the like). Whatever is brighter than
    half of a mask's maximum is the object.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing usable in it.
    """
    root = _folder(root)
    images, masks = _first(root, _IMAGE_FOLDERS), _first(root, _MASK_FOLDERS)
    if images and masks:
        photographs, outlines = _files(images), _files(masks)
        refused = _buried(images, root) + _buried(masks, root)
    else:
        refused = _buried(root, root)
        photographs = [p for p in _files(root) if p.suffix.lower() != ".png"]
        outlines = [p for p in _files(root) if p.suffix.lower() == ".png"]
    pictures = [Picture(p.name, p, 0) for p in photographs]
    pictures, mask_of, unpaired = _paired(pictures, outlines, masks or root)
    refused += unpaired
    pictures, unmasked = with_masks(balanced(pictures, limit), mask_of, size)
    return read(pictures, refused + unmasked, class_names=["object"], size=size, what=root.name)


def imagenet9(
    data_root: str | PathLike[str] | None,
    variant: str = "original",
    *,
    split: Literal["val", "train"] = "val",
    masks: bool = False,
    size: int = 224,
    limit: int | None = None,
) -> Loaded:
    """One variant of the ImageNet-9 release (paper 4), nine classes in the release's order.

    With `masks`, the release's foreground masks come along: `fg_mask/val/<class>/<name>.npy`,
    found by the foreground's own name, which the mixed variants carry first in theirs.

    Args:
        data_root: the folder that holds `bg_challenge`; None is the course's own `data/cache`.
        split: "val" are the release's 4,050 test pictures; "train" those of the training archives,
            `<variant>/train/<class>`, of which you need a copy of your own.

    Raises:
        MissingDataset: it is not there, or not this variant; says what to fetch.
        ValueError: no such variant or split, other class folders than the release's nine (says
            which are there), or nothing usable.
    """
    root, places = _in9_places(data_root, (variant,), split)
    pictures, mask_of, refused = [], {}, []
    for label, place in enumerate(places[variant]):
        outlines = {p.stem: p for p in (root / "fg_mask" / split / place.name).glob("*.npy")}
        refused += _buried(place, place.parent)
        for file in _files(place):
            picture = Picture(f"{place.name}/{file.name}", file, label)
            pictures.append(picture)
            if (foreground := _foreground(file)) in outlines:
                mask_of[picture.id] = outlines[foreground]
    pictures = balanced(pictures, limit)
    if masks:
        pictures, unmasked = with_masks(pictures, mask_of, size)
        refused += unmasked
    what = f"ImageNet-9 {variant}"
    return read(pictures, refused, class_names=IN9_CLASSES, size=size, what=what)


def imagenet9_variants(
    data_root: str | PathLike[str] | None,
    *,
    split: Literal["val", "train"] = "val",
    size: int = 224,
    limit: int | None = None,
) -> tuple[dict[str, ImageSet], tuple[Refusal, ...]]:
    """All eight variants of ImageNet-9 (paper 4) with the same foregrounds, row by row.

    Row i of every set is the same object, whose name is the sets' common `ids[i]`, such as
    "00_dog/n02085936_123": files belong together by class folder and by the foreground's name,
    which is the first of its form in their own. A foreground that a variant lacks or has twice,
    whose mask is missing or unusable, or which cannot be read in one variant, is left out of all.

    Args:
        data_root, split: as for `imagenet9`.
        limit: so many foregrounds, spread over the classes, chosen among those that have a file in
            every variant before any file is opened. No file is opened twice.

    Returns:
        The sets by variant, in the order of `IN9_VARIANTS`, and what was refused: files that could
        not be used, by their place in the release, and foregrounds, by name. Where the release has
        masks (`fg_mask/<split>`) all sets share them, with boxes around them: where the object is
        in pictures that show it, and where it was in those that do not.

    Raises:
        MissingDataset: it is not there, or lacks variants; names them.
        ValueError: no such split, other class folders than the release's nine (says which are
            there), nothing usable, or not enough memory.
    """
    what = "ImageNet-9 in all variants"
    root, places = _in9_places(data_root, IN9_VARIANTS, split)
    files, refused = _by_foreground(root, places)
    pictures = [Picture(name, own["original"], int(name[:2])) for name, own in files.items()]
    pictures = balanced(pictures, limit)
    outlines = root / "fg_mask" / split
    if outlines.is_dir():
        masks = {p.id: outlines / f"{p.id}.npy" for p in pictures}
        mask_of = {name: mask for name, mask in masks.items() if mask.is_file()}
        pictures, unmasked = with_masks(pictures, mask_of, size)
        refused += unmasked
    affordable(len(IN9_VARIANTS) * len(pictures), size, what)
    images, usable = {}, set(range(len(pictures)))
    for variant in IN9_VARIANTS:
        own = [replace(p, image=files[p.id][variant]) for p in pictures]
        images[variant], rows, unread = decoded(own, size, f"ImageNet-9 {variant}")
        usable &= set(rows)
        refused += [replace(r, file=_shown(files[r.file][variant], root)) for r in unread]
    announce(refused, len(usable), what)
    rows = sorted(usable)
    for variant in IN9_VARIANTS if len(rows) < len(pictures) else ():
        images[variant] = images[variant][rows]
    first = together([pictures[row] for row in rows], images["original"], IN9_CLASSES)
    sets = {variant: replace(first, images=images[variant]) for variant in IN9_VARIANTS}
    return sets, tuple(refused)


def tiny_imagenet(
    data_root: str | PathLike[str] | None,
    *,
    split: Literal["train", "val"] = "train",
    classes: Sequence[str] | None = None,
    size: int = 64,
    limit: int | None = None,
) -> Loaded:
    """Tiny-ImageNet-200 (paper 1, figure 2): 200 classes of 64 px pictures, without masks.

    The released test pictures have no labels and are not offered. All 100,000 training pictures
    take 1.2 GB: name some `classes` (by name or wnid), or give a `limit`.

    Raises:
        MissingDataset: it is not there; says what to fetch.
        ValueError: no such class, or nothing usable.
    """
    root = find(data_root, "tiny_imagenet")
    codes = (root / "wnids.txt").read_text().split()
    words = dict(_rows(root / "words.txt"))
    names = _distinct(codes, [words.get(c, c).split(",")[0].strip() for c in codes])
    if split == "train":
        found = [(p, code) for code in codes for p in _files(root / "train" / code / "images")]
    else:
        annotations = _rows(root / "val" / "val_annotations.txt")
        found = [(root / "val" / "images" / file, code) for file, code, *_ in annotations]
    labels = {code: label for label, code in enumerate(codes)}
    pictures = [Picture(p.name, p, labels[code]) for p, code in found if code in labels]
    refused = [
        Refusal(p.name, f"its class {code} is not in wnids.txt")
        for p, code in found
        if code not in labels
    ]
    names, pictures = _only(classes, codes, names, pictures)
    what = f"Tiny-ImageNet {split}"
    return read(balanced(pictures, limit), refused, class_names=names, size=size, what=what)


def pf_willow(
    root: str | PathLike[str], *, limit: int | None = None
) -> dict[str, list[tuple[UInt8[Tensor, "3 _h _w"], Float[Tensor, "p 2"]]]]:
    """PF-WILLOW (paper 2, proposal flow): sets of photographs whose keypoints correspond.

    A set is a folder of pictures `x.png`, each with `x.mat`, whose `pts_coord` holds x in its first
    row and y in its second. Pictures keep their size: they are not cut to squares. With `limit`, so
    many pictures, spread over the sets.

    Returns:
        By set: its pictures, each with its keypoints (x, y) in pixels; keypoint i of one picture
        corresponds to keypoint i of every other.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no pictures, one that cannot be used or has no usable keypoints, or another
            number of keypoints than the others of its set: a benchmark is whole or none.
    """
    root = _folder(root)
    places = _folders(root)
    pictures = [
        Picture(f"{place.name}/{p.name}", p, label)
        for label, place in enumerate(places)
        for p in _files(place)
    ]
    if not pictures:
        raise ValueError(f"{root} holds no sets; expected {root.name}/<set>/x.png with x.mat")
    sets: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for picture in balanced(pictures, limit):
        own = sets.setdefault(places[picture.label].name, [])
        try:
            pixels = torch.from_numpy(np.array(open_picture(picture.image)))
            points = _keypoints(picture.image.with_suffix(".mat"))
        except UnusablePicture as error:
            raise ValueError(f"{picture.id} in {root}: {error}") from None
        if own and len(points) != len(own[0][1]):
            raise ValueError(
                f"{picture.id} in {root} has {len(points)} keypoints, others of its set "
                f"{len(own[0][1])}; they must correspond"
            )
        own.append((pixels.permute(2, 0, 1).contiguous(), points))
    return sets


def class_folders(
    root: str | PathLike[str],
    *,
    wnids: str | PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    size: int = 224,
    limit: int | None = None,
) -> Loaded:
    """One folder per class, as ImageNet, ImageFolder and most collections have it; no masks.

    Where the folders are named by wnid (`n02085936`), a list `wnids.txt` of `wnid name` lines, here
    or in the folder above, gives names and order: with ImageNet's own 1,000 lines a label is the
    index that pretrained networks answer with, present or not. Otherwise the folders' names,
    sorted, are the classes. `classes` keeps some, by name or wnid, in the order given. Pictures
    in folders inside a class folder are not read but refused by name.

    Raises:
        FileNotFoundError: no such folder or list.
        ValueError: no class folders, no such class, or nothing usable.
    """
    root = _folder(root)
    codes = names = [p.name for p in _folders(root)]
    refused = [Refusal(p.name, "lies beside the class folders, in none") for p in _files(root)]
    if not codes:
        raise ValueError(f"{root} has no folders in it; expected {root.name}/<class>/<pictures>")
    places = [Path(wnids)] if wnids else [root / "wnids.txt", root.parent / "wnids.txt"]
    listed = next((p for p in places if p.is_file()), None)
    if wnids and not listed:
        raise FileNotFoundError(f"no list of class names at {wnids}")
    if listed and (wnids or all(re.fullmatch(r"n\d{8}", c) for c in codes)):
        lines = [line.split(maxsplit=1) for line in listed.read_text().splitlines()]
        unlisted = sorted(set(codes) - {line[0] for line in lines if line})
        refused += [Refusal(f"{c}/", f"this class is not in {listed.name}") for c in unlisted]
        codes = [line[0] for line in lines if line]
        names = _distinct(codes, [line[-1].replace("_", " ").strip() for line in lines if line])
    pictures = [
        Picture(f"{code}/{p.name}", p, label)
        for label, code in enumerate(codes)
        for p in _files(root / code)
    ]
    for code, name in zip(codes, names, strict=True):
        if (root / code).is_dir() and (classes is None or {code, name} & set(classes)):
            refused += _buried(root / code, root)
    names, pictures = _only(classes, codes, names, pictures)
    return read(balanced(pictures, limit), refused, class_names=names, size=size, what=root.name)


def folder(root: str | PathLike[str], *, size: int = 224, limit: int | None = None) -> Loaded:
    """Your own photographs: class subfolders or one flat folder, with or without masks.

    A mask is a picture of the same size, bright on the object: `masks/<class>/<stem>.png` (any
    picture format, or .npy; flat: `masks/<stem>.png`), or `<stem>_mask.png` beside the photograph.
    Folders inside a class folder are not read; what lies in them is refused by name.
    Either every photograph has one, or none: those without one, among others that have one, are
    refused by name. A flat folder is one class with the folder's name. `data/README.md` shows it.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing usable in it.
    """
    root = _folder(root)
    places = [p for p in _folders(root) if p.name != "masks"] or [root]
    masks, looked = root / "masks", set()
    pictures, mask_of, refused, masked = [], {}, [], False
    for label, place in enumerate(places):
        files = _files(place)
        beside = [p for p in files if p.stem.endswith("_mask")]
        home = masks / place.relative_to(root)
        apart = _files(home, besides=".npy")
        looked |= {home, *apart}
        prefix = "" if place == root else f"{place.name}/"
        own = [Picture(prefix + p.name, p, label) for p in files if p not in beside]
        usable, found, unpaired = _paired(own, beside + apart, root)
        masked |= bool(found) or len(usable) < len(own)  # only a mask makes a picture unusable
        pictures += usable
        mask_of |= found
        refused += unpaired
    if places != [root]:
        refused += [Refusal(p.name, "lies beside the class folders, in none") for p in _files(root)]
        refused += [r for place in places for r in _buried(place, root)]
    astray = [p for p in _below(masks, besides=".npy") if p not in looked]
    refused += [Refusal(_shown(p, root), "lies where no mask is looked for") for p in astray]
    pictures = balanced(pictures, limit)
    if masked:
        pictures, unmasked = with_masks(pictures, mask_of, size)
        refused += unmasked
    names = [p.name for p in places]
    return read(pictures, refused, class_names=names, size=size, what=root.name)


def _in9_places(
    data_root: str | PathLike[str] | None, variants: Sequence[str], split: str
) -> tuple[Path, dict[str, list[Path]]]:
    """The folder of ImageNet-9 and, of each of these variants, its nine class folders in order."""
    if unknown := [v for v in variants if v not in IN9_VARIANTS]:
        known = ", ".join(IN9_VARIANTS)
        raise ValueError(f"no ImageNet-9 variant {unknown[0]!r}; there are {known}")
    if split not in _IN9_AGAIN:
        raise ValueError(f"no split {split!r} of ImageNet-9; there are {', '.join(_IN9_AGAIN)}")
    homes = [located(data_root) / home for home in datasets()["imagenet9"].folders]
    # what is asked for is enough: some have a part of the release, or training pictures alone
    partly = (h for h in homes if any((h / v / split).is_dir() for v in variants))
    root = next(partly, None) or find(data_root, "imagenet9")
    places = {v: root / v / split for v in variants}
    if lacking := [_shown(place, root) for place in places.values() if not place.is_dir()]:
        raise MissingDataset(
            f"ImageNet-9 is at {root}, but lacks {', '.join(lacking)}: {_IN9_AGAIN[split]}"
        )
    expected = [f"{label:02d}_{name}" for label, name in enumerate(IN9_CLASSES)]
    found = {v: _folders(place) for v, place in places.items()}
    for variant, folders in found.items():
        if (names := [p.name for p in folders]) != expected:
            raise ValueError(
                f"{places[variant]} should have the class folders {', '.join(expected)}, by which "
                f"its pictures are labelled; there are {', '.join(names) or 'none'}"
            )
    return root, found


def _foreground(file: Path) -> str:
    """The name of the foreground in an ImageNet-9 picture, "" without one.

    It is the first name of an ImageNet picture in the file's own. What follows is not relied on:
    mixed variants name a background there, and those of mixed_rand the one of mixed_next.
    """
    found = re.search(r"n\d{8}_\d+", file.stem)
    return found[0] if found else ""


def _by_foreground(
    root: Path, places: dict[str, list[Path]]
) -> tuple[dict[str, dict[str, Path]], list[Refusal]]:
    """By "<class folder>/<foreground>", in order: its one file in each variant. And the others."""
    found, refused = defaultdict(lambda: defaultdict(list)), []
    for variant, folders in places.items():
        for place in folders:
            refused += _buried(place, root)
            for file in _files(place):
                if foreground := _foreground(file):
                    found[f"{place.name}/{foreground}"][variant].append(file)
                else:
                    reason = "there is no foreground's name, such as n02085936_123, in its own"
                    refused.append(Refusal(_shown(file, root), reason))
    whole = {}
    for name, own in sorted(found.items()):
        lacking = [variant for variant in places if variant not in own]
        several = [_shown(f, root) for files in own.values() if len(files) > 1 for f in files]
        if lacking:
            refused.append(Refusal(name, f"there is no picture of it in {', '.join(lacking)}"))
        elif several:
            refused.append(Refusal(name, f"it has several pictures: {', '.join(several)}"))
        else:
            whole[name] = {variant: files[0] for variant, files in own.items()}
    return whole, refused


def _keypoints(file: Path) -> Float[Tensor, "p 2"]:
    with readable(file):
        points = np.asarray(loadmat(file).get("pts_coord", ()), np.float32)
        if points.ndim != 2 or len(points) < 2 or not np.isfinite(points[:2]).all():
            raise UnusablePicture(f"{file.name} has no finite pts_coord of 2 rows, x and y")
        return torch.from_numpy(points[:2].T.copy())


def _folder(root: str | PathLike[str]) -> Path:
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return root.resolve()


def _first(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:  # knows what is a folder without asking for each file
        return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))


def _files(place: Path, besides: str = "") -> list[Path]:
    """The files of a folder that should be pictures, sorted; none where there is no folder."""
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        files = [Path(e.path) for e in entries if not e.is_dir()]
    return sorted(p for p in files if _pictorial(p, besides))


def _pictorial(file: Path, besides: str = "") -> bool:
    return not file.name.startswith(".") and file.suffix.lower() not in _BESIDE - {besides}


def _buried(place: Path, root: Path) -> list[Refusal]:
    """What lies in folders inside a class folder: more of it, masks, another set? Not guessed."""
    reason = f"lies in a folder inside {place.name}/, where nothing is read; move it up, or away"
    inner = [[p] if p.is_symlink() else _below(p) for p in _folders(place)]
    return [Refusal(_shown(p, root), reason) for found in inner for p in found]


def _below(place: Path, besides: str = "") -> list[Path]:
    """What looks like a picture in a folder, at any depth; links to folders are not followed."""
    found = (p for p in place.rglob("*") if p.is_symlink() or not p.is_dir())
    seen = (p for p in found if not any(x.startswith(".") for x in p.relative_to(place).parts))
    return sorted(p for p in seen if _pictorial(p, besides))


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _paired(
    pictures: Sequence[Picture], masks: Iterable[Path], root: Path
) -> tuple[list[Picture], dict[str, Path], list[Refusal]]:
    """The pictures left, the mask of each by id, and what had to be refused.

    Picture and mask belong together by their stem. Where two masks have the same, or two pictures
    that have a mask, nobody can say which is meant: none of them is used.
    """
    by_stem, same_stem = defaultdict(list), defaultdict(list)
    for mask in masks:
        by_stem[mask.stem.removesuffix("_mask")].append(mask)
    for picture in pictures:
        same_stem[picture.image.stem].append(picture)
    mask_of, refused, unclear = {}, [], set()
    for stem, same in same_stem.items():
        own = by_stem.pop(stem, [])
        if not own:
            continue
        if len(own) == len(same) == 1:
            mask_of[same[0].id] = own[0]
            continue
        unclear.add(stem)
        names = " and ".join(_shown(p, root) for p in own)
        reason = f"{' and '.join(p.id for p in same)} share one mask: {names}"
        if len(own) > 1:
            reason = f"it has {len(own)} masks: {names}"
            twice = f"one of several masks with the stem {stem}"
            refused += [Refusal(_shown(p, root), twice) for p in own]
        refused += [Refusal(p.id, reason) for p in same]
    orphans = [p for own in by_stem.values() for p in own]
    refused += [Refusal(_shown(p, root), "a mask without its picture") for p in orphans]
    return [p for p in pictures if p.image.stem not in unclear], mask_of, refused


def _rows(file: Path) -> list[list[str]]:
    """The tab-separated rows of a list."""
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line]


def _distinct(codes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names with the code added where two classes share one: ImageNet has two cranes."""
    return [n if names.count(n) == 1 else f"{n} ({c})" for c, n in zip(codes, names, strict=True)]


def _only(
    classes: Sequence[str] | None,
    codes: Sequence[str],
    names: Sequence[str],
    pictures: Sequence[Picture],
) -> tuple[list[str], list[Picture]]:
    """The pictures of the chosen classes, labelled by their place among them."""
    if classes is None:
        return list(names), list(pictures)
    places = {name: i for i, name in enumerate(names)} | {code: i for i, code in enumerate(codes)}
    if unknown := [c for c in classes if c not in places]:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"no class {', '.join(unknown)}; there are {shown}")
    new = {places[c]: i for i, c in enumerate(classes)}
    kept = [replace(p, label=new[p.label]) for p in pictures if p.label in new]
    return [names[places[c]] for c in classes], kept
