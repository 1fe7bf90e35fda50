"""Crisp masks: equation 2 and its descent against literal versions, and each image for itself."""

import gc
import math
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import config
from scipy.ndimage import gaussian_filter1d
from torch import nn

from helpers.crisp_masks import (
    SCHEDULES,
    Masks,
    Phase,
    Schedule,
    area_matched,
    binary_share,
    blurred,
    crisp_masks,
    drop,
    fitting,
    iebb_masks,
    penalties,
    perturbed,
    probability,
    refining,
    select,
    starting_disc,
)
from helpers.models import Normalised, build

SHORT = Schedule(smooth=Phase(12, 0.01, 1e-4, 0.0), crisp=Phase(8, 0.01, 1.0, 2.0))


def pictures(n: int = 3, h: int = 24, w: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed: int = 0, classes: int = 2) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(8, classes),
        )
    return nn.Sequential(OrderedDict(normalise=Normalised(), network=network))


def stripes(n: int, seed: int, kinds: int = 2, size: int = 32, patch: int = 12):
    """A patch of lines on noise: across in class 0, down in class 1, and noise alone in class 2."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(n, 3, size, size, generator=draw)
    labels, where = torch.arange(n) % kinds, torch.zeros(n, size, size, dtype=torch.bool)
    lines = (torch.arange(patch) // 2 % 2).float().expand(patch, patch)
    for i, label in enumerate(labels.tolist()):
        if label == 2:
            continue
        y, x = torch.randint(0, size - patch + 1, (2,), generator=draw).tolist()
        images[i, :, y : y + patch, x : x + patch] = lines if label else lines.T
        where[i, y : y + patch, x : x + patch] = True
    return images, labels, where


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    """A network that knows the lines' direction."""
    model = tiny(seed=1, classes=3)
    images, labels, _ = stripes(256, seed=1, kinds=3)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(80):
        rows = torch.arange(32) + 32 * (step % 8)
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    fresh, truth, _ = stripes(64, seed=2, kinds=3)
    with torch.no_grad():
        assert (model.eval()(fresh).argmax(1) == truth).float().mean() > 0.95
    return model


# ---------------------------------------- literal versions


def slow_blur(images: torch.Tensor, sigma: float, kernel: int | None = None) -> torch.Tensor:
    radius = math.ceil(4 * sigma) if kernel is None else kernel // 2
    out = images.double().numpy()
    for axis in (2, 3):
        out = gaussian_filter1d(out, sigma, axis=axis, mode="mirror", radius=radius)
    return torch.from_numpy(out)


def slow_penalties(mask: torch.Tensor, beta: float) -> tuple[float, float, float]:
    h, w = mask.shape
    l1 = l2 = l3 = 0.0
    for y in range(h):
        for x in range(w):
            m = mask[y, x].item()
            l1 += abs(1 - m)
            l3 += abs(1 - m) * m
            if y + 1 < h:
                l2 += abs(mask[y + 1, x].item() - m) ** beta
            if x + 1 < w:
                l2 += abs(mask[y, x + 1].item() - m) ** beta
    return l1 / (h * w), l2 / (h * w), l3 / (h * w)


