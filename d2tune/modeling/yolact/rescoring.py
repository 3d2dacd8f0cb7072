"""YOLACT++'s fast mask rescoring: the IoU that masks are expected to have (Bolya et al., arXiv:1912.06218)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = (8, 16, 32, 64, 128)
_LEAST_PX = 63
"""The smallest side that five convolutions of 3 x 3 with stride 2 leave a pixel of."""

LEAST_AREA = 25
"""Masks of objects with fewer pixels of the prototypes have no effect on training."""


class MaskRescoring(nn.Module):
    """Predicts the IoU of cropped masks with their objects, for each class.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        sides = zip((1, *_WIDTHS), _WIDTHS, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(inner, outer, 3, stride=2) for inner, outer in sides)
        self.layers.append(nn.Conv2d(_WIDTHS[-1], classes, 1))
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The layers."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, masks: Tensor, classes: Tensor) -> Tensor:
        """The IoU ``(N,)`` of masks ``(N, h, w)``, probabilities of the prototypes' size and 0 outside of their boxes.

        Args:
            masks: The masks; smaller ones are padded.
            classes: ``(N,)`` int64, the class of each.
        """
        x = masks[:, None]
        x = F.pad(x, (0, max(0, _LEAST_PX - x.shape[-1]), 0, max(0, _LEAST_PX - x.shape[-2])))
        for layer in self.layers:
            x = F.relu(layer(x))
        highest = F.adaptive_max_pool2d(x, 1).flatten(1)
        return highest.gather(1, classes[:, None])[:, 0]
