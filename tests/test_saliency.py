"""Saliency: maps are their formulas, image by image; scores are what counting gives."""

import copy
import math
import warnings
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.color import rgb2lab
from torch import nn

from helpers.models import Inception, Normalised, Residual, build
from helpers.saliency import (
    area_under,
    centre_gaussian,
    choose_threshold,
    colour_contrast,
    deletion_insertion,
    energy_inside,
    grad_cam,
    guided_backprop,
    input_gradient,
    last_maps,
    lrp,
    overlap,
    pointing_game,
    pooled,
    randomised,
    rank_similarity,
    thresholded,
)


def pictures(n: int = 3, size: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def tiny(inplace: bool = False, seed: int = 0) -> nn.Sequential:
    """Six maps of 6 x 6 and two classes, with a nonlinearity after the maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(inplace),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.ReLU(inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(4, 2),
        )
    return nn.Sequential(OrderedDict(normalise=Normalised(), network=network))


def formula(model: nn.Sequential, images: torch.Tensor, targets: torch.Tensor, cut: int):
    """Selvaraju's equations 1 and 2, one image at a time, for the output of layer `cut` - 1."""
    before, after = model.network[:cut].eval(), model.network[cut:].eval()
    maps = []
    for image, target in zip(images, targets.tolist(), strict=True):
        features = before(model.normalise(image[None])).detach().requires_grad_()
        (slope,) = torch.autograd.grad(after(features.clone())[0, target], features)
        total = torch.zeros(features.shape[2:])
        for k in range(features.shape[1]):
            total += slope[0, k].mean() * features[0, k].detach()
        fine = nn.functional.interpolate(total.relu()[None, None], image.shape[1:], mode="bilinear")
        maps.append(fine[0, 0] / fine.max() if fine.max() > 0 else fine[0, 0])
    return torch.stack(maps)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_against_the_formula(cut, inplace):
    model, images = tiny(inplace), pictures(6)
    targets = torch.tensor([0, 1, 0, 1, 1, 0])
    maps = grad_cam(model, images, targets, model.network[cut - 1])
    assert torch.allclose(maps, formula(tiny(), images, targets, cut), atol=1e-5)
    assert (maps.amax((1, 2)) == 1).any()
    assert not torch.equal(maps[0], grad_cam(model, images, 1 - targets, model.network[cut - 1])[0])


def test_by_hand():
    """One map that is the red channel, scored 2 x its mean by class 0 and -2 x by class 1."""
    conv, linear = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
        linear.weight.copy_(torch.tensor([[2.0], [-2.0]]))
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    model = nn.Sequential(OrderedDict(normalise=Normalised((0,) * 3, (1,) * 3), network=network))
    red = torch.tensor([[0.0, 0.2], [0.4, 0.8]])
    images = torch.stack((red, torch.ones(2, 2), torch.ones(2, 2)))[None].repeat(2, 1, 1, 1)
    maps = grad_cam(model, images, torch.tensor([0, 1]), last_maps(model, images))
    assert torch.allclose(maps[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    assert not maps[1].any()  # nothing speaks for class 1: zeros, not 0 / 0


@pytest.mark.parametrize("name", ["slim_resnet10", "slim_vgg6", "resnet18", "squeezenet1_1"])
def test_no_map_depends_on_its_batch(name):
    model, images, targets = build(name, 3, seed=0), pictures(5, 64), torch.tensor([0, 1, 2, 1, 0])
    layer = last_maps(model, images)
    together = grad_cam(model, images, targets, layer)
    apart = grad_cam(model, images, targets, layer, batch_size=2)
    alone = grad_cam(model, images[3:4], targets[3:4], layer)
    assert together.shape == (5, 64, 64)
    assert torch.allclose(together, apart, atol=1e-3)
    assert torch.allclose(together[3:4], alone, atol=1e-3)
    peaks = together.amax((1, 2))
    assert together.min() >= 0 and ((peaks == 1) | (peaks == 0)).all() and peaks.any()


def test_the_network_comes_back_as_it_was():
    model, images = tiny(inplace=True), pictures()
    model.network[2].eval()
    model.network[0].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = lambda: (  # noqa: E731
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [len(m._forward_hooks) for m in model.modules()],
    )
    expected = state()
    maps = grad_cam(model, images, torch.zeros(3, dtype=torch.int64), last_maps(model, images))
    with pytest.raises(ValueError, match="targets run from"):
        grad_cam(model, images, torch.full((3,), 2), model.network[0])
    assert state() == expected
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not maps.requires_grad and not images.requires_grad


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("slim_resnet10", "layer4"),
        ("resnet18", "layer4"),
        ("googlenet", "inception5b"),
        ("mobilenet_v2", "features"),
        ("timm:test_resnet", "layer4"),
    ],
)
def test_the_last_maps_of_known_networks(name, layer):
    model = build(name, 3, seed=0)
    assert last_maps(model, pictures(2, 64)) is model.network.get_submodule(layer)


def test_the_last_maps_follow_the_images_size():
    model = build("resnet18", 3, seed=0)
    assert last_maps(model, pictures(1, 32)) is model.network.layer3  # the last stage is 1 x 1
    assert last_maps(tiny(), pictures()).__class__ is nn.ReLU
    with pytest.raises(ValueError, match="no layer of this model has maps .* for 2 x 2 px"):
        last_maps(tiny(), pictures(1, 2))
    with pytest.raises(ValueError, match="at least one image"):
        last_maps(model, pictures(0))


def test_what_cannot_be_explained_is_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    model, images, targets = tiny(), pictures(), torch.tensor([0, 1, 0])
    layer = model.network[2]
    assert grad_cam(model, images[:0], targets[:0], layer).shape == (0, 12, 12)
    for change, says in (
        ({"targets": targets[:2]}, "2 targets for 3 images"),
        ({"targets": targets + 1}, "targets run from 1 to 2; valid are 0 to 1"),
        ({"targets": targets - 1}, "targets run from -1 to 0"),
        ({"images": images + 1}, r"outside \[0, 1\]"),
        ({"images": images * torch.nan}, r"outside \[0, 1\]"),
        ({"layer": nn.Conv2d(6, 4, 3)}, "not a part of the model"),
        ({"layer": model.network[7]}, "no positions"),
        ({"batch_size": 0}, "at least 1 image"),
    ):
        given = {"model": model, "images": images, "targets": targets, "layer": layer} | change
        with pytest.raises(ValueError, match=says):
            grad_cam(**given)
    with torch.no_grad():
        layer.weight.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="not finite"):
        grad_cam(model, images, targets, layer)


