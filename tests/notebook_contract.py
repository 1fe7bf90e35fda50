"""What the committed notebooks of the course keep to, as one function.

nbval executes a notebook and compares its tagged cells, but passes one that was never executed,
never looks at pictures, and knows nothing of a reader: the rest is here. `python
tests/notebook_contract.py notebooks/*.ipynb` prints what is wrong.

Three kinds, by folder: the course's notebooks keep everything; those in `solutions/` are small,
were executed, and check themselves; those in `exercises/` were never run and hold no solution.
"""

import ast
import json
import re
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat

MAX_BYTES = 1_000_000
MAX_BYTES_SMALL = 300_000  # solutions and exercises
CELLS = range(30, 61)
WORDS = range(800, 2001)
CHECKED_CELLS = range(4, 9)
MEDIAN_LINES = 5
MAX_LINES = 25
MIN_ALT_WORDS = 3

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"

_VIEW = "application/vnd.jupyter.widget-view+json"
_PANELS, _CHECKS = (
    "helpers.widgets",
    "helpers.check",
)  # calls into these mark widget and check cells
_TIME = re.compile(r"\*\*Time\*\*.*?\d+ (?:minute|second)s?")
_PURPOSE = ("You will do", "You will learn", "You need")
_SECTION = re.compile(r"^## (?:\d+ · )?(.+?)\s*$", re.M)
_FENCED = re.compile(r"```.*?```", re.S)
_EMPTY_ALT = re.compile(r"!\[\s*\]\(")
_DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*")
_LOCAL_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S*|\b[A-Z]:\\{1,2}[A-Z]\w+")


def violations(path: Path) -> list[str]:
    """Everything `path` breaks, in words; empty if it keeps the contract of its folder."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if path.parent.name == "solutions":
        rules = [_bytes(path, MAX_BYTES_SMALL), _execution(code), _solved(code)]
    elif path.parent.name == "exercises":
        rules = [_bytes(path, MAX_BYTES_SMALL), _untouched(code)]
    else:
        rules = [
            _bytes(path, MAX_BYTES),
            _length(notebook, code),
            _anatomy(path, notebook, code),
            _execution(code),
            _tags(code),
            _widgets(notebook, code),
        ]
    rules += [_figures(notebook, code), _traces(notebook)]
    return [problem for rule in rules for problem in rule]


def _bytes(path, most):
    size = path.stat().st_size
    if size >= most:
        yield f"{size:,} bytes; a notebook stays below {most:,}"


def _length(notebook, code):
    if len(notebook.cells) not in CELLS:
        yield f"{len(notebook.cells)} cells; {CELLS[0]} to {CELLS[-1]} are readable"
    text = " ".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    prose = re.sub(r"<[^>]*>", " ", _FENCED.sub(" ", text))
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


def _anatomy(path, notebook, code):
    """What a reader finds in every notebook of the course, at the same place."""
    number, first = path.stem.split("_")[0], notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith(f"# {number} · "):
        yield f"the first cell is no title that begins with '# {number} · '"
    if not _TIME.search(first.source):
        yield "the title cell does not say how long it takes: **Time** 3 minutes ..."
    for words in _PURPOSE:
        if words not in first.source:
            yield f"the title cell does not say {words!r}"

    parameters = [i for i, cell in enumerate(code) if "parameters" in _tagged(cell)]
    starting = [i for i, cell in enumerate(code) if "start" in _called(cell)]
    if parameters and parameters[0] != 0:
        yield "the parameters cell is not the first code cell"
    elif len(parameters) == 1 and starting != [1]:
        yield "the set-up line, course = start(PROFILE, ...), is not in the second code cell alone"
    elif len(parameters) == 1 and f'notebook="{path.stem}"' not in code[1].source:
        yield f'the set-up line does not say notebook="{path.stem}"'

    sections = _sections(notebook)
    if "What would falsify this?" not in sections:
        yield "no section 'What would falsify this?'"
    if "Exercises" not in sections:
        yield "no section 'Exercises'"
    elif f"](exercises/{path.name})" not in sections["Exercises"]:
        yield f"the section 'Exercises' does not link to exercises/{path.name}"
    if notebook.cells[-1].source.strip() != "course.provenance()":
        yield "the last cell is not course.provenance()"


def _sections(notebook) -> dict[str, str]:
    """The text of each second-level section, by its title without its number."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    _, *pieces = _SECTION.split(_FENCED.sub("", text))
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def _tagged(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def _nodes(cell):
    """All of a cell's syntax; none of what is no Python, which the linter reports."""
    try:
        return list(ast.walk(ast.parse(cell.source)))
    except SyntaxError:
        return []


def _called(cell) -> set[str]:
    """What the cell calls, with dots: {"start", "course.figure"}."""
    calls = (node for node in _nodes(cell) if isinstance(node, ast.Call))
    return {ast.unparse(call.func) for call in calls}


def _calling(package, code) -> list:
    """The cells that call something which the notebook imports from `package`."""
    names = {name for cell in code for name in _imported(package, cell)}
    ours = tuple(f"{name}." for name in names)
    return [c for c in code if any(f"{call}.".startswith(ours) for call in _called(c))]


def _imported(package, cell):
    for node in _nodes(cell):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith(f"{package}."):
                    yield alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}.".startswith(f"{package}."):
                    yield alias.asname or alias.name


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
    tagged = [cell for cell in code if "parameters" in _tagged(cell)]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells tagged `parameters`; exactly one is needed"
    elif 'PROFILE = "demo"' not in tagged[0].source:
        yield 'the parameters cell does not say PROFILE = "demo", the profile that is committed'
    checked = [cell for cell in code if "nbval-check-output" in _tagged(cell)]
    if len(checked) not in CHECKED_CELLS:
        yield (
            f"{len(checked)} cells tagged `nbval-check-output`; "
            f"{CHECKED_CELLS[0]} to {CHECKED_CELLS[-1]} check the results"
        )
    for cell in checked:
        if not cell.outputs:
            yield f"cell {cell.execution_count} is to be checked but has no output"


