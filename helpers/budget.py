"""The whole budget in one table: what each profile works on, and how much it may spend.

`demo` draws scenes and trains slim networks on two cores in minutes, `photos` reads the photographs
under DATA_ROOT, `paper` spends what the papers spent. Nothing else in the course says how many
images, epochs or seeds. This module imports nothing heavy, so a wrong profile is refused at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.scenes import TIE

ROOT = Path(__file__).resolve().parents[1]

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "steps", "constant"),
    "precision": ("float32", "bfloat16"),
    "augmentations": ("flip", "shift", "brightness", "contrast"),
}


@dataclass(frozen=True)
class Recipe:
    """How to train: every choice that changes the result and is not the data, network or seed.

    Raises:
        ValueError: a value outside its range or a name that is none of the choices.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"  # sgd (Nesterov momentum) or adamw
    lr: float = 0.1  # the highest of the schedule
    momentum: float = 0.9  # beta1 of adamw
    weight_decay: float = 5e-4
    schedule: str = "cosine"  # cosine (to zero), steps (a tenth after each quarter) or constant
    warm_up: float = 0.2  # share of the steps in which the rate rises to lr first
    label_smoothing: float = 0.0
    augmentations: tuple[str, ...] = ("flip", "shift", "brightness", "contrast")
    shift: float = 0.125  # moved by up to this share of the side, the border reflected
    relight: float = 0.2  # brightness and contrast are multiplied by 1 - relight .. 1 + relight
    precision: str = "float32"  # bfloat16 autocast is quick where the processor has instructions

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            for choice in (value,) if isinstance(value, str) else value:
                if choice not in known:
                    raise ValueError(f"Recipe.{name} is {choice!r}; valid are {', '.join(known)}")
        ranges = {  # inclusive
            "epochs": (1, math.inf),
            "batch_size": (1, math.inf),
            "lr": (1e-12, 1e3),
            "momentum": (0, 0.9999),
            "weight_decay": (0, math.inf),
            "warm_up": (0, 0.9),
            "label_smoothing": (0, 0.9),
            "shift": (0, 0.5),
            "relight": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"Recipe.{name} is {getattr(self, name)}; valid is {low} to {high}"
                )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recipe:
        """The recipe that `dataclasses.asdict` and JSON made this of."""
        return cls(**{**config, "augmentations": tuple(config["augmentations"])})


@dataclass(frozen=True)
class Profile:
    """What one profile works on and spends. Numbers of images are per split; None means all."""

    name: str
    source: str  # "scenes" or "voc"
    size: int  # height and width of the pictures, pixels
    train: int | None
    validation: int | None
    test: int | None
    seeds: int  # networks per primary claim
    architecture: str  # trained from scratch on `source`
    recipe: Recipe
    backbone: str | None = (
        None  # pretrained weights to put a new last layer on, instead of training
    )
    tie: float = TIE


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile(
            name="demo",
            source="scenes",
            size=64,
            train=5_400,
            validation=1_080,
            test=1_800,
            seeds=3,
            architecture="slim_resnet10",
            recipe=Recipe(epochs=12, batch_size=32, warm_up=0.15),
        ),
        Profile(
            name="photos",
            source="voc",
            size=224,
            train=None,
            validation=None,
            test=None,
            seeds=1,
            architecture="resnet18",
            recipe=Recipe(epochs=30),
            backbone="MobileNet_V2_Weights.IMAGENET1K_V1",
        ),
        Profile(
            name="paper",
            source="voc",
            size=224,
            train=None,
            validation=None,
            test=None,
            seeds=3,
            architecture="resnet18",
            recipe=Recipe(epochs=100),  # paper 1, section III
        ),
    )
}


def results_folder(profile: str) -> Path:
    """Where a profile's results go: `results/<profile>`; COURSE_RESULTS overrides `results`."""
    return Path(os.environ.get("COURSE_RESULTS") or ROOT / "results") / profile


def profile_named(name: str) -> Profile:
    """Raises: ValueError: no such profile; the message lists those there are."""
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
