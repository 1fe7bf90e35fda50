"""Paper 1's experiment: one network on four backgrounds, and what each network paints.

    study = assemble(course)
    networks = study.run(study.variants())
    networks[Variant("black")].pictures["grey"]  # one per class

Each network is trained, examined, made to paint and judged in one go, in a process of its own; all
four results are kept in the store. The judges are networks of another architecture that never see
what the others were trained on. "Targeted Background Removal Creates Interpretable Feature
Visualizations" trains four networks once and judges by eye; seeds, judges, starting images, robust
training and other masks go beyond it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from helpers import backgrounds, models, photos, saliency, training
from helpers import feature_visualization as fv
from helpers.budget import BackgroundStudy, Recipe
from helpers.claims import number, published, t_interval
from helpers.course import Course
from helpers.feature_visualization import Ascent
from helpers.imageset import ImageSet
from helpers.parallel import each
from helpers.scenes import abstract
from helpers.scenes.world import source_digest
from helpers.store import Result, Store, stage

BACKGROUNDS = tuple(backgrounds.TRAINING_SETS)  # standard, black, noise, mixed


@dataclass(frozen=True)
class Variant:
    """One network of the study."""

    background: str  # one of BACKGROUNDS
    seed: int = 0  # of the weights, the order, the noise and the half that is black
    init: str = "scratch"
    robust: bool = False  # small adversarial training
    masks: str = "true"  # what removes the background: true, grabcut, attribution, segmentation


@dataclass(frozen=True)
class Climb:
    """One way to paint: where from, and how."""

    start: str
    how: Ascent


def usual(study: BackgroundStudy) -> Ascent:
    """The paper's ascent, with the profile's weight, in fewer and longer steps than the default."""
    return Ascent(steps=40, rate=0.015, l2=study.l2)


def climbs(study: BackgroundStudy, variant: Variant) -> dict[str, Climb]:
    """What a network paints, see `usual`. The regularisers are shown on two networks only."""
    l2 = usual(study)
    length = study.norm * (3 * study.size**2) ** 0.5
    painted = {kind: Climb(kind, l2) for kind in fv.STARTS}
    painted["equal norm"] = Climb("grey", replace(l2, l2=0, norm=length))
    if variant.init == study.inits[0] and not variant.robust:
        painted["nothing"] = Climb("grey", replace(l2, l2=0))
    if variant in [Variant(b, init=study.inits[0]) for b in BACKGROUNDS[:2]]:
        painted |= {
            "jitter": Climb("grey", replace(l2, jitter=study.size // 16)),
            "noise added": Climb("grey", replace(l2, noise=0.1)),
            "smooth": Climb("grey", replace(l2, smoothness=study.l2)),
            "all three": Climb(
                "grey", replace(l2, jitter=study.size // 16, noise=0.1, smoothness=study.l2)
            ),
        }
    return painted


@dataclass(frozen=True)
class Studied:
    """Everything known of one network."""

    variant: Variant
    network: Result = field(repr=False)
    marks: dict[str, dict[str, Any]] = field(repr=False)  # by exam; "own": its training images
    pictures: dict[str, Tensor] = field(repr=False)  # by climb: (classes, 3, h, w), uint8
    starts: dict[str, Tensor] = field(repr=False)  # where each climb began
    scores: pd.DataFrame = field(repr=False)  # a row per climb and class


# ---------------------------------------------------------------- four stages, run in this order


@stage(version=1)
def fit_variant(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    variant: Variant,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one network. Returns its weights, and its history and how it fits its own images (the
    first 100 of each class, as they were shown to it, without augmentation)."""
    shown = study.shown_to(variant)
    model = models.build(config["architecture"], len(shown.class_names), seed=variant.seed)
    if variant.init == "pretrained":
        models.load_features(model, study.pretrained[0])
    history = training.fit(
        model,
        shown,
        Recipe.from_config(config["recipe"]),
        seed=variant.seed,
        checkpoint=work / "checkpoint.pt",
        device=study.device,
        progress=False,
    )
    own = training.evaluate(model, shown.examples(100), device=study.device)
    return model.state_dict(), {"history": asdict(history), "own": own}


