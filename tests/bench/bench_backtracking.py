"""Backtracking beside bare forward passes, literal loops and others' attributions: `make bench`.

Networks: how long a bare forward pass takes, `record` (the same pass, with a memory) and
`Recording.backtrack` from the predicted class. The goal is at most two bare passes an image.
Weights are random. In VGG's fully connected layers that is the worst case: half of all units are
active, and every one of them is followed to half of what is active below. "Sparse" is the same VGG
with biases lowered until its maps get emptier with depth, as those of trained networks do: 10 % of
the last ones are active.

Loops: the paper's pseudo-code, node by node. It takes one image after the other, so its rate on one
image is its rate on a batch.

Others: Saliency, Guided Backprop, Grad-CAM and LRP of captum, Grad-CAM of grad-cam, LRP and
excitation backprop of zennit; the last two libraries are installed into environments of their own
under `data/cache` and skipped where that fails. They are told the class and need no gradients for
weights; ours finds the class. All start from images and take the same batch.

Before any time is taken it is checked that the work is the same: the loop passes the same nodes as
often, in float64, and nearly the same in float32, where rounding decides between equals; the other
libraries' networks say the same of the images, their maps are finite and of the images' size, and
both Grad-CAMs agree.

Contenders take turns, in an order that rotates from round to round. A ratio compares two in the
same round. Printed is the median; between the lowest and the highest of n rounds lies the true
median with probability 1 - 2^(1 - n). Several threads want a quiet machine: where they share cores
with other programs they wait for each other after every operation, and many short ones suffer most.
With --processor-time, everything runs in one thread and its processor time counts.
"""

import argparse
import copy
import json
import os
import site
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
import venv
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import split
from typing import Any

import torch
from bench_background_removal import (
    CORES,
    DEVICE,
    PEERS,
    Unavailable,
    checked_run,
    demand,
    synchronise,
)
from bench_visual_summaries import over, shown, take_turns
from captum.attr import LRP, GuidedBackprop, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.nn import functional

from helpers import models, saliency
from helpers.backtracking import IMAGE, Nodes, Paths, Recording, record
from helpers.budget import ROOT, results_folder
from helpers.durable import write_durably
from helpers.scenes.world import World

CLASSES, SEED = 1_000, 0
GOAL = 2.0  # bare passes that backtracking may take
SHARES = 0.5, 0.1  # of the first and the last convolution's outputs: what is active in a sparse VGG
ALIKE = 0.99  # of the nodes that a loop in float32 passes are ours
PASSES = {torch.contiguous_format: "bare pass", torch.channels_last: "bare pass, channels last"}
LOOP, ONE, BATCH = "literal loop", "ours, one image", "ours, a batch"
RECORD, BACKTRACK, SPARSE, OURS = "record", "backtrack", "backtrack, sparse", "record + backtrack"
IMPORTS = {"grad-cam": "pytorch_grad_cam", "zennit": "zennit.composites"}


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    parts: Sequence[str] = ("networks", "loops", "others", "sweep")
    batch: int = 8
    rounds: int = 3
    threads: int = CORES
    processor_time: bool = False
    size: int = 224  # pixels
    networks: Sequence[str] = ("vgg16", "vgg19", "resnet50", "googlenet", "mobilenet_v2")
    looped: int = 1  # images the loop is timed with; it takes one after the other in any case
    compared: tuple[str, ...] = ("vgg16", "resnet50")
    others_batch: int = 4  # on a processor, where other attributions take minutes
    others_rounds: int = 2
    largest: int = 1_024  # batch, on a GPU


SMOKE = Plan(
    batch=2,
    rounds=1,
    threads=1,
    size=64,
    networks=("vgg16", "mobilenet_v2"),
    others_rounds=1,
    largest=2,
)


