"""What people in the room can recognise: pictures named one at a time, counted live.

Paper 1 (Nielsen et al., Targeted Background Removal) calls its feature visualisations easier to
recognise after training without backgrounds, and shows a few side by side. Here the question is put
to people: nobody sees which network made a picture, or of which class, before naming it.

    panel = blind_rating(pictures, labels, models, class_names, file=folder / "ratings.jsonl")
    panel.session.accuracy()  # {"black background": (0.67, 0.44, 0.84, 18), ...}

Paper 2 (Godi et al., Understanding Deep Architectures by Visual Summaries) has people give nouns to
each summary, and measures how far they disagree.

    panel = tagging(pictures, classes, class_names, file=folder / "tags.jsonl")
    panel.session.mu_u()  # {"jeans": (0.01, 4, 4), ...}
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from html import escape
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor

from helpers.durable import sync_folder
from helpers.figures import PALETTE, data_uri, embed
from helpers.summary_uses import disagreement, most_used
from helpers.widgets.pieces import PAPER, bar, button, on_enter, table, wrapping

ANONYMOUS = "anonymous"
CANNOT_TELL = "cannot tell"


class _Session:
    """One person's answers to a set of pictures, in an order of the person's own.

    Every answer is on disk at once, as a line of JSON in `file`, which any number of people and
    sets of pictures may share; whoever comes back under the same name goes on where they stopped.
    Of several answers of one person to one picture the last counts. Lines that are cut off, or
    belong to other pictures, are left alone.
    """

    file: Path
    rater: str
    seed: int

    def _open(self, what: list[object], n: int) -> None:
        """Find what this person has answered of these `n` pictures, which `what` tells apart."""
        # The same name typed on another keyboard may be other code points.
        self.rater = unicodedata.normalize("NFC", self.rater).strip() or ANONYMOUS
        self.set = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self.order = list(range(n))
        random.Random(f"{self.seed} {self.rater}").shuffle(self.order)
        self.given = {p: a for (rater, p), a in self._answers().items() if rater == self.rater}
        self._go_on()

    def __len__(self) -> int:
        return len(self.order)

    @property
    def picture(self) -> int | None:
        """The picture to be named now, by its number; None when all have been."""
        return None if self.finished else self.order[self.position]

    @property
    def finished(self) -> bool:
        return self.position == len(self)

    @property
    def seconds(self) -> float:
        """How long the picture has been shown."""
        return time.monotonic() - self._shown

    def back(self) -> None:
        """Show the picture before again, to change its answer; the first has none before it."""
        self.position = max(0, self.position - 1)
        self._shown = time.monotonic()

    def raters(self) -> list[str]:
        """Everybody in the file who named one of these pictures, in alphabetical order."""
        return sorted({rater for rater, _ in self._answers()})

    def _unnamed(self) -> int:
        """The picture to be named now, which an answer needs."""
        if (picture := self.picture) is None:
            raise ValueError(f"all {len(self)} pictures have been named; go back to change one")
        return picture

    def _save(self, picture: int, answer: object, **known: object) -> None:
        """Put an answer on disk, with what is known of its picture; then go on."""
        line = {"set": self.set, "rater": self.rater, "picture": picture, **known}
        line |= {"answer": answer, "seconds": round(self.seconds, 2)}
        _append(self.file, json.dumps(line, ensure_ascii=False))
        self.given[picture] = answer
        self._go_on()

    def _go_on(self) -> None:
        unnamed = (i for i, picture in enumerate(self.order) if picture not in self.given)
        self.position = next(unnamed, len(self))
        self._shown = time.monotonic()

    def _answers(self) -> dict[tuple[str, int], Any]:
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


@dataclass
class RatingSession(_Session):
    """One person's blind naming of a set of pictures; no widgets, every answer on disk at once.

    Pictures come in an order of the person's own. Whoever comes back under the same name goes on
    where they stopped.

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
        what = [list(self.labels), list(self.models), list(self.class_names), self.pictures]
        self._open(what, n)

    def answer(self, choice: int | None) -> None:
        """Name the picture and go on to the next one that has no answer.

        Args:
            choice: index into `class_names`; None for "cannot tell", which counts as wrong.

        Raises:
            ValueError: no such class, or every picture has been named.
            OSError: the answer cannot be saved; it then does not count and the picture stays.
        """
        picture = self._unnamed()
        if choice is not None and not 0 <= choice < len(self.class_names):
            raise ValueError(f"there is no class {choice}; there are {len(self.class_names)}")
        self._save(picture, choice, model=self.models[picture], true=self.labels[picture])

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


