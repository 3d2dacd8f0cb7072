"""The meta architecture that runs semantic networks of other libraries in Detectron2."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.errors import DataError
from d2tune.modeling.bridge.losses import WeightedLosses
from d2tune.modeling.bridge.networks import architecture_named, build_network
from d2tune.modeling.bridge.padding import mirror_pad
from d2tune.modeling.together import largest_of_all
from d2tune.text import counted


@META_ARCH_REGISTRY.register()
class SemanticBridge(nn.Module):
    """Runs a network from images to logits on Detectron2's lists of dicts.

    Images are normalized, NaN and infinite values become 0, and the right and lower edges are padded by mirroring to a
    valid size of the network. In training all images of a batch are padded to the same size, and the loss ignores the
    padding. In evaluation each image is padded to the next valid size, and only images of the same size share a
    forward pass, so that a result does not depend on the other images of its batch.

    Args:
        network: A module from ``(N, C, h, w)`` to logits ``(N, K, h, w)``.
        loss: A module from logits and labels ``(N, h, w)`` to losses by name.
        size_divisibility: Images are padded to a multiple of this, and to at least twice this, in pixels.
        pixel_mean: Mean of each channel.
        pixel_std: Standard deviation of each channel.
        noise: Standard deviation of normal noise that is added to the normalized channels in training.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        network: nn.Module,
        loss: nn.Module,
        size_divisibility: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self._noise = noise
        self.network = network
        self.loss = loss
        self.size_divisibility = size_divisibility
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).float().view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__`` from ``MODEL.BRIDGE``, ``MODEL.PIXEL_MEAN`` and ``MODEL.FEATURES.NORM``.

        Raises:
            ProjectError: A name in ``MODEL.BRIDGE`` is unknown, or its values do not fit together.
        """
        bridge = cfg.MODEL.BRIDGE
        kind = architecture_named(bridge.ARCHITECTURE)
        network = build_network(
            architecture=bridge.ARCHITECTURE,
            encoder=bridge.ENCODER or None,
            in_channels=len(cfg.MODEL.PIXEL_MEAN),
            classes=bridge.NUM_CLASSES,
            output_stride=bridge.OUTPUT_STRIDE or None,
            padding=bridge.PADDING,
            width=bridge.WIDTH,
        )
        if cfg.MODEL.FEATURES.NORM == "frozen" and kind.encoder_attribute is not None:
            _freeze_norms(network, kind.encoder_attribute)
        return {
            "network": network,
            "loss": WeightedLosses(terms=bridge.LOSS, classes=bridge.NUM_CLASSES, class_weights=bridge.CLASS_WEIGHTS),
            "size_divisibility": kind.divisibility_px,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "noise": bridge.NOISE,
        }

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, class probabilities in evaluation.

        Args:
            batched_inputs: For each image ``image`` ``(C, h, w)``, uint8 or float, NaN for values without data;
                ``height`` and ``width`` of the original image; for training ``sem_seg`` ``(h, w)``, 255 = ignored.

        Returns:
            In training the weighted losses by name. In evaluation a dict for each image with ``sem_seg``
            ``(K, height, width)``, float32 probabilities: the logits, resized bilinearly to the original size,
            after a softmax over the classes.

        Raises:
            DataError: The number of channels of an image is not that of the model.
        """
        images = [self._normalized(sample) for sample in batched_inputs]
        if self.training:
            return self._losses(images, [sample["sem_seg"].to(self.device) for sample in batched_inputs])
        return self._probabilities(images, batched_inputs)

    def _normalized(self, sample: dict[str, Any]) -> Tensor:
        image: Tensor = sample["image"]
        if len(image) != len(self.pixel_mean):
            raise DataError(
                "the image does not have the number of channels of the model",
                file=sample.get("file_name"),
                found=counted(len(image), "channel"),
                expected=str(len(self.pixel_mean)),
            )
        scaled = (image.to(self.device).float() - self.pixel_mean) / self.pixel_std
        return torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)

    def _padded_px(self, side_px: int) -> int:
        return self.size_divisibility * max(2, math.ceil(side_px / self.size_divisibility))

    def _losses(self, images: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        tallest, widest = (max(image.shape[axis] for image in images) for axis in (-2, -1))
        height_px, width_px = map(self._padded_px, largest_of_all([tallest, widest]))
        batch = torch.stack([mirror_pad(image, height_px=height_px, width_px=width_px) for image in images])
        targets = labels[0].new_full((len(labels), height_px, width_px), IGNORE_LABEL)
        for target, label in zip(targets, labels, strict=True):
            target[: label.shape[0], : label.shape[1]] = label
        if self._noise:
            batch = batch + self._noise * torch.randn_like(batch)
        losses: dict[str, Tensor] = self.loss(self.network(batch), targets.long())
        return losses

    def _probabilities(self, images: list[Tensor], samples: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[self._padded_px(image.shape[-2]), self._padded_px(image.shape[-1])].append(index)
        scores: dict[int, Tensor] = {}
        for (height_px, width_px), group in groups.items():
            batch = [mirror_pad(images[index], height_px=height_px, width_px=width_px) for index in group]
            for index, logits in zip(group, self.network(torch.stack(batch)), strict=True):
                size = tuple(images[index].shape[-2:])
                height, width = samples[index].get("height", size[0]), samples[index].get("width", size[1])
                scores[index] = sem_seg_postprocess(logits.float(), size, height, width).softmax(0)
        return [{"sem_seg": scores[index]} for index in range(len(images))]


def _freeze_norms(network: nn.Module, attribute: str) -> None:
    """Replace the batch norms of a pretrained encoder by affine maps without training and batch statistics."""
    from timm.layers import freeze_batch_norm_2d

    setattr(network, attribute, freeze_batch_norm_2d(getattr(network, attribute)))
