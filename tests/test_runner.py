"""The runner: what it refuses, what it reports, and that nothing survives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers import course, runner

DEFAULTS = 'PROFILE = "demo"\nDATA_ROOT = None\nLIMIT = None'


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "demo"


@pytest.fixture
def notebook(tmp_path):
    """Make a notebook of the given cells; the first is its parameters cell unless `tag` is not."""

    def make(name, *sources, defaults=DEFAULTS, tag="parameters"):
        first = new_code_cell(defaults, metadata={"tags": [tag]})
        cells = [first, *map(new_code_cell, sources)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return str(path)

    return make


def printed(results, name, cell):
    """What the cell of the executed notebook printed."""
    executed = nbformat.read(results / "notebooks" / f"{name}.ipynb", as_version=4)
    return executed.cells[cell].outputs[0].text.strip()


def test_a_run_is_recorded_and_reported(notebook, results, capsys):
    path = notebook("00_fine", "import sys; print(sys.executable)", "print(PROFILE, LIMIT)")
    assert runner.main([path, "--limit", "7"]) == 0

    record = json.loads((results / "runs" / "00_fine.json").read_text())
    assert record["state"] == "ok" and record["error"] is None
    assert record["seconds"] > 0 and record["peak_mib"] > 20
    assert printed(results, "00_fine", 3) == "demo 7"
    assert printed(results, "00_fine", 2) == sys.executable
    out = capsys.readouterr().out
    assert "00_fine" in out and "MiB" in out and str(results / "index.html") in out
    assert sorted(p.name for p in results.glob(".*")) == []


def test_a_failure_is_told_last_and_stops_nothing_else(notebook, results, capfd):
    bad = notebook("00_bad", "x = 1", "def f():\n    raise KeyError('gone')", "f()", "never = 1")
    fine = notebook("01_fine", "print('here')")
    assert runner.main([bad, fine]) == 1

    assert printed(results, "01_fine", 2) == "here"
    record = json.loads((results / "runs" / "00_bad.json").read_text())
    assert record["state"] == "failed" and "KeyError" in record["error"]
    out, err = capfd.readouterr()
    assert "00_bad 3/5 cells" in out and "01_fine 2/2 cells" in out
    told = err[err.index("00_bad failed") :]
    assert "    f()" in told and "raise KeyError('gone')" in told and "\x1b[" not in told


def test_a_kernel_that_dies_is_a_failure_with_a_reason(notebook, capfd):
    assert runner.main([notebook("00_dies", "import os; os._exit(9)")]) == 1
    assert "the kernel died" in capfd.readouterr().err


def test_two_run_at_once(notebook, tmp_path):
    """Each waits for the other: one after the other, neither would end."""
    wait = (
        "import pathlib, time, os\n"
        "me, other = pathlib.Path({me!r}), pathlib.Path({other!r})\n"
        "me.touch(); end = time.monotonic() + 60\n"
        "while not other.exists(): time.sleep(.05); assert time.monotonic() < end\n"
        "assert int(os.environ['OMP_NUM_THREADS']) >= 1"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    paths = [
        notebook("00_a", wait.format(me=a, other=b)),
        notebook("01_b", wait.format(me=b, other=a)),
    ]
    assert runner.main([*paths, "-j", "2"]) == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--profile", "demonstration"], "demo, photos, paper"),
        (["--parameter", "SEDE=3"], "no parameter 'SEDE' (did you mean SEED?)"),
        (["--parameter", "PROFILE=photos"], "--profile"),
        (["--data-root", "no/such/folder"], "no/such/folder"),
        (["--limit", "0"], "at least 1"),
        (["-j", "0"], "at least 1"),
        (["--refresh", "--limit", "3"], "no other parameters"),
        (["07_no_such_notebook"], "no notebook '07_no_such_notebook'"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(options, told, notebook, results, capsys):
    path = notebook("00_fine", defaults=DEFAULTS + "\nSEED = 0")
    assert runner.main([path, *options]) == 2
    assert told in capsys.readouterr().err
    assert not results.exists()


@pytest.mark.parametrize("tag", ["something-else", "Parameters"])
def test_a_notebook_without_its_parameters_tag_is_refused(tag, notebook, results, capsys):
    fine, untagged = notebook("00_fine"), notebook("01_untagged", tag=tag)
    assert runner.main([fine, untagged]) == 2
    err = capsys.readouterr().err
    assert "01_untagged.ipynb has 0 cells tagged `parameters`" in err and "00_fine" not in err
    assert not results.exists()


def test_every_problem_is_told_at_once(notebook, tmp_path, capsys):
    (tmp_path / "02_broken.ipynb").write_text("{")
    paths = [notebook("00_a", defaults="X = 1"), str(tmp_path / "02_broken.ipynb")]
    assert runner.main(paths) == 2
    err = capsys.readouterr().err
    assert "00_a.ipynb has no parameter 'PROFILE'; it has: X" in err
    assert "02_broken.ipynb cannot be read" in err


@pytest.mark.parametrize("wanted", ["04", "4", "04_imagenet9", "04_imagenet9.ipynb"])
def test_notebooks_are_chosen_by_number_or_name(wanted, tmp_path):
    for name in ("00_meet", "04_imagenet9"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [n.stem for n in runner.choose([wanted], tmp_path)] == ["04_imagenet9"]
    assert [n.stem for n in runner.choose([], tmp_path)] == ["00_meet", "04_imagenet9"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("N=3", 3), ("N=None", None), ("N=[1, 2]", [1, 2]), ("N=vgg16", "vgg16"), ("N=a=b", "a=b")],
)
def test_parameters_are_literals_or_text(text, value):
    assert runner.parameter(text) == ("N", value)


# What the interrupted notebook does: start a process, say who it is, and stay.
STAY = (
    "import os, pathlib, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "pathlib.Path({pids!r} + '.new').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
    "os.rename({pids!r} + '.new', {pids!r})\n"
    "time.sleep(600)"
)


def start_and_interrupt(path, pids, number):
    """Run `path`, send the runner a signal once its cell runs; exit status, kernel, grandchild."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.runner", path], cwd=course.ROOT, stdout=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while not pids.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode, *map(int, pids.read_text().split())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interruption_leaves_nothing_behind(number, status, notebook, tmp_path, results):
    pids = tmp_path / "pids"
    path = notebook("00_stays", STAY.format(pids=str(pids)))
    returned, kernel, grandchild = start_and_interrupt(path, pids, number)
    assert returned == status
    assert not psutil.pid_exists(kernel) and not psutil.pid_exists(grandchild)
    assert [p for p in results.rglob("*") if p.is_file()] == []


