"""The capstone's study: one network, one image, all four papers; then networks x lenses.

    study = assemble(course)
    found = study.run()
    agreement(study, found)     # do the lenses agree, and more than their controls?
    by_network(study, found)    # the final table

The networks are those of notebooks 01 and 04: where these have run, nothing is trained again. The
lenses are in `helpers.four_lenses`; paintings, judges, masks, summaries, backtracking, BG-gaps and
adversarial backgrounds come from the four papers' own modules, by the same keys of the store.

Every map is about the class that the network names, right or wrong: the question is where the
evidence for its own answer lies. Scenes have true masks, so "on the object" is exact there.

`one` is for the live panel, `own` for a folder of your own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from scipy.stats import rankdata
from torch import Tensor, nn
from tqdm import tqdm

from helpers import background_removal as br
from helpers import backgrounds, backtracking_study, crisp_masks, models, photos, training
from helpers import feature_visualization as fv
from helpers import four_lenses as fl
from helpers import imagenet9_study as in9
from helpers import summary_study as ss
from helpers.backtracking import SHARP
from helpers.budget import FourLenses
from helpers.course import Course
from helpers.four_lenses import CAM, CENTRE, LENSES, MAPS, MASK, PAINTING, PATCHES, PATHS
from helpers.imagenet9_study import Network
from helpers.imageset import ImageSet
from helpers.parallel import each, own_first
from helpers.store import Keyed, Named, Result, Store, stage

ROBUST = "standard, robust"  # paper 1's standard network with small adversarial training
UNTRAINED = Network("untrained")
UNMODIFIED, BLACK = "unmodified", "black"
_COMPARED = ("original", "mixed_rand")  # whose summaries are counted
_PAIRS = tuple(combinations(LENSES, 2))
# painting and Grad-CAM are both enlarged from the last feature maps: alike by construction
_APART = tuple(pair for pair in _PAIRS if pair != (PAINTING, CAM))
_MIXED = ("original", "mixed_same", "mixed_rand")  # the test sets of accuracy and BG-gap


@dataclass(frozen=True)
class Seen:
    """Everything that the four lenses say of one network."""

    network: Network
    targets: Int64[Tensor, " n"] = field(repr=False)  # the class it names in each image
    probability: Float[Tensor, " n"] = field(repr=False)
    right: Bool[Tensor, " n"] = field(repr=False)
    maps: dict[str, Float[Tensor, "n h w"]] = field(repr=False)  # by lens, PATCHES among them
    # backtracked points on the object beyond its area, percentage points; by UNMODIFIED and BLACK
    points: dict[str, Float[Tensor, " m"]] = field(repr=False)
    paintings: dict[str, UInt8[Tensor, "k 3 h w"]] = field(repr=False)  # by starting image
    named: float  # share of its paintings whose class judges name, percent
    accuracy: float = float("nan")  # on the test images, percent
    gap: float = float("nan")  # BG-gap, points
    fooled: float = float("nan")  # objects with an adversarial background, percent
    summaries: dict[str, ss.vs.Summaries] = field(default_factory=dict, repr=False)  # by class

    @property
    def summaries_per_class(self) -> float:
        """NaN where they were not asked for."""
        counts = [len(found.summaries) for found in self.summaries.values()]
        return float(np.mean(counts)) if counts else float("nan")


@dataclass(frozen=True)
class Study:
    """Networks and images. All image sets have masks."""

    budget: FourLenses
    four: in9.Study  # paper 4's, with the networks that are looked through
    networks: tuple[Network, ...]  # the trained ones, in the order of tables
    images: ImageSet  # that every lens looks at
    donors: ImageSet  # whose patches are put into these: the first image's, the second's, ...
    points: dict[str, ImageSet]  # that are backtracked: unmodified, and the same on black
    ascent: fv.Ascent  # how all networks paint
    judges: dict[str, tuple[nn.Module, Keyed]] = field(repr=False)
    known: dict[Any, Any] = field(default_factory=dict, repr=False, init=False)  # for `one`

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"known": {}}  # other processes build what they need

    @property
    def root(self) -> Path:
        """Of the store."""
        return self.four.root

    @property
    def device(self) -> torch.device:
        return self.four.device

    @property
    def class_titles(self) -> tuple[str, ...]:
        return self.four.class_titles

    @property
    def trained_on(self) -> list[str]:
        """The training sets, in the order of tables."""
        return list(dict.fromkeys(network.on for network in self.networks))

    @property
    def groups(self) -> list[str]:
        """What each network was trained on."""
        return [network.on for network in self.networks]

    def run(self) -> dict[Network, Seen]:
        """Look through all lenses at all networks, the untrained one last; what the store lacks is
        computed, as many networks at once as there are cores."""
        studied = self.four.run()
        kinds = self.kinds(studied)
        common = (self, kinds)
        jobs: list[_Job] = [("boxes", None, kind) for kind in kinds]
        jobs += [("lenses", network, "") for network in (*self.networks, UNTRAINED)]
        jobs += [("summaries", n, k) for n in self._summarised for k in kinds]
        store, done = Store(self.root), {}
        for job in jobs:
            with suppress(LookupError):
                done[job] = _answer(common, job, store.recall)
        missing = own_first([job for job in jobs if job not in done])
        shown = {"desc": "lenses", "file": sys.stdout, "leave": False, "disable": not missing}
        made = each(_compute, common, missing, device=self.device)
        done |= tqdm(made, total=len(missing), **shown)
        found = {}
        for network in (*self.networks, UNTRAINED):
            seen = done["lenses", network, ""]
            if network in studied:
                of_four = studied[network]
                numbers = {"accuracy": of_four.accuracy("original"), "gap": of_four.gap}
                seen = replace(seen, **numbers, fooled=of_four.fooled)
            of_kind = {k: done["summaries", network, k] for k in kinds if network.on in _COMPARED}
            found[network] = replace(seen, summaries=of_kind)
        return found

    @property
    def _summarised(self) -> list[Network]:
        return [network for network in self.networks if network.on in _COMPARED]

    def kinds(self, studied: Mapping[Network, in9.Studied]) -> dict[str, ImageSet]:
        """The images whose summaries are counted, by class: the first ones that all networks
        trained on Original and on Mixed-Rand classify right. Classes with fewer than two of them
        are left out."""
        test = self.four.test["original"]
        right = torch.ones(len(test), dtype=torch.bool)
        for network in self._summarised:
            right &= studied[network].right("original")
        kinds = {}
        for label, name in enumerate(self.class_titles[: self.budget.classes]):
            rows = torch.nonzero(right & (test.labels == label))[: self.budget.summarised, 0]
            if len(rows) > 1:
                kinds[name] = test[rows]
        return kinds


_Job = tuple[str, Network | None, str]  # what, of which network, of which class
_Common = tuple[Study, dict[str, ImageSet]]


def name_of(network: Network) -> str:
    """What a network's training set is called in tables."""
    known = in9.TRAINED_ON | {ROBUST: "Original, robust", UNTRAINED.on: "untrained"}
    return known[network.on]


