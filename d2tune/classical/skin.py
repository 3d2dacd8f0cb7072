"""Skin by its color: two Gaussian mixtures on the chroma of pixels (Jones & Rehg 2002, Phung et al. 2005).

Such a model knows colors, not people: it fails on other skin tones and in other light than it was fitted to, takes wood
and sand for skin, and detects no faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.classical.mixtures import ClassMixtures, fit_mixtures

_CB = np.array([-0.168736, -0.331264, 0.5])
_CR = np.array([0.5, -0.418688, -0.081312])
"""Weights of R, G and B (ITU-R BT.601, full range)."""


@dataclass(frozen=True, slots=True, eq=False)
class SkinModel:
    """Distinguishes the colors of skin from others.

    Attributes:
        mixtures: Of class 0, other colors, and class 1, skin.
    """

    mixtures: ClassMixtures

    def predict(self, rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether each color ``(..., 3)`` in RGB is one of skin, ``(...)``."""
        flat = self.mixtures.predict(chroma(rgb).reshape(-1, 2))
        return np.asarray(flat == 1).reshape(rgb.shape[:-1])


def fit_skin(rgb: NDArray[np.uint8], is_skin: NDArray[np.bool_], *, components: int = 4, seed: int = 0) -> SkinModel:
    """Fit a model to colors.

    Args:
        rgb: ``(N, 3)`` in RGB.
        is_skin: ``(N,)``.
        components: Gaussians of each class.
        seed: Of the starts of expectation maximization.

    Raises:
        DataError: One of the classes is missing.
    """
    labels = np.asarray(is_skin).astype(np.int64)
    return SkinModel(fit_mixtures(chroma(rgb), labels, components=components, seed=seed))


def chroma(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Cb and Cr ``(..., 2)`` of colors ``(..., 3)`` in RGB, around 0."""
    values = np.asarray(rgb, dtype=np.float64)
    return np.stack([values @ _CB, values @ _CR], axis=-1)


def unique_rows(rgb: NDArray[np.uint8], is_skin: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The different rows of a table, so that no color is in training and test.

    A row is a color with its label: a color with both labels stays twice.
    """
    rows = np.unique(np.column_stack([rgb, np.asarray(is_skin, dtype=np.uint8)]), axis=0)
    return rows[:, :3], rows[:, 3].astype(bool)
