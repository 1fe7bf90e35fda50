"""The capstone's study: tables by hand, one small study from end to end, your own folder."""

import math
import os
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from helpers import background_removal as br
from helpers import claims, crisp_masks, figures, parallel
from helpers import feature_visualization as fv
from helpers import four_lenses as fl
from helpers import four_lenses_study as study_of
from helpers import imagenet9_study as in9
from helpers.budget import PROFILES, FourLenses, Recipe
from helpers.course import Course
from helpers.four_lenses import CAM, CENTRE, LENSES, MAPS, MASK, PAINTING, PATCHES, PATHS
from helpers.four_lenses_study import BLACK, ROBUST, UNMODIFIED, UNTRAINED, Seen, Study
from helpers.imagenet9_study import Network
from helpers.imageset import ImageSet
from helpers.visual_summaries import Summaries, Summary, Tally

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=32, lr=0.05, warm_up=0.2, augmentations=("flip",))
PHASES = crisp_masks.Phase(3, 0.01, 1e-4, 0.0), crisp_masks.Phase(2, 0.01, 1.0, 2.0)
FEW_STEPS = crisp_masks.Schedule(*PHASES)
CLAIMS = [name for name in claims.load() if name.startswith("c5-")]


@contextmanager
def in_this_process():
    """One job after the other, with few steps and no wait for the disk."""
    short = partial(fv.Ascent, steps=2, rate=0.015)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "cpu_count", lambda: 1)
        patch.setitem(crisp_masks.SCHEDULES, "paper", FEW_STEPS)
        patch.setattr(br, "usual", lambda budget: short(l2=budget.l2))
        patch.setattr(os, "fsync", lambda _: None)
        yield patch


@pytest.fixture(autouse=True)
def one_after_the_other():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with in_this_process():
        yield
    torch.set_num_threads(before)


# ---- the profiles


def test_the_budget_asks_for_networks_that_there_are():
    for profile in PROFILES.values():
        for on, seeds in profile.lenses.networks:
            assert on in in9.TRAINED_ON or on == ROBUST
            assert 1 <= seeds <= profile.imagenet9.seeds
        kinds = [on for on, _ in profile.lenses.networks]
        assert {"original", "mixed_rand", "only_fg"} <= set(kinds)
        assert len(set(kinds)) == len(kinds)
        assert profile.lenses.schedule in crisp_masks.SCHEDULES


def test_what_is_trained_for_one_seed_is_notebook_fours():
    """Other seeds of these would have to be trained or examined for this notebook alone."""
    demo = PROFILES["demo"]
    assert all(seeds == 1 for on, seeds in demo.lenses.networks if on in ("noise", "mixed", ROBUST))
    assert demo.backgrounds.robust_radius is not None


# ---- tables by hand: two networks of each of four training sets, four images of 8 px

TRAINED = ("original", "mixed_rand", "only_bg_t", "only_fg")
MASKS = torch.zeros(4, 8, 8, dtype=torch.bool)
MASKS[:, :4, :4] = True  # a quarter


def object_maps(*percent: float) -> torch.Tensor:
    """Each with this share of its sum on the object."""
    maps = torch.zeros(len(percent), 8, 8)
    for k, share in enumerate(percent):
        maps[k, 0, 0], maps[k, 7, 7] = share / 100, 1 - share / 100
    return maps


def some_summaries(count: int) -> Summaries:
    none = torch.zeros(0, dtype=torch.long)
    empty = Summary(none, none.view(0, 4), none, torch.zeros(0), 0.5)
    return Summaries((empty,) * count, torch.zeros(1, 2, 2, dtype=torch.long), "found", Tally())