@stage(version=1)
def examine(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    model: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Accuracy on every exam, and once more on validation with batch-norm statistics taken from
    unmodified training images. What is then still missing need not be the features': the weights
    have been fitted to other statistics. See `control`."""
    device = study.device
    marks = {name: training.evaluate(model, e, device=device) for name, e in study.exams.items()}
    renewed = with_statistics_of(model, study.train, device=device)
    marks["new statistics"] = training.evaluate(renewed, study.exams["validation"], device=device)
    return {}, marks


@stage(version=2)
def control(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    variant: Variant,
    model: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the exam with new statistics has to be read with, two marks more.

    "own, re-estimated": batch-norm statistics taken once more from the network's own training
    images must change nothing on these. "new last layer": weights and statistics as they are, and a
    new linear layer fitted to unmodified training images: what the features still tell of them.
    """
    shown, device = study.shown_to(variant), study.device
    again = with_statistics_of(model, shown, device=device)
    return {}, {
        "own, re-estimated": training.evaluate(again, shown.examples(100), device=device),
        "new last layer": _with_new_last_layer(study, model),
    }


@stage(version=1)
def untrained(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The floor of "new last layer": a network of random weights with fitting statistics."""
    classes = len(study.train.class_names)
    model = models.build(study.budget.architecture, classes, seed=0)
    model = with_statistics_of(model, study.train, device=study.device)
    return {}, _with_new_last_layer(study, model)


def _with_new_last_layer(study: Study, model: nn.Module) -> dict[str, Any]:
    """The validation mark of the network's features under a last layer for unmodified images.

    The layer is a linear discriminant with Ledoit and Wolf's shrinkage: nothing to choose.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # stored runs do without

    train, validation = study.train, study.exams["validation"]
    how = {"batch": 256, "device": study.device}
    seen = [training.features(model, images, **how).numpy() for images in (train, validation)]
    layer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(seen[0], train.labels)
    logits = torch.full((len(validation), len(train.class_names)), -1e4)  # classes never seen
    logits[:, layer.classes_] = torch.from_numpy(layer.predict_log_proba(seen[1])).float()
    return training.mark(logits, validation)


@stage(version=1)
def paint(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    variant: Variant,
    model: nn.Sequential,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One picture per class and climb, as uint8: what is judged is what is seen."""
    shown = study.shown_to(variant)
    classes, painted = len(shown.class_names), {}
    plans = climbs(study.budget, variant)
    for how in {climb.how for climb in plans.values()}:  # one batch for all that climb alike
        names = [name for name, climb in plans.items() if climb.how == how]
        begins = [fv.starts(plans[n].start, classes, shown, seed=variant.seed) for n in names]
        targets = torch.arange(classes, device=study.device).repeat(len(names))
        begun = torch.cat(begins).to(study.device)
        ended = fv.ascend(model, targets, begun, how, seed=variant.seed)
        for name, begin, end in zip(names, begins, ended.split(classes), strict=True):
            painted[name], painted[name + _START] = _as_bytes(end), _as_bytes(begin)
    return painted, {}


_START = ": start"


def _as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte().cpu()


@stage(version=2)
def score(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every score of every picture: per climb a tensor (classes, scores), and the scores' names."""
    painted, device = inputs["pictures"].tensors, study.device
    names = sorted(name for name in painted if not name.endswith(_START))  # read back in any order
    pictures, begins = (
        torch.cat([painted[name + end] for name in names]).to(device).float() / 255
        for end in ("", _START)
    )
    targets = torch.arange(len(study.real.class_names), device=device).repeat(len(names))
    found, few = {}, study.real.examples(30)
    for name, (judge, _) in study.judges.items():
        said = fv.judged(judge, pictures, targets)
        found |= {f"{what}: {name}": values for what, values in said.items()}
        found[f"distance: {name}"] = fv.feature_distance(judge, pictures, targets, few)
    painted_on = pictures - begins  # the start is not the network's: a mean or noise has a spectrum
    found["high frequency"] = fv.high_frequency(painted_on)
    found["total variation"] = fv.total_variation(painted_on)
    moved = (pictures - begins).abs().mean(1)
    for by in ("colour", "pattern"):
        try:
            traced = fv.origin(pictures, targets, few, painted=moved, by=by)
        except ValueError:  # a class with too few images to know its object and its backdrop
            found[f"object {by}"] = found["parts"] = torch.full((len(pictures),), torch.nan)
            continue
        found[f"object {by}"] = traced.on_object
        found["parts"] = (traced.parts[:, 1:] > 0.05).sum(1)
    table = torch.stack([values.float().cpu() for values in found.values()], 1)
    rows = table.split(len(study.real.class_names))
    return dict(zip(names, rows, strict=True)), {"scores": list(found)}


def with_statistics_of(
    model: nn.Module, images: ImageSet, *, device: torch.device | str = "cpu", most: int = 1_024
) -> nn.Module:
    """A copy of the network whose batch-norm means and variances are those of these images.

    Weights stay as they are. Networks without batch norm come back unchanged.
    """
    model = deepcopy(model).to(device)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most]
    batches = rows.tensor_split(max(1, len(rows) // 64))
    with torch.no_grad():
        update_bn((images[batch].to_float(device) for batch in batches), model)
    return model.eval()


# ---------------------------------------------------------------- the study


@dataclass(frozen=True)
class Study:
    """The images, the judges and the budget: everything that all networks share."""

    budget: BackgroundStudy
    root: Path  # of the store
    device: torch.device
    train: ImageSet
    exams: dict[str, ImageSet]  # "validation" and others, none of them seen in training
    real: ImageSet  # pictures are compared with these; no judge is trained on them
    judges: dict[str, tuple[nn.Module, Result]]
    pretrained: tuple[Mapping[str, Tensor], str] | None  # weights, and a key that names them
    left_out: dict[str, int] = field(default_factory=dict)  # classes with too few images
    masks: dict[str, Tensor] = field(default_factory=dict)  # other masks of the training images

    def variants(self) -> list[Variant]:
        """The four backgrounds: all seeds from the first init, one from others, and robust ones."""
        first, *others = self.budget.inits
        seeds = range(self.budget.seeds)
        made = [Variant(b, seed, first) for seed in seeds for b in BACKGROUNDS]
        made += [Variant(b, 0, init) for init in others for b in BACKGROUNDS]
        if self.budget.robust_radius is not None:
            made += [Variant(b, 0, first, robust=True) for b in BACKGROUNDS]
        return made

    def run(self, variants: Sequence[Variant]) -> dict[Variant, Studied]:
        """Study every variant that is not in the store yet, as many at once as there are cores."""
        store, found = Store(self.root), {}
        for variant in variants:
            with suppress(LookupError):
                found[variant] = _one(self, variant, store.recall)
        missing = [v for v in variants if v not in found]
        missing.sort(key=lambda v: not v.robust)  # the longest first: nobody waits at the end
        shown = {"unit": "network", "file": sys.stdout, "leave": False, "disable": not missing}
        done = each(_study, self, missing, device=self.device)
        found |= tqdm(done, total=len(missing), **shown)
        return {v: found[v] for v in variants}

    def shown_to(self, variant: Variant) -> ImageSet:
        """The training images as this network sees them."""
        train = self.train
        if variant.masks != "true":
            train = replace(train, masks=self.masks[variant.masks])
        return backgrounds.TRAINING_SETS[variant.background](train, variant.seed)

    def network(self, weights: Result) -> nn.Sequential:
        """A trained network in eval mode."""
        model = models.build(self.budget.architecture, len(self.train.class_names), seed=0)
        model.load_state_dict(weights.tensors)
        return model.to(self.device, memory_format=torch.channels_last).eval()


def assemble(course: Course) -> Study:
    """The profile's study: its images, and its judges and pretrained weights, trained if need be.

    Scenes: one class of each superclass; judges learn from worlds of their own. Photographs:
    classes with enough training images; judges learn from the validation photographs, so they are
    examined on the training ones.

    Raises:
        ValueError: the profile has no such study, or fewer than two classes have enough images.
    """
    budget = course.profile.backgrounds
    if budget is None:
        raise ValueError(f"profile {course.profile.name!r} has no budget for this study")
    scenes = course.profile.source == "scenes"
    train, validation = (course.images(split, budget.size) for split in ("train", "validation"))
    least = budget.least if course.limit is None else 2  # a quick look has few of everything
    classes = train.class_names[::2] if scenes else _frequent(train, least)
    few = {k: n for k, n in train.counts().items() if k not in classes} if not scenes else {}
    train, validation = train.only(classes), validation.only(classes)
    store = course.store
    if scenes:
        test, elsewhere = (course.images(s).only(classes) for s in ("test", "elsewhere"))
        home = torch.tensor(test.superclasses)[elsewhere.labels]  # family k is superclass k's home
        elsewhere, real = elsewhere[elsewhere.backdrops != home], test
        tutors = [course.images(s).only(classes) for s in ("judges", "judges elsewhere")]
    else:
        test, real = validation, train
        elsewhere = backgrounds.on_random_backgrounds(validation, seed=0)
        tutors = [validation, elsewhere]
    tiled, usable = backgrounds.tiled(tutors[0])
    tutors.append(replace(tutors[0], images=tiled)[usable])
    twenty = test.examples(20)  # of each class
    exams = {
        "validation": validation,
        "elsewhere": elsewhere.examples(20),
        "black": backgrounds.black(twenty),
        "blurred": replace(twenty, images=_blurred(twenty.images, budget.size / 64)),
        "noisy": replace(twenty, images=_grainy(twenty.images)),
    }
    judges, pretrained = _others(course, budget, tutors)
    shared = (budget, store.root, course.device, train, exams, real, judges, pretrained)
    return Study(*shared, left_out=few)


def _frequent(train: ImageSet, least: int) -> list[str]:
    counts = train.counts()
    if len(enough := [name for name, n in counts.items() if n >= least]) < 2:
        raise ValueError(
            f"the study needs two classes with {least} training images or more; here are "
            + ", ".join(f"{n} of {name}" for name, n in counts.items() if n)
        )
    return enough


def _blurred(images: Tensor, sigma: float) -> Tensor:
    rows = images.permute(0, 2, 3, 1).numpy()
    blurred = [
        cv2.GaussianBlur(row, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) for row in rows
    ]
    return torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2).contiguous()


def _grainy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 255 * 0.1 * noise).round().clamp(0, 255).byte()


JUDGES = ("standard", "random", "surroundings")  # what each judge's training images show


def _others(
    course: Course, budget: BackgroundStudy, tutors: Sequence[ImageSet]
) -> tuple[dict[str, tuple[nn.Module, Result]], tuple[Mapping[str, Tensor], str] | None]:
    """The networks beside the study: the judges (of another architecture, one each for images as
    they are, on random backgrounds, and for backgrounds alone), and weights that have seen other
    pictures, ImageNet's or abstract figures drawn here."""
    jobs, judges, pretrained = [], [], None
    if budget.judge_recipe is not None:
        jobs = [(budget.judge, t, training.settled(budget.judge_recipe)) for t in tutors]
    if budget.pretraining is not None:
        jobs.append((budget.architecture, other(course), training.settled(budget.pretraining)))
    common, made = (course.store.root, course.device, jobs), {}
    for job in range(len(jobs)):
        with suppress(LookupError):
            made[job] = _train(common, job, find_only=True)
    missing = [job for job in range(len(jobs)) if job not in made][::-1]  # pretraining is longest
    shown = {"unit": "network", "file": sys.stdout, "leave": False, "disable": not missing}
    made |= tqdm(each(_train, common, missing, device=course.device), total=len(missing), **shown)
    if budget.judge_recipe is None:
        backbone = course.pretrained(budget.judge)
        config = {"backbone": backbone.sha256}
        how = {"backbone": backbone.model, "device": course.device}
        ask = course.store.get_or_compute
        layers = [ask(training.fit_last_layer, config, {"train": t}, how) for t in tutors]
        judges = [models.Probe(backbone.model, **r.tensors) for r in layers]
        judges = [judge.to(course.device).eval() for judge in judges]
        judges = list(zip(judges, layers, strict=True))
    else:
        judges = [made[i] for i in range(len(tutors))]
    if budget.pretraining is not None:
        weights = made[len(jobs) - 1][1]
        pretrained = weights.tensors, weights.key
    elif budget.weights is not None:
        loaded = course.pretrained(budget.weights)
        pretrained = loaded.model.state_dict(), loaded.sha256
    return dict(zip(JUDGES, judges, strict=True)), pretrained


def other(course: Course) -> ImageSet:
    """The abstract figures that pretraining sees, half as many as there are training scenes."""
    count = min(course.profile.train // 2, course.limit or course.profile.train)
    config = {"count": count, "seed": 1_006, "size": course.profile.backgrounds.size}
    drawn = course.store.get_or_compute(draw_figures, config | {"source": source_digest()})
    return ImageSet(**drawn.tensors, class_names=abstract.CLASSES)


@stage(version=1)
def draw_figures(config: Mapping, inputs: Mapping, work: Path) -> tuple[dict, dict]:
    """Drawing takes seconds, reading back a fraction of one."""
    made = abstract.abstract_pictures(
        range(config["count"]), seed=config["seed"], size=config["size"]
    )
    return {"images": made.images, "labels": made.labels}, {}


def _train(
    common: tuple[Path, torch.device, list[tuple[str, ImageSet, Recipe]]],
    job: int,
    find_only: bool = False,
) -> tuple[nn.Module, Result]:
    root, device, jobs = common
    name, images, recipe = jobs[job]
    how = {"seed": 0, "device": device, "progress": False, "find_only": find_only}
    return training.trained(Store(root), name, images, None, recipe, **how)


def _study(study: Study, variant: Variant) -> Studied:
    return _one(study, variant, Store(study.root).get_or_compute)


def fitted(study: Study, variant: Variant, ask: Callable[..., Result]) -> Result:
    """The trained network; of the study only the budget and what it is trained on are needed.

    Args:
        ask: `Store.get_or_compute`, or what only looks there.
    """
    recipe = training.settled(study.budget.recipe)
    if variant.robust:
        recipe = replace(recipe, attack_radius=study.budget.robust_radius)
    config = asdict(variant) | {"architecture": study.budget.architecture}
    config["recipe"] = asdict(recipe)
    if variant.init == "pretrained":
        config["weights"] = study.pretrained[1]
    if variant.masks != "true":
        config["mask pixels"] = _digest(study.masks[variant.masks])
    how = {"study": study, "variant": variant}
    return ask(fit_variant, config, {"train": study.train}, how)


def _one(study: Study, variant: Variant, ask: Callable[..., Result]) -> Studied:
    """Train, examine, paint and score one network; each result is asked for by its key."""
    budget, how = study.budget, {"study": study, "variant": variant}
    network = fitted(study, variant, ask)

    model = study.network(network)
    inputs = {"network": network, "train": study.train}
    exams = ask(examine, {}, inputs | study.exams, {"study": study, "model": model})
    wanted = {name: asdict(climb) for name, climb in climbs(budget, variant).items()}
    controls = {}
    if (variant.init, variant.robust, variant.masks) == (budget.inits[0], False, "true"):
        asked = inputs | {"validation": study.exams["validation"]}
        controls = ask(control, {}, asked, how | {"model": model}).values
    config = {"climbs": wanted, "seed": variant.seed}
    pictures = ask(paint, config, inputs, how | {"model": model})
    judges = {name: result for name, (_, result) in study.judges.items()}
    inputs = {"pictures": pictures, "real": study.real}
    scores = ask(score, {}, inputs | judges, {"study": study})

    painted = {name: pictures.tensors[name] for name in wanted}  # in this order, always
    classes = range(len(study.train.class_names))
    tables = [
        pd.DataFrame(scores.tensors[climb].numpy(), columns=scores.values["scores"]).assign(
            climb=climb, label=classes
        )
        for climb in painted
    ]
    return Studied(
        variant=variant,
        network=network,
        marks=exams.values | controls | {"own": network.values["own"]},
        pictures=painted,
        starts={name: pictures.tensors[name + _START] for name in wanted},
        scores=pd.concat(tables, ignore_index=True).assign(**asdict(variant)),
    )


def marks(networks: Mapping[Variant, Studied]) -> pd.DataFrame:
    """Every exam of every network, a row each: `balanced` accuracy and `accuracy` in percent (the
    first counts classes alike, the second images), `loss`, `n`; "own" is its training images."""
    rows = [
        asdict(variant)
        | {"exam": exam, "loss": mark["loss"], "n": mark["n"]}
        | {kind: 100 * mark[kind] for kind in ("balanced", "accuracy")}
        for variant, studied in networks.items()
        for exam, mark in studied.marks.items()
    ]
    return pd.DataFrame(rows)


def unregularised(course: Course, study: Study, standard: Studied) -> tuple[Tensor, list[str]]:
    """The paintings of Fig. 2, without any regulariser, and their classes.

    In the paper profile a network trained on Tiny-ImageNet paints its first three classes (the
    paper's cat, person and potted plant are VOC's classes; Tiny-ImageNet has no person). Elsewhere
    it is the study's standard network.
    """
    if course.profile.name != "paper":
        return standard.pictures["nothing"][:3], list(study.train.class_names[:3])
    seen = photos.tiny_imagenet(course.data_root, limit=course.limit).images
    recipe = study.budget.recipe
    network, _ = training.trained(
        course.store, study.budget.architecture, seen, None, recipe, seed=0, device=course.device
    )
    start = fv.starts("grey", 3, seen).to(course.device)
    classes = torch.arange(3, device=course.device)
    pictures = fv.ascend(network, classes, start, Ascent(l2=0))
    return _as_bytes(pictures), list(seen.class_names[:3])


def summary(study: Study) -> str:
    """How many images of which classes there are, and which classes are missing where."""
    classes, counts = study.train.class_names, study.exams["validation"].counts()
    absent = ", ".join(name for name, n in counts.items() if not n) or "none"
    left = ", ".join(f"{name} ({n})" for name, n in study.left_out.items() if n) or "none"
    return (
        f"{len(study.train):,} training and {sum(counts.values()):,} validation images of "
        f"{len(classes)} classes: {', '.join(classes)}. Chance is {1 / len(classes):.0%}.\n"
        f"Classes with too few training images, left out: {left}.\n"
        f"Classes without a validation image: {absent}."
    )


def origin_of_real_images(study: Study) -> str:
    """Does `origin` tell objects from backdrops where the truth is known? In one line each."""
    few = study.exams["validation"].examples(5)
    inputs = {"few": few, "real": study.real}
    shares = Store(study.root).get_or_compute(trace_real, {}, inputs).values["on object"]
    return "\n".join(
        f"Origin by {by}: real objects {on:.0%} object, real backdrops {off:.0%}."
        for by, (on, off) in shares.items()
    )


@stage(version=1)
def trace_real(config: Mapping, inputs: Mapping, work: Path) -> tuple[dict, dict]:
    """The share that `origin` gives to the object: of real objects, and of real backdrops."""
    few, real, shares = inputs["few"], inputs["real"], {}
    for by in ("colour", "pattern"):
        shares[by] = [
            fv.origin(few.to_float(), few.labels, real, painted=painted.float(), by=by)
            .on_object.mean()
            .item()
            for painted in (few.masks, ~few.masks)
        ]
    return {}, {"on object": shares}


def real_scores(study: Study) -> dict[str, float]:
    """What the scores of paintings say of real images, in percent: the most one can hope for.

    Columns are those of `scores`: `named`, `right: <judge>`, `probability: <judge>`, `high
    frequency` and `object pattern` (of real objects); classes count alike.
    """
    judges = {name: result for name, (_, result) in study.judges.items()}
    found = Store(study.root).get_or_compute(
        score_real, {}, {"real": study.real} | judges, {"study": study}
    )
    said = {name: 100 * mean for name, mean in found.values["means"].items()}
    said["named"] = sum(said[f"right: {judge}"] for judge in JUDGES[:2]) / 2
    inputs = {"few": study.exams["validation"].examples(5), "real": study.real}
    traced = Store(study.root).get_or_compute(trace_real, {}, inputs).values["on object"]
    return said | {"object pattern": 100 * traced["pattern"][0]}


@stage(version=1)
def score_real(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Means over the real images, each class counting the same."""
    tables = []
    for rows in torch.arange(len(study.real)).split(256):
        part = study.real[rows]
        pictures, labels = part.to_float(study.device), part.labels.to(study.device)
        said = {"label": labels, "high frequency": fv.high_frequency(pictures)}
        for name, (judge, _) in study.judges.items():
            of_judge = fv.judged(judge, pictures, labels)
            said |= {f"{what}: {name}": of_judge[what] for what in ("right", "probability")}
        tables.append(pd.DataFrame({name: v.float().cpu().numpy() for name, v in said.items()}))
    return {}, {"means": pd.concat(tables).groupby("label").mean().mean().to_dict()}


def accuracy_of_untrained(study: Study, measure: str) -> float:
    """Validation accuracy (percent) of random features under a last layer, see `control`."""
    inputs = {"train": study.train, "validation": study.exams["validation"]}
    config = {"architecture": study.budget.architecture}
    found = Store(study.root).get_or_compute(untrained, config, inputs, {"study": study})
    return 100 * found.values[measure]


def table_one(main: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table I: mean and standard deviation over seeds, and the published row."""
    wanted = {
        "training (own backgrounds, %)": ("own", "accuracy"),
        "validation (unmodified, %)": ("validation", "accuracy"),
        "training loss": ("own", "loss"),
    }
    ours = {
        title: main[main.exam == exam].groupby("background")[column].agg(["mean", "std"])
        for title, (exam, column) in wanted.items()
    }
    paper = published("paper1_table1_accuracy").set_index("trained_on")
    paper.columns = pd.MultiIndex.from_product([["paper"], wanted])
    table = pd.concat(ours, axis=1).join(paper).loc[list(BACKGROUNDS)]
    return table.round({column: 3 if "loss" in " ".join(column) else 1 for column in table})


Panels = dict[str, dict[str, dict[str, list[float]]]]  # see `figures.dots_panels`


def exam_panels(main: pd.DataFrame, exams: Sequence[str], measure: str) -> Panels:
    """`accuracy` or `balanced` of every training run, by exam and background."""
    runs = main.groupby(["exam", "background"])[measure].apply(list)
    return {exam: {b: {"training runs": runs[exam, b]} for b in BACKGROUNDS} for exam in exams}


def exam_runs(main: pd.DataFrame, exam: str, measure: str) -> pd.DataFrame:
    """One exam: a row per seed, a column per background."""
    return main[main.exam == exam].pivot(index="seed", columns="background", values=measure)


def by_init(marks: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Validation accuracy (%) of the first plain networks: a row per init."""
    chosen = marks[(marks.exam == "validation") & (marks.seed == 0) & ~marks.robust]
    table = chosen.pivot(index="init", columns="background", values=measure)
    return table.loc[list(chosen.init.unique()), list(BACKGROUNDS)].round(1)


SHOWN = {  # title of the panel and column
    "named by judges (%): more is better": "named",
    "surroundings (%): more is more place": "probability: surroundings",
    "high frequencies (%): fewer is smoother": "high frequency",
    "object's patterns (%): more is more object": "object pattern",
}
TOLD = {  # title of a table's column, and the score
    "standard judge (%)": "right: standard",
    "shuffled-backdrop judge (%)": "right: random",
    "mean rank": "rank: standard",
    "distance to real": "distance: standard",
    "parts shown": "parts",
}


def score_panels(table: pd.DataFrame, columns: Mapping[str, str]) -> Panels:
    """A panel per score and a row per background, a dot per training run."""
    one = "training runs" if table.seed.nunique() > 1 else "classes"
    rows = {title: by_run(table, column) for title, column in columns.items()}
    return {
        title: {b: {one: list(r[b].dropna())} for b in BACKGROUNDS if r[b].notna().any()}
        for title, r in rows.items()
        if r.notna().any(axis=None)  # too few real images leave a distance unknown
    }


def spectra(
    study: Study, networks: Mapping[Variant, Studied], like: Variant, *, whole: bool = False
) -> dict[str, Tensor]:
    """Spectra (runs, bands): of what each network added to its starting images, and of the noise.

    The noise is the background of noise images, with nothing in front. With `whole` the starting
    image counts too, as it did by the first rule (`deviations.md`).
    """
    few = study.train[:64]
    nothing = replace(few, masks=torch.zeros_like(few.masks))
    static = backgrounds.noise(nothing, seed=0).to_float()
    bands = {"training noise": fv.spectrum(static).mean(0, keepdim=True)}
    for b in BACKGROUNDS:
        runs = [networks[replace(like, background=b, seed=s)] for s in range(study.budget.seeds)]
        painted = [
            torch.cat(
                [run.pictures[k].float() - (not whole) * run.starts[k].float() for k in fv.STARTS]
            )
            / 255
            for run in runs
        ]
        bands[b] = torch.stack([fv.spectrum(p).mean(0) for p in painted])
    return bands


def left_out(runs: Sequence[float] | np.ndarray | Tensor, unit: str = "points") -> str:
    """How the mean moves when one run at a time is left out: whether one run decides."""
    runs = np.asarray(runs, dtype=float)
    if len(runs) < 2:
        return "one run, which cannot be left out"
    means = (runs.sum() - runs) / (len(runs) - 1)
    places = 1 if unit else 2
    told = ", ".join(number(mean, places) for mean in means)
    return f"leaving out one training run at a time: {told} {unit}".rstrip()


def by_first_rule(whole: Mapping[str, Tensor]) -> dict[str, str]:
    """The claims about frequencies by their first rule, from `spectra` with `whole`."""
    noise = whole["training noise"].mean(0)
    unlike = {b: (whole[b] - noise).abs().sum(1) / 2 for b in BACKGROUNDS}
    detail = {b: 100 * whole[b][:, 8:].sum(1) for b in BACKGROUNDS}
    runs = {
        "p1-standard-mostly-noise": (detail["standard"] - detail["black"], 1),
        "p1-noise-resembles-its-backgrounds": (unlike["standard"] - unlike["noise"], 2),
    }
    return {claim: _first_verdict(*given) for claim, given in runs.items()}


def _first_verdict(runs: Tensor, places: int) -> str:
    """Mean, Student's interval and verdict of a quantity that is claimed to be above zero."""
    if len(runs) < 2:
        return "the first rule, starting image included, has no spread to judge by either"
    low, high = t_interval(runs.numpy())
    mean = runs.mean().item()
    verdict = "reproduced" if low > 0 else "partly reproduced" if mean > 0 else "not reproduced"
    told, between = number(mean, places), f"{number(low, places)}, {number(high, places)}"
    return f"by the first rule, starting image included: {told} [{between}], {verdict}"


def climbs_alike(study: Study, studied: Studied, factor: float) -> bool:
    """Does a network with doubled scores climb the same way, its L2 weight times `factor`?

    Compared are the directions of the slopes at its grey paintings, where the penalty counts.
    """
    model, how = study.network(studied.network), usual(study.budget)
    doubled = deepcopy(model)
    last = [m for m in doubled.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(2)
        last.bias.mul_(2)
    begin = (studied.pictures["grey"].float() / 255).to(study.device)
    targets, slopes = torch.arange(len(begin), device=study.device), []
    for painter, weight in ((model, how.l2), (doubled, factor * how.l2)):
        images = begin.clone().requires_grad_()
        score = fv.objective(painter, images, targets, replace(how, l2=weight)).sum()
        slope = torch.autograd.grad(score, images)[0].flatten(1)
        slopes.append(slope / slope.norm(dim=1, keepdim=True))
    return bool((slopes[0] - slopes[1]).norm(dim=1).max() < 1e-3)


def scores(networks: Mapping[Variant, Studied]) -> pd.DataFrame:
    """Every score of every picture, a row for each network, climb and class.

    Shares and probabilities are in percent. `named` is the mean over the first two judges of
    "the judge's first answer is the class".
    """
    table = pd.concat([studied.scores for studied in networks.values()], ignore_index=True)
    for column in table.select_dtypes("float").columns:
        share = column.startswith(("right", "probability", "high", "object"))
        table[column] = table[column].astype("float64") * (100 if share else 1)
    table["named"] = table[[f"right: {judge}" for judge in JUDGES[:2]]].mean(axis=1)
    return table


def by_run(table: pd.DataFrame, column: str, *climbs: str) -> pd.DataFrame:
    """A score's mean over classes and climbs (the three starts at equal weight, if none is named):
    a row per seed and a column per background. With one seed, a row per class."""
    chosen = table[table.climb.isin(climbs or fv.STARTS)]
    rows = "seed" if table.seed.nunique() > 1 else "label"
    return chosen.pivot_table(column, rows, "background").reindex(columns=list(BACKGROUNDS))


def spent(pictures: Tensor) -> str:
    """Root mean square of normalised paintings (backgrounds, classes, 3, h, w), by background."""
    seen = models.Normalised()(pictures.float() / 255)
    return ", ".join(f"{b} {seen[k].square().mean().sqrt():.2f}" for k, b in enumerate(BACKGROUNDS))


def painted(networks: Mapping[Variant, Studied], climb: str, like: Variant) -> Tensor:
    """(backgrounds, classes, 3, h, w): what the four networks painted that else are as `like`."""
    rows = [networks[replace(like, background=b)] for b in BACKGROUNDS]
    return torch.stack([row.pictures[climb] for row in rows])


def crossed(
    table: pd.DataFrame, columns: Mapping[str, str], climbs: Sequence[str] = fv.STARTS
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Each of these columns from each climb, plain beside robust: a value per training run."""
    runs = table.groupby(["climb", "background", "robust", "seed"])[list(columns.values())].mean()
    kinds = {"plain": False, "robust (one network)": True}
    return {
        f"{title}, from {climb}": {
            b: {
                name: list(runs.loc[climb, b, robust][column])
                for name, robust in kinds.items()
                if (climb, b, robust) in runs.index
            }
            for b in BACKGROUNDS
        }
        for climb in climbs
        for title, column in columns.items()
    }


# ---------------------------------------------------------------- masks that nobody drew


SEGMENTER = "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1"


def segmenter(course: Course) -> tuple[str, nn.Module] | None:
    """A segmentation network for photographs: from DATA_ROOT, or downloaded (13 MB) if it can be.

    Without its weights there is None, and a line that says where they belong.
    """
    if course.profile.source == "scenes":
        return None
    try:
        return SEGMENTER, models.pretrained_segmenter(SEGMENTER, torch_home=course.torch_home)
    except FileNotFoundError as error:
        print(f"No segmentation network: {error}")
        return None


def other_masks(
    study: Study, standard: Studied, segmenter: tuple[str, nn.Module] | None = None
) -> dict[str, Tensor]:
    """Masks of the training images from GrabCut, from the standard network's attribution and,
    where there is one (its name and itself), from a segmentation network."""
    config = {"segmenter": segmenter and segmenter[0]}
    inputs = {"train": study.train, "network": standard.network}
    how = {"study": study, "standard": standard, "segmenter": segmenter}
    found = Store(study.root).get_or_compute(find_masks, config, inputs, how).tensors
    order = ("grabcut", "attribution", "segmentation")  # a store gives tensors back in any order
    return {name: found[name] for name in order if name in found}


@stage(version=1)
def find_masks(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    standard: Studied,
    segmenter: tuple[str, nn.Module] | None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Masks (n, h, w) by how they were found, and GrabCut's share of failures."""
    train, model = study.train, study.network(standard.network)
    boxed = replace(train, boxes=backgrounds.boxes_of(train.masks))
    masks, failed = backgrounds.grabcut_masks(boxed)
    found = {"grabcut": masks}
    layer = saliency.last_maps(model, train[:1].to_float(study.device))
    maps = [
        saliency.grad_cam(model, part.to_float(study.device), part.labels.to(study.device), layer)
        for part in (train[rows] for rows in torch.arange(len(train)).split(256))
    ]
    found["attribution"] = backgrounds.attribution_masks(torch.cat(maps).cpu())
    if segmenter is not None:
        found["segmentation"] = backgrounds.segmented_masks(
            segmenter[1], train, device=study.device
        )
    return found, {"GrabCut failures": failed.float().mean().item()}


def _digest(masks: Tensor) -> str:
    return hashlib.sha256(masks.contiguous().numpy().tobytes()).hexdigest()[:20]
