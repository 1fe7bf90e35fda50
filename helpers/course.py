"""The one set-up line of every notebook: which data, which budget, which device, where results go.

    course = start(PROFILE, DATA_ROOT, LIMIT, notebook="00_meet_the_scenes")
    train, validation = course.images("train"), course.images("validation")

A profile decides what the same cells work on: drawn scenes or photographs, slim networks or the
papers' own; see `helpers.budget`.
"""

from __future__ import annotations

import datetime
import inspect
import os
import platform
import random
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from helpers import claims, figures, models, photos, training
from helpers.budget import ROOT, Profile, profile_named, results_folder
from helpers.figures import FigureCard
from helpers.imageset import ImageSet
from helpers.scenes.world import World, source_digest
from helpers.store import Result, Store, stage

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "opencv-contrib-python-headless",
)


# Worlds never share a seed: networks, claims and choices are each made on scenes of their own.
@dataclass(frozen=True)
class _Split:
    seed: int
    count: str  # the field of the profile that says how many scenes
    tied: bool = True  # to the backdrop as the profile says, or not at all
    every: int = 1  # 2: only the first of each two look-alikes (classes go round, see `render`)


_WORLDS = {
    "train": _Split(1_001, "train"),
    "validation": _Split(1_002, "validation"),
    "test": _Split(1_003, "test"),
    "elsewhere": _Split(1_003, "test", tied=False, every=2),  # the test objects before any backdrop
    "judges": _Split(1_004, "train", every=2),
    "judges elsewhere": _Split(1_005, "train", tied=False, every=2),
    "development": _Split(2_001, "validation"),
}


@stage(version=2)
def draw_scenes(config: Mapping, inputs: Mapping, work: Path) -> tuple[dict, dict]:
    """Rendering thousands of scenes takes seconds, reading them back a fraction of one."""
    world = World(config["seed"], config["size"], config["tie"])
    drawn = world.images(range(0, config["count"], config["every"]))
    tensors = {f.name: getattr(drawn, f.name) for f in fields(drawn)}
    return {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}, {}


@dataclass
class Course:
    """What `start` hands a notebook. Reports go to `folder`, expensive results to `store`."""

    profile: Profile
    notebook: str
    device: torch.device
    folder: Path
    data_root: Path | None
    limit: int | None

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def torch_home(self) -> Path | None:
        """Where pretrained weights are looked for first: DATA_ROOT/torch_home, if there is one."""
        home = self.data_root / "torch_home" if self.data_root else None
        return home if home and home.is_dir() else None

    def images(
        self,
        split: str,
        size: int | None = None,
        *,
        tie: float | None = None,
        every: int | None = None,
    ) -> ImageSet:
        """The pictures of one split: "train", "validation" or, of scenes only, "test", "elsewhere"
        (the test objects before backdrops that say nothing), "judges" and "judges elsewhere" (one
        class per superclass, for networks that judge others) and "development".

        Args:
            size: height and width of photographs in pixels, where it is not the profile's.
            tie: the same objects before backdrops tied to their class with this probability
                instead of the profile's, 0 to 1; see `world`.
            every: of scenes, draw each so-manieth only: 2 leaves the first of each two look-alikes.

        Raises:
            ValueError: no such split, or one without such a tie.
            helpers.photos.MissingDataset: photographs that are not under DATA_ROOT, with what to
                download and where to put it.
        """
        world = self.world(split, tie)
        if world is not None:
            return self._scenes(split, world, every)
        return self._photographs(split, size or self.profile.size)

    def _scenes(self, split: str, world: World, every: int | None) -> ImageSet:
        every = every or _WORLDS[split].every
        count = getattr(self.profile, _WORLDS[split].count)
        count = min(count, self.limit or count)
        config = {"seed": world.seed, "size": world.size, "tie": world.tie, "count": count}
        config |= {"every": every, "source": source_digest()}
        drawn = self.store.get_or_compute(draw_scenes, config)
        # what is not stored are names, which an empty set of the same world has too
        ids = tuple(world.name_of(i) for i in range(0, count, every))
        return replace(world.images([]), ids=ids, **drawn.tensors)

    def _photographs(self, split: str, size: int) -> ImageSet:
        folders = {"train": "train", "validation": "val"}  # VOC keeps its own test labels
        if split not in folders:
            raise ValueError(f"no split {split!r} of photographs; there are {', '.join(folders)}")
        wanted = (getattr(self.profile, split), self.limit)
        limit = min((n for n in wanted if n is not None), default=None)
        loaded = photos.voc(self.data_root, split=folders[split], size=size, limit=limit)
        print(f"{split}: {loaded}")  # with every refused file and why
        return loaded.images

    def world(self, split: str, tie: float | None = None) -> World | None:
        """The world that `images(split)` was drawn from; None for photographs.

        Args:
            tie: between backdrop and class, 0 to 1, instead of the profile's. A scene keeps its
                class, pose, coat and light, and its whole picture where the backdrop is still the
                same; before another one the object stands on that one's ground, so its mask moves.

        Raises:
            ValueError: no such split, or another tie for one whose backdrops say nothing, or for
                photographs, which have no such knob.
        """
        if self.profile.source != "scenes":
            if tie is not None:
                raise ValueError(
                    "photographs come with their backgrounds: only scenes can be drawn again with "
                    f"another tie, not {split!r} of the profile {self.profile.name}"
                )
            return None
        if split not in _WORLDS:
            raise ValueError(f"no split {split!r}; there are {', '.join(_WORLDS)}")
        chosen = _WORLDS[split]
        if tie is not None and not chosen.tied:
            raise ValueError(
                f"the backdrops of {split!r} say nothing about the class, which is its purpose; "
                "another tie is for "
                + ", ".join(name for name, known in _WORLDS.items() if known.tied)
            )
        if tie is None:
            tie = self.profile.tie if chosen.tied else 0.0
        return World(chosen.seed, self.profile.size, float(tie))

    def pretrained(self, weights: str | None = None) -> models.Pretrained | None:
        """These pretrained weights, or the profile's, from DATA_ROOT/torch_home where that folder
        exists; None in a profile that trains its own. See `helpers.models.pretrained`."""
        weights = weights or self.profile.backbone
        if weights is None:
            return None
        return models.pretrained(weights, torch_home=self.torch_home)

    def baseline(
        self, train: ImageSet, validation: ImageSet, seed: int = 0
    ) -> tuple[nn.Module, Result]:
        """The profile's first network, from the store or trained now: the slim one from scratch,
        or, where the profile names a pretrained backbone, that with a new last layer (which has one
        best solution, so `seed` plays no part in it)."""
        if (backbone := self.pretrained()) is not None:
            how = {"backbone": backbone.model, "device": self.device}
            config = {"backbone": backbone.sha256}
            inputs = {"train": train}
            made = self.store.get_or_compute(training.fit_last_layer, config, inputs, how=how)
            network = models.with_last_layer(backbone.model, **made.tensors)
            return network.to(self.device), made
        profile = self.profile
        return training.trained(
            self.store,
            profile.architecture,
            train,
            validation,
            profile.recipe,
            seed=seed,
            device=self.device,
        )

    def judge(self, claim_id: str, measured: object = None, **options: object) -> claims.Judgement:
        """Judge a claim and keep the verdict for the report. See `helpers.claims.judge`."""
        return claims.judge(
            claim_id,
            measured,
            folder=self.folder / "claims",
            profile=self.profile.name,
            notebook=self.notebook,
            **options,
        )

    def figure(
        self,
        fig: Figure | None,
        name: str,
        *,
        caption: str,
        alt: str,
        data: object = None,
        instead: str = "",
    ) -> FigureCard | Markdown:
        """Save a figure for the report and show it here. See `helpers.figures.save`.

        `fig` is None where this profile has nothing to draw, such as parts of photographs; the
        notebook then says `instead`, or that the demo draws it.
        """
        if not fig:
            unknown = f"Not known of these pictures; the demo profile draws it: {caption}"
            return Markdown(f"*{instead or unknown}*")
        return figures.save(
            fig,
            name,
            folder=self.folder / "figures",
            caption=caption,
            alt=alt,
            data=data,
            notebook=self.notebook,
            profile=self.profile.name,
        )

    def provenance(self) -> Table:
        """What made this page: the notebook's closing line."""
        return Table(provenance(self.profile.name, self.device))


