"""Connected regions of a label map as objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask

_LEAST_SHARE = 0.02
"""Regions below this share of the typical area are noise."""

_MOST = 100
"""Regions of an image that are kept: the largest, as COCO's evaluation counts at most 100."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A connected region.

    Attributes:
        class_id: Its class.
        mask: ``(H, W)``.
        box_xyxy: Left, top, right and bottom.
        score: Its share ``a / (a + typical)``, from 0 to 1: large regions are objects more often than small ones.
    """

    class_id: int
    mask: Mask
    box_xyxy: tuple[float, float, float, float]
    score: float


def regions_of(class_ids: NDArray[Any], *, n_classes: int, typical_area_px2: float) -> list[Region]:
    """The regions of the classes below ``n_classes``, the highest score first.

    Args:
        class_ids: The class of each pixel ``(H, W)``.
        n_classes: Ids from here on are background.
        typical_area_px2: The median area of an object.
    """
    regions = []
    for class_id in range(n_classes):
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats((class_ids == class_id).astype(np.uint8))
        areas = boxes[:, cv2.CC_STAT_AREA]
        order = [at for at in np.argsort(-areas, kind="stable") if at > 0][:_MOST]
        for at in order:
            if areas[at] < _LEAST_SHARE * typical_area_px2:
                break
            x, y, width, height = (float(side) for side in boxes[at, :4])
            score = float(areas[at] / (areas[at] + typical_area_px2))
            regions.append(Region(class_id, numbers == at, (x, y, x + width, y + height), score))
    return sorted(regions, key=lambda one: -one.score)[:_MOST]
