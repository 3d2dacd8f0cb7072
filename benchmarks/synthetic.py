"""A made-up validation set with detections, for measuring how long scoring takes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.evaluation.paste import encode_crop

CLASSES = 5


def synthetic_set(
    n_images: int, masks_per_image: int, seed: int, *, height_px: int = 480, width_px: int = 640
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO ground truth and results: blobs of five classes, most found with a small error, and some false alarms.

    Args:
        n_images: How many images.
        masks_per_image: Ground-truth masks on each image; there are about as many detections.
        seed: The same number gives the same set.
        height_px: Height of each image.
        width_px: Width of each image.

    Returns:
        The ground truth as a COCO instances dict (masks as compressed RLE, one in 50 a crowd), and the results.
    """
    draw = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(1, n_images + 1):
        for _ in range(masks_per_image):
            outline = _blob(draw, height_px, width_px)
            category_id = int(draw.integers(1, CLASSES + 1))
            rle, box = _encode(outline, height_px, width_px)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "iscrowd": int(draw.random() < 0.02),
                    "area": float(mask_utils.area(rle)),
                    "bbox": box,
                    "segmentation": rle,
                }
            )
            if draw.random() < 0.85:  # found, with an outline that is a little off
                outline = outline + draw.normal(0, 1.5, 2) + draw.normal(0, 0.8, outline.shape)
            else:
                outline = _blob(draw, height_px, width_px)
            rle, box = _encode(outline, height_px, width_px)
            score = round(float(draw.random()), 4)
            one = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score, "segmentation": rle}
            results.append(one)
    images = [
        {"id": number, "file_name": f"{number}.png", "height": height_px, "width": width_px}
        for number in range(1, n_images + 1)
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _blob(draw: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.float64]:
    """The outline of a blob anywhere on the image, ``(64, 2)``, x and y in pixels."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius_px = np.exp(draw.uniform(np.log(6), np.log(80)))
    waves = sum(draw.normal(0, 0.12 / k) * np.cos(k * angle + draw.uniform(0, 6)) for k in range(2, 6))
    reach = radius_px * (1 + waves)
    stretch = draw.uniform(0.6, 1.4)
    centre = draw.random(2) * [width_px, height_px]
    return np.stack([centre[0] + reach * np.cos(angle) * stretch, centre[1] + reach * np.sin(angle)], axis=1)


def _encode(outline: NDArray[np.float64], height_px: int, width_px: int) -> tuple[dict[str, Any], list[float]]:
    """The blob as compressed RLE, and its box as XYWH."""
    points = np.round(outline).astype(np.int32)
    left, top = np.clip(points.min(axis=0), 0, [width_px - 1, height_px - 1])
    right, bottom = np.clip(points.max(axis=0), [left, top], [width_px - 1, height_px - 1])
    crop = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(crop, [points - [left, top]], (1,))
    rle = encode_crop(crop.astype(bool), int(left), int(top), height_px=height_px, width_px=width_px)
    return rle, [float(side) for side in mask_utils.toBbox(rle)]