# ---------------------------------------- maps of the network

METHODS = (input_gradient, guided_backprop, lrp)


def whole(*layers: nn.Module, normalise: nn.Module | None = None) -> nn.Sequential:
    """A model of the layers, all weights and statistics random, so that nothing is 0 or 1."""
    network = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.is_floating_point():
                positive = "var" in name or (value.ndim == 1 and "weight" in name)
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(0.5 + drawn.abs() if positive else drawn / value[:1].numel() ** 0.5)
    parts = OrderedDict(normalise=normalise or Normalised(), network=network)
    return nn.Sequential(parts).eval()


def plain() -> nn.Sequential:
    """Everything the slim sequential networks have: batch norms, both orders of pool and ReLU."""
    return whole(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.MaxPool2d(2, padding=1),
        nn.ReLU(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 2),
    )


def branched() -> nn.Sequential:
    return whole(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        Residual(4, 6),
        nn.AvgPool2d(2),
        Residual(6, 6),
        Inception(6, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


CONV, END = nn.Conv2d(3, 4, 3), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def scaled(maps) -> torch.Tensor:
    return torch.stack([m / m.max() if m.max() > 0 else m for m in maps]).float()


@pytest.mark.parametrize("make", [plain, branched])
def test_the_input_gradient_is_autograds(make):
    model, images, targets = make(), pictures(3), torch.tensor([0, 1, 1])
    expected = []
    for image, target in zip(images, targets.tolist(), strict=True):
        x = image[None].clone().requires_grad_()
        model(x)[0, target].backward()
        expected.append(x.grad[0].abs().max(0).values)
    assert torch.allclose(input_gradient(model, images, targets), scaled(expected), atol=1e-5)


class Guided(torch.autograd.Function):
    """Springenberg's ReLU, written down: what was negative on either way does not pass."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(context, slope):
        (x,) = context.saved_tensors
        return slope * (x > 0) * (slope > 0)


@pytest.mark.parametrize("make", [plain, branched])
def test_guided_backprop_is_a_gradient_with_another_relu(make, monkeypatch):
    model, images, targets = make(), pictures(3), torch.tensor([0, 1, 1])
    maps = guided_backprop(model, images, targets)
    assert not torch.allclose(maps, input_gradient(model, images, targets), atol=0.1)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: Guided.apply(x))
    assert torch.allclose(maps, input_gradient(model, images, targets), atol=1e-5)


def test_guided_backprop_by_hand():
    """Two units, red - green and green - red, both weighed 1 by class 0, but 1 and -1 by class 1.

    Where red is larger, only the first unit speaks. Of class 1 the second unit's slope is negative
    and is cut, where the plain gradient keeps it.
    """
    conv, last = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -1, 0], [-1, 1, 0]]).view(2, 3, 1, 1))
        last.weight.copy_(torch.tensor([[1.0, 0.5], [1, -1]]).view(2, 2, 1, 1))
    layers = (conv, nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(*layers)
    model = nn.Sequential(OrderedDict(normalise=Normalised((0,) * 3, (1,) * 3), network=network))
    red = torch.tensor([[0.9, 0.1], [0.5, 0.6]])
    green = torch.tensor([[0.2, 0.3], [0.5, 0.9]])
    images = torch.stack((red, green, red))[None].repeat(2, 1, 1, 1)
    maps = guided_backprop(model, images, torch.tensor([0, 1]))
    assert maps.tolist() == [[[1, 0.5], [0, 0.5]], [[1, 0], [0, 0]]]
    plain_maps = input_gradient(model, images, torch.tensor([0, 1]))
    assert plain_maps.tolist() == [[[1, 0.5], [0, 0.5]], [[1, 1], [0, 1]]]


def handed_back(layer, x, relevance, positive=False):
    """Bach's equations 58 and 60 (alpha 1, beta 0) with every contribution z_ij written out."""
    slope = torch.autograd.functional.jacobian(layer, x).reshape(relevance.numel(), x.numel())
    z = slope * x.flatten()  # (outputs j, inputs i)
    z, total = (z.clamp(min=0), z.clamp(min=0).sum(1)) if positive else (z, layer(x).flatten())
    share = torch.where(total[:, None] == 0, 0, z / total[:, None])
    return (share * relevance.flatten()[:, None]).sum(0).view_as(x)


def back_through(layers, x, relevance_of):
    """The relevance of x, from a function that gives that of the output of all layers."""
    if not layers:
        return relevance_of(x)
    layer, *rest = layers
    if isinstance(layer, Residual):
        inner = nn.Sequential(layer.conv1, layer.bn1, layer.relu1, layer.conv2, layer.bn2)
        a, b = inner(x), layer.shortcut(x)
        r = back_through([nn.ReLU(), *rest], a + b, relevance_of)
        via_inner = back_through(list(inner), x, lambda _: r * a / (a + b))
        return via_inner + back_through(list(layer.shortcut), x, lambda _: r * b / (a + b))
    if isinstance(layer, Inception):
        branches = [layer.one, layer.three, layer.five, layer.pool]
        outputs = [branch(x) for branch in branches]
        r = back_through(rest, torch.cat(outputs, 1), relevance_of)
        parts = r.split([output.shape[1] for output in outputs], 1)
        return sum(
            back_through(list(branch), x, lambda _, part=part: part)
            for branch, part in zip(branches, parts, strict=True)
        )
    if rest and isinstance(rest[0], nn.BatchNorm1d | nn.BatchNorm2d):
        layer, rest = nn.Sequential(layer, rest[0]), rest[1:]
    y = layer(x.clone())
    r = back_through(rest, y, relevance_of)
    if isinstance(layer, nn.ReLU | nn.Dropout):
        return r
    first = layer[0] if isinstance(layer, nn.Sequential) else layer
    return handed_back(layer, x, r, positive=isinstance(first, nn.Conv2d))


@pytest.mark.parametrize("make", [plain, branched])
def test_relevance_is_handed_back_as_bach_writes_it(make):
    model, images, targets = make(), pictures(2, 8), torch.tensor([0, 1])
    exact, expected = copy.deepcopy(model).double(), []
    for image, target in zip(images.double(), targets.tolist(), strict=True):
        x = exact.normalise(image[None]).detach()
        chosen = nn.functional.one_hot(torch.tensor([target]), 2)
        with torch.no_grad():
            relevance = back_through(list(exact.network), x, lambda y, c=chosen: y * c)
        expected.append(relevance[0].sum(0).clamp(min=0))
    maps = lrp(model, images, targets)
    assert torch.allclose(maps, scaled(expected), atol=2e-3)
    assert maps.amax((1, 2)).tolist() == [1, 1] and (maps > 0.01).float().mean() > 0.1
    assert not torch.allclose(maps, input_gradient(model, images, targets), atol=0.1)


class Spelled(nn.Module):
    """The same layers with one ReLU for all, functions, and a sum in place."""

    def __init__(self, conv, relu, block, pool, flatten, linear) -> None:
        super().__init__()
        self.conv, self.relu, self.block = conv, relu, block
        self.pool, self.linear = pool, linear

    def forward(self, x):
        x = self.relu(self.conv(x))
        y = self.relu(self.block.bn1(self.block.conv1(x)))
        y = self.block.bn2(self.block.conv2(y))
        y += x
        return self.linear(self.pool(nn.functional.relu(y, inplace=True)).flatten(1))


def test_relevance_does_not_depend_on_how_a_network_is_written():
    relu = nn.ReLU(inplace=True)
    modules = whole(nn.Conv2d(3, 4, 3), relu, Residual(4, 4), *END)
    spelled = Spelled(*modules.network)
    functions = nn.Sequential(OrderedDict(normalise=Normalised(), network=spelled)).eval()
    images, targets = pictures(), torch.tensor([0, 1, 0])
    assert torch.allclose(modules(images), functions(images), atol=1e-5)
    expected = lrp(modules, images, targets)
    assert torch.allclose(lrp(functions, images, targets), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["slim_alexnet", "slim_vgg6", "slim_resnet10", "slim_googlenet"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_the_courses_networks_image_by_image(method, name):
    model, images = build(name, 3, seed=0), pictures(4, 32)
    targets = torch.tensor([0, 1, 2, 1])
    together = method(model, images, targets)
    assert together.shape == (4, 32, 32) and together.isfinite().all() and together.min() >= 0
    peaks = together.amax((1, 2))
    assert ((peaks == 1) | (peaks == 0)).all() and peaks.any()
    assert torch.allclose(together, method(model, images, targets, batch_size=2), atol=1e-3)
    assert torch.allclose(together[3:4], method(model, images[3:4], targets[3:4]), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_refuses_what_it_cannot_explain(method, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    model, images, targets = plain(), pictures(), torch.tensor([0, 1, 0])
    assert method(model, images[:0], targets[:0]).shape == (0, 12, 12)
    for change, says in (
        ({"targets": targets[:2]}, "2 targets for 3 images"),
        ({"targets": targets + 1}, "targets run from 1 to 2; valid are 0 to 1"),
        ({"images": images + 1}, r"outside \[0, 1\]"),
        ({"batch_size": 0}, "at least 1 image"),
    ):
        given = {"model": model, "images": images, "targets": targets} | change
        with pytest.raises(ValueError, match=says):
            method(**given)
    with torch.no_grad():
        model.network[0].weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        method(model, images, targets)


class Fails(nn.Sequential):
    """`plain`, which breaks where a gradient is asked for, if so wished."""

    def __init__(self, fail: bool) -> None:
        super().__init__(OrderedDict(plain().named_children()))
        self.fail = fail

    def forward(self, x):
        y = super().forward(x)
        if self.fail and y.requires_grad:
            raise RuntimeError("out of memory")
        return y


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_network_as_it_was(method, fail):
    model, images, targets = Fails(fail), pictures(), torch.tensor([0, 1, 0])
    model.train()
    model.network[4].eval()
    model.network[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = lambda: (  # noqa: E731
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        [sorted(vars(m)) for m in model.modules()],
    )
    expected = state()
    if fail and method is not lrp:  # which walks its own copy of the network
        with pytest.raises(RuntimeError, match="out of memory"):
            method(model, images, targets)
    else:
        maps = method(model, images, targets)
        assert not maps.requires_grad
    assert state() == expected and not images.requires_grad
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(nn.functional.relu(self.conv(x)).amax((2, 3)))


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((CONV, nn.GELU(), *END), "no rule for GELU"),
        ((CONV, nn.ReLU(), nn.BatchNorm2d(4), *END), "no rule for BatchNorm2d"),
        ((Functional(),), "no rule for amax"),
        ((CONV, nn.Conv2d(4, 4, 3), nn.ReLU(), *END), "Conv2d where its input has negatives"),
        ((CONV, nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Identity(), nn.ReLU(), *END), None),
        ((nn.AvgPool2d(2), CONV, nn.ReLU(), *END), "first layer must be a Conv2d, not _0"),
        ((nn.Flatten(), nn.Linear(432, 2)), "first layer must be a Conv2d"),
        ((Undecided(), CONV, *END), "torch.fx can trace"),
    ],
)
def test_relevance_names_the_layer_it_has_no_rule_for(layers, says):
    model, images, targets = whole(*layers), pictures(), torch.tensor([0, 1, 0])
    if says is None:
        assert lrp(model, images, targets).any()
        return
    with pytest.raises(ValueError, match=says):
        lrp(model, images, targets)


def test_relevance_refuses_a_layer_that_runs_twice_and_a_model_without_normalisation():
    twice = nn.Conv2d(4, 4, 1)
    model = whole(nn.Conv2d(3, 4, 3), nn.ReLU(), twice, nn.ReLU(), twice, nn.ReLU(), *END)
    images, targets = pictures(), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="no rule for Conv2d that runs again"):
        lrp(model, images, targets)
    with pytest.raises(ValueError, match="no layer `normalise`"):
        lrp(model.network, images, targets)
    with pytest.raises(ValueError, match="no nn.ReLU to guide"):
        guided_backprop(whole(Functional()), images, targets)


# ---------------------------------------- maps that know no network


def test_the_bump_is_round_central_and_a_quarter_of_the_shorter_side_wide():
    maps = centre_gaussian(2, 9, 13)
    assert torch.equal(maps[0], maps[1]) and maps[0, 4, 6] == 1 and maps.shape == (2, 9, 13)
    assert maps[0, 4, 9].item() == pytest.approx(math.exp(-(3**2) / (2 * 2.25**2)))
    assert maps[0, 1, 6] == maps[0, 4, 9] == maps[0, 4, 3]
    assert torch.equal(maps, maps.flip(1, 2))
    assert centre_gaussian(1, 8, 8).max() == 1  # no pixel is at the centre
    assert centre_gaussian(0, 4, 4).shape == (0, 4, 4)


def test_colour_contrast_literally():
    image = pictures(1, 6)
    lab = rgb2lab(image[0].permute(1, 2, 0).double().numpy())
    expected = np.zeros((6, 6))
    weights = [1, 4, 6, 4, 1]
    for y in range(6):
        for x in range(6):
            blurred = np.zeros(3)
            for down in range(-2, 3):
                for right in range(-2, 3):
                    there = lab[min(max(y + down, 0), 5), min(max(x + right, 0), 5)]
                    blurred += weights[down + 2] * weights[right + 2] / 256 * there
            expected[y, x] = np.sqrt(((blurred - lab.mean((0, 1))) ** 2).sum())
    maps = colour_contrast(torch.cat([pictures(2, 6)[1:], image]))
    assert np.allclose(maps[1], expected / expected.max(), atol=1e-5)
    assert maps.dtype == torch.float32 and maps.amax((1, 2)).tolist() == [1, 1]


def test_an_image_of_one_colour_has_no_contrast():
    flat = torch.tensor([0.3, 0.6, 0.1]).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    odd = flat.clone()
    odd[..., 2, 3] = 1
    maps = colour_contrast(torch.cat([flat, odd]))
    assert not maps[0].any() and maps[1].argmax() == 2 * 7 + 3
    assert colour_contrast(flat[:0]).shape == (0, 5, 7)


# ---------------------------------------- agreement with true masks


@st.composite
def masks(draw):
    """Predicted and true masks; no true one is empty."""
    n, h, w = (draw(st.integers(1, 4)) for _ in range(3))
    bits = st.lists(st.booleans(), min_size=h * w, max_size=h * w)
    predicted, truth = ([draw(bits) for _ in range(n)] for _ in range(2))
    for row in truth:
        row[draw(st.integers(0, h * w - 1))] = True
    return [torch.tensor(mask).view(n, h, w) for mask in (predicted, truth)]


def counted(predicted, truth):
    """Each measure by its textbook definition, from plain counts."""
    pairs = list(zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True))
    tp, fp = pairs.count((True, True)), pairs.count((True, False))
    fn, tn = pairs.count((False, True)), pairs.count((False, False))
    precision, recall = tp / (tp + fp) if tp + fp else 0.0, tp / (tp + fn)
    weighed = lambda b2: (  # noqa: E731
        (1 + b2) * precision * recall / (b2 * precision + recall) if tp else 0.0
    )
    return {
        "accuracy": (tp + tn) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": weighed(1),
        "f_beta": weighed(0.3),
        "iou": tp / (tp + fp + fn),
    }


@settings(max_examples=40)
@given(masks())
def test_overlap_is_what_counting_gives(both):
    predicted, truth = both
    measured = overlap(predicted, truth)
    for i in range(len(truth)):
        row = {name: values[i].item() for name, values in measured.items()}
        assert row == pytest.approx(counted(predicted[i], truth[i]), abs=1e-12)
    assert pooled(predicted, truth) == pytest.approx(counted(predicted, truth), abs=1e-12)
    assert all(torch.allclose(v, torch.ones_like(v)) for v in overlap(truth, truth).values())


def test_overlap_by_hand_and_with_nothing_there():
    predicted = torch.tensor([[[1, 1, 1, 0]], [[0, 0, 0, 0]]]).bool()
    truth = torch.tensor([[[0, 1, 1, 1]], [[1, 0, 0, 0]]]).bool()
    measured = {name: values.tolist() for name, values in overlap(predicted, truth).items()}
    thirds = pytest.approx([2 / 3, 0])
    assert measured == {
        "accuracy": [0.5, 0.75],
        "precision": thirds,
        "recall": thirds,
        "f1": thirds,
        "f_beta": thirds,
        "iou": [0.5, 0],
    }
    assert pooled(predicted, truth)["recall"] == 0.5
    assert pooled(predicted, truth & predicted)["recall"] == 1  # an image without an object is fine
    with pytest.raises(ValueError, match="the true mask is empty in row 1"):
        overlap(predicted, truth & predicted)
    with pytest.raises(ValueError, match="true mask is empty"):
        pooled(predicted, truth & False)


def test_thresholds_are_shares_of_each_maps_own_maximum():
    maps = torch.tensor([[[0.0, 1, 2, 4]], [[0.0, 0.1, 0.2, 0.4]], [[0.0, 0, 0, 0]]])
    kept = {level: thresholded(maps, level).sum((1, 2)).tolist() for level in (0, 0.25, 0.5, 1)}
    assert kept == {0: [4, 4, 0], 0.25: [3, 3, 0], 0.5: [2, 2, 0], 1: [1, 1, 0]}
    for level in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share of the maximum"):
            thresholded(maps, level)


def test_the_chosen_threshold_has_the_best_mean_and_is_the_lowest_of_equals():
    maps = torch.tensor([[[0.1, 0.5, 0.6, 1]], [[0.1, 0.2, 0.9, 1]]])
    truth = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 1, 1]]]).bool()
    levels = [0.9, 0.45, 0.3, 0.0]
    assert choose_threshold(maps, truth, levels) == 0.3  # as good as 0.45: both perfect
    assert choose_threshold(maps, truth, levels, measure="recall") == 0.0
    assert choose_threshold(maps, truth, [0.9, 0.7], measure="precision") == 0.7
    with pytest.raises(ValueError, match="at least one level and one image"):
        choose_threshold(maps, truth, [])
    with pytest.raises(ValueError, match="at least one level and one image"):
        choose_threshold(maps[:0], truth[:0], levels)
    with pytest.raises(KeyError, match="dice"):
        choose_threshold(maps, truth, levels, measure="dice")


