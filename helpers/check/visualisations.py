"""The exercises of notebook 01."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor, nn

from helpers import backgrounds
from helpers import feature_visualization as fv
from helpers.check.inputs import between, flags, normal, picture, sides, uniform
from helpers.check.judging import Exercise, Question
from helpers.models import Normalised


def _noise(
    images: UInt8[Tensor, "n 3 h w"],
    masks: Bool[Tensor, "n h w"],
    drawn: Float[Tensor, "n 3 h w"],
) -> UInt8[Tensor, "n 3 h w"]:
    return backgrounds.compose(images, _grain(drawn), masks)


def _grain(drawn: Tensor, scale: float = 127.5) -> Tensor:
    return (scale * drawn).clamp(0, 255).round().byte()


def _behind(images: Tensor, masks: Tensor, background: Tensor) -> Tensor:
    return torch.where(masks[:, None], images, background)


def _cut_out(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, (h, w) = between(generator, 1, 3), sides(generator)
    shape = (n, 3, h, w)
    return (
        picture(generator, *shape),
        flags(generator, n, h, w),
        normal(generator, *shape),
    )


noise = Exercise(
    _noise,
    _cut_out,
    {
        "The noise is not cut off at 0 and 255 before it becomes uint8, so that it wraps around: "
        "-1 becomes 255.": lambda i, m, d: _behind(i, m, (127.5 * d).round().long().byte()),
        "It wraps around: noise below 0 or above 255 has to be cut off (clamp) before it "
        "becomes uint8.": lambda i, m, d: _behind(i, m, (127.5 * d).long().byte()),
        "The mask is the wrong way round: True is the object, which stays.": lambda i, m, d: (
            _behind(i, ~m, _grain(d))
        ),
        "The object has noise on it, too: only the background is replaced.": lambda i, m, d: (
            (i * m[:, None] + 127.5 * d).clamp(0, 255).round().byte()
        ),
        "The noise is added to the old background: the paper makes it black first.": (
            lambda i, m, d: _behind(i, m, (i + 127.5 * d).clamp(0, 255).round().byte())
        ),
        "The standard deviation is 0.5 of the range [0, 1]: in bytes, 127.5.": lambda i, m, d: (
            _behind(i, m, _grain(d, 0.5))
        ),
        "The noise is twice as strong: its standard deviation is 0.5, not 1, of the range.": (
            lambda i, m, d: _behind(i, m, _grain(d, 255))
        ),
        "The noise lies around grey, 127.5; its mean is 0, so that half of it is black.": (
            lambda i, m, d: _behind(i, m, _grain(d + 1))
        ),
        "The negative half of the noise is mirrored; it is cut off at 0.": lambda i, m, d: _behind(
            i, m, _grain(d.abs())
        ),
        "The values are cut down to whole numbers; round() them to the nearest.": lambda i, m, d: (
            _behind(i, m, (127.5 * d).clamp(0, 255).byte())
        ),
    },
    tolerance=1e-6,
)


def _objective(
    model: nn.Sequential,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    l2: float,
) -> Float[Tensor, " n"]:
    return fv.objective(model, images, targets, fv.Ascent(l2=l2))


def _linear_network(weights: Float[Tensor, "classes values"], plain: bool) -> nn.Sequential:
    """A network with one layer; `plain` without a normalisation that would change anything."""
    normalise = Normalised((0.0,) * 3, (1.0,) * 3) if plain else Normalised()
    layer = nn.Linear(weights.shape[1], len(weights), bias=False)
    layer.weight = nn.Parameter(weights.clone())
    network = nn.Sequential(nn.Flatten(), layer)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network)).eval()


def _to_climb(generator: Generator) -> tuple[nn.Sequential, Tensor, Tensor, float]:
    n, (h, w), classes = (
        between(generator, 2, 4),
        sides(generator),
        between(generator, 3, 5),
    )
    model = _linear_network(normal(generator, classes, 3 * h * w) / 4, plain=False)
    targets = torch.randint(classes, (n,), generator=generator)
    return (
        model,
        uniform(generator, n, 3, h, w),
        targets,
        float(uniform(generator, 1)) / 10,
    )


def _scored(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The objective with something else in place of the logits (n, classes)."""

    def mistaken(model: nn.Sequential, images: Tensor, targets: Tensor, l2: float) -> Tensor:
        score = change(model(images)).gather(1, targets[:, None])[:, 0]
        return score - l2 * model.normalise(images).square().sum((1, 2, 3))

    return mistaken


