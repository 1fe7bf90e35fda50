"""The committed notebooks keep the contract, and each of its rules can be broken."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns
from notebook_contract import BEGIN, END, violations

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
TITLE = """# 00 · Made up

**Level** easy  ·  **Time** 3 minutes on two cores

**You will do.** This. **You will learn.** That. **You need.** Nothing.
"""
FIGURE = (
    '<figure><img alt="Nine drawn scenes" src="data:image/png;base64,AAAA/tmp/AAAA">'
    "<figcaption>Nine scenes, <em>demo</em> profile.</figcaption></figure>"
)


def test_there_are_notebooks():
    assert [n.stem.split("_")[0] for n in NOTEBOOKS] == [f"{i:02}" for i in range(len(NOTEBOOKS))]
    assert NOTEBOOKS


def test_every_notebook_has_exercises_and_their_solutions():
    names = [path.name for path in NOTEBOOKS]
    assert [path.name for path in EXERCISES] == names
    assert [path.name for path in SOLUTIONS] == names


@pytest.mark.parametrize(
    "path", NOTEBOOKS + SOLUTIONS + EXERCISES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_committed_notebook_keeps_the_contract(path):
    found = violations(path)
    assert not found, "\n".join(found)


# ---- the syllabus fits them ----

SYLLABUS = (ROOT / "notebooks" / "README.md").read_text()
AGENDA = re.compile(r"^\| minutes .*\n\|[-| ]+\n((?:\|.*\n)+)", re.M)
INTERVAL = re.compile(r"\[-?\d+(?:\.\d+)?, -?\d+(?:\.\d+)?\]")


def test_every_session_takes_ninety_minutes():
    agendas = AGENDA.findall(SYLLABUS)
    assert len(agendas) == 7  # five sessions, and two for six
    for rows in agendas:
        assert sum(int(row.split("|")[1]) for row in rows.splitlines()) == 90, rows


def test_the_syllabus_leads_to_every_notebook_and_leaves_no_gap():
    for path in NOTEBOOKS:
        for folder in ("", "exercises/", "solutions/"):
            assert f"]({folder}{path.name})" in SYLLABUS
    assert "TODO" not in SYLLABUS


def test_every_interval_of_the_syllabus_stands_in_a_notebook():
    """The teacher's answers are what the committed notebooks say."""
    said = " ".join(_plain(path.read_text()) for path in NOTEBOOKS)
    stale = [interval for interval in INTERVAL.findall(_plain(SYLLABUS)) if interval not in said]
    assert not stale, f"no notebook says {', '.join(stale)}"


def _plain(text: str) -> str:
    """On one line, without percent signs and with the keyboard's minus (which JSON may escape)."""
    text = " ".join(text.split()).replace("%", "")
    return text.replace("−", "-").replace("\\u2212", "-")


# ---- every rule can be broken ----


def html(text):
    return new_output("display_data", data={"text/html": text, "text/plain": "figure"})


def shown(data):
    return new_output("display_data", data=data)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def valid():
    """The smallest notebook that keeps the contract: cells 0, 2, 4... text, 1, 3, 5... code."""
    cells = []
    for i in range(16):
        cells.append(new_markdown_cell("word " * 60))
        cells.append(new_code_cell("x = 1", execution_count=i + 1))
    cells[0].source = TITLE
    cells[1].source = 'PROFILE = "demo"\nDATA_ROOT = None\nLIMIT = None'
    cells[1].metadata["tags"] = ["parameters"]
    cells[3].source = 'course = start(PROFILE, DATA_ROOT, LIMIT, notebook="00_made")'
    cells[5].source = "from helpers.widgets.people import blind_rating"
    for cell in cells[3:11:2]:
        cell.metadata["tags"] = ["nbval-check-output"]
        cell.outputs = [stream("accuracy 0.9")]
    cells[12].source = "## 3 · Ask the room\n" + cells[12].source
    cells[13].outputs = [html(FIGURE)]
    cells[17].source = "blind_rating(pictures)"
    cells[17].metadata["tags"] = ["widget"]
    cells[17].outputs = [shown({"text/plain": "Blind rating: run this cell to take part."})]
    cells[28].source = "## 4 · What would falsify this?\nA better idea."
    cells[30].source = "## 5 · Exercises\n[Here](exercises/00_made.ipynb)."
    cells[31].source = "course.provenance()"
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def solution():
    """The smallest solved exercise."""
    code = [
        new_code_cell("from helpers import check", execution_count=1),
        new_code_cell(f"def mine():\n    {BEGIN}\n    return 1\n    {END}", execution_count=2),
        new_code_cell("check.mine(mine)", execution_count=3, outputs=[stream("Right.")]),
    ]
    return new_notebook(cells=code, metadata={"kernelspec": KERNEL})


