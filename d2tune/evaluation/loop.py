"""Running a model over a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from pycocotools import mask as mask_utils
from torch import nn
from tqdm import tqdm

from d2tune.annotations.dataset import Dataset
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.mapper import EvaluationSamples

CocoResult = dict[str, Any]
"""One detection as COCO's results format has it: image_id, category_id, bbox (XYWH), score, segmentation (RLE)."""


@contextmanager
def inference_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode that was is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predict_dataset(model: nn.Module, dataset: Dataset, cfg: CfgNode, *, show_progress: bool | None = None) -> list[CocoResult]:
    """What the model finds on every image of ``dataset``, in COCO's results format.

    Args:
        model: A Detectron2 model whose contiguous class ``i`` is the dataset's thing category ``i``.
        dataset: Images to run on; its instances are not looked at.
        cfg: For image size and channel order.
        show_progress: Whether to draw a progress bar; None draws one on a terminal.
    """
    samples = EvaluationSamples(
        detectron2_dicts(dataset),
        channel_order=cfg.INPUT.FORMAT,
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        max_side_px=cfg.INPUT.MAX_SIZE_TEST,
    )
    category_ids = [category.id for category in dataset.categories if category.isthing]
    results: list[CocoResult] = []
    with inference_mode(model):
        for at in tqdm(range(len(samples)), desc="evaluating", unit="image", disable=None if show_progress is None else not show_progress, leave=False):
            sample = samples[at]
            instances = model([sample])[0]["instances"].to("cpu")
            results.extend(coco_results(instances, sample["image_id"], category_ids))
    return results


def coco_results(instances: Instances, image_id: int, category_ids: list[int]) -> list[CocoResult]:
    """The detections on one image, by falling score.

    Args:
        instances: With ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` ``(N, H, W)``.
        image_id: ``Image.id``.
        category_ids: Category id by contiguous class.
    """
    boxes = instances.pred_boxes.tensor.numpy().astype(float)
    boxes[:, 2:] -= boxes[:, :2]
    masks = np.asfortranarray(instances.pred_masks.numpy().astype(np.uint8).transpose(1, 2, 0))
    rles = mask_utils.encode(masks) if len(instances) else []
    results = []
    for box, score, contiguous, rle in zip(
        boxes.tolist(), instances.scores.tolist(), instances.pred_classes.tolist(), rles, strict=True
    ):
        results.append(
            {
                "image_id": image_id,
                "category_id": category_ids[contiguous],
                "bbox": [round(side, 3) for side in box],
                "score": round(score, 6),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return sorted(results, key=lambda result: -result["score"])
