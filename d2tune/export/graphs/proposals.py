"""The region proposal network as a graph: only the boxes that can be kept are computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from d2tune.export.graphs.operations import clip_boxes, is_nonempty, suppressed, top, without


class Proposals(nn.Module):
    """The proposals of Detectron2's ``RPN`` on an image.

    Detectron2 decodes all anchors and sorts all of them; here those with the highest logits are chosen first, which
    gives the same boxes.

    Args:
        rpn: Detectron2's ``RPN`` with its ``DefaultAnchorGenerator``.
        for_onnx: Whether the ONNX exporter traces this.
    """

    def __init__(self, rpn: Any, *, for_onnx: bool) -> None:
        super().__init__()
        self.head = rpn.rpn_head
        self.anchors = rpn.anchor_generator.cell_anchors
        self.strides = list(rpn.anchor_generator.strides)
        self._offset = float(rpn.anchor_generator.offset)
        self._in_features = list(rpn.in_features)
        self._transform = rpn.box2box_transform
        self._candidates, self._most = int(rpn.pre_nms_topk[False]), int(rpn.post_nms_topk[False])
        self._threshold, self._least_px = float(rpn.nms_thresh), float(rpn.min_box_size)
        self._for_onnx = for_onnx

    def forward(self, features: dict[str, Tensor], size: Tensor) -> Tensor:
        """The proposals ``(R, 4)`` in pixels of the input, in descending order of their scores.

        Args:
            features: Feature maps ``(1, C, h, w)`` by name.
            size: Width and height of the image without padding.
        """
        logits, deltas = self.head([features[name] for name in self._in_features])
        levels = zip(logits, deltas, self.anchors, self.strides, strict=True)
        kept = [self._level(*level, size) for level in levels]
        boxes, scores = (torch.cat(column) for column in zip(*kept, strict=True))
        return boxes[top(scores, self._most)[1]]

    def _level(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, stride: int, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes and scores of a feature map after suppression, at most as many as there are proposals."""
        count = len(anchors)
        scores, chosen = top(logits[0].permute(1, 2, 0).flatten(), self._candidates)
        by_anchor = deltas[0].reshape(count, 4, *deltas.shape[2:]).permute(2, 3, 0, 1).reshape(-1, 4)
        cell, width = chosen // count, torch._shape_as_tensor(logits)[3]
        place = torch.stack([cell % width, cell // width], dim=1).to(anchors)
        shifts = (place * stride + self._offset * stride).repeat(1, 2)
        boxes = self._transform.apply_deltas(by_anchor[chosen], shifts + anchors[chosen % count])
        boxes = clip_boxes(boxes, size)
        scores = without(scores, is_nonempty(boxes, least_px=self._least_px))
        _, kept = suppressed(
            boxes[None], scores[None], threshold=self._threshold, least=None, most=self._most, for_onnx=self._for_onnx
        )
        return boxes[kept], scores[kept]
