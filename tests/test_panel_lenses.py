"""The capstone's panel: four maps of one image, the slow one in slices, and what they say."""

import asyncio
import re
from types import SimpleNamespace

import pytest
import torch
from IPython.display import Markdown
from test_backtracking_study import KINDS, network, toys

from helpers import crisp_masks, saliency
from helpers import four_lenses as fl
from helpers import four_lenses_study as lenses
from helpers.four_lenses_study import UNTRAINED, Network
from helpers.widgets import lenses as panels
from helpers.widgets.lenses import LensPanel, lens_panel

CPU = torch.device("cpu")
FIRST, SECOND = Network("original", 0), Network("original", 1)
OTHER = Network("mixed_rand", 0)
TEST = toys(12, 2)
SHORT = crisp_masks.Schedule(
    smooth=crisp_masks.Phase(4, 0.01, 0.01, 0.0), crisp=crisp_masks.Phase(3, 0.01, 0.01, 0.0)
)


class Toy(lenses.Study):
    """As much of a study as a panel looks at."""

    def __init__(self, models) -> None:
        vars(self).update(
            models=models,
            networks=(FIRST, SECOND, OTHER),
            images=TEST.examples(2),
            four=SimpleNamespace(test={"original": TEST}, device=CPU, class_titles=KINDS),
            budget=SimpleNamespace(schedule="short", cells=4),
        )


@pytest.fixture
def study(monkeypatch):
    """What a panel asks of a study: networks with paintings, of which none has masks yet."""
    monkeypatch.setitem(crisp_masks.SCHEDULES, "short", SHORT)
    paintings = torch.randint(0, 256, (4, 3, 16, 16)).byte()
    ready = {n: (network(k), paintings) for k, n in enumerate((FIRST, SECOND, OTHER))}

    def recall(_, of):
        if of not in ready:
            raise LookupError("the store has no such network")
        return ready[of]

    def nothing(*_):
        raise LookupError("the store has no such masks")

    monkeypatch.setattr(lenses, "_ready", recall)
    monkeypatch.setattr(lenses, "_kept", nothing)
    return Toy([model for model, _ in ready.values()])


@pytest.fixture
def panel(study):
    made = lens_panel(study)
    yield made
    made.close()


def words(html) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.value)).strip()


def shown(panel) -> list[str]:
    return [html.value for html in (*panel.maps.values(), panel.beside, panel.alike, panel.said)]


def looked(study, place, of=FIRST, target=None):
    """One image through the lenses, and its mask, by the package's own functions."""
    found = lenses.one(study, of, TEST.images[place], target)
    targets = torch.tensor([found.target])
    model = study.models[study.networks.index(of)]
    masks = crisp_masks.crisp_masks(model, TEST[place].to_float(), targets, SHORT)
    return found, {**found.maps, fl.MASK: fl.removed(masks.crisp)[0]}


def places(kind: str) -> list[int]:
    return (TEST.labels == KINDS.index(kind)).nonzero()[:, 0].tolist()


def test_shares_and_correlations_are_the_packages_own(panel, study):
    _, maps = looked(study, places("ant")[0])
    truth = TEST.masks[places("ant")[0]]
    for lens in fl.LENSES:
        share = float(saliency.energy_inside(maps[lens][None], truth[None])[0])
        assert words(panel.maps[lens]) == f"{lens} {share:.0%} on the object"
    rows = re.findall(r"<tr>(.*?)</tr>", panel.alike.value)[1:]
    centre = saliency.centre_gaussian(1, 16, 16)
    for i, lens in enumerate(fl.LENSES):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[i])
        assert cells[:i] == [""] * i and len(cells) == 4
        others = [*(maps[b][None] for b in fl.LENSES[i + 1 :]), centre]
        for cell, other in zip(cells[i:], others, strict=True):
            value = float(fl.agreement(maps[lens][None].float(), other.float(), 4)[0])
            expected = "none" if value != value else f"{value:.2f}".replace("-", "−")
            assert cell == expected


def test_every_control_changes_the_maps(panel):
    for control, value in (
        (panel.pictures, 1),
        (panel.kind, "cat"),
        (panel.network, SECOND),
        (panel.network, OTHER),
        (panel.asked, next(k for _, k in panel.asked.options[2:])),
    ):
        before = shown(panel)
        control.value = value
        after = shown(panel)
        assert after[2] != before[2] or after[3] != before[3], control.description
        assert "Ready" in panel.status.value
    assert control.description and all(
        c.tooltip and c.description for c in (panel.kind, panel.network, panel.asked)
    )


def test_the_class_asked_about_is_forgotten_with_the_image_and_kept_with_the_network(panel, study):
    names = [KINDS[k] for _, k in panel.asked.options[1:]]
    found = lenses.one(study, FIRST, TEST.images[places("ant")[0]])
    assert names == list(found.said) and panel.asked.options[0][1] is None
    panel.asked.value = KINDS.index(names[2])
    assert f"painting of {names[2]}" in words(panel.beside)
    panel.network.value = OTHER
    assert panel.asked.value == KINDS.index(names[2])
    assert f"painting of {names[2]}" in words(panel.beside)
    panel.pictures.value = 1
    assert panel.asked.value is None


