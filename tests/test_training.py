"""Training: the right thing is learnt, reproducibly, through any interruption."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers import models, parallel, training
from helpers.imageset import ImageSet
from helpers.models import build
from helpers.store import Store
from helpers.training import (
    Geometry,
    Recipe,
    adversarial,
    all_trained,
    draw_epoch,
    evaluate,
    fit,
    fit_epochs,
    fit_network,
    predict,
    rate,
    relight,
    trained,
)

QUICK = Recipe(epochs=3, batch_size=16, lr=0.05)
LONG = replace(QUICK, epochs=200)  # long enough to be killed in the middle


def stripes(n: int, seed: int) -> ImageSet:
    """Horizontal, vertical or no stripes in noise: three classes any convolution can tell."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
    wave = (torch.arange(16) // 2 % 2 * 100).to(torch.uint8)
    images[labels == 0] += wave[:, None]
    images[labels == 1] += wave[None, :]
    return ImageSet(images, labels, ("horizontal", "vertical", "none"))


def small(seed: int = 0) -> nn.Module:
    """Batch norm and dropout, so that both kinds of hidden state are under test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_learns_and_generalises():
    recipe = replace(QUICK, epochs=12, augmentations=("shift", "brightness"))
    model = small()
    history = fit(model, stripes(96, 0), recipe, seed=0, validation=stripes(48, 1), progress=False)
    assert not model.training
    assert history.validation_accuracy[-1] > 0.9
    assert history.train_loss[-1] < history.train_loss[0] / 2
    assert {len(curve) for curve in asdict(history).values()} == {12}


def test_same_seed_same_network_and_the_global_random_state_is_left_alone():
    data, before = stripes(40, 0), torch.get_rng_state()
    models = [small(), small(), small()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit(model, data, QUICK, seed=seed, progress=False)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_killed_and_resumed_ends_bit_identical(tmp_path):
    script = """
import sys, torch
sys.path.insert(0, "tests")
from pathlib import Path
from test_training import LONG, small, stripes
from helpers import models, training
save = training._save
def announced(*state):
    save(*state)
    print("epoch saved", flush=True)
training._save = announced
torch.set_num_threads(int(sys.argv[2]))
training.fit(small(), stripes(40, 0), LONG, seed=3, checkpoint=Path(sys.argv[1]), progress=False)
"""
    file = tmp_path / "checkpoint.pt"
    killed = subprocess.Popen(
        [sys.executable, "-c", script, file, str(torch.get_num_threads())],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        assert killed.stdout.readline() == "epoch saved\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = len(torch.load(file)["history"]["train_loss"])
    assert 3 <= done < LONG.epochs

    resumed, whole = small(), small()
    history = fit(resumed, stripes(40, 0), LONG, seed=3, checkpoint=file, progress=False)
    expected = fit(whole, stripes(40, 0), LONG, seed=3, progress=False)
    assert same(resumed, whole)
    assert history.train_loss == expected.train_loss and len(history.train_loss) == LONG.epochs


@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_recipe_resumes_bit_identical(tmp_path, monkeypatch, optimizer, schedule):
    data = stripes(20, 0)
    recipe = replace(QUICK, epochs=4, optimizer=optimizer, schedule=schedule)
    whole, cut, file = small(), small(), tmp_path / "checkpoint.pt"
    history = fit(whole, data, recipe, seed=0, progress=False)
    save, saves = training._save, iter([True, True, False, True, False])

    def interrupted(*state):  # in the third epoch and, resumed, in the fourth
        if not next(saves):
            raise KeyboardInterrupt
        save(*state)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                fit(cut, data, recipe, seed=0, checkpoint=file, progress=False)
    cut = small(seed=5)  # other weights: only the checkpoint can make them right
    resumed = fit(cut, data, recipe, seed=0, checkpoint=file, progress=False)
    assert same(whole, cut)
    assert resumed.train_loss == history.train_loss


def test_a_finished_checkpoint_is_only_loaded(tmp_path):
    data, file = stripes(20, 0), tmp_path / "checkpoint.pt"
    first, second = small(), small(seed=9)
    history = fit(first, data, QUICK, seed=0, checkpoint=file, progress=False)
    written = file.read_bytes()
    assert fit(second, data, QUICK, seed=0, checkpoint=file, progress=False) == history
    assert same(first, second) and file.read_bytes() == written


def test_a_damaged_checkpoint_is_named_and_training_starts_again(tmp_path):
    data, file = stripes(20, 0), tmp_path / "checkpoint.pt"
    first, second = small(), small()
    fit(first, data, QUICK, seed=0, checkpoint=file, progress=False)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=f"{file} cannot be read"):
        fit(second, data, QUICK, seed=0, checkpoint=file, progress=False)
    assert same(first, second)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "checkpoint.pt"
    fit(small(), stripes(20, 0), QUICK, seed=0, checkpoint=file, progress=False)
    for data, recipe, seed in (
        (stripes(20, 1), QUICK, 0),
        (stripes(20, 0), replace(QUICK, lr=0.2), 0),
        (stripes(20, 0), QUICK, 1),
    ):
        with pytest.raises(ValueError, match="another training"):
            fit(small(), data, recipe, seed=seed, checkpoint=file, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"warm_up": 1.0},
        {"shift": 0.6},
        {"optimizer": "sdg"},
        {"schedule": "one"},
        {"augmentations": ("flip", "rotate")},
        {"precision": "float16"},
        {"attack_radius": -0.1},
        {"attack_steps": 0},
    ],
)
def test_recipes_refuse_values_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=f"Recipe.{next(iter(wrong))} is .* valid"):
        replace(QUICK, **wrong)


def test_recipe_survives_json():
    recipe = Recipe(epochs=2, augmentations=("flip",), optimizer="adamw")
    assert Recipe.from_config(json.loads(json.dumps(asdict(recipe)))) == recipe


@given(total=st.integers(1, 200), warm_up=st.floats(0, 0.9))
def test_cosine_rises_to_the_rate_and_falls_towards_zero(total, warm_up):
    rates = [rate(step, total, replace(QUICK, warm_up=warm_up)) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < value <= 1 for value in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if total >= 50:
        assert max(rates) > 0.9 and rates[-1] < 0.15


def test_steps_divide_by_ten_after_each_quarter():
    recipe = replace(QUICK, schedule="steps", warm_up=0.0)
    rates = [rate(step, 8, recipe) for step in range(8)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@given(
    n=st.integers(1, 4),
    h=st.integers(2, 9),
    w=st.integers(2, 9),
    seed=st.integers(0, 99),
)
def test_geometry_moves_images_and_masks_alike_and_invents_nothing(n, h, w, seed):
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(n * h * w).view(n, h, w)
    geometry = Geometry(
        torch.rand(n, generator=generator) < 0.5,
        torch.stack(
            (
                torch.randint(1 - h, h, (n,), generator=generator),
                torch.randint(1 - w, w, (n,), generator=generator),
            ),
            1,
        ),
    )
    moved = geometry(place)
    assert torch.equal(
        geometry(place[:, None].expand(n, 3, h, w)), moved[:, None].expand(n, 3, h, w)
    )
    assert torch.equal(geometry(place % 2 == 0), moved % 2 == 0)
    assert torch.equal(moved // (h * w), place // (h * w))  # every pixel is from its own image
    for i in range(n):  # inside, it is the flipped image moved down and right
        down, right = geometry.shifts[i].tolist()
        source = place[i].flip(1) if geometry.flips[i] else place[i]
        inside = source[max(0, -down) : h - max(0, down), max(0, -right) : w - max(0, right)]
        there = moved[i, max(0, down) : h + min(0, down), max(0, right) : w + min(0, right)]
        assert torch.equal(there, inside)


def test_geometry_reflects_at_the_border():
    row = torch.arange(5).view(1, 1, 5)
    moved = Geometry(torch.tensor([False]), torch.tensor([[0, 2]]))(row)
    assert moved.flatten().tolist() == [2, 1, 0, 1, 2]
    back = Geometry(torch.tensor([True]), torch.tensor([[0, -2]]))(row)
    assert back.flatten().tolist() == [2, 1, 0, 1, 2]


def test_an_epoch_follows_from_seed_and_epoch_alone():
    size = (16, 16)
    first = draw_epoch(50, size, QUICK, seed=0, epoch=1)
    torch.manual_seed(5)
    again = draw_epoch(50, size, QUICK, seed=0, epoch=1)
    assert torch.equal(first.order, again.order)
    assert torch.equal(first.geometry.shifts, again.geometry.shifts)
    assert first.order.sort().values.tolist() == list(range(50))
    for other in ({"seed": 1, "epoch": 1}, {"seed": 0, "epoch": 2}):
        assert not torch.equal(first.order, draw_epoch(50, size, QUICK, **other).order)
    assert first.geometry.flips.any() and not first.geometry.flips.all()
    assert first.geometry.shifts.abs().max() == 2  # an eighth of 16
    assert 0.8 <= first.brightness.min() < 1 < first.contrast.max() <= 1.2


def test_augmentations_left_out_change_nothing_and_not_the_others():
    size = (16, 16)
    plain = draw_epoch(50, size, replace(QUICK, augmentations=()), seed=0, epoch=0)
    assert not plain.geometry.flips.any() and not plain.geometry.shifts.any()
    assert (plain.brightness == 1).all() and (plain.contrast == 1).all()
    flips = draw_epoch(50, size, replace(QUICK, augmentations=("flip",)), seed=0, epoch=0)
    every = draw_epoch(50, size, QUICK, seed=0, epoch=0)
    assert torch.equal(flips.geometry.flips, every.geometry.flips)
    images = torch.rand(50, 3, 16, 16)
    assert torch.equal(plain.geometry(images), images)
    assert torch.allclose(relight(images, plain.brightness, plain.contrast), images, atol=1e-6)


def test_relight_keeps_black_black_without_contrast_and_stays_in_range():
    images = torch.rand(4, 3, 8, 8)
    images[:, :, :4] = 0
    ones = torch.ones(4)
    brighter = relight(images, ones * 1.5, ones)
    assert (brighter[:, :, :4] == 0).all() and brighter.max() == 1
    flat = relight(images, ones, ones * 0)
    assert torch.allclose(flat, images.mean((1, 2, 3), keepdim=True).expand_as(flat))


def literal_attack(model, images, labels, radius, steps):
    """Image by image: a step along the gradient, back onto the ball, back into [0, 1]."""
    moved = images.clone()
    for i in range(len(images)):
        for _ in range(steps):
            now = moved[i].clone().requires_grad_()
            loss = nn.functional.cross_entropy(model(now[None]), labels[i : i + 1])
            (slope,) = torch.autograd.grad(loss, now)
            away = moved[i] + 1.5 * radius / steps * slope / slope.norm() - images[i]
            away = away * min(1.0, radius / away.norm().item())
            moved[i] = (images[i] + away).clamp(0, 1)
    return moved


@pytest.mark.parametrize(("radius", "steps"), [(0.5, 1), (1.0, 2), (2.0, 5)])
def test_an_attack_equals_a_literal_one_image_by_image(radius, steps):
    model, data = small().eval(), stripes(9, 0)
    images = data.to_float()
    found = adversarial(model, images, data.labels, radius=radius, steps=steps)
    expected = literal_attack(model, images, data.labels, radius, steps)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not found.requires_grad and torch.equal(images, data.to_float())


@given(seed=st.integers(0, 99), radius=st.floats(0.01, 20), steps=st.integers(1, 4))
def test_attacked_images_stay_in_the_ball_and_in_range_and_raise_the_loss(seed, radius, steps):
    model, data = small(seed).eval(), stripes(6, seed)
    images = data.to_float()
    found = adversarial(model, images, data.labels, radius=radius, steps=steps)
    assert found.min() >= 0 and found.max() <= 1
    moved = (found - images).flatten(1).norm(dim=1)
    assert (moved <= radius * 1.0001 + 1e-6).all() and (moved > 0).all()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), data.labels) for x in (images, found)]
    assert losses[1] > losses[0]


@pytest.mark.parametrize("fails", [False, True])
def test_an_attack_leaves_the_weights_their_flags_gradients_and_the_mode(fails):
    model, data = small().train(), stripes(6, 0)
    model[0].weight.requires_grad_(False)
    model[-1].weight.grad = torch.ones_like(model[-1].weight)
    weights = [p.clone() for p in model.parameters()]
    labels = data.labels + 9 * fails
    if fails:
        with pytest.raises(IndexError):
            adversarial(model, data.to_float(), labels, radius=1.0)
    else:
        with torch.no_grad():  # may be called from where gradients are off
            adversarial(model, data.to_float(), labels, radius=1.0)
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert (model[-1].weight.grad == 1).all() and model[1].weight.grad is None
    assert all(module.training for module in model.modules())


def test_where_the_loss_is_flat_an_attack_moves_nothing():
    model, data = small().eval(), stripes(6, 0)
    nn.init.zeros_(model[-1].weight)
    found = adversarial(model, data.to_float(), data.labels, radius=1.0)
    assert torch.equal(found, data.to_float())


def test_training_against_attacks_is_reproducible_and_resumes(tmp_path, monkeypatch):
    data, recipe = stripes(20, 0), replace(QUICK, attack_radius=1.0, attack_steps=2)
    whole, again, plain, other, cut = (small() for _ in range(5))
    history = fit(whole, data, recipe, seed=0, progress=False)
    fit(again, data, recipe, seed=0, progress=False)
    fit(plain, data, QUICK, seed=0, progress=False)
    fit(other, data, replace(recipe, attack_steps=1), seed=0, progress=False)
    assert same(whole, again)
    assert not same(whole, plain) and not same(whole, other)

    save, saves, file = training._save, iter([True, False]), tmp_path / "checkpoint.pt"

    def interrupted(*state):
        if not next(saves):
            raise KeyboardInterrupt
        save(*state)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(cut, data, recipe, seed=0, checkpoint=file, progress=False)
    cut = small(seed=5)  # other weights: only the checkpoint can make them right
    resumed = fit(cut, data, recipe, seed=0, checkpoint=file, progress=False)
    assert same(whole, cut) and resumed.train_loss == history.train_loss
    with pytest.raises(ValueError, match="another training"):
        fit(small(), data, QUICK, seed=0, checkpoint=file, progress=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_weight_still_learns_from_attacked_images(precision):
    recipe = replace(QUICK, epochs=1, weight_decay=0.0, attack_radius=1.0, precision=precision)
    before, model = small(), small()
    fit(model, stripes(20, 0), recipe, seed=0, progress=False)
    pairs = list(zip(before.parameters(), model.parameters(), strict=True))
    # the bias in front of a batch norm changes nothing
    assert not any(torch.equal(a, b) for k, (a, b) in enumerate(pairs) if k != 1)


def test_training_against_attacks_withstands_them_better():
    data, recipe = stripes(96, 0), replace(QUICK, epochs=12, augmentations=())
    fresh, losses = stripes(48, 1), []
    for radius in (0.0, 3.0):
        model = small()
        fit(model, data, replace(recipe, attack_radius=radius), seed=0, progress=False)
        attacked = adversarial(model, fresh.to_float(), fresh.labels, radius=3.0, steps=4)
        losses.append(nn.functional.cross_entropy(model(attacked), fresh.labels).item())
    assert losses[1] < 0.8 * losses[0]


def test_predict_is_eval_whatever_the_batch_size_and_keeps_the_mode():
    data, model = stripes(20, 0), small().train()
    logits = predict(model, data, batch_size=7)
    assert model.training
    assert logits.shape == (20, 3) and not logits.is_inference()
    with torch.no_grad():
        expected = model.eval()(data.to_float())
    assert torch.allclose(logits, expected, atol=1e-6)
    with pytest.raises(ValueError, match="without images"):
        predict(model, data[torch.zeros(20, dtype=torch.bool)])


def test_evaluate_says_what_the_accuracy_has_to_be_read_with():
    class Answers(nn.Module):
        def forward(self, images):  # always the first class, surely
            return torch.tensor([[20.0, 0.0, 0.0]]).expand(len(images), 3)

    data = stripes(30, 0)
    judged = evaluate(Answers(), data[data.labels < 2])
    assert judged["accuracy"] == 0.5 and judged["majority"] == 0.5
    assert judged["n"] == 20 and judged["chance"] == pytest.approx(1 / 3)
    assert judged["absent"] == ["none"]
    assert judged["loss"] == pytest.approx(10, abs=0.01)
    with pytest.raises(ValueError, match="3 outputs for 2 classes"):
        evaluate(Answers(), ImageSet(data.images, data.labels.clamp(max=1), ("a", "b")))


def test_refuses_what_cannot_be_trained():
    data = stripes(12, 0)
    with pytest.raises(ValueError, match="without images"):
        fit(small(), data[torch.zeros(12, dtype=torch.bool)], QUICK, seed=0, progress=False)
    other = ImageSet(data.images, data.labels, ("a", "b", "c"))
    with pytest.raises(ValueError, match="other class names"):
        fit(small(), data, QUICK, seed=0, validation=other, progress=False)
    with pytest.raises(FloatingPointError, match="lower lr"):
        steep = replace(QUICK, epochs=20, lr=1e3, weight_decay=1e3)
        fit(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), data, steep, seed=0, progress=False)


def test_bfloat16_trains_in_float32_weights():
    model = small()
    history = fit(model, stripes(32, 0), replace(QUICK, precision="bfloat16"), seed=0)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(loss > 0 for loss in history.train_loss)


def test_trained_comes_from_the_store_the_second_time_and_silently(tmp_path, capfd):
    train, validation = stripes(32, 0), stripes(16, 1)
    ask = (Store(tmp_path), "slim_resnet10", train, validation, replace(QUICK, epochs=2))
    model, result = trained(*ask, seed=4)
    capfd.readouterr()
    again, found = trained(*ask, seed=4)
    assert capfd.readouterr() == ("", "")
    assert result.made == found.made and same(model, again) and not again.training
    assert result.values["validation"] == evaluate(again, validation)
    assert set(result.values["history"]) >= {"train_loss", "validation_accuracy", "seconds"}
    other, _ = trained(*ask, seed=5)
    assert not same(model, other)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_the_stage_gives_what_fit_gives(tmp_path):
    train = stripes(32, 0)
    config = {
        "architecture": "slim_resnet10",
        "classes": 3,
        "recipe": asdict(replace(QUICK, epochs=1)),
        "seed": 0,
    }
    tensors, values = fit_network(config, {"train": train}, tmp_path, progress=False)
    model = build("slim_resnet10", 3, seed=0)
    fit(model, train, replace(QUICK, epochs=1), seed=0, progress=False)
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    assert "validation" not in values


def test_progress_is_on_stdout_only_and_wiped(capfd):
    fit(small(), stripes(32, 0), QUICK, seed=0, progress=True)
    out, err = capfd.readouterr()
    assert err == ""
    assert "epoch 1/3" in out or "img" in out
    assert out.endswith("\r") and not out.split("\r")[-2].strip()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_the_same(tmp_path):
    recipe = replace(QUICK, epochs=12, augmentations=("shift", "brightness"))
    model = small()
    fit(model, stripes(96, 0), recipe, seed=0, device="cuda", progress=False)
    assert evaluate(model, stripes(48, 1), device="cuda")["accuracy"] > 0.9


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2)])
def test_a_last_layer_is_fitted_on_frozen_features_and_ignores_absent_classes(tmp_path, classes):
    train, fresh = stripes(60, 0), stripes(30, 1)
    train, fresh = (s[torch.isin(s.labels, torch.tensor(classes))] for s in (train, fresh))
    backbone = small()
    before = [p.clone() for p in backbone.parameters()]
    tensors, _ = training.fit_last_layer({}, {"train": train}, tmp_path, backbone=backbone)
    network = models.with_last_layer(backbone, **tensors)
    assert evaluate(network, fresh)["accuracy"] > 0.5
    assert set(predict(network, fresh).argmax(1).tolist()) <= set(classes)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_features_are_those_of_each_image_in_its_order(batch):
    images, backbone = stripes(20, 0), small().eval()
    with torch.no_grad():
        alone = torch.cat([models.embed(backbone, images[i].to_float()) for i in range(20)])
    seen = training.features(backbone, images, batch=batch)
    torch.testing.assert_close(seen, alone)
    assert not seen.is_inference()  # may be changed and learned from


def on_a_machine(monkeypatch, capabilities: dict | None, cuda: bool = False) -> None:
    """Let torch report these abilities of the processor; None: a torch that cannot tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "cuda", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, False, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, False, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False}, False, "float32"),
        ({"avx2": True}, False, "float32"),
        (None, False, "float32"),
        (None, True, "bfloat16"),
    ],
)
def test_quick_is_what_the_machine_computes_in(monkeypatch, capabilities, cuda, precision):
    on_a_machine(monkeypatch, capabilities, cuda)
    quick = replace(QUICK, precision="quick")
    assert training.settled(quick) == replace(QUICK, precision=precision)
    for other in ("float32", "bfloat16"):  # said outright, it is left
        assert training.settled(replace(QUICK, precision=other)).precision == other


