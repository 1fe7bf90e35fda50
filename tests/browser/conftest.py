"""JupyterLab and Chromium for the browser tests; a skip, or on a build server a failure, where
they are missing.

What `helpers` does happens in the notebooks' kernels; these tests do not import it themselves.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from ipykernel.kernelspec import write_kernel_spec
from lab import Lab, serving

ROOT = Path(__file__).parents[2]
# Asked here, before the unit tests' own fixture sets another folder.
RESULTS = Path(os.environ.get("COURSE_RESULTS") or ROOT / "results").resolve()

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no look at the network, no pop-up
FLAGS = (
    "--no-sandbox",  # which containers do not allow; only our own pages are opened
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The system's Chromium; playwright's own download is not available everywhere."""
    if importlib.util.find_spec("playwright") is None:
        _missing("the Python package playwright is missing: pip install -e '.[test]'")
    if named := os.environ.get("COURSE_CHROMIUM"):
        if found := shutil.which(named):
            return found
        _missing(f"COURSE_CHROMIUM={named} is no program that can be run")
    if found := next(filter(None, map(shutil.which, CHROMIUM)), None):
        return found
    _missing(
        f"no Chromium found (looked for {', '.join(CHROMIUM)}). Install it (Debian: sudo apt "
        "install chromium; elsewhere Chromium or Google Chrome), or set COURSE_CHROMIUM to the "
        "path of its program"
    )


def _missing(what: str) -> None:
    required = os.environ.get("COURSE_BROWSER") == "required" or os.environ.get("CI")
    stop = pytest.fail if required else pytest.skip
    stop(f"browser tests: {what}", **({"pytrace": False} if required else {}))


@pytest.fixture(scope="session")
def browser(chromium_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def environment(chromium_path, tmp_path_factory) -> dict[str, str]:
    """What JupyterLab runs under: this Python and package, the checkout's computed results, and
    nothing of the settings, answers or windows of whoever runs the tests."""
    scratch = tmp_path_factory.mktemp("jupyter")
    write_kernel_spec(scratch / "data" / "kernels" / "python3")
    defaults = scratch / "config" / "labconfig" / "default_setting_overrides.json"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": QUIET}))
    store = RESULTS / "demo" / "store"
    store.mkdir(parents=True, exist_ok=True)
    (scratch / "results" / "demo").mkdir(parents=True)
    (scratch / "results" / "demo" / "store").symlink_to(store, target_is_directory=True)
    search_path = os.environ.get("PYTHONPATH")
    return os.environ | {
        "COURSE_RESULTS": str(scratch / "results"),
        "JUPYTER_CONFIG_DIR": str(scratch / "config"),
        "JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter"),
        "JUPYTER_DATA_DIR": str(scratch / "data"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), search_path))),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@pytest.fixture(scope="session")
def answers(environment) -> Path:
    """The folder that gets what people answer in a notebook, and its figures."""
    return Path(environment["COURSE_RESULTS"]) / "demo"


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory) -> Path:
    """A copy of the notebooks: those that are committed are never written."""
    copy = tmp_path_factory.mktemp("course") / "notebooks"
    shutil.copytree(ROOT / "notebooks", copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return copy


@pytest.fixture(scope="session")
def server(environment, notebooks):
    """JupyterLab over the copy of the notebooks."""

    def command(options):
        return [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebooks}", *options]

    with serving(command, notebooks, environment, notebooks.parent / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def ran(browser, server):
    """Call it with a notebook's name: that notebook, opened and run, once for all tests in a row;
    its kernel ends when another one is asked for."""
    kept: dict[str, Lab | Exception] = {}
    with ExitStack() as window:

        def of(notebook: str) -> Lab:
            if notebook not in kept:
                window.close()
                kept.clear()
                lab = window.enter_context(closing(Lab(browser, server, RESULTS / "browser")))
                try:
                    lab.open(notebook)
                    lab.run_all()
                except Exception as problem:
                    kept[notebook] = problem
                else:
                    kept[notebook] = lab
            if isinstance(kept[notebook], Exception):
                raise kept[notebook]
            return kept[notebook]

        yield of
