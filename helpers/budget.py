"""The whole budget in one table: what each profile works on, and how much it may spend.

`demo` draws scenes and trains slim networks on two cores in minutes, `photos` reads the photographs
under DATA_ROOT, `paper` spends what the papers spent. Nothing else in the course says how many
images, epochs or seeds. This module imports nothing heavy, so a wrong profile is refused at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.scenes import TIE

ROOT = Path(__file__).resolve().parents[1]

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "steps", "constant"),
    "precision": ("float32", "bfloat16", "quick"),
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
    attack_radius: float = 0.0  # L2, [0, 1] units: train on images moved this far for the worse
    attack_steps: int = 2  # gradient steps that look for the worst such move
    precision: str = "float32"  # quick: bfloat16 where the processor computes in it, else float32

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
            "attack_radius": (0, math.inf),
            "attack_steps": (1, math.inf),
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
class BackgroundStudy:
    """Paper 1: the same network and recipe on four backgrounds."""

    size: int  # height and width of the pictures, pixels
    architecture: str
    recipe: Recipe
    seeds: int
    inits: tuple[str, ...]  # "scratch", "pretrained"; the first is the one with all seeds
    weights: str | None  # the pretrained ones; None: pretrain on abstract pictures
    pretraining: Recipe | None
    robust_radius: float | None  # of small adversarial training; None: not in this profile
    judge: str | None  # architecture trained to judge pictures, or weights for a new last layer
    judge_recipe: Recipe | None
    l2: float  # weight of the squared norm of the normalised picture
    norm: float  # root mean square of the normalised picture, where its norm is fixed instead
    least: int = 100  # training images a class must have


@dataclass(frozen=True)
class SummaryStudy:
    """Paper 2: what several networks look at in the same images."""

    size: int  # height and width of the pictures, pixels
    networks: tuple[tuple[str, str], ...]  # title, and the architecture or the pretrained weights
    epochs: tuple[int, ...]  # each architecture is trained this long, from the shortest; () if not
    recipe: Recipe | None
    classes: tuple[str, ...]
    per_class: int  # images that all networks classify correctly
    schedule: str  # of the masks, see `helpers.crisp_masks`
    boxes: int  # proposals per image
    enlarge: int  # proposals are looked for on images so many times larger
    batch: int = 20  # masks made at once, by one process


@dataclass(frozen=True)
class PathStudy:
    """Paper 3: what pixels a decision is traced back to, and how well they show the object."""

    # title, and the architecture or the pretrained weights; "+ FC": with a new top, for VOC
    networks: tuple[tuple[str, str], ...]
    recipe: Recipe  # of the networks, or of the new fully connected layers
    choosing: int  # images on which the widths of Gaussians and the thresholds are chosen
    judged: int  # other images, on which everything is reported
    pairs: int  # images with two objects
    # of Gaussians, shares of the side; thresholds, shares of a map's peak
    widths: tuple[float, ...] = (0.02, 0.04, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7)
    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    batch: int = 32  # images whose activations are in memory at once


@dataclass(frozen=True)
class ImageNet9Study:
    """Paper 4: networks trained and tested on eight variants of the same images."""

    size: int  # height and width of the pictures, pixels
    # trained on each variant; of the profile's backbone only a new last layer, where there is one
    architecture: str
    recipe: Recipe | None
    seeds: int  # of the networks that primary claims are about
    others: tuple[tuple[str, str], ...]  # title and architecture; trained on Original only
    # title and weights, or title and architecture of networks trained on all classes of the scenes
    pretrained: tuple[tuple[str, str], ...]
    early: int | None  # the same after so many epochs, for the progress of benchmarks
    judged: int  # test images of the main test set; other sets have all of theirs
    foregrounds: int  # that adversarial backgrounds are looked for
    backgrounds: int  # that are tried on each
    explained: int  # images with saliency maps
    masked: int  # images with crisp masks, of the planted shortcut
    ties: tuple[float, ...] = ()  # other worlds, by the tie between backdrop and class
    in9_mean: bool = False  # whether trained networks normalise as IN-9's do


@dataclass(frozen=True)
class FourLenses:
    """The capstone: the four papers' lenses on the networks of papers 1 and 4."""

    # what each was trained on (a key of `imagenet9_study.TRAINED_ON`, or "standard, robust"), and
    # how many seeds of it
    networks: tuple[tuple[str, int], ...]
    per_class: int  # images that every lens looks at
    points: int  # images in all that are backtracked, as they are and on black
    classes: int  # whose summaries are counted
    summarised: int  # images of each of these, at most
    schedule: str  # of the masks, see `helpers.crisp_masks`
    boxes: int  # proposals per image
    enlarge: int  # proposals are looked for on images so many times larger
    cells: int = 8  # rows and columns of the grid on which maps are compared
    patch: float = 0.25  # side of the patches that are exchanged, share of the image's
    donors: int = 2  # other images that each patch is taken from
    batch: int = 20  # images at once


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
    backgrounds: BackgroundStudy | None = None  # what notebook 01 spends
    summaries: SummaryStudy | None = None  # what notebook 02 spends
    paths: PathStudy | None = None  # what notebook 03 spends
    imagenet9: ImageNet9Study | None = None  # what notebook 04 spends
    lenses: FourLenses | None = None  # what notebook 05 spends


