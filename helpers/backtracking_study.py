"""Paper 3's study: where decisions lead back to, and whether that is the object.

"How you see me" (Gandikota & Mishra 2019). `assemble` brings networks and images with true masks;
`Study.run` backtracks all of them and scores the maps beside those of other methods, each stage
kept in the store, as many at once as there are cores. The algorithm is in `helpers.backtracking`,
the other methods and the scores are in `helpers.saliency`.

Scenes: the slim networks of paper 2, the test world. Photographs: a salient-object set for the
scores, VOC for whatever needs to know the classes. The network for that is the first one, of
photographs the one with new fully connected layers ("+ FC").
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from helpers import backtracking as bt
from helpers import claims, figures, models, photos, saliency, training
from helpers.budget import PathStudy, Recipe
from helpers.course import Course
from helpers.imageset import ImageSet
from helpers.parallel import each, own_first
from helpers.store import Keyed, Named, Result, Stage, Store, stage

# The choices that the paper leaves open, under the names the notebook uses.
RULES = {
    "default": bt.Rules(),
    "top 10 inputs": bt.Rules(fully_connected="topn"),
    "bias added (literal)": bt.Rules(fully_connected="literal"),
    "largest activation": bt.Rules(pixel="activation"),
    "all positive channels": bt.Rules(channel="positive"),
    "all of an average": bt.Rules(average="positive"),
}
METHODS = {  # what people use instead
    "Grad-CAM": saliency.grad_cam,
    "guided backpropagation": saliency.guided_backprop,
    "input gradient": saliency.input_gradient,
    "LRP": saliency.lrp,
}
BLIND = ("centre Gaussian", "colour contrast")  # know nothing of the network
OURS = "backtracking"


@dataclass(frozen=True)
class Network:
    """A trained classifier of the study."""

    title: str
    model: nn.Module = field(repr=False)
    made: Keyed = field(repr=False)  # what made its weights
    class_names: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Study:
    """Networks and images. Every set has masks."""

    budget: PathStudy
    root: Path  # of the store
    device: torch.device
    networks: dict[str, Network]  # the first is the one that all methods explain
    taught: str  # the network whose classes the labels of "taught" and the pairs are
    untaught: Network  # the same without one superclass or class
    left_out: tuple[str, ...]  # that class, or the classes of that superclass
    epochs: tuple[Network, ...]  # after each epoch of one training
    sets: dict[str, ImageSet]
    untrained: Network | None = None  # the network before the first epoch
    benchmark: bool = False  # the judged images are from the whole of MSRA-B, the paper's set
    # results that were read once
    known: dict[Any, Result] = field(default_factory=dict, repr=False, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"known": {}}  # other processes read what they need

    @property
    def main(self) -> Network:
        return next(iter(self.networks.values()))

    @property
    def growing(self) -> tuple[Network, ...]:
        """The network before its training, where that is known, and after each epoch."""
        return (*((self.untrained,) if self.untrained else ()), *self.epochs)

    @property
    def knowing(self) -> list[str]:
        """The networks that know the classes of the images with two objects."""
        names = self.sets[_TWO[0]].class_names
        return [title for title, n in self.networks.items() if n.class_names == names]

    def over_untrained(self, follow: Follow) -> tuple[Tensor, Tensor]:
        """Points on the object of every image by the untrained network, and how many more they are
        by this one."""
        before = self.on_object(replace(follow, network=self.untrained.title))
        return before, self.on_object(follow) - before

    def network(self, title: str) -> Network:
        """Raises: KeyError: no such network."""
        others = {n.title: n for n in (self.untaught, self.untrained, *self.epochs) if n}
        return (self.networks | others)[title]

    def run(self) -> None:
        """Compute whatever the store lacks, as many at once as there are cores."""
        store = Store(self.root)
        missing = [job for job in self.follows() if not _there(self, store, job)]
        # scores build on paths: where some are missing, nobody can tell yet which scores are there
        scores = self.judgements()
        missing += scores if missing else [job for job in scores if not _there(self, store, job)]
        done = each(_compute, self, own_first(missing), device=self.device)
        shown = {"desc": "maps", "file": sys.stdout, "leave": False, "disable": not missing}
        for _ in tqdm(done, total=len(missing), **shown):
            pass

    def follows(self) -> list[Follow]:
        """Every set of images that is backtracked: with which network, rules and start."""
        jobs = [
            Follow(title, images, rule)
            for title in self.networks
            for rule in self.rules(title)
            for images in ("choosing", "judged")
        ]
        jobs += [Follow(self.main.title, "blurred")]
        jobs += [Follow(t, images, start="label") for t in self.knowing for images in _TWO]
        jobs += [Follow(e.title, "taught", start="label") for e in self.growing]
        jobs += [Follow(title, "left out") for title in (self.untaught.title, self.taught)]
        if self.untrained:  # what the same walk finds without any training
            sets = ("choosing", "judged", "blurred", "left out")
            jobs += [Follow(self.untrained.title, images) for images in sets]
        return jobs

    def judgements(self) -> list[Judge]:
        """Every kind of map that is scored."""
        main = self.main.title
        jobs = [Judge(title, rule) for title in self.networks for rule in self.rules(title)]
        jobs += [Judge(title, "Grad-CAM") for title in self.networks]
        jobs += [Judge(main, method) for method in (*METHODS, *BLIND, *_AS_DEFAULT)]
        jobs += [Judge(self.untrained.title, "default")] if self.untrained else []
        return list(dict.fromkeys(jobs))

    def rules(self, title: str) -> list[str]:
        """The rules by which a network is backtracked: the first one by all that concern it.

        All positive channels lead to nearly every active node: seconds an image at 64 px are
        hours at 224.
        """
        if title != self.main.title:
            return ["default", _OF_AVERAGES]
        large = self.sets["judged"].images.shape[2] > 100
        left_out = (_OF_AVERAGES, "all positive channels") if large else (_OF_AVERAGES,)
        return [rule for rule in RULES if rule not in left_out]

    def pixels(self, follow: Follow) -> Float[Tensor, "n h w"]:
        """How many paths end at each pixel."""
        return _asked(self, Store(self.root), follow).tensors["pixels"]

    def on_object(self, follow: Follow, once: bool = False) -> Float[Tensor, " n"]:
        """Share of the backtracked pixels on the object, minus the object's share of the image, in
        percentage points; NaN where no path arrives.

        Args:
            once: count each pixel once, not as often as paths end there.
        """
        masks = self.sets[follow.images].masks
        share = share_on(self.pixels(follow), masks, once)
        return 100 * (share - masks.double().mean((1, 2)))

    def scores(self, judge: Judge) -> Result:
        """See `judge_maps`."""
        return _asked(self, Store(self.root), judge)


@dataclass(frozen=True)
class Follow:
    """Backtrack a set of images."""

    network: str
    images: str
    rule: str = "default"
    start: str = "predicted"  # or "label"


@dataclass(frozen=True)
class Judge:
    """Score the maps of a method, or of backtracking by a rule."""

    network: str
    method: str


_OF_AVERAGES = "all of an average"  # concerns networks that end in one
_AS_DEFAULT = ("each pixel once", "without strays")  # other uses of the same pixels
_TWO = ("pairs: first", "pairs: second")  # the same images, labelled as either object


def _question(study: Study, job: Follow | Judge, store: Store) -> tuple[Stage, dict, dict, dict]:
    """What a job asks the store: stage, config, inputs, and how to compute it."""
    network = study.network(job.network)
    how = {"model": network.model, "device": study.device}
    if isinstance(job, Follow):
        config = {"rules": asdict(RULES[job.rule]), "start": job.start}
        inputs = {"network": network.made, "images": study.sets[job.images]}
        return follow_paths, config, inputs, how | {"batch_size": study.budget.batch}
    # what takes many passes is asked of the first network only
    config = {"method": job.method, "thorough": job.network == study.main.title}
    config |= {"widths": study.budget.widths, "levels": study.budget.levels}
    inputs = {"network": network.made}
    for images in ("choosing", "judged"):
        inputs[images] = study.sets[images]
        rule = job.method if job.method in RULES else "default"
        inputs[f"paths {images}"] = _asked(study, store, Follow(job.network, images, rule))
    return judge_maps, config, inputs, how


def _asked(study: Study, store: Store, job: Follow | Judge) -> Result:
    if job not in study.known:
        study.known[job] = store.get_or_compute(*_question(study, job, store))
    return study.known[job]


def _there(study: Study, store: Store, job: Follow | Judge) -> bool:
    if job not in study.known and (found := store.find(*_question(study, job, store)[:3])):
        study.known[job] = found
    return job in study.known


def _compute(study: Study, job: Follow | Judge) -> None:
    _asked(study, Store(study.root), job)


@stage(version=1)
def follow_paths(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
    batch_size: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Pixels, the class each image started from, and the probability the network gives it.

    Config: rules, start ("predicted" or "label"). Inputs: network, images.
    """
    images, rules, made = inputs["images"], bt.Rules(**config["rules"]), []
    for rows in torch.arange(len(images)).split(batch_size):
        seen = bt.record(model.to(device), images[rows].to_float(device))
        start = images.labels[rows].to(device)
        start = seen.logits.argmax(1) if config["start"] == "predicted" else start
        chances = seen.logits.softmax(1).gather(1, start[:, None])[:, 0]
        paths = seen.backtrack(start, rules=rules)
        made.append([t.cpu() for t in (paths.pixels.float(), start, chances)])
    pixels, start, chances = (torch.cat(parts) for parts in zip(*made, strict=True))
    return {"pixels": pixels, "start": start, "probability": chances}, {}


