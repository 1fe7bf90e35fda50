"""Blind rating: nothing tells the model or the class, no answer is lost, the counting is right."""

import json
import re

import ipywidgets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.widgets import people as widgets
from helpers.widgets.people import RatingSession, blind_rating

CLASSES = ["cat", "dog", "Ente"]
LABELS = [0, 1, 2, 0, 1, 2]
MODELS = ["baseline"] * 3 + ["masked"] * 3


def session(folder, rater="", **changes):
    given = {"labels": LABELS, "models": MODELS, "class_names": CLASSES} | changes
    return RatingSession(**given, file=folder / "ratings.jsonl", rater=rater)


def lines(folder):
    return [json.loads(line) for line in (folder / "ratings.jsonl").read_text("utf-8").splitlines()]


def answer_all(one, choose):
    while (picture := one.picture) is not None:
        one.answer(choose(picture))


# The session.


def test_each_answer_is_a_line_at_once(tmp_path):
    one = session(tmp_path / "new", "Ana")
    picture = one.picture
    one.answer(2)
    (line,) = lines(tmp_path / "new")
    assert 0 <= line.pop("seconds") < 60
    assert line == {
        "set": one.set,
        "rater": "Ana",
        "picture": picture,
        "model": MODELS[picture],
        "true": LABELS[picture],
        "answer": 2,
    }
    one.answer(None)
    assert lines(tmp_path / "new")[1]["answer"] is None


def test_every_picture_is_asked_once(tmp_path):
    one, asked = session(tmp_path), []
    while not one.finished:
        asked.append(one.picture)
        one.answer(0)
    assert sorted(asked) == list(range(6)) and asked == one.order
    with pytest.raises(ValueError, match="all 6 pictures have been named"):
        one.answer(0)


def test_an_interrupted_session_goes_on(tmp_path):
    first = session(tmp_path, "Ana")
    for _ in range(4):
        first.answer(1)
    again = session(tmp_path, "Ana")
    assert (again.order, again.position) == (first.order, 4)
    assert again.given == dict.fromkeys(first.order[:4], 1)
    assert session(tmp_path, "Bo").position == 0


@pytest.mark.parametrize("keep", [1, 20, -2])
def test_a_line_cut_off_is_ignored_and_stays_apart_from_the_next(tmp_path, keep):
    one = session(tmp_path, "Ana")
    one.answer(1)
    one.answer(1)
    file = tmp_path / "ratings.jsonl"
    whole, cut = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(whole + cut[:keep])
    again = session(tmp_path, "Ana")
    assert again.position == 1 and again.picture == one.order[1]
    again.answer(2)
    assert session(tmp_path, "Ana").given == {one.order[0]: 1, one.order[1]: 2}
    assert file.read_bytes().startswith(whole + cut[:keep] + b"\n")


