"""Comparing a participant's function with the package's own, and saying in words what is wrong.

A check runs both on the same inputs: a few special cases, and new random ones at every call. Where
they differ it looks for the reason: does the function stop with an error, return nothing, return
what a *known mistake* would (each exercise brings its own list), return another type, shape or kind
of number, or is it off by something simple: a sign, a factor, a shift, swapped axes. If none of
these fits, it shows the smallest input for which the results differ.
"""

from __future__ import annotations

import copy
import inspect
import linecache
import re
import secrets
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import combinations, permutations
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Generator, Tensor, nn

# ---------------------------------------------------------------- what a check says


@dataclass(frozen=True)
class Verdict:
    """Right, or not yet and why. It is true where the answer is right."""

    right: bool
    message: str
    example: tuple[tuple[str, str], ...] = ()  # names and values: an input, what was wanted and got

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        lines = [f"{self._title} {self.message}".rstrip()]
        width = max((len(name) for name, _ in self.example), default=0)
        lines += [f"  {name:{width}s}  {value}" for name, value in self.example]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.right else "#D55E00"
        rows = "".join(
            f'<tr><th style="text-align:left;padding-right:1em">{escape(name)}</th>'
            f'<td style="text-align:left"><code>{escape(value)}</code></td></tr>'
            for name, value in self.example
        )
        return (
            f'<div style="border-left:4px solid {colour};padding:0.2em 0.8em;max-width:60em">'
            f"<strong>{self._title}</strong> {escape(self.message)}"
            f"{f'<table>{rows}</table>' if rows else ''}</div>"
        )

    @property
    def _title(self) -> str:
        return "Right." if self.right else "Not yet."


@dataclass(frozen=True)
class Exercise:
    """A function to be written by a participant. Call it with that function to check it.

    Args of a call:
        mine: the participant's function, with the arguments of `reference` in their order.
        seed: of the random inputs; new ones at every call without it.

    Raises (a call):
        NotImplementedError: the participant's, from a function that is not written yet.
    """

    reference: Callable[..., Any]  # what is right; the names of its arguments are shown
    inputs: Callable[[Generator], tuple]  # one draw of random arguments
    mistakes: Mapping[str, Callable[..., Any]]  # what to say -> a function with that mistake
    edges: Sequence[tuple] = ()  # special cases, arguments like those of `inputs`
    tolerance: float = 1e-4  # largest difference, see `_same`
    draws: int = 8

    def __call__(self, mine: Any, *, seed: int | None = None) -> Verdict:
        return judge(self, mine, seed)

    @property
    def arguments(self) -> list[str]:
        return list(inspect.signature(self.reference).parameters)


@dataclass(frozen=True)
class Question:
    """A number, or a tuple of numbers, to be predicted."""

    value: Callable[[], Any]  # computes what is right
    mistakes: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    tolerance: float = 1e-3  # likewise


def judge_number(question: Question, mine: Any) -> Verdict:
    """Compare a participant's number, or numbers, with what is computed."""
    wanted = question.value()
    got = _read(mine, wanted)
    if isinstance(got, str):
        return Verdict(False, got)
    right = _values(wanted)
    if _same(got, right, question.tolerance):
        return Verdict(True, "")
    for message, mistake in question.mistakes.items():
        if _same(got, _values(mistake()), question.tolerance):
            return Verdict(False, message)
    if right.numel() > 1:
        return Verdict(False, "Other numbers are wanted.")
    for factor, said in ((100, "100 times too large"), (0.01, "100 times too small")):
        if _same(got, factor * right, question.tolerance):
            return Verdict(False, f"It is {said}: a share, or percent?")
    if _same(got, -right, question.tolerance):
        return Verdict(False, "The sign is the other way round.")
    return Verdict(False, f"It is too {'large' if got > right else 'small'}.")


# ---------------------------------------------------------------- judging a function


@dataclass(frozen=True, eq=False)
class _Case:
    """One call: arguments, what is right, and what the participant's function gave."""

    arguments: tuple
    wanted: Any
    answer: Any
    error: Exception | None
    changed: str | None  # the argument that the call changed

    @property
    def size(self) -> int:
        return sum(a.numel() if isinstance(a, Tensor) else 1 for a in self.arguments)


