"""Figures: every saved figure is described, self-contained, whole on disk, and small."""

import base64
import io
import json
import os
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from PIL import Image

from helpers import figures, runner

WHERE = {"notebook": "00_meet_the_scenes", "profile": "demo"}


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        figures.style()
        yield
    plt.close("all")


def line():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    return fig


def noise(n, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def picture_of(card):
    media, content = re.search(r'src="data:(image/\w+);base64,([^"]+)"', card.html).groups()
    return media, base64.b64decode(content)


def test_save_writes_three_files_and_closes_the_figure(tmp_path):
    fig = line()
    data = {"a": np.arange(2), "b": torch.tensor([0.5, float("nan")]), "t": pd.Series([1, 2])}
    card = figures.save(
        fig, "a-line", folder=tmp_path / "new", caption="C", alt="A", data=data, **WHERE
    )
    assert sorted(p.name for p in (tmp_path / "new").iterdir() if p.is_file()) == [
        "00_meet_the_scenes-a-line.json",
        "00_meet_the_scenes-a-line.png",
        "00_meet_the_scenes-a-line.svg",
    ]
    record = json.loads(card.json.read_text())
    assert record["data"]["a"] == [0, 1]
    assert record["data"]["b"] == [0.5, None]
    assert (record["caption"], record["alt"], record["profile"]) == ("C", "A", "demo")
    assert not plt.fignum_exists(fig.number)
    with Image.open(card.png) as picture:
        assert picture.width == round(figures.WIDTH * figures.DPI)


def test_the_card_keeps_alt_caption_and_profile_and_escapes_them(tmp_path):
    card = figures.save(
        line(), "x", folder=tmp_path, caption="<b> & co", alt='say "hi" <now>', **WHERE
    )
    html = card._repr_html_()
    assert 'alt="say &quot;hi&quot; &lt;now&gt;"' in html
    assert "&lt;b&gt; &amp; co" in html
    assert "demo profile" in html
    assert "<b>" not in html
    assert str(tmp_path) not in html + repr(card)


def test_equal_figures_make_equal_files(tmp_path):
    cards = [
        figures.save(line(), "x", folder=tmp_path / str(i), caption="C", alt="A", **WHERE)
        for i in range(2)
    ]
    assert cards[0].png.read_bytes() == cards[1].png.read_bytes()
    assert cards[0].svg.read_bytes() == cards[1].svg.read_bytes()


@pytest.mark.parametrize("name", ["", "Confusion", "a_b", "a--b", "-a", "a b", "../a", "a\n"])
def test_a_name_that_is_not_kebab_case_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="kebab-case"):
        figures.save(line(), name, folder=tmp_path, caption="C", alt="A", **WHERE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("caption", "alt", "missing"), [("", "A", "caption"), ("C", " \n", "alt")])
def test_a_figure_without_caption_or_alt_is_refused(tmp_path, caption, alt, missing):
    with pytest.raises(ValueError, match=f"needs a {missing} text"):
        figures.save(line(), "x", folder=tmp_path, caption=caption, alt=alt, **WHERE)
    assert not list(tmp_path.iterdir())


def test_a_notebook_name_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match="not a notebook's name"):
        figures.save(
            line(), "x", folder=tmp_path, caption="C", alt="A", notebook="../x", profile="demo"
        )


def test_a_drawing_is_a_small_png_and_photographs_are_webp_within_budget(tmp_path):
    drawing = figures.save(line(), "x", folder=tmp_path, caption="C", alt="A", **WHERE)
    media, content = picture_of(drawing)
    assert media == "image/png"
    assert len(content) < 40_000
    photos = figures.save(
        figures.contact_sheet(noise(36)), "y", folder=tmp_path, caption="C", alt="A", **WHERE
    )
    media, content = picture_of(photos)
    assert media == "image/webp"
    assert len(content) <= figures.BUDGET


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plain_is_strict_json(value):
    made = figures.plain(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_plain_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="cannot keep a object"):
        figures.plain({"a": object()})