_MOST_TAGS = 8  # of one person for one summary; "a set of (noun) tags", section 4.2
_LONGEST = 40  # characters of a tag


def tags_of(text: str) -> list[str]:
    """The tags in a line that somebody typed: separated by commas, each once, in lower case.

    A tag may be several words. A plural stays a plural.

    Raises:
        ValueError: no tag, too many, one that is too long, or one without a letter.
    """
    plain = "".join(c for c in text.lower() if c.isprintable() or c.isspace())
    plain = unicodedata.normalize("NFC", plain)
    split = [" ".join(tag.split()).strip(" .!?") for tag in re.split(r"[,;\n]", plain)]
    tags = list(dict.fromkeys(filter(None, split)))
    if not tags:
        raise ValueError(f"Type at least one noun, or press {CANNOT_TELL!r}.")
    if len(tags) > _MOST_TAGS:
        raise ValueError(f"These are {len(tags)} tags; keep the {_MOST_TAGS} best or fewer.")
    for tag in tags:
        if len(tag) > _LONGEST:
            raise ValueError(
                f"“{tag[:_LONGEST]}…” is longer than {_LONGEST} characters; separate nouns by "
                "commas."
            )
        if not any(c.isalpha() for c in tag):
            raise ValueError(f"“{tag}” has no letter; a tag is a noun.")
    return tags


class Agreement(NamedTuple):
    """How far people agree on the summaries of a class."""

    mu: float | None  # mean Jaccard distance; None as long as no summary has two people's tags
    measured: int  # summaries with tags of at least two people
    summaries: int  # of the class


@dataclass
class TaggingSession(_Session):
    """One person's nouns for each summary (paper 2, section 4.2); no widgets, every answer on disk
    at once.

    Summaries come in an order of the person's own. Whoever comes back under the same name goes on
    where they stopped. Who cannot tell leaves the summary to the others.

    Args:
        classes: class of each summary, index into `class_names`.
        file: made, with its folder, at the first answer.
        rater: whose answers these are; without a name, "anonymous".
        seed: of the order, together with the rater.
        pictures: a digest of the summaries' pictures, where answers to others should not count.

    Raises:
        ValueError: no summaries, or one without a class name.
    """

    classes: Sequence[int]
    class_names: Sequence[str]
    _: KW_ONLY
    file: Path
    rater: str = ""
    seed: int = 0
    pictures: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        n, k = len(self.classes), len(self.class_names)
        if n == 0:
            raise ValueError("there are no summaries to tag; give at least one")
        if strangers := [label for label in self.classes if not 0 <= label < k]:
            raise ValueError(f"class {strangers[0]} has no name; there are {k} names")
        what = ["tags", list(self.classes), list(self.class_names), self.pictures]
        self._open(what, n)

    def answer(self, text: str | None) -> None:
        """Tag the summary and go on to the next one that has no tags.

        Args:
            text: nouns separated by commas, see `tags_of`; None for "cannot tell".

        Raises:
            ValueError: no or impossible tags, or every summary has been tagged.
            OSError: the answer cannot be saved; it then does not count and the summary stays.
        """
        summary = self._unnamed()
        tags = None if text is None else tags_of(text)
        self._save(summary, tags, **{"class": self.class_names[self.classes[summary]]})

    def tag_sets(self) -> list[list[frozenset[str]]]:
        """Of each summary the tags of everybody in the file who gave some, one set per person."""
        sets: list[list[frozenset[str]]] = [[] for _ in self.classes]
        for (_, summary), tags in sorted(self._answers().items()):
            if tags is not None:
                sets[summary].append(frozenset(tags))
        return sets

    def mu_u(self) -> dict[str, Agreement]:
        """mu_U of each class: the mean Jaccard distance between people, averaged over summaries.

        Only summaries with tags of two people or more count.
        """
        of_class: dict[str, list[float | None]] = {
            name: [] for k, name in enumerate(self.class_names) if k in set(self.classes)
        }
        for label, sets in zip(self.classes, self.tag_sets(), strict=True):
            apart = disagreement(sets) if len(sets) > 1 else None
            of_class[self.class_names[label]].append(apart)
        known = {name: [d for d in apart if d is not None] for name, apart in of_class.items()}
        return {
            name: Agreement(sum(d) / len(d) if d else None, len(d), len(of_class[name]))
            for name, d in known.items()
        }

    def names(self) -> list[str | None]:
        """Each summary's name, the tag that most people gave; None as long as nobody has."""
        return [most_used(sets) for sets in self.tag_sets()]

    def reveal(self) -> list[dict[str, object]]:
        """What each summary is called, by class: summary, class, name, people and your tags.

        Raises:
            ValueError: summaries are still to be tagged, and others' tags would lead.
        """
        if missing := len(self) - len(self.given):
            raise ValueError(f"{missing} of {len(self)} summaries are still to be tagged")
        sets, names = self.tag_sets(), self.names()
        return [
            {
                "summary": i,
                "class": self.class_names[self.classes[i]],
                "name": names[i],
                "people": len(sets[i]),
                "yours": [CANNOT_TELL] if self.given[i] is None else self.given[i],
            }
            for i in sorted(self.order, key=lambda i: (self.classes[i], i))
        ]


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


