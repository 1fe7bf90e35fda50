"""What people in the room can recognise: pictures named blind, one at a time, counted live.

Paper 1 (Nielsen et al., Targeted Background Removal) calls its feature visualisations easier to
recognise after training without backgrounds, and shows a few side by side. Here the question is put
to people: nobody sees which network made a picture, or of which class, before naming it.

    panel = blind_rating(pictures, labels, models, class_names, file=folder / "ratings.jsonl")
    panel.session.accuracy()  # {"black background": (0.67, 0.44, 0.84, 18), ...}
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from html import escape
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import ipywidgets
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor

from helpers.durable import sync_folder
from helpers.figures import INK, PALETTE, RULE, data_uri, embed

ANONYMOUS = "anonymous"
CANNOT_TELL = "cannot tell"


@dataclass
class RatingSession:
    """One person's blind naming of a set of pictures; no widgets, every answer on disk at once.

    Pictures come in an order of the person's own. Answers are lines of JSON in `file`, which any
    number of people and sets of pictures may share; whoever comes back under the same name goes on
    where they stopped. Of several answers of one person to one picture the last counts. Lines that
    are cut off, or belong to other pictures, are left alone.

    Args:
        labels: true class of each picture, index into `class_names`.
        models: which network made each picture.
        file: made, with its folder, at the first answer.
        rater: whose answers these are; without a name, "anonymous".
        seed: of the order, together with the rater.
        pictures: a digest of the pictures themselves, where answers to others should not count.

    Raises:
        ValueError: no pictures, not one model for each label, or a label without a class name.
    """

    labels: Sequence[int] = field(repr=False)  # a session that is printed stays blind
    models: Sequence[str] = field(repr=False)
    class_names: Sequence[str]
    _: KW_ONLY
    file: Path
    rater: str = ""
    seed: int = 0
    pictures: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        n, k = len(self.labels), len(self.class_names)
        if n == 0:
            raise ValueError("there are no pictures to rate; give at least one")
        if len(self.models) != n:
            raise ValueError(f"{len(self.models)} models for {n} pictures; give one for each")
        if strangers := [label for label in self.labels if not 0 <= label < k]:
            raise ValueError(f"label {strangers[0]} has no class name; there are {k} names")
        # The same name typed on another keyboard may be other code points.
        self.rater = unicodedata.normalize("NFC", self.rater).strip() or ANONYMOUS
        what = [list(self.labels), list(self.models), list(self.class_names), self.pictures]
        self.set = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self.order = list(range(n))
        random.Random(f"{self.seed} {self.rater}").shuffle(self.order)
        self.given = {p: a for (rater, p), a in self._answers().items() if rater == self.rater}
        self._go_on()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def picture(self) -> int | None:
        """The picture to be named now, an index into `labels`; None when all have been."""
        return None if self.finished else self.order[self.position]

    @property
    def finished(self) -> bool:
        return self.position == len(self)

    @property
    def seconds(self) -> float:
        """How long the picture has been shown."""
        return time.monotonic() - self._shown

    def answer(self, choice: int | None) -> None:
        """Name the picture and go on to the next one that has no answer.

        Args:
            choice: index into `class_names`; None for "cannot tell", which counts as wrong.

        Raises:
            ValueError: no such class, or every picture has been named.
            OSError: the answer cannot be saved; it then does not count and the picture stays.
        """
        if (picture := self.picture) is None:
            raise ValueError(f"all {len(self)} pictures have been named; go back to change one")
        if choice is not None and not 0 <= choice < len(self.class_names):
            raise ValueError(f"there is no class {choice}; there are {len(self.class_names)}")
        line = {
            "set": self.set,
            "rater": self.rater,
            "picture": picture,
            "model": self.models[picture],
            "true": self.labels[picture],
            "answer": choice,
            "seconds": round(self.seconds, 2),
        }
        _append(self.file, json.dumps(line, ensure_ascii=False))
        self.given[picture] = choice
        self._go_on()

    def back(self) -> None:
        """Show the picture before again, to change its answer; the first has none before it."""
        self.position = max(0, self.position - 1)
        self._shown = time.monotonic()

    def accuracy(self) -> dict[str, tuple[float | None, float | None, float | None, int]]:
        """Share of right names per model: (share, low, high, answers), over all raters in the file.

        The 95 % interval is Wilson's, which holds for few answers and for shares near 0 and 1. It
        takes answers as independent; those of several people to the same pictures are not quite,
        so that it is then too narrow. Without an answer, share and interval are None.
        """
        right: dict[str, list[bool]] = {model: [] for model in self.models}
        for (_, picture), answer in self._answers().items():
            right[self.models[picture]].append(answer == self.labels[picture])
        return {model: (*_wilson(sum(hits), len(hits)), len(hits)) for model, hits in right.items()}

    def raters(self) -> list[str]:
        """Everybody in the file who named one of these pictures, in alphabetical order."""
        return sorted({rater for rater, _ in self._answers()})

    def reveal(self) -> list[dict[str, object]]:
        """What every picture was, by class and model: picture, model, class, answer and right.

        Raises:
            ValueError: pictures are still to be named, and would no longer be blind.
        """
        if missing := len(self) - len(self.given):
            raise ValueError(f"{missing} of {len(self)} pictures are still to be named blind")
        rank = {model: i for i, model in enumerate(dict.fromkeys(self.models))}
        names = {None: CANNOT_TELL} | dict(enumerate(self.class_names))
        return [
            {
                "picture": p,
                "model": self.models[p],
                "class": names[self.labels[p]],
                "answer": names[self.given[p]],
                "right": self.given[p] == self.labels[p],
            }
            for p in sorted(self.order, key=lambda p: (self.labels[p], rank[self.models[p]], p))
        ]

    def _go_on(self) -> None:
        unnamed = (i for i, picture in enumerate(self.order) if picture not in self.given)
        self.position = next(unnamed, len(self))
        self._shown = time.monotonic()

    def _answers(self) -> dict[tuple[str, int], int | None]:
        """The last answer of each (rater, picture) in the file, of this set of pictures."""
        latest = {}
        for line in self.file.read_bytes().split(b"\n") if self.file.exists() else ():
            try:
                said = json.loads(line)
            except ValueError:  # blank, or cut off by a power cut
                continue
            if isinstance(said, dict) and said.get("set") == self.set:
                latest[said["rater"], said["picture"]] = said["answer"]
        return latest


def _append(file: Path, line: str) -> None:
    """Add a line that is on disk when this returns; what was cut off before it stays apart."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with open(file, "a+b") as lines:
        if end := lines.seek(0, os.SEEK_END):
            lines.seek(end - 1)
        apart = b"\n" if lines.read(1) not in (b"", b"\n") else b""
        lines.write(apart + line.encode() + b"\n")  # one write, at the end whoever else writes
        lines.flush()
        os.fsync(lines.fileno())
    if new:
        sync_folder(file.parent)


