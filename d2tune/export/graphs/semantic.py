"""Semantic models as graphs: an image in, the logits of its pixels out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend import PointRendSemSegHead
from torch import Tensor, nn

from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.operations import pad_to_multiple
from d2tune.modeling.bridge.padding import mirror_pad


class PointRendLogits(nn.Module):
    """Detectron2's ``PointRendSemSegHead``, whose points depend on the size of the image only while it runs.

    Args:
        head: The head.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.coarse, self.point_head = head.coarse_sem_seg_head, head.point_head
        self._in_features = list(head.in_features)
        self._steps, self._points = int(head.subdivision_steps), int(head.subdivision_num_points)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits ``(1, K, h, w)`` at the size of the input."""
        coarse: Tensor = self.coarse.layers(features)
        logits = coarse
        for _ in range(self._steps):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            size = torch._shape_as_tensor(logits)[2:]
            best = logits.topk(2, dim=1)[0]
            uncertainty = (best[:, 1] - best[:, 0]).flatten(1)
            count = size.prod().clamp(max=self._points)
            indices = uncertainty.topk(count, dim=1)[1]  # type: ignore[arg-type]
            height, width = size[0], size[1]
            steps = (1.0 / torch.stack([width, height]).to(logits)).reshape(1, 1, 2)
            places = torch.stack([indices % width, indices // width], dim=2).to(logits)
            points = steps / 2.0 + places * steps
            fine = torch.cat([_sampled(features[name], points) for name in self._in_features], dim=1)
            predicted = self.point_head(fine, _sampled(coarse, points))
            flat = logits.flatten(2)
            index = indices.unsqueeze(1).expand(-1, flat.shape[1], -1)
            logits = flat.scatter(2, index, predicted).reshape(logits.shape)
        return logits


def _sampled(maps: Tensor, points: Tensor) -> Tensor:
    """``(1, C, P)``: a map at points ``(1, P, 2)`` from 0 to 1."""
    return F.grid_sample(maps, (2.0 * points - 1.0).unsqueeze(2), align_corners=False).squeeze(3)


class SegmentorGraph(Graph):
    """Detectron2's ``SemanticSegmentor`` on an image.

    Args:
        model: The model in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.backbone, head = model.backbone, model.sem_seg_head
        is_refined = isinstance(head, PointRendSemSegHead) and head.coarse_sem_seg_head.predictor.out_channels > 1
        self.head, self.refined = head, PointRendLogits(head) if is_refined else None

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(K, h, w)`` of an image ``(C, h, w)`` float32, NaN where it has no data."""
        filled = torch.where(image.isnan(), self.mean.expand_as(image), image)
        padded = pad_to_multiple(self.normalized(filled), int(self.backbone.size_divisibility))
        features = self.backbone(padded.unsqueeze(0))
        logits: Tensor = self.head(features, None)[0] if self.refined is None else self.refined(features)
        return logits[0, :, : image.shape[1], : image.shape[2]]


class BridgeGraph(Graph):
    """d2tune's ``SemanticBridge`` on an image.

    Args:
        model: The model in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.network = model.network
        self._divisor = int(model.size_divisibility)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(K, h, w)`` of an image ``(C, h, w)`` float32, NaN where it has no data."""
        scaled = self.normalized(image)
        # comparisons with NaN are false; torch's nan_to_num has no value for infinity in ONNX
        known = torch.where(scaled.abs() < torch.inf, scaled, torch.zeros_like(scaled))
        height_px, width_px = (self._padded_px(side_px) for side_px in image.shape[1:])
        padded = mirror_pad(known, height_px=height_px, width_px=width_px)
        logits: Tensor = self.network(padded.unsqueeze(0))
        return logits[0, :, : image.shape[1], : image.shape[2]].float()

    def _padded_px(self, side_px: int) -> int:
        padded_px = side_px + -side_px % self._divisor
        return padded_px + (padded_px < 2 * self._divisor) * (2 * self._divisor - padded_px)
