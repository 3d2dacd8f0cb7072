"""From a Detectron2 dataset dict to what panoptic models train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.formats.panoptic import from_colors
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.data.label_maps import read_labels
from d2tune.data.mapper import TrainingSamples
from d2tune.detectron2_projects import project_module
from d2tune.errors import DataError

if TYPE_CHECKING:
    from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator


class PanopticSamples(TrainingSamples):
    """Training images of a panoptic task by ``SampleKey``.

    Each item has what ``TrainingSamples`` gives, ``instances`` being those of the things, and ``sem_seg`` ``(h, w)``
    int64 with 255 for pixels to leave out, resized and flipped with the image. Without ``center_targets`` it is read
    from ``sem_seg_file_name``. With them it is made, as are ``center`` ``(h, w)``, ``offset`` ``(2, h, w)`` and the
    ``sem_seg_weights``, ``center_weights`` and ``offset_weights``, from ``pan_seg_file_name`` and ``segments_info``,
    whose classes are places among the things followed by the stuff.

    Args:
        dicts: Detectron2's dataset dicts with label images.
        center_targets: Makes the targets of Panoptic-DeepLab; None for Panoptic FPN.
        how: What ``TrainingSamples`` takes.
    """

    def __init__(
        self,
        dicts: Sequence[dict[str, Any]],
        *,
        center_targets: PanopticDeepLabTargetGenerator | None = None,
        **how: Any,
    ) -> None:
        super().__init__(dicts, **how)
        self._center_targets = center_targets

    def read_label_image(self, source: dict[str, Any]) -> NDArray[np.uint8]:
        """The map of classes ``(H, W)``, or the colors ``(H, W, 3)`` that are the ids of segments.

        Raises:
            DataError: The image is damaged or of another size than the image.
        """
        path = Path(source["sem_seg_file_name" if self._center_targets is None else "pan_seg_file_name"])
        labels = read_labels(path)
        if labels.shape[:2] != (source["height"], source["width"]):
            raise DataError(
                "the label image has another size than its image",
                file=path,
                found=f"{labels.shape[1]} x {labels.shape[0]} px",
                expected=f"{source['width']} x {source['height']} px",
            )
        return labels if labels.ndim == 2 else np.ascontiguousarray(labels[:, :, ::-1])

    def label_targets(self, source: dict[str, Any], labels: NDArray[np.uint8]) -> dict[str, Any]:
        """``sem_seg``, and the targets of Panoptic-DeepLab where it is trained."""
        if self._center_targets is None:
            return {"sem_seg": torch.from_numpy(labels.astype(np.int64))}
        segments = [{"iscrowd": 0} | one for one in source["segments_info"]]
        targets = self._center_targets(from_colors(labels), segments)
        return {name: value for name, value in targets.items() if isinstance(value, torch.Tensor)}


def center_targets(cfg: CfgNode) -> PanopticDeepLabTargetGenerator | None:
    """What makes the targets of the config's model; None where it is no Panoptic-DeepLab."""
    if cfg.MODEL.META_ARCHITECTURE != "ContiguousPanopticDeepLab":
        return None
    generator = project_module("panoptic_deeplab.target_generator").PanopticDeepLabTargetGenerator
    return generator(
        ignore_label=IGNORE_LABEL,
        thing_ids=range(cfg.MODEL.ROI_HEADS.NUM_CLASSES),
        sigma=cfg.INPUT.GAUSSIAN_SIGMA,
        ignore_stuff_in_offset=cfg.INPUT.IGNORE_STUFF_IN_OFFSET,
        small_instance_area=cfg.INPUT.SMALL_INSTANCE_AREA,
        small_instance_weight=cfg.INPUT.SMALL_INSTANCE_WEIGHT,
        ignore_crowd_in_semantic=cfg.INPUT.IGNORE_CROWD_IN_SEMANTIC,
    )