def _wilson(right: int, n: int) -> tuple[float | None, float | None, float | None]:
    if n == 0:
        return None, None, None
    interval = binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
    return right / n, float(interval.low), float(interval.high)


def blind_rating(
    pictures: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"],
    labels: Sequence[int] | Int64[Tensor, " n"],
    models: Sequence[str],
    class_names: Sequence[str],
    *,
    file: Path,
    seed: int = 0,
) -> BlindRating:
    """A panel on which people name pictures without knowing which network made them.

    Args:
        pictures: 0..1, or 0..255 as uint8; RGB.
        labels: true class of each picture, index into `class_names`.
        models: which network made each picture.
        file: where the answers are kept, one line of JSON each; see `RatingSession`.
        seed: of the order, which also differs from person to person.

    Raises:
        ValueError: no pictures, other than one label and one model for each, a label without a
            class name, or pictures outside 0..1.
    """
    if len(pictures) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} pictures; give one for each")
    if pictures.is_floating_point():
        if not bool(((pictures >= 0) & (pictures <= 1)).all()):
            raise ValueError("pictures as floats must be within 0..1; some values are not")
        pictures = (pictures * 255).round().to(torch.uint8)
    pixels = pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    labels = [int(label) for label in labels]

    def session(rater: str) -> RatingSession:
        about = {"file": file, "rater": rater, "seed": seed, "pictures": digest}
        return RatingSession(labels, models, class_names, **about)

    # its first session, of nobody yet, refuses what cannot be rated before there is a widget
    return BlindRating([Image.fromarray(p) for p in pixels], session, session(""))