def tagging(
    pictures: Sequence[bytes | UInt8[np.ndarray, "_ _ 3"]],
    classes: Sequence[int] | Int64[Tensor, " n"],
    class_names: Sequence[str],
    *,
    file: Path,
    seed: int = 0,
) -> Tagging:
    """A panel on which people, one after the other, give nouns to summaries of a network.

    Args:
        pictures: of each summary's members, as an image file's bytes (PNG) or RGB values.
        classes: class of each summary, index into `class_names`.
        file: where the answers are kept, one line of JSON each; see `TaggingSession`.
        seed: of the order, which also differs from person to person.

    Raises:
        ValueError: no summaries, not one class for each, a class without a name, or a picture that
            cannot be read.
    """
    if len(pictures) != len(classes):
        raise ValueError(f"{len(classes)} classes for {len(pictures)} pictures; give one for each")
    opened = [_opened(picture, i) for i, picture in enumerate(pictures)]
    digest = hashlib.sha256()
    for picture in opened:
        digest.update(repr(picture.size).encode() + picture.tobytes())
    classes = [int(label) for label in classes]

    def session(rater: str) -> TaggingSession:
        about = {"file": file, "rater": rater, "seed": seed, "pictures": digest.hexdigest()}
        return TaggingSession(classes, class_names, **about)

    return Tagging(opened, session, session(""))


def _opened(picture: bytes | UInt8[np.ndarray, "_ _ 3"], number: int) -> Image.Image:
    try:
        opened = Image.open(BytesIO(picture)) if isinstance(picture, bytes) else None
        return (opened or Image.fromarray(picture)).convert("RGB")
    except (OSError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"the picture of summary {number} cannot be read ({problem}); give the bytes of a PNG "
            "file, or uint8 (h, w, 3)"
        ) from None


_DOUBLE_CLICK = 0.25  # seconds; sooner than that nobody has looked at a picture
_SHOWN = 288  # pixels: the side of the square that a picture fills
_THUMB = 104