def seen_by_hand(network: Network, k: int, **changed) -> Seen:
    """The k-th network: its maps are random, but for Grad-CAM."""
    maps = torch.rand(4, 4, 8, 8, generator=torch.Generator().manual_seed(k))
    usual = {
        "targets": torch.tensor([0, 1, 0, 1]),
        "probability": torch.full((4,), 0.5),
        "right": torch.tensor([True, True, False, False]),
        "maps": {
            PAINTING: maps[0],
            MASK: maps[1],
            PATHS: maps[2],
            CAM: object_maps(25 + k, 35 + k, 45 + k, 55 + k),
            PATCHES: maps[3],
        },
        "points": {
            UNMODIFIED: torch.tensor([10.0, math.nan, 20.0 + 2 * k]),
            BLACK: torch.tensor([5.0, 7.0 - k]),
        },
        "paintings": {start: torch.zeros(2, 3, 8, 8, dtype=torch.uint8) for start in fv.STARTS},
        "named": 50.0 + k,
        "accuracy": 60.0 + k,
        "gap": 8.0 - k,
        "fooled": math.nan,
    }
    return Seen(network, **(usual | changed))


@pytest.fixture
def by_hand() -> tuple[Study, dict[Network, Seen]]:
    networks = tuple(Network(on, seed) for on in TRAINED for seed in (0, 1))
    images = torch.full((4, 3, 8, 8), 99, dtype=torch.uint8)
    pictures = ImageSet(images, torch.tensor([0, 1, 1, 0]), ("ant", "bee"), masks=MASKS)
    four = in9.Study(
        replace(PROFILES["demo"].imagenet9, seeds=2),
        Path("nowhere"),
        CPU,
        class_titles=("ant", "bee"),
        tests={"": {"original": pictures}},
        failures={},
        train=pictures,
        plans=dict.fromkeys(networks, ("",)),
    )
    budget = PROFILES["demo"].lenses
    study = Study(
        budget, four, networks, pictures, pictures, {UNMODIFIED: pictures}, fv.Ascent(), {}
    )
    found = {}
    for k, network in enumerate(networks):
        counted = {"ant": some_summaries(k), "bee": some_summaries(1)}
        more = {"summaries": counted} if network.on in ("original", "mixed_rand") else {}
        found[network] = seen_by_hand(network, k, **more)
    found[UNTRAINED] = seen_by_hand(UNTRAINED, 99, accuracy=math.nan, gap=math.nan)
    return study, found


def test_the_final_table_by_hand(by_hand):
    table = study_of.by_network(*by_hand)
    assert list(table.index) == ["Original", "Mixed-Rand", "Only-BG-T", "Only-FG", "untrained"]
    row = table.loc["Mixed-Rand"]  # networks 2 and 3
    expected = {
        "accuracy, %": (62.5, 62, 63),
        "1: paintings named, %": (52.5, 52, 53),
        "2: summaries per class": (1.75, 1.5, 2),
        "3: paths on object, points": (17.5, 17, 18),
        "3: paths on object, on black, points": (4.75, 4.5, 5),
        "4: BG-gap, points": (5.5, 5, 6),
        "4: Grad-CAM on object, points": (17.5, 17, 18),
    }
    for column, values in expected.items():
        assert row[column].tolist() == pytest.approx(values), column
    assert row["networks", ""] == 2 and math.isnan(row["4: fooled, %", "mean"])
    assert math.isnan(table.loc["Only-FG", ("2: summaries per class", "mean")])
    assert math.isnan(table.loc["untrained", ("accuracy, %", "mean")])


def test_a_map_that_is_empty_counts_as_chance_in_every_table(by_hand):
    study, found = by_hand
    network = Network("only_fg", 1)
    maps = found[network].maps
    maps[MASK] = torch.cat([object_maps(85), torch.zeros(3, 8, 8)])  # 60 points, nothing, nothing
    of_both = [study_of._on_object(study, found[Network("only_fg", 0)], MASK), 60 / 4]
    table = study_of.by_network(study, found)
    column = "2: removed on object, points"
    assert table.loc["Only-FG", (column, "mean")] == pytest.approx(sum(of_both) / 2, abs=1e-4)
    by_training = study_of.shares_by_training(study, found)
    assert by_training.loc["Only-FG", MASK] == pytest.approx(sum(of_both) / 2, abs=1e-4)


