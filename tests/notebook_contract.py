"""What every committed notebook of the course keeps to, as one function.

nbval executes a notebook and compares its tagged cells, but passes one that was never executed,
never looks at pictures, and knows nothing of a reader: the rest is here. `python
tests/notebook_contract.py notebooks/*.ipynb` prints what is wrong.
"""

import json
import re
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat

MAX_BYTES = 1_000_000
CELLS = range(30, 61)
WORDS = range(800, 2001)
CHECKED_CELLS = range(4, 9)
MEDIAN_LINES = 5
MAX_LINES = 25

_DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*")
_LOCAL_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S*|\b[A-Z]:\\{1,2}[A-Z]\w+")


def violations(path: Path) -> list[str]:
    """Everything `path` breaks, in words; empty if it keeps the contract."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        *_size(path, notebook, code),
        *_execution(code),
        *_tags(code),
        *_figures(code),
        *_traces(notebook),
    ]


def _size(path, notebook, code):
    size = path.stat().st_size
    if size >= MAX_BYTES:
        yield f"{size:,} bytes; a notebook stays below {MAX_BYTES:,}"
    if len(notebook.cells) not in CELLS:
        yield f"{len(notebook.cells)} cells; {CELLS[0]} to {CELLS[-1]} are readable"
    text = " ".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    prose = re.sub(r"```.*?```|<[^>]*>", " ", text, flags=re.S)  # solutions hold code
    words = len(re.findall(r"\w[\w'’.-]*", prose))
    if words not in WORDS:
        yield f"{words} words of text; {WORDS[0]} to {WORDS[-1]} are readable"
    lines = [sum(map(_is_code, c.source.splitlines())) for c in code] or [0]
    if statistics.median(lines) > MEDIAN_LINES:
        yield f"median code cell has {statistics.median(lines)} lines; at most {MEDIAN_LINES}"
    if max(lines) > MAX_LINES:
        yield f"longest code cell has {max(lines)} lines; at most {MAX_LINES}"


def _is_code(line: str) -> bool:
    """A figure's caption and alt text are prose that happens to stand in a call."""
    return bool(line.strip()) and not line.lstrip().startswith(("caption=", "alt="))


def _execution(code):
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"execution counts are {counts}; run all cells once, in order (make refresh)"
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.execution_count} ends in {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {cell.execution_count} writes on stderr: {output.text[:60]!r}"


def _tags(code):
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells tagged `parameters`; exactly one is needed"
    elif 'PROFILE = "demo"' not in tagged[0].source:
        yield 'the parameters cell does not say PROFILE = "demo", the profile that is committed'
    checked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    if len(checked) not in CHECKED_CELLS:
        yield (
            f"{len(checked)} cells tagged `nbval-check-output`; "
            f"{CHECKED_CELLS[0]} to {CHECKED_CELLS[-1]} check the results"
        )
    for cell in checked:
        if not cell.outputs:
            yield f"cell {cell.execution_count} is to be checked but has no output"


def _figures(code):
    for cell in code:
        for output in cell.outputs:
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data):
                yield (
                    f"cell {cell.execution_count} shows a bare picture; "
                    "figures.save() gives it an alt text and a caption"
                )
            reader = _Figures()
            reader.feed(data.get("text/html", ""))
            for problem in reader.problems:
                yield f"cell {cell.execution_count} shows {problem}"


class _Figures(HTMLParser):
    """Collects pictures that a screen reader could not tell, and figures without a caption."""

    def __init__(self):
        super().__init__()
        self.problems = []
        self.in_figure = self.in_caption = False
        self.caption = ""

    def handle_starttag(self, tag, attributes):
        if tag == "figure":
            self.in_figure, self.caption = True, ""
        elif tag == "figcaption":
            self.in_caption = True
        elif tag == "img":
            if not (dict(attributes).get("alt") or "").strip():
                self.problems.append("a picture without alt text")
            if not self.in_figure:
                self.problems.append("a picture outside <figure>")

    def handle_data(self, data):
        if self.in_caption:
            self.caption += data

    def handle_endtag(self, tag):
        if tag == "figcaption":
            self.in_caption = False
        elif tag == "figure":
            self.in_figure = False
            if not self.caption.strip():
                self.problems.append("a figure without a caption")


def _traces(notebook):
    """What the machine it ran on leaves behind."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel!r}; everybody has 'python3'"
    found = {path for text in _texts(notebook) for path in _LOCAL_PATH.findall(text)}
    for path in sorted(found):
        yield f"a path of somebody's machine: {path[:60]}"


def _texts(value):
    """Every string of a notebook: sources, outputs and metadata, without embedded pictures."""
    if isinstance(value, str):
        yield _DATA_URI.sub("", value)
    elif isinstance(value, dict):
        for kind, inner in value.items():
            if not kind.startswith("image/"):
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


if __name__ == "__main__":
    found = {name: violations(Path(name)) for name in sys.argv[1:]}
    print(json.dumps(found, indent=2, ensure_ascii=False))
    sys.exit(any(found.values()))
