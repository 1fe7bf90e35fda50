"""Run the course: every notebook from its first cell to its last, then the report.

    python -m helpers.runner                                       the demo, all notebooks
    python -m helpers.runner 00 04 -j 2                            two of them, side by side
    python -m helpers.runner --profile photos --data-root ~/data --limit 50

papermill executes each notebook in a process of its own, from a copy: the notebooks themselves are
only written by `--refresh`. What is asked for is checked before anything runs, because papermill
merely warns about a misspelt parameter and then computes the wrong thing for an hour. A notebook
that fails does not stop the others; what failed is printed last, where it is seen.

Nothing here remembers anything: what is expensive lies in the store, so an interrupted run is
continued by running it again.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

# Reading a notebook imports jsonschema, which would build a grammar of internationalised URLs where
# this optional package is installed (JupyterLab brings it): 1.5 s each time, for nothing used here.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat  # noqa: E402
import papermill  # noqa: E402
from ipykernel.kernelspec import write_kernel_spec  # noqa: E402
from nbclient.exceptions import DeadKernelError  # noqa: E402

from helpers.budget import PROFILES, ROOT, results_folder  # noqa: E402
from helpers.durable import write_durably  # noqa: E402

POLL_SECONDS = 0.2  # how often progress and memory are looked at
LOG_SECONDS = 30  # how often a run without a terminal says that it is alive

_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # the colours of a traceback


class Refused(ValueError):
    """What was asked for cannot be run; nothing has been run."""


@dataclass
class Outcome:
    """What became of one notebook: `results/<profile>/runs/<notebook>.json`."""

    notebook: str
    state: str  # "ok" or "failed"
    seconds: float
    peak_mib: int  # its process, its kernel and their children together, resident
    error: str | None
    finished: str  # UTC, ISO 8601


# ---------------------------------------------------------------- what to run, checked beforehand


def choose(wanted: Sequence[str], folder: Path) -> list[Path]:
    """The notebooks meant by numbers ("04", "4"), names, or paths; all of `folder` if none.

    Raises:
        Refused: a name is no notebook; the valid ones are listed.
    """
    there = sorted(folder.glob("[0-9]*.ipynb"))
    if not there and not wanted:
        raise Refused(f"there are no notebooks in {folder}")
    by_name = {n.stem: n for n in there} | {n.stem.split("_")[0]: n for n in there}
    chosen = []
    for name in wanted:
        path = Path(name).expanduser()
        if path.suffix == ".ipynb" and path.is_file():
            chosen.append(path.resolve())
        elif notebook := by_name.get(path.stem) or by_name.get(name.zfill(2)):
            chosen.append(notebook)
        else:
            raise Refused(f"no notebook {name!r}; there are: {', '.join(n.stem for n in there)}")
    return list(dict.fromkeys(chosen)) or there


def check(notebooks: Sequence[Path], parameters: Mapping[str, object]) -> None:
    """Every notebook has one cell tagged `parameters`, and it names each of `parameters`.

    Raises:
        Refused: with every problem of every notebook, and the parameters that exist.
    """
    problems = []
    for notebook in notebooks:
        try:
            cells = nbformat.read(notebook, as_version=4).cells
        except Exception as error:
            problems.append(f"{notebook.name} cannot be read as a notebook: {error}")
            continue
        tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
        if len(tagged) != 1:
            problems.append(
                f"{notebook.name} has {len(tagged)} cells tagged `parameters`; it needs exactly "
                "one, holding the defaults (PROFILE, DATA_ROOT, LIMIT)"
            )
            continue
        known = papermill.inspect_notebook(notebook)
        for name in parameters:
            if name not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                problems.append(
                    f"{notebook.name} has no parameter {name!r}"
                    + (f" (did you mean {near[0]}?)" if near else "")
                    + f"; it has: {', '.join(known)}"
                )
    if problems:
        raise Refused("\n".join(problems))


def parameter(text: str) -> tuple[str, object]:
    """NAME=VALUE; VALUE is a Python literal, or else the text itself."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


# ---------------------------------------------------------------- one notebook, in its own process


