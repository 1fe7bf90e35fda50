"""Networks: torchvision's and timm's by name, slim ones for the demo, pretrained ones by weight.

Every network takes RGB images in [0, 1] and returns logits: the normalisation is its first layer,
so nobody downstream can forget it or apply it twice. A model is a sequence of two named parts,
`model.normalise` and `model.network`; explanations that walk through layers walk `model.network`.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
import re
import urllib.error
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _zoo() -> ModuleType:
    """torchvision's networks, imported when asked for: two seconds that the demo does without."""
    import torchvision

    return torchvision.models


class Normalised(nn.Module):
    """(image - mean) / std per colour channel."""

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images):  # (n, 3, h, w), not annotated: torch.fx traces it with a stand-in
        return (images - self.mean) / self.std


class SlimResNet(nn.Sequential):
    """A narrow ResNet for small images in which every reduction is an average over 2 x 2.

    A strided convolution or a maximum uses some positions more than others, and that pattern comes
    back in the gradient with respect to the image: pictures drawn from it show a grid. An average
    treats all positions alike and removes the frequency that would fold over (Zhang 2019, "Making
    convolutional networks shift-invariant again", with its cheapest filter). The stem sees the full
    resolution; 64 px images reach the last stage at 4 x 4. Blocks do not start as the identity:
    in the few epochs a demo has, that costs accuracy.

    Args:
        blocks: residual blocks in each of the four stages; (2, 2, 2, 2) is ResNet18.
        width: channels of the first stage; each stage doubles them.
    """

    def __init__(self, classes: int, blocks: Sequence[int], width: int) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, width, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(width),
                relu=nn.ReLU(),
                pool1=nn.AvgPool2d(2),
                layer1=_residual_stage(width, width, blocks[0]),
                pool2=nn.AvgPool2d(2),
                layer2=_residual_stage(width, 2 * width, blocks[1]),
                pool3=nn.AvgPool2d(2),
                layer3=_residual_stage(2 * width, 4 * width, blocks[2]),
                pool4=nn.AvgPool2d(2),
                layer4=_residual_stage(4 * width, 8 * width, blocks[3]),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(8 * width, classes),
            )
        )
        _kaiming(self)


class SlimVGG(nn.Sequential):
    """A narrow VGG (Simonyan & Zisserman 2015) with batch norm: plain convolutions and max pooling.

    For small images, with one linear layer on the averaged features. It has no shortcuts and takes
    maxima where `SlimResNet` averages, so it can judge that network's work as a stranger.
    """

    def __init__(self, classes: int, width: int) -> None:
        channels, layers = 3, []
        for wide in (width, 2 * width, 4 * width, 8 * width, 8 * width):
            layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)]
            layers += [nn.MaxPool2d(2)] if wide != channels else []
            layers += [nn.ReLU()]
            channels = wide
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        super().__init__(*layers)
        _kaiming(self)


class SlimAlexNet(nn.Sequential):
    """A narrow AlexNet (Krizhevsky 2012) for small images: a large strided filter first, then two
    fully connected layers. Batch norm instead of the two-week training; no dropout, for a demo's
    few epochs."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(
            *_convolution(3, 2 * width, 7, stride=2),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 3 * width, 5),
            nn.MaxPool2d(2),
            *_convolution(3 * width, 6 * width, 3),
            *_convolution(6 * width, 4 * width, 3),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(4 * width * 16, 16 * width, bias=False),
            nn.BatchNorm1d(16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, classes),
        )
        _kaiming(self)


class SlimGoogLeNet(nn.Sequential):
    """A narrow GoogLeNet (Szegedy 2015) with batch norm: four inception modules after the stem."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(
            *_convolution(3, width, 3),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width, 3),
            nn.MaxPool2d(2),
            Inception(2 * width, width),
            Inception(4 * width, width),
            nn.MaxPool2d(2),
            Inception(4 * width, 2 * width),
            nn.MaxPool2d(2),
            Inception(8 * width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, classes),
        )
        _kaiming(self)


class Inception(nn.Module):
    """Filters of three sizes and a pooling side by side; `width` channels each."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.one = nn.Sequential(*_convolution(channels_in, width, 1))
        self.three = nn.Sequential(
            *_convolution(channels_in, width, 1), *_convolution(width, width, 3)
        )
        self.five = nn.Sequential(
            *_convolution(channels_in, width // 2, 1), *_convolution(width // 2, width, 5)
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), *_convolution(channels_in, width, 1)
        )

    def forward(self, x):  # (n, channels_in, h, w) -> (n, 4 width, h, w)
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def _convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1
) -> tuple[nn.Module, ...]:
    """Convolution, batch norm and ReLU; the size stays, divided by the stride."""
    padding = kernel // 2
    return (
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def _kaiming(network: nn.Module) -> None:
    """Draw every convolution's weights so that the backward pass keeps its scale (He 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He 2015), at stride 1."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x):  # (n, channels_in, h, w) -> (n, channels_out, h, w)
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