def test_a_quick_training_is_kept_under_the_precision_it_had(tmp_path, monkeypatch):
    train, recipe = stripes(16, 0), replace(QUICK, epochs=1)

    def asked(precision: str):
        recipe_ = replace(recipe, precision=precision)
        ask = (Store(tmp_path), "slim_resnet10", train, None, recipe_)
        return trained(*ask, seed=0, progress=False)[1]

    keys = {}
    for precision, able in (("float32", False), ("bfloat16", True)):
        on_a_machine(monkeypatch, {"avx512_bf16": able})
        result = asked("quick")
        keys[precision] = result.key
        assert result.made["config"]["recipe"]["precision"] == precision
        assert asked(precision).made == result.made  # found, not trained again
    assert keys["float32"] != keys["bfloat16"]


def test_balanced_accuracy_counts_classes_alike():
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    answers = torch.tensor([0, 0, 0, 1, 2, 1, 1, 1, 1, 0])  # 3 of 6, 3 of 3, 0 of 1 right

    class Reads(nn.Module):
        def forward(self, images):  # the brightness is the answer
            return nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), 4).float()

    pictures = answers.to(torch.uint8)[:, None, None, None].expand(10, 3, 2, 2).contiguous()
    judged = evaluate(Reads(), ImageSet(pictures, labels, ("a", "b", "c", "absent")))
    assert judged["accuracy"] == pytest.approx(0.6)
    assert judged["balanced"] == pytest.approx((3 / 6 + 3 / 3 + 0 / 1) / 3)
    assert judged["majority"] == pytest.approx(0.6) and judged["absent"] == ["absent"]


