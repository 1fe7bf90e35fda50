"""Networks: reproducible, traceable, with clean gradients, and never the wrong weights."""

import hashlib
import pickle
import urllib.error
import urllib.request
from collections import OrderedDict

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from helpers import models
from helpers.models import (
    Merged,
    build,
    embed,
    folded,
    names,
    pretrained,
    pretrained_segmenter,
    with_fully_connected,
    with_last_layer,
)

LIGHT = (
    "slim_resnet18",
    "slim_resnet10",
    "slim_vgg6",
    "slim_alexnet",
    "slim_googlenet",
    "squeezenet1_1",
    "timm:test_resnet",
    "timm:test_vit",
)
WEIGHTS = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
FILE = "squeezenet1_1-b8a52dc0.pth"


def images(n: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["slim_resnet18", "slim_vgg6", "squeezenet1_1", "timm:test_resnet", "googlenet"]
)
def test_same_seed_same_weights_and_the_global_random_state_is_left_alone(name):
    before = torch.get_rng_state()
    first, again, other = (build(name, 5, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", LIGHT)
def test_images_in_0_1_become_one_logit_per_class(name):
    size = 160 if name == "timm:test_vit" else 64
    model = build(name, 7, seed=0).eval()
    logits = model(images(size=size))
    assert logits.shape == (2, 7) and logits.isfinite().all()
    assert torch.equal(logits, model.network(model.normalise(images(size=size))))
    mean = torch.tensor(models.IMAGENET_MEAN).view(1, 3, 1, 1)
    assert (model.normalise(mean.expand(1, 3, 4, 4)).abs() < 1e-6).all()
    white = model.normalise(torch.ones(1, 3, 1, 1)).flatten().tolist()
    assert white == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_the_first_layer_normalises_with_the_mean_and_std_asked_for():
    mean, std = (0.4717, 0.4499, 0.3837), (0.2600, 0.2516, 0.2575)
    model = build("slim_vgg6", 3, seed=0, mean=mean, std=std)
    white = model.normalise(torch.ones(1, 3, 1, 1)).flatten().tolist()
    assert white == pytest.approx([0.5283 / 0.26, 0.5501 / 0.2516, 0.6163 / 0.2575], abs=1e-5)
    usual = build("slim_vgg6", 3, seed=0).state_dict()
    differ = {k for k, v in model.state_dict().items() if not torch.equal(v, usual[k])}
    assert differ == {"normalise.mean", "normalise.std"}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_inception_family_returns_logits_in_training_too(name):
    model = build(name, 3, seed=0)
    assert model.training
    assert model(images(size=96 if name == "googlenet" else 128)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("slim_resnet", "slim_resnet18"),
        ("resnet_18", "resnet18"),
        ("timm:dpn9", "timm:dpn92"),
        ("dpn92", "timm:dpn92"),
        ("", "names"),
    ],
)
def test_unknown_names_list_near_matches(name, near):
    with pytest.raises(ValueError, match=f"no network is called '{name}'.*{near}"):
        build(name, 2, seed=0)


def test_networks_without_classes_are_refused():
    with pytest.raises(ValueError, match="at least one class"):
        build("slim_resnet10", 0, seed=0)


def test_every_name_of_the_papers_is_known():
    papers = {"resnet18", "vgg19", "alexnet", "googlenet", "resnet50", "inception_v3", "vgg16_bn"}
    papers |= {"wide_resnet50_2", "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x1_0"}
    assert papers | {"vgg16", "mobilenet_v2", "squeezenet1_0", "timm:dpn92"} <= set(names())


@pytest.mark.parametrize("name", ["slim_resnet18", "slim_resnet10", "resnet18"])
def test_can_be_traced_and_gives_the_same(name):
    model = build(name, 4, seed=0).eval()
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(images()), model(images()))
    assert "network.layer4.0.conv1" in {str(node.target) for node in traced.graph.nodes}


def test_slim_networks_see_64_pixels_at_4_by_4_without_a_strided_convolution():
    model = build("slim_resnet18", 18, seed=0).eval()
    maps = {}
    for name in ("conv1", "layer1", "layer4"):
        layer = model.network.get_submodule(name)
        layer.register_forward_hook(lambda _, __, out, name=name: maps.update({name: out.shape}))
    model(images())
    assert maps == {"conv1": (2, 16, 64, 64), "layer1": (2, 16, 32, 32), "layer4": (2, 128, 4, 4)}
    assert all(m.stride == (1, 1) for m in model.modules() if isinstance(m, nn.Conv2d))
    assert sum(len(getattr(model.network, f"layer{i}")) for i in (1, 2, 3, 4)) == 8


