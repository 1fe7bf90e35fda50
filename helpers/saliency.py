"""Where a network looks: attribution maps over an image's positions, and how to judge them.

Maps of the network: Grad-CAM, the input gradient, guided backpropagation and layer-wise relevance
propagation. Maps that know no network, to be beaten first: the image's centre and its colours.
Scores: agreement with true masks, the target's probability as pixels go or come, and whether a map
changes at all when the network forgets everything.

Paper 1 tried to remove backgrounds by attribution, which "did not accurately segment the images"
(section VII). Grad-CAM (Selvaraju 2017, equations 1 and 2) is the attribution there, and
`helpers.backgrounds.attribution_masks` makes masks of it, so that the attempt can be measured.

Images are in [0, 1]; networks are those of `helpers.models`, whose first layer normalises.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from helpers.models import frozen


def grad_cam(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    layer: nn.Module,
    batch_size: int = 64,
) -> Float[Tensor, "n h w"]:
    """Grad-CAM of the target's score S: ReLU(sum_k a_k f_k), with a_k the mean of dS/df_k.

    f_k are the layer's output maps and the mean is over positions. The map is enlarged to the
    image's size (bilinear) and divided by its maximum, which the paper does to draw it: maps of
    different images compare positions, not strengths. A map that is 0 everywhere, where no position
    speaks for the target, stays 0.

    The model is used in eval mode with frozen weights and comes back as it was. No map depends on
    which images share a batch, up to rounding.

    Args:
        targets: class of each image, whose logit S is.
        layer: a part of `model` whose output is (n, k, rows, columns); see `last_maps`. Of a layer
            that runs several times the last run counts.

    Returns:
        Maps in [0, 1], on the images' device.

    Raises:
        ValueError: not one target per image, a target the model has no output for, an image value
            outside [0, 1], a layer that is not the model's or has no maps, or no batch size.
        FloatingPointError: a map is not finite.
    """
    if all(layer is not module for module in model.modules()):
        raise ValueError("the layer is not a part of the model")
    from captum.attr import LayerGradCam  # half a second that most notebooks can do without

    explain = LayerGradCam(model, layer)

    def attribute(batch: Tensor, of: Tensor) -> Tensor:
        coarse = explain.attribute(batch, target=of, relu_attributions=True)
        if not isinstance(coarse, Tensor) or coarse.ndim != 4:
            raise ValueError("the layer's output has no positions; see last_maps")
        return functional.interpolate(coarse.detach(), images.shape[2:], mode="bilinear")[:, 0]

    return _maps(model, images, targets, batch_size, attribute)


def input_gradient(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    batch_size: int = 64,
) -> Float[Tensor, "n h w"]:
    """The largest |dS/dx| of a pixel's three colours (Simonyan 2014, section 3.1).

    x are the values in [0, 1], before the normalisation. Scaling, frozen weights, returns and
    errors as in `grad_cam`.
    """
    from captum.attr import Saliency

    explain = Saliency(model)

    def attribute(batch: Tensor, of: Tensor) -> Tensor:
        return explain.attribute(batch, target=of).amax(1)

    return _maps(model, images, targets, batch_size, attribute)


def guided_backprop(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    batch_size: int = 64,
) -> Float[Tensor, "n h w"]:
    """As `input_gradient`, but every ReLU passes back only what is positive (Springenberg 2015,
    section 3.4).

    Only modules of type `nn.ReLU` are guided: `functional.relu`, called inside a forward, and other
    nonlinearities pass their plain gradient. Where something else reads a ReLU's input as well, as
    in pre-activation networks, captum cuts the sum of both gradients. The paper draws signed
    colours; the map has the largest absolute value of the three. The rest is as in `grad_cam`.

    Raises:
        ValueError: also a model without any `nn.ReLU`.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError("the model has no nn.ReLU to guide; functional ones cannot be seen")
    from captum.attr import GuidedBackprop

    explain = GuidedBackprop(model)

    def attribute(batch: Tensor, of: Tensor) -> Tensor:
        return explain.attribute(batch, target=of).abs().amax(1)

    return _maps(model, images, targets, batch_size, attribute)


