"""Visual summaries beside literal loops and beside the bare network: `make bench`.

Masks: `helpers.crisp_masks` fits a batch at a time, in float32 and in bfloat16. It is compared with
the published procedure, one image after the other in float32: cells enlarged bilinearly, a Gaussian
blur, Adam. That loop is below. Matching: `lom` and `phm` beside loops over every pair of boxes.
Before any time is taken it is checked that the work is the same: masks take the same number of
passes through the network and end at the same loss, matches have the same confidences. Last, where
the time goes for one class and network.

A step of the masks holds one pass through the network, forward and backward. The bare network does
that and nothing else with the same batch: its share of the time is what cannot be saved. On a CUDA
GPU the batch is doubled until that makes masks no quicker, for a slim and a large network, and the
share is measured at each size; the goal is 85 %.

On processors everything runs in one thread, as the study's jobs do, one on each core. Contenders
take turns, in an order that rotates from round to round, so that a busy machine slows all alike. A
ratio compares two in the same round. Printed is the median; between the lowest and the highest of n
rounds lies the true median with probability 1 - 2^(1 - n).
"""

import argparse
import copy
import json
import math
import os
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from unittest.mock import patch

import cv2
import numpy as np
import torch
from bench_background_removal import DEVICE, bare, demand, timed, watched
from choose_tie import by_superclass
from scipy.ndimage import correlate
from torch import Tensor, nn
from torch.nn import functional

from helpers import crisp_masks, models, proposal_flow, summary_study, training
from helpers import visual_summaries as vs
from helpers.budget import PROFILES, Recipe, results_folder
from helpers.crisp_masks import SCHEDULES, Phase, Schedule
from helpers.durable import write_durably
from helpers.imageset import ImageSet
from helpers.models import frozen
from helpers.scenes.world import World

ARCHITECTURE, CLASSES, SIZE, KIND = "slim_resnet10", 9, 64, "retriever"
STUDY = PROFILES["demo"].summaries
PAPER = SCHEDULES["paper"]
MASK = PAPER.smooth.iterations + PAPER.crisp.iterations  # steps; a mask is always counted as these
FULL, HALF, LOOP = "batch, float32", "batch, bfloat16", "one image at a time"
GOAL = 0.85  # of the time is the network's own, on a GPU
# How far mean final losses may lie apart. Hundreds of steps amplify rounding: the loop itself ended
# at 0.1795 in one memory layout and at 0.1797 in the other.
EQUAL = {FULL: 2e-3, HALF: 5e-3, f"{LOOP}, channels last": 2e-3}


@dataclass(frozen=True)
class Plan:
    """How much is measured. Steps of masks are two smooth to one crisp, as the paper's are."""

    train: int = 960  # scenes, for two epochs
    images: int = 20  # of one class
    loop_images: int = 2  # that the loop is timed with
    checked: int = 2  # images whose final losses are compared
    checked_steps: int = MASK
    steps: int = 90  # that are timed
    rounds: int = 5
    pipeline_rounds: int = 3
    matched: tuple[tuple[int, int, int], ...] = ((64, 200, 2), (224, 500, 2))  # px, boxes, enlarge
    swept: tuple[tuple[str, int], ...] = (("slim_resnet10", 64), ("resnet50", 224))
    largest: int = 4_096  # batch


