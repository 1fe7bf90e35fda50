"""Every picture of the course: one style, and one way to save a figure so that nothing is lost.

`save` writes a figure as PNG (slides), SVG (print) and JSON (caption, description and the numbers
behind it), and hands the notebook a card whose picture carries its alt text. The drawing functions
below it are the few that several notebooks share; each returns a matplotlib `Figure` that pyplot
does not know of, so that a notebook shows it once, as a card, and not as it is made.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from pathlib import Path

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from PIL import Image
from torch import Tensor

from helpers.durable import write_durably

# Okabe and Ito's palette (2008), told apart with every common form of colour blindness. The yellow
# comes last: it is too pale for lines on white.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "grey": "#6B6B6B",
    "yellow": "#F0E442",
}
INK = "#1C1B19"
RULE = "#D9D6CE"
DPI = 160  # pixels an inch in the saved PNG; shown at 96, so text stays sharp on dense screens
WIDTH = 9.0  # inches: 864 pixels on screen, the width of a notebook's output
BUDGET = 42_000  # bytes of picture inside a notebook, which stays below 1 MB in all


def style() -> None:
    """Set the course's matplotlib style: legible from the back row, nothing that is not data."""
    mpl.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "figure.figsize": (WIDTH, 4.5),
            "figure.dpi": 96,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on each machine
            "font.size": 12,
            "text.color": INK,
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.labelsize": 12,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#8C8A84",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": RULE,
            "grid.linewidth": 0.8,
            "axes.prop_cycle": mpl.cycler(color=list(PALETTE.values())),
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "legend.frameon": False,
            "legend.fontsize": 11,
            "lines.linewidth": 2.2,
            "lines.markersize": 7,
            "patch.linewidth": 0,
            "image.cmap": "viridis",
            "image.interpolation": "antialiased",
            "svg.hashsalt": "course",  # equal figures give equal files
            "svg.fonttype": "path",  # the same letters on a machine without the font
        }
    )


@dataclass(frozen=True)
class FigureCard:
    """A saved figure: where its files are, and the HTML that shows it with its alt text."""

    name: str  # "<notebook>-<name>"
    caption: str
    alt: str
    profile: str
    png: Path
    svg: Path
    json: Path
    html: str

    def __repr__(self) -> str:
        return f"Figure {self.name} ({self.profile} profile): {self.caption}"

    def _repr_html_(self) -> str:
        return self.html


def save(
    fig: Figure,
    name: str,
    *,
    folder: Path,
    caption: str,
    alt: str,
    data: Mapping | pd.DataFrame | None = None,
    notebook: str,
    profile: str,
) -> FigureCard:
    """Write `fig` as `<folder>/<notebook>-<name>.{png,svg,json}`, close it, and return its card.

    Args:
        caption: what a reader should see in the figure, one or two sentences.
        alt: what the figure shows, for somebody who cannot see it.
        data: the numbers behind the figure; arrays, tensors and tables become lists, and what is
            not finite becomes null. They can be downloaded from the report.

    Raises:
        ValueError: no caption or alt text, a name that is not kebab-case, or data that JSON
            cannot hold.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(
            f"figure name {name!r} is not kebab-case; write it like 'confusion-matrix' "
            "(small letters, digits, single hyphens)"
        )
    if not re.fullmatch(r"\w[\w-]*", notebook):
        raise ValueError(f"{notebook!r} is not a notebook's name, like '00_meet_the_scenes'")
    for field, value in (("caption", caption), ("alt", alt)):
        if not value.strip():
            raise ValueError(f"figure {name!r} needs a {field} text; it is empty")
    numbers = plain(data)
    stem = f"{notebook}-{name}"
    card = folder / f"{stem}.json"
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    # Saving puts back the layout engine of rcParams, which would undo a sheet's exact layout.
    # Pictures side by side stay pictures of their own in the SVG, with their own pixels.
    kept = {"figure.constrained_layout.use": False, "image.composite_image": False}
    with mpl.rc_context(kept):
        pixels = _drawn(fig)
        drawn = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        # a figure that looks as before has its files already: most of the time, on a second run
        if (content := _saved_before(card, drawn)) is not None:
            png.touch()  # the runner removes what a run did not write
            svg.touch()
        else:
            buffer, content = io.BytesIO(), _png(pixels)
            svg.unlink(missing_ok=True)  # an old one must not stand beside the new picture
            write_durably(png, content)
            fig.savefig(buffer, format="svg", dpi=DPI, facecolor="white", metadata={"Date": None})
            write_durably(svg, buffer.getvalue())
    plt.close(fig)
    record = {
        "name": name,
        "notebook": notebook,
        "profile": profile,
        "caption": caption.strip(),
        "alt": alt.strip(),
        "width": round(fig.get_figwidth() * 96),  # CSS pixels
        "saved": datetime.now(UTC).isoformat(),
        "drawn": drawn,  # SHA-256 of the pixels' size and values, RGBA
        "png": hashlib.sha256(content).hexdigest(),
        "data": numbers,
    }
    # The card comes last: once it is there, its pictures are too.
    write_durably(card, json.dumps(record, indent=1, ensure_ascii=False).encode())
    return FigureCard(
        name=stem,
        caption=record["caption"],
        alt=record["alt"],
        profile=profile,
        png=png,
        svg=svg,
        json=card,
        html=_figure_html(embedded(png, content), record),
    )


def _drawn(fig: Figure) -> UInt8[np.ndarray, "h w 4"]:
    """The figure's pixels, laid out for good. (`savefig` would draw twice where it lays out.)"""
    fig.set(dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    fig.set_layout_engine("none")  # this drawing has laid everything out
    return np.asarray(canvas.buffer_rgba())


def _png(pixels: UInt8[np.ndarray, "h w 4"]) -> bytes:
    buffer = io.BytesIO()
    mpl.image.imsave(buffer, pixels, format="png", origin="upper", dpi=DPI)
    return buffer.getvalue()


def _saved_before(card: Path, drawn: str) -> bytes | None:
    """The PNG beside `card` if it, and an SVG, were made of the same pixels and are unharmed."""
    try:
        record = json.loads(card.read_text(encoding="utf-8"))
        content = card.with_suffix(".png").read_bytes()
        same = record["drawn"] == drawn and record["png"] == hashlib.sha256(content).hexdigest()
        return content if same and card.with_suffix(".svg").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):  # none there, or not this course's
        return None