def test_slim_resnets_start_at_full_resolution_and_reduce_by_averages_only():
    network = build("slim_resnet10", 3, seed=0).network
    assert [*dict(network.named_children())][:5] == ["conv1", "bn1", "relu", "pool1", "layer1"]
    assert network.conv1.kernel_size == (3, 3) and network.conv1.bias is None
    reducing = [m for m in network.modules() if type(m).__name__.endswith("Pool2d")]
    assert [type(m) for m in reducing] == [nn.AvgPool2d] * 4 + [nn.AdaptiveAvgPool2d]
    assert sum(len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)) == 4
    with torch.no_grad():  # no block starts as its shortcut
        inside = torch.rand(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
        assert not torch.allclose(network.layer1[0](inside), inside, atol=0.1)


def test_the_slim_vgg_is_plain_and_sees_64_pixels_at_4_by_4():
    network = build("slim_vgg6", 5, seed=0).eval().network
    layers = list(network)
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [16, 32, 64, 128, 128]
    assert all(m.kernel_size == (3, 3) and m.stride == (1, 1) for m in convolutions)
    assert sum(isinstance(m, nn.MaxPool2d) for m in layers) == 4
    assert not any(isinstance(m, models.Residual) for m in network.modules())
    assert nn.Sequential(*layers[:19])(images()).shape == (2, 128, 4, 4)


@pytest.mark.parametrize("name", ["slim_resnet10", "slim_vgg6"])
def test_slim_networks_start_with_convolutions_that_keep_the_gradients_scale(name):
    for layer in build(name, 3, seed=0).modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def checkerboard(model: nn.Module, stride: int) -> float:
    """Energy of the gradient's mean size per position, at the frequencies of a grid of `stride`.

    Relative to the energy of a gradient that is the same size everywhere. The outer 8 pixels are
    left out: padding changes gradients there in any network.
    """
    pictures = images(24).requires_grad_()
    (gradient,) = torch.autograd.grad(model(pictures)[:, 0].sum(), pictures)
    spectrum = torch.fft.fft2(gradient.abs().mean((0, 1))[8:-8, 8:-8]).abs().square()
    grid = spectrum[:: 48 // stride, :: 48 // stride]
    return ((grid.sum() - grid[0, 0]) / grid[0, 0]).item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_of_slim_networks_show_no_stride(seed):
    slim, plain = (build(name, 18, seed=seed).eval() for name in ("slim_resnet18", "resnet18"))
    for stride in (2, 4):
        assert checkerboard(slim, stride) < 0.3 * checkerboard(plain, stride)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("slim_resnet18", "fc"),
        ("slim_vgg6", "21"),
        ("googlenet", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("timm:test_resnet", "fc"),
        ("timm:test_vit", "head"),
    ],
)
def test_embed_is_what_the_last_layer_sees(name, last):
    model = build(name, 6, seed=0).eval()
    pictures = images(size=160)
    features = embed(model, pictures)
    assert torch.allclose(model.network.get_submodule(last)(features), model(pictures), atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_embed_averages_over_space_and_lets_gradients_through():
    model = build("squeezenet1_1", 6, seed=0).eval()
    pictures = images().requires_grad_()
    features = embed(model, pictures)
    maps = model.network.features(model.normalise(pictures))
    assert torch.allclose(features, maps.mean((2, 3)), atol=1e-6)
    features.sum().backward()
    assert pictures.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        embed(nn.ReLU(), pictures)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty cache of torch's, and no network."""

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "cache" / "hub"))
    yield tmp_path / "cache" / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture
def torch_home(tmp_path):
    """A folder with weights of the right name and shapes that are not the official ones."""
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / FILE)
    return tmp_path / "home"


