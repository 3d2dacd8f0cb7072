"""Gaussian mixtures of each class, fitted by expectation maximization (Dempster et al. 1977)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.errors import DataError

_AT_ONCE = 262_144
_REGULARIZED = 1e-3
"""Added to variances, in squared units of the data."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassMixtures:
    """A mixture of Gaussians for each class, and how often each class occurs.

    Attributes:
        classes: The ids of the classes, ascending.
        mixtures: A fitted ``sklearn.mixture.GaussianMixture`` for each.
        log_priors: The logarithm of the share of each class.
    """

    classes: tuple[int, ...]
    mixtures: tuple[Any, ...]
    log_priors: NDArray[np.float64]

    def scores(self, data: NDArray[Any]) -> NDArray[np.float64]:
        """Log-likelihood plus log prior of each class ``(N, K)`` for rows ``(N, D)``."""
        scores = np.empty((len(data), len(self.classes)))
        for start in range(0, len(data), _AT_ONCE):
            block = np.asarray(data[start : start + _AT_ONCE], dtype=np.float64)
            for at, mixture in enumerate(self.mixtures):
                scores[start : start + _AT_ONCE, at] = mixture.score_samples(block)
        return np.asarray(scores + self.log_priors)

    def predict(self, data: NDArray[Any]) -> NDArray[np.int64]:
        """The class with the highest score for each row ``(N, D)``."""
        return np.asarray(np.array(self.classes, dtype=np.int64)[self.scores(data).argmax(axis=1)])


def fit_mixtures(
    data: NDArray[Any],
    labels: NDArray[Any],
    *,
    components: int = 4,
    priors: Mapping[int, float] | None = None,
    seed: int = 0,
) -> ClassMixtures:
    """Fit a mixture to the rows of each class.

    Args:
        data: ``(N, D)``.
        labels: The class of each row ``(N,)``.
        components: Gaussians of a class; fewer where a class has fewer different rows.
        priors: The share of each class; None takes the shares in ``labels``.
        seed: Of the starts of expectation maximization.

    Raises:
        DataError: There are fewer than two classes, or a value is not finite.
    """
    from sklearn.mixture import GaussianMixture

    rows, ids = np.asarray(data, dtype=np.float64), np.asarray(labels)
    if rows.ndim != 2 or len(rows) != len(ids) or not np.isfinite(rows).all():
        raise DataError(
            "the data of the mixtures are invalid", found=f"shape {rows.shape}", expected="finite rows (N, D)"
        )
    classes = np.unique(ids)
    if len(classes) < 2:
        raise DataError(
            "mixtures of one class alone distinguish nothing", found=f"{len(classes)} class", expected="2 or more"
        )
    fitted = []
    for one in classes:
        own = rows[ids == one]
        count = min(components, len(np.unique(own[:10_000], axis=0)))
        # a Gaussian of a single row has no variance of its own; it gets the least one
        own = np.repeat(own, 2, axis=0) if len(own) < 2 else own
        fitted.append(GaussianMixture(count, random_state=seed, reg_covar=_REGULARIZED, max_iter=200).fit(own))
    shares = [float((ids == one).mean()) if priors is None else priors[int(one)] for one in classes]
    return ClassMixtures(tuple(map(int, classes)), tuple(fitted), np.log(shares))
