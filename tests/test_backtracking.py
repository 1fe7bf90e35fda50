"""Backtracking: the paper's pseudo-code in plain loops, rules by hand, every architecture."""

import copy
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product
from math import exp, prod

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor, fx, nn
from torch.nn import functional as F

from helpers import backtracking
from helpers.backtracking import (
    IMAGE,
    Nodes,
    Paths,
    Rules,
    Unsupported,
    attention,
    backtrack,
    bounding_box,
    cells,
    record,
    without_strays,
)
from helpers.models import build


def pictures(n: int = 2, h: int = 8, w: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, h, w or h, generator=generator, dtype=torch.float64)


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with random statistics, shifts and factors of both signs, so that they matter."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda value: torch.randn(value.shape, generator=generator, dtype=value.dtype)  # noqa: E731
    model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.copy_(draw(module.running_mean) / 4)
                module.running_var.copy_(0.5 + draw(module.running_var).abs())
                module.weight.copy_((0.5 + draw(module.weight).abs()) * draw(module.weight).sign())
                module.bias.copy_(draw(module.bias) / 2)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.copy_(draw(module.bias) / 10)
    return model


def held(nodes: Nodes, image: int | None = None) -> Counter:
    """(image, place..., sign): how many paths. Of one image without its number."""
    places = zip(*(axis.tolist() for axis in nodes.where), strict=True)
    rows = zip(nodes.image.tolist(), places, nodes.sign.tolist(), nodes.count.tolist(), strict=True)
    found = [((row, *place, sign), times) for row, place, sign, times in rows]
    assert len(dict(found)) == len(found), "a node stands more than once"
    assert [key[:-1] for key, _ in found] == sorted(key[:-1] for key, _ in found)
    if image is None:
        return Counter(dict(found))
    return Counter({key[1:]: times for key, times in found if key[0] == image})


# ---------------------------------------- the pseudo-code, a node at a time


def looking(activation: float) -> int:
    return -1 if activation < 0 else 1


def largest(values: list[float]) -> int:
    """The first of the largest."""
    return max(range(len(values)), key=values.__getitem__)


def algorithm_1(m1, layer, activations, rules):
    """Fully connected. A memory vector holds (place, sign), a place as often as paths pass it."""
    m2, ended, weight = [], 0, layer.weight.tolist()
    bias = [0.0] * len(weight) if layer.bias is None else layer.bias.tolist()
    for (k,), sign in m1:
        b = bias[k] if rules.fully_connected == "literal" else 0
        array = [sign * (w * a + b) for w, a in zip(weight[k], activations, strict=True)]
        chosen = [i for i, value in enumerate(array) if value > 0]
        if rules.fully_connected == "topn":
            chosen = sorted(chosen, key=lambda i: -array[i])[: rules.n]
        m2 += [((i,), looking(activations[i])) for i in chosen]
        ended += not chosen
    return m2, ended


def receptive_field(layer, y: int, x: int, size: tuple[int, int]):
    """Every tap of the kernel with its place in the layer below, and whether that is no padding."""
    pair = lambda value: (value, value) if isinstance(value, int) else value  # noqa: E731
    kernel, stride = pair(layer.kernel_size), pair(layer.stride)
    padding, dilation = pair(layer.padding), pair(getattr(layer, "dilation", 1))
    for i, j in product(range(kernel[0]), range(kernel[1])):
        row = y * stride[0] - padding[0] + i * dilation[0]
        column = x * stride[1] - padding[1] + j * dilation[1]
        yield i, j, row, column, 0 <= row < size[0] and 0 <= column < size[1]


def algorithm_2(m1, layer, activations, rules):
    """Convolution."""
    m2, ended, weight = [], 0, layer.weight.tolist()
    bias = [0.0] * len(weight) if layer.bias is None else layer.bias.tolist()
    size = len(activations[0]), len(activations[0][0])
    of_group = len(weight[0])
    for (f, y, x), sign in m1:
        first = f // (len(weight) // layer.groups) * of_group  # channel that the group starts at
        b = bias[f] if rules.channel == "literal" else 0
        sums, arrays = [], []
        for c in range(of_group):
            total, array = 0.0, []
            for i, j, row, column, inside in receptive_field(layer, y, x, size):
                a = activations[first + c][row][column] if inside else 0.0
                value = sign * (weight[f][c][i][j] * a + b)
                total += value
                if inside:
                    array.append((value if rules.pixel == "contribution" else a, row, column, a))
            sums.append(total)
            arrays.append(array)
        channels = [c for c in range(of_group) if sums[c] > 0]
        if rules.channel == "max":
            channels = [largest(sums)]
        if rules.channel != "literal":  # never to what is silent
            arrays = [[entry for entry in array if entry[3] != 0] for array in arrays]
        channels = [c for c in channels if arrays[c]]
        for c in channels:
            _, row, column, a = arrays[c][largest([entry[0] for entry in arrays[c]])]
            m2.append(((first + c, row, column), looking(a)))
        ended += not channels
    return m2, ended


def algorithm_3(m1, layer, activations, rules):
    """Max pooling."""
    m2, size = [], (len(activations[0]), len(activations[0][0]))
    for (channel, y, x), sign in m1:
        taps = [tap[2:4] for tap in receptive_field(layer, y, x, size) if tap[4]]
        row, column = taps[largest([activations[channel][r][c] for r, c in taps])]
        m2.append(((channel, row, column), sign))
    return m2, 0


ALGORITHMS = {nn.Linear: algorithm_1, nn.Conv2d: algorithm_2, nn.MaxPool2d: algorithm_3}


