"""The networks of exported models: arrays in, arrays out, in the runtime of their format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from d2tune.errors import PackageError
from d2tune.export.graphs.base import Graph
from d2tune.text import reason_of

Arrays = dict[str, NDArray[Any]]


class Network(Protocol):
    """A network with inputs and outputs by name, see `graphs`."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """The outputs for the inputs of an image."""


class OnnxModel:
    """An ONNX file in onnxruntime, on the processor.

    Args:
        path: The file.

    Raises:
        PackageError: The file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # threads that wait sleep (docs/decisions/005-sleeping-threads.md)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # it warns of each output whose number of rows is open
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no other base class
            raise _unreadable(path, error) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Network`."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


class TorchScriptModel:
    """A TorchScript file on the processor.

    Args:
        path: The file.
        input_names: Names of its inputs in order.
        output_names: Names of its outputs in order.

    Raises:
        PackageError: The file cannot be loaded.
    """

    def __init__(self, path: Path, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        try:
            self._module = load_torchscript(path)
        except (RuntimeError, ValueError, OSError) as error:
            raise _unreadable(path, error) from error
        self._inputs, self._outputs = tuple(input_names), tuple(output_names)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Network`."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(inputs[name]) for name in self._inputs))
        return _named(self._outputs, outputs)


def load_torchscript(path: Path) -> Any:
    """A TorchScript module in evaluation mode, on the processor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]


class OpenVinoModel:
    """An OpenVINO file on the processor, compiled for each of its sizes when an image of this size comes first.

    Args:
        path: The ``.xml`` file, beside its ``.bin`` file.
        output_names: Names of its outputs in order.

    Raises:
        PackageError: The file cannot be loaded.
    """

    def __init__(self, path: Path, output_names: Sequence[str]) -> None:
        import openvino

        self._path, self._outputs = path, tuple(output_names)
        self._core = openvino.Core()
        self._compiled: dict[tuple[int, ...], Any] = {}
        try:
            self._core.read_model(path)
        except RuntimeError as error:
            raise _unreadable(path, error) from error

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Network`."""
        shape = inputs["image"].shape
        if shape not in self._compiled:
            self._compiled[shape] = self._compile({name: list(array.shape) for name, array in inputs.items()})
        results = self._compiled[shape](dict(inputs))
        return {name: np.array(results[place]) for place, name in enumerate(self._outputs)}

    def _compile(self, shapes: dict[str, list[int]]) -> Any:
        model = self._core.read_model(self._path)
        model.reshape(shapes)
        # bfloat16, its default on some processors, drifts
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return self._core.compile_model(model, "CPU", options)


class TracedGraph:
    """A graph that runs as it is in torch; the reference of a model whose images are padded to fixed sizes.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Network`."""
        with torch.no_grad():
            outputs = self._graph(*(torch.from_numpy(inputs[name]) for name in self._graph.input_names))
        return _named(self._graph.output_names, outputs)


def _named(names: Sequence[str], outputs: Any) -> Arrays:
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    return {name: one.numpy() for name, one in zip(names, given, strict=True)}


def _unreadable(path: Path, error: Exception) -> PackageError:
    hint = "Export the model again, or update the library of its format."
    return PackageError(f"the exported model cannot be loaded: {reason_of(error)}", file=path, hint=hint)
