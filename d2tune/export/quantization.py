"""ONNX files whose backbone computes in 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.errors import DataError
from d2tune.export.check.images import evenly
from d2tune.export.graphs.base import Graph
from d2tune.export.onnx_file import halve_weights
from d2tune.export.sensitivity import tolerant_convolutions
from d2tune.inference.images import InputSize, PredictionSamples, find_images, find_rasters
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.semantic import SemanticPredictor

LEAST_IMAGES, MOST_IMAGES = 10, 100
"""Images that the ranges of the values are measured on."""

MEASURED_IMAGES = 4
"""Images that the noise of each convolution is measured on."""

_ACTIVATIONS = ("Clip", "Relu")


def calibration_images(folder: Path, *, is_raster: bool, stacked: bool) -> list[Path]:
    """At most `MOST_IMAGES` images of a folder, evenly chosen from all in the order of their names.

    Raises:
        DataError: The folder does not exist or has too few images.
    """
    _, images = find_rasters(folder, stacked=stacked) if is_raster else find_images(folder)
    if len(images) < LEAST_IMAGES:
        raise DataError(
            "there are too few images to measure the ranges of values",
            file=folder,
            place="--calibrate",
            found=str(len(images)),
            expected=f"{LEAST_IMAGES} or more, better {MOST_IMAGES}",
        )
    return evenly(images, MOST_IMAGES)


def quantize(path: Path, graph: Graph, inputs: Sequence[dict[str, NDArray[Any]]]) -> None:
    """Let convolutions of the backbone of an ONNX file compute in 8 bits, and store other weights as float16.

    Weights are symmetric with a scale for each channel; the ranges of the values between layers are those on the
    images. The noisiest convolutions and the heads compute in float32, see `sensitivity`.

    Args:
        path: The ONNX file, which is replaced.
        graph: The graph that it was made of.
        inputs: The inputs of the graph for each image.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._left, None)

    prepared = path.with_name("prepared.onnx")
    with _quiet():
        quant_pre_process(path, prepared, skip_optimization=True, skip_symbolic_shape=True)
        convolutions = _convolutions(onnx.load(prepared).graph)
        activated = {one.module for one in convolutions if one.activation is not None}
        measured = [tuple(torch.from_numpy(one[name]) for name in graph.input_names) for one in inputs]
        tolerant = tolerant_convolutions(graph, evenly(measured, MEASURED_IMAGES), activated)
        chosen = [one for one in convolutions if one.module in tolerant]
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            # an activation behind a convolution is part of it, so that the values before it are not rounded
            op_types_to_quantize=["Conv", *_ACTIVATIONS],
            nodes_to_quantize=[name for one in chosen for name in (one.node, one.activation) if name is not None],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
    prepared.unlink()
    halve_weights(path)


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution of an ONNX graph.

    Attributes:
        node: Name of its node.
        module: Name of its module in the graph that was traced.
        activation: Name of the node that alone takes its output, if it is an activation.
    """

    node: str
    module: str
    activation: str | None


def _convolutions(graph: Any) -> list[_Convolution]:
    takers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    convolutions = []
    for node in graph.node:
        if node.op_type == "Conv":
            behind = takers.get(node.output[0], [])
            is_activated = len(behind) == 1 and behind[0].op_type in _ACTIVATIONS
            module = node.input[1].removesuffix(".weight")
            convolutions.append(_Convolution(node.name, module, behind[0].name if is_activated else None))
    return convolutions


def graph_inputs(
    images: Sequence[Path], predictor: Predictor[Any, Any], cfg: CfgNode, others: dict[str, NDArray[Any]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """The inputs of a graph for each image, of large images for their first window.

    Args:
        images: The images.
        predictor: Reads and resizes them as for the model.
        cfg: The config of the model.
        others: The inputs beside ``image``.

    Raises:
        DataError: An image cannot be read.
    """
    size = InputSize(short_side_px=cfg.INPUT.MIN_SIZE_TEST, max_side_px=cfg.INPUT.MAX_SIZE_TEST)
    samples = PredictionSamples(
        images, reader=predictor.reader, size=size, is_semantic=isinstance(predictor, SemanticPredictor)
    )
    side_px = cfg.TEST.WINDOW_PX or None
    for index in range(len(images)):
        yield {"image": samples[index]["image"][:, :side_px, :side_px].float().contiguous().numpy(), **others}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what onnxruntime's quantization logs on the root logger: advice for operators that are not quantized."""
    root = logging.getLogger()
    was = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(was)
