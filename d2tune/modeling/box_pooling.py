"""RoIAlign with a sample for each cell, from feature maps in ``channels_last``, for inference on the CPU.

torchvision's operator takes maps in the other memory layout, so that all of them are copied, and reads each value of a
channel from another place. Here the vectors of all channels are read at once.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor
from torch.nn import functional as F


def has_a_sample_for_each_cell(pooler: Any) -> bool:
    """Whether a module is Detectron2's pooler of aligned boxes from several maps, with a sampling ratio of 1."""
    return type(pooler) is ROIPooler and all(
        type(one) is ROIAlign and one.aligned and one.sampling_ratio == 1 for one in pooler.level_poolers
    )


def pool_boxes(pooler: Any, maps: list[Tensor], boxes: list[Boxes]) -> Tensor:
    """The features ``(R, C, S, S)`` of all boxes, as those of ``pooler`` up to rounding.

    Args:
        pooler: A pooler with `has_a_sample_for_each_cell`.
        maps: The feature maps ``(N, C, h, w)`` from fine to coarse.
        boxes: The boxes of each of the N images, in pixels of the network's input.
    """
    if len(maps) == 1:
        levels = torch.zeros(sum(map(len, boxes)), dtype=torch.int64)
    else:
        limits = pooler.min_level, pooler.max_level
        levels = assign_boxes_to_levels(boxes, *limits, pooler.canonical_box_size, pooler.canonical_level)
    counts = torch.tensor([len(one) for one in boxes])
    images = torch.arange(len(boxes)).repeat_interleave(counts)
    sizes = torch.tensor([one.shape[-2:] for one in maps])
    # the vectors of one map after those of another
    pixels = sizes.prod(dim=1)
    starts = (pixels * len(boxes)).cumsum(0) - pixels * len(boxes)
    rows = torch.cat([one.permute(0, 2, 3, 1).reshape(-1, one.shape[1]) for one in maps])
    scales = torch.tensor([one.spatial_scale for one in pooler.level_poolers])[levels, None]
    x0, y0, x1, y1 = (Boxes.cat(boxes).tensor * scales - 0.5).unbind(1)
    across, down = pooler.output_size[::-1]
    left, right, x = _cells(x0, x1, across, sizes[levels, 1])
    top, bottom, y = _cells(y0, y1, down, sizes[levels, 0])
    widths = sizes[levels, 1, None]
    first = (starts[levels] + images * pixels[levels])[:, None]
    above, below = first + top * widths, first + bottom * widths
    corners = [row[:, :, None] + column[:, None, :] for row in (above, below) for column in (left, right)]
    shares = [row[:, :, None] * column[:, None, :] for row in (1 - y, y) for column in (1 - x, x)]
    indices, weights = torch.stack(corners, dim=-1), torch.stack(shares, dim=-1)
    pooled = F.embedding_bag(indices.view(-1, 4), rows, mode="sum", per_sample_weights=weights.view(-1, 4))
    return pooled.view(len(levels), down, across, rows.shape[1]).permute(0, 3, 1, 2)


def _cells(low: Tensor, high: Tensor, count: int, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of a map before and behind the centers of cells, and the share of the latter.

    Args:
        low: ``(R,)``, lower ends of the boxes in pixels of their map.
        high: ``(R,)``, upper ends.
        count: Number of cells.
        sizes: ``(R,)``, sizes of the maps.

    Returns:
        Three tensors ``(R, count)``.
    """
    step = (high - low) / count
    centers = low[:, None] + (torch.arange(count) + 0.5) * step[:, None]
    last = sizes[:, None] - 1
    centers = torch.minimum(centers.clamp_(min=0), last)
    before = centers.floor()
    share = centers - before
    before = before.long()
    return before, torch.minimum(before + 1, last), share
