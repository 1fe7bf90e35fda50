"""What panels are drawn with: buttons, pictures, bars and tables, as HTML that reads aloud well."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO
from itertools import count, groupby

import ipywidgets
import torch
import traitlets
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from helpers.figures import INK, PALETTE, RULE, data_uri

Picture = Image.Image | Float[Tensor, "3 h w"] | UInt8[Tensor, "3 h w"]

PAPER = (  # dark marks need white under them, whatever the page's theme
    f"background:#fff;color:{INK};padding:10px 14px;border:1px solid {RULE};border-radius:6px;"
    "overflow-x:auto"
)


# ---- controls ----


def choice(label: str, options: object, tooltip: str, **more: object) -> ipywidgets.Dropdown:
    """One of several, by name or as (name, value) pairs."""
    return _labelled(ipywidgets.Dropdown, label, tooltip, options=options, **more)


def slider(
    label: str, low: float, high: float, value: float, tooltip: str, step: float = 1, **more: object
) -> ipywidgets.Widget:
    """A number between two; whole numbers where all three and the step are."""
    whole = all(isinstance(number, int) for number in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return _labelled(kind, label, tooltip, min=low, max=high, value=value, step=step, **more)


def stops(
    label: str, values: Sequence[float], value: float, tooltip: str, **more: object
) -> ipywidgets.SelectionSlider:
    """One of several numbers, such as 0 and then powers of ten, with a slider."""
    options = [(f"{number:g}", number) for number in values]
    kind = ipywidgets.SelectionSlider
    # other controls have this margin by themselves
    more = {"layout": ipywidgets.Layout(margin="2px")} | more
    return _labelled(kind, label, tooltip, options=options, value=value, **more)


def take(control: ipywidgets.Dropdown, value: object) -> None:
    """Choose by value. ipywidgets takes None for no choice and would show nothing; here it is what
    the first option is worth."""
    control.value = value
    if value is None:
        control.index = 0


def toggle(label: str, value: bool, tooltip: str) -> ipywidgets.Checkbox:
    """Yes or no."""
    return _labelled(ipywidgets.Checkbox, label, tooltip, value=value, indent=False)


def _labelled(kind: type, label: str, tooltip: str, **more: object) -> ipywidgets.Widget:
    return kind(description=label, tooltip=tooltip, style={"description_width": "initial"}, **more)


def answer_here(widget: ipywidgets.Widget) -> None:
    """Have what the page says to this widget handled on the event loop that is running now.

    JupyterLab sends it to a subshell of the kernel, which is a thread of its own: what a click
    changes would change in the middle of a slice of work. Without a running loop, nothing is done.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    handle = widget._handle_msg  # what ipywidgets itself has registered
    widget.comm.on_msg(lambda message: loop.call_soon_threadsafe(handle, message))


def on_enter(text: ipywidgets.Text, then: Callable[[], None]) -> None:
    """Call `then` when the Enter key is pressed in a line of text."""
    text.on_msg(lambda _, content, __: then() if content.get("event") == "submit" else None)


def button(text: str, tooltip: str, **style: str) -> ipywidgets.Button:
    """A button as wide as its text, but not too narrow to hit."""
    made = ipywidgets.Button(description=text, tooltip=tooltip, **style)
    made.layout = ipywidgets.Layout(width="auto", min_width="6.5em")
    return made


def wrapping(gap: str = "6px") -> ipywidgets.Layout:
    """A row that goes on below where the page is narrow."""
    return ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap=gap)


