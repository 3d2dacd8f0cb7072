"""The backbones of SiamMask: features of stride 8 with the finer ones that masks are refined with."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

EXEMPLAR_PX, SEARCH_PX, STRIDE = 127, 255, 8
"""Sides of the two inputs, and pixels of the input for a step of the features."""

FINE = ("fine2", "fine4", "fine8")
"""Names of the fine features, by their strides."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the heads must know of a backbone.

    Attributes:
        fine_channels: Channels of the features of strides 2, 4 and 8 before the last ones.
        fine_sides: Side of what belongs to an exemplar in each of them.
        channels: Channels of the last features.
        crop: First and last row, exclusive, of an exemplar's features that the object is in.
    """

    fine_channels: tuple[int, int, int]
    fine_sides: tuple[int, int, int]
    channels: int
    crop: tuple[int, int]


class Bottleneck(nn.Module):
    """A residual block, with torchvision's names.

    Args:
        channels: Of its input.
        width: A quarter of the channels of its output.
        stride: Of its 3 x 3 convolution, which then is not padded.
        dilation: Of its 3 x 3 convolution.
        downsample: What the input passes on the other way; None for nothing.
    """

    def __init__(
        self, channels: int, width: int, *, stride: int = 1, dilation: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        padding = dilation if dilation > 1 else 2 - stride
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=padding, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The features ``(N, 4 * width, h, w)`` of ``(N, channels, H, W)``."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return result


class ResNet50Body(nn.Sequential):
    """The paper's ResNet-50 up to its third stage: no padding at the strides, and 3 x 3 shortcuts in the last two."""

    shapes = Shapes((64, 256, 512), (61, 31, 15), 1024, (4, 11))

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, 64, 7, stride=2, bias=False),
                bn1=nn.BatchNorm2d(64),
                relu=nn.ReLU(inplace=True),
                maxpool=nn.MaxPool2d(3, stride=2, padding=1),
                layer1=_stage(64, 64, 3, _shortcut(64, 256, 1)),
                layer2=_stage(256, 128, 4, _shortcut(256, 512, 3, stride=2), stride=2),
                layer3=_stage(512, 256, 6, _shortcut(512, 1024, 3, padding=1), dilation=2),
            )
        )

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The fine features and the last ones; see `Shapes`."""
        fine = []
        for name, module in self.named_children():
            x = module(x)
            if name in ("relu", "layer1", "layer2"):
                fine.append(x)
        return fine, x


def _shortcut(channels: int, out_channels: int, side: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out_channels, side, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _stage(
    channels: int, width: int, blocks: int, shortcut: nn.Module, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A stage of blocks; the dilation of the first is half of that of the others."""
    first = Bottleneck(channels, width, stride=stride, dilation=max(1, dilation // 2), downsample=shortcut)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, dilation=dilation) for _ in range(blocks - 1)))


class MobileNetV2Body(nn.Sequential):
    """torchvision's MobileNetV2 up to its features of 96 channels, with a stride of 8 by dilation."""

    shapes = Shapes((16, 24, 32), (64, 32, 16), 96, (4, 12))
    _TAPS = (1, 3, 6)
    _FIRST_DILATED = 7

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2

        blocks = list(mobilenet_v2(weights=None).features[:14])
        for number, block in enumerate(blocks[self._FIRST_DILATED :]):
            depthwise = block.conv[1][0]
            dilation = 2 if number else 1
            depthwise.stride, depthwise.dilation, depthwise.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
        super().__init__(OrderedDict((f"features_{number}", block) for number, block in enumerate(blocks)))

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The fine features and the last ones; see `Shapes`."""
        fine = []
        for number, block in enumerate(self):
            x = block(x)
            if number in self._TAPS:
                fine.append(x)
        return fine, x


BODIES: dict[str, type[ResNet50Body] | type[MobileNetV2Body]] = {
    "resnet50": ResNet50Body,
    "mobilenet_v2": MobileNetV2Body,
}
"""The backbones by the name in ``MODEL.SIAMMASK.BACKBONE``."""


class BottomUp(nn.Module):
    """A body below the name that files of pretrained weights are read for."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


class SiamBackbone(nn.Module):
    """A body, and the convolution after it that adjusts its channels.

    Args:
        name: A key of `BODIES`.
        channels: Of its last features.
        freeze_norm: Whether the norms of the body are frozen.
        freeze_blocks: How many of the first modules of the body are not trained.
    """

    size_divisibility = 1

    def __init__(self, name: str, channels: int, *, freeze_norm: bool, freeze_blocks: int) -> None:
        super().__init__()
        body = BODIES[name]()
        self.shapes = body.shapes
        if freeze_norm:
            FrozenBatchNorm2d.convert_frozen_batchnorm(body)
        for module in list(body.children())[:freeze_blocks]:
            module.requires_grad_(False)
        self.bottom_up = BottomUp(body)
        self.bottom_up.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.adjust = nn.Sequential(nn.Conv2d(self.shapes.channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images ``(N, 3, S, S)``: the ``fine`` ones of strides 2, 4 and 8, and the ``last``."""
        body: Any = self.bottom_up.body
        fine, last = body.features(images.contiguous(memory_format=torch.channels_last))
        return {**dict(zip(FINE, fine, strict=True)), "last": self.adjust(last)}

    def exemplar(self, images: Tensor) -> Tensor:
        """The features of the object in exemplars ``(N, 3, 127, 127)``, without their margin."""
        first, end = self.shapes.crop
        features: Tensor = self(images)["last"][:, :, first:end, first:end]
        return features
