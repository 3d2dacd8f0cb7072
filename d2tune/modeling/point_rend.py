"""PointRend's mask head, for training sets that have images without instances."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.projects.point_rend import PointRendMaskHead
from detectron2.structures import Instances
from torch import Tensor


@ROI_MASK_HEAD_REGISTRY.register()
class NegativeSafePointRendMaskHead(PointRendMaskHead):
    """Detectron2's ``PointRendMaskHead``, which fails on a batch that has no foreground proposal at all.

    Such a batch gives losses of zero that still depend on every parameter of the head, so that
    distributed training finds a gradient for each.
    """

    def forward(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Losses in training, instances with ``pred_masks`` in inference, as the parent does."""
        if not self.training or any(len(one) for one in instances):
            return super().forward(features, instances)
        zero = sum((parameter.sum() for parameter in self.parameters()), start=features["p2"].sum()) * 0.0
        names = ["loss_mask", "loss_mask_point"] if self.mask_point_on else ["loss_mask"]
        return dict.fromkeys(names, zero)