def pseudo_code(network: nn.Sequential, image: Tensor, start: int, rules: Rules):
    """The memory vector of every layer's output and the paths that ended there, by name."""
    outputs = [image[None]]
    for layer in network.eval():
        outputs.append(layer(outputs[-1].clone()))  # a copy, for what works in place
    names = [IMAGE, *(name for name, _ in network.named_children())]
    memory, vectors, ended = [((start,), 1)], {}, {}
    for depth in reversed(range(len(network))):
        vectors[names[depth + 1]] = Counter((*place, sign) for place, sign in memory)
        layer, below = network[depth], outputs[depth][0]
        if isinstance(layer, nn.Flatten):
            h, w = below.shape[1:]
            memory = [((k // (h * w), k // w % h, k % w), sign) for (k,), sign in memory]
        elif type(layer) in ALGORITHMS:
            memory, dead = ALGORITHMS[type(layer)](memory, layer, below.tolist(), rules)
            if dead:
                ended[names[depth + 1]] = dead
    vectors[IMAGE] = Counter((*place, sign) for place, sign in memory)
    return vectors, ended


sizes = lambda low, high: st.tuples(*(2 * [st.integers(low, high)]))  # noqa: E731


@st.composite
def networks(draw, signed: bool) -> tuple[nn.Sequential, int, tuple[int, int]]:
    """Convolutions and max poolings of any geometry, then fully connected layers; a seed and a size
    for images. Signed: activations on either side of zero.
    """
    seed, size, channels, layers = draw(st.integers(0, 10**6)), draw(sizes(5, 8)), 3, []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(draw(st.integers(1, 2))):
            groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
            out = groups * draw(st.integers(1, 2 if groups > 1 else 4))
            layers.append(
                nn.Conv2d(
                    channels,
                    out,
                    draw(sizes(1, 3)),
                    stride=draw(sizes(1, 2)),
                    padding=draw(sizes(0, 2)),
                    dilation=draw(sizes(1, 2)),
                    groups=groups,
                    bias=draw(st.booleans()),
                )
            )
            channels = out
            layers += [] if signed and draw(st.booleans()) else [nn.ReLU(inplace=True)]
            if draw(st.booleans()):
                kernel = draw(sizes(1, 3))
                padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
                stride, dilation = draw(sizes(1, 2)), draw(sizes(1, 2))
                layers.append(
                    nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=draw(st.booleans()))
                )
        layers.append(nn.Flatten())
        try:
            width = nn.Sequential(*layers)(torch.zeros(1, 3, *size)).shape[1]
        except RuntimeError:  # nothing is left of the image
            assume(False)
        for _ in range(draw(st.integers(0, 2))):
            next_width = draw(st.integers(2, 6))
            layers.append(nn.Linear(width, next_width, bias=draw(st.booleans())))
            layers += [] if signed and draw(st.booleans()) else [nn.ReLU()]
            width = next_width
        layers.append(nn.Linear(width, 3, bias=draw(st.booleans())))
    return nn.Sequential(*layers).double(), seed, size


def rule_sets(*channel: str) -> st.SearchStrategy[Rules]:
    return st.builds(
        Rules,
        fully_connected=st.sampled_from(["positive", "topn", "literal"]),
        n=st.integers(1, 4),
        channel=st.sampled_from(channel),
        pixel=st.sampled_from(["contribution", "activation"]),
    )


def check_pseudo_code(network, images, starts, rules):
    with torch.no_grad():
        expected = [
            pseudo_code(network, image, start, rules)
            for image, start in zip(images, starts, strict=True)
        ]
    paths = record(network, images).backtrack(torch.tensor(starts), rules=rules)
    for row, (vectors, ended) in enumerate(expected):
        for name, vector in vectors.items():
            got = held(paths.layers[name], row) if name in paths.layers else Counter()
            assert got == vector, (name, row)
        assert {k: v[row].item() for k, v in paths.ended.items() if v[row]} == ended
        summed = Counter()
        for (_, y, x, _), times in vectors[IMAGE].items():
            summed[y, x] += times
        hit = (paths.pixels[row] > 0).nonzero().tolist()
        assert {(y, x): paths.pixels[row, y, x].item() for y, x in hit} == summed


starting = st.tuples(*(2 * [st.integers(0, 2)]))


@settings(max_examples=60)
@given(networks(signed=False), starting, rule_sets("max", "positive"))
def test_the_pseudo_code(drawn, starts, rules):
    network, seed, size = drawn
    check_pseudo_code(network, pictures(2, *size, seed), starts, rules)


@settings(max_examples=60)
@given(networks(signed=True), starting, rule_sets("max", "positive"))
def test_the_pseudo_code_with_activations_below_zero(drawn, starts, rules):
    network, seed, size = drawn
    check_pseudo_code(network, pictures(2, *size, seed) - 0.5, starts, rules)


@settings(max_examples=30)
@given(networks(signed=False), starting, rule_sets("literal"))
def test_the_pseudo_code_to_the_letter(drawn, starts, rules):
    network, seed, size = drawn
    check_pseudo_code(network, pictures(2, *size, seed), starts, rules)


def vgg(seed: int = 0) -> nn.Sequential:
    """Two blocks and three fully connected layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 12),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(12, 12),
            nn.ReLU(inplace=True),
            nn.Linear(12, 4),
        ).double()


@pytest.mark.parametrize("at_once", [1, 40, 1 << 18])
@pytest.mark.parametrize(
    "rules", [Rules(), Rules("topn", n=3), Rules("literal", channel="positive")], ids=str
)
def test_the_pseudo_code_in_pieces_of_any_size(rules, at_once, monkeypatch):
    monkeypatch.setattr(backtracking, "_AT_ONCE", at_once)
    check_pseudo_code(vgg(), pictures(), (1, 3), rules)


def test_where_nothing_is_below_zero_every_sign_is_up():
    paths = record(vgg(), pictures()).backtrack(torch.tensor([1, 3]))
    assert all((nodes.sign == 1).all() for nodes in paths.layers.values())
    assert paths.pixels.sum((1, 2)).min() > 10  # several paths, or the test would be empty


# ---------------------------------------- by hand


def numbers(*rows) -> Tensor:
    """One image from its three channels."""
    return torch.tensor([rows], dtype=torch.float64)


def weighted(layer: nn.Module, weight, bias=None) -> nn.Module:
    """The layer with these weights."""
    layer.double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).view_as(layer.weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def seen_from(model, image, unit, rules=None, layer=None):
    """Per layer, the nodes of the only image: {(place..., sign): paths}."""
    paths = record(model, image).backtrack(torch.tensor([unit]), layer=layer, rules=rules)
    return {name: dict(held(nodes, 0)) for name, nodes in paths.layers.items()}, {
        name: dead.tolist() for name, dead in paths.ended.items()
    }


def from_every_unit(model, image, rules=None) -> Paths:
    """As many paths as the answer has units, each in a copy of the image."""
    units = model(image).shape[1]
    seen = record(model, image.expand(units, *image.shape[1:]))
    return seen.backtrack(torch.arange(units), rules=rules)


POINT = numbers([[1]], [[2]], [[0]])  # one pixel of three colours


def test_fully_connected_by_hand():
    """Hidden units 1 - 2 + 4 = 3 and 2 + 6 = 8; the logit 2 x 3 + 8 - 7."""
    hidden = weighted(nn.Linear(3, 2), [[1, -1, 5], [2, 3, -4]], [4, 0])
    model = nn.Sequential(nn.Flatten(), hidden, weighted(nn.Linear(2, 1), [[2, 1]], [-7]))
    nodes, ended = seen_from(model, POINT, 0)
    assert nodes == {
        "2": {(0, 1): 1},
        "1": {(0, 1): 1, (1, 1): 1},
        "0": {(0, 1): 2, (1, 1): 1},  # red through both units, green through the second
        IMAGE: {(0, 0, 0, 1): 2, (1, 0, 0, 1): 1},
    }
    assert ended == {}
    nodes, _ = seen_from(model, POINT, 0, Rules("topn", n=1))
    assert nodes["1"] == {(1, 1): 1} and nodes[IMAGE] == {(1, 0, 0, 1): 1}
    # literal: 6 - 7 is not positive, 8 - 7 is; and with a bias of 4, what is silent is chosen too
    assert seen_from(model, POINT, 0, Rules("literal"))[0]["1"] == {(1, 1): 1}
    silent, _ = seen_from(model, POINT, 0, Rules("literal"), layer="1")
    assert silent["0"] == {(0, 1): 1, (1, 1): 1, (2, 1): 1}
    assert seen_from(model, POINT, 0, layer="1")[0]["0"] == {(0, 1): 1}


def test_convolution_by_hand():
    """Sums of w a: red 1 + 2 + 3 - 4 = 2, green -5, blue 1."""
    image = numbers([[1, 2], [3, 4]], [[5, 0], [0, 0]], [[0, 0], [0, 9]])
    kernel = [[[1, 1], [1, -1]], [[-1, 0], [0, 0]], [[0, 0], [0, 1 / 9]]]
    model = nn.Sequential(weighted(nn.Conv2d(3, 1, 2), kernel, [2]), nn.Flatten())
    red, brightest_red, blue = (0, 1, 0, 1), (0, 1, 1, 1), (2, 1, 1, 1)
    for rules, expected in (
        (Rules(), [red]),
        (Rules(pixel="activation"), [brightest_red]),
        (Rules(channel="positive"), [red, blue]),
        # 4 x 2 more for every channel; green's products are -5 and three zeros: the first of them
        (Rules(channel="literal"), [red, (1, 0, 1, 1), blue]),
    ):
        nodes, ended = seen_from(model, image, 0, rules)
        assert nodes[IMAGE] == dict.fromkeys(expected, 1) and ended == {}, rules


def test_a_convolution_whose_input_is_below_zero():
    """Green speaks for the unit by being negative: what made it so is followed below."""
    first = weighted(nn.Conv2d(3, 2, 1, bias=False), [[1, 1, 1], [-2, 1, 1]])  # 3 and 0
    second = weighted(nn.Conv2d(2, 2, 1, bias=False), [[-1, 0], [-1, 4]])  # -3 and -3
    last = weighted(nn.Conv2d(2, 1, 1, bias=False), [[1, -2]])  # -3 + 6
    model = nn.Sequential(first, second, last, nn.Flatten())
    nodes, ended = seen_from(model, POINT, 0)
    assert nodes["1"] == {(1, 0, 0, -1): 1}
    assert nodes["0"] == {(0, 0, 0, 1): 1}  # -1 x 3 lowered it, 4 x 0 did not
    assert nodes[IMAGE] == {(1, 0, 0, 1): 1} and ended == {}


def test_a_convolution_that_a_bias_keeps_active():
    """Of -10, -1 and -13 the second speaks least against; what is silent is never followed."""
    kernel = [[[-1, -1], [-1, -1]], [[-1, -1], [2, 3]], [[-2, -1], [-1, -3]]]
    model = nn.Sequential(weighted(nn.Conv2d(3, 1, 2), kernel, [9]), nn.Flatten())
    image = numbers([[1, 2], [3, 4]], [[1, 0], [0, 0]], [[4, 1], [1, 1]])
    nodes, ended = seen_from(model, image, 0)
    assert nodes[IMAGE] == {(1, 0, 0, 1): 1} and ended == {}
    nodes, ended = seen_from(model, image, 0, Rules(channel="positive"))
    assert not nodes[IMAGE] and ended == {"0": [1]}
    nodes, ended = seen_from(model, image * torch.tensor([1, 0, 1]).view(3, 1, 1), 0)
    assert not nodes[IMAGE] and ended == {"0": [1]}
    deep = nn.Sequential(weighted(nn.Conv2d(3, 3, 2, groups=3), kernel, [9, 9, 9]), nn.Flatten())
    reached = [list(seen_from(deep, image, unit)[0][IMAGE]) for unit in range(3)]
    assert reached == [[(0, 0, 0, 1)], [(1, 0, 0, 1)], [(2, 0, 1, 1)]]


def test_where_a_weight_is_zero_there_is_no_connection():
    """Green has no part in the unit, however active it is."""
    model = nn.Sequential(weighted(nn.Conv2d(3, 1, 1), [[-1, 0, 0]], [9]), nn.Flatten())
    for pixel in ("contribution", "activation"):
        nodes, _ = seen_from(model, POINT, 0, Rules(pixel=pixel))
        assert (1, 0, 0, 1) not in nodes[IMAGE]
        wide = weighted(nn.Conv2d(3, 1, (1, 2)), [[[-1, 0]], [[-5, -5]], [[-5, -5]]], [9])
        image = numbers([[2, 3]], [[1, 1]], [[1, 1]])
        nodes, _ = seen_from(nn.Sequential(wide, nn.Flatten()), image, 0, Rules(pixel=pixel))
        assert nodes[IMAGE] == {(0, 0, 0, 1): 1}


def test_branches_that_all_speak_against():
    """-1 and -3: the first, by what made it negative. As a convolution of both would."""
    factors = weighted(nn.Conv2d(3, 3, 1, bias=False), [[1, -1, 0], [-1, -1, 0], [0, 0, 1]])
    both = lambda m, x: m.factors(x)[:, :1] + m.factors(x)[:, 1:2]  # noqa: E731
    nodes, ended = seen_from(Written(both, factors=factors), POINT, 0)
    assert nodes["factors"] == {(0, 0, 0, -1): 1} and ended == {}
    assert nodes[IMAGE] == {(1, 0, 0, 1): 1}  # green lowered it, red did not


@pytest.mark.parametrize("channel", ["max", "positive", "literal"])
def test_a_window_of_nothing_but_padding_leads_nowhere(channel):
    conv = weighted(nn.Conv2d(3, 1, 1, padding=1), [[1, 1, 1]], [5])
    nodes, ended = seen_from(nn.Sequential(conv, nn.Flatten()), POINT, 0, Rules(channel=channel))
    assert not nodes[IMAGE] and ended == {"0": [1]}
    assert seen_from(nn.Sequential(conv, nn.Flatten()), POINT, 4)[0][IMAGE] == {(1, 0, 0, 1): 1}


def test_max_pooling_by_hand():
    red = torch.tensor([[1, 2, 3], [4, -5, 6], [7, 8, 0]]).double()
    model = nn.Sequential(nn.MaxPool2d(2, stride=2, padding=1), nn.Flatten())
    bright, dark = (
        [seen_from(model, torch.stack([c, c, c])[None], unit)[0][IMAGE] for unit in range(4)]
        for c in (red, -red)
    )
    assert [list(nodes) for nodes in bright] == [
        [(0, 0, 0, 1)],
        [(0, 0, 2, 1)],
        [(0, 2, 0, 1)],
        [(0, 2, 1, 1)],
    ]
    # -1 is the largest of a window of -1 and padding, -2 of -2 and -3
    places = [(0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 1)]
    assert [list(nodes) for nodes in dark] == [[place] for place in places]


class Written(nn.Module):
    """A network from a function of its layers and the image; the output is made flat."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return torch.flatten(self.function(self, x), 1)


def test_an_addition_by_hand():
    """The branch with the larger part: 1 + 6, 2 - 1, 0 + 0."""
    conv = weighted(nn.Conv2d(3, 3, 1, bias=False), [[0, 3, 0], [-1, 0, 0], [0, 0, 1]])
    for add in (lambda m, x: x + m.conv(x), lambda m, x: m.conv(x).add_(x)):
        model = Written(add, conv=conv)
        nodes, _ = seen_from(model, POINT, 0)
        assert nodes["conv"] == {(0, 0, 0, 1): 1} and nodes[IMAGE] == {(1, 0, 0, 1): 1}
        nodes, _ = seen_from(model, POINT, 1)
        assert not nodes.get("conv") and nodes[IMAGE] == {(1, 0, 0, 1): 1}
        nodes, ended = seen_from(model, POINT, 2)
        assert ended == {"add": [1]} and not nodes[IMAGE]


def test_an_addition_below_zero_goes_where_it_is_lowest():
    """-3 + 2, of which the larger downwards is -3."""
    conv = weighted(nn.Conv2d(3, 3, 1, bias=False), [[0, 0, 0], [-3, 0, 0], [0, 0, 0]])
    lower = weighted(nn.Conv2d(3, 1, 1, bias=False), [[0, -1, 0]])
    model = Written(lambda m, x: m.lower(x + m.conv(x)), conv=conv, lower=lower)
    nodes, ended = seen_from(model, POINT, 0)
    assert nodes["add"] == nodes["conv"] == {(1, 0, 0, -1): 1}
    assert nodes[IMAGE] == {(0, 0, 0, 1): 1} and ended == {}


def test_an_average_is_a_convolution_with_equal_weights():
    depthwise = weighted(nn.Conv2d(3, 3, 2, stride=2, groups=3, bias=False), [0.25] * 12)
    check_equal_ways(nn.AvgPool2d(2), depthwise)


def test_an_addition_is_a_convolution_of_both():
    """Of the image and of one with other factors, so that either may be the larger."""
    factors = weighted(nn.Conv2d(3, 3, 1, groups=3, bias=False), [-0.9, 1.2, -3])
    total = weighted(nn.Conv2d(6, 3, 1, groups=3, bias=False), [1] * 6)
    shuffle = nn.ChannelShuffle(2)  # both reds, both greens, both blues
    add = Written(lambda m, x: x + m.factors(x), factors=factors)
    join = lambda m, x: m.total(m.shuffle(torch.cat([x, m.factors(x)], 1)))  # noqa: E731
    check_equal_ways(add, Written(join, factors=factors, shuffle=shuffle, total=total))


def check_equal_ways(one: nn.Module, other: nn.Module) -> None:
    """Both lead every unit, by whichever sign it was come to, to the same nodes of the image."""
    image = pictures(1, 6) - 0.5
    units = prod(nn.Flatten()(one(image)).shape[1:])
    for factor in (1, -1):
        norms = (weighted(nn.BatchNorm1d(units), [factor] * units).eval() for _ in range(2))
        ways = [nn.Sequential(w, nn.Flatten(), n) for w, n in zip((one, other), norms, strict=True)]
        a, b = (from_every_unit(way, image).layers[IMAGE] for way in ways)
        assert held(a) == held(b), factor


def test_a_tie_counts_once():
    for double in (lambda m, x: x + x, lambda m, x: m.same(x) + x):
        nodes, ended = seen_from(Written(double, same=nn.Identity()), POINT, 1)
        assert nodes[IMAGE] == {(1, 0, 0, 1): 1} and ended == {}


def test_a_concatenation_by_hand():
    conv = weighted(nn.Conv2d(3, 2, 1, bias=False), [[0, 1, 0], [1, 0, 0]])
    model = Written(lambda m, x: torch.cat([m.conv(x), x], 1), conv=conv)
    reached = [seen_from(model, POINT, unit) for unit in range(5)]
    assert [list(nodes[IMAGE]) for nodes, _ in reached] == [
        [(1, 0, 0, 1)],
        [(0, 0, 0, 1)],
        [(0, 0, 0, 1)],
        [(1, 0, 0, 1)],
        [(2, 0, 0, 1)],
    ]
    passed = [bool(nodes.get("conv")) for nodes, _ in reached]
    assert passed == [True, True, False, False, False]
    twice = Written(
        lambda m, x: m.out(torch.cat([x, x], 1)),
        out=weighted(nn.Conv2d(6, 1, 1, bias=False), [1, 0, 0, 0, 2, 0]),
    )
    assert seen_from(twice, POINT, 0)[0][IMAGE] == {(1, 0, 0, 1): 1}
    both = seen_from(twice, POINT, 0, Rules(channel="positive"))[0]
    assert both["cat"] == {(0, 0, 0, 1): 1, (4, 0, 0, 1): 1}
    assert both[IMAGE] == {(0, 0, 0, 1): 1, (1, 0, 0, 1): 1}
    rows = Written(lambda m, x: torch.cat([x, m.same(x)], 2), same=nn.Identity())
    assert seen_from(rows, POINT, 3)[0][IMAGE] == {(1, 0, 0, 1): 1}  # green of the second


def norm(gamma, beta=(0.0, 0.0)) -> nn.BatchNorm2d:
    return weighted(nn.BatchNorm2d(2), list(gamma), list(beta)).eval()


def test_batch_norm_by_hand():
    """2 - 6 = -4 becomes 4 by a negative factor: followed is what lowered it."""
    conv = weighted(nn.Conv2d(3, 2, 1, bias=False), [[2, -3, 1], [2, -3, 1]])
    model = nn.Sequential(conv, norm([-1, 0], [0, 5]), nn.ReLU(), nn.Flatten())
    nodes, ended = seen_from(model, POINT, 0)
    assert nodes["1"] == {(0, 0, 0, 1): 1} and nodes["0"] == {(0, 0, 0, -1): 1}
    assert nodes[IMAGE] == {(1, 0, 0, 1): 1} and ended == {}
    nodes, ended = seen_from(model, POINT, 1)  # 5, whatever the image is
    assert ended == {"1": [1]} and not nodes[IMAGE]


@pytest.mark.parametrize("channel", ["max", "positive"])
@pytest.mark.parametrize("pixel", ["contribution", "activation"])
def test_batch_norm_is_as_if_folded_into_the_convolution(channel, pixel):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convs = [nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)]
        ends = (nn.Flatten(), nn.Linear(6 * 64, 4))
    apart = nn.Sequential(convs[0], nn.BatchNorm2d(6), nn.ReLU())
    apart.extend((convs[1], nn.BatchNorm2d(6), nn.ReLU(), *ends))
    shaken(apart)
    fold = nn.utils.fusion.fuse_conv_bn_eval
    one, other = fold(apart[0], apart[1]), fold(apart[3], apart[4])
    folded = nn.Sequential(one, nn.Identity(), nn.ReLU(), other, nn.Identity(), nn.ReLU(), *ends)
    images, start, rules = pictures(), torch.tensor([0, 3]), Rules(channel=channel, pixel=pixel)
    expected, got = (record(m, images).backtrack(start, rules=rules) for m in (folded, apart))
    assert (apart[1].weight < 0).any() and (got.layers["0"].sign < 0).any()
    for name in ("6", "5", "2", IMAGE):
        assert held(got.layers[name]) == held(expected.layers[name]), name


def test_a_gate_by_hand():
    """A squeezed map weighs the map: a negative weight turns it round, 0 ends the path."""
    gate = weighted(nn.Conv2d(3, 3, 1, bias=False), [[-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    image = numbers([[1, 3]], [[2, 4]], [[1, -1]])  # gates -2, 3, 0
    turn = Written(lambda m, x: x * m.gate(F.adaptive_avg_pool2d(x, 1)), gate=gate)
    assert seen_from(turn, image, 1)[0][IMAGE] == {(0, 0, 1, -1): 1}
    assert seen_from(turn, image, 2)[0][IMAGE] == {(1, 0, 0, 1): 1}
    assert seen_from(turn, image, 4) == (
        {"flatten": {(4, 1): 1}, "mul": {(2, 0, 0, 1): 1}, IMAGE: {}},
        {"mul": [1]},
    )
    # of the same shape as the map, a sigmoid is what tells the gate
    for swish in (lambda m, x: m.gate(x).sigmoid() * x, lambda m, x: x * m.s(m.gate(x))):
        model = Written(swish, gate=gate, s=nn.Hardsigmoid())
        nodes, ended = seen_from(model, image, 3)
        assert nodes[IMAGE] == {(1, 0, 1, 1): 1} and not nodes.get("gate") and ended == {}


def test_average_pooling_by_hand():
    image = numbers([[1, 5], [0, -7]], [[-1, 0], [0, -3]], [[0, 0], [0, 0]])
    for layer in (nn.AvgPool2d(2), nn.AvgPool2d(2, 3, ceil_mode=True), nn.AdaptiveAvgPool2d(1)):
        model = Written(lambda m, x: m.layer(x), layer=layer)
        assert seen_from(model, image, 0)[0][IMAGE] == {(0, 0, 1, 1): 1}
        nodes, _ = seen_from(model, image, 0, Rules(average="positive"))
        assert nodes[IMAGE] == {(0, 0, 0, 1): 1, (0, 0, 1, 1): 1}
        # nothing above zero: what lowers the average least, but not what is silent
        assert seen_from(model, image, 1)[0][IMAGE] == {(1, 0, 0, -1): 1}
        nodes, ended = seen_from(model, image, 1, Rules(average="positive"))
        assert not nodes[IMAGE] and list(ended.values()) == [[1]]
        nodes, ended = seen_from(model, image, 2)
        assert not nodes[IMAGE] and list(ended.values()) == [[1]]
    padded = Written(lambda m, x: m.layer(x), layer=nn.AvgPool2d(2, padding=1, stride=3))
    assert seen_from(padded, image, 0)[0][IMAGE] == {(0, 0, 0, 1): 1}  # one value and padding
    lower = weighted(nn.Conv2d(3, 1, 1, bias=False), [[0, -1, 0]])
    model = Written(lambda m, x: m.lower(F.avg_pool2d(x, 2)), lower=lower)
    nodes, _ = seen_from(model, image, 0)
    assert nodes["avg_pool2d"] == {(1, 0, 0, -1): 1} and nodes[IMAGE] == {(1, 1, 1, -1): 1}


# ---------------------------------------- every architecture


class Walk(fx.Interpreter):
    """The network's operations one by one, each on copies of its inputs; all outputs are kept."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(fx.symbolic_trace(model), garbage_collect_values=False)
        with torch.no_grad():
            self.logits = self.run(images)
        self.n, self.model = len(images), model
        follows = set()  # from the image
        for node in self.module.graph.nodes:
            if node.op == "placeholder" or follows & set(node.all_input_nodes):
                follows.add(node)
        maps = [n for n in self.module.graph.nodes if n in follows and n.op != "output"]
        self.maps = [n for n in maps if isinstance(self.env[n], Tensor)]

    def fetch_args_kwargs_from_env(self, node):
        copied = lambda value: value.clone() if isinstance(value, Tensor) else value  # noqa: E731
        return fx.node.map_aggregate(super().fetch_args_kwargs_from_env(node), copied)

    def layer(self, node: fx.Node) -> nn.Module | None:
        return self.model.get_submodule(node.target) if node.op == "call_module" else None

    def sources(self, node: fx.Node) -> list[fx.Node]:
        return [a for a in node.all_input_nodes if a in self.maps]


def down(walk: Walk, node: fx.Node, nodes: Nodes):
    """One step of the default rules, for all paths: [(where to, nodes)], and which went nowhere."""
    layer, at = walk.layer(node), (nodes.image, nodes.index)
    name = node.target if isinstance(node.target, str) else node.target.__name__
    name = type(layer).__name__ if layer else name.strip("_")
    below = walk.sources(node)
    if name == "getitem":  # of a chunk
        (below,) = [walk.sources(a) for a in node.all_input_nodes]
    values = [walk.env[a] for a in below]
    a, all_found = values[0], torch.ones(len(nodes), dtype=torch.bool)
    out = walk.env[node]

    def to(index: Tensor, k: int = 0) -> Nodes:
        shape = tuple(values[k].shape[1:])
        return Nodes(shape, nodes.image, index, nodes.sign, nodes.count)

    if name in SAME_PLACE:
        assert a[0].numel() == out[0].numel()
        return [(below[0], to(nodes.index))], all_found
    if name == "Linear":
        return down_linear(below[0], a, layer, nodes)
    if name == "Conv2d":
        return down_convolution(below[0], a, layer, nodes)
    if name == "BatchNorm2d":
        sign = layer.weight.sign()[nodes.where[0]]
        return [(below[0], turned(to(nodes.index), sign))], all_found
    if "pool" in name.lower() or name == "mean":
        found = []
        for sign in (1, -1):  # an average's largest part is the maximum of the same window
            active = a if "max" in name.lower() else (sign * a).where(a != 0, -torch.inf)
            found.append(best_of_window(name, node, layer, active).flatten(1)[at])
        place = torch.where(nodes.sign > 0, *found)
        if "max" in name.lower():
            place = found[0]
        hw = prod(a.shape[2:])
        index = nodes.index // max(1, prod(out.shape[2:])) * hw + place
        active = a.flatten(1)[nodes.image, index] != 0
        alive = all_found if "max" in name.lower() else active
        return [(below[0], to(index)[alive])], alive
    if name in ("add", "iadd"):
        x, y = (value.flatten(1)[at] * nodes.sign for value in values)
        first = (x != 0) & ((x >= y) | (y == 0))
        second = (y != 0) & ((y > x) | (x == 0))
        return [(below[0], nodes[first]), (below[1], nodes[second])], first | second
    if name == "mul":
        (gate,) = [a for a in below if "igmoid" in type(walk.layer(a)).__name__]
        weight = walk.env[gate].expand_as(out).flatten(1)[at]
        (x,) = [a for a in below if a is not gate]
        return [(x, turned(nodes, weight.sign())[weight != 0])], weight != 0
    if name == "cat":
        handed, first = [], 0
        for k, (source, value) in enumerate(zip(below, values, strict=True)):
            mine = (first <= nodes.index) & (nodes.index < first + value[0].numel())
            handed.append((source, to(nodes.index - first, k)[mine]))
            first += value[0].numel()
        return handed, all_found
    if name == "getitem":
        first = node.args[1] * prod(out.shape[1:])
        return [(below[0], to(nodes.index + first))], all_found
    if name == "transpose":
        groups, of_group, *rest = a.shape[1:]
        assert node.args[1:] == (1, 2)
        k, g, place = (part for part in (*nodes.where[:2], nodes.index % prod(rest)))
        return [(below[0], to((g * of_group + k) * prod(rest) + place))], all_found
    raise NotImplementedError(name)


SAME_PLACE = {"ReLU", "ReLU6", "Hardswish", "SiLU", "Dropout", "relu", "dropout"}
SAME_PLACE |= {"sub", "truediv", "flatten", "Flatten", "view", "contiguous", "stochastic_depth"}


def turned(nodes: Nodes, sign: Tensor) -> Nodes:
    return Nodes(nodes.shape, nodes.image, nodes.index, nodes.sign * sign, nodes.count)


def best_of_window(name, node, layer, a):
    """The flat position of every pooling window's first maximum."""
    if name in ("mean", "AdaptiveAvgPool2d", "adaptive_avg_pool2d"):
        size = 1 if name == "mean" else layer.output_size if layer else node.args[1]
        return F.adaptive_max_pool2d(a, size, return_indices=True)[1]
    options = vars(layer)
    geometry = [options[key] for key in ("kernel_size", "stride", "padding")]
    dilation, ceil_mode = options.get("dilation", 1), options["ceil_mode"]
    return F.max_pool2d(a, *geometry, dilation, ceil_mode, return_indices=True)[1]


def down_linear(source, a, layer, nodes):
    counts, found = torch.zeros(2, *a.shape, dtype=torch.float64), []
    for some in torch.arange(len(nodes)).split(256):
        part = nodes[some]
        positive = layer.weight[part.index] * a[part.image] * part.sign[:, None] > 0
        counts[0].index_add_(0, part.image, positive * part.count[:, None])
        found.append(positive.any(1))
    counts[1] = counts[0] * (a < 0)
    counts[0] *= a >= 0
    low, image, index = counts.nonzero(as_tuple=True)
    below = Nodes(tuple(a.shape[1:]), image, index, 1.0 - 2 * low, counts[low, image, index])
    return [(source, below)], torch.cat(found)


def down_convolution(source, a, layer, nodes):
    h, w = a.shape[2:]
    geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    columns = F.unfold(a, *geometry).unflatten(1, (a.shape[1], -1))  # n, channel, tap, place
    numbered = torch.arange(1.0, h * w + 1, dtype=a.dtype).view(1, 1, h, w)
    position = F.unfold(numbered, *geometry)[0].long() - 1  # tap, place; -1 is padding
    per = a.shape[1] // layer.groups
    handed, found = [], []
    for some in torch.arange(len(nodes)).split(128):
        part = nodes[some]
        out, y, x = part.where
        place = (
            y
            * (
                (w + 2 * layer.padding[1] - layer.dilation[1] * (layer.kernel_size[1] - 1) - 1)
                // layer.stride[1]
                + 1
            )
            + x
        )
        channels = (out // (layer.out_channels // layer.groups) * per)[:, None] + torch.arange(per)
        seen = columns[part.image[:, None], channels, :, place[:, None]]  # node, channel, tap
        products = seen * layer.weight[out].flatten(2) * part.sign[:, None, None]
        chosen, rows = products.sum(2).argmax(1), torch.arange(len(part))
        activation = seen[rows, chosen]
        tap = products[rows, chosen].masked_fill(activation == 0, -torch.inf).argmax(1)
        sign = 1.0 - 2.0 * (activation[rows, tap] < 0)
        index = channels[rows, chosen] * h * w + position[:, place].T[rows, tap]
        moved = Nodes(tuple(a.shape[1:]), part.image, index, sign, part.count)
        found.append((activation != 0).any(1))
        handed.append((source, moved[found[-1]]))
    return handed, torch.cat(found)


def tally(parts: list[Nodes], n: int) -> Tensor:
    """(sign, image, index): paths."""
    counts = torch.zeros(2, n, prod(parts[0].shape), dtype=torch.float64)
    for part in parts:
        at = ((part.sign < 0).long(), part.image, part.index)
        counts.index_put_(at, part.count, accumulate=True)
    return counts


def check_every_step(model: nn.Module, images: Tensor) -> Paths:
    """Each layer's nodes are what those above it hand down, by an own walk through the graph."""
    walk = Walk(model, images)
    seen = record(model, images)
    assert torch.allclose(seen.logits, walk.logits, rtol=1e-9)
    assert len(seen.names) == len(walk.maps)
    for node, name in zip(walk.maps, seen.names, strict=True):
        assert node.op != "call_module" or name.split(":")[0] == node.target
        assert seen.shape(name) == tuple(walk.env[node].shape[1:])
    start, ones = walk.logits.argmax(1), torch.ones(walk.n).double()
    paths = seen.backtrack(start)
    top = Nodes(tuple(walk.logits.shape[1:]), torch.arange(walk.n), start, ones, ones)
    waiting, names = {walk.maps[-1]: [top]}, dict(zip(walk.maps, seen.names, strict=True))
    for node in reversed(walk.maps):
        name = names[node]
        got = paths.layers.get(name)
        if got is None or not len(got):
            assert not any(len(part) for part in waiting.get(node, [])), name
            continue
        assert got.shape == seen.shape(name)
        assert torch.equal(tally([got], walk.n), tally(waiting[node], walk.n)), name
        if node.op == "placeholder":
            continue
        handed, alive = down(walk, node, got)
        for below, nodes in handed:
            waiting.setdefault(below, []).append(nodes)
        dead = tally([got[~alive]], walk.n).sum((0, 2))
        assert torch.equal(paths.ended.get(name, torch.zeros(walk.n).double()), dead), name
    return paths


ARCHITECTURES = {
    "alexnet": 64,
    "vgg11": 32,
    "vgg13_bn": 32,
    "vgg16": 32,
    "vgg19": 32,
    "vgg19_bn": 32,
    "squeezenet1_0": 64,
    "squeezenet1_1": 64,
    "googlenet": 32,
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "resnet101": 32,
    "resnet152": 32,
    "wide_resnet50_2": 32,
    "densenet121": 32,
    "densenet169": 32,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64,
    "efficientnet_b0": 32,
    "shufflenet_v2_x0_5": 64,
    "shufflenet_v2_x1_0": 64,
}


@pytest.fixture
def quick_weights(monkeypatch):
    """Weights from a small supply of random numbers: drawing 140 million anew takes seconds."""
    generator = torch.Generator().manual_seed(0)
    supply = torch.randn(999_983, generator=generator)

    def draw(weight: Tensor, *args, **kwargs) -> Tensor:
        if weight.ndim > 1 and weight.numel() < 10_000_000:  # others are replaced, see `slimmer`
            times = -(-weight.numel() // len(supply))
            first = int(torch.randint(len(supply), (), generator=generator))
            values = supply.roll(first).repeat(times)[: weight.numel()]
            with torch.no_grad():
                weight.copy_(values.view_as(weight) * (2 / weight[0].numel()) ** 0.5)
        return weight

    for name in ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, draw)


def slimmer(model: nn.Module) -> nn.Module:
    """The same layers with 24 hidden units where the network has thousands."""
    classifier = getattr(model.network, "classifier", None)
    layers = classifier if isinstance(classifier, nn.Sequential) else ()
    linear = [k for k, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if len(linear) == 3:
        widths = [classifier[linear[0]].in_features, 24, 24, classifier[linear[2]].out_features]
        for k, (a, b) in zip(linear, pairwise(widths), strict=True):
            classifier[k] = nn.Linear(a, b)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_step_of_every_architecture(name, quick_weights):
    model = shaken(slimmer(build(name, 5, seed=0)))
    images = pictures(6 if name.startswith("squeezenet") else 2, ARCHITECTURES[name])
    paths = check_every_step(model, images)
    assert paths.pixels.sum((1, 2)).min() > 0


# ---------------------------------------- independence


class Mixed(nn.Module):
    """A little of everything: one ReLU in place for all, a gate, a shortcut, pieces, averages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.inner = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)
        )
        self.squeeze, self.branch = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 6, (1, 3))
        self.drop, self.out = nn.Dropout(), nn.Linear(4 * (6 + 4), 4)

    def forward(self, x):
        x = self.pool(self.relu(self.norm(self.conv(x))))
        y = self.inner(x)
        y *= self.squeeze(y.mean((2, 3), keepdim=True)).sigmoid()
        y += x
        a, b = F.relu(y, inplace=True).chunk(2, 1)
        x = torch.cat([self.relu(self.branch(a)), b[..., 1:-1]], 1)
        return self.out(self.drop(F.adaptive_avg_pool2d(x, 2).flatten(1)))


def mixed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return shaken(Mixed(), seed=1)


def state(model: nn.Module) -> list:
    """Everything that a caller could find changed."""
    return [
        [(m.training, getattr(m, "inplace", None), len(m._forward_hooks)) for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        {name: value.clone() for name, value in model.state_dict().items()},
    ]


def same_state(before: list, after: list) -> bool:
    kept = all(torch.equal(before[2][name], value) for name, value in after[2].items())
    return kept and before[:2] == after[:2]


@pytest.mark.parametrize("make", [vgg, mixed])
def test_no_image_depends_on_its_batch(make):
    model, images, classes = make(), pictures(5), torch.tensor([0, 1, 2, 3, 1])
    together = record(model, images).backtrack(classes)
    for row in range(5):
        alone = record(model, images[row : row + 1]).backtrack(classes[row : row + 1])
        for name, nodes in together.layers.items():
            assert held(nodes, row) == (held(alone.layers[name], 0) if name in alone.layers else {})
        assert torch.equal(alone.pixels[0], together.pixels[row])
        dead = {name: ended[row].item() for name, ended in together.ended.items() if ended[row]}
        assert dead == {name: ended.item() for name, ended in alone.ended.items()}
    assert (together.pixels.sum((1, 2)) > 0).all()
    for size in (1, 2, 5, 8):
        assert torch.equal(backtrack(model, images, classes, batch_size=size), together.pixels)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(backtrack(model, images[order], classes[order]), together.pixels[order])


@pytest.mark.parametrize("make", [vgg, mixed])
def test_without_classes_it_is_the_predicted_class(make):
    model, images = make(), pictures(5)
    predicted = model.eval()(images).argmax(1)
    assert torch.equal(backtrack(model, images), backtrack(model, images, predicted))
    assert torch.allclose(record(model, images).logits, model(images), rtol=1e-12)


@pytest.mark.parametrize("make", [vgg, mixed])
def test_a_model_comes_back_as_it_was_and_its_mode_does_not_matter(make):
    model, images = make(), pictures()
    expected = backtrack(model.eval(), images)
    model.train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    before, kept = state(model), images.clone()
    assert torch.equal(backtrack(model, images.requires_grad_()), expected)
    assert same_state(before, state(model)) and images.grad is None
    assert torch.equal(images, kept)
    seen = record(model, images)
    assert not seen.logits.requires_grad
    seen.backtrack(torch.tensor([0, 1]))
    assert same_state(before, state(model))
    for module in model.modules():  # nor how the network is written
        if hasattr(module, "inplace"):
            module.inplace = False
    assert torch.equal(backtrack(model, images), expected)


def test_a_model_comes_back_as_it_was_after_an_error_in_its_middle():
    model, images = mixed().train(), pictures()

    def break_down(*_):
        raise KeyError("in the middle")

    hook = model.branch.register_forward_hook(break_down)
    before = state(model)
    with pytest.raises(KeyError, match="in the middle"):
        record(model, images)
    assert same_state(before, state(model))
    hook.remove()
    before = state(model)
    with pytest.raises(ValueError, match="cannot take images of 3 x 3 x 3"):
        record(model, pictures(2, 3))
    assert same_state(before, state(model))
    assert backtrack(model, images).any()


def test_a_recording_keeps_the_factors_of_its_batch_norms():
    model, images, start = mixed(), pictures(), torch.tensor([0, 1])
    seen = record(model, images)
    expected = seen.backtrack(start)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.neg_()
    model.train()(images)
    again = seen.backtrack(start)
    for name, nodes in expected.layers.items():
        assert held(again.layers[name]) == held(nodes), name


@pytest.mark.parametrize("make", [vgg, mixed])
def test_stopping_at_any_layer_gives_the_nodes_that_the_whole_path_has_there(make):
    seen, start = record(make(), pictures()), torch.tensor([0, 1])
    whole = seen.backtrack(start)
    assert list(whole.layers)[-1] == IMAGE and whole.size == (8, 8) and whole.n == 2
    for name in seen.names:
        paths = seen.backtrack(start, until=name)
        passed = whole.layers.get(name)
        assert held(paths.layers[name]) == (held(passed) if passed else {}), name
        assert paths.layers[name].shape == seen.shape(name)
        for other, nodes in paths.layers.items():  # and the same nodes in all layers above
            assert other == name or held(nodes) == held(whole.layers[other]), (name, other)
            assert seen.names.index(other) >= seen.names.index(name)
        if name != IMAGE:
            with pytest.raises(ValueError, match="above the image"):
                paths.pixels  # noqa: B018


@pytest.mark.parametrize("make", [vgg, mixed])
@pytest.mark.parametrize("each", [1, 3, 10**6])
@pytest.mark.parametrize(
    "rules", [Rules(), Rules("literal", channel="literal", average="positive")]
)
def test_descending_in_pieces_of_any_size_arrives_where_one_go_does(make, each, rules):
    seen, start = record(make(), pictures()), torch.tensor([0, 1])
    for layer, until in ((None, IMAGE), (None, seen.names[4]), (seen.names[-3], IMAGE)):
        begin = start if layer is None else torch.tensor([2, 0])
        whole = seen.backtrack(begin, layer, until, rules)
        gone, shares = [], []

        def pieces(step, nodes, gone=gone):
            for first in range(0, max(1, len(nodes)), each):
                gone.append(step.name)
                yield nodes[first : first + each]

        for share, paths in seen.descending(begin, layer, until, rules, pieces):
            shares.append(share)
            assert share == 1 or list(paths.layers)[-1] == gone[-1]  # the lowest so far
        assert shares == sorted(shares) and shares[0] > 0 and shares.count(1) == 1
        assert len(gone) == len(shares) - 1  # a look after each piece, and one at the end
        assert list(paths.layers) == list(whole.layers) and paths.ended.keys() == whole.ended.keys()
        assert all(held(paths.layers[name]) == held(whole.layers[name]) for name in whole.layers)
        assert all(torch.equal(paths.ended[name], whole.ended[name]) for name in whole.ended)
        assert (paths.size, paths.n) == (whole.size, whole.n)


def test_descending_from_a_layer_to_itself_takes_no_step():
    seen = record(vgg(), pictures())
    ((share, paths),) = seen.descending(torch.tensor([0, 0]), "4", until="4")
    assert share == 1 and list(paths.layers) == ["4"]


@pytest.mark.parametrize("make", [vgg, mixed])
def test_starting_at_any_layer(make):
    seen = record(make(), pictures())
    generator = torch.Generator().manual_seed(0)
    for name in seen.names:
        shape = seen.shape(name)
        place = [torch.randint(size, (2,), generator=generator) for size in shape]
        flat = torch.arange(prod(shape)).view(shape)[tuple(place)]
        one, other = (seen.backtrack(s, name) for s in (flat, torch.stack(place, 1)))
        assert list(one.layers)[0] == name
        rows = torch.stack(place, 1).tolist()
        expected = {(image, *row, 1): 1 for image, row in enumerate(rows)}
        assert held(one.layers[name]) == expected
        for layer, nodes in one.layers.items():
            assert held(nodes) == held(other.layers[layer])
        assert torch.equal(one.pixels, other.pixels)
    top = seen.names[-1]
    named = seen.backtrack(torch.tensor([2, 3]), top).pixels
    assert torch.equal(named, seen.backtrack(torch.tensor([2, 3])).pixels)


def test_the_paths_of_a_layer_are_those_of_its_nodes_taken_together():
    seen = record(vgg(), pictures())
    whole = seen.backtrack(torch.tensor([1, 3]))
    for name in ("10", "7", "4", "1"):
        nodes, total = whole.layers[name], torch.zeros_like(whole.pixels)
        for image, index, times in zip(nodes.image, nodes.index, nodes.count, strict=True):
            total[image] += times * seen.backtrack(index.expand(2), name).pixels[image]
        assert torch.equal(total, whole.pixels), name


def test_nodes():
    nodes = Nodes(
        (2, 3, 4),
        torch.tensor([0, 0, 1]),
        torch.tensor([5, 5, 23]),
        torch.tensor([-1.0, 1.0, 1.0]),
        torch.tensor([2.0, 3.0, 7.0]).double(),
    )
    assert [axis.tolist() for axis in nodes.where] == [[0, 0, 1], [1, 1, 2], [1, 1, 3]]
    dense = nodes.dense(2)
    assert dense.shape == (2, 2, 3, 4) and dense.sum() == 12
    assert dense[0, 0, 1, 1] == 5 and dense[1, 1, 2, 3] == 7
    assert len(nodes) == 3 and len(nodes[nodes.sign > 0]) == 2
    assert nodes[nodes.sign > 0].count.tolist() == [3, 7] and not len(nodes[:0])


def test_a_node_looked_at_from_both_sides_stands_twice():
    """1 x 1 - -1 x 1: the map for itself, and its negative by what lowered it."""
    join = weighted(nn.Conv2d(2, 1, 1, bias=False), [[1, -1]])
    model = Written(lambda m, x: m.join(torch.cat([x[:, :1], -x[:, :1]], 1)), join=join)
    nodes, ended = seen_from(model, POINT, 0, Rules(channel="positive"))
    assert nodes["cat"] == {(0, 0, 0, 1): 1, (1, 0, 0, -1): 1} and ended == {}
    assert nodes[IMAGE] == {(0, 0, 0, 1): 2}
    # the same map, once as it is and once turned round and shifted up
    turn = nn.Sequential(norm([1, -1], [0, 3]))
    twice = Written(lambda m, x: m.join(m.turn(torch.cat([x[:, :1], x[:, :1]], 1))), turn=turn)
    twice.join = weighted(nn.Conv2d(2, 1, 1, bias=False), [[1, 1]])
    nodes, _ = seen_from(twice, POINT, 0, Rules(channel="positive"))
    assert nodes[IMAGE] == {(0, 0, 0, -1): 1, (0, 0, 0, 1): 1}
    pixels = record(twice, POINT).backtrack(torch.tensor([0]), rules=Rules(channel="positive"))
    assert pixels.pixels.tolist() == [[[2]]]


# ---------------------------------------- how a network may be written


def flat_nodes(model, images=None, start=(1, 2)):
    """What two networks that compute the same have in common: the pixels."""
    images = pictures() if images is None else images
    seen = record(model, images)
    assert torch.allclose(seen.logits, copy.deepcopy(model).eval()(images), rtol=1e-10)
    return seen.backtrack(torch.tensor(start)).pixels


def convs(**more: nn.Module) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {"one": nn.Conv2d(3, 8, 3), "two": nn.Conv2d(8, 8, 3, padding=1)}
        layers["out"] = nn.Conv2d(8, 5, 1)
    layers = {name: layer.double() for name, layer in (layers | more).items()}
    return layers


def spelled(function, **more: nn.Module) -> Written:
    """Two convolutions, what the function does in between, and an average for each of 5 classes."""
    ends = lambda m, x: m.out(function(m, m.one(x))).mean((2, 3), keepdim=True)  # noqa: E731
    return Written(ends, **convs(**more))


def code(text: str, names: str = "m, x"):
    return eval(f"lambda {names}: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "F.relu(x)",
        "F.relu(x, True)",
        "torch.relu_(x)",
        "x.relu_()",
        "x.clone().contiguous().relu()",
        "m.relu(x)",
        "m.same(m.relu(F.dropout(x, training=m.training)))",
        "torch.cat(x.relu().chunk(2, 1), 1)",
        "torch.cat(x.relu().split([3, 4, 1], 1), dim=1)",
        "torch.cat([x[:, :3], x[:, 3:]], 1).relu()",
        "torch.cat(x.relu().unbind(1), 0).reshape(8, -1, 6, 6).transpose(0, 1)",
        "x.relu().permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3)",
        "x.relu().reshape(x.shape[0], 8, -1).view(x.shape[0], 8, 6, 6)",
        "x.relu().unsqueeze(1).squeeze(1)",
        "x.relu().flatten(2).unflatten(2, (6, 6))",
        "x.relu() * 2 / 2",
        "-(-x.relu())",
        "1 - (1 - x.relu())",
        "F.channel_shuffle(F.channel_shuffle(x.relu(), 2), 4)",
        "F.pixel_unshuffle(F.pixel_shuffle(x.relu(), 2), 2)",
        "sum([x.relu()])",
        "torch.cat([part * 1 for part in (x[:, :4].relu(), x[:, 4:].relu())], 1)",
    ],
)
def test_pixels_do_not_depend_on_how_a_network_is_written(text):
    more = {"relu": nn.ReLU(inplace=True), "same": nn.Identity()}
    function = code(text)
    model = spelled(lambda m, x: m.two(function(m, x)), **more)
    try:
        got = flat_nodes(model)
    except Unsupported as error:  # no rule, but it says so
        assert "cannot be backtracked" in str(error)
        return
    assert got.any() and torch.equal(got, flat_nodes(spelled(lambda m, x: m.two(x.relu()))))


@pytest.mark.parametrize(
    "text",
    [
        "x.view(x.size(0), -1)",
        "x.reshape(x.shape[0], -1)",
        "torch.flatten(x, 1)",
        "x.flatten(start_dim=1)",
        "m.flatten(x)",
        "x.flatten(2).flatten(1)",
        "x.contiguous().view(-1, 288)",
    ],
)
def test_flattening_in_any_way(text):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = convs(fc=nn.Linear(8 * 36, 5), flatten=nn.Flatten())
    flat, images = code(text), pictures()
    expected = flat_nodes(Written(lambda m, x: m.fc(m.one(x).flatten(1)), **layers), images)
    assert torch.equal(
        flat_nodes(Written(lambda m, x: m.fc(flat(m, m.one(x))), **layers)), expected
    )


@pytest.mark.parametrize(
    "text",
    [
        "x.mean([2, 3])",
        "x.mean((-1, -2))",
        "x.mean((2, 3), keepdim=True).flatten(1)",
        "x.mean([2, 3], True).flatten(1)",
        "x.mean(dim=[2, -1])",
        "torch.mean(x, dim=(3, 2))",
        "F.adaptive_avg_pool2d(x, 1).flatten(1)",
        "F.adaptive_avg_pool2d(x, output_size=(1, 1)).flatten(1)",
        "F.avg_pool2d(x, 6).flatten(1)",
        "F.avg_pool2d(x, x.size()[2:]).flatten(1)",
        "F.avg_pool2d(x, x.shape[-1]).flatten(1)",
        "F.avg_pool2d(x, kernel_size=(6, 6), stride=1).squeeze(3).squeeze(2)",
        "x.mean(3).mean(2)",
        "x.flatten(2).mean(2)",
        "x.flatten(2).mean(dim=-1)",
        "x.sum((2, 3)) / 36",
    ],
)
def test_averaging_in_any_way(text):
    average = code(text, "x")
    try:
        got = flat_nodes(Written(lambda m, x: average(m.out(m.one(x))), **convs()))
    except Unsupported as error:
        assert "cannot be backtracked" in str(error)
        return
    assert torch.equal(got, flat_nodes(spelled(lambda m, x: x)))


@pytest.mark.parametrize(
    "text",
    [
        "F.max_pool2d(x, 2)",
        "F.max_pool2d(x, 2, 2)",
        "F.max_pool2d(x, kernel_size=2, stride=None)",
        "F.max_pool2d(x, (2, 2), ceil_mode=True)",
        "torch.max_pool2d(x, 2)",
        "F.adaptive_max_pool2d(x, 3)",
        "F.max_pool2d(x, x.shape[-1] // 3)",
        "m.pool(x)",
    ],
)
def test_max_pooling_in_any_way(text):
    pool = code(text)
    got = flat_nodes(spelled(pool, pool=nn.MaxPool2d(2)))
    assert torch.equal(got, flat_nodes(spelled(lambda m, x: m.pool(x), pool=nn.MaxPool2d(2))))


@pytest.mark.parametrize("size", [(2, 3), (5, 4), (7, 9), (1, 6)])
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_adaptive_pooling_to_sizes_that_do_not_divide(kind, size):
    """Every position's window is where the output depends on the input."""
    model, image = nn.Sequential(kind(size), nn.Flatten()), pictures(1, 6, 7)
    ways = (from_every_unit(model, image, Rules(average=a)) for a in ("max", "positive"))
    best, every = (held(paths.layers[IMAGE]) for paths in ways)
    for unit in range(3 * prod(size)):
        x = image.clone().requires_grad_()
        nn.AdaptiveAvgPool2d(size)(x).flatten()[unit].backward()
        window = [tuple(place) for place in (x.grad[0] > 0).nonzero().tolist()]
        (largest_of,) = [p for p in window if image[0][p] == max(image[0][q] for q in window)]
        assert [key for key in best if key[0] == unit] == [(unit, *largest_of, 1)]
        if kind is nn.AdaptiveAvgPool2d:
            assert [key for key in every if key[0] == unit] == [(unit, *p, 1) for p in window]


def test_flattening_what_has_no_extent():
    """1 x 1 maps, and an average that is flat already."""
    fc = weighted(nn.Linear(3, 1, bias=False), [[1, 1, 1]])
    for text in ("x.flatten(1)", "x.mean((2, 3)).flatten(1)", "x[:, :, 0, 0]"):
        model = Written(code(f"m.fc({text})"), fc=fc)
        assert seen_from(model, POINT, 0)[0][IMAGE] == {(0, 0, 0, 1): 1, (1, 0, 0, 1): 1}


def test_a_module_that_runs_twice():
    conv = weighted(nn.Conv2d(3, 3, 1, bias=False), [[0, 2, 0], [0, 0, 1], [1, 0, 0]])
    inner = nn.Sequential(conv, nn.ReLU(inplace=True))
    model = Written(lambda m, x: m.inner(m.inner(x)), inner=inner)
    seen = record(model, POINT)
    assert seen.names == [IMAGE, "inner.0", "inner.1", "inner.0:2", "inner.1:2", "flatten"]
    nodes, _ = seen_from(model, POINT, 2)  # blue: red before, green before that
    assert nodes["inner.0:2"] == {(2, 0, 0, 1): 1} and nodes["inner.0"] == {(0, 0, 0, 1): 1}
    assert nodes[IMAGE] == {(1, 0, 0, 1): 1}


def test_layers_that_are_no_modules_are_named_after_where_they_happen():
    names = record(build("resnet18", 3, seed=0), pictures(1, 32).float()).names
    assert names[:4] == [IMAGE, "normalise.sub", "normalise.truediv", "network.conv1"]
    assert "network.layer1.0.add" in names and names[-2:] == ["network.flatten", "network.fc"]
    assert len(set(names)) == len(names)
    reused = Written(lambda m, x: m.block(m.block(x)), block=Written(lambda m, x: x + x))
    assert record(reused, POINT).names == [
        IMAGE,
        "block.add",
        "block.flatten",
        "block.add:2",
        "block.flatten:2",
        "flatten",
    ]


class Defaults(nn.Module):
    def forward(self, x, scale=2.0, name=None):
        return (x * scale).flatten(1)


def test_an_argument_with_a_default():
    assert record(Defaults(), POINT).logits.tolist() == [[2, 4, 0]]
    assert seen_from(Defaults(), POINT, 1)[0][IMAGE] == {(1, 0, 0, 1): 1}


class Unused(nn.Module):
    """Computes more than it answers."""

    def forward(self, x):
        logits = x.flatten(1)
        probabilities = logits.softmax(1)  # noqa: F841
        return logits


def test_a_result_that_nobody_uses_is_not_where_paths_start():
    assert seen_from(Unused(), POINT, 1)[0][IMAGE] == {(1, 0, 0, 1): 1}


@pytest.mark.parametrize(
    "text",
    [
        "x.max(2, keepdim=True)[0]",
        "torch.max(x, 2, keepdim=True).values",
        "x.sort(1, descending=True)[0]",
        "x.topk(2, 1)[0]",
        "m.pool(x)[0]",
        "F.max_pool2d(x, 2, return_indices=True)[0]",
        "torch.add(x, m.same(x), alpha=-2)",
        "x.add(m.same(x), alpha=-2)",
        "torch.cat([x, m.fixed.expand(2, 3, 8, 8)], 1)",
        "m.norm(x)",
        "x[:, :1] - m.fixed",
        "x.transpose(0, 1).relu().transpose(0, 1)",
        "x.reshape(-1, 3, 4, 8).relu().reshape(-1, 3, 8, 8)",
        "x.flip(3)",
        "x.roll(1, 3)",
        "F.pad(x, (1, 1))",
        "x.clamp(0, 1)",
        "x.sum((2, 3))",
        "x - m.same(x).mean((2, 3), keepdim=True)",
        "1 / (x + 1)",
        "x / (m.same(x) + 1)",
        "x * m.same(x)",
        "x * x",
        "x**2",
        "F.interpolate(x, scale_factor=2)",
        "torch.stack([x, m.same(x)], 1)",
        "x + m.same(x).mean((2, 3), keepdim=True)",
        "F.conv2d(x, m.kernel)",
        "torch.where(x > 0.5, x, m.same(x))",
        "m.lone(x)",
        "x.expand(2, 3, 8, 8).abs()",
    ],
)
def test_what_has_no_rule_is_refused(text):
    """Silently going somewhere else would be worse than an error."""
    model = Written(
        code(text),
        pool=nn.MaxPool2d(2, return_indices=True),
        same=nn.Identity(),
        norm=nn.BatchNorm2d(3, track_running_stats=False),
        lone=nn.InstanceNorm2d(3, affine=True),
    ).double()
    model.fixed = nn.Parameter(torch.full((1, 3, 1, 1), 0.5).double())
    model.kernel = nn.Parameter(torch.ones(1, 3, 1, 1).double())
    images = pictures()
    with pytest.raises(Unsupported):
        for unit in range(model.eval()(images).shape[1]):
            record(model, images).backtrack(torch.tensor([unit] * 2))


class Aliased(nn.Module):
    """What is added is not the image but what the ReLU left of it."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = x - 0.5
        return (self.relu(x) + 2 * x).flatten(1)


def test_a_network_that_needs_its_overwriting_answers_as_itself_or_is_refused():
    images = pictures()
    try:
        assert torch.allclose(record(Aliased(), images).logits, Aliased()(images))
    except ValueError as error:
        assert "overwrite" in str(error)


def test_printing_a_recording_of_many_branches_takes_no_time():
    double = lambda m, x: [x := x + x for _ in range(14)][-1]  # noqa: E731
    seen = record(Written(double), POINT)
    assert len(repr(seen)) < 10_000 and len(repr(seen.steps[-1])) < 10_000
    assert seen.backtrack(torch.tensor([1])).pixels.item() == 1


# ---------------------------------------- what cannot be backtracked


@pytest.fixture
def untyped(monkeypatch):
    """As outside the tests, where no signature is checked."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


def test_images_that_cannot_be_taken(untyped):
    model, images = build("alexnet", 3, seed=0), pictures(3, 64).float()
    for bad, says in (
        (images[:0], "no image"),
        (images[:, :2], "must match the size|cannot take images of 2 x 64 x 64"),
        (images[:, [0, 1, 2, 0]], "must match the size|cannot take images of 4 x 64 x 64"),
        (images[:, :, :20, :20], "cannot take images of 3 x 20 x 20"),
        (images[0], "cannot take images"),
        (images.double(), "cannot take images of 3 x 64 x 64: .*(Double|double|Float|float)"),
    ):
        with pytest.raises(ValueError, match=says):
            record(model, bad)
    with pytest.raises(ValueError):  # one colour for three, which the normalisation would accept
        backtrack(model, images[:, :1])
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = images.clone()
        broken[1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="image 1 has values that are not finite"):
            record(model, broken)
    with pytest.raises(ValueError, match="image 2 has values that are not finite"):
        backtrack(model, images.index_fill(0, torch.tensor([2]), torch.nan), batch_size=2)
    assert backtrack(model, images[:0]).shape == (0, 64, 64)


def test_starts_that_do_not_exist(untyped):
    model, images = vgg(), pictures()
    seen = record(model, images)
    for start, layer, says in (
        ([0], None, "2 images need as many starts, .* not \\[1\\]"),
        ([0, 1, 2], None, "2 images need as many starts"),
        ([0.0, 1.0], None, "whole numbers"),
        ([[[0]], [[1]]], None, "2 images need as many starts"),
        ([0, 4], None, "outside '14', whose units are 0 to 3; the starts reach from .0. to .4."),
        ([-1, 0], None, "the starts reach from .-1. to .0."),
        ([[0, 0], [0, 0]], None, "outside '14'"),
        ([0, 384], "1", "outside '1', whose units are 0 to 383"),
        ([[0, 0, 0], [5, 7, 8]], "1", "units are 0 to 5, 7, 7; .* from .0, 0, 0. to .5, 7, 8."),
        ([[0, 0], [0, 0]], "1", "outside '1'"),
        ([0, 0], "fc", "no layer is called 'fc'; the uppermost are .*'?13'?, '?14'?"),
    ):
        with pytest.raises(ValueError, match=says):
            seen.backtrack(torch.tensor(start), layer)
    zeros = torch.tensor([0, 0])
    with pytest.raises(ValueError, match="no layer is called 'conv'"):
        seen.backtrack(zeros, until="conv")
    with pytest.raises(ValueError, match="no layer is called 'conv'"):
        seen.shape("conv")
    with pytest.raises(ValueError, match="paths from '4' do not come past '5' above it"):
        seen.backtrack(zeros, "4", until="5")
    assert list(seen.backtrack(zeros, "4", until="4").layers) == ["4"]
    for classes, says in (
        ([0], "1 classes for 2 images"),
        ([0, 4], "outside '14'"),
        ([0, -1], "outside '14'"),
        ([0.0, 1.0], "whole numbers"),
    ):
        with pytest.raises(ValueError, match=says):
            backtrack(model, images, torch.tensor(classes))
    with pytest.raises(ValueError, match="at least 1 image, not 0"):
        backtrack(model, images, batch_size=0)


def test_rules_that_do_not_exist():
    for wrong, says in (
        ({"fully_connected": "all"}, "fully_connected is 'all'; valid are positive, topn, literal"),
        ({"channel": "maximum"}, "Rules.channel is 'maximum'; valid are max, positive, literal"),
        ({"pixel": ""}, "Rules.pixel is ''; valid are contribution, activation"),
        ({"average": "mean"}, "Rules.average is 'mean'; valid are max, positive"),
        ({"n": 0}, "Rules.n is 0; at least one"),
        ({"n": -3}, "Rules.n is -3"),
    ):
        with pytest.raises(ValueError, match=says):
            Rules(**wrong)
    paths = record(vgg(), pictures()).backtrack(torch.tensor([0, 1]), rules=Rules("topn", n=1000))
    assert torch.equal(paths.pixels, backtrack(vgg(), pictures(), torch.tensor([0, 1])))


def test_an_operation_without_a_rule_is_named_with_its_place(quick_weights):
    images = pictures(1, 8)
    deep = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sequential(nn.LayerNorm(6)), nn.Flatten()).double()
    with pytest.raises(Unsupported, match="LayerNorm at '1.0' cannot be backtracked; .*Conv2d"):
        record(deep, images).backtrack(torch.tensor([0]))
    vit = build("vit_b_16", 3, seed=0)
    resized = copy.deepcopy(vit.network)
    resized.image_size, resized.seq_length = 32, 5
    resized.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 5, 768))
    seen = record(resized, pictures(1, 32).float())
    with pytest.raises(Unsupported, match="LayerNorm at 'encoder.ln' cannot be backtracked"):
        seen.backtrack(torch.tensor([0]))
    assert len(seen.backtrack(torch.tensor([0]), until="encoder.ln").layers) >= 2  # down to there
    for function, says in (
        (lambda m, x: x * m.same(x), "'mul' multiplies two maps and neither is a gate"),
        (lambda m, x: x + x.mean((2, 3), keepdim=True), "'add' adds maps of different shapes"),
        (lambda m, x: m.same(x).exp(), "exp at 'exp'"),
        (lambda m, x: m.linear(x), "'linear' is a linear layer on maps"),
        (lambda m, x: m.reflect(x), "'reflect' pads by 'reflect'"),
        (lambda m, x: m.even(x), "'even' pads by 'zeros', 'same'"),
        (lambda m, x: m.inner(x), "softmax at 'inner.softmax'"),
    ):
        model = Written(
            function,
            same=nn.Identity(),
            linear=nn.Linear(8, 2),
            reflect=nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"),
            even=nn.Conv2d(3, 2, 3, padding="same"),
            inner=Written(lambda m, x: x.softmax(1)),
        )
        with pytest.raises(Unsupported, match=says):
            record(model.double(), images).backtrack(torch.tensor([0]))


def test_a_network_whose_way_depends_on_the_image_is_refused():
    for function in (
        lambda m, x: x if x.sum() > 0 else -x,
        lambda m, x: torch.stack(list(x)),
        lambda m, x: x[:, : int(x.max())],
    ):
        model = Written(function, conv=nn.Conv2d(3, 3, 1)).train()
        before = state(model)
        with pytest.raises(Unsupported, match="torch.fx cannot trace this network"):
            record(model, pictures())
        assert same_state(before, state(model))


class Answers(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x):
        y = x.flatten(1)
        return {"tuple": (y, x), "dict": {"out": y}, "maps": x, "list": [y], "one": y.sum(1)}[
            self.kind
        ]


@pytest.mark.parametrize("kind", ["tuple", "dict", "maps", "list", "one"])
def test_an_answer_that_is_no_row_of_logits_is_refused(kind):
    with pytest.raises(ValueError, match="output is not one row of logits per image"):
        record(Answers(kind), pictures())


def test_a_dead_path_says_where_it_ended():
    """A class that only its bias speaks for, and a second whose only input is silent."""
    conv = weighted(nn.Conv2d(3, 2, 1), [[1, 0, 0], [-1, -1, 1]], [0, 5])
    fc = weighted(nn.Linear(2, 3), [[-1, -1], [0, 1], [1, 0]], [9, 0, 0])
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), fc)
    images = POINT.repeat(3, 1, 1, 1)
    paths = record(model, images).backtrack(torch.tensor([0, 1, 2]))
    assert paths.pixels.flatten().tolist() == [0, 0, 1]
    assert {k: v.tolist() for k, v in paths.ended.items()} == {"3": [1, 0, 0], "0": [0, 1, 0]}
    assert not attention(paths.pixels, 1.0)[:2].any()
    assert bounding_box(paths.pixels).tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 1]]
    # paths that met before they ended are all counted
    again = weighted(nn.Linear(3, 2), [[0, 1, 0], [0, 1, 0]], [0, 0])
    wide = nn.Sequential(*model, again, weighted(nn.Linear(2, 1), [[1, 1]], [0]))
    paths = record(wide, POINT).backtrack(torch.tensor([0]))
    assert {k: v.tolist() for k, v in paths.ended.items()} == {"0": [2]}
    assert not paths.pixels.any() and not len(paths.layers[IMAGE])


