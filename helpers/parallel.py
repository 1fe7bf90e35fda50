"""Independent jobs, as many at once as there are processor cores.

Two small networks train faster in two processes of one thread each than one after the other with
two threads: their layers are too small to share.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch
from joblib import cpu_count


def each(
    function: Callable[[Any, Any], Any],
    common: Any,
    jobs: Sequence[Any],
    *,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Any, Any]]:
    """Yield (job, function(common, job)) for every job, in the order in which they end.

    A GPU takes one job at a time, here; so does a single core, and so does each process that
    `accelerate launch` started. Otherwise every process gets `common` once. On a processor every
    job computes with one thread, so that its last digits do not depend on how many run at once. An
    error in a job is raised here; jobs that have not begun are then left.

    Args:
        function: a module's function, which a new process can import.
    """
    on_gpu = torch.device(device).type == "cuda"
    alone = on_gpu or int(os.environ.get("WORLD_SIZE", 1)) > 1
    workers = 1 if alone else min(cpu_count(), len(jobs))
    if workers < 2:
        for job in jobs:
            with _threads(torch.get_num_threads() if on_gpu else 1):
                done = function(common, job)
            yield job, done
        return
    # in a file, because torch would pass tensors through shared memory, of which containers have
    # little, and bytes would be in memory once more for every process
    with TemporaryDirectory() as folder:
        shared = Path(folder) / "common"
        with open(shared, "wb") as file:
            pickle.dump(common, file)
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (shared,)) as pool:
            running = {pool.submit(_run, function, job): job for job in jobs}
            try:
                for done in as_completed(running):
                    yield running[done], done.result()
            finally:
                pool.shutdown(cancel_futures=True)  # and wait for those that run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_first(jobs: Sequence[Any]) -> list[Any]:
    """The jobs in the order in which this process should take them.

    Under `accelerate launch` every process begins with its own share and goes on with the others'.
    Each job's result is kept in the store, under a lock, so nothing is computed twice: what another
    process has done is read, and what it has not begun is taken over. Results do not depend on who
    computed them. Alone, the jobs stay as they are.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return list(jobs)
    from accelerate import PartialState

    with PartialState().split_between_processes(list(range(len(jobs)))) as share:
        first = set(share)
    return [jobs[i] for i in share] + [job for i, job in enumerate(jobs) if i not in first]


_common: Any = None


def _begin(shared: Path) -> None:
    global _common
    # a killed parent says nothing, and its processes would wait for it for ever
    Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with open(shared, "rb") as file:
        _common = pickle.load(file)


def _leave_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _run(function: Callable[[Any, Any], Any], job: Any) -> _Pickled:
    return _Pickled(function(_common, job))


class _Pickled:
    """A result that travels as plain bytes, see `each`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple:
        return pickle.loads, (pickle.dumps(self.value),)
