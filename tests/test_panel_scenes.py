"""The scene panel: one cause changes at a time, and what is said of it is what the network says."""

import asyncio
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.display import Markdown

from helpers import models
from helpers.budget import PROFILES
from helpers.course import Course
from helpers.scenes import render as renderer
from helpers.scenes.backdrops import HOME, NAMES
from helpers.scenes.bodies import CLASSES, PLANS, SUPERCLASS_OF
from helpers.scenes.world import World
from helpers.widgets import scenes
from helpers.widgets.scenes import STREAMS, ScenePanel, redrawn, scene_panel

WORLD = World(seed=5, size=32, tie=0.5)
EXACT = settings(max_examples=25, deadline=None)
INDEX = st.integers(0, 500)


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


def assert_same(one, other):
    for name in ("image", "mask", "parts"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.label, one.backdrop, one.view) == (other.label, other.backdrop, other.view)


# Four streams.


@EXACT
@given(INDEX)
def test_streams_of_one_scene_are_that_scene(index):
    numbers = dict.fromkeys(STREAMS, index)
    drawn = redrawn(WORLD, numbers, label=index % 18, hide=["head"])
    assert_same(drawn, WORLD.scene(index, hide=["head"]))


@EXACT
@given(INDEX, INDEX)
def test_another_light_moves_nothing(index, other):
    own = WORLD.scene(index)
    numbers = dict.fromkeys(STREAMS, index) | {"light": other}
    drawn = redrawn(WORLD, numbers, label=own.label)
    assert np.array_equal(drawn.mask, own.mask) and np.array_equal(drawn.parts, own.parts)
    assert drawn.backdrop == own.backdrop
    assert np.array_equal(drawn.image, own.image) == (index == other)


@EXACT
@given(st.tuples(INDEX, INDEX, INDEX, INDEX))
def test_each_stream_decides_its_own(indices):
    numbers = dict(zip(STREAMS, indices, strict=True))
    drawn = redrawn(WORLD, numbers, label=0)
    assert drawn.backdrop == WORLD.scene(numbers["backdrop"], label=0).backdrop
    assert drawn.view == WORLD.scene(numbers["coat"], label=0).view  # which way it faces


def test_pose_and_coat_change_the_object_only_by_themselves():
    own = WORLD.scene(0, backdrop="sky")
    for stream in ("pose", "coat"):
        numbers = dict.fromkeys(STREAMS, 0) | {stream: 18}
        drawn = redrawn(WORLD, numbers, label=0, backdrop="sky")
        assert not np.array_equal(drawn.parts, own.parts), stream
        there = ~(drawn.mask | own.mask)
        there[:, :] &= np.roll(there, 3, 0) & np.roll(there, -3, 0)  # away from shadows and blur
        difference = np.abs(drawn.image[there].astype(int) - own.image[there])
        assert np.median(difference) <= 2, stream  # sky has no ground and no shadow far away


def test_the_renderer_is_as_before_also_after_an_error():
    before = renderer._streams
    with pytest.raises(ValueError, match="no part wheels"):
        redrawn(WORLD, dict.fromkeys(STREAMS, 0), label=0, hide=["wheels"])
    assert renderer._streams is before


@pytest.mark.parametrize("name", CLASSES)
def test_the_parts_offered_are_those_that_scenes_of_the_class_show(name):
    names = scenes._parts()[name]
    label = CLASSES.index(name)
    shown = set()
    for number in range(6):
        scene = WORLD.scene(label + 18 * number)
        shown |= {renderer.PART_NAMES[k] for k in np.unique(scene.parts) if k}
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
    scene = redrawn(WORLD, dict.fromkeys(STREAMS, 36) | {stream: 54}, label=0)
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