def exercise():
    """The smallest exercise."""
    code = [
        "from helpers import check",
        "def mine():\n    raise NotImplementedError",
        "check.mine(mine)",
    ]
    cells = [new_code_cell(source) for source in code]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def saved(notebook, folder):
    folder.mkdir(exist_ok=True)
    path = folder / "00_made.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("made", "kind"), [(valid, "notebooks"), (solution, "solutions"), (exercise, "exercises")]
)
def test_a_notebook_can_keep_the_contract(made, kind, tmp_path):
    assert violations(saved(made(), tmp_path / kind)) == []


def put(index, **changes):
    """A change to one cell."""

    def change(notebook):
        notebook.cells[index].update(copy.deepcopy(changes))

    return change


def tags(index, *names):
    def change(notebook):
        notebook.cells[index].metadata["tags"] = list(names)

    return change


def kernel(notebook):
    notebook.metadata["kernelspec"]["name"] = "my-environment"


def metadata(notebook):
    notebook.metadata["papermill"] = {"input_path": "/home/me/notebook.ipynb"}


def fewer(notebook):
    del notebook.cells[18:24]
    for number, cell in enumerate(notebook.cells[1::2], 1):
        cell.execution_count = number
    notebook.cells[2].source = "word " * 400


def more(notebook):
    notebook.cells[24:24] = [new_markdown_cell("a") for _ in range(29)]


def shorter(notebook):
    for cell in notebook.cells[2:28:2]:
        cell.source = cell.source.replace("word " * 60, "word " * 40)


def long_cells(notebook):
    for cell in notebook.cells[1:-1:2]:
        cell.source += "\nx = 1" * 5


def check_all(notebook):
    for i in (3, 5, 7, 9, 11, 15, 19, 21, 23):
        put(i, outputs=[stream("fine")])(notebook)
        tags(i, "nbval-check-output")(notebook)


def text(index, old, new):
    """One place of a cell's source, changed."""

    def change(notebook):
        assert old in notebook.cells[index].source
        notebook.cells[index].source = notebook.cells[index].source.replace(old, new)

    return change


def titles(*at):
    def change(notebook):
        for i in at:
            notebook.cells[i].source = "## Elsewhere\n" + notebook.cells[i].source

    return change


def no_panel(notebook):
    put(17, source="x = 1", metadata={}, outputs=[])(notebook)


def later_parameters(notebook):
    first, second = notebook.cells[1], notebook.cells[3]
    first.source, second.source = second.source, first.source
    first.metadata, second.metadata = second.metadata, first.metadata
    first.outputs, second.outputs = second.outputs, first.outputs


def view(notebook):
    notebook.cells[17].outputs[0].data["application/vnd.jupyter.widget-view+json"] = {}


