"""ONNX files whose backbone computes in 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.errors import DataError
from d2tune.export.check.images import evenly
from d2tune.export.onnx_file import halve_weights
from d2tune.inference.images import InputSize, PredictionSamples, find_images, find_rasters
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.semantic import SemanticPredictor

LEAST_IMAGES, MOST_IMAGES = 10, 100
"""Images that the ranges of the values are measured on."""


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


def quantize(path: Path, inputs: Iterator[dict[str, NDArray[Any]]]) -> None:
    """Let the convolutions of the backbone of an ONNX file compute in 8 bits, and store other weights as float16.

    Weights are symmetric with a scale for each channel; the ranges of the values between layers are those on the
    images. The heads compute in float32.

    Args:
        path: The ONNX file, which is replaced.
        inputs: The inputs of the graph for each image.

    Raises:
        DataError: An image cannot be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(inputs, None)

    prepared = path.with_name("prepared.onnx")
    with _quiet():
        quant_pre_process(path, prepared, skip_optimization=True, skip_symbolic_shape=True)
        nodes = [node.name for node in onnx.load(prepared).graph.node if is_of_backbone(node)]
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
    prepared.unlink()
    halve_weights(path)


def is_of_backbone(node: Any) -> bool:
    """Whether a node is a convolution of the backbone, or of the encoder of a network of the bridge."""
    return node.op_type == "Conv" and str(node.name).startswith(("/backbone/", "/network/"))


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
