"""The panel of notebook 01: it paints what the package paints, and stops when it is told."""

import asyncio
import re
from dataclasses import replace
from html import unescape
from itertools import product

import pandas as pd
import pytest
import torch
from IPython.display import Markdown

from helpers import background_removal, models
from helpers import feature_visualization as fv
from helpers.background_removal import Studied, Study, Variant
from helpers.budget import PROFILES
from helpers.imageset import ImageSet
from helpers.store import Result
from helpers.widgets import visualisation
from helpers.widgets.visualisation import Painting, painting_panel, title_of

KINDS = ("cat", "dog", "<duck>")
SIZE = 32
BUDGET = replace(PROFILES["demo"].backgrounds, size=SIZE)
VARIANTS = (Variant("standard"), Variant("black"), Variant("noise", seed=1, robust=True))


def pictures(n: int, seed: int = 0) -> ImageSet:
    drawn = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, SIZE, SIZE), generator=drawn, dtype=torch.uint8)
    labels, masks = torch.arange(n) % len(KINDS), torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    return ImageSet(images, labels, KINDS, masks=masks)


def studied(study: Study, variant: Variant, seed: int) -> Studied:
    """A network with random weights, and where the notebook's climbs began, in whole bytes."""
    weights = models.build(BUDGET.architecture, len(KINDS), seed=seed).state_dict()
    shown = study.shown_to(variant)
    begun = {
        kind: (fv.starts(kind, len(KINDS), shown, seed=variant.seed) * 255).round().byte()
        for kind in fv.STARTS
    }
    result = Result(str(seed), weights, {}, {})
    return Studied(variant, result, {}, {}, begun, pd.DataFrame())


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    train = pictures(12)
    judges = {
        name: (models.build("slim_vgg6", len(KINDS), seed=9 + i).eval(), Result(name, {}, {}, {}))
        for i, name in enumerate(background_removal.JUDGES)
    }
    root, cpu = tmp_path_factory.mktemp("store"), torch.device("cpu")
    study = Study(BUDGET, root, cpu, train, {}, train, judges, None)
    return study, {v: studied(study, v, seed) for seed, v in enumerate(VARIANTS)}


@pytest.fixture
def panel(room):
    made = painting_panel(*room)
    yield made
    made.close()


def looks(panel: Painting) -> list[str]:
    return [html.value for side in panel.sides for html in (side.seen, side.said)]


def words(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)))


def painted(panel: Painting, which: int = 0) -> list[torch.Tensor]:
    """Every frame of one side, as the panel was told to show it."""
    frames, side = [], panel.sides[which]
    original = side.show
    side.show = lambda images, *rest: (frames.append(images.clone()), original(images, *rest))
    panel.paint_button.click()
    side.show = original
    return frames


def test_it_opens_with_both_starts_and_nothing_painted(panel):
    left, said, right, _ = map(words, looks(panel))
    assert "dog , painted by standard, seed 0 Start: grey. Press Paint. Score" in left
    assert "painted by black, seed 0" in right
    assert "Standard judge" in said and "Shuffled-backdrop judge" in said
    assert "Ready" in panel.status.value
    assert (
        'alt="Start: grey. Press Paint. standard, seed 0 paints dog, L2; score' in looks(panel)[0]
    )


def test_every_control_has_a_name_and_a_tooltip(panel):
    controls = [c for s in panel.sides for c in (s.label, s.network, s.begin, s.way)]
    controls += [panel.steps, panel.paint_button]
    assert len({control.description for control in controls}) == len(controls)
    assert all(control.tooltip for control in controls)


@pytest.mark.parametrize("which", [0, 1])
def test_each_choice_changes_its_own_side_only(panel, which):
    own, other = panel.sides[which], panel.sides[1 - which]
    for control, value in (
        (own.label, 2),
        (own.network, VARIANTS[2]),
        (own.begin, "noise"),
        (own.way, own.way.options[3][1]),
    ):
        before, untouched = own.seen.value, other.seen.value
        control.value = value
        assert own.seen.value != before and other.seen.value == untouched
        assert "Press Paint" in own.seen.value
    caption = words(own.seen.value)
    assert "<duck> , painted by noise, robust, seed 1 Start: noise." in caption
    assert "<duck>" not in own.seen.value  # a class's name is never markup


@pytest.mark.parametrize("start", fv.STARTS)
def test_it_paints_what_the_package_paints(room, panel, start):
    study, networks = room
    side, variant = panel.sides[0], VARIANTS[2]
    side.label.value, side.network.value, side.begin.value = 2, variant, start
    panel.steps.value = 5
    for name, known in visualisation.WAYS.items():
        side.way.value = dict(side.way.options)[name]
        climbs = background_removal.climbs(BUDGET, VARIANTS[0])
        model, shown = study.network(networks[variant].network), study.shown_to(variant)
        begun = fv.starts(start, len(KINDS), shown, seed=variant.seed)[2:]
        how = replace(climbs[known].how, steps=5)
        expected = fv.ascend(model, torch.tensor([2]), begun, how, seed=variant.seed)
        frames = painted(panel)
        assert len(frames) == 5 and torch.equal(frames[-1], expected)
        assert not torch.equal(frames[0], frames[-1])
        if start != "grey":
            break  # the ways have been compared


