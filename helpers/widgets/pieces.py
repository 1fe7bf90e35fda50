"""What panels are drawn with: buttons, pictures, bars and tables, as HTML that reads aloud well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from itertools import count

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


def toggle(label: str, value: bool, tooltip: str) -> ipywidgets.Checkbox:
    """Yes or no."""
    return _labelled(ipywidgets.Checkbox, label, tooltip, value=value, indent=False)


def _labelled(kind: type, label: str, tooltip: str, **more: object) -> ipywidgets.Widget:
    return kind(description=label, tooltip=tooltip, style={"description_width": "initial"}, **more)


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
    _sheets = count()

    def __init__(self, pictures: Sequence[Picture], names: Sequence[str], side: int = 72) -> None:
        super().__init__(layout=wrapping("4px"))
        self._side, self._sheet = side, ipywidgets.HTML()
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
        for old in self.children[1:]:
            old.close()
        kind = f"pictures-{next(self._sheets)}"
        rules = [
            f".{kind}{{width:{self._side}px!important;height:{self._side + 20}px!important;"
            f"padding:{self._side}px 0 0!important;line-height:20px!important;font-size:11px;"
            f"background-size:{self._side}px {self._side}px!important;"
            "background-repeat:no-repeat!important}"
        ]
        self._buttons = []
        for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
            uri = data_uri(_png(picture), "image/png")
            rules.append(f".{kind}-{number}{{background-image:url({uri})!important}}")
            item = ipywidgets.Button(description=name, tooltip=f"Choose {name}")
            item.add_class(kind).add_class(f"{kind}-{number}")
            item.on_click(lambda _, number=number: self.set_trait("value", number))
            self._buttons.append(item)
        self._sheet.value = f"<style>{''.join(rules)}</style>"
        self.children = [self._sheet, *self._buttons]
        self.value = 0
        self._mark()

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
    return table(
        caption,
        [
            (name, bar(shares[name]), f"{'<strong>' * (name == mark)}{shares[name]:.0%}")
            for name in names
        ],
    )


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


def table(caption: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """A row per name: a bar and the same in words."""
    body = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;padding-right:12px">'
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
