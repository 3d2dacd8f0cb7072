"""Anchors as torchvision makes them."""

from __future__ import annotations

import torch
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor


@ANCHOR_GENERATOR_REGISTRY.register()
class WholePixelAnchors(DefaultAnchorGenerator):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's anchors with corners that are rounded to whole pixels, and torchvision's strides.

    torchvision computes the strides from the sizes of the maps: where the last level has a pixel more than half of the
    one before, as for an input of 160 px, its stride is a little smaller.
    """

    def generate_cell_anchors(self, *arguments: list[float]) -> Tensor:
        """The anchors around (0, 0), ``(A, 4)``."""
        anchors: Tensor = super().generate_cell_anchors(*arguments)
        return anchors.round()

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """All anchors of each map; see Detectron2's."""
        height_px, width_px = (side * self.strides[0] for side in features[0].shape[-2:])
        anchors = []
        for cells, one in zip(self.cell_anchors, features, strict=True):
            down, across = height_px // one.shape[-2], width_px // one.shape[-1]
            y = torch.arange(one.shape[-2], device=one.device) * down
            x = torch.arange(one.shape[-1], device=one.device) * across
            rows, columns = (grid.reshape(-1) for grid in torch.meshgrid(y, x, indexing="ij"))
            shifts = torch.stack([columns, rows, columns, rows], dim=1)
            anchors.append(Boxes((shifts[:, None] + cells[None].to(one.device)).reshape(-1, 4).float()))
        return anchors
