"""Checks of exercises: right answers pass, and each wrong one is told what is wrong with it.

The wrong answers here are written as a participant would write them, not taken from the tables of
known mistakes.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr

from helpers import check, imagenet9
from helpers.check.judging import Exercise, Question, judge_number

SOLUTIONS = sorted((Path(__file__).parents[1] / "notebooks" / "solutions").glob("*.ipynb"))

# ---------------------------------------------------------------- right answers


@pytest.mark.parametrize("name", check.EXERCISES)
def test_the_package_passes_its_own_checks(name):
    exercise = check.EXERCISES[name]
    for seed in (1, 2):
        assert exercise(exercise.reference, seed=seed), exercise(exercise.reference, seed=seed)


def test_the_solutions_pass():
    """As they stand in the notebooks: only their functions are run, not their pictures."""
    checked = set()
    for path in SOLUTIONS:
        names = {"torch": torch, "known": imagenet9.of_imagenet()}
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith(("def my_", "### BEGIN")):
                if source.startswith("### BEGIN SOLUTION\nmy_") or source.startswith("def my_"):
                    exec(source, names)
            elif source.startswith("check."):
                assert eval(source, {**names, "check": check}), source
                checked.add(source.split("(")[0].removeprefix("check."))
    assert checked == {*check.EXERCISES, "answer"}


def test_every_exercise_can_be_reached_by_its_name():
    for name, exercise in check.EXERCISES.items():
        assert getattr(check, name) is exercise


# What is right, computed by hand.
BY_HAND = {
    "box": ([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], [1, 1, 3, 3]),
    "f_beta": ([[1, 1, 0, 0]], [[1, 0, 0, 0]]),
}


def test_references_by_hand():
    mask = torch.tensor(BY_HAND["box"][0]).bool()
    assert check.box.reference(mask).tolist() == BY_HAND["box"][1]
    predicted, truth = (torch.tensor([m]).bool() for m in BY_HAND["f_beta"])
    # precision 1/2, recall 1: 1.3 * 0.5 / (0.15 + 1)
    assert check.f_beta.reference(predicted, truth).tolist() == pytest.approx([0.65 / 1.15])
    mask = torch.tensor([[[1.0, 0.5], [1.0, 1.0]]])
    # means over 4 pixels: area 0.5/4; differences 0.5 across and 0.5 down, cubed; grey 0.25/4
    loss = check.mask_loss.reference(torch.tensor([0.1]), mask, 1.0, 10.0, 100.0, 3.0)
    assert loss.tolist() == pytest.approx([0.1 + 0.125 + 10 * (0.125 + 0.125) / 4 + 6.25])
    offsets = torch.tensor([[1.0, 2, 3], [3, 4, 5], [9, 9, 9]])
    near = torch.tensor([[True, True, False], [True, True, True], [False, False, True]])
    wanted = [[2.0, 3, 4], [3, 4, 5], [9, 9, 9]]
    assert check.offset_median.reference(offsets, near).tolist() == wanted
    # distances 1/2 and 1 and 1
    assert check.disagreement.reference([{"a", "b"}, {"a"}, {"c"}]) == pytest.approx(2.5 / 3)
    a = torch.zeros(3, 2, 3)
    a[0] = torch.tensor([[1.0, 5, 2], [3, 4, 6]])
    assert check.max_pooling.reference(a, 0, 0, 1, 2, 1) == (0, 1, 2)
    weight = torch.zeros(3, 3, 3)
    weight[0, 0, 0], weight[0, 2, 2] = 2.0, 1.0  # up left counts twice
    assert check.convolution.reference(a, weight, 1, 1, 1, 1) == (0, 0, 0)
    assert check.convolution.reference(a, weight, 0, 1, 1, 1) == (0, 1, 2)
    answers, labels = torch.tensor([[1, 1], [1, 2], [0, 0]]), torch.tensor([1, 1, 1])
    assert check.vulnerable_share.reference(answers, labels) == pytest.approx(2 / 3)
    values, mask = torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False]])
    assert check.beyond_area.reference(values, mask) == pytest.approx(25.0)
    images = torch.full((1, 3, 1, 1), 0.5)
    up = check.step.reference(images, torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1), 0.1)
    reach = 0.1 * 3**0.5
    assert up.flatten().tolist() == pytest.approx([0.5 + 0.6 * reach, 0.5 + 0.8 * reach, 0.5])


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.integers(0, 9))
@settings(max_examples=20)
def test_rank_correlation_is_spearmans(values, seed):
    a = torch.tensor(values).view(2, 2)
    b = torch.rand(2, 2, generator=torch.Generator().manual_seed(seed))
    found = check.rank_correlation.reference(a, b)
    if len(set(values)) > 1:
        assert found == pytest.approx(spearmanr(values, b.flatten()).statistic)


# ---------------------------------------------------------------- planted mistakes


def box_inclusive(mask):
    if not mask.any():
        return torch.zeros(4, dtype=torch.long)
    y, x = torch.where(mask)
    return torch.stack((x.min(), y.min(), x.max(), y.max()))


def box_rows_first(mask):
    if not mask.any():
        return torch.zeros(4, dtype=torch.long)
    y, x = torch.where(mask)
    return torch.stack((y.min(), x.min(), y.max() + 1, x.max() + 1))


def box_without_the_empty_case(mask):
    y, x = torch.where(mask)
    return torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1))


def box_as_numpy(mask):
    if not mask.any():
        return np.zeros(4, int)
    y, x = np.where(mask.numpy())
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def box_of_the_ends(mask):
    places = mask.nonzero()
    if not len(places):
        return torch.zeros(4, dtype=torch.long)
    return torch.stack((*places[0].flip(0), *(places[-1] + 1).flip(0)))


def box_that_trusts_the_first_pixel(mask):
    right = check.box.reference(mask)
    right[0] = mask.nonzero()[0, 1] if mask.any() else 0
    return right


def noise_in_place(images, masks, drawn):
    background = (drawn * 0.5 * 255).clamp(0, 255).round().to(torch.uint8)
    keep = masks[:, None].expand_as(images)
    images[~keep] = background[~keep]
    return images


def noise_that_wraps(images, masks, drawn):
    background = (drawn * 127.5).round().to(torch.int32).to(torch.uint8)
    return torch.where(masks.unsqueeze(1), images, background)


def noise_in_floats(images, masks, drawn):
    background = (drawn * 127.5).clamp(0, 255).round()
    return torch.where(masks.unsqueeze(1), images.float(), background)


def noise_on_everything(images, masks, drawn):
    black = images * masks[:, None]
    return (black.float() + 127.5 * drawn).clamp(0, 255).round().to(torch.uint8)


def noise_without_an_axis(images, masks, drawn):
    return images * masks


def objective_with_probabilities(model, images, targets, l2):
    rows = torch.arange(len(images))
    probability = torch.softmax(model(images), dim=-1)[rows, targets]
    return probability - l2 * (model.normalise(images) ** 2).flatten(1).sum(1)


def objective_towards_black(model, images, targets, l2):
    score = model(images)[torch.arange(len(images)), targets]
    return score - l2 * (images**2).flatten(1).sum(1)


def objective_as_one_number(model, images, targets, l2):
    score = model(images)[torch.arange(len(images)), targets]
    return (score - l2 * (model.normalise(images) ** 2).flatten(1).sum(1)).sum()


def objective_of_all_pairs(model, images, targets, l2):
    size = model.normalise(images).square().sum((1, 2, 3))
    return model(images)[:, targets] - l2 * size


def objective_with_a_bonus(model, images, targets, l2):
    score = model(images)[torch.arange(len(images)), targets]
    return score + l2 * (model.normalise(images) ** 2).flatten(1).sum(1)


def step_without_a_guard(images, slope, rate):
    norms = torch.sqrt((slope**2).sum(dim=(1, 2, 3), keepdim=True))
    return torch.clip(images + rate * images[0].numel() ** 0.5 * slope / norms, 0, 1)


def step_of_the_batch(images, slope, rate):
    unit = slope / (torch.linalg.vector_norm(slope) + 1e-12)
    return torch.clip(images + rate * images[0].numel() ** 0.5 * unit, 0, 1)


def step_without_the_root(images, slope, rate):
    norm = slope.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-12)
    return (images + rate * images[0].numel() * slope / norm).clamp(0, 1)


def step_down(images, slope, rate):
    norms = slope.flatten(1).norm(dim=1).clamp(min=1e-9).view(-1, 1, 1, 1)
    return torch.clip(images - rate * images[0].numel() ** 0.5 * slope / norms, 0, 1)


def loss_of(masks, beta):
    down = (masks[:, 1:] - masks[:, :-1]).abs() ** beta
    across = (masks[:, :, 1:] - masks[:, :, :-1]).abs() ** beta
    return down, across


def loss_with_sums(p, masks, l1, l2, l3, beta):
    down, across = loss_of(masks, beta)
    border = down.sum((1, 2)) + across.sum((1, 2))
    grey = ((1 - masks) * masks).sum((1, 2))
    return p + l1 * (1 - masks).sum((1, 2)) + l2 * border + l3 * grey


def loss_with_means_of_differences(p, masks, l1, l2, l3, beta):
    down, across = loss_of(masks, beta)
    border = down.mean((1, 2)) + across.mean((1, 2))
    grey = ((1 - masks) * masks).mean((1, 2))
    return p + l1 * (1 - masks).mean((1, 2)) + l2 * border + l3 * grey


def loss_of_what_is_kept(p, masks, l1, l2, l3, beta):
    down, across = loss_of(masks, beta)
    border = (down.sum((1, 2)) + across.sum((1, 2))) / (masks.shape[1] * masks.shape[2])
    return p + l1 * masks.mean((1, 2)) + l2 * border + l3 * (masks - masks**2).mean((1, 2))


def loss_without_the_third(p, masks, l1, l2, l3, beta):
    down, across = loss_of(masks, beta)
    border = (down.sum((1, 2)) + across.sum((1, 2))) / (masks.shape[1] * masks.shape[2])
    return p + l1 * (1 - masks).mean((1, 2)) + l2 * border


def loss_without_return(p, masks, l1, l2, l3, beta):
    p + l1 * (1 - masks).mean((1, 2))


def loss_for_all_masks(p, masks, l1, l2, l3, beta):
    down, across = loss_of(masks, beta)
    border = (down.sum() + across.sum()) / masks.numel()
    grey = ((1 - masks) * masks).mean()
    return p + l1 * (1 - masks).mean() + l2 * border + l3 * grey


def median_by_means(offsets, near):
    return (near.float() @ offsets) / near.sum(1, keepdim=True)


def median_the_lower(offsets, near):
    return torch.stack([offsets[row].median(dim=0)[0] for row in near])


def median_of_zeros(offsets, near):
    return torch.quantile(torch.where(near[:, :, None], offsets[None], 0.0), 0.5, dim=1)


def median_transposed(offsets, near):
    return torch.stack([offsets[row].quantile(0.5, dim=0) for row in near]).T


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 1.0


def agreement(tags):
    return np.mean([jaccard(a, b) for a, b in itertools.combinations(tags, 2)])


def distance_to_oneself_too(tags):
    return np.mean([1 - jaccard(a, b) for a in tags for b in tags])


def distance_summed(tags):
    return sum(1 - jaccard(a, b) for a, b in itertools.combinations(tags, 2))


def pooling_in_the_window(a, channel, row, column, size, stride):
    top, left = row * stride, column * stride
    window = a[channel, top : top + size, left : left + size]
    return channel, *divmod(window.argmax().item(), size)


def pooling_columns_first(a, channel, row, column, size, stride):
    top, left = row * stride, column * stride
    window = a[channel, top : top + size, left : left + size]
    y, x = divmod(window.argmax().item(), size)
    return channel, left + x, top + y


def pooling_of_a_flat_index(a, channel, row, column, size, stride):
    return a[channel].argmax()


def convolve(a, weight, row, column, stride, padding):
    padded = torch.nn.functional.pad(a, (padding, padding, padding, padding))
    k, top, left = weight.shape[-1], row * stride, column * stride
    return padded[:, top : top + k, left : left + k], top, left, k


def convolution_off_by_the_padding(a, weight, row, column, stride, padding):
    window, top, left, k = convolve(a, weight, row, column, stride, padding)
    products = window * weight
    c = products.sum(dim=(1, 2)).argmax().item()
    y, x = divmod(torch.where(window[c] > 0, products[c], -torch.inf).argmax().item(), k)
    return c, top + y, left + x


def convolution_with_a_padding_of_one(a, weight, row, column, stride, padding):
    return convolution_right(a, weight, row, column, stride, 1)


def convolution_right(a, weight, row, column, stride, padding):
    window, top, left, k = convolve(a, weight, row, column, stride, padding)
    products = torch.where(window > 0, window * weight, -torch.inf)
    c = int((window * weight).sum((1, 2)).argmax())
    y, x = divmod(int(products[c].argmax()), k)
    return c, top + y - padding, left + x - padding


def convolution_by_activation(a, weight, row, column, stride, padding):
    window, top, left, k = convolve(a, weight, row, column, stride, padding)
    c = (window * weight).sum(dim=(1, 2)).argmax().item()
    y, x = divmod(window[c].argmax().item(), k)
    return c, top + y - padding, left + x - padding


def convolution_by_one_product(a, weight, row, column, stride, padding):
    window, top, left, k = convolve(a, weight, row, column, stride, padding)
    products = torch.where(window > 0, window * weight, -torch.inf)
    c, y, x = np.unravel_index(products.argmax().item(), (len(a), k, k))
    return int(c), top + int(y) - padding, left + int(x) - padding


def f_one(predicted, truth):
    hits = (predicted & truth).sum((1, 2))
    return 2 * hits / (predicted.sum((1, 2)) + truth.sum((1, 2)))


def f_of_precision_and_recall(predicted, truth):
    hits = (predicted & truth).sum((1, 2))
    p, r = hits / predicted.sum((1, 2)), hits / truth.sum((1, 2))
    return 1.3 * p * r / (0.3 * p + r)


def f_with_places_changed(predicted, truth):
    hits = (predicted & truth).sum((1, 2))
    return 1.3 * hits / (0.3 * predicted.sum((1, 2)) + truth.sum((1, 2)))


def f_beta_squared_twice(predicted, truth):
    hits = (predicted & truth).sum((1, 2))
    return (1 + 0.3**2) * hits / (predicted.sum((1, 2)) + 0.3**2 * truth.sum((1, 2)))


def tiled_from_the_box(image, box):
    x0, y0, x1, y1 = box
    strips = [image[:, :, :x0], image[:, :, x1:], image[:, :y0], image[:, y1:]]
    strip = sorted(strips, key=lambda s: -s.shape[1] * s.shape[2])[0]
    out = image.clone()
    for y in range(y0, y1):
        for x in range(x0, x1):
            out[:, y, x] = strip[:, (y - y0) % strip.shape[1], (x - x0) % strip.shape[2]]
    return out


def tiled_black(image, box):
    out = image.clone()
    out[:, box[1] : box[3], box[0] : box[2]] = 0
    return out


def tiled_in_place(image, box):
    x0, y0, x1, y1 = box
    strips = [image[:, :, :x0], image[:, :, x1:], image[:, :y0], image[:, y1:]]
    strip = max((s.clone() for s in strips), key=lambda s: s.numel())
    for y in range(y0, y1):
        for x in range(x0, x1):
            image[:, y, x] = strip[:, y % strip.shape[1], x % strip.shape[2]]
    return image


def nine_of_the_known(logits):
    known = imagenet9.of_imagenet()
    rows = torch.where(known >= 0)[0]
    return known[rows][logits[:, rows].argmax(dim=1)]


def nine_unmapped(logits):
    return torch.argmax(logits, dim=1)


def fooled_by_all(answers, labels):
    return (answers != labels.unsqueeze(1)).all(dim=1).float().mean().item()


def fooled_composites(answers, labels):
    return (answers != labels.unsqueeze(1)).float().mean().item()


def pearson(a, b):
    return np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]


def ranks_without_ties(a, b):
    x, y = (m.numpy().ravel().argsort(kind="stable").argsort() for m in (a, b))
    return np.corrcoef(x, y)[0, 1]


def spearman_by_the_formula(a, b):
    apart = rankdata(a.flatten()) - rankdata(b.flatten())
    n = a.numel()
    return 1 - 6 * float((apart**2).sum()) / (n**3 - n)


def kendall(a, b):
    return kendalltau(a.flatten(), b.flatten()).statistic


def share_alone(values, mask):
    return 100 * values[mask].sum() / values.sum()


def share_as_share(values, mask):
    return values[mask].sum() / values.sum() - mask.float().mean()


def interval_of_the_values(values, rows):
    return torch.quantile(values, torch.tensor([0.025, 0.975]))


def interval_of_ninety(values, rows):
    return torch.quantile(values[rows].mean(dim=1), torch.tensor([0.05, 0.95]))


PLANTED = [
    ("box", box_inclusive, "one pixel too early"),
    ("box", box_rows_first, "x and y are swapped"),
    ("box", box_as_numpy, "a NumPy array"),
    ("box", box_of_the_ends, "the first and the last true pixel"),
    ("box", box_that_trusts_the_first_pixel, "in no way that is known"),
    ("noise", noise_in_place, "changes its input `images` in place"),
    ("noise", noise_that_wraps, "wraps around"),
    ("noise", noise_in_floats, "The numbers are float32; wanted are uint8"),
    ("noise", noise_on_everything, "The object has noise on it"),
    ("objective", objective_with_probabilities, "after the softmax"),
    ("objective", objective_towards_black, "towards black"),
    ("objective", objective_as_one_number, "The first axis is gone"),
    ("objective", objective_of_all_pairs, "Each row was taken with every row"),
    ("objective", objective_with_a_bonus, "wrong sign"),
    ("step", step_without_a_guard, "a special case does not. 12 of 12 values are NaN"),
    ("step", step_of_the_batch, "that of the whole batch"),
    ("step", step_down, "goes down"),
    ("step", step_without_the_root, "square root of that number"),
    ("mask_loss", loss_with_sums, "sums over pixels"),
    ("mask_loss", loss_with_means_of_differences, "over their own number"),
    ("mask_loss", loss_of_what_is_kept, "should be on 1 - m"),
    ("mask_loss", loss_without_the_third, "third penalty is missing"),
    ("mask_loss", loss_without_return, "is there a `return`?"),
    ("mask_loss", loss_for_all_masks, "each mask has its own loss"),
    ("offset_median", median_by_means, "These are means"),
    ("offset_median", median_the_lower, "the lower of the two"),
    ("offset_median", median_of_zeros, "count as offsets of 0"),
    ("offset_median", median_transposed, "axes are swapped"),
    ("disagreement", agreement, "the mean agreement"),
    ("disagreement", distance_to_oneself_too, "compared with themselves"),
    ("disagreement", distance_summed, "are added up"),
    ("max_pooling", pooling_in_the_window, "the place inside the window"),
    ("max_pooling", pooling_columns_first, "Row and column have changed places"),
    ("max_pooling", pooling_of_a_flat_index, "3 numbers are wanted"),
    ("convolution", convolution_off_by_the_padding, "The padding is forgotten"),
    ("convolution", convolution_with_a_padding_of_one, "taken for granted"),
    ("convolution", convolution_by_activation, "the largest activation"),
    ("convolution", convolution_by_one_product, "the largest single product"),
    ("f_beta", f_one, "This is F1"),
    ("f_beta", f_of_precision_and_recall, "1 of 1 values are NaN"),
    ("f_beta", f_with_places_changed, "Precision and recall have changed places"),
    ("f_beta", f_beta_squared_twice, "0.3 times 0.3"),
    ("only_bg_t", tiled_from_the_box, "start at the box's corner"),
    ("only_bg_t", tiled_black, "Only-BG-B"),
    ("only_bg_t", tiled_in_place, "changes its input `image` in place"),
    ("nine_way", nine_of_the_known, "630 classes"),
    ("nine_way", nine_unmapped, "look them up"),
    ("vulnerable_share", fooled_by_all, "one is enough"),
    ("vulnerable_share", fooled_composites, "share of all composites"),
    ("rank_correlation", pearson, "Pearson"),
    ("rank_correlation", ranks_without_ties, "share their mean rank"),
    ("rank_correlation", spearman_by_the_formula, "for maps without equal values"),
    ("rank_correlation", kendall, "in no way that is known"),
    ("beyond_area", share_alone, "the share on the object alone"),
    ("beyond_area", share_as_share, "wanted are points"),
    ("interval", interval_of_the_values, "percentiles of the values"),
    ("interval", interval_of_ninety, "90 %"),
]


@pytest.mark.parametrize(("name", "mine", "said"), PLANTED, ids=lambda p: getattr(p, "__name__", p))
def test_planted_mistakes_are_named(name, mine, said):
    for seed in (11, 12):
        verdict = check.EXERCISES[name](mine, seed=seed)
        assert not verdict
        assert said in verdict.message


def test_planted_mistakes_have_messages_of_their_own():
    for name, planted in itertools.groupby(PLANTED, key=lambda p: p[0]):
        messages = [check.EXERCISES[name](mine, seed=3).message for _, mine, _ in planted]
        assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("name", check.EXERCISES)
def test_known_mistakes_are_told_apart(name):
    exercise = check.EXERCISES[name]
    for message, mistake in exercise.mistakes.items():
        verdict = exercise(mistake, seed=5)
        assert not verdict
        assert verdict.message == message


# ---------------------------------------------------------------- what is said of any function


def drawn(generator):
    return (torch.rand(3, 4, int(torch.randint(5, 8, (), generator=generator))) - 0.3,)


def doubled(x):
    return 2 * x


TABLE = Exercise(doubled, drawn, {})
ROWS = Exercise(lambda x: x.mean((1, 2)), drawn, {})


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (lambda x: -2 * x, "The sign is the other way round"),
        (lambda x: x, "1/2 of the right ones"),
        (lambda x: 2 * x + 0.25, "0.25 too large"),
        (lambda x: 2 * x - 0.25, "0.25 too small"),
        (lambda x: 1 - 2 * x, "one minus the right result"),
        (lambda x: (2 * x).abs(), "The signs are lost"),
        (lambda x: 4 * x**2, "squares of the right values"),
        (lambda x: 2 * x.transpose(1, 2), "axes are swapped"),
        (lambda x: 2 * x.roll(1, 2), "later by 1 along axis 2"),
        (lambda x: 2 * x.roll(-1, 1), "earlier by 1 along axis 1"),
        (lambda x: 2 * x.flip(2), "mirrored along axis 2"),
        (lambda x: 2 * x.flatten()[torch.randperm(x.numel())].view(x.shape), "in another order"),
        (lambda x: 2 * x[:, :, :-1], "one too few: off by one"),
        (lambda x: torch.nn.functional.pad(2 * x, (1, 1, 1, 1)), "two too many"),
        (lambda x: 2 * x[None], "axis of length 1"),
        (lambda x: 2 * x.sum(0), "The first axis is gone"),
        (lambda x: 2 * x.sum(2), "An axis too many"),
        (lambda x: x / 0, "values are infinite"),
        (lambda x: (2 * x).tolist(), "a list"),
        (lambda x: (2 * x).long(), "The numbers are int64; wanted are float32"),
        (lambda x: None, "returns nothing"),
        (lambda x: torch.sort(2 * x**3).values, "in no way that is known"),
    ],
)
def test_general_diagnoses(mine, said):
    verdict = TABLE(mine, seed=0)
    assert not verdict
    assert said in verdict.message


def test_sums_and_means_are_told_apart_though_the_factor_changes():
    verdict = ROWS(lambda x: x.sum((1, 2)), seed=0)
    assert "a sum where a mean is wanted" in verdict.message
    verdict = ROWS(lambda x: x.sum(1).mean(1), seed=0)
    assert "4 times the right ones" in verdict.message
    verdict = Exercise(lambda x: x.sum((1, 2)), drawn, {})(lambda x: x.mean((1, 2)), seed=0)
    assert "a mean where a sum is wanted" in verdict.message


@given(st.floats(0.05, 50).filter(lambda f: abs(f - 1) > 0.02), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_constant_factor_is_named(factor, seed):
    said = TABLE(lambda x: factor * 2 * x, seed=seed).message
    if "1/" in said:
        assert 1 / int(said.split("1/")[1].split()[0]) == pytest.approx(factor, rel=2e-3)
    else:
        assert float(said.split("are ")[1].split()[0]) == pytest.approx(factor, rel=1e-3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_right_stays_right_whatever_is_drawn(seed):
    assert TABLE(lambda x: x + x, seed=seed)
    assert check.interval(check.interval.reference, seed=seed)
    assert not check.interval(interval_of_the_values, seed=seed)


def test_the_smallest_example_is_shown():
    verdict = check.vulnerable_share(lambda answers, labels: 0.1234, seed=0)
    shown = dict(verdict.example)
    assert shown == {
        "answers": "[[3, 3], [1, 2]]",
        "labels": "[3, 1]",
        "wanted": "0.5",
        "got": "0.1234",
    }
    large = dict(TABLE(lambda x: torch.where(x == x[1, 2, 3], 99.0, 2 * x), seed=0).example)
    assert large["got at [1, 2, 3]"] == "99"


def test_every_call_draws_new_inputs_and_leaves_the_generator_alone():
    seen = []
    before = torch.random.get_rng_state()
    exercise = check.interval
    for _ in range(2):
        exercise(lambda values, rows: seen.append(values) or exercise.reference(values, rows))
    half = len(seen) // 2
    assert not any(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


# ---------------------------------------------------------------- errors


def test_not_written_yet_passes_through():
    def mine(mask):
        raise NotImplementedError("write my_box")

    with pytest.raises(NotImplementedError, match="write my_box"):
        check.box(mine)


def test_torchs_own_not_implemented_is_an_error_like_others():
    def mine(mask):
        raise NotImplementedError("\"sort_stable\" not implemented for 'ComplexFloat'")

    assert "NotImplementedError" in check.box(mine).message


def test_an_error_is_told_with_its_line_and_the_inputs():
    verdict = check.noise(noise_without_an_axis, seed=0)
    assert "`return images * masks`" in verdict.message
    assert "RuntimeError: The size of tensor" in verdict.message
    number = noise_without_an_axis.__code__.co_firstlineno + 1
    assert f"Line {number}," in verdict.message
    assert dict(verdict.example)["images"].startswith("uint8 (")


def test_an_error_in_a_special_case_is_said_to_be_one():
    verdict = check.box(box_without_the_empty_case, seed=0)
    assert verdict.message.startswith("In a special case: Line ")
    assert dict(verdict.example) == {"mask": "[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]"}


def test_too_few_arguments():
    message = check.mask_loss(lambda probability, masks: probability).message
    assert "takes 2 positional arguments but 6 were given" in message


def test_a_result_in_place_of_a_function():
    assert "without calling it" in check.box(torch.zeros(4)).message


def test_a_mistake_that_also_changes_its_input_is_told_both():
    def mine(images, masks, drawn):
        images[:] = images * masks[:, None]
        return images

    assert "It also changes its input `images` in place" in check.noise(mine, seed=0).message


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("00-tie", 0.55, "smaller than 0.55"),
        ("00-tie", 50.9, "100 times too large"),
        ("00-tie", 0.3, "too small"),
        ("01-equal-strength", 4, "not its square"),
        ("01-equal-strength", 0.5, "The other way round"),
        ("02-means-or-sums", 64, "64 columns"),
        ("02-means-or-sums", 12288, "no colours"),
        ("03-other-class", (2, 3), "Rows come first"),
        ("03-other-class", (2, 0), "the first class"),
        ("03-other-class", (4, 3), "counted from 0"),
        ("03-other-class", (1, 1), "Other numbers"),
        ("03-other-class", 3, "2 numbers are wanted"),
        ("04-gap", -25, "not the other way round"),
        ("04-gap", 0.25, "a share"),
        ("04-gap", 33.3333, "divided by all objects"),
        ("04-gap", "25", ""),
        ("05-beyond", 80, "still to be subtracted"),
        ("05-beyond", 70, "too large"),
    ],
)
def test_predictions(name, wrong, said):
    verdict = check.answer(name, wrong)
    assert bool(verdict) == (wrong == "25")  # what reads as a number is one
    assert said in verdict.message


def test_right_predictions():
    right = {
        "00-tie": 0.51,
        "01-equal-strength": 2,
        "02-means-or-sums": 4096,
        "03-other-class": [3, 2],
        "04-gap": torch.tensor(25),
        "05-beyond": 60,
    }
    assert set(right) == set(check.QUESTIONS)
    assert all(check.answer(name, value) for name, value in right.items())


@given(st.floats(-1e3, 1e3).filter(lambda v: abs(v - 7) > 0.1 and abs(v) > 1e-3))
def test_a_wrong_number_is_never_right(value):
    assert not judge_number(Question(lambda: 7.0), value)


def test_not_tried_and_unknown_questions():
    with pytest.raises(NotImplementedError, match="04-gap"):
        check.answer("04-gap", None)
    with pytest.raises(ValueError, match="no question '04-gab'; there are 00-tie"):
        check.answer("04-gab", 25)


# ---------------------------------------------------------------- how it is shown


def test_a_verdict_in_text_and_html():
    verdict = check.disagreement(agreement, seed=0)
    assert repr(verdict).startswith("Not yet. This is the mean agreement")
    assert "\n  wanted" in repr(verdict)
    html = verdict._repr_html_()
    assert "<strong>Not yet.</strong>" in html and "<th" in html
    assert repr(check.answer("04-gap", 25)) == "Right."
    right = check.disagreement(check.disagreement.reference, seed=0)
    assert repr(right) == "Right. 8 random inputs and 4 special cases agree with the package."


def test_html_of_a_message_is_escaped():
    def mine(mask):
        raise ValueError("<script>alert(1)</script>")

    assert "<script>" not in check.box(mine)._repr_html_()