def test_the_kernel_ends_even_if_the_runner_is_killed(notebook, tmp_path):
    pids = tmp_path / "pids"
    path = notebook("00_stays", STAY.format(pids=str(pids)))
    _, kernel, grandchild = start_and_interrupt(path, pids, signal.SIGKILL)
    try:
        psutil.wait_procs([psutil.Process(kernel)], timeout=30)
    except psutil.NoSuchProcess:
        pass
    finally:
        os.kill(grandchild, signal.SIGKILL)  # no one else's: a plain process of the cell's own
    assert not psutil.pid_exists(kernel)


def test_refresh_writes_outputs_without_what_changes_at_every_run(notebook, results):
    slider, bar = "import ipywidgets; ipywidgets.IntSlider()", r"print('50 %\r    \r', end='')"
    path = notebook("00_fine", "print(PROFILE)", slider, bar)
    assert runner.main([path, "--refresh"]) == 0
    first = Path(path).read_text()
    refreshed = nbformat.read(path, as_version=4)
    assert [c.execution_count for c in refreshed.cells] == [1, 2, 3, 4]
    assert refreshed.cells[1].outputs == [new_output("stream", name="stdout", text="demo\n")]
    assert refreshed.cells[2].outputs == refreshed.cells[3].outputs == []
    assert refreshed.cells[0].metadata == {"tags": ["parameters"]}
    assert "papermill" not in first and "widget" not in refreshed.metadata

    assert runner.main([path, "--refresh"]) == 0
    assert Path(path).read_text() == first


def test_refresh_keeps_the_words_of_a_panel_and_not_its_view(notebook, results):
    said = "class Slider(ipywidgets.IntSlider):\n    __repr__ = lambda self: 'Run this cell.'"
    path = notebook("00_panel", f"import ipywidgets\n{said}\nSlider()")
    written = nbformat.read(path, as_version=4)
    written.cells[1].metadata["tags"] = ["widget"]
    nbformat.write(written, path)
    assert runner.main([path, "--refresh"]) == 0
    [output] = nbformat.read(path, as_version=4).cells[1].outputs
    assert output.data == {"text/plain": "Run this cell."}


def test_refresh_leaves_a_failing_notebook_alone(notebook):
    path = notebook("00_bad", "1 / 0")
    before = Path(path).read_text()
    assert runner.main([path, "--refresh"]) == 1
    assert Path(path).read_text() == before


def test_compute_keeps_no_notebook(notebook, results, tmp_path):
    path = notebook("00_fine", f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    assert runner.main([path, "--compute"]) == 0
    assert (tmp_path / "ran").exists() and list(results.iterdir()) == []
