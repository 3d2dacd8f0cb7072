"""Detectron2's semantic models for images without data in places, unlabeled images, and any number of classes."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, SemanticSegmentor
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import Tensor, nn


@META_ARCH_REGISTRY.register()
class GapSafeSemanticSegmentor(SemanticSegmentor):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``SemanticSegmentor`` for images without data in places, with probabilities as scores."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, else ``sem_seg`` ``(K, height, width)`` for each image, with a sum of 1 over the classes.

        Values without data (NaN) are replaced by the mean of their channel, which is 0 after normalization.
        """
        outputs = super().forward([sample | {"image": self._filled(sample["image"])} for sample in batched_inputs])
        return outputs if self.training else [{"sem_seg": output["sem_seg"].softmax(0)} for output in outputs]

    def _filled(self, image: Tensor) -> Tensor:
        if not image.is_floating_point():
            return image
        image = image.to(self.device)
        return torch.where(image.isnan(), self.pixel_mean.to(image), image)


def zero_loss(module: nn.Module, predictions: Tensor) -> Tensor:
    """A loss of zero that depends on all parameters, so that distributed training gets a gradient for each."""
    return 0.0 * sum((parameter.sum() for parameter in module.parameters()), start=predictions.sum())


@SEM_SEG_HEADS_REGISTRY.register()
class VoidSafeSemSegFPNHead(SemSegFPNHead):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ``SemSegFPNHead``, whose loss is NaN without labeled pixels; here it is zero."""

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the logits ``(N, K, h, w)`` over the labeled pixels of ``(N, H, W)``."""
        if bool((targets == self.ignore_value).all()):
            return {"loss_sem_seg": zero_loss(self.predictor, predictions)}
        losses: dict[str, Tensor] = super().losses(predictions, targets)
        return losses
