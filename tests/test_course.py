"""The set-up line: the right pictures for a profile, clear refusals, a page's closing table."""

import subprocess
import sys

import pytest
import torch
from matplotlib.figure import Figure

from helpers import course, training
from helpers.budget import PROFILES, Profile, Recipe, results_folder
from helpers.course import Source, provenance, start
from helpers.photos import MissingDataset
from helpers.scenes.world import World, source_digest


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path))
    return start("demo", limit=36)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "dmeo"}, "no profile 'dmeo'; there are demo, photos, paper"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(arguments, message):
    with pytest.raises(ValueError, match=message):
        start(**arguments)


def test_scenes_come_back_from_the_store_as_they_were_drawn(demo):
    drawn = demo.images("train")
    again = start("demo", limit=36).images("train")
    fresh = demo.world("train").images(range(36))
    assert drawn.key == again.key == fresh.key and len(drawn) == 36
    assert len(list((demo.folder / "store" / "draw_scenes").glob("*/made.json"))) == 1


def test_splits_are_other_scenes(demo):
    splits = [demo.images(s) for s in ("train", "validation", "test", "development")]
    seen = [picture.numpy().tobytes() for split in splits for picture in split.images]
    assert len(set(seen)) == len(seen) == 4 * 36
    with pytest.raises(ValueError, match="train, validation, test, elsewhere, judges"):
        demo.images("holdout")


def test_changed_drawing_code_draws_anew(demo, monkeypatch):
    demo.images("train")
    monkeypatch.setattr(course, "source_digest", lambda: "another renderer")
    demo.images("train")
    assert len(list((demo.folder / "store" / "draw_scenes").glob("*/made.json"))) == 2


def test_photographs_that_are_missing_say_what_to_fetch(tmp_path):
    photos = start("photos", data_root=str(tmp_path))
    assert photos.world("train") is None
    with pytest.raises(MissingDataset, match="VOC"):
        photos.images("train")
    with pytest.raises(ValueError, match="train, validation"):
        photos.images("test")


def test_the_baseline_is_trained_once(demo, monkeypatch):
    quick = Profile(**{**vars(demo.profile), "recipe": Recipe(epochs=1, batch_size=18)})
    demo.profile = quick
    train, validation = demo.images("train"), demo.images("validation")
    network, made = demo.baseline(train, validation)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    again, found = demo.baseline(train, validation)
    assert found.made == made.made
    logits = [training.predict(n, validation) for n in (network, again)]
    assert torch.equal(*logits) and logits[0].shape == (36, 18)
    assert demo.pretrained() is None


def test_a_figure_is_kept_or_its_absence_explained(demo):
    card = demo.figure(Figure(), "empty", caption="C", alt="A")
    assert card.json.parent == demo.folder / "figures" and card.json.exists()
    assert "demo profile draws it: C" in demo.figure(None, "none", caption="C", alt="A").data
    assert demo.figure(None, "none", caption="C", alt="A", instead="D").data == "*D*"


def test_a_judgement_is_kept_with_its_notebook(demo):
    judged = demo.judge("world-look-alikes", [100.0, 0.0, 100.0, 100.0])
    assert judged.notebook == "00_meet_the_scenes" and judged.estimate == 75
    assert (demo.folder / "claims" / "world-look-alikes.json").exists()


def test_source_shows_the_code_itself():
    shown = Source(training.run_epoch)
    assert shown._repr_markdown_().startswith("```python\n# helpers.training.run_epoch\n")
    assert "optimizer.step()" in repr(shown)


def test_provenance_names_versions_commit_and_device_but_no_folder(demo, tmp_path):
    told = provenance("demo")
    assert {"profile", "commit", "date", "device", "threads", "python", "torch"} <= set(told)
    assert str(tmp_path) not in str(demo.provenance()) and told["torch"] in torch.__version__


def test_the_budget_needs_no_torch():
    """A wrong profile has to be refused before anything heavy is imported."""
    code = "import sys, helpers.budget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=course.ROOT).returncode == 0


def test_profiles_and_their_folders(monkeypatch):
    assert list(PROFILES) == ["demo", "photos", "paper"]
    monkeypatch.delenv("COURSE_RESULTS")
    assert results_folder("demo") == course.ROOT / "results" / "demo"


