"""Paper 2's study: several networks, the same images, and what each network's summaries are.

"Understanding Deep Architectures by Visual Summaries" (Godi et al., BMVC 2019). `assemble` brings
networks and the images that all of them classify correctly, because a network that is right more
often would otherwise get more images, and with them more summaries. `Study.run` finds masks,
similarities and summaries: every result is kept in the store, and jobs run in as many processes as
there are cores. Under `accelerate launch` every process begins with its own share of the jobs.
`summarise` does the same for any classifier and images, in one call.

The algorithms are in `helpers.crisp_masks`, `helpers.proposal_flow` and `helpers.visual_summaries`,
the experiments on their results in `helpers.summary_uses`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from helpers import (
    crisp_masks,
    figures,
    models,
    parallel,
    photos,
    proposal_flow,
    summary_uses,
    training,
)
from helpers import visual_summaries as vs
from helpers.budget import IMAGENET_PAIRS, Recipe, SummaryStudy
from helpers.course import Course, device_here
from helpers.imageset import ImageSet, concatenate
from helpers.parallel import each
from helpers.store import Keyed, Named, Result, Stage, Store, stage

# What an ImageNet network calls the classes of other collections: its indices. "dog" is any breed
# that is not one of paper 2's own classes.
IMAGENET = {name: (index,) for name, index in IMAGENET_PAIRS.items()} | {
    "ants": (310,),
    "bees": (309,),
    "dog": tuple(sorted(set(range(151, 269)) - set(IMAGENET_PAIRS.values()))),
    "cat": tuple(range(281, 286)),
}


Pictures = tuple[Tensor, list[str], list[str]]  # (rows, columns, 3, h, w), and their names


@dataclass(frozen=True)
class Network:
    """A trained classifier of the study."""

    title: str  # "GoogLeNet", or "GoogLeNet, 2 epochs" of one that was stopped early
    model: nn.Module = field(repr=False)
    made: Keyed = field(repr=False)  # what made its weights
    early: bool = False  # trained for fewer epochs, with a schedule of its own
    whole: nn.Module | None = field(default=None, repr=False)  # where `model` merges classes


@dataclass(frozen=True)
class Study:
    """The images and networks. Labels are the networks' outputs."""

    budget: SummaryStudy
    root: Path  # of the store
    device: torch.device
    candidates: ImageSet
    networks: tuple[Network, ...]
    logits: Mapping[str, Tensor] = field(repr=False)  # of the candidates, by network
    right: Mapping[str, Tensor] = field(repr=False)  # whether the first answer is right
    kinds: Mapping[str, ImageSet]  # those that all trained networks classify correctly, by class
    shared: int  # so many of each class, the first ones, are right in the early networks too
    held_out: ImageSet | None  # other images of the same classes
    pairs: Mapping[str, list[tuple[Tensor, Tensor]]]  # sets of images with corresponding keypoints
    # of photographs: a network that names them, its classes, and a key
    tagger: tuple[nn.Module, list[str], str] | None = None
    # results that were read once: many questions build on the same ones
    known: dict[Job, Result] = field(default_factory=dict, repr=False, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"known": {}}  # other processes read what they need

    @property
    def main(self) -> tuple[Network, ...]:
        """The fully trained ones."""
        return tuple(n for n in self.networks if not n.early)

    @property
    def precision(self) -> str:
        """What the masks' passes through the networks compute in, see `training.settled`."""
        return training.settled(Recipe(epochs=1, precision="quick")).precision

    def run(self) -> dict[tuple[str, str], Explained]:
        """Masks and summaries of every network and class, from the store or made now."""
        store, numbers = Store(self.root), range(len(self.networks))
        main = numbers[-len(self.main) :]
        # in this order, each job builds on earlier ones only
        jobs = [("whitening", None, "")]
        jobs += [("masks", n, kind) for n in numbers for kind in self.kinds_of(n)]
        jobs += [("boxes", None, kind) for kind in self.kinds]
        jobs += [("keypoints", None, "")] if self.pairs else []
        jobs += [("iebb", self.number(self.main[0].title), kind) for kind in self.kinds]
        jobs += [("summaries", n, kind) for n in numbers for kind in self.kinds_of(n)]
        jobs += [("fewer", n, kind) for n in numbers for kind in self.compared]
        jobs += [(what, n, "") for n in main for what in ("uses", "adjacent")]
        jobs += [(what, None, "") for what in ("coherence", "matches")]
        jobs += [("facing", None, "")] if self.knows_parts else []
        missing: list[Job] = []
        for job in jobs:  # behind one that is missing, nobody can tell what is there
            if missing or not _there(self, store, job):
                missing.append(job)
        done = each(_compute, self, parallel.own_first(missing), device=self.device)
        shown = {"desc": "masks first", "file": sys.stdout, "leave": False, "disable": not missing}
        for _ in tqdm(done, total=len(missing), **shown):
            pass
        return {
            (network.title, kind): _explained(self, store, n, kind)
            for n, network in enumerate(self.networks)
            for kind in self.kinds_of(n)
        }

    @property
    def compared(self) -> list[str]:
        """The classes in which all networks, the early ones too, are counted: the first of each
        pair of look-alikes."""
        if len(self.main) == len(self.networks):
            return []
        return [kind for kind in self.budget.classes[::2] if kind in self.kinds]

    def kinds_of(self, number: int) -> list[str]:
        """The classes that a network explains."""
        return self.compared if self.networks[number].early else list(self.kinds)

    def images_of(self, number: int, kind: str) -> ImageSet:
        """The images it explains: early networks only those that all networks have right."""
        early = self.networks[number].early
        return self.kinds[kind][: self.shared] if early else self.kinds[kind]

    def counts(self) -> pd.DataFrame:
        """The number of summaries of every network in the compared classes, all from the same
        images; and the network's share of right answers among all candidates."""
        store, rows = Store(self.root), []
        for n, network in enumerate(self.networks):
            right = self.right[network.title]
            for kind in self.compared or self.kinds:
                job = ("fewer" if self.compared else "summaries", n, kind)
                values = _asked(self, store, job).values
                rows.append(
                    {
                        "network": network.title,
                        "early": network.early,
                        "accuracy": 100 * right.double().mean().item(),
                        "class": kind,
                        "summaries": len(values["sizes"]),
                        "regions": values["tally"]["regions"],
                        "parts": values["tally"]["parts"],
                    }
                )
        return pd.DataFrame(rows)

    @property
    def knows_parts(self) -> bool:
        """Whether these are scenes, whose parts and views are known."""
        return self.candidates.parts is not None

    def experiments(self, title: str) -> dict[str, Tensor]:
        """What `use_summaries` found of a network."""
        return _asked(self, Store(self.root), ("uses", self.number(title), "")).tensors

    def number(self, title: str) -> int:
        """The place of a network. Raises: ValueError: no such network."""
        return [network.title for network in self.networks].index(title)

    def table(self, what: str) -> pd.DataFrame:
        """The rows that a stage on all classes found: "facing" (see `face_each_other`; empty where
        nobody knows which way objects face) or "coherence" (see `compare_tags`)."""
        if what == "facing" and not self.knows_parts:
            return pd.DataFrame()
        return pd.DataFrame(_asked(self, Store(self.root), (what, None, "")).values["rows"])

    def keypoints(self) -> pd.DataFrame:
        """PCK of NAM, PHM and LOM in percent, a row each, a column per alpha; empty without
        keypoints."""
        if not self.pairs:
            return pd.DataFrame()
        made = _asked(self, Store(self.root), ("keypoints", None, ""))
        rows = {rule: (100 * made.tensors[rule].mean(0)).tolist() for rule in ("NAM", "PHM", "LOM")}
        return pd.DataFrame(rows, index=[f"alpha {a}" for a in made.values["alphas"]]).T

    def matches(self) -> tuple[Pictures, str] | None:
        """What `draw_matches` drew, and of which class; None if no class has two images."""
        made = _asked(self, Store(self.root), ("matches", None, ""))
        names = ["appearance (NAM)", "offsets (LOM)"]
        if made.values["class"] is None:
            return None
        pictures = torch.stack([made.tensors[name] for name in names])
        return (pictures, names, ["one image", "another"]), made.values["class"]

    def adjacency(self, title: str) -> Result:
        """How alike the summaries of a network's classes are, see `compare_classes`."""
        return _asked(self, Store(self.root), ("adjacent", self.number(title), ""))

    def similarity(self, kind: str) -> vs.Similarity:
        """How alike the boxes of a class's images are."""
        return vs.Similarity.of(_asked(self, Store(self.root), ("boxes", None, kind)).tensors)