SMOKE = Plan(
    train=192,
    images=10,
    loop_images=1,
    checked=2,
    checked_steps=45,
    steps=6,
    rounds=2,
    pipeline_rounds=1,
    matched=((64, 60, 1),),
    swept=(("slim_resnet10", 64),),
    largest=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smoke", action="store_true", help="a little of everything; its numbers mean nothing"
    )
    asked = parser.parse_args()
    plan = SMOKE if asked.smoke else Plan()
    on_gpu = DEVICE.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    cv2.setNumThreads(1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = torch.cuda.get_device_name() if on_gpu else DEVICE.type
    threads = torch.get_num_threads()
    print(f"{ARCHITECTURE} at {SIZE} px on {where}, {threads} thread(s); load before: {load}")
    report = {
        "asked": vars(asked),
        "plan": vars(plan),
        "network": ARCHITECTURE,
        "size": SIZE,
        "device": where,
        "threads": threads,
        "load_before": load,
        "tf32": on_gpu and torch.backends.cudnn.allow_tf32,  # float32 is less than that
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    model = trained(plan.train)
    images = of_one_class(plan.images)
    report["masks"] = bench_masks(model, images, plan)
    report["matching"] = bench_matching(plan)
    report["pipeline"] = bench_pipeline(model, images, plan)
    if on_gpu or asked.smoke:
        report["sweep"] = bench_batches(plan)
    else:
        print("\nbatches to saturation: skipped, there is no CUDA GPU")
    name = "visual_summaries_smoke.json" if asked.smoke else "visual_summaries.json"
    target = results_folder("bench") / name
    write_durably(target, json.dumps(report, indent=2).encode())
    print(f"\nwritten to {target}")


def trained(scenes: int) -> nn.Sequential:
    """A network a little trained, so that its scores are those of a network."""
    model = models.build(ARCHITECTURE, CLASSES, seed=0).to(DEVICE)
    recipe = Recipe(2, batch_size=32, precision="float32")
    shown = by_superclass(World(seed=2_001, size=SIZE).images(range(scenes)))
    training.fit(model, shown, recipe, seed=0, device=DEVICE, progress=False)
    return model


def of_one_class(count: int, size: int = SIZE) -> ImageSet:
    world = World(seed=2_002, size=size)
    kinds = len(world.images(()).class_names)
    scenes = world.images(range(kinds * count))
    found = scenes[scenes.labels == scenes.class_names.index(KIND)][:count]
    demand(len(found) == count, f"{len(found)} of {len(scenes)} scenes show a {KIND}, not {count}")
    return found


def answers(model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the network takes images for: its masks remove what speaks for them."""
    with frozen(model), torch.no_grad():
        return model(images).argmax(1)


# ---------------------------------------- measuring


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contender's rates, one per round; a contender returns how much it did per second."""
    names = list(contenders)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            rates[name].append(contenders[name]())
    return rates


def over(rates: list[float], others: list[float]) -> dict:
    """Ratios round by round, their median, and [lowest, highest]."""
    ratios = [a / b for a, b in zip(rates, others, strict=True)]
    return {
        "median": statistics.median(ratios),
        "interval": [min(ratios), max(ratios)],
        "ratios": ratios,
    }


def shown(ratio: dict, form: str) -> str:
    low, high = ratio["interval"]
    return f"{ratio['median']:{form}} ({low:{form}}-{high:{form}})"


def show_rates(rates: dict[str, list[float]], unit: str) -> None:
    for name, measured in rates.items():
        print(f"  {name:36s}{statistics.median(measured):9.3f} {unit}/s")


# ---------------------------------------- masks


def schedule(steps: int) -> Schedule:
    """The paper's with fewer steps."""
    late = steps // 3
    phases = replace(PAPER.smooth, iterations=steps - late), replace(PAPER.crisp, iterations=late)
    return replace(PAPER, smooth=phases[0], crisp=phases[1])


def precisions() -> dict[str, str]:
    """Those to measure: a processor without bfloat16 instructions imitates them."""
    quick = training.settled(Recipe(1, precision="quick")).precision == "bfloat16"
    return {FULL: "float32"} | ({HALF: "bfloat16"} if quick else {})


def bench_masks(model: nn.Sequential, scenes: ImageSet, plan: Plan) -> dict:
    images = scenes.to_float(DEVICE)
    targets, n = answers(model, images), len(images)
    ours = precisions()
    print(f"\nmasks: {n} images in one batch; a mask is {MASK} steps, {plan.steps} are timed")
    if HALF not in ours:
        print("  bfloat16 is skipped: torch knows of no instructions for it on this processor")
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    wide = copy.deepcopy(model).to(memory_format=torch.channels_last)
    layouts = {LOOP: torch.contiguous_format, f"{LOOP}, channels last": torch.channels_last}
    loops = {
        name: (plain if layout == torch.contiguous_format else wide, layout)
        for name, layout in layouts.items()
    }
    losses = equal_losses(wide, loops, ours, images, targets, plan)

    def ours_per_second(precision: str) -> float:
        run = partial(crisp_masks.crisp_masks, wide, images, targets, schedule(plan.steps))
        return n * plan.steps / MASK / timed(lambda: run(batch_size=n, precision=precision))

    def loop_per_second(network: nn.Sequential, layout: torch.memory_format) -> float:
        few = slice(plan.loop_images)
        run = partial(loop, network, images[few], targets[few], schedule(plan.steps), layout)
        return plan.loop_images * plan.steps / MASK / timed(run)

    contenders = {name: partial(ours_per_second, how) for name, how in ours.items()}
    contenders |= {name: partial(loop_per_second, *how) for name, how in loops.items()}
    bares = {name: f"bare network, {how}" for name, how in ours.items()}
    passes = max(plan.steps // 3, 1)
    for name, precision in ours.items():
        contenders[bares[name]] = partial(bare_rate, wide, images, targets, passes, precision)
    contenders["bare network, float32, contiguous"] = partial(
        bare_rate, plain, images, targets, passes, "float32", torch.contiguous_format
    )
    rates = take_turns(contenders, plan.rounds)
    show_rates(rates, "masks")
    times, shares = {}, {}
    for name in ours:
        for other in loops:
            times[f"{name} / {other}"] = over(rates[name], rates[other])
            ratio = shown(times[f"{name} / {other}"], ".2f")
            print(f"  {name} is {ratio} times as quick as {other}")
        shares[name] = over(rates[name], rates[bares[name]])
        print(f"  {name}: the bare network's passes take {shown(shares[name], '.0%')} of its time")
    return {"losses": losses, "rates": rates, "times_as_quick": times, "bare_share": shares}


def bare_rate(
    model: nn.Sequential,
    images: Tensor,
    targets: Tensor,
    passes: int,
    precision: str,
    layout: torch.memory_format = torch.channels_last,
) -> float:
    """Masks per second if a step were the network's own forward and backward and nothing else."""
    batch = images.clone(memory_format=layout).requires_grad_()
    half = torch.autocast(DEVICE.type, torch.bfloat16)
    with frozen(model), half if precision == "bfloat16" else nullcontext():
        seconds = timed(lambda: bare(model, batch, targets, passes, weights=False))
    return len(images) * passes / MASK / seconds


def equal_losses(
    wide: nn.Sequential,
    loops: dict[str, tuple[nn.Sequential, torch.memory_format]],
    ours: dict[str, str],
    images: Tensor,
    targets: Tensor,
    plan: Plan,
) -> dict[str, dict]:
    """Final losses of the first images by every contender, all computed by the loop's equation 2.

    Beside them the loss of the mask that the crisp phase starts from, which has to be higher.
    """
    few, how = slice(plan.checked), schedule(plan.checked_steps)
    images, targets = images[few], targets[few]
    found, passes = {}, {}
    for name, precision in ours.items():
        run = partial(crisp_masks.crisp_masks, wide, images, targets, how)
        with watched(wide) as passes[name]:
            made = run(batch_size=len(images), precision=precision)
        found[name] = made.crisp
        if name == FULL:
            found["before the crisp phase"] = made.smooth
    for name, (network, layout) in loops.items():
        with watched(network) as passes[name]:
            found[name] = loop(network, images, targets, how, layout)
    reference, layout = loops[LOOP]
    losses = {}
    for name, masks in found.items():
        losses[name] = final_losses(reference, images, targets, masks, how, layout)
    _, _, h, w = images.shape
    for name in ours:
        wanted = {f"torch.float32 ({len(images)}, 3, {h}, {w})": plan.checked_steps}
        demand(dict(passes[name]) == wanted, f"{name} computed {dict(passes[name])}, not {wanted}")
    for name in loops:
        wanted = {f"torch.float32 (1, 3, {h}, {w})": plan.checked_steps * len(images)}
        demand(dict(passes[name]) == wanted, f"{name} computed {dict(passes[name])}, not {wanted}")
    means = {name: statistics.mean(values) for name, values in losses.items()}
    away = {
        name: max(abs(a - b) for a, b in zip(values, losses[LOOP], strict=True))
        for name, values in losses.items()
    }
    print(f"  final losses after {plan.checked_steps} steps, mean of {len(images)} images")
    for name, mean in means.items():
        print(f"    {name:36s}{mean:8.4f}   furthest from the loop's: {away[name]:.1e}")
    demand(means[LOOP] < means["before the crisp phase"], f"the loss did not fall: {means}")
    for name, limit in EQUAL.items():
        if name in means:
            gap = abs(means[name] - means[LOOP])
            demand(gap < limit, f"{name} ends at another loss than the loop: {means}")
    return losses


# one image at a time, as published


def loop(
    model: nn.Sequential,
    images: Tensor,
    targets: Tensor,
    how: Schedule,
    layout: torch.memory_format,
) -> Tensor:
    """Crisp masks (n, h, w)."""
    how = how.for_side(min(images.shape[2:]))
    with frozen(model):
        masks = [
            one_mask(model, images[i : i + 1].contiguous(memory_format=layout), target, how)
            for i, target in enumerate(targets.tolist())
        ]
    return torch.stack(masks)


def one_mask(model: nn.Sequential, image: Tensor, target: int, how: Schedule) -> Tensor:
    """Both phases for one image (1, 3, h, w); lengths are in its pixels."""
    h, w = image.shape[2:]
    blurry = smoothed(image, how.image_sigma)
    cells = round(h / how.coarse), round(w / how.coarse)
    y, x = (torch.arange(side, device=DEVICE) - (side - 1) / 2 for side in cells)
    outside = torch.hypot(y[:, None], x) > how.disc * min(cells)
    mask = outside.float()[None, None]

    def enlarged(cells: Tensor) -> Tensor:
        return smoothed(functional.interpolate(cells, (h, w), mode="bilinear"), how.mask_sigma)

    for phase, fine in ((how.smooth, enlarged), (how.crisp, lambda pixels: pixels)):
        mask.requires_grad_()
        adam = torch.optim.Adam([mask], lr=how.lr)
        for _ in range(phase.iterations):
            loss = equation_2(model, image, blurry, target, mask, fine(mask), phase, how.beta)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        mask = fine(mask).detach().clamp(0, 1)
    return mask[0, 0]


def equation_2(
    model: nn.Sequential,
    image: Tensor,
    blurry: Tensor,
    target: int,
    mask: Tensor,
    fine: Tensor,
    phase: Phase,
    beta: float,
) -> Tensor:
    """The loss of one mask (1, 1, rows, columns); `fine` is the same in pixels of the image."""
    p = model(fine * image + (1 - fine) * blurry).softmax(1)[0, target]
    gap = 1 - mask
    slopes = (mask.diff(dim=2).abs() ** beta).sum() + (mask.diff(dim=3).abs() ** beta).sum()
    binary = (gap * mask).mean()
    return p + phase.l1 * gap.mean() + phase.l2 * slopes / mask.numel() + phase.l3 * binary


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur up to 4 sigma, down and then across: quicker than a square kernel."""
    radius = math.ceil(4 * sigma)
    offset = torch.arange(-radius, radius + 1, device=images.device)
    taps = torch.exp(-0.5 * (offset / sigma) ** 2)
    channels = images.shape[1]
    taps = (taps / taps.sum()).expand(channels, 1, -1)
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    down = functional.conv2d(padded, taps[..., None], groups=channels)
    return functional.conv2d(down, taps[..., None, :], groups=channels)


def final_losses(
    model: nn.Sequential,
    images: Tensor,
    targets: Tensor,
    masks: Tensor,
    how: Schedule,
    layout: torch.memory_format,
) -> list[float]:
    how = how.for_side(min(images.shape[2:]))
    found = []
    with frozen(model), torch.no_grad():
        for image, target, mask in zip(images[:, None], targets.tolist(), masks, strict=True):
            image, pixels = image.contiguous(memory_format=layout), mask[None, None]
            blurry = smoothed(image, how.image_sigma)
            loss = equation_2(model, image, blurry, target, pixels, pixels, how.crisp, how.beta)
            found.append(loss.item())
    return found


# ---------------------------------------- matching


def bench_matching(plan: Plan) -> dict:
    report = {}
    for size, count, enlarge in plan.matched:
        several = of_one_class(12, size).images  # two alone are too few to whiten by
        white, pair = proposal_flow.whitening(several), several[:2]
        boxes = [proposal_flow.proposals(image, count, enlarge=enlarge) for image in pair]
        described = map(proposal_flow.describe, pair, boxes, (white, white))
        (boxes_a, boxes_b), alike = boxes, proposal_flow.appearance(*described)
        print(f"\nmatching: two images of {size} px, {len(boxes_a)} and {len(boxes_b)} boxes")
        arguments = alike, boxes_a, boxes_b
        sizes = (size, size), (size, size)
        rules = {
            "LOM": (proposal_flow.lom, lom_loop, arguments),
            "PHM": (proposal_flow.phm, phm_loop, (*arguments, *sizes)),
        }
        contenders, differ = {}, {}
        for rule, (ours, literal, given) in rules.items():
            found, expected = ours(*given).double(), torch.from_numpy(literal(*given))
            differ[rule] = ((found - expected).abs().max() / expected.max()).item()
            demand(
                expected.max() > 0 and differ[rule] < 1e-5,
                f"confidences of {rule} and its loop differ by {differ[rule]:.1e} of the highest",
            )
            contenders[rule] = partial(per_second, partial(ours, *given), 10)
            contenders[f"{rule}, loop"] = partial(per_second, partial(literal, *given), 1)
        shown_gaps = ", ".join(f"{rule} {gap:.0e}" for rule, gap in differ.items())
        print(f"  same confidences, up to a share of the highest: {shown_gaps}")
        rates = take_turns(contenders, plan.rounds)
        show_rates(rates, "pairs")
        times = {rule: over(rates[rule], rates[f"{rule}, loop"]) for rule in rules}
        for rule, ratio in times.items():
            print(f"  {rule} is {shown(ratio, '.1f')} times as quick as its loop")
        report[f"{size} px"] = {
            "boxes": [len(boxes_a), len(boxes_b)],
            "differ": differ,
            "rates": rates,
            "times_as_quick": times,
        }
    return report


def per_second(run: Callable[[], object], times: int) -> float:
    return times / timed(lambda: [run() for _ in range(times)])


Frame = tuple[float, float, float, float]  # centre x, y and half sides


def frames(boxes: Tensor) -> list[Frame]:
    return [
        ((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2)
        for x0, y0, x1, y1 in boxes.tolist()
    ]


def gated_loop(alike: Tensor, a: list[Frame], b: list[Frame]) -> list[list[float]]:
    """Likeness, 0 where aspect ratios are a factor of 2 or more apart."""
    gated = alike.tolist()
    for row, (_, _, p, q) in zip(gated, a, strict=True):
        for k, (_, _, pp, qq) in enumerate(b):
            if not 0.5 < (pp / qq) / (p / q) < 2:
                row[k] = 0.0
    return gated


def lom_loop(alike: Tensor, boxes_a: Tensor, boxes_b: Tensor) -> np.ndarray:
    """Local offset matching, box by box."""
    a, b, corners = frames(boxes_a), frames(boxes_b), boxes_a.tolist()
    gated = gated_loop(alike, a, b)
    best = [max(row) for row in gated]
    total = sum(best)
    moves = []
    for (x, y, p, q), row, highest in zip(a, gated, best, strict=True):
        xx, yy, pp, qq = b[row.index(highest)]
        moves.append((x - xx, y - yy, p * q / (pp * qq)))
    found = np.zeros((len(a), len(b)))
    for i, (x, y, p, q) in enumerate(a):
        if not best[i]:
            continue
        x0, y0, x1, y1 = corners[i]
        around = [
            j
            for j, (r0, s0, r1, s1) in enumerate(corners)
            if x0 <= r1 and r0 <= x1 and y0 <= s1 and s0 <= y1 and best[j]
        ]
        dx, dy, ds = (statistics.median(moves[j][c] for j in around) for c in range(3))
        support = sum(best[j] for j in around) / total
        for k, (xx, yy, pp, qq) in enumerate(b):
            if gated[i][k]:
                away = math.hypot(x - xx - dx, y - yy - dy)
                change = abs(p * q / (pp * qq) - ds)
                found[i, k] = gated[i][k] * math.exp(-0.05 * away - 0.3 * change) * support
    return found


def phm_loop(
    alike: Tensor,
    boxes_a: Tensor,
    boxes_b: Tensor,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
) -> np.ndarray:
    """Probabilistic Hough matching, match by match; only the counts are smoothed all at once."""
    a, b, (ha, wa), (hb, wb) = frames(boxes_a), frames(boxes_b), size_a, size_b
    gated = gated_loop(alike, a, b)
    step = max(math.sqrt(4 * wb * hb / 8000), 5)
    ends = (1, 2 * wb, round(2 * wb / step)), (1, 2 * hb, round(2 * hb / step)), (-4, 4, 20)
    edges = [np.linspace(first, last, bins + 1).tolist() for first, last, bins in ends]
    hough, bins = np.zeros([bins for *_, bins in ends]), {}
    for i, (x, y, p, q) in enumerate(a):
        strongest: dict[tuple[int, ...], float] = {}
        for k, (xx, yy, pp, qq) in enumerate(b):
            if not gated[i][k]:
                continue
            vote = (
                pp * ((wa - x) / p) + xx,
                qq * ((ha - y) / q) + yy,
                math.log2(pp * qq / (p * q)),
            )
            place = tuple(bisect_right(e, v) - 1 for e, v in zip(edges, vote, strict=True))
            if all(0 <= at < size for at, size in zip(place, hough.shape, strict=True)):
                bins[i, k] = place
                strongest[place] = max(strongest.get(place, 0.0), gated[i][k])
        for place, value in strongest.items():
            hough[place] += value
    tap = np.exp(-0.5 * (np.arange(-2, 3) / (2.5 / 2.354)) ** 2)
    kernel = tap[:, None, None] * tap[:, None] * tap
    hough = correlate(hough, kernel / kernel.sum(), mode="constant")
    found = np.zeros((len(a), len(b)))
    for (i, k), place in bins.items():
        found[i, k] = gated[i][k] * hough[place]
    return found


# ---------------------------------------- a class's pipeline

STAGES: dict[str, tuple[ModuleType, str]] = {
    "masks": (crisp_masks, "crisp_masks"),
    "proposals": (proposal_flow, "proposals"),
    "descriptors (HOG)": (proposal_flow, "describe"),
    "whitening": (proposal_flow, "whitening"),
    "matching (LOM)": (proposal_flow, "match"),
    "sparse similarity": (vs, "similarity"),
    "regions": (vs, "regions"),
    "parts": (vs, "parts"),
    "affinity propagation": (vs, "cluster"),
    "SSIM": (vs, "_compared"),
    "the rest of a summary": (vs, "summarise"),
}


def bench_pipeline(model: nn.Sequential, scenes: ImageSet, plan: Plan) -> dict:
    """One class and network, from images to summaries, with the demo's numbers."""
    images = scenes.to_float(DEVICE)
    targets, how = answers(model, images), schedule(plan.checked_steps)
    precision = training.settled(Recipe(1, precision="quick")).precision

    def pipeline() -> vs.Summaries:
        given = {"batch_size": STUDY.batch, "precision": precision}
        masks = crisp_masks.crisp_masks(model, images, targets, how, **given).crisp
        white = proposal_flow.whitening(scenes.images)
        boxes, described = summary_study.propose(scenes.images, white, STUDY.boxes, STUDY.enlarge)
        alike = vs.similarity(boxes, described, summary_study.matching(scenes.images))
        return vs.summarise(scenes.to_float(), masks, alike)

    print(f"\none class, one network: {len(scenes)} images, {how.smooth.iterations} + ", end="")
    print(f"{how.crisp.iterations} steps in {precision}, at most {STUDY.boxes} boxes an image")
    outcomes, totals, taken = [], [], {stage: [] for stage in STAGES}
    for _ in range(plan.pipeline_rounds):
        with clocked() as own:
            started = time.perf_counter()
            found = pipeline()
            totals.append(time.perf_counter() - started)
        outcomes.append((found.outcome, vars(found.tally)))
        for stage, seconds in own.items():
            taken[stage].append(seconds)
    demand(all(o == outcomes[0] for o in outcomes), f"the summaries differ: {outcomes}")
    taken["all else"] = [
        total - sum(taken[stage][i] for stage in STAGES) for i, total in enumerate(totals)
    ]
    print(f"  {found.message}; {found.tally.boxes} boxes, {found.tally.parts} parts")
    shares = {stage: over(seconds, totals) for stage, seconds in taken.items()}
    for stage, share in shares.items():
        seconds = statistics.median(taken[stage])
        print(f"  {stage:36s}{seconds:9.3f} s   {shown(share, '.1%')}")
    print(f"  {'together':36s}{statistics.median(totals):9.3f} s")
    outcome, tally = outcomes[0]
    return {
        "precision": precision,
        "outcome": outcome,
        "tally": tally,
        "seconds": taken,
        "total": totals,
        "shares": shares,
    }


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds in each stage's function, without those in stages that it calls."""
    own = dict.fromkeys(STAGES, 0.0)
    within: list[float] = []  # of the calls that are running: time in stages that they called

    def watch(stage: str, function: Callable) -> Callable:
        def run(*args: object, **options: object) -> object:
            made = []
            within.append(0.0)
            seconds = timed(lambda: made.append(function(*args, **options)))
            own[stage] += seconds - within.pop()
            if within:
                within[-1] += seconds
            return made[0]

        return run

    with ExitStack() as stack:
        for stage, (module, name) in STAGES.items():
            stack.enter_context(patch.object(module, name, watch(stage, getattr(module, name))))
        yield own


# ---------------------------------------- batches, on a GPU


def bench_batches(plan: Plan) -> dict:
    """Twice as many masks at once until that is no quicker, and the network's share of the time.

    Networks are new and images are noise: what a pass costs does not depend on either.
    """
    report = {}
    for (architecture, size), precision in (
        (case, precision) for case in plan.swept for precision in precisions().values()
    ):
        print(f"\nbatches to saturation: {architecture} at {size} px in {precision}")
        model = models.build(architecture, CLASSES, seed=0).to(DEVICE)
        model = model.to(memory_format=torch.channels_last)
        found, batch, best, saturated = [], 1, 0.0, False
        while batch <= plan.largest:
            try:
                measured = one_batch(model, batch, size, precision, plan)
            except torch.OutOfMemoryError:
                print(f"  {batch:5d} images do not fit into memory")
                break
            found.append(measured)
            rate, share = statistics.median(measured["rates"]), measured["bare_share"]
            print(f"  {batch:5d} images: {rate:9.3f} masks/s, network {shown(share, '.0%')}")
            saturated = rate < 1.05 * best
            if saturated:
                break
            batch, best = 2 * batch, max(best, rate)
        if not found:
            raise SystemExit(f"no batch of {architecture} at {size} px fits into memory")
        medians = [statistics.median(m["rates"]) for m in found]
        enough = next(
            m for m, rate in zip(found, medians, strict=True) if rate >= max(medians) / 1.05
        )
        share = enough["bare_share"]["median"]
        verdict = "reached" if share >= GOAL else "missed"
        end = "saturated" if saturated else "not saturated"
        print(f"  {end}: from {enough['batch']} images on, rates are within 5 % of the highest")
        print(f"  there the network takes {share:.0%} of the time: ", end="")
        print(f"the goal of {GOAL:.0%} is {verdict}")
        report[f"{architecture}, {size} px, {precision}"] = {
            "batches": found,
            "saturated": saturated,
            "enough": enough["batch"],
            "bare_share": share,
            "goal": GOAL,
        }
    return report


def one_batch(model: nn.Sequential, batch: int, size: int, precision: str, plan: Plan) -> dict:
    images = torch.rand(batch, 3, size, size, device=DEVICE)
    targets = torch.arange(batch, device=DEVICE) % CLASSES

    def ours(steps: int = plan.steps) -> float:
        run = partial(crisp_masks.crisp_masks, model, images, targets, schedule(steps))
        seconds = timed(lambda: run(batch_size=batch, precision=precision))
        return batch * steps / MASK / seconds

    def own(passes: int = plan.steps) -> float:
        return bare_rate(model, images, targets, passes, precision)

    for run in (ours, own):
        run(3)  # the first calls choose algorithms
    rates = take_turns({"ours": ours, "bare": own}, min(plan.rounds, 3))
    share = over(rates["ours"], rates["bare"])
    return {"batch": batch, "rates": rates["ours"], "bare": rates["bare"], "bare_share": share}


if __name__ == "__main__":
    main()
