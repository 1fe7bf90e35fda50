"""Training and feature visualisation beside their peers and beside the bare network: `make bench`.

Training: `helpers.training.fit` beside ImageFolder, DataLoader and a plain loop. Visualisation:
`ascend` beside lucent, which is installed into an environment of its own under `data/cache` and
skipped where that fails. Both do the same work, and that is checked before any time is taken: the
same weights and pictures, the same passes through the network in size, number and precision, a loss
that falls or scores that rise.

The contenders take turns, in an order that rotates from round to round, so that a busy machine
slows all of them alike. A ratio compares ours with another contender in the same round. Printed is
the median; between the lowest and the highest of n rounds lies the true median with probability
1 - 2^(1 - n). The bare network, forward and backward on a batch in memory, is the limit.
"""

import argparse
import copy
import json
import os
import shlex
import site
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import joblib
import torch
from choose_tie import by_superclass
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from helpers import backgrounds, models, training
from helpers.budget import ROOT, Recipe, results_folder
from helpers.durable import write_durably
from helpers.feature_visualization import Ascent, ascend
from helpers.imageset import ImageSet
from helpers.models import frozen
from helpers.scenes.world import World

ARCHITECTURE, CLASSES, SIZE = "slim_resnet10", 9, 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CORES = joblib.cpu_count()
PEERS = Path(__file__).parent / "peers"
OURS = "ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_920, help="a multiple of 32")
    parser.add_argument("--epochs", type=int, default=2, help="at least 2, to see the loss fall")
    parser.add_argument("--steps", type=int, default=60, help="of a visualisation")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(CORES)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    print(f"{ARCHITECTURE} at {SIZE} px on {DEVICE.type}, {CORES} threads; load before: {load}")
    report = {
        "asked": vars(asked),
        "network": ARCHITECTURE,
        "size": SIZE,
        "device": DEVICE.type,
        "threads": CORES,
        "load_before": load,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    scenes = backgrounds.black(World(seed=2_001, size=SIZE).images(range(asked.images)))
    scenes = by_superclass(scenes)
    recipe = Recipe(
        asked.epochs,
        batch_size=32,
        augmentations=("flip", "shift", "brightness"),
        precision="float32",
    )
    with tempfile.TemporaryDirectory() as work:
        report["training"] = bench_training(scenes, recipe, asked.rounds, Path(work))
        report["visualisation"] = bench_visualisation(
            scenes, recipe, asked.steps, asked.rounds, Path(work)
        )
    target = results_folder("bench") / "background_removal.json"
    write_durably(target, json.dumps(report, indent=2).encode())
    print(f"\nwritten to {target}")


# ---------------------------------------- measuring


def side_by_side(
    contenders: dict[str, Callable[[], float]], work: int, unit: str, rounds: int
) -> dict[str, dict]:
    """Run all contenders in turns; each returns the seconds it took for the same work.

    Returns:
        By contender: rates (units per second, one per round) and, for all but ours, how many times
        as quick ours was in the same round: ratios, their median and [lowest, highest].
    """
    names = list(contenders)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            rates[name].append(work / contenders[name]())
    found = {}
    for name, measured in rates.items():
        found[name] = {
            "unit": f"{unit}/s",
            "median": statistics.median(measured),
            "rates": measured,
        }
        line = f"  {name:34s}{found[name]['median']:8.0f} {unit}/s"
        if name != OURS:
            ratios = [a / b for a, b in zip(rates[OURS], measured, strict=True)]
            middle, interval = statistics.median(ratios), [min(ratios), max(ratios)]
            found[name] |= {"ours_is_times": middle, "interval": interval, "ratios": ratios}
            line += f"   ours is {middle:5.2f} x ({interval[0]:.2f}-{interval[1]:.2f})"
        print(line)
    return found


def timed(run: Callable[[], object]) -> float:
    synchronise()
    started = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - started


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def watched(model: nn.Sequential) -> Iterator[Counter]:
    """Counts the batches that enter the network for a gradient, by precision and shape.

    Ours also looks at one image to see how many classes there are: that is timed, not counted.
    """
    seen: Counter[str] = Counter()

    def count(_: nn.Module, entered: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            seen.update([f"{entered[0].dtype} {tuple(entered[0].shape)}"])

    hook = model.network.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"not the same work, so no time is taken: {otherwise}")


def new_model() -> nn.Sequential:
    return models.build(ARCHITECTURE, CLASSES, seed=0).to(DEVICE)


def bare(
    model: nn.Sequential, batch: Tensor, labels: Tensor, passes: int, *, weights: bool
) -> None:
    """Forward and backward, to the weights or to the images, and nothing else."""
    for _ in range(passes):
        logits = model(batch)
        if weights:
            model.zero_grad(set_to_none=True)
            cross_entropy(logits, labels).backward()
        else:
            torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), batch)


# ---------------------------------------- training


