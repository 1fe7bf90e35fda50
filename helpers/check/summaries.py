"""The exercises of notebook 02."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from helpers import crisp_masks, proposal_flow, summary_uses
from helpers.check.inputs import between, flags, normal, sides, uniform
from helpers.check.judging import Exercise, Question


def _mask_loss(
    probability: Float[Tensor, " n"],
    masks: Float[Tensor, "n h w"],
    l1: float,
    l2: float,
    l3: float,
    beta: float,
) -> Float[Tensor, " n"]:
    area, border, grey = crisp_masks.penalties(masks, beta)
    return probability + l1 * area + l2 * border + l3 * grey


def _to_mask(generator: Generator) -> tuple[Tensor, Tensor, float, float, float, float]:
    n, (h, w) = between(generator, 2, 4), sides(generator)
    weights = (0.2 + 0.8 * uniform(generator, 3)).tolist()
    beta = (1.0, 2.0, 3.0)[between(generator, 0, 2)]
    return uniform(generator, n), uniform(generator, n, h, w), *weights, beta


def _penalised(
    area: Callable[[Tensor], Tensor] | None = None,
    border: Callable[[Tensor, float], Tensor] | None = None,
    grey: Callable[[Tensor], Tensor] | None = None,
    sign: int = 1,
) -> Callable[..., Tensor]:
    """The masks' loss with another penalty of (n, h, w) -> (n,), or of another sign."""

    def mistaken(p: Tensor, m: Tensor, l1: float, l2: float, l3: float, beta: float) -> Tensor:
        usual = crisp_masks.penalties(m, beta)
        terms = (
            area(m) if area else usual[0],
            border(m, beta) if border else usual[1],
            grey(m) if grey else usual[2],
        )
        return p + sign * (l1 * terms[0] + l2 * terms[1] + l3 * terms[2])

    return mistaken


