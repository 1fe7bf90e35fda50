"""JupyterLab in a real browser, moved as a reader moves it: by menus, labels, mouse and keys.

with serving(lab_command, folder, environment) as server:
    lab = Lab(chromium, server, screenshots)
    lab.open("00_meet_the_scenes")
    lab.run_all()
    panel = lab.panel("Scenes")
    with panel.changes("pictures"):
        panel.slide("tie", 3)
    assert not lab.complaints()
"""

from __future__ import annotations

import json
import math
import re
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

Page = Any  # playwright's; its package may be missing where these tests are skipped
Locator = Any

SOON = 30  # seconds for what takes moments, on a busy machine
COLD = 3600  # for a notebook whose networks are still to be trained

# What the console may say, and why that is not ours to fix.
ALLOWED = {
    r"/favicon\.ico": "browsers ask for one whether or not there is one",
}


# ---- the server ----


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, and the token that opens it."""

    url: str
    token: str

    def ask(self, path: str, method: str = "GET") -> Any:
        """What its REST interface answers; None where that is nothing."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=SOON) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def end_kernels(self) -> None:
        """Every open notebook's, and what they compute."""
        for session in self.ask("/api/sessions"):
            self.ask(f"/api/sessions/{session['id']}", "DELETE")


@contextmanager
def serving(
    command: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
) -> Iterator[Server]:
    """JupyterLab as `command(options)` starts it in `folder`; ended with its kernels, for certain.

    Should even these tests be killed, then an hour later the server ends by itself.

    Raises:
        RuntimeError: it does not start; with the end of what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex())
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={server.token}",
        "--LabApp.expose_app_in_browser=True",  # so that tests can ask what state a notebook is in
        "--LabApp.extension_manager=readonly",  # no look at what could be installed
        "--MappingKernelManager.cull_idle_timeout=3600",
        "--ServerApp.shutdown_no_activity_timeout=3600",
    ]
    with open(log, "wb") as said:
        process = subprocess.Popen(
            command(options), cwd=folder, env=dict(environment), stdout=said, stderr=said
        )
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        _end(server, process)


def _wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 2 * SOON
    while time.monotonic() < until and process.poll() is None:
        try:
            return server.ask("/api/status")
        except OSError:  # not listening yet
            time.sleep(0.2)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"JupyterLab does not start (exit status {process.poll()}):\n{tail}")


def _end(server: Server, process: subprocess.Popen) -> None:
    """Ask the server and all that it started to end, then make them."""
    family = []
    if process.poll() is None:
        head = psutil.Process(process.pid)
        family = [head, *head.children(recursive=True)]
    with suppress(OSError):  # not listening, or not any more
        server.ask("/api/shutdown", "POST")
    _, family = psutil.wait_procs(family, timeout=SOON / 2)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(timeout=SOON)


# ---- a notebook ----


class CellFailed(AssertionError):
    """A cell of a notebook ended with an error."""


_STATE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel?.status ?? "none";
    const cells = [...(panel?.content?.model?.cells ?? [])];
    const failed = [];
    let waiting = 0;
    cells.forEach((cell, number) => {
        if (cell.type !== "code" || !cell.sharedModel.getSource().trim()) return;
        waiting += cell.executionCount === null;
        for (let i = 0; i < cell.outputs.length; i++) {
            const output = cell.outputs.get(i).toJSON();
            if (output.output_type === "error")
                failed.push([number, output.ename, output.evalue]);
        }
    });
    return { kernel, cells: cells.length, waiting, failed };
}"""


