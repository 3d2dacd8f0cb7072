"""The training samples of a task."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.catalog import Layout, detectron2_dicts
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles, label_files
from d2tune.data.mapper import TrainingSamples
from d2tune.data.panoptic_mapper import PanopticSamples, center_targets
from d2tune.data.semantic_mapper import SemanticInput, SemanticSamples
from d2tune.project import Project


def labels_of(dataset: Dataset, project: Project) -> LabelFiles | None:
    """The label images of a part; None where the task has none."""
    return None if project.task == "instance" else label_files(dataset, task=project.task)


def layout_of(cfg: CfgNode) -> Layout:
    """What the label images hold that the model of ``cfg`` is trained on."""
    return "separated" if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN" else "contiguous"


def training_samples(
    dataset: Dataset, cfg: CfgNode, project: Project, *, cache_bytes: int
) -> torch.utils.data.Dataset[dict[str, Any]]:
    """What a project's model is trained on, by ``SampleKey``.

    Args:
        dataset: The training part, its background painted.
        cfg: The run's config.
        project: Its task, and how its images are read.
        cache_bytes: Memory that images may take in one process.
    """
    dicts = detectron2_dicts(dataset, labels=labels_of(dataset, project), layout=layout_of(cfg))
    if project.task == "semantic":
        how = SemanticInput(
            reader=image_reader(project, cfg),
            max_side_px=cfg.INPUT.MAX_SIZE_TRAIN,
            largest_short_side_px=cfg.INPUT.MIN_SIZE_TRAIN[1],
            patch_px=cfg.INPUT.PATCH_PX,
            patch_balance=cfg.INPUT.PATCH_BALANCE,
            augment=cfg.INPUT.AUGMENT,
            color_jitter=cfg.INPUT.COLOR_JITTER,
            classes=len(dataset.categories),
        )
        return SemanticSamples(dicts, how, cache_bytes=cache_bytes)
    options: dict[str, Any] = {
        "channel_order": cfg.INPUT.FORMAT,
        "mask_format": cfg.INPUT.MASK_FORMAT,
        "short_side_range_px": tuple(cfg.INPUT.MIN_SIZE_TRAIN),
        "max_side_px": cfg.INPUT.MAX_SIZE_TRAIN,
        "color_jitter": cfg.INPUT.COLOR_JITTER,
        "cache_bytes": cache_bytes,
    }
    if project.task == "instance":
        return TrainingSamples(dicts, **options)
    return PanopticSamples(dicts, center_targets=center_targets(cfg), **options)
