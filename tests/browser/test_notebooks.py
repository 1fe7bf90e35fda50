"""Every notebook in JupyterLab in Chromium: it runs, and what is moved on it moves the output.

`MOVES` says it for the panels that answer by themselves; panels that people answer have a function
each below.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def move(how, *what, changes=("pictures",)):
    """A step: a method of `Panel` with what it is given, which must change all of these."""

    def step(panel):
        with panel.changes(*changes):
            getattr(panel, how)(*what)

    return step


TEXT, ALT, BOTH = ("text",), ("alt",), ("pictures", "text")


# ---- 01 ----


def paints(panel):
    """Both climbs end, and were seen on their way."""
    with panel.changes(*BOTH):
        panel.press("Paint", "Enter")
    assert _said(panel).count("Step 40 of 40.") == 2


def paints_and_stops(panel):
    panel.drag("Steps", 1.0)
    panel.press("Paint")
    _wait(panel, lambda: "Step 20 of 200." in _said(panel))
    _stop(panel)
    assert 20 <= int(re.search(r"Step (\d+) of 200\.", _said(panel))[1]) < 200


def _stop_if_in_time(panel, label, options):
    """Work of a tenth of a second may have ended before Stop is pressed: then another is begun. On
    a machine too fast for all of them, that nothing breaks is what is left to see."""
    for option in options:
        panel.choose(label, option)
        panel.hurry("Stop")
        panel.settle()
        if panel.shows("status") == ["Stopped."]:
            return _stays(panel)
    assert panel.shows("status") == ["Ready."]


def _stop(panel):
    panel.press("Stop")
    panel.settle()
    _stays(panel)


def _stays(panel):
    """What is shown stays as it is when it is stopped."""
    assert panel.shows("status") == ["Stopped."]
    seen = panel.shows("pictures")
    panel.lab.page.wait_for_timeout(700)
    assert panel.shows("pictures") == seen and panel.shows("status") == ["Stopped."]


# ---- 02 ----


def fits_the_mask(panel):
    assert "at step 150 of 150" in _said(panel)


def stops_fitting(panel):
    panel.slide("λ1, size", -1)
    _wait(panel, lambda: re.search(r"at step [1-9]\d* of 150", _said(panel)))
    _stop(panel)
    assert "at step 150 of 150" not in _said(panel)


def leaves_through(panel):
    """A member of the second row, by its key, is shown whole, and it alone is marked."""
    row = panel.root.locator(".widget-box:has(> button[class*=pictures-])").nth(1)
    number = re.search(r"no\. (\d+)", row.locator("button").nth(1).inner_text())[1]
    with panel.changes(*BOTH):
        panel.pick(1, "Enter", group=1)
    assert f"Image {number}:" in _said(panel) and "summary 2" in _said(panel)
    assert panel.root.locator("button .fa-check").count() == 1


def is_told_what_is_not_explained(panel):
    """A network that was stopped early explains some classes only: a sentence, then on it goes."""
    with panel.changes():
        panel.choose("Class", "shepherd")
    panel.choose("Network", "AlexNet, 2 epochs")
    assert re.fullmatch(r"⚠ AlexNet, 2 epochs was stopped early .*\.", panel.problem())
    with panel.changes(*BOTH):
        panel.choose("Class", "robin")
    assert "AlexNet, 2 epochs, robin: summary 1" in _said(panel)


# ---- 03 ----


def stops_on_the_way_down(panel):
    _stop_if_in_time(panel, "Network", ("GoogLeNet", "ResNet", "VGG", "GoogLeNet"))


def follows_a_file(panel):
    """A file that is no picture is refused in one sentence; a picture is followed, without a mask;
    a click leads back to the scenes."""
    text = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture at all"}
    panel.upload("Upload an image", text)
    assert re.fullmatch(r"⚠ notes\.png cannot be used: [^.]+\.", panel.problem())

    stripes = np.zeros((90, 120, 3), np.uint8)
    stripes[:, ::10] = 200, 120, 0
    content = io.BytesIO()
    Image.fromarray(stripes).save(content, "PNG")
    good = {"name": "stripes.png", "mimeType": "image/png", "buffer": content.getvalue()}
    with panel.changes("pictures", "text", "alt"):
        panel.upload("Upload an image", good)
    assert "An image of stripes.png" in _said(panel)
    assert "No mask is known of this image" in _said(panel)
    panel.screenshot(f"{panel.title} uploaded")

    with panel.changes("pictures", "text", "alt"):
        panel.pick(1)
    assert "stripes.png" not in _said(panel) and "precision" in _said(panel)


def shows_what_it_starts_from(panel):
    """The dropdown is never blank: another image starts from its own predicted class."""
    with panel.changes():
        panel.pick(1)
    assert panel.chosen("Start from").startswith("the predicted class: ")


# ---- 04 ----


def searches(panel):
    """The backgrounds that fool a network are found, and the worst of them is taken."""
    with panel.changes(*BOTH):
        panel.tick("Search for backgrounds that fool", True, "Space")
    assert re.search(r"[1-9]\d* of 180 backgrounds fool", _said(panel))
    with panel.changes(*BOTH):
        panel.press("Take the worst")


def stops_searching(panel):
    _stop_if_in_time(panel, "Network", ("GoogLeNet", "VGG", "AlexNet"))


# ---- 05 ----


def looks_through_the_lenses(panel):
    assert panel.chosen("Class asked about").startswith("the one it names: ")
    assert re.search(r"1 painting\s+\d+% on the object", _said(panel))


def makes_a_mask_and_stops(panel):
    """For another class the mask is made anew; in the middle of it Stop ends it."""
    panel.step("Class asked about", 4)
    _wait(panel, lambda: re.search(r"\b[1-9]\d?% made", _said(panel)))
    _stop(panel)
    assert re.search(r"\b[1-9]\d?% made", _said(panel))


def _said(panel):
    return "\n".join(panel.shows("text"))


def _wait(panel, done):
    panel._until(done, 30, "not what was waited for")


# notebook -> panel's title -> steps, one after the other
MOVES = {
    "00_meet_the_scenes": {
        "One scene, one change at a time": [
            move("choose", "Class", "robin", changes=BOTH),
            move("slide", "Scene number", 3, changes=BOTH),
            move("drag", "Tie between backdrop and class", 0.0, changes=BOTH),
            move("slide", "Tie between backdrop and class", 10, changes=BOTH),
            move("choose", "Backdrop", "snow", changes=BOTH),
            *(move("press", f"Another {s}") for s in ("pose", "coat", "backdrop", "light")),
            *(move("tick", part) for part in ("eye", "beak", "wing", "head")),
            *(move("tick", part, True, "Space") for part in ("torso", "leg", "tail")),
            move("tick", "breast", changes=TEXT),  # not to be seen in every pose
            move("press", "As drawn", "Enter"),
        ],
    },
    "01_background_removal": {
        "Watch two networks paint": [
            *(
                move("choose", f"{side} {what}", option, changes=ALT)
                for side, options in {
                    "Left": ("pick-up", "noise, seed 0", "mean", "L2, jitter"),
                    "Right": ("cat", "mixed, seed 0", "noise", "no L2"),
                }.items()
                for what, option in zip(
                    ("class", "network", "start", "regulariser"), options, strict=True
                )
            ),
            paints,
            paints_and_stops,
        ],
    },
    "02_visual_summaries": {
        "Weigh the loss yourself": [
            fits_the_mask,
            move("choose", "Network", "VGG", changes=BOTH),
            move("choose", "Class", "eagle", changes=BOTH),
            move("slide", "Image", 2, changes=BOTH),
            move("drag", "λ2, smoothness", 0.0, changes=BOTH),
            move("slide", "λ3, sharpness", -4, changes=BOTH),
            fits_the_mask,
            stops_fitting,
        ],
        "Leaf through the summaries": [
            move("choose", "Network", "VGG", changes=BOTH),
            move("choose", "Class", "police van", changes=BOTH),
            is_told_what_is_not_explained,
            leaves_through,
        ],
    },
    "03_cnn_backtracking": {
        "From a decision to its pixels": [
            move("slide", "Layer", 2, changes=BOTH),
            move("slide", "sigma, pixels", -8, changes=BOTH),
            move("drag", "threshold", 0.3, changes=BOTH),
            move("choose", "Object", "eagle", changes=BOTH),
            move("step", "Start from", 2, changes=BOTH),
            shows_what_it_starts_from,
            move("choose", "Network", "GoogLeNet", changes=BOTH),
            move("choose", "Average", "all positive parts (ours)", changes=BOTH),
            move("choose", "Network", "VGG", changes=BOTH),
            move(
                "choose", "Fully connected", "the n largest of these (section III-A)", changes=BOTH
            ),
            move("slide", "n", -5, changes=BOTH),
            move("choose", "Convolution", "all channels above 0 (Algorithm 2)", changes=BOTH),
            move("choose", "Images", "two objects in one image", changes=BOTH),
            stops_on_the_way_down,
            follows_a_file,
        ],
    },
    "04_imagenet9": {
        "Any object on any background": [
            move("choose", "Object", "insect", changes=BOTH),
            move("choose", "Background of", "fish", changes=BOTH),
            move("pick", 4, changes=BOTH),
            move("pick", 6, "Enter", 1, changes=BOTH),
            searches,
            move("choose", "Network", "Mixed-Rand, seed 0", changes=BOTH),
            stops_searching,
        ],
        "Turn the tie": [
            move("slide", "Tie between backdrop and class", 1, changes=TEXT),
            move("drag", "Tie between backdrop and class", 0.0, changes=BOTH),
            move("choose", "Class", "fish", changes=BOTH),
        ],
    },
    "05_four_lenses": {
        "One image, one network, four lenses": [
            looks_through_the_lenses,
            move("choose", "Object", "fish", changes=BOTH),
            move("step", "Network", 3, changes=BOTH),
            move("pick", 2, "Enter", changes=BOTH),
            makes_a_mask_and_stops,
            move("pick", 1, changes=BOTH),
            looks_through_the_lenses,
        ],
    },
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


def two_at_once(lab, answers):
    """While one panel computes, the other answers; then both have what was asked of them."""
    mask, leaf = lab.panel("Weigh the loss yourself"), lab.panel("Leaf through the summaries")
    for title, member in (("ResNet", 2), ("GoogLeNet", 3)):
        with mask.changes(*BOTH):
            mask.choose("Network", title)
            mask.settle()
            mask.slide("Image", 1)
            _wait(mask, mask._working)
            with leaf.changes(*BOTH):
                leaf.pick(member)
            assert mask._working()
        assert "at step 150 of 150" in _said(mask) and "summary 1" in _said(leaf)


def _moved(title, steps):
    """Do the steps; with these every control was moved, and one of them with the keyboard."""

    def moved(lab, answers):
        panel = lab.panel(title)
        panel.settle()
        for step in steps:
            step(panel)
        panel.screenshot()
        assert panel.controls() <= panel.moved
        assert panel.by_keys

    return moved


TOGETHER = {"02_visual_summaries": [two_at_once]}


def _cases():
    """All of a notebook one after the other: it is then run once."""
    cases = []
    for notebook, panels in MOVES.items():
        cases.append(pytest.param(notebook, runs, id=f"{notebook}-runs"))
        for case in ANSWERED.get(notebook, []):
            cases.append(pytest.param(notebook, case, id=f"{notebook}-{case.__name__}"))
        for title, moves in panels.items():
            cases.append(pytest.param(notebook, _moved(title, moves), id=f"{notebook}-{title}"))
        for case in TOGETHER.get(notebook, []):
            cases.append(pytest.param(notebook, case, id=f"{notebook}-{case.__name__}"))
    return cases


@pytest.mark.parametrize(("notebook", "case"), _cases())
def test_notebook(ran, answers, notebook, case):
    lab = ran(notebook)
    case(lab, answers)
    assert not lab.complaints()


def test_every_notebook_is_tried():
    assert list(MOVES) == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
