"""Where and how precisely a model is run: device, memory layout, autocast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from d2tune.hardware import memory_bytes
from d2tune.modeling.group_norm import use_own_gradient
from d2tune.modeling.precision import Precision, autocast_dtype


def choose_device() -> str:
    """``cuda`` where torch can use one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def used_memory(device: str) -> tuple[int, int, str]:
    """Memory in use, all memory, both in bytes, and whose it is.

    On CUDA it is what torch has reserved of the GPU, elsewhere what this process has of the machine.

    Args:
        device: ``cuda`` or ``cpu``.
    """
    if device == "cuda":
        return torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory, "GPU"
    import psutil

    return psutil.Process().memory_info().rss, memory_bytes()[0], "process"


def speed_up(model: nn.Module, *, device: str, precision: Precision) -> nn.Module:
    """Let the convolutional parts run in ``channels_last`` and, unless in float32, under autocast.

    These are the backbone and the layers of semantic heads, or the network of a bridge model. Their results come out
    as float32, because other operators (RoIAlign, point sampling) have no bfloat16 on the CPU. The model, or each
    member of an assembled one, is changed in place and returned; its state dict keeps its names.
    """
    members: Any = getattr(model, "members", None)
    if members is not None:
        for member in members:
            speed_up(member, device=device, precision=precision)
        return model
    body: Any = model.backbone if hasattr(model, "backbone") else model.network
    body.to(memory_format=torch.channels_last)
    use_own_gradient(model)
    plain = _autocast(body.forward, device=device, precision=precision)
    body.forward = lambda x: plain(x.contiguous(memory_format=torch.channels_last))
    for head in _semantic_heads(model):
        head.layers = _autocast(head.layers, device=device, precision=precision)
    return model


def _semantic_heads(model: Any) -> list[Any]:
    """The heads that predict a map from all features by convolutions, in their ``layers``."""
    heads = [getattr(model, name, None) for name in ("sem_seg_head", "ins_embed_head")]
    return [getattr(head, "coarse_sem_seg_head", head) for head in heads if head is not None]


def _autocast(function: Callable[..., Any], *, device: str, precision: Precision) -> Callable[..., Any]:
    def cast(*arguments: Any) -> Any:
        with torch.autocast(device, dtype=autocast_dtype(precision), enabled=precision != "float32"):
            result = function(*arguments)
        return _as_float32(result)

    return cast


def _as_float32(result: Any) -> Any:
    if isinstance(result, Mapping):
        return {name: one.float() for name, one in result.items()}
    if isinstance(result, list | tuple):
        return type(result)(one.float() for one in result)
    return result.float()