def lrp(
    model: nn.Sequential,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    batch_size: int = 64,
) -> Float[Tensor, "n h w"]:
    """Layer-wise relevance propagation (Bach 2015): the score, handed back layer by layer.

    A layer's output hands its relevance to its inputs in proportion to what they contributed. In
    linear layers, poolings and additions all contributions count (equation 58, epsilon 1e-9); in
    convolutions only the positive ones (equation 60 with alpha = 1, beta = 0), without the bias.
    With equation 58 everywhere the result of such networks would be gradient times input (Ancona
    2018, proposition 1). Batch norms are first folded into the layer before them, and
    `model.network` is explained on the normalised image. The map is the positive part of the
    relevance summed over colours. Scaling and the rest are as in `grad_cam`.

    Raises:
        ValueError: also a network that cannot be traced, has a layer without a rule (named in the
            message; there are rules for Conv2d, Linear, ReLU, batch norms after those layers, max
            and average pooling, sums and concatenations), or a convolution of values that may be
            negative, beside the first layer, which must be a convolution.
    """
    if not hasattr(model, "normalise"):
        raise ValueError("the model has no layer `normalise`; see helpers.models.build")
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule

    network = _propagating(model.network)
    explain = LRP(network)

    def attribute(batch: Tensor, of: Tensor) -> Tensor:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True)  # captum removes them
        x = model.normalise(batch)
        relevance = explain.attribute(torch.cat([x.clamp(min=0), -x.clamp(max=0)], 1), target=of)
        return relevance.detach().sum(1).clamp(min=0)

    return _maps(model, images, targets, batch_size, attribute)


