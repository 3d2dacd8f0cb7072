"""Thresholds of gray images. Pixels above a threshold are bright, pixels at or below it are dark."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.errors import DataError

Gray = NDArray[Any]
"""Gray values ``(H, W)`` or ``(N,)`` of any type of number."""

_MOST_STEPS = 1000


def otsu(gray: Gray) -> float:
    """The threshold between two classes with the largest variance between them (Otsu 1979).

    Args:
        gray: Gray values; those of other types than integers are counted in 256 bins.

    Returns:
        The threshold; the value of the pixels where all are the same.

    Raises:
        DataError: There are no pixels, or a value is not finite.
    """
    from skimage.filters import threshold_otsu

    values = _finite(gray)
    return float(values.flat[0]) if _is_constant(values) else float(threshold_otsu(values))


def multi_otsu(gray: Gray, classes: int = 3) -> NDArray[np.float64]:
    """The thresholds between several classes with the largest variance between them (Liao et al. 2001).

    Args:
        gray: Gray values.
        classes: Number of classes, from 2 to 5.

    Returns:
        ``(classes - 1,)`` in ascending order.

    Raises:
        DataError: There are fewer different values than classes, or as for `otsu`.
    """
    from skimage.filters import threshold_multiotsu

    if not 2 <= classes <= 5:
        raise DataError("the number of classes is out of range", found=str(classes), expected="2 to 5")
    values = _finite(gray)
    different = len(np.unique(values))
    if different < classes:
        raise DataError(
            "the image has fewer gray values than there are classes",
            found=str(different),
            expected=f"{classes} or more",
        )
    thresholds: NDArray[np.float64] = np.asarray(threshold_multiotsu(values, classes), dtype=np.float64)
    return thresholds


def riddler_calvard(gray: Gray, *, tolerance: float = 1e-6) -> float:
    """The threshold halfway between the means of the two classes, iterated from the mean (Ridler & Calvard 1978).

    Args:
        gray: Gray values.
        tolerance: The iteration ends where the threshold moves by less.

    Returns:
        ``t = (mean(<= t) + mean(> t)) / 2``; the value of the pixels where all are the same.

    Raises:
        DataError: As for `otsu`.
    """
    values = _finite(gray).astype(np.float64)
    threshold = float(values.mean())
    for _ in range(_MOST_STEPS):
        is_dark = values <= threshold
        if is_dark.all():
            return float(values.max())
        moved = float(values[is_dark].mean() + values[~is_dark].mean()) / 2
        if abs(moved - threshold) < tolerance:
            return moved
        threshold = moved
    return threshold


def li(gray: Gray) -> float:
    """The threshold with the least cross entropy between the image and its two class means (Li & Tam 1998).

    Raises:
        DataError: As for `otsu`.
    """
    from skimage.filters import threshold_li

    values = _finite(gray)
    return float(values.flat[0]) if _is_constant(values) else float(threshold_li(values))


def sauvola(gray: Gray, *, window_px: int = 51, k: float = 0.1) -> NDArray[np.float64]:
    """The local threshold ``m (1 + k (s / R - 1))`` of each pixel (Sauvola & Pietikainen 2000).

    Args:
        gray: Gray values ``(H, W)``.
        window_px: Odd side of the window of which mean ``m`` and standard deviation ``s`` are taken.
        k: Weight of the standard deviation.

    Returns:
        Thresholds ``(H, W)``; ``R`` is half of the range of the image's type.

    Raises:
        DataError: The side is even or below 3, or as for `otsu`.
    """
    from skimage.filters import threshold_sauvola

    if window_px < 3 or window_px % 2 == 0:
        raise DataError("the window is invalid", found=f"{window_px} px", expected="an odd number of 3 or more")
    thresholds: NDArray[np.float64] = threshold_sauvola(_finite(gray), window_size=window_px, k=k)
    return thresholds


def _finite(gray: Gray) -> NDArray[Any]:
    values = np.asarray(gray)
    if not values.size:
        raise DataError("the image has no pixels", expected="gray values")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("the image has values that are not finite", hint="Exclude pixels without data.")
    return values


def _is_constant(values: NDArray[Any]) -> bool:
    return bool(values.min() == values.max())
