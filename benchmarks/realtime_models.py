"""The contenders of realtime.py: networks that give the mask of an object of a frame, in torch and in onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2tune.data.image_reader import ImageReader
from d2tune.export.graphs.build import example_of, graph_of, kind_of
from d2tune.export.load import MODELS
from d2tune.export.networks import OnnxModel
from d2tune.export.onnx_file import write_onnx
from d2tune.inference.loop import inference_mode
from d2tune.inference.object_tracker import ObjectTracker, TrackerOptions, resolved
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.predictors.semantic import SemanticPredictor
from d2tune.inference.results import Detections
from d2tune.modeling.build import build_model
from d2tune.modeling.config import preset_config
from d2tune.modeling.device import speed_up
from d2tune.modeling.published.catalog import published_network
from d2tune.modeling.published.loading import load_published
from d2tune.runs.load import load_model

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Seconds = tuple[float, float, float]
"""Of preparing, of the network, and of finishing."""

CAR = "car"
RANDOM_INSTANCES = 5
"""Instances of a frame of a network with random weights, because the time of masks depends on them."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network in a runtime.

    Attributes:
        name: The network.
        runtime: torch or onnxruntime.
        predict: From a frame ``(H, W, 3)`` RGB to the mask of the car and the seconds of each stage.
        start: Called with the first frame and the mask of the car in it.
        is_trained: Whether the weights are not random.
        predictor: The predictor in torch, where there is one.
        graph: The model that is exported.
        cfg: Its config.
    """

    name: str
    runtime: str
    predict: Callable[[Frame], tuple[Mask, Seconds]]
    is_trained: bool
    start: Callable[[Frame, Mask], object] = lambda frame, mask: None
    predictor: Predictor[Any, Any] | None = None
    graph: Any = None
    cfg: Any = None


def instances(name: str, preset: str, size_px: int, *, run: Path | None) -> Contender:
    """An instance preset with the weights of a run, or random ones."""
    state = None
    if run is None:
        cfg = preset_config(preset)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = 1
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.FPN.OUT_CHANNELS
        cfg.TEST.DETECTIONS_PER_IMAGE = RANDOM_INSTANCES
    else:
        loaded = load_model(run)
        cfg, state = loaded.cfg.clone(), loaded.model.state_dict()
        cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = size_px, round(size_px * 2.4)
    torch.manual_seed(0)
    model, _ = build_model(cfg)
    if state is not None:
        model.load_state_dict(state)
    model = speed_up(model, device="cpu", precision="float32").eval()
    predictor = _instance_predictor(model, cfg, is_trained=run is not None)
    return Contender(
        name=name,
        runtime="torch",
        predict=lambda frame: staged(predictor, frame),
        is_trained=run is not None,
        predictor=predictor,
        graph=model,
        cfg=cfg,
    )


def _instance_predictor(model: Any, cfg: Any, *, is_trained: bool) -> InstancePredictor:
    reader = ImageReader(order=cfg.INPUT.FORMAT)
    scores = [0.5] if is_trained else None
    return InstancePredictor(model, cfg, class_names=(CAR,), reader=reader, is_model_own=True, min_scores=scores)


def labels(name: str, network: str, size_px: int, *, folder: Path) -> Contender:
    """A published semantic network."""
    known = replace(published_network(network), short_side_px=size_px, max_side_px=round(size_px * 2.4))
    loaded = load_published(known, folder=folder)
    reader = ImageReader(order=known.channel_order)
    predictor = SemanticPredictor(
        loaded.model, loaded.cfg, class_names=known.class_names, reader=reader, is_model_own=True
    )
    return Contender(
        name=name,
        runtime="torch",
        predict=lambda frame: staged(predictor, frame),
        is_trained=True,
        predictor=predictor,
        graph=loaded.model,
        cfg=loaded.cfg,
    )


def exported(one: Contender, folder: Path) -> Contender:
    """The same network in onnxruntime."""
    assert one.predictor is not None
    path = folder / f"{one.name.replace(' ', '_')}.onnx"
    with inference_mode(one.graph, is_own=True):
        graph = graph_of(one.graph, for_onnx=True, is_fixed=False)
        write_onnx(graph, example_of(graph, channels=3, classes=1), path)
    model = MODELS[kind_of(one.graph)](OnnxModel(path), one.cfg)
    if isinstance(one.predictor, InstancePredictor):
        predictor: Predictor[Any, Any] = _instance_predictor(model, one.cfg, is_trained=one.is_trained)
    else:
        reader = one.predictor.reader
        predictor = SemanticPredictor(model, one.cfg, class_names=one.predictor.class_names, reader=reader)
    return replace(one, runtime="onnxruntime", predict=lambda frame: staged(predictor, frame), predictor=predictor)


def staged(predictor: Predictor[Any, Any], frame: Frame) -> tuple[Mask, Seconds]:
    """The mask of the car, and the seconds of each stage."""
    began = time.perf_counter()
    sample = predictor.prepare(frame)
    prepared = time.perf_counter()
    raw = predictor.run([sample])[0]
    ran = time.perf_counter()
    result = predictor.finish(raw, sample)
    ended = time.perf_counter()
    mask = np.asarray(result.masks.any(axis=0)) if isinstance(result, Detections) else result.mask(CAR)
    return mask, (prepared - began, ran - prepared, ended - ran)


class _Timed:
    """A SiamMask whose networks' time is added up."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name not in ("search", "masks", "kernels", "boxes"):
            return value

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = value(*arguments)
            self.seconds += time.perf_counter() - began
            return result

        return timed


def tracker(name: str, *, run: Path | None) -> Contender:
    """A SiamMask that follows the car from the first timed frame on; what is not the network is "finish"."""
    if run is None:
        cfg = preset_config("siammask_mobilenet_v2")
        cfg.MODEL.DEVICE = "cpu"
        torch.manual_seed(0)
        model: Any = build_model(cfg)[0].eval()
    else:
        loaded = load_model(run)
        cfg, model = loaded.cfg, loaded.model
    timed = _Timed(model)
    options = TrackerOptions.of_config(cfg)
    followed = ObjectTracker(timed, options)

    def predict(frame: Frame) -> tuple[Mask, Seconds]:
        before, began = timed.seconds, time.perf_counter()
        masks = resolved(followed.step(frame), threshold=options.mask_threshold)
        network = timed.seconds - before
        rest = time.perf_counter() - began - network
        return masks.get(1, np.zeros(frame.shape[:2], bool)), (0.0, network, rest)

    return Contender(
        name=name,
        runtime="torch",
        predict=predict,
        is_trained=run is not None,
        start=lambda frame, mask: followed.start(frame, {1: mask}),
    )