def test_a_name_cut_within_a_letter_is_ignored(tmp_path):
    one = session(tmp_path, "Ö")
    one.answer(1)
    file = tmp_path / "ratings.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: whole.index("Ö".encode()) + 1])
    assert session(tmp_path, "Ö").given == {one.order[0]: 1}


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [1, *LABELS[1:]]},
        {"models": ["masked", *MODELS[1:]]},
        {"class_names": ["cat", "dog", "duck"]},
        {"pictures": "others"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_answers_to_another_set_neither_count_nor_vanish(tmp_path, change):
    answer_all(session(tmp_path, "Ana", **change), lambda _: 0)
    before = (tmp_path / "ratings.jsonl").read_bytes()
    one = session(tmp_path, "Ana")
    assert one.position == 0 and one.raters() == []
    assert one.accuracy() == dict.fromkeys(["baseline", "masked"], (None, None, None, 0))
    one.answer(0)
    assert (tmp_path / "ratings.jsonl").read_bytes().startswith(before)
    assert len(session(tmp_path, "Ana", **change).given) == 6


def test_lines_of_somebody_else_are_left_alone(tmp_path):
    stranger = 'null\n[1]\n{"note": "by hand"}\n\n'
    (tmp_path / "ratings.jsonl").write_text(stranger)
    one = session(tmp_path)
    one.answer(0)
    assert len(session(tmp_path).given) == 1
    assert (tmp_path / "ratings.jsonl").read_text().startswith(stranger)


def test_going_back_changes_an_answer(tmp_path):
    one = session(tmp_path)
    one.back()
    assert one.position == 0  # nothing before the first
    for choice in (0, 1, 2):
        one.answer(choice)
    one.back()
    one.back()
    assert one.picture == one.order[1]
    one.answer(None)
    assert one.position == 3  # the third keeps its answer
    assert [line["answer"] for line in lines(tmp_path)] == [0, 1, 2, None]
    assert session(tmp_path).given == dict(zip(one.order, (0, None, 2), strict=False))
    assert sum(n for *_, n in one.accuracy().values()) == 3


def test_accuracy_counts_everybody_and_not_knowing_as_wrong(tmp_path):
    # Ana: baseline 1 of 3, masked 3 of 3. Bo: baseline 0 of 3 (cannot tell), masked 2 of 3.
    answer_all(session(tmp_path, "Ana"), lambda p: LABELS[p] if p in (0, 3, 4, 5) else 0)
    bo = session(tmp_path, "Bo")
    answer_all(bo, lambda p: {3: 0, 4: 1, 5: 1}.get(p))
    share = {model: (round(s, 6), n) for model, (s, _, _, n) in bo.accuracy().items()}
    assert share == {"baseline": (round(1 / 6, 6), 6), "masked": (round(5 / 6, 6), 6)}
    assert list(share) == ["baseline", "masked"]
    assert bo.raters() == ["Ana", "Bo"]


def test_wilson_interval_by_hand(tmp_path):
    # 8 of 10, z = 1.95996, z² = 3.84146: centre (0.8 + z²/20) / (1 + z²/10) = 0.71674,
    # half width z √(0.8 · 0.2 / 10 + z²/400) / (1 + z²/10) = 0.22658.
    one = session(tmp_path, labels=[0] * 20, models=["a"] * 10 + ["b"] * 10)
    answer_all(one, lambda p: int(p in (8, 9) or p >= 10))
    share, low, high, n = one.accuracy()["a"]
    assert (share, n) == (0.8, 10)
    assert (low, high) == pytest.approx((0.71674 - 0.22658, 0.71674 + 0.22658), abs=2e-5)
    # 0 of 10: from 0 to z² / (10 + z²).
    assert one.accuracy()["b"] == pytest.approx((0, 0, 3.84146 / 13.84146, 10), abs=1e-6)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_any_name_finds_its_answers_again(tmp_path_factory, rater):
    folder = tmp_path_factory.mktemp("any")
    one = session(folder, rater)
    one.answer(1)
    one.answer(None)
    assert session(folder, rater).given == {one.order[0]: 1, one.order[1]: None}
    assert (folder / "ratings.jsonl").read_bytes().count(b"\n") == 2


def test_names_are_one_however_they_are_typed(tmp_path):
    session(tmp_path, "Zoë 李").answer(1)
    assert session(tmp_path, " Zoe\u0308 李 ").position == 1
    assert "Zoë 李" in (tmp_path / "ratings.jsonl").read_text("utf-8")
    assert session(tmp_path, "  ").rater == "anonymous"


def test_the_order_is_a_persons_own_and_groups_no_model(tmp_path):
    models = ["a"] * 30 + ["b"] * 30
    what = {"labels": [0] * 60, "models": models}
    orders = [tuple(session(tmp_path, f"rater {i}", **what).order) for i in range(40)]
    assert len(set(orders)) == 40
    assert tuple(session(tmp_path, "rater 3", **what).order) == orders[3]
    # Shuffled, 59 neighbours change model 30 times on average (sd 3.8); in blocks, once.
    changes = [sum(models[p] != models[q] for p, q in zip(o, o[1:], strict=False)) for o in orders]
    assert min(changes) > 15 and 28.5 < sum(changes) / 40 < 32.5
    first_half = [sum(models[p] == "a" for p in order[:30]) for order in orders]
    assert 14 < sum(first_half) / 40 < 16
    other = RatingSession([0] * 60, models, CLASSES, file=tmp_path / "x", rater="rater 3", seed=1)
    assert tuple(other.order) != orders[3]


def test_nothing_is_revealed_before_the_end(tmp_path):
    one = session(tmp_path)
    assert "masked" not in repr(one) and str(LABELS) not in repr(one)
    with pytest.raises(ValueError, match="6 of 6 pictures are still to be named"):
        one.reveal()
    answer_all(one, lambda p: None if p == 0 else 1)
    rows = one.reveal()
    assert [row["picture"] for row in rows] == [0, 3, 1, 4, 2, 5]  # by class, then by model
    assert rows[0] == {
        "picture": 0,
        "model": "baseline",
        "class": "cat",
        "answer": "cannot tell",
        "right": False,
    }
    assert [row["right"] for row in rows] == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": [], "models": []}, "no pictures"),
        ({"models": ["a"]}, "1 models for 6 pictures"),
        ({"labels": [0, 1, 3, 0, 1, 2]}, "label 3 has no class name; there are 3"),
        ({"labels": [0, 1, -1, 0, 1, 2]}, "label -1 has no class name"),
    ],
)
def test_what_cannot_be_rated_is_refused(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=problem):
        session(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("choice", [3, -1])
def test_a_class_that_is_not_there_is_refused(tmp_path, choice):
    one = session(tmp_path)
    with pytest.raises(ValueError, match="there is no class"):
        one.answer(choice)
    assert one.position == 0 and not (tmp_path / "ratings.jsonl").exists()


# The panel.


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(widgets, "_DOUBLE_CLICK", 0.0)
    yield
    ipywidgets.Widget.close_all()


def pictures(n=6, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, size, size, generator=generator)


def panel(folder, **changes):
    what = {"pictures": pictures(), "labels": LABELS, "models": MODELS, "class_names": CLASSES}
    return blind_rating(**(what | changes), file=folder / "ratings.jsonl")


def on_page(widget):
    """Everything that is displayed, the buttons' names and tooltips included."""
    children = getattr(widget, "children", ())
    own = (getattr(widget, name, None) for name in ("value", "description", "tooltip"))
    return " ".join([*map(on_page, children), *(part for part in own if isinstance(part, str))])


def start(one, name=""):
    one.name.value = name
    one.start.click()


def name_all(one, choose=lambda picture: LABELS[picture]):
    while not one.session.finished:
        choice = choose(one.session.picture)
        (one.cannot_tell if choice is None else one.buttons[choice]).click()


def test_a_whole_round_by_clicking(tmp_path):
    one = panel(tmp_path)
    assert "6 pictures, one at a time" in on_page(one) and "<img" not in on_page(one)
    start(one, "Ana")
    seen = []
    for i in range(6):
        assert f"{i + 1} of 6" in one.progress.value
        assert f'alt="picture {i + 1} of 6, model and class hidden"' in on_page(one)
        assert not re.search("baseline|masked", on_page(one))  # blind
        seen.append(one.picture.value)
        one.buttons[LABELS[one.session.picture]].click()
        assert len(lines(tmp_path)) == i + 1
    assert len(set(seen)) == 6
    assert "Thank you, Ana" in on_page(one) and "<img" not in on_page(one)
    one.results.value = True
    assert "You recognised 6 of 6" in on_page(one)
    assert on_page(one).count("✓ right") == on_page(one).count("<figure") == 6
    assert all(line["rater"] == "Ana" for line in lines(tmp_path))


def test_the_picture_is_the_one_that_is_asked_for(tmp_path):
    # one grey per picture; a PNG of each to compare
    grey = torch.arange(0, 240, 40, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 4, 5)
    one = panel(tmp_path, pictures=grey)
    start(one)
    for _ in range(6):
        expected = widgets.Image.new("RGB", (5, 4), (40 * one.session.picture,) * 3)
        source = re.search(r'src="(.*?)"', one.picture.value).group(1)
        assert source == re.search(r'src="(.*?)"', widgets._image(expected, "")).group(1)
        one.cannot_tell.click()


def test_floats_and_bytes_are_the_same_pictures(tmp_path):
    as_bytes = (pictures() * 255).round().to(torch.uint8)
    one, other = panel(tmp_path), panel(tmp_path, pictures=as_bytes, labels=torch.tensor(LABELS))
    assert one.session.set == other.session.set
    assert panel(tmp_path, pictures=pictures().flip(0)).session.set != one.session.set


def test_results_live_in_words_and_bars(tmp_path):
    one = panel(tmp_path)
    one.results.value = True
    assert on_page(one).count("no answers yet") == 2 and "0 people" in on_page(one)
    assert "Blind first" in on_page(one)
    start(one)
    assert one.chart.value == ""  # a new person starts blind
    one.results.value = True
    name_all(one, lambda p: LABELS[p] if p >= 3 else None)
    assert "<strong>100%</strong> (44 to 100), 3 answers" in on_page(one)  # Wilson, 3 of 3
    assert "<strong>0%</strong> (0 to 56), 3 answers" in on_page(one)
    assert "guessing, 33%" in on_page(one) and "1 person" in on_page(one)
    assert "✗ you: cannot tell" in on_page(one)
    one.results.value = False
    assert one.chart.value == ""


def test_back_marks_the_answer_and_ends_with_the_solution(tmp_path):
    one = panel(tmp_path)
    start(one)
    assert one.back.disabled
    one.buttons[1].click()
    assert not one.back.disabled and {b.icon for b in one.buttons} == {""}
    one.back.click()
    assert [b.icon for b in one.buttons] == ["", "check", ""] and one.cannot_tell.icon == ""
    one.cannot_tell.click()
    one.back.click()
    assert one.cannot_tell.icon == "check"
    name_all(one)
    one.back.click()  # after the last: not yet seen, can be changed
    assert "6 of 6" in on_page(one)
    name_all(one)
    one.results.value = True
    one.results.value = False
    assert one.back.disabled


def test_people_take_turns_and_come_back(tmp_path):
    one = panel(tmp_path)
    start(one, "Ana")
    one.buttons[0].click()
    one.next_person.click()
    assert one.name.value == "" and "<img" not in on_page(one)
    start(one, "Bo")
    assert "1 of 6" in on_page(one)
    one.buttons[0].click()
    one.next_person.click()
    start(one, "Ana")
    assert "2 of 6" in on_page(one)
    assert one.session.raters() == ["Ana", "Bo"]


def test_the_enter_key_starts(tmp_path):
    one = panel(tmp_path)
    one.name.value = "Ana"
    one.name._handle_custom_msg({"event": "submit"}, [])
    assert one.session.rater == "Ana" and "1 of 6" in on_page(one)


def test_a_double_click_is_one_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(widgets, "_DOUBLE_CLICK", 60.0)
    one = panel(tmp_path)
    start(one)
    one.session._shown -= 61
    one.buttons[0].click()
    one.buttons[0].click()
    assert len(lines(tmp_path)) == 1 and one.session.position == 1


def test_an_answer_that_cannot_be_saved_says_so_and_waits(tmp_path, monkeypatch):
    one = panel(tmp_path)
    start(one)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(widgets, "_append", full)
        one.buttons[0].click()
    assert "could not be saved" in on_page(one) and "No space left" in on_page(one)
    assert one.session.position == 0 and "1 of 6" in on_page(one)
    one.buttons[0].click()
    assert "could not be saved" not in on_page(one) and len(lines(tmp_path)) == 1


def test_panels_are_independent_and_share_a_file(tmp_path):
    one, other = panel(tmp_path), panel(tmp_path)
    start(one, "Ana")
    start(other, "Bo")
    before = on_page(other)
    one.buttons[0].click()
    assert on_page(other) == before and other.session.position == 0
    other.buttons[0].click()
    assert one.session.raters() == ["Ana", "Bo"]
    one.close()
    other.buttons[0].click()
    assert other.session.position == 2


def test_closing_leaves_nothing_on_the_page_and_every_answer(tmp_path):
    made = []
    ipywidgets.Widget.on_widget_constructed(made.append)
    one = panel(tmp_path)
    ipywidgets.Widget.on_widget_constructed(None)
    start(one)
    one.buttons[0].click()
    controls = [widget for widget in made if isinstance(widget, ipywidgets.DOMWidget)]
    assert len(controls) > 15 and all(widget.comm is not None for widget in controls)
    one.close()
    assert all(widget.comm is None for widget in controls)
    one.close()  # twice is once
    assert len(lines(tmp_path)) == 1


def test_names_are_text_not_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    one = panel(tmp_path, models=[evil] * 6, class_names=["<b>", '"', "&"])
    start(one, evil)
    name_all(one)
    one.results.value = True
    shown = "".join((one.chart.value, one.message.value, one.picture.value, one.progress.value))
    assert "<script" not in shown and "<b>" not in shown and "&lt;script&gt;" in shown
    assert one.session.rater == evil


def test_every_control_explains_itself(tmp_path):
    one = panel(tmp_path)
    fixed = [one.name, one.start, one.cannot_tell, one.back, one.next_person, one.results]
    assert all(control.tooltip and control.description for control in (*one.buttons, *fixed))
    assert repr(one) == "Blind rating of 6 pictures: run this cell to take part."


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pictures": pictures(0), "labels": [], "models": []}, "no pictures"),
        ({"pictures": pictures(5)}, "6 labels for 5 pictures"),
        ({"pictures": pictures() * 255}, "within 0..1"),
        ({"pictures": pictures() * float("nan")}, "within 0..1"),
        ({"models": ["a"]}, "1 models for 6 pictures"),
    ],
)
def test_a_panel_of_nothing_or_of_a_mismatch_is_refused(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=problem):
        panel(tmp_path, **changes)
