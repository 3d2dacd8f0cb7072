"""The predictor of instances: boxes, scores, classes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.modeling import GeneralizedRCNN
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.model.types import Rle
from d2tune.inference.loop import Sample
from d2tune.inference.paste import paste_rle
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.results import Detections, rounded_score


@dataclass(frozen=True, slots=True)
class RawDetections:
    """The N detections of the network on an image, off the device.

    Attributes:
        boxes_xyxy: ``(N, 4)`` in pixels of the image, float32.
        scores: ``(N,)`` float32, from 0 to 1.
        class_ids: ``(N,)`` int64, contiguous.
        masks: ``(N, M, M)`` probabilities over the boxes, or ``(N, H, W)`` bool over the image, or None.
        is_pasted: Whether the masks are over the image.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: NDArray[Any] | None
    is_pasted: bool


class InstancePredictor(Predictor[RawDetections, Detections]):
    """Predicts `Detections`.

    The model may be any model of Detectron2's ``inference_on_dataset`` whose outputs have ``instances``. For
    Detectron2's own R-CNN, box-sized masks are taken from the model and pasted here.
    """

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[RawDetections]:
        return forward_detections(model, batch)

    def _result(self, raw: RawDetections, sample: Sample) -> Detections:
        return detections_of(raw, sample, self.class_names)


def forward_detections(model: Any, batch: Sequence[Sample]) -> list[RawDetections]:
    """Run the network on a batch and move its detections off the device."""
    if not isinstance(model, GeneralizedRCNN):
        return [_off_device(output["instances"], is_pasted=True) for output in model(batch)]
    outputs = model.inference(batch, do_postprocess=False)
    for instances, sample in zip(outputs, batch, strict=True):
        size = sample["height"], sample["width"]
        instances.pred_boxes.scale(size[1] / instances.image_size[1], size[0] / instances.image_size[0])
        instances.pred_boxes.clip(size)
        if instances.has("pred_masks"):
            instances.pred_masks = instances.pred_masks[:, 0]
    return [_off_device(instances, is_pasted=False) for instances in outputs]


def _off_device(instances: Any, *, is_pasted: bool) -> RawDetections:
    kept = instances[instances.pred_boxes.nonempty()].to("cpu")
    masks = kept.pred_masks if kept.has("pred_masks") else None
    return RawDetections(
        kept.pred_boxes.tensor.float().numpy(),
        kept.scores.float().numpy(),
        kept.pred_classes.numpy(),
        None if masks is None else np.asarray(masks if is_pasted else masks.float()),
        is_pasted,
    )


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
    )


def _rle(raw: RawDetections, index: int, *, height_px: int, width_px: int) -> Rle:
    assert raw.masks is not None
    if raw.is_pasted:
        encoded = mask_utils.encode(np.asfortranarray(raw.masks[index].astype(np.uint8)))
        return Rle(height_px, width_px, encoded["counts"].decode())
    pasted = paste_rle(raw.masks[index], raw.boxes_xyxy[index], height_px=height_px, width_px=width_px)
    return Rle(height_px, width_px, pasted["counts"])
