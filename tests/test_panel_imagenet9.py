"""The panels of notebook 04: composites, networks and searches as the package's own functions have
them, and the drawing of lines."""

import asyncio
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.display import Markdown

from helpers import backgrounds, imagenet9, models
from helpers import imagenet9_study as in9
from helpers.budget import PROFILES
from helpers.figures import PALETTE
from helpers.imagenet9_study import AUGMENTED, MARKED, PRETRAINED, Network, Studied, Study
from helpers.scenes.world import World
from helpers.store import Named
from helpers.widgets import imagenet9 as panels
from helpers.widgets.imagenet9 import Chooser, background_panel, tie_panel
from helpers.widgets.pieces import curves

CPU = torch.device("cpu")
NETWORKS = [
    Network(),
    Network(seed=1),
    Network(seed=2),
    Network("mixed_rand"),
    Network(AUGMENTED),
    Network(title="VGG"),
    Network(tie=1.0),
    Network(MARKED),
    Network(PRETRAINED, title="ResNet"),
]
NINE = NETWORKS[:-1]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    budget = replace(PROFILES["demo"].imagenet9, foregrounds=27, backgrounds=27)
    tests = {}
    for place, tie in (("", 0.5), ("tie 1", 1.0)):
        images = World(6, 32, tie).images(range(0, 18 * 5, 2))
        images = images.only(images.class_names[::2])
        tests[place] = backgrounds.variants(images, seed=0).sets
    original = tests[""]["original"]
    return Study(
        budget,
        tmp_path_factory.mktemp("store"),
        CPU,
        class_titles=tuple(original.superclass_names[k] for k in original.superclasses),
        tests=tests,
        failures={"": {}, "tie 1": {}},
        train=None,
        plans={n: ("tie 1",) if n.tie else ("",) for n in NETWORKS},
    )


@pytest.fixture(scope="module")
def trained():
    """Networks that disagree, in place of trained ones: random weights on a larger scale."""
    made = {}
    for number, network in enumerate(NINE):
        model = models.build("slim_resnet10", 9, seed=number).eval()
        with torch.no_grad():
            model[-1].fc.weight.mul_(20)
        made[network] = model
    return made


@pytest.fixture
def read(trained, monkeypatch):
    """Which networks were read from the store."""
    asked = []
    monkeypatch.setattr(in9, "model", lambda _, network: asked.append(network) or trained[network])
    return asked


@pytest.fixture(scope="module")
def found(study):
    result = {}
    generator = torch.Generator().manual_seed(0)
    for network in NETWORKS:
        original = study.tests[study.plans[network][0]]["original"]
        said = torch.randint(9, (len(original),), generator=generator)
        said[::2] = original.labels[::2]  # half of them right for certain
        labels = {"original": original.labels}
        result[network] = Studied(network, Named("weights"), labels, {"original": said})
    return result


@pytest.fixture
def panel(study, found, read):
    made = background_panel(study, found)
    yield made
    made.close()


def words(html):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def alts(html):
    return re.findall('alt="([^"]*)"', html)


def shares_of(study, trained, network, one, behind):
    """The literal way: compose, ask, softmax."""
    images, places = in9.adversarial_rows(study)
    shown = backgrounds.compose(images.images[[one]], places.images[[behind]], images.masks[[one]])
    with torch.inference_mode():
        return trained[network](shown.float() / 255).softmax(1)[0]


def cells(html):
    rows = re.findall("<tr>(.*?)</tr>", html)
    return {words(r.split("</th>")[0]).strip(): words(r.split("</td>")[-2]).strip() for r in rows}


# Any object on any background.


def test_every_network_is_asked_about_the_composite(panel, study, trained):
    panel.object.kind.value, panel.background.kind.value = 4, 7
    panel.object.pictures.value, panel.background.pictures.value = 2, 1
    one, behind = panel.object.row, panel.background.row
    images, places = in9.adversarial_rows(study)
    assert (images.labels[one], places.labels[behind]) == (4, 7)
    told = cells(panel.answers.value)
    single = [n for n in NINE if n.on != "original" or n.title or n.tie is not None]
    for network in single:
        share = shares_of(study, trained, network, one, behind)
        called = int(share.argmax())
        expected = f"{share[4]:.0%} ✓"
        if called != 4:
            expected = f"{share[4]:.0%} ✗ {study.class_titles[called]}"
        assert told[panels._title(network)] == expected
    assert set(told) == {
        "Original",
        "Mixed-Rand",
        "Original + Mixed-Rand",
        "VGG",
        "Original, tie 1",
        "Original, large mark",
    }
    assert alts(panel.composite.value) == [
        "The object of carnivore 3 on the background of primate 2."
    ]