def main() -> None:
    parts = {
        "networks": bench_networks,
        "loops": bench_loops,
        "others": bench_others,
        "sweep": bench_sweep,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, help="images")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--others-batch", type=int, help="images; on a GPU as many as elsewhere")
    parser.add_argument("--others-rounds", type=int)
    parser.add_argument("--parts", nargs="+", choices=parts)
    parser.add_argument("--networks", nargs="+", help="of the first part; torchvision's names")
    parser.add_argument("--threads", type=int, help="by default one on each core")
    parser.add_argument("--processor-time", action="store_true", help="in one thread")
    parser.add_argument(
        "--smoke", action="store_true", help="a little of everything; its numbers mean nothing"
    )
    asked = parser.parse_args()
    on_gpu = DEVICE.type == "cuda"
    if on_gpu and asked.processor_time:
        parser.error("a GPU's work is not in the processor's time")
    plan = replace(
        SMOKE if asked.smoke else Plan(),
        **{name: value for name, value in vars(asked).items() if value and name != "smoke"},
    )
    if plan.processor_time:
        plan = replace(plan, threads=1)
    torch.set_num_threads(plan.threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = torch.cuda.get_device_name() if on_gpu else DEVICE.type
    print(
        f"{plan.batch} images of {plan.size} px, random weights; {where}, {plan.threads} thread(s),"
    )
    print(f"{'processor' if plan.processor_time else 'wall'} time; load before: {load}")
    if not on_gpu and plan.threads > 1 and load and load > CORES / 4:
        print("other programs run here: threads that share cores wait for each other at the end of")
        print("every operation, which stretches many small ones most; see --processor-time")
    report = {
        "plan": vars(plan),
        "smoke": asked.smoke,
        "device": where,
        "load_before": load,
        "tf32": on_gpu and torch.backends.cudnn.allow_tf32,  # float32 is less than that
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    images = World(seed=2_001, size=plan.size).images(range(plan.batch)).to_float(DEVICE)
    for part in plan.parts:
        if part == "sweep" and not (on_gpu or asked.smoke):
            print("\nrates by batch: skipped, there is no CUDA GPU")
            continue
        started = time.perf_counter()
        report[part] = parts[part](images, plan)
        print(f"  ({time.perf_counter() - started:.0f} s)")
    name = "backtracking_smoke.json" if asked.smoke else "backtracking.json"
    target = results_folder("bench") / name
    write_durably(target, json.dumps(report, indent=2).encode())
    print(f"\nwritten to {target}")


# ---------------------------------------- measuring


def measured(
    runs: dict[str, tuple[Callable[[], object], int]], plan: Plan
) -> dict[str, list[float]]:
    """Images per second of each, one rate per round; a run comes with its number of images."""

    def rate(run: Callable[[], object], images: int) -> float:
        return images / seconds(run, plan)

    return in_turns({name: partial(rate, *run) for name, run in runs.items()}, plan)


def in_turns(contenders: dict[str, Callable[[], float]], plan: Plan) -> dict[str, list[float]]:
    if DEVICE.type == "cuda":
        take_turns(contenders, 1)  # the first calls choose algorithms
    return take_turns(contenders, plan.rounds)


def seconds(run: Callable[[], object], plan: Plan) -> float:
    clock = time.process_time if plan.processor_time else time.perf_counter
    synchronise()
    started = clock()
    run()
    synchronise()
    return clock() - started


def network(name: str) -> nn.Sequential:
    return models.build(name, CLASSES, seed=SEED).to(DEVICE).eval().requires_grad_(False)


def bare(model: nn.Sequential, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(images)


def laid_out(
    model: nn.Sequential, images: Tensor, layout: torch.memory_format
) -> tuple[nn.Sequential, Tensor]:
    """Copies in this order of memory."""
    return copy.deepcopy(model).to(memory_format=layout), images.clone(memory_format=layout)


def quickest(rates: dict[str, list[float]]) -> str:
    return max(rates, key=lambda name: statistics.median(rates[name]))


# ---------------------------------------- networks


def bench_networks(images: Tensor, plan: Plan) -> dict:
    report = {}
    for name in plan.networks:
        print(f"\n{name}")
        model, sparse = network(name), None
        seen = {BACKTRACK: record(model, images)}
        if name.startswith("vgg"):
            sparse, active = emptied(model, images)
            seen[SPARSE] = record(sparse, images)
            print(
                f"  sparse: {SHARES[1]:.0%} of the last maps are active, {active:.0%} once pooled"
            )
        starts = {how: recording.logits.argmax(1) for how, recording in seen.items()}
        nodes = {}
        for how, recording in seen.items():
            paths = recording.backtrack(starts[how])
            nodes[how] = load(recording, paths)
            reached = int(paths.pixels.flatten(1).any(1).sum())
            demand(reached > 0, f"{how}: no path comes down to the image")
            print(f"  {how}: paths come down to {reached} of {len(images)} images; nodes an image,")
            print("  in all outputs of convolutions and linear layers from the top, in the image:")
            print(textwrap.fill(" ".join(f"{n:.0f}" for n in nodes[how].values()), 96, **INDENT))
        runs = {
            how: (partial(bare, *laid_out(model, images, layout)), len(images))
            for layout, how in PASSES.items()
        }
        bare(model, images)
        runs[RECORD] = partial(record, model, images), len(images)
        for how, recording in seen.items():
            runs[how] = partial(recording.backtrack, starts[how]), len(images)
        rates = measured(runs, plan)
        fastest = quickest({how: rates[how] for how in PASSES.values()})
        in_passes = {how: over(rates[fastest], rates[how]) for how in (RECORD, *seen)}
        for how, found in rates.items():
            line = f"  {how:28s}{statistics.median(found):9.2f} images/s"
            if how in in_passes:
                line += f"   {shown(in_passes[how], '.2f')} bare passes"
            if how in seen:
                verdict = "reached" if in_passes[how]["median"] <= GOAL else "missed"
                line += f"; at most {GOAL:.0f} is {verdict}"
            print(line)
        report[name] = {"nodes": nodes, "rates": rates, "bare": fastest, "in_passes": in_passes}
    return report


INDENT = {"initial_indent": "    ", "subsequent_indent": "    "}


def load(seen: Recording, paths: Paths) -> dict[str, float]:
    """Nodes an image in the outputs of convolutions and linear layers, and in the image."""
    weighted = {step.name for step in seen.steps if step.operation in ("Conv2d", "Linear")}
    return {
        name: len(nodes) / paths.n
        for name, nodes in paths.layers.items()
        if name in weighted or name == IMAGE
    }


@torch.no_grad()
def emptied(model: nn.Sequential, images: Tensor) -> tuple[nn.Sequential, float]:
    """A VGG whose convolutions' biases are lowered until only these shares of their outputs are
    positive, from the first layer to the last; and the share in the maps that the classifier sees.
    """
    model = copy.deepcopy(model)
    convolutions = [layer for layer in model.network.features if isinstance(layer, nn.Conv2d)]
    shares = iter(torch.linspace(*SHARES, len(convolutions)).tolist())
    x = model.normalise(images)
    for layer in model.network.features:
        if isinstance(layer, nn.Conv2d):
            some = layer(x).flatten()[::101]  # quantile takes no more than 16 million values
            layer.bias -= some.quantile(1 - next(shares))
        x = layer(x)
    return model, float((x > 0).float().mean())


# ---------------------------------------- loops, node by node

Memory = dict[tuple[int, int], float]  # (flat index, sign): how many paths pass
Step = Any  # of a recording: name, module, inputs, shape of the output
CHOOSING = (nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)


def bench_loops(images: Tensor, plan: Plan) -> dict:
    """Both start with the same activations in memory."""
    dense, report = network("vgg16"), {}
    for kind, model in {"dense": dense, "sparse": emptied(dense, images)[0]}.items():
        print(f"\nvgg16, {kind}: backtracking beside the pseudo-code's loops over nodes")
        compare_nodes(copy.deepcopy(model).double(), images[:1].double(), at_least=1.0)
        alike = compare_nodes(model, images[:1], at_least=ALIKE)
        print(f"  same nodes: all in float64, {alike:.2%} in float32, which is timed")
        seen, one = record(model, images), record(model, images[:1])
        classes = seen.logits.argmax(1)
        few = [remembered(seen, row) for row in range(min(plan.looped, len(images)))]
        rates = measured(
            {
                LOOP: (partial(one_by_one, few, classes), len(few)),
                ONE: (partial(one.backtrack, classes[:1]), 1),
                BATCH: (partial(seen.backtrack, classes), len(images)),
            },
            plan,
        )
        times = {name: over(rates[name], rates[LOOP]) for name in (ONE, BATCH)}
        for name, found in rates.items():
            line = f"  {name:28s}{statistics.median(found):9.3f} images/s"
            print(line + (f"   {shown(times[name], '.1f')} x the loop" if name in times else ""))
        report[kind] = {"rates": rates, "times_as_quick": times, "alike": alike}
    return report


def one_by_one(images: list[list[tuple[Step, Tensor | None]]], classes: Tensor) -> None:
    for layers, start in zip(images, classes.tolist(), strict=False):
        loop(layers, start)


def compare_nodes(model: nn.Sequential, image: Tensor, at_least: float) -> float:
    """The share of the loop's nodes, over all layers, that ours passes as often."""
    seen = record(model, image)
    start = seen.logits.argmax(1)
    paths = seen.backtrack(start)
    same = everything = 0
    for name, memory in loop(remembered(seen, 0), int(start)).items():
        ours = paths.layers.get(name)
        ours = held(ours) if ours is not None else {}
        same += sum(ours.get(node) == times for node, times in memory.items())
        everything += max(len(memory), len(ours))
    alike = same / everything
    demand(alike >= at_least, f"only {alike:.2%} of the nodes are passed as often by the loop")
    return alike


def held(nodes: Nodes) -> Memory:
    keys = zip(nodes.index.tolist(), nodes.sign.int().tolist(), strict=True)
    return dict(zip(keys, nodes.count.tolist(), strict=True))


def remembered(seen: Recording, row: int) -> list[tuple[Step, Tensor | None]]:
    """A VGG's layers from the top, with what came into those that choose, contiguous as a loop
    likes it."""
    return [
        (step, step.inputs[0][row].contiguous() if isinstance(step.module, CHOOSING) else None)
        for step in reversed(seen.steps)
    ]


def loop(layers: list[tuple[Step, Tensor | None]], start: int) -> dict[str, Memory]:
    """The pseudo-code for one image, with the default rules: each layer's memory vector."""
    memory: Memory = {(start, 1): 1.0}
    found = {}
    for step, a in layers:
        found[step.name] = memory
        if isinstance(step.module, nn.Linear):
            memory = algorithm_1(memory, step.module, a)
        elif isinstance(step.module, nn.Conv2d):
            memory = algorithm_2(memory, step.module, a, step.shape)
        elif isinstance(step.module, CHOOSING):
            memory = pooling(memory, step.module, a, step.shape)
    return found


def algorithm_1(memory: Memory, layer: nn.Linear, a: Tensor) -> Memory:
    paths = a.new_zeros(len(a), dtype=torch.float64)
    for (k, sign), times in memory.items():
        paths += times * (sign * layer.weight[k] * a > 0)
    below = paths.nonzero()[:, 0]
    signs = torch.where(a[below] < 0, -1, 1).tolist()
    return dict(zip(zip(below.tolist(), signs, strict=True), paths[below].tolist(), strict=True))


def algorithm_2(
    memory: Memory, layer: nn.Conv2d, a: Tensor, output: tuple[int, int, int]
) -> Memory:
    below: Memory = defaultdict(float)
    (high, wide), (down, right), (top, left) = layer.kernel_size, layer.stride, layer.padding
    padded = functional.pad(a, (left, left, top, top))
    _, rows, columns = a.shape
    for (k, sign), times in memory.items():
        out, y, x = place(k, output)
        y, x = y * down, x * right
        window = padded[:, y : y + high, x : x + wide]
        products = sign * layer.weight[out] * window
        sums = products.sum((1, 2))
        c = int(sums.argmax())
        if sums[c] > 0:
            i, j = divmod(int(products[c].argmax()), wide)  # above zero, so no padding
            index = (c * rows + y + i - top) * columns + x + j - left
            below[index, -1 if window[c, i, j] < 0 else 1] += times
    return below


def pooling(
    memory: Memory,
    layer: nn.MaxPool2d | nn.AdaptiveAvgPool2d,
    a: Tensor,
    output: tuple[int, int, int],
) -> Memory:
    """Algorithm 3; for averages, the largest contribution if that is positive."""
    below: Memory = defaultdict(float)
    _, rows, columns = a.shape
    averages = isinstance(layer, nn.AdaptiveAvgPool2d)
    for (k, sign), times in memory.items():
        c, y, x = place(k, output)
        if averages:
            top, bottom = y * rows // output[1], -(-(y + 1) * rows // output[1])
            left, end = x * columns // output[2], -(-(x + 1) * columns // output[2])
        else:
            top, left = y * layer.stride, x * layer.stride
            bottom, end = top + layer.kernel_size, left + layer.kernel_size
        window = a[c, top:bottom, left:end] * (sign if averages else 1)
        i, j = divmod(int(window.argmax()), window.shape[1])
        if not averages or window[i, j] > 0:
            below[(c * rows + top + i) * columns + left + j, sign] += times
    return below


def place(index: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channel, row and column."""
    c, rest = divmod(index, shape[1] * shape[2])
    return c, *divmod(rest, shape[2])


# ---------------------------------------- other attributions


def bench_others(images: Tensor, plan: Plan) -> dict:
    images = images if DEVICE.type == "cuda" else images[: plan.others_batch]
    report, plan = {}, replace(plan, rounds=plan.others_rounds)
    for name in plan.compared:
        print(f"\n{name}: explaining {len(images)} images at once")
        plain = network(name)
        targets = bare(plain, images).argmax(1)
        copies = {how: laid_out(plain, images, layout) for layout, how in PASSES.items()}
        trial = {how: [1 / seconds(partial(bare, *given), plan)] for how, given in copies.items()}
        how = quickest(trial)  # everybody gets the network and the images like this
        model, batch = copies[how]
        del plain, copies
        with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Setting backward hooks|Input Tensor 0 did not|Setting forward"
            )
            report[name] = explained(name, model, batch, targets, how, plan, Path(work))
    return report


def explained(
    name: str,
    model: nn.Sequential,
    images: Tensor,
    targets: Tensor,
    layout: str,
    plan: Plan,
    work: Path,
) -> dict:
    layer = saliency.last_maps(model, images)
    methods = {
        "captum: Saliency": lambda x, k: Saliency(model).attribute(x, target=k),
        "captum: Guided Backprop": lambda x, k: GuidedBackprop(model).attribute(x, target=k),
        "captum: Grad-CAM": lambda x, k: LayerGradCam(model, layer).attribute(
            x, target=k, relu_attributions=True
        ),
    }
    if name.startswith("vgg"):
        methods["captum: LRP"] = lambda x, k: LRP(model.network).attribute(
            model.normalise(x), target=k
        )
    else:  # captum alone has no rule for sums that are not modules
        methods["captum: LRP, as in helpers.saliency"] = lambda x, k: saliency.lrp(
            model, x, k, len(x)
        )
    batch = work / "batch.pt"
    torch.save({"images": images.cpu().contiguous(), "targets": targets.cpu()}, batch)
    job = {
        "architecture": name,
        "classes": CLASSES,
        "seed": SEED,
        "batch": str(batch),
        "layer": next(path for path, module in model.named_modules() if module is layer),
        "channels_last": layout == PASSES[torch.channels_last],
        "threads": plan.threads,
        "processor_time": plan.processor_time,
    }
    peers, skipped = {}, {}
    try:
        for peer in IMPORTS:
            try:
                peers[peer] = Peer(peer, job)
            except Unavailable as reason:
                skipped[peer] = str(reason)
        checked, failed = same_work(methods, peers, model, images[:1], targets[:1], work)
        skipped |= failed
        for what, reason in skipped.items():
            print(f"  {what} is skipped: {reason}")

        def ours() -> Tensor:
            seen = record(model, images)
            return seen.backtrack(seen.logits.argmax(1)).pixels

        own = {OURS: ours, layout: partial(bare, model, images)}
        own |= {m: partial(run, images, targets) for m, run in methods.items()}
        n = len(images)
        contenders = {m: lambda run=run: n / seconds(run, plan) for m, run in own.items()}
        for peer, process in peers.items():
            for m in process.methods:
                contenders[f"{peer}: {m}"] = lambda process=process, m=m: n / process.explain(m, n)
        rates = in_turns({m: contenders[m] for m in contenders if m not in skipped}, plan)
    finally:
        for process in peers.values():
            process.close()
    times = {m: over(rates[OURS], rates[m]) for m in rates if m != OURS}
    for m, found in rates.items():
        line = f"  {m:36s}{statistics.median(found):9.3f} images/s"
        print(line + (f"   ours is {shown(times[m], '.2f')} x" if m in times else ""))
    return {"rates": rates, "ours_is_times": times, "skipped": skipped, "checked": checked}


def same_work(
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]],
    peers: dict[str, "Peer"],
    model: nn.Sequential,
    image: Tensor,
    target: Tensor,
    work: Path,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Checks every method with one image; also why some cannot be measured."""
    logits = bare(model, image)
    maps, checked, failed = {}, {}, {}
    for name, explain in methods.items():
        found = explain(image, target).detach()
        found = found.sum(1) if found.ndim == 4 else found
        maps[name] = functional.interpolate(found[:, None], image.shape[2:], mode="bilinear")[:, 0]
        checked[name] = {}
    for peer, process in peers.items():
        for method in process.methods:
            name, kept = f"{peer}: {method}", work / "explained.pt"
            try:
                process.explain(method, len(image), str(kept))
            except Unavailable as reason:
                failed[name] = str(reason)
                continue
            said = torch.load(kept, weights_only=True, map_location=DEVICE)
            gap = float((said["logits"] - logits).abs().max() / logits.abs().max())
            demand(gap < 1e-3, f"of the same image, {name} says another thing, by {gap:.1e}")
            maps[name], checked[name] = said["maps"], {"logits_differ": gap}
    for name, found in maps.items():
        right = found.shape == image[:, 0].shape and bool(found.isfinite().all())
        right &= bool(found.any()) or "Grad-CAM" in name  # where no position speaks for the class
        demand(right, f"{name}'s maps are {tuple(found.shape)}, not finite or empty")
    a, b = maps["captum: Grad-CAM"], maps.get("grad-cam: Grad-CAM")
    if b is not None and a.std() > 0:  # grad-cam also subtracts the minimum
        alike = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten().to(a)]))[0, 1])
        demand(alike > ALIKE, f"the two Grad-CAMs differ: their correlation is {alike:.3f}")
        checked["grad-cam: Grad-CAM"]["correlation_with_captum"] = alike
    return checked, failed