@pytest.mark.parametrize("weights", [WEIGHTS, "SqueezeNet1_1_Weights.IMAGENET1K_V1"])
def test_a_file_that_is_there_is_used_and_reported(elsewhere, torch_home, weights):
    cache = torch.hub.get_dir()
    loaded = pretrained(weights, torch_home=torch_home)
    assert loaded.file == FILE and not loaded.official and len(loaded.sha256) == 64
    assert loaded.categories[207] == "golden retriever" and not loaded.model.training
    expected = torch.load(torch_home / "hub" / "checkpoints" / FILE)
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.network.state_dict().items())
    assert loaded.model(images()).shape == (2, 1000)
    assert torch.hub.get_dir() == cache and not elsewhere.exists()


def test_official_means_that_the_hash_is_the_one_in_the_name(elsewhere, torch_home, monkeypatch):
    sha256 = pretrained(WEIGHTS, torch_home=torch_home).sha256
    monkeypatch.setattr(models, "_hash_in", lambda name: sha256[:8])
    assert pretrained(WEIGHTS, torch_home=torch_home).official


def test_torchs_own_cache_is_looked_into_as_well(elsewhere, torch_home, tmp_path):
    (torch_home / "hub").rename(tmp_path / "moved")
    elsewhere.parent.parent.mkdir()
    (tmp_path / "moved").rename(elsewhere.parent)
    assert pretrained(WEIGHTS, torch_home=torch_home).file == FILE
    assert pretrained(WEIGHTS).file == FILE


def test_without_file_and_network_the_message_says_what_to_fetch_and_where_to_put_it(
    elsewhere, tmp_path
):
    place = tmp_path / "hub" / "checkpoints" / FILE
    with pytest.raises(FileNotFoundError, match=f"{place}.*fetch {WEIGHTS.url}"):
        pretrained(WEIGHTS, torch_home=tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pretrained(WEIGHTS, torch_home=tmp_path / "misspelt")


def test_a_download_with_another_hash_is_refused(elsewhere, torch_home, monkeypatch):
    wrong = torch_home / "hub" / "checkpoints" / FILE
    monkeypatch.setattr(torch.hub, "urlopen", lambda _: urllib.request.urlopen(wrong.as_uri()))
    with pytest.raises(FileNotFoundError, match="invalid hash"):
        pretrained(WEIGHTS)
    assert not list(elsewhere.glob("*"))


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this file was allowed to run code')",))


@pytest.mark.parametrize("damage", ["cut", "other shapes", "code"])
def test_files_that_do_not_hold_the_weights_are_refused(elsewhere, torch_home, damage):
    file = torch_home / "hub" / "checkpoints" / FILE
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:9999])
    elif damage == "other shapes":
        torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), file)
    else:
        file.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match=f"{file} does not hold the weights"):
        pretrained(WEIGHTS, torch_home=torch_home)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("SqueezeNet1_1_Weights.DEFAULT", "do not say which"),
        ("DEFAULT", "do not say which"),
        ("IMAGENET1K_V1", "no weights"),
        ("SqueezeNet1_1_Weights.IMAGENET1K_V9", "did you mean SqueezeNet1_1_Weights.IMAGENET1K_V1"),
        ("FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1", "not .* for classification"),
        (torchvision.models.detection.SSD300_VGG16_Weights.COCO_V1, "for classification"),
    ],
)
def test_weights_have_to_be_named_in_full(weights, says):
    with pytest.raises(ValueError, match=says):
        pretrained(weights)


def test_a_new_last_layer_answers_on_what_the_old_one_saw():
    model = build("mobilenet_v3_small", 6, seed=0).eval()
    weight, bias = torch.randn(3, 1024), torch.randn(3)
    changed, pictures = with_last_layer(model, weight, bias), images()
    with torch.no_grad():
        features = embed(model, pictures)
        assert torch.allclose(changed(pictures), features @ weight.T + bias, atol=1e-4)
        assert model(pictures).shape[1] == 6  # the given one is left as it was
    with pytest.raises(ValueError, match="sees 1024 features; needed is one of 7"):
        with_last_layer(model, torch.zeros(3, 7), bias)
    with pytest.raises(ValueError, match="is not linear"):
        with_last_layer(nn.Conv2d(3, 3, 1), weight, bias)


# ---- timm's weights

CONVNEXT, BYOBNET = "test_convnext.r160_in1k", "test_byobnet.r160_in1k"  # small ones