class Lab:
    """One notebook at a time in JupyterLab, in a browser window of its own.

    Args:
        browser: playwright's.
        server: where JupyterLab runs.
        screenshots: the folder that keeps them.
    """

    def __init__(self, browser: Any, server: Server, screenshots: Path) -> None:
        self._server, self._screenshots, self._panels = server, screenshots, 0
        self._said: list[str] = []
        self.notebook = "lab"
        self._window = browser.new_context(viewport={"width": 1280, "height": 1000})
        self._window.set_default_timeout(1000 * SOON)
        self.page: Page = self._window.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._said.append(f"uncaught: {error}"))

    def open(self, notebook: str) -> None:
        """Open a notebook by its name without .ipynb, and wait for its kernel."""
        self.notebook = notebook
        self.go(f"/lab/tree/{notebook}.ipynb?reset")
        self.wait_for_kernel()

    def wait_for_kernel(self) -> None:
        """Wait until the notebook in front is shown and its kernel listens."""
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        self._until(lambda state: state["kernel"] == "idle" and state["cells"], 4 * SOON)

    def go(self, path: str) -> None:
        """Open an address of the server, as `/lab`, and wait for JupyterLab."""
        separator = "&" if "?" in path else "?"
        self.page.goto(f"{self._server.url}{path}{separator}token={self._server.token}")
        self.page.locator("#jp-main-dock-panel").wait_for()

    def run_all(self, timeout: float = COLD) -> None:
        """Clear all outputs, run all cells, and wait until the last has run.

        Raises:
            CellFailed: a cell that ends with an error, at once.
            TimeoutError: not done after `timeout` seconds.
        """
        self.menu("Edit", "Clear Outputs of All Cells")
        self.menu("Run", "Run All Cells")
        self._until(lambda state: state["kernel"] == "idle" and not state["waiting"], timeout)

    def menu(self, name: str, item: str) -> None:
        """Click an item of the menu bar."""
        page = self.page
        page.locator(".lm-MenuBar-item").filter(has_text=re.compile(f"^{name}$")).click()
        page.locator(".lm-Menu-item").filter(has_text=re.compile(f"^{item}")).first.click()

    def panel(self, title: str) -> Panel:
        """The panel whose output has this text, in its title or elsewhere.

        Raises:
            AssertionError: none has, or more than one; with what there is.
        """
        widgets = self.page.locator(".jp-OutputArea-output:has(.jupyter-widgets)")
        found = widgets.filter(has_text=title)
        until = time.monotonic() + SOON
        while found.count() != 1:
            if time.monotonic() > until:
                there = [text.strip()[:60] for text in widgets.all_inner_texts()]
                raise AssertionError(f"{found.count()} panels show {title!r}; panels: {there}")
            self.page.wait_for_timeout(200)
        # Remembered by a mark, because a panel may replace the text that it was found by.
        self._panels += 1
        found.evaluate("(element, mark) => element.dataset.panel = mark", str(self._panels))
        return Panel(self, title, self.page.locator(f'[data-panel="{self._panels}"]'))

    def complaints(self) -> list[str]:
        """Errors that the browser's console got since this was last asked."""
        said, self._said = self._said, []
        return said

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Keep what the window, or one element, looks like now."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        words = re.sub(r"\W+", "-", name.lower()).strip("-")
        path = self._screenshots / f"{self.notebook}_{words}.png"
        if of is None:
            self.page.screenshot(path=path)
            return path
        size = self.page.viewport_size  # what is taller than the window would be cut off
        self.page.set_viewport_size(size | {"height": max(size["height"], _height(of) + 200)})
        of.evaluate("element => element.scrollIntoView({block: 'center'})")
        self.page.evaluate(_LAID_OUT)
        of.screenshot(path=path)
        self.page.set_viewport_size(size)
        return path

    def close(self) -> None:
        """The window and its kernel."""
        self._window.close()
        self._server.end_kernels()

    def _hear(self, message: Any) -> None:
        where = (message.location or {}).get("url", "")
        said = f"{message.text} ({where})"
        if message.type == "error" and not any(re.search(known, said) for known in ALLOWED):
            self._said.append(said)

    def _until(self, done: Callable[[dict], bool], timeout: float) -> None:
        until, state = time.monotonic() + timeout, None
        while time.monotonic() < until:
            state = self.page.evaluate(_STATE)
            for number, name, value in state["failed"]:
                raise CellFailed(f"{self.notebook}, cell {number}: {name}: {value}")
            if state["kernel"] in ("dead", "autorestarting"):
                raise CellFailed(f"{self.notebook}: the kernel died")
            if done(state):
                return
            self.page.wait_for_timeout(300)
        self.screenshot("timeout")
        raise TimeoutError(f"{self.notebook}: not done after {timeout:.0f} s: {state}")


# ---- a panel ----

# Blob addresses are new for the same picture, so the bytes behind every address are compared.
_PICTURES = """async element => Promise.all(
    [...element.querySelectorAll("img, canvas")].map(async picture => {
        const address = picture.src ?? picture.toDataURL();
        if (!address) return "";
        const bytes = await (await fetch(address)).arrayBuffer();
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
        return [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("");
    })
)"""

