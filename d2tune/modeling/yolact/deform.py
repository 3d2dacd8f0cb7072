"""YOLACT++'s deformable convolutions in a ResNet (Zhu et al., Deformable ConvNets v2, arXiv:1811.11168)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
            is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            convolution = sampled_conv2d if is_traced else deform_conv2d  # ONNX lacks torchvision's
            output: Tensor = convolution(given, offsets, kernel, bias, mask=weights, **self._geometry)
        return output.to(moved.dtype)


def sampled_conv2d(
    x: Tensor,
    offsets: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    mask: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """What ``torchvision.ops.deform_conv2d`` computes, of operations that all formats of exports have.

    Args:
        x: ``(N, in, H, W)``.
        offsets: ``(N, 18, h, w)``, y and x of each of the nine samples in pixels.
        kernel: ``(out, in, 3, 3)``.
        bias: ``(out,)``.
        mask: Weights of the samples ``(N, 9, h, w)``.
        stride: Rows and columns of ``x`` for one of the output.
        padding: Rows and columns of zeros on each side.
        dilation: Rows and columns between the samples.

    Returns:
        ``(N, out, h, w)``.
    """
    count, channels, height, width = x.shape
    rows, columns = offsets.shape[-2:]
    taps = torch.arange(9, device=x.device).view(1, 9, 1, 1)
    down = torch.arange(rows, device=x.device).view(1, 1, -1, 1) * stride[0] - padding[0]
    across = torch.arange(columns, device=x.device).view(1, 1, 1, -1) * stride[1] - padding[1]
    y = down + torch.div(taps, 3, rounding_mode="floor") * dilation[0] + offsets[:, 0::2]
    x_ = across + taps % 3 * dilation[1] + offsets[:, 1::2]
    places = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    samples = F.grid_sample(x, places.reshape(count, 9 * rows, columns, 2), align_corners=False)
    weighted = samples.reshape(count, channels, 9, rows, columns) * mask[:, None]
    output = kernel.flatten(1) @ weighted.reshape(count, 9 * channels, rows * columns)
    return output.reshape(count, -1, rows, columns) + bias[:, None, None]


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
