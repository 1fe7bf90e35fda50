"""The driver itself, on a small notebook with a control of every kind: it must see what changes,
and fail where nothing does, where a cell fails and where the console complains."""

from contextlib import closing

import nbformat
import pytest
from lab import CellFailed, Lab

PANEL = """
import io
import ipywidgets as w
import numpy as np
from IPython.display import display
from PIL import Image
from helpers.widgets.live import Panel


class Every(Panel):
    def __init__(self, title):
        self.made = [
            w.IntSlider(description="steps", max=20),
            w.FloatSlider(description="share", max=1, step=0.05),
            w.Dropdown(description="class", options=["cat", "dog"]),
            w.Checkbox(description="mirrored"),
            w.Text(description="name", continuous_update=False),
            w.FileUpload(description="A file"),
            w.ToggleButtons(description="rule", options=["sum", "mean"]),
        ]
        self.count, self.deaf = w.Button(description="Count"), w.Button(description="Deaf")
        self.counted = 0
        self.count.on_click(self.press)
        self.text, self.picture, self.blob = w.HTML(), w.HTML(), w.Image()
        shown = [self.text, self.picture, self.blob]
        super().__init__(title, [*self.made, self.count, self.deaf], shown)

    def press(self, _):
        self.counted += 1
        self.update()

    def work(self):
        steps, share, class_, mirrored, name, files, rule = (made.value for made in self.made)
        if name == "silly":
            raise ValueError("no silly names")
        files = [(file.name, file.size) for file in files]
        self.text.value = repr((steps, share, class_, mirrored, name, files, rule, self.counted))
        yield
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8), 10 * steps, np.uint8)).save(buffer, "PNG")
        self.blob.value = buffer.getvalue()
        self.picture.value = f'<canvas width="{8 + int(20 * share)}" height="8"></canvas>'


display(Every("First of two"))
Every("Second of two")
"""

# A new address each time, of the same bytes or of others.
SAME = """
import io
import ipywidgets as w
from PIL import Image


def png(value):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


image, same, other = w.Image(), w.Button(description="Same"), w.Button(description="Other")


def show(value):
    image.value = b""
    image.value = png(value)


same.on_click(lambda _: show(1))
other.on_click(lambda _: show(2))
show(1)
w.VBox([w.HTML("One picture"), same, other, image])
"""


@pytest.fixture
def lab(browser, server, tmp_path):
    with closing(Lab(browser, server, tmp_path / "screenshots")) as lab:
        yield lab


@pytest.fixture(scope="module")
def write(notebooks):
    def write(name, *cells):
        cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=kernel), notebooks / f"{name}.ipynb"
        )
        return name

    return write


def test_every_control_moves_what_is_shown(lab, write, tmp_path):
    lab.open(write("every_control", PANEL))
    lab.run_all()
    panel, other = lab.panel("First of two"), lab.panel("Second of two")
    before = other.shows("text")

    def said():
        (text, *_) = panel.shows("text")
        return text

    with panel.changes("pictures", "text"):
        panel.slide("steps", 3)
    assert "(3, 0.0, 'cat'" in said()
    with panel.changes("text"):
        panel.slide("steps", -1)
    with panel.changes("pictures"):
        panel.drag("share", 1.0)
    assert "(2, 1.0, 'cat'" in said()
    for moved, seen in {
        ("choose", "class", "dog"): "'dog', False",
        ("step", "class", -1): "'cat', False",
        ("step", "class", 1): "'dog', False",
        ("tick", "mirrored"): "'dog', True",
        ("tick", "mirrored", False): "'dog', False",
        ("tick", "mirrored", True, "Space"): "'dog', True",
        ("tick", "mirrored", False, "Space"): "'dog', False",
        ("type", "name", "Ana"): "'Ana', []",
        ("press", "mean"): "'mean', 0)",
        ("press", "Count"): "'mean', 1)",
        ("press", "Count", "Enter"): "'mean', 2)",
    }.items():
        with panel.changes("text"):
            getattr(panel, moved[0])(*moved[1:])
        assert seen in said()

    file = tmp_path / "picture.bin"
    file.write_bytes(b"12345")
    with panel.changes("text"):
        panel.upload("A file", file)
    assert "('picture.bin', 5)" in said()
    assert panel.controls() - panel.moved == {"Deaf", "rule", "sum"}
    assert panel.by_keys == {"steps", "class", "mirrored", "Count"}
    assert panel.shows("status") == ["Ready."]
    assert other.shows("text") == before  # several panels live side by side
    assert panel.screenshot().stat().st_size > 1000
    assert not lab.complaints()

    deaf = panel.changes("text", "pictures", timeout=1)
    with pytest.raises(AssertionError, match="no change of text and pictures within 1 s"), deaf:
        panel.press("Deaf")
    with pytest.raises(AssertionError, match="no problem within 1 s"):
        panel.problem(timeout=1)
    with pytest.raises(AssertionError, match="no silly names"), panel.changes("status"):
        panel.type("name", "silly")
    assert panel.problem() == "⚠ no silly names"


def test_a_picture_with_the_same_content_has_not_changed(lab, write):
    lab.open(write("same_picture", SAME))
    lab.run_all()
    panel = lab.panel("One picture")
    with panel.changes():
        panel.press("Other")
    with panel.changes():
        panel.press("Same")
    address = panel.root.locator("img").get_attribute("src")
    unchanged = panel.changes(timeout=2)
    with pytest.raises(AssertionError, match="no change of pictures"), unchanged:
        panel.press("Same")
    assert panel.root.locator("img").get_attribute("src") != address


def test_a_cell_that_fails_is_named(lab, write):
    lab.open(write("failing", "1", "raise RuntimeError('on purpose')", "2"))
    with pytest.raises(CellFailed, match=r"failing, cell 1: RuntimeError: on purpose"):
        lab.run_all()


def test_a_notebook_that_does_not_end_is_given_up(lab, write):
    lab.open(write("endless", "import time; time.sleep(60)"))
    with pytest.raises(TimeoutError, match="endless: not done after 2 s"):
        lab.run_all(timeout=2)


def test_what_the_console_says_is_kept_once(lab):
    lab.go("/lab?reset")  # without the notebooks that were open, whose kernels would start again
    lab.complaints()
    lab.page.evaluate("console.log('only said'); console.error('a real error')")
    lab.page.evaluate("setTimeout(() => { throw new Error('uncaught one'); })")
    lab.page.wait_for_timeout(300)
    complaints = lab.complaints()
    assert len(complaints) == 2, complaints
    assert "a real error" in complaints[0] and "uncaught one" in complaints[1]
    assert lab.complaints() == []


def test_kernels_end_with_their_notebook(browser, server, write, tmp_path):
    lab = Lab(browser, server, tmp_path)
    lab.open(write("short", "1"))
    assert len(server.ask("/api/kernels")) == 1
    lab.close()
    assert server.ask("/api/kernels") == []