# ---------------------------------------------------------------- jobs and stages


def _compute(common: _Common, job: _Job) -> Any:
    return _answer(common, job, Store(common[0].root).get_or_compute)


def _answer(common: _Common, job: _Job, ask: Callable[..., Result]) -> Any:
    what, network, kind = job
    study, kinds = common
    if what == "boxes":
        return _boxes(study, kinds[kind], ask)
    if what == "summaries":
        images = kinds[kind]
        made, model = _network(study, network, ask)
        inputs = {"images": images, "masks": _masks(study, made, model, images, ask)}
        inputs["boxes"] = _boxes(study, images, ask)
        return ss._unpacked(ask(ss.summarise_class, {}, inputs, {}))
    return _seen(study, network, ask)


def _boxes(study: Study, images: ImageSet, ask: Callable[..., Result]) -> Result:
    test = study.four.test["original"]
    white = ask(ss.learn_whitening, {}, {"images": test[:: max(1, len(test) // 60)]}, {})
    config = {"boxes": study.budget.boxes, "enlarge": study.budget.enlarge}
    return ask(ss.compare_boxes, config, {"images": images, "whitening": white}, {})


def _masks(
    study: Study, made: Keyed, model: nn.Module, images: ImageSet, ask: Callable[..., Result]
) -> Result:
    """Masks of the labels' classes, as notebook 02 makes them."""
    recipe = study.four.budget.recipe
    precision = training.settled(recipe).precision if recipe else "float32"
    schedule = asdict(crisp_masks.SCHEDULES[study.budget.schedule])
    config = {"schedule": schedule, "precision": precision, "batch": study.budget.batch}
    how = {"model": model, "device": study.device}
    return ask(ss.make_masks, config, {"network": made, "images": images}, how)


def _network(study: Study, network: Network, ask: Callable[..., Result]) -> tuple[Keyed, nn.Module]:
    """What made a network, and the network itself in eval mode."""
    four = study.four
    if network == UNTRAINED:
        if four.budget.recipe is None:
            from helpers.saliency import randomised

            backbone = in9._backbone(four.budget)
            first = _network(study, study.networks[0], ask)[1]
            return Named(f"{backbone} randomised, seed 0"), randomised(first, 0).eval()
        config = {"architecture": four.budget.architecture, "seed": 0}
        config["in9_mean"] = four.budget.in9_mean
        model = in9._untrained(config, len(four.class_titles)).eval()
        key = f"untrained {config} {len(four.class_titles)} classes"
        return Named(key), model.to(four.device, memory_format=torch.channels_last)
    if network.on == ROBUST:
        made = br.fitted(four.paper_one, _variant(network), ask)
        return made, four.paper_one.network(made)
    made = in9._made(four, network, ask)
    return made, in9._model(four, network, made).to(four.device)


def _variant(network: Network) -> br.Variant | None:
    """The same network in paper 1's study, if it is one of these."""
    if network.on == ROBUST:
        return br.Variant("standard", network.seed, robust=True)
    background = in9._PAPER_ONE.get(network.on)
    return background and br.Variant(background, network.seed)


def _seen(study: Study, network: Network, ask: Callable[..., Result]) -> Seen:
    """One network through all lenses; each result is asked for by its key."""
    four, budget = study.four, study.budget
    made, model = _network(study, network, ask)
    how = {"device": study.device, "model": model}
    paintings = _painted(study, network, made, model, ask)
    config = {"width": SHARP, "patch": budget.patch, "donors": budget.donors}
    inputs = {"network": made, "images": study.images, "donors": study.donors}
    looked = ask(see, config, inputs | {"paintings": paintings}, how).tensors
    targets = looked["targets"]
    asked = replace(study.images, labels=targets)
    masks = _masks(study, made, model, asked, ask).tensors["crisp"]
    points = {}
    for name, images in study.points.items():
        rules = asdict(backtracking_study.RULES["default"])
        config = {"rules": rules, "start": "predicted"}
        inputs = {"network": made, "images": images}
        followed = ask(
            backtracking_study.follow_paths, config, inputs, how | {"batch_size": budget.batch}
        )
        points[name] = fl.beyond_area(followed.tensors["pixels"], images.masks).float()
    judges = {f"judge {name}": key for name, (_, key) in study.judges.items()}
    told = ask(name_paintings, {}, {"paintings": paintings} | judges, {"study": study})
    numbers = {}
    if network.on == ROBUST:
        tests = four.test
        how = {"device": study.device, "build": partial(_itself, model)}
        answered = ask(
            in9.classify_variants, {"reading": None}, {"network": made} | tests, how
        ).tensors
        accuracy = {
            name: 100 * (answered[name] == tests[name].labels).double().mean().item()
            for name in _MIXED
        }
        numbers["accuracy"] = accuracy["original"]
        numbers["gap"] = accuracy["mixed_same"] - accuracy["mixed_rand"]
    return Seen(
        network=network,
        targets=targets,
        probability=looked["probability"],
        right=targets == study.images.labels,
        maps={
            PAINTING: looked[PAINTING],
            MASK: fl.removed(masks).clamp(0, 1),
            PATHS: looked[PATHS],
            CAM: looked[CAM],
            PATCHES: looked[PATCHES],
        },
        points=points,
        paintings={start: paintings.tensors[start] for start in fv.STARTS},
        named=100 * told.values["named"],
        **numbers,
    )


def _itself(model: nn.Module) -> nn.Module:
    return model


def _painted(
    study: Study, network: Network, made: Keyed, model: nn.Module, ask: Callable[..., Result]
) -> Result:
    """A network's paintings: notebook 01's, or the same climbs by a network it does not have."""
    paper_one, variant = study.four.paper_one, _variant(network)
    if paper_one is not None and variant is not None:
        climbs = br.climbs(paper_one.budget, variant)
        config = {"climbs": {name: asdict(climb) for name, climb in climbs.items()}}
        how = {"study": paper_one, "variant": variant, "model": model}
        inputs = {"network": made, "train": paper_one.train}
        return ask(br.paint, config | {"seed": variant.seed}, inputs, how)
    config = {"on": network.on, "seed": network.seed, "how": asdict(study.ascent)}
    config["classes"] = len(study.class_titles)
    how = {"model": model, "device": study.device}
    return ask(paint_alike, config, {"network": made, "train": study.four.train}, how)


@stage(version=1)
def paint_alike(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A painting of every class from each of notebook 01's starting images, as uint8. The untrained
    network's mean image is that of the images as they are.

    Config: on, seed, how (the ascent), classes. Inputs: network, train.
    """
    on = "original" if config["on"] == UNTRAINED.on else config["on"]
    shown = in9.training_set(inputs["train"], on, config["seed"])
    classes, how = config["classes"], fv.Ascent(**config["how"])
    targets = torch.arange(classes, device=device)
    painted = {}
    for start in fv.STARTS:
        begin = fv.starts(start, classes, shown, seed=config["seed"]).to(device)
        ended = fv.ascend(model, targets, begin, how, seed=config["seed"])
        painted[start] = (255 * ended).round().byte().cpu()
    return painted, {}


@stage(version=1)
def name_paintings(
    config: Mapping[str, Any], inputs: Mapping[str, Any], work: Path, *, study: Study
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The share of paintings, from all starting images, whose class the judges name first.

    Judges, starting images and classes count alike, as in notebook 01.
    Inputs: paintings, and a key for each judge.
    """
    painted = inputs["paintings"].tensors
    pictures = torch.cat([painted[start] for start in fv.STARTS]).to(study.device).float() / 255
    targets = torch.arange(len(study.class_titles), device=study.device).repeat(len(fv.STARTS))
    named = {
        name: fv.judged(judge, pictures, targets)["right"].cpu()
        for name, (judge, _) in study.judges.items()
    }
    share = torch.stack(list(named.values())).double().mean().item()
    return named, {"named": share}


@stage(version=1)
def see(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The quick lenses on images, each about the class that the network names.

    Config: width, patch, donors. Inputs: network, images, donors, paintings (the grey start's).
    """
    images, others = inputs["images"].to_float(device), inputs["donors"].to_float(device)
    with models.frozen(model), torch.no_grad():
        said = model(images).float().softmax(1)
    probability, targets = said.max(1)
    paintings = inputs["paintings"].tensors["grey"].to(device).float() / 255
    maps = quick_lenses(model, images, targets, paintings, width=config["width"])
    maps[PATCHES] = fl.exchanged(
        models.folded(model),
        images,
        targets,
        others.view(len(images), config["donors"], *images.shape[1:]),
        side=max(1, round(config["patch"] * min(images.shape[2:]))),
    )
    tensors = maps | {"targets": targets, "probability": probability}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {}


def quick_lenses(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    paintings: Float[Tensor, "k 3 a b"],
    width: float = SHARP,
) -> dict[str, Float[Tensor, "n h w"]]:
    """Lenses 1, 3 and 4, which take milliseconds on a slim network; by name."""
    return {
        PAINTING: fl.resemblance(model, images, targets, paintings),
        PATHS: fl.paths(model, images, targets, width),
        CAM: fl.cam(model, images, targets),
    }


# ---------------------------------------------------------------- networks and images


def assemble(course: Course) -> Study:
    """Paper 4's networks and test images as far as the lenses need them, and the judges.

    Scenes: the nine classes of notebooks 01 and 04, their judges from notebook 01. Photographs:
    VOC's dogs and cats, or the public release of ImageNet-9; the judges are pretrained networks
    other than the one that learned the variants.

    Raises:
        ValueError: the profile has no such study, or no network to look through.
        helpers.photos.MissingDataset: photographs that are not there.
    """
    profile, budget = course.profile, course.profile.lenses
    if budget is None or profile.imagenet9 is None or profile.backgrounds is None:
        raise ValueError(f"profile {profile.name!r} has no budget for this study")
    if course.limit:
        few = ("per_class", "points", "summarised")
        budget = replace(budget, **{k: min(course.limit, getattr(budget, k)) for k in few})
    scenes = profile.source == "scenes"
    less = profile.imagenet9
    if scenes:  # other worlds and architectures are notebook 04's alone
        less = replace(less, ties=(), others=(), pretrained=())
    four = in9.assemble(replace(course, profile=replace(profile, imagenet9=less)))
    wanted = [Network(on, seed) for on, seeds in budget.networks for seed in range(seeds)]
    networks = tuple(n for n in wanted if n in four.plans or (scenes and n.on == ROBUST))
    if not networks:
        raise ValueError(
            "there is no trained network to look through: this profile has no training images "
            "(see data/README.md)"
        )
    four = replace(four, plans={n: four.plans[n][:1] for n in networks if n in four.plans})
    test = four.test["original"]
    if test.masks is None:
        raise ValueError("the test images have no masks, so nobody knows where the objects are")
    images = test.examples(budget.per_class)
    several = test.examples(max(1, budget.points // len(test.labels.unique())))
    usual = br.usual(profile.backgrounds)
    factor = profile.backgrounds.size / images.images.shape[-1]  # the norm grows with the area
    return Study(
        budget=budget,
        four=four,
        networks=networks,
        images=images,
        donors=_donors(test, images, budget.donors),
        points={UNMODIFIED: several, BLACK: backgrounds.black(several)},
        ascent=replace(usual, l2=usual.l2 * factor**2),
        judges=_judges_of_paper_one(course, four) if scenes else _pretrained_judges(four),
    )


def _donors(test: ImageSet, images: ImageSet, count: int) -> ImageSet:
    """For each image `count` others of other classes, drawn once for all networks."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for label in images.labels.tolist():
        others = torch.nonzero(test.labels != label)[:, 0]
        if not len(others):
            raise ValueError("patches come from images of other classes, and there is one class")
        rows.append(others[torch.randint(len(others), (count,), generator=generator)])
    return test[torch.cat(rows)]


def _judges_of_paper_one(course: Course, four: in9.Study) -> dict[str, tuple[nn.Module, Keyed]]:
    """Notebook 01's two judges that know objects, found by what made them."""
    budget = course.profile.backgrounds
    recipe = training.settled(budget.judge_recipe)
    tutors = [course.images(s).only(four.train.class_names) for s in _TUTORS]
    made = training.all_trained(
        course.store, [(budget.judge, t, recipe) for t in tutors], device=course.device
    )
    return dict(zip(br.JUDGES[:2], made, strict=True))


_TUTORS = ("judges", "judges elsewhere")


def _pretrained_judges(four: in9.Study) -> dict[str, tuple[nn.Module, Keyed]]:
    """Every pretrained network but the one that got the new last layers."""
    groups = four.groups
    if not groups:
        of_nine = four.readings[""]
        groups = tuple(
            tuple(torch.nonzero(of_nine == k)[:, 0].tolist()) for k in range(len(four.class_titles))
        )
    own = in9._backbone(four.budget)
    strangers = {t: p for t, p in four.loaded.items() if t != own} or four.loaded
    if not strangers:
        raise ValueError("no pretrained network is there to judge paintings")
    return {
        title: (
            in9._Choice(loaded.model, groups).to(four.device).eval(),
            Named(f"{loaded.sha256} {groups}"),
        )
        for title, loaded in strangers.items()
    }


# ---------------------------------------------------------------- one network, one image


@dataclass(frozen=True, eq=False)
class One:
    """One image through all lenses of one network."""

    network: Network
    picture: UInt8[Tensor, "3 h w"]
    target: int  # the class that is asked about
    said: dict[str, float]  # probability of every class, the likeliest first
    painting: UInt8[Tensor, "3 h w"]  # the network's own, of that class
    maps: dict[str, Float[Tensor, "h w"]]  # by lens; MASK only where it was kept
    # the mask while it is being made: `for share, map in one.slices(): ...`
    slices: Callable[..., Iterator[tuple[float, Float[Tensor, "h w"]]]] = field(repr=False)


def one(
    study: Study,
    network: Network,
    image: int | UInt8[Tensor, "3 h w"],
    target: int | None = None,
) -> One:
    """One image through the lenses, for a figure or a live panel.

    Lenses 1, 3 and 4 are computed at once, which takes milliseconds on a slim network. The mask is
    slow: `One.slices()` makes it in slices, and whoever no longer wants it stops asking.

    Args:
        image: a row of `study.images`, whose masks and exchanged patches are shown where `run` has
            made them; or any picture of the networks' size.
        target: the class that is asked about; by default the one the network names.

    Raises:
        LookupError: the network is not in the store; call `run` first.
        ValueError: a picture of another shape, or a class there is none of.
        IndexError: no such row.
    """
    model, paintings = _ready(study, network)
    kept = isinstance(image, int)
    picture = study.images.images[image] if kept else image
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.dtype != torch.uint8:
        raise ValueError(f"a picture is bytes (3, h, w), not {picture.dtype} {picture.shape}")
    if target is not None and not 0 <= target < len(study.class_titles):
        raise ValueError(f"no class {target}; there are 0 to {len(study.class_titles) - 1}")
    images = picture[None].to(study.device).float() / 255
    with models.frozen(model), torch.no_grad():
        said = model(images).float().softmax(1)[0]
    named = int(said.argmax())
    asked = named if target is None else target
    targets = torch.tensor([asked], device=study.device)
    maps = quick_lenses(model, images, targets, paintings.to(study.device).float() / 255)
    maps = {name: found[0].cpu() for name, found in maps.items()}
    if kept and asked == named:
        with suppress(LookupError):
            seen = _kept(study, network)
            maps |= {name: seen.maps[name][image] for name in (MASK, PATCHES)}
    order = said.argsort(descending=True).tolist()

    def slices(every: int = 15) -> Iterator[tuple[float, Float[Tensor, "h w"]]]:
        schedule = crisp_masks.SCHEDULES[study.budget.schedule]
        for share, found in fl.mask_slices(model, images, targets, schedule, every=every):
            yield share, found[0].cpu()

    return One(
        network=network,
        picture=picture,
        target=asked,
        said={study.class_titles[k]: float(said[k]) for k in order},
        painting=paintings[asked],
        maps={name: maps[name] for name in MAPS if name in maps},
        slices=slices,
    )


def _ready(study: Study, network: Network) -> tuple[nn.Module, Tensor]:
    """A network and its paintings, built once."""
    if network not in study.known:
        recall = Store(study.root).recall
        made, model = _network(study, network, recall)
        painted = _painted(study, network, made, model, recall)
        study.known[network] = model, painted.tensors["grey"]
    return study.known[network]


def _kept(study: Study, network: Network) -> Seen:
    if ("seen", network) not in study.known:
        study.known["seen", network] = _seen(study, network, Store(study.root).recall)
    return study.known["seen", network]


# ---------------------------------------------------------------- your own


@dataclass(frozen=True, eq=False)
class Own:
    """Your own images through your own network."""

    looked: fl.Looked
    images: ImageSet
    refused: tuple[photos.Refusal, ...]  # files that were not used, and why


def own(
    folder: str | PathLike[str],
    weights: str | nn.Module = "MobileNet_V2_Weights.IMAGENET1K_V1",
    *,
    class_names: Sequence[str] | None = None,
    size: int = 224,
    limit: int | None = 6,
    schedule: str | crisp_masks.Schedule | None = None,
    torch_home: Path | None = None,
    progress: Callable[[str], object] | None = None,
) -> Own:
    """Your own network and your own folder of images, through all lenses.

    Files that cannot be read are named, with the reason, and left out.

    Args:
        folder: pictures, or class folders of pictures.
        weights: pretrained weights by their full name, torchvision's or timm's ("timm:..."), see
            `models.pretrained`; or any network, with the names of its outputs in `class_names`.
        limit: pictures at most, spread over the folders.
        schedule: of the masks, which take a minute an image on a processor: a name in
            `crisp_masks.SCHEDULES`, or None to leave lens 2 out.
        torch_home: where weights are looked for first.

    Raises:
        FileNotFoundError: no such folder, or weights that cannot be had.
        ValueError: not one usable picture (the first unusable files are named), a network that is
            no CNN, a network without class names, or no such schedule.
    """
    loaded = photos.folder(folder, size=size, limit=limit)
    if isinstance(weights, nn.Module):
        model, names = weights, class_names
        if names is None:
            raise ValueError("give class_names, the names of the network's outputs in their order")
    else:
        pretrained = models.pretrained(weights, torch_home=torch_home)
        model, names = pretrained.model, class_names or pretrained.categories
    if isinstance(schedule, str):
        if schedule not in crisp_masks.SCHEDULES:
            known = ", ".join(crisp_masks.SCHEDULES)
            raise ValueError(f"no schedule {schedule!r}; there are {known}")
        schedule = crisp_masks.SCHEDULES[schedule]
    looked = fl.look(model, loaded.images.to_float(), names, schedule=schedule, progress=progress)
    return Own(looked, loaded.images, loaded.refused)


# ---------------------------------------------------------------- do the lenses agree?


def maps_of(study: Study, seen: Seen) -> dict[str, Float[Tensor, "n h w"]]:
    """A network's maps, and the centred Gaussian as one more."""
    from helpers.saliency import centre_gaussian

    return seen.maps | {CENTRE: centre_gaussian(*study.images.masks.shape)}


def agreements(
    study: Study, found: Mapping[Network, Seen], cells: int | None = None
) -> dict[tuple[str, str], dict[str, Float[Tensor, "networks n"]]]:
    """For every two of MAPS the rank correlation of their maps, networks x images: "image" within
    an image, "others" with the second lens's maps of the other images, "untrained" (one row) within
    an image of the untrained network. On a grid of `cells`, by default the budget's."""
    cells = cells or study.budget.cells

    def ranks(network: Network) -> dict[str, Tensor]:
        maps = maps_of(study, found[network])
        return {lens: fl.cell_ranks(maps[lens], cells) for lens in MAPS}

    trained, blank = [ranks(network) for network in study.networks], ranks(UNTRAINED)
    return {
        (a, b): {
            "image": torch.stack([(of[a] * of[b]).sum(1) for of in trained]),
            "others": torch.stack([fl.with_others(of[a], of[b]) for of in trained]),
            "untrained": (blank[a] * blank[b]).sum(1)[None],
        }
        for a, b in combinations(MAPS, 2)
    }


def agreement(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """Lenses x lenses: Spearman's correlation of two maps of the same image on a coarse grid.

    A row for every two of MAPS: the mean over trained networks and images with its interval
    (`four_lenses.over_networks_and_images`), the same with another image's maps, the untrained
    network's, and how many pairs of maps had any contrast (percent). The last row is the mean over
    the six pairs of the four lenses. The Gaussian is the same for every image, so that nothing is
    left of it beside another image's: NaN.
    """
    every = agreements(study, found)
    rows = {pair: _agreement_row(study, values) for pair, values in every.items()}
    for pair in [pair for pair in rows if CENTRE in pair]:
        rows[pair] |= dict.fromkeys(("same minus another", "minus from", "minus to"), np.nan)
    rows["four lenses", "mean of six"] = _agreement_row(study, _mean_of(every, _PAIRS))
    rows["without painting", "and Grad-CAM"] = _agreement_row(study, _mean_of(every, _APART))
    return pd.DataFrame(rows).T.rename_axis(["lens", "and"])


def sensitivity(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """How far the answers hang on choices: which pairs, which grid, which networks.

    Columns: the mean correlation of two lenses on one image, and what is left of it beyond another
    image's map, an untrained network's maps and the centred Gaussian, each with its interval
    (`four_lenses.over_networks_and_images`). "Knowing": right at twice chance or better.
    """
    knowing = [found[n].accuracy >= 2 * chance(study) for n in study.networks]
    rows = {}
    for cells in dict.fromkeys((study.budget.cells, max(2, study.budget.cells // 2))):
        every = agreements(study, found, cells)
        for pairs in (_PAIRS, _APART):
            mean = _mean_of(every, pairs)
            centre = _mean_of(every, [(lens, CENTRE) for pair in pairs for lens in pair])
            left = {
                "another image": mean["image"] - mean["others"],
                "untrained": mean["image"] - mean["untrained"],
                "centre": mean["image"] - centre["image"],
            }
            for who, kept in (("all", [True] * len(knowing)), ("knowing", knowing)):
                if not any(kept):
                    continue
                groups = [g for g, k in zip(study.groups, kept, strict=True) if k]
                of = {what: values[torch.tensor(kept)] for what, values in left.items()}
                told = {w: fl.over_networks_and_images(v, groups) for w, v in of.items()}
                grid = f"{cells} x {cells}"
                rows[grid, f"{len(pairs)} pairs", who] = {
                    "same image": mean["image"][torch.tensor(kept)].nanmean().item()
                } | {f"beyond {w}": f"{m:.2f} [{a:.2f}, {b:.2f}]" for w, (m, a, b) in told.items()}
    return pd.DataFrame(rows).T.rename_axis(["grid", "pairs", "networks"])


def _mean_of(
    every: Mapping[tuple[str, str], Mapping[str, Tensor]], pairs: Sequence[tuple[str, str]]
) -> dict[str, Tensor]:
    """The mean over pairs of lenses, network by network and image by image, NaN left out."""
    kinds = ("image", "others", "untrained")
    return {kind: torch.stack([every[pair][kind] for pair in pairs]).nanmean(0) for kind in kinds}


def _agreement_row(study: Study, values: Mapping[str, Tensor]) -> dict[str, float]:
    mean, low, high = fl.over_networks_and_images(values["image"], study.groups)
    beyond = fl.over_networks_and_images(values["image"] - values["others"], study.groups)
    return {
        "same image": mean,
        "from": low,
        "to": high,
        "another image": values["others"].nanmean().item(),
        "same minus another": beyond[0],
        "minus from": beyond[1],
        "minus to": beyond[2],
        "untrained": values["untrained"].nanmean().item(),
        "defined, %": 100 * values["image"].isfinite().double().mean().item(),
    }


def matrix(table: pd.DataFrame, column: str = "same image") -> pd.DataFrame:
    """One column of `agreement` as lenses x lenses, 1 on the diagonal."""
    names = list(MAPS)
    square = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for a, b in combinations(names, 2):
        square.loc[a, b] = square.loc[b, a] = table.loc[(a, b), column]
    return square


def shares(study: Study, found: Mapping[Network, Seen]) -> dict[str, Float[Tensor, "networks n"]]:
    """By lens: each map's share on the object beyond the object's area (points), trained networks x
    images. A map that is 0 everywhere lies nowhere and counts as chance, 0."""
    masks = study.images.masks
    return {
        lens: torch.stack(
            [fl.beyond_area(found[n].maps[lens], masks).nan_to_num(0.0) for n in study.networks]
        )
        for lens in (*LENSES, PATCHES)
    }


def images_alike(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """Over images: where one lens lies more on the object than usual, do the others?

    Spearman's correlation of two lenses' shares over the images of one network, then the mean over
    networks, with an interval that draws training sets, networks and images anew. A row per pair of
    lenses, and their mean.
    """
    of_lens = shares(study, found)
    table = np.stack([of_lens[lens].numpy() for lens in LENSES], 1)  # (networks, lenses, images)
    estimate = _over_images(table)
    rng, drawn = np.random.default_rng(0), []
    for times in fl.times_drawn(study.groups, _RESAMPLES, rng):
        images = rng.integers(table.shape[2], size=table.shape[2])
        drawn.append(np.average(_over_images(table[:, :, images]), axis=0, weights=times))
    drawn = np.array(drawn)
    rows = {}
    for k, pair in enumerate([*_PAIRS, ("four lenses", "mean of six")]):
        of_pair = estimate[:, k] if k < len(_PAIRS) else estimate.mean(1)
        resampled = drawn[:, k] if k < len(_PAIRS) else drawn.mean(1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        rows[pair] = {"over images": of_pair.mean(), "from": low, "to": high}
    return pd.DataFrame(rows).T.rename_axis(["lens", "and"])


_RESAMPLES = 500  # each ranks the images anew


def _over_images(table: Float[np.ndarray, "networks lenses n"]) -> Float[np.ndarray, "networks p"]:
    """Spearman's correlation over images of every two lenses, network by network; 0 where one of
    them does not vary."""
    ranks = rankdata(table, axis=2)
    ranks = ranks - ranks.mean(2, keepdims=True)
    length = np.sqrt((ranks**2).sum(2, keepdims=True))
    ranks = ranks / np.where(length > 0, length, np.inf)
    pairs = combinations(range(table.shape[1]), 2)
    return np.stack([(ranks[:, a] * ranks[:, b]).sum(1) for a, b in pairs], 1)


def shares_by_training(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """Mean share on the object beyond its area (points): a row per training set, a column per
    lens."""
    of_lens, groups = shares(study, found), np.array(study.groups)
    rows = {
        name_of(Network(on)): {
            lens: values.numpy()[groups == on].mean() for lens, values in of_lens.items()
        }
        for on in study.trained_on
    }
    return pd.DataFrame(rows).T


def networks_alike(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """Over training sets: do two lenses put them in the same order? Spearman's correlation of the
    mean shares on the object, with the exact permutation test. Empty with fewer than three."""
    table = shares_by_training(study, found)
    if len(table) < 3:
        return pd.DataFrame()
    rows = {}
    for a, b in _PAIRS:
        tested = fl.rank_correlation(table[a].to_numpy(), table[b].to_numpy())
        rows[a, b] = {"over training sets": tested.rho, "p": tested.p, "n": tested.n}
    return pd.DataFrame(rows).T.rename_axis(["lens", "and"])


# ---------------------------------------------------------------- networks x lenses

_COLUMNS: dict[str, Callable[[Study, Seen], float]] = {
    "accuracy, %": lambda study, seen: seen.accuracy,
    "1: paintings named, %": lambda study, seen: seen.named,
    "2: summaries per class": lambda study, seen: seen.summaries_per_class,
    "2: removed on object, points": lambda study, seen: _on_object(study, seen, MASK),
    "3: paths on object, points": lambda study, seen: seen.points[UNMODIFIED].nanmean().item(),
    "3: paths on object, on black, points": lambda study, seen: seen.points[BLACK].nanmean().item(),
    "4: BG-gap, points": lambda study, seen: seen.gap,
    "4: fooled, %": lambda study, seen: seen.fooled,
    "1: likeness on object, points": lambda study, seen: _on_object(study, seen, PAINTING),
    "4: Grad-CAM on object, points": lambda study, seen: _on_object(study, seen, CAM),
    "4b: patches on object, points": lambda study, seen: _on_object(study, seen, PATCHES),
}


def _on_object(study: Study, seen: Seen, lens: str) -> float:
    """As in `shares`: a map that is 0 everywhere counts as chance."""
    return fl.beyond_area(seen.maps[lens], study.images.masks).nan_to_num(0.0).mean().item()


def each_network(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """A row per network, the untrained one last: "trained on", "seed" and every measure."""
    return pd.DataFrame(
        {"trained on": name_of(n), "on": n.on, "seed": n.seed}
        | {title: float(measure(study, seen)) for title, measure in _COLUMNS.items()}
        for n, seen in found.items()
    )


def by_network(study: Study, found: Mapping[Network, Seen]) -> pd.DataFrame:
    """The final table: networks x lenses. Columns (measure, "mean" | "lowest" | "highest") over the
    seeds, and how many networks there are. NaN: notebook 04 looked for no adversarial background of
    this network, or summaries were not counted, since they are of images that the networks trained
    on Original and on Mixed-Rand classify right."""
    table = each_network(study, found)
    grouped = table.groupby("trained on", sort=False)[list(_COLUMNS)]
    wide = grouped.agg(["mean", "min", "max"]).rename(columns={"min": "lowest", "max": "highest"})
    wide["networks", ""] = table.groupby("trained on", sort=False).size()
    return wide


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """`by_network` for reading: "12.3 (10.1 to 14.0)", a dash where nothing was measured."""

    def told(row: pd.Series, column: str) -> str:
        mean, low, high = (row[column, which] for which in ("mean", "lowest", "highest"))
        if not np.isfinite(mean):
            return "–"
        text = f"{mean:.1f}" if low == high else f"{mean:.1f} ({low:.1f} to {high:.1f})"
        return text.replace("-", "−")

    rows = {
        name: {column: told(row, column) for column in _COLUMNS}
        | {"networks": str(int(row["networks", ""]))}
        for name, row in table.iterrows()
    }
    return pd.DataFrame(rows).T


def gap_and_paintings(
    study: Study, found: Mapping[Network, Seen], *, least: float = 0.0
) -> pd.DataFrame:
    """BG-gap and share of paintings that judges name: a row per training set, means over seeds.

    Args:
        least: only training sets whose networks have at least this accuracy (percent): a network
            that is right nowhere has no gap either.
    """
    table = each_network(study, found)
    table = table[table["on"] != UNTRAINED.on].groupby("trained on", sort=False)
    means = table[["accuracy, %", "4: BG-gap, points", "1: paintings named, %"]].mean()
    return means[(means["accuracy, %"] >= least) & means.notna().all(axis=1)]


def chance(study: Study) -> float:
    """Accuracy of a guess, percent."""
    return 100 / len(study.class_titles)


# ---------------------------------------------------------------- the claims


def quantities(study: Study, found: Mapping[Network, Seen]) -> dict[str, dict[str, Any]]:
    """What each claim about the lenses is judged by: keyword arguments of `Course.judge`."""
    every = agreements(study, found)
    mean = _mean_of(every, _PAIRS)
    centre = _mean_of(every, [(lens, CENTRE) for lens in LENSES])

    def wider(values: Tensor) -> dict[str, Any]:  # the card draws images anew, networks stay
        _, low, high = fl.over_networks_and_images(values, study.groups)
        drawn = f"with networks drawn anew, too: [{low:.2f}, {high:.2f}]".replace("-", "−")
        return _finite(values.nanmean(0)) | {"because": f"{drawn}; one untrained network"}

    asked = {
        "c5-black-network-looks-at-object": _paired(
            study, found, "only_fg", "original", lambda s: s.points[UNMODIFIED].nanmean().item()
        ),
        "c5-black-network-on-black": _paired(
            study, found, "only_fg", "original", lambda s: s.points[BLACK].nanmean().item()
        ),
        "c5-mixed-rand-more-summaries": _paired(
            study, found, "mixed_rand", "original", lambda s: s.summaries_per_class
        ),
        "c5-small-gap-recognised": _gap_asked(study, found),
        "c5-lenses-agree-beyond-shuffled": wider(mean["image"] - mean["others"]),
        "c5-lenses-agree-beyond-untrained": wider(mean["image"] - mean["untrained"]),
        "c5-lenses-agree-beyond-centre": wider(mean["image"] - centre["image"]),
    }
    of_lens = shares(study, found)
    alike = _over_images(np.stack([of_lens[lens].numpy() for lens in LENSES], 1))
    asked["c5-lenses-rank-images-alike"] = {"measured": alike.mean(1)}
    orders = shares_by_training(study, found)[list(LENSES)].to_numpy()
    if len(orders) < 4:
        asked["c5-lenses-rank-networks-alike"] = {"because": _TOO_FEW}
    else:
        asked["c5-lenses-rank-networks-alike"] = {"measured": orders, "statistic": fl.mutual}
    return asked


_TOO_FEW = "needs networks of four training sets or more"


def _paired(
    study: Study,
    found: Mapping[Network, Seen],
    on: str,
    other: str,
    measure: Callable[[Seen], float],
) -> dict[str, Any]:
    """The difference between two training sets, seed by seed."""
    known = set(study.networks)
    seeds = [n.seed for n in study.networks if n.on == on and Network(other, n.seed) in known]
    values = [measure(found[Network(on, s)]) - measure(found[Network(other, s)]) for s in seeds]
    if not values or not np.isfinite(values).all():
        return {"because": f"nothing to compare between {on} and {other}"}
    return {"measured": values}


def _finite(values: Tensor) -> dict[str, Any]:
    kept = values[values.isfinite()]
    return {"measured": kept} if len(kept) else {"because": "no map had any contrast"}


def _gap_asked(study: Study, found: Mapping[Network, Seen]) -> dict[str, Any]:
    table = gap_and_paintings(study, found)
    if len(table) < 4:
        return {"because": _TOO_FEW}
    columns = ["4: BG-gap, points", "1: paintings named, %"]
    tested = fl.rank_correlation(*(table[column].to_numpy() for column in columns))
    remark = f"exact permutation test over {tested.n} training sets: p = {tested.p:.2f}"
    knowing = gap_and_paintings(study, found, least=2 * chance(study))
    if 3 <= len(knowing) < len(table):
        again = fl.rank_correlation(*(knowing[column].to_numpy() for column in columns))
        remark += (
            f"; among the {again.n} that name scenes at twice chance or better: "
            f"{again.rho:.2f} (p = {again.p:.2f})".replace("-", "−")
        )
    return {"measured": table[columns].to_numpy(), "statistic": fl.mutual, "because": remark}


# ---------------------------------------------------------------- pictures


def pictures(
    study: Study, found: Mapping[Network, Seen], networks: Sequence[Network], row: int
) -> tuple[UInt8[Tensor, "r c 3 h w"], list[str], list[str]]:
    """One image through several networks: a row per network, and columns for the image, the
    network's painting of the class it names, and every map of MAPS but the Gaussian.

    Maps are stretched from their lowest to their highest value, so that flat ones can be read.

    Returns:
        Pictures, what the rows are called (with the class that is named), and the columns.
    """
    image, lines, titles = study.images.images[row], [], []
    for network in networks:
        seen = found[network]
        named = int(seen.targets[row])
        maps = torch.stack([seen.maps[lens][row] for lens in (*LENSES, PATCHES)])
        lines.append(_line(image, seen.paintings["grey"][named], maps))
        mark = "✓" if seen.right[row] else "✗"
        titles.append(f"{name_of(network)}: {mark} {study.class_titles[named]}")
    return torch.stack(lines), titles, ["image", "its painting", *LENSES, PATCHES]


def own_pictures(seen: Own) -> tuple[UInt8[Tensor, "r c 3 h w"], list[str], list[str]]:
    """The same of your own: a row per image, named after what the network takes it for."""
    looked = seen.looked
    lines, titles = [], []
    for row, target in enumerate(looked.targets.tolist()):
        maps = torch.stack([found[row] for found in looked.maps.values()])
        lines.append(_line(looked.images[row], looked.paintings[target], maps))
        titles.append(f"{looked.names[row]}, {looked.probability[row]:.0%}")
    return torch.stack(lines), titles, ["image", "its painting", *looked.maps]


def _line(
    image: Tensor, painting: Tensor, maps: Float[Tensor, "c h w"]
) -> UInt8[Tensor, "c+2 3 h w"]:
    from helpers.figures import heated

    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    stretched = (maps - low) / (high - low).clamp_min(1e-9)
    if image.dtype != torch.uint8:
        image, painting = ((255 * p).round().byte() for p in (image, painting))
    return torch.cat(
        [image[None], painting[None], heated(image.expand(len(maps), -1, -1, -1), stretched)]
    )