def test_the_pointing_game():
    maps = torch.zeros(5, 3, 4)
    maps[0, 1, 1] = 0.5  # on the object
    maps[1, 0, 0] = 1  # diagonally beside it
    maps[2, 1, 1] = maps[2, 1, 2] = maps[2, 2, 3] = maps[2, 0, 3] = 2  # two of four maxima on it
    maps[3, 0, 3] = 1  # two pixels away
    truth = torch.zeros(5, 3, 4, dtype=torch.bool)
    truth[:, 1, 1:3] = True
    truth[3] = False
    truth[3, 1, 1] = True
    assert pointing_game(maps, truth).tolist() == [1, 0, 0.5, 0, 0]
    assert pointing_game(maps, truth, tolerance=1).tolist() == [1, 1, 1, 0, 0]
    assert pointing_game(maps, truth, tolerance=2).tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="empty in row 0, 1, 2, 3, 4"):
        pointing_game(maps, truth & False)
    with pytest.raises(ValueError, match="0 pixels or more"):
        pointing_game(maps, truth, tolerance=-1)


def test_the_energy_inside_is_a_share_of_the_sum():
    maps = torch.tensor([[[1.0, 2, 5]], [[0, 0, 0]], [[1, 1, 1]]])
    truth = torch.tensor([[[0, 1, 1]], [[1, 1, 1]], [[0, 0, 0]]]).bool()
    inside = energy_inside(maps, truth)
    assert inside[0] == 7 / 8 and inside[1].isnan() and inside[2] == 0


