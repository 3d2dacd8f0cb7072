"""The keys of the bridge in Detectron2's config."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_bridge_config(cfg: CfgNode) -> None:
    """Add ``MODEL.BRIDGE``, the config of ``SemanticBridge``."""
    cfg.MODEL.BRIDGE = CfgNode()
    # a name of d2tune.modeling.bridge.networks.ARCHITECTURES
    cfg.MODEL.BRIDGE.ARCHITECTURE = "unet"
    # an encoder of the architecture; empty takes its default
    cfg.MODEL.BRIDGE.ENCODER = ""
    # 8 or 16, if the architecture has both; 0 takes its default
    cfg.MODEL.BRIDGE.OUTPUT_STRIDE = 0
    # same or valid, of the original U-Net
    cfg.MODEL.BRIDGE.PADDING = "same"
    # channels of the original U-Net's first level
    cfg.MODEL.BRIDGE.WIDTH = 64
    # pairs of a loss and its weight: cross_entropy, dice, focal, lovasz
    cfg.MODEL.BRIDGE.LOSS = [["cross_entropy", 1.0]]
    # a weight for each class; empty weights all classes equally
    cfg.MODEL.BRIDGE.CLASS_WEIGHTS = []
    # standard deviation of noise added to the normalized channels in training, against overfitting
    cfg.MODEL.BRIDGE.NOISE = 0.0
    cfg.MODEL.BRIDGE.NUM_CLASSES = 2
