"""Every notebook in JupyterLab in Chromium: it runs, and what is moved on it moves the output.

`MOVES` says it for the panels that answer by themselves; panels that people answer have a function
each below.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Move(NamedTuple):
    """One movement on a panel, and what it must change (see `Panel.shows`)."""

    how: str  # a method of `Panel`
    label: str  # of the control
    to: object = None
    changes: str = "pictures"


# notebook -> panel's title -> moves, one after the other
MOVES: dict[str, dict[str, list[Move]]] = {
    "00_meet_the_scenes": {},
    "01_background_removal": {},
    "02_visual_summaries": {},
    "03_cnn_backtracking": {},
    "04_imagenet9": {},
}


def runs(lab, answers):
    lab.screenshot("after running all cells")


def blind_rating(lab, answers):
    """Ana names every picture, changes one answer, and sees how often she was right."""
    panel = lab.panel("What does a network think its classes look like?")
    count = int(re.search(r"You will see (\d+) pictures", panel.shows("text")[0])[1])
    with panel.changes("pictures", "status"):
        panel.type("Your name", "Ana")
    names = panel.root.get_by_role("button").all_inner_texts()
    names = names[: names.index("cannot tell")]
    panel.screenshot("blind rating asks")
    first = panel.shows("pictures")
    _answer(panel, "press", names[0])
    with panel.changes("pictures", "status"):
        panel.press("Back", "Enter")
    assert panel.shows("pictures") == first
    _answer(panel, "press", names[1])
    for _ in range(count - 2):
        _answer(panel, "press", "cannot tell", "Space")
    _answer(panel, "press", names[0])
    assert panel.shows("status")[0].startswith("Thank you, Ana")
    with panel.changes("pictures", "text"):
        panel.press("Show the results")
    assert len(panel.shows("pictures")) == count
    panel.screenshot("blind rating answers")

    said = _lines(answers / "ratings" / "01_background_removal.jsonl")
    assert [line["rater"] for line in said] == ["Ana"] * (count + 1)
    assert [line["answer"] for line in said] == [0, 1, *[None] * (count - 2), 0]
    assert said[0]["picture"] == said[1]["picture"]
    assert len({line["picture"] for line in said}) == count


def tagging(lab, answers):
    """Ana tags two summaries and changes her mind, Ben tags one, and both are counted."""
    panel = lab.panel("What does a network look at?")
    with panel.changes("pictures", "status"):
        panel.type("Your name", "Ana")
    panel.screenshot("tagging asks")
    first = panel.shows("pictures")
    _answer(panel, "type", "Nouns", "head, beak")
    with panel.changes("pictures", "status"):
        panel.press("Back")
    assert panel.shows("pictures") == first
    assert panel.root.get_by_role("textbox").input_value() == "head, beak"
    _answer(panel, "type", "Nouns", "head")
    with panel.changes("pictures", "status", "text"):
        panel.press("Next person")
    with panel.changes("pictures", "status"):
        panel.type("Your name", "Ben")
    _answer(panel, "type", "Nouns", "wheel, head")
    with panel.changes("text"):
        panel.press("Show the results")
    panel.screenshot("tagging results")

    said = _lines(answers / "tags" / "02_visual_summaries.jsonl")
    assert [line["rater"] for line in said] == ["Ana", "Ana", "Ben"]
    assert [line["answer"] for line in said] == [["head", "beak"], ["head"], ["wheel", "head"]]


def _answer(panel, how, *what):
    """Answer, but not so soon after the last time that it is taken for a double click."""
    panel.lab.page.wait_for_timeout(300)
    with panel.changes("pictures", "status"):
        getattr(panel, how)(*what)


def _lines(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# Panels that people answer.
ANSWERED = {"01_background_removal": [blind_rating], "02_visual_summaries": [tagging]}


def _moved(title, moves):
    def moved(lab, answers):
        panel = lab.panel(title)
        panel.settle()
        for move in moves:
            with panel.changes(move.changes):
                given = (move.label,) if move.to is None else (move.label, move.to)
                getattr(panel, move.how)(*given)
        panel.screenshot()

    return moved


def _cases():
    """All of a notebook one after the other: it is then run once."""
    cases = []
    for notebook, panels in MOVES.items():
        cases.append(pytest.param(notebook, runs, id=f"{notebook}-runs"))
        for case in ANSWERED.get(notebook, []):
            cases.append(pytest.param(notebook, case, id=f"{notebook}-{case.__name__}"))
        for title, moves in panels.items():
            cases.append(pytest.param(notebook, _moved(title, moves), id=f"{notebook}-{title}"))
    return cases


@pytest.mark.parametrize(("notebook", "case"), _cases())
def test_notebook(ran, answers, notebook, case):
    lab = ran(notebook)
    case(lab, answers)
    assert not lab.complaints()


def test_every_notebook_is_tried():
    assert list(MOVES) == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
