"""The graph of a model, by the type of the model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, SemanticSegmentor
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from d2tune.errors import PackageError
from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.rcnn import RcnnGraph, supports_heads
from d2tune.export.graphs.semantic import BridgeGraph, SegmentorGraph
from d2tune.export.graphs.yolact import YolactGraph
from d2tune.modeling.assembled.meta_arch import AssembledInstances, AssembledSemantic
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.semantic_heads import GapSafeSemanticSegmentor
from d2tune.modeling.yolact.meta_arch import Yolact

Kind = Literal["instances", "labels", "segments"]
"""What a graph gives: instances, the logits of pixels, or both for the segments of a panoptic model."""

EXAMPLE_PX = (160, 192)
"""Height and width of the image that graphs are traced with."""


def kind_of(model: nn.Module) -> Kind:
    """What the graph of a model gives.

    Raises:
        PackageError: The model has no graph.
    """
    if isinstance(model, GeneralizedRCNN):
        is_panoptic = type(model) is PanopticFPN
        is_known = is_panoptic or type(model) is GeneralizedRCNN
        has_graph = is_known and _has_anchors(model.proposal_generator) and supports_heads(model.roi_heads)
        if has_graph:
            return "segments" if is_panoptic else "instances"
    if type(model) is Yolact:
        return "instances"
    if type(model) in (SemanticSegmentor, GapSafeSemanticSegmentor) or isinstance(model, SemanticBridge):
        return "labels"
    if isinstance(model, AssembledInstances | AssembledSemantic):
        raise PackageError(
            "an assembled model of several views or runs cannot be exported",
            hint="Export one of the runs that it was made of, or make a package of it with `d2tune package`.",
        )
    kinds = [type(model).__name__]
    heads = getattr(model, "roi_heads", None)
    if heads is not None:
        kinds += [type(heads).__name__, type(getattr(heads, "mask_head", None)).__name__]
    raise PackageError(
        "this kind of model cannot be exported",
        found=", ".join(kinds),
        expected="Mask R-CNN, PointRend, YOLACT, Panoptic FPN, or a semantic model",
        hint="Make a package of it with `d2tune package`.",
    )


def _has_anchors(rpn: Any) -> bool:
    return type(rpn) is RPN and type(rpn.anchor_generator) is DefaultAnchorGenerator


def graph_of(model: Any, *, for_onnx: bool, is_fixed: bool) -> Graph:
    """The graph of a model in evaluation mode, which shares its parameters.

    Args:
        model: A model that has a graph, see `kind_of`.
        for_onnx: Whether the ONNX exporter traces it.
        is_fixed: Whether images are padded to a fixed size.
    """
    kind = kind_of(model)
    if isinstance(model, Yolact):
        return YolactGraph(model, is_fixed=is_fixed).eval()
    if kind != "labels":
        graph = RcnnGraph(model, for_onnx=for_onnx, is_fixed=is_fixed, with_semantic=kind == "segments")
        return graph.eval()
    return (BridgeGraph(model) if isinstance(model, SemanticBridge) else SegmentorGraph(model)).eval()


def example_of(graph: Graph, *, channels: int, classes: int) -> tuple[Tensor, ...]:
    """Inputs to trace a graph with: a fixed random pattern, and lowest scores that keep all instances.

    Args:
        graph: The graph.
        channels: Channels of an image.
        classes: Number of classes that have instances.
    """
    random = torch.Generator().manual_seed(0)
    height_px, width_px = EXAMPLE_PX
    inputs = {
        "image": torch.randint(0, 256, (channels, height_px, width_px), generator=random).float(),
        "min_scores": torch.zeros(classes),
        "size": torch.tensor([width_px, height_px]),
    }
    return tuple(inputs[name] for name in graph.input_names)
