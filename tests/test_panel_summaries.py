"""The panels of notebook 02: what they show is what the package found, and what it fits."""

import asyncio
import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import Markdown

from helpers import crisp_masks, models
from helpers import visual_summaries as vs
from helpers.budget import PROFILES
from helpers.crisp_masks import Phase, Schedule
from helpers.imageset import ImageSet
from helpers.store import Named
from helpers.summary_study import Explained, Network, Study
from helpers.widgets import summaries
from helpers.widgets.summaries import (
    around,
    mask_panel,
    member_html,
    outlined,
    shares_of,
    shares_within,
    summary_panel,
    tinted,
)

SIZE, KINDS = 32, ("robin", "<eagle>")
PARTS = ("background", "head", "wing")
SHORT = Schedule(smooth=Phase(6, 0.01, 1e-4, 0.0), crisp=Phase(10, 0.01, 1.0, 2.0))


def pictures(n: int, label: int, seed: int = 0) -> ImageSet:
    """Noise, in which the upper left quarter is a head and the upper right one a wing."""
    drawn = torch.Generator().manual_seed(seed + label)
    images = torch.randint(0, 256, (n, 3, SIZE, SIZE), generator=drawn, dtype=torch.uint8)
    parts = torch.zeros(n, SIZE, SIZE, dtype=torch.uint8)
    parts[:, :16, :16], parts[:, :16, 16:] = 1, 2
    return ImageSet(images, torch.full((n,), label), KINDS, parts=parts, part_names=PARTS)


def summary(images: list[int], box: list[int]) -> vs.Summary:
    n = len(images)
    return vs.Summary(
        torch.tensor(images), torch.tensor([box] * n), torch.ones(n).long(), torch.ones(n), 0.5
    )


