"""Padding by mirroring, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor


def mirror_pad(x: Tensor, *, height_px: int, width_px: int, top_px: int = 0, left_px: int = 0) -> Tensor:
    """Continue an image beyond its edges by its mirror image, as often as it takes.

    The edge pixels are not repeated, as in ``numpy.pad(mode="reflect")``.

    Args:
        x: ``(..., h, w)``.
        height_px: Height of the result.
        width_px: Width of the result.
        top_px: Rows above the image; those below fill up the height.
        left_px: Columns left of the image.

    Returns:
        ``(..., height_px, width_px)``; ``x`` itself where nothing is to add.
    """
    if x.shape[-2:] == (height_px, width_px):
        return x
    rows = _mirrored_places(x.shape[-2], top_px, height_px, x.device)
    columns = _mirrored_places(x.shape[-1], left_px, width_px, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _mirrored_places(length: int, before: int, total: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (length - 1))
    places = (torch.arange(total, device=device) - before) % period
    return torch.where(places < length, places, period - places)