def test_what_is_said_is_said_of_the_picture_that_is_seen(room, panel):
    study, networks = room
    panel.steps.value = 5
    last = painted(panel)[-1]
    seen = (last * 255).round() / 255
    side = panel.sides[0]
    with torch.no_grad():
        score = study.network(networks[VARIANTS[0]].network)(seen)[0, 1].item()
        shares = study.judges["standard"][0](seen).softmax(1)[0]
    assert f"Step 5 of 5. Score {score:.1f}." in words(side.seen.value)
    rows = re.findall(r"([a-z<>]+) (\d+)%", words(side.said.value))
    assert [name for name, _ in rows[:3]] == [KINDS[k] for k in shares.argsort(descending=True)]
    assert dict(rows[:3])["dog"] == f"{shares[1]:.0%}".rstrip("%")


def test_many_steps_give_at_most_some_forty_frames(panel):
    panel.steps.value = 45
    frames = painted(panel)
    assert 20 <= len(frames) <= 40
    assert "Step 45 of 45" in panel.sides[1].seen.value


def test_a_choice_stops_the_climb_and_leaves_nothing_behind(room, monkeypatch):
    closed = []
    original = fv.climbing

    def watched(*given, **how):
        try:
            yield from original(*given, **how)
        finally:
            closed.append(True)

    monkeypatch.setattr(visualisation.fv, "climbing", watched)

    async def seminar():
        panel = painting_panel(*room)
        while panel._latest.running:
            await asyncio.sleep(0.01)
        panel.steps.value = 200
        panel.paint_button.click()
        while "Step" not in panel.sides[1].seen.value:
            await asyncio.sleep(0.01)
        assert not closed and "progress" in panel.status.value
        assert not panel._stop.disabled
        for name, (judge, _) in room[0].judges.items():
            assert not judge.training, name
        models_used = [panel._model(v) for v in VARIANTS[:2]]
        assert all(p.requires_grad for m in models_used for p in m.parameters())
        panel.sides[0].begin.value = "mean"
        while panel._latest.running:
            await asyncio.sleep(0.01)
        assert len(closed) == 2
        assert all("Start:" in side.seen.value for side in panel.sides)
        panel.paint_button.click()
        while "Step" not in panel.sides[1].seen.value:
            await asyncio.sleep(0.01)
        panel.stop()
        left = looks(panel)
        await asyncio.sleep(0.05)
        assert len(closed) == 4 and looks(panel) == left and "Stopped" in panel.status.value
        panel.close()

    asyncio.run(seminar())


def painted_opinion(room) -> str:
    panel = painting_panel(*room)
    panel.sides[0].begin.value = "noise"
    panel.close()
    return panel.sides[0].said.value


def test_what_is_judged_is_whole_bytes():
    seen = visualisation._as_seen(torch.tensor([0.0, 0.1, 0.5, 1.0]).expand(1, 3, 2, 4))
    assert torch.equal(seen[0, 0, 0] * 255, torch.tensor([0.0, 26.0, 128.0, 255.0]))


def test_networks_and_judges_come_back_as_they_were(room):
    study, _ = room
    judge = study.judges["standard"][0].train()
    panel = painting_panel(*room)
    panel.steps.value = 5
    panel.paint_button.click()
    used = [judge, *(panel._model(v) for v in VARIANTS[:2])]
    panel.close()
    assert judge.training and not used[1].training
    said = painted_opinion(room)
    judge.eval()
    assert painted_opinion(room) == said  # a judge judges in eval mode, whatever it came in
    for model in used:
        assert all(p.requires_grad for p in model.parameters())
        for module in model.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks
            assert not module._backward_hooks


def test_two_panels_do_not_know_of_each_other(room, panel):
    before = looks(panel)
    other = painting_panel(*room)
    other.sides[0].label.value = 0
    other.close()
    assert looks(panel) == before


def test_one_network_stands_on_both_sides(room):
    study, networks = room
    alone = painting_panel(study, {VARIANTS[1]: networks[VARIANTS[1]]})
    assert [side.network.value for side in alone.sides] == [VARIANTS[1]] * 2
    alone.close()


def test_without_networks_there_is_a_sentence(room):
    assert isinstance(painting_panel(room[0], {}), Markdown)


def test_networks_are_named_apart():
    made = [
        Variant(*way) for way in product("ab", (0, 1), ("scratch", "pretrained"), (False, True))
    ]
    made.append(Variant("a", masks="grabcut"))
    assert len({title_of(v) for v in made}) == len(made)
    assert title_of(made[-1]) == "a, grabcut masks, seed 0"
    assert title_of(Variant("mixed", 2, "pretrained", True)) == "mixed, pretrained, robust, seed 2"