# ---------------------------------------- deletion and insertion


def red_counter(weight: float = 6.0) -> nn.Sequential:
    """Class 1's probability is sigmoid(weight x the mean of red above 0.25, the mean colour)."""
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0, 0], [weight, 0, 0]]))
        linear.bias.zero_()
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    normalise = Normalised((0.25,) * 3, (0.5,) * 3)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network))


def test_deletion_takes_the_highest_first_and_leaves_the_mean_colour():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[1.0, 0.5], [0.25, 0.75]])
    maps = torch.tensor([[[0.9, 0.1], [0.2, 0.5]]])  # first 1.0, then 0.75, 0.25, 0.5
    deletion, insertion = deletion_insertion(red_counter(), images, torch.tensor([1]), maps, 4)
    above = torch.tensor([0.75 + 0.25 + 0 + 0.5, 0.25 + 0 + 0.5 - 0.25, 0.25, 0.25, 0])
    above[1] = 0.25 + 0 + 0.5  # without the 1.0
    expected = (6 * above / 4 / 0.5).sigmoid()
    assert torch.allclose(deletion[0], expected, atol=1e-5)
    assert insertion[0, -1] == deletion[0, 0] == red_counter()(images).softmax(1)[0, 1]
    away = deletion_insertion(red_counter(), images, torch.tensor([0]), maps, 4)[0]
    assert torch.allclose(away, 1 - deletion, atol=1e-6)
    coarse = deletion_insertion(red_counter(), images, torch.tensor([1]), maps, 2)[0]
    assert torch.equal(coarse, deletion[:, ::2])


