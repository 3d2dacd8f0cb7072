import itertools
import math

import numpy as np
import pytest

from d2tune.metrics import bootstrap
from d2tune.metrics.bootstrap import (
    Statistic,
    Weights,
    draw_weights,
    interval,
    intervals,
    least_images,
    over_folds,
    paired_comparison,
    paired_comparisons,
    student_quantile,
)


def mean_of(values: np.ndarray) -> Statistic:
    return lambda weights: weights @ values / len(values)


def ratio_of(top: np.ndarray, bottom: np.ndarray) -> Statistic:
    """A metric that is undefined on draws without any of ``bottom``."""

    def statistic(weights: Weights) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return 100 * (weights @ top) / (weights @ bottom)

    return statistic


def test_weights_are_counts_of_images_drawn_with_replacement() -> None:
    weights = np.concatenate(list(draw_weights(7, replicates=30_000, seed=3)))
    assert weights.shape == (30_000, 7) and (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.03)
    # the number of times an image is taken is binomial: 7 draws with 1 in 7
    for times in range(4):
        expected = math.comb(7, times) * (1 / 7) ** times * (6 / 7) ** (7 - times)
        assert (weights == times).mean() == pytest.approx(expected, abs=0.005)


def test_the_interval_is_that_of_a_loop_over_draws() -> None:
    values = np.random.default_rng(0).normal(60, 10, 13)
    replicates = []
    draw = np.random.default_rng(5)
    for _ in range(400):
        taken = [values[index] for index in draw.integers(0, 13, 13)]
        replicates.append(sum(taken) / 13)
    replicates.sort()

    def quantile(share: float) -> float:
        place = share * (len(replicates) - 1)
        low = math.floor(place)
        return replicates[low] + (place - low) * (replicates[low + 1] - replicates[low])

    actual = interval(mean_of(values), 13, replicates=400, seed=5, confidence=0.9)
    # Student's 95 % quantile of 12 degrees of freedom is 1.7823; 1.7823 times the root of 13/12 is 1.8551 deviations
    # of a normal distribution, beyond which lie 3.180 %
    assert (actual.low, actual.high) == pytest.approx((quantile(0.0318), quantile(1 - 0.0318)), abs=0.01)
    assert (actual.replicates, actual.undefined) == (400, 0)


@pytest.mark.parametrize("confidence", [0.95, 0.75])
def test_three_images_have_the_interval_of_all_27_draws(confidence: float) -> None:
    values = np.array([0.0, 30.0, 90.0])
    everything = sorted(sum(taken) / 3 for taken in itertools.product(values, repeat=3))
    ends = []
    # Student's quantile of 2 degrees of freedom (4.303 and 1.604) times the root of 3/2, as a share of a normal one
    tail = {0.95: 6.8e-8, 0.75: 0.02475}[confidence]
    for share in (tail, 1 - tail):
        place = share * 27
        # the quantile lies well inside one of the 27, so that sampling cannot move it to another value
        assert min(abs(place - step) for step in range(1, 27) if everything[step - 1] != everything[step]) > 0.15, (
            "choose another confidence"
        )
        ends.append(everything[math.floor(place)])
    actual = interval(mean_of(values), 3, replicates=60_000, confidence=confidence)
    assert (actual.low, actual.high) == pytest.approx(ends)


@pytest.mark.parametrize(
    ("share", "degrees", "printed"),
    [(0.975, 5, 2.571), (0.975, 12, 2.179), (0.975, 30, 2.042), (0.95, 9, 1.833), (0.995, 12, 3.055), (0.5, 4, 0.0)],
)
def test_students_quantiles_are_those_of_printed_tables(share: float, degrees: int, printed: float) -> None:
    assert student_quantile(share, degrees) == pytest.approx(printed, abs=2e-3)


def test_the_same_seed_gives_the_same_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = mean_of(np.random.default_rng(0).random(13))
    first = interval(statistic, 13, seed=1)
    assert interval(statistic, 13, seed=1) == first
    assert interval(statistic, 13, seed=2) != first
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 100)
    assert [len(chunk) for chunk in draw_weights(13, replicates=17)] == [7, 7, 3]
    again = interval(statistic, 13, seed=1)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=1e-12)


def test_several_metrics_share_their_draws() -> None:
    a, b = mean_of(np.arange(9.0)), mean_of(np.arange(9.0) ** 2)
    actual = intervals(lambda weights: {"a": a(weights), "b": b(weights)}, 9, seed=4)
    assert actual == {"a": interval(a, 9, seed=4), "b": interval(b, 9, seed=4)}


