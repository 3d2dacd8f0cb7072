"""White matter on an axial slice of a T1-weighted image of the head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.classical.thresholds import multi_otsu


def white_matter(slice_t1: NDArray[Any]) -> NDArray[np.bool_]:
    """The white matter of a slice without skull.

    Above the higher one of two thresholds by multi-Otsu: T1-weighted images show fluid dark, gray matter gray and white
    matter bright. With two classes the fluid pulls the threshold down into the gray matter.

    Args:
        slice_t1: ``(H, W)``, 0 outside of the brain.

    Returns:
        ``(H, W)``.

    Raises:
        DataError: The slice has fewer than three different values in the brain.
    """
    brain = slice_t1 > 0
    _, gray_and_white = multi_otsu(slice_t1[brain], 3)
    return np.asarray(brain & (slice_t1 > gray_and_white))


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """``2 |a and b| / (|a| + |b|)``, 1 where both are empty (Dice 1945)."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if not total else 2 * int((a & b).sum()) / total
