"""YOLACT's feature pyramid: levels p3 to p7, upsampled bilinearly, so that images of all sizes fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from d2tune.modeling.backbone import FeatureBackbone
from d2tune.modeling.yolact.deform import make_deformable

_INPUTS = ("stride8", "stride16", "stride32")
LEVELS = ("p3", "p4", "p5", "p6", "p7")


class YolactFPN(Backbone):  # type: ignore[misc]  # Detectron2 has no types
    """Lin et al.'s pyramid as YOLACT has it: a ReLU after each output, and two further levels of stride 2.

    Args:
        bottom_up: A backbone with features of strides 8, 16 and 32.
        out_channels: Channels of each level.
        norm: Norm of the convolutions from p3 to p5, by Detectron2's name; empty for none, as in the paper.
        size_divisibility: Sides of images are padded to multiples of this, in pixels.
    """

    def __init__(self, bottom_up: Backbone, *, out_channels: int, norm: str, size_divisibility: int) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()

        def convolution(in_channels: int, side: int) -> Conv2d:
            own = get_norm(norm, out_channels)
            return Conv2d(in_channels, out_channels, side, padding=side // 2, bias=own is None, norm=own)

        self.lateral = nn.ModuleList(convolution(shapes[name].channels, 1) for name in _INPUTS)
        self.output = nn.ModuleList(convolution(out_channels, 3) for _ in _INPUTS)
        self.further = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) for _ in range(2))
        self._out_features = list(LEVELS)
        self._out_feature_strides = {name: 8 * 2**level for level, name in enumerate(LEVELS)}
        self._out_feature_channels = dict.fromkeys(LEVELS, out_channels)
        self._size_divisibility = size_divisibility
        for layer in (*self.lateral, *self.output, *self.further):
            assert isinstance(layer, nn.Conv2d)
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    @property
    def size_divisibility(self) -> int:
        """Multiple to which the sides of images are padded, in pixels."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The levels ``(N, C, h, w)`` of images ``(N, 3, H, W)`` by name."""
        features = self.bottom_up(x)
        merged: list[Tensor] = []
        for lateral, name in reversed(list(zip(self.lateral, _INPUTS, strict=True))):
            own = lateral(features[name])
            if merged:
                own = own + F.interpolate(merged[-1], own.shape[-2:], mode="bilinear", align_corners=False)
            merged.append(own)
        levels = [F.relu(layer(level)) for layer, level in zip(self.output, reversed(merged), strict=True)]
        for layer in self.further:
            levels.append(layer(levels[-1]))
        return dict(zip(LEVELS, levels, strict=True))


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_yolact_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> YolactFPN:
    """A `YolactFPN` on ``MODEL.FEATURES.NAME``."""
    bottom_up = FeatureBackbone(
        cfg.MODEL.FEATURES.NAME,
        freeze_norm=cfg.MODEL.FEATURES.NORM == "frozen",
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    if cfg.MODEL.YOLACT.DEFORM_EVERY:
        make_deformable(bottom_up.body, every=cfg.MODEL.YOLACT.DEFORM_EVERY)
    return YolactFPN(
        bottom_up,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        size_divisibility=cfg.MODEL.YOLACT.SIZE_DIVISIBILITY,
    )


def level_sizes(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Height and width of each level."""
    return [(level.shape[-2], level.shape[-1]) for level in levels]
