"""The meta architecture YOLACT (Bolya et al., ICCV 2019, arXiv:1904.02689)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils import comm
from torch import Tensor, nn

from d2tune.modeling.together import all_counts, divided_over
from d2tune.modeling.yolact.detection import Detected, Limits, box_masks, cropped, detections, whole_masks
from d2tune.modeling.yolact.fpn import LEVELS, level_sizes
from d2tune.modeling.yolact.head import Predicted, PredictionHead, Protonet
from d2tune.modeling.yolact.losses import (
    Truth,
    box_loss,
    class_loss,
    mask_loss,
    matched_priors,
    rescoring_loss,
    semantic_loss,
)
from d2tune.modeling.yolact.priors import priors
from d2tune.modeling.yolact.rescoring import MaskRescoring

_MOST_PER_CLASS = 200


@META_ARCH_REGISTRY.register()
class Yolact(nn.Module):
    """Predicts instances in one stage: masks are weighted sums of prototypes of the image, cropped to their boxes.

    Images keep their proportions and are padded, as in Detectron2; the paper resizes them to squares.

    Args:
        backbone: A `YolactFPN`.
        classes: Number of classes.
        prototypes: Number of prototypes.
        sizes_px: Sizes of the priors of each level.
        aspect_ratios: Ratios of width to height of the priors.
        square_priors: Whether priors are squares.
        iou_thresholds: Lowest IoU of a prior that stands for an object, and of one that is not background.
        negatives: Background priors in the loss for each prior of an object.
        masks_per_image: Priors of an image in the mask loss.
        loss_weights: Weights of the losses of boxes, classes, masks, classes of pixels, and expected IoUs.
        lowest_score: Lowest score of a detection.
        nms_iou: Largest IoU of two detections of a class.
        most: Most detections of an image.
        mask_side: Side of masks over boxes.
        rescores_masks: Whether scores are multiplied by the IoU that masks are expected to have.
        pixel_mean: Mean of each channel.
        pixel_std: Standard deviation of each channel.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        backbone: Backbone,
        classes: int,
        prototypes: int,
        sizes_px: Sequence[Sequence[float]],
        aspect_ratios: Sequence[float],
        square_priors: bool,
        iou_thresholds: Sequence[float],
        negatives: int,
        masks_per_image: int,
        loss_weights: Sequence[float],
        lowest_score: float,
        nms_iou: float,
        most: int,
        mask_side: int,
        rescores_masks: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.output_shape()["p3"].channels
        of_place = len(aspect_ratios) * len(sizes_px[0])
        self.head = PredictionHead(channels, priors=of_place, classes=classes, prototypes=prototypes)
        self.protonet = Protonet(channels, prototypes)
        self.semantic = nn.Conv2d(channels, classes, 1)
        nn.init.xavier_uniform_(self.semantic.weight)
        self.rescoring = MaskRescoring(classes) if rescores_masks else None
        self._priors = {"sizes_px": sizes_px, "aspect_ratios": aspect_ratios, "is_square": square_priors}
        self._positive_iou, self._negative_iou = iou_thresholds
        self._negatives = negatives
        self._masks_per_image = masks_per_image
        self._loss_weights = loss_weights
        self.limits = Limits(lowest_score, nms_iou, _MOST_PER_CLASS, most)
        self.mask_side = mask_side
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).float().view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__`` from ``MODEL.YOLACT`` and ``MODEL.ROI_HEADS``."""
        yolact = cfg.MODEL.YOLACT
        return {
            "backbone": build_backbone(cfg),
            "classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "prototypes": yolact.PROTOTYPES,
            "sizes_px": yolact.SIZES,
            "aspect_ratios": yolact.ASPECT_RATIOS,
            "square_priors": yolact.SQUARE_PRIORS,
            "iou_thresholds": yolact.IOU_THRESHOLDS,
            "negatives": yolact.NEGATIVES,
            "masks_per_image": yolact.MASKS_PER_IMAGE,
            "loss_weights": yolact.LOSS_WEIGHTS,
            "lowest_score": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "nms_iou": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "most": cfg.TEST.DETECTIONS_PER_IMAGE,
            "mask_side": yolact.MASK_SIDE,
            "rescores_masks": yolact.RESCORE_MASKS,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Losses in training, instances in evaluation; inputs and outputs are those of Detectron2's R-CNN."""
        if not self.training:
            kept, _ = self.detect(batched_inputs)
            return [
                {"instances": detector_postprocess(instances, sample["height"], sample["width"])}
                for instances, sample in zip(kept, batched_inputs, strict=True)
            ]
        images = self.preprocess_image(batched_inputs)
        levels, predicted, prototypes = self.heads(images.tensor)
        instances = [sample["instances"] for sample in batched_inputs]
        return self._losses(images, levels, predicted, prototypes, instances)

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """The normalized images, padded to one size."""
        images = [sample["image"].to(self.device).float() for sample in batched_inputs]
        normalized = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(normalized, self.backbone.size_divisibility)

    def heads(self, images: Tensor) -> tuple[list[Tensor], Predicted, Tensor]:
        """The levels of normalized images ``(N, C, H, W)``, what is predicted for their priors, and the prototypes."""
        features = self.backbone(images)
        levels = [features[name] for name in LEVELS]
        return levels, self.head(levels), self.protonet(levels[0])

    def priors_of(self, images: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """The priors of images ``(N, C, H, W)`` with these levels."""
        return priors(level_sizes(levels), (images.shape[-2], images.shape[-1]), device=self.device, **self._priors)  # type: ignore[arg-type]

    def _losses(
        self,
        images: ImageList,
        levels: Sequence[Tensor],
        predicted: Predicted,
        prototypes: Tensor,
        instances: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """The losses by name, each divided by the number of priors that stand for objects in the batch."""
        image_hw = (int(images.tensor.shape[-2]), int(images.tensor.shape[-1]))
        all_priors = self.priors_of(images.tensor, levels)
        semantic_logits = self.semantic(levels[0])
        sums = [levels[0].new_zeros((), dtype=torch.float32) for _ in range(5)]
        truths = [_truth(own.to(self.device), image_hw) for own in instances]
        ious = {"positive_iou": self._positive_iou, "negative_iou": self._negative_iou}
        all_matched = [matched_priors(all_priors, truth, **ious) for truth in truths]
        positives = self._positives([len(matched.priors) for matched, _ in all_matched])
        for index, (truth, (matched, targets)) in enumerate(zip(truths, all_matched, strict=True)):
            coefficients = predicted.coefficients[index]
            sums[0] = sums[0] + box_loss(predicted, index, all_priors, truth, matched)
            sums[1] = sums[1] + class_loss(predicted.logits[index], targets, negatives=self._negatives)
            sums[2] = sums[2] + mask_loss(
                prototypes[index], coefficients, truth, matched, image_hw=image_hw, most=self._masks_per_image
            )
            sums[3] = sums[3] + semantic_loss(semantic_logits[index], truth)
            if self.rescoring is not None:
                masks = whole_masks(prototypes[index], coefficients[matched.priors].tanh())
                stride_px = self.strides_px(images.tensor, prototypes)
                sums[4] = sums[4] + rescoring_loss(self.rescoring, masks, truth, matched, stride_px=stride_px)
        count = max(1, positives) / divided_over()
        divisors = (count, count, count, len(instances), count)
        names = ["loss_box", "loss_class", "loss_mask", "loss_semantic"]
        if self.rescoring is not None:
            names.append("loss_rescoring")
        weighted = zip(names, sums, divisors, self._loss_weights, strict=False)
        return {name: total * (weight / divisor) for name, total, divisor, weight in weighted}

    def _positives(self, counts: Sequence[int]) -> int:
        """The priors that stand for objects in the whole batch.

        Where it is divided over processes, the random numbers for the images of those before this one are drawn.

        Args:
            counts: Priors of objects of each image of this process.
        """
        of_all = all_counts(counts)
        for count in (count for of_process in of_all[: comm.get_rank()] for count in of_process):
            if count > self._masks_per_image:
                torch.randperm(count, device=self.device)
        return sum(map(sum, of_all))

    def detect(
        self, batched_inputs: Sequence[dict[str, Any]], choose: Callable[[Instances], Tensor] | None = None
    ) -> tuple[list[Instances], list[Instances]]:
        """The instances of a batch in pixels of the network's input, with masks for the chosen ones only.

        Args:
            batched_inputs: The samples.
            choose: From the instances of an image with boxes, scores and classes a bool ``(N,)``, true for those that
                get masks; None chooses all.

        Returns:
            For each image the chosen instances with ``pred_masks`` ``(N, 1, M, M)`` over their boxes, and the others
            without masks.
        """
        images = self.preprocess_image(batched_inputs)
        levels, predicted, prototypes = self.heads(images.tensor)
        all_priors = self.priors_of(images.tensor, levels)
        stride_px = self.strides_px(images.tensor, prototypes)
        kept, others = [], []
        for index, size_hw in enumerate(images.image_sizes):
            of_image = (predicted.deltas[index], predicted.logits[index], predicted.coefficients[index])
            detected = detections(*of_image, all_priors, all_priors.new_tensor(size_hw[::-1]), self.limits)
            masks = whole_masks(prototypes[index], detected.coefficients)
            instances = Instances(size_hw)
            instances.pred_boxes = Boxes(detected.boxes)
            instances.scores = self.rescored(detected, masks, stride_px=stride_px)
            instances.pred_classes = detected.classes
            chosen = torch.ones_like(instances.scores, dtype=torch.bool) if choose is None else choose(instances)
            others.append(instances[~chosen])
            instances = instances[chosen]
            boxes = instances.pred_boxes.tensor
            instances.pred_masks = box_masks(masks[chosen], boxes, side=self.mask_side, stride_px=stride_px)[:, None]
            kept.append(instances)
        return kept, others

    def strides_px(self, images: Tensor, prototypes: Tensor) -> tuple[Any, Any]:
        """Pixels of the input ``(..., H, W)`` for a column and a row of the prototypes."""
        return images.shape[-1] / prototypes.shape[-1], images.shape[-2] / prototypes.shape[-2]

    def rescored(self, detected: Detected, masks: Tensor, *, stride_px: tuple[Any, Any]) -> Tensor:
        """The scores, times the IoU that is expected of the masks ``(N, h, w)`` where the model predicts it."""
        if self.rescoring is None:
            return detected.scores
        own = cropped(masks, detected.boxes, stride_px=stride_px)
        ious: Tensor = self.rescoring(own, detected.classes)
        return detected.scores * ious.float().clamp(0, 1)


def _truth(instances: Instances, image_hw: tuple[int, int]) -> Truth:
    """The objects of an image with masks of the size of the padded input."""
    masks = torch.zeros((len(instances), *image_hw), dtype=torch.bool, device=instances.gt_boxes.device)
    if len(instances):
        given = instances.gt_masks.tensor
        masks[:, : given.shape[1], : given.shape[2]] = given
    return Truth(instances.gt_boxes.tensor, instances.gt_classes, masks)