def execute(job: Path) -> None:
    """Execute the notebook that the JSON file `job` names; note progress and outcome beside it.

    This is the main function of a notebook's process. It ends with the runner, even if that is
    killed: the runner holds the other end of standard input, and the kernel watches this process.
    """
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    task = json.loads(job.read_text())
    finished = []

    def count(cell: nbformat.NotebookNode, cell_index: int, execute_reply: Mapping) -> None:
        injected = "injected-parameters" in cell.metadata.get("tags", [])
        if execute_reply["content"]["status"] == "ok" and not injected:
            finished.append(cell_index)
            job.with_suffix(".cells").write_text(str(len(finished)))

    error = None
    try:
        papermill.execute_notebook(
            task["notebook"],
            job.with_suffix(".ipynb"),
            task["parameters"],
            kernel_name="python3",
            cwd=Path(task["notebook"]).parent,  # as JupyterLab and nbval do
            progress_bar=False,
            coalesce_streams=True,
            # only a finished notebook is kept; saving after each cell would cost seconds
            request_save_on_cell_execute=False,
            autosave_cell_every=0,
            on_cell_executed=count,
        )
    except papermill.PapermillExecutionError as failure:
        error = (
            f"cell {failure.exec_count}: {failure.ename}: {failure.evalue}\n\n"
            f"{_indented(failure.source)}\n\n" + "\n".join(failure.traceback)
        )
    except DeadKernelError:
        error = (
            f"the kernel died after {len(finished)} cells. Most often memory ran out: close other "
            "programs, or run fewer notebooks at once (-j 1), or fewer images (--limit)"
        )
    record = json.dumps({"error": error and _ANSI.sub("", error)})
    write_durably(job.with_suffix(".outcome"), record.encode())


