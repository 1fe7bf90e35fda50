"""What a build server sees: `.ci/run` brings a browser where it can, and long tests are named."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(tmp_path):
    """A machine with stand-ins for the programs named; call it to run `.ci/run` there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool))
    shutil.copytree(ROOT / ".ci", tmp_path / "clone" / ".ci")

    def program(name, does=""):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\n{does}\n')
        (tools / name).chmod(0o755)

    def run(user, *programs, **environment):
        program("id", f"echo {user}")
        program("make", f'echo "browser $COURSE_BROWSER" >> {tmp_path}/asked')
        for name in programs:
            program(name)
        script = tmp_path / "clone" / ".ci" / "run"
        env = {"PATH": str(tools)} | environment
        done = subprocess.run([script], env=env, capture_output=True, text=True)
        asked = (tmp_path / "asked").read_text().splitlines()
        assert done.returncode == 0, done.stderr
        assert asked[-2:] == ["make test", "browser required"]
        return [line for line in asked[:-2] if not line.startswith("id")], done.stderr

    run.program = program
    return run


def test_root_installs_chromium_once(server):
    asked, _ = server(0, "apt-get")
    assert asked == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends chromium",
    ]


def test_somebody_else_asks_sudo_which_must_not_ask_back(server):
    asked, _ = server(1000, "apt-get", "sudo")
    assert asked[0] == "sudo -n true"
    assert asked[-1] == "sudo -n apt-get install -y -qq --no-install-recommends chromium"


@pytest.mark.parametrize("name", ["chromium", "google-chrome"])
def test_a_chromium_that_is_there_is_taken(server, name):
    assert server(0, "apt-get", name) == ([], "")


def test_a_chromium_that_is_named_is_taken(server):
    assert server(0, "apt-get", COURSE_CHROMIUM="/opt/chrome") == ([], "")


def test_without_rights_the_other_tests_still_run(server):
    asked, said = server(1000, "apt-get")
    assert asked == [] and "needs root" in said and "COURSE_CHROMIUM" in said


def test_without_apt_it_says_so(server):
    asked, said = server(0)
    assert asked == [] and "no apt-get" in said and "will fail" in said


def test_an_install_that_fails_is_said(server):
    server.program("apt-get", "exit 100")
    asked, said = server(0)
    assert asked == ["apt-get update -qq"] and "will fail" in said


def test_long_tests_are_named_until_they_are_over(pytestconfig):
    said, twice = [], threading.Event()

    def say(line):
        said.append(line)
        if said.count(line) == 2:
            twice.set()

    progress = type(pytestconfig.pluginmanager.get_plugin("progress of long tests"))(say, 0.01)
    progress.pytest_runtest_logstart("notebooks/00::Cell 3")
    progress.pytest_runtest_logstart("tests/short")
    progress.pytest_runtest_logfinish("tests/short")
    assert twice.wait(10)
    assert "\n... notebooks/00::Cell 3: 0 s so far" in said
    watched = progress.running["notebooks/00::Cell 3"]
    progress.pytest_runtest_logfinish("notebooks/00::Cell 3")
    said.clear()
    progress.watch("notebooks/00::Cell 3", watched)  # ends at once
    assert said == [] and progress.running == {}
