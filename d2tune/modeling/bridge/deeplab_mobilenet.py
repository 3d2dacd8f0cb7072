"""DeepLabV3 on MobileNetV2 as in TensorFlow's model zoo for Pascal VOC: image pooling and a 1 x 1 branch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from d2tune.modeling.bridge.padding import mirror_pad

STRIDE = 16


class DeepLabV3MobileNetV2(nn.Module):
    """The head of Sandler et al. (MobileNetV2, CVPR 2018, section 6.3): DeepLabV3 without its dilated branches.

    ``features`` are the first 18 of torchvision's ``mobilenet_v2`` with dilation instead of the last stride, so that
    the output stride is 16. The original uses TensorFlow's padding and aligns the corners of its coarse logits with
    the corners of the image. In PyTorch both give the same result for sides of 16 k + 1 px, so images are padded to
    such a size by mirroring at their right and lower edges.

    Args:
        in_channels: Channels of the images.
        classes: Channels of the logits.
    """

    def __init__(self, *, in_channels: int, classes: int) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features[:18]
        if in_channels != 3:
            self.features[0][0] = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.features[14].conv[1][0].stride = (1, 1)
        for block in self.features[15:]:
            depthwise = block.conv[1][0]
            depthwise.dilation = depthwise.padding = (2, 2)
        self.aspp0 = nn.Conv2d(320, 256, 1)
        self.image_pooling = nn.Conv2d(320, 256, 1)
        self.concat_projection = nn.Conv2d(512, 256, 1)
        self.logits = nn.Conv2d(256, classes, 1)
        for layer in (self.aspp0, self.image_pooling, self.concat_projection):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K, h, w)`` of images ``(N, C, h, w)``."""
        height_px, width_px = x.shape[-2:]
        x = mirror_pad(x, height_px=_aligned_px(height_px), width_px=_aligned_px(width_px))
        features = self.features(x)
        local = F.relu(self.aspp0(features))
        pooled = F.relu(self.image_pooling(features.mean((2, 3), keepdim=True))).expand_as(local)
        coarse = self.logits(F.relu(self.concat_projection(torch.cat([pooled, local], 1))))
        fine = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=True)
        return fine[..., :height_px, :width_px]


def _aligned_px(side_px: int) -> int:
    """The smallest side of 16 k + 1 px that holds a side, without a choice in Python, so that it can be traced."""
    return side_px + (1 - side_px) % STRIDE + STRIDE * (side_px < 2)