def bench_training(scenes: ImageSet, recipe: Recipe, rounds: int, work: Path) -> dict:
    print("\ntraining: black scenes, SGD, flip, shift and brightness")
    folder = save_as_folder(scenes, work / "pictures")
    workers = quickest_workers(folder, recipe)
    loader = make_loader(folder, recipe, workers)

    def ours(model: nn.Sequential) -> list[float]:
        return training.fit(model, scenes, recipe, seed=0, device=DEVICE, progress=False).train_loss

    theirs = partial(plain_loop, loader=loader, recipe=recipe)
    runs = {
        OURS: ours,
        "plain loop": theirs,
        "plain loop, channels last": partial(theirs, layout=torch.channels_last),
    }
    losses, work_done = {}, {}
    for name, run in runs.items():
        model = new_model()
        with watched(model) as work_done[name]:
            losses[name] = run(model)
        demand(losses[name][-1] < losses[name][0], f"the loss of {name} went {losses[name]}")
        demand(
            work_done[name] == work_done[OURS],
            f"{name} computed {dict(work_done[name])}, ours {dict(work_done[OURS])}",
        )
    print(f"  same work: {dict(work_done[OURS])}, pictures equal, loss falls in each;")
    print(f"  the plain loop has {workers} worker(s), the quickest here")

    def bare_seconds(layout: torch.memory_format) -> float:
        model = new_model().to(memory_format=layout)
        batch = torch.rand(recipe.batch_size, 3, SIZE, SIZE, device=DEVICE)
        batch = batch.contiguous(memory_format=layout)
        labels = torch.arange(recipe.batch_size, device=DEVICE) % CLASSES
        passes = recipe.epochs * len(scenes) // recipe.batch_size
        return timed(lambda: bare(model, batch, labels, passes, weights=True))

    def seconds(run: Callable[[nn.Sequential], object]) -> float:
        model = new_model()
        return timed(lambda: run(model))

    contenders = {name: partial(seconds, run) for name, run in runs.items()}
    contenders |= {
        "bare network": lambda: bare_seconds(torch.contiguous_format),
        "bare network, channels last": lambda: bare_seconds(torch.channels_last),
    }
    measured = side_by_side(contenders, recipe.epochs * len(scenes), "images", rounds)
    return {"workers": workers, "losses": losses, "work": work_done[OURS], "measured": measured}


def save_as_folder(scenes: ImageSet, folder: Path) -> Path:
    """One PNG per picture in one folder per class; read back, they are the same pictures."""
    for row, (picture, label) in enumerate(zip(scenes.images, scenes.labels, strict=True)):
        file = folder / f"class {label:02d}" / f"{row:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.movedim(0, 2).numpy()).save(file)
    read = ImageFolder(folder, v2.ToImage())
    rows = [int(Path(path).stem) for path, _ in read.samples]
    pictures = torch.stack([picture for picture, _ in read])
    demand(
        sorted(rows) == list(range(len(scenes)))
        and torch.equal(pictures, scenes.images[rows])
        and read.targets == scenes.labels[rows].tolist(),
        "the pictures in the folder are not ours; are all classes among so few images?",
    )
    return folder


def make_loader(folder: Path, recipe: Recipe, workers: int) -> DataLoader:
    """As torchvision's and torch's documentation advise: v2 on uint8 tensors, workers that stay."""
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(SIZE, round(recipe.shift * SIZE), padding_mode="reflect"),
            v2.ColorJitter(brightness=recipe.relight),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return DataLoader(
        ImageFolder(folder, transform),
        batch_size=recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=DEVICE.type == "cuda",
    )


