"""The predictor of instances: boxes, scores, classes and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from detectron2.modeling import GeneralizedRCNN
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from d2tune.annotations.model.types import Rle
from d2tune.inference.loop import Sample
from d2tune.inference.paste import paste_rle
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.rcnn import detect, full_instances, has_two_steps
from d2tune.inference.results import Detections, rounded_score

_MASK_SIDE = 28
"""Side of the masks over boxes where a model has not given any yet; that of most models."""


@dataclass(frozen=True, slots=True)
class RawDetections:
    """The N detections of the network on an image, off the device.

    Attributes:
        boxes_xyxy: ``(N, 4)`` in pixels of the image, float32.
        scores: ``(N,)`` float32, from 0 to 1.
        class_ids: ``(N,)`` int64, contiguous.
        masks: ``(N, M, M)`` probabilities over the boxes, or ``(N, H, W)`` bool over the image, or None.
        is_pasted: Whether the masks are over the image.
        lower_scores: The scores of instances below the lowest score of their class, in no order.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: NDArray[Any] | None
    is_pasted: bool
    lower_scores: tuple[float, ...] = ()


@runtime_checkable
class GivesRawDetections(Protocol):
    """A model with box-sized masks that is not one of Detectron2's modules."""

    def raw_detections(self, batch: Sequence[Sample], min_scores: Sequence[float] | None) -> list[RawDetections]:
        """The detections of each image.

        Args:
            batch: The samples.
            min_scores: Lowest score of each class, with a margin for rounding; None keeps all instances.
        """


@runtime_checkable
class DetectsInTwoSteps(Protocol):
    """A model of Detectron2 with box-sized masks for those instances only that are wanted, such as YOLACT."""

    def detect(self, batched_inputs: Sequence[Sample], choose: Callable[[Any], Tensor]) -> tuple[list[Any], list[Any]]:
        """For each image the instances that ``choose`` marks with masks, and the others without."""


class InstancePredictor(Predictor[RawDetections, Detections]):
    """Predicts `Detections`.

    The model may be any model of Detectron2's ``inference_on_dataset`` whose outputs have ``instances``. For
    Detectron2's own R-CNN, box-sized masks are taken from the model and pasted here, and masks of instances below the
    lowest score of their class are not predicted.
    """

    def highest(self, raw: Any, count: int) -> tuple[Any, int]:
        """See `Predictor.highest`; of results of windows, whose masks are pasted already, too."""
        dropped = len(raw.scores) - count
        return (raw, 0) if dropped <= 0 else (_highest(raw, count), dropped)

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[RawDetections]:
        return forward_detections(model, batch, self.min_scores)

    def _forward_full(self, model: Any, batch: Sequence[Sample], instances: int) -> list[RawDetections]:
        if isinstance(model, GeneralizedRCNN) and has_two_steps(model):
            images = model.preprocess_image(batch)
            full = full_instances(model, model.backbone(images.tensor), images, batch, instances)
            return [box_sized(one, sample) for one, sample in zip(full, batch, strict=True)]
        pairs = zip(self._forward(model, batch), batch, strict=True)
        return [_full(raw, sample, instances) for raw, sample in pairs]

    def _result(self, raw: RawDetections, sample: Sample) -> Detections:
        return detections_of(raw, sample, self.class_names)


def forward_detections(
    model: Any, batch: Sequence[Sample], min_scores: Sequence[float] | None = None
) -> list[RawDetections]:
    """Run the network on a batch and move its detections off the device.

    Args:
        model: The model.
        batch: The samples.
        min_scores: Lowest score of each class; None keeps all instances.
    """
    if isinstance(model, GivesRawDetections):
        return [_above(raw, min_scores) for raw in model.raw_detections(batch, min_scores)]
    if isinstance(model, DetectsInTwoSteps):
        kept, lower = model.detect(batch, lambda instances: is_above(instances, min_scores))
        return _of_two_steps(kept, lower, batch)
    if not isinstance(model, GeneralizedRCNN):
        return [_above(off_device(output["instances"], is_pasted=True), min_scores) for output in model(batch)]
    if not has_two_steps(model):
        outputs = model.inference(batch, do_postprocess=False)
        pairs = zip(outputs, batch, strict=True)
        return [_above(box_sized(instances, sample), min_scores) for instances, sample in pairs]
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    kept, lower = detect(model, features, images, batch, lambda instances: is_above(instances, min_scores))
    return _of_two_steps(kept, lower, batch)


def _of_two_steps(kept: Sequence[Any], lower: Sequence[Any], batch: Sequence[Sample]) -> list[RawDetections]:
    """Detections with masks, and the scores of those without."""
    return [
        replace(box_sized(above, sample), lower_scores=_rounded(box_sized(below, sample).scores))
        for above, below, sample in zip(kept, lower, batch, strict=True)
    ]


def forward_boxes(model: Any, batch: Sequence[Sample]) -> list[RawDetections]:
    """All detections of the network on a batch, without masks where the model allows it."""
    if isinstance(model, DetectsInTwoSteps):
        _, boxes = model.detect(batch, lambda instances: instances.scores > math.inf)
        return [box_sized(instances, sample) for instances, sample in zip(boxes, batch, strict=True)]
    if not has_two_steps(model):
        return forward_detections(model, batch)
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    _, boxes = detect(model, features, images, batch, lambda instances: instances.scores > math.inf)
    return [box_sized(instances, sample) for instances, sample in zip(boxes, batch, strict=True)]