class _Panel(ipywidgets.VBox):
    """Who are you, then picture by picture, then thank you.

    `session` is that of whoever answers now. A kind of panel gives its own widgets for an answer,
    and says what there is to see: `_ask`, `_results`, `_solution`.
    """

    _things = "pictures"
    _rest: str  # what who has answered everything finds in the results
    _caution: str  # with the results, to who has not answered everything

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        new_session: Callable[[str], Any],
        session: Any,
        *,
        welcome: str,
        answering: Sequence[ipywidgets.Widget],
        cannot_tell: str,
        results: str,
    ) -> None:
        super().__init__()
        self.pictures, self.session, self._new_session = pictures, session, new_session

        self.name = ipywidgets.Text(
            description="Your name",
            placeholder=ANONYMOUS,
            tooltip="Kept with your answers; the same name later goes on where you stopped",
        )
        self.start = button("Start", "Show the first picture", button_style="primary")
        self.cannot_tell = button(CANNOT_TELL, cannot_tell)
        self.back = button("Back", "Show the picture before again and change its answer")
        self.next_person = button("Next person", "Hand over; every answer so far is saved")
        self.results = ipywidgets.ToggleButton(description="Show the results", tooltip=results)
        self.results.layout.width = "auto"
        self.picture, self.progress, self.message, self.chart = (
            ipywidgets.HTML() for _ in range(4)
        )
        self._welcome = ipywidgets.VBox(
            [
                ipywidgets.HTML(
                    f"<p style='max-width:44em;margin:0;line-height:1.5'>{welcome}</p>"
                ),
                ipywidgets.HBox([self.name, self.start], layout=wrapping()),
            ]
        )
        self.cannot_tell.layout.align_self = "flex-start"  # as wide as the other buttons
        right = ipywidgets.VBox([self.progress, *answering, self.cannot_tell])
        right.layout = ipywidgets.Layout(flex="1 1 16em", max_width="36em", grid_gap="6px")
        self._asking = ipywidgets.Box([self.picture, right], layout=wrapping(gap="16px"))
        self._foot = ipywidgets.HBox([self.back, self.next_person, self.results], layout=wrapping())
        self.layout.grid_gap = "10px"

        self.start.on_click(lambda _: self._begin())
        on_enter(self.name, self._begin)
        self.cannot_tell.on_click(lambda _: self._answer(None))
        self.back.on_click(lambda _: self._go_back())
        self.next_person.on_click(lambda _: self._greet())
        self.results.observe(lambda _: self._show(), "value")
        self._greet()

    def close(self) -> None:
        """Take the panel and all that is on it from the page; the answers stay."""
        stack = [*self.children, self._welcome, self._asking, self._foot]
        while stack:
            stack.extend(getattr(widget := stack.pop(), "children", ()))
            widget.close()
        super().close()

    def _ask(self, session: Any, said: str) -> None:
        """Show the session's picture, described as `said`, and what was answered before."""
        raise NotImplementedError

    def _results(self, session: Any) -> str:
        """What everybody's answers come to."""
        raise NotImplementedError

    def _solution(self, session: Any) -> str:
        """What is shown to who has answered everything."""
        raise NotImplementedError

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

    def _answer(self, answer: object) -> None:
        if self.session.finished or self.session.seconds < _DOUBLE_CLICK:
            return
        try:
            self.session.answer(answer)
        except OSError as problem:
            self._show(
                f"This answer could not be saved and does not count ({problem}). Make room on the "
                "disk, or let the folder be written to, and answer again."
            )
        except ValueError as problem:
            self._show(str(problem))
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
            self._ask(session, f"{session.position + 1} of {len(session)}")
        self.message.value = self._message(problem)
        self.message.layout.display = None if self.message.value else "none"
        self.results.description = "Hide the results" if shown else "Show the results"
        self._solved |= shown and not (self._greeting or asking)
        # Who has seen the solution can no longer change an answer.
        self.back.disabled = session.position == 0 or self._solved
        self.chart.value = ""
        if shown:
            solution = self._solution(session) if self._solved else ""
            self.chart.value = f"<div style='{PAPER}'>{self._results(session)}{solution}</div>"
        body = [self._welcome] if self._greeting else [self._asking] if asking else []
        foot = [self.results] if self._greeting else [self.back, self.next_person, self.results]
        # The same children are not sent again: the keyboard's focus stays on its button.
        self._foot.children = foot
        self.children = [*body, self.message, self._foot, self.chart]

    def _message(self, problem: str) -> str:
        """One line under the picture: what went wrong, thanks, or that it is better not to look."""
        session, shown = self.session, self.results.value
        if problem:
            return f'<p role="alert" style="{PAPER};margin:0">⚠ {escape(problem)}</p>'
        if not self._greeting and session.finished:
            rest = "" if shown else f" The results also show {self._rest}."
            return (
                f'<p role="status" style="margin:0"><strong>Thank you, {escape(session.rater)}.'
                f"</strong> You have named all {len(session)} {self._things}.{rest}</p>"
            )
        return f"<p style='margin:0'>{self._caution}</p>" if shown else ""