class Pictures(ipywidgets.Box):
    """Pictures to choose from with the mouse or the keyboard; `value` is the chosen one's number.

    Args:
        pictures: any sizes; shown as squares.
        names: of each, below it and read aloud.
        side: of the squares, pixels.
    """

    value = traitlets.Int(0)
    _kinds = count()

    def __init__(self, pictures: Sequence[Picture], names: Sequence[str], side: int = 72) -> None:
        super().__init__(layout=wrapping("4px"))
        self._kind = f"pictures-{next(self._kinds)}"
        self._side, self._sheet, self._buttons = side, ipywidgets.HTML(), []
        self._sheet.layout.display = "none"  # style only
        self.show(pictures, names)
        self.observe(lambda _: self._mark(), "value")

    def show(self, pictures: Sequence[Picture], names: Sequence[str]) -> None:
        """Offer other pictures; the first is then chosen.

        Raises:
            ValueError: other than one name for each picture, or none at all.
        """
        if not len(pictures) or len(pictures) != len(names):
            raise ValueError(f"{len(names)} names for {len(pictures)} pictures; give one for each")
        side, kind = self._side, self._kind
        rules = [
            f".{kind}{{width:{side + 6}px!important;height:{side + 26}px!important;"
            f"padding:{side}px 0 0!important;line-height:20px!important;font-size:11px;"
            f"background-size:{side}px {side}px!important;background-repeat:no-repeat!important}}",
            # the tick stands on the picture: a long name needs all of the line below
            f".{kind}{{position:relative}}.{kind} i{{position:absolute;top:0;left:0;margin:0;"
            f"padding:2px;line-height:1;background:{PALETTE['orange']};color:#000}}",
        ]
        while len(self._buttons) < len(pictures):
            self._buttons.append(self._button(len(self._buttons)))
        for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
            uri = data_uri(_png(picture), "image/png")
            rules.append(f".{kind}-{number}{{background-image:url({uri})!important}}")
            self._buttons[number].description = name
            self._buttons[number].tooltip = f"Choose {name}"
        self._sheet.value = f"<style>{''.join(rules)}</style>"
        self.children = [self._sheet, *self._buttons[: len(pictures)]]
        self.value = 0
        self._mark()

    def close(self) -> None:
        """Take it from the page, with the buttons that are not shown now."""
        for item in self._buttons:
            item.close()
        super().close()

    def _button(self, number: int) -> ipywidgets.Button:
        item = ipywidgets.Button()
        item.add_class(self._kind).add_class(f"{self._kind}-{number}")
        item.on_click(lambda _: self.set_trait("value", number))
        answer_here(item)
        return item

    def _mark(self) -> None:
        for number, item in enumerate(self._buttons):
            chosen = number == self.value
            item.layout.border = f"3px solid {PALETTE['orange'] if chosen else 'transparent'}"
            item.icon = "check" if chosen else ""


# ---- what is shown ----


def picture(
    shown: Picture, alt: str, side: int = 160, caption: str = "", exact: bool = False
) -> str:
    """A picture as a square with a caption.

    Args:
        shown: pixels, 0..1 or 0..255 as uint8; RGB.
        alt: what there is to see, for who cannot see it.
        side: pixels on the page.
        exact: show every pixel as a square of its own instead of a smooth picture.
    """
    how = "image-rendering:pixelated;" if exact else ""
    below = f'<figcaption style="width:{side}px">{caption}</figcaption>' if caption else ""
    return (
        f'<figure style="margin:0;font-size:12px;line-height:1.35"><img alt="{escape(alt)}" '
        f'src="{data_uri(_png(shown), "image/png")}" style="{how}width:{side}px;height:{side}px;'
        f'object-fit:contain;border-radius:3px">{below}</figure>'
    )