def test_sensitivity_leaves_out_a_pair_coarsens_the_grid_and_drops_networks(by_hand):
    study, found = by_hand
    for seed in (0, 1):  # chance is 50 %: nobody is right at twice that but these two
        network = Network("mixed_rand", seed)
        found[network] = replace(found[network], accuracy=100.0)
    table = study_of.sensitivity(study, found)
    assert len(table) == 2 * 2 * 2
    whole = study_of.agreement(study, found)
    six = whole.loc[("four lenses", "mean of six")]
    row = table.loc[("8 x 8", "6 pairs", "all")]
    assert row["same image"] == pytest.approx(six["same image"])
    shown = [six[c] for c in ("same minus another", "minus from", "minus to")]
    assert row["beyond another image"] == "{:.2f} [{:.2f}, {:.2f}]".format(*shown)
    pairs = [pair for pair in study_of._PAIRS if pair != (PAINTING, CAM)]
    kept = [found[Network("mixed_rand", seed)].maps for seed in (0, 1)]
    each = [fl.agreement(m[a], m[b], 4) for m in kept for a, b in pairs]
    row = table.loc[("4 x 4", "5 pairs", "knowing")]
    assert row["same image"] == pytest.approx(torch.stack(each).mean().item())


def test_the_table_in_words(by_hand):
    text = study_of.as_text(study_of.by_network(*by_hand))
    assert text.loc["Original", "accuracy, %"] == "60.5 (60.0 to 61.0)"
    assert text.loc["untrained", "accuracy, %"] == "–"
    assert text.loc["untrained", "3: paths on object, on black, points"] == "−43.5"
    assert text.loc["Only-FG", "networks"] == "2"


def test_agreement_of_networks_and_images(by_hand):
    study, found = by_hand
    table = study_of.agreement(study, found)
    assert len(table) == 15 + 2
    maps = [study_of.maps_of(study, found[network]) for network in study.networks]
    each = torch.stack([fl.agreement(m[PAINTING], m[PATHS]) for m in maps])
    row = table.loc[(PAINTING, PATHS)]
    assert row["same image"] == pytest.approx(each.mean().item())
    assert row["from"] < row["same image"] < row["to"]
    other = [fl.with_others(*(fl.cell_ranks(m[lens]) for lens in (PAINTING, PATHS))) for m in maps]
    other = torch.stack(other)
    assert row["another image"] == pytest.approx(other.mean().item())
    assert row["same minus another"] == pytest.approx((each - other).mean().item())
    blank = fl.agreement(found[UNTRAINED].maps[PAINTING], found[UNTRAINED].maps[PATHS])
    assert row["untrained"] == pytest.approx(blank.mean().item())
    six = [table.loc[(a, b), "same image"] for a, b in study_of._PAIRS]
    assert table.loc[("four lenses", "mean of six"), "same image"] == pytest.approx(np.mean(six))
    assert (table["defined, %"] == 100).all()


def test_a_flat_map_is_left_out_and_counted(by_hand):
    study, found = by_hand
    maps = found[Network()].maps
    found[Network()] = replace(found[Network()], maps=maps | {MASK: torch.zeros(4, 8, 8)})
    table = study_of.agreement(study, found)
    assert table.loc[(MASK, PATHS), "defined, %"] == pytest.approx(100 * 7 / 8)
    assert table.loc[(PAINTING, PATHS), "defined, %"] == 100
    lenses_only = table.drop(index=[pair for pair in table.index if CENTRE in pair])
    assert np.isfinite(lenses_only.to_numpy()).all()
    assert (study_of.shares(study, found)[MASK][0] == 0).all()  # nowhere: as chance


def test_the_same_maps_agree_wholly(by_hand):
    study, found = by_hand
    found = {n: replace(s, maps=dict.fromkeys(s.maps, s.maps[PATHS])) for n, s in found.items()}
    table = study_of.agreement(study, found)
    row = table.loc[("four lenses", "mean of six")]
    assert row[["same image", "from", "to", "untrained"]].tolist() == pytest.approx([1] * 4)
    assert row["another image"] < 0.5
    square = study_of.matrix(table)
    assert square.loc[MASK, CAM] == square.loc[CAM, MASK] == pytest.approx(1)
    assert list(square) == list(MAPS) and (np.diag(square) == 1).all()
    assert square.loc[CENTRE, CAM] == table.loc[(CAM, CENTRE), "same image"]


