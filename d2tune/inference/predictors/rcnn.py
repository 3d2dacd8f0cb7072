"""Detectron2's R-CNN in two steps, so that masks are predicted only for instances that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import Tensor

from d2tune.inference.loop import Sample

_INFERENCE = (GeneralizedRCNN.inference, PanopticFPN.inference)
_FORWARD = (StandardROIHeads.forward, CascadeROIHeads.forward)


def has_two_steps(model: Any) -> bool:
    """Whether a model predicts boxes first and masks then, by Detectron2's own code."""
    kinds = type(model), type(getattr(model, "roi_heads", None))
    return getattr(kinds[0], "inference", None) in _INFERENCE and getattr(kinds[1], "forward", None) in _FORWARD


def detect(
    model: Any, features: dict[str, Tensor], images: Any, batch: Sequence[Sample], choose: Callable[[Instances], Tensor]
) -> tuple[list[Instances], list[Instances]]:
    """The instances of a batch in pixels of the network's input, with masks for the chosen ones only.

    Args:
        model: A model with `has_two_steps`.
        features: The feature maps of its backbone.
        images: Detectron2's ``ImageList`` of the batch.
        batch: The samples.
        choose: From the instances of an image with boxes, scores and classes a bool ``(N,)``, true for those whose
            masks are predicted.

    Returns:
        For each image the chosen instances, and the others without masks.
    """
    detected = model.roi_heads._forward_box(features, _proposals(model, features, images, batch))
    chosen = [choose(instances) for instances in detected]
    others = [instances[~mask] for instances, mask in zip(detected, chosen, strict=True)]
    kept = [instances[mask] for instances, mask in zip(detected, chosen, strict=True)]
    return model.roi_heads.forward_with_given_boxes(features, kept), others


def full_instances(
    model: Any, features: dict[str, Tensor], images: Any, batch: Sequence[Sample], count: int
) -> list[Instances]:
    """``count`` instances of the first class for each image, which fill it, with the masks that the model gives them.

    The boxes are predicted too, as in `detect`, for what they take of memory.

    Args:
        model: A model with `has_two_steps`.
        features: The feature maps of its backbone.
        images: Detectron2's ``ImageList`` of the batch.
        batch: The samples.
        count: Instances of each image.
    """
    model.roi_heads._forward_box(features, _proposals(model, features, images, batch))
    given = []
    for height_px, width_px in images.image_sizes:
        instances = Instances((height_px, width_px))
        box = images.tensor.new_tensor([0, 0, width_px, height_px], dtype=torch.float32)
        instances.pred_boxes = Boxes(box.repeat(count, 1))
        instances.scores = box.new_ones(count)
        instances.pred_classes = torch.zeros(count, dtype=torch.int64, device=box.device)
        given.append(instances)
    filled: list[Instances] = model.roi_heads.forward_with_given_boxes(features, given)
    return filled


def _proposals(model: Any, features: dict[str, Tensor], images: Any, batch: Sequence[Sample]) -> list[Instances]:
    """The proposals of each image."""
    generator = model.proposal_generator
    if generator is None:
        return [sample["proposals"].to(model.device) for sample in batch]
    return _highest(generator, features, images) if type(generator) is RPN else generator(images, features, None)[0]


def _highest(rpn: Any, features: dict[str, Tensor], images: Any) -> list[Instances]:
    """The proposals of Detectron2's RPN.

    It computes the boxes of all anchors and sorts them, though it takes the highest ones of each map only.
    """
    maps = [features[name] for name in rpn.in_features]
    scores, boxes = [], []
    for anchors, logits, deltas in zip(rpn.anchor_generator(maps), *rpn.rpn_head(maps), strict=True):
        flat = logits.permute(0, 2, 3, 1).flatten(1)
        highest, indices = flat.topk(min(rpn.pre_nms_topk[False], flat.shape[1]), dim=1)
        sides = anchors.tensor.shape[1]
        # (N, A * 4, h, w) to (N, h * w * A, 4)
        of_anchors = deltas.unflatten(1, (-1, sides)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        chosen = of_anchors.gather(1, indices[:, :, None].expand(-1, -1, sides))
        decoded = rpn.box2box_transform.apply_deltas(chosen.flatten(0, 1), anchors.tensor[indices.flatten()])
        scores.append(highest)
        boxes.append(decoded.view(chosen.shape))
    counts = rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
    sizes = images.image_sizes
    proposals: list[Instances] = find_top_rpn_proposals(
        boxes, scores, sizes, rpn.nms_thresh, *counts, rpn.min_box_size, False
    )
    return proposals