def _figure_html(picture: tuple[bytes, str], record: Mapping) -> str:
    return (
        '<figure style="margin:0.5em 0">'
        f'<img alt="{escape(record["alt"])}" src="{data_uri(*picture)}" '
        f'width="{record["width"]}" '
        'style="max-width:100%;height:auto;background:#fff;border-radius:4px">'
        '<figcaption style="max-width:60em;line-height:1.45;overflow-wrap:anywhere">'
        f"{escape(record['caption'])} <em>({escape(record['profile'])} profile)</em>"
        "</figcaption></figure>"
    )


def embed(picture: Image.Image, budget: int = BUDGET) -> tuple[bytes, str]:
    """Encode a picture for a page: (bytes, media type), within `budget` bytes where possible.

    Drawings become PNG with a palette, which keeps lettering sharp; what a palette cannot hold
    (photographs) becomes WebP, half of a JPEG's size at the same quality. What is still too large
    loses pixels: as many as its size says, since bytes go about with the area.
    """
    drawing = _is_drawing(picture)
    encode, media = (_palette_png, "image/png") if drawing else (_webp, "image/webp")
    usual = (0.03 if drawing else 0.1) * picture.width * picture.height  # bytes, to start near it
    scale = min(1.0, (budget / usual) ** 0.5)
    while True:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        shrunk = picture if scale == 1 else picture.resize(size, Image.Resampling.LANCZOS)
        if len(made := encode(shrunk)) <= budget or scale < 0.3:
            return made, media
        scale *= min(0.85, (budget / len(made)) ** 0.6)


_ENCODING = 1  # raise it whenever `embed` should encode the same picture in another way


def embedded(png: Path, content: bytes, budget: int = BUDGET) -> tuple[bytes, str]:
    """`embed` of a PNG file, remembered: encoding takes as long as drawing, and few figures change.

    What was made of this very `content` with this budget before is read from the folder
    `.embedded` beside `png`; one file for each figure and budget, so nothing old is left behind.

    Raises:
        OSError: `content` is no picture, or damaged (the kinds Pillow raises: also SyntaxError and
            ValueError).
    """
    memory = png.parent / ".embedded" / f"{png.stem}-{budget}"
    key = hashlib.sha256(f"{_ENCODING} {budget} ".encode() + content).hexdigest()
    try:
        head, made = memory.read_bytes().split(b"\n", 1)
        was, media, digest = head.decode().split(" ")
        if was == key and digest == hashlib.sha256(made).hexdigest():
            return made, media
    except (OSError, ValueError):  # none there, or damaged
        pass
    with Image.open(io.BytesIO(content)) as picture:
        made, media = embed(picture.convert("RGB"), budget)
    memory.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256(made).hexdigest()
    write_durably(memory, f"{key} {media} {digest}\n".encode() + made)
    return made, media


