"""Paper 4's study: networks trained and tested on eight variants of the same images.

    study = assemble(course)
    found = study.run()
    found[Network("mixed_rand")].accuracy("only_bg_t")

"Noise or Signal" (Xiao et al., ICLR 2021). Each network is trained, examined on every test set and,
where the study asks for it, attacked with adversarial backgrounds and explained, in one go and in a
process of its own; all results are kept in the store. The variants are built in
`helpers.backgrounds`, the paper's own computations are in `helpers.imagenet9`.

Scenes: nine classes, one of each superclass; the networks trained on Original and Only-FG are paper
1's on standard and black backgrounds, and those that learned all eighteen classes for papers 2 and
3 stand for the ones pre-trained on ImageNet. Photographs: VOC's dogs against its cats, on which a
pre-trained network gets a new last layer. The paper's profile: the public release.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from helpers import (
    background_removal,
    backgrounds,
    imagenet9,
    models,
    photos,
    planted_shortcut,
    saliency,
    training,
)
from helpers import backtracking as bt
from helpers.background_removal import Variant
from helpers.backgrounds import VARIANTS
from helpers.budget import ImageNet9Study, Recipe
from helpers.claims import bootstrap_interval, published, t_interval
from helpers.course import Course
from helpers.imageset import ImageSet, concatenate
from helpers.parallel import each, own_first
from helpers.store import Keyed, Named, Result, Store, stage

AUGMENTED, PRETRAINED = "original + mixed_rand", "pretrained"
MARKED, SMALL = planted_shortcut.SIDES
TRAINED_ON = VARIANTS | {
    AUGMENTED: "Original + Mixed-Rand",
    "noise": "paper 1: noise",
    "mixed": "paper 1: half black",
    MARKED: "Original, a large mark on one class",
    SMALL: "Original, a small mark on one class",
}
_PAPER_ONE = {"original": "standard", "only_fg": "black", "noise": "noise", "mixed": "mixed"}
_NEEDED = ("original", "only_bg_t", "mixed_same", "mixed_rand")  # of other worlds
METHODS = ("Grad-CAM", "input gradient", "backtracking")


@dataclass(frozen=True)
class Network:
    """What makes one network of the study."""

    on: str = "original"  # what it was trained on: a key of TRAINED_ON, or PRETRAINED
    seed: int = 0
    title: str = ""  # of the architecture or the weights; empty: the study's own
    tie: float | None = None  # of the world it was trained in; None: the profile's
    epochs: int | None = None  # of PRETRAINED ones in scenes, where not the recipe's


@dataclass(frozen=True)
class Local:
    """A user's copy of the training archives: read variant by variant, since all are 50 GB."""

    data_root: Path
    size: int
    limit: int | None
    key: str  # of the files' names and sizes: to read them all would take an hour

    def variant(self, on: str) -> ImageSet:
        where = {"split": "train", "size": self.size, "limit": self.limit}
        return photos.imagenet9(self.data_root, on, **where).images


@dataclass(frozen=True)
class Studied:
    """Everything known of one network."""

    network: Network
    made: Keyed = field(repr=False)
    labels: dict[str, Int64[Tensor, " _"]] = field(repr=False)  # by test set
    predicted: dict[str, Int64[Tensor, " _"]] = field(repr=False)  # -1: no class of the nine
    trained_with: int | None = None  # images
    search: imagenet9.Search | None = field(default=None, repr=False)
    maps: dict[str, UInt8[Tensor, "_ h w"]] = field(default_factory=dict, repr=False)
    # by the kind of mark, see `planted_shortcut.look_for_mark`
    marks: dict[str, Result] = field(default_factory=dict, repr=False)

    def right(self, test: str) -> Bool[Tensor, " n"]:
        """Raises: KeyError: the network was not asked about this test set."""
        return self.predicted[test] == self.labels[test]

    def accuracy(self, test: str) -> float:
        """In percent; NaN where it was not asked."""
        return 100 * self.right(test).double().mean().item() if test in self.predicted else math.nan

    @property
    def gap(self) -> float:
        """BG-gap: accuracy on Mixed-Same minus Mixed-Rand, in points."""
        return self.accuracy("mixed_same") - self.accuracy("mixed_rand")

    @property
    def fooled(self) -> float:
        """Foregrounds with an adversarial background, in percent; NaN where none was looked for."""
        return 100 * self.search.vulnerable.double().mean().item() if self.search else math.nan


@dataclass(frozen=True)
class Study:
    """Test sets, training images, and what each network is asked."""

    budget: ImageNet9Study
    root: Path  # of the store
    device: torch.device
    class_titles: tuple[str, ...]  # as figures call the classes
    # by collection ("" is the main one) and variant; a network reads those of its collections
    tests: dict[str, dict[str, ImageSet]]
    failures: dict[str, dict[str, int]]  # images left out of each collection, by reason
    train: ImageSet | Local | None
    plans: dict[Network, tuple[str, ...]]  # the networks, and which collections they are asked
    worlds: dict[float, ImageSet] = field(default_factory=dict)  # training images of other ties
    all_classes: ImageSet | None = None  # what pretrained networks of scenes learn
    loaded: dict[str, models.Pretrained] = field(default_factory=dict)  # pretrained weights
    readings: dict[str, Tensor] = field(default_factory=dict)  # of pretrained ones, by collection
    groups: tuple[tuple[int, ...], ...] = ()  # their classes that stand for the main collection's
    missing: dict[str, str] = field(default_factory=dict)  # pretrained networks not there, and why
    # as much of paper 1's study as its networks need, where they are used again
    paper_one: background_removal.Study | None = None

    @property
    def test(self) -> dict[str, ImageSet]:
        """The main collection."""
        return self.tests[""]

    @property
    def attacked(self) -> list[Network]:
        """The networks that adversarial backgrounds are looked for, in the order of tables."""
        own = [n for n in self.plans if not n.title and n.on not in _ONLY_TESTED]
        own = [n for n in own if n.on in _PRIMARY or not n.seed]
        own.sort(key=lambda n: (n.tie is not None, n.on not in _PRIMARY))
        return own + [n for n in self.plans if n.title and n.epochs is None and "" in self.plans[n]]

    @property
    def explained(self) -> list[Network]:
        """The networks whose saliency is drawn and measured."""
        of = ("original", "mixed_rand", AUGMENTED, "only_fg")
        return [n for n in self.plans if n.on in of and n.tie is None and not n.title]

    def networks(self, on: str, tie: float | None = None) -> list[Network]:
        """Those of the study's own architecture trained on this, a seed each."""
        return [n for n in self.plans if (n.on, n.tie, n.title) == (on, tie, "")]

    def run(self) -> dict[Network, Studied]:
        """Study every network that is not in the store yet, as many at once as there are cores."""
        store, found = Store(self.root), {}
        for network in self.plans:
            with suppress(LookupError):
                found[network] = _one(self, network, store.recall)
        missing = sorted((n for n in self.plans if n not in found), key=_longest_first)
        shown = {"unit": "network", "file": sys.stdout, "leave": False, "disable": not missing}
        done = each(_study, self, own_first(missing), device=self.device)
        found |= tqdm(done, total=len(missing), **shown)
        return {n: found[n] for n in self.plans}

    def collection(self, network: Network) -> str:
        """The one that a network's adversarial backgrounds and claims are about."""
        return self.plans[network][0]


_PRIMARY = ("original", "mixed_rand", AUGMENTED)
_ONLY_TESTED = ("only_bg_t", "only_bg_b", "no_fg", "mixed_same", "mixed_next", MARKED, SMALL)


def _longest_first(network: Network) -> tuple[bool, bool]:
    return network.on != PRETRAINED, network.on != AUGMENTED


