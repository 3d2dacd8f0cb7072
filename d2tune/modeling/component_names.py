"""Which values the keys of a config may have that name a component of Detectron2."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode

from d2tune.errors import ProjectError
from d2tune.modeling.components import registered_names
from d2tune.text import nearest_hint

_REGISTRIES = {
    "MODEL.BACKBONE.NAME": "backbone.build.BACKBONE_REGISTRY",
    "MODEL.PROPOSAL_GENERATOR.NAME": "proposal_generator.build.PROPOSAL_GENERATOR_REGISTRY",
    "MODEL.ANCHOR_GENERATOR.NAME": "anchor_generator.ANCHOR_GENERATOR_REGISTRY",
    "MODEL.RPN.HEAD_NAME": "proposal_generator.rpn.RPN_HEAD_REGISTRY",
    "MODEL.ROI_HEADS.NAME": "roi_heads.roi_heads.ROI_HEADS_REGISTRY",
    "MODEL.ROI_BOX_HEAD.NAME": "roi_heads.box_head.ROI_BOX_HEAD_REGISTRY",
    "MODEL.ROI_MASK_HEAD.NAME": "roi_heads.mask_head.ROI_MASK_HEAD_REGISTRY",
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "roi_heads.keypoint_head.ROI_KEYPOINT_HEAD_REGISTRY",
    "MODEL.SEM_SEG_HEAD.NAME": "meta_arch.semantic_seg.SEM_SEG_HEADS_REGISTRY",
}
"""The registry of ``detectron2.modeling`` in which the value of a key is looked up."""

_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
_POOLERS = ("", "ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated")
_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.FEATURES.NORM": ("frozen", "trainable"),
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
    "MODEL.SEM_SEG_HEAD.NORM": _NORMS,
    "MODEL.INS_EMBED_HEAD.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": ("cross_entropy", "hard_pixel_mining"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupCosineLR", "WarmupMultiStepLR"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
    "INPUT.FORMAT": ("RGB", "BGR"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
}
"""The values that a key may have."""


def check_components(cfg: CfgNode, keys: Iterable[str]) -> None:
    """Check that the components that keys name exist.

    Args:
        cfg: A whole config.
        keys: The keys that a person has set.

    Raises:
        ProjectError: One does not exist; names the most similar one.
    """
    for key in keys:
        value: Any = cfg
        for name in key.split("."):
            value = value[name]
        if key in _REGISTRIES:
            module, _, registry = _REGISTRIES[key].rpartition(".")
            entries = getattr(importlib.import_module(f"detectron2.modeling.{module}"), registry)
            names = sorted(name for name, _ in entries)
            known: tuple[Any, ...] = (*names, *registered_names())
            valid = ", ".join(names)
        elif key in _CHOICES:
            known = _CHOICES[key]
            valid = ", ".join(map(repr, known))
        else:
            continue
        given = value.upper() if key == "SOLVER.OPTIMIZER" and isinstance(value, str) else value
        if given not in known:
            hint = nearest_hint(str(value), map(str, known), otherwise="See the config reference of Detectron2.")
            raise ProjectError("the value is unknown", place=key, found=repr(value), expected=valid, hint=hint)