def test_seeds_share_a_row(panel, study, trained):
    one, behind = panel.object.row, panel.background.row
    three = torch.stack([shares_of(study, trained, n, one, behind) for n in NINE[:3]])
    row = cells(panel.answers.value)["Original"]
    marks = "".join("✓" if k == 0 else "✗" for k in three.argmax(1).tolist())
    assert row.startswith(f"{three[:, 0].mean():.0%} {marks}")


def test_words_count_the_other_names(panel):
    def line(*called):
        shares = torch.eye(9)[list(called)]
        return panel._line("Original", list(shares), 0)[2]

    assert line(0, 0, 0) == "100% ✓✓✓"
    assert line(0, 1, 1) == "33% ✓✗✗ bird"
    assert line(5, 1, 5) == "0% ✗✗✗ insect + 1"
    assert line(5, 1, 0) == "33% ✗✗✓ insect + 1"
    assert line(1, 2) == "…"  # the third was not asked yet


def test_an_objects_own_background_is_said(panel):
    panel.background.kind.value = panel.object.kind.value
    assert panel.object.row == panel.background.row == 0
    assert "background of dog 1, its own" in words(panel.composite.value)
    panel.background.pictures.value = 1
    assert "its own" not in panel.composite.value


def test_every_choice_changes_what_is_shown(panel):
    for change in (
        lambda: setattr(panel.object.kind, "value", 3),
        lambda: setattr(panel.object.pictures, "value", 2),
        lambda: setattr(panel.background.kind, "value", 8),
        lambda: setattr(panel.background.pictures, "value", 1),
    ):
        before = panel.composite.value, panel.answers.value
        change()
        assert panel.composite.value != before[0] and panel.answers.value != before[1]
        assert "Ready" in panel.status.value


def test_networks_are_read_once(panel, read):
    panel.object.pictures.value = 1
    panel.search.value = True
    assert sorted(map(hash, read)) == sorted(map(hash, NINE))


def test_large_networks_are_not_kept(study, found, read, monkeypatch):
    monkeypatch.setattr(panels, "_KEPT", 10)
    panel = background_panel(study, found)
    panel.object.pictures.value = 1
    assert len(read) == 2 * len(NINE) and not panel._kept
    panel.close()


def test_without_trained_networks_a_sentence(study, found):
    only = {n: s for n, s in found.items() if n.on == PRETRAINED}
    answer = background_panel(study, only)
    assert isinstance(answer, Markdown) and "no training images" in answer.data


# The search.


@pytest.mark.parametrize("network", [Network(), Network("mixed_rand")])
def test_the_search_finds_what_the_exhaustive_one_finds(panel, study, trained, network):
    images, places = in9.adversarial_rows(study)
    inputs = images.images, images.masks, images.labels, places.images
    wrong = imagenet9.every_background(trained[network], *inputs)
    panel.searched.value, panel.search.value = network, True
    for label, number in ((0, 0), (8, 1)):
        panel.object.kind.value = label
        panel.object.pictures.value = number
        one = panel.object.row
        own = int(wrong[one][places.labels == label].sum())
        told = words(panel.found.value)
        if wrong[one].any():
            title = "Original, seed" if network.on == "original" else "Mixed-Rand"
            assert f"{int(wrong[one].sum())} of 27 backgrounds fool {title}" in told
            assert f"{own} of them of its own class" in told
            first = int(wrong[one].nonzero()[0])
            assert f"first is that of {panel.background.name(first)}." in told
            assert len(alts(panel.found.value)) == min(5, int(wrong[one].sum()))
            shares = [shares_of(study, trained, network, one, k) for k in range(27)]
            surest = max(range(27), key=lambda k: shares[k].max() if wrong[one, k] else -1)
            assert panel.background.name(surest) in alts(panel.found.value)[0]
        else:
            assert "None of 27 backgrounds fools" in told and panel.worst.disabled


def test_the_worst_background_is_taken(panel, study, trained):
    panel.search.value = True
    assert not panel.worst.disabled
    panel.worst.click()
    alt = alts(panel.found.value)[0]
    place = panel.background.name()
    assert f"on the background of {place}:" in alt and place in words(panel.composite.value)
    share = shares_of(study, trained, Network(), panel.object.row, panel.background.row)
    assert share.argmax() != 0 and f"{share.max():.0%}" in alt


def test_the_search_ends_with_its_toggle(panel):
    panel.search.value = True
    assert panel.found.value
    panel.search.value = False
    assert not panel.found.value and panel.worst.disabled


def test_another_background_is_not_searched_anew(panel, monkeypatch):
    panel.search.value = True
    asked = []
    own = panel._composites
    monkeypatch.setattr(panel, "_composites", lambda rows: asked.append(list(rows)) or own(rows))
    panel.background.pictures.value = 2
    assert [len(rows) for rows in asked] == [1, min(5, len(panel._searched[1].wrong))]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=8),
    st.integers(0, 2),
)
def test_fooled_is_where_the_highest_output_is_another_class(values, label):
    shares = torch.tensor(values) / 10
    wrong = panels._Searched(shares, label).wrong
    assert sorted(wrong) == torch.nonzero(shares.argmax(1) != label)[:, 0].tolist()
    others = [max(v for k, v in enumerate(values[i]) if k != label) for i in wrong]
    assert others == sorted(others, reverse=True)


