"""Exported models with the inputs and outputs of Detectron2's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from torch import Tensor

from d2tune.errors import DataError
from d2tune.export.graphs.build import Kind
from d2tune.export.networks import Arrays, Network
from d2tune.inference.loop import Sample
from d2tune.inference.predictors.instance import RawDetections
from d2tune.modeling.bridge.padding import mirror_pad

_MARGIN = 1e-6
"""Below the lowest scores, which are compared with rounded scores afterwards."""


class ExportedModel:
    """An exported model: one image at a time through its network.

    Args:
        network: The network.
        cfg: The config of the model.
        sizes: Heights and widths that images are padded to, on the right and below; empty takes all sizes.
        pads_by_mirroring: Whether the padding mirrors the image; otherwise it is the mean of each channel, which is 0
            after normalization.
    """

    size_divisibility = 1
    """Only images of the same size are grouped into batches."""

    def __init__(
        self,
        network: Network,
        cfg: CfgNode,
        *,
        sizes: Sequence[tuple[int, int]] = (),
        pads_by_mirroring: bool = False,
    ) -> None:
        self._network = network
        self._sizes = sorted(sizes, key=lambda size: size[0] * size[1])
        self._mean = torch.tensor(cfg.MODEL.PIXEL_MEAN).float().view(-1, 1, 1)
        self._pads_by_mirroring = pads_by_mirroring

    def _run(self, sample: Sample, min_scores: NDArray[np.float32] | None = None) -> Arrays:
        image: Tensor = sample["image"].float()
        height_px, width_px = image.shape[1:]
        inputs = {"image": self._padded(image).contiguous().numpy()}
        if min_scores is not None:
            inputs["min_scores"] = min_scores
            if self._sizes:
                inputs["size"] = np.array([width_px, height_px], dtype=np.int64)
        outputs = self._network.run(inputs)
        if "sem_seg" in outputs:
            outputs["sem_seg"] = outputs["sem_seg"][:, :height_px, :width_px]
        return outputs

    def _padded(self, image: Tensor) -> Tensor:
        if not self._sizes:
            return image
        own_px = tuple(image.shape[1:])
        fitting = [size for size in self._sizes if own_px[0] <= size[0] and own_px[1] <= size[1]]
        if not fitting:
            sizes = " or ".join(f"{width} x {height} px" for height, width in self._sizes)
            size = f"{own_px[1]} x {own_px[0]} px after resizing"
            raise DataError("the image is too large for the exported model", found=size, expected=f"at most {sizes}")
        height_px, width_px = fitting[0]
        if self._pads_by_mirroring:
            return mirror_pad(image, height_px=height_px, width_px=width_px)
        padded = self._mean.expand(-1, height_px, width_px).clone()
        padded[:, : own_px[0], : own_px[1]] = image
        return padded


class ExportedInstances(ExportedModel):
    """An exported R-CNN."""

    def __init__(self, network: Network, cfg: CfgNode, **options: Any) -> None:
        super().__init__(network, cfg, **options)
        self._classes = int(cfg.MODEL.ROI_HEADS.NUM_CLASSES)

    def raw_detections(self, batch: Sequence[Sample], min_scores: Sequence[float] | None) -> list[RawDetections]:
        """See `inference.predictors.instance.GivesRawDetections`."""
        detected = []
        for sample in batch:
            instances, outputs = self._instances(sample, min_scores)
            has_area = instances.pred_boxes.nonempty().numpy()
            detected.append(
                RawDetections(
                    instances.pred_boxes.tensor.numpy()[has_area],
                    outputs["scores"][has_area],
                    outputs["classes"][has_area],
                    outputs["masks"][has_area],
                    False,
                    tuple(round(float(score), 6) for score in outputs["lower_scores"]),
                )
            )
        return detected

    def __call__(self, batch: Sequence[Sample]) -> list[dict[str, Any]]:
        """``instances`` for each image, with masks of its size."""
        return [{"instances": self._pasted(sample, None)[0]} for sample in batch]

    def _instances(self, sample: Sample, min_scores: Sequence[float] | None) -> tuple[Instances, Arrays]:
        """The instances without masks, with boxes in pixels of the image, and the outputs of the network."""
        lowest = np.zeros(self._classes) if min_scores is None else np.asarray(min_scores, dtype=np.float64) - _MARGIN
        outputs = self._run(sample, lowest.astype(np.float32))
        height_px, width_px = sample["image"].shape[1:]
        size = int(sample["height"]), int(sample["width"])
        boxes = Boxes(torch.from_numpy(outputs["boxes"]).clone())
        boxes.scale(size[1] / width_px, size[0] / height_px)
        boxes.clip(size)
        instances = Instances(size)
        instances.pred_boxes = boxes
        return instances, outputs

    def _pasted(self, sample: Sample, min_scores: Sequence[float] | None) -> tuple[Instances, Arrays]:
        """The instances as Detectron2 gives them, and the outputs of the network."""
        lowest = np.zeros(self._classes) if min_scores is None else np.asarray(min_scores, dtype=np.float64)
        outputs = self._run(sample, lowest.astype(np.float32))
        instances = Instances(tuple(sample["image"].shape[1:]))
        instances.pred_boxes = Boxes(torch.from_numpy(outputs["boxes"]).clone())
        instances.scores = torch.from_numpy(outputs["scores"])
        instances.pred_classes = torch.from_numpy(outputs["classes"])
        instances.pred_masks = torch.from_numpy(outputs["masks"])[:, None]
        return detector_postprocess(instances, int(sample["height"]), int(sample["width"])), outputs


class ExportedLabels(ExportedModel):
    """An exported semantic model."""

    def __call__(self, batch: Sequence[Sample]) -> list[dict[str, Any]]:
        """``sem_seg`` for each image: probabilities ``(K, height, width)``."""
        return [{"sem_seg": _resized(self._run(sample), sample).softmax(0)} for sample in batch]


class ExportedSegments(ExportedInstances):
    """An exported Panoptic FPN, whose instances and regions are combined as in Detectron2."""

    def __init__(self, network: Network, cfg: CfgNode, **options: Any) -> None:
        super().__init__(network, cfg, **options)
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        self._least = float(combine.INSTANCES_CONFIDENCE_THRESH)
        self._thresholds = float(combine.OVERLAP_THRESH), float(combine.STUFF_AREA_LIMIT), self._least

    def __call__(self, batch: Sequence[Sample]) -> list[dict[str, Any]]:
        """``panoptic_seg``, ``sem_seg`` and ``instances`` for each image; see Detectron2's ``PanopticFPN``."""
        results = []
        for sample in batch:
            instances, outputs = self._pasted(sample, [self._least - _MARGIN] * self._classes)
            logits = _resized(outputs, sample)
            combined = combine_semantic_and_instance_outputs(instances, logits.argmax(dim=0), *self._thresholds)
            results.append({"panoptic_seg": combined, "sem_seg": logits, "instances": instances})
        return results


def _resized(outputs: Arrays, sample: Sample) -> Tensor:
    """The logits ``(K, height, width)`` at the size of the image."""
    logits = torch.from_numpy(np.ascontiguousarray(outputs["sem_seg"]))
    size = tuple(sample["image"].shape[1:])
    height_px, width_px = int(sample.get("height", size[0])), int(sample.get("width", size[1]))
    resized: Tensor = sem_seg_postprocess(logits, size, height_px, width_px)
    return resized


MODELS: dict[Kind, type[ExportedModel]] = {
    "instances": ExportedInstances,
    "labels": ExportedLabels,
    "segments": ExportedSegments,
}
"""The models by what their graphs give."""
