"""From a project to Detectron2's config: everything that a person need not say is derived here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.point_rend import add_pointrend_config

from d2tune.errors import ProjectError, RunError, nearest
from d2tune.project import PRESETS_FOLDER, Project, flatten

REFERENCE_BATCH = 16
"""The batch size that a preset's ``SOLVER.BASE_LR`` is meant for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What the config must know of the data.

    Attributes:
        class_names: In the order of their ids.
        train_images: Number of training images.
        has_rle: Whether any instance is a run-length mask.
        train_name: Name in Detectron2's ``DatasetCatalog``.
        val_name: Likewise for validation.
    """

    class_names: tuple[str, ...]
    train_images: int
    has_rle: bool
    train_name: str
    val_name: str


def add_d2tune_config(cfg: CfgNode) -> None:
    """Add the keys that d2tune has beyond Detectron2's and PointRend's."""
    cfg.MODEL.FEATURES = CfgNode()
    # torchvision/NAME or timm/NAME, used by build_feature_fpn_backbone
    cfg.MODEL.FEATURES.NAME = ""
    # frozen or trainable
    cfg.MODEL.FEATURES.NORM = "frozen"
    # SGD or ADAMW
    cfg.SOLVER.OPTIMIZER = "SGD"
    # decay of the moving average of the weights that is evaluated and kept; 0 turns it off
    cfg.SOLVER.EMA_DECAY = 0.0
    # share of training images whose brightness, contrast and saturation are varied
    cfg.INPUT.COLOR_JITTER = 0.5


def preset_config(preset: str) -> CfgNode:
    """Detectron2's defaults with the preset's file laid over them."""
    cfg = get_cfg()
    add_pointrend_config(cfg)
    add_d2tune_config(cfg)
    cfg.merge_from_file(str(PRESETS_FOLDER / f"{preset}.yaml"), allow_unsafe=False)
    return cfg


def read_config(path: Path) -> CfgNode:
    """The config that a run wrote.

    Raises:
        RunError: It is missing or damaged.
    """
    cfg = get_cfg()
    add_pointrend_config(cfg)
    add_d2tune_config(cfg)
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise RunError(f"the run's config cannot be read: {error}", file=path) from error
    return cfg


DERIVED = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "It follows from classes.",
    "MODEL.POINT_HEAD.NUM_CLASSES": "It follows from classes.",
    "MODEL.MASK_ON": "The task is instance segmentation.",
    "DATASETS.TRAIN": "Set data.train.",
    "DATASETS.TEST": "Set data.val.",
    "INPUT.MIN_SIZE_TRAIN": "Set train.image_size and train.scale_jitter.",
    "INPUT.MAX_SIZE_TRAIN": "Set train.image_size and train.scale_jitter.",
    "INPUT.MIN_SIZE_TEST": "Set train.image_size.",
    "INPUT.RANDOM_FLIP": "Training images are flipped horizontally.",
    "INPUT.CROP.ENABLED": "Set train.scale_jitter.",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "Images without instances are kept as negatives.",
    "SOLVER.AMP.ENABLED": "Set train.precision.",
    "SOLVER.CHECKPOINT_PERIOD": "A checkpoint to resume from is written ten times in a run.",
    "SOLVER.STEPS": "The learning rate follows a cosine.",
    "OUTPUT_DIR": "Use --output-dir.",
}
"""Raw keys that would be ignored or contradict what is derived, and what to do instead."""


def project_config(
    project: Project,
    facts: DataFacts,
    *,
    scratch: bool,
    device: str,
    rgb_resnet: bool = False,
) -> CfgNode:
    """The whole config of a run, frozen.

    Args:
        project: What the person asked for.
        facts: What the data say.
        scratch: Whether nothing pretrained is loaded; norms then learn and warm-up is longer.
        device: ``cpu`` or ``cuda``.
        rgb_resnet: Whether the weights are torchvision's or timm's for one of Detectron2's own ResNets, which
            then must stride and scale its input as they do.

    Raises:
        ProjectError: A raw key does not exist or has a value of another type.
    """
    cfg = preset_config(project.model.preset)
    cfg.MODEL.DEVICE = device
    _set_data(cfg, facts)
    _set_input(cfg, project)
    _set_backbone(cfg, project, scratch=scratch)
    if rgb_resnet:
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        _set_imagenet_rgb(cfg)
    _set_schedule(cfg, project, facts, scratch=scratch)
    _set_raw(cfg, project.detectron2)
    cfg.freeze()
    return cfg


def _set_data(cfg: CfgNode, facts: DataFacts) -> None:
    classes = len(facts.class_names)
    cfg.DATASETS.TRAIN = (facts.train_name,)
    cfg.DATASETS.TEST = (facts.val_name,)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = classes
    if facts.has_rle:
        cfg.INPUT.MASK_FORMAT = "bitmask"


def _set_input(cfg: CfgNode, project: Project) -> None:
    size = project.train.image_size
    low, high = project.train.scale_jitter
    longest = round(size * 5 / 3)
    cfg.INPUT.MIN_SIZE_TRAIN = (round(size * low), round(size * high))
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MAX_SIZE_TRAIN = round(longest * high)
    cfg.INPUT.MIN_SIZE_TEST = size
    cfg.INPUT.MAX_SIZE_TEST = longest


def _set_backbone(cfg: CfgNode, project: Project, *, scratch: bool) -> None:
    if project.model.backbone is not None:
        cfg.MODEL.BACKBONE.NAME = "build_feature_fpn_backbone"
        cfg.MODEL.FEATURES.NAME = project.model.backbone
        cfg.MODEL.FPN.IN_FEATURES = ["stride4", "stride8", "stride16", "stride32"]
        cfg.MODEL.FPN.NORM = "GN"
        _set_imagenet_rgb(cfg)
        _set_timm_scaling(cfg, project.model.backbone)
    if cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON:
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.FPN.OUT_CHANNELS
    norm = project.model.norm
    trainable = norm == "trainable" or (norm == "auto" and scratch)
    cfg.MODEL.FEATURES.NORM = "trainable" if trainable else "frozen"
    if trainable:
        cfg.MODEL.RESNETS.NORM = "BN"
    if scratch:
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        cfg.MODEL.FPN.NORM = "GN"


def _set_imagenet_rgb(cfg: CfgNode) -> None:
    """The input scaling of torchvision's ImageNet weights."""
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]


