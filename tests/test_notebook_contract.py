"""The committed notebooks keep the contract, and each of its rules can be broken."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns
from notebook_contract import violations

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
FIGURE = (
    '<figure><img alt="Nine scenes" src="data:image/png;base64,AAAA/tmp/AAAA">'
    "<figcaption>Nine scenes, <em>demo</em> profile.</figcaption></figure>"
)


def test_there_are_notebooks():
    assert [n.stem.split("_")[0] for n in NOTEBOOKS] == [f"{i:02}" for i in range(len(NOTEBOOKS))]
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_keeps_the_contract(path):
    assert violations(path) == []


# ---- every rule can be broken ----


def html(text):
    return new_output("display_data", data={"text/html": text, "text/plain": "figure"})


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def valid():
    """The smallest notebook that keeps the contract: cells 0, 2, 4... text, 1, 3, 5... code."""
    cells = []
    for i in range(16):
        cells.append(new_markdown_cell("word " * 60))
        cells.append(new_code_cell("x = 1", execution_count=i + 1))
    cells[1].source = 'PROFILE = "demo"\nDATA_ROOT = None\nLIMIT = None'
    cells[1].metadata["tags"] = ["parameters"]
    for cell in cells[3:11:2]:
        cell.metadata["tags"] = ["nbval-check-output"]
        cell.outputs = [stream("accuracy 0.9")]
    cells[13].outputs = [html(FIGURE)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def saved(notebook, tmp_path):
    path = tmp_path / "00_made.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_notebook_can_keep_the_contract(tmp_path):
    assert violations(saved(valid(), tmp_path)) == []


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
    del notebook.cells[26:]
    notebook.cells[0].source = "word " * 300


def more(notebook):
    notebook.cells += [new_markdown_cell("a") for _ in range(29)]


def shorter(notebook):
    for cell in notebook.cells[::2]:
        cell.source = "word " * 40


def long_cells(notebook):
    for cell in notebook.cells[1::2]:
        cell.source += "\nx = 1" * 5


def check_all(notebook):
    for i in range(3, 21, 2):
        put(i, outputs=[stream("fine")])(notebook)
        tags(i, "nbval-check-output")(notebook)


BROKEN = {
    "too big": (put(13, outputs=[stream("x" * 1_000_000)]), "bytes; a notebook stays below"),
    "too few cells": (fewer, "26 cells"),
    "too many cells": (more, "61 cells"),
    "too little text": (shorter, "640 words"),
    "too much text": (put(0, source="word " * 1_101), "2001 words"),
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
        put(13, outputs=[new_output("display_data", data={"image/png": "AAAA"})]),
        "cell 7 shows a bare picture",
    ),
    "no alt": (put(13, outputs=[html(FIGURE.replace("alt", "title"))]), "without alt text"),
    "empty alt": (put(13, outputs=[html(FIGURE.replace("Nine scenes", " ", 1))]), "alt text"),
    "no figure": (
        put(13, outputs=[html('<img alt="Nine scenes" src="x.png">')]),
        "cell 7 shows a picture outside <figure>",
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
    "a path in the text": (put(0, source="word " * 60 + "see /root/x"), "/root/x"),
    "a path of Windows": (put(15, source=r'open("C:\\Users\\me")'), r"C:\\Users"),
    "a path in the metadata": (metadata, "/home/me/notebook.ipynb"),
}


@pytest.mark.parametrize(("break_it", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_each_rule_can_be_broken(break_it, told, tmp_path):
    notebook = valid()
    break_it(notebook)
    found = violations(saved(notebook, tmp_path))
    assert len(found) == 1 and told in found[0]


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