def test_a_finished_mask_is_not_made_again(panel, monkeypatch):
    done = []
    true = fl.mask_slices
    monkeypatch.setattr(fl, "mask_slices", lambda *a, **k: done.append(1) or true(*a, **k))
    panel.pictures.value = 1
    mask = panel.maps[fl.MASK].value
    panel.pictures.value = 0
    panel.pictures.value = 1
    assert len(done) == 1 and panel.maps[fl.MASK].value == mask
    panel.asked.value = panel.asked.options[1][1]  # the class it names, by its name
    assert len(done) == 1


def test_masks_of_the_study_are_shown_as_they_are(study, monkeypatch):
    kept = torch.zeros(len(study.images), 16, 16)
    row = int((study.images.images == TEST.images[places("bee")[1]]).flatten(1).all(1).nonzero())
    kept[row] = TEST.masks[places("bee")[1]].float()
    seen = SimpleNamespace(maps={fl.MASK: kept, fl.PATCHES: kept})
    monkeypatch.setattr(lenses, "_kept", lambda *_: seen)
    monkeypatch.setattr(fl, "mask_slices", lambda *a, **k: pytest.fail("it is there already"))
    panel = lens_panel(study)
    panel.kind.value = "bee"
    panel.pictures.value = 1
    assert words(panel.maps[fl.MASK]) == f"{fl.MASK} 100% on the object"
    panel.close()


def test_a_map_of_nothing_says_so(panel):
    model = panel.study.models[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    panel.pictures.value = 1
    assert words(panel.maps[fl.PATHS]) == f"{fl.PATHS} nothing is marked"
    assert "none" in words(panel.alike) and "nan" not in words(panel.alike)


def test_a_network_that_was_not_looked_through_gets_a_sentence(panel):
    panel.network.value = UNTRAINED
    assert "untrained has not been looked through yet" in panel.status.value
    panel.network.value = SECOND
    assert "Ready" in panel.status.value


def test_without_any_results_there_is_a_sentence_instead(study, monkeypatch):
    def nothing(*_):
        raise LookupError("the store is empty")

    monkeypatch.setattr(lenses, "_ready", nothing)
    said = lens_panel(study)
    assert isinstance(said, Markdown) and "study.run()" in said.data


def test_networks_are_told_apart_by_training_set_and_seed(panel):
    assert list(panel.network.options) == [
        "Original, seed 0",
        "Original, seed 1",
        "Mixed-Rand",
        "untrained",
    ]


def test_pictures_say_what_they_show(panel):
    for lens, html in panel.maps.items():
        (alt,) = re.findall(r'<img alt="([^"]*)"', html.value)
        assert lens in alt and "ant" in alt and "% on the object" in alt
    assert len(re.findall(r'<img alt="[^"]{20,}"', panel.beside.value)) == 2


def test_networks_come_back_as_they_were(study):
    for model in study.models:
        model.train()
    threads = torch.get_num_threads()
    panel, other = LensPanel(study), LensPanel(study)
    panel.network.value = OTHER
    assert other.network.value == FIRST
    panel.close()
    other.pictures.value = 1
    other.close()
    for model in study.models:
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        assert not any(getattr(m, name) for m in model.modules() for name in hooks)
    assert torch.get_num_threads() == threads


def test_a_second_movement_drops_the_mask_that_is_being_made(study, monkeypatch):
    begun, closed = [], []
    true = fl.mask_slices

    def watched(model, images, targets, *rest, **how):
        begun.append(images)
        try:
            yield from true(model, images, targets, *rest, **how)
        except GeneratorExit:
            closed.append(images)
            raise

    monkeypatch.setattr(fl, "mask_slices", watched)
    monkeypatch.setattr(panels, "_DRAWN", 0)
    steps = []

    async def move():
        panel = lens_panel(study)
        while len(begun) < 1:
            await asyncio.sleep(0)
        panel.pictures.value = 1
        while panel._latest.running:
            steps.append(words(panel.maps[fl.MASK]))
            await asyncio.sleep(0)
        assert "Ready" in panel.status.value
        panel.network.value = OTHER
        while len(begun) < 3:
            await asyncio.sleep(0)
        panel.stop()
        assert "Stopped" in panel.status.value
        panel.close()

    asyncio.run(move())
    first, second = (TEST[places("ant")[k]].to_float() for k in (0, 1))
    assert [torch.equal(a, b) for a, b in zip(begun, (first, second, second), strict=True)]
    assert torch.equal(closed[0], first) and torch.equal(closed[1], second)
    assert len(closed) == 2
    assert any("waits for its turn" in step for step in steps)
    assert any("43% made" in step for step in steps)  # 3 of 7