def _residual_stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    """Residual blocks at one resolution; the first one changes the number of channels."""
    more = (Residual(channels_out, channels_out) for _ in range(blocks - 1))
    return nn.Sequential(Residual(channels_in, channels_out), *more)


_SLIM = {  # the first stage is 16 channels wide
    "slim_resnet18": partial(SlimResNet, blocks=(2, 2, 2, 2), width=16),
    "slim_resnet10": partial(SlimResNet, blocks=(1, 1, 1, 1), width=16),
    "slim_vgg6": partial(SlimVGG, width=16),
    "slim_alexnet": partial(SlimAlexNet, width=16),
    "slim_googlenet": partial(SlimGoogLeNet, width=16),
}


def names() -> list[str]:
    """Every name `build` knows: slim ones, torchvision's, and timm's with "timm:" before them."""
    import timm  # a second of imports that most notebooks can do without

    return [
        *_SLIM,
        *_zoo().list_models(module=_zoo()),
        *(f"timm:{name}" for name in timm.list_models()),
    ]


def build(
    name: str,
    classes: int,
    *,
    seed: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> nn.Sequential:
    """An untrained network for `classes` classes, on the CPU, in training mode.

    Args:
        name: "slim_resnet18", a torchvision name ("vgg16_bn") or a timm name ("timm:dpn92").
        seed: the same seed gives the same weights; the global random state is left as it was.
        mean, std: per colour channel, in units of the images: the first layer's normalisation.

    Returns:
        (n, 3, h, w) in [0, 1] -> logits (n, classes).

    Raises:
        ValueError: no such name (near matches are listed), or no classes.
    """
    if classes < 1:
        raise ValueError(f"a network needs at least one class, not {classes}")
    if name not in _SLIM and name not in (known := names()):
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see helpers.models.names()"
        raise ValueError(f"no network is called {name!r}; {hint}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # leaves the devices' generators alone
        if name in _SLIM:
            network = _SLIM[name](classes)
        elif name.startswith("timm:"):
            import timm

            network = timm.create_model(name.removeprefix("timm:"), num_classes=classes)
        else:
            # the inception family would return auxiliary logits beside the logits in training
            one_output = {"aux_logits": False, "init_weights": True}
            options = one_output if name in ("googlenet", "inception_v3") else {}
            network = _zoo().get_model(name, num_classes=classes, **options)
    return nn.Sequential(OrderedDict(normalise=Normalised(mean, std), network=network))


@dataclass(frozen=True)
class Pretrained:
    """A trained network and what is known about the file its weights came from."""

    model: nn.Sequential  # in eval mode
    categories: list[str]  # the name of each output
    file: str  # name of the weights file
    sha256: str
    # the hash in the file's name is the file's hash; timm's hub puts none into names: there, True
    # means that the hub's own client fetched the file, or found what it had fetched before
    official: bool


def pretrained(weights: Enum | str, *, torch_home: Path | None = None) -> Pretrained:
    """A torchvision or timm network with exactly these weights, for ImageNet's 1,000 classes.

    The file is looked for in `torch_home/hub/checkpoints` and then in torch's own cache; what is
    found there is used, official or not, and `official` tells. Only a download must match its hash.

    timm's weights are looked for as `<architecture>.<tag>.safetensors` (or `.pth`), such as
    `dpn92.mx_in1k.safetensors`: what timm's hub calls `model.safetensors`, renamed. Where there is
    no such file timm's hub is asked, by its own client with its own cache. Their normalisation is
    what timm says of the tag: by no means always ImageNet's.

    Args:
        weights: an explicit member such as "MobileNet_V2_Weights.IMAGENET1K_V1", by name or itself.
            "DEFAULT" is refused: it names other weights in other versions. Of timm, architecture
            and tag, "timm:dpn92.mx_in1k"; without a tag they are refused for the same reason.

    Raises:
        ValueError: not such a member or tag, one of other classes than ImageNet's 1,000, or a file
            that does not hold these weights.
        FileNotFoundError: no file and no download; the message says what to fetch and where from.
    """
    if isinstance(weights, str) and weights.startswith("timm:"):
        return _timm(weights.removeprefix("timm:"), torch_home)
    weights, architecture = _explicit(
        weights, _zoo(), "classification", "MobileNet_V2_Weights.IMAGENET1K_V1"
    )
    model, file = _trained(weights, architecture, torch_home)
    digest = _sha256(file)
    return Pretrained(
        model=model,
        categories=list(weights.meta["categories"]),
        file=file.name,
        sha256=digest,
        official=digest.startswith(_hash_in(file.name)),
    )


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _timm(name: str, torch_home: Path | None) -> Pretrained:
    """timm's network with the weights `<architecture>.<tag>`; see `pretrained`."""
    import timm

    architecture, _, tag = name.partition(".")
    if not tag or tag == "DEFAULT":
        tags = ", ".join(f"'timm:{known}'" for known in timm.list_pretrained(f"{architecture}.*"))
        example = f"there are {tags}" if tags else "name one in full, such as 'timm:dpn92.mx_in1k'"
        raise ValueError(f"weights 'timm:{name}' do not say which weights; {example}")
    if name not in (known := timm.list_pretrained()):
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean timm:{', timm:'.join(near)}?" if near else "see timm.list_pretrained"
        raise ValueError(f"timm has no weights {name!r}; {hint}")
    published = timm.get_pretrained_cfg(name)
    if published.num_classes != 1000 or "in1k" not in tag:
        raise ValueError(
            f"weights 'timm:{name}' were not trained to tell ImageNet's 1,000 classes apart"
        )
    hub = published.hf_hub_id  # a few old ones are at an address of their own instead
    address = (
        f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else published.url
    )
    file, fetched = _timm_file(name, hub, address, torch_home)
    try:
        with _only_tensors_from(file.parent.parent):
            # timm's own loading, from this file: it renames the weights of some architectures
            source = {"file": str(file), "custom_load": False}
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source)
    except Exception as error:  # zip, header, key and shape errors all mean one thing here
        raise ValueError(
            f"{file} does not hold the weights timm:{name} ({error}); delete it and put the file "
            f"from {address} in its place, under that name"
        ) from error
    normalise = Normalised(published.mean, published.std)
    digest = _sha256(file)
    return Pretrained(
        model=nn.Sequential(OrderedDict(normalise=normalise, network=network)).eval(),
        # timm's networks answer in the same order as torchvision's
        categories=list(_zoo().MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]),
        file=f"{name}{file.suffix}",
        sha256=digest,
        official=fetched or digest.startswith(_hash_in(file.name)),
    )


