"""The exercises of notebook 05."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from helpers import saliency
from helpers.check.inputs import between, flags, sides, uniform
from helpers.check.judging import Exercise, Question


def _rank_correlation(a: Float[Tensor, "h w"], b: Float[Tensor, "h w"]) -> float:
    return float(saliency.rank_similarity(a[None], b[None])[0])


def _two_maps(generator: Generator) -> tuple[Tensor, Tensor]:
    h, w = sides(generator)
    a, other = uniform(generator, h, w) ** 3, uniform(generator, h, w)
    b = (0.6 * a + 0.4 * other) ** 2
    return a * (a > a.median()), b * (b > b.median())  # half of a map is often exactly 0: ties


def _plain_ranks(values: Tensor) -> Tensor:
    return values.flatten().argsort(stable=True).argsort().double()


def _pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten().double(), b.flatten().double())))[0, 1])


def _without_ties(a: Tensor, b: Tensor) -> float:
    from scipy.stats import rankdata

    apart = rankdata(a.flatten()) - rankdata(b.flatten())
    n = len(apart)
    return float(1 - 6 * (apart**2).sum() / (n * (n**2 - 1)))


rank_correlation = Exercise(
    _rank_correlation,
    _two_maps,
    {
        "This is Pearson's correlation of the values; replace them by their ranks first.": _pearson,
        "Equal values get different ranks, in the order they stand; they share their mean rank "
        "(see scipy.stats.rankdata).": lambda a, b: _pearson(_plain_ranks(a), _plain_ranks(b)),
        "argsort gives the order, not the ranks: it says which value comes k-th.": lambda a, b: (
            _pearson(a.flatten().argsort(stable=True), b.flatten().argsort(stable=True))
        ),
        "The formula 1 - 6 sum d^2 / (n (n^2 - 1)) is for maps without equal values; correlate the "
        "ranks.": _without_ties,
        "This is one minus the correlation, a distance.": lambda a, b: 1 - _rank_correlation(a, b),
        "This is the correlation squared.": lambda a, b: _rank_correlation(a, b) ** 2,
        "The ranks are correlated row by row and then averaged; a map is ranked as a whole.": (
            lambda a, b: float(saliency.rank_similarity(a[:, None], b[:, None]).mean())
        ),
    },
    edges=(
        (torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 4], [9, 16]])),
        (torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[8.0, 6], [4, 2]])),
    ),
)


def _beyond_area(values: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]) -> float:
    inside = saliency.energy_inside(values[None], mask[None])[0]
    return 100 * (float(inside) - float(mask.float().mean()))


def _map_and_mask(generator: Generator) -> tuple[Tensor, Tensor]:
    h, w = sides(generator)
    values = uniform(generator, h, w)
    return values * (values > 0.3), flags(generator, h, w)


beyond_area = Exercise(
    _beyond_area,
    _map_and_mask,
    {
        "This is the share on the object alone; subtract the share of the image that the object "
        "covers, which a map of chance would have.": lambda v, m: (
            100 * float((v * m).sum() / v.sum())
        ),
        "This is the share divided by the area; wanted is the difference.": lambda v, m: float(
            (v * m).sum() / v.sum() / m.float().mean()
        ),
        "The pixels of the map are counted; its values should be summed.": lambda v, m: (
            100 * float(((v > 0) & m).sum() / (v > 0).sum() - m.float().mean())
        ),
        "The map's sum on the object is divided by the object's area; divide by the map's whole "
        "sum.": lambda v, m: 100 * float((v * m).sum() / m.sum() - m.float().mean()),
        "This is what lies beside the object: the mask is the wrong way round.": lambda v, m: (
            _beyond_area(v, ~m)
        ),
        "This is a share, 0 to 1; wanted are points, 0 to 100.": lambda v, m: (
            _beyond_area(v, m) / 100
        ),
        "The map's mean on the object is compared with its mean over the image; wanted are "
        "shares of the sum.": lambda v, m: 100 * float(v[m].mean() - v.mean()),
    },
    edges=(
        (torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[True, False], [False, False]])),
        (torch.ones(2, 3), torch.tensor([[True, False, False], [True, False, False]])),
    ),
)


def _interval(values: Float[Tensor, " n"], rows: Int64[Tensor, "b n"]) -> Float[Tensor, " 2"]:
    return values[rows].mean(1).quantile(torch.tensor([0.025, 0.975]))


def _resamples(generator: Generator) -> tuple[Tensor, Tensor]:
    n = between(generator, 6, 12)
    rows = torch.randint(n, (between(generator, 100, 200), n), generator=generator)
    return uniform(generator, n) ** 2, rows


def _ends(low: float, high: float) -> Tensor:
    return torch.tensor([low, high])


interval = Exercise(
    _interval,
    _resamples,
    {
        "These are percentiles of the values; wanted are those of the resamples' means.": (
            lambda v, rows: v.quantile(_ends(0.025, 0.975))
        ),
        "These are percentiles of all resampled values; take each resample's mean first.": (
            lambda v, rows: v[rows].flatten().quantile(_ends(0.025, 0.975))
        ),
        "The means are taken over resamples; wanted is one for each resample, over its n values.": (
            lambda v, rows: v[rows].mean(0).quantile(_ends(0.025, 0.975))
        ),
        "This leaves 5 % out at each end, a 90 % interval; 95 % leaves out 2.5 % at each end.": (
            lambda v, rows: v[rows].mean(1).quantile(_ends(0.05, 0.95))
        ),
        "The upper end comes first; wanted are low and then high.": lambda v, rows: _interval(
            v, rows
        ).flip(0),
        "These are the smallest and the largest mean; leave out 2.5 % at each end.": (
            lambda v, rows: torch.stack((v[rows].mean(1).amin(), v[rows].mean(1).amax()))
        ),
        "These are medians of the resamples; wanted are means.": lambda v, rows: (
            v[rows].quantile(0.5, dim=1).quantile(_ends(0.025, 0.975))
        ),
        "This is the mean plus and minus 1.96 standard deviations of the values, which says how "
        "the values spread, not how sure their mean is.": lambda v, rows: (
            v.mean() + v.std() * _ends(-1.96, 1.96)
        ),
        "This is the mean plus and minus 1.96 standard errors, a formula; wanted are percentiles "
        "of the resamples' means.": lambda v, rows: (
            v.mean() + v.std() / len(v) ** 0.5 * _ends(-1.96, 1.96)
        ),
    },
)


def _spread_map() -> float:
    """A map that is even over a quarter of the image; the object fills 4/5 of that quarter."""
    values, mask = torch.zeros(10, 10), torch.zeros(10, 10, dtype=torch.bool)
    values[:5, :5], mask[:5, :4] = 1.0, True
    return _beyond_area(values, mask)


QUESTIONS = {
    "05-beyond": Question(
        _spread_map,
        {
            "This is the share on the object; its area is still to be subtracted.": lambda: 80.0,
            "The object's area is a share of the whole image, not of the map's quarter.": (
                lambda: 0.0
            ),
            "This is a share; points are asked for.": lambda: _spread_map() / 100,
        },
    ),
}
