"""Results on disk, keyed by what produced them.

An expensive computation is a *stage*: a function of a configuration and of inputs that carry a key.
The store hashes the stage's name and version, the configuration and the inputs' keys, so the same
question is answered from disk and a changed one is computed anew:

    @stage(version=1)
    def mean_image(config, inputs, work):
        return {"mean": inputs["images"].to_float().mean(0)}, {"n": len(inputs["images"])}

    result = store.get_or_compute(mean_image, {"size": 64}, {"images": train})

A finished result appears in one rename, so a process killed at any moment leaves either nothing or
all of it; what a stage saved in its `work` folder waits there for the next attempt. Two processes
that ask at once share one computation.
"""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from helpers.durable import sync_folder, write_durably

_TENSORS, _RECORD = "tensors.safetensors", "made.json"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR)


@runtime_checkable
class Keyed(Protocol):
    """Anything that can be an input of a stage: an ImageSet, another stage's Result."""

    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class Named:
    """A name that is its own key: pretrained weights, by the hash of their file."""

    key: str


@dataclass(frozen=True)
class Result:
    """What a stage returned, and the record of how it was made (versions, seconds, date...)."""

    key: str
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    made: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A function whose results are kept. Made by the decorator `stage`."""

    compute: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
    name: str
    version: int

    def __call__(self, config: Mapping, inputs: Mapping, work: Path, **how: Any):
        return self.compute(config, inputs, work, **how)


def stage(version: int = 1) -> Callable[[Callable], Stage]:
    """Make a stage of a function `f(config, inputs, work, **how) -> (tensors, values)`.

    Raise `version` whenever the same configuration should now give another result: old results are
    then left alone and no longer found. `work` is a folder for intermediate files that survives a
    kill; a stage that saves its progress there can go on from it.
    """
    return lambda function: Stage(function, function.__name__, version)


class Store:
    """The results under one folder: `<root>/<stage>/<key>/{tensors.safetensors, made.json}`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def find(
        self, stage: Stage, config: Mapping[str, Any], inputs: Mapping[str, Keyed] | None = None
    ) -> Result | None:
        """The finished result, or None. A damaged one is named in a warning and not returned."""
        key = key_of(stage, config, inputs or {})
        try:
            return _read(self.root / stage.name / key, key)
        except _Damaged as damage:
            warnings.warn(f"{damage}; it will not be used", stacklevel=2)
            return None

    def recall(
        self,
        stage: Stage,
        config: Mapping[str, Any],
        inputs: Mapping[str, Keyed] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> Result:
        """`get_or_compute` for those who only look.

        Raises:
            LookupError: the store does not have it.
        """
        if (found := self.find(stage, config, inputs)) is None:
            raise LookupError(f"the store has no such {stage.name}")
        return found

    def get_or_compute(
        self,
        stage: Stage,
        config: Mapping[str, Any],
        inputs: Mapping[str, Keyed] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> Result:
        """The result from disk, or else computed, written and read back.

        Args:
            config: JSON-able choices; they reach the stage as JSON gives them back.
            inputs: what the stage works on; only their keys enter the result's key.
            how: keyword arguments for the stage that must not change its result, so they stay out
                of the key: the device, a progress bar.

        Raises:
            TypeError: `config` or the stage's values hold something JSON cannot express.
            OSError: the folder cannot be written (full, read-only); the message names it.
        """
        inputs = inputs or {}
        key = key_of(stage, config, inputs)
        folder = self.root / stage.name / key
        try:
            if (found := _read(folder, key)) is not None:
                return found
        except _Damaged:
            pass  # looked at again below, when nobody else can be replacing it
        with _clear_disk_errors(self.root):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder.with_name(f"{key}.lock"), stage.name):
                try:
                    if (found := _read(folder, key)) is not None:
                        return found  # another process finished it while this one waited
                except _Damaged as damage:
                    aside = _set_aside(folder)
                    warnings.warn(
                        f"{damage}; set aside as {aside.name} and computed again", stacklevel=2
                    )
                work = folder.with_name(f"{key}.work")
                resumed = work.exists()
                work.mkdir(exist_ok=True)
                started = time.perf_counter()
                plain = json.loads(_canonical(config))
                tensors, values = stage(plain, inputs, work, **(how or {}))
                record = {
                    "stage": stage.name,
                    "version": stage.version,
                    "key": key,
                    "config": plain,
                    "inputs": {name: value.key for name, value in inputs.items()},
                    "values": values,
                    "seconds": round(time.perf_counter() - started, 2),
                    "resumed": resumed,
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "versions": {"python": platform.python_version()}
                    | {name: installed(name) for name in ("torch", "torchvision", "timm")},
                }
                _write(folder, work, tensors, record)
                shutil.rmtree(work, ignore_errors=True)
        return _read(folder, key)


def key_of(stage: Stage, config: Mapping[str, Any], inputs: Mapping[str, Keyed]) -> str:
    """The name a result goes by: 20 hex digits that change with anything that may change it."""
    asked = {
        "stage": stage.name,
        "version": stage.version,
        "config": config,
        "inputs": {name: value.key for name, value in inputs.items()},
    }
    return hashlib.sha256(_canonical(asked).encode()).hexdigest()[:20]


class _Damaged(Exception):
    """A result is on disk but is not what was written."""


def _canonical(value: Any) -> str:
    """JSON with one spelling per value, so that equal values have equal hashes."""
    try:
        return json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise TypeError(
            f"a stage's config and values may hold numbers, strings, booleans, None, lists and "
            f"dictionaries with string keys only: {error}"
        ) from None


def _checksum(payload: bytes, record: Mapping[str, Any]) -> str:
    """SHA-256 over the tensors' file and over every other entry of the record beside it."""
    digest = hashlib.sha256(payload)
    rest = {name: value for name, value in record.items() if name != "sha256"}
    digest.update(_canonical(rest).encode())
    return digest.hexdigest()


def _read(folder: Path, key: str) -> Result | None:
    if not folder.is_dir():
        return None
    try:
        record = json.loads((folder / _RECORD).read_bytes())
        payload = (folder / _TENSORS).read_bytes()
        if record["sha256"] != _checksum(payload, record) or record["key"] != key:
            raise ValueError("its checksum does not fit its contents")
        return Result(key, safetensors.torch.load(payload), record["values"], record)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:  # JSON errors are ValueErrors
        raise _Damaged(f"the stored result {folder} is damaged ({error!r})") from None


def _write(folder: Path, work: Path, tensors: Mapping[str, Tensor], record: dict) -> None:
    """Everything onto the disk first, and only then the name under which it counts as finished."""
    payload = safetensors.torch.save(
        # fresh contiguous copies: the format refuses views that share memory
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    record = json.loads(_canonical(record))  # as it will be read: string keys, lists for tuples
    record["sha256"] = _checksum(payload, record)
    ready = work / ".finished"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    write_durably(ready / _TENSORS, payload)
    write_durably(ready / _RECORD, json.dumps(record, indent=1).encode())
    ready.rename(folder)
    sync_folder(folder.parent)


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


@contextmanager
def _alone(lock_file: Path, name: str) -> Iterator[None]:
    """Hold the lock; say so once if another process makes this one wait."""
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        print(f"another process is computing {name}; waiting for its result", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _clear_disk_errors(root: Path) -> Iterator[None]:
    """Say which folder could not be written, and what to do, on the errors disks give."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or str(root) in str(error.filename)
        if error.errno not in _DISK_ERRORS or not ours:
            raise
        raise OSError(
            error.errno,
            f"cannot write results under {root} ({error.strerror}): free some space there or make "
            "it writable, or set COURSE_RESULTS to another folder",
        ) from error
