"""PointRend's adaptive subdivision at inference, with the points in rows.

Detectron2 samples features with ``grid_sample``, keeps them as ``(R, C, P)``, predicts the logits of all classes at
each point and interpolates the maps of all classes. Here the features of points are rows of a matrix, read with
``embedding_bag`` in a fifteenth of the time, the layers of the head are matrix products, and only the map of the
predicted class is computed. The masks are the same up to rounding.

Method: Kirillov et al., PointRend: Image Segmentation as Rendering, CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_TOGETHER = 64
"""Instances whose points are computed together, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The feature vectors of maps of one size, ready to be sampled at points.

    Attributes:
        rows: ``(N * (h + 3) * (w + 3), C)``: the maps with a border of zeros, one before and two behind.
        height: Height ``h`` of a map.
        width: Width ``w`` of a map.
    """

    rows: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, maps: Tensor) -> _Rows:
        """The rows of maps ``(N, C, h, w)``."""
        height, width = maps.shape[-2:]
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2))
        return cls(padded.reshape(-1, maps.shape[1]), height, width)

    def sample(self, maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The features at points, bilinear with zeros outside, as those of ``grid_sample`` without aligned corners.

        Args:
            maps: ``(R,)`` int64, the map of each row of points.
            x: ``(R, P)``, positions in cells of the map, whose first one reaches from 0 to 1.
            y: ``(R, P)``.

        Returns:
            ``(R * P, C)``.
        """
        stride = self.width + 3
        # from the center of the border before the map, the -1st cell, to that of the first one behind it
        left, top = (x - 0.5).clamp_(-1, self.width), (y - 0.5).clamp_(-1, self.height)
        column, row = left.floor(), top.floor()
        right, below = left - column, top - row
        first = row.long().add_(1).mul_(stride).add_(column.long())
        first += maps[:, None] * (stride * (self.height + 3)) + 1
        corners = torch.tensor([0, 1, stride, stride + 1], device=x.device)
        above, before = 1 - below, 1 - right
        weights = torch.stack([above * before, above * right, below * before, below * right], dim=-1)
        indices = first.reshape(-1, 1) + corners
        return F.embedding_bag(indices, self.rows, mode="sum", per_sample_weights=weights.reshape(-1, 4))


@dataclass(frozen=True, slots=True)
class Regions:
    """The boxes of R instances with the feature maps of their images.

    Attributes:
        rows: The maps of the images.
        scales: Cells of each map for a pixel of the network's input.
        images: ``(R,)`` int64, the index of the image of each instance.
        boxes_xyxy: ``(R, 4)``, the boxes in pixels of the network's input.
    """

    rows: Sequence[_Rows]
    scales: Sequence[float]
    images: Tensor
    boxes_xyxy: Tensor

    @classmethod
    def of(cls, maps: Sequence[Tensor], scales: Sequence[float], boxes_xyxy: Sequence[Tensor]) -> Regions:
        """The regions of N images.

        Args:
            maps: The maps, each ``(N, C, h, w)``.
            scales: Cells of each map for a pixel of the network's input.
            boxes_xyxy: The boxes ``(r, 4)`` of each image, in pixels of the network's input.
        """
        together = torch.cat(list(boxes_xyxy))
        counts = torch.tensor([len(one) for one in boxes_xyxy], device=together.device)
        images = torch.arange(len(boxes_xyxy), device=together.device).repeat_interleave(counts)
        return cls([_Rows.of(one) for one in maps], scales, images, together)

    def some(self, instances: slice) -> Regions:
        """The regions of some instances."""
        return Regions(self.rows, self.scales, self.images[instances], self.boxes_xyxy[instances])

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """The features ``(R * P, C)`` at points ``(R, P)`` of the boxes, from 0 to 1."""
        x0, y0, x1, y1 = self.boxes_xyxy[:, :, None].unbind(1)
        x, y = u * (x1 - x0) + x0, v * (y1 - y0) + y0
        maps = zip(self.rows, self.scales, strict=True)
        sampled = [rows.sample(self.images, x * scale, y * scale) for rows, scale in maps]
        return sampled[0] if len(sampled) == 1 else torch.cat(sampled, dim=1)

    def sample_grid(self, side: int) -> Tensor:
        """The features ``(R, C, side, side)`` at the centers of a regular grid over each box."""
        sampled = self.sample(*_grid(self.images, side))
        return sampled.view(len(self.images), side, side, sampled.shape[1]).permute(0, 3, 1, 2)