_DOUBLE_CLICK = 0.25  # seconds; sooner than that nobody has looked at a picture
_SHOWN = 288  # pixels: the side of the square that a picture fills
_THUMB = 104
_PAPER = (  # dark marks need white under them, whatever the page's theme
    f"background:#fff;color:{INK};padding:10px 14px;border:1px solid {RULE};border-radius:6px;"
    "overflow-x:auto"
)


class BlindRating(ipywidgets.VBox):
    """The panel behind `blind_rating`: who are you, then picture by picture, then thank you.

    `session` is the `RatingSession` of whoever is rating now.
    """

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        new_session: Callable[[str], RatingSession],
        session: RatingSession,
    ) -> None:
        super().__init__()
        self.pictures, self.session, self._new_session = pictures, session, new_session

        self.name = ipywidgets.Text(
            description="Your name",
            placeholder=ANONYMOUS,
            tooltip="Kept with your answers; the same name later goes on where you stopped",
        )
        self.start = _button("Start", "Show the first picture", button_style="primary")
        self.buttons = [_button(name, f"It shows: {name}") for name in session.class_names]
        self.cannot_tell = _button(CANNOT_TELL, "I recognise nothing; counts as not recognised")
        self.back = _button("Back", "Show the picture before again and change its answer")
        self.next_person = _button("Next person", "Hand over; every answer so far is saved")
        self.results = ipywidgets.ToggleButton(
            description="Show the results", tooltip="How often each network's pictures were named"
        )
        self.results.layout.width = "auto"
        self.picture, self.progress, self.message, self.chart = (
            ipywidgets.HTML() for _ in range(4)
        )
        self._welcome = ipywidgets.VBox(
            [
                ipywidgets.HTML(
                    "<p style='max-width:44em;margin:0;line-height:1.5'><strong>What does a "
                    f"network think its classes look like?</strong> You will see {len(pictures)} "
                    "pictures, one at a time. Each was made by a network to show one class; which "
                    "network and which class stays hidden until you have named them all.</p>"
                ),
                ipywidgets.HBox([self.name, self.start], layout=_wrapping()),
            ]
        )
        choices = ipywidgets.Box(self.buttons, layout=_wrapping())
        self.cannot_tell.layout.align_self = "flex-start"  # as wide as the other buttons
        right = ipywidgets.VBox([self.progress, choices, self.cannot_tell])
        right.layout = ipywidgets.Layout(flex="1 1 16em", max_width="36em", grid_gap="6px")
        self._asking = ipywidgets.Box([self.picture, right], layout=_wrapping(gap="16px"))
        self._foot = ipywidgets.HBox(
            [self.back, self.next_person, self.results], layout=_wrapping()
        )
        self.layout.grid_gap = "10px"

        self.start.on_click(lambda _: self._begin())
        self.name.on_msg(  # the Enter key
            lambda _, content, __: self._begin() if content.get("event") == "submit" else None
        )
        for choice, button in [*enumerate(self.buttons), (None, self.cannot_tell)]:
            button.on_click(lambda _, choice=choice: self._choose(choice))
        self.back.on_click(lambda _: self._go_back())
        self.next_person.on_click(lambda _: self._greet())
        self.results.observe(lambda _: self._show(), "value")
        self._greet()

    def __repr__(self) -> str:  # what a page without a running notebook shows
        return f"Blind rating of {len(self.pictures)} pictures: run this cell to take part."

    def close(self) -> None:
        """Take the panel and all that is on it from the page; the answers stay."""
        stack = [*self.children, self._welcome, self._asking, self._foot]
        while stack:
            stack.extend(getattr(widget := stack.pop(), "children", ()))
            widget.close()
        super().close()

    def _greet(self) -> None:
        self._greeting, self._solved = True, False
        self.name.value = ""
        self.results.value = False
        self._show()

    def _begin(self) -> None:
        self.session = self._new_session(self.name.value)
        self._greeting = False
        self.results.value = False
        self._show()

    def _choose(self, choice: int | None) -> None:
        if self.session.finished or self.session.seconds < _DOUBLE_CLICK:
            return
        try:
            self.session.answer(choice)
        except OSError as problem:
            self._show(
                f"This answer could not be saved and does not count ({problem}). Make room on the "
                "disk, or let the folder be written to, and answer again."
            )
        else:
            self._show()

    def _go_back(self) -> None:
        self.session.back()
        self._show()

    def _show(self, problem: str = "") -> None:
        """Everything on the panel, from the session."""
        session, shown = self.session, self.results.value
        asking = not self._greeting and not session.finished
        if asking:
            said = f"picture {session.position + 1} of {len(session)}"
            self.picture.value = _image(self.pictures[session.picture], said)
            self.progress.value = _progress(session)
            before = session.given.get(session.picture, -1)
            for choice, button in [*enumerate(self.buttons), (None, self.cannot_tell)]:
                button.icon = "check" if choice == before else ""
        self.message.value = _message(session, problem, self._greeting, shown)
        self.message.layout.display = None if self.message.value else "none"
        self.results.description = "Hide the results" if shown else "Show the results"
        self._solved |= shown and not (self._greeting or asking)
        # Who has seen the solution can no longer change an answer.
        self.back.disabled = session.position == 0 or self._solved
        self.chart.value = ""
        if shown:
            grid = _grid(session, self.pictures) if self._solved else ""
            self.chart.value = f"<div style='{_PAPER}'>{_accuracy_table(session)}{grid}</div>"
        body = [self._welcome] if self._greeting else [self._asking] if asking else []
        foot = [self.results] if self._greeting else [self.back, self.next_person, self.results]
        # The same children are not sent again: the keyboard's focus stays on its button.
        self._foot.children = foot
        self.children = [*body, self.message, self._foot, self.chart]


