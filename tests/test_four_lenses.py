"""The four lenses: maps counted by hand, correlations as scipy has them, intervals that hold."""

import math
from collections import OrderedDict
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from scipy.stats import spearmanr
from torch import nn

from helpers import backtracking as bt
from helpers import crisp_masks as cm
from helpers import four_lenses as fl
from helpers.feature_visualization import Ascent
from helpers.models import Normalised, build
from helpers.saliency import grad_cam, last_maps

FEW = cm.Schedule(smooth=cm.Phase(7, 0.01, 1e-4, 0.0), crisp=cm.Phase(4, 0.01, 1.0, 2.0))


def pictures(n: int = 3, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seeded(network: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in network.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return network


def tiny(normalised: bool = True) -> nn.Module:
    """Two convolutions and two classes."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    seeded(network)
    if not normalised:
        return network
    return nn.Sequential(OrderedDict(normalise=Normalised(), network=network))


def colours() -> nn.Sequential:
    """A network whose last maps are the picture's own colours, at every pixel."""
    same = nn.Conv2d(3, 3, 1, bias=False)
    last = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        same.weight.copy_(torch.eye(3)[:, :, None, None])
        last.weight.copy_(torch.tensor([[5.0, 0, 0], [0, 5, 0]]))
    network = nn.Sequential(same, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    plain = Normalised((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return nn.Sequential(OrderedDict(normalise=plain, network=network)).eval()


def half_red_half_green() -> torch.Tensor:
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :, :2] = 1
    image[:, 1, :, 2:] = 1
    return image


# ---- lens 1


def test_a_position_is_as_alike_as_the_angle_of_its_features():
    image = half_red_half_green()
    red, yellow = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    red[0], yellow[:2] = 1, 0.5
    paintings = torch.stack([red, yellow])
    of_red = fl.resemblance(colours(), image, torch.tensor([0]), paintings)[0]
    assert (of_red[:, :2] == 1).all() and (of_red[:, 2:] == 0).all()
    of_yellow = fl.resemblance(colours(), image, torch.tensor([1]), paintings)[0]
    torch.testing.assert_close(of_yellow, torch.full((4, 4), 0.5**0.5))


def test_each_image_is_held_against_its_own_painting():
    image = half_red_half_green().repeat(2, 1, 1, 1)
    red, green = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    red[0], green[1] = 1, 1
    found = fl.resemblance(colours(), image, torch.tensor([1, 0]), torch.stack([red, green]))
    assert (found[0, :, 2:] == 1).all() and (found[0, :, :2] == 0).all()
    assert (found[1, :, :2] == 1).all() and (found[1, :, 2:] == 0).all()


def test_nothing_resembles_an_empty_painting():
    found = fl.resemblance(
        colours(), half_red_half_green(), torch.tensor([0]), torch.zeros(1, 3, 4, 4)
    )
    assert (found == 0).all()


def test_a_target_needs_a_painting():
    with pytest.raises(ValueError, match="1 paintings"):
        fl.resemblance(colours(), half_red_half_green(), torch.tensor([1]), torch.zeros(1, 3, 4, 4))


# ---- lens 2


def test_slices_end_where_the_whole_descent_does():
    model, images, targets = tiny(), pictures(), torch.tensor([0, 1, 1])
    whole = cm.crisp_masks(model, images, targets, FEW)
    slices = list(fl.mask_slices(model, images, targets, FEW, every=3))
    assert [round(11 * share) for share, _ in slices] == [3, 6, 7, 10, 11]
    torch.testing.assert_close(slices[2][1], 1 - whole.smooth, atol=1e-3, rtol=0)
    torch.testing.assert_close(slices[-1][1], 1 - whole.crisp, atol=1e-3, rtol=0)
    assert not torch.equal(slices[0][1], slices[1][1])


def test_who_stops_asking_finds_the_model_as_it_was():
    model = tiny().train()
    slices = fl.mask_slices(model, pictures(), torch.zeros(3, dtype=torch.long), FEW, every=1)
    next(slices)
    slices.close()
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_slices_refuse_what_they_cannot_do():
    model, images, targets = tiny(), pictures(1), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="at least 1 step"):
        next(fl.mask_slices(model, images, targets, FEW, every=0))
    with pytest.raises(ValueError, match="shift"):
        next(fl.mask_slices(model, images, targets, cm.SCHEDULES["iebb"]))
    with pytest.raises(ValueError, match="outputs 0 to 1"):
        next(fl.mask_slices(model, images, torch.tensor([2]), FEW))


def test_slices_without_a_finite_loss_end_with_a_word():
    model = tiny()
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        next(fl.mask_slices(model, pictures(), torch.zeros(3, dtype=torch.long), FEW))


# ---- lenses 3 and 4


def test_points_and_cam_are_the_papers_own():
    model, images, targets = tiny(), pictures(size=20), torch.tensor([1, 0, 1])
    pixels = bt.backtrack(model, images, targets).float()
    assert torch.equal(fl.paths(model, images, targets, 0.1), bt.attention(pixels, 2.0))
    by_hand = grad_cam(model, images, targets, last_maps(model, images))
    assert torch.equal(fl.cam(model, images, targets), by_hand)


def test_no_image_gives_no_map():
    model, none = tiny(), torch.zeros(0, 3, 16, 16)
    targets = torch.zeros(0, dtype=torch.long)
    assert fl.resemblance(model, none, targets, pictures(2)).shape == (0, 16, 16)
    assert fl.cam(model, none, targets).shape == (0, 16, 16)
    assert fl.paths(model, none, targets).shape == (0, 16, 16)


def slowly(model, images, targets, others, side, stride):
    """Patch by patch, pixel by pixel."""
    n, _, h, w = images.shape
    maps = torch.zeros(n, h, w)
    ys = sorted({*range(0, h - side + 1, stride), h - side})
    xs = sorted({*range(0, w - side + 1, stride), w - side})

    def chance(image, target):
        with torch.no_grad():
            return float(model(image[None]).softmax(1)[0, target])

    for i in range(n):
        total, count = torch.zeros(h, w), torch.zeros(h, w)
        for y in ys:
            for x in xs:
                falls = []
                for donor in others[i]:
                    altered = images[i].clone()
                    altered[:, y : y + side, x : x + side] = donor[:, y : y + side, x : x + side]
                    falls.append(chance(images[i], targets[i]) - chance(altered, targets[i]))
                total[y : y + side, x : x + side] += sum(falls) / len(falls)
                count[y : y + side, x : x + side] += 1
        mean = (total / count.clamp(min=1)).clamp(min=0)
        maps[i] = mean / mean.max() if mean.max() > 0 else mean
    return maps


@pytest.mark.parametrize(("side", "stride", "batch"), [(4, 2, 5), (5, 3, 256), (3, 4, 7)])
def test_exchanged_patches_against_a_slow_reference(side, stride, batch):
    model, images = tiny().eval(), pictures(2, 10)
    others = torch.rand(2, 3, 3, 10, 10, generator=torch.Generator().manual_seed(4))
    targets = torch.tensor([1, 0])
    found = fl.exchanged(model, images, targets, others, side=side, stride=stride, batch_size=batch)
    expected = slowly(model, images, targets, others, side, stride)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_only_what_the_class_needs_is_missed():
    image = half_red_half_green()  # class 0 is red
    others = torch.zeros(1, 1, 3, 4, 4)
    found = fl.exchanged(colours(), image, torch.tensor([0]), others, side=1, stride=1)[0]
    torch.testing.assert_close(found[:, :2], torch.ones(4, 2), atol=1e-5, rtol=0)
    assert (found[:, 2:] == 0).all()  # without green, red becomes likelier


def test_the_same_patches_change_nothing():
    images = pictures(2)
    targets = torch.tensor([0, 1])
    found = fl.exchanged(tiny(), images, targets, images[:, None], side=4)
    assert (found == 0).all()


def test_patches_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    model, images, targets = tiny(), pictures(2), torch.tensor([0, 1])
    for side, stride in ((17, 1), (0, 1), (4, 0)):
        with pytest.raises(ValueError, match="do not fit"):
            fl.exchanged(model, images, targets, images[:, None], side=side, stride=stride)
    with pytest.raises(ValueError, match="other image"):
        fl.exchanged(model, images, targets, images[:, None][:, :0], side=4)
    with pytest.raises(ValueError, match="1 targets"):
        fl.exchanged(model, images, targets[:1], images[:, None], side=4)


# ---- comparing maps


def test_on_the_object_beyond_its_area():
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[:, :2, :2] = True  # a quarter
    maps = torch.stack([mask[0].float(), torch.ones(4, 4), (~mask[0]).float(), torch.zeros(4, 4)])
    found = fl.beyond_area(maps, mask)
    assert found[:3].tolist() == [75, 0, -25] and math.isnan(found[3])


def test_agreement_is_spearmans_of_the_cells():
    a, b = torch.rand(2, 5, 12, 12, generator=torch.Generator().manual_seed(1)).unbind()
    found = fl.agreement(a, b, cells=4)
    for k in range(5):
        cells = [m[k].view(4, 3, 4, 3).mean((1, 3)).flatten().numpy() for m in (a, b)]
        assert found[k] == pytest.approx(spearmanr(*cells).statistic, abs=1e-9)


def test_a_map_without_contrast_agrees_with_nothing():
    flat, other = torch.ones(2, 8, 8), pictures(2, 8)[:, 0]
    assert fl.agreement(flat, other).isnan().all() and fl.agreement(other, flat).isnan().all()


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_agreement_is_symmetric_and_perfect_with_itself(seed):
    a, b = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(seed)).unbind()
    assert torch.equal(fl.agreement(a, b), fl.agreement(b, a))
    torch.testing.assert_close(fl.agreement(a, a), torch.ones(2).double())
    torch.testing.assert_close(fl.agreement(a, 1 - a), -torch.ones(2).double())
    assert (fl.agreement(a, b).abs() <= 1 + 1e-12).all()


def test_other_images_maps_one_by_one():
    a, b = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(2)).unbind()
    b[3] = 0.5  # without contrast: left out
    found = fl.with_others(fl.cell_ranks(a), fl.cell_ranks(b))
    for i in range(4):
        others = [fl.agreement(a[i : i + 1], b[j : j + 1]) for j in range(3) if j != i]
        assert found[i] == pytest.approx(float(torch.cat(others).mean()), abs=1e-12)
    assert fl.with_others(fl.cell_ranks(a[:1]), fl.cell_ranks(b[:1])).isnan().all()


def test_products_of_ranks_are_the_agreement():
    a, b = torch.rand(2, 4, 12, 12, generator=torch.Generator().manual_seed(3)).unbind()
    a[2] = 1
    found = (fl.cell_ranks(a, 6) * fl.cell_ranks(b, 6)).sum(1)
    torch.testing.assert_close(found, fl.agreement(a, b, 6), equal_nan=True)
    assert found.isnan().tolist() == [False, False, True, False]


# ---- few networks


@pytest.mark.parametrize("n", [3, 4, 6])
def test_exact_p_counts_all_orders(n):
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 5, n).astype(float), rng.random(n)
    x[0] = 9  # varies
    found = fl.rank_correlation(x, y)
    expected = spearmanr(x, y).statistic
    every = [spearmanr(x, y[list(order)]).statistic for order in permutations(range(n))]
    assert found.rho == pytest.approx(expected) and found.exact and found.n == n
    assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(expected) - 1e-9))


