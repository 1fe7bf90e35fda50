"""The participants' notebooks: made from the solved ones, and failing only where they should."""

import os
import re
import tokenize
from io import StringIO
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

from helpers import exercises
from helpers.exercises import EXERCISES, SOLUTIONS, blanked, digest, generate, generated, worked_in

ROOT = Path(__file__).parents[1]
STEMS = sorted(path.stem for path in SOLUTIONS.glob("*.ipynb"))
BOTH = [folder / f"{stem}.ipynb" for folder in (SOLUTIONS, EXERCISES) for stem in STEMS]


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# ---------------------------------------------------------------- what is committed


def test_there_is_one_for_each_notebook_of_the_course():
    main = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert set(main) <= set(STEMS)
    assert [path.stem for path in sorted(EXERCISES.glob("*.ipynb"))] == STEMS
    assert [stem[:2] for stem in STEMS] == ["00", "01", "02", "03", "04", "05"]


def test_the_exercises_are_up_to_date():
    assert generate(check=True) == []


@pytest.mark.parametrize("stem", STEMS)
def test_solutions_are_executed_and_right(stem):
    cells = code(read(SOLUTIONS / f"{stem}.ipynb"))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    checks = [cell for cell in cells if cell.source.startswith("check.")]
    assert all(c.outputs[-1].data["text/plain"].startswith("Right.") for c in checks)
    assert any("<img alt=" in o.get("data", {}).get("text/html", "") for o in outputs)
    assert not [o for o in outputs if "image/png" in o.get("data", {})]  # would have no alt text


@pytest.mark.parametrize("stem", STEMS)
def test_every_exercise_says_what_it_takes(stem):
    titles = re.findall(r"^## (\d+) · (.+)$", text(read(SOLUTIONS / f"{stem}.ipynb")), re.M)
    assert [int(number) for number, _ in titles] == list(range(1, len(titles) + 1))
    assert 3 <= len(titles) <= 5
    parts = re.split(r"^## \d+ · ", text(read(EXERCISES / f"{stem}.ipynb")), flags=re.M)[1:]
    assert len(parts) == len(titles)
    for part in parts:
        assert re.search(r"^\*(Easy|Medium|Harder|Extend), \d+ minutes\.\*", part, re.M)
        assert "<details><summary>Hint</summary>" in part and "</details>" in part
        assert "Why it matters:" in part


@pytest.mark.parametrize("path", BOTH, ids=lambda p: f"{p.parent.name}/{p.stem[:2]}")
def test_notebooks_are_tidy(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in code(notebook):
        assert max(map(len, cell.source.split("\n"))) <= 100
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", path.read_text())
    for target in re.findall(r"\]\(([^)#]+)\)", text(notebook)):
        there = (path.parent / target).resolve()
        assert there.is_file() or there.stem == "05_four_lenses", target


@pytest.mark.parametrize("stem", STEMS)
def test_exercises_hold_no_solution(stem):
    solved, left = read(SOLUTIONS / f"{stem}.ipynb"), read(EXERCISES / f"{stem}.ipynb")
    everything = "\n".join(cell.source for cell in left.cells)
    lines = {line.strip() for cell in code(left) for line in cell.source.split("\n")}
    for cell in solved.cells:
        if "solution" in cell.metadata.get("tags", ()):
            assert cell.source not in everything
        for block in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S):
            assert not lines & {line.strip() for line in block.split("\n") if len(line) > 6}
    assert "SOLUTION" not in everything
    assert not [cell for cell in code(left) if cell.outputs or cell.execution_count]
    # all checks stay, and something is left to do for each
    checks = [cell.source for cell in code(solved) if cell.source.startswith("check.")]
    assert checks == [cell.source for cell in code(left) if cell.source.startswith("check.")]