def _set_timm_scaling(cfg: CfgNode, backbone: str) -> None:
    """The mean and deviation that timm's weights of this network were trained with."""
    library, _, name = backbone.partition("/")
    if library != "timm":
        return
    import timm

    pretrained = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if pretrained is not None:
        cfg.MODEL.PIXEL_MEAN = [255 * float(value) for value in pretrained.mean]
        cfg.MODEL.PIXEL_STD = [255 * float(value) for value in pretrained.std]


def _set_schedule(cfg: CfgNode, project: Project, facts: DataFacts, *, scratch: bool) -> None:
    train = project.train
    iterations = planned_iterations(project, facts.train_images)
    share = train.batch_size / REFERENCE_BATCH
    adaptive = cfg.SOLVER.OPTIMIZER == "ADAMW"
    scale = math.sqrt(share) if adaptive else share
    cfg.SOLVER.IMS_PER_BATCH = train.batch_size
    cfg.SOLVER.BASE_LR = cfg.SOLVER.BASE_LR * scale if train.learning_rate == "auto" else train.learning_rate
    cfg.SOLVER.MAX_ITER = iterations
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.WARMUP_ITERS = min(1000, max(1, iterations // (8 if scratch else 20)))
    cfg.SOLVER.WARMUP_FACTOR = 0.01
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 5.0
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
    cfg.SEED = train.seed


def planned_iterations(project: Project, train_images: int) -> int:
    """Optimiser steps: as said, or from the epochs, or enough for about 12,000 images seen and 20 epochs."""
    train = project.train
    if train.iterations is not None:
        return train.iterations
    per_epoch = train_images / train.batch_size
    if train.epochs is not None:
        return max(1, round(train.epochs * per_epoch))
    return max(1, round(max(20 * per_epoch, 12000 / train.batch_size)))


def _set_raw(cfg: CfgNode, raw: Mapping[str, Any]) -> None:
    known = flatten(cfg)
    for key, value in raw.items():
        if key == "MODEL.DEVICE":
            continue  # decided before, for the whole run
        if key in DERIVED:
            raise ProjectError(f"{key} is not set by hand", place=key, found=repr(value), hint=DERIVED[key])
        if key not in known:
            like = nearest(key, known)
            raise ProjectError(
                f"Detectron2 has no key {key!r}", place=key, hint=f"Did you mean {like!r}?" if like else None
            )
        if isinstance(known[key], float) and isinstance(value, int):
            value = float(value)
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError) as error:
            raise ProjectError(
                "wrong type of value", place=key, found=repr(value), expected=type(known[key]).__name__
            ) from error