def _grid(images: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The centers ``(R, side * side)`` of a regular grid over each box, from 0 to 1."""
    centers = (torch.arange(side, device=images.device) + 0.5) / side
    shape = len(images), side * side
    return centers.repeat(side).expand(shape), centers.repeat_interleave(side).expand(shape)


def point_masks(
    regions: Regions, coarse: Tensor, class_ids: Tensor, head: Any, *, side: int, steps: int, points: int
) -> Tensor:
    """The probabilities ``(R, 1, S, S)`` of the masks over the boxes.

    Args:
        regions: The boxes with the maps that the point head takes.
        coarse: The coarse masks ``(R, K, M, M)``.
        class_ids: ``(R,)`` int64.
        head: Detectron2's ``StandardPointHead``.
        side: Side of the first, regular grid.
        steps: How often the side is doubled, so that S is ``side * 2 ** steps``.
        points: Number of the most uncertain points that are computed in each step.
    """
    slices = [slice(start, start + _TOGETHER) for start in range(0, len(class_ids), _TOGETHER)]
    masks = [_subdivided(_Masks.of(regions, coarse, class_ids, head, one), side, steps, points) for one in slices]
    return torch.cat(masks) if masks else coarse.new_zeros(0, 1, side, side)


@dataclass(frozen=True, slots=True)
class _Masks:
    """What the logits of R masks are computed from.

    Attributes:
        regions: The boxes with the features of their images.
        coarse: The coarse masks, a map for each instance.
        class_ids: ``(R,)`` int64.
        head: Detectron2's ``StandardPointHead``.
    """

    regions: Regions
    coarse: _Rows
    class_ids: Tensor
    head: Any

    @classmethod
    def of(cls, regions: Regions, coarse: Tensor, class_ids: Tensor, head: Any, instances: slice) -> _Masks:
        """The masks of some instances; see `point_masks`."""
        return cls(regions.some(instances), _Rows.of(coarse[instances]), class_ids[instances], head)

    def logits(self, u: Tensor, v: Tensor) -> Tensor:
        """The logits ``(R, P)`` of the class of each instance at points ``(R, P)`` of its box, from 0 to 1."""
        instances = torch.arange(len(u), device=u.device)
        coarse = self.coarse.sample(instances, u * self.coarse.width, v * self.coarse.height)
        x = _with_coarse(self.head.fc_layers[0], self.regions.sample(u, v), coarse).relu_()
        for layer in self.head.fc_layers[1:]:
            x = self._product(layer, x, coarse).relu_()
        if self.head.predictor.out_channels == 1:
            return self._product(self.head.predictor, x, coarse).view(u.shape)
        return self._of_classes(x.view(*u.shape, -1), coarse.view(*u.shape, -1))

    def _product(self, layer: Any, x: Tensor, coarse: Tensor) -> Tensor:
        if self.head.coarse_pred_each_layer:
            return _with_coarse(layer, x, coarse)
        return torch.addmm(layer.bias, x, layer.weight[:, :, 0].t())

    def _of_classes(self, x: Tensor, coarse: Tensor) -> Tensor:
        """The logits ``(R, P)`` of the classes of the instances, from ``(R, P, C)`` and ``(R, P, K)``."""
        weight = self.head.predictor.weight[self.class_ids]
        logits = torch.baddbmm(self.head.predictor.bias[self.class_ids, None, None], x, weight[:, : x.shape[2]])
        if self.head.coarse_pred_each_layer:
            logits.baddbmm_(coarse, weight[:, x.shape[2] :])
        return logits[:, :, 0]


def _with_coarse(layer: Any, x: Tensor, coarse: Tensor) -> Tensor:
    """The output ``(N, D)`` of a layer for ``(N, C)`` with the coarse prediction ``(N, K)`` behind, without a copy."""
    weight = layer.weight[:, :, 0].t()
    return torch.addmm(layer.bias, coarse, weight[x.shape[1] :]).addmm_(x, weight[: x.shape[1]])


def _subdivided(masks: _Masks, side: int, steps: int, points: int) -> Tensor:
    """The probabilities ``(R, 1, S, S)`` of some instances."""
    count = len(masks.class_ids)
    logits = masks.logits(*_grid(masks.class_ids, side)).view(count, 1, side, side)
    for _ in range(steps):
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        side *= 2
        flat = logits.view(count, side * side)
        chosen = flat.abs().topk(min(points, side * side), dim=1, largest=False, sorted=False).indices
        rows = torch.div(chosen, side, rounding_mode="floor")
        flat.scatter_(1, chosen, masks.logits((chosen - rows * side + 0.5) / side, (rows + 0.5) / side))
    return logits.sigmoid_()