class BlindRating(_Panel):
    """The panel behind `blind_rating`; `session` is the `RatingSession` of whoever is rating."""

    _rest = "what each picture was"
    _caution = (
        "Blind first: who has still to answer should not watch these numbers, which tell right "
        "from wrong."
    )

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        new_session: Callable[[str], RatingSession],
        session: RatingSession,
    ) -> None:
        self.buttons = [button(name, f"It shows: {name}") for name in session.class_names]
        for choice, offered in enumerate(self.buttons):
            offered.on_click(lambda _, choice=choice: self._answer(choice))
        super().__init__(
            pictures,
            new_session,
            session,
            welcome="<strong>What does a network think its classes look like?</strong> You will "
            f"see {len(pictures)} pictures, one at a time. Each was made by a network to show one "
            "class; which network and which class stays hidden until you have named them all.",
            answering=[ipywidgets.Box(self.buttons, layout=wrapping())],
            cannot_tell="I recognise nothing; counts as not recognised",
            results="How often each network's pictures were named",
        )

    def __repr__(self) -> str:  # what a page without a running notebook shows
        return f"Blind rating of {len(self.pictures)} pictures: run this cell to take part."

    def _ask(self, session: RatingSession, said: str) -> None:
        alt = f"picture {said}, model and class hidden"
        self.picture.value = _image(self.pictures[session.picture], alt)
        self.progress.value = _progress(session, "What is this?")
        before = session.given.get(session.picture, -1)
        for choice, offered in [*enumerate(self.buttons), (None, self.cannot_tell)]:
            offered.icon = "check" if choice == before else ""

    def _results(self, session: RatingSession) -> str:
        return _accuracy_table(session)

    def _solution(self, session: RatingSession) -> str:
        return _grid(session, self.pictures)


class Tagging(_Panel):
    """The panel behind `tagging`; `session` is the `TaggingSession` of whoever is tagging."""

    _things = "summaries"
    _rest = "what others call them"
    _caution = "What each summary is called is shown to who has named them all."

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        new_session: Callable[[str], TaggingSession],
        session: TaggingSession,
    ) -> None:
        self.tags = ipywidgets.Text(
            description="Nouns",
            placeholder="such as: head, beak",
            tooltip="What the red parts have in common, in a few nouns separated by commas; the "
            "Enter key goes on",
        )
        self.tags.layout = ipywidgets.Layout(width="auto", max_width="30em")
        self.give = button("Go on", "Keep these nouns and show the next", button_style="primary")
        self.give.layout.align_self = "flex-start"
        self.give.on_click(lambda _: self._answer(self.tags.value))
        on_enter(self.tags, lambda: self._answer(self.tags.value))
        self._asked: tuple[object, ...] = ()
        super().__init__(
            pictures,
            new_session,
            session,
            welcome="<strong>What does a network look at?</strong> You will see "
            f"{len(pictures)} groups of pictures of one class each. The network relies on what is "
            "marked in red. Say what the red parts have in common, in a few nouns such as “head, "
            "beak”.",
            answering=[self.tags, self.give],
            cannot_tell="I see nothing that they have in common; leaves it to the others",
            results="How far people disagree, for each class",
        )

    def __repr__(self) -> str:
        return f"Tagging of {len(self.pictures)} summaries: run this cell to take part."

    def _ask(self, session: TaggingSession, said: str) -> None:
        if self._asked == (id(session), session.position):
            return  # what is being typed stays
        self._asked = (id(session), session.position)
        summary = session.picture
        name = session.class_names[session.classes[summary]]
        alt = f"summary {said}, parts of {escape(name)} in red"
        self.picture.value = _image(self.pictures[summary], alt, wide=True)
        question = f"{escape(name)}: what do the red parts have in common?"
        self.progress.value = _progress(session, question)
        before = session.given.get(summary, "")
        self.tags.value = ", ".join(before or ())
        self.cannot_tell.icon = "check" if before is None else ""

    def _results(self, session: TaggingSession) -> str:
        return _agreement_table(session)

    def _solution(self, session: TaggingSession) -> str:
        return _names(session, self.pictures)