def test_shares_over_images_as_scipy_has_them(by_hand):
    study, found = by_hand
    table, of_lens = study_of.images_alike(study, found), study_of.shares(study, found)
    for a, b in study_of._PAIRS:
        each = [spearmanr(x, y).statistic for x, y in zip(of_lens[a], of_lens[b], strict=True)]
        assert table.loc[(a, b), "over images"] == pytest.approx(np.mean(each))
        assert table.loc[(a, b), "from"] <= table.loc[(a, b), "to"]
    assert of_lens[CAM][3].tolist() == pytest.approx([3, 13, 23, 33], abs=1e-5)


def test_order_of_training_sets(by_hand):
    study, found = by_hand
    means = study_of.shares_by_training(study, found)
    assert means[CAM].tolist() == pytest.approx([15.5, 17.5, 19.5, 21.5], abs=1e-5)
    table = study_of.networks_alike(study, found)
    for a, b in study_of._PAIRS:
        expected = spearmanr(means[a], means[b]).statistic
        assert table.loc[(a, b), "over training sets"] == pytest.approx(expected)
    assert (table["n"] == 4).all() and table["p"].between(0, 1).all()
    two = replace(study, networks=study.networks[:4])
    assert study_of.networks_alike(two, found).empty


def test_gap_and_paintings_leave_the_untrained_out(by_hand):
    study, found = by_hand
    table = study_of.gap_and_paintings(study, found)
    assert table["4: BG-gap, points"].tolist() == [7.5, 5.5, 3.5, 1.5]
    assert len(study_of.gap_and_paintings(study, found, least=63)) == 2


def test_every_claim_is_asked_and_can_be_judged(by_hand, tmp_path):
    asked = study_of.quantities(*by_hand)
    assert sorted(asked) == sorted(CLAIMS)
    assert asked["c5-black-network-looks-at-object"]["measured"] == pytest.approx([6, 6])
    assert asked["c5-black-network-on-black"]["measured"] == pytest.approx([-3, -3])
    assert asked["c5-mixed-rand-more-summaries"]["measured"] == pytest.approx([1, 1])
    gap = asked["c5-small-gap-recognised"]
    assert gap["statistic"](*gap["measured"].T) == pytest.approx(-1)
    for name, how in asked.items():
        judged = claims.judge(name, folder=tmp_path, profile="demo", **how)
        assert judged.estimate is not None and judged.verdict in claims.VERDICTS


def test_claims_without_enough_networks_say_why(by_hand, tmp_path):
    study, found = by_hand
    alone = replace(study, networks=study.networks[:1])
    asked = study_of.quantities(alone, {n: found[n] for n in (*alone.networks, UNTRAINED)})
    verdicts = {
        name: claims.judge(name, folder=tmp_path, profile="demo", **how).verdict
        for name, how in asked.items()
    }
    for name in CLAIMS[:4] + CLAIMS[-1:]:
        assert verdicts[name] == "not testable here", name


def test_claims_stand_under_their_own_heading():
    for name in CLAIMS:
        claim = claims.find(name)
        assert claim.paper == 5 and claim.published == "asked by no paper" and claim.note


def test_pictures_can_be_drawn(by_hand):
    study, found = by_hand
    pictures, rows, columns = study_of.pictures(study, found, study.networks[:3], 1)
    assert pictures.shape == (3, 7, 3, 8, 8) and pictures.dtype == torch.uint8
    assert rows[0] == "Original: ✓ bee" and len(columns) == 7
    figures.plt.close(figures.picture_table(pictures, rows, columns))


# ---- from end to end


@dataclass(frozen=True)
class Ran:
    course: Course
    study: Study
    found: dict[Network, Seen]
    files: dict[Path, int]