def row(*cells: str) -> str:
    """Pieces side by side, going on below where the page is narrow."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px 14px">{"".join(cells)}</div>'


def probabilities(
    caption: str, shares: Mapping[str, float], most: int = 5, mark: str | None = None
) -> str:
    """The most probable classes with bars; `mark` (the true class) is bold and always shown."""
    order = sorted(shares, key=shares.__getitem__, reverse=True)
    names = order[:most]
    if mark in shares and mark not in names:
        names[-1] = mark
    said = {name: f"{shares[name]:.0%}" for name in names}
    if mark in said:
        said[mark] = f"<strong>{said[mark]}</strong>"
    return table(caption, [(name, bar(shares[name]), said[name]) for name in names])


def progress(share: float) -> str:
    """How much is done."""
    how = f'style="width:12em;accent-color:{PALETTE["blue"]}"'
    bar = f'<progress aria-label="done so far" value="{share:.2f}" max="1" {how}></progress>'
    return f'<span role="status">Working … </span>{bar}'


def _png(shown: Picture) -> bytes:
    if isinstance(shown, Tensor):
        pixels = shown.detach()
        if pixels.is_floating_point():
            pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        shown = Image.fromarray(pixels.permute(1, 2, 0).cpu().contiguous().numpy())
    buffer = BytesIO()
    shown.save(buffer, "PNG", compress_level=1)  # on this machine's own page: fast, not small
    return buffer.getvalue()


def table(caption: str, rows: Sequence[tuple[str, str, str]], whole_names: bool = False) -> str:
    """A row per name: a bar and the same in words; `whole_names` never go on in a second line."""
    how = "text-align:left;font-weight:normal;padding-right:12px"
    how += ";white-space:nowrap" if whole_names else ""
    body = "".join(
        f'<tr><th scope="row" style="{how}">'
        f"{escape(name)}</th>"
        f'<td aria-hidden="true" style="width:45%;min-width:6em">{drawn}</td>'
        f'<td style="padding-left:12px;white-space:nowrap">{words}</td></tr>'
        for name, drawn, words in rows
    )
    return (
        '<table style="width:100%;max-width:52em;border-spacing:0 5px;line-height:1.5">'
        f'<caption style="text-align:left;padding-bottom:6px">{caption}</caption>'
        f"<tbody>{body}</tbody></table>"
    )


def bar(
    share: float | None,
    low: float | None = None,
    high: float | None = None,
    chance: float | None = None,
) -> str:
    """0 to 100 % as parts of the cell's width, with an interval and a dashed line if there are."""

    def box(left: float, width: str, rest: str) -> str:
        return f'<div style="position:absolute;left:{100 * left:.1f}%;width:{width};{rest}"></div>'

    marks = ""
    if share is not None:
        colour = f"top:0;bottom:0;background:{PALETTE['sky']};border-radius:2px"
        marks += box(0, f"{100 * share:.1f}%", colour)
    if low is not None and high is not None:
        marks += box(low, f"{100 * (high - low):.1f}%", f"top:8px;height:4px;background:{INK}")
    if chance is not None:
        marks += box(chance, "0", f"top:-3px;bottom:-3px;border-left:2px dashed {INK}")
    return f'<div style="position:relative;height:20px;background:#F3F1EC">{marks}</div>'