def _image(picture: Image.Image, alt: str, wide: bool = False) -> str:
    """A square of the same size whatever the picture's; or, wide, as large as it is and fits."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    size = f"width:{_SHOWN}px;height:{_SHOWN}px"
    if wide:
        size = f"min-width:{_SHOWN}px;max-height:70vh"
    return (
        f'<img alt="{alt}" src="{data_uri(buffer.getvalue(), "image/png")}" '
        f'style="{size};max-width:100%;object-fit:contain;border-radius:4px">'
    )


def _progress(session: _Session, question: str) -> str:
    at, n = session.position + 1, len(session)
    return (
        f'<div role="status"><strong>{question}</strong> &nbsp;{at} of {n}</div>'
        f'<progress aria-label="named so far" value="{len(session.given)}" max="{n}" '
        f'style="width:100%;max-width:22em;accent-color:{PALETTE["blue"]}"></progress>'
    )


def _accuracy_table(session: RatingSession) -> str:
    """A row per model: a bar with its interval, chance as a dashed line, and the same in words."""
    chance = 1 / len(session.class_names)
    rows = [
        (model, bar(share, low, high, chance), _in_words(share, low, high, n))
        for model, (share, low, high, n) in session.accuracy().items()
    ]
    return table(
        f"<strong>How often the class was recognised</strong>, by {_people(session)}. Dark line: "
        f"95% interval (Wilson). Dashed: guessing, {chance:.0%}.",
        rows,
    )


def _agreement_table(session: TaggingSession) -> str:
    """A row per class: mu_U as a bar and in words."""
    rows = []
    for name, (mu, measured, summaries) in session.mu_u().items():
        said = "two people are needed"
        if mu is not None:
            said = f"<strong>{mu:.2f}</strong>, {measured} of {_count(summaries, 'summary')}"
        rows.append((name, bar(mu), said))
    return table(
        f"<strong>How far people disagree</strong> (μ<sub>U</sub>), by {_people(session)}. Mean "
        "Jaccard distance between their nouns: 0, all gave the same; 1, none in common.",
        rows,
    )


def _people(session: _Session) -> str:
    return _count(len(session.raters()), "person")


def _count(n: int, thing: str) -> str:
    many = {"person": "people", "summary": "summaries"}[thing]
    return f"{n} {thing if n == 1 else many}"


def _in_words(share: float | None, low: float | None, high: float | None, n: int) -> str:
    if share is None:
        return "no answers yet"
    answers = "1 answer" if n == 1 else f"{n} answers"
    return f"<strong>{share:.0%}</strong> ({100 * low:.0f} to {100 * high:.0f}), {answers}"


def _grid(session: RatingSession, pictures: Sequence[Image.Image]) -> str:
    """Every picture with what it was and what was said, those of a class side by side."""
    rows = session.reveal()
    cards = [(row["class"], _card(row, pictures[row["picture"]])) for row in rows]
    right = sum(row["right"] for row in rows)
    return _side_by_side(
        f"<strong>What they were.</strong> You recognised {right} of {len(rows)}.", cards
    )


def _names(session: TaggingSession, pictures: Sequence[Image.Image]) -> str:
    """Every summary with its name and your tags, those of a class side by side."""
    cards = [(row["class"], _named(row, pictures[row["summary"]])) for row in session.reveal()]
    return _side_by_side(
        "<strong>What they are called</strong>, by the noun most people gave.", cards
    )


def _side_by_side(title: str, cards: Sequence[tuple[object, str]]) -> str:
    """Cards, those of a class in one group."""
    groups = "".join(
        f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(c for _, c in same)}</div>'
        for _, same in groupby(cards, itemgetter(0))
    )
    return (
        f'<p style="margin:16px 0 8px">{title}</p>'
        f'<div style="display:flex;flex-wrap:wrap;gap:14px 28px">{groups}</div>'
    )


def _card(row: dict[str, object], picture: Image.Image) -> str:
    name, model = escape(str(row["class"])), escape(str(row["model"]))
    said = f"<strong>{name}</strong><br>{model}<br>{_verdict(row)}"
    return _figure(picture, f"{name}, made by {model}", said)


def _named(row: dict[str, object], picture: Image.Image) -> str:
    name = escape(str(row["name"] or "no name yet"))
    group, yours = escape(str(row["class"])), escape(", ".join(row["yours"]))
    said = f"<strong>{name}</strong><br>{group}<br>{_count(row['people'], 'person')}; you: {yours}"
    return _figure(picture, f"{name} of {group}", said)


def _figure(picture: Image.Image, alt: str, said: str) -> str:
    return (
        f'<figure style="margin:0;width:{_THUMB}px;font-size:12px;line-height:1.35">'
        f'<img alt="{alt}" src="{data_uri(*embed(picture, budget=8_000))}" '
        f'style="width:{_THUMB}px;height:{_THUMB}px;object-fit:contain;border-radius:3px">'
        f'<figcaption style="overflow-wrap:anywhere">{said}</figcaption></figure>'
    )


def _verdict(row: dict[str, object]) -> str:
    """Right or wrong as a sign and a word, not only as a colour."""
    if row["right"]:
        return f'<span style="color:{PALETTE["blue"]}">✓ right</span>'
    return f"✗ you: {escape(str(row['answer']))}"