def _button(text: str, tooltip: str, **style: str) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, tooltip=tooltip, **style)
    button.layout = ipywidgets.Layout(width="auto", min_width="6.5em")
    return button


def _wrapping(gap: str = "6px") -> ipywidgets.Layout:
    """A row that goes on below where the page is narrow."""
    return ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap=gap)


def _image(picture: Image.Image, said: str) -> str:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return (
        f'<img alt="{said}, model and class hidden" '
        f'src="{data_uri(buffer.getvalue(), "image/png")}" style="width:{_SHOWN}px;'
        f'height:{_SHOWN}px;max-width:100%;object-fit:contain;border-radius:4px">'
    )


def _progress(session: RatingSession) -> str:
    at, n = session.position + 1, len(session)
    return (
        f'<div role="status"><strong>What is this?</strong> &nbsp;{at} of {n}</div>'
        f'<progress aria-label="pictures named" value="{len(session.given)}" max="{n}" '
        f'style="width:100%;max-width:22em;accent-color:{PALETTE["blue"]}"></progress>'
    )


def _message(session: RatingSession, problem: str, greeting: bool, shown: bool) -> str:
    """One line under the picture: what went wrong, thanks, or that it is better not to look."""
    if problem:
        return f'<p role="alert" style="{_PAPER};margin:0">⚠ {escape(problem)}</p>'
    if not greeting and session.finished:
        rest = "" if shown else " The results also show what each picture was."
        return (
            f'<p role="status" style="margin:0"><strong>Thank you, {escape(session.rater)}.'
            f"</strong> You have named all {len(session)} pictures.{rest}</p>"
        )
    if shown:
        return (
            "<p style='margin:0'>Blind first: who has still to answer should not watch these "
            "numbers, which tell right from wrong.</p>"
        )
    return ""