BROKEN = {
    "too big": (put(15, outputs=[stream("x" * 1_000_000)]), "bytes; a notebook stays below"),
    "too few cells": (fewer, "26 cells"),
    "too many cells": (more, "61 cells"),
    "too little text": (shorter, "words of text; 800"),
    "too much text": (put(2, source="word " * 1_300), "words of text; 800 to 2000"),
    "long cells": (long_cells, "median code cell has 6"),
    "a long cell": (put(15, source="x = 1\n" * 26), "longest code cell has 26 lines"),
    "not executed": (put(15, execution_count=None), "execution counts"),
    "out of order": (put(15, execution_count=9), "execution counts"),
    "error": (
        put(15, outputs=[new_output("error", ename="KeyError", evalue="", traceback=[])]),
        "cell 8 ends in KeyError",
    ),
    "stderr": (put(15, outputs=[stream("careful", "stderr")]), "cell 8 writes on stderr"),
    "no parameters": (tags(1), "0 cells tagged `parameters`"),
    "two parameters": (tags(15, "parameters"), "2 cells tagged `parameters`"),
    "another profile": (put(1, source='PROFILE = "photos"'), "does not say PROFILE"),
    "too few checked": (tags(3), "3 cells tagged `nbval-check-output`"),
    "too many checked": (check_all, "9 cells tagged `nbval-check-output`"),
    "nothing to check": (put(3, outputs=[]), "cell 2 is to be checked but has no output"),
    "a bare picture": (
        put(15, outputs=[shown({"image/png": "AAAA"})]),
        "cell 8 shows a bare picture",
    ),
    "no alt": (put(13, outputs=[html(FIGURE.replace("alt", "title"))]), "without alt text"),
    "empty alt": (put(13, outputs=[html(FIGURE.replace("Nine drawn scenes", " ", 1))]), "alt text"),
    "alt of one word": (
        put(13, outputs=[html(FIGURE.replace("Nine drawn scenes", "Figure", 1))]),
        "'Figure', which tells nobody",
    ),
    "a drawing without a label": (
        put(15, outputs=[html("<figure><svg/><figcaption>A</figcaption>")]),
        "alt text",
    ),
    "a picture in the text": (put(2, source="word " * 60 + "![](x.png)"), "cell [2] has a picture"),
    "no figure": (
        put(15, outputs=[html('<img alt="Nine drawn scenes" src="x.png">')]),
        "cell 8 shows a picture outside <figure>",
    ),
    "no caption": (
        put(13, outputs=[html(re.sub("<figcaption>.*</figcaption>", "", FIGURE))]),
        "a figure without a caption",
    ),
    "empty caption": (
        put(13, outputs=[html(re.sub("<figcaption>.*<", "<figcaption> <", FIGURE))]),
        "a figure without a caption",
    ),
    "another kernel": (kernel, "the kernel is 'my-environment'"),
    "a path in the code": (put(15, source='open("/home/me/x.png")'), "/home/me/x.png"),
    "a path in an output": (put(15, outputs=[stream("in /Users/me/x")]), "/Users/me/x"),
    "a path in html": (put(15, outputs=[html("<p>/tmp/x</p>")]), "/tmp/x"),
    "a path in the text": (put(2, source="word " * 60 + "see /root/x"), "/root/x"),
    "a path of Windows": (put(15, source=r'open("C:\\Users\\me")'), r"C:\\Users"),
    "a path in the metadata": (metadata, "/home/me/notebook.ipynb"),
    "another number": (text(0, "# 00", "# 01"), "no title that begins with '# 00 · '"),
    "no time": (text(0, "3 minutes", "not long"), "does not say how long"),
    "no purpose": (text(0, "You will do", "Do"), "does not say 'You will do'"),
    "no lesson": (text(0, "You will learn", "Learn"), "does not say 'You will learn'"),
    "no needs": (text(0, "You need", "Need"), "does not say 'You need'"),
    "parameters late": (later_parameters, "the parameters cell is not the first code cell"),
    "not set up": (put(3, source="x = 1"), "is not in the second code cell alone"),
    "set up twice": (put(15, source="start(PROFILE)"), "is not in the second code cell alone"),
    "another's name": (text(3, "00_made", "01_made"), 'does not say notebook="00_made"'),
    "not falsifiable": (text(28, "falsify", "confirm"), "no section 'What would falsify this?'"),
    "no exercises": (text(30, "Exercises", "Homework"), "no section 'Exercises'"),
    "exercises unlinked": (text(30, "(ex", "(../ex"), "does not link to exercises/00_made.ipynb"),
    "no provenance": (text(31, "provenance", "figure"), "the last cell is not"),
    "no panel": (no_panel, "no cell tagged `widget`"),
    "another tag": (tags(19, "widget"), "cell 10 is tagged `widget` but shows no panel"),
    "no figure before a panel": (titles(14), "cell 9 shows a panel without a figure before it"),
    "a dead view": (view, "cell 9 holds the view of a widget that has ended"),
    "no words": (put(17, outputs=[]), "cell 9 shows nothing, not a word"),
    "Python's words": (
        put(17, outputs=[shown({"text/plain": "VBox(children=(Text(), Text()))"})]),
        "cell 9 shows nothing, not a word",
    ),
}

BROKEN_SOLUTIONS = {
    "too big": (put(1, outputs=[stream("x" * 300_000)]), "stays below 300,000"),
    "not executed": (put(1, execution_count=None), "execution counts"),
    "stderr": (put(1, outputs=[stream("careful", "stderr")]), "cell 2 writes on stderr"),
    "no check": (put(2, source="mine()"), "no cell checks a solution"),
    "a silent check": (put(2, outputs=[]), "cell 3 checks a solution but has no output"),
    "nothing solved": (put(1, source="x = 1"), f"no cell says {BEGIN}"),
    "an open end": (text(1, END, ""), "cell 2: ### BEGIN SOLUTION and ### END SOLUTION do not"),
    "a path": (put(1, source=f"{BEGIN}\nopen('/tmp/x')\n{END}"), "/tmp/x"),
}

