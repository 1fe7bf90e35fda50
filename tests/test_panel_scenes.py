"""The scene panel: one cause changes at a time, and what is said of it is what the network says."""

import asyncio
import re

import numpy as np
import pytest
import torch
from IPython.display import Markdown

from helpers import models
from helpers.budget import PROFILES
from helpers.course import Course
from helpers.scenes.backdrops import HOME, NAMES
from helpers.scenes.bodies import CLASSES, PART_NAMES, PLANS, SUPERCLASS_OF
from helpers.scenes.render import STREAMS
from helpers.scenes.world import World
from helpers.widgets import scenes
from helpers.widgets.scenes import ScenePanel, scene_panel

WORLD = World(seed=5, size=32, tie=0.5)


@pytest.fixture(scope="module")
def network():
    return models.build("slim_resnet10", 18, seed=0).eval()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(scenes, "SIDE", 40)
    monkeypatch.setattr(scenes, "_ROW_SIDE", 24)
    monkeypatch.setattr(scenes, "_ROW", 4)


@pytest.fixture
def panel(network):
    made = ScenePanel(WORLD, network)
    yield made
    made.close()


def words(html):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def alts(html):
    return re.findall('alt="([^"]*)"', html)


def sources(html):
    return re.findall('src="([^"]*)"', html)


@pytest.mark.parametrize("name", CLASSES)
def test_the_parts_offered_are_those_that_scenes_of_the_class_show(name):
    names = scenes._parts()[name]
    label = CLASSES.index(name)
    shown = set()
    for number in range(6):
        scene = WORLD.scene(label + 18 * number)
        shown |= {PART_NAMES[k] for k in np.unique(scene.parts) if k}
    assert shown <= set(names) and len(names) == len(set(names))
    assert len(names) <= 10 and set(PLANS) == set(scenes._parts())


# The builder.


def course(profile, folder):
    cpu = torch.device("cpu")
    return Course(PROFILES[profile], "00_meet_the_scenes", cpu, folder, None, None)


def test_the_builder_takes_the_course_and_the_network(network, tmp_path):
    demo = course("demo", tmp_path)
    panel = scene_panel(demo, network)
    assert panel.world == demo.world("validation") and panel.tie.value == demo.profile.tie
    assert "Ready" in panel.status.value and not list(tmp_path.iterdir())
    panel.close()


def test_photographs_are_answered_with_a_sentence(network, tmp_path):
    answer = scene_panel(course("photos", tmp_path), network)
    assert isinstance(answer, Markdown) and "cannot be drawn again" in answer.data


def test_without_a_network_nothing_is_asked():
    panel = ScenePanel(WORLD)
    assert len(alts(panel.scene.value)) == 1 and "network" not in panel.scene.value
    assert len(alts(panel.eight.value)) == 4
    panel.close()


# Controls.


def says(network, scene):
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return dict(zip(CLASSES, network(image).softmax(1)[0].tolist(), strict=True))


def test_the_bars_are_the_networks(panel, network):
    panel.kind.value, panel.number.value = 4, 3
    index = 4 + 3 * 18
    share = says(network, WORLD.scene(index))
    best = max(share, key=share.get)
    assert f"The network says {best} {share[best]:.0%} ." in words(panel.scene.value)
    for check in panel.parts:
        if check.description in ("wheel", "window"):
            check.value = True
    now = says(network, WORLD.scene(index, hide=["wheel", "window"]))
    told = words(panel.scene.value)
    assert (
        f"It is a pick-up: {now['pick-up']:.0%}; before your changes {share['pick-up']:.0%}" in told
    )
    assert "without" in alts(panel.scene.value)[0] and "wheel" in alts(panel.scene.value)[0]
    assert "hidden:" in told


