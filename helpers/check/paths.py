"""The exercises of notebook 03."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Generator, Tensor, nn

from helpers import backtracking as bt
from helpers import saliency
from helpers.check.inputs import between, flags, normal, sides, uniform
from helpers.check.judging import Exercise, Question

_CHANNELS = 3  # what the package's backtracking ends at is an image


def _backtracked(layer: nn.Module, a: Tensor, start: Tensor) -> tuple[int, int, int]:
    """Where one step of the package's leads from a flat index of the layer's output."""
    paths = bt.record(nn.Sequential(layer, nn.Flatten()), a[None]).backtrack(start)
    channel, row, column = (int(k[0]) for k in paths.layers[bt.IMAGE].where)
    return channel, row, column


def _max_pooling(
    a: Float[Tensor, "c h w"], channel: int, row: int, column: int, size: int, stride: int
) -> tuple[int, int, int]:
    layer = nn.MaxPool2d(size, stride)
    _, h, w = layer(a[None])[0].shape
    return _backtracked(layer, a, torch.tensor([(channel * h + row) * w + column]))


def _to_pool(generator: Generator) -> tuple[Tensor, int, int, int, int, int]:
    c, size = _CHANNELS, between(generator, 2, 3)
    stride = between(generator, 1, size)
    rows, columns = between(generator, 2, 3), between(generator, 4, 5)
    a = uniform(generator, c, (rows - 1) * stride + size, (columns - 1) * stride + size)
    at = (between(generator, 0, n - 1) for n in (c, rows, columns))
    return a, *at, size, stride


def _window(a: Tensor, row: int, column: int, size: int, stride: int) -> Tensor:
    return a[:, row * stride :, column * stride :][:, :size, :size]


def _within(values: Tensor) -> tuple[int, int]:
    """Row and column of the maximum."""
    flat = int(values.argmax())
    return flat // values.shape[1], flat % values.shape[1]


def _pooled_as(change: Callable[..., tuple]) -> Callable[..., tuple]:
    """Something else of the right place and of the arguments."""
    return lambda *given: change(_max_pooling(*given), *given)


max_pooling = Exercise(
    _max_pooling,
    _to_pool,
    {
        "This is the place inside the window; wanted is the place in the whole map: add where the "
        "window starts.": _pooled_as(
            lambda at, a, c, y, x, size, stride: (c, at[1] - y * stride, at[2] - x * stride)
        ),
        "The window starts at (row, column); it starts at stride times that.": (
            lambda a, c, y, x, size, stride: (
                c,
                *(
                    k + o
                    for k, o in zip(_within(_window(a, y, x, size, 1)[c]), (y, x), strict=True)
                ),
            )
        ),
        "Row and column have changed places in the result.": _pooled_as(
            lambda at, *_: (at[0], at[2], at[1])
        ),
        "Inside the window row and column have changed places.": (
            lambda a, c, y, x, size, stride: (
                c,
                *(
                    k * stride + o
                    for k, o in zip(
                        (y, x), _within(_window(a, y, x, size, stride)[c])[::-1], strict=True
                    )
                ),
            )
        ),
        "The maximum is sought in all channels; pooling looks at its own channel only.": (
            lambda a, c, y, x, size, stride: _best_of_all(
                _window(a, y, x, size, stride), y, x, stride
            )
        ),
        "The minimum is followed; the maximum is the cause.": (
            lambda a, c, y, x, size, stride: _max_pooling(-a, c, y, x, size, stride)
        ),
        "The maximum of the whole channel is followed; it should be that of the window.": (
            lambda a, c, *_: (c, *_within(a[c]))
        ),
    },
    edges=((torch.arange(12.0).view(3, 2, 2), 1, 0, 0, 2, 2),),
    draws=24,
)


def _best_of_all(window: Tensor, y: int, x: int, stride: int) -> tuple[int, int, int]:
    channel, row, column = np.unravel_index(int(window.argmax()), tuple(window.shape))
    return int(channel), int(row) + y * stride, int(column) + x * stride


def _convolution(
    a: Float[Tensor, "c h w"],
    weight: Float[Tensor, "c k k"],
    row: int,
    column: int,
    stride: int,
    padding: int,
) -> tuple[int, int, int]:
    c, k, _ = weight.shape
    layer = nn.Conv2d(c, 1, k, stride, padding, bias=False)
    layer.weight = nn.Parameter(weight[None].clone())
    columns = layer(a[None]).shape[3]
    return _backtracked(layer, a, torch.tensor([row * columns + column]))


def _to_convolve(generator: Generator) -> tuple[Tensor, Tensor, int, int, int, int]:
    c, stride, padding = _CHANNELS, between(generator, 1, 2), between(generator, 0, 1)
    h, w = between(generator, 4, 5), between(generator, 6, 7)
    a = 0.05 + uniform(generator, c, h, w)  # behind a ReLU, and none of them silent
    rows, columns = ((side + 2 * padding - 3) // stride + 1 for side in (h, w))
    at = between(generator, 0, rows - 1), between(generator, 0, columns - 1)
    return a, normal(generator, c, 3, 3), *at, stride, padding


def _convolved(
    choose: Callable[[Tensor, Tensor], tuple[int, int, int]],
    start: Callable[..., int] = lambda at, stride, padding: at * stride - padding,
) -> Callable[..., tuple]:
    """Another choice of (channel, row, column) in the window's (values, products), or another
    start of the window."""

    def mistaken(
        a: Tensor, weight: Tensor, row: int, column: int, stride: int, padding: int
    ) -> tuple:
        padded = nn.functional.pad(a, (padding,) * 4)
        window = _window(padded, row, column, weight.shape[1], stride)
        channel, y, x = choose(window, window * weight)
        return channel, y + start(row, stride, padding), x + start(column, stride, padding)

    return mistaken


def _by_sum(products: Tensor) -> int:
    return int(products.sum((1, 2)).argmax())


def _usual_place(values: Tensor, products: Tensor) -> tuple[int, int, int]:
    live = products.masked_fill(values == 0, -torch.inf)
    return (c := _by_sum(products)), *_within(live[c])


convolution = Exercise(
    _convolution,
    _to_convolve,
    {
        "The padding is forgotten: the place is off by it, because the window starts `padding` "
        "rows and columns further up and left.": _convolved(
            _usual_place, lambda at, stride, padding: at * stride
        ),
        "This is the place inside the window; wanted is the place in the map.": _convolved(
            _usual_place, lambda at, stride, padding: 0
        ),
        "The stride is forgotten: the window starts at stride times (row, column), minus the "
        "padding.": _convolved(_usual_place, lambda at, stride, padding: at - padding),
        "The channel is that of the largest single product; it should be that of the largest "
        "sum over the window.": _convolved(
            lambda a, p: (
                c := int(p.masked_fill(a == 0, -torch.inf).amax((1, 2)).argmax()),
                *_within(p.masked_fill(a == 0, -torch.inf)[c]),
            )
        ),
        "The position is that of the largest activation; it should be that of the largest product "
        "with the weight.": _convolved(lambda a, p: ((c := _by_sum(p)), *_within(a[c]))),
        "The position is that of the largest weight; it should be that of the largest product with "
        "the activation.": _convolved(
            lambda a, p: (
                (c := _by_sum(p)),
                *_within((p / a.clamp(min=1e-9)).masked_fill(a == 0, -torch.inf)[c]),
            )
        ),
        "The channel is that of the largest sum of activations; the products with the weights "
        "should be summed.": _convolved(
            lambda a, p: (
                (c := int(a.sum((1, 2)).argmax())),
                *_within(p.masked_fill(a == 0, -torch.inf)[c]),
            )
        ),
        "Row and column have changed places in the result.": (
            lambda *given: tuple(_convolution(*given)[k] for k in (0, 2, 1))
        ),
        "A padding of 1 is taken for granted; it is `padding`, and may be 0.": (
            lambda a, weight, row, column, stride, padding: _convolved(_usual_place)(
                a, weight, row, column, stride, 1
            )
        ),
        "The weights are mirrored, as in a convolution of mathematics; networks multiply each "
        "weight with the value at its own place.": (
            lambda a, weight, *rest: _convolution(a, weight.flip(1, 2), *rest)
        ),
        "A place in the padding is followed where all products are negative; only places in the "
        "map are nodes.": _convolved(lambda a, p: ((c := _by_sum(p)), *_within(p[c]))),
    },
    edges=(
        (
            torch.tensor([[[1.0, 2], [3, 4]], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]),
            torch.tensor([-1.0, -9, -9]).view(3, 1, 1).expand(3, 2, 2),
            0,
            0,
            1,
            1,
        ),
    ),
    draws=16,
)


def _f_beta(
    predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]
) -> Float64[Tensor, " n"]:
    return saliency.overlap(predicted, truth)["f_beta"]


def _two_masks(generator: Generator) -> tuple[Tensor, Tensor]:
    n, (h, w) = between(generator, 2, 4), sides(generator)
    share = 0.3 + 0.6 * float(uniform(generator, 1))
    predicted = uniform(generator, n, h, w) < share
    predicted[:, 0, 0] = True
    return predicted, flags(generator, n, h, w)


def _of_p_and_r(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A measure of precision and recall; 0 where nothing is predicted."""

    def mistaken(predicted: Tensor, truth: Tensor) -> Tensor:
        known = saliency.overlap(predicted, truth)
        return measure(known["precision"], known["recall"]).nan_to_num(0)

    return mistaken