def timm_weights(name: str) -> dict[str, torch.Tensor]:
    """Random ones, without their trained statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name.partition(".")[0]).state_dict()


@pytest.fixture
def no_hub(elsewhere, monkeypatch):
    """No network for torch or timm, and nothing in their caches. The hub's requests are counted."""
    asked = []

    def nothing(*request, **_):
        asked.append(request)
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    return asked


@pytest.fixture
def timm_home(tmp_path):
    """torch_home with a file for one tag of timm's, as safetensors, and for another as pickle."""
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save_file(timm_weights(CONVNEXT), folder / f"{CONVNEXT}.safetensors")
    torch.save(timm_weights(BYOBNET), folder / f"{BYOBNET}.pth")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("name", "suffix", "mean", "std"),
    [
        (CONVNEXT, "safetensors", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (BYOBNET, "pth", models.IMAGENET_MEAN, models.IMAGENET_STD),
    ],
)
def test_timms_weights_are_read_with_their_own_normalisation(
    no_hub, timm_home, name, suffix, mean, std
):
    cache = torch.hub.get_dir()
    loaded = pretrained(f"timm:{name}", torch_home=timm_home)
    file = timm_home / "hub" / "checkpoints" / f"{name}.{suffix}"
    assert loaded.file == file.name and not loaded.official
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    expected, found = timm_weights(name), loaded.model.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) for k, v in found.items())
    assert loaded.model.normalise.mean.flatten().tolist() == pytest.approx(mean)
    assert loaded.model.normalise.std.flatten().tolist() == pytest.approx(std)
    assert not any(module.training for module in loaded.model.modules())
    with torch.no_grad():
        logits = loaded.model(images())
        by_hand = (images() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(logits, loaded.model.network(by_hand))
    assert logits.shape == (2, 1000)
    assert loaded.categories == list(WEIGHTS.meta["categories"])
    assert torch.hub.get_dir() == cache and not no_hub  # a file that is there is not asked for


def test_torchs_own_cache_is_looked_into_for_timms_weights_too(no_hub, elsewhere, timm_home):
    elsewhere.parent.parent.mkdir()
    (timm_home / "hub").rename(elsewhere.parent)
    assert pretrained(f"timm:{CONVNEXT}").file == f"{CONVNEXT}.safetensors"
    assert pretrained(f"timm:{BYOBNET}", torch_home=timm_home).file == f"{BYOBNET}.pth"
    assert not no_hub


def test_what_timms_own_client_gives_is_official(elsewhere, tmp_path, monkeypatch):
    fetched = tmp_path / "snapshots" / "1f2e3d" / "model.safetensors"
    fetched.parent.mkdir(parents=True)
    save_file(timm_weights(CONVNEXT), fetched)
    given = {(f"timm/{CONVNEXT}", "model.safetensors"): str(fetched)}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *asked: given[asked])
    loaded = pretrained(f"timm:{CONVNEXT}", torch_home=tmp_path)
    assert loaded.official and loaded.file == f"{CONVNEXT}.safetensors"
    assert loaded.sha256 == hashlib.sha256(fetched.read_bytes()).hexdigest()


def test_without_timms_file_the_message_says_what_to_fetch_and_under_which_name(
    no_hub, elsewhere, tmp_path
):
    name = "dpn92.mx_in1k"
    place = tmp_path / "hub" / "checkpoints" / f"{name}.safetensors"
    address = f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
    with pytest.raises(FileNotFoundError, match=f"{place}.*no network.*fetch {address}"):
        pretrained(f"timm:{name}", torch_home=tmp_path)
    assert no_hub == [(f"timm/{name}", "model.safetensors")]
    with pytest.raises(FileNotFoundError, match=f"{elsewhere / place.name}.*fetch"):
        pretrained(f"timm:{name}")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pretrained(f"timm:{name}", torch_home=tmp_path / "misspelt")


def test_timms_old_weights_have_an_address_of_their_own(no_hub, tmp_path):
    place = tmp_path / "hub" / "checkpoints" / "seresnet18-4bb0ce65.pth"
    with pytest.raises(FileNotFoundError, match=f"{place}.*fetch https://github.*/{place.name}"):
        pretrained("timm:legacy_seresnet18.in1k", torch_home=tmp_path)
    assert not no_hub


