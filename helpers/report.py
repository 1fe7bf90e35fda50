"""The report: one page with every figure, every claim, and where it all came from.

`write` gathers what a run left under `results/<profile>/` (runs, figures, claims) in `index.html`.
The page holds its pictures and numbers itself and loads nothing, so it can be mailed, archived or
projected without a network. What is missing or damaged is said on the page.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from helpers import claims, figures
from helpers.durable import write_durably

PICTURE_BUDGET = 300_000  # bytes a figure may take in the page: sharp on a projector


def write(profile_folder: Path, provenance: Mapping[str, object]) -> Path:
    """Write `<profile_folder>/index.html` and return its path.

    Reads `runs/*.json`, `figures/*.json` with their PNG, and `claims/*.json`; every one of them,
    and the folder itself, may be missing or damaged.
    """
    problems: list[str] = []
    runs = [run for _, run in _records(profile_folder / "runs", _run, problems)]
    shown = [figure for _, figure in _records(profile_folder / "figures", _figure, problems)]
    judged = [judgement for _, judgement in _records(profile_folder / "claims", _judged, problems)]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(heading=_heading, duration=_duration, memory=_memory)
    template = environment.from_string(
        Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    )
    declared = claims.load()
    order = {name: i for i, name in enumerate(declared)}
    judged.sort(key=lambda one: order.get(one["judgement"].claim.id, len(order)))
    done = {one["judgement"].claim.id for one in judged}
    page = template.render(
        profile=profile_folder.name,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        runs=runs,
        figures=_by_notebook(shown),
        number_of_figures=len(shown),
        judged=_by_paper(judged),
        number_judged=len(judged),
        waiting=[claim for name, claim in declared.items() if name not in done],
        tally=_tally(judged),
        deviations=claims.deviations(),
        provenance={str(key): str(value) for key, value in provenance.items()},
        problems=problems,
        icon=_icon,
    )
    path = profile_folder / "index.html"
    write_durably(path, page.encode())
    return path


# ---------------------------------------------------------------- reading what a run left


def _records(
    folder: Path, make: Callable[[dict, Path], dict], problems: list[str]
) -> list[tuple[str, dict]]:
    """Every record of a folder that can be read; what cannot is added to `problems` in words."""
    found = []
    for path in sorted(folder.glob("*.json")):
        where = f"{folder.name}/{path.name}"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found.append((path.stem, make(record, path)))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            problems.append(f"{where} cannot be read ({error}); run its notebook again.")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{where} is not a record of this course ({error!r}).")
    return found


def _run(record: dict, path: Path) -> dict:
    return {
        "notebook": str(record["notebook"]),
        "ok": record["state"] == "ok",
        "state": str(record["state"]),
        "seconds": _number(record.get("seconds")),
        "peak_mib": _number(record.get("peak_mib")),
        "error": str(record.get("error") or ""),
        "finished": _moment(str(record.get("finished") or "")),
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _figure(record: dict, path: Path) -> dict:
    figure = {
        "id": path.stem,
        "notebook": str(record["notebook"]),
        "caption": str(record["caption"]),
        "alt": str(record["alt"]),
        "saved": str(record.get("saved", "")),
        "picture": None,
        "width": int(record.get("width") or 864),
        "numbers": None,
    }
    if record.get("data") is not None:
        content = json.dumps(record["data"], indent=1, ensure_ascii=False).encode()
        figure["numbers"] = figures.data_uri(content, "application/json")
    try:
        content = path.with_suffix(".png").read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            figure["size"] = picture.size
            if hashlib.sha256(content).hexdigest() != record.get("png"):  # not as it was saved
                picture.load()  # decodes it, so that damage is found
        encoded = content, "image/png"
        if len(content) > PICTURE_BUDGET:
            encoded = figures.embedded(path.with_suffix(".png"), content, PICTURE_BUDGET)
        figure["picture"] = figures.data_uri(*encoded)
    except FileNotFoundError:
        figure["missing"] = f"The picture {path.stem}.png is missing."
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        figure["missing"] = f"The picture {path.stem}.png is damaged."
    return figure


def _judged(record: dict, path: Path) -> dict:
    judgement = claims.read(record)
    return {"judgement": judgement, "strip": _strip(judgement)}


def _by_notebook(shown: list[dict]) -> dict[str, list[dict]]:
    grouped: dict[str, list[dict]] = {}
    for figure in sorted(shown, key=lambda f: (f["notebook"], f["saved"])):
        grouped.setdefault(figure["notebook"], []).append(figure)
    return grouped


def _by_paper(judged: list[dict]) -> dict[str, list[dict]]:
    grouped: dict[str, list[dict]] = {}
    for one in sorted(judged, key=lambda one: one["judgement"].claim.paper):
        claim = one["judgement"].claim
        grouped.setdefault(f"{claim.paper} · {claim.paper_title}", []).append(one)
    return grouped


def _tally(judged: list[dict]) -> dict[str, int]:
    verdicts = [one["judgement"].verdict for one in judged]
    return {verdict: verdicts.count(verdict) for verdict in claims.VERDICTS}


# ---------------------------------------------------------------- words and small drawings


def _heading(notebook: str) -> str:
    """'00_meet_the_scenes' as a heading: '00 · Meet the scenes'."""
    digits, _, words = notebook.partition("_")
    if not (digits.isdigit() and words):
        return notebook
    return f"{digits} · {words.replace('_', ' ').capitalize()}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _moment(iso: str) -> str:
    """A date and time for a reader, left as it is where it is none."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _memory(mib: float | None) -> str:
    if mib is None:
        return "not recorded"
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