def explained(network: Network, images: ImageSet, some: list[vs.Summary], masks) -> Explained:
    n, outcome = len(images), "found" if some else "no match"
    regions = torch.zeros(n, SIZE, SIZE, dtype=torch.int64)
    regions[:, 2:14, 2:20] = 1
    found = vs.Summaries(tuple(some), regions, outcome, vs.Tally(parts=7, summaries=len(some)))
    kind = images.class_names[int(images.labels[0])]
    return Explained(network, kind, images, masks, found)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Two networks, of which one was stopped early, and two classes; the second's third image has
    other regions than a summary needs."""
    monkey = pytest.MonkeyPatch()
    monkey.setitem(crisp_masks.SCHEDULES, "short", SHORT)
    nets = [
        Network(title, models.build("slim_vgg6", 2, seed=i).eval(), Named(title), early=early)
        for i, (title, early) in enumerate((("VGG, 2 epochs", True), ("VGG", False)))
    ]
    kinds = {"robin": pictures(3, 0), "<eagle>": pictures(2, 1)}
    budget = replace(PROFILES["demo"].summaries, classes=KINDS, schedule="short")
    study = Study(
        budget, tmp_path_factory.mktemp("s"), torch.device("cpu"), kinds["robin"], tuple(nets),
        {}, {}, kinds, 2, None, {},
    )  # fmt: skip
    every = {}
    for network in nets:
        for kind in KINDS[: 1 if network.early else 2]:
            images = kinds[kind]
            fitted = crisp_masks.crisp_masks(
                models.folded(network.model), images.to_float(), images.labels, SHORT,
                precision=study.precision,
            )  # fmt: skip
            some = [summary([2, 0], [2, 2, 10, 12]), summary([1, 2], [4, 4, 20, 14])]
            some = some if kind == "robin" else []
            every[network.title, kind] = explained(network, images, some, vars(fitted))
    yield study, every
    monkey.undo()


@pytest.fixture
def browser(room):
    made = summary_panel(room[1])
    yield made
    made.close()


@pytest.fixture
def refining(room):
    made = mask_panel(*room)
    yield made
    made.close()


def words(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))).replace("\xa0", " ")


def members(panel, row: int) -> list[str]:
    return [item.description for item in panel.rows.children[row]._members.children[1:]]


# ---- the summaries of a class


def test_it_opens_with_a_trained_network_and_the_first_member_whole(browser):
    assert (browser.network.value, browser.kind.value) == ("VGG", "robin")
    assert [members(browser, r) for r in (0, 1)] == [["no. 3", "no. 1"], ["no. 2", "no. 3"]]
    assert "VGG, robin: summary 1 Image 3" in words(browser.detail.value)
    about = words(browser.rows.children[0]._about.value)
    assert "Summary 1 head (100 %) 2 images" in about
    assert browser.detail.value.count("<img alt=") == 3


def test_a_member_is_shown_whole_and_no_other_is_marked(browser):
    second = browser.rows.children[1]._members
    second.children[2].click()
    assert "summary 2 Image 3" in words(browser.detail.value)
    assert [row._members.value for row in browser.rows.children] == [-1, 1]
    browser.rows.children[0]._members.children[2].click()
    assert "summary 1 Image 1" in words(browser.detail.value)
    assert [row._members.value for row in browser.rows.children] == [1, -1]


def test_numbers_of_a_member_are_the_stored_ones(room, browser):
    one = room[1]["VGG", "robin"]
    before, after = (float(one.masks[k][2]) for k in ("before", "after_crisp"))
    removed = 1 - one.masks["crisp"][2]
    said = words(browser.detail.value)
    assert f"{removed.mean():.0%} of the picture" in said
    assert f"robin: {100 * before:.0f} % before, {100 * after:.0f} % after" in said
    assert "In the box: head 100%" in said  # 2..10 x 2..12 lies in the upper left quarter
    heads, wings = removed[:16, :16].mean(), removed[:16, 16:].mean()
    assert f"head {heads:.0%}" in said and f"wing {wings:.0%}" in said


def test_other_networks_and_classes(browser):
    browser.kind.value = "<eagle>"
    assert not browser.rows.children
    assert words(browser.detail.value).strip() == (
        "No summary: none of the 7 parts matches a part of another image."
    )
    browser.network.value = "VGG, 2 epochs"
    assert "explains only robin" in browser.status.value and "alert" in browser.status.value
    assert not browser.rows.children and not browser.detail.value
    browser.kind.value = "robin"
    assert len(browser.rows.children) == 2 and "Ready" in browser.status.value
    assert "VGG, 2 epochs, robin: summary 1" in words(browser.detail.value)


def test_rows_are_used_again(browser):
    rows = browser.rows.children
    browser.network.value = "VGG, 2 epochs"
    assert browser.rows.children == rows and members(browser, 1) == ["no. 2", "no. 3"]
    assert [row._members.value for row in rows] == [0, -1]


def test_photographs_have_no_parts(room):
    one = room[1]["VGG", "robin"]
    images = replace(one.images, parts=None, part_names=())
    html = member_html(replace(one, images=images), 0, 0)
    assert html.count("<img alt=") == 2 and "nobody knows" in html
    panel = summary_panel({("VGG", "robin"): replace(one, images=images)})
    assert "Ready" in panel.status.value
    assert words(panel.rows.children[0]._about.value).strip() == "Summary 1 2 images"
    panel.close()


def test_a_movement_drops_the_rows_before_it(room):
    async def seminar():
        panel = summary_panel(room[1])
        panel.network.value = "VGG, 2 epochs"
        panel.kind.value = "<eagle>"
        panel.network.value = "VGG"
        while panel._latest.running:
            await asyncio.sleep(0.01)
        assert "No summary" in panel.detail.value and not panel.rows.children
        panel.close()

    asyncio.run(seminar())


@given(st.data())
def test_a_crop_is_the_square_around_its_box(data):
    h, w = data.draw(st.integers(4, 20)), data.draw(st.integers(4, 20))
    x0, y0 = data.draw(st.integers(0, w - 1)), data.draw(st.integers(0, h - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, w)), data.draw(st.integers(y0 + 1, h))
    where = torch.arange(h * w, dtype=torch.int64).view(1, h, w)
    image = torch.cat([where // 256, where % 256, where * 0]).to(torch.uint8)
    cut = around(image, [x0, y0, x1, y1])
    side = cut.shape[1]
    assert cut.shape == (3, side, side) and side == min(max(x1 - x0, y1 - y0), h, w)
    seen = {
        (256 * int(a) + int(b)) for a, b in zip(cut[0].flatten(), cut[1].flatten(), strict=True)
    }
    if max(x1 - x0, y1 - y0) <= min(h, w):  # then all of the box is in it
        assert {y * w + x for y in range(y0, y1) for x in range(x0, x1)} <= seen


def test_shares_by_hand():
    parts = torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8)
    removed = torch.tensor([[0.9, 0.5], [1.0, 0.0]])
    assert shares_of(parts, removed) == {1: 0.5, 2: 0.5}
    assert list(shares_within(parts).items()) == [(2, 0.5), (0, 0.25), (1, 0.25)]


def test_parts_have_their_colours_and_the_rest_is_grey():
    image, parts = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.uint8)
    parts[0, 1] = 3
    shown = tinted(image, parts, {3: "blue"})  # #0072B2, three quarters of it
    assert shown[:, 0, 1].tolist() == [0, round(0.75 * 0x72), round(0.75 * 0xB2)]
    assert shown[:, 1, 1].tolist() == [128] * 3


def test_a_region_is_outlined_and_a_box_framed():
    image = torch.full((3, 60, 60), 100, dtype=torch.uint8)
    region = torch.zeros(60, 60, dtype=torch.bool)
    region[10:50, 10:50] = True
    shown = outlined(image, region, torch.tensor([20, 20, 40, 40]))
    scale = shown.shape[1] // 60
    assert scale > 1
    assert shown[:, 10 * scale - 1, 30 * scale].tolist() == [255] * 3  # just outside
    assert shown[:, 10 * scale, 30 * scale].tolist() == [100] * 3  # just inside
    assert shown[:, 20 * scale, 30 * scale].tolist() == [0xE6, 0x9F, 0x00]
    everywhere = outlined(image, torch.ones_like(region), torch.tensor([0, 0, 60, 60]))
    assert not (everywhere == 255).all(0).any()  # nothing lies outside


# ---- one mask


def shown_terms(panel) -> tuple[float, list[float]]:
    said = words(panel.terms.value)
    loss = float(re.search(r"Loss ([\d.]+)", said)[1])
    return loss, [float(x) for x in re.findall(r" (\d+\.\d{4})(?= )", said.split("mask.")[1])]


def test_with_the_studys_weights_it_ends_at_the_stored_mask(room, refining, monkeypatch):
    masks = []
    original = crisp_masks.refining

    def watched(*given, **how):
        for mask, loss in original(*given, **how):
            masks.append(mask.clone())
            yield mask, loss

    monkeypatch.setattr(summaries.crisp_masks, "refining", watched)
    refining.image.value = 3
    stored = room[1]["VGG", "robin"].masks
    assert len(masks) == 10
    assert torch.allclose(masks[-1][0], stored["crisp"][2], atol=1e-4)
    assert "step 10 of 10" in words(refining.terms.value)
    area = (1 - stored["crisp"][2]).mean()
    assert f"yellow, {area:.0%}, is blurred away" in words(refining.pictures.value)
    assert f"robin {stored['after_crisp'][2]:.0%}." in words(refining.pictures.value)


def test_the_terms_are_equation_2(refining):
    loss, terms = shown_terms(refining)
    assert len(terms) == 4 and loss == pytest.approx(sum(terms), abs=2e-4)
    refining.l3.value = 0
    refining.l2.value = 0
    assert shown_terms(refining)[1][2:] == [0, 0]


@pytest.mark.parametrize("name, value", [("l1", 5), ("l2", 20), ("l3", 0)])
def test_each_weight_changes_the_mask(refining, name, value):
    before = refining.pictures.value
    getattr(refining, name).value = value
    assert refining.pictures.value != before and "Ready" in refining.status.value


def test_a_dear_mask_is_a_small_one(refining):
    def area():
        return int(re.search(r"yellow, (\d+)%", words(refining.pictures.value))[1])

    refining.l1.value = 0
    free = area()
    refining.l1.value = 20
    assert area() < free


def test_the_image_stays_among_its_class(refining):
    assert refining.image.max == 3 and refining.network.options == ("VGG",)
    refining.image.value = 3
    refining.kind.value = "<eagle>"
    assert refining.image.max == refining.image.value == 2
    assert "<eagle>, image 2" in words(refining.pictures.value)
    assert "<eagle>" not in refining.pictures.value + refining.terms.value


def test_sliders_begin_with_nothing_and_the_studys_weights(refining):
    for control, weight in ((refining.l1, 0.01), (refining.l2, 1), (refining.l3, 2)):
        values = [value for _, value in control.options]
        assert values[0] == 0 and values == sorted(values) and control.value == weight
        assert control.tooltip and control.description


def test_a_movement_drops_the_fit_and_leaves_the_network_alone(room, monkeypatch):
    closed = []
    original = crisp_masks.refining

    def watched(*given, **how):
        try:
            yield from original(*given, **how)
        finally:
            closed.append(True)

    monkeypatch.setattr(summaries.crisp_masks, "refining", watched)
    monkeypatch.setitem(
        crisp_masks.SCHEDULES, "short", replace(SHORT, crisp=replace(SHORT.crisp, iterations=900))
    )

    async def seminar():
        panel = mask_panel(*room)
        while "step 5 of" not in panel.terms.value:
            await asyncio.sleep(0.01)
        assert not closed
        panel.l1.value = 1
        assert len(closed) == 1
        await asyncio.sleep(0.2)
        panel.stop()
        assert len(closed) == 2 and "Stopped" in panel.status.value
        panel.close()

    asyncio.run(seminar())
    for network in room[0].networks:
        assert not network.model.training
        assert all(p.requires_grad and p.grad is None for p in network.model.parameters())
        for module in network.model.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks


def test_where_there_is_nothing_to_show_there_is_a_sentence(room, monkeypatch):
    assert isinstance(summary_panel({}), Markdown)
    assert isinstance(mask_panel(room[0], {}), Markdown)
    none = replace(SHORT, crisp=Phase(0, 0.0, 0.0, 0.0))
    monkeypatch.setitem(crisp_masks.SCHEDULES, "short", none)
    assert isinstance(mask_panel(*room), Markdown)