def _widgets(notebook, code):
    """A panel lives only while its kernel does: before it stands a figure, in its place words."""
    panels = [*_calling(_PANELS, code), *(c for c in code if any(map(_is_view, c.outputs)))]
    for cell in code:
        tagged = "widget" in _tagged(cell)
        if cell in panels and not tagged:
            yield f"cell {cell.execution_count} shows a panel but is not tagged `widget`"
        if any(map(_is_view, cell.outputs)):
            yield f"cell {cell.execution_count} holds the view of a widget that has ended"
        if tagged and cell not in panels:
            yield f"cell {cell.execution_count} is tagged `widget` but shows no panel"
        elif tagged and not any(map(_in_words, cell.outputs)):
            yield f"cell {cell.execution_count} shows nothing, not a word, where no kernel runs"
    if not any("widget" in _tagged(cell) for cell in code):
        yield "no cell tagged `widget`"

    drawn = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            drawn &= not _SECTION.search(_FENCED.sub("", cell.source))
        elif cell.cell_type == "code":
            if "widget" in _tagged(cell) and not drawn:
                yield f"cell {cell.execution_count} shows a panel without a figure before it"
            drawn |= any("<figure" in o.get("data", {}).get("text/html", "") for o in cell.outputs)


def _is_view(output) -> bool:
    return _VIEW in output.get("data", {})


def _in_words(output) -> bool:
    """Whether this is a panel's sentence for a page without a kernel, and not Python's own repr."""
    data = output.get("data", {})
    said = "" if {"text/html", "text/markdown"} & data.keys() else data.get("text/plain", "")
    return re.match(r"(?!<|\w+\()\S+ \S+", said) is not None


def _solved(code):
    checks = _calling(_CHECKS, code)
    if not checks:
        yield "no cell checks a solution by helpers.check"
    for cell in checks:
        if not cell.outputs:
            yield f"cell {cell.execution_count} checks a solution but has no output"
    if not any(BEGIN in cell.source for cell in code):
        yield f"no cell says {BEGIN}"
    for cell in code:
        marks = re.findall(f"{BEGIN}|{END}", cell.source)
        if marks != [BEGIN, END] * (len(marks) // 2):
            yield f"cell {cell.execution_count}: {BEGIN} and {END} do not alternate"


def _untouched(code):
    for number, cell in enumerate(code, 1):
        if cell.outputs or cell.execution_count is not None:
            yield f"code cell {number} was run; exercises are generated, not executed"
        if BEGIN in cell.source or END in cell.source:
            yield f"code cell {number} holds a solution"
    if not _calling(_CHECKS, code):
        yield "no cell checks an answer by helpers.check"
    if not any("NotImplementedError" in cell.source for cell in code):
        yield "nothing is left to do: no cell raises NotImplementedError"


def _figures(notebook, code):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and _EMPTY_ALT.search(cell.source):
            yield f"the text of cell [{number}] has a picture without alt text"
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
        elif tag in ("img", "svg"):
            alt = dict(attributes).get("alt" if tag == "img" else "aria-label") or ""
            if not alt.strip():
                self.problems.append("a picture without alt text")
            elif len(alt.split()) < MIN_ALT_WORDS:
                self.problems.append(
                    f"a picture with the alt text {alt!r}, which tells nobody what it is"
                )
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
