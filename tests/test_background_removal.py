"""Paper 1's study: nobody is examined on what it learnt from, results are kept, tables add up."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import background_removal as study_of
from helpers import backgrounds, models, photos, training
from helpers import feature_visualization as fv
from helpers.background_removal import BACKGROUNDS, JUDGES, Climb, Studied, Variant, assemble
from helpers.budget import PROFILES
from helpers.course import start
from helpers.feature_visualization import Ascent
from helpers.imageset import ImageSet
from helpers.store import Result

PLAIN, BLACK = Variant("standard", seed=1), Variant("black", seed=1)
STAGES = ("fit_variant", "examine", "control", "paint", "score")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """The demo's study on 7 scenes a class with one epoch each, and what the judges learnt from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RESULTS", str(tmp_path_factory.mktemp("results")))
        course = start("demo", limit=126)
        budget = course.profile.backgrounds
        once = replace(budget.recipe, epochs=1)
        budget = replace(budget, recipe=once, pretraining=once, judge_recipe=once)
        course.profile = replace(course.profile, backgrounds=budget)
        others, tutors = study_of._others, []

        def noted(course, budget, images):
            tutors.extend(images)
            return others(course, budget, images)

        patch.setattr(study_of, "_others", noted)
        patch.setattr("helpers.parallel.cpu_count", lambda: 1)  # quicker than a new process
        study = assemble(course)
    return course, study, tutors


@pytest.fixture(scope="module")
def study(assembled):
    return assembled[1]


@pytest.fixture(scope="module")
def networks(study):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.parallel.cpu_count", lambda: 2)  # in processes of their own
        return study.run([BLACK, PLAIN])


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(images: ImageSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in images.images}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- the images and the judges


def test_nobody_is_examined_or_judged_on_training_images(assembled):
    _, study, tutors = assembled
    sets = [study.train, study.exams["validation"], study.real, *tutors[:2]]
    assert [len(s) for s in sets] == [63] * 5 and sum(map(len, map(tensors, sets))) == 5 * 63
    learnt = set(study.train.ids)
    for others in (*study.exams.values(), study.real, *tutors):
        assert not learnt & set(others.ids)
        assert others.class_names == study.train.class_names and len(others.class_names) == 9
    taught = {name for tutor in tutors for name in tutor.ids}
    for others in (*study.exams.values(), study.real):
        assert not taught & set(others.ids)


def test_each_judge_learns_what_its_name_says(assembled):
    _, study, (plain, random, surroundings) = assembled
    assert tuple(study.judges) == JUDGES
    keys = [judge.made["inputs"]["train"] for _, judge in study.judges.values()]
    assert keys == [plain.key, random.key, surroundings.key]
    for judge, made in study.judges.values():
        assert made.made["config"]["architecture"] == "slim_vgg6" and not judge.training
        assert same(judge.state_dict(), made.tensors)
    filled, _ = backgrounds.tiled(plain)
    assert torch.equal(surroundings.images, filled) and surroundings.ids == plain.ids
    assert study.pretrained[0]["network.fc.bias"].shape == (24,)  # abstract figures, no scene


def test_exams_are_what_they_are_called(study):
    few, exams = study.real.examples(30), study.exams
    assert set(exams) == {"validation", "elsewhere", "black", "blurred", "noisy"}
    outside = ~few.masks[:, None].expand_as(few.images)
    black = exams["black"].images
    assert (black[outside] == 0).all() and torch.equal(black[~outside], few.images[~outside])
    assert (exams["elsewhere"].backdrops != exams["elsewhere"].superclass_labels).all()
    apart = exams["noisy"].images.float() - few.images
    middle = (few.images > 90) & (few.images < 165)  # three deviations from either end
    assert apart[middle].std().item() == pytest.approx(25.5, rel=0.05)
    assert apart[middle].mean().abs() < 1
    assert (
        fv.high_frequency(exams["blurred"].to_float()) < fv.high_frequency(few.to_float())
    ).all()


def test_real_objects_and_backdrops_are_told_apart(study):
    for line in study_of.origin_of_real_images(study).splitlines():
        objects, backdrops = (int(word.strip("%.")) for word in line.split() if "%" in word)
        assert backdrops < objects <= 100


def test_a_profile_without_this_study_is_refused(assembled):
    course = replace(assembled[0], profile=replace(assembled[0].profile, backgrounds=None))
    with pytest.raises(ValueError, match="profile 'demo' has no budget for this study"):
        assemble(course)


def test_classes_need_enough_images():
    images = torch.zeros(6, 3, 2, 2, dtype=torch.uint8)
    labels = torch.tensor([2, 2, 2, 0, 0, 1])
    train = ImageSet(images, labels, ("ant", "bee", "cat", "dog"))
    assert study_of._frequent(train, 2) == ["ant", "cat"]
    said = "two classes with 3 training images or more; here are 2 of ant, 1 of bee, 3 of cat$"
    with pytest.raises(ValueError, match=said):
        study_of._frequent(train, 3)


