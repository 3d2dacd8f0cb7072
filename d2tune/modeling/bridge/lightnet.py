"""LightNet++: small networks for street scenes in real time, on ShuffleNetV2 and MobileNetV2.

The networks have no paper. Their layers follow github.com/ansleliu/LightNetPlusPlus (models/shufflenetv2plus.py,
models/mobilenetv2plus.py and modules), so that its published weights fit. Encoders are torchvision's with dilation
instead of their later strides; the other layers have the published names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from d2tune.modeling.bridge.norms import LEAK, ActivatedBatchNorm2d

STRIDE = 8
"""The output stride of both encoders."""


class Size(NamedTuple):
    """The size of a LightNet++ on a ShuffleNetV2.

    Attributes:
        stages: Channels of the four stages of the encoder.
        fused: Channels of the fused features.
        decoder: Channels of the decoder.
        is_sharp: Whether the decoder sharpens its features.
    """

    stages: tuple[int, int, int, int]
    fused: int
    decoder: int
    is_sharp: bool


SHUFFLENETS = {
    "shufflenet_v2_x0_5": Size((24, 48, 96, 192), 256, 128, is_sharp=False),
    "shufflenet_v2_x1_0": Size((24, 116, 232, 464), 512, 256, is_sharp=True),
}
"""By torchvision's name of the encoder, as the published weights have them."""

_DILATIONS = (12, 24, 36)


class LightNetShuffleNetV2(nn.Module):
    """ShuffleNetV2Plus: the features of all stages at stride 8, a pyramid of dilations, and the first stage again.

    Args:
        encoder: A name of ``SHUFFLENETS``.
        in_channels: Channels of the images.
        classes: Channels of the logits.
    """

    def __init__(self, *, encoder: str, in_channels: int, classes: int) -> None:
        super().__init__()
        size = SHUFFLENETS[encoder]
        self.features = _shufflenet(encoder, in_channels)
        self.feat_fusion = PreNormShuffle(sum(size.stages), size.fused)
        self.pyramid_pool = DilatedPyramid(size.fused, size.decoder)
        self.final_fusion = PreNormShuffle(size.stages[0] + size.decoder, size.decoder)
        self.usm = Sharpen(size.decoder) if size.is_sharp else nn.Identity()
        self.aspp_scse = Attention(size.decoder, dilation=4)
        self.score = _score(size.decoder, classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K, h, w)`` of images ``(N, C, h, w)`` with sides that are multiples of 8."""
        first = F.max_pool2d(self.features["conv1"](x), 3, stride=2, padding=1)
        second = self.features["stage2"](first)
        third = self.features["stage3"](second)
        fourth = self.features["stage4"](third)
        fused = self.feat_fusion(torch.cat([second, fourth, third, F.max_pool2d(first, 3, stride=2, padding=1)], 1))
        merged = self.final_fusion(torch.cat([first, self.pyramid_pool(fused)], 1))
        return _resized(self.score(self.aspp_scse(self.usm(merged))), x)


class LightNetMobileNetV2(nn.Module):
    """MobileNetV2Plus: as `LightNetShuffleNetV2`, on the seven stages of a MobileNetV2.

    The encoder is torchvision's, whose first block has no expansion and whose activations are ReLU6: the ImageNet
    weights of torchvision fit, and those of the published MobileNetV2Plus do not.

    Args:
        encoder: ``mobilenet_v2``.
        in_channels: Channels of the images.
        classes: Channels of the logits.
    """

    def __init__(self, *, encoder: str, in_channels: int, classes: int) -> None:
        super().__init__()
        self.features = _mobilenet(encoder, in_channels)
        self.feat_fusion = _pre_norm_inverted(16 + 24 + 32 + 64 + 96 + 160 + 320, 512)
        self.pyramid_pool = DilatedPyramid(512, 256)
        self.final_fusion = _pre_norm_inverted(16 + 24 + 256, 256)
        self.aspp_scse = Attention(256, dilation=16)
        self.score = _score(256, classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K, h, w)`` of images ``(N, C, h, w)`` with sides that are multiples of 8."""
        stages = []
        for place, layer in enumerate(self.features):
            x = layer(x) if place else layer(image := x)
            if place in _MOBILENET_ENDS:
                stages.append(x)
        half, quarter, *eighths = stages
        half = F.max_pool2d(half, 3, stride=2, padding=1)
        pooled = [F.max_pool2d(one, 3, stride=2, padding=1) for one in (half, quarter)]
        fused = self.feat_fusion(torch.cat([*eighths, *pooled], 1))
        merged = self.final_fusion(torch.cat([quarter, self.pyramid_pool(fused), half], 1))
        return _resized(self.score(self.aspp_scse(merged)), image)