def test_three_in_order_prove_nothing():
    found = fl.rank_correlation([1, 2, 3], [10, 20, 30])
    assert found.rho == pytest.approx(1) and found.p == pytest.approx(2 / 6)


def test_what_the_claims_say_of_seven_training_sets():
    """0.79 is the smallest correlation that the exact test tells from 0 at 5 %."""
    ps = {}
    for order in permutations(range(7)):
        if order[0] > 2:
            continue  # enough orders to meet every value near the border
        rho = round(1 - 6 * sum((k - o) ** 2 for k, o in enumerate(order)) / (7 * 48), 3)
        if 0.74 < rho < 0.83 and rho not in ps:
            ps[rho] = fl.rank_correlation(range(7), order).p
    assert all((p < 0.05) == (rho >= 0.78) for rho, p in ps.items()) and len(ps) >= 3


def test_many_points_are_drawn():
    rng = np.random.default_rng(0)
    x = rng.random(30)
    found = fl.rank_correlation(x, x + rng.random(30))
    expected = spearmanr(x, found.rho * x).statistic
    assert not found.exact and expected == pytest.approx(1) and found.p < 0.01


def test_no_spread_no_correlation():
    found = fl.rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])
    assert math.isnan(found.rho) and math.isnan(found.p)


@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, math.nan],) * 2])
def test_too_little_to_correlate(pair):
    with pytest.raises(ValueError, match="three pairs"):
        fl.rank_correlation(*pair)