# ---------------------------------------- what the pixels are good for


def points(h: int, w: int, **counts) -> Tensor:
    """One image with so many paths at "y_x"."""
    pixels = torch.zeros(1, h, w).double()
    for name, times in counts.items():
        y, x = map(int, name[1:].split("_"))
        pixels[0, y, x] = times
    return pixels


def test_attention_by_hand():
    one = attention(points(9, 12, a3_4=5), sigma=1.5)[0]
    for y, x in product(range(9), range(12)):
        bell = exp(-((y - 3) ** 2 + (x - 4) ** 2) / (2 * 1.5**2))
        assert one[y, x].item() == pytest.approx(bell, abs=1e-6), (y, x)
    two = points(1, 12, a0_2=3, a0_6=1)
    for weigh, first in ((True, 3), (False, 1)):
        expected = torch.tensor(
            [first * exp(-((x - 2) ** 2) / 2) + exp(-((x - 6) ** 2) / 2) for x in range(12)]
        )
        got = attention(two, sigma=1.0, weigh=weigh)[0, 0]
        assert torch.allclose(got, expected / expected.max(), atol=2e-5)
    many = attention(points(5, 5, a2_2=1e15), 1.0)
    assert torch.allclose(many, attention(points(5, 5, a2_2=1), 1.0))
    assert torch.equal(attention(torch.zeros(2, 4, 5).double(), 2.0), torch.zeros(2, 4, 5))
    assert attention(torch.zeros(0, 4, 5), 2.0).shape == (0, 4, 5)
    for sigma in (0.0, -1.0, torch.nan):
        with pytest.raises(ValueError, match="positive standard deviation"):
            attention(two, sigma)


