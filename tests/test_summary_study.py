"""Paper 2's study: the same results however many processes share the work, and clear outcomes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers import crisp_masks, models, parallel, proposal_flow, summary_study
from helpers import visual_summaries as vs
from helpers.budget import IMAGENET_PAIRS, PROFILES, ROOT
from helpers.parallel import own_first
from helpers.scenes.world import World
from helpers.store import Store
from helpers.summary_study import Named, Network, Study

TINY = crisp_masks.Schedule(
    smooth=crisp_masks.Phase(3, 0.01, 1e-4, 0.0), crisp=crisp_masks.Phase(2, 0.01, 1.0, 2.0)
)
BUDGET = replace(PROFILES["demo"].summaries, schedule="tiny", boxes=40, enlarge=1, batch=2)


@pytest.fixture(autouse=True)
def tiny_schedule(monkeypatch):
    monkeypatch.setitem(crisp_masks.SCHEDULES, "tiny", TINY)
    monkeypatch.setattr(parallel, "cpu_count", lambda: 1)  # other processes would not know it


@pytest.fixture
def one_thread():
    """As the study's jobs have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def study_in(root: Path, images: int = 3, kinds: int = 2) -> Study:
    """Two untrained networks and a few scenes of as many classes."""
    scenes = World(7, 32, 0.5).images(range(18 * images))
    names = BUDGET.classes[:kinds]
    networks = tuple(
        Network(title, models.build("slim_vgg6", 18, seed=seed).eval(), Named(f"seed {seed}"))
        for seed, title in enumerate(("first", "second"))
    )
    own = [scenes.labels == scenes.class_names.index(name) for name in names]
    return Study(
        budget=BUDGET,
        root=root,
        device=torch.device("cpu"),
        candidates=scenes,
        networks=networks,
        logits={n.title: torch.eye(18)[scenes.labels] for n in networks},
        right={n.title: torch.ones(len(scenes), dtype=torch.bool) for n in networks},
        kinds={name: scenes[rows] for name, rows in zip(names, own, strict=True)},
        shared=images,
        held_out=scenes,
        pairs={},
    )


def contents(root: Path) -> dict[str, object]:
    """Every stored result: its tensors' bytes and its values."""
    made = {}
    for record in sorted(root.glob("*/*/made.json")):
        tensors = load_file(record.parent / "tensors.safetensors")
        plain = {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}
        name = f"{record.parent.parent.name}/{record.parent.name}"
        made[name] = (plain, json.loads(record.read_text())["values"])
    return made


LAUNCHED = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
from test_summary_study import TINY, study_in
from helpers import crisp_masks
crisp_masks.SCHEDULES["tiny"] = TINY

if __name__ == "__main__":
    torch.set_num_threads(1)
    study_in(Path({root!r})).run()