@pytest.mark.parametrize("damage", ["cut", "other shapes", "code"])
def test_timm_files_that_do_not_hold_the_weights_are_refused(no_hub, timm_home, damage):
    folder = timm_home / "hub" / "checkpoints"
    name, file = CONVNEXT, folder / f"{CONVNEXT}.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:9999])
    elif damage == "other shapes":
        save_file(timm.create_model("test_convnext", num_classes=3).state_dict(), file)
    else:  # a pickle must not run what it brings
        name, file = BYOBNET, folder / f"{BYOBNET}.pth"
        file.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match=f"{file} does not hold the weights timm:{name}"):
        pretrained(f"timm:{name}", torch_home=timm_home)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("timm:dpn92", "do not say which weights; there are 'timm:dpn92.mx_in1k'"),
        ("timm:dpn92.DEFAULT", "do not say which weights"),
        ("timm:dpn", "do not say which weights; name one in full, such as"),
        ("timm:dpn92.mx_in2k", "no weights 'dpn92.mx_in2k'; did you mean timm:dpn92.mx_in1k"),
        ("timm:", "do not say which"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", "ImageNet's 1,000 classes"),
        ("timm:resmlp_12_224.fb_dino", "ImageNet's 1,000 classes"),  # learned without classes
    ],
)
def test_timms_weights_have_to_be_named_with_a_tag_for_imagenets_1000_classes(
    no_hub, weights, says
):
    with pytest.raises(ValueError, match=says):
        pretrained(weights)
    assert not no_hub


SEGMENTER = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights
SEGMENTER_FILE = "lraspp_mobilenet_v3_large-d234d4ea.pth"


@pytest.fixture
def segmenter_home(tmp_path):
    """A folder with a segmenter's weights that are not the official ones."""
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
    torch.save(network.state_dict(), folder / SEGMENTER_FILE)
    return tmp_path / "home"


def test_a_segmenter_has_the_files_weights_behind_its_normalisation(elsewhere, segmenter_home):
    cache = torch.hub.get_dir()
    member = SEGMENTER.COCO_WITH_VOC_LABELS_V1
    for weights in (member, str(member)):
        model = pretrained_segmenter(weights, torch_home=segmenter_home)
        expected = torch.load(segmenter_home / "hub" / "checkpoints" / SEGMENTER_FILE)
        assert all(torch.equal(v, expected[k]) for k, v in model.network.state_dict().items())
        assert not any(module.training for module in model.modules())
    pictures = images()
    with torch.no_grad():
        scores = model(pictures)["out"]
        by_hand = (pictures - model.normalise.mean) / model.normalise.std
        assert torch.equal(scores, model.network(by_hand)["out"])
    assert scores.shape == (2, 21, 64, 64)
    assert model.normalise.mean.flatten().tolist() == pytest.approx(models.IMAGENET_MEAN)
    assert torch.hub.get_dir() == cache and not elsewhere.exists()
    (segmenter_home / "hub" / "checkpoints" / SEGMENTER_FILE).write_bytes(
        pickle.dumps(Harmful(), protocol=2)
    )
    with pytest.raises(ValueError, match="does not hold the weights LRASPP"):
        pretrained_segmenter(member, torch_home=segmenter_home)


def test_without_a_segmenters_file_the_message_says_what_to_fetch(elsewhere, tmp_path):
    member = SEGMENTER.COCO_WITH_VOC_LABELS_V1
    place = tmp_path / "hub" / "checkpoints" / SEGMENTER_FILE
    with pytest.raises(FileNotFoundError, match=f"{place}.*fetch {member.url}"):
        pretrained_segmenter(member, torch_home=tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{elsewhere / SEGMENTER_FILE}.*fetch"):
        pretrained_segmenter(member)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("LRASPP_MobileNet_V3_Large_Weights.DEFAULT", "do not say which.*COCO_WITH_VOC_LABELS_V1"),
        ("LRASPP_MobileNet_V3_Large_Weights.COCO_V1", "did you mean LRASPP_MobileNet"),
        (WEIGHTS, "not of a network for segmentation"),
    ],
)
def test_a_segmenters_weights_have_to_be_named_in_full(weights, says):
    with pytest.raises(ValueError, match=says):
        pretrained_segmenter(weights)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("slim_resnet10", {"network.fc.weight", "network.fc.bias"}),
        ("slim_vgg6", {"network.21.weight", "network.21.bias"}),
        ("squeezenet1_1", {"network.classifier.1.weight", "network.classifier.1.bias"}),
    ],
)
def test_trained_weights_are_taken_over_but_for_a_last_layer_of_other_classes(name, last):
    model, trained = build(name, 5, seed=1), build(name, 3, seed=2).state_dict()
    own = {key: value.clone() for key, value in model.state_dict().items()}
    assert set(models.load_features(model, trained)) == last
    for key, value in model.state_dict().items():
        assert torch.equal(value, own[key] if key in last else trained[key])

    same = build(name, 3, seed=1)
    assert models.load_features(same, trained) == []
    assert all(torch.equal(v, trained[k]) for k, v in same.state_dict().items())


