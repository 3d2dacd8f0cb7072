"""Shares of judged images and objects with their intervals, and the exact sign test.

- A share of images has Wilson's score interval (E. B. Wilson, Probable Inference, the Law of Succession, and
  Statistical Inference, JASA 22, 1927), which Brown, Cai and DasGupta (Interval Estimation for a Binomial Proportion,
  Statistical Science 16, 2001) recommend for any number of trials.
- Objects of one image are not independent: where a photo is dark, all of its objects are missed. A share of objects
  has Wilson's interval of the effective number of objects (E. L. Korn and B. I. Graubard, Confidence Intervals for
  Proportions with Small Expected Number of Positive Counts Estimated from Survey Data, Survey Methodology 24, 1998),
  with the variance between images by linearization of the ratio (W. G. Cochran, Sampling Techniques, 1977, chapter 6)
  and their factor for few images.
- Which of two models is better is asked for each image; images without a preference do not count, and under the null
  hypothesis each preference falls on either side with probability one half (W. J. Dixon and A. M. Mood, The Statistical
  Sign Test, JASA 41, 1946). The share that prefers the first has the exact interval of Clopper and Pearson (The Use of
  Confidence or Fiducial Limits, Biometrika 26, 1934).

All intervals are at 95 % and speak of further images of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its interval, all from 0 to 1.

    Attributes:
        count: How many are counted.
        total: Of how many.
        low: Lower end of the interval; None where there is nothing to count.
        high: Upper end.
    """

    count: int
    total: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        """The share; None where there is nothing to count."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class SignTest:
    """Which of two models is preferred.

    Attributes:
        first: Images on which the first is better.
        second: Images on which the second is better.
        ties: Images without a preference.
        p_value: Probability, without a difference, of a result at least as far from even; 1 without preferences.
        share: The share of preferences for the first, with Clopper and Pearson's interval.
    """

    first: int
    second: int
    ties: int
    p_value: float
    share: Share

    @property
    def is_real(self) -> bool:
        """Whether chance alone would give such a result in less than 5 % of comparisons."""
        return self.p_value < 1 - CONFIDENCE


def share_of_images(count: int, total: int) -> Share:
    """A share of independent trials with Wilson's score interval."""
    return Share(count, total, *(_wilson(count, float(total)) if total else (None, None)))


def share_of_objects(by_image: Sequence[tuple[int, int]]) -> Share:
    """A share of objects, which come in images, with Wilson's interval of their effective number.

    Args:
        by_image: For each image the number of objects that are counted and of all its objects.
    """
    clusters = [(count, total) for count, total in by_image if total]
    count, total = sum(count for count, _ in clusters), sum(total for _, total in clusters)
    if not total:
        return Share(0, 0, None, None)
    effective = _effective_number(clusters, count, total)
    share = count / total
    return Share(count, total, *_wilson(share * effective, effective))


def _effective_number(clusters: Sequence[tuple[int, int]], count: int, total: int) -> float:
    """As how many independent objects the objects of some images count, at most as many as there are."""
    images, share = len(clusters), count / total
    if images < 2:
        return 1.0
    if share in (0.0, 1.0):
        # no spread to estimate: as many as there are images, which holds for objects that are alike within each
        return float(images)
    spread = sum((counted - share * members) ** 2 for counted, members in clusters)
    variance = images / (images - 1) * spread / total**2
    if variance == 0:
        return float(total)
    effective = share * (1 - share) / variance
    # few images estimate the variance badly (Korn and Graubard 1998, equation 5)
    effective *= (_Z / _student(images - 1)) ** 2
    return max(1.0, min(effective, float(total)))


def _student(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _wilson(count: float, total: float) -> tuple[float, float]:
    share = count / total
    center = share + _Z**2 / (2 * total)
    half = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    scale = 1 + _Z**2 / total
    low = 0.0 if share == 0 else (center - half) / scale
    high = 1.0 if share == 1 else (center + half) / scale
    return low, high


def sign_test(first: int, second: int, ties: int) -> SignTest:
    """The exact two-sided sign test of two models.

    Args:
        first: Images on which the first is better.
        second: Images on which the second is better.
        ties: Images without a preference.
    """
    trials, fewer = first + second, min(first, second)
    below = sum(math.comb(trials, k) for k in range(fewer + 1))
    p_value = min(1.0, 2 * below / 2**trials) if trials else 1.0
    return SignTest(first, second, ties, p_value, _clopper_pearson(first, trials))


def _clopper_pearson(count: int, total: int) -> Share:
    from scipy.special import betaincinv

    if not total:
        return Share(0, 0, None, None)
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return Share(count, total, low, high)
