"""A made-up validation set with detections, for measuring how long scoring takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

CLASSES = 5
CORNERS = 64
DETECTED, CROWDS = 0.85, 0.02
"""Shares of the instances that have a detection, and of those that are crowds."""


def synthetic_set(
    n_images: int, masks_per_image: int, seed: int, *, height_px: int = 480, width_px: int = 640
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO ground truth and results: blobs of five classes, most detected with a small error, and some false alarms.

    Every image is drawn on its own; the first ones are the same however many follow.

    Args:
        n_images: How many images.
        masks_per_image: Ground-truth masks on each image; there are as many detections.
        seed: The same number gives the same set.
        height_px: Height of each image.
        width_px: Width of each image.

    Returns:
        The ground truth as a COCO instances dict (masks as compressed RLE, one in 50 a crowd), and the results.
    """
    draw = np.random.default_rng(seed)
    size = height_px, width_px
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(1, n_images + 1):
        outlines = _blobs(draw, masks_per_image, size)
        category_ids = draw.integers(1, CLASSES + 1, masks_per_image).tolist()
        crowds = (draw.random(masks_per_image) < CROWDS).astype(int).tolist()
        rows = zip(category_ids, crowds, *_encoded(outlines, size), strict=True)
        for category_id, crowd, rle, box, area in rows:
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": crowd}
            annotations.append(row | {"area": area, "bbox": box, "segmentation": rle})
        off = draw.normal(0, 1.5, (masks_per_image, 1, 2)) + draw.normal(0, 0.8, outlines.shape)
        is_detected = draw.random((masks_per_image, 1, 1)) < DETECTED
        seen = np.where(is_detected, outlines + off, _blobs(draw, masks_per_image, size))
        scores = np.round(draw.random(masks_per_image), 4).tolist()
        for category_id, score, rle, box, _ in zip(category_ids, scores, *_encoded(seen, size), strict=True):
            row = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            results.append(row | {"segmentation": rle})
    images = [
        {"id": number, "file_name": f"{number}.png", "height": height_px, "width": width_px}
        for number in range(1, n_images + 1)
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _blobs(draw: np.random.Generator, count: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Outlines of blobs anywhere on the image, ``(count, CORNERS, 2)``, x and y in pixels."""
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radius_px = np.exp(draw.uniform(np.log(6), np.log(80), (count, 1)))
    reach_px = radius_px * np.ones(CORNERS)
    for waves in range(2, 6):
        height, phase = draw.normal(0, 0.12 / waves, (count, 1)), draw.uniform(0, 6, (count, 1))
        reach_px += radius_px * height * np.cos(waves * angle + phase)
    stretch = draw.uniform(0.6, 1.4, (count, 1))
    around = np.stack([reach_px * np.cos(angle) * stretch, reach_px * np.sin(angle)], axis=2)
    return around + draw.random((count, 1, 2)) * [size[1], size[0]]


def _encoded(
    outlines: NDArray[np.float64], size: tuple[int, int]
) -> tuple[list[dict[str, Any]], list[list[float]], list[float]]:
    """The blobs as compressed RLE, their boxes as XYWH, and their areas."""
    rles = mask_utils.frPyObjects(outlines.reshape(len(outlines), -1).tolist(), *size)
    boxes, areas = mask_utils.toBbox(rles).tolist(), mask_utils.area(rles).astype(float).tolist()
    return [{"size": list(size), "counts": rle["counts"].decode()} for rle in rles], boxes, areas
