"""Notebook 00's panel: one scene of the world, of which every cause can be changed by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from html import escape

import ipywidgets
import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import UInt8
from torch import Tensor, nn

from helpers.course import Course
from helpers.models import frozen
from helpers.scenes.anatomy import draw_coat
from helpers.scenes.backdrops import HOME, NAMES
from helpers.scenes.bodies import CLASSES, PLANS, SUPERCLASS_OF, SUPERCLASSES
from helpers.scenes.render import STREAMS, Scene
from helpers.scenes.world import World
from helpers.widgets.live import Panel, Slices
from helpers.widgets.pieces import (
    button,
    choice,
    picture,
    probabilities,
    row,
    slider,
    toggle,
    wrapping,
)

SIDE = 224  # pixels of the scene that one looks at closely
_ROW, _ROW_SIDE = 8, 92  # scenes of the tie's row, and their pixels
_SCENES = 40  # of each class to choose from
_TELLS = {
    "pose": "limbs, bends and proportions",
    "coat": "colours, direction, size and position in the frame",
    "backdrop": "the place: which one the tie draws, unless one is chosen, and how it looks",
    "light": "brightness, tint, direction of the light and noise",
}


def scene_panel(course: Course, network: nn.Module | None = None) -> Panel | Markdown:
    """A scene to take apart: its class, the four random streams, its parts, and the tie.

    Args:
        course: what `start` returned.
        network: of the eighteen classes, asked what it sees; it comes back as it was. Without one,
            nothing is asked.

    Returns:
        The panel, on scenes of the validation world; for photographs, which cannot be drawn again,
        a sentence that says so.
    """
    world = course.world("validation")
    if world is None:
        return Markdown(
            "*A photograph cannot be drawn again with another pose or in another place: this panel "
            "needs the drawn scenes of the demo profile.*"
        )
    return ScenePanel(world, network, course.device)


class ScenePanel(Panel):
    """See `scene_panel`."""

    def __init__(
        self, world: World, network: nn.Module | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.world, self.network, self.device = world, network, torch.device(device)
        self.redrawn = dict.fromkeys(STREAMS, 0)  # how often each stream was drawn anew
        self._row_shown: tuple[int, float] | None = None  # class and tie
        self.kind = choice(
            "Class",
            [(name, label) for label, name in enumerate(CLASSES)],
            "What the scene shows; each two that follow each other are look-alikes",
        )
        self.number = slider(
            "Scene number", 0, _SCENES - 1, 0, "Which scene of this class, as the world has them"
        )
        self.place = choice(
            "Backdrop",
            [("as the tie draws it", ""), *((name, name) for name in NAMES)],
            "Where the scene is set: drawn with the tie, or a place of your choice",
        )
        self.tie = slider(
            "Tie between backdrop and class",
            0.0,
            1.0,
            float(world.tie),
            "Probability that a scene is set in its class's home whatever chance says",
            0.05,
            readout_format=".2f",
            layout=ipywidgets.Layout(width="480px"),
        )
        self.another = {s: button(f"Another {s}", f"Draw anew only: {_TELLS[s]}") for s in STREAMS}
        self.as_drawn = button("As drawn", "Take back every new draw and show all parts")
        self.parts = [toggle("", False, "") for _ in range(max(map(len, _parts().values())))]
        for stream, again in self.another.items():
            again.on_click(lambda _, stream=stream: self._draw_anew(stream))
        self.as_drawn.on_click(lambda _: self._restore())
        self.kind.observe(lambda _: self._other_class(), "value")
        self.number.observe(lambda _: self._forget(), "value")
        self._name_parts()
        self.scene, self.eight = ipywidgets.HTML(), ipywidgets.HTML()
        for check in self.parts:
            check.layout.width = "auto"
        buttons = ipywidgets.Box(
            [*self.another.values(), self.as_drawn], layout=wrapping("4px 8px")
        )
        hide = ipywidgets.HTML("<span>Hide parts:</span>")
        parts = ipywidgets.Box([hide, *self.parts], layout=wrapping("2px 14px"))
        super().__init__(
            "One scene, one change at a time",
            [self.kind, self.number, self.place, self.tie, buttons, parts],
            [self.scene, self.eight],
            note="Find the one change that makes the network give up the class.",
        )

    @property
    def index(self) -> int:
        """The scene's number in the world, in which classes take turns."""
        return self.kind.value + len(CLASSES) * self.number.value

    @property
    def hidden(self) -> list[str]:
        """The parts that are left out."""
        return [check.description for check in self.parts if check.value]

    def work(self) -> Slices:
        world = World(self.world.seed, SIDE, self.tie.value)
        asked = World(self.world.seed, self.world.size, self.tie.value)
        shown, seen = self._changed(world), self._changed(asked)
        before = asked.scene(self.index, backdrop=self.place.value or None)
        share, former = self._probabilities(seen, before)
        self.scene.value = self._close_look(shown, seen, share, former)
        yield
        if self._row_shown != (self.kind.value, self.tie.value):
            self.eight.value = self._row_of_the_tie()
            self._row_shown = self.kind.value, self.tie.value

    def _changed(self, world: World) -> Scene:
        redraw = {s: self.index + len(CLASSES) * n for s, n in self.redrawn.items() if n}
        options = {"backdrop": self.place.value or None, "hide": self.hidden, "redraw": redraw}
        return world.scene(self.index, label=self.kind.value, **options)

    def _probabilities(self, *scenes: Scene) -> list[dict[str, float] | None]:
        if self.network is None:
            return [None] * len(scenes)
        images = torch.stack([_pixels(scene) for scene in scenes]).to(self.device)
        with frozen(self.network), torch.inference_mode():
            said = self.network(images.float() / 255).softmax(1).tolist()
        return [dict(zip(CLASSES, shares, strict=True)) for shares in said]

    def _close_look(
        self,
        shown: Scene,
        seen: Scene,
        share: Mapping[str, float] | None,
        former: Mapping[str, float] | None,
    ) -> str:
        name, place = CLASSES[self.kind.value], NAMES[shown.backdrop]
        what = f"{name}, {place}"
        if self.hidden:
            what += f", without {', '.join(self.hidden)}"
        cells = [picture(_pixels(shown), f"A scene: {what}.", SIDE, self._story(shown))]
        if share is not None:
            best = max(share, key=share.__getitem__)
            says = f"{best} {share[best]:.0%}"
            cells.append(
                picture(
                    _pixels(seen),
                    f"The same scene as the network sees it: {what}; it says {says}.",
                    SIDE,
                    f"What the network sees: {self.world.size} × {self.world.size} pixels",
                    exact=True,
                )
            )
            bars = probabilities(
                f"The network says <strong>{says}</strong>. It is a {name}: "
                f"{share[name]:.0%}; before your changes {former[name]:.0%}.",
                share,
                mark=name,
            )
            cells.append(f'<div style="flex:1 1 20em;max-width:30em">{bars}</div>')
        return row(*cells)

    def _story(self, shown: Scene) -> str:
        """What was changed, in words."""
        new = [f"{s} of scene {self.number.value + n}" for s, n in self.redrawn.items() if n]
        story = f"{CLASSES[self.kind.value]}, scene {self.number.value}, {NAMES[shown.backdrop]}"
        if new:
            story += f"; {', '.join(new)}"
        if self.hidden:
            story += f"; hidden: {', '.join(self.hidden)}"
        if not shown.mask.any():
            story += "; nothing of the object is left"
        return escape(story)

    def _row_of_the_tie(self) -> str:
        label, tie = self.kind.value, self.tie.value
        world = World(self.world.seed, _ROW_SIDE, tie)
        home, superclass = HOME[SUPERCLASS_OF[label]], SUPERCLASSES[SUPERCLASS_OF[label]]
        scenes = [world.scene(label + len(CLASSES) * number) for number in range(_ROW)]
        at_home = sum(NAMES[scene.backdrop] == home for scene in scenes)
        cells = []
        for scene in scenes:
            place = NAMES[scene.backdrop]
            caption = f"<strong>{place}</strong>" if place == home else place
            alt = f"{CLASSES[label]} before {place}{', its home' if place == home else ''}"
            cells.append(picture(_pixels(scene), alt, _ROW_SIDE, caption))
        chance = tie + (1 - tie) / len(NAMES)
        said = (
            f"Tie {tie:.2f}: {at_home} of the first {_ROW} scenes of this class are at home "
            f"({superclass}: <strong>{home}</strong>), where {chance:.0%} of all would be. Turn "
            "the tie: the objects stay, the places do not."
        )
        return f'<p style="margin:0 0 6px;line-height:1.5">{said}</p>{row(*cells)}'

    def _draw_anew(self, stream: str) -> None:
        self.redrawn[stream] += 1
        self.update()

    def _restore(self) -> None:
        self._forget()
        for check in self.parts:
            check.value = False
        self.update()

    def _forget(self) -> None:
        self.redrawn = dict.fromkeys(STREAMS, 0)

    def _other_class(self) -> None:
        self._forget()
        self._name_parts()

    def _name_parts(self) -> None:
        """A checkbox for each part of the class; what is left of them is not shown."""
        names = _parts()[CLASSES[self.kind.value]]
        for place, check in enumerate(self.parts):
            check.value = False
            there = place < len(names)
            check.description = names[place] if there else ""
            check.tooltip = f"Leave out: {names[place]}" if there else ""
            check.layout.display = None if there else "none"


@cache
def _parts() -> dict[str, list[str]]:
    """Every part that individuals of each class have, some of them (a load, a crest) not all."""
    found = {}
    for name, plan in PLANS.items():
        bodies = [plan(rng, draw_coat(rng)) for rng in map(np.random.default_rng, range(20))]
        found[name] = list(dict.fromkeys(s.part for body in bodies for s in body.strokes))
    return found


def _pixels(scene: Scene) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(scene.image).permute(2, 0, 1)
