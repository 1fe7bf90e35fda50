"""Paper against ours: every claim stated before its result, and judged by a rule stated with it.

`data/published/claims.toml` holds, for each claim of a paper, the statement, the published number,
where it stands and the criterion. A notebook measures the quantity over seeds or images and calls
`judge`, which adds the interval, gives the verdict and keeps both for the report:

- *reproduced*: the whole interval meets the criterion;
- *partly reproduced*: the estimate meets it, the interval does not (or there is none);
- *not reproduced*: the estimate does not meet it;
- *by construction*: a setting of this profile fixes the effect, so it is shown and not judged;
- *not testable here*: nothing was measured, and the reason is given.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from helpers.durable import write_durably

PUBLISHED = Path(__file__).parents[1] / "data" / "published"
VERDICTS = {
    "reproduced": "✓",
    "partly reproduced": "◐",
    "not reproduced": "✗",
    "by construction": "≡",
    "not testable here": "○",
}
Numbers = Sequence | np.ndarray | Tensor


@dataclass(frozen=True)
class Claim:
    """One claim of a paper; the fields are explained at the top of `claims.toml`."""

    id: str
    paper: int
    paper_title: str
    statement: str
    where: str
    published: float | int | str
    quantity: str = ""
    unit: str = ""
    criterion: Mapping | None = None
    over: str = ""
    quote: str = ""
    note: str = ""
    by_construction: tuple[str, ...] = ()
    untestable: str = ""

    @property
    def paper_says(self) -> str:
        """The published number with its unit, or what stands in its place."""
        if isinstance(self.published, str):
            return self.published
        return with_unit(str(self.published).replace("-", "−"), self.unit)

    @property
    def rule(self) -> str:
        """The criterion in words."""
        if self.criterion is None:
            return "none"
        kind = self.criterion["kind"]
        if kind == "between":
            low, high = (f"{self.criterion[k]:g}" for k in ("low", "high"))
            return f"between {low} and {with_unit(high, self.unit)}"
        if kind in ("increasing", "decreasing"):
            return f"{kind} at every step"
        return f"{kind} than {with_unit(format(self.criterion['than'], 'g'), self.unit)}"


@dataclass(frozen=True)
class Judgement:
    """A claim, what was measured for it, and the verdict."""

    claim: Claim
    verdict: str
    estimate: float | None = None  # in the claim's unit
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int = 0
    over: str = ""  # what the n things are
    method: str = ""  # how the interval was made
    steps: tuple[float, ...] = ()  # the mean of each column of an ordered claim
    because: str = ""
    notebook: str = ""
    profile: str = ""
    date: str = ""

    @property
    def value(self) -> str:
        """What was measured, with its interval and unit; or why nothing was."""
        if self.estimate is None:
            return self.because or "not measured"
        places = self._places
        text = number(self.estimate, places)
        if self.without_spread:
            return with_unit(text, self.claim.unit) + f" (all {self.n} equal, so no interval)"
        if self.low is not None and self.high is not None:
            text += f" [{number(self.low, places)}, {number(self.high, places)}]"
        text = with_unit(text, self.claim.unit)
        if self.steps:
            row = " → ".join(number(step, places) for step in self.steps)
            text = f"{row}; smallest step {text}"
        return text

    @property
    def _places(self) -> int:
        """One decimal of percentages, which many tables put side by side; else as it is known."""
        if self.claim.unit in ("%", "points"):
            return 1
        return decimals(self.estimate or 0.0, self.low, self.high)

    @property
    def without_spread(self) -> bool:
        """Whether several values were measured and all are equal: an interval of no width."""
        if self.low is None or self.high is None or self.steps:
            return False
        return self.high - self.low <= 1e-9 * max(1.0, abs(self.high))

    @property
    def size(self) -> str:
        """How large the effect is beside the paper's, where the rule only asks for its sign."""
        paper, criterion = self.claim.published, self.claim.criterion or {}
        if isinstance(paper, str) or not paper or self.estimate is None:
            return ""
        if criterion.get("kind") not in ("greater", "less") or criterion["than"] != 0:
            return ""
        times = self.estimate / paper
        if times < 0:
            return "opposite sign to the paper's; the rule asks for the sign only"
        return f"{times:.1f} times the paper's; the rule asks for the sign only"

    @property
    def sample(self) -> str:
        """How many of what were measured; empty where nothing was."""
        return f"n = {self.n} {self.over}".rstrip() if self.n else ""

    @property
    def ours(self) -> str:
        """Value and sample in one line."""
        return f"{self.value}, {self.sample}" if self.sample else self.value

    @property
    def detectable(self) -> float | None:
        """The smallest effect this run would have detected four times in five: 1.96 + 0.84 = 2.8
        standard errors, of which a 95 % interval spans 1.96 to either side."""
        if self.low is None or self.high is None:
            return None
        return 2.8 * (self.high - self.low) / (2 * stats.norm.ppf((1 + self.level) / 2))

    @property
    def _note(self) -> str:
        told = [t for t in (self.claim.note, self.because) if t and t != self.ours]
        return "; ".join([t.rstrip(".") for t in told[:-1]] + told[-1:])

    @property
    def _seen(self) -> str:
        if not self.detectable or self.without_spread:
            return ""
        smallest = with_unit(number(self.detectable, self._places), self.claim.unit)
        return f"effects of {smallest} or more, four times in five"

    def __repr__(self) -> str:
        return f"{self.verdict}: {self.claim.statement}"

    def _repr_html_(self) -> str:
        claim = self.claim
        cell = "padding:.35em .9em .35em 0;text-align:left;vertical-align:top"
        rows = [
            ("Paper", f"{claim.paper_says} ({claim.where})"),
            ("Ours", self.ours),
            ("Counts as reproduced", claim.rule if claim.criterion else ""),
            ("Measured", claim.quantity),
            ("Size", self.size),
            ("Could have seen", self._seen),
            ("Note", self._note),
        ]
        body = "".join(
            f'<tr><th scope="row" style="{cell};white-space:nowrap">{escape(name)}</th>'
            f'<td style="{cell};overflow-wrap:anywhere">{escape(text)}</td></tr>'
            for name, text in rows
            if text
        )
        return (
            f'<table style="max-width:60em"><caption style="text-align:left;padding:.3em 0">'
            f"<strong>{VERDICTS[self.verdict]} {escape(self.verdict.capitalize())}</strong> · "
            f"{escape(claim.statement)}</caption><tbody>{body}</tbody></table>"
        )