_AS_CUT_OUT = ("flip", "shift", "brightness")  # leave black backgrounds black, unlike contrast
_DEMO_STUDY = Recipe(
    epochs=4,
    batch_size=32,
    warm_up=0.15,
    attack_steps=1,
    augmentations=_AS_CUT_OUT,
    precision="quick",
)
_SLIM_NETWORKS = (  # papers 2 and 3 explain the same ones
    ("AlexNet", "slim_alexnet"),
    ("VGG", "slim_vgg6"),
    ("GoogLeNet", "slim_googlenet"),
    ("ResNet", "slim_resnet10"),
)
# Trained maps reach values of hundreds, on which plain gradient descent diverges; AdamW's steps do
# not depend on their scale.
_NEW_TOP = Recipe(epochs=4, batch_size=32, optimizer="adamw", lr=3e-4, shift=0.05)
_ONE_FOR_EACH = ("original", "mixed_rand", "only_bg_t", "only_fg")
_PAPER_STUDY = Recipe(epochs=100, batch_size=64, lr=0.02, augmentations=_AS_CUT_OUT)

# Paper 2's classes, adjacent in meaning two by two, and what an ImageNet network calls them.
IMAGENET_PAIRS = {
    "robin": 15,
    "bald eagle": 22,
    "golden retriever": 207,
    "German shepherd": 235,
    "bullet train": 466,
    "steam locomotive": 820,
    "pick-up": 717,
    "police van": 734,
    "oboe": 683,
    "saxophone": 776,
    "crash helmet": 518,
    "football helmet": 560,
    "jeans": 608,
    "miniskirt": 655,
    "cowboy hat": 515,
    "Windsor tie": 906,
    "sweatshirt": 841,
    "running shoe": 770,
}

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
            recipe=Recipe(epochs=9, batch_size=32, warm_up=0.15),
            backgrounds=BackgroundStudy(
                size=64,
                architecture="slim_resnet10",
                recipe=_DEMO_STUDY,
                seeds=3,
                inits=("scratch", "pretrained"),
                weights=None,
                pretraining=_DEMO_STUDY,
                robust_radius=1.0,
                judge="slim_vgg6",
                judge_recipe=_DEMO_STUDY,
                l2=3e-4,
                norm=0.9,
            ),
            summaries=SummaryStudy(
                size=64,
                networks=_SLIM_NETWORKS,
                epochs=(2, 4),
                recipe=_DEMO_STUDY,
                classes=("retriever", "shepherd", "robin", "eagle", "pick-up", "police van"),
                per_class=20,
                schedule="paper",
                boxes=200,
                enlarge=2,
            ),
            paths=PathStudy(
                networks=_SLIM_NETWORKS, recipe=_DEMO_STUDY, choosing=72, judged=144, pairs=60
            ),
            imagenet9=ImageNet9Study(
                size=64,
                architecture="slim_resnet10",  # and recipe: paper 1's networks are used again
                recipe=_DEMO_STUDY,
                seeds=3,
                others=_SLIM_NETWORKS[:3],
                pretrained=_SLIM_NETWORKS,
                early=2,
                judged=540,
                foregrounds=180,
                backgrounds=180,
                explained=90,
                masked=16,
                ties=(0.0, 0.25, 0.75, 1.0),
            ),
            lenses=FourLenses(
                networks=(
                    ("original", 3),
                    ("mixed_rand", 3),
                    ("only_bg_t", 3),
                    ("only_fg", 3),
                    ("noise", 1),
                    ("mixed", 1),
                    ("standard, robust", 1),
                ),
                per_class=2,
                points=90,
                classes=2,
                summarised=18,
                schedule="paper",
                boxes=200,
                enlarge=2,
            ),
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
            backgrounds=BackgroundStudy(
                size=128,
                architecture="mobilenet_v2",
                recipe=replace(_DEMO_STUDY, epochs=2, lr=0.01, precision="float32"),
                seeds=1,
                inits=("pretrained",),
                weights="MobileNet_V2_Weights.IMAGENET1K_V1",
                pretraining=None,
                robust_radius=None,
                judge="SqueezeNet1_0_Weights.IMAGENET1K_V1",
                judge_recipe=None,
                l2=7.5e-5,
                norm=0.9,
            ),
            summaries=SummaryStudy(
                size=224,
                networks=(
                    ("SqueezeNet", "SqueezeNet1_0_Weights.IMAGENET1K_V1"),
                    ("MobileNetV2", "MobileNet_V2_Weights.IMAGENET1K_V1"),
                ),
                epochs=(),
                recipe=None,
                classes=("ants", "bees", "dog", "cat", *IMAGENET_PAIRS),
                per_class=20,
                schedule="paper",
                boxes=500,
                enlarge=1,
            ),
            paths=PathStudy(
                networks=(
                    ("SqueezeNet + FC", "SqueezeNet1_0_Weights.IMAGENET1K_V1"),
                    ("SqueezeNet", "SqueezeNet1_0_Weights.IMAGENET1K_V1"),
                    ("MobileNetV2", "MobileNet_V2_Weights.IMAGENET1K_V1"),
                ),
                recipe=_NEW_TOP,
                choosing=40,
                judged=87,
                pairs=40,
                batch=8,
            ),
            imagenet9=ImageNet9Study(
                size=224,
                architecture="MobileNetV2, new last layer",
                recipe=None,
                seeds=1,
                others=(),
                pretrained=(
                    ("SqueezeNet", "SqueezeNet1_0_Weights.IMAGENET1K_V1"),
                    ("MobileNetV2", "MobileNet_V2_Weights.IMAGENET1K_V1"),
                ),
                early=None,
                judged=270,
                foregrounds=30,
                backgrounds=40,
                explained=24,
                masked=4,
            ),
            lenses=FourLenses(
                networks=tuple((on, 1) for on in _ONE_FOR_EACH),
                per_class=2,
                points=24,
                classes=2,
                summarised=4,
                schedule="paper",
                boxes=300,
                enlarge=1,
                donors=1,
                batch=8,
            ),
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
            recipe=Recipe(epochs=100),  # paper 1, section IV
            backgrounds=BackgroundStudy(
                size=224,
                architecture="resnet18",
                recipe=_PAPER_STUDY,  # 100 epochs are the paper's; it states nothing else
                seeds=3,
                inits=("pretrained", "scratch"),
                weights="ResNet18_Weights.IMAGENET1K_V1",
                pretraining=None,
                robust_radius=3.0,
                judge="SqueezeNet1_0_Weights.IMAGENET1K_V1",
                judge_recipe=None,
                l2=2.5e-5,
                norm=0.9,
                least=1,
            ),
            summaries=SummaryStudy(
                size=224,
                networks=(
                    ("AlexNet", "AlexNet_Weights.IMAGENET1K_V1"),
                    ("VGG16", "VGG16_Weights.IMAGENET1K_V1"),
                    ("GoogLeNet", "GoogLeNet_Weights.IMAGENET1K_V1"),
                    ("ResNet50", "ResNet50_Weights.IMAGENET1K_V1"),
                ),
                epochs=(),
                recipe=None,
                classes=tuple(IMAGENET_PAIRS),
                per_class=50,
                schedule="paper",
                boxes=500,
                enlarge=1,
            ),
            paths=PathStudy(
                networks=(
                    ("VGG19", "VGG19_Weights.IMAGENET1K_V1"),  # the paper's
                    ("VGG19 + FC", "VGG19_Weights.IMAGENET1K_V1"),
                    ("ResNet50", "ResNet50_Weights.IMAGENET1K_V2"),
                    ("DenseNet121", "DenseNet121_Weights.IMAGENET1K_V1"),
                ),
                recipe=replace(_NEW_TOP, epochs=10),
                choosing=1_000,
                judged=4_000,
                pairs=200,
                batch=16,
            ),
            imagenet9=ImageNet9Study(
                size=224,
                architecture="resnet50",
                recipe=Recipe(
                    epochs=200,
                    batch_size=256,
                    schedule="steps",
                    weight_decay=1e-4,
                    warm_up=0.0,
                    augmentations=("flip", "shift"),
                ),
                seeds=3,
                others=(
                    ("AlexNet", "alexnet"),
                    ("ShuffleNet", "shufflenet_v2_x1_0"),
                    ("WRN-50x2", "wide_resnet50_2"),
                    ("VGG16-BN", "vgg16_bn"),
                ),
                pretrained=(
                    ("MobileNet-v3", "MobileNet_V3_Large_Weights.IMAGENET1K_V1"),
                    ("EfficientNet-b0", "EfficientNet_B0_Weights.IMAGENET1K_V1"),
                    ("ResNet-50", "ResNet50_Weights.IMAGENET1K_V1"),
                    ("WRN-50x2", "Wide_ResNet50_2_Weights.IMAGENET1K_V1"),
                    ("DPN-92", "timm:dpn92.mx_in1k"),
                ),
                early=None,
                judged=4_050,
                foregrounds=4_050,
                backgrounds=4_050,
                explained=450,
                masked=50,
                in9_mean=True,
            ),
            lenses=FourLenses(
                networks=(("original", 3), ("mixed_rand", 3), ("only_bg_t", 3), ("only_fg", 3)),
                per_class=10,
                points=450,
                classes=9,
                summarised=50,
                schedule="paper",
                boxes=500,
                enlarge=1,
                donors=4,
            ),
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