def data_uri(content: bytes, media: str) -> str:
    """`content` as a URI that needs no file and no network."""
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _is_drawing(picture: Image.Image) -> bool:
    """Whether 256 colours hold the picture so well that nobody can see the difference."""
    sample = picture.resize([max(1, side // 4) for side in picture.size], Image.Resampling.NEAREST)
    few = sample.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    error = np.abs(np.asarray(few, np.int16) - np.asarray(sample, np.int16))
    # a key's small swatches count: few pixels may be far off, even where the mean is fine
    return float(error.mean()) < 1 and float((error.max(-1) > 24).mean()) < 5e-4


def _palette_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", dpi=(DPI, DPI))
    return buffer.getvalue()


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=78, method=3)
    return buffer.getvalue()


def plain(value: object) -> object:
    """The same numbers as JSON types: tensors, arrays, tables and dataclasses become lists and
    dictionaries, numbers that are not finite become None.

    Raises:
        ValueError: JSON has no such type.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.name  # a folder of this machine means nothing on another
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return plain(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, pd.DataFrame | pd.Series):
        return plain(value.reset_index().to_dict(orient="list"))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    raise ValueError(
        f"cannot keep a {type(value).__name__} as JSON; give numbers, text, arrays, tensors, "
        "tables, lists or dictionaries of these"
    )


def outline(ax: Axes, mask: Bool[np.ndarray, "h w"], color: str = PALETTE["orange"]) -> None:
    """Draw the border of a mask over the picture in `ax`, with a dark edge that shows on any."""
    if mask.any() and not mask.all():
        padded = np.pad(mask, 1).astype(float)
        h, w = mask.shape
        x, y = np.arange(-1, w + 1), np.arange(-1, h + 1)
        for line, width in (("black", 2.4), (color, 1.2)):
            ax.contour(x, y, padded, levels=[0.5], colors=line, linewidths=width)
        ax.set(xlim=(-0.5, w - 0.5), ylim=(h - 0.5, -0.5))


def framed(
    image: UInt8[Tensor, "3 h w"],
    boxes: Int64[Tensor, "m 4"],
    colours: Sequence[str] | str,
    enlarge: int = 1,
) -> UInt8[Tensor, "3 H W"]:
    """The picture, enlarged so many times, with boxes drawn on it.

    Args:
        boxes: x0, y0, x1, y1 in the picture's pixels, half open.
        colours: names of `PALETTE`, one for each box or one for all; a dark line lies inside.
    """
    picture = np.repeat(np.repeat(image.permute(1, 2, 0).numpy(), enlarge, 0), enlarge, 1).copy()
    names = [colours] * len(boxes) if isinstance(colours, str) else colours
    for (x0, y0, x1, y1), name in zip((boxes * enlarge).tolist(), names, strict=True):
        rgb = [round(255 * c) for c in mpl.colors.to_rgb(PALETTE[name])]
        wide = max(2, enlarge // 2)
        for inset, colour in [(wide, (20, 20, 20)), *((i, rgb) for i in range(wide))]:
            if min(x1 - x0, y1 - y0) > 2 * inset + 1:
                corner, other = (x0 + inset, y0 + inset), (x1 - 1 - inset, y1 - 1 - inset)
                cv2.rectangle(picture, corner, other, colour, 1)
    return torch.from_numpy(picture).permute(2, 0, 1)


def heated(
    images: UInt8[Tensor, "n 3 h w"], values: Float[Tensor, "n h w"]
) -> UInt8[Tensor, "n 3 h w"]:
    """Values in [0, 1] as colours over the grey pictures: dark blue is 0, yellow is 1 (cividis)."""
    grey = images.float().mean(1, keepdim=True) / 255
    colours = mpl.colormaps["cividis"](values.clamp(0, 1).numpy())[..., :3]
    colours = torch.from_numpy(colours).permute(0, 3, 1, 2).float()
    return ((0.3 * grey + 0.7 * colours) * 255).round().byte()


def contact_sheet(
    images: UInt8[Tensor, "n 3 h w"],
    *,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    masks: Bool[Tensor, "n h w"] | None = None,
    headline: str | None = None,
) -> Figure:
    """Pictures side by side, each with its title under it and its mask outlined.

    Small pictures are enlarged by a whole number, so that their pixels stay crisp squares; large
    ones are reduced smoothly to fit.

    Raises:
        ValueError: no pictures, or as many titles or masks as there are not pictures.
    """
    fig, axes = _sheet(images, titles, columns, headline)
    if masks is not None and len(masks) != len(images):
        raise ValueError(f"{len(masks)} masks for {len(images)} pictures")
    for i, ax in enumerate(axes):
        if masks is not None:
            outline(ax, masks[i].cpu().numpy())
    return fig


def part_sheet(
    images: UInt8[Tensor, "n 3 h w"],
    parts: UInt8[Tensor, "n h w"],
    part_names: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    headline: str | None = None,
) -> Figure:
    """Each picture in grey with its named parts coloured, and a key of its parts under it.

    `parts` indexes `part_names`, 0 being "not the object". A part has one colour in the whole
    sheet; parts that never share a picture may share a colour.

    Raises:
        ValueError: no pictures, or a part without a name.
    """
    if len(parts) and int(parts.max()) >= len(part_names):
        raise ValueError(f"part {int(parts.max())} has no name; there are {len(part_names)} names")
    present = [sorted(set(p.unique().tolist()) - {0}) for p in parts]
    colors = _distinct(present)
    keys = [[(part_names[k], colors[k]) for k in these] for these in present]
    fig, axes = _sheet(images, titles, columns, headline, keys)
    for ax, picture, part in zip(axes, images.cpu(), parts.cpu(), strict=True):
        grey = picture.float().mean(0).numpy() / 255
        shown = np.repeat(grey[..., None], 3, 2) * 0.5 + 0.5  # pale, so that the colours speak
        for k in set(part.unique().tolist()) - {0}:
            where = part.numpy() == k
            shade = 0.55 + 0.45 * grey[where][:, None]
            shown[where] = np.array(mpl.colors.to_rgb(colors[k])) * shade
        ax.images[0].set_data(shown)
    return fig


def _distinct(groups: Sequence[Sequence[int]]) -> dict[int, str]:
    """A colour per label, different for labels that stand in one group (greedy, first fit)."""
    base = [PALETTE[k] for k in PALETTE if k != "grey"]
    lighter = [mpl.colors.to_hex(0.5 + 0.5 * np.array(mpl.colors.to_rgb(c))) for c in base]
    darker = [mpl.colors.to_hex(0.55 * np.array(mpl.colors.to_rgb(c))) for c in base]
    choices = base + darker + lighter
    chosen: dict[int, str] = {}
    for label in sorted({label for group in groups for label in group}):
        taken = {chosen.get(other) for group in groups if label in group for other in group}
        free = [c for c in choices if c not in taken]
        chosen[label] = free[0] if free else choices[label % len(choices)]
    return chosen


def _sheet(
    images: Tensor,
    titles: Sequence[str] | None,
    columns: int,
    headline: str | None,
    keys: Sequence[Sequence[tuple[str, str]]] | None = None,
) -> tuple[Figure, list[Axes]]:
    """The grid behind every sheet, laid out in whole output pixels."""
    n, _, h, w = images.shape
    if n == 0:
        raise ValueError("a contact sheet needs at least one picture")
    if columns < 1:
        raise ValueError(f"columns={columns}: a contact sheet needs at least one column")
    if titles is not None and len(titles) != n:
        raise ValueError(f"{len(titles)} titles for {n} pictures")
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    gap = 14
    room = (WIDTH * DPI - gap) / max(columns, 3) - gap  # a single picture need not fill the page
    enlarged = max(1, int(room // w)) if w <= room else room / w
    cell_w, cell_h = round(w * enlarged), round(h * enlarged)
    points = 11 * DPI / 72  # one line of 11 pt text, in output pixels
    letters = max(6, int(cell_w / (points * 0.58)))
    wrapped = [_wrap(t, letters, 3) for t in titles or []]
    below = []  # pixels for the texts under each row of pictures
    for row in range(rows):
        here = slice(row * columns, (row + 1) * columns)
        lines = max((t.count("\n") + 1 for t in wrapped[here]), default=0)
        key_lines = max((len(k) for k in (keys or [])[here]), default=0)
        below.append(round(points * (1.35 * lines + 1.3 * key_lines)) + (8 if wrapped else 0))
    top = round(points * 2) if headline else 0
    width = gap + columns * (cell_w + gap)
    height = top + gap + rows * (cell_h + gap) + sum(below)
    fig = Figure(figsize=(width / DPI, height / DPI), layout="none", facecolor="white")
    if headline:
        fig.text(gap / width, 1 - gap / height, headline, fontsize=13, fontweight="bold", va="top")
    axes = []
    for i, picture in enumerate(images.cpu()):
        row, column = divmod(i, columns)
        left = gap + column * (cell_w + gap)
        bottom = height - top - (row + 1) * (cell_h + gap) - sum(below[:row])
        ax = fig.add_axes((left / width, bottom / height, cell_w / width, cell_h / height))
        ax.imshow(
            picture.permute(1, 2, 0).numpy(),
            interpolation="nearest" if enlarged >= 1 else "antialiased",
            aspect="auto",
        )
        ax.set_axis_off()  # and nothing to lay out or draw for it
        edge = Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, clip_on=False)
        edge.set(edgecolor=RULE, linewidth=0.8)  # white pictures have an edge
        ax.add_patch(edge)
        at = bottom - 6  # output pixels from the bottom of the figure
        for line in wrapped[i].split("\n") if wrapped else []:
            fig.text(left / width, (at - points) / height, line, fontsize=11, va="baseline")
            at -= points * 1.35
        for text, color in keys[i] if keys else []:
            box = points * 0.72
            fig.add_artist(
                Rectangle(
                    (left / width, (at - points) / height),
                    box / width,
                    box / height,
                    transform=fig.transFigure,
                    facecolor=color,
                )
            )
            x = (left + box * 1.5) / width
            text = _wrap(text, letters - 2, 1)
            fig.text(x, (at - points) / height, text, fontsize=10.5, va="baseline")
            at -= points * 1.3
        axes.append(ax)
    return fig, axes


def _wrap(text: str, letters: int, lines: int) -> str:
    """`text` in at most so many lines, an ellipsis where some is left out."""
    return "\n".join(textwrap.wrap(str(text), letters, max_lines=lines, placeholder=" …"))


_BLUES = sns.blend_palette(["white", PALETTE["sky"], PALETTE["blue"]], as_cmap=True)


def _write_in(ax: Axes, percent: np.ndarray, size: float) -> None:
    """Whole numbers into the cells of a heat map, white on dark, none where it would be 0."""
    middle = sum(ax.collections[0].get_clim()) / 2
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        color = "white" if value > middle else INK
        centre = {"ha": "center", "va": "center", "fontsize": size, "color": color}
        ax.text(column + 0.5, row + 0.5, f"{value:.0f}", **centre)


def confusion(
    counts: np.ndarray,
    class_names: Sequence[str],
    *,
    pairs: Sequence[tuple[int, int]] = (),
    headline: str | None = None,
) -> Figure:
    """Confusion matrix as percent of each true class; empty where less than half a percent.

    Args:
        counts: (k, k), rows the true class, columns the predicted one.
        pairs: (first, last) runs of neighbouring classes to outline, such as look-alikes.

    Raises:
        ValueError: the matrix does not fit the names.
    """
    k = len(class_names)
    if counts.shape != (k, k):
        raise ValueError(f"a confusion matrix of {k} classes is {(k, k)}, not {counts.shape}")
    totals = counts.sum(1, keepdims=True)
    percent = 100 * counts / np.maximum(totals, 1)
    few = k <= 24
    side = min(WIDTH, 0.4 * k + 2.4) if few else WIDTH
    fig = Figure(figsize=(side, side))
    ax = fig.subplots()
    sns.heatmap(
        percent,
        vmin=0,
        vmax=100,
        cmap=_BLUES,
        square=True,
        linewidths=0.8 if few else 0,
        linecolor=RULE,
        cbar=not few,  # the numbers say it already
        cbar_kws={"shrink": 0.6},
        xticklabels=list(class_names),
        yticklabels=list(class_names),
        ax=ax,
    )
    if few:
        _write_in(ax, percent, 10.5)
    ax.set(xlabel="predicted class", ylabel="true class (each row: % of its images)")
    ax.tick_params(axis="x", rotation=60)
    for tick in ax.get_xticklabels():
        tick.set(ha="right", rotation_mode="anchor")
    for first, last in pairs:
        span = last - first + 1
        ax.add_patch(
            Rectangle(
                (first, first),
                span,
                span,
                fill=False,
                edgecolor=PALETTE["vermilion"],
                linewidth=2.4,
                clip_on=False,
                zorder=3,
            )
        )
    if headline:
        ax.set_title(headline)
    return fig


def heat(percent: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, label: str) -> Figure:
    """A table of percentages as colours and numbers; empty where less than half a percent.

    Args:
        percent: (rows, columns), 0 to 100.
        label: what the numbers are, above the table.

    Raises:
        ValueError: the table does not fit its names.
    """
    if percent.shape != (len(rows), len(columns)):
        raise ValueError(f"{percent.shape} numbers for {len(rows)} rows, {len(columns)} columns")
    fig = Figure(figsize=(WIDTH, 0.42 * len(rows) + 1.9))
    ax = fig.subplots()
    sns.heatmap(
        percent,
        vmin=0,
        vmax=max(100 * 0.6, float(percent.max())),
        cmap=_BLUES,
        linewidths=0.8,
        linecolor=RULE,
        cbar=False,
        xticklabels=list(columns),
        yticklabels=list(rows),
        ax=ax,
    )
    _write_in(ax, percent, 11)
    ax.set_title(label)
    ax.tick_params(axis="x", rotation=40)
    ax.tick_params(axis="y", rotation=0)
    for tick in ax.get_xticklabels():
        tick.set(ha="right", rotation_mode="anchor")
    return fig


def curves(history: Mapping[str, Sequence[float]], quantity: str) -> Figure:
    """A quantity of a training history, such as "accuracy", after each epoch.

    Args:
        history: one list per epoch for each of train_<quantity> and validation_<quantity>;
            accuracies in 0..1 are drawn in percent.
    """
    scale, unit = (100, " (%)") if quantity == "accuracy" else (1, "")
    fig = Figure(figsize=(WIDTH, 3.8))
    ax = fig.subplots()
    for split, colour in (("train", "sky"), ("validation", "vermilion")):
        if values := history.get(f"{split}_{quantity}"):
            epochs = np.arange(1, len(values) + 1)
            ax.plot(epochs, scale * np.array(values), "o-", color=PALETTE[colour], label=split)
            ax.annotate(
                f"  {scale * values[-1]:.1f}",
                (epochs[-1], scale * values[-1]),
                va="bottom" if split == "train" else "top",
                color=INK,
            )
    ax.set(xlabel="epoch", ylabel=f"{quantity}{unit}")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if quantity == "accuracy":
        ax.set_ylim(0, 104)
    ax.legend(loc="lower right" if quantity == "accuracy" else "upper right")
    return fig


def bars(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    published: Mapping[str, float] | None = None,
    chance: float | None = None,
    label: str = "",
    headline: str | None = None,
    digits: int = 1,
) -> Figure:
    """Horizontal bars with their intervals, the paper's numbers as diamonds, chance as a line.

    Args:
        intervals: (low, high) for some or all of the bars, in the unit of `values`.

    Raises:
        ValueError: nothing to draw, or an interval or a published number without its bar.
    """
    if not values:
        raise ValueError("a bar chart needs at least one value")
    for what, given in (("interval", intervals or {}), ("published number", published or {})):
        if strangers := [name for name in given if name not in values]:
            raise ValueError(f"{what} for {strangers[0]!r}, which has no bar")
    names = list(values)
    fig = Figure(figsize=(WIDTH, 0.52 * len(names) + 1.6))
    ax = fig.subplots()
    ax.barh(names, list(values.values()), color=PALETTE["sky"], height=0.62, label="ours")
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    for name, (low, high) in (intervals or {}).items():
        i = names.index(name)
        ax.plot([low, high], [i, i], color=INK, linewidth=2.6, solid_capstyle="butt")
    if published:
        ax.scatter(
            list(published.values()),
            [names.index(name) for name in published],
            marker="D",
            s=70,
            color=PALETTE["vermilion"],
            edgecolor="white",
            linewidth=1.4,
            zorder=3,
            label="paper",
        )
    if chance is not None:
        ax.axvline(chance, color=INK, linestyle=(0, (3, 2)), linewidth=1.6, label="chance")
    # Beside the names the numbers stand in a column and never collide with a mark.
    ax.set_yticks(range(len(names)), [f"{name}   {values[name]:.{digits}f}" for name in names])
    ax.set_xlabel(label)
    if published or chance is not None:
        handles, labels = ax.get_legend_handles_labels()
        order = [labels.index(known) for known in ("ours", "paper", "chance") if known in labels]
        fig.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="outside upper right",
            ncols=3,
        )
    if headline:
        ax.set_title(headline)
    return fig


def picture_table(
    pictures: UInt8[Tensor, "r c 3 h w"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    headline: str | None = None,
    absent: Bool[Tensor, "r c"] | None = None,
    marks: Sequence[Sequence[str]] | None = None,
    groups: Mapping[str, int] | None = None,
) -> Figure:
    """Pictures in a table: a name before each row and above each column.

    Small pictures are enlarged by a whole number, so that their pixels stay crisp squares; those
    that cannot be doubled are fitted smoothly. The figure is `WIDTH` wide.

    Args:
        absent: cells without a picture, which stay empty frames.
        marks: a short text under each picture, such as what a network calls it; shortened to the
            picture's width, "" for none.
        groups: how many consecutive rows belong to each named group, from the top.

    Raises:
        ValueError: no pictures, or names, cells, marks or groups that do not fit the table.
    """
    r, c, _, h, w = pictures.shape
    if r == 0 or c == 0:
        raise ValueError(f"a picture table of {r} rows and {c} columns has no picture")
    if (len(rows), len(columns)) != (r, c):
        raise ValueError(
            f"{len(rows)} row names and {len(columns)} column names for a table of {r} rows and "
            f"{c} columns"
        )
    if absent is not None and tuple(absent.shape) != (r, c):
        raise ValueError(f"absent is {tuple(absent.shape)}, the table {(r, c)}")
    if marks is not None and [len(row) for row in marks] != [c] * r:
        raise ValueError(f"marks must be {r} rows of {c} texts, one under each picture")
    sizes = list(groups.values()) if groups else [r]
    if min(sizes) < 1 or sum(sizes) != r:
        raise ValueError(f"groups of {sizes} rows for a table of {r} rows")

    # Everything is laid out in whole output pixels; `line` is one line of text of such a size.
    def line(points: float) -> float:
        return 1.3 * points * DPI / 72

    edge, gap = 10, 5
    names = [_wrap(name, 14, 9) for name in rows]
    group_room = round(line(10.5)) + 12 if groups else 0
    left = edge + group_room + round(max(_text_width(name, 10) for name in names)) + 12
    room = (WIDTH * DPI - left - edge + gap) / max(c, 3) - gap  # one column need not fill the page
    enlarged = room // w if 2 * w <= room else room / w
    cell_w, cell_h = round(w * enlarged), round(h * enlarged)
    # What the whole number leaves over goes to the row names, which then break less.
    spare = WIDTH * DPI - edge - left - c * (cell_w + gap)
    letters = 14 + max(0, int(spare / _text_width("m", 10)))
    names = [_wrap(name, letters, max(1, int(cell_h / line(10)))) for name in rows]
    left = edge + group_room + round(max(_text_width(name, 10) for name in names)) + 12
    longest = max((_text_width(word, 1) for name in columns for word in name.split()), default=1)
    head_size = min(10.5, max(7.5, (cell_w + gap - 3) / longest))
    letters = max(3, int(cell_w / _text_width("n", head_size)))
    heads = [
        _wrap(name, max(letters, max(map(len, name.split()), default=1)), 3) for name in columns
    ]
    mark_size = 8 if cell_w < 180 else 9.5
    below = round(line(mark_size)) + 4 if marks is not None else 0
    top = edge + (round(line(13)) + 8 if headline else 0)
    head_room = round(line(head_size) * max(1 + name.count("\n") for name in heads)) + 6
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    step = cell_h + below + gap
    between = 14
    tops = [  # pixels from the top of the figure to each row of pictures
        top + head_room + i * step + between * sum(start <= i for start in starts[1:])
        for i in range(r)
    ]
    width, height = round(WIDTH * DPI), tops[-1] + cell_h + below + edge
    fig = Figure(figsize=(width / DPI, height / DPI), layout="none", facecolor="white")

    def write(x: float, y: float, text: str, size: float, **how: object) -> None:
        fig.text(x / width, 1 - y / height, text, fontsize=size, **how)

    if headline:
        write(edge, edge, headline, 13, fontweight="bold", va="top")
    lefts = [left + j * (cell_w + gap) for j in range(c)]
    for x, name in zip(lefts, heads, strict=True):
        write(x + cell_w / 2, tops[0] - 6, name, head_size, ha="center", va="bottom")
    for y, name in zip(tops, names, strict=True):
        write(left - 12, y + cell_h / 2, name, 10, ha="right", va="center", linespacing=1.15)
    for name, start, size in zip(groups or {}, starts, sizes, strict=False):
        first, last = tops[start], tops[start + size - 1] + cell_h
        x = edge + line(10.5) + 2
        text = _shorten(name, last - first, 10.5, "bold")
        middle = {"ha": "center", "va": "center", "rotation": 90, "fontweight": "bold"}
        write(edge + line(10.5) / 2, (first + last) / 2, text, 10.5, **middle)
        fig.add_artist(
            Line2D([x / width] * 2, [1 - first / height, 1 - last / height], color=INK, lw=1.2)
        )
    # One frame of output pixels for all cells: axes for each would take most of the drawing time.
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for i, j in np.ndindex(r, c):
        x, y = lefts[j], tops[i]
        if absent is None or not absent[i, j]:
            ax.imshow(
                pictures[i, j].permute(1, 2, 0).cpu().numpy(),
                interpolation="nearest" if enlarged >= 2 else "antialiased",
                extent=(x, x + cell_w, y + cell_h, y),
                aspect="auto",
            )
        frame = Rectangle((x, y), cell_w, cell_h, fill=False, edgecolor=RULE, linewidth=0.8)
        ax.add_patch(frame)
        if marks is not None and marks[i][j]:
            text = _shorten(marks[i][j], cell_w + gap - 3, mark_size)
            write(x + cell_w / 2, y + cell_h + 3, text, mark_size, ha="center", va="top")
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig


def _text_width(text: str, points: float, weight: str = "normal") -> float:
    """Output pixels that the longest line of `text` takes."""
    widest = max((_line_width(line, weight) for line in text.split("\n")), default=0.0)
    return widest / 100 * points * DPI / 72


@lru_cache(maxsize=4096)  # tables measure the same names again and again
def _line_width(line: str, weight: str) -> float:
    """What one line is wide at 100 points, in points."""
    font = FontProperties(weight=weight)
    points = TextPath((0, 0), line, size=100, prop=font).vertices if line.strip() else ()
    # a font's curves have a point where they reach furthest, so no curve need be solved for it
    return float(points[:, 0].max()) if len(points) else 0.0


def _shorten(text: str, room: float, points: float, weight: str = "normal") -> str:
    """`text` on one line of at most `room` output pixels, an ellipsis where some is left out."""
    text = shorter = " ".join(text.split())
    if (width := _text_width(text, points, weight)) > room:
        text = text[
            : int(1.5 * room / width * len(text)) + 2
        ]  # near its end; then letter by letter
    while len(text) > 1 and _text_width(shorter, points, weight) > room:
        text = text[:-1].rstrip(" ,")
        shorter = f"{text}…"
    return shorter


# Colour and shape both tell the series apart. The diamond in vermilion is the paper's, everywhere.
_MARKERS = (("blue", "o"), ("orange", "s"), ("green", "^"), ("purple", "v"))
_REAL = {"color": PALETTE["green"], "linewidth": 1.8}  # a line of what real images reach


def dots(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    label: str,
    chance: float | None = None,
    chance_label: str = "chance",
    published: Mapping[str, float] | None = None,
    headline: str | None = None,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> Figure:
    """One row per condition: each value a small open dot, each series' mean a large mark.

    Args:
        values: row, then series (at most four), then the values, such as one for each training
            run. A row may lack a series. One value alone is its own mean.
        label: what is measured, and its unit.
        published: the paper's number for some or all of the rows, drawn as a diamond.
        intervals: (low, high) around some or all of the means.

    Raises:
        ValueError: nothing to draw, a value that is not finite, more than four series, or an
            interval or a published number without its row or series.
    """
    series = _series({label: values})
    for row, number in (published or {}).items():
        if row not in values:
            raise ValueError(f"published number for {row!r}, which has no row")
        if not math.isfinite(number):
            raise ValueError(f"the published number of {row!r} is {number}, which is not finite")
    for row, given in (intervals or {}).items():
        if strangers := [name for name in given if name not in values.get(row, {})]:
            raise ValueError(f"interval for {row!r}, {strangers[0]!r}, which has no value")
    lanes = len(series) + bool(published)
    fig = Figure(figsize=(WIDTH, (0.2 + 0.22 * lanes) * len(values) + 1.6))
    ax = fig.subplots()
    _draw_dots(ax, values, list(values), series, chance, published or {}, intervals or {})
    ax.set_xlabel(label)
    if headline:
        ax.set_title(headline)
    _dots_key(fig, [values], series, chance_label if chance is not None else None, published)
    return fig


def dots_panels(
    quantities: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    *,
    chances: Mapping[str, float] | None = None,
    columns: int = 3,
    real: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """`dots` for several quantities side by side, with the same rows and one key.

    Args:
        quantities: what is measured, then row, series and values as in `dots`. A row that a
            quantity lacks stays empty there.
        chances: the chance level of some or all of the quantities.
        columns: at most so many panels side by side.
        real: what real images reach in some or all of the quantities, a line each.
        limits: of every panel's x axis, so that panels can be compared; each its own without it.

    Raises:
        ValueError: nothing to draw, a value that is not finite, more than four series, fewer than
            one column, or a chance level or a line of real images without its quantity.
    """
    series = _series(quantities)
    if columns < 1:
        raise ValueError(f"columns={columns}: panels need at least one column")
    if strangers := [name for name in chances or {} if name not in quantities]:
        raise ValueError(f"chance level for {strangers[0]!r}, which has no panel")
    if strangers := [name for name in real or {} if name not in quantities]:
        raise ValueError(f"line of real images for {strangers[0]!r}, which has no panel")
    rows = list(dict.fromkeys(row for values in quantities.values() for row in values))
    deep = math.ceil(len(quantities) / columns)
    columns = math.ceil(len(quantities) / deep)  # four panels make two rows of two, not 3 + 1
    height = (0.2 + 0.2 * len(series)) * len(rows) + 1.1
    fig = Figure(figsize=(WIDTH, deep * height + 0.5))
    axes = fig.subplots(deep, columns, sharey=True, squeeze=False).ravel()
    letters = max(12, 66 // columns)
    for ax, (label, values) in zip(axes, quantities.items(), strict=False):
        _draw_dots(ax, values, rows, series, (chances or {}).get(label), {}, {})
        ax.set_title(_wrap(label, letters, 3), fontsize=11.5)
        ax.xaxis.get_major_locator().set_params(nbins=max(3, 9 // columns))
        if label in (real or {}):
            ax.axvline(real[label], zorder=1, **_REAL)
        if limits:
            ax.set_xlim(limits)
    for ax in axes[len(quantities) :]:
        ax.remove()
    chance = "chance" if chances else None
    _dots_key(fig, quantities.values(), series, chance, None, "real images" if real else None)
    return fig


def _series(quantities: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> list[str]:
    """The names of all series in order of appearance, after a look at every value."""
    names: dict[str, None] = {}
    for label, values in quantities.items():
        if not any(values.values()):
            raise ValueError(f"{label!r} has no values to draw")
        for row, given in values.items():
            for name, numbers in given.items():
                names[name] = None
                if len(numbers) == 0 or not np.isfinite(numbers).all():
                    raise ValueError(
                        f"{label!r}, {row!r}, {name!r}: {list(numbers)} must be one or more finite "
                        "numbers"
                    )
    if not 1 <= len(names) <= len(_MARKERS):
        raise ValueError(f"{len(names)} series; valid are 1 to {len(_MARKERS)}")
    return list(names)


def _draw_dots(
    ax: Axes,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    rows: Sequence[str],
    series: Sequence[str],
    chance: float | None,
    published: Mapping[str, float],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
) -> None:
    """Each series has its lane within a row, and the paper the last one: no mark hides another."""
    lanes = len(series) + bool(published)
    lane = min(0.3, 0.8 / lanes)
    for i, row in enumerate(rows):
        if i:
            ax.axhline(i - 0.5, color=RULE, linewidth=0.8)
        for k, name in enumerate(series):
            if name not in values.get(row, {}):
                continue
            color, marker = PALETTE[_MARKERS[k][0]], _MARKERS[k][1]
            y = i + lane * (k - (lanes - 1) / 2)
            numbers = np.asarray(values[row][name], float)
            if name in intervals.get(row, {}):
                ax.plot(intervals[row][name], [y, y], color=color, solid_capstyle="butt")
            ax.scatter(numbers.mean(), y, s=95, marker=marker, color=color, linewidth=0, zorder=3)
            if len(numbers) > 1:
                dot = {"s": 20, "facecolor": "white", "edgecolor": color, "linewidth": 1.2}
                ax.scatter(numbers, np.full(len(numbers), y), zorder=4, **dot)
        if row in published:
            y = i + lane * (lanes - 1) / 2
            paper = {"marker": "D", "s": 70, "edgecolor": "white", "linewidth": 1.4}
            ax.scatter(published[row], y, color=PALETTE["vermilion"], zorder=3, **paper)
    if chance is not None:
        ax.axvline(chance, color=INK, linestyle=(0, (3, 2)), linewidth=1.6, zorder=1)
    ax.set_yticks(range(len(rows)), [_wrap(row, 20, 2) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(False, axis="y")


def _dots_key(
    fig: Figure,
    quantities: Iterable[Mapping[str, Mapping[str, Sequence[float]]]],
    series: Sequence[str],
    chance_label: str | None,
    published: Mapping[str, float] | None,
    real_label: str | None = None,
) -> None:
    """Above the axes: the series, and what else is drawn."""
    many = any(len(v) > 1 for rows in quantities for row in rows.values() for v in row.values())
    handles = []
    for name, (color, marker) in zip(series, _MARKERS, strict=False):
        mean = {"marker": marker, "markersize": 9, "color": PALETTE[color]}
        handles.append(
            Line2D([], [], linestyle="", label=f"{name} (mean)" if many else name, **mean)
        )
    if many:
        single = {"marker": "o", "markersize": 5, "markerfacecolor": "white", "color": INK}
        handles.append(Line2D([], [], linestyle="", label="single value", **single))
    if published:
        paper = {"marker": "D", "markersize": 8, "color": PALETTE["vermilion"]}
        handles.append(Line2D([], [], linestyle="", label="paper", **paper))
    if chance_label is not None:
        dash = {"linestyle": (0, (3, 2)), "linewidth": 1.6, "color": INK}
        handles.append(Line2D([], [], label=chance_label, **dash))
    if real_label is not None:
        handles.append(Line2D([], [], label=real_label, **_REAL))
    _key_on_top(fig, handles)


def _key_on_top(fig: Figure, handles: Sequence[Line2D], handlelength: float = 2.0) -> None:
    """A key above the axes with as many columns as fit the page."""
    size = mpl.rcParams["legend.fontsize"]
    widest = max(_text_width(str(handle.get_label()), size) for handle in handles)
    column = widest + (handlelength + 2.2) * size * DPI / 72
    fit = max(1, int(fig.get_figwidth() * DPI / column))
    rows = math.ceil(len(handles) / fit)
    fig.legend(
        handles=handles,
        loc="outside upper right",
        ncols=math.ceil(len(handles) / rows),
        handlelength=handlelength,
        columnspacing=1.4,
    )


_LINES = (  # the palette without its pale yellow, which no line on white can have
    ("blue", "-"),
    ("vermilion", (0, (6, 2))),
    ("green", (0, (2, 1.3))),
    ("orange", (0, (7, 2, 1.5, 2))),
    ("purple", (0, (12, 3))),
    ("sky", (0, (1, 0.9))),
    ("grey", (0, (7, 2, 1.5, 2, 1.5, 2))),
    ("ink", (0, (4, 4))),
)


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    styles: Mapping[str, str] | None = None,
) -> Figure:
    """Up to eight lines over a common x, named at their ends where there is room, else in a key.

    Args:
        x: increasing.
        series: as many values as `x` for each line; NaN leaves a gap.
        log: whether the y axis is logarithmic; every value must then be positive.
        styles: a line style of matplotlib ("-", "--", ":", "-.") for some or all of the lines,
            with a name of `PALETTE` before it where the colour matters too: "blue --".

    Raises:
        ValueError: nothing to draw, too many lines, numbers that do not fit, or an unknown style.
    """
    x = np.asarray(x, float)
    if not 1 <= len(series) <= len(_LINES) or len(x) == 0:
        raise ValueError(f"{len(series)} lines of {len(x)} values; valid are 1 to {len(_LINES)}")
    if not (np.isfinite(x).all() and (np.diff(x) > 0).all()):
        raise ValueError("x must be finite and increase from each value to the next")
    if strangers := [name for name in styles or {} if name not in series]:
        raise ValueError(f"style for {strangers[0]!r}, which has no line")
    fig = Figure(figsize=(WIDTH, 4.2))
    ax = fig.subplots()
    ends = {}
    for (name, given), (color, dash) in zip(series.items(), _LINES, strict=False):
        y = np.asarray(given, float)
        if y.shape != x.shape:
            raise ValueError(f"line {name!r} has {y.size} values for {len(x)} of x")
        if not np.isfinite(y).any():
            raise ValueError(f"line {name!r} has no finite value")
        if log and (y <= 0).any():
            raise ValueError(f"line {name!r} has values of 0 or less, which a log axis cannot show")
        if name in (styles or {}):
            *colors, dash = styles[name].split() or [""]
            color = " ".join(colors) or color
            if color not in (*PALETTE, "ink") or dash not in ("-", "--", ":", "-."):
                raise ValueError(
                    f"style {styles[name]!r} of line {name!r}; valid is one of - -- : -. , "
                    f"with one of {', '.join(PALETTE)} before it or not"
                )
        ax.plot(
            x,
            y,
            color=PALETTE.get(color, INK),
            linestyle=dash,
            marker="o" if len(x) <= 12 else "",  # few points: show where they are
            markersize=5,
            label=name,
        )
        ends[name] = y[-1]
    if log:
        ax.set_yscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        fig.draw_without_rendering()  # lays out the axes, whose height says what collides
        at = np.array([ax.transData.transform((x[-1], end))[1] for end in ends.values()])
        tall = 1.25 * mpl.rcParams["legend.fontsize"] / 72 * fig.dpi
        apart = np.isfinite(at).all() and (np.diff(np.sort(at)) >= tall).all()
        if apart and max(map(len, series)) <= 24:
            for name, end in ends.items():
                place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
                ax.annotate(name, (x[-1], end), fontsize=11, annotation_clip=False, **place)
        else:
            _key_on_top(fig, ax.get_lines(), handlelength=3.4)
    return fig


def scatter(table: pd.DataFrame, x: str, y: str, *, label: str) -> Figure:
    """A point for each row of a table, with its name beside it.

    Args:
        x, y: columns of numbers, whose names are the axes' names.
        label: the column of names.

    Raises:
        ValueError: no rows, or a number that is not finite.
    """
    values = table[[x, y]].to_numpy(float)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} points to draw; all need finite {x} and {y}")
    fig = Figure(figsize=(WIDTH, 4.2))
    ax = fig.subplots()
    ax.plot(*values.T, "o", color=PALETTE["blue"], markersize=8)
    spread = values / np.maximum(np.ptp(values, axis=0), 1e-9)
    apart = np.linalg.norm(spread[:, None] - spread, axis=2)
    np.fill_diagonal(apart, np.inf)
    for row, nearest in enumerate(apart.argmin(1)):
        # of two neighbours the upper one has its name above; of two at one height, the later one
        above = (values[row, 1], row) > (values[nearest, 1], nearest)
        ax.annotate(
            table[label].iloc[row],
            values[row],
            xytext=(0, 9 if above else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=11,
        )
    ax.set(xlabel=x, ylabel=y)
    ax.margins(0.12)
    return fig


def trends(
    table: pd.DataFrame, x: str, series: Sequence[str], *, xlabel: str, ylabel: str
) -> Figure:
    """Points of up to four series over a common x, each with its least-squares line.

    Args:
        x, series: columns of numbers; a series may lack a point (NaN).

    Raises:
        ValueError: too many series, an x that is not finite or the same for all, or a series with
            fewer than two points.
    """
    if not 1 <= len(series) <= len(_MARKERS):
        raise ValueError(f"{len(series)} series; valid are 1 to {len(_MARKERS)}")
    across = table[x].to_numpy(float)
    if not np.isfinite(across).all() or len(set(across)) < 2:
        raise ValueError(f"{x!r} must be finite and have two different values at least")
    fig = Figure(figsize=(WIDTH, 4.4))
    ax = fig.subplots()
    handles = []
    for name, (color, marker) in zip(series, _MARKERS, strict=False):
        values = table[name].to_numpy(float)
        there = np.isfinite(values)
        if there.sum() < 2:
            raise ValueError(f"series {name!r} has {there.sum()} points; a line needs two")
        style = {"color": PALETTE[color], "marker": marker, "label": name}
        ax.plot(across[there], values[there], linestyle="", markersize=8, **style)
        slope, start = np.polyfit(across[there], values[there], 1)
        ends = np.array([across.min(), across.max()])
        ax.plot(ends, start + slope * ends, color=PALETTE[color], linewidth=1.8)
        handles.append(Line2D([], [], markersize=8, **style))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _key_on_top(fig, handles, handlelength=2.6)
    return fig