class PreNormShuffle(nn.Module):
    """A block of ShuffleNetV2 with two branches that both see all channels, and norms before the convolutions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, half of them from each branch.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.in_norm = ActivatedBatchNorm2d(in_channels)
        self.branch1 = nn.Sequential(
            _depthwise(in_channels, dilation=2), ActivatedBatchNorm2d(in_channels), _pointwise(in_channels, half)
        )
        self.branch2 = nn.Sequential(
            _pointwise(in_channels, half),
            ActivatedBatchNorm2d(half),
            _depthwise(half, dilation=2),
            ActivatedBatchNorm2d(half),
            _pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(N, out, h, w)`` of features ``(N, in, h, w)``; channels of both branches alternate."""
        x = self.in_norm(x)
        return torch.stack([self.branch1(x), self.branch2(x)], 2).flatten(1, 2)


class DilatedPyramid(nn.Module):
    """Depthwise convolutions of three dilations, the means of nine regions and the features themselves, upsampled.

    The last convolution has a border of 1 px around its 1 x 1 kernel, as the published one, so that its output is 2 px
    larger before it is resized.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_norm = ActivatedBatchNorm2d(in_channels)
        self.gave_pool = nn.Sequential(OrderedDict(conv1_0=_pointwise(in_channels, out_channels)))
        self.conv1x1 = _pointwise(in_channels, out_channels)
        self.aspp_bra1, self.aspp_bra2, self.aspp_bra3 = (_depthwise(in_channels, dilation=one) for one in _DILATIONS)
        total = 3 * in_channels + 2 * out_channels
        down = nn.Conv2d(total, out_channels, 1, padding=1, bias=False)
        self.aspp_catdown = nn.Sequential(OrderedDict(norm_act=ActivatedBatchNorm2d(total), conv_down=down))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(N, out, 2 h, 2 w)`` of features ``(N, in, h, w)``."""
        height, width = x.shape[-2:]
        x = self.in_norm(x)
        regions = _resized(self.gave_pool(region_means(x, 3)), x)
        branches = [self.aspp_bra1(x), regions, self.aspp_bra2(x), self.conv1x1(x), self.aspp_bra3(x)]
        coarse = self.aspp_catdown(torch.cat(branches, 1))
        return F.interpolate(coarse, (2 * height, 2 * width), mode="bilinear", align_corners=True)


class Sharpen(nn.Module):
    """An unsharp mask: twice the activated features less their mean over 9 x 9 px.

    Args:
        channels: Channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_act = ActivatedBatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape ``(N, C, h, w)``."""
        x = self.norm_act(x)
        return 2 * x - F.avg_pool2d(x, 9, stride=1, padding=4)