def _timm_file(
    name: str, hub: str | None, address: str, torch_home: Path | None
) -> tuple[Path, bool]:
    """The file of timm's weights, and whether it was the hub's own client that gave it."""
    hubs, names = _hubs(torch_home), [f"{name}.safetensors", f"{name}.pth"]
    if not hub:
        names.append(address.rsplit("/", 1)[-1])
    places = [folder / "checkpoints" / file for folder in hubs for file in names]
    if found := next((place for place in places if place.is_file()), None):
        return found, False
    if not hub:
        return _download(address, hubs[-1], hubs[0]) / "checkpoints" / names[-1], False
    import huggingface_hub  # as timm itself does

    try:
        return Path(huggingface_hub.hf_hub_download(hub, "model.safetensors")), True
    except Exception as error:  # of the network, the hub or the disk: nothing has come
        raise FileNotFoundError(
            f"no weights at {places[0]}, and the download failed ({error}): "
            f"fetch {address} and put it there, under that name"
        ) from error


def pretrained_segmenter(weights: Enum | str, *, torch_home: Path | None = None) -> nn.Sequential:
    """A torchvision network for semantic segmentation with exactly these weights, in eval mode.

    Files are found, downloaded and refused as in `pretrained`. All of torchvision's answer with
    "background" and then VOC's 20 classes, in VOC's order.

    Args:
        weights: an explicit member such as
            "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1", by name or itself.

    Returns:
        (n, 3, h, w) in [0, 1] -> {"out": scores (n, 21, h, w)}. They were trained on pictures whose
        shorter side has 520 px; much smaller ones show objects smaller than they know.

    Raises:
        ValueError: not such a member, or a file that does not hold these weights.
        FileNotFoundError: no file and no download; the message says what to fetch and where from.
    """
    weights, architecture = _explicit(
        weights,
        _zoo().segmentation,
        "segmentation",
        "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1",
    )
    return _trained(weights, architecture, torch_home)[0]


