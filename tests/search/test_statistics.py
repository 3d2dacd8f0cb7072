"""The mean over folds with Student's interval."""

import pytest

from d2tune.search.statistics import fold_mean


def test_three_folds_by_hand() -> None:
    """s = 2, and t(0.975) with 2 degrees of freedom is 4.30265 in printed tables: 52 +- 4.30265 * 2 / sqrt(3)."""
    mean = fold_mean([50, 54, 52])
    assert (mean.mean, mean.deviation, mean.folds) == (52, 2, 3)
    assert (mean.low, mean.high) == (pytest.approx(47.0317, abs=1e-3), pytest.approx(56.9683, abs=1e-3))
    assert str(mean) == "52.0, 95 % interval 47.0 to 57.0"


def test_two_folds_by_hand() -> None:
    """t(0.975) with 1 degree of freedom is 12.7062; s of 40 and 44 is sqrt(8): 42 +- 12.7062 * 2."""
    mean = fold_mean([40, 44])
    assert (mean.low, mean.high) == (pytest.approx(16.5876, abs=1e-3), pytest.approx(67.4124, abs=1e-3))


def test_one_fold_has_no_interval() -> None:
    assert fold_mean([40.0]).low is None and str(fold_mean([40.0])) == "40.0"