def test_insertion_starts_blurred_and_ends_whole():
    images = torch.zeros(1, 3, 16, 16)
    images[..., 6:10, 6:10] = 1
    maps = images[:, 0]
    model = red_counter(60.0)
    blurred = gaussian_filter(images.double().numpy(), (0, 0, 2, 2), mode="nearest")[0, 0]
    _, insertion = deletion_insertion(model, images, torch.tensor([1]), maps, steps=16)
    for step in (0, 1, 16):  # 16 of 256 pixels are the white square, and all go in the first step
        seen = torch.tensor(blurred)
        if step == 1:
            seen[6:10, 6:10] = 1
        if step == 16:
            seen = images[0, 0].double()
        expected = (60 * (seen.mean() - 0.25) / 0.5).sigmoid().item()
        assert insertion[0, step].item() == pytest.approx(expected, abs=1e-5)


def test_equal_values_go_in_a_scattered_order_that_is_the_same_for_every_image():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append((x[:, 0] == 0).clone())
            return torch.zeros(len(x), 2)

    model = nn.Sequential(OrderedDict(normalise=Normalised(), network=Watching()))
    maps = torch.zeros(2, 16, 16)
    maps[1, 5] = 1
    images = torch.ones(2, 3, 16, 16)
    deletion_insertion(model, images, torch.tensor([0, 1]), maps, steps=16)
    gone = seen[1].view(2, 17, 16, 16)  # seen[0] is the check, seen[2] the insertion
    assert gone.sum((2, 3)).tolist() == [list(range(0, 257, 16))] * 2
    assert (gone[:, 1:] >= gone[:, :-1]).all()  # what has gone stays away
    assert torch.equal(gone[1, 1], maps[1] == 1)  # the one row that the map prefers
    quarter = gone[0, 4]
    assert quarter.sum(0).max() < 16 and quarter.sum(1).max() < 16 and quarter.any(1).sum() > 12
    others = torch.ones(16, dtype=torch.bool)
    others[5] = False
    order = gone.int().argmax(1)  # the step at which each pixel goes
    first, second = order[0, others].flatten(), order[1, others].flatten()
    assert ((first[:, None] < first) <= (second[:, None] <= second)).all()