def _steps(masks: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    return masks.diff(dim=1).abs() ** beta, masks.diff(dim=2).abs() ** beta


mask_loss = Exercise(
    _mask_loss,
    _to_mask,
    {
        "The first penalty is on m; it should be on 1 - m: what is blurred away costs.": _penalised(
            area=lambda m: m.mean((1, 2))
        ),
        "The penalties are sums over pixels; they should be means, for which the paper's weights "
        "make sense.": _penalised(
            lambda m: (1 - m).sum((1, 2)),
            lambda m, beta: sum(d.sum((1, 2)) for d in _steps(m, beta)),
            lambda m: ((1 - m) * m).sum((1, 2)),
        ),
        "The second penalty is a sum over pixels; it should be divided by h x w like the "
        "others.": _penalised(border=lambda m, beta: sum(d.sum((1, 2)) for d in _steps(m, beta))),
        "The differences are averaged over their own number, h (w - 1) or (h - 1) w; divide by the "
        "number of pixels, h w, like the other penalties.": _penalised(
            border=lambda m, beta: sum(d.mean((1, 2)) for d in _steps(m, beta))
        ),
        "The differences wrap around from the last row and column to the first, as roll does; "
        "these neighbours do not exist.": _penalised(
            border=lambda m, beta: sum(
                ((m - m.roll(1, d)).abs() ** beta).mean((1, 2)) for d in (1, 2)
            )
        ),
        "The differences are not made positive before the power beta: with beta = 3 a step down "
        "would earn a reward.": _penalised(
            border=lambda m, beta: (
                sum((m.diff(dim=d) ** beta).sum((1, 2)) for d in (1, 2)) / m[0].numel()
            )
        ),
        "Only differences along one axis are penalised; both, down and across, should be.": (
            _penalised(border=lambda m, beta: _steps(m, beta)[1].sum((1, 2)) / m[0].numel())
        ),
        "Only differences down are penalised; those across should be, too.": _penalised(
            border=lambda m, beta: _steps(m, beta)[0].sum((1, 2)) / m[0].numel()
        ),
        "The exponent beta is not used: it is 2 whatever was given.": _penalised(
            border=lambda m, beta: sum(d.sum((1, 2)) for d in _steps(m, 2)) / m[0].numel()
        ),
        "The third penalty is (1 - m) squared; it should be (1 - m) m, which is 0 for a mask of "
        "zeros and ones.": _penalised(grey=lambda m: (1 - m).square().mean((1, 2))),
        "The penalties are subtracted; they should be added to the loss.": _penalised(sign=-1),
        "The penalties average over all masks at once; each mask has its own loss.": _penalised(
            lambda m: (1 - m).mean(),
            lambda m, beta: sum(d.sum() for d in _steps(m, beta)) / m.numel(),
            lambda m: ((1 - m) * m).mean(),
        ),
        "The probability is missing: it is the part that makes the class go away.": (
            lambda p, *rest: _mask_loss(0 * p, *rest)
        ),
        "The loss has -p where p is wanted: the class should go away, not come.": (
            lambda p, *rest: _mask_loss(-p, *rest)
        ),
        "The third penalty is missing: it makes the mask crisp.": _penalised(
            grey=lambda m: 0 * m.mean((1, 2))
        ),
        "l2 and l3 have changed places.": lambda p, m, l1, l2, l3, beta: _mask_loss(
            p, m, l1, l3, l2, beta
        ),
        "l1 and l2 have changed places.": lambda p, m, l1, l2, l3, beta: _mask_loss(
            p, m, l2, l1, l3, beta
        ),
    },
    edges=(
        (torch.tensor([0.5]), torch.ones(1, 3, 4), 1.0, 1.0, 1.0, 3.0),
        (torch.tensor([0.5]), torch.eye(2)[None], 1.0, 1.0, 1.0, 3.0),
    ),
)


def _offset_median(
    offsets: Float[Tensor, "n 3"], near: Bool[Tensor, "n n"]
) -> Float[Tensor, "n 3"]:
    return proposal_flow.medians(offsets, near)


def _neighbours(generator: Generator) -> tuple[Tensor, Tensor]:
    n = between(generator, 4, 8)
    near = uniform(generator, n, n) < 0.5
    near |= torch.eye(n, dtype=torch.bool)  # a box touches itself
    return normal(generator, n, 3) * torch.tensor([5.0, 5.0, 1.0]), near


def _rows(statistic: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Row by row, a statistic of (k, 3) -> (3,) in place of the median."""
    return lambda offsets, near: torch.stack([statistic(offsets[row]) for row in near])


offset_median = Exercise(
    _offset_median,
    _neighbours,
    {
        "These are means; wanted are medians, which a few wrong matches do not move.": _rows(
            lambda o: o.mean(0)
        ),
        "For an even number of boxes this takes the lower of the two in the middle, as "
        "torch.median does; the median lies halfway between them.": _rows(
            lambda o: o.median(0).values
        ),
        "For an even number of boxes this takes the upper of the two in the middle; the median "
        "lies halfway between them.": _rows(lambda o: o.sort(0).values[len(o) // 2]),
        "The median is taken over all boxes; only those that touch count.": lambda o, near: (
            o.quantile(0.5, dim=0).expand(len(near), -1)
        ),
        "Boxes that do not touch count as offsets of 0; they should not count at all.": (
            lambda o, near: (o[None] * near[..., None]).quantile(0.5, dim=1)
        ),
        "`near` is read by columns: row i says which boxes touch box i.": lambda o, near: (
            _offset_median(o, near.T.contiguous())
        ),
        "One median is taken over all three coordinates; each has its own.": _rows(
            lambda o: o.flatten().quantile(0.5).expand(3)
        ),
        "The box itself is left out; it touches itself and counts.": lambda o, near: torch.stack(
            [
                o[row & (torch.arange(len(o)) != i)].quantile(0.5, dim=0) if row.sum() > 1 else o[i]
                for i, row in enumerate(near)
            ]
        ),
    },
    edges=(
        (torch.tensor([[1.0, 2, 3]]), torch.tensor([[True]])),
        (torch.tensor([[0.0, 0, 1], [4, 2, 3]]), torch.tensor([[True, True], [False, True]])),
    ),
)


def _disagreement(tags: list[set[str]]) -> float:
    return summary_uses.disagreement(tags)


_WORDS = ("beak", "wing", "tail", "claw", "eye", "crest")


def _tags(generator: Generator) -> tuple[list[set[str]]]:
    people = between(generator, 3, 5)
    chosen = flags(generator, people, len(_WORDS))
    return ([{w for w, c in zip(_WORDS, row, strict=True) if c} for row in chosen.tolist()],)


def _over_pairs(distance: Callable[[set, set], float]) -> Callable[[list[set[str]]], float]:
    return lambda tags: float(
        np.mean([distance(a, b) if a or b else 0.0 for a, b in combinations(tags, 2)])
    )


disagreement = Exercise(
    _disagreement,
    _tags,
    {
        "This is the mean agreement; wanted is the distance, one minus it.": lambda tags: (
            1 - _disagreement(tags)
        ),
        "Everyone is also compared with themselves, which always agrees: compare pairs of two "
        "people.": lambda tags: _disagreement(tags) * (len(tags) - 1) / len(tags),
        "The pairs are added up; wanted is their mean.": lambda tags: (
            _disagreement(tags) * len(tags) * (len(tags) - 1) / 2
        ),
        "Both orders of a pair are added up; wanted is the mean.": lambda tags: (
            _disagreement(tags) * len(tags) * (len(tags) - 1)
        ),
        "Only neighbours in the list are compared; all pairs should be.": lambda tags: float(
            np.mean([1 - summary_uses.jaccard(*pair) for pair in zip(tags, tags[1:], strict=False)])
        ),
        "Everyone is compared with the first person only; all pairs should be.": lambda tags: float(
            np.mean([1 - summary_uses.jaccard(tags[0], other) for other in tags[1:]])
        ),
        "The common tags are divided by the size of the smaller set; Jaccard divides by the "
        "union.": _over_pairs(lambda a, b: 1 - len(a & b) / min(len(a), len(b))),
        "The common tags are divided by the sizes of both sets added up, in which common tags "
        "count twice; Jaccard divides by the union.": _over_pairs(
            lambda a, b: 1 - len(a & b) / (len(a) + len(b))
        ),
        "This is Dice's distance, 2 |A and B| / (|A| + |B|); Jaccard divides by the union.": (
            _over_pairs(lambda a, b: 1 - 2 * len(a & b) / (len(a) + len(b)))
        ),
    },
    edges=(
        ([{"beak"}, {"beak"}],),
        ([{"beak"}, {"wing"}],),
        ([{"beak", "wing"}, {"wing"}, {"beak"}],),
        ([set(), set()],),
    ),
)


QUESTIONS = {
    "02-means-or-sums": Question(
        lambda: 64 * 64 * float(crisp_masks.penalties(torch.zeros(1, 64, 64), 3.0)[0]),
        {
            "A mask has 64 rows *and* 64 columns.": lambda: 64.0,
            "The mask has no colours: it is one number for each pixel.": lambda: 3.0 * 64 * 64,
        },
    ),
}
