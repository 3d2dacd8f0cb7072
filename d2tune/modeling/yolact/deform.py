"""YOLACT++'s deformable convolutions in a ResNet (Zhu et al., Deformable ConvNets v2, arXiv:1811.11168)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class ModulatedConv2d(nn.Module):
    """A 3 x 3 convolution whose nine samples are moved and weighted, with the names of YOLACT++'s weights.

    At first nothing is moved and all weights are 1/2, as in the paper. It is computed in float32: torchvision has
    none in bfloat16 for processors, and positions need the precision.

    Args:
        like: The convolution that it replaces.
    """

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        geometry: Any = {"stride": like.stride, "padding": like.padding, "dilation": like.dilation}
        self._geometry = geometry
        self.weight = like.weight
        self.bias = nn.Parameter(torch.zeros(like.out_channels))
        self.conv_offset_mask = nn.Conv2d(like.in_channels, 27, 3, **geometry)
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, out, h, w)`` of ``(N, in, H, W)``."""
        moved = self.conv_offset_mask(x)
        with torch.autocast(x.device.type, enabled=False):
            given, offsets, weights = x.float(), moved[:, :18].float(), moved[:, 18:].float().sigmoid()
            kernel, bias = self.weight.float(), self.bias.float()
            output: Tensor = deform_conv2d(given, offsets, kernel, bias, mask=weights, **self._geometry)
        return output.to(moved.dtype)


def make_deformable(body: nn.Module, *, every: int) -> None:
    """Replace the 3 x 3 convolutions of a ResNet's last three stages, in the last block and every so many before it.

    Args:
        body: A ResNet of torchvision with bottleneck blocks.
        every: 1 for all blocks, as YOLACT++ has them on ResNet-50, 3 as on ResNet-101.
    """
    for stage in ("layer2", "layer3", "layer4"):
        blocks = list(getattr(body, stage))
        for place, block in enumerate(blocks):
            if place % every == 0:
                block.conv2 = ModulatedConv2d(block.conv2)