# ---- what happens after every epoch


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def after_each_epoch(model: nn.Module, recipe: Recipe = QUICK) -> list[dict[str, torch.Tensor]]:
    """The weights of a plain training after every epoch."""
    states = []
    how = {"seed": 0, "progress": False}
    fit(model, stripes(40, 0), recipe, after_epoch=lambda _, m: states.append(state_of(m)), **how)
    return states


class Saves:
    """In place of `training._save`: keeps what is saved, and interrupts the saves of these numbers,
    which are counted from 1."""

    def __init__(self, *interrupted: int) -> None:
        self.save, self.interrupted, self.states = training._save, interrupted, []

    def __call__(self, file, identity, model, *rest) -> None:
        self.states.append(state_of(model))
        if len(self.states) in self.interrupted:
            raise KeyboardInterrupt
        self.save(file, identity, model, *rest)


def test_every_epoch_is_shown_before_it_is_saved(tmp_path, monkeypatch):
    file, model, plain, seen, states = tmp_path / "checkpoint.pt", small(), small(), [], []
    saves = Saves()
    monkeypatch.setattr(training, "_save", saves)

    def note(epoch: int, network: nn.Module) -> None:
        saved = len(torch.load(file)["history"]["train_loss"]) if file.exists() else 0
        seen.append((epoch, network is model, saved))
        states.append(state_of(network))

    how = {"seed": 0, "progress": False}
    fit(model, stripes(40, 0), QUICK, checkpoint=file, after_epoch=note, **how)
    assert seen == [(1, True, 0), (2, True, 1), (3, True, 2)]
    assert all(map(equal, states, saves.states)) and len(saves.states) == 3
    assert not equal(states[0], states[1])
    fit(plain, stripes(40, 0), QUICK, **how)
    assert same(model, plain)  # being looked at changes nothing
    fit(small(), stripes(40, 0), QUICK, checkpoint=file, after_epoch=note, **how)
    assert len(seen) == 3  # nothing was left to do


