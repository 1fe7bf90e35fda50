"""Paper 3's study: nobody is judged on what was chosen or trained on, scores are what they say."""

import json
import math
import pickle
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from test_background_removal import SHOWN_IN, mottled, untrained_weights
from torch import Tensor, nn

from helpers import backtracking as bt
from helpers import backtracking_study as study_of
from helpers import claims, figures, models, parallel, photos, saliency, training
from helpers.backtracking_study import (
    BLIND,
    METHODS,
    RULES,
    Follow,
    Judge,
    Named,
    Network,
    Study,
    assemble,
    cut,
    dotted,
    finite,
    follow_paths,
    judge_maps,
    share_on,
    two_objects,
)
from helpers.budget import PROFILES, PathStudy, Recipe, profile_named
from helpers.course import Course, start
from helpers.imageset import ImageSet
from helpers.store import Result, Store, key_of

CPU, DEFAULT = torch.device("cpu"), Follow("full", "judged")
RECIPE = Recipe(epochs=2, batch_size=8, lr=0.05)
BUDGET = PathStudy(
    networks=(),
    recipe=RECIPE,
    choosing=12,
    judged=12,
    pairs=4,
    widths=(0.05, 0.15, 0.3),
    levels=(0.1, 0.5, 0.9),
    batch=5,
)
KINDS = ("ant", "bee", "cat", "dog")
COLOURS = torch.tensor([[230, 60, 40], [60, 220, 60], [50, 80, 230], [230, 220, 40]])
SIDE = 16


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch):
    """In this process and with one thread, as every job of the study has it."""
    monkeypatch.setattr(parallel, "cpu_count", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toys(n: int, seed: int, largest: int = 8) -> ImageSet:
    """Rectangles, coloured by their class, on grey noise; two classes each make a superclass.
    Their left column of pixels is one part, the rest another."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(60, 200, (n, 1, SIDE, SIDE), generator=rng).repeat(1, 3, 1, 1)
    masks = torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    parts = torch.zeros(n, SIDE, SIDE, dtype=torch.uint8)
    for i in range(n):
        h, w = torch.randint(3, largest + 1, (2,), generator=rng).tolist()
        y, x = (torch.randint(0, SIDE - of + 1, (1,), generator=rng).item() for of in (h, w))
        masks[i, y : y + h, x : x + w] = True
        parts[i, y : y + h, x : x + w] = 2
        parts[i, y : y + h, x] = 1
    noise = torch.randint(-20, 20, images.shape, generator=rng)
    images = torch.where(masks[:, None], COLOURS[labels][:, :, None, None], images) + noise
    return ImageSet(
        images.clamp(0, 255).to(torch.uint8),
        labels,
        KINDS,
        masks=masks,
        parts=parts,
        ids=tuple(f"{seed}, {i}" for i in range(n)),
        part_names=("no part", "edge", "rest"),
        superclass_names=("insect", "pet"),
        superclasses=(0, 0, 1, 1),
    )


def network(seed: int, *, average: bool = False, active: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Two convolutions, and fully connected layers or an average behind them; untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 + seed)  # not what a network that forgot everything starts from
        maps = [nn.Conv2d(3, 6, 3, padding=1), active(), nn.MaxPool2d(2)]
        maps += [nn.Conv2d(6, 8, 3, padding=1), active()]
        top = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 12), active(), nn.Linear(12, 4)]
        if average:
            top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
        network = nn.Sequential(*maps, *top)
    return nn.Sequential(OrderedDict(normalise=models.Normalised(), network=network)).eval()


def titled(title: str, seed: int, **how) -> Network:
    return Network(title, network(seed, **how), Named(f"{seed} {how}"), KINDS)


def study_in(root: Path) -> Study:
    """Two untrained networks, four more of other ages, and a dozen toys for everything."""
    judged, labelled = toys(12, 2), toys(24, 3, largest=6)
    first, second = two_objects(labelled, BUDGET.pairs)
    return Study(
        budget=BUDGET,
        root=root,
        device=CPU,
        networks={"full": titled("full", 0), "mean": titled("mean", 1, average=True)},
        taught="full",
        untaught=titled("full, untaught", 2),
        left_out=("ant", "bee"),
        epochs=(titled("epoch 1", 3), titled("epoch 2", 4)),
        sets={
            "choosing": toys(12, 1),
            "judged": judged,
            "blurred": replace(judged, images=study_of._blurred(judged.images)),
            "taught": labelled[:10],
            "pairs: first": first,
            "pairs: second": second,
            "left out": labelled.only(["ant", "bee"]),
        },
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study of which everything is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "cpu_count", lambda: 1)
        study = study_in(tmp_path_factory.mktemp("ran"))
        study.run()
    return study


def contents(root: Path) -> dict[str, tuple[dict, dict]]:
    """Every stored result: its tensors' bytes and its values."""
    made = {}
    for record in root.glob("*/*/made.json"):
        tensors = load_file(record.parent / "tensors.safetensors")
        plain = {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}
        name = f"{record.parent.parent.name}/{record.parent.name}"
        made[name] = (plain, json.loads(record.read_text())["values"])
    return made


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def pictures_of(images: ImageSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in images.images}


def stubbed(monkeypatch, pixels: dict[Follow, Tensor]) -> None:
    monkeypatch.setattr(Study, "pixels", lambda _, follow: pixels[follow])


# ---- two objects in one image


def literal_pairs(images: ImageSet, count: int, least: float) -> list[tuple[int, int]]:
    """Image by image, the first free partner; objects keep two pixels apart, also diagonally."""
    spots = [{tuple(at) for at in mask.nonzero().tolist()} for mask in images.masks]
    kinds = [images.superclasses[k] if images.superclasses else k for k in images.labels.tolist()]
    pairs, used = [], set()

    def fit(a: int, b: int) -> bool:
        near = {(y + i, x + j) for y, x in spots[a] for i in range(-2, 3) for j in range(-2, 3)}
        large = min(len(spots[a]), len(spots[b])) >= least * SIDE * SIDE
        return a != b and kinds[a] != kinds[b] and large and not near & spots[b]

    for here in range(len(images)):
        free = [b for b in range(len(images)) if b not in used and fit(here, b)]
        if here not in used and free and len(pairs) < count:
            pairs.append((here, free[0]))
            used |= {here, free[0]}
    return pairs


@settings(max_examples=25)
@given(
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
    count=st.integers(1, 3),
    largest=st.integers(3, 9),
    least=st.sampled_from([0.0, 0.04, 0.1]),
    grouped=st.booleans(),
)
def test_pairs_are_those_of_a_literal_search(n, seed, count, largest, least, grouped):
    images = toys(n, seed, largest)
    images = images if grouped else replace(images, superclasses=())
    expected = literal_pairs(images, count, least)
    if not expected:
        with pytest.raises(ValueError, match=f"no two of {n} objects fit into one image"):
            two_objects(images, count, least)
        return
    first, second = two_objects(images, count, least)
    ground, paste = zip(*expected, strict=True)
    rows = [[images.ids.index(name) for name in made.ids] for made in (first, second)]
    assert rows == [[*ground], [*paste]]
    assert len({*ground, *paste}) == 2 * len(expected) <= 2 * count


def test_both_objects_of_a_pair_are_there_and_known():
    images = toys(24, 5, largest=6)
    first, second = two_objects(images, 100)
    assert len(first) == len(second) > 3
    assert torch.equal(first.images, second.images)
    assert not (first.masks & second.masks).any()
    assert (first.superclass_labels != second.superclass_labels).all()
    for k, (a, b) in enumerate(zip(first.ids, second.ids, strict=True)):
        ground, paste = (images[images.ids.index(name)] for name in (a, b))
        for made, source in ((first, ground), (second, paste)):
            assert made.labels[k] == source.labels[0]
            assert torch.equal(made.masks[k], source.masks[0])
            assert source.masks.float().mean() >= 0.04
        inside = paste.masks[0].expand(3, -1, -1)
        assert torch.equal(first.images[k][inside], paste.images[0][inside])
        assert torch.equal(first.images[k][~inside], ground.images[0][~inside])
    again = two_objects(images, 100)
    assert [made.key for made in again] == [first.key, second.key]


@pytest.mark.parametrize("why", ["one class", "one superclass", "one place", "small"])
def test_pairs_that_do_not_fit_are_refused(why):
    images = toys(8, 0, largest=4)
    labels = {"one class": torch.zeros(8), "one superclass": torch.arange(8) % 2}
    images = replace(images, labels=labels.get(why, images.labels).long())
    if why == "one place":
        images = replace(images, masks=images.masks[:1].repeat(8, 1, 1))
    with pytest.raises(ValueError, match="no two of 8 objects fit"):
        two_objects(images, 3, least=0.1 if why == "small" else 0.0)


def test_one_pixel_between_objects_is_too_little():
    images = toys(3, 0)[[0, 2]]
    for gap, fits in ((1, False), (2, True)):
        masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
        masks[0, :, :4] = True
        masks[1, :, 4 + gap :] = True
        apart = replace(images, masks=masks)
        if fits:
            assert len(two_objects(apart, 1)[0]) == 1
        else:
            with pytest.raises(ValueError, match="no two"):
                two_objects(apart, 1)


# ---- shares, by hand


PIXELS = torch.tensor([[[1.0, 0], [3, 0]], [[0, 2], [0, 2]], [[0, 0], [0, 0]]])
MASKS = torch.tensor([[[1, 1], [0, 0]], [[0, 1], [0, 1]], [[1, 0], [0, 0]]]).bool()


def test_shares_count_paths_or_pixels():
    share, once = share_on(PIXELS, MASKS), share_on(PIXELS, MASKS, once=True)
    assert share.tolist()[:2] == [1 / 4, 1] and once.tolist()[:2] == [1 / 2, 1]
    assert share.isnan().tolist() == once.isnan().tolist() == [False, False, True]


def four_pixels(labels: list[int], masks: Tensor) -> ImageSet:
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    return ImageSet(images, torch.tensor(labels), KINDS, masks=masks)


def test_points_on_the_object_are_beyond_its_area(tmp_path, monkeypatch):
    study, follow = study_in(tmp_path), DEFAULT
    study = replace(study, sets={"judged": four_pixels([0, 1, 2], MASKS)})
    stubbed(monkeypatch, {follow: PIXELS})
    assert study.on_object(follow)[:2].tolist() == [25 - 50, 100 - 50]
    assert study.on_object(follow, once=True)[:2].tolist() == [50 - 50, 100 - 50]
    assert study.on_object(follow)[2].isnan()
    values = finite(study.on_object(follow))
    assert values.tolist() == [-25, 50] and values.dtype == np.float64


def test_alternate_classes_by_hand(tmp_path, monkeypatch):
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 0]]]).bool()
    first, second = "pairs: first", "pairs: second"
    sets = {
        first: four_pixels([0, 0, 0], masks),
        second: four_pixels([2, 2, 2], masks.flip(1, 2)),  # the pixel in the other corner
    }
    study = replace(study_in(tmp_path), sets=sets)
    from_first = [[[3.0, 0], [0, 1]], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    from_second = [[[1.0, 0], [1, 2]], [[0, 0], [0, 2]], [[0, 0], [0, 0]]]
    stubbed(
        monkeypatch,
        {
            Follow("full", first, start="label"): torch.tensor(from_first),
            Follow("full", second, start="label"): torch.tensor(from_second),
        },
    )
    # image 0: on the first 3/4 and 1/4, on the second 1/4 and 2/4, so (1/2 + 1/4) / 2;
    # image 1: on the first 1/4 and 0, on the second 1/4 and 1; image 2 has no paths from one class
    assert study_of.alternate(study, "full").tolist() == [100 * 3 / 8, 100 * 1 / 2]


def test_learning_has_a_column_per_epoch(tmp_path, monkeypatch):
    study = replace(study_in(tmp_path), sets={"taught": four_pixels([0, 1, 2], MASKS)})
    shown = {"epoch 1": PIXELS.clone(), "epoch 2": torch.ones(3, 2, 2)}
    shown["epoch 1"][2, 0] = 1
    follows = {Follow(name, "taught", start="label"): p for name, p in shown.items()}
    stubbed(monkeypatch, follows)
    assert study_of.learning(study).tolist() == [[-25, 0], [50, 0], [25, 0]]
    follows[Follow("epoch 2", "taught", start="label")][1] = 0  # no path: the image drops out
    assert study_of.learning(study).tolist() == [[-25, 0], [25, 0]]


def test_parts_count_each_image_alike(tmp_path, monkeypatch):
    parts = torch.tensor([[[1, 1], [2, 0]], [[1, 2], [2, 0]], [[2, 2], [1, 0]]]).byte()
    images = replace(
        four_pixels([0, 0, 1], parts > 0), parts=parts, part_names=("no part", "edge", "rest")
    )
    images = replace(images, class_names=("ant", "bee"))
    study = replace(study_in(tmp_path), sets={"judged": images})
    # of ants: a tenth of 1,000 paths on the edge, the rest beside it; 1 path on the edge
    paths = [[[100, 0], [0, 900]], [[1, 0], [0, 0]], [[0, 3], [1, 0]]]
    stubbed(monkeypatch, {DEFAULT: torch.tensor(paths).float()})
    table = study_of.by_part(study, "full")
    assert list(table.index) == ["ant", "bee"] and table["part"].tolist() == ["edge", "rest"]
    assert table["paths"].tolist() == pytest.approx([100, 75])
    assert table["area"].tolist() == pytest.approx([50, 200 / 3])
    unknown = replace(study, sets={"judged": replace(images, parts=None)})
    assert study_of.by_part(unknown, "full").empty


# ---- backtracking as a stage


def followed(images: ImageSet, model: nn.Module, batch: int = 5, **config) -> dict[str, Tensor]:
    config = {"rules": vars(bt.Rules()), "start": "predicted"} | config
    how = {"model": model, "device": CPU, "batch_size": batch}
    tensors, values = follow_paths(config, {"images": images}, Path(), **how)
    assert not values and tensors["pixels"].dtype == torch.float32
    return tensors


@pytest.mark.parametrize(
    ("rule", "start_from"),
    [("default", "predicted"), ("top 10 inputs", "label"), ("all positive channels", "label")],
)
def test_stored_paths_are_those_of_every_image_alone(rule, start_from):
    model, images = network(0), toys(7, 0)
    made = followed(images, model, rules=vars(RULES[rule]), start=start_from)
    for k in range(7):
        seen = bt.record(model, images[k].to_float())
        begun = seen.logits.argmax(1) if start_from == "predicted" else images.labels[[k]]
        assert made["start"][k] == begun[0]
        expected = seen.backtrack(begun, rules=RULES[rule]).pixels[0]
        assert torch.equal(made["pixels"][k].double(), expected) and expected.sum() > 0
        probability = seen.logits.softmax(1)[0, begun[0]]
        torch.testing.assert_close(made["probability"][k], probability)
    for batch in (1, 100):
        other = followed(images, model, batch, rules=vars(RULES[rule]), start=start_from)
        assert torch.equal(other["pixels"], made["pixels"])
        assert torch.equal(other["start"], made["start"])


def test_rules_of_the_study_are_all_different():
    assert len(set(RULES.values())) == len(RULES) and RULES["default"] == bt.Rules()


# ---- scores as a stage


def judged_inputs(model: nn.Module, method: str, seeds: tuple[int, int] = (1, 2)) -> dict:
    """Choosing and judged toys, and the paths of both, as the stage takes them."""
    rules = {"rules": vars(RULES.get(method, bt.Rules()))}
    inputs = {}
    for images, seed in zip(("choosing", "judged"), seeds, strict=True):
        inputs[images] = toys(12, seed)
        tensors = followed(inputs[images], model, **rules)
        inputs[f"paths {images}"] = Result("", tensors, {}, {})
    return inputs


def judged(model: nn.Module, method: str, inputs: dict, **config) -> tuple[dict, dict]:
    config = {
        "method": method,
        "widths": BUDGET.widths,
        "levels": BUDGET.levels,
        "thorough": True,
    } | config
    return judge_maps(config, inputs, Path(), model=model, device=CPU)


def raw_maps(model: nn.Module, method: str, images: ImageSet, start: Tensor) -> Tensor:
    pixels = images.to_float()
    if method == "centre Gaussian":
        return saliency.centre_gaussian(len(images), SIDE, SIDE)
    if method == "colour contrast":
        return saliency.colour_contrast(pixels)
    if method == "Grad-CAM":
        return saliency.grad_cam(model, pixels, start, model.network[5])  # 4 x 4, the last
    if method in METHODS:
        return METHODS[method](model, pixels, start)
    paths = bt.backtrack(model, pixels, start, RULES.get(method)).float()
    return bt.without_strays(paths) if method == "without strays" else paths


def smooth(maps: Tensor, width: float, method: str) -> Tensor:
    return bt.attention(maps, width, method != "each pixel once") if width else maps


SCORED = ("default", "top 10 inputs", "each pixel once", "without strays", *METHODS, *BLIND)


@pytest.mark.parametrize("method", SCORED)
def test_scores_are_those_of_the_maps_put_together_by_hand(method, monkeypatch):
    monkeypatch.setattr(study_of, "_FEW", 4)  # of a dozen
    model = network(0)
    inputs = judged_inputs(model, method)
    tensors, values = judged(model, method, inputs)
    choosing, truth = inputs["choosing"], inputs["judged"].masks
    with torch.no_grad():
        starts = {k: model(inputs[k].to_float()).argmax(1) for k in ("choosing", "judged")}

    # the best of all pairs of a width and a level, one after the other
    raw = raw_maps(model, method, choosing, starts["choosing"])
    widths = [SIDE * width for width in BUDGET.widths]
    widths += [0.0] if method in (*METHODS, *BLIND) else []  # points have to be smoothed
    reached = {}
    for width in widths:
        maps = smooth(raw, width, method)
        for level in BUDGET.levels:
            said = saliency.thresholded(maps, level)
            reached[width, level] = saliency.overlap(said, choosing.masks)["f_beta"].mean().item()
    best = reached[values["width"], values["level"]]
    assert best == pytest.approx(max(reached.values())) and len(set(reached.values())) > 3

    raw = raw_maps(model, method, inputs["judged"], starts["judged"])
    maps = smooth(raw, values["width"], method)
    chosen = saliency.thresholded(maps, values["level"])
    assert torch.equal(tensors["chosen"], chosen)
    sharp = smooth(raw, bt.SHARP * SIDE, method)
    assert torch.equal(tensors["sharp"], (255 * sharp).round().byte())
    for name, expected in saliency.overlap(chosen, truth).items():
        assert torch.equal(tensors[name], expected)
    assert values["pooled"] == saliency.pooled(chosen, truth)
    assert torch.equal(tensors["pointing"], saliency.pointing_game(maps, truth))
    assert torch.equal(tensors["energy"], saliency.energy_inside(maps, truth))

    some = [0, 3, 7, 11]  # spread evenly from the first to the last
    few, start_from = inputs["judged"][some].to_float(), starts["judged"][some]
    curves = saliency.deletion_insertion(model, few, start_from, sharp[some], steps=10)
    for name, curve in zip(("deletion", "insertion"), curves, strict=True):
        torch.testing.assert_close(tensors[name], saliency.area_under(curve))
        torch.testing.assert_close(tensors[f"{name} curve"], curve.mean(0))
    if method in BLIND:  # they know no network that could forget
        assert tensors["stable"].tolist() == [1] * 4
    else:
        other = raw_maps(saliency.randomised(model, 0), method, inputs["judged"][some], start_from)
        alike = [smooth(of, bt.SHARP * SIDE, method) for of in (raw[some], other)]
        expected = saliency.rank_similarity(*alike).float()
        torch.testing.assert_close(tensors["stable"], expected, equal_nan=True)
        assert (expected < 1).all()


@pytest.mark.parametrize("method", ["default", "Grad-CAM", "centre Gaussian"])
def test_widths_and_levels_are_chosen_on_the_choosing_images_only(method):
    model = network(0)
    inputs = judged_inputs(model, method)
    tensors, values = judged(model, method, inputs)

    swapped = replace(inputs["judged"], masks=inputs["judged"].masks.flip(1, 2) ^ True)
    other, other_values = judged(model, method, inputs | {"judged": swapped})
    for choice in ("width", "level"):
        assert other_values[choice] == values[choice]
    assert torch.equal(other["chosen"], tensors["chosen"])
    assert not torch.equal(other["f_beta"], tensors["f_beta"])
    # nor do the judged pictures matter
    elsewhere = judged_inputs(model, method, seeds=(1, 7))
    assert judged(model, method, elsewhere)[1]["width"] == values["width"]
    assert judged(model, method, elsewhere)[1]["level"] == values["level"]

    # a mask of everything is best met by the widest map and the lowest level, one of a map's own
    # peak by the highest
    everything, peak = (torch.zeros_like(inputs["choosing"].masks) for _ in range(2))
    everything[:], choices = True, []
    start_from = inputs["paths choosing"].tensors["start"]
    raw = smooth(raw_maps(model, method, inputs["choosing"], start_from), 0.05 * SIDE, method)
    peak.flatten(1)[range(12), raw.flatten(1).argmax(1)] = True
    for masks in (everything, peak):
        choosing = replace(inputs["choosing"], masks=masks)
        choices.append(judged(model, method, inputs | {"choosing": choosing})[1])
    assert choices[0]["level"] == 0.1 and choices[1]["level"] == 0.9
    assert choices[0]["width"] > choices[1]["width"]


@pytest.mark.parametrize(
    ("method", "why"), [("LRP", "no rule for SiLU"), ("guided backpropagation", "no nn.ReLU")]
)
def test_a_method_that_cannot_explain_a_network_says_why(method, why):
    model = network(0, active=nn.SiLU)
    tensors, values = judged(model, method, judged_inputs(model, method))
    assert tensors == {} and list(values) == ["impossible"] and why in values["impossible"]


def test_what_is_impossible_leaves_empty_cells(tmp_path):
    odd = titled("full", 0, active=nn.SiLU)
    study = replace(study_in(tmp_path), networks={"full": odd})
    table = study_of.compared(study, study_of.rivals(study))
    assert list(table.index) == ["backtracking", *METHODS, *BLIND]
    empty = table.isna().all(axis=1)
    assert set(table.index[empty]) == {"guided backpropagation", "LRP"}
    assert table[~empty].drop(columns="random").notna().all(axis=None)
    assert set(study_of.leads(study, "full", "f_beta").index) == {
        "Grad-CAM",
        "input gradient",
        *BLIND,
    }
    pictures, rows, columns = study_of.rival_pictures(study, torch.arange(2))
    assert rows == ["image", "backtracking", "Grad-CAM", "input gradient", *BLIND]
    assert pictures.shape == (6, 2, 3, SIDE, SIDE) and len(columns) == 2


# ---- the whole study, kept


def test_everything_is_computed_once_and_kept(ran, monkeypatch):
    follows, judges = ran.follows(), ran.judgements()
    assert len(set(follows)) == len(follows) and len(set(judges)) == len(judges)
    made = contents(ran.root)
    assert sum(name.startswith("follow_paths/") for name in made) == len(follows)
    assert sum(name.startswith("judge_maps/") for name in made) == len(judges)

    def refuse(*_, **__):
        pytest.fail("computed again")

    for name in ("follow_paths", "judge_maps"):
        monkeypatch.setattr(study_of, name, replace(getattr(study_of, name), compute=refuse))
    again = study_in(ran.root)
    assert not again.known
    again.run()
    for follow in follows:
        assert torch.equal(again.pixels(follow), ran.pixels(follow))
    for judge in judges:
        assert again.scores(judge).made == ran.scores(judge).made  # with a hash of the tensors
    assert contents(ran.root) == made


def test_a_finished_study_says_nothing(ran, capfd):
    study_in(ran.root).run()
    assert capfd.readouterr() == ("", "")


def test_what_a_killed_run_left_is_gone_on_with(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(study_of, "RULES", {"default": RULES["default"]})
    compute, done = study_of._compute, []

    def fresh() -> Study:
        study = study_in(tmp_path)
        return replace(study, networks={"full": study.main})

    def killed(study, job):
        if len(done) == 6:
            raise KeyboardInterrupt
        compute(study, job)
        done.append(job)

    with monkeypatch.context() as patch:
        patch.setattr(study_of, "_compute", killed)
        with pytest.raises(KeyboardInterrupt):
            fresh().run()
    assert len(contents(tmp_path)) == 6
    fresh().run()
    whole, known = contents(tmp_path), contents(ran.root)
    assert len(whole) == len(fresh().follows()) + len(fresh().judgements()) == 9 + 9
    assert all(known[name] == value for name, value in whole.items())

    # paths that got lost under scores that are there, and scores that got lost
    lost = [*tmp_path.glob("follow_paths/*/")][::4] + [*tmp_path.glob("judge_maps/*/")][:3]
    for folder in lost:
        shutil.rmtree(folder)
    assert len(contents(tmp_path)) == len(whole) - len(lost)
    fresh().run()
    assert contents(tmp_path) == whole


def test_other_processes_get_the_study_without_what_it_knows(ran):
    sent = pickle.loads(pickle.dumps(ran))
    assert ran.known and not sent.known
    assert {k: v.key for k, v in sent.sets.items()} == {k: v.key for k, v in ran.sets.items()}
    for title, other in ran.networks.items():
        assert same(sent.networks[title].model.state_dict(), other.model.state_dict())
    assert torch.equal(sent.pixels(DEFAULT), ran.pixels(DEFAULT))


def test_results_are_kept_apart_by_what_they_are_made_of(tmp_path):
    study, store = study_in(tmp_path), Store(tmp_path)

    def key(study: Study, job: Follow | Judge) -> str:
        stage, config, inputs, _ = study_of._question(study, job, store)
        return key_of(stage, config, inputs)

    follow = DEFAULT
    other_images = replace(study, sets=study.sets | {"judged": study.sets["choosing"]})
    retrained = replace(study.main, made=Named("trained longer"))
    keys = [
        key(study, follow),
        key(study, replace(follow, rule="top 10 inputs")),
        key(study, replace(follow, start="label")),
        key(study, replace(follow, network="epoch 1")),
        key(other_images, follow),
        key(replace(study, networks={"full": retrained}), follow),
    ]
    assert len(set(keys)) == len(keys)
    judge = Judge("mean", "default")
    finer = replace(study, budget=replace(BUDGET, levels=(0.1, 0.2)))
    wider = replace(study, budget=replace(BUDGET, widths=(0.4,)))
    keys = [
        key(study, judge),
        key(study, Judge("mean", "Grad-CAM")),
        key(study, Judge("full", "default")),
    ]
    keys += [key(other, judge) for other in (finer, wider, other_images)]
    assert len(set(keys)) == len(keys)


def test_networks_are_found_by_their_titles(ran):
    for found in (*ran.networks.values(), *ran.epochs, ran.untaught):
        assert ran.network(found.title) is found
    assert ran.main.title == "full"
    with pytest.raises(KeyError):
        ran.network("epoch 3")


def test_each_network_is_backtracked_by_the_rules_that_concern_it(ran):
    assert ran.rules("full") == [rule for rule in RULES if rule != "all of an average"]
    assert ran.rules("mean") == ["default", "all of an average"]
    follows = ran.follows()
    assert {f.rule for f in follows if f.network == "mean"} == set(ran.rules("mean"))
    from_labels = [f for f in follows if f.start == "label"]
    assert {(f.network, f.images) for f in from_labels} == {
        ("full", "pairs: first"),
        ("full", "pairs: second"),
        ("mean", "pairs: first"),
        ("mean", "pairs: second"),
        ("epoch 1", "taught"),
        ("epoch 2", "taught"),
    }
    assert {Follow(name, "left out") for name in ("full", "full, untaught")} <= set(follows)
    assert Follow("full", "blurred") in follows
    methods = {judge.method for judge in ran.judgements() if judge.network == "mean"}
    assert methods == {"default", "all of an average", "Grad-CAM"}


@pytest.mark.parametrize(("side", "large"), [(100, False), (101, True)])
def test_large_images_are_spared_the_rule_that_takes_hours(ran, side, large):
    judged = toys(1, 0)
    canvas, mask = torch.zeros(1, 3, side, side), torch.zeros(1, side, side)
    judged = replace(judged, images=canvas.byte(), masks=mask.bool(), parts=mask.byte())
    wide = replace(ran, sets=ran.sets | {"judged": judged})
    spared = {"all positive channels"} if large else set()
    assert set(ran.rules("full")) - set(wide.rules("full")) == spared
    assert set(ran.follows()) - set(wide.follows()) == {
        Follow("full", images, rule) for rule in spared for images in ("choosing", "judged")
    }


# ---- tables


def test_table_one_is_plain_counting(ran):
    table = study_of.table_one(ran, "full")
    said = ran.scores(Judge("full", "default")).tensors["chosen"].numpy()
    true = ran.sets["judged"].masks.numpy()

    def counted(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
        hit, wrong, missed = (said & true).sum(), (said & ~true).sum(), (true & ~said).sum()
        precision, recall = hit / (hit + wrong), hit / (hit + missed)
        return {
            "accuracy": (said == true).mean(),
            "precision": precision,
            "recall": recall,
            "F1": 2 * precision * recall / (precision + recall) if hit else 0,
            "F_beta (beta² = .3)": 1.3 * precision * recall / (0.3 * precision + recall)
            if hit
            else 0,
            "IoU": hit / (hit + wrong + missed),
        }

    rows = [counted(*row) for row in zip(said, true, strict=True)]
    for name, pooled in counted(said, true).items():
        values, row = np.array([row[name] for row in rows]), table.loc[name]
        assert row["per image"] == pytest.approx(values.mean())
        assert row["all pixels"] == pytest.approx(pooled)
        interval = claims.bootstrap_interval(values)  # rounding changes which resamples are equal
        assert (row["low"], row["high"]) == pytest.approx(interval, rel=0.02)
        assert row["low"] < row["per image"] < row["high"]
    assert table["paper"].tolist()[:4] == [0.98, 0.5, 0.8, 0.7] and table["paper"].iloc[5] == 0.6
    assert math.isnan(table["paper"].iloc[4]) and len(table) == 6


def test_methods_are_compared_by_their_means(ran):
    table = study_of.compared(ran, study_of.rivals(ran))
    assert list(table.index) == ["backtracking", *METHODS, *BLIND]
    assert table.loc[[*BLIND], "random"].tolist() == [1, 1]
    for method, row in (("default", "backtracking"), ("LRP", "LRP")):
        made = ran.scores(Judge("full", method)).tensors
        for name, column in (("f_beta", "F_beta"), ("iou", "IoU"), ("deletion", "deletion")):
            assert table.loc[row, column] == pytest.approx(made[name].double().mean().item())
    ours, cam = (ran.scores(Judge("full", m)).tensors["f_beta"] for m in ("default", "Grad-CAM"))
    ahead = study_of.leads(ran, "full", "f_beta").loc["Grad-CAM"]
    assert ahead["ahead by"] == pytest.approx((ours - cam).mean().item())
    low, high = claims.bootstrap_interval((ours - cam).numpy())
    assert (ahead["low"], ahead["high"]) == pytest.approx((low, high))


def test_rules_and_networks_have_a_row_each(ran):
    rules, masks = study_of.by_rule(ran), ran.sets["judged"].masks
    assert set(rules.index) == {*ran.rules("full"), "each pixel once", "without strays"}
    pixels = ran.pixels(DEFAULT)
    own = {"default": pixels, "each pixel once": (pixels > 0).float()}
    own["without strays"] = bt.without_strays(pixels)
    for rule, of in own.items():
        distinct = (of > 0).sum((1, 2)).double()
        share = (of * masks).sum((1, 2)) / of.sum((1, 2))
        points = 100 * (share - masks.float().mean((1, 2)))
        assert rules.loc[rule, "pixels"] == pytest.approx(distinct.mean().item())
        expected = pytest.approx(points.nanmean().item(), abs=1e-3)
        assert rules.loc[rule, "points on the object"] == expected
        assert rules.loc[rule, "images without pixels"] == (distinct == 0).sum()
    networks = study_of.by_network(ran)
    assert list(networks.index) == ["full", "mean", "mean, all of an average"]
    first = networks.loc["full"]
    assert first["points on the object"] == pytest.approx(rules.loc["default"].iloc[1])
    cam = ran.scores(Judge("mean", "Grad-CAM")).tensors["pointing"].mean().item()
    assert networks.loc["mean", "Grad-CAM: pointing"] == pytest.approx(cam)
    assert networks.loc["mean, all of an average", "pixels"] > networks.loc["mean", "pixels"]


def test_costs_are_measured_for_every_network(ran):
    table = study_of.costs(ran, batches=2, repeats=1)
    assert table["network"].tolist() == ["full", "full", "mean", "mean"]
    assert list(table)[1:] == ["forward, ms an image", "recording", "backtracking"]
    assert (table.iloc[:, 1:] > 0).all(axis=None)
    assert all(p.requires_grad for n in ran.networks.values() for p in n.model.parameters())


# ---- pictures


def test_dots_go_from_orange_to_yellow_over_dimmed_grey():
    image = torch.tensor([30, 90, 120], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 2, 2)
    pixels = torch.tensor([[[0.0, 16], [4, 1]], [[0, 0], [0, 0]]])
    shown = dotted(image, pixels)
    assert shown.dtype == torch.uint8
    assert shown[0, :, 0, 0].tolist() == [36, 36, 36]  # 0.45 of the mean, 80
    assert shown[0, :, 0, 1].tolist() == [255, 240, 60]  # the peak
    assert shown[0, :, 1, 0].tolist() == [234, 167, 30]  # a quarter of the paths: half-way
    assert shown[0, :, 1, 1].tolist() == [224, 130, 15]  # 1 / 16: 213 + 42 / 4, 94 + 146 / 4
    assert (shown[1] == 36).all()


def test_dots_cover_their_neighbours_in_large_pictures_only():
    for side, across in ((149, 1), (150, 3), (300, 5)):
        pixels = torch.zeros(1, side, side)
        pixels[0, 70, 80] = 2
        shown = dotted(torch.zeros(1, 3, side, side, dtype=torch.uint8), pixels)
        lit = shown[0].any(0)
        y, x = 70 - across // 2, 80 - across // 2
        assert lit.sum() == across**2 and lit[y : y + across, x : x + across].all()


def test_cut_out_pixels_stay_and_the_rest_is_dim():
    image = torch.tensor([30, 90, 120], dtype=torch.uint8).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    shown = cut(image, torch.tensor([[[True, False]]]))
    assert shown[0, :, 0].T.tolist() == [[30, 90, 120], [24, 24, 24]]  # 0.3 of 80


def test_blurred_images_keep_their_mean_and_lose_their_edges():
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, :, :, 32:] = 200
    blurred = study_of._blurred(image)
    assert blurred.shape == image.shape and blurred.is_contiguous()
    profile = blurred[0, 0, 20].float() / 200
    # an edge under a Gaussian of 2 px: the normal distribution function
    expected = 0.5 * (1 + torch.erf((torch.arange(64) - 31.5) / (2 * 2**0.5)))
    assert torch.allclose(profile, expected, atol=0.02)
    assert (study_of._blurred(torch.full_like(image, 77)) == 77).all()


def test_rows_for_pictures_are_of_many_classes(ran):
    labels = ran.sets["judged"].labels
    assert study_of.some_rows(ran, 4).tolist() == [0, 1, 2, 3]
    assert labels[study_of.some_rows(ran, 2)].tolist() == [0, 3]
    # fewer classes than pictures: the first ones of each
    assert labels[study_of.some_rows(ran, 5)].tolist() == [0, 0, 1, 1, 2]
    assert sorted(study_of.some_rows(ran, 50).tolist()) == list(range(12))


def fits(table: tuple, marks: list[list[str]] | None = None) -> bool:
    """What `figures.picture_table` asks for."""
    pictures, rows, columns = table
    assert pictures.dtype == torch.uint8 and pictures.shape[2:] == (3, SIDE, SIDE)
    assert tuple(pictures.shape[:2]) == (len(rows), len(columns))
    return marks is None or [len(row) for row in marks] == [len(columns)] * len(rows)


def dots(study: Study, follow: Follow, rows: Tensor) -> Tensor:
    return dotted(study.sets[follow.images].images[rows], study.pixels(follow)[rows])


def test_steps_show_one_image_after_the_other(ran):
    rows = torch.tensor([1, 6, 11])
    table, marks = study_of.steps(ran, rows)
    pictures, names, columns = table
    assert fits(table, marks) and pictures.shape[:2] == (3, 6)
    assert names == ["bee", "cat", "dog"]
    images, made = ran.sets["judged"][rows], ran.scores(Judge("full", "default")).tensors
    shown = dict(zip(columns, pictures.unbind(1), strict=True))
    assert torch.equal(shown["image"], images.images)
    assert torch.equal(shown["important pixels"], dots(ran, DEFAULT, rows))
    heat = figures.heated(images.images, made["maps"][rows] / 255)
    assert torch.equal(shown["attention"], heat)
    around = bt.bounding_box(bt.without_strays(ran.pixels(DEFAULT)[rows]))
    boxed = [
        figures.framed(i, b[None], "orange") for i, b in zip(images.images, around, strict=True)
    ]
    assert torch.equal(shown["box"], torch.stack(boxed))
    assert torch.equal(shown["saliency map"], cut(images.images, made["chosen"][rows]))
    assert torch.equal(shown["true object"], cut(images.images, images.masks))
    with torch.no_grad():
        said = ran.main.model(images.to_float()).softmax(1).max(1)
    expected = [f"{KINDS[k]} {p:.0%}" for k, p in zip(said[1], said[0], strict=True)]
    assert [row[0] for row in marks] == expected and not any(any(row[1:]) for row in marks)


def test_one_image_is_followed_through_the_layers(ran):
    table, counts, layers = study_of.through_layers(ran, 3)
    seen = bt.record(ran.main.model, ran.sets["judged"][[3]].to_float())
    paths = seen.backtrack(seen.logits.argmax(1))
    assert layers == list(paths.layers) and layers[-1] == "image"
    assert counts["nodes"].tolist() == [len(nodes) for nodes in paths.layers.values()]
    assert fits(table) and torch.equal(table[0][0, 0], ran.sets["judged"].images[3])
    assert table[2][0] == "image" and table[2][1].startswith("4 x 4: ")
    assert table[2][-1] == f"{SIDE} x {SIDE}: {len(paths.layers['image'])} nodes"
    places = paths.layers["image"].dense(1).sum(1)
    strength = (places / places.max()).sqrt().float()
    heat = figures.heated(ran.sets["judged"].images[[3]], strength)
    assert torch.equal(table[0][0, -1], heat[0])
    for most in (1, 2):
        few = study_of.through_layers(ran, 3, most)[0]
        assert fits(few) and len(few[2]) == 1 + most and few[2][-1] == table[2][-1]


def test_boxes_hold_the_position_that_most_paths_pass(ran):
    rows = torch.tensor([0, 5])
    pictures, names = study_of.boxes(ran, rows)
    assert pictures.shape == (2, 3, 192, 192) and pictures.dtype == torch.uint8
    for k, row in enumerate(rows.tolist()):
        seen = bt.record(ran.main.model, ran.sets["judged"][[row]].to_float())
        nodes = seen.backtrack(seen.logits.argmax(1)).layers["network.5"]  # 4 x 4 behind a maximum
        passing = nodes.dense(1)[0].sum(0)
        share, predicted = (passing.max() / passing.sum()).item(), int(seen.logits.argmax())
        expected = f"taken for {KINDS[predicted]}: {share:.0%} of paths (even: 6%)"
        assert names[k] == expected
        y, x = divmod(int(passing.argmax()), 4)
        plain = ran.sets["judged"].images[row].repeat_interleave(12, 1).repeat_interleave(12, 2)
        changed = (pictures[k] != plain).any(0).nonzero()
        assert changed.min(0).values.tolist() == [48 * y, 48 * x]
        assert changed.max(0).values.tolist() == [48 * y + 47, 48 * x + 47]


def test_images_come_from_best_to_worst(ran):
    table, marks = study_of.from_best_to_worst(ran, 5)
    assert fits(table, marks) and len(table[2]) == 5 and not any(marks[0])
    share = share_on(ran.pixels(DEFAULT), ran.sets["judged"].masks)
    order = share.nan_to_num(0).argsort(descending=True)
    shown = [float(mark.removesuffix("% on it")) for mark in marks[1]]
    assert shown == sorted(shown, reverse=True)
    assert marks[1][0] == f"{share.nan_to_num(0).max():.0%} on it"
    assert torch.equal(table[0][0, 0], ran.sets["judged"].images[order[0]])
    assert torch.equal(table[0][0, -1], ran.sets["judged"].images[order[-1]])


def test_networks_and_methods_are_shown_side_by_side(ran):
    rows = torch.tensor([0, 7, 10])
    images = ran.sets["judged"].images[rows]
    pictures, names, columns = table = study_of.side_by_side(ran, rows)
    assert fits(table) and names == ["image", "full", "mean"] and columns == ["ant", "dog", "cat"]
    assert torch.equal(pictures[0], images)
    assert torch.equal(pictures[2], dots(ran, Follow("mean", "judged"), rows))
    pictures, names, columns = table = study_of.rival_pictures(ran, rows)
    assert fits(table) and names == ["image", "backtracking", *METHODS, *BLIND]
    assert columns == ["ant", "dog", "cat"] and torch.equal(pictures[0], images)
    maps = ran.scores(Judge("full", "LRP")).tensors["sharp"][rows] / 255
    assert torch.equal(pictures[names.index("LRP")], figures.heated(images, maps))


def test_pairs_are_shown_from_either_class(ran):
    first, second = ran.sets["pairs: first"], ran.sets["pairs: second"]
    pictures, rows, columns = table = study_of.two_starts(ran, "full", 3)
    assert fits(table) and len(rows) == 3 == len(columns)
    assert columns[0] == f"{KINDS[first.labels[0]]}, {KINDS[second.labels[0]]}"
    assert torch.equal(pictures[0], first.images[:3])
    for k, images in ((1, "pairs: first"), (2, "pairs: second")):
        follow = Follow("full", images, start="label")
        assert torch.equal(pictures[k], dots(ran, follow, torch.arange(3)))
    everything = study_of.two_starts(ran, "full", 99)
    assert fits(everything) and len(everything[2]) == len(first)


def test_epochs_are_shown_one_after_the_other(ran):
    rows = torch.tensor([2, 9])
    pictures, names, columns = table = study_of.epoch_pictures(ran, rows)
    assert (
        fits(table)
        and names == ["image", "epoch 1", "epoch 2", "epoch 2"]
        and columns == ["cat", "bee"]
    )
    assert torch.equal(pictures[0], ran.sets["taught"].images[rows])
    assert torch.equal(pictures[2], dots(ran, Follow("epoch 2", "taught", start="label"), rows))


def test_untaught_classes_and_blurred_images_are_shown_with_their_answers(ran):
    (pictures, names, columns), marks = made = study_of.untaught_pictures(ran, 2)
    assert fits(*made) and names == ["image", "taught", "never taught"]
    assert columns == ["ant", "bee"] and not any(marks[0]) and all(map(all, marks[1:]))
    rows = study_of.some_rows(ran, 2, "left out")
    assert torch.equal(pictures[0], ran.sets["left out"].images[rows])
    assert torch.equal(pictures[2], dots(ran, Follow("full, untaught", "left out"), rows))

    rows = torch.tensor([1, 4])
    (pictures, names, columns), marks = made = study_of.blurred_pictures(ran, rows)
    assert fits(*made) and names == ["sharp", "its pixels", "blurred", "its pixels"]
    assert columns == ["bee", "ant"] and [bool(any(row)) for row in marks] == [0, 1, 0, 1]
    assert torch.equal(pictures[0], ran.sets["judged"].images[rows])
    assert torch.equal(pictures[2], ran.sets["blurred"].images[rows])
    assert torch.equal(pictures[3], dots(ran, Follow("full", "blurred"), rows))
    assert torch.equal(pictures[1], dots(ran, DEFAULT, rows))


# ---- networks after every epoch


def course_in(root: Path, profile: str = "demo", **changed) -> Course:
    return Course(replace(profile_named(profile), **changed), "03", CPU, root, None, None)


def small(classes: int, seed: int = 0) -> nn.Module:
    """Batch norm, dropout and a fixed layer: whatever could be forgotten."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()]
        layers += [nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)]
    layers[0].requires_grad_(False)
    return nn.Sequential(*layers)


def taught_and_not(train: ImageSet) -> list[tuple[str, nn.Module, ImageSet]]:
    rest = train.only(["cat", "dog"])
    return [("small", small(len(images.class_names)), images) for images in (train, rest)]


def states(networks: list[tuple[Network, ...]]) -> list[dict[str, Tensor]]:
    return [epoch.model.state_dict() for through in networks for epoch in through]


def test_networks_through_epochs_are_those_of_plain_trainings(tmp_path):
    train, recipe, expected = toys(24, 0), replace(RECIPE, epochs=3), []
    jobs = taught_and_not(train)
    networks = study_of._through_epochs(course_in(tmp_path), jobs, recipe)
    for _, model, images in taught_and_not(train):

        def note(_: int, model: nn.Module) -> None:
            expected.append({name: v.clone() for name, v in model.state_dict().items()})

        training.fit(model, images, recipe, seed=0, progress=False, after_epoch=note)
    assert all(map(same, states(networks), expected)) and len(expected) == 6
    for through, names in zip(networks, (KINDS, ("cat", "dog")), strict=True):
        assert [epoch.title for epoch in through] == ["epoch 1", "epoch 2", "epoch 3"]
        assert all(epoch.class_names == names for epoch in through)
        assert not any(epoch.model.training for epoch in through)
    keys = [epoch.made.key for through in networks for epoch in through]
    assert len(set(keys)) == 6


def test_another_architecture_under_the_same_name_is_trained_anew(tmp_path):
    train, course, after = toys(24, 0), course_in(tmp_path), []
    for wide in (4, 5):
        layers = [nn.Conv2d(3, wide, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        job = ("one", nn.Sequential(*layers, nn.Linear(wide, len(KINDS))), train)
        after.append(study_of._through_epochs(course, [job], RECIPE)[0][-1])
    assert after[0].made.key != after[1].made.key and after[1].model[0].out_channels == 5


def test_the_untaught_network_never_sees_the_classes_that_are_left_out(tmp_path, monkeypatch):
    train, given, fit = toys(24, 0), [], training.fit

    def noted(model, train, *rest, **how):
        given.append(train)
        return fit(model, train, *rest, **how)

    monkeypatch.setattr(training, "fit", noted)
    study_of._through_epochs(course_in(tmp_path), taught_and_not(train), RECIPE)
    taught, untaught = given
    assert taught.key == train.key and untaught.class_names == ("cat", "dog")
    hidden = pictures_of(train[train.labels < 2])
    assert len(hidden) == 12 and not hidden & pictures_of(untaught)
    assert len(untaught) == 12 and pictures_of(untaught) < pictures_of(train)

    given.clear()
    study_of._through_epochs(course_in(tmp_path), taught_and_not(train), RECIPE)
    assert not given  # known


def test_an_interruption_changes_no_network(tmp_path, monkeypatch):
    train, recipe = toys(24, 0), replace(RECIPE, epochs=3)
    whole = study_of._through_epochs(course_in(tmp_path / "whole"), taught_and_not(train), recipe)
    save, saved = training._save, []

    def interrupted(*state):
        saved.append(len(state[-1].train_loss))
        if len(saved) == 2:
            raise KeyboardInterrupt  # after the second epoch, before it is on disk
        save(*state)

    monkeypatch.setattr(training, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study_of._through_epochs(course_in(tmp_path / "cut"), taught_and_not(train), recipe)
    resumed = study_of._through_epochs(course_in(tmp_path / "cut"), taught_and_not(train), recipe)
    assert saved == [1, 2, 2, 3, 1, 2, 3]  # the first epoch of the first network was kept
    assert all(map(same, states(resumed), states(whole)))
    assert [n.made.key for t in resumed for n in t] == [n.made.key for t in whole for n in t]


# ---- the demo


def trained_on(root: Path, stage: str) -> list[str]:
    """The keys of the training images of everything a stage has made."""
    records = [json.loads(file.read_text()) for file in root.glob(f"{stage}/*/made.json")]
    assert all(set(record["inputs"]) == {"train"} for record in records)
    return [record["inputs"]["train"] for record in records]


def small_demo() -> tuple[Course, Study]:
    """Three scenes a class to learn from, at 32 px, and one epoch."""
    course = start("demo", notebook="03_cnn_backtracking")
    own = course.profile.paths
    recipe = replace(own.recipe, epochs=1, precision="float32")
    networks = (own.networks[0], own.networks[-1])
    budget = replace(own, recipe=recipe, networks=networks, choosing=18, judged=36, pairs=2)
    sizes = {"size": 32, "train": 54, "validation": 36, "test": 72, "paths": budget}
    course.profile = replace(course.profile, **sizes)
    course.device = CPU
    return course, assemble(course)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.setattr(parallel, "cpu_count", lambda: 1)
        return small_demo()


def test_nobody_was_trained_on_what_the_demo_shows(demo):
    course, study = demo
    train, sets = course.images("train"), study.sets
    counts = {name: len(images) for name, images in sets.items()}
    assert counts["choosing"] == 18 and 0 < counts["pairs: first"] == counts["pairs: second"] <= 2
    assert counts["judged"] == counts["blurred"] == counts["taught"] == 36
    assert counts["left out"] == 8  # all there are of two classes
    for images in sets.values():
        assert not set(train.ids) & set(images.ids)
        assert not pictures_of(train) & pictures_of(images) and images.masks.any(2).any(1).all()
    assert not set(sets["choosing"].ids) & set(sets["judged"].ids)
    worlds = {name: {i.split(",")[0] for i in images.ids} for name, images in sets.items()}
    assert worlds.pop("choosing") == {"world 1002"}
    assert set.union(*worlds.values()) == {"world 1003"}
    assert set(train.ids) == {f"world 1001, scene {i}" for i in range(54)}
    assert sorted(sets["judged"].counts().values()) == [2] * 18
    assert sets["blurred"].ids == sets["judged"].ids
    assert torch.equal(sets["blurred"].masks, sets["judged"].masks)


def test_networks_of_the_demo_learn_from_the_training_images_only(demo):
    course, study = demo
    train = course.images("train")
    assert list(study.networks) == ["AlexNet", "ResNet"] and study.taught == study.main.title
    assert trained_on(course.store.root, "fit_network") == [train.key]
    out = ("retriever", "shepherd")
    assert (
        study.left_out == out == tuple(sorted(set(study.sets["left out"].names()), reverse=False))
    )
    rest = train.only([name for name in train.class_names if name not in out])
    assert set(trained_on(course.store.root, "fit_epochs")) == {train.key, rest.key}
    assert study.untaught.class_names == rest.class_names and len(rest.class_names) == 16
    assert study.untaught.title == "AlexNet, untaught"
    # what learns epoch by epoch ends as the network of the study
    assert [epoch.title for epoch in study.epochs] == ["epoch 1"]
    last, main = study.epochs[-1].model.state_dict(), study.main.model.state_dict()
    assert same(last, main)
    with torch.no_grad():
        logits = study.untaught.model(study.sets["left out"].to_float())
    assert logits.shape == (8, 16)


def test_the_demo_is_assembled_again_without_training(demo, monkeypatch):
    _, study = demo
    monkeypatch.setenv("COURSE_RESULTS", str(study.root.parents[1]))
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    _, again = small_demo()
    assert again.root == study.root
    assert {k: v.key for k, v in again.sets.items()} == {k: v.key for k, v in study.sets.items()}
    for title, known in study.networks.items():
        assert same(again.networks[title].model.state_dict(), known.model.state_dict())
        assert again.networks[title].made.key == known.made.key


def test_a_limit_makes_the_study_smaller(demo):
    course, study = demo
    few = assemble(replace(course, limit=30, folder=course.folder / "limited"))
    assert (few.budget.choosing, few.budget.judged, few.budget.pairs) == (18, 30, 2)
    assert max(len(images) for images in few.sets.values()) <= 30 < len(study.sets["judged"])


def test_a_profile_without_this_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match="profile 'demo' has no budget for this study"):
        assemble(course_in(tmp_path, paths=None))


def test_every_profile_has_this_study_and_starts_with_its_networks():
    for profile in PROFILES.values():
        titles = [title for title, _ in profile.paths.networks]
        assert len(set(titles)) == len(titles)
        if profile.source == "voc":
            assert sum(title.endswith("+ FC") for title in titles) == 1


# ---- photographs


def photograph(inside: tuple, outside: tuple, left: bool, rng: np.random.Generator):
    """A photograph of one object, 18 x 30 px, on the left or the right, and where it is."""
    picture, at = mottled((64, 64), outside, rng), (4 if left else 40, int(rng.integers(4, 30)))
    picture.paste(mottled((30, 18), inside, rng), at)
    return picture, (*at, at[0] + 18, at[1] + 30)


def voc_layout(root: Path, rng: np.random.Generator) -> None:
    """Six photographs of each of four classes for training and for validation, a seventh cat."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        stems = {f"{split}_{name}_{i}": name for name in SHOWN_IN for i in range(6)}
        stems |= {f"{split}_cat_6": "cat"}
        for k, (stem, name) in enumerate(stems.items()):
            picture, box = photograph(*SHOWN_IN[name], k % 2 == 0, rng)
            mask = Image.new("P", (64, 64), 0)
            mask.putpalette([value for value in range(256) for _ in range(3)])
            mask.paste(photos.VOC_CLASSES.index(name) + 1, box)
            picture.save(root / "JPEGImages" / f"{stem}.jpg", quality=95)
            mask.save(root / "SegmentationClass" / f"{stem}.png")
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems))


