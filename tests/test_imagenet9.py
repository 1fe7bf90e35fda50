"""ImageNet-9: the map by names, the search against loops over every pair, categories one by one."""

import copy
from collections import Counter
from itertools import product
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor, nn

from helpers import photos
from helpers.backgrounds import compose, tiled
from helpers.imagenet9 import (
    CATEGORIES,
    IMAGENET_CLASSES,
    Search,
    adversarial_backgrounds,
    composites,
    every_background,
    fine_grained,
    nine_way,
    of_imagenet,
    predicted,
)
from helpers.scenes.world import World

# ---------------------------------------- nine classes


def test_classes_are_those_of_the_release_and_share_nothing():
    assert tuple(IMAGENET_CLASSES) == photos.IN9_CLASSES
    sizes = [len(members) for members in IMAGENET_CLASSES.values()]
    assert sizes == [116, 52, 42, 36, 35, 27, 26, 20, 16]
    members = [k for of_class in IMAGENET_CLASSES.values() for k in of_class]
    assert len(set(members)) == len(members) == 370
    mapped = of_imagenet()
    assert mapped.shape == (1000,) and int((mapped < 0).sum()) == 630
    assert all(int(mapped[k]) == c for c, of in enumerate(IMAGENET_CLASSES.values()) for k in of)


WRITTEN = {
    "wheeled vehicle": "ambulance, amphibian, barrow, beach wagon, bicycle-built-for-two, cab, "
    "convertible, electric locomotive, fire engine, forklift, freight car, garbage truck, go-kart, "
    "half track, horse cart, jeep, jinrikisha, limousine, minivan, Model T, moped, motor scooter, "
    "mountain bike, moving van, oxcart, passenger car, pickup, police van, racer, "
    "recreational vehicle, shopping cart, snowmobile, snowplow, sports car, steam locomotive, "
    "streetcar, tank, tow truck, tractor, trailer truck, tricycle, unicycle",
    "musical instrument": "accordion, acoustic guitar, banjo, bassoon, cello, chime, cornet, drum, "
    "electric guitar, flute, French horn, gong, grand piano, harmonica, harp, maraca, marimba, "
    "oboe, ocarina, organ, panpipe, sax, steel drum, trombone, upright, violin",
    "carnivore": "timber wolf, white wolf, red wolf, coyote, dingo, dhole, African hunting dog, "
    "hyena, red fox, kit fox, Arctic fox, grey fox, cougar, lynx, leopard, snow leopard, jaguar, "
    "lion, tiger, cheetah, brown bear, American black bear, ice bear, sloth bear, mongoose, "
    "meerkat, weasel, mink, polecat, black-footed ferret, otter, skunk, badger, lesser panda, "
    "giant panda",
    "primate": "orangutan, gorilla, chimpanzee, gibbon, siamang, guenon, patas, baboon, macaque, "
    "langur, colobus, proboscis monkey, marmoset, capuchin, howler monkey, titi, spider monkey, "
    "squirrel monkey, Madagascar cat, indri",
}
RUNS = {  # first and last of each run of indices, and the neighbours that are left out
    "dog": ("Chihuahua Irish_wolfhound", "Ibizan_hound Mexican_hairless"),
    "bird": ("cock great_grey_owl", "African_grey black_swan", "white_stork albatross"),
    "reptile": ("loggerhead sidewinder",),
    "insect": ("tiger_beetle lycaenid",),
    "fish": ("tench stingray", "barracouta puffer"),
}
NONE = "tabby, Persian cat, tusker, grey whale, tailed frog, scorpion, tarantula, whippet, abacus"


@pytest.fixture(scope="module")
def names() -> list[str]:
    from torchvision.models import MobileNet_V2_Weights

    return MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]


def test_the_map_by_imagenets_names(names):
    for title, members in WRITTEN.items():
        assert [names[k] for k in IMAGENET_CLASSES[title]] == members.split(", ")
    for title, runs in RUNS.items():
        expected = []
        for run in runs:
            first, last = (names.index(end.replace("_", " ")) for end in run.split())
            expected += range(first, last + 1)
        assert list(IMAGENET_CLASSES[title]) == expected
    mapped = of_imagenet()
    assert all(mapped[names.index(name)] == -1 for name in NONE.split(", "))


