"""The meta architectures of assembled models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from d2tune.modeling.assembled.config import View, member_configs
from d2tune.modeling.assembled.fusion import Detected, fuse
from d2tune.modeling.components import register_components


class _Assembled(nn.Module):
    """Members, and the views that they have of an image.

    Args:
        members: The networks, whose tensors are named ``members.0...``, ``members.1...``.
        views: How they see an image.
    """

    def __init__(self, members: Sequence[nn.Module], views: Sequence[View]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.views = tuple(views)

    @staticmethod
    def built_of(cfg: CfgNode) -> dict[str, Any]:
        """The members and views of a config."""
        configs = member_configs(cfg)
        for member in configs:
            register_components(member)
        views = [View(int(member), float(scale), bool(flip)) for member, scale, flip in cfg.MODEL.ASSEMBLED.VIEWS]
        return {"members": [build_model(member) for member in configs], "views": views}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        device: torch.device = next(self.parameters()).device
        return device

    @property
    def size_divisibility(self) -> int:
        """Of the member that pads the sides of images to the largest multiples."""
        owners: Any = [member if hasattr(member, "size_divisibility") else member.backbone for member in self.members]
        return max(int(owner.size_divisibility) for owner in owners)


@META_ARCH_REGISTRY.register()
class AssembledInstances(_Assembled):
    """Fuses the instances of several members and views; see `fusion`.

    Args:
        members: Networks with the classes of Detectron2's R-CNN.
        views: How they see an image.
        most: The largest number of instances of an image.
    """

    @configurable  # type: ignore[untyped-decorator]  # Detectron2 has no types
    def __init__(self, members: Sequence[nn.Module], views: Sequence[View], *, most: int) -> None:
        super().__init__(members, views)
        self._most = most

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return cls.built_of(cfg) | {"most": cfg.TEST.DETECTIONS_PER_IMAGE}

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """The instances of each image, with masks of the whole image."""
        kept, _ = self.detect(batched_inputs, lambda instances: torch.ones_like(instances.scores, dtype=torch.bool))
        return [
            {"instances": detector_postprocess(instances, sample["height"], sample["width"])}
            for instances, sample in zip(kept, batched_inputs, strict=True)
        ]

    def detect(
        self, batched_inputs: Sequence[dict[str, Any]], choose: Callable[[Instances], Tensor]
    ) -> tuple[list[Instances], list[Instances]]:
        """The instances of a batch in pixels of its images.

        Args:
            batched_inputs: The samples.
            choose: From the instances of an image a bool ``(N,)``, true for those that are wanted.

        Returns:
            For each image the wanted instances, and the others, with ``pred_masks`` ``(N, 1, M, M)`` over their boxes.
        """
        of_views = [self._detected(view, batched_inputs) for view in self.views]
        kept, others = [], []
        for sample, views in zip(batched_inputs, zip(*of_views, strict=True), strict=True):
            fused = fuse(views, most=self._most)
            instances = Instances((sample["image"].shape[-2], sample["image"].shape[-1]))
            instances.pred_boxes = Boxes(fused.boxes)
            instances.scores, instances.pred_classes = fused.scores, fused.classes
            instances.pred_masks = fused.masks[:, None]
            chosen = choose(instances)
            kept.append(instances[chosen])
            others.append(instances[~chosen])
        return kept, others

    def _detected(self, view: View, samples: Sequence[dict[str, Any]]) -> list[Detected]:
        """What a view gives, in pixels of the images of the samples."""
        member = self.members[view.member]
        seen = [_seen(sample, view) for sample in samples]
        given = [instances for batch in _batches(seen, view) for instances in _instances_of(member, batch)]
        return [_in_image(one, sample["image"], view) for one, sample in zip(given, samples, strict=True)]


@META_ARCH_REGISTRY.register()
class AssembledSemantic(_Assembled):
    """The mean of the class probabilities of several members and views.

    Args:
        members: Networks that give probabilities.
        views: How they see an image.
    """

    @configurable  # type: ignore[untyped-decorator]  # Detectron2 has no types
    def __init__(self, members: Sequence[nn.Module], views: Sequence[View]) -> None:
        super().__init__(members, views)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return cls.built_of(cfg)

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """``sem_seg`` ``(K, height, width)`` of each image, with a sum of 1 over the classes."""
        sums: list[Tensor] = []
        for view in self.views:
            seen = [_seen(sample, view) for sample in batched_inputs]
            outputs = [output for batch in _batches(seen, view) for output in self.members[view.member](batch)]
            planes = [output["sem_seg"].flip(-1) if view.flip else output["sem_seg"] for output in outputs]
            sums = planes if not sums else [total + plane for total, plane in zip(sums, planes, strict=True)]
        return [{"sem_seg": total / len(self.views)} for total in sums]


def _seen(sample: dict[str, Any], view: View) -> dict[str, Any]:
    """A sample as a view has it; its ``height`` and ``width`` stay."""
    image: Tensor = sample["image"]
    height, width = image.shape[-2:]
    seen = {"height": height, "width": width} | sample
    if view.scale != 1:
        size = max(1, round(height * view.scale)), max(1, round(width * view.scale))
        resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
        image = resized if image.is_floating_point() else resized.round().clamp(0, 255).to(image.dtype)
    return seen | {"image": image.flip(-1) if view.flip else image}


def _batches(samples: list[dict[str, Any]], view: View) -> list[list[dict[str, Any]]]:
    """The batches of a view: scaled images are padded to several sizes, on which their results must not depend."""
    return [samples] if view.scale == 1 else [[sample] for sample in samples]


def _instances_of(member: Any, batch: list[dict[str, Any]]) -> list[Instances]:
    """The instances of a member, in pixels of its input, with masks over their boxes."""
    if isinstance(member, GeneralizedRCNN):
        predicted: list[Instances] = member.inference(batch, do_postprocess=False)
        return predicted
    detected: list[Instances] = member.detect(batch)[0]
    return detected


def _in_image(instances: Instances, image: Tensor, view: View) -> Detected:
    """The instances of a view in pixels of the image that it is a view of."""
    height, width = instances.image_size
    boxes = instances.pred_boxes.tensor.float()
    masks = instances.pred_masks[:, 0].float() if len(instances) else boxes.new_zeros((0, 1, 1))
    if view.flip:
        boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        masks = masks.flip(-1)
    across, down = image.shape[-1] / width, image.shape[-2] / height
    boxes = boxes * boxes.new_tensor([across, down, across, down])
    return Detected(boxes, instances.scores, instances.pred_classes, masks)