def _trained(
    weights: Enum, architecture: str, torch_home: Path | None
) -> tuple[nn.Sequential, Path]:
    """The network with these weights behind its normalisation, in eval mode, and their file."""
    name = weights.url.rsplit("/", 1)[-1]
    hubs = _hubs(torch_home)
    hub = next((hub for hub in hubs if (hub / "checkpoints" / name).is_file()), None)
    if hub is None:
        hub = _download(weights.url, hubs[-1], hubs[0])
    file = hub / "checkpoints" / name
    try:
        with _only_tensors_from(hub):
            network = _zoo().get_model(architecture, weights=weights, progress=False)
    except Exception as error:  # pickle, zip, key and shape errors all mean one thing here
        raise ValueError(
            f"{file} does not hold the weights {weights} ({error}); delete it and put the file "
            f"from {weights.url} in its place"
        ) from error
    transform = weights.transforms()
    normalise = Normalised(transform.mean, transform.std)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network)).eval(), file


def _hubs(torch_home: Path | None) -> list[Path]:
    """Where weights are looked for, in this order; the last is torch's own cache.

    Raises:
        FileNotFoundError: there is no folder `torch_home`.
    """
    if torch_home is not None and not Path(torch_home).is_dir():
        raise FileNotFoundError(f"there is no folder {torch_home} to look for weights in")
    cache = Path(torch.hub.get_dir())
    return ([Path(torch_home) / "hub"] if torch_home else []) + [cache]


def _explicit(
    weights: Enum | str, module: ModuleType, purpose: str, example: str
) -> tuple[Enum, str]:
    """The member of a torchvision module's enumerations that is meant, and its network's name."""
    model_of = {
        _zoo().get_model_weights(model): model for model in _zoo().list_models(module=module)
    }
    example = f"name one member in full, such as '{example}'"
    if isinstance(weights, str):
        if weights.endswith("DEFAULT"):
            raise ValueError(f"weights {weights!r} do not say which weights; {example}")
        try:
            weights = _zoo().get_weight(weights)
        except (ValueError, KeyError, AttributeError):
            known = [str(member) for enumeration in model_of for member in enumeration]
            near = difflib.get_close_matches(weights, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else example
            raise ValueError(f"torchvision has no weights {weights!r}; {hint}") from None
    if type(weights) not in model_of:
        raise ValueError(f"weights {weights!s} are not of a network for {purpose}; {example}")
    return weights, model_of[type(weights)]


def _hash_in(name: str) -> str:
    """The start of the SHA-256 that torch's file names carry: "vgg19-dcbb9e9d.pth"."""
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return found.group(1) if found else "no hash in this name"


def _download(url: str, hub: Path, wished: Path) -> Path:
    """Fetch into torch's own cache (a data folder may be read-only), hash checked."""
    name = url.rsplit("/", 1)[-1]
    target = hub / "checkpoints" / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=_hash_in(name))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"no weights at {wished / 'checkpoints' / name}, and the download failed ({error}): "
            f"fetch {url} and put it there"
        ) from error
    return hub


@contextmanager
def _only_tensors_from(hub: Path) -> Iterator[None]:
    """Let torch's hub be this folder, and let no file run code while it is read."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before, folder = os.environ.get(switch), torch.hub.get_dir()
    os.environ[switch] = "1"
    torch.hub.set_dir(str(hub))
    try:
        yield
    finally:
        torch.hub.set_dir(folder)
        os.environ.pop(switch) if before is None else os.environ.update({switch: before})


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and without gradients for its weights; afterwards as it was."""
    modes = {module: module.training for module in model.modules()}
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode


