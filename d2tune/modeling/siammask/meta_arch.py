"""The meta architecture SiamMask (Wang et al., CVPR 2019, arXiv:1812.05050)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from d2tune.modeling.siammask.anchors import PLACES, Assigned, anchors, assign, decode, encode
from d2tune.modeling.siammask.backbones import EXEMPLAR_PX, FINE, STRIDE, SiamBackbone
from d2tune.modeling.siammask.heads import Correlation, Refinement

MARGIN_PX = 32
"""How far the masks of the outermost places extend beyond the search image."""

_FROZEN_BLOCKS = {"resnet50": (0, 0, 5, 7), "mobilenet_v2": (0, 0, 7, 14)}
"""Modules of a body that each value of ``BACKBONE.FREEZE_AT`` freezes: 2 up to stride 4 or 8, 3 the whole body."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a search image is correlated with to find an object, for each head."""

    scores: Tensor
    boxes: Tensor
    masks: Tensor


@dataclass(frozen=True, slots=True)
class Searched:
    """What is predicted for search images.

    Attributes:
        logits: ``(N, 2, A, 25, 25)``, of background and object.
        deltas: ``(N, A, 25, 25, 4)``.
        correlation: ``(N, C, 25, 25)``, that masks are predicted from.
        fine: The fine features of the search images.
    """

    logits: Tensor
    deltas: Tensor
    correlation: Tensor
    fine: list[Tensor]


