"""Detectron2's R-CNN in two steps, so that masks are predicted only for instances that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.structures import Instances
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
    if model.proposal_generator is None:
        proposals = [sample["proposals"].to(model.device) for sample in batch]
    else:
        proposals, _ = model.proposal_generator(images, features, None)
    detected = model.roi_heads._forward_box(features, proposals)
    chosen = [choose(instances) for instances in detected]
    others = [instances[~mask] for instances, mask in zip(detected, chosen, strict=True)]
    kept = [instances[mask] for instances, mask in zip(detected, chosen, strict=True)]
    return model.roi_heads.forward_with_given_boxes(features, kept), others