def test_mutual_is_the_mean_over_pairs():
    table = np.random.default_rng(1).random((6, 3))
    expected = np.mean(
        [spearmanr(table[:, a], table[:, b])[0] for a, b in ((0, 1), (0, 2), (1, 2))]
    )
    assert fl.mutual(*table.T) == pytest.approx(expected)
    assert fl.mutual(table[:, 0], np.ones(6)) == 0
    assert fl.mutual([1, 2, 3, 4], [2, 4, 1, 3]) == 0  # exactly, as a claim's rule reads it
    with pytest.raises(ValueError, match="two columns"):
        fl.mutual(table[:, 0])


# ---- few networks and few images


def test_equal_values_leave_no_doubt():
    found = fl.over_networks_and_images(torch.full((4, 5), 0.25), list("aabb"), resamples=50)
    assert found == (0.25, 0.25, 0.25)


def test_networks_trained_alike_are_no_independent_draws():
    """Ten networks of each of two groups know two numbers, not twenty."""
    values = torch.cat([torch.zeros(10, 6), torch.ones(10, 6)])
    grouped = fl.over_networks_and_images(values, ["a"] * 10 + ["b"] * 10)
    alone = fl.over_networks_and_images(values, list(range(20)))
    assert grouped == (0.5, 0, 1)
    assert 0.2 < alone[1] < 0.4 and 0.6 < alone[2] < 0.8