# Without the controls, which change by themselves as soon as they are moved, and without what is
# never seen, such as style sheets.
_TEXTS = """element => [...element.querySelectorAll(".widget-html-content, .widget-output")]
    .filter(part => part.checkVisibility())
    .filter(part => !part.querySelector("[role=status], [role=alert], [role=heading]"))
    .map(part => part.innerText)"""

# What has just been scrolled to is laid out with the next frame, and until then has no text.
_LAID_OUT = """() => new Promise(
    laid => requestAnimationFrame(() => requestAnimationFrame(laid))
)"""

_CONTROLS = """element => [
    ...element.querySelectorAll("label.widget-label, .widget-checkbox, button")
].filter(control => control.checkVisibility())
    .map(control => /pictures-/.test(control.className) ? "a picture" : control.innerText)
    .map(label => label.replace("\u200b", "").replace(/[(][0-9]+[)]$/, "").trim())  // (2): uploaded
    .filter(label => label)"""


def _height(element: Locator) -> int:
    """In pixels."""
    return math.ceil(element.bounding_box()["height"])


class Panel:
    """A live panel. Its controls are found by the labels that a reader sees."""

    def __init__(self, lab: Lab, title: str, root: Locator) -> None:
        self.lab, self.title, self.root = lab, title, root
        self.moved: set[str] = set()  # the labels of what was moved
        self.by_keys: set[str] = set()  # of these, what was moved with the keyboard only

    # what is moved

    def slide(self, label: str, steps: int) -> None:
        """Move a slider by so many steps with the arrow keys, down for less than 0."""
        self._moves(label, by_keys=True)
        handle = self._labelled(label).locator("[role=slider]").first
        handle.focus()
        for _ in range(abs(steps)):
            handle.press("ArrowRight" if steps > 0 else "ArrowLeft")

    def drag(self, label: str, to: float) -> None:
        """Move a slider with the mouse to a share of its way, 0 to 1, in some quick moves."""
        self._moves(label)
        control = self._labelled(label)
        handle, way = control.locator("[role=slider]").first, control.locator(".noUi-base")
        handle.scroll_into_view_if_needed()
        held, whole = handle.bounding_box(), way.bounding_box()
        middle = held["y"] + held["height"] / 2
        mouse = self.lab.page.mouse
        mouse.move(held["x"] + held["width"] / 2, middle)
        mouse.down()
        mouse.move(whole["x"] + to * whole["width"], middle, steps=8)
        mouse.up()

    def choose(self, label: str, option: str) -> None:
        """Take an option of a dropdown, by its text."""
        self._moves(label)
        self._labelled(label).locator("select").select_option(label=option)

    def step(self, label: str, steps: int) -> None:
        """Open a dropdown with the Space bar, go by so many options with the arrow keys, up for
        less than 0, and press Enter. (While it is closed, JupyterLab takes the arrow keys to move
        from cell to cell.)"""
        self._moves(label, by_keys=True)
        self._labelled(label).locator("select").press("Space")
        for _ in range(abs(steps)):
            self.lab.page.keyboard.press("ArrowDown" if steps > 0 else "ArrowUp")
        self.lab.page.keyboard.press("Enter")

    def chosen(self, label: str) -> str:
        """The text of the option that a dropdown shows; nothing where it is blank."""
        select = self._labelled(label).locator("select")
        said = select.evaluate("element => element.selectedOptions[0]?.label ?? ''")
        return said.replace("\N{NO-BREAK SPACE}", " ")

    def tick(self, label: str, on: bool = True, key: str = "") -> None:
        """Set a checkbox, or a radio button where `label` is one of its options: with the mouse,
        or with a key, "Space"."""
        self._moves(label, by_keys=bool(key))
        box = self.root.get_by_label(label, exact=True)
        if not key:
            box.set_checked(on)
        elif box.is_checked() != on:
            box.press(key)

    def press(self, name: str, key: str = "") -> None:
        """Press a button: with the mouse, or with a key such as "Enter" or "Space"."""
        self._moves(name, by_keys=bool(key))
        button = self.root.get_by_role("button", name=name, exact=True)
        button.press(key) if key else button.click()

    def hurry(self, name: str) -> None:
        """Press a button if it can be pressed now or in a moment; else leave it."""
        from playwright.sync_api import TimeoutError as TooLate

        self._moves(name)
        with suppress(TooLate):
            self.root.get_by_role("button", name=name, exact=True).click(timeout=1_000)

    def pick(self, number: int, key: str = "", group: int = 0) -> None:
        """Choose one of several pictures, counted from 0: with the mouse, or with a key.

        Args:
            group: which pictures, where more than one is to be chosen.
        """
        self._moves("a picture", by_keys=bool(key))
        groups = self.root.locator(".widget-box:has(> button[class*=pictures-])")
        picture = groups.nth(group).locator("button").nth(number)
        picture.press(key) if key else picture.click()

    def type(self, label: str, text: str) -> None:
        """Replace what stands in a text or number field, and press Enter."""
        self._moves(label)
        field = self._labelled(label).locator("input, textarea").first
        field.fill(str(text))
        field.press("Enter")

    def upload(self, name: str, file: Path | Sequence[Path] | Mapping[str, Any]) -> None:
        """Press an upload button and give it files, or one as its name, mimeType and buffer."""
        self._moves(name)
        with self.lab.page.expect_file_chooser() as chooser:
            self.root.get_by_role("button", name=re.compile(re.escape(name))).click()
        chooser.value.set_files(file)

    # what is seen

    def shows(self, what: str = "pictures") -> list[str]:
        """What can be seen now of: "pictures" (digests), their "alt" texts, "text" beside the
        controls, title and status, the "status" line, or what a CSS selector finds."""
        self.root.scroll_into_view_if_needed()  # texts that are far away are not laid out
        self.lab.page.evaluate(_LAID_OUT)
        if what in ("pictures", "text"):
            return self.root.evaluate({"pictures": _PICTURES, "text": _TEXTS}[what])
        if what == "alt":
            images = "elements => elements.map(image => image.alt)"
            return self.root.locator("img").evaluate_all(images)
        css = "[role=status], [role=alert]" if what == "status" else what
        return self.root.locator(css).all_inner_texts()

    def controls(self) -> set[str]:
        """The labels of all that can be moved; of pictures to choose from just "a picture"."""
        self.root.scroll_into_view_if_needed()
        self.lab.page.evaluate(_LAID_OUT)
        return set(self.root.evaluate(_CONTROLS))

    def problem(self, timeout: float = SOON) -> str:
        """What the panel says is wrong, once it says so.

        Raises:
            AssertionError: nothing was wrong after `timeout` seconds.
        """
        alerts = self.root.locator("[role=alert]")
        self._until(lambda: alerts.count() > 0, timeout, "no problem")
        return alerts.first.inner_text()

    @contextmanager
    def changes(self, *what: str, timeout: float = SOON) -> Iterator[None]:
        """What is done inside must change all of these, see `shows`; then wait for the end of it.

        Raises:
            AssertionError: nothing changed after `timeout` seconds, or the panel says a problem.
        """
        what = what or ("pictures",)
        before = {kind: self.shows(kind) for kind in what}
        yield
        self._until(
            lambda: all(self.shows(kind) != seen for kind, seen in before.items()),
            timeout,
            f"no change of {' and '.join(what)}",
        )
        self.settle(timeout)

    def settle(self, timeout: float = SOON) -> None:
        """Wait until the panel no longer says that it is working.

        Raises:
            AssertionError: it still is after `timeout` seconds, or it says a problem.
        """
        self._until(lambda: not self._working(), timeout, "still working")
        if problems := self.root.locator("[role=alert]").all_inner_texts():
            raise AssertionError(f"the panel {self.title!r} says: {problems}")

    def screenshot(self, name: str = "") -> Path:
        """Keep what the panel looks like now."""
        return self.lab.screenshot(name or self.title, self.root)

    def _working(self) -> bool:
        return any(said.startswith("Working") for said in self.shows("status"))

    def _moves(self, label: str, by_keys: bool = False) -> None:
        self.moved.add(label)
        if by_keys:
            self.by_keys.add(label)

    def _labelled(self, label: str) -> Locator:
        """The control with this label: the smallest widget around it."""
        words = self.root.page.get_by_text(label, exact=True)
        return self.root.locator(".widget-inline-hbox, .widget-inline-vbox").filter(
            has=self.root.page.locator("label.widget-label").and_(words)
        )

    def _until(self, done: Callable[[], bool], timeout: float, otherwise: str) -> None:
        until = time.monotonic() + timeout
        while not done():
            if time.monotonic() > until:
                kept = self.screenshot(f"{self.title} failed")
                raise AssertionError(
                    f"the panel {self.title!r}: {otherwise} within {timeout:.0f} s; see {kept}"
                )
            self.lab.page.wait_for_timeout(100)