BROKEN_EXERCISES = {
    "executed": (put(1, execution_count=1), "code cell 2 was run"),
    "an output": (put(2, outputs=[stream("Right.")]), "code cell 3 was run"),
    "solved": (text(1, "    raise", f"    {BEGIN}\n    raise"), "code cell 2 holds a solution"),
    "no check": (put(2, source="mine()"), "no cell checks an answer"),
    "nothing to do": (text(1, "raise NotImplementedError", "return 1"), "nothing is left to do"),
}


@pytest.mark.parametrize(("break_it", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_each_rule_can_be_broken(break_it, told, tmp_path):
    breaks(valid(), break_it, told, tmp_path)


@pytest.mark.parametrize(
    ("break_it", "told"), BROKEN_SOLUTIONS.values(), ids=BROKEN_SOLUTIONS.keys()
)
def test_each_rule_for_solutions_can_be_broken(break_it, told, tmp_path):
    breaks(solution(), break_it, told, tmp_path / "solutions")


@pytest.mark.parametrize(
    ("break_it", "told"), BROKEN_EXERCISES.values(), ids=BROKEN_EXERCISES.keys()
)
def test_each_rule_for_exercises_can_be_broken(break_it, told, tmp_path):
    breaks(exercise(), break_it, told, tmp_path / "exercises")


def breaks(notebook, break_it, told, folder):
    break_it(notebook)
    found = violations(saved(notebook, folder))
    assert len(found) == 1 and told in found[0]


@pytest.mark.parametrize(
    ("imported", "called"),
    [
        ("from helpers.widgets import tagging", "tagging(sheets)"),
        ("from helpers.widgets.people import tagging as name_them", "x = name_them(sheets)"),
        ("from helpers.widgets import people", "people.tagging(sheets)"),
        ("from helpers import widgets", "display(widgets.people.tagging(sheets))"),
        ("import helpers.widgets.scenes", "helpers.widgets.scenes.Scenes(world)"),
    ],
)
def test_a_panel_is_known_by_where_it_comes_from(imported, called, tmp_path):
    """Its view is not committed, so the outputs cannot tell."""
    notebook = valid()
    notebook.cells[5].source = imported
    notebook.cells[17].update(source=called, metadata={})
    found = violations(saved(notebook, tmp_path))
    assert found[0] == "cell 9 shows a panel but is not tagged `widget`"


def test_what_only_sounds_like_a_panel_is_none(tmp_path):
    notebook = valid()
    notebook.cells[19].source = "from helpers import figures\nfigures.widgets.blind_rating_table()"
    assert violations(saved(notebook, tmp_path)) == []


def test_web_addresses_and_formulas_are_not_local_paths(tmp_path):
    notebook = valid()
    notebook.cells[0].source += r" https://example.org/home/x ../data $A:\mathbb R$ results/tmp/"
    assert violations(saved(notebook, tmp_path)) == []


# ---- nbval's own traps ----

SANITIZER = (ROOT / "tests" / "nbval_sanitize.cfg").read_text()


def test_nbval_has_loaded_every_rule():
    """It drops a rule whose replacement is empty without a word."""
    sections = re.findall(r"^\[.+\]$", SANITIZER, flags=re.MULTILINE)
    assert len(get_sanitize_patterns(SANITIZER)) == len(sections) == SANITIZER.count("\nregex:")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FIGURE, FIGURE.replace("data:image/png;base64,AAAA/tmp/AAAA", "PICTURE")),
        ("took 12.3 s, or 2 min", "took DURATION, or DURATION"),
        ("<f at 0x7f00Ab12>", "<f at ADDRESS>"),
        ("on 2025-01-31T10:11:12", "on DATE"),
        ("18 scenes, 3 seeds, accuracy 0.93", "18 scenes, 3 seeds, accuracy 0.93"),
    ],
)
def test_the_rules_hide_what_differs_and_nothing_else(before, after):
    for pattern, replacement in get_sanitize_patterns(SANITIZER):
        before = re.sub(pattern, replacement, before)
    assert before == after