def test_nine_way_takes_the_highest_of_all_thousand(names):
    def logits(**score: float) -> Tensor:
        row = torch.zeros(1000)
        for name, value in score.items():
            row[names.index(name.replace("_", " "))] = value
        return row

    said = nine_way(
        torch.stack(
            [
                logits(Chihuahua=3, cock=2),
                logits(tench=3),
                logits(tabby=3, Chihuahua=2.9, borzoi=2.9, beagle=2.9),  # no sum over dogs
                logits(abacus=9),
                logits(sports_car=1e-3),
            ]
        )
    )
    assert said.tolist() == [0, 8, -1, -1, 2]


def test_predicted_reads_outputs_as_it_is_told(monkeypatch):
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 1.0], [0.0, 0.0, 0.5]])
    assert predicted(logits).tolist() == [1, 0, 2]
    assert predicted(logits, torch.tensor([4, -1, 4])).tolist() == [-1, 4, 4]
    assert predicted(logits[:0]).shape == (0,)
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match="2 outputs for a network of 3"):
        predicted(logits, torch.tensor([0, 1]))


# ---------------------------------------- composites


def test_composites_keep_an_objects_own_black():
    foreground = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8).expand(1, 3, 2, 2)
    background = torch.full((1, 3, 2, 2), 153, dtype=torch.uint8)
    mask = torch.tensor([[[True, True], [False, False]]])
    made = composites(foreground, mask, background)
    assert made.dtype == torch.float32 and made.shape == (1, 3, 2, 2)
    expected = torch.tensor([[0.0, 0.2], [0.6, 0.6]]).expand(1, 3, 2, 2)
    assert torch.allclose(made, expected, atol=1e-7)
    assert int(foreground.max()) == 255 and int(background.min()) == 153


# ---------------------------------------- search


class Told(nn.Module):
    """Knows from two pixels which foreground stands on which background, and whether to be wrong.

    Right is the foreground's label, wrong the class after it; `seen` lists the pairs, batch by
    batch.
    """

    def __init__(self, wrong: Tensor, labels: Tensor, classes: int = 3) -> None:
        super().__init__()
        self.wrong, self.labels, self.classes = wrong, labels, classes
        self.seen: list[list[tuple[int, int]]] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not self.training
        low, high = images.aminmax()
        assert float(low) >= 0 and float(high) <= 1
        before, behind = (255 * images[:, 0, 0]).round().long().T
        self.seen.append(list(zip(before.tolist(), behind.tolist(), strict=True)))
        said = (self.labels[before] + self.wrong[before, behind].long()) % self.classes
        return nn.functional.one_hot(said, self.classes).float()


