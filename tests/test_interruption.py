"""Killed anywhere and run again, the course ends with the numbers of an uninterrupted run."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from helpers.budget import ROOT

COMMAND = [sys.executable, "-m", "helpers.runner", "--limit", "180", "00"]


def run(results, killed_after=None):
    """Run notebook 00 on few images; True if it ended by itself."""
    env = os.environ | {"COURSE_RESULTS": str(results), "PYTHONPATH": str(ROOT)}
    log = (results / "log.txt").open("w")
    process = subprocess.Popen(COMMAND, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        assert process.wait(killed_after) == 0, (results / "log.txt").read_text()[-3000:]
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)  # no chance to tidy up
        process.wait()
        return False


def numbers(results):
    """Everything the run computed: checksums of what is stored, verdicts, what figures say."""
    demo = results / "demo"
    stored = {
        str(file.relative_to(demo)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((demo / "store").glob("*/*/tensors.safetensors"))
    }
    judged = {
        file.stem: [json.loads(file.read_text())[k] for k in ("verdict", "estimate", "low", "high")]
        for file in sorted((demo / "claims").glob("*.json"))
    }
    drawn = {file.stem: json.loads(file.read_text()) for file in (demo / "figures").glob("*.json")}
    captions = {name: (card["caption"], card["alt"]) for name, card in drawn.items()}
    return {"stored": stored, "judged": judged, "captions": captions}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    assert run(results)
    return numbers(results), time.monotonic() - started


def test_killed_again_and_again_it_ends_with_the_same_numbers(uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    assert len(expected["stored"]) == 3 and len(expected["judged"]) == 3
    moments = random.Random(0)  # of the time a whole run takes; early ones hit the training
    ended = [run(tmp_path, moments.uniform(0.2, 0.9) * seconds) for _ in range(4)]
    assert not all(ended)  # at least one was killed before it was done
    assert run(tmp_path)
    assert numbers(tmp_path) == expected
    ends, starts = (".part", ".work", ".damaged"), (".run-",)
    everything = (tmp_path / "demo").rglob("*")
    assert [p for p in everything if p.suffix in ends or p.name.startswith(starts)] == []
