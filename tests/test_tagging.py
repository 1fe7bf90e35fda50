"""Tagging of summaries: no noun is lost, people's disagreement is right, silly input is handled."""

import io
import json
import re

import ipywidgets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.widgets import people as widgets
from helpers.widgets.people import TaggingSession, tagging, tags_of

NAMES = ["robin", "jeans", "oboe"]
CLASSES = [0, 0, 1]  # the oboe has no summary


def session(folder, rater="", **changes):
    given = {"classes": CLASSES, "class_names": NAMES} | changes
    return TaggingSession(**given, file=folder / "tags.jsonl", rater=rater)


def lines(folder):
    return [json.loads(line) for line in (folder / "tags.jsonl").read_text("utf-8").splitlines()]


def tag_all(one, said):
    """Give each summary its text in `said`; None is "cannot tell"."""
    while (summary := one.picture) is not None:
        one.answer(said[summary])


# What somebody typed.


def test_tags_are_separated_by_commas_in_lower_case_once_each():
    assert tags_of(" Head,  upper   BEAK ,head,, eye;Wings. ") == [
        "head",
        "upper beak",
        "eye",
        "wings",
    ]
    assert tags_of("wing, wings") == ["wing", "wings"]  # a plural stays
    assert tags_of("Zoe\u0308, ZOË, T-shirt") == ["zoë", "t-shirt"]
    assert tags_of("be\u200bak\x00, \ud800head") == ["beak", "head"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at least one noun, or press 'cannot tell'"),
        (" , ;; .\n", "at least one noun"),
        (",".join("abcdefghi"), "9 tags; keep the 8 best"),
        ("x" * 41, "longer than 40 characters; separate nouns by commas"),
        ("head, 42", "“42” has no letter"),
        ("???, head, *", "“\\*” has no letter"),
    ],
)
def test_what_is_no_tag_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        tags_of(text)
    assert len(tags_of(",".join("abcdefgh"))) == 8 and tags_of("y" * 40) == ["y" * 40]


@given(st.text(max_size=60))
def test_any_text_is_tags_or_refused(text):
    try:
        tags = tags_of(text)
    except ValueError as problem:
        assert str(problem)
        return
    assert 1 <= len(tags) == len(set(tags)) <= 8
    for tag in tags:
        assert 0 < len(tag) <= 40 and tag == tag.strip() and tag.isprintable() and "," not in tag
    json.dumps(tags, ensure_ascii=False).encode()  # can be saved


# The session.


def test_each_answer_is_a_line_at_once(tmp_path):
    one = session(tmp_path / "new", "Ana")
    summary = one.picture
    one.answer("Pocket, Leg")
    (line,) = lines(tmp_path / "new")
    assert 0 <= line.pop("seconds") < 60
    assert line == {
        "set": one.set,
        "rater": "Ana",
        "picture": summary,
        "class": NAMES[CLASSES[summary]],
        "answer": ["pocket", "leg"],
    }
    one.answer(None)
    assert lines(tmp_path / "new")[1]["answer"] is None


def test_a_refused_answer_is_none(tmp_path):
    one = session(tmp_path)
    with pytest.raises(ValueError, match="at least one noun"):
        one.answer("")
    assert one.position == 0 and not (tmp_path / "tags.jsonl").exists()
    tag_all(one, ["a"] * 3)
    with pytest.raises(ValueError, match="all 3 pictures have been named"):
        one.answer("b")
    assert len(lines(tmp_path)) == 3


def test_an_interrupted_session_goes_on(tmp_path):
    first = session(tmp_path, "Ana")
    first.answer("head")
    first.answer(None)
    with open(tmp_path / "tags.jsonl", "ab") as file:
        file.write(b'{"set": "' + first.set.encode() + b'", "rater": "An')  # the power went
    again = session(tmp_path, "Ana")
    assert (again.order, again.position) == (first.order, 2)
    assert again.given == {first.order[0]: ["head"], first.order[1]: None}
    again.answer("leg")
    assert session(tmp_path, "Ana").finished
    assert session(tmp_path, "Bo").position == 0


