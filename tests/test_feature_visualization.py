"""Feature visualisation: the climb is the formula's, and the scores measure what they say."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import nn

from helpers import feature_visualization as fv
from helpers.feature_visualization import Ascent, ascend, climbing, objective, origin, spectrum
from helpers.imageset import ImageSet
from helpers.models import Normalised, build, embed

GREY = Normalised((0.5,) * 3, (0.5,) * 3)
SLOW = Ascent(steps=3, rate=0.01)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 3, size: int = 16, seed: int = 0) -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(n, 3, size, size, generator=drawn(seed))


def whole(network: nn.Module, normalise: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(OrderedDict(normalise=normalise or Normalised(), network=network))


def smooth(seed: int = 0) -> nn.Sequential:
    """A differentiable network with batch norm, whose statistics are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(4),
        )
        network(torch.randn(8, 3, 6, 6))
    return whole(network).eval()


def linear(weight: torch.Tensor, bias: torch.Tensor, normalise: nn.Module = GREY) -> nn.Sequential:
    """Scores that are weighted sums of the normalised values: everything is known by hand."""
    layer = nn.Linear(weight[0].numel(), len(weight))
    layer.load_state_dict({"weight": weight.flatten(1), "bias": bias})
    return whole(nn.Sequential(nn.Flatten(), layer), normalise)


# ---------------------------------------- the climb


