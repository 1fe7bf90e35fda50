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

from helpers import crisp_masks, models, parallel, summary_study
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
