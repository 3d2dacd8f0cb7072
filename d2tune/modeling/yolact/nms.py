"""Fast NMS: boxes are suppressed in one step, by boxes that may be suppressed themselves."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import box_iou


def fast_nms(
    boxes: Tensor, scores: Tensor, *, lowest_score: float, iou_threshold: float, most_per_class: int, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of an image (Bolya et al., YOLACT, section 5).

    Of each class, boxes are sorted by score; one whose IoU with a higher one is above the threshold is removed, also
    where the higher one is removed itself.

    Args:
        boxes: ``(P, 4)`` xyxy.
        scores: ``(P, classes)``.
        lowest_score: Boxes need a higher score of a class.
        iou_threshold: Largest IoU of two boxes of a class.
        most_per_class: Boxes of each class with the highest scores that are looked at.
        most: Detections with the highest scores that are kept.

    Returns:
        Index of the box, class and score of each detection, in descending order of scores.
    """
    count = min(most_per_class, len(boxes))
    by_class, order = scores.transpose(0, 1).topk(count, 1)
    kept = by_class > lowest_score
    for one in range(scores.shape[1]):
        candidates = boxes[order[one][: int(kept[one].sum())]]
        higher = box_iou(candidates, candidates).triu(1).amax(0) if len(candidates) else candidates.new_zeros(0)
        kept[one, : len(candidates)] = higher <= iou_threshold
    classes, places = kept.nonzero(as_tuple=True)
    kept_scores = by_class[classes, places]
    highest = kept_scores.argsort(descending=True, stable=True)[:most]
    return order[classes, places][highest], classes[highest], kept_scores[highest]