def test_the_objective_is_the_formula_worked_out_by_hand():
    picture = torch.full((1, 3, 2, 2), 0.5)  # normalised to 0, but for the first row:
    picture[0, :, 0] = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.5, 0.75]])  # 1 0, -1 0, 0 0.5
    weight = torch.zeros(2, 3, 2, 2)
    weight[1, :, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight[1, :, 1] = 9
    model = linear(weight, torch.tensor([-1.0, 0.5]))
    pictures, targets = torch.cat([picture, torch.full_like(picture, 0.5)]), torch.tensor([1, 0])
    # score 1 - 3 + 3 + 0.5, squares 1 + 1 + 0.25, differences 2.5 across and 2.5 down
    for how, expected in (
        (Ascent(l2=0), 1.5),
        (Ascent(l2=0.1), 1.5 - 0.225),
        (Ascent(l2=0, smoothness=0.2), 1.5 - 1.0),
        (Ascent(l2=0.1, smoothness=0.2), 0.275),
    ):
        assert objective(model, pictures, targets, how).tolist() == pytest.approx([expected, -1])


def literal_climb(model, targets, start, how, seed):
    """Image by image, step by step, in float64 numbers outside the network."""
    results = []
    for image, target in zip(start.double().numpy(), targets.tolist(), strict=True):
        generator = drawn(seed)
        mean, std = model.normalise.mean.numpy(), model.normalise.std.numpy()
        for _ in range(how.steps):
            seen, down, right = image, 0, 0
            if how.noise:
                seen = seen + how.noise * torch.randn(image.shape, generator=generator).numpy()
            if how.jitter:
                down, right = torch.randint(-how.jitter, how.jitter + 1, (2,), generator=generator)
            seen = np.roll(seen, (int(down), int(right)), axis=(1, 2))
            z = torch.tensor((seen - mean) / std, dtype=torch.float32, requires_grad=True)
            value = model.network(z[None])[0, target] - how.l2 * (z**2).sum()
            value = value - how.smoothness * (
                (z[:, 1:] - z[:, :-1]).abs().sum() + (z[:, :, 1:] - z[:, :, :-1]).abs().sum()
            )
            value.backward()
            slope = np.roll(z.grad.double().numpy() / std, (-int(down), -int(right)), axis=(1, 2))
            image = image + how.rate * math.sqrt(image.size) * slope / np.sqrt((slope**2).sum())
            if how.norm is not None:
                z = (image - mean) / std
                length = np.sqrt((z**2).sum())
                if length > how.norm:
                    image = z * how.norm / length * std + mean
            image = np.clip(image, 0, 1)
        results.append(image)
    return torch.tensor(np.array(results), dtype=torch.float32)


@pytest.mark.parametrize(
    "how",
    [
        Ascent(steps=6, rate=0.03, l2=0.0),
        Ascent(steps=6, rate=0.03, l2=0.05),
        Ascent(steps=6, rate=0.03, norm=8.0),
        Ascent(steps=6, rate=0.03, jitter=2),
        Ascent(steps=6, rate=0.03, noise=0.05),
        Ascent(steps=6, rate=0.03, smoothness=0.01),
        Ascent(steps=6, rate=0.2, l2=0.02, norm=9.0, jitter=3, noise=0.1, smoothness=0.005),
    ],
)
def test_the_climb_equals_a_literal_one_image_by_image(how):
    model, start, targets = smooth(), images(3, 6), torch.tensor([2, 0, 3])
    expected = literal_climb(model, targets, start, how, seed=5)
    assert torch.allclose(ascend(model, targets, start, how, seed=5), expected, atol=1e-4)
    plain = literal_climb(model, targets, start, Ascent(steps=6, rate=how.rate, l2=0), seed=5)
    assert how.l2 == 0 or not torch.allclose(expected, plain, atol=1e-3)  # each option matters


def test_a_step_has_the_stated_length_and_the_direction_of_the_gradient():
    weight = torch.randn(2, 3, 4, 4, generator=drawn(0))
    start = torch.full((1, 3, 4, 4), 0.5)
    for scale in (1.0, 1e6):  # a network with large scores climbs no faster
        model = linear(weight * scale, torch.zeros(2))
        moved = ascend(model, torch.tensor([1]), start, Ascent(steps=4, rate=0.02, l2=0)) - start
        assert moved.square().mean().sqrt().item() == pytest.approx(4 * 0.02, rel=1e-4)
        assert torch.cosine_similarity(moved.flatten(), weight[1].flatten(), 0) > 0.9999
    assert (start == 0.5).all()


def test_the_summit_of_a_linear_score_is_known():
    weight = torch.rand(1, 3, 4, 4, generator=drawn(1)) - 0.5
    model, target = linear(weight, torch.zeros(1)), torch.tensor([0])
    start = images(1, 4)
    corner = ascend(model, target, start, Ascent(steps=2_000, rate=0.05, l2=0))
    assert torch.equal(corner, (weight > 0).float())
    # w z - l2 z^2 is highest at z = w / (2 l2), here within [-0.5, 0.5]; the steps end nearby
    summit = ascend(model, target, start, Ascent(steps=400, rate=0.002, l2=0.5))
    assert (summit - (weight * 0.5 + 0.5)).square().mean().sqrt() < 0.004


def test_jitter_and_noise_depend_on_the_seed_only():
    model, start, targets = smooth(), images(2, 6), torch.tensor([0, 1])
    how, before = Ascent(steps=3, jitter=2, noise=0.1), torch.get_rng_state()
    first, again, other = (ascend(model, targets, start, how, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("how", [SLOW, replace(SLOW, jitter=3, noise=0.05, norm=30.0)])
def test_nothing_depends_on_which_images_share_a_batch(how):
    model = build("slim_resnet10", 3, seed=0).eval()
    start, targets = images(4), torch.tensor([0, 2, 1, 0])
    together = ascend(model, targets, start, how)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(
        ascend(model, targets[order], start[order], how), together[order], 0, 1e-5
    )
    for i in range(4):
        alone = ascend(model, targets[i : i + 1], start[i : i + 1], how)
        assert torch.allclose(alone, together[i : i + 1], rtol=0, atol=1e-5)


def test_an_empty_batch_stays_empty():
    model = build("slim_resnet10", 3, seed=0)
    none = torch.zeros(0, dtype=torch.long)
    assert ascend(model, none, images(0), replace(SLOW, norm=1.0, jitter=1)).shape == (0, 3, 16, 16)


class Moody(nn.Module):
    """Fails at the third time of asking."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        if self.asked == 3:
            raise RuntimeError("no more")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_as_it_was(fails):
    model = build("slim_resnet10", 3, seed=0).train()
    model.network.layer1.eval()  # modes and flags are mixed, as in fine-tuning
    model.network.conv1.weight.requires_grad_(False)
    if fails:
        model.network.add_module("moody", Moody())
    model.network.fc.weight.grad = torch.ones_like(model.network.fc.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(RuntimeError, match="no more"):
            ascend(model, torch.tensor([0, 1, 2]), images(), SLOW)
    else:
        ascend(model, torch.tensor([0, 1, 2]), images(), SLOW)
        fv.judged(model, images(), torch.tensor([0, 1, 2]))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    held = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert held == {"network.conv1.weight"}
    assert (model.network.fc.weight.grad == 1).all()
    assert model.network.bn1.weight.grad is None


def test_climbing_step_by_step_passes_every_shorter_climb():
    model, start, targets = smooth(), images(3, 6), torch.tensor([2, 0, 3])
    how = Ascent(steps=4, rate=0.03, l2=0.02, jitter=2, noise=0.1)
    seen = [step.clone() for step in climbing(model, targets, start, how, seed=5)]
    assert len(seen) == 4
    for steps, step in enumerate(seen, 1):
        assert torch.equal(step, ascend(model, targets, start, replace(how, steps=steps), seed=5))


def test_between_two_steps_the_model_is_as_it_was_and_what_was_shown_stays():
    model = smooth().train()
    model.network[0].weight.requires_grad_(False)
    climb = climbing(model, torch.tensor([1]), images(1, 6), SLOW)
    first = next(climb)
    kept = first.clone()
    assert all(module.training for module in model.modules()) and torch.is_grad_enabled()
    assert [p.requires_grad for p in model.parameters()][:2] == [False, True]
    with torch.no_grad():  # whatever is on outside
        second = next(climb)
    assert torch.equal(first, kept) and not torch.equal(first, second)
    assert not first.requires_grad and not second.requires_grad
    climb.close()
    assert all(module.training for module in model.modules())


def test_batch_norm_statistics_are_those_of_training_and_not_of_the_batch():
    model, targets = smooth(), torch.tensor([0, 1, 2])
    expected = ascend(model, targets, images(3, 6), SLOW)
    assert torch.equal(ascend(model.train(), targets, images(3, 6), SLOW), expected)


@pytest.mark.parametrize(
    ("targets", "start", "says"),
    [
        ([0, 1], images(), "2 targets for 3 starting images"),
        ([0], images(0), "1 targets for 0 starting images"),
        ([0, 1, 3], images(), "targets run from 0 to 3, but the model has outputs 0 to 2"),
        ([-1, 1, 2], images(), "targets run from -1 to 2"),
        ([0, 1, 2], images() * 255, r"outside \[0, 1\]"),
        ([0, 1, 2], images() - 0.5, r"outside \[0, 1\]"),
        ([0, 1, 2], images().index_fill(2, torch.tensor([1]), math.nan), r"outside \[0, 1\]"),
    ],
)
def test_what_cannot_be_climbed_is_refused(monkeypatch, targets, start, says):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    model = build("slim_resnet10", 3, seed=0)
    with pytest.raises(ValueError, match=says):
        ascend(model, torch.tensor(targets), start, SLOW)
    assert all(module.training for module in model.modules())


def test_a_network_that_does_not_normalise_is_refused():
    with pytest.raises(ValueError, match="no layer `normalise`"):
        ascend(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), torch.tensor([0]), images(1), SLOW)


def test_scores_that_are_not_finite_are_an_error():
    model = smooth()
    with torch.no_grad():
        model.network[0].weight[0] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        ascend(model, torch.tensor([0]), images(1, 6), SLOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"norm": 0.0},
        {"norm": -1.0},
        {"norm": math.nan},
        {"rate": -0.1},
        {"rate": math.nan},
        {"l2": -1e-4},
        {"jitter": -1},
        {"noise": -0.1},
        {"smoothness": -1.0},
        {"smoothness": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    says = "at least one step" if {"steps", "norm"} & set(wrong) else f"Ascent.{[*wrong][0]} is"
    with pytest.raises(ValueError, match=says):
        Ascent(**wrong)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    rate=st.floats(1e-4, 2e-3),
    l2=st.sampled_from([0.0, 1e-4, 0.05]),
)
def test_small_steps_climb(seed, rate, l2):
    model, start = smooth(seed), images(2, 6, seed)
    targets, how = torch.tensor([seed % 4, 3]), Ascent(steps=5, rate=rate, l2=l2)
    with torch.no_grad():
        before = objective(model, start, targets, how)
        after = objective(model, ascend(model, targets, start, how), targets, how)
    assert (after > before).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    rate=st.floats(0, 5),
    norm=st.none() | st.floats(0.01, 50),
    noise=st.floats(0, 1),
)
def test_pictures_stay_within_0_1_and_within_the_norm(seed, rate, norm, noise):
    model, how = smooth(), Ascent(steps=3, rate=rate, norm=norm, noise=noise)
    found = ascend(model, torch.tensor([0, 1]), torch.rand(2, 3, 6, 6, generator=drawn(seed)), how)
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    if norm is not None:
        assert (model.normalise(found).flatten(1).norm(dim=1) <= norm * 1.001 + 1e-4).all()


def test_within_shortens_what_is_too_long_and_nothing_else():
    model = whole(nn.Flatten(), GREY)
    picture = torch.full((3, 3, 1, 1), 0.5)
    picture[0, :2, 0, 0] = torch.tensor([2.0, 2.5])  # normalised (3, 4, 0): length 5
    picture[1, 2] = 0.75  # length 0.5
    kept = fv.within(model, picture, 2.5)
    assert kept[0].flatten().tolist() == pytest.approx([1.25, 1.5, 0.5])  # (1.5, 2, 0)
    assert torch.allclose(kept[1:], picture[1:])
    assert torch.allclose(fv.within(model, kept, 2.5), kept)


def test_starts_are_what_they_are_called():
    trained_on = ImageSet(
        torch.stack([torch.full((3, 4, 5), v, dtype=torch.uint8) for v in (0, 255, 51)]),
        torch.zeros(3, dtype=torch.long),
        ("thing",),
    )
    for kind, value in (("grey", 0.5), ("black", 0.0), ("mean", 102 / 255)):
        start = fv.starts(kind, 2, trained_on)
        assert start.shape == (2, 3, 4, 5) and torch.allclose(start, torch.tensor(value))
        start[0] = 1  # every picture has memory of its own
        assert start[1].max() < 1
    noise, again, other = (fv.starts("noise", 200, trained_on, seed=s) for s in (0, 0, 1))
    assert torch.equal(noise, again) and not torch.equal(noise, other)
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noise.std().item() == pytest.approx(0.1, abs=0.01)
    assert noise.min() >= 0 and noise.max() <= 1
    with pytest.raises(ValueError, match="no start 'gray'; there are grey, mean, noise, black"):
        fv.starts("gray", 1, trained_on)


# ---------------------------------------- scores


def grating(down: int, right: int, size: int = 64, phase: float = 0.3) -> torch.Tensor:
    """A wave of so many periods per side, in all colours, from 0.1 to 0.9."""
    place = torch.arange(size) / size * 2 * math.pi
    wave = torch.cos(down * place[:, None] + right * place + phase)
    return (0.5 + 0.4 * wave).expand(1, 3, size, size)


@pytest.mark.parametrize(
    ("down", "right", "band"),
    # of 8 bands, each 4 periods per 64 pixels wide
    [(0, 6, 1), (6, 0, 1), (0, 14, 3), (9, 12, 3), (8, 20, 5), (0, 30, 7), (32, 32, 7)],
)
def test_a_wave_is_in_the_band_of_its_frequency(down, right, band):
    share = spectrum(grating(down, right), bins=8)[0]
    if (down, right) == (9, 12):  # 15 periods, one step below the next band
        assert share[3] + share[4] > 0.98 and share[3] > 0.7
    else:
        assert share[band] > 0.98
    assert share.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_window_spreads_a_wave_as_it_must():
    # a Hann window turns one frequency into three with a quarter of the middle's energy at either
    # side, along both axes: of 5 periods, bands 2 wide keep 4 and 5 and pass 6 on
    share = spectrum(grating(0, 5), bins=16)[0]
    assert share[2:4].tolist() == pytest.approx([5 / 6, 1 / 6], abs=0.02)


@given(seed=st.integers(0, 99), h=st.integers(4, 20), w=st.integers(4, 20), bins=st.integers(1, 20))
def test_shares_sum_to_one_and_ignore_brightness_and_contrast(seed, h, w, bins):
    noise = torch.rand(2, 3, h, w, generator=drawn(seed))
    share = spectrum(noise, bins)
    assert share.shape == (2, bins) and (share >= 0).all()
    assert torch.allclose(share.sum(1), torch.ones(2), atol=1e-5)
    assert torch.allclose(spectrum(0.3 + 0.5 * noise, bins), share, atol=1e-4)
    turned = spectrum(noise.transpose(2, 3), bins)
    assert torch.allclose(turned, share, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 2, 17, 64, 224])
def test_one_colour_has_no_spectrum(value, size):
    flat = torch.full((1, 3, size, size), value)
    flat[:, 1] *= 0.7
    assert (spectrum(flat) == 0).all()
    assert (fv.high_frequency(flat) == 0).all()


def test_white_noise_fills_the_rings_by_their_area():
    noise = torch.randn(200, 3, 32, 32, generator=drawn(0))
    share = spectrum(noise, bins=4).mean(0)
    counts = [0] * 4
    for u in range(-16, 16):
        for v in range(-16, 16):
            counts[min(int(math.hypot(u, v) / 4), 3)] += 1
    expected = [count / 1024 for count in counts]
    assert share.tolist() == pytest.approx(expected, abs=0.01)


def test_an_image_has_its_spectrum_whatever_shares_the_batch():
    batch = torch.cat([grating(0, 6), grating(0, 30), torch.full((1, 3, 64, 64), 0.2)])
    alone = torch.cat([spectrum(picture[None]) for picture in batch])
    assert torch.allclose(spectrum(batch), alone, atol=1e-6)


def test_high_frequencies_are_above_a_quarter_cycle_per_pixel():
    coarse, medium, fine = (fv.high_frequency(grating(0, k)).item() for k in (8, 13, 24))
    assert coarse < 0.01 and medium < 0.02 and fine > 0.99
    half = fv.high_frequency((grating(0, 8) + grating(24, 0)) / 2).item()
    assert half == pytest.approx(0.5, abs=0.02)


def test_total_variation_by_hand():
    picture = torch.zeros(2, 3, 2, 3)
    picture[0, 0] = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    # down 0.2 + 0.8 + 0.3 over 9 pairs in three colours, across 1 + 0.5 over 12 pairs
    assert fv.total_variation(picture).tolist() == pytest.approx([1.3 / 9 + 1.5 / 12, 0])


def test_judged_by_logits_that_are_known():
    class Says(nn.Module):
        def forward(self, pictures):
            return torch.tensor(
                [[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 3.0], [0.0, 5.0, 1.0]]
            )

    found = fv.judged(Says(), images(4), torch.tensor([0, 1, 0, 2]))
    assert found["rank"].tolist() == [1, 2, 3, 2]  # a tie counts against the target
    assert found["right"].tolist() == [True, False, False, False]
    e = math.e
    expected = [
        e**2 / (e**2 + e + 1),
        e / (2 * e + 1),
        1 / (1 + 2 * e**3),
        e / (1 + e**5 + e),
    ]
    assert found["probability"].tolist() == pytest.approx(expected, rel=1e-5)


def noisy(n: int, seed: int, classes: int = 2) -> ImageSet:
    """Noise of another contrast and colour per class."""
    labels = torch.arange(n) % classes
    pictures = torch.rand(n, 3, 16, 16, generator=drawn(seed)) * 200
    pictures[labels == 1, 0] *= 0.3
    names = tuple(f"class {k}" for k in range(classes))
    return ImageSet(pictures.to(torch.uint8), labels, names)


def test_the_feature_distance_is_a_ratio_of_mean_cosine_distances():
    judge, real, pictures = build("slim_resnet10", 3, seed=0), noisy(14, 0), images(4)
    targets = torch.tensor([0, 1, 1, 0])
    found = fv.feature_distance(judge, pictures, targets, real, neighbours=3)
    with torch.no_grad():
        seen = embed(judge.eval(), pictures).double().numpy()
        known = embed(judge, real.to_float()).double().numpy()

    def distance(a, b):
        return 1 - a @ b / math.sqrt((a @ a) * (b @ b))

    for i, target in enumerate(targets.tolist()):
        own = [known[j] for j in range(14) if real.labels[j] == target]
        near = np.mean(sorted(distance(seen[i], b) for b in own)[:3])
        usual = np.mean(
            [
                np.mean(sorted(distance(a, b) for k, b in enumerate(own) if k != j)[:3])
                for j, a in enumerate(own)
            ]
        )
        assert found[i].item() == pytest.approx(near / usual, rel=0.01)


def test_real_images_are_as_near_as_real_images_and_of_the_other_class_farther():
    judge = build("slim_resnet10", 3, seed=0)
    real, fresh = noisy(120, 0), noisy(60, 1)
    near = fv.feature_distance(judge, fresh.to_float(), fresh.labels, real)
    far = fv.feature_distance(judge, fresh.to_float(), 1 - fresh.labels, real)
    assert near.mean().item() == pytest.approx(1, abs=0.15)
    assert (far > 3 * near.mean()).all()


def test_too_few_real_images_give_no_distance():
    judge, real = build("slim_resnet10", 3, seed=0), noisy(11, 0)  # six and five of a class
    targets = torch.tensor([0, 1, 0])
    assert fv.feature_distance(judge, images(), targets, real, 5).isnan().tolist() == [0, 1, 0]


# ---------------------------------------- object or backdrop

RED, GREEN, BLUE = ((torch.arange(3) == k).float().view(3, 1, 1) for k in range(3))


def halves(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(3, 32, 32): one colour or texture to the left, another to the right."""
    return torch.cat([left.expand(3, 32, 32)[..., :16], right.expand(3, 32, 32)[..., 16:]], 2)


def coloured(n: int = 6) -> ImageSet:
    """Class 0 is red above and blue below before green; class 1 is green before red."""
    red_blue = torch.cat([RED.expand(3, 16, 32), BLUE.expand(3, 16, 32)], 1)
    labels = torch.arange(n) % 2
    pictures = torch.stack([halves(GREEN, RED) if k else halves(red_blue, GREEN) for k in labels])
    pictures = 25 + 180 * pictures + 20 * torch.rand(n, 3, 32, 32, generator=drawn(0))
    parts = torch.zeros(n, 32, 32, dtype=torch.uint8)
    parts[:, :16, :16], parts[:, 16:, :16] = 1, 2
    return ImageSet(
        pictures.to(torch.uint8),
        labels,
        ("first", "second"),
        masks=parts > 0,
        parts=parts,
        part_names=("backdrop", "top", "bottom"),
    )


def test_colours_are_traced_to_object_part_or_backdrop_of_their_class():
    pictures = torch.stack([c.expand(3, 32, 32) for c in (RED, BLUE, GREEN, GREEN, RED)])
    found = origin(pictures, torch.tensor([0, 0, 0, 1, 1]), coloured(), by="colour")
    assert found.on_object.tolist() == pytest.approx([1, 1, 0, 1, 0], abs=1e-6)
    assert found.parts[:3].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert torch.allclose(found.parts.sum(1), torch.ones(5))


def test_a_half_and_half_picture_is_half_object_and_weights_restrict_what_counts():
    picture = halves(RED, GREEN).expand(3, -1, -1, -1)
    painted = torch.ones(3, 32, 32)
    painted[1, :, 12:] = 0  # patches that start at 0, 4 and 8 count: all of them red
    painted[2, :, :20] = 0  # at 16 (half), 20 and 24: green
    found = origin(picture, torch.zeros(3).long(), coloured(), painted=painted, by="colour")
    assert 3 / 7 - 1e-6 <= found.on_object[0] <= 4 / 7 + 1e-6  # 7 starts, the middle one undecided
    assert found.on_object[1:].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert found.parts[1].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    plain = origin(picture[:1], torch.zeros(1).long(), coloured(), by="colour")
    assert torch.allclose(plain.parts, found.parts[:1])


def striped(n: int = 4) -> ImageSet:
    """Upright stripes before lying ones, both grey, each set by set at other phases."""
    pictures = torch.stack([halves(waves(True, i), waves(False, i)) for i in range(n)])
    masks = torch.zeros(n, 32, 32, dtype=torch.bool)
    masks[..., :16] = True
    return ImageSet((pictures * 255).to(torch.uint8), torch.zeros(n).long(), ("it",), masks=masks)


def waves(upright: bool, phase: int, mean: float = 0.5, contrast: float = 0.3) -> torch.Tensor:
    line = mean + contrast * torch.cos((torch.arange(32) + phase) * math.pi / 2)
    return (line if upright else line[:, None]).expand(3, 32, 32)


def test_patterns_are_traced_whatever_their_colour_and_contrast():
    pictures = torch.stack(
        [
            waves(True, 0),
            waves(False, 1),
            waves(True, 2, mean=0.8, contrast=0.15),
            waves(False, 3, mean=0.2, contrast=0.2) * torch.tensor([1.0, 0.5, 0.7]).view(3, 1, 1),
        ]
    )
    found = origin(pictures, torch.zeros(4).long(), striped(), by="pattern")
    assert found.on_object.tolist() == pytest.approx([1, 0, 1, 0], abs=1e-6)
    assert found.parts.shape == (4, 2)  # without parts: backdrop and object


@pytest.mark.parametrize("by", ["colour", "pattern"])
def test_origin_equals_a_literal_search(by):
    """As many patches of objects as of backdrops and room for all of them: nothing is drawn."""
    real = replace(
        coloured(4),
        images=torch.randint(0, 256, (4, 3, 32, 32), generator=drawn(3), dtype=torch.uint8),
    )
    pictures, targets = images(3, 24, seed=4), torch.tensor([1, 0, 1])
    painted = torch.rand(3, 24, 24, generator=drawn(5))
    found = origin(pictures, targets, real, painted=painted, by=by)

    def described(patch):
        mean = patch.mean((1, 2))
        if by == "colour":
            return mean
        rest = (patch - mean[:, None, None]).ravel()
        return rest / (np.linalg.norm(rest) + 0.1)

    floats = real.to_float().numpy()
    for i, target in enumerate(targets.tolist()):
        known = []
        for j in range(4):
            for y in range(0, 25, 4):
                for x in (0, 4, 8, 16, 20, 24):  # the one at 12 is half object, half backdrop
                    if real.labels[j] == target:
                        part = int(real.parts[j, y + 4, x + 4])
                        known.append((described(floats[j, :, y : y + 8, x : x + 8]), part))
        shares = np.zeros(3)
        for y in range(0, 17, 4):
            for x in range(0, 17, 4):
                asked = described(pictures[i, :, y : y + 8, x : x + 8].numpy())
                part = min(known, key=lambda k: np.linalg.norm(k[0] - asked))[1]
                shares[part] += painted[i, y : y + 8, x : x + 8].mean().item()
        assert found.parts[i].tolist() == pytest.approx((shares / shares.sum()).tolist(), abs=1e-3)
        assert found.on_object[i].item() == pytest.approx(1 - shares[0] / shares.sum(), abs=1e-3)


@given(seed=st.integers(0, 20), sample=st.sampled_from([2, 10, 3_000]))
@settings(max_examples=15)
def test_shares_are_shares_whatever_is_sampled(seed, sample):
    pictures, targets = images(3, 16, seed), torch.tensor([1, 0, 0])
    found, again = (origin(pictures, targets, coloured(), sample=sample, seed=seed) for _ in "ab")
    assert torch.equal(found.parts, again.parts)
    assert (found.parts >= 0).all() and torch.allclose(found.parts.sum(1), torch.ones(3))
    assert torch.allclose(found.on_object, found.parts[:, 1:].sum(1), atol=1e-6)


def test_origin_needs_masks_both_kinds_of_patches_and_a_known_comparison():
    real, one, target = coloured(), images(1, 32), torch.tensor([0])
    with pytest.raises(ValueError, match="no masks"):
        origin(one, target, replace(real, masks=None))
    with pytest.raises(ValueError, match="by colour or by pattern, not by 'shape'"):
        origin(one, target, real, by="shape")
    for masks in (torch.zeros_like(real.masks), torch.ones_like(real.masks)):
        with pytest.raises(ValueError, match="no patches of object and backdrop in 'first'"):
            origin(one, target, replace(real, masks=masks))
    with pytest.raises(ValueError, match="no patches of object and backdrop in 'second'"):
        origin(one, torch.tensor([1]), real[real.labels == 0])