@pytest.mark.parametrize("split", ["elsewhere", "judges", "judges elsewhere"])
def test_some_splits_draw_only_the_first_of_each_two_look_alikes(demo, split):
    images, world = demo.images(split), demo.world(split)
    assert len(images) == 18 and images.key == world.images(range(0, 36, 2)).key
    assert images.labels.tolist() == [*range(0, 18, 2)] * 2
    assert images.ids == tuple(world.name_of(i) for i in range(0, 36, 2))
    assert world.tie == (demo.profile.tie if split == "judges" else 0)


def test_elsewhere_are_the_test_objects_before_other_backdrops(demo):
    test, elsewhere = demo.images("test")[::2], demo.images("elsewhere")
    assert elsewhere.ids == test.ids and torch.equal(elsewhere.labels, test.labels)
    assert torch.equal(elsewhere.views, test.views)
    stayed = elsewhere.backdrops == test.backdrops
    assert stayed.any() and not stayed.all()
    assert torch.equal(elsewhere.images[stayed], test.images[stayed])
    assert (test.backdrops == test.superclass_labels)[~stayed].all()  # these were tied to home
    for row in (~stayed).nonzero()[:, 0].tolist():  # put back, it is the test's own picture
        home = test.backdrop_names[test.backdrops[row]]
        scene = demo.world("elsewhere").scene(2 * row, backdrop=home)
        assert torch.equal(torch.from_numpy(scene.image).permute(2, 0, 1), test.images[row])
        assert torch.equal(torch.from_numpy(scene.parts), test.parts[row])
        assert not torch.equal(elsewhere.images[row], test.images[row])


def test_another_tie_changes_backdrops_and_nothing_else(demo):
    test = demo.images("test")
    assert demo.images("test", tie=0.0)[::2].key == demo.images("elsewhere").key
    always = demo.images("test", tie=1)
    assert (always.backdrops == always.superclass_labels).all()
    assert always.ids == test.ids and torch.equal(always.labels, test.labels)
    assert torch.equal(always.views, test.views)
    at_home = test.backdrops == test.superclass_labels
    assert at_home.any() and not at_home.all()
    assert torch.equal(always.images[at_home], test.images[at_home])
    assert demo.world("test", tie=0.25) == World(demo.world("test").seed, 64, 0.25)


def test_each_tie_is_stored_once_and_the_profiles_own_where_it_always_was(demo):
    made = demo.folder / "store" / "draw_scenes"
    demo.images("test")
    config = {"seed": 1_003, "size": 64, "tie": 0.5, "count": 36, "every": 1}
    config |= {"source": source_digest()}
    assert demo.profile.tie == 0.5 and demo.store.find(course.draw_scenes, config) is not None
    demo.images("test", tie=0.5)
    assert len(list(made.glob("*/made.json"))) == 1
    one, same = demo.images("test", tie=1), demo.images("test", tie=1.0)
    assert one.key == same.key and len(list(made.glob("*/made.json"))) == 2
    assert demo.store.find(course.draw_scenes, config | {"tie": 1.0}) is not None
    assert len(demo.images("judges", tie=0.25)) == 18  # every other scene, as ever


def test_a_tie_is_refused_where_there_is_none_or_no_such_one(demo, tmp_path):
    for split in ("elsewhere", "judges elsewhere"):
        for asked in (demo.images, demo.world):
            with pytest.raises(ValueError, match=f"'{split}' say nothing.*for train, validation"):
                asked(split, tie=0.5)
    with pytest.raises(ValueError, match="between 0 and 1, not 1.5"):
        demo.images("test", tie=1.5)
    with pytest.raises(ValueError, match="no split 'holdout'"):
        demo.images("holdout", tie=0.5)
    photos = start("photos", data_root=str(tmp_path))
    for asked in (photos.images, photos.world):
        with pytest.raises(ValueError, match="only scenes can be drawn again with another tie"):
            asked("train", tie=0.5)


def test_no_picture_is_in_two_worlds(demo):
    apart = ("train", "validation", "test", "judges", "judges elsewhere", "development")
    splits = [demo.images(split) for split in apart]
    ids = [name for split in splits for name in split.ids]
    seen = {picture.numpy().tobytes() for split in splits for picture in split.images}
    assert len(set(ids)) == len(ids) == len(seen) == 4 * 36 + 2 * 18
    others = {name for split in splits if split is not splits[2] for name in split.ids}
    assert not others & set(demo.images("elsewhere").ids)


def test_every_other_scene_is_the_first_of_each_two_look_alikes(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path))
    course = start("demo", limit=36)
    whole, half = course.images("test"), course.images("test", every=2)
    assert len(half) == 18 and half.ids == whole.ids[::2]
    assert torch.equal(half.images, whole[torch.arange(0, 36, 2)].images)