def pairs(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Foregrounds, masks and backgrounds of 1 x 2 px that carry their own numbers."""
    foregrounds = torch.full((n, 3, 1, 2), 200, dtype=torch.uint8)
    backgrounds = torch.full((m, 3, 1, 2), 100, dtype=torch.uint8)
    foregrounds[..., 0] = torch.arange(n, dtype=torch.uint8)[:, None, None]
    backgrounds[..., 1] = torch.arange(m, dtype=torch.uint8)[:, None, None]
    masks = torch.tensor([[[True, False]]]).expand(n, 1, 2)
    return foregrounds, masks, backgrounds


def searched(wrong: Tensor, batch_size: int, learning: int = 64, **how) -> tuple[Search, Told]:
    n, m = wrong.shape
    labels = torch.arange(n) % 3
    model = Told(wrong, labels)
    foregrounds, masks, backgrounds = pairs(n, m)
    how |= {"batch_size": batch_size}
    with patch("helpers.imagenet9._LEARNING", learning):
        found = adversarial_backgrounds(model, foregrounds, masks, labels, backgrounds, **how)
    assert model.training  # as it was
    return found, model


def tensors_of(found: Search) -> list[Tensor]:
    return [value for value in vars(found).values() if isinstance(value, Tensor)]


@st.composite
def tables(draw) -> Tensor:
    n, m = draw(st.integers(0, 9)), draw(st.integers(1, 12))
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return torch.rand(n, m, generator=generator) < share


LEARNING = st.sampled_from([1, 4, 64])  # so that small tables have large batches, too


@given(tables(), st.integers(1, 60), LEARNING)
def test_the_search_finds_what_trying_everything_finds(wrong, batch_size, learning):
    n, m = wrong.shape
    settled = []
    found, model = searched(wrong, batch_size, learning, progress=settled.append)

    assert torch.equal(found.vulnerable, wrong.any(1))
    assert torch.equal(found.fooled_by >= 0, found.vulnerable)
    hit = found.vulnerable.nonzero()[:, 0]
    assert wrong[hit, found.fooled_by[hit]].all()
    assert sum(settled) == n * m and all(step > 0 for step in settled)

    seen = [pair for batch in model.seen for pair in batch]
    assert len(set(seen)) == len(seen) == found.forwards  # nothing twice
    before, behind = Counter(f for f, _ in seen), Counter(b for _, b in seen)
    assert found.tried.tolist() == [before[f] for f in range(n)]
    assert found.tried_with.tolist() == [behind[b] for b in range(m)]
    fooled = Counter(b for f, b in seen if wrong[f, b])
    assert found.fooled.tolist() == [fooled[b] for b in range(m)]
    assert (found.tried[~found.vulnerable] == m).all()

    done = 0
    for batch in model.seen:
        assert len(batch) <= min(batch_size, 1 + done // learning)
        done += len(batch)


@given(tables(), st.integers(1, 60), LEARNING)
def test_nothing_is_tried_after_the_batch_that_fools(wrong, batch_size, learning):
    found, model = searched(wrong, batch_size, learning)
    fooled = set()
    for batch in model.seen:
        assert not fooled & {f for f, _ in batch}
        for f, b in batch:
            if wrong[f, b] and f not in fooled:
                assert found.fooled_by[f] == b  # of several in a batch the first
                fooled.add(f)


@given(tables())
def test_one_at_a_time_it_is_the_plain_loop(wrong):
    """The rule itself: one foreground after the other, the most successful background first."""
    n, m = wrong.shape
    fooled, tried_with, order = [0] * m, [0] * m, []
    for f in range(n):
        unmet = list(range(m))
        while unmet:
            b = min(unmet, key=lambda b: (-fooled[b], tried_with[b], b))
            unmet.remove(b)
            tried_with[b] += 1
            order.append((f, b))
            if wrong[f, b]:
                fooled[b] += 1
                break
    found, model = searched(wrong, 1)
    assert [pair for batch in model.seen for pair in batch] == order
    assert found.fooled.tolist() == fooled and found.tried_with.tolist() == tried_with


@given(tables(), st.integers(1, 60))
def test_every_background_is_the_whole_table(wrong, batch_size):
    n, m = wrong.shape
    labels = torch.arange(n) % 3
    model, done = Told(wrong, labels), []
    foregrounds, masks, backgrounds = pairs(n, m)
    how = {"batch_size": batch_size, "progress": done.append}
    found = every_background(model, foregrounds, masks, labels, backgrounds, **how)
    assert torch.equal(found, wrong) and sum(done) == n * m
    assert max(map(len, model.seen), default=0) <= batch_size
    assert Counter(p for batch in model.seen for p in batch) == Counter(product(range(n), range(m)))


def test_a_batch_by_hand():
    """Two foregrounds that nothing fools; batches of 1, 2, 4, ... as learning allows."""
    _, model = searched(torch.zeros(2, 4, dtype=torch.bool), 10, learning=1)
    assert model.seen == [
        [(0, 0)],
        [(0, 1), (1, 1)],  # tried least so far, of those the first
        [(0, 2), (1, 2), (0, 3), (1, 3)],  # everybody's best, then everybody's second best
        [(1, 0)],
    ]


def test_batches_are_full_while_there_is_enough_to_try():
    """Nothing is fooled: each batch is 1 + a 64th of what was before, up to 15.

    Where a foreground has fewer backgrounds left than its share of a batch, that batch is smaller.
    """
    _, model = searched(torch.zeros(13, 90, dtype=torch.bool), 15)
    sizes = list(map(len, model.seen))
    expected, done = [], 0
    while done < 1170:
        expected.append(min(15, 1 + done // 64, 1170 - done))
        done += expected[-1]
    assert sizes[:210] == expected[:210]
    assert len(sizes) <= len(expected) + 2


def test_a_good_background_is_found_once_and_then_comes_first():
    """One of 40 backgrounds fools everybody: once it is known, everyone needs one composite.

    The first foreground meets them in order, alone, and needs 31. The last one takes as many as the
    batch holds.
    """
    wrong = torch.zeros(200, 40, dtype=torch.bool)
    wrong[:, 30] = True
    found, model = searched(wrong, 32)
    assert found.vulnerable.all() and (found.fooled_by == 30).all()
    assert found.fooled[30] == 200
    assert model.seen[:31] == [[(0, b)] for b in range(31)]
    assert (found.tried[1:-2] == 1).all()


def test_the_order_does_better_than_the_fixed_one():
    """Backgrounds of very different power, the strong ones last; some foregrounds are robust."""
    generator = torch.Generator().manual_seed(1)
    power = torch.linspace(0, 0.6, 60)
    wrong = torch.rand(120, 60, generator=generator) < power
    wrong[::6] = False
    found, _ = searched(wrong, 16)
    in_order = torch.where(wrong.any(1), 1 + wrong.int().argmax(1), 60)
    backwards = torch.where(wrong.any(1), 1 + wrong.flip(1).int().argmax(1), 60)
    best = int(backwards.sum())
    assert best <= found.forwards < 1.2 * best < 0.8 * int(in_order.sum())


# ---------------------------------------- search with a real network


def small(images: Tensor, classes: int = 9) -> nn.Sequential:
    """Untrained and in training mode; balanced so that it calls images different names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
    model.eval()
    with torch.no_grad():
        said = model(images)
        model[-1].weight /= said.std(0)[:, None]
        model[-1].bias -= said.mean(0)
        model[-1].bias /= said.std(0)
        model[-1].bias[0] += 3  # and one name above others, which not every background takes away
    return model.train()


@pytest.fixture(scope="module")
def scenes():
    images = World(seed=5, size=24).images(range(14))
    backgrounds, usable = tiled(images)
    return images, backgrounds[usable]


@pytest.mark.parametrize("thousand", [False, True])
def test_a_network_beside_one_composite_at_a_time(scenes, thousand):
    images, backgrounds = scenes[0], scenes[1][:5]
    model = small(images.to_float(), 1000 if thousand else 9)
    reading = of_imagenet() if thousand else None
    for module in model[:3:2]:
        module.eval()  # a mixed state, to be left as it is
    model[0].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]

    judge = copy.deepcopy(model).eval()
    with torch.no_grad():
        said = judge(images.to_float())
        # what it says on the original background is the label, so that not everything is wrong
        labels = predicted(said, reading).clamp(min=0)
        wrong = torch.zeros(len(images), len(backgrounds), dtype=torch.bool)
        for f, b in product(range(len(images)), range(len(backgrounds))):
            pasted = compose(images.images[[f]], backgrounds[[b]], images.masks[[f]])
            k = int(judge(pasted / 255).argmax())
            wrong[f, b] = (int(reading[k]) if thousand else k) != labels[f]
    if not thousand:
        assert 0 < int(wrong.any(1).sum()) < len(wrong)

    shown = (images.images, images.masks, labels, backgrounds)
    assert torch.equal(every_background(model, *shown, reading=reading, batch_size=37), wrong)
    for batch_size, learning in ((1, 64), (7, 1), (1000, 1)):
        with patch("helpers.imagenet9._LEARNING", learning):
            found = adversarial_backgrounds(model, *shown, reading=reading, batch_size=batch_size)
        assert torch.equal(found.vulnerable, wrong.any(1))
    assert [module.training for module in model.modules()] == modes
    wants = [p.requires_grad for p in model.parameters()]
    assert wants == [False] + [True] * (len(wants) - 1)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    # ordinary tensors of their own memory: they can be changed and stored
    held = tensors_of(found)
    assert not any(value.is_inference() for value in held)
    assert len({value.untyped_storage().data_ptr() for value in held}) == len(held) == 5