# ---------------------------------------------------------------- stages


def training_set(train: ImageSet | Local, on: str, seed: int) -> ImageSet:
    """The training images as a network sees them. Backgrounds are drawn anew for every seed."""
    if on == AUGMENTED:
        parts = ["original", "mixed_rand"]
        if isinstance(train, Local):
            return concatenate([train.variant(name) for name in parts])
        built = backgrounds.variants(train, seed=seed).sets
        return concatenate([built[name] for name in parts])
    if isinstance(train, Local):
        return train.variant(on)
    if on == "original":
        return train
    if on in planted_shortcut.SIDES:
        return planted_shortcut.contaminated(train, on)
    return backgrounds.variants(train, seed=seed).sets[on]


@stage(version=1)
def fit_on(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    device: torch.device,
    backbone: nn.Module | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one network on one variant. Config: on, seed; architecture, recipe and in9_mean, or
    the hash of the backbone that gets a new last layer. Inputs: train, the images as they are."""
    shown = training_set(inputs["train"], config["on"], config["seed"])
    n = {"n": len(shown)}
    if backbone is not None:
        how = {"backbone": backbone, "device": device}
        tensors, values = training.fit_last_layer(config, {"train": shown}, work, **how)
        return tensors, values | n
    model = _untrained(config, len(shown.class_names))
    recipe, where = Recipe.from_config(config["recipe"]), work / "checkpoint.pt"
    how = {"seed": config["seed"], "checkpoint": where, "device": device, "progress": False}
    history = training.fit(model, shown, recipe, **how)
    return model.state_dict(), {"history": asdict(history)} | n


def _untrained(config: Mapping[str, Any], classes: int) -> nn.Sequential:
    own = {"mean": imagenet9.MEAN, "std": imagenet9.STD} if config["in9_mean"] else {}
    return models.build(config["architecture"], classes, seed=config["seed"], **own)


@stage(version=1)
def classify_variants(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    build: Callable[[], nn.Module],
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the network calls every image of every test set. Config: reading. Inputs: network and
    the test sets, by name."""
    reading = config["reading"] and torch.tensor(config["reading"])
    sets = {name: images for name, images in inputs.items() if name != "network"}
    model = models.folded(build().to(device))
    said = {name: training.predict(model, images, device=device) for name, images in sets.items()}
    return {name: imagenet9.predicted(logits, reading) for name, logits in said.items()}, {}


@stage(version=1)
def embed_variants(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    backbone: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the last layer of a frozen network sees of every image of every test set. Config: the
    backbone's hash. Inputs: the test sets, by name."""
    backbone.to(device).eval()
    how = {"batch": 64, "device": device}
    return {name: training.features(backbone, images, **how) for name, images in inputs.items()}, {}


@stage(version=1)
def attack(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    build: Callable[[], nn.Module],
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Adversarial backgrounds. Config: reading, exhaustive. Inputs: network, foregrounds (Original)
    and backgrounds (Only-BG-T)."""
    reading = config["reading"] and torch.tensor(config["reading"], device=device)
    images, behind = inputs["foregrounds"], inputs["backgrounds"]
    shown = (images.images, images.masks, images.labels, behind.images)
    shown = [tensor.to(device) for tensor in shown]
    model = models.folded(build().to(device))
    search = imagenet9.adversarial_backgrounds(model, *shown, reading=reading)
    tensors = {name: value.cpu() for name, value in vars(search).items() if name != "forwards"}
    if config["exhaustive"]:
        wrong = imagenet9.every_background(model, *shown, reading=reading)
        tensors["wrong"] = wrong.cpu()
    return tensors, {"forwards": search.forwards}


@stage(version=1)
def explain(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    build: Callable[[], nn.Module],
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Maps of the true class, each divided by its peak, by METHODS. Inputs: network, images."""
    images = inputs["images"]
    shown, labels = images.to_float(device), images.labels.to(device)
    maps = _maps(build().to(device), shown, labels)
    return {name: (255 * values).round().byte().cpu() for name, values in maps.items()}, {}


def _maps(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    few = {"batch_size": 16}
    layer = saliency.last_maps(model, images)
    pixels = [bt.backtrack(model, *part).float() for part in _parts(images, labels, 16)]
    width = bt.SHARP * images.shape[2]
    return {
        "Grad-CAM": saliency.grad_cam(model, images, labels, layer, **few),
        "input gradient": bt.attention(
            saliency.input_gradient(model, images, labels, **few), width
        ),
        "backtracking": bt.attention(torch.cat(pixels), width),
    }


def _parts(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(size), labels.split(size), strict=True))


# ---------------------------------------------------------------- one network


def _study(study: Study, network: Network) -> Studied:
    return _one(study, network, Store(study.root).get_or_compute)


def _one(study: Study, network: Network, ask: Callable[..., Result]) -> Studied:
    """Train, examine, attack and explain one network; each result is asked for by its key."""
    made = _made(study, network, ask)
    build = partial(_model, study, network, made, study.collection(network))
    how = {"device": study.device, "build": build}
    labels, predicted, trained_with = {}, {}, None
    for place in study.plans[network]:
        answered = _answered(study, network, made, place, ask)
        prefix = "" if place == study.collection(network) else f"{place}: "
        for name, images in study.tests[place].items():
            labels[prefix + name] = images.labels
            predicted[prefix + name] = answered[name]
    if network.on == PRETRAINED and study.all_classes is not None:
        own = study.tests[_OWN_TASK]
        told = ask(classify_variants, {"reading": None}, {"network": made} | own, how)
        labels[_OWN_TASK], predicted[_OWN_TASK] = own["all"].labels, told.tensors["all"]
    search, maps = None, {}
    if network in study.attacked:
        found = _attacked(study, network, made, ask)
        tensors = {k: v for k, v in found.tensors.items() if k != "wrong"}
        search = imagenet9.Search(**tensors, forwards=found.values["forwards"])
    if network in study.explained:
        asked = {"network": made, "images": explained_images(study)}
        maps = ask(explain, {"methods": METHODS}, asked, how).tensors
    if isinstance(made, Result):
        trained_with = made.values.get("n")
    marks = {
        kind: _mark_looked_for(study, network, made, ask, kind)
        for kind in planted_shortcut.SIDES
        if kind in study.plans[network]
    }
    return Studied(network, made, labels, predicted, trained_with, search, maps, marks)


def _answered(
    study: Study, network: Network, made: Keyed, place: str, ask: Callable[..., Result]
) -> Mapping[str, Int64[Tensor, " _"]]:
    """The class of every image of a collection, by test set. New last layers share what their
    backbone sees, which is asked once."""
    tests = study.tests[place]
    if study.budget.recipe is None and network.on != PRETRAINED:
        backbone = study.loaded[_backbone(study.budget)]
        how = {"backbone": backbone.model, "device": study.device}
        seen = ask(embed_variants, {"backbone": backbone.sha256}, tests, how).tensors
        weight, bias = made.tensors["weight"], made.tensors["bias"]
        return {name: imagenet9.predicted(seen[name] @ weight.T + bias) for name in tests}
    how = {"device": study.device, "build": partial(_model, study, network, made, place)}
    inputs = {"network": made} | tests
    return ask(classify_variants, _answers(study, network, place), inputs, how).tensors


def _mark_looked_for(
    study: Study, network: Network, made: Keyed, ask: Callable[..., Result], kind: str
) -> Result:
    budget = study.budget
    config = {"kind": kind, "masked": budget.masked, "pictures": 8, "precision": _precision(budget)}
    config["climb"] = asdict(background_removal.usual(study.paper_one.budget))
    sets = study.tests[kind]
    own = sets["original"].labels == planted_shortcut.CLASS
    inputs = {"images": sets["original"][own], "no_fg": sets["no_fg"][own]}
    how = {"device": study.device, "build": partial(_model, study, network, made)}
    return ask(planted_shortcut.look_for_mark, config, {"network": made} | inputs, how)


def _precision(budget: ImageNet9Study) -> str:
    return training.settled(budget.recipe).precision


_OWN_TASK = "own task"  # all classes that pretrained networks of scenes know


def _made(study: Study, network: Network, ask: Callable[..., Result]) -> Keyed:
    """What made a network's weights."""
    budget = study.budget
    if network.on == PRETRAINED:
        if study.loaded:
            return Named(study.loaded[network.title].sha256)
        recipe = training.settled(budget.recipe)
        recipe = replace(recipe, epochs=network.epochs or recipe.epochs)
        config = {
            "architecture": dict(budget.pretrained)[network.title],
            "classes": len(study.all_classes.class_names),
            "recipe": asdict(recipe),
            "seed": network.seed,
        }
        how = {"device": study.device, "progress": False}
        return ask(training.fit_network, config, {"train": study.all_classes}, how)
    usual = network.tie is None and not network.title
    if study.paper_one and usual and network.on in _PAPER_ONE:
        variant = Variant(_PAPER_ONE[network.on], network.seed)
        return background_removal.fitted(study.paper_one, variant, ask)
    config = {"on": network.on, "seed": network.seed}
    if network.on in planted_shortcut.SIDES:
        config["mark"] = planted_shortcut.description(network.on)
    how = {"device": study.device}
    if budget.recipe is None:
        backbone = study.loaded[_backbone(budget)]
        config["backbone"], how["backbone"] = backbone.sha256, backbone.model
    else:
        recipe = training.settled(budget.recipe)
        if network.on == AUGMENTED:  # twice the images, so as many steps as the others take
            recipe = replace(recipe, epochs=max(1, recipe.epochs // 2))
        architecture = dict(budget.others).get(network.title, budget.architecture)
        config |= {"architecture": architecture, "recipe": asdict(recipe)}
        config["in9_mean"] = budget.in9_mean
    return ask(fit_on, config, {"train": _train(study, network)}, how)


def _train(study: Study, network: Network) -> ImageSet | Local:
    return study.train if network.tie is None else study.worlds[network.tie]


def _backbone(budget: ImageNet9Study) -> str:
    return budget.architecture.split(",")[0]


def _model(study: Study, network: Network, made: Keyed, place: str = "") -> nn.Module:
    """The network with its weights, as it is asked about this collection."""
    budget = study.budget
    if network.on == PRETRAINED and study.loaded:
        model = study.loaded[network.title].model
        return _Choice(model, study.groups) if _chooses(study, place) else model
    if budget.recipe is None:
        return models.with_last_layer(study.loaded[_backbone(budget)].model, **made.tensors)
    titles = dict(budget.pretrained if network.on == PRETRAINED else budget.others)
    config = {
        "architecture": titles.get(network.title, budget.architecture),
        "seed": 0,
        "in9_mean": budget.in9_mean and network.on != PRETRAINED,
    }
    classes = len(study.class_titles)
    if network.on == PRETRAINED:
        classes = len(study.all_classes.class_names)
    model = _untrained(config, classes)
    model.load_state_dict(made.tensors)
    return model.to(memory_format=torch.channels_last).eval()


class _Choice(nn.Module):
    """A pretrained network that has to choose between groups of its classes."""

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.merged = models.Merged(model, groups, 1000)

    def forward(self, images):  # (n, 3, h, w) -> (n, groups)
        return self.merged(images)[:, :-1]


def _answers(study: Study, network: Network, place: str) -> dict[str, Any]:
    """How the network's outputs are read in this collection, as stages are told: "reading" is the
    class each of them means (None: as they are), "groups" those that `_Choice` chooses between."""
    if network.on != PRETRAINED:
        return {"reading": None}
    if _chooses(study, place):
        return {"reading": None, "groups": study.groups}
    return {"reading": study.readings[place].tolist()}


def _chooses(study: Study, place: str) -> bool:
    return bool(study.groups) and place not in study.readings


def _attacked(study: Study, network: Network, made: Keyed, ask: Callable[..., Result]) -> Result:
    place = study.collection(network)
    config = _answers(study, network, place) | {"exhaustive": network == Network()}
    chosen = adversarial_rows(study, place)
    inputs = {"network": made, "foregrounds": chosen[0], "backgrounds": chosen[1]}
    return ask(
        attack,
        config,
        inputs,
        {"device": study.device, "build": partial(_model, study, network, made)},
    )


def adversarial_rows(study: Study, place: str = "") -> tuple[ImageSet, ImageSet]:
    """The foregrounds that are attacked and the backgrounds that are tried, as many of each class
    as of any other."""
    test, budget = study.tests[place], study.budget
    return (
        _even(test["original"], budget.foregrounds),
        _even(test["only_bg_t"], budget.backgrounds),
    )


def explained_images(study: Study) -> ImageSet:
    """The images whose saliency is drawn and measured."""
    return _even(study.test["original"], study.budget.explained)


def _even(images: ImageSet, count: int) -> ImageSet:
    """As many of each class, about `count` together, class by class (`ImageSet.evenly` leaves a set
    that is small enough in its own order)."""
    return images.examples(max(1, count // len(images.labels.unique())))


# ---------------------------------------------------------------- networks and images


def assemble(course: Course) -> Study:
    """The profile's test sets, training images and networks to come.

    Raises:
        ValueError: the profile has no such study.
        helpers.photos.MissingDataset: photographs that are not there.
    """
    budget = course.profile.imagenet9
    if budget is None:
        raise ValueError(f"profile {course.profile.name!r} has no budget for this study")
    if course.limit:
        few = ("judged", "foregrounds", "backgrounds", "explained", "masked")
        budget = replace(budget, **{k: min(course.limit, getattr(budget, k)) for k in few})
    if course.profile.source == "scenes":
        return _scenes(course, budget)
    if budget.recipe is not None:
        return _release(course, budget)
    try:
        return _two_classes(course, budget)
    except photos.MissingDataset as no_voc:
        with suppress(photos.MissingDataset):
            return _release(course, budget)  # alone it does for the pretrained networks
        raise no_voc


def _scenes(course: Course, budget: ImageNet9Study) -> Study:
    everything, validation = course.images("train"), course.images("validation")
    nine = everything.class_names[::2]
    train = everything.only(nine)
    made = {
        "": backgrounds.variants(_even(course.images("test").only(nine), budget.judged), seed=0)
    }
    worlds = {}
    for tie in budget.ties:
        drawn = {"tie": tie, "every": 2}  # the nine classes only
        worlds[tie] = _light(course.images("train", **drawn).only(nine))
        test = _even(course.images("test", **drawn).only(nine), budget.judged)
        made[_world(tie)] = backgrounds.variants(test, seed=0)
    tests = {name: built.sets for name, built in made.items()}
    for tie in budget.ties:
        tests[_world(tie)] = {name: tests[_world(tie)][name] for name in _NEEDED}
    tests |= {kind: _marked_tests(tests[""]["original"], kind) for kind in planted_shortcut.SIDES}
    tests[_OWN_TASK] = {"all": validation}
    for seed in range(1, budget.seeds):  # other backgrounds for every seed, in the mixed sets only
        drawn = backgrounds.variants(tests[""]["original"], seed=seed).sets
        mixed = {name: drawn[name] for name in VARIANTS if name.startswith("mixed")}
        tests[_draw(seed)] = tests[""] | mixed
    plans = {network: (_draw(network.seed),) for network in _trainings(budget)}
    plans |= {Network(on): ("",) for on in ("noise", "mixed")}
    plans |= {Network(tie=tie): (_world(tie),) for tie in budget.ties}
    for network in [n for n in plans if n.on == "original" and n.tie is None and not n.title]:
        plans[network] += tuple(planted_shortcut.SIDES)  # the controls
    plans |= {Network(kind): ("", kind) for kind in planted_shortcut.SIDES}
    for title, _ in budget.pretrained:
        plans |= {Network(PRETRAINED, 0, title, None, e): ("",) for e in (budget.early, None)}
    seen = (budget, course.store.root, course.device)
    paper_one = background_removal.Study(
        course.profile.backgrounds, *seen[1:], train, {}, train, {}, None
    )
    return Study(
        *seen,
        class_titles=tuple(train.superclass_names[k] for k in train.superclasses),
        tests=_all_light(tests),
        failures={name: built.failures for name, built in made.items()},
        train=train,
        plans=plans,
        worlds=worlds,
        all_classes=everything,
        readings={"": torch.tensor(everything.superclasses)},
        paper_one=paper_one,
    )


def _marked_tests(images: ImageSet, kind: str) -> dict[str, ImageSet]:
    """The variants of images as contaminated as the training ones, and a mark on every image."""
    built = backgrounds.variants(planted_shortcut.contaminated(images, kind), seed=0).sets
    wanted = ("original", "no_fg", "only_bg_t", "mixed_same", "mixed_rand")
    everywhere, _ = planted_shortcut.marked(images, kind)
    return {name: built[name] for name in wanted} | {"everywhere": everywhere}


def _draw(seed: int) -> str:
    """The collection whose mixed sets were drawn for the networks of a seed: their intervals then
    hold the luck of that draw as well."""
    return f"draw {seed}" if seed else ""


def _world(tie: float) -> str:
    return f"tie {tie:g}"


def _trainings(budget: ImageNet9Study) -> list[Network]:
    """The networks of the matrix and of the primary claims."""
    seeds = [Network(on, seed) for on in _SEEDED for seed in range(budget.seeds)]
    others = [Network("original", title=title) for title, _ in budget.others]
    return list(dict.fromkeys([*seeds, *(Network(on) for on in VARIANTS), *others]))


_SEEDED = ("original", "only_bg_t", "only_fg", "mixed_rand", AUGMENTED)


def _all_light(tests: Mapping[str, Mapping[str, ImageSet]]) -> dict[str, dict[str, ImageSet]]:
    """`_light` of every set; one that several collections share stays one."""
    made: dict[int, ImageSet] = {}
    for sets in tests.values():
        for name, images in sets.items():
            made.setdefault(id(images), _light(images, name))
    return {p: {n: made[id(i)] for n, i in sets.items()} for p, sets in tests.items()}


def _light(images: ImageSet, name: str = "") -> ImageSet:
    """Without what this study does not ask, since every process gets all of them: masks only of
    the images that are taken apart."""
    masks = images.masks if name == "original" else None
    return replace(images, parts=None, views=None, masks=masks)


def _two_classes(course: Course, budget: ImageNet9Study) -> Study:
    """VOC's dogs and cats with their masks, the same by GrabCut, and single photographs of all nine
    classes."""
    names = ("dog", "cat")
    train, validation = (course.images(split).only(names) for split in ("train", "validation"))
    validation = _even(validation, budget.judged)
    made = {"": backgrounds.variants(validation, seed=0)}
    boxed = course.store.get_or_compute(cut_out, {}, {"images": validation}).tensors
    made[_GRABCUT] = _built_from(validation, boxed)
    readings = {name: imagenet9.of_imagenet() for name in (_SINGLE, _RELEASE)}
    tests = {name: built.sets for name, built in made.items()}
    failures = {name: built.failures for name, built in made.items()}
    for name, found in (_SINGLE, _single_photographs), (_RELEASE, _released):
        try:
            tests[name], failures[name] = found(course, budget)
        except photos.MissingDataset as missing:
            failures[name] = {str(missing).splitlines()[0]: 0}
    loaded, missing = _weights(course, budget)
    places = tuple(name for name in ("", _GRABCUT, _SINGLE, _RELEASE) if name in tests)
    plans = dict.fromkeys(_trainings(budget), ("", _GRABCUT))
    plans |= {Network(PRETRAINED, 0, title): places for title in loaded}
    dogs = torch.nonzero(imagenet9.of_imagenet() == 0).flatten().tolist()
    cats = torch.nonzero(imagenet9.of_imagenet() == 4).flatten().tolist()
    return Study(
        budget,
        course.store.root,
        course.device,
        class_titles=("dog", "carnivore (cat)"),
        tests=tests,
        failures=failures,
        train=train,
        plans=plans,
        loaded=loaded,
        readings=readings,
        groups=(tuple(dogs), (*cats, *_DOMESTIC_CATS)),
        missing=missing,
    )


_MOST_SINGLE = 5_000  # of ImageNet's 50,000 photographs, which take 8 GB
_GRABCUT, _SINGLE, _RELEASE = "masks by GrabCut", "ImageNet", "ImageNet-9"
_DOMESTIC_CATS = tuple(range(281, 286))  # ImageNet-9's carnivores have none, VOC's cats are these


@stage(version=1)
def cut_out(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Masks by GrabCut from the boxes, which takes a sixth of a second an image."""
    masks, failed = backgrounds.grabcut_masks(inputs["images"])
    return {"masks": masks, "failed": failed}, {}


def _built_from(images: ImageSet, cut: Mapping[str, Tensor]) -> backgrounds.Variants:
    """The variants by GrabCut's masks, where it did not fail."""
    kept = replace(images, masks=cut["masks"])[~cut["failed"]]
    built = backgrounds.variants(kept, seed=0)
    few = {"GrabCut's foreground is below 10 % of its box": int(cut["failed"].sum())}
    return replace(built, failures=few | built.failures)


def _single_photographs(
    course: Course, budget: ImageNet9Study
) -> tuple[dict[str, ImageSet], dict[str, int]]:
    """ImageNet's photographs of the nine classes, as they are."""
    place = photos.find(course.data_root, "imagenet")
    most = course.limit or _MOST_SINGLE
    loaded = photos.class_folders(place / "val", size=budget.size, limit=most)
    if len(loaded.images.class_names) != 1000:
        raise ValueError(
            f"{place.name} lists {len(loaded.images.class_names)} classes; to know which network "
            "output is which, wnids.txt needs ImageNet's 1,000 lines"
        )
    label = imagenet9.of_imagenet()[loaded.images.labels]
    images = replace(
        loaded.images[label >= 0],
        labels=label[label >= 0],
        class_names=tuple(imagenet9.IMAGENET_CLASSES),
    )
    return {"original": images}, {"of no class of the nine": int((label < 0).sum())}


def _released(course: Course, budget: ImageNet9Study) -> tuple[dict[str, ImageSet], dict[str, int]]:
    """The public release's test images."""
    limit = min(budget.judged, course.limit or budget.judged)
    sets, refused = photos.imagenet9_variants(course.data_root, size=budget.size, limit=limit)
    if sets["original"].masks is None:
        raise photos.MissingDataset(
            "the ImageNet-9 release lacks fg_mask/val, without which foregrounds cannot be put on "
            "other backgrounds"
        )
    for refusal in refused[:5]:
        print(refusal)
    return sets, {"refused": len(refused)}


def _weights(
    course: Course, budget: ImageNet9Study
) -> tuple[dict[str, models.Pretrained], dict[str, str]]:
    """The pretrained networks that are there or can be downloaded, and why others are not."""
    loaded, missing = {}, {}
    for title, weights in budget.pretrained:
        try:
            found = course.pretrained(weights)
        except FileNotFoundError as error:
            missing[title] = str(error)
            print(f"{title} is left out: {error}")
            continue
        loaded[title] = found
        if not found.official:
            print(f"{found.file} is not the official file: SHA-256 {found.sha256[:16]}...")
    return loaded, missing


def _release(course: Course, budget: ImageNet9Study) -> Study:
    """The public release; networks are trained where its training archives lie beside it."""
    sets, failures = _released(course, budget)
    loaded, missing = _weights(course, budget)
    plans = {Network(PRETRAINED, 0, title): ("",) for title in loaded}
    train = _local(course, budget)
    if train is None:
        print("No training archives (original/train/...): only pretrained networks are examined.")
    else:
        plans = dict.fromkeys(_trainings(budget), ("",)) | plans
    return Study(
        budget,
        course.store.root,
        course.device,
        class_titles=photos.IN9_CLASSES,
        tests={"": sets},
        failures={"": failures},
        train=train,
        plans=plans,
        loaded=loaded,
        readings={"": imagenet9.of_imagenet()},
        missing=missing,
    )


def _local(course: Course, budget: ImageNet9Study) -> Local | None:
    root = photos.find(course.data_root, "imagenet9")
    folders = [root / name / "train" for name in VARIANTS]
    if not all(folder.is_dir() for folder in folders):
        return None
    digest = hashlib.sha256(repr((budget.size, course.limit)).encode())
    for file in sorted(p for folder in folders for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
    return Local(course.data_root, budget.size, course.limit, digest.hexdigest()[:20])


# ---------------------------------------------------------------- tables


def overview(study: Study) -> pd.DataFrame:
    """The collections of test sets: images, classes, chance, how many were left out, and why."""
    rows = {}
    for name, sets in study.tests.items():
        if name in (*planted_shortcut.SIDES, _OWN_TASK) or name.startswith("draw"):
            continue
        first = next(iter(sets.values()))
        present = sum(1 for n in first.counts().values() if n)
        left = [f"{n} {why}" for why, n in study.failures.get(name, {}).items()]
        rows[name or "main"] = {
            "test sets": len(sets),
            "images in each": len(first),
            "classes": present,
            "chance, %": round(100 / len(first.class_names), 1),
            "left out": "; ".join(left) or "none",
        }
    for name, why in study.failures.items():
        if name not in study.tests:
            rows[name] = {"test sets": 0, "images in each": 0, "left out": next(iter(why))}
    return pd.DataFrame(rows).T


def name_of(network: Network) -> str:
    """What a row of a table is called."""
    if network.on == PRETRAINED:
        return network.title + (f", {network.epochs} epochs" if network.epochs else "")
    return network.title or TRAINED_ON[network.on]


def over_seeds(
    study: Study, found: Mapping[Network, Studied], on: str, measure: Callable[[Studied], float]
) -> list[float]:
    """A number for each network of the study's own architecture trained on this."""
    return [measure(found[network]) for network in study.networks(on)]


def matrix(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """Accuracy in percent of networks trained on each variant (rows) and tested on each (columns);
    the mean over the seeds there are."""
    return pd.DataFrame(
        {
            TRAINED_ON[on]: {
                VARIANTS[test]: np.mean(over_seeds(study, found, on, _accuracy_on(test)))
                for test in VARIANTS
            }
            for on in (*VARIANTS, AUGMENTED)
            if study.networks(on)
        }
    ).T


def _accuracy_on(test: str) -> Callable[[Studied], float]:
    return lambda studied: studied.accuracy(test)


def trained_with(study: Study, found: Mapping[Network, Studied]) -> dict[str, int]:
    """How many images each training set has."""
    return {
        TRAINED_ON[network.on]: found[network].trained_with or len(study.train)
        for network in study.plans
        if network.on in TRAINED_ON and not network.title and network.tie is None
    }


_COLUMNS = {
    "original": "Original",
    "only_bg_t": "Only-BG-T",
    "mixed_same": "Mixed-Same",
    "mixed_rand": "Mixed-Rand",
}


def big_table(study: Study, found: Mapping[Network, Studied], place: str = "") -> pd.DataFrame:
    """Every pretrained network and every architecture trained on Original, the first seed: accuracy
    on the test sets in percent, the BG-gap in points with its interval over the images (bootstrap),
    and the paper's numbers of the network of that name."""
    paper = published("paper4_table_accuracy")
    rows = {}
    for network, studied in found.items():
        asked = place in study.plans[network] and place not in planted_shortcut.SIDES
        if not _in_big_table(network) or not asked:
            continue
        prefix = "" if place == study.collection(network) else f"{place}: "
        kind = "pretrained" if network.on == PRETRAINED else "trained here"
        row = {}
        if _OWN_TASK in studied.predicted:
            row["own task"] = studied.accuracy(_OWN_TASK)
        row |= {
            shown: studied.accuracy(prefix + name)
            for name, shown in VARIANTS.items()
            if name in study.tests[place]
        }
        if prefix + "mixed_rand" in studied.predicted:
            row["BG-gap"], row["gap from"], row["gap to"] = gap(studied, prefix)
        titled = name_of(network) if network.title else _own_title(study)
        known = {"ImageNet": "pretrained"}
        same = paper.model.str.lower() == titled.lower()
        for _, line in paper[same & (study.paper_one is None)].iterrows():  # no slim namesakes
            if known.get(line.trained_on, "trained here") == kind:
                row[f"paper: {line.test_set}"] = line.percent
        rows[kind, titled] = row
    return pd.DataFrame(rows).T


def _in_big_table(network: Network) -> bool:
    if network.on == PRETRAINED:
        return network.epochs is None
    return network.on == "original" and network.seed == 0 and network.tie is None


def _own_title(study: Study) -> str:
    architecture = study.budget.architecture
    known = {name: title for title, name in study.budget.pretrained} | {"resnet50": "ResNet-50"}
    return known.get(architecture, architecture)


def gap(studied: Studied, prefix: str = "") -> tuple[float, float, float]:
    """BG-gap in points and its 95 % interval over the images."""
    both = [studied.right(prefix + name).double() for name in ("mixed_same", "mixed_rand")]
    difference = 100 * (both[0] - both[1]).numpy()
    return float(difference.mean()), *bootstrap_interval(difference)


def gaps(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """BG-gap of every network of the big table, with its interval over the images, points."""
    rows = {}
    for network, studied in found.items():
        if _in_big_table(network) and "mixed_rand" in studied.predicted:
            kind = "pretrained" if network.on == PRETRAINED else "trained here"
            title = name_of(network) if network.title else _own_title(study)
            rows[f"{title}, {kind}"] = dict(zip(("gap", "low", "high"), gap(studied), strict=True))
    return pd.DataFrame(rows).T


def published_table() -> pd.DataFrame:
    """The slides' table, a row per network."""
    paper = published("paper4_table_accuracy")
    sets = ["ImageNet", "Original", "IN-9L", "Only-BG-T", "Mixed-Same", "Mixed-Rand", "BG-gap"]
    table = paper.pivot(index=["trained_on", "model"], columns="test_set", values="percent")
    order = list(dict.fromkeys(zip(paper.trained_on, paper.model, strict=True)))
    return table.loc[order, sets]


def effects(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """What training on other backgrounds changes, all on the main collection: mean over the seeds
    of accuracies (%), BG-gap (points) and foregrounds fooled (%)."""
    rows = {}
    for on in (*_PRIMARY, "only_fg", "noise", "mixed"):
        if not (networks := study.networks(on)):
            continue
        studied = [found[n] for n in networks]
        row = {"seeds": len(studied)}
        for name, shown in {**_COLUMNS, "only_fg": "Only-FG"}.items():
            row[shown] = np.mean([s.accuracy(name) for s in studied])
        row["BG-gap"] = np.mean([s.gap for s in studied])
        row["fooled"] = np.nanmean([s.fooled for s in studied])
        rows[TRAINED_ON[on]] = row
    return pd.DataFrame(rows).T


def changes(
    study: Study, found: Mapping[Network, Studied], on: str, measure: Callable[[Studied], float]
) -> list[float]:
    """Of each seed: the measure of the network trained on Original minus that of this one."""
    base, other = (over_seeds(study, found, name, measure) for name in ("original", on))
    return [a - b for a, b in zip(base, other, strict=True)]


def vulnerable(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """Foregrounds with an adversarial background: share in percent with its interval over the
    foregrounds, challenge accuracy, how many are already wrong as they are (Original), how many of
    the others are fooled (NaN if there are none), and composites looked at as a share of all."""
    rows = {}
    for network in study.attacked:
        studied = found[network]
        search, place = studied.search, study.collection(network)
        images, behind = adversarial_rows(study, place)
        share = 100 * search.vulnerable.double().numpy()
        low, high = bootstrap_interval(share)
        own = {name: row for row, name in enumerate(study.tests[place]["original"].ids)}
        before = studied.right("original")[[own[name] for name in images.ids]]
        if network.tie is not None:
            name = f"Original, {_world(network.tie)}"
        elif network.on == PRETRAINED:
            name = f"{name_of(network)}, pretrained"
        else:
            name = name_of(network) + (f", seed {network.seed}" if network.seed else "")
        rows[name] = {
            "fooled": share.mean(),
            "low": low,
            "high": high,
            "challenge accuracy": 100 - share.mean(),
            "wrong before": 100 * (~before).double().mean().item(),
            "fooled of the right": 100 * search.vulnerable[before].double().mean().item(),
            "looked at, %": 100 * search.forwards / (len(images) * len(behind)),
        }
    return pd.DataFrame(rows).T


def vulnerable_by_class(
    study: Study, found: Mapping[Network, Studied], network: Network = Network()
) -> dict[str, float]:
    """Share of each class's foregrounds that some background makes wrong, in percent."""
    images, _ = adversarial_rows(study, study.collection(network))
    fooled = found[network].search.vulnerable.double()
    return {
        study.class_titles[k]: 100 * fooled[images.labels == k].mean().item()
        for k in images.labels.unique().tolist()
    }


def every_background(study: Study) -> Bool[Tensor, "n m"]:
    """Which composites the first network gets wrong, all of them: from the store.

    Raises:
        LookupError: `run` has not been called.
    """
    store, network = Store(study.root), Network()
    made = _made(study, network, store.recall)
    return _attacked(study, network, made, store.recall).tensors["wrong"]


def more_backgrounds(wrong: Bool[Tensor, "n m"], counts: Sequence[int]) -> list[float]:
    """Share of foregrounds fooled, in percent, when only so many random backgrounds are tried; the
    mean over 50 draws."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(wrong.shape[1], generator=generator) for _ in range(50)]
    means = [
        torch.stack([wrong[:, order[:count]].any(1).double().mean() for order in orders]).mean()
        for count in counts
    ]
    return [100 * mean.item() for mean in means]


def fine_grained(studied: Studied) -> Int64[Tensor, " n"]:
    """The category of every test image, see `imagenet9.fine_grained`."""
    return imagenet9.fine_grained(
        *(studied.right(name) for name in ("original", "mixed_rand", "only_bg_t"))
    )


def categories(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """Share of the test images in each category, in percent: all classes, each class."""
    sorted_in = fine_grained(found[Network()])
    labels = study.test["original"].labels
    columns = {"all": torch.ones_like(labels, dtype=torch.bool)}
    columns |= {title: labels == k for k, title in enumerate(study.class_titles)}
    return pd.DataFrame(
        {
            name: {
                category: 100 * (sorted_in[rows] == k).double().mean().item()
                for k, (category, _) in enumerate(imagenet9.CATEGORIES)
            }
            for name, rows in columns.items()
            if rows.any()
        }
    )


def context(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame | None:
    """When the background is useful: accuracy on Original before the superclass's home backdrop and
    before others, of networks trained on each; None where backdrops are not known."""
    images = study.test["original"]
    if images.backdrops is None:
        return None
    home = images.backdrops == torch.tensor(images.superclasses)[images.labels]
    rows = {}
    for on in (*_PRIMARY, "only_fg"):
        for place, chosen in ("at home", home), ("elsewhere", ~home):
            values = over_seeds(
                study,
                found,
                on,
                lambda s, chosen=chosen: 100 * s.right("original")[chosen].double().mean().item(),
            )
            rows.setdefault(TRAINED_ON[on], {})[place] = np.mean(values)
    return pd.DataFrame(rows).T.assign(images=f"{int(home.sum())} and {int((~home).sum())}")


def on_foreground(study: Study, studied: Studied, method: str) -> Float[Tensor, " n"]:
    """Share of each map on the foreground minus the foreground's share of the image, in points; NaN
    where the map is 0 everywhere."""
    masks = explained_images(study).masks
    share = saliency.energy_inside(studied.maps[method].double(), masks)
    return 100 * (share - masks.double().mean((1, 2)))


def mean_on_foreground(study: Study, studied: Studied, method: str) -> float:
    """See `on_foreground`; the mean over the images."""
    return on_foreground(study, studied, method).nanmean().item()


def saliency_table(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """Mean points on the foreground beyond its area by training set and method, and how many more
    they are than of Original; each with Student's interval over the seeds."""
    rows = {}
    for on in (*_PRIMARY, "only_fg"):
        for method in METHODS if study.networks(on) else ():
            measure = partial(mean_on_foreground, study, method=method)
            values = over_seeds(study, found, on, measure)
            row = {"points": np.mean(values)}
            if len(values) > 1:
                row["from"], row["to"] = t_interval(values)
            if on != "original":
                more = [-less for less in changes(study, found, on, measure)]
                row["more than Original"] = np.mean(more)
                if len(more) > 1:
                    row["more from"], row["more to"] = t_interval(more)
            rows[TRAINED_ON[on], method] = row
    return pd.DataFrame(rows).T


def progress(study: Study, found: Mapping[Network, Studied]) -> pd.DataFrame:
    """A row per pretrained network and checkpoint: accuracy on the task it was trained for (where
    that is not known, on Original) and on the test sets, in percent."""
    rows = []
    for network, studied in found.items():
        if network.on != PRETRAINED or "mixed_rand" not in studied.predicted:
            continue
        known = _OWN_TASK if _OWN_TASK in studied.predicted else "original"
        row = {"network": name_of(network), "own task": studied.accuracy(known)}
        rows.append(row | {shown: studied.accuracy(name) for name, shown in _COLUMNS.items()})
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Of accuracy on each variant against accuracy on the original task: points per point, with its
    bootstrap interval over the networks. Networks of one family are no independent draws."""
    columns = {name: table[name].to_numpy() for name in ("Mixed-Same", "Mixed-Rand", "Only-BG-T")}
    columns["Mixed-Rand minus Only-BG-T"] = columns["Mixed-Rand"] - columns["Only-BG-T"]
    rows = {}
    for name, y in columns.items():
        points = np.stack([table["own task"].to_numpy(), y], 1)
        low, high = bootstrap_interval(points, slope)
        rows[name] = {"slope": slope(*points.T), "low": low, "high": high}
    return pd.DataFrame(rows).T


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the least-squares line; 0 where a resample has one x only, which with very few networks
    pulls the interval towards 0."""
    return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) else 0.0


def ties(study: Study, found: Mapping[Network, Studied], default: float) -> pd.DataFrame:
    """A row per tie between backdrop and class: networks trained and tested in such worlds."""
    own = {network.tie: found[network] for network in study.plans if network.tie is not None}
    rows = {}
    for tie, studied in sorted((own | {default: found[Network()]}).items()):
        middle, low, high = gap(studied)
        rows[tie] = {
            "Original": studied.accuracy("original"),
            "Mixed-Rand": studied.accuracy("mixed_rand"),
            "Only-BG-T": studied.accuracy("only_bg_t"),
            "BG-gap": middle,
            "low": low,
            "high": high,
            "fooled": studied.fooled,
        }
    return pd.DataFrame(rows).T


# ---------------------------------------------------------------- claims


def quantities(study: Study, found: Mapping[Network, Studied]) -> dict[str, dict[str, Any]]:
    """What `Course.judge` takes for each claim of the paper: the numbers, over seeds, images or
    networks as the claim declares, or the reason why there are none."""
    asked = {name: _over_seeds_or_why(study, found, *how) for name, how in _BY_SEEDS.items()}
    if (classes := len(study.class_titles)) != 9:
        for name in ("p4-backgrounds-suffice", "p4-background-signal-used"):
            asked[name] = {"because": f"stated for nine classes; chance of {classes} is higher"}
    asked |= _of_pretrained(study, found)
    first = found.get(Network())
    if first is None:
        because = {"because": _NO_TRAINING}
        asked |= {"p4-adversarial-backgrounds": because, "p4-background-needed": because}
    else:
        fooled = 100 * first.search.vulnerable.double()
        needed = 100 * (~first.right("mixed_rand")[first.right("original")]).double()
        why = {"because": "the network gets no original image right"}
        asked["p4-adversarial-backgrounds"] = {"measured": fooled}
        asked["p4-background-needed"] = {"measured": needed} if len(needed) else why
    models_of = progress(study, found) if study.paper_one is None else None
    asked |= _of_progress(models_of)
    if study.networks("mixed_rand"):
        by_cam = partial(mean_on_foreground, study, method=METHODS[0])
        how = (study, found, "mixed_rand", by_cam)
        asked["p4-mixed-rand-saliency"] = {"measured": [-less for less in changes(*how)]}
    else:
        asked["p4-mixed-rand-saliency"] = {"because": _NO_TRAINING}
    return asked


_NO_TRAINING = "no network was trained: there are no training images"
_BY_SEEDS: dict[str, tuple[str, str | None, Callable[[Studied], float]]] = {
    # claim: the training set, the one whose value is taken off its own, and the measure
    "p4-backgrounds-suffice": ("only_bg_t", None, lambda s: s.accuracy("original")),
    "p4-background-signal-used": ("original", None, lambda s: s.accuracy("only_bg_t")),
    "p4-bg-gap": ("original", None, lambda s: s.gap),
    "p4-background-as-context": (
        "original",
        None,
        lambda s: s.accuracy("original") - s.accuracy("mixed_rand"),
    ),
    "p4-mixed-rand-reduces-gap": ("original", "mixed_rand", lambda s: s.gap),
    "p4-mixed-rand-augmentation": ("original", AUGMENTED, lambda s: s.gap),
}


def _over_seeds_or_why(
    study: Study,
    found: Mapping[Network, Studied],
    on: str,
    other: str | None,
    measure: Callable[[Studied], float],
) -> dict[str, Any]:
    if not study.networks(on):
        return {"because": _NO_TRAINING}
    if other is None:
        return {"measured": over_seeds(study, found, on, measure)}
    return {"measured": changes(study, found, other, measure)}


def pretrained(found: Mapping[Network, Studied], title: str) -> Studied | None:
    """The pretrained network of that name, else the last one; None where there is none."""
    known = [s for n, s in found.items() if n.on == PRETRAINED and n.epochs is None]
    named = [s for s in known if s.network.title == title]
    return (named or known[-1:] or [None])[0]


def _of_pretrained(study: Study, found: Mapping[Network, Studied]) -> dict[str, dict[str, Any]]:
    """The claims about networks that are pre-trained on ImageNet. The published accuracies are
    ResNet-50's on the public release; other networks or images say nothing about them."""
    asked: dict[str, dict[str, Any]] = {}
    one = pretrained(found, "ResNet-50")
    gap_claim, tests = "p4-bg-gap-pretrained", ("original", "mixed_same", "mixed_rand")
    if one is None:
        asked[gap_claim] = {"because": "no pretrained network is there"}
    elif study.paper_one is not None:
        asked[gap_claim] = {"because": _NO_IMAGENET}
    else:
        difference = one.right("mixed_same").double() - one.right("mixed_rand").double()
        asked[gap_claim] = {"measured": 100 * difference, "because": name_of(one.network)}
    exact = one is not None and one.network.title == "ResNet-50" and len(study.class_titles) == 9
    for test in tests:
        name = f"p4-resnet50-{test.replace('_', '-')}"
        if exact and study.readings[""].numel() == 1000:
            asked[name] = {"measured": 100 * one.right(test).double()}
        else:
            asked[name] = {"because": "needs ResNet-50's weights and the released test sets"}
    return asked


_NO_IMAGENET = "no network here has seen ImageNet: see the scenes' own networks above"


def _of_progress(table: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    names = ("p4-better-models-use-backgrounds", "p4-foreground-rises-faster")
    if table is None:
        return {name: {"because": _NO_IMAGENET} for name in names}
    if len(table) < 3 or table["own task"].nunique() < 3:
        return {name: {"because": "needs three pretrained networks or more"} for name in names}
    x, behind = table["own task"], table["Only-BG-T"]
    columns = (behind, table["Mixed-Rand"] - behind)
    return {
        name: {"measured": np.stack([x, y], 1), "statistic": slope}
        for name, y in zip(names, columns, strict=True)
    }


# ---------------------------------------------------------------- pictures


Table = tuple[Tensor, list[str], list[str]]  # pictures, names of rows and of columns


def eight(study: Study, count: int = 6) -> Table:
    """All eight variants of one image of some classes."""
    first = study.test["original"]
    rows = torch.cat(
        [torch.nonzero(first.labels == k)[:1, 0] for k in range(len(first.class_names))]
    )
    rows = rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]
    if len(rows) < count:  # two classes only
        rows = torch.cat([torch.nonzero(first.labels == k)[:3, 0] for k in first.labels.unique()])
    pictures = torch.stack([study.test[name].images[rows] for name in VARIANTS], 1)
    names = [study.class_titles[k] for k in first.labels[rows]]
    return pictures, names, list(VARIANTS.values())


def model(study: Study, network: Network) -> nn.Module:
    """A network of the study with its weights, from the store.

    Raises:
        LookupError: `run` has not been called.
    """
    return _model(study, network, _made(study, network, Store(study.root).recall))


def worst_backgrounds(study: Study, wrong: Bool[Tensor, "n m"], count: int = 6) -> tuple:
    """The backgrounds that fool most foregrounds, what share they fool and what most of these are
    called; under each, three objects that are right on their own Only-BG-T and wrong on this.

    Returns:
        Pictures, rows, columns, a text under each picture and which cells are empty.
    """
    images, behind = adversarial_rows(study)
    shares, order = wrong.double().mean(0).sort(descending=True, stable=True)
    own = {name: row for row, name in enumerate(behind.ids)}
    before = torch.tensor(
        [bool(wrong[i, own[name]]) if name in own else True for i, name in enumerate(images.ids)]
    )
    network = model(study, Network()).to(study.device)
    shown = [tensor.to(study.device) for tensor in (images.images, images.masks)]
    columns, titles, marks, absent = [], [], [[], [], [], []], [[], [], [], []]
    for place, background in enumerate(order[:count].tolist()):
        below = behind.images[background].to(study.device).expand_as(shown[0])
        composites = imagenet9.composites(*shown, below)
        with torch.inference_mode():
            called = network(composites).argmax(1).cpu()
        new_names = called[wrong[:, background]]
        most = study.class_titles[int(new_names.mode().values)] if len(new_names) else "nothing"
        titles.append(f"fools {100 * shares[place]:.0f} %")
        own_rows = torch.nonzero(wrong[:, background] & ~before)[:, 0]
        n, few = len(own_rows), min(3, len(own_rows))
        # spread over the classes, and other objects for every background
        some = own_rows[(torch.arange(few) * n // max(few, 1) + place) % max(n, 1)].tolist()
        column = [behind.images[background]]
        marks[0].append(f"mostly {most}")
        absent[0].append(False)
        for turn in range(3):
            there = turn < len(some)
            picture = composites[some[turn]] if there else torch.ones_like(composites[0])
            column.append((255 * picture).round().byte().cpu())
            said = study.class_titles[int(called[some[turn]])] if there else ""
            marks[1 + turn].append(f"called {said}" if there else "")
            absent[1 + turn].append(not there)
        columns.append(torch.stack(column))
    names = ["background", *(f"object {k}" for k in (1, 2, 3))]
    return torch.stack(columns, 1), names, titles, marks, torch.tensor(absent)


def saliency_rows(study: Study, count: int = 6) -> list[int]:
    """The first explained image of as many classes as there are, at most `count`."""
    labels = explained_images(study).labels
    return [int(torch.nonzero(labels == k)[0]) for k in labels.unique()[:count]]


def saliency_pictures(study: Study, found: Mapping[Network, Studied], rows: Sequence[int]) -> Table:
    """Images, and the maps of networks trained on Original and on Mixed-Rand."""
    from helpers.figures import heated

    images = explained_images(study)
    lines, names = [images.images[list(rows)]], ["image"]
    for method in METHODS:
        for on in ("original", "mixed_rand"):
            maps = found[Network(on)].maps[method][list(rows)].float() / 255
            lines.append(heated(images.images[list(rows)], maps))
            names.append(f"{method}, {TRAINED_ON[on]}")
    titles = [study.class_titles[k] for k in images.labels[list(rows)]]
    return torch.stack(lines), names, titles


def category_pictures(study: Study, studied: Studied, count: int = 3) -> tuple:
    """Examples of every category: an image, its object on the random background and its background
    alone, with what the network calls each.

    Returns:
        Pictures, rows, columns, marks, and which cells are empty.
    """
    sorted_in = fine_grained(studied)
    tests = ("original", "mixed_rand", "only_bg_t")
    blank = torch.full_like(study.test["original"].images[0], 255)
    pictures, marks, absent = [], [], []
    for k in range(len(imagenet9.CATEGORIES)):
        rows = torch.nonzero(sorted_in == k)[:, 0]
        rows = rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()].tolist()
        line, said, empty = [], [], []
        for turn in range(count):
            for name in tests:
                there = turn < len(rows)
                line.append(study.test[name].images[rows[turn]] if there else blank)
                called = int(studied.predicted[name][rows[turn]]) if there else -1
                wrong = there and not bool(studied.right(name)[rows[turn]])
                title = study.class_titles[called] if called >= 0 else "none of them"
                said.append((("✗ " if wrong else "✓ ") + title) if there else "")
                empty.append(not there)
        pictures.append(torch.stack(line))
        marks.append(said)
        absent.append(empty)
    names = [category for category, _ in imagenet9.CATEGORIES]
    columns = [VARIANTS[name] for name in tests] * count
    return torch.stack(pictures), names, columns, marks, torch.tensor(absent)


@dataclass(frozen=True)
class Planted:
    """What became of the marks on one class's training images."""

    behaviour: pd.DataFrame  # what accuracy shows, and what the shortcut does
    pictures: Table  # of the large mark
    methods: dict[str, pd.DataFrame]  # by kind of mark: who finds it, see `planted_shortcut.table`
    # by method and kind: against each control; the controls among themselves on the small mark
    certainty: dict[str, dict[str, list[float]]]
    turned: dict[str, float]  # by kind: others' images named so because of it, beyond the control


def planted(study: Study, found: Mapping[Network, Studied]) -> Planted | None:
    """None where the study plants no shortcut. The controls are the networks trained on Original,
    of every seed."""
    if MARKED not in study.tests:
        return None
    side = study.test["original"].images.shape[2]
    controls = [found[network] for network in study.networks("original")]
    methods, behaviour, turned = {}, {}, {}
    certainty: dict[str, dict[str, list[float]]] = {}
    for kind in planted_shortcut.SIDES:
        taught, others = found[Network(kind)], [control.marks[kind] for control in controls]
        area = planted_shortcut.pattern(side, kind).shape[1] ** 2 / side**2
        methods[kind] = planted_shortcut.table(taught.marks[kind], others, area)
        both = [_behaviour(studied, kind) for studied in (taught, controls[0])]
        behaviour |= {(kind, "taught"): both[0], (kind, "control"): both[1]}
        turned[kind] = both[0][_OTHERS_MARKED] - both[1][_OTHERS_MARKED]
        for method in planted_shortcut.METHODS:
            row = certainty.setdefault(method, {})
            row[kind] = planted_shortcut.told_apart(taught.marks[kind], others, method)
            if kind == SMALL and len(others) > 1:
                row["controls among themselves"] = [
                    chance
                    for k, one in enumerate(others)
                    for chance in planted_shortcut.told_apart(one, others[k + 1 :], method)
                ]
    pictures = _mark_pictures(study, found)
    return Planted(pd.DataFrame(behaviour), pictures, methods, certainty, turned)


_OTHERS_MARKED = "class named: others, marked"


def _behaviour(studied: Studied, kind: str) -> dict[str, float]:
    """In percent of the marked class's images and of others', with and without the mark."""
    own = studied.labels["original"] == planted_shortcut.CLASS
    plain, marked = (
        studied.predicted[name] == planted_shortcut.CLASS
        for name in ("original", f"{kind}: everywhere")
    )
    shares = {
        "accuracy, no marks": studied.right("original"),
        "accuracy, contaminated test": studied.right(f"{kind}: original"),
        "class named: own, unmarked": plain[own],
        "class named: own, marked": marked[own],
        "class named: others, unmarked": plain[~own],
        _OTHERS_MARKED: marked[~own],
    }
    return {name: 100 * values.double().mean().item() for name, values in shares.items()}


def _mark_pictures(study: Study, found: Mapping[Network, Studied], count: int = 6) -> Table:
    """Marked images, and what every method shows of the network that saw marks and of the one that
    never did; last, a painted picture of each."""
    from helpers.figures import heated

    sets = study.tests[MARKED]
    own = sets["original"].labels == planted_shortcut.CLASS
    both = {
        "taught": found[Network(MARKED)].marks[MARKED].tensors,
        "control": found[Network()].marks[MARKED].tensors,
    }
    methods = [name for name in planted_shortcut.METHODS if f"map: {name}" in both["taught"]]
    count = min(count, int(own.sum()), *(len(both["taught"][f"map: {m}"]) for m in methods))
    images = sets["original"].images[own][:count]
    names, lines = ["marked image"], [images]
    for method in methods:
        for who, shown in both.items():
            maps = shown[f"map: {method}"][:count].float() / 255
            lines.append(heated(images, maps))
            names.append(f"{method.split(': ')[-1]}, {who}")
    for who, shown in both.items():
        lines.append(shown["painted"][:count])
        names.append(f"painted picture, {who}")
    return torch.stack(lines), names, [""] * count
