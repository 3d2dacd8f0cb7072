"""ONNX files of graphs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from d2tune.errors import PackageError
from d2tune.export.formats import OPSET
from d2tune.export.graphs.base import Graph
from d2tune.text import reason_of

_OPEN = {
    "image": {1: "height", 2: "width"},
    "boxes": {0: "instances"},
    "classes": {0: "instances"},
    "scores": {0: "instances"},
    "masks": {0: "instances"},
    "lower_scores": {0: "lower_instances"},
    "sem_seg": {1: "height", 2: "width"},
}
"""The open dimensions of inputs and outputs."""

_SMALLEST = 256
"""Weights with fewer numbers keep float32."""


def write_onnx(graph: Graph, example: Sequence[Tensor], path: Path) -> None:
    """Trace a graph into an ONNX file, and check it.

    Args:
        graph: The graph.
        example: Its inputs, whose sizes stay open.
        path: The file.

    Raises:
        PackageError: The model has an operation that ONNX lacks.
    """
    import onnx

    names = (*graph.input_names, *graph.output_names)
    with torch.no_grad(), quiet_tracing():
        try:
            torch.onnx.export(
                graph,
                tuple(example),
                path,
                opset_version=OPSET,
                dynamo=False,
                input_names=graph.input_names,
                output_names=graph.output_names,
                dynamic_axes={name: _OPEN[name] for name in names if name in _OPEN},
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise PackageError(f"the model has an operation that ONNX lacks: {reason_of(error)}") from error
    onnx.checker.check_model(str(path), full_check=True)


class quiet_tracing(warnings.catch_warnings):  # noqa: N801 - a context manager
    """Hide what tracing warns of: Python values become constants, which the check of an export would show."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore", TracerWarning)
        # the exporter of traced graphs is deprecated, but the other one stops in Detectron2's padding
        warnings.filterwarnings(
            "ignore", r"(?s).*(legacy TorchScript-based|feature will be removed)", DeprecationWarning
        )
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        # constants that it does not fold; negative indices, which the graphs do not have
        warnings.filterwarnings("ignore", r"(?s).*(Constant folding|advanced indexing)", UserWarning)
        return entered


def halve_weights(path: Path) -> None:
    """Store the weights of an ONNX file as float16; a runtime converts them when it loads the file.

    The network computes in float32, as processors have no fast float16. Weights that float16 cannot hold stay.
    """
    import onnx

    model = onnx.load(path)
    used = {name for node in model.graph.node for name in node.input}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name not in used:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size < _SMALLEST or not np.isfinite(halved).all():
            continue
        name, stored = tensor.name, f"{tensor.name}.float16"
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