class Attention(nn.Module):
    """Features, plus features weighted by channel, plus features weighted by pixel; weights are exp(sigmoid(.)).

    Args:
        channels: Channels of the features.
        dilation: Of the convolutions that see the surroundings of a pixel.
    """

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        few = channels // 16
        self.se_block = nn.Sequential(nn.Conv2d(channels, few, 1), nn.ReLU(), nn.Conv2d(few, channels, 1))
        around = [nn.Conv2d(few, few, 3, padding=dilation, dilation=dilation, bias=False) for _ in range(2)]
        self.sp_conv = nn.Sequential(_pointwise(channels, few), *around, _pointwise(few, 1), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape ``(N, C, h, w)``."""
        pooled = x.mean((2, 3), keepdim=True) + F.adaptive_max_pool2d(x, 1)
        by_channel: Tensor = self.se_block(pooled).sigmoid().exp()
        by_pixel: Tensor = self.sp_conv(x).sigmoid().exp()
        return x * by_pixel + x + x * by_channel


def region_means(x: Tensor, count: int) -> Tensor:
    """The means of ``count`` x ``count`` regions of features, as adaptive average pooling gives them.

    It is written with products of matrices, because ONNX has no adaptive pooling for features of all sizes.

    Args:
        x: ``(N, C, h, w)``.
        count: Regions along each side; neighbors share a row or column where the side is not a multiple of it.

    Returns:
        ``(N, C, count, count)``.
    """
    return _shares(x.shape[-2], count, x) @ x @ _shares(x.shape[-1], count, x).transpose(0, 1)


def _shares(length: int, count: int, like: Tensor) -> Tensor:
    """The share ``(count, length)`` that each place along a side has in the mean of each region."""
    places = torch.arange(length, device=like.device)
    regions = torch.arange(count, device=like.device)[:, None]
    starts = torch.div(regions * length, count, rounding_mode="floor")
    ends = torch.div((regions + 1) * length + count - 1, count, rounding_mode="floor")
    inside = ((places >= starts) & (places < ends)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def _depthwise(channels: int, *, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)


def _pre_norm_inverted(in_channels: int, out_channels: int) -> nn.Sequential:
    """A block of MobileNetV2 without expansion, with norms before the convolutions."""
    return nn.Sequential(
        ActivatedBatchNorm2d(in_channels),
        _pointwise(in_channels, in_channels),
        ActivatedBatchNorm2d(in_channels),
        _depthwise(in_channels),
        ActivatedBatchNorm2d(in_channels),
        _pointwise(in_channels, out_channels),
    )


def _score(channels: int, classes: int) -> nn.Sequential:
    """The classifier of the pixels, with dropout after the norm.

    The published order, dropout before the norm, makes the running variances larger than those of prediction, where
    no channel is dropped (Li et al. 2018, arXiv 1801.05134): with batches of two images, networks that had learned
    predicted one class. The names and the predictions of published weights are the same in both orders.
    """
    layers = {"norm": ActivatedBatchNorm2d(channels), "dropout": nn.Dropout2d(0.175)}
    return nn.Sequential(OrderedDict(**layers, conv=nn.Conv2d(channels, classes, 1)))


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[-2:], mode="bilinear", align_corners=True)


def _initialize(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _shufflenet(encoder: str, in_channels: int) -> nn.ModuleDict:
    """Torchvision's ShuffleNetV2 at stride 8, with leaky ReLUs."""
    whole = getattr(torchvision.models, encoder)(weights=None)
    stages = {name: getattr(whole, name) for name in ("conv1", "stage2", "stage3", "stage4")}
    if in_channels != 3:
        stages["conv1"][0] = nn.Conv2d(in_channels, 24, 3, stride=2, padding=1, bias=False)
    for stage, dilation in ((stages["stage3"], 2), (stages["stage4"], 4)):
        stage[0].branch1[0].stride = stage[0].branch2[3].stride = (1, 1)
        for block in stage[1:]:
            block.branch2[3].dilation = block.branch2[3].padding = (dilation, dilation)
    features = nn.ModuleDict(stages)
    _make_leaky(features)
    return features


def _make_leaky(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.LeakyReLU(LEAK, inplace=True))
        else:
            _make_leaky(child)


_MOBILENET_ENDS = (1, 3, 6, 10, 13, 16, 17)
"""Index of the last of torchvision's features in each stage of MobileNetV2."""


def _mobilenet(name: str, in_channels: int) -> nn.Sequential:
    """The features of torchvision's MobileNetV2 at stride 8."""
    features: Any = getattr(torchvision.models, name)(weights=None).features[:18]
    if in_channels != 3:
        features[0][0] = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
    for first, last, dilation in ((7, 10, 2), (11, 13, 4), (14, 16, 8), (17, 17, 16)):
        for place in range(first, last + 1):
            depthwise = features[place].conv[1][0]
            depthwise.stride = (1, 1)
            depthwise.dilation = depthwise.padding = (dilation, dilation)
    whole: nn.Sequential = features
    return whole