@pytest.mark.parametrize("stem", STEMS)
def test_exercises_fail_only_where_something_is_to_be_written(stem, monkeypatch):
    """Cell after cell, as a participant would who solves nothing; in one process, to be quick."""
    monkeypatch.chdir(EXERCISES)
    names, errors, checks = {"__name__": "__main__"}, [], 0
    for cell in code(read(EXERCISES / f"{stem}.ipynb")):
        try:
            exec(compile(cell.source, cell.id, "exec"), names)
            raised = None
        except Exception as error:
            raised = error
            errors.append(type(error).__name__)
        if cell.source.startswith("check."):
            checks += 1
            assert isinstance(raised, NotImplementedError), cell.source
    assert set(errors) == {"NotImplementedError"}
    assert len(errors) >= checks >= 2


def test_exercises_in_a_kernel():
    """The same for one of them in a real kernel, and what is left there."""
    notebook = read(EXERCISES / f"{STEMS[0]}.ipynb")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(EXERCISES)}},
    )
    client.execute(env=environment)
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert {o.ename for o in outputs if o.output_type == "error"} == {"NotImplementedError"}
    assert not worked_in_text(notebook)  # running is not writing


def worked_in_text(notebook):
    return notebook.metadata["generated"]["digest"] != digest(notebook)


# ---------------------------------------------------------------- taking solutions out


def test_a_function_by_hand():
    source = """def my_sum(values):
    \"\"\"A docstring stays.\"\"\"
    start = 0
    ### BEGIN SOLUTION
    for value in values:
        start += value
    return start
    ### END SOLUTION


my_sum([1])"""
    wanted = """def my_sum(values):
    \"\"\"A docstring stays.\"\"\"
    start = 0
    raise NotImplementedError("write my_sum")


my_sum([1])"""
    assert blanked(source) == wanted


def test_other_cells_by_hand():
    def left(solved):
        return blanked(f"### BEGIN SOLUTION\n{solved}\n### END SOLUTION")

    assert left("my_gap = 25") == "my_gap = None  # your answer"
    assert left("my_pixel = (3, 2)\nmy_other = 4") == (
        "my_pixel = None  # your answer\nmy_other = None  # your answer"
    )
    assert left("x = 3\nprint(x)") == 'raise NotImplementedError("write this cell")'
    assert left("from itertools import chain\n\nprint(1)").startswith("raise NotImplementedError")
    method = "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        y = 1\n"
    method += "        ### END SOLUTION"
    assert blanked(method).endswith('\n        raise NotImplementedError("write f")')
    assert blanked("no marks\n\nhere") == "no marks\n\nhere"


@pytest.mark.parametrize(
    "source",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION",
    ],
)
def test_marks_without_a_partner(source):
    with pytest.raises(ValueError, match="^line [12], .*SOLUTION', has no partner"):
        blanked(source)


LINES = st.lists(
    st.sampled_from(["x = 1", "", "print(2)", "# note", "for i in y: z()"]), max_size=4
)


@given(LINES, LINES, st.integers(0, 2))
def test_only_what_is_marked_goes(before, after, depth):
    indent = "    " * depth
    solved = f"{indent}secret = [1, 2]\n{indent}return secret"
    marks = f"{indent}### BEGIN SOLUTION\n{solved}\n{indent}### END SOLUTION"
    left = blanked("\n".join([*before, marks, *after])).split("\n")
    assert left[: len(before)] == before
    assert left[len(before) + 1 :] == after
    assert left[len(before)] == indent + left[len(before)].lstrip()
    assert "secret" not in left[len(before)]
    list(tokenize.generate_tokens(StringIO(left[len(before)].strip()).readline))


# ---------------------------------------------------------------- writing them


@pytest.fixture
def folders(tmp_path):
    solutions, made = tmp_path / "solutions", tmp_path / "exercises"
    solutions.mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# 00 · Toys: solutions", id="a"),
        nbformat.v4.new_code_cell("### BEGIN SOLUTION\nmy_toy = 7\n### END SOLUTION", id="b"),
        nbformat.v4.new_code_cell("print(my_toy)", id="c", execution_count=2),
        nbformat.v4.new_markdown_cell("Seven.", id="d", metadata={"tags": ["solution"]}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), solutions / "00_toys.ipynb")
    return solutions, made