def test_disagreement_by_hand(tmp_path):
    ana, bo, eve = (session(tmp_path, name) for name in ("Ana", "Bo", "Eve"))
    assert ana.mu_u() == {"robin": (None, 0, 2), "jeans": (None, 0, 1)}
    assert ana.names() == [None] * 3
    tag_all(ana, ["head, eye", "leg", "pocket"])
    assert ana.mu_u() == {"robin": (None, 0, 2), "jeans": (None, 0, 1)}  # one person
    assert ana.names() == ["eye", "leg", "pocket"]
    tag_all(bo, ["head", "legs", "Pocket"])
    # summary 0: 1/2; summary 1: 1, a plural is another word; summary 2: 0
    assert ana.mu_u() == {"robin": (pytest.approx(0.75), 2, 2), "jeans": (0, 1, 1)}
    assert bo.names() == ["head", "leg", "pocket"]
    tag_all(eve, ["head", None, "knee"])
    # summary 0: distances 1/2, 1/2, 0; summary 1 as before; summary 2: 0, 1, 1
    mu = eve.mu_u()
    assert mu["robin"] == (pytest.approx((1 / 3 + 1) / 2), 2, 2)
    assert mu["jeans"] == (pytest.approx(2 / 3), 1, 1)
    assert eve.raters() == ["Ana", "Bo", "Eve"]
    assert sorted(map(sorted, eve.tag_sets()[1])) == [["leg"], ["legs"]]


def test_two_who_cannot_tell_do_not_agree(tmp_path):
    for name in ("Ana", "Bo"):
        tag_all(session(tmp_path, name), [None, "leg", None])
    one = session(tmp_path, "Bo")
    assert one.mu_u() == {"robin": (0, 1, 2), "jeans": (None, 0, 1)}
    assert one.names() == [None, "leg", None]


