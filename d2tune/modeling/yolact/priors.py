"""The boxes that YOLACT's predictions start from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def priors(
    maps_hw: Sequence[tuple[int, int]],
    image_hw: tuple[int, int],
    *,
    sizes_px: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float],
    is_square: bool = False,
    device: torch.device | None = None,
) -> Tensor:
    """The priors of all levels: at each place of a map, one for each size and ratio.

    A prior of size s and ratio r is s sqrt(r) wide and s / sqrt(r) high (Liu et al., SSD, 2016). Its center is that of
    the cell of the map.

    Args:
        maps_hw: Height and width of the map of each level.
        image_hw: Height and width of the network's input in pixels.
        sizes_px: The sizes of each level.
        aspect_ratios: The ratios of width to height.
        is_square: Whether a prior is as high as it is wide, s sqrt(r).
        device: Device of the result.

    Returns:
        ``(P, 4)`` corners xyxy in pixels of the input; level by level, row by row, then by size and ratio.
    """
    levels = []
    for (rows, columns), sizes in zip(maps_hw, sizes_px, strict=True):
        y = (torch.arange(rows, device=device) + 0.5) * (image_hw[0] / rows)
        x = (torch.arange(columns, device=device) + 0.5) * (image_hw[1] / columns)
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
        sides = [
            (size * math.sqrt(ratio), size * math.sqrt(ratio) if is_square else size / math.sqrt(ratio))
            for size in sizes
            for ratio in aspect_ratios
        ]
        half = torch.tensor(sides, device=device) / 2
        levels.append(torch.cat([centers - half, centers + half], -1).reshape(-1, 4))
    return torch.cat(levels)
