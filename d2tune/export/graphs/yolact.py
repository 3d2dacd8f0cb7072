"""YOLACT as a graph: an image and the lowest scores in, instances with box-sized masks out."""

from __future__ import annotations

from torch import Tensor

from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.operations import is_nonempty, pad_to_multiple, size_wh
from d2tune.modeling.yolact.detection import box_masks, detections, whole_masks
from d2tune.modeling.yolact.meta_arch import Yolact


class YolactGraph(Graph):
    """A `Yolact` on an image; inputs and outputs are those of `RcnnGraph`.

    Args:
        model: The model in evaluation mode.
        is_fixed: Whether images are padded before, so that their size is an input.
    """

    output_names = ("boxes", "classes", "scores", "masks", "lower_scores")

    def __init__(self, model: Yolact, *, is_fixed: bool) -> None:
        super().__init__(model)
        self.model = model
        self.input_names = ("image", "min_scores", *(["size"] if is_fixed else []))

    def forward(self, image: Tensor, min_scores: Tensor, size: Tensor | None = None) -> tuple[Tensor, ...]:
        """The instances of an image; see `RcnnGraph.forward`."""
        model = self.model
        padded = pad_to_multiple(self.normalized(image), int(model.backbone.size_divisibility)).unsqueeze(0)
        levels, predicted, prototypes = model.heads(padded)
        of_image = (predicted.deltas[0], predicted.logits[0], predicted.coefficients[0])
        own_size = size_wh(image) if size is None else size
        detected = detections(*of_image, model.priors_of(padded, levels), own_size, model.limits)
        stride_px = model.strides_px(padded, prototypes)
        masks = whole_masks(prototypes[0], detected.coefficients)
        scores = model.rescored(detected, masks, stride_px=stride_px)
        is_kept, has_area = scores >= min_scores[detected.classes], is_nonempty(detected.boxes)
        kept, lower = (is_kept & has_area).nonzero()[:, 0], (~is_kept & has_area).nonzero()[:, 0]
        boxes = detected.boxes[kept]
        over_boxes = box_masks(masks[kept], boxes, side=model.mask_side, stride_px=stride_px)
        return boxes, detected.classes[kept], scores[kept], over_boxes, scores[lower]
