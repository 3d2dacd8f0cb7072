"""Panoptic-DeepLab for contiguous class ids and resized images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from d2tune.data.catalog import LABEL_DIVISOR
from d2tune.detectron2_projects import project_module

if TYPE_CHECKING:
    from detectron2.projects.panoptic_deeplab import PanopticDeepLab
else:
    PanopticDeepLab = project_module("panoptic_deeplab.panoptic_seg").PanopticDeepLab


@META_ARCH_REGISTRY.register()
class ContiguousPanopticDeepLab(PanopticDeepLab):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``PanopticDeepLab`` with contiguous class ids, the things before the stuff.

    The parent takes the thing ids from a registered dataset, which does not exist when a finished run predicts; here
    they are derived from the config. The parent also groups pixels at the size of the original image by offsets in
    pixels of the input; here they are grouped at the size of the input, and the result is resized to the image.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        things = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        identity = {class_id: class_id for class_id in range(things)}
        self.meta = Metadata(thing_dataset_id_to_contiguous_id=identity, label_divisor=LABEL_DIVISOR)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, else ``sem_seg``, ``panoptic_seg`` and ``instances`` for each image."""
        if self.training:
            return super().forward(batched_inputs)
        sizes = [tuple(sample["image"].shape[-2:]) for sample in batched_inputs]
        at_input_size = [
            {**sample, "height": height, "width": width}
            for sample, (height, width) in zip(batched_inputs, sizes, strict=True)
        ]
        return [
            _resized(output, (sample.get("height", size[0]), sample.get("width", size[1])))
            for output, sample, size in zip(super().forward(at_input_size), batched_inputs, sizes, strict=True)
        ]


def _resized(output: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """The output for an input, resized to the original image; without detections the parent gives no instances."""
    sem_seg, (ids, segments_info) = output["sem_seg"], output["panoptic_seg"]
    instances = Instances(size_hw)
    if "instances" in output:
        small = output["instances"]
        instances.pred_classes = small.pred_classes
        instances.scores = small.scores
        instances.pred_masks = _nearest(small.pred_masks, size_hw)
        instances.pred_boxes = small.pred_boxes.to(sem_seg.device)
        instances.pred_boxes.scale(size_hw[1] / ids.shape[1], size_hw[0] / ids.shape[0])
    else:
        instances.pred_classes = ids.new_zeros(0)
        instances.scores = sem_seg.new_zeros(0)
        instances.pred_masks = torch.zeros((0, *size_hw), dtype=torch.bool, device=ids.device)
        instances.pred_boxes = Boxes(sem_seg.new_zeros((0, 4)))
    return {
        "sem_seg": sem_seg_postprocess(sem_seg, tuple(ids.shape), *size_hw),
        "panoptic_seg": (_nearest(ids[None], size_hw)[0], segments_info),
        "instances": instances,
    }


def _nearest(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Maps ``(N, h, w)`` of ids or booleans, resized by the nearest pixel."""
    rows, columns = (
        ((torch.arange(new_px, device=maps.device) + 0.5) * old_px / new_px).long()
        for new_px, old_px in zip(size_hw, maps.shape[1:], strict=True)
    )
    return maps[:, rows[:, None], columns]
