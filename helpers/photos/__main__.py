"""`make data` (`python -m helpers.photos`): list the public sets, download missing ones."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from helpers.photos.public_sets import (
    REGISTRY,
    DownloadRefused,
    datasets,
    download,
    in_bytes,
    located,
    state,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0 when everything that was asked for is there."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.photos",
        description="Download the public photograph sets that are missing under DATA_ROOT.",
        epilog='The usual way here: make data DATA_ROOT=<folder> NAMES="<names and options>"',
    )
    parser.add_argument(
        "names", nargs="*", help="which sets (default: all missing ones with a hash)"
    )
    parser.add_argument(
        "--data-root",
        default=os.environ.get("DATA_ROOT") or None,
        help="where sets are looked for and put (default: $DATA_ROOT, else data/cache)",
    )
    parser.add_argument("--list", action="store_true", help="only show what is there")
    parser.add_argument(
        "--without-hash", action="store_true", help="also take sets that no hash is published for"
    )
    parser.add_argument("--registry", default=REGISTRY, help="another registry.toml")
    options = parser.parse_args(arguments)
    known, root = datasets(options.registry), located(options.data_root)
    if unknown := [n for n in options.names if n not in known]:
        print(f"no public set {', '.join(unknown)}; there are {', '.join(known)}")
        return 2

    print(f"Public sets under {root}")
    for name, dataset in known.items():
        size = in_bytes(dataset.size) if dataset.archives else "by hand, after registration"
        unchecked = ", no published hash" if dataset.archives and not dataset.checkable else ""
        print(f"  {state(dataset, root):8} {name:14} {dataset.title} ({size}{unchecked})")
    missing = {n: d for n, d in known.items() if state(d, root) != "present"}
    wanted = options.names or [
        n for n, d in missing.items() if d.checkable or (d.archives and options.without_hash)
    ]
    if options.list or not wanted:
        return 0

    print(f"\nTo download: {in_bytes(sum(known[n].size for n in wanted if n in missing))}")
    failed = []
    for name in wanted:
        dataset = known[name]
        print(f"\n{dataset.title}, {in_bytes(dataset.size)}\n  used for {dataset.used_for}")
        print(f"  terms: {dataset.licence}", flush=True)
        try:
            place = download(
                root, name, without_hash=options.without_hash, registry=options.registry
            )
            print(f"  at {place}")
        except DownloadRefused as refused:
            print(refused)
            failed.append(name)
    if skipped := [n for n in missing if n not in wanted]:
        print(
            f"\nNot asked for, or to be fetched by hand: {', '.join(skipped)} (see data/README.md)"
        )
    if failed:
        print(f"\nNot downloaded: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. What has arrived is kept: run again to continue.")
        sys.exit(130)
