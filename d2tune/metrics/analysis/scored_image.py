"""Ground truth and detections of one image with the IoU of every pair, the input of error analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """G instances of ground truth and D detections, in any order.

    Attributes:
        name: The image, for messages.
        ious: ``(G, D)``, from 0 to 1. In the row of a crowd: the share of the detection's area that lies on it, as
            pycocotools has it.
        gt_classes: ``(G,)``, class numbers from 0.
        gt_crowd: ``(G,)``, bool.
        dt_classes: ``(D,)``, class numbers from 0.
        dt_scores: ``(D,)``, from 0 to 1.
    """

    name: str
    ious: NDArray[np.floating[Any]]
    gt_classes: NDArray[np.integer[Any]]
    gt_crowd: NDArray[np.bool_]
    dt_classes: NDArray[np.integer[Any]]
    dt_scores: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        gts, dts = len(self.gt_classes), len(self.dt_classes)
        shapes = (self.ious.shape, self.gt_crowd.shape, self.dt_scores.shape)
        if shapes != ((gts, dts), (gts,), (dts,)):
            raise ValueError(f"{self.name}: {gts} instances and {dts} detections, but shapes {shapes}")
