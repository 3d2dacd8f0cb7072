"""The heads of SiamMask: correlation of the object with the search image, and masks refined with fine features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2tune.modeling.siammask.backbones import EXEMPLAR_PX, Shapes


def correlate(search: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each channel of each search image ``(N, C, H, W)`` with that of its kernel ``(N, C, h, w)``.

    Returns:
        ``(N, C, H - h + 1, W - w + 1)``.
    """
    count, channels = search.shape[:2]
    weights = kernels.reshape(count * channels, 1, *kernels.shape[-2:])
    result = F.conv2d(search.reshape(1, count * channels, *search.shape[-2:]), weights, groups=count * channels)
    return result.reshape(count, channels, *result.shape[-2:])


class Correlation(nn.Module):
    """A head: both features adapted, correlated by channel, and read off at each place.

    Args:
        channels: Of its input and of the correlation.
        out_channels: Of its output; 0 for no output but the correlation.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_kernel = _convolution(channels, 3)
        self.conv_search = _convolution(channels, 3)
        read = (*_convolution(channels, 1), nn.Conv2d(channels, out_channels, 1)) if out_channels else ()
        self.head = nn.Sequential(*read)

    def kernel(self, exemplar: Tensor) -> Tensor:
        """What the search image is correlated with, of the features of exemplars ``(N, C, s, s)``."""
        adapted: Tensor = self.conv_kernel(exemplar)
        return adapted

    def correlated(self, kernel: Tensor, search: Tensor) -> Tensor:
        """The correlation ``(N, C, 25, 25)``."""
        return correlate(self.conv_search(search), kernel)


def _convolution(channels: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, side, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class Refinement(nn.Module):
    """The mask of 127 x 127 px around a place, from its correlation and the fine features there.

    Args:
        channels: Of the correlation.
        shapes: Of the backbone.
        widths: Channels of the mask on its way from coarse to fine.
    """

    def __init__(self, channels: int, shapes: Shapes, widths: Sequence[int] = (32, 16, 4)) -> None:
        super().__init__()
        self.sides = (*reversed(shapes.fine_sides), EXEMPLAR_PX)
        coarse, middle, fine = widths
        inputs = shapes.fine_channels
        self.v0 = _pair(inputs[0], inputs[0] // 4, fine)
        self.v1 = _pair(inputs[1], inputs[1] // 4, middle)
        self.v2 = _pair(inputs[2], inputs[2] // 4, coarse)
        self.h2 = _pair(coarse, coarse, coarse)
        self.h1 = _pair(middle, middle, middle)
        self.h0 = _pair(fine, fine, fine)
        self.deconv = nn.ConvTranspose2d(channels, coarse, self.sides[0], stride=self.sides[0])
        self.post0 = nn.Conv2d(coarse, middle, 3, padding=1)
        self.post1 = nn.Conv2d(middle, fine, 3, padding=1)
        self.post2 = nn.Conv2d(fine, 1, 3, padding=1)

    def forward(self, fine: Sequence[Tensor], correlation: Tensor, places: Tensor) -> Tensor:
        """The logits of masks.

        Args:
            fine: The fine features of the search images, each ``(N, C, H, W)``.
            correlation: ``(N, C, 25, 25)``.
            places: ``(P, 3)`` int64: search image, row and column.

        Returns:
            ``(P, 127, 127)``; a mask begins 8 px times its row and column, minus 32 px, from the corner of the image.
        """
        image, row, column = places.unbind(1)
        crops = [
            self._crops(features, places, step=step, side=side)
            for features, step, side in zip(fine, (4, 2, 1), reversed(self.sides[:-1]), strict=True)
        ]
        out: Tensor = self.deconv(correlation[image, :, row, column][:, :, None, None])
        out = self.post0(F.interpolate(self.h2(out) + self.v2(crops[2]), size=self.sides[1:2] * 2))
        out = self.post1(F.interpolate(self.h1(out) + self.v1(crops[1]), size=self.sides[2:3] * 2))
        out = self.post2(F.interpolate(self.h0(out) + self.v0(crops[0]), size=self.sides[3:4] * 2))
        return out[:, 0]

    @staticmethod
    def _crops(features: Tensor, places: Tensor, *, step: int, side: int) -> Tensor:
        """What belongs to each place in fine features, ``(P, C, side, side)``; places are ``step`` apart in them."""
        padded = F.pad(features, [4 * step] * 4)
        return torch.stack(
            [
                padded[image, :, step * row : step * row + side, step * column : step * column + side]
                for image, row, column in places.tolist()
            ]
        )


def _pair(channels: int, middle: int, out_channels: int) -> nn.Sequential:
    first = nn.Conv2d(channels, middle, 3, padding=1)
    second = nn.Conv2d(middle, out_channels, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
