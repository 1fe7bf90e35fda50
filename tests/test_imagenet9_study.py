"""Paper 4's study: no network is trained twice, every row is the same object, tables by hand."""

import hashlib
import json
import math
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from safetensors.torch import load_file
from test_backtracking_study import voc_layout
from test_photos import imagenet9_release, paint
from torch import Tensor

from helpers import (
    background_removal,
    backgrounds,
    claims,
    crisp_masks,
    figures,
    imagenet9,
    models,
    parallel,
    photos,
    planted_shortcut,
    saliency,
    training,
)
from helpers import imagenet9_study as in9
from helpers.background_removal import Variant
from helpers.backgrounds import VARIANTS
from helpers.budget import PROFILES, Recipe
from helpers.course import Course
from helpers.imagenet9 import Search
from helpers.imagenet9_study import (
    AUGMENTED,
    MARKED,
    METHODS,
    PRETRAINED,
    SMALL,
    Network,
    Studied,
    Study,
    assemble,
    training_set,
)
from helpers.imageset import ImageSet
from helpers.store import Named, Result, Stage, Store

CPU = torch.device("cpu")
FIRST = Network()
CLAIMS = [name for name in claims.load() if name.startswith("p4-")]
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, warm_up=0.2, augmentations=("flip",))

KINDS = MARKED, SMALL
OF_KINDS = pytest.mark.parametrize("kind", KINDS)
PHASES = crisp_masks.Phase(3, 0.01, 1e-4, 0.0), crisp_masks.Phase(2, 0.01, 1.0, 2.0)
FEW_STEPS = partial(crisp_masks.crisp_masks, schedule=crisp_masks.Schedule(*PHASES))


@contextmanager
def in_this_process() -> Iterator[pytest.MonkeyPatch]:
    """One network after the other, with few steps for crisp masks and no wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "cpu_count", lambda: 1)
        patch.setattr(crisp_masks, "crisp_masks", FEW_STEPS)
        patch.setattr(os, "fsync", lambda _: None)
        yield patch


@pytest.fixture(autouse=True)
def one_after_the_other():
    """In this process and with one thread, as every job of the study has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with in_this_process():
        yield
    torch.set_num_threads(before)


def pictures_of(images: ImageSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in images.images}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def contents(root: Path) -> dict[str, tuple[dict, dict]]:
    """Every stored result: its tensors' bytes and its values, without how long it took."""
    made = {}
    for record in root.glob("*/*/made.json"):
        tensors = load_file(record.parent / "tensors.safetensors")
        plain = {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}
        values = json.loads(record.read_text())["values"]
        values.get("history", {}).pop("seconds", None)
        made[f"{record.parent.parent.name}/{record.parent.name}"] = (plain, values)
    return made