def test_of_two_answers_the_last_counts(tmp_path):
    tag_all(session(tmp_path, "Ana"), ["a", "b", "c"])
    bo = session(tmp_path, "Bo")
    tag_all(bo, ["x", "x", "x"])
    assert bo.mu_u() == {"robin": (1, 2, 2), "jeans": (1, 1, 1)}
    for steps in (3, 2, 1):
        bo.position = 3
        for _ in range(steps):
            bo.back()
        bo.answer("abc"[bo.picture])
    assert bo.mu_u() == {"robin": (0, 2, 2), "jeans": (0, 1, 1)}
    assert session(tmp_path, "Bo").given == {0: ["a"], 1: ["b"], 2: ["c"]}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [0, 1, 1]},
        {"class_names": ["robin", "jeans", "flute"]},
        {"pictures": "others"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_answers_to_other_summaries_neither_count_nor_vanish(tmp_path, change):
    tag_all(session(tmp_path, "Ana", **change), ["a"] * 3)
    before = (tmp_path / "tags.jsonl").read_bytes()
    one = session(tmp_path, "Ana")
    assert one.position == 0 and one.raters() == [] and one.names() == [None] * 3
    one.answer("b")
    assert (tmp_path / "tags.jsonl").read_bytes().startswith(before)


def test_a_file_of_ratings_can_be_shared(tmp_path):
    rating = widgets.RatingSession(
        CLASSES, ["m"] * 3, NAMES, file=tmp_path / "tags.jsonl", rater="Ana"
    )
    rating.answer(1)
    one = session(tmp_path, "Ana")
    one.answer("head")
    assert len(one.given) == 1 and one.tag_sets().count([]) == 2


def test_names_are_shown_after_the_end(tmp_path):
    tag_all(session(tmp_path, "Bo"), ["beak", "leg", "pocket"])
    tag_all(session(tmp_path, "Eve"), ["beak", "leg", None])
    one = session(tmp_path, "Ana")
    with pytest.raises(ValueError, match="3 of 3 summaries are still to be tagged"):
        one.reveal()
    tag_all(one, ["bill, head", None, "knee"])
    assert one.reveal() == [
        {"summary": 0, "class": "robin", "name": "beak", "people": 3, "yours": ["bill", "head"]},
        {"summary": 1, "class": "robin", "name": "leg", "people": 2, "yours": ["cannot tell"]},
        {"summary": 2, "class": "jeans", "name": "knee", "people": 2, "yours": ["knee"]},
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": []}, "no summaries"),
        ({"classes": [0, 3]}, "class 3 has no name; there are 3"),
        ({"classes": [0, -1]}, "class -1 has no name"),
    ],
)
def test_what_cannot_be_tagged_is_refused(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=problem):
        session(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


# The panel.


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(widgets, "_DOUBLE_CLICK", 0.0)
    yield
    ipywidgets.Widget.close_all()


def pictures(n=3):
    """Strips of different lengths, each of one grey."""
    return [np.full((6, 12 + 4 * i, 3), 60 * i, np.uint8) for i in range(n)]


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def panel(folder, **changes):
    what = {"pictures": pictures(), "classes": CLASSES, "class_names": NAMES}
    return tagging(**(what | changes), file=folder / "tags.jsonl")


def on_page(widget):
    """Everything that is displayed, names and tooltips included."""
    children = getattr(widget, "children", ())
    own = (getattr(widget, name, None) for name in ("value", "description", "tooltip"))
    return " ".join([*map(on_page, children), *(part for part in own if isinstance(part, str))])


def start(one, name=""):
    one.name.value = name
    one.start.click()


def enter(text):
    text._handle_custom_msg({"event": "submit"}, [])


def give(one, text):
    one.tags.value = text
    enter(one.tags)


def give_all(one, said):
    while (summary := one.session.picture) is not None:
        if said[summary] is None:
            one.cannot_tell.click()
        else:
            give(one, said[summary])


def test_a_whole_round_with_the_keyboard(tmp_path):
    one = panel(tmp_path)
    assert "3 groups of pictures" in on_page(one) and "<img" not in on_page(one)
    one.name.value = "Ana"
    enter(one.name)
    seen = []
    for i in range(3):
        name = NAMES[CLASSES[one.session.picture]]
        assert f"{i + 1} of 3" in one.progress.value and name in one.progress.value
        assert f'alt="summary {i + 1} of 3, parts of {name} in red"' in on_page(one)
        assert one.tags.value == ""
        seen.append(one.picture.value)
        before = one._asking.children
        give(one, "head, wing")
        assert one._asking.children is before  # the keyboard stays in its field
        assert len(lines(tmp_path)) == i + 1
    assert len(set(seen)) == 3
    assert "Thank you, Ana" in on_page(one) and "<img" not in on_page(one)
    assert {tuple(line["answer"]) for line in lines(tmp_path)} == {("head", "wing")}


def test_the_picture_is_the_one_that_is_asked_for_as_bytes_or_values(tmp_path):
    one, other = panel(tmp_path), panel(tmp_path, pictures=[png(p) for p in pictures()])
    assert one.session.set == other.session.set
    assert panel(tmp_path, pictures=pictures()[::-1]).session.set != one.session.set
    for p in (one, other):
        start(p, "Ana" if p is one else "Bo")
        for _ in range(3):
            expected = Image.fromarray(pictures()[p.session.picture])
            source = re.search(r'src="(.*?)"', p.picture.value).group(1)
            assert source == re.search(r'src="(.*?)"', widgets._image(expected, "")).group(1)
            p.cannot_tell.click()


def test_a_button_does_what_the_enter_key_does(tmp_path):
    one = panel(tmp_path)
    start(one)
    one.tags.value = "beak"
    one.give.click()
    assert lines(tmp_path)[0]["answer"] == ["beak"]


def test_silly_input_is_explained_and_kept(tmp_path):
    one = panel(tmp_path)
    start(one)
    give(one, "42")
    assert "has no letter" in one.message.value and 'role="alert"' in one.message.value
    assert one.tags.value == "42" and one.session.position == 0
    give(one, "")
    assert "at least one noun" in one.message.value
    give(one, "beak")
    assert one.message.value == "" and one.session.position == 1
    assert len(lines(tmp_path)) == 1


def test_what_is_being_typed_survives_a_look_at_the_results(tmp_path):
    one = panel(tmp_path)
    start(one)
    one.tags.value = "bea"
    one.results.value = True
    assert one.tags.value == "bea"


def test_going_back_shows_what_was_said(tmp_path):
    one = panel(tmp_path)
    start(one)
    assert one.back.disabled
    give(one, "Beak, eye")
    assert one.tags.value == "" and one.cannot_tell.icon == ""
    one.back.click()
    assert one.tags.value == "beak, eye" and "1 of 3" in one.progress.value
    one.cannot_tell.click()
    one.back.click()
    assert one.tags.value == "" and one.cannot_tell.icon == "check"
    give(one, "eye")
    assert [line["answer"] for line in lines(tmp_path)] == [["beak", "eye"], None, ["eye"]]


def test_disagreement_is_live_and_names_come_last(tmp_path):
    one = panel(tmp_path)
    one.results.value = True
    assert on_page(one).count("two people are needed") == 2 and "0 people" in on_page(one)
    start(one, "Ana")
    give_all(one, ["beak", "leg", "pocket"])
    one.next_person.click()
    start(one, "Bo")
    assert one.chart.value == ""
    one.results.value = True
    while not one.session.finished:
        assert "beak" not in one.chart.value and "pocket" not in one.chart.value
        give(one, ["beak, eye", "leg", "knee"][one.session.picture])
    text = one.chart.value
    assert "<strong>0.25</strong>, 2 of 2 summaries" in text  # robin: 1/2 and 0
    assert "<strong>1.00</strong>, 1 of 1 summary" in text  # jeans
    assert "2 people" in text and "oboe" not in text
    assert "<strong>beak</strong><br>robin<br>2 people; you: beak, eye" in text
    assert text.count("<figure") == 3
    assert one.back.disabled  # who has seen the names cannot change an answer
    one.results.value = False
    assert one.chart.value == ""


def test_people_take_turns_and_come_back_after_a_restart(tmp_path):
    one = panel(tmp_path)
    start(one, "Ana")
    give(one, "beak")
    one.next_person.click()
    assert one.name.value == "" and "<img" not in on_page(one)
    start(one, "Bo")
    assert "1 of 3" in on_page(one) and one.tags.value == ""
    give(one, "leg")
    one.close()
    again = panel(tmp_path)  # another kernel
    start(again, "Ana")
    assert "2 of 3" in on_page(again)
    assert again.session.raters() == ["Ana", "Bo"]


def test_a_double_press_is_one_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(widgets, "_DOUBLE_CLICK", 60.0)
    one = panel(tmp_path)
    start(one)
    one.session._shown -= 61
    give(one, "beak")
    enter(one.tags)
    assert len(lines(tmp_path)) == 1 and one.message.value == ""


def test_an_answer_that_cannot_be_saved_says_so_and_waits(tmp_path, monkeypatch):
    one = panel(tmp_path)
    start(one)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(widgets, "_append", full)
        give(one, "beak")
    assert "could not be saved" in on_page(one) and one.tags.value == "beak"
    assert one.session.position == 0
    enter(one.tags)
    assert "could not be saved" not in on_page(one) and len(lines(tmp_path)) == 1


def test_closing_leaves_nothing_on_the_page_and_every_answer(tmp_path):
    made = []
    ipywidgets.Widget.on_widget_constructed(made.append)
    one = panel(tmp_path)
    ipywidgets.Widget.on_widget_constructed(None)
    start(one)
    give(one, "beak")
    controls = [widget for widget in made if isinstance(widget, ipywidgets.DOMWidget)]
    assert len(controls) > 12 and all(widget.comm is not None for widget in controls)
    one.close()
    assert all(widget.comm is None for widget in controls)
    one.close()  # twice is once
    assert len(lines(tmp_path)) == 1


def test_names_and_tags_are_text_not_markup(tmp_path):
    one = panel(tmp_path, class_names=["<script>a", '"', "&"])
    start(one, "<script>me")
    shown = one.picture.value + one.progress.value
    give_all(one, ["<b>bold", "<script>x", "<i>"])
    one.results.value = True
    shown += one.chart.value + one.message.value
    assert "<script" not in shown and "<b>" not in shown and "<i>" not in shown
    assert "&lt;b&gt;bold" in shown


def test_every_control_explains_itself(tmp_path):
    one = panel(tmp_path)
    fixed = [one.name, one.start, one.tags, one.give, one.cannot_tell, one.back]
    assert all(c.tooltip and c.description for c in (*fixed, one.next_person, one.results))
    assert repr(one) == "Tagging of 3 summaries: run this cell to take part."


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pictures": [], "classes": []}, "no summaries"),
        ({"pictures": pictures(2)}, "3 classes for 2 pictures"),
        ({"classes": [0, 0, 9]}, "class 9 has no name"),
        ({"pictures": [png(pictures()[0]), b"not a picture", b""]}, "summary 1 cannot be read"),
        ({"pictures": [png(pictures()[0])[:-28]] * 3}, "summary 0 cannot be read"),
    ],
)
def test_a_panel_of_nothing_or_of_a_mismatch_is_refused(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=problem):
        panel(tmp_path, **changes)