# ---- what is trained, and what it paints


def test_variants_are_all_seeds_of_the_first_init_and_one_of_everything_else(study):
    variants = study.variants()
    assert len(set(variants)) == len(variants) == 4 * 3 + 4 + 4
    assert {(v.init, v.seed, v.robust) for v in variants} == {
        *(("scratch", seed, False) for seed in range(3)),
        ("pretrained", 0, False),
        ("scratch", 0, True),
    }
    assert all(v.masks == "true" for v in variants)
    photos = replace(study, budget=PROFILES["photos"].backgrounds)
    assert photos.variants() == [Variant(b, 0, "pretrained") for b in BACKGROUNDS]


def test_only_the_first_plain_networks_show_the_regularisers():
    budget = PROFILES["demo"].backgrounds
    always = {"grey", "mean", "noise", "equal norm"}
    more = {"jitter", "noise added", "smooth", "all three"}
    of = {
        Variant("black"): always | {"nothing"} | more,
        Variant("black", seed=1): always | {"nothing"},
        Variant("black", init="pretrained"): always,
        Variant("black", robust=True): always,
    }
    for variant, names in of.items():
        assert set(study_of.climbs(budget, variant)) == names
    plans, l2 = study_of.climbs(budget, Variant("black")), budget.l2
    plain = plans["grey"].how
    assert plain == Ascent(steps=plain.steps, rate=plain.rate, l2=l2)  # the paper's regulariser
    assert [plans[kind] for kind in fv.STARTS] == [Climb(start, plain) for start in fv.STARTS]
    length = budget.norm * (3 * 64 * 64) ** 0.5
    expected = {
        "equal norm": replace(plain, l2=0, norm=length),
        "nothing": replace(plain, l2=0),
        "jitter": replace(plain, jitter=4),
        "noise added": replace(plain, noise=0.1),
        "smooth": replace(plain, smoothness=l2),
        "all three": replace(plain, jitter=4, noise=0.1, smoothness=l2),
    }
    assert {name: plans[name] for name in expected} == {
        name: Climb("grey", how) for name, how in expected.items()
    }


def test_each_network_is_shown_its_background(study):
    for background in BACKGROUNDS:
        shown = study.shown_to(Variant(background, seed=1))
        expected = backgrounds.TRAINING_SETS[background](study.train, 1)
        assert shown.key == expected.key
    other = {"none": torch.zeros_like(study.train.masks)}
    assert (replace(study, masks=other).shown_to(replace(BLACK, masks="none")).images == 0).all()


# ---- running it


def test_everything_is_known_of_every_network(study, networks):
    assert list(networks) == [BLACK, PLAIN]
    for variant, studied in networks.items():
        assert studied.variant == variant
        wanted = study_of.climbs(study.budget, variant)
        assert list(studied.pictures) == list(wanted)
        for pictures in studied.pictures.values():
            assert pictures.shape == (9, 3, 64, 64) and pictures.dtype == torch.uint8
        more = {"own", "new statistics", "own, re-estimated", "new last layer"}
        assert studied.marks.keys() == study.exams.keys() | more
        assert len(studied.scores) == 9 * len(wanted)
        assert {tuple(row) for row in studied.scores[["climb", "label"]].values} == {
            (climb, label) for climb in wanted for label in range(9)
        }
        table = study_of.scores({variant: studied})
        shown = [*study_of.SHOWN.values(), *study_of.TOLD.values()]
        assert table[shown].notna().all(axis=None)
    a, b = (networks[v].pictures for v in (BLACK, PLAIN))
    assert not any(torch.equal(a[climb], b[climb]) for climb in a)


def test_marks_are_what_the_networks_do_on_the_images_they_name(study, networks):
    for variant, studied in networks.items():
        model = study.network(studied.network)
        own = backgrounds.TRAINING_SETS[variant.background](study.train, variant.seed)
        for name, images in (study.exams | {"own": own}).items():
            expected = training.evaluate(model, images)
            assert studied.marks[name]["loss"] == pytest.approx(expected["loss"], rel=1e-3)
            assert studied.marks[name]["n"] == len(images)
        unlike = training.evaluate(model, study.train)["loss"]
        is_unlike = studied.marks["own"]["loss"] != pytest.approx(unlike, rel=1e-3)
        assert is_unlike == (variant == BLACK)