def _propagating(network: nn.Module) -> nn.Module:
    """A copy that captum can walk, which takes (n, 6, h, w): the positive parts of x and of -x.

    captum walks modules and has rules for few. Its rule for positive contributions keeps the
    positive weights, which is right where the input has no negative values: the first layer gets x
    in two parts, W x = W max(x, 0) + (-W) max(-x, 0), and the others are checked.
    """
    from captum.attr._utils.custom_modules import Addition_Module

    relu = (nn.ReLU, functional.relu, torch.relu, "relu", "relu_")
    add = (operator.add, operator.iadd, torch.add, "add", "add_")
    plain = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    plain += (torch.cat, torch.flatten, "flatten")
    fuse = {
        (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn_eval,
        (nn.Linear, nn.BatchNorm1d): fuse_linear_bn_eval,
    }
    try:
        traced = fx.symbolic_trace(copy.deepcopy(network).eval())
    except Exception as error:  # whatever a forward does with a value that is not there yet
        raise ValueError(f"relevance needs a network that torch.fx can trace: {error}") from error
    layers = dict(traced.named_modules())
    for node in [n for n in traced.graph.nodes if n.op not in ("placeholder", "output")]:
        layer, sources = layers.get(node.target), node.all_input_nodes
        kind = type(layer) if layer else node.target
        before = layers.get(sources[0].target) if sources else None
        if kind in relu or (kind in add and len(sources) == 2 and not node.kwargs):
            # one module per use and none in place, because captum keeps its notes in the module
            traced.add_module(node.name, nn.ReLU() if kind in relu else Addition_Module())
            node.op, node.target, node.args, node.kwargs = "call_module", node.name, (*sources,), {}
        elif kind is nn.Flatten:
            node.op, node.target = "call_function", torch.flatten
            node.args = (sources[0], layer.start_dim, layer.end_dim)
        elif (type(before), kind) in fuse and len(sources[0].users) == 1:
            layers[sources[0].target] = fuse[type(before), kind](before, layer)
            traced.set_submodule(sources[0].target, layers[sources[0].target])
            node.replace_all_uses_with(sources[0])
            traced.graph.erase_node(node)
        elif kind in (nn.Dropout, nn.Identity):
            node.replace_all_uses_with(sources[0])
            traced.graph.erase_node(node)
        elif kind not in plain:
            raise ValueError(f"no rule for {getattr(kind, '__name__', kind)} (at {node.name})")
    traced.delete_all_unused_submodules()
    traced.recompile()

    layers, positive, called = dict(traced.named_modules()), set(), set()
    for node in traced.graph.nodes:
        kind = type(layers.get(node.target))
        unsigned = all(source in positive for source in node.all_input_nodes)
        if kind is nn.Conv2d and not unsigned:
            raise ValueError(f"no rule for Conv2d where its input has negatives (at {node.name})")
        if node.target in called:
            raise ValueError(f"no rule for {kind.__name__} that runs again (at {node.name})")
        if node.op == "call_module":
            called.add(node.target)
        if kind is nn.ReLU or (unsigned and kind not in (nn.Conv2d, nn.Linear)):
            positive.add(node)
    for user in next(iter(traced.graph.nodes)).users:
        first = layers.get(user.target)
        if type(first) is not nn.Conv2d or first.groups > 1:
            raise ValueError(f"the first layer must be a Conv2d, not {user.name}")
        first.weight = nn.Parameter(torch.cat([first.weight, -first.weight], 1))
        first.in_channels *= 2
    return traced


def _maps(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    batch_size: int,
    attribute: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`attribute` of (m, 3, h, w) and (m,), batch by batch, each map divided by its maximum.

    Every method's checks; `grad_cam` says what they are.
    """
    _check(model, images, targets, batch_size)
    images = images.detach()
    maps = images.new_zeros(len(images), *images.shape[2:])
    with frozen(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks|Input Tensor 0 did not")  # captum
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            maps[rows] = attribute(images[rows], targets[rows].to(images.device))
    if not maps.isfinite().all():
        raise FloatingPointError("the network's maps or gradients are not finite")
    return _to_peak(maps)


def _check(model: nn.Module, images: Tensor, targets: Tensor, batch_size: int) -> None:
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    if not len(images):
        return
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError("an image has values outside [0, 1]")
    with frozen(model), torch.no_grad():
        outputs = model(images[:1]).shape[1]
    if not 0 <= int(targets.min()) <= int(targets.max()) < outputs:
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; valid are 0 to "
            f"{outputs - 1}, the model's outputs"
        )


def _to_peak(maps: Tensor) -> Tensor:
    peak = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, 1.0)


def last_maps(model: nn.Module, images: Float[Tensor, "n 3 h w"]) -> nn.Module:
    """The layer that finishes last among those whose output has more than one position.

    Grad-CAM's usual choice (Selvaraju 2017, section 3: the deepest features that still know where
    they are), found by running one image, so it follows the images' size. It is the outermost such
    layer: a ResNet's last stage, not the ReLU at its end. What counts is an output (n, k, rows,
    columns): a vision transformer's only one is its patch embedding, for which Grad-CAM is not
    meant.

    Raises:
        ValueError: no image to run, or no such layer.
    """
    if not len(images):
        raise ValueError("finding the last maps takes at least one image")
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found[:] = [module]

    parts = [module for module in model.modules() if module is not model]
    hooks = [module.register_forward_hook(note) for module in parts]
    try:
        with frozen(model), torch.no_grad():
            model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not found or found[0] is getattr(model, "normalise", None):
        h, w = images.shape[2:]
        raise ValueError(f"no layer of this model has maps of more than 1 x 1 for {h} x {w} px")
    return found[0]


# ---------------------------------------- maps that know no network


def centre_gaussian(n: int, h: int, w: int) -> Float[Tensor, "n h w"]:
    """A round bump at the centre, where photographers put things; its maximum is 1.

    The standard deviation is a quarter of the shorter side, in both directions.
    """
    down = torch.arange(h) - (h - 1) / 2
    right = torch.arange(w) - (w - 1) / 2
    squared = down[:, None].square() + right.square()
    bump = torch.exp(-squared / (2 * (min(h, w) / 4) ** 2))
    return (bump / bump.max()).repeat(n, 1, 1)


def colour_contrast(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
    """How far a pixel's colour is from the image's mean colour (Achanta 2009).

    The Euclidean distance in CIE Lab of the image, blurred by a 5 x 5 binomial filter with repeated
    borders, to the mean of the unblurred one, divided by its maximum. An image of one colour (no
    distance above 1e-3, far below what can be seen) gives zeros.
    """
    from scipy.ndimage import convolve1d
    from skimage.color import rgb2lab

    lab = blurred = rgb2lab(images.detach().double().cpu().numpy(), channel_axis=1)
    for axis in (2, 3):
        blurred = convolve1d(
            blurred, [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], axis, mode="nearest"
        )
    difference = torch.from_numpy(blurred - lab.mean((2, 3), keepdims=True))
    distance = difference.norm(dim=1)
    distance[distance.amax((1, 2)) < 1e-3] = 0
    return _to_peak(distance).to(images)


# ---------------------------------------- agreement with true masks


def overlap(
    predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]
) -> dict[str, Float64[Tensor, " n"]]:
    """How well each predicted mask covers the true one.

    Returns:
        accuracy, precision, recall, f1, f_beta (beta squared is 0.3, Achanta 2009) and iou, all in
        [0, 1]. An empty prediction has precision 0, and so 0 in all but accuracy.

    Raises:
        ValueError: a row whose true mask is empty, where recall does not exist.
    """
    _nonempty(truth)
    hit = (predicted & truth).sum((1, 2)).double()
    said, real = predicted.sum((1, 2)).double(), truth.sum((1, 2)).double()
    return {
        "accuracy": (predicted == truth).double().mean((1, 2)),
        "precision": hit / said.clamp(min=1),
        "recall": hit / real,
        "f1": 2 * hit / (said + real),
        "f_beta": 1.3 * hit / (said + 0.3 * real),
        "iou": hit / (said + real - hit),
    }


def pooled(predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]) -> dict[str, float]:
    """The measures of `overlap` over all pixels of all images, so that large objects count more.

    Raises:
        ValueError: no pixel of any image is on an object.
    """
    as_one = (mask.reshape(1, -1, mask.shape[2]) for mask in (predicted, truth))
    return {name: float(value) for name, value in overlap(*as_one).items()}


def thresholded(maps: Float[Tensor, "n h w"], level: float) -> Bool[Tensor, "n h w"]:
    """Where a map is at least `level` times its maximum; nowhere, if it is zero everywhere.

    Raises:
        ValueError: a level outside [0, 1].
    """
    if not 0 <= level <= 1:
        raise ValueError(f"a level is a share of the maximum, 0 to 1, not {level}")
    peak = maps.amax((1, 2), keepdim=True)
    return (maps >= level * peak) & (peak > 0)


def choose_threshold(
    maps: Float[Tensor, "n h w"],
    truth: Bool[Tensor, "n h w"],
    levels: Sequence[float],
    measure: str = "f_beta",
) -> float:
    """The level of `thresholded` whose measure has the highest mean over images; of equals the
    lowest. Choose on other images than those that are judged.

    Raises:
        ValueError: no level, no image, or as in `overlap` and `thresholded`.
        KeyError: no such measure.
    """
    if not len(levels) or not len(maps):
        raise ValueError("a choice takes at least one level and one image")
    means = {
        float(level): overlap(thresholded(maps, level), truth)[measure].mean().item()
        for level in sorted(levels)
    }
    return max(means, key=means.get)  # the first of equals


def pointing_game(
    maps: Float[Tensor, "n h w"], truth: Bool[Tensor, "n h w"], tolerance: int = 0
) -> Float[Tensor, " n"]:
    """Whether the map's maximum is on the object: 1 or 0 (Zhang 2018, section 4.1).

    Of several maxima it is the share that is on the object. A map that is zero everywhere points
    nowhere: 0. The paper's 15 pixels of tolerance are a disc, ours are a square.

    Args:
        tolerance: how many pixels beside the object, also diagonally, still count.

    Raises:
        ValueError: a row whose true mask is empty, or a negative tolerance.
    """
    _nonempty(truth)
    if tolerance < 0:
        raise ValueError(f"a tolerance is 0 pixels or more, not {tolerance}")
    grown = functional.max_pool2d(truth.to(maps), 2 * tolerance + 1, 1, tolerance)
    highest = thresholded(maps, 1.0)
    return (highest * grown).sum((1, 2)) / highest.sum((1, 2)).clamp(min=1)


def energy_inside(
    maps: Float[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """The share of a map's sum that lies on the object (Wang 2020, section 4.3); NaN if the sum is
    0. By chance it is the share of the image that the object covers."""
    return (maps * truth).sum((1, 2)) / maps.sum((1, 2))


def _nonempty(truth: Bool[Tensor, "n h w"]) -> None:
    empty = (~truth.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"the true mask is empty in row {', '.join(map(str, empty[:10]))}")


# ---------------------------------------- what the network says without these pixels


def deletion_insertion(
    model: nn.Sequential,
    images: Float[Tensor, "n 3 h w"],
    targets: Int64[Tensor, " n"],
    maps: Float[Tensor, "n h w"],
    steps: int = 16,
    batch_size: int = 256,
) -> tuple[Float[Tensor, "n {steps}+1"], Float[Tensor, "n {steps}+1"]]:
    """The target's probability as pixels go, and as they come, the highest of the map first
    (Petsiuk 2018, its causal metrics).

    Column k has k / steps of the pixels treated. Deletion paints them in the network's mean colour,
    0 after its normalisation; insertion starts from the image blurred with a standard deviation of
    an eighth of its shorter side (5 of 224 pixels in the authors' code, which leaves small images
    recognisable) and puts the true pixels back. Equal values of a map are ordered by one fixed
    random permutation, the same for every image: maps that are mostly 0 would otherwise go row by
    row.

    Args:
        batch_size: altered images that run at once.

    Returns:
        Deletion and insertion, probabilities. Good maps make the first fall and the second rise
        early; see `area_under`.

    Raises:
        ValueError: no step, or as in `grad_cam`, or a model without `normalise`.
        FloatingPointError: a map or a probability is not finite.
    """
    from scipy.ndimage import gaussian_filter

    if not hasattr(model, "normalise"):
        raise ValueError("the model has no layer `normalise`; see helpers.models.build")
    if steps < 1:
        raise ValueError(f"pixels go in at least 1 step, not {steps}")
    _check(model, images, targets, batch_size)
    if not maps.isfinite().all():
        raise FloatingPointError("a map is not finite")
    images, n, (h, w) = images.detach(), len(images), images.shape[2:]
    shuffled = torch.randperm(h * w, generator=torch.Generator().manual_seed(0)).to(maps.device)
    order = shuffled[maps.flatten(1)[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    turn = order.argsort(1).view(n, 1, h, w).to(images.device)  # 0 is the first pixel to go

    sigma = min(h, w) / 8
    blurred = gaussian_filter(images.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    blurred = torch.from_numpy(blurred).to(images)
    curves = images.new_zeros(2, n * (steps + 1))
    with frozen(model), torch.no_grad():
        for jobs in torch.arange(n * (steps + 1), device=images.device).split(batch_size):
            image, step = jobs // (steps + 1), jobs % (steps + 1)
            treated = turn[image] < (step * h * w / steps).round().view(-1, 1, 1, 1)
            for curve, before, after in (
                (curves[0], images[image], model.normalise.mean),
                (curves[1], blurred[image], images[image]),
            ):
                said = model(torch.where(treated, after, before)).softmax(1)
                curve[jobs] = said.gather(1, targets.to(jobs.device)[image, None])[:, 0]
    if not curves.isfinite().all():
        raise FloatingPointError("the network's probabilities are not finite")
    deletion, insertion = curves.view(2, n, steps + 1)
    return deletion, insertion


def area_under(curve: Float[Tensor, "n points"]) -> Float[Tensor, " n"]:
    """The area under each row by the trapezoidal rule, its points spread evenly from 0 to 1.

    Raises:
        ValueError: fewer than two points.
    """
    if curve.shape[1] < 2:
        raise ValueError(f"an area takes at least two points, not {curve.shape[1]}")
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1))


# ---------------------------------------- does the map depend on what was learned?


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """A copy that has forgotten everything, for the sanity check of maps (Adebayo 2018).

    Every layer draws its weights anew, as PyTorch does when it is made, and batch norms forget
    their statistics; buffers such as the normalisation's stay. The same seed gives the same
    weights on every device, and the global random state is left as it was.

    Raises:
        ValueError: a part with weights of its own that cannot draw them anew; it is named.
    """
    device = next(model.parameters()).device
    fresh = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, module in fresh.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif any(True for _ in module.parameters(recurse=False)):
                raise ValueError(f"{name}, a {type(module).__name__}, cannot draw its weights anew")
    return fresh.to(device)


def rank_similarity(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float64[Tensor, " n"]:
    """Spearman's rank correlation of each pair of maps, -1 to 1; equal values share their mean
    rank. NaN where a map is constant. On the CPU."""
    from scipy.stats import rankdata

    ranks = (
        torch.from_numpy(rankdata(maps.detach().flatten(1).cpu().numpy(), axis=1))
        for maps in (a, b)
    )
    x, y = (r - r.mean(1, keepdim=True) for r in ranks)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
