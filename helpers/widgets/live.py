"""A panel that answers at once: the newest request only, in slices, on the kernel's own loop.

A panel's `work` is a generator. It reads the controls, changes what is shown, and yields between
slices of at most about 50 ms. Between two slices the kernel reads its messages: a control that was
moved drops what is left of the work and starts it anew, the stop button ends it. There is no
thread of ours, so nothing can be left running, and no lock; `finally` and `with` of a dropped
generator still run, so no hook stays on a network. (JupyterLab has a kernel's subshell, a thread,
read what the page says; a panel takes it back to its own loop, see `pieces.answer_here`.)

    class Squares(Panel):
        def __init__(self):
            self.n = ipywidgets.IntSlider(description="n", max=9)
            self.answer = ipywidgets.HTML()
            super().__init__("Squares", [self.n], [self.answer])

        def work(self):
            self.answer.value = f"{self.n.value ** 2}"
            yield  # only needed where there is more to come
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets
from IPython import get_ipython

from helpers.widgets.pieces import answer_here, button, one_thread, progress, wrapping

Slices = Iterator[float | None]  # between two slices: how much is done, 0 to 1, where it is known

_PAUSE = 0.05  # seconds without another movement before work starts


class Latest:
    """Runs what was asked last, and only that.

    Args:
        say: is told what happens: "working" (with the share done, where known), "ready", "stopped",
            or a problem's text with `problem=True`.

    Without a running event loop (a script, a test) `ask` returns when all is done.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._waiting: asyncio.TimerHandle | None = None
        self._task: asyncio.Task | None = None
        self._slices: Generator[float | None, None, None] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether something is being computed or about to be."""
        return self._waiting is not None or self._slices is not None

    def ask(self, work: Callable[[], Slices], at_once: bool = False) -> None:
        """Drop what is being done and do this, after a short pause in which more may be asked.

        Args:
            at_once: compute the first slice before returning: what is shown is then never empty.
        """
        self._drop()
        if self._closed:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._begin(work)
            while self._slices is not None:
                self._slice()
            return
        if at_once:
            self._begin(work)
            if self._slice():
                self._task = loop.create_task(self._rest())
        else:
            self._waiting = loop.call_later(_PAUSE, self._start, loop, work)
            self._say("working")

    def stop(self) -> None:
        """End the work; what is shown stays as it is."""
        if self.running:
            self._drop()
            self._say("stopped")

    def close(self) -> None:
        """End the work without a word, and do no more."""
        self._closed = True
        self._drop()

    def _start(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Slices]) -> None:
        self._waiting = None
        self._begin(work)
        self._task = loop.create_task(self._rest())

    def _begin(self, work: Callable[[], Slices]) -> None:
        self._slices = work()
        self._say("working")

    async def _rest(self) -> None:
        try:
            while self._slice():
                await asyncio.sleep(0)  # the kernel reads its messages
        except Exception as problem:  # said at once, not when the task is forgotten
            context = {"message": "a panel's work failed", "exception": problem}
            asyncio.get_running_loop().call_exception_handler(context)

    def _slice(self) -> bool:
        """Do one slice; whether there is another."""
        try:
            with one_thread():
                share = next(self._slices)
        except StopIteration:
            self._slices = None
            self._say("ready")
            return False
        except Exception as problem:
            self._slices = None
            self._say(str(problem) or type(problem).__name__, problem=True)
            if not isinstance(problem, (ValueError, OSError)):
                raise  # not the reader's doing: the traceback belongs in the log
            return False
        self._say("working", share)
        return True

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._slices is not None:
            self._slices.close()
        self._waiting = self._task = self._slices = None


class Panel(ipywidgets.VBox):
    """A title, controls, a line that says what is going on, and what came out.

    A subclass makes its widgets, hands them to `super().__init__`, and gives `work`.

    Args:
        title: also how the panel is called where widgets cannot be shown.
        controls: every widget among them (and in boxes among them) that has a value asks for new
            work when it changes; buttons are the subclass's own.
        shown: what came out.
        note: one sentence on what to try.
        stoppable: whether work takes long enough for a stop button.
        quiet: controls that do not ask for work by themselves.
    """

    _latest: Latest | None = None  # as long as it is being made
    moving = False  # whether it is the panel itself that moves controls, see `silently`

    def __init__(
        self,
        title: str,
        controls: Sequence[ipywidgets.Widget],
        shown: Sequence[ipywidgets.Widget],
        *,
        note: str = "",
        stoppable: bool = False,
        quiet: Iterable[ipywidgets.Widget] = (),
    ) -> None:
        super().__init__()
        self.title = title
        self._latest = Latest(self._say)
        self._stop = button("Stop", "End what is being computed; what is shown stays")
        self._stop.on_click(lambda _: self.stop())
        self._stop.disabled = True
        self.status = ipywidgets.HTML()
        head = f'<strong role="heading" aria-level="4">{escape(title)}.</strong> {escape(note)}'
        head = ipywidgets.HTML(f'<p style="margin:0">{head}</p>')
        self._stop.layout.display = None if stoppable else "none"
        self.children = [
            head,
            ipywidgets.Box(controls, layout=wrapping("4px 16px")),
            ipywidgets.HBox([self.status, self._stop], layout=wrapping()),
            *shown,
        ]
        self.layout.grid_gap = "8px"
        quiet = set(map(id, quiet))
        for widget in _all_of(controls):
            if widget.has_trait("value") and id(widget) not in quiet:
                widget.observe(self.update, "value")
        for widget in _all_of(self.children):
            answer_here(widget)
        _close_former(self)
        self._latest.ask(self.work, at_once=True)

    def work(self) -> Slices:
        """Show what the controls ask for, in slices of at most about 50 ms."""
        raise NotImplementedError

    def update(self, _: object = None) -> None:
        """Do the work anew, for the controls as they are now; unless the panel moved them."""
        if not self.moving:
            self._latest.ask(self.work)

    @contextmanager
    def silently(self) -> Iterator[None]:
        """What moves a control in here is the panel, not the reader: no work is asked for."""
        before, self.moving = self.moving, True
        try:
            yield
        finally:
            self.moving = before

    def stop(self) -> None:
        """End what is being computed; what is shown stays."""
        self._latest.stop()

    def close(self) -> None:
        """Take the panel and all that is on it from the page."""
        if self._latest is not None:
            self._latest.close()
        for widget in _all_of(self.children):
            widget.close()
        super().close()

    def __repr__(self) -> str:  # what a page without a running notebook shows
        return f"{self.title}: run this cell to play with it."

    def _say(self, what: str, share: float | None = None, problem: bool = False) -> None:
        self._stop.disabled = not self._latest.running
        if problem:
            self.status.value = f'<span role="alert">⚠ {escape(what)}</span>'
        elif what == "working" and share is not None:
            self.status.value = progress(share)
        else:
            words = {"working": "Working …", "ready": "Ready.", "stopped": "Stopped."}
            self.status.value = f'<span role="status">{words[what]}</span>'


class Kept:
    """The last few of what takes long, by what they are of."""

    def __init__(self, most: int) -> None:
        self._most, self._values = most, OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __getitem__(self, key: Hashable) -> Any:
        self._values.move_to_end(key)
        return self._values[key]

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def clear(self) -> None:
        self._values.clear()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
        return self[key]


_of_cell: dict[str, tuple[str, list[Panel]]] = {}  # by cell: its last run, and its panels


def _close_former(panel: Panel) -> None:
    """Close what an earlier run of this cell has shown: ipywidgets would keep it, and its work,
    as long as the kernel runs. Where cells have no name (a script) nothing is known of earlier."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    if cell is None:
        return
    run = parent["header"]["msg_id"]
    last, panels = _of_cell.get(cell, (run, []))
    if last != run:
        for former in panels:
            former.close()
        panels = []
    _of_cell[cell] = run, [*panels, panel]


def _all_of(widgets: Iterable[ipywidgets.Widget]) -> Iterator[ipywidgets.Widget]:
    """These widgets and all in them."""
    for widget in widgets:
        yield widget
        yield from _all_of(getattr(widget, "children", ()))