def test_modes_come_back_after_a_failure(scenes):
    images, backgrounds = scenes
    model = small(images.to_float())
    how = (images.images, images.masks, images.labels.clamp(max=8), backgrounds)

    def fail(_):
        raise KeyboardInterrupt

    for search in (adversarial_backgrounds, every_background):
        with pytest.raises(KeyboardInterrupt):
            search(model, *how, progress=fail)
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad for p in model.parameters())


def test_answers_that_are_not_numbers_are_no_result():
    class Broken(Told):
        def forward(self, images: Tensor) -> Tensor:
            said = super().forward(images)
            before = (255 * images[:, 0, 0, 0]).round()
            return torch.where(before[:, None] == 2, torch.nan, said)

    labels = torch.arange(4) % 3
    model = Broken(torch.zeros(4, 5, dtype=torch.bool), labels)
    foregrounds, masks, backgrounds = pairs(4, 5)
    for search in (adversarial_backgrounds, every_background):
        with pytest.raises(FloatingPointError, match="NaN"):
            search(model, foregrounds, masks, labels, backgrounds)
        fine = search(model, foregrounds[:2], masks[:2], labels[:2], backgrounds)
        assert not (fine.vulnerable if isinstance(fine, Search) else fine).any()


@pytest.mark.parametrize("search", [adversarial_backgrounds, every_background])
def test_what_cannot_be_searched_is_refused(search, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as outside the tests
    foregrounds, masks, backgrounds = pairs(3, 4)
    labels = torch.tensor([0, 1, 2])
    model = Told(torch.zeros(3, 4, dtype=torch.bool), labels)
    fine = {
        "foregrounds": foregrounds,
        "masks": masks,
        "labels": labels,
        "backgrounds": backgrounds,
    }
    for change, says in (
        ({"masks": masks[:2]}, "2 masks and 3 labels for 3 foregrounds"),
        ({"labels": labels[:1]}, "3 masks and 1 labels for 3 foregrounds"),
        ({"backgrounds": backgrounds[:0]}, "no background"),
        ({"backgrounds": backgrounds[..., :1]}, "1 x 2 px, masks 1 x 2 and backgrounds 1 x 1"),
        ({"masks": masks.transpose(1, 2)}, "1 x 2 px, masks 2 x 1 and"),
        ({"batch_size": 0}, "at least 1 composite, not 0"),
        ({"labels": labels + 1}, "labels run from 1 to 3; valid are 0 to 2"),
        ({"labels": labels - 1}, "labels run from -1 to 1; valid are 0 to 2"),
        ({"reading": torch.tensor([0, 1, -1])}, "run from 0 to 2; valid are 0 to 1"),
        ({"reading": torch.tensor([0, 1])}, "valid are 0 to 1"),
        ({"reading": torch.tensor([0, 1, 2, 3])}, "a reading of 4 outputs for a network of 3"),
    ):
        with pytest.raises(ValueError, match=says):
            search(model, **(fine | change))
        assert model.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_gpu_finds_the_same(scenes):
    class Doubled(nn.Module):  # in float64 there is no doubt about which logit is higher
        def __init__(self) -> None:
            super().__init__()
            self.network = small(images.to_float()).double()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images.double())

    images, backgrounds = scenes
    model = Doubled()
    shown = (images.images, images.masks, torch.zeros_like(images.labels), backgrounds)
    wrong = every_background(model, *shown)
    model.to("cuda")  # the pictures follow
    assert torch.equal(every_background(model, *shown), wrong)
    found = adversarial_backgrounds(model, *[tensor.cuda() for tensor in shown], batch_size=16)
    assert torch.equal(found.vulnerable, wrong.any(1))
    assert all(value.device.type == "cpu" for value in tensors_of(found))