@given(st.integers(0, 10**6), st.floats(0.2, 8), st.booleans())
def test_attention_is_between_0_and_1_and_every_image_has_its_own(seed, sigma, weigh):
    counts = torch.randint(0, 30, (3, 7, 10), generator=torch.Generator().manual_seed(seed))
    pixels = counts.clamp(min=25).double() - 25
    pixels[1] = 0
    maps = attention(pixels, sigma, weigh)
    assert maps.min() >= 0 and maps.amax((1, 2)).tolist() == [1, 0, 1]
    for row in range(3):
        alone = attention(pixels[row : row + 1], sigma, weigh)
        assert torch.allclose(maps[row], alone[0], atol=1e-5)
    assert torch.allclose(attention(pixels * 7, sigma, weigh), maps, atol=1e-5)
    assert torch.allclose(attention(pixels.flip(2), sigma, weigh).flip(2), maps, atol=1e-5)


def strays_out(pixels: Tensor, share: Fraction, radius: Fraction) -> Tensor:
    """Point by point, in exact numbers."""
    h, w = pixels.shape
    spots = pixels.nonzero().tolist()
    kept = torch.zeros_like(pixels)
    for y, x in spots:
        reach = radius**2 * (h * h + w * w)
        near = sum((y - v) ** 2 + (x - u) ** 2 <= reach for v, u in spots)
        if near > share * len(spots):
            kept[y, x] = pixels[y, x]
    return kept