def test_draws_without_the_metric_are_excluded_and_counted() -> None:
    top, bottom = np.array([1, 0, 0, 0]), np.array([2, 0, 0, 0])
    actual = interval(ratio_of(top, bottom), 4, replicates=4000)
    # the first of four images is never taken with probability (3/4)^4
    assert actual.undefined / 4000 == pytest.approx((3 / 4) ** 4, abs=0.03)
    assert actual.replicates == 4000 - actual.undefined
    assert (actual.low, actual.high) == (50, 50)


def test_where_there_is_no_interval_there_is_a_reason() -> None:
    nowhere = interval(ratio_of(np.zeros(5), np.zeros(5)), 5, replicates=50)
    assert (nowhere.low, nowhere.high, nowhere.replicates, nowhere.undefined) == (None, None, 0, 50)
    assert nowhere.reason == "the metric is undefined on every draw of the images"
    one = interval(mean_of(np.array([40.0])), 1)
    assert (one.low, one.high, one.reason) == (None, None, "one image does not show how images differ")
    with pytest.raises(ValueError, match="at least 1 image and 1 replicate, found 0 images"):
        interval(mean_of(np.empty(0)), 0)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("images", "normal", "exponential"),
    [(5, 0.92, 0.87), (13, 0.94, 0.92), (50, 0.95, 0.94)],
)
def test_intervals_hold_the_truth_as_often_as_the_docstring_says(
    images: int, normal: float, exponential: float
) -> None:
    draw = np.random.default_rng(images)
    for expected, truth, samples in (
        (normal, 50, draw.normal(50, 10, (2500, images))),
        (exponential, 10, draw.exponential(10, (2500, images))),
    ):
        actual = [interval(mean_of(row), images, replicates=500, seed=seed) for seed, row in enumerate(samples)]
        coverage = np.mean([one.low <= truth <= one.high for one in actual])
        assert coverage == pytest.approx(expected, abs=0.02)


@pytest.mark.extended
def test_the_interval_of_a_ratio_of_sums_has_its_coverage() -> None:
    """A ratio of sums over 60 images, like mIoU or PQ, whose true value is known."""
    draw = np.random.default_rng(1)
    hits = 0
    for seed in range(1500):
        sizes = draw.integers(50, 150, 60)
        right = draw.binomial(sizes, 0.7)
        actual = interval(ratio_of(right, sizes), 60, replicates=500, seed=seed)
        hits += actual.low <= 70 <= actual.high
    assert hits / 1500 == pytest.approx(0.95, abs=0.02)


def test_a_clear_difference_is_reported_in_points() -> None:
    draw = np.random.default_rng(2)
    a = draw.normal(50, 10, 30)
    b = a + draw.normal(4, 3, 30)
    actual = paired_comparison(mean_of(a), mean_of(b), 30)
    assert actual.difference == pytest.approx(b.mean() - a.mean())
    expected = interval(mean_of(b - a), 30)
    assert (actual.interval.low, actual.interval.high) == pytest.approx((expected.low, expected.high))
    assert (actual.better, actual.probability_b_better, actual.images) == ("B", 1.0, 30)
    low, high = actual.interval.low, actual.interval.high
    assert actual.verdict == (f"B is better by {actual.difference:.1f} points (95 % interval {low:.1f} to {high:.1f})")
    # pairing matters: the intervals of the two metrics overlap
    assert interval(mean_of(a), 30).high > interval(mean_of(b), 30).low


def test_the_other_way_round_a_is_better_by_as_much() -> None:
    draw = np.random.default_rng(2)
    a = draw.normal(50, 10, 30)
    b = a + draw.normal(4, 3, 30)
    forth, back = paired_comparison(mean_of(a), mean_of(b), 30), paired_comparison(mean_of(b), mean_of(a), 30)
    assert back.better == "A" and back.probability_b_better == 0.0
    assert back.verdict == forth.verdict.replace("B is", "A is")
    assert back.difference == pytest.approx(-forth.difference)


def test_equal_runs_differ_by_0_and_nothing_is_claimed() -> None:
    values = np.random.default_rng(0).normal(50, 10, 13)
    actual = paired_comparison(mean_of(values), mean_of(values), 13)
    assert (actual.difference, actual.interval.low, actual.interval.high) == (0, 0, 0)
    assert (actual.better, actual.probability_b_better) == (None, 0.5)
    assert actual.verdict == "no significant difference on 13 images"


def test_noise_is_not_a_difference() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.normal(50, 10, (2, 13))
    actual = paired_comparison(mean_of(a), mean_of(b), 13)
    assert actual.interval.low < 0 < actual.interval.high
    assert 0.02 < actual.probability_b_better < 0.98
    assert (actual.better, actual.verdict) == (None, "no significant difference on 13 images")