def _pulled(penalty: Callable[[nn.Sequential, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """The objective with another penalty."""

    def mistaken(model: nn.Sequential, images: Tensor, targets: Tensor, l2: float) -> Tensor:
        return model(images).gather(1, targets[:, None])[:, 0] - penalty(model, images, l2)

    return mistaken


def _energy(images: Tensor) -> Tensor:
    return images.square().sum((1, 2, 3))


objective = Exercise(
    _objective,
    _to_climb,
    {
        "The score is taken after the softmax; the objective takes the logit before it, which "
        "does not fall when other classes rise.": _scored(lambda s: s.softmax(1)),
        "The score is the logarithm of the softmax; the objective takes the logit itself.": _scored(
            lambda s: s.log_softmax(1)
        ),
        "The score is the highest logit's; it should be the target's.": _scored(
            lambda s: s.amax(1, keepdim=True).expand_as(s)
        ),
        "The penalty has the wrong sign: it is subtracted.": _pulled(
            lambda model, x, l2: -l2 * _energy(model.normalise(x))
        ),
        "The penalty looks at the image in [0, 1], which pulls it towards black; it should look at "
        "the normalised image, model.normalise(images).": _pulled(
            lambda model, x, l2: l2 * _energy(x)
        ),
        "The penalty is the norm; it should be its square.": _pulled(
            lambda model, x, l2: l2 * _energy(model.normalise(x)).sqrt()
        ),
        "The penalty is a mean of squares; it should be their sum.": _pulled(
            lambda model, x, l2: l2 * model.normalise(x).square().mean((1, 2, 3))
        ),
        "The penalty sums over all images at once; it should be each image's own.": _pulled(
            lambda model, x, l2: l2 * _energy(model.normalise(x)).sum()
        ),
        "The penalty is missing.": _pulled(lambda model, x, l2: 0.0),
        "The image is normalised twice: `model` normalises by itself, `model.network` does not.": (
            lambda model, x, targets, l2: _scored(lambda s: s)(
                nn.Sequential(
                    OrderedDict(
                        normalise=model.normalise,
                        network=nn.Sequential(model.normalise, model.network),
                    )
                ),
                x,
                targets,
                l2,
            )
        ),
        "The network sees the image as it is: `model.network` expects a normalised one.": (
            lambda model, x, targets, l2: (
                model.network(x).gather(1, targets[:, None])[:, 0]
                - l2 * _energy(model.normalise(x))
            )
        ),
    },
)


def _step(
    images: Float[Tensor, "n 3 h w"], slope: Float[Tensor, "n 3 h w"], rate: float
) -> Float[Tensor, "n 3 h w"]:
    # a network whose n-th score has this slope everywhere
    model = _linear_network(slope.flatten(1), plain=True)
    return fv.ascend(model, torch.arange(len(images)), images, fv.Ascent(1, rate, l2=0.0))


def _on_the_way(generator: Generator) -> tuple[Tensor, Tensor, float]:
    n, (h, w) = between(generator, 2, 4), sides(generator)
    scales = 10 ** (4 * uniform(generator, n, 1, 1, 1) - 2)
    slope = scales * normal(generator, n, 3, h, w)
    return (
        uniform(generator, n, 3, h, w),
        slope,
        0.02 + 0.1 * float(uniform(generator, 1)),
    )


def _length(slope: Tensor) -> Tensor:
    return slope.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-12)


def _reach(images: Tensor, rate: float) -> float:
    return rate * images[0].numel() ** 0.5


step = Exercise(
    _step,
    _on_the_way,
    {
        "The step goes down: the score should rise.": lambda x, s, r: (
            x - _reach(x, r) * s / _length(s)
        ).clamp(0, 1),
        "The slope is not divided by its norm, so that networks with large scores climb faster.": (
            lambda x, s, r: (x + r * s).clamp(0, 1)
        ),
        "The slope is not divided by its norm, so that steep images climb faster.": (
            lambda x, s, r: (x + _reach(x, r) * s).clamp(0, 1)
        ),
        "The norm is that of the whole batch; each image has its own, or images would depend on "
        "who is in their batch.": lambda x, s, r: (x + _reach(x, r) * s / s.norm()).clamp(0, 1),
        "The step has the length `rate`; wanted is rate times the square root of the number of "
        "values in an image.": lambda x, s, r: (x + r * s / _length(s)).clamp(0, 1),
        "The step has the length `rate` times the number of values in an image; it is the square "
        "root of that number.": lambda x, s, r: (x + r * x[0].numel() * s / _length(s)).clamp(0, 1),
        "The values of the whole batch are counted; those of one image count, or its step would "
        "depend on who is in its batch.": lambda x, s, r: (
            x + r * x.numel() ** 0.5 * s / _length(s)
        ).clamp(0, 1),
        "The slope's length is right, but only its sign was used for the direction.": (
            lambda x, s, r: (x + r * s.sign()).clamp(0, 1)
        ),
        "The result leaves [0, 1]: clamp it after the step.": lambda x, s, r: (
            x + _reach(x, r) * s / _length(s)
        ),
        "The slope is divided by its largest value; wanted is its norm.": lambda x, s, r: (
            x + _reach(x, r) * s / s.abs().amax((1, 2, 3), keepdim=True)
        ).clamp(0, 1),
    },
    edges=((torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2), 0.1),),
)


def _score_slope(times: float) -> float:
    """How steep the score of a network is whose last layer is multiplied."""
    weights = times * torch.eye(2, 12)
    images = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    target = torch.tensor([0])
    scores = _objective(_linear_network(weights, plain=True), images, target, 0.0)
    return float(torch.autograd.grad(scores.sum(), images)[0].norm())


QUESTIONS = {
    "01-equal-strength": Question(
        lambda: _score_slope(2.0) / _score_slope(1.0),
        {
            "The penalty's slope is linear in its weight: a factor in front of the score needs the "
            "same factor in front of the penalty, not its square.": lambda: 4.0,
            "The other way round: a steeper score needs a stronger penalty.": lambda: 0.5,
            "A step has the same length whatever the scale, but its direction is a balance of "
            "both slopes.": lambda: 1.0,
        },
    ),
}
