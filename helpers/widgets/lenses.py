"""The capstone's picker: one image and one network through all four papers' lenses.

from helpers.widgets.lenses import lens_panel
lens_panel(study)  # of helpers.four_lenses_study, after its run
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from html import escape

import ipywidgets
import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from helpers import four_lenses as fl
from helpers import saliency
from helpers.four_lenses_study import UNTRAINED, Network, One, Study, name_of, one
from helpers.widgets.live import Kept, Panel, Slices
from helpers.widgets.paths import outlined
from helpers.widgets.pieces import (
    PAPER,
    Pictures,
    choice,
    picture,
    probabilities,
    row,
    take,
    wrapping,
)

_PER_CLASS = 8  # pictures to choose from
_SIDE = 192  # of a map, pixels on the page: four fit side by side
_SMALL = 160  # of the image and the painting
_DRAWN = 0.25  # seconds between two pictures of a mask that is being made


def lens_panel(study: Study) -> LensPanel | Markdown:
    """Choose an image, a network and a class; the four maps, where they lie and how alike they are.

    Args:
        study: of `helpers.four_lenses_study.assemble`; what `run` has made is read, not made again.

    Returns:
        The panel, or a sentence where no network has been looked through yet.
    """
    try:
        one(study, study.networks[0], 0)
    except LookupError:
        return Markdown("*This panel needs what* `study.run()` *makes; run that cell first.*")
    return LensPanel(study)


class LensPanel(Panel):
    """See `lens_panel`. The mask is made in slices, last, unless the study has it."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._images = study.four.test["original"]
        self._looks, self._masks = Kept(32), Kept(64)
        self._before: Hashable = None
        labels = self._images.labels.unique().tolist()
        self.kind = choice(
            "Object", [study.class_titles[k] for k in labels], "Show images of this class"
        )
        self.pictures = Pictures([self._images.images[0]], [""])
        networks = {_title(n, study.networks): n for n in (*study.networks, UNTRAINED)}
        self.network = choice("Network", networks, "Which network is asked, by its training set")
        what = "The class whose evidence is looked for"
        self.asked = choice("Class asked about", [("the one it names", None)], what)
        self.asked.layout = ipywidgets.Layout(width="27em")
        self.maps = {lens: ipywidgets.HTML() for lens in fl.LENSES}
        self.beside, self.said, self.alike = (ipywidgets.HTML() for _ in range(3))
        self._offer()
        self.kind.observe(self._offer, "value")
        super().__init__(
            "One image, one network, four lenses",
            [
                ipywidgets.Box([self.kind, self.network, self.asked], layout=wrapping("4px 16px")),
                self.pictures,
            ],
            [
                ipywidgets.Box(list(self.maps.values()), layout=wrapping("8px 14px")),
                ipywidgets.Box([self.beside, self.alike, self.said], layout=wrapping("8px 14px")),
            ],
            note="Where is the evidence? Ask about another class, then another network.",
            stoppable=True,
        )

    def _offer(self, _: object = None) -> None:
        """Offer the images of the chosen class, those that the study looked at first."""
        label = self.study.class_titles.index(self.kind.value)
        self._rows = (self._images.labels == label).nonzero()[:_PER_CLASS, 0].tolist()
        shown = self._images.images[self._rows]
        if shown.shape[-1] > 150:
            shown = functional.adaptive_avg_pool2d(shown.float(), 144).byte()
        names = [f"{k}" for k in range(1, len(self._rows) + 1)]  # classes can have long names
        with self.silently():
            self.pictures.show(list(shown), names)

    # ---- work ----

    def work(self) -> Slices:
        """The quick lenses at once, then the mask, as it comes."""
        place, network = self._rows[self.pictures.value], self.network.value
        asked = self.asked.value if self._before == place else None
        key = (place, network, asked)
        looked = self._looks.get(key, lambda: self._look(*key))
        self._before = place
        self._offer_classes(looked, asked)
        yield None
        key = (place, network, looked.target)
        truth = self._images.masks[place]
        maps = {lens: looked.maps[lens] for lens in fl.LENSES if lens in looked.maps}
        if key in self._masks:
            maps[fl.MASK] = self._masks[key]
        self._show(looked, maps, truth)
        if fl.MASK in maps:
            return
        yield None
        drawn, every = time.perf_counter(), 3 if truth.shape[-1] <= 100 else 1
        for share, made in looked.slices(every=every):
            if share == 1 or time.perf_counter() - drawn > _DRAWN:
                maps[fl.MASK] = made
                self._show_map(looked, fl.MASK, made, truth, share)
                self.alike.value = _alike(maps, self.study.budget.cells)
                drawn = time.perf_counter()
            yield share
        self._masks[key] = made

    def _look(self, place: int, network: Network, asked: int | None) -> One:
        image = self._images.images[place]
        same = (self.study.images.images == image).flatten(1).all(1).nonzero()
        try:
            return one(self.study, network, int(same[0]) if len(same) else image, asked)
        except LookupError:
            raise ValueError(
                f"{_title(network, self.study.networks)} has not been looked through yet; "
                "run study.run() first."
            ) from None

    def _offer_classes(self, looked: One, asked: int | None) -> None:
        titles = self.study.class_titles
        options = [(f"{name}, {p:.1%}", titles.index(name)) for name, p in looked.said.items()]
        options = [(f"the one it names: {options[0][0]}", None), *options]
        with self.silently():
            if options != list(self.asked.options):
                self.asked.options = options
            take(self.asked, asked)

    # ---- what is shown ----

    def _show(self, looked: One, maps: Mapping[str, Tensor], truth: Bool[Tensor, "h w"]) -> None:
        for lens in fl.LENSES:
            self._show_map(looked, lens, maps.get(lens), truth)
        titles = self.study.class_titles
        of, asked = self.kind.value, titles[looked.target]
        covers = f"the object covers {truth.double().mean():.0%}"
        what = escape(f"the image ({of}); {covers}")
        mine = escape(f"the network's painting of {asked}")
        self.beside.value = row(
            picture(looked.picture, f"The image that is asked about, a {of}", _SMALL, what),
            picture(looked.painting, f"What the network paints for {asked}", _SMALL, mine),
        )
        likely = "What the network says, bold: the true class"
        said = probabilities(likely, looked.said, most=4, mark=of)
        self.said.value = f'<div style="{PAPER};width:16em">{said}</div>'
        self.alike.value = _alike(maps, self.study.budget.cells)

    def _show_map(
        self,
        looked: One,
        lens: str,
        values: Float[Tensor, "h w"] | None,
        truth: Bool[Tensor, "h w"],
        done: float = 1,
    ) -> None:
        asked = self.study.class_titles[looked.target]
        nothing = torch.zeros_like(truth)
        enlarge = max(1, _SIDE // truth.shape[-1])
        shown = torch.zeros(truth.shape) if values is None else values.float()
        drawn = outlined(looked.picture, shown, nothing, truth, enlarge)
        share = float(saliency.energy_inside(shown[None], truth[None])[0])
        where = "nothing is marked" if share != share else f"{share:.0%} on the object"
        where = "waits for its turn" if values is None else where
        where += f"; {done:.0%} made" if done < 1 else ""
        alt = f"Map of lens {lens} over the image of a {self.kind.value}, for {asked}: {where}."
        caption = f"<strong>{escape(lens)}</strong><br>{escape(where)}"
        self.maps[lens].value = picture(drawn, alt, _SIDE, caption)


def _title(network: Network, networks: Sequence[Network]) -> str:
    """The training set, with the seed where there are several."""
    several = sum(other.on == network.on for other in networks) > 1
    return name_of(network) + (f", seed {network.seed}" if several else "")


def _alike(maps: Mapping[str, Float[Tensor, "h w"]], cells: int) -> str:
    """A table of every two maps' rank correlation; the centred Gaussian is one more."""
    size = next(iter(maps.values())).shape
    maps = {**maps, fl.CENTRE: saliency.centre_gaussian(1, *size)[0]}
    names = [*fl.LENSES, fl.CENTRE]
    found = {
        (a, b): float(fl.agreement(maps[a][None].float(), maps[b][None].float(), cells)[0])
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if a in maps and b in maps
    }
    short = [f"with {name[0]}" for name in names[1:-1]] + ["with a bump in the centre"]
    head = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in short)
    body = ""
    for a in names[:-1]:
        cells_of = (_number(found[a, b]) if (a, b) in found else "" for b in names[1:])
        body += f'<tr><th scope="row" style="{_CELL};text-align:left">{escape(a)}</th>'
        body += "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells_of) + "</tr>"
    caption = f"Rank correlation of two maps<br>on {cells} × {cells} areas"
    return (
        f'<div style="{PAPER}"><table style="border-spacing:0;line-height:1.4">'
        f'<caption style="text-align:left;padding-bottom:6px">{caption}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_CELL = "font-weight:normal;font-size:12px;padding:3px 6px;text-align:right;max-width:7.5em"


def _number(value: float) -> str:
    return "none" if value != value else f"{value:.2f}".replace("-", "−")
