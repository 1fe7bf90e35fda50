"""The public sets of `data/registry.toml`: find them under DATA_ROOT, or download them safely."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import time
import tomllib
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

DATA = Path(__file__).parents[2] / "data"
REGISTRY = DATA / "registry.toml"
CACHE = DATA / "cache"  # where downloads go when no DATA_ROOT is given; ignored by git

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class Archive:
    """One file to download."""

    url: str
    size: int = 0  # bytes; 0 where not published
    hash: str = ""  # "md5:..." or "sha256:..."; empty where none is published

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Dataset:
    """A public set as `data/registry.toml` describes it."""

    name: str
    title: str
    folders: tuple[str, ...]  # where it may lie under DATA_ROOT; the first is where it is put
    needs: tuple[str, ...]  # glob patterns that all have a match when the set is there
    licence: str
    used_for: str
    homepage: str
    verified: str  # how url, size and hash were checked, in words
    take: str = ""  # the folder inside the archives that becomes folders[0]
    manual: str = ""  # what to do where no program can download it
    archives: tuple[Archive, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download; 0 where not published."""
        return sum(a.size for a in self.archives)

    @property
    def checkable(self) -> bool:
        """It can be downloaded, and every archive has a published hash."""
        return bool(self.archives) and all(a.hash for a in self.archives)

    def lacking(self, folder: Path) -> list[str]:
        """The needed patterns without a match in `folder`."""
        return [n for n in self.needs if next(folder.glob(n), None) is None]


class MissingDataset(FileNotFoundError):
    """A public set that is not under DATA_ROOT; the message says what to do about it."""


class DownloadRefused(RuntimeError):
    """A download that was not made or not accepted; the message says why and what to do."""


def datasets(registry: StrPath = REGISTRY) -> dict[str, Dataset]:
    """Every set of the registry, by name.

    Raises:
        ValueError: an entry lacks a field, or has one that is not known.
    """
    found = {}
    for name, entry in tomllib.loads(Path(registry).read_text(encoding="utf-8")).items():
        try:
            archives = tuple(Archive(**a) for a in entry.pop("archives", []))
            listed = {key: tuple(entry.pop(key)) for key in ("folders", "needs")}
            found[name] = Dataset(name=name, archives=archives, **listed, **entry)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{Path(registry).name}, entry {name}: {error}") from None
    return found


def located(data_root: StrPath | None) -> Path:
    """DATA_ROOT as a path; None is the course's own `data/cache`."""
    return CACHE if data_root is None else Path(data_root).expanduser()


def find(data_root: StrPath | None, name: str, registry: StrPath = REGISTRY) -> Path:
    """The folder of a public set under `data_root` (None: the course's own `data/cache`).

    Raises:
        MissingDataset: not there or incomplete; says what to fetch, from where, how large it is,
            under which terms, and where to put it.
        ValueError: no such set.
    """
    dataset, root = _described(name, registry), located(data_root)
    for place in dataset.folders:
        if (root / place).is_dir() and not dataset.lacking(root / place):
            return root / place
    raise MissingDataset(_how_to_get(dataset, root))


def state(dataset: Dataset, data_root: StrPath | None) -> Literal["present", "partial", "missing"]:
    """Whether a set lies under `data_root` with all it needs, in part, or not at all."""
    places = [p for p in (located(data_root) / f for f in dataset.folders) if p.is_dir()]
    if any(not dataset.lacking(p) for p in places):
        return "present"
    return "partial" if any(any(p.iterdir()) for p in places) else "missing"


def download(
    data_root: StrPath | None,
    name: str,
    *,
    without_hash: bool = False,
    registry: StrPath = REGISTRY,
) -> Path:
    """Fetch, check and unpack one public set; nothing to do where it is already there.

    A cut download continues where it stopped. An archive is unpacked only when its hash is the
    published one, and into a folder beside its place that is renamed at the end: a set is complete
    or absent. The archive is removed afterwards. One you fetched yourself may be put into
    `.downloads` under DATA_ROOT. A set that lies there in part is never touched.

    Args:
        without_hash: accept archives that no hash is published for, printing the SHA-256 received.

    Raises:
        DownloadRefused: no hash and not `without_hash`, wrong hash, unsafe archive, no room, no
            network, nothing to download, or a partial set in the way.
        ValueError: no such set.
    """
    dataset, root = _described(name, registry), located(data_root)
    shelf, target = root / ".downloads", root / dataset.folders[0]
    if state(dataset, root) != "present":
        _refuse_early(dataset, root, shelf, without_hash)
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            with FileLock(shelf / f"{name}.lock"):
                if state(dataset, root) != "present":  # else another process was faster
                    _fetch_and_unpack(dataset, root, shelf, target)
        except OSError as error:
            raise DownloadRefused(f"cannot write under {root}: {error.strerror or error}") from None
    return find(root, name, registry)


def _described(name: str, registry: StrPath) -> Dataset:
    known = datasets(registry)
    if name not in known:
        raise ValueError(f"no public set {name!r}; there are {', '.join(known)}")
    return known[name]


def _how_to_get(dataset: Dataset, root: Path) -> str:
    """What is wrong, and everything needed to put it right."""
    lines = [f"{dataset.title} is not under {root}."]
    if state(dataset, root) == "partial":
        place = next(root / f for f in dataset.folders if (root / f).is_dir())
        missing = ", ".join(dataset.lacking(place))
        lines = [f"{dataset.title}: {place} is there, but lacks {missing}."]
    if dataset.archives:
        names = dataset.name + ("" if dataset.checkable else " --without-hash")
        command = f'make data DATA_ROOT="{root.absolute()}" NAMES="{names}"'
        lines.append(f"Fetch it:  {command}   (in the folder of the course)")
    for archive in dataset.archives:
        lines.append(f"From:      {archive.url} ({in_bytes(archive.size)})")
    if dataset.take:
        lines.append(f"By hand:   unpack it, and make its {dataset.take} the folder below")
    if dataset.manual:
        lines.append(f"By hand:   {dataset.manual}")
    lines += [
        f"Put it at: {dataset.folders[0]} under DATA_ROOT, holding {', '.join(dataset.needs)}",
        f"Terms:     {dataset.licence}",
        f"About:     {dataset.homepage}",
    ]
    return "\n".join(lines)


