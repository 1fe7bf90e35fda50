"""Notebook 04's panels: any object on any background for every network, and the tie's curves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
import pandas as pd
import torch
from IPython.display import Markdown
from jaxtyping import Float
from torch import Tensor, nn

from helpers import imagenet9_study as in9
from helpers.backgrounds import VARIANTS
from helpers.imagenet9 import composites
from helpers.imagenet9_study import (
    AUGMENTED,
    MARKED,
    PRETRAINED,
    SMALL,
    Network,
    Studied,
    Study,
)
from helpers.imageset import ImageSet
from helpers.models import folded, frozen
from helpers.widgets.live import Panel, Slices
from helpers.widgets.pieces import (
    Pictures,
    bar,
    button,
    choice,
    curves,
    picture,
    row,
    table,
    toggle,
    wrapping,
)

_SLICE = 0.03  # seconds of asking networks before the page gets its turn
_BATCH = 64  # composites a search looks at in one go, at most
_KEPT = 5_000_000  # weights; larger networks are read again for every question
_SIDE = 176  # pixels of the composite on the page
_OFFERED = 21  # pictures of a class to choose from, three rows
_WORST, _WORST_SIDE = 5, 152  # composites shown of those that a search found, and their pixels
_OF_WORLD, _SMALL_SIDE = 8, 92  # pictures shown of the world of a tie, and their pixels

Shares = Float[Tensor, "n k"]  # probabilities of the classes


# ---- any object on any background ----


def background_panel(study: Study, found: Mapping[Network, Studied]) -> Panel | Markdown:
    """Put an object on a background, ask every network, search for the background that fools one.

    Objects and backgrounds (Only-BG-T) are those of the study's own search, the networks all that
    were trained on the study's classes; networks are read from the store when they are first asked.

    Args:
        study, found: what `assemble` and `run` returned.

    Returns:
        The panel; where no network was trained, a sentence that says so.
    """
    networks = [network for network in found if network.on != PRETRAINED]
    if not networks:
        return Markdown(
            "*No network was trained on these classes, since there are no training images: this "
            "panel has nobody to ask. The demo profile shows it.*"
        )
    return BackgroundPanel(study, networks)


@dataclass(frozen=True)
class _Searched:
    """What a network says of one object on the backgrounds tried so far."""

    shares: Shares
    label: int

    @property
    def wrong(self) -> list[int]:
        """The backgrounds that fool it, the one on which it is surest of another class first."""
        others = self.shares.clone()
        others[:, self.label] = -1
        sure, called = others.max(1)
        fooled = sure > self.shares[:, self.label]
        # of equals argmax takes the first output, also where that is the true one
        fooled |= (sure == self.shares[:, self.label]) & (called < self.label)
        order = sure.argsort(descending=True, stable=True)
        return order[fooled[order]].tolist()


class Chooser(ipywidgets.VBox):
    """A class, and which of its pictures; in a set with many of them, of the first ones.

    Args:
        what: is chosen, the label of the class.
        titles: of the classes.
    """

    def __init__(self, what: str, images: ImageSet, titles: Sequence[str]) -> None:
        self.images, self.titles = images, titles
        present = images.labels.unique().tolist()
        tooltip = f"The class of the {what.split()[0].lower()}"
        self.kind = choice(what, [(titles[k], k) for k in present], tooltip)
        self._rows = _rows(images, self.kind.value)[:_OFFERED]
        self.pictures = Pictures(*self._offer(), side=40)
        self.kind.observe(lambda _: self._show(), "value")
        narrow = ipywidgets.Layout(flex="1 1 300px", max_width="336px")  # seven pictures a row
        super().__init__([self.kind, self.pictures], layout=narrow)

    @property
    def sheet(self) -> ipywidgets.Widget:
        """What the pictures are drawn with: it changes when they do, and asks for nothing."""
        return self.pictures.children[0]

    @property
    def row(self) -> int:
        """The chosen picture's row among the images."""
        return self._rows[self.pictures.value]

    def name(self, row: int | None = None) -> str:
        """Class and number within it, of the chosen picture or of another one."""
        row = self.row if row is None else row
        label = int(self.images.labels[row])
        return f"{self.titles[label]} {_rows(self.images, label).index(row) + 1}"

    def take(self, row: int) -> None:
        """Choose this picture; it is offered if it was not."""
        self.kind.value = int(self.images.labels[row])
        if row not in self._rows:
            self._rows = [*self._rows[: _OFFERED - 1], row]
            self.pictures.show(*self._offer())
        self.pictures.value = self._rows.index(row)

    def _show(self) -> None:
        self._rows = _rows(self.images, self.kind.value)[:_OFFERED]
        self.pictures.show(*self._offer())

    def _offer(self) -> tuple[list[Tensor], list[str]]:
        shown = self.images.images[self._rows]
        few = max(1, shown.shape[-1] // 80)  # 40 pixels on the page, twice as many on dense ones
        numbers = [self.name(row).rsplit(" ", 1)[1] for row in self._rows]
        return list(shown[:, :, ::few, ::few]), numbers


class BackgroundPanel(Panel):
    """See `background_panel`."""

    def __init__(self, study: Study, networks: Sequence[Network]) -> None:
        self.study = study
        self.foregrounds, self.backgrounds = in9.adversarial_rows(study)
        self._groups: dict[str, list[Network]] = {}  # the seeds of one training
        for network in networks:
            self._groups.setdefault(_title(network), []).append(network)
        self._kept: dict[Network, nn.Module] = {}
        self._searched: tuple[tuple[int, Network], _Searched] | None = None

        titles = study.class_titles
        self.object = Chooser("Object", self.foregrounds, titles)
        self.background = Chooser("Background of", self.backgrounds, titles)
        self.background.kind.index = min(1, len(self.background.kind.options) - 1)
        self.search = toggle(
            "Search for backgrounds that fool", False, "Try every background on this object"
        )
        named = [(_with_seed(network, self._groups), network) for network in networks]
        self.searched = choice("Network", named, "The network that the search wants to fool")
        self.worst = button("Take the worst", "Put the object on the most fooling background")
        self.worst.disabled = True
        self.worst.on_click(lambda _: self._take_the_worst())
        self.composite, self.answers, self.found = (ipywidgets.HTML() for _ in range(3))
        self.search.layout.width = "auto"
        asks = ipywidgets.Box([self.search, self.searched, self.worst], layout=wrapping("4px 12px"))
        super().__init__(
            "Any object on any background",
            [self.object, self.background, self.composite, asks],
            [self.answers, self.found],
            note="Choose an object, choose a background, and see who is fooled.",
            stoppable=True,
            quiet=[self.composite, self.object.sheet, self.background.sheet],
        )

    def work(self) -> Slices:
        if self._searched is None or self._searched[0] != (self.object.row, self.searched.value):
            self.found.value, self.worst.disabled = "", True  # another object's or network's
        image = self._composites([self.background.row])
        label = self.object.kind.value
        self.composite.value = self._picture(image)
        said: dict[str, list[Tensor]] = {title: [] for title in self._groups}
        todo = [(title, network) for title, group in self._groups.items() for network in group]
        since = time.perf_counter()
        for done, (title, network) in enumerate(todo):
            if time.perf_counter() - since > _SLICE:
                self.answers.value = self._told(said, label)
                yield done / len(todo)
                since = time.perf_counter()
            said[title].append(self._asked(network, image)[0])
        self.answers.value = self._told(said, label)
        yield
        if self.search.value:
            yield from self._search(label)
        else:
            self.found.value, self.worst.disabled = "", True

    # asking

    def _composites(self, backgrounds: Sequence[int]) -> Float[Tensor, "n 3 h w"]:
        one, device = self.object.row, self.study.device
        many = self.backgrounds.images[list(backgrounds)].to(device)
        image = self.foregrounds.images[one].to(device).expand_as(many)
        mask = self.foregrounds.masks[one].to(device).expand(len(many), -1, -1)
        return composites(image, mask, many)

    def _asked(self, network: Network, images: Float[Tensor, "n 3 h w"]) -> Shares:
        model = self._model(network)
        with frozen(model), torch.inference_mode():
            return model(images).softmax(1).cpu()

    def _model(self, network: Network) -> nn.Module:
        if network in self._kept:
            return self._kept[network]
        model = in9.model(self.study, network).to(self.study.device)
        if sum(p.numel() for p in model.parameters()) <= _KEPT:
            model = self._kept[network] = folded(model)
        return model

    def _search(self, label: int) -> Slices:
        network, total = self.searched.value, len(self.backgrounds)
        asked = self.object.row, network
        if self._searched is None or self._searched[0] != asked:
            self.worst.disabled, model = True, self._model(network)
            shares, size = torch.empty(0, len(self.study.class_titles)), 4
            while len(shares) < total:
                since = time.perf_counter()
                rows = range(len(shares), min(len(shares) + size, total))
                with frozen(model), torch.inference_mode():
                    more = model(self._composites(rows)).softmax(1).cpu()
                shares = torch.cat([shares, more])
                self.found.value = self._told_of(_Searched(shares, label), shares, network)
                yield len(shares) / total
                slow = time.perf_counter() - since > _SLICE
                size = max(1, size // 2) if slow else min(2 * size, _BATCH)
            self._searched = asked, _Searched(shares, label)
        result = self._searched[1]
        self.found.value = self._told_of(result, result.shares, network)
        self.worst.disabled = not result.wrong

    def _take_the_worst(self) -> None:
        if self._searched is None or not self._searched[1].wrong:
            return
        self.background.take(self._searched[1].wrong[0])

    # what is shown

    def _picture(self, image: Float[Tensor, "1 3 h w"]) -> str:
        thing, place = self.object.name(), self.background.name()
        ids = [chosen.images.ids for chosen in (self.object, self.background)]
        if all(ids) and ids[0][self.object.row] == ids[1][self.background.row]:
            place += ", its own"
        alt = f"The object of {thing} on the background of {place}."
        return picture(image[0], alt, _SIDE, escape(f"{thing} on the background of {place}"))

    def _told(self, said: Mapping[str, Sequence[Tensor]], label: int) -> str:
        thing = escape(self.study.class_titles[label])
        usual = [title for title, group in self._groups.items() if _usual(group[0])]
        columns = {
            "Trained on a variant": usual,
            "Other architectures, backgrounds and worlds": [t for t in said if t not in usual],
        }
        cells = [
            '<div style="flex:1 1 26em;font-size:12px;white-space:nowrap">'
            f"{table(caption, [self._line(title, said[title], label) for title in titles])}</div>"
            for caption, titles in columns.items()
            if titles
        ]
        story = (
            f"Probability of <strong>{thing}</strong>, the mean over the seeds; ✓ or ✗ for each "
            "seed; the name given instead (+ so many others)."
        )
        return _paragraph(story) + row(*cells)

    def _line(self, title: str, seeds: Sequence[Tensor], label: int) -> tuple[str, str, str]:
        """A row of the table: the network, its bar, and the same in words."""
        if len(seeds) < len(self._groups[title]):
            return title, bar(None), "…"
        shares = torch.stack(list(seeds))
        called = shares.argmax(1).tolist()
        marks = "".join("✓" if k == label else "✗" for k in called)
        wrong = Counter(k for k in called if k != label).most_common()
        words = f"{shares[:, label].mean():.0%} {marks}"
        if wrong:
            words += f" {escape(self.study.class_titles[wrong[0][0]])}"
        if len(wrong) > 1:
            words += f" + {len(wrong) - 1}"
        return title, bar(float(shares[:, label].mean())), words

    def _told_of(self, result: _Searched, shares: Shares, network: Network) -> str:
        wrong, total = result.wrong, len(self.backgrounds)
        name, title = (
            self.object.name(),
            _with_seed(network, self._groups),
        )
        tried = f"{len(shares)} of {total} backgrounds tried." if len(shares) < total else ""
        own = sum(int(self.backgrounds.labels[k]) == result.label for k in wrong)
        if wrong:
            first = self.background.name(min(wrong))
            story = (
                f"{len(wrong)} of {len(shares)} backgrounds fool {title} about {name}, {own} of "
                f"them of its own class. In the order of the images the first is that of {first}."
            )
        else:
            story = f"None of {len(shares)} backgrounds fools {title} about {name}."
        cells = []
        if wrong:
            pictures = self._composites(wrong[:_WORST])
            for place, image in zip(wrong, pictures, strict=False):
                said = shares[place]
                sure, called = said.max(0)
                verdict = f"{self.study.class_titles[int(called)]} {float(sure):.0%}"
                behind = self.background.name(place)
                alt = f"{name} on the background of {behind}: {title} says {verdict}."
                caption = f"<strong>{escape(verdict)}</strong><br>background of {escape(behind)}"
                cells.append(picture(image, alt, _WORST_SIDE, caption))
        return _paragraph(escape(f"{story} {tried}")) + row(*cells)


def _rows(images: ImageSet, label: int) -> list[int]:
    return torch.nonzero(images.labels == label)[:, 0].tolist()


def _title(network: Network) -> str:
    """What a row is called; seeds share it."""
    if network.on in (MARKED, SMALL):
        return f"Original, {network.on}"
    tie = "" if network.tie is None else f", tie {network.tie:g}"
    return in9.name_of(network) + tie


def _usual(network: Network) -> bool:
    """Of the study's own architecture and world, trained on a variant."""
    on_variant = network.on in VARIANTS or network.on == AUGMENTED
    return on_variant and network.tie is None and not network.title


def _with_seed(network: Network, groups: Mapping[str, Sequence[Network]]) -> str:
    title = _title(network)
    return f"{title}, seed {network.seed}" if len(groups[title]) > 1 else title


def _paragraph(story: str) -> str:
    return f'<p style="margin:0 0 6px;line-height:1.5">{story}</p>'


# ---- the tie ----


def tie_panel(
    study: Study, found: Mapping[Network, Studied], knob: pd.DataFrame | None
) -> Panel | Markdown:
    """Turn the tie between backdrop and class: the world it makes, and what its network makes of
    it. All of it is in the store; between the ties that were studied nothing is known.

    Args:
        study, found: what `assemble` and `run` returned.
        knob: what `helpers.imagenet9_study.ties` returned.

    Returns:
        The panel; for photographs, whose tie nobody can turn, a sentence that says so.
    """
    if knob is None or len(knob) < 2:
        return Markdown(
            "*Nobody can turn the tie between background and class in photographs: this panel "
            "needs the drawn scenes of the demo profile.*"
        )
    return TiePanel(study, found, knob)


class TiePanel(Panel):
    """See `tie_panel`."""

    CURVES = ("Original", "Mixed-Rand", "Only-BG-T", "BG-gap", "fooled")

    def __init__(self, study: Study, found: Mapping[Network, Studied], knob: pd.DataFrame) -> None:
        self.study, self.found, self.knob = study, found, knob
        own = {n.tie: n for n in study.plans if n.tie is not None}
        self._networks = {tie: own.get(tie, Network()) for tie in knob.index}
        sets = [study.tests[study.collection(n)]["original"] for n in self._networks.values()]
        shared = set.intersection(*(set(images.ids) for images in sets))
        first = sets[0]
        self._ids = {  # the same objects in every world, by class
            k: [first.ids[i] for i in _rows(first, k) if first.ids[i] in shared][:_OF_WORLD]
            for k in first.labels.unique().tolist()
        }
        self.tie = ipywidgets.SelectionSlider(
            description="Tie between backdrop and class",
            options=[(f"{tie:g}", tie) for tie in knob.index],
            value=knob.index[len(knob) // 2],
            tooltip="Probability that a scene shows its class's home whatever chance says",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="480px", margin="2px"),
        )
        titles = [(study.class_titles[k], k) for k in self._ids]
        self.kind = choice("Class", titles, "Whose pictures are shown below")
        self.drawn, self.pictures = ipywidgets.HTML(), ipywidgets.HTML()
        super().__init__(
            "Turn the tie",
            [self.tie, self.kind],
            [self.drawn, self.pictures],
            note="When does the background become the cheaper cue?",
        )

    def work(self) -> Slices:
        tie = self.tie.value
        values = self.knob.loc[tie]
        lines = {name: self.knob[name].tolist() for name in self.CURVES}
        words = {name: f"{values[name]:.0f}%" for name in self.CURVES}
        interval = f"{values['low']:.0f} to {values['high']:.0f}".replace("-", "−")
        words["BG-gap"] = f"{values['BG-gap']:.0f} points ({interval})"
        told = ", ".join(f"{name} {word}" for name, word in words.items())
        drawing = curves(
            f"Lines over the tie between backdrop and class. At {tie:g}: {told}.",
            self.knob.index.tolist(),
            lines,
            xlabel="tie between backdrop and class",
            ylabel="%, BG-gap in points",
            at=tie,
            width=480,
        )
        bars = [(n, bar(min(max(values[n] / 100, 0), 1)), words[n]) for n in self.CURVES]
        caption = f"Network and test images of tie <strong>{tie:g}</strong>"
        beside = (
            '<div style="flex:1 1 20em;max-width:32em;white-space:nowrap">'
            f"{table(caption, bars)}</div>"
        )
        self.drawn.value = row(drawing, beside)
        yield
        self.pictures.value = self._of_this_world()

    def _of_this_world(self) -> str:
        tie, network = self.tie.value, self._networks[self.tie.value]
        images = self.study.tests[self.study.collection(network)]["original"]
        where = {name: place for place, name in enumerate(images.ids)}
        called = self.found[network].predicted["original"]
        title, right, cells = self.study.class_titles[self.kind.value], 0, []
        for name in self._ids[self.kind.value]:
            place = where[name]
            said = self.study.class_titles[int(called[place])]
            correct = said == title
            right += correct
            scene = title
            if images.backdrops is not None:
                scene += f" before {images.backdrop_names[int(images.backdrops[place])]}"
            verdict = f"{'✓' if correct else '✗'} {said}"
            alt = f"{scene}; the network says {said}, which is {'right' if correct else 'wrong'}."
            cells.append(picture(images.images[place], alt, _SMALL_SIDE, escape(verdict)))
        story = (
            f"The same objects in the world of tie {tie:g}, and what its network calls them: "
            f"{right} of {len(cells)} are right."
        )
        return _paragraph(story) + row(*cells)
