"""Padding by mirroring, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor


def mirror_pad(x: Tensor, *, height_px: int, width_px: int, top_px: int = 0, left_px: int = 0) -> Tensor:
    """Pad an image by mirroring it at its edges, repeatedly if the padding is larger than the image.

    The edge pixels are not repeated, as in ``numpy.pad(mode="reflect")``.

    Args:
        x: ``(..., h, w)``.
        height_px: Height of the result.
        width_px: Width of the result.
        top_px: Rows of padding above the image; the rest is below.
        left_px: Columns of padding left of the image; the rest is right.

    Returns:
        ``(..., height_px, width_px)``; ``x`` itself if it has this size.
    """
    if not torch._C._is_tracing() and x.shape[-2:] == (height_px, width_px):
        return x
    rows = _mirrored_indices(x.shape[-2], top_px, height_px, x.device)
    columns = _mirrored_indices(x.shape[-1], left_px, width_px, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _mirrored_indices(length: int, before: int, total: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (length - 1))
    indices = (torch.arange(total, device=device) - before) % period
    return torch.where(indices < length, indices, period - indices)