def embed(model: nn.Module, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """What the last layer sees: penultimate features, averaged over space where they have any.

    The last layer is the linear or convolutional layer that ran last, which holds for torchvision's
    and timm's classifiers alike. The model's mode and gradients are the caller's choice.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = inputs[:1]

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError("this model has no linear or convolutional layer to look in front of")
    features = seen[0]
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def load_features(model: nn.Module, trained: Mapping[str, Tensor]) -> list[str]:
    """Start `model` from trained weights, except where the shapes differ, as last layers' do.

    Returns:
        the names of the weights and buffers that keep their own start.

    Raises:
        ValueError: more than the last layer differs: weights of another architecture.
    """
    own = model.state_dict()
    fits = {k: v for k, v in trained.items() if k in own and own[k].shape == v.shape}
    left = [name for name in own if name not in fits]
    strangers = [name for name in trained if name not in own]
    if len(left) > 4 or strangers:  # a last layer has a weight and a bias, or two of each
        wrong = ", ".join((left + strangers)[:8])
        raise ValueError(f"these weights are of another architecture; they differ in {wrong}")
    model.load_state_dict(own | fits)
    return left


class Probe(nn.Module):
    """A new linear layer on what another network's last layer sees; see `embed`."""

    def __init__(
        self, backbone: nn.Module, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.layer.weight.copy_(weight)
            self.layer.bias.copy_(bias)

    def forward(self, images):  # (n, 3, h, w) -> (n, k)
        return self.layer(embed(self.backbone, images))


class Merged(nn.Module):
    """A classifier asked coarser questions: the probability of each group of its classes.

    An ImageNet network knows 118 breeds and no "dog". The outputs are log-probabilities, one per
    group and a last one for all other classes, so their softmax is the groups' probabilities.

    Args:
        classes: how many the model has.

    Raises:
        ValueError: a group without a class, a class in two groups, or no other classes.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[int]], classes: int) -> None:
        super().__init__()
        taken = [k for group in groups for k in group]
        rest = sorted(set(range(classes)) - set(taken))
        if not all(map(len, groups)) or len(set(taken)) < len(taken) or not rest:
            raise ValueError("every group needs a class of its own, and some must be left over")
        if not set(taken) <= set(range(classes)):
            raise ValueError(f"groups name classes {max(taken)}; valid are 0 to {classes - 1}")
        self.model = model
        self.groups = [torch.tensor(list(group)) for group in (*groups, rest)]

    def forward(self, images):  # (n, 3, h, w) -> (n, groups + 1)
        said = self.model(images).float().log_softmax(1)
        return torch.stack([said[:, group].logsumexp(1) for group in self.groups], 1)


def with_fully_connected(
    model: nn.Sequential, classes: int, *, hidden: int = 256, cells: int = 7, seed: int
) -> nn.Sequential:
    """A VGG-like top, untrained, on the trained maps of a network that has none: the maps averaged
    to cells x cells, flattened, and two fully connected layers.

    Only the new layers are to be learned: the maps' weights are copies that want no gradient.

    Args:
        model: one of torchvision's that keep their maps in `features`, as `pretrained` gives it.

    Raises:
        ValueError: the network has no `features`, or batch norm in them, whose statistics would
            move while the new layers are trained.
    """
    network = model.network
    if not hasattr(network, "features"):
        raise ValueError(f"{type(network).__name__} keeps its maps elsewhere than in .features")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.features.modules()):
        raise ValueError(f"the maps of {type(network).__name__} have batch norm")
    features = copy.deepcopy(network.features).requires_grad_(False)
    with torch.no_grad():
        channels = features(torch.zeros(1, 3, 224, 224)).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        top = [
            nn.AdaptiveAvgPool2d(cells),
            nn.Flatten(),
            nn.Linear(channels * cells * cells, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        ]
    network = nn.Sequential(OrderedDict(features=features, top=nn.Sequential(*top)))
    parts = OrderedDict(normalise=copy.deepcopy(model.normalise), network=network)
    return nn.Sequential(parts)


def folded(model: nn.Module) -> nn.Module:
    """A copy, in eval mode, whose convolutions have the batch norm behind them in their weights:
    the same answers up to rounding, with fewer operations for those who ask many times.

    A network that torch.fx cannot trace, or that uses a layer twice, comes back as it is.
    """
    from torch.fx.experimental.optimization import fuse

    try:
        with frozen(model):
            used = [n.target for n in fx.Tracer().trace(model).nodes if n.op == "call_module"]
            layers = [
                u for u in used if next(model.get_submodule(u).parameters(), None) is not None
            ]
            return fuse(model) if len(set(layers)) == len(layers) else model
    except Exception:  # whatever the network's own code does with a stand-in
        return model


def with_last_layer(
    model: nn.Module, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]
) -> nn.Module:
    """A copy of the model with this last linear layer instead of its own.

    Raises:
        ValueError: the model's last layer is not linear, or sees another number of features.
    """
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear or linear[-1][1].in_features != weight.shape[1]:
        found = f"sees {linear[-1][1].in_features} features" if linear else "is not linear"
        raise ValueError(f"the model's last layer {found}; needed is one of {weight.shape[1]}")
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    model = copy.deepcopy(model)
    model.set_submodule(linear[-1][0], layer)
    return model