class Peer:
    """A library in a process and an environment of its own; it waits while others are measured."""

    def __init__(self, name: str, job: dict) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [
                environment(name),
                *("-W", "ignore"),
                PEERS / "attribute_with_peer.py",
                json.dumps(job | {"peer": name}),
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.methods: list[str] = self._answer()

    def _answer(self) -> list | dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}'s process has ended; its reason stands above")
        return json.loads(line)

    def explain(self, method: str, images: int, save: str | None = None) -> float:
        """The seconds it took. Raises: Unavailable: the peer cannot."""
        asked = {"method": method, "images": images, "save": save}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def environment(peer: str) -> str:
    """The Python of an environment with this library, made once; it borrows our torch.

    Raises:
        Unavailable: installing or importing failed.
    """
    folder, wanted = ROOT / "data" / "cache" / "bench" / peer, PEERS / f"requirements-{peer}.txt"
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    borrowed = "\n".join(site.getsitepackages())
    stamp, made_for = folder / "made_for.txt", f"{sys.version}\n{borrowed}\n{wanted.read_text()}"
    if stamp.exists() and stamp.read_text() == made_for:
        return python
    print(f"  making an environment for {peer}, this once")
    options = split(os.environ.get("PIP_ARGS", ""))  # as make hands them to pip
    try:
        venv.create(folder, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--no-deps", *options, "-r", str(wanted)]
        checked_run(python, *install)
        packages = sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder})
        (Path(packages) / "course.pth").write_text(borrowed)
        checked_run(python, "-W", "ignore", "-c", f"import {IMPORTS[peer]}")
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Unavailable(f"it could not be installed ({said.strip().splitlines()[-1]})") from error
    stamp.write_text(made_for)
    return python