def curves(
    alt: str,
    across: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    at: float | None = None,
    low: float | None = None,
    high: float | None = None,
    width: int = 560,
    height: int = 250,
) -> str:
    """Lines over a common axis as a drawing in the page, a name at the end of each.

    Args:
        alt: what the lines do, for who cannot see them.
        across: where the values stand, ascending; at least one.
        series: values by name, one for each place in `across`; no more than there are colours. A
            line breaks where a value is not finite.
        at: a place to mark; every line's value there, between two neighbours on the straight line
            that is drawn, gets a dot. Nothing is marked beyond the ends.
        low, high: ends of the vertical axis, where they are not to follow from the values.
        width, height: pixels; a narrower page shrinks the drawing.

    Raises:
        ValueError: no place, or not ascending ones; other than one value for each; more lines than
            colours.
    """
    across = [float(x) for x in across]
    if not across or any(b <= a for a, b in zip(across, across[1:], strict=False)):
        raise ValueError("lines need at least one place, and places in ascending order")
    for name, values in series.items():
        if len(values) != len(across):
            raise ValueError(f"{name} has {len(values)} values for {len(across)} places")
    if len(series) > len(PALETTE):
        raise ValueError(f"{len(series)} lines, but only {len(PALETTE)} colours")
    known = [v for values in series.values() for v in values if math.isfinite(v)]
    ticks = _ticks(
        min(known, default=0) if low is None else low,
        max(known, default=1) if high is None else high,
    )
    low, high = ticks[0] if low is None else low, ticks[-1] if high is None else high
    left, right, top, bottom = 44, width - 12 - _TEXT * max(map(len, series), default=0), 22, 40
    wide, tall = (across[-1] - across[0]) or 1, (high - low) or 1

    def x(value: float) -> float:
        return left + (right - left) * (value - across[0]) / wide

    def y(value: float) -> float:
        return height - bottom - (height - bottom - top) * (value - low) / tall

    drawn = [f'<text x="0" y="12">{escape(ylabel)}</text>']
    for tick in (t for t in ticks if low <= t <= high):
        drawn.append(
            f'<path d="M{left} {y(tick):.1f}H{right}" stroke="{RULE}"/>'
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for place in across if len(across) <= 8 else _ticks(across[0], across[-1]):
        if across[0] <= place <= across[-1]:
            drawn.append(
                f'<text x="{x(place):.1f}" y="{height - 22}" text-anchor="middle">{place:g}</text>'
            )
    middle = (left + right) / 2
    drawn.append(
        f'<text x="{middle:.1f}" y="{height - 4}" text-anchor="middle">{escape(xlabel)}</text>'
    )
    marked = at is not None and across[0] <= at <= across[-1]
    if marked:
        drawn.append(f'<path d="M{x(at):.1f} {top}V{height - bottom}" stroke="{INK}"/>')
    ends: dict[str, float] = {}
    for (name, values), colour, dash in zip(
        series.items(), PALETTE.values(), _DASHES, strict=False
    ):
        points = [(x(p), y(v)) for p, v in zip(across, values, strict=True)]
        ends[name] = next((h for _, h in reversed(points) if math.isfinite(h)), y(low))
        drawn.append(
            f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="2.5" '
            f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
        )
        here = _between(at, across, values) if marked else math.nan
        if math.isfinite(here):
            drawn.append(
                f'<circle cx="{x(at):.1f}" cy="{y(here):.1f}" r="5" fill="{colour}" '
                'stroke="#fff" stroke-width="1.5"/>'
            )
    spread = _apart(ends, top + 4, height - bottom)
    for (name, at_height), colour in zip(ends.items(), PALETTE.values(), strict=False):
        place = spread[name]
        drawn.append(
            f'<path d="M{right + 2} {at_height:.1f}L{right + 8} {place:.1f}" stroke="{colour}"/>'
            f'<text x="{right + 11}" y="{place + 4:.1f}">{escape(name)}</text>'
        )
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" style="max-width:100%;height:auto;background:#fff" fill="{INK}" '
        f'font-family="sans-serif" font-size="12">{"".join(drawn)}</svg>'
    )


_TEXT = 7  # pixels a letter of a line's name takes
_LINE = 15  # pixels from one line of text to the next
# beside the colours, for who does not tell them apart: whole, then ever shorter dashes
_DASHES = ("", "9 3", "2 3", "12 3 2 3", "5 3", "14 4", "6 2 2 2 2 2", "1 2")


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that hold both ends between them."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(many for many in (1, 2, 5, 10) if span / (step * many) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Lines through points, broken where a height is not finite; a lone point becomes a dash."""
    drawn = ""
    for finite, together in groupby(points, lambda point: math.isfinite(point[1])):
        corners = [f"{x:.1f} {y:.1f}" for x, y in together]
        if finite:
            drawn += "M" + "L".join(corners) + ("h4" if len(corners) == 1 else "")
    return drawn


def _between(at: float, across: Sequence[float], values: Sequence[float]) -> float:
    """The height of the line at a place within its ends."""
    after = next(k for k, place in enumerate(across) if place >= at)
    if across[after] == at:
        return values[after]
    share = (at - across[after - 1]) / (across[after] - across[after - 1])
    return (1 - share) * values[after - 1] + share * values[after]


def _apart(heights: Mapping[str, float], top: float, bottom: float) -> dict[str, float]:
    """Where names stand so that none lies on another, each as near to its own height as the ones
    above it let it be."""
    placed: dict[str, float] = {}
    last = top - _LINE
    for name in sorted(heights, key=heights.__getitem__):
        last = placed[name] = max(heights[name], last + _LINE)
    limit = bottom
    for name in reversed(placed):  # what was pushed below the end goes up again
        placed[name] = min(placed[name], limit)
        limit = placed[name] - _LINE
    return placed


# ---- computing ----


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, and leave the number as it was.

    What a movement asks for is small. Several threads would wait for each other, many times longer
    than they compute as soon as the browser or another panel needs a core too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