def test_the_curves_do_not_depend_on_the_batch_and_the_network_is_left_alone():
    model, images, targets = plain(), pictures(3), torch.tensor([0, 1, 1])
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1))
    together = deletion_insertion(model, images, targets, maps, steps=5)
    for size in (1, 4):
        apart = deletion_insertion(model, images, targets, maps, steps=5, batch_size=size)
        assert all(map(partial(torch.allclose, atol=1e-5), together, apart))
    alone = deletion_insertion(model, images[1:2], targets[1:2], maps[1:2], steps=5)
    assert torch.allclose(alone[0], together[0][1:2], atol=1e-5)
    assert torch.allclose(alone[1], together[1][1:2], atol=1e-5)
    assert together[0].shape == (3, 6)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    none = deletion_insertion(model, images[:0], targets[:0], maps[:0], steps=5)
    assert none[0].shape == none[1].shape == (0, 6)
    for change, says in (
        ({"targets": targets + 1}, "targets run from"),
        ({"steps": 0}, "at least 1 step"),
        ({"batch_size": 0}, "at least 1 image"),
        ({"model": model.network}, "no layer `normalise`"),
    ):
        given = {"model": model, "images": images, "targets": targets, "maps": maps} | change
        with pytest.raises(ValueError, match=says):
            deletion_insertion(**given)
    with pytest.raises(FloatingPointError, match="map is not finite"):
        deletion_insertion(model, images, targets, maps * torch.nan)
    with torch.no_grad():
        model.network[0].weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="probabilities are not finite"):
        deletion_insertion(model, images, targets, maps)


