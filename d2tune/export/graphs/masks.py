"""The mask heads as graphs: box-sized masks of the predicted classes only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend.point_features import generate_regular_grid_point_coords
from torch import Tensor, nn

from d2tune.export.graphs.boxes import Pooler


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """``(N, 1, ...)``: of logits ``(N, K, ...)`` those of the class of each row; of a single channel, this one."""
    if logits.shape[1] == 1:
        return logits
    index = classes.reshape(-1, *[1] * (logits.dim() - 1)).expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)


class PooledMasks(nn.Module):
    """The masks of Detectron2's ``BaseMaskRCNNHead``.

    Args:
        heads: Detectron2's ``StandardROIHeads`` with this head.
    """

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.pooler, self.head = Pooler(heads.mask_pooler), heads.mask_head
        self._in_features = list(heads.mask_in_features)

    def forward(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Probabilities ``(N, M, M)`` over boxes ``(N, 4)`` in pixels of the input."""
        logits = self.head.layers(self.pooler([features[name] for name in self._in_features], boxes))
        return of_class(logits, classes)[:, 0].sigmoid()


class PointRendMasks(nn.Module):
    """The masks of PointRend: a coarse mask, whose uncertain points are predicted again at twice the resolution.

    As Detectron2's ``PointRendMaskHead``, but the masks of other classes are not upsampled, and the order of the points
    is open where the ONNX exporter traces this.

    Args:
        heads: Detectron2's ``StandardROIHeads`` with a ``PointRendMaskHead`` that has a point head.
        for_onnx: Whether the ONNX exporter traces this.
    """

    def __init__(self, heads: Any, *, for_onnx: bool) -> None:
        super().__init__()
        head = heads.mask_head
        self.coarse_head, self.point_head = head.coarse_head, head.point_head
        self._coarse_features, self._point_features = (
            list(head.roi_pooler_in_features),
            list(head.mask_point_in_features),
        )
        self._scales = dict(head._feature_scales)
        self._side = int(head.roi_pooler_size)
        self._first_side, self._steps = (
            int(head.mask_point_subdivision_init_resolution),
            int(head.mask_point_subdivision_steps),
        )
        self._points = int(head.mask_point_subdivision_num_points)
        self._is_sorted = not for_onnx
        self.register_buffer("pool_points", _grid(self._side), persistent=False)
        self.register_buffer("first_points", _grid(self._first_side), persistent=False)
        self.pool_points: Tensor
        self.first_points: Tensor

    def forward(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Probabilities ``(N, M, M)`` over boxes ``(N, 4)`` in pixels of the input."""
        pooled = self._sampled(features, self._coarse_features, boxes, self.pool_points)
        count, side = boxes.shape[0], self._first_side
        coarse = self.coarse_head(pooled.reshape(count, pooled.shape[1], self._side, self._side))
        logits = self._predicted(features, boxes, coarse, self.first_points, classes)
        mask = logits.reshape(count, 1, side, side)
        for _ in range(self._steps):
            side *= 2
            mask = F.interpolate(mask, scale_factor=2.0, mode="bilinear", align_corners=False)
            flat = mask.reshape(count, 1, side * side)
            most = min(side * side, self._points)
            indices = (-flat.abs()).topk(most, dim=2, sorted=self._is_sorted)[1]
            step = 1.0 / side
            places = torch.stack([indices[:, 0] % side, indices[:, 0] // side], dim=2)
            points = step / 2.0 + places.to(boxes) * step
            logits = self._predicted(features, boxes, coarse, points, classes)
            mask = flat.scatter(2, indices, logits).reshape(count, 1, side, side)
        return mask[:, 0].sigmoid()

    def _predicted(
        self, features: dict[str, Tensor], boxes: Tensor, coarse: Tensor, points: Tensor, classes: Tensor
    ) -> Tensor:
        """Logits ``(N, 1, P)`` of the class of each box at points ``(N or 1, P, 2)`` from 0 to 1 over the box."""
        fine = self._sampled(features, self._point_features, boxes, points)
        grid = (2.0 * points - 1.0).expand(boxes.shape[0], -1, -1).unsqueeze(2)
        at_points = F.grid_sample(coarse, grid, align_corners=False).squeeze(3)
        return of_class(self.point_head(fine, at_points), classes)

    def _sampled(self, features: dict[str, Tensor], names: list[str], boxes: Tensor, points: Tensor) -> Tensor:
        """``(N, C, P)``: features at points from 0 to 1 over each box."""
        on_image = points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]
        sampled = []
        for name in names:
            size = torch._shape_as_tensor(features[name])[2:].flip(0)
            grid = 2.0 * (on_image / (size / self._scales[name]).to(boxes)) - 1.0
            rows = F.grid_sample(features[name], grid.unsqueeze(0), align_corners=False)
            sampled.append(rows.squeeze(0).transpose(0, 1))
        return torch.cat(sampled, dim=1) if len(sampled) > 1 else sampled[0]


def _grid(side: int) -> Tensor:
    """The centers ``(1, side * side, 2)`` of a grid of cells, from 0 to 1."""
    grid: Tensor = generate_regular_grid_point_coords(1, side, "cpu").contiguous()
    return grid
