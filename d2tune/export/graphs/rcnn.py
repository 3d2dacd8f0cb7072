"""R-CNN as a graph: an image and the lowest scores in, instances with box-sized masks out."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.projects.point_rend import PointRendMaskHead
from torch import Tensor, nn

from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.boxes import BoxHead
from d2tune.export.graphs.masks import PointRendMasks, PooledMasks
from d2tune.export.graphs.operations import is_nonempty, pad_to_multiple, size_wh
from d2tune.export.graphs.proposals import Proposals


class RcnnGraph(Graph):
    """Detectron2's ``GeneralizedRCNN`` on an image, with masks only for instances that are wanted.

    Args:
        model: The model in evaluation mode.
        for_onnx: Whether the ONNX exporter traces this.
        is_fixed: Whether images are padded before, so that their size is an input.
        with_semantic: Whether the logits of a semantic head are an output too, as a panoptic model needs them.
    """

    def __init__(self, model: Any, *, for_onnx: bool, is_fixed: bool, with_semantic: bool = False) -> None:
        super().__init__(model)
        heads = model.roi_heads
        self.backbone = model.backbone
        self.proposals = Proposals(model.proposal_generator, for_onnx=for_onnx)
        self.boxes = BoxHead(heads, for_onnx=for_onnx)
        self.masks = mask_graph(heads, for_onnx=for_onnx)
        self.semantic = model.sem_seg_head if with_semantic else None
        self.input_names = ("image", "min_scores", *(["size"] if is_fixed else []))
        self.output_names = (
            "boxes",
            "classes",
            "scores",
            "masks",
            "lower_scores",
            *(["sem_seg"] if with_semantic else []),
        )

    def forward(self, image: Tensor, min_scores: Tensor, size: Tensor | None = None) -> tuple[Tensor, ...]:
        """The instances of an image.

        Args:
            image: ``(C, h, w)`` float32, resized and not normalized.
            min_scores: ``(K,)`` float32, the lowest score of each class.
            size: int64 ``(2,)``, width and height of the image without the padding that it has; None without padding.

        Returns:
            Boxes ``(N, 4)`` in pixels of the input, classes ``(N,)``, scores ``(N,)`` and masks ``(N, M, M)`` over the
            boxes, the scores of instances below the lowest score of their class, and semantic logits ``(K, h, w)``
            where they are wanted.
        """
        padded = pad_to_multiple(self.normalized(image), int(self.backbone.size_divisibility))
        features = self.backbone(padded.unsqueeze(0))
        own_size = size_wh(image) if size is None else size
        proposals = self.proposals(features, own_size)
        boxes, scores, classes = self.boxes(features, proposals, own_size)
        is_kept, has_area = scores >= min_scores[classes], is_nonempty(boxes)
        kept, lower = (is_kept & has_area).nonzero()[:, 0], (~is_kept & has_area).nonzero()[:, 0]
        boxes, classes = boxes[kept], classes[kept]
        outputs = boxes, classes, scores[kept], self.masks(features, boxes, classes), scores[lower]
        if self.semantic is None:
            return outputs
        logits, _ = self.semantic(features, None)
        return *outputs, logits[0, :, : image.shape[1], : image.shape[2]]


def mask_graph(heads: Any, *, for_onnx: bool) -> nn.Module:
    """The graph of a mask head that `supports_heads`."""
    if isinstance(heads.mask_head, PointRendMaskHead):
        return PointRendMasks(heads, for_onnx=for_onnx)
    return PooledMasks(heads)


def supports_heads(heads: Any) -> bool:
    """Whether heads compute what the graphs do: Detectron2's standard heads, with masks, without key points."""
    if type(heads) is not StandardROIHeads or not heads.mask_on or heads.keypoint_on:
        return False
    head = heads.mask_head
    if isinstance(head, PointRendMaskHead):
        is_plain = type(head)._subdivision_inference is PointRendMaskHead._subdivision_inference
        return is_plain and head.mask_point_on and hasattr(head, "coarse_head")
    return isinstance(head, BaseMaskRCNNHead) and hasattr(head, "layers")