def slow_enlarged(coarse: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Bilinear, then a blur written as a loop over the kernel, so that it has a gradient."""
    fine = nn.functional.interpolate(coarse[None, None], size, mode="bilinear")
    radius = math.ceil(4 * sigma)
    weights = [math.exp(-0.5 * (o / sigma) ** 2) for o in range(-radius, radius + 1)]
    for axis in (2, 3):
        length, total = fine.shape[axis], 0
        for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
            index = [abs((i + offset) % (2 * length - 2)) for i in range(length)]
            index = [i if i < length else 2 * length - 2 - i for i in index]
            total = total + weight / sum(weights) * fine.index_select(axis, torch.tensor(index))
        fine = total
    return fine[0, 0]


def slow_descent(loss_of, start: torch.Tensor, steps: int, lr: float):
    """Adam as Kingma & Ba 2015 write it, with a clamp."""
    mask, first, second, losses = start.clone(), 0.0, 0.0, []
    for step in range(1, steps + 1):
        mask.requires_grad_()
        loss = loss_of(mask)
        (slope,) = torch.autograd.grad(loss, mask)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
        mask = (mask.detach() - lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).clamp(0, 1)
        losses.append(loss.item())
    return mask, losses


def slow_masks(model, image, target, how: Schedule, cells: tuple[int, int], sums: bool = False):
    """Both phases for one image; `how` in pixels of this image, without shifts."""
    h, w = image.shape[1:]
    blurry = slow_blur(image[None], how.image_sigma, how.kernel)[0]

    def loss(mask, fine, phase):
        p = model(fine * image[None] + (1 - fine) * blurry[None]).softmax(1)[0, target]
        down, across = mask[1:] - mask[:-1], mask[:, 1:] - mask[:, :-1]
        variation = (down.abs() ** how.beta).sum() + (across.abs() ** how.beta).sum()
        pixels = 1 if sums else mask.numel()
        return (
            p
            + phase.l1 * (1 - mask).sum() / pixels
            + phase.l2 * variation / pixels
            + phase.l3 * ((1 - mask) * mask).sum() / pixels
        )

    def enlarged(mask):
        return slow_enlarged(mask, (h, w), how.mask_sigma)

    start = starting_disc(cells, how.disc).to(image)
    coarse, early = slow_descent(
        lambda m: loss(m, enlarged(m), how.smooth), start, how.smooth.iterations, how.lr
    )
    smooth = enlarged(coarse)
    crisp, late = slow_descent(
        lambda m: loss(m, m, how.crisp), smooth, how.crisp.iterations, how.lr
    )
    return smooth, crisp, early + late


# ---------------------------------------- the parts of equation 2


@pytest.mark.parametrize("sigma, kernel", [(0.5, None), (3.0, None), (10.0, None), (10.0, 11)])
@pytest.mark.parametrize("h, w", [(24, 24), (7, 33), (5, 2)])
def test_blur_against_scipy(h, w, sigma, kernel):
    images = pictures(2, h, w)
    expected = slow_blur(images, sigma, kernel)
    assert torch.allclose(blurred(images, sigma, kernel).double(), expected, atol=1e-6)


def test_blur_against_opencv():
    image = pictures(1, 40, 50)
    expected = cv2.GaussianBlur(image[0].permute(1, 2, 0).numpy(), (11, 11), 10)
    ours = blurred(image, 10.0, 11)[0].permute(1, 2, 0).numpy()
    assert np.allclose(ours, expected, atol=1e-5)


def test_blur_by_hand():
    line = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 3, 1, 4)
    side = math.exp(-0.5)
    expected = torch.tensor([1.0, side, 0.0, 0.0]) / (1 + 2 * side)
    assert torch.allclose(blurred(line, 1.0, 3)[0, 0, 0], expected)
    assert torch.allclose(blurred(line, 1.0, 1), line)  # a kernel of one pixel
    assert torch.allclose(blurred(torch.full((1, 3, 9, 1), 0.3), 50.0), torch.tensor(0.3))


@given(arrays(np.float64, (1, 5, 6), elements=st.floats(0, 1)), st.sampled_from([1.0, 2.0, 3.0]))
def test_penalties_against_a_loop(mask, beta):
    mask = torch.from_numpy(mask)
    ours = [term.item() for term in penalties(mask, beta)]
    assert ours == pytest.approx(slow_penalties(mask[0], beta))


def test_penalties_by_hand():
    l1, l2, l3 = penalties(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), 3.0)
    assert l1.item() == 0.5 and l3.item() == 0.125
    assert l2.item() == pytest.approx((0.125 + 0.125 + 1) / 4)
    assert [t.item() for t in penalties(torch.ones(1, 1, 1), 3.0)] == [0, 0, 0]


def test_perturbed_is_exact_at_both_ends():
    images = pictures(1, 8, 8)
    blurry = blurred(images, 2.0)
    assert torch.equal(perturbed(images, blurry, torch.ones(1, 8, 8)), images)
    assert torch.equal(perturbed(images, blurry, torch.zeros(1, 8, 8)), blurry)
    half = perturbed(images, blurry, torch.full((1, 8, 8), 0.25))
    assert torch.allclose(half, 0.25 * images + 0.75 * blurry)


def test_the_disc_touches_the_borders():
    disc = starting_disc((4, 4), 0.5)
    assert disc.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    wide = starting_disc((28, 40), 0.5)
    assert torch.equal(wide, wide.flip(0)) and torch.equal(wide, wide.flip(1))
    assert wide[:, 20].max() == 0 and wide[:, :6].min() == 1
    assert starting_disc((4, 4), 0.0).min() == 1


def test_lengths_follow_the_image():
    paper, code = SCHEDULES["paper"], SCHEDULES["code"]
    full = paper.for_side(224)
    assert full.coarse == 8 and full.image_sigma == 10 and full.mask_sigma == 5
    small = code.for_side(112)
    assert (small.coarse, small.image_sigma, small.kernel) == (4, 5, 5)
    assert code.for_side(224).kernel == 11 and code.for_side(16).kernel == 1
    assert small.for_side(224) == small  # not scaled twice
    fixed = replace(paper, scaled=False)
    assert fixed.for_side(64) is fixed


def test_schedules_are_the_published_ones():
    paper, code, iebb = (SCHEDULES[name] for name in ("paper", "code", "iebb"))
    assert paper.smooth == Phase(300, 0.01, 1e-4, 0) and paper.crisp == Phase(150, 0.01, 1, 2)
    assert code.smooth == Phase(300, 0.5, 1e-2, 0) and code.crisp == paper.crisp
    assert (paper.lr, paper.beta, paper.kernel, code.kernel) == (0.1, 3, None, 11)
    assert SCHEDULES["code_weights"] == replace(code, kernel=None)
    assert iebb.smooth.l1 == pytest.approx(1e-4 * 28**2) and iebb.jitter == 4


# ---------------------------------------- the descent


@pytest.mark.parametrize("h, w, cells", [(24, 24, (4, 4)), (19, 30, (3, 5))])
def test_against_the_literal_descent(h, w, cells):
    model, images = tiny().double().eval(), pictures(2, h, w).double()
    targets = torch.tensor([1, 0])
    how = replace(SHORT, scaled=False, coarse=6.0, mask_sigma=1.5, image_sigma=3.0)
    masks = crisp_masks(model, images, targets, how)
    for i in range(2):
        smooth, crisp, losses = slow_masks(model, images[i], targets[i], how, cells)
        assert torch.allclose(
            masks.losses[:, i], torch.tensor(losses, dtype=torch.float64), atol=1e-9
        )
        assert torch.allclose(masks.smooth[i], smooth, atol=1e-6)
        assert torch.allclose(masks.crisp[i], crisp, atol=1e-6)
    assert masks.smooth.std() > 0.05  # it did move


def test_iebb_is_its_sums_at_224():
    model, images = tiny().double().eval(), pictures(1, 224, 224).double()
    steps = replace(SCHEDULES["iebb"].smooth, iterations=3)
    schedule = replace(SCHEDULES["iebb"], smooth=steps, jitter=0.0)
    ours = iebb_masks(model, images, torch.tensor([1]), schedule)
    sums = replace(schedule, smooth=Phase(3, 1e-4, 1e-2, 0.0), scaled=False)
    expected, _, _ = slow_masks(model, images[0], 1, sums, (28, 28), sums=True)
    assert torch.allclose(ours[0], expected, atol=1e-6)


def test_shifts_move_the_image_under_the_mask():
    """With one step, the loss is that of the shifted image with the starting mask."""
    model, images = tiny().double().eval(), pictures(2, 24, 24).double()
    targets = torch.tensor([1, 0])
    how = Schedule(
        smooth=Phase(0, 0, 0, 0),
        crisp=Phase(1, 0, 0, 0),
        scaled=False,
        coarse=6.0,
        mask_sigma=1.0,
        image_sigma=3.0,
        jitter=4.0,
    )
    start = slow_enlarged(starting_disc((4, 4), 0.5).double(), (24, 24), 1.0)
    blurry = blurred(images, 3.0)
    seen = set()
    for seed in range(12):
        loss = crisp_masks(model, images, targets, how, seed=seed).losses[0]
        found = []
        for y in range(-2, 3):
            for x in range(-2, 3):
                rows, columns = ((torch.arange(24) - s).clamp(0, 23) for s in (y, x))
                shifted = [k[:, :, rows][:, :, :, columns] for k in (images, blurry)]
                mixed = start * shifted[0] + (1 - start) * shifted[1]
                expected = model(mixed).softmax(1).gather(1, targets[:, None])[:, 0]
                if torch.allclose(loss, expected.detach(), atol=1e-12):
                    found.append((y, x))
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 5


@pytest.mark.parametrize("jitter", [0.0, 20.0])
def test_an_image_does_not_know_its_batch(jitter):
    model, images = tiny().double(), pictures(5).double()
    targets = torch.tensor([0, 1, 1, 0, 1])
    how = replace(SHORT, jitter=jitter)
    together = crisp_masks(model, images, targets, how)
    pairs = crisp_masks(model, images, targets, how, batch_size=2)
    order = torch.tensor([3, 0])
    picked = crisp_masks(model, images[order], targets[order], how)
    for one, other, rows in ((together, pairs, slice(None)), (together, picked, order)):
        assert torch.allclose(one.crisp[rows], other.crisp, atol=1e-6)
        assert torch.allclose(one.smooth[rows], other.smooth, atol=1e-6)
        assert torch.allclose(one.losses[:, rows], other.losses, atol=1e-6)
        assert torch.allclose(one.after_crisp[rows], other.after_crisp, atol=1e-6)


def test_masks_find_what_the_network_saw(trained):
    """The paper's iterations in single precision, batched and one by one."""
    images, labels, where = stripes(5, seed=3)
    how = Schedule(image_sigma=30.0)  # 4 px here: the lines are gone
    masks = crisp_masks(trained, images, labels, how, batch_size=3)
    assert (masks.before > 0.8).all()
    assert torch.equal(masks.before, probability(trained, images, labels))
    for fitted, after in ((masks.smooth, masks.after_smooth), (masks.crisp, masks.after_crisp)):
        assert fitted.min() >= 0 and fitted.max() <= 1
        fell = drop(trained, images, labels, fitted, how)
        assert torch.allclose(fell, 100 * (1 - after / masks.before), atol=1e-2)
        assert fell.mean() > 65
    assert binary_share(masks.crisp).mean() > 0.95
    assert (binary_share(masks.crisp) > binary_share(masks.smooth)).all()
    removed = masks.crisp < 0.5
    assert (removed & where).sum() / removed.sum() > 3 * where.float().mean()
    smooth, crisp = masks.losses.split([300, 150])
    assert (smooth[-1] < smooth[0]).all() and (crisp[-1] < crisp[0]).all()

    alone = crisp_masks(trained, images[4:], labels[4:], how)
    assert torch.allclose(alone.losses[-1], masks.losses[-1, 4:], rtol=0.01)
    one, other = alone.crisp[0] < 0.5, removed[4]
    assert (one & other).sum() / (one | other).sum() >= 0.98


def test_bfloat16_is_for_the_network_alone(trained):
    images, labels, _ = stripes(4, seed=4)
    seen = []
    hook = trained.network[0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    half = crisp_masks(trained, images, labels, precision="bfloat16")
    hook.remove()
    assert seen.count(torch.bfloat16) == 450 and torch.float32 in seen
    assert half.crisp.dtype == half.losses.dtype == half.after_crisp.dtype == torch.float32
    full = crisp_masks(trained, images, labels)
    assert torch.equal(half.before, full.before)
    assert half.losses[-1].mean() == pytest.approx(full.losses[-1].mean().item(), rel=0.1)


def test_the_model_comes_back_as_it_was():
    model = tiny().train()
    model.network[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():  # whatever the caller does about gradients
        masks = crisp_masks(model, pictures(), torch.tensor([0, 1, 0]), SHORT)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training and model.network[0].training and not model.network[1].training
    assert not masks.smooth.requires_grad and not masks.crisp.requires_grad


@pytest.mark.parametrize("jitter", [0.0, 30.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fitting_passes_the_masks_and_ends_at_them(jitter, precision):
    model, images, targets = tiny(), pictures(3, 24, 20), torch.tensor([0, 1, 1])
    how = replace(SHORT, jitter=jitter)
    whole = crisp_masks(model, images, targets, how, precision=precision, seed=3)
    steps = [
        (mask.clone(), loss)
        for mask, loss in fitting(model, images, targets, how, precision=precision, seed=3)
    ]
    masks, losses = (torch.stack(part) for part in zip(*steps, strict=True))
    assert masks.shape == (20, 3, 24, 20) and 0 <= masks.min() <= masks.max() <= 1
    assert torch.equal(masks[11], whole.smooth) and torch.equal(masks[19], whole.crisp)
    assert torch.equal(losses, whole.losses)
    assert all(not torch.equal(a, b) for a, b in pairwise(masks))


@pytest.mark.parametrize("phase", ["smooth", "crisp"])
def test_a_phase_without_steps_leaves_the_masks_as_they_are(phase):
    model, images, targets = tiny(), pictures(2), torch.tensor([0, 1])
    how = replace(SHORT, **{phase: replace(getattr(SHORT, phase), iterations=0)})
    whole = crisp_masks(model, images, targets, how)
    *_, (last, _) = fitting(model, images, targets, how)
    assert torch.equal(last, whole.crisp)
    if phase == "crisp":
        assert torch.equal(whole.smooth, whole.crisp)
    else:  # the disc, enlarged: the same for each image
        assert torch.equal(whole.smooth[0], whole.smooth[1])
        assert whole.smooth[0, 12, 12] < 0.1 and whole.smooth[0, 0, 0] > 0.9


def test_fitting_leaves_the_model_alone_between_steps():
    model = tiny().train()
    steps = fitting(model, pictures(1), torch.tensor([1]), SHORT)
    for _ in range(13):  # into the second phase
        next(steps)
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
    steps.close()
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="precision"):
        next(fitting(model, pictures(1), torch.tensor([1]), SHORT, precision="8"))
    with pytest.raises(ValueError, match="outputs 0 to 1"):
        next(fitting(model, pictures(1), torch.tensor([2]), SHORT))


@pytest.mark.parametrize("jitter", [0.0, 30.0])
def test_refining_ends_where_the_masks_do(jitter):
    model, images, targets = tiny(), pictures(3), torch.tensor([0, 1, 1])
    how = replace(SHORT, jitter=jitter)
    whole = crisp_masks(model, images, targets, how, seed=3)
    steps = [
        (mask.clone(), loss)
        for mask, loss in refining(model, images, targets, whole.smooth, how, seed=3)
    ]
    assert len(steps) == 8 and torch.equal(steps[-1][0], whole.crisp)
    assert torch.equal(torch.stack([loss for _, loss in steps]), whole.losses[12:])
    fewer = replace(how, crisp=replace(how.crisp, iterations=5))
    *_, (mask, _) = refining(model, images, targets, whole.smooth, fewer, seed=3)
    assert jitter or torch.equal(mask, steps[4][0])


def test_refining_leaves_the_model_alone_between_steps():
    model = tiny().train()
    steps = refining(model, pictures(1), torch.tensor([1]), torch.full((1, 24, 24), 0.5), SHORT)
    next(steps)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    with torch.no_grad():  # whatever is on outside
        next(steps)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    steps.close()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("shape", [(1, 24, 23), (2, 24, 24)])
def test_refining_needs_a_mask_for_each_image(monkeypatch, shape):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match="masks"):
        next(refining(tiny(), pictures(1), torch.tensor([1]), torch.ones(shape), SHORT))
    with pytest.raises(ValueError, match="precision"):
        next(refining(tiny(), pictures(1), torch.tensor([1]), torch.ones(1, 24, 24), precision="8"))


def test_memory_does_not_grow():
    """Tensors alive after each step; every step leaves as many."""
    model, images, targets = tiny(), pictures(), torch.tensor([0, 1, 0])
    alive = {}
    steps = iter(range(20))

    def count(n: int) -> None:
        if (step := next(steps)) in (2, 11, 14, 19):
            gc.collect()
            alive[step] = sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    crisp_masks(model, images, targets, SHORT, progress=count)
    assert alive[11] <= alive[2] and alive[19] <= alive[14]


class Blind(nn.Module):
    """Gives the same answer to any image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits.expand(len(images), -1) + 0 * images.mean()


def test_a_mask_that_removes_nothing():
    masks = crisp_masks(Blind([1.0, 0.0]), pictures(2), torch.tensor([0, 1]), SHORT)
    assert masks.smooth.min() > 1 - 1e-6 and (masks.crisp == 1).all()
    assert torch.equal(masks.before, masks.after_crisp)


def test_progress_tells_every_step():
    told = []
    crisp_masks(
        tiny(), pictures(5), torch.zeros(5, dtype=torch.int64), SHORT, batch_size=2,
        progress=told.append,
    )  # fmt: skip
    assert sum(told) == 5 * 20 and told[0] == 2 and told[-1] == 1


def test_no_images():
    none, targets = pictures(0), torch.zeros(0, dtype=torch.int64)
    masks = crisp_masks(tiny(), none, targets, SHORT)
    assert isinstance(masks, Masks)
    assert masks.smooth.shape == masks.crisp.shape == (0, 24, 24)
    assert masks.losses.shape == (20, 0) and masks.before.shape == (0,)
    assert iebb_masks(tiny(), none, targets).shape == (0, 24, 24)
    assert drop(tiny(), none, targets, masks.crisp).shape == (0,)
    assert area_matched(masks.smooth, masks.crisp).shape == (0, 24, 24)
    assert select(tiny(), none, targets).shape == (0,)


def test_no_steps_give_the_start():
    none = Schedule(smooth=Phase(0, 0, 0, 0), crisp=Phase(0, 0, 0, 0))
    masks = crisp_masks(tiny(), pictures(1), torch.tensor([0]), none)
    assert torch.equal(masks.smooth, masks.crisp) and masks.losses.shape == (0, 1)
    assert masks.smooth[0, 12, 12] < 0.01 and masks.smooth[0, 0, 0] > 0.9


def test_a_slim_network_of_the_course():
    model = build("slim_vgg6", 18, seed=0)
    masks = crisp_masks(model, pictures(2, 64, 64), torch.tensor([3, 17]), SHORT)
    assert masks.crisp.shape == (2, 64, 64) and masks.losses.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device(trained):
    images, labels, _ = stripes(4, seed=3)
    here = crisp_masks(trained, images, labels, SHORT)
    there = crisp_masks(trained.cuda(), images.cuda(), labels, SHORT)
    trained.cpu()
    assert there.crisp.is_cuda
    assert torch.allclose(there.losses.cpu(), here.losses, rtol=0.05, atol=1e-3)


# ---------------------------------------- what masks are judged by


def test_drop_is_the_formula():
    model, images = tiny(), pictures(3)
    targets = torch.tensor([0, 1, 0])
    masks = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    before, after = [], []
    model.eval()
    for i in range(3):
        blurry = slow_blur(images[i : i + 1], 10 * 24 / 224).float()
        mixed = masks[i] * images[i : i + 1] + (1 - masks[i]) * blurry
        with torch.no_grad():
            before.append(model(images[i : i + 1]).softmax(1)[0, targets[i]].item())
            after.append(model(mixed).softmax(1)[0, targets[i]].item())
    expected = [100 * (p - q) / p for p, q in zip(before, after, strict=True)]
    ours = drop(model.train(), images, targets, masks, batch_size=2)
    assert ours.tolist() == pytest.approx(expected, abs=1e-3)
    assert drop(model, images, targets, torch.ones(3, 24, 24)).tolist() == [0, 0, 0]
    assert model.training


@given(arrays(np.float32, (2, 4, 5), elements=st.sampled_from([0, 0.2, 0.5, 0.7, 1])), st.data())
def test_area_matched_keeps_the_area(smooth, data):
    crisp = data.draw(arrays(np.float32, (2, 4, 5), elements=st.sampled_from([0, 0.4, 0.5, 1])))
    smooth, crisp = torch.from_numpy(smooth), torch.from_numpy(crisp)
    binary = area_matched(smooth, crisp)
    assert ((binary == 0) | (binary == 1)).all()
    assert torch.equal((binary == 0).sum((1, 2)), (crisp < 0.5).sum((1, 2)))
    for mask, values in zip(binary, smooth, strict=True):
        if 0 < mask.sum() < mask.numel():
            assert values[mask == 0].max() <= values[mask == 1].min()
            tied = mask[values == values[mask == 0].max()]
            assert torch.equal(tied, tied.sort().values)  # the first in reading order go


def test_binary_share_by_hand():
    masks = torch.tensor([[[0.0, 0.04, 0.5, 0.97]], [[0.2, 0.3, 0.4, 1.0]]])
    assert binary_share(masks).tolist() == [0.75, 0.25]
    assert binary_share(masks, 0.35).tolist() == [0.75, 0.75]


def test_select_takes_the_first_right_ones():
    model = Blind([0.0, 1.0, 0.0])  # always class 1
    labels = torch.tensor([0, 1, 1, 2, 1, 1])
    assert select(model, pictures(6), labels, per_class=3, batch_size=4).tolist() == [1, 2, 4]
    images, labels, _ = stripes(20, seed=5)
    model = tiny(seed=3).eval()
    with torch.no_grad():
        answers = model(images).argmax(1)
    right = [i for i in range(20) if answers[i] == labels[i]]
    assert 0 < len(right) < 20
    assert select(model, images, labels).tolist() == right


# ---------------------------------------- bad input


def test_bad_input(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    model, images, targets = tiny(), pictures(2), torch.tensor([0, 1])
    for function in (crisp_masks, iebb_masks, probability, select):
        with pytest.raises(ValueError, match="1 targets for 2 images"):
            function(model, images, targets[:1])
        with pytest.raises(ValueError, match="outputs 0 to 1"):
            function(model, images, targets + 1)
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            function(model, images * 255, targets)
        with pytest.raises(ValueError, match="NaN"):
            function(model, images * torch.nan, targets)
        with pytest.raises(ValueError, match="at least 1 image"):
            function(model, images, targets, batch_size=0)
    with pytest.raises(ValueError, match="precision"):
        crisp_masks(model, images, targets, precision="float16")
    with pytest.raises(ValueError, match="no crisp phase"):
        iebb_masks(model, images, targets, SCHEDULES["paper"])
    with pytest.raises(ValueError, match="at least 1 image"):
        select(model, images, targets, per_class=0)
    with pytest.raises(ValueError, match="do not match"):
        area_matched(torch.ones(1, 2, 2), torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="probability 0"):
        drop(Blind([0.0, -1e4]), images, targets, torch.ones(2, 24, 24))
    with pytest.raises(ValueError, match="odd"):
        blurred(images, 3.0, 4)
    with pytest.raises(ValueError, match="sigma 0"):
        blurred(images, 0.0)


def test_bad_schedules():
    for wrong in ({"lr": 0.0}, {"beta": 0.5}, {"image_sigma": math.nan}, {"disc": -1.0}):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            Schedule(**wrong)
    with pytest.raises(ValueError, match="odd"):
        Schedule(kernel=10)
    with pytest.raises(ValueError, match="l2"):
        Phase(1, 0.0, -1.0, 0.0)
    with pytest.raises(ValueError, match="iterations"):
        Phase(-1, 0.0, 0.0, 0.0)


def test_a_network_that_breaks():
    model = tiny()
    images, targets = pictures(3), torch.tensor([0, 1, 0])
    with torch.no_grad():
        model.network[-1].bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"images \[0, 1\]"):
        crisp_masks(model, images, targets, SHORT, batch_size=2)
