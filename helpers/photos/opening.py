"""One photograph or mask file, opened with care: as it should look, or refused with a reason."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

MIN_SIDE = 16  # px; below this there is nothing to see and nothing to learn from

# Named one by one, because Pillow also knows formats that start other programs (EPS) or hold no
# photographs. AVIF only where this Pillow can.
Image.init()
_NAMES = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
_FORMATS = tuple(name for name in _NAMES if name in Image.OPEN)
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class UnusablePicture(ValueError):
    """A picture or mask that cannot be used; the message is the reason."""


def open_picture(path: str | PathLike[str]) -> Image.Image:
    """One picture file as 8-bit RGB, the way a viewer would show it.

    Turned as its EXIF says; 16-bit greys scaled to 8 bits (not clipped); transparency laid on
    white; CMYK through its colour profile where it carries one; palettes and greys spread to RGB;
    of an animation the first frame. Profiles of RGB pictures are not applied, as in torchvision.

    Raises:
        UnusablePicture: unreadable, truncated, empty, fewer than 16 px on a side, or enormous.
    """
    with quiet():
        return decode(Path(path))[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's remarks about odd metadata stay out of notebooks; its bomb warning is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(
    path: Path, *, size: int | None = None, side: int | None = None, matte: int = 255
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as RGB, and its full (width, height), both after turning it by its EXIF.

    With `size`, a JPEG may come back smaller, because its decoder halves almost for free: a square
    of `side` px (default: the largest) still has at least 2 x `size` px, so that how it looks is
    decided by the filter that scales it down. `matte` is the grey level behind transparency.
    """
    with readable(path), Image.open(path, formats=_FORMATS) as picture:
        width, height = picture.size
        if min(width, height) < MIN_SIDE:
            raise UnusablePicture(f"only {width} x {height} px, fewer than {MIN_SIDE} on a side")
        if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
            raise UnusablePicture(_too_large())
        if size:
            zoom = 2 * size / (side or min(width, height))
            picture.draft(None, (math.ceil(width * zoom), math.ceil(height * zoom)))
        picture.load()
        turned = picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        rgb = _as_rgb(ImageOps.exif_transpose(picture), matte)
        return rgb, ((height, width) if turned else (width, height))


def numbers(path: Path) -> UInt8[np.ndarray, "h w"]:
    """A class mask: the number behind each pixel, not its display colour."""
    with readable(path), Image.open(path, formats=_FORMATS) as picture:
        if picture.mode not in ("P", "L"):
            raise UnusablePicture(
                f"class mask in mode {picture.mode}; expected a palette or 8-bit grey PNG whose "
                "values are class numbers (a colour-coded copy has lost them)"
            )
        return np.array(picture)


def silhouette(path: Path) -> Bool[np.ndarray, "h w"]:
    """A two-valued mask in any picture format, or a .npy array: True on the object.

    True is whatever is brighter than half of the mask's brightest value, so that 0/1, 0/255 and
    anti-aliased masks all work; in a coloured one the brightest channel counts.
    """
    if path.suffix == ".npy":
        with readable(path):
            values = np.load(path, allow_pickle=False)  # a pickle could run code
            if values.ndim == 3:
                values = values.max(2)
            if values.ndim != 2:
                raise UnusablePicture(f"array of shape {values.shape}; expected (height, width)")
    else:
        values = np.asarray(decode(path, matte=0)[0]).max(2)
    return values > values.max() / 2


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever goes wrong while decoding `path` becomes an UnusablePicture with a plain reason.

    Decoders raise almost anything on damaged bytes (OSError, SyntaxError, struct.error,
    zlib.error, MemoryError...), so this is the one place that catches everything.
    """
    try:
        if path.is_dir():
            raise UnusablePicture("is a folder, not a picture")
        if path.stat().st_size == 0:
            raise UnusablePicture("empty file (0 bytes)")
        yield
    except UnusablePicture:
        raise
    except FileNotFoundError:
        raise UnusablePicture("there is no such file") from None
    except PermissionError:
        raise UnusablePicture("no permission to read it") from None
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise UnusablePicture(f"not a picture in a format that is read here ({known})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusablePicture(_too_large()) from None
    except Exception as error:
        raise UnusablePicture(f"damaged or incomplete ({error or type(error).__name__})") from None


def _too_large() -> str:
    limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return f"more than {limit:.0f} million pixels, perhaps a decompression bomb; shrink it first"


def _as_rgb(picture: Image.Image, matte: int) -> Image.Image:
    """Any Pillow mode as 8-bit RGB. Pillow's own convert() clips 16-bit greys to white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        top = 1.0 if picture.mode == "F" else 65535.0
        if not (values.min() >= 0 and values.max() <= top):  # put so that NaN is refused, too
            raise UnusablePicture(
                f"grey values from {values.min():g} to {values.max():g}; expected 0 to {top:g}"
            )
        return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        behind = Image.new("RGBA", picture.size, (matte, matte, matte, 255))
        return Image.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")
    if picture.mode == "CMYK" and (profile := picture.info.get("icc_profile")):
        try:
            inks = ImageCms.ImageCmsProfile(BytesIO(profile))
            screen = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(picture, inks, screen, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # an unusable profile: the plain conversion below
    return picture.convert("RGB")