# The pictures to choose from.


def test_few_pictures_are_offered_and_any_can_be_taken(study, monkeypatch):
    monkeypatch.setattr(panels, "_OFFERED", 2)
    images = in9.adversarial_rows(study)[1]
    chooser = Chooser("Background of", images, study.class_titles)
    assert [b.description for b in chooser.pictures.children[1:]] == ["1", "2"]
    row = int(torch.nonzero(images.labels == 3)[2])
    chooser.take(row)
    assert chooser.row == row and chooser.name() == "reptile 3"
    assert [b.description for b in chooser.pictures.children[1:]] == ["1", "3"]
    chooser.kind.value = 4
    assert chooser.name() == "carnivore 1"


def test_a_class_with_fewer_pictures(study, found, read):
    places = study.test["only_bg_t"]
    few = places[torch.cat([torch.nonzero(places.labels == k)[: 1 + k % 3, 0] for k in range(9)])]
    panel = background_panel(replace(study, tests={"": study.test | {"only_bg_t": few}}), found)
    panel.background.kind.value = 2
    panel.background.pictures.value = 2
    panel.background.kind.value = 3  # has one only
    assert panel.background.name() == "reptile 1" and "Ready" in panel.status.value
    panel.close()


# What is left behind.


@pytest.mark.parametrize("kept", [10, 5_000_000])
def test_networks_come_back_as_they_were(study, found, read, trained, monkeypatch, kept):
    monkeypatch.setattr(panels, "_KEPT", kept)
    first = trained[Network()].train()
    try:
        panel = background_panel(study, {Network(): found[Network()]})
        panel.search.value = True
        models_used = [first, *panel._kept.values()]
        panel.close()
        assert first.training and all(module.training for module in first.modules())
        assert all(p.requires_grad for p in first.parameters())
        for model in models_used:
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    finally:
        first.eval()


class Followed(panels.BackgroundPanel):
    """Counts the work that was begun, finished and dropped."""

    def work(self):
        log = self.__dict__.setdefault("followed", [])
        log.append("begun")
        try:
            yield from super().work()
            log.append("finished")
        finally:
            log.append("closed")


def test_a_second_movement_drops_the_search(study, read, monkeypatch):
    monkeypatch.setattr(panels, "_BATCH", 1)
    network = Network("mixed_rand")

    async def settled(panel):
        while panel._latest.running:
            await asyncio.sleep(0.005)

    async def moves():
        panel = Followed(study, [network])
        await settled(panel)
        panel.search.value = True
        while "tried" not in panel.found.value:
            await asyncio.sleep(0.005)
        assert panel._latest.running and not panel._stop.disabled
        panel.object.pictures.value = 1
        assert panel.followed[-2:] == ["begun", "closed"]  # dropped at once
        await settled(panel)
        assert panel.followed[-3:] == ["begun", "finished", "closed"]
        assert "about dog 2" in words(panel.found.value)
        assert "tried" not in panel.found.value
        panel.object.pictures.value = 2
        while "about dog 3" not in panel.found.value:
            await asyncio.sleep(0.005)
        panel._stop.click()
        assert "Stopped" in panel.status.value and not panel._latest.running
        panel.close()

    asyncio.run(moves())


# The tie.


@pytest.fixture
def knob():
    names = ("Original", "Mixed-Rand", "Only-BG-T", "BG-gap", "low", "high", "fooled")
    rows = {0.5: (77.6, 62, 22, 7, 2.8, 11.3, 90.6), 1.0: (92.6, 30, 52, 52, 47.6, 56.7, 100)}
    return pd.DataFrame({tie: dict(zip(names, row, strict=True)) for tie, row in rows.items()}).T


def test_the_tie_shows_its_numbers_and_its_world(study, found, knob):
    panel = tie_panel(study, found, knob)
    for tie, network in ((0.5, Network()), (1.0, Network(tie=1.0))):
        panel.tie.value = tie
        told = words(panel.drawn.value)
        assert f"Network and test images of tie {tie:g}" in told
        assert ("78%" in told, "93%" in told) == (tie == 0.5, tie == 1.0)
        gap = {0.5: "7 points (3 to 11)", 1.0: "52 points (48 to 57)"}[tie]
        assert gap in told and f"At {tie:g}: Original" in panel.drawn.value
        assert gap in re.search('aria-label="([^"]*)"', panel.drawn.value)[1]
        images = study.tests[study.plans[network][0]]["original"]
        for label in (0, 6):
            panel.kind.value = label
            shown = panel._ids[label]
            rows = [images.ids.index(name) for name in shown]
            assert (images.labels[rows] == label).all()
            right = int(found[network].right("original")[rows].sum())
            assert f"{right} of {len(shown)} are right" in words(panel.pictures.value)
            assert sum(", which is right" in alt for alt in alts(panel.pictures.value)) == right
            if tie == 1:
                assert all(
                    images.backdrop_names[label] in alt for alt in alts(panel.pictures.value)
                )
    panel.close()