@dataclass(frozen=True)
class Table:
    """Names and values, shown as a small table."""

    rows: dict[str, str]

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.rows.items())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in self.rows.items())
        return f"<table>{''.join(cells)}</table>"


class Source:
    """The source of a function of the package, shown where it is explained: `Source(render)`."""

    def __init__(self, shown: Callable | type) -> None:
        self.name = f"{shown.__module__}.{shown.__qualname__}"
        self.text = inspect.getsource(inspect.unwrap(shown))

    def __repr__(self) -> str:
        return f"# {self.name}\n{self.text}"

    def _repr_markdown_(self) -> str:
        return f"```python\n# {self.name}\n{self.text}```"


def device_here() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def provenance(profile: str, device: torch.device | None = None) -> dict[str, str]:
    """Versions, commit, device and date behind a result, ready to print."""
    device = device or device_here()
    on_gpu = device.type == "cuda"
    return {
        "profile": profile,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    } | {name: version(name) for name in _PACKAGES}


@cache
def _commit() -> str:
    """The commit that is checked out, "+ changes" when files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no") if commit else ""
    except OSError:  # no git on this machine
        return "unknown"
    return (commit + (" + changes" if changed else "")) or "unknown"


def _processor() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}"


def start(
    profile: str = "demo",
    data_root: str | os.PathLike | None = None,
    limit: int | None = None,
    notebook: str = "00_meet_the_scenes",
) -> Course:
    """Set up a notebook: check the profile, pick the device, seed all generators, set the style.

    Args:
        profile: one of `helpers.budget.PROFILES`.
        data_root: folder of the photographs, by default where `make data` puts them; a relative
            path starts at the course's own folder.
        limit: at most so many images per split, for a quick look.

    Raises:
        ValueError: no such profile, or a limit below 1.
    """
    chosen = profile_named(profile)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, not {limit}")
    root = Path(data_root).expanduser() if data_root else None
    if root is not None and not root.is_absolute():
        root = ROOT / root
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    figures.style()
    course = Course(chosen, notebook, device_here(), results_folder(profile), root, limit)
    course.folder.mkdir(parents=True, exist_ok=True)
    kind = "procedural scenes" if chosen.source == "scenes" else "photographs"
    print(f"Profile {profile}: {kind} at {chosen.size} px.")
    return course
