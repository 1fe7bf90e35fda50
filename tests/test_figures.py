"""Figures: every saved figure is described, self-contained, whole on disk, and small."""

import base64
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import figures

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
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
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