@pytest.mark.parametrize("rows", [None, 1])
def test_a_tie_that_cannot_be_turned_is_a_sentence(study, found, knob, rows):
    answer = tie_panel(study, found, knob if rows is None else knob[:rows]) if rows else None
    answer = answer or tie_panel(study, found, None)
    assert isinstance(answer, Markdown) and "photographs" in answer.data


# Lines.


def parsed(drawing):
    return ET.fromstring(drawing)


def test_lines_stand_where_their_values_are():
    drawing = curves(
        "two <lines>",
        [0, 1, 2],
        {"a": [0, 50, 100], "b": [100, 100, 0]},
        xlabel="x",
        ylabel="%",
        at=1.5,
        width=500,
        height=262,
    )
    svg = parsed(drawing)
    assert svg.get("role") == "img" and svg.get("aria-label") == "two <lines>"
    # one letter of a name: 7 px; left 44, right 500 - 12 - 7; top 22, bottom 262 - 40
    right, middle = 481, (44 + 481) / 2
    lines = [p.get("d") for p in svg.iter("path") if p.get("stroke-width") == "2.5"]
    assert lines == [
        f"M44.0 222.0L{middle:.1f} 122.0L{right:.1f} 22.0",
        f"M44.0 22.0L{middle:.1f} 22.0L{right:.1f} 222.0",
    ]
    colours = [p.get("stroke") for p in svg.iter("path") if p.get("stroke-width") == "2.5"]
    assert colours == list(PALETTE.values())[:2]
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle")]
    assert dots == [(pytest.approx(371.8, abs=0.1), 72.0), (pytest.approx(371.8, abs=0.1), 122.0)]
    texts = [t.text for t in svg.iter("text")]
    assert texts.count("a") == texts.count("b") == texts.count("%") == 1
    assert {"0", "20", "100", "1", "2", "x"} <= set(texts)


def test_a_line_breaks_where_nothing_is_known():
    svg = parsed(
        curves(
            "x",
            [0, 1, 2, 3],
            {"a": [0, math.nan, 1, 1], "b": [math.nan] * 4, "c": [math.nan, 1, math.nan, 0]},
            xlabel="x",
            ylabel="y",
            at=1,
        )
    )
    first, second, third = (p.get("d") for p in svg.iter("path") if p.get("stroke-width") == "2.5")
    assert first.count("M") == 2 and first.count("L") == 1 and first.count("h4") == 1
    assert second == "" and third.count("h4") == 2
    assert len(list(svg.iter("circle"))) == 1  # only c is known there


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=12),
    st.integers(1, 8),
    st.floats(-2, 14),
)
def test_any_lines_can_be_drawn(values, count, at):
    series = {f"line {k}": [v * (k + 1) for v in values] for k in range(count)}
    places = list(range(len(values)))
    svg = parsed(curves("lines", places, series, xlabel="x", ylabel="y", at=at, height=400))
    names = [t for t in svg.iter("text") if t.text.startswith("line")]
    heights = sorted(float(t.get("y")) for t in names)
    assert len(heights) == count
    assert all(b - a >= 14.8 for a, b in zip(heights, heights[1:], strict=False))
    for line in (p for p in svg.iter("path") if p.get("stroke-width") == "2.5"):
        ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.-]+)", line.get("d"))]
        assert all(21.9 <= y <= 360.1 for y in ys) and len(ys) == len(values)
    assert len(list(svg.iter("circle"))) == (count if 0 <= at <= len(values) - 1 else 0)


def test_ends_of_the_axis_can_be_set():
    svg = parsed(curves("x", [0, 1], {"a": [20, 30]}, xlabel="", ylabel="", low=0, high=50))
    labels = {t.text for t in svg.iter("text")}
    assert {"0", "50"} <= labels and "60" not in labels


@pytest.mark.parametrize(
    ("across", "series", "why"),
    [
        ([], {}, "at least one place"),
        ([0, 0], {"a": [1, 2]}, "ascending"),
        ([0, 1], {"a": [1]}, "a has 1 values for 2 places"),
        ([0], {str(k): [0] for k in range(9)}, "9 lines"),
    ],
)
def test_lines_that_cannot_be_drawn(across, series, why):
    with pytest.raises(ValueError, match=why):
        curves("x", across, series, xlabel="x", ylabel="y")
