"""Notebook 02: a class's summaries to leaf through, and one mask to fit anew with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets
import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from helpers import crisp_masks, figures, models, summary_study
from helpers.figures import PALETTE
from helpers.summary_study import Explained, Study
from helpers.widgets.live import Panel, Slices
from helpers.widgets.pieces import (
    PAPER,
    Pictures,
    bar,
    choice,
    one_thread,
    picture,
    row,
    slider,
    stops,
    table,
    wrapping,
)

_SHOWN = 9  # members of a summary, the nearest to its exemplar first
_SIDE = 180  # of a picture to look at, pixels on the page

ByClass = Mapping[tuple[str, str], Explained]  # by network and class, as `Study.run` gives them


def summary_panel(explained: ByClass) -> Browser | Markdown:
    """A panel to look at the summaries of every network and class, member by member.

    Args:
        explained: what `Study.run` gave.
    """
    if not explained:
        return Markdown("No class has been explained here, so there is no summary to look at.")
    return Browser(explained)


def mask_panel(study: Study, explained: ByClass) -> Refining | Markdown:
    """A panel that fits one crisp mask anew for other weights of the loss, while one watches.

    Args:
        explained: what `study.run` gave.
    """
    if not crisp_masks.SCHEDULES[study.budget.schedule].crisp.iterations:
        return Markdown("The masks of this profile have no crisp phase, so nothing can be refined.")
    if not any(
        (network.title, kind) in explained for network in study.main for kind in study.kinds
    ):
        return Markdown("No class has been explained here, so there is no mask to refine.")
    return Refining(study, explained)


# ---- a class's summaries ----


class Browser(Panel):
    """Summaries as rows of their members' boxes; the chosen one whole. See `summary_panel`."""

    def __init__(self, explained: ByClass) -> None:
        self._explained = explained
        titles = list(dict.fromkeys(title for title, _ in explained))
        trained = next((t for t, _ in explained if not explained[t, _].network.early), titles[0])
        kinds = list(dict.fromkeys(kind for _, kind in explained))
        self.network = choice(
            "Network", titles, "Whose masks the summaries come from", value=trained
        )
        self.kind = choice("Class", kinds, "The class whose images are summarised", value=kinds[0])
        self._pool: list[_Row] = []
        self.rows = ipywidgets.VBox(layout=ipywidgets.Layout(max_height="292px", overflow="auto"))
        self.detail = ipywidgets.HTML()
        super().__init__(
            "Leaf through the summaries",
            [self.network, self.kind],
            [self.rows, self.detail],
            note="Choose a member to see it whole. Would you have grouped a row's members?",
        )

    def work(self) -> Slices:
        """Show the rows one after the other, then the first member."""
        self.rows.children, self.detail.value = (), ""
        one, shown = self._one(), []
        if not one.found.summaries:
            self.detail.value = f"<p>No summary: {escape(one.found.message)}.</p>"
            return
        known = summary_study.named(one)
        for number in range(len(one.found.summaries)):
            part = f"{known.part[number]} ({known.purity[number]:.0f} %)" if len(known) else ""
            if number == len(self._pool):
                self._pool.append(_Row(number, self._choose))
            shown.append(self._pool[number])
            shown[number].show(part, one)
            self.rows.children = shown
            yield
            if number == 0:
                shown[0].choose(0)  # shows it
                yield

    def close(self) -> None:
        """Take the panel from the page, with the rows that are not shown now."""
        for spare in self._pool:
            spare.close()
        super().close()

    def _one(self) -> Explained:
        asked = (self.network.value, self.kind.value)
        if asked not in self._explained:
            known = [kind for title, kind in self._explained if title == asked[0]]
            raise ValueError(
                f"{asked[0]} was stopped early and explains only {', '.join(known)}; choose one of "
                "these classes or a trained network."
            )
        return self._explained[asked]

    def _choose(self, one: Explained, number: int, member: int) -> None:
        """Show one member of one summary whole; no other is then marked."""
        for other in self._pool:
            if other.number != number:
                other.choose(-1)
        with one_thread():
            self.detail.value = member_html(one, number, member)