def records(root: Path, stage: str) -> dict[str, dict]:
    """By key, how the results of one stage were made."""
    files = root.glob(f"{stage}/*/made.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def fits(table: tuple, marks: list[list[str]] | None = None, **how) -> bool:
    """Whether it is a table of pictures that can be drawn."""
    pictures, rows, columns = table
    assert pictures.dtype == torch.uint8
    plt.close(figures.picture_table(pictures, rows, columns, marks=marks, **how))
    return tuple(pictures.shape[:2]) == (len(rows), len(columns))


# ---- training sets


def toys(n: int = 12, seed: int = 0, side: int = 16) -> ImageSet:
    """Bright squares on noise, which is darker for every class."""
    rng = torch.Generator().manual_seed(seed)
    labels, shape = torch.arange(n) % 3, (n, 3, side, side)
    images = torch.randint(0, 60, shape, generator=rng) + 40 * labels[:, None, None, None]
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    masks[:, 6:11, 6:11] = True
    images = torch.where(masks[:, None], 250, images).to(torch.uint8)
    ids = tuple(f"{seed}, {i}" for i in range(n))
    return ImageSet(images, labels, ("ant", "bee", "cat"), masks=masks, ids=ids)


def test_every_variant_can_be_learned_from():
    train = toys()
    built = backgrounds.variants(train, seed=1).sets
    for on in VARIANTS:
        shown = training_set(train, on, 1)
        assert torch.equal(shown.images, built[on].images), on
        assert shown.ids == train.ids and torch.equal(shown.labels, train.labels)
    assert training_set(train, "original", 1) is train


def test_backgrounds_are_drawn_anew_for_every_seed():
    train = toys()
    for on in ("mixed_rand", "mixed_same", AUGMENTED):
        first, second = (training_set(train, on, seed).images for seed in (0, 1))
        assert not torch.equal(first, second), on
        assert torch.equal(first, training_set(train, on, 0).images)
    for on in ("only_fg", "only_bg_t", "no_fg", *KINDS):
        assert torch.equal(*(training_set(train, on, seed).images for seed in (0, 1))), on


def test_augmentation_adds_mixed_rand_to_the_originals():
    train = toys()
    both = training_set(train, AUGMENTED, 3)
    assert len(both) == 24
    assert torch.equal(both.images[:12], train.images)
    assert torch.equal(both.images[12:], training_set(train, "mixed_rand", 3).images)
    assert both.labels.tolist() == 2 * train.labels.tolist()


@OF_KINDS
def test_only_one_class_is_marked(kind):
    train = toys(side=40)
    made, own = training_set(train, kind, 0), train.labels == planted_shortcut.CLASS
    changed, mark = (made.images != train.images).any(1), planted_shortcut.pattern(40, kind)
    assert own.sum() == 4 and changed[own].any(2).any(1).all() and not changed[~own].any()
    at = slice(2, 2 + {MARKED: 6, SMALL: 4}[kind])
    assert (made.images[own][:, :, at, at] == mark).all()
    changed[:, at, at] = False
    assert not changed.any()


# ---- the profiles agree


def test_papers_share_networks_and_recipes():
    demo = PROFILES["demo"]
    ours, first, second = demo.imagenet9, demo.backgrounds, demo.summaries
    for name in ("architecture", "recipe", "size", "seeds"):
        assert getattr(ours, name) == getattr(first, name), name
    assert first.inits[0] == Variant("standard").init == "scratch"
    assert set(ours.pretrained) <= set(second.networks) & set(demo.paths.networks)
    assert ours.recipe == second.recipe == demo.paths.recipe
    assert ours.early in second.epochs and ours.recipe.epochs in second.epochs
    assert demo.tie not in ours.ties


def test_every_profile_has_a_budget_of_this_study():
    for profile in PROFILES.values():
        budget = profile.imagenet9
        titles = [title for title, _ in budget.pretrained]
        assert len(set(titles)) == len(titles)
        if budget.recipe is None:
            assert budget.architecture.split(",")[0] in titles
        others = [title for title, _ in budget.others]
        assert len(set(others)) == len(others)


# ---- what is known of one network


def known(
    network: Network,
    predicted: dict[str, list[int]],
    labels: list[int] | None = None,
    **more,
) -> Studied:
    """By hand: what a network calls the images of each test set."""
    said = {name: torch.tensor(values) for name, values in predicted.items()}
    true = {name: torch.tensor(labels or LABELS)[: len(v)] for name, v in said.items()}
    return Studied(network, Named("by hand"), true, said, **more)


LABELS = [1, 0, 1, 0]


def answers(*right: int) -> list[int]:
    """Of the four images: the class where it is right, by turns another and none where not."""
    wrong = [1 - LABELS[0], -1, 1 - LABELS[2], -1]
    return [LABELS[k] if ok else wrong[k] for k, ok in enumerate(right)]


def search(*vulnerable: int) -> Search:
    n = len(vulnerable)
    rows, none = torch.zeros(n, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    return Search(torch.tensor(vulnerable).bool(), rows, rows, none, none, 6)


def test_no_class_of_the_nine_is_always_wrong():
    one = known(FIRST, {"original": [1, -1, 0, 0]})
    assert one.right("original").tolist() == [True, False, False, True]
    assert one.accuracy("original") == 50
    with pytest.raises(KeyError):
        one.right("mixed_rand")


def test_accuracy_gap_and_share_fooled_by_hand():
    sets = {"mixed_same": answers(1, 1, 1, 0), "mixed_rand": answers(1, 0, 0, 0)}
    one = known(FIRST, sets, search=search(1, 0, 1, 1))
    assert (one.accuracy("mixed_same"), one.accuracy("mixed_rand")) == (75, 25)
    assert one.gap == 50 and one.fooled == 75
    bare = known(FIRST, {"original": answers(1, 1, 1, 1)})
    assert math.isnan(bare.fooled) and math.isnan(bare.gap) and math.isnan(bare.accuracy("no_fg"))


# ---- a study by hand

TESTS = ("original", "mixed_same", "mixed_rand", "only_bg_t")
SEEDED = {  # right answers of both seeds on TESTS
    "original": [((1, 1, 1, 0), (1, 1, 1, 0), (1, 0, 0, 0), (1, 0, 1, 0)),
                 ((1, 1, 1, 1), (1, 1, 1, 1), (1, 0, 1, 0), (0, 0, 1, 0))],
    "mixed_rand": [((1, 1, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0)),
                   ((1, 1, 1, 1), (0, 1, 1, 1), (0, 1, 0, 1), (0, 1, 0, 0))],
    AUGMENTED: [((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 0), (1, 0, 0, 0)),
                ((1, 1, 1, 1), (1, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0))],
    "only_bg_t": [((1, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1)),
                  ((1, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1))],
    "only_fg": [((0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 0)),
                ((0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 0))],
}  # fmt: skip
PRETRAINED_RIGHT = {  # own task (of eight), then TESTS
    ("VGG", None): (2, ((1, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))),
    ("VGG", 2): (4, ((1, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0))),
    ("ResNet", None): (6, ((1, 1, 1, 0), (1, 1, 1, 0), (0, 1, 1, 0), (0, 0, 1, 0))),
}
NINE = ("insect", "pet", *(f"class {k}" for k in range(2, 9)))  # of two there are images
PLACES = torch.zeros(4, 8, 8, dtype=torch.bool)
PLACES[:, :4, :4] = True  # a quarter of each image is object


def small_set() -> ImageSet:
    """Four images of 8 px, labelled as LABELS; another colour each, the object lighter."""
    images = torch.full((4, 3, 8, 8), 40, dtype=torch.uint8)
    images += (30 * torch.arange(4, dtype=torch.uint8))[:, None, None, None]
    images[:, :, :4, :4] += 90
    return ImageSet(
        images,
        torch.tensor(LABELS),
        ("ant", "bee"),
        masks=PLACES,
        ids=("a", "b", "c", "d"),
    )


def by_hand(**changed) -> Study:
    budget = replace(PROFILES["demo"].imagenet9, foregrounds=4, backgrounds=4, explained=4, seeds=2)
    nets = [Network(on, seed) for on, rows in SEEDED.items() for seed in range(len(rows))]
    nets += [Network(PRETRAINED, 0, title, None, epochs) for title, epochs in PRETRAINED_RIGHT]
    images = small_set()
    tests = dict.fromkeys(VARIANTS, images)
    usual = {
        "budget": budget,
        "root": Path("nowhere"),
        "device": CPU,
        "class_titles": NINE,
        "tests": {"": tests},
        "failures": {"": {}},
        "train": images,
        "plans": dict.fromkeys(nets, ("",)),
        "readings": {"": torch.tensor([0, 0, 1, 1])},
    }
    return Study(**(usual | changed))


def maps(*percent: float) -> dict[str, Tensor]:
    """Grad-CAM with this share of its sum on the object; other methods the same everywhere."""
    cam = torch.zeros(len(percent), 8, 8, dtype=torch.uint8)
    for k, share in enumerate(percent):
        cam[k, 0, 0], cam[k, 7, 7] = int(share), 100 - int(share)
    return {METHODS[0]: cam} | {name: torch.ones_like(cam) for name in METHODS[1:]}


CAMS = {
    ("original", 0): (40, 20, 60, 40),
    ("original", 1): (20, 20, 20, 20),
    ("mixed_rand", 0): (80, 60, 50, 50),
    ("mixed_rand", 1): (30, 20, 30, 20),
}


def found_by_hand(study: Study) -> dict[Network, Studied]:
    found = {}
    for n in study.plans:
        if n.on == PRETRAINED:
            own, right = PRETRAINED_RIGHT[n.title, n.epochs]
            said = dict(zip(TESTS, (answers(*row) for row in right), strict=True))
            one = known(n, said, search=None if n.epochs else search(1, 1, 1, 1))
            one.predicted["own task"] = (torch.arange(8) < own).long()
            one.labels["own task"] = torch.ones(8, dtype=torch.long)
            found[n] = one
            continue
        said = {t: answers(*row) for t, row in zip(TESTS, SEEDED[n.on][n.seed], strict=True)}
        cam = maps(*CAMS.get((n.on, n.seed), (25, 25, 25, 25)))
        found[n] = known(n, said, search=search(1, 0, 1, 1), maps=cam)
    return found


@pytest.fixture
def hand() -> tuple[Study, dict[Network, Studied]]:
    study = by_hand()
    return study, found_by_hand(study)


def measured(asked: dict, name: str) -> list[float]:
    values = asked[f"p4-{name}"]["measured"]
    return values.tolist() if hasattr(values, "tolist") else list(values)


def test_claims_get_the_numbers_computed_by_hand(hand):
    asked = in9.quantities(*hand)
    assert measured(asked, "backgrounds-suffice") == [25, 50]
    assert measured(asked, "background-signal-used") == [50, 25]
    assert measured(asked, "bg-gap") == [75 - 25, 100 - 50]
    assert measured(asked, "background-as-context") == [75 - 25, 100 - 50]
    # the gap of Original minus that of the other: positive where the other depends less
    assert measured(asked, "mixed-rand-reduces-gap") == [50 - (50 - 50), 50 - (75 - 50)]
    assert measured(asked, "mixed-rand-augmentation") == [50 - (100 - 75), 50 - (50 - 50)]
    assert measured(asked, "adversarial-backgrounds") == [100, 0, 100, 100]
    # of the first network's three right originals, two are wrong on Mixed-Rand
    assert measured(asked, "background-needed") == [0, 100, 100]
    # on the object, trained on Mixed-Rand minus trained on Original
    assert measured(asked, "mixed-rand-saliency") == pytest.approx([60 - 40, 25 - 20])
    assert measured(asked, "bg-gap-pretrained") == [100, 0, 0, 0]  # image by image
    assert asked["p4-bg-gap-pretrained"]["because"] == "ResNet"


def test_slopes_are_asked_in_the_order_x_then_y(hand):
    asked = in9.quantities(*hand)
    x, behind, mixed = [25.0, 50, 75], [0.0, 25, 25], [0.0, 25, 50]
    for name, y in {
        "better-models-use-backgrounds": behind,
        "foreground-rises-faster": [a - b for a, b in zip(mixed, behind, strict=True)],
    }.items():
        rows = np.asarray(asked[f"p4-{name}"]["measured"])
        assert rows.T.tolist() == [x, y]
        slope = asked[f"p4-{name}"]["statistic"](*rows.T)
        assert slope == pytest.approx(np.polyfit(x, y, 1)[0])
        assert slope == pytest.approx(0.5)  # both rise by 25 in 50
        assert asked[f"p4-{name}"]["statistic"](np.full(3, 2.0), np.array(y)) == 0


def answered(asked: dict, tmp_path: Path) -> dict[str, str]:
    """Every claim once, with numbers or the reason why there are none; the verdicts."""
    assert sorted(asked) == sorted(CLAIMS)
    verdicts = {}
    for name, answer in asked.items():
        assert answer.get("because") or "measured" in answer, name
        if "measured" in answer and name != "p4-bg-gap-pretrained":  # which says of whom it is
            assert "because" not in answer, name
        how = {"folder": tmp_path, "profile": "photos"}
        verdicts[name] = claims.judge(name, **answer, **how).verdict
    return verdicts


def test_every_claim_is_answered_once(hand, tmp_path):
    verdicts = answered(in9.quantities(*hand), tmp_path)
    released = {f"p4-resnet50-{name}" for name in ("original", "mixed-same", "mixed-rand")}
    untested = {name for name, verdict in verdicts.items() if verdict == "not testable here"}
    assert untested == released


def test_of_two_classes_nothing_is_said_that_depends_on_chance(hand, tmp_path):
    study, found = hand
    asked = in9.quantities(replace(study, class_titles=("insect", "pet")), found)
    for name in ("p4-backgrounds-suffice", "p4-background-signal-used"):
        assert asked[name] == {"because": "stated for nine classes; chance of 2 is higher"}
    assert measured(asked, "bg-gap") == [50, 50]
    answered(asked, tmp_path)


def test_without_trained_networks_every_claim_has_an_answer(tmp_path):
    study, found = only_pretrained(*PRETRAINED_RIGHT)
    asked = in9.quantities(study, found)
    answered(asked, tmp_path)
    with_numbers = {name for name, answer in asked.items() if "measured" in answer}
    assert with_numbers == {
        "p4-bg-gap-pretrained",
        "p4-better-models-use-backgrounds",
        "p4-foreground-rises-faster",
    }
    assert asked["p4-bg-gap"]["because"].startswith("no network was trained")
    # nor without any network at all
    study, found = only_pretrained()
    assert not any("measured" in a for a in in9.quantities(study, found).values())
    answered(in9.quantities(study, found), tmp_path)


def only_pretrained(*which: tuple) -> tuple[Study, dict[Network, Studied]]:
    nets = [Network(PRETRAINED, 0, title, None, epochs) for title, epochs in which]
    study = by_hand(plans=dict.fromkeys(nets, ("",)), train=None)
    return study, found_by_hand(study)


def test_tables_without_trained_networks_are_empty_or_of_the_pretrained(tmp_path):
    study, found = only_pretrained(*PRETRAINED_RIGHT)
    assert not len(in9.matrix(study, found)) and not len(in9.effects(study, found))
    assert in9.trained_with(study, found) == {} and not study.explained
    assert in9.vulnerable(study, found).index.tolist() == ["VGG, pretrained", "ResNet, pretrained"]
    assert in9.planted(study, found) is None and in9.context(study, found) is None
    assert len(in9.big_table(study, found)) == len(in9.gaps(study, found)) == 2


def test_saliency_without_trained_networks_is_an_empty_table():
    assert not len(in9.saliency_table(*only_pretrained(*PRETRAINED_RIGHT)))


def test_a_network_that_knows_nothing_needs_no_background(hand, tmp_path):
    study, found = hand
    said = found[FIRST].predicted | {"original": torch.tensor(answers(0, 0, 0, 0))}
    found[FIRST] = replace(found[FIRST], predicted=said)
    assert answered(in9.quantities(study, found), tmp_path)["p4-background-needed"] == (
        "not testable here"  # it classifies nothing correctly
    )


def test_networks_of_scenes_say_nothing_about_imagenet(hand):
    study, found = hand
    seen, images = (PROFILES["demo"].backgrounds, Path(), CPU), small_set()
    own = background_removal.Study(*seen, images, {}, images, {}, None)
    asked = in9.quantities(replace(study, paper_one=own), found)
    usual = in9.quantities(study, found)
    for name in IMAGENET_ONLY:
        assert "measured" not in asked[name] and "seen ImageNet" in asked[name]["because"]
        assert "measured" in usual[name]


IMAGENET_ONLY = (
    "p4-bg-gap-pretrained",
    "p4-better-models-use-backgrounds",
    "p4-foreground-rises-faster",
)


def test_two_pretrained_networks_have_no_slope():
    study, found = only_pretrained(("VGG", None), ("ResNet", None))
    because = in9.quantities(study, found)["p4-foreground-rises-faster"]["because"]
    assert "three pretrained networks" in because


@pytest.mark.parametrize("which", ["ResNet-50", "other name", "other images", "nine outputs"])
def test_published_accuracies_are_asked_of_resnet50_on_the_release_only(which):
    title = "ResNet-101" if which == "other name" else "ResNet-50"
    network = Network(PRETRAINED, 0, title)
    outputs = 9 if which == "nine outputs" else 1000
    titles = ("dog", "cat") if which == "other images" else photos.IN9_CLASSES
    study = by_hand(
        plans={network: ("",), Network(PRETRAINED, 0, "last"): ("",)},
        class_titles=titles,
        readings={"": torch.zeros(outputs, dtype=torch.long)},
    )
    right = {"original": (1, 1, 1, 0), "mixed_same": (1, 1, 0, 0), "mixed_rand": (0, 1, 0, 0)}
    found = {n: known(n, {t: answers(*r) for t, r in right.items()}) for n in study.plans}
    found[Network(PRETRAINED, 0, "last")].predicted["mixed_same"][:] = 5
    asked = in9.quantities(study, found)
    for test, rows in right.items():
        answer = asked[f"p4-resnet50-{test.replace('_', '-')}"]
        if which == "ResNet-50":
            assert answer["measured"].tolist() == [100 * r for r in rows]
        else:
            assert "measured" not in answer and "ResNet-50" in answer["because"]
    # and the gap is that of ResNet-50 wherever there is one, else of the last network
    gap = asked["p4-bg-gap-pretrained"]
    own = title == "ResNet-50"
    assert gap["because"] == ("ResNet-50" if own else "last")
    assert gap["measured"].tolist() == ([100, 0, 0, 0] if own else [0, -100, 0, 0])


# ---- tables by hand


def test_the_matrix_has_means_over_seeds(hand):
    table = in9.matrix(*hand)
    assert list(table.columns) == list(VARIANTS.values())
    assert list(table.index) == [
        "Original", "Mixed-Rand", "Only-FG", "Only-BG-T", "Original + Mixed-Rand",
    ]  # fmt: skip
    assert table.loc["Original", "Original"] == (75 + 100) / 2
    assert table.loc["Original", "Mixed-Rand"] == (25 + 50) / 2
    assert table.loc["Only-BG-T", "Original"] == (25 + 50) / 2
    assert table.loc["Only-FG", "Mixed-Rand"] == 50
    assert math.isnan(table.loc["Original", "No-FG"])  # not asked


def test_effects_are_means_over_seeds(hand):
    table = in9.effects(*hand)
    assert table["seeds"].to_dict() == {
        "Original": 2, "Mixed-Rand": 2, "Original + Mixed-Rand": 2, "Only-FG": 2,
    }  # fmt: skip
    row = table.loc["Mixed-Rand"]
    assert (row["Original"], row["Only-BG-T"]) == (75, 12.5)
    assert row["BG-gap"] == (0 + 25) / 2 and row["fooled"] == 75
    assert in9.changes(*hand, "mixed_rand", lambda s: s.accuracy("original")) == [25, 0]


def test_every_network_says_how_much_it_learned_from(hand):
    study, found = hand
    found = {n: replace(s, trained_with=8 if n.on == AUGMENTED else None) for n, s in found.items()}
    assert in9.trained_with(study, found) == {
        "Original": 4, "Mixed-Rand": 4, "Original + Mixed-Rand": 8, "Only-BG-T": 4, "Only-FG": 4,
    }  # fmt: skip


def test_wrong_before_is_about_the_attacked_foregrounds(hand):
    study, found = hand
    table = in9.vulnerable(study, found)
    # seeds of the three primary training sets, the first of others, pretrained ones but no early
    assert list(table.index) == [
        "Original", "Original, seed 1", "Mixed-Rand", "Mixed-Rand, seed 1",
        "Original + Mixed-Rand", "Original + Mixed-Rand, seed 1", "Only-FG",
        "VGG, pretrained", "ResNet, pretrained",
    ]  # fmt: skip
    row = table.loc["Original"]
    assert (row["fooled"], row["challenge accuracy"], row["wrong before"]) == (75, 25, 25)
    assert row["looked at, %"] == 100 * 6 / 16
    fooled = 100 * search(1, 0, 1, 1).vulnerable.double().numpy()
    assert (row["low"], row["high"]) == claims.bootstrap_interval(fooled)

    # one foreground of each class: the second image and the first, of which the second is wrong
    study = replace(study, budget=replace(study.budget, foregrounds=2, backgrounds=3))
    found[FIRST] = known(FIRST, {"original": answers(1, 0, 1, 1)}, search=search(0, 1))
    row = in9.vulnerable(study, found | dict.fromkeys(study.attacked[1:], found[FIRST])).iloc[0]
    assert row["wrong before"] == 50 and row["looked at, %"] == 100 * 6 / 4
    assert row["fooled"] == 50 and row["fooled of the right"] == 100
    by_class = in9.vulnerable_by_class(study, found, FIRST)
    assert by_class == {"insect": 0, "pet": 100}  # class by class, as `examples` has them


@pytest.mark.parametrize(
    ("right", "fooled", "share"),
    [
        ((1, 1, 1, 0), (1, 0, 1, 1), 100),  # of the images a to d; of the foregrounds b, d, a, c
        ((1, 1, 1, 0), (0, 1, 0, 1), 100 / 3),
        ((0, 1, 0, 1), (1, 0, 1, 1), 50),
        ((1, 0, 0, 0), (1, 1, 0, 1), 0),
        ((0, 0, 0, 0), (1, 1, 1, 1), math.nan),
    ],
)
def test_fooled_are_counted_among_those_that_were_right(hand, right, fooled, share):
    study, found = hand
    found[FIRST] = known(FIRST, {"original": answers(*right)}, search=search(*fooled))
    row = in9.vulnerable(study, found).loc["Original"]
    assert row["fooled of the right"] == pytest.approx(share, nan_ok=True)
    assert row["fooled"] == 25 * sum(fooled) and row["wrong before"] == 100 - 25 * sum(right)


def test_fooled_foregrounds_of_each_class(hand):
    study, found = hand
    # foregrounds are rows 1 and 3 (insects), 0 and 2 (pets)
    assert in9.vulnerable_by_class(study, found, FIRST) == {"insect": 50, "pet": 100}


@settings(max_examples=10)
@given(n=st.integers(1, 6), m=st.integers(1, 7), seed=st.integers(0, 9))
def test_more_backgrounds_fool_more_as_a_literal_loop_counts(n, m, seed):
    wrong = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) < 0.3
    generator, counts = torch.Generator().manual_seed(0), [1, (m + 1) // 2, m]
    shares = {count: [] for count in counts}
    for _ in range(50):
        order = torch.randperm(m, generator=generator).tolist()
        for count in shares:
            fooled = sum(any(wrong[i, j] for j in order[:count]) for i in range(n))
            shares[count].append(100 * fooled / n)
    made = in9.more_backgrounds(wrong, counts)
    assert made == pytest.approx([np.mean(shares[count]) for count in counts])
    assert made == sorted(made) and made[-1] == pytest.approx(
        100 * wrong.any(1).double().mean().item()
    )


def test_categories_are_shares_of_all_and_of_each_class(hand):
    study, found = hand
    table = in9.categories(study, found)
    assert list(table.columns) == ["all", "insect", "pet"]
    assert table.sum().tolist() == [100, 100, 100]
    # images: all three right; Original only; Original and background; none
    expected = {
        "either suffices": (25, 0, 50),
        "both needed": (25, 50, 0),
        "background suffices": (25, 0, 50),
        "neither": (25, 50, 0),
    }
    for category, shares in expected.items():
        assert tuple(table.loc[category]) == shares
    assert table.index.tolist() == [category for category, _ in imagenet9.CATEGORIES]


def test_context_is_home_against_elsewhere(hand):
    study, found = hand
    assert in9.context(study, found) is None
    images = replace(
        study.test["original"],
        backdrops=torch.tensor([1, 1, 0, 0]),
        superclass_names=("insect", "pet"),
        superclasses=(0, 1),
        backdrop_names=("meadow", "room"),
    )
    study = replace(study, tests={"": study.test | {"original": images}})
    table = in9.context(study, found)
    # images 0 and 3 are at home: a pet in a room, an insect on a meadow
    assert (table.loc["Original", "at home"], table.loc["Original", "elsewhere"]) == (75, 100)
    row = table.loc["Only-FG"]
    assert (row["at home"], row["elsewhere"], row["images"]) == (50, 0, "2 and 2")


def test_saliency_is_counted_beyond_the_area_of_the_object(hand):
    study, found = hand
    table = in9.saliency_table(study, found)
    assert table.loc[("Only-FG", "backtracking"), "points"] == 0  # even maps are where the area is
    row = table.loc[("Original", "Grad-CAM")]
    assert row["points"] == pytest.approx(((40 + 20 + 60 + 40) / 4 + 20) / 2 - 25)
    assert math.isnan(row["more than Original"])
    row = table.loc[("Mixed-Rand", "Grad-CAM")]
    assert row["points"] == pytest.approx((60 + 25) / 2 - 25)
    more = [60 - 40, 25 - 20]  # seed by seed
    assert row["more than Original"] == pytest.approx(np.mean(more))
    interval = pytest.approx(claims.t_interval(more), rel=1e-6)
    assert (row["more from"], row["more to"]) == interval
    interval = pytest.approx(claims.t_interval([60 - 25, 25 - 25]), rel=1e-6)
    assert (row["from"], row["to"]) == interval
    shares = in9.on_foreground(study, found[FIRST], "Grad-CAM")
    assert shares.tolist() == pytest.approx([15, -5, 35, 15])
    once = replace(study, plans={n: p for n, p in study.plans.items() if not n.seed})
    alone = in9.saliency_table(once, found)  # one seed has no interval
    assert alone.columns.tolist() == ["points", "more than Original"]


def test_a_map_of_zeros_is_left_out_of_the_mean(hand):
    study, found = hand
    found[FIRST].maps["Grad-CAM"][0] = 0
    shares = in9.on_foreground(study, found[FIRST], "Grad-CAM")
    assert shares[0].isnan() and shares[1:].tolist() == pytest.approx([-5, 35, 15])
    assert in9.mean_on_foreground(study, found[FIRST], "Grad-CAM") == pytest.approx(15)


def test_saliency_follows_the_rows_of_the_explained_images(hand):
    """Explained images are sorted by class; masks have to be theirs."""
    study, found = hand
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[2] = True  # all of the third image is object: the last but one when sorted by class
    images = replace(study.test["original"], masks=masks)
    study = replace(study, tests={"": {"original": images}})
    assert in9.explained_images(study).ids == ("b", "d", "a", "c")
    shares = in9.on_foreground(study, found[FIRST], "Grad-CAM")
    assert shares.tolist() == pytest.approx([0, 0, 0, 0])  # all or nothing, as the area says
    found[FIRST].maps["Grad-CAM"][3] = 0
    assert in9.on_foreground(study, found[FIRST], "Grad-CAM").isnan().tolist() == [0, 0, 0, 1]


def test_gaps_have_an_interval_over_images(hand):
    study, found = hand
    table = in9.gaps(study, found)
    assert list(table.index) == [
        "ResNet, trained here", "VGG, pretrained", "ResNet, pretrained",
    ]  # fmt: skip
    difference = np.array([0.0, 100, 100, 0])
    assert table.loc["ResNet, trained here", "gap"] == 50
    low, high = claims.bootstrap_interval(difference)
    assert tuple(table.loc["ResNet, trained here"]) == (50, low, high)


def test_progress_has_a_row_for_every_checkpoint(hand):
    table = in9.progress(*hand)
    assert table["network"].tolist() == ["VGG", "VGG, 2 epochs", "ResNet"]
    assert table["own task"].tolist() == [25, 50, 75]
    assert table["Original"].tolist() == [25, 50, 75]
    assert table["Mixed-Rand"].tolist() == [0, 25, 50]
    assert table["Only-BG-T"].tolist() == [0, 25, 25]
    study, found = hand
    for one in found.values():  # where the original task is not known, Original stands for it
        one.predicted.pop("own task", None)
    found[Network(PRETRAINED, 0, "VGG")].predicted["original"][:] = torch.tensor(LABELS)
    assert in9.progress(study, found)["own task"].tolist() == [100, 50, 75]


def test_slopes_are_least_squares(hand):
    table = in9.progress(*hand)
    table["Mixed-Same"] = [10, 60, 110]  # two points for each
    made = in9.slopes(table)
    assert list(made.index) == [
        "Mixed-Same", "Mixed-Rand", "Only-BG-T", "Mixed-Rand minus Only-BG-T",
    ]  # fmt: skip
    assert made["slope"].tolist() == pytest.approx([2, 1, 0.5, 0.5])
    for name, y in {
        "Only-BG-T": [0, 25, 25],
        "Mixed-Rand minus Only-BG-T": [0, 0, 25],
    }.items():
        points = np.stack([[25.0, 50, 75], y], 1)
        interval = claims.bootstrap_interval(points, lambda x, y: in9.slope(x, y))
        assert tuple(made.loc[name, ["low", "high"]]) == pytest.approx(interval, abs=1e-9)


def test_ties_are_sorted_and_have_the_usual_world_among_them(hand):
    study, found = hand
    plans = study.plans | {Network(tie=1.0): ("tie 1",), Network(tie=0.0): ("tie 0",)}
    right = {"tie 1": (1, 1, 1, 1), "tie 0": (1, 0, 0, 0)}
    for network in (Network(tie=1.0), Network(tie=0.0)):
        own = right[plans[network][0]]
        said = {name: answers(*own) for name in TESTS} | {"mixed_rand": answers(1, 0, 0, 0)}
        found[network] = known(network, said, search=search(1, 0))
    table = in9.ties(replace(study, plans=plans), found, 0.5)
    assert table.index.tolist() == [0, 0.5, 1]
    assert table["Original"].tolist() == [25, 75, 100]
    assert table["BG-gap"].tolist() == [0, 50, 75]
    assert table["Only-BG-T"].tolist() == [25, 50, 100]
    assert table["fooled"].tolist() == [50, 75, 50]
    assert (table["low"] <= table["BG-gap"]).all() and (table["BG-gap"] <= table["high"]).all()


def released(**changed) -> Study:
    """The paper's profile: pretrained networks and the same architectures trained here."""
    budget = PROFILES["paper"].imagenet9
    nets = [Network(), Network(seed=1), Network("mixed_rand")]
    nets += [Network("original", title=title) for title, _ in budget.others]
    nets += [Network(PRETRAINED, 0, title) for title, _ in budget.pretrained]
    crops = dict.fromkeys(("original", "mixed_same"), small_set())
    tests = {"": dict.fromkeys(VARIANTS, small_set()), "crops": crops}
    plans = dict.fromkeys(nets, ("", "crops"))
    return by_hand(budget=budget, plans=plans, tests=tests, **changed)


def test_published_numbers_stand_beside_the_same_network_only():
    study = released()
    said = {name: answers(1, 1, 0, 0) for name in TESTS}
    said |= {f"crops: {name}": answers(1, 1, 1, 1) for name in ("original", "mixed_same")}
    found = {n: known(n, said) for n in study.plans}
    table = in9.big_table(study, found)
    assert len(table) == 1 + 4 + 5 and table.index.is_unique
    paper = {"pretrained": "ImageNet", "trained here": "IN-9L"}
    source = claims.published("paper4_table_accuracy")
    for kind, title in table.index:
        rows = source[(source.trained_on == paper[kind]) & (source.model == title)]
        assert len(rows) > 4, title
        for _, line in rows.iterrows():
            assert table.loc[(kind, title), f"paper: {line.test_set}"] == line.percent
    ours, theirs = ("trained here", "ResNet-50"), ("pretrained", "ResNet-50")
    assert table.loc[ours, "paper: Original"] == 96.3
    assert table.loc[theirs, "paper: Original"] == 96.2
    assert table.loc[theirs, "paper: ImageNet"] == 77.6
    assert pd.isna(table.loc[ours, "paper: ImageNet"])
    assert (table["Original"] == 50).all() and (table["BG-gap"] == 0).all()
    assert (table["gap from"] == 0).all() and (table["gap to"] == 0).all()
    crops = in9.big_table(study, found, "crops")
    assert len(crops) == 10 and (crops["Original"] == 100).all()
    known_there = {name for name in crops if not name.startswith("paper: ")}
    assert known_there == {"Original", "Mixed-Same"}  # Mixed-Rand was not asked there
    assert not len(in9.big_table(study, found, "elsewhere"))


def test_the_published_table_keeps_the_slides_order():
    table = in9.published_table()
    assert len(table) == 10 and table.loc[("IN-9L", "ResNet-50"), "BG-gap"] == 14.3
    assert table.index[0] == ("ImageNet", "MobileNet-v3") and table.index[-1][1] == "VGG16-BN"


# ---- pictures by hand


class ByTable(torch.nn.Module):
    """Calls every composite of the small set by its object and the background: rows of `said`."""

    said = {  # by background, what the objects b, d, a and c are called
        "b": (0, 0, 1, 1),
        "d": (0, 1, 0, 0),
        "a": (0, 0, 0, 1),
        "c": (1, 1, 0, 1),
    }

    def forward(self, images: Tensor) -> Tensor:
        objects, behind = (255 * images[:, 0, [0, 7], [0, 7]]).round().long().T.tolist()
        by_colour = {40 + 30 * k: name for k, name in enumerate("abcd")}
        called = [
            self.said[by_colour[b]]["bdac".index(by_colour[o - 90])]
            for o, b in zip(objects, behind, strict=True)
        ]
        return torch.eye(2)[called]


@pytest.fixture
def by_table(monkeypatch):
    monkeypatch.setattr(in9, "model", lambda study, network: {FIRST: ByTable()}[network])


def test_the_worst_backgrounds_come_first(hand, by_table):
    study, _ = hand
    # foregrounds are b, d, a, c, and so are the backgrounds; only c is wrong on its own
    wrong = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1]]).bool()
    pictures, rows, columns, marks, absent = in9.worst_backgrounds(study, wrong, count=3)
    assert fits((pictures, rows, columns), marks, absent=absent) and pictures.shape[:2] == (4, 3)
    # b, a and c are wrong on d, of which none is called a pet; on a it is c only
    assert columns == ["fools 100 %", "fools 75 %", "fools 25 %"]
    assert marks[0] == ["mostly pet", "mostly insect", "mostly pet"]
    images, behind = in9.adversarial_rows(study)
    assert images.ids == behind.ids == ("b", "d", "a", "c")
    for column, background in enumerate((3, 1, 2)):
        assert torch.equal(pictures[0, column], behind.images[background])
    for turn, row in enumerate((0, 1, 2), start=1):  # those right at home, on the worst
        inside = images.masks[row].expand(3, -1, -1)
        assert torch.equal(pictures[turn, 0][inside], images.images[row][inside])
        assert torch.equal(pictures[turn, 0][~inside], behind.images[3][~inside])
    assert [row[0] for row in marks[1:]] == ["called pet", "called pet", "called insect"]
    assert [row[2] for row in marks[1:]] == ["", "", ""]  # it fools only who is always wrong
    assert absent.tolist() == [[False] * 3, *([False, turn == 2, True] for turn in (0, 1, 2))]
    assert (pictures[absent] == 255).all()


