"""Draw with lucent what the benchmark asks for, line by line; runs in lucent's own environment.

    python visualise_with_lucent.py '{"weights": ..., "architecture": ..., ...}'

Says "ready" and then, for every {"frozen": true, "save": null} on standard input, draws one batch
and answers with the seconds it took. Where "save" names a file, the answer also counts the passes
through the network, and the file holds the start, the end and what the network says of the start.
"""

import json
import sys
import time
from collections import Counter

import torch
from lucent.optvis import objectives, param, render

from helpers import models

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
device = "cuda" if torch.cuda.is_available() else "cpu"  # lucent's own rule for the image
classes, size = job["classes"], job["size"]


def image():
    return param.image(size, batch=classes, fft=False, decorrelate=False)


def draw(frozen: bool, save: str | None) -> dict:
    # a new network each time: lucent leaves its hooks on the old one
    model = models.build(job["architecture"], classes, seed=1)
    model.load_state_dict(torch.load(job["weights"], weights_only=True))
    model.to(device).eval().requires_grad_(not frozen)
    passes: Counter[str] = Counter()
    if save:
        model.network.register_forward_pre_hook(
            lambda _, seen: passes.update([f"{seen[0].dtype} {tuple(seen[0].shape)}"])
        )
    every_class = [objectives.channel("labels", k, batch=k) for k in range(classes)]
    torch.manual_seed(0)
    started = time.perf_counter()
    (drawn,) = render.render_vis(
        model,
        objectives.Objective.sum(every_class),
        image,
        transforms=[],
        preprocess=False,  # the network normalises
        thresholds=(job["steps"],),
        fixed_image_size=size,  # otherwise it enlarges to 224 px
        progress=False,
        show_image=False,
    )
    seconds = time.perf_counter() - started
    answer = {"seconds": seconds, "passes": dict(passes)}
    if save:
        torch.manual_seed(0)
        start = image()[1]().detach()
        end = torch.from_numpy(drawn).movedim(3, 1).contiguous()
        logits = model(start).detach().cpu()
        torch.save({"start": start.cpu(), "end": end, "logits": logits}, save)
    return answer


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(draw(**json.loads(line))), flush=True)
