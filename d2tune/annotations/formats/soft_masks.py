"""Masks whose values are not those of classes alone: fringes of resized masks, and transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask

_LEAST_MAXIMUM = 64
"""Masks of smaller values are of classes; a fringe needs room between 0 and the object's value."""

_LEAST_VALUES = 3
_MOST_BETWEEN = 0.5

_RIPPLE = 1 / 16
"""Values nearer than this share of the maximum to 0 or to the maximum can be ripples, which some filters leave."""

_FRINGE_PX = 2


def cut_at_half(pixels: NDArray[Any]) -> tuple[Mask, float] | None:
    """The object of a binary mask ``(H, W)`` that has other values at its edge, as resizing leaves them.

    Such a mask has three values or more between a quarter and three quarters of its maximum. They are gradients: none
    fills a block of 3 x 3 pixels, as the value of a class does somewhere. Most pixels are near 0 or the maximum.
    Straight edges may leave fewer such values: then all values between are in no such block, and those that are not
    ripples are two or more, all of them near both a pixel of 0 and one of the maximum.

    Returns:
        The pixels above half of the maximum, and the share of all pixels that are neither 0 nor the maximum; None where
        the mask is not of that kind.
    """
    if pixels.dtype.kind not in "biuf" or pixels.size == 0:
        return None
    maximum = float(pixels.max())
    if not np.isfinite(maximum) or maximum < (_LEAST_MAXIMUM if pixels.dtype.kind != "f" else 0.5) or pixels.min() < 0:
        return None
    values = pixels.astype(np.float64) if pixels.dtype.kind == "f" else pixels.astype(np.int64)
    is_middle = (values >= maximum / 4) & (values <= maximum * 3 / 4)
    is_between = (values > 0) & (values < maximum)
    between = int(is_between.sum())
    if not between or is_middle.sum() > _MOST_BETWEEN * values.size:
        return None
    is_gradient = len(np.unique(values[is_middle])) >= _LEAST_VALUES and not _fills_a_block(values, is_middle)
    if not is_gradient and not _is_narrow_fringe(values, is_between, maximum):
        return None
    return values * 2 > maximum, between / values.size


def _is_narrow_fringe(values: NDArray[Any], is_between: Mask, maximum: float) -> bool:
    """Whether the values between are a few pixels wide, where the object and what is around it meet."""
    ripple = maximum * _RIPPLE
    is_fringe = is_between & (values >= ripple) & (values <= maximum - ripple)
    if len(np.unique(values[is_fringe])) < 2 or _fills_a_block(values, is_between):
        return False
    return not (is_fringe & ~(_near(values <= ripple) & _near(values >= maximum - ripple))).any()


def _near(pixels: Mask) -> Mask:
    """The pixels that are `_FRINGE_PX` or less from one of those given, in both directions."""
    for axis in (0, 1):
        grown = pixels.copy()
        for step in range(1, _FRINGE_PX + 1):
            low, high = [slice(None)] * 2, [slice(None)] * 2
            low[axis], high[axis] = slice(None, -step), slice(step, None)
            grown[tuple(high)] |= pixels[tuple(low)]
            grown[tuple(low)] |= pixels[tuple(high)]
        pixels = grown
    return pixels


def _fills_a_block(values: NDArray[Any], among: Mask) -> bool:
    """Whether any of the pixels ``among`` is the center of a block of 3 x 3 equal pixels."""
    if min(values.shape) < 3:
        return False
    center = values[1:-1, 1:-1]
    same = among[1:-1, 1:-1].copy()
    height, width = center.shape
    for row in range(3):
        for column in range(3):
            same &= values[row : row + height, column : column + width] == center
    return bool(same.any())


def without_alpha(pixels: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A mask ``(H, W, C)`` with 2 or 4 channels without its transparency: what is less than half opaque is 0.

    Returns:
        The values ``(H, W)`` or colors ``(H, W, 3)``, and the share of pixels that are partly transparent. Where
        nothing but the transparency distinguishes pixels, it is the mask.
    """
    alpha, base = pixels[..., -1], pixels[..., :-1]
    base = base[..., 0] if base.shape[2] == 1 else base
    if (alpha == alpha.flat[0]).all():
        return base, 0.0
    visible = alpha.astype(np.int64) * 2 > np.iinfo(pixels.dtype).max
    share = float(((alpha > 0) & (alpha < np.iinfo(pixels.dtype).max)).mean())
    shown = np.where(visible if base.ndim == 2 else visible[..., None], base, 0)
    if not shown.any():
        return np.where(visible, np.iinfo(pixels.dtype).max, 0).astype(pixels.dtype), share
    return shown, share
