"""Notebook 01: a network paints a class while one watches, and judges say what they see.

Two networks, or one with two regularisers, climb side by side. The climb is paper 1's, by the
package's own `feature_visualization.climbing`, and begins and ends where the notebook's paintings
do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from html import escape

import ipywidgets
import torch
from IPython.display import Markdown
from jaxtyping import Float
from torch import Tensor, nn

from helpers import background_removal
from helpers import feature_visualization as fv
from helpers.background_removal import BACKGROUNDS, JUDGES, Studied, Study, Variant
from helpers.models import frozen
from helpers.widgets.live import Panel, Slices
from helpers.widgets.pieces import (
    PAPER,
    button,
    choice,
    picture,
    probabilities,
    slider,
    wrapping,
)

WAYS = {  # what a way to paint is called here, and in `background_removal.climbs`
    "no L2": "nothing",
    "L2": "grey",
    "L2, jitter": "jitter",
    "L2, noise": "noise added",
    "L2, smooth": "smooth",
    "L2, all three": "all three",
    "norm capped": "equal norm",
}
_JUDGES = dict(zip(JUDGES[:2], ("Standard judge", "Shuffled-backdrop judge"), strict=True))


def painting_panel(study: Study, networks: Mapping[Variant, Studied]) -> Painting | Markdown:
    """A panel on which two networks paint a class, live.

    Args:
        networks: what `study.run` gave.
    """
    if not networks:
        return Markdown("There are no networks here that could paint.")
    return Painting(study, networks)


def title_of(variant: Variant) -> str:
    """What a network is called: its background and how it was trained.

    >>> title_of(Variant("black", seed=2, robust=True))
    'black, robust, seed 2'
    """
    words = [variant.background]
    words += [variant.init] if variant.init != "scratch" else []
    words += ["robust"] if variant.robust else []
    words += [f"{variant.masks} masks"] if variant.masks != "true" else []
    return ", ".join([*words, f"seed {variant.seed}"])


class Painting(Panel):
    """Two pictures that climb side by side; see `painting_panel`."""

    def __init__(self, study: Study, networks: Mapping[Variant, Studied]) -> None:
        self._study, self._networks = study, networks
        # from the store: a few milliseconds, but not at every movement
        self._model = lru_cache(maxsize=4)(lambda v: study.network(networks[v].network))
        self._exact = lru_cache(maxsize=8)(self._starts)
        first, *others = networks
        black = next((v for v in others if v.background == "black"), first)
        self.sides = (_Side("Left", study, networks, first), _Side("Right", study, networks, black))
        self.steps = slider(
            "Steps",
            5,
            200,
            background_removal.usual(study.budget).steps,
            "How many steps both climb; the notebook's paintings took as many as stand here first",
            5,
        )
        self.paint_button = button("Paint", "Let both networks climb")
        self.paint_button.on_click(lambda _: self._latest.ask(self.paint))
        below = ipywidgets.HBox([self.paint_button, self.steps], layout=wrapping("16px"))
        below.layout.width = "100%"
        columns = ipywidgets.HBox([side.shown for side in self.sides], layout=wrapping("14px"))
        columns.layout.width = "100%"
        super().__init__(
            "Watch two networks paint",
            [*(side.controls for side in self.sides), below],
            [columns],
            note="Compare two backgrounds, or two regularisers. Does a high score make a likeness?",
            stoppable=True,
            quiet=[self.steps],  # for the next climb; what was painted stays
        )

    def work(self) -> Slices:
        """Show where both climbs begin."""
        for side in self.sides:
            begun = side.start()
            side.show(begun, self._score(side, begun), f"Start: {side.begin.value}. Press Paint.")
            yield
            side.judge(begun)
            yield

    def paint(self) -> Slices:
        """Climb on both sides, a frame with the judges' opinion every few steps."""
        steps, climbs = self.steps.value, []
        for side in self.sides:
            climbs.append(self._climb(side))
            yield 0
        now = [side.start() for side in self.sides]
        frame = max(1, steps // 20)
        for step in range(1, steps + 1):
            for which, climb in enumerate(climbs):
                now[which] = next(climb)
                yield (step - 1 + which / 2) / steps
            for side, images in zip(self.sides, now, strict=True):
                if step % frame == 0 or step == steps:
                    side.show(images, self._score(side, images), f"Step {step} of {steps}.")
                    yield (step - 1 / 4) / steps
                    side.judge(images)
        for climb in climbs:
            next(climb, None)  # says so if a gradient was not finite

    def _starts(self, kind: str, variant: Variant) -> Float[Tensor, "k 3 h w"]:
        """Where the notebook's climbs began, one for each class, not rounded: a climb that begins
        half a byte away can end elsewhere. The mean of some training sets takes a second."""
        seen = self._study.shown_to(variant) if kind == "mean" else self._study.train
        return fv.starts(kind, len(self._study.train.class_names), seen, seed=variant.seed)

    def _climb(self, side: _Side) -> Iterator[Float[Tensor, "1 3 h w"]]:
        variant = side.network.value
        how = replace(side.way.value, steps=self.steps.value)
        label = torch.tensor([side.label.value], device=self._study.device)
        start = self._exact(side.begin.value, variant)[label.item()][None].to(self._study.device)
        return fv.climbing(self._model(variant), label, start, how, seed=variant.seed)

    def _score(self, side: _Side, images: Float[Tensor, "1 3 h w"]) -> float:
        """The class's score before the softmax, of the picture that is seen."""
        model = self._model(side.network.value)
        with frozen(model), torch.inference_mode():
            return model(_as_seen(images))[0, side.label.value].item()


class _Side:
    """One picture with its four controls and what two judges say of it."""

    def __init__(
        self, name: str, study: Study, networks: Mapping[Variant, Studied], variant: Variant
    ) -> None:
        self._study, self._networks = study, networks
        self._classes = study.train.class_names
        plans = background_removal.climbs(
            study.budget, Variant(BACKGROUNDS[0], init=study.budget.inits[0])
        )
        kinds = list(enumerate(self._classes))
        self.label = choice(
            f"{name} class",
            [(kind, k) for k, kind in kinds],
            f"{name}: the class whose score is climbed",
            value=min(1, len(kinds) - 1),
        )
        self.network = choice(
            f"{name} network",
            [(title_of(v), v) for v in networks],
            f"{name}: the background a network was trained on, and how",
            value=variant,
        )
        self.begin = choice(
            f"{name} start", fv.STARTS, f"{name}: the picture the climb begins with"
        )
        self.way = choice(
            f"{name} regulariser",
            [(way, plans[known].how) for way, known in WAYS.items() if known in plans],
            f"{name}: what holds the picture back besides the score",
            value=plans["grey"].how,
        )
        own = (self.label, self.network, self.begin, self.way)
        for control, wide in zip(own, ("40%", "55%", "40%", "55%"), strict=True):
            control.layout.width = wide
        self.controls = ipywidgets.HBox(own, layout=wrapping("2px 8px"))
        self.seen, self.said = ipywidgets.HTML(), ipywidgets.HTML()
        self.said.layout = ipywidgets.Layout(flex="1 1 205px", min_width="205px")
        self.shown = ipywidgets.HBox([self.seen, self.said], layout=wrapping("4px 12px"))
        for half in (self.controls, self.shown):
            half.layout.flex = "1 1 395px"
            half.layout.min_width = "395px"

    def start(self) -> Float[Tensor, "1 3 h w"]:
        """Where the network's climb to the class begins, as it is stored: in whole bytes."""
        stored = self._networks[self.network.value].starts[self.begin.value]
        return stored[self.label.value][None].to(self._study.device).float() / 255

    def show(self, images: Float[Tensor, "1 3 h w"], score: float, when: str) -> None:
        """The picture as it is now."""
        kind, network = self._classes[self.label.value], title_of(self.network.value)
        alt = f"{when} {network} paints {kind}, {self.way.label}; score {score:.1f}."
        caption = (
            f"<strong>{escape(kind)}</strong>, painted by {escape(network)}<br>"
            f"{when} Score {score:.1f}."
        )
        self.seen.value = picture(_as_seen(images)[0], alt, side=176, caption=caption)

    def judge(self, images: Float[Tensor, "1 3 h w"]) -> None:
        """What the judges take it for."""
        kind = self._classes[self.label.value]
        tables = []
        for name, title in _JUDGES.items():
            said = answers(self._study.judges[name][0], _as_seen(images))[0].tolist()
            shares = dict(zip(self._classes, said, strict=True))
            tables.append(probabilities(title, shares, most=3, mark=kind))
        self.said.value = (
            f'<div style="{PAPER};padding:4px 8px;font-size:12px">{"".join(tables)}</div>'
        )


def answers(judge: nn.Module, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """The probability a judge gives to each class."""
    with frozen(judge), torch.inference_mode():
        return judge(images).softmax(1)


def _as_seen(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Rounded to whole bytes: what is judged is what is on the screen, and in the store."""
    return (images * 255).round() / 255