def box_sized(instances: Any, sample: Sample) -> RawDetections:
    """Detections of the network with boxes in pixels of the image and masks over the boxes."""
    size = sample["height"], sample["width"]
    instances.pred_boxes.scale(size[1] / instances.image_size[1], size[0] / instances.image_size[0])
    instances.pred_boxes.clip(size)
    if instances.has("pred_masks"):
        instances.pred_masks = instances.pred_masks[:, 0]
    return off_device(instances, is_pasted=False)


def _full(raw: RawDetections, sample: Sample, count: int) -> RawDetections:
    """Detections that each fill the image, with masks of the kind that the model gives."""
    height_px, width_px = int(sample["height"]), int(sample["width"])
    side = _MASK_SIDE if raw.masks is None or not len(raw.masks) else raw.masks.shape[-1]
    masks: NDArray[Any] = (
        np.ones((count, height_px, width_px), bool) if raw.is_pasted else np.ones((count, side, side), np.float32)
    )
    return RawDetections(
        np.tile(np.array([0, 0, width_px, height_px], np.float32), (count, 1)),
        np.ones(count, np.float32),
        np.zeros(count, np.int64),
        masks,
        raw.is_pasted,
    )


def off_device(instances: Any, *, is_pasted: bool) -> RawDetections:
    """The instances of an image whose boxes have an area, with boxes in its pixels, off the device.

    Args:
        instances: Detectron2's ``Instances``.
        is_pasted: Whether their masks are over the image.
    """
    kept = instances[instances.pred_boxes.nonempty()].to("cpu")
    masks = kept.pred_masks if kept.has("pred_masks") else None
    return RawDetections(
        kept.pred_boxes.tensor.float().numpy(),
        kept.scores.float().numpy(),
        kept.pred_classes.numpy(),
        None if masks is None else np.asarray(masks if is_pasted else masks.float()),
        is_pasted,
    )


def is_above(instances: Any, min_scores: Sequence[float] | None) -> Tensor:
    """Whether each instance has at least the lowest score of its class, as bool ``(N,)``."""
    if min_scores is None:
        return torch.ones_like(instances.scores, dtype=torch.bool)
    chosen = _at_least(instances.scores.tolist(), instances.pred_classes.tolist(), min_scores)
    return torch.as_tensor(chosen, device=instances.scores.device)


def _at_least(scores: Sequence[float], class_ids: Sequence[int], min_scores: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each of N scores, rounded to six digits as in files, is at least the lowest one of its class."""
    pairs = zip(scores, class_ids, strict=True)
    return np.array([rounded_score(score) >= min_scores[class_id] for score, class_id in pairs], dtype=bool)


def _above(raw: RawDetections, min_scores: Sequence[float] | None) -> RawDetections:
    """The detections with at least the lowest score of their class."""
    if min_scores is None:
        return raw
    kept = _at_least(raw.scores.tolist(), raw.class_ids.tolist(), min_scores)
    return RawDetections(
        raw.boxes_xyxy[kept],
        raw.scores[kept],
        raw.class_ids[kept],
        None if raw.masks is None else raw.masks[kept],
        raw.is_pasted,
        (*raw.lower_scores, *_rounded(raw.scores[~kept])),
    )


def _highest(raw: RawDetections | Detections, count: int) -> RawDetections | Detections:
    """The detections with the highest scores, in their order; of equal scores the first."""
    kept = np.sort(np.argsort(-raw.scores, kind="stable")[:count])
    arrays: dict[str, Any] = {name: getattr(raw, name)[kept] for name in ("boxes_xyxy", "scores", "class_ids")}
    if isinstance(raw, Detections):
        return replace(raw, **arrays, rles=None if raw.rles is None else tuple(raw.rles[index] for index in kept))
    return replace(raw, **arrays, masks=None if raw.masks is None else raw.masks[kept])


def _rounded(scores: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(map(rounded_score, scores))


def detections_of(raw: RawDetections, sample: Sample, class_names: Sequence[str]) -> Detections:
    """The detections on an image in descending order of their scores.

    Detections whose scores are equal after rounding to six digits, as in files, keep the order of the model.

    Args:
        raw: The detections of the network.
        sample: The sample, with ``height`` and ``width`` of the image.
        class_names: The classes in the order of their ids.
    """
    order = sorted(range(len(raw.scores)), key=lambda index: -rounded_score(float(raw.scores[index])))
    size = {"height_px": int(sample["height"]), "width_px": int(sample["width"])}
    rles = None if raw.masks is None else tuple(_rle(raw, index, **size) for index in order)
    return Detections(
        **size,
        boxes_xyxy=raw.boxes_xyxy[order],
        scores=raw.scores[order],
        class_ids=raw.class_ids[order],
        rles=rles,
        class_names=tuple(class_names),
        lower_scores=tuple(sorted(raw.lower_scores, reverse=True)),
    )


def _rle(raw: RawDetections, index: int, *, height_px: int, width_px: int) -> Rle:
    assert raw.masks is not None
    if raw.is_pasted:
        encoded = mask_utils.encode(np.asfortranarray(raw.masks[index].astype(np.uint8)))
        return Rle(height_px, width_px, encoded["counts"].decode())
    pasted = paste_rle(raw.masks[index], raw.boxes_xyxy[index], height_px=height_px, width_px=width_px)
    return Rle(height_px, width_px, pasted["counts"])