def course_in(root: Path, **changed) -> Course:
    """The demo at 32 px on few scenes, one seed and epoch, untrained for all that matters."""
    demo = PROFILES["demo"]
    first = replace(
        demo.backgrounds, size=32, recipe=RECIPE, seeds=1, judge_recipe=RECIPE, pretraining=RECIPE
    )
    ours = replace(
        demo.imagenet9, size=32, recipe=RECIPE, seeds=1, judged=36, foregrounds=9, backgrounds=9,
        explained=9, masked=2,
    )  # fmt: skip
    lenses = FourLenses(
        networks=(("original", 1), ("mixed_rand", 1), ("only_fg", 1), (ROBUST, 1)),
        per_class=1, points=9, classes=2, summarised=3, schedule="paper", boxes=20, enlarge=2,
    )  # fmt: skip
    sizes = {"size": 32, "train": 72, "validation": 36, "test": 72}
    profile = replace(demo, imagenet9=ours, backgrounds=first, lenses=lenses, **(sizes | changed))
    return Course(profile, "05_four_lenses", CPU, root, None, None)


def written(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    course = course_in(tmp_path_factory.mktemp("demo"))
    with in_this_process() as patch:
        # nobody is right after one epoch: all images count as right
        patch.setattr(in9.Studied, "right", lambda self, test: torch.ones(36, dtype=torch.bool))
        study = study_of.assemble(course)
        found = study.run()
    return Ran(course, study, found, written(course.store.root))


def test_everything_is_known_of_every_network(ran):
    study = ran.study
    assert list(ran.found) == [*study.networks, UNTRAINED] and len(study.networks) == 4
    for network, seen in ran.found.items():
        assert set(seen.maps) == {*LENSES, PATCHES}
        for maps in seen.maps.values():
            assert maps.shape == (9, 32, 32) and maps.min() >= 0 and maps.max() <= 1
        assert set(seen.points) == {UNMODIFIED, BLACK}
        assert all(len(points) == 9 for points in seen.points.values())
        assert 0 <= seen.named <= 100
        assert set(seen.paintings) == set(fv.STARTS)
        assert bool(seen.summaries) == (network.on in ("original", "mixed_rand"))
        if network != UNTRAINED:
            assert np.isfinite([seen.accuracy, seen.gap]).all()
    assert len(ran.found[Network()].summaries) == 2


def test_every_map_is_about_the_class_that_is_named(ran):
    from helpers.store import Store

    study, seen = ran.study, ran.found[Network()]
    _, model = study_of._network(study, Network(), Store(study.root).recall)
    images = study.images.to_float()
    with torch.no_grad():
        said = model(images).softmax(1)
    assert torch.equal(seen.targets, said.argmax(1))
    torch.testing.assert_close(seen.probability, said.max(1).values)
    torch.testing.assert_close(seen.maps[CAM], fl.cam(model, images, seen.targets))
    painted = seen.paintings["grey"].float() / 255
    expected = fl.resemblance(model, images, seen.targets, painted)
    torch.testing.assert_close(seen.maps[PAINTING], expected)


def test_patches_come_from_other_classes(ran):
    study = ran.study
    of = study.donors.labels.view(9, study.budget.donors)
    assert (of != study.images.labels[:, None]).all()
    again = study_of._donors(study.four.test["original"], study.images, study.budget.donors)
    assert torch.equal(again.images, study.donors.images)


def test_black_images_keep_the_object(ran):
    plain, black = (ran.study.points[k] for k in (UNMODIFIED, BLACK))
    inside = plain.masks[:, None].expand_as(plain.images)
    assert torch.equal(black.images[inside], plain.images[inside])
    assert (black.images[~inside] == 0).all()


def test_a_second_run_computes_nothing(ran):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in9.Studied, "right", lambda self, test: torch.ones(36, dtype=torch.bool))
        again = study_of.assemble(ran.course)
        found = again.run()
    assert written(ran.course.store.root) == ran.files
    for network, seen in found.items():
        for lens, maps in seen.maps.items():
            assert torch.equal(maps, ran.found[network].maps[lens])


def test_tables_and_claims_of_a_real_run(ran):
    study, found = ran.study, ran.found
    assert len(study_of.agreement(study, found)) == 17
    assert list(study_of.by_network(study, found).index)[-1] == "untrained"
    for name, how in study_of.quantities(study, found).items():
        ran.course.judge(name, **how)


