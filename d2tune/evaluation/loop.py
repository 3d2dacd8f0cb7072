"""Running a model over a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from d2tune.annotations.dataset import Dataset
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.mapper import EvaluationSamples
from d2tune.evaluation.paste import paste_rle

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


def predict_dataset(
    model: nn.Module, dataset: Dataset, cfg: CfgNode, *, show_progress: bool | None = None
) -> list[CocoResult]:
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
        progress = tqdm(
            range(len(samples)), desc="evaluating", unit="image", leave=False, disable=_quiet(show_progress)
        )
        for at in progress:
            sample = samples[at]
            results.extend(detect(model, sample, sample["image_id"], category_ids))
    return results


def _quiet(show_progress: bool | None) -> bool | None:
    """Tqdm's ``disable``; None draws a bar on a terminal only."""
    return None if show_progress is None else not show_progress


def detect(model: Any, sample: dict[str, Any], image_id: int, category_ids: list[int]) -> list[CocoResult]:
    """The detections on one image, by falling score.

    Args:
        model: A Detectron2 R-CNN in evaluation mode.
        sample: ``image`` ``(3, h, w)`` and the picture's own ``height`` and ``width``.
        image_id: ``Image.id``.
        category_ids: Category id by contiguous class.
    """
    height_px, width_px = sample["height"], sample["width"]
    found = model.inference([sample], do_postprocess=False)[0]
    boxes = found.pred_boxes.clone()
    boxes.scale(width_px / found.image_size[1], height_px / found.image_size[0])
    boxes.clip((height_px, width_px))
    results: list[CocoResult] = []
    for at in boxes.nonempty().nonzero().flatten().tolist():
        x0, y0, x1, y1 = boxes.tensor[at].tolist()
        results.append(
            {
                "image_id": image_id,
                "category_id": category_ids[int(found.pred_classes[at])],
                "bbox": [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(float(found.scores[at]), 6),
                "segmentation": paste_rle(
                    found.pred_masks[at, 0], boxes.tensor[at], height_px=height_px, width_px=width_px
                ),
            }
        )
    return sorted(results, key=lambda result: -result["score"])
