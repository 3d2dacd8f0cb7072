"""Random images with boxes for the tests of error analysis."""

import numpy as np
from pycocotools import mask as mask_utils

from d2tune.metrics.analysis.scored_image import ScoredImage


def image_of(ious: list, gt: list, dt: list, scores: list, crowd: tuple = ()) -> ScoredImage:
    """An image from lists; ``crowd`` are places of instances."""
    return ScoredImage(
        "a.png",
        np.array(ious, float).reshape(len(gt), len(dt)),
        np.array(gt, int),
        np.isin(np.arange(len(gt)), crowd),
        np.array(dt, int),
        np.array(scores, float),
    )


def random_boxes(
    draw: np.random.Generator, *, classes: int, detections: int = 2
) -> tuple[ScoredImage, np.ndarray, np.ndarray]:
    """An image, and its boxes ``(G, 4)`` and ``(D, 4)`` as x, y, width, height; scores have ties."""
    gts = draw.integers(0, 6)
    gt_boxes = np.c_[draw.integers(0, 150, (gts, 2)), draw.integers(20, 60, (gts, 2))].astype(float)
    gt_classes = draw.integers(0, classes, gts)
    crowd = draw.random(gts) < 0.15
    near = np.repeat(np.arange(gts), draw.integers(0, detections + 1, gts))
    loose = draw.integers(0, 3)
    boxes = np.r_[
        gt_boxes[near] + draw.normal(0, 1, (len(near), 4)) * draw.choice([1, 6, 14], (len(near), 1)),
        np.c_[draw.uniform(0, 150, (loose, 2)), draw.uniform(20, 60, (loose, 2))],
    ]
    boxes = np.abs(boxes) + 1
    dt_classes = np.r_[gt_classes[near], draw.integers(0, classes, loose)]
    wrong = draw.random(len(boxes)) < 0.2
    dt_classes[wrong] = draw.integers(0, classes, wrong.sum())
    scores = draw.integers(1, 40, len(boxes)) / 40
    ious = np.zeros((gts, len(boxes)))
    if ious.size:
        ious = np.asarray(mask_utils.iou(boxes, gt_boxes, crowd.astype(int))).T
    return ScoredImage("a.png", ious, gt_classes, crowd, dt_classes, scores), gt_boxes, boxes
