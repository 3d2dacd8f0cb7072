"""Where and how precisely a model is run: device, memory layout, autocast."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from d2tune.hardware import WORTHWHILE_SPEEDUP, bfloat16_speedup

Precision = Literal["float32", "bfloat16"]


def choose_device() -> str:
    """``cuda`` where torch can use one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, device: str) -> Precision:
    """``auto`` becomes bfloat16 where it is measured or known to be faster on this machine."""
    if wanted != "auto":
        return "bfloat16" if wanted == "bfloat16" else "float32"
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if bfloat16_speedup() > WORTHWHILE_SPEEDUP else "float32"


def speed_up(model: nn.Module, *, device: str, precision: Precision) -> nn.Module:
    """Let the backbone run in ``channels_last`` and, for bfloat16, under autocast.

    Features come out as float32, because the heads' operators (RoIAlign, point sampling) have no bfloat16
    on the CPU. The model is changed in place and returned; its state dict keeps its names.
    """
    backbone: Any = model.backbone
    backbone.to(memory_format=torch.channels_last)
    plain = backbone.forward

    def forward(x: Tensor) -> dict[str, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            features = plain(x)
        return {name: feature.float() for name, feature in features.items()}

    backbone.forward = forward
    return model
