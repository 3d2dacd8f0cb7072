"""Shares, intervals and the sign test against values that were computed by hand or printed in the literature."""

import math

import numpy as np
import pytest

from d2tune.acceptance.statistics import Share, share_of_images, share_of_objects, sign_test


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2) with z = 1.959964
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_share_of_images(count: int, total: int, low: float, high: float) -> None:
    share = share_of_images(count, total)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)
    assert share.value == count / total


def test_share_of_nothing() -> None:
    for share in (share_of_images(0, 0), share_of_objects([]), share_of_objects([(0, 0)])):
        assert (share.value, share.low, share.high) == (None, None, None)


def test_objects_that_agree_within_each_image_count_as_images() -> None:
    # 20 images of 3 objects, in 10 of which all are right: the effective number is that of the images, times
    # n / (n - 1)'s inverse 19/20 and (1.959964 / 2.093024)^2 for Student's t at 19 degrees
    share = share_of_objects([(3, 3)] * 10 + [(0, 3)] * 10)
    effective = 19 * (1.959964 / 2.093024) ** 2
    z2 = 1.959964**2
    half = math.sqrt(z2) * math.sqrt(0.25 / effective + z2 / (4 * effective**2)) / (1 + z2 / effective)
    assert (share.low, share.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    assert share.count == 30 and share.total == 60


def test_objects_spread_evenly_are_at_most_independent() -> None:
    even = share_of_objects([(1, 2)] * 30)
    alone = share_of_images(30, 60)
    assert (even.low, even.high) == pytest.approx((alone.low, alone.high))


def test_all_right_counts_images_and_not_objects() -> None:
    assert share_of_objects([(10, 10)] * 8).low == pytest.approx(share_of_images(8, 8).low)


def test_one_image_says_little() -> None:
    share = share_of_objects([(9, 10)])
    assert share.low is not None and share.high is not None and share.high - share.low > 0.7


def test_coverage_of_the_interval_of_objects() -> None:
    """Of 600 drawn worlds in which objects of an image are alike, about 95 % of the intervals hold the true share."""
    random = np.random.default_rng(5)
    covered = plain = 0
    for _ in range(600):
        shares = random.beta(4, 1, size=25)  # of right objects in each image; their mean is 0.8
        totals = random.integers(2, 14, size=25)
        right = random.binomial(totals, shares)
        share = share_of_objects(list(zip(right.tolist(), totals.tolist(), strict=True)))
        naive = share_of_images(int(right.sum()), int(totals.sum()))
        covered += holds(share, 0.8)
        plain += holds(naive, 0.8)
    assert 0.92 <= covered / 600 <= 0.985
    assert plain / 600 < 0.9, "objects that are taken as independent give an interval that is too narrow"


def holds(share: Share, value: float) -> bool:
    assert share.low is not None and share.high is not None
    return share.low <= value <= share.high


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (9, 1, 2 * (1 + 10) / 1024),
        (1, 9, 2 * (1 + 10) / 1024),
        (5, 5, 1.0),
        (6, 0, 2 / 64),
        (5, 0, 2 / 32),
        (0, 0, 1.0),
        # 2 * sum of C(20, k) for k up to 5
        (15, 5, 2 * 21700 / 1048576),
    ],
)
def test_sign_test(first: int, second: int, p_value: float) -> None:
    result = sign_test(first, second, 7)
    assert result.p_value == pytest.approx(p_value)
    assert result.is_real == (p_value < 0.05)
    assert result.ties == 7


def test_interval_of_preferences() -> None:
    # Clopper and Pearson: 1 - (alpha / 2) ** (1 / n) and its mirror for none and all; the table's 9 of 10
    assert sign_test(0, 10, 0).share.high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert sign_test(10, 0, 0).share.low == pytest.approx(0.025 ** (1 / 10))
    share = sign_test(9, 1, 0).share
    assert (share.low, share.high) == pytest.approx((0.5550, 0.9975), abs=5e-5)