f_beta = Exercise(
    _f_beta,
    _two_masks,
    {
        "This is F1, which weighs precision and recall alike; beta squared is 0.3.": _of_p_and_r(
            lambda p, r: 2 * p * r / (p + r)
        ),
        "beta squared is 0.3; here it is 0.3 times 0.3.": _of_p_and_r(
            lambda p, r: 1.09 * p * r / (0.09 * p + r)
        ),
        "Precision and recall have changed places: beta squared belongs to the precision, below "
        "the line.": _of_p_and_r(lambda p, r: 1.3 * p * r / (p + 0.3 * r)),
        "The factor 1 + beta squared is missing, so that a perfect mask would not get 1.": (
            _of_p_and_r(lambda p, r: p * r / (0.3 * p + r))
        ),
        "The factor is 1 + beta; it should be 1 + beta squared.": _of_p_and_r(
            lambda p, r: (1 + 0.3**0.5) * p * r / (0.3 * p + r)
        ),
        "This is precision.": _of_p_and_r(lambda p, r: p),
        "This is recall.": _of_p_and_r(lambda p, r: r),
        "This is the intersection over union.": lambda p, t: saliency.overlap(p, t)["iou"],
        "The pixels of all images are pooled; each image has its own F.": lambda p, t: torch.tensor(
            saliency.pooled(p, t)["f_beta"]
        ),
        "This is the mean over images; wanted is one number for each.": lambda p, t: _f_beta(
            p, t
        ).mean(),
    },
    edges=(
        (torch.tensor([[[True, False]]]), torch.tensor([[[True, False]]])),
        (torch.tensor([[[False, False]]]), torch.tensor([[[True, False]]])),
    ),
)