# ---------------------------------------- batches, on a GPU


def bench_sweep(images: Tensor, plan: Plan) -> dict:
    """Twice as many images at once until that is no quicker, beside the bare pass."""
    report = {}
    for name in ("vgg19", "resnet50"):
        print(f"\n{name}: images per second by batch")
        model, batch, best, found = network(name), 1, 0.0, {}
        while batch <= plan.largest:
            try:
                rates = found[batch] = one_batch(model, batch, plan)
            except torch.OutOfMemoryError:
                print(f"  {batch:5d} do not fit into memory")
                break
            ours = statistics.median(rates[OURS])
            fastest = quickest({how: rates[how] for how in PASSES.values()})
            in_passes = over(rates[fastest], rates[BACKTRACK])
            print(f"  {batch:5d}: {ours:9.2f} recorded and backtracked, ", end="")
            print(f"{statistics.median(rates[fastest]):9.2f} bare; ", end="")
            print(f"backtracking takes {shown(in_passes, '.2f')} bare passes")
            if ours < 1.05 * best:
                break
            batch, best = 2 * batch, max(best, ours)
        report[name] = found
    return report


def one_batch(model: nn.Sequential, batch: int, plan: Plan) -> dict[str, list[float]]:
    images = World(seed=2_001, size=plan.size).images(range(batch)).to_float(DEVICE)
    seen = record(model, images)
    classes = seen.logits.argmax(1)

    def ours() -> None:
        fresh = record(model, images)
        fresh.backtrack(fresh.logits.argmax(1))

    runs = {OURS: (ours, batch), BACKTRACK: (partial(seen.backtrack, classes), batch)}
    for layout, how in PASSES.items():
        runs[how] = partial(bare, *laid_out(model, images, layout)), batch
    return measured(runs, plan)


if __name__ == "__main__":
    main()