Job = tuple[str, int | None, str]  # what, the network's number, the class; "" for all


def _question(study: Study, job: Job, store: Store) -> tuple[Stage, dict, dict, dict]:
    """What a job asks the store: stage, config, inputs, and how to compute it."""
    what, number, kind = job
    budget = study.budget
    if what == "whitening":
        some = study.candidates[:: max(1, len(study.candidates) // _WHITE)]
        return learn_whitening, {}, {"images": some}, {}
    if what == "boxes":
        config = {"boxes": budget.boxes, "enlarge": budget.enlarge}
        inputs = {"images": study.kinds[kind], "whitening": _white(study, store)}
        return compare_boxes, config, inputs, {}
    if what in _WHOLE:
        stage, needed, of_one = _WHOLE[what]
        inputs, how = dict(study.kinds), {"study": study}
        for n in [number] if of_one else [study.number(network.title) for network in study.main]:
            for name, k in product(needed, study.kinds):
                n = None if name == "boxes" else n
                inputs[f"{name} {n} {k}"] = _asked(study, store, (name, n, k))
        if what in ("keypoints", "matches"):
            config = {"boxes": budget.boxes, "enlarge": budget.enlarge}
            inputs |= {"whitening": _white(study, store)}
            inputs |= {"pairs": Named(_digest(study.pairs))} if what == "keypoints" else {}
            return stage, config, inputs, how
        if of_one:
            inputs |= {"network": study.networks[number].made, "whitening": _white(study, store)}
            how |= {"number": number}
        if what == "coherence":
            tagger = {"tagger": Named(study.tagger[2])} if study.tagger else {}
            return stage, {"synonyms": summary_uses.merged([])[1]}, inputs | tagger, how
        if what == "uses" and study.held_out is not None:
            inputs |= {"held out": study.held_out}
        return stage, {}, inputs, how
    network, images = study.networks[number], study.images_of(number, kind)
    config = {"precision": study.precision, "batch": budget.batch}
    how = {"model": network.model, "device": study.device}
    if what == "masks":
        config |= {"schedule": asdict(crisp_masks.SCHEDULES[budget.schedule])}
        return make_masks, config, {"network": network.made, "images": images}, how
    masks = _asked(study, store, ("masks", number, kind))
    if what == "iebb":
        inputs = {"network": network.made, "images": images, "masks": masks}
        return compare_masks, config | {"schedule": budget.schedule}, inputs, how
    boxes = _asked(study, store, ("boxes", None, kind))
    config = {"first": study.shared} if what == "fewer" or network.early else {}
    return summarise_class, config, {"images": images, "masks": masks, "boxes": boxes}, {}


_WHITE = 60  # images that the whitening is learnt from; fewer do not fill its 1,984 dimensions


def _white(study: Study, store: Store) -> Result:
    return _asked(study, store, ("whitening", None, ""))


def _asked(study: Study, store: Store, job: Job) -> Result:
    if job not in study.known:
        study.known[job] = store.get_or_compute(*_question(study, job, store))
    return study.known[job]


def _there(study: Study, store: Store, job: Job) -> bool:
    if job not in study.known and (found := store.find(*_question(study, job, store)[:3])):
        study.known[job] = found
    return job in study.known


def _compute(study: Study, job: Job) -> None:
    _asked(study, Store(study.root), job)


def _explained(study: Study, store: Store, number: int, kind: str) -> Explained:
    return Explained(
        network=study.networks[number],
        kind=kind,
        images=study.images_of(number, kind),
        masks=_asked(study, store, ("masks", number, kind)).tensors,
        found=_unpacked(_asked(study, store, ("summaries", number, kind))),
    )


@dataclass(frozen=True, eq=False)
class Explained:
    """One class as one network sees it."""

    network: Network
    kind: str
    images: ImageSet
    masks: Mapping[str, Tensor]  # see `crisp_masks.Masks`
    found: vs.Summaries


def assemble(course: Course) -> Study:
    """Train or load the networks and choose the images.

    Scenes: the test world, which no network was trained on. Photographs: ants and bees of
    hymenoptera, dogs and cats of VOC, and those of the paper's classes that lie under `imagenet`;
    sets that are missing are named and left out.

    Raises:
        ValueError: the profile has no such study, or no image is right in all networks.
        helpers.photos.MissingDataset: no photographs at all.
    """
    budget = course.profile.summaries
    if budget is None:
        raise ValueError(f"profile {course.profile.name!r} has no budget for this study")
    scenes = course.profile.source == "scenes"
    candidates = _scenes(course, budget) if scenes else _photographs(course, budget)
    networks = _trained(course, budget) if scenes else _pretrained(course, budget, candidates)
    on_device = {"device": course.device}
    logits = {
        n.title: training.answers(course.store, n.made, n.model, candidates, **on_device)
        for n in networks
    }
    right = torch.stack([_right(course, n, candidates, logits[n.title]) for n in networks])
    trained = torch.tensor([not n.early for n in networks])
    limit = min(budget.per_class, course.limit or budget.per_class)
    kinds, shared = {}, {}
    for name in (k for k in budget.classes if k in candidates.class_names):
        own = candidates.labels == candidates.class_names.index(name)
        rows = torch.nonzero(right[trained].all(0) & own)[:, 0]
        always = right[:, rows].all(0)
        # those that early networks have right too come first, so that there are enough of them
        rows = torch.cat([rows[always], rows[~always]])[:limit]
        if len(rows):
            kinds[name], shared[name] = candidates[rows], min(int(always.sum()), limit)
        else:
            print(f"{name}: none of {int(own.sum())} images is right in all networks; left out.")
    if not kinds:
        raise ValueError(
            f"no class has an image that all {int(trained.sum())} networks classify correctly, so "
            "there is nothing to explain; use more images (a higher LIMIT)"
        )
    held_out = course.images("validation") if scenes else None
    return Study(
        budget=budget,
        root=course.store.root,
        device=course.device,
        candidates=candidates,
        networks=networks,
        logits=logits,
        kinds=kinds,
        shared=min(shared.values(), default=0),
        right=dict(zip(logits, right, strict=True)),
        held_out=held_out,
        pairs=_pairs(course, kinds),
        tagger=None if scenes else _tagger(course, budget),
    )


def _right(course: Course, network: Network, candidates: ImageSet, logits: Tensor) -> Tensor:
    """Whether a network's first answer is right: of all its classes, one of the label's."""
    if network.whole is None:
        return logits.argmax(1) == candidates.labels
    made = Named(f"{network.made.key} all classes")
    said = training.answers(
        course.store, made, network.whole, candidates, device=course.device
    ).argmax(1)
    groups = [torch.tensor(IMAGENET[name]) for name in candidates.class_names]
    pairs = zip(said, candidates.labels.tolist(), strict=True)
    return torch.stack([torch.isin(answer, groups[label]) for answer, label in pairs])


def _scenes(course: Course, budget: SummaryStudy) -> ImageSet:
    test = course.images("test")
    wanted = torch.tensor([test.class_names.index(name) for name in budget.classes])
    return test[torch.isin(test.labels, wanted)]  # labels stay the networks' outputs


def _trained(course: Course, budget: SummaryStudy) -> tuple[Network, ...]:
    """Every architecture at every length; the longest is the trained one, others are early."""
    recipe, train = training.settled(budget.recipe), course.images("train")
    jobs = [
        (title, name, replace(recipe, epochs=epochs))
        for epochs in budget.epochs
        for title, name in budget.networks
    ]
    asked = [(name, train, recipe) for _, name, recipe in jobs]
    made = training.all_trained(course.store, asked, device=course.device)
    last = max(budget.epochs)
    return tuple(
        Network(
            title if recipe.epochs == last else f"{title}, {recipe.epochs} epochs",
            *found,
            early=recipe.epochs < last,
        )
        for (title, _, recipe), found in zip(jobs, made, strict=True)
    )


def _photographs(course: Course, budget: SummaryStudy) -> ImageSet:
    """Several collections as one set; their own masks and names are left behind."""
    root, wanted = course.data_root, 3 * budget.per_class  # about a third of them is right
    sets, missing = [], []
    readers = {
        "hymenoptera": (("ants", "bees"), lambda found: photos.class_folders(found / "train")),
        "voc2012": (("dog", "cat"), lambda found: photos.voc(root, split="trainval")),
        "imagenet": (tuple(IMAGENET_PAIRS), _imagenet),
    }
    for name, (classes, read) in readers.items():
        if not set(classes) & set(budget.classes):
            continue
        try:
            loaded = read(photos.find(root, name))
        except photos.MissingDataset as error:
            missing.append(error)
            print(f"{name} is left out: {str(error).splitlines()[0]}")
            continue
        print(f"{name}: {loaded}")
        read_in = loaded.images.only([c for c in classes if c in loaded.images.class_names])
        few = read_in.examples(min(wanted, 3 * (course.limit or wanted)))
        known = tuple(k for k in budget.classes if k in IMAGENET)
        label = torch.tensor([known.index(k) for k in few.class_names])[few.labels]
        sets.append(ImageSet(few.images, label, known, ids=few.ids))
    if not sets:
        raise missing[0]
    return concatenate(sets)


def _imagenet(root: Path) -> photos.Loaded:
    """The paper's classes, under its names instead of ImageNet's."""
    lines = (root / "wnids.txt").read_text().splitlines()
    codes = {lines[index].split()[0]: name for name, index in IMAGENET_PAIRS.items()}
    there = [code for code in codes if (root / "val" / code).is_dir()]
    loaded = photos.class_folders(root / "val", classes=there)
    names = tuple(codes[code] for code in there)
    return replace(loaded, images=replace(loaded.images, class_names=names))


def _tagger(course: Course, budget: SummaryStudy) -> tuple[nn.Module, list[str], str]:
    """The last of the profile's networks, with all its classes: no stranger, where others have to
    be downloaded, so tags may favour that network's own summaries."""
    loaded = course.pretrained(budget.networks[-1][1])
    return loaded.model, loaded.categories, loaded.sha256


def _pretrained(course: Course, budget: SummaryStudy, candidates: ImageSet) -> tuple[Network, ...]:
    """ImageNet's networks, asked for the classes of the photographs and "anything else"."""
    groups, networks = [IMAGENET[name] for name in candidates.class_names], []
    for title, weights in budget.networks:
        loaded = course.pretrained(weights)
        model = models.Merged(loaded.model, groups, len(loaded.categories)).to(course.device)
        if not loaded.official:
            print(f"{loaded.file} is not the official file: SHA-256 {loaded.sha256[:16]}...")
        made = Named(f"{loaded.sha256} {groups}")
        networks.append(Network(title, model.eval(), made, whole=loaded.model.to(course.device)))
    return tuple(networks)


# ---------------------------------------------------------------- three stages, run in this order


@stage(version=2)
def make_masks(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Smooth and crisp masks of one class's images. Config: schedule, precision, batch."""
    images = inputs["images"]
    phases = {name: crisp_masks.Phase(**config["schedule"][name]) for name in ("smooth", "crisp")}
    found = crisp_masks.crisp_masks(
        models.folded(model),
        images.to_float(device),
        images.labels.to(device),
        crisp_masks.Schedule(**config["schedule"] | phases),
        batch_size=config["batch"],
        precision=config["precision"],
    )
    return {name: value.cpu().contiguous() for name, value in vars(found).items()}, {}


@stage(version=2)
def compare_masks(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Table 2 for one class's images: IEBB's masks, the same made binary at the crisp mask's area,
    and the drop under each, the images blurred alike. Config: schedule, precision, batch."""
    images, targets = inputs["images"].to_float(device), inputs["images"].labels.to(device)
    crisp, model = inputs["masks"].tensors["crisp"].to(device), models.folded(model)
    schedule = crisp_masks.SCHEDULES[config["schedule"]]
    how = {"batch_size": config["batch"], "precision": config["precision"]}
    iebb = crisp_masks.iebb_masks(model, images, targets, **how)
    binary = crisp_masks.area_matched(iebb, crisp)
    drops = {
        name: crisp_masks.drop(model, images, targets, masks, schedule)
        for name, masks in {"crisp": crisp, "IEBB": iebb, "IEBB thresh.": binary}.items()
    }
    made = {"masks": iebb, "thresholded": binary} | {f"drop: {k}": v for k, v in drops.items()}
    return {name: value.cpu().contiguous() for name, value in made.items()}, {}


@stage(version=1)
def learn_whitening(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the gradients of the study's images have in common: see `proposal_flow.whitening`."""
    return vars(proposal_flow.whitening(inputs["images"].images)), {}


@stage(version=1)
def compare_boxes(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Proposals of one class's images and how well each matches each other. Config: boxes,
    enlarge."""
    images = inputs["images"].images
    white = proposal_flow.Whitening(**inputs["whitening"].tensors)
    boxes, descriptors = propose(images, white, config["boxes"], config["enlarge"])
    found = vs.similarity(boxes, descriptors, matching(images))
    return found.tensors(), {}


def propose(
    images: UInt8[Tensor, "n 3 h w"],
    white: proposal_flow.Whitening | None,
    count: int,
    enlarge: int,
) -> tuple[list[Int64[Tensor, "_ 4"]], list[Tensor]]:
    """Boxes of each image, and what is in each."""
    boxes = [proposal_flow.proposals(image, count, enlarge=enlarge) for image in images]
    pairs = zip(images, boxes, strict=True)
    return boxes, [proposal_flow.describe(image, some, white) for image, some in pairs]


_REFERENCE = 224  # px; proposal flow's constants are lengths in images of about this size


def larger(images: UInt8[Tensor, "n 3 h w"]) -> int:
    """How many times larger images would have to be for lengths in pixels to mean what they do in
    the paper's."""
    return max(1, round(_REFERENCE / min(images.shape[2:])))


def matching(images: UInt8[Tensor, "n 3 h w"], rule: str = "lom") -> vs.Match:
    """Proposal flow between images of this size, with lengths as if they were about 224 px."""
    scale = larger(images)
    size = tuple(scale * side for side in images.shape[2:])

    def match(boxes_a: Tensor, a: Tensor, boxes_b: Tensor, b: Tensor) -> Tensor:
        there = scale * boxes_a, a, size
        return proposal_flow.match(*there, scale * boxes_b, b, size, rule=rule)

    return match


@stage(version=1)
def summarise_class(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The summaries of one class and network. Config: first, so many images only."""
    some = slice(config.get("first"))
    similarity = vs.Similarity.of(inputs["boxes"].tensors)[some]
    masks = inputs["masks"].tensors["crisp"][some]
    found = vs.summarise(inputs["images"][some].to_float(), masks, similarity)
    return _packed(found)


def _packed(found: vs.Summaries) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {"regions": found.regions.to(torch.uint8)}
    for name in ("images", "boxes", "regions", "scores"):
        if found.summaries:
            rows = [getattr(s, name) for s in found.summaries]
            tensors[f"members: {name}"] = torch.cat(rows).contiguous()
    return tensors, {
        "sizes": [len(s.images) for s in found.summaries],
        "ssim": [s.ssim for s in found.summaries],
        "outcome": found.outcome,
        "tally": asdict(found.tally),
    }


def _unpacked(result: Result) -> vs.Summaries:
    sizes, values = result.values["sizes"], result.values
    columns = [
        result.tensors[f"members: {name}"].split(sizes) if sizes else ()
        for name in ("images", "boxes", "regions", "scores")
    ]
    summaries = (vs.Summary(*row) for row in zip(*columns, values["ssim"], strict=True))
    regions = result.tensors["regions"].long()
    return vs.Summaries(tuple(summaries), regions, values["outcome"], vs.Tally(**values["tally"]))


# ---------------------------------------------------------------- the same for any classifier


@dataclass(frozen=True, eq=False)
class Summarised:
    """What one classifier looks at in images of one class. Everything is on the CPU."""

    masks: crisp_masks.Masks
    similarity: vs.Similarity  # of all boxes: it depends on the images only
    found: vs.Summaries

    @property
    def boxes(self) -> tuple[Int64[Tensor, "_ 4"], ...]:
        """The proposals of each image."""
        return self.similarity.boxes.split(self.similarity.counts.tolist())


def summarise(
    model: nn.Module,
    images: UInt8[Tensor, "n 3 h w"],
    targets: int | Int64[Tensor, " n"],
    *,
    boxes: int = 500,
    enlarge: int | None = None,
    whitening: proposal_flow.Whitening | None = None,
    schedule: str | crisp_masks.Schedule = "paper",
    precision: str = "float32",
    batch_size: int = 20,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Summarised:
    """Masks, parts and visual summaries of images of one class by any classifier (section 3).

    The classifier takes images in [0, 1] and returns logits (n, classes), as every network of
    `models.build` and `models.pretrained` does, all of torchvision's and timm's among them. A bare
    network that expects ImageNet's normalisation becomes one by

        nn.Sequential(models.Normalised(), network)

    It moves to `device` and keeps its mode and weights. Other networks on the same images need not
    match boxes again: `vs.summarise(images / 255, crisp, similarity)` with their crisp masks.

    Args:
        images: 0 to 255, RGB, of the size that the network is to see. The paper's are 50 of a
            class, all of which the network classifies right (`crisp_masks.select`). Others are
            explained too: the masks take away whatever probability there is.
        targets: the class, an index of the outputs; or one for each image.
        boxes: proposals per image, at most.
        enlarge: how many times larger the images are in which boxes are looked for; None: as many
            times as make them about 224 px.
        whitening: of the boxes' descriptors; None: learnt from the images themselves, which takes
            about eight of a class, and is rough with fewer than 60. With fewer, learn it from any
            other images (`proposal_flow.whitening`). A single image has nothing to match with, so
            its descriptors stay as they are.
        schedule: of the masks, or its name in `crisp_masks.SCHEDULES`.
        precision: "bfloat16" runs the network in it while masks are fitted.
        device: of the network's passes; None: the GPU where there is one. All else is on the CPU.

    Returns:
        Whatever is found, also if that is nothing: `found.message` says why.

    Raises:
        ValueError: too few images to learn the whitening from, no such schedule, or what
            `proposal_flow.proposals` and `crisp_masks.crisp_masks` refuse.
        FloatingPointError: a loss is not finite.
    """
    if isinstance(schedule, str):
        if schedule not in crisp_masks.SCHEDULES:
            known = ", ".join(crisp_masks.SCHEDULES)
            raise ValueError(f"no schedule {schedule!r}; there are {known}")
        schedule = crisp_masks.SCHEDULES[schedule]
    n, images, device = len(images), images.cpu(), device or device_here()
    if isinstance(targets, int):
        targets = torch.full((n,), targets)
    if whitening is None and n > 1:
        try:
            whitening = proposal_flow.whitening(images[:: max(1, n // _WHITE)])
        except ValueError as error:
            how = "or pass one of other images: whitening=proposal_flow.whitening(others)"
            raise ValueError(f"{error}, {how}") from None
    enlarge = larger(images) if enlarge is None else enlarge
    proposed, described = propose(images, whitening, boxes, enlarge)

    def bar(title: str, total: int) -> tqdm:
        return tqdm(desc=title, total=total, file=sys.stdout, leave=False, disable=not progress)

    pixels = images.float() / 255
    with bar("masks", n * (schedule.smooth.iterations + schedule.crisp.iterations)) as shown:
        fitted = crisp_masks.crisp_masks(
            model.to(device),
            pixels.to(device),
            targets.to(device),
            schedule,
            batch_size=batch_size,
            precision=precision,
            progress=shown.update,
        )
    masks = crisp_masks.Masks(**{name: value.cpu() for name, value in vars(fitted).items()})
    rule = matching(images)
    with bar("pairs of images", n * (n + 1) // 2) as shown:

        def match(*of_two: Tensor) -> Tensor:
            shown.update()
            return rule(*of_two)

        similarity = vs.similarity(proposed, described, match)
    return Summarised(masks, similarity, vs.summarise(pixels, masks.crisp, similarity))


# ---------------------------------------------------------------- what the summaries are good for


def members(found: vs.Summaries) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"], Tensor]:
    """Every member of every summary: its image, its summary, and what it shows (m, h, w)."""
    if not found.summaries:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none, torch.zeros(0, *found.regions.shape[1:], dtype=torch.bool)
    rows = torch.cat([s.images for s in found.summaries])
    number = torch.arange(len(found.summaries)).repeat_interleave(
        torch.tensor([len(s.images) for s in found.summaries])
    )
    regions = torch.cat([found.region_of(s) for s in found.summaries])
    boxes = torch.cat([s.boxes for s in found.summaries])
    return rows, number, summary_uses.in_boxes(regions, boxes)


@stage(version=2)
def use_summaries(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    study: Study,
    number: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One network's experiments: is it wrong without its parts, what do its masks take away, and do
    specialists help?"""
    network, device = study.networks[number], study.device
    mine = [_explained(study, Store(study.root), number, kind) for kind in study.kinds_of(number)]
    tensors: dict[str, list[Tensor]] = {}

    def keep(name: str, values: Tensor) -> None:
        tensors.setdefault(name, []).append(values.detach().cpu())

    sigma = crisp_masks.SCHEDULES[study.budget.schedule].for_side(study.budget.size).image_sigma
    for one in mine:
        images, labels = one.images.to_float(device), one.images.labels.to(device)
        fill = crisp_masks.blurred(images, sigma)
        rows, _, shown = members(one.found)
        parts = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.bool)
        for row, where in zip(rows.tolist(), shown, strict=True):
            parts[row] |= where
        some, objects = parts.flatten(1).any(1), one.images.masks
        if some.any():
            # the equal area lies anywhere, or, where the object is known, on the rest of it
            for name, avoid in {"anywhere": None, "on the object": objects}.items():
                if name != "anywhere" and objects is None:
                    continue
                tried = summary_uses.absence(
                    network.model,
                    images[some],
                    labels[some],
                    parts[some].to(device),
                    fill[some],
                    torch.Generator().manual_seed(0),
                    None if avoid is None else ~avoid[some].to(device),
                )
                for what in ("without_parts", "without_others", "room", "share"):
                    keep(f"{name}: {what}", getattr(tried, what))
        if objects is not None:
            crisp = one.masks["crisp"].to(device)
            drops = summary_uses.origin_of_drop(
                network.model, images, labels, crisp, objects.to(device), fill
            )
            for name in ("mask", "on_object", "on_backdrop"):
                keep(f"drop: {name}", getattr(drops, name))
            removed = one.masks["crisp"] < 0.5
            on_object = (removed & objects).flatten(1).sum(1)
            keep("removed: on object", on_object / removed.flatten(1).sum(1).clamp(min=1))
            keep("removed: area", removed.flatten(1).float().mean(1))
            h, w = removed.shape[1:]  # a disc of the same area in the middle, for comparison
            y, x = torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2
            nearest = torch.hypot(y[:, None], x).flatten().argsort(stable=True).argsort()
            disc = nearest < removed.flatten(1).sum(1, keepdim=True)
            inside = (disc & objects.flatten(1)).sum(1)
            keep("disc: on object", inside / disc.sum(1).clamp(min=1))
            keep("object: area", objects.flatten(1).float().mean(1))
    joined = {name: torch.cat(values).contiguous() for name, values in tensors.items()}
    return joined | _specialised(study, network, mine), {}


def _specialised(study: Study, network: Network, mine: Sequence[Explained]) -> dict[str, Tensor]:
    """Section 4.4: SVMs from the summaries' members; the weight is chosen on one half of other
    images and the change counted on the other half."""
    summaries = {
        int(one.images.labels[0]): [s.images for s in one.found.summaries]
        for one in mine
        if one.found.summaries
    }
    if study.held_out is None or len(summaries) < 2:
        return {}
    shown = concatenate([one.images for one in mine])
    first = torch.tensor([0, *(len(one.images) for one in mine)]).cumsum(0).tolist()
    start = {int(one.images.labels[0]): row for one, row in zip(mine, first, strict=False)}
    summaries = {k: [rows + start[k] for rows in of] for k, of in summaries.items()}
    features = _features(network.model, shown, study.device)
    experts = summary_uses.specialise(features, shown.labels, summaries)
    held_out = study.held_out
    logits = training.predict(network.model, held_out, device=study.device)
    softmax = logits.softmax(1)
    others = _features(network.model, held_out, study.device)
    svm, which = summary_uses.svm_scores(experts, others, softmax.shape[1])
    choosing = torch.arange(len(held_out)) % 4 < 2  # classes go round: both halves have them all
    weight = summary_uses.choose_weight(softmax[choosing], svm[choosing], held_out.labels[choosing])
    test = ~choosing
    result = summary_uses.specialised(
        softmax[test], svm[test], which[test], held_out.labels[test], weight
    )
    return {
        "svm: rows": torch.nonzero(test)[:, 0],
        "svm: before": result.before,
        "svm: after": result.after,
        "svm: chosen": result.chosen,
        "svm: responsible": result.responsible,
        "svm: weight": torch.tensor(result.weight),
        "svm: classes": experts.classes,
        "svm: numbers": experts.numbers,
    }


def _features(model: nn.Module, images: ImageSet, device: torch.device) -> Tensor:
    with models.frozen(model), torch.no_grad():
        parts = torch.arange(len(images)).split(128)
        return torch.cat([models.embed(model, images[p].to_float(device)).cpu() for p in parts])


@stage(version=1)
def match_keypoints(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """PCK of the three rules, (sets, alphas) each. Config: boxes, enlarge."""
    scale = larger(study.candidates.images)

    # small scenes are matched as if they were large: boxes and lengths grow, the pixels stay
    def propose(image: Tensor) -> Tensor:
        few = proposal_flow.proposals(small(image), config["boxes"], enlarge=config["enlarge"])
        return scale * few

    def small(image: Tensor) -> Tensor:
        return image[:, ::scale, ::scale]

    white = proposal_flow.Whitening(**inputs["whitening"].tensors)
    found = proposal_flow.benchmark(
        study.pairs,
        lambda image, boxes: proposal_flow.describe(small(image), boxes // scale, white),
        {rule.upper(): {"rule": rule} for rule in ("nam", "phm", "lom")},
        propose=propose,
    )
    return found, {"sets": list(study.pairs), "alphas": list(proposal_flow.ALPHAS)}


def _pairs(
    course: Course, kinds: Mapping[str, ImageSet]
) -> Mapping[str, list[tuple[Tensor, Tensor]]]:
    """Images with keypoints: in scenes the centres of parts, on photographs PF-WILLOW, where that
    is under DATA_ROOT."""
    if course.profile.source == "scenes":
        found = {kind: keypoints_of_parts(images) for kind, images in kinds.items()}
    else:
        try:
            root = photos.find(course.data_root, "pf_willow")
            found = photos.pf_willow(root, limit=course.limit and 6 * course.limit)
        except photos.MissingDataset as error:
            print(f"PF-WILLOW is left out: {str(error).splitlines()[0]}")
            return {}
    return {name: some for name, some in found.items() if len(some) > 1}  # others have no pair


def _digest(sets: Mapping[str, list[tuple[Tensor, Tensor]]]) -> str:
    digest = hashlib.sha256()
    for name, pairs in sets.items():
        digest.update(name.encode())
        for image, points in pairs:
            digest.update(image.numpy().tobytes() + points.numpy().tobytes())
    return digest.hexdigest()[:20]


def keypoints_of_parts(
    images: ImageSet, most: int = 8
) -> list[tuple[Tensor, Float[Tensor, "p 2"]]]:
    """Scenes, enlarged by `larger`, with the centres (x, y) of the parts that all of them show:
    keypoints that nobody had to click. A part that comes twice has one centre between the two."""
    few, scale = images[:most], larger(images.images)
    common = set.intersection(*({*p.unique().tolist()} for p in few.parts)) - {0}
    pairs = []
    for image, parts in zip(few.images, few.parts, strict=True):
        at = [torch.nonzero(parts == part).float().mean(0).flip(0) + 0.5 for part in sorted(common)]
        enlarged = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        pairs.append((enlarged, scale * torch.stack(at)))
    return pairs


@stage(version=1)
def face_each_other(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Footnote 1: does proposal flow trust wrong matches more when objects face opposite ways?

    A row for each pair of images of a class that face somewhere: `opposite`, how many boxes on the
    object find their best match on another part (`wrong`, a share), and the mean score of those.
    """
    rows = []
    for kind, images in study.kinds.items():
        similarity = study.similarity(kind)
        shown = _main_part(images, similarity)
        scores, image = similarity.scores, similarity.image
        for i, j in combinations(range(len(images)), 2):
            faces = images.views[i] * images.views[j]
            if not faces:
                continue
            own, other = (torch.nonzero(image == k)[:, 0].numpy() for k in (i, j))
            own = own[shown[own].numpy() > 0]
            block = torch.from_numpy(scores[own][:, other].toarray())
            if not block.numel():
                continue
            best, chosen = block.max(1)
            wrong = (shown[other][chosen] != shown[own]) & (best > 0)
            if wrong.any():
                rows.append(
                    {
                        "class": kind,
                        "opposite": bool(faces < 0),
                        "wrong": wrong.double().mean().item(),
                        "score": best[wrong].double().mean().item(),
                    }
                )
    return {}, {"rows": rows}


def _main_part(images: ImageSet, similarity: vs.Similarity) -> Int64[Tensor, " p"]:
    """The true part that covers most of each box; 0 where less than half of it is object."""
    parts = images.parts[similarity.image]
    whole = torch.ones_like(parts, dtype=torch.bool)
    where = summary_uses.in_boxes(whole, similarity.boxes)
    number = torch.arange(len(parts))
    return summary_uses.purity(parts, where, number, least=0.5).shown


def tags(study: Study, one: Explained, where: Tensor | None = None) -> list[frozenset[str]]:
    """Eight tags an image: in scenes the true names of its largest parts, within `where` if given;
    of photographs what an ImageNet network takes it for, since nothing else is known."""
    if one.images.parts is not None:
        return summary_uses.part_tags(one.images.parts, one.images.part_names, where)
    model, names, _ = study.tagger
    return summary_uses.classifier_tags(training.predict(model, one.images), names)


@stage(version=1)
def compare_tags(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fig. 4: of each network and class, the distance of tags within summaries and by chance."""
    rows, store = [], Store(study.root)
    for network, kind in product(study.main, study.kinds):
        one = _explained(study, store, study.number(network.title), kind)
        if not one.found.summaries:
            continue
        given = tags(study, one)
        merged, _ = summary_uses.merged(t for some in given for t in some)
        near = summary_uses.against_random(
            [s.images for s in one.found.summaries],
            summary_uses.renamed(given, merged),
            torch.Generator().manual_seed(0),
        )
        rows.append({"network": network.title, "class": kind, "mu_S": near.mu_s, "mu_R": near.mu_r})
    return {}, {"rows": rows, "synonyms": config["synonyms"]}


def named(one: Explained) -> pd.DataFrame:
    """Table 1 with an ideal tagger: each summary of scenes, the true part that most of its members
    show, the share that does, and how many they are."""
    if one.images.parts is None or not one.found.summaries:
        return pd.DataFrame(columns=["summary", "part", "purity", "images", "ssim"])
    rows, number, shown = members(one.found)
    pure = summary_uses.purity(one.images.parts[rows], shown, number)
    names = ("backdrop", *one.images.part_names[1:])
    return pd.DataFrame(
        {
            "summary": range(1, 1 + len(one.found.summaries)),
            "part": [names[k] for k in pure.part.tolist()],
            "purity": (100 * pure.share).tolist(),
            "images": [len(s.images) for s in one.found.summaries],
            "ssim": [s.ssim for s in one.found.summaries],
        }
    )


def parts_found(explained: Mapping[tuple[str, str], Explained]) -> pd.DataFrame:
    """Purity of the summaries and share of the class's true parts that one of them shows."""
    rows = []
    for (title, kind), one in explained.items():
        if one.images.parts is None or one.network.early or not one.found.summaries:
            continue
        shown, number, where = members(one.found)
        pure = summary_uses.purity(one.images.parts[shown], where, number)
        # the same members, shuffled among the summaries: what chance would give
        shuffle = np.random.default_rng(0)
        mixed = [
            summary_uses.purity(one.images.parts[shown], where, number[order]).share.mean().item()
            for order in (shuffle.permutation(len(number)) for _ in range(20))
        ]
        rows.append(
            {
                "network": title,
                "class": kind,
                "purity": 100 * pure.share.mean().item(),
                "purity, shuffled": 100 * float(np.mean(mixed)),
                "on the object": 100 * (pure.shown > 0).double().mean().item(),
                "found": 100 * summary_uses.found(pure.part, one.images.parts),
            }
        )
    return pd.DataFrame(rows)


@stage(version=1)
def compare_classes(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study, number: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """How alike the summaries of a network's classes are, (classes, classes); and for each adjacent
    pair how much more alike it is than other pairs."""
    store = Store(study.root)
    kinds = list(study.kinds)
    everything = concatenate(list(study.kinds.values()))
    boxes, images, summary, classes, start = [], [], [], [], 0
    for k, kind in enumerate(kinds):
        for s in _explained(study, store, number, kind).found.summaries:
            boxes.append(s.boxes)
            images.append(s.images + start)
            summary.append(torch.full_like(s.images, len(classes)))
            classes.append(k)
        start += len(study.kinds[kind])
    if not boxes:
        return {"alike": torch.full((len(kinds),) * 2, torch.nan)}, {}
    image, order = torch.cat(images).sort(stable=True)  # so that each image is described once
    of_image = torch.cat(boxes)[order].split(
        image.unique_consecutive(return_counts=True)[1].tolist()
    )
    white = proposal_flow.Whitening(**inputs["whitening"].tensors)
    described = [
        proposal_flow.describe(everything.images[row], some, white)
        for row, some in zip(image.unique_consecutive(), of_image, strict=True)
    ]
    alike = summary_uses.shared(
        torch.cat(described), torch.cat(summary)[order], torch.tensor(classes), len(kinds)
    )
    of = study.budget.classes  # look-alikes two by two; one may have been left out
    both = [pair for pair in zip(of[::2], of[1::2], strict=False) if set(pair) <= set(kinds)]
    pairs = [(kinds.index(a), kinds.index(b)) for a, b in both]
    return {"alike": alike, "beyond others": summary_uses.beyond_others(alike, pairs)}, {}


# ---------------------------------------------------------------- pictures for tables of pictures


def mask_pictures(study: Study) -> Pictures:
    """Fig. 3: one image of each class, and the first network's masks of it; yellow is removed."""
    title = study.main[0].title
    number, store = study.number(title), Store(study.root)
    columns: list[Tensor] = []
    for kind in study.kinds:
        one = _explained(study, store, number, kind)
        iebb = _asked(study, store, ("iebb", number, kind)).tensors["masks"]
        image = one.images.images[:1]
        masks = [iebb[:1], one.masks["smooth"][:1], one.masks["crisp"][:1]]
        columns.append(torch.cat([image] + [figures.heated(image, 1 - m) for m in masks]))
    rows = ["image", "IEBB", "smooth phase", "crisp phase"]
    return torch.stack(columns, 1), rows, list(study.kinds)


def table_two(study: Study) -> pd.DataFrame:
    """The drop of each image of the first network under each mask, in percent; and the share of
    each mask's pixels that are nearly 0 or 1."""
    title = study.main[0].title
    number, store, tables = study.number(title), Store(study.root), []
    for kind in study.kinds:
        compared = _asked(study, store, ("iebb", number, kind)).tensors
        masks = _asked(study, store, ("masks", number, kind)).tensors
        table = {name: compared[f"drop: {name}"] for name in ("IEBB", "IEBB thresh.", "crisp")}
        for phase in ("smooth", "crisp"):
            table[f"binary: {phase}"] = 100 * crisp_masks.binary_share(masks[phase])
        tables.append(pd.DataFrame({k: v.double().numpy() for k, v in table.items()}))
    return pd.concat(tables, ignore_index=True)


def losses(study: Study) -> dict[str, Tensor]:
    """The mean loss before each step, by network; the last phase begins at step 300."""
    store = Store(study.root)
    return {
        network.title: torch.cat(
            [_asked(study, store, ("masks", n, kind)).tensors["losses"] for kind in study.kinds], 1
        ).mean(1)
        for n, network in enumerate(study.networks)
        if not network.early
    }


_COLOURS = ("vermilion", "blue", "green", "orange", "purple")


@stage(version=1)
def draw_matches(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The five strongest matches of small boxes between two images of a class, by appearance alone
    and by local offset matching; equal colours match."""
    kind = next((k for k in reversed(study.kinds) if len(study.kinds[k]) > 1), None)
    if kind is None:
        return {}, {"class": None}
    images = study.kinds[kind].images
    white = proposal_flow.Whitening(**inputs["whitening"].tensors)
    boxes, described = propose(images[:2], white, config["boxes"], config["enlarge"])
    size = images.shape[2]
    rows = {}
    for title, rule in {"appearance (NAM)": "nam", "offsets (LOM)": "lom"}.items():
        sure = matching(images, rule)(boxes[0], described[0], boxes[1], described[1])
        best, chosen = sure.max(1)
        area = (boxes[0][:, 2:] - boxes[0][:, :2]).prod(1) / size**2
        best[(area > 0.15) | (area < 0.01)] = 0
        top = best.argsort(descending=True)[: len(_COLOURS)]
        pair = zip(images, (boxes[0][top], boxes[1][chosen[top]]), strict=False)
        rows[title] = torch.stack(
            [figures.framed(image, some, _COLOURS, 2 * larger(images)) for image, some in pair]
        )
    return rows, {"class": kind}


def walk(study: Study, one: Explained, most: int = 4) -> Pictures:
    """Fig. 2: the pipeline's steps on images of one class's largest summary."""
    summary = one.found.summaries[0]
    rows = summary.images[:most]
    images = one.images.images[rows]
    similarity = study.similarity(one.kind)[: len(one.images)]
    kept = vs.parts(one.found.regions, similarity)
    enlarge = max(1, 192 // images.shape[2])
    bigger = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)

    def boxed(boxes: Tensor, of: Tensor, colour: str) -> Tensor:
        drawn = [
            figures.framed(image, boxes[of == row], colour, enlarge)
            for row, image in zip(rows, images, strict=True)
        ]
        return torch.stack(drawn)

    masks = figures.heated(images, 1 - one.masks["crisp"][rows])
    regions = one.found.region_of(summary)[:most]
    shown = vs.painted(images, regions, summary.boxes[:most], enlarge=enlarge)
    columns = {
        "image": bigger,
        "crisp mask": masks.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3),
        f"{study.budget.boxes} proposals at most": boxed(similarity.boxes, similarity.image, "sky"),
        "in a region": boxed(kept.boxes, kept.image, "orange"),
        "this summary's part": shown,
    }
    return torch.stack(list(columns.values()), 1), [""] * len(rows), list(columns)


def gallery(one: Explained, most: int = 5, columns: int = 6) -> tuple[Tensor, Tensor, list[str]]:
    """Fig. 1: a network's summaries of a class, one a row, the largest first: the pictures (rows,
    columns, 3, h, w), which cells are empty, and the rows' names. None: no rows."""
    summaries = one.found.summaries[:most]
    _, _, h, w = one.images.images.shape
    enlarge = max(1, 192 // h)
    pictures = torch.zeros(len(summaries), columns, 3, enlarge * h, enlarge * w, dtype=torch.uint8)
    absent = torch.ones(len(summaries), columns, dtype=torch.bool)
    known = named(one)
    names = []
    for row, summary in enumerate(summaries):
        some = slice(0, columns)
        shown = vs.painted(
            one.images.images[summary.images[some]],
            one.found.region_of(summary)[some],
            summary.boxes[some],
            enlarge=enlarge,
        )
        pictures[row, : len(shown)], absent[row, : len(shown)] = shown, False
        part = f": {known.part[row]} {known.purity[row]:.0f} %" if len(known) else ""
        names.append(f"{row + 1}{part} ({len(summary.images)} images)")
    return pictures, absent, names


def side_by_side(
    explained: Mapping[tuple[str, str], Explained], titles: Sequence[str], kind: str
) -> tuple[Tensor, Tensor, list[str], dict[str, int]]:
    """Fig. 5: the four largest summaries of a class in several networks, as `gallery` gives them,
    and how many rows are each network's."""
    found = {title: gallery(explained[title, kind], most=4) for title in titles}
    pictures = torch.cat([shown for shown, _, _ in found.values()])
    absent = torch.cat([empty for _, empty, _ in found.values()])
    names = [name for _, _, some in found.values() for name in some]
    return pictures, absent, names, {t: len(some) for t, (_, _, some) in found.items() if some}


def corrected(study: Study, most: int = 6) -> tuple[str, Tensor, list[str]]:
    """Fig. 6: the first network whose specialists put images right, some of these, and of each what
    it was taken for, what it is, and the part of the summary responsible."""
    for network in study.main:
        found = study.experiments(network.title)
        if "svm: rows" not in found:
            continue
        right = torch.nonzero(~found["svm: before"] & found["svm: after"])[:most, 0]
        if len(right):
            break
    else:
        return "any network", torch.zeros(0, 3, 1, 1, dtype=torch.uint8), []
    images = study.held_out[found["svm: rows"][right]]
    number, store = study.number(network.title), Store(study.root)
    before = training.predict(network.model, images, device=study.device).argmax(1)
    names, titles = images.class_names, []
    for row, was in zip(right.tolist(), before.tolist(), strict=True):
        expert = found["svm: responsible"][row]
        kind = names[int(found["svm: classes"][expert])]
        table = named(_explained(study, store, number, kind))
        part = table.part[int(found["svm: numbers"][expert])] if len(table) else "summary"
        titles.append(f"{names[was]} → {names[int(found['svm: chosen'][row])]} ({part})")
    return network.title, images.images, titles


def sheets(study: Study, title: str, columns: int = 6) -> tuple[list[np.ndarray], list[int]]:
    """Every summary of a network as one picture of its first members side by side, for the tagging
    panel, and the class of each."""
    pictures, classes, store = [], [], Store(study.root)
    for k, kind in enumerate(study.kinds):
        one = _explained(study, store, study.number(title), kind)
        shown, absent, _ = gallery(one, most=len(one.found.summaries), columns=columns)
        for row, empty in zip(shown, absent, strict=True):
            bigger = row[~empty].permute(2, 0, 3, 1).flatten(1, 2)  # (h, members w, 3)
            pictures.append(bigger.numpy())
            classes.append(k)
    return pictures, classes


def specialisation(study: Study) -> pd.DataFrame:
    """Section 4.4 for every network: test accuracy in percent before and after, the chosen weight,
    and how many images were put right and spoiled."""
    rows = {}
    for network in study.main:
        found = study.experiments(network.title)
        if "svm: before" not in found:
            continue
        before, after = found["svm: before"], found["svm: after"]
        rows[network.title] = {
            "before": 100 * before.double().mean().item(),
            "after": 100 * after.double().mean().item(),
            "weight of the SVMs": found["svm: weight"].item(),
            "put right": int((~before & after).sum()),
            "spoiled": int((before & ~after).sum()),
            "images": len(before),
        }
    return pd.DataFrame(rows).T


def gains(study: Study, title: str) -> Tensor | None:
    """The change of each test image, in points: 100 put right, -100 spoiled; None without any."""
    found = study.experiments(title)
    if "svm: before" not in found:
        return None
    return 100 * (found["svm: after"].double() - found["svm: before"].double())


def absences(study: Study) -> pd.DataFrame:
    """Accuracy (%) of every network without the parts of its summaries, and without an equal area
    elsewhere; all images were right before. `area` is what the parts cover, in percent."""
    rows = {}
    for network in study.main:
        found, row = study.experiments(network.title), {}
        for where in ("anywhere", "on the object"):
            if f"{where}: room" not in found:
                continue
            room = found[f"{where}: room"]
            row |= {
                f"without the parts ({where})": found[f"{where}: without_parts"][room],
                f"without as much {where}": found[f"{where}: without_others"][room],
                f"images ({where})": room,
            }
            row.setdefault("area", found[f"{where}: share"])
        rows[network.title] = {  # empty where no image has a summary's part
            k: int(v.sum()) if k.startswith("images") else 100 * v.double().mean().item()
            for k, v in row.items()
        }
    return pd.DataFrame(rows).T


def failures(study: Study, title: str, where: str = "anywhere") -> Tensor | None:
    """Of each image, in points: 100 if only erasing the parts makes it wrong, -100 if only erasing
    an equal area elsewhere does. None where no image has a summary's part."""
    found = study.experiments(title)
    if f"{where}: room" not in found:
        return None
    without, others = (found[f"{where}: without_{k}"].double() for k in ("parts", "others"))
    return 100 * (others - without)[found[f"{where}: room"]]


def drop_origins(study: Study) -> pd.DataFrame:
    """Where the masks' drop comes from, in percent: the whole crisp mask, its part on the object
    alone, and its part on the backdrop alone; and how much of its area is on the object, and how
    much of the image the object covers. Empty without masks of objects."""
    rows = {}
    for network in study.main:
        found = study.experiments(network.title)
        if "drop: mask" in found:
            rows[network.title] = {
                "drop": found["drop: mask"].double().mean().item(),
                "object's part alone": found["drop: on_object"].double().mean().item(),
                "backdrop's part alone": found["drop: on_backdrop"].double().mean().item(),
                "removed area on the object": 100 * found["removed: on object"].mean().item(),
                "of a central disc of that area": 100 * found["disc: on object"].mean().item(),
                "object's area": 100 * found["object: area"].mean().item(),
                "removed area": 100 * found["removed: area"].mean().item(),
            }
    return pd.DataFrame(rows).T


# What is asked about all classes at once: the stage, the results it builds on, and whether it is
# about one network.
_WHOLE: dict[str, tuple[Stage, tuple[str, ...], bool]] = {
    "facing": (face_each_other, ("boxes",), False),
    "adjacent": (compare_classes, ("summaries",), True),
    "uses": (use_summaries, ("masks", "summaries"), True),
    "coherence": (compare_tags, ("summaries",), False),
    "keypoints": (match_keypoints, (), False),
    "matches": (draw_matches, (), False),
}
