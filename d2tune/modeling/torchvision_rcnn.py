"""torchvision's ``maskrcnn_resnet50_fpn_v2`` as a model of Detectron2: the names of its tensors.

Both networks compute the same, but for what the preset ``mask_rcnn_r50_fpn_v2`` sets: boxes are not shifted by half a
pixel in RoIAlign, the stride of a block is in its 3 x 3 convolution, anchors have whole pixels, and images are RGB.
torchvision's class 0 is the background, which is Detectron2's last one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor, nn

from d2tune.errors import WeightsError

_COCO_ROWS = 91
"""Classes of torchvision's files for COCO: the ids of COCO, of which 10 are not used, and the background."""

_MARKS = ("backbone.body.conv1.weight", "rpn.head.conv.1.0.weight", "roi_heads.mask_predictor.mask_fcn_logits.weight")


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of torchvision's second version of Mask R-CNN."""
    return all(name in state for name in _MARKS)


def check_network(model: nn.Module, *, file: Path) -> None:
    """Check that a network is the one of the preset, whose differences the names and shapes of tensors do not show.

    Raises:
        WeightsError: It is another network of Detectron2.
    """
    generator = getattr(getattr(model, "proposal_generator", None), "anchor_generator", None)
    if type(generator).__name__ != "WholePixelAnchors":
        raise WeightsError(
            "these are the weights of torchvision's maskrcnn_resnet50_fpn_v2",
            file=file,
            hint="Set model.preset: mask_rcnn_r50_fpn_v2.",
        )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under Detectron2's names, with its order of classes.

    A file with the 91 rows of COCO's ids becomes one of COCO's 80 classes; rows of other files keep their order after
    the background, which is moved to the end.

    Args:
        state: Tensors for which `is_published` holds.

    Raises:
        WeightsError: A tensor has no place.
    """
    rows = len(state["roi_heads.box_predictor.cls_score.weight"])
    coco = [int(category["id"]) for category in COCO_CATEGORIES if category["isthing"]]
    things = torch.tensor(coco if rows == _COCO_ROWS else list(range(1, rows)))
    result = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        result[_name(name)] = _classes(name, value, things)
    return result


def _classes(name: str, value: Tensor, things: Tensor) -> Tensor:
    """The rows of a predictor in Detectron2's order of classes; other tensors as they are."""
    if "box_predictor.cls_score" in name:
        return value[torch.cat([things, torch.zeros(1, dtype=things.dtype)])]
    if "box_predictor.bbox_pred" in name:
        return value.reshape(-1, 4, *value.shape[1:])[things].flatten(0, 1)
    return value[things] if "mask_fcn_logits" in name else value


_Change = Callable[[re.Match[str]], str]

_RULES: tuple[tuple[str, str | _Change], ...] = (
    (r"^backbone\.body\.(conv1|bn1)\.", r"backbone.bottom_up.stem.\1."),
    (r"^backbone\.body\.layer(\d)\.", lambda hit: f"backbone.bottom_up.res{int(hit[1]) + 1}."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.0\.", lambda hit: f"backbone.fpn_lateral{int(hit[1]) + 2}."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.1\.", lambda hit: f"backbone.fpn_lateral{int(hit[1]) + 2}.norm."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.0\.", lambda hit: f"backbone.fpn_output{int(hit[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.1\.", lambda hit: f"backbone.fpn_output{int(hit[1]) + 2}.norm."),
    (r"(\.bottom_up\..*)\bbn(\d)\.", r"\1conv\2.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"proposal_generator.rpn_head.conv.conv\1."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.([0-3])\.0\.", lambda hit: f"roi_heads.box_head.conv{int(hit[1]) + 1}."),
    (r"^roi_heads\.box_head\.([0-3])\.1\.", lambda hit: f"roi_heads.box_head.conv{int(hit[1]) + 1}.norm."),
    (r"^roi_heads\.box_head\.5\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda hit: f"roi_heads.mask_head.mask_fcn{int(hit[1]) + 1}."),
    (r"^roi_heads\.mask_head\.(\d)\.1\.", lambda hit: f"roi_heads.mask_head.mask_fcn{int(hit[1]) + 1}.norm."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_heads.mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_heads.mask_head.predictor."),
)
"""Beginnings of torchvision's names, and what Detectron2 calls them."""

_OWN = (
    "backbone.bottom_up.",
    "backbone.fpn_",
    "proposal_generator.",
    "roi_heads.box_head.",
    "roi_heads.box_predictor.",
)
_OWN_MASKS = ("roi_heads.mask_head.mask_fcn", "roi_heads.mask_head.deconv.", "roi_heads.mask_head.predictor.")


def _name(name: str) -> str:
    """Detectron2's name of a tensor of torchvision."""
    changed = name
    for pattern, new in _RULES:
        changed = re.sub(pattern, new, changed)
    if not changed.startswith((*_OWN, *_OWN_MASKS)):
        hint = "It must be a file of torchvision's maskrcnn_resnet50_fpn_v2."
        raise WeightsError("a tensor has no place in Detectron2's network", place=name, hint=hint)
    return changed