def in_bytes(size: int) -> str:
    """A size to read: 2.00 GB, 114 MB, or that it is not known."""
    if not size:
        return "size not published"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _refuse_early(dataset: Dataset, root: Path, shelf: Path, without_hash: bool) -> None:
    """Whatever can be known before the first byte."""
    if state(dataset, root) == "partial":
        advice = "Move that folder away and run again."
        raise DownloadRefused(f"{_how_to_get(dataset, root)}\n{advice}")
    if not dataset.archives:
        raise DownloadRefused(_how_to_get(dataset, root))
    by_hand = {a for a in dataset.archives if (shelf / a.file).exists()}
    if not without_hash and any(not a.hash and a not in by_hand for a in dataset.archives):
        raise DownloadRefused(
            f"{dataset.title}: no hash is published, so a damaged or exchanged file would go "
            "unnoticed. Take it as it comes, with --without-hash, or fetch it yourself.\n"
            + _how_to_get(dataset, root)
        )
    existing = next(p for p in [root, *root.absolute().parents] if p.exists())
    free, room = shutil.disk_usage(existing).free, int(2.2 * dataset.size)
    if free < room:  # the archive and what comes out of it, side by side
        raise DownloadRefused(
            f"{dataset.title} needs {in_bytes(room)} while it is unpacked; "
            f"{in_bytes(free)} are free at {existing}"
        )


def _fetch_and_unpack(dataset: Dataset, root: Path, shelf: Path, target: Path) -> None:
    archives = [_fetch(archive, shelf) for archive in dataset.archives]
    beside = shelf / dataset.name
    shutil.rmtree(beside, ignore_errors=True)  # left by a run that was killed
    try:
        for archive in archives:
            _unpack(archive, beside)
        made = beside / dataset.take
        lacking = dataset.lacking(made) if made.is_dir() else [dataset.take]
        if lacking:
            raise DownloadRefused(
                f"{dataset.title}: the archive is laid out otherwise than expected, it lacks "
                f"{', '.join(lacking)}. It is kept in {shelf}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rmdir()  # an empty one; a filled one was refused before
        made.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for archive in archives:
        archive.unlink()


def _fetch(archive: Archive, shelf: Path) -> Path:
    """One archive, from `shelf` or from its address, with its hash checked."""
    pooch.get_logger().setLevel("ERROR")
    path, part = shelf / archive.file, shelf / f"{archive.file}.part"
    try:
        pooch.retrieve(
            archive.url,
            known_hash=archive.hash or None,
            fname=archive.file,
            path=shelf,
            downloader=partial(_resume, part=part),
        )
    except ValueError as error:  # pooch has removed the file
        raise DownloadRefused(
            f"{archive.file} from {archive.url} is not the published file: {error} It was "
            "removed: run again; if this repeats, the publisher has changed it."
        ) from None
    except requests.RequestException as error:
        raise DownloadRefused(
            f"could not fetch {archive.url}: {error}. What has arrived is kept: run again to "
            f"continue, or fetch it elsewhere, put it at {path} and run again"
        ) from None
    if not archive.hash:
        print(f"{archive.file}: no published hash; this is sha256:{pooch.file_hash(str(path))}")
    return path


def _resume(url: str, output_file: StrPath, _: Any, *, part: Path, attempts: int = 5) -> None:
    """A downloader for pooch that continues a cut download (pooch's own starts again from zero).

    Bytes gather in `part`, which survives a kill; from a server that does not know ranges all are
    read again. Whether the pieces belong together is for the hash to tell.
    """
    for attempt in range(1, attempts + 1):
        try:
            _receive(url, part)
            break
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ):
            if attempt == attempts:
                raise
            time.sleep(0.25 * 2**attempt)
    os.replace(part, output_file)


def _receive(url: str, part: Path) -> None:
    """The bytes of `url` that `part` does not have yet."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if have and response.status_code == 416:  # nothing lies beyond what we have
            if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            part.unlink()  # more than the whole file: another file
            raise requests.ConnectionError(f"{part.name} did not fit {url} and was removed")
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        rest = int(response.headers.get("Content-Length", 0))
        bar = {"total": have + rest if rest else None, "initial": have, "desc": part.stem}
        shown = tqdm(**bar, unit="B", unit_scale=True, file=sys.stdout, disable=None)
        with shown, part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(2**16):  # what a cut can lose
                file.write(chunk)
                shown.update(len(chunk))


def _unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip; members that would land elsewhere, and links out of it, are refused."""
    if not hasattr(tarfile, "data_filter"):
        raise DownloadRefused("unpacking safely needs Python 3.11.4 or later")
    print(f"  unpacking {archive.name}", flush=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    name = member.filename
                    link = (member.external_attr >> 16) & 0o170000 == 0o120000
                    if link or name.startswith(("/", "\\")) or ".." in Path(name).parts:
                        raise DownloadRefused(f"{archive.name} holds the unsafe member {name!r}")
                packed.extractall(into)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise DownloadRefused(f"{archive.name} holds an unsafe member: {error}") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadRefused(f"{archive.name} cannot be unpacked: {error}") from None
