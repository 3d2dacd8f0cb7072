"""DeepLab's backbone for images of any size."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.projects.deeplab import build_resnet_deeplab_backbone
from torch import Tensor

SIZE_DIVISIBILITY_PX = 32


class PaddedBackbone(Backbone):  # type: ignore[misc]  # Detectron2 has no types
    """A backbone whose images are padded to a multiple of 32 px, so that strided features scale back exactly.

    Args:
        bottom_up: The backbone; its weights are found under the name that an FPN gives its own.
    """

    def __init__(self, bottom_up: Backbone) -> None:
        super().__init__()
        self.bottom_up = bottom_up

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by name for a batch of images ``(N, C, H, W)``."""
        features: dict[str, Tensor] = self.bottom_up(x)
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        shapes: dict[str, ShapeSpec] = self.bottom_up.output_shape()
        return shapes

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this, in pixels."""
        return SIZE_DIVISIBILITY_PX


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_padded_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PaddedBackbone:
    """Detectron2's ``build_resnet_deeplab_backbone``, with padding."""
    return PaddedBackbone(build_resnet_deeplab_backbone(cfg, input_shape))