def test_no_object_is_shown_twice_on_a_background(hand, by_table):
    study, _ = hand
    wrong = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    pictures, _, columns, marks, absent = in9.worst_backgrounds(study, wrong, count=1)
    assert columns == ["fools 25 %"]
    assert [row[0] for row in marks] == ["mostly insect", "called insect", "", ""]
    assert absent[:, 0].tolist() == [False, False, True, True]
    assert (pictures[2:] == 255).all()


def test_backgrounds_that_fool_nobody_have_empty_cells(hand, by_table):
    study, _ = hand
    table = in9.worst_backgrounds(study, torch.zeros(4, 4).bool())
    pictures, rows, columns, marks, absent = table
    assert fits((pictures, rows, columns), marks, absent=absent) and pictures.shape[:2] == (4, 4)
    assert set(columns) == {"fools 0 %"} and not any(map(any, marks[1:]))
    assert set(marks[0]) == {"mostly nothing"}
    assert absent[1:].all() and (pictures[1:] == 255).all()


def test_every_category_has_a_row_of_examples_or_empty_frames(hand):
    study, found = hand
    pictures, rows, columns, marks, absent = in9.category_pictures(study, found[FIRST], 2)
    assert fits((pictures, rows, columns), marks, absent=absent)
    assert rows == [category for category, _ in imagenet9.CATEGORIES]
    assert columns == 2 * ["Original", "Mixed-Rand", "Only-BG-T"]
    there = dict(zip(rows, (~absent).tolist(), strict=True))
    once = [True] * 3 + [False] * 3  # one image each
    assert there["either suffices"] == there["both needed"] == there["neither"] == once
    assert not any(there["foreground suffices"] + there["fooled by its foreground"])
    said = dict(zip(rows, marks, strict=True))
    assert said["either suffices"] == ["✓ pet"] * 3 + [""] * 3
    assert said["both needed"] == ["✓ insect", "✗ none of them", "✗ none of them", "", "", ""]
    assert said["background suffices"] == ["✓ pet", "✗ insect", "✓ pet", "", "", ""]
    row = rows.index("both needed")
    assert torch.equal(pictures[row, 0], study.test["original"].images[1])
    assert (pictures[row, 3:] == 255).all()


