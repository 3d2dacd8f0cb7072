"""TorchScript files of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2tune.export.graphs.base import Graph
from d2tune.export.onnx_file import quiet_tracing


def write_torchscript(graph: Graph, example: Sequence[Tensor], path: Path) -> None:
    """Trace a graph into a TorchScript file.

    Args:
        graph: The graph.
        example: Its inputs, whose sizes stay open.
        path: The file.
    """
    trace: Any = torch.jit.trace
    with torch.no_grad(), quiet_tracing():
        traced = trace(graph, tuple(example), check_trace=False, strict=False)
        torch.jit.save(torch.jit.freeze(traced, optimize_numerics=False), path)