def test_a_repeated_epoch_is_shown_again(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_save", Saves(2))
    seen, how = [], {"seed": 0, "progress": False, "checkpoint": tmp_path / "checkpoint.pt"}
    how["after_epoch"] = lambda epoch, model: seen.append((epoch, state_of(model)))
    with pytest.raises(KeyboardInterrupt):
        fit(small(), stripes(40, 0), QUICK, **how)
    fit(small(seed=5), stripes(40, 0), QUICK, **how)
    assert [epoch for epoch, _ in seen] == [1, 2, 2, 3]
    assert equal(seen[1][1], seen[2][1])


def partly_fixed(seed: int = 0) -> nn.Module:
    model = small(seed)
    model[0].weight.requires_grad_(False)
    return model


EPOCHS_OF = {"network": "small", "recipe": asdict(QUICK), "seed": 0}


def test_weights_are_kept_after_every_epoch_but_for_fixed_ones(tmp_path):
    train, model = stripes(40, 0), partly_fixed()
    tensors, values = fit_epochs(EPOCHS_OF, {"train": train}, tmp_path, model=model)
    expected = after_each_epoch(partly_fixed())
    assert torch.equal(expected[-1]["0.weight"], small()[0].weight)  # fixed: nobody trained it
    kept = {
        f"{epoch}/{name}": value
        for epoch, state in enumerate(expected, 1)
        for name, value in state.items()
        if name != "0.weight"
    }
    assert "1/1.running_mean" in kept and equal(tensors, kept)
    assert equal(model.state_dict(), partly_fixed().state_dict())  # the caller's stays untrained
    plain = fit(partly_fixed(), train, QUICK, seed=0, progress=False)
    assert values["history"]["train_loss"] == plain.train_loss
    # no epoch is the one before
    assert not torch.equal(tensors["2/6.weight"], tensors["3/6.weight"])


@pytest.mark.parametrize("interrupted", [(1,), (2,), (2, 4)])
def test_an_interruption_changes_no_epoch(tmp_path, monkeypatch, interrupted):
    train = stripes(40, 0)

    def asked(folder: str, seed: int = 0):
        how = {"model": small(seed)}
        return Store(tmp_path / folder).get_or_compute(fit_epochs, EPOCHS_OF, {"train": train}, how)

    whole = asked("whole")
    saves = Saves(*interrupted)
    monkeypatch.setattr(training, "_save", saves)
    for _ in interrupted:
        with pytest.raises(KeyboardInterrupt):
            asked("cut")
    # where an epoch was saved, only that can make other weights right
    resumed = asked("cut", seed=5 if interrupted[0] > 1 else 0)
    assert equal(resumed.tensors, whole.tensors) and resumed.made["resumed"]
    assert resumed.values["history"]["train_loss"] == whole.values["history"]["train_loss"]
    assert len(saves.states) == QUICK.epochs + len(interrupted)  # those that were saved stay
    assert not list((tmp_path / "cut").rglob("*.pt"))


# ---- several trainings


@pytest.fixture
def alone(monkeypatch):
    """Trainings one after the other, each with one thread, as every process has."""
    monkeypatch.setattr(parallel, "cpu_count", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_all_networks_are_what_one_after_the_other_gives(tmp_path, monkeypatch, alone, capfd):
    short, long = replace(QUICK, epochs=1), replace(QUICK, epochs=2)
    jobs = [
        ("slim_vgg6", stripes(32, 0), short),
        ("slim_alexnet", stripes(32, 0), long),
        ("slim_vgg6", stripes(32, 1), long),
    ]
    given, store = [], Store(tmp_path / "all")

    def noted(model, train, recipe, **how):
        given.append((type(model.network).__name__, train.key, recipe.epochs))
        return fit(model, train, recipe, **how)

    monkeypatch.setattr(training, "fit", noted)
    known = trained(store, *jobs[2][:2], None, long, seed=4, progress=False)[1]
    given.clear()
    # asked for twice, in one go
    made = all_trained(store, [*jobs, jobs[1]], seed=4)
    longest_first = [("SlimAlexNet", jobs[1][1].key, 2), ("SlimVGG", jobs[0][1].key, 1)]
    assert given == longest_first  # each once, but for the one that was there
    assert made[2][1].made == known.made and made[3][1].made == made[1][1].made
    for (architecture, train, recipe), (model, result) in zip(jobs, made, strict=False):
        ask = (Store(tmp_path / "each"), architecture, train, None, recipe)
        expected, one = trained(*ask, seed=4, progress=False)
        assert same(model, expected) and not model.training
        assert equal(result.tensors, one.tensors) and result.key == one.key

    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    capfd.readouterr()
    again = all_trained(store, jobs, seed=4)
    assert capfd.readouterr() == ("", "")  # nothing to wait for
    assert all(same(a, b) for (a, _), (b, _) in zip(again, made, strict=False))
    assert [r.made for _, r in again] == [r.made for _, r in made[:3]]
    assert all_trained(store, []) == []


def test_a_trained_network_can_come_from_another_process(tmp_path, alone):
    common = (tmp_path, 0, torch.device("cpu"))
    job = (0, "slim_vgg6", stripes(32, 0), replace(QUICK, epochs=1))
    sent = pickle.loads(pickle.dumps((common, job)))
    model, result = training._trained_one(*sent)
    received, same_result = pickle.loads(pickle.dumps((model, result)))
    assert same(received, model) and same_result.made == result.made and not received.training
