"""The model that an export is made of and compared with: on the processor, in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from d2tune.export.graphs.build import graph_of, kind_of
from d2tune.export.models import MODELS
from d2tune.export.networks import TracedGraph
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.build import build_model
from d2tune.modeling.device import speed_up
from d2tune.modeling.loaded import LoadedModel
from d2tune.modeling.ready import random_init_off
from d2tune.packages.read import Package, put_tensors, read_tensors


def reference_model(package: Package) -> LoadedModel:
    """The model of a package of safetensors on the processor, in float32 whatever it was trained in.

    Raises:
        PackageError: The weights are those of another model, or cannot be read.
    """
    cfg, path = package.config(), package.weights
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    with random_init_off():
        model, _ = build_model(cfg)
    put_tensors(model, read_tensors(path), path)
    speed_up(model, device="cpu", precision="float32")
    return package.loaded(model.eval().requires_grad_(False), cfg)


def padded_reference(loaded: LoadedModel, sizes: tuple[tuple[int, int], ...]) -> LoadedModel:
    """The same model on images that are padded to fixed sizes, as an exported model of these sizes gets them."""
    network = TracedGraph(graph_of(loaded.model, for_onnx=False, is_fixed=True))
    mirrors = pads_by_mirroring(loaded.model)
    model = MODELS[kind_of(loaded.model)](network, loaded.cfg, sizes=sizes, pads_by_mirroring=mirrors)
    return replace(loaded, model=model)


def pads_by_mirroring(model: nn.Module) -> bool:
    """Whether a model pads images by mirroring them, instead of by zeros after normalization."""
    return isinstance(model, SemanticBridge)


def channels_of(loaded: LoadedModel) -> int:
    """Channels of the images of a model."""
    return len(loaded.cfg.MODEL.PIXEL_MEAN)


def thing_classes(loaded: LoadedModel) -> int:
    """Number of classes that have instances."""
    return int(loaded.cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def size_divisibility(model: Any) -> int:
    """What the sides of images that the network takes are multiples of, in pixels."""
    own = model if hasattr(model, "size_divisibility") else model.backbone
    return max(1, int(own.size_divisibility))