def quickest_workers(folder: Path, recipe: Recipe) -> int:
    """The number of workers that suits the plain loop best here, by its second epoch."""
    taken = {}
    for workers in sorted({0, 1, 2, CORES // 2, CORES}):
        loader, model = make_loader(folder, recipe, workers), new_model()
        plain_loop(model, loader, recipe, epochs=1)  # starts the workers
        taken[workers] = timed(partial(plain_loop, model, loader, recipe, epochs=1))
    return min(taken, key=taken.get)


def plain_loop(
    model: nn.Sequential,
    loader: DataLoader,
    recipe: Recipe,
    *,
    epochs: int | None = None,
    layout: torch.memory_format = torch.contiguous_format,
) -> list[float]:
    """The mean loss of every epoch."""
    model.to(memory_format=layout).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    epochs = epochs or recipe.epochs
    total = epochs * len(loader)
    scheduler = LambdaLR(optimizer, lambda step: training.rate(step, total, recipe))
    losses = []
    for _ in range(epochs):
        loss_sum = torch.zeros((), device=DEVICE)
        for pictures, labels in loader:
            pictures = pictures.to(DEVICE, non_blocking=True, memory_format=layout)
            labels = labels.to(DEVICE, non_blocking=True)
            loss = cross_entropy(model(pictures), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            loss_sum += loss.detach() * len(labels)
        losses.append(loss_sum.item() / len(loader.dataset))
    return losses


# ---------------------------------------- visualisation


def bench_visualisation(
    scenes: ImageSet, recipe: Recipe, steps: int, rounds: int, work: Path
) -> dict:
    print(f"\nfeature visualisation: {CLASSES} classes in one batch, {steps} steps")
    model = new_model()  # a little trained, so that its scores are those of a network
    training.fit(model, scenes, recipe, seed=0, device=DEVICE, progress=False)
    model.to(memory_format=torch.contiguous_format)
    targets = torch.arange(CLASSES, device=DEVICE)
    start = torch.full((CLASSES, 3, SIZE, SIZE), 0.5, device=DEVICE)
    # lucent's objective has no penalty; ours at weight 0 still computes it
    how = Ascent(steps=steps, l2=0.0)

    lucent, skipped = None, None
    try:
        lucent = Lucent(model, steps, work)
    except Unavailable as reason:
        skipped = str(reason)
        print(f"  lucent is skipped: {skipped}")
    contenders = {OURS: lambda: timed(lambda: ascend(model, targets, start, how))}
    if lucent is not None:
        kept = work / "lucent.pt"
        theirs = lucent.draw(frozen=True, save=str(kept))
        pictures = torch.load(kept, weights_only=True)
        start, end = pictures["start"].to(DEVICE), pictures["end"].to(DEVICE)
        contenders |= {
            "lucent": lambda: lucent.draw(frozen=False)["seconds"],
            "lucent, weights frozen by us": lambda: lucent.draw(frozen=True)["seconds"],
        }
    with watched(model) as passes:
        drawn = ascend(model, targets, start, how)

    def score(images: Tensor) -> float:
        with torch.no_grad():
            return model(images).gather(1, targets[:, None]).mean().item()

    scores = {"start": score(start), OURS: score(drawn)}
    demand(scores[OURS] > scores["start"], f"the scores did not rise: {scores}")
    if lucent is not None:
        scores["lucent"] = score(end)
        demand(scores["lucent"] > scores["start"], f"the scores did not rise: {scores}")
        counts = f"lucent computed {theirs['passes']}, ours {dict(passes)}"
        demand(theirs["passes"] == dict(passes), counts)
        with torch.no_grad():
            gap = (pictures["logits"].to(DEVICE) - model(start)).abs().max().item()
        demand(gap < 1e-3, f"for the same images the networks' outputs differ by {gap}")
    shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
    print(f"  same work: {dict(passes)}; mean score of the target class: {shown}")

    def bare_seconds(layout: torch.memory_format) -> float:
        network = copy.deepcopy(model).to(memory_format=layout)
        batch = start.clone(memory_format=layout).requires_grad_()
        with frozen(network):
            return timed(lambda: bare(network, batch, targets, steps, weights=False))

    contenders |= {
        "bare network": lambda: bare_seconds(torch.contiguous_format),
        "bare network, channels last": lambda: bare_seconds(torch.channels_last),
    }
    try:
        measured = side_by_side(contenders, steps * CLASSES, "image steps", rounds)
    finally:
        if lucent is not None:
            lucent.close()
    return {"skipped": skipped, "work": passes, "scores": scores, "measured": measured}


class Unavailable(Exception):
    """Why the peer cannot be measured here."""


class Lucent:
    """lucent in a process and an environment of its own; it waits while others are measured."""

    def __init__(self, model: nn.Sequential, steps: int, work: Path) -> None:
        weights = work / "weights.pt"
        torch.save(model.state_dict(), weights)
        job = {
            "weights": str(weights),
            "architecture": ARCHITECTURE,
            "classes": CLASSES,
            "size": SIZE,
            "steps": steps,
            "threads": CORES,
        }
        python = lucent_environment()
        self.process = subprocess.Popen(
            [python, "-W", "ignore", PEERS / "visualise_with_lucent.py", json.dumps(job)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("lucent's process has ended; its reason stands above")
        return line

    def draw(self, *, frozen: bool, save: str | None = None) -> dict:
        print(json.dumps({"frozen": frozen, "save": save}), file=self.process.stdin, flush=True)
        return json.loads(self._answer())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def lucent_environment() -> str:
    """The Python of an environment with lucent, made once; it borrows our torch.

    Raises:
        Unavailable: installing or importing failed.
    """
    folder, wanted = ROOT / "data" / "cache" / "bench" / "lucent", PEERS / "requirements-lucent.txt"
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    borrowed = "\n".join(site.getsitepackages())
    stamp, made_for = folder / "made_for.txt", f"{sys.version}\n{borrowed}\n{wanted.read_text()}"
    if stamp.exists() and stamp.read_text() == made_for:
        return python
    print("  making an environment for lucent, this once")
    options = shlex.split(os.environ.get("PIP_ARGS", ""))  # as make hands them to pip
    try:
        venv.create(folder, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--no-deps", *options, "-r", str(wanted)]
        checked_run(python, *install)
        packages = sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder})
        (Path(packages) / "course.pth").write_text(borrowed)
        checked_run(python, "-W", "ignore", "-c", "import lucent.optvis.render")
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Unavailable(f"it could not be installed ({said.strip().splitlines()[-1]})") from error
    stamp.write_text(made_for)
    return python


def checked_run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
