"""YOLACT's two heads: prototypes of the image, and boxes, classes and coefficients of each prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Predicted(NamedTuple):
    """What the head predicts for the P priors of N images.

    Attributes:
        deltas: ``(N, P, 4)`` from the priors to the boxes.
        logits: ``(N, P, 1 + classes)``, the background first.
        coefficients: ``(N, P, prototypes)``, before the hyperbolic tangent, which few of them need.
    """

    deltas: Tensor
    logits: Tensor
    coefficients: Tensor


class PredictionHead(nn.Module):
    """The head that all levels share.

    Args:
        channels: Channels of the levels.
        priors: Priors at each place.
        classes: Number of classes without the background.
        prototypes: Number of prototypes.
    """

    def __init__(self, channels: int, *, priors: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.tower = nn.Conv2d(channels, channels, 3, padding=1)
        self.boxes = nn.Conv2d(channels, priors * 4, 3, padding=1)
        self.classes = nn.Conv2d(channels, priors * (1 + classes), 3, padding=1)
        self.coefficients = nn.Conv2d(channels, priors * prototypes, 3, padding=1)
        _initialize(self)

    def forward(self, levels: Sequence[Tensor]) -> Predicted:
        """The predictions of all levels ``(N, C, h, w)``, in the order of `priors.priors`."""
        towers = [F.relu(self.tower(level)) for level in levels]
        priors = self.boxes.out_channels // 4
        flat = [
            torch.cat([_by_prior(layer(tower), priors) for tower in towers], 1)
            for layer in (self.boxes, self.classes, self.coefficients)
        ]
        return Predicted(*flat)


class Protonet(nn.Module):
    """The prototypes of images, at twice the size of the level that they are made of.

    Args:
        channels: Channels of the level, and inside.
        prototypes: Number of prototypes.
    """

    def __init__(self, channels: int, prototypes: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.after = nn.Conv2d(channels, channels, 3, padding=1)
        self.prototypes = nn.Conv2d(channels, prototypes, 1)
        _initialize(self)

    def forward(self, level: Tensor) -> Tensor:
        """``(N, prototypes, 2 h, 2 w)``, none below 0, of a level ``(N, C, h, w)``."""
        for layer in self.before:
            level = F.relu(layer(level))
        size = (2 * level.shape[-2], 2 * level.shape[-1])
        level = F.relu(self.after(F.interpolate(level, size, mode="bilinear", align_corners=False)))
        return F.relu(self.prototypes(level))


def _by_prior(output: Tensor, priors: int) -> Tensor:
    """``(N, priors * K, h, w)`` as ``(N, h * w * priors, K)``."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, output.shape[1] // priors)


def _initialize(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
