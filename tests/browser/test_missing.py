"""Without a browser these tests skip, or on a build server fail, and say what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def outcome(**environment):
    """What pytest says of one browser test, with no program on PATH."""
    hidden = ("CI", "COURSE_BROWSER", "COURSE_CHROMIUM")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", HERE / "test_panel.py", "-k", "console"],
        env=env | {"PATH": str(HERE)} | environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


def test_without_chromium_they_skip_and_say_what_to_install():
    status, said = outcome()
    assert status == 0 and "1 skipped" in said
    assert "apt install chromium" in said and "COURSE_CHROMIUM" in said


@pytest.mark.parametrize("variable", [{"CI": "true"}, {"COURSE_BROWSER": "required"}])
def test_a_build_server_fails_instead(variable):
    status, said = outcome(**variable)
    assert status == 1 and "1 error" in said
    assert "apt install chromium" in said


def test_a_wrong_path_is_named():
    status, said = outcome(COURSE_CHROMIUM="/no/such/chromium")
    assert status == 0 and "COURSE_CHROMIUM=/no/such/chromium is no program" in said