def with_unit(text: str, unit: str) -> str:
    """A number and its unit, where it has one."""
    return f"{text} {unit}".strip()


def decimals(estimate: float, low: float | None, high: float | None) -> int:
    """As many decimals as the interval justifies: two digits of its half width, or three in all."""
    half = (high - low) / 2 if low is not None and high is not None and high > low else 0
    scale = half or abs(estimate) / 10 or 1
    return int(min(4, max(0, 1 - math.floor(math.log10(scale)))))


def number(value: float, places: int) -> str:
    """A number with so many decimals and a true minus sign."""
    return f"{value:.{places}f}".replace("-", "−")


@cache
def load(path: Path = PUBLISHED / "claims.toml") -> dict[str, Claim]:
    """Every declared claim by its id, in the order of the file.

    Raises:
        ValueError: the file, or one of its claims, is not as its first lines describe.
    """
    try:
        file = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from None
    papers = file.get("papers", {})
    return {name: _claim(name, entry, papers) for name, entry in file.get("claims", {}).items()}


def _claim(name: str, entry: Mapping, papers: Mapping) -> Claim:
    known = {field.name for field in fields(Claim)} - {"id", "paper_title"}
    if strange := sorted(set(entry) - known):
        raise ValueError(
            f"claim {name}: unknown {strange[0]!r}; known are {', '.join(sorted(known))}"
        )
    needed = ["paper", "statement", "where", "published"]
    needed += [] if entry.get("untestable") else ["quantity", "criterion", "over"]
    if missing := [key for key in needed if entry.get(key) in (None, "")]:
        raise ValueError(f"claim {name}: {', '.join(missing)} missing")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"claim {name!r}: an id is kebab-case, like 'p4-bg-gap'")
    if str(entry["paper"]) not in papers:
        raise ValueError(f"claim {name}: there is no paper {entry['paper']}")
    if "criterion" in entry:
        _check_criterion(name, entry["criterion"])
    title = papers[str(entry["paper"])]["title"]
    by_construction = tuple(entry.get("by_construction", ()))
    return Claim(id=name, paper_title=title, **{**entry, "by_construction": by_construction})


_CRITERIA = {
    "greater": {"than"},
    "less": {"than"},
    "between": {"low", "high"},
    "increasing": set(),
    "decreasing": set(),
}


def _check_criterion(name: str, criterion: Mapping) -> None:
    kind = criterion.get("kind")
    if kind not in _CRITERIA:
        raise ValueError(f"claim {name}: criterion {kind!r} is none of {', '.join(_CRITERIA)}")
    if set(criterion) - {"kind"} != _CRITERIA[kind]:
        needs = " and ".join(sorted(_CRITERIA[kind])) or "nothing else"
        raise ValueError(f"claim {name}: a criterion of kind {kind!r} needs {needs}")


