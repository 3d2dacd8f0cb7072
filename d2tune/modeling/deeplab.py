"""The backbone of DeepLab for images of any size."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.projects.deeplab import build_resnet_deeplab_backbone
from torch import Tensor

SIZE_DIVISIBILITY_PX = 32
"""Multiple to which the sides of images are padded."""


class PaddedBackbone(Backbone):  # type: ignore[misc]  # Detectron2 has no types
    """A backbone whose images are padded to a multiple of 32 px, so that features can be scaled back exactly.

    Args:
        bottom_up: The backbone, under the same attribute as in an FPN, so that weights have the same names.
    """

    def __init__(self, bottom_up: Backbone) -> None:
        super().__init__()
        self.bottom_up = bottom_up

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images ``(N, C, H, W)``, by name."""
        features: dict[str, Tensor] = self.bottom_up(x)
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        shapes: dict[str, ShapeSpec] = self.bottom_up.output_shape()
        return shapes

    @property
    def size_divisibility(self) -> int:
        """Multiple to which the sides of images are padded, in pixels."""
        return SIZE_DIVISIBILITY_PX


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_padded_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PaddedBackbone:
    """Detectron2's ``build_resnet_deeplab_backbone``, with padding."""
    return PaddedBackbone(build_resnet_deeplab_backbone(cfg, input_shape))
