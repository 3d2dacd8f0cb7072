"""The original U-Net (Ronneberger, Fischer and Brox, MICCAI 2015, arXiv:1505.04597)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from d2tune.modeling.bridge.padding import mirror_pad

LEVELS = 4
"""Number of times that the contracting path halves the image."""

VALID_MARGIN_PX = 92
"""Pixels that unpadded convolutions remove from each side: 572 px become 388."""


def valid_output_px(input_px: int) -> int | None:
    """Side of the output of unpadded convolutions; None if pooling would get an odd side."""
    side = input_px
    for _ in range(LEVELS):
        side -= 4
        if side <= 0 or side % 2:
            return None
        side //= 2
    side -= 4
    for _ in range(LEVELS):
        side = 2 * side - 4
    return side if side > 0 else None


def valid_input_px(output_px: int) -> int:
    """The smallest valid input side whose output covers ``output_px``; valid sides are 16 k + 12."""
    covered = output_px + (4 - output_px) % 16
    return covered + 2 * VALID_MARGIN_PX


class UNet2015(nn.Module):
    """The network of the paper: two 3 x 3 convolutions per level, 2 x 2 max pooling, 2 x 2 up-convolutions, skips.

    The weights are initialized as in the paper (section 3, after He et al.), with its dropout at the end of the
    contracting path. Batch norm after each convolution is not in the paper; it makes training from scratch more stable.

    Args:
        in_channels: Channels of the images.
        classes: Channels of the logits.
        padding: ``same`` keeps the size, which must be a multiple of 16; with ``valid``, convolutions are unpadded and
            the image is padded by mirroring so that the logits cover it (the paper's overlap-tile strategy).
        norm: Whether batch norms follow the convolutions.
        width: Channels of the first level, 64 in the paper; each level below has twice the channels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        padding: Literal["same", "valid"] = "same",
        norm: bool = True,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.padding = padding
        widths = [width << level for level in range(LEVELS + 1)]
        entries = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(
            _double(before, after, padding, norm) for before, after in zip(entries, widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.5)
        upwards = list(reversed(widths))
        pairs = list(pairwise(upwards))
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, stride=2) for before, after in pairs)
        self.merge = nn.ModuleList(_double(before, after, padding, norm) for before, after in pairs)
        self.head = nn.Conv2d(width, classes, 1)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K, h, w)`` of images ``(N, C, h, w)``."""
        if self.padding == "same":
            return self.convolve(x)
        height_px, width_px = x.shape[-2:]
        padded = mirror_pad(
            x,
            top_px=VALID_MARGIN_PX,
            left_px=VALID_MARGIN_PX,
            height_px=valid_input_px(height_px),
            width_px=valid_input_px(width_px),
        )
        return self.convolve(padded)[..., :height_px, :width_px]

    def convolve(self, x: Tensor) -> Tensor:
        """Run the network without mirroring: with ``valid``, ``(N, 1, 572, 572)`` gives ``(N, K, 388, 388)``."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            if level >= LEVELS - 1:
                x = self.dropout(x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = up(x)
            x = merge(torch.cat([_center(skip, x), x], 1))
        logits: Tensor = self.head(x)
        return logits


def _double(before: int, after: int, padding: str, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entry in (before, after):
        layers.append(nn.Conv2d(entry, after, 3, padding=padding, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _center(skip: Tensor, like: Tensor) -> Tensor:
    """The center of ``skip`` with the size of ``like``."""
    top_px = (skip.shape[-2] - like.shape[-2]) // 2
    left_px = (skip.shape[-1] - like.shape[-1]) // 2
    return skip[..., top_px : top_px + like.shape[-2], left_px : left_px + like.shape[-1]]