def _hand_made_pixel(target: int) -> tuple[int, int]:
    """Where the paths of a class end in notebook 03's network made by hand."""
    image = torch.zeros(1, 3, 4, 4)  # red alone
    image[0, 0] = torch.tensor([[1.0, 0, 2, 1], [0, 3, 0, 0], [4, 0, 0, 1], [0, 1, 2, 0]])
    convolve, decide = nn.Conv2d(3, 2, 2, stride=2, bias=False), nn.Linear(2, 2, bias=False)
    convolve.weight.data = torch.stack((torch.eye(2), torch.eye(2).flip(0)))[:, None].repeat(
        1, 3, 1, 1
    )
    decide.weight.data = torch.tensor([[2.0, -1], [-1, 2]])
    model = nn.Sequential(convolve, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), decide)
    pixels = bt.backtrack(model, image, torch.tensor([target]))[0]
    row, column = pixels.nonzero()[0].tolist()
    return row, column


QUESTIONS = {
    "03-other-class": Question(
        lambda: _hand_made_pixel(1),
        {
            "This is where the paths of the first class end.": lambda: _hand_made_pixel(0),
            "Rows come first: this is (column, row).": lambda: _hand_made_pixel(1)[::-1],
            "Rows and columns are counted from 0.": lambda: tuple(
                k + 1 for k in _hand_made_pixel(1)
            ),
        },
    ),
}
