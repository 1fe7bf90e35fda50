"""The panel of notebook 03: every control does what it says, and nothing is done twice."""

import asyncio
import io
import re
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from test_backtracking_study import KINDS, SIDE, network, study_in, toys
from torch import nn

from helpers import backtracking as bt
from helpers import models, saliency
from helpers.widgets import paths as panels
from helpers.widgets.paths import PathPanel, descend, outlined, path_panel, squares, stops, uploaded

IMAGES = toys(3, 5)


@pytest.fixture
def panel(tmp_path):
    made = path_panel(study_in(tmp_path))
    yield made
    made.close()


def words(html: ipywidgets.HTML) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]*>", " ", html.value))


def shown(panel: PathPanel) -> tuple[str, str, str]:
    return panel.walk.value, panel.map.value, panel.scores.value


def png(width=40, height=30, colour=(200, 30, 30), **how) -> bytes:
    buffer = io.BytesIO()
    Image.new(how.pop("mode", "RGB"), (width, height), colour).save(
        buffer, how.pop("format", "PNG"), **how
    )
    return buffer.getvalue()


def file(content: bytes, name: str = "mine.png") -> tuple[dict, ...]:
    """What an `ipywidgets.FileUpload` has for a value."""
    given = {"name": name, "type": "image/png", "size": len(content)}
    return ({**given, "content": memoryview(content), "last_modified": datetime.now(UTC)},)


def exhausted(slices):
    """A generator's shares and what it returns."""
    shares = []
    while True:
        try:
            shares.append(next(slices))
        except StopIteration as end:
            return shares, end.value


# ---- down, in slices


@pytest.mark.parametrize(
    "rules",
    [
        bt.Rules(),
        bt.Rules(fully_connected="topn", n=2),
        bt.Rules(fully_connected="literal", channel="literal"),
        bt.Rules(channel="positive", average="positive"),
        bt.Rules(pixel="activation"),
    ],
)
@pytest.mark.parametrize("average", [False, True])
def test_slices_arrive_where_one_go_does(rules, average, monkeypatch):
    monkeypatch.setattr(panels, "_SLICE", 0)  # a yield after every piece
    seen = bt.record(network(3, average=average), IMAGES.to_float())
    start = torch.tensor([0, 3, 1])
    shares, paths = exhausted(descend(seen, start, rules))
    once = seen.backtrack(start, rules=rules)
    assert paths.layers.keys() == once.layers.keys()
    for name, nodes in once.layers.items():
        for field in ("image", "index", "sign", "count"):
            assert torch.equal(getattr(paths.layers[name], field), getattr(nodes, field)), name
    assert paths.ended.keys() == once.ended.keys()
    assert all(torch.equal(paths.ended[k], once.ended[k]) for k in paths.ended)
    assert torch.equal(paths.pixels, once.pixels)
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] < 1


def test_many_nodes_go_down_in_pieces():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3000, 5000), nn.ReLU(), nn.Linear(5000, 2))
    step = bt.record(model, torch.rand(1, 3, 25, 40)).steps[2]
    assert step.rule is bt.fully_connected
    image, index = torch.zeros(1000).long(), torch.arange(1000)
    nodes = bt.Nodes((5000,), image, index, torch.ones(1000), torch.ones(1000).double())
    pieces = list(panels.nodes_in_pieces(step, nodes))
    assert len(pieces) > 1 and torch.equal(torch.cat([p.index for p in pieces]), index)
    assert [len(p) for p in panels.nodes_in_pieces(step, nodes[:0])] == [0]


def test_an_operation_without_a_rule_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.cumsum(x.flatten(1), 1)[:, :4]

    seen = bt.record(Odd(), IMAGES.to_float())
    with pytest.raises(bt.Unsupported, match="cumsum"):
        exhausted(descend(seen, torch.tensor([0, 0, 0]), bt.Rules()))


