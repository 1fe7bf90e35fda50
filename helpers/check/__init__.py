"""What is wrong with my function? Checks for the exercises in `notebooks/exercises`.

    from helpers import check

    check.mask_loss(my_mask_loss)  # a function that you wrote
    check.answer("04-gap", my_gap)  # a number that you predicted

`EXERCISES` and `QUESTIONS` are all there are, by name. An exercise to be added is a
`judging.Exercise`: the package's function, a draw of random arguments, some special cases, and a
table of mistakes that people make, each with what to say about it.
"""

from __future__ import annotations

from typing import Any

from helpers.check import imagenet9, lenses, paths, scenes, summaries, visualisations
from helpers.check.imagenet9 import nine_way, only_bg_t, vulnerable_share
from helpers.check.judging import Exercise, Question, Verdict, judge_number
from helpers.check.lenses import beyond_area, interval, rank_correlation
from helpers.check.paths import convolution, f_beta, max_pooling
from helpers.check.scenes import box
from helpers.check.summaries import disagreement, mask_loss, offset_median
from helpers.check.visualisations import noise, objective, step

EXERCISES: dict[str, Exercise] = {
    "box": box,
    "noise": noise,
    "objective": objective,
    "step": step,
    "mask_loss": mask_loss,
    "offset_median": offset_median,
    "disagreement": disagreement,
    "max_pooling": max_pooling,
    "convolution": convolution,
    "f_beta": f_beta,
    "only_bg_t": only_bg_t,
    "nine_way": nine_way,
    "vulnerable_share": vulnerable_share,
    "rank_correlation": rank_correlation,
    "beyond_area": beyond_area,
    "interval": interval,
}

_NOTEBOOKS = (scenes, visualisations, summaries, paths, imagenet9, lenses)
QUESTIONS: dict[str, Question] = {
    name: question for part in _NOTEBOOKS for name, question in part.QUESTIONS.items()
}


def answer(name: str, mine: Any) -> Verdict:
    """Check a predicted number.

    Args:
        name: of the question, such as "04-gap".
        mine: a number, or as many numbers as the question asks for; None is "not tried yet".

    Raises:
        ValueError: no such question.
        NotImplementedError: not tried yet.
    """
    if name not in QUESTIONS:
        raise ValueError(f"no question {name!r}; there are {', '.join(QUESTIONS)}")
    if mine is None:
        raise NotImplementedError(f"question {name}: write your answer in place of None")
    return judge_number(QUESTIONS[name], mine)