"""


def test_two_processes_fill_the_store_as_one_does(tmp_path):
    study_in(tmp_path / "one").run()
    script = tmp_path / "launched.py"
    paths = [str(ROOT), str(ROOT / "tests")]
    script.write_text(LAUNCHED.format(paths=paths, root=str(tmp_path / "two")))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    command += ["--main_process_port", "0", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    stages = {name.split("/")[0] for name in one}
    assert {"make_masks", "compare_boxes", "compare_masks", "summarise_class"} <= stages
    assert one == two


def test_alone_the_jobs_keep_their_order(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert own_first([3, 1, 2]) == [3, 1, 2]


def test_every_class_and_network_is_explained_and_kept(tmp_path):
    study = study_in(tmp_path)
    explained = study.run()
    assert set(explained) == {(t, k) for t in ("first", "second") for k in study.kinds}
    for one in explained.values():
        assert one.masks["crisp"].shape == (3, 32, 32)
        assert one.found.message
    before = contents(tmp_path)
    study.run()
    assert contents(tmp_path) == before
    assert len(study.counts()) == 4
    assert len(summary_study.table_two(study)) == 6


def test_one_image_of_a_class_shows_masks_only(tmp_path):
    study = study_in(tmp_path, images=1)
    explained = study.run()
    for one in explained.values():
        assert one.masks["crisp"].shape == (1, 32, 32)
        assert not one.found.summaries
        assert one.found.outcome in ("one image", "no part", "no region")
        assert summary_study.gallery(one)[2] == []
        assert summary_study.named(one).empty
    assert summary_study.gains(study, "first") is None
    assert study.table("coherence").empty
    assert study.matches() is None
    assert summary_study.failures(study, "first") is None


def test_summaries_come_back_from_the_store_as_they_were(tmp_path):
    study = study_in(tmp_path, images=4)
    store = Store(tmp_path)
    kind = next(iter(study.kinds))
    found = summary_study._explained(study, store, 0, kind).found
    masks = summary_study._asked(study, store, ("masks", 0, kind)).tensors["crisp"]
    again = summary_study.vs.summarise(study.kinds[kind].to_float(), masks, study.similarity(kind))
    assert (again.outcome, again.tally) == (found.outcome, found.tally)
    assert torch.equal(again.regions, found.regions)
    for ours, theirs in zip(found.summaries, again.summaries, strict=True):
        assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.images, theirs.images)


def test_early_networks_explain_only_what_all_have_right(tmp_path):
    study = study_in(tmp_path, images=3)
    networks = (study.networks[0], replace(study.networks[1], early=True))
    study = replace(study, networks=networks, shared=2)
    assert study.compared == [BUDGET.classes[0]]
    explained = study.run()
    assert len(explained["second", BUDGET.classes[0]].images) == 2
    assert ("second", BUDGET.classes[1]) not in explained
    assert set(study.counts()["class"]) == {BUDGET.classes[0]}


def test_keypoints_of_parts_are_their_centres():
    scenes = World(7, 64, 0.5).images(range(36)).of_class("robin")
    pairs = summary_study.keypoints_of_parts(scenes)
    common = set.intersection(*({*p.unique().tolist()} for p in scenes.parts)) - {0}
    for (image, points), small, parts in zip(pairs, scenes.images, scenes.parts, strict=False):
        assert (image[:, ::4, ::4] == small).all() and len(points) == len(common)
        first = torch.nonzero(parts == min(common)).double().mean(0)
        torch.testing.assert_close(points[0].double(), 4 * (first.flip(0) + 0.5))


def test_imagenet_knows_every_class_of_the_photographs():
    for profile in ("photos", "paper"):
        assert set(PROFILES[profile].summaries.classes) <= set(summary_study.IMAGENET)
    assert len(IMAGENET_PAIRS) == 18
    indices = [k for group in summary_study.IMAGENET.values() for k in group]
    assert all(0 <= k < 1000 for k in indices)
    assert len(set(indices)) == len(indices)  # no ImageNet class stands for two of ours


# ---- any classifier, in one call


@pytest.fixture(scope="module")
def robins() -> Tensor:
    world = World(7, 64, 0.5)
    first = world.images(range(18)).names().index("robin")
    return world.images(range(first, 18 * 8, 18)).images  # classes go round


@pytest.fixture(scope="module")
def white(robins) -> proposal_flow.Whitening:
    return proposal_flow.whitening(robins)


def same_summaries(ours: vs.Summaries, theirs: vs.Summaries) -> bool:
    columns = ("images", "boxes", "regions", "scores")
    return (
        (ours.outcome, ours.tally) == (theirs.outcome, theirs.tally)
        and torch.equal(ours.regions, theirs.regions)
        and all(
            a.ssim == b.ssim and all(torch.equal(getattr(a, c), getattr(b, c)) for c in columns)
            for a, b in zip(ours.summaries, theirs.summaries, strict=True)
        )
    )


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:test_resnet"])
def test_any_torchvision_or_timm_classifier_is_summarised_with_one_call(
    robins, white, one_thread, name
):
    model, images = models.build(name, 5, seed=0), robins[:3]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    how = {"schedule": "tiny", "batch_size": 2, "device": "cpu", "progress": False}
    made = summary_study.summarise(model, images, 4, boxes=60, whitening=white, **how)
    assert model.training and all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    for masks in (made.masks.smooth, made.masks.crisp):
        assert masks.shape == (3, 64, 64) and 0 <= masks.min() <= masks.max() <= 1
    assert made.masks.losses.shape == (5, 3) and made.masks.before.shape == (3,)
    assert len(made.boxes) == 3 and all(1 < len(boxes) <= 60 for boxes in made.boxes)
    assert made.found.outcome == "found"  # nothing below is about no members
    for summary in made.found.summaries:
        assert len(summary.images.unique()) == len(summary.images) > 1
        for image, box in zip(summary.images, summary.boxes, strict=True):
            assert (made.boxes[image] == box).all(1).any()

    # the same, put together by hand
    pixels, targets = images.float() / 255, torch.tensor([4, 4, 4])
    masks = crisp_masks.crisp_masks(model, pixels, targets, TINY, batch_size=2)
    assert all(torch.equal(vars(made.masks)[name], fitted) for name, fitted in vars(masks).items())
    boxes = [proposal_flow.proposals(image, 60, enlarge=4) for image in images]  # 64 to 224 px
    described = [proposal_flow.describe(i, b, white) for i, b in zip(images, boxes, strict=True)]

    def match(a: Tensor, described_a: Tensor, b: Tensor, described_b: Tensor) -> Tensor:
        return proposal_flow.lom(proposal_flow.appearance(described_a, described_b), 4 * a, 4 * b)

    similarity = vs.similarity(boxes, described, match)
    assert all(map(torch.equal, made.boxes, boxes))
    assert same_summaries(made.found, vs.summarise(pixels, masks.crisp, similarity))


def test_one_call_finds_what_the_study_finds(tmp_path, one_thread):
    study, store = study_in(tmp_path, images=4), Store(tmp_path)
    kind, images = next(iter(study.kinds.items()))
    for number, network in enumerate(study.networks):
        expected = summary_study._explained(study, store, number, kind)
        made = summary_study.summarise(
            models.folded(network.model),
            images.images,
            images.labels,
            boxes=BUDGET.boxes,
            enlarge=BUDGET.enlarge,
            whitening=proposal_flow.Whitening(**summary_study._white(study, store).tensors),
            schedule=TINY,
            precision=study.precision,
            batch_size=BUDGET.batch,
            device="cpu",
            progress=False,
        )
        assert torch.equal(made.masks.crisp, expected.masks["crisp"])
        assert same_summaries(made.found, expected.found)


FEW = {"boxes": 20, "schedule": "tiny", "device": "cpu", "progress": False}


def test_without_a_whitening_the_images_give_it(robins, white):
    model = models.build("slim_vgg6", 3, seed=0)
    own = summary_study.summarise(model, robins, 2, **FEW)
    given = summary_study.summarise(model, robins, 2, whitening=white, **FEW)
    assert all(
        torch.equal(own.similarity.tensors()[k], v) for k, v in given.similarity.tensors().items()
    )
    assert same_summaries(own.found, given.found)


def test_a_bare_network_is_summarised_behind_its_normalisation(robins):
    from torchvision.models import squeezenet1_1

    network, images = squeezenet1_1(num_classes=3), robins[:1]
    wrapped = nn.Sequential(models.Normalised(), network)
    made = summary_study.summarise(wrapped, images, 1, **FEW)
    mean, std = (
        torch.tensor(of).view(3, 1, 1) for of in (models.IMAGENET_MEAN, models.IMAGENET_STD)
    )
    with torch.no_grad():
        logits = network.eval()((images / 255 - mean) / std)
    torch.testing.assert_close(made.masks.before, logits.softmax(1)[:, 1])


def test_one_call_ends_clearly_where_there_is_nothing_to_find(robins, white):
    model, images = models.build("slim_vgg6", 3, seed=0), robins[:2]
    one = summary_study.summarise(model, images[:1], 2, **FEW)
    assert one.masks.crisp.shape == (1, 64, 64) and one.found.outcome == "one image"
    none = summary_study.summarise(model, images[:0], 2, **FEW)
    assert none.boxes == () and none.found.message == "there are no images"
    unfitted = crisp_masks.Phase(0, 0.0, 0.0, 0.0)
    keeps_all = crisp_masks.Schedule(smooth=unfitted, crisp=unfitted, disc=0.0)
    how = FEW | {"schedule": keeps_all, "whitening": white}
    kept = summary_study.summarise(model, images, 2, **how)
    assert (kept.masks.crisp > 0.999).all() and kept.found.outcome == "no region"


def test_images_of_another_class_are_explained_too(robins):
    model, images = models.build("slim_vgg6", 3, seed=0), robins[:1]
    with torch.no_grad():
        probabilities = model.eval()(images / 255).softmax(1)[0]
    for target in range(3):  # two of them are not the first answer
        made = summary_study.summarise(model, images, target, **FEW)
        assert made.masks.before.item() == pytest.approx(probabilities[target].item(), rel=1e-4)


def test_one_call_refuses_what_cannot_be_summarised(robins):
    model, images = models.build("slim_vgg6", 3, seed=0), robins[:2]
    few = "the images are too few or too plain to whiten by .* whitening=proposal_flow.whitening"
    with pytest.raises(ValueError, match=few):
        summary_study.summarise(model, images, 2, **FEW)
    with pytest.raises(ValueError, match="no schedule 'quick'; there are paper, code, "):
        summary_study.summarise(model, images, 2, **FEW | {"schedule": "quick"})
    with pytest.raises(ValueError, match="targets run from 3 to 3, but the model has outputs 0 to"):
        summary_study.summarise(model, images[:1], 3, **FEW)
    with pytest.raises(ValueError, match="count and enlarge must be at least 1"):
        summary_study.summarise(model, images[:1], 2, **FEW | {"boxes": 0})
    with pytest.raises(ValueError, match="at least 1, not 20 and 0"):
        summary_study.summarise(model, images[:1], 2, **FEW | {"enlarge": 0})


def test_one_call_shows_how_far_it_is(robins, capsys):
    model, images = models.build("slim_vgg6", 3, seed=0), robins[:1]
    summary_study.summarise(model, images, 2, **FEW | {"progress": True})
    shown = capsys.readouterr()
    assert "masks" in shown.out and "pairs of images" in shown.out and not shown.err
    summary_study.summarise(model, images, 2, **FEW)
    assert capsys.readouterr().out == ""