@settings(max_examples=200)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 60),
    st.integers(0, 100),
    st.integers(0, 20),
)
def test_strays_drop_out_one_by_one(seed, size, percent, share, radius):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 100, (2, *size), generator=generator)
    pixels = (percent - drawn).clamp(min=0).double()
    share, radius = Fraction(share, 100), Fraction(radius, 20)
    got = without_strays(pixels, float(share), float(radius))
    assert torch.equal(got, torch.stack([strays_out(p, share, radius) for p in pixels]))


def test_strays_by_hand():
    """Twenty pixels: one alone is 5 % of them, which is at most 5 %."""
    pixels = torch.zeros(1, 30, 40).double()
    pixels[0, :2, :9], pixels[0, 20, 20], pixels[0, 20, 30] = 2, 7, 7
    kept = without_strays(pixels)
    assert kept[0, :2, :9].eq(2).all() and kept.count_nonzero() == 18
    pixels[0, 20, 26] = 7  # within 5 px, a tenth of the diagonal, of one of them: 2 of 21
    assert without_strays(pixels).count_nonzero() == 20
    pixels[0, 20, 25:27] = torch.tensor([7, 0])  # 5 px from both
    assert without_strays(pixels).count_nonzero() == 21
    assert torch.equal(without_strays(pixels, share=0.0), pixels)
    assert not without_strays(pixels, share=1.0).any()
    assert not without_strays(torch.zeros(2, 5, 5).double()).any()


