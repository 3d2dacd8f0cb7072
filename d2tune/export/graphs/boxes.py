"""The box head as a graph: the boxes, classes and scores of instances."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn

from d2tune.export.graphs.operations import clip_boxes, suppressed, top


class Pooler(nn.Module):
    """Detectron2's ``ROIPooler`` for an image; the features of its levels are put in order at once.

    Args:
        pooler: The pooler.
    """

    def __init__(self, pooler: ROIPooler) -> None:
        super().__init__()
        self.levels = pooler.level_poolers
        self._range = pooler.min_level, pooler.max_level
        self._canonical = pooler.canonical_box_size, pooler.canonical_level

    def forward(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        """``(R, C, side, side)`` from feature maps ``(1, C, h, w)`` and boxes ``(R, 4)``."""
        rows = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
        if len(self.levels) == 1:
            pooled: Tensor = self.levels[0](features[0], rows)
            return pooled
        assigned = assign_boxes_to_levels([Boxes(boxes)], *self._range, *self._canonical)
        places = [(assigned == level).nonzero()[:, 0] for level in range(len(self.levels))]
        pooled = torch.cat(
            [level(one, rows[place]) for level, one, place in zip(self.levels, features, places, strict=True)]
        )
        order = torch.cat(places)
        ranks = torch.zeros_like(order).scatter(0, order, torch.ones_like(order).cumsum(0) - 1)
        return pooled[ranks]


class BoxHead(nn.Module):
    """The instances that Detectron2's ``StandardROIHeads`` gives without masks.

    Args:
        heads: The heads.
        for_onnx: Whether the ONNX exporter traces this.
    """

    def __init__(self, heads: Any, *, for_onnx: bool) -> None:
        super().__init__()
        self.pooler = Pooler(heads.box_pooler)
        self.head, self.predictor = heads.box_head, heads.box_predictor
        self._in_features = list(heads.box_in_features)
        self._classes = int(heads.num_classes)
        self._for_onnx = for_onnx

    def forward(self, features: dict[str, Tensor], proposals: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``(N, 4)``, scores ``(N,)`` and classes ``(N,)`` int64, in descending order of the scores.

        Args:
            features: Feature maps ``(1, C, h, w)`` by name.
            proposals: ``(R, 4)`` in pixels of the input.
            size: Width and height of the image without padding.
        """
        predictor = self.predictor
        pooled = self.pooler([features[name] for name in self._in_features], proposals)
        logits, deltas = predictor(self.head(pooled))
        decoded = predictor.box2box_transform.apply_deltas(deltas, proposals)
        boxes = clip_boxes(decoded.unflatten(1, (-1, 4)), size).transpose(0, 1).expand(self._classes, -1, -1)
        scores = logits.softmax(-1)[:, :-1].transpose(0, 1)
        most = int(predictor.test_topk_per_image)
        classes, places = suppressed(
            boxes,
            scores,
            threshold=float(predictor.test_nms_thresh),
            least=float(predictor.test_score_thresh),
            most=most,
            for_onnx=self._for_onnx,
        )
        best, order = top(scores[classes, places], most)
        return boxes[classes, places][order], best, classes[order]
