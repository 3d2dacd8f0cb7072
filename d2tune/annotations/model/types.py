"""Outlines and masks as arrays and run lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Vertices, shape ``(V, 2)``, x before y, in pixels."""


Mask = NDArray[np.bool_]
"""The pixels of a mask, shape ``(H, W)``."""


RawRle = dict[str, Any]
"""pycocotools' own run-length object, ``{"size": [height, width], "counts": bytes}``."""


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO's compressed run-length encoding of a whole-image mask, column-major.

    Attributes:
        height_px: Height of the mask.
        width_px: Width of the mask.
        counts: pycocotools' compressed counts, ASCII.
    """

    height_px: int
    width_px: int
    counts: str

    def to_coco(self) -> dict[str, Any]:
        """``{"size": [height, width], "counts": str}``."""
        return {"size": [self.height_px, self.width_px], "counts": self.counts}


Polygons = tuple[NDArray[np.float64], ...]
"""The parts of one instance, each a closed polygon of shape ``(V, 2)`` without a repeated last point."""