def test_areas_by_hand():
    curves = torch.tensor([[1.0, 1, 1], [1, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    assert area_under(curves).tolist() == [1, 0.5, 0.5, 0.25]
    with pytest.raises(ValueError, match="at least two points"):
        area_under(curves[:, :1])


# ---------------------------------------- does the map depend on what was learned?


def test_a_randomised_network_has_forgotten_everything_but_its_normalisation():
    model = plain()
    model.normalise.mean.add_(0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_batches_tracked.fill_(7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    fresh, same, other = (randomised(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for name, value in fresh.state_dict().items():
        kept = name.startswith("normalise")
        assert torch.equal(value, before[name]) == kept, name
        assert torch.equal(value, same.state_dict()[name])
        statistic = any(word in name for word in ("running", "tracked"))
        affine = value.ndim == 1 and type(fresh.get_submodule(name.rsplit(".", 1)[0])) in (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
        )
        if not (kept or statistic or affine):
            assert not torch.equal(value, other.state_dict()[name])
    assert fresh.network[1].running_var.tolist() == [1] * 4
    assert [m.training for m in fresh.modules()] == [m.training for m in model.modules()]


def test_weights_that_nobody_can_draw_anew_are_named():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match="network.1, a Scaled, cannot draw"):
        randomised(whole(nn.Conv2d(3, 2, 1), Scaled()), 0)


def test_rank_similarity_by_hand():
    a = torch.tensor([[[1.0, 2], [3, 4]]]).repeat(4, 1, 1)
    b = torch.tensor([[[1.0, 4], [9, 16]], [[4, 3], [2, 1]], [[1, 1], [2, 2]], [[5, 5], [5, 5]]])
    got = rank_similarity(a, b)
    # ranks 1 2 3 4 against 1.5 1.5 3.5 3.5: 4 / sqrt(5 x 4)
    assert got[:3].tolist() == pytest.approx([1, -1, 4 / math.sqrt(20)]) and got[3].isnan()


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_rank_similarity_is_spearmans(seed, levels):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, levels + 1, (2, 3, 4, 5), generator=generator) / levels).unbind()
    got = rank_similarity(a, b)
    for i in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant maps: NaN
            expected = spearmanr(a[i].flatten(), b[i].flatten()).statistic
        assert got[i].item() == pytest.approx(expected, nan_ok=True)
    assert torch.allclose(got, rank_similarity(b, a), equal_nan=True)
    assert torch.allclose(got, rank_similarity(a**3, b), equal_nan=True)  # only the order counts