# ---------------------------------------- who needs the background


def test_every_combination_has_its_category():
    names = [name for name, _ in CATEGORIES]
    assert len(set(names)) == len(names) == 7 and all(meaning for _, meaning in CATEGORIES)
    expected = {  # original, mixed_rand, only_bg_t
        (1, 1, 1): "either suffices",
        (1, 1, 0): "foreground suffices",
        (1, 0, 1): "background suffices",
        (1, 0, 0): "both needed",
        (0, 1, 1): "fooled by its background",
        (0, 1, 0): "fooled by its background",
        (0, 0, 1): "fooled by its foreground",
        (0, 0, 0): "neither",
    }
    right = torch.tensor(list(expected)).bool()
    assert [names[k] for k in fine_grained(*right.T)] == list(expected.values())


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=12))
def test_categories_add_up_to_the_accuracies(rows):
    right = torch.tensor(rows).bool().view(-1, 3)
    found = fine_grained(*right.T)
    assert found.shape == (len(rows),) and found.dtype == torch.int64
    counts = torch.bincount(found, minlength=7)
    original, mixed_rand, only_bg_t = right.T
    assert counts[:4].sum() == original.sum()
    assert counts[2:4].sum() == (original & ~mixed_rand).sum()  # the background is needed
    assert counts[[0, 1, 4]].sum() == mixed_rand.sum()
    assert counts[[0, 2, 5]].sum() <= only_bg_t.sum() <= counts[[0, 2, 4, 5]].sum()
