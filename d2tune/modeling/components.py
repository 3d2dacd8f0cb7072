"""The components that Detectron2 looks up by name; only the modules of components in a config are imported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from detectron2.config import CfgNode

from d2tune.detectron2_projects import project_module

_OWN = {
    "anchors": ("WholePixelAnchors",),
    "assembled.meta_arch": ("AssembledInstances", "AssembledSemantic"),
    "backbone": ("build_feature_fpn_backbone",),
    "bridge.meta_arch": ("SemanticBridge",),
    "deeplab": ("build_padded_deeplab_backbone",),
    "panoptic_deeplab": ("ContiguousPanopticDeepLab",),
    "point_rend": ("NegativeSafePointRendMaskHead", "VoidSafePointRendSemSegHead"),
    "regnet": ("build_regnetx_4gf_fpn_backbone",),
    "yolact.fpn": ("build_yolact_fpn_backbone",),
    "yolact.meta_arch": ("Yolact",),
    "siammask.meta_arch": ("SiamMask",),
    "semantic_heads": ("GapSafeSemanticSegmentor", "VoidSafeSemSegFPNHead"),
}
"""Names that a module below ``d2tune.modeling`` registers."""

_OF_PROJECTS = {
    "deeplab.resnet": ("build_resnet_deeplab_backbone",),
    "deeplab.semantic_seg": ("DeepLabV3Head", "DeepLabV3PlusHead"),
    "panoptic_deeplab.panoptic_seg": ("PanopticDeepLab", "PanopticDeepLabSemSegHead"),
    "point_rend.mask_head": ("PointRendMaskHead", "ImplicitPointRendMaskHead"),
    "point_rend.roi_heads": ("PointRendROIHeads",),
    "point_rend.semantic_seg": ("PointRendSemSegHead",),
}
"""Names that a module below ``detectron2.projects`` registers."""


def registered_names() -> set[str]:
    """The names of all components that `register_components` registers."""
    return {name for names in (*_OWN.values(), *_OF_PROJECTS.values()) for name in names}


def register_components(cfg: CfgNode) -> None:
    """Import the modules that register the components of ``cfg``; all other names are ignored.

    Components of heads, such as ``MODEL.POINT_HEAD.NAME``, are registered with the heads.
    """
    names = set(_names(cfg))
    for module, registered in _OWN.items():
        if names & set(registered):
            importlib.import_module(f"d2tune.modeling.{module}")
    for module, registered in _OF_PROJECTS.items():
        if names & set(registered):
            project_module(module)


def _names(cfg: CfgNode) -> Iterator[str]:
    model = cfg.MODEL
    yield model.META_ARCHITECTURE
    yield model.ANCHOR_GENERATOR.NAME
    yield model.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME
    for section in (model.BACKBONE, model.ROI_HEADS, model.ROI_MASK_HEAD, model.SEM_SEG_HEAD):
        yield section.NAME