def test_of_two_classes_three_images_each_are_shown_in_all_variants(hand):
    study, _ = hand
    pictures, rows, columns = table = in9.eight(study)
    assert fits(table) and columns == list(VARIANTS.values())
    assert rows == ["insect", "insect", "pet", "pet"]  # all there are
    assert torch.equal(pictures[:, 0], study.test["original"].images[[1, 3, 0, 2]])


# ---- planted shortcuts by hand

OWN_ROWS = [1, 3]  # of LABELS, the images of the marked class
TAUGHT = {MARKED: [0.9, 0.8], SMALL: [0.5, 0.5]}  # scores of two marked images, by kind
CONTROLS = {  # of three networks that saw no marks
    MARKED: ([0.1, 0.85], [0.1, 0.2], [0.95, 0.95]),
    SMALL: ([0.5, 0.6], [0.4, 0.5], [0.5, 0.6]),
}
APART = {  # how often the first score is the higher one
    MARKED: [3 / 4, 1, 0],
    SMALL: [1 / 4, 3 / 4, 1 / 4],
    "controls among themselves": [3.5 / 4, 2 / 4, 0.5 / 4],  # by the small mark
}
SAID = {  # of both kinds' networks and of the control, by test set
    MARKED: {
        "original": [1, -1, 1, 0],
        f"{MARKED}: original": [1, 0, 1, 0],
        f"{MARKED}: everywhere": [0, 0, 0, 0],
    },
    SMALL: {
        "original": [0, 1, 1, 0],
        f"{SMALL}: original": [0, 0, 1, 1],
        f"{SMALL}: everywhere": [0, 0, 1, 0],
    },
    "original": {
        "original": [1, 0, 0, 0],
        f"{MARKED}: original": [1, 1, 1, 1],
        f"{MARKED}: everywhere": [1, 1, 0, 0],
        f"{SMALL}: original": [1, 0, 1, 1],
        f"{SMALL}: everywhere": [1, 0, 1, 1],
    },
}
WITH_MAPS = [name for name in planted_shortcut.METHODS if "No-FG" not in name][1:]


def looked_for(scores: list[float], brightness: int) -> Result:
    """As `look_for_mark` has it, every map as bright everywhere, a step brighter each."""
    tensors = {name: torch.tensor(scores) for name in planted_shortcut.METHODS}
    for step, name in enumerate(WITH_MAPS):
        tensors[f"map: {name}"] = torch.full((2, 64, 64), brightness + step, dtype=torch.uint8)
    tensors["painted"] = torch.full((8, 3, 64, 64), brightness, dtype=torch.uint8)
    return Result("", tensors, {}, {})


def planted_by_hand(controls: int) -> tuple[Study, in9.Planted]:
    shape = (4, 3, 64, 64)
    images = ImageSet(torch.zeros(shape, dtype=torch.uint8), torch.tensor(LABELS), ("ant", "bee"))
    shown = {
        kind: torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(shape) + 100 * (1 + k)
        for k, kind in enumerate(KINDS)
    }
    tests = {kind: {"original": replace(images, images=shown[kind])} for kind in KINDS}
    plans = {Network(kind): ("", kind) for kind in KINDS}
    plans |= {Network(seed=seed): ("", *KINDS) for seed in range(controls)}
    study, found = by_hand(plans=plans, tests={"": {"original": images}} | tests), {}
    for network in plans:
        marks = {
            kind: looked_for(CONTROLS[kind][network.seed], 150 + 20 * network.seed + 10 * step)
            if network.on == "original"
            else looked_for(TAUGHT[kind], 50 * step)
            for step, kind in enumerate(KINDS)
            if kind in plans[network]
        }
        # controls of other seeds say something else, which no table of behaviour asks
        said = SAID[network.on] if not network.seed else SAID["original"] | {"original": [1] * 4}
        found[network] = known(network, said, marks=marks)
    return study, in9.planted(study, found)


@pytest.fixture(scope="module")
def marks_by_hand() -> tuple[Study, in9.Planted]:
    return planted_by_hand(controls=3)


def test_what_marks_did_to_each_network_by_hand(marks_by_hand):
    _, made = marks_by_hand
    rows = [
        "accuracy, no marks", "accuracy, contaminated test",
        "class named: own, unmarked", "class named: own, marked",
        "class named: others, unmarked", "class named: others, marked",
    ]  # fmt: skip
    expected = {
        (MARKED, "taught"): [75, 100, 50, 100, 0, 100],
        (MARKED, "control"): [75, 50, 100, 50, 50, 50],
        (SMALL, "taught"): [50, 50, 50, 100, 50, 50],
        (SMALL, "control"): [75, 75, 100, 50, 50, 0],
    }
    assert made.behaviour.to_dict("list") == expected
    assert made.behaviour.columns.tolist() == list(expected)
    assert made.behaviour.index.tolist() == rows
    assert made.turned == {MARKED: 100 - 50, SMALL: 50 - 0}


