"""Small COCO data sets drawn at random, with all that makes scoring hard."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

CocoPair = tuple[dict[str, Any], list[dict[str, Any]]]


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def decode(rle: dict[str, Any]) -> np.ndarray:
    # by way of a list: numpy 2 deprecates what pycocotools does for a single one
    return mask_utils.decode([rle])[:, :, 0].astype(bool)


LONGEST_PX = 130


def random_set(seed: int) -> CocoPair:
    """Ground truth and results: crowds, empty images, classes without ground truth, equal scores and equal masks,
    masks that touch, overlap, are empty, one pixel or the whole image; now and then over 100 detections of a class."""
    draw = np.random.default_rng(seed)
    category_ids = sorted(int(number) for number in draw.choice(20, draw.integers(1, 5), replace=False))
    image_ids = [int(number) for number in draw.choice(100, draw.integers(1, 6), replace=False)]
    levels = int(draw.choice([1, 3, 10, 1000]))
    images, annotations, results = [], [], []

    def result(image_id: int, category_id: int, mask: np.ndarray) -> None:
        rle = encode(mask)
        box = [float(side) for side in mask_utils.toBbox(rle) + draw.choice([0, 0.3]) * draw.random(4)]
        score = float(draw.integers(0, levels + 1)) / levels
        row = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score, "segmentation": rle}
        results.append(row)

    for image_id in image_ids:
        height, width = (int(side) for side in draw.integers(6, int(draw.choice([40, LONGEST_PX])), 2))
        images.append({"id": image_id, "height": height, "width": width, "file_name": f"{image_id}.png"})
        masks: list[np.ndarray] = []
        for _ in range(int(draw.choice([0, 1, 4, 9]))):
            mask = masks[-1] if masks and draw.random() < 0.1 else shape(draw, height, width)
            masks.append(mask)
            category_id = int(draw.choice(category_ids[: max(1, len(category_ids) - 1)]))
            rle = encode(mask)
            area = float(mask.sum()) * float(draw.choice([1, 1, 0.97, 1.04]))
            box = [float(side) for side in mask_utils.toBbox(rle)]
            crowd = int(draw.random() < 0.15)
            rest = {"iscrowd": crowd, "area": area, "bbox": box, "segmentation": rle}
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": image_id, "category_id": category_id, **rest})
            for _ in range(int(draw.choice([0, 1, 1, 2, 5]))):
                seen = int(draw.choice(category_ids)) if draw.random() < 0.1 else category_id
                result(image_id, seen, disturbed(draw, mask))
        for _ in range(0 if draw.random() < 0.2 else int(draw.integers(0, 4))):
            result(image_id, int(draw.choice(category_ids)), shape(draw, height, width))
        if masks and draw.random() < 0.03:
            for _ in range(130):
                result(image_id, category_ids[0], disturbed(draw, masks[int(draw.integers(len(masks)))]))
    order = draw.permutation(len(results))
    categories = [{"id": number, "name": f"class {number}"} for number in category_ids]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, [results[at] for at in order] if draw.random() < 0.97 else []


def shape(draw: np.random.Generator, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    kind = draw.choice(["box", "box", "ellipse", "ellipse", "noise", "pixel", "whole", "square", "empty"])
    x, y = int(draw.integers(0, width)), int(draw.integers(0, height))
    if kind == "box":
        mask[y : y + int(draw.integers(1, height + 1)), x : x + int(draw.integers(1, width + 1))] = 1
    elif kind == "ellipse":
        axes = (int(draw.integers(1, width + 1)), int(draw.integers(1, height + 1)))
        cv2.ellipse(mask, (x, y), axes, float(draw.integers(0, 180)), 0, 360, 1, -1)
    elif kind == "noise":
        mask = (draw.random((height, width)) < draw.choice([0.1, 0.9])).astype(np.uint8)
    elif kind == "pixel":
        mask[y, x] = 1
    elif kind == "whole":
        mask[:] = 1
    elif kind == "square":  # just as large as the limit between small and medium
        mask[y : y + 32, x : x + 32] = 1
    return mask.astype(bool)


def disturbed(draw: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """The mask as a model may find it: moved, grown, shrunk, with holes, or exactly right."""
    how = draw.choice(["same", "move", "grow", "shrink", "holes", "half"])
    if how == "move":
        dy, dx = draw.integers(-3, 4, 2)
        moved = cv2.warpAffine(mask.astype(np.uint8), np.float32([[1, 0, dx], [0, 1, dy]]), mask.shape[::-1], flags=0)
        return moved.astype(bool)
    if how in ("grow", "shrink"):
        change = cv2.dilate if how == "grow" else cv2.erode
        return change(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    if how == "holes":
        return mask & (draw.random(mask.shape) < 0.8)
    if how == "half":
        half = mask.copy()
        half[: mask.shape[0] // 2] = False
        return half
    return mask
