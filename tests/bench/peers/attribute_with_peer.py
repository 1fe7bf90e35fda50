"""Attribute with grad-cam or zennit what the benchmark asks for; runs in the peer's environment.

    python attribute_with_peer.py '{"peer": "zennit", "architecture": "vgg16", "batch": ..., ...}'

Says which methods there are and then, for every {"method": ..., "images": 4, "save": null} on
standard input, explains so many images of the batch at once and answers with the seconds it took,
or with the reason why it cannot. Where "save" names a file, that holds the maps and the logits.

Weights are frozen, so that no method computes gradients for them.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import models

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
device = "cuda" if torch.cuda.is_available() else "cpu"
layout = torch.channels_last if job["channels_last"] else torch.contiguous_format
Method = Callable[[Tensor, Tensor], tuple[float, Tensor]]  # images and classes: seconds and maps
clock = time.process_time if job["processor_time"] else time.perf_counter


def grad_cam(model: nn.Sequential) -> dict[str, Method]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    explain = GradCAM(model, [model.get_submodule(job["layer"])])
    explain.compute_input_gradient = True  # with frozen weights nothing else would have one

    def attribute(images: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        wanted = [ClassifierOutputTarget(k) for k in targets.tolist()]
        return timed(lambda: torch.from_numpy(explain(images, wanted)))

    return {"Grad-CAM": attribute}


def zennit(model: nn.Sequential) -> dict[str, Method]:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonGammaBox, ExcitationBackprop
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    canonizer = ResNetCanonizer if "resnet" in job["architecture"] else VGGCanonizer
    black, white = (
        model.normalise(torch.full((1, 3, 1, 1), value, device=device)) for value in (0.0, 1.0)
    )
    composites = {
        "LRP (epsilon, gamma, box)": EpsilonGammaBox(
            low=black, high=white, canonizers=[canonizer()]
        ),
        "excitation backprop": ExcitationBackprop(canonizers=[canonizer()]),
    }

    def attribute(composite, images: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        with Gradient(model.network, composite) as explain:
            return timed(lambda: relevance(explain, images, targets))

    def relevance(explain: Gradient, images: Tensor, targets: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(targets, job["classes"]).to(images)
        return explain(model.normalise(images), one_hot)[1].sum(1)

    return {
        name: lambda *given, composite=composite: attribute(composite, *given)
        for name, composite in composites.items()
    }


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    synchronise()
    started = clock()
    maps = run()
    synchronise()
    return clock() - started, maps


def synchronise() -> None:
    if device == "cuda":
        torch.cuda.synchronize()


model = models.build(job["architecture"], job["classes"], seed=job["seed"])
model.to(device, memory_format=layout).eval().requires_grad_(False)
batch = torch.load(job["batch"], weights_only=True, map_location=device)
methods = {"grad-cam": grad_cam, "zennit": zennit}[job["peer"]](model)
print(json.dumps(list(methods)), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    images = batch["images"][: asked["images"]].contiguous(memory_format=layout)
    targets = batch["targets"][: asked["images"]]
    try:
        seconds, maps = methods[asked["method"]](images, targets)
    except Exception as error:  # whatever the peer cannot do with this network
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        continue
    if asked["save"]:
        with torch.no_grad():
            logits = model(images)
        torch.save({"maps": maps.detach().cpu(), "logits": logits.cpu()}, asked["save"])
    print(json.dumps({"seconds": seconds}), flush=True)