def test_methods_are_compared_for_each_mark(marks_by_hand):
    _, made = marks_by_hand
    methods = list(planted_shortcut.METHODS)
    assert list(made.methods) == list(KINDS)
    for kind, area in (MARKED, 100 / 64**2), (SMALL, 64 / 64**2):
        table = made.methods[kind]
        assert table.index.tolist() == methods
        assert table["taught"].tolist() == pytest.approx([np.mean(TAUGHT[kind])] * 6)
        assert table["controls"].tolist() == pytest.approx([np.mean(CONTROLS[kind])] * 6)
        assert table["by area"].dropna().tolist() == [area] * 4
        assert (table["told apart, least"] == min(APART[kind])).all()
        assert (table["told apart, most"] == max(APART[kind])).all()
    assert made.certainty == dict.fromkeys(methods, APART)


def test_one_control_has_none_to_be_compared_with():
    made = planted_by_hand(controls=1)[1]
    for row in made.certainty.values():
        assert row == {MARKED: APART[MARKED][:1], SMALL: APART[SMALL][:1]}


def test_pictures_are_of_the_large_mark(marks_by_hand):
    study, made = marks_by_hand
    pictures, rows, columns = table = made.pictures
    assert fits(table) and columns == ["", ""]  # as many as there are images of the class
    assert rows[0] == "marked image"
    images = study.tests[MARKED]["original"].images[OWN_ROWS]
    assert torch.equal(pictures[0], images)
    for step, name in enumerate(WITH_MAPS):
        for who, brightness in ("taught", 0), ("control", 150):
            maps = torch.full((2, 64, 64), (brightness + step) / 255)
            shown = pictures[rows.index(f"{name.split(': ')[-1]}, {who}")]
            assert torch.equal(shown, figures.heated(images, maps)), (name, who)
    for who, brightness in ("taught", 0), ("control", 150):
        assert (pictures[rows.index(f"painted picture, {who}")] == brightness).all()
    assert len(rows) == 1 + 2 * len(WITH_MAPS) + 2


def test_no_shortcut_is_planted_among_photographs(hand):
    assert in9.planted(*hand) is None


# ---- the demo


@dataclass
class Ran:
    course: Course
    study: Study
    found: dict[Network, Studied]
    files: dict[Path, int]  # of the store, and when they were written


def course_in(root: Path, **changed) -> Course:
    """The demo at 36 px, where marks differ by two, on few scenes with two seeds and epochs."""
    demo = PROFILES["demo"]
    ours = replace(
        demo.imagenet9,
        size=36,
        recipe=RECIPE,
        seeds=2,
        others=demo.imagenet9.others[:1],
        pretrained=demo.imagenet9.pretrained[:2],
        early=1,
        judged=36,
        foregrounds=18,
        backgrounds=9,
        explained=9,
        masked=2,
        ties=(0.0, 1.0),
    )
    first = replace(demo.backgrounds, size=36, recipe=RECIPE, seeds=2)
    sizes = {"size": 36, "train": 54, "validation": 36, "test": 54}
    profile = replace(demo, imagenet9=ours, backgrounds=first, **(sizes | changed))
    return Course(profile, "04_imagenet9", CPU, root, None, None)