def find(claim_id: str) -> Claim:
    """The claim of that id.

    Raises:
        KeyError: no such claim; the nearest ids are named.
    """
    known = load()
    if claim_id in known:
        return known[claim_id]
    raise KeyError(_unknown("claim", claim_id, list(known), "data/published/claims.toml"))


def published(table: str) -> pd.DataFrame:
    """A table of a paper as printed, from `data/published/<table>.csv`.

    What cannot be read in our copy of the paper says "unreadable".

    Raises:
        KeyError: no such table; the nearest names are given.
    """
    path = PUBLISHED / f"{table}.csv"
    names = sorted(file.stem for file in PUBLISHED.glob("*.csv"))
    if table not in names:
        raise KeyError(_unknown("published table", table, names, "data/published"))
    return pd.read_csv(path)


def _unknown(what: str, name: str, known: list[str], where: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"all are listed in {where}"
    return f"no {what} {name!r}; {hint}"


@dataclass(frozen=True)
class Deviation:
    """An entry of the deviation log: when, which claims, and what was changed and why."""

    date: str
    claims: tuple[str, ...]
    text: str


_PLAIN = str.maketrans("", "", "*`")


def deviations(path: Path = PUBLISHED / "deviations.md") -> list[Deviation]:
    """The dated changes made after the first result, newest first as in the file."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^## (\d{4}-\d\d-\d\d) · (.+?)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return [
        # the report shows plain text: without the marks of Markdown
        Deviation(
            date, tuple(re.split(r",\s*", ids.strip())), " ".join(body.split()).translate(_PLAIN)
        )
        for date, ids, body in found
    ]


def judge(
    claim_id: str,
    measured: Numbers | None = None,
    *,
    folder: Path,
    profile: str,
    notebook: str = "",
    over: str | None = None,
    statistic: Callable | None = None,
    because: str = "",
    level: float = 0.95,
    seed: int = 0,
) -> Judgement:
    """Judge a claim by its declared criterion and keep the verdict in `<folder>/<id>.json`.

    Args:
        measured: the claim's quantity for each seed, image, class..., shape (n,); for an ordered
            claim (n, k) with its k quantities in columns; with `statistic`, the rows it takes.
            None where nothing can be measured, with the reason in `because`.
        over: what the rows are, where it is not what the claim declares.
        statistic: a number from n rows, such as a ratio of variances or a slope; called with one
            array per column. The mean without it.
        because: why nothing was measured, or a remark on the measurement.
        level: of the interval.

    Raises:
        KeyError: no such claim.
        ValueError: nothing measured and no reason, numbers that are not finite, or a shape that
            does not fit the criterion.
    """
    claim = find(claim_id)
    made = {
        "claim": claim,
        "level": level,
        "because": because,
        "notebook": notebook,
        "profile": profile,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if measured is None:
        reason = because or claim.untestable
        if not reason:
            raise ValueError(
                f"claim {claim_id}: nothing measured; say why in because=, or give measured="
            )
        judgement = Judgement(**{**made, "verdict": "not testable here", "because": reason})
    elif claim.criterion is None:
        raise ValueError(f"claim {claim_id} is declared untestable: {claim.untestable}")
    else:
        rows = _rows(claim, measured, statistic)
        over = over or claim.over
        kind = claim.criterion["kind"]
        ordered = kind in ("increasing", "decreasing")
        if ordered:
            sign = 1 if kind == "increasing" else -1
            tested = list((sign * np.diff(rows, axis=1)).T)
        else:
            tested = [rows]
        results = [_interval(one, over, statistic, level, seed) for one in tested]
        # The weakest step stands for the row: every interval is beyond zero when its is.
        weakest = min(results, key=lambda r: r[0] if r[1] is None else r[1])
        estimate, low, high, method = weakest
        beyond = [r[:3] for r in results]
        verdict = _verdict(claim, beyond, profile)
        steps = tuple(rows.mean(0).tolist()) if ordered else ()
        judgement = Judgement(
            **made,
            verdict=verdict,
            estimate=estimate,
            low=low,
            high=high,
            n=len(rows),
            over=over,
            method=method,
            steps=steps,
        )
    record = json.dumps(asdict(judgement), indent=1, ensure_ascii=False)
    write_durably(folder / f"{claim.id}.json", record.encode())
    return judgement


def read(record: Mapping) -> Judgement:
    """A judgement from its JSON record.

    Raises:
        KeyError, TypeError, ValueError: the record is not one that `judge` wrote.
    """
    claim = dict(record["claim"])
    claim["by_construction"] = tuple(claim.get("by_construction", ()))
    judgement = Judgement(
        **{**record, "claim": Claim(**claim), "steps": tuple(record.get("steps", ()))}
    )
    if judgement.verdict not in VERDICTS:
        raise ValueError(f"verdict {judgement.verdict!r} is none of {', '.join(VERDICTS)}")
    return judgement


def _rows(claim: Claim, measured: Numbers, statistic: Callable | None) -> np.ndarray:
    if isinstance(measured, Tensor):
        measured = measured.detach().cpu().numpy()
    rows = np.asarray(measured, dtype=float)
    ordered = claim.criterion["kind"] in ("increasing", "decreasing")
    if ordered and (rows.ndim != 2 or rows.shape[1] < 2):
        raise ValueError(
            f"claim {claim.id} needs (n, k) numbers, k >= 2 in order; got {rows.shape}"
        )
    if not ordered and rows.ndim != 1 and not (statistic and rows.ndim == 2):
        raise ValueError(f"claim {claim.id} needs one number per row, (n,); got {rows.shape}")
    if ordered and statistic:
        raise ValueError(f"claim {claim.id} is about an order; it takes no statistic")
    if rows.size == 0:
        raise ValueError(f"claim {claim.id}: nothing was measured (an empty array)")
    if bad := int((~np.isfinite(rows)).sum()):
        raise ValueError(f"claim {claim.id}: {bad} of {rows.size} numbers are not finite")
    return rows


def _interval(
    rows: np.ndarray, over: str, statistic: Callable | None, level: float, seed: int
) -> tuple[float, float | None, float | None, str]:
    columns = rows.T if rows.ndim == 2 else [rows]
    estimate = float(statistic(*columns) if statistic else rows.mean())
    if len(rows) < 2:
        return estimate, None, None, "one value: no interval"
    if over == "seeds" and statistic is None:
        return estimate, *t_interval(rows, level=level), "Student's t"
    return estimate, *bootstrap_interval(rows, statistic, level=level, seed=seed), "bootstrap"


def t_interval(values: Numbers, *, level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of a few independent values, such as one per seed.

    Raises:
        ValueError: fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values; there is {len(values)}")
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return mean - half, mean + half


def bootstrap_interval(
    values: Numbers,
    statistic: Callable | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Bootstrap interval (bias-corrected and accelerated) over images or other independent rows.

    Args:
        values: (n,), or (n, d) resampled by whole rows for a `statistic` of d arrays.
        statistic: of one array per column; the mean without it.

    Raises:
        ValueError: fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values; there is {len(values)}")
    columns = tuple(values.T) if values.ndim == 2 else (values,)
    estimate = float((statistic or np.mean)(*columns))
    if all(np.ptp(column) == 0 for column in columns):
        return estimate, estimate  # every resample is the same
    settings = {
        "paired": len(columns) > 1,
        "vectorized": statistic is None,
        "n_resamples": resamples,
        "batch": max(1, 4_000_000 // len(values)),  # memory: at most 32 MB of resamples at once
        "confidence_level": level,
    }
    for method in ("BCa", "percentile"):  # BCa is undefined where every resample lies on one side
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # DegenerateDataWarning: handled by the next method
            interval = stats.bootstrap(
                columns, statistic or np.mean, method=method, rng=seed, **settings
            ).confidence_interval
        if np.isfinite([interval.low, interval.high]).all():
            break
    return float(interval.low), float(interval.high)


def _verdict(
    claim: Claim, results: Sequence[tuple[float, float | None, float | None]], profile: str
) -> str:
    if profile in claim.by_construction:
        return "by construction"
    meets = [_meets(claim.criterion, *result) for result in results]
    if all(estimate and interval for estimate, interval in meets):
        return "reproduced"
    return "partly reproduced" if all(estimate for estimate, _ in meets) else "not reproduced"


def _meets(
    criterion: Mapping, estimate: float, low: float | None, high: float | None
) -> tuple[bool, bool]:
    """Whether the estimate, and whether the whole interval, meets the criterion."""
    kind = criterion["kind"]
    above = criterion.get("than", 0.0) if kind != "between" else criterion["low"]
    if kind == "between":
        inside = [v is not None and above <= v <= criterion["high"] for v in (estimate, low, high)]
        return inside[0], inside[1] and inside[2]
    if kind == "less":
        return estimate < above, high is not None and high < above
    return estimate > above, low is not None and low > above