def test_scores_are_those_of_the_pictures(study, networks):
    pictures, begun = (
        t["mean"].float() / 255 for t in (networks[PLAIN].pictures, networks[PLAIN].starts)
    )
    table = networks[PLAIN].scores
    rows = table[table.climb == "mean"].sort_values("label")
    judge, _ = study.judges["random"]
    said = fv.judged(judge, pictures, torch.arange(9))
    assert rows["probability: random"].tolist() == pytest.approx(said["probability"].tolist(), 1e-3)
    assert rows["right: random"].tolist() == said["right"].float().tolist()
    assert rows["high frequency"].tolist() == pytest.approx(
        fv.high_frequency(pictures - begun).tolist(), 1e-3
    )


def test_what_is_known_is_not_computed_again(study, networks, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("computed again")

    for name in STAGES:
        known = getattr(study_of, name)
        monkeypatch.setattr(study_of, name, replace(known, compute=refuse))
    monkeypatch.setattr(study_of, "each", lambda _, __, jobs, **___: refuse() if jobs else iter([]))
    again = study.run([PLAIN, BLACK])
    assert list(again) == [PLAIN, BLACK]  # in the order asked for
    for variant, studied in networks.items():
        assert same(again[variant].network.tensors, studied.network.tensors)
        assert same(again[variant].pictures, studied.pictures)
        assert again[variant].marks == studied.marks
        pd.testing.assert_frame_equal(again[variant].scores, studied.scores)


def test_it_makes_no_difference_who_computes(study, networks, one_thread, monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.parallel.ProcessPoolExecutor", lambda *_: pytest.fail("a process"))
    here = replace(study, root=tmp_path).run([BLACK])[BLACK]
    there = networks[BLACK]
    assert same(here.network.tensors, there.network.tensors)
    assert here.network.made["inputs"] == there.network.made["inputs"]
    assert same(here.pictures, there.pictures)
    pd.testing.assert_frame_equal(here.scores, there.scores)


class Asked(Exception):
    """The first thing a variant asks the store for."""


def asked(study, variant: Variant) -> dict:
    def ask(stage, config, inputs, how):
        raise Asked(config)

    with pytest.raises(Asked) as caught:
        study_of._one(study, variant, ask)
    return caught.value.args[0]


def test_a_networks_key_names_all_that_changes_it(study):
    masks = {"grabcut": ~study.train.masks, "attribution": study.train.masks}
    study = replace(study, masks=masks)
    plain = asked(study, BLACK)
    assert plain["recipe"]["precision"] in ("float32", "bfloat16")
    assert plain["recipe"]["attack_radius"] == 0 and not {"weights", "mask pixels"} & set(plain)
    assert (
        asked(study, replace(BLACK, robust=True))["recipe"]["attack_radius"]
        == study.budget.robust_radius
    )
    began = asked(study, replace(BLACK, init="pretrained"))
    assert began["weights"] == study.pretrained[1]
    found = [asked(study, replace(BLACK, masks=kind))["mask pixels"] for kind in masks]
    assert found[0] != found[1]
    other = replace(study, masks={"grabcut": masks["attribution"]})
    assert asked(other, replace(BLACK, masks="grabcut"))["mask pixels"] == found[1]


def test_a_training_gets_its_start_its_images_its_recipe_and_its_seed(study, monkeypatch, tmp_path):
    given = {}

    def no_fit(model, train, recipe, *, seed, **_):
        given.update(train=train, recipe=recipe, seed=seed)
        return training.History()

    monkeypatch.setattr(training, "fit", no_fit)
    for init, robust in (("pretrained", False), ("scratch", True)):
        variant = Variant("mixed", seed=2, init=init, robust=robust)
        how = {"study": study, "variant": variant}
        weights, _ = study_of.fit_variant(asked(study, variant), {}, tmp_path, **how)
        own = models.build("slim_resnet10", 9, seed=2).state_dict()
        start = own if init == "scratch" else study.pretrained[0]
        last = {name: own[name] for name in own if ".fc." in name}
        assert same(weights, {**start, **last})
        assert given["seed"] == 2 and given["train"].key == study.shown_to(variant).key
        assert given["recipe"].attack_radius == (study.budget.robust_radius if robust else 0)
        assert given["recipe"].epochs == 1


# ---- other masks


class FindsBirds(nn.Module):
    """A segmentation network that sees the third class in the upper half."""

    def forward(self, images):
        scores = images.new_zeros(len(images), 21, *images.shape[2:])
        scores[:, 3, : images.shape[2] // 2] = 1
        return {"out": scores}


def test_other_masks_are_found_and_trained_on(study, networks, tmp_path):
    study = replace(study, root=tmp_path)
    found = study_of.other_masks(study, networks[PLAIN])
    assert set(found) == {"grabcut", "attribution"}
    for masks in found.values():
        assert masks.shape == (63, 64, 64) and masks.dtype == torch.bool
        assert masks.any() and not masks.all()
    boxed = replace(study.train, boxes=backgrounds.boxes_of(study.train.masks))
    assert torch.equal(found["grabcut"], backgrounds.grabcut_masks(boxed)[0])

    variant = replace(BLACK, masks="grabcut")
    study = replace(study, masks=found)
    shown = study.shown_to(variant)
    assert torch.equal(shown.images, study.train.images * found["grabcut"][:, None])
    config = asked(study, variant)
    how = {"study": study, "variant": variant}
    weights, values = study_of.fit_variant(config, {"train": study.train}, tmp_path, **how)
    made = Result("", weights, {}, {})
    loss = training.evaluate(study.network(made), shown)["loss"]
    assert values["own"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert not same(weights, networks[BLACK].network.tensors)


def test_a_segmentation_network_finds_masks_too(study, networks, tmp_path):
    study = replace(study, root=tmp_path)
    found = study_of.other_masks(study, networks[PLAIN], ("finds birds", FindsBirds()))
    assert set(found) == {"grabcut", "attribution", "segmentation"}
    masks, cats = found["segmentation"], study.train.labels == study.train.class_names.index("cat")
    assert masks[~cats][:, :32].all() and not masks[~cats][:, 32:].any()
    assert not masks[cats].any()  # VOC knows cats, so a bird is none


# ---- batch-norm statistics


def noisy(n: int, size: int = 4) -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=rng)
    return ImageSet(images, torch.zeros(n, dtype=torch.int64), ("only",))


def test_new_statistics_are_the_images_and_weights_stay():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)).train()
    nn.init.uniform_(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = noisy(128)
    renewed = study_of.with_statistics_of(model, images)
    assert model.training and same(model.state_dict(), before) and not renewed.training
    after = renewed.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    pixels = images.to_float().transpose(0, 1).flatten(1)
    assert torch.allclose(after["0.running_mean"], pixels.mean(1), atol=1e-5)
    assert torch.allclose(after["0.running_var"], pixels.var(1), rtol=5e-3)
    assert renewed[0].momentum == model[0].momentum
    few = study_of.with_statistics_of(model, images, most=1)  # of one image only
    means = images.to_float().mean((2, 3))
    assert (few[0].running_mean - means).abs().amax(1).min() < 1e-5


def test_a_network_without_batch_norm_has_no_statistics_to_renew():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    renewed = study_of.with_statistics_of(model, noisy(10))
    assert renewed is not model and same(model.state_dict(), renewed.state_dict())


def test_statistics_of_a_whole_network_mend_what_other_images_broke():
    model = models.build("slim_resnet10", 2, seed=0)
    dark = replace(noisy(64, 32), images=noisy(64, 32).images // 8)
    parameters = [p.clone() for p in model.parameters()]
    renewed = study_of.with_statistics_of(model, dark)
    assert all(torch.equal(*pair) for pair in zip(parameters, renewed.parameters(), strict=True))
    with torch.no_grad():
        seen = renewed.network.bn1(renewed.network.conv1(renewed.normalise(dark.to_float())))
    assert seen.mean((0, 2, 3)).abs().max() < 1e-3
    assert (seen.std((0, 2, 3)) - 1).abs().max() < 1e-2


# ---- tables


def marked() -> pd.DataFrame:
    """Two seeds on every background: balanced accuracies 10 b + seed, on each of three exams."""
    rows = [
        asdict(Variant(background, seed))
        | {"exam": exam, "balanced": 10.0 * b + seed, "accuracy": 50.0 + b + 4 * seed}
        | {"loss": 0.1 * b + 0.02 * seed, "n": 5}
        for b, background in enumerate(BACKGROUNDS)
        for seed in (0, 1)
        for exam in ("validation", "black", "own")
    ]
    return pd.DataFrame(rows)


def test_table_one_stands_beside_the_published_one():
    table = study_of.table_one(marked())
    assert list(table.index) == list(BACKGROUNDS)
    mixed = table.loc["mixed"]  # seeds 0 and 1: 53 and 57 %, deviation 4 / sqrt(2)
    assert (
        mixed["training (own backgrounds, %)", "mean"] == 55
        and mixed["training (own backgrounds, %)", "std"] == 2.8
    )
    assert mixed["validation (unmodified, %)", "mean"] == 55
    assert mixed["training loss", "mean"] == 0.31 and mixed["training loss", "std"] == 0.014
    assert table["paper", "training (own backgrounds, %)"].tolist() == [99.5, 99.6, 99.7, 100]
    assert table["paper", "validation (unmodified, %)"].tolist() == [94.8, 83.6, 79.0, 88.8]
    assert table["paper", "training loss"].tolist() == [0.022, 0.002, 0.008, 0.003]


def test_exams_are_drawn_a_dot_per_training_run():
    panels = study_of.exam_panels(marked(), ["black", "validation"], "balanced")
    assert list(panels) == ["black", "validation"]
    assert panels["black"] == {
        "standard": {"training runs": [0, 1]},
        "black": {"training runs": [10, 11]},
        "noise": {"training runs": [20, 21]},
        "mixed": {"training runs": [30, 31]},
    }
    runs = study_of.exam_runs(marked(), "black", "balanced")
    assert list(runs.index) == [0, 1] and runs.loc[1].to_dict() == {
        "standard": 1, "black": 11, "noise": 21, "mixed": 31
    }  # fmt: skip
    assert study_of.exam_runs(marked(), "own", "loss")["mixed"].tolist() == pytest.approx(
        [0.3, 0.32]
    )


def test_inits_are_compared_on_their_first_plain_networks():
    scratch = marked()
    pretrained = marked().assign(init="pretrained", balanced=lambda t: t.balanced + 50)
    robust = marked().assign(robust=True, balanced=-1.0)
    everything = pd.concat([scratch, pretrained, robust], ignore_index=True)
    table = study_of.by_init(everything, "balanced")
    assert list(table.index) == ["scratch", "pretrained"] and list(table) == list(BACKGROUNDS)
    assert table.to_numpy().tolist() == [[0, 10, 20, 30], [50, 60, 70, 80]]


def painted_table(seeds=(0, 1)) -> pd.DataFrame:
    """Scores 100 b + 10 seed + label + the climb's place, of two classes and four climbs."""
    rows = [
        {"background": background, "seed": seed, "label": label, "climb": climb, "robust": False}
        | {"score": 100.0 * b + 10 * seed + label + k}
        for b, background in enumerate(BACKGROUNDS)
        for seed in seeds
        for label in (0, 1)
        for k, climb in enumerate((*fv.STARTS, "equal norm"))
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)  # in any order


def test_scores_by_run_are_means_over_classes_and_starts():
    table = painted_table()
    runs = study_of.by_run(table, "score")  # labels 0, 1 and starts 0, 1, 2: 0.5 + 1
    assert list(runs.columns) == list(BACKGROUNDS) and list(runs.index) == [0, 1]
    assert runs.loc[0].tolist() == [1.5, 101.5, 201.5, 301.5]
    assert runs.loc[1].tolist() == [11.5, 111.5, 211.5, 311.5]
    assert study_of.by_run(table, "score", "equal norm")["noise"].tolist() == [203.5, 213.5]
    both = study_of.by_run(table, "score", "grey", "equal norm")  # places 0 and 3
    assert both["standard"].tolist() == [2, 12]
    single = study_of.by_run(painted_table(seeds=[0]), "score")  # a row per class
    assert list(single.index) == [0, 1] and single["black"].tolist() == [101, 102]
    panels = study_of.score_panels(table, {"a score": "score"})
    assert list(panels["a score"]) == list(BACKGROUNDS)
    assert panels["a score"]["mixed"] == {"training runs": [301.5, 311.5]}


def test_robust_networks_stand_beside_plain_ones_from_each_start():
    plain = painted_table()
    robust = painted_table(seeds=[0])
    robust = robust[robust.background == "black"].assign(robust=True, score=lambda t: -t.score)
    panels = study_of.crossed(pd.concat([plain, robust]), {"S": "score"}, ["grey", "noise"])
    assert list(panels) == ["S, from grey", "S, from noise"]
    assert panels["S, from grey"] == {  # a mean over labels 0 and 1 per seed
        "standard": {"plain": [0.5, 10.5]},
        "black": {"plain": [100.5, 110.5], "robust (one network)": [-100.5]},
        "noise": {"plain": [200.5, 210.5]},
        "mixed": {"plain": [300.5, 310.5]},
    }
    assert panels["S, from noise"]["black"] == {
        "plain": [102.5, 112.5],
        "robust (one network)": [-102.5],
    }


def studied(variant: Variant, pictures: dict | None = None, scores: dict | None = None) -> Studied:
    """A network of which just this is known."""
    made = Result("", {}, {}, {})
    mark = {"balanced": 0.25, "accuracy": 0.5, "loss": 2.0, "n": 8, "chance": 0.1}
    table = pd.DataFrame(scores or {"label": [0]}).assign(**asdict(variant))
    begun = {name: torch.full_like(p, 128) for name, p in (pictures or {}).items()}
    return Studied(variant, made, {"black": mark, "own": mark}, pictures or {}, begun, table)


def test_marks_are_in_percent():
    found = study_of.marks({v: studied(v) for v in (PLAIN, BLACK)})
    assert len(found) == 4 and found.exam.tolist() == ["black", "own"] * 2
    assert found.background.tolist() == ["standard"] * 2 + ["black"] * 2
    assert (found.balanced == 25).all() and (found.accuracy == 50).all()
    assert (found.loss == 2).all() and (found.n == 8).all() and (found.seed == 1).all()


def test_scores_are_in_percent_and_two_judges_name():
    scores = {
        "climb": ["grey", "grey"],
        "label": [0, 1],
        "right: standard": [1.0, 0.0],
        "right: random": [1.0, 1.0],
        "right: surroundings": [0.0, 0.0],
        "probability: random": [0.5, 0.25],
        "rank: random": [1.0, 3.0],
        "distance: random": [1.5, 2.0],
        "high frequency": [0.125, 0.0],
        "object colour": [0.75, 1.0],
    }
    table = study_of.scores({v: studied(v, scores=scores) for v in (PLAIN, BLACK)})
    assert len(table) == 4 and table.named.tolist() == [100, 50] * 2
    assert table["probability: random"].tolist() == [50, 25] * 2
    assert table["high frequency"].tolist() == [12.5, 0] * 2
    assert table["object colour"].tolist() == [75, 100] * 2
    assert table["rank: random"].tolist() == [1, 3] * 2  # no share
    assert table["distance: random"].tolist() == [1.5, 2] * 2
    assert table.background.tolist() == ["standard"] * 2 + ["black"] * 2


def test_pictures_are_stacked_by_background():
    pictures = {
        Variant(b, seed): torch.full((2, 3, 4, 4), 10 * k + seed, dtype=torch.uint8)
        for k, b in enumerate(BACKGROUNDS)
        for seed in (0, 1)
    }
    networks = {v: studied(v, {"grey": p}) for v, p in pictures.items()}
    shown = study_of.painted(networks, "grey", Variant("noise", 1))
    assert shown.shape == (4, 2, 3, 4, 4)
    assert shown[:, 0, 0, 0, 0].tolist() == [1, 11, 21, 31]


def test_spectra_have_a_row_per_run_and_one_of_the_noise(study):
    rng = torch.Generator().manual_seed(0)
    smooth = torch.linspace(0, 255, 64).byte().expand(2, 3, 64, 64)
    rough = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=rng)
    networks = {
        variant: studied(variant, dict.fromkeys(fv.STARTS, rough if rough_ else smooth))
        for seed in range(study.budget.seeds)
        for variant, rough_ in ((Variant(b, seed), b == "noise") for b in BACKGROUNDS)
    }
    bands = study_of.spectra(study, networks, Variant("standard"))
    assert list(bands) == ["training noise", *BACKGROUNDS]
    assert bands.pop("training noise").shape == (1, 16)
    for background, rows in bands.items():
        assert rows.shape == (3, 16) and torch.allclose(rows.sum(1), torch.ones(3))
        assert (rows[:, 8:].sum(1) > 0.5).all() == (background == "noise")


def test_scenes_need_no_segmentation_network(assembled):
    assert study_of.segmenter(assembled[0]) is None


# ---- controls and what stands beside the verdicts


def test_a_new_last_layer_reads_what_random_features_hold(study, networks):
    floor = study_of.accuracy_of_untrained(study, "accuracy")
    assert 0 <= floor <= 100
    model = study.network(networks[PLAIN].network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mark = study_of._with_new_last_layer(study, model)
    assert mark["n"] == len(study.exams["validation"]) and same(model.state_dict(), before)
    assert mark["accuracy"] == networks[PLAIN].marks["new last layer"]["accuracy"]
    easy = replace(study, exams=study.exams | {"validation": study.train})  # what it was fitted to
    assert study_of._with_new_last_layer(easy, model)["accuracy"] > 2 / 9


def test_real_images_are_scored_as_paintings_are(study):
    real = study_of.real_scores(study)
    pictures, labels = study.real.to_float(), study.real.labels
    for name, (judge, _) in study.judges.items():
        said = fv.judged(judge, pictures, labels)  # seven images of each class
        assert real[f"right: {name}"] == pytest.approx(100 * said["right"].float().mean().item())
        probability = 100 * said["probability"].mean().item()
        assert real[f"probability: {name}"] == pytest.approx(probability, rel=1e-3)
    assert real["named"] == pytest.approx((real["right: standard"] + real["right: random"]) / 2)
    assert 0 < real["object pattern"] <= 100


def test_one_run_at_a_time_is_left_out():
    assert study_of.left_out([1.0, 2.0, 6.0]).endswith(": 4.0, 3.5, 1.5 points")
    assert study_of.left_out([-1.0, 0.5], "").endswith(": 0.50, −1.00")
    assert "cannot" in study_of.left_out([1.0])


def test_the_first_rule_has_a_verdict_of_its_own():
    assert study_of._first_verdict(torch.tensor([10.0, 11, 12]), 1).endswith(
        ": 11.0 [8.5, 13.5], reproduced"
    )
    assert study_of._first_verdict(torch.tensor([-9.0, 11, 12]), 1).endswith("partly reproduced")
    assert study_of._first_verdict(torch.tensor([-9.0, 1, 2]), 1).endswith("not reproduced")


def test_doubled_scores_need_twice_the_weight(study, networks):
    alike = [study_of.climbs_alike(study, networks[PLAIN], factor) for factor in (1, 2, 4)]
    assert alike == [False, True, False]


# ---- photographs: the judges are probes on a pretrained network


SQUEEZENET, MOBILENET = "squeezenet1_0-b66bff10.pth", "mobilenet_v2-b0353104.pth"
SHOWN_IN = {  # class -> colours of its objects and of its backdrops
    "bus": ((250, 250, 250), (10, 10, 10)),
    "cat": ((230, 40, 40), (160, 230, 240)),
    "dog": ((40, 60, 230), (240, 220, 150)),
    "sheep": ((40, 200, 60), (220, 160, 230)),
}


def mottled(
    size: tuple[int, int], colour: tuple[int, int, int], rng: np.random.Generator
) -> Image.Image:
    noise = rng.integers(-25, 26, (*size, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def voc_photo(root: Path, stem: str, name: str, rng: np.random.Generator) -> None:
    """A photograph of one object, 28 px wide, anywhere, and its class mask."""
    inside, outside = SHOWN_IN[name]
    picture, at = mottled((64, 64), outside, rng), tuple(rng.integers(4, 32, 2).tolist())
    picture.paste(mottled((28, 28), inside, rng), at)
    mask = Image.new("P", (64, 64), 0)
    mask.putpalette([value for value in range(256) for _ in range(3)])
    mask.paste(photos.VOC_CLASSES.index(name) + 1, (*at, at[0] + 28, at[1] + 28))
    picture.save(root / "JPEGImages" / f"{stem}.jpg", quality=95)
    mask.save(root / "SegmentationClass" / f"{stem}.png")


def untrained_weights(home: Path) -> None:
    """Files of the right names and shapes that are not the official ones."""
    from torchvision.models import mobilenet_v2, squeezenet1_0

    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for file, network in {SQUEEZENET: squeezenet1_0, MOBILENET: mobilenet_v2}.items():
            torch.save(network().state_dict(), folder / file)


@pytest.fixture(scope="module")
def photographed(tmp_path_factory):
    """The study of the photos profile at 64 px on four classes of VOC, eight photographs of each;
    no validation photograph shows a bus."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    home = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    for split, names in {"train": list(SHOWN_IN), "val": list(SHOWN_IN)[1:]}.items():
        stems = {f"{split}_{name}_{i}": name for name in names for i in range(8)}
        for stem, name in stems.items():
            voc_photo(home, stem, name, rng)
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems))
    untrained_weights(root / "torch_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RESULTS", str(tmp_path_factory.mktemp("results")))
        course = start("photos", str(root), limit=32)
        budget = replace(course.profile.backgrounds, size=64)
        course.profile = replace(course.profile, backgrounds=budget)
        course.device = torch.device("cpu")
        return root, assemble(course)


def test_judges_of_photographs_answer_for_every_class_of_the_study(photographed):
    _, study = photographed
    assert study.train.class_names == tuple(SHOWN_IN)
    assert study.left_out == dict.fromkeys(set(photos.VOC_CLASSES) - set(SHOWN_IN), 0)
    assert tuple(study.judges) == JUDGES
    for judge, made in study.judges.values():
        assert isinstance(judge, models.Probe) and made.tensors["weight"].shape[0] == 4
        with torch.no_grad():
            logits = judge(study.real.to_float())
        assert logits.shape == (len(study.real), 4) and logits.isfinite().all()
        assert not (logits.argmax(1) == 0).any()  # nobody showed it a bus


def test_judges_of_photographs_never_saw_what_they_judge(photographed):
    _, study = photographed
    validation = study.exams["validation"]
    elsewhere = backgrounds.on_random_backgrounds(validation, seed=0)
    filled, usable = backgrounds.tiled(validation)
    surroundings = replace(validation, images=filled)[usable]
    keys = [made.made["inputs"]["train"] for _, made in study.judges.values()]
    assert keys == [validation.key, elsewhere.key, surroundings.key]
    assert study.real.key == study.train.key and len(study.real) == 32
    for tutor in (validation, elsewhere, surroundings):
        assert not set(tutor.ids) & set(study.real.ids) and len(tutor.ids) == 24
        assert not tensors(tutor) & tensors(study.real)


def test_judges_of_photographs_name_what_they_were_taught(photographed):
    _, study = photographed
    taught = study.real[study.real.labels > 0]
    shown = {
        "standard": taught,
        "random": backgrounds.on_random_backgrounds(taught, seed=1),
        "surroundings": replace(taught, images=backgrounds.tiled(taught)[0]),
    }
    for name, images in shown.items():
        judge, _ = study.judges[name]
        said = fv.judged(judge, images.to_float(), images.labels)
        assert said["right"].float().mean() > 0.75, name  # chance is 0.25
    misled = fv.judged(study.judges["surroundings"][0], shown["random"].to_float(), taught.labels)
    assert misled["right"].float().mean() < 0.5  # it goes by the backdrop, which is another's


def test_judges_of_photographs_score_pictures(photographed, tmp_path):
    _, study = photographed
    rows = [study.real.names().index(name) for name in SHOWN_IN]
    pictures = study.real.images[rows]
    made = Result("", {"grey": pictures, "grey: start": torch.full_like(pictures, 128)}, {}, {})
    scores, values = study_of.score({}, {"pictures": made}, tmp_path, study=study)
    table = pd.DataFrame(scores["grey"].numpy(), columns=values["scores"])
    for name, (judge, _) in study.judges.items():
        said = fv.judged(judge, pictures.float() / 255, torch.arange(4))
        assert table[f"right: {name}"].tolist() == said["right"].float().tolist()
        assert table[f"probability: {name}"].tolist() == pytest.approx(
            said["probability"].tolist(), rel=1e-3
        )
        # each picture is among the real ones, so its nearest is itself
        assert (table[f"distance: {name}"] < 1).all()
    assert table["right: standard"].tolist() == [0, 1, 1, 1]


def test_pretrained_weights_of_photographs_are_the_files(photographed):
    root, study = photographed
    file = root / "torch_home" / "hub" / "checkpoints" / MOBILENET
    weights, key = study.pretrained
    assert key == hashlib.sha256(file.read_bytes()).hexdigest()
    assert same(
        {k.removeprefix("network."): v for k, v in weights.items() if "normalise" not in k},
        torch.load(file),
    )
    painter = models.build(study.budget.architecture, 4, seed=0)  # starts from all but its end
    assert all("classifier" in name for name in models.load_features(painter, weights))


# ---- paintings without any regulariser (Fig. 2)


def tiny_release(root: Path) -> None:
    """Four classes of Tiny-ImageNet, three pictures of each, not in alphabetical order."""
    home, rng = root / "tiny-imagenet-200", np.random.default_rng(0)
    words = {"n04": "crane", "n01": "goldfish, Carassius auratus", "n03": "crane", "n02": "jeans"}
    colours = ((220, 60, 60), (60, 60, 220), (60, 200, 60), (30, 30, 30))
    for wnid, colour in zip(words, colours, strict=True):
        folder = home / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for i in range(3):
            mottled((64, 64), colour, rng).save(folder / f"{wnid}_{i}.JPEG", quality=95)
    (home / "val").mkdir()
    (home / "val" / "val_annotations.txt").write_text("")
    (home / "wnids.txt").write_text("\n".join(words))
    (home / "words.txt").write_text("".join(f"{w}\t{named}\n" for w, named in words.items()))


def test_the_paper_profile_paints_tiny_imagenet_without_a_regulariser(study, tmp_path, monkeypatch):
    tiny_release(tmp_path)
    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path / "results"))
    course = replace(start("paper", str(tmp_path), limit=8), device=torch.device("cpu"))
    own = course.profile.backgrounds
    recipe = replace(own.recipe, epochs=1, batch_size=4)
    study = replace(study, budget=replace(own, architecture="slim_resnet10", recipe=recipe))
    pictures, names = study_of.unregularised(course, study, studied(PLAIN))
    assert pictures.shape == (3, 3, 64, 64) and pictures.dtype == torch.uint8
    assert names == ["crane (n04)", "goldfish", "crane (n03)"]  # as the release lists them

    seen = photos.tiny_imagenet(tmp_path, limit=8).images  # two of each class
    asked = ("slim_resnet10", seen, None, recipe)
    network, _ = training.trained(course.store, *asked, seed=0, find_only=True)
    grey, classes = torch.full((3, 3, 64, 64), 0.5), torch.arange(3)
    climbed = fv.ascend(network, classes, grey, Ascent(l2=0))
    assert torch.equal(pictures, (255 * climbed).round().byte())
    with torch.no_grad():
        before, after = (network(x).diag() for x in (grey, pictures / 255))
    assert (after > before).all()

    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    again, names_again = study_of.unregularised(course, study, studied(PLAIN))
    assert torch.equal(again, pictures) and names_again == names


def test_the_paper_profile_says_what_it_needs_to_paint(study, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path / "results"))
    course = start("paper", str(tmp_path))
    with pytest.raises(photos.MissingDataset, match="Tiny-ImageNet-200 is not under"):
        study_of.unregularised(course, study, studied(PLAIN))


def test_other_profiles_paint_with_the_standard_network(assembled, networks, monkeypatch):
    course, study, _ = assembled
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained"))
    pictures, names = study_of.unregularised(course, study, networks[PLAIN])
    assert torch.equal(pictures, networks[PLAIN].pictures["nothing"][:3])
    assert names == list(study.train.class_names[:3])