class _Row(ipywidgets.HBox):
    """One summary: what it is called, and its members' boxes to choose from."""

    def __init__(self, number: int, choose: Any) -> None:
        super().__init__(layout=ipywidgets.Layout(align_items="center", overflow="visible"))
        self.number = number
        self._about = ipywidgets.HTML(layout=ipywidgets.Layout(width="150px", flex="0 0 auto"))
        self._members: Pictures | None = None
        self._changing = False
        self._choose = choose
        self._one: Explained | None = None  # whose summary it shows: rows change one by one

    def show(self, part: str, one: Explained) -> None:
        """Offer the first members; none is chosen."""
        self._one, summary = one, one.found.summaries[self.number]
        known = f"{escape(part)}<br>" if part else ""
        self._about.value = (
            f'<div style="line-height:1.35"><strong>Summary {self.number + 1}</strong><br>{known}'
            f"{len(summary.images)} images</div>"
        )
        some = slice(0, _SHOWN)
        cut = [
            around(one.images.images[image], box)
            for image, box in zip(
                summary.images[some].tolist(), summary.boxes[some].tolist(), strict=True
            )
        ]
        names = [f"no. {image + 1}" for image in summary.images[some].tolist()]
        self._changing = True  # a new row shows nothing whole by itself
        if self._members is None:
            self._members = Pictures(cut, names, side=60)
            self._members.observe(self._chosen, "value")
            self.children = [self._about, self._members]
        else:
            self._members.show(cut, names)
        self._members.value = -1
        self._changing = False

    def choose(self, member: int) -> None:
        """Mark a member, or with -1 none."""
        if self._members is not None:
            self._members.value = member

    def _chosen(self, change: Any) -> None:
        if change.new >= 0 and not self._changing:
            self._choose(self._one, self.number, change.new)

    def close(self) -> None:
        for widget in self.children:
            widget.close()
        super().close()