def test_all_networks_see_the_same_images():
    """More networks do not make up for few images."""
    row = torch.tensor([0.0, 0, 1, 1])
    many = fl.over_networks_and_images(row.repeat(50, 1), list(range(50)))
    assert many[0] == 0.5 and many[1] <= 0.05 and many[2] >= 0.95


def test_the_interval_against_a_slow_bootstrap():
    rng = np.random.default_rng(5)
    values, groups = rng.random((5, 7)), ["a", "a", "b", "c", "c"]
    values[1, 2] = np.nan
    members, means = ([0, 1], [2], [3, 4]), []
    for _ in range(4_000):
        networks = [
            k for g in rng.integers(3, size=3) for k in rng.choice(members[g], len(members[g]))
        ]
        images = rng.integers(7, size=7)
        means.append(np.nanmean(values[networks][:, images]))
    found = fl.over_networks_and_images(torch.from_numpy(values).float(), groups, resamples=4_000)
    assert found[0] == pytest.approx(np.nanmean(values))
    assert found[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_members_are_drawn_with_their_group():
    times = fl.times_drawn(list("aabcc"), 200, np.random.default_rng(0))
    of_groups = np.stack([times[:, :2].sum(1) / 2, times[:, 2], times[:, 3:].sum(1) / 2], 1)
    assert (of_groups == of_groups.round()).all() and (of_groups.sum(1) == 3).all()
    assert np.abs(times.mean(0) - 1).max() < 0.25 and times[:, 0].std() > 0.5


def test_nothing_defined_is_no_number():
    found = fl.over_networks_and_images(torch.full((2, 3), torch.nan), ["a", "b"])
    assert all(math.isnan(value) for value in found)
    with pytest.raises(ValueError, match="1 groups"):
        fl.over_networks_and_images(torch.zeros(2, 3), ["a"])


# ---- any network


def test_any_network_through_all_lenses():
    said = []
    found = fl.look(
        tiny(),
        pictures(),
        ("cat", "dog"),
        schedule=FEW,
        ascent=Ascent(steps=3),
        progress=said.append,
    )
    assert list(found.maps) == list(fl.LENSES) and not found.missing
    for maps in found.maps.values():
        assert maps.shape == (3, 16, 16) and maps.min() >= 0 and maps.max() <= 1
    answers = tiny().eval()(pictures()).softmax(1)
    assert torch.equal(found.targets, answers.argmax(1))
    torch.testing.assert_close(found.probability, answers.max(1).values)
    assert found.names == tuple(("cat", "dog")[k] for k in found.targets)
    assert set(found.paintings) == set(found.targets.tolist())
    assert said == ["painting", *fl.LENSES]


def test_a_class_can_be_asked_for():
    asked = torch.tensor([1, 0, 1])
    how = {"schedule": None, "ascent": Ascent(steps=2)}
    found = fl.look(tiny(), pictures(), ("cat", "dog"), targets=asked, **how)
    assert torch.equal(found.targets, asked) and fl.MASK in found.missing
    assert torch.equal(found.maps[fl.CAM], fl.cam(tiny(), pictures(), asked))
    painted = torch.stack([found.paintings[0], found.paintings[1]])
    expected = fl.resemblance(tiny(), pictures(), asked, painted)
    torch.testing.assert_close(found.maps[fl.PAINTING], expected)


def test_a_bare_network_gets_imagenets_normalisation():
    how = {"schedule": None, "ascent": Ascent(steps=2)}
    bare = fl.look(tiny(normalised=False), pictures(), ("cat", "dog"), **how)
    with_it = fl.look(tiny(), pictures(), ("cat", "dog"), **how)
    for lens in bare.maps:
        assert torch.equal(bare.maps[lens], with_it.maps[lens])


def test_a_lens_that_fails_leaves_the_others(monkeypatch):
    def fails(*_):
        raise FloatingPointError("the loss of images [0] is not finite")

    monkeypatch.setattr(fl.cm, "crisp_masks", fails)
    found = fl.look(tiny(), pictures(), ("cat", "dog"), ascent=Ascent(steps=2))
    assert "not finite" in found.missing[fl.MASK] and fl.CAM in found.maps


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


def test_a_lens_that_cannot_look_says_so():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), Sine(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    how = {"schedule": None, "ascent": Ascent(steps=2)}
    found = fl.look(seeded(network), pictures(), ("cat", "dog"), **how)
    assert "sin" in found.missing[fl.PATHS] and fl.PATHS not in found.maps
    assert fl.CAM in found.maps


def test_a_transformer_is_no_cnn():
    from torchvision.models import VisionTransformer

    transformer = VisionTransformer(16, 4, 1, 2, 8, 16, num_classes=2)
    with pytest.raises(ValueError, match=r"VisionTransformer is no convolutional network.*1 conv"):
        fl.look(transformer, pictures(), ("cat", "dog"))
    layers = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    with pytest.raises(ValueError, match="0 convolutions"):
        fl.look(layers, pictures(), ("cat", "dog"))


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (pictures(0), ("cat", "dog"), "no image"),
        (255 * pictures(), ("cat", "dog"), "divide bytes"),
        (pictures() * torch.nan, ("cat", "dog"), "NaN"),
        (pictures(), ("cat", "dog", "eel"), "3 class names"),
    ],
)
def test_look_refuses_clearly(images, names, message):
    with pytest.raises(ValueError, match=message):
        fl.look(tiny(), images, names)


def test_images_too_small_for_the_network():
    with pytest.raises(ValueError, match="3 x 2 x 2"):
        fl.look(build("alexnet", 2, seed=0), pictures(1, 2), ("cat", "dog"))