def judge(exercise: Exercise, mine: Any, seed: int | None = None) -> Verdict:
    """Compare a participant's function with the exercise's own; see `Exercise`.

    What happens with random inputs is said first: special cases come after the rule.
    """
    if not callable(mine):
        return Verdict(
            False,
            "Hand over the function itself, without calling it: its name without brackets. "
            f"This is {_kind(mine)}.",
        )
    generator = Generator().manual_seed(secrets.randbits(32) if seed is None else seed)
    drawn = [exercise.inputs(generator) for _ in range(exercise.draws)]
    fresh = [_called(exercise, mine, arguments) for arguments in drawn]
    edges = [_called(exercise, mine, arguments) for arguments in exercise.edges]
    for cases in (fresh, edges):
        stopped = next((case for case in cases if case.error), None)
        if stopped:
            special = "In a special case: " if cases is edges else ""
            message = special + _raised(stopped.error, mine)
            return Verdict(False, message, _inputs(exercise, stopped.arguments))
        wrong = [case for case in cases if not _right(case, exercise.tolerance)]
        if wrong:
            reason = _reason(exercise, cases, wrong) if cases is fresh else None
            reason = reason or _special(exercise, [*fresh, *edges], wrong)
            return _not_yet(exercise, reason, [*fresh, *edges])
    changed = next((case.changed for case in fresh + edges if case.changed), None)
    if changed:
        return Verdict(
            False,
            f"The result is right, but the function changes its input `{changed}` in place, and "
            "whoever called it loses it. Work on a copy: clone().",
        )
    special = f" and {len(edges)} special case{'s' * (len(edges) > 1)}" if edges else ""
    return Verdict(True, f"{len(fresh)} random inputs{special} agree with the package.")


def _called(exercise: Exercise, mine: Callable[..., Any], arguments: tuple) -> _Case:
    wanted = exercise.reference(*copy.deepcopy(arguments))
    given, got, stopped = copy.deepcopy(arguments), None, None
    try:
        got = mine(*given)
    except Exception as error:
        if _unwritten(error):
            raise
        stopped = error
    both = zip(exercise.arguments, arguments, given, strict=True)
    changed = next((name for name, a, b in both if not _untouched(a, b)), None)
    return _Case(arguments, wanted, got, stopped, changed)


def _not_yet(exercise: Exercise, reason: str, cases: Sequence[_Case]) -> Verdict:
    """With the smallest example; a special case, if it went wrong in the same way, often is."""
    finished = [case for case in cases if not case.error]
    wrong = [case for case in finished if not _right(case, exercise.tolerance)]
    changed = next((case.changed for case in cases if case.changed), None)
    if changed:
        reason += f" It also changes its input `{changed}` in place."
    return Verdict(False, reason, _example(exercise, min(wrong, key=lambda case: case.size)))


def _known(exercise: Exercise, cases: Sequence[_Case]) -> str | None:
    """The known mistake that explains all results, the right ones too."""
    for message, mistake in exercise.mistakes.items():
        if all(_makes(mistake, case, exercise.tolerance) for case in cases):
            return message
    return None


def _reason(exercise: Exercise, cases: Sequence[_Case], wrong: Sequence[_Case]) -> str:
    """Why the results are wrong, in words: the first that explains them."""
    if any(case.answer is None for case in wrong):
        return _NOTHING
    if known := _known(exercise, cases):
        return known
    read = [_read(case.answer, case.wanted) for case in cases]
    if complaint := next((r for r in read if isinstance(r, str)), None):
        return complaint
    pairs = [(r, _values(case.wanted)) for r, case in zip(read, cases, strict=True)]
    return (
        _axes(pairs, exercise.tolerance)
        or _shape(pairs)
        or _not_finite(pairs)
        or _simple(pairs, [case.arguments for case in cases], exercise.tolerance)
        or _moved(pairs, exercise.tolerance)
        or "The values differ, in no way that is known here. The smallest such input:"
    )


