"""PointRend's heads, for images without instances or labels and for any number of classes."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.projects.point_rend import PointRendMaskHead, PointRendSemSegHead
from detectron2.structures import Instances
from torch import Tensor

from d2tune.modeling.semantic_heads import zero_loss


@ROI_MASK_HEAD_REGISTRY.register()
class NegativeSafePointRendMaskHead(PointRendMaskHead):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``PointRendMaskHead``, which fails on a batch without foreground proposals.

    For such a batch the losses are zero but depend on all parameters of the head, so that distributed training gets
    a gradient for each parameter.
    """

    def forward(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Losses in training, instances with ``pred_masks`` in inference, as in the parent."""
        if not self.training or any(len(proposals) for proposals in instances):
            return super().forward(features, instances)
        zero = sum((parameter.sum() for parameter in self.parameters()), start=features["p2"].sum()) * 0.0
        names = ["loss_mask", "loss_mask_point"] if self.mask_point_on else ["loss_mask"]
        return dict.fromkeys(names, zero)


@SEM_SEG_HEADS_REGISTRY.register()
class VoidSafePointRendSemSegHead(PointRendSemSegHead):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``PointRendSemSegHead``, which fails with a single class, and if no sampled point is labeled.

    With a single class no point is uncertain, so the result of the coarse head is taken.
    """

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None) -> Any:
        """Losses in training, logits ``(N, K, H, W)`` in inference, as in the parent."""
        if self.coarse_sem_seg_head.predictor.out_channels == 1:
            logits, losses = self.coarse_sem_seg_head(features, targets)
            if self.training:
                losses["loss_sem_seg_point"] = zero_loss(self.point_head, losses["loss_sem_seg"])
            return logits, losses
        logits, losses = super().forward(features, targets)
        if self.training and targets is not None:
            coarse, point = losses["loss_sem_seg"], losses["loss_sem_seg_point"]
            no_labeled_point = torch.isnan(point) & torch.isfinite(coarse) & (targets == self.ignore_value).any()
            if bool(no_labeled_point):
                losses["loss_sem_seg_point"] = zero_loss(self.point_head, coarse)
        return logits, losses
