"""The mean over folds and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class FoldMean:
    """The mean of a metric over folds.

    Attributes:
        mean: Of the folds.
        low: Lower end of the 95 % interval; None with one fold.
        high: Upper end.
        deviation: Standard deviation between folds, with the number of folds minus 1; None with one fold.
        folds: How many folds there are.
    """

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    folds: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f}, 95 % interval {self.low:.1f} to {self.high:.1f}"


def fold_mean(values: Sequence[float]) -> FoldMean:
    """The mean over folds with Student's interval, ``mean +- t(0.975, K - 1) s / sqrt(K)``.

    Folds share most of their training images, so that their values are not independent and the interval tends to be too
    narrow; no unbiased estimate of the variance exists (Bengio and Grandvalet, "No Unbiased Estimator of the Variance
    of K-Fold Cross-Validation", JMLR 2004). It is not cut at 0 and 100.

    Args:
        values: The metric of each of K folds, at least one.
    """
    mean = fmean(values)
    if len(values) < 2:
        return FoldMean(mean, None, None, None, len(values))
    from scipy.stats import t

    deviation = stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return FoldMean(mean, mean - half, mean + half, deviation, len(values))