def written(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    course = course_in(tmp_path_factory.mktemp("demo"))
    with in_this_process():
        study = assemble(course)
        found = study.run()
    return Ran(course, study, found, written(course.store.root))


def test_every_network_answers_for_every_image_it_is_asked_about(ran):
    study = ran.study
    assert list(ran.found) == list(study.plans)
    for network, studied in ran.found.items():
        assert studied.network == network
        expected = {}
        for place in study.plans[network]:
            prefix = "" if place == study.plans[network][0] else f"{place}: "
            expected |= {prefix + name: images for name, images in study.tests[place].items()}
        if network.on == PRETRAINED:
            expected["own task"] = study.tests["own task"]["all"]
        assert studied.predicted.keys() == studied.labels.keys() == expected.keys()
        for name, images in expected.items():
            said = studied.predicted[name]
            assert said.dtype == torch.long and len(said) == len(images)
            assert torch.equal(studied.labels[name], images.labels)
            assert 0 <= said.min() <= said.max() < len(images.class_names)
        assert (studied.search is not None) == (network in study.attacked)
        assert set(studied.maps) == (set(METHODS) if network in study.explained else set())
        looked = dict.fromkeys((FIRST, Network(seed=1)), KINDS)  # the controls
        looked |= {Network(kind): (kind,) for kind in KINDS}
        assert tuple(studied.marks) == looked.get(network, ())


def test_the_plan_of_the_demo(ran):
    plans = ran.study.plans
    seeded = ("original", "only_bg_t", "only_fg", "mixed_rand", AUGMENTED)
    once = ("mixed_same", "mixed_next", "no_fg", "only_bg_b", "noise", "mixed", *KINDS)
    expected = {Network(on, seed) for on in seeded for seed in (0, 1)}
    expected |= {Network(on) for on in once} | {Network(title="AlexNet")}
    expected |= {Network(tie=tie) for tie in (0.0, 1.0)}
    expected |= {Network(PRETRAINED, 0, t, None, e) for t in ("AlexNet", "VGG") for e in (1, None)}
    assert set(plans) == expected
    assert plans[Network(tie=0.0)] == ("tie 0",) and plans[FIRST] == ("", MARKED, SMALL)
    assert all(plans[Network(kind)] == ("", kind) for kind in KINDS)
    assert plans[Network(seed=1)] == ("draw 1", MARKED, SMALL)
    assert {plans[n] for n in plans if n.seed and n.on != "original"} == {("draw 1",)}
    usual = [n for n in plans if not n.seed and n.tie is None and n.on not in KINDS]
    assert {plans[n] for n in usual if n != FIRST} == {("",)}
    attacked = set(ran.study.attacked)
    assert {n for n in expected if n.seed and n in attacked} == {
        Network(on, 1) for on in ("original", "mixed_rand", AUGMENTED)
    }
    assert {n for n in expected if n.title and n in attacked} == {
        Network(title="AlexNet"), Network(PRETRAINED, 0, "AlexNet"), Network(PRETRAINED, 0, "VGG"),
    }  # fmt: skip
    tested = ("only_bg_t", "only_bg_b", "no_fg", "mixed_same", "mixed_next", *KINDS)
    others = {n for n in expected if not n.title and n not in attacked and not n.seed}
    assert others == {Network(on) for on in tested}


def test_predictions_are_those_of_the_networks(ran):
    """Put together anew from the stored weights, for a network of each kind."""
    study, original = ran.study, ran.study.test["original"]
    nets = [FIRST, Network(AUGMENTED, 1), Network(title="AlexNet"), Network(tie=1.0)]
    for network in [*nets, Network(PRETRAINED, 0, "VGG", None, 1)]:
        studied = ran.found[network]
        names = {"": study.budget.architecture, "AlexNet": "slim_alexnet", "VGG": "slim_vgg6"}
        model = models.build(names[network.title], 18 if network.on == PRETRAINED else 9, seed=0)
        model.load_state_dict(studied.made.tensors)
        assert same(in9.model(study, network).state_dict(), model.state_dict())
        images = study.tests[study.plans[network][0]]["mixed_rand"]
        said = training.predict(model, images).argmax(1)
        if network.on == PRETRAINED:  # classes go by two into a superclass
            own = training.predict(model, study.tests["own task"]["all"]).argmax(1)
            assert (studied.predicted["own task"] == own).double().mean() > 0.95
            said = torch.tensor(study.all_classes.superclasses)[said]
        assert (studied.predicted["mixed_rand"] == said).double().mean() > 0.95  # but rounding
    share = 100 * (ran.found[FIRST].predicted["original"] == original.labels).double().mean()
    assert ran.found[FIRST].accuracy("original") == pytest.approx(share.item())


def test_rows_of_all_variants_are_the_same_objects(ran):
    for place, sets in ran.study.tests.items():
        if place == "own task":
            continue
        first = sets["original"]
        for name, images in sets.items():
            assert images.ids == first.ids and torch.equal(images.labels, first.labels)
            assert images.parts is None and images.views is None
            assert (images.masks is None) == (name != "original")
    test = ran.study.test
    assert list(test) == list(VARIANTS) and len(test["original"].class_names) == 9
    masks = test["original"].masks[:, None].expand(-1, 3, -1, -1)
    for name in ("mixed_same", "mixed_rand", "mixed_next", "only_fg"):
        assert torch.equal(test[name].images[masks], test["original"].images[masks])
    assert not test["no_fg"].images[masks].any()
    assert set(ran.study.tests["tie 0"]) == {"original", "only_bg_t", "mixed_same", "mixed_rand"}


def test_each_seed_has_its_own_draw_of_backgrounds(ran):
    main, other = ran.study.test, ran.study.tests["draw 1"]
    assert list(main) == list(other)
    built = backgrounds.variants(main["original"], seed=1).sets
    for name in VARIANTS:
        if name.startswith("mixed"):
            assert torch.equal(other[name].images, built[name].images)
            assert not torch.equal(other[name].images, main[name].images)
        else:
            assert other[name] is main[name]  # once in memory


def test_no_test_image_and_no_background_of_one_was_trained_on(ran):
    course, study = ran.course, ran.study
    train, nine = course.images("train"), study.train.class_names
    assert nine == train.class_names[::2]
    assert len(study.class_titles) == 9 == len(set(study.class_titles))
    seen = pictures_of(train) | set().union(*(pictures_of(w) for w in study.worlds.values()))
    for place, sets in study.tests.items():
        for name, images in sets.items():
            assert not seen & pictures_of(images), (place, name)
    drawn = in9._even(course.images("test").only(nine), study.budget.judged)
    behind = backgrounds.tiled(drawn)[0]
    mixed = ("mixed_same", "mixed_rand", "mixed_next")
    for images in (study.tests[place][name] for place in ("", "draw 1") for name in mixed):
        for picture, mask in zip(images.images, study.test["original"].masks, strict=True):
            fits = (behind[:, :, ~mask] == picture[:, ~mask]).all(2).all(1)
            assert fits.sum() == 1  # the background of exactly one test image
    ids = {name.split(",")[0] for name in study.test["original"].ids}
    assert ids == {"world 1003"} == {i.split(",")[0] for i in study.tests["tie 0"]["original"].ids}
    assert {i.split(",")[0] for i in study.tests["own task"]["all"].ids} == {"world 1002"}


def test_worlds_of_other_ties_have_the_same_objects(ran):
    study = ran.study
    for tie, world in study.worlds.items():
        assert world.ids == study.train.ids and torch.equal(world.labels, study.train.labels)
        assert world.class_names == study.train.class_names
        assert not torch.equal(world.backdrops, study.train.backdrops)
        home = torch.tensor(world.superclasses)[world.labels] == world.backdrops
        assert home.all() if tie == 1 else home.double().mean() < 0.5


@OF_KINDS
def test_marks_are_on_one_class_of_the_test_images_or_on_all(ran, kind):
    study = ran.study
    first, sets = study.test["original"], study.tests[kind]
    own = first.labels == planted_shortcut.CLASS
    everywhere, where = planted_shortcut.marked(first, kind)
    assert torch.equal(sets["everywhere"].images, everywhere.images)
    assert where.sum((1, 2)).tolist() == [{MARKED: 36, SMALL: 16}[kind]] * len(first)
    rows = [first.ids.index(name) for name in sets["original"].ids]
    for name in ("original", "no_fg", "mixed_rand"):
        there = (sets[name].images == everywhere.images[rows]) | ~where[rows][:, None]
        marked = there.flatten(1).all(1)
        if name != "mixed_rand":
            assert torch.equal(marked, own[rows])
    changed = (sets["original"].images != first.images[rows]).any(1)
    assert not changed[~own[rows]].any() and not (changed & ~where[rows]).any()


@OF_KINDS
def test_marks_are_looked_for_in_the_marked_images_of_the_class(ran, kind):
    study, sets = ran.study, ran.study.tests[kind]
    own = sets["original"].labels == planted_shortcut.CLASS
    images, (_, marks) = sets["original"][own], planted_shortcut.marked(sets["original"][own], kind)
    for network in (FIRST, Network(seed=1), Network(kind)):
        studied = ran.found[network]
        tensors, made = studied.marks[kind].tensors, studied.marks[kind].made
        assert made["config"]["kind"] == kind and made["config"]["masked"] == 2
        assert made["inputs"]["network"] == studied.made.key
        named = studied.predicted[f"{kind}: no_fg"][own] == planted_shortcut.CLASS
        assert torch.equal(tensors["paper 4: No-FG"], named.float())
        model = in9.model(study, network)
        maps = saliency.input_gradient(model, images.to_float(), images.labels)
        shares = saliency.energy_inside(maps, marks)
        assert tensors["input gradient"].tolist() == pytest.approx(shares.tolist(), abs=1e-3)
        likeness = planted_shortcut.likeness(
            tensors["painted"].float() / 255, planted_shortcut.pattern(36, kind)
        )
        scores = tensors["paper 1: painted picture"].tolist()
        assert scores == pytest.approx(likeness.tolist(), abs=0.03) and len(scores) == 8


def test_paper_ones_networks_are_not_trained_again(ran, monkeypatch):
    monkeypatch.setattr(background_removal, "_others", lambda *_: ({}, None))
    paper_one = background_removal.assemble(ran.course)
    titles = {"original": "standard", "only_fg": "black", "noise": "noise", "mixed": "mixed"}
    asked = {}
    for network in ran.study.plans:
        if network.on in titles and not network.title and network.tie is None:
            variant = Variant(titles[network.on], network.seed)
            made = background_removal.fitted(paper_one, variant, ran.course.store.recall)
            assert same(made.tensors, ran.found[network].made.tensors)
            asked[made.key] = network
    assert len(asked) == 6 and set(records(ran.study.root, "fit_variant")) == set(asked)
    # and what paper 4 trained itself is none of these
    for record in records(ran.study.root, "fit_on").values():
        own = record["inputs"]["train"] == paper_one.train.key
        slim = record["config"]["architecture"] == ran.study.budget.architecture
        assert not (own and slim and record["config"]["on"] in titles)


def test_networks_for_all_classes_are_those_of_papers_two_and_three(ran, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    train, budget = ran.course.images("train"), ran.study.budget
    jobs, nets = [], []
    for title, architecture in budget.pretrained:
        for epochs in (budget.early, None):
            recipe = replace(budget.recipe, epochs=epochs or budget.recipe.epochs)
            jobs.append((architecture, train, recipe))
            nets.append(Network(PRETRAINED, 0, title, None, epochs))
    made = training.all_trained(ran.course.store, jobs)
    for network, (_, result) in zip(nets, made, strict=True):
        assert result.key == ran.found[network].made.key
    assert len(records(ran.study.root, "fit_network")) == 4 == len({r.key for _, r in made})


def test_each_network_learns_from_its_own_images(ran):
    study = ran.study
    made = records(study.root, "fit_on")
    assert len(made) == 2 * 3 + 4 + 1 + 2 + 2  # seeds, variants, AlexNet, marks, ties
    for network, studied in ran.found.items():
        if studied.made.key not in made:
            continue
        config, inputs = (made[studied.made.key][k] for k in ("config", "inputs"))
        assert (config["on"], config["seed"]) == (network.on, network.seed)
        source = study.train if network.tie is None else study.worlds[network.tie]
        assert inputs == {"train": source.key}
        double = network.on == AUGMENTED
        assert config["recipe"]["epochs"] == (1 if double else 2)  # as many steps for all
        assert studied.trained_with == len(training_set(source, network.on, network.seed))
        assert (config["architecture"] == "slim_alexnet") == (network.title == "AlexNet")
        assert config["in9_mean"] is False
    assert in9.trained_with(study, ran.found)["Original + Mixed-Rand"] == 2 * len(study.train)


@OF_KINDS
def test_another_mark_is_learned_by_another_network(ran, monkeypatch, kind):
    """What is painted over the images is not in their key."""
    network, store = Network(kind), Store(ran.study.root)
    other = Network(SMALL if kind == MARKED else MARKED)
    asked = {n: partial(in9._made, ran.study, n, store.recall) for n in (network, other)}
    assert asked[network]().key == ran.found[network].made.key != ran.found[other].made.key
    with monkeypatch.context() as patch:
        patch.setitem(planted_shortcut.SIDES, kind, 16)
        with pytest.raises(LookupError):
            asked[network]()
        assert asked[other]().key == ran.found[other].made.key
    for name in ("_CORNER", "CLASS"):
        with monkeypatch.context() as patch:
            patch.setattr(planted_shortcut, name, 5)
            for ask in asked.values():
                with pytest.raises(LookupError):
                    ask()
    assert asked[network]().key == ran.found[network].made.key


def test_a_second_run_computes_and_writes_nothing(ran, monkeypatch):
    monkeypatch.setattr(Stage, "__call__", lambda *_, **__: pytest.fail("computed again"))
    again = assemble(replace(ran.course, folder=ran.course.folder)).run()
    now = written(ran.study.root)
    assert {file: now[file] for file in ran.files} == ran.files
    new = {file.relative_to(ran.study.root).parts[0] for file in now.keys() - ran.files.keys()}
    assert new <= {"draw_scenes"}  # of other tests
    assert again.keys() == ran.found.keys()
    for network, studied in again.items():
        assert same(studied.predicted, ran.found[network].predicted)
        assert same(studied.maps, ran.found[network].maps)
        assert studied.fooled == ran.found[network].fooled or math.isnan(studied.fooled)


def test_an_interrupted_study_ends_as_an_uninterrupted_one(ran, tmp_path, monkeypatch):
    some = (FIRST, Network(MARKED), Network(AUGMENTED), Network(tie=0.0), Network(title="AlexNet"))
    plans = {n: ran.study.plans[n] for n in (*some, Network(PRETRAINED, 0, "VGG", None, 1))}
    study, save, saved = replace(ran.study, root=tmp_path, plans=plans), training._save, []

    def interrupted(*state):
        saved.append(len(state[-1].train_loss))
        if len(saved) == 4:
            raise KeyboardInterrupt  # in the second of two epochs, before it is on disk
        save(*state)

    monkeypatch.setattr(training, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.run()
    before = written(tmp_path)
    done = {file: at for file, at in before.items() if file.name == "made.json"}
    assert done and saved[-2:] == [1, 2]
    found = study.run()
    assert saved[4] == 2 and saved.count(1) == 6  # no first epoch was done again
    assert {file: written(tmp_path)[file] for file in done} == done
    whole, resumed = contents(ran.study.root), contents(tmp_path)
    assert resumed == {name: whole[name] for name in resumed}  # bit for bit
    assert Counter(name.split("/")[0] for name in resumed) == {
        "fit_variant": 1, "fit_on": 4, "fit_network": 1, "classify_variants": 10,
        "attack": 4, "explain": 2, "look_for_mark": 3,
    }  # fmt: skip
    for network in plans:
        assert same(found[network].predicted, ran.found[network].predicted)


def test_the_study_can_go_to_another_process(ran):
    study = pickle.loads(pickle.dumps(ran.study))
    assert study.plans == ran.study.plans and study.train.key == ran.study.train.key
    assert study.tests["draw 1"]["original"] is study.test["original"]
    store = Store(study.root)
    again = in9._one(study, FIRST, store.recall)
    assert same(again.predicted, ran.found[FIRST].predicted)


def test_a_limit_makes_the_study_smaller(ran, tmp_path):
    few = course_in(tmp_path)
    few.profile = replace(
        few.profile, imagenet9=replace(few.profile.imagenet9, judged=99, masked=99, ties=())
    )
    few.limit = 36
    study, usual = assemble(few), ran.study.budget
    assert study.budget == replace(usual, judged=36, masked=36, ties=())
    assert len(study.test["original"]) == 18 < len(ran.study.test["original"]) == 27
    assert len(study.train) == 18 < len(ran.study.train) and not study.worlds
    assert set(study.plans) == {n for n in ran.study.plans if n.tie is None}


def test_a_quick_look_at_the_planted_shortcut_has_what_there_is(ran):
    """Two images of the marked class, one of them with crisp masks."""
    study, tests, found = ran.study, {}, dict(ran.found)
    for kind in KINDS:
        tests[kind] = {}
        for name, images in study.tests[kind].items():
            own = torch.nonzero(images.labels == planted_shortcut.CLASS)[2:, 0]
            tests[kind][name] = images[[k for k in range(len(images)) if k not in own]]
        for network in (FIRST, Network(seed=1), Network(kind)):
            tensors = {
                name: values if "painted" in name else values[: 1 if "crisp" in name else 2]
                for name, values in found[network].marks[kind].tensors.items()
            }
            few = replace(found[network].marks[kind], tensors=tensors)
            found[network] = replace(found[network], marks=found[network].marks | {kind: few})
    made = in9.planted(replace(study, tests=study.tests | tests), found)
    assert fits(made.pictures) and len(made.pictures[2]) == 1
    for kind in KINDS:
        assert made.methods[kind]["images"].tolist() == [8, 1, 2, 2, 2, 2]


def test_a_profile_without_this_study_is_refused(tmp_path):
    course = course_in(tmp_path)
    course.profile = replace(course.profile, imagenet9=None)
    with pytest.raises(ValueError, match="profile 'demo' has no budget for this study"):
        assemble(course)


def test_every_claim_of_the_demo_has_numbers_or_a_reason(ran, tmp_path):
    asked = in9.quantities(ran.study, ran.found)
    verdicts = answered(asked, tmp_path)
    assert len(measured(asked, "bg-gap")) == 2
    assert len(measured(asked, "adversarial-backgrounds")) == 18
    untested = {name for name, verdict in verdicts.items() if verdict == "not testable here"}
    released = {f"p4-resnet50-{name}" for name in ("original", "mixed-same", "mixed-rand")}
    assert untested == released | set(IMAGENET_ONLY)  # "AlexNet" and "VGG" on scenes


def test_tables_of_the_demo(ran):
    study, found = ran.study, ran.found
    overview = in9.overview(study)
    assert list(overview.index) == ["main", "tie 0", "tie 1"]
    assert overview["test sets"].tolist() == [8, 4, 4] and set(overview["classes"]) == {9}
    matrix = in9.matrix(study, found)
    assert list(matrix.index) == [*VARIANTS.values(), "Original + Mixed-Rand"]
    seeds = [found[Network("only_fg", seed)].accuracy("no_fg") for seed in (0, 1)]
    assert matrix.loc["Only-FG", "No-FG"] == pytest.approx(np.mean(seeds))
    table = in9.big_table(study, found)
    kinds = [("trained here", "slim_resnet10"), ("trained here", "AlexNet")]
    kinds += [("pretrained", "AlexNet"), ("pretrained", "VGG")]
    assert sorted(table.index) == sorted(kinds) and table["own task"].notna().sum() == 2
    assert not any(column.startswith("paper: ") for column in table)  # of slim namesakes
    assert set(VARIANTS.values()) < set(table)
    places = ("tie 0", "own task", "draw 1", *KINDS)
    assert not any(len(in9.big_table(study, found, place)) for place in places)
    learned = in9.trained_with(study, found)
    for kind in ("Original, a large mark on one class", "Original, a small mark on one class"):
        assert learned[kind] == len(study.train)
    assert list(in9.ties(study, found, 0.5).index) == [0, 0.5, 1]
    assert "Original, tie 0" in in9.vulnerable(study, found).index
    context = in9.context(study, found)
    home = study.test["original"]
    at_home = home.backdrops == home.superclass_labels
    first = [found[Network(seed=k)].right("original") for k in (0, 1)]
    expected = np.mean([100 * right[at_home].double().mean().item() for right in first])
    assert context.loc["Original", "at home"] == pytest.approx(expected)
    saliency_of = in9.saliency_table(study, found)
    assert len(saliency_of) == 4 * 3 and saliency_of["points"].notna().all()
    maps_of = found[Network("only_fg")].maps["input gradient"].double()
    masks = in9.explained_images(study).masks
    share = saliency.energy_inside(maps_of, masks) - masks.double().mean((1, 2))
    got = in9.mean_on_foreground(study, found[Network("only_fg")], "input gradient")
    assert got == pytest.approx(100 * share.nanmean().item())
    progress = in9.progress(study, found)
    assert len(progress) == 4 and (progress["own task"] >= 0).all()


def test_maps_are_of_the_true_class_and_divided_by_their_peak(ran):
    studied, images = ran.found[FIRST], in9.explained_images(ran.study)
    model = background_removal.Study.network(ran.study.paper_one, studied.made)
    layer = saliency.last_maps(model, images.to_float())
    cam = saliency.grad_cam(model, images.to_float(), images.labels, layer)
    expected = cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12)
    got = studied.maps["Grad-CAM"].float() / 255
    assert got.shape == expected.shape and (got - expected).abs().max() < 0.02
    for values in studied.maps.values():
        assert values.dtype == torch.uint8 and set(values.amax((1, 2)).tolist()) <= {0, 255}


def test_adversarial_search_agrees_with_every_background(ran):
    study = ran.study
    images, behind = in9.adversarial_rows(study)
    assert (len(images), len(behind)) == (18, 9) and set(behind.counts().values()) == {1}
    wrong = in9.every_background(study)
    assert wrong.shape == (18, 9)
    assert torch.equal(wrong.any(1), ran.found[FIRST].search.vulnerable)
    of_id = dict(zip(study.test["original"].ids, ran.found[FIRST].right("original"), strict=True))
    right = torch.tensor([of_id[name] for name in images.ids])
    row = in9.vulnerable(study, ran.found).loc["Original"]
    expected = 100 * wrong[right].any(1).double().mean().item()
    assert row["fooled of the right"] == pytest.approx(expected, nan_ok=True)
    with pytest.raises(LookupError):
        in9.every_background(replace(study, root=study.root / "nothing here"))
    with pytest.raises(LookupError):
        in9.model(replace(study, root=study.root / "nothing here"), FIRST)
    exhaustive = [r for r in records(study.root, "attack").values() if r["config"]["exhaustive"]]
    assert len(exhaustive) == 1


def test_pictures_of_the_demo_can_be_drawn(ran):
    study, found = ran.study, ran.found
    pictures, rows, columns = table = in9.eight(study)
    assert fits(table) and len(rows) == len(set(rows)) == 6
    assert set(rows) <= set(study.class_titles)
    for column, name in enumerate(VARIANTS):
        shown = {picture.numpy().tobytes() for picture in pictures[:, column]}
        assert shown <= pictures_of(study.test[name])
    worst = in9.worst_backgrounds(study, in9.every_background(study))
    assert fits(worst[:3], worst[3], absent=worst[4]) and worst[0].shape[:2] == (4, 6)
    rows = in9.saliency_rows(study)
    explained = in9.explained_images(study)
    assert explained.labels[rows].tolist() == [0, 1, 2, 3, 4, 5]
    pictures, names, titles = table = in9.saliency_pictures(study, found, rows)
    assert fits(table) and len(names) == 7
    assert titles == list(study.class_titles[:6])
    assert torch.equal(pictures[0], explained.images[rows])
    maps_of = found[Network("mixed_rand")].maps["backtracking"][rows].float() / 255
    heat = figures.heated(explained.images[rows], maps_of)
    assert torch.equal(pictures[names.index("backtracking, Mixed-Rand")], heat)
    examples = in9.category_pictures(study, found[FIRST])
    assert fits(examples[:3], examples[3], absent=examples[4])
    assert examples[0].shape[:2] == (7, 9)


def test_the_planted_shortcut_of_the_demo(ran):
    study, found = ran.study, ran.found
    made = in9.planted(study, found)
    pictures, rows, columns = made.pictures
    assert fits(made.pictures) and len(columns) == 2 and len(rows) == 1 + 4 * 2 + 2
    own = study.tests[MARKED]["original"].of_class(study.train.class_names[0])
    assert torch.equal(pictures[0], own.images[:2])
    painted = found[Network(MARKED)].marks[MARKED].tensors["painted"]
    assert torch.equal(pictures[rows.index("painted picture, taught")], painted[:2])
    for kind, side in (MARKED, 6), (SMALL, 4):
        table = made.methods[kind]
        assert list(table.index) == list(planted_shortcut.METHODS)
        assert table["by area"].dropna().unique().tolist() == [side**2 / 36**2]
        assert table["images"].tolist() == [8, 2, 3, 3, 3, 3]
        control, labels = found[FIRST], study.test["original"].labels
        for who, studied in ("taught", found[Network(kind)]), ("control", control):
            called = studied.predicted[f"{kind}: everywhere"] == 0
            for row, chosen in (("own, marked", labels == 0), ("others, marked", labels != 0)):
                share = 100 * called[chosen].double().mean().item()
                got = made.behaviour.loc[f"class named: {row}", (kind, who)]
                assert got == pytest.approx(share)
        scores = [found[n].marks[kind] for n in (Network(kind), FIRST, Network(seed=1))]
        for method in planted_shortcut.METHODS:
            first, *others = (result.tensors[method].double().numpy() for result in scores)
            apart = [planted_shortcut.certainty(first, other) for other in others]
            assert made.certainty[method][kind] == apart
        turned = made.behaviour.loc["class named: others, marked", kind]
        assert made.turned[kind] == pytest.approx(turned["taught"] - turned["control"])


# ---- photographs

WNIDS = [f"n{k:08d}" for k in range(1000)]
TITLES = ("dogs only", "cats only", "slim")


def thousand_ways(seed: int, always: int | None = None) -> models.Pretrained:
    """A small network with ImageNet's outputs; with `always`, that class whatever it sees."""
    model = models.build("slim_vgg6", 1000, seed=seed).eval()
    if always is not None:
        with torch.no_grad():
            model[-1][-1].bias[always] = 1e4
    digest = hashlib.sha256(f"{seed} {always}".encode()).hexdigest()
    return models.Pretrained(model, [f"{k}" for k in range(1000)], "a file", digest, False)


PRETRAINED_NETWORKS = {"dog weights": (0, 207), "cat weights": (1, 281), "slim weights": (2, None)}


def hand_out(course: Course, weights: str | None = None) -> models.Pretrained:
    if weights not in PRETRAINED_NETWORKS:
        raise FileNotFoundError(f"no file of {weights}: fetch it")
    return thousand_ways(*PRETRAINED_NETWORKS[weights])


def photo_course(data: Path, results: Path, profile: str = "photos") -> Course:
    known = PROFILES[profile]
    pretrained = tuple(zip(TITLES, PRETRAINED_NETWORKS, strict=True))
    budget = replace(
        known.imagenet9,
        size=64,
        architecture="slim, new last layer",
        pretrained=(*pretrained, ("absent", "absent weights")),
        judged=12,
        foregrounds=6,
        backgrounds=6,
        explained=4,
        masked=2,
        seeds=1,
        others=(),
    )
    if profile == "paper":
        recipe = replace(RECIPE, epochs=1, batch_size=4)
        others = (("AlexNet", "slim_alexnet"),)
        small = {"architecture": "slim_vgg6", "recipe": recipe, "size": 32, "others": others}
        budget = replace(budget, **small)
    return Course(replace(known, size=64, imagenet9=budget), "04", CPU, results, data, None)


def single_photographs(root: Path) -> None:
    """Two photographs of a dog, a cat, an elephant and a fish each; a list of 1,000 classes."""
    for k in (207, 281, 386, 389):
        for i in range(2):
            place = root / "imagenet" / "val" / WNIDS[k] / f"{i}.JPEG"
            paint(place, (70, 64), (k % 256, 40 * i, 90))
    lines = [f"{wnid} class_{k}" for k, wnid in enumerate(WNIDS)]
    (root / "imagenet" / "wnids.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Dogs and cats of VOC, photographs of ImageNet and its nine classes in eight variants."""
    root = tmp_path_factory.mktemp("data")
    voc_layout(root / "VOCdevkit" / "VOC2012", np.random.default_rng(0))
    single_photographs(root)
    imagenet9_release(root, photos.IN9_VARIANTS)
    return root


@pytest.fixture(scope="module")
def two_classes(data, tmp_path_factory):
    """The photos profile, assembled."""
    course = photo_course(data, tmp_path_factory.mktemp("photos"))
    with in_this_process() as patch:
        patch.setattr(Course, "pretrained", hand_out)
        return course, assemble(course)


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.setattr(Course, "pretrained", hand_out)


def test_photographs_are_dogs_and_cats_and_two_more_collections(two_classes):
    _, study = two_classes
    assert study.class_titles == ("dog", "carnivore (cat)")
    assert list(study.tests) == ["", "masks by GrabCut", "ImageNet", "ImageNet-9"]
    for place in ("", "masks by GrabCut", "ImageNet-9"):
        sets = study.tests[place]
        assert list(sets) == list(VARIANTS)
        assert all(s.ids == sets["original"].ids for s in sets.values())
    assert study.train.counts() == {"dog": 6, "cat": 7}
    main = study.test["original"]
    assert main.counts() == {"dog": 6, "cat": 6} and all(i.startswith("val_") for i in main.ids)
    assert not pictures_of(study.train) & pictures_of(main)
    single = study.tests["ImageNet"]["original"]
    assert single.class_names == photos.IN9_CLASSES and single.labels.tolist() == [0, 0, 8, 8]
    assert study.failures["ImageNet"] == {"of no class of the nine": 4}
    assert len(study.tests["ImageNet-9"]["original"]) == 9
    overview = in9.overview(study)
    assert overview["classes"].tolist() == [2, 2, 2, 9]
    assert overview["chance, %"].tolist() == [50, 50, 11.1, 11.1]


def test_masks_by_grabcut_are_a_collection_of_their_own(two_classes):
    _, study = two_classes
    cut, main = study.tests["masks by GrabCut"]["original"], study.test["original"]
    masks, failed = backgrounds.grabcut_masks(main)
    assert cut.ids == tuple(i for i, f in zip(main.ids, failed.tolist(), strict=True) if not f)
    assert torch.equal(cut.masks, masks[~failed])
    why = "GrabCut's foreground is below 10 % of its box"
    assert study.failures["masks by GrabCut"][why] == int(failed.sum())
    only = study.tests["masks by GrabCut"]["only_fg"]
    assert not only.images[~cut.masks[:, None].expand_as(only.images)].any()
    made = in9._built_from(main, {"masks": masks, "failed": torch.arange(len(main)) < 2})
    assert made.failures[why] == 2 and made.sets["original"].ids == main.ids[2:]


def test_a_missing_weight_file_is_reported_and_left_out(two_classes, weights, capsys):
    course, study = two_classes
    assert list(study.loaded) == list(TITLES)
    assert study.missing == {"absent": "no file of absent weights: fetch it"}
    assert not any(n.title == "absent" for n in study.plans)
    loaded, missing = in9._weights(course, study.budget)
    said = capsys.readouterr().out
    assert "absent is left out: no file of absent weights" in said
    assert "a file is not the official file" in said
    assert list(loaded) == list(TITLES) and list(missing) == ["absent"]


def test_the_plan_of_photographs(two_classes):
    _, study = two_classes
    pretrained = {n: places for n, places in study.plans.items() if n.on == PRETRAINED}
    assert [n.title for n in pretrained] == list(TITLES)
    assert set(pretrained.values()) == {tuple(study.tests)}
    trained = {n: places for n, places in study.plans.items() if n.on != PRETRAINED}
    assert set(trained) == {Network(on) for on in (*VARIANTS, AUGMENTED)}
    assert set(trained.values()) == {("", "masks by GrabCut")}  # of two classes, not of nine
    assert {n.title for n in study.attacked if n.title} == set(TITLES)


@pytest.fixture(scope="module")
def learned(two_classes):
    """The networks with a new last layer, run."""
    course, study = two_classes
    own = {n: places for n, places in study.plans.items() if n.on != PRETRAINED}
    study = replace(study, plans=own)
    with in_this_process():
        return course, study, study.run()


def test_new_last_layers_learn_from_each_variant(learned):
    _, study, found = learned
    made = records(study.root, "fit_on")
    assert len(made) == 9
    assert {r["config"]["backbone"] for r in made.values()} == {study.loaded["slim"].sha256}
    assert {r["config"]["on"] for r in made.values()} == {*VARIANTS, AUGMENTED}
    assert all(r["inputs"] == {"train": study.train.key} for r in made.values())
    for network, studied in found.items():
        assert set(studied.made.tensors) == {"weight", "bias"}
        assert studied.trained_with == (26 if network.on == AUGMENTED else 13)
        assert set(studied.predicted) == {
            *VARIANTS,
            *(f"masks by GrabCut: {name}" for name in VARIANTS),
        }
    # what their backbone sees of both collections is asked once for all of them
    seen = records(study.root, "embed_variants")
    shown = [{v: images.key for v, images in study.tests[p].items()} for p in study.plans[FIRST]]
    assert len(seen) <= 2 and not records(study.root, "classify_variants")
    assert all(keys in [r["inputs"] for r in seen.values()] for keys in shown)
    for network in (FIRST, Network("no_fg")):
        studied = found[network]
        model = models.with_last_layer(study.loaded["slim"].model, **studied.made.tensors)
        cut = study.tests["masks by GrabCut"]["only_bg_t"]
        for name, images in ("mixed_next", study.test["mixed_next"]), (
            "masks by GrabCut: only_bg_t", cut,
        ):  # fmt: skip
            said = training.predict(model, images).argmax(1)
            assert torch.equal(studied.predicted[name], said)
    first = found[FIRST]
    assert first.accuracy("original") > 90  # red cats before cyan, blue dogs before yellow
    before = study.loaded["slim"].model[-1][-1].weight
    assert torch.equal(before, thousand_ways(2).model[-1][-1].weight)  # the backbone stays


def test_tables_and_pictures_of_photographs(learned, tmp_path):
    _, study, found = learned
    answered(in9.quantities(study, found), tmp_path)
    assert len(in9.matrix(study, found)) == 9
    assert list(in9.big_table(study, found).index) == [("trained here", study.budget.architecture)]
    assert len(in9.big_table(study, found, "masks by GrabCut")) == 1
    assert in9.context(study, found) is None and in9.planted(study, found) is None
    assert len(in9.vulnerable(study, found)) == 4  # Original, Mixed-Rand, both, Only-FG
    assert in9.every_background(study).shape == (6, 6)
    assert fits(in9.eight(study)) and in9.eight(study)[0].shape[:2] == (6, 8)
    table = in9.saliency_pictures(study, found, in9.saliency_rows(study))
    assert fits(table) and table[2] == ["dog", "carnivore (cat)"]
    assert in9.trained_with(study, found)["Original + Mixed-Rand"] == 26


@pytest.mark.parametrize("title", TITLES)
def test_pretrained_networks_answer_for_every_collection(two_classes, title):
    _, study = two_classes
    network = Network(PRETRAINED, 0, title)
    study = replace(study, plans={network: study.plans[network]})
    studied = study.run()[network]
    names = {*VARIANTS, "ImageNet: original"}
    names |= {f"{place}: {v}" for place in ("masks by GrabCut", "ImageNet-9") for v in VARIANTS}
    assert set(studied.predicted) == names
    for name, said in studied.predicted.items():
        nine = name.startswith("ImageNet")
        if title == "dogs only":
            assert (said == 0).all(), name
        elif title == "cats only":  # a house cat is a cat among VOC's two, and none of the nine
            assert (said == (-1 if nine else 1)).all(), name
        else:
            assert set(said.tolist()) <= (set(range(-1, 9)) if nine else {0, 1})
    assert studied.search is not None and not studied.maps
    for place in study.tests:
        table = in9.big_table(study, {network: studied}, place)
        assert table.index.tolist() == [("pretrained", title)]


def test_without_other_collections_the_two_classes_are_left(data, tmp_path, weights):
    (tmp_path / "VOCdevkit").symlink_to(data / "VOCdevkit")
    study = assemble(photo_course(tmp_path, tmp_path / "results"))
    assert list(study.tests) == ["", "masks by GrabCut"]
    assert set(study.plans.values()) == {("", "masks by GrabCut")}
    overview = in9.overview(study)
    for name in ("ImageNet", "ImageNet-9"):
        why = overview.loc[name, "left out"]
        assert overview.loc[name, "test sets"] == 0
        assert name in why and "not under" in why


def test_a_list_of_other_classes_than_imagenets_is_refused(data, tmp_path, weights):
    (tmp_path / "VOCdevkit").symlink_to(data / "VOCdevkit")
    shutil.copytree(data / "imagenet", tmp_path / "imagenet")
    wnids = tmp_path / "imagenet" / "wnids.txt"
    wnids.write_text("\n".join(wnids.read_text().splitlines()[:999]))
    with pytest.raises(ValueError, match="imagenet lists 999 classes.* 1,000 lines"):
        assemble(photo_course(tmp_path, tmp_path / "results"))


def test_without_voc_the_release_does_for_pretrained_networks(data, tmp_path, weights):
    (tmp_path / "bg_challenge").symlink_to(data / "bg_challenge")
    study = assemble(photo_course(tmp_path, tmp_path / "results"))
    assert study.class_titles == photos.IN9_CLASSES and list(study.tests) == [""]
    assert set(study.plans) == {Network(PRETRAINED, 0, title) for title in TITLES}
    dogs = replace(study, plans={Network(PRETRAINED, 0, "dogs only"): ("",)}).run()
    (studied,) = dogs.values()
    assert (studied.predicted["mixed_rand"] == 0).all() and studied.search is not None


def test_photographs_that_are_missing_are_asked_for(tmp_path, weights):
    with pytest.raises(photos.MissingDataset, match="VOC 2012"):
        assemble(photo_course(tmp_path, tmp_path / "results"))


# ---- the public release


def test_a_missing_release_is_asked_for(tmp_path, weights):
    with pytest.raises(photos.MissingDataset, match="ImageNet-9"):
        assemble(photo_course(tmp_path, tmp_path / "results", "paper"))


def test_without_training_archives_pretrained_networks_are_examined(
    data, tmp_path, weights, capsys
):
    study = assemble(photo_course(data, tmp_path, "paper"))
    assert "No training archives" in capsys.readouterr().out
    assert study.train is None and [n.title for n in study.plans] == list(TITLES)
    assert study.class_titles == photos.IN9_CLASSES and list(study.tests) == [""]
    assert list(study.test) == list(VARIANTS)
    found = study.run()
    dogs, cats, slim = found.values()
    for name in VARIANTS:
        assert (dogs.predicted[name] == 0).all() and (cats.predicted[name] == -1).all()
        assert dogs.accuracy(name) == pytest.approx(100 / 9) and cats.accuracy(name) == 0
    assert dogs.fooled == pytest.approx(100 * 8 / 9) and cats.fooled == 100
    assert dogs.gap == 0 and dogs.trained_with is None and not dogs.maps
    model = thousand_ways(2).model
    said = imagenet9.nine_way(training.predict(model, study.test["original"]))
    assert torch.equal(slim.predicted["original"], said)
    answered(in9.quantities(study, found), tmp_path / "claims")
    assert in9.vulnerable(study, found)["fooled"].tolist()[1] == 100
    assert fits(in9.eight(study))


@pytest.fixture(scope="module")
def archives(data, tmp_path_factory):
    """The release with training archives beside it, all networks run."""
    root = tmp_path_factory.mktemp("archives")
    shutil.copytree(data / "bg_challenge", root / "bg_challenge")
    for variant in (*VARIANTS, "fg_mask"):
        home = root / "bg_challenge" / variant
        shutil.copytree(home / "val", home / "train")
    with in_this_process() as patch:
        patch.setattr(Course, "pretrained", hand_out)
        course = photo_course(root, tmp_path_factory.mktemp("paper"), "paper")
        study = assemble(course)
        return course, study, study.run()


def test_with_training_archives_networks_are_trained(archives):
    _, study, found = archives
    assert isinstance(study.train, in9.Local)
    trained = {n for n in found if n.on != PRETRAINED}
    expected = {Network(on) for on in (*VARIANTS, AUGMENTED)} | {Network(title="AlexNet")}
    assert trained == expected and len(found) == len(expected) + len(TITLES)
    for network in trained:
        studied = found[network]
        assert studied.trained_with == (18 if network.on == AUGMENTED else 9)
        assert studied.accuracy("original") >= 0
    made = records(study.root, "fit_on")
    assert {r["inputs"]["train"] for r in made.values()} == {study.train.key}
    assert all(r["config"]["in9_mean"] for r in made.values())  # networks of nine outputs
    mean = found[FIRST].made.tensors["normalise.mean"].flatten().tolist()
    assert mean == pytest.approx(imagenet9.MEAN)
    assert in9.trained_with(study, found)["Original + Mixed-Rand"] == 18
    assert len(in9.matrix(study, found)) == 9 and len(in9.big_table(study, found)) == 5
    assert in9.every_background(study).shape == (9, 9)


def test_each_archive_is_read_for_its_own_network(archives):
    course, study, _ = archives
    for on in ("original", "mixed_next"):
        expected = photos.imagenet9(course.data_root, on, split="train", size=32).images
        assert training_set(study.train, on, 0).key == expected.key
    both = training_set(study.train, AUGMENTED, 0)
    assert len(both) == 18 and both.labels.tolist() == 2 * list(range(9))


def test_the_key_of_training_archives_follows_their_files(archives):
    course, study, _ = archives
    budget = study.budget
    assert in9._local(course, budget).key == study.train.key
    assert in9._local(replace(course, limit=3), budget).key != study.train.key
    assert in9._local(course, replace(budget, size=48)).key != study.train.key
    extra = course.data_root / "bg_challenge" / "only_fg" / "train" / "00_dog" / "n02085936_78.JPEG"
    paint(extra, (32, 32))
    assert in9._local(course, budget).key != study.train.key
    extra.unlink()
    assert in9._local(course, budget).key == study.train.key
    away = course.data_root / "bg_challenge" / "no_fg" / "train"
    away.rename(away.with_name("elsewhere"))
    assert in9._local(course, budget) is None  # one archive short
    away.with_name("elsewhere").rename(away)
