"""The keys of the bridge in Detectron2's config."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_bridge_config(cfg: CfgNode) -> None:
    """Add ``MODEL.BRIDGE``, which ``SemanticBridge`` is built from."""
    cfg.MODEL.BRIDGE = CfgNode()
    # a name of d2tune.modeling.bridge.networks.ARCHITECTURES
    cfg.MODEL.BRIDGE.ARCHITECTURE = "unet"
    # empty takes the architecture's own
    cfg.MODEL.BRIDGE.ENCODER = ""
    # 8 or 16, of an architecture that has the choice; 0 takes its own
    cfg.MODEL.BRIDGE.OUTPUT_STRIDE = 0
    # same or valid, of the original U-Net
    cfg.MODEL.BRIDGE.PADDING = "same"
    # channels of the original U-Net's first level
    cfg.MODEL.BRIDGE.WIDTH = 64
    # pairs of a loss and its weight: cross_entropy, dice, focal, lovasz
    cfg.MODEL.BRIDGE.LOSS = [["cross_entropy", 1.0]]
    # one weight for each class; empty counts all the same
    cfg.MODEL.BRIDGE.CLASS_WEIGHTS = []
    # deviation of the noise that training adds to the normalized channels, against learning places by heart
    cfg.MODEL.BRIDGE.NOISE = 0.0
    cfg.MODEL.BRIDGE.NUM_CLASSES = 2
