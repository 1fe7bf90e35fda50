"""Fit and evaluate networks; an interrupted training ends exactly like an uninterrupted one.

Everything random in an epoch (the order of the images, how each is flipped, shifted and relit,
dropout) follows from (seed, epoch) alone. After each epoch the whole state goes to disk in one
rename. A run that is killed and started again repeats the epoch it was in, and from the same state
the same numbers come out, bit for bit on one machine with one number of threads.

The images stay on the device as uint8; a batch is gathered, augmented and made float there, with no
Python per image. One process uses the device it is given; under `accelerate launch` every process
takes its share of each batch and gradients are averaged.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from helpers import models, parallel
from helpers.budget import Recipe
from helpers.durable import write_durably
from helpers.imageset import ImageSet
from helpers.store import Keyed, Result, Store, stage


@dataclass
class History:
    """One number per epoch. The validation lists are empty when nothing was validated."""

    train_loss: list[float] = field(default_factory=list)  # of the augmented images, while training
    train_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Geometry:
    """Where each picture of a batch is moved: the same for its image, its mask and its parts."""

    flips: Bool[Tensor, " n"]  # mirrored left to right
    shifts: Int64[Tensor, "n 2"]  # pixels the content moves down and right; borders are reflected

    def __getitem__(self, rows: Any) -> Geometry:
        return Geometry(self.flips[rows], self.shifts[rows])

    def to(self, device: torch.device) -> Geometry:
        return Geometry(
            self.flips.to(device, non_blocking=True), self.shifts.to(device, non_blocking=True)
        )

    def __call__(self, pictures: Shaped[Tensor, "n *c h w"]) -> Shaped[Tensor, "n *c h w"]:
        """Move pictures of any type, by whole pixels, so that no value is invented.

        First flipped, then shifted. (n, h, w) for masks and part maps, (n, c, h, w) for images.
        """
        n, (h, w) = len(pictures), pictures.shape[-2:]
        rows = _reflect(torch.arange(h, device=pictures.device) - self.shifts[:, :1], h)
        columns = _reflect(torch.arange(w, device=pictures.device) - self.shifts[:, 1:], w)
        columns = torch.where(self.flips[:, None], w - 1 - columns, columns)
        picture = torch.arange(n, device=pictures.device)[:, None, None]
        if pictures.ndim == 3:
            return pictures[picture, rows[:, :, None], columns[:, None, :]]
        channel = torch.arange(pictures.shape[1], device=pictures.device)[None, :, None, None]
        return pictures[picture[:, None], channel, rows[:, None, :, None], columns[:, None, None]]


def _reflect(index: Int64[Tensor, "n s"], size: int) -> Int64[Tensor, "n s"]:
    """Indices up to one size outside come back in, the border pixel itself not repeated."""
    return ((size - 1) - ((size - 1) - index.abs()).abs()).clamp(0, size - 1)


@dataclass(frozen=True)
class Epoch:
    """Everything random about one epoch, drawn on the CPU so that every device gets the same."""

    order: Int64[Tensor, " n"]
    geometry: Geometry  # by position in the order
    brightness: Float[Tensor, " n"]
    contrast: Float[Tensor, " n"]

    def to(self, device: torch.device) -> Epoch:
        return Epoch(*(getattr(self, f.name).to(device) for f in fields(self)))


def draw_epoch(n: int, size: tuple[int, int], recipe: Recipe, *, seed: int, epoch: int) -> Epoch:
    """Order and augmentation of an epoch over n images of (height, width) `size`."""
    generator = torch.Generator().manual_seed(_mixed(seed, epoch))
    order = torch.randperm(n, generator=generator)
    # all are drawn, chosen or not, so that leaving one out does not change the others
    flip, down, right, brightness, contrast = torch.rand(5, n, generator=generator)
    side = torch.tensor(size) * recipe.shift
    shifts = ((torch.stack((down, right), 1) * 2 - 1) * side).round().long()
    chosen = recipe.augmentations
    return Epoch(
        order=order,
        geometry=Geometry(
            flips=(flip < 0.5) & ("flip" in chosen),
            shifts=shifts * ("shift" in chosen),
        ),
        brightness=1 + (2 * brightness - 1) * recipe.relight * ("brightness" in chosen),
        contrast=1 + (2 * contrast - 1) * recipe.relight * ("contrast" in chosen),
    )


def relight(
    images: Float[Tensor, "n 3 h w"],
    brightness: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
) -> Float[Tensor, "n 3 h w"]:
    """Scale each image, then its distance from its own mean; stays in [0, 1]."""
    images = images * brightness[:, None, None, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    return (mean + (images - mean) * contrast[:, None, None, None]).clamp_(0, 1)


def adversarial(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    radius: float,
    steps: int = 2,
) -> Float[Tensor, "n 3 h w"]:
    """Images within L2 distance `radius` (in units of [0, 1]) at which the loss is higher.

    Projected gradient ascent (Madry 2018, "Towards deep learning models resistant to adversarial
    attacks") with normalised steps of 1.5 radius / steps from the image itself, projected onto the
    ball and onto [0, 1]. Only the image needs a gradient, so the weights are frozen meanwhile; the
    model's mode is the caller's choice (batch norm in training mode moves its statistics).

    Raises:
        ValueError: a radius that is not positive, or no step.
    """
    if radius <= 0 or steps < 1:
        raise ValueError(f"an attack needs a positive radius and a step, not {radius} and {steps}")
    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        moved = images
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            with torch.enable_grad():
                loss = cross_entropy(model(moved).float(), labels, reduction="sum")
                (slope,) = torch.autograd.grad(loss, moved)
            length = slope.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
            away = moved.detach() + 1.5 * radius / steps * slope / length - images
            far = away.flatten(1).norm(dim=1)[:, None, None, None]
            moved = (images + away * (radius / far.clamp(min=radius))).clamp(0, 1)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return moved.detach()


def _mixed(*numbers: int) -> int:
    """One seed from several numbers; nearby ones give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1


def fit(
    model: nn.Module,
    train: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    validation: ImageSet | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> History:
    """Train `model` in place; it ends on `device`, in eval mode.

    Args:
        model: images in [0, 1] -> logits, one per class of `train`.
        checkpoint: file for the state after each epoch. Where it exists the training goes on from
            it: with the same arguments the end is the same as without the interruption.
        progress: a bar on stdout, wiped when done.
        after_epoch: called with the number of epochs done and the model, before the checkpoint is
            written: an epoch that is repeated after an interruption calls it again.

    Raises:
        ValueError: no images, other classes in `validation`, or a checkpoint of another training.
        FloatingPointError: the loss is no longer finite.
    """
    if not len(train):
        raise ValueError("cannot train on an ImageSet without images")
    if validation is not None and validation.class_names != train.class_names:
        raise ValueError("the validation images have other class names than the training images")
    accelerator = Accelerator()
    shared = accelerator.num_processes > 1
    device = accelerator.device if shared else torch.device(device)
    model.to(device=device, memory_format=torch.channels_last)
    optimizer = _optimizer(model, recipe)
    steps = math.ceil(len(train) / recipe.batch_size)
    total = recipe.epochs * steps
    scheduler = LambdaLR(optimizer, lambda step: rate(step, total, recipe))  # once per batch
    history = History()
    identity = _identity(train, validation, recipe, seed)
    if checkpoint is not None and checkpoint.exists():
        history = _resume(checkpoint, identity, model, optimizer, scheduler, device) or history
    done = len(history.train_loss)
    if done == recipe.epochs:
        model.eval()
        return history

    wrapped = accelerator.prepare_model(model, device_placement=False)
    images, labels = _kept_near(train.images, device), train.labels.to(device)
    bar = tqdm(
        total=recipe.epochs * len(train),
        initial=done * len(train),
        unit="img",
        unit_scale=True,
        file=sys.stdout,
        leave=False,
        mininterval=2,
        ncols=100,
        disable=not (progress and accelerator.is_main_process),
    )
    devices = [device] if device.type == "cuda" else []
    reproducible = torch.backends.cudnn.flags(enabled=True, deterministic=True)
    with bar, torch.random.fork_rng(devices), reproducible:
        for epoch in range(done, recipe.epochs):
            started = time.perf_counter()
            bar.set_description(f"epoch {epoch + 1}/{recipe.epochs}", refresh=False)
            torch.manual_seed(_mixed(seed, epoch, accelerator.process_index))  # dropout's
            size = tuple(images.shape[2:])
            drawn = draw_epoch(len(images), size, recipe, seed=seed, epoch=epoch).to(device)
            totals = run_epoch(
                wrapped, images, labels, drawn, recipe, optimizer, scheduler, accelerator, bar
            )
            loss_sum, right_sum, count = accelerator.reduce(totals).tolist()
            if not math.isfinite(loss_sum):
                raise FloatingPointError(
                    f"the training loss became {loss_sum} in epoch {epoch + 1}; use a lower lr "
                    f"than {recipe.lr} or a longer warm-up"
                )
            history.train_loss.append(loss_sum / count)
            history.train_accuracy.append(right_sum / count)
            shown = {"loss": f"{loss_sum / count:.3f}", "acc": f"{right_sum / count:.1%}"}
            if validation is not None:
                judged = evaluate(model, validation, device=device)
                history.validation_loss.append(judged["loss"])
                history.validation_accuracy.append(judged["accuracy"])
                shown["val"] = f"{judged['accuracy']:.1%}"
            history.seconds.append(round(time.perf_counter() - started, 3))
            bar.set_postfix(shown, refresh=False)
            if after_epoch is not None and accelerator.is_main_process:
                after_epoch(epoch + 1, model)
            if checkpoint is not None and accelerator.is_main_process:
                _save(checkpoint, identity, model, optimizer, scheduler, history)
            accelerator.wait_for_everyone()
    model.eval()
    return history


def run_epoch(
    model: nn.Module,
    images: UInt8[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    drawn: Epoch,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    accelerator: Accelerator,
    bar: tqdm,
) -> Float[Tensor, " 3"]:
    """One pass over the images; returns the sums of loss, right answers and images."""
    device = labels.device
    totals = torch.zeros(3, device=device)
    model.train()
    # batches differ by one image at most: a last batch of one would break batch norm
    steps = math.ceil(len(labels) / recipe.batch_size)
    for batch in torch.arange(len(labels), device=device).tensor_split(steps):
        mine = batch[accelerator.process_index :: accelerator.num_processes]
        picked = drawn.order[mine]
        pictures = images[picked.to(images.device)].to(device, non_blocking=True)
        pictures = drawn.geometry[mine](pictures).float().div_(255)
        pictures = relight(pictures, drawn.brightness[mine], drawn.contrast[mine])
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            if recipe.attack_radius:
                radius, tries = recipe.attack_radius, recipe.attack_steps
                pictures = adversarial(model, pictures, labels[picked], radius=radius, steps=tries)
            logits = model(pictures).float()
        loss = cross_entropy(logits, labels[picked], label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        right = (logits.detach().argmax(1) == labels[picked]).sum()
        totals += torch.stack((loss.detach() * len(mine), right, torch.full_like(right, len(mine))))
        bar.update(len(batch))
    return totals


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(),
            recipe.lr,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )


def rate(step: int, total: int, recipe: Recipe) -> float:
    """The learning rate at a step (0 .. total - 1) as a share of `recipe.lr`."""
    rising = recipe.warm_up * total
    if step < rising:
        return (step + 1) / (rising + 1)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
    if recipe.schedule == "steps":
        return 0.1 ** (4 * step // total)
    return 1.0


def _kept_near(images: UInt8[Tensor, "n 3 h w"], device: torch.device) -> UInt8[Tensor, "n 3 h w"]:
    """On the device where they leave it room to compute, else in memory it can fetch from."""
    if device.type != "cuda":
        return images.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.nbytes < free / 2 else images.pin_memory()


def _identity(train: ImageSet, validation: ImageSet | None, recipe: Recipe, seed: int) -> str:
    asked = {
        "train": train.key,
        "validation": validation.key if validation is not None else None,
        "recipe": asdict(recipe),
        "seed": seed,
    }
    return json.dumps(asked, sort_keys=True)


def _save(
    checkpoint: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    history: History,
) -> None:
    """Everything the next epoch depends on; the random state is not needed, see draw_epoch."""
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "history": asdict(history),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_durably(checkpoint, buffer.getvalue())


def _resume(
    checkpoint: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    device: torch.device,
) -> History | None:
    """Put the saved state back, or None for a file that cannot be read."""
    try:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        saved = state["identity"]
    except PermissionError:
        raise
    except Exception as error:  # a damaged file fails in zip, in pickle or in torch
        warnings.warn(
            f"the checkpoint {checkpoint} cannot be read ({error}); training starts again",
            stacklevel=3,
        )
        return None
    if saved != identity:
        raise ValueError(
            f"the checkpoint {checkpoint} is of another training: {saved}, not {identity}; "
            "delete it or give another file"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return History(**state["history"])


def predict(
    model: nn.Module,
    images: ImageSet,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n k"]:
    """Logits of all images, on the CPU; the model moves to `device` and keeps its mode."""
    if not len(images):
        raise ValueError("cannot predict for an ImageSet without images")
    was_training = model.training
    model.to(device).eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = images.images[start : start + batch_size].to(device, non_blocking=True)
            batch = batch.float().div_(255).contiguous(memory_format=torch.channels_last)
            logits.append(model(batch).float())
    model.train(was_training)
    return torch.cat(logits).cpu().clone()  # a clone is no inference tensor: gradients may follow


def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """What `mark` says of the model's answers. Raises as `mark` and `predict` do."""
    return mark(predict(model, images, batch_size=batch_size, device=device), images)


def mark(logits: Float[Tensor, "n k"], images: ImageSet) -> dict[str, Any]:
    """Accuracy and mean cross-entropy, and what they have to be read with.

    Returns:
        accuracy, balanced (the mean of the classes' accuracies, each class counting the same),
        loss, n (images), classes, chance (1 / classes), majority (accuracy of always answering the
        most frequent class), absent (names of classes without an image).

    Raises:
        ValueError: the model has not one output per class.
    """
    classes = len(images.class_names)
    if logits.shape[1] != classes:
        raise ValueError(f"the model has {logits.shape[1]} outputs for {classes} classes")
    counts = images.counts()
    right = (logits.argmax(1) == images.labels).double()
    return {
        "accuracy": right.mean().item(),
        "balanced": torch.stack([right[images.labels == k].mean() for k in images.labels.unique()])
        .mean()
        .item(),
        "loss": cross_entropy(logits, images.labels).item(),
        "n": len(images),
        "classes": classes,
        "chance": 1 / classes,
        "majority": max(counts.values()) / len(images),
        "absent": [name for name, count in counts.items() if not count],
    }


@stage(version=1)
def answer(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Logits of the images. Inputs: network (what made the model's weights), images."""
    return {"logits": predict(model, inputs["images"], device=device)}, {}


def answers(
    store: Store,
    network: Keyed,
    model: nn.Module,
    images: ImageSet,
    *,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n k"]:
    """Logits of all images, from the store or predicted now.

    Args:
        network: what `model` was made of, such as the result of its training.
    """
    inputs, how = {"network": network, "images": images}, {"model": model, "device": device}
    return store.get_or_compute(answer, {}, inputs, how).tensors["logits"]


def settled(recipe: Recipe) -> Recipe:
    """The recipe with "quick" precision replaced by the one this machine is quick in.

    Processors without bfloat16 instructions imitate them, which is slower than float32. Trainings
    in different precisions are different results, so this goes before the store's key.
    """
    if recipe.precision != "quick":
        return recipe
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 cannot tell
    quick = torch.cuda.is_available() or known.get("avx512_bf16") or known.get("amx_bf16")
    return replace(recipe, precision="bfloat16" if quick else "float32")


@stage(version=2)
def fit_network(
    config: Mapping[str, Any],
    inputs: Mapping[str, ImageSet],
    work: Path,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one network. Config: architecture, classes, recipe, seed. Inputs: train, validation.

    Returns:
        The weights, and {"history": ..., "validation": what `evaluate` says, if there were images}.
    """
    train, validation = inputs["train"], inputs.get("validation")
    model = models.build(config["architecture"], config["classes"], seed=config["seed"])
    history = fit(
        model,
        train,
        Recipe.from_config(config["recipe"]),
        seed=config["seed"],
        checkpoint=work / "checkpoint.pt",
        validation=validation,
        device=device,
        progress=progress,
    )
    values: dict[str, Any] = {"history": asdict(history)}
    if validation is not None:
        values["validation"] = evaluate(model, validation, device=device)
    return model.state_dict(), values


def trained(
    store: Store,
    architecture: str,
    train: ImageSet,
    validation: ImageSet | None,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
    find_only: bool = False,
) -> tuple[nn.Module, Result]:
    """A trained network in eval mode on `device`, from the store or trained now, and its record.

    Raises:
        LookupError: with `find_only`, where the store does not have it.
    """
    config = {
        "architecture": architecture,
        "classes": len(train.class_names),
        "recipe": asdict(settled(recipe)),
        "seed": seed,
    }
    inputs = {"train": train} | ({} if validation is None else {"validation": validation})
    how = {"device": device, "progress": progress}
    if not find_only:
        result = store.get_or_compute(fit_network, config, inputs, how=how)
    elif (result := store.find(fit_network, config, inputs)) is None:
        raise LookupError(f"the store has no such {architecture}")
    model = models.build(architecture, config["classes"], seed=seed)
    model.load_state_dict(result.tensors)
    return model.to(device).eval(), result


def all_trained(
    store: Store,
    jobs: Sequence[tuple[str, ImageSet, Recipe]],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[tuple[nn.Module, Result]]:
    """What `trained` gives for each architecture, images and recipe; those that the store lacks
    are trained side by side, the longest first."""
    common = (store.root, seed, device)
    made = {}
    for number, job in enumerate(jobs):
        with suppress(LookupError):
            made[number] = _trained_one(common, (number, *job), find_only=True)
    missing = [(number, *job) for number, job in enumerate(jobs) if number not in made]
    missing.sort(key=lambda job: -job[3].epochs)
    shown = {"unit": "network", "file": sys.stdout, "leave": False, "disable": not missing}
    done = parallel.each(_trained_one, common, missing, device=device)
    made |= {job[0]: found for job, found in tqdm(done, total=len(missing), **shown)}
    return [made[number] for number in range(len(jobs))]


def _trained_one(
    common: tuple[Path, int, torch.device | str],
    job: tuple[int, str, ImageSet, Recipe],
    find_only: bool = False,
) -> tuple[nn.Module, Result]:
    (root, seed, device), (_, architecture, train, recipe) = common, job
    how = {"seed": seed, "device": device, "progress": False, "find_only": find_only}
    return trained(Store(root), architecture, train, None, recipe, **how)


@stage(version=1)
def fit_epochs(
    config: Mapping[str, Any],
    inputs: Mapping[str, ImageSet],
    work: Path,
    *,
    model: nn.Module,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one network and keep its weights after every epoch.

    Config: network (what `model` starts from) and layers (its description), recipe, seed. Inputs:
    train. The caller's model stays untrained.

    Returns:
        The weights that were trained, as "<epoch>/<name>", and {"history": ...}.
    """
    model = copy.deepcopy(model)
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    kept = [name for name in model.state_dict() if name not in fixed]

    def keep(epoch: int, network: nn.Module) -> None:
        state = {name: network.state_dict()[name].cpu() for name in kept}
        torch.save(state, work / f"epoch {epoch}.pt")

    recipe = Recipe.from_config(config["recipe"])
    history = fit(
        model,
        inputs["train"],
        recipe,
        seed=config["seed"],
        checkpoint=work / "checkpoint.pt",
        device=device,
        progress=progress,
        after_epoch=keep,
    )
    tensors = {}
    for epoch in range(1, recipe.epochs + 1):
        state = torch.load(work / f"epoch {epoch}.pt", weights_only=True)
        tensors |= {f"{epoch}/{name}": value for name, value in state.items()}
    return tensors, {"history": asdict(history)}


def features(
    model: nn.Module,
    images: ImageSet,
    *,
    batch: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Float[Tensor, "n d"]:
    """What the last layer sees of every image (`models.embed`), `batch` images at a time.

    The model is used as it is, on `device` already and in its own mode; the answer is on the CPU.
    `progress` shows a bar where it takes more than five seconds.
    """
    rows = torch.arange(len(images)).split(batch)
    how = {"desc": "features", "file": sys.stdout, "leave": False, "delay": 5}
    with torch.inference_mode():
        bar = tqdm(rows, disable=not progress, **how)
        seen = [models.embed(model, images[some].to_float(device)).cpu() for some in bar]
    return torch.cat(seen).clone()  # a tensor like any other, not one of inference mode


@stage(version=1)
def fit_last_layer(
    config: Mapping[str, Any],
    inputs: Mapping[str, ImageSet],
    work: Path,
    *,
    backbone: nn.Module,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A new last layer for a frozen pretrained network: logistic regression on what its own saw.

    Config: backbone (the hash of its weights). Inputs: train. The regularisation is strong and
    fixed, not chosen on any data, because there are about as many features as images. Classes
    without a training image get a bias so low that they are never predicted.

    Raises:
        ValueError: images of one class only.

    Returns:
        {"weight": (classes, d), "bias": (classes,)} and {"regularisation": C of scikit-learn}.
    """
    from sklearn.linear_model import LogisticRegression  # half a second only photographs need

    train = inputs["train"]
    backbone.to(device).eval()
    seen = features(backbone, train, batch=64, device=device, progress=True)
    scale = seen.std(0).clamp(min=1e-6)
    judge = LogisticRegression(C=0.01, max_iter=2_000).fit((seen / scale).numpy(), train.labels)
    learned = torch.from_numpy(np.c_[judge.coef_, judge.intercept_]).float()
    if len(judge.classes_) == 2:  # scikit-learn keeps one row: the second class against the first
        learned = torch.cat([-learned, learned]) / 2
    classes = len(train.class_names)
    weight, bias = torch.zeros(classes, seen.shape[1]), torch.full((classes,), -1e4)
    weight[judge.classes_], bias[judge.classes_] = learned[:, :-1] / scale, learned[:, -1]
    return {"weight": weight, "bias": bias}, {"regularisation": judge.C}
