"""`make` on machines of all kinds: stand-ins for Python and pip, nothing is downloaded."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TARGETS = ["help", "run-all", "test", "lab", "data", "compute", "refresh", "bench", "clean"]
TOOLS = ["sh", "make", "sed", "awk", "df", "rm", "mkdir", "touch", "cp", "uname", "find", "echo"]

# A Python that only notes what it is asked, in `asked`; what it can do is set by files beside it.
FAKE_PYTHON = """#!/bin/sh
here={here}
echo "${{0##*/}} $*" >> $here/asked
case "$*" in
  *version_info*) [ ! -e $here/too-old ] ;;
  *ensurepip*) [ ! -e $here/no-venv ] ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip install"*) [ ! -e $here/no-network ] ;;
  *) [ ! -e "$here/fails-$2" ] ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """A fresh clone on a machine that has `make` and stand-ins; call it to run make there."""
    clone, tools = tmp_path / "clone of the course", tmp_path / "bin"
    clone.mkdir()
    tools.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))

    class Machine:
        folder, here = clone, tmp_path

        def python(self, name="python3"):
            script = tools / name
            script.write_text(FAKE_PYTHON.format(here=tmp_path))
            script.chmod(0o755)

        def disk(self, gib):
            (tools / "df").unlink()
            (tools / "df").write_text(
                f'#!/bin/sh\necho "Filesystem 1024-blocks Used Available"\n'
                f'echo "/dev/disk 0 0 {gib * 2**20} 0% /"\n'
            )
            (tools / "df").chmod(0o755)

        def make(self, *arguments):
            environment = {"PATH": str(tools), "HOME": str(tmp_path)}
            return subprocess.run(
                ["make", *arguments], cwd=clone, env=environment, capture_output=True, text=True
            )

        def asked(self):
            """What the stand-ins were asked since the last time."""
            log = tmp_path / "asked"
            asked = log.read_text().splitlines() if log.exists() else []
            log.unlink(missing_ok=True)
            return asked

        def installs(self):
            return [line for line in self.asked() if "-m pip install" in line]

    made = Machine()
    made.disk(100)
    return made


def test_help_is_the_default_and_lists_every_target(machine):
    default = machine.make()
    assert default.returncode == 0
    listed = re.findall(r"^  make ([a-z-]+) +\w", default.stdout, flags=re.MULTILINE)
    assert listed == TARGETS
    assert machine.make("help").stdout == default.stdout
    assert not (machine.folder / ".venv").exists()


@pytest.mark.parametrize("name", ["python3", "python", "python3.13", "python3.11"])
def test_python_is_found_under_its_many_names(machine, name):
    machine.python(name)
    result = machine.make("run-all")
    assert result.returncode == 0, result.stderr
    assert "some minutes" in result.stderr
    asked = machine.asked()
    assert f"{name} -m venv .venv" in asked
    assert asked[-1] == "python -m helpers.runner --profile demo --jobs 1"


def test_the_settings_reach_the_runner(machine):
    machine.python()
    settings = ["PROFILE=photos", "DATA_ROOT=my photos", "LIMIT=5", "J=2", "NOTEBOOKS=00 04"]
    assert machine.make("run-all", *settings).returncode == 0
    assert machine.asked()[-1].endswith(
        "--profile photos --data-root my photos --limit 5 --jobs 2 00 04"
    )


def test_no_python(machine):
    result = machine.make("run-all")
    assert result.returncode != 0
    assert "no Python 3.11 or newer found" in result.stderr and "PYTHON=" in result.stderr


def test_a_python_that_is_too_old(machine):
    machine.python()
    (machine.here / "too-old").touch()
    result = machine.make("test")
    assert result.returncode != 0
    assert "no Python 3.11 or newer found" in result.stderr


def test_no_venv_module(machine):
    machine.python()
    (machine.here / "no-venv").touch()
    result = machine.make("run-all")
    assert result.returncode != 0
    assert "no venv module" in result.stderr and "python3-venv" in result.stderr
    assert not (machine.folder / ".venv").exists()


def test_no_disk(machine):
    machine.python()
    machine.disk(2)
    result = machine.make("run-all")
    assert result.returncode != 0
    assert "2 GiB of disk are free" in result.stderr
    assert machine.make("run-all", "DISK_GIB=1").returncode == 0


def test_packages_are_installed_again_only_when_their_list_changes(machine):
    machine.python()
    assert machine.make("run-all").returncode == 0
    assert len(machine.installs()) == 1
    assert machine.make("run-all").returncode == 0
    assert machine.installs() == []

    newer = (machine.folder / ".venv" / "installed").stat().st_mtime + 5
    os.utime(machine.folder / "pyproject.toml", (newer, newer))
    result = machine.make("run-all", "PIP_ARGS=--pre")
    assert "pyproject.toml has changed" in result.stderr
    asked = machine.asked()
    assert not any("-m venv" in line for line in asked)
    assert any("pip install" in line and "--pre" in line for line in asked)


def test_an_install_that_did_not_finish_is_done_anew(machine):
    machine.python()
    (machine.here / "no-network").touch()
    result = machine.make("run-all")
    assert result.returncode != 0 and "installing failed" in result.stderr
    assert not any("helpers.runner" in line for line in machine.asked())
    (machine.folder / ".venv" / "half-a-package").touch()

    (machine.here / "no-network").unlink()
    result = machine.make("run-all")
    assert result.returncode == 0 and "did not finish" in result.stderr
    assert not (machine.folder / ".venv" / "half-a-package").exists()


def test_a_venv_whose_python_is_gone_is_made_anew(machine):
    machine.python()
    assert machine.make("run-all").returncode == 0
    (machine.folder / ".venv" / "bin" / "python").unlink()
    machine.asked()
    assert machine.make("run-all").returncode == 0
    assert len(machine.installs()) == 1


@pytest.mark.parametrize("fails", ["ruff", "pytest"])
def test_make_test_runs_every_part_and_fails_if_one_does(machine, fails):
    machine.python()
    passed = machine.make("test")
    assert passed.returncode == 0 and "All passed" in passed.stdout
    every = [line for line in machine.asked() if "ruff" in line or "pytest" in line]
    assert len(every) == 5 and "--nbval-lax" in every[3] and "tests/browser" in every[4]

    (machine.here / f"fails-{fails}").touch()
    result = machine.make("test")
    assert result.returncode != 0
    assert f"python -m {fails}" in result.stdout[result.stdout.index("FAILED") :]
    assert machine.asked() == every


def test_clean_keeps_the_environment_and_the_downloads(machine):
    machine.python()
    machine.make("run-all")
    for folder in ("results/demo", "data/cache", "helpers/__pycache__", "tests", "notebooks"):
        (machine.folder / folder).mkdir(parents=True)
    assert machine.make("clean").returncode == 0
    left = {str(p.relative_to(machine.folder)) for p in machine.folder.rglob("*") if p.is_dir()}
    assert {".venv", "data/cache", "helpers"} <= left
    assert not {"results", "helpers/__pycache__"} & left


def test_conda_installs_the_same_list_under_the_same_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{project['requires-python']}", "pip"]
    assert pip == {"pip": ["-e .[test]"]}
    assert "test" in project["optional-dependencies"]


def test_the_build_server_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"
