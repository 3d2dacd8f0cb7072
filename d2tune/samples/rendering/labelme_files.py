"""Photos beside their Labelme files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2tune.files import write_bytes, write_text

LABELME_VERSION = "7.1.0"
_JPEG_QUALITY = 92

Outlined = tuple[str, Sequence[np.ndarray]]
"""A label, and the outlines, (N, 2) pixels, of the visible pieces of an object."""


def labelme_document(image_name: str, shape: tuple[int, int], objects: Iterable[Outlined]) -> dict[str, Any]:
    """The file of Labelme 7 for an image of ``shape`` (height, width); the pieces of a split object share a group."""
    shapes, group = [], 0
    for label, polygons in objects:
        split = len(polygons) > 1
        group += split
        shapes += [
            {
                "label": label,
                "points": polygon.round(3).tolist(),
                "group_id": group if split else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for polygon in polygons
        ]
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }


def write_labelme_pair(path: Path, image_rgb: np.ndarray, objects: Iterable[Outlined]) -> None:
    """Write a JPEG and the Labelme file beside it."""
    jpeg = io.BytesIO()
    Image.fromarray(image_rgb).save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    write_bytes(path, jpeg.getvalue())
    height, width = image_rgb.shape[:2]
    document = labelme_document(path.name, (height, width), objects)
    write_text(path.with_suffix(".json"), json.dumps(document, ensure_ascii=False, indent=2))
