"""Small annotation folders, written as the tools write them."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage

from d2tune.annotations.model.dataset import Dataset

TRIANGLE = [[10, 10], [30, 10], [10, 40]]
SQUARE = [[5, 5], [15, 5], [15, 15], [5, 15]]


def moved(points: Any, right_px: float, down_px: float = 0) -> list[list[float]]:
    """Points at another place, because the same shape at the same place is the same object."""
    return [[x + right_px, y + down_px] for x, y in points]


def photo(
    path: Path,
    width_px: int = 64,
    height_px: int = 48,
    *,
    orientation: int | None = None,
    color: tuple[int, int, int] | None = None,
) -> Path:
    """A flat photo; its color depends on its path, because splits must not share images of the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    green, blue = zlib.crc32("/".join(path.parts[-2:]).encode("utf-8", "surrogatepass")).to_bytes(4, "big")[:2]
    image = PilImage.new("RGB", (width_px, height_px), color or (90, green, blue))
    if orientation is None:
        image.save(path)
    else:
        exif = PilImage.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
    return path


def png_base64(pixels: Any) -> str:
    stream = io.BytesIO()
    PilImage.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def shape(points: Any, label: Any = "cat", kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    } | more


def labelme_value(*shapes: Any, image: str = "a.png", size: tuple[int, int] = (64, 48), **more: Any) -> dict[str, Any]:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    } | more


def labelme_file(path: Path, *shapes: Any, draw: bool = True, **more: Any) -> Path:
    """A Labelme file with its image beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = more.setdefault("image", path.with_suffix(".png").name)
    if draw:
        photo(path.parent / image, *more.get("size", (64, 48)))
    path.write_text(json.dumps(labelme_value(*shapes, **more)), "utf-8")
    return path


def codes(dataset: Dataset) -> list[tuple[str, str, int | None]]:
    return [(finding.level, finding.code, finding.shape) for finding in dataset.findings]