def test_stops_of_a_plain_network_are_its_layers():
    seen = bt.record(network(0), IMAGES.to_float())
    plain = ["9", "7", "5", "3", "2", "0"]  # no ReLU and no flattening: they move nothing
    assert [s.name for s in stops(seen)] == [*(f"network.{k}" for k in plain), "image"]


@pytest.mark.parametrize("architecture", ["slim_resnet10", "slim_googlenet"])
def test_no_path_passes_a_stop_by(architecture):
    model = models.build(architecture, 4, seed=0).eval()
    seen = bt.record(model, toys(1, 2).to_float().repeat(1, 1, 2, 2))
    rules = bt.Rules(channel="positive", average="positive")
    _, paths = exhausted(descend(seen, torch.tensor([1]), rules))
    down = stops(seen)
    before = [seen.names.index(name) for name in paths.layers]
    assert before == sorted(before, reverse=True)
    numbers = [s.number for s in down]
    assert numbers == sorted(numbers, reverse=True) and numbers[-1] == 0
    for step in seen.steps:  # every edge of the graph ends at a stop or between two
        for below in step.below:
            assert not [k for k in numbers if below.number < k < step.number]
    assert len(down) > 4 and down[-1].name == bt.IMAGE


# ---- what is drawn


def test_squares_cover_the_boxes_of_their_positions():
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    places = torch.tensor([[0.0, 4], [1, 0]]).double()
    drawn = squares(grey, places, 1)  # cells of 2 px
    assert drawn.shape == (3, 4, 4)
    assert (drawn[:, 3, 3] == 50).all()  # dimmed
    assert drawn[:, 0, 3].tolist() == [255, 240, 60]  # the most paths: yellow, opaque
    # a quarter of the paths: half as strong, .65 of the way to the colour between
    expected = 50 + 0.65 * (np.array([234.0, 167, 30]) - 50)
    assert drawn[:, 3, 0].tolist() == np.rint(expected).tolist()


def test_squares_have_gaps_where_there_is_room_and_pixels_do_not_vanish():
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    drawn = squares(grey, torch.ones(2, 2).double(), 2)  # cells of 8 px
    assert (drawn[:, 8] == 50).all() and (drawn[:, :, 8] == 50).all()
    yellow = drawn[:, 4, 4].tolist()  # 7 tenths of it
    assert yellow == [round(50 + 0.7 * (c - 50)) for c in (255, 240, 60)]
    assert (drawn[0] == yellow[0]).sum() == 15 * 15
    one = torch.zeros(8, 8).double()
    one[2, 5] = 1
    assert (squares(grey, one, 1)[0] == 255).nonzero().tolist() == [
        [y, x] for y in (1, 2, 3) for x in (4, 5, 6)
    ]
    assert (squares(grey, torch.zeros(1, 1).double(), 1) == 50).all()


def test_lines_run_along_the_inside_of_the_masks():
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    chosen, truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    chosen[0:8, 0:3] = True
    truth[1:7, 4:] = True
    plain = outlined(grey, torch.zeros(8, 8), chosen & False, None, 4)
    drawn = outlined(grey, torch.zeros(8, 8), chosen, truth, 4)
    white = (drawn == 255).all(0)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[:, :12] = True
    expected[2:-2, 2:10] = False
    assert torch.equal(white, expected)
    changed = (drawn != plain).any(0) & ~white
    inner = torch.zeros(32, 32, dtype=torch.bool)
    inner[4:28, 16:] = True
    inner[6:26, 18:30] = False
    assert torch.equal(changed, inner)