def _accuracy_table(session: RatingSession) -> str:
    """A row per model: a bar with its interval, chance as a dashed line, and the same in words."""
    chance = 1 / len(session.class_names)
    people = len(session.raters())
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;padding-right:12px">'
        f"{escape(model)}</th>"
        f'<td aria-hidden="true" style="width:45%;min-width:6em">'
        f"{_bar(share, low, high, chance)}</td>"
        f'<td style="padding-left:12px;white-space:nowrap">{_in_words(share, low, high, n)}</td>'
        "</tr>"
        for model, (share, low, high, n) in session.accuracy().items()
    )
    return (
        '<table style="width:100%;max-width:52em;border-spacing:0 5px;line-height:1.5">'
        '<caption style="text-align:left;padding-bottom:6px"><strong>How often the class was '
        f"recognised</strong>, by {people} {'person' if people == 1 else 'people'}. Dark line: "
        f"95% interval (Wilson). Dashed: guessing, {chance:.0%}.</caption>"
        f"<tbody>{rows}</tbody></table>"
    )


def _bar(share: float | None, low: float | None, high: float | None, chance: float) -> str:
    """0 to 100 % as parts of the cell's width."""

    def box(left: float, width: str, rest: str) -> str:
        return f'<div style="position:absolute;left:{100 * left:.1f}%;width:{width};{rest}"></div>'

    marks = ""
    if share is not None:
        colour = f"top:0;bottom:0;background:{PALETTE['sky']};border-radius:2px"
        line = f"top:8px;height:4px;background:{INK}"
        marks = box(0, f"{100 * share:.1f}%", colour) + box(low, f"{100 * (high - low):.1f}%", line)
    marks += box(chance, "0", f"top:-3px;bottom:-3px;border-left:2px dashed {INK}")
    return f'<div style="position:relative;height:20px;background:#F3F1EC">{marks}</div>'


def _in_words(share: float | None, low: float | None, high: float | None, n: int) -> str:
    if share is None:
        return "no answers yet"
    answers = "1 answer" if n == 1 else f"{n} answers"
    return f"<strong>{share:.0%}</strong> ({100 * low:.0f} to {100 * high:.0f}), {answers}"


def _grid(session: RatingSession, pictures: Sequence[Image.Image]) -> str:
    """Every picture with what it was and what was said, those of a class side by side."""
    rows = session.reveal()
    groups = "".join(
        f'<div style="display:flex;flex-wrap:wrap;gap:8px">{cards}</div>'
        for cards in (
            "".join(_card(row, pictures[row["picture"]]) for row in same)
            for _, same in groupby(rows, itemgetter("class"))
        )
    )
    return (
        '<p style="margin:16px 0 8px"><strong>What they were.</strong> You recognised '
        f"{sum(row['right'] for row in rows)} of {len(rows)}.</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:14px 28px">{groups}</div>'
    )


def _card(row: dict[str, object], picture: Image.Image) -> str:
    name, model = escape(str(row["class"])), escape(str(row["model"]))
    return (
        f'<figure style="margin:0;width:{_THUMB}px;font-size:12px;line-height:1.35">'
        f'<img alt="{name}, made by {model}" src="{data_uri(*embed(picture, budget=8_000))}" '
        f'style="width:{_THUMB}px;height:{_THUMB}px;object-fit:contain;border-radius:3px">'
        f'<figcaption style="overflow-wrap:anywhere"><strong>{name}</strong><br>{model}<br>'
        f"{_verdict(row)}</figcaption></figure>"
    )


def _verdict(row: dict[str, object]) -> str:
    """Right or wrong as a sign and a word, not only as a colour."""
    if row["right"]:
        return f'<span style="color:{PALETTE["blue"]}">✓ right</span>'
    return f"✗ you: {escape(str(row['answer']))}"
