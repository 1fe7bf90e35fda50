"""Claims: declared before results, judged by their own rule, kept for the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import claims

GREATER = "p1-black-lowers-validation"  # greater than 0, over seeds
LESS = "p3-cheap"  # less than 1, over images
BETWEEN = "p3-precision"  # between .45 and .55, over images
ORDERED = "p1-validation-order"  # decreasing, over seeds


def judge(claim, measured=None, profile="demo", *, tmp_path, **options):
    return claims.judge(claim, measured, folder=tmp_path, profile=profile, **options)


def test_every_declared_claim_is_complete():
    declared = claims.load()
    assert {claim.paper for claim in declared.values()} == {0, 1, 2, 3, 4, 5}
    for claim in declared.values():
        assert claim.untestable or (claim.criterion and claim.quantity and claim.rule)
        assert set(claim.by_construction) <= {"demo", "photos", "paper"}


def test_published_numbers_follow_from_the_published_tables():
    table = claims.published("paper1_table1_accuracy").set_index("trained_on")
    accuracy = table.validation_accuracy_percent
    for name in ("black", "noise", "mixed"):
        claim = claims.find(f"p1-{name}-lowers-validation")
        assert claim.published == pytest.approx(accuracy["standard"] - accuracy[name])
    drop = claims.published("paper2_table2_mask_drop").set_index("method").drop_percent
    hurts = claims.find("p2-thresholding-hurts").published
    assert hurts == pytest.approx(float(drop["IEBB"]) - float(drop["IEBB thresh."]))
    assert drop["Ours"] == "unreadable"
    table = claims.published("paper4_table_accuracy").pivot(
        index=["trained_on", "model"], columns="test_set", values="percent"
    )
    gap = (table["Mixed-Same"] - table["Mixed-Rand"]).round(1)
    assert gap.to_dict() == table["BG-gap"].to_dict()
    assert claims.find("p4-bg-gap").published == gap["IN-9L", "ResNet-50"]
    assert claims.find("p4-bg-gap-pretrained").published == gap["ImageNet", "ResNet-50"]


def test_the_tags_of_paper_2_count_its_summaries():
    tags = claims.published("paper2_table1_tags")
    counted = tags.tags.str.split(";").str.len()
    assert len(tags) == 18
    assert set(tags.pair.value_counts()) == {2}
    assert round(counted.mean()) == 5  # AlexNet in Table 3
    assert counted[tags["class"] == "Pick-up"].item() == 6  # Fig. 5


@pytest.mark.parametrize(
    ("claim", "measured", "verdict"),
    [
        (GREATER, [10.0, 11.0, 12.0], "reproduced"),
        (GREATER, [-1.0, 3.0, 2.0], "partly reproduced"),
        (GREATER, [-1.0, -3.0, 2.0], "not reproduced"),
        (GREATER, [5.0], "partly reproduced"),  # one seed has no interval
        (LESS, np.full(20, 0.3), "reproduced"),
        (LESS, np.r_[np.full(10, 0.9), np.full(10, 1.05)], "partly reproduced"),
        (LESS, [1.5, 1.4], "not reproduced"),
        (BETWEEN, torch.linspace(0.48, 0.52, 50), "reproduced"),
        (BETWEEN, [0.1, 0.5, 0.9], "partly reproduced"),
        (BETWEEN, [0.9, 0.8, 0.85], "not reproduced"),
        (ORDERED, [[95, 88, 60, 55], [94, 87, 61, 54], [96, 89, 60, 56]], "reproduced"),
        (ORDERED, [[95, 94, 60, 55], [90, 91, 61, 54], [93, 92, 60, 56]], "partly reproduced"),
        (ORDERED, [[95, 96, 60, 55], [94, 97, 61, 54], [96, 97, 60, 56]], "not reproduced"),
    ],
)
def test_verdicts(claim, measured, verdict, tmp_path):
    assert judge(claim, measured, tmp_path=tmp_path).verdict == verdict


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6))
def test_the_verdict_follows_from_the_interval_it_shows(tmp_path_factory, values):
    made = judge(GREATER, values, tmp_path=tmp_path_factory.mktemp("c"))
    assert made.low <= made.estimate <= made.high
    assert (made.verdict == "reproduced") == (made.low > 0)
    assert (made.verdict == "not reproduced") == (made.estimate <= 0)


def test_a_setting_of_the_profile_is_no_reproduction(tmp_path):
    claim = "p4-backgrounds-suffice"
    made = judge(claim, [50.0, 51.0, 52.0], tmp_path=tmp_path)
    assert (made.verdict, made.estimate) == ("by construction", 51.0)
    assert judge(claim, [50, 51, 52.0], "photos", tmp_path=tmp_path).verdict == "reproduced"


def test_what_cannot_be_measured_needs_a_reason(tmp_path):
    with pytest.raises(ValueError, match="say why in because="):
        judge(GREATER, tmp_path=tmp_path)
    made = judge(GREATER, because="no masks", tmp_path=tmp_path)
    assert (made.verdict, made.ours) == ("not testable here", "no masks")
    made = judge("p1-people-prefer", tmp_path=tmp_path)
    assert made.verdict == "not testable here"
    assert "people" in made.ours
    with pytest.raises(ValueError, match="declared untestable"):
        judge("p1-people-prefer", [1.0], tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("claim", "measured", "message"),
    [
        (GREATER, [], "nothing was measured"),
        (GREATER, [1.0, float("nan")], "1 of 2 numbers are not finite"),
        (GREATER, [[1.0], [2.0]], "one number per row"),
        (ORDERED, [1.0, 2.0], "in order"),
    ],
)
def test_bad_measurements_are_refused_and_leave_no_file(claim, measured, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        judge(claim, measured, tmp_path=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_claim_names_its_neighbours(tmp_path):
    with pytest.raises(KeyError, match="did you mean p4-bg-gap"):
        judge("p4-bggap", [1.0], tmp_path=tmp_path)
    with pytest.raises(KeyError, match="paper2_table3_summaries"):
        claims.published("paper2_table3")


def test_a_judgement_survives_its_file(tmp_path):
    made = judge(ORDERED, [[4.0, 3, 2, 1], [5, 3.5, 2, 0]], notebook="01_x", tmp_path=tmp_path)
    record = json.loads((tmp_path / f"{ORDERED}.json").read_text())
    assert claims.read(record) == made
    with pytest.raises(ValueError, match="verdict"):
        claims.read({**record, "verdict": "splendid"})


def test_the_card_shows_both_sides_and_escapes_them(tmp_path):
    made = judge(GREATER, [10.0, 11.0, 12.0], tmp_path=tmp_path)
    html = made._repr_html_()
    for text in ("✓ Reproduced", "11.26 points", "Table I", "n = 3 seeds", "greater than 0 points"):
        assert text in html
    hostile = replace(made, claim=replace(made.claim, statement="<script>"))
    assert "<script>" not in hostile._repr_html_()


def test_numbers_are_shown_as_precisely_as_their_interval_allows(tmp_path):
    assert judge(GREATER, [-2.0, -3.0, -2.5], tmp_path=tmp_path).ours == (
        "−2.5 [−3.7, −1.3] points, n = 3 seeds"
    )
    assert judge(LESS, np.full(5, 0.25), tmp_path=tmp_path).value.startswith("0.250 times (all 5")


def test_equal_values_have_no_interval_and_percentages_one_decimal(tmp_path):
    made = judge(GREATER, [-31.48148] * 3, tmp_path=tmp_path)
    assert made.value == "−31.5 points (all 3 equal, so no interval)"
    assert "Could have seen" not in made._repr_html_()
    wide = judge(GREATER, [-60.0, 10.0, 20.0], tmp_path=tmp_path)
    assert wide.value == "−10.0 [−118.3, 98.3] points"


def test_a_judgement_tells_its_size_and_what_it_could_have_seen(tmp_path):
    made = judge(GREATER, [20.0, 22.52, 25.04], tmp_path=tmp_path)  # the paper: 11.26
    assert made.size.startswith("2.0 times the paper's")
    html = made._repr_html_()
    assert "effects of" in html and f"{made.detectable:.1f} points" in html
    assert judge(GREATER, [-1.0, -2.0], tmp_path=tmp_path).size.startswith("opposite sign")


def test_the_smallest_detectable_effect_is_2_8_standard_errors(tmp_path):
    made = judge(GREATER, [1.0, 2.0, 3.0], tmp_path=tmp_path)
    assert made.detectable == pytest.approx(2.8 * (made.high - made.low) / 3.92, rel=1e-3)
    assert judge(GREATER, [1.0], tmp_path=tmp_path).detectable is None


def test_t_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in map(claims.t_interval, rng.normal(size=(2000, 3)))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_bootstrap_interval_agrees_with_theory_and_is_repeatable():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = claims.bootstrap_interval(values, seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high
    assert claims.bootstrap_interval(values, seed=1) == (low, high)


def test_bootstrap_interval_of_a_statistic_resamples_whole_rows():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 200)
    rows = np.stack([x, 2 * x + rng.normal(0, 0.1, 200)], 1)
    low, high = claims.bootstrap_interval(rows, lambda a, b: np.polyfit(a, b, 1)[0], resamples=300)
    assert 1.8 < low < 2 < high < 2.2


def test_intervals_of_degenerate_values():
    assert claims.bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    for interval in (claims.t_interval, claims.bootstrap_interval):
        with pytest.raises(ValueError, match="at least two values"):
            interval([1.0])


GOOD = """
[papers.1]
title = "T"
[claims.a-b]
paper = 1
statement = "S"
where = "W"
published = 3
quantity = "Q"
criterion = { kind = "greater", than = 0.0 }
over = "seeds"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ('statement = "S"', "", "a-b: statement missing"),
        ("paper = 1", "paper = 7", "no paper 7"),
        ('over = "seeds"', 'over = "seeds"\nover_what = 1', "unknown 'over_what'"),
        ('"greater", than = 0.0', '"larger", than = 0.0', "'larger' is none of greater"),
        (", than = 0.0", "", "needs than"),
        ("a-b", "A_b", "kebab-case"),
        ("[papers.1]", "[papers.1", "not valid TOML"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, old, new, message):
    path = tmp_path / "claims.toml"
    path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
    if message is None:
        assert list(claims.load(path)) == ["a-b"]
    else:
        with pytest.raises(ValueError, match=message):
            claims.load(path)


def test_the_deviation_log_reads_and_names_declared_claims(tmp_path):
    assert all(claims.find(name) for entry in claims.deviations() for name in entry.claims)
    path = tmp_path / "deviations.md"
    path.write_text(
        "# Deviations\n\nText.\n\n    ## 2030-01-01 · not-an-entry\n\n"
        "## 2030-02-03 · p4-bg-gap, p3-cheap\n\nFive seeds\ninstead of three.\n\n"
        "## 2030-01-01 · p3-iou\nOther."
    )
    first, second = claims.deviations(path)
    assert first == claims.Deviation(
        "2030-02-03", ("p4-bg-gap", "p3-cheap"), "Five seeds instead of three."
    )
    assert second.date == "2030-01-01"
