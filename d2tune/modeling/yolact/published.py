"""The names of YOLACT's published weights (github.com/dbolya/yolact) in d2tune's model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from d2tune.modeling.weights import check_names

_SIGN = "prediction_layers.0.bbox_layer.weight"
"""A name that all published weights of YOLACT have."""

_DROPPED = (r"^backbone\.layer\d", r"^fpn\.downsample_layers\.([2-9]|\d\d)\.")
"""Copies of other tensors, and levels of the pyramid that nothing uses, in older files."""

_HEADS = {
    "upfeature.0": "tower",
    "bbox_layer": "boxes",
    "conf_layer": "classes",
    "mask_layer": "coefficients",
}
_PROTONET = {"0": "before.0", "2": "before.1", "4": "before.2", "8": "after", "10": "prototypes"}


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of published weights."""
    return _SIGN in state


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights by d2tune's names; tensors that the published model itself does not use are ignored.

    The lists of the published pyramid begin with the coarsest level, d2tune's with the finest.

    Args:
        state: The tensors of a published file.
    """
    return {_renamed(key): value for key, value in state.items() if not _is_dropped(key)}


def check_published(state: Mapping[str, Tensor], expected: Iterable[str], *, file: Path) -> None:
    """Check that a published file has all tensors of the model, and no others, so that none is lost unnoticed.

    Args:
        state: The tensors of the file.
        expected: Names of the model.
        file: The file.

    Raises:
        WeightsError: A name is left over, or missing.
    """
    names = {key: _renamed(key) for key in state if not _is_dropped(key)}
    preset = "yolact_plus_r50" if any("conv_offset_mask" in key for key in state) else "yolact_r50 or yolact_r101"
    hint = f"Use the published file as it is, with the preset of its network (by its names {preset})."
    check_names(names, expected, file=file, network="YOLACT", hint=hint)


def _is_dropped(key: str) -> bool:
    return any(re.match(one, key) for one in _DROPPED)


def _renamed(key: str) -> str:
    key = re.sub(r"^backbone\.layers\.(\d)\.", lambda hit: f"backbone.bottom_up.body.layer{int(hit[1]) + 1}.", key)
    key = re.sub(r"^backbone\.(conv1|bn1)\.", r"backbone.bottom_up.body.\1.", key)
    key = re.sub(r"^fpn\.lat_layers\.(\d)\.", lambda hit: f"backbone.lateral.{2 - int(hit[1])}.", key)
    key = re.sub(r"^fpn\.pred_layers\.(\d)\.", lambda hit: f"backbone.output.{2 - int(hit[1])}.", key)
    key = re.sub(r"^fpn\.downsample_layers\.(\d)\.", r"backbone.further.\1.", key)
    key = re.sub(r"^proto_net\.(\d+)\.", lambda hit: f"protonet.{_PROTONET.get(hit[1], hit[1])}.", key)
    key = re.sub(r"^semantic_seg_conv\.", "semantic.", key)
    key = re.sub(r"^maskiou_net\.maskiou_net\.(\d+)\.", lambda hit: f"rescoring.layers.{int(hit[1]) // 2}.", key)
    for old, new in _HEADS.items():
        key = key.replace(f"prediction_layers.0.{old}.", f"head.{new}.")
    return key
