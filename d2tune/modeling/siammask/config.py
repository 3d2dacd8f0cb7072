"""The keys of SiamMask in Detectron2's config."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_siammask_config(cfg: CfgNode) -> None:
    """Add ``MODEL.SIAMMASK``, the config of `SiamMask`, of its training pairs and of its tracker."""
    cfg.MODEL.SIAMMASK = CfgNode()
    siammask = cfg.MODEL.SIAMMASK
    # resnet50 or mobilenet_v2
    siammask.BACKBONE = "resnet50"
    # channels of the features, and of the heads
    siammask.CHANNELS = 256
    # side of the mask that the simple head predicts; 0 for no such head
    siammask.MASK_SIDE = 63
    # ratios of height to width of the anchors, and their size in strides
    siammask.ANCHOR_RATIOS = [0.33, 0.5, 1.0, 2.0, 3.0]
    siammask.ANCHOR_SCALE = 8.0
    # an IoU above the first makes an anchor the object, below the second background
    siammask.IOU_THRESHOLDS = [0.6, 0.3]
    # anchors of a pair in the loss, and how many of them may be the object
    siammask.ANCHORS_PER_PAIR = 64
    siammask.POSITIVES_PER_PAIR = 16
    # places of a pair whose refined masks are in the loss
    siammask.REFINED_PER_PAIR = 4
    # weights of the losses of scores, boxes, simple masks and refined masks
    siammask.LOSS_WEIGHTS = [1.0, 1.2, 36.0, 36.0]
    # share of the training pairs from rendered sequences instead of the project's images
    siammask.RENDERED = 0.5
    # share of the training pairs that show two different objects
    siammask.NEGATIVES = 0.2
    # most pixels that the object may be away from the center of the search image, and how much its size may differ
    siammask.SHIFT_PX = 64
    siammask.SCALE = 0.18
    # the tracker: share of the cosine window in the scores, penalty for a change of the box, share of the new size,
    # and the least probability of a pixel of the mask
    siammask.WINDOW_INFLUENCE = 0.40
    siammask.PENALTY = 0.04
    siammask.UPDATE_RATE = 1.0
    siammask.MASK_THRESHOLD = 0.35
    # share of the box around the mask in the place where the object is searched next
    siammask.MASK_SHARE = 0.0