@stage(version=2)
def judge_maps(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Scores of one method's maps. The width of a Gaussian over the map and the threshold are those
    with the best mean F_beta on the choosing images; all else is about the judged ones.

    Every method starts from the class the network predicts, and may be smoothed by every width;
    maps other than points may also stay as they are.

    Config: method, widths, levels, and whether it is thorough: with deletion, insertion and the
    likeness to random weights. Inputs: network, choosing, judged, and the paths of both.
    """
    method, side = config["method"], inputs["judged"].images.shape[2]
    widths = [side * width for width in config["widths"]]
    widths = widths if method not in METHODS and method not in BLIND else [0.0, *widths]
    raw = {}
    try:
        for images in ("choosing", "judged"):
            paths = inputs[f"paths {images}"].tensors
            raw[images] = _raw_maps(method, model.to(device), inputs[images], paths, device)
    except ValueError as error:  # LRP and guided backpropagation do not know every layer
        return {}, {"impossible": str(error)}
    weigh, truth = method != "each pixel once", inputs["choosing"].masks
    best = (-1.0, 0.0, 0.0)
    for width in widths:
        maps = _smoothed(raw["choosing"], width, weigh)
        level = saliency.choose_threshold(maps, truth, config["levels"])
        score = saliency.overlap(saliency.thresholded(maps, level), truth)["f_beta"].mean().item()
        best = max(best, (score, width, level))
    _, width, level = best
    images, truth = inputs["judged"], inputs["judged"].masks
    maps = _smoothed(raw["judged"], width, weigh)
    sharp = _smoothed(raw["judged"], bt.SHARP * side, weigh)
    chosen = saliency.thresholded(maps, level)
    start = inputs["paths judged"].tensors["start"]
    tensors = saliency.overlap(chosen, truth) | {
        "pointing": saliency.pointing_game(maps, truth),
        "energy": saliency.energy_inside(maps, truth),
        "maps": (255 * maps).round().byte(),
        "sharp": (255 * sharp).round().byte(),
        "chosen": chosen,
    }
    if config["thorough"]:
        some = torch.linspace(0, len(images) - 1, min(_FEW, len(images))).long()
        few, start = images[some].to_float(device), start[some].to(device)
        shown = sharp[some].to(device)  # the order of single pixels, not of what scores best
        curves = saliency.deletion_insertion(model.to(device), few, start, shown, steps=10)
        for name, curve in zip(("deletion", "insertion"), curves, strict=True):
            tensors[name] = saliency.area_under(curve).cpu()
            tensors[f"{name} curve"] = curve.mean(0).cpu()
        tensors["stable"] = _stability(method, model, few, start, raw["judged"][some])
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    return tensors, {"pooled": saliency.pooled(chosen, truth), "width": width, "level": level}


def _raw_maps(
    method: str,
    model: nn.Module,
    images: ImageSet,
    paths: Mapping[str, Tensor],
    device: torch.device,
) -> Float[Tensor, "n h w"]:
    """A method's maps before any smoothing, on the CPU."""
    n, _, h, w = images.images.shape
    if method == "centre Gaussian":
        return saliency.centre_gaussian(n, h, w)
    if method == "colour contrast":
        return saliency.colour_contrast(images.to_float())
    if method in METHODS:
        return _attributed(method, model, images.to_float(device), paths["start"].to(device))
    return bt.without_strays(paths["pixels"]) if method == "without strays" else paths["pixels"]


def _attributed(method: str, model: nn.Module, images: Tensor, start: Tensor) -> Tensor:
    layer = {"layer": saliency.last_maps(model, images)} if method == "Grad-CAM" else {}
    return METHODS[method](model, images, start, **layer, batch_size=32).cpu()


def _smoothed(maps: Tensor, width: float, weigh: bool) -> Tensor:
    return bt.attention(maps, width, weigh) if width else maps


def _stability(
    method: str, model: nn.Module, images: Tensor, start: Tensor, maps: Tensor
) -> Float[Tensor, " n"]:
    """Rank correlation of the maps with those of the same network with random weights: a map of
    the network has to change (Adebayo 2018). Both are smoothed alike, since points hardly ever
    coincide."""
    if method in BLIND:
        return torch.ones(len(maps))
    other = saliency.randomised(model, seed=0)
    if method in METHODS:
        theirs = _attributed(method, other, images, start)
    else:
        theirs = bt.backtrack(other, images, start, RULES.get(method)).float().cpu()
        theirs = bt.without_strays(theirs) if method == "without strays" else theirs
    width, weigh = bt.SHARP * images.shape[2], method != "each pixel once"
    both = [bt.attention(of, width, weigh) for of in (maps, theirs)]
    return saliency.rank_similarity(*both).float()


_FEW = 45  # images for what takes many passes through the network


def share_on(
    pixels: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"], once: bool = False
) -> Float[Tensor, " n"]:
    """Share of the backtracked pixels inside the masks; NaN for an image without any."""
    weights = (pixels > 0).double() if once else pixels.double()
    return (weights * masks).sum((1, 2)) / weights.sum((1, 2))


# ---------------------------------------------------------------- networks and images


def assemble(course: Course) -> Study:
    """Train or load the networks and choose the images.

    Raises:
        ValueError: the profile has no such study.
        helpers.photos.MissingDataset: photographs that are not there.
    """
    budget = course.profile.paths
    if budget is None:
        raise ValueError(f"profile {course.profile.name!r} has no budget for this study")
    if course.limit:
        few = {k: min(course.limit, getattr(budget, k)) for k in ("choosing", "judged", "pairs")}
        budget = replace(budget, **few)
    made = (_scenes if course.profile.source == "scenes" else _photographs)(course, budget)
    labelled = made.pop("labelled")
    first, second = two_objects(labelled, budget.pairs)
    judged = made["sets"]["judged"]
    sets = made["sets"] | {
        "blurred": replace(judged, images=_blurred(judged.images)),
        "taught": labelled.evenly(budget.judged),
        "pairs: first": first,
        "pairs: second": second,
        "left out": labelled.only(made["left_out"]).evenly(budget.choosing),
    }
    return Study(budget, course.store.root, course.device, **made | {"sets": sets})


def _scenes(course: Course, budget: PathStudy) -> dict[str, Any]:
    train, test = course.images("train"), course.images("test")
    recipe = training.settled(budget.recipe)
    out = [n for n, k in zip(train.class_names, train.superclasses, strict=True) if k == 0]
    rest = train.only([name for name in train.class_names if name not in out])
    (title, architecture), *others = budget.networks
    jobs = [(name, train, recipe) for _, name in others]
    trained = training.all_trained(course.store, jobs, device=course.device)
    untrained = [
        (title, models.build(architecture, len(images.class_names), seed=0), images)
        for images in (train, rest)
    ]
    epochs, untaught = _through_epochs(course, untrained, recipe)
    return {
        "networks": {
            title: replace(epochs[-1], title=title),
            **{
                name: Network(name, *made, train.class_names)
                for (name, _), made in zip(others, trained, strict=True)
            },
        },
        "taught": title,
        "untaught": replace(untaught[-1], title=f"{title}, untaught"),
        "left_out": tuple(out),
        "epochs": epochs,
        "untrained": _before(untrained[0]),
        "sets": {
            "choosing": course.images("validation").evenly(budget.choosing),
            "judged": test.evenly(budget.judged),
        },
        "labelled": test,
    }


def _photographs(course: Course, budget: PathStudy) -> dict[str, Any]:
    loaded = photos.saliency(photos.find(course.data_root, "msra_b"), size=course.profile.size)
    print(f"salient objects: {loaded}")
    shuffled = torch.randperm(len(loaded.images), generator=torch.Generator().manual_seed(0))
    cut = min(budget.choosing, len(shuffled) // 3)
    train, validation = course.images("train"), course.images("validation")
    counts = validation.counts()
    out = max(counts, key=counts.get)
    rest = train.only([name for name in train.class_names if name != out])
    networks, untrained = {}, []
    for title, weights in budget.networks:
        found = course.pretrained(weights)
        if not found.official:
            print(f"{found.file} is not the official file: SHA-256 {found.sha256[:16]}...")
        if title.endswith("+ FC"):
            untrained = [
                (f"{title} {found.sha256}", _with_top(found.model, images), images)
                for images in (train, rest)
            ]
            networks[title] = None  # keeps its place
        else:
            made, names = Named(found.sha256), tuple(found.categories)
            networks[title] = Network(title, found.model, made, names)
    epochs, untaught = _through_epochs(course, untrained, budget.recipe)
    taught = next(title for title, network in networks.items() if network is None)
    networks[taught] = replace(epochs[-1], title=taught)
    return {
        "networks": networks,
        "taught": taught,
        "untaught": replace(untaught[-1], title=f"{taught}, untaught"),
        "left_out": (out,),
        "epochs": epochs,
        "untrained": _before(untrained[0]),
        "benchmark": len(loaded.images) == 5_000,
        "sets": {
            "choosing": loaded.images[shuffled[:cut]],
            "judged": loaded.images[shuffled[cut : cut + budget.judged]],
        },
        "labelled": validation,
    }


def _before(job: tuple[str, nn.Module, ImageSet]) -> Network:
    """The network that a training starts from."""
    name, model, train = job
    network = copy.deepcopy(model).eval()
    return Network("untrained", network, Named(f"{name} {model} seed 0"), train.class_names)


def _with_top(model: nn.Module, images: ImageSet) -> nn.Module:
    return models.with_fully_connected(model, len(images.class_names), seed=0)


def _through_epochs(
    course: Course, untrained: Sequence[tuple[str, nn.Module, ImageSet]], recipe: Recipe
) -> list[tuple[Network, ...]]:
    """Each network after each epoch of its training; they are trained side by side."""
    common = (course.store.root, course.device, recipe)
    missing = [job for job in untrained if _fit_epochs(common, job, find_only=True) is None]
    shown = {"desc": "training", "file": sys.stdout, "leave": False, "disable": not missing}
    done = each(_fit_epochs, common, missing, device=course.device)
    for _ in tqdm(done, total=len(missing), **shown):
        pass
    networks = []
    for name, model, images in untrained:
        made = _fit_epochs(common, (name, model, images), find_only=True)
        states = [{} for _ in range(recipe.epochs)]
        for key, value in made.tensors.items():
            epoch, weight = key.split("/", 1)
            states[int(epoch) - 1][weight] = value
        after = []
        for epoch, state in enumerate(states, 1):
            network = copy.deepcopy(model).eval()
            network.load_state_dict(network.state_dict() | state)
            key = Named(f"{made.key} {epoch}")
            after.append(Network(f"epoch {epoch}", network, key, images.class_names))
        networks.append(tuple(after))
    return networks


def _fit_epochs(
    common: tuple[Path, torch.device, Recipe],
    job: tuple[str, nn.Module, ImageSet],
    find_only: bool = False,
) -> Result | None:
    (root, device, recipe), (name, model, train) = common, job
    config = {"network": name, "layers": repr(model), "recipe": asdict(recipe), "seed": 0}
    if find_only:
        return Store(root).find(training.fit_epochs, config, {"train": train})
    how = {"model": model, "device": device}
    Store(root).get_or_compute(training.fit_epochs, config, {"train": train}, how)
    return None


def _blurred(images: Tensor) -> Tensor:
    """Gaussian blur of 1/32 of the side, as an image out of focus (Fig. 10a)."""
    import cv2

    sigma = images.shape[2] / 32
    done = [cv2.GaussianBlur(i.permute(1, 2, 0).numpy(), (0, 0), sigma) for i in images]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).contiguous()


def two_objects(images: ImageSet, count: int, least: float = 0.04) -> tuple[ImageSet, ImageSet]:
    """Images with two objects of different classes, neither in front of the other: an object is
    cut out of one image and pasted into another, where it covers only background.

    Args:
        images: with masks.
        count: at most so many, in the images' order.
        least: share of the image that each object covers at least.

    Returns:
        The same images twice: labels and masks of the one that was there, and of the pasted one.

    Raises:
        ValueError: no two objects fit.
    """
    masks, n = images.masks, len(images)
    flat = masks.flatten(1).float()
    wide = torch.nn.functional.max_pool2d(masks.float(), 5, 1, 2).flatten(1)
    group = images.superclass_labels if images.superclasses else images.labels
    large = flat.mean(1) >= least
    pairs, free = [], large.clone()
    for here in range(n):  # each image once, as ground or as paste
        if not free[here] or len(pairs) == count:
            continue
        apart = wide @ flat[here] == 0
        others = (apart & free & (group != group[here])).nonzero()[:, 0]
        if len(others):
            pairs.append((here, int(others[0])))
            free[[here, int(others[0])]] = False
    if not pairs:
        raise ValueError(f"no two of {n} objects fit into one image")
    ground, paste = (torch.tensor(rows) for rows in zip(*pairs, strict=True))
    both = torch.where(masks[paste][:, None], images.images[paste], images.images[ground])
    first, second = images[ground], images[paste]
    there = {"images": both, "backdrops": first.backdrops}
    return replace(first, **there), replace(second, **there)


# ---------------------------------------------------------------- tables


_MEASURES = ("precision", "recall", "f1", "f_beta", "iou", "pointing", "deletion", "insertion")


_OVERLAP = {"precision": "precision", "recall": "recall", "f_beta": "F_beta"}


def named(study: Study, judge: Judge) -> str:
    """What a row of a table is called."""
    if judge.method in METHODS or judge.method in BLIND:
        return judge.method
    return OURS if judge.method == "default" else f"{OURS}, {judge.method}"


def compared(study: Study, judges: Sequence[Judge]) -> pd.DataFrame:
    """A row per kind of map: mean scores over the judged images, and how alike the maps of the
    network with random weights are; a method that cannot explain the network has empty cells."""
    rows = {}
    for judge in judges:
        made = study.scores(judge)
        means = {
            name: made.tensors[name].double().nanmean().item() if made.tensors else np.nan
            for name in (*_MEASURES, "stable")
        }
        rows[named(study, judge)] = means
    table = pd.DataFrame(rows).T
    return table.rename(columns={"f_beta": "F_beta", "f1": "F1", "iou": "IoU", "stable": "random"})


def rivals(study: Study) -> list[Judge]:
    """All methods on the first network."""
    return [Judge(study.main.title, m) for m in ("default", *METHODS, *BLIND)]


def leads(study: Study, network: str, measure: str) -> pd.DataFrame:
    """How far backtracking is ahead of each other method in a measure, over the judged images:
    mean and 95 % interval (bootstrap)."""
    ours, rows = study.scores(Judge(network, "default")).tensors[measure], {}
    for method in (*METHODS, *BLIND):
        theirs = study.scores(Judge(network, method)).tensors
        if theirs:
            ahead = (ours - theirs[measure]).double().numpy()
            low, high = claims.bootstrap_interval(ahead)
            rows[method] = {"ahead by": ahead.mean(), "low": low, "high": high}
    return pd.DataFrame(rows).T.sort_values("ahead by")


def removal_curves(study: Study, which: str) -> dict[str, list[float]]:
    """Mean probability, in percent, as pixels are removed ("deletion") or brought back
    ("insertion") in the order of each method's map, in equal steps from none to all."""
    curves = {}
    for judge in rivals(study):
        if made := study.scores(judge).tensors:
            curves[named(study, judge)] = (100 * made[f"{which} curve"]).tolist()
    return curves


def boxes_found(study: Study) -> pd.DataFrame:
    """Boxes around the extreme pixels (section IV) beside the objects' own: mean overlap (IoU) and
    share of images above .5, from all pixels, without strays, and from the saliency map."""
    masks, follow = study.sets["judged"].masks, Follow(study.main.title, "judged")
    pixels, rows = study.pixels(follow), {}
    chosen = study.scores(Judge(study.main.title, "default")).tensors["chosen"]
    true = bt.bounding_box(masks.float())
    for name, points in {
        "all important pixels": pixels,
        "without strays": bt.without_strays(pixels),
        "saliency map": chosen.float(),
        "the whole image": torch.ones_like(pixels),
    }.items():
        found = bt.bounding_box(points)
        corner, other = (
            torch.maximum(found[:, :2], true[:, :2]),
            torch.minimum(found[:, 2:], true[:, 2:]),
        )
        common = (other - corner).clamp(min=0).prod(1)
        areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (found, true)]
        iou = common / (areas[0] + areas[1] - common)
        rows[name] = {"IoU": iou.mean().item(), "above .5": (iou > 0.5).double().mean().item()}
    return pd.DataFrame(rows).T