def _special(exercise: Exercise, cases: Sequence[_Case], wrong: Sequence[_Case]) -> str:
    """What is wrong where only special cases are."""
    if any(case.answer is None for case in wrong):
        return f"In a special case: {_NOTHING}"
    if known := _known(exercise, cases):
        return known
    read = [_read(case.answer, case.wanted) for case in wrong]
    complaint = next((r for r in read if isinstance(r, str)), None)
    if complaint is None:
        pairs = [(r, _values(case.wanted)) for r, case in zip(read, wrong, strict=True)]
        complaint = _shape(pairs) or _not_finite(pairs) or "The values differ."
    return f"The random inputs agree, a special case does not. {complaint}"


_NOTHING = "The function returns nothing: is there a `return`?"


def _right(case: _Case, tolerance: float) -> bool:
    got = _read(case.answer, case.wanted)
    return not isinstance(got, str) and _same(got, _values(case.wanted), tolerance)


def _makes(mistake: Callable[..., Any], case: _Case, tolerance: float) -> bool:
    """Whether a known mistake gives the same result as the participant's function did."""
    try:
        made = _values(mistake(*copy.deepcopy(case.arguments)))
        return _same(_values(case.answer), made, tolerance)
    except Exception:  # a mistake need not survive every input, nor an answer be numbers
        return False


# ---------------------------------------------------------------- reading and comparing results


def _values(result: Any) -> Float64[Tensor, ...]:
    if isinstance(result, Tensor):
        return result.detach().cpu().double()
    return torch.as_tensor(np.asarray(result, dtype=float))


def _read(got: Any, wanted: Any) -> Float64[Tensor, ...] | str:
    """The numbers of a result, or what is wrong with its type. Shapes are looked at later."""
    if isinstance(wanted, Tensor):
        if not isinstance(got, Tensor):
            return f"A torch tensor is wanted, and this is {_kind(got)}."
        if _number_kind(got) != _number_kind(wanted):
            return f"The numbers are {_dtype(got)}; wanted are {_dtype(wanted)}."
        return _values(got)
    if isinstance(wanted, tuple):
        try:
            values = _values([float(v) for v in got])
        except (TypeError, ValueError):
            return f"{len(wanted)} numbers are wanted, and this is {_kind(got)}."
        if len(values) != len(wanted):
            return f"{len(wanted)} numbers are wanted, and these are {len(values)}."
        return values
    if isinstance(got, Tensor | np.ndarray) and got.shape != ():
        return f"A single number is wanted, and this has the shape {tuple(got.shape)}."
    try:
        return _values(float(got))
    except (TypeError, ValueError):
        return f"A number is wanted, and this is {_kind(got)}."


def _kind(value: Any) -> str:
    kind = type(value).__name__
    known = {
        "ndarray": "a NumPy array",
        "Tensor": "a tensor",
        "NoneType": "None",
        "int": "an integer",
        "builtin_function_or_method": "a function",
    }
    return known.get(kind, f"a {kind}")


def _number_kind(values: Tensor) -> str:
    if values.dtype == torch.uint8:
        return "uint8"  # pictures: 0 to 255, and it wraps around
    if values.dtype == torch.bool:
        return "bool"
    return "float" if values.is_floating_point() else "integer"


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal shapes, and values equal up to a share of the largest, or of 1 if that is smaller: a
    difference of nearly equal numbers has few digits left. NaN equals NaN."""
    if a.shape != b.shape:
        return False
    finite = b[b.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=tolerance * max(largest, 1.0), equal_nan=True)


def _untouched(a: Any, b: Any) -> bool:
    if isinstance(a, nn.Module):
        return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return a == b


# ---------------------------------------------------------------- errors


def _unwritten(error: Exception) -> bool:
    """NotImplementedError means "not written yet", except where torch uses it: for a kind of
    number that an operation does not take."""
    mine = isinstance(error, NotImplementedError)
    return mine and not re.search(r"not implemented for '|Could not run '", str(error))


def _raised(error: Exception, mine: Callable[..., Any]) -> str:
    """The error with the line of the participant's function that it comes from."""
    code = getattr(inspect.unwrap(mine), "__code__", None)
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if code and step.filename == code.co_filename]
    text = str(error).strip().split("\n")[0]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if not own:
        return f"Calling the function ends in {said}"
    line = linecache.getline(own[-1].filename, own[-1].lineno).strip()
    return f"Line {own[-1].lineno}{f', `{line}`,' if line else ''} ends in {said}"


