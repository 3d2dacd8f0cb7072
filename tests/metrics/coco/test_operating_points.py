import numpy as np
import pytest

from d2tune.metrics.coco.operating_points import (
    PrecisionRecall,
    best_f1,
    calibration,
    for_precision,
    precision_recall,
)
from tests.metrics.grids import seeds


def curve(scores: list[float], matched: list[int], n_gt: int, ignored: list[int] | None = None) -> PrecisionRecall:
    flags = np.zeros(len(scores), bool) if ignored is None else np.array(ignored, bool)
    return precision_recall(np.array(scores, float), np.array(matched, bool), flags, n_gt)


def test_the_curve_of_a_case_by_hand() -> None:
    # by falling score: right, wrong, right and ignored, (right, wrong) of equal score
    actual = curve([0.5, 0.9, 0.7, 0.5, 0.6], [1, 1, 0, 0, 1], 4, ignored=[0, 0, 0, 0, 1])
    assert actual.thresholds.tolist() == [0.9, 0.7, 0.5]
    assert actual.precision == pytest.approx([100, 50, 50])
    assert actual.recall == pytest.approx([25, 25, 50])
    assert actual.f1 == pytest.approx([40, 100 / 3, 50])


def test_the_threshold_of_the_best_f1() -> None:
    actual = best_f1(curve([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 3))
    # from 0.6 on: 3 of 4 right, 3 of 3 detected
    assert (actual.threshold, actual.precision, actual.recall) == (0.6, 75, 100)
    assert actual.f1 == pytest.approx(600 / 7)


def test_of_equal_f1_the_highest_threshold_is_taken() -> None:
    # 1 right of 1 with 3 instances is 2 / 4; 2 right of 5 is 4 / 8
    actual = best_f1(curve([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 0, 0, 1], 3))
    assert (actual.threshold, actual.f1) == (0.9, 50)


def test_the_threshold_for_a_precision_is_the_lowest_that_has_it() -> None:
    # precision falls below 75 at 0.7 and comes back to it at 0.6
    one = curve([0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0], 4)
    actual = for_precision(one, 75)
    assert (actual.threshold, actual.precision, actual.recall) == (0.6, 75, 75)
    assert for_precision(one, 75.1).threshold == 0.8
    assert for_precision(one, 0).threshold == 0.5


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (curve([], [], 3), "no detection"),
        (curve([0.9], [1], 3, ignored=[1]), "no detection"),
        (curve([0.9], [0], 0), "no ground truth"),
        (curve([0.9], [0], 3), "no detection matches an instance"),
    ],
)
def test_where_there_is_no_threshold_there_is_a_reason(one: PrecisionRecall, reason: str) -> None:
    for point in (best_f1(one), for_precision(one, 50)):
        assert (point.threshold, point.precision, point.recall, point.f1) == (None,) * 4
        assert point.reason == reason


def test_a_precision_out_of_reach_is_reported_with_the_highest() -> None:
    point = for_precision(curve([0.9, 0.8, 0.7], [0, 1, 1], 4), 90)
    assert point.threshold is None
    assert point.reason == "no threshold reaches a precision of 90; the highest is 66.7"


@pytest.mark.parametrize("seed", seeds(10))
def test_random_detections_give_what_counting_at_each_threshold_gives(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores, matched, ignored = draw.integers(1, 30, 60) / 30, draw.random(60) < 0.5, draw.random(60) < 0.1
    n_gt = int((matched & ~ignored).sum()) + 7
    actual = precision_recall(scores, matched, ignored, n_gt)
    rows = []
    for threshold in sorted(set(scores[~ignored].tolist()), reverse=True):
        shown = [bool(m) for s, m, i in zip(scores, matched, ignored, strict=True) if s >= threshold and not i]
        precision, recall = 100 * sum(shown) / len(shown), 100 * sum(shown) / n_gt
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        rows.append((threshold, precision, recall, f1))
    columns = np.array(rows).T
    for values, expected in zip((actual.thresholds, actual.precision, actual.recall, actual.f1), columns, strict=True):
        assert values == pytest.approx(expected)
    assert best_f1(actual).f1 == pytest.approx(columns[3].max())
    allowed = [row for row in rows if row[1] >= 52]
    if allowed:
        assert for_precision(actual, 52).recall == pytest.approx(max(row[2] for row in allowed))
    else:
        assert for_precision(actual, 52).threshold is None


def test_calibration_by_hand() -> None:
    scores = np.array([0.0, 0.1, 0.2, 0.5, 0.55, 0.9, 1.0, 0.95])
    matched = np.array([0, 0, 1, 1, 0, 1, 1, 0], bool)
    ignored = np.array([0, 0, 0, 0, 0, 0, 0, 1], bool)
    actual = calibration(scores, matched, ignored, bins=4)
    assert [(one.low, one.high, one.count) for one in actual.bins] == [
        (0, 0.25, 3),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1, 2),
    ]
    assert [one.score for one in actual.bins] == pytest.approx([0.1, 0.5, 0.55, 0.95])
    assert [one.precision for one in actual.bins] == pytest.approx([100 / 3, 100, 0, 100])
    expected = 100 * (3 * (1 / 3 - 0.1) + (1 - 0.5) + 0.55 + 2 * 0.05) / 7
    assert actual.expected_error.value == pytest.approx(expected)


def test_scores_that_are_probabilities_have_no_calibration_error_and_empty_bins_no_share() -> None:
    draw = np.random.default_rng(0)
    scores = draw.random(200_000) * 0.5
    actual = calibration(scores, draw.random(200_000) < scores, np.zeros(200_000, bool))
    assert actual.expected_error.value < 0.5
    assert [(one.count, one.score, one.precision) for one in actual.bins[5:]] == [(0, None, None)] * 5
    sure = calibration(np.ones(100), np.arange(100) < 40, np.zeros(100, bool))
    assert sure.expected_error.value == pytest.approx(60)


def test_without_detections_there_is_no_calibration_error_but_a_reason() -> None:
    actual = calibration(np.empty(0), np.empty(0, bool), np.empty(0, bool))
    assert (actual.expected_error.value, actual.expected_error.reason) == (None, "no detection")
    assert [one.count for one in actual.bins] == [0] * 10