def overview(study: Study) -> pd.DataFrame:
    """The sets of images: what each is for, how many images, and the mean share of the object."""
    uses = {
        "choosing": "choose Gaussians and thresholds",
        "judged": "everything that is reported",
        "blurred": "the judged ones, out of focus",
        "taught": "from their own class, through the epochs",
        _TWO[0]: "two objects in one image",
        "left out": f"{' and '.join(study.left_out)}: unseen by one network",
    }
    rows = {
        name: {
            "for": what,
            "images": len(study.sets[name]),
            "object, %": 100 * study.sets[name].masks.double().mean().item(),
        }
        for name, what in uses.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def accuracies(study: Study) -> dict[str, float]:
    """Share of the labelled images, in percent, that each network which knows their classes gets
    right; of the untaught one on the classes it knows."""
    store, found = Store(study.root), {}
    for network in (*(study.networks[title] for title in study.knowing), study.untaught):
        images = study.sets["taught"].only(
            [name for name in study.sets["taught"].class_names if name in network.class_names]
        )
        logits = training.answers(store, network.made, network.model, images, device=study.device)
        right = logits.argmax(1) == images.labels
        found[network.title] = 100 * right.double().mean().item()
    return found


def table_one(study: Study, title: str) -> pd.DataFrame:
    """Table I: mean over the images with its interval, over all pixels, and the published row."""
    made, rows = study.scores(Judge(title, "default")), {}
    published = claims.published("paper3_table1_msra_b").set_index("measure")["value"]
    measures = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
    for name, shown in (measures | {"f_beta": "F_beta (beta² = .3)", "iou": "IoU"}).items():
        values = made.tensors[name].double().numpy()
        low, high = claims.bootstrap_interval(values)
        rows[shown] = {
            "per image": values.mean(),
            "low": low,
            "high": high,
            "all pixels": made.values["pooled"][name],
            "paper": published.get({"f1": "f_score"}.get(name, name), np.nan),
        }
    return pd.DataFrame(rows).T


def by_rule(study: Study) -> pd.DataFrame:
    """What the paper leaves open, on the first network: distinct pixels an image, their share on
    the object beyond the object's area, images without any, and F_beta."""
    rows = {}
    for judge in study.judgements():
        if judge.network != study.main.title or judge.method in (*METHODS, *BLIND):
            continue
        follow = Follow(judge.network, "judged", _rule_of(judge.method))
        pixels = study.pixels(follow)
        if judge.method == "without strays":
            pixels = bt.without_strays(pixels)
        once = judge.method == "each pixel once"
        masks = study.sets["judged"].masks
        beyond = share_on(pixels, masks, once) - masks.double().mean((1, 2))
        made = study.scores(judge)
        rows[judge.method] = {
            "pixels": (pixels > 0).sum((1, 2)).double().mean().item(),
            "points on the object": 100 * beyond.nanmean().item(),
            "images without pixels": int(beyond.isnan().sum()),
            "Gaussian, px": made.values["width"],
            **{shown: made.tensors[k].mean().item() for k, shown in _OVERLAP.items()},
            "random": made.tensors["stable"].nanmean().item(),
        }
    return pd.DataFrame(rows).T


def by_network(study: Study) -> pd.DataFrame:
    """The same for every network, beside Grad-CAM's F_beta."""
    rows = {}
    listed = [*study.networks, *([study.untrained.title] if study.untrained else [])]
    for title in listed:
        cam = study.scores(Judge(title, "Grad-CAM")).tensors if title in study.networks else {}
        others = title in study.networks and title != study.main.title
        for rule in study.rules(title) if others else ["default"]:
            follow = Follow(title, "judged", rule)
            made = study.scores(Judge(title, rule)).tensors
            rows[title if rule == "default" else f"{title}, {rule}"] = {
                "pixels": (study.pixels(follow) > 0).sum((1, 2)).double().mean().item(),
                "points on the object": study.on_object(follow).nanmean().item(),
                "F_beta": made["f_beta"].mean().item(),
                "pointing": made["pointing"].mean().item(),
                "Grad-CAM: F_beta": cam["f_beta"].mean().item() if cam else np.nan,
                "Grad-CAM: pointing": cam["pointing"].mean().item() if cam else np.nan,
            }
    return pd.DataFrame(rows).T


def _rule_of(method: str) -> str:
    return method if method in RULES else "default"


def alternate(study: Study, title: str) -> Float[np.ndarray, " n"]:
    """Of images with two objects: the share on an object when paths start from its class, minus
    the same from the other's class, in points; the mean of both objects of each image."""
    shares = torch.zeros(2, 2, len(study.sets[_TWO[0]]), dtype=torch.float64)  # object, class
    for k, started in enumerate(_TWO):
        pixels = study.pixels(Follow(title, started, start="label"))
        for which, images in enumerate(_TWO):
            shares[which, k] = share_on(pixels, study.sets[images].masks)
    gained = (shares[0, 0] - shares[0, 1] + shares[1, 1] - shares[1, 0]) / 2
    return 100 * gained[gained.isfinite()].numpy()


def shared_paths(study: Study, title: str) -> float:
    """How much of the paths from one object's class ends where those from the other's do: mean
    common share of images with two objects, in percent."""
    pair = [study.pixels(Follow(title, images, start="label")) for images in _TWO]
    shares = [p / p.sum((1, 2), keepdim=True) for p in pair]
    return 100 * torch.minimum(*shares).sum((1, 2)).nanmean().item()


def learning(study: Study) -> Float[np.ndarray, "n stages"]:
    """Points on the object of each image, from its class: before the training and after each
    epoch, see `Study.growing`."""
    shares = [study.on_object(Follow(e.title, "taught", start="label")) for e in study.growing]
    shares = torch.stack(shares, 1)
    return shares[shares.isfinite().all(1)].numpy()


def finite(values: Tensor) -> Float[np.ndarray, " m"]:
    """The values of images that have any, as claims take them."""
    return values[values.isfinite()].double().numpy()


def costs(study: Study, batches: int = 3, repeats: int = 2) -> pd.DataFrame:
    """Time of backtracking in forward passes, for several batches of each network, measured side
    by side: the shortest of some repeats each. "recording" is a forward pass that remembers."""
    size, images, rows = study.budget.batch, study.sets["judged"], []
    for title, network in study.networks.items():
        for k in range(batches):
            picked = torch.arange(k * size, (k + 1) * size) % len(images)
            given = images[picked].to_float(study.device)
            taken = [_costs_of(network.model.to(study.device), given) for _ in range(repeats)]
            forward, recording, back = np.min(taken, 0)
            rows.append(
                {
                    "network": title,
                    "forward, ms an image": 1e3 * forward / size,
                    "recording": recording / forward,
                    "backtracking": back / forward,
                }
            )
    return pd.DataFrame(rows)


def _costs_of(model: nn.Module, images: Tensor) -> tuple[float, float, float]:
    """Seconds of a forward pass, of one that is recorded, and of backtracking."""
    images = images.contiguous(memory_format=torch.channels_last)
    with models.frozen(model), torch.inference_mode():
        forward = _clocked(lambda: model(images))
    seen: list[bt.Recording] = []
    recording = _clocked(lambda: seen.append(bt.record(model, images)))
    start = seen[0].logits.argmax(1)
    return forward, recording, _clocked(lambda: seen[0].backtrack(start))


def _clocked(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def by_part(study: Study, title: str) -> pd.DataFrame:
    """Scenes only: for each class the part that most paths end on, with the share of the object's
    paths there and the part's share of the object's area; empty where parts are unknown."""
    images = study.sets["judged"]
    if images.parts is None:
        return pd.DataFrame()
    pixels = study.pixels(Follow(title, "judged"))
    pixels = pixels / pixels.sum((1, 2), keepdim=True).clamp(min=1)  # each image counts the same
    rows = []
    for label, name in enumerate(images.class_names):
        own = images.labels == label
        if not own.any():
            continue
        parts, on = images.parts[own].flatten().long(), images.masks[own].flatten()
        paths = torch.zeros(len(images.part_names)).index_add_(
            0, parts[on], pixels[own].flatten()[on]
        )
        areas = parts[on].bincount(minlength=len(paths)).float()
        best = int(paths.argmax())
        rows.append(
            {
                "class": name,
                "part": images.part_names[best],
                "paths": 100 * (paths[best] / paths.sum()).item(),
                "area": 100 * (areas[best] / areas.sum()).item(),
            }
        )
    table = pd.DataFrame(rows).set_index("class")
    table["ratio"] = table["paths"] / table["area"]
    return table.sort_values("ratio", ascending=False)


# ---------------------------------------------------------------- pictures


Pictures = tuple[Tensor, list[str], list[str]]  # (rows, columns, 3, h, w), and their names


def some_rows(study: Study, count: int, images: str = "judged") -> Int64[Tensor, " count"]:
    """The first image of as many classes; where there are fewer, the first ones of each."""
    labels = study.sets[images].labels
    kinds = labels.unique()
    if len(kinds) < count:
        of_each = [(labels == k).nonzero()[:, 0] for k in kinds]
        each = -(-count // len(kinds))
        return torch.cat([rows[:each] for rows in of_each])[:count]
    spread = kinds[torch.linspace(0, len(kinds) - 1, count).long()]
    return torch.stack([(labels == k).nonzero()[0, 0] for k in spread])


def titles(study: Study, network: str, follow: Follow, rows: Tensor) -> list[str]:
    """What the paths of these images started from: the class and its probability."""
    made = _asked(study, Store(study.root), follow).tensors
    names = study.network(network).class_names
    return [f"{names[int(made['start'][i])]} {made['probability'][i]:.0%}" for i in rows.tolist()]


def steps(study: Study, rows: Tensor) -> tuple[Pictures, list[list[str]]]:
    """Figs. 1, 6, 7 and 8: image, important pixels, attention, saliency map, true object."""
    follow = Follow(study.main.title, "judged")
    images, made = study.sets["judged"][rows], study.scores(Judge(study.main.title, "default"))
    pixels = study.pixels(follow)[rows]
    box = bt.bounding_box(bt.without_strays(pixels))
    boxed = [figures.framed(i, b[None], "orange") for i, b in zip(images.images, box, strict=True)]
    columns = {
        "image": images.images,
        "important pixels": dotted(images.images, pixels),
        "attention": figures.heated(images.images, made.tensors["maps"][rows] / 255),
        "saliency map": cut(images.images, made.tensors["chosen"][rows]),
        "box": torch.stack(boxed),
        "true object": cut(images.images, images.masks),
    }
    said = titles(study, study.main.title, follow, rows)
    marks = [[said[i], *[""] * (len(columns) - 1)] for i in range(len(rows))]
    names = [images.class_names[k] for k in images.labels.tolist()]
    return (torch.stack(list(columns.values()), 1), names, list(columns)), marks


def dotted(
    images: UInt8[Tensor, "n 3 h w"], pixels: Float[Tensor, "n h w"]
) -> UInt8[Tensor, "n 3 h w"]:
    """Important pixels over the dimmed grey picture: from orange to yellow the more paths end
    there. In large pictures a point covers its neighbours, so that it can be seen."""
    reach = 2 * (images.shape[2] // 150) + 1
    points = torch.nn.functional.max_pool2d(pixels.float(), reach, 1, reach // 2)
    strength = (points / points.amax((1, 2), keepdim=True).clamp(min=1)).sqrt()[:, None]
    grey = 0.45 * images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    low, high = (torch.tensor(rgb).view(1, 3, 1, 1) for rgb in ((213.0, 94, 0), (255.0, 240, 60)))
    shown = torch.where(points[:, None] > 0, low + (high - low) * strength, grey)
    return shown.round().byte()


def cut(
    images: UInt8[Tensor, "n 3 h w"], chosen: Bool[Tensor, "n h w"]
) -> UInt8[Tensor, "n 3 h w"]:
    """The chosen pixels as they are, the rest grey and dim."""
    grey = 0.3 * images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return torch.where(chosen[:, None], images.float(), grey).round().byte()


def through_layers(
    study: Study, row: int, most: int = 6
) -> tuple[Pictures, dict[str, Float[Tensor, " layers"]], list[str]]:
    """One image's paths: where they pass in some layers with maps, drawn over the image; and the
    number of nodes in every layer from the decision to the image, with the layers' names."""
    images = study.sets["judged"][[row]]
    seen = bt.record(study.main.model.to(study.device), images.to_float(study.device))
    paths = seen.backtrack(seen.logits.argmax(1))
    maps = [name for name, nodes in paths.layers.items() if len(nodes.shape) == 3]
    changes = [maps[0]]
    for name in maps[1:]:  # of layers with the same nodes, the first
        a, b = paths.layers[name], paths.layers[changes[-1]]
        if a.shape[1:] != b.shape[1:] or len(a) != len(b):
            changes.append(name)
    spread = torch.linspace(0, len(changes) - 1, min(most, len(changes))).long().tolist()
    picked = [changes[k] for k in spread[:-1]] + [bt.IMAGE]
    size, drawn = tuple(images.images.shape[2:]), []
    for name in picked:
        places = paths.layers[name].dense(1).cpu().sum(1)
        places = torch.nn.functional.interpolate(places[None].float(), size)[0]
        share = (places / places.max().clamp(min=1)).sqrt()
        drawn.append(figures.heated(images.images, share)[0])
    nodes_in = [float(len(nodes)) for nodes in paths.layers.values()]
    counts = torch.tensor([n or torch.nan for n in nodes_in])  # a gap where all paths have ended
    named = [f"{paths.layers[name].shape[1]} x {paths.layers[name].shape[2]}" for name in picked]
    named = [f"{n}: {len(paths.layers[p])} nodes" for n, p in zip(named, picked, strict=True)]
    pictures = torch.stack([images.images[0], *drawn])[None]
    return (pictures, [""], ["image", *named]), {"nodes": counts}, list(paths.layers)


def boxes(study: Study, rows: Tensor) -> tuple[UInt8[Tensor, "n 3 h w"], list[str]]:
    """Fig. 2: the box of the position that most paths pass in the last maps, and its share."""
    images = study.sets["judged"][rows]
    seen = bt.record(study.main.model.to(study.device), images.to_float(study.device))
    paths = seen.backtrack(seen.logits.argmax(1))
    top = next(nodes for nodes in paths.layers.values() if len(nodes.shape) == 3)
    places, corners = bt.cells(top, len(rows), seen.size)
    share = places.flatten(1).amax(1) / places.flatten(1).sum(1).clamp(min=1)
    enlarge = max(1, 192 // images.images.shape[2])
    pairs = zip(images.images, corners.cpu(), strict=True)
    framed = [figures.framed(image, box[None], "yellow", enlarge) for image, box in pairs]
    names = [study.main.class_names[int(k)] for k in seen.logits.argmax(1)]
    even = 1 / places[0].numel()
    said = zip(names, share.tolist(), strict=True)
    shown = [f"taken for {name}: {s:.0%} of paths (even: {even:.0%})" for name, s in said]
    return torch.stack(framed), shown


def from_best_to_worst(study: Study, count: int = 6) -> tuple[Pictures, list[list[str]]]:
    """Fig. 10b: images at equal steps of the share of paths on the object, and their pixels."""
    follow = Follow(study.main.title, "judged")
    masks, pixels = study.sets["judged"].masks, study.pixels(follow)
    share = share_on(pixels, masks)
    order = share.nan_to_num(0).argsort(descending=True)
    rows = order[torch.linspace(0, len(order) - 1, count).long()]
    images = study.sets["judged"][rows]
    pictures = torch.stack([images.images, dotted(images.images, pixels[rows])])
    names = [images.class_names[k] for k in images.labels.tolist()]
    marks = [[""] * count, [f"{share[i]:.0%} on it" for i in rows.tolist()]]
    return (pictures, ["image", "pixels"], names), marks


def side_by_side(study: Study, rows: Tensor) -> Pictures:
    """The same images backtracked through every network."""
    images = study.sets["judged"][rows].images
    drawn = [images]
    drawn += [dotted(images, study.pixels(Follow(t, "judged"))[rows]) for t in study.networks]
    names = study.sets["judged"].class_names
    columns = [names[k] for k in study.sets["judged"].labels[rows].tolist()]
    return torch.stack(drawn), ["image", *study.networks], columns


def rival_pictures(study: Study, rows: Tensor) -> Pictures:
    """Every method's map of the same images, smoothed a little and all alike."""
    images = study.sets["judged"][rows].images
    drawn, names = [images], ["image"]
    for judge in rivals(study):
        made = study.scores(judge).tensors
        if made:
            drawn.append(figures.heated(images, made["sharp"][rows] / 255))
            names.append(named(study, judge))
    kinds = study.sets["judged"].class_names
    return torch.stack(drawn), names, [kinds[k] for k in study.sets["judged"].labels[rows].tolist()]


def two_starts(study: Study, title: str, count: int = 6) -> Pictures:
    """Images with two objects, and a network's pixels from either class."""
    first, second = (study.sets[images] for images in _TWO)
    rows = torch.arange(min(count, len(first)))
    pixels = [study.pixels(Follow(title, images, start="label"))[rows] for images in _TWO]
    pictures = [first.images[rows], *(dotted(first.images[rows], p) for p in pixels)]
    kinds = first.class_names
    columns = [
        f"{kinds[a]}, {kinds[b]}"
        for a, b in zip(first.labels[rows].tolist(), second.labels[rows].tolist(), strict=True)
    ]
    return torch.stack(pictures), ["image", "from the first", "from the second"], columns


def epoch_pictures(study: Study, rows: Tensor) -> Pictures:
    """The same images before a training, after its first epoch and at its end, from their own
    class."""
    images = study.sets["taught"][rows]
    drawn = [images.images]
    shown = [*study.growing[:2], study.growing[-1]]
    for epoch in shown:
        pixels = study.pixels(Follow(epoch.title, "taught", start="label"))[rows]
        drawn.append(dotted(images.images, pixels))
    names = [images.class_names[k] for k in images.labels.tolist()]
    return torch.stack(drawn), ["image", *(e.title for e in shown)], names


def untaught_pictures(study: Study, count: int = 6) -> tuple[Pictures, list[list[str]]]:
    """Objects of a class that one network was never taught, and what it takes them for."""
    rows = some_rows(study, count, "left out")
    images = study.sets["left out"][rows]
    drawn, marks = [images.images], [[""] * len(rows)]
    for title in (study.taught, study.untaught.title):
        follow = Follow(title, "left out")
        drawn.append(dotted(images.images, study.pixels(follow)[rows]))
        marks.append(titles(study, title, follow, rows))
    names = [images.class_names[k] for k in images.labels.tolist()]
    return (torch.stack(drawn), ["image", "taught", "never taught"], names), marks


def blurred_pictures(study: Study, rows: Tensor) -> tuple[Pictures, list[list[str]]]:
    """Fig. 10a: pixels of sharp and blurred images."""
    sharp, blurred = study.sets["judged"].images[rows], study.sets["blurred"].images[rows]
    follows = [Follow(study.main.title, images) for images in ("judged", "blurred")]
    dots = [
        dotted(images, study.pixels(follow)[rows])
        for images, follow in zip((sharp, blurred), follows, strict=True)
    ]
    said = [titles(study, study.main.title, follow, rows) for follow in follows]
    blank = [""] * len(rows)
    kinds = study.sets["judged"].class_names
    columns = [kinds[k] for k in study.sets["judged"].labels[rows].tolist()]
    names = ["sharp", "its pixels", "blurred", "its pixels"]
    pictures = torch.stack([sharp, dots[0], blurred, dots[1]])
    return (pictures, names, columns), [blank, said[0], blank, said[1]]