def test_the_study_travels_to_other_processes(ran):
    study_of.one(ran.study, Network(), 0)
    assert ran.study.known and not pickle.loads(pickle.dumps(ran.study)).known


def test_one_image_as_it_was_kept(ran):
    study, seen = ran.study, ran.found[Network()]
    one = study_of.one(study, Network(), 3)
    assert list(one.maps) == [*LENSES, PATCHES]
    for lens, found in one.maps.items():
        torch.testing.assert_close(found, seen.maps[lens][3])
    assert one.target == seen.targets[3] and list(one.said)[0] == study.class_titles[one.target]
    assert sum(one.said.values()) == pytest.approx(1)


def test_any_picture_and_any_class(ran):
    picture = ran.study.images.images[2]
    one = study_of.one(ran.study, Network(), picture, target=4)
    assert list(one.maps) == [PAINTING, PATHS, CAM] and one.target == 4
    assert torch.equal(one.painting, ran.found[Network()].paintings["grey"][4])
    steps = list(one.slices(every=2))
    assert [round(5 * share) for share, _ in steps] == [2, 3, 5]
    assert steps[-1][1].shape == (32, 32)


def test_the_slices_end_at_the_mask_that_was_kept(ran):
    one = study_of.one(ran.study, Network(), 1)
    *_, (share, last) = one.slices()
    assert share == 1
    torch.testing.assert_close(last, one.maps[MASK], atol=2e-2, rtol=0)  # made in a batch


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (torch.zeros(32, 32, dtype=torch.uint8), None, "bytes"),
        (torch.zeros(3, 32, 32), None, "bytes"),
        (0, 9, "no class 9"),
    ],
)
def test_one_refuses_clearly(ran, monkeypatch, image, target, message):
    from jaxtyping import config

    monkeypatch.setattr(config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        study_of.one(ran.study, Network(), image, target)


def test_one_needs_a_network_that_was_made(ran):
    with pytest.raises(LookupError):
        study_of.one(ran.study, Network("only_bg_t"), 0)


def test_a_profile_without_a_budget(ran):
    without = replace(ran.course, profile=replace(ran.course.profile, lenses=None))
    with pytest.raises(ValueError, match="no budget"):
        study_of.assemble(without)


# ---- your own


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


def folder_in(root: Path) -> Path:
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((30, 40, 3), 60 + 90 * k, np.uint8)).save(root / name / "a.png")
    return root


def test_your_own_folder_and_network(tmp_path, capsys):
    root = folder_in(tmp_path / "mine")
    (root / "dog" / "broken.jpg").write_bytes(b"no picture")
    found = study_of.own(root, small_cnn(), class_names=("cat", "dog"), size=24)
    assert len(found.images) == 2 and found.images.class_names == ("cat", "dog")
    assert [refusal.file for refusal in found.refused] == ["dog/broken.jpg"]
    assert "broken.jpg" in capsys.readouterr().out
    assert set(found.looked.maps) == {PAINTING, PATHS, CAM}
    with_mask = study_of.own(root, small_cnn(), class_names=("a", "b"), size=24, schedule="paper")
    assert MASK in with_mask.looked.maps


def test_your_own_folder_refuses_clearly(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing here"):
        study_of.own(tmp_path / "nothing here", small_cnn(), class_names=("a", "b"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not one usable picture"):
        study_of.own(tmp_path / "empty", small_cnn(), class_names=("a", "b"))
    root = folder_in(tmp_path / "mine")
    with pytest.raises(ValueError, match="class_names"):
        study_of.own(root, small_cnn())
    with pytest.raises(ValueError, match="no schedule 'fast'"):
        study_of.own(root, small_cnn(), class_names=("a", "b"), schedule="fast")
    with pytest.raises(ValueError, match="no convolutional network"):
        flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2))
        study_of.own(root, flat, class_names=("a", "b"), size=24)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match=r"torn\.png"):
        study_of.own(tmp_path / "bad", small_cnn(), class_names=("a", "b"))
