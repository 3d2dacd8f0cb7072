"""The meta architecture YOLACT (Bolya et al., ICCV 2019, arXiv:1904.02689)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import roi_align

from d2tune.modeling.yolact.fpn import LEVELS, level_sizes
from d2tune.modeling.yolact.head import Predicted, PredictionHead, Protonet
from d2tune.modeling.yolact.losses import (
    Truth,
    box_loss,
    class_loss,
    mask_loss,
    matched_priors,
    semantic_loss,
)
from d2tune.modeling.yolact.matching import TRANSFORM
from d2tune.modeling.yolact.nms import fast_nms
from d2tune.modeling.yolact.priors import priors

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
        loss_weights: Weights of the losses of boxes, classes, masks and classes of pixels.
        lowest_score: Lowest score of a detection.
        nms_iou: Largest IoU of two detections of a class.
        most: Most detections of an image.
        mask_side: Side of masks over boxes.
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
        self._priors = {"sizes_px": sizes_px, "aspect_ratios": aspect_ratios, "is_square": square_priors}
        self._positive_iou, self._negative_iou = iou_thresholds
        self._negatives = negatives
        self._masks_per_image = masks_per_image
        self._loss_weights = loss_weights
        self._lowest_score = lowest_score
        self._nms_iou = nms_iou
        self._most = most
        self._mask_side = mask_side
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
        levels, predicted, prototypes = self._run(images)
        instances = [sample["instances"] for sample in batched_inputs]
        return self._losses(images, levels, predicted, prototypes, instances)

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """The normalized images, padded to one size."""
        images = [sample["image"].to(self.device).float() for sample in batched_inputs]
        normalized = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(normalized, self.backbone.size_divisibility)

    def _run(self, images: ImageList) -> tuple[list[Tensor], Predicted, Tensor]:
        features = self.backbone(images.tensor)
        levels = [features[name] for name in LEVELS]
        return levels, self.head(levels), self.protonet(levels[0])

    def _priors_of(self, images: ImageList, levels: Sequence[Tensor]) -> Tensor:
        height_px, width_px = images.tensor.shape[-2:]
        return priors(level_sizes(levels), (height_px, width_px), device=self.device, **self._priors)  # type: ignore[arg-type]

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
        all_priors = self._priors_of(images, levels)
        semantic_logits = self.semantic(levels[0])
        sums = [levels[0].new_zeros((), dtype=torch.float32) for _ in range(4)]
        positives = 0
        for index, own in enumerate(instances):
            truth = _truth(own.to(self.device), image_hw)
            matched, targets = matched_priors(
                all_priors, truth, positive_iou=self._positive_iou, negative_iou=self._negative_iou
            )
            positives += len(matched.priors)
            coefficients = predicted.coefficients[index]
            sums[0] = sums[0] + box_loss(predicted, index, all_priors, truth, matched)
            sums[1] = sums[1] + class_loss(predicted.logits[index], targets, negatives=self._negatives)
            sums[2] = sums[2] + mask_loss(
                prototypes[index], coefficients, truth, matched, image_hw=image_hw, most=self._masks_per_image
            )
            sums[3] = sums[3] + semantic_loss(semantic_logits[index], truth)
        divisors = (max(1, positives),) * 3 + (len(instances),)
        names = ("loss_box", "loss_class", "loss_mask", "loss_semantic")
        weighted = zip(names, sums, divisors, self._loss_weights, strict=False)
        return {name: total * (weight / divisor) for name, total, divisor, weight in weighted}

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
        levels, predicted, prototypes = self._run(images)
        all_priors = self._priors_of(images, levels)
        kept, others = [], []
        for index, size_hw in enumerate(images.image_sizes):
            instances, coefficients = self._instances(predicted, index, all_priors, size_hw)
            chosen = torch.ones_like(instances.scores, dtype=torch.bool) if choose is None else choose(instances)
            others.append(instances[~chosen])
            instances = instances[chosen]
            instances.pred_masks = self._masks(prototypes[index], coefficients[chosen], instances, images)
            kept.append(instances)
        return kept, others

    def _instances(
        self, predicted: Predicted, index: int, all_priors: Tensor, size_hw: tuple[int, int]
    ) -> tuple[Instances, Tensor]:
        """The instances of an image with boxes, scores and classes, and their coefficients."""
        scores = predicted.logits[index].float().softmax(1)[:, 1:]
        likely = (scores.amax(1) > self._lowest_score).nonzero()[:, 0]
        boxes = TRANSFORM.apply_deltas(predicted.deltas[index, likely].float(), all_priors[likely])
        clipped = Boxes(boxes)
        clipped.clip(size_hw)
        places, classes, kept_scores = fast_nms(
            clipped.tensor,
            scores[likely],
            lowest_score=self._lowest_score,
            iou_threshold=self._nms_iou,
            most_per_class=_MOST_PER_CLASS,
            most=self._most,
        )
        instances = Instances(size_hw)
        instances.pred_boxes = clipped[places]
        instances.scores = kept_scores
        instances.pred_classes = classes
        return instances, predicted.coefficients[index, likely][places]

    def _masks(self, prototypes: Tensor, coefficients: Tensor, instances: Instances, images: ImageList) -> Tensor:
        """Probabilities ``(N, 1, M, M)`` over the boxes of instances."""
        if not len(instances):
            return prototypes.new_zeros((0, 1, self._mask_side, self._mask_side))
        masks = torch.einsum("nk,khw->nhw", coefficients, prototypes).sigmoid()
        height_px, width_px = images.tensor.shape[-2:]
        scale = masks.new_tensor([masks.shape[2] / width_px, masks.shape[1] / height_px] * 2)
        numbers = torch.arange(len(masks), device=masks.device, dtype=masks.dtype)[:, None]
        regions = torch.cat([numbers, instances.pred_boxes.tensor.to(masks.dtype) * scale], 1)
        aligned: Tensor = roi_align(masks[:, None], regions, self._mask_side, sampling_ratio=1, aligned=True)
        return aligned


def _truth(instances: Instances, image_hw: tuple[int, int]) -> Truth:
    """The objects of an image with masks of the size of the padded input."""
    masks = torch.zeros((len(instances), *image_hw), dtype=torch.bool, device=instances.gt_boxes.device)
    if len(instances):
        given = instances.gt_masks.tensor
        masks[:, : given.shape[1], : given.shape[2]] = given
    return Truth(instances.gt_boxes.tensor, instances.gt_classes, masks)