@META_ARCH_REGISTRY.register()
class SiamMask(nn.Module):
    """Finds the object of an exemplar in a search image: scores and boxes at 25 x 25 places, and a mask at each.

    Args:
        backbone: The features of both.
        channels: Of the features and the heads.
        mask_side: Side of the masks of the simple head; 0 for no such head.
        ratios: Ratios of height to width of the anchors.
        scale: Size of the anchors in strides.
        iou_thresholds: See `assign`.
        most_anchors: Anchors of a pair in the loss, and how many of them may be the object.
        refined: Places of a pair whose refined masks are in the loss.
        loss_weights: Weights of the losses of scores, boxes, simple masks and refined masks.
        pixel_mean: Mean of each channel.
        pixel_std: Standard deviation of each channel.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        backbone: SiamBackbone,
        channels: int,
        mask_side: int,
        ratios: Sequence[float],
        scale: float,
        iou_thresholds: Sequence[float],
        most_anchors: tuple[int, int],
        refined: int,
        loss_weights: Sequence[float],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {
                "cls": Correlation(channels, 2 * len(ratios)),
                "loc": Correlation(channels, 4 * len(ratios)),
                "mask": Correlation(channels, mask_side * mask_side),
            }
        )
        self.refine = Refinement(channels, backbone.shapes)
        self._mask_side = mask_side
        self._iou_thresholds = iou_thresholds
        self._most_anchors = most_anchors
        self._refined = refined
        self._loss_weights = loss_weights
        self.anchors: Tensor
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("anchors", anchors(ratios, scale), persistent=False)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).float().view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__`` from ``MODEL.SIAMMASK``."""
        siammask = cfg.MODEL.SIAMMASK
        frozen = _FROZEN_BLOCKS[siammask.BACKBONE][min(cfg.MODEL.BACKBONE.FREEZE_AT, 3)]
        backbone = SiamBackbone(
            siammask.BACKBONE,
            siammask.CHANNELS,
            freeze_norm=cfg.MODEL.FEATURES.NORM == "frozen",
            freeze_blocks=frozen,
        )
        return {
            "backbone": backbone,
            "channels": siammask.CHANNELS,
            "mask_side": siammask.MASK_SIDE,
            "ratios": siammask.ANCHOR_RATIOS,
            "scale": siammask.ANCHOR_SCALE,
            "iou_thresholds": siammask.IOU_THRESHOLDS,
            "most_anchors": (siammask.ANCHORS_PER_PAIR, siammask.POSITIVES_PER_PAIR),
            "refined": siammask.REFINED_PER_PAIR,
            "loss_weights": siammask.LOSS_WEIGHTS,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def kernels(self, exemplars: Tensor) -> Kernels:
        """What the objects of exemplars ``(N, 3, 127, 127)`` are searched with."""
        features = self.backbone.exemplar(self._normalized(exemplars))
        return Kernels(*(self.heads[name].kernel(features) for name in ("cls", "loc", "mask")))  # type: ignore[operator]

    def search(self, kernels: Kernels, images: Tensor) -> Searched:
        """What is predicted for search images ``(N, 3, 255, 255)``."""
        features = self.backbone(self._normalized(images))
        correlated = [
            self.heads[name].correlated(kernel, features["last"])  # type: ignore[operator]
            for name, kernel in (("cls", kernels.scores), ("loc", kernels.boxes), ("mask", kernels.masks))
        ]
        count = len(images)
        logits = self.heads["cls"].head(correlated[0]).reshape(count, 2, -1, PLACES, PLACES)  # type: ignore[operator]
        deltas = self.heads["loc"].head(correlated[1]).reshape(count, 4, -1, PLACES, PLACES)  # type: ignore[operator]
        return Searched(logits, deltas.permute(0, 2, 3, 4, 1), correlated[2], [features[name] for name in FINE])

    def boxes(self, searched: Searched) -> Tensor:
        """The boxes ``(N, A, 25, 25, 4)`` as center and size, in pixels of the search images."""
        return decode(searched.deltas, self.anchors)

    def masks(self, searched: Searched, places: Tensor) -> Tensor:
        """The logits ``(P, 127, 127)`` of the refined masks at places ``(P, 3)``; see `Refinement.forward`."""
        refined: Tensor = self.refine(searched.fine, searched.correlation, places)
        return refined

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses of pairs in training, scores and boxes of pairs in evaluation.

        Args:
            batched_inputs: Pairs of ``exemplar`` ``(3, 127, 127)`` and ``image`` ``(3, 255, 255)``; in training with
                the ``mask`` ``(255, 255)`` bool of the object in the image, and its ``box`` ``(4)`` as center and size,
                which is empty where the image does not show it.
        """
        exemplars = torch.stack([pair["exemplar"] for pair in batched_inputs])
        images = torch.stack([pair["image"] for pair in batched_inputs])
        searched = self.search(self.kernels(exemplars), images)
        if self.training:
            return self._losses(searched, batched_inputs)
        scores, boxes = searched.logits.softmax(dim=1)[:, 1], self.boxes(searched)
        return [{"scores": own, "boxes": of_pair} for own, of_pair in zip(scores, boxes, strict=True)]

    def _normalized(self, images: Tensor) -> Tensor:
        normalized: Tensor = (images.to(self.device).float() - self.pixel_mean) / self.pixel_std
        return normalized

    def _losses(self, searched: Searched, pairs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        most, most_positives = self._most_anchors
        boxes = [pair["box"].to(self.device).float() if len(pair["box"]) else None for pair in pairs]
        assigned = [
            assign(self.anchors, box, iou_thresholds=self._iou_thresholds, most=most, most_positives=most_positives)
            for box in boxes
        ]
        masks = [pair["mask"] for pair in pairs]
        losses = {
            "loss_score": score_loss(searched.logits, assigned),
            "loss_box": self._box_loss(searched.deltas, boxes, assigned),
            "loss_mask": self._mask_loss(searched, masks, assigned) if self._mask_side else None,
            "loss_refined": self._refined_loss(searched, masks, assigned),
        }
        weighted = zip(losses.items(), self._loss_weights, strict=True)
        return {name: weight * loss for (name, loss), weight in weighted if loss is not None}

    def _box_loss(self, deltas: Tensor, boxes: Sequence[Tensor | None], assigned: Sequence[Assigned]) -> Tensor:
        """The sum of the absolute errors of the deltas, on average over the anchors of objects."""
        flat = self.anchors.reshape(-1, 4)
        total, count = deltas.sum() * 0, 0
        for own, box, chosen in zip(deltas, boxes, assigned, strict=True):
            if box is not None and len(chosen.positives):
                predicted = own.reshape(-1, 4)[chosen.positives].float()
                total = total + (predicted - encode(box, flat[chosen.positives])).abs().sum()
                count += len(chosen.positives)
        return total / max(1, count)

    def _mask_loss(self, searched: Searched, masks: Sequence[Tensor], assigned: Sequence[Assigned]) -> Tensor:
        """The loss of the simple masks at all places of objects."""
        places = _places(assigned, most=None)
        image, row, column = _or_any(places).unbind(1)
        columns = searched.correlation[image, :, row, column][:, :, None, None]
        logits = self.heads["mask"].head(columns).reshape(-1, 1, self._mask_side, self._mask_side)  # type: ignore[operator]
        logits = F.interpolate(logits, size=(EXEMPLAR_PX, EXEMPLAR_PX), mode="bilinear", align_corners=False)[:, 0]
        return _margin(logits, masks, places)

    def _refined_loss(self, searched: Searched, masks: Sequence[Tensor], assigned: Sequence[Assigned]) -> Tensor:
        """The loss of the refined masks at some places of objects."""
        places = _places(assigned, most=self._refined)
        return _margin(self.masks(searched, _or_any(places)), masks, places)


def mask_targets(masks: Sequence[Tensor], places: Tensor) -> Tensor:
    """The masks ``(P, 127, 127)`` around places, 1 on the object and -1 elsewhere.

    Args:
        masks: The object in each search image, ``(255, 255)`` bool.
        places: ``(P, 3)``: search image, row and column.
    """
    padded = [F.pad(mask.to(places.device).float(), [MARGIN_PX] * 4) for mask in masks]
    side = EXEMPLAR_PX
    crops = [
        padded[image][STRIDE * row : STRIDE * row + side, STRIDE * column : STRIDE * column + side]
        for image, row, column in places.tolist()
    ]
    return 2 * torch.stack(crops) - 1


def _or_any(places: Tensor) -> Tensor:
    """The places, or any one where there are none, so that all parameters have a gradient."""
    return places if len(places) else places.new_zeros(1, 3)


def _margin(logits: Tensor, masks: Sequence[Tensor], places: Tensor) -> Tensor:
    """The soft margin loss of masks ``(P, 127, 127)`` at places; 0 without places."""
    if not len(places):
        return logits.sum() * 0
    return F.soft_margin_loss(logits.float(), mask_targets(masks, places))


def score_loss(logits: Tensor, assigned: Sequence[Assigned]) -> Tensor:
    """Half the mean cross entropy of the anchors of objects, and half that of the background.

    Args:
        logits: ``(N, 2, A, 25, 25)``.
        assigned: The anchors of each pair.
    """
    log = F.log_softmax(logits.float(), dim=1).reshape(len(logits), 2, -1)
    positives = torch.cat([-own[1, chosen.positives] for own, chosen in zip(log, assigned, strict=True)])
    negatives = torch.cat([-own[0, chosen.negatives] for own, chosen in zip(log, assigned, strict=True)])
    return (positives.sum() / max(1, len(positives)) + negatives.sum() / max(1, len(negatives))) / 2


def _places(assigned: Sequence[Assigned], *, most: int | None) -> Tensor:
    """The different places ``(P, 3)`` of the anchors of objects: pair, row and column; at most so many of a pair."""
    places = []
    for number, chosen in enumerate(assigned):
        flat = torch.unique(chosen.positives % (PLACES * PLACES))
        if most is not None:
            flat = flat[torch.randperm(len(flat), device=flat.device)[:most]]
        places.append(torch.stack([torch.full_like(flat, number), flat // PLACES, flat % PLACES], dim=1))
    return torch.cat(places)
