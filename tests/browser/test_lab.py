"""`make lab`: JupyterLab opens at the syllabus, as a page whose links lead to the notebooks."""

import re
import sys
from pathlib import Path

import pytest
from lab import Lab, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make_lab(environment, tmp_path_factory):
    """`make lab` with the Python of these tests in the place of .venv's, and what it says."""
    folder = tmp_path_factory.mktemp("make")
    stamp, log = folder / "installed", folder / "server.log"
    stamp.touch()
    python = [f"BIN={Path(sys.executable).parent}", f"STAMP={stamp}"]

    def command(options):
        return ["make", "lab", *python, f"LAB_ARGS={' '.join(options)}"]

    # As outside of these tests: only `make lab` itself knows the course's defaults. And no windows
    # of the notebooks that were tried before.
    changed = environment | {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    del changed["JUPYTER_CONFIG_PATH"]
    with serving(command, ROOT, changed, log) as running:
        yield running, log.read_text()


def test_it_opens_at_the_syllabus(browser, make_lab):
    server, said = make_lab
    addresses = re.findall(r"(http://127\.0\.0\.1:\d+)(/\S*?)\?token=", said)
    assert addresses, said
    title = re.search(r"^# (.+)$", (ROOT / "notebooks" / "README.md").read_text(), re.MULTILINE)[1]
    lab = Lab(browser, server, ROOT / "results" / "browser")
    try:
        lab.go(addresses[0][1])
        page = lab.page.locator(".jp-MarkdownViewer")
        page.get_by_role("heading", name=title).first.wait_for()
        lab.screenshot("syllabus")
        page.get_by_role("link").and_(
            lab.page.locator("[href*='00_meet_the_scenes']")
        ).first.click()
        lab.wait_for_kernel()
        assert not lab.complaints()
    finally:
        lab.close()