def salient_layout(root: Path, rng: np.random.Generator) -> None:
    root.mkdir()
    for i in range(12):
        picture, box = photograph((230, 40, 40), (120, 160, 140), i % 2 == 0, rng)
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, box)
        picture.save(root / f"{i:02d}.jpg", quality=95)
        mask.save(root / f"{i:02d}.png")


@pytest.fixture(scope="module")
def photographed(tmp_path_factory):
    """The study of the photos profile at 64 px on a handful of photographs, run to its end."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    voc_layout(root / "VOCdevkit" / "VOC2012", rng)
    salient_layout(root / "MSRA-B", rng)
    untrained_weights(root / "torch_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.setattr(parallel, "cpu_count", lambda: 1)
        some = ("default", "all of an average")  # without those that take long
        patch.setattr(study_of, "RULES", {name: RULES[name] for name in some})
        patch.setattr(study_of, "_FEW", 1)
        course = start("photos", str(root), notebook="03_cnn_backtracking")
        own = course.profile.paths
        sizes = {"choosing": 40, "judged": 6, "pairs": 3, "widths": (0.1,), "levels": (0.2, 0.5)}
        budget = replace(own, recipe=replace(own.recipe, epochs=2), **sizes)
        course.profile = replace(course.profile, size=64, paths=budget)
        course.device = CPU
        study = assemble(course)
        study.run()
        return root, course, study


def test_photographs_are_judged_with_the_profiles_networks(photographed):
    _, _, study = photographed
    assert list(study.networks) == ["SqueezeNet + FC", "SqueezeNet", "MobileNetV2"]
    assert study.taught == study.main.title == "SqueezeNet + FC"
    assert study.untaught.title == "SqueezeNet + FC, untaught"
    assert [epoch.title for epoch in study.epochs] == ["epoch 1", "epoch 2"]
    assert study.main.class_names == photos.VOC_CLASSES
    assert study.left_out == ("cat",)  # the most frequent one
    expected = [name for name in photos.VOC_CLASSES if name != "cat"]
    assert list(study.untaught.class_names) == expected
    for title in ("SqueezeNet", "MobileNetV2"):
        assert len(study.networks[title].class_names) == 1000
    assert same(study.main.model.state_dict(), study.epochs[-1].model.state_dict())
    assert study.main.made.key == study.epochs[-1].made.key


def test_photographs_are_used_once(photographed):
    root, _, study = photographed
    sets = {name: set(images.ids) for name, images in study.sets.items()}
    files = {file.name for file in (root / "MSRA-B").glob("*.jpg")}
    assert len(sets["choosing"]) == 4 and len(sets["judged"]) == 6  # a third, where there are few
    assert sets["choosing"] | sets["judged"] < files and not sets["choosing"] & sets["judged"]
    assert not pictures_of(study.sets["choosing"]) & pictures_of(study.sets["judged"])
    for name in ("taught", "pairs: first", "pairs: second", "left out"):
        assert all(i.startswith("val_") for i in sets[name])
    assert sets["left out"] == {f"val_cat_{i}" for i in range(7)}
    pairs = study.sets["pairs: first"], study.sets["pairs: second"]
    assert len(pairs[0]) == 3 and (pairs[0].labels != pairs[1].labels).all()
    assert len(sets["taught"]) == 4  # 6 wanted of four classes: one of each


def test_only_the_new_top_has_learned_and_from_voc_alone(photographed):
    root, course, study = photographed
    train = photos.voc(root, split="train", size=64).images
    rest = train.only([name for name in train.class_names if name != "cat"])
    assert set(trained_on(course.store.root, "fit_epochs")) == {train.key, rest.key}
    assert not trained_on(course.store.root, "fit_network")
    found = course.pretrained("SqueezeNet1_0_Weights.IMAGENET1K_V1")
    given = found.model.network.features.state_dict()
    first, last = study.epochs[0].model.network, study.epochs[-1].model.network
    for network in (first, last, study.untaught.model.network):
        assert same(network.features.state_dict(), given)
    start_from = models.with_fully_connected(found.model, 20, seed=0).network.top.state_dict()
    tops = [start_from, first.top.state_dict(), last.top.state_dict()]
    for name in start_from:
        assert not torch.equal(tops[0][name], tops[1][name])
        assert not torch.equal(tops[1][name], tops[2][name])
    assert same(study.networks["SqueezeNet"].model.state_dict(), found.model.state_dict())
    assert study.networks["SqueezeNet"].made.key == found.sha256


def test_photographs_are_followed_and_scored_to_the_end(photographed):
    _, _, study = photographed
    follows = study.follows()
    for title in (*study.networks, "untrained", study.untaught.title):
        assert any(follow.network == title for follow in follows)
    for follow in follows:
        pixels = study.pixels(follow)
        assert len(pixels) == len(study.sets[follow.images]) and pixels.isfinite().all()
    assert (study.pixels(Follow(study.main.title, "judged")).sum((1, 2)) > 0).any()
    table = study_of.compared(study, study_of.rivals(study))
    assert list(table.index) == ["backtracking", *METHODS, *BLIND]
    assert table["F_beta"].notna().all()
    averaged = [f"{title}, all of an average" for title in ("SqueezeNet", "MobileNetV2")]
    assert set(study_of.by_network(study).index) == {*study.networks, *averaged, "untrained"}
    assert study_of.learning(study).shape[1] == 1 + len(study.epochs)
    assert study_of.by_part(study, study.main.title).empty
    table, marks = study_of.steps(study, study_of.some_rows(study, 4))
    assert table[0].shape == (4, 6, 3, 64, 64) and set(table[1]) == {"object"}


def test_photographs_without_a_salient_object_set_are_asked_for(photographed, tmp_path):
    root, course, _ = photographed
    (tmp_path / "VOCdevkit").symlink_to(root / "VOCdevkit")
    with pytest.raises(photos.MissingDataset, match="MSRA-B.* is not under"):
        assemble(replace(course, data_root=tmp_path))
