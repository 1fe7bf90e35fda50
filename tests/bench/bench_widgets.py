"""How soon a panel answers: every control of every panel moved, on the demo's warm store.

    python tests/bench/bench_widgets.py [NN ...]

For each control: from the movement to the first change on the page and to the end of the work, in
milliseconds, the median and the worst of several movements; the pause in which a panel waits for
another movement (50 ms) is included, the browser (about 20 ms) is not. The goal is 300 ms to the
first change. A row in which nothing is computed (a control that only unlocks a button) reads 0.
"""

import argparse
import asyncio
import json
import statistics
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import ipywidgets
import nbformat

from helpers.budget import ROOT
from helpers.widgets import live

GOAL = 300  # milliseconds
ROUNDS = 5


def panels(number: str) -> list[live.Panel]:
    """The panels of a notebook, made by its own cells up to each widget."""
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    from IPython.core.interactiveshell import InteractiveShell

    shell, made, init = InteractiveShell.instance(), [], live.Panel.__init__

    def noted(panel, *args, **more):
        made.append(panel)
        init(panel, *args, **more)

    live.Panel.__init__ = noted
    try:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                with redirect_stdout(StringIO()):
                    result = shell.run_cell(cell.source, silent=True)
                result.raise_error()
    finally:
        live.Panel.__init__ = init
    return made


def other_values(control: ipywidgets.Widget) -> list[object]:
    """Values to move a control to, all different from the one before."""
    if isinstance(control, (ipywidgets.Checkbox, ipywidgets.ToggleButton)):
        return [not control.value, control.value] * ROUNDS
    if hasattr(control, "options"):
        values = [value for _, value in control._options_full]
    elif hasattr(control, "min") and hasattr(control, "max"):
        low, high, step = control.min, control.max, control.step
        values = [low, low + step * int((high - low) / step / 2), high]
    elif isinstance(control, ipywidgets.Box) and control.has_trait("value"):
        values = list(range(len(control.children) - 1))
    else:
        return []
    return [v for v in values if v != control.value][:ROUNDS]


async def answer_times(panel: live.Panel, control: ipywidgets.Widget, value: object) -> tuple:
    """Milliseconds from a movement to the first change shown, and to the end."""
    first: list[float] = []
    shown = [w for w in live._all_of(panel.children) if isinstance(w, ipywidgets.HTML)]

    def changed(_):
        if not first:
            first.append(time.perf_counter())

    for widget in shown:
        if widget is not panel.status:
            widget.observe(changed, "value")
    start = time.perf_counter()
    control.value = value
    while panel._latest.running and time.perf_counter() < start + 60:
        await asyncio.sleep(0)
    end = time.perf_counter()
    for widget in shown:
        if widget is not panel.status:
            widget.unobserve(changed, "value")
    return (1_000 * ((first or [start])[0] - start), 1_000 * (end - start))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("notebooks", nargs="*", default=["00", "01", "02", "03", "04", "05"])
    rows = []
    for number in ask.parse_args().notebooks:
        for panel in panels(number):
            controls = [w for w in live._all_of(panel.children) if other_values(w)]
            for control in controls:

                async def moved(panel=panel, control=control):
                    return [await answer_times(panel, control, v) for v in other_values(control)]

                before = control.value
                times = asyncio.run(moved())
                control.value = before
                firsts, ends = zip(*times, strict=True)
                rows.append(
                    {
                        "notebook": number,
                        "panel": panel.title,
                        "control": getattr(control, "description", "") or type(control).__name__,
                        "first": round(statistics.median(firsts)),
                        "first, worst": round(max(firsts)),
                        "all": round(statistics.median(ends)),
                    }
                )
                print(*rows[-1].values(), sep=" | ", flush=True)
    late = [row for row in rows if row["first, worst"] > GOAL]
    print(f"{len(rows)} controls; {len(late)} answered later than {GOAL} ms at worst.")
    out = Path(ROOT / "results" / "bench")
    out.mkdir(parents=True, exist_ok=True)
    (out / "widgets.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