@pytest.mark.parametrize("stream", STREAMS)
def test_each_button_draws_its_own_stream_anew(panel, network, stream):
    panel.number.value = 2
    before = panel.scene.value
    panel.another[stream].click()
    assert panel.redrawn == dict.fromkeys(STREAMS, 0) | {stream: 1}
    assert sources(panel.scene.value)[0] != sources(before)[0]
    assert f"{stream} of scene 3" in words(panel.scene.value)
    scene = WORLD.scene(36, redraw={stream: 54}, label=0)
    best, share = max(says(network, scene).items(), key=lambda item: item[1])
    assert f"The network says {best} {share:.0%} ." in words(panel.scene.value)
    panel.as_drawn.click()
    assert panel.scene.value == before


def test_a_chosen_backdrop_shows(panel):
    for name in NAMES[::4]:
        panel.place.value = name
        assert f", {name}." in alts(panel.scene.value)[0]
    panel.place.value = ""
    assert f", {NAMES[WORLD.scene(0).backdrop]}." in alts(panel.scene.value)[0]


@pytest.mark.parametrize("tie", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("label", [1, 17])
def test_the_row_turns_with_the_tie(panel, tie, label):
    panel.kind.value, panel.tie.value = label, tie
    home = HOME[SUPERCLASS_OF[label]]
    places = [NAMES[World(5, 32, tie).scene(label + 18 * k).backdrop] for k in range(4)]
    at_home = sum(place == home for place in places)
    assert at_home == 4 or tie < 1
    told = panel.eight.value
    assert f"Tie {tie:.2f}: {at_home} of the first 4 scenes" in words(told)
    assert f"where {tie + (1 - tie) / 12:.0%} of all would be" in words(told)
    assert [place in alt for place, alt in zip(places, alts(told), strict=True)] == [True] * 4
    assert sum("its home" in alt for alt in alts(told)) == at_home


def test_another_class_has_its_own_parts_and_starts_as_drawn(panel):
    panel.parts[0].value = True
    panel.another["pose"].click()
    assert panel.hidden
    panel.kind.value = CLASSES.index("saxophone")
    shown = [check for check in panel.parts if check.layout.display != "none"]
    assert {c.description for c in shown} == {"bell", "crook", "key", "mouthpiece", "tube"}
    assert not panel.hidden and not any(panel.redrawn.values())
    assert all(check.tooltip for check in shown)


def test_everything_hidden_is_said(panel):
    for check in panel.parts:
        check.value = check.layout.display != "none"
    assert "nothing of the object is left" in words(panel.scene.value)
    assert "Ready" in panel.status.value


def test_every_control_says_what_it_is(panel):
    controls = [panel.kind, panel.number, panel.place, panel.tie, *panel.another.values()]
    assert all(control.description and control.tooltip for control in controls)


# What is left behind.


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_as_it_was(training):
    network = models.build("slim_resnet10", 18, seed=1).train(training)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    next(network.parameters()).requires_grad_(False)
    panel = ScenePanel(WORLD, network)
    panel.number.value = 3
    panel.close()
    assert all(module.training == training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_a_network_of_other_classes_is_a_sentence():
    panel = ScenePanel(WORLD, models.build("slim_resnet10", 3, seed=0))
    assert "alert" in panel.status.value
    panel.close()


class Followed(ScenePanel):
    """Counts the work that was begun, finished and dropped."""

    def work(self):
        log = self.__dict__.setdefault("followed", [])
        log.append("begun")
        try:
            yield from super().work()
            log.append("finished")
        finally:
            log.append("closed")


def test_a_second_movement_drops_the_first(network):
    async def moves():
        panel = Followed(WORLD, network)
        assert panel.followed == ["begun"] and panel.scene.value and not panel.eight.value
        panel.number.value = 1
        assert panel.followed == ["begun", "closed"]
        panel.number.value = 2  # within the pause: the work for 1 never begins
        while panel._latest.running:
            await asyncio.sleep(0.01)
        assert panel.followed == ["begun", "closed", "begun", "finished", "closed"]
        assert "scene 2" in words(panel.scene.value) and "Ready" in panel.status.value
        panel.close()

    asyncio.run(moves())
