"""From a Detectron2 dataset dict to the tensors that panoptic models are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.formats.panoptic import from_colors, to_colors
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.data.augmentation.pasting import Mask
from d2tune.data.label_maps import read_label_map
from d2tune.data.mapper import TrainingSamples
from d2tune.detectron2_projects import project_module
from d2tune.errors import DataError

if TYPE_CHECKING:
    from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator


_THINGS = 0
"""The class of all things in the label maps of Panoptic FPN."""


class PanopticSamples(TrainingSamples):
    """Training images of a panoptic task by ``SampleKey``.

    Each item has the fields of ``TrainingSamples``, with the ``instances`` of the things, and ``sem_seg`` ``(h, w)``
    int64, 255 for ignored pixels, resized and flipped with the image. Without ``center_targets``, ``sem_seg`` is read
    from ``sem_seg_file_name``. With ``center_targets``, it is made from ``pan_seg_file_name`` and ``segments_info``,
    whose classes are indices of the things followed by the stuff, as are ``center`` ``(h, w)``, ``offset``
    ``(2, h, w)``, ``sem_seg_weights``, ``center_weights`` and ``offset_weights``.

    Args:
        dicts: Detectron2's dataset dicts with label maps.
        center_targets: Makes the targets of Panoptic-DeepLab; None for Panoptic FPN.
        options: Arguments of ``TrainingSamples``.
    """

    def __init__(
        self,
        dicts: Sequence[dict[str, Any]],
        *,
        center_targets: PanopticDeepLabTargetGenerator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dicts, **options)
        self._center_targets = center_targets

    def read_label_map(self, source: dict[str, Any]) -> NDArray[np.uint8]:
        """The class indices ``(H, W)``, or the colors ``(H, W, 3)`` of segment ids as RGB.

        Raises:
            DataError: The label map is missing or damaged, or its size is not that of the image.
        """
        path = Path(source["sem_seg_file_name" if self._center_targets is None else "pan_seg_file_name"])
        labels = read_label_map(path)
        if labels.shape[:2] != (source["height"], source["width"]):
            raise DataError(
                "the size of the label map is not the size of its image",
                file=path,
                found=f"{labels.shape[1]} x {labels.shape[0]} px",
                expected=f"{source['width']} x {source['height']} px",
            )
        return labels if labels.ndim == 2 else np.ascontiguousarray(labels[:, :, ::-1])

    def label_targets(self, source: dict[str, Any], labels: NDArray[np.uint8]) -> dict[str, Any]:
        """``sem_seg``, and with ``center_targets`` the targets of Panoptic-DeepLab."""
        if self._center_targets is None:
            return {"sem_seg": torch.from_numpy(labels.astype(np.int64))}
        segments = [{"iscrowd": 0} | info for info in source["segments_info"]]
        targets = self._center_targets(from_colors(labels), segments)
        return {name: value for name, value in targets.items() if isinstance(value, torch.Tensor)}

    def paste_labels(
        self, source: dict[str, Any], labels: NDArray[np.uint8], things: Sequence[tuple[int, Mask]]
    ) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """The dict and the label map with pasted things: as class 0, or with ``center_targets`` as new segments."""
        labels = labels.copy()
        if self._center_targets is None:
            for _, mask in things:
                labels[mask] = _THINGS
            return source, labels
        segments = list(source["segments_info"])
        first = 1 + max((int(info["id"]) for info in segments), default=0)
        for number, (category_id, mask) in enumerate(things, start=first):
            labels[mask] = to_colors(np.array([[number]], dtype=np.int32))[0, 0]
            segments.append({"id": number, "category_id": category_id, "iscrowd": 0})
        return source | {"segments_info": segments}, labels


def center_targets(cfg: CfgNode) -> PanopticDeepLabTargetGenerator | None:
    """The target generator of the config's model; None if the model is not Panoptic-DeepLab."""
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
