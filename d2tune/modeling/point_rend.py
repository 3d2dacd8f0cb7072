"""PointRend's heads, for images without instances or labels and for any number of classes."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.projects.point_rend import PointRendMaskHead, PointRendSemSegHead
from detectron2.projects.point_rend.point_head import StandardPointHead
from detectron2.structures import Instances
from torch import Tensor

from d2tune.modeling.point_masks import Regions, point_masks
from d2tune.modeling.semantic_heads import zero_loss


@ROI_MASK_HEAD_REGISTRY.register()
class NegativeSafePointRendMaskHead(PointRendMaskHead):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``PointRendMaskHead``, which fails on a batch without foreground proposals.

    For such a batch the losses are zero but depend on all parameters of the head, so that distributed training gets
    a gradient for each parameter.
    """

    def forward(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Losses in training, instances with ``pred_masks`` in inference, as in the parent."""
        if not self.training and self._takes_rows():
            return self._predicted(features, instances)
        if not self.training or any(len(proposals) for proposals in instances):
            return super().forward(features, instances)
        zero = sum((parameter.sum() for parameter in self.parameters()), start=features["p2"].sum()) * 0.0
        names = ["loss_mask", "loss_mask_point"] if self.mask_point_on else ["loss_mask"]
        return dict.fromkeys(names, zero)

    def _takes_rows(self) -> bool:
        """Whether `point_masks` can be used: gradients and exported models need Detectron2's operators."""
        is_plain = self.mask_point_on and type(self.point_head) is StandardPointHead
        return is_plain and not torch.is_grad_enabled() and not is_exported()

    def _predicted(self, features: dict[str, Tensor], instances: list[Instances]) -> list[Instances]:
        """The instances with ``pred_masks``."""
        boxes_xyxy = [one.pred_boxes.tensor for one in instances]

        def regions_of(names: list[str]) -> Regions:
            scales = [self._feature_scales[name] for name in names]
            return Regions.of([features[name] for name in names], scales, boxes_xyxy)

        coarse_regions = regions_of(self.roi_pooler_in_features)
        is_same = list(self.roi_pooler_in_features) == list(self.mask_point_in_features)
        masks = point_masks(
            coarse_regions if is_same else regions_of(self.mask_point_in_features),
            self.coarse_head(coarse_regions.sample_grid(self.roi_pooler_size)),
            torch.cat([one.pred_classes for one in instances]),
            self.point_head,
            side=self.mask_point_subdivision_init_resolution,
            steps=self.mask_point_subdivision_steps,
            points=self.mask_point_subdivision_num_points,
        )
        for one, own in zip(instances, torch.split(masks, [len(one) for one in instances]), strict=True):
            one.pred_masks = own
        return instances


def is_exported() -> bool:
    """Whether the model is traced or compiled at present."""
    return torch._C._is_tracing() or torch.compiler.is_compiling()


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