@pytest.mark.parametrize(("images", "claimed"), [(1, None), (2, None), (5, None), (6, "B")])
def test_from_five_images_nothing_is_claimed_even_where_all_agree(images: int, claimed: str | None) -> None:
    a = np.linspace(40, 60, images)
    actual = paired_comparison(mean_of(a), mean_of(a + 5), images)
    assert actual.better == claimed and actual.difference == pytest.approx(5)
    if claimed is None:
        # neither an interval nor a probability, which would say what the verdict does not
        assert (actual.interval.low, actual.interval.high, actual.probability_b_better) == (None, None, None)
        are = "is" if images == 1 else "s are"
        assert (
            actual.verdict
            == f"no comparison: {images} image{' ' if images == 1 else ''}{are} too few, at least 6 are needed"
        )
    else:
        assert actual.interval.low == pytest.approx(5) and actual.probability_b_better == 1


@pytest.mark.parametrize(("confidence", "least"), [(0.9, 5), (0.95, 6), (0.99, 8), (0.5, 2)])
def test_the_fewest_images(confidence: float, least: int) -> None:
    """Half of the remaining share must be at least the chance that all images favor one of the sides."""
    assert least_images(confidence) == least
    assert 2 / 2**least <= 1 - confidence + 1e-9 < 2 / 2 ** (least - 1) + 1e-9


def test_what_cannot_be_computed_cannot_be_compared() -> None:
    actual = paired_comparison(mean_of(np.ones(8)), ratio_of(np.zeros(8), np.zeros(8)), 8)
    assert (actual.value_a, actual.value_b, actual.difference, actual.probability_b_better) == (1, None, None, None)
    assert actual.verdict == "no comparison: the metric of B cannot be computed"
    assert actual.interval.undefined == 1000


def test_metrics_of_both_are_compared_on_the_same_draws() -> None:
    draw = np.random.default_rng(4)
    a, b = draw.normal(50, 10, (2, 13))
    actual = paired_comparisons(
        lambda weights: {"x": mean_of(a)(weights), "only A": mean_of(a)(weights), "y": mean_of(b)(weights)},
        lambda weights: {"x": mean_of(b)(weights), "y": mean_of(a)(weights)},
        13,
    )
    assert actual == {
        "x": paired_comparison(mean_of(a), mean_of(b), 13),
        "y": paired_comparison(mean_of(b), mean_of(a), 13),
    }


def test_the_mean_over_folds_is_that_of_the_images_that_were_taken() -> None:
    # the metric of each fold is a ratio: 2 of 4 and 1 of 1, then 3 of 5, 0 of 0 and 0 of 1
    first = ratio_of(np.array([2.0, 1.0]), np.array([4.0, 1.0]))
    second = ratio_of(np.array([3.0, 0.0, 0.0]), np.array([5.0, 0.0, 1.0]))
    statistic = over_folds([first, second], [2, 3])
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2], [0, 0, 2, 0, 3], [3, 0, 0, 2, 0], [0, 0, 0, 5, 0]])
    expected = [
        (2 * 60 + 3 * 50) / 5,  # 3 of 5, and 3 of 6
        (2 * 50 + 3 * 300 / 7) / 5,  # 4 of 8, and 3 of 7
        600 / 13,  # no image of the first fold
        50,  # undefined on the second fold
        math.nan,
    ]
    assert statistic(weights) == pytest.approx(expected, nan_ok=True)


def test_groups_are_drawn_as_a_whole() -> None:
    draw = np.random.default_rng(11)
    a, b = draw.normal(50, 10, (2, 8))
    groups = np.repeat(np.arange(8), 3)
    actual = paired_comparison(mean_of(a[groups]), mean_of(b[groups]), 24, groups=groups)
    expected = paired_comparison(mean_of(a), mean_of(b), 8)
    assert actual.images == 24 and actual.value_a == pytest.approx(expected.value_a)
    assert actual.interval.low == pytest.approx(expected.interval.low)
    assert actual.interval.high == pytest.approx(expected.interval.high)
    assert actual.probability_b_better == expected.probability_b_better
    alone = paired_comparison(mean_of(a[groups]), mean_of(b[groups]), 24)
    assert alone.interval.high - alone.interval.low < 0.7 * (actual.interval.high - actual.interval.low)
    few = paired_comparison(mean_of(a[groups]), mean_of(b[groups]), 24, groups=groups % 5)
    assert few.better is None and few.interval.reason == "5 groups are too few, at least 6 are needed"


@pytest.mark.extended
def test_differences_that_are_none_are_rarely_claimed() -> None:
    claims = 0
    draw = np.random.default_rng(7)
    for seed in range(1500):
        a, b = draw.normal(50, 10, (2, 13))
        claims += paired_comparison(mean_of(a), mean_of(b), 13, replicates=500, seed=seed).better is not None
    assert claims / 1500 < 0.07
