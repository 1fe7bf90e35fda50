"""Saliency: Grad-CAM is its formula, image by image, and leaves the network alone."""

from collections import OrderedDict

import pytest
import torch
from jaxtyping import config
from torch import nn

from helpers.models import Normalised, build
from helpers.saliency import grad_cam, last_maps


def pictures(n: int = 3, size: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def tiny(inplace: bool = False, seed: int = 0) -> nn.Sequential:
    """Six maps of 6 x 6 and two classes, with a nonlinearity after the maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(inplace),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.ReLU(inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(4, 2),
        )
    return nn.Sequential(OrderedDict(normalise=Normalised(), network=network))


def formula(model: nn.Sequential, images: torch.Tensor, targets: torch.Tensor, cut: int):
    """Selvaraju's equations 1 and 2, one image at a time, for the output of layer `cut` - 1."""
    before, after = model.network[:cut].eval(), model.network[cut:].eval()
    maps = []
    for image, target in zip(images, targets.tolist(), strict=True):
        features = before(model.normalise(image[None])).detach().requires_grad_()
        (slope,) = torch.autograd.grad(after(features.clone())[0, target], features)
        total = torch.zeros(features.shape[2:])
        for k in range(features.shape[1]):
            total += slope[0, k].mean() * features[0, k].detach()
        fine = nn.functional.interpolate(total.relu()[None, None], image.shape[1:], mode="bilinear")
        maps.append(fine[0, 0] / fine.max() if fine.max() > 0 else fine[0, 0])
    return torch.stack(maps)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_against_the_formula(cut, inplace):
    model, images = tiny(inplace), pictures(6)
    targets = torch.tensor([0, 1, 0, 1, 1, 0])
    maps = grad_cam(model, images, targets, model.network[cut - 1])
    assert torch.allclose(maps, formula(tiny(), images, targets, cut), atol=1e-5)
    assert (maps.amax((1, 2)) == 1).any()
    assert not torch.equal(maps[0], grad_cam(model, images, 1 - targets, model.network[cut - 1])[0])


def test_by_hand():
    """One map that is the red channel, scored 2 x its mean by class 0 and -2 x by class 1."""
    conv, linear = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
        linear.weight.copy_(torch.tensor([[2.0], [-2.0]]))
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    model = nn.Sequential(OrderedDict(normalise=Normalised((0,) * 3, (1,) * 3), network=network))
    red = torch.tensor([[0.0, 0.2], [0.4, 0.8]])
    images = torch.stack((red, torch.ones(2, 2), torch.ones(2, 2)))[None].repeat(2, 1, 1, 1)
    maps = grad_cam(model, images, torch.tensor([0, 1]), last_maps(model, images))
    assert torch.allclose(maps[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    assert not maps[1].any()  # nothing speaks for class 1: zeros, not 0 / 0


@pytest.mark.parametrize("name", ["slim_resnet10", "slim_vgg6", "resnet18", "squeezenet1_1"])
def test_no_map_depends_on_its_batch(name):
    model, images, targets = build(name, 3, seed=0), pictures(5, 64), torch.tensor([0, 1, 2, 1, 0])
    layer = last_maps(model, images)
    together = grad_cam(model, images, targets, layer)
    apart = grad_cam(model, images, targets, layer, batch_size=2)
    alone = grad_cam(model, images[3:4], targets[3:4], layer)
    assert together.shape == (5, 64, 64)
    assert torch.allclose(together, apart, atol=1e-3)
    assert torch.allclose(together[3:4], alone, atol=1e-3)
    peaks = together.amax((1, 2))
    assert together.min() >= 0 and ((peaks == 1) | (peaks == 0)).all() and peaks.any()


def test_the_network_comes_back_as_it_was():
    model, images = tiny(inplace=True), pictures()
    model.network[2].eval()
    model.network[0].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = lambda: (  # noqa: E731
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [len(m._forward_hooks) for m in model.modules()],
    )
    expected = state()
    maps = grad_cam(model, images, torch.zeros(3, dtype=torch.int64), last_maps(model, images))
    with pytest.raises(ValueError, match="targets run from"):
        grad_cam(model, images, torch.full((3,), 2), model.network[0])
    assert state() == expected
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not maps.requires_grad and not images.requires_grad


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("slim_resnet10", "layer4"),
        ("resnet18", "layer4"),
        ("googlenet", "inception5b"),
        ("mobilenet_v2", "features"),
        ("timm:test_resnet", "layer4"),
    ],
)
def test_the_last_maps_of_known_networks(name, layer):
    model = build(name, 3, seed=0)
    assert last_maps(model, pictures(2, 64)) is model.network.get_submodule(layer)


def test_the_last_maps_follow_the_images_size():
    model = build("resnet18", 3, seed=0)
    assert last_maps(model, pictures(1, 32)) is model.network.layer3  # the last stage is 1 x 1
    assert last_maps(tiny(), pictures()).__class__ is nn.ReLU
    with pytest.raises(ValueError, match="no layer of this model has maps .* for 2 x 2 px"):
        last_maps(tiny(), pictures(1, 2))
    with pytest.raises(ValueError, match="at least one image"):
        last_maps(model, pictures(0))


def test_what_cannot_be_explained_is_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    model, images, targets = tiny(), pictures(), torch.tensor([0, 1, 0])
    layer = model.network[2]
    assert grad_cam(model, images[:0], targets[:0], layer).shape == (0, 12, 12)
    for change, says in (
        ({"targets": targets[:2]}, "2 targets for 3 images"),
        ({"targets": targets + 1}, "targets run from 1 to 2; valid are 0 to 1"),
        ({"targets": targets - 1}, "targets run from -1 to 0"),
        ({"images": images + 1}, r"outside \[0, 1\]"),
        ({"images": images * torch.nan}, r"outside \[0, 1\]"),
        ({"layer": nn.Conv2d(6, 4, 3)}, "not a part of the model"),
        ({"layer": model.network[7]}, "no positions"),
        ({"batch_size": 0}, "at least 1 image"),
    ):
        given = {"model": model, "images": images, "targets": targets, "layer": layer} | change
        with pytest.raises(ValueError, match=says):
            grad_cam(**given)
    with torch.no_grad():
        layer.weight.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="not finite"):
        grad_cam(model, images, targets, layer)
