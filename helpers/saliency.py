"""Where a network looks: attribution maps over an image's positions.

Paper 1 tried to remove backgrounds by attribution, which "did not accurately segment the images"
(section VII). Grad-CAM (Selvaraju 2017, equations 1 and 2) is the attribution here, and
`helpers.backgrounds.attribution_masks` makes masks of it, so that the attempt can be measured.

Images are in [0, 1]; networks are those of `helpers.models`, whose first layer normalises.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

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
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    if all(layer is not module for module in model.modules()):
        raise ValueError("the layer is not a part of the model")
    maps = images.new_zeros(len(images), *images.shape[2:])
    if not len(images):
        return maps
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError("an image has values outside [0, 1]")

    from captum.attr import LayerGradCam  # half a second that most notebooks can do without

    def score(batch: Tensor, of: Tensor) -> Tensor:  # (m, 3, h, w), (m,) -> (m,)
        logits = model(batch)
        if not 0 <= int(of.min()) <= int(of.max()) < logits.shape[1]:
            raise ValueError(
                f"targets run from {int(of.min())} to {int(of.max())}; valid are 0 to "
                f"{logits.shape[1] - 1}, the model's outputs"
            )
        return logits.gather(1, of[:, None])[:, 0]

    explain = LayerGradCam(score, layer)
    with frozen(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            of = targets[rows].to(images.device)
            coarse = explain.attribute(
                images[rows], additional_forward_args=(of,), relu_attributions=True
            )
            if not isinstance(coarse, Tensor) or coarse.ndim != 4:
                raise ValueError("the layer's output has no positions; see last_maps")
            fine = nn.functional.interpolate(coarse.detach(), images.shape[2:], mode="bilinear")
            maps[rows] = fine[:, 0]
    if not maps.isfinite().all():
        raise FloatingPointError("the network's maps or gradients are not finite")
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
