"""Every picture of the course: one style, and one way to save a figure so that nothing is lost.

`save` writes a figure as PNG (slides), SVG (print) and JSON (caption, description and the numbers
behind it), and hands the notebook a card whose picture carries its alt text. The drawing functions
below it are the few that several notebooks share; each returns a matplotlib `Figure` that pyplot
does not know of, so that a notebook shows it once, as a card, and not as it is made.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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
BUDGET = 48_000  # bytes of picture inside a notebook, which stays below 1 MB in all


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
    record = {
        "name": name,
        "notebook": notebook,
        "profile": profile,
        "caption": caption.strip(),
        "alt": alt.strip(),
        "width": round(fig.get_figwidth() * 96),  # CSS pixels
        "saved": datetime.now(UTC).isoformat(),
        "data": plain(data),
    }
    stem = f"{notebook}-{name}"
    card = folder / f"{stem}.json"
    drawn = {}
    # Saving puts back the layout engine of rcParams, which would undo a sheet's exact layout.
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        for kind, metadata in (("png", None), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
            drawn[kind] = buffer.getvalue()
            fig.set_layout_engine("none")  # the first drawing has laid everything out
    plt.close(fig)
    picture = Image.open(io.BytesIO(drawn["png"])).convert("RGB")
    write_durably(folder / f"{stem}.png", drawn["png"])
    write_durably(folder / f"{stem}.svg", drawn["svg"])
    # The card comes last: once it is there, its pictures are too.
    write_durably(card, json.dumps(record, indent=1, ensure_ascii=False).encode())
    return FigureCard(
        name=stem,
        caption=record["caption"],
        alt=record["alt"],
        profile=profile,
        png=folder / f"{stem}.png",
        svg=folder / f"{stem}.svg",
        json=card,
        html=_figure_html(picture, record),
    )


def _figure_html(picture: Image.Image, record: Mapping) -> str:
    return (
        '<figure style="margin:0.5em 0">'
        f'<img alt="{escape(record["alt"])}" src="{data_uri(*embed(picture))}" '
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