def test_contact_sheet_keeps_every_pixel_crisp(tmp_path):
    images = noise(2, size=8)
    card = figures.save(
        figures.contact_sheet(images, columns=2),
        "x",
        folder=tmp_path,
        caption="C",
        alt="A",
        **WHERE,
    )
    shown = np.asarray(Image.open(card.png).convert("RGB")).astype(int)
    cell = (shown.shape[1] - 3 * 14) // 2
    assert cell % 8 == 0
    k = cell // 8
    first = shown[14 : 14 + cell, 14 : 14 + cell].reshape(8, k, 8, k, 3)[:, k // 2, :, k // 2]
    assert np.abs(first - images[0].permute(1, 2, 0).numpy()).max() <= 1


@given(
    n=st.integers(1, 7),
    columns=st.integers(1, 6),
    size=st.sampled_from([1, 5, 64, 300]),
    titles=st.booleans(),
)
def test_contact_sheet_fits_the_page_and_shows_every_picture(n, columns, size, titles):
    title = "a very long title that must be shortened " * 3
    fig = figures.contact_sheet(
        noise(n, size), columns=columns, titles=[title] * n if titles else None
    )
    assert len(fig.axes) == n
    assert fig.get_figwidth() <= figures.WIDTH + 0.05
    for ax in fig.axes:
        box = ax.get_position()
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1
    plt.close(fig)


def test_contact_sheet_outlines_masks_and_names_what_does_not_fit():
    images = noise(3)
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 20:40, 20:40] = True
    fig = figures.contact_sheet(images, masks=masks)
    assert [len(ax.collections) > 0 for ax in fig.axes] == [True, False, False]
    with pytest.raises((ValueError, TypeError)):  # the annotation is checked first, here
        figures.contact_sheet(images, masks=masks[:2])
    with pytest.raises(ValueError, match="1 titles for 3 pictures"):
        figures.contact_sheet(images, titles=["a"])
    with pytest.raises(ValueError, match="at least one picture"):
        figures.contact_sheet(images[:0])


def test_parts_in_one_picture_have_different_colours_and_a_key():
    names = ["not the object", *(f"part {k}" for k in range(1, 21))]
    parts = torch.zeros(2, 20, 20, dtype=torch.uint8)
    for k in range(10):
        parts[0, 2 * k], parts[1, 2 * k] = k + 1, k + 11
    fig = figures.part_sheet(noise(2, 20), parts, names)
    colors = [tuple(patch.get_facecolor()) for patch in fig.patches + fig.artists]
    assert len(set(colors[:10])) == 10
    assert {text.get_text() for text in fig.texts} >= set(names[1:])
    with pytest.raises(ValueError, match="part 20 has no name"):
        figures.part_sheet(noise(2, 20), parts, names[:5])


def test_confusion_shows_percent_of_the_true_class_and_the_pairs():
    counts = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    fig = figures.confusion(counts, ["a", "b", "absent"], pairs=[(0, 1)])
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.texts] == ["80", "20", "100"]
    assert len(ax.patches) == 1
    with pytest.raises(ValueError, match="confusion matrix of 2 classes"):
        figures.confusion(counts, ["a", "b"])


def test_bars_show_values_intervals_and_the_papers_numbers():
    fig = figures.bars(
        {"black": 60.0, "mixed": 91.26}, intervals={"black": (55, 64)}, published={"mixed": 88.8}
    )
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["black   60.0", "mixed   91.3"]
    assert ax.collections[0].get_offsets().tolist() == [[88.8, 1.0]]
    assert ax.lines[0].get_xdata() == pytest.approx([55, 64])
    with pytest.raises(ValueError, match="'noise', which has no bar"):
        figures.bars({"black": 1.0}, published={"noise": 2.0})
    with pytest.raises(ValueError, match="at least one value"):
        figures.bars({})