def test_generating(folders):
    solutions, made = folders
    said = generate(solutions, made, check=True)
    assert said == ["exercises/00_toys.ipynb is out of date: run python -m helpers.exercises."]
    assert not made.exists()
    assert generate(solutions, made) == []
    notebook = read(made / "00_toys.ipynb")
    sources = [cell.source for cell in notebook.cells]
    assert sources[0] == "# 00 · Toys: exercises"
    assert "[solutions](../solutions/00_toys.ipynb)" in sources[1]
    assert sources[2:] == ["my_toy = None  # your answer", "print(my_toy)"]
    assert code(notebook)[1].execution_count is None
    assert generate(solutions, made, check=True) == []


def test_the_same_bytes_every_time(folders):
    solutions, made = folders
    generate(solutions, made)
    first = (made / "00_toys.ipynb").read_bytes()
    (made / "00_toys.ipynb").unlink()
    generate(solutions, made)
    assert (made / "00_toys.ipynb").read_bytes() == first
    assert generated(read(solutions / "00_toys.ipynb"), "00_toys.ipynb").encode() == first


def change(path, edit):
    notebook = read(path)
    edit(notebook)
    nbformat.write(notebook, path)


def test_somebodys_work_is_not_overwritten(folders):
    solutions, made = folders
    generate(solutions, made)
    path = made / "00_toys.ipynb"
    change(path, lambda notebook: notebook.cells[2].update(source="my_toy = 6"))
    work = path.read_bytes()
    for check in (True, False):
        (said,) = generate(solutions, made, check=check)
        assert "exercises/00_toys.ipynb has been worked in: save it under another name" in said
    assert path.read_bytes() == work
    path.write_text("not a notebook")
    assert "has been worked in" in generate(solutions, made)[0]
    assert path.read_text() == "not a notebook"


def test_a_notebook_that_was_only_run_is_made_anew(folders):
    solutions, made = folders
    generate(solutions, made)
    path = made / "00_toys.ipynb"
    clean = path.read_bytes()
    change(path, lambda notebook: code(notebook)[1].update(execution_count=3))
    assert not worked_in(path)
    assert generate(solutions, made) == []
    assert path.read_bytes() == clean


def test_new_solutions_replace_what_nobody_touched(folders):
    solutions, made = folders
    generate(solutions, made)
    change(solutions / "00_toys.ipynb", lambda n: n.cells[2].update(source="print(my_toy + 1)"))
    assert "out of date" in generate(solutions, made, check=True)[0]
    assert generate(solutions, made) == []
    assert "my_toy + 1" in (made / "00_toys.ipynb").read_text()


def test_an_exercise_whose_solutions_are_gone(folders):
    solutions, made = folders
    generate(solutions, made)
    (solutions / "00_toys.ipynb").unlink()
    assert "has no solutions any more" in generate(solutions, made)[0]


def test_a_bad_mark_is_told_with_its_notebook(folders):
    solutions, made = folders
    change(solutions / "00_toys.ipynb", lambda n: n.cells[1].update(source="### END SOLUTION"))
    with pytest.raises(ValueError, match=r"00_toys\.ipynb: line 1"):
        generate(solutions, made)


def test_the_command_line(folders, monkeypatch, capsys):
    solutions, made = folders
    monkeypatch.setattr(exercises, "SOLUTIONS", solutions)
    monkeypatch.setattr(exercises, "EXERCISES", made)
    assert exercises.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert exercises.main([]) == 0
    assert capsys.readouterr().out == "The exercises are up to date.\n"
    assert exercises.main(["--check"]) == 0


def test_a_picture_carries_its_words():
    from matplotlib.figure import Figure

    fig = Figure()
    fig.subplots().plot([1, 2])
    card = exercises.picture(fig, caption="A line that rises.", alt="One line.")
    assert '<img alt="One line."' in card._repr_html_() and "A line that rises." in repr(card)
