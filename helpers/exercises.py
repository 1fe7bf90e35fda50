"""The participants' notebooks, made from the solved ones.

    python -m helpers.exercises            # writes notebooks/exercises from notebooks/solutions
    python -m helpers.exercises --check    # says which of them are out of date, and writes nothing

In a solution's code, what stands between the lines `### BEGIN SOLUTION` and `### END SOLUTION` is
taken out, and `raise NotImplementedError` stands there; where only answers are given, such as
`my_gap = 25`, it is `my_gap = None`. Outputs go, and so do cells tagged `solution`. Everything
else stays, the checks above all.

A notebook that somebody worked in is never overwritten: each carries the digest of what was
generated, and one whose cells no longer match it is refused.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import nbformat
from matplotlib.figure import Figure
from nbformat import NotebookNode

from helpers import figures
from helpers.budget import ROOT
from helpers.durable import write_durably

SOLUTIONS = ROOT / "notebooks" / "solutions"
EXERCISES = ROOT / "notebooks" / "exercises"

_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"

_HEADER = """\
**How to work here.** Save this notebook under another name first (*File*, *Save Notebook As*), so \
that it does not stand in the way of an update. Run its cells from the top. Each exercise has a \
cell to be written, where `raise NotImplementedError` or `None` stands, and a check below it. The \
check draws new inputs every time, compares with the package and says what is wrong. The hints are \
folded; so is the last resort, the [solutions](../solutions/{name}).

The exercises belong to [notebook {number}](../{name}), need nothing that it computes, and run in \
seconds. Any Python with the course installed will do; `make lab` opens JupyterLab."""


def blanked(source: str) -> str:
    """A cell's code without its solutions.

    Raises:
        ValueError: a mark without its partner, or a solution inside a solution.
    """
    lines, out, begin = source.split("\n"), [], None
    for number, line in enumerate(lines):
        mark = line.strip()
        if mark == _BEGIN and begin is None:
            begin = number
        elif mark == _END and begin is not None:
            solved = "\n".join(lines[begin + 1 : number])
            indent = line[: len(line) - len(line.lstrip())]
            out += [indent + left for left in _left(solved, "\n".join(lines[:begin]))]
            begin = None
        elif mark in (_BEGIN, _END):
            raise ValueError(f"line {number + 1}, {mark!r}, has no partner")
        elif begin is None:
            out.append(line)
    if begin is not None:
        raise ValueError(f"line {begin + 1}, {_BEGIN!r}, has no partner")
    return "\n".join(out)


def _left(solved: str, before: str) -> list[str]:
    """What stands in place of solved lines: answers to be filled in, or a function to be written.

    Args:
        before: the cell's lines above, where the function's name stands.
    """
    statements = ast.parse(textwrap.dedent(solved)).body
    inside = solved.startswith(" ")
    names = [s.targets[0].id for s in statements if _is_answer(s)]
    if names and len(names) == len(statements) and not inside:
        return [f"{name} = None  # your answer" for name in names]
    functions = re.findall(r"^\s*def (\w+)", before, re.M) if inside else []
    what = functions[-1] if functions else "this cell"
    return [f'raise NotImplementedError("write {what}")']


def _is_answer(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)


def generated(solutions: NotebookNode, name: str) -> str:
    """The participants' notebook, as the text of its file; the same for the same solutions.

    Args:
        name: of the notebook's file, the same in all three folders.

    Raises:
        ValueError: a cell whose solution is not marked well.
    """
    cells = [_cell(cell) for cell in solutions.cells if "solution" not in _tags(cell)]
    cells[0].source = cells[0].source.replace(": solutions", ": exercises", 1)
    header = nbformat.v4.new_markdown_cell(
        _HEADER.format(name=name, number=name[:2]), id="how-to-work-here"
    )
    cells.insert(1, header)
    made = nbformat.v4.new_notebook(cells=cells, metadata=dict(solutions.metadata))
    made.nbformat_minor = 5
    made.metadata["generated"] = {"from": f"../solutions/{name}", "digest": digest(made)}
    return nbformat.writes(made) + "\n"


def _cell(cell: NotebookNode) -> NotebookNode:
    if cell.cell_type == "markdown":
        return nbformat.v4.new_markdown_cell(cell.source, id=cell.id)
    return nbformat.v4.new_code_cell(blanked(cell.source), id=cell.id)


def _tags(cell: NotebookNode) -> Sequence[str]:
    return cell.metadata.get("tags", ())


def digest(notebook: NotebookNode) -> str:
    """Of what a person writes in a notebook: running it or folding a cell changes nothing."""
    written = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(repr(written).encode()).hexdigest()[:16]


def worked_in(path: Path) -> bool:
    """Whether somebody changed a participants' notebook after it was generated, or made it."""
    try:
        notebook = nbformat.read(path, as_version=4)
        return notebook.metadata["generated"]["digest"] != digest(notebook)
    except Exception:  # no notebook of ours, whatever it is
        return True


def generate(
    solutions: Path = SOLUTIONS, exercises: Path = EXERCISES, *, check: bool = False
) -> list[str]:
    """Write the participants' notebooks that are out of date, or only say which they are.

    Returns:
        What a person has to do something about, one sentence each. With `check` these are all
        that are out of date; else those that cannot be written.

    Raises:
        ValueError: a solution that is not marked well.
    """
    problems = []
    for source in sorted(solutions.glob("[0-9]*.ipynb")):
        path = exercises / source.name
        try:
            text = generated(nbformat.read(source, as_version=4), source.name)
        except ValueError as error:
            raise ValueError(f"{source.name}: {error}") from error
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        shown = f"{exercises.name}/{source.name}"
        if path.exists() and worked_in(path):
            problems.append(
                f"{shown} has been worked in: save it under another name, delete it, and run "
                "python -m helpers.exercises again."
            )
        elif check:
            problems.append(f"{shown} is out of date: run python -m helpers.exercises.")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, text.encode())
    known = {source.name for source in solutions.glob("[0-9]*.ipynb")}
    for path in sorted(exercises.glob("[0-9]*.ipynb")):
        if path.name not in known and not worked_in(path):
            problems.append(f"{exercises.name}/{path.name} has no solutions any more: delete it.")
    return problems


def picture(fig: Figure, *, caption: str, alt: str) -> figures.FigureCard:
    """A figure inside an exercise: with alt text and caption, and not for the report."""
    with tempfile.TemporaryDirectory() as folder:
        return figures.save(
            fig,
            "picture",
            folder=Path(folder),
            caption=caption,
            alt=alt,
            notebook="exercises",
            profile="demo",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 1 where there is something left to do."""
    parser = argparse.ArgumentParser(prog="python -m helpers.exercises", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    problems = generate(SOLUTIONS, EXERCISES, check=parser.parse_args(arguments).check)
    print("\n".join(problems) or "The exercises are up to date.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