# ---------------------------------------------------------------- what may be wrong with numbers


def _axes(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """Whether other axes, in the same order for all, would make everything right."""
    dimensions = {t.ndim for pair in pairs for t in pair}
    if len(dimensions) != 1 or not 2 <= (n := dimensions.pop()) <= 4:
        return None
    for order in list(permutations(range(n)))[1:]:
        if all(_same(got.permute(order), wanted, tolerance) for got, wanted in pairs):
            return (
                "The values are right, but axes are swapped (transposed): the result's axes in the "
                f"order {order} would be right."
            )
    return None


def _shape(pairs: Sequence[tuple[Tensor, Tensor]]) -> str | None:
    for got, wanted in pairs:
        if got.shape != wanted.shape:
            have, want = tuple(got.shape), tuple(wanted.shape)
            return f"The shape is wrong: wanted {want}, got {have}.{_shape_hint(have, want)}"
    return None


def _shape_hint(have: tuple[int, ...], want: tuple[int, ...]) -> str:
    if len(have) == len(want):
        apart = {h - w for h, w in zip(have, want, strict=True)} - {0}
        if len(apart) == 1 and abs(extra := apart.pop()) <= 2:
            much = {1: "one too many", 2: "two too many", -1: "one too few", -2: "two too few"}
            return f" That is {much[extra]}: off by one, as a missing padding would be?"
    if [size for size in have if size != 1] == [size for size in want if size != 1]:
        return " An axis of length 1 is too many or too few: see keepdim, squeeze or [None]."
    if have == want[1:]:
        return " The first axis is gone: one result for each row is wanted, not one for all."
    if have == want * 2:
        return (
            " Each row was taken with every row: gather, or an arange beside, picks one for each."
        )
    if len(have) < len(want):
        return " An axis too many was summed or averaged away."
    return ""


def _not_finite(pairs: Sequence[tuple[Tensor, Tensor]]) -> str | None:
    for got, wanted in pairs:
        bad = ~got.isfinite() & wanted.isfinite()
        if bad.any():
            what = "NaN" if got.isnan().any() else "infinite"
            return f"{int(bad.sum())} of {bad.numel()} values are {what}: a division by zero?"
    return None


def _simple(
    pairs: Sequence[tuple[Tensor, Tensor]], arguments: Sequence[tuple], tolerance: float
) -> str | None:
    """A sign, a factor or a constant that would make all values right."""
    got, wanted = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
    if not len(wanted) or not wanted.any():
        return None

    def fits(values: Tensor) -> bool:
        return _same(got, values, tolerance)

    if fits(-wanted):
        return "The sign is the other way round."
    if fits(1 - wanted):
        return "It is one minus the right result: the opposite was computed."
    if fits(wanted.abs()):
        return "The signs are lost: these are absolute values."
    factor = float((got * wanted).sum() / wanted.square().sum())
    if factor and fits(factor * wanted):
        return f"All values are {_factor(factor)} the right ones: a constant factor."
    if said := _by_size(pairs, arguments, tolerance):
        return said
    apart = float((got - wanted).mean())
    if fits(wanted + apart):
        return f"All values are {abs(apart):.4g} too {'large' if apart > 0 else 'small'}."
    if fits(wanted.square()):
        return "These are the squares of the right values."
    if (wanted >= 0).all() and fits(wanted.sqrt()):
        return "These are the square roots of the right values."
    return None


def _factor(factor: float) -> str:
    if abs(factor) < 1 and abs(1 / factor - round(1 / factor)) < 1e-3:
        return f"{'-' if factor < 0 else ''}1/{abs(round(1 / factor))} of"
    return f"{factor:.4g} times"


def _by_size(
    pairs: Sequence[tuple[Tensor, Tensor]], arguments: Sequence[tuple], tolerance: float
) -> str | None:
    """A factor that differs from input to input, but always is a number of elements."""
    common: dict[bool, set[tuple[int, ...]]] = {}
    shown = None
    for (got, wanted), values in zip(pairs, arguments, strict=True):
        if got.shape != wanted.shape or not wanted.any():
            continue
        factor = float((got * wanted).sum() / wanted.square().sum())
        if not _same(got, factor * wanted, tolerance) or factor <= 0:
            return None
        shape = next((tuple(a.shape) for a in values if isinstance(a, Tensor)), ())
        axes = [c for k in range(1, len(shape) + 1) for c in combinations(range(len(shape)), k)]
        for larger in (True, False):
            wished = factor if larger else 1 / factor
            hit = {c for c in axes if abs(prod(shape[k] for k in c) / wished - 1) < 1e-3}
            common[larger] = common[larger] & hit if larger in common else hit
        shown = (shape, factor)
    for larger, axes in common.items():
        if axes and shown:
            shape, factor = shown
            sizes = " x ".join(str(shape[k]) for k in min(axes))
            how = "a sum where a mean" if larger else "a mean where a sum"
            much = f"{factor:.4g} times" if larger else f"1/{1 / factor:.4g} of"
            return (
                f"The result is {much} the right one for an input of {shape}: {sizes} elements. "
                f"It looks like {how} is wanted."
            )
    return None


def _moved(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """Right values in wrong places."""
    dimensions = {wanted.ndim for _, wanted in pairs}
    n = dimensions.pop() if len(dimensions) == 1 else 0
    for axis in range(n):
        long = [(g, w) for g, w in pairs if g.shape == w.shape and w.shape[axis] > 2]
        if not long:
            continue
        for step, where in ((1, "later"), (-1, "earlier")):
            if all(_same(*_overlap(g, w, axis, step), tolerance) for g, w in long):
                return f"The values sit one place too far: {where} by 1 along axis {axis}."
        if all(_same(g.flip(axis), w, tolerance) for g, w in long):
            return f"The values are mirrored along axis {axis}."
    if n and all(
        _same(g.flatten().sort().values, w.flatten().sort().values, tolerance) for g, w in pairs
    ):
        return "The values are right, but in another order."
    return None


def _overlap(got: Tensor, wanted: Tensor, axis: int, step: int) -> tuple[Tensor, Tensor]:
    """What both should show if `got` is `wanted`, `step` places further along the axis."""
    length = wanted.shape[axis] - 1
    first, second = (1, 0) if step > 0 else (0, 1)
    return got.narrow(axis, first, length), wanted.narrow(axis, second, length)


# ---------------------------------------------------------------- showing an example


def _inputs(exercise: Exercise, arguments: tuple) -> tuple[tuple[str, str], ...]:
    shown = zip(exercise.arguments, arguments, strict=True)
    return tuple((name, _shown(value)) for name, value in shown)


def _example(exercise: Exercise, case: _Case) -> tuple[tuple[str, str], ...]:
    lines = _inputs(exercise, case.arguments)
    got, wanted = _read(case.answer, case.wanted), _values(case.wanted)
    if not isinstance(got, str) and got.shape == wanted.shape and got.numel() > 12:
        differs = (got - wanted).abs().nan_to_num(nan=1.0)
        place = tuple((differs > 0.5 * differs.max()).nonzero()[0].tolist())
        at = f" at {list(place)}"
        pair = (f"{wanted[place]:.5g}", f"{got[place]:.5g}")
    else:
        at, pair = "", (_shown(case.wanted), _shown(case.answer))
    return (*lines, (f"wanted{at}", pair[0]), (f"got{at}", pair[1]))


def _shown(value: Any) -> str:
    """A value in one line: numbers if they are few, else their kind and shape."""
    if isinstance(value, Tensor):
        if value.numel() > 16:
            return f"{_dtype(value)} {tuple(value.shape)}"
        if value.dtype == torch.bool:
            value = value.int()  # 0 and 1 are quicker to read
        rounded = value.detach().cpu().tolist()
        return str(_rounded(rounded))
    if isinstance(value, nn.Module):
        return f"a network ({type(value).__name__})"
    if isinstance(value, list) and all(isinstance(v, set) for v in value):
        return "[" + ", ".join("{" + ", ".join(sorted(v)) + "}" for v in value) + "]"
    text = str(_rounded(value))
    return text if len(text) < 100 else text[:97] + "..."


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_rounded(v) for v in value)
    return float(f"{value:.4g}") if isinstance(value, float) else value
