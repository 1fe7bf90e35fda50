"""Photographs as an `ImageSet`: PASCAL VOC, ImageNet-9, Tiny-ImageNet, saliency sets, your own.

Real folders hold surprises: rotated phone pictures, CMYK scans, 16-bit greys, half a download, a
mask of another size. Every reader opens pictures through one careful function, makes them square,
and returns a `Loaded`: the pictures that are usable *and* the files that are not, each with its
reason. Nothing is dropped silently; `Loaded.or_raise()` is for callers who accept no loss at all.

Three decisions hold for every reader:

- **Square.** The largest square of the photograph is cut out (no padding, no stretching) and scaled
  to `size`. Where the object's mask is known the square slides along the longer side just far
  enough to hold as much of the object as it can; otherwise it is the centre. A plain centre crop
  would cut the labelled object off in many photographs, a crop around the object would remove the
  background that this course studies.
- **Scale.** Pictures are scaled with an anti-aliased filter, masks with nearest neighbour: a mask
  stays a mask.
- **Limit.** `limit=n` keeps n pictures spread evenly over the classes, the same ones every time.
  Classes left without a picture keep their place in `class_names`. Unusable files among the n are
  reported, not replaced.

Two readers return something else: `pf_willow`, a benchmark of keypoints, pictures of their own size
with their keypoints, all or none; `imagenet9_variants` one set for each of its eight variants, with
the same objects in the same rows, and one list of what was refused.

`make data` (`python -m helpers.photos`) lists the public sets of `data/registry.toml` and downloads
those that are missing.
"""

from helpers.photos.layouts import (
    IN9_CLASSES,
    IN9_VARIANTS,
    class_folders,
    folder,
    imagenet9,
    imagenet9_variants,
    pf_willow,
    saliency,
    tiny_imagenet,
)
from helpers.photos.opening import UnusablePicture, open_picture
from helpers.photos.pascal_voc import VOC_CLASSES, voc
from helpers.photos.public_sets import (
    Archive,
    Dataset,
    DownloadRefused,
    MissingDataset,
    datasets,
    download,
    find,
    state,
)
from helpers.photos.reading import Loaded, Refusal

__all__ = [
    "IN9_CLASSES",
    "IN9_VARIANTS",
    "VOC_CLASSES",
    "Archive",
    "Dataset",
    "DownloadRefused",
    "Loaded",
    "MissingDataset",
    "Refusal",
    "UnusablePicture",
    "class_folders",
    "datasets",
    "download",
    "find",
    "folder",
    "imagenet9",
    "imagenet9_variants",
    "open_picture",
    "pf_willow",
    "saliency",
    "state",
    "tiny_imagenet",
    "voc",
]