@given(st.integers(2, 9), st.integers(0, 2**20))
@settings(max_examples=30)
def test_an_edge_is_what_has_an_outside_near(side, bits):
    mask = np.array([(bits >> k) & 1 for k in range(side * side)], bool).reshape(side, side)
    near = [(0, 2), (0, -2), (2, 0), (-2, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        for down, right in near:
            i, j = y + down, x + right
            outside = not (0 <= i < side and 0 <= j < side) or not mask[i, j]
            expected[y, x] |= outside
    assert np.array_equal(panels._edge(mask), expected)


# ---- a reader's file


def test_a_file_becomes_its_central_square():
    picture = Image.new("RGB", (60, 20), (0, 0, 255))
    picture.paste((255, 0, 0), (20, 0, 40, 20))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    name, pixels = uploaded(file(buffer.getvalue(), "a/../<b>.png"), 10)
    assert name == "a/../<b>.png" and pixels.dtype == torch.uint8
    red = torch.tensor([255, 0, 0])[:, None, None].expand(3, 10, 8)
    assert torch.equal(pixels[:, :, 1:-1].int(), red.int())  # at the sides the neighbours shine in


def turned(orientation: int) -> bytes:
    """A JPEG whose left half is white, to be turned."""
    picture = Image.new("RGB", (32, 32))
    picture.paste((255, 255, 255), (0, 0, 16, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def test_a_turned_photograph_is_turned_back():
    _, upright = uploaded(file(turned(1)), 16)
    _, rotated = uploaded(file(turned(6)), 16)  # a quarter clockwise: left comes up
    assert upright[:, :, :6].float().mean() > 240 and upright[:, :, -6:].float().mean() < 15
    assert rotated[:, :6].float().mean() > 240 and rotated[:, -6:].float().mean() < 15


@pytest.mark.parametrize(
    "content",
    [
        png(mode="CMYK", colour=(0, 255, 255, 0), format="JPEG"),
        png(mode="L", colour=120),
        png(mode="I;16", colour=30_000),
        png(mode="RGBA", colour=(10, 20, 30, 0)),
        png(format="GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        png(16_000, 16, format="PNG"),
    ],
)
def test_unusual_pictures_are_read(content):
    _, pixels = uploaded(file(content), 24)
    assert pixels.shape == (3, 24, 24)


BAD = {
    "not a picture": b"GIF? no, a text",
    "damaged or incomplete": png(200, 200, colour=(1, 2, 3), format="JPEG")[:400],
    "empty file": b"",
    "only 4 x 90 px": png(4, 90),
    "decompression bomb": png(9_600, 9_600, mode="1", colour=0),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_file_gets_one_sentence(why):
    with pytest.raises(ValueError, match=f"(?s)^odd.png cannot be used: .*{why}.*\\.$"):
        uploaded(file(BAD[why], "odd.png"), 24)


def test_a_large_file_is_not_even_opened():
    with pytest.raises(ValueError, match=r"^odd.png has 10.0 MB; at most 10 MB are read\.$"):
        uploaded(file(bytes(10_000_001), "odd.png"), 24)
    with pytest.raises(ValueError, match="Upload an image first"):
        uploaded((), 24)


# ---- the panel


def test_what_it_says_is_what_the_package_computes(panel):
    study = panel.study
    images = study.sets["judged"]
    row = int((images.labels == 0).nonzero()[0])  # the first ant
    seen = bt.record(study.networks["full"].model, images[row].to_float())
    label = int(seen.logits.argmax())
    paths = seen.backtrack(seen.logits.argmax(1))
    chance = float(seen.logits.softmax(1)[0, label])
    assert f"An image of ant, from {KINDS[label]} ({chance:.0%})" in words(panel.walk)
    panel.layer.value = panel.layer.max
    assert f"{len(paths.layers['image'])} nodes" in words(panel.walk)
    assert f"{paths.layers['image'].count.sum():,.0f} paths" in words(panel.walk)
    panel.sigma.value, panel.level.value = 1.5, 0.4
    chosen = saliency.thresholded(bt.attention(paths.pixels, 1.5), 0.4)
    for name, value in saliency.overlap(chosen, images[row].masks).items():
        if name in panels._MEASURES:
            assert f"{panels._MEASURES[name]} {float(value):.2f}" in words(panel.scores)
    assert f"at least 0.40 of the peak ({chosen.double().mean():.1%}" in words(panel.map)


def test_every_control_changes_what_is_shown(panel):
    panel.network.value = "mean"
    other = panel.start.options[2][1]
    moves = [
        (panel.pictures, 1),
        (panel.kind, "cat"),
        (panel.images, "blurred"),
        (panel.network, "full"),
        (panel.start, other),
        (panel.fully_connected, "topn"),
        (panel.n, 1),
        (panel.layer, panel.layer.max),
        (panel.sigma, 2.5),
        (panel.level, 0.1),
        (panel.convolution, "all channels above 0 (Algorithm 2)"),
        (panel.network, "mean"),
        (panel.average, "positive"),
    ]
    for control, value in moves:
        before = shown(panel)
        control.value = value
        assert shown(panel) != before, control.description
        assert "Ready" in panel.status.value


def test_layers_go_from_the_decision_to_the_pixels(panel):
    said = []
    for k in range(1, panel.layer.max + 1):
        panel.layer.value = k
        said.append(words(panel.walk))
    assert "the decision (network.9)" in said[0] and "1 node, 1 path" in said[0]
    assert "units without a place" in said[1] and "fully connected" in said[1]
    assert "4 × 4 positions" in said[2] and "max pooling" in said[2]
    assert f"{SIDE} × {SIDE} positions" in said[-1] and "the image" in said[-1]
    before = panel.map.value
    panel.layer.value = 2
    assert panel.map.value == before  # the map is about the pixels


def test_sliders_do_not_backtrack_again(panel, monkeypatch):
    done = []
    true, recorded = panels.descend, bt.record
    monkeypatch.setattr(panels, "descend", lambda *a: done.append("walk") or true(*a))
    monkeypatch.setattr(bt, "record", lambda *a: done.append("record") or recorded(*a))
    for control, value in ((panel.sigma, 3.0), (panel.level, 0.7), (panel.layer, 2)):
        control.value = value
    assert done == []
    panel.start.value = panel.start.options[-1][1]
    assert done == ["walk"]  # from the recording that is there
    panel.network.value = "mean"
    assert done == ["walk", "record", "walk"]
    panel.network.value = "full"
    panel.start.value = None
    panel.pictures.value = 1
    panel.pictures.value = 0
    assert done[3:] == ["record", "walk"]  # of the second picture only


def test_what_is_kept_is_bounded(panel):
    for kind in KINDS:
        panel.kind.value = kind
        for title in panel._networks:
            panel.network.value = title
            for sigma in (1.0, 2.0, 3.0):
                panel.sigma.value = sigma
    assert len(panel._recordings) == 3
    assert len(panel._paths) <= 24 and len(panel._maps) <= 24


def test_the_start_is_offered_with_probabilities_and_forgotten_with_the_image(panel):
    names = [value for _, value in panel.start.options]
    assert names[0] is None and sorted(names[1:]) == sorted(KINDS)
    chances = [float(re.search(r"([\d.]+)%", text)[1]) for text, _ in panel.start.options[1:]]
    assert chances == sorted(chances, reverse=True) and abs(sum(chances) - 100) < 1
    panel.start.value = names[3]
    assert f"from {names[3]}" in words(panel.walk)
    panel.network.value = "mean"
    assert panel.start.value == names[3]  # asked of another network, too
    panel.pictures.value = 1
    assert panel.start.value is None


def test_n_is_for_the_n_largest_only(panel):
    assert panel.n.disabled
    before = shown(panel)
    panel.n.value = 1
    assert shown(panel) == before
    panel.fully_connected.value = "topn"
    assert not panel.n.disabled
    panel.layer.value = 2  # twelve units behind the decision
    assert "1 node, 1 path" in words(panel.walk)


def test_of_two_objects_the_one_that_is_asked_about_is_compared(panel):
    panel.images.value = "pairs: first"
    study = panel.study
    row = panel._rows[0]
    first, second = (
        KINDS[int(study.sets[f"pairs: {which}"].labels[row])] for which in ("first", "second")
    )
    for name in (first, second):
        panel.start.value = name
        assert f"against the mask of the {name}" in words(panel.scores)
    assert f"An image of {first} and a {second}" in words(panel.walk)


def test_an_upload_and_back(panel):
    panel.upload.value = file(png(50, 40), "<mine>.png")
    assert panel.images.value == "my own file" and panel.pictures.value == -1
    assert "&lt;mine&gt;.png" in panel.walk.value and "<mine>" not in panel.walk.value
    assert "No mask is known of this image" in words(panel.scores)
    assert "dashed" not in words(panel.map)
    own = shown(panel)
    panel.upload.value = file(b"nothing of the kind", "bad.png")
    assert 'role="alert"' in panel.status.value
    assert "bad.png cannot be used" in panel.status.value and shown(panel) == own
    panel.pictures.value = 1
    assert panel.images.value == "judged" and "An image of ant" in words(panel.walk)
    assert "Ready" in panel.status.value
    panel.images.value = "my own file"
    assert "bad.png cannot be used" in panel.status.value
    panel.kind.value = "bee"
    assert panel.images.value == "judged" and "An image of bee" in words(panel.walk)


def test_without_a_file_there_is_nothing_to_look_at(panel):
    panel.images.value = "my own file"
    assert "Upload an image first" in panel.status.value
    panel.images.value = "left out"
    assert "Ready" in panel.status.value and panel.kind.options == ("ant", "bee")


def test_an_image_that_no_path_reaches_says_so(panel):
    model = panel.study.networks["full"].model
    with torch.no_grad():
        model.network[0].weight.zero_()
        model.network[0].bias.fill_(1)
    panel.pictures.value = 1
    assert "Every path ended before it reached the image" in words(panel.map)
    assert "No path ends anywhere" in words(panel.scores)


def test_pictures_say_what_they_show(panel):
    for html in (panel.walk, panel.map):
        (alt,) = re.findall(r'<img alt="([^"]*)"', html.value)
        assert "ant" in alt and len(alt) > 40
    assert 'role="img" aria-label="Nodes per layer' in panel.walk.value
    controls = [panel.images, panel.kind, panel.upload, panel.network, panel.start]
    controls += [panel.fully_connected, panel.n, panel.convolution, panel.average]
    for control in [*controls, panel.layer, panel.sigma, panel.level]:
        assert control.description and control.tooltip


def test_networks_come_back_as_they_were(tmp_path):
    study = study_in(tmp_path)
    model = study.networks["full"].model
    model.train()
    threads = torch.get_num_threads()
    panel, other = path_panel(study), path_panel(study)
    panel.start.value = panel.start.options[2][1]
    assert other.start.value is None
    panel.close()
    other.level.value = 0.2
    assert "Ready" in other.status.value
    other.close()
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.get_num_threads() == threads


def test_a_second_movement_drops_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(panels, "_SLICE", 0)
    begun, closed = [], []
    true = panels.descend

    def watched(seen, start, rules):
        begun.append(rules)
        try:
            return (yield from true(seen, start, rules))
        except GeneratorExit:
            closed.append(rules)
            raise

    async def move():
        panel = path_panel(study_in(tmp_path))
        while panel._latest.running:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(panels, "descend", watched)
        panel.fully_connected.value = "topn"
        while not begun:
            await asyncio.sleep(0)
        panel.fully_connected.value = "literal"
        while panel._latest.running:
            await asyncio.sleep(0.01)
        assert "Ready" in panel.status.value
        panel.close()

    asyncio.run(move())
    assert [r.fully_connected for r in begun] == ["topn", "literal"]
    assert [r.fully_connected for r in closed] == ["topn"]