def around(image: UInt8[Tensor, "3 h w"], box: list[int]) -> UInt8[Tensor, "3 s s"]:
    """The square around a box (x0, y0, x1, y1), moved into the picture where it would leave it;
    no larger than the picture's shorter side."""
    h, w = image.shape[1:]
    x0, y0, x1, y1 = box
    side = min(max(x1 - x0, y1 - y0), h, w)
    left = min(max((x0 + x1 - side) // 2, 0), w - side)
    top = min(max((y0 + y1 - side) // 2, 0), h - side)
    return image[:, top : top + side, left : left + side]


def member_html(one: Explained, number: int, member: int) -> str:
    """One member of a summary whole: its region and box, the mask, and the true parts if known."""
    summary = one.found.summaries[number]
    at = int(summary.images[member])
    image, kind, title = one.images.images[at], one.kind, one.network.title
    before, after = (100 * float(one.masks[name][at]) for name in ("before", "after_crisp"))
    region, box = one.found.region_of(summary)[member], summary.boxes[member]
    removed = 1 - one.masks["crisp"][at]
    about = f"{kind}, image {at + 1}"
    cells = [
        picture(
            outlined(image, region, box),
            f"{about}: the member's box in orange within its region",
            _SIDE,
            f"<strong>Image {at + 1}</strong>: the part (orange) in its region (white line).",
        ),
        picture(
            figures.heated(image[None], removed[None])[0],
            f"{about}: the mask removes {removed.mean():.0%} of the picture",
            _SIDE,
            f"The mask: yellow is blurred away, {removed.mean():.0%} of the picture. "
            f"{escape(kind)}: {before:.0f} % before, {after:.0f} % after.",
        ),
    ]
    if one.images.parts is None:
        cells.append('<p style="max-width:20em">Which parts these are, nobody knows here.</p>')
    else:
        parts, names = one.images.parts[at], one.images.part_names
        x0, y0, x1, y1 = box.tolist()
        lost, inside = shares_of(parts, removed), shares_within(parts[y0:y1, x0:x1])
        order = sorted(lost, key=lambda part: -lost[part])
        coloured = dict(zip(order, _COLOURS, strict=False))
        key = "; ".join(f"{_swatch(c)}&nbsp;{escape(names[p])}" for p, c in coloured.items())
        most = list(inside.items())[:4]
        seen = ", ".join(f"{names[p] if p else 'backdrop'} {s:.0%}" for p, s in most)
        cells += [
            picture(
                tinted(image, parts, coloured),
                f"{about}: its parts, {', '.join(names[p] for p in order)}",
                _SIDE,
                f"True parts: {key}.",
            ),
            '<div style="flex:1 1 16em;min-width:16em;font-size:12px">'
            + table(
                f"In the box: {escape(seen)}.<br>How much of each part the mask removes:",
                [(names[p], bar(lost[p]), f"{lost[p]:.0%}") for p in order[:5]],
            )
            + "</div>",
        ]
    head = f"<strong>{escape(title)}, {escape(kind)}: summary {number + 1}</strong>"
    return f'<div style="{PAPER}">{head}{row(*cells)}</div>'


_COLOURS = ("orange", "sky", "green", "vermilion", "blue", "purple", "yellow")


def _swatch(colour: str) -> str:
    return f'<span aria-hidden="true" style="color:{PALETTE[colour]}">■</span>'


def outlined(
    image: UInt8[Tensor, "3 h w"], region: Bool[Tensor, "h w"], box: Int64[Tensor, " 4"]
) -> UInt8[Tensor, "3 eh ew"]:
    """The picture, enlarged to about what is shown, with a white line around the region (dark on
    its outer side) and an orange frame."""
    enlarge = max(1, round(2 * _SIDE / max(image.shape[1:])))
    framed = figures.framed(image, box[None], "orange", enlarge)
    inside = region.repeat_interleave(enlarge, 0).repeat_interleave(enlarge, 1)
    line = max(1, min(framed.shape[1:]) // 180)

    def grown(by: int) -> Bool[Tensor, "eh ew"]:
        pooled = nn.functional.max_pool2d(inside[None].float(), 2 * by + 1, 1, by)
        return pooled[0] > 0

    orange = (framed != figures.framed(image, box[:0].view(0, 4), "orange", enlarge)).any(0)
    white, dark = grown(line) & ~inside, grown(2 * line) & ~grown(line)
    shown = torch.where(white & ~orange, 255, framed)
    return torch.where(dark & ~orange, 20, shown).to(torch.uint8)


def tinted(
    image: UInt8[Tensor, "3 h w"], parts: UInt8[Tensor, "h w"], colours: Mapping[int, str]
) -> UInt8[Tensor, "3 h w"]:
    """The grey picture with parts in colours of `PALETTE`; others stay grey."""
    grey = image.float().mean(0, keepdim=True).expand(3, -1, -1)
    shown = 128 + grey / 2
    for part, name in colours.items():
        code = PALETTE[name].lstrip("#")
        rgb = torch.tensor([int(code[i : i + 2], 16) for i in (0, 2, 4)])[:, None, None].float()
        shown = torch.where(parts == part, 0.25 * grey + 0.75 * rgb, shown)
    return shown.clamp(max=255).round().to(torch.uint8)  # half of white above 128 is too much


def shares_of(parts: UInt8[Tensor, "h w"], removed: Float[Tensor, "h w"]) -> dict[int, float]:
    """The mean of `removed` on each part that the picture shows; the backdrop is no part."""
    return {p: removed[parts == p].mean().item() for p in parts.unique().tolist() if p}


def shares_within(parts: UInt8[Tensor, "h w"]) -> dict[int, float]:
    """What share of these pixels each part has, the largest first; the backdrop is 0."""
    which, count = parts.unique(return_counts=True)
    shares = (count / parts.numel()).tolist()
    return dict(sorted(zip(which.tolist(), shares, strict=True), key=lambda pair: -pair[1]))


# ---- one mask, fitted anew ----


_WEIGHTS = (0, *(m * 10.0**e for e in range(-3, 1) for m in (1, 2, 5)), 10, 20)


class Refining(Panel):
    """Equation 2's crisp phase for weights of one's own. See `mask_panel`."""

    def __init__(self, study: Study, explained: ByClass) -> None:
        self._explained, self._study = explained, study
        self._schedule = crisp_masks.SCHEDULES[study.budget.schedule]
        self._model = lru_cache(maxsize=4)(self._folded)
        titles = [n.title for n in study.main]
        self.network = choice("Network", titles, "Whose answer the mask is to take away")
        self.kind = choice("Class", list(study.kinds), "The class of the image")
        self.image = slider("Image", 1, 2, 1, "Which of the class's images")
        own = self._schedule.crisp
        self.l1, self.l2, self.l3 = (
            stops(label, sorted({*_WEIGHTS, weight}), weight, tooltip)
            for label, weight, tooltip in (
                ("λ1, size", own.l1, "Weight of the mean of |1 − m|: how dear it is to blur"),
                ("λ2, smoothness", own.l2, "Weight of the mean of |∇m|^β: how dear borders are"),
                ("λ3, sharpness", own.l3, "Weight of the mean of |1 − m| m: how dear greys are"),
            )
        )
        self.pictures, self.terms = ipywidgets.HTML(), ipywidgets.HTML()
        self.terms.layout = ipywidgets.Layout(flex="1 1 18em", min_width="18em")
        for control in (self.network, self.kind):
            control.observe(self._count, "value")
        self._count()
        shown = ipywidgets.HBox([self.pictures, self.terms], layout=wrapping("8px 14px"))
        super().__init__(
            "Weigh the loss yourself",
            [self.network, self.kind, self.image, self.l1, self.l2, self.l3],
            [shown],
            note=f"{own.iterations} steps from the smooth mask, first with the notebook's weights. "
            "And without λ3? Without λ1?",
            stoppable=True,
        )

    def work(self) -> Slices:
        """Fit the mask, with a frame every few steps."""
        one, at = self._one(), self.image.value - 1
        phase = replace(self._schedule.crisp, l1=self.l1.value, l2=self.l2.value, l3=self.l3.value)
        device = self._study.device
        images = one.images.images[at : at + 1].to(device).float() / 255
        label = one.images.labels[at : at + 1].to(device)
        smooth = one.masks["smooth"][at : at + 1].to(device)
        how = self._schedule.for_side(min(images.shape[2:]))
        seen = _Seen(one.kind, at, images, crisp_masks.blurred(images, how.image_sigma, how.kernel))
        model = self._model(self.network.value)
        before = float(one.masks["before"][at])
        self._show(seen, smooth, model, label, before, phase, 0)
        yield 0
        fitting = crisp_masks.refining(
            model,
            images,
            label,
            smooth,
            replace(self._schedule, crisp=phase),
            precision=self._study.precision,
        )
        for step, (mask, loss) in enumerate(fitting, 1):
            if not loss.isfinite():
                raise ValueError("The loss is not finite; choose smaller weights.")
            if step % 5 == 0 or step == phase.iterations:
                self._show(seen, mask, model, label, before, phase, step)
            yield step / phase.iterations

    def _one(self) -> Explained:
        return self._explained[self.network.value, self.kind.value]

    def _count(self, _: object = None) -> None:
        self.image.max = len(self._one().images)

    def _folded(self, title: str) -> nn.Module:
        """As the masks were made: a copy of the network with fewer operations."""
        return models.folded(self._study.networks[self._study.number(title)].model)

    def _show(
        self,
        seen: _Seen,
        mask: Float[Tensor, "1 h w"],
        model: nn.Module,
        label: Int64[Tensor, " 1"],
        before: float,
        phase: crisp_masks.Phase,
        step: int,
    ) -> None:
        shown = crisp_masks.perturbed(seen.images, seen.blurry, mask)
        with models.frozen(model), torch.inference_mode():
            probability = model(shown).softmax(1)[0, label.item()].item()
        means = [term.item() for term in crisp_masks.penalties(mask, self._schedule.beta)]
        weights = (phase.l1, phase.l2, phase.l3)
        names = (f"p({seen.kind})", "λ1 |1−m|", "λ2 |∇m|^β", "λ3 |1−m|m")
        weighted = (w * m for w, m in zip(weights, means, strict=True))
        terms = dict(zip(names, (probability, *weighted), strict=True))
        loss, area = sum(terms.values()), means[0]
        when = f"step {step} of {phase.iterations}"
        about = f"{seen.kind}, image {seen.at + 1}"
        self.pictures.value = row(
            picture(
                seen.images[0],
                f"{about}: probability {before:.0%}",
                _SIDE,
                f"<strong>{escape(about)}</strong>: {escape(seen.kind)} {before:.0%}.",
            ),
            picture(
                figures.heated((seen.images * 255).byte().cpu(), 1 - mask.cpu())[0],
                f"The mask at {when} removes {area:.0%} of the picture",
                _SIDE,
                f"The mask at {when}: yellow, {area:.0%}, is blurred away.",
            ),
            picture(
                shown[0],
                f"What the network sees under the mask: probability {probability:.0%}",
                _SIDE,
                f"What the network sees: {escape(seen.kind)} {probability:.0%}.",
            ),
        )
        binary = float(crisp_masks.binary_share(mask))
        rows = [(name, bar(v / loss if loss else 0), f"{v:.4f}") for name, v in terms.items()]
        self.terms.value = (
            f'<div style="{PAPER};font-size:12px">'
            + table(
                f"<strong>Loss {loss:.4f}</strong> at {when}; term by term (means over pixels).<br>"
                f"Nearly 0 or 1: {binary:.0%} of the mask.",
                rows,
                whole_names=True,
            )
            + "</div>"
        )


class _Seen:
    """The image that is explained, sharp and blurred."""

    def __init__(self, kind: str, at: int, images: Tensor, blurry: Tensor) -> None:
        self.kind, self.at, self.images, self.blurry = kind, at, images, blurry