@dataclass
class _Process:
    """A notebook being executed, seen from the runner."""

    notebook: Path
    job: Path
    process: subprocess.Popen
    cells: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    peak: int = 0  # bytes
    told: float = field(default_factory=time.monotonic)

    @classmethod
    def start(
        cls, notebook: Path, parameters: Mapping[str, object], scratch: Path, env: dict[str, str]
    ) -> _Process:
        job = scratch / f"{notebook.stem}.json"
        job.write_text(json.dumps({"notebook": str(notebook), "parameters": dict(parameters)}))
        code = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
        command = "import sys, pathlib; from helpers.runner import execute; "
        with open(job.with_suffix(".log"), "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", command + "execute(pathlib.Path(sys.argv[1]))", str(job)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C is the runner's to handle, once
            )
        return cls(notebook, job, process, cells=sum(bool(c.source.strip()) for c in code))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def look(self) -> None:
        """Note how far it is and how much memory its processes hold."""
        with suppress(OSError, ValueError):  # not there yet, or being written at this moment
            self.done = int(self.job.with_suffix(".cells").read_text())
        self.peak = max(self.peak, sum(map(_resident, _family(self.process.pid))))

    def outcome(self) -> Outcome:
        """What became of it, once it has ended."""
        try:
            error = json.loads(self.job.with_suffix(".outcome").read_text())["error"]
        except (OSError, ValueError):
            log = self.job.with_suffix(".log").read_text(errors="replace").strip()
            code = self.process.returncode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited {code}"
            error = f"the notebook's process {how} after {self.done} cells\n\n{log}".strip()
        return Outcome(
            notebook=self.notebook.stem,
            state="failed" if error else "ok",
            seconds=round(self.seconds, 1),
            peak_mib=round(self.peak / 2**20),
            error=error,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants that still live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _kill(running: Sequence[_Process]) -> None:
    """End every process of every running notebook: politely, then not."""
    family = [process for run in running for process in _family(run.process.pid)]
    for process in family:
        _tell(process, signal.SIGTERM)
    for process in psutil.wait_procs(family, timeout=3)[1]:
        _tell(process, signal.SIGKILL)
    for run in running:
        run.process.wait()


def _tell(process: psutil.Process, what: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(what)


# ---------------------------------------------------------------- several notebooks


class _Screen:
    """Permanent lines, and a status: one line rewritten on a terminal, a log line now and then."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()

    def say(self, line: str = "") -> None:
        print(("\r\x1b[K" if self.terminal else "") + line, flush=True)

    def status(self, running: Sequence[_Process]) -> None:
        if self.terminal:
            line = "   ".join(_progress(run) for run in running)
            width = shutil.get_terminal_size().columns - 1
            print("\r\x1b[K" + line[:width], end="", flush=True)
            return
        for run in running:
            if time.monotonic() - run.told > LOG_SECONDS:
                run.told = time.monotonic()
                self.say(f"   {_progress(run)}")


def run(
    notebooks: Sequence[Path],
    parameters: Mapping[str, object],
    scratch: Path,
    *,
    jobs: int,
    screen: _Screen,
) -> tuple[list[Outcome], int]:
    """Execute `notebooks`, at most `jobs` at once, leaving `<scratch>/<name>.ipynb` of each.

    Returns the outcomes of those that ended, and the signal that interrupted the run, or 0. All
    processes have ended on return.
    """
    waiting, running, outcomes = list(notebooks), [], []
    interrupted: list[int] = []
    env = _environment(scratch, min(jobs, len(notebooks)))
    handlers = {
        s: signal.signal(s, lambda number, _: interrupted.append(number))
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        while (waiting or running) and not interrupted:
            while waiting and len(running) < jobs:
                notebook = waiting.pop(0)
                running.append(_Process.start(notebook, parameters, scratch, env))
                if not screen.terminal:
                    screen.say(f"   {notebook.stem}: started, {running[-1].cells} cells")
            time.sleep(POLL_SECONDS)
            for one in list(running):
                one.look()
                if one.process.poll() is not None:
                    running.remove(one)
                    outcomes.append(one.outcome())
                    screen.say(f"   {_progress(one)}: {outcomes[-1].state}")
            screen.status(running)
    finally:
        _kill(running)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    outcomes.sort(key=lambda o: [n.stem for n in notebooks].index(o.notebook))
    return outcomes, interrupted[0] if interrupted else 0


def _environment(scratch: Path, jobs: int) -> dict[str, str]:
    """The notebooks' environment: this very Python as their kernel, this package, their threads."""
    write_kernel_spec(scratch / "jupyter" / "kernels" / "python3")
    env = dict(os.environ)
    for name, first in (("JUPYTER_PATH", scratch / "jupyter"), ("PYTHONPATH", ROOT)):
        env[name] = os.pathsep.join(filter(None, (str(first), env.get(name))))
    if results := env.get("COURSE_RESULTS"):  # the kernel runs in another folder
        env["COURSE_RESULTS"] = str(Path(results).resolve())
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a warning of the debugger that nobody uses here
    if jobs > 1:
        env.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // jobs)))
    return env


def _cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is committed: its outputs, without what changes at every run.

    Widgets and progress bars go: their outputs only point at a kernel that has ended.
    """
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            kept = (_lasting(output, panel="widget" in tags) for output in cell.outputs)
            cell.outputs = [output for output in kept if output is not None]
    return notebook


_VIEW = "application/vnd.jupyter.widget-view+json"


def _lasting(output: nbformat.NotebookNode, panel: bool) -> nbformat.NotebookNode | None:
    """The output without what passes: progress bars, widgets (of a panel its words stay)."""
    if output.output_type == "stream":
        lines = (line.rsplit("\r", 1)[-1] for line in output.text.split("\n"))
        return output if any(line.strip() for line in lines) else None  # a bar wipes itself
    data = output.get("data", {})
    if _VIEW not in data:
        return output
    if panel and "text/plain" in data:
        output.data = nbformat.from_dict({"text/plain": data["text/plain"]})
        return output
    return None


# ---------------------------------------------------------------- the command


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0; 1 if a notebook failed, 2 if refused, 128 + a signal."""
    options = _parser().parse_args(argv)
    try:
        return _run_all(options)
    except Refused as refusal:
        print(f"Nothing was run:\n{refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m helpers.runner", description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", help="numbers or names; all if none is given")
    parser.add_argument("--profile", default="demo", help="demo (default), photos or paper")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the photographs are")
    parser.add_argument("--limit", type=int, metavar="N", help="use at most N images")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="N at once")
    parser.add_argument(
        "--parameter",
        type=parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of the notebooks; may be repeated",
    )
    parser.add_argument(
        "--refresh", action="store_true", help="write the demo's outputs into the notebooks"
    )
    parser.add_argument(
        "--compute", action="store_true", help="only fill the store: keep no notebook, no report"
    )
    return parser


def _parameters(options: argparse.Namespace) -> dict[str, object]:
    """What to hand the notebooks. Refuses what cannot be right in any of them."""
    if options.profile not in PROFILES:
        raise Refused(f"no profile {options.profile!r}; there are: {', '.join(PROFILES)}")
    if options.compute and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise Refused("--compute runs in one process so far, and several were launched")
    if options.jobs < 1 or (options.limit is not None and options.limit < 1):
        raise Refused("--jobs and --limit must be at least 1")
    if options.refresh:
        if options.profile != "demo" or options.data_root or options.limit or options.parameter:
            raise Refused("--refresh commits the demo's outputs: it takes no other parameters")
        return {}  # the defaults, and so no injected cell
    given: dict[str, object] = {"PROFILE": options.profile}
    if options.data_root:
        folder = Path(options.data_root).expanduser().resolve()
        if not folder.is_dir():
            raise Refused(f"--data-root: there is no folder {folder}")
        given["DATA_ROOT"] = str(folder)
    if options.limit is not None:
        given["LIMIT"] = options.limit
    for name, value in options.parameter:
        if name in ("PROFILE", "DATA_ROOT", "LIMIT"):
            raise Refused(f"{name} has an option of its own: --{name.lower().replace('_', '-')}")
        given[name] = value
    return given


def _run_all(options: argparse.Namespace) -> int:
    parameters = _parameters(options)
    notebooks = choose(options.notebooks, ROOT / "notebooks")
    check(notebooks, parameters)
    folder = results_folder(options.profile).resolve()
    # the report's imports take seconds; have them done while the first notebook computes
    ahead = threading.Timer(4, _import_ahead)
    ahead.daemon = True
    ahead.start()
    folder.mkdir(parents=True, exist_ok=True)
    screen, started = _Screen(), time.time()
    screen.say(f"{len(notebooks)} notebook{'s'[: len(notebooks) > 1]}, profile {options.profile}")
    _sweep(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".run-{os.getpid()}-") as scratch:
        outcomes, number = run(
            notebooks, parameters, Path(scratch), jobs=options.jobs, screen=screen
        )
        if not options.compute:
            _keep(outcomes, Path(scratch), folder, started)
    succeeded = {o.notebook for o in outcomes if o.state == "ok"}
    for notebook in notebooks if options.refresh else ():
        if notebook.stem in succeeded:
            executed = nbformat.read(folder / "notebooks" / notebook.name, as_version=4)
            write_durably(notebook, (nbformat.writes(cleaned(executed)) + "\n").encode())
    screen.say()
    screen.say(_table(outcomes))
    if number:
        screen.say("\nInterrupted. Run the same command again: it continues where this stopped.")
        return 128 + number
    if not options.compute:
        from helpers import course, report

        screen.say(f"\nReport: {report.write(folder, course.provenance(options.profile))}")
    failed = [o for o in outcomes if o.state == "failed"]
    for outcome in failed:
        print(f"\n{outcome.notebook} failed: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def _sweep(folder: Path) -> None:
    """Remove what a runner left behind that was killed without warning."""
    for scratch in folder.glob(".run-*-*"):
        if not psutil.pid_exists(int(scratch.name.split("-")[1])):
            shutil.rmtree(scratch, ignore_errors=True)


def _import_ahead() -> None:
    for module in ("helpers.course", "helpers.report"):
        importlib.import_module(module)


def _keep(outcomes: Sequence[Outcome], scratch: Path, folder: Path, started: float) -> None:
    """Move the executed notebooks and their records into the results."""
    for name in ("notebooks", "runs"):
        (folder / name).mkdir(exist_ok=True)
    for outcome in outcomes:
        executed = scratch / f"{outcome.notebook}.ipynb"
        if executed.exists():
            executed.replace(folder / "notebooks" / executed.name)
        record = json.dumps(vars(outcome), indent=2)
        write_durably(folder / "runs" / f"{outcome.notebook}.json", record.encode())
        if outcome.state == "ok":
            _forget(outcome.notebook, folder, started)


def _forget(notebook: str, folder: Path, started: float) -> None:
    """Remove figures and claims that this notebook made in an earlier run and no longer makes."""
    made = list((folder / "figures").glob(f"{notebook}-*"))
    for claim in (folder / "claims").glob("*.json"):
        with suppress(OSError, ValueError, AttributeError):  # a damaged one is the report's to name
            if json.loads(claim.read_text()).get("notebook") == notebook:
                made.append(claim)
    for file in made:
        if file.stat().st_mtime < started:
            file.unlink()
            for small in (folder / "figures" / ".embedded").glob(f"{file.stem}-[0-9]*"):
                small.unlink()  # at worst that of a figure with a longer name, which comes again


def _table(outcomes: Sequence[Outcome]) -> str:
    width = max((len(o.notebook) for o in outcomes), default=8)
    lines = [f"{'notebook':<{width}}  state   {'time':>10}  {'peak memory':>12}"]
    for o in outcomes:
        memory = f"{o.peak_mib:,} MiB"
        lines.append(f"{o.notebook:<{width}}  {o.state:<6}  {_time(o.seconds):>10}  {memory:>12}")
    return "\n".join(lines)


def _progress(run: _Process) -> str:
    return f"{run.notebook.stem} {run.done}/{run.cells} cells, {_time(run.seconds)}"


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
