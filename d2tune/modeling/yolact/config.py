"""The keys of YOLACT in Detectron2's config."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_yolact_config(cfg: CfgNode) -> None:
    """Add ``MODEL.YOLACT``, the config of ``Yolact``; classes, scores and NMS are those of ``MODEL.ROI_HEADS``."""
    cfg.MODEL.YOLACT = CfgNode()
    # side of the priors on each level in pixels of the network's input; several for one level are sizes
    cfg.MODEL.YOLACT.SIZES = [[24], [48], [96], [192], [384]]
    # ratios of width to height
    cfg.MODEL.YOLACT.ASPECT_RATIOS = [1.0, 0.5, 2.0]
    # priors as high as wide, as a mistake made them that the published weights of the first YOLACT were trained with
    cfg.MODEL.YOLACT.SQUARE_PRIORS = False
    cfg.MODEL.YOLACT.PROTOTYPES = 32
    # sides of images are padded to multiples of this; 1 for the fixed 550 x 550 px of the published weights
    cfg.MODEL.YOLACT.SIZE_DIVISIBILITY = 32
    # side of the masks over the boxes, which are then resized to the boxes
    cfg.MODEL.YOLACT.MASK_SIDE = 56
    # an IoU from here on makes a prior an object, below the second number background; between, neither
    cfg.MODEL.YOLACT.IOU_THRESHOLDS = [0.5, 0.4]
    # background priors in the loss for each prior of an object
    cfg.MODEL.YOLACT.NEGATIVES = 3
    # priors of an image in the mask loss
    cfg.MODEL.YOLACT.MASKS_PER_IMAGE = 100
    # weights of the losses of boxes, classes, masks, classes of pixels, and of the IoU that masks are rescored with
    cfg.MODEL.YOLACT.LOSS_WEIGHTS = [1.5, 1.0, 6.125, 1.0, 25.0]
    # YOLACT++: masks are scored by the IoU that a small network expects of them
    cfg.MODEL.YOLACT.RESCORE_MASKS = False
    # YOLACT++: every how many blocks of the last three stages are deformable; 0 for none
    cfg.MODEL.YOLACT.DEFORM_EVERY = 0