def test_text_is_legible_when_projected():
    assert all(
        plt.rcParams[size] >= 10
        for size in ("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    )


def table(r, c, size=8):
    return noise(r * c, size).view(r, c, 3, size, size)


def cells(fig):
    """The box of every cell of a picture table, in parts of the figure, row by row."""
    (ax,) = fig.axes
    to_figure = ax.transData + fig.transFigure.inverted()
    return [
        Bbox.from_extents(*np.sort(to_figure.transform(patch.get_bbox()), 0).ravel())
        for patch in ax.patches
    ]


def drawn_texts(fig):
    """Every text with its box in pixels."""
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer() if hasattr(fig.canvas, "get_renderer") else None
    return {t.get_text(): t.get_window_extent(renderer) for t in fig.texts if t.get_text()}


@pytest.mark.parametrize(
    ("r", "c", "size", "cell"), [(4, 9, 64, 128), (3, 3, 64, 384), (4, 5, 64, 192)]
)
def test_picture_table_enlarges_small_pictures_by_a_whole_number(r, c, size, cell):
    names = [f"background {i}, robust" for i in range(r)]
    fig = figures.picture_table(table(r, c, size), names, ["grasshopper"] * c)
    width, height = np.array(fig.get_size_inches()) * figures.DPI
    assert width == pytest.approx(figures.WIDTH * figures.DPI)
    for box in cells(fig):
        assert (box.width * width, box.height * height) == pytest.approx((cell, cell))
        edges = np.array([box.x0 * width, box.y0 * height])
        assert edges == pytest.approx(edges.round(), abs=1e-6)  # crisp: on whole pixels


@pytest.mark.parametrize("c", [3, 5, 9])
def test_picture_table_fits_large_pictures_to_the_page(c):
    fig = figures.picture_table(table(1, c, 256), ["a"], list("abcdefghi")[:c])
    boxes = cells(fig)
    assert 0.98 < max(box.x1 for box in boxes) <= 1
    assert len({round(box.width, 9) for box in boxes}) == 1
    assert all(image.get_interpolation() == "antialiased" for image in fig.axes[0].images)


def test_picture_table_shows_each_picture_in_its_cell_and_leaves_absent_cells_empty():
    pictures = table(2, 3)
    absent = torch.tensor([[False, True, False], [False, False, False]])
    marks = [["m00", "", "m02"], ["m10", "m11", "m12"]]
    fig = figures.picture_table(pictures, ["r0", "r1"], list("xyz"), absent=absent, marks=marks)
    at = {text.get_text(): text.get_position() for text in fig.texts}
    assert len(cells(fig)) == 6
    shown = iter(fig.axes[0].images)
    for i, j in np.ndindex(2, 3):
        box = cells(fig)[3 * i + j]
        assert box.y0 < at[f"r{i}"][1] < box.y1
        assert at["xyz"[j]][0] == pytest.approx((box.x0 + box.x1) / 2)
        assert at[f"r{i}"][0] < box.x0
        if not absent[i, j]:
            image = next(shown)
            x0, x1, y1, y0 = image.get_extent()
            assert (x0, y0, x1 - x0, y1 - y0) == fig.axes[0].patches[3 * i + j].get_bbox().bounds
            assert (np.asarray(image.get_array()) == pictures[i, j].permute(1, 2, 0).numpy()).all()
            assert box.y0 - 0.1 < at[f"m{i}{j}"][1] < box.y0
    assert "m01" not in at
    assert next(shown, None) is None


@pytest.mark.parametrize("c", [3, 9])
def test_marks_are_legible_and_stay_within_their_columns(c):
    long = [[f"the {i} {j} hippopotamus of the northern lakes" for j in range(c)] for i in range(2)]
    fig = figures.picture_table(table(2, c, 64), ["a", "b"], ["grasshopper"] * c, marks=long)
    assert min(text.get_fontsize() for text in fig.texts) >= 7
    boxes = {text: box for text, box in drawn_texts(fig).items() if text.startswith("the ")}
    assert len(boxes) == 2 * c
    assert all(text.endswith("…") for text in boxes)
    for (text, box), (_, after) in zip(boxes.items(), list(boxes.items())[1:], strict=False):
        assert box.x1 <= after.x0 or after.y1 < box.y0, text


def test_groups_stand_apart_at_the_far_left():
    names = [f"row {i}" for i in range(5)]
    groups = {"plain": 2, "robust": 3}
    fig = figures.picture_table(table(5, 4), names, list("abcd"), groups=groups)
    y0 = [cells(fig)[4 * i].y0 for i in range(5)]
    steps = -np.diff(y0)
    assert steps[[0, 2, 3]] == pytest.approx(steps[0])
    assert steps[1] > steps[0] * 1.01
    at = {text.get_text(): text.get_position() for text in fig.texts}
    assert at["plain"][0] == at["robust"][0] < at["row 0"][0]
    assert y0[1] < at["plain"][1] < y0[0] + steps[0]
    assert at["robust"][1] < y0[1]


@settings(max_examples=25)
@given(
    r=st.integers(1, 3),
    c=st.integers(1, 10),
    size=st.sampled_from([1, 64, 300]),
    headline=st.booleans(),
)
def test_a_picture_table_keeps_everything_on_the_page(r, c, size, headline):
    fig = figures.picture_table(
        table(r, c, size),
        ["mixed backgrounds, robust"] * r,
        ["sailing boat"] * c,
        headline="Headline" if headline else None,
        groups={"a group with a long name": r},
    )
    page = fig.bbox
    texts = drawn_texts(fig).values()
    boxes = [*texts, *(box.transformed(fig.transFigure) for box in cells(fig))]
    for box in boxes:
        assert min(box.x0, box.y0) >= -1
        assert (box.x1, box.y1) <= (page.x1 + 1, page.y1 + 1)
    plt.close(fig)


def test_picture_table_names_what_does_not_fit():
    pictures = table(2, 3)
    with pytest.raises(ValueError, match="1 row names and 3 column names"):
        figures.picture_table(pictures, ["a"], list("abc"))
    with pytest.raises(ValueError, match="marks must be 2 rows of 3"):
        figures.picture_table(pictures, list("ab"), list("abc"), marks=[["x"] * 3])
    for groups in ({"all": 1}, {"all": 2, "none": 0}):
        with pytest.raises(ValueError, match="for a table of 2 rows"):
            figures.picture_table(pictures, list("ab"), list("abc"), groups=groups)
    with pytest.raises(ValueError, match="has no picture"):
        figures.picture_table(pictures[:0], [], list("abc"))
    with pytest.raises((ValueError, TypeError)):  # the annotation is checked first, here
        wrong = torch.zeros(3, 2, dtype=torch.bool)
        figures.picture_table(pictures, list("ab"), list("abc"), absent=wrong)


def points(ax):
    """(x, y) of each marked point, in drawing order."""
    return [tuple(p) for marks in ax.collections for p in marks.get_offsets().tolist()]


def key(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_dots_show_every_value_the_mean_and_the_papers_numbers_in_lanes():
    fig = figures.dots(
        {"black": {"plain": [1.0, 2.0, 6.0], "robust": [4.0]}, "mixed": {"robust": [5.0]}},
        label="accuracy (%)",
        chance=0.5,
        published={"mixed": 8.0},
        intervals={"black": {"plain": (2.5, 3.5)}},
    )
    ax = fig.axes[0]
    found = points(ax)
    assert [x for x, _ in found] == [3, 1, 2, 6, 4, 5, 8]  # mean, then its values
    lanes = [y for _, y in found]
    assert len(set(lanes[:4])) == 1  # the mean among its values
    assert lanes[0] < lanes[4] < 0.5 < lanes[5] < lanes[6] < 1.5
    assert lanes[5] - lanes[4] == pytest.approx(1)  # robust has one lane in each row
    assert any(list(line.get_xdata()) == [2.5, 3.5] for line in ax.lines)
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["black", "mixed"]
    assert key(fig) == ["plain (mean)", "robust (mean)", "single value", "paper", "chance"]


def test_dots_of_single_values_have_one_mark_each_and_series_differ_in_colour_and_shape():
    fig = figures.dots({"row": {name: [1.0] for name in "abcd"}}, label="x")
    marks = fig.axes[0].collections
    assert len(marks) == 4
    assert len({tuple(m.get_facecolor()[0]) for m in marks}) == 4
    assert len({m.get_paths()[0].vertices.tobytes() for m in marks}) == 4
    assert key(fig) == list("abcd")


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ({}, {}, "no values"),
        ({"a": {}}, {}, "no values"),
        ({"a": {"s": []}}, {}, "one or more finite"),
        ({"a": {"s": [1.0, float("nan")]}}, {}, "one or more finite"),
        ({"a": {name: [1.0] for name in "vwxyz"}}, {}, "5 series"),
        ({"a": {"s": [1.0]}}, {"published": {"b": 1.0}}, "'b', which has no row"),
        ({"a": {"s": [1.0]}}, {"published": {"a": float("nan")}}, "not finite"),
        ({"a": {"s": [1.0]}}, {"intervals": {"a": {"t": (0.0, 1.0)}}}, "'t', which has no value"),
        ({"a": {"s": [1.0]}}, {"intervals": {"b": {"s": (0.0, 1.0)}}}, "'b', 's'"),
    ],
)
def test_dots_name_what_cannot_be_drawn(values, more, message):
    with pytest.raises(ValueError, match=message):
        figures.dots(values, label="accuracy", **more)


def test_panels_share_rows_colours_and_one_key():
    fig = figures.dots_panels(
        {
            "first": {"a": {"plain": [1.0]}, "b": {"plain": [2.0], "robust": [3.0]}},
            "second": {"b": {"robust": [7.0]}},
            "third": {"c": {"plain": [9.0]}},
        },
        chances={"second": 5.0},
        columns=2,
    )
    assert [ax.get_title("left") for ax in fig.axes] == ["first", "second", "third"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert [ax.get_ylim() for ax in fig.axes] == [(2.5, -0.5)] * 3
    (_, _, (x, y)), ((u, v),) = points(fig.axes[0]), points(fig.axes[1])
    assert (x, u) == (3, 7)
    assert y == v  # robust in row b, in either panel
    colour = fig.axes[0].collections[2].get_facecolor()
    assert (fig.axes[1].collections[0].get_facecolor() == colour).all()
    chance = [any(list(ln.get_xdata()) == [5.0, 5.0] for ln in ax.lines) for ax in fig.axes]
    assert chance == [False, True, False]
    assert key(fig) == ["plain", "robust", "chance"]
    assert len(fig.legends) == 1


def test_panels_name_what_cannot_be_drawn():
    good = {"a": {"row": {"s": [1.0]}}}
    with pytest.raises(ValueError, match="0 series"):
        figures.dots_panels({})
    with pytest.raises(ValueError, match="'b' has no values"):
        figures.dots_panels({**good, "b": {}})
    with pytest.raises(ValueError, match="'z', which has no panel"):
        figures.dots_panels(good, chances={"z": 1.0})
    with pytest.raises(ValueError, match="columns=0"):
        figures.dots_panels(good, columns=0)


def test_lines_are_named_at_their_ends_or_in_a_key_where_the_names_would_collide():
    apart = figures.lines([0, 1], {"a": [0, 1], "b": [0, 5]}, xlabel="x", ylabel="y")
    names = {t.get_text(): t.xy for t in apart.axes[0].texts}
    assert names == {"a": (1, 1), "b": (1, 5)}
    assert not apart.legends
    close = figures.lines([0, 1], {"a": [0, 1], "b": [5, 1.01]}, xlabel="x", ylabel="y")
    assert key(close) == ["a", "b"]
    assert not close.axes[0].texts
    unfinished = figures.lines(
        [0, 1], {"a": [0, 1], "b": [5, float("nan")]}, xlabel="x", ylabel="y"
    )
    assert key(unfinished) == ["a", "b"]


def test_eight_lines_differ_in_colour_and_dashes_unless_told_otherwise():
    series = {f"line {i}": [1, 1 + i] for i in range(8)}
    drawn = figures.lines([0, 1], series, xlabel="x", ylabel="y", log=True).axes[0]
    assert drawn.get_yscale() == "log"
    assert len({ln.get_color() for ln in drawn.lines}) == 8
    assert len({str(ln._dash_pattern) for ln in drawn.lines}) == 8
    styles = {"line 0": "blue :", "line 1": "blue --", "line 2": "-"}
    drawn = figures.lines([0, 1], series, xlabel="x", ylabel="y", styles=styles).axes[0]
    assert [ln.get_color() for ln in drawn.lines[:2]] == [figures.PALETTE["blue"]] * 2
    assert [ln.get_linestyle() for ln in drawn.lines[:3]] == [":", "--", "-"]


@pytest.mark.parametrize(
    ("x", "series", "more", "message"),
    [
        ([0, 1], {}, {}, "0 lines"),
        ([], {"a": []}, {}, "1 lines of 0 values"),
        ([0], {str(i): [1] for i in range(9)}, {}, "9 lines"),
        ([0, 1], {"a": [1]}, {}, "1 values for 2 of x"),
        ([1, 1], {"a": [1, 2]}, {}, "increase"),
        ([0, 1], {"a": [float("nan")] * 2}, {}, "no finite value"),
        ([0, 1], {"a": [0, 1]}, {"log": True}, "values of 0 or less"),
        ([0, 1], {"a": [0, 1]}, {"styles": {"b": "-"}}, "'b', which has no line"),
        ([0, 1], {"a": [0, 1]}, {"styles": {"a": "pink -"}}, "style 'pink -'"),
        ([0, 1], {"a": [0, 1]}, {"styles": {"a": ""}}, "style ''"),
    ],
)
def test_lines_name_what_cannot_be_drawn(x, series, more, message):
    with pytest.raises(ValueError, match=message):
        figures.lines(x, series, xlabel="x", ylabel="y", **more)


def test_boxes_are_drawn_where_they_are_in_their_colours():
    image = torch.full((3, 10, 12), 100, dtype=torch.uint8)
    boxes = torch.tensor([[1, 2, 7, 8], [8, 0, 12, 4]])
    drawn = figures.framed(image, boxes, ["blue", "orange"], enlarge=4)
    assert drawn.shape == (3, 40, 48)
    for (x0, y0, x1, y1), name in zip((4 * boxes).tolist(), ("blue", "orange"), strict=True):
        rgb = np.round(255 * np.array(to_rgb(figures.PALETTE[name])))
        for x, y in ((x0, y0), (x1 - 1, y0), (x0, y1 - 1), (x1 - 1, y1 - 1)):
            assert drawn[:, y, x].tolist() == rgb.tolist()
        assert (drawn[:, (y0 + y1) // 2, (x0 + x1) // 2] == 100).all()
    assert (image == 100).all()


def test_heat_goes_from_dark_to_yellow():
    images = torch.zeros(1, 3, 1, 2, dtype=torch.uint8)
    shown = figures.heated(images, torch.tensor([[[0.0, 1.0]]]))[0]
    assert shown[2, 0, 0] > shown[0, 0, 0]  # blue
    assert min(shown[0, 0, 1], shown[1, 0, 1]) > shown[2, 0, 1]  # yellow


def test_a_scatter_names_its_points():
    table = pd.DataFrame({"accuracy": [1.0, 2.0], "count": [3.0, 1.0], "network": ["a", "b"]})
    ax = figures.scatter(table, "accuracy", "count", label="network").axes[0]
    assert [t.get_text() for t in ax.texts] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("accuracy", "count")
    with pytest.raises(ValueError, match="finite"):
        figures.scatter(table.assign(count=np.nan), "accuracy", "count", label="network")


def test_panels_can_share_limits_and_show_what_real_images_give():
    values = {"named (%)": {"plain": {"run": [10.0, 20.0]}}}
    ax = figures.dots_panels(values, limits=(0, 100), real={"named (%)": 80.0}).axes[0]
    assert ax.get_xlim() == (0, 100)
    assert any(list(line.get_xdata()) == [80.0, 80.0] for line in ax.lines)


def test_a_figure_that_looks_as_before_keeps_its_drawing_and_another_gets_its_own(tmp_path):
    def saved(height: float):
        how = {"caption": "c", "alt": "a", "notebook": "00_x", "profile": "demo"}
        bars = figures.bars({"one": height})
        return figures.save(bars, "bars", folder=tmp_path / "figures", **how)

    card = saved(1.0)
    first, written = card.svg.read_bytes(), card.svg.stat().st_ino
    for file in (card.png, card.svg, card.json):
        os.utime(file, (1, 1))
    saved(1.0)
    assert card.svg.stat().st_ino == written  # not drawn again
    runner._forget("00_x", tmp_path, started=2.0)  # and not taken for one of an earlier run
    assert card.png.is_file() and card.svg.is_file() and card.json.is_file()
    saved(0.5)
    assert card.svg.read_bytes() != first
    card.svg.unlink()
    saved(0.5)
    assert card.svg.is_file()
    assert list((tmp_path / "figures" / ".embedded").iterdir())
    runner._forget("00_x", tmp_path, started=card.json.stat().st_mtime + 9)
    assert not [p for p in (tmp_path / "figures").rglob("*") if p.is_file()]


@pytest.mark.parametrize("harmed", ["png", "svg", "json", "embedded"])
def test_a_figure_whose_files_are_harmed_is_written_again(tmp_path, harmed):
    def saved() -> figures.FigureCard:
        return figures.save(line(), "x", folder=tmp_path, caption="C", alt="A", **WHERE)

    card = saved()
    (small,) = (tmp_path / ".embedded").iterdir()
    whole = {p: p.read_bytes() for p in (card.png, card.svg, small)}
    file = {"png": card.png, "svg": card.svg, "json": card.json, "embedded": small}[harmed]
    if harmed == "svg":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1  # a drawing that is no longer this one
        file.write_bytes(content if harmed != "json" else content[: len(content) // 2])
    assert saved().html == card.html
    assert {p: p.read_bytes() for p in whole} == whole


def test_an_embedded_picture_is_remembered_for_its_content_and_budget_only(tmp_path, monkeypatch):
    png = figures.save(line(), "x", folder=tmp_path, caption="C", alt="A", **WHERE).png
    other = figures.save(line(), "y", folder=tmp_path, caption="C", alt="A", **WHERE).png
    Image.open(other).transpose(Image.Transpose.ROTATE_90).save(other)
    contents, budgets = [p.read_bytes() for p in (png, other)], (5_000, 300_000)
    asked = [(content, budget) for content in contents for budget in budgets]
    made = []
    for content, budget in asked:
        with Image.open(io.BytesIO(content)) as picture:
            made.append(figures.embed(picture.convert("RGB"), budget))
        assert figures.embedded(png, content, budget) == made[-1]
    assert len(set(made)) == 4
    monkeypatch.setattr(figures, "embed", lambda *_: 1 / 0)  # only what is new is encoded
    for budget, was in zip(budgets, made[2:], strict=True):
        assert figures.embedded(png, contents[1], budget) == was
    with pytest.raises(ZeroDivisionError):
        figures.embedded(png, contents[0], budgets[0])
    with pytest.raises(OSError):
        figures.embedded(png, b"no picture", budgets[0])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=12))
def test_a_line_is_as_wide_as_its_drawn_shape(text):
    shape = TextPath((0, 0), text, size=100) if text.strip() else None
    wide = shape.get_extents().x1 if shape and len(shape.vertices) else 0.0
    assert figures._line_width(text, "normal") == pytest.approx(wide, abs=0.5)  # of 100 points


def test_trends_draw_the_least_squares_line_of_every_series():
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "up": [1.0, 3.0, 5.0], "flat": [2.0, np.nan, 2.0]})
    fig = figures.trends(table, "x", ["up", "flat"], xlabel="task", ylabel="accuracy")
    points_up, line_up, points_flat, line_flat = fig.axes[0].get_lines()
    assert points_up.get_ydata().tolist() == [1, 3, 5]
    np.testing.assert_allclose(line_up.get_ydata(), [1, 5])
    assert points_flat.get_xdata().tolist() == [0, 2]  # the missing one is not drawn
    np.testing.assert_allclose(line_flat.get_ydata(), [2, 2])


@pytest.mark.parametrize(
    ("columns", "series", "message"),
    [
        ({"x": [1.0, 1.0], "y": [1.0, 2.0]}, ["y"], "two different"),
        ({"x": [1.0, np.nan], "y": [1.0, 2.0]}, ["y"], "finite"),
        ({"x": [1.0, 2.0], "y": [1.0, np.nan]}, ["y"], "a line needs two"),
        ({"x": [1.0, 2.0], "y": [1.0, 2.0]}, [], "0 series"),
    ],
)
def test_trends_refuse_what_has_no_line(columns, series, message):
    with pytest.raises(ValueError, match=message):
        figures.trends(pd.DataFrame(columns), "x", series, xlabel="", ylabel="")
