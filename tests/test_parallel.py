"""Independent jobs: every result, the same numbers in a process of its own, errors that arrive."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from helpers import parallel
from helpers.parallel import each


def told(common: dict, job: int) -> dict:
    """What a job sees, and tensors of several kinds."""
    return {
        "product": common["numbers"] * job,
        "turned": common["numbers"].reshape(2, 3).T,  # not contiguous
        "mask": common["numbers"] > job,
        "name": common["name"],
        "threads": torch.get_num_threads(),
        "process": os.getpid(),
    }


def note(folder: Path, job: int) -> int:
    """Leave a file, slowly; the first job fails at once and leaves none."""
    if job == 0:
        raise ValueError("job 0 has a flaw")
    time.sleep(0.3)
    (folder / str(job)).touch()
    return job


def files_in_the_end(folder: Path) -> int:
    """How many there are when no more are added: processes may outlive the call."""
    before, now = -1, 0
    while now > before:
        time.sleep(1.5)
        before, now = now, len(list(folder.iterdir()))
    return now


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a new process would take


COMMON = {"numbers": torch.arange(6.0), "name": "shared by all"}


def test_every_job_comes_back_once_from_a_process_with_one_thread(two_cores):
    jobs = [5, 3, 8, 1, 7]
    done = list(each(told, COMMON, jobs))
    assert sorted(job for job, _ in done) == sorted(jobs)
    for job, result in done:
        assert torch.equal(result["product"], COMMON["numbers"] * job)
        assert torch.equal(result["turned"], COMMON["numbers"].reshape(2, 3).T)
        assert torch.equal(result["mask"], COMMON["numbers"] > job)
        assert result["name"] == "shared by all" and result["threads"] == 1
    assert os.getpid() not in {result["process"] for _, result in done}


def test_an_error_in_a_job_is_raised_and_jobs_that_have_not_begun_are_left(two_cores, tmp_path):
    with pytest.raises(ValueError, match="job 0 has a flaw"):
        list(each(note, tmp_path, range(40)))
    assert files_in_the_end(tmp_path) < 39


def test_who_stops_asking_stops_the_jobs(two_cores, tmp_path):
    asked = each(note, tmp_path, range(1, 41))
    job, result = next(asked)
    assert job == result and (tmp_path / str(job)).exists()
    asked.close()
    assert files_in_the_end(tmp_path) < 40


@pytest.mark.parametrize(
    ("jobs", "cores", "device"),
    [
        ([4], 8, "cpu"),
        ([4, 2, 9], 1, "cpu"),
        ([4, 2, 9], 8, "cuda"),
        ([4, 2, 9], 8, torch.device("cuda")),
        ([4, 2, 9], 8, "cuda:1"),
        ([], 8, "cpu"),
    ],
)
def test_one_job_one_core_or_a_gpu_stay_in_this_process(monkeypatch, jobs, cores, device):
    monkeypatch.setattr(parallel, "cpu_count", lambda: cores)
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", lambda *_: pytest.fail("a new process"))
    done = list(each(told, COMMON, jobs, device=device))
    assert [job for job, _ in done] == jobs  # in order
    for job, result in done:
        assert result["process"] == os.getpid()
        assert torch.equal(result["product"], COMMON["numbers"] * job)


def test_in_this_process_too_an_error_leaves_the_rest(tmp_path):
    asked = each(note, tmp_path, [1, 0, 2], device="cuda")
    assert next(asked) == (1, 1)
    with pytest.raises(ValueError, match="job 0 has a flaw"):
        next(asked)
    assert [file.name for file in tmp_path.iterdir()] == ["1"]


def wait(folder: Path, job: int) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(300)


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = """
import sys
from pathlib import Path
from helpers import parallel
from test_parallel import wait
parallel.cpu_count = lambda: 2
list(parallel.each(wait, Path(sys.argv[1]), [1, 2]))
"""
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=os.environ | {"PYTHONPATH": paths}
    )
    until(lambda: len(list(tmp_path.iterdir())) == 2 or parent.poll() is not None)
    workers = [psutil.Process(int(file.name)) for file in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    try:
        assert len(workers) == 2
        until(lambda: not any(map(alive, workers)))
    finally:
        for worker in filter(alive, workers):
            worker.kill()


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # one that nobody has collected yet
    except psutil.NoSuchProcess:
        return False


def until(happened: Callable[[], bool]) -> None:
    for _ in range(1_200):
        if happened():
            return
        time.sleep(0.1)
    pytest.fail("waited for two minutes")