_DISC, _RING = '<circle cx="8" cy="8" r="7"/>', '<circle class="ring" cx="8" cy="8" r="6.2"/>'
_ICONS = {  # drawn, not typed: a font may lack the sign
    "reproduced": _DISC + '<path class="cut" d="M4.6 8.4l2.3 2.3 4.5-5"/>',
    "partly reproduced": _RING + '<path d="M8 1.8a6.2 6.2 0 0 0 0 12.4z"/>',
    "not reproduced": _DISC + '<path class="cut" d="M5.2 5.2l5.6 5.6m0-5.6l-5.6 5.6"/>',
    "by construction": _RING + '<path class="ring" d="M5 6.3h6M5 9.7h6"/>',
    "not testable here": _RING + '<path class="ring" d="M5 8h6"/>',
}


def _icon(verdict: str) -> Markup:
    return Markup(
        f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{_ICONS[verdict]}</svg>'
    )


def _strip(judgement: claims.Judgement) -> Markup | None:
    """Paper (diamond), ours (dot with its interval) and the criterion (ticks) on one small axis."""
    claim = judgement.claim
    if judgement.estimate is None or judgement.steps or claim.criterion is None:
        return None
    limits = [claim.criterion[k] for k in ("than", "low", "high") if k in claim.criterion]
    paper = None if isinstance(claim.published, str) else float(claim.published)
    ends = [v for v in (judgement.low, judgement.high) if v is not None]
    marks = [judgement.estimate, *ends, *limits, *([] if paper is None else [paper])]
    low, high = min(marks), max(marks)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(8 + 184 * (value - low) / span, 1)

    drawn = [f'<path class="limit" d="M{x(v)} 3v22"/>' for v in limits]
    if ends:
        drawn.append(f'<path class="whisker" d="M{x(ends[0])} 14H{x(ends[1])}"/>')
    if paper is not None:
        drawn.append(f'<path class="paper" d="M{x(paper)} 7l7 7-7 7-7-7z"/>')
    drawn.append(f'<circle class="ours" cx="{x(judgement.estimate)}" cy="14" r="5"/>')
    label = escape(f"Paper: {claim.paper_says}. Ours: {judgement.ours}. Criterion: {claim.rule}.")
    return Markup(
        f'<svg class="strip" viewBox="0 0 200 28" role="img" aria-label="{label}">'
        f'<path class="axis" d="M0 14H200"/>{"".join(drawn)}</svg>'
    )