def test_bounding_boxes():
    pixels = torch.zeros(5, 6, 9).double()
    pixels[0, 2, 3] = 4
    pixels[1, 1, 7], pixels[1, 4, 2] = 1, 0.5
    pixels[2] = 1
    pixels[3, 5, 8], pixels[3, 0, 0] = 1, 1
    expected = [[3, 2, 4, 3], [2, 1, 8, 5], [0, 0, 9, 6], [0, 0, 9, 6], [0, 0, 0, 0]]
    assert bounding_box(pixels).tolist() == expected


def test_cells():
    """Fig. 2: an image of 224 px in 7 x 7 boxes of 32 px."""
    shape, one = (512, 7, 7), torch.ones(4)
    flat = lambda c, y, x: (c * 7 + y) * 7 + x  # noqa: E731
    index = torch.tensor([flat(3, 2, 5), flat(500, 2, 5), flat(7, 6, 0), flat(0, 0, 6)])
    image, count = torch.tensor([0, 0, 0, 1]), torch.tensor([2.0, 2, 3, 1]).double()
    paths, box = cells(Nodes(shape, image, index, one, count), 2, (224, 224))
    assert paths.shape == (2, 7, 7) and paths[0, 2, 5] == 4 and paths[0, 6, 0] == 3
    assert box.tolist() == [[160, 64, 192, 96], [192, 0, 224, 32]]
    nodes = Nodes((1, 3, 2), image[-1:], torch.tensor([3]), one[:1], count[:1])
    _, uneven = cells(nodes, 2, (10, 7))
    assert uneven[1].tolist() == [4, 3, 7, 7]  # rows of 10 / 3, columns of 3.5 px


def test_the_whole_way_of_figure_2():
    model = vgg()
    seen = record(model, pictures())
    paths = seen.backtrack(torch.tensor([1, 3]), until="7")
    maps, box = cells(paths.layers["7"], 2, paths.size)
    assert maps.shape == (2, 2, 2) and (box[:, 2:] - box[:, :2]).tolist() == [[4, 4]] * 2
    assert torch.equal(maps, paths.layers["7"].dense(2).sum(1))
