"""The network that is fine-tuned on the reference frames of a clip: a MobileNetV2 with a small decoder.

Features of five strides are brought to the same number of channels and added from coarse to fine, as in a feature
pyramid (Lin et al. 2017, arXiv 1612.03144), down to stride 2, so that outlines are sharp.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from d2tune.errors import WeightsError
from d2tune.modeling.bridge.weights import automatic_source
from d2tune.modeling.weights import StateDict, UnreachableWeightsError, find, read_state_dict

logger = logging.getLogger(__name__)

ENCODER = "mobilenet_v2"
STRIDE = 32
"""Sides of the input are multiples of it."""

_TAPS = {1: 16, 3: 24, 6: 32, 13: 96, 17: 320}
"""The blocks after which features are taken, at strides 2 to 32, and their channels."""
_FIXED_BLOCKS = 4
"""Blocks at the beginning that keep their weights where these are pretrained: edges and colors are the same everywhere,
and their gradients would take most of the time."""
_CHANNELS = 48

_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class PropagationNetwork(nn.Module):
    """Gives the logits of the background and of each object.

    Args:
        objects: Number of objects.
    """

    def __init__(self, objects: int) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features[:18]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, _CHANNELS, 1) for channels in _TAPS.values())
        self.merge = nn.ModuleList(_merge() for _ in _TAPS)
        self.score = nn.Conv2d(_CHANNELS, objects + 1, 1)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 127.5))
        self.fixed = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K + 1, H, W)`` of images ``(N, 3, H, W)`` in RGB from 0 to 255, with sides of `STRIDE`."""
        x = (images - self.mean) / self.std
        taken = []
        for index, block in enumerate(self.features):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.fixed):
                x = block(x)
            if index in _TAPS:
                taken.append(x)
        merged = self.merge[-1](self.lateral[-1](taken[-1]))
        for level in reversed(range(len(taken) - 1)):
            lateral = self.lateral[level](taken[level])
            merged = F.interpolate(merged, lateral.shape[-2:], mode="bilinear", align_corners=False)
            merged = self.merge[level](lateral + merged)
        return F.interpolate(self.score(merged), images.shape[-2:], mode="bilinear", align_corners=False)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the encoder that are trained, and all others."""
        encoder = list(self.features[self.fixed :].parameters())
        others = [one for layer in (self.lateral, self.merge, self.score) for one in layer.parameters()]
        return encoder, others

    def train(self, mode: bool = True) -> PropagationNetwork:
        """As `nn.Module.train`; the statistics of the encoder's batch norm always stay as they are."""
        super().train(mode)
        self.features.eval()
        return self

    def load_encoder(self, state: StateDict, *, file: Path) -> None:
        """Load ImageNet weights of torchvision's network.

        Args:
            state: The tensors, with the names of torchvision.
            file: Their file, for errors.

        Raises:
            WeightsError: A tensor is missing or has another shape.
        """
        target = self.features.state_dict()
        given = {key: state[f"features.{key}"] for key in target if f"features.{key}" in state}
        wrong = [key for key, value in target.items() if key not in given or given[key].shape != value.shape]
        if wrong:
            raise WeightsError(
                f"{len(wrong)} tensors of the encoder are missing or have another shape, such as features.{wrong[0]}",
                file=file,
                expected=f"ImageNet weights of torchvision's {ENCODER}",
            )
        self.features.load_state_dict(given)
        self.fixed = _FIXED_BLOCKS
        is_folded = not any(bool(value.any()) for key, value in given.items() if key.endswith("running_mean"))
        if not is_folded:  # weights with folded batch norm come from networks whose input is from -1 to 1
            self.mean.copy_(torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
            self.std.copy_(torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))


def _merge() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, groups=_CHANNELS, bias=False),
        nn.Conv2d(_CHANNELS, _CHANNELS, 1, bias=False),
        nn.GroupNorm(8, _CHANNELS),
        nn.ReLU(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class EncoderWeights:
    """Pretrained weights.

    Attributes:
        tensors: By name.
        file: Their file.
    """

    tensors: StateDict
    file: Path


def load_weights(source: str | None) -> EncoderWeights | None:
    """ImageNet weights of the encoder.

    Args:
        source: A file or an address; None takes torchvision's weights.

    Returns:
        The weights; None where torchvision's cannot be reached, which is logged.

    Raises:
        WeightsError: The file does not exist, or cannot be read.
    """
    if source is not None:
        file = find(source)
        return EncoderWeights(read_state_dict(file.path), file.path)
    try:
        file = find(str(automatic_source(ENCODER, ENCODER)))
    except UnreachableWeightsError as error:
        reason = str(error).removesuffix(".")
        logger.warning("%s; the network begins without pretrained weights and finds less (--weights FILE)", reason)
        return None
    return EncoderWeights(read_state_dict(file.path), file.path)