@pytest.mark.parametrize("other", ["slim_vgg6", "squeezenet1_1"])
def test_weights_of_another_architecture_are_refused_and_change_nothing(other):
    model = build("slim_resnet10", 3, seed=1)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"another architecture.*network\.conv1\.weight"):
        models.load_features(model, build(other, 3, seed=2).state_dict())
    assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["slim_vgg6", "squeezenet1_1"])
def test_a_probe_is_a_linear_layer_on_what_the_backbone_sees(name):
    backbone, pictures = build(name, 6, seed=0).eval(), images()
    with torch.no_grad():
        features, logits = embed(backbone, pictures), backbone(pictures)
        rng = torch.Generator().manual_seed(0)
        weight = torch.randn(4, features.shape[1], generator=rng)
        bias = torch.randn(4, generator=rng)
        probe = models.Probe(backbone, weight, bias)
        answer = features @ weight.T + bias
        assert torch.allclose(probe(pictures), answer, atol=1e-4)
        assert torch.equal(embed(probe, pictures), features)
        weight.zero_()  # the probe has its own copy
        assert torch.allclose(probe(pictures), answer, atol=1e-4)
        assert torch.equal(backbone(pictures), logits)
    assert not any(module._forward_pre_hooks for module in probe.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_a_frozen_model_comes_back_as_it_was(fails):
    model = build("slim_resnet10", 3, seed=0).train()
    model.network.layer1.eval()  # a mixture of modes and flags
    model.network.conv1.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert len(set(modes)) == len(set(flags)) == 2
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def use():
        with models.frozen(model):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            model(images())
            if fails:
                raise KeyError("while frozen")

    if fails:
        with pytest.raises(KeyError, match="while frozen"):
            use()
    else:
        use()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_merged_classes_have_the_sum_of_their_probabilities():
    model = build("slim_vgg6", 6, seed=0).eval()
    images = torch.rand(3, 3, 32, 32)
    each = model(images).softmax(1)
    merged = Merged(model, [[4, 1], [0]], 6)(images).softmax(1)
    wanted = torch.stack([each[:, 1] + each[:, 4], each[:, 0], each[:, [2, 3, 5]].sum(1)], 1)
    torch.testing.assert_close(merged, wanted)


@pytest.mark.parametrize("groups", [[[]], [[0], [0, 1]], [[0, 1, 2], [3, 4, 5]], [[6]]])
def test_merging_needs_groups_that_are_apart_and_leave_something(groups):
    with pytest.raises(ValueError, match="group"):
        Merged(build("slim_vgg6", 6, seed=0), groups, 6)


# ---- a fully connected top on a network's maps


@pytest.fixture(scope="module")
def squeezenet():
    return build("squeezenet1_1", 6, seed=0).eval()


def linear(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("size", [64, 256])  # 3 x 3 maps, which are spread, and 15 x 15
def test_a_new_top_sees_averaged_maps_through_two_layers(squeezenet, size):
    model = with_fully_connected(squeezenet, 4, hidden=9, cells=5, seed=0)
    pictures = images(size=size)
    first, last = linear(model)
    assert (first.in_features, first.out_features) == (512 * 5 * 5, 9)
    assert (last.in_features, last.out_features) == (9, 4)
    with torch.no_grad():
        maps = squeezenet.network.features(squeezenet.normalise(pictures))
        seen = nn.functional.adaptive_avg_pool2d(maps, 5).flatten(1)
        inner = (seen @ first.weight.T + first.bias).clamp(min=0)
        expected = inner @ last.weight.T + last.bias
        assert torch.allclose(model(pictures), expected, atol=1e-5)


def test_only_the_new_top_is_learned_and_the_given_network_stays(squeezenet):
    before = {name: value.clone() for name, value in squeezenet.state_dict().items()}
    flags = [p.requires_grad for p in squeezenet.parameters()]
    model = with_fully_connected(squeezenet, 4, hidden=8, seed=0)
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learned == [f"network.top.{k}" for k in ("2.weight", "2.bias", "4.weight", "4.bias")]
    maps = {name: p for name, p in model.named_parameters() if name not in learned}
    assert maps and all(torch.equal(p, before[name]) for name, p in maps.items())
    with torch.no_grad():  # copies: what happens to them happens to nobody else
        for value in model.state_dict().values():
            value.fill_(7)
    assert all(torch.equal(v, before[name]) for name, v in squeezenet.state_dict().items())
    assert [p.requires_grad for p in squeezenet.parameters()] == flags and all(flags)
    assert not squeezenet.training


def test_a_seed_gives_one_top_and_leaves_the_global_random_state_alone(squeezenet):
    state = torch.get_rng_state()
    tops = [with_fully_connected(squeezenet, 4, hidden=8, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    one, again, other = ([layer.weight for layer in linear(top)] for top in tops)
    assert all(map(torch.equal, one, again)) and not any(map(torch.equal, one, other))


def test_a_network_that_keeps_its_maps_elsewhere_gets_no_top():
    with pytest.raises(ValueError, match="SlimResNet keeps its maps elsewhere than in .features"):
        with_fully_connected(build("slim_resnet10", 3, seed=0), 4, seed=0)


# ---- batch norm folded into convolutions

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def as_if_trained(model: nn.Module) -> nn.Module:
    """Statistics, factors and shifts of every batch norm are drawn, so that they matter."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, _NORMS)):
            norm.weight.uniform_(0.5, 1.5, generator=rng)
            norm.running_var.uniform_(0.5, 2, generator=rng)
            for shift in (norm.bias, norm.running_mean):
                shift.normal_(0, 0.3, generator=rng)
    return model


@pytest.mark.parametrize(
    "name",
    ["slim_resnet10", "slim_vgg6", "slim_alexnet", "slim_googlenet", "mobilenet_v3_small"],
)
def test_a_folded_network_answers_alike_without_any_batch_norm(name):
    model = as_if_trained(build(name, 5, seed=0)).train()
    model.normalise.eval()  # a mixture of modes, to come back as it was
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lean = folded(model)
    assert lean is not model
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(isinstance(m, _NORMS) for m in model.modules())

    parts = [m for m in lean.modules() if type(m) is not nn.Module]  # torch.fx's empty folders
    assert not any(isinstance(m, _NORMS) for m in parts) and not any(m.training for m in parts)
    with torch.no_grad():
        expected = model.eval()(images())
        assert expected.std() > 0.01
        assert torch.allclose(lean(images()), expected, rtol=1e-4, atol=1e-4)


class OneConvolutionTwoReaders(nn.Module):
    """Its batch norm cannot be folded: the convolution's output is read by others as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        maps = self.conv(x)
        return (maps + self.norm(maps)).mean((2, 3))


def test_a_batch_norm_that_is_not_alone_behind_its_convolution_stays():
    before_it = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten())
    for model in (OneConvolutionTwoReaders(), before_it):
        model, pictures = as_if_trained(model).eval(), images(size=8)
        lean = folded(model)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in lean.modules()) == 1
        with torch.no_grad():
            assert torch.allclose(lean(pictures), model(pictures), atol=1e-5)


class Decides(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_traced_comes_back_as_it_is():
    model = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(3), decides=Decides())).train()
    model.norm.weight.requires_grad_(False)
    assert folded(model) is model
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False, True]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x)))).mean((2, 3))


def test_a_network_that_uses_a_layer_twice_comes_back_as_it_is():
    model = as_if_trained(Twice()).eval()
    assert folded(model) is model


def test_maps_with_batch_norm_get_no_new_top():
    network = nn.Module()
    network.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = nn.Sequential(OrderedDict(normalise=nn.Identity(), network=network))
    with pytest.raises(ValueError, match="have batch norm"):
        with_fully_connected(model, 2, seed=0)
